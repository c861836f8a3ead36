"""Images that break, numbers gone wrong, evaluations that fail: what a run says and keeps."""

import os
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

import train
import validate
from retinanet.data.shapes import SampleData
from retinanet.errors import DataError
from retinanet.weights.checkpoint import load_checkpoint
from tests.support.runs import EPOCHS, assert_same_run, flags, losses, scores

pytestmark = pytest.mark.usefixtures("narrow")


def test_numbers_gone_wrong_stop_the_run(
    sample: SampleData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    more = ["--lr", "1e30", "--save_every_minutes", "0.0001"]
    assert train.main(flags(sample, tmp_path, *more)) == 1
    captured = capsys.readouterr()
    for part in ("iteration 1", "not finite", ".jpg", "learning rate 1e+30", "--lr"):
        assert part in captured.err
    assert time.monotonic() - started < 60
    state = torch.load(tmp_path / "training_state.pt", weights_only=True)
    assert all(torch.isfinite(w).all() for w in state["weights"].values())


def with_broken_image(csv: Path, root: Path, folder: Path) -> tuple[Path, Path]:
    """A CSV file with one image more, and that image.

    Its header is whole, so only decoding shows that the rest is missing.
    """
    image = folder / "cut.png"
    Image.effect_noise((64, 64), 50).save(image)
    image.write_bytes(image.read_bytes()[:1000])
    text = csv.read_text().replace("images/", f"{root}/images/")
    rows = folder / csv.name
    rows.write_text(text + f"{image},1,1,50,50,ring\n")
    return rows, image


def test_an_image_that_breaks_after_the_start(
    sample: SampleData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, image = with_broken_image(sample.csv_train, sample.coco_root, tmp_path)
    line = len(rows.read_text().splitlines())

    def said(folder: str, code: int, *more: str) -> str:
        run = flags(sample, tmp_path / folder, "--csv_train", str(rows), *more)
        assert train.main(run) == code
        return capsys.readouterr().err

    error = said("stopped", 1)
    assert f"train.csv:{line}: {image}: cannot be decoded" in error
    assert error.endswith("or go on without it: the same with --resume --on_bad_image skip\n")
    assert f"Skipped (1): {rows}:{line}: {image}: cannot" in said("whole", 0, "--on_bad_image=skip")
    text = said("stopped", 0, "--resume", "--on_bad_image", "skip")
    assert text.count("cut.png") == 1  # though every epoch meets it
    whole, resumed = (
        load_checkpoint(tmp_path / name / "model_final.pt") for name in ("whole", "stopped")
    )
    for key, value in whole.weights.items():
        assert torch.equal(resumed.weights[key], value), key


def test_a_validation_image_that_cannot_be_read(
    sample: SampleData,
    whole: tuple[Path, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It costs the evaluation, not the epoch; skipped, the other images are evaluated."""
    rows, image = with_broken_image(sample.csv_val, sample.coco_root, tmp_path)
    run = flags(sample, tmp_path / "run", "--csv_val", str(rows))
    assert train.main(run) == 1
    error = capsys.readouterr().err
    assert f"val.csv:{len(rows.read_text().splitlines())}: {image}: cannot be decoded" in error
    assert error.endswith("or go on without it: the same with --resume --on_bad_image skip\n")
    assert train.main([*run, "--resume", "--on_bad_image", "skip"]) == 0
    said = capsys.readouterr()
    assert said.err.count("cut.png") == 1  # though each of two evaluations meets it
    assert said.out.count("Without 1 of 3 images, which could not be read:\n") == EPOCHS
    assert scores(said.out) == scores(whole[1])
    assert_same_run(tmp_path / "run", whole[0])
    validated = [str(whole[0] / "model_final.pt"), "--csv_val", str(rows), "--workers", "0"]
    assert validate.main(validated) == 1
    assert capsys.readouterr().err.endswith("or leave it out: --on_bad_image skip\n")
    assert validate.main([*validated, "--on_bad_image", "skip"]) == 0
    assert "Without 1 of 3 images, which could not be read:\n" in capsys.readouterr().out


def test_every_content_is_written_once(
    sample: SampleData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch its file, of which the best and the last are links; the state when due, and last."""
    written: list[str] = []
    real = torch.save

    def save(content: dict[str, object], stream: object) -> None:
        written.append("state" if "optimizer" in content else f"epoch {content['epoch']}")
        real(content, stream)

    monkeypatch.setattr(torch, "save", save)
    assert train.main(flags(sample, tmp_path)) == 0
    assert written == ["epoch 0", "epoch 1", "state"]
    assert os.path.samefile(tmp_path / "csv_retinanet_1.pt", tmp_path / "model_final.pt")


def test_an_evaluation_that_fails_loses_nothing(
    sample: SampleData,
    whole: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise DataError("a validation image cannot be read")

    with monkeypatch.context() as patch:
        patch.setattr(train, "evaluate", fail)
        assert train.main(flags(sample, tmp_path)) == 1
    first = capsys.readouterr()
    assert train.main(flags(sample, tmp_path, "--resume")) == 0
    assert losses(first.out) + losses(capsys.readouterr().out) == losses(whole[1])
    assert_same_run(tmp_path, whole[0])
