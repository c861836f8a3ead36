"""CSV annotations: `path,x1,y1,x2,y2,class` lines.

Every problem has its line, and all are collected. It opens no image: what needs an image's size is
checked by the data set.
"""

import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from retinanet.data.annotations import NO_ROWS, Annotations, group_by_image
from retinanet.data.box_checks import FRACTION_OVERHANG, fractions_text
from retinanet.data.formats.csv_header import (
    CLASSIC,
    COLUMNS,
    NO_COLUMN,
    Layout,
    is_header,
    plain_layout,
    read_header,
)
from retinanet.data.formats.csv_lines import (
    Lines,
    first_fields,
    read_text,
    repair,
    split_line,
)
from retinanet.data.formats.csv_via import as_boxes, has_box_field, is_via, split_boxes
from retinanet.data.formats.labels import LARGEST_SIDE
from retinanet.data.problems import Array, Problems
from retinanet.errors import DataError, counted, shown

_COORDINATES = COLUMNS[1:5]


_ROW = ",".join(COLUMNS)

SIZE = ("height", "width")  # of an image, as the frame has them


EXTRA = 3  # empty fields that a row may have behind the others


_NO_NUMBER = {"nan", "none", "null", "na", "n/a"}
_NO_CLASS = {"", "background", "no object", "no finding", "negative", *_NO_NUMBER}


_MISSING, _UNKNOWN = -1, -2  # labels of an empty class field, and of a class not in the list


def read_annotations(
    path: str | Path, classes: Mapping[str, int] | None, problems: Problems
) -> tuple[tuple[str, ...], Annotations]:
    """Read a whole annotation file and check all that can be told without the images.

    A header row, blank lines, a byte order mark, any line ends, spaces around fields, quotes,
    fractions and exact duplicates are put right. `path,,,,,` is an image without boxes.

    Args:
        path: the file.
        classes: name to label; else those of the boxes, by name.
        problems: of this file; takes in what is wrong and what was put right.

    Returns:
        The class names by label, and the rows that are right as far as can be told. Their corners
        may yet be exchanged.

    Raises:
        DataError: the file cannot be read at all, or holds no image.
    """
    data = read_text(path, problems)
    header = first_fields(data)
    if is_via(header):
        data = as_boxes(data, problems)
    elif has_box_field(header):
        data = split_boxes(data, problems)
    lines = Lines(data)
    layout, good = _good_lines(lines, classes or {}, problems)
    numbers = np.flatnonzero(good) + 1
    if not len(numbers):
        problems.raise_if_any()
        raise DataError(f"{path}: no images; expected lines of {_ROW}; add some")
    plain = b'"' not in lines.data  # else commas in quotes are counted too
    width = max(layout.fields, int(lines.fields[good].max())) if plain else layout.fields
    frame = _parse(lines.only(good), path, layout, width)
    if layout.places[-1] == NO_COLUMN:
        _name_one_class(frame, classes, problems)
    if len(frame) != len(numbers):
        raise DataError(f"{path}: quotes that do not pair; expected {_ROW} on each line; fix them")
    owners, names = _stripped(frame["path"])
    first_lines = np.empty(len(names), np.int64)
    named = np.flatnonzero(owners != _MISSING)[::-1]
    first_lines[owners[named]] = numbers[named]  # of several the last written stays: the first line
    columns = np.empty((len(COLUMNS) - 1, len(frame)))
    columns[:4] = _coordinates(frame)
    if classes is None:
        classes = _own_classes(frame["class"], columns[:4])
    columns[4] = _labels(frame["class"], classes, problems)
    _clear_rows_of_no_box(frame, columns, numbers, problems)
    rows = np.flatnonzero(_check_rows(frame, owners, columns, numbers, classes, problems))
    columns = _as_corners(columns[:, rows], layout.kind)
    found = group_by_image(names, first_lines, owners[rows], columns, numbers[rows], problems)
    largest = columns[:4].max(initial=0)
    has_fractions = largest <= 1 + FRACTION_OVERHANG and fractions_text(columns[:4].T)
    if layout is not CLASSIC and has_fractions:
        text = "fractions of the image; expected pixels; multiply by its width and height"
        problems.repair("box in fractions of the image", found.lines, lambda _: text)
        found = replace(found, in_fractions=True)
    found = replace(found, kind=layout.kind)
    if layout.size and not found.in_fractions:
        found = replace(found, sizes=_image_sizes(frame, owners, found))
    return tuple(sorted(classes, key=classes.__getitem__)), found


