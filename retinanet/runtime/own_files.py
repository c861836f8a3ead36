"""Files that this program wrote: no other file is ever replaced or removed.

A file's content says so, not a list that lies beside it: a folder may be copied, and a run killed
between any two writes. A file is the program's own if it begins as `_BEGINNINGS` says for its
ending. Pictures and pages carry a mark for it; of the others the first fields are unmistakable. A
file of any other ending, a folder and a broken link are never the program's.

`files.whole_file`, through which all is written, refuses to replace anything else, and
`check_output_dir` finds that out before the work; `remove_own` removes nothing else. Where a name
may be chosen freely (pictures, predictions), the next free one is taken. Only a file that a flag
names by itself and --overwrite gives up (OUT of tools.convert and tools.export) is replaced
whatever it is.

Version 1.0 did not mark its pictures: those of its report are known by the page that they are part
of, and its charts by their maker beside such a page. Its other pictures stay where they are.
"""

import re
from base64 import b64encode
from pathlib import Path

from retinanet.errors import DataError, printable

MARK = "retinanet"
"""Stands in pictures (PNG: the text `Software`; JPEG: the comment) and in pages."""

_HEAD = 4096  # bytes of a file that are looked at

_PICKLED_VERSION = rb"\x80\x02}q\x00\(X\x07\x00\x00\x00versionq\x01K"

_BEGINNINGS = {
    # A zip of torch, perhaps cut, whose dictionary begins with a version: checkpoints and states.
    ".pt": rb"PK\x03\x04.{26}archive/data\.pkl.{0,128}?" + _PICKLED_VERSION,
    ".html": rb'<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8">'
    rb'<meta name="generator" content="retinanet">\n',
    ".png": rb"\x89PNG.*tEXtSoftware\x00retinanet",
    ".jpg": rb"\xff\xd8.*\xff\xfe\x00\x0bretinanet",
    ".json": rb'\{\n "flags": \{\n'  # config.json
    rb'|\{\n "precision": "\w+",\n "'  # metrics.json
    rb'|\[\]\Z|\[\n \{\n  "image_id": .{1,40},\n  "category_id": \d+,\n  "bbox": \[\n'
    rb'|\{\n "first": ".{1,200}",\n "images": \d+,\n "others": \['  # compare.json
    rb'|\{\n "min_side": \d+,\n "max_side": \d+,\n "anchor_sizes": \[',  # check.json
    ".jsonl": rb'\Z|\{"kind": "(step|epoch)", "epoch": ',  # empty until the first step
    ".md": rb"<!-- retinanet -->",  # the model card
    ".csv": rb"path,x1,y1,x2,y2,class,score,reason\n",  # suspected annotation errors
    ".txt": rb"# retinanet: ",  # lists of images
    ".lock": rb"\Z|process \d+ ",
}

# TensorBoard's, whose names end in anything: a curve that only this program draws.
_EVENTS = "events.out.tfevents."
_CURVES = rb".*(train/classification_loss|epoch/mean_loss)"


def is_own(path: Path) -> bool:
    """Whether this program wrote what is there, by its content."""
    suffix = Path(path.name.removesuffix(".tmp")).suffix  # .tmp: left by a kill of version 1.0
    beginning = _CURVES if path.name.startswith(_EVENTS) else _BEGINNINGS.get(suffix)
    if beginning is None or not path.is_file():
        return False
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
    return bool(re.match(beginning, head, re.DOTALL)) or _is_of_old_report(path, head)


def is_foreign(path: Path) -> bool:
    """Whether anything is there that this program did not write."""
    return (path.is_symlink() or path.exists()) and not is_own(path)


def refuse_foreign(path: Path, advice: str = "choose another --output_dir") -> None:
    """Make sure that nothing is lost if a file is written to `path`.

    Args:
        path: of the file.
        advice: ends the message.

    Raises:
        DataError: something is there that this program did not write.
    """
    if is_foreign(path):
        raise DataError(
            f"{printable(path)}: was not written by this program, which would replace it; move it"
            f" away, or {advice}"
        )


def remove_own(path: Path) -> None:
    """Remove a file if it is there and this program wrote it."""
    if is_own(path):
        path.unlink()


def _is_of_old_report(path: Path, head: bytes) -> bool:
    """Whether a picture without a mark is of a report of version 1.0."""
    page = path.parent.parent / "report.html"
    if path.parent.name != "report" or not is_own(page):
        return False
    if path.suffix == ".png":
        return b"tEXtSoftware\x00Matplotlib version" in head
    return path.suffix == ".jpg" and b64encode(path.read_bytes()) in page.read_bytes()
