"""Photographs of the page with boxes that can be shown and hidden, as an SVG over each."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from retinanet.evaluation.matching import Matches
from retinanet.evaluation.precision_recall import Floats
from retinanet.report.charts import shortened
from retinanet.report.drawing import CaptionPlaces, Pixels, caption_places, class_color
from retinanet.report.html import Html, element, embedded
from retinanet.report.interactive import KINDS, steps_reached
from retinanet.report.pictures import as_jpeg

SIZE = (480, 360)  # maximum width and height, pixels: letters on it can be read
LETTERS = 13  # pixels of the same, height of a line
FINE = 10  # of detections that are true


def reduced(image: Pixels) -> tuple[Pixels, float]:
    """An image in the size of the page's, and by how much it was scaled."""
    picture = Image.fromarray(image)
    scale = min(SIZE[0] / picture.width, SIZE[1] / picture.height)
    size = max(1, round(scale * picture.width)), max(1, round(scale * picture.height))
    return np.array(picture.resize(size, Image.Resampling.LANCZOS)), scale


def photo(
    image: Pixels,
    scale: float,
    matches: Matches,
    class_names: Sequence[str],
    start: int,
    *,
    alt: str,
    caption: Sequence[str],
) -> Html:
    """A photograph with all annotations and detections over it, those that count in sight.

    Args:
        image: [H, W, 3] of the page's size.
        scale: of `image` to the pixels of the boxes.
        matches: of all detections.
        class_names: by label.
        start: step of the slider, from which detections count.
        alt: what it shows.
        caption: text and HTML that stand below it, before the counts.
    """
    height, width = image.shape[:2]
    hits = set(matches.found[np.array(_steps(matches), int) >= start].tolist()) - {-1}
    boxes = [*_annotations(matches, scale, image, class_names, hits)]
    boxes += _detections(matches, scale, image, class_names, start)
    wrong = sum(step >= start for step in _steps(matches)) - len(hits)
    tally = (len(hits), wrong, len(matches.annotations) - len(hits))
    told = element(
        "span",
        *(
            element("span", element("b", str(count)), f" {kind}")
            for count, kind in zip(tally, KINDS, strict=True)
        ),
        class_="tally",
    )
    overlay = element("svg", *boxes, viewBox=f"0 0 {width} {height}")
    return element(
        "figure",
        element("div", embedded(as_jpeg(image, quality=85), "jpeg", alt), overlay),
        element("figcaption", *caption, told),
        class_="photo",
    )


def _steps(matches: Matches) -> list[int]:
    # A detection counts once for each annotation: that none is found twice is match()'s promise.
    return steps_reached(matches.detections.scores.tolist())


def _annotations(
    matches: Matches, scale: float, image: Pixels, names: Sequence[str], hits: set[int]
) -> list[Html]:
    """The annotations, dashed, those that nothing found with their names."""
    found, places = [], CaptionPlaces()
    for place, row in enumerate(matches.annotations):
        corners = _corners(scale * row[:4], image)
        rectangle = _rectangle(corners)
        text = _text(corners, shortened(names[int(row[4])]), image, places, below=True)
        kind = "truth" if place in hits else "truth missed"
        dashes = element("rect", **rectangle, class_="dashes")
        found.append(element("g", element("rect", **rectangle), dashes, text, class_=kind))
    return found


def _detections(
    matches: Matches, scale: float, image: Pixels, names: Sequence[str], start: int
) -> list[Html]:
    """The detections, false ones with thicker lines, the best on top.

    They come best first, so whichever count, the captions of none lie upon those of others.
    """
    drawn, places = [], CaptionPlaces()
    scores, labels, boxes = (column.numpy() for column in matches.detections)
    columns = zip(scores, labels, boxes, matches.found, _steps(matches), strict=True)
    for score, label, box, found, step in columns:
        corners = _corners(scale * box, image)
        name = f"{shortened(names[label])} {score:.2f}"
        text = _text(corners, name, image, places, below=False, fine=found >= 0)
        told = {"data_at": str(step), "style": f"color:rgb{class_color(int(label))}"}
        if found >= 0:
            told["data_found"] = str(found)
        if step < start:
            told["hidden"] = ""
        drawn.append(element("g", element("rect", **_rectangle(corners)), text, **told))
    return drawn[::-1]


def _corners(box: Floats, image: Pixels) -> tuple[float, float, float, float]:
    """Left, top, right, bottom inside the image, half a line from its border."""
    height, width = image.shape[:2]
    left, top, right, bottom = box.tolist()
    left, right = (min(max(x, 1), width - 1) for x in (left, right))
    top, bottom = (min(max(y, 1), height - 1) for y in (top, bottom))
    return left, top, right, bottom


def _rectangle(corners: tuple[float, float, float, float]) -> dict[str, str]:
    left, top, right, bottom = corners
    values = {"x": left, "y": top, "width": max(right - left, 1), "height": max(bottom - top, 1)}
    return {name: f"{value:.0f}" for name, value in values.items()}


def _text(
    corners: tuple[float, float, float, float],
    text: str,
    image: Pixels,
    places: CaptionPlaces,
    *,
    below: bool,
    fine: bool = False,
) -> Html:
    """A caption above a box or below it, inside it where there is no room, on no other one."""
    height, width = image.shape[:2]
    letters = FINE if fine else LETTERS
    size = min(round(0.66 * letters * len(text)), width), letters + 3  # of bold letters, about
    box = [round(corner) for corner in corners]
    x, y = places.find(caption_places(box, size, (width, height), below=below), size)
    return element("text", text, x=str(x), y=str(y + letters))
