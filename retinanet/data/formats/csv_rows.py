"""CSV annotations: `path,x1,y1,x2,y2,class` lines.

Every problem has its line, and all are collected. It opens no image: what needs an image's size is
checked by the data set.
"""

import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from retinanet.data.annotations import Annotations, group_by_image
from retinanet.data.formats.csv_lines import Lines, read_text, repair, split_line
from retinanet.data.problems import Array, Problems
from retinanet.errors import DataError, shown

COLUMNS = ("path", "x1", "y1", "x2", "y2", "class")


_COORDINATES = COLUMNS[1:5]


_ROW = ",".join(COLUMNS)


_MISSING, _UNKNOWN = -1, -2  # labels of an empty class field, and of a class not in the list


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
    lines = Lines(read_text(path, problems))
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


def _good_lines(lines: Lines, classes: Mapping[str, int], problems: Problems) -> Array:
    """[lines] which have six fields. Others are problems, but for a header and blank lines."""
    blank = lines.blank()
    wrong = ~blank & (lines.fields != len(COLUMNS))
    if b'"' in lines.data:  # a comma or a quote in quotes is no separator: look again, one by one
        quotes = lines.quotes()
        again = np.flatnonzero(~blank & (quotes > 0) & (wrong | (quotes % 2 == 1)))
        counts = np.array([len(split_line(lines.text(k)) or []) for k in again], int)
        right = counts == len(COLUMNS)
        repair(problems, "comma in quotes", again[right & wrong[again]] + 1)
        wrong[again] = ~right
    good = ~blank & ~wrong
    first = int(np.argmax(~blank))
    if good[first] and _is_header(split_line(lines.text(first)) or [], classes):
        good[first] = False
        repair(problems, "header row", [first + 1])
    repair(problems, "blank line", np.flatnonzero(blank) + 1)
    if b" " in lines.data or b"\t" in lines.data:
        spaced = lines.spaced()
        repair(problems, "spaces around fields", spaced[good[spaced]] + 1)
    bad = np.flatnonzero(wrong)
    problems.add("wrong number of fields", bad + 1, lambda k: _field_count(lines.text(bad[k])))
    return good


def _is_header(fields: list[str], classes: Mapping[str, int]) -> bool:
    """Whether words stand where all four coordinates belong, and no known class at the end."""
    words = [field[:1].isalpha() and field.lower() not in ("nan", "inf") for field in fields[1:5]]
    return len(fields) == len(COLUMNS) and all(words) and fields[-1] not in classes


def _field_count(line: str) -> str:
    fields = split_line(line)
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
    repair(problems, "fractions of pixels", numbers[whole & fractions])
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
