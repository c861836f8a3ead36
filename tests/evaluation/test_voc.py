"""VOC-style average precision: the original's numbers, and those worked out by hand."""

import json
from itertools import groupby

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from retinanet.csv_eval import evaluate
from retinanet.evaluation.precision_recall import OperatingPoint
from retinanet.evaluation.voc import as_numbers, score_voc, voc_table
from retinanet.postprocess import Detections
from tests.support.paths import GOLDEN

CSV_EVAL = json.loads((GOLDEN / "csv_eval.json").read_text())


class Annotated:
    """All that the metric asks of a data set."""

    def __init__(self, annotations, names):
        self.annotations = [np.array(rows, dtype=float).reshape(-1, 5) for rows in annotations]
        self.names = names

    def __len__(self):
        return len(self.annotations)

    def __getitem__(self, index):
        return {"img": torch.zeros(32, 32, 3), "annot": torch.zeros(0, 5), "scale": 1.0}

    def load_annotations(self, index):
        return self.annotations[index]

    def num_classes(self):
        return len(self.names)

    def label_to_name(self, label):
        return self.names[label]


def detections(rows):
    """Rows of x1, y1, x2, y2, score, label as `Detections`."""
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 6)
    return Detections(table[:, 4], table[:, 5].long(), table[:, :4])


# One picture. Far apart, so that every detection overlaps one annotation or none.
CAT_A, CAT_B, CAT_C = (0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10)
DOG = (0, 50, 10, 60)
NOWHERE = (80, 80, 90, 90)
TRUTH = [[(*CAT_A, 0), (*CAT_B, 0), (*CAT_C, 0), (*DOG, 1)]]
FOUND = [
    (*CAT_A, 0.9, 0),  # true
    (*NOWHERE, 0.8, 0),  # false
    (*CAT_B, 0.7, 0),  # true
    (*CAT_B, 0.6, 0),  # false: taken
    (*DOG, 0.5, 1),  # true
    (*DOG, 0.4, 0),  # false: another class
]


def test_the_original_gives_these_numbers() -> None:
    dataset = Annotated(CSV_EVAL["annotations_x1y1x2y2_label"], ("a", "b", "c"))
    found = [detections(rows) for rows in CSV_EVAL["detections_x1y1x2y2_score_label"]]
    for iou, expected in CSV_EVAL["average_precision_and_count_by_iou"].items():
        scores = score_voc(dataset, found, iou_threshold=float(iou))
        assert [row.num_annotations for row in scores.classes] == [n for _, n in expected.values()]
        np.testing.assert_allclose(
            [row.average_precision for row in scores.classes],
            [ap for ap, _ in expected.values()],
            rtol=1e-9,
        )


def test_average_precision_by_hand() -> None:
    # Cats, best first:  true  false  true  false  false, 3 to find.
    #   precision         1/1   1/2   2/3   2/4    2/5
    #   recall            1/3   1/3   2/3   2/3    2/3
    # Best precision at this recall or a higher one: 1 up to recall 1/3, 2/3 up to 2/3, then 0.
    # Area: 1/3 * 1 + 1/3 * 2/3 = 5/9.
    cat, dog = score_voc(Annotated(TRUTH, ("cat", "dog")), [detections(FOUND)]).classes
    assert cat.average_precision == pytest.approx(5 / 9)
    np.testing.assert_allclose(cat.precisions, [1, 1 / 2, 2 / 3, 2 / 4, 2 / 5])
    np.testing.assert_allclose(cat.recalls, [1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3])
    np.testing.assert_allclose(cat.scores, [0.9, 0.8, 0.7, 0.6, 0.4])
    assert (dog.average_precision, dog.num_annotations) == (1, 1)


def test_every_class_has_its_own_precision_and_recall() -> None:
    scores = score_voc(Annotated(TRUTH, ("cat", "dog")), [detections(FOUND)])
    cat, dog = scores.classes
    assert (cat.precision, cat.recall) == pytest.approx((2 / 5, 2 / 3))
    assert (dog.precision, dog.recall) == (1, 1)
    # The best F1 of cats is that of the first three: 2 * 2/3 * 2/3 / (4/3).
    assert cat.best_f1 == pytest.approx(OperatingPoint(0.7, 2 / 3, 2 / 3, 2 / 3))
    assert scores.mean_average_precision == pytest.approx((5 / 9 + 1) / 2)


