"""Look at a data set before training on it: python -m retinanet.tools.check_data --help."""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torchvision.transforms import Compose

from retinanet.cli.flags import (
    add_anchor_flags,
    add_augment_flag,
    add_matching_flag,
    add_size_flags,
    add_training_data_flags,
    check_training_flags,
)
from retinanet.cli.from_flags import open_set, tell_notes
from retinanet.cli.parser import Parser
from retinanet.cli.script import script
from retinanet.data.datasets import Data
from retinanet.data.transforms import MAX_SIDE, MIN_SIDE, training_transform
from retinanet.data_check.anchor_coverage import (
    AnchorSizes,
    Side,
    TrainingSetup,
    better_anchors,
    better_sides,
)
from retinanet.data_check.findings import Findings, PartImage, find_problems
from retinanet.data_check.pictures import augmented_sheet, sample_sheet, size_chart
from retinanet.data_check.positives import class_positives
from retinanet.data_check.problem_text import problem_text
from retinanet.data_check.summary import Facts, look_at, missed_images, size_bins
from retinanet.data_check.text import (
    anchor_text,
    count_table,
    positives_table,
    size_table,
    tile_advice,
)
from retinanet.errors import DataError, counted
from retinanet.model import ModelConfig
from retinanet.runtime.console import say
from retinanet.runtime.files import check_output_dir, write_whole


def parser() -> Parser:
    """The flags of this command: those of train.py that name data, sizes and anchors."""
    result = Parser("Look at a data set before training on it: classes, sizes, anchors, files.")
    add_training_data_flags(result, kinds=("coco", "csv"))
    group = result.add_argument_group("network")
    add_size_flags(group)
    add_anchor_flags(group)
    add_matching_flag(group)
    add_augment_flag(group)
    group = result.add_argument_group("results")
    group.add_argument(
        "--output_dir",
        metavar="DIR",
        help="write check.json and pictures there (nowhere)",
    )
    group.add_argument(
        "--json", action="store_true", help="print check.json instead of text, and nothing else"
    )
    group = result.add_argument_group("speed")
    group.add_argument("--no_decode", action="store_true", help="read the images' headers only")
    group.add_argument(
        "--no_near_duplicates", action="store_true", help="look for equal files only"
    )
    result.set_defaults(min_side=MIN_SIDE, max_side=MAX_SIDE)
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
    parts = {"training": "train", "validation": "val"}
    if names_one_set(args):  # compared with itself, every image of it would be there twice
        del parts["validation"]
        say("The validation data are the training data: their AP tells nothing about other images")
    for name, part in parts.items():
        try:
            dataset = open_set(args, part)  # with its own classes: some may be missing in training
        except DataError as error:
            problems.append(str(error))
        else:
            found |= {name: dataset} if dataset else {}
    if problems:
        raise DataError("\n".join(dict.fromkeys(problems)))
    if not found:
        raise DataError(f"{args.data}: no set to train or to evaluate on; expected at least one")
    return found


def names_one_set(args: argparse.Namespace) -> bool:
    """Whether the flags name the same file for training and for validation."""
    if args.dataset == "coco":
        return bool(args.coco_train_set == args.coco_val_set)
    files = [args.csv_train, args.csv_val] if args.dataset == "csv" else []
    return all(files) and len(set(map(os.path.realpath, files))) == 1


