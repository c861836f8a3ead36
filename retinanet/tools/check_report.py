"""What a look at a data set found, as text and as pictures."""

import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from PIL import Image

from retinanet.charts import INK
from retinanet.data_check import (
    AnchorSizes,
    ClassFacts,
    Facts,
    Side,
    advice,
    anchor_advice,
    percent,
)
from retinanet.dataloader import Data
from retinanet.errors import printable
from retinanet.losses import POSITIVE_IOU
from retinanet.visualization import contact_sheet, draw_boxes, draw_ground_truth

BAR = 40  # letters
GROUPS, NAMES = 10, 3  # of equal files, of images; check.json has them all
PICTURES, COLUMNS, TILE = 12, 4, 480  # of the contact sheet; longest side of a picture, pixels
POINTS = 20_000  # boxes in the scatter plot
REACHED, UNREACHED = "#8fb1dc", "#d1495b"

# ---- text ----


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


def class_table(facts: Mapping[str, Facts]) -> str:
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


def size_bins(facts: Facts) -> list[tuple[float, float, int, int]]:
    """Bins of half an octave: both ends in pixels, all boxes, those that no anchor reaches."""
    lengths = facts.lengths.clip(min=1)
    if not len(lengths):
        return []
    octaves = 2 * np.log2(lengths)
    edges = 2 ** (np.arange(np.floor(octaves.min()), np.floor(octaves.max()) + 2) / 2)
    boxes = np.histogram(lengths, edges)[0]
    missed = np.histogram(lengths[~facts.reached], edges)[0]
    return list(
        zip(edges[:-1].tolist(), edges[1:].tolist(), boxes.tolist(), missed.tolist(), strict=True)
    )


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
    all_: Side | None,
    anchors: AnchorSizes | None,
) -> str:
    """The boxes that no anchor reaches: how many of each class, what would help, and where.

    Args:
        dataset: the images.
        facts: what was found in them.
        sides: better sizes for the classes, by label.
        all_: the same for all boxes together.
        anchors: better ones.
    """
    total = len(facts.reached)
    if not facts.unreached:
        return f"Some anchor reaches each of the {total:,} boxes (IoU {POSITIVE_IOU:g} or more)."
    rows = [(row, side) for row, side in zip(facts.classes, sides, strict=True) if row.unreached]
    rows.sort(key=lambda pair: -pair[0].unreached)
    table = [["class", "never train", "of", "", "min-max side", "reaches"]]
    for row, side in rows:
        better = (f"{side.min_side}-{side.max_side}", percent(side.share, 1)) if side else ("-", "")
        share = percent(row.unreached, row.boxes)
        table.append([printable(row.name), f"{row.unreached:,}", f"{row.boxes:,}", share, *better])
    head, *lines = aligned(table).split("\n")
    named = [listed(missed_images(dataset, row)) for row, _ in rows]
    width = max(map(len, lines))
    return "\n".join(
        [
            f"No anchor reaches {facts.unreached:,} of {total:,} boxes"
            f" ({percent(facts.unreached, total)}; IoU below {POSITIVE_IOU:g}). They never train;"
            f" {advice(all_)}.",
            f"{head:{width}}  images",
            *(f"{line:{width}}  {names}" for line, names in zip(lines, named, strict=True)),
            *anchor_advice(anchors),
        ]
    )


def listed(counts: Mapping[str, int]) -> str:
    """The first of many images, each with its count, and how many more there are."""
    names = [f"{name} ({count})" for name, count in counts.items()]
    more = len(names) - NAMES
    return ", ".join(names[:NAMES]) + (f" and {more:,} more" if more > 0 else "")


