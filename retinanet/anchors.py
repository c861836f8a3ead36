"""The anchors of an image size (paper, section 4), computed once per size and device."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

PYRAMID_LEVELS = (3, 4, 5, 6, 7)
RATIOS = (0.5, 1.0, 2.0)  # height / width
SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))  # three steps to an octave
SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)  # of level 3 to 7, before the scales


def level_shapes(height: int, width: int) -> list[tuple[int, int]]:
    """Rows and columns of the cells of P3 to P7 for an image of this size."""
    return [(-(-height // 2**level), -(-width // 2**level)) for level in PYRAMID_LEVELS]


def cell_anchors(size: float, ratios: Sequence[float], scales: Sequence[float]) -> Tensor:
    """The anchors around one cell's centre: ratio-major, all of a scale with the same area.

    Returns:
        [A, 4] xyxy relative to the centre, float64.
    """
    ratio = torch.tensor(ratios, dtype=torch.float64).repeat_interleave(len(scales))
    side = size * torch.tensor(scales, dtype=torch.float64).repeat(len(ratios))
    width = side / ratio.sqrt()
    corner = torch.stack((width, width * ratio), dim=1) / 2
    return torch.cat((-corner, corner), dim=1)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # a tensor first made during evaluation must serve training too
def image_anchors(
    height: int,
    width: int,
    sizes: tuple[float, ...] = SIZES,
    ratios: tuple[float, ...] = RATIOS,
    scales: tuple[float, ...] = SCALES,
    device: torch.device | None = None,
) -> Tensor:
    """All anchors of an image, level after level, row after row, cell after cell.

    Args:
        height: of the network's input, pixels.
        width: of the network's input, pixels.
        sizes: side of the square anchor of scale 1 on each level, pixels of the input.
        ratios: height / width.
        scales: factors on `sizes`.
        device: where the result is to live.

    Returns:
        [N, 4] xyxy float32, unclipped. It is shared by all callers: do not write to it.
    """
    levels = []
    for level, size, (rows, columns) in zip(
        PYRAMID_LEVELS, sizes, level_shapes(height, width), strict=True
    ):
        stride = 2**level
        y = (torch.arange(rows, dtype=torch.float64) + 0.5) * stride
        x = (torch.arange(columns, dtype=torch.float64) + 0.5) * stride
        center = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # [rows, columns, 2]
        around = center.repeat(1, 1, 2).unsqueeze(2) + cell_anchors(size, ratios, scales)
        levels.append(around.reshape(-1, 4))
    return torch.cat(levels).float().to(device)


class Anchors(nn.Module):
    """Anchors as a module without parameters, called with the images.

    Args:
        sizes: side of the square anchor of scale 1 on P3 to P7, pixels of the input.
        ratios: height / width.
        scales: factors on `sizes`.
    """

    def __init__(
        self,
        sizes: Sequence[float] = SIZES,
        ratios: Sequence[float] = RATIOS,
        scales: Sequence[float] = SCALES,
    ) -> None:
        super().__init__()
        self.sizes, self.ratios, self.scales = tuple(sizes), tuple(ratios), tuple(scales)

    def forward(self, images: Tensor) -> Tensor:
        """Anchors for `images` [B, 3, H, W], on their device: [1, N, 4] xyxy, unclipped."""
        H, W = images.shape[-2:]
        return image_anchors(H, W, self.sizes, self.ratios, self.scales, images.device)[None]
