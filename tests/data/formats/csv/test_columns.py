"""Columns of CSV files: without a header, in one field, without a class, of widths and heights."""

from pathlib import Path
from typing import Any

import pytest

from retinanet.data.datasets import CSVDataset
from retinanet.data.formats.csv_files import has_boxes
from retinanet.data.formats.recognise import recognise
from retinanet.errors import DataError
from tests.data.formats.exports import picture, text

COW, CAT = [10, 20, 50, 60], [5, 8, 90, 70]


def written(folder: Path, *lines: str) -> Path:
    """A file beside its images a.jpg and b.jpg of 100 x 80 pixels."""
    for name in ("a", "b"):
        picture(folder / f"{name}.jpg")
    return text(folder / "train.csv", *lines)


def boxes(file: Path, classes: Any = None, **more: Any) -> dict[str, list[tuple[Any, ...]]]:
    """The boxes of each image, with the names of their classes."""
    data = CSVDataset(file, classes, **more)
    return {
        Path(name).stem: [
            (*row[:4], data.class_names[int(row[4])]) for row in data.load_annotations(k).tolist()
        ]
        for k, name in enumerate(data.image_names)
    }


@pytest.mark.parametrize(
    "lines",
    [
        ("cow,10,20,40,40,a.jpg,100,80", "cat,5,8,85,62,b.jpg,100,80"),  # makesense.ai
        ("a.jpg,10,20,50,60,cow,100,80", "b.jpg,5,8,90,70,cat,100,80"),  # SKU-110K
        ("a.jpg,100,80,cow,10,20,50,60", "b.jpg,100,80,cat,5,8,90,70"),  # xml_to_csv.py
        ("0,a.jpg,10,20,50,60,cow", "1,b.jpg,5,8,90,70,cat"),  # pandas' index
        ("a.jpg,10,20,50,60.0,cow,0.98", "b.jpg,5,8,90,70,cat,1e-05"),  # a score
    ],
)
def test_columns_without_a_header(tmp_path: Path, lines: tuple[str, ...]) -> None:
    file = written(tmp_path, *lines)
    expected = {"a": [(*COW, "cow")], "b": [(*CAT, "cat")]}
    assert has_boxes(file)
    assert boxes(file) == boxes(file, {"cow": 0, "cat": 1}) == expected
    data = CSVDataset(file, None)
    assert data.repaired == {"columns by what they hold": 1}
    assert any("read as path, " in note and ", column " in note for note in data.notes)
    with pytest.raises(DataError, match=r"train\.csv:1: columns beyond path,x1,y1,x2,y2,class"):
        CSVDataset(file, None, strict=True)


def test_rows_without_a_box_before_the_first_box(tmp_path: Path) -> None:
    file = written(tmp_path, "b.jpg,,,,,,100,80", "a.jpg,10,20,50,60,cow,100,80")
    assert boxes(file) == {"b": [], "a": [(*COW, "cow")]}


def test_columns_that_nothing_tells_are_an_error(tmp_path: Path) -> None:
    file = written(tmp_path, "a.jpg,7,10,20,50,60,cow,x")
    with pytest.raises(DataError, match=r"8 fields; .*, or name all columns in a first line$"):
        boxes(file)


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("image_id,class,bbox", ('a,cow,"[10, 20, 40, 40]"', 'b,cat,"[5.0, 8.0, 85.0, 62.0]"')),
        ("file;BBox;label", ("a.jpg;(10, 20, 40, 40);cow", "b.jpg;5 8 85 62;cat")),
        ("path,label,bbox_xyxy", ("a.jpg,cow,[10. 20. 50. 60.]", 'b.jpg,cat,"5,8,90,70"')),
    ],
)
def test_boxes_in_one_field(tmp_path: Path, header: str, rows: tuple[str, ...]) -> None:
    file = written(tmp_path, header, *rows)
    assert has_boxes(file)
    assert boxes(file) == {"a": [(*COW, "cow")], "b": [(*CAT, "cat")]}
    with pytest.raises(DataError, match="a box within one field; expected a field for each"):
        boxes(file, strict=True)


def test_wrong_boxes_in_one_field_and_none(tmp_path: Path) -> None:
    file = written(tmp_path, "image,bbox,class", 'a.jpg,"[10, 20, 40, 40]",cow', "b.jpg,nan,")
    assert boxes(file) == {"a": [(*COW, "cow")], "b": []}
    file = written(tmp_path, "image,bbox,class", 'a.jpg,"[10, 20, 40]",cow', "b.jpg,[],")
    with pytest.raises(DataError, match=r"train\.csv:2: bbox '\[10, 20, 40\]'; expected x, y, wi"):
        boxes(file)
    # Corners, where the name says nothing of them, do not fit the images as sizes.
    rows = ('a.jpg,"[50, 20, 90, 60]",cow', 'b.jpg,"[40, 30, 90, 70]",cow')
    file = written(tmp_path, "image,bbox,class", *rows)
    with pytest.raises(DataError, match=r"2 of 2 boxes fit as x1,y1,x2,y2: write x2 - x1 and y2"):
        boxes(file)


def test_a_file_without_a_column_of_a_class(tmp_path: Path) -> None:
    """Wheat heads of a competition: one class, which nothing names."""
    rows = ('a,100,80,"[10, 20, 40, 40]",field_1', "b,100,80,,field_2")
    file = written(tmp_path, "image_id,width,height,bbox,source", *rows)
    assert boxes(file) == {"a": [(*COW, "object")], "b": []}
    assert boxes(file, {"wheat": 0}) == {"a": [(*COW, "wheat")], "b": []}
    note = f"{file}: no column of a class: all boxes are 'object'"
    assert note in CSVDataset(file, None).notes
    with pytest.raises(DataError, match=r"train\.csv:1: the header .* names no column of a class;"):
        boxes(file, {"wheat": 0, "rye": 1})
    # A column that may be the class is not passed over.
    file = written(tmp_path, "image,xmin,ymin,xmax,ymax,breed", "a.jpg,10,20,50,60,zebu")
    for classes in (None, {"wheat": 0}):
        with pytest.raises(DataError, match="names no column of a class; expected path,x1"):
            boxes(file, classes)
    with pytest.raises(DataError, match=r"; .*train\.csv: the header 'image,xmin.*' names no col"):
        recognise(tmp_path)


def test_a_header_with_units(tmp_path: Path) -> None:
    header = "Filename,Xmin (px),Ymin (px),Xmax (px),Ymax (px),Class"
    assert boxes(written(tmp_path, header, "a.jpg,10,20,50,60,cow")) == {"a": [(*COW, "cow")]}


def test_fields_between_bars_and_classes_by_numbers_with_a_point(tmp_path: Path) -> None:
    file = written(tmp_path, "a.jpg|10|20|50|60|0.0", "b.jpg|5|8|90|70|1.0")
    found = boxes(file, {"cow": 0, "cat": 1})
    assert found == {"a": [(*COW, "cow")], "b": [(*CAT, "cat")]}


def test_a_class_file_with_trailing_commas(tmp_path: Path) -> None:
    file = written(tmp_path, "a.jpg,10,20,50,60,cow")
    classes = text(tmp_path / "classes.csv", "cow,0,", "cat,1,")
    assert boxes(file, classes) == {"a": [(*COW, "cow")]}
    with pytest.raises(DataError, match=r"classes\.csv:1: a comma behind the last"):
        boxes(file, classes, strict=True)
