"""The two CSV formats: boxes (`path,x1,y1,x2,y2,class`) and classes (`name,id`).

Every problem has its line, and all are collected. It opens no image: what needs an image's size is
checked by the data set.
"""

import contextlib
import csv
import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from retinanet.data.annotations import SHOWN, Annotations, Array, Problems, group_by_image
from retinanet.errors import DataError, printable, shown

COLUMNS = ("path", "x1", "y1", "x2", "y2", "class")


_COORDINATES = COLUMNS[1:5]


_ROW = ",".join(COLUMNS)


BLOCK = 2**18  # bytes looked at together: they stay in the processor's cache


_HEADER_IDS = {"id", "class_id", "class id", "classid", "label", "index", "number"}


_MISSING, _UNKNOWN = -1, -2  # labels of an empty class field, and of a class not in the list


# What is put right, and what is said of it where nothing may be.
_REPAIRS = {
    "byte order mark": "a byte order mark; expected plain UTF-8; save the file without it",
    "line end with CR": "a line that ends in CR; expected LF; save the file with Unix line ends",
    "header row": "a header row; expected data from the first line on; remove it",
    "blank line": "a blank line; expected data on every line; remove it",
    "spaces around fields": "spaces around a field; expected none; remove them",
    "comma in quotes": "a comma in quotes; expected none within a field; rename what holds it",
    "fractions of pixels": "a coordinate with a fraction; expected whole pixels; round it",
}


def _repair(problems: Problems, kind: str, lines: Sequence[int] | Array) -> None:
    problems.repair(kind, lines, lambda _: _REPAIRS[kind])


def read_classes(path: str | Path, problems: Problems | None = None) -> dict[str, int]:
    """Read `name,id` lines; the ids are exactly 0..N-1, once each.

    Args:
        path: the file.
        problems: of this file; is told what was put right.

    Returns:
        Class name to id, ascending by id.

    Raises:
        DataError: with every line that is wrong, or with the file as it should be numbered.
    """
    problems = problems or Problems(path)
    entries: list[tuple[int, str]] = []
    seen: set[str] = set()
    begun = False
    text = _read_text(path, problems).decode().removesuffix("\n")
    for number, line in enumerate(text.split("\n"), start=1):
        fields = _fields(line)
        if fields is not None and not any(fields):
            _repair(problems, "blank line", [number])
            continue
        is_header = not begun and fields and fields[-1].lower() in _HEADER_IDS
        begun = True
        if is_header:
            _repair(problems, "header row", [number])
            continue
        if _has_spaces(line):
            _repair(problems, "spaces around fields", [number])
        found = _class_problem(fields, seen)
        if found or not fields:
            problems.add_one("wrong line", found, number)
            continue
        if "," in fields[0]:
            _repair(problems, "comma in quotes", [number])
        seen.add(fields[0])
        entries.append((int(fields[1]), fields[0]))
    problems.raise_if_any()
    if not entries:
        raise DataError(f"{path}: no classes; expected lines of name,id; add at least one")
    names = [name for _, name in sorted(entries, key=lambda entry: entry[0])]
    _check_numbering(path, sorted(i for i, _ in entries), names)
    return {name: label for label, name in enumerate(names)}


def read_annotations(
    path: str | Path, classes: Mapping[str, int], problems: Problems
) -> Annotations:
    """Read a whole annotation file and check all that can be told without the images.

    A header row, blank lines, a byte order mark, any line ends, spaces around fields, quotes,
    fractions and exact duplicates are put right. `path,,,,,` is an image without boxes.

    Args:
        path: the file.
        classes: name to label.
        problems: of this file; takes in what is wrong and what was put right.

    Returns:
        The rows that are right as far as can be told. Their corners may yet be exchanged.

    Raises:
        DataError: the file cannot be read at all, or holds no image.
    """
    lines = _Lines(_read_text(path, problems))
    good = _good_lines(lines, classes, problems)
    numbers = np.flatnonzero(good) + 1
    if not len(numbers):
        problems.raise_if_any()
        raise DataError(f"{path}: no images; expected lines of {_ROW}; add some")
    frame = _parse(lines.only(good), path)
    if len(frame) != len(numbers):
        raise DataError(f"{path}: quotes that do not pair; expected {_ROW} on each line; fix them")
    owners, names = _stripped(frame["path"])
    first_lines = np.empty(len(names), np.int64)
    named = np.flatnonzero(owners != _MISSING)[::-1]
    first_lines[owners[named]] = numbers[named]  # of several the last written stays: the first line
    columns = np.empty((len(COLUMNS) - 1, len(frame)))
    columns[:4] = _coordinates(frame)
    columns[4] = _labels(frame["class"], classes)
    rows = np.flatnonzero(_check_rows(frame, owners, columns, numbers, classes, problems))
    return group_by_image(
        names, first_lines, owners[rows], columns[:, rows], numbers[rows], problems
    )


