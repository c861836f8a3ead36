"""COCO's files: what is read, what is put right, and what each error says."""

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinanet.data.annotations import Annotations
from retinanet.data.datasets import CocoDataset
from retinanet.data.formats.coco import read_coco
from retinanet.data.problems import Problems
from retinanet.errors import DataError
from tests.support.data_sets import changed, coco_content, coco_data, picture, rotated, without


@pytest.mark.parametrize("images", ["images/val", "val"])
def test_coco_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str], images: str) -> None:
    data = coco_data(tmp_path, coco_content(), images)
    assert capsys.readouterr().out == ""  # pycocotools prints
    assert data.images_root == tmp_path / images
    assert data.image_ids == [9, 4]
    assert (data.image_id(1), data.image_path(1)) == (4, tmp_path / images / "b.jpg")
    # sorted by id, whatever the gaps
    assert data.class_names == ("cat", "dog")
    assert data.coco_labels == {0: 3, 1: 7}
    assert data.coco_labels_inverse == {3: 0, 7: 1}
    assert (data.category_id(1), data.label_to_coco_label(1)) == (7, 7)
    assert data.coco_label_to_label(7) == 1
    assert data.image_size(0) == (30, 40)
    assert data.image_size(1) == (40, 30)  # not in the JSON: from the file's header
    assert data.load_annotations(0).shape == (0, 5)
    # x, y, w, h to corners; the crowd and the thin box are left out, 20 + 15 is clipped to 30
    assert data.load_annotations(1).tolist() == [[1, 2, 11, 22.5, 1], [20, 30, 30, 35, 0]]
    assert data.repaired == {"box under 1 px left out": 1, "box clipped to its image": 1}
    assert data[1]["annot"].shape == (2, 5)
    # what the evaluation needs is there although the file lacks it
    assert data.coco.anns[3]["area"] == 4.5
    assert data.coco.anns[3]["iscrowd"] == 0
    assert data.coco.loadRes([{"image_id": 4, "category_id": 3, "bbox": [0, 0, 1, 1], "score": 1}])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: "{", "not JSON .*; expected COCO annotations; correct the path, the name"),
        (lambda _: "[" * 100_000, "not JSON"),
        (lambda _: "[]", "no list 'images'; expected images, categories, annotations"),
        (without("annotations"), "no list 'annotations'"),
        (changed("images", to=[]), "no images; expected at least one"),
        (changed("categories", to=[]), "no categories; expected at least one"),
        (changed("images", 0, to=5), r"images\[0\]: 5; expected an object with id, file_name"),
        (without("images", 1, "file_name"), r"images\[1\]: no file_name; expected id, file_name"),
        (changed("images", 1, "id", to=9), r"images\[1\]: id 9 a second time; expected each once"),
        (changed("categories", 1, "id", to=7), r"categories\[1\]: id 7 a second time"),
        (changed("categories", 1, "id", to=1.5), r"categories\[1\]: id is 1.5; expected id, name"),
        (changed("categories", 1, "id", to=True), r"categories\[1\]: id is True; expected id, na"),
        (changed("categories", 1, "name", to=5), r"categories\[1\]: name is 5; expected id, name"),
        (
            lambda c: {**c, "annotations": [{**a, "image_id": 5} for a in c["annotations"]]},
            r"annotations\[0\]: image_id 5, and none of 4 is the id of an image; correct them",
        ),
        (
            changed("annotations", 2, "category_id", to=5),
            r"\[2\]: category_id 5; expected the id of",
        ),
        (without("annotations", 0, "image_id"), r"annotations\[0\]: no image_id; expected image_i"),
        (changed("annotations", 0, "bbox", to="1 2"), r"bbox '1 2'; expected four numbers"),
        (
            lambda c: {**c, "annotations": [{**a, "bbox": []} for a in c["annotations"]]},
            "4 of 4 annotations have no bbox and no polygon; expected bbox: x, y, width, height",
        ),
        (
            lambda c: changed("annotations", 0, "segmentation", to={})(
                without("annotations", 0, "bbox")(c)
            ),
            r"annotations\[0\]: a mask and no bbox; expected x, y, width, height; add them",
        ),
        (
            lambda c: {
                **c,
                "annotations": [{**a, "bbox": [0.1, 0.2, 0.5, 1]} for a in c["annotations"]],
            },
            "annotation 1: 3 of 3 boxes lie in 0..1, as fractions of the image: 0.1,0.2,0.5,1; exp",
        ),
        (
            changed("annotations", 0, "bbox", to=[1, 2, 3]),
            r"bbox \[1, 2, 3\]; expected four numbers",
        ),
        (changed("annotations", 0, "bbox", 2, to=math.nan), r"bbox \[1, 2, nan, .*; expected four"),
        (changed("annotations", 0, "bbox", 2, to=10**400), r"bbox .*; expected four numbers"),
        (
            changed("annotations", 0, "bbox", 3, to=-1),
            r"annotations\[0\]: bbox \[1, 2, 10, -1\] is of negative size; expected x, y, width,",
        ),
        (
            changed("annotations", 0, "bbox", 0, to=31),
            r"annotation 1: box 31,2,41,22.5 lies outside 'b.jpg'; expected 0,0 to 30,40; correct",
        ),
        (changed("images", 0, "file_name", to="../z.jpg"), "it leaves the image folder, and no im"),
        (changed("images", 0, "file_name", to="x/../../z.jpg"), "it leaves the image folder"),
        (changed("images", 0, "file_name", to="/etc/passwd"), "leaves the image folder, and no"),
        (changed("images", 0, "file_name", to="..\\z.jpg"), "leaves the image folder"),
        (changed("images", 0, "file_name", to="c:\\z.jpg"), "leaves the image folder"),
        (changed("images", 0, "file_name", to="c.jpg"), r"no image 'c.jpg' in .*/images/val and "),
    ],
)
def test_coco_errors(tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"instances_val\.json: .*{message}"):
        coco_data(tmp_path, change(coco_content()))


