"""COCO's `instances_*.json`: read, checked, and turned into boxes. It opens no image."""

import contextlib
import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from retinanet.annotations import Annotations, Problems, shown
from retinanet.errors import DataError

_ENTRIES: dict[str, dict[str, type | tuple[type, ...]]] = {
    "images": {"id": (int, str), "file_name": str},
    "categories": {"id": int, "name": str},
    "annotations": {"id": int, "image_id": (int, str), "category_id": int, "bbox": list},
}


def read_coco(path: Path) -> COCO:
    """Read and check a whole file; its `dataset` is the file's content.

    What pycocotools needs and people's own files lack (`info`, `iscrowd`, `area`) is filled in.

    Raises:
        DataError: it is missing, not JSON, or an entry is wrong: each named by its position.
    """
    content = _read_json(path)
    _check(content, Problems(path))
    content.setdefault("info", {})
    for annotation in content["annotations"]:
        annotation.setdefault("iscrowd", 0)
        annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])
    coco = COCO()
    coco.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        coco.createIndex()
    return coco


def coco_boxes(content: dict[str, Any], labels: dict[int, int]) -> Annotations:
    """The boxes to train on: no crowds, nothing under one pixel.

    Args:
        content: a checked file.
        labels: category id to label.
    """
    images = content["images"]
    position = {image["id"]: index for index, image in enumerate(images)}
    kept = [entry for entry in content["annotations"] if not entry["iscrowd"]]
    owners = np.array([position[entry["image_id"]] for entry in kept], np.int64)
    boxes = np.array([(*e["bbox"], labels[e["category_id"]]) for e in kept], float).reshape(-1, 5)
    large = (boxes[:, 2:4] >= 1).all(axis=1)
    rows = np.flatnonzero(large)
    rows = rows[np.argsort(owners[rows], kind="stable")]
    boxes = boxes[rows]
    boxes[:, 2:4] += boxes[:, :2]
    return Annotations(
        names=tuple(image["file_name"] for image in images),
        first_lines=np.zeros(len(images), np.int64),  # 0: JSON has no lines to speak of
        offsets=np.searchsorted(owners[rows], np.arange(len(images) + 1)),
        boxes=boxes,
        lines=np.zeros(len(rows), np.int64),
        repaired={} if large.all() else {"box under 1 px left out": int((~large).sum())},
    )


def _read_json(path: Path) -> Any:
    advice = "expected COCO annotations; correct the path, the name of the set, or the file"
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; {advice}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); {advice}") from error


def _check(content: Any, problems: Problems) -> None:
    """Every entry has what is needed, ids are unique and refer to something."""
    for key in _ENTRIES:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            problems.add_one(f"no list {key!r}; expected {', '.join(_ENTRIES)}; add it")
        elif key != "annotations" and not content[key]:
            problems.add_one(f"no {key}; expected at least one; add some")
    problems.raise_if_any()
    for key, fields in _ENTRIES.items():
        _check_entries(key, content, partial(_entry_problem, fields, set()), problems)
    problems.raise_if_any()
    images, categories = ({e["id"] for e in content[key]} for key in ("images", "categories"))
    _check_entries("images", content, _climbing, problems)
    _check_entries("categories", content, partial(_name_problem, set()), problems)
    _check_entries("annotations", content, partial(_box_problem, images, categories), problems)
    problems.raise_if_any()


def _check_entries(
    key: str, content: dict[str, Any], check: Callable[[Any], str], problems: Problems
) -> None:
    """Take in what `check` says of each entry of a list; it says nothing of a right one."""
    bad = [(k, found) for k, entry in enumerate(content[key]) if (found := check(entry))]
    problems.add([0] * len(bad), lambda k: f"{key}[{bad[k][0]}]: {bad[k][1]}")


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
    seen.add(name)
    return ""


def _climbing(image: Any) -> str:
    # As Windows reads it, so that both kinds of slash and a drive letter count everywhere.
    name = PureWindowsPath(image["file_name"])
    if name.anchor or ".." in name.parts:
        return f"file_name {shown(str(name))} leaves the image folder; expected a name inside it"
    return ""


def _box_problem(images: set[Any], categories: set[Any], annotation: Any) -> str:
    if annotation["image_id"] not in images:
        return f"image_id {shown(annotation['image_id'])}; expected the id of an image; correct it"
    if annotation["category_id"] not in categories:
        return f"category_id {annotation['category_id']}; expected the id of a category; correct it"
    box = annotation["bbox"]
    if len(box) != 4 or not all(isinstance(v, int | float) and abs(v) < 1e9 for v in box):
        return f"bbox {shown(box)}; expected four numbers: x, y, width, height; correct it"
    return ""
