"""Comparison of models: what it says, what it cannot tell, and what it writes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retinanet.data.datasets import CSVDataset
from retinanet.evaluation.comparison import Difference, differences, mistakes, most_different
from retinanet.evaluation.intervals import Interval
from retinanet.evaluation.measure import measure
from retinanet.inference.results import coco_results
from retinanet.model import ModelConfig, RetinaNet
from retinanet.postprocess import Detections
from retinanet.tools import compare
from retinanet.weights.checkpoint import Checkpoint, save_checkpoint

IMAGES = 12
NAMES = ("cat", "dog")


def detections(rows: list[tuple[float, ...]]) -> Detections:
    """Rows of x1, y1, x2, y2, score, label."""
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 6)
    return Detections(table[:, 4], table[:, 5].long(), table[:, :4])


def found(share: float, seed: int) -> list[Detections]:
    """The first share of the images with both objects found, the others with nothing."""
    rng = np.random.default_rng(seed)
    result = []
    for index in range(IMAGES):
        score = float(rng.uniform(0.6, 0.9))
        rows = [(4, 4, 24, 24, score, 0), (30, 10, 56, 40, score, 1)]
        result.append(detections(rows if index < share * IMAGES else []))
    return result


@pytest.fixture
def data(tmp_path: Path) -> CSVDataset:
    """Twelve black pictures of 64 x 48 pixels with a cat and a dog each."""
    lines = []
    for index in range(IMAGES):
        Image.new("RGB", (64, 48)).save(tmp_path / f"{index}.png")
        lines += [f"{index}.png,4,4,24,24,cat", f"{index}.png,30,10,56,40,dog"]
    (tmp_path / "val.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "classes.csv").write_text("cat,0\ndog,1\n")
    return CSVDataset(tmp_path / "val.csv", tmp_path / "classes.csv")


def written(path: Path, data: CSVDataset, detected: list[Detections]) -> str:
    path.write_text(json.dumps(coco_results(data, detected)))
    return str(path)


def test_a_clear_difference_and_one_that_cannot_be_told(data: CSVDataset) -> None:
    poor, good, close = (measure(data, found(share, seed=0)) for share in (0.25, 1, 0.3))
    ap, ap50, cat, dog = differences(poor.coco, good.coco)
    assert [row.name for row in (ap, ap50, cat, dog)] == ["AP", "AP50", *NAMES]
    assert ap.value == pytest.approx(good.coco.stats["AP"] - poor.coco.stats["AP"])
    assert {row.verdict(IMAGES) for row in (ap, ap50, cat, dog)} == {"better"}
    assert differences(good.coco, poor.coco)[0].verdict(IMAGES) == "worse"
    same = differences(poor.coco, poor.coco)[0]
    assert (same.value, same.interval) == (0, Interval(0, 0))
    assert same.verdict(IMAGES) == "cannot be told with 12 images"
    # One more image of twelve: found in most resamples, but not in those that lack it.
    assert differences(poor.coco, close.coco)[0].verdict(IMAGES).startswith("cannot be told")


def test_no_interval_no_verdict() -> None:
    assert Difference("AP", 0.5, None).verdict(1) == "cannot be told with 1 image"


def test_images_with_the_largest_gap_come_first(data: CSVDataset) -> None:
    good, poor = measure(data, found(1, 0)), measure(data, found(0.75, 0))
    assert mistakes(good).tolist() == [0] * IMAGES
    assert mistakes(poor).tolist() == [0] * 9 + [2] * 3  # cat and dog are missed
    assert most_different([good, poor], 2) == [9, 10]


def test_detections_of_two_models(
    data: CSVDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [written(tmp_path / f"{k}.json", data, found(k, 0)) for k in (0.25, 1)]
    flags = ["--csv_val", str(tmp_path / "val.csv"), "--csv_classes", str(tmp_path / "classes.csv")]
    out = tmp_path / "out"
    assert compare.main([*files, *flags, "--output_dir", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"By AP, {files[1]} is better than {files[0]}." in said
    assert "detections, of unknown precision" in said
    assert "/3.png: mistakes of the models, from left to right: 2, 0" in said
    content = json.loads((out / "compare.json").read_text())
    [row, *_] = content["others"][0]["differences"]
    assert (row["name"], row["verdict"], content["images"]) == ("AP", "better", IMAGES)
    pictures = sorted(path.name for path in out.glob("*.jpg"))
    assert pictures == [f"difference_{rank}.jpg" for rank in range(1, 9)]
    assert compare.main([files[0], files[0], *flags]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == (
        f"By AP, {files[0]} and {files[0]}: which is better cannot be told with 12 images."
    )


def test_models_of_other_classes_and_sizes_are_named(
    data: CSVDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ModelConfig(2, 18, channels=8, head_convs=1)
    torch.manual_seed(0)
    weights = RetinaNet(config).state_dict()
    for name, names, side in (("a", NAMES, 32), ("b", ("emu", "cat"), 64)):
        checkpoint = Checkpoint(config, weights, names, min_side=side, max_side=96)
        save_checkpoint(tmp_path / f"{name}.pt", checkpoint)
    models = [str(tmp_path / "a.pt"), str(tmp_path / "b.pt")]
    flags = ["--csv_val", str(tmp_path / "val.csv"), "--workers", "0", "--score_threshold", "0.001"]
    assert compare.main([*models, *flags]) == 0
    said = capsys.readouterr().out
    assert "b.pt: other classes than the data's: without dog; left out emu" in said
    assert "a.pt: ResNet-18, 2 classes, images of 32-96 px, fp32" in said
    assert "b.pt: ResNet-18, 2 classes, images of 64-96 px, fp32" in said


def test_three_models_are_drawn_side_by_side(
    data: CSVDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The third alone differs, on the last six images."""
    files = [
        written(tmp_path / f"{k}.json", data, found(share, 0))
        for k, share in enumerate((1, 1, 0.5))
    ]
    flags = ["--csv_val", str(tmp_path / "val.csv"), "--csv_classes", str(tmp_path / "classes.csv")]
    out = tmp_path / "out"
    assert compare.main([*files, *flags, "--output_dir", str(out)]) == 0
    said = capsys.readouterr().out
    assert "/9.png: mistakes of the models, from left to right: 0, 0, 2" in said
    assert f"By AP, {files[2]} is worse than {files[0]}." in said
    pictures = sorted(out.glob("*.jpg"))
    assert len(pictures) == 6
    with Image.open(pictures[0]) as picture:
        width, height = picture.size
    assert width > 3 * height  # three of 64 x 48


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "there is no such file"),
        ("{", "no detections on these images and classes"),
        ('[{"image_id": 99, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1}]', "KeyError: 99"),
        ('[{"image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4], "score": 1}]', "KeyError: 7"),
    ],
)
def test_files_that_are_no_detections(
    data: CSVDataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: str | None,
    complaint: str,
) -> None:
    good = written(tmp_path / "good.json", data, found(1, 0))
    if content is not None:
        (tmp_path / "bad.json").write_text(content)
    flags = ["--csv_val", str(tmp_path / "val.csv"), "--csv_classes", str(tmp_path / "classes.csv")]
    assert compare.main([good, str(tmp_path / "bad.json"), *flags]) == 1
    error = capsys.readouterr().err
    assert "bad.json: " in error
    assert complaint in error


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ([], "no data is named; give --data, --coco_path, or --csv_val"),
        (["--dataset", "coco"], "--dataset coco needs --coco_path"),
        (["--csv_val", "val.csv"], "no model knows its class names; give --csv_classes"),
    ],
)
def test_data_must_be_named(
    flags: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        compare.main(["a.json", "b.json", *flags])
    assert end.value.code == 2
    assert complaint in capsys.readouterr().err
