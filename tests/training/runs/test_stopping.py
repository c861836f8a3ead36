"""Signals and kills at any moment of a run, and what they leave."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import train
from retinanet.data.shapes import SampleData
from retinanet.runtime.signals import StoppedError, StopRequest
from tests.support.narrow import narrow_network
from tests.support.paths import ROOT
from tests.support.processes import READY, Forked, waiting_for_signals
from tests.support.runs import assert_same_run, flags

pytestmark = pytest.mark.usefixtures("narrow")


def kill_twice(process: int, number: int) -> None:
    """As `timeout` does: to all processes, and to the one that it started."""
    os.killpg(process, number)
    time.sleep(0.05)
    os.kill(process, number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("send", [os.kill, os.killpg, kill_twice])
def test_signal_to_a_process(
    sample: SampleData,
    whole: tuple[Path, str],
    tmp_path: Path,
    number: signal.Signals,
    send: Callable[[int, int], None],
) -> None:
    main = waiting_for_signals(train.main, steps=2, signals=1 + (send is kill_twice))
    process = Forked(main, flags(sample, tmp_path, "--workers", "1", "--epochs", "1000"))
    process.read_until(READY)
    send(process.pid, number)
    code, _, errors = process.end()
    assert code == 128 + number
    assert errors.count("\n") == 1
    assert "--resume" in errors
    assert train.main(flags(sample, tmp_path, "--resume")) == 0
    assert_same_run(tmp_path, whole[0])


@pytest.mark.slow
def test_interrupt_to_a_real_process(sample: SampleData, tmp_path: Path) -> None:
    """Ctrl-C: to the process and its loader's worker, wherever they are."""
    more = ["--workers", "1", "--epochs", "1000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.narrow", "train.py", *flags(sample, tmp_path, *more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    assert process.stdout
    assert any(line.startswith("Epoch: 0 | Iteration: 1") for line in process.stdout)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert errors.count("\n") == 1
    assert "--resume" in errors
    assert (tmp_path / "training_state.pt").exists()


def test_a_signal_that_is_held_back_stops_at_the_end() -> None:
    """As a loader's start is: half started, it would complain when the process ends."""
    done = []

    def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("all of it")

    with StopRequest("") as stop, pytest.raises(StoppedError), stop.at_once(), StopRequest.held():
        work()
    assert done == ["all of it"]


@pytest.mark.parametrize(
    ("pause", "end"),
    [
        (0.0, (0, "goes on\n")),  # the same request, sent twice
        (1.5, (-signal.SIGTERM, "")),  # somebody is in a hurry
    ],
)
def test_a_later_signal_ends_at_once(pause: float, end: tuple[int, str]) -> None:
    def stopped_twice(_: Sequence[str]) -> int:
        with StopRequest(""):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(pause)
            os.kill(os.getpid(), signal.SIGTERM)
            sys.stdout.write("goes on\n")
        return 0

    assert Forked(stopped_twice, []).end()[:2] == end


def test_an_error_nobody_expected_ends_the_loaders_workers_too() -> None:
    """The traceback holds the loader until the interpreter ends: it has to end its workers."""
    lines = [
        "import torch",
        "from retinanet.inference.prediction import SampleLoader",
        "def main():",
        "    data = [{'img': torch.zeros(1)}] * 100",
        "    samples = iter(SampleLoader(data, workers=2, pin_memory=False))",
        "    next(samples)",
        "    raise LookupError('as no code expects it')",
        "main()",
    ]
    command = [sys.executable, "-c", "\n".join(lines)]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 1
    assert "LookupError" in result.stderr


def going_on(folder: Path) -> list[str]:
    """Flags with which a killed run goes on, or begins again if it has no state yet."""
    return ["--resume"] if (folder / "training_state.pt").exists() else ["--overwrite"]


def kill_until_done(
    sample: SampleData, folder: Path, kills: int, seconds: float, seed: int = 0
) -> int:
    """Start the run again and again, killing it at random moments of its work.

    Args:
        sample: what it trains on.
        folder: its own.
        kills: at most so many.
        seconds: that it is left alone at most, once its loop is about to begin.
        seed: of the moments.

    Returns:
        How many kills it took until it ended or they were used up.
    """
    pause = random.Random(seed)
    for done in range(kills):
        often = ["--save_every_minutes", "0.0001"]
        process = Forked(train.main, flags(sample, folder, *often, *going_on(folder)))
        process.read_until("Training a ResNet")
        process.process.join(pause.uniform(0, seconds))
        process.process.kill()
        code, _, errors = process.end()
        if code != -signal.SIGKILL:
            assert code == 0, errors
            return done
    return kills


def resume_and_compare(sample: SampleData, folder: Path, whole: Path) -> None:
    assert train.main(flags(sample, folder, *going_on(folder))) == 0
    assert_same_run(folder, whole)


def test_kill_9_and_resume(sample: SampleData, whole: tuple[Path, str], tmp_path: Path) -> None:
    assert kill_until_done(sample, tmp_path, kills=4, seconds=0.4) > 0
    resume_and_compare(sample, tmp_path, whole[0])


@pytest.mark.slow
def test_fifty_kills(sample: SampleData, tmp_path: Path) -> None:
    """Of a network of full width, whose files take their time."""
    kills, runs = 0, 0
    with narrow_network(divisor=1):
        assert train.main(flags(sample, tmp_path / "whole")) == 0
        while kills < 50:  # a run that ends before its share of kills makes room for another
            folder = tmp_path / str(runs)
            kills += kill_until_done(sample, folder, kills=50 - kills, seconds=5, seed=runs)
            resume_and_compare(sample, folder, tmp_path / "whole")
            runs += 1
