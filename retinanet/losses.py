"""The loss of a batch: anchors matched to boxes, focal loss on logits, smooth L1 (paper, 3 and 4).

Nothing here waits for the device: every shape follows from the shapes of the arguments.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from retinanet.boxes import encode_boxes, pairwise_iou

ALPHA = 0.25
# The focusing exponent gamma is 2 everywhere below: it is written as a square.

POSITIVE_IOU = 0.5
NEGATIVE_IOU = 0.4
SMOOTH_L1_BETA = 1 / 9

# The original clamps probabilities to [1e-4, 1 - 1e-4]; the *value* of the loss keeps that clamp.
MIN_PROBABILITY = 1e-4
MIN_SOFTPLUS = -math.log1p(-MIN_PROBABILITY)
MAX_SOFTPLUS = -math.log(MIN_PROBABILITY)

NEGATIVE = -1  # the label of an anchor that is background
IGNORED = -2  # the label of an anchor that is neither

# Working sets that stay in the cache: pairs of anchor and box, rows of the logits.
_PAIRS_AT_ONCE = 2**19
_LOGITS_AT_ONCE = 2**17


def match_anchors(anchors: Tensor, annotations: Tensor) -> tuple[Tensor, Tensor]:
    """Give each anchor the box that it overlaps most, and the label that follows from how much.

    IoU >= 0.5 is positive, < 0.4 negative, between is ignored. A box that no anchor reaches gets
    none (as the original).

    Args:
        anchors: [N, 4] xyxy.
        annotations: [B, M, 5] x1, y1, x2, y2, label; rows of -1 are padding. M >= 1.

    Returns:
        labels [B, N] int64: the class, `NEGATIVE` or `IGNORED`; boxes [B, N, 4] xyxy.
    """
    B, M, _ = annotations.shape
    boxes = annotations[..., :4]
    # A box of padding has no area, so its IoU is 0 with everything.
    chunks = [
        pairwise_iou(boxes, chunk).max(dim=1)  # over M
        for chunk in torch.split(anchors, max(1, _PAIRS_AT_ONCE // max(1, B * M)))
    ]
    iou = torch.cat([chunk.values for chunk in chunks], dim=1)
    best = torch.cat([chunk.indices for chunk in chunks], dim=1)
    matched = annotations.gather(1, best.unsqueeze(2).expand(-1, -1, 5))  # [B, N, 5]
    background = torch.where(iou < NEGATIVE_IOU, NEGATIVE, IGNORED)
    labels = torch.where(iou >= POSITIVE_IOU, matched[..., 4].long(), background)
    return labels, matched[..., :4]


def _focal_term(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Focal loss of entries that should be 0, without alpha: p^2 * softplus(x), and its slope.

    The value is that of the clamped probability, the slope that of the loss without a clamp, so
    that an entry which is sure and wrong is still pulled back.
    """
    p = torch.sigmoid(logits)
    q = torch.sigmoid(-logits).clamp_(min=torch.finfo(logits.dtype).tiny)  # 1 - p, never 0
    # -log(1 - p) is the softplus; torch's own, and log1p, are not vectorised on a CPU: 7 times the
    # time. What it loses is a relative 6e-8 / p of terms that weigh p^2.
    softplus = torch.log(q).neg_()
    slope = q.mul_(softplus).mul_(2).add_(p).mul_(p).mul_(p)
    clamped = p.clamp_(MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    value = clamped.square_().mul_(softplus.clamp_(MIN_SOFTPLUS, MAX_SOFTPLUS))
    return value, slope


class _FocalLoss(torch.autograd.Function):
    """Sum over anchors and classes of each image, with the gradient in closed form.

    The dense part takes every entry of every row that is not ignored for a negative, chunk by
    chunk, and keeps nothing but the gradient; then the one positive entry of each positive anchor
    is put right by index. No [N, K] target exists at any time.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """Weigh each image's sum of the focal loss and add them up.

        Args:
            ctx: autograd's context.
            logits: [B, N, K], any float type; computed in float32 (float64 stays).
            labels: [B, N] class, `NEGATIVE` or `IGNORED`.
            weights: [B] factor of each image.

        Returns:
            The loss, a scalar.
        """
        exact = torch.promote_types(logits.dtype, torch.float32)
        B, N, K = logits.shape
        gradient = torch.empty_like(logits)
        row_weights = (1 - ALPHA) * (labels != IGNORED) * weights.to(exact).unsqueeze(1)  # [B, N]

        total = logits.new_zeros((), dtype=exact)
        step = max(1, _LOGITS_AT_ONCE // K)
        for image in range(B):
            for start in range(0, N, step):
                rows = (image, slice(start, start + step))
                value, slope = _focal_term(logits[rows].to(exact))
                total += row_weights[rows] @ value.sum(dim=1)
                gradient[rows] = slope.mul_(row_weights[rows].unsqueeze(1))

        positive = labels >= 0
        column = labels.clamp(min=0).unsqueeze(2)
        entry = logits.gather(2, column).squeeze(2).to(exact)  # [B, N]: the assigned class's logit
        as_negative, _ = _focal_term(entry)
        as_positive, slope = _focal_term(-entry)
        correction = ALPHA * as_positive - (1 - ALPHA) * as_negative
        total += (torch.where(positive, correction, 0).sum(dim=1) * weights).sum()
        slope = (-ALPHA * slope * weights.unsqueeze(1)).to(logits.dtype).unsqueeze(2)
        slope = torch.where(positive.unsqueeze(2), slope, gradient.gather(2, column))
        ctx.save_for_backward(gradient.scatter_(2, column, slope))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        """The stored gradient, scaled."""
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output.to(gradient.dtype), None, None


class FocalLoss(nn.Module):
    """Both losses of a batch: classification (focal) and regression (smooth L1)."""

    def forward(
        self, logits: Tensor, deltas: Tensor, anchors: Tensor, annotations: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Compare predictions with annotations, in float32 whatever autocast says.

        Both are means over the images. An image's classification loss is its sum over anchors and
        classes by its number of positive anchors (at least 1). Its regression loss is the mean over
        positive anchors and their 4 coordinates, 0 without any: a quarter of the sum over
        coordinates that other projects take.

        Args:
            logits: [B, N, K], before the sigmoid.
            deltas: [B, N, 4] as `boxes.encode_boxes` gives them.
            anchors: [N, 4] or [1, N, 4] xyxy.
            annotations: [B, M, 5] x1, y1, x2, y2, label; rows of -1 are padding.

        Returns:
            The classification loss [1] and the regression loss [1].
        """
        with torch.autocast(logits.device.type, enabled=False):
            anchors = anchors.reshape(-1, 4)
            annotations = annotations.to(anchors)
            labels, boxes = match_anchors(anchors, annotations)
            positive = labels >= 0
            weights = 1 / (positive.sum(dim=1).clamp(min=1) * len(labels))  # [B]
            classification = _FocalLoss.apply(logits, labels, weights)

            targets = encode_boxes(anchors, boxes)
            distances = F.smooth_l1_loss(
                deltas.to(targets), targets, reduction="none", beta=SMOOTH_L1_BETA
            )
            per_anchor = torch.where(positive, distances.mean(dim=2), 0)
            regression = (per_anchor.sum(dim=1) * weights).sum()
        return classification.reshape(1), regression.reshape(1)
