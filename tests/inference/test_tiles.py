"""Large pictures in tiles: every object once and whole, in bounded memory."""

import itertools
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn
from torchvision.ops import box_iou
from torchvision.transforms import Compose

from retinanet.data.transforms import Normalizer, Resizer, Sample, UnNormalizer
from retinanet.inference.prediction import predict, predict_stream
from retinanet.inference.tiles import Tiling, Window, put_together
from retinanet.postprocess import DetectionLimits, Detections

SIDE = 128
LIMITS = DetectionLimits(max_detections=None)


class FindsColours(nn.Module):
    """A detector without weights: it finds connected regions of red, label 0, and of blue, 1.

    Its boxes are off by up to `noise` of their size, differently in every view, and it overlooks
    what is less than 6 pixels wide or high, as a network overlooks what is too small.
    """

    def __init__(self, noise: float = 0.05) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.noise = noise

    def detect(
        self, images: Tensor, sizes: list[tuple[int, int]], limits: DetectionLimits
    ) -> list[Detections]:
        return [
            self._found(UnNormalizer()(image)[:, :height, :width])
            for image, (height, width) in zip(images, sizes, strict=True)
        ]

    def _found(self, image: Tensor) -> Detections:
        height, width = image.shape[1:]
        rng = np.random.default_rng(int(1e4 * float(image.mean())))
        rows = []
        for label, channel in ((0, 0), (1, 2)):
            regions, _ = ndimage.label((image[channel] > 0.7) & (image[2 - channel] < 0.3))
            for y, x in ndimage.find_objects(regions):
                if min(y.stop - y.start, x.stop - x.start) < 6:
                    continue
                spread = self.noise * min(y.stop - y.start, x.stop - x.start)
                jitter = rng.uniform(-spread, spread, 4)
                x1, y1, x2, y2 = np.array([x.start, y.start, x.stop, y.stop]) + jitter
                box = [max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)]
                rows.append((rng.uniform(0.5, 1), label, box))
        rows.sort(key=lambda row: -row[0])
        scores, labels, boxes = zip(*rows, strict=True) if rows else ((), (), ())
        return Detections(
            torch.tensor(scores, dtype=torch.float32),
            torch.tensor(labels, dtype=torch.int64),
            torch.tensor(np.array(boxes), dtype=torch.float32).reshape(-1, 4),
        )


def tiling(side: int = SIDE, overlap: float = 0.25) -> Tiling:
    return Tiling(side, overlap, Compose([Resizer(side, 2 * side), Normalizer()]))


def sheet(height: int, width: int, boxes: list[list[int]], labels: list[int]) -> Tensor:
    """[H, W, 3]: grey with red and blue rectangles."""
    pixels = np.full((height, width, 3), 128, np.uint8)
    for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True):
        pixels[y1:y2, x1:x2] = (255, 0, 0) if label == 0 else (0, 0, 255)
    return torch.from_numpy(pixels)


def found_in(picture: Tensor, how: Tiling, batch_size: int = 4, **more: Any) -> Detections:
    network = FindsColours(**more)
    samples: list[Sample] = [{"img": picture}]
    ((_, result),) = predict_stream(
        network, [0], lambda k: samples[k], LIMITS, batch_size=batch_size, tiling=how
    )
    assert isinstance(result, Detections)
    return result


def matches(found: Detections, boxes: list[list[int]], labels: list[int]) -> NDArray[np.int64]:
    """[objects] how many detections each object has, at an IoU of 0.5."""
    overlap = box_iou(torch.tensor(boxes).float(), found.boxes) > 0.5
    return (overlap & (torch.tensor(labels)[:, None] == found.labels)).sum(dim=1).numpy()


@given(st.integers(1, 900), st.integers(1, 900), st.integers(32, 300), st.floats(0, 0.6))
def test_tiles_cover_a_picture_and_share_what_they_should(
    height: int, width: int, side: int, overlap: float
) -> None:
    how = Tiling(side, overlap, lambda sample: sample)
    whole, *tiles = how.windows(height, width)
    assert whole == (0, 0, width, height)
    assert bool(tiles) == (max(height, width) > side)
    for length, low, high in ((width, 0, 2), (height, 1, 3)):
        spans = sorted({(tile[low], tile[high]) for tile in tiles}) or [(0, length)]
        assert (spans[0][0], spans[-1][1]) == (0, length)
        assert all(end - start == min(side, length) for start, end in spans)
        for (_, end), (start, _) in itertools.pairwise(spans):
            assert end - start >= how.shared


def scattered(
    height: int, width: int, count: int, least: int, most: int, gap: int = 3
) -> tuple[list[list[int]], list[int]]:
    """Rectangles at random, at least `gap` apart, and their labels."""
    rng = np.random.default_rng(0)
    taken = np.zeros((height, width), bool)
    boxes: list[list[int]] = []
    while len(boxes) < count:
        w, h = rng.integers(least, most + 1, 2).tolist()
        x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
        if not taken[max(y - gap, 0) : y + h + gap, max(x - gap, 0) : x + w + gap].any():
            taken[y : y + h, x : x + w] = True
            boxes.append([x, y, x + w, y + h])
    return boxes, [k % 2 for k in range(count)]


def test_small_objects_all_over_a_large_sheet_are_found_once() -> None:
    boxes, labels = scattered(700, 1000, 180, 14, 24, gap=14)
    found = found_in(sheet(700, 1000, boxes, labels), tiling())
    assert matches(found, boxes, labels).tolist() == [1] * 180
    assert len(found.scores) == 180


