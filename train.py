"""Train a RetinaNet on a labelled folder, on COCO or CSV data, or on the built-in sample."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from retinanet.cli.from_flags import open_data
from retinanet.cli.run_parts import make_folder, make_loaders, make_training
from retinanet.cli.run_report import RunReport
from retinanet.cli.script import script
from retinanet.cli.train_flags import (
    deciding_settings,
    network_settings,
    parse,
    parser,  # noqa: F401
)
from retinanet.data.batches import TrainingBatches
from retinanet.data.loading import LoadingError, UnreadableImageError
from retinanet.data_check.anchor_coverage import TrainingSetup
from retinanet.data_check.text import digest
from retinanet.errors import DataError, counted
from retinanet.evaluation.measure import Evaluation, Evaluator
from retinanet.report.pictures import draw_sheet
from retinanet.runtime.console import say
from retinanet.runtime.device import (
    Runtime,
    describe,
    describe_machine,
    start_runtime,
)
from retinanet.runtime.signals import StoppedError, StopRequest
from retinanet.training.run_folder import RunFolder
from retinanet.training.trainer import Training, prepare_model
from retinanet.weights.pretrained import resumed_start, start_config, start_weights


@script
def main(argv: Sequence[str] | None = None) -> None:
    """A training run, from flags to the final file and the report."""
    args = parse(argv)
    runtime = start_runtime(args.device, args.precision, args.seed)
    try:
        with make_folder(args) as folder:
            run(args, runtime, folder)
    except UnreadableImageError as error:
        advice = "or go on without it: the same with --resume --on_bad_image skip"
        raise DataError(f"{error}; {advice}") from error


def run(args: argparse.Namespace, runtime: Runtime, folder: RunFolder) -> None:
    """Open, build, train and report, in a folder that is the run's own until the end."""
    # What can go wrong goes wrong here, before anything is built or written.
    resumed = folder.open(args.resume, overwrite=args.overwrite)
    train, val = open_data(args)
    if resumed:
        start = resumed_start(resumed.content, str(resumed.path))
    else:
        start = start_weights(args.weights, args.depth)
    classes, network = train.num_classes(), network_settings(args)
    config = start_config(start, num_classes=classes, depth=args.depth, settings=network)
    setup = TrainingSetup(args.min_side, args.max_side, config, args.matching, args.tile)
    say(digest(train, setup))
    settings = deciding_settings(args, config, train, runtime)
    if resumed:
        resumed.check(settings)

    # The model and all that changes with it.
    model = prepare_model(config, start, runtime, compiled=args.compile)
    batches, evaluator = make_loaders(args, runtime, train, val)
    training = make_training(args, runtime, folder, model, train, val, batches)
    if resumed:
        training.restore(resumed)
        done = "" if training.goes_on else "; it was trained to its end"
        say(f"Resumed {resumed.path}: epoch {training.epoch}, iteration {training.step}{done}")

    # The run, and what it leaves.
    say(f"Training a {config.title}: {describe(runtime)}")
    images = args.batch_size * runtime.world_size
    say(f"Images a step: {images}; learning rate: {args.lr:g}, which no batch size scales")
    weights_size = sum(tensor.nbytes for tensor in training.checkpoint.weights.values())
    folder.claim(settings, epochs=args.epochs or args.keep or 1, weights_size=weights_size)
    folder.save_config(vars(args), describe_machine(runtime))
    if args.data:
        folder.save_lists(train.image_names, val.image_names if val else ())
    training.log.open(training.epoch, training.step)
    report = RunReport(args, folder, training, train)
    with report.stopped_early():
        evaluation = run_epochs(training, batches, folder, evaluator, report, args)
    folder.save_final(training.checkpoint)
    say(f"Written: {folder.path / 'model_final.pt'}")
    if evaluator and not evaluation and report.is_missing():
        evaluation = evaluate(evaluator, training)
    if evaluation or val is None:
        report.finish(evaluation)


def run_epochs(
    training: Training,
    batches: TrainingBatches,
    folder: RunFolder,
    evaluator: Evaluator | None,
    report: RunReport,
    args: argparse.Namespace,
) -> Evaluation | None:
    """Train, save and evaluate, epoch by epoch; return the last evaluation, if there was one."""
    clock = training.clock

    def save_state() -> None:
        with clock.timed("state"):
            folder.save_state(training.state(), training.checkpoint)

    def save_state_if_due() -> None:
        if folder.state_is_due():
            save_state()

    @contextmanager
    def saved_on(*errors: type[Exception]) -> Iterator[None]:
        """Save the state if such an error ends the run: all is whole then, and nothing is lost."""
        try:
            yield
        except errors:
            save_state()
            raise

    evaluation = None
    with StopRequest("go on with the same command and --resume") as stop:
        while training.goes_on and not folder.stands_still(args.patience):
            report.renew(evaluation)  # the run goes on; at its end there is another one
            rest = batches.of_epoch(training.epoch, training.step)
            with saved_on(StoppedError, LoadingError):
                training.train_epoch(rest, stop, after_step=save_state_if_due)
            evaluation = None
            if evaluator and clock.evaluates_after(training.epoch):
                with saved_on(Exception), stop.at_once():
                    evaluation = evaluate(evaluator, training)
            folder.save_epoch(training.checkpoint)
            if evaluation:
                folder.save_if_best(training.checkpoint, evaluation.score)
            log_epoch(training, evaluation)
            training.finish_epoch()
        save_state()
        if training.goes_on:
            waited = counted(args.patience, "evaluation")
            say(f"The validation mAP is no better for {waited}: the end")
    return evaluation


def evaluate(evaluator: Evaluator, training: Training) -> Evaluation:
    """Evaluate the model, say its scores, and note them in its checkpoint."""
    say(f"Evaluating on {counted(len(evaluator.dataset), 'image')}")
    with training.clock.timed("evaluation"):
        evaluation = evaluator(training.model)
    say(evaluation.summary(training.runtime.precision))
    training.checkpoint = replace(
        training.checkpoint,
        metrics=evaluation.numbers,
        thresholds=evaluation.thresholds,
        thresholds_epoch=training.checkpoint.epoch,
    )
    return evaluation


def log_epoch(training: Training, evaluation: Evaluation | None) -> None:
    """Record an epoch's mean loss and scores, and for TensorBoard a picture of detections."""
    log, epoch = training.log, training.epoch
    if evaluation and log.shows_pictures:
        sheet = draw_sheet(evaluation.dataset, evaluation.detections, score_threshold=0.5)
        log.add_picture(epoch, "detections over annotations", sheet)
    coco = evaluation.coco if evaluation else None
    classes = (coco.per_class, coco.class_intervals) if coco else ({},)
    log.add_epoch(epoch, training.losses.mean, training.checkpoint.metrics, *classes)


if __name__ == "__main__":
    sys.exit(main())