def set_content(dataset: Data, facts: Facts, sides: Sequence[Side | None]) -> dict[str, Any]:
    """Findings about one of the data sets, as plain values for check.json."""
    classes: list[dict[str, Any]] = [
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
    if facts.positives is not None:
        rows = class_positives(facts.boxes, facts.positives, dataset.class_names)
        counts = {row.name: {"least": row.least, "median": row.median} for row in rows}
        for found in classes:
            found["positive_anchors"] = counts.get(found["name"])
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


def write_files(folder: Path, files: Mapping[str, bytes], *, told: bool) -> None:
    """Write files of these names, and say so if wanted."""
    for name, content in files.items():
        write_whole(folder / name, content)
        if told:
            say(f"Written: {folder / name}")


@dataclass(frozen=True)
class Checked:
    """All that was found in the data sets, at one size and with one set of anchors."""

    data: Mapping[str, Data]
    facts: Mapping[str, Facts]
    sides: Mapping[str, list[Side | None]]
    """By data set: better sizes for its classes, if any."""
    together: Side | None
    """A better size for all boxes of the first data set."""
    anchors: AnchorSizes | None
    """Better anchors for them."""
    findings: Findings

    @property
    def first(self) -> tuple[str, Data, Facts]:
        """The training data, or the validation data where there is nothing else."""
        part, dataset = next(iter(self.data.items()))
        return part, dataset, self.facts[part]


def check(data: Mapping[str, Data], args: argparse.Namespace) -> Checked:
    """Count boxes and their anchors, look at every image."""
    config = ModelConfig(
        next(iter(data.values())).num_classes(),
        anchor_sizes=tuple(args.anchor_sizes),
        anchor_ratios=tuple(args.anchor_ratios),
        anchor_scales=tuple(args.anchor_scales),
    )
    setup = TrainingSetup(args.min_side, args.max_side, config, args.matching)
    facts = {part: look_at(found, setup) for part, found in data.items()}
    checked = Checked(
        data,
        facts,
        {part: [None] * len(own.classes) for part, own in facts.items()},
        None,
        None,
        find_problems(data, facts, decode=not args.no_decode, compare=not args.no_near_duplicates),
    )
    return with_advice(checked, setup) if args.matching == "iou" else checked


def with_advice(checked: Checked, setup: TrainingSetup) -> Checked:
    """Try other sizes and anchors for the boxes that no anchor reaches."""
    found = checked.first[2]
    return replace(
        checked,
        sides={
            part: better_sides([row.missed for row in own.classes], setup)
            for part, own in checked.facts.items()
        },
        together=better_sides([found.boxes.only(~found.reached)], setup)[0],
        anchors=better_anchors(found.boxes, setup),
    )


def anchors_of(checked: Checked) -> str:
    """Text on the boxes that have no anchor, or with atss on how many they have."""
    first, dataset, found = checked.first
    if found.positives is not None:
        return positives_table(class_positives(found.boxes, found.positives, dataset.class_names))
    return anchor_text(dataset, found, checked.sides[first], checked.together, checked.anchors)


def tell(checked: Checked, args: argparse.Namespace) -> None:
    """Print everything as text."""
    first, train, found = checked.first
    for part, dataset in checked.data.items():
        tell_notes(f"{part.capitalize()} data", dataset)
    sizes = f"{args.min_side} to {args.max_side} px"
    say(f"\n{count_table(checked.facts)}")
    say(f"\n{first.capitalize()} boxes at {sizes}, by the side of a square of equal area:")
    say(size_table(found))
    say(f"\n{anchors_of(checked)}")
    for line in tile_advice(train, found, args.min_side):
        say(line)
    kinds = {"decoded": not args.no_decode, "compared": not args.no_near_duplicates}
    say(f"\n{problem_text(checked.findings, **kinds)}")


def check_content(checked: Checked, args: argparse.Namespace) -> dict[str, Any]:
    """All findings as plain values: the content of check.json."""
    settings = (
        *("min_side", "max_side", "anchor_sizes", "anchor_ratios", "anchor_scales"),
        "matching",
    )
    found = checked.findings
    return {
        **{name: vars(args)[name] for name in settings},
        **{
            part: set_content(dataset, checked.facts[part], checked.sides[part])
            for part, dataset in checked.data.items()
        },
        "better_anchor_sizes": checked.anchors and checked.anchors.sizes,
        "problems": found.problems,
        "equal_files": _plain(found.equal),
        "near_duplicates": None if args.no_near_duplicates else _plain(found.alike),
        "unreadable": None if args.no_decode else found.unreadable,
        "one_colour": None if args.no_decode else _plain([found.one_colour])[0],
        "double_boxes": [
            {"image": str(double.image), "classes": double.classes, "box": double.box}
            for double in found.double_boxes
        ],
        "classes_in_one_set": found.only_in,
    }


def transform_by_flags(args: argparse.Namespace) -> Compose:
    """Transform of a training with these flags and the default seed."""
    return training_transform(args.min_side, args.max_side, augment=args.augment, seed=0)


def _plain(groups: Sequence[Sequence[PartImage]]) -> list[list[list[str]]]:
    return [[[part, str(path)] for part, path in group] for group in groups]


@script
def main(argv: Sequence[str] | None = None) -> None:
    """Read, count, tell; write where wanted; end with 1 where there are problems."""
    args = parse(argv)
    if args.output_dir:
        check_output_dir(args.output_dir)
    with redirect_stdout(sys.stderr) if args.json else nullcontext():  # stdout is the JSON alone
        checked = check(open_data(args), args)
    report = json.dumps(check_content(checked, args), indent=1)
    if args.json:
        say(report)
    else:
        tell(checked, args)
    if args.output_dir:
        _, train, found = checked.first
        files = {"check.json": report.encode()}
        if len(found.reached):
            files["box_sizes.png"] = size_chart(found, args.min_side, args.max_side)
        if sheet := sample_sheet(train, found):
            files["samples.jpg"] = sheet
        if args.augment != "none" and (
            sheet := augmented_sheet(train, found, transform_by_flags(args))
        ):
            files["augmented.jpg"] = sheet
        write_files(Path(args.output_dir), files, told=not args.json)
    if problems := checked.findings.problems:
        raise DataError(f"{counted(problems, 'problem')} found, named above")


if __name__ == "__main__":
    sys.exit(main())
