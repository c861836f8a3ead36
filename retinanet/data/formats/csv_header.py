"""The header of a CSV file: its columns found by their names."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from retinanet.data.decoding.formats import SUFFIXES
from retinanet.errors import DataError, shown

COLUMNS = ("path", "x1", "y1", "x2", "y2", "class")

# Names of columns, without letter case and signs, the likelier first.
_PATHS = (
    *("path", "filename", "filepath", "file", "image", "imagepath", "imagename", "imagefile"),
    *("img", "imgpath", "imgname", "imageid", "photo", "picture", "imgid", "imagefilename"),
    *("imageurl", "imageuri", "url", "uri", "filenames", "images", "name"),
)
CLASS_NAMES = (
    *("classname", "labelname", "categoryname", "class", "label", "category", "name", "object"),
    *("objectclass", "tag", "species", "type", "cls", "classid", "categoryid", "labelid", "labels"),
)
# Names for the two numbers of a box's upper left corner, of its centre, and of its size. That of
# the image is called width and height, too: the box's own comes first.
_CORNERS = (
    *(("x", "y"), ("left", "top"), ("xmin", "ymin"), ("x1", "y1"), ("colx", "rowy")),
    *(("bboxx", "bboxy"), ("bboxleft", "bboxtop"), ("bboxxmin", "bboxymin")),
)
_CENTRES = (
    *(("xcenter", "ycenter"), ("centerx", "centery"), ("xcentre", "ycentre")),
    *(("centrex", "centrey"), ("cx", "cy"), ("xc", "yc")),
)
_SIZES = (
    *(("bboxwidth", "bboxheight"), ("bboxw", "bboxh"), ("boxwidth", "boxheight")),
    *(("boxw", "boxh"), ("w", "h"), ("width", "height")),
)
_ORDERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "corners": (
        *(("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"), ("x0", "y0", "x1", "y1")),
        *(("left", "top", "right", "bottom"), ("xtl", "ytl", "xbr", "ybr")),
        *(("minx", "miny", "maxx", "maxy"), ("bboxx1", "bboxy1", "bboxx2", "bboxy2")),
        *(("bboxxmin", "bboxymin", "bboxxmax", "bboxymax"), ("startx", "starty", "endx", "endy")),
        *(("bboxleft", "bboxtop", "bboxright", "bboxbottom"), ("xstart", "ystart", "xend", "yend")),
        *(
            ("topleftx", "toplefty", "bottomrightx", "bottomrighty"),
            ("xtopleft", "ytopleft", "xbottomright", "ybottomright"),
        ),
        *(("x", "y", "x2", "y2"), ("x", "y", "xmax", "ymax")),
    ),
    "sizes": tuple(corner + size for size in _SIZES for corner in _CORNERS),
    "centres": tuple(centre + size for size in _SIZES for centre in _CENTRES),
}
# Names for the height and the width of an image.
_IMAGE_SIZES = (
    *(("imageheight", "imagewidth"), ("imgheight", "imgwidth"), ("imageh", "imagew")),
    *(("imgh", "imgw"), ("originalheight", "originalwidth"), ("height", "width")),
)
_ABSENT = ("nan", "none", "null", "na", "n/a", "inf", "true", "false")


# Columns of a file without one for the class, where all objects are of one.
_ASIDE = {
    *("", "unnamed0", "index", "id", "width", "height", "depth", "imagewidth", "imageheight"),
    *("imgwidth", "imgheight", "source", "score", "confidence", "area", "split", "fold"),
}
NO_COLUMN = -1
SNIFFED_ROWS = 20  # in which it shows what the columns hold
SNIFFED_FIELDS = 1000  # of a row: that of a broken file may have millions


class Layout(NamedTuple):
    """The columns of a file."""

    fields: int
    """Number of fields in a row."""
    places: tuple[int, ...]
    """Of each of `COLUMNS`, the position of the field; NO_COLUMN of a class that has none."""
    kind: str
    """The meaning of the four numbers: corners, sizes (x, y, width, height), or centres."""
    size: tuple[int, ...] = ()
    """The positions of the image's height and width, where there are such fields."""


