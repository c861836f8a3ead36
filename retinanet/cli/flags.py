"""Groups of flags that several scripts share."""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from retinanet.anchors import RATIOS, SCALES, SIZES
from retinanet.cli.parser import (
    Parser,
    fraction,
    fraction_or_zero,
    non_negative_int,
    positive_float,
    positive_int,
)
from retinanet.data.formats.recognise import FORMATS
from retinanet.data.transforms import AUGMENTATIONS
from retinanet.model import MATCHINGS, ModelConfig
from retinanet.postprocess import DEFAULT_LIMITS, SCORE_THRESHOLD, DetectionLimits
from retinanet.runtime.device import PRECISIONS
from retinanet.training.optim import BATCH_NORMS, OPTIMIZERS, SCHEDULES, OptimConfig
from retinanet.weights.checkpoint import Checkpoint


def add_device_flags(parser: Parser, *, precision: str, batch_size: int) -> argparse._ArgumentGroup:
    """--device, --precision, --workers, --batch_size; returns their group."""
    group = parser.add_argument_group("machine")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, xpu, mps ...")
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=precision,
        metavar="KIND",
        help=f"{', '.join(PRECISIONS)}; auto: bf16 where it is fast",
    )
    group.add_argument(
        "--workers",
        type=non_negative_int,
        default=3,
        help="loader processes, never more than cores",
    )
    group.add_argument(
        "--batch_size",
        type=positive_int,
        default=batch_size,
        help="images at a time",
    )
    return group


def add_training_data_flags(parser: Parser, kinds: Sequence[str]) -> argparse._ArgumentGroup:
    """Data to train on and to evaluate on; returns the group."""
    group = parser.add_argument_group("data")
    add_labelled_data_flags(group)
    group.add_argument("--dataset", choices=kinds, help="kind of data that the next flags name")
    group.add_argument("--coco_path", metavar="DIR", help="folder of annotations/ and images/")
    group.add_argument(
        "--coco_train_set", default="train2017", metavar="SET", help="set to train on"
    )
    group.add_argument(
        "--coco_val_set", default="val2017", metavar="SET", help="set to evaluate on"
    )
    group.add_argument(
        "--csv_train", metavar="FILE", help="boxes to train on: path,x1,y1,x2,y2,class"
    )
    group.add_argument("--csv_classes", metavar="FILE", help="classes: name,id")
    group.add_argument(
        "--csv_val", metavar="FILE", help="boxes to evaluate on (else no evaluation)"
    )
    add_reading_flags(group)
    return group


def add_labelled_data_flags(group: argparse._ArgumentGroup) -> None:
    """--data and --format."""
    group.add_argument(
        "--data", metavar="PATH", help="labelled folder or file; its format is recognised"
    )
    group.add_argument(
        "--format",
        choices=tuple(FORMATS),
        metavar="NAME",
        help=f"format of --data, if need be: {', '.join(FORMATS)}",
    )


def check_one_source(parser: Parser, args: argparse.Namespace) -> None:
    """Make --data the kind of data set; an error where other flags name data too."""
    if not args.data:
        return
    for name in ("dataset", "coco_path", "csv_train", "csv_val", "csv_classes"):
        if vars(args).get(name):
            parser.error(f"--data names the data; leave out --{name}")
    args.dataset = "data"


def choose_source(parser: Parser, args: argparse.Namespace) -> None:
    """Choose the kind of data to evaluate or draw; an error where the flags name none."""
    check_one_source(parser, args)
    args.dataset = args.dataset or ("coco" if args.coco_path else "csv")
    if args.dataset == "coco" and not args.coco_path:
        parser.error("--dataset coco needs --coco_path")
    if args.dataset == "csv" and not args.csv_val:
        parser.error("no data is named; give --data, --coco_path, or --csv_val")


def check_training_flags(parser: Parser, args: argparse.Namespace) -> None:
    """Check the flags of data and sizes; an error where one is missing or they contradict."""
    check_one_source(parser, args)
    if not args.dataset:
        parser.error("no data is named; give --data FOLDER, or --dataset")
    needed = {"coco": ("coco_path",), "csv": ("csv_train", "csv_classes")}
    for name in needed.get(args.dataset, ()):
        if getattr(args, name) is None:
            parser.error(f"--dataset {args.dataset} needs --{name}")
    if args.min_side and args.max_side and args.max_side < args.min_side:
        parser.error(f"--max_side {args.max_side} is less than --min_side {args.min_side}")


