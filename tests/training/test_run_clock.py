"""A run's time: what is said of it in advance, and runs that keep to a time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from retinanet.errors import DataError
from retinanet.training.optim import MOST_WARMUP, OptimConfig
from retinanet.training.run_clock import EVALUATED, SECONDS, Course, RunClock, duration


@dataclass
class Machine:
    """A run on a machine where every part takes known seconds, and its clock."""

    course: Course
    step: Callable[[int], float]
    """Seconds of a step of the whole run."""
    evaluation: float = 0.0
    report: float = 4.0
    now: float = 1000.0
    done: list[float] = field(default_factory=list)
    """Share of the schedule behind, at every step."""
    evaluated: list[int] = field(default_factory=list)
    epoch: int = 0
    of_epoch: int = 0

    def __post_init__(self) -> None:
        self.clock = RunClock(self.course, clock=lambda: self.now)

    def run(self, steps: int | None = None) -> None:
        """Train as train.py does: to the end, or so many steps."""
        while self.clock.goes_on(self.epoch, self.of_epoch):
            while self.of_epoch < self.course.epoch_steps:
                if steps is not None and len(self.done) == steps:
                    return
                if not self.clock.begin_step(self.epoch, self.of_epoch):
                    break
                self.done.append(self.clock.done or 0.0)
                self.now += self.step(len(self.done) - 1)
                self.clock.end_step()
                self.of_epoch += 1
            self.clock.end_epoch(self.epoch)
            if self.course.evaluation and self.clock.evaluates_after(self.epoch):
                self.part("evaluation", self.evaluation)
                self.evaluated.append(self.epoch)
            self.epoch, self.of_epoch = self.epoch + 1, 0
        self.part("report", self.report)

    def part(self, name: str, seconds: float) -> None:
        with self.clock.timed(name):
            self.now += seconds


def steady(_: int) -> float:
    return 2.0


def slow_start(step: int) -> float:
    """The first steps take up to ten times as long."""
    return 2.0 * max(1, 10 - 3 * step)


def half_as_fast_later(step: int) -> float:
    return 2.0 if step < 100 else 4.0


def of_other_sizes(step: int) -> float:
    """Images of other sizes: 1, 2 and 3 s in turn."""
    return 1.0 + step % 3


STEPS = [steady, slow_start, half_as_fast_later, of_other_sizes]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    "course",
    [
        Course(50, None, 10.0, evaluation=15),  # an evaluation as long as 3.75 steps is expected
        Course(1, None, 10.0, evaluation=0.5),  # epochs of a step
        Course(100_000, None, 10.0, evaluation=15),  # not one epoch
        Course(40, None, 10.0, eval_every=3, evaluation=15),
        Course(50, None, 10.0),  # no validation data
    ],
)
def test_a_run_ends_with_its_time_and_its_rate_run_down(
    course: Course, step: Callable[[int], float]
) -> None:
    machine = Machine(course, step, evaluation=2.0 * course.evaluation * 0.35)  # 40 % beyond
    machine.run()
    assert machine.now - 1000 == pytest.approx(600, rel=0.05)
    assert machine.done == sorted(machine.done)
    assert machine.done[-1] > 0.96  # of a cosine, 0.4 % of the rate
    assert max(b - a for a, b in zip(machine.done, machine.done[1:], strict=False)) < 0.05
    assert bool(machine.evaluated) == bool(course.evaluation)
    if course.evaluation:
        assert machine.evaluated[-1] == machine.epoch - 1  # the end's


def test_on_a_steady_machine_it_is_the_schedule_of_its_number_of_steps() -> None:
    """98 % of 60 s, less 4 s + 1 s of the end, hold 27 steps of 2 s; 5 are to get going."""
    machine = Machine(Course(1000, None, 1.0), steady)
    machine.clock._parts["report"] = 4.0
    machine.run()
    assert len(machine.done) == 27
    assert machine.done[:5] == [0] * 5
    # From then on the rest is cut evenly into 22 parts.
    assert machine.done[5:] == pytest.approx([k / 22 for k in range(22)])


def test_an_evaluation_is_left_out_if_little_would_follow_it() -> None:
    """98 s (of 100), less 5 s of the end and 9 s of the last evaluation, are 84 to train in.

    Three epochs of 20 s with two evaluations leave 6 s: less than a third evaluation would take. So
    the third epoch has none, and the fourth ends with the time, after three steps.
    """
    machine = Machine(
        Course(10, None, 100 / 60, evaluation=4.5 / EVALUATED), steady, evaluation=9.0
    )
    machine.clock._parts["report"] = 4.0
    machine.run()
    assert machine.evaluated == [0, 1, 3]
    assert len(machine.done) == 33
    assert machine.now - 1000 == 33 * 2 + 3 * 9 + 4


def test_too_short_a_time_is_an_error_that_says_what_takes_it() -> None:
    """160 images of evaluation, a step's are 2: at 2 s a step, 0.25 * 160 s."""
    machine = Machine(Course(50, None, 0.5, evaluation=80), steady)
    with pytest.raises(DataError, match=r"--minutes 0\.5 are too few: .* the evaluation 0:00:40"):
        machine.run()