def _read_text(path: str | Path, problems: Problems) -> bytes:
    """The bytes of a file, checked to be UTF-8 without NUL; no byte order mark; lines end in LF."""
    if not Path(path).exists():
        raise DataError(f"{path}: no such file; expected a CSV file; correct the path")
    if not Path(path).is_file():
        raise DataError(f"{path}: not a regular file; expected a CSV file; correct the path")
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; expected a readable CSV file") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: UTF-16 text; expected UTF-8; save the file as UTF-8")
    if data.startswith(b"\xef\xbb\xbf"):
        _repair(problems, "byte order mark", [1])
        data = data[3:]
    if b"\r" in data:
        ends = enumerate(data.splitlines(keepends=True), start=1)
        _repair(problems, "line end with CR", [k for k, line in ends if b"\r" in line])
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    bad = data.find(b"\0")
    try:
        _ = data.isascii() or data.decode()
    except UnicodeDecodeError as error:
        bad = min(bad, error.start) if bad >= 0 else error.start
    if bad >= 0:
        line = data.count(b"\n", 0, bad) + 1
        raise DataError(f"{path}:{line}: byte 0x{data[bad]:02x}; expected UTF-8 text; save it so")
    return data


def _fields(line: str) -> list[str] | None:
    """The fields of one line, without spaces around them; None where quotes do not pair."""
    # Strict, to see quotes that do not pair; then no space may stand behind a quote.
    for text in (line, re.sub(r'"[ \t]+(?=,|$)', '"', line)):
        with contextlib.suppress(csv.Error):
            rows = list(csv.reader([text], skipinitialspace=True, strict=True))
            return [field.strip() for field in rows[0]] if rows else []
    return None


def _has_spaces(line: str) -> bool:
    """Whether a field of a line has spaces around it."""
    try:
        return any(field != field.strip() for row in csv.reader([line]) for field in row)
    except csv.Error:
        return False


# ---- classes ----


def _class_problem(fields: list[str] | None, seen: set[str]) -> str:
    """What is wrong with a line of a class file; empty where nothing is."""
    if fields is None:
        return "a quote that is not closed; expected name,id; close it"
    if len(fields) != 2:
        return f"{len(fields)} fields; expected 2: name,id; quote a name that holds a comma"
    name, label = fields
    if not name:
        return "no name; expected name,id; add the name or remove the line"
    if name in seen:
        return f"class {shown(name)} a second time; expected each name once; remove the line"
    if printable(name) != name:
        return f"name {shown(name)}; expected no control characters; rename it"
    if not (label.isascii() and label.isdigit() and len(label) < 10):
        return f"id {shown(label)}; expected a whole number from 0; correct it"
    return ""


def _check_numbering(path: str | Path, ids: list[int], names: list[str]) -> None:
    if ids == list(range(len(ids))):
        return
    found = ", ".join(map(str, ids[:SHOWN])) + (", ..." if len(ids) > SHOWN else "")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows((name, i) for i, name in enumerate(names))
    raise DataError(
        f"{path}: ids {found}; expected 0 to {len(ids) - 1}, each once; "
        f"renumbered, the file reads:\n{text.getvalue().rstrip()}"
    )


# ---- annotations: lines ----


class _Lines:
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
            found = found[[_has_spaces(self.text(k)) for k in found]]
        return found

    def only(self, kept: Array) -> bytes:
        """The lines of a mask, as a file."""
        if kept.all():
            return self.data
        return self._raw[np.repeat(kept, self._ends - self._starts)].tobytes()


def _good_lines(lines: _Lines, classes: Mapping[str, int], problems: Problems) -> Array:
    """[lines] which have six fields. Others are problems, but for a header and blank lines."""
    blank = lines.blank()
    wrong = ~blank & (lines.fields != len(COLUMNS))
    if b'"' in lines.data:  # a comma or a quote in quotes is no separator: look again, one by one
        quotes = lines.quotes()
        again = np.flatnonzero(~blank & (quotes > 0) & (wrong | (quotes % 2 == 1)))
        counts = np.array([len(_fields(lines.text(k)) or []) for k in again], int)
        right = counts == len(COLUMNS)
        _repair(problems, "comma in quotes", again[right & wrong[again]] + 1)
        wrong[again] = ~right
    good = ~blank & ~wrong
    first = int(np.argmax(~blank))
    if good[first] and _is_header(_fields(lines.text(first)) or [], classes):
        good[first] = False
        _repair(problems, "header row", [first + 1])
    _repair(problems, "blank line", np.flatnonzero(blank) + 1)
    if b" " in lines.data or b"\t" in lines.data:
        spaced = lines.spaced()
        _repair(problems, "spaces around fields", spaced[good[spaced]] + 1)
    bad = np.flatnonzero(wrong)
    problems.add("wrong number of fields", bad + 1, lambda k: _field_count(lines.text(bad[k])))
    return good


def _is_header(fields: list[str], classes: Mapping[str, int]) -> bool:
    """Whether words stand where all four coordinates belong, and no known class at the end."""
    words = [field[:1].isalpha() and field.lower() not in ("nan", "inf") for field in fields[1:5]]
    return len(fields) == len(COLUMNS) and all(words) and fields[-1] not in classes


