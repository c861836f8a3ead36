"""Folders and files with boxes as CSV: the sets in them, their images and their classes."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from retinanet.data.datasets import CSVDataset
from retinanet.data.formats.csv_files import find_csv
from retinanet.data.formats.labels import Listing, SetFile
from retinanet.data.formats.recognise import recognise
from retinanet.errors import DataError
from tests.data.formats.exports import picture, text

HEADER = "filename,width,height,class,xmin,ymin,xmax,ymax"
COW, CAT = "100,80,cow,10,20,50,60", "100,80,cat,5,8,90,70"


def opened(file: SetFile, **more: object) -> CSVDataset:
    return CSVDataset(file, file.classes, **more)  # type: ignore[arg-type]


def boxes(data: CSVDataset) -> list[list[tuple[object, ...]]]:
    return [
        [
            (*(round(value, 9) for value in row[:4]), data.class_names[int(row[4])])
            for row in data.load_annotations(k).tolist()
        ]
        for k in range(len(data))
    ]


def tutorial(root: Path) -> Path:
    # The CSV files beside the folders of the images; the same name in both.
    for name, rows in (("train", (COW, CAT)), ("test", (CAT,))):
        picture(root / "images" / name / "a.jpg")
        text(root / "images" / f"{name}_labels.csv", HEADER, *(f"a.jpg,{row}" for row in rows))
    return root


def raccoons(root: Path) -> Path:
    # Labels in a folder of their own, images in another.
    picture(root / "images" / "a.jpg")
    text(root / "data" / "train_labels.csv", HEADER, f"a.jpg,{COW}", f"a.jpg,{CAT}")
    return root


def roboflow(root: Path) -> Path:
    for folder, rows in (("train", (COW, CAT)), ("valid", (CAT,))):
        picture(root / folder / "a_jpg.rf.1.jpg")
        lines = [f"a_jpg.rf.1.jpg,{row}" for row in rows]
        text(root / folder / "_annotations.csv", HEADER, *lines)
    return root


def roboflow_headerless(root: Path) -> Path:
    picture(root / "train" / "a.jpg")
    text(root / "train" / "_annotations.csv", "a.jpg,10,20,50,60,cow", "a.jpg,5,8,90,70,cat")
    text(root / "train" / "_classes.csv", "cow,0", "cat,1")
    return root


def vott(root: Path) -> Path:
    picture(root / "a.jpg")
    lines = ['"a.jpg",10.0,20.0,50.0,60.0,"cow"', '"a.jpg",5,8,90,70,"cat"']
    text(root / "project-export.csv", '"image","xmin","ymin","xmax","ymax","label"', *lines)
    return root


def open_images(root: Path) -> Path:
    # Names without an ending, fractions, both of x before both of y.
    picture(root / "train" / "a.jpg")
    header = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsGroupOf"
    lines = ["a,xclick,cow,1,0.1,0.5,0.25,0.75,0,0", "a,xclick,cat,1,0.05,0.9,0.1,0.875,0,0"]
    text(root / "train-annotations-bbox.csv", header, *lines)
    return root


def classic(root: Path) -> Path:
    picture(root / "images" / "a.jpg")
    lines = ["images/a.jpg,10,20,50,60,cow", "images/a.jpg,5,8,90,70,cat"]
    text(root / "annotations.csv", *lines)
    text(root / "results.csv", "epoch,loss,lr,map,time", "1,0.5,0.1,0.2,3")  # no boxes
    return root


def excel(root: Path) -> Path:
    picture(root / "a.jpg")
    lines = ["a.jpg;10,0;20,0;50,0;60,0;cow", "a.jpg;5;8;90;70;cat"]
    content = "\r\n".join(("Filename;X Min;Y Min;X Max;Y Max;Label", *lines, ""))
    (root / "labels.csv").write_bytes(content.encode("utf-16"))
    return root


def tabs(root: Path) -> Path:
    picture(root / "a.jpg")
    lines = ["a.jpg\tcow\t10\t20\t50\t60", "a.jpg\tcat\t5\t8\t90\t70"]
    text(root / "labels.tsv", "file\tname\tx_min\ty_min\tx_max\ty_max", *lines)
    return root


@pytest.mark.parametrize(
    ("export", "sets"),
    [
        (tutorial, ["test", "train"]),
        (raccoons, ["train"]),
        (roboflow, ["train", "val"]),
        (roboflow_headerless, ["train"]),
        (vott, ["all"]),
        (open_images, ["train"]),
        (classic, ["all"]),
        (excel, ["all"]),
        (tabs, ["all"]),
    ],
)
def test_folders_of_every_tool(
    tmp_path: Path, export: Callable[[Path], Path], sets: Sequence[str]
) -> None:
    format_, found = recognise(export(tmp_path))
    assert format_.title == "CSV"
    assert sorted(found) == sets
    data = opened(found.get("train") or found["all"])
    # Classes by name, but where a file lists them.
    assert data.class_names == (("cow", "cat") if export is roboflow_headerless else ("cat", "cow"))
    assert boxes(data) == [[(10, 20, 50, 60, "cow"), (5, 8, 90, 70, "cat")]]
    for name in {"val", "test"} & set(sets):
        val = opened(found[name], class_names=data.class_names)
        assert boxes(val) == [[(5, 8, 90, 70, "cat")]]
        assert val.image_path(0) != data.image_path(0)


@pytest.mark.parametrize("name", ["classes.csv", "class_list.csv", "labels.txt", "obj.names"])
def test_a_list_of_classes_is_no_set_and_gives_their_order(tmp_path: Path, name: str) -> None:
    classic(tmp_path)
    text(tmp_path / name, "dog", "cow", "cat")
    sets = find_csv(Listing(tmp_path))
    assert sets["all"].classes == tmp_path / name
    assert opened(sets["all"]).class_names == ("dog", "cow", "cat")


def test_labels_that_are_no_classes_and_hidden_copies_are_not_read(tmp_path: Path) -> None:
    text(tmp_path / "labels.csv", "filename,kind", "a.jpg,field", "b.jpg,stable")
    text(classic(tmp_path) / ".ipynb_checkpoints" / "annotations-checkpoint.csv",
         "a.jpg,1,2,3,4,dog")  # fmt: skip
    sets = find_csv(Listing(tmp_path))
    assert sets["all"].path == tmp_path / "annotations.csv"
    assert opened(sets["all"]).class_names == ("cat", "cow")


def test_a_file_has_the_set_to_validate_on_beside_it(tmp_path: Path) -> None:
    found = find_csv(Listing(tutorial(tmp_path) / "images" / "train_labels.csv"))
    assert {name: file.path.name for name, file in found.items()} == {
        "train": "train_labels.csv",
        "test": "test_labels.csv",
    }
    assert [len(opened(file)) for file in found.values()] == [1, 1]
    assert list(find_csv(Listing(tmp_path / "images" / "test_labels.csv"))) == ["test"]
    data = opened(
        find_csv(Listing(raccoons(tmp_path / "r") / "data" / "train_labels.csv"))["train"]
    )
    assert data.image_names == ["images/a.jpg"]


def test_a_file_named_by_the_user_is_read_whatever_its_header(tmp_path: Path) -> None:
    text(tmp_path / "a.csv", "fichier,gauche,haut,droite,bas,classe", "a.jpg,1,2,3,4,cow")
    with pytest.raises(DataError, match="no labels of a known format"):
        recognise(tmp_path)
    _, found = recognise(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"a\.csv:1: the header 'fichier,gauche,haut,droite,bas"):
        opened(found["all"])


def test_two_files_of_a_set_are_an_error_that_names_them(tmp_path: Path) -> None:
    classic(tmp_path)
    text(tmp_path / "old" / "annotations.csv", "images/a.jpg,10,20,50,60,cow")
    message = r"2 CSV files of the set all, such as annotations\.csv and old/annotations\.csv"
    with pytest.raises(DataError, match=message):
        find_csv(Listing(tmp_path))


def test_nothing_outside_the_folder_is_read(tmp_path: Path) -> None:
    picture(tmp_path / "secret.jpg")
    root = tmp_path / "data"
    for name in ("../secret.jpg", str(tmp_path / "secret.jpg")):
        text(root / "boxes.csv", f"{name},1,2,30,40,cow")
        with pytest.raises(DataError, match=r"boxes\.csv:1: no image .*it leaves the image folder"):
            opened(find_csv(Listing(root))["all"])
    picture(root / "images" / "secret.jpg")  # of the same name, and below it
    assert opened(find_csv(Listing(root))["all"]).image_names == ["images/secret.jpg"]


def test_boxes_of_classes_that_the_model_lacks_are_left_out_and_counted(tmp_path: Path) -> None:
    data = opened(find_csv(Listing(classic(tmp_path)))["all"], class_names=("cat", "dog"))
    assert boxes(data) == [[(5, 8, 90, 70, "cat")]]
    assert data.repaired == {"box of a class that the model does not know": 1}


def test_numbers_are_classes_of_the_list(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    text(tmp_path / "train.csv", "image,x1,y1,x2,y2,class_id", "a.jpg,10,20,50,60,1")
    assert opened(find_csv(Listing(tmp_path))["train"]).class_names == ("1",)
    text(tmp_path / "classes.txt", "cat", "cow")
    data = opened(find_csv(Listing(tmp_path))["train"])
    assert boxes(data) == [[(10, 20, 50, 60, "cow")]]
    assert any("classes by their numbers in the class file" in note for note in data.notes)


def test_own_classes_are_those_of_boxes_alone(tmp_path: Path) -> None:
    for name in "abc":
        picture(tmp_path / f"{name}.jpg")
    rows = ["a.jpg,10,20,50,60,10", "a.jpg,11,20,50,60,9", "b.jpg,0,0,0,0,none", "c.jpg,,,,,"]
    data = opened(find_csv(Listing(text(tmp_path / "a.csv", *rows)))["all"])
    assert data.class_names == ("9", "10")
    assert [len(own) for own in boxes(data)] == [2, 0, 0]
