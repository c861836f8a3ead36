"""Train a RetinaNet on COCO data, on CSV data, or on the built-in sample."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from retinanet.cli.flags import learning_settings
from retinanet.cli.from_flags import describe_model, open_data
from retinanet.cli.script import script
from retinanet.cli.train_flags import (
    ANCHOR_FLAGS,
    as_flags,
    deciding_settings,
    parse,
    parser,  # noqa: F401
)
from retinanet.data.batches import AspectRatioBasedSampler, collater
from retinanet.data.datasets import Data
from retinanet.data.loading import Loader
from retinanet.data_check.text import digest
from retinanet.evaluation.measure import Evaluation, measure
from retinanet.evaluation.voc import voc_table
from retinanet.inference.prediction import SampleLoader, predict
from retinanet.model import RetinaNet
from retinanet.postprocess import Detections
from retinanet.report.pictures import draw_sheet, save_picture
from retinanet.report.report import write_report
from retinanet.runtime.console import say
from retinanet.runtime.device import (
    Runtime,
    describe,
    describe_machine,
    start_runtime,
    usable_workers,
)
from retinanet.runtime.distributed import from_main
from retinanet.runtime.files import first_free
from retinanet.runtime.own_files import is_foreign
from retinanet.runtime.signals import StoppedError, StopRequest
from retinanet.training.loss_log import LossLog
from retinanet.training.optim import OptimConfig
from retinanet.training.records import METRICS_FILE, read_records
from retinanet.training.run_folder import RunFolder
from retinanet.training.run_log import RunLog
from retinanet.training.trainer import Training, UnreadableImageError, compile_network
from retinanet.weights.checkpoint import Checkpoint
from retinanet.weights.pretrained import resumed_start, start_config, start_weights, take_weights


def evaluate(
    model: RetinaNet,
    dataset: Data,
    samples: SampleLoader,
    args: argparse.Namespace,
    runtime: Runtime,
) -> tuple[list[Detections], Evaluation]:
    """Detect on the validation data, say the scores, and return both."""
    say(f"Evaluating on {len(dataset)} images")
    detections = predict(
        model,
        samples,
        batch_size=2 * args.batch_size,
        autocast=runtime.autocast,
        progress=True,
    )
    scores = from_main(lambda: measure(dataset, detections))
    if scores.voc is None:
        say(scores.coco.summary)
    else:
        stats = scores.coco.stats
        say(voc_table(scores.voc))
        say(f"COCO's AP {stats['AP']:.3f}, AP50 {stats['AP50']:.3f} ({runtime.precision})")
    return detections, scores


def load_batches(
    dataset: Data, args: argparse.Namespace, runtime: Runtime
) -> tuple[Loader, AspectRatioBasedSampler]:
    """Batches of an epoch, and the sampler that is to be told which epoch."""
    sampler = AspectRatioBasedSampler(
        dataset,
        args.batch_size,
        seed=args.seed,
        rank=runtime.rank,
        world_size=runtime.world_size,
    )
    batches = Loader(
        dataset,
        batch_sampler=sampler,
        collate=collater,
        workers=usable_workers(args.workers),
        pin_memory=runtime.device.type == "cuda",
    )
    return batches, sampler


def run_epochs(
    training: Training,
    batches: Loader,
    sampler: AspectRatioBasedSampler,
    folder: RunFolder,
    settings: dict[str, object],
    checkpoint: Checkpoint,
    dataset_val: Data | None,
    args: argparse.Namespace,
) -> tuple[Checkpoint, list[Detections]]:
    """Train, save, evaluate, epoch by epoch; return the last checkpoint and its detections."""

    def save_state() -> None:
        folder.save_state(training.state(), checkpoint, settings)

    def save_state_if_due() -> None:
        if folder.state_is_due():
            save_state()

    log = training.log
    samples = dataset_val and SampleLoader(
        dataset_val,
        workers=usable_workers(args.workers),
        pin_memory=training.runtime.device.type == "cuda",
    )
    detections: list[Detections] = []
    with StopRequest("go on with the same command and --resume") as stop:
        while training.epoch < args.epochs and not folder.stands_still(args.patience):
            epoch = training.epoch
            sampler.set_epoch(epoch, first_batch=training.step)
            try:
                training.train_epoch(batches, stop, after_step=save_state_if_due)
            except (StoppedError, UnreadableImageError):
                save_state()
                raise
            save_state()
            checkpoint = replace(
                checkpoint, weights=training.model.state_dict(), epoch=epoch, metrics={}
            )
            folder.save_epoch(checkpoint)
            per_class: dict[str, float] = {}
            if (
                dataset_val
                and samples
                and (epoch + 1 == args.epochs or (epoch + 1) % args.eval_every == 0)
            ):
                with stop.at_once():
                    detections, scores = evaluate(
                        training.model, dataset_val, samples, args, training.runtime
                    )
                per_class = scores.coco.per_class
                checkpoint = replace(checkpoint, metrics=scores.numbers)
                folder.save_epoch(checkpoint)
                folder.save_if_best(checkpoint, scores.score)
                if log.run.shows_pictures:
                    sheet = draw_sheet(dataset_val, detections, score_threshold=0.5)
                    log.run.add_picture(epoch, "detections over annotations", sheet)
            log.run.add_epoch(epoch, log.mean, checkpoint.metrics, per_class)
            training.finish_epoch()
        save_state()
        if training.epoch < args.epochs:
            say(f"The validation mAP is no better for {args.patience} evaluations: the end")
    return checkpoint, detections


@script
def main(argv: Sequence[str] | None = None) -> None:
    """A training run from flags to the final file."""
    args = parse(argv)
    runtime = start_runtime(args.device, args.precision, args.seed)
    with RunFolder(
        Path(args.output_dir),
        args.dataset,
        keep=args.keep,
        save_every_minutes=args.save_every_minutes,
        writes=runtime.is_main,
    ) as folder:
        run(args, runtime, folder)


def run(args: argparse.Namespace, runtime: Runtime, folder: RunFolder) -> None:
    """The run, in a folder that is its own until the end."""
    log = RunLog(
        folder.path,
        device=runtime.device,
        log_every=args.log_every,
        epochs=args.epochs,
        tensorboard=args.tensorboard,
    )

    # What can go wrong goes wrong here, before anything is built or written.
    resumed = folder.open(args.resume, overwrite=args.overwrite)
    start = resumed_start(resumed.content) if resumed else start_weights(args.weights, args.depth)
    dataset_train, dataset_val = open_data(args, runtime)
    anchors = {name: tuple(vars(args)[name]) for name in ANCHOR_FLAGS if vars(args)[name]}
    config = start_config(
        start,
        str(resumed.path if resumed else args.weights),
        num_classes=dataset_train.num_classes(),
        depth=args.depth,
        anchors=anchors,
    )
    say(digest(dataset_train, args.min_side, args.max_side, config))
    settings = deciding_settings(args, config, dataset_train, runtime)
    if resumed:
        resumed.check(settings)

    # The model and all that changes with it.
    model = RetinaNet(config)
    if not resumed:
        say(f"Weights {args.weights}: {take_weights(model, start.weights)}")
    model.to(runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if args.compile:
        compile_network(model, runtime)
    batches, sampler = load_batches(dataset_train, args, runtime)
    overflows = runtime.autocast is torch.float16
    losses = LossLog(log, dataset_train.image_path, skips_overflow=overflows)
    optim = OptimConfig(**learning_settings(args), steps=args.epochs * len(sampler))
    training = Training(model, runtime, optim, losses)
    checkpoint = Checkpoint(
        config,
        model.state_dict(),
        dataset_train.class_names,
        min_side=args.min_side,
        max_side=args.max_side,
    )
    if resumed:
        training.restore(resumed.content)
        last_epoch = training.epoch - 1 if training.epoch else None
        checkpoint = replace(checkpoint, epoch=last_epoch, metrics=resumed.content["metrics"])
        say(f"Resumed {resumed.path}: epoch {training.epoch}, iteration {training.step}")

    # The loop, and what is left of it.
    say(f"Training a ResNet-{args.depth} RetinaNet: {describe(runtime)}")
    say(
        f"{args.batch_size * runtime.world_size} images a step, and --lr {args.lr:g} as given:"
        " it is scaled by nothing"
    )
    folder.claim(args.epochs, sum(w.nbytes for w in checkpoint.weights.values()))
    folder.save_config(vars(args), describe_machine(runtime))
    log.open(training.epoch, training.step, steps=len(sampler))
    checkpoint, detections = run_epochs(
        training, batches, sampler, folder, settings, checkpoint, dataset_val, args
    )
    folder.save_final(checkpoint)
    say(f"Written: {folder.path / 'model_final.pt'}")
    if runtime.is_main and (detections or not dataset_val):  # a finished run has its report
        report = write_report(
            folder.path,
            dataset_val,
            detections,
            title=f"{folder.path.resolve().name}: {args.dataset}, epoch {checkpoint.epoch}",
            facts=describe_model(checkpoint, runtime)
            | {
                "Started from": args.weights,
                "Trained on": f"{len(dataset_train)} images, batches of {args.batch_size}",
                "Learned by": as_flags(learning_settings(args)),
            },
            history=read_records(folder.path / METRICS_FILE),
        )
        say(f"Report: {report}")
    if args.dataset == "shapes" and dataset_val and detections and runtime.is_main:
        sheet = first_free(folder.path / "shapes_retinanet_detections.jpg", is_foreign)
        save_picture(sheet, draw_sheet(dataset_val, detections, score_threshold=0.5))
        say(f"Detections on the validation set, annotations dashed: {sheet}")


if __name__ == "__main__":
    sys.exit(main())
