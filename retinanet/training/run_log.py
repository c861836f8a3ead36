"""Records of a run: the live line, metrics.jsonl, TensorBoard."""

import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from retinanet.errors import DataError
from retinanet.runtime.console import Item, say, shows_bars
from retinanet.runtime.device import peak_memory
from retinanet.runtime.distributed import is_main_process
from retinanet.runtime.own_files import refuse_foreign
from retinanet.training.records import METRICS_FILE, cut_records
from retinanet.training.run_clock import Course, RunClock, duration

TENSORBOARD_FOLDER = "tensorboard"
DATA_BOUND = 0.25  # share of the time spent waiting for images above which a hint is given
BAR = "{desc} {percentage:3.0f}% {bar} {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


class Pace:
    """Speed of an epoch, and the share of it that is spent waiting for data.

    The clock starts with the first batch: the start of the loader's processes does not count.
    """

    def __init__(self) -> None:
        self.steps, self.images = 0, 0
        self._started: float | None = None
        self._waited = 0.0

    def timed(self, batches: Iterable[Item]) -> Iterator[Item]:
        """Pass batches through, and measure how long each is waited for."""
        asked = 0.0
        for batch in batches:
            now = time.perf_counter()
            if self._started is None:
                self._started = now
            else:
                self._waited += now - asked
            yield batch
            asked = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since the first batch."""
        return time.perf_counter() - (self._started or time.perf_counter())

    @property
    def images_per_second(self) -> float:
        """Images a second, of all processes together."""
        return self.images / max(1e-9, self.seconds)

    @property
    def waiting(self) -> float:
        """Share of the time spent waiting for data, 0..1."""
        return self._waited / max(1e-9, self.seconds)


def tensorboard_writer() -> Callable[..., Any]:
    """The class that writes for TensorBoard.

    Raises:
        DataError: tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise DataError("--tensorboard needs a package: pip install tensorboard") from error
    return SummaryWriter


