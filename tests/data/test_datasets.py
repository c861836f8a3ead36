"""Data sets, sampler and collater: what they give, and what stops a run before it starts."""

import json
import math
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import Compose

from retinanet.data.batches import AspectRatioBasedSampler, SampleIndex, collater
from retinanet.data.datasets import CocoDataset, CSVDataset, ImageFiles
from retinanet.data.transforms import Augmenter, Normalizer, Resizer
from retinanet.errors import DataError
from tests.support.paths import SHARED

DATA = SHARED / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="the real data in ../shared is absent")


def picture(path: Path, width: int = 40, height: int = 30, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, **options)
    return path


def rotated() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def csv_data(
    folder: Path, rows: str, classes: str = "cat,0\ndog,1\n", **options: Any
) -> CSVDataset:
    """A data set of `rows` over images a.jpg (40 x 30) and b.jpg (30 x 40)."""
    picture(folder / "a.jpg")
    picture(folder / "b.jpg", 30, 40)
    (folder / "train.csv").write_text(rows)
    (folder / "classes.csv").write_text(classes)
    return CSVDataset(folder / "train.csv", folder / "classes.csv", **options)


ROWS = "a.jpg,1,2,30,20,dog\na.jpg,5,5,9,9,cat\nb.jpg,,,,,\n"


# ---- CSV ----


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
    first, second = str(error.value).split("\n")
    assert f"train.csv:2: no image 'b.jpg' in {named}; expected all images of a file" in first
    assert "train.csv:4: no image 'c.jpg'" in second
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
    with pytest.raises(DataError, match="none of 1 images can be read"):
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
    with pytest.raises(DataError, match=r"train.csv:4: .*c\.jpg: cannot be decoded .*truncated"):
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


# ---- COCO ----


def coco_content() -> dict[str, Any]:
    """Two images; categories with gaps, out of order; a crowd, and a box under one pixel."""
    return {
        "images": [
            {"id": 9, "file_name": "a.jpg", "height": 30, "width": 40},
            {"id": 4, "file_name": "b.jpg"},
        ],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 4, "category_id": 7, "bbox": [1, 2, 10, 20.5], "iscrowd": 0},
            {"id": 2, "image_id": 4, "category_id": 3, "bbox": [0, 0, 30, 40], "iscrowd": 1},
            {"id": 3, "image_id": 4, "category_id": 3, "bbox": [3, 3, 0.5, 9]},
            {"id": 4, "image_id": 4, "category_id": 3, "bbox": [20, 30, 15, 5]},
        ],
    }


def coco_data(root: Path, content: Any, images: str = "images/val", **options: Any) -> CocoDataset:
    picture(root / images / "a.jpg")
    picture(root / images / "b.jpg", 30, 40)
    (root / "annotations").mkdir(exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (root / "annotations" / "instances_val.json").write_text(text)
    return CocoDataset(root, "val", **options)


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


def changed(*path: Any, to: Any) -> Callable[[dict[str, Any]], Any]:
    def change(content: dict[str, Any]) -> Any:
        target: Any = content
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = to
        return content

    return change


def without(*path: Any) -> Callable[[dict[str, Any]], Any]:
    def change(content: dict[str, Any]) -> Any:
        target: Any = content
        for key in path[:-1]:
            target = target[key]
        del target[path[-1]]
        return content

    return change


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
        (changed("categories", 1, "name", to="dog"), r"categories\[1\]: name 'dog' a second time"),
        (changed("categories", 1, "id", to="7"), r"categories\[1\]: id is '7'; expected id, name"),
        (changed("annotations", 3, "id", to=1), r"annotations\[3\]: id 1 a second time"),
        (
            changed("annotations", 2, "image_id", to=5),
            r"annotations\[2\]: image_id 5; expected the",
        ),
        (
            changed("annotations", 2, "category_id", to=5),
            r"\[2\]: category_id 5; expected the id of",
        ),
        (without("annotations", 0, "bbox"), r"annotations\[0\]: no bbox; expected id, image_id"),
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
        (changed("images", 0, "file_name", to="../a.jpg"), r"images\[0\]: file_name .* leaves the"),
        (changed("images", 0, "file_name", to="x/../../a.jpg"), "leaves the image folder"),
        (changed("images", 0, "file_name", to="/etc/passwd"), "leaves the image folder; expected"),
        (changed("images", 0, "file_name", to="..\\a.jpg"), "leaves the image folder"),
        (changed("images", 0, "file_name", to="c:\\a.jpg"), "leaves the image folder"),
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
        " (in all wrong entry of annotations: 30)"
    )
    content = coco_content()
    del content["images"][1]["id"]  # the annotations of it are not wrong, too
    with pytest.raises(
        DataError, match=r"^[^\n]*images\[1\]: no id; expected id, file_name[^\n]*$"
    ):
        coco_data(tmp_path, content)
    content = coco_content()
    content["images"][0]["file_name"] = "none.jpg"  # is missing
    content["images"][1]["file_name"] = "../b.jpg"  # is refused, and its annotations with it
    content["annotations"][0]["category_id"] = 5
    with pytest.raises(DataError) as error:
        coco_data(tmp_path, content)
    texts = [line.split(".json: ")[1] for line in str(error.value).split("\n")]
    starts = ["images[1]: file_name", "annotations[0]: category_id 5", "no image 'none.jpg'"]
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
            changed("images", 0, "height", to=60),
            "image size that is not the file's",
            r"image 9: 40 x 60 pixels; expected 40 x 30 as in 'a.jpg'; correct it, and scale its",
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
    message = "image 5: 40 x 30 pixels; expected 30 x 40 as in 'r.jpg', upright as EXIF says it is"
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


