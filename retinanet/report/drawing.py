"""Draw boxes with their names onto pictures: arrays in, arrays out.

Lines and letters grow with the picture, so that they look alike on every size. It knows nothing of
models, datasets or files.
"""

import colorsys
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont
from torchvision.utils import draw_bounding_boxes

from retinanet.errors import DataError

Pixels = NDArray[np.uint8]  # [H, W, 3] RGB
Color = tuple[int, int, int]
XY = tuple[int, int]  # across and down, pixels: a place or a size
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
GOLDEN_RATIO = 0.618034  # as a step around the circle of hues it keeps any number of them apart
READABLE = 12  # pixels, least height of letters
LEGIBLE = 6  # pixels, for a caption that is wider than the picture otherwise


def draw_boxes(
    image: Pixels,
    boxes: ArrayLike,
    labels: ArrayLike,
    scores: ArrayLike | None = None,
    *,
    class_names: Sequence[str],
) -> Pixels:
    """Draw detections: each box in the colour of its class, with name and score above it.

    Args:
        image: [H, W, 3] RGB; stays as it is.
        boxes: [D, 4] xyxy, pixels of `image`; clipped to it, and left out where nothing remains.
        labels: [D].
        scores: [D], 0..1; the highest comes on top. None: the last does, and no score is said.
        class_names: by label.

    Returns:
        [H, W, 3], a copy.
    """
    kept, corners = _pixel_corners(image, boxes)
    classes = np.asarray(labels, int)[kept]
    captions = [class_names[label] for label in classes]
    if scores is not None:
        values = np.asarray(scores, float)[kept]
        order = np.argsort(values, kind="stable")
        captions = [f"{captions[index]} {values[index]:.2f}" for index in order]
        corners, classes = corners[order], classes[order]
    colors = [class_color(label) for label in classes]
    picture = _outlined(image, corners, colors, _line_width(image))
    return _captioned(picture, corners, captions, colors, below=False)


def draw_ground_truth(
    image: Pixels, boxes: ArrayLike, labels: ArrayLike, *, class_names: Sequence[str]
) -> Pixels:
    """Draw annotations: each box in wide black and white dashes, with its name below it.

    Detections drawn afterwards have thinner lines, so that both are seen where they agree.

    Args:
        image: [H, W, 3] RGB; stays as it is.
        boxes: [M, 4] xyxy, pixels of `image`; clipped to it, and left out where nothing remains.
        labels: [M].
        class_names: by label.

    Returns:
        [H, W, 3], a copy.
    """
    kept, corners = _pixel_corners(image, boxes)
    width = round(1.5 * _line_width(image))
    white, black = (
        _outlined(image, corners, [color] * len(corners), width) for color in (WHITE, BLACK)
    )
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    dashes = (rows + columns) // (4 * width) % 2 == 0  # [H, W]
    picture = np.where(dashes[..., None], white, black)
    names = [class_names[label] for label in np.asarray(labels, int)[kept]]
    return _captioned(picture, corners, names, [WHITE] * len(corners), below=True)


