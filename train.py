"""Train a RetinaNet on COCO data, on CSV data, or on the built-in sample."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from torchvision.transforms import Compose

from retinanet import cli, csv_eval
from retinanet.backbone import LAYERS
from retinanet.checkpoint import Checkpoint
from retinanet.data_check import digest
from retinanet.dataloader import (
    AspectRatioBasedSampler,
    Augmenter,
    CocoDataset,
    CSVDataset,
    Data,
    Normalizer,
    Resizer,
    collater,
)
from retinanet.engine import LossLog, Training
from retinanet.errors import DataError
from retinanet.evaluation import Evaluation, measure
from retinanet.flags import (
    Parser,
    add_anchor_flags,
    add_device_flags,
    add_learning_flags,
    add_size_flags,
    add_training_data_flags,
    check_training_flags,
    count,
    learning_settings,
    positive_float,
    positive_int,
)
from retinanet.inference import predict
from retinanet.logger import METRICS_FILE, RunLog, read_records, say
from retinanet.model import ModelConfig, RetinaNet
from retinanet.optim import Recipe
from retinanet.postprocess import Detections
from retinanet.report import draw_sheet, save_picture, write_report
from retinanet.run_folder import RunFolder, check_settings
from retinanet.runtime import (
    Runtime,
    StoppedError,
    StopRequest,
    describe_machine,
    leave_signals_to_main,
    run_id,
    start_runtime,
    usable_workers,
    wait_for_all,
)
from retinanet.sample_data import write_shapes
from retinanet.start import resumed_start, start_config, start_weights, take_weights

# What a flag is when it is not given: the original's values.
DEFAULTS = {
    "depth": 50,
    "weights": "imagenet",
    "epochs": 100,
    "lr": 1e-5,
    "schedule": Recipe.schedule,
    "warmup": Recipe.warmup,
    "batch_norm": Recipe.batch_norm,
    "min_side": 608,
    "max_side": 1024,
}
# The sample's: those of recipes/from-scratch.args, its size, and a number of epochs.
SHAPES_DEFAULTS = {
    "depth": 18,
    "weights": "none",
    "epochs": 4,
    "lr": 6e-4,
    "schedule": "cosine",
    "warmup": 100,
    "batch_norm": "trained",
    "min_side": 256,
    "max_side": 384,
}
ANCHOR_FLAGS = ("anchor_sizes", "anchor_ratios", "anchor_scales")
SAMPLE_SIZE = {"train_images": 300, "val_images": 60}


def parser() -> Parser:
    """The flags of train.py."""
    result = Parser("Train a RetinaNet on COCO data, on CSV data, or on the built-in sample.")
    add_training_data_flags(result, kinds=("coco", "csv", "shapes"))
    model = result.add_argument_group("model")
    model.add_argument(
        "--depth", type=int, choices=tuple(LAYERS), help="of the ResNet (50; shapes: 18)"
    )
    model.add_argument(
        "--weights",
        metavar="WHAT",
        help="imagenet, none, torchvision-coco, FILE (imagenet; shapes: none)",
    )
    add_anchor_flags(model, unless="as --weights FILE, else the paper's")

    training = result.add_argument_group("training")
    training.add_argument(
        "--epochs", type=positive_int, help="passes over the data (100; shapes: 4)"
    )
    training.add_argument(
        "--patience",
        type=positive_int,
        help="stop after N evaluations without a better mAP (never)",
    )
    add_learning_flags(training)
    add_size_flags(training, "608; shapes: 256", "1024; shapes: 384")
    training.add_argument(
        "--on_bad_image",
        choices=("error", "skip"),
        default="error",
        help="skip leaves out unreadable images, up to 100 (error)",
    )
    training.add_argument("--seed", type=count, default=0, help="of every random choice (0)")
    machine = add_device_flags(result, precision="auto", batch_size=2)
    machine.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile the network: minutes for each new image size",
    )

    output = result.add_argument_group("output")
    output.add_argument(
        "--output_dir", default=".", metavar="DIR", help="for all that the run writes (here)"
    )
    output.add_argument(
        "--overwrite", action="store_true", help="remove an old run's files there first"
    )
    output.add_argument(
        "--resume",
        nargs="?",
        const=True,
        metavar="FILE",
        help="go on with the run there, or with another's training_state.pt",
    )
    output.add_argument(
        "--save_every_minutes",
        type=positive_float,
        default=10.0,
        help="how much a power cut may cost (10)",
    )
    output.add_argument(
        "--keep",
        type=positive_int,
        help="files of how many last epochs stay, besides best and final (all)",
    )
    output.add_argument(
        "--log_every", type=positive_int, default=1, help="steps between two lines of losses (1)"
    )
    output.add_argument(
        "--eval_every", type=positive_int, default=1, help="epochs between two evaluations (1)"
    )
    output.add_argument(
        "--tensorboard", action="store_true", help="write curves and pictures for TensorBoard too"
    )
    return result


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the flags and fill in the defaults of the data set."""
    flags = parser()
    flags.set_defaults(**dict.fromkeys(DEFAULTS))  # None: it was not given
    args = flags.parse(argv)
    defaults = SHAPES_DEFAULTS if args.dataset == "shapes" else DEFAULTS
    chosen = {name: value for name, value in defaults.items() if vars(args)[name] is None}
    vars(args).update(chosen)
    if args.dataset == "shapes":
        say(f"The sample's settings: {as_flags(chosen)}")
    check_training_flags(flags, args)
    if args.dataset == "shapes":
        for name in ("csv_train", "csv_val", "csv_classes", "csv_images_dir", "coco_path"):
            if getattr(args, name) is not None:
                flags.error(f"--dataset shapes makes its own data; leave out --{name}")
    if args.patience and args.dataset == "csv" and not args.csv_val:
        flags.error("--patience counts evaluations; it needs --csv_val")
    if args.warmup and args.schedule == "plateau":
        flags.error(
            f"--warmup {args.warmup} goes with --schedule cosine or --schedule step; with plateau"
            " give --warmup 0"
        )
    if args.trainable_layers < Recipe.trainable_layers and (
        args.weights == "none" or args.batch_norm == "trained"
    ):
        flags.error(
            f"--trainable_layers {args.trainable_layers} keeps layers as --weights has them; with"
            f" --weights {args.weights} --batch_norm {args.batch_norm} give --trainable_layers 5"
        )
    if args.resume is True and args.overwrite:
        flags.error("--resume goes on with the files that --overwrite would remove")
    return args


