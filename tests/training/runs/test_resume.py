"""A run that was stopped, killed or broken goes on as if nothing had been."""

import os
import shutil
import signal
from pathlib import Path

import pytest

import train
from retinanet.cli.run_report import RunReport
from retinanet.data.shapes import SampleData
from retinanet.errors import DataError
from retinanet.evaluation import measure
from retinanet.report.report import report_title
from retinanet.runtime.folder_lock import lock_folder
from retinanet.training.records import read_records
from retinanet.training.run_folder import RunFolder
from retinanet.training.saved_state import SavedState
from retinanet.weights.checkpoint import load_checkpoint
from tests.support.runs import EPOCHS, STEPS, assert_same_run, flags, losses, scores

pytestmark = pytest.mark.usefixtures("narrow")


@pytest.mark.parametrize("steps", range(1, EPOCHS * STEPS + 1))
def test_stopped_after_any_step_and_resumed_ends_equal(
    sample: SampleData,
    whole: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    steps: int,
) -> None:
    taken = 0

    def stop_in_time(folder: RunFolder) -> bool:
        """Called after every step."""
        nonlocal taken
        taken += 1
        if taken == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return False

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "state_is_due", stop_in_time)
        assert train.main(flags(sample, tmp_path)) == 128 + signal.SIGTERM
    first = capsys.readouterr()
    assert "go on with the same command and --resume" in first.err
    # The number of workers may change.
    workers = ["--workers", "1"] if steps == 2 else []
    assert train.main(flags(sample, tmp_path, "--resume", *workers)) == 0
    second = capsys.readouterr()
    assert losses(first.out) + losses(second.out) == losses(whole[1])
    assert scores(first.out) + scores(second.out) == scores(whole[1])
    assert_same_run(tmp_path, whole[0])


def test_more_epochs_after_the_end_and_none_after_that(
    sample: SampleData, whole: tuple[Path, str], tmp_path: Path
) -> None:
    assert train.main(flags(sample, tmp_path, "--epochs", "1")) == 0
    for _ in range(2):  # the second time nothing is left to do
        assert train.main(flags(sample, tmp_path, "--resume")) == 0
        assert_same_run(tmp_path, whole[0])
        assert sorted(os.listdir(tmp_path)) == sorted(os.listdir(whole[0]))
        assert load_checkpoint(tmp_path / "model_final.pt").epoch == EPOCHS - 1


