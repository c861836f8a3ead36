"""Charts: well-formed files, whatever the names in them, and nothing left behind."""

import io
import re
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from retinanet.evaluation.intervals import Interval
from retinanet.evaluation.precision_recall import class_scores
from retinanet.report.charts import (
    COLORED_CLASSES,
    Chart,
    f1_chart,
    line_color,
    losses_chart,
    matrix_chart,
    precision_recall_chart,
    scores_chart,
    shortened,
)
from retinanet.report.drawing import class_color


def scores(name: str, hits: str = "101", count: int = 3):
    flags = np.array([letter == "1" for letter in hits])
    return class_scores(name, count, np.linspace(0.9, 0.1, len(hits)), flags)


def written(chart: Chart) -> list[str]:
    """The texts of a chart; its files are what they say they are."""
    assert chart.png.startswith(b"\x89PNG")
    root = ElementTree.fromstring(chart.svg)
    return [str(text.text) for text in root.iter("{http://www.w3.org/2000/svg}text")]


def test_curves_are_named_with_their_numbers_and_the_best_is_marked() -> None:
    classes = [scores("cat"), scores("dog", "11"), scores("emu", "0", count=0)]
    sure = (Interval(0.5, 0.6), None, None)
    texts = written(precision_recall_chart(classes, sure, 0.61, Interval(0.55, 0.7)))
    # cat: 1/3 at precision 1, 1/3 at 2/3; dog: 2/3 at 1
    named = ("0.610 (0.550-0.700) all classes", "0.556 (0.500-0.600) cat", "0.667 dog")
    for name in (*named, "recall", "precision"):
        assert name in texts
    assert not any("emu" in text for text in texts)  # nothing to find
    assert {"best at 0.412", "0.700 all classes"} <= set(written(f1_chart(classes, (0.412, 0.7))))


def test_one_class_needs_no_mean() -> None:
    assert not any("all classes" in text for text in written(f1_chart([scores("cat")], (0.5, 0.7))))


def test_of_many_classes_the_best_and_the_worst_are_named() -> None:
    hits = ["1" * k + "0" * (30 - k) for k in range(20)]
    classes = [scores(f"no. {k}", hits[k], count=30) for k in range(20)]
    texts = written(precision_recall_chart(classes, [None] * 20, 0.3))
    named = sorted(int(text.split("no. ")[1]) for text in texts if "no. " in text)
    half = COLORED_CLASSES // 2
    assert named == [*range(half), *range(20 - half, 20)]


NAMES = ["$x^{2", "_hidden", "<script>&", "\x00\ud800\n", "日本語", "", "long " * 20]


def test_any_name_is_written_as_it_is_but_for_what_no_file_may_hold() -> None:
    classes = [scores(name) for name in NAMES]
    lines = written(precision_recall_chart(classes, [None] * 7, 0.5))
    counts = np.arange(49).reshape(7, 7)
    cells = written(matrix_chart(counts, NAMES, xlabel="$", ylabel="_"))
    for name in ("$x^{2", "_hidden", "<script>&", "···", "日本語", "long long long lo…"):
        assert f"0.556 {name}" in lines
        assert cells.count(name) == 2


def test_a_matrix_says_its_counts() -> None:
    counts = np.array([[1234, 0], [5, 67]])
    texts = written(matrix_chart(counts, ("cat", "dog"), xlabel="found", ylabel="there"))
    assert {"1,234", "5", "67", "·", "found", "there"} <= set(texts)


def step(iteration: int) -> dict:
    names = ("running_loss", "classification_loss", "regression_loss")
    return {"kind": "step", "epoch": 0, "iteration": iteration} | dict.fromkeys(names, 1.0)


def epoch(number: int, **metrics: float) -> dict:
    return {"kind": "epoch", "epoch": number, "mean_loss": 1.0, "metrics": metrics}


