"""Lines, live lines, records and curves of a run."""

import contextlib
import fcntl
import json
import os
import pty
import struct
import sys
import termios
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from retinanet.errors import DataError
from retinanet.runtime.console import say
from retinanet.training import run_log as logger
from retinanet.training.records import METRICS_FILE, read_records
from retinanet.training.run_clock import Course, RunClock
from retinanet.training.run_log import Pace, RunLog
from tests.support.processes import Forked

NUMBERS = {"lr": 1e-5, "classification": 0.25, "regression": 0.5, "running": 0.75, "norm": 2.0}


def steps_of(folder: Path) -> list[tuple[int, int | None]]:
    """Epoch and iteration of each record."""
    return [(r["epoch"], r.get("iteration")) for r in read_records(folder / METRICS_FILE)]


def test_pace_counts_from_the_first_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three batches come at 5, 8 and 12 s; each of the first two takes 1 s to train on."""
    clock = iter([5.0, 6.0, 8.0, 9.0, 12.0])
    now = 0.0

    def perf_counter() -> float:
        nonlocal now
        now = next(clock, now)
        return now

    monkeypatch.setattr(logger.time, "perf_counter", perf_counter)
    pace = Pace()
    for _ in zip(range(3), pace.timed("abc"), strict=True):
        pace.steps += 1
        pace.images += 2
    assert pace.seconds == 12 - 5
    assert pace.waiting == pytest.approx(((8 - 6) + (12 - 9)) / 7)  # not the 5 s before the first
    assert pace.images_per_second == pytest.approx(6 / 7)


def test_records_are_json_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = RunLog(tmp_path, log_every=2)
    log.open(0, 0)
    for step in range(4):
        log.add_step(0, step, **(NUMBERS | {"norm": float("inf")}))
    log.add_epoch(0, 0.75, {"AP": 0.5, "AP_small": -1.0}, {"ring": 0.5}, {"ring": (0.4, 0.6)})
    assert steps_of(tmp_path) == [(0, 0), (0, 2), (0, None)]
    step, _, epoch = read_records(tmp_path / METRICS_FILE)
    assert step["classification_loss"] == 0.25
    assert step["gradient_norm"] is None  # JSON knows no infinity
    assert epoch["metrics"] == {"AP": 0.5, "AP_small": -1.0}
    assert epoch["AP_per_class"] == {"ring": 0.5}
    assert epoch["AP_interval_per_class"] == {"ring": [0.4, 0.6]}
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[1] for line in lines[:2]] == ["Iteration: 0", "Iteration: 2"]
    assert lines[2].startswith("Epoch 0: mean loss 0.75000, ")


def test_resumed_run_drops_what_it_will_do_again(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.open(0, 0)
    for epoch in range(2):
        for step in range(2):
            log.add_step(epoch, step, **NUMBERS)
        log.add_epoch(epoch, 0.75, {}, {})
    with (tmp_path / METRICS_FILE).open("a") as stream:
        stream.write('{"kind": "step", "ep')  # a kill in the middle of a line
    RunLog(tmp_path).open(1, 1)
    assert steps_of(tmp_path) == [(0, 0), (0, 1), (0, None), (1, 0)]
    assert all(json.loads(line) for line in (tmp_path / METRICS_FILE).read_text().splitlines())


@pytest.mark.parametrize(("waiting", "hint"), [(0.5, True), (0.1, False)])
def test_hint_when_images_come_too_slowly(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, waiting: float, hint: bool
) -> None:
    monkeypatch.setattr(Pace, "waiting", waiting)
    log = RunLog()
    log.pace.steps = 20
    log.add_epoch(0, 0.75, {}, {})
    assert ("--workers" in capsys.readouterr().out) == hint


def test_other_ranks_write_and_say_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    log = RunLog(tmp_path)
    log.open(0, 0)
    log.add_step(0, 0, **NUMBERS)
    log.add_epoch(0, 0.75, {}, {})
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_missing_tensorboard_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(DataError, match="pip install tensorboard"):
        RunLog(tmp_path, tensorboard=True)


def test_tensorboard_gets_curves_and_forgets_steps_done_again(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for first in (0, 2):  # the second run goes on from step 2
        log = RunLog(tmp_path, tensorboard=True, clock=RunClock(Course(4)))
        log.open(0, first)
        for step in range(first, 4):
            log.add_step(0, step, **NUMBERS)
        log.add_epoch(0, 0.75, {"AP": 0.5}, {"ring": 0.25}, {"ring": (0.125, 0.5)})
        log.add_picture(0, "sheet", np.full((4, 6, 3), 200, np.uint8))
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/lr")] == [0, 1, 2, 3]
    assert [(e.step, e.value) for e in events.Scalars("validation/AP")] == [(4, 0.5)]
    (image, *_) = events.Images("sheet")
    assert (image.width, image.height) == (6, 4)
    for name, value in (("ring", 0.25), ("ring_low", 0.125), ("ring_high", 0.5)):
        assert [e.value for e in events.Scalars(f"AP of a class/{name}")] == [value]


def three_steps(_: Sequence[str] = ()) -> int:
    log = RunLog(clock=RunClock(Course(3, epochs=2)))
    log.open(0, 0)
    for step, _ in enumerate(log.watch(range(3), 0, 0)):
        log.end_step(0, step, 4)
        log.add_step(0, step, **NUMBERS)
    say("done")
    return 0


@pytest.mark.parametrize(
    ("columns", "parts"),
    [
        (150, "epoch 1/2|100%|3/3|ETA: 0:00:0|loss 0.750|img/s|waiting: |lr: 1e-05|GB]"),
        (80, "epoch 1/2|100%|3/3|ETA: 0:00:0|loss 0.750"),  # what is wanted most is not cut off
    ],
)
def test_a_terminal_shows_one_live_line_an_epoch(columns: int, parts: str) -> None:
    child, terminal = pty.fork()
    if child == 0:
        sys.stdout, sys.stderr = open(1, "w"), open(2, "w")
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))  # rows, columns
        three_steps()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    with contextlib.suppress(OSError):  # as a terminal's end is told
        shown = b""
        while part := os.read(terminal, 1 << 16):
            shown += part
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(terminal)
    assert b"Iteration" not in shown
    drawn, done = shown.decode().replace("\r\n", "\n").strip().rsplit("\n", 1)
    assert done == "done"
    assert drawn.count("\n") <= 1
    last = drawn.split("\r")[-1]
    for part in parts.split("|"):
        assert part in last


def test_a_pipe_gets_the_lines_of_losses() -> None:
    code, said, errors = Forked(three_steps, []).end()
    assert code == 0
    assert said.count("Epoch: 0 | Iteration: ") == 3
    assert errors == ""
