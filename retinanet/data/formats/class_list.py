"""The file of classes: `name,id` lines; or `id,name`; or names alone, numbered by their lines."""

import csv
import io
from pathlib import Path

from retinanet.data.formats.csv_header import COLUMNS, plain_name
from retinanet.data.formats.csv_lines import has_spaces, read_text, repair, split_line
from retinanet.data.problems import SHOWN, Problems
from retinanet.errors import DataError, printable, shown

# Fields of a header, without signs.
_HEADER_IDS = {"id", "classid", "label", "labelid", "index", "number", "categoryid"}
_HEADER_NAMES = {
    *("name", "names", "class", "classes", "classname", "classnames", "label", "labels"),
    *("labelname", "category", "categories", "categoryname"),
}


def read_classes(path: str | Path, problems: Problems | None = None) -> dict[str, int]:
    """Read `name,id` lines; the ids are exactly 0..N-1, once each.

    `id,name` lines are read as such, and names alone are numbered by their lines: repairs.

    Args:
        path: the file.
        problems: of this file; is told what was put right.

    Returns:
        Class name to id, ascending by id.

    Raises:
        DataError: with every line that is wrong, or with the file as it should be numbered.
    """
    problems = problems or Problems(path)
    rows = _rows(read_text(path, problems).decode(), problems)
    if rows and all(fields and len(fields) == len(COLUMNS) for fields in rows.values()):
        raise DataError(
            f"{path}: lines of {len(COLUMNS)} fields, as annotations have; expected lines of"
            " name,id; were --csv_classes and the annotations exchanged?"
        )
    entries: list[tuple[int, str]] = []
    seen: set[str] = set()
    for number, fields in rows.items():
        found = _class_problem(fields, seen)
        if found or not fields:
            problems.add_one("wrong line", found, number)
            continue
        if "," in fields[0]:
            repair(problems, "comma in quotes", [number])
        seen.add(fields[0])
        entries.append((int(fields[1]), fields[0]))
    problems.raise_if_any()
    if not entries:
        raise DataError(f"{path}: no classes; expected lines of name,id; add at least one")
    names = [name for _, name in sorted(entries, key=lambda entry: entry[0])]
    _check_numbering(path, sorted(i for i, _ in entries), names)
    return {name: label for label, name in enumerate(names)}


def _rows(text: str, problems: Problems) -> dict[int, list[str] | None]:
    """The fields of each line that is a class, name before id, by the line's number."""
    rows: dict[int, list[str] | None] = {}
    has_header = False
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        fields = split_line(line)
        if fields is not None and not any(fields):
            repair(problems, "blank line", [number])
            continue
        if not rows and not has_header and _is_header(fields or []):
            has_header = True
            repair(problems, "header row", [number])
            continue
        if has_spaces(line):
            repair(problems, "spaces around fields", [number])
        if fields and len(fields) > 2 and not any(fields[2:]):
            repair(problems, "comma behind the fields", [number])
            fields = fields[:2]
        rows[number] = fields
    lines = [fields for fields in rows.values() if fields]
    if len(lines) < len(rows):
        return rows
    if not any(any(fields[1:]) for fields in lines):
        repair(problems, "class name without an id", list(rows))
        return {
            line: [fields[0], str(k)]
            for k, (line, fields) in enumerate(zip(rows, lines, strict=True))
        }
    ids, names = zip(*([*fields, ""][:2] for fields in lines), strict=True)
    if all(field.isdigit() for field in ids) and not any(field.isdigit() for field in names):
        repair(problems, "id before the name", list(rows))
        return {line: fields[1::-1] + fields[2:] for line, fields in zip(rows, lines, strict=True)}
    return rows


def _is_header(fields: list[str]) -> bool:
    """Whether a first line is of `name,id`, `id,name` or a word for names alone."""
    plain = [plain_name(field) for field in fields]
    if len(plain) == 1:
        return plain[0] in _HEADER_NAMES
    words = _HEADER_IDS | _HEADER_NAMES
    return len(plain) > 1 and (plain[-1] in _HEADER_IDS or all(word in words for word in plain))


def _class_problem(fields: list[str] | None, seen: set[str]) -> str:
    """Message about a wrong line of a class file; empty for a right one."""
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
