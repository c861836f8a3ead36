"""Train a RetinaNet on COCO data, on CSV data, or on the built-in sample."""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from torchvision.transforms import Compose

from retinanet import cli, coco_eval, csv_eval
from retinanet.backbone import LAYERS
from retinanet.checkpoint import Checkpoint, start_weights, take_weights
from retinanet.dataloader import (
    AspectRatioBasedSampler,
    Augmenter,
    CocoDataset,
    CSVDataset,
    Normalizer,
    Resizer,
    collater,
)
from retinanet.engine import LossLog, Training
from retinanet.errors import DataError
from retinanet.inference import predict
from retinanet.logger import say
from retinanet.model import ModelConfig, RetinaNet
from retinanet.postprocess import Detections
from retinanet.report import save_sheet
from retinanet.run_folder import RunFolder, check_settings
from retinanet.runtime import (
    Runtime,
    StoppedError,
    StopRequest,
    ignore_interrupts,
    start_runtime,
    usable_workers,
    wait_for_all,
)
from retinanet.sample_data import write_shapes

# What a flag is when it is not given: the original's values, and the sample's.
DEFAULTS = {
    "depth": 50,
    "weights": "imagenet",
    "epochs": 100,
    "batch_size": 2,
    "lr": 1e-5,
    "min_side": 608,
    "max_side": 1024,
}
SHAPES_DEFAULTS = DEFAULTS | {
    "depth": 18,
    "weights": "none",
    "epochs": 4,
    "batch_size": 4,
    "lr": 3e-4,
    "min_side": 256,
    "max_side": 384,
}
SAMPLE_SIZE = {"train_images": 300, "val_images": 60}


