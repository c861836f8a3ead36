"""The two CSV formats: boxes (`path,x1,y1,x2,y2,class`) and classes (`name,id`).

Every error carries its line, and all are shown at once. It opens no image: what needs an image's
size is checked by the data set.
"""

import csv
import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from retinanet.annotations import SHOWN, Annotations, Array, Problems, shown
from retinanet.errors import DataError

COLUMNS = ("path", "x1", "y1", "x2", "y2", "class")
_COORDINATES = COLUMNS[1:5]
_ROW = ",".join(COLUMNS)
_HEADER_IDS = {"id", "class_id", "class id", "classid", "label", "index", "number"}
_MISSING, _UNKNOWN = -1, -2  # labels of an empty class field, and of a class not in the list


def read_classes(path: str | Path) -> dict[str, int]:
    """Read `name,id` lines; the ids are exactly 0..N-1, once each.

    Returns:
        Class name to id, ascending by id.

    Raises:
        DataError: with every line that is wrong, or with the file as it should be numbered.
    """
    problems = Problems(path)
    entries: list[tuple[int, str]] = []
    seen: set[str] = set()
    for number, line in enumerate(_read_text(path).decode().split("\n"), start=1):
        fields = _fields(line)
        if fields is not None and not any(fields):
            continue
        if not entries and not problems.count and fields and fields[-1].lower() in _HEADER_IDS:
            continue
        found = _class_problem(fields, seen)
        if found or not fields:
            problems.add_one(found, number)
        else:
            seen.add(fields[0])
            entries.append((int(fields[1]), fields[0]))
    problems.raise_if_any()
    if not entries:
        raise DataError(f"{path}: no classes; expected lines of name,id; add at least one")
    names = [name for _, name in sorted(entries, key=lambda entry: entry[0])]
    _check_numbering(path, sorted(i for i, _ in entries), names)
    return {name: label for label, name in enumerate(names)}


def read_annotations(path: str | Path, classes: Mapping[str, int]) -> Annotations:
    """Read a whole annotation file and check all that can be told without the images.

    A header row, blank lines, a byte order mark, any line ends, spaces around fields, quotes and
    float coordinates are fine. `path,,,,,` is an image without boxes. Exact duplicates are dropped.

    Raises:
        DataError: with the line of each problem.
    """
    problems = Problems(path)
    repaired: dict[str, int] = {}
    data, lines = _good_lines(_read_text(path), classes, problems, repaired)
    if not len(lines):
        problems.raise_if_any()
        raise DataError(f"{path}: no images; expected lines of {_ROW}; add some")
    frame = _parse(data, path)
    if len(frame) != len(lines):
        raise DataError(f"{path}: quotes that do not pair; expected {_ROW} on each line; fix them")
    codes, names = _stripped(frame["path"])
    labels = _labels(frame["class"], classes)
    boxes = _numbers(frame)
    _check_rows(frame, codes, boxes[:, :4], labels, lines, problems)
    _check_classes(frame["class"], labels, lines, classes, problems)
    problems.raise_if_any()
    boxes[:, 4] = labels
    return _by_image(codes, names, boxes, lines, repaired)


def _read_text(path: str | Path) -> bytes:
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
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\r" in data:
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
    try:
        rows = list(csv.reader([line], skipinitialspace=True, strict=True))
    except csv.Error:
        return None
    return [field.strip() for field in rows[0]] if rows else []


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


# ---- annotations ----


def _good_lines(
    data: bytes, classes: Mapping[str, int], problems: Problems, repaired: dict[str, int]
) -> tuple[bytes, Array]:
    """Take out the header, blank lines, and lines that have not six fields (these are problems).

    Counted in the bytes of the whole file at once, since pandas pads short rows in silence.

    Returns:
        The other lines, and their numbers in the file.
    """
    data = data if data.endswith(b"\n") else data + b"\n"
    raw = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(raw == ord("\n")) + 1
    starts = np.append(0, ends[:-1])

    def count(byte: str) -> Array:
        return np.diff(np.searchsorted(np.flatnonzero(raw == ord(byte)), ends), prepend=0)

    def text(k: Any) -> str:
        return data[starts[k] : ends[k] - 1].decode()

    blank = np.isin(raw[starts], list(b" \t,\n"))
    blank[blank] = [not text(k).strip(" \t,") for k in np.flatnonzero(blank)]
    commas = count(",")
    wrong = ~blank & (commas != len(COLUMNS) - 1)
    if b'"' in data:  # a comma or a quote in quotes is no separator: look again, line by line
        quotes = count('"')
        for k in np.flatnonzero(~blank & (quotes > 0) & (wrong | (quotes % 2 == 1))):
            wrong[k] = len(_fields(text(k)) or []) != len(COLUMNS)
    bad = np.flatnonzero(wrong)
    good = ~blank & ~wrong
    first = int(np.argmax(~blank))
    if good[first] and _is_header(_fields(text(first)) or [], classes):
        good[first] = False
        repaired["header row"] = 1
    if blank.any():
        repaired["blank line"] = int(blank.sum())
    problems.add(bad + 1, lambda k: _field_count(text(bad[k])))
    if not good.all():
        data = raw[np.repeat(good, ends - starts)].tobytes()
    return data, np.flatnonzero(good) + 1


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


