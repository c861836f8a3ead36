"""Draw and save a detector's findings on images, or on those of a data set."""

import sys
from collections.abc import Sequence
from pathlib import Path

from retinanet.cli.flags import (
    add_data_flags,
    add_detection_flags,
    add_device_flags,
    add_model_flags,
    model_file,
)
from retinanet.cli.from_flags import class_names, open_validation_data, predict_as_told
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


def of_classes(
    detections: list[Detections], wanted: Sequence[str] | None, names: Sequence[str]
) -> list[Detections]:
    """The detections of some classes.

    Raises:
        DataError: there is no such class.
    """
    if wanted is None:
        return detections
    unknown = sorted(set(wanted) - set(names))
    if unknown:
        raise DataError(f"--classes {' '.join(unknown)}: the model knows {', '.join(names)}")
    kept = []
    for found in detections:
        of_interest = [names[label] in wanted for label in found.labels.tolist()]
        kept.append(Detections(*(column[of_interest] for column in found)))
    return kept


def draw(
    folder: Path,
    images: Images,
    detections: list[Detections],
    names: Sequence[str],
    *,
    ground_truth: bool,
    shown: bool,
) -> None:
    """Write a picture an image, under its name, and show it if wanted."""
    taken = {images.image_path(index).resolve() for index in range(len(images))}
    progressing = progress(detections, total=len(detections), desc="draw")
    for index, found in enumerate(progressing):
        picture = draw_image(images, index, found, names, ground_truth=ground_truth)
        path = free_name(folder, images.image_path(index), taken)
        save_picture(path, picture)
        if shown:
            show(picture, path.name)


@script
def main(argv: Sequence[str] | None = None) -> None:
    """Load, predict, tell, save."""
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
    of_classes([], args.classes, names)  # a wrong name is said before the work

    detections = predict_as_told(checkpoint, images, args, runtime)
    detections = of_classes(detections, args.classes, names)
    if not runtime.is_main:
        return

    for index, found in enumerate(detections):
        for score, label, box in zip(*(column.tolist() for column in found), strict=True):
            corners = ", ".join(f"{value:.1f}" for value in box)
            say(f"{printable(images.image_path(index))}: {names[label]} {score:.3f} ({corners})")
    folder = Path(args.output_dir)
    if "pictures" in args.save:
        draw(
            folder,
            images,
            detections,
            names,
            ground_truth=args.ground_truth,
            shown=args.show,
        )
    total = sum(len(found.scores) for found in detections)
    say(f"{total} detections on {len(images)} images: {folder}")
    for kind in FORMATS:
        if kind in args.save:
            say(f"Written: {save_predictions(folder, kind, images, detections, names)}")


if __name__ == "__main__":
    sys.exit(main())
