"""Detectors of other projects as checkpoints of this one, and back to torchvision."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from retinanet.cli.from_flags import class_names
from retinanet.cli.parser import Parser, positive_float
from retinanet.cli.script import script
from retinanet.errors import DataError, counted
from retinanet.runtime.console import say
from retinanet.runtime.files import check_output_dir
from retinanet.weights.checkpoint import load_checkpoint, load_foreign, save_checkpoint, write_file
from retinanet.weights.conversion import to_torchvision
from retinanet.weights.projects import SOURCES


def parser() -> Parser:
    """The flags of the converter."""
    result = Parser("Convert a detector that another project trained, or one back to torchvision.")
    direction = result.add_mutually_exclusive_group(required=True)
    direction.add_argument(
        "--from", dest="source", choices=tuple(SOURCES), metavar="NAME", help=", ".join(SOURCES)
    )
    direction.add_argument(
        "--to", dest="target", choices=("torchvision",), help="write its state dict instead"
    )
    result.add_argument("file", metavar="IN", help="the file to convert")
    result.add_argument("output", metavar="OUT", type=Path, help="the file to write")
    result.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    result.add_argument(
        "--csv_classes", metavar="FILE", help="name,id (COCO's, if there are 80 classes)"
    )
    result.add_argument(
        "--bn_eps",
        type=positive_float,
        help="epsilon of its batch norm (that of the project's published files)",
    )
    return result


@script
def main(argv: Sequence[str] | None = None) -> None:
    """Convert one file."""
    flags = parser()
    args = flags.parse(argv)
    if args.target and (args.csv_classes or args.bn_eps):
        flags.error("--csv_classes and --bn_eps go with --from")
    if args.output.exists() and not args.overwrite:
        raise DataError(f"{args.output}: it exists; pass --overwrite or choose another name")
    check_output_dir(args.output.parent, "choose another OUT")
    if args.source:
        convert_from(args)
    else:
        convert_to(args)


def convert_from(args: argparse.Namespace) -> None:
    """Write another project's detector as a checkpoint."""
    checkpoint, note = load_foreign(Path(args.file), args.source, args.bn_eps)
    if args.csv_classes:
        names = class_names(args.csv_classes, checkpoint, args.file)
        checkpoint = replace(checkpoint, class_names=names)
    save_checkpoint(args.output, checkpoint, overwrite=args.overwrite)
    config = checkpoint.config
    title = SOURCES[args.source].title
    say(f"{args.file}: {title}, ResNet-{config.depth}, {counted(config.num_classes, 'class')}")
    if note:
        say(f"  {note}")
    if not checkpoint.class_names:
        say("  the names of its classes are not known; --csv_classes FILE gives them")
    say(f"Written: {args.output}, for any script's --model and for train.py --weights")


def convert_to(args: argparse.Namespace) -> None:
    """Write a checkpoint as torchvision's state dict."""
    checkpoint = load_checkpoint(args.file)
    config = checkpoint.config
    weights, K = to_torchvision(config, checkpoint.weights, checkpoint.class_names, args.file)
    write_file(args.output, weights, overwrite=args.overwrite)
    builder = f"retinanet_resnet{config.depth}_fpn" + ("_v2" if config.group_norm else "")
    say(f"Written: {args.output}, the state dict of torchvision's")
    say(f"  {builder}(weights=None, weights_backbone=None, num_classes={K})")


if __name__ == "__main__":
    sys.exit(main())
