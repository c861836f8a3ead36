"""COCO's `instances_*.json`: read, checked, and turned into boxes. It opens no image."""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from retinanet.data.annotations import Annotations, group_by_image
from retinanet.data.problems import Problems
from retinanet.errors import DataError, printable, shown

_ENTRIES: dict[str, dict[str, type | tuple[type, ...]]] = {
    "images": {"id": (int, str), "file_name": str},
    "categories": {"id": int, "name": str},
    "annotations": {"id": int, "image_id": (int, str), "category_id": int, "bbox": list},
}


def read_coco(path: Path, problems: Problems) -> COCO:
    """Read and check a whole file; its `dataset` is the file's content, without wrong entries.

    What pycocotools needs and people's own files lack (`info`, `iscrowd`, `area`) is filled in.

    Args:
        path: the file.
        problems: of this file; takes in wrong entries, each named by its position.

    Raises:
        DataError: it is missing, not JSON, or nothing in it is right.
    """
    content = _read_json(path)
    _check_lists(content, problems)
    _keep_right_entries(content, problems)
    if not (content["images"] and content["categories"]):
        problems.raise_if_any()
    content.setdefault("info", {})
    for annotation in content["annotations"]:
        annotation.setdefault("iscrowd", 0)
        annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])
    coco = COCO()
    coco.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        coco.createIndex()
    return coco


def coco_boxes(content: dict[str, Any], labels: dict[int, int], problems: Problems) -> Annotations:
    """The boxes to train on: no crowds, nothing under one pixel, nothing twice.

    Args:
        content: of a checked file.
        labels: category id to label.
        problems: of this file; takes in what is left out.
    """
    images = content["images"]
    position = {image["id"]: index for index, image in enumerate(images)}
    kept = [entry for entry in content["annotations"] if not entry["iscrowd"]]
    small = [entry for entry in kept if min(entry["bbox"][2:]) < 1]
    problems.repair(
        "box under 1 px left out",
        np.zeros(len(small), int),  # JSON has no lines to speak of
        lambda k: (
            f"{_called(small[k])}: a box of {small[k]['bbox'][2]:g} x {small[k]['bbox'][3]:g} px;"
            " expected at least 1 x 1; remove it"
        ),
    )
    kept = [entry for entry in kept if min(entry["bbox"][2:]) >= 1]
    columns = np.array([(*e["bbox"], labels[e["category_id"]]) for e in kept], float)
    columns = np.ascontiguousarray(columns.reshape(-1, 5).T)
    columns[2:4] += columns[:2]
    return group_by_image(
        [image["file_name"] for image in images],
        np.zeros(len(images), int),
        np.array([position[entry["image_id"]] for entry in kept], int),
        columns,
        np.zeros(len(kept), int),
        problems,
        [_called(entry) for entry in kept],
    )


def _called(annotation: Any) -> str:
    return f"annotation {annotation['id']}"


def _read_json(path: Path) -> Any:
    advice = "expected COCO annotations; correct the path, the name of the set, or the file"
    if path.exists() and not path.is_file():  # a pipe would hang, a device never end
        raise DataError(f"{path}: not a regular file; {advice}")
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; {advice}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); {advice}") from error


def _check_lists(content: Any, problems: Problems) -> None:
    for key in _ENTRIES:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            text = f"no list {key!r}; expected {', '.join(_ENTRIES)}; add it"
            problems.add_one("missing list", text)
        elif key != "annotations" and not content[key]:
            problems.add_one("empty list", f"no {key}; expected at least one; add some")
    problems.raise_if_any()


