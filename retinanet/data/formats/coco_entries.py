"""Entries of COCO's three lists, one by one: kept in columns, mended, or found to be wrong."""

import re
from array import array
from collections.abc import Mapping, Sequence
from math import isfinite, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinanet.data.formats.labels import side
from retinanet.data.problems import Array, Problems
from retinanet.errors import printable, shown

Id = int | str

LARGEST = 1e9  # of a coordinate
OTHER_NAMES = ("filename", "path", "coco_url")  # keys that name an image where file_name does not
_UNREAD = object()  # stands for a value that is no number
_POLYGON = "box around its polygon"


def number(value: Any) -> float | None:
    """A number, or a text that is one; None of all else."""
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def whole(value: Any) -> Id | None:
    """An id: a whole number, also as 1.0, or a text; None of all else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None


def numeric(value: Id) -> Id:
    """An id, or the whole number that its text is."""
    if isinstance(value, str) and value.isascii():
        digits = value.strip().removesuffix(".0")
        if digits.isdigit() and len(digits) < 19:
            return int(digits)
    return value


class Entries:
    """The entries of one list."""

    key: str
    fields: str  # what an entry has

    def __init__(self, problems: Problems) -> None:
        self.problems = problems
        self.count = 0

    def take(self, entry: Any) -> None:
        """Take in the next entry."""
        if isinstance(entry, dict):
            self.read(entry)
        else:
            self.wrong(f"{shown(entry)}; expected an object with {self.fields}; correct it")
        self.count += 1

    def read(self, entry: dict[str, Any]) -> None:
        """Keep what is needed of an entry."""
        raise NotImplementedError

    def wrong(self, text: str) -> None:
        """Take in a problem of the current entry."""
        self.problems.add_one(f"wrong entry of {self.key}", f"{self.key}[{self.count}]: {text}")

    def mend(self, kind: str, text: str) -> None:
        """Count what is put right in the current entry."""
        place = f"{self.key}[{self.count}]"
        self.problems.repair(kind, [0], lambda _: f"{place}: {text}")

    def lacks(self, entry: dict[str, Any], name: str) -> None:
        """Take in that a field is missing or of a wrong type."""
        found = f"{name} is {shown(entry[name])}" if name in entry else f"no {name}"
        self.wrong(f"{found}; expected {self.fields}; correct it")

    def id_of(self, entry: dict[str, Any], name: str) -> Id | None:
        """An id in an entry; what is none is a problem."""
        found = whole(entry.get(name))
        if found is None:
            self.lacks(entry, name)
        elif isinstance(entry[name], float):
            self.mend("whole number with a point", f"{name} {entry[name]}; expected {found}")
        return found


class ImageEntries(Entries):
    """The images: ids, file names, and the sizes that the file claims."""

    key, fields = "images", "id, file_name"

    def __init__(self, problems: Problems) -> None:
        super().__init__(problems)
        self.position: dict[Id, int] = {}
        self.ids: list[Id] = []
        self.file_names: list[str] = []
        self.sizes: list[tuple[int, int]] = []

    def read(self, entry: dict[str, Any]) -> None:
        """Keep an image; one that is there before is a repair, another of its id a problem."""
        name, found = entry.get("file_name"), self.id_of(entry, "id")
        if found is None:
            return
        if name is None:
            name = self._other_name(entry)
        if not isinstance(name, str):
            self.lacks(entry, "file_name")
        elif found in self.position:
            if self.file_names[self.position[found]] == name:
                self.mend("image listed twice", f"image {shown(found)} is listed before; remove it")
            else:
                self.wrong(f"id {shown(found)} a second time; expected each once; renumber it")
        else:
            self.position[found] = len(self.ids)
            self.ids.append(found)
            self.file_names.append(name)
            self.sizes.append((side(entry.get("height")), side(entry.get("width"))))

    def _other_name(self, entry: dict[str, Any]) -> str | None:
        """The name of an image by another key, such as LVIS's URL of it; None where there is none.

        Of a path and of a URL the end counts, as of all places of other machines.
        """
        key = next((key for key in OTHER_NAMES if isinstance(entry.get(key), str)), None)
        if key is None:
            return None
        self.mend("image without file_name", f"no file_name; expected it beside {key}; add it")
        return str(entry[key])


class CategoryEntries(Entries):
    """The categories: ids, names, and whose parents they are."""

    key, fields = "categories", "id, name"

    def __init__(self, problems: Problems) -> None:
        super().__init__(problems)
        self.name_of: dict[Id, str] = {}
        self.parents: set[Any] = set()

    def read(self, entry: dict[str, Any]) -> None:
        """Keep a category; one that is there before is a repair, another of its id a problem."""
        name, found = entry.get("name"), self.id_of(entry, "id")
        if isinstance(entry.get("supercategory"), str):
            self.parents.add(entry["supercategory"])
        if found is None:
            return
        if not isinstance(name, str):
            self.lacks(entry, "name")
        elif found in self.name_of and self.name_of[found] != name:
            self.wrong(f"id {shown(found)} a second time; expected each once; renumber it")
        elif printable(name) != name:
            self.wrong(f"name {shown(name)}; expected no control characters; rename it")
        elif name in self.name_of.values():
            text = f"name {shown(name)} a second time; expected each once; rename or remove it"
            self.mend("category listed twice", text)
            self.name_of[found] = name
        else:
            self.name_of[found] = name

    def classes(self, used: set[Id], *, drop_parents: bool) -> dict[str, list[Id]]:
        """Class name to category ids, by the classes' ids; the first id stands for the class.

        Args:
            used: ids that annotations name.
            drop_parents: leave out unused categories that are the parents of others.
        """
        ids: dict[str, list[Id]] = {}
        for found, name in self.name_of.items():
            ids.setdefault(name, []).append(found)
        for of_name in ids.values():  # of equal names, the one that is used
            of_name.sort(key=lambda found: found not in used)
        if drop_parents:
            left = {n: i for n, i in ids.items() if i[0] in used or n not in self.parents}
            dropped = [name for name in ids if left and name not in left]
            if dropped:
                text = f"left out, without boxes and parents of others: {shown(dropped)}"
                self.problems.remarks.append(f"{self.problems.path}: categories {text}")
            ids = left or ids
        return dict(sorted(ids.items(), key=lambda item: _order(item[1][0])))


def _order(found: Id) -> tuple[bool, Id]:
    """The place of an id: numbers before texts, texts of digits as numbers."""
    value = numeric(found)
    return isinstance(value, str), value


class AnnotationEntries(Entries):
    """The annotations, in columns of plain numbers."""

    key, fields = "annotations", "image_id, category_id, bbox"

    def __init__(self, problems: Problems) -> None:
        super().__init__(problems)
        self._image_codes: dict[Id, int] = {}
        self._category_codes: dict[Id, int] = {}
        self._ids, self._positions = array("q"), array("i")
        self._images, self._categories = array("i"), array("i")
        self._boxes, self._areas, self._crowds = array("d"), array("d"), array("b")
        self._left_out = 0

    def read(self, entry: dict[str, Any]) -> None:
        """Keep an annotation that has a box."""
        image = entry.get("image_id")
        if type(image) is not int and type(image) is not str:
            image = self.id_of(entry, "image_id")
        category = entry.get("category_id")
        if type(category) is not int and type(category) is not str and image is not None:
            category = self.id_of(entry, "category_id")
        if image is None or category is None:
            return
        box = entry.get("bbox")
        if type(box) is not list or len(box) != 4 or set(map(type, box)) - {int, float}:
            box = self._odd_box(entry)
        if box is None or not self._is_right(box):
            return
        area, crowd = entry.get("area"), entry.get("iscrowd")
        if type(area) is not float or not abs(area) < 1e18:
            area = self._odd_number(entry, "area", -1e18, 1e18)
        if crowd != 0 or type(crowd) is not int:
            crowd = self._odd_number(entry, "iscrowd", -0.5, 1.5)
            crowd = 0 if crowd is not None and crowd != crowd else crowd
            if crowd not in (0, 1, None):
                self.wrong(f"iscrowd {crowd:g}; expected 0 or 1; correct or remove it")
                return
        if area is None or crowd is None:
            return
        self._ids.append(self._own_id(entry))
        self._positions.append(self.count)
        self._images.append(self._image_codes.setdefault(image, len(self._image_codes)))
        codes = self._category_codes
        self._categories.append(codes.setdefault(category, len(codes)))
        self._boxes.extend(box)
        self._areas.append(area)
        self._crowds.append(int(crowd))

    def _own_id(self, entry: dict[str, Any]) -> int:
        """The annotation's id, -1 where it has none: nothing depends on it."""
        found = entry.get("id")
        if type(found) is int and 0 <= found < 2**63:
            return found
        self.mend("annotation without a number for id", f"id {shown(found)}; expected a number")
        return -1

    def _odd_box(self, entry: dict[str, Any]) -> Sequence[float] | None:
        """A box of texts, or that of the polygon; None where there is none, which is said."""
        box = entry.get("bbox")
        parts = re.split(r"[\s,]+", box.strip("[]() ")) if isinstance(box, str) else box
        numbers = [number(value) for value in parts] if isinstance(parts, list) else []
        if len(numbers) == 4 and None not in numbers:
            self.mend("number in quotes", f"bbox {shown(box)}; expected numbers without quotes")
            return [value for value in numbers if value is not None]
        if box not in (None, []) and not (
            isinstance(box, list) and set(map(repr, box)) == {"None"}
        ):
            self.wrong(f"bbox {shown(box)}; expected four numbers: x, y, width, height; correct it")
            return None
        around = _box_around(entry.get("segmentation"))
        if around:
            self.mend(_POLYGON, f"bbox {shown(box)}; expected x, y, width, height; add them")
        elif isinstance(entry.get("segmentation"), dict):
            self.wrong("a mask and no bbox; expected x, y, width, height; add them")
        else:
            self._leave_out(f"bbox {shown(box)}")
        return around

    def _leave_out(self, found: str) -> None:
        self._left_out += 1
        text = f"{found}; expected x, y, width, height; remove the annotation"
        self.mend("annotation without a box left out", text)

    def _is_right(self, box: Sequence[float]) -> bool:
        """Whether four numbers are a box; what is wrong is said."""
        if any(value != value for value in box) and all(value != value for value in box):
            self._leave_out("bbox of NaN")
            return False
        if not all(-LARGEST < value < LARGEST for value in box):
            self.wrong(f"bbox {shown(box)}; expected four numbers: x, y, width, height; correct it")
        elif box[2] < 0 or box[3] < 0:
            text = "is of negative size; expected x, y, width, height; correct it"
            self.wrong(f"bbox {shown(box)} {text}")
        else:
            return True
        return False

    def _odd_number(
        self, entry: dict[str, Any], name: str, low: float, high: float
    ) -> float | None:
        """A number that may be missing (NaN) or in quotes; None of what is none, which is said."""
        value = entry.get(name)
        if value is None or value == "" or value != value:
            if name in entry:
                empty = "null" if value is None else shown(value)
                text = f"{name} {empty}; expected a number, or none at all"
                self.mend("null area or iscrowd", text)
            return nan
        is_word = isinstance(value, str) and value.lower() in ("true", "false")
        found = float(value.lower() == "true") if is_word else number(value)
        if isinstance(value, bool):
            found = float(value)
        if found is None or not low < found < high:
            what = "0 or 1" if name == "iscrowd" else "a number of square pixels"
            self.wrong(f"{name} {shown(value)}; expected {what}; correct or remove it")
            return None
        if isinstance(value, str):
            self.mend("number in quotes", f"{name} {shown(value)}; expected no quotes")
        return found

    # ---- columns

    @property
    def used_categories(self) -> set[Id]:
        """The category ids that annotations name."""
        return set(self._category_codes)

    def check_boxes_left(self) -> None:
        """Refuse a file most of whose annotations have no box."""
        if 2 * self._left_out > self.count > 1:
            text = f"{self._left_out:,} of {self.count:,} annotations have no bbox and no polygon"
            self.problems.add_one("no boxes", f"{text}; expected bbox: x, y, width, height; add it")

    def columns(self) -> dict[str, Array]:
        """Columns kept of the annotations: own ids, positions, boxes, areas, crowds."""
        boxes = np.array(self._boxes).reshape(-1, 4)
        areas = np.array(self._areas)
        return {
            "ids": np.array(self._ids, np.int64),
            "positions": np.array(self._positions, np.int32),
            "boxes": boxes,
            "areas": np.where(np.isnan(areas), boxes[:, 2] * boxes[:, 3], areas),
            "crowds": np.array(self._crowds, bool),
        }

    def images(self, position: Mapping[Id, int]) -> NDArray[np.int32]:
        """[annotations] the position of each one's image, -1 of one that is not listed."""
        return self._resolved(self._images, self._image_codes, position)

    def labels(self, label: Mapping[Id, int]) -> NDArray[np.int32]:
        """[annotations] the label of each one's category, -1 of one that is not listed."""
        return self._resolved(self._categories, self._category_codes, label)

    def _resolved(
        self, column: "array[int]", codes: Mapping[Id, int], known: Mapping[Id, int]
    ) -> NDArray[np.int32]:
        """A column of codes as what the ids stand for; a number in quotes is that number."""
        by_number = {numeric(found): value for found, value in known.items()}
        found = [known.get(value, by_number.get(numeric(value), -1)) for value in codes]
        quoted = [value not in known and numeric(value) in by_number for value in codes]
        coded = np.array(column, np.int64)
        count = int(np.array([*quoted, False])[coded].sum())
        if count:
            text = "ids in quotes where others are numbers; expected the ids of the entries meant"
            self.problems.repair("number in quotes", [0] * count, lambda _: text)
        return np.array([*found, -1], np.int32)[coded]

    def repeated_ids(self, ids: Array) -> None:
        """Count the annotations whose id another one has: nothing depends on it."""
        own = np.sort(ids[ids >= 0])
        again = own[1:][own[1:] == own[:-1]]
        self.problems.repair(
            "annotation id a second time",
            np.zeros(len(again), int),
            lambda k: f"annotation id {again[k]} a second time; expected each once; renumber it",
        )

    def id_text(self, row: int, name: str) -> str:
        """The id of an image or category in a kept annotation, for a message."""
        column, codes = (
            (self._images, self._image_codes)
            if name == "image_id"
            else (self._categories, self._category_codes)
        )
        value = next(key for key, code in codes.items() if code == column[row])
        return f"annotations[{self._positions[row]}]: {name} {shown(value)}"


def _box_around(polygons: Any) -> list[float] | None:
    """x, y, width, height around polygons of x, y, x, y ...; None of what is none."""
    if not isinstance(polygons, list):
        return None
    lists = polygons if polygons and isinstance(polygons[0], list) else [polygons]
    # Points of one list may be pairs, too.
    parts = [point if isinstance(point, list) else [point] for part in lists for point in part]
    points = [number(value) for part in parts for value in part]
    values = [value for value in points if value is not None and isfinite(value)]
    if len(values) != len(points) or len(values) < 6 or len(values) % 2:
        return None
    xs, ys = values[::2], values[1::2]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
