"""Files: written whole or not at all, never in place of another's, under names that are free."""

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from retinanet.errors import DataError, printable
from retinanet.runtime.own_files import refuse_foreign

READING_THREADS = min(16, 4 * (os.cpu_count() or 1))  # they mostly wait for the disk
_TEMPORARY = ".retinanet-"  # how names of files begin that are not yet whole


@contextmanager
def whole_file(path: Path, *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """A stream to write a file to: `path` is the old file or the whole new one, never less.

    It is written under a name of its own, flushed to the disk, and renamed; its folder is made.

    Args:
        path: of the file.
        overwrite: replace even a file that this program did not write; its user said so.

    Raises:
        DataError: the disk is full or not writable, or a file is there that this program did not
            write; the old file is whole.
    """
    with _replacement(path, overwrite=overwrite) as temporary:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())


def write_whole(path: Path, content: bytes, *, overwrite: bool = False) -> None:
    """Write a file whole or not at all, making its folder; arguments and errors as `whole_file`."""
    with whole_file(path, overwrite=overwrite) as stream:
        stream.write(content)


def link_whole(source: Path, path: Path) -> None:
    """Give a file that is never changed, only replaced, a second name; errors as `whole_file`.

    Where the file system has no hard links, it is copied.
    """
    with _replacement(path) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())


def remove_temporaries(folder: Path) -> None:
    """Remove what was left of files by a process that was killed while it wrote to this folder."""
    for file in folder.glob(f"{_TEMPORARY}*.tmp"):
        file.unlink(missing_ok=True)


def check_output_dir(
    folder: str | Path,
    advice: str = "choose another --output_dir",
    names: Iterable[str] = (),
) -> None:
    """Refuse a folder that results cannot be written to, before the work; none is made.

    Args:
        folder: for the results; it need not exist.
        advice: ends the message.
        names: of the files, below the folder; earlier results may be there.

    Raises:
        DataError: the folder is a file or below one, or may not be written to; or a file of such a
            name is there that this program did not write.
    """
    paths = [Path(folder) / name for name in names]
    for parent in sorted({Path(folder), *(path.parent for path in paths)}):
        _check_folder(parent, advice)
    for path in paths:
        refuse_foreign(path, advice)


def _check_folder(path: Path, advice: str) -> None:
    while not os.path.lexists(path):
        path = path.parent
    if not path.is_dir():
        raise DataError(f"{printable(path)}: a file; expected a folder; {advice}")
    if not os.access(path, os.W_OK | os.X_OK):
        raise DataError(f"{printable(path)}: may not be written to; {advice}")


@contextmanager
def _replacement(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A free name beside `path` for a file that becomes `path` at the end, or is removed."""
    temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if not overwrite:
            refuse_foreign(path)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into the latter
        reason = getattr(error, "strerror", None) or "perhaps the disk is full"
        raise DataError(
            f"{path}: could not be written ({reason}); make room, or choose another --output_dir"
        ) from error
    finally:
        with suppress(OSError):  # such as the one that is said already
            temporary.unlink(missing_ok=True)


def path_below(path: str | Path, folder: Path) -> str:
    """A path from a folder on; whole where they lie on two drives of Windows."""
    try:
        return os.path.relpath(path, folder)
    except ValueError:
        return str(path)


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
