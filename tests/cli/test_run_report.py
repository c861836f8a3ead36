"""The report of a run that goes on: when it is written, and what it says."""

import argparse
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

import train
from retinanet.cli import run_report
from retinanet.cli.run_report import SHARE, RunReport
from retinanet.data.shapes import write_shapes
from retinanet.errors import DataError
from retinanet.evaluation.measure import Evaluation
from retinanet.model import ModelConfig
from retinanet.runtime.signals import StoppedError
from retinanet.training.run_clock import Course, RunClock
from retinanet.training.run_folder import RunFolder
from retinanet.weights.checkpoint import Checkpoint
from tests.support.helpers import csv_run_flags

EVALUATION = cast(Evaluation, object())  # only handed on


class Clock:
    """Seconds, which pass when they are told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(run_report.time, "monotonic", self.read)

    def read(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> list[dict[str, Any]]:
    """What each report is written with; to write one takes 6 seconds."""
    found: list[dict[str, Any]] = []

    def write(folder: Path, evaluation: object, **content: Any) -> None:
        clock.now += 6
        found.append(content)

    monkeypatch.setattr(run_report, "write_report", write)
    monkeypatch.setattr(run_report, "learning_settings", lambda args: {})
    return found


def report(tmp_path: Path, clock: Clock, *, minutes: float | None = None) -> tuple[RunReport, Any]:
    """Of a run of 10 epochs of 4 steps, or of so many minutes."""
    epochs = None if minutes else 10
    args = argparse.Namespace(dataset="csv", epochs=epochs, weights="none", batch_size=2)
    training = SimpleNamespace(
        epoch=0,
        checkpoint=Checkpoint(ModelConfig(1), {"w": torch.ones(1)}, epoch=0),
        runtime=SimpleNamespace(precision="fp32"),
        clock=RunClock(Course(4, epochs, minutes), clock=clock.read),
    )
    folder = SimpleNamespace(path=tmp_path / "run")
    return RunReport(args, cast(Any, folder), cast(Any, training), cast(Any, [0] * 8)), training


def train_an_epoch(training: Any, clock: Clock) -> None:
    """Four steps of 50 s."""
    for step in range(4):
        assert training.clock.begin_step(training.epoch, step)
        clock.now += 50
        training.clock.end_step()
    training.clock.end_epoch(training.epoch)
    training.epoch += 1


def test_it_says_how_far_the_run_is_and_how_long_is_left(
    tmp_path: Path, clock: Clock, written: list[dict[str, Any]]
) -> None:
    """Four epochs of 200 s; left are six, a report (2 s before one was measured), a state (1)."""
    renewing, training = report(tmp_path, clock)
    for _ in range(4):
        train_an_epoch(training, clock)
    renewing.renew(EVALUATION)
    assert written[0]["title"] == "run, 4 of 10 epochs"
    assert "Training: 4 of 10 epochs on 20" in written[0]["progress"]
    assert "about 0:20:03 left" in written[0]["progress"]


def test_a_run_of_so_many_minutes_has_no_number_of_epochs(
    tmp_path: Path, clock: Clock, written: list[dict[str, Any]]
) -> None:
    """60 minutes, less 2 % and the 400 s of two epochs."""
    renewing, training = report(tmp_path, clock, minutes=60)
    train_an_epoch(training, clock)
    train_an_epoch(training, clock)
    renewing.renew(EVALUATION)
    assert written[0]["title"] == "run, 2 epochs"
    assert "about 0:52:08 left" in written[0]["progress"]


def test_a_run_resumed_at_an_epochs_end_knows_no_pace_yet(
    tmp_path: Path, clock: Clock, written: list[dict[str, Any]]
) -> None:
    """Stopped while it was evaluated: no step of the epoch is taken again."""
    renewing, training = report(tmp_path, clock)
    clock.now += 10
    training.epoch = 3
    renewing.renew(EVALUATION)
    assert "3 of 10 epochs on 20" in written[0]["progress"]
    assert "left" not in written[0]["progress"]


def test_reports_take_their_share_of_the_time_and_no_more(
    tmp_path: Path, clock: Clock, written: list[dict[str, Any]]
) -> None:
    """Epochs of 50 s and reports of 6: the first one, then one in eight epochs, 12 s of 412."""
    renewing, training = report(tmp_path, clock)
    made = []
    for epoch in range(1, 10):
        clock.now += 50
        training.epoch = epoch
        before = len(written)
        renewing.renew(EVALUATION)
        made.append(len(written) > before)
    # A second report would make it 12 s of 362 after epoch 7, 3.3 %, and of 412 after epoch 8.
    assert made == [True, *[False] * 6, True, False]
    assert 12 / 412 <= SHARE < 12 / 362


@pytest.mark.parametrize("error", [StoppedError(signal.SIGINT, ""), DataError("a disk is full")])
def test_a_run_that_is_asked_to_stop_leaves_the_report_of_its_last_evaluation(
    tmp_path: Path, clock: Clock, written: list[dict[str, Any]], error: Exception
) -> None:
    """That of the second epoch was left out: two of 6 s in 106 are too many."""
    renewing, training = report(tmp_path, clock)
    for epoch in (1, 2):
        clock.now += 50
        training.epoch = epoch
        renewing.renew(EVALUATION)
    assert [content["title"] for content in written] == ["run, 1 of 10 epochs"]
    with pytest.raises(type(error)), renewing.stopped_early():
        raise error
    titles = [content["title"] for content in written[1:]]
    assert titles == (["run, 2 of 10 epochs"] if isinstance(error, StoppedError) else [])
    with pytest.raises(type(error)), renewing.stopped_early():
        raise error
    assert written[1 + len(titles) :] == []  # the last one has its report


def test_an_epoch_without_evaluation_writes_none(
    tmp_path: Path, clock: Clock, written: list[dict[str, Any]]
) -> None:
    renewing, _ = report(tmp_path, clock)
    renewing.renew(None)
    assert written == []


def test_a_report_that_cannot_be_written_ends_no_run(
    tmp_path: Path,
    clock: Clock,
    written: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DataError("report.html: could not be written (No space left on device)")

    monkeypatch.setattr(run_report, "write_report", fail)
    renewing, training = report(tmp_path, clock)
    clock.now += 50
    training.epoch = 1
    renewing.renew(EVALUATION)
    assert "Warning: no report: report.html: could not be written" in capsys.readouterr().out


@pytest.mark.usefixtures("narrow")
def test_a_stopped_run_has_the_report_of_its_last_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in its second epoch; resumed, it ends with a page that no longer loads itself."""
    sample = write_shapes(tmp_path / "shapes", train_images=2, val_images=2, seed=3)
    flags = csv_run_flags(sample, tmp_path / "run", "--epochs", "2", "--batch_size", "1")
    page = tmp_path / "run" / "report.html"
    steps = iter(range(4))

    def stop_in_the_second_epoch(_: RunFolder) -> bool:
        if next(steps) == 2:
            assert "<title>run, 1 of 2 epochs</title>" in page.read_text()
            assert '<meta http-equiv="refresh" content="60">' in page.read_text()
            os.kill(os.getpid(), signal.SIGTERM)
        return False

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "state_is_due", stop_in_the_second_epoch)
        assert train.main(flags) == 128 + signal.SIGTERM
    assert 'http-equiv="refresh"' not in page.read_text()  # the run no longer goes on
    assert run_report.STOPPED in page.read_text()
    assert train.main([*flags, "--resume"]) == 0
    assert "<title>run: csv, epoch 1</title>" in page.read_text()
    assert 'http-equiv="refresh"' not in page.read_text()
