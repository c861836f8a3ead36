"""The folder of a run: refusing, claiming, keeping, and the state."""

import os
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from retinanet.errors import DataError
from retinanet.model import ModelConfig, resnet18
from retinanet.training.run_folder import RunFolder
from retinanet.training.saved_state import read_state
from retinanet.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

pytestmark = pytest.mark.usefixtures("narrow")

CHECKPOINT = Checkpoint(ModelConfig(1, depth=18), {"w": torch.ones(1)}, epoch=0)


def run_folder(folder: Path, keep: int | None = None, minutes: float = 10) -> RunFolder:
    return RunFolder(folder, "csv", keep=keep, save_every_minutes=minutes)


def test_old_run_is_refused_or_removed(tmp_path: Path) -> None:
    ours = ["coco_retinanet_3.pt", "csv_retinanet_best.pt", "model_final.pt", "training_state.pt"]
    others = ["csv_retinanet_backup.pt", "mine.pt", "mine.pt.tmp", "notes.txt"]
    for name in ours:
        save_checkpoint(tmp_path / name, CHECKPOINT)
    for name in others:
        (tmp_path / name).touch()
    folder = run_folder(tmp_path)
    with pytest.raises(DataError, match=r"coco_retinanet_3\.pt.*--resume.*--output_dir.*--overwr"):
        folder.open(None, overwrite=False)
    assert sorted(os.listdir(tmp_path)) == sorted([*ours, *others])
    folder.open(None, overwrite=True)
    folder.claim({}, epochs=1, weights_size=1)
    assert sorted(os.listdir(tmp_path)) == others


def test_only_the_main_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")  # as torchrun names the second one
    other = run_folder(tmp_path / "x", minutes=1e-9)
    other.claim({}, epochs=1, weights_size=1)
    other.save_epoch(CHECKPOINT)
    other.save_state({}, CHECKPOINT)
    assert not other.state_is_due()
    assert not (tmp_path / "x").exists()


def test_keep_bounds_the_epoch_files_and_the_best_stays(tmp_path: Path) -> None:
    model = resnet18(num_classes=1)
    folder = run_folder(tmp_path, keep=2)
    for epoch, score in enumerate([0.1, 0.5, 0.3, 0.5, 0.2]):
        checkpoint = Checkpoint(model.config, model.state_dict(), epoch=epoch)
        folder.save_epoch(checkpoint)
        folder.save_if_best(checkpoint, score)
    save_checkpoint(
        tmp_path / "csv_retinanet_0.pt", CHECKPOINT
    )  # as an earlier part of the run left it
    folder.save_epoch(Checkpoint(model.config, model.state_dict(), epoch=4))
    kept = ["csv_retinanet_3.pt", "csv_retinanet_4.pt", "csv_retinanet_best.pt"]
    assert sorted(os.listdir(tmp_path)) == kept
    assert load_checkpoint(tmp_path / "csv_retinanet_best.pt").epoch == 1  # the first of equals


@pytest.mark.parametrize("links", [True, False])
def test_the_best_and_the_last_are_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def no_links(source: Path, path: Path) -> None:
        raise OSError("Operation not permitted")

    if not links:  # as on a FAT
        monkeypatch.setattr(os, "link", no_links)
    folder = run_folder(tmp_path, keep=1)
    first, second = CHECKPOINT, replace(CHECKPOINT, epoch=1)
    folder.save_epoch(first)
    folder.save_if_best(first, 0.5)
    assert os.path.samefile(tmp_path / "csv_retinanet_0.pt", folder.best_file) == links
    folder.save_epoch(second)  # which removes the first one's own name
    folder.save_final(second)
    assert load_epochs(tmp_path) == {
        "csv_retinanet_1.pt": 1,
        "csv_retinanet_best.pt": 0,
        "model_final.pt": 1,
    }
    # A resumed run writes the epoch anew, and leaves the best one as it was.
    run_folder(tmp_path).save_epoch(replace(second, metrics={"AP": 0.5}))
    assert "AP" not in torch.load(tmp_path / "model_final.pt", weights_only=True)["metrics"]


