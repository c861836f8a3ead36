"""The report of a training run, with its flags among the facts."""

import argparse

from retinanet.cli.flags import learning_settings
from retinanet.cli.train_flags import as_flags
from retinanet.data.datasets import Data
from retinanet.evaluation.measure import Evaluation
from retinanet.report.facts import model_facts, training_facts
from retinanet.report.pictures import draw_sheet, save_picture
from retinanet.report.report import report_title, write_report
from retinanet.runtime.console import say
from retinanet.runtime.distributed import from_main, is_main_process
from retinanet.runtime.files import first_free
from retinanet.runtime.own_files import is_foreign
from retinanet.training.records import METRICS_FILE, read_records
from retinanet.training.run_folder import RunFolder
from retinanet.training.trainer import Training


def lacks_report(args: argparse.Namespace, folder: RunFolder, training: Training) -> bool:
    """Whether a finished run was killed before its report was whole; the same for all processes."""
    return from_main(lambda: not report_title(folder.path).endswith(_subject(args, training)))


def write_run_report(
    args: argparse.Namespace,
    folder: RunFolder,
    training: Training,
    evaluation: Evaluation | None,
    train: Data,
) -> None:
    """Write the report of a finished run, and for the sample a sheet of its detections.

    The page comes last: where it is, nothing is missing.

    Args:
        args: flags of train.py.
        folder: of the run.
        training: with the last checkpoint.
        evaluation: of it; None without validation data.
        train: the training data.
    """
    if not is_main_process():
        return
    if args.dataset == "shapes" and evaluation:
        sheet = first_free(folder.path / "shapes_retinanet_detections.jpg", is_foreign)
        save_picture(
            sheet, draw_sheet(evaluation.dataset, evaluation.detections, score_threshold=0.5)
        )
        say(f"Detections on the validation set, annotations dashed: {sheet}")
    facts = model_facts(training.checkpoint, training.runtime.precision) | training_facts(
        started_from=args.weights,
        images=len(train),
        batch_size=args.batch_size,
        settings=as_flags(learning_settings(args)),
    )
    title = folder.path.resolve().name + _subject(args, training)
    history = read_records(folder.path / METRICS_FILE)
    report = write_report(folder.path, evaluation, title=title, facts=facts, history=history)
    say(f"Report: {report}")


def _subject(args: argparse.Namespace, training: Training) -> str:
    """Data set and epoch, as they end the report's title."""
    return f": {args.dataset}, epoch {training.checkpoint.epoch}"
