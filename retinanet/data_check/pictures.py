"""Findings about a data set, as pictures."""

import copy
import io
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from PIL import Image

from retinanet.data.batches import SampleIndex
from retinanet.data.datasets import Data
from retinanet.data.transforms import Sample, UnNormalizer
from retinanet.data_check.summary import Facts, size_bins
from retinanet.errors import DataError
from retinanet.report.charts import INK
from retinanet.report.drawing import Pixels, contact_sheet, draw_boxes, draw_ground_truth
from retinanet.report.pictures import as_jpeg
from retinanet.runtime.own_files import MARK

PICTURES, COLUMNS, TILE = 12, 4, 480  # of a contact sheet; longest side of a picture, pixels
POINTS = 20_000  # boxes in the scatter plot
REACHED, UNREACHED = "#8fb1dc", "#d1495b"


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
    figure.savefig(stream, format="png", dpi=150, metadata={"Software": MARK})
    return stream.getvalue()


def sample_sheet(dataset: Data, facts: Facts) -> bytes | None:
    """A JPEG of annotated images from all over a data set; dashed: what no anchor reaches.

    Images that cannot be read are left out; None where there is no other.
    """
    boxes, names = facts.boxes, dataset.class_names
    drawn = []
    for index in _from_all_over(dataset, facts, PICTURES):
        own, fits = boxes.images == index, facts.reached
        good, bad = boxes.only(own & fits), boxes.only(own & ~fits)
        try:
            image = Image.fromarray(dataset.load_image(index))
        except DataError:  # which is said elsewhere
            continue
        width = image.width
        image.thumbnail((TILE, TILE))  # before drawing, so that letters are of one size
        scale = image.width / width
        picture = draw_boxes(
            np.asarray(image), scale * good.corners, good.labels, class_names=names
        )
        drawn.append(draw_ground_truth(picture, scale * bad.corners, bad.labels, class_names=names))
    if not drawn:
        return None
    return as_jpeg(contact_sheet(drawn, COLUMNS, side=TILE), quality=90)


def augmented_sheet(
    dataset: Data, facts: Facts, transform: Callable[[Sample], Sample]
) -> bytes | None:
    """A JPEG of what the network sees in training: a row an epoch, a column an image.

    Args:
        dataset: its own transform is not applied.
        facts: of the data set.
        transform: of training, up to normalised samples.

    Returns:
        None where no image can be read.
    """
    readable = copy.copy(dataset)
    readable.transform, readable.skip_unreadable = transform, True
    epochs = PICTURES // COLUMNS
    drawn = [
        _as_seen(sample, dataset.class_names)
        for epoch in range(epochs)
        for index in _from_all_over(dataset, facts, COLUMNS)
        if "unreadable" not in (sample := readable[SampleIndex(index, epoch)])
    ]
    if not drawn:
        return None
    return as_jpeg(contact_sheet(drawn, len(drawn) // epochs, side=TILE), quality=90)


def _as_seen(sample: Sample, class_names: Sequence[str]) -> Pixels:
    """The picture of a normalised sample with its boxes, without the padding."""
    height, width = sample["size"]
    picture = UnNormalizer()(sample["img"].permute(2, 0, 1))[:, :height, :width]
    pixels = (255 * picture).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    boxes = sample["annot"].numpy()
    return draw_boxes(pixels, boxes[:, :4], boxes[:, 4], class_names=class_names)


def _from_all_over(dataset: Data, facts: Facts, count: int) -> list[int]:
    """Indices of some images, evenly from a data set; of images with boxes where there are any."""
    owners = facts.boxes.images
    images = np.unique(owners) if len(owners) else np.arange(len(dataset))
    chosen = np.linspace(0, len(images) - 1, min(len(images), count), dtype=int)
    return [int(index) for index in images[chosen]]
