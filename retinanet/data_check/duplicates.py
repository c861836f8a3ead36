"""Files of equal content."""

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from retinanet.runtime.files import READING_THREADS

HEAD = 4096  # bytes that tell most files apart


def equal_files(paths: Sequence[Path]) -> list[list[int]]:
    """Groups of files of the same content, by their positions.

    Only files of one size are opened, and only those that begin alike are read whole.
    """
    groups = [list(range(len(paths)))]
    with ThreadPoolExecutor(READING_THREADS) as pool:
        for key in (_size, _head, _content):
            positions = [k for group in groups for k in group]
            keys = pool.map(key, [paths[k] for k in positions])
            key_of = dict(zip(positions, keys, strict=True))
            groups = [part for group in groups for part in _split(group, key_of)]
    return groups


def _split(group: Sequence[int], key_of: dict[int, Hashable]) -> list[list[int]]:
    """Parts of a group with one key, of two or more."""
    parts: dict[Hashable, list[int]] = defaultdict(list)
    for k in group:
        parts[key_of[k]].append(k)
    return [part for part in parts.values() if len(part) > 1]


def _size(path: Path) -> int:
    return path.stat().st_size


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return hashlib.blake2b(stream.read(HEAD)).digest()


def _content(path: Path) -> bytes:
    digest = hashlib.blake2b()
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.digest()
