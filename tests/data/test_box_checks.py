"""Boxes against the sizes of their images: what is wrong, what is clipped, what may be meant."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from retinanet.data.annotations import group_by_image
from retinanet.data.box_checks import COCO_READINGS, CSV_READINGS, check_boxes
from retinanet.data.problems import Problems
from retinanet.errors import DataError
from tests.support.paths import ROOT

SIZES = [(30, 40), (40, 30)]  # height, width of a.jpg and b.jpg
UPRIGHT = ROOT / "docs" / "shapes.jpg"  # stands for pictures without EXIF


def checked(
    boxes: Any,
    *,
    images: Any = (),
    sizes: Any = SIZES,
    readings: Any = CSV_READINGS,
    strict: bool = False,
    paths: Any = None,
    kind: str = "corners",
) -> tuple[list[list[float]], dict[str, int], list[str]]:
    """Boxes after the check, what was put right, and notes. Box k is on line k + 1.

    Args:
        boxes: [M, 4].
        images: [M] the image of each; the first one for all without it.
        sizes: of the images.
        readings: what else the boxes may mean.
        strict: nothing is put right.
        paths: of the images.
        kind: what the file has: corners, sizes or centres.
    """
    columns = np.zeros((5, len(boxes)))
    columns[:4] = np.array(boxes, float).T
    owners = np.array(images if len(images) else [0] * len(boxes), int)
    names = [f"{chr(97 + k)}.jpg" for k in range(len(sizes))]
    problems = Problems("f.csv", strict)
    lines = np.arange(len(boxes)) + 1
    data = group_by_image(names, lines[: len(names)], owners, columns, lines, problems)
    data = replace(data, kind=kind)
    data, notes = check_boxes(data, paths or [UPRIGHT] * len(sizes), sizes, readings, problems)
    problems.raise_if_any()
    return data.boxes[:, :4].tolist(), problems.repaired, notes


GOOD = [[1, 2, 30, 20], [5, 5, 39, 29], [0, 0, 40, 30], [3, 3, 4, 4]] * 6


def test_good_boxes_stay_as_they_are() -> None:
    assert checked(GOOD[:4], strict=True) == (GOOD[:4], {}, [])


def test_percent_is_guessed_and_said() -> None:
    # Ten boxes within 100 pixels of 400 x 300 pictures, some with a fraction.
    percent = [[k, 2.5, 60 + k, 90] for k in range(10)]
    _, repaired, notes = checked(percent, sizes=[(300, 400)])
    assert not repaired
    assert notes == [
        "f.csv: all 10 boxes lie in 0..100 of larger images, in fractions; if they are percent,"
        " multiply by the image's width and height / 100"
    ]
    whole = [[k, 2, 60 + k, 90] for k in range(10)]
    for boxes, size in ((percent[:9], 300), (percent, 150), (whole, 300)):
        assert checked(boxes, sizes=[(size, 400)])[2] == []


@pytest.mark.parametrize("last", [[0.2, 0.2, 0.5, 0.9], [0, 0, 1, 1], [-0.05, 0.2, 1.05, 0.9]])
def test_fractions_are_told_even_where_some_reach_outside(last: list[float]) -> None:
    with pytest.raises(DataError, match=r"f.csv:1: 2 of 3 boxes lie in 0..1, as fractions of the"):
        checked([[0.1, 0.2, 0.5, 0.9], last, [1, 2, 30, 20]])


def test_boxes_partly_outside_are_clipped_and_counted() -> None:
    boxes, repaired, notes = checked([*GOOD[:4], [-5, 2, 60, 20], [0, 0, 40.2, 30]], strict=False)
    assert boxes[4:] == [[0, 2, 40, 20], [0, 0, 40, 30]]
    assert repaired == {"box clipped to its image": 1}  # a fifth of a pixel is not counted
    assert notes == []
    with pytest.raises(
        DataError,
        match=r"^f\.csv:5: box -5,2,60,20 reaches outside 'a.jpg'; expected 0,0 to 40,30; correct",
    ):
        checked([*GOOD[:4], [-5, 2, 60, 20], [0, 0, 40.2, 30]], strict=True)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([40, 2, 60, 20], "box 40,2,60,20 lies outside 'a.jpg'; expected 0,0 to 40,30; correct or"),
        ([-9, 2, 0, 20], "box -9,2,0,20 lies outside 'a.jpg'; .*; correct or remove the box$"),
        ([2, 31, 9, 39], "box .* lies outside .*; if this is y1,x1,y2,x2, exchange x and y$"),
        ([25, 12, 10, 9], r"x2 \(10\) is not greater than x1 \(25\); expected x1,y1,x2,y2; if "),
        ([25, 12, 10, 9], ".*; if this is x,y,width,height, write x . width and y . height for"),
        ([4, 20, 12, 9], r"y2 \(9\) is not greater than y1 \(20\); .*; if this is x,y,width"),
        ([5, 35, 2, 29], ".*; if this is x1,x2,y1,y2, exchange the middle two"),
        ([39, 29, 5, 5], ".*; if this is x2,y2,x1,y1, exchange the corners$"),
        ([40.1, 2, 40.3, 9], "box 40.1,2,40.3,9 lies outside 'a.jpg'"),
        ([-0.4, 2, 0, 9], "box -0.4,2,0,9 lies outside 'a.jpg'"),
        ([9, 9, 9, 35], "x2 .9. is not greater than x1 .9.; .*; correct or remove the box$"),
    ],
)
def test_one_wrong_box_among_good_ones(box: list[float], message: str) -> None:
    with pytest.raises(DataError, match=rf"^f\.csv:25: {message}"):
        checked([*GOOD, box])


def test_a_file_of_widths_and_heights() -> None:
    boxes = [[20, 5, 10, 20], [5, 20, 30, 5], [1, 1, 20, 20]]  # the last could be corners
    with pytest.raises(DataError) as error:
        checked(boxes)
    advice = "3 of 3 boxes fit as x,y,width,height: write x + width and y + height for x2 and y2"
    assert str(error.value).split("\n") == [
        f"f.csv:1: x2 (10) is not greater than x1 (20); expected x1,y1,x2,y2; {advice}",
        f"f.csv:2: y2 (5) is not greater than y1 (20); expected x1,y1,x2,y2; {advice}",
    ]


def test_exchanged_axes_are_an_error_although_clipping_would_do() -> None:
    boxes = [[2, 5, 29, 38], [5, 2, 20, 39]]
    with pytest.raises(DataError) as error:
        checked(boxes)
    advice = "2 of 2 boxes fit as y1,x1,y2,x2: exchange x and y"
    assert str(error.value).splitlines() == [
        f"f.csv:1: box 2,5,29,38 reaches outside 'a.jpg'; expected 0,0 to 40,30; {advice}",
        f"f.csv:2: box 5,2,20,39 reaches outside 'a.jpg'; expected 0,0 to 40,30; {advice}",
    ]
    # On a square image nothing tells them apart.
    assert checked(boxes, sizes=[(30, 30)])[2] == []


def test_exchanged_axes_are_said_where_most_boxes_fit_both_ways() -> None:
    small = [[k, k, k + 5, k + 9] for k in range(6)]
    *_, repaired, notes = checked([*small, [2, 5, 29, 38], [5, 2, 20, 39]])
    assert repaired == {"box clipped to its image": 2}
    assert notes == [
        "f.csv: boxes that reach outside their images: 2; 8 of 8 boxes fit as y1,x1,y2,x2:"
        " exchange x and y, if they are meant so"
    ]


def test_coco_boxes_given_as_corners() -> None:
    corners = np.array([[10, 10, 35, 28], [20, 10, 30, 20]])
    taken = np.hstack((corners[:, :2], corners[:, :2] + corners[:, 2:]))
    with pytest.raises(DataError, match=r"2 of 2 boxes fit as x1,y1,x2,y2: write x2 - x1 and y2"):
        checked(taken, readings=COCO_READINGS)


@given(st.sampled_from(["x,y,width,height", "x1,x2,y1,y2", "y1,x1,y2,x2"]), st.integers(0, 2**32))
def test_what_the_numbers_mean_is_recognised(meaning: str, seed: int) -> None:
    """Fifty boxes all over an image of 640 x 480, written in another way."""
    rng = np.random.default_rng(seed)
    x1, y1 = rng.uniform(0, 560, 50), rng.uniform(0, 400, 50)
    x2, y2 = rng.uniform(x1 + 10, 640), rng.uniform(y1 + 10, 480)
    boxes = {
        "x,y,width,height": (x1, y1, x2 - x1, y2 - y1),
        "x1,x2,y1,y2": (x1, x2, y1, y2),
        "y1,x1,y2,x2": (y1, x1, y2, x2),
    }[meaning]
    with pytest.raises(DataError, match=rf"^f\.csv.*; 50 of 50 boxes fit as {meaning}: "):
        checked(np.stack(boxes, axis=1), sizes=[(480, 640)], strict=True)


@given(st.integers(0, 2**32), st.integers(0, 2))
def test_a_few_wrong_boxes_do_not_change_the_meaning_of_all(seed: int, wrong: int) -> None:
    rng = np.random.default_rng(seed)
    x1, y1 = rng.uniform(0, 560, 60), rng.uniform(0, 400, 60)
    boxes = np.stack((x1, y1, rng.uniform(x1 + 10, 640), rng.uniform(y1 + 10, 480)), axis=1)
    boxes[:wrong] += 70
    assert checked(boxes.clip(max=700), sizes=[(480, 640)])[2] == []


@given(st.lists(st.tuples(*[st.floats(-3, 43)] * 4), min_size=1, max_size=8))
def test_what_passes_lies_inside_and_has_an_area(found: list[tuple[float, ...]]) -> None:
    try:
        boxes = np.array(checked(found)[0])
    except DataError:
        return
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= (40, 30)).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()


def test_boxes_of_images_of_unknown_size_are_not_judged_by_it() -> None:
    with pytest.raises(DataError) as error:
        checked([[9, 9, 5, 5], [900, 900, 901, 901], [41, 0, 50, 9]], images=[1, 1, 0],
                sizes=[(30, 40), (0, 0)])  # fmt: skip
    assert [line.split(": ")[0] for line in str(error.value).split("\n")] == ["f.csv:1", "f.csv:3"]


def turned_picture(path: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(path, exif=exif)  # stored 40 x 30, upright 30 x 40
    return path


def test_exif_rotation_is_noticed(tmp_path: Path) -> None:
    paths = [turned_picture(tmp_path / f"{name}.jpg") for name in "abcde"]
    sizes = [(40, 30)] * 5
    boxes, repaired, notes = checked([[2, 2, 38, 28]], sizes=sizes[:1], paths=paths[:1])
    assert boxes == [[2, 2, 30, 28]]
    assert repaired == {"box clipped to its image": 1}
    assert notes[-1] == (
        f"{paths[0]}: boxes fit the file as stored, not upright as EXIF says it is shown; "
        "turn the boxes, or remove the orientation from the file"
    )
    *_, notes = checked([[2, 2, 38, 28]] * 5, images=range(5), sizes=sizes, paths=paths)
    assert f"{paths[2]} and 2 more: boxes fit the file as stored" in notes[-1]
    with pytest.raises(DataError, match="fits the file before EXIF turns it: turn the boxes, or"):
        checked([[32, 2, 38, 28]], sizes=sizes[:1], paths=paths[:1])
    assert checked([[2, 2, 28, 38]], sizes=sizes[:1], paths=paths[:1], strict=True)[2] == []


@pytest.mark.parametrize(
    ("kind", "taken", "name"),
    [
        # Corners 24, 15, 36, 27 written where the centre and the size are expected.
        ("centres", (24 - 18, 9 - 13.5, 24 + 18, 9 + 13.5), "x1,y1,x2,y2: write x and y of the"),
        # The upper left corner at 22, 2, of 17 x 20, written where the centre is expected.
        ("centres", (22 - 8.5, 2 - 10, 22 + 8.5, 2 + 10), "x and y of the upper left corner: add"),
        # The centre at 28, 15, of 20 x 26, written where the upper left corner is expected.
        ("sizes", (28, 15, 48, 41), "x and y of the centre: subtract half the width from x"),
    ],
)
def test_other_meanings_of_centres_and_sizes(
    kind: str, taken: tuple[float, ...], name: str
) -> None:
    """Four boxes in an image of 40 x 30 that differ a little, so that none is repeated."""
    boxes = np.array([taken] * 4) + np.arange(4)[:, None] / 8
    with pytest.raises(DataError, match=rf"4 of 4 boxes fit as (.*; or as )?{name}"):
        checked(boxes, kind=kind)
