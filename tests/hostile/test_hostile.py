"""Images and annotations made to do harm, given to the scripts as people run them.

Refused means: exit code 1, one line that says why, no traceback, nothing written. A hang, a crash
or a flood of memory is a failed test: see `hostile.run`.
"""

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import train
import validate
import visualize
from retinanet.tools import check_data
from tests.support.hostile import (
    QUICK,
    TRAIN,
    Inputs,
    coco,
    coco_training,
    files,
    no_file,
    png,
    refusal,
    run,
    training,
)
from tests.support.zips import saved, zipped

pytestmark = pytest.mark.usefixtures("narrow")


def test_the_limits_are_seen_when_broken(tmp_path: Path) -> None:
    def fails(_: Sequence[str]) -> int:
        raise ValueError("deep")

    with pytest.raises(AssertionError, match="took longer"):
        run(lambda _: time.sleep(60) or 0, [], tmp_path / "a", seconds=1)
    # 10 GB, which are never written to: what freed memory this process has would not hold them.
    assert "MemoryError" in run(lambda _: len(bytes(10**10)), [], tmp_path / "b", megabytes=50).err
    with pytest.raises(AssertionError, match="ValueError: deep"):
        refusal(fails, [], tmp_path / "c")


# ---- images ----


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9"/></svg>'
BAD_IMAGES: dict[str, tuple[Callable[[Inputs], bytes] | None, str]] = {
    "bomb": (lambda _: png(50_000, 50_000), "2,500 megapixels, more than the 179"),
    "cut": (lambda good: (good.folder / "good.jpg").read_bytes()[:1500], "decoded .*truncated"),
    "svg": (lambda _: SVG, "not an image .it starts with b'<svg xmlns"),
    "html": (lambda _: b"<!doctype html><p>404", "not an image .it starts with b'<!doctype ht'"),
    "numpy": (lambda _: b"\x93NUMPY\x01\x00v", "not an image"),
    "empty": (lambda _: b"", "empty .0 bytes."),
    "folder": (None, "a folder; expected an image file"),
    "pipe": (None, "not a regular file; expected an image file"),
    "device": (None, "not a regular file; expected an image file"),
    "loop": (None, "Too many levels of symbolic links"),
}


def bad_image(good: Inputs, folder: Path, kind: str) -> Path:
    make = BAD_IMAGES[kind][0]
    if make is None:
        return no_file(folder / "bad.jpg", kind)
    (folder / "bad.jpg").write_bytes(make(good))
    return folder / "bad.jpg"


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_images(good: Inputs, tmp_path: Path, kind: str) -> None:
    image, rows = bad_image(good, tmp_path, kind), tmp_path / "rows.csv"
    rows.write_text("bad.jpg,1,1,9,9,cat\n")
    listed = "no images in it" if kind == "folder" else BAD_IMAGES[kind][1]
    for script, flags in (
        (train.main, [*training(good, rows), *TRAIN]),
        (validate.main, [good.model, "--csv_val", rows, *QUICK]),
        (visualize.main, [good.model, "--image_dir", image, *QUICK]),
        (check_data.main, training(good, rows)),
    ):
        out = tmp_path / "out"
        error = refusal(script, flags, out)
        expected = listed if script is visualize.main else BAD_IMAGES[kind][1]
        assert re.search(rf"bad\.jpg.*({expected})", error), error
        out.rmdir()


@pytest.mark.parametrize("kind", ["cut", "html", "pipe", "device", "folder"])
def test_bad_images_whose_size_the_annotations_say(good: Inputs, tmp_path: Path, kind: str) -> None:
    """No header need be read before the image is used."""
    root = coco(tmp_path / "coco", {})
    image = root / "images/val2017/a.jpg"
    image.unlink()
    bad_image(good, image.parent, kind).rename(image)
    flags = [good.model, "--coco_path", root, *QUICK]
    error = refusal(validate.main, flags, tmp_path / "out")
    assert re.search(rf"a\.jpg.*({BAD_IMAGES[kind][1]})", error), error


def odd_images(folder: Path) -> dict[str, tuple[int, int]]:
    """Images that are odd and right, and their sizes."""
    folder.mkdir()
    sizes = {"one.png": (1, 1), "wide.png": (30_000, 10), "tall.png": (10, 30_000)}
    sizes |= {"line.png": (30_000, 1), "beyond_jpeg.png": (70_000, 3)}
    for name, size in sizes.items():
        (folder / name).write_bytes(png(*size))
    Image.new("P", (20, 10)).save(folder / "animation.jpg", format="GIF")
    return {**sizes, "animation.jpg": (20, 10)}


