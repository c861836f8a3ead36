"""Files as torch.save writes them, and zips with other contents."""

import io
import zipfile
from collections.abc import Callable
from typing import Any

import torch


def saved(content: object, **options: Any) -> bytes:
    """What torch.save writes."""
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def zipped(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of files by name."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression, compresslevel=1) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return stream.getvalue()


def repacked(
    content: bytes, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED
) -> bytes:
    """A zip with other contents of its entries."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {name: change(name, archive.read(name)) for name in archive.namelist()}
    return zipped(entries, compression)
