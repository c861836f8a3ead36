"""check_data on labelled folders of every format: each kind of problem is found, a clean one is."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retinanet.tools import check_data
from tests.data.formats.exports import labelme_json, text, voc_xml, yolo_line

NAMES = ("cat", "cow", "owl")
CAT, COW, OWL = ((*corners, name) for corners, name in zip(
    ((10, 20, 50, 60), (10, 20, 50, 61), (30, 8, 90, 70)), NAMES, strict=True
))  # fmt: skip
CLEAN = {"train/a": [CAT], "train/b": [COW], "train/c": [CAT, OWL], "val/d": [COW], "val/e": [CAT]}
FORMATS = ("yolo", "voc", "labelme", "coco", "csv")


def picture(path: Path, seed: int) -> None:
    """A picture of 100 x 80 pixels that looks like no other one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = np.random.default_rng(seed).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    Image.fromarray(cells).resize((100, 80), Image.Resampling.BICUBIC).save(path)


def labels(root: Path, kind: str, sets: dict[str, Any]) -> None:
    """The labels of images called `SET/STEM` that lie in `SET/images`."""
    for part in ("train", "val") if kind in ("coco", "csv") else ():
        if kind == "coco":
            coco(root / part / "_annotations.coco.json", part, sets)
        else:
            rows = [
                f"{name.split('/')[1]}.png,{','.join(map(str, box))}"
                for name, boxes in sets.items()
                for box in boxes
                if name.startswith(part)
            ]
            text(root / part / "labels.csv", "filename,xmin,ymin,xmax,ymax,class", *rows)
    for name, boxes in sets.items() if kind in ("yolo", "voc", "labelme") else ():
        part, stem = name.split("/")
        if kind == "yolo":
            text(root / part / "labels" / f"{stem}.txt", *(yolo_line(b, NAMES) for b in boxes))
        elif kind == "voc":
            text(root / part / "annotations" / f"{stem}.xml", voc_xml(f"{stem}.png", boxes))
        else:
            text(root / part / "images" / f"{stem}.json", labelme_json(f"{stem}.png", boxes))
    if kind == "yolo":
        text(root / "data.yaml", "train: train/images", "val: val/images", f"names: {[*NAMES]}")


def coco(path: Path, part: str, sets: dict[str, Any]) -> None:
    """The file of one set."""
    stems = [name.split("/")[1] for name in sets if name.startswith(part)]
    content: dict[str, list[Any]] = {
        "images": [{"id": k, "file_name": f"{stem}.png"} for k, stem in enumerate(stems)],
        "categories": [{"id": k, "name": name} for k, name in enumerate(NAMES)],
        "annotations": [],
    }
    for k, stem in enumerate(stems):
        for x1, y1, x2, y2, name in sets[f"{part}/{stem}"]:
            entry = {"id": len(content["annotations"]), "image_id": k, "iscrowd": 0}
            box = {"category_id": NAMES.index(name), "bbox": [x1, y1, x2 - x1, y2 - y1]}
            content["annotations"].append({**entry, **box})
    text(path, json.dumps(content))


def folder(root: Path, kind: str, sets: dict[str, Any]) -> Path:
    """A folder of two sets."""
    for seed, name in enumerate(sets):
        part, stem = name.split("/")
        picture(root / part / "images" / f"{stem}.png", seed)
    labels(root, kind, sets)
    return root


def checked(
    root: Path, capsys: pytest.CaptureFixture[str], *, code: int, flags: tuple[str, ...] = ()
) -> dict[str, Any]:
    """What is printed for programs."""
    sizes = ("--min_side", "64", "--max_side", "96")
    assert check_data.main(["--data", str(root), "--json", *sizes, *flags]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("kind", FORMATS)
def test_a_clean_folder(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = checked(folder(tmp_path, kind, CLEAN), capsys, code=0)
    assert found["problems"] == 0
    assert (found["training"]["images"], found["validation"]["images"]) == (3, 2)
    assert found["classes_in_one_set"] == {"training": ["owl"], "validation": []}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_kind_of_problem(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An object drawn twice, a class of the validation set alone, one picture saved again smaller
    and another one copied, both across the sets, and one of one colour: 5 problems.
    """
    sets = {**CLEAN, "train/a": [CAT, COW], "train/c": [CAT], "val/e": [OWL], "val/f": [CAT]}
    root = folder(tmp_path, kind, sets)
    train, val = root / "train" / "images", root / "val" / "images"
    Image.open(train / "a.png").resize((98, 79)).resize((100, 80)).save(val / "d.png")
    shutil.copyfile(train / "b.png", val / "f.png")
    Image.new("RGB", (100, 80), (9, 9, 9)).save(val / "e.png")
    picture(train / "unnamed.png", 100)
    found = checked(root, capsys, code=1)
    assert found["double_boxes"] == [
        {"image": str(train / "a.png"), "classes": ["cat", "cow"], "box": [10, 20, 50, 60]}
    ]
    assert found["equal_files"] == [
        [["training", str(train / "b.png")], ["validation", str(val / "f.png")]]
    ]
    assert found["near_duplicates"] == [
        [["training", str(train / "a.png")], ["validation", str(val / "d.png")]]
    ]
    assert found["one_colour"] == [["validation", str(val / "e.png")]]
    assert found["classes_in_one_set"] == {"training": [], "validation": ["owl"]}
    assert found["problems"] == 5
    notes = " ".join(found["training"]["notes"])
    assert ("1 image without a label: background" in notes) == (kind == "yolo")
    files = {"coco": "an entry in _annotations.coco.json", "csv": "an entry in labels.csv"}
    lack = files.get(kind, "an annotation file")
    assert (f"1 image without {lack}: left out" in notes) == (kind != "yolo")
    fewer = checked(root, capsys, code=1, flags=("--no_near_duplicates", "--no_decode"))
    assert (fewer["near_duplicates"], fewer["one_colour"], fewer["problems"]) == (None, None, 3)


@pytest.mark.parametrize("kind", FORMATS)
def test_labels_that_are_wrong_end_it_with_one_line_each(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both sets are read before it ends."""
    root = folder(tmp_path, kind, CLEAN)
    for name in ("train/images/a.png", "val/images/d.png"):
        (root / name).unlink()
    assert check_data.main(["--data", str(root), "--json"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.replace("check_data.py: error: ", "").split("\n")
    problems = [line for line in lines if "a.png" in line or "d.png" in line]
    problems += [line for line in lines if "a.txt: " in line or "d.txt: " in line]
    assert len(problems) == 2
