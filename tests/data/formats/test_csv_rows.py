"""The CSV formats: what is read, what is put right, and what each error says."""

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from retinanet.data.annotations import Annotations
from retinanet.data.formats import csv_lines
from retinanet.data.formats.class_list import read_classes
from retinanet.data.formats.csv_rows import read_annotations
from retinanet.data.problems import Problems
from retinanet.errors import DataError

CLASSES = {"cat": 0, "dog": 1, "big, bad wolf": 2, "NA": 3}
CAT = "a.jpg,1,2,30,40,cat\n"


def read_whole(path: Path, strict: bool = False) -> tuple[Annotations, Problems]:
    """The annotations of a file without problems, and what was put right."""
    problems = Problems(path, strict)
    _, found = read_annotations(path, CLASSES, problems)
    problems.raise_if_any()
    return found, problems


def annotations(folder: Path, text: str | bytes, strict: bool = False) -> Annotations:
    return repaired(folder, text, strict)[0]


def repaired(folder: Path, text: str | bytes, strict: bool = False) -> tuple[Annotations, Problems]:
    path = folder / "train.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_whole(path, strict)


def classes(folder: Path, text: str, strict: bool = False) -> tuple[dict[str, int], Problems]:
    path = folder / "classes.csv"
    path.write_bytes(text.encode())
    problems = Problems(path, strict)
    return read_classes(path, problems), problems


# ---- classes ----


@pytest.mark.parametrize(
    ("text", "repairs"),
    [
        ("cat,0\ndog,1\n", {}),
        ("dog,1\ncat,0", {}),  # in any order, the last line without an end
        ("\ufeffcat,0\ndog,1\n", {"byte order mark": 1}),
        ("name,id\r\ncat,0\r\ndog,1", {"header row": 1, "line end with CR": 2}),
        ("\n cat , 0\n\ndog,1\n", {"blank line": 2, "spaces around fields": 1}),
        ('"cat",0\r"dog","1"\r', {"line end with CR": 2}),  # quotes, the line ends of old Macs
        ("cat\ndog\n", {"class name without an id": 2}),  # labels.txt, obj.names
        ("name\n\ncat\ndog\n", {"header row": 1, "blank line": 1, "class name without an id": 2}),
        ("cat,\ndog,\n", {"class name without an id": 2}),
        ("1,dog\n0,cat\n", {"id before the name": 2}),
        ("class_id,Class Name\n0,cat\n1,dog\n", {"header row": 1, "id before the name": 2}),
        ("class,name\n0,cat\n1,dog\n", {"header row": 1, "id before the name": 2}),
        ("cat;0\ndog;1\n", {"fields separated by other signs": 1}),
        ("cat\t0\ndog\t1\n", {"fields separated by other signs": 1}),
    ],
)
def test_classes(tmp_path: Path, text: str, repairs: dict[str, int]) -> None:
    found, problems = classes(tmp_path, text)
    assert list(found.items()) == [("cat", 0), ("dog", 1)]
    assert problems.repaired == repairs


