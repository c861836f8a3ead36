"""The flags of train.py, their defaults, and which of them a resumed run must repeat."""

import argparse
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from retinanet.backbone import LAYERS
from retinanet.cli.data_defaults import suited_settings
from retinanet.cli.flags import (
    add_anchor_flags,
    add_augment_flag,
    add_bad_image_flag,
    add_device_flags,
    add_learning_flags,
    add_network_size_flags,
    add_size_flags,
    add_tile_flags,
    add_training_data_flags,
    check_training_flags,
    learning_settings,
)
from retinanet.cli.parser import (
    Parser,
    fraction,
    non_negative_int,
    positive_float,
    positive_int,
    value_text,
)
from retinanet.data.datasets import Data, checksum
from retinanet.data.transforms import MAX_SIDE, MIN_SIDE
from retinanet.errors import DataError
from retinanet.model import ModelConfig
from retinanet.runtime.console import say
from retinanet.runtime.device import Runtime
from retinanet.training.optim import OptimConfig

# What a flag is when it is not given: the original's values.
DEFAULTS = {
    "depth": 50,
    "weights": "imagenet",
    "epochs": 100,
    "lr": 1e-5,
    "schedule": OptimConfig.schedule,
    "warmup": OptimConfig.warmup,
    "batch_norm": OptimConfig.batch_norm,
    "min_side": MIN_SIDE,
    "max_side": MAX_SIDE,
    "augment": "none",
}

# The sample's: those of recipes/from-scratch.args, its size, and a number of epochs.
SHAPES_DEFAULTS = {
    "depth": 18,
    "weights": "none",
    "epochs": 3,
    "lr": 6e-4,
    "schedule": "cosine",
    "warmup": 100,
    "batch_norm": "trained",
    "min_side": 96,
    "max_side": 128,
}

# Flags that change neither weights nor scores.
_NOT_DECIDING = """
    output_dir resume overwrite workers tensorboard log_every save_every_minutes keep device compile
""".split()

# Flags that are settings of the network; None: as those of the initial weights.
NETWORK_FLAGS = {
    "fpn_channels": "channels",
    "head_convs": "head_convs",
    "anchor_sizes": "anchor_sizes",
    "anchor_ratios": "anchor_ratios",
    "anchor_scales": "anchor_scales",
}


def parser() -> Parser:
    """The flags of train.py."""
    result = Parser("Train a RetinaNet on a labelled folder, COCO or CSV data, or a sample.")
    data = add_training_data_flags(result, kinds=("coco", "csv", "shapes"))
    data.add_argument(
        "--val_share",
        type=fraction,
        default=0.2,
        help="share to set aside where --data has no validation set",
    )
    data.add_argument(
        "--no_near_duplicates",
        action="store_true",
        help="let images that look alike fall on both sides of that split",
    )
    model = result.add_argument_group("model")
    model.add_argument("--depth", type=int, choices=tuple(LAYERS), help="depth of the ResNet")
    model.add_argument(
        "--weights",
        metavar="WHAT",
        help="imagenet[-v2], none, torchvision-coco, FILE",
    )
    add_network_size_flags(model)
    add_anchor_flags(model, unless="as --weights FILE, else the paper's")

    _add_training_flags(result)
    add_tile_flags(result, trained=False)
    machine = add_device_flags(result, precision="auto", batch_size=2)
    machine.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile the network: minutes at the start, for all image sizes",
    )

    _add_output_flags(result)
    result.show_defaults(DEFAULTS, shapes=SHAPES_DEFAULTS)
    return result


def _add_training_flags(result: Parser) -> None:
    training = result.add_argument_group("training")
    training.add_argument("--epochs", type=positive_int, help="passes over the data")
    training.add_argument(
        "--minutes",
        type=positive_float,
        help="time to fit the whole run to, instead of --epochs",
    )
    training.add_argument(
        "--patience",
        type=positive_int,
        help="stop after N evaluations without a better mAP (never)",
    )
    add_learning_flags(training)
    add_size_flags(training)
    add_augment_flag(training)
    add_bad_image_flag(training)
    training.add_argument(
        "--seed", type=non_negative_int, default=0, help="seed of every random choice"
    )


