"""Objects that were drawn twice and called differently."""

import numpy as np
import torch

from retinanet.boxes import pairwise_iou
from retinanet.data_check.anchor_coverage import Boxes, Ints

SAME = 0.9  # IoU above which two boxes are of one object


def double_boxes(boxes: Boxes) -> Ints:
    """Pairs of boxes of one image that nearly coincide and have different classes.

    Returns:
        [pairs, 2] rows of `boxes`, the first before the second.
    """
    starts = np.flatnonzero(np.diff(boxes.images, prepend=-1))
    ends = np.flatnonzero(np.diff(boxes.images, append=-1)) + 1
    pairs = [np.zeros((0, 2), np.int64)]
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        labels = boxes.labels[start:end]
        if (labels == labels[0]).all():
            continue
        corners = torch.from_numpy(boxes.corners[start:end])
        same = pairwise_iou(corners, corners).numpy() > SAME
        found = np.argwhere(np.triu(same & (labels[:, None] != labels)))
        pairs.append(found + start)
    return np.concatenate(pairs)
