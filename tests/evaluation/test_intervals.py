"""Intervals from one evaluation are those of a plain bootstrap that evaluates each resample."""

import contextlib
import io
import time
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from retinanet.data.annotations import Objects
from retinanet.evaluation.coco import score_coco
from retinanet.evaluation.comparison import Difference, differences
from retinanet.evaluation.intervals import (
    RESAMPLES,
    ClassMatches,
    Interval,
    interval,
    resampled_ap,
    resampling_weights,
    voc_area,
)
from retinanet.evaluation.voc import score_voc
from retinanet.postprocess import Detections

K = 3


class Scattered:
    """A data set of boxes at random, and detections near them, without any pictures."""

    class_names = ("cat", "dog", "emu")

    def __init__(self, images: int, objects: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.boxes, self.found = [], []
        for _ in range(images):
            count = int(rng.integers(0, 2 * objects))
            corners = rng.uniform(0, 200, (count, 2))
            boxes = np.column_stack((corners, corners + rng.uniform(10, 120, (count, 2))))
            labels = rng.integers(0, K, count)
            self.boxes.append(np.column_stack((boxes, labels)))
            near = np.repeat(boxes, 2, axis=0) + rng.normal(0, 8, (2 * count, 4))
            near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
            self.found.append(
                Detections(
                    torch.from_numpy(rng.random(2 * count)),
                    torch.from_numpy(np.repeat(labels, 2)),
                    torch.from_numpy(near),
                )
            )

    def __len__(self) -> int:
        return len(self.boxes)

    def num_classes(self) -> int:
        return K

    def label_to_name(self, label: int) -> str:
        return self.class_names[label]

    def image_id(self, index: int) -> int:
        return index + 1

    def category_id(self, label: int) -> int:
        return label + 1

    def load_annotations(self, index: int) -> Any:
        return self.boxes[index].copy()

    def objects(self) -> Objects:
        rows = np.concatenate(self.boxes)
        boxes = np.column_stack((rows[:, :2], rows[:, 2:4] - rows[:, :2]))
        return Objects(
            images=np.repeat(np.arange(len(self)), [len(part) for part in self.boxes]),
            labels=rows[:, 4].astype(np.int32),
            boxes=boxes,
            areas=boxes[:, 2] * boxes[:, 3],
            crowds=np.zeros(len(boxes), bool),
        )

    def drawn(self, weights: Any) -> "Scattered":
        """A data set in which each image is there so many times."""
        result = Scattered(0, 1)
        order = np.repeat(np.arange(len(self)), weights)
        result.boxes = [self.boxes[index] for index in order]
        result.found = [self.found[index] for index in order]
        return result


def call_pycocotools(data: Scattered) -> Any:
    """The twelve numbers, by pycocotools alone."""
    annotations, results = [], []
    for index in range(len(data)):
        for x1, y1, x2, y2, label in data.boxes[index].tolist():
            w, h = x2 - x1, y2 - y1
            annotations.append(
                {
                    **{"id": len(annotations) + 1, "image_id": index + 1, "iscrowd": 0},
                    **{"category_id": int(label) + 1, "bbox": [x1, y1, w, h], "area": w * h},
                }
            )
        for score, label, (x1, y1, x2, y2) in zip(
            *(c.tolist() for c in data.found[index]), strict=True
        ):
            results.append(
                {
                    **{"image_id": index + 1, "category_id": label + 1, "score": score},
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                }
            )
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": index + 1} for index in range(len(data))],
            "categories": [{"id": label + 1} for label in range(K)],
            "annotations": annotations,
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def test_coco_resamples_are_those_of_pycocotools() -> None:
    data = Scattered(12, 2)
    scores = score_coco(data, data.found)  # type: ignore[arg-type]
    weights = resampling_weights(len(data))
    ours = np.array([scores.resamples[name] for name in data.class_names])  # [K, T, R]
    for resample in range(0, RESAMPLES, 50):
        stats = call_pycocotools(data.drawn(weights[resample]))
        assert np.nanmean(ours[:, :, resample]) == pytest.approx(stats[0], abs=1e-12)
        assert np.nanmean(ours[:, 0, resample]) == pytest.approx(stats[1], abs=1e-12)


def test_voc_resamples_are_evaluations_of_the_drawn_images() -> None:
    data = Scattered(12, 2)
    scores = score_voc(data, data.found)  # type: ignore[arg-type]
    weights = resampling_weights(len(data))
    for resample in range(0, RESAMPLES, 25):
        drawn = data.drawn(weights[resample])
        expected = score_voc(drawn, drawn.found)  # type: ignore[arg-type]
        for row, values in zip(expected.classes, scores.resamples, strict=True):
            assert values[0, resample] == pytest.approx(row.average_precision, abs=1e-12)


def test_what_lies_on_a_crowd_counts_neither_way() -> None:
    # Best first: a hit, one on a crowd, a hit; without the second both have a precision of 1.
    row = ClassMatches(
        np.array([0, 1, 1]),
        np.array([[True, False, True]]),
        np.array([[True, False, True]]),
        np.array([1, 1]),
    )
    assert resampled_ap(row, np.array([[1, 1], [2, 1]]), voc_area).tolist() == [[1, 1]]
    # and where it counts: recall 1/2 at precision 1, then 1 at 2/3, so (1 + 2/3) / 2
    row = row._replace(counted=np.ones((1, 3), dtype=bool))
    assert resampled_ap(row, np.array([[1, 1]]), voc_area)[0] == pytest.approx([5 / 6])


def test_a_class_that_no_drawn_image_has_is_left_out_of_the_mean() -> None:
    row = ClassMatches(
        np.array([0]), np.ones((1, 1), bool), np.ones((1, 1), bool), np.array([1, 0])
    )
    values = resampled_ap(row, np.array([[0, 2], [1, 1]]), voc_area)[0]
    assert np.isnan(values[0])
    assert values[1] == 1


def test_the_interval_is_the_middle_of_what_is_known() -> None:
    values = np.append(np.arange(1001) / 1000, np.nan)
    assert interval(values) == pytest.approx((0.025, 0.975))
    assert str(Interval(0.5301, 0.61)) == "0.530-0.610"
    assert interval(np.array([np.nan])) is None


def test_a_class_of_a_single_image_has_no_interval() -> None:
    """Each resample with it has that image: all alike, which would look certain."""
    data = Scattered(8, 3)
    for boxes in data.boxes[1:]:
        boxes[boxes[:, 4] == 2, 4] = 1
    data.boxes[0][:1, 4] = 2
    coco = score_coco(data, data.found)  # type: ignore[arg-type]
    voc = score_voc(data, data.found)  # type: ignore[arg-type]
    assert set(coco.per_class) == {"cat", "dog", "emu"}
    assert set(coco.class_intervals) == {"cat", "dog"}
    assert voc.intervals[2] is None
    assert voc.mean_interval is not None
    assert differences(coco, coco)[-1] == Difference("emu", 0.0, None)


def test_a_single_image_tells_nothing_of_others() -> None:
    data = Scattered(1, 5, seed=3)
    assert score_voc(data, data.found).mean_interval is None  # type: ignore[arg-type]
    coco = score_coco(data, data.found)  # type: ignore[arg-type]
    assert coco.intervals == {}
    assert coco.certainty.endswith(" of 1 image")


def test_intervals_cost_less_than_a_second_per_hundred_images() -> None:
    data = Scattered(100, 10)
    scores = score_coco(data, data.found)  # type: ignore[arg-type]
    start = time.process_time()
    low, high = scores.intervals["AP"]
    assert time.process_time() - start < 1
    assert low < scores.stats["AP"] < high
