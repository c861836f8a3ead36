"""Look at a data set before training on it: python -m retinanet.tools.check_data --help."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retinanet.cli.flags import (
    add_anchor_flags,
    add_size_flags,
    add_training_data_flags,
    check_training_flags,
)
from retinanet.cli.from_flags import tell_notes
from retinanet.cli.parser import Parser
from retinanet.cli.script import script
from retinanet.data.datasets import CocoDataset, CSVDataset, Data
from retinanet.data_check.anchor_coverage import Side, better_anchors, better_sides
from retinanet.data_check.duplicates import equal_files
from retinanet.data_check.pictures import sample_sheet, size_chart
from retinanet.data_check.summary import Facts, look_at, missed_images, size_bins
from retinanet.data_check.text import anchor_text, count_table, file_text, size_table
from retinanet.errors import DataError
from retinanet.model import ModelConfig
from retinanet.runtime.console import say
from retinanet.runtime.files import check_output_dir, write_whole


def parser() -> Parser:
    """The flags of this command: those of train.py that name data, sizes and anchors."""
    result = Parser("Look at a data set before training on it: classes, sizes, anchors, files.")
    add_training_data_flags(result, kinds=("coco", "csv"))
    group = result.add_argument_group("network")
    add_size_flags(group, "608", "1024")
    add_anchor_flags(group)
    group = result.add_argument_group("results")
    group.add_argument(
        "--output_dir",
        metavar="DIR",
        help="write check.json, box_sizes.png and samples.jpg there (nowhere)",
    )
    result.set_defaults(min_side=608, max_side=1024)
    return result


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the flags and see that what they need is there."""
    flags = parser()
    args = flags.parse(argv)
    check_training_flags(flags, args)
    return args


def open_data(args: argparse.Namespace) -> dict[str, Data]:
    """The training data, and the validation data where there are some.

    Raises:
        DataError: with what is wrong with both.
    """
    found: dict[str, Data] = {}
    problems = []
    files = {"training": args.csv_train, "validation": args.csv_val}
    sets = {"training": args.coco_train_set, "validation": args.coco_val_set}
    for name in files:
        try:
            if args.dataset == "coco":
                found[name] = CocoDataset(args.coco_path, sets[name], strict=args.strict)
            elif files[name]:
                first = found.get("training")
                found[name] = CSVDataset(
                    files[name],
                    first.classes if first else args.csv_classes,
                    images_dir=args.csv_images_dir,
                    strict=args.strict,
                )
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError("\n".join(dict.fromkeys(problems)))
    return found


def equal_images(data: Mapping[str, Data]) -> list[list[tuple[str, Path]]]:
    """Groups of images of the same content: of each the data it is of, and its path."""
    images = [
        (part, dataset.image_path(index))
        for part, dataset in data.items()
        for index in range(len(dataset))
    ]
    return [[images[k] for k in group] for group in equal_files([path for _, path in images])]


def as_json(dataset: Data, facts: Facts, sides: Sequence[Side | None]) -> dict[str, Any]:
    """What was found in one of the data sets, as plain values."""
    classes = [
        {
            "name": row.name,
            "boxes": row.boxes,
            "images": row.images,
            "without_anchor": row.unreached,
            "images_without_anchor": missed_images(dataset, row),
            "better_size": side and side._asdict(),
        }
        for row, side in zip(facts.classes, sides, strict=True)
    ]
    bins = [
        {"from": low, "to": high, "boxes": boxes, "without_anchor": missed}
        for low, high, boxes, missed in size_bins(facts)
    ]
    return {
        "images": facts.images,
        "images_without_boxes": facts.empty,
        "boxes": len(facts.reached),
        "boxes_without_anchor": facts.unreached,
        "repaired": dataset.repaired,
        "notes": dataset.notes,
        "classes": classes,
        "box_sizes": bins,
    }


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files of these names, and say so."""
    for name, content in files.items():
        write_whole(folder / name, content)
        say(f"Written: {folder / name}")


@script
def main(argv: Sequence[str] | None = None) -> None:
    """Read, count, tell; write where wanted."""
    args = parse(argv)
    if args.output_dir:
        check_output_dir(args.output_dir, names=("check.json", "box_sizes.png", "samples.jpg"))
    data = open_data(args)
    for part, dataset in data.items():
        tell_notes(f"{part.capitalize()} data", dataset)
    train = data["training"]
    if any(dataset.class_names != train.class_names for dataset in data.values()):
        say("Warning: the validation data has other classes; train.py will refuse it")
    config = ModelConfig(
        train.num_classes(),
        anchor_sizes=tuple(args.anchor_sizes),
        anchor_ratios=tuple(args.anchor_ratios),
        anchor_scales=tuple(args.anchor_scales),
    )
    size = args.min_side, args.max_side
    facts = {part: look_at(dataset, *size, config) for part, dataset in data.items()}
    sides = {
        part: better_sides([row.missed for row in found.classes], *size, config)
        for part, found in facts.items()
    }
    equal = equal_images(data)

    found = facts["training"]
    missed = found.boxes.only(~found.reached)
    say(f"\n{count_table(facts)}")
    say(f"\nTraining boxes at {size[0]} to {size[1]} px, by the side of a square of equal area:")
    say(size_table(found))
    together = better_sides([missed], *size, config)[0]
    anchors = better_anchors(found.boxes, *size, config)
    say(f"\n{anchor_text(train, found, sides['training'], together, anchors)}")
    say(f"\n{file_text(equal)}")

    if args.output_dir:
        content: dict[str, Any] = {
            name: vars(args)[name]
            for name in ("min_side", "max_side", "anchor_sizes", "anchor_ratios", "anchor_scales")
        }
        for part, dataset in data.items():
            content[part] = as_json(dataset, facts[part], sides[part])
        content["better_anchor_sizes"] = anchors and anchors.sizes
        content["equal_files"] = [[[part, str(path)] for part, path in group] for group in equal]
        files = {"check.json": json.dumps(content, indent=1).encode()}
        if len(found.reached):
            files["box_sizes.png"] = size_chart(found, *size)
        files["samples.jpg"] = sample_sheet(train, found)
        write_files(Path(args.output_dir), files)


if __name__ == "__main__":
    sys.exit(main())