def as_flags(values: Mapping[str, object]) -> str:
    """The words that would give flags these values."""
    return " ".join(f"--{name} {value}" for name, value in values.items())


def open_data(args: argparse.Namespace, runtime: Runtime) -> tuple[Data, Data | None]:
    """The data to train on and the data to evaluate on, as the flags say."""
    training = Compose([Augmenter(args.seed), Resizer(args.min_side, args.max_side), Normalizer()])
    evaluation = cli.evaluation_transform(args.min_side, args.max_side)
    train: Data
    val: Data | None
    if args.dataset == "coco":
        root, strict = args.coco_path, args.strict
        train = CocoDataset(root, args.coco_train_set, training, strict=strict)
        val = CocoDataset(root, args.coco_val_set, evaluation, strict=strict)
    else:
        if args.dataset == "shapes":
            sample_folder = Path(args.output_dir) / "shapes"
            if runtime.is_main:
                write_shapes(sample_folder, **SAMPLE_SIZE)
            wait_for_all()
            sample = write_shapes(sample_folder, **SAMPLE_SIZE)  # finds it
            args.csv_train, args.csv_val = sample.csv_train, sample.csv_val
            args.csv_classes = sample.csv_classes
        train = CSVDataset(
            args.csv_train, args.csv_classes, training, args.csv_images_dir, strict=args.strict
        )
        val = args.csv_val and CSVDataset(
            args.csv_val, train.classes, evaluation, args.csv_images_dir, strict=args.strict
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
    model: RetinaNet, dataset: Data, args: argparse.Namespace, runtime: Runtime
) -> tuple[list[Detections], Evaluation]:
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
    scores = measure(dataset, detections)
    if scores.voc is None:
        say(scores.coco.summary)
    else:
        stats = scores.coco.stats
        say(csv_eval.csv_table(scores.voc))
        say(f"COCO's AP {stats['AP']:.3f}, AP50 {stats['AP50']:.3f} ({runtime.precision})")
    return detections, scores


def load_batches(
    dataset: Data, args: argparse.Namespace, runtime: Runtime
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
        worker_init_fn=leave_signals_to_main,
    )
    return batches, sampler


def deciding_settings(
    args: argparse.Namespace, config: ModelConfig, dataset: Data, runtime: Runtime
) -> dict[str, object]:
    """What a resumed run must agree with, lest it end in other weights."""
    return {
        "--dataset": args.dataset,
        "the training data's checksum": cli.checksum(dataset),
        "the classes": list(dataset.class_names),
        "--depth": args.depth,
        "--batch_size (of all processes)": args.batch_size * runtime.world_size,
        **{f"--{name}": value for name, value in learning_settings(args).items()},
        "--epochs": "any" if args.schedule == "plateau" else args.epochs,
        "--min_side": args.min_side,
        "--max_side": args.max_side,
        "the anchors": [config.anchor_sizes, config.anchor_ratios, config.anchor_scales],
        "--seed": args.seed,
        "--precision": runtime.precision,
    }


