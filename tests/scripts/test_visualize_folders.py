"""visualize.py on folders as people have them: it draws as it goes, and names what is broken."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import retinanet
import validate
import visualize
from retinanet.data.decoding.formats import SUFFIXES
from retinanet.model import ModelConfig, RetinaNet
from retinanet.report import pictures
from retinanet.weights.checkpoint import Checkpoint, save_checkpoint
from tests.support.helpers import take_ruled_weights

pytestmark = pytest.mark.usefixtures("narrow")

QUICK = ["--device", "cpu", "--workers", "2", "--score_threshold", "0.125"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint whose model finds things in any picture."""
    network = RetinaNet(ModelConfig(3, depth=18, channels=64))
    take_ruled_weights(network)
    path = tmp_path_factory.mktemp("model") / "model.pt"
    names = ("cat", "dog", "emu")
    save_checkpoint(path, Checkpoint(network.config, network.state_dict(), names, 64, 96))
    return str(path)


def photo(path: Path, side: int = 70) -> Path:
    pixels = np.random.default_rng(side).integers(0, 256, (side, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five good pictures, three that are none, and what macOS keeps beside one."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for k in range(5):
        photo(photos / f"{k}.png", 40 + 30 * (k % 2))
    (photos / "1b.jpg").write_bytes(b"")
    (photos / "2b.jpg").write_bytes(b"<html>")
    (photos / "3b.png").write_bytes((photos / "3.png").read_bytes()[:900])
    (photos / "._4.png").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    return photos


def test_broken_pictures_are_left_out_and_named_at_the_end(
    model: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    flags = [model, "--images", str(folder), *QUICK, "--output_dir", str(out)]
    assert visualize.main([*flags, "--save", "pictures", "json", "csv", "coco"]) == 1
    assert sorted(path.name for path in out.glob("*.jpg")) == [f"{k}.jpg" for k in range(5)]
    said = capsys.readouterr()
    records = json.loads((out / "predictions.json").read_text())
    assert [Path(record["image"]).name for record in records] == [f"{k}.png" for k in range(5)]
    assert [(record["height"], record["width"]) for record in records[:2]] == [(40, 60), (70, 60)]
    assert " detections on 5 images: " in said.out
    first, *lines = said.err.rstrip().split("\n")
    assert first.endswith("error: 3 of 8 images could not be read:")
    starts = ["1b.jpg: empty (0 bytes)", "2b.jpg: not an image", "3b.png: cannot be decoded"]
    for line, start in zip(lines, starts, strict=True):
        assert line.startswith(f"{folder}/{start}")


def test_each_picture_is_drawn_before_the_last_is_read(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(60):
        photo(tmp_path / f"{k:02}.png", 8)
    drawn_before: list[int] = []
    last = tmp_path / "59.png"
    load = visualize.ImageFiles.load_image

    def counting(images: visualize.ImageFiles, index: int) -> object:
        if images.image_path(index) == last:
            drawn_before.append(len(list((tmp_path / "out").glob("*.jpg"))))
        return load(images, index)

    monkeypatch.setattr(visualize.ImageFiles, "load_image", counting)
    flags = [model, "--images", str(tmp_path), *QUICK, "--output_dir", str(tmp_path / "out")]
    assert visualize.main(flags) == 0
    assert drawn_before[0] >= 20  # a window of 32 and what is loaded ahead are not yet drawn


def test_one_picture_that_is_none(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [model, "--images", str(tmp_path / "none.jpg"), *QUICK]
    assert visualize.main([*flags, "--output_dir", str(tmp_path / "out"), "--save", "json"]) == 1
    error = capsys.readouterr().err
    assert f"error: 1 of 1 image could not be read: {tmp_path}/none.jpg: No such file" in error
    assert not (tmp_path / "out").exists()


def test_a_long_list_of_broken_pictures_is_cut() -> None:
    text = visualize.unreadable_text([f"{k}.jpg: empty" for k in range(25)], 1000)
    assert text.startswith("25 of 1,000 images could not be read:\n0.jpg: empty\n")
    assert text.endswith("19.jpg: empty\nand 5 more")


def test_a_folder_of_odd_endings_and_a_turned_picture(model: str, tmp_path: Path) -> None:
    image = Image.new("RGB", (60, 40), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jfif", format="JPEG", exif=exif)
    image.save(tmp_path / "b.pnm", format="PPM")
    image.save(tmp_path / "c.j2k", format="JPEG2000")
    assert {".jfif", ".pnm", ".j2k"} <= SUFFIXES
    out = tmp_path / "out"
    assert visualize.main([model, "--images", str(tmp_path), *QUICK, "--output_dir", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["a.jpg", "b.jpg", "c.jpg"]
    with Image.open(out / "a.jpg") as drawn:
        assert drawn.size == (40, 60)


def test_names_stay_unique_and_no_input_is_overwritten(tmp_path: Path) -> None:
    taken = {(tmp_path / "a.jpg").resolve()}
    names = [pictures.free_name(tmp_path, tmp_path / f"a.{end}", taken).name for end in "xyz"]
    assert names == ["a_2.jpg", "a_3.jpg", "a_4.jpg"]


def test_large_pictures_in_tiles_give_the_same_numbers_for_any_batch_size(
    model: str, tmp_path: Path
) -> None:
    photo(tmp_path / "large.png", 300)
    (tmp_path / "val.csv").write_text("large.png,5,5,25,25,cat\n")
    data = [model, "--csv_val", str(tmp_path / "val.csv"), "--device", "cpu", "--workers", "0"]
    found = []
    for batch_size in ("1", "5"):
        out = tmp_path / batch_size
        flags = ["--tile", "64", "--tile_overlap", "0.3", "--batch_size", batch_size]
        flags += ["--score_threshold", "0.125", "--output_dir", str(out)]
        assert validate.main([*data, *flags]) == 0
        found.append(json.loads((out / "detections.json").read_text()))
    one, other = found
    assert len(one) == len(other) > 0
    for ours, theirs in zip(one, other, strict=True):
        np.testing.assert_allclose(ours["bbox"], theirs["bbox"], atol=1e-3)
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-5)

    detector = retinanet.load(model, "cpu", score_threshold=0.125, tile=64, tile_overlap=0.3)
    result = detector(tmp_path / "large.png")
    assert len(result) == len(one)
    assert len(retinanet.load(model, "cpu", score_threshold=0.125)(tmp_path / "large.png")) < len(
        one
    )
    flags = [model, "--images", str(tmp_path / "large.png"), *QUICK, "--tile", "64"]
    flags += ["--tile_overlap", "0.3", "--save", "json", "--output_dir", str(tmp_path / "seen")]
    assert visualize.main(flags) == 0
    (record,) = json.loads((tmp_path / "seen/predictions.json").read_text())
    assert len(record["detections"]) == len(one)