def test_losses_and_scores_of_a_run() -> None:
    chart = losses_chart([step(0)])  # one step is enough
    assert chart
    assert {"running loss", "classification", "regression"} <= set(written(chart))
    history = [epoch(0, AP=0.1, AP50=0.3, mAP=0.4), epoch(1, AP=0.2, AP50=0.3, mAP=0.35)]
    chart = scores_chart(history)
    assert chart
    assert {"mAP", "COCO AP", "mAP 0.400 after epoch 0"} <= set(written(chart))
    chart = scores_chart([epoch(0, AP=0.1, AP50=0.4), epoch(1, AP=0.2, AP50=0.3)])  # COCO data
    assert chart
    assert {"COCO AP50", "COCO AP", "COCO AP 0.200 after epoch 1"} <= set(written(chart))
    assert losses_chart([epoch(0)]) is None
    assert scores_chart([step(0), epoch(0)]) is None


def test_an_epoch_without_an_interval_takes_none_from_the_others() -> None:
    """As where a run of version 1.0, which had none, is gone on with."""
    old = [epoch(0, AP=0.1), epoch(1, AP=0.2)]
    new = [epoch(2, AP=0.3, AP_low=0.2, AP_high=0.4), epoch(3, AP=0.25, AP_low=0.2, AP_high=0.3)]
    chart = scores_chart(old + new)
    assert chart
    assert "COCO AP 0.300 (0.200-0.400) after epoch 2" in written(chart)
    assert b"FillBetween" in chart.svg
    chart = scores_chart([epoch(0, AP=0.4), *new])
    assert chart
    assert "COCO AP 0.400 after epoch 0" in written(chart)
    chart = scores_chart(old)
    assert chart
    assert b"FillBetween" not in chart.svg


@pytest.mark.parametrize("best", range(10))
def test_words_at_the_best_epoch_stay_inside_the_picture(best: int) -> None:
    scored = [(number, 0.92 - 0.01 * abs(number - best)) for number in range(10)]
    history = [epoch(k, mAP=v, mAP_low=v - 0.1, mAP_high=v + 0.1, AP=0.5) for k, v in scored]
    chart = scores_chart(history)
    assert chart
    assert f"mAP 0.920 (0.820-1.020) after epoch {best}" in written(chart)
    pixels = np.asarray(Image.open(io.BytesIO(chart.png)).convert("L"))
    assert (pixels[:, [0, -1]] == 255).all()  # white: nothing is cut off there


def test_losses_that_were_not_finite_leave_the_running_one() -> None:
    overflowed = dict.fromkeys(("classification_loss", "regression_loss"))
    chart = losses_chart([step(0) | overflowed])
    assert chart
    assert "loss" in written(chart)


def test_a_wild_step_does_not_flatten_the_losses() -> None:
    """Of 100 steps at 1 and one at 160 the axis ends at 3, which it says, and not at 160."""
    wild = step(0) | {"classification_loss": 160.0}
    chart = losses_chart([wild, *map(step, range(1, 101))])
    assert chart
    texts = written(chart)
    assert "loss (cut; up to 160)" in texts
    heights = [float(text) for text in texts if re.fullmatch(r"[0-9.]+", text)]
    assert max(heights) == 3


def test_ink_is_the_readers_and_the_same_chart_gives_the_same_file() -> None:
    first, second = (losses_chart([step(0), step(1)]) for _ in range(2))
    assert first == second
    assert first
    assert b"currentColor" in first.svg
    assert b"prefers-color-scheme:dark" in first.svg


def test_settings_of_matplotlib_stay_as_they_were() -> None:
    before = dict(mpl.rcParams)
    losses_chart([step(0)])
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("label", [0, 1, 2, 7, 40])
def test_lines_have_the_hue_of_the_boxes_and_can_be_seen_on_white(label: int) -> None:
    color = np.array([int(line_color(label)[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    luminance = np.dot(color**2.2, (0.2126, 0.7152, 0.0722))
    assert 1.05 / (luminance + 0.05) > 2.9  # contrast with white; 3 is asked of graphics
    box = np.array(class_color(label)) / 255
    np.testing.assert_allclose(color / color.max(), box / box.max(), atol=0.01)


def test_shortened() -> None:
    assert shortened("x" * 18) == "x" * 18
    assert shortened("x" * 19) == "x" * 17 + "…"