def test_objects_of_any_size_are_found_once_and_whole() -> None:
    boxes, labels = scattered(700, 1000, 25, 20, 220, gap=20)  # up to almost twice a tile
    found = found_in(sheet(700, 1000, boxes, labels), tiling())
    assert matches(found, boxes, labels).tolist() == [1] * 25
    assert len(found.scores) == 25


def test_parts_that_no_view_sees_whole_are_joined() -> None:
    # Tiles begin at 0, 96, 192 and share 32; the object lies in all three, and the whole view,
    # in which it is narrower than 6 pixels, overlooks it.
    how = tiling()
    picture = sheet(100, 1600, [[40, 30, 300, 90]], [0])
    view = how.view({"img": picture}, Window(0, 0, 1600, 100))
    assert view["size"] == (16, 256)
    windows = how.windows(100, 1600)
    network = FindsColours()
    results = []
    for window in windows:
        sample = how.view({"img": picture}, window)
        ((_, result),) = predict_stream(network, [0], lambda _, s=sample: s, LIMITS)  # type: ignore[misc]
        assert isinstance(result, Detections)
        results.append(result)
    nothing = Detections(torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
    found = put_together(windows, [nothing, *results[1:]], LIMITS)
    assert len(found.scores) == 1
    np.testing.assert_allclose(found.boxes[0], [40, 30, 300, 90], atol=4)
    assert found.scores[0] == max(one.scores.max() for one in results[1:] if len(one.scores))


def test_neighbours_of_one_class_at_a_seam_stay_two() -> None:
    boxes = [[90, 20, 127, 60], [130, 20, 170, 60], [90, 66, 127, 100], [131, 66, 170, 100]]
    found = found_in(sheet(128, 400, boxes, [0, 0, 0, 1]), tiling(), noise=0.02)
    assert matches(found, boxes, [0, 0, 0, 1]).tolist() == [1] * 4
    assert len(found.scores) == 4


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_the_batch_size_changes_nothing(batch_size: int) -> None:
    boxes, labels = scattered(300, 500, 30, 14, 90)
    picture = sheet(300, 500, boxes, labels)
    expected, found = found_in(picture, tiling(), 2), found_in(picture, tiling(), batch_size)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_a_picture_of_one_tile_is_seen_as_without_tiles() -> None:
    picture = sheet(100, 128, [[20, 20, 60, 60]], [0])
    how = tiling()
    found = found_in(picture, how)
    samples = [how.transform({"img": picture, "annot": torch.zeros(0, 5)})]
    (expected,) = predict(FindsColours(), _Listed(samples), LIMITS)
    assert torch.equal(found.boxes, expected.boxes)
    assert torch.equal(found.scores, expected.scores)


class _Listed(list[Sample]):
    """Samples as a data set."""


def test_pictures_of_many_sizes_in_order_and_an_unreadable_one() -> None:
    sizes = [(100, 100), (500, 300), (130, 128), (128, 600)]
    pictures = [sheet(*size, [[30, 30, 30 + 10 * k + 20, 60]], [0]) for k, size in enumerate(sizes)]
    samples: list[Sample] = [{"img": picture} for picture in pictures]
    samples.insert(2, {"unreadable": "c.jpg: empty"})
    results = predict_stream(
        FindsColours(), range(5), lambda k: samples[k], LIMITS, tiling=tiling(), threads=2
    )
    found = [(item, result) for item, result in results]
    assert [item for item, _ in found] == list(range(5))
    assert str(found[2][1]) == "c.jpg: empty"
    widths = [
        result.boxes[0, 2] - result.boxes[0, 0] for _, result in found if type(result) is Detections
    ]
    np.testing.assert_allclose(widths, [20, 30, 40, 50], atol=4)


def test_few_views_are_held_however_large_the_picture_is() -> None:
    held: weakref.WeakSet[Tensor] = weakref.WeakSet()
    most = 0
    resize = Compose([Resizer(SIDE, 2 * SIDE), Normalizer()])

    def counting(sample: Sample) -> Sample:
        nonlocal most
        out: Sample = resize(sample)
        held.add(out["img"])
        most = max(most, len(held))
        return out

    how = Tiling(SIDE, 0.25, counting)
    assert len(how.windows(1500, 2000)) > 300
    found_in(torch.zeros(1500, 2000, 3, dtype=torch.uint8), how)
    assert most <= 2 * 4 + 2  # a batch that was done, one that is made, the whole view


def test_a_data_set_gives_the_same_with_workers() -> None:
    boxes, labels = scattered(300, 400, 20, 14, 60)
    pictures = _Listed({"img": sheet(300, 400, boxes, labels)} for _ in range(3))
    results = [
        predict(FindsColours(), pictures, LIMITS, workers=workers, tiling=tiling())
        for workers in (0, 1)
    ]
    assert [len(found.scores) for found in results[0]] == [20] * 3
    for one, other in zip(*results, strict=True):
        assert torch.equal(one.boxes, other.boxes)


def test_class_agnostic_suppression_looks_at_all_classes() -> None:
    windows = [Window(0, 0, 200, 100), Window(0, 0, 120, 100), Window(80, 0, 200, 100)]
    nothing = Detections(torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
    left = Detections(torch.tensor([0.9]), torch.tensor([0]), torch.tensor([[85.0, 10, 105, 30]]))
    right = Detections(torch.tensor([0.8]), torch.tensor([1]), torch.tensor([[6.0, 10, 26, 30]]))
    for agnostic, labels in ((False, [0, 1]), (True, [0])):
        limits = DetectionLimits(class_agnostic_nms=agnostic)
        found = put_together(windows, [nothing, left, right], limits)
        assert found.labels.tolist() == labels
