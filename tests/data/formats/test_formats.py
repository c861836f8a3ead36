"""Folders as labelling tools write them: the sets, the boxes, and what is said of them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from retinanet.data.formats.labelme import find_labelme
from retinanet.data.formats.labels import Listing, Sets, folder_set, set_of
from retinanet.data.formats.voc import find_voc
from retinanet.data.formats.yolo.sets import find_yolo
from retinanet.errors import DataError
from tests.data.formats.exports import labelme_json, picture, text, yolo_line
from tests.data.formats.reading import CAT, COW, boxes, complaint, read

NAMES = ("cow", "cat")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("valid", "val"),
        ("instances_train2017.json", "train"),
        ("raccoon_val.csv", "val"),
        ("test_labels.csv", "test"),
        ("result.json", "all"),
        ("constrain", "all"),  # the word is not its own
        ("train_val", "val"),  # the last word counts
        ("TrainImages", "train"),
        ("imagesTest", "test"),
        ("VALID", "val"),
        ("instances_test-dev2017.json", "test"),  # though `dev` alone is val
        ("VisDrone2019-DET-test-dev", "test"),
        ("latest_dev", "val"),
        ("instances_minival2014.json", "val"),
    ],
)
def test_sets_are_told_by_words_of_names(name: str, expected: str) -> None:
    assert set_of(name) == expected


# ---- YOLO


def roboflow(root: Path) -> Path:
    """Roboflow's YOLO export: split folders, and `../train/images` in data.yaml."""
    text(
        root / "data.yaml",
        "train: ../train/images",
        "val: ../valid/images",
        "test: ../test/images",
        "",
        "nc: 2",
        "names: ['cow', 'cat']",
    )
    for folder in ("train", "valid", "test"):
        picture(root / folder / "images" / "a_jpg.rf.1.jpg")
        lines = [yolo_line(COW, NAMES), yolo_line(CAT, NAMES)]
        text(root / folder / "labels" / "a_jpg.rf.1.txt", *lines)
        picture(root / folder / "images" / "b_jpg.rf.2.jpg")
        text(root / folder / "labels" / "b_jpg.rf.2.txt")
    return root


def ultralytics(root: Path) -> Path:
    """A data.yaml with a map of names, a path that is not there, images/SPLIT and labels/SPLIT."""
    text(
        root / "coco8.yaml",
        "path: ../datasets/coco8 # dataset root dir",
        "train: images/train # train images",
        "val: images/val",
        "test:",
        "names:",
        "  0: cow",
        "  1: cat",
    )
    for folder in ("train", "val"):
        picture(root / "images" / folder / "a.jpg")
        lines = [yolo_line(COW, NAMES), yolo_line(CAT, NAMES)]
        text(root / "labels" / folder / "a.txt", *lines)
        picture(root / "images" / folder / "b.jpg")  # without a label file
    return root


def label_studio(root: Path) -> Path:
    """Label Studio's YOLO export: classes.txt, notes.json, images/ and labels/ undivided."""
    text(root / "classes.txt", "cow", "cat")
    text(root / "notes.json", "{}")
    picture(root / "images" / "a.jpg")
    text(root / "labels" / "a.txt", yolo_line(COW, NAMES), yolo_line(CAT, NAMES))
    picture(root / "images" / "b.jpg")
    return root


def cvat_yolo(root: Path) -> Path:
    """CVAT's YOLO 1.1 export: obj.names, labels beside the images in obj_train_data/."""
    text(root / "obj.data", "classes = 2", "train = data/train.txt", "names = data/obj.names")
    text(root / "obj.names", "cow", "cat")
    text(root / "train.txt", "data/obj_train_data/a.jpg", "data/obj_train_data/b.jpg")
    picture(root / "obj_train_data" / "a.jpg")
    lines = [yolo_line(COW, NAMES), yolo_line(CAT, NAMES)]
    text(root / "obj_train_data" / "a.txt", *lines)
    picture(root / "obj_train_data" / "b.jpg")
    text(root / "obj_train_data" / "b.txt")
    return root