def test_best_f1_does_not_part_equal_scores() -> None:
    # Between the true and the false one F1 would be 1, but no threshold lies there.
    rows = [(*CAT_A, 0.5, 0), (*NOWHERE, 0.5, 0)]
    scores = score_voc(Annotated([[(*CAT_A, 0)]], ("cat",)), [detections(rows)])
    assert scores.classes[0].best_f1 == pytest.approx(OperatingPoint(0.5, 1 / 2, 1, 2 / 3))


def test_score_threshold_and_cap() -> None:
    dataset = Annotated(TRUTH, ("cat", "dog"))
    cat, _ = score_voc(dataset, [detections(FOUND)], score_threshold=0.7).classes
    np.testing.assert_allclose(cat.scores, [0.9, 0.8])  # the threshold itself is dropped
    cat, _ = score_voc(dataset, [detections(FOUND[::-1])], max_detections=1).classes
    np.testing.assert_allclose(cat.scores, [0.9])  # the best one, wherever it stands


def test_the_second_class_of_an_overlap_is_not_taken() -> None:
    # Both annotations are one box: the detection of each class goes to its own.
    rows = [(*CAT_A, 0.9, 1), (*CAT_A, 0.8, 0)]
    dataset = Annotated([[(*CAT_A, 0), (*CAT_A, 1)]], ("cat", "dog"))
    scores = score_voc(dataset, [detections(rows)])
    assert [row.average_precision for row in scores.classes] == [1, 1]


def test_zero_detections() -> None:
    scores = score_voc(Annotated(TRUTH, ("cat", "dog")), [detections([])])
    for row in scores.classes:
        assert (row.average_precision, row.precision, row.recall) == (0, None, 0)
        assert row.best_f1 is None
    assert scores.mean_average_precision == 0
    assert voc_table(scores).splitlines()[2].split() == [
        *("cat", "3", "0.000", "-", "-", "0.000", "-", "-", "-", "-")
    ]


def test_no_annotations_at_all() -> None:
    scores = score_voc(Annotated([[], []], ("cat", "dog")), [detections(FOUND), detections([])])
    assert scores.mean_average_precision is None
    assert scores.absent == ("cat", "dog")
    assert [row.average_precision for row in scores.classes] == [0, 0]
    assert voc_table(scores).splitlines()[2:] == [
        "mAP         0       -             -",
        "without annotations: cat, dog",
    ]


def test_the_mean_is_over_classes_with_annotations() -> None:
    truth = [[(*DOG, 1)]]  # no cat, but cats are found
    scores = score_voc(Annotated(truth, ("cat", "dog")), [detections(FOUND)])
    assert scores.mean_average_precision == 1
    assert scores.absent == ("cat",)
    cat = scores.classes[0]
    assert (cat.precision, cat.recall, cat.best_f1) == (0, None, None)


def test_table() -> None:
    scores = score_voc(Annotated(TRUTH, ("cat", "dog", "emu")), [detections(FOUND)])
    assert voc_table(scores).splitlines() == [
        "AP at IoU 0.5; precision and recall at scores above 0.05, then where F1 is best",
        "class   boxes      AP 95 % interval  precision recall  best F1 at score precision recall",
        "cat         3   0.556             -      0.400  0.667    0.667    0.700     0.667  0.667",
        "dog         1   1.000             -      1.000  1.000    1.000    0.500     1.000  1.000",
        "mAP         4   0.778             -",
        "without annotations: emu",
    ]


def test_numbers_for_json() -> None:
    cat, dog = score_voc(
        Annotated([[(*CAT_A, 0)]], ("cat", "dog")), [detections(FOUND[:1])]
    ).classes
    assert json.loads(json.dumps(as_numbers(cat))) == {
        "AP": 1,
        "AP_interval": None,
        "annotations": 1,
        "precision": 1,
        "recall": 1,
        "best_f1": {"threshold": 0.9, "precision": 1, "recall": 1, "f1": 1},
    }
    assert as_numbers(dog) == {
        "AP": 0,
        "AP_interval": None,
        "annotations": 0,
        "precision": None,
        "recall": None,
        "best_f1": None,
    }


