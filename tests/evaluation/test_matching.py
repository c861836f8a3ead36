"""Which detection has found which annotation, and what a crowd excuses."""

import numpy as np
import torch

from retinanet.evaluation.matching import match, without_difficult
from retinanet.postprocess import Detections

NONE = np.zeros((0, 5))
CAT, DOG = 0, 1


def found(*rows: tuple[float, ...]) -> Detections:
    """Rows of x1, y1, x2, y2, score, label."""
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 6)
    return Detections(table[:, 4], table[:, 5].long(), table[:, :4])


def there(*rows: tuple[float, ...]) -> np.ndarray:
    """Rows of x1, y1, x2, y2, label."""
    return np.array(rows, dtype=float).reshape(-1, 5)


def test_each_detection_names_the_annotation_that_it_has_found() -> None:
    annotations = there((0, 0, 10, 10, CAT), (20, 0, 30, 10, CAT), (40, 0, 50, 10, DOG))
    detections = found(
        (20, 0, 30, 10, 0.9, CAT),  # the second cat
        (21, 0, 31, 10, 0.8, CAT),  # the same one again
        (40, 0, 50, 10, 0.7, CAT),  # a dog
        (0, 0, 10, 9, 0.6, CAT),  # the first cat
    )
    image = match(detections, annotations, 0.5, NONE)
    assert image.found.tolist() == [1, -1, -1, 0]
    assert image.missed.tolist() == [False, False, True]


def test_a_threshold_takes_the_worse_ones_away_and_changes_no_other() -> None:
    annotations = there((0, 0, 10, 10, CAT), (20, 0, 30, 10, CAT))
    detections = found((20, 0, 30, 10, 0.9, CAT), (50, 0, 60, 9, 0.5, CAT), (0, 0, 9, 9, 0.4, CAT))
    image = match(detections, annotations, 0.5, NONE).at(0.5)
    assert image.detections.scores.tolist() == [0.9, 0.5]
    assert image.found.tolist() == [1, -1]
    assert image.missed.tolist() == [True, False]


def test_nothing_found_or_nothing_there() -> None:
    assert match(found(), there((0, 0, 9, 9, CAT)), 0.5, NONE).missed.tolist() == [True]
    image = match(found((0, 0, 9, 9, 0.9, CAT)), NONE, 0.5, NONE)
    assert (image.found.tolist(), image.missed.tolist()) == ([-1], [])


def test_what_belongs_to_a_difficult_annotation_counts_neither_way() -> None:
    annotations = there((0, 0, 10, 10, CAT), (20, 0, 30, 10, CAT), (20, 0, 30, 10, DOG))
    detections = found(
        (20, 0, 30, 10, 0.9, CAT),  # the difficult cat
        (20, 0, 30, 9, 0.8, CAT),  # and again: VOC excuses any number
        (20, 0, 30, 10, 0.7, DOG),  # the dog in its place
        (0, 0, 10, 10, 0.6, CAT),  # the easy cat
        (25, 0, 35, 10, 0.5, CAT),  # overlaps the difficult cat by a third: false
    )
    difficult = np.array([False, True, False])
    left, easy = without_difficult(detections, annotations, difficult, 0.5)
    np.testing.assert_allclose(left.scores, [0.7, 0.6, 0.5])
    assert easy.tolist() == annotations[[0, 2]].tolist()
    assert match(left, easy, 0.5, NONE).found.tolist() == [1, 0, -1]
    assert len(without_difficult(found(), annotations, difficult, 0.5)[1]) == 2


def test_what_lies_on_a_crowd_of_its_class_does_not_count() -> None:
    crowd = there((0, 0, 100, 100, CAT))
    detections = found(
        (10, 10, 20, 20, 0.9, CAT),  # an annotation: true, on a crowd or not
        (50, 50, 60, 60, 0.8, CAT),  # wholly on the crowd
        (50, 50, 60, 60, 0.7, DOG),  # of another class
        (95, 0, 105, 10, 0.6, CAT),  # half of it on the crowd
        (96, 20, 106, 30, 0.5, CAT),  # less than half
        (30, 30, 30, 40, 0.4, CAT),  # no area at all
    )
    image = match(detections, there((10, 10, 20, 20, CAT)), 0.5, crowd)
    np.testing.assert_allclose(image.detections.scores, [0.9, 0.7, 0.5, 0.4])
    assert image.found.tolist() == [0, -1, -1, -1]