def test_coco_images_that_are_left_out(tmp_path: Path) -> None:
    data = coco_data(tmp_path, coco_content())
    ids, first = list(data.image_ids), data.image_path(0)
    first.write_bytes(b"")
    skipping = CocoDataset(tmp_path, data.set_name, skip_unreadable=True)
    assert skipping.image_ids == ids[1:]
    assert [skipping.image_path(k) for k in range(len(skipping))] == [
        data.image_path(k) for k in range(1, len(data))
    ]
    for k in range(len(skipping)):
        assert skipping.image_id(k) == data.image_id(k + 1)
        assert np.array_equal(skipping.load_annotations(k), data.load_annotations(k + 1))
    assert skipping.notes[-1].startswith("Skipped: ")


def test_coco_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"instances_val\.json: No such file .*; expected COCO"):
        CocoDataset(tmp_path, "val")


def test_coco_problems_are_collected(tmp_path: Path) -> None:
    content = coco_content()
    content["annotations"] = [{"id": k} for k in range(30)]
    with pytest.raises(DataError) as error:
        coco_data(tmp_path, content)
    assert len(str(error.value).split("\n")) == 21
    assert str(error.value).endswith(
        f"and 10 more problems in {tmp_path}/annotations/instances_val.json"
        "; 30 in all (wrong entry of annotations: 30)"
    )
    content = coco_content()
    del content["images"][1]["id"]  # the annotations of it are not wrong, too
    with pytest.raises(
        DataError, match=r"^[^\n]*images\[1\]: no id; expected id, file_name[^\n]*$"
    ):
        coco_data(tmp_path, content)
    content = coco_content()
    content["images"][0]["file_name"] = "none.jpg"  # is missing
    content["annotations"][0]["category_id"] = 5
    content["annotations"][1]["bbox"] = 5
    with pytest.raises(DataError) as error:
        coco_data(tmp_path, content)
    texts = [line.split(".json: ")[1] for line in str(error.value).split("\n")]
    starts = ["annotations[1]: bbox 5", "no image 'none.jpg'"]  # an id that may be wrong too
    assert all(text.startswith(start) for text, start in zip(texts, starts, strict=True))


