"""One process at a time in a folder, by a lock that the operating system drops with its process."""

import errno
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from retinanet.errors import DataError, printable
from retinanet.runtime.console import say
from retinanet.runtime.own_files import refuse_foreign

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK_FILE = ".retinanet.lock"

_BUSY = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)  # of the systems' locks, when another has it

_BEHIND_THE_TEXT = 1 << 30  # Windows lets nobody read a byte that is locked

_held: set[int] = set()  # descriptors


def _forget_locks() -> None:
    """In a process that was forked: it would keep the lock when its parent is killed."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep every other process that asks for it out of a folder, which is made if need be.

    At the end a folder that was made and is still empty is removed again. On a file system without
    locks a line says so, and nobody is kept out.

    Raises:
        DataError: another process is in there; it is named.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / LOCK_FILE
    try:
        refuse_foreign(file)
        descriptor = _take(file)
        try:
            yield
        finally:
            _release(file, descriptor)
    finally:
        with suppress(OSError):  # not empty
            for path in missing:
                path.rmdir()


def _take(file: Path) -> int:
    """Lock the file, and write into it whose it is."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor)
        except OSError as error:
            if error.errno in _BUSY:
                other = printable(os.read(descriptor, 200).decode(errors="replace").strip())
                os.close(descriptor)
                raise DataError(
                    f"{file.parent}: another run is at work there ({other or 'just started'}); wait"
                    " for its end, stop it, or choose another --output_dir"
                ) from None
            say(
                f"Warning: {file.parent} is on a file system without locks ({error.strerror});"
                " make sure that no other run writes there"
            )
        if _is_still(file, descriptor):
            break
        os.close(descriptor)  # its last owner has removed it: it would lock nobody out
    _held.add(descriptor)
    os.ftruncate(descriptor, 0)
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}, since {since}".encode())
    return descriptor


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        os.lseek(descriptor, _BEHIND_THE_TEXT, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_still(file: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(file))
    except FileNotFoundError:
        return False


def _release(file: Path, descriptor: int) -> None:
    """Remove the file and drop the lock; a killed process leaves the file, which locks nothing."""
    _held.discard(descriptor)
    if sys.platform == "win32":  # which removes no open file
        os.close(descriptor)
        with suppress(OSError):
            file.unlink()
    else:
        if _is_still(file, descriptor):
            file.unlink()
        os.close(descriptor)
