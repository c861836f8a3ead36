"""Draw and save a detector's findings on images, or on those of a data set."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from retinanet.cli.flags import (
    add_data_flags,
    add_detection_flags,
    add_device_flags,
    add_model_flags,
    model_file,
)
from retinanet.cli.from_flags import class_names, detect_as_told, open_validation_data
from retinanet.cli.parser import Parser
from retinanet.cli.script import script
from retinanet.data.datasets import ImageFiles
from retinanet.data.transforms import evaluation_transform
from retinanet.errors import DataError, printable
from retinanet.inference.results import FORMATS, Images, save_predictions
from retinanet.postprocess import Detections
from retinanet.report.drawing import show
from retinanet.report.pictures import draw_image, free_name, save_picture
from retinanet.runtime.console import progress, say
from retinanet.runtime.device import start_runtime
from retinanet.runtime.files import check_output_dir
from retinanet.weights.checkpoint import load_checkpoint

NAMED = 20  # unreadable images that are named at the end


def parser() -> Parser:
    """The flags of visualize.py."""
    result = Parser("Draw and save a detector's findings on images, or on those of a data set.")
    add_model_flags(result)
    add_data_flags(result)
    result.add_argument_group("images").add_argument(
        "--images",
        "--image_dir",
        dest="images",
        nargs="+",
        metavar="PATH",
        help="images, folders, patterns, instead of a data set",
    )
    add_detection_flags(result, score_threshold=0.5)
    add_device_flags(result, precision="fp32", batch_size=4)
    group = result.add_argument_group("results")
    group.add_argument(
        "--output_dir", default="detections", metavar="DIR", help="for what is saved (detections)"
    )
    group.add_argument(
        "--save",
        nargs="+",
        choices=("pictures", *FORMATS),
        default=("pictures",),
        metavar="KIND",
        help="pictures, json, csv (to correct and train on), coco (pictures)",
    )
    group.add_argument(
        "--classes", nargs="+", metavar="NAME", help="leave out detections of others (all)"
    )
    group.add_argument("--ground_truth", action="store_true", help="draw the annotations too")
    group.add_argument("--show", action="store_true", help="open a window with each picture")
    return result


def wanted_labels(wanted: Sequence[str] | None, names: Sequence[str]) -> list[int]:
    """Labels of the classes that are wanted, or of all.

    Raises:
        DataError: there is no such class.
    """
    unknown = sorted(set(wanted or ()) - set(names))
    if unknown:
        raise DataError(f"--classes {' '.join(unknown)}: the model knows {', '.join(names)}")
    return [label for label, name in enumerate(names) if wanted is None or name in wanted]


def only(found: Detections, labels: Sequence[int]) -> Detections:
    """The detections of some classes."""
    of_interest = [label in labels for label in found.labels.tolist()]
    return Detections(*(column[of_interest] for column in found))


@script
def main(argv: Sequence[str] | None = None) -> None:
    """Load; detect, tell and draw image by image; save."""
    flags = parser()
    args = flags.parse(argv)
    file = model_file(flags, args)
    if args.show and "pictures" not in args.save:
        flags.error("--show shows the pictures; add pictures to --save")
    check_output_dir(args.output_dir)
    runtime = start_runtime(args.device, args.precision)
    checkpoint = load_checkpoint(file)
    transform = evaluation_transform(checkpoint.min_side, checkpoint.max_side)
    images: Images
    if args.images:
        images = ImageFiles(args.images, transform)
        names = class_names(args.csv_classes, checkpoint, file)
    else:
        images = open_validation_data(flags, args, checkpoint, transform)
        names = images.class_names
    labels = wanted_labels(args.classes, names)

    found: dict[int, Detections] = {}
    errors: list[str] = []
    taken = {Path(os.path.realpath(images.image_path(index))) for index in range(len(images))}
    results = detect_as_told(checkpoint, images, args, runtime)
    for index, result in progress(results, total=len(images), desc="detect"):
        if isinstance(result, DataError):
            errors.append(str(result))
            continue
        found[index] = only(result, labels)
        if runtime.is_main:
            tell(images.image_path(index), found[index], names)
            if "pictures" in args.save:
                draw(images, index, found[index], names, args, taken)
    if runtime.is_main and found:
        save(images, found, names, args)
    if errors:
        raise DataError(unreadable_text(errors, len(images)))


def tell(path: Path, found: Detections, names: Sequence[str]) -> None:
    """Say a line for each detection of an image."""
    for score, label, box in zip(*(column.tolist() for column in found), strict=True):
        corners = ", ".join(f"{value:.1f}" for value in box)
        say(f"{printable(path)}: {names[label]} {score:.3f} ({corners})")


def draw(
    images: Images,
    index: int,
    found: Detections,
    names: Sequence[str],
    args: argparse.Namespace,
    taken: set[Path],
) -> None:
    """Write the picture of an image under a free name; show it if wanted."""
    picture = draw_image(images, index, found, names, ground_truth=args.ground_truth)
    path = free_name(Path(args.output_dir), images.image_path(index), taken)
    save_picture(path, picture)
    if args.show:
        show(picture, path.name)


def save(
    images: Images, found: Mapping[int, Detections], names: Sequence[str], args: argparse.Namespace
) -> None:
    """Write the files of all detections that are asked for."""
    total = sum(len(detections.scores) for detections in found.values())
    say(f"{total} detections on {len(found)} images: {args.output_dir}")
    for kind in FORMATS:
        if kind in args.save:
            say(f"Written: {save_predictions(Path(args.output_dir), kind, images, found, names)}")


def unreadable_text(errors: Sequence[str], total: int) -> str:
    """How many images could not be read, and why."""
    text = f"{len(errors):,} of {total:,} images could not be read"
    if len(errors) == 1:
        return f"{text}: {errors[0]}"
    more = [f"and {len(errors) - NAMED:,} more"] * (len(errors) > NAMED)
    return "\n".join([f"{text}:", *errors[:NAMED], *more])


if __name__ == "__main__":
    sys.exit(main())