# ---- sampler ----


class Ratios:
    """A data set of aspect ratios alone."""

    def __init__(self, ratios: list[float]) -> None:
        self.ratios = ratios

    def __len__(self) -> int:
        return len(self.ratios)

    def image_aspect_ratio(self, image_index: int) -> float:
        return self.ratios[image_index]


@given(
    st.lists(st.floats(0.05, 20), min_size=1, max_size=40),
    st.integers(1, 7),
    st.booleans(),
    st.integers(0, 3),
)
def test_each_image_once_and_an_honest_length(
    ratios: list[float], batch_size: int, drop_last: bool, seed: int
) -> None:
    sampler = AspectRatioBasedSampler(Ratios(ratios), batch_size, drop_last, seed)
    batches = list(sampler)
    images = [index for batch in batches for index in batch]
    assert len(batches) == len(sampler)
    assert len(set(images)) == len(images)
    if drop_last:
        assert all(len(batch) == batch_size for batch in batches)
    else:
        assert sorted(images) == list(range(len(ratios)))
        assert sum(len(batch) < batch_size for batch in batches) <= 1


def test_batches_hold_like_shapes_and_change_every_epoch() -> None:
    ratios = [0.5, 1.0, 2.0] * 20
    sampler = AspectRatioBasedSampler(Ratios(ratios), 4)
    epochs = [list(sampler) for _ in range(3)]
    for batches in epochs:
        assert all(len({ratios[k] for k in batch}) == 1 for batch in batches)
        assert len({ratios[batch[0]] for batch in batches[:8]}) > 1  # the shapes come mixed
    assert {frozenset(batch) for batch in epochs[0]} != {frozenset(batch) for batch in epochs[1]}
    assert [index.epoch for batch in epochs[2] for index in batch] == [2] * 60  # type: ignore[attr-defined]
    assert list(AspectRatioBasedSampler(Ratios(ratios), 4)) == epochs[0]
    assert list(AspectRatioBasedSampler(Ratios(ratios), 4, seed=1)) != epochs[0]


def test_set_epoch_and_the_count_after_it() -> None:
    sampler = AspectRatioBasedSampler(Ratios([1.0] * 30), 2)
    counted = [list(sampler) for _ in range(6)]
    sampler.set_epoch(4)
    assert [list(sampler), list(sampler)] == counted[4:]


def test_every_image_has_its_turn_although_the_last_are_dropped() -> None:
    sampler = AspectRatioBasedSampler(Ratios([1.0] * 4 + [9.0]), 2, drop_last=True)
    assert {index for _ in range(20) for batch in sampler for index in batch} == set(range(5))


def test_batch_size_below_one() -> None:
    with pytest.raises(DataError, match="batch size 0; expected at least 1; correct --batch_size"):
        AspectRatioBasedSampler(Ratios([1.0]), 0)


def test_sample_index_is_an_int_that_survives_pickling() -> None:
    index = pickle.loads(pickle.dumps(SampleIndex(5, epoch=3)))
    assert (index, index.epoch, [10, 20, 30, 40, 50, 60][index]) == (5, 3, 60)


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_change_nothing(tmp_path: Path, persistent: bool) -> None:
    rows = "".join(f"{k}.jpg,1,2,9,{10 + k},cat\n" for k in range(6))
    for k in range(6):
        picture(tmp_path / f"{k}.jpg")
    steps = Compose([Augmenter(seed=3), Resizer(32, 64), Normalizer()])
    data = csv_data(tmp_path, rows, transform=steps)

    def epochs(workers: int) -> list[torch.Tensor]:
        torch.manual_seed(workers)
        loader = DataLoader(
            data,
            batch_sampler=AspectRatioBasedSampler(data, 2),
            collate_fn=collater,
            num_workers=workers,
            persistent_workers=persistent and workers > 0,
        )
        return [tensor for _ in range(2) for b in loader for tensor in (b["img"], b["annot"])]

    alone, helped = epochs(0), epochs(2)
    assert len(alone) == len(helped) == 12
    assert all(torch.equal(a, b) for a, b in zip(alone, helped, strict=True))


# ---- collater ----


def test_collater_pads_to_the_largest() -> None:
    samples = [
        {"img": torch.ones(32, 64, 3), "annot": torch.ones(2, 5), "scale": 2.0, "size": (30, 60)},
        {"img": torch.ones(64, 32, 3), "annot": torch.zeros(0, 5), "scale": 1.0, "size": (60, 30)},
    ]
    batch = collater(samples)  # type: ignore[arg-type]
    assert batch["img"].shape == (2, 3, 64, 64)
    assert batch["img"].is_contiguous(memory_format=torch.channels_last)
    assert batch["img"][0].sum() == 3 * 32 * 64
    assert not batch["img"][0, :, 32:].any()
    assert batch["annot"].tolist() == [[[1] * 5] * 2, [[-1] * 5] * 2]
    assert (batch["scale"], batch["size"]) == ([2.0, 1.0], [(30, 60), (60, 30)])
    assert "index" not in batch


def test_collater_keeps_one_row_where_no_image_has_a_box() -> None:
    batch = collater([{"img": torch.ones(32, 32, 3), "annot": torch.zeros(0, 5)}])
    assert batch["annot"].tolist() == [[[-1] * 5]]


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
