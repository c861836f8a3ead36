"""Data sets: what they give, and what stops a run before it starts."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import Compose

from retinanet.data.batches import SampleIndex, collater
from retinanet.data.datasets import CocoDataset, CSVDataset
from retinanet.data.transforms import Augmenter, Normalizer, Resizer
from retinanet.errors import DataError
from retinanet.inference.image_folder import ImageFiles
from tests.support.data_sets import csv_data, picture
from tests.support.paths import SHARED

DATA = SHARED / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="the real data in ../shared is absent")


ROWS = "a.jpg,1,2,30,20,dog\na.jpg,5,5,9,9,cat\nb.jpg,,,,,\n"


def test_csv_dataset(tmp_path: Path) -> None:
    data = csv_data(tmp_path, ROWS)
    assert len(data) == 2
    assert data.num_classes() == 2
    assert data.class_names == ("cat", "dog")
    assert data.classes == {"cat": 0, "dog": 1}
    assert data.labels == {0: "cat", 1: "dog"}
    assert (data.label_to_name(1), data.name_to_label("dog")) == ("dog", 1)
    assert data.image_names == ["a.jpg", "b.jpg"]
    assert data.image_path(1) == tmp_path / "b.jpg"
    assert data.images_root == tmp_path
    assert (data.image_size(0), data.image_aspect_ratio(0)) == ((30, 40), 40 / 30)
    assert (data.image_id(0), data.category_id(0)) == (1, 1)
    assert data.load_image(0).shape == (30, 40, 3)
    assert data.load_annotations(0).tolist() == [[1, 2, 30, 20, 1], [5, 5, 9, 9, 0]]
    assert data.load_annotations(0).dtype == np.float64
    assert data.load_annotations(1).shape == (0, 5)
    assert data.image_data["b.jpg"] == []
    assert data.image_data["a.jpg"][0] == {"x1": 1, "x2": 30, "y1": 2, "y2": 20, "class": "dog"}
    assert data.notes == []


def test_sample_of_a_dataset(tmp_path: Path) -> None:
    data = csv_data(tmp_path, ROWS)
    sample = data[0]
    assert sample["img"].dtype == torch.uint8
    assert sample["annot"].dtype == torch.float32
    assert (sample["index"], sample["original_size"]) == (0, (30, 40))
    assert "epoch" not in sample
    assert data[SampleIndex(1, epoch=7)]["epoch"] == 7
    assert data[-1]["index"] == 1
    assert len(list(data)) == 2  # type: ignore[call-overload]  # IndexError ends the iteration
    data.load_annotations(0)[:] = 0
    assert data.load_annotations(0).any()  # what was handed out is a copy


def test_classes_may_come_from_a_checkpoint(tmp_path: Path) -> None:
    csv_data(tmp_path, ROWS)
    assert CSVDataset(tmp_path / "train.csv", {"dog": 1, "cat": 0}).class_names == ("cat", "dog")


def test_where_relative_paths_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The named folder; else beside the file; else the working directory: one for a whole file."""
    beside, working, named = (tmp_path / name for name in ("beside", "working", "named"))
    for folder in (beside, working, named):
        picture(folder / "a.jpg")
    picture(working / "c.jpg")
    (beside / "classes.csv").write_text("cat,0\n")
    monkeypatch.chdir(working)

    def root(rows: str, **options: Any) -> Path:
        (beside / "train.csv").write_text(rows)
        return CSVDataset(beside / "train.csv", beside / "classes.csv", **options).images_root

    assert root("a.jpg,,,,,\n") == beside
    assert root("a.jpg,,,,,\n", images_dir=named) == named
    assert root("a.jpg,,,,,\nc.jpg,,,,,\n") == Path()
    assert root(f"{named / 'a.jpg'},,,,,\n") == beside  # an absolute path is itself
    with pytest.raises(DataError) as error:
        root("a.jpg,,,,,\nb.jpg,,,,,\n\nc.jpg,,,,,\n", images_dir=named)
    expected = f"train.csv:2: no image 'b.jpg' in {named}, nor 'c.jpg'; expected all images of"
    assert expected in str(error.value)
    with pytest.raises(DataError, match=rf"in {beside} and {working}; .* with --csv_images_dir"):
        root("b.jpg,,,,,\n")


