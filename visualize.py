"""Draw a detector's findings on the images of a data set, on one image, or on a folder of them."""

import sys
from collections.abc import Sequence
from pathlib import Path

from retinanet import cli
from retinanet.checkpoint import load_checkpoint
from retinanet.dataloader import ImageFiles
from retinanet.inference import predict
from retinanet.logger import say
from retinanet.report import draw_image, free_name, save_picture
from retinanet.runtime import start_runtime, usable_workers
from retinanet.visualization import show


def parser() -> cli.Parser:
    """The flags of visualize.py."""
    result = cli.Parser(
        "Draw a detector's findings on the images of a data set, on one image, or on a folder."
    )
    cli.add_model_flags(result)
    cli.add_data_flags(result)
    result.add_argument_group("images").add_argument(
        "--image_dir", metavar="PATH", help="an image, or a folder of images, instead of a data set"
    )
    cli.add_detection_flags(result, score_threshold=0.5)
    cli.add_device_flags(result, precision="fp32", batch_size=4)
    group = result.add_argument_group("results")
    group.add_argument(
        "--output_dir", default="detections", metavar="DIR", help="for the pictures (detections)"
    )
    group.add_argument("--ground_truth", action="store_true", help="draw the annotations too")
    group.add_argument("--show", action="store_true", help="open a window with each picture")
    return result


@cli.script
def main(argv: Sequence[str] | None = None) -> None:
    """Load, predict, draw."""
    flags = parser()
    args = flags.parse(argv)
    file = cli.model_file(flags, args)
    runtime = start_runtime(args.device, args.precision)
    checkpoint = load_checkpoint(file)
    transform = cli.evaluation_transform(checkpoint.min_side, checkpoint.max_side)
    dataset: cli.Data | ImageFiles
    if args.image_dir:
        dataset = ImageFiles(args.image_dir, transform)
        names = cli.class_names(args.csv_classes, checkpoint, file)
    else:
        dataset = cli.open_validation_data(flags, args, checkpoint, transform)
        names = dataset.class_names

    detections = predict(
        checkpoint.build(runtime.device),
        dataset,
        batch_size=args.batch_size,
        workers=usable_workers(args.workers),
        autocast=runtime.autocast,
        progress=True,
        score_threshold=args.score_threshold,
        nms_threshold=args.nms_threshold,
        candidates_per_level=args.candidates_per_level,
        max_detections=args.max_detections,
    )

    if not runtime.is_main:
        return
    folder = Path(args.output_dir)
    taken = {dataset.image_path(index).resolve() for index in range(len(dataset))}
    for index, found in enumerate(detections):
        image = dataset.image_path(index)
        for score, label, box in zip(*(column.tolist() for column in found), strict=True):
            corners = ", ".join(f"{value:.1f}" for value in box)
            say(f"{image}: {names[label]} {score:.3f} ({corners})")
        picture = draw_image(dataset, index, found, names, ground_truth=args.ground_truth)
        path = free_name(folder, image, taken)
        save_picture(path, picture)
        if args.show:
            show(picture, path.name)
    total = sum(len(found.scores) for found in detections)
    say(f"{total} detections on {len(dataset)} images, drawn in {folder}")


if __name__ == "__main__":
    sys.exit(main())
