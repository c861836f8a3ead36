"""What annotations and images must agree on: each image is there, and of the size that is said."""

import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from retinanet.annotations import Annotations, Array, Problems, shown
from retinanet.errors import DataError
from retinanet.files import READING_THREADS
from retinanet.images import UNKNOWN, Size, image_size, is_sideways

HEADERS_AT_ONCE = 64  # sizes that a thread reads before it takes the next part


def find_root(
    roots: Sequence[Path], data: Annotations, advice: str, problems: Problems
) -> tuple[Path, list[int]]:
    """The first folder that holds every image, else the one that lacks fewest.

    Returns:
        The folder, and the positions of the images that it lacks, which are problems.
    """
    names = data.names
    missing: list[list[int]] = []
    for root in roots:
        missing.append(_missing(root, names))
        if not missing[-1]:
            return root, []
    absent = min(missing, key=len)
    tried = " and ".join(str(root.absolute()) for root in roots)
    problems.add(
        "missing image",
        data.first_lines[absent],
        lambda k: (
            f"no image {shown(names[absent[k]])} in {tried}; "
            f"expected all images of a file under one folder; {advice}"
        ),
    )
    return roots[missing.index(absent)], absent


def _missing(root: Path, names: Sequence[str]) -> list[int]:
    """Which names do not exist: each folder is listed once, which is cheaper than a stat each."""
    by_folder: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for k, name in enumerate(names):
        folder, base = os.path.split(os.path.join(root, name))
        by_folder[folder].append((k, base))
    absent: list[int] = []
    for folder, entries in by_folder.items():
        try:
            there = set(os.listdir(folder or "."))
        except (OSError, ValueError):
            there = set()
        absent += [k for k, base in entries if base not in there]
    return sorted(absent)


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

    def sizes_or_errors(indices: Sequence[int]) -> list[Size | DataError]:
        found: list[Size | DataError] = []
        for k in indices:
            try:
                found.append(image_size(paths[k]))
            except DataError as error:
                found.append(error)
        return found

    wanted = sorted(set(range(len(paths))).difference(absent))
    step = max(1, min(HEADERS_AT_ONCE, len(wanted) // READING_THREADS))
    parts = [wanted[start : start + step] for start in range(0, len(wanted), step)]
    with ThreadPoolExecutor(READING_THREADS) as pool:
        found = [size for part in pool.map(sizes_or_errors, parts) for size in part]
    sizes, errors = [UNKNOWN] * len(paths), {}
    for k, size in zip(wanted, found, strict=True):
        if isinstance(size, DataError):
            errors[k] = size
        else:
            sizes[k] = size
    bad = list(errors)
    problems.add("unreadable image", lines[bad], lambda k: str(errors[bad[k]]))
    return sizes


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