def test_unreadable_images_are_named_with_their_lines(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_text("<html>")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(DataError) as error:
        csv_data(tmp_path, ROWS + "page.jpg,,,,,\nempty.jpg,,,,,\n")
    first, second = str(error.value).split("\n")
    assert first.startswith(f"{tmp_path}/train.csv:4: {tmp_path}/page.jpg: not an image")
    assert second.startswith(f"{tmp_path}/train.csv:5: {tmp_path}/empty.jpg: empty")


def test_missing_empty_and_damaged_images_are_left_out_where_they_may(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "page.jpg").write_text("<html>")
    rows = "empty.jpg,1,2,3,4,cat\nnone.jpg,,,,,\npage.jpg,1,2,3,4,dog\n" + ROWS
    data = csv_data(tmp_path, rows, skip_unreadable=True)
    assert data.image_names == ["a.jpg", "b.jpg"]
    assert data.load_annotations(0).tolist() == [[1, 2, 30, 20, 1], [5, 5, 9, 9, 0]]
    assert data[1]["annot"].shape == (0, 5)
    starts = [f"Skipped: {tmp_path}/train.csv:{line}: " for line in (2, 1, 3)]
    assert [note.startswith(start) for note, start in zip(data.notes, starts, strict=True)] == [
        True, True, True,
    ]  # fmt: skip
    assert "no image 'none.jpg' in" in data.notes[0]
    assert "empty (0 bytes)" in data.notes[1]
    # Where most are missing, the paths are wrong: that is no matter of a few bad files.
    rows = "".join(f"none{k}.jpg,,,,,\n" for k in range(101))
    with pytest.raises(DataError, match="missing image, more than the 100 that may be skipped"):
        csv_data(tmp_path, ROWS + rows, skip_unreadable=True)
    with pytest.raises(DataError, match="none of 1 image can be read"):
        csv_data(tmp_path, "none.jpg,,,,,\n", skip_unreadable=True)


def test_a_jpeg_that_breaks_off_is_read_counted_and_named(tmp_path: Path) -> None:
    whole = picture(tmp_path / "c.jpg", 64, 64).read_bytes()
    (tmp_path / "c.jpg").write_bytes(whole[:-2])
    rows = ROWS + "c.jpg,1,2,3,4,cat\n"
    data = csv_data(tmp_path, rows)
    assert data[2]["img"].shape == (64, 64, 3)
    assert data.notes == [
        f"{tmp_path}/train.csv: repaired (JPEG that breaks off: 1); --strict shows where",
        f"read as far as they go: {tmp_path}/c.jpg: lacks its end marker",
    ]
    with pytest.raises(DataError, match=r"train.csv:4: .*c\.jpg: lacks its end marker; expected a"):
        csv_data(tmp_path, rows, strict=True)
    (tmp_path / "c.jpg").write_bytes(whole[: len(whole) // 2])  # before the run, not on day two
    with pytest.raises(
        DataError,
        match=r"train.csv:4: .*c\.jpg: cannot be decoded .*; or train with --on_bad_image skip$",
    ):
        csv_data(tmp_path, rows)


def test_problems_of_all_kinds_are_collected(tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_text("<html>")
    rows = "a.jpg,1,2,3,4,cow\nnone.jpg,,,,,\npage.jpg,,,,,\n"
    rows += "a.jpg,50,2,60,4,cat\na.jpg,9,2,3,4,cat\n"
    with pytest.raises(DataError) as error:
        csv_data(tmp_path, rows)
    found = [line.split(": ", 1) for line in str(error.value).split("\n")]
    assert [place for place, _ in found] == [f"{tmp_path}/train.csv:{k}" for k in range(1, 6)]
    starts = ["class 'cow';", "no image 'none.jpg'", f"{tmp_path}/page.jpg: not an image"]
    starts += ["box 50,2,60,4 lies outside", "x2 (3) is not greater than x1 (9)"]
    assert all(text.startswith(start) for (_, text), start in zip(found, starts, strict=True))


def test_one_row_may_have_several_problems(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        csv_data(tmp_path, "none.jpg,9,2,3,4,cow\n")
    texts = [line.split("train.csv:1: ")[1] for line in str(error.value).split("\n")]
    assert [text[:11] for text in texts] == ["class 'cow'", "no image 'n", "x2 (3) is n"]


def test_a_row_without_a_path_moves_no_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.csv:1: no image 'z.jpg'"):
        csv_data(tmp_path, "z.jpg,,,,,\n,1,2,3,4,cat\n")


def test_both_files_say_what_was_put_right(tmp_path: Path) -> None:
    data = csv_data(tmp_path, ROWS + "\n", classes="name,id\ncat,0\ndog,1\n")
    assert data.notes == [
        f"{tmp_path}/classes.csv: repaired (header row: 1); --strict shows where",
        f"{tmp_path}/train.csv: repaired (blank line: 1); --strict shows where",
    ]
    assert data.repaired == {"blank line": 1}
    with pytest.raises(DataError, match=r"classes\.csv:1: a header row; expected data from the"):
        csv_data(tmp_path, ROWS, classes="name,id\ncat,0\ndog,1\n", strict=True)
    with pytest.raises(DataError, match=r"train\.csv:4: a blank line; expected data on every line"):
        csv_data(tmp_path, ROWS + "\n", strict=True)
    assert len(csv_data(tmp_path, ROWS, strict=True)) == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_stops_the_loader(tmp_path: Path, workers: int) -> None:
    data = csv_data(tmp_path, ROWS)
    path = tmp_path / "b.jpg"
    path.write_bytes(path.read_bytes()[:700])  # the header is whole, the picture is not
    message = rf"^{tmp_path}/train\.csv:3: {path}: cannot be decoded \(.*truncated"
    with pytest.raises(DataError, match=message):
        list(DataLoader(data, num_workers=workers, collate_fn=collater))


# ---- images without annotations ----


def test_image_files(tmp_path: Path) -> None:
    picture(tmp_path / "b.JPG")
    picture(tmp_path / "a.png", 20, 10)
    (tmp_path / "notes.txt").touch()
    data = ImageFiles(tmp_path, Compose([Resizer(32, 64), Normalizer()]))
    assert [data.image_path(k).name for k in range(len(data))] == ["a.png", "b.JPG"]
    assert data[0]["annot"].shape == (0, 5)
    assert data[0]["original_size"] == (10, 20) == data.image_size(0)
    assert len(ImageFiles(tmp_path / "b.JPG")) == 1
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="none: no images in it; expected files named"):
        ImageFiles(tmp_path / "none")
    missing = ImageFiles(tmp_path / "missing")  # is opened when its turn comes
    for read in (missing.__getitem__, missing.image_size):
        with pytest.raises(DataError, match="missing: No such file or directory"):
            read(0)


def test_image_files_of_several_paths_and_patterns(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "a/2.png", "a/deep/3.jpg", "b[0].jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture(tmp_path / name)

    def found(*paths: str) -> list[str]:
        data = ImageFiles([tmp_path / path for path in paths])
        return [data.image_path(k).relative_to(tmp_path).as_posix() for k in range(len(data))]

    assert found("a", "b[0].jpg") == ["a/1.jpg", "a/2.png", "b[0].jpg"]  # a file, not a pattern
    assert found("a/*.jpg", "a") == ["a/1.jpg", "a/2.png"]  # each once
    assert found("**/*.jpg") == ["a/1.jpg", "a/deep/3.jpg", "b[0].jpg"]
    with pytest.raises(DataError, match=r"\*\.gif: no images fit this pattern"):
        found("*.gif")


# ---- real data ----


@needs_data
@pytest.mark.parametrize(("name", "images", "boxes"), [("train", 205, 2804), ("val", 87, 1137)])
def test_blood_cells(name: str, images: int, boxes: int) -> None:
    folder = DATA / "blood_cells"
    steps = Compose([Augmenter(), Resizer(), Normalizer()])
    data = CSVDataset(folder / f"{name}.csv", folder / "classes.csv", steps)
    assert len(data) == images
    assert sum(len(data.load_annotations(k)) for k in range(images)) == boxes
    assert data[0]["img"].shape == (608, 832, 3)
    assert data.repaired == {"line end with CR": boxes}


@needs_data
@pytest.mark.parametrize(
    ("name", "images", "annotations"), [("train2017", 80, 739), ("val2017", 79, 624)]
)
def test_coco_mini(name: str, images: int, annotations: int) -> None:
    data = CocoDataset(DATA / "coco_mini", name)
    assert len(data) == images
    assert data.num_classes() == 80
    assert data.category_id(79) == 90  # the real gaps
    crowds = sum(entry["iscrowd"] for entry in data.coco.anns.values())
    assert sum(len(data.load_annotations(k)) for k in range(images)) == annotations - crowds
    assert data.notes == []
    assert all(data.image_size(k) == data.load_image(k).shape[:2] for k in range(5))


@needs_data
def test_a_copied_tree_of_the_other_kind(tmp_path: Path) -> None:
    source = DATA / "coco_mini"
    shutil.copytree(source / "annotations", tmp_path / "annotations")
    shutil.copytree(source / "images" / "val2017", tmp_path / "val2017")
    assert CocoDataset(tmp_path, "val2017").images_root == tmp_path / "val2017"