def _field_count(line: str) -> str:
    fields = _fields(line)
    if fields is None:
        return f"a quote that is not closed; expected {_ROW}; close it"
    advice = "complete the row, or write path,,,,, for an image without boxes"
    if len(fields) > len(COLUMNS):
        advice = "quote a field that holds a comma"
    elif ";" in line or "\t" in line:
        advice = "separate the fields by commas"
    return f"{len(fields)} fields; expected 6: {_ROW}; {advice}"


# ---- annotations: rows ----


def _parse(data: bytes, path: str | Path) -> pd.DataFrame:
    """The columns: path and class as texts; coordinates as numbers, or mixed with texts."""
    try:
        with warnings.catch_warnings():
            # A column of mixed types: `_coordinates` sees to it. More fields than columns: quotes.
            warnings.simplefilter("ignore", pd.errors.DtypeWarning)
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                io.BytesIO(data),
                header=None,
                names=list(COLUMNS),
                index_col=False,
                dtype={"path": "object", "class": "object"},
                keep_default_na=False,  # a class may be called NA
                na_values=[""],
                skipinitialspace=b" " in data,  # it costs time
                skip_blank_lines=False,
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise DataError(f"{path}: {error}; expected {_ROW} on each line; fix the quotes") from error


def _stripped(column: pd.Series) -> tuple[Array, list[str]]:
    """Each row's text (-1: none), and the texts, without spaces, in order of first appearance."""
    texts = column.to_numpy()
    # Rows of one image mostly follow each other: only where the text changes is it looked up.
    heads = np.flatnonzero(np.append(True, texts[1:] != texts[:-1]))
    codes, unique = pd.factorize(texts[heads])
    codes = np.repeat(codes, np.diff(heads, append=len(texts)))
    stripped = [text.strip() for text in unique]
    names = [*dict.fromkeys(filter(None, stripped))]
    if len(names) == len(unique):
        return codes, names
    code_of = {name: code for code, name in enumerate(names)}
    return np.array([*(code_of.get(text, _MISSING) for text in stripped), _MISSING])[codes], names


def _labels(column: pd.Series, classes: Mapping[str, int]) -> Array:
    """[rows] the label of each row's class, `_MISSING` or `_UNKNOWN`."""
    codes, names = _stripped(column)
    return np.array([*(classes.get(name, _UNKNOWN) for name in names), _MISSING])[codes]


def _coordinates(frame: pd.DataFrame) -> NDArray[np.float64]:
    """[4, rows] NaN where empty, inf where no number."""
    numbers = np.empty((len(_COORDINATES), len(frame)))
    for name, row in zip(_COORDINATES, numbers, strict=True):
        column = frame[name]
        if column.dtype.kind in "iuf":
            row[:] = column
        else:  # texts, or what pandas takes for truth values
            row[:] = pd.to_numeric(column.map(str, na_action="ignore"), errors="coerce")
            row[np.isnan(row) & column.notna()] = np.inf
    return numbers


def _check_rows(
    frame: pd.DataFrame,
    owners: Array,
    columns: NDArray[np.float64],
    numbers: Array,
    classes: Mapping[str, int],
    problems: Problems,
) -> Array:
    """[rows] which name an image and have a whole box; the others must name one and have none.

    A box of an unknown class is whole, so that it is checked further.
    """
    label = columns[4]
    whole = (owners != _MISSING) & (label != _MISSING) & np.isfinite(columns[:4]).all(axis=0)
    fractions = (np.rint(columns[:4]) != columns[:4]).any(axis=0)
    _repair(problems, "fractions of pixels", numbers[whole & fractions])
    rest = np.flatnonzero(~whole | (label == _UNKNOWN))
    box, label = columns[:4, rest], label[rest]
    given = np.count_nonzero(~np.isnan(box), axis=0) + (label != _MISSING)

    def add(kind: str, wrong: Any, describe: Callable[[pd.Series], str]) -> None:
        rows = rest[wrong]
        problems.add(kind, numbers[rows], lambda k: describe(frame.iloc[rows[k]]))

    add("no path", owners[rest] == _MISSING, lambda _: f"no path; expected {_ROW}; add it")
    add("incomplete box", (given > 0) & (given < 5), _partly)
    add("not a number", np.isinf(box).any(axis=0), _not_a_number)
    known = ", ".join(list(classes)[:10]) + (", ..." if len(classes) > 10 else "")
    add(
        "unknown class",
        label == _UNKNOWN,
        lambda row: (
            f"class {shown(row['class'].strip())}; expected one of {known}; "
            "correct it or add it to the class file"
        ),
    )
    return whole


def _partly(row: pd.Series) -> str:
    empty = [name for name in COLUMNS[1:] if pd.isna(row[name])]
    return (
        f"{', '.join(empty) or 'class'} empty; expected a whole box; "
        "complete it, or write path,,,,, for an image without boxes"
    )


def _not_a_number(row: pd.Series) -> str:
    given = {name: str(row[name]) for name in _COORDINATES if not pd.isna(row[name])}
    finite = np.isfinite(pd.to_numeric(pd.Series(given), errors="coerce"))
    name = finite.idxmin()  # the first that is not
    return f"{name} is {shown(given[name])}; expected a number of pixels; correct it"