def parser() -> cli.Parser:
    """The flags of train.py."""
    result = cli.Parser("Train a RetinaNet on COCO data, on CSV data, or on the built-in sample.")
    data = result.add_argument_group("data")
    data.add_argument(
        "--dataset", choices=("coco", "csv", "shapes"), required=True, help="shapes: the sample"
    )
    data.add_argument("--coco_path", metavar="DIR", help="holds annotations/ and images/")
    data.add_argument(
        "--coco_train_set", default="train2017", metavar="SET", help="to train on (train2017)"
    )
    data.add_argument(
        "--coco_val_set", default="val2017", metavar="SET", help="to evaluate on (val2017)"
    )
    data.add_argument("--csv_train", metavar="FILE", help="path,x1,y1,x2,y2,class")
    data.add_argument("--csv_classes", metavar="FILE", help="name,id")
    data.add_argument("--csv_val", metavar="FILE", help="as --csv_train (no evaluation)")
    data.add_argument(
        "--csv_images_dir",
        metavar="DIR",
        help="where relative image paths start (beside the CSV, else the working directory)",
    )

    model = result.add_argument_group("model")
    model.add_argument(
        "--depth", type=int, choices=tuple(LAYERS), help="of the ResNet (50; shapes: 18)"
    )
    model.add_argument(
        "--weights",
        metavar="WHAT",
        help="to start from: imagenet, none, or a FILE of a ResNet or detector"
        " (imagenet; shapes: none)",
    )

    training = result.add_argument_group("training")
    training.add_argument(
        "--epochs", type=cli.positive_int, metavar="N", help="passes over the data (100; shapes: 4)"
    )
    training.add_argument(
        "--lr", type=cli.positive_float, help="Adam's learning rate (1e-5; shapes: 3e-4)"
    )
    training.add_argument(
        "--min_side",
        type=cli.positive_int,
        metavar="PX",
        help="length that an image's shorter side gets (608; shapes: 256)",
    )
    training.add_argument(
        "--max_side",
        type=cli.positive_int,
        metavar="PX",
        help="most that its longer side may get (1024; shapes: 384)",
    )
    training.add_argument(
        "--on_bad_image",
        choices=("error", "skip"),
        default="error",
        help="skip: leave out images that cannot be read, up to 100 (error)",
    )
    training.add_argument(
        "--seed", type=cli.count, default=0, metavar="N", help="of every random choice (0)"
    )
    machine = cli.add_device_flags(result, precision="auto", batch_size=None)
    machine.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile the network: minutes at the start and for each new image size",
    )

    output = result.add_argument_group("output")
    output.add_argument(
        "--output_dir", default=".", metavar="DIR", help="for the checkpoints (here)"
    )
    output.add_argument(
        "--overwrite", action="store_true", help="remove an old run's files there first"
    )
    output.add_argument(
        "--resume",
        nargs="?",
        const=True,
        metavar="FILE",
        help="go on with the run there, or from another run's training_state.pt",
    )
    output.add_argument(
        "--save_every_minutes",
        type=cli.positive_float,
        default=10.0,
        metavar="MIN",
        help="how much a power cut may cost (10)",
    )
    output.add_argument(
        "--keep",
        type=cli.positive_int,
        metavar="N",
        help="keep the files of the last N epochs, and the best and final ones (all)",
    )
    output.add_argument(
        "--log_every",
        type=cli.positive_int,
        default=1,
        metavar="N",
        help="steps between two lines of losses (1)",
    )
    output.add_argument(
        "--eval_every",
        type=cli.positive_int,
        default=1,
        metavar="N",
        help="epochs between two evaluations (1)",
    )
    return result


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the flags and fill in the defaults of the data set."""
    flags = parser()
    args = flags.parse(argv)
    for name in {"coco": ["coco_path"], "csv": ["csv_train", "csv_classes"]}.get(args.dataset, []):
        if getattr(args, name) is None:
            flags.error(f"--dataset {args.dataset} needs --{name}")
    defaults = SHAPES_DEFAULTS if args.dataset == "shapes" else DEFAULTS
    chosen = {name: value for name, value in defaults.items() if getattr(args, name) is None}
    vars(args).update(chosen)
    if args.dataset == "shapes":
        settings = " ".join(f"--{name} {value}" for name, value in chosen.items())
        say(f"The sample's settings: {settings}")
    if args.max_side < args.min_side:
        flags.error(f"--max_side {args.max_side} is less than --min_side {args.min_side}")
    if args.dataset == "shapes":
        for name in ("csv_train", "csv_val", "csv_classes", "csv_images_dir", "coco_path"):
            if getattr(args, name) is not None:
                flags.error(f"--dataset shapes makes its own data; leave out --{name}")
    if args.resume is True and args.overwrite:
        flags.error("--resume goes on with the files that --overwrite would remove")
    return args


def state_to_resume(args: argparse.Namespace, folder: RunFolder) -> Path | None:
    """The file to resume from, if any.

    A worker that torchrun restarts (--max_restarts) goes on with its own run: the one whose state
    carries torchrun's id.
    """
    restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    if restarted and folder.state_file.is_file():
        if folder.read_state(folder.state_file).get("run_id") == run_id():
            return folder.state_file
    if not args.resume:
        return None
    return folder.state_file if args.resume is True else Path(args.resume)


def run_id() -> str | None:
    """What torchrun calls this run and all its restarts."""
    return os.environ.get("TORCHELASTIC_RUN_ID")


def open_data(args: argparse.Namespace, runtime: Runtime) -> tuple[cli.Data, cli.Data | None]:
    """The data to train on and the data to evaluate on, as the flags say."""
    training = Compose([Augmenter(args.seed), Resizer(args.min_side, args.max_side), Normalizer()])
    evaluation = cli.evaluation_transform(args.min_side, args.max_side)
    train: cli.Data
    val: cli.Data | None
    if args.dataset == "coco":
        train = CocoDataset(args.coco_path, args.coco_train_set, training)
        val = CocoDataset(args.coco_path, args.coco_val_set, evaluation)
    else:
        if args.dataset == "shapes":
            sample_folder = Path(args.output_dir) / "shapes"
            if runtime.is_main:
                write_shapes(sample_folder, **SAMPLE_SIZE)
            wait_for_all()
            sample = write_shapes(sample_folder, **SAMPLE_SIZE)  # finds it
            args.csv_train, args.csv_val = sample.csv_train, sample.csv_val
            args.csv_classes = sample.csv_classes
        train = CSVDataset(args.csv_train, args.csv_classes, training, args.csv_images_dir)
        val = args.csv_val and CSVDataset(
            args.csv_val, args.csv_classes, evaluation, args.csv_images_dir
        )
    cli.tell_notes("Training data", train)
    if val:
        cli.tell_notes("Validation data", val)
        if val.class_names != train.class_names:
            raise DataError(
                f"the validation data has the classes {', '.join(val.class_names)}, the training"
                f" data {', '.join(train.class_names)}; give both the same ones, in one order"
            )
    return train, val


def evaluate(
    model: RetinaNet, dataset: cli.Data, args: argparse.Namespace, runtime: Runtime
) -> tuple[list[Detections], dict[str, float]]:
    """Detect on the validation data, say the scores, and return both."""
    say(f"Evaluating on {len(dataset)} images")
    detections = predict(
        model,
        dataset,
        batch_size=2 * args.batch_size,
        workers=usable_workers(args.workers),
        autocast=runtime.autocast,
        progress=True,
    )
    coco = coco_eval.score_coco(dataset, detections)
    if isinstance(dataset, CocoDataset):
        say(coco.summary)
        return detections, coco.stats
    voc = csv_eval.score_csv(dataset, detections)
    say(csv_eval.csv_table(voc))
    say(f"COCO's AP {coco.stats['AP']:.3f}, AP50 {coco.stats['AP50']:.3f} ({runtime.precision})")
    return detections, coco.stats | {"mAP": voc.mean_average_precision or 0.0}


def load_batches(
    dataset: cli.Data, args: argparse.Namespace, runtime: Runtime
) -> tuple[DataLoader[Any], AspectRatioBasedSampler]:
    """Batches of an epoch, and the sampler that is to be told which epoch."""
    sampler = AspectRatioBasedSampler(
        dataset,
        args.batch_size,
        seed=args.seed,
        rank=runtime.rank,
        world_size=runtime.world_size,
    )
    workers = usable_workers(args.workers)
    batches = DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collater,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=runtime.device.type == "cuda",
        worker_init_fn=ignore_interrupts,
    )
    return batches, sampler


def deciding_settings(
    args: argparse.Namespace, dataset: cli.Data, runtime: Runtime
) -> dict[str, object]:
    """What a resumed run must agree with, lest it end in other weights."""
    return {
        "--dataset": args.dataset,
        "the training data's checksum": cli.checksum(dataset),
        "the classes": list(dataset.class_names),
        "--depth": args.depth,
        "--batch_size (of all processes)": args.batch_size * runtime.world_size,
        "--lr": args.lr,
        "--min_side": args.min_side,
        "--max_side": args.max_side,
        "--seed": args.seed,
        "--precision": runtime.precision,
    }


def run_epochs(
    training: Training,
    batches: DataLoader[Any],
    sampler: AspectRatioBasedSampler,
    folder: RunFolder,
    settings: dict[str, object],
    checkpoint: Checkpoint,
    dataset_val: cli.Data | None,
    args: argparse.Namespace,
) -> tuple[Checkpoint, list[Detections]]:
    """Train, save, evaluate, epoch by epoch; return the last checkpoint and its detections."""

    def save_state() -> None:
        facts = {"run_id": run_id(), "metrics": checkpoint.metrics}
        folder.save_state({**training.state(), **facts}, settings)

    def save_state_if_due() -> None:
        if folder.state_is_due():
            save_state()

    detections: list[Detections] = []
    with StopRequest("go on with the same command and --resume") as stop:
        while training.epoch < args.epochs:
            sampler.set_epoch(training.epoch, first_batch=training.step)
            try:
                training.train_epoch(batches, stop, after_step=save_state_if_due)
            except StoppedError:
                save_state()
                raise
            save_state()
            checkpoint = replace(
                checkpoint, weights=training.model.state_dict(), epoch=training.epoch, metrics={}
            )
            folder.save_epoch(checkpoint)
            last = training.epoch + 1 == args.epochs
            if dataset_val and (last or (training.epoch + 1) % args.eval_every == 0):
                with stop.at_once():
                    detections, metrics = evaluate(
                        training.model, dataset_val, args, training.runtime
                    )
                checkpoint = replace(checkpoint, metrics=metrics)
                folder.save_epoch(checkpoint)
                folder.save_if_best(checkpoint, metrics.get("mAP", metrics["AP"]))
            training.finish_epoch()
        save_state()
    return checkpoint, detections


@cli.script
def main(argv: Sequence[str] | None = None) -> None:
    """A training run from flags to the final file."""
    args = parse(argv)
    runtime = start_runtime(args.device, args.precision, args.seed)
    folder = RunFolder(
        Path(args.output_dir),
        args.dataset,
        keep=args.keep,
        save_every_minutes=args.save_every_minutes,
        writes=runtime.is_main,
    )

    # What can go wrong goes wrong here, before anything is built or written.
    resumed = state_to_resume(args, folder)
    state = folder.read_state(resumed) if resumed else None
    own = resumed and resumed.resolve() == folder.state_file.resolve()
    old_files = [] if own else folder.old_files(overwrite=args.overwrite)
    weights = {} if resumed else start_weights(args.weights, args.depth)
    dataset_train, dataset_val = open_data(args, runtime)
    dataset_train.skip_unreadable = args.on_bad_image == "skip"
    settings = deciding_settings(args, dataset_train, runtime)
    if resumed and state:
        check_settings(resumed, state, settings)

    # The model and all that changes with it.
    config = ModelConfig(num_classes=dataset_train.num_classes(), depth=args.depth)
    model = RetinaNet(config)
    if not resumed:
        say(f"Weights {args.weights}: {take_weights(model, weights)}")
    model.to(runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if args.compile:
        if cli.shares_batches(runtime):  # the replicas would run the first GPU's weights
            raise DataError("--compile with several GPUs needs torchrun, or give --device cuda:0")
        model.predict = torch.compile(model.predict)  # type: ignore[method-assign]
    overflows = runtime.autocast is torch.float16
    log = LossLog(args.log_every, dataset_train.image_path, skips_overflow=overflows)
    training = Training(model, runtime, args.lr, log)
    checkpoint = Checkpoint(
        config,
        model.state_dict(),
        dataset_train.class_names,
        min_side=args.min_side,
        max_side=args.max_side,
    )
    if state:
        training.restore(state)
        last_epoch = training.epoch - 1 if training.epoch else None
        checkpoint = replace(checkpoint, epoch=last_epoch, metrics=state["metrics"])
        say(f"Resumed {resumed}: epoch {training.epoch}, iteration {training.step}")

    # The loop, and what is left of it.
    say(f"Training a ResNet-{args.depth} RetinaNet: {cli.describe(runtime)}")
    batches, sampler = load_batches(dataset_train, args, runtime)
    folder.claim(old_files, args.epochs, sum(w.nbytes for w in checkpoint.weights.values()))
    checkpoint, detections = run_epochs(
        training, batches, sampler, folder, settings, checkpoint, dataset_val, args
    )
    folder.save_final(checkpoint)
    say(f"Written: {folder.folder / 'model_final.pt'}")
    if args.dataset == "shapes" and dataset_val and detections and runtime.is_main:
        sheet = folder.folder / "shapes_retinanet_detections.jpg"
        save_sheet(sheet, dataset_val, detections, score_threshold=0.5)
        say(f"Detections on the validation set, annotations dashed: {sheet}")


if __name__ == "__main__":
    sys.exit(main())