class Finder(nn.Module):
    """A detector that finds the same things in every image."""

    def __init__(self, rows):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.found = detections(rows)

    def detect(self, images, sizes, limits):
        return [self.found for _ in images]


def test_evaluate_says_and_draws_and_returns_what_the_original_did(tmp_path, capsys) -> None:
    truth = [[(0, 0, 10, 10, 0), (20, 0, 30, 10, 0), (0, 20, 10, 30, 1)]]
    found = [(0, 0, 10, 10, 0.9, 0), (0, 20, 10, 30, 0.5, 1)]
    dataset = Annotated(truth, ("cat/kitten", "dog", "emu"))
    result = evaluate(dataset, Finder(found), save_path=tmp_path / "curves")
    assert result == {0: (0.5, 2.0), 1: (1.0, 1.0), 2: (0.0, 0.0)}
    said = capsys.readouterr().out
    assert "cat/kitten       2   0.500" in said
    assert "mAP              3   0.750" in said
    assert sorted(path.name for path in (tmp_path / "curves").iterdir()) == [
        "0_cat_kitten_precision_recall.png",
        "1_dog_precision_recall.png",
    ]


# The slow and obvious metric: one detection at a time, in plain Python.


def slow_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def slow_hits(truth, found, iou_threshold):
    """(score, whether true) of one class, image after image, the best of an image first."""
    for boxes, rows in zip(truth, found, strict=True):
        taken = set()
        for row in sorted(rows, key=lambda row: -row[4]):
            overlaps = [slow_iou(row, box) for box in boxes]
            best = max(range(len(boxes)), key=overlaps.__getitem__, default=None)
            hit = best is not None and overlaps[best] >= iou_threshold and best not in taken
            if hit:
                taken.add(best)
            yield row[4], hit


def slow_class(truth, found, iou_threshold):
    """AP, and the best F1 of all thresholds: each score of a detection."""
    count = sum(map(len, truth))
    ranked = sorted(slow_hits(truth, found, iou_threshold), key=lambda pair: -pair[0])
    precisions = [sum(hit for _, hit in ranked[:end]) / end for end in range(1, len(ranked) + 1)]
    # Each hit raises the recall by one annotation, at the best precision from there on.
    ap = sum(max(precisions[rank:]) / count for rank, (_, hit) in enumerate(ranked) if hit)
    f1 = []
    for threshold, _ in groupby(ranked, key=lambda pair: pair[0]):
        kept = [hit for score, hit in ranked if score >= threshold]
        f1.append(2 * sum(kept) / (len(kept) + count))
    return ap, max(f1, default=None)


corners = st.tuples(*[st.integers(0, 6)] * 2, *[st.integers(1, 6)] * 2)
boxes = corners.map(lambda c: (c[0], c[1], c[0] + c[2], c[1] + c[3]))
annotation_rows = st.lists(st.tuples(boxes, st.integers(0, 1)).map(lambda row: (*row[0], row[1])))
detection_rows = st.lists(
    st.tuples(boxes, st.sampled_from([0.1, 0.25, 0.5, 0.75]), st.integers(0, 1)).map(
        lambda row: (*row[0], *row[1:])
    ),
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(
    pictures=st.lists(st.tuples(annotation_rows, detection_rows), min_size=1, max_size=4),
    iou_threshold=st.sampled_from([0.25, 0.5, 0.75]),
)
def test_agrees_with_the_slow_metric(pictures, iou_threshold) -> None:
    truth, found = zip(*pictures, strict=True)
    dataset = Annotated(truth, ("cat", "dog"))
    scores = score_voc(dataset, [detections(rows) for rows in found], iou_threshold)
    for label, ours in enumerate(scores.classes):
        my_truth = [[row[:4] for row in rows if row[4] == label] for rows in truth]
        my_found = [[row for row in rows if row[5] == label] for rows in found]
        if not any(my_truth):
            assert (ours.average_precision, ours.best_f1) == (0, None)
            continue
        ap, f1 = slow_class(my_truth, my_found, iou_threshold)
        assert ours.average_precision == pytest.approx(ap, abs=1e-12)
        assert (ours.best_f1 and ours.best_f1.f1) == (f1 and pytest.approx(f1, abs=1e-12))