def add_size_flags(group: argparse._ArgumentGroup) -> None:
    """--min_side and --max_side, without defaults."""
    group.add_argument(
        "--min_side",
        type=positive_int,
        metavar="PX",
        help="shorter side of an image after resizing",
    )
    group.add_argument(
        "--max_side",
        type=positive_int,
        metavar="PX",
        help="longer side of an image after resizing, at most",
    )


def add_learning_flags(group: argparse._ArgumentGroup) -> None:
    """The settings of `OptimConfig`; the defaults are the original's."""
    group.add_argument("--lr", type=positive_float, help="learning rate")
    group.add_argument(
        "--optimizer",
        choices=OPTIMIZERS,
        default=OptimConfig.optimizer,
        metavar="KIND",
        help=", ".join(OPTIMIZERS),
    )
    group.add_argument(
        "--weight_decay",
        type=fraction_or_zero,
        default=OptimConfig.weight_decay,
        help="L2 penalty on all parameters",
    )
    group.add_argument(
        "--schedule",
        choices=SCHEDULES,
        default=OptimConfig.schedule,
        metavar="KIND",
        help="plateau, cosine, step: drops at 2/3, 11/12",
    )
    group.add_argument(
        "--warmup",
        type=non_negative_int,
        default=OptimConfig.warmup,
        help="first steps, in which the learning rate rises from 0",
    )
    group.add_argument(
        "--clip_norm",
        type=positive_float,
        default=OptimConfig.clip_norm,
        help="norm of the gradient above which it is clipped",
    )
    group.add_argument(
        "--batch_norm",
        choices=BATCH_NORMS,
        default=OptimConfig.batch_norm,
        metavar="KIND",
        help="frozen, or trained: for --weights none",
    )
    add_matching_flag(group)
    group.add_argument(
        "--trainable_layers",
        type=int,
        choices=range(OptimConfig.trainable_layers + 1),
        default=OptimConfig.trainable_layers,
        metavar="N",
        help="how many of the ResNet's 5 parts are trained, from its end",
    )


def add_matching_flag(group: argparse._ArgumentGroup) -> None:
    """--matching."""
    group.add_argument(
        "--matching",
        choices=MATCHINGS,
        default=OptimConfig.matching,
        metavar="KIND",
        help="rule that gives boxes their anchors: iou, atss",
    )


def add_augment_flag(group: argparse._ArgumentGroup) -> None:
    """--augment."""
    group.add_argument(
        "--augment",
        choices=AUGMENTATIONS,
        default="none",
        metavar="KIND",
        help="random sizes, cuts and colours: none, mild, strong",
    )


