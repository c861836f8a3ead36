"""Precision, recall and F1 at a threshold, and their means over classes."""

import numpy as np
import pytest

from retinanet.evaluation.precision_recall import best_mean_f1, class_scores, mean_f1

# Best first: true, false, true, false, false; 3 to find.
#   precision 1, 1/2, 2/3, 1/2, 2/5     recall 1/3, 1/3, 2/3, 2/3, 2/3
CAT = class_scores(
    "cat", 3, np.array([0.9, 0.8, 0.7, 0.6, 0.4]), np.array([1, 0, 1, 0, 0], dtype=bool)
)
DOG = class_scores("dog", 1, np.array([0.5]), np.array([True]))
UNSEEN = class_scores("emu", 2, np.zeros(0), np.zeros(0, dtype=bool))


def test_precision_and_recall_at_a_threshold_that_counts_itself() -> None:
    precision, recall = CAT.at(np.array([0.95, 0.9, 0.75, 0.7, 0.0]))
    np.testing.assert_allclose(precision, [0, 1, 1 / 2, 2 / 3, 2 / 5])
    np.testing.assert_allclose(recall, [0, 1 / 3, 1 / 3, 2 / 3, 2 / 3])
    precision, recall = UNSEEN.at(np.array([0.5]))
    assert (precision, recall) == (0, 0)


def test_best_precision_at_a_recall_or_a_higher_one() -> None:
    recalls = np.array([0, 1 / 3, 0.34, 2 / 3, 0.67, 1])
    np.testing.assert_allclose(CAT.best_precision(recalls), [1, 1, 2 / 3, 2 / 3, 0, 0])
    np.testing.assert_allclose(UNSEEN.best_precision(recalls), 0)


def test_the_area_below_the_drawn_curve_is_the_average_precision() -> None:
    rng = np.random.default_rng(0)
    scores = class_scores("a", 40, np.sort(rng.random(90))[::-1], rng.random(90) < 0.4)
    middles = (np.arange(10_000) + 0.5) / 10_000
    area = scores.best_precision(middles).mean()
    assert area == pytest.approx(scores.average_precision, abs=1e-3)


def test_mean_f1_over_classes() -> None:
    # At 0.7 cat has 2PR/(P+R) = 2/3 and dog nothing; at 0.5 cat 2 * 1/2 * 2/3 / (7/6) = 4/7, dog 1.
    np.testing.assert_allclose(mean_f1([CAT, DOG], np.array([0.7, 0.5])), [1 / 3, (4 / 7 + 1) / 2])
    assert best_mean_f1([CAT, DOG]) == pytest.approx((0.5, (4 / 7 + 1) / 2))
    assert best_mean_f1([CAT, DOG, UNSEEN]) == pytest.approx((0.5, (4 / 7 + 1) / 3))


def test_the_best_of_one_class_is_its_own() -> None:
    best = CAT.best_f1
    assert best is not None
    assert best_mean_f1([CAT]) == (best.threshold, best.f1)


def test_no_best_where_nothing_true_was_found() -> None:
    false = class_scores("cat", 2, np.array([0.9]), np.array([False]))
    for classes in ([], [UNSEEN], [false]):
        assert best_mean_f1(classes) is None


def test_the_threshold_to_detect_with_parts_the_best_from_the_rest() -> None:
    """Detection keeps scores above its threshold, and the best threshold counts itself."""
    # F1 is best with 0.9 and 0.8, both hits; the next score is 0.4.
    row = class_scores("cat", 2, np.array([0.9, 0.8, 0.4]), np.array([True, True, False]))
    assert row.best_threshold == pytest.approx((0.8 + 0.4) / 2)
    all_true = class_scores("cat", 2, np.array([0.9, 0.8]), np.array([True, True]))
    assert all_true.best_threshold == pytest.approx(0.8 / 2)
    false = class_scores("cat", 2, np.array([0.9]), np.array([False]))
    assert false.best_threshold is None
    assert UNSEEN.best_threshold is None