def _image_sizes(frame: pd.DataFrame, owners: Array, found: Annotations) -> Array:
    """[images, 2] height and width as the file has them; none where they are something else.

    Most boxes lie in their image; columns of these names may also be the box's own size.
    """
    sizes = np.zeros((len(found.names), 2), np.int64)
    named = np.flatnonzero(owners != _MISSING)
    for axis, name in enumerate(SIZE):
        numbers = pd.to_numeric(frame[name], errors="coerce").fillna(0).clip(0, LARGEST_SIDE)
        sizes[owners[named], axis] = numbers.to_numpy()[named]
    inside = (found.boxes[:, 2:4] <= sizes[found.owners()][:, ::-1] + 1).all(axis=1)
    return sizes if 2 * np.count_nonzero(inside) > len(found.boxes) else NO_ROWS


def _name_one_class(
    frame: pd.DataFrame, classes: Mapping[str, int] | None, problems: Problems
) -> None:
    """Give all boxes of a file without a class the only one that there is, or a name."""
    name = next(iter(classes)) if classes else "object"
    frame["class"] = pd.Series(name, frame.index).where(frame["x1"].notna(), None)
    problems.remarks.append(f"{problems.path}: no column of a class: all boxes are {shown(name)}")


def _own_classes(column: pd.Series, boxes: NDArray[np.float64]) -> dict[str, int]:
    """The classes of rows with a box, by name; numbers by their value."""
    has_box = np.isfinite(boxes).all(axis=0) & ~((boxes == 0) | (boxes == -1)).all(axis=0)
    codes, texts = _stripped(column)
    names = {texts[code] for code in np.unique(codes[has_box]) if code != _MISSING}
    if all(name.isascii() and name.isdigit() for name in names):
        return {name: k for k, name in enumerate(sorted(names, key=int))}
    return {name: k for k, name in enumerate(sorted(names))}


def _as_corners(columns: NDArray[np.float64], kind: str) -> NDArray[np.float64]:
    """[5, boxes] x1, y1, x2, y2, label, from what the header says that the numbers are."""
    if kind == "centres":
        columns[:2] -= columns[2:4] / 2
    if kind != "corners":
        columns[2:4] += columns[:2]
    return columns


def _clear_rows_of_no_box(
    frame: pd.DataFrame, columns: NDArray[np.float64], numbers: Array, problems: Problems
) -> None:
    """Empty the rows that mean an image without boxes: numbers of nothing, zeros, -1."""
    box, label = columns[:4], columns[4]
    no_numbers = np.all(~np.isfinite(box), axis=0)
    nothing = no_numbers & ((label != _MISSING) | np.isinf(box).any(axis=0))
    marks = nothing | (box == 0).all(axis=0) | (box == -1).all(axis=0)
    cleared = []
    for row in np.flatnonzero(marks).tolist():
        texts = [str(frame[name].iat[row]).strip().lower() for name in _COORDINATES]
        name: Any = frame["class"].iat[row]
        is_named = label[row] >= 0 or not (pd.isna(name) or str(name).strip().lower() in _NO_CLASS)
        if not (no_numbers[row] and (is_named or not set(texts) <= _NO_NUMBER)):
            cleared.append(row)
    box[:, cleared] = np.nan
    label[cleared] = _MISSING
    repair(problems, "row of no box", numbers[cleared])


