"""Box arithmetic on tensors: overlap, encoding against anchors, clipping. Boxes are xyxy pixels."""

import math

import torch
from torch import Tensor

# Deltas are in units of these, so that all four have about unit variance (the original's choice).
CENTER_STD = 0.1  # dx, dy
SIZE_STD = 0.2  # dw, dh

# Minimum and maximum of the logarithms of box / anchor. Wild deltas must not overflow the
# exponential: a 16 px anchor grows to 1000 px at most.
LOG_RATIO_LIMITS = (-math.inf, math.log(1000 / 16))


def pairwise_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of every box with every other one.

    Args:
        boxes: [..., M, 4] xyxy.
        others: [N, 4] xyxy.

    Returns:
        [..., M, N] in 0..1; 0 where both boxes are empty.
    """
    low, high = boxes.mT.unsqueeze(-1).chunk(2, dim=-3)  # each [..., 2, M, 1]
    other_low, other_high = others.mT.unsqueeze(-2).chunk(2, dim=-3)  # each [2, 1, N]
    sides = torch.minimum(high, other_high).sub_(torch.maximum(low, other_low)).clamp_(min=0)
    width, height = sides.unbind(-3)  # each [..., M, N]
    intersection = width.mul_(height)
    other_width, other_height = (other_high - other_low).clamp_(min=1e-4).unbind(-3)
    areas = torch.addcmul((high - low).prod(-3), other_width, other_height)  # their sum
    return intersection.div_(areas.sub_(intersection))


def encode_boxes(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Encode boxes as offsets from their anchors (R-CNN, appendix C).

    A box thinner than a pixel counts as one pixel in the logarithms, but keeps its own centre.

    Args:
        anchors: [N, 4] xyxy.
        boxes: [..., N, 4] xyxy, the box of each anchor.

    Returns:
        [..., N, 4] (dx, dy, dw, dh) in units of `CENTER_STD` and `SIZE_STD`;
        dx, dy relative to the anchor's size.
    """
    anchor_sizes = anchors[:, 2:] - anchors[:, :2]
    deltas = boxes - anchors  # of the two corners
    shifts, ratios = deltas.chunk(2, dim=-1)
    shifts += ratios  # twice the centre's
    torch.sub(boxes[..., 2:], boxes[..., :2], out=ratios).clamp_(min=1)
    deltas /= anchor_sizes.repeat(1, 2)
    ratios.log_()
    return deltas.div_(SIZE_STD)  # twice `CENTER_STD`


def decode_boxes(
    anchors: Tensor,
    deltas: Tensor,
    log_ratio_limits: tuple[float, float] = LOG_RATIO_LIMITS,
) -> Tensor:
    """Move anchors by predicted offsets: the inverse of `encode_boxes`.

    Args:
        anchors: [N, 4] xyxy.
        deltas: [..., N, 4] (dx, dy, dw, dh) in units of `CENTER_STD` and `SIZE_STD`.
        log_ratio_limits: minimum and maximum of the logarithm of box / anchor.

    Returns:
        [..., N, 4] xyxy, unclipped, in the dtype of `anchors`.
    """
    shifts, log_ratios = torch.split(deltas.to(anchors), 2, dim=-1)
    anchor_sizes = anchors[:, 2:] - anchors[:, :2]
    anchor_centers = anchors[:, :2] + 0.5 * anchor_sizes
    centers = anchor_centers + CENTER_STD * shifts * anchor_sizes
    half_sizes = 0.5 * anchor_sizes * torch.exp((SIZE_STD * log_ratios).clamp(*log_ratio_limits))
    return torch.cat((centers - half_sizes, centers + half_sizes), dim=-1)


def clip_boxes(boxes: Tensor, height: int, width: int) -> Tensor:
    """Move every corner into the picture.

    Args:
        boxes: [..., 4] xyxy.
        height: of the picture, pixels.
        width: of the picture, pixels.

    Returns:
        [..., 4] with 0 <= x <= width and 0 <= y <= height at both ends.
    """
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack((x, y), dim=-1).flatten(-2)
