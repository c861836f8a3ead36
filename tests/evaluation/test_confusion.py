"""Confusion matrix, mistakes and the images with the worst of them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet.evaluation.confusion import (
    cause,
    condensed,
    confusion_matrix,
    frequent_mistakes,
    most_confident_false,
    most_missed,
)
from retinanet.evaluation.matching import Matches, match
from retinanet.evaluation.precision_recall import class_scores
from retinanet.postprocess import Detections

NAMES = ("cat", "dog")
CAT, DOG, BACKGROUND = 0, 1, 2
NO_CROWDS = np.zeros((0, 5))
A, B, C, NOWHERE = (0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10), (80, 80, 90, 90)


def image(annotations: list, detections: list) -> Matches:
    """Rows of x1, y1, x2, y2, label, and of x1, y1, x2, y2, score, label with the best first."""
    table = torch.tensor(detections, dtype=torch.float64).reshape(-1, 6)
    found = Detections(table[:, 4], table[:, 5].long(), table[:, :4])
    return match(found, np.array(annotations, dtype=float).reshape(-1, 5), 0.5, NO_CROWDS)


PICTURE = image(
    [(*A, CAT), (*B, CAT), (*C, DOG)],
    [
        (*A, 0.9, CAT),  # right
        (*B, 0.8, DOG),  # a cat taken for a dog
        (*B, 0.7, DOG),  # that cat is gone: background
        (*NOWHERE, 0.6, CAT),  # background
    ],  # and the dog is missed
)


def test_confusion_by_hand() -> None:
    matrix = confusion_matrix(
        [PICTURE, image([], []), image([(*A, DOG)], [(*A, 0.9, DOG)])], 2, 0.5
    )
    assert matrix.tolist() == [
        [1, 1, 0],
        [0, 1, 1],
        [1, 1, 0],
    ]


def test_what_is_true_is_not_given_to_another_class() -> None:
    # The dog's box is the better one, but the cat is found by its own class.
    both = image([(*A, CAT)], [(*A, 0.9, DOG), (*A, 0.3, CAT)])
    matrix = confusion_matrix([both], 2, 0.5)
    assert (matrix[CAT, CAT], matrix[BACKGROUND, DOG], matrix.sum()) == (1, 1, 2)


boxes = st.sampled_from([A, B, C, (5, 0, 15, 10), (0, 0, 12, 10), (22, 0, 30, 12)])
labels = st.sampled_from([CAT, DOG])
pictures = st.lists(
    st.tuples(
        st.lists(st.tuples(boxes, labels), max_size=5),
        st.lists(st.tuples(boxes, st.sampled_from([0.2, 0.5, 0.8]), labels), max_size=6),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=100)
@given(pictures, st.sampled_from([0.2, 0.5]))
def test_precision_and_recall_of_the_matrix_are_those_of_the_classes(drawn, threshold) -> None:
    images = [
        image([(*box, label) for box, label in truth], sorted(
            ((*box, score, label) for box, score, label in found), key=lambda row: -row[4]
        ))
        for truth, found in drawn
    ]  # fmt: skip
    matrix = confusion_matrix([picture.at(threshold) for picture in images], 2, 0.5)
    for label in (CAT, DOG):
        mine = [
            (float(score), annotation >= 0)
            for picture in images
            for score, said, annotation in zip(
                picture.detections.scores, picture.detections.labels, picture.found, strict=True
            )
            if said == label
        ]
        mine.sort(key=lambda pair: -pair[0])
        scores, hits = np.array([s for s, _ in mine]), np.array([h for _, h in mine], dtype=bool)
        count = sum(int((picture.annotations[:, 4] == label).sum()) for picture in images)
        curve = class_scores(NAMES[label], count, scores, hits)
        precision, recall = curve.at(np.array([threshold]))
        assert matrix[label, label] == pytest.approx(precision * matrix[:, label].sum())
        assert matrix[label, label] == pytest.approx(recall * max(count, 1))
        assert matrix[label].sum() == count
        assert matrix[:, label].sum() == (scores >= threshold).sum()


def test_frequent_mistakes_are_said_in_words() -> None:
    matrix = np.array([[50, 3, 0], [1, 60, 7], [9, 0, 0]])
    assert frequent_mistakes(matrix, NAMES, 3) == [
        (9, "cat where nothing is annotated"),
        (7, "dog missed"),
        (3, "cat taken for dog"),
    ]
    assert frequent_mistakes(np.zeros((2, 2), dtype=int), ("cat",), 3) == []


def test_a_condensed_matrix_leaves_out_what_does_not_occur_and_joins_the_rest() -> None:
    matrix = np.zeros((6, 6), dtype=int)
    matrix[0, 0], matrix[0, 3], matrix[3, 0] = 5, 4, 2  # a and d are mixed up
    matrix[1, 1], matrix[1, 5], matrix[5, 4] = 8, 1, 1  # b is missed once, e found once; c is not
    names = ("a", "b", "c", "d", "e")
    whole, shown = condensed(matrix, names, most=4)
    assert shown == ["a", "b", "d", "e", "background"]
    assert whole.tolist() == np.delete(np.delete(matrix, 2, 0), 2, 1).tolist()
    assert condensed(matrix, names, most=3)[1][-2:] == ["1 other", "background"]
    joined, shown = condensed(matrix, names, most=2)
    assert shown == ["a", "d", "2 others", "background"]
    assert joined.tolist() == [[5, 4, 0, 0], [2, 0, 0, 0], [0, 0, 8, 1], [0, 0, 1, 0]]


def test_the_worst_images_come_first_and_good_ones_not_at_all() -> None:
    good = image([(*A, CAT)], [(*A, 0.99, CAT)])
    blind = image([(*A, CAT), (*B, CAT)], [])
    sure = image([], [(*A, 0.95, DOG), (*B, 0.9, CAT)])
    images = [good, PICTURE, blind, sure]
    assert most_missed(images, 5) == [1, 2]  # two each, in order
    assert most_missed(images, 1) == [1]
    assert most_confident_false(images, 5) == [(3, 0), (1, 1)]


@pytest.mark.parametrize(
    ("box", "label", "reason"),
    [
        (A, CAT, "a second box on one object"),
        (A, DOG, "annotated as cat"),
        ((6, 0, 16, 10), CAT, "badly placed, IoU 0.25"),  # 40 of 160 px
        ((6, 0, 16, 10), DOG, "nothing is annotated there"),
        (NOWHERE, CAT, "nothing is annotated there"),
    ],
)
def test_why_a_detection_is_false(box: tuple, label: int, reason: str) -> None:
    picture = image([(*A, CAT)], [(*A, 0.9, CAT), (*box, 0.5, label)])
    assert cause(picture, 1, NAMES, 0.5) == reason
    assert cause(image([], [(*box, 0.5, label)]), 0, NAMES, 0.5) == "nothing is annotated there"
