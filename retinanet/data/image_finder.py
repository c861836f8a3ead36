"""The images that an annotation file names, found on the disk."""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from retinanet.data.annotations import Annotations
from retinanet.data.problems import Problems
from retinanet.errors import shown


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
    problems.leave_out(
        "missing image",
        data.first_lines[absent],
        lambda k: (
            f"no image {shown(names[absent[k]])} in {tried}; "
            f"expected all images of a file under one folder; {advice}"
        ),
    )
    return roots[missing.index(absent)], absent


def _missing(root: Path, names: Sequence[str]) -> list[int]:
    """Names that do not exist: each folder is listed once, which is cheaper than a stat each."""
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
