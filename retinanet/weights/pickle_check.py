"""Check of a pickle before it is loaded: it may make nothing but weights that the file holds.

The pickle is run once on stand-ins, by Python's own unpickler cut down to what files of weights
need. `weights_only=True` alone lets a file of 800 bytes ask for gigabytes, by a name such as
bytearray, by a size that it states, or by copying one text a million times.
"""

import io
import math
import mmap
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch

# The operations in the files of torch.save (protocol 2) and in pickles of numpy arrays (to 4).
_OPERATIONS = """
    PROTO FRAME STOP MARK MEMOIZE PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET
    NONE NEWTRUE NEWFALSE INT LONG LONG1 BININT BININT1 BININT2 FLOAT BINFLOAT
    STRING SHORT_BINSTRING UNICODE SHORT_BINUNICODE BINUNICODE SHORT_BINBYTES BINBYTES BINBYTES8
    LIST EMPTY_LIST APPEND APPENDS DICT EMPTY_DICT SETITEM SETITEMS
    TUPLE EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3
    GLOBAL STACK_GLOBAL NEWOBJ REDUCE BUILD BINPERSID
"""
_COPYING = (pickle.REDUCE[0], pickle.BUILD[0])  # operations that may copy what they are given
Stream: TypeAlias = io.BytesIO | mmap.mmap


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """The bytes of a file as a stream; a read of any length takes no more memory than it has."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        yield stream


class LimitedUnpickler(pickle._Unpickler):
    """Python's unpickler with the operations above; names are what `names` has for them.

    All that its calls are given may sum to four times the length of the file: honest files stay
    below twice (bytes of protocol 2 are made of text). The unpickler in C has no such limits: a few
    bytes make it take gigabytes.

    Args:
        stream: of the pickle; it reads no more than there is, whatever it is asked for.
        size: of the file, bytes.
        names: what may be named, as `module.name`, and what stands for it.
    """

    def __init__(self, stream: Stream, size: int, names: Mapping[str, object]) -> None:
        super().__init__(stream, encoding="latin1")
        self.left, self.names = 4 * size, names

    def find_class(self, module: str, name: str) -> object:
        """The stand-in of a name."""
        if f"{module}.{name}" not in self.names:
            raise pickle.UnpicklingError(f"Unsupported global: {module}.{name}")
        return self.names[f"{module}.{name}"]

    def spend_argument(self) -> None:
        """Count the length of the argument on top of the stack, and those of its parts."""
        given = self.stack[-1]  # type: ignore[attr-defined]
        parts = [given, *given] if isinstance(given, tuple) else [given]
        self.left -= sum(len(part) for part in parts if isinstance(part, Sized))
        if self.left < 0:
            raise ValueError("makes more than the file holds")


def _counted(operation: Callable[..., None]) -> Callable[..., None]:
    """An operation whose argument is counted first."""

    def run(unpickler: LimitedUnpickler) -> None:
        unpickler.spend_argument()
        operation(unpickler)

    return run


_ALL = pickle._Unpickler.dispatch
LimitedUnpickler.dispatch = {
    code: _counted(_ALL[code]) if code in _COPYING else _ALL[code]
    for code in (getattr(pickle, name)[0] for name in _OPERATIONS.split())
}


# ---- stand-ins for what torch.save writes ----


class Inert:
    """Stand-in for a class of a pickled module: it can do nothing."""

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _Dict(dict[Any, Any]):
    """Stand-in for an OrderedDict, whose attributes are not kept."""

    def __setstate__(self, state: object) -> None:
        pass


class _Storage(NamedTuple):
    """Stand-in for numbers in the file."""

    numbers: int


def _rebuild_tensor(storage: _Storage, offset: int, size: tuple[int, ...], *rest: object) -> Inert:
    """Stand-in for a tensor; it has no more numbers than its storage."""
    if not isinstance(storage, _Storage) or any(type(n) is not int or n < 0 for n in size):
        raise ValueError("a tensor of no numbers")
    if math.prod(size) > storage.numbers:
        raise ValueError("a tensor claims more numbers than the file holds")
    return Inert()


def _rebuild_parameter(tensor: object, *rest: object) -> object:
    return tensor


def _encode(text: str, encoding: str) -> bytes:
    """Bytes, as protocol 2 says them: in a numpy number, whose stand-in does not look at them."""
    return b""


# Types of storages are named as part of a storage's id, and never called: their bytes a number.
_NUMBERS = {
    f"torch.{kind}Storage": size
    for size, kinds in {
        1: "Bool Byte Char",
        2: "Half BFloat16 Short",
        4: "Float Int",
        8: "Double Long",
    }.items()
    for kind in kinds.split()
}
_NAMES: Mapping[str, object] = {
    "collections.OrderedDict": _Dict,
    "_codecs.encode": _encode,
    "__builtin__.set": Inert,  # of names of buffers, in every module
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    **_NUMBERS,
}


class _TorchCheck(LimitedUnpickler):
    """Runs a pickle of torch.save; its storages may claim no more bytes than the file has."""

    def __init__(self, stream: Stream, size: int, names: Mapping[str, object]) -> None:
        super().__init__(stream, size, names)
        self.storages: dict[str, int] = {}
        self.size = size

    def persistent_load(self, pid: Any) -> _Storage:
        """Stand-in for the storage of an id."""
        if not isinstance(pid, tuple) or pid[0] != "storage":
            raise pickle.UnpicklingError("Only persistent_load of storage is allowed")
        _, number_size, key, _, count = pid[:5]
        if type(count) is not int or count < 0:
            raise ValueError("a storage of no size")
        self.storages[key] = max(self.storages.get(key, 0), number_size * count)
        if sum(self.storages.values()) > self.size:
            raise ValueError("its tensors claim more bytes than the file has")
        return _Storage(count)


def check_torch_file(path: Path, inert_names: tuple[str, ...]) -> None:
    """Refuse a file that is not of torch.save, or that could make more than it holds.

    Args:
        path: a file.
        inert_names: classes of modules that it may name.

    Raises:
        Exception: of any kind; an UnpicklingError says "Unsupported global" where code could run.
    """
    size = path.stat().st_size
    names = {**dict.fromkeys(inert_names, Inert), **_NAMES}
    with mapped(path) as stream:
        if stream[:4] == b"PK\x03\x04":
            for content in _pickles(path, size):
                _TorchCheck(io.BytesIO(content), size, names).load()
            return
        # Before 1.6: magic number, version, machine, content, keys of the storages; then these.
        if _TorchCheck(stream, size, names).load() != torch.serialization.MAGIC_NUMBER:
            raise ValueError("no file of torch.save")
        for _ in range(4):
            _TorchCheck(stream, size, names).load()


def _pickles(path: Path, size: int) -> list[bytes]:
    """The pickles in a zip, which is no larger unpacked: torch packs nothing, a bomb does."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        unpacked = sum(entry.file_size for entry in entries)
        if unpacked > size:
            raise ValueError(f"unpacks to {unpacked:,} bytes, more than it has")
        return [archive.read(entry) for entry in entries if entry.filename.endswith(".pkl")]
