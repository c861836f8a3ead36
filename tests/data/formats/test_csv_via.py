"""VIA's CSV: regions of every shape, and the attribute that names the class."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from retinanet.data.annotations import Annotations
from retinanet.data.formats.csv_rows import read_annotations
from retinanet.data.problems import Problems
from retinanet.errors import DataError

HEADER = (
    "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,"
    "region_attributes"
)
RECT = {"name": "rect", "x": 10, "y": 20, "width": 40, "height": 30}


def via(path: Path, *regions: tuple[str, dict[str, Any], dict[str, Any]], head: str = "") -> Path:
    """A file as VIA 2 writes it; VIA 1 has a # in front of the header."""
    rows = io.StringIO()
    csv.writer(rows, lineterminator="\n").writerows(
        (name, 1000, "{}", len(regions), k, json.dumps(shape), json.dumps(attributes))
        for k, (name, shape, attributes) in enumerate(regions)
    )
    path.write_text(f"{head}{HEADER}\n{rows.getvalue()}", encoding="utf-8")
    return path


def read(path: Path) -> tuple[tuple[str, ...], Annotations, list[str]]:
    problems = Problems(path)
    names, found = read_annotations(path, None, problems)
    problems.raise_if_any()
    return names, found, problems.notes()


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        (RECT, [10, 20, 50, 50]),
        ({"name": "circle", "cx": 30, "cy": 40, "r": 10}, [20, 30, 40, 50]),
        ({"name": "ellipse", "cx": 30, "cy": 40, "rx": 20, "ry": 10}, [10, 30, 50, 50]),
        # A quarter of a turn exchanges the two radii.
        (
            {
                "name": "ellipse",
                "cx": 30,
                "cy": 40,
                "rx": 20,
                "ry": 10,
                "theta": 1.5707963267948966,
            },
            [20, 20, 40, 60],
        ),
        (
            {"name": "polygon", "all_points_x": [5, 25, 15], "all_points_y": [7, 9, 30]},
            [5, 7, 25, 30],
        ),
        (
            {"name": "polyline", "all_points_x": [5, 25], "all_points_y": [7, 30]},
            [5, 7, 25, 30],
        ),
    ],
)
def test_shapes_become_their_boxes(tmp_path: Path, shape: dict[str, Any], box: list[float]) -> None:
    path = via(tmp_path / "via.csv", ("a.jpg", shape, {"class": "cow"}))
    names, found, notes = read(path)
    assert names == ("cow",)
    assert found.boxes[0, :4] == pytest.approx(box)
    said = f"1 {shape['name']} became the box around it" in notes
    assert said == (shape["name"] != "rect")
    assert any("read as VIA's regions, their class from 'class'" in note for note in notes)


def test_images_without_regions_and_points_have_no_box(tmp_path: Path) -> None:
    point = {"name": "point", "cx": 3, "cy": 4}
    path = via(tmp_path / "via.csv", ("a.jpg", {}, {}), ("b.jpg", point, {}), ("c.jpg", RECT,
               {"Info": "Date"}), head="#")  # fmt: skip
    names, found, notes = read(path)
    assert names == ("Date",)
    assert found.names == ("a.jpg", "b.jpg", "c.jpg")
    assert found.lines.tolist() == [4]
    assert "1 shape of type point without a box: left out" in notes


@pytest.mark.parametrize(
    ("attributes", "name"),
    [
        ({"Info": "Date"}, "Date"),  # the only one
        ({"colour": "red", "Label": "cow"}, "cow"),  # the one that is called so
        ({"type": {"cow": True, "cat": False}}, "cow"),  # the one that is ticked
        ({"class": 7}, "7"),
    ],
)
def test_the_class_is_an_attribute(tmp_path: Path, attributes: dict[str, Any], name: str) -> None:
    names, _, _ = read(via(tmp_path / "via.csv", ("a.jpg", RECT, attributes)))
    assert names == (name,)


@pytest.mark.parametrize(
    ("shape", "attributes", "message"),
    [
        (RECT, {}, r"via\.csv: regions have no attributes; expected one that names the class"),
        (RECT, {"a": "x", "b": "y"}, r"regions have the attributes a, b; expected one that names"),
        ({"name": "rect", "x": 1}, {"class": "cow"}, r"via\.csv:2: region_shape_attributes {'nam"),
        ({"name": "blob"}, {"class": "cow"}, r":2: region_shape_attributes .*expected a rect"),
        (RECT, {"class": ""}, r":2: region_attributes {'class': ''}; expected 'class'; add it"),
        (RECT, {"type": {"cow": True, "cat": True}}, r":2: region_attributes .*expected 'type'"),
        (
            {"name": "circle", "cx": 30, "cy": 40, "r": None},
            {"class": "cow"},
            r":2: region_shape_attributes",
        ),
    ],
)
def test_wrong_regions_are_named(
    tmp_path: Path, shape: dict[str, Any], attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(via(tmp_path / "via.csv", ("a.jpg", shape, attributes)))


def test_columns_that_are_no_json_are_named(tmp_path: Path) -> None:
    path = via(tmp_path / "via.csv", ("a.jpg", RECT, {"class": "cow"}))
    path.write_text(path.read_text() + "b.jpg,1,{},1,0,rect,cow\nc.jpg,1\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read(path)
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()[:2]] == [
        f"{path}:3",
        f"{path}:4",
    ]
