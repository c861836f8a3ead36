"""Pictures that look alike: the same photograph in another size, quality or brightness."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retinanet.data.images import small_grey
from retinanet.errors import DataError
from retinanet.runtime.console import progress
from retinanet.runtime.files import READING_THREADS

SIDE = 16  # of the grid of brightness differences
DISTANCE = 26  # of the 256 bits that may differ; unrelated photographs differ in 65 to 190
FLAT = 8  # grey values; a picture without larger differences has no structure to compare
BLOCK = 2048  # pictures that are compared with as many at a time

Bits = NDArray[np.bool_]


def alike(paths: Sequence[Path], distance: int = DISTANCE) -> list[list[int]]:
    """Groups of pictures that look alike, by their positions, in order.

    Pictures belong together that are alike by way of others, as the frames of a film. Those that
    cannot be read, or are nearly of one colour, are in no group. Equal files are in one, too.

    Args:
        paths: the pictures.
        distance: bits of two hashes that may differ.
    """
    bits, usable = difference_hashes(paths)
    positions = np.flatnonzero(usable)
    groups: dict[int, list[int]] = {}
    for position, first in zip(positions.tolist(), linked(bits[usable], distance), strict=True):
        groups.setdefault(int(first), []).append(position)
    return [group for group in groups.values() if len(group) > 1]


def difference_hashes(paths: Sequence[Path]) -> tuple[Bits, Bits]:
    """Hashes that say of each place in a picture whether it gets brighter to the right.

    JPEGs are decoded at a fraction of their size, by threads.

    Returns:
        [N, 256] bits, and [N] whether a picture could be read and has structure.
    """
    bits = np.zeros((len(paths), SIDE * SIDE), bool)
    usable = np.zeros(len(paths), bool)

    def look(k: int) -> None:
        try:
            grey = small_grey(paths[k], SIDE + 1, SIDE).astype(np.int16)
        except DataError:
            return
        bits[k] = (grey[:, 1:] > grey[:, :-1]).ravel()
        usable[k] = grey.max() - grey.min() > FLAT

    with ThreadPoolExecutor(READING_THREADS) as pool:
        looked = pool.map(look, range(len(paths)))
        for _ in progress(looked, total=len(paths), desc="near-duplicates"):
            pass
    return bits, usable


def linked(bits: Bits, distance: int) -> NDArray[np.int64]:
    """[N] for each hash the first one that it is linked to, by steps of at most `distance` bits.

    Compared by matrix products of +1 and -1, a block with a block: all of 100,000 in a minute or
    two. No pairs are listed, for a film of 10,000 frames has 50 million of them.
    """
    signs = np.where(bits, np.float32(1), np.float32(-1))
    least = bits.shape[1] - 2 * distance  # of the product of two rows: equal less different bits
    first = np.arange(len(bits))
    for row in range(0, len(signs), BLOCK):
        for column in range(row, len(signs), BLOCK):
            close = signs[row : row + BLOCK] @ signs[column : column + BLOCK].T >= least
            if row == column:
                np.fill_diagonal(close, False)
            for k in np.flatnonzero(close.any(axis=1)).tolist():
                group = np.unique(
                    np.append(first[column : column + BLOCK][close[k]], first[row + k])
                )
                if len(group) > 1:
                    first[np.isin(first, group)] = group[0]
    return first
