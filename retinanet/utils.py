"""The import path of the original for its building blocks; nothing in this package imports it."""

import torch
from torch import Tensor, nn

from retinanet.backbone import BasicBlock, Bottleneck
from retinanet.boxes import clip_boxes, decode_boxes

__all__ = ["BBoxTransform", "BasicBlock", "Bottleneck", "ClipBoxes"]


class BBoxTransform(nn.Module):
    """`boxes.decode_boxes` as a module."""

    def forward(self, boxes: Tensor, deltas: Tensor) -> Tensor:
        """Anchors [B, N, 4] or [1, N, 4] moved by deltas [B, N, 4]: [B, N, 4] xyxy, unclipped."""
        moved = [
            decode_boxes(anchors, shifts)
            for anchors, shifts in zip(boxes.expand_as(deltas), deltas, strict=True)
        ]
        return torch.stack(moved)


class ClipBoxes(nn.Module):
    """`boxes.clip_boxes` as a module."""

    def forward(self, boxes: Tensor, img: Tensor) -> Tensor:
        """Boxes [B, N, 4] with every corner moved into img [B, 3, H, W]."""
        H, W = img.shape[-2:]
        return clip_boxes(boxes, H, W)