def listed(root: Path) -> Path:
    """A data.yaml whose sets are `.txt` files of paths."""
    text(root / "data.yaml", "train: train.txt", "val: val.txt", "names: [cow, cat]")
    for name in ("a", "b"):
        picture(root / "images" / f"{name}.jpg")
    text(root / "labels" / "a.txt", yolo_line(COW, NAMES), yolo_line(CAT, NAMES))
    text(root / "train.txt", "./images/a.jpg", "images\\b.jpg", "")
    text(root / "val.txt", "images/a.jpg", "images/b.jpg")
    return root


def one_folder(root: Path) -> Path:
    """Images, labels and classes.txt in one folder, as labelImg writes them."""
    text(root / "classes.txt", "cow", "cat", "")
    picture(root / "a.jpg")
    text(root / "a.txt", yolo_line(COW, NAMES), yolo_line(CAT, NAMES))
    picture(root / "b.jpg")
    return root


@pytest.mark.parametrize(
    ("export", "sets"),
    [
        (roboflow, ["test", "train", "val"]),
        (ultralytics, ["train", "val"]),
        (label_studio, ["all"]),
        (cvat_yolo, ["train"]),
        (listed, ["train", "val"]),
        (one_folder, ["all"]),
    ],
)
def test_yolo_folders_of_every_tool(
    tmp_path: Path, export: Callable[[Path], Path], sets: list[str]
) -> None:
    root = export(tmp_path)
    found = find_yolo(Listing(root))
    assert sorted(found) == sets
    for name in sets:
        labels = read(found, name, root)
        assert labels.class_names == NAMES
        assert boxes(labels) == [[COW, CAT], []]
        assert labels.notes == ("1 image without a label: background",)


def test_a_yaml_file_stands_for_its_folder(tmp_path: Path) -> None:
    root = ultralytics(tmp_path)
    assert sorted(find_yolo(Listing(root / "coco8.yaml"))) == ["train", "val"]


@pytest.mark.parametrize(
    ("line", "box", "note"),
    [
        # A triangle of a 100 x 80 image: x from 10 to 50, y from 16 to 64.
        (
            "1 0.1 0.2 0.5 0.2 0.3 0.8",
            (10, 16, 50, 64, "cat"),
            "1 polygon became the box around it",
        ),
        # Four points, turned: x from 20 to 60, y from 8 to 72.
        (
            "0 0.2 0.5 0.4 0.1 0.6 0.5 0.4 0.9",
            (20, 8, 60, 72, "cow"),
            "1 rotated box became the box around it",
        ),
        ("0.0 0.5 0.5 0.2 0.5", (40, 20, 60, 60, "cow"), ""),  # a class written as a fraction
    ],
)
def test_shapes_become_their_boxes(
    tmp_path: Path, line: str, box: tuple[object, ...], note: str
) -> None:
    root = one_folder(tmp_path)
    text(root / "a.txt", line)
    labels = read(find_yolo(Listing(root)), "all", root)
    assert boxes(labels)[0] == [box]
    assert bool(note) == any(told.startswith(note) for told in labels.notes[1:])


def test_keypoints_are_left_out(tmp_path: Path) -> None:
    root = ultralytics(tmp_path)
    with (root / "coco8.yaml").open("a") as file:
        file.write("kpt_shape: [2, 2]\n")
    text(root / "labels" / "train" / "a.txt", "0 0.5 0.5 0.2 0.5 0.4 0.4 0.6 0.6")
    assert boxes(read(find_yolo(Listing(root)), "train", root))[0] == [(40, 20, 60, 60, "cow")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("0 50 40 20 40", "these look like pixels: divide x and width by"),
        ("2 0.5 0.5 0.1 0.1", "class 2; expected 0 to 1; correct it"),
        ("-1 0.5 0.5 0.1 0.1", "class -1; expected 0 to 1"),
        ("0.5 0.5 0.5 0.1 0.1", "class 0.5; expected 0 to 1"),
        ("cow 0.5 0.5 0.1 0.1", "'cow 0.5 0.5 0.1 0.1'; expected `class x y width height`"),
        ("0 0.5 0.5 0.1", "4 numbers; expected `class x y width height`"),
        ("0 0.5 0.5 0.1 0.1 0.9", "6 numbers; expected"),
        ("0 0.5 nan 0.1 0.1", "finite; correct it"),
        ("0 0.5 1e999 0.1 0.1", "finite; correct it"),
    ],
)
def test_wrong_yolo_lines_are_named(tmp_path: Path, line: str, expected: str) -> None:
    root = one_folder(tmp_path)
    text(root / "a.txt", yolo_line(COW, NAMES), line)
    message = complaint(find_yolo(Listing(root)), "all", root)
    assert message.startswith(f"{root / 'a.txt'}:2: ")
    assert expected in message