def test_class_names_may_hold_commas_and_umlauts(tmp_path: Path) -> None:
    found, problems = classes(tmp_path, '"big, bad wolf",0\nKäfer,1\n')
    assert found == {"big, bad wolf": 0, "Käfer": 1}
    assert problems.repaired == {"comma in quotes": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\ufeffcat,0\n", r":1: a byte order mark; expected plain UTF-8; save the file without it"),
        ("cat,0\ndog,1\r\n", r":2: a line that ends in CR; expected LF; save the file with Unix"),
        ("class,id\ncat,0\n", r":1: a header row; expected data from the first line on; remove it"),
        ("cat,0\n\n", r":2: a blank line; expected data on every line; remove it"),
        ("cat, 0\n", r":1: spaces around a field; expected none; remove them"),
        ("cat\n", r":1: a name alone; expected name,id; add the ids, from 0"),
        ("0,cat\n", r":1: id,name; expected name,id; exchange the two"),
        ('"a,b",0\n', r":1: a comma in quotes; expected none within a field; rename what holds it"),
    ],
)
def test_strict_classes(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"^[^\n]*classes\.csv{message}[^\n]*$"):
        classes(tmp_path, text, strict=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"classes\.csv: no classes; expected lines of name,id; add at least one"),
        ("cat,0\ndog\n", r"classes\.csv:2: 1 fields; expected 2: name,id; quote a name that hol"),
        ("cat,0\nbig, bad wolf,1\n", r"classes\.csv:2: 3 fields; expected 2"),
        ("cat,zero\n", r"classes\.csv:1: id 'zero'; expected a whole number from 0; correct it"),
        ("cat,-1\n", r"classes\.csv:1: id '-1'; expected a whole number"),
        ("cat,0\ncat,1\n", r"classes\.csv:2: class 'cat' a second time; expected each name once"),
        (",0\n", r"classes\.csv:1: no name; expected name,id; add the name or remove the line"),
        ('"cat,0\n', r"classes\.csv:1: a quote that is not closed; expected name,id; close it"),
    ],
)
def test_class_errors(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        classes(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("dog,2\ncat,1\n", "1, 2"),  # from 1
        ("cat,0\ndog,2\n", "0, 2"),  # a gap
        ("cat,0\ndog,0\n", "0, 0"),  # one id for two classes
    ],
)
def test_class_ids_are_renumbered_in_the_message(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(DataError) as error:
        classes(tmp_path, text)
    assert f"classes.csv: ids {found}; expected 0 to 1, each once" in str(error.value)
    assert str(error.value).endswith("the file reads:\ncat,0\ndog,1")


# ---- annotations: what is read ----


def test_boxes_are_grouped_by_image_in_order_of_appearance(tmp_path: Path) -> None:
    found = annotations(
        tmp_path,
        "b.jpg,1,2,3,4,dog\n"
        "a.jpg,,,,,\n"
        "c.jpg,5,6,7.5,8.25,cat\n"  # floats are fine
        "b.jpg,0,0,9,9,cat\n",
    )
    assert found.names == ("b.jpg", "a.jpg", "c.jpg")
    assert found.boxes_of(0).tolist() == [[1, 2, 3, 4, 1], [0, 0, 9, 9, 0]]
    assert found.boxes_of(1).shape == (0, 5)
    assert found.boxes_of(2).tolist() == [[5, 6, 7.5, 8.25, 0]] == found.boxes_of(-1).tolist()
    assert found.boxes.dtype == np.float64
    assert found.lines.tolist() == [1, 4, 3]
    assert found.first_lines.tolist() == [1, 2, 3]


# Text, what is counted as put right, and what is said of it where nothing may be.
REPAIRS = [
    (CAT, {}, ""),
    (CAT.rstrip(), {}, ""),
    ('"a.jpg","1","2","30","40","cat"\n', {}, ""),
    ("a.jpg,1.0,2e0,+30,4e1,cat\n", {}, ""),
    (
        "\ufeff" + CAT,
        {"byte order mark": 1},
        ":1: a byte order mark; expected plain UTF-8; save the file without it",
    ),
    (
        CAT.replace("\n", "\r\n"),
        {"line end with CR": 1},
        ":1: a line that ends in CR; expected LF; save the file with Unix line ends",
    ),
    (CAT.replace("\n", "\r"), {"line end with CR": 1}, ":1: a line that ends in CR"),
    (
        " a.jpg , 1 , 2\t, 30 , 40 , cat \n",
        {"spaces around fields": 1},
        ":1: spaces around a field; expected none; remove them",
    ),
    ('a.jpg, "1",2,30,40, "cat"\n', {"spaces around fields": 1}, ":1: spaces around a field"),
    (
        "path,x1,y1,x2,y2,class_name\n" + CAT,
        {"header row": 1},
        ":1: a header row; expected data from the first line on; remove it",
    ),
    (
        "\n  \n,,,,,\n" + CAT + "\n",
        {"blank line": 4},
        ":1: a blank line; expected data on every line; remove it",
    ),
    (
        CAT + CAT + "a.jpg,,,,,\n" + CAT,
        {"exact duplicate": 2},
        ":2: a box that is there before; expected each once; remove one of them",
    ),
]


@pytest.mark.parametrize(("text", "repairs", "message"), REPAIRS)
def test_what_is_fine_or_put_right(
    tmp_path: Path, text: str, repairs: dict[str, int], message: str
) -> None:
    found, problems = repaired(tmp_path, text)
    assert found.names == ("a.jpg",)
    assert found.boxes.tolist() == [[1, 2, 30, 40, 0]]
    assert problems.repaired == repairs
    if not message:
        assert repaired(tmp_path, text, strict=True)[1].repaired == {}
        return
    with pytest.raises(DataError, match=rf"train\.csv{message}"):
        annotations(tmp_path, text, strict=True)


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("filename,ymin,xmin,ymax,xmax,class", "a.jpg,2,1,40,30,cat"),
        ("filename,width,height,class,xmin,ymin,xmax,ymax", "a.jpg,160,120,cat,1,2,30,40"),
        ("filename,x,y,width,height,label", "a.jpg,1,2,29,38,cat"),
        ("Image Path,X_center,Y_center,W,H,Class Name", "a.jpg,15.5,21,29,38,cat"),
        ("label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name", "cat,1,2,29,38,a.jpg"),
        (",image,x0,y0,x1,y1,class,score", "0,a.jpg,1,2,30,40,cat,0.5"),
        ("file;X Min;Y Min;X Max;Y Max;cls", "a.jpg;1,0;2,0;30,0;40;cat"),  # commas are points
        ("path\txtl\tytl\txbr\tybr\ttag", "a.jpg\t1\t2\t30\t40\tcat"),
        ("ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax", "a.jpg,v,cat,1,1,30,2,40"),
    ],
)
def test_columns_are_found_by_the_header(tmp_path: Path, header: str, row: str) -> None:
    found, problems = repaired(tmp_path, f"{header}\n{row}\n")
    assert found.names == ("a.jpg",)
    assert found.boxes.tolist() == [[1, 2, 30, 40, 0]]
    header_kinds = {"columns by the header", "header row"}  # the latter of the classic order
    assert header_kinds & problems.repaired.keys()
    with pytest.raises(DataError, match=r":1: a header (that names the columns|row); expected"):
        annotations(tmp_path, f"{header}\n{row}\n", strict=True)