def test_odd_images_are_trained_on_and_measured(good: Inputs, tmp_path: Path) -> None:
    sizes, rows = odd_images(tmp_path / "odd"), tmp_path / "odd/rows.csv"
    rows.write_text("".join(f"{name},0,0,{w},{h},cat\n" for name, (w, h) in sizes.items()))
    ended = run(train.main, [*training(good, rows), *TRAIN], tmp_path / "train")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.count("Iteration: ") == len(sizes)
    ended = run(validate.main, [good.model, "--csv_val", rows, *QUICK], tmp_path / "validate")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.count("Average Precision") == 6
    flags = [*training(good, rows), "--output_dir", "."]
    ended = run(check_data.main, flags, tmp_path / "check")
    assert ended.code == 1  # they are of one colour, which is told as a problem
    assert ended.err.endswith("named above\n")
    assert files(tmp_path / "check") == ["box_sizes.png", "check.json", "samples.jpg"]


def test_odd_images_are_drawn(good: Inputs, tmp_path: Path) -> None:
    sizes = odd_images(tmp_path / "odd")
    (tmp_path / "odd/beyond_jpeg.png").unlink()
    del sizes["beyond_jpeg.png"]
    flags = [good.model, "--image_dir", tmp_path / "odd", *QUICK]
    ended = run(visualize.main, flags, tmp_path / "out")
    assert (ended.code, ended.err) == (0, "")
    for name, size in sizes.items():
        with Image.open(tmp_path / "out/detections" / Path(name).with_suffix(".jpg")) as drawn:
            assert drawn.size == size


def test_image_names_that_break_lines(good: Inputs, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "two\nlines \x1b[2J.jpg").write_bytes((good.folder / "good.jpg").read_bytes())
    ended = run(visualize.main, [good.model, "--image_dir", photos, *QUICK], tmp_path / "out")
    assert (ended.code, ended.err) == (0, "")
    assert files(tmp_path / "out") == ["detections", "detections/two\nlines \x1b[2J.jpg"]
    (photos / "two\nlines \x1b[2J.jpg").write_bytes(b"no image")
    error = refusal(visualize.main, [good.model, "--image_dir", photos, *QUICK], tmp_path / "no")
    assert r"two\nlines \x1b[2J.jpg: not an image" in error


# ---- CSV ----

NOISE = np.random.default_rng(0).integers(0, 256, 10**5, dtype=np.uint8).tobytes()
BAD_ROWS: dict[str, tuple[bytes, str]] = {
    "binary": (NOISE, "byte 0x.*; expected UTF-8 text"),
    "zipped": (zipped({"rows.csv": b"good.jpg,1,1,9,9,cat\n"}), "byte 0x.*; expected UTF-8 text"),
    "NUL": (b"good.jpg,1,1,9,9,cat\0\n", "byte 0x00"),
    "half of UTF-16": ("good.jpg,1,1,9,9,cat\n".encode("utf-16")[:-1], "byte 0xff; expected UTF-8"),
    "Latin-1": (b"K\xe4fer.jpg,1,1,9,9,cat\n", "byte 0xe4; expected UTF-8"),
    "empty": (b"", "no images"),
    "open quote": (b'"good.jpg,1,1,9,9,cat\n', "a quote that is not closed"),
    "one field of 20 MB": (b"a" * 20_000_000, "quote"),
    "5 MB of commas": (b"a" + b"," * 5_000_000, "5,000,001 fields; expected 6"),
    "20 MB of quotes": (b'"' * 20_000_000, "fields; expected 6|quote"),
    "a number of 10 MB": (b"good.jpg," + b"9" * 10_000_000 + b",1,2,2,cat", "x1 is "),
    "a word of 10 MB": (b"good.jpg," + b"x" * 10_000_000 + b",1,2,2,cat", "x1 is "),
    "a class of 10 MB": (b"good.jpg,1,1,9,9," + b"x" * 10_000_000, "class 'xxx"),
    "a path of 10 MB": (b"x" * 10_000_000 + b",1,1,9,9,cat", "no image 'xxx"),
    "colours in the path": (b"\x1b[31mgood.jpg,1,1,9,9,cat", r"no image '\\x1b\[31mgood.jpg'"),
    "colours in the class": (b"good.jpg,1,1,9,9,\x1b[31mcat", r"class '\\x1b\[31mcat'"),
    "colours in a number": (b"good.jpg,\x1b[31m1,1,9,9,cat", r"x1 is .*x1b"),
    "line separator": ("good.jpg,1,1,9,9,c\u2028at".encode(), r"class 'c\\u2028at'"),
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_bad_rows(good: Inputs, tmp_path: Path, kind: str) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_bytes(BAD_ROWS[kind][0])
    flags = [*training(good, rows), *TRAIN, "--csv_images_dir", good.folder]
    error = refusal(train.main, flags, tmp_path / "out")
    assert re.search(rf"rows\.csv(:1)?: .*({BAD_ROWS[kind][1]})", error), error


BAD_CLASSES: dict[str, tuple[bytes, str]] = {
    "binary": (NOISE, "byte 0x.*; expected UTF-8 text"),
    "half of UTF-16": ("cat,0\n".encode("utf-16")[:-1], "byte 0xff; expected UTF-8"),
    "20 MB": (b"a" * 20_000_000, "1 fields; expected 2|quote"),
    "an id of 10 MB": (b"cat," + b"9" * 10_000_000, "id '999|quote"),
    "colours": (b"\x1b[31mcat,0\n", "name"),
}


@pytest.mark.parametrize("kind", BAD_CLASSES)
def test_bad_classes(good: Inputs, tmp_path: Path, kind: str) -> None:
    classes = tmp_path / "names.csv"
    classes.write_bytes(BAD_CLASSES[kind][0])
    flags = ["--dataset", "csv", "--csv_train", good.csv, "--csv_classes", classes]
    error = refusal(train.main, [*flags, *TRAIN], tmp_path / "out")
    assert re.search(rf"names\.csv(:1)?: .*({BAD_CLASSES[kind][1]})", error), error


def test_a_million_bad_rows_are_counted(good: Inputs, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_bytes(b"good.jpg,1,1,9\n" * 500_000 + b"good.jpg,9,9,1,1,cow\n" * 500_000)
    ended = run(train.main, [*training(good, rows), *TRAIN], tmp_path / "out")
    assert ended.code == 1
    *shown, rest = ended.err.splitlines()
    assert len(shown) == 20
    assert all("rows.csv:" in line and "; expected 6: path" in line for line in shown)
    assert rest.startswith(f"... and 999,982 more problems in {rows}; 1,000,002 in all (wrong num")


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "missing"])
def test_annotations_that_are_no_file(good: Inputs, tmp_path: Path, kind: str) -> None:
    rows = no_file(tmp_path / "bad.csv", kind)
    root = coco(tmp_path / "coco", {})
    file = root / "annotations/instances_val2017.json"
    file.unlink()
    no_file(file, kind)
    for name, flags in (
        ("rows", training(good, rows)),
        ("classes", ["--dataset", "csv", "--csv_train", good.csv, "--csv_classes", rows]),
        ("json", coco_training(root)),
    ):
        error = refusal(train.main, [*flags, *TRAIN], tmp_path / name)
        assert re.search("no such file|not a regular file|No such file|Is a dir", error), error


