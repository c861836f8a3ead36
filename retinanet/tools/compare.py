"""Compare detectors on the same images: which is better, and whether so many images can tell."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from retinanet.cli.flags import (
    add_data_flags,
    add_detection_flags,
    add_device_flags,
    choose_source,
)
from retinanet.cli.from_flags import (
    open_for_evaluation,
    predict_by_flags,
    sample_transform,
    tell_notes,
)
from retinanet.cli.parser import Parser
from retinanet.cli.script import script
from retinanet.data.datasets import Data
from retinanet.errors import DataError, counted, first_few, printable, reason
from retinanet.evaluation.comparison import Difference, differences, mistakes, most_different
from retinanet.evaluation.measure import Evaluation, measure
from retinanet.postprocess import Detections
from retinanet.report.drawing import contact_sheet
from retinanet.report.pictures import draw_image, save_picture
from retinanet.runtime.console import say
from retinanet.runtime.device import Runtime, start_runtime
from retinanet.runtime.distributed import is_main_process
from retinanet.runtime.files import check_output_dir, write_whole
from retinanet.weights.checkpoint import Checkpoint, load_checkpoint

PICTURES = 8  # of images on which the models differ most
NAMES = ("compare.json", *(f"difference_{rank}.jpg" for rank in range(1, PICTURES + 1)))


class Contender(NamedTuple):
    """One of the models to compare: a checkpoint, or the detections of one."""

    file: Path
    checkpoint: Checkpoint | None


def parser() -> Parser:
    """The flags of the comparison."""
    result = Parser("Compare detectors on the same images: which is better, if it can be told.")
    result.add_argument(
        "files", nargs="+", metavar="FILE", type=Path, help="saved .pt, or detections.json"
    )
    add_data_flags(result)
    add_detection_flags(result)
    add_device_flags(result, precision="fp32", batch_size=4)
    result.add_argument_group("results").add_argument(
        "--output_dir", metavar="DIR", help="write compare.json and pictures there (nowhere)"
    )
    return result


@script
def main(argv: Sequence[str] | None = None) -> None:
    """Open, evaluate each model, tell the differences from the first."""
    flags = parser()
    args = flags.parse(argv)
    if len(args.files) < 2:
        flags.error("give two or more models, or their detections.json")
    if args.output_dir:
        check_output_dir(args.output_dir, names=NAMES)
    runtime = start_runtime(args.device, args.precision)
    contenders = [Contender(file, _checkpoint(file)) for file in args.files]
    dataset = open_common_data(flags, args, contenders)
    evaluations = [evaluate(contender, dataset, args, runtime) for contender in contenders]
    if not is_main_process():
        return
    for contender, evaluation in zip(contenders, evaluations, strict=True):
        say(f"{printable(contender.file)}: {describe(contender, runtime)}")
        say(f"  {evaluation.coco.certainty}")
    first, *others = evaluations
    results = []
    for contender, evaluation in zip(contenders[1:], others, strict=True):
        found = differences(first.coco, evaluation.coco)
        say(table(found, str(contender.file), str(contenders[0].file), len(dataset)))
        results.append({"file": str(contender.file), "differences": _numbers(found, len(dataset))})
    if args.output_dir:
        folder = Path(args.output_dir)
        content = {"first": str(contenders[0].file), "images": len(dataset), "others": results}
        write_whole(folder / NAMES[0], json.dumps(content, indent=1).encode())
        say(f"Written: {folder / NAMES[0]}")
        for path in draw_differences(folder, dataset, evaluations):
            say(f"Written: {path}")


def _checkpoint(file: Path) -> Checkpoint | None:
    return None if file.suffix == ".json" else load_checkpoint(file)


def open_common_data(
    flags: Parser, args: argparse.Namespace, contenders: Sequence[Contender]
) -> Data:
    """The data set that the flags name, with its own classes or those of the first model.

    Raises:
        DataError: it cannot be read.
    """
    choose_source(flags, args)
    known = [one.checkpoint.class_names for one in contenders if one.checkpoint]
    names = next(filter(None, known), ())
    if args.dataset == "csv" and not (args.csv_classes or names):
        flags.error("no model knows its class names; give --csv_classes")
    own = args.dataset != "csv" or args.csv_classes
    classes = None if own else {name: label for label, name in enumerate(names)}
    dataset = open_for_evaluation(args, contenders[0].file, None, classes)
    tell_notes("Images to compare on", dataset)
    return dataset


def evaluate(
    contender: Contender, dataset: Data, args: argparse.Namespace, runtime: Runtime
) -> Evaluation:
    """Scores of a model, or of its detections, on the data."""
    file, checkpoint = contender
    if checkpoint is None:
        detections = read_detections(file, dataset)
    else:
        dataset.transform = sample_transform(checkpoint)
        detections = predict_by_flags(checkpoint, dataset, args, runtime)
        detections = by_names(detections, checkpoint, dataset, file)
    return measure(dataset, detections, score_threshold=args.score_threshold)


def by_names(
    detections: list[Detections], checkpoint: Checkpoint, dataset: Data, file: Path
) -> list[Detections]:
    """Detections with the labels of the data's classes; those of unknown classes are left out.

    Raises:
        DataError: the model does not know its classes' names, and their number is another.
    """
    names = checkpoint.class_names
    if names == dataset.class_names or (not names and _same_number(checkpoint, dataset)):
        return detections
    if not set(names) & set(dataset.class_names):
        raise DataError(
            f"{file}: the model's classes ({first_few(checkpoint.names)}) are none of the"
            f" data's ({first_few(dataset.class_names)}); give data that it was trained for"
        )
    only = sorted(set(names) - set(dataset.class_names))
    missing = sorted(set(dataset.class_names) - set(names))
    say(
        f"{printable(file)}: other classes than the data's: without {', '.join(missing) or 'none'};"
        f" left out {', '.join(only) or 'none'}"
    )
    labels = torch.tensor([dataset.classes.get(name, -1) for name in names])
    renamed = []
    for found in detections:
        own = labels[found.labels]
        renamed.append(found._replace(labels=own).only(own >= 0))
    return renamed


def _same_number(checkpoint: Checkpoint, dataset: Data) -> bool:
    return checkpoint.config.num_classes == dataset.num_classes()


def read_detections(file: Path, dataset: Data) -> list[Detections]:
    """Detections in COCO's results format, as `validate.py` writes them.

    Raises:
        DataError: it is no such file, or of other images or classes.
    """
    labels = {dataset.category_id(label): label for label in range(dataset.num_classes())}
    images: dict[Any, list[tuple[float, int, list[float]]]] = {
        dataset.image_id(index): [] for index in range(len(dataset))
    }
    try:
        for record in json.loads(file.read_text(encoding="utf-8")):
            x, y, w, h = map(float, record["bbox"])
            row = (float(record["score"]), labels[record["category_id"]], [x, y, x + w, y + h])
            images[record["image_id"]].append(row)
    except FileNotFoundError as error:
        raise DataError(f"{file}: there is no such file; expected detections.json") from error
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file}: no detections on these images and classes ({reason(error)}); expected the"
            " detections.json that validate.py writes for the same data"
        ) from error
    found = []
    for rows in images.values():
        rows.sort(key=lambda row: -row[0])
        scores, classes, boxes = zip(*rows, strict=True) if rows else ((), (), ())
        found.append(
            Detections(
                torch.tensor(scores, dtype=torch.float64),
                torch.tensor(classes, dtype=torch.int64),
                torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4),
            )
        )
    return found


def describe(contender: Contender, runtime: Runtime) -> str:
    """Size and precision of a model, for who compares it with another."""
    checkpoint = contender.checkpoint
    if checkpoint is None:
        return "detections, of unknown precision"
    return (
        f"ResNet-{checkpoint.config.depth}, {counted(checkpoint.config.num_classes, 'class')},"
        f" images of {checkpoint.min_side}-{checkpoint.max_side} px, {runtime.precision}"
    )


def table(found: Sequence[Difference], second: str, first: str, images: int) -> str:
    """The differences, one a row, and a sentence on the first."""
    width = max(len("class"), *(len(row.name) for row in found))
    lines = [f"{'':{width}}  difference     95 % interval  {second}"]
    for row in found:
        ends = f"{row.interval.low:+.3f} to {row.interval.high:+.3f}" if row.interval else "-"
        lines.append(f"{row.name:{width}}  {row.value:+10.3f}  {ends:>16}  {row.verdict(images)}")
    verdict = found[0].verdict(images)
    told = f"is {verdict} than" if verdict in ("better", "worse") else "and"
    end = "" if verdict in ("better", "worse") else f": which is better {verdict}"
    return "\n".join([*lines, f"By AP, {second} {told} {first}{end}."])


def _numbers(found: Sequence[Difference], images: int) -> list[dict[str, object]]:
    return [row._asdict() | {"verdict": row.verdict(images)} for row in found]


def draw_differences(folder: Path, dataset: Data, evaluations: Sequence[Evaluation]) -> list[Path]:
    """Write the images on which the models differ most, the detections of each side by side."""
    paths = []
    for rank, index in enumerate(most_different(evaluations, PICTURES), start=1):
        sides = [_drawn(dataset, index, evaluation) for evaluation in evaluations]
        paths.append(folder / f"difference_{rank}.jpg")
        save_picture(paths[-1], contact_sheet(sides, columns=len(sides), side=640))
        counts = ", ".join(f"{mistakes(evaluation)[index]:,}" for evaluation in evaluations)
        image = printable(dataset.image_path(index))
        say(f"{image}: mistakes of the models, from left to right: {counts}")
    return paths


def _drawn(dataset: Data, index: int, evaluation: Evaluation) -> Any:
    found = evaluation.detections[index]
    sure = found.only(found.scores > torch.tensor(evaluation.thresholds)[found.labels])
    return draw_image(dataset, index, sure, dataset.class_names, ground_truth=True)


if __name__ == "__main__":
    sys.exit(main())