def learning_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Values of the flags of `add_learning_flags`, as keywords of `OptimConfig`."""
    names = [field.name for field in fields(OptimConfig) if field.name != "steps"]
    return {name: getattr(args, name) for name in names}


def add_anchor_flags(group: argparse._ArgumentGroup, *, unless: str = "") -> None:
    """--anchor_sizes, --anchor_ratios, --anchor_scales.

    Args:
        group: of the flags.
        unless: what decides where a flag is not given, which is None then; else the paper.
    """
    for name, nargs, default, text in (
        ("sizes", len(SIZES), SIZES, "anchor sides on P3 to P7, px"),
        ("ratios", "+", RATIOS, "anchor heights / widths"),
        ("scales", "+", SCALES, "factors on the anchor sizes"),
    ):
        values = " ".join(f"{value:.4g}" for value in default)
        group.add_argument(
            f"--anchor_{name}",
            nargs=nargs,
            type=positive_float,
            default=None if unless else default,
            help=f"{text} ({unless or values})",
        )


def add_network_size_flags(group: argparse._ArgumentGroup) -> None:
    """--fpn_channels and --head_convs; None is that of the initial weights."""
    for name, kind, default, text in (
        ("fpn_channels", positive_int, ModelConfig.channels, "channels of pyramid and heads"),
        ("head_convs", non_negative_int, ModelConfig.head_convs, "3x3 convolutions of each head"),
    ):
        group.add_argument(
            f"--{name}", type=kind, metavar="N", help=f"{text} (as --weights FILE, else {default})"
        )


def add_reading_flags(group: argparse._ArgumentGroup) -> None:
    """--csv_images_dir, and --strict for what could be repaired."""
    group.add_argument(
        "--csv_images_dir",
        "--images_path",
        dest="csv_images_dir",
        metavar="DIR",
        help="where relative image paths start (beside the CSV, else here)",
    )
    group.add_argument(
        "--strict", action="store_true", help="treat what would be repaired in the data as errors"
    )


def add_bad_image_flag(group: argparse._ArgumentGroup) -> None:
    """--on_bad_image."""
    group.add_argument(
        "--on_bad_image",
        choices=("error", "skip"),
        default="error",
        help="skip leaves out unreadable images, up to 100",
    )


def add_model_flags(parser: Parser) -> None:
    """MODEL, --model, --model_path: one destination, `model`."""
    group = parser.add_argument_group("model")
    group.add_argument("file", nargs="?", metavar="MODEL", help="saved detector, a .pt file")
    group.add_argument(
        "--model", "--model_path", dest="model", metavar="FILE", help="the same, as a flag"
    )


def model_file(parser: Parser, args: argparse.Namespace) -> str:
    """File of the model, named as MODEL or by --model; an error where it is neither or two."""
    if args.file and args.model and args.file != args.model:
        parser.error(f"two models are named: {args.file} and {args.model}")
    if not (args.file or args.model):
        parser.error("no model is named; give a saved .pt, or --model FILE")
    return str(args.file or args.model)


def add_data_flags(parser: Parser) -> None:
    """Data to evaluate or draw: COCO or CSV data, under all names that the scripts ever had."""
    group = parser.add_argument_group("data")
    add_labelled_data_flags(group)
    group.add_argument("--dataset", choices=("coco", "csv"), help="kind of data; may be left out")
    group.add_argument(
        "--coco_path", metavar="DIR", help="COCO data: annotations/instances_SET.json and images/"
    )
    group.add_argument("--coco_val_set", default="val2017", metavar="SET", help="set to read")
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
        help="classes: name,id (the model's own)",
    )
    add_reading_flags(group)


def add_detection_flags(parser: Parser, score_threshold: float | None = SCORE_THRESHOLD) -> None:
    """Thresholds and maximum numbers of detection; a score threshold of None is the model's own."""
    own = " (each class's best F1)" if score_threshold is None else ""
    group = parser.add_argument_group("detection")
    group.add_argument(
        "--score_threshold",
        type=fraction,
        default=score_threshold,
        help=f"score at or below which detections are dropped{own}",
    )
    group.add_argument(
        "--nms_threshold",
        type=fraction,
        default=DEFAULT_LIMITS.nms_threshold,
        metavar="IOU",
        help="IoU with a better box above which a box is dropped",
    )
    group.add_argument(
        "--candidates_per_level",
        type=positive_int,
        default=DEFAULT_LIMITS.candidates_per_level,
        help="boxes of a pyramid level before NMS, at most",
    )
    group.add_argument(
        "--max_detections",
        type=positive_int,
        default=DEFAULT_LIMITS.max_detections,
        help="detections of an image, at most",
    )
    group.add_argument(
        "--class_agnostic_nms",
        action="store_true",
        help="drop a box for a better one of any class",
    )


def add_tile_flags(parser: Parser, *, trained: bool = True) -> None:
    """--tile and --tile_overlap.

    Args:
        parser: takes them.
        trained: whether they are those of a trained model unless given.
    """
    group = parser.add_argument_group("large pictures")
    group.add_argument(
        "--tile",
        type=non_negative_int if trained else positive_int,
        metavar="SIDE",
        help="cut pictures into tiles of this side, px"
        + (" (as trained; 0: whole)" if trained else " (not cut)"),
    )
    group.add_argument(
        "--tile_overlap",
        type=fraction_or_zero,
        default=None if trained else Checkpoint.tile_overlap,
        metavar="SHARE",
        help="part of their side that neighbours share, at least"
        + (" (as trained)" if trained else ""),
    )


def detection_limits(args: argparse.Namespace) -> DetectionLimits:
    """Limits of detection as the flags of `add_detection_flags` set them."""
    return DetectionLimits(
        **{field.name: vars(args)[field.name] for field in fields(DetectionLimits)}
    )
