"""The loss of a batch: anchors matched to boxes, focal loss on logits, smooth L1 (paper, 3 and 4).

Nothing here waits for the device: every shape follows from the shapes of the arguments.
"""

import math
from collections.abc import Callable, Iterator
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
# The loss of a negative at these two, without alpha: p^2 * -log(1 - p).
MIN_LOSS = MIN_PROBABILITY**2 * -math.log1p(-MIN_PROBABILITY)
MAX_LOSS = (1 - MIN_PROBABILITY) ** 2 * -math.log(MIN_PROBABILITY)

# From anchors [N, 4] and annotations [B, M, 5] to labels [B, N] and boxes [B, N, 4]: that of
# `match_anchors` or `atss.match_atss`.
Matcher = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

NEGATIVE = -1  # the label of an anchor that is background
IGNORED = -2  # the label of an anchor that is neither

# Pairs of anchor and box, and entries of the logits, that are worked on at once. On a CPU they stay
# in its cache. Elsewhere each launch costs, so all are done at once but in very large batches: they
# take 16 and 12 bytes each for a moment.
_CPU_PAIRS, _PAIRS = 2**17, 2**28
_CPU_ENTRIES, _ENTRIES = 2**17, 2**29


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
    N = len(anchors)
    iou, best = anchors.new_empty(B, N), anchors.new_empty((B, N), dtype=torch.int64)
    at_once = (_CPU_PAIRS if anchors.is_cpu else _PAIRS) // max(1, B * M)
    for rows in _chunks(N, at_once):
        # A box of padding has no area, so its IoU is 0 with everything.
        pairs = pairwise_iou(annotations[..., :4], anchors[rows])  # [B, M, n]
        torch.max(pairs, dim=1, out=(iou[:, rows], best[:, rows]))
    matched = annotations.mT.gather(2, best.unsqueeze(1).expand(-1, 5, -1))  # [B, 5, N]
    labels = matched[:, 4].long()
    labels.masked_fill_(iou < POSITIVE_IOU, IGNORED).masked_fill_(iou < NEGATIVE_IOU, NEGATIVE)
    return labels, matched[:, :4].mT


def _chunks(length: int, size: int) -> Iterator[slice]:
    """Cut a length into slices of at most `size`, at least 1."""
    size = max(1, size)
    return (slice(start, start + size) for start in range(0, length, size))


def _focal_terms(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Focal loss of entries that should be 0, without alpha, and its slope; overwrites the logits.

    The loss p^2 * softplus(x), here negated, is that of the clamped probability; the slope is that
    of the loss without a clamp, so that an entry which is sure and wrong is still pulled back.
    """
    p = logits.sigmoid_()
    q = torch.rsub(p, 1, alpha=1 - torch.finfo(p.dtype).eps / 2)  # 1 - p, but never 0
    # log(1 - p) is -softplus; torch's own, and log1p, are not vectorised on a CPU: 7 times the
    # time. What it loses is a relative 6e-8 / p of terms that weigh p^2.
    negated = torch.log(q).mul_(p).mul_(p)
    slope = torch.addcmul(p.pow_(3), q, negated, value=-2, out=q)  # p^2 * (p + 2q * softplus)
    return negated.clamp_(-MAX_LOSS, -MIN_LOSS), slope  # the loss only rises with p


class _FocalLoss(torch.autograd.Function):
    """Sum over anchors and classes of each image, with the gradient in closed form.

    Every entry of every row that is not ignored is taken for a negative, then the one positive
    entry of each positive anchor is put right by index. No [N, K] target exists at any time, and
    nothing but the gradient is kept.
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
        B, N, K = logits.shape
        weights = weights.to(torch.float64 if logits.dtype is torch.float64 else torch.float32)
        counted = labels != IGNORED
        # Negative, for -log(1 - p) costs a pass that log(1 - p) does not.
        row_weights = counted * (weights * (ALPHA - 1)).unsqueeze(1)  # [B, N]
        # Float16 ends at 6e-8. Most gradients of the background lie below before they are scaled,
        # which only `backward` does, so they are kept in bfloat16, which has float32's range.
        kind = torch.bfloat16 if logits.dtype is torch.float16 else logits.dtype
        gradient = logits.new_empty((B * N, K), dtype=kind)

        logits, labels, row_weights = logits.flatten(0, 1), labels.flatten(), row_weights.flatten()
        row_losses = torch.empty_like(row_weights)
        at_once = (_CPU_ENTRIES if logits.is_cpu else _ENTRIES) // (K + 1)
        for rows in _chunks(B * N, at_once):
            # One column more, for the positive entry as a negative of the opposite sign. Rows
            # without a positive entry write there what they would put right: -1 % (K + 1) is K,
            # and IGNORED, -2, has no weight.
            column = labels[rows].remainder(K + 1).unsqueeze(1)
            entries = torch.cat((logits[rows], row_weights[rows].unsqueeze(1)), dim=1)
            torch.neg(entries.gather(1, column), out=entries[:, K:])
            negated, slope = _focal_terms(entries)
            negated.scatter_(1, column, negated[:, K:] * (ALPHA / (1 - ALPHA)))
            slope.scatter_(1, column, slope[:, K:] * (-ALPHA / (1 - ALPHA)))
            torch.sum(negated[:, :K], dim=1, out=row_losses[rows])
            torch.mul(slope[:, :K], row_weights[rows].unsqueeze(1), out=gradient[rows])
        ctx.save_for_backward(gradient.view(B, N, K))
        ctx.half = logits.dtype is torch.float16
        return row_losses.dot(row_weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        """The stored gradient, scaled."""
        (negated,) = ctx.saved_tensors
        if not ctx.half:
            return negated * -grad_output.to(negated.dtype), None, None
        # A factor with dimensions makes the product a float32, which is rounded once.
        gradient = torch.empty_like(negated, dtype=torch.float16)
        return torch.mul(negated, -grad_output.reshape(1, 1, 1), out=gradient), None, None


class FocalLoss(nn.Module):
    """Both losses of a batch: classification (focal) and regression (smooth L1)."""

    def forward(
        self,
        logits: Tensor,
        deltas: Tensor,
        anchors: Tensor,
        annotations: Tensor,
        match: Matcher = match_anchors,
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
            match: gives each anchor a label and a box, as `match_anchors`.

        Returns:
            The classification loss [1] and the regression loss [1].
        """
        with torch.autocast(logits.device.type, enabled=False):
            anchors = anchors.reshape(-1, 4)
            annotations = annotations.to(anchors)
            labels, boxes = match(anchors, annotations)
            positive = labels >= 0
            weights = (positive.sum(dim=1).clamp_(min=1) * len(labels)).reciprocal()  # [B]
            classification = _FocalLoss.apply(logits, labels, weights)

            targets = encode_boxes(anchors, boxes)
            distances = F.smooth_l1_loss(
                deltas.to(targets), targets, reduction="none", beta=SMOOTH_L1_BETA
            )
            shares = positive * weights.to(targets).unsqueeze(1)  # [B, N]
            regression = distances.mean(dim=2).flatten().dot(shares.flatten())
        return classification.reshape(1), regression.reshape(1)