@pytest.mark.parametrize(
    ("change", "repair", "message"),
    [
        (
            changed("annotations", 1, "bbox", to=[20, 30, 10, 0.25]),
            "box under 1 px left out",
            r"annotation 4: a box of 10 x 0.25 px; expected at least 1 x 1; remove it",
        ),
        (
            lambda content: content["annotations"].append({**content["annotations"][0], "id": 5}),
            "exact duplicate",
            "annotation 5: a box that is there before; expected each once; remove one of them",
        ),
        (
            changed("annotations", 1, "bbox", to=[20, 30, 15, 5]),
            "box clipped to its image",
            r"annotation 4: box 20,30,35,35 reaches outside 'b.jpg'; expected 0,0 to 30,40; ",
        ),
        (
            changed("annotations", 1, "id", to=1),
            "annotation id a second time",
            "annotation id 1 a",
        ),
        (
            changed("annotations", 1, "id", to="x4"),
            "annotation without a number for id",
            r"annotations\[1\]: id 'x4'; expected a number",
        ),
        (
            without("annotations", 1, "id"),
            "annotation without a number for id",
            r"annotations\[1\]: id None; expected a number",
        ),
        (
            changed("annotations", 1, "bbox", to=["20", 30, "10.0", 5]),
            "number in quotes",
            r"annotations\[1\]: bbox \['20', 30, '10.0', 5\]; expected numbers without quotes",
        ),
        (
            changed("annotations", 1, "bbox", to="[20, 30.0, 10, 5]"),
            "number in quotes",
            r"annotations\[1\]: bbox '\[20, 30.0, 10, 5\]'; expected numbers without quotes",
        ),
        (
            changed("annotations", 1, "iscrowd", to="False"),
            "number in quotes",
            r"annotations\[1\]: iscrowd 'False'; expected no quotes",
        ),
        (
            changed("annotations", 1, "image_id", to="4"),
            "number in quotes",
            "ids in quotes where others are numbers; expected the ids of the entries meant",
        ),
        (
            changed("annotations", 1, "image_id", to=4.0),
            "whole number with a point",
            r"annotations\[1\]: image_id 4.0; expected 4",
        ),
        (
            changed("annotations", 1, "area", to=None),
            "null area or iscrowd",
            r"annotations\[1\]: area null; expected a number, or none at all",
        ),
        (
            changed("annotations", 1, "iscrowd", to=None),
            "null area or iscrowd",
            r"annotations\[1\]: iscrowd null; expected a number, or none at all",
        ),
        (
            lambda c: c["annotations"].append(
                {"id": 5, "image_id": 4, "category_id": 3, "bbox": []}
            ),
            "annotation without a box left out",
            r"annotations\[2\]: bbox \[\]; expected x, y, width, height; remove the annotation",
        ),
        (
            lambda c: c["annotations"][1].update(
                bbox=None, segmentation=[[20, 30, 30, 30, 30, 35, 20, 35]]
            ),
            "box around its polygon",
            r"annotations\[1\]: bbox None; expected x, y, width, height; add them",
        ),
        (
            lambda c: c["annotations"][1].update(
                bbox=None, segmentation=[[[20, 30], [30, 30], [30, 35]]]
            ),
            "box around its polygon",
            r"annotations\[1\]: bbox None; expected x, y, width, height; add them",
        ),
        (
            changed("annotations", 1, "iscrowd", to=""),
            "null area or iscrowd",
            r"annotations\[1\]: iscrowd ''; expected a number, or none at all",
        ),
        (
            lambda c: c["annotations"].append({**c["annotations"][0], "id": 5, "image_id": 77}),
            "annotation of an image that is not listed",
            r"annotations\[2\]: image_id 77; expected the id of an image; correct it",
        ),
        (
            lambda c: c["categories"].append({"id": 7, "name": "dog"}),
            "category listed twice",
            r"categories\[2\]: name 'dog' a second time; expected each once; rename or remove it",
        ),
        (
            lambda c: c["categories"].insert(0, {"id": 0, "name": "dog", "supercategory": "none"}),
            "category listed twice",
            r"categories\[1\]: name 'dog' a second time",
        ),
        (
            lambda c: c["images"].append(dict(c["images"][0])),
            "image listed twice",
            r"images\[2\]: image 9 is listed before; remove it",
        ),
        (
            changed("images", 0, "file_name", to="upload\\a.JPG"),
            "image path that is another one here",
            r"no image 'upload\\\\a.JPG' in .*; expected 'a.jpg'; correct the path",
        ),
        (
            lambda c: c["images"].append({"id": 8, "file_name": "./b.jpg"}),
            "image named twice",
            r"image './b.jpg' is 'b.jpg' too; expected one name; give all boxes to one",
        ),
        (
            changed("images", 0, "height", to=60),
            "image size that is not the file's",
            r"image 'a.jpg': 40 x 60 pixels; expected 40 x 30 as in the file; correct it, and",
        ),
    ],
)
def test_coco_repairs(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], repair: str, message: str
) -> None:
    content = coco_content()
    content["annotations"] = [content["annotations"][0], content["annotations"][3]]
    content["annotations"][1]["bbox"] = [20, 30, 10, 5]
    assert coco_data(tmp_path, content, strict=True).notes == []
    change(content)
    data = coco_data(tmp_path, content)
    path = tmp_path / "annotations" / "instances_val.json"
    assert data.repaired == {repair: 1}
    assert data.notes[0] == f"{path}: repaired ({repair}: 1); --strict shows where"
    assert data.image_size(0) == (30, 40)  # the file's, whatever the JSON says
    assert (len(data), data.class_names) == (2, ("cat", "dog"))
    with pytest.raises(DataError, match=rf"instances_val\.json: {message}"):
        coco_data(tmp_path, content, strict=True)


