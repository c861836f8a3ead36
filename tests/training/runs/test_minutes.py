"""Trainings that keep to a time, by `train.py`, and flags that contradict it."""

import math
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import train
from retinanet.cli import run_parts
from retinanet.data.shapes import SampleData
from retinanet.training.records import read_records
from retinanet.training.run_clock import Course, RunClock
from retinanet.training.run_folder import RunFolder
from retinanet.training.trainer import Training
from retinanet.weights.checkpoint import load_checkpoint
from tests.support.helpers import csv_run_flags
from tests.support.processes import peers
from tests.support.runs import assert_same_run, losses

CSV = ["--dataset", "csv", "--csv_train", "a.csv", "--csv_classes", "c.csv"]


def flags(sample: SampleData, folder: Path, minutes: float, *more: str) -> list[str]:
    return csv_run_flags(
        sample, folder, "--minutes", f"{minutes:g}", "--lr", "1e-3", "--eval_every", "9", *more
    )


def let_steps_take(seconds: float, patch: pytest.MonkeyPatch) -> None:
    """Time stands still but in a step; a run begins at 0."""
    now = 0.0
    step = Training.train_step

    def ticking(*args: Any) -> Any:
        nonlocal now
        now += seconds
        return step(*args)

    def clock(course: Course, started: float) -> RunClock:
        return RunClock(course, clock=lambda: now)

    patch.setattr(Training, "train_step", ticking)
    patch.setattr(run_parts, "RunClock", clock)


@pytest.fixture
def steps_of_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    let_steps_take(1.0, monkeypatch)


@pytest.mark.usefixtures("narrow", "steps_of_a_second")
def test_stopped_and_resumed_it_ends_equal_and_in_time(
    sample: SampleData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """15 s, less 2 %, and 3.25 s for evaluation, state and report, hold 11 steps, 3 an epoch.

    (Nothing of that was measured yet; here it takes no time.)
    """
    whole, folder = tmp_path / "whole", tmp_path / "run"
    assert train.main(flags(sample, whole, 0.25)) == 0
    said = capsys.readouterr().out
    assert len(losses(said)) == 11
    assert "--minutes 0.25: there is time for about 3.8 epochs" in said
    assert load_checkpoint(whole / "model_final.pt").epoch == 3

    left = 7

    def stop_in_time(_: RunFolder) -> bool:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return False

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "state_is_due", stop_in_time)
        assert train.main(flags(sample, folder, 0.25)) == 128 + signal.SIGTERM
    assert train.main(flags(sample, folder, 0.25, "--resume")) == 0
    assert_same_run(folder, whole)
    rates = [r["lr"] for r in read_records(folder / "metrics.jsonl") if r["kind"] == "step"]
    assert rates[0] == max(rates[:2])
    # After five steps to get going the rest is cut into six parts; five are behind.
    assert rates[-1] == pytest.approx(1e-3 * (1 + math.cos(math.pi * 5 / 6)) / 2)

    # It has had its time: nothing is left to do.
    assert train.main(flags(sample, folder, 0.25, "--resume")) == 0
    assert_same_run(folder, whole)
    assert train.main(flags(sample, folder, 0.5, "--resume")) == 1
    assert "--minutes is 0.5, was 0.25" in capsys.readouterr().err


def with_a_clock_of_its_own(given: Sequence[str]) -> int:
    """A training, in a fork, by whose clock a step takes 1 s, or 4 in the second process."""
    with pytest.MonkeyPatch.context() as patch:
        let_steps_take(4.0 if os.environ["RANK"] == "1" else 1.0, patch)
        return train.main(given)


@pytest.mark.usefixtures("narrow")
def test_of_several_processes_the_first_one_decides(sample: SampleData, tmp_path: Path) -> None:
    """12 steps by its clock, 2 an epoch; if each went by its own they would wait for ever."""
    processes = peers(2, with_a_clock_of_its_own, flags(sample, tmp_path, 0.25))
    ends = [process.end() for process in processes]
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert len(losses(ends[0][1])) == 12
    assert load_checkpoint(tmp_path / "model_final.pt").epoch == 5


@pytest.mark.slow
@pytest.mark.usefixtures("narrow")
def test_a_run_of_half_a_minute_ends_in_time(
    sample: SampleData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real steps, evaluations and reports, by the CPU's seconds: other processes do not count."""
    monkeypatch.setattr(
        run_parts, "RunClock", lambda course, _: RunClock(course, clock=time.process_time)
    )
    begin = time.process_time()
    assert train.main(flags(sample, tmp_path, 0.5, "--eval_every", "20")) == 0
    assert time.process_time() - begin == pytest.approx(30, rel=0.1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--epochs", "12"], "leave out --epochs 12 (of a recipe: give its other flags)"),
        (["--patience", "3"], "leave out --patience 3"),
        (["--schedule", "plateau"], "give --schedule cosine or step, not plateau"),
        (["--minutes", "0"], "'0' is not a number above 0"),
    ],
)
def test_flags_that_contradict_a_time(
    given: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for data in (CSV, ["--dataset", "shapes"], ["--data", "folder"]):
        with pytest.raises(SystemExit) as end:
            train.parse([*data, "--minutes", "10", *given])
        assert end.value.code == 2
        assert message in capsys.readouterr().err


def test_a_time_takes_the_place_of_the_epochs_and_of_plateau() -> None:
    args = train.parse([*CSV, "--minutes", "10"])
    assert (args.epochs, args.schedule, args.lr) == (None, "cosine", 1e-5)
    sample = train.parse(["--dataset", "shapes", "--minutes", "10"])
    assert (sample.epochs, sample.schedule, sample.warmup) == (None, "cosine", 100)
    assert train.parse([*CSV, "--minutes", "10", "--schedule", "step"]).schedule == "step"