@pytest.mark.parametrize(
    ("yaml", "expected"),
    [
        ("train: images\nnames: {0: cow, 2: cat}", "names has the ids ['0', '2']; expected 0 to 1"),
        ("train: images\nnames: [cow, cow]", "the class 'cow' twice"),
        ("train: images\nnames: 3", "names is '3'; expected a list"),
        ("train: nowhere\nnames: [cow]", "train: 'nowhere' is not below"),
        ("train: ../../etc\nnames: [cow]", "train: '../../etc' is not below"),
        ("train: [[1]]\nnames: [cow]", "train is [['1']]; expected"),
        ("train: images\nnames: [cow\n", "not YAML"),
        ("- train: images\nnames: [cow]\ntrain: a", "not YAML"),
    ],
)
def test_wrong_data_yaml(tmp_path: Path, yaml: str, expected: str) -> None:
    picture(tmp_path / "images" / "a.jpg")
    (tmp_path / "data.yaml").write_text(yaml)
    with pytest.raises(DataError) as caught:
        find_yolo(Listing(tmp_path))
    assert str(caught.value).startswith(f"{tmp_path / 'data.yaml'}: ")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "prefix", ["/home/ann/cows/", "/kaggle/working/crack-2/", "C:\\Users\\ann\\", "./", "../../"]
)
def test_places_of_another_machine(tmp_path: Path, prefix: str) -> None:
    root = roboflow(tmp_path)
    sep = "\\" if "\\" in prefix else "/"
    text(
        root / "data.yaml",
        f"train: '{prefix}train{sep}images'",
        f"val: '{prefix}valid{sep}images'",
        "test: '/nowhere/at/all'",  # named by exports whether or not it is there
        "names: [cow, cat]",
    )
    found = find_yolo(Listing(root))
    assert sorted(found) == ["train", "val"]
    assert boxes(read(found, "train", root)) == [[COW, CAT], []]


@pytest.mark.parametrize("export", [roboflow, ultralytics, label_studio, one_folder])
def test_labels_without_an_image_are_an_error(
    tmp_path: Path, export: Callable[[Path], Path]
) -> None:
    root = export(tmp_path)
    (labels,) = [file for file in root.rglob("a*.txt") if "val" not in str(file)][:1]
    lost = labels.with_name("lost.txt")
    lost.write_text(labels.read_text())
    labels.with_name("readme.txt").write_text("0 0.5 0.5 0.1 0.1")
    labels.with_name("notes.txt").write_text("1 cow, 2 cats")
    labels.with_name("empty.txt").write_text("")
    name = next(
        name for name in find_yolo(Listing(root)) if name in ("all", folder_set(lost, root))
    )
    message = complaint(find_yolo(Listing(root)), name, root)
    assert message == (
        f"{lost}: labels without an image; expected one of its name; add it, or remove the file"
    )


def test_class_names_stay_texts(tmp_path: Path) -> None:
    """YAML's own rules make False of no, 7 of 007, and a date of a date."""
    root = one_folder(tmp_path)
    names = ["no", "007", "2024-02-30", "null", "1e3"]
    text(root / "data.yaml", "train: .", "val: ~", f"names: [{', '.join(names)}]")
    found = find_yolo(Listing(root))
    assert list(found) == ["train"]
    assert read(found, "train", root).class_names == tuple(names)


def test_a_list_that_climbs_out_or_names_nothing(tmp_path: Path) -> None:
    root = listed(tmp_path / "data")
    picture(tmp_path / "secret.jpg")
    text(root / "train.txt", "images/a.jpg", "../secret.jpg", "images/gone.jpg")
    message = complaint(find_yolo(Listing(root)), "train", root)
    assert f"{root / 'train.txt'}:2: no image '../secret.jpg' below" in message
    assert f"{root / 'train.txt'}:3: no image 'images/gone.jpg' below" in message