def test_utf_16_is_read(tmp_path: Path) -> None:
    found, problems = repaired(tmp_path, CAT.encode("utf-16"))
    assert found.boxes.tolist() == [[1, 2, 30, 40, 0]]
    assert problems.repaired == {"UTF-16 text": 1}
    with pytest.raises(DataError, match=r":1: UTF-16 text; expected UTF-8; save the file as UTF"):
        annotations(tmp_path, CAT.encode("utf-16"), strict=True)


def test_fractions_under_a_header_are_read_as_such(tmp_path: Path) -> None:
    rows = "image,xmin,ymin,xmax,ymax,label\na.jpg,0.1,0.2,0.5,1,cat\n"
    found, problems = repaired(tmp_path, rows)
    assert found.in_fractions
    assert problems.repaired["box in fractions of the image"] == 1
    assert not repaired(tmp_path, rows.replace("1,cat", "9,cat"))[0].in_fractions
    over = repaired(tmp_path, rows + "b.jpg,0.1,0.2,1.002,1,cat\n")[0]
    assert over.in_fractions


@pytest.mark.parametrize(
    ("header", "lacking"),
    [
        ("fichier,gauche,haut,droite,bas,classe", "a path or a class or a box"),
        ("filename,links,oben,rechts,unten,class", "a box"),
        ("image,xmin,ymin,xmax,ymax,score", "a class"),
    ],
)
def test_a_header_that_is_not_understood(tmp_path: Path, header: str, lacking: str) -> None:
    message = rf"train\.csv:1: the header '{header}' names no column of {lacking}; expected path,x1"
    with pytest.raises(DataError, match=message):
        annotations(tmp_path, f"{header}\na.jpg,1,2,30,40,cat\n")


@pytest.mark.parametrize(
    ("row", "repair"),
    [
        ("b.jpg,,,,", "commas too many or too few"),
        ("b.jpg,", "commas too many or too few"),
        ("b.jpg,,,,,,,", "commas too many or too few"),
        ("b.jpg,nan,nan,nan,nan,nan", "row of no box"),
        ("b.jpg,None,None,None,None,background", "row of no box"),
        ("b.jpg,,,,,background", "row of no box"),
        ("b.jpg,0,0,0,0,cat", "row of no box"),
        ("b.jpg,-1,-1,-1,-1,", "row of no box"),
    ],
)
def test_rows_of_no_box(tmp_path: Path, row: str, repair: str) -> None:
    found, problems = repaired(tmp_path, CAT + row)
    assert found.names == ("a.jpg", "b.jpg")
    assert found.boxes_of(1).shape == (0, 5)
    assert problems.repaired == {repair: 1}
    with pytest.raises(DataError, match=r"train\.csv:2: (empty fields|a row of no box); exp"):
        annotations(tmp_path, CAT + row, strict=True)