def class_color(label: int) -> Color:
    """The colour of a class: the same in every picture, and bright on any background."""
    hue = (0.95 + label * GOLDEN_RATIO) % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, (0.8, 0.6)[label // 8 % 2], 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


class CaptionPlaces:
    """Places of a picture's captions, none upon another where there is room."""

    def __init__(self) -> None:
        self._taken = np.zeros((0, 4))  # left, top, right, bottom

    def find(self, places: Sequence[XY], size: XY) -> XY:
        """The first of the places that is free for a caption of this size, else the first."""
        width, height = size
        left, top, right, bottom = self._taken.T

        def is_free(place: XY) -> bool:
            x, y = place
            beside = (x >= right) | (x + width <= left) | (y >= bottom) | (y + height <= top)
            return bool(beside.all())

        found = next(filter(is_free, places), places[0])
        self._taken = np.vstack((self._taken, [*found, found[0] + width, found[1] + height]))
        return found


def caption_places(box: Sequence[int], size: XY, picture: XY, *, below: bool) -> list[XY]:
    """Left and top of where a caption may stand, the best first, all inside the picture.

    Args:
        box: outermost pixels, left, top, right, bottom.
        size: of the caption.
        picture: its size.
        below: at the lower edge of the box first, else at the upper one; outside before inside.
    """
    left, top, right, bottom = box
    (width, height), (most_x, most_y) = size, (picture[0] - size[0], picture[1] - size[1])
    edges = [(top - height, top), (bottom + 1, bottom + 1 - height)]
    return [
        (max(min(x, most_x), 0), max(min(y, most_y), 0))
        for outside, inside in (edges[::-1] if below else edges)
        for x in (left, right + 1 - width)
        for y in ([outside] if 0 <= outside <= most_y else []) + [inside]
    ]


def contact_sheet(images: Sequence[Pixels], columns: int, *, side: int = 320) -> Pixels:
    """Put pictures side by side on white, row after row.

    Args:
        images: [H, W, 3] RGB each, of any sizes; at least one.
        columns: pictures in a row.
        side: a picture with a longer one is made smaller, pixels.

    Returns:
        [H, W, 3], a sheet with all of them, each in the middle of its place.
    """
    tiles = [Image.fromarray(image) for image in images]
    for tile in tiles:
        tile.thumbnail((side, side), Image.Resampling.LANCZOS)
    gap = max(side // 40, 1)
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    heights = [max(tile.height for tile in row) for row in rows]
    width = max(tile.width for tile in tiles)
    sheet = Image.new(
        "RGB",
        (gap + min(columns, len(tiles)) * (width + gap), gap + sum(heights) + gap * len(rows)),
        WHITE,
    )
    top = gap
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            left = gap + column * (width + gap) + (width - tile.width) // 2
            sheet.paste(tile, (left, top + (height - tile.height) // 2))
        top += height + gap
    return np.array(sheet)


def show(image: Pixels, title: str) -> None:
    """Open a window with a picture and wait until it is closed.

    Raises:
        DataError: there is no screen.
    """
    from matplotlib import pyplot  # slow to import, and only windows need it

    if pyplot.get_backend().lower() == "agg":
        raise DataError("no window can be opened here (no screen?); leave out --show")
    window = pyplot.figure(title)
    pyplot.imshow(image)
    pyplot.axis("off")
    pyplot.show()
    pyplot.close(window)


def _line_width(image: Pixels) -> int:
    longest: int = max(image.shape[:2])
    return max(round(longest / 240), 2)


def _pixel_corners(image: Pixels, boxes: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Find which boxes have a part inside the picture, and the outermost pixels of these.

    Returns:
        [D] and [K, 4] left, top, right, bottom, of the K boxes that have.
    """
    size = np.array(image.shape[1::-1])
    first, last = np.split(np.asarray(boxes, float).reshape(-1, 4), 2, axis=1)
    first, last = first.clip(0, size), last.clip(0, size)
    kept = (last - first).min(axis=1) > 0
    first, last = first[kept].round().clip(max=size - 1), last[kept].round() - 1
    return kept, np.hstack((first, np.maximum(first, last))).astype(np.int64)


def _outlined(image: Pixels, corners: NDArray[np.int64], colors: list[Color], width: int) -> Pixels:
    """A copy with boxes [K, 4] of pixels, the last on top, lines of `width` pixels inside them."""
    copy = np.array(image, order="C")
    if not len(corners):
        return copy
    pixels = torch.from_numpy(copy).permute(2, 0, 1)
    drawn = draw_bounding_boxes(pixels, torch.from_numpy(corners), colors=colors, width=width)
    return np.ascontiguousarray(drawn.permute(1, 2, 0).numpy())


def _captioned(
    image: Pixels,
    corners: NDArray[np.int64],
    captions: list[str],
    colors: list[Color],
    *,
    below: bool,
) -> Pixels:
    """Write captions on grounds of `colors`, above or below their boxes, inside the picture.

    The last one has the choice of its place.
    """
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    places = CaptionPlaces()
    ready = []
    for box, caption, color in [*zip(corners.tolist(), captions, colors, strict=True)][::-1]:
        size = _letter_size(caption, canvas.width, canvas.height)
        if size >= LEGIBLE:
            wide = _caption_size(caption, size)
            place = places.find(caption_places(box, wide, canvas.size, below=below), wide)
            ready.append((place, wide, caption, size, color))
    for (x, y), (width, height), caption, size, color in reversed(ready):  # the last one on top
        draw.rectangle((x, y, x + width - 1, y + height - 1), fill=color)
        ink = BLACK if np.dot(color, (0.3, 0.6, 0.1)) > 128 else WHITE  # by brightness
        draw.text((x + size / 4, y + height / 2), caption, ink, _font(size), anchor="lm")
    return np.array(canvas)


def _letter_size(caption: str, width: int, height: int) -> int:
    """Height of letters that suits a picture and lets a caption fit into it, pixels."""
    size = max(round(max(width, height) / 42), READABLE)
    needed_width, needed_height = _caption_size(caption, size)
    return int(size * min(1, width / needed_width, height / needed_height))


def _caption_size(caption: str, size: int) -> tuple[int, int]:
    """Width and height of a caption with its ground, pixels."""
    return math.ceil(_font(size).getlength(caption) + size / 2), math.ceil(1.3 * size)


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """A font of many alphabets, of the package that draws the charts."""
    from matplotlib import get_data_path  # slow to import, and needed by what draws alone

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)
