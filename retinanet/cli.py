"""Flags that the scripts share, and how a script ends."""

import argparse
import functools
import os
import re
import shlex
import signal
import sys
import traceback
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import torch
from torchvision.transforms import Compose

from retinanet.checkpoint import Checkpoint
from retinanet.csv_annotations import read_classes
from retinanet.dataloader import CocoDataset, CSVDataset, Normalizer, Resizer
from retinanet.errors import DataError
from retinanet.logger import say
from retinanet.postprocess import (
    CANDIDATES_PER_LEVEL,
    MAX_DETECTIONS,
    NMS_THRESHOLD,
    SCORE_THRESHOLD,
)
from retinanet.runtime import PRECISIONS, Runtime, StoppedError, part_from_peers, peers

# A flag may be written with dashes too, and several flags may stand in a file: @FILE.
EPILOG = "Flags may be written with dashes too; @FILE stands for the flags in a file (# comments)."


def _underscores(argument: str) -> str:
    """--some-flag=a-value to --some_flag=a-value."""
    return re.sub(r"^--[a-z][a-z0-9-]*", lambda m: "--" + m[0][2:].replace("-", "_"), argument)


class Parser(argparse.ArgumentParser):
    """Argparse with flags from files, dashes accepted for underscores, errors in one line."""

    def __init__(self, description: str) -> None:
        super().__init__(
            description=description,
            epilog=EPILOG,
            fromfile_prefix_chars="@",
            allow_abbrev=False,
            formatter_class=functools.partial(
                argparse.HelpFormatter, max_help_position=32, width=100
            ),
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
        try:
            return self.parse_args([_underscores(word) for word in words])
        except UnicodeDecodeError as error:
            self.error(f"@FILE: {error}; expected UTF-8 text")

    def error(self, message: str) -> NoReturn:
        """One line on stderr, exit code 2."""
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def verdict(error: BaseException) -> tuple[int, str]:
    """The exit code and the one line for an error that its user can mend; 0 for a defect."""
    text = str(error)
    if isinstance(error, StoppedError | KeyboardInterrupt):
        number = error.signal_number if isinstance(error, StoppedError) else signal.SIGINT
        return 128 + number, text or "stopped"
    if isinstance(error, DataError | OSError):  # OSError: no room, no permission
        return 1, text
    if isinstance(error, RuntimeError):
        if "DataLoader worker" in text:
            return 1, (
                "a loader process died, perhaps for want of memory; lower --workers or"
                f" --batch_size ({text.splitlines()[0]})"
            )
        if "out of memory" in text or "not enough memory" in text:
            return 1, "out of memory; lower --batch_size, --max_side or --workers"
        if peers() != (0, 1) and "peer" in text:
            return 1, "another process of this run has ended; its message says why"
    return 0, ""


def script(main: Callable[[Sequence[str] | None], None]) -> Callable[..., int]:
    """Make a script's main return its exit code: 0, or 1 with one line where the data is wrong."""

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        try:
            main(argv)
        except (Exception, KeyboardInterrupt) as error:
            code, message = verdict(error)
            if not code:
                raise
            sys.stderr.write(f"{Path(sys.argv[0]).name}: error: {message}\n")
            # The frames of an error that crossed a loader are held by it, in a cycle, and hold its
            # workers: without this they live until the interpreter ends, and then die noisily.
            traceback.clear_frames(error.__traceback__)
            return code
        finally:
            part_from_peers()
        return 0

    return run


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
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def fraction(text: str) -> float:
    """A number between 0 and 1, both excluded."""
    value = positive_float(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1")
    return value


# ---- groups of flags ----


def add_device_flags(
    parser: Parser, *, precision: str, batch_size: int | None
) -> argparse._ArgumentGroup:
    """--device, --precision, --workers, --batch_size; returns their group."""
    group = parser.add_argument_group("machine")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (auto)")
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=precision,
        help=f"of the network; auto is bf16 where the hardware multiplies it ({precision})",
    )
    group.add_argument(
        "--workers",
        type=count,
        default=3,
        metavar="N",
        help="loader processes, never more than cores (3)",
    )
    group.add_argument(
        "--batch_size",
        type=positive_int,
        default=batch_size,
        metavar="N",
        help=f"images at a time ({batch_size or '2; shapes: 4'})",
    )
    return group


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
    group.add_argument(
        "--csv_images_dir",
        "--images_path",
        dest="csv_images_dir",
        metavar="DIR",
        help="where relative image paths start (beside the CSV, else the working directory)",
    )


def add_detection_flags(parser: Parser, score_threshold: float = SCORE_THRESHOLD) -> None:
    """Thresholds of detection."""
    group = parser.add_argument_group("detection")
    group.add_argument(
        "--score_threshold",
        type=fraction,
        default=score_threshold,
        metavar="P",
        help=f"detections at or below it are dropped ({score_threshold})",
    )
    group.add_argument(
        "--nms_threshold",
        type=fraction,
        default=NMS_THRESHOLD,
        metavar="IOU",
        help=f"overlap with a better box of the class above which one is dropped ({NMS_THRESHOLD})",
    )
    group.add_argument(
        "--candidates_per_level",
        type=positive_int,
        default=CANDIDATES_PER_LEVEL,
        metavar="N",
        help=f"most boxes of a pyramid level before NMS ({CANDIDATES_PER_LEVEL})",
    )
    group.add_argument(
        "--max_detections",
        type=positive_int,
        default=MAX_DETECTIONS,
        metavar="N",
        help=f"most detections of an image ({MAX_DETECTIONS})",
    )


# ---- data ----

Data = CocoDataset | CSVDataset


def evaluation_transform(min_side: int, max_side: int) -> Compose:
    """What evaluation and prediction do to an image."""
    return Compose([Resizer(min_side, max_side), Normalizer()])


def tell_notes(name: str, dataset: Data) -> None:
    """Say what a data set holds and what was noticed about it."""
    boxes = sum(len(dataset.load_annotations(i)) for i in range(len(dataset)))
    say(
        f"{name}: {len(dataset)} images below {dataset.images_root}, {boxes} boxes,"
        f" {dataset.num_classes()} classes"
    )
    for note in dataset.notes:
        say(f"  {note}")


def open_validation_data(
    parser: Parser, args: argparse.Namespace, checkpoint: Checkpoint, transform: Compose
) -> Data:
    """The data set that the flags name, of the checkpoint's classes.

    Raises:
        DataError: it cannot be read, or its classes are not the checkpoint's.
    """
    kind = args.dataset or ("coco" if args.coco_path else "csv")
    dataset: Data
    if kind == "coco":
        if not args.coco_path:
            parser.error("--dataset coco needs --coco_path")
        dataset = CocoDataset(args.coco_path, args.coco_val_set, transform)
    else:
        if not args.csv_val:
            parser.error("no data is named; give --coco_path, or --csv_val")
        classes = args.csv_classes or {n: i for i, n in enumerate(checkpoint.class_names)}
        if not classes:
            parser.error("the model does not know its class names; give --csv_classes")
        dataset = CSVDataset(args.csv_val, classes, transform, images_dir=args.csv_images_dir)
    check_classes(dataset, checkpoint, args.file or args.model)
    tell_notes("Validation data", dataset)
    return dataset


def checksum(dataset: Data) -> int:
    """A number that differs when images, their order or their boxes do."""
    value = 0
    for index in range(len(dataset)):
        name = os.path.relpath(dataset.image_path(index), dataset.images_root)
        value = zlib.crc32(name.encode(errors="surrogateescape"), value)
        value = zlib.crc32(dataset.load_annotations(index).tobytes(), value)
    return value


def shares_batches(runtime: Runtime) -> bool:
    """Whether DataParallel splits batches over several GPUs."""
    everywhere = runtime.device.type == "cuda" and runtime.device.index is None
    return everywhere and runtime.world_size == 1 and torch.cuda.device_count() > 1


def describe(runtime: Runtime) -> str:
    """Where and how precisely a run computes, and how it could be faster."""
    text = f"{runtime.device}, {runtime.precision}"
    if runtime.world_size > 1:
        text += f", {runtime.world_size} processes"
    elif shares_batches(runtime):
        gpus = torch.cuda.device_count()
        text += f"; {gpus} GPUs share each batch (faster: torchrun --nproc_per_node={gpus} ...)"
    return text


def check_classes(dataset: Data, checkpoint: Checkpoint, file: str) -> None:
    """Refuse a model of other classes than the data's.

    Raises:
        DataError: the numbers of classes differ, or the names where both are known.
    """
    names = checkpoint.class_names
    found, expected = checkpoint.config.num_classes, dataset.num_classes()
    if found != expected or (names and names != dataset.class_names):
        listed = f" ({_some(names)})" if names else ""
        raise DataError(
            f"{file}: the model has {found} classes{listed}, the data {expected}"
            f" ({_some(dataset.class_names)}); give the data that it was trained for, or train one"
            " with train.py --weights"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")


def class_names(csv_classes: str | None, checkpoint: Checkpoint, file: str) -> tuple[str, ...]:
    """Names by label for images without annotations: of a class file, or the model's own.

    Raises:
        DataError: the class file has another number of classes than the model.
    """
    K = checkpoint.config.num_classes
    if csv_classes is None:
        return checkpoint.class_names or tuple(f"class {label}" for label in range(K))
    names = tuple(read_classes(csv_classes))
    if len(names) != K:
        raise DataError(
            f"{csv_classes}: lists {len(names)} classes ({_some(names)}), {file} has {K};"
            " give the class file that it was trained with"
        )
    return names
