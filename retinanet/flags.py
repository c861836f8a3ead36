"""Flags: the parser, the types of values, the groups of flags that scripts share."""

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NoReturn

from retinanet.anchors import RATIOS, SCALES, SIZES
from retinanet.errors import printable
from retinanet.optim import BATCH_NORMS, OPTIMIZERS, SCHEDULES, Recipe
from retinanet.postprocess import (
    CANDIDATES_PER_LEVEL,
    MAX_DETECTIONS,
    NMS_THRESHOLD,
    SCORE_THRESHOLD,
)
from retinanet.runtime import PRECISIONS

DETECTION_FLAGS = (
    "score_threshold",
    "nms_threshold",
    "candidates_per_level",
    "max_detections",
    "class_agnostic_nms",
)

# A flag may be written with dashes too, and several flags may stand in a file: @FILE.
EPILOG = "Flags may be written with dashes too; @FILE stands for the flags in a file (# comments)."


def _underscores(argument: str) -> str:
    """--some-flag=a-value to --some_flag=a-value."""
    return re.sub(r"^--[a-z][a-z0-9-]*", lambda m: "--" + m[0][2:].replace("-", "_"), argument)


class _HelpFormatter(argparse.HelpFormatter):
    """Wide, and with a short word for the value of each type."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=100)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """The flag's own name: the names it had elsewhere stand below the flags."""
        if not action.option_strings or not action.option_strings[0].startswith("--"):
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{action.option_strings[0]} {value}".strip()

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        known = METAVARS.get(action.type)
        return known or super()._get_default_metavar_for_optional(action)


class Parser(argparse.ArgumentParser):
    """Argparse with flags from files, dashes accepted for underscores, errors in one line."""

    def __init__(self, description: str) -> None:
        super().__init__(
            description=description,
            epilog=EPILOG,
            fromfile_prefix_chars="@",
            allow_abbrev=False,
            formatter_class=_HelpFormatter,
        )

    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        """A line of an @file: any number of flags, shell-like quotes and comments."""
        try:
            return [_underscores(word) for word in shlex.split(arg_line, comments=True)]
        except ValueError as error:
            self.error(f"@FILE: {arg_line!r}: {error}; quote what holds quotes")

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """Parse `argv`, or the process's arguments."""
        words = sys.argv[1:] if argv is None else argv
        for word in words:
            if printable(word) != word:  # it would break the lines that name it
                self.error(f"{printable(word)} holds control characters; rename the file")
        try:
            return self.parse_args([_underscores(word) for word in words])
        except UnicodeDecodeError as error:
            self.error(f"@FILE: {error}; expected UTF-8 text")

    def format_help(self) -> str:
        """A line for each flag, and one for all the other names that flags have."""
        names = (action.option_strings for action in self._actions)
        old = [f"{', '.join(other)} = {name}" for name, *other in filter(None, names) if other]
        old = [text for text in old if text.startswith("--") and "--help" not in text]
        self.epilog = EPILOG + (f" Other names: {'; '.join(old)}." if old else "")
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """One line on stderr, exit code 2."""
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


# ---- types of values ----