def test_fractions_are_kept_and_counted(tmp_path: Path) -> None:
    text = "a.jpg,1.5,2,30,40.25,cat\na.jpg,1,2,3,4,cat\nb.jpg,,,,,\n"
    found, problems = repaired(tmp_path, text)
    assert found.boxes_of(0).tolist() == [[1.5, 2, 30, 40.25, 0], [1, 2, 3, 4, 0]]
    assert problems.repaired == {"fractions of pixels": 1}
    with pytest.raises(DataError, match=":1: a coordinate with a fraction; expected whole pixels"):
        annotations(tmp_path, text, strict=True)


def test_quoted_commas_and_a_class_called_na(tmp_path: Path) -> None:
    text = '"a, b.jpg",1,2,3,4,"big, bad wolf"\nnan,1,2,3,4,NA\n'
    found, problems = repaired(tmp_path, text)
    assert found.names == ("a, b.jpg", "nan")
    assert found.boxes[:, 4].tolist() == [2, 3]
    assert problems.repaired == {"comma in quotes": 1}
    with pytest.raises(DataError, match=":1: a comma in quotes; expected none within a field"):
        annotations(tmp_path, text, strict=True)


def test_what_was_put_right_is_said_in_one_line(tmp_path: Path) -> None:
    _, problems = repaired(tmp_path, "\n" + CAT + CAT)
    assert problems.notes() == [
        f"{tmp_path}/train.csv: repaired (blank line: 1, exact duplicate: 1); --strict shows where"
    ]
    assert repaired(tmp_path, CAT)[1].notes() == []


@pytest.mark.parametrize("block", [1, 7, 64])
def test_lines_may_lie_across_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(csv_lines, "BLOCK", block)
    text = CAT + "\nb.jpg,5,6,7,8,dog\n" + '"c, d.jpg",,,,,\n'
    found, problems = repaired(tmp_path, text)
    assert found.names == ("a.jpg", "b.jpg", "c, d.jpg")
    assert found.lines.tolist() == [1, 3]
    assert problems.repaired == {"comma in quotes": 1, "blank line": 1}
    with pytest.raises(DataError, match=r"train\.csv:5: 3 fields"):
        annotations(tmp_path, text + "e.jpg,1,2")


def test_lines_count_from_the_file_whatever_was_taken_out(tmp_path: Path) -> None:
    found = annotations(tmp_path, "path,x1,y1,x2,y2,class\n\n" + CAT + "\nb.jpg,,,,,\n")
    assert found.lines.tolist() == [3]
    assert found.first_lines.tolist() == [3, 5]


# ---- annotations: what stops ----


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("b.jpg", "1 field; expected 6: path,x1,y1,x2,y2,class; complete the row, or write"),
        ("b.jpg,1,2,3,cat", "5 fields; expected 6"),
        ("b.jpg;1;2;3;4;cat", "1 field; expected 6: .*; separate the fields by commas"),
        ("b.jpg,1,2,3,4,big, bad wolf", "7 fields; .*; quote a field that holds a comma"),
        ('"b, c.jpg",1,2,3', "4 fields; expected 6"),
        ('"b, c.jpg",1,2,3,4', "class empty; expected a whole box"),  # five commas all the same
        ('"b.jpg,1,2,3,4,cat', "a quote that is not closed; expected .*; close it"),
        (",1,2,3,4,cat", "no path; expected path,.*; add it"),
        ("b.jpg,1,,3,4,cat", "y1 empty; expected a whole box; complete it, or write path,,,,,"),
        ("b.jpg,,,,,cat", "x1, y1, x2, y2 empty; expected a whole box"),
        ("b.jpg,1,2,3,4,", "class empty; expected a whole box"),
        ("b.jpg,1,2,3,4,' '".replace("'", '"'), "class empty; expected a whole box"),
        ("b.jpg,1,2,x,4,cat", "x2 is 'x'; expected a number of pixels; correct it"),
        ("b.jpg,nan,2,3,4,cat", "x1 is 'nan'; expected a number of pixels"),
        ("b.jpg,1,inf,3,4,cat", "y1 is 'inf'; expected a number of pixels"),
        ("b.jpg,True,2,3,4,cat", "x1 is 'True'; expected a number of pixels"),
        ("b.jpg,1,2,3,1e999,cat", "y2 is '(inf|1e999)'; expected a number of pixels"),
        ("b.jpg,1,2,3,4,cow", "class 'cow'; expected one of cat, dog, big, bad wolf, NA; correct"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"^[^\n]*train\.csv:3: {message}[^\n]*$"):
        annotations(tmp_path, CAT + "\n" + row + "\n" + "c.jpg,,,,,\n")