# ---- COCO ----


BAD_JSON: dict[str, tuple[dict[str, Any] | bytes, str]] = {
    "empty": (b"", "not JSON"),
    "binary": (NOISE, "not JSON"),
    "lists 100,000 deep": (b"[" * 100_000, "not JSON"),
    "whole lists 100,000 deep": (b"[" * 100_000 + b"]" * 100_000, "not JSON"),
    "objects 100,000 deep": (b'{"images":' * 100_000 + b"0" + b"}" * 100_000, "not JSON"),
    "a number of 1,000,000 digits": (b'{"images": ' + b"9" * 10**6 + b"}", "not JSON"),
    "cut": (b'{"images": [{"id": 1, "file_n', "not JSON"),
    "a number for a list": ({"images": 5}, "no list 'images'"),
    "objects for lists": ({"images": {"1": {}}}, "no list 'images'"),
    "lists for objects": ({"images.0": [1, "a.jpg"]}, r"images\[0\]: \[1, 'a.jpg'\]; expected"),
    "texts for numbers": ({"annotations.0.bbox": ["4", "x", "36", "36"]}, "expected four numbers"),
    "a text for a box": ({"annotations.0.bbox": "4 to 36"}, "bbox '4 to 36'"),
    "infinite": ({"annotations.0.bbox": [4, 4, float("inf"), 36]}, "expected four numbers"),
    "NaN": ({"annotations.0.bbox": [4, float("nan"), 36, 36]}, "expected four numbers"),
    "beyond floats": ({"annotations.0.bbox": [4, 4, 10**4000, 36]}, "expected four numbers"),
    "an id without end": ({"annotations.0.category_id": 10**4000}, "category_id"),
    "id of a list": ({"images.0.id": [1]}, r"id is \[1\]"),
    "climbing": ({"images.0.file_name": "../../../../etc/passwd"}, "leaves the image folder"),
    "absolute": ({"images.0.file_name": "/etc/passwd"}, "leaves the image folder"),
    "climbing, Windows": ({"images.0.file_name": "x\\..\\..\\b.jpg"}, "leaves the image folder"),
    "climbing in the middle": ({"images.0.file_name": "x/../../b.jpg"}, "leaves the image folder"),
    "name of a folder": ({"images.0.file_name": "."}, "no image '.'"),
    "name of nothing": ({"images.0.file_name": ""}, "no image ''"),
    "name of two lines": ({"images.0.file_name": "a\nb.jpg"}, r"no image 'a\\nb.jpg'"),
    "name with NUL": ({"images.0.file_name": "a\0b/c.jpg"}, r"no image 'a\\x00b/c.jpg'"),
    "name of half a character": ({"images.0.file_name": "\ud800.jpg"}, r"no image '\\ud800.jpg'"),
    "name of 1 MB": ({"images.0.file_name": "x" * 10**6}, "no image 'xxx"),
    "category of two lines": ({"categories.1.name": "dog\nis fine"}, r"categories\[1\]: name"),
    "category of colours": ({"categories.1.name": "\x1b[31mdog"}, r"categories\[1\]: name"),
    "category of half a character": ({"categories.1.name": "\ud800"}, r"categories\[1\]: name"),
    "area of text": ({"annotations.0.area": "large"}, "area"),
    "area without end": ({"annotations.0.area": 1e308}, "area"),
    "crowd of text": ({"annotations.0.iscrowd": "yes"}, "iscrowd"),
    "crowd of a list": ({"annotations.0.iscrowd": [1]}, "iscrowd"),
}