class RunLog:
    """Log of a run's numbers: to the console, metrics.jsonl, TensorBoard.

    On a terminal an epoch is one live line; elsewhere every logged step is a line of its own.

    Args:
        folder: of the run; None writes no files.
        device: whose memory is told.
        log_every: steps between two records.
        clock: of the run; a short one by default.
        announce: makes the line that is said, if it is not empty, once the clock knows the speed,
            of the epoch and step that come next.
        tensorboard: whether to write for it too.

    Raises:
        DataError: tensorboard is not installed.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        device: torch.device | None = None,
        log_every: int = 1,
        clock: RunClock | None = None,
        announce: Callable[[int, int], str] | None = None,
        tensorboard: bool = False,
    ) -> None:
        self.folder = folder if is_main_process() else None
        self.device, self.log_every = device, log_every
        self.clock = clock or RunClock(Course())
        self._announce = announce  # until it has spoken
        self.prints_steps = not (shows_bars() and sys.stdout.isatty())
        self.pace = Pace()
        self.epoch_record = ""  # the last epoch's line of metrics.jsonl, part of the state
        self._bar: tqdm[Any] | None = None
        self._board: Any = None  # TensorBoard's writer
        self._open_board = tensorboard_writer() if tensorboard else None

    @property
    def _steps(self) -> int:
        """Steps of an epoch."""
        return self.clock.course.epoch_steps

    def open(self, epoch: int, step: int) -> None:
        """Open the files for writing, and drop the records of all that comes again.

        Args:
            epoch: that comes next.
            step: of it that comes next.
        """
        if self.folder is None:
            return
        refuse_foreign(self.folder / METRICS_FILE)
        cut_records(self.folder / METRICS_FILE, epoch, step, self.epoch_record)
        if self._open_board is not None:
            self._board = self._open_board(
                self.folder / TENSORBOARD_FOLDER, purge_step=epoch * self._steps + step
            )

    def watch(self, batches: Iterable[Item], epoch: int, step: int) -> Iterator[Item]:
        """Pass the rest of an epoch's batches through, timed, with a bar on a terminal."""
        self.pace = Pace()
        epochs = self.clock.course.epochs
        with tqdm(
            initial=step,
            total=self._steps,
            desc=f"epoch {epoch + 1}" + (f"/{epochs}" if epochs else ""),
            bar_format=BAR,
            dynamic_ncols=True,
            disable=not shows_bars(),
        ) as self._bar:
            yield from self.pace.timed(batches)

    def end_step(self, epoch: int, step: int, images: int) -> None:
        """Count a step of so many images, and say once how long the run will take."""
        self.clock.end_step()
        self.pace.steps += 1
        self.pace.images += images
        if self._announce and self.clock.is_known:
            said, self._announce = self._announce(epoch, step + 1), None
            if said:
                say(said)
        if self._bar is not None:
            self._bar.update()

    def add_step(
        self,
        epoch: int,
        step: int,
        *,
        lr: float,
        classification: float,
        regression: float,
        running: float,
        norm: float,
    ) -> None:
        """Log a step, every `log_every` steps."""
        if step % self.log_every:
            return
        memory = peak_memory(self.device)
        left = self.clock.left(epoch, step + 1)
        eta = f"ETA: {'?' if left is None else duration(left)}"
        speed = f"{self.pace.images_per_second:.1f} img/s | waiting: {self.pace.waiting:.0%}"
        gigabytes = f"{memory / 1e9:.1f} GB"
        if self.prints_steps:
            say(
                f"Epoch: {epoch} | Iteration: {step} | Classification loss: {classification:1.5f}"
                f" | Regression loss: {regression:1.5f} | Running loss: {running:1.5f}"
                f" | lr: {lr:g} | {speed} | {gigabytes} | {eta}"
            )
        if self._bar is not None:  # a narrow terminal cuts off its end
            self._bar.set_postfix_str(
                f"{eta} | loss {running:.3f} | {speed} | lr: {lr:.2g} | {gigabytes}"
            )
        numbers = {
            "classification_loss": classification,
            "regression_loss": regression,
            "running_loss": running,
            "gradient_norm": norm,
            "lr": lr,
            **self._speed(),
            "memory_bytes": memory,
        }
        self._write({"kind": "step", "epoch": epoch, "iteration": step, **_finite(numbers)})
        self._plot(epoch, step, {f"train/{name}": value for name, value in numbers.items()})

    def add_epoch(
        self,
        epoch: int,
        mean_loss: float,
        metrics: Mapping[str, float],
        per_class: Mapping[str, float],
        class_intervals: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        """Log an epoch's loss and scores.

        Args:
            epoch: which.
            mean_loss: of its steps.
            metrics: of the evaluation, by name; empty where there was none.
            per_class: AP by class name.
            class_intervals: the ends of their 95 % intervals, by class name.
        """
        say(
            f"Epoch {epoch}: mean loss {mean_loss:.5f}, {self.pace.images_per_second:.1f} images/s,"
            f" {self.pace.waiting:.0%} of the time waiting for images"
        )
        if self.pace.waiting > DATA_BOUND and self.pace.steps > 10:
            say("  The images come too slowly: try more --workers, or store them smaller")
        numbers = {"mean_loss": mean_loss, **self._speed()}
        scores = {
            "metrics": dict(metrics),
            "AP_per_class": dict(per_class),
            "AP_interval_per_class": dict(class_intervals or {}),
        }
        record = {"kind": "epoch", "epoch": epoch, **_finite(numbers), **scores}
        self.epoch_record = json.dumps(record)
        self._write(record)
        curves = {f"epoch/{name}": value for name, value in numbers.items()}
        curves |= {f"validation/{name}": value for name, value in metrics.items()}
        curves |= {f"AP of a class/{name}": value for name, value in per_class.items()}
        for name, (low, high) in (class_intervals or {}).items():
            curves |= {f"AP of a class/{name}_low": low, f"AP of a class/{name}_high": high}
        self._plot(epoch + 1, 0, curves)

    @property
    def shows_pictures(self) -> bool:
        """True if there is a TensorBoard to show pictures on."""
        return self._board is not None

    def add_picture(self, epoch: int, name: str, picture: NDArray[np.uint8]) -> None:
        """Show TensorBoard a picture [H, W, 3], RGB."""
        if self._board is not None:
            at = (epoch + 1) * self._steps
            self._board.add_image(name, picture, at, dataformats="HWC")
            self._board.flush()

    def _speed(self) -> dict[str, float]:
        return {
            "images_per_second": round(self.pace.images_per_second, 3),
            "waiting_for_data": round(self.pace.waiting, 4),
        }

    def _write(self, record: dict[str, Any]) -> None:
        """Append a record to the file."""
        if self.folder is not None:
            with (self.folder / METRICS_FILE).open("a") as stream:
                stream.write(json.dumps(record) + "\n")

    def _plot(self, epoch: int, step: int, curves: Mapping[str, float]) -> None:
        """Add a point to each of TensorBoard's curves."""
        if self._board is not None:
            for name, value in curves.items():
                self._board.add_scalar(name, value, epoch * self._steps + step)
            self._board.flush()


def _finite(numbers: Mapping[str, float]) -> dict[str, float | None]:
    """The numbers, None for those that JSON does not know."""
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}
