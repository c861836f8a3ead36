"""The report of a training run, with its flags among the facts: while it trains, and at its end."""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

from retinanet import __version__
from retinanet.cli.flags import learning_settings
from retinanet.cli.train_flags import as_flags, repeating_command
from retinanet.data.datasets import Data
from retinanet.errors import DataError, counted
from retinanet.evaluation.measure import Evaluation
from retinanet.report.facts import model_facts, training_facts
from retinanet.report.html import REFRESH
from retinanet.report.model_card import CARD_FILE, TrainedModel, model_card
from retinanet.report.pictures import draw_sheet, save_picture
from retinanet.report.report import report_title, write_report
from retinanet.runtime.console import say
from retinanet.runtime.device import describe_machine
from retinanet.runtime.distributed import from_main, is_main_process
from retinanet.runtime.files import first_free, write_whole
from retinanet.runtime.own_files import is_foreign, is_own
from retinanet.runtime.signals import StoppedError
from retinanet.training.records import METRICS_FILE, read_records
from retinanet.training.run_clock import duration
from retinanet.training.run_folder import RunFolder
from retinanet.training.trainer import Training

RENEWS = "This page renews itself after evaluations."
STOPPED = "The run was stopped; --resume goes on with it."
SHARE = 0.03  # of the run's time, at most, is spent on reports while it trains


class RunReport:
    """The report of a run, made by the main process only.

    Args:
        args: flags of train.py.
        folder: of the run.
        training: about to begin or to go on.
        train: the training data.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        folder: RunFolder,
        training: Training,
        train: Data,
    ) -> None:
        self.args, self.folder, self.training, self.train = args, folder, training, train
        self._begun_at = time.monotonic()
        self._spent = self._last = 0.0  # seconds, on all reports and on the last one
        self._left_out: Evaluation | None = None  # the last one, if it has no report yet

    def renew(self, evaluation: Evaluation | None) -> None:
        """Write the report of a run that goes on, if its last epoch was evaluated.

        Only the first one is written where reports would take more than their share of the time:
        an epoch may be shorter than a report. A report that cannot be written ends no run.
        """
        if evaluation is None or not is_main_process():
            return
        passed = time.monotonic() - self._begun_at
        if self._spent + self._last > SHARE * passed:
            self._left_out = evaluation
        else:
            self._show(evaluation)

    def _show(self, evaluation: Evaluation) -> None:
        """Write the report of an evaluation with how far the run is."""
        begin = time.monotonic()
        done, epochs = self.training.epoch, self.args.epochs
        far = f"{done} of {counted(epochs, 'epoch')}" if epochs else counted(done, "epoch")
        progress = f"Training: {far} on {_now()}"
        left = self.training.clock.left(done, 0)
        if left is not None:  # else the run was resumed at an epoch's end: no pace is known yet
            progress += f", about {duration(left)} left"
        progress += f". {RENEWS}"
        try:
            self._write(evaluation, f", {far}", progress)
        except DataError as error:
            say(f"Warning: no report: {error}")
        self._last = time.monotonic() - begin
        self._spent += self._last
        self._left_out = None

    @contextmanager
    def stopped_early(self) -> Iterator[None]:
        """Whatever ends the run: an open page no longer loads itself again, and says so.

        Where it was asked to stop, the page has the last evaluation, whose report may have been
        left out to save time.
        """
        try:
            yield
        except BaseException as error:
            if isinstance(error, StoppedError) and self._left_out:
                self._show(self._left_out)
            path = self.folder.path / "report.html"
            if is_main_process() and is_own(path):
                page = path.read_text(encoding="utf-8").replace(REFRESH, "", 1)
                with suppress(DataError):  # the run's own error counts
                    write_whole(path, page.replace(RENEWS, STOPPED, 1).encode())
            raise

    def is_missing(self) -> bool:
        """Whether a finished run was killed before its report; the same for all processes."""
        return from_main(lambda: not report_title(self.folder.path).endswith(self._subject()))

    def finish(self, evaluation: Evaluation | None) -> None:
        """Write the model card and the report of a finished run, and for the sample a sheet.

        The page comes last: where it is, nothing is missing.

        Args:
            evaluation: of the last epoch; None without validation data.
        """
        if not is_main_process():
            return
        if self.args.dataset == "shapes" and evaluation:
            sheet = first_free(self.folder.path / "shapes_retinanet_detections.jpg", is_foreign)
            drawn = draw_sheet(evaluation.dataset, evaluation.detections, score_threshold=0.5)
            save_picture(sheet, drawn)
            say(f"Detections on the validation set, annotations dashed: {sheet}")
        write_whole(self.folder.path / CARD_FILE, self._card(evaluation).encode())
        self._write(evaluation, self._subject())
        say(f"Report: {self.folder.path / 'report.html'}")

    def _write(self, evaluation: Evaluation | None, subject: str, progress: str = "") -> None:
        checkpoint, precision = self.training.checkpoint, self.training.runtime.precision
        facts = model_facts(checkpoint, precision) | training_facts(
            started_from=self.args.weights,
            images=len(self.train),
            batch_size=self.args.batch_size,
            settings=as_flags(learning_settings(self.args)),
        )
        with self.training.clock.timed("report"):
            write_report(
                self.folder.path,
                evaluation,
                title=self.folder.path.resolve().name + subject,
                facts=facts | {"Written": _now()},
                history=read_records(self.folder.path / METRICS_FILE),
                progress=progress,
            )

    def _card(self, evaluation: Evaluation | None) -> str:
        """The model card of the run."""
        runtime = self.training.runtime
        versions: Any = describe_machine(runtime)["versions"]
        return model_card(
            TrainedModel(
                self.training.checkpoint,
                evaluation,
                self.train,
                command=repeating_command(self.args),
                started_from=self.args.weights,
                precision=runtime.precision,
                versions={"retinanet": __version__, **versions},
            )
        )

    def _subject(self) -> str:
        """Data set and epoch, as they end the title of a finished run's report."""
        return f": {self.args.dataset}, epoch {self.training.checkpoint.epoch}"


def _now() -> str:
    return f"{datetime.now():%Y-%m-%d %H:%M}"
