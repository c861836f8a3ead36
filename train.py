"""Train a RetinaNet on COCO data, on CSV data, or on the built-in sample."""

import argparse
import collections
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torchvision.transforms import Compose

from retinanet import cli, coco_eval, csv_eval
from retinanet.backbone import LAYERS
from retinanet.checkpoint import (
    Checkpoint,
    claim_folder,
    old_run_files,
    save_checkpoint,
    start_weights,
    take_weights,
)
from retinanet.dataloader import (
    AspectRatioBasedSampler,
    Augmenter,
    CocoDataset,
    CSVDataset,
    Normalizer,
    Resizer,
    collater,
)
from retinanet.engine import RUNNING_LOSSES, LossLog, parallel, train_one_epoch
from retinanet.inference import predict
from retinanet.logger import say
from retinanet.model import ModelConfig, RetinaNet
from retinanet.postprocess import Detections
from retinanet.report import save_sheet
from retinanet.runtime import Runtime, start_runtime, usable_workers
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
        "--seed", type=cli.count, default=0, metavar="N", help="of every random choice (0)"
    )
    cli.add_device_flags(result, precision="auto", batch_size=None)

    output = result.add_argument_group("output")
    output.add_argument(
        "--output_dir", default=".", metavar="DIR", help="for the checkpoints (here)"
    )
    output.add_argument(
        "--overwrite", action="store_true", help="remove an old run's files there first"
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
    return args


def open_data(args: argparse.Namespace) -> tuple[cli.Data, cli.Data | None]:
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
            sample = write_shapes(Path(args.output_dir) / "shapes", **SAMPLE_SIZE)
            args.csv_train, args.csv_val = sample.csv_train, sample.csv_val
            args.csv_classes = sample.csv_classes
        train = CSVDataset(args.csv_train, args.csv_classes, training, args.csv_images_dir)
        val = args.csv_val and CSVDataset(
            args.csv_val, args.csv_classes, evaluation, args.csv_images_dir
        )
    cli.tell_notes("Training data", train)
    if val:
        cli.tell_notes("Validation data", val)
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


@cli.script
def main(argv: Sequence[str] | None = None) -> None:
    """A training run from flags to the final file."""
    args = parse(argv)
    folder = Path(args.output_dir)
    runtime = start_runtime(args.device, args.precision, args.seed)

    # What can go wrong goes wrong here, before anything is built or written.
    old_files = old_run_files(folder, overwrite=args.overwrite)
    weights = start_weights(args.weights, args.depth)
    dataset_train, dataset_val = open_data(args)
    sampler = AspectRatioBasedSampler(dataset_train, args.batch_size, seed=args.seed)
    workers = usable_workers(args.workers)
    batches = DataLoader(
        dataset_train,
        batch_sampler=sampler,
        collate_fn=collater,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=runtime.device.type == "cuda",
    )

    # The model, wrapped as the original does.
    config = ModelConfig(num_classes=dataset_train.num_classes(), depth=args.depth)
    model = RetinaNet(config)
    say(f"Weights {args.weights}: {take_weights(model, weights)}")
    model.to(runtime.device, memory_format=torch.channels_last)
    wrapper = parallel(model, runtime.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr, fused=True)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=3)
    scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.autocast is torch.float16)
    running = collections.deque[float](maxlen=RUNNING_LOSSES)
    state = Checkpoint(
        config, {}, dataset_train.class_names, min_side=args.min_side, max_side=args.max_side
    )
    say(f"Training a ResNet-{args.depth} RetinaNet on {runtime.device}, {runtime.precision}")

    # The loop.
    claim_folder(folder, old_files)
    detections: list[Detections] = []
    for epoch in range(args.epochs):
        log = LossLog(epoch, running, args.log_every, dataset_train.image_path)
        mean_loss = train_one_epoch(wrapper, batches, optimizer, scaler, log, runtime.autocast)
        state = replace(state, weights=model.state_dict(), epoch=epoch, metrics={})
        file = folder / f"{args.dataset}_retinanet_{epoch}.pt"
        save_checkpoint(file, state)
        if dataset_val and (epoch + 1) % args.eval_every == 0:
            detections, metrics = evaluate(model, dataset_val, args, runtime)
            state = replace(state, metrics=metrics)
            save_checkpoint(file, state)
        scheduler.step(mean_loss)
    save_checkpoint(folder / "model_final.pt", state)
    say(f"Written: {folder / 'model_final.pt'}")
    if args.dataset == "shapes" and dataset_val and detections:
        sheet = folder / "shapes_retinanet_detections.jpg"
        save_sheet(sheet, dataset_val, detections, score_threshold=0.5)
        say(f"Detections on the validation set, annotations dashed: {sheet}")


if __name__ == "__main__":
    sys.exit(main())
