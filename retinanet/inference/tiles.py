"""Large pictures in overlapping tiles: cut, and their detections put together across the seams."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from retinanet.boxes import clip_boxes
from retinanet.data.transforms import Sample, without_boxes
from retinanet.errors import DataError
from retinanet.inference.batching import Key
from retinanet.postprocess import DetectionLimits, Detections

EDGE = 0.02  # of a tile's side: a box that ends so near to a seam may be cut by it
COMPARED = 64  # cut boxes that are compared with all others at a time, which bounds memory


class Window(NamedTuple):
    """A rectangle of a picture, pixels."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class Tiling:
    """Cut of a picture into tiles, and one view of the whole.

    Every object that is not larger than the overlap lies whole in some tile; the whole view is for
    larger ones.
    """

    side: int
    """Of a tile, pixels of the picture."""
    overlap: float
    """Least part of its side that a tile shares with the next one."""
    transform: Callable[[Sample], Sample]
    """What a view goes through on its way to the network."""

    @property
    def shared(self) -> int:
        """Pixels that neighbours share at least."""
        return min(round(self.side * self.overlap), self.side - 1)

    def windows(self, height: int, width: int) -> list[Window]:
        """The whole picture first, then its tiles row by row, where it is larger than one."""
        whole = Window(0, 0, width, height)
        if max(height, width) <= self.side:
            return [whole]
        tiles = [
            Window(left, top, min(left + self.side, width), min(top + self.side, height))
            for top in self._starts(height)
            for left in self._starts(width)
        ]
        return [whole, *tiles]

    def _starts(self, length: int) -> list[int]:
        """Beginnings of the tiles along a side: evenly, the last one at its end."""
        step = self.side - self.shared
        gaps = max(0, -(-(length - self.side) // step))
        return [k * (length - self.side) // max(gaps, 1) for k in range(gaps + 1)]

    def view(self, sample: Sample, window: Window) -> Sample:
        """Sample of a window of a decoded picture."""
        left, top, right, bottom = window
        return self.transform(without_boxes(sample["img"][top:bottom, left:right]))


def detect_tiled(
    loaded: Iterable[tuple[Key, Sample]],
    tiling: Tiling,
    limits: DetectionLimits,
    detect: Callable[
        [Iterable[tuple[tuple[int, int], Sample]]],
        Iterator[tuple[tuple[int, int], Detections | DataError]],
    ],
) -> Iterator[tuple[Key, Detections | DataError]]:
    """Detect the objects in decoded pictures by way of their tiles, cut as they are needed.

    Args:
        loaded: samples with uint8 `img` [H, W, 3], each with a key.
        tiling: how they are cut.
        limits: of each view; pictures have as many detections as their views have.
        detect: as `prediction.detect_samples`, of views.

    Yields:
        Each key with the detections of its picture, in its pixels.
    """
    waiting: dict[int, tuple[Key, list[Window], dict[int, Detections]]] = {}

    def views() -> Iterator[tuple[tuple[int, int], Sample]]:
        for number, (key, sample) in enumerate(loaded):
            windows: list[Window] = []
            waiting[number] = key, windows, {}
            if "unreadable" in sample:
                yield (number, 0), sample
                continue
            windows += tiling.windows(*sample["img"].shape[:2])
            for place, window in enumerate(windows):
                yield (number, place), tiling.view(sample, window)

    for (number, place), result in detect(views()):
        key, windows, found = waiting[number]
        if isinstance(result, DataError):
            del waiting[number]
            yield key, result
            continue
        found[place] = result
        if len(found) == len(windows):
            del waiting[number]
            ordered = [found[k] for k in range(len(windows))]
            yield key, put_together(windows, ordered, limits)


class _Boxes(NamedTuple):
    """Boxes of one picture from several views."""

    scores: Tensor
    """[N]."""
    labels: Tensor
    """[N]; all 0 where suppression does not look at classes."""
    boxes: Tensor
    """[N, 4] xyxy, pixels of the picture."""
    views: Tensor
    """[N, 4] xyxy, the window in which each was seen."""
    rows: Tensor
    """[N] where each was found, of all."""

    def only(self, which: Tensor) -> "_Boxes":
        """Those of a mask or of positions."""
        return _Boxes(*(column[which] for column in self))


def put_together(
    windows: list[Window], found: list[Detections], limits: DetectionLimits
) -> Detections:
    """Detections of a picture from those of its views: every object once, and whole.

    An object counts as a view saw it that shows it whole: a tile, or the whole picture where it
    fits into no tile. Parts that seams cut off are dropped where the object is seen whole, and
    else joined with the parts that overlap them in what both tiles show.

    Args:
        windows: the views, the whole picture first.
        found: detections of each, in pixels of the view.
        limits: the threshold of suppression, and whether it looks at classes.

    Returns:
        Detections in pixels of the picture, best first.
    """
    if len(windows) == 1:
        return found[0]
    labels = torch.cat([one.labels for one in found])
    views = torch.tensor(windows, dtype=torch.float32)
    view = torch.repeat_interleave(torch.tensor([len(one.scores) for one in found]))
    every = _Boxes(
        torch.cat([one.scores for one in found]),
        torch.zeros_like(labels) if limits.class_agnostic_nms else labels,
        torch.cat([one.boxes for one in found]) + views[view, :2].repeat(1, 2),
        views[view],
        torch.arange(len(labels)),
    )
    cut = _near_seam(every.boxes, every.views, views[0])
    fits = _near_seam(every.boxes[view == 0][:, None], views[None, 1:], views[0])
    in_a_tile = torch.zeros_like(cut)
    in_a_tile[view == 0] = (~fits).any(dim=1)
    threshold = limits.nms_threshold
    whole = _suppressed(every.only(~cut & ~in_a_tile), threshold)
    parts = every.only(cut)
    parts = parts.only(~_inside(parts, whole, threshold))
    joined = _joined(parts, threshold)
    result = _suppressed(_Boxes(*map(torch.cat, zip(whole, joined, strict=True))), threshold)
    height, width = windows[0].bottom, windows[0].right
    return Detections(result.scores, labels[result.rows], clip_boxes(result.boxes, height, width))


def _near_seam(boxes: Tensor, views: Tensor, picture: Tensor) -> Tensor:
    """[...] whether boxes [..., 4] reach an edge of their view that is no edge of the picture."""
    margin = EDGE * (views[..., 2:] - views[..., :2]).repeat(*[1] * (views.dim() - 1), 2)
    low = (boxes[..., :2] < views[..., :2] + margin[..., :2]) & (views[..., :2] > picture[:2])
    high = (boxes[..., 2:] > views[..., 2:] - margin[..., 2:]) & (views[..., 2:] < picture[2:])
    return (low | high).any(dim=-1)


def _suppressed(boxes: _Boxes, threshold: float) -> _Boxes:
    """Boxes that no better one of their class overlaps by more than a threshold, best first."""
    return boxes.only(batched_nms(boxes.boxes, boxes.scores, boxes.labels, threshold))


def _inside(parts: _Boxes, whole: _Boxes, threshold: float) -> Tensor:
    """[N] whether more of a part than the threshold lies in a whole box of its class."""
    seen = []
    for start, end in _stretches(len(parts.scores)):
        some = parts.only(torch.arange(start, end))
        common = _area(_common(some.boxes[:, None], whole.boxes[None]))
        inside = common > threshold * _area(some.boxes)[:, None]
        seen.append((inside & (some.labels[:, None] == whole.labels[None])).any(dim=1))
    return torch.cat([*seen, torch.zeros(0, dtype=torch.bool)])


def _stretches(count: int) -> list[tuple[int, int]]:
    """0 to `count` in stretches of at most `COMPARED`: where each begins and ends."""
    return [(start, min(start + COMPARED, count)) for start in range(0, count, COMPARED)]


def _same(a: _Boxes, b: _Boxes, threshold: float) -> Tensor:
    """[N, M] whether parts are of one object: the smaller lies in the other, where both show it."""
    shown = _common(a.views[:, None], b.views[None])
    mine, others = _common(a.boxes[:, None], shown), _common(b.boxes[None], shown)
    smaller = torch.minimum(_area(mine), _area(others))
    return (_area(_common(mine, others)) > threshold * smaller) & (
        a.labels[:, None] == b.labels[None]
    )


def _common(a: Tensor, b: Tensor) -> Tensor:
    """[..., 4] what two boxes share; without area where they share nothing."""
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., 2:], b[..., 2:])
    return torch.cat((low, high), dim=-1)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1)


def _joined(parts: _Boxes, threshold: float) -> _Boxes:
    """Parts of one object as one box around them, with the best score and its label."""
    order = parts.scores.argsort(descending=True, stable=True)
    parts = parts.only(order)
    group = list(range(len(order)))  # of each part, by its best one
    for start, end in _stretches(len(order)):
        some = parts.only(torch.arange(start, end))
        other = (some.views[:, None] != parts.views[None]).any(dim=2)
        pairs = (_same(some, parts, threshold) & other).nonzero() + torch.tensor([start, 0])
        for a, b in pairs.tolist():
            first, second = sorted((group[a], group[b]))
            group = [first if one == second else one for one in group] if first != second else group
    best = sorted(set(group))
    boxes = parts.boxes.clone()
    for leader in best:
        own = boxes[[k for k, one in enumerate(group) if one == leader]]
        boxes[leader] = torch.cat((own[:, :2].amin(dim=0), own[:, 2:].amax(dim=0)))
    return parts._replace(boxes=boxes).only(torch.tensor(best, dtype=torch.int64))
