"""Files: written whole or not at all, under names that are free, read by several threads."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from retinanet.errors import DataError, printable

READING_THREADS = min(16, 4 * (os.cpu_count() or 1))  # they mostly wait for the disk


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A stream to write a file to: `path` is the old file or the whole new one, never less.

    It is written under another name, flushed to the disk, and renamed; its folder is made.

    Raises:
        DataError: the disk is full or not writable; the old file is whole.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into the latter
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{path}: could not be written ({reason}); make room, or choose another --output_dir"
        ) from error
    finally:
        with suppress(OSError):  # such as the one that is said already
            temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, making its folder; errors as `whole_file`."""
    with whole_file(path) as stream:
        stream.write(content)


def check_output_dir(folder: str | Path, advice: str = "choose another --output_dir") -> None:
    """Refuse a folder that nothing can be written to, before the work; none is made.

    Raises:
        DataError: it is a file or below one, or may not be written to.
    """
    path = Path(folder)
    while not os.path.lexists(path):
        path = path.parent
    if not path.is_dir():
        raise DataError(f"{printable(path)}: a file; expected a folder; {advice}")
    if not os.access(path, os.W_OK | os.X_OK):
        raise DataError(f"{printable(path)}: may not be written to; {advice}")


def first_free(path: Path, taken: Callable[[Path], bool]) -> Path:
    """`path`, or the first of `name_2`, `name_3` ... beside it that is not taken."""
    free, number = path, 1
    while taken(free):
        number += 1
        free = path.with_name(f"{path.stem}_{number}{path.suffix}")
    return free


def _sync_folder(folder: Path) -> None:
    """Make a rename in it last, where the system has folders to sync."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