def test_a_run_that_has_nothing_left_to_do_writes_its_last_file(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    folder.save_epoch(CHECKPOINT)
    (tmp_path / "csv_retinanet_0.pt").unlink()
    folder.save_final(CHECKPOINT)  # the epoch's file is gone
    run_folder(tmp_path).save_if_best(CHECKPOINT, 0.5)  # nothing was written by this process
    assert load_epochs(tmp_path) == {"csv_retinanet_best.pt": 0, "model_final.pt": 0}


def load_epochs(folder: Path) -> dict[str, int]:
    """The epoch that each file is of."""
    files = sorted(folder.glob("*.pt"))
    return {file.name: torch.load(file, weights_only=True)["epoch"] for file in files}


def test_state_comes_back_with_the_same_settings_only(tmp_path: Path) -> None:
    settings = {"--lr": 1e-4, "--depth": 18}
    checkpoint = replace(CHECKPOINT, metrics={"AP": 0.5})
    folder = run_folder(tmp_path)
    folder.claim(settings, epochs=1, weights_size=1)
    folder.save_state({"weights": {"w": torch.ones(2)}}, checkpoint)
    state = run_folder(tmp_path).open(True, overwrite=False)
    assert state is not None
    assert state.content["weights"]["w"].tolist() == [1, 1]
    assert state.content["metrics"] == {"AP": 0.5}
    assert ModelConfig(**state.content["network"]) == checkpoint.config
    state.check(settings)
    with pytest.raises(DataError, match=r"--lr is 1e-05, was 0\.0001; --depth is 50, was 18"):
        state.check({"--lr": 1e-5, "--depth": 50})


def test_the_best_score_counts_while_its_file_is_there(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    folder.save_if_best(CHECKPOINT, 0.25)
    folder.save_state({}, CHECKPOINT)
    again = run_folder(tmp_path)
    again.open(True, overwrite=False)
    assert again.best == 0.25
    again.best_file.unlink()
    again = run_folder(tmp_path)
    again.open(True, overwrite=False)
    assert again.best == float("-inf")  # there is no best file that would be worse than 0.25


def test_another_folders_state_does_not_bring_this_ones_best_score(tmp_path: Path) -> None:
    """The old run's best file goes; a worse one than it must be written none the less."""
    first, second = run_folder(tmp_path / "first"), run_folder(tmp_path / "second")
    for folder in (first, second):
        folder.save_if_best(CHECKPOINT, 0.5)
        folder.save_state({}, CHECKPOINT)
    resumed = run_folder(tmp_path / "second")
    resumed.open(str(first.state_file), overwrite=True)
    resumed.claim({}, epochs=1, weights_size=1)
    assert not resumed.best_file.exists()
    resumed.save_if_best(CHECKPOINT, 0.25)
    assert resumed.best_file.exists()


STATE = {"version": 3, "settings": {}, "metrics": {}, "best": 0.5, "since_best": 0}


def without(content: dict[str, object], name: str) -> dict[str, object]:
    return {key: value for key, value in content.items() if key != name}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "there is no state to resume from"),
        ({"version": 77, "settings": {}}, "a state of version 77"),
        ({"version": 1, "config": {}}, "no state of a run; expected a training_state.pt"),
        ([], "no state of a run; expected a training_state.pt"),
        ({**STATE, "best": "high"}, r"a damaged state \(best is 'high'\)"),
        *((without(STATE, name), f"({name} is missing)") for name in ("metrics", "best")),
    ],
)
def test_what_is_no_state_is_refused(tmp_path: Path, content: object, complaint: str) -> None:
    file = tmp_path / "training_state.pt"
    if content is not None:
        torch.save(content, file)
    with pytest.raises(DataError, match=complaint):
        read_state(file)


@pytest.mark.parametrize(("minutes", "due"), [(1e-9, True), (10, False)])
def test_a_state_is_due_when_the_time_is_up(tmp_path: Path, minutes: float, due: bool) -> None:
    folder = run_folder(tmp_path, minutes=minutes)
    assert folder.state_is_due() == due  # from the start on
    folder.save_state({}, CHECKPOINT)
    assert folder.state_is_due() == due


@pytest.mark.parametrize(("restarts", "begins"), [("0", False), ("1", True)])
def test_a_restart_by_torchrun_before_the_first_state_begins_its_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restarts: str, begins: bool
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "mine")
    run_folder(tmp_path).save_config({"lr": 1e-5}, {})
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restarts)
    if begins:
        assert run_folder(tmp_path).open(None, overwrite=False) is None
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another's")
    with pytest.raises(DataError, match="holds another run's files"):
        run_folder(tmp_path).open(None, overwrite=False)


def test_a_disk_that_will_not_do_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(0, 0, 10_000_000_000))
    # 100 epochs, best and final are 102 files, the state takes 6 more: 108 x 0.1 GB = 10.8 GB.
    run_folder(tmp_path).claim({}, epochs=100, weights_size=100_000_000)
    assert "will take about 10.8 GB" in capsys.readouterr().out
    run_folder(tmp_path, keep=3).claim({}, epochs=100, weights_size=100_000_000)
    assert capsys.readouterr().out == ""


def test_common_names_are_a_runs_only_when_they_look_it(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    config, metrics = tmp_path / "config.json", tmp_path / "metrics.jsonl"
    folder.save_config({"lr": 1e-5}, {})
    metrics.touch()  # a run that was stopped before its first step
    folder.open(None, overwrite=True)
    folder.claim({}, epochs=1, weights_size=1)
    assert not config.exists()
    assert not metrics.exists()
    config.write_text('{"mine": true}')
    with pytest.raises(DataError, match=r"config\.json: was not written by this program"):
        folder.open(None, overwrite=True)
    assert config.read_text() == '{"mine": true}'


def test_patience_counts_evaluations_without_a_better_score(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    stands = []
    for score in (0.1, 0.3, 0.2, 0.3, 0.4):  # 0.3 once more is not better
        folder.save_if_best(CHECKPOINT, score)
        stands.append(folder.stands_still(2))
    assert stands == [False, False, False, True, False]
    assert not folder.stands_still(None)
    folder.save_if_best(CHECKPOINT, 0.0)
    folder.save_state({}, CHECKPOINT)
    resumed = run_folder(tmp_path)
    resumed.open(True, overwrite=False)
    assert resumed.stands_still(1)