def _keep_right_entries(content: dict[str, Any], problems: Problems) -> None:
    """Drop entries that lack something, repeat an id, or refer to what is not there."""
    images, categories = (_ids(content[key]) for key in ("images", "categories"))
    names: set[str] = set()
    _drop_wrong("images", content, _climbing, problems)
    _drop_wrong("categories", content, lambda entry: _name_problem(names, entry), problems)
    _drop_wrong(
        "annotations", content, lambda entry: _box_problem(images, categories, entry), problems
    )
    # Annotations of a dropped image or category are not wrong, but have nothing to belong to.
    kept = [{entry["id"] for entry in content[key]} for key in ("images", "categories")]
    content["annotations"] = [
        entry
        for entry in content["annotations"]
        if entry["image_id"] in kept[0] and entry["category_id"] in kept[1]
    ]


def _ids(entries: list[Any]) -> set[Any] | None:
    """Ids that may be referred to; None where an entry has none."""
    found = [entry.get("id") if isinstance(entry, dict) else None for entry in entries]
    return set(found) if all(isinstance(value, int | str) for value in found) else None


def _drop_wrong(
    key: str, content: dict[str, Any], check: Callable[[Any], str], problems: Problems
) -> None:
    """Drop the entries of a list that lack something or of which `check` says what is wrong."""
    entries, seen = content[key], set[Any]()
    found = [_entry_problem(_ENTRIES[key], seen, entry) or check(entry) for entry in entries]
    bad = [k for k, text in enumerate(found) if text]
    problems.add(
        f"wrong entry of {key}", [0] * len(bad), lambda k: f"{key}[{bad[k]}]: {found[bad[k]]}"
    )
    content[key] = [entry for entry, text in zip(entries, found, strict=True) if not text]


def _entry_problem(fields: dict[str, type | tuple[type, ...]], seen: set[Any], entry: Any) -> str:
    if not isinstance(entry, dict):
        return f"{shown(entry)}; expected an object with {', '.join(fields)}; correct it"
    for name, kind in fields.items():
        if not isinstance(entry.get(name), kind):
            found = f"{name} is {shown(entry[name])}" if name in entry else f"no {name}"
            return f"{found}; expected {', '.join(fields)}; correct it"
    if entry["id"] in seen:
        return f"id {shown(entry['id'])} a second time; expected each once; renumber or remove it"
    seen.add(entry["id"])
    return ""


def _name_problem(seen: set[str], category: Any) -> str:
    name = category["name"]
    if name in seen:
        return f"name {shown(name)} a second time; expected each once; rename or remove it"
    if printable(name) != name:
        return f"name {shown(name)}; expected no control characters; rename it"
    seen.add(name)
    return ""


def _climbing(image: Any) -> str:
    # As Windows reads it, so that both kinds of slash and a drive letter count everywhere. A link
    # in the folder may lead out of it: who may make one there may put the file there too.
    name = PureWindowsPath(image["file_name"])
    if name.anchor or ".." in name.parts:
        found = shown(image["file_name"])
        return f"file_name {found} leaves the image folder; expected a name inside it; correct it"
    return ""


def _box_problem(images: set[Any] | None, categories: set[Any] | None, annotation: Any) -> str:
    if images is not None and annotation["image_id"] not in images:
        return f"image_id {shown(annotation['image_id'])}; expected the id of an image; correct it"
    if categories is not None and annotation["category_id"] not in categories:
        found = shown(annotation["category_id"])
        return f"category_id {found}; expected the id of a category; correct it"
    box, area, crowd = annotation["bbox"], annotation.get("area", 0), annotation.get("iscrowd", 0)
    if len(box) != 4 or not all(isinstance(v, int | float) and abs(v) < 1e9 for v in box):
        return f"bbox {shown(box)}; expected four numbers: x, y, width, height; correct it"
    if min(box[2:]) < 0:
        return f"bbox {shown(box)} is of negative size; expected x, y, width, height; correct it"
    if not (isinstance(area, int | float) and abs(area) < 1e18):
        return f"area {shown(area)}; expected a number of square pixels; correct or remove it"
    if crowd not in (0, 1):
        return f"iscrowd {shown(crowd)}; expected 0 or 1; correct or remove it"
    return ""
