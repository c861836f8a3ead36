"""Findings about a data set, as text."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from retinanet.data.datasets import Data
from retinanet.data_check.anchor_coverage import (
    MANY,
    AnchorSizes,
    Side,
    TrainingSetup,
    better_anchors,
    better_sides,
)
from retinanet.data_check.positives import (
    ClassPositives,
    class_positives,
    count_positives,
    some_images,
)
from retinanet.data_check.summary import Facts, look_at, missed_images, size_bins
from retinanet.errors import printable
from retinanet.losses import POSITIVE_IOU

CLASSES_NAMED = 3  # in the digest
COUNTED = 200  # images in which the digest counts positive anchors
SMALL = 16  # pixels after resizing: of boxes that are better looked at in tiles
LARGE = 2000  # pixels of the longer side of a picture that is worth cutting
BAR = 40  # letters of the longest bar
IMAGES_NAMED = 3  # of a class; check.json has them all

NO_CENTRE = (
    "Boxes without an anchor never train. They are smaller than the 8 px from one to the next, or"
    " others overlap theirs more; a larger --min_side gives them some."
)


def digest(dataset: Data, setup: TrainingSetup) -> str:
    """Sizes of the boxes as training sees them; a warning and advice in lines of their own.

    The warning stands where no anchor reaches more than `MANY` of the boxes of a class: a rare
    class may hardly train where nearly all boxes do.

    Args:
        dataset: to train on.
        setup: sizes, anchors, their matching and tiles.
    """
    facts = look_at(dataset, replace(setup, matching="iou"))  # atss looks at some images, below
    total = len(facts.reached)
    if not total:
        return "There are no boxes: the network will learn background alone."
    least, half, most = np.percentile(facts.lengths, (0, 50, 100))
    text = (
        f"At {setup.min_side} to {setup.max_side} px the boxes are {least:.0f} to {most:.0f} px"
        f" large, half of them below {half:.0f} (side of a square of the same area)."
    )
    cut = [] if setup.tile else tile_advice(dataset, facts, setup.min_side)
    if setup.matching == "atss":
        boxes = facts.boxes
        if setup.tile:  # those of all tiles lie in one frame: each is counted by itself
            boxes = boxes._replace(images=np.arange(total))
        some = some_images(boxes, len(facts.classes), COUNTED)
        rows = class_positives(some, count_positives(some, setup), dataset.class_names)
        return "\n".join([f"{text} {positives_sentence(rows)}", *positives_warning(rows), *cut])
    if not facts.unreached:
        return "\n".join([f"{text} Anchors reach all of them.", *cut])
    share = percent(facts.unreached, total)
    text += f" No anchor reaches {facts.unreached:,} of {total:,} ({share}): these never train."
    worst = [row for row in facts.classes if row.unreached > MANY * row.boxes]
    worst = sorted(worst, key=lambda row: row.unreached, reverse=True)[:CLASSES_NAMED]
    if not worst:
        return "\n".join([text, *cut])
    sides = better_sides([row.missed for row in worst], setup)
    return "\n".join(
        [
            text,
            f"Warning: of these classes more than {percent(MANY, 1)} of the boxes have no anchor",
            *(
                f"  {row.name}: {row.unreached:,} of {row.boxes:,}; {advice(side)}"
                for row, side in zip(worst, sides, strict=True)
            ),
            *anchor_advice(better_anchors(facts.boxes, setup)),
            *cut,
            "python -m retinanet.tools.check_data shows them all.",
        ]
    )


def positives_sentence(rows: Sequence[ClassPositives]) -> str:
    """Positive anchors of the classes, of many classes those with the fewest."""
    shown = ", ".join(f"{printable(row.name)} {row.median:g}" for row in rows[:CLASSES_NAMED])
    few = f"the fewest of {len(rows)}: " if len(rows) > CLASSES_NAMED else ""
    return f"Positive anchors of a box by ATSS, median of its class: {few}{shown}."


def positives_warning(rows: Sequence[ClassPositives]) -> list[str]:
    """Lines on the classes of which more than `MANY` of the boxes have no positive anchor."""
    worst = [row for row in rows if row.without > MANY * row.boxes]
    if not worst:
        return []
    worst = sorted(worst, key=lambda row: row.without, reverse=True)[:CLASSES_NAMED]
    return [
        f"Warning: of these classes more than {percent(MANY, 1)} of the boxes have no anchor",
        *(f"  {printable(row.name)}: {row.without:,} of {row.boxes:,}" for row in worst),
        NO_CENTRE,
    ]


def positives_table(rows: Sequence[ClassPositives]) -> str:
    """Positive anchors of the boxes of each class, the fewest first."""
    table = [["class", "boxes", "least", "median", "none"]]
    for row in rows:
        numbers = (f"{row.boxes:,}", f"{row.least}", f"{row.median:g}", f"{row.without:,}")
        table.append([printable(row.name), *numbers])
    lines = ["Positive anchors of a box by ATSS:", aligned(table)]
    return "\n".join([*lines, NO_CENTRE] if any(row.without for row in rows) else lines)


def tile_advice(dataset: Data, facts: Facts, min_side: int) -> list[str]:
    """A line on training by tiles, where most boxes are small in large pictures."""
    longer = np.median([max(dataset.image_size(index)) for index in range(len(dataset))])
    if not len(facts.lengths) or np.median(facts.lengths) >= SMALL or longer <= LARGE:
        return []
    return [
        f"Most boxes are under {SMALL} px, the pictures over {LARGE:,}: --tile {min_side} trains on"
        " tiles of them."
    ]


def advice(side: Side | None) -> str:
    """Advice for boxes that no anchor reaches."""
    if not side or side.share < 0.5:
        return "no size gives most of them one: try other --anchor_sizes or --anchor_ratios"
    small, large, share = side
    return f"--min_side {small} --max_side {large} gives {percent(share, 1)} of them one"


def anchor_advice(choice: AnchorSizes | None) -> list[str]:
    """A line on which anchors would do better, or none."""
    if not choice:
        return []
    sizes = " ".join(f"{size:g}" for size in choice.sizes)
    left = percent(choice.worst, 1)
    return [f"--anchor_sizes {sizes} leaves at most {left} of any class without one, at this size."]


def percent(part: float, whole: float) -> str:
    """A share for people: `0.4 %`, `58 %`; never 0 % of something, nor 100 % of less than all."""
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "under 0.1 %"
    if 99 < share < 100:
        return "over 99 %"
    return f"{share:.0f} %" if share >= 10 else f"{share:.1f} %".replace(".0 ", " ")


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if k else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def count_table(facts: Mapping[str, Facts]) -> str:
    """Boxes and images of each class, the most frequent one first."""
    heads = ["class", *(head for part in facts for head in (f"{part} boxes", "images"))]
    own = [{row.name: row for row in found.classes} for found in facts.values()]
    names = sorted(
        dict.fromkeys(name for rows in own for name in rows),
        key=lambda name: -sum(rows[name].boxes for rows in own if name in rows),
    )
    table = [heads]
    for name in names:
        counts = [(rows[name].boxes, rows[name].images) if name in rows else (0, 0) for rows in own]
        table.append([printable(name), *(f"{n:,}" for pair in counts for n in pair)])
    totals = [(len(found.reached), found.images) for found in facts.values()]
    table.append(["all", *(f"{n:,}" for pair in totals for n in pair)])
    table.append(["no boxes", *(n for found in facts.values() for n in ("", f"{found.empty:,}"))])
    return aligned(table)


def size_table(facts: Facts) -> str:
    """A histogram of letters; lighter ones are boxes that no anchor reaches."""
    dark, light = "█░" if "utf" in (sys.stdout.encoding or "").lower() else "#-"
    bins = size_bins(facts)
    most = max((boxes for *_, boxes, _ in bins), default=1)
    rows = []
    for low, high, boxes, missed in bins:
        length = -(-BAR * boxes // most)
        faint = -(-length * missed // max(boxes, 1))
        bar = dark * (length - faint) + light * faint
        note = f"  {missed:,} without an anchor" if missed else ""
        rows.append(f"  {low:5.0f} -{high:5.0f} px {boxes:9,}  {bar}{note}")
    return "\n".join(map(str.rstrip, rows)) or "  none"


def anchor_text(
    dataset: Data,
    facts: Facts,
    sides: Sequence[Side | None],
    together: Side | None,
    anchors: AnchorSizes | None,
) -> str:
    """The boxes that no anchor reaches: how many of each class, what would help, and where.

    Args:
        dataset: the images.
        facts: what was found in them.
        sides: better sizes for the classes, by label.
        together: the same for all boxes.
        anchors: better ones.
    """
    total = len(facts.reached)
    if not facts.unreached:
        return f"Some anchor reaches every box, {total:,} in all (IoU {POSITIVE_IOU:g} or more)."
    rows = [(row, side) for row, side in zip(facts.classes, sides, strict=True) if row.unreached]
    rows.sort(key=lambda pair: -pair[0].unreached)
    table = [["class", "never train", "of", "", "min-max side", "reaches"]]
    for row, side in rows:
        better = (f"{side.min_side}-{side.max_side}", percent(side.share, 1)) if side else ("-", "")
        share = percent(row.unreached, row.boxes)
        table.append([printable(row.name), f"{row.unreached:,}", f"{row.boxes:,}", share, *better])
    head, *lines = aligned(table).split("\n")
    named = [image_list(missed_images(dataset, row)) for row, _ in rows]
    width = max(map(len, lines))
    return "\n".join(
        [
            f"No anchor reaches {facts.unreached:,} of {total:,} boxes"
            f" ({percent(facts.unreached, total)}; IoU below {POSITIVE_IOU:g}). They never train;"
            f" {advice(together)}.",
            f"{head:{width}}  images",
            *(f"{line:{width}}  {names}" for line, names in zip(lines, named, strict=True)),
            *anchor_advice(anchors),
        ]
    )


def image_list(counts: Mapping[str, int]) -> str:
    """The first of many images, each with its count, and how many more there are."""
    names = [f"{name} ({count})" for name, count in counts.items()]
    more = len(names) - IMAGES_NAMED
    return ", ".join(names[:IMAGES_NAMED]) + (f" and {more:,} more" if more > 0 else "")