@pytest.mark.parametrize("kind", BAD_JSON)
def test_bad_json(tmp_path: Path, kind: str) -> None:
    changes, expected = BAD_JSON[kind]
    root = coco(tmp_path / "coco", changes)
    error = refusal(train.main, [*coco_training(root), *TRAIN], tmp_path / "out")
    assert re.search(rf"instances_val2017\.json: .*({expected})", error), error


ODD_JSON: dict[str, dict[str, Any]] = {
    "sizes of text": {"images.0.height": "48"},
    "sizes without end": {"images.0.height": 10**30, "images.0.width": 10**30},
    "negative sizes": {"images.0.height": -48},
    "crowds alone": {"annotations.0.iscrowd": 1},
    "no annotations": {"annotations": []},
    "info of NaN": {"info": float("nan")},
    "area of NaN": {"annotations.0.area": float("nan")},
}


@pytest.mark.parametrize("kind", ODD_JSON)
def test_odd_json_is_read(good: Inputs, tmp_path: Path, kind: str) -> None:
    root = coco(tmp_path / "coco", ODD_JSON[kind])
    ended = run(validate.main, [good.model, "--coco_path", root, *QUICK], tmp_path / "out")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.count("Average Precision") == 6


def test_of_keys_written_twice_the_last_counts(good: Inputs, tmp_path: Path) -> None:
    text = (coco(tmp_path / "a", {}) / "annotations/instances_val2017.json").read_bytes()
    twice = text.replace(b'"images"', b'"images": [{"id": 5}], "images"')
    root = coco(tmp_path / "coco", twice)
    ended = run(validate.main, [good.model, "--coco_path", root, *QUICK], tmp_path / "out")
    assert (ended.code, ended.err) == (0, "")
    assert "Validation data: 1 image below" in ended.out


# ---- names ----

CODE = [
    "$\\frac$",
    "<script>alert(1)</script>",
    "{0.__class__}",
    "%s%n",
    "=1+1",
    "_hidden",
    "${",
    "\\",
]


def test_class_names_that_are_code_elsewhere(good: Inputs, tmp_path: Path) -> None:
    """In a page, a chart, a format, a table."""
    content = torch.load(good.model, weights_only=True)
    K = len(CODE)
    for name in ("classificationModel.output.bias", "classificationModel.output.weight"):
        content["weights"][name] = torch.cat([content["weights"][name][:1]] * 9 * K)
    content["config"]["num_classes"], content["class_names"] = K, tuple(CODE)
    (tmp_path / "model.pt").write_bytes(saved(content))
    rows = [f'good.jpg,{k},{k},{k + 20},{k + 25},"{name}"\n' for k, name in enumerate(CODE)]
    (tmp_path / "rows.csv").write_text("".join(rows))
    data = ["--csv_val", tmp_path / "rows.csv", "--csv_images_dir", good.folder, *QUICK]
    flags = [tmp_path / "model.pt", *data, "--output_dir", ".", "--report"]
    ended = run(validate.main, flags, tmp_path / "out")
    assert (ended.code, ended.err) == (0, "")
    page = (tmp_path / "out/report.html").read_text()
    assert "<script>alert" not in page
    assert page.count("<script>") == 1  # the page's own
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    flags = [tmp_path / "model.pt", *data, "--ground_truth"]
    ended = run(visualize.main, flags, tmp_path / "drawn")
    assert (ended.code, ended.err) == (0, "")
