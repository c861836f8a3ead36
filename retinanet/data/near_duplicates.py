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
    first, second = close_pairs(bits[positions], distance)
    return _connected(len(paths), positions[first], positions[second])


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


def close_pairs(bits: Bits, distance: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of hashes that differ in at most `distance` bits, the first before the second.

    Compared by matrix products of +1 and -1, a block with a block: all of 100,000 in a minute.
    """
    signs = np.where(bits, np.float32(1), np.float32(-1))
    least = bits.shape[1] - 2 * distance  # of the product of two rows: equal less different bits
    pairs: list[NDArray[np.int64]] = [np.zeros((0, 2), np.int64)]
    for row in range(0, len(signs), BLOCK):
        for column in range(row, len(signs), BLOCK):
            alike = signs[row : row + BLOCK] @ signs[column : column + BLOCK].T >= least
            found = np.argwhere(alike) + np.array([row, column])
            pairs.append(found[found[:, 0] < found[:, 1]])
    first, second = np.concatenate(pairs).T
    return first, second


def _connected(count: int, first: NDArray[np.int64], second: NDArray[np.int64]) -> list[list[int]]:
    """Groups of two or more of `count` things that pairs connect, by way of others too."""
    leader = list(range(count))

    def lead(k: int) -> int:
        while leader[k] != k:
            leader[k] = leader[leader[k]]
            k = leader[k]
        return k

    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        lower, upper = sorted((lead(a), lead(b)))
        leader[upper] = lower
    groups: dict[int, list[int]] = {}
    for k in sorted({*first.tolist(), *second.tolist()}):
        groups.setdefault(lead(k), []).append(k)
    return list(groups.values())