CLASSIC = Layout(6, (0, 1, 2, 3, 4, 5), "corners")
# Without a header, by what the fields hold: the path of an image, a number, a word.
_PLAIN = {
    "pnnnnw": CLASSIC,
    "pnnnnwn": Layout(7, (0, 1, 2, 3, 4, 5), "corners"),  # a score behind
    "npnnnnw": Layout(7, (1, 2, 3, 4, 5, 6), "corners"),  # an index in front
    "pnnnnwnn": Layout(8, (0, 1, 2, 3, 4, 5), "corners", (7, 6)),  # SKU-110K: the image's size
    "pnnwnnnn": Layout(8, (0, 4, 5, 6, 7, 3), "corners", (2, 1)),  # xml_to_csv.py
    "wnnnnpnn": Layout(8, (5, 1, 2, 3, 4, 0), "sizes", (7, 6)),  # makesense.ai
}


def is_header(fields: Sequence[str], classes: Mapping[str, int]) -> bool:
    """Whether a first row names columns: words alone, or the classic order with words in it."""
    fields = fields[:SNIFFED_FIELDS]
    words = [field[:1].isalpha() and field.lower() not in _ABSENT for field in fields]
    if len(fields) == len(COLUMNS) and all(words[1:5]) and fields[-1] not in classes:
        return True
    if len(fields) > 1 and all(words) and plain_name(fields[0]) in _PATHS:
        return True
    known = {*_PATHS, *CLASS_NAMES, *(name for order in _names() for name in order)}
    plain = [plain_name(field) for field in fields]
    digits = any(re.fullmatch(r"[-+]?[0-9.]+", field) for field in fields)
    return len(fields) > 3 and not digits and sum(name in known for name in plain) >= 3


def plain_layout(rows: Iterable[Sequence[str]]) -> Layout:
    """The columns of rows without a header, by the first that tells; else the classic ones."""
    starts = (fields[:SNIFFED_FIELDS] for fields in islice(rows, SNIFFED_ROWS))
    found = (_PLAIN.get("".join(map(_sign, fields))) for fields in starts)
    return next(filter(None, found), CLASSIC)


def _sign(field: str) -> str:
    if os.path.splitext(field)[1].lower() in SUFFIXES:
        return "p"
    return "n" if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", field, re.I) else "w"


def read_header(fields: Sequence[str], place: str, *, many_classes: bool = False) -> Layout:
    """The columns that a header names.

    Args:
        fields: of the header.
        place: the file and the line, for messages.
        many_classes: whether it must name one for the class; else all objects may be of one class.

    Raises:
        DataError: it does not name a path, a box and a class; with the header.
    """
    position: dict[str, int] = {}
    for k, field in enumerate(fields):
        position.setdefault(plain_name(field), k)
    label = next((position[name] for name in CLASS_NAMES if name in position), None)
    paths = [position[name] for name in _PATHS if name in position]
    path = next((place for place in paths if place != label), None)
    orders = ((kind, order) for kind, orders in _ORDERS.items() for order in orders)
    kind, order = next((o for o in orders if position.keys() >= set(o[1])), ("", ()))
    if label is None and not many_classes and position.keys() <= {*order, *_ASIDE, *_PATHS}:
        label = NO_COLUMN
    if path is not None and label is not None and order:
        places = (path, *(position[name] for name in order), label)
        named = (names for names in _IMAGE_SIZES if position.keys() >= set(names))
        sizes = (tuple(position[name] for name in names) for names in named)
        size = next((found for found in sizes if not {*found} & {*places}), ())
        return Layout(len(fields), places, kind, size)
    lacking = ["a path"] * (path is None) + ["a class"] * (label is None)
    lacking += ["a box"] * (not order)
    raise DataError(
        f"{place}: the header {shown(','.join(fields))} names no column of {' or '.join(lacking)};"
        f" expected {','.join(COLUMNS)}, or x,y,width,height for the box; rename the columns"
    )


def _names() -> list[tuple[str, ...]]:
    return [order for orders in _ORDERS.values() for order in orders]


def plain_name(name: str) -> str:
    """A column's name without letter case, signs, and a unit in brackets."""
    return re.sub(r"[^a-z0-9]", "", re.sub(r"\(.*\)", "", name.lower()))
