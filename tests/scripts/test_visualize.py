"""visualize.py: what it draws, saves and never overwrites."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import visualize
from retinanet.data.shapes import SampleData
from retinanet.inference.film import Film, FilmWriter
from tests.support.helpers import files

pytestmark = pytest.mark.usefixtures("narrow")


@pytest.mark.parametrize("source", ["csv", "coco", "folder", "file"])
def test_visualize(
    sample: SampleData,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    source: str,
) -> None:
    images = sample.coco_root / "images" / "val2017"
    flags = {
        "csv": ["--dataset", "csv", "--csv_val", str(sample.csv_val), "--ground_truth"],
        "coco": ["--dataset", "coco", "--coco_path", str(sample.coco_root)],
        "folder": ["--image_dir", str(images), "--class_list", str(sample.csv_classes)],
        "file": ["--image_dir", str(images / "0002.jpg")],
    }[source]
    flags += ["--model", str(run / "model_final.pt"), "--output_dir", str(tmp_path / "out")]
    assert visualize.main([*flags, "--score_threshold", "0.001", "--workers", "0"]) == 0
    expected = ["0002.jpg"] if source == "file" else [f"000{n}.jpg" for n in (1, 2, 3, 4)]
    assert files(tmp_path / "out") == expected
    with Image.open(images / "0002.jpg") as before, Image.open(tmp_path / "out/0002.jpg") as after:
        assert before.size == after.size
    said = capsys.readouterr().out.splitlines()
    assert sum("0002.jpg: " in line for line in said) > 0


def test_visualize_saves_what_is_asked_for(
    sample: SampleData, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pattern = str(sample.coco_root / "images" / "val2017" / "000[12].jpg")
    flags = [str(run / "model_final.pt"), "--images", pattern, "--score_threshold", "0.001"]
    flags += ["--workers", "0", "--output_dir", str(tmp_path), "--classes", "star", "ring"]
    assert visualize.main([*flags, "--save", "json", "csv", "coco"]) == 0
    assert files(tmp_path) == ["predictions.csv", "predictions.json", "predictions_coco.json"]
    images = json.loads((tmp_path / "predictions.json").read_text())
    assert [Path(image["image"]).name for image in images] == ["0001.jpg", "0002.jpg"]
    found = [detection for image in images for detection in image["detections"]]
    assert {detection["class"] for detection in found} <= {"star", "ring"}
    assert len(found) == len(json.loads((tmp_path / "predictions_coco.json").read_text())) > 0
    capsys.readouterr()
    assert visualize.main([*flags, "--classes", "cow"]) == 1
    assert "--classes cow: the model knows ring, square, star, triangle" in capsys.readouterr().err


def test_visualize_never_writes_onto_its_input(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (70, 50), "red").save(folder / "a.jpg")
    Image.new("RGB", (70, 50), "red").save(folder / "a.png")
    before = (folder / "a.jpg").read_bytes()
    flags = ["--model", str(run / "model_final.pt"), "--image_dir", str(folder)]
    assert visualize.main([*flags, "--output_dir", str(folder), "--workers", "0"]) == 0
    assert files(folder) == ["a.jpg", "a.png", "a_2.jpg", "a_3.jpg"]
    assert (folder / "a.jpg").read_bytes() == before


def test_visualize_a_film(
    sample: SampleData, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    film = tmp_path / "walk.mp4"
    with FilmWriter(film, Fraction(10)) as writer:
        for number in range(6):
            with Image.open(sample.coco_root / "images/val2017/0001.jpg") as image:
                writer.add(np.asarray(image.convert("RGB")), number / 10)
    flags = [str(run / "model_final.pt"), "--images", str(film), "--every", "2"]
    flags += ["--score_threshold", "0.001", "--output_dir", str(tmp_path)]
    assert visualize.main([*flags, "--classes", "star"]) == 0
    assert files(tmp_path) == ["walk.jsonl", "walk.mp4", "walk_2.mp4"]  # the film itself stays
    lines = [json.loads(line) for line in (tmp_path / "walk.jsonl").read_text().splitlines()]
    assert [(line["frame"], line["time"]) for line in lines] == [(0, 0.0), (2, 0.2), (4, 0.4)]
    assert {found["label"] for line in lines for found in line["detections"]} == {"star"}
    assert [round(frame.time, 3) for frame in Film(tmp_path / "walk_2.mp4")] == [0.0, 0.2, 0.4]
    assert "3 frames: " in capsys.readouterr().out


def test_visualize_says_whose_thresholds_it_uses(
    sample: SampleData, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(sample.coco_root / "images" / "val2017" / "0001.jpg")
    flags = [str(run / "model_final.pt"), "--images", image, "--output_dir", str(tmp_path / "out")]
    assert visualize.main([*flags, "--workers", "0"]) == 0
    said = capsys.readouterr().out
    note = "Score thresholds, where F1 was best on the validation data after epoch 1"
    assert f"{note} (0.5 without one): ring " in said  # the narrow network finds not every class
    assert visualize.main([*flags, "--workers", "0", "--score_threshold", "0.4"]) == 0
    assert "Score threshold" not in capsys.readouterr().out