def missed_images(dataset: Data, row: ClassFacts) -> dict[str, int]:
    """How many boxes of a class no anchor reaches in each image, the worst one first."""
    images, counts = np.unique(row.missed.images, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    paths = [dataset.image_path(index) for index in images[order].tolist()]
    names = [printable(os.path.relpath(path, dataset.images_root)) for path in paths]
    return dict(zip(names, counts[order].tolist(), strict=True))


def file_text(groups: Sequence[Sequence[tuple[str, Path]]]) -> str:
    """Which images are in the training and the validation data, which in one of them twice."""
    leaks = [group for group in groups if len({part for part, _ in group}) > 1]
    repeats = [group for group in groups if len({part for part, _ in group}) == 1]
    lines = []
    for text, found in (
        ("in the training and in the validation data", leaks),
        ("there under several names", repeats),
    ):
        if found:
            lines.append(f"{len(found):,} image{'s are' * (len(found) > 1) or ' is'} {text}:")
            lines += [
                "  " + " = ".join(printable(path) for _, path in group) for group in found[:GROUPS]
            ]
            if len(found) > GROUPS:
                lines.append(f"  and {len(found) - GROUPS:,} more")
    return "\n".join(lines) or "No image is there twice."


# ---- pictures ----


def size_chart(facts: Facts, min_side: int, max_side: int) -> bytes:
    """A PNG of the sizes and shapes of boxes, those that no anchor reaches in another colour.

    Args:
        facts: with one box at least.
        min_side: that the boxes are for.
        max_side: that the boxes are for.
    """
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    sizes, shapes = figure.subplots(1, 2)
    bins = size_bins(facts)
    edges = [low for low, *_ in bins] + [high for _, high, *_ in bins[-1:]]
    lengths = facts.lengths.clip(min=1)
    sizes.hist(
        [lengths[facts.reached], lengths[~facts.reached]],
        edges,
        stacked=True,
        color=[REACHED, UNREACHED],
        edgecolor="white",
        linewidth=0.8,
    )
    sizes.set(xlabel="side of a square of the same area, pixels", ylabel="boxes")
    some = np.linspace(0, len(lengths) - 1, min(len(lengths), POINTS), dtype=int)
    for name, fits, color in (
        ("some anchor reaches it", True, REACHED),
        ("no anchor does: it never trains", False, UNREACHED),
    ):
        rows = some[facts.reached[some] == fits]
        label = f"{name} ({np.count_nonzero(facts.reached == fits):,})"
        shapes.scatter(*facts.shapes[rows].T, s=10, color=color, linewidths=0, label=label)
    shapes.set(xlabel="width, pixels", ylabel="height, pixels", yscale="log")
    octaves = np.log2(facts.shapes.clip(min=1))
    ends = 2.0 ** np.array([np.floor(octaves.min()), np.ceil(octaves.max())])
    shapes.set_ylim(ends * (0.9, 1.1))  # an axis without a power of two would have no number
    for axes in (sizes, shapes):
        axes.set_xscale("log")
        axes.set_xlim(ends * (0.9, 1.1))
        axes.grid(color=INK, alpha=0.12)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        for axis in (axes.xaxis, shapes.yaxis):
            axis.set_major_locator(LogLocator(2))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_locator(NullLocator())
    figure.suptitle(f"Boxes as the network sees them, images of {min_side} to {max_side} px")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, markerscale=3)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150)
    return stream.getvalue()


def sample_sheet(dataset: Data, facts: Facts) -> bytes:
    """A JPEG of annotated images from all over a data set; dashed: what no anchor reaches."""
    boxes, names = facts.boxes, dataset.class_names
    images = np.unique(boxes.images) if len(boxes.images) else np.arange(len(dataset))
    chosen = images[np.linspace(0, len(images) - 1, min(len(images), PICTURES), dtype=int)]
    drawn = []
    for index in chosen.tolist():
        own, fits = boxes.images == index, facts.reached
        good, bad = boxes.only(own & fits), boxes.only(own & ~fits)
        image = Image.fromarray(dataset.load_image(index))
        width = image.width
        image.thumbnail((TILE, TILE))  # before drawing, so that letters are of one size
        scale = image.width / width
        picture = draw_boxes(
            np.asarray(image), scale * good.corners, good.labels, class_names=names
        )
        drawn.append(draw_ground_truth(picture, scale * bad.corners, bad.labels, class_names=names))
    stream = io.BytesIO()
    sheet = contact_sheet(drawn, COLUMNS, side=TILE)
    Image.fromarray(sheet).save(stream, format="JPEG", quality=90)
    return stream.getvalue()
