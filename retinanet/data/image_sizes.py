"""Sizes of images, from their headers, and those that annotations claim."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from retinanet.data.images import UNKNOWN, Size, inspect_image, is_sideways
from retinanet.data.problems import Array, Problems
from retinanet.errors import DataError, printable, shown
from retinanet.runtime.files import READING_THREADS

HEADERS_AT_ONCE = 64  # sizes that a thread reads before it takes the next part


NAMED = 3  # images that a note names


def read_sizes(
    paths: Sequence[Path], lines: Array, problems: Problems, absent: Sequence[int] = ()
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
    images: Sequence[Any], paths: Sequence[Path], sizes: Sequence[Size], problems: Problems
) -> None:
    """Compare the sizes that COCO's JSON says, where it does, with those of the files.

    Args:
        images: the JSON's list.
        paths: of the images.
        sizes: of the files, which count.
        problems: takes in where the JSON says otherwise.
    """
    said = [(image.get("height"), image.get("width")) for image in images]
    other = [
        k
        for k, size in enumerate(sizes)
        if size not in (UNKNOWN, said[k]) and all(isinstance(side, int) for side in said[k])
    ]
    turned = [k for k in other if said[k] == sizes[k][::-1] and is_sideways(paths[k])]
    others = sorted(set(other).difference(turned))

    def found(k: int) -> str:
        (said_height, said_width), (height, width) = said[k], sizes[k]
        return (
            f"image {images[k]['id']}: {said_width} x {said_height} pixels;"
            f" expected {width} x {height} as in {shown(images[k]['file_name'])}"
        )

    problems.repair(
        "image size from before EXIF's rotation",
        [0] * len(turned),
        lambda k: (
            f"{found(turned[k])}, upright as EXIF says it is shown; correct it, and turn its boxes"
            " if they are for the file as stored"
        ),
    )
    problems.repair(
        "image size that is not the file's",
        [0] * len(others),
        lambda k: f"{found(others[k])}; correct it, and scale its boxes if the file was resized",
    )