def compile_network(model: RetinaNet, runtime: Runtime) -> None:
    """Let torch compile what the model computes before the loss."""
    if cli.shares_batches(runtime):  # the replicas would run the first GPU's weights
        raise DataError("--compile with several GPUs needs torchrun, or give --device cuda:0")
    model.predict = torch.compile(model.predict)  # type: ignore[method-assign]


def run_epochs(
    training: Training,
    batches: DataLoader[Any],
    sampler: AspectRatioBasedSampler,
    folder: RunFolder,
    settings: dict[str, object],
    checkpoint: Checkpoint,
    dataset_val: Data | None,
    args: argparse.Namespace,
) -> tuple[Checkpoint, list[Detections]]:
    """Train, save, evaluate, epoch by epoch; return the last checkpoint and its detections."""

    def save_state() -> None:
        network = asdict(checkpoint.config)
        facts = {"run_id": run_id(), "metrics": checkpoint.metrics, "network": network}
        folder.save_state({**training.state(), **facts}, settings)

    def save_state_if_due() -> None:
        if folder.state_is_due():
            save_state()

    log = training.log
    detections: list[Detections] = []
    with StopRequest("go on with the same command and --resume") as stop:
        while training.epoch < args.epochs and not folder.stands_still(args.patience):
            epoch = training.epoch
            sampler.set_epoch(epoch, first_batch=training.step)
            try:
                training.train_epoch(batches, stop, after_step=save_state_if_due)
            except StoppedError:
                save_state()
                raise
            save_state()
            checkpoint = replace(
                checkpoint, weights=training.model.state_dict(), epoch=epoch, metrics={}
            )
            folder.save_epoch(checkpoint)
            per_class: dict[str, float] = {}
            if dataset_val and (epoch + 1 == args.epochs or (epoch + 1) % args.eval_every == 0):
                with stop.at_once():
                    detections, scores = evaluate(
                        training.model, dataset_val, args, training.runtime
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
    log = RunLog(
        folder.folder,
        device=runtime.device,
        log_every=args.log_every,
        epochs=args.epochs,
        tensorboard=args.tensorboard,
    )

    # What can go wrong goes wrong here, before anything is built or written.
    resumed = folder.state_to_resume(args.resume)
    state = folder.read_state(resumed) if resumed else None
    own = resumed and resumed.resolve() == folder.state_file.resolve()
    old_files = [] if own else folder.old_files(overwrite=args.overwrite)
    start = resumed_start(state) if state else start_weights(args.weights, args.depth)
    dataset_train, dataset_val = open_data(args, runtime)
    dataset_train.skip_unreadable = args.on_bad_image == "skip"
    anchors = {name: tuple(vars(args)[name]) for name in ANCHOR_FLAGS if vars(args)[name]}
    config = start_config(
        start,
        str(resumed or args.weights),
        num_classes=dataset_train.num_classes(),
        depth=args.depth,
        anchors=anchors,
    )
    say(digest(dataset_train, args.min_side, args.max_side, config))
    settings = deciding_settings(args, config, dataset_train, runtime)
    if resumed and state:
        check_settings(resumed, state, settings)

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
    recipe = Recipe(**learning_settings(args), steps=args.epochs * len(sampler))
    training = Training(model, runtime, recipe, losses)
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
    say(
        f"{args.batch_size * runtime.world_size} images a step, and --lr {args.lr:g} as given:"
        " it is scaled by nothing"
    )
    folder.claim(old_files, args.epochs, sum(w.nbytes for w in checkpoint.weights.values()))
    folder.save_config(vars(args), describe_machine(runtime))
    log.open(training.epoch, training.step, steps=len(sampler))
    checkpoint, detections = run_epochs(
        training, batches, sampler, folder, settings, checkpoint, dataset_val, args
    )
    folder.save_final(checkpoint)
    say(f"Written: {folder.folder / 'model_final.pt'}")
    if runtime.is_main and (detections or not dataset_val):  # a finished run has its report
        report = write_report(
            folder.folder,
            dataset_val,
            detections,
            title=f"{folder.folder.resolve().name}: {args.dataset}, epoch {checkpoint.epoch}",
            facts=cli.describe_model(checkpoint, runtime)
            | {
                "Started from": args.weights,
                "Trained on": f"{len(dataset_train)} images, batches of {args.batch_size}",
                "Learned by": as_flags(learning_settings(args)),
            },
            history=read_records(folder.folder / METRICS_FILE),
        )
        say(f"Report: {report}")
    if args.dataset == "shapes" and dataset_val and detections and runtime.is_main:
        sheet = folder.folder / "shapes_retinanet_detections.jpg"
        save_picture(sheet, draw_sheet(dataset_val, detections, score_threshold=0.5))
        say(f"Detections on the validation set, annotations dashed: {sheet}")


if __name__ == "__main__":
    sys.exit(main())