def _parse(data: bytes, path: str | Path) -> pd.DataFrame:
    """The columns: path and class as texts; coordinates as numbers, or mixed with texts."""
    try:
        with warnings.catch_warnings():
            # A column of mixed types: `_numbers` sees to it. More fields than columns: quotes.
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
    """Texts without spaces around them, in order of first appearance, and each row's (-1: none)."""
    codes, unique = pd.factorize(column)
    texts = [text.strip() for text in unique]
    names = [*dict.fromkeys(filter(None, texts))]
    if len(names) == len(texts):
        return codes, names
    code_of = {name: code for code, name in enumerate(names)}
    return np.array([*(code_of.get(text, _MISSING) for text in texts), _MISSING])[codes], names


def _labels(column: pd.Series, classes: Mapping[str, int]) -> Array:
    """[rows] the label of each row's class, `_MISSING` or `_UNKNOWN`."""
    codes, names = _stripped(column)
    return np.array([*(classes.get(name, _UNKNOWN) for name in names), _MISSING])[codes]


def _numbers(frame: pd.DataFrame) -> NDArray[np.float64]:
    """[rows, 5] coordinates, NaN where empty, inf where no number; the labels' column unset."""
    boxes = np.empty((len(frame), len(_COORDINATES) + 1))
    for k, name in enumerate(_COORDINATES):
        column = frame[name]
        if column.dtype.kind in "iuf":
            boxes[:, k] = column
        else:  # texts, or what pandas takes for truth values
            boxes[:, k] = pd.to_numeric(column.map(str, na_action="ignore"), errors="coerce")
            boxes[np.isnan(boxes[:, k]) & column.notna(), k] = np.inf
    return boxes


def _check_rows(
    frame: pd.DataFrame,
    codes: Array,
    boxes: NDArray[np.float64],
    labels: Array,
    lines: Array,
    problems: Problems,
) -> None:
    """Each row names an image and has a whole box, or none."""

    def add(wrong: Any, describe: Callable[[int], str]) -> None:
        rows = np.flatnonzero(wrong)
        problems.add(lines[rows], lambda k: describe(rows[k]))

    def partly(row: int) -> str:
        empty = [name for name in COLUMNS[1:] if pd.isna(frame[name].iloc[row])]
        return (
            f"{', '.join(empty) or 'class'} empty; expected a whole box; "
            "complete it, or write path,,,,, for an image without boxes"
        )

    def infinite(row: int) -> str:
        name = _COORDINATES[int(np.argmax(np.isinf(boxes[row])))]
        return f"{name} is {frame[name].iloc[row]}; expected a number of pixels; correct it"

    def inverted(row: int) -> str:
        x1, y1, x2, y2 = boxes[row]
        found = f"x2 ({x2:g}) is not greater than x1 ({x1:g})"
        if x2 > x1:
            found = f"y2 ({y2:g}) is not greater than y1 ({y1:g})"
        advice = "if the corners are exchanged, exchange them back"
        if min(x2, y2) > 0:
            advice += "; if these are width and height, write x1 + width, y1 + height"
        return f"{found}; expected x1,y1,x2,y2; {advice}"

    add(codes == _MISSING, lambda _: f"no path; expected {_ROW}; add it or remove the row")
    given = np.count_nonzero(~np.isnan(boxes), axis=1) + (labels != _MISSING)
    add((given > 0) & (given < 5), partly)
    add(np.isinf(boxes).any(axis=1), infinite)
    finite = np.isfinite(boxes).all(axis=1)
    add(finite & ((boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])), inverted)


def _check_classes(
    column: pd.Series, labels: Array, lines: Array, classes: Mapping[str, int], problems: Problems
) -> None:
    unknown = np.flatnonzero(labels == _UNKNOWN)
    known = ", ".join(list(classes)[:10]) + (", ..." if len(classes) > 10 else "")

    def describe(k: int) -> str:
        name = shown(str(column.iloc[unknown[k]]).strip())
        return f"class {name}; expected one of {known}; correct it or add it to the class file"

    problems.add(lines[unknown], describe)


def _by_image(
    codes: Array, names: list[str], boxes: Array, lines: Array, repaired: dict[str, int]
) -> Annotations:
    """Group checked rows by image, without duplicates; `codes` count up in order of appearance."""
    first_lines = np.empty(len(names), np.int64)
    first_lines[codes[::-1]] = lines[::-1]  # of several the last written stays: the first line
    rows = np.flatnonzero(~np.isnan(boxes[:, 0]))
    rows = rows[np.argsort(codes[rows], kind="stable")]
    codes, boxes, lines = codes[rows], boxes[rows], lines[rows]
    again = _repeated(codes, boxes)
    if again.any():
        repaired["exact duplicate"] = int(again.sum())
        codes, boxes, lines = codes[~again], boxes[~again], lines[~again]
    return Annotations(
        names=tuple(names),
        first_lines=first_lines,
        offsets=np.searchsorted(codes, np.arange(len(names) + 1)),
        boxes=boxes,
        lines=lines,
        repaired=repaired,
    )


def _repeated(codes: Array, boxes: Array) -> Array:
    """[boxes] whether a box repeats an earlier one of its image exactly."""
    key = codes.astype(np.uint64)  # a hash of each row: far quicker than comparing six columns
    for column in boxes.T:
        bits = np.ascontiguousarray(column).view(np.uint64)
        key = (key + (bits ^ bits >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
    rows = np.flatnonzero(pd.Series(key).duplicated(keep=False))
    repeated = np.zeros(len(codes), bool)
    repeated[rows] = pd.DataFrame(boxes[rows]).assign(image=codes[rows]).duplicated()
    return repeated