def test_coco_sizes_from_before_rotation(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "val" / "r.jpg", exif=rotated())  # stored 40 x 30
    content = coco_content()
    content["annotations"] = content["annotations"][:1]
    content["images"].append({"id": 5, "file_name": "r.jpg", "height": 30, "width": 40})
    data = coco_data(tmp_path, content)
    assert data.image_size(2) == (40, 30) == data.load_image(2).shape[:2]
    assert data.repaired == {"image size from before EXIF's rotation": 1}
    message = "image 'r.jpg': 40 x 30 pixels; expected 30 x 40 as in the file, upright as EXIF"
    with pytest.raises(DataError, match=message):
        coco_data(tmp_path, content, strict=True)
    content["images"][2].update(height=40, width=30)
    assert coco_data(tmp_path, content, strict=True).notes == []


def test_images_may_be_links_to_files_elsewhere(tmp_path: Path) -> None:
    content = coco_content()
    content["images"][0]["file_name"] = "link.jpg"
    (tmp_path / "images" / "val").mkdir(parents=True)
    (tmp_path / "images" / "val" / "link.jpg").symlink_to(picture(tmp_path / "elsewhere.jpg"))
    assert coco_data(tmp_path, content).load_image(0).shape == (30, 40, 3)


def test_boxes_of_a_file_that_is_listed_twice_are_joined(tmp_path: Path) -> None:
    content = coco_content()
    content["images"].append({"id": 5, "file_name": "./b.jpg"})
    content["annotations"][3]["image_id"] = 5
    content["annotations"].append({**content["annotations"][1], "id": 9, "image_id": 5})
    data = coco_data(tmp_path, content)
    assert data.image_ids == [9, 4]
    assert data.load_annotations(1).tolist() == [[1, 2, 11, 22.5, 1], [20, 30, 30, 35, 0]]
    assert data.objects().images.tolist() == [1, 1, 1, 1, 1]
    assert data.objects().crowds.tolist() == [False, True, False, False, True]


