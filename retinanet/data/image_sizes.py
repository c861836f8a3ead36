"""Sizes of images, from their headers, and those that annotations claim."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from retinanet.data.annotations import Annotations
from retinanet.data.images import UNKNOWN, Size, inspect_image, is_sideways
from retinanet.data.problems import Array, Problems
from retinanet.errors import DataError, counted, printable, shown
from retinanet.runtime.files import READING_THREADS

HEADERS_AT_ONCE = 64  # sizes that a thread reads before it takes the next part
NAMED = 3  # images that a note names
ROUNDING = 1  # pixel that a box may lie outside its image


def read_sizes(
    paths: Sequence[str | Path], lines: Array, problems: Problems, absent: Sequence[int] = ()
) -> list[Size]:
    """The size of each image, from the headers, read in parallel.

    Args:
        paths: the images.
        lines: [len(paths)] where a file names them.
        problems: takes in those that cannot be read.
        absent: positions of those known to be missing.

    Returns:
        One an image, `UNKNOWN` for the absent and the unreadable ones.
    """

    def inspected(indices: Sequence[int]) -> list[tuple[Size, str] | DataError]:
        found: list[tuple[Size, str] | DataError] = []
        for k in indices:
            try:
                found.append(inspect_image(paths[k]))
            except DataError as error:
                found.append(error)
        return found

    wanted = sorted(set(range(len(paths))).difference(absent))
    step = max(1, min(HEADERS_AT_ONCE, len(wanted) // READING_THREADS))
    parts = [wanted[start : start + step] for start in range(0, len(wanted), step)]
    with ThreadPoolExecutor(READING_THREADS) as pool:
        found = [facts for part in pool.map(inspected, parts) for facts in part]
    sizes, errors, broken = [UNKNOWN] * len(paths), {}, {}
    for k, facts in zip(wanted, found, strict=True):
        if isinstance(facts, DataError):
            errors[k] = facts
            continue
        sizes[k], repaired = facts
        if repaired:
            broken[k] = f"{printable(paths[k])}: {repaired}"
    bad = list(errors)
    problems.leave_out("unreadable image", lines[bad], lambda k: str(errors[bad[k]]))
    _note_broken(broken, lines, problems)
    return sizes


def _note_broken(broken: Mapping[int, str], lines: Array, problems: Problems) -> None:
    """Count and name the JPEGs that break off, and are read as far as they go."""
    ends = list(broken.values())
    problems.repair(
        "JPEG that breaks off",
        lines[list(broken)],
        lambda k: f"{ends[k]}; expected a whole JPEG; save it anew",
    )
    if ends and not problems.strict:
        more = f" and {len(ends) - NAMED:,} more" if len(ends) > NAMED else ""
        problems.remarks.append(f"read as far as they go: {'; '.join(ends[:NAMED])}{more}")


def check_sizes(
    data: Annotations,
    claimed: Array,
    paths: Sequence[str],
    sizes: Sequence[Size],
    problems: Problems,
) -> None:
    """Compare the sizes that a file claims with those of the images.

    Args:
        data: names the images.
        claimed: [images, 2] height and width; 0 where the file claims none.
        paths: of the images.
        sizes: of the images, which count.
        problems: takes in where the file claims others.
    """
    real = np.array(sizes).reshape(-1, 2)
    is_known = (claimed > 0).all(axis=1) & (real > 0).all(axis=1)
    others = np.flatnonzero(is_known & (claimed != real).any(axis=1)).tolist()
    flipped = (claimed == real[:, ::-1]).all(axis=1)
    turned = [k for k in others if flipped[k] and is_sideways(paths[k])]
    others = sorted(set(others).difference(turned))

    def found(k: int) -> str:
        (height, width), (real_height, real_width) = claimed[k], real[k]
        return (
            f"image {shown(data.names[k])}: {width} x {height} pixels; expected"
            f" {real_width} x {real_height} as in the file"
        )

    problems.repair(
        "image size from before EXIF's rotation",
        data.first_lines[turned],
        lambda k: (
            f"{found(turned[k])}, upright as EXIF says it is shown; correct it, and turn its boxes"
            " if they are for the file as stored"
        ),
    )
    problems.repair(
        "image size that is not the file's",
        data.first_lines[others],
        lambda k: f"{found(others[k])}; correct it, and scale its boxes if the file was resized",
    )
    if others and not problems.strict:
        _tell_resized(data, claimed, real, others, problems)


def _tell_resized(
    data: Annotations, claimed: Array, real: Array, others: Sequence[int], problems: Problems
) -> None:
    """Remark on images of another size than a file says; a problem where most boxes need that one.

    Args:
        data: the boxes, in pixels.
        claimed: [images, 2] height and width in the file.
        real: [images, 2] those of the images.
        others: the images where they differ.
        problems: takes in either.
    """
    k = others[0]
    first = (
        f"{shown(data.names[k])} is {real[k, 1]} x {real[k, 0]} pixels, and {claimed[k, 1]} x"
        f" {claimed[k, 0]} in the file"
    )
    ends = [data.boxes_of(image)[:, 2:4] for image in others]
    beyond, beyond_claimed = (
        sum(
            int((own > sizes[image][::-1] + ROUNDING).any(axis=1).sum())
            for own, image in zip(ends, others, strict=True)
        )
        for sizes in (real, claimed)
    )
    count = sum(map(len, ends))
    if 2 * beyond > count and not beyond_claimed:
        text = f"{beyond:,} of {count:,} boxes lie in the latter alone; scale them to the images"
        problems.add_one("boxes for images of another size", f"{first}; {text}")
        return
    many = f"{counted(len(others), 'image')} of another size than the file says: {first}"
    advice = "boxes are taken as they are; scale them if the images were resized after labelling"
    problems.remarks.append(f"{many}; {advice}")
