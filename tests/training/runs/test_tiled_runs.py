"""train.py --tile from the first step to the model in use."""

import json
import os
import signal
from pathlib import Path

import pytest

import retinanet
import train
import validate
from retinanet.data.shapes import SampleData
from retinanet.training.run_folder import RunFolder
from retinanet.weights.checkpoint import load_checkpoint
from tests.support.helpers import csv_run_flags
from tests.support.runs import assert_same_run

TILES = ("--tile", "240", "--tile_overlap", "0.25", "--epochs", "1", "--lr", "1e-3")
pytestmark = pytest.mark.usefixtures("narrow")


@pytest.fixture(scope="module")
def tiled(sample: SampleData, tmp_path_factory: pytest.TempPathFactory, narrow: None) -> Path:
    folder = tmp_path_factory.mktemp("tiled")
    assert train.main(csv_run_flags(sample, folder, *TILES)) == 0
    return folder


def test_a_stopped_run_goes_on_to_the_same_weights(
    sample: SampleData, tiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = 0

    def stop_in_time(folder: RunFolder) -> bool:
        """Called after every step."""
        nonlocal taken
        taken += 1
        if taken == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return False

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "state_is_due", stop_in_time)
        assert train.main(csv_run_flags(sample, tmp_path, *TILES)) == 128 + signal.SIGTERM
    flags = csv_run_flags(sample, tmp_path, *TILES, "--resume")
    assert train.main([*flags, "--workers", "1"]) == 0
    assert_same_run(tmp_path, tiled)


def test_other_tiles_are_refused(
    sample: SampleData, tiled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = csv_run_flags(sample, tiled, *TILES, "--resume")
    assert train.main([*flags, "--tile", "128"]) == 1
    assert "--tile is 128, was 240" in capsys.readouterr().err


def test_the_model_is_validated_and_used_as_it_was_trained(
    sample: SampleData, tiled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tiled / "model_final.pt")
    checkpoint = load_checkpoint(file)
    assert (checkpoint.tile, checkpoint.tile_overlap) == (240, 0.25)
    flags = [file, "--csv_val", str(sample.csv_val), "--workers", "0", "--output_dir"]
    assert validate.main([*flags, str(tmp_path / "own")]) == 0
    assert "tiles of 240 px, as in training; --tile 0 cuts none" in capsys.readouterr().out
    found = json.loads((tmp_path / "own" / "metrics.json").read_text())
    known = {name: checkpoint.metrics[name] for name in found if name in checkpoint.metrics}
    assert len(known) >= 12
    assert {name: found[name] for name in known} == known
    assert found["mAP_VOC"] == checkpoint.metrics["mAP"]

    assert validate.main([*flags, str(tmp_path / "whole"), "--tile", "0"]) == 0
    assert "tiles of" not in capsys.readouterr().out
    whole = json.loads((tmp_path / "whole" / "detections.json").read_text())
    assert whole != json.loads((tmp_path / "own" / "detections.json").read_text())

    detector = retinanet.load(file, "cpu")
    assert (detector.tile, detector.tile_overlap) == (240, 0.25)
    assert retinanet.load(file, "cpu", tile=0).tile == 0
