"""CSV files with a whole box in a field: VIA's regions as JSON, and lists of four numbers."""

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from retinanet.data.formats.csv_header import CLASS_NAMES, COLUMNS, SNIFFED_FIELDS, plain_name
from retinanet.data.formats.csv_lines import repair, split_line
from retinanet.data.problems import Problems, became_boxes, without_boxes
from retinanet.errors import DataError, first_few, shown

SHAPE, ATTRIBUTES = "region_shape_attributes", "region_attributes"
NO_BOX = ("point", "line")  # shapes without an area
# Columns of a box in one field, and those that it becomes.
_SIZES = "bbox_x,bbox_y,bbox_width,bbox_height"
_FIELDS = {
    **dict.fromkeys(("bbox", "box", "boundingbox", "bboxxywh", "boxxywh", "cocobbox"), _SIZES),
    **dict.fromkeys(("bboxxyxy", "boxxyxy", "vocbbox"), "bbox_x1,bbox_y1,bbox_x2,bbox_y2"),
}


class Region(NamedTuple):
    """A row of the file."""

    line: int
    name: str
    """Of the image."""
    shape: Mapping[str, Any]
    attributes: Mapping[str, Any]


def is_via(fields: Sequence[str]) -> bool:
    """Whether a header is VIA's."""
    return {SHAPE, ATTRIBUTES} <= {field.strip().lower() for field in fields}


def has_box_field(fields: Sequence[str]) -> bool:
    """Whether a header names a column of whole boxes."""
    return any(plain_name(field) in _FIELDS for field in fields[:SNIFFED_FIELDS])


def split_boxes(data: bytes, problems: Problems) -> bytes:
    """The same lines with four fields for `[x, y, width, height]` in a column called bbox.

    Args:
        data: the text of the file.
        problems: takes in boxes that are no four numbers.
    """
    place, out, rows = -1, io.StringIO(), []
    writer = csv.writer(out, lineterminator="\n")
    for number, line in enumerate(data.decode().removesuffix("\n").split("\n"), 1):
        fields = split_line(line) or []
        if place < 0 and any(fields):
            names = [plain_name(field) for field in fields]
            place = next(k for k, name in enumerate(names) if name in _FIELDS)
            writer.writerow(
                [*fields[:place], *_FIELDS[names[place]].split(","), *fields[place + 1 :]]
            )
        elif place < len(fields):
            text = fields[place].strip("[](){} ")
            parts = re.split(r"[\s,;]+", text) if text else [""] * 4
            if text.lower() in ("nan", "none"):
                parts = [""] * 4
            if len(parts) != 4:
                found = f"bbox {shown(fields[place])}; expected x, y, width, height; correct it"
                problems.add_one("not a box", found, number)
                out.write("\n")
                continue
            rows.append(number)
            writer.writerow([*fields[:place], *parts, *fields[place + 1 :]])
        else:
            out.write(line + "\n")
    repair(problems, "box within one field", rows)
    return out.getvalue().encode()


def as_boxes(data: bytes, problems: Problems) -> bytes:
    """The regions as lines of `path,x1,y1,x2,y2,class`, each in the line where it stood.

    Polygons, circles and ellipses become the boxes around them; points and lines are left out.

    Args:
        data: the text of the file.
        problems: takes in wrong regions, and remarks on shapes and on the attribute of the class.

    Raises:
        DataError: no attribute, or none of several, can be the class.
    """
    lines = data.decode().split("\n")
    regions = list(_regions(lines, problems))
    key = _class_key(regions, problems)
    out = [""] * len(lines)
    header = next((k for k, line in enumerate(lines) if line.strip()), 0)
    out[header] = ",".join(COLUMNS)
    kinds: Counter[str] = Counter()
    for region in regions:
        row: list[Any] = [region.name, "", "", "", "", ""]
        kind = str(region.shape.get("name") or "")
        corners = _corners(region.shape, kind)
        label = _label(region.attributes.get(key))
        kinds[kind] += 1
        if kind and kind not in NO_BOX and not corners:
            text = f"{SHAPE} {shown(dict(region.shape))}; expected a rect or a polygon; correct it"
            problems.add_one("wrong region", text, region.line)
        elif corners and not label:
            text = f"{ATTRIBUTES} {shown(dict(region.attributes))}; expected {shown(key)}; add it"
            problems.add_one("region without a class", text, region.line)
        elif corners:
            row = [region.name, *corners, label]
        text_line = io.StringIO()
        csv.writer(text_line, lineterminator="").writerow(row)
        out[region.line - 1] = text_line.getvalue()
    _remark(kinds, key, problems)
    return "\n".join(out).encode()