def test_classes_of_a_model_are_found_by_name(tmp_path: Path) -> None:
    """Validation data may list fewer classes, others, and number them otherwise."""
    content = coco_content()
    data = coco_data(tmp_path, content, class_names=("dog", "bird", "cat"))
    assert data.class_names == ("dog", "bird", "cat")
    assert data.load_annotations(1)[:, 4].tolist() == [0, 2]
    assert [data.category_id(label) for label in range(3)] == [7, 8, 3]  # 8 is free
    assert data.objects().labels.tolist() == [0, 2, 2, 2]
    data = coco_data(tmp_path, content, class_names=("dog",))
    assert data.repaired["box of a class that the model does not know"] == 3
    assert data.load_annotations(1).tolist() == [[1, 2, 11, 22.5, 0]]
    assert data.coco_labels_inverse == {7: 0}
    with pytest.raises(DataError, match=r"classes \['cat', 'dog'\]; expected those of the train"):
        coco_data(tmp_path, content, class_names=("cow",))


def test_ids_may_be_texts(tmp_path: Path) -> None:
    content = coco_content()
    for key, name in (("images", "id"), ("annotations", "image_id"), ("categories", "id"),
                      ("annotations", "category_id")):  # fmt: skip
        for entry in content[key]:
            entry[name] = str(entry[name])
    data = coco_data(tmp_path, content)
    assert (data.image_ids, data.coco_labels) == (["9", "4"], {0: "3", 1: "7"})
    assert data.repaired == {"box under 1 px left out": 1, "box clipped to its image": 1}
    assert data.coco.getAnnIds(imgIds=["4"]) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "place", ["val/_annotations.coco.json", "annotations/val.json", "val.json"]
)
def test_annotations_where_other_tools_write_them(tmp_path: Path, place: str) -> None:
    coco_data(tmp_path, coco_content(), "val")
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / "annotations/instances_val.json").rename(tmp_path / place)
    assert CocoDataset(tmp_path, "val").images_root == tmp_path / "val"
    with pytest.raises(DataError, match=r"instances_test\.json: No such file .*; expected COCO"):
        CocoDataset(tmp_path, "test")


def test_parents_without_boxes_are_left_out_on_request(tmp_path: Path) -> None:
    content = coco_content()
    content["categories"] = [
        {"id": 0, "name": "animals", "supercategory": "none"},
        *({**entry, "supercategory": "animals"} for entry in content["categories"]),
    ]
    coco_data(tmp_path, content)
    path = tmp_path / "annotations/instances_val.json"
    assert read_coco(path, Problems(path)).class_names == ("animals", "cat", "dog")
    assert read_coco(path, Problems(path), drop_parents=True).class_names == ("cat", "dog")


def test_what_travels_to_the_workers_is_small(tmp_path: Path) -> None:
    data = coco_data(tmp_path, coco_content())
    other = pickle.loads(pickle.dumps(data))
    assert "_objects" not in {name for name, value in other.__dict__.items() if value is not None}
    assert other.load_annotations(1).tolist() == data.load_annotations(1).tolist()
    assert [column.tolist() for column in other.objects()] == [c.tolist() for c in data.objects()]
    # 10,000 boxes of 200 numbers: a byte a number and a half, not eight
    rng = np.random.default_rng(0)
    boxes = rng.integers(0, 200, (10_000, 5)) + 0.1
    many = Annotations(("a",), np.zeros(1), np.array([0, 10_000]), boxes, np.zeros(10_000))
    size = len(pickle.dumps(many))
    assert size < 65_000
    assert (pickle.loads(pickle.dumps(many)).boxes == boxes).all()


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.sampled_from(["images", "categories", "annotations"]),
    st.integers(0, 1),
    st.sampled_from(
        ["id", "file_name", "name", "image_id", "category_id", "bbox", "height", "iscrowd"]
    ),
    json_like,
)
def test_any_value_anywhere_gives_a_data_error_or_a_dataset(
    tmp_path_factory: pytest.TempPathFactory, key: str, k: int, name: str, value: Any
) -> None:
    try:
        coco_data(tmp_path_factory.getbasetemp(), changed(key, k, name, to=value)(coco_content()))
    except DataError as error:
        message = str(error)
    else:
        return
    assert "instances_val.json: " in message
