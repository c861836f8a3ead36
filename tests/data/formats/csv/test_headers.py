"""Headers of CSV files: which columns are the box, the image's size, the class."""

from pathlib import Path

import pytest

from retinanet.data.datasets import CSVDataset
from retinanet.data.formats.recognise import recognise
from retinanet.errors import DataError
from tests.data.formats.csv.test_columns import CAT, COW, boxes, written
from tests.data.formats.exports import picture, text

EXPECTED = {"a": [(*COW, "cow")], "b": [(*CAT, "cat")]}


@pytest.mark.parametrize(
    ("header", "numbers"),
    [
        ("x,y,w,h", ("10,20,40,40", "5,8,85,62")),
        ("left,top,w,h", ("10,20,40,40", "5,8,85,62")),
        ("xmin,ymin,w,h", ("10,20,40,40", "5,8,85,62")),
        ("x,y,bbox_width,bbox_height", ("10,20,40,40", "5,8,85,62")),
        ("x_min,y_min,box_width,box_height", ("10,20,40,40", "5,8,85,62")),
        ("x_center,y_center,w,h", ("30,40,40,40", "47.5,39,85,62")),
        ("cx,cy,bbox_w,bbox_h", ("30,40,40,40", "47.5,39,85,62")),
        ("x,y,x2,y2", ("10,20,50,60", "5,8,90,70")),
    ],
)
def test_the_size_of_the_image_is_not_that_of_the_box(
    tmp_path: Path, header: str, numbers: tuple[str, str]
) -> None:
    """Both may be called width and height: what names the box more closely is the box's."""
    rows = (f"a.jpg,100,80,{numbers[0]},cow", f"b.jpg,100,80,{numbers[1]},cat")
    file = written(tmp_path, f"filename,width,height,{header},class", *rows)
    assert boxes(file) == EXPECTED


@pytest.mark.parametrize(
    "lines",
    [
        ("filename,width,height,class,xmin,ymin,xmax,ymax", "a.jpg,{},cow,20,40,100,120",
         "b.jpg,{},cat,10,16,180,140"),
        ("a.jpg,{},cow,20,40,100,120", "b.jpg,{},cat,10,16,180,140"),  # without the header
        ("cow,20,40,80,80,a.jpg,{}", "cat,10,16,170,124,b.jpg,{}"),  # makesense.ai
    ],
)  # fmt: skip
def test_images_made_smaller_after_labelling_are_an_error(
    tmp_path: Path, lines: tuple[str, ...]
) -> None:
    """Boxes of 200 x 160 images, which are 100 x 80 now: they were clipped."""
    file = written(tmp_path, *(line.format("200,160") for line in lines))
    match = (
        r"image 'a\.jpg'|'a\.jpg' is 100 x 80 pixels, and 200 x 160 in the file; 2 of 2 boxes lie"
    )
    with pytest.raises(DataError, match=match):
        CSVDataset(file, None)
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.jpg", 200, 160)
    assert not any("another size" in note for note in CSVDataset(file, None).notes)


def test_a_box_s_own_size_beside_its_corners_is_not_the_image_s(tmp_path: Path) -> None:
    rows = ("a.jpg,10,20,50,60,40,40,cow", "b.jpg,5,8,90,70,85,62,cat")
    file = written(tmp_path, "filename,x1,y1,x2,y2,width,height,class", *rows)
    assert boxes(file, strict=False) == EXPECTED
    assert not any("another size" in note for note in CSVDataset(file, None).notes)


def test_sizes_beside_fractions_and_empty_ones_are_no_matter(tmp_path: Path) -> None:
    rows = ("a.jpg,200,160,0.1,0.25,0.5,0.75,cow", "b.jpg,,,0.05,0.1,0.9,0.875,cat")
    file = written(tmp_path, "filename,width,height,x1,y1,x2,y2,class", *rows)
    assert boxes(file) == EXPECTED


@pytest.mark.filterwarnings("error")
def test_sizes_of_images_without_boxes(tmp_path: Path) -> None:
    header = "filename,width,height,class,xmin,ymin,xmax,ymax"
    assert boxes(written(tmp_path, header, "a.jpg,100,80,,,,,")) == {"a": []}


def test_the_name_of_the_class_comes_before_its_number(tmp_path: Path) -> None:
    rows = ("a.jpg,0,cow,10,20,50,60", "b.jpg,1,cat,5,8,90,70")
    assert boxes(written(tmp_path, "image,label,label_name,x1,y1,x2,y2", *rows)) == EXPECTED


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_excel_s_line_on_the_separator(tmp_path: Path, separator: str) -> None:
    lines = ["filename,xmin,ymin,xmax,ymax,class", "a.jpg,10,20,50,60,cow", "b.jpg,5,8,90,70,cat"]
    lines = [line.replace(",", separator) for line in lines]
    file = written(tmp_path, f"sep={separator}", *lines)
    assert boxes(file) == EXPECTED
    text(file, f"sep={separator}", *lines, separator.join("cxyz"))
    with pytest.raises(DataError, match=r"train\.csv:5: 4 fields"):  # lines keep their numbers
        boxes(file)


@pytest.mark.parametrize(
    "header", ["image_name,BoxesString,domain", "image_id,PredictionString", "filename, cow, cat"]
)
def test_a_header_that_names_no_box_is_printed(tmp_path: Path, header: str) -> None:
    file = written(tmp_path, header, "a.jpg,10 20 50 60,1")
    match = rf"the header '{header.replace(', ', ',')}' names no column of .*a box"
    with pytest.raises(DataError, match=match):
        recognise(tmp_path)
    with pytest.raises(DataError, match=match):
        CSVDataset(file, None)


def test_a_wrong_box_in_one_field_is_one_problem(tmp_path: Path) -> None:
    rows = ("a.jpg,cow,\"{'x': 10, 'y': 20, 'width': 40, 'height': 40}\"", 'b.jpg,cat,"5,8,85,62"')
    file = written(tmp_path, "image,label,bbox", *rows)
    with pytest.raises(DataError) as caught:
        boxes(file)
    first, *rest = str(caught.value).splitlines()
    assert first.startswith(f"{file}:2: bbox ")
    assert [line.split(" was read as ")[0] for line in rest] == [str(file)]