def _regions(lines: Sequence[str], problems: Problems) -> Iterator[Region]:
    place: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        fields = split_line(line)
        if fields is not None and not any(fields):
            continue
        if not place:
            place = {plain_name(field): k for k, field in enumerate(fields or ())}
            continue
        wanted = [place.get(plain_name(name), 0) for name in ("filename", SHAPE, ATTRIBUTES)]
        try:
            name, shape, attributes = [(fields or [])[k] for k in wanted]
            parsed = [json.loads(text or "{}") for text in (shape, attributes)]
        except (LookupError, ValueError, RecursionError):
            parsed = []
        if not parsed or not all(isinstance(value, dict) for value in parsed):
            text = f"{shown(line)}; expected VIA's columns, JSON in the last two; correct it"
            problems.add_one("wrong region", text, number)
        else:
            yield Region(number, name, *parsed)


def _class_key(regions: Sequence[Region], problems: Problems) -> str:
    """The attribute that names the class: the only one, or one that is called so."""
    keys = dict.fromkeys(key for region in regions for key in region.attributes)
    called = {plain_name(key): key for key in keys}
    likely = [called[name] for name in CLASS_NAMES if name in called] or list(keys)
    if not keys and not any(region.shape for region in regions):
        return ""
    if not keys or (len(likely) > 1 and likely[0] not in map(called.get, CLASS_NAMES)):
        found = f"the attributes {first_few(keys)}" if keys else "no attributes"
        text = f"regions have {found}; expected one that names the class; call it class"
        raise DataError(f"{problems.path}: {text}")
    return likely[0]


def _label(value: Any) -> str:
    """The name of a class: a text, or the one that is ticked; "" of none, or of several."""
    if isinstance(value, dict):
        ticked = [name for name, is_on in value.items() if is_on]
        return str(ticked[0]).strip() if len(ticked) == 1 else ""
    return "" if value is None else str(value).strip()


def _corners(shape: Mapping[str, Any], kind: str) -> tuple[float, float, float, float] | None:
    """x1, y1, x2, y2 around a shape; None where there is none."""
    try:
        if kind == "rect":
            x, y, width, height = (float(shape[key]) for key in ("x", "y", "width", "height"))
            corners = (x, y, x + width, y + height)
        elif kind in ("polygon", "polyline"):
            xs, ys = ([float(v) for v in shape[f"all_points_{axis}"]] for axis in "xy")
            corners = (min(xs), min(ys), max(xs), max(ys))
        elif kind in ("circle", "ellipse"):
            x, y = float(shape["cx"]), float(shape["cy"])
            rx, ry = (float(shape.get("r", shape.get(key))) for key in ("rx", "ry"))
            theta = float(shape.get("theta", 0))
            cos, sin = math.cos(theta), math.sin(theta)
            half_x, half_y = math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos)
            corners = (x - half_x, y - half_y, x + half_x, y + half_y)
        else:
            return None
    except (LookupError, TypeError, ValueError, OverflowError):
        return None
    return corners if all(map(math.isfinite, corners)) else None


def _remark(kinds: Counter[str], key: str, problems: Problems) -> None:
    """Remark on the attribute that is taken for the class, and on shapes that are no boxes."""
    problems.read_as = f"VIA's regions, their class from {shown(key)}"
    for kind, count in sorted(kinds.items()):
        if kind in NO_BOX:
            problems.remarks.append(without_boxes(count, kind))
        elif kind and kind != "rect":
            problems.remarks.append(became_boxes(count, kind))