def _add_output_flags(result: Parser) -> None:
    output = result.add_argument_group("output")
    output.add_argument(
        "--output_dir", default=".", metavar="DIR", help="folder for all that the run writes (here)"
    )
    output.add_argument(
        "--overwrite", action="store_true", help="remove an old run's files there first"
    )
    output.add_argument(
        "--resume",
        nargs="?",
        const=True,
        metavar="FILE",
        help="continue the run there, or another's training_state.pt",
    )
    output.add_argument(
        "--save_every_minutes",
        type=positive_float,
        default=10.0,
        help="time between two saves of the state: what a power cut may cost",
    )
    output.add_argument(
        "--keep",
        type=positive_int,
        help="checkpoints to keep, of the last epochs, beside best and final (all)",
    )
    output.add_argument(
        "--log_every", type=positive_int, default=1, help="steps between two lines of losses"
    )
    output.add_argument(
        "--eval_every", type=positive_int, default=1, help="epochs between two evaluations"
    )
    output.add_argument(
        "--tensorboard", action="store_true", help="write curves and pictures for TensorBoard too"
    )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the flags and fill in the defaults of the data set; those of --data follow from it."""
    flags = parser()
    flags.set_defaults(**dict.fromkeys(DEFAULTS))  # None: it was not given
    args = flags.parse(argv)
    check_training_flags(flags, args)
    if args.minutes:
        check_minutes(flags, args)
        fill(args, {"schedule": "cosine"})  # the rate is to be run down when the time is over
    if args.dataset == "shapes":
        for name in ("csv_train", "csv_val", "csv_classes", "csv_images_dir", "coco_path"):
            if getattr(args, name) is not None:
                flags.error(f"--dataset shapes makes its own data; leave out --{name}")
        fill(args, SHAPES_DEFAULTS, "The sample's settings")
    if args.dataset != "data":
        fill(args, DEFAULTS)
    if args.patience and args.dataset == "csv" and not args.csv_val:
        flags.error("--patience counts evaluations; it needs --csv_val")
    if args.resume is True and args.overwrite:
        flags.error("--resume goes on with the files that --overwrite would remove")
    problem = args.dataset != "data" and contradiction(args)
    if problem:
        flags.error(problem)
    return args


def check_minutes(flags: Parser, args: argparse.Namespace) -> None:
    """Refuse what contradicts --minutes, from which the number of epochs follows."""
    against = {"epochs": args.epochs, "patience": args.patience}
    for name, value in against.items():
        if value:
            flags.error(
                f"--minutes {args.minutes:g} decides when the run ends; leave out --{name} {value}"
                " (of a recipe: give its other flags)"
            )
    if args.schedule == "plateau":
        flags.error("--minutes runs the rate down; give --schedule cosine or step, not plateau")


def fill(args: argparse.Namespace, values: Mapping[str, object], title: str = "") -> None:
    """Give flags that were not given these values, and say which under a title.

    With --minutes there is no number of epochs.
    """
    chosen = {
        name: value
        for name, value in values.items()
        if vars(args)[name] is None and (name != "epochs" or args.minutes is None)
    }
    vars(args).update(chosen)
    said = {name: value for name, value in chosen.items() if value is not None}
    if title and said:
        say(f"{title}: {as_flags(said)}")


def contradiction(args: argparse.Namespace) -> str:
    """Settings that do not go together, as a message; empty where all do."""
    if args.max_side < args.min_side:
        return f"--max_side {args.max_side} is less than --min_side {args.min_side}"
    if args.warmup and args.schedule == "plateau":
        return (
            f"--warmup {args.warmup} goes with --schedule cosine or --schedule step; with plateau"
            " give --warmup 0"
        )
    if args.trainable_layers < OptimConfig.trainable_layers and (
        args.weights == "none" or args.batch_norm == "trained"
    ):
        return (
            f"--trainable_layers {args.trainable_layers} keeps layers as --weights has them; with"
            f" --weights {args.weights} --batch_norm {args.batch_norm} give --trainable_layers 5"
        )
    return ""


def fill_from_data(args: argparse.Namespace, dataset: Data) -> None:
    """Fill in the settings of --data that follow from the data, and say them as flags.

    Raises:
        DataError: the flags that were given contradict them.
    """
    fill(args, suited_settings(dataset, vars(args)), "Settings that suit the data")
    fill(args, DEFAULTS)
    problem = contradiction(args)
    if problem:
        raise DataError(problem)


def as_flags(values: Mapping[str, object]) -> str:
    """Flags with these values, as one would type them; True stands for a flag without a value."""
    words: list[str] = []
    for name, value in values.items():
        words.append(f"--{name}")
        if value is not True:
            words += map(_typed, value if isinstance(value, list) else [value])
    return " ".join(words)


def _typed(value: object) -> str:
    """A value as one would type it, and no less exact."""
    text = value_text(value)
    return repr(value) if isinstance(value, float) and float(text) != value else shlex.quote(text)


def repeating_command(args: argparse.Namespace) -> str:
    """The command that trains the same again, with the values of all flags that matter.

    Args:
        args: of the run, filled in.
    """
    other = tuple(f"{kind}_" for kind in ("coco", "csv") if kind != args.dataset)
    unused = {*_NOT_DECIDING}
    unused |= {"dataset"} if args.data else {"format", "val_share"}
    unused |= set() if args.tile else {"tile_overlap"}
    flags = {
        name: value
        for name, value in vars(args).items()
        if value not in (None, False) and name not in unused and not name.startswith(other)
    }
    return f"python train.py {as_flags(flags)}"


def network_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings of the network that were given as flags, as keywords of `ModelConfig`."""
    given = {field: vars(args)[flag] for flag, field in NETWORK_FLAGS.items()}
    return {
        field: tuple(value) if isinstance(value, list) else value
        for field, value in given.items()
        if value is not None
    }


def deciding_settings(
    args: argparse.Namespace, config: ModelConfig, dataset: Data, runtime: Runtime
) -> dict[str, object]:
    """Settings that must match for a resumed run to end in the same weights."""
    return {
        "--dataset": args.dataset,
        "the training data's checksum": checksum(dataset),
        "the classes": list(dataset.class_names),
        "--depth": args.depth,
        "--batch_size (of all processes)": args.batch_size * runtime.world_size,
        **{f"--{name}": value for name, value in learning_settings(args).items()},
        "--epochs": "any" if args.schedule == "plateau" else args.epochs,
        "--minutes": args.minutes,
        "--min_side": args.min_side,
        "--max_side": args.max_side,
        "--fpn_channels": config.channels,
        "--head_convs": config.head_convs,
        "--augment": args.augment,
        "--tile": args.tile,
        "--tile_overlap": args.tile_overlap if args.tile else None,
        "the anchors": [config.anchor_sizes, config.anchor_ratios, config.anchor_scales],
        "--seed": args.seed,
        "--precision": runtime.precision,
    }
