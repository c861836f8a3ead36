"""Adaptive training sample selection: a threshold of IoU for each box (Zhang et al., 2020).

The other way to match anchors with boxes, beside `losses.match_anchors`: a box gets anchors
however little it overlaps them, unless it is so small (below 8 px) that none has its centre in it.
Nothing here waits for the device.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from retinanet.losses import NEGATIVE

CELLS = 9  # of each level whose anchors are candidates (k of the paper's algorithm 1)


def match_atss(
    anchors: Tensor, annotations: Tensor, shapes: Sequence[tuple[int, int]]
) -> tuple[Tensor, Tensor]:
    """Give each box the anchors that stand out among those near its centre.

    Section 4.1, algorithm 1. Candidates are all anchors of the 9 cells of each level whose centres
    are nearest to the box's. Of these are positive those whose IoU is at least the candidates' mean
    plus their standard deviation, and whose centre lies in the box. An anchor of several boxes goes
    to the one that it overlaps most. All others are negative, none is ignored.

    Args:
        anchors: [N, 4] xyxy, level after level, row after row, cell after cell.
        annotations: [B, M, 5] x1, y1, x2, y2, label; rows of -1 are padding. M >= 1.
        shapes: rows and columns of each level's cells, as `anchors.level_shapes` gives them.

    Returns:
        labels [B, N] int64: the class, or `NEGATIVE`; boxes [B, N, 4] xyxy.
    """
    B, M, _ = annotations.shape
    boxes = annotations[..., :4]
    index = _candidates(anchors, boxes, shapes)  # [B, M, C]
    near = anchors[index]
    iou = _iou_with(near, boxes)
    least = iou.mean(dim=2, keepdim=True) + iou.std(dim=2, keepdim=True)
    center = (near[..., :2] + near[..., 2:]) / 2
    inside = (center > boxes[..., None, :2]) & (center < boxes[..., None, 2:])
    positive = (iou >= least) & inside.all(dim=3) & (annotations[..., 4:] >= 0)

    # The best IoU of each anchor, then the box that has it; of equal ones the first.
    value, index = torch.where(positive, iou, -1).flatten(1), index.flatten(1)
    best = value.new_full((B, len(anchors)), -1).scatter_reduce(1, index, value, "amax")
    wins = (value >= 0) & (value == best.gather(1, index))
    owner = torch.arange(M, device=index.device).repeat_interleave(index.shape[1] // M)
    owner = torch.where(wins, owner, M)
    chosen = index.new_full((B, len(anchors)), M).scatter_reduce(1, index, owner, "amin")
    matched = annotations.gather(1, chosen.clamp(max=M - 1).unsqueeze(2).expand(-1, -1, 5))
    labels = torch.where(chosen < M, matched[..., 4].long(), NEGATIVE)
    return labels, matched[..., :4]


def _candidates(anchors: Tensor, boxes: Tensor, shapes: Sequence[tuple[int, int]]) -> Tensor:
    """[B, M, C] positions of the anchors in the cells nearest to the centre of each box.

    A cell among the nearest 9 is in one of the 9 nearest rows and of the 9 nearest columns, so no
    more than 81 cells are compared.
    """
    A = len(anchors) // sum(rows * columns for rows, columns in shapes)
    centers = (boxes[..., :2] + boxes[..., 2:]) / 2  # [B, M, 2]
    offsets = torch.arange(A, device=boxes.device)
    start, found = 0, []
    for rows, columns in shapes:
        first = anchors[start : start + rows * columns * A : A]  # all of a cell have one centre
        points = ((first[:, :2] + first[:, 2:]) / 2).reshape(rows, columns, 2)
        across, column = _nearest((centers[..., :1] - points[0, :, 0]).square())
        down, row = _nearest((centers[..., 1:] - points[:, 0, 1]).square())
        cells = (row.unsqueeze(3) * columns + column.unsqueeze(2)).flatten(2)
        order = _nearest((down.unsqueeze(3) + across.unsqueeze(2)).flatten(2))[1]
        nearest = cells.gather(2, order)  # [B, M, 9]
        found.append(start + (nearest.unsqueeze(3) * A + offsets).flatten(2))
        start += rows * columns * A
    return torch.cat(found, dim=2)


def _nearest(distances: Tensor) -> tuple[Tensor, Tensor]:
    """The least 9 of the last dimension and their positions, of equal ones the first."""
    values, order = distances.sort(dim=-1, stable=True)  # topk takes any of equal ones
    return values[..., :CELLS], order[..., :CELLS]


def _iou_with(near: Tensor, boxes: Tensor) -> Tensor:
    """[B, M, C] IoU of each box [B, M, 4] with its own anchors [B, M, C, 4]."""
    boxes = boxes.unsqueeze(2)
    corner = torch.maximum(near[..., :2], boxes[..., :2])
    sides = (torch.minimum(near[..., 2:], boxes[..., 2:]) - corner).clamp_(min=0)
    shared = sides.prod(dim=3)
    areas = (near[..., 2:] - near[..., :2]).prod(dim=3) + (boxes[..., 2:] - boxes[..., :2]).prod(3)
    return shared / (areas - shared).clamp_(min=1e-8)