def positive_int(text: str) -> int:
    """A whole number, 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def count(text: str) -> int:
    """A whole number, 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def positive_float(text: str) -> float:
    """A finite number above 0."""
    value = _number(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def share(text: str) -> float:
    """A number of 0 to 1, 1 excluded."""
    return 0.0 if _number(text) == 0 else fraction(text)


def _number(text: str) -> float:
    """NaN where it is none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def fraction(text: str) -> float:
    """A number between 0 and 1, both excluded."""
    value = positive_float(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1")
    return value


METAVARS: dict[object, str] = {
    positive_int: "N",
    count: "N",
    positive_float: "X",
    fraction: "P",
    share: "X",
}


# ---- groups of flags ----


def add_device_flags(parser: Parser, *, precision: str, batch_size: int) -> argparse._ArgumentGroup:
    """--device, --precision, --workers, --batch_size; returns their group."""
    group = parser.add_argument_group("machine")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (auto)")
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=precision,
        metavar="KIND",
        help=f"{', '.join(PRECISIONS)}; auto: bf16 where it is fast ({precision})",
    )
    group.add_argument(
        "--workers",
        type=count,
        default=3,
        help="loader processes, never more than cores (3)",
    )
    group.add_argument(
        "--batch_size",
        type=positive_int,
        default=batch_size,
        help=f"images at a time ({batch_size})",
    )
    return group


def add_training_data_flags(parser: Parser, kinds: Sequence[str]) -> None:
    """What to train on and what to evaluate on."""
    group = parser.add_argument_group("data")
    group.add_argument("--dataset", choices=kinds, required=True, help="the data's format")
    group.add_argument("--coco_path", metavar="DIR", help="holds annotations/ and images/")
    group.add_argument(
        "--coco_train_set", default="train2017", metavar="SET", help="to train on (train2017)"
    )
    group.add_argument(
        "--coco_val_set", default="val2017", metavar="SET", help="to evaluate on (val2017)"
    )
    group.add_argument("--csv_train", metavar="FILE", help="path,x1,y1,x2,y2,class")
    group.add_argument("--csv_classes", metavar="FILE", help="name,id")
    group.add_argument("--csv_val", metavar="FILE", help="as --csv_train (no evaluation)")
    add_reading_flags(group)


def check_training_flags(parser: Parser, args: argparse.Namespace) -> None:
    """End where the data's format needs a flag that is not given, or the sizes are at odds."""
    needed = {"coco": ("coco_path",), "csv": ("csv_train", "csv_classes")}
    for name in needed.get(args.dataset, ()):
        if getattr(args, name) is None:
            parser.error(f"--dataset {args.dataset} needs --{name}")
    if args.max_side < args.min_side:
        parser.error(f"--max_side {args.max_side} is less than --min_side {args.min_side}")


def add_size_flags(group: argparse._ArgumentGroup, min_side: str, max_side: str) -> None:
    """--min_side and --max_side, without defaults; the texts tell what they will be."""
    group.add_argument(
        "--min_side",
        type=positive_int,
        metavar="PX",
        help=f"length that an image's shorter side gets ({min_side})",
    )
    group.add_argument(
        "--max_side",
        type=positive_int,
        metavar="PX",
        help=f"most that its longer side may get ({max_side})",
    )


def add_learning_flags(group: argparse._ArgumentGroup) -> None:
    """What a `Recipe` holds; the defaults are the original's."""
    group.add_argument("--lr", type=positive_float, help="learning rate (1e-5; shapes: 6e-4)")
    group.add_argument(
        "--optimizer",
        choices=OPTIMIZERS,
        default=Recipe.optimizer,
        metavar="KIND",
        help=f"{', '.join(OPTIMIZERS)} (adam)",
    )
    group.add_argument(
        "--weight_decay", type=share, default=Recipe.weight_decay, help="of all parameters (0)"
    )
    group.add_argument(
        "--schedule",
        choices=SCHEDULES,
        default=Recipe.schedule,
        metavar="KIND",
        help="plateau, cosine, step (at 2/3 and 11/12) (plateau; shapes: cosine)",
    )
    group.add_argument(
        "--warmup",
        type=count,
        default=Recipe.warmup,
        help="first steps, in which the lr rises from 0 (0; shapes: 100)",
    )
    group.add_argument(
        "--clip_norm",
        type=positive_float,
        default=Recipe.clip_norm,
        help="most norm of the gradient (0.1)",
    )
    group.add_argument(
        "--batch_norm",
        choices=BATCH_NORMS,
        default=Recipe.batch_norm,
        metavar="KIND",
        help="frozen, or trained: for --weights none (frozen; shapes: trained)",
    )
    group.add_argument(
        "--trainable_layers",
        type=int,
        choices=range(Recipe.trainable_layers + 1),
        default=Recipe.trainable_layers,
        metavar="N",
        help="last parts of the ResNet that learn, of stem and 4 stages (5)",
    )


def learning_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_learning_flags` asked for, as keywords of `Recipe`."""
    names = [field.name for field in fields(Recipe) if field.name != "steps"]
    return {name: getattr(args, name) for name in names}


def add_anchor_flags(group: argparse._ArgumentGroup, *, unless: str = "") -> None:
    """--anchor_sizes, --anchor_ratios, --anchor_scales.

    Args:
        group: of the flags.
        unless: what decides where a flag is not given, which is None then; else the paper.
    """
    for name, nargs, default, text in (
        ("sizes", len(SIZES), SIZES, "anchor sides on P3 to P7, px"),
        ("ratios", "+", RATIOS, "their heights / widths"),
        ("scales", "+", SCALES, "factors on their sizes"),
    ):
        values = " ".join(f"{value:.4g}" for value in default)
        group.add_argument(
            f"--anchor_{name}",
            nargs=nargs,
            type=positive_float,
            default=None if unless else default,
            help=f"{text} ({unless or values})",
        )


def add_reading_flags(group: argparse._ArgumentGroup) -> None:
    """Where a CSV's images are, and what is done with what can be repaired."""
    group.add_argument(
        "--csv_images_dir",
        "--images_path",
        dest="csv_images_dir",
        metavar="DIR",
        help="where relative image paths start (beside the CSV, else here)",
    )
    group.add_argument(
        "--strict", action="store_true", help="what would be repaired in the data is an error"
    )


def add_model_flags(parser: Parser) -> None:
    """MODEL, --model, --model_path: one destination, `model`."""
    group = parser.add_argument_group("model")
    group.add_argument("file", nargs="?", metavar="MODEL", help="a saved .pt")
    group.add_argument(
        "--model", "--model_path", dest="model", metavar="FILE", help="the same, as a flag"
    )


def model_file(parser: Parser, args: argparse.Namespace) -> str:
    """The checkpoint that was named, once, in either way."""
    if args.file and args.model and args.file != args.model:
        parser.error(f"two models are named: {args.file} and {args.model}")
    if not (args.file or args.model):
        parser.error("no model is named; give a saved .pt, or --model FILE")
    return str(args.file or args.model)


def add_data_flags(parser: Parser) -> None:
    """What to evaluate or draw: COCO or CSV data, under all names that the scripts ever had."""
    group = parser.add_argument_group("data")
    group.add_argument("--dataset", choices=("coco", "csv"), help="may be left out")
    group.add_argument(
        "--coco_path", metavar="DIR", help="COCO data: annotations/instances_SET.json and images/"
    )
    group.add_argument("--coco_val_set", default="val2017", metavar="SET", help="its set (val2017)")
    group.add_argument(
        "--csv_val",
        "--csv_annotations_path",
        dest="csv_val",
        metavar="FILE",
        help="CSV data: path,x1,y1,x2,y2,class",
    )
    group.add_argument(
        "--csv_classes",
        "--class_list_path",
        "--class_list",
        dest="csv_classes",
        metavar="FILE",
        help="name,id (the model's own classes)",
    )
    add_reading_flags(group)


def add_detection_flags(parser: Parser, score_threshold: float = SCORE_THRESHOLD) -> None:
    """Thresholds of detection."""
    group = parser.add_argument_group("detection")
    group.add_argument(
        "--score_threshold",
        type=fraction,
        default=score_threshold,
        help=f"detections at or below it are dropped ({score_threshold})",
    )
    group.add_argument(
        "--nms_threshold",
        type=fraction,
        default=NMS_THRESHOLD,
        metavar="IOU",
        help=f"overlap with a better box at which one is dropped ({NMS_THRESHOLD})",
    )
    group.add_argument(
        "--candidates_per_level",
        type=positive_int,
        default=CANDIDATES_PER_LEVEL,
        help=f"most boxes of a pyramid level before NMS ({CANDIDATES_PER_LEVEL})",
    )
    group.add_argument(
        "--max_detections",
        type=positive_int,
        default=MAX_DETECTIONS,
        help=f"most detections of an image ({MAX_DETECTIONS})",
    )
    group.add_argument(
        "--class_agnostic_nms",
        action="store_true",
        help="let a box be dropped for a better one of any class",
    )


def detection_limits(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_detection_flags` asked for, as keywords of `predict` and of `RetinaNet.detect`."""
    return {name: getattr(args, name) for name in DETECTION_FLAGS}