def _good_lines(
    lines: Lines, classes: Mapping[str, int], problems: Problems
) -> tuple[Layout, Array]:
    """The columns, and [lines] which are rows. Others are problems, but for a header and blanks."""
    blank = lines.blank()
    first = int(np.argmax(~blank))
    fields = split_line(lines.text(first)) or []
    has_header = not blank[first] and is_header(fields, classes)
    if has_header:
        place = f"{problems.path}:{first + 1}"
        layout = read_header(fields, place, many_classes=len(classes) > 1)
    else:
        rows = (split_line(lines.text(k)) or [] for k in range(first, len(blank)))
        layout = plain_layout(rows)
    if layout != CLASSIC:
        places = [place for place in layout.places if place != NO_COLUMN]
        named = [shown(fields[place]) if has_header else f"column {place + 1}" for place in places]
        problems.read_as = f"path, {layout.kind} and class from {', '.join(named)}"
    wrong = ~blank & (lines.fields != layout.fields)
    if b'"' in lines.data:  # a comma or a quote in quotes is no separator: look again, one by one
        quotes = lines.quotes()
        again = np.flatnonzero(~blank & (quotes > 0) & (wrong | (quotes % 2 == 1)))
        counts = np.array([len(split_line(lines.text(k)) or []) for k in again], int)
        right = counts == layout.fields
        repair(problems, "comma in quotes", again[right & wrong[again]] + 1)
        wrong[again] = ~right
    odd = np.flatnonzero(wrong & (lines.fields <= layout.fields + EXTRA))
    ends = [_ends_in_commas(split_line(lines.text(k)), layout.fields) for k in odd]
    mended = odd[np.array(ends, bool)]
    repair(problems, "commas too many or too few", mended + 1)
    wrong[mended] = False
    good = ~blank & ~wrong
    if has_header:
        good[first] = wrong[first] = False
        kind = "header row" if layout == CLASSIC else "columns by the header"
        repair(problems, kind, [first + 1])
    elif layout != CLASSIC:
        repair(problems, "columns by what they hold", [first + 1])
    repair(problems, "blank line", np.flatnonzero(blank) + 1)
    if b" " in lines.data or b"\t" in lines.data:
        spaced = lines.spaced()
        repair(problems, "spaces around fields", spaced[good[spaced]] + 1)
    bad = np.flatnonzero(wrong)
    problems.add(
        "wrong number of fields", bad + 1, lambda k: _field_count(lines.text(bad[k]), layout.fields)
    )
    return layout, good


def _ends_in_commas(fields: list[str] | None, count: int) -> bool:
    """Whether a row has all fields and empty ones behind, or a path and fewer empty ones."""
    if not fields or '"' in "".join(fields):
        return False
    is_path_alone = 1 < len(fields) < count and fields[0] != "" and not any(fields[1:])
    return is_path_alone or (count < len(fields) <= count + EXTRA and not any(fields[count:]))


def _field_count(line: str, count: int) -> str:
    fields = split_line(line)
    if fields is None:
        return f"a quote that is not closed; expected {_ROW}; close it"
    advice = "complete the row, or write path,,,,, for an image without boxes"
    if len(fields) > count:
        advice = "quote a field that holds a comma, or name all columns in a first line"
    elif ";" in line or "\t" in line:
        advice = "separate the fields by commas"
    expected = f"6: {_ROW}" if count == len(COLUMNS) else f"{count} as in the first line"
    return f"{counted(len(fields), 'field')}; expected {expected}; {advice}"


# ---- annotations: rows ----


def _parse(data: bytes, path: str | Path, layout: Layout, width: int) -> pd.DataFrame:
    """The columns: path and class as texts; coordinates as numbers, or mixed with texts."""
    try:
        with warnings.catch_warnings():
            # A column of mixed types: `_coordinates` sees to it. More fields than columns: quotes.
            warnings.simplefilter("ignore", pd.errors.DtypeWarning)
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                io.BytesIO(data),
                header=None,
                names=range(width),
                index_col=False,
                dtype=dict.fromkeys({layout.places[0], layout.places[-1]} - {NO_COLUMN}, "object"),
                keep_default_na=False,  # a class may be called NA
                na_values=[""],
                skipinitialspace=b" " in data,  # it costs time
                skip_blank_lines=False,
            )
        names = (*COLUMNS, *SIZE)[: len(COLUMNS) + len(layout.size)]
        places = zip(names, (*layout.places, *layout.size), strict=True)
        columns = {name: place for name, place in places if place != NO_COLUMN}
        return frame[[*columns.values()]].set_axis([*columns], axis=1)
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


def _labels(column: pd.Series, classes: Mapping[str, int], problems: Problems) -> Array:
    """[rows] the label of each row's class, `_MISSING` or `_UNKNOWN`."""
    codes, names = _stripped(column)
    # Numbers with a point, too: what pandas makes of a column where some are empty.
    ids = {text: label for label in classes.values() for text in (str(label), f"{label}.0")}
    if names and set(names) <= ids.keys() - classes.keys():
        problems.remarks.append(f"{problems.path}: classes by their numbers in the class file")
        classes = ids
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