def test_a_run_killed_while_its_report_is_written_gets_one_when_resumed(
    sample: SampleData,
    whole: tuple[Path, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "report.html").unlink()  # it is written last
    for evaluations in (1, 0):  # the second time nothing is missing
        assert train.main(flags(sample, tmp_path, "--resume")) == 0
        said = capsys.readouterr().out
        assert said.count("Evaluating on") == said.count("Report: ") == evaluations
        assert report_title(tmp_path) == f"{tmp_path.name}: csv, epoch {EPOCHS - 1}"


def test_the_report_of_fewer_epochs_does_not_count(
    sample: SampleData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kill comes before anything of the old report is replaced."""
    assert train.main(flags(sample, tmp_path, "--epochs", "1")) == 0

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt  # not by a signal: what runs in the background may ignore SIGINT

    with monkeypatch.context() as patch:
        patch.setattr(RunReport, "finish", interrupted)
        assert train.main(flags(sample, tmp_path, "--resume")) == 128 + signal.SIGINT
    assert report_title(tmp_path).endswith(": csv, epoch 0")
    assert train.main(flags(sample, tmp_path, "--resume")) == 0
    assert report_title(tmp_path).endswith(": csv, epoch 1")


@pytest.mark.parametrize("lost", [1, 40])
def test_the_last_epochs_record_comes_back_if_it_was_cut(
    sample: SampleData, whole: tuple[Path, str], tmp_path: Path, lost: int
) -> None:
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(file.read_bytes()[:-lost])
    assert train.main(flags(sample, tmp_path, "--resume")) == 0
    assert file.read_bytes() == (whole[0] / "metrics.jsonl").read_bytes()


def test_a_second_run_in_the_folder_ends_at_once(
    sample: SampleData, whole: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in whole[0].iterdir() if path.is_file()}
    with lock_folder(whole[0]):
        for more in ([], ["--resume"], ["--overwrite"]):
            assert train.main(flags(sample, whole[0], *more)) == 1
            said = f"another run is at work there (process {os.getpid()} on "
            assert said in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before


def test_stopped_during_the_evaluation(
    sample: SampleData,
    whole: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(measure, "predict", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT))
        assert train.main(flags(sample, tmp_path)) == 128 + signal.SIGINT
    assert "--resume" in capsys.readouterr().err
    assert train.main(flags(sample, tmp_path, "--resume")) == 0
    assert scores(capsys.readouterr().out) == scores(whole[1])
    assert_same_run(tmp_path, whole[0])


def test_a_checkpoint_is_no_state(
    sample: SampleData, whole: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(whole[0] / "model_final.pt")
    assert train.main(flags(sample, tmp_path / "new", "--resume", model)) == 1
    assert "a model to start from goes to --weights" in capsys.readouterr().err
    state = str(whole[0] / "training_state.pt")
    assert train.main(flags(sample, tmp_path / "new", "--weights", state)) == 1
    assert "it is no model" in capsys.readouterr().err


def test_another_runs_state(sample: SampleData, whole: tuple[Path, str], tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert train.main(flags(sample, first, "--epochs", "1")) == 0
    before = sorted(os.listdir(first))
    state = str(first / "training_state.pt")
    assert train.main(flags(sample, second, "--resume", state)) == 0
    assert_same_run(second, whole[0], records_from=STEPS + 1)  # those of epoch 0 are the first's
    assert sorted(os.listdir(first)) == before


def test_a_schedule_goes_on_where_it_was(
    sample: SampleData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the warm-up, with momentum; another number of epochs is another schedule.

    Batch norm's running means come along: they too are among the weights. Pictures are distorted
    as in the run that did not stop, in loader processes too.
    """
    recipe = ["--optimizer", "sgd", "--schedule", "cosine", "--warmup", "3"]
    recipe += ["--batch_norm", "trained", "--augment", "strong"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train.main(flags(sample, whole, *recipe)) == 0
    with monkeypatch.context() as patch:
        stop = iter([False, True])
        patch.setattr(
            RunFolder,
            "state_is_due",
            lambda _: next(stop, False) and os.kill(os.getpid(), signal.SIGTERM),
        )
        assert train.main(flags(sample, parts, *recipe)) == 128 + signal.SIGTERM
    assert train.main(flags(sample, parts, *recipe, "--resume", "--epochs", "5")) == 1
    assert train.main(flags(sample, parts, *recipe, "--resume", "--workers", "1")) == 0
    assert_same_run(parts, whole)
    rates = [r["lr"] for r in read_records(whole / "metrics.jsonl") if r["kind"] == "step"]
    assert rates[:3] == sorted(rates[:3])
    assert rates[2:] == sorted(rates[2:], reverse=True)


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--lr", "0.5"], "--lr is 0.5, was 0.001"),
        (["--seed", "7"], "--seed is 7, was 0"),
        (["--matching", "atss"], "--matching is atss, was iou"),
        (["--batch_size", "1"], "--batch_size (of all processes) is 1, was 2"),
        (["--depth", "34"], "--depth is 34, was 18"),
        (["--augment", "mild"], "--augment is mild, was none"),
        (["--csv_train", "VAL"], "the training data's checksum is"),
    ],
)
def test_other_settings_are_refused_by_name(
    sample: SampleData,
    whole: tuple[Path, str],
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    complaint: str,
) -> None:
    more = [str(sample.csv_val) if word == "VAL" else word for word in more]
    assert train.main(flags(sample, whole[0], "--resume", *more)) == 1
    assert complaint in capsys.readouterr().err


def test_a_state_of_version_1_is_one_of_the_originals_settings() -> None:
    old = SavedState(Path("training_state.pt"), {"settings": {"--lr": 0.1}})
    old.check({"--lr": 0.1, "--matching": "iou", "--augment": "none"})
    with pytest.raises(DataError, match="--augment is mild, was none"):
        old.check({"--augment": "mild"})


def test_nothing_to_resume_is_an_error(
    sample: SampleData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(flags(sample, tmp_path / "new", "--resume")) == 1
    assert "there is no state to resume from" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