# ---- LabelMe


def test_labelme_folders(tmp_path: Path) -> None:
    for folder in ("train", "val"):
        picture(tmp_path / folder / "a.jpg")
        text(tmp_path / folder / "a.json", labelme_json("..\\photos\\a.jpg", [COW, CAT]))
        picture(tmp_path / folder / "b.jpg")
        text(tmp_path / folder / "b.json", labelme_json("b.jpg", []))
    sets = find_labelme(Listing(tmp_path))
    assert sorted(sets) == ["train", "val"]
    labels = read(sets, "train", tmp_path)
    assert labels.class_names == ("cat", "cow")
    assert boxes(labels) == [[COW, CAT], []]


def test_labelme_polygons_become_boxes_and_points_are_left_out(tmp_path: Path) -> None:
    shapes = [
        {"label": "cat", "points": [[10, 16], [50.5, 16], [30, 64]], "shape_type": "polygon"},
        {"label": "cat", "points": [[10, 16]], "shape_type": "point"},
        {"label": "cow", "points": [[1, 2], [30, 40], [5, 5]]},  # old files name no type
    ]
    picture(tmp_path / "a.jpg")
    text(tmp_path / "a.json", labelme_json("a.jpg", [], shapes=shapes))
    picture(tmp_path / "b.jpg")
    labels = read(find_labelme(Listing(tmp_path)), "all", tmp_path)
    assert boxes(labels) == [[(10, 16, 50.5, 64, "cat"), (1, 2, 30, 40, "cow")]]
    assert labels.notes == (
        "1 image without an annotation file: left out",
        "1 shape of type point without a box: left out",
        "2 polygons became the boxes around them",
    )


@pytest.mark.parametrize("kind", ["rotation", "oriented_rectangle", "quadrilateral", "rectangle"])
def test_labelme_boxes_of_four_corners(tmp_path: Path, kind: str) -> None:
    points = [[30, 10], [60, 40], [50, 50], [20, 20]]
    picture(tmp_path / "a.jpg")
    shapes = [{"label": "cow", "points": points, "shape_type": kind, "direction": 0.78}]
    text(tmp_path / "a.json", labelme_json("a.jpg", [], shapes=shapes))
    labels = read(find_labelme(Listing(tmp_path)), "all", tmp_path)
    assert boxes(labels) == [[(20, 10, 60, 50, "cow")]]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (3, "3; expected a shape with label and points"),
        ({"points": [[1, 2], [3, 4]], "shape_type": "rectangle"}, "label None; expected the name"),
        ({"label": "a", "points": [[1, 2]], "shape_type": "rectangle"}, "expected 2 or more"),
        ({"label": "a", "points": None, "shape_type": "rectangle"}, "points None; expected 2"),
        ({"label": "a", "points": [[1, "x"], [2, 3]], "shape_type": "rectangle"}, "expected 2"),
        ({"label": "a", "points": [], "shape_type": "star"}, "shape_type 'star'; expected"),
        (
            {"label": "a", "points": [], "shape_type": [["rectangle"]]},
            "; expected rectangle or polygon",
        ),
        ({"label": "a", "points": [], "shape_type": {"a": 1}}, "; expected rectangle or polygon"),
    ],
)
def test_wrong_labelme_shapes(tmp_path: Path, shape: object, expected: str) -> None:
    picture(tmp_path / "a.jpg")
    text(tmp_path / "a.json", labelme_json("a.jpg", [], shapes=[shape]))
    message = complaint(find_labelme(Listing(tmp_path)), "all", tmp_path)
    assert message.startswith(f"{tmp_path / 'a.json'}: object 0: ")
    assert expected in message


@pytest.mark.parametrize("find", [find_yolo, find_voc, find_labelme])
def test_other_folders_are_none_of_these(tmp_path: Path, find: Callable[[Listing], Sets]) -> None:
    picture(tmp_path / "a.jpg")
    text(tmp_path / "readme.txt", "0 0.5 0.5 0.1 0.1")
    text(tmp_path / "a.json", '{"images": [], "annotations": []}')
    text(tmp_path / "docker.yaml", "version: 3")
    assert find(Listing(tmp_path)) == {}