def test_every_value_may_be_of_the_wrong_type(tmp_path: Path) -> None:
    # A column of nothing but truth values, which pandas would make 1 and 0.
    with pytest.raises(DataError, match=r"train\.csv:1: x1 is 'False'; expected a number"):
        annotations(tmp_path, "b.jpg,False,2,3,4,cat\n")


def test_all_problems_are_collected_the_first_20_shown(tmp_path: Path) -> None:
    rows = ["a.jpg,1,2,3,4,cow", "a.jpg,9,2,,4,cat", "a.jpg,1,2"] * 10
    with pytest.raises(DataError) as error:
        annotations(tmp_path, "\n".join(rows))
    *shown, rest = str(error.value).split("\n")
    assert [line.split(":")[1] for line in shown] == [str(k) for k in range(1, 21)]
    assert rest == (
        f"... and 10 more problems in {tmp_path}/train.csv; 30 in all"
        " (wrong number of fields: 10, incomplete box: 10, unknown class: 10)"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"train\.csv: no images; expected lines of path,x1,y1,x2,y2,class; add some"),
        (b"path,x1,y1,x2,y2,class\n\n", "no images"),
        (CAT.encode("utf-16")[:-1], r"train\.csv:1: byte 0xff; expected UTF-8 text; save it so"),
        (b"a\nK\xe4fer.jpg,,,,,\n", r"train\.csv:2: byte 0xe4; expected UTF-8 text; save it so"),
        (b"a.jpg,,,,,\n\n\0\n", r"train\.csv:3: byte 0x00; expected UTF-8 text"),
        # quotes in pairs, but across two lines
        (b'a"b,1,2,3,4,"cat\na"b,1,2,3,4,"cat\n', r"expected path,.* on each line; fix the quotes"),
        (b'b",2,",c,9,d\nb",2,",c,9,d\n', r"expected path,.* on each line; fix the quotes"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        annotations(tmp_path, content)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for read in (read_classes, read_whole):
        with pytest.raises(DataError, match=r"none\.csv: no such file; expected a CSV file"):
            read(tmp_path / "none.csv")
        for path in (tmp_path, tmp_path / "pipe"):
            with pytest.raises(DataError, match="not a regular file; expected a CSV file"):
                read(path)


# ---- properties ----

csv_like = st.text(st.sampled_from("a1,. \"\n\r-e\t'x\u2028\x1a"), max_size=80)
field = st.sampled_from(
    ["a.jpg", "1", "-1", "2.5", "nan", "inf", "", " ", "cat", '"', '"a,b"', "True"]
)
row_like = st.lists(st.lists(field, min_size=5, max_size=7).map(",".join)).map("\n".join)


@given(st.one_of(st.binary(max_size=80), csv_like.map(str.encode), row_like.map(str.encode)))
@example(b'a"b,1,2,3,4,"cat')
@example(b'"","","","","",""')
@example(b"a.jpg," + b"9" * 400 + b",2,3,4,cat")
def test_the_parsers_raise_nothing_but_data_errors(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(content)
    for read in (read_classes, read_whole):
        with contextlib.suppress(DataError):
            assert read(path)


corner = st.integers(0, 5000)
boxes = st.tuples(corner, corner, st.integers(1, 500), st.integers(1, 500))
rows = st.tuples(st.sampled_from(["a.jpg", "b.jpg", "c/d.jpg"]), boxes, st.sampled_from([*CLASSES]))


@given(st.lists(rows, min_size=1, unique=True))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, tuple[int, int, int, int], str]],
) -> None:
    expected: dict[str, list[list[float]]] = {}
    lines = []
    for name, (x, y, w, h), label in rows:
        expected.setdefault(name, []).append([x, y, x + w, y + h, CLASSES[label]])
        lines.append(f'{name},{x},{y},{x + w},{y + h},"{label}"')
    found = annotations(tmp_path_factory.getbasetemp(), "\n".join(lines))
    assert {name: found.boxes_of(k).tolist() for k, name in enumerate(found.names)} == expected
