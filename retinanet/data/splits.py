"""A validation set cut from data that has none: seeded, the same on every machine."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retinanet.errors import DataError, shown
from retinanet.runtime.files import write_whole

TRAIN_LIST, VAL_LIST = "train_images.txt", "val_images.txt"  # in the folder of a run
HEAD = "# retinanet: the images of this set, below the folder of the data"


def choose_validation(
    names: Sequence[str],
    counts: NDArray[np.int64],
    groups: Sequence[int],
    *,
    share: float,
    seed: int,
) -> list[int]:
    """Choose the images to validate on, whole groups of them, with every class in proportion.

    Iterative stratification (Sechidis et al., 2011): the rarest class is dealt out first, each of
    its groups to the side that still lacks most of it. Images without boxes are a class too.

    Args:
        names: of the images; their order changes nothing.
        counts: [images, K] boxes of each class.
        groups: [images] images of one number stay on one side.
        share: of the images to validate on, in (0, 1).
        seed: of the order in which groups of equal claim are dealt out.

    Returns:
        Positions, ascending: at least one image, and not all.
    """
    empty = (counts.sum(axis=1) == 0).astype(np.int64)
    per_image = np.column_stack((np.ones(len(names), np.int64), empty, counts))
    order = sorted(range(len(names)), key=lambda k: _digest(seed, names[k]))
    members: dict[int, list[int]] = {}
    for k in order:  # so that a group's place is that of its first image
        members.setdefault(groups[k], []).append(k)
    parts = list(members.values())
    held = np.array([per_image[part].sum(axis=0) for part in parts])  # [groups, 2 + K]
    wanted = held.sum(axis=0) * np.array([[1 - share], [share]])  # [2 sides, 2 + K]
    open_groups = np.ones(len(parts), bool)
    sides = np.zeros(len(parts), np.int64)
    while open_groups.any():
        left = held[open_groups].sum(axis=0)
        column = _rarest(left)
        for group in np.flatnonzero(open_groups & (held[:, column] > 0)):
            # The side that lacks most of the class; of two alike, the one that lacks most images.
            claims = [tuple(wanted[side][[column, 0]]) for side in (0, 1)]
            side = int(claims[1] > claims[0])
            sides[group] = side
            wanted[side] -= held[group]
            open_groups[group] = False
    if sides.all() or not sides.any():  # of few groups: the smallest one stands alone
        lonely = int(np.argmin(held[:, 0]))
        sides[lonely] = 1 - sides[lonely]
    return sorted(k for part, side in zip(parts, sides, strict=True) if side for k in part)


def _rarest(left: NDArray[np.int64]) -> int:
    """The column of which least is left, of those with any; the first counts images: the last."""
    there = np.flatnonzero(left[1:] > 0) + 1
    return int(there[np.argmin(left[there])]) if len(there) else 0


def _digest(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed} {name}".encode(errors="surrogateescape")).digest()


# ---- lists of images, as plain text


def write_list(file: Path, names: Sequence[str]) -> None:
    """Write the names of a set's images, a line each, below a line that says what they are."""
    text = "".join(f"{line}\n" for line in (HEAD, *names))
    write_whole(file, text.encode(errors="surrogateescape"))


def read_list(file: Path, names: Sequence[str]) -> list[int]:
    """The positions in `names` of the images that a list names.

    Raises:
        DataError: the file cannot be read, or names an image that is not there.
    """
    try:
        text = file.read_bytes().decode(errors="surrogateescape")
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}; expected a list of images") from error
    position = {name: k for k, name in enumerate(names)}
    found = []
    for number, name in enumerate(text.splitlines(), 1):
        if name == HEAD:
            continue
        if name not in position:
            raise DataError(
                f"{file}:{number}: no image {shown(name)} in the data; expected that which it was"
                " cut from; remove the list, or give that data"
            )
        found.append(position[name])
    return found
