"""The lines of a CSV file: text, fields, quotes, and what is put right in them."""

import contextlib
import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retinanet.data.problems import Array, Problems
from retinanet.errors import DataError

BLOCK = 2**18  # bytes looked at together: they stay in the processor's cache


# What is put right, and what is said of it where nothing may be.
_REPAIRS = {
    "byte order mark": "a byte order mark; expected plain UTF-8; save the file without it",
    "UTF-16 text": "UTF-16 text; expected UTF-8; save the file as UTF-8",
    "fields separated by other signs": (
        "fields separated by semicolons, tabs or bars; expected commas; save the file so"
    ),
    "line end with CR": "a line that ends in CR; expected LF; save the file with Unix line ends",
    "columns by the header": (
        "a header that names the columns; expected rows of path,x1,y1,x2,y2,class alone; write them"
        " so"
    ),
    "columns by what they hold": (
        "columns beyond path,x1,y1,x2,y2,class, or in another order; expected these; write them so"
    ),
    "box within one field": "a box within one field; expected a field for each number; split it",
    "commas too many or too few": "empty fields; expected 6 fields; write path,,,,, without a box",
    "comma behind the fields": "a comma behind the last field; expected name,id; remove it",
    "row of no box": "a row of no box; expected path,,,,,; write it so",
    "header row": "a header row; expected data from the first line on; remove it",
    "class name without an id": "a name alone; expected name,id; add the ids, from 0",
    "id before the name": "id,name; expected name,id; exchange the two",
    "blank line": "a blank line; expected data on every line; remove it",
    "spaces around fields": "spaces around a field; expected none; remove them",
    "comma in quotes": "a comma in quotes; expected none within a field; rename what holds it",
    "fractions of pixels": "a coordinate with a fraction; expected whole pixels; round it",
}


def repair(problems: Problems, kind: str, lines: Sequence[int] | Array) -> None:
    """Count what is put right in a file's text."""
    problems.repair(kind, lines, lambda _: _REPAIRS[kind])


def read_text(path: str | Path, problems: Problems) -> bytes:
    """The text of a CSV file, as `plain_text` gives it.

    Raises:
        DataError: it cannot be read, or is no text.
    """
    if not Path(path).exists():
        raise DataError(f"{path}: no such file; expected a CSV file; correct the path")
    if not Path(path).is_file():
        raise DataError(f"{path}: not a regular file; expected a CSV file; correct the path")
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; expected a readable CSV file") from error
    return plain_text(data, path, problems)


def plain_text(data: bytes, path: str | Path, problems: Problems) -> bytes:
    """UTF-8 without NUL and byte order mark; lines end in LF, commas separate fields.

    Raises:
        DataError: it is no such text.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        repair(problems, "UTF-16 text", [1])
        with contextlib.suppress(UnicodeDecodeError):  # else its bytes are told below
            data = data.decode("utf-16").encode()
    if data.startswith(b"\xef\xbb\xbf"):
        repair(problems, "byte order mark", [1])
        data = data[3:]
    if b"\r" in data:
        ends = enumerate(data.splitlines(keepends=True), start=1)
        repair(problems, "line end with CR", [k for k, line in ends if b"\r" in line])
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    data = re.sub(rb'\A"?sep=.?"?[ ,;\t]*\n', b"\n", data)  # Excel's, for the sign that separates
    bad = data.find(b"\0")
    try:
        _ = data.isascii() or data.decode()
    except UnicodeDecodeError as error:
        bad = min(bad, error.start) if bad >= 0 else error.start
    if bad >= 0:
        line = data.count(b"\n", 0, bad) + 1
        raise DataError(f"{path}:{line}: byte 0x{data[bad]:02x}; expected UTF-8 text; save it so")
    return _with_commas(data, problems)


def _with_commas(data: bytes, problems: Problems) -> bytes:
    """The same lines with commas between the fields, where semicolons or tabs are."""
    first = data.lstrip(b" \n").partition(b"\n")[0]
    separator = max(b";\t|", key=first.count)
    if first.count(separator) <= first.count(b","):
        return data
    repair(problems, "fields separated by other signs", [1])
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for line in data.decode().removesuffix("\n").split("\n"):
        try:
            fields = next(csv.reader([line], delimiter=chr(separator)), [])
        except csv.Error:  # a field without end
            fields = [line]
        # Where semicolons separate, a comma is often the decimal point.
        numbers = (re.sub(r"^(-?\d+),(\d+)$", r"\1.\2", field.strip()) for field in fields)
        writer.writerow(numbers if any(fields) else [])
    return out.getvalue().encode()


def split_line(line: str) -> list[str] | None:
    """The fields of one line, without spaces around them; None where quotes do not pair."""
    # Strict, to see quotes that do not pair; then no space may stand behind a quote.
    for text in (line, re.sub(r'"[ \t]+(?=,|$)', '"', line)):
        with contextlib.suppress(csv.Error):
            rows = list(csv.reader([text], skipinitialspace=True, strict=True))
            return [field.strip() for field in rows[0]] if rows else []
    return None


def first_fields(data: bytes) -> list[str]:
    """The fields of the first line that is not blank."""
    first = data.lstrip(b" \t\n").partition(b"\n")[0]
    return split_line(first.decode()) or []


def has_spaces(line: str) -> bool:
    """Whether a field of a line has spaces around it."""
    try:
        return any(field != field.strip() for row in csv.reader([line]) for field in row)
    except csv.Error:
        return False


class Lines:
    """The lines of a file, found in its bytes all at once, since pandas pads short rows in silence.

    Args:
        data: lines that end in LF.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data if data.endswith(b"\n") else data + b"\n"
        self._raw = np.frombuffer(self.data, np.uint8)
        ends, separators, seen = [], [], 0
        for start in range(0, len(self._raw), BLOCK):
            block = self._raw[start : start + BLOCK]
            found = np.flatnonzero((block == ord(",")) | (block == ord("\n")))
            last = np.flatnonzero(block[found] == ord("\n"))
            ends.append(found[last] + (start + 1))
            separators.append(last + seen)
            seen += len(found)
        self._ends = np.concatenate(ends)
        self._starts = np.append(0, self._ends[:-1])
        self.fields = np.diff(np.concatenate(separators), prepend=-1)  # [lines], but for quotes

    def text(self, k: Any) -> str:
        """The k-th line."""
        return self.data[self._starts[k] : self._ends[k] - 1].decode()

    def quotes(self) -> Array:
        """[lines] how many quotes."""
        places = np.flatnonzero(self._raw == ord('"'))
        return np.diff(np.searchsorted(places, self._ends), prepend=0)

    def blank(self) -> Array:
        """[lines] whether nothing but spaces and commas is there."""
        blank = np.isin(self._raw[self._starts], list(b" \t,\n"))
        blank[blank] = [not self.text(k).strip(" \t,") for k in np.flatnonzero(blank)]
        return blank

    def spaced(self) -> Array:
        """Positions of the lines with spaces around fields."""
        raw = self._raw
        spaces = np.flatnonzero((raw == ord(" ")) | (raw == ord("\t")))
        beside = [np.isin(raw[spaces + step], list(b",\n")) for step in (-1, 1)]
        found = np.unique(np.searchsorted(self._ends, spaces[beside[0] | beside[1]], side="right"))
        if b'"' in self.data:  # a comma in quotes has spaces beside it too
            found = found[[has_spaces(self.text(k)) for k in found]]
        return found

    def only(self, kept: Array) -> bytes:
        """The lines of a mask, as a file."""
        if kept.all():
            return self.data
        return self._raw[np.repeat(kept, self._ends - self._starts)].tobytes()
