"""Box arithmetic against torchvision and worked examples."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou

from retinanet.boxes import clip_boxes, decode_boxes, encode_boxes, pairwise_iou


def boxes(count, side=(1.0, 400.0)):
    """Strategy: `count` boxes [count, 4] float64, near each other, with sides in this range."""
    number = st.floats(-100, 300)
    length = st.floats(*side)
    row = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), number, number, length, length)
    rows = st.lists(row, min_size=count, max_size=count)
    return rows.map(lambda table: torch.tensor(table, dtype=torch.float64))


@given(st.integers(1, 5).flatmap(boxes), st.integers(1, 5).flatmap(boxes))
def test_iou_equals_torchvisions(some, others) -> None:
    torch.testing.assert_close(pairwise_iou(some, others), box_iou(some, others))
    in_float32 = pairwise_iou(some.float(), others.float())
    torch.testing.assert_close(in_float32, box_iou(some.float(), others.float()))


@pytest.mark.parametrize(
    ("box", "other", "expected"),
    [
        # 5 x 10 in common of 100 + 100 - 50
        ((0, 0, 10, 10), (5, 0, 15, 10), 1 / 3),
        # one inside the other: 25 of 100
        ((0, 0, 10, 10), (5, 5, 10, 10), 0.25),
        # they touch
        ((0, 0, 10, 10), (10, 0, 20, 10), 0),
        # apart in x and in y: two negative sides must not make a positive area
        ((0, 0, 10, 10), (20, 20, 30, 30), 0),
        # no area: 0, not 0 / 0
        ((5, 5, 5, 5), (5, 5, 5, 5), 0),
        # padding inside an anchor that reaches beyond the corner
        ((-1, -1, -1, -1), (-12, -12, 20, 20), 0),
    ],
)
def test_iou_worked(box, other, expected) -> None:
    found = pairwise_iou(torch.tensor([box]).float(), torch.tensor([other]).float())
    assert found.item() == pytest.approx(expected)


def test_iou_of_batches() -> None:
    some, others = torch.rand(2, 3, 4).cumsum(-1), torch.rand(5, 4).cumsum(-1)
    found = pairwise_iou(some, others)
    assert found.shape == (2, 3, 5)
    torch.testing.assert_close(found[1], pairwise_iou(some[1], others))


@given(boxes(4, side=(8, 400)), boxes(4))
def test_decoding_undoes_encoding(anchors, targets) -> None:
    # 400 / 8 = 50 is below the limit of the size, 1000 / 16 = 62.5
    torch.testing.assert_close(
        decode_boxes(anchors, encode_boxes(anchors, targets)), targets, atol=1e-9, rtol=1e-9
    )


def test_encoding_worked() -> None:
    anchor = torch.tensor([[10.0, 20.0, 30.0, 60.0]])  # 20 x 40 around (20, 40)
    box = torch.tensor([[20.0, 20.0, 40.0, 40.0]])  # 20 x 20 around (30, 30)
    # dx = 10 / 20 / 0.1, dy = -10 / 40 / 0.1, dw = log(20 / 20) / 0.2, dh = log(20 / 40) / 0.2
    expected = torch.tensor([[5.0, -2.5, 0.0, math.log(0.5) / 0.2]])
    torch.testing.assert_close(encode_boxes(anchor, box), expected)


def test_a_box_thinner_than_a_pixel_counts_as_one_but_keeps_its_centre() -> None:
    anchor = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    box = torch.tensor([[3.0, 4.0, 3.5, 4.0]])  # 0.5 x 0 around (3.25, 4); the anchor's is (8, 8)
    dx, dy, dw, dh = (encode_boxes(anchor, box)[0] * torch.tensor([0.1, 0.1, 0.2, 0.2])).tolist()
    assert (dx, dy) == pytest.approx(((3.25 - 8) / 16, (4 - 8) / 16))
    assert (dw, dh) == pytest.approx((math.log(1 / 16), math.log(1 / 16)))


@pytest.mark.parametrize("wild", [30.0, 1e4, math.inf])
def test_wild_deltas_give_at_most_1000_px_of_an_anchor_of_16(wild) -> None:
    anchor = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    found = decode_boxes(anchor, torch.tensor([[0.0, 0.0, wild, wild]]))
    torch.testing.assert_close(found, torch.tensor([[-492.0, -492.0, 508.0, 508.0]]))  # 8 +- 500


@pytest.mark.parametrize(
    ("limits", "sides"),
    [
        ((-math.inf, math.log(2)), (32, 0)),  # 16 grows to 32; exp(-20) is nothing
        ((-math.log(2), math.log(2)), (32, 8)),
        ((-math.inf, math.inf), (16 * math.exp(2), 0)),
    ],
)
def test_other_limits_of_the_size(limits, sides) -> None:
    anchor = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    found = decode_boxes(anchor, torch.tensor([[0.0, 0.0, 10.0, -100.0]]), limits)[0]
    assert (found[2:] - found[:2]).tolist() == pytest.approx(sides, abs=1e-5)


def test_decoding_is_float32_for_bfloat16_deltas() -> None:
    anchor = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    assert decode_boxes(anchor, torch.zeros(1, 4, dtype=torch.bfloat16)).dtype == torch.float32


def test_both_corners_are_clipped_at_both_ends() -> None:
    wanted = {
        (10, 5, 20, 15): (10, 5, 20, 15),  # inside
        (-5, -6, 200, 50): (0, 0, 100, 40),  # larger than the picture, 40 high and 100 wide
        (-20, -20, -10, -10): (0, 0, 0, 0),  # beyond the upper left corner
        (150, 60, 170, 70): (100, 40, 100, 40),  # beyond the lower right corner
    }
    found = clip_boxes(torch.tensor(list(wanted)).float(), height=40, width=100)
    assert found.tolist() == [list(row) for row in wanted.values()]
