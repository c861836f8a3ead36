"""Focal loss with its gradient, against torchvision's on a dense target: time and memory.

And matching by atss, against that by thresholds of IoU.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from benchmarks.sides.cases import BATCH, CLASSES, annotations, image_size
from benchmarks.sides.measure import Function, Row, arguments, medians, peak_memory, show
from retinanet import losses
from retinanet.anchors import image_anchors, level_shapes
from retinanet.atss import match_atss
from retinanet.model import MATCHINGS


def logits_and_labels(side: int) -> tuple[Tensor, Tensor]:
    """Logits [B, N, K] of a network that has learnt something, and labels [B, N]; none is ignored.

    torchvision would first copy the rows that are not ignored: it is spared that.
    """
    labels, _ = losses.match_anchors(image_anchors(*image_size(side)), annotations(side))
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(BATCH, labels.shape[1], CLASSES, generator=random) - 4.0
    return logits.requires_grad_(), labels.clamp(min=losses.NEGATIVE)


def dense_target(labels: Tensor) -> Tensor:
    """One-hot rows, zero for the background: [B, N, K] float32."""
    return F.one_hot(labels + 1, CLASSES + 1)[..., 1:].float()


def ours(side: int) -> Function:
    """Ours, from labels."""
    logits, labels = logits_and_labels(side)
    weights = torch.ones(BATCH)

    def run() -> float:
        logits.grad = None
        loss: Tensor = losses._FocalLoss.apply(logits, labels, weights)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    return run


def theirs(side: int, from_labels: bool = False) -> Function:
    """torchvision's; the target is there beforehand, or made of the labels as training has to."""
    logits, labels = logits_and_labels(side)
    made_before = None if from_labels else dense_target(labels)

    def run() -> float:
        logits.grad = None
        target = dense_target(labels) if made_before is None else made_before
        loss = sigmoid_focal_loss(logits, target, reduction="sum")
        loss.backward()
        return loss.item()

    return run


def matching(side: int, rule: str, boxes: int) -> Function:
    """Anchors matched with so many boxes an image, by a rule of --matching."""
    size = image_size(side)
    anchors, annotated = image_anchors(*size), annotations(side, boxes)
    if rule == "iou":
        return lambda: losses.match_anchors(anchors, annotated)
    return lambda: match_atss(anchors, annotated, level_shapes(*size))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    args = arguments(__doc__, repeats=7).parse_args(argv)
    functions = {
        "ours": ours(args.side),
        "theirs": theirs(args.side),
        "whole": theirs(args.side, from_labels=True),
        **{rule: matching(args.side, rule, 100) for rule in MATCHINGS},
    }
    time = medians(functions, args.repeats)
    memory = peak_memory(ours, args.side), peak_memory(theirs, args.side)
    crowded = [peak_memory(matching, args.side, rule, 1000) for rule in reversed(MATCHINGS)]
    N = logits_and_labels(args.side)[1].shape[1]
    what = f"focal loss + gradient, {N} anchors x {CLASSES} classes x {BATCH}"
    show(
        [
            Row(f"{what}: torchvision", time["ours"], time["theirs"], faster=4, unit="ms"),
            Row(
                f"{what}: torchvision, making its target",
                *(time["ours"], time["whole"]),
                unit="ms",
            ),
            Row("its temporary memory: torchvision", *memory, within=0.25, unit="MB"),
            Row(
                f"matching by atss, 100 boxes x {BATCH}: iou", time["atss"], time["iou"], unit="ms"
            ),
            Row(f"its memory, 1000 boxes x {BATCH}: iou", *crowded, unit="MB"),
        ]
    )
    print(f"values: {functions['ours']():.6g} ours, {functions['theirs']():.6g} torchvision's\n")


if __name__ == "__main__":
    main()
