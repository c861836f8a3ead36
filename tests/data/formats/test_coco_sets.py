"""Folders and files with COCO's annotations: the sets in them, and their images."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from retinanet.data.datasets import CocoDataset
from retinanet.data.formats.coco import find_coco
from retinanet.data.formats.labelme import find_labelme
from retinanet.data.formats.labels import Listing
from retinanet.data.formats.recognise import recognise
from retinanet.errors import DataError
from tests.data.formats.exports import Boxes, coco_json, labelme_json, picture, text

COW, CAT = (10, 20, 50, 60, "cow"), (5, 8, 90, 70, "cat")
NAMES = ("cow", "cat")


def write(file: Path, by_image: Mapping[str, Boxes], images: Path, **more: object) -> Path:
    """A file, and its images in a folder, under their base names."""
    for name in by_image:
        picture(images / name.rpartition("/")[2])
    return text(file, coco_json(by_image, NAMES, **more))


def roboflow(root: Path) -> Path:
    # Images beside each set's file; the first category is the project, of which no box is.
    for folder, boxes in (("train", [COW, CAT]), ("valid", [CAT]), ("test", [COW])):
        file = root / folder / "_annotations.coco.json"
        content = json.loads(coco_json({"a_jpg.rf.1.jpg": boxes}, ("pets", *NAMES)))
        for category in content["categories"][1:]:
            category["supercategory"] = "pets"
        text(file, json.dumps(content))
        picture(root / folder / "a_jpg.rf.1.jpg")
    text(root / "README.roboflow.txt", "pets")
    return root


def cvat(root: Path) -> Path:
    write(root / "annotations/instances_default.json", {"a.jpg": [COW, CAT]}, root / "images")
    return root


def label_studio(root: Path) -> Path:
    write(root / "result.json", {"images/a.jpg": [COW, CAT]}, root / "images")
    return root


def label_studio_server(root: Path) -> Path:
    name = "/data/local-files/?d=project%2Fa.jpg"
    write(root / "result.json", {name: [COW, CAT]}, root / "other")
    picture(root / "images" / "a.jpg")
    return root


def two_files(root: Path) -> Path:
    write(root / "train.json", {"a.jpg": [COW, CAT]}, root / "images")
    write(root / "val.json", {"b.jpg": [CAT]}, root / "images")
    return root


def split_folders(root: Path) -> Path:
    # The same base name in both sets' folders.
    write(root / "train.json", {"a.jpg": [COW, CAT]}, root / "images/train")
    write(root / "val.json", {"a.jpg": [CAT]}, root / "images/val")
    return root


def official(root: Path) -> Path:
    for folder, boxes in (("train2017", [COW, CAT]), ("val2017", [CAT])):
        content = coco_json({"a.jpg": boxes}, NAMES)
        for kind in ("instances", "person_keypoints", "panoptic"):
            text(root / f"annotations/{kind}_{folder}.json", content)
        text(root / f"annotations/captions_{folder}.json", '{"images": [], "annotations": []}')
        picture(root / folder / "a.jpg")
    return root


def fiftyone(root: Path) -> Path:
    write(root / "labels.json", {"a.jpg": [COW, CAT]}, root / "data")
    return root


def below(root: Path) -> Path:
    write(root / "project/export/annotations.json", {"x/a.jpg": [COW, CAT]}, root / "project/x")
    return root


@pytest.mark.parametrize(
    ("export", "sets"),
    [
        (roboflow, ["test", "train", "val"]),
        (cvat, ["all"]),
        (label_studio, ["all"]),
        (label_studio_server, ["all"]),
        (two_files, ["train", "val"]),
        (split_folders, ["train", "val"]),
        (official, ["train", "val"]),
        (fiftyone, ["all"]),
        (below, ["all"]),
    ],
)
def test_folders_of_every_tool(
    tmp_path: Path, export: Callable[[Path], Path], sets: Sequence[str]
) -> None:
    format_, found = recognise(export(tmp_path))
    assert format_.title == "COCO"
    assert sorted(found) == sets
    data = CocoDataset(tmp_path, found.get("train") or found["all"])
    assert data.class_names == NAMES
    assert [data.load_annotations(k).tolist() for k in range(len(data))] == [
        [[*COW[:4], 0], [*CAT[:4], 1]]
    ]
    if "val" in found:
        val = CocoDataset(tmp_path, found["val"], class_names=("cat", "cow"))
        assert [val.load_annotations(k).tolist() for k in range(len(val))] == [[[*CAT[:4], 0]]]
        assert val.image_path(0) != data.image_path(0)


def test_a_category_without_boxes_that_is_a_parent_is_no_class_and_said(tmp_path: Path) -> None:
    data = CocoDataset(tmp_path, find_coco(Listing(roboflow(tmp_path)))["train"])
    assert data.class_names == NAMES
    assert any("without boxes and parents of others: ['pets']" in note for note in data.notes)


def test_files_of_other_tasks_are_left_aside_and_said(tmp_path: Path) -> None:
    sets = find_coco(Listing(official(tmp_path)))
    assert sets["train"].path.name == "instances_train2017.json"
    note = "not read: annotations/panoptic_train2017.json"
    assert sets["train"].notes[0].startswith(note)
    assert any(note in said for said in CocoDataset(tmp_path, sets["train"]).notes)


def test_two_files_of_a_set_are_an_error_that_names_them(tmp_path: Path) -> None:
    for name in ("one.json", "two.json"):
        write(tmp_path / name, {"a.jpg": [COW]}, tmp_path)
    with pytest.raises(DataError, match=r"2 COCO files of the set all, such as one.json and two"):
        find_coco(Listing(tmp_path))
    # Beside a file to train on, files of no set matter to nothing.
    write(tmp_path / "train.json", {"a.jpg": [COW]}, tmp_path)
    assert list(find_coco(Listing(tmp_path))) == ["train"]


@pytest.mark.parametrize(
    ("export", "file", "sets"),
    [
        (two_files, "train.json", {"train": "train.json", "val": "val.json"}),
        (two_files, "val.json", {"val": "val.json"}),
        (
            official,
            "annotations/instances_train2017.json",
            {
                "train": "annotations/instances_train2017.json",
                "val": "annotations/instances_val2017.json",
            },
        ),
        (cvat, "annotations/instances_default.json", {"all": "annotations/instances_default.json"}),
        (
            roboflow,
            "train/_annotations.coco.json",
            {
                "train": "train/_annotations.coco.json",
                "val": "valid/_annotations.coco.json",
                "test": "test/_annotations.coco.json",
            },
        ),
        (below, "project/export/annotations.json", {"all": "project/export/annotations.json"}),
    ],
)
def test_a_file_has_the_set_to_validate_on_beside_it(
    tmp_path: Path, export: Callable[[Path], Path], file: str, sets: dict[str, str]
) -> None:
    format_, found = recognise(export(tmp_path) / file)
    assert format_.title == "COCO"
    assert {k: v.path.relative_to(tmp_path).as_posix() for k, v in found.items()} == sets
    for source in found.values():
        assert len(CocoDataset(source.places.below, source)) == 1


def test_a_relative_path_leads_to_the_folder_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cvat(tmp_path)
    monkeypatch.chdir(tmp_path / "annotations")
    source = find_coco(Listing(Path("instances_default.json")))["all"]
    assert CocoDataset(source.places.below, source).image_names == ["images/a.jpg"]


def test_labelme_and_coco_are_told_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / "labelme" / f"{name}.jpg")
        text(tmp_path / "labelme" / f"{name}.json", labelme_json(f"{name}.jpg", [COW]))
    assert find_coco(Listing(tmp_path / "labelme")) == {}
    assert find_labelme(Listing(cvat(tmp_path / "coco"))) == {}
    # What a converter leaves beside LabelMe's own files is a second format.
    text(tmp_path / "labelme/annotations.json", coco_json({"a.jpg": [COW]}, NAMES))
    with pytest.raises(DataError, match="labels of LabelMe and COCO; expected one format"):
        recognise(tmp_path / "labelme")


def test_images_are_named_below_the_folder_in_order_and_keep_their_objects(tmp_path: Path) -> None:
    boxes = {"b.jpg": [COW], "a.jpg": [COW, CAT], "c.jpg": []}
    write(tmp_path / "train.json", boxes, tmp_path / "images")
    data = CocoDataset(tmp_path, find_coco(Listing(tmp_path))["train"])
    assert data.image_names == ["images/a.jpg", "images/b.jpg", "images/c.jpg"]
    assert data.image_ids == [2, 1, 3]
    (tmp_path / "train.json").unlink()  # it is not read again for them
    data.keep([2, 0])
    assert data.image_ids == [3, 2]
    found = data.objects()
    assert found.images.tolist() == [1, 1]
    assert np.array_equal(found.boxes, [[10, 20, 40, 40], [5, 8, 85, 62]])


def test_a_file_in_utf_16_is_found(tmp_path: Path) -> None:
    cvat(tmp_path)
    path = tmp_path / "annotations" / "instances_default.json"
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-16")
    assert CocoDataset(tmp_path, find_coco(Listing(tmp_path))["all"]).class_names == NAMES


def test_a_file_named_by_the_user_is_read_whatever_it_holds(tmp_path: Path) -> None:
    source = find_coco(Listing(text(tmp_path / "a.json", '{"images": []}')))["all"]
    with pytest.raises(DataError, match=r"a.json: no list 'categories'"):
        CocoDataset(tmp_path, source)


@pytest.mark.parametrize(
    ("key", "before"),
    [("coco_url", "http://x.org/train2017/"), ("path", "/datasets/cows/"), ("filename", "")],
)
def test_images_named_by_another_key(tmp_path: Path, key: str, before: str) -> None:
    """LVIS has the URL of each image alone."""
    picture(tmp_path / "images" / "a.jpg")
    content = json.loads(coco_json({"a.jpg": [(10, 20, 50, 60, "cow")]}, ["cow"]))
    for image in content["images"]:
        image[key] = before + image.pop("file_name")
    content["annotations"][0]["area"] = math.nan  # as pandas writes what is missing
    file = text(tmp_path / "lvis.json", json.dumps(content))
    format_, sets = recognise(tmp_path)
    data = format_.open(tmp_path, sets["all"])
    assert data.image_names == ["images/a.jpg"]
    assert data.load_annotations(0).tolist() == [[10, 20, 50, 60, 0]]
    assert data.objects().areas.tolist() == [40 * 40]
    assert data.repaired["image without file_name"] == 1
    with pytest.raises(DataError, match=rf"images\[0\]: no file_name; expected it beside {key};"):
        format_.open(tmp_path, sets["all"], strict=True)
    del content["images"][0][key]
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"images\[0\]: no file_name; expected id, file_name; cor"):
        format_.open(tmp_path, sets["all"])