@pytest.mark.parametrize("steps", [1, 7, 50, 77, 120])
def test_resumed_it_is_the_run_that_never_stopped(steps: int) -> None:
    """Its state holds the time used; the time between is no part of it."""
    course = Course(50, None, 5.0, evaluation=15)
    whole = Machine(course, of_other_sizes, evaluation=7.0)
    whole.run()
    first = Machine(course, of_other_sizes, evaluation=7.0)
    first.run(steps)
    second = Machine(course, of_other_sizes, evaluation=7.0, now=99_999.0)
    second.clock.restore(first.clock.state())
    second.done, second.evaluated = first.done, first.evaluated
    second.epoch, second.of_epoch = first.epoch, first.of_epoch
    second.run()
    assert second.done == whole.done  # bit for bit
    assert second.evaluated == whole.evaluated
    assert second.now - 99_999 + first.now - 1000 == pytest.approx(whole.now - 1000)


def test_a_run_without_a_time_has_no_part_in_the_state() -> None:
    machine = Machine(Course(10, 2), steady)
    machine.run()
    assert machine.clock.state() == {}
    assert machine.clock.done is None
    assert len(machine.done) == 20


def test_what_is_left_counts_evaluations_report_and_state() -> None:
    """3 epochs of 50 steps of 2 s; an evaluation is taken for 0.25 * 15 steps of 2 s at first."""
    machine = Machine(Course(50, 3, evaluation=15), slow_start, evaluation=20.0)
    assert machine.clock.left(0, 0) is None
    machine.run(1)
    assert machine.clock.left(0, 1) is not None  # within a step of the first
    machine.run(20)
    end = sum(SECONDS.values())
    assert machine.clock.left(0, 20) == pytest.approx(2 * 130 + 3 * EVALUATED * 30 + end)
    machine.run(60)
    assert machine.clock.left(1, 10) == pytest.approx(2 * 90 + 2 * 20 + end)


@pytest.mark.parametrize(
    ("epochs", "every", "left"),
    [(6, 1, [6, 5, 4, 3, 2, 1, 0]), (6, 4, [2, 2, 2, 2, 1, 1, 0]), (6, 3, [2, 2, 2, 1, 1, 1, 0])],
)
def test_evaluations_left(epochs: int, every: int, left: list[int]) -> None:
    """Every third or fourth, and the last."""
    course = Course(10, epochs, eval_every=every, evaluation=1)
    assert [course.evaluations_left(epoch) for epoch in range(epochs + 1)] == left


def test_a_time_shortens_the_warm_up_to_a_fifth() -> None:
    optim = OptimConfig(1.0, schedule="step", warmup=100)
    assert optim.lr_at(9, 0.0) == pytest.approx(0.1)
    assert optim.lr_at(9, MOST_WARMUP / 2) == pytest.approx(0.5)
    assert optim.lr_at(9, MOST_WARMUP) == 1
    assert optim.lr_at(99, 0.01) == 1  # a long run: its own 100 steps


def test_durations() -> None:
    assert duration(3725.4) == "1:02:05"


def test_the_first_process_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process takes what it is told, whatever its own clock says."""
    machine = Machine(Course(50, None, 10.0, evaluation=15), steady)
    told: list[Any] = [(0.25, 0.5), (1.0, 1.0)]
    monkeypatch.setattr("retinanet.training.run_clock.from_main", lambda make: told.pop(0))
    assert machine.clock.begin_step(0, 0)
    machine.clock.end_step()
    assert machine.clock.done == 0.5
    assert not machine.clock.begin_step(0, 1)
