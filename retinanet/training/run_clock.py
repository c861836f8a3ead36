"""The time of a run: measured as it goes, told in advance, and kept to where one is given.

A run is its steps, its evaluations, and what ends it: a state and a report. With a time to keep to
there is no number of steps: at every step it is asked how many more fit into what is left, and the
learning rate's schedule moves on by one of so many parts of its rest. So it falls smoothly, ends
with the time, and follows a machine that gets slower or faster on the way.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from retinanet.errors import DataError
from retinanet.runtime.distributed import from_main

SLOW_STEPS = 5  # at a start, which do not count: caches, memory and loaders are made there
RECENT_STEPS = 100  # that the speed is the mean of
KNOWN_STEPS = 10  # after which the speed is known well enough to speak of it

# What is expected until it is measured; figures are in benchmarks/README.md, under Progress.
EVALUATED = 0.25  # time of an image that is evaluated, by that of one that is trained on
SECONDS = {"report": 2.0, "state": 1.0}

RESERVE = 0.02  # of a time to keep to: it ends late by what cannot be foreseen


@dataclass(frozen=True)
class Course:
    """All that a run is to do."""

    epoch_steps: int = 1
    """Steps of a whole epoch."""
    epochs: int | None = 1
    """Epochs; None: as many as there is time for."""
    minutes: float | None = None
    """Time to keep to; the last epoch ends where it ends."""
    eval_every: int = 1
    """Epochs between two evaluations."""
    evaluation: float = 0.0
    """Size of an evaluation: its images, by those of a step; 0: there is none."""

    def evaluations_left(self, epoch: int) -> int:
        """Evaluations from an epoch on, that epoch's included, where the epochs are given."""
        if not self.evaluation or self.epochs is None or epoch >= self.epochs:
            return 0
        regular = self.epochs // self.eval_every - epoch // self.eval_every
        return regular + (self.epochs % self.eval_every > 0)


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    return str(timedelta(seconds=round(seconds)))


