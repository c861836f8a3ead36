"""Draw and save a detector's findings on images, or on those of a data set."""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from retinanet.cli.flags import (
    add_data_flags,
    add_detection_flags,
    add_device_flags,
    add_model_flags,
    add_tile_flags,
    model_file,
)
from retinanet.cli.from_flags import (
    class_names,
    open_validation_data,
    sample_transform,
    stream_by_flags,
    with_tile_flags,
)
from retinanet.cli.parser import Parser, positive_int
from retinanet.cli.script import script
from retinanet.data.transforms import Sample, without_boxes
from retinanet.errors import DataError, counted, printable
from retinanet.inference import film
from retinanet.inference.image_folder import ImageFiles
from retinanet.inference.results import FORMATS, Images, rows, save_predictions
from retinanet.postprocess import Detections
from retinanet.report.drawing import draw_boxes, show
from retinanet.report.pictures import draw_image, free_name, save_picture
from retinanet.runtime.console import progress, say
from retinanet.runtime.device import Runtime, start_runtime, usable_workers
from retinanet.runtime.distributed import is_main_process
from retinanet.runtime.files import check_output_dir, first_free
from retinanet.weights.checkpoint import Checkpoint, load_checkpoint

NAMED = 20  # unreadable images that are named at the end


def parser() -> Parser:
    """The flags of visualize.py."""
    result = Parser(
        "Draw and save a detector's findings on images, or on those of a data set.",
        stray="images stand behind --images",
    )
    add_model_flags(result)
    add_data_flags(result)
    result.add_argument_group("images").add_argument(
        "--images",
        "--image_dir",
        dest="images",
        nargs="+",
        metavar="PATH",
        help="images, folders, patterns, or a film, instead of a data set",
    )
    add_detection_flags(result, score_threshold=None)
    add_tile_flags(result)
    add_device_flags(result, precision="fp32", batch_size=4)
    result.add_argument_group("films").add_argument(
        "--every", type=positive_int, default=1, help="of a film, frames from one to the next (1)"
    )
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


def of_classes(found: Detections, labels: Sequence[int]) -> Detections:
    """The detections of some classes."""
    return found.only([label in labels for label in found.labels.tolist()])


@script
def main(argv: Sequence[str] | None = None) -> None:
    """Load; detect, tell and draw image by image, or frame by frame; save."""
    flags = parser()
    args = flags.parse(argv)
    file = model_file(flags, args)
    if args.show and "pictures" not in args.save:
        flags.error("--show shows the pictures; add pictures to --save")
    is_film = args.images and Path(args.images[0]).suffix.lower() in film.SUFFIXES
    if is_film and len(args.images) > 1:
        flags.error("--images takes one film alone")
    check_output_dir(args.output_dir)
    runtime = start_runtime(args.device, args.precision)
    checkpoint = with_tile_flags(load_checkpoint(file), args)
    if args.score_threshold is None:
        args.score_threshold = checkpoint.score_threshold
        say(f"{checkpoint.threshold_note}; --score_threshold sets one for all")
    if is_film:
        visualize_film(checkpoint, class_names(args.csv_classes, checkpoint, file), args, runtime)
        return
    transform = sample_transform(checkpoint)
    images: Images
    if args.images:
        images = ImageFiles(args.images, transform)
        names = class_names(args.csv_classes, checkpoint, file)
    else:
        images = open_validation_data(flags, args, checkpoint, transform)
        names = images.class_names
    visualize_images(checkpoint, images, names, args, runtime)


def visualize_images(
    checkpoint: Checkpoint,
    images: Images,
    names: Sequence[str],
    args: argparse.Namespace,
    runtime: Runtime,
) -> None:
    """Detect, tell and draw image by image, and save what was found.

    Raises:
        DataError: images could not be read; the others are done.
    """
    labels = wanted_labels(args.classes, names)
    found: dict[int, Detections] = {}
    errors: list[str] = []
    taken = {Path(os.path.realpath(images.image_path(index))) for index in range(len(images))}
    count, threads = len(images), usable_workers(args.workers)
    results = stream_by_flags(
        checkpoint, range(count), images.__getitem__, args, runtime, threads=threads
    )
    for index, result in progress(results, total=count, desc="detect"):
        if isinstance(result, DataError):
            errors.append(str(result))
            continue
        found[index] = of_classes(result, labels)
        if is_main_process():
            tell(images.image_path(index), found[index], names)
            if "pictures" in args.save:
                draw(images, index, found[index], names, args, taken)
    if is_main_process() and found:
        save(images, found, names, args)
    if errors:
        raise DataError(unreadable_text(errors, len(images)))


def visualize_film(
    checkpoint: Checkpoint,
    names: Sequence[str],
    args: argparse.Namespace,
    runtime: Runtime,
) -> None:
    """Detect in every frame, draw it to a film, and write a line of JSON for it.

    Raises:
        DataError: the file is no film; or a part of it is damaged, and the rest is written.
    """
    if runtime.world_size > 1:
        raise DataError(f"{args.images[0]}: a film is drawn by one process; leave torchrun out")
    labels = wanted_labels(args.classes, names)
    source = film.Film(args.images[0], args.every)
    transform = sample_transform(checkpoint)

    def load(frame: film.Frame) -> Sample:
        sample = without_boxes(frame.pixels)
        return transform(sample) if transform else sample

    frames = progress(source, total=source.total, desc="detect")
    results = stream_by_flags(checkpoint, frames, load, args, runtime)
    folder, stem = Path(args.output_dir), source.path.stem
    drawn = first_free(folder / f"{stem}.mp4", os.path.lexists)
    lines = first_free(folder / f"{stem}.jsonl", os.path.lexists)
    count = 0
    with (
        film.FilmWriter(drawn, source.rate / args.every) as writer,
        lines.open("x", encoding="utf-8") as stream,
    ):
        for frame, result in results:
            if isinstance(result, DataError):
                raise result
            found = of_classes(result, labels)
            scores, classes, boxes = (column.numpy() for column in found)
            picture = draw_boxes(frame.pixels, boxes, classes, scores, class_names=names)
            writer.add(picture, frame.time)
            stream.write(film_line(frame, found, names) + "\n")
            count += 1
    say(f"{counted(count, 'frame')}: {drawn}, {lines}")
    if source.damage:
        raise DataError(f"{source.path}: damaged {source.damage}; what could be read is written")


def film_line(frame: film.Frame, found: Detections, names: Sequence[str]) -> str:
    """A frame's detections as a line of JSON."""
    detections = [
        {"label": names[label], "score": round(score, 4), "box": [round(v, 1) for v in box]}
        for score, label, box in rows(found)
    ]
    line = {"frame": frame.number, "time": round(frame.time, 3), "detections": detections}
    return json.dumps(line, ensure_ascii=False)


def tell(path: Path, found: Detections, names: Sequence[str]) -> None:
    """Print a line for each detection of an image."""
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
    told = f"{counted(total, 'detection')} on {counted(len(found), 'image')}"
    say(f"{told}: {args.output_dir}")
    for kind in FORMATS:
        if kind in args.save:
            say(f"Written: {save_predictions(Path(args.output_dir), kind, images, found, names)}")


def unreadable_text(errors: Sequence[str], total: int) -> str:
    """Message about the images that could not be read."""
    text = f"{len(errors):,} of {counted(total, 'image')} could not be read"
    if len(errors) == 1:
        return f"{text}: {errors[0]}"
    more = [f"and {len(errors) - NAMED:,} more"] * (len(errors) > NAMED)
    return "\n".join([f"{text}:", *errors[:NAMED], *more])


if __name__ == "__main__":
    sys.exit(main())