class RunClock:
    """Seconds of a run's parts, and what follows from them.

    Under torchrun the main process's clock decides for all.

    Args:
        course: of the run.
        started: when the run began, by the clock; now, if not given.
        clock: seconds.
    """

    def __init__(
        self,
        course: Course,
        started: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.course, self._clock = course, clock
        self._started = clock() if started is None else started
        self._before = 0.0  # seconds that the run had taken when it was resumed
        self._steps = deque[float](maxlen=RECENT_STEPS)
        self._parts: dict[str, float] = {}  # seconds that each took the last time
        self._mark: float | None = None  # when the step under way began
        self._done, self._next = 0.0, 0.0  # shares of the schedule: behind, and after the step

    # ---- measuring ----

    def end_step(self) -> None:
        """Measure a step, from the end of the one before it or from its epoch's first batch."""
        now = self._clock()
        if self._mark is not None:
            self._steps.append(now - self._mark)
        self._mark, self._done = now, self._next

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Measure an evaluation, a report or the writing of a state."""
        begin = self._clock()
        yield
        self._parts[part] = self._clock() - begin

    @property
    def pace(self) -> float | None:
        """Seconds of a step; None before one was measured."""
        steps = list(self._steps)
        counted = steps[min(SLOW_STEPS, len(steps) // 2) :]
        return sum(counted) / len(counted) if counted else None

    @property
    def is_known(self) -> bool:
        """Whether enough steps were measured to speak of what is left."""
        return len(self._steps) >= KNOWN_STEPS

    def left(self, epoch: int, step: int) -> float | None:
        """Seconds to the end of the run, all included; None before a step was measured.

        Args:
            epoch: that the run is in.
            step: of that epoch that comes next.
        """
        if self.course.minutes is not None:
            return max(0.0, self._time_left())
        if self.pace is None:
            return None
        steps = self.course.epoch_steps * ((self.course.epochs or 0) - epoch) - step
        evaluations = self.course.evaluations_left(epoch)
        return steps * self.pace + evaluations * self._seconds("evaluation") + self._end()

    def _seconds(self, part: str) -> float:
        """Seconds of the next evaluation, report or state."""
        if part in self._parts:
            return self._parts[part]
        if part == "evaluation":
            return EVALUATED * self.course.evaluation * (self.pace or 0.0)
        return SECONDS[part]

    def _end(self) -> float:
        """Seconds from the last evaluation to the end."""
        return self._seconds("report") + self._seconds("state")

    # ---- a time to keep to ----

    @property
    def done(self) -> float | None:
        """Share of the schedule that is behind, 0..1; None without a time to keep to."""
        return self._done if self.course.minutes is not None else None

    def goes_on(self, epoch: int, step: int = 0) -> bool:
        """Whether there is an epoch to come after so many, or one to finish after some steps."""
        if self.course.minutes is not None:
            return self._done < 1 or step > 0
        return epoch < (self.course.epochs or 0)

    def begin_step(self, epoch: int, step: int) -> bool:
        """Whether there is time for a step, and where the schedule will be after it.

        An epoch that is begun has at least one.

        Args:
            epoch: of the step, whose batch is there.
            step: its number in the epoch.
        """
        if self._mark is None:
            self._mark = self._clock()
        if self.course.minutes is None:
            return True
        self._done, self._next = from_main(lambda: self._share(epoch, step, at_least=step == 0))
        return self._done < 1

    def end_epoch(self, epoch: int) -> None:
        """See whether the epoch that has just ended was the last."""
        self._mark = None
        if self.course.minutes is not None and self._done < 1:
            self._done, _ = from_main(lambda: self._share(epoch + 1, 0, at_least=False))

    def evaluates_after(self, epoch: int) -> bool:
        """Whether an epoch that has just ended is evaluated: the last one always.

        With a time to keep to, an evaluation is left out if it took longer than the training that
        would still follow it.
        """
        done = epoch + 1
        due = not self.goes_on(done) or done % self.course.eval_every == 0
        if due and self.goes_on(done) and self.course.minutes is not None:
            return from_main(lambda: self._time_to_train() >= 2 * self._seconds("evaluation"))
        return due

    def steps_left(self, epoch: int, step: int) -> float:
        """Steps that fit into the time that is left, with the evaluations in between."""
        pace, course = self.pace, self.course
        if not pace:
            return math.inf
        time_left, evaluation = self._time_to_train(), self._seconds("evaluation")
        cycle = course.epoch_steps * course.eval_every * pace
        passed = (epoch % course.eval_every * course.epoch_steps + step) * pace
        at_first = time_left - (cycle - passed)  # seconds left at the next evaluation
        # Each is made if twice its time is left, and is followed by a cycle: `evaluates_after`.
        count = (at_first - 2 * evaluation) // (cycle + evaluation) + 1
        return (time_left - max(0.0, count) * evaluation) / pace

    def _share(self, epoch: int, step: int, *, at_least: bool) -> tuple[float, float]:
        """Shares of the schedule behind a step and after it; 1 behind it: there is no time."""
        if self._done >= 1 or len(self._steps) < SLOW_STEPS:  # over, or the speed is not known yet
            return self._done, self._done
        left = self.steps_left(epoch, step)
        if left < 1 and self._done == 0:
            raise DataError(self._too_few())
        if left < 0.5 and not at_least:
            return 1.0, 1.0
        return self._done, self._done + (1 - self._done) / max(1, round(left))

    def _too_few(self) -> str:
        evaluation = f", the evaluation {duration(self._seconds('evaluation'))}"
        return (
            f"--minutes {self.course.minutes:g} are too few: the start took"
            f" {duration(self._used())}{evaluation * bool(self.course.evaluation)}; give more"
        )

    def _time_left(self) -> float:
        """Seconds to the time that the run is to end at."""
        return 60 * (self.course.minutes or 0.0) * (1 - RESERVE) - self._used()

    def _time_to_train(self) -> float:
        """Seconds for steps and the evaluations between them."""
        return self._time_left() - self._seconds("evaluation") - self._end()

    def _used(self) -> float:
        """Seconds that the run has taken, those before it was resumed included."""
        return self._before + self._clock() - self._started

    # ---- its part of the run's state ----

    def state(self) -> dict[str, Any]:
        """All that decides how a run that keeps to a time goes on; nothing for any other run."""
        if self.course.minutes is None:
            return {}
        return {
            "used": self._used(),
            "done": self._done,
            "steps": list(self._steps),
            "parts": dict(self._parts),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of `state()`; the time since then until now was no part of the run."""
        if state:
            self._before, self._done = float(state["used"]), float(state["done"])
            self._steps.extend(map(float, state["steps"]))
            self._parts.update({str(k): float(v) for k, v in state["parts"].items()})
