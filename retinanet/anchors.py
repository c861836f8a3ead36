"""The anchors of an image size (paper, section 4), computed once per size and device."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

PYRAMID_LEVELS = (3, 4, 5, 6, 7)
RATIOS = (0.5, 1.0, 2.0)  # height / width
SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))  # three steps to an octave
SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)  # of level 3 to 7, before the scales

# How anchors lie on the cells. The first is the original's; the others serve networks that were
# trained with them (`weights.projects`).
GRIDS = (
    "center",  # on the centres of the cells
    "corner",  # on their upper left corners: detectron2, mmdetection
    "torchvision",  # on corners of cells of whole pixels, the sides rounded
    "odtk",  # on the centres; x2, y2 name the last pixel inside, whose far edge is one further
)


def level_shapes(height: int, width: int) -> list[tuple[int, int]]:
    """Rows and columns of the cells of P3 to P7 for an image of this size."""
    return [(-(-height // 2**level), -(-width // 2**level)) for level in PYRAMID_LEVELS]


def cell_anchors(
    size: float, ratios: Sequence[float], scales: Sequence[float], grid: str = "center"
) -> Tensor:
    """The anchors of one cell: ratio-major, all of a scale with the same area.

    Returns:
        [A, 4] xyxy relative to the cell's point of `cell_points`, float64.
    """
    ratio = torch.tensor(ratios, dtype=torch.float64).repeat_interleave(len(scales))
    side = size * torch.tensor(scales, dtype=torch.float64).repeat(len(ratios))
    if grid == "torchvision":
        side = side.floor()
    width = side / ratio.sqrt()
    corner = torch.stack((width, width * ratio), dim=1) / 2
    if grid == "torchvision":
        corner = corner.round()
    return torch.cat((-corner, corner + 1 if grid == "odtk" else corner), dim=1)


def cell_points(length: int, cells: int, level: int, grid: str = "center") -> Tensor:
    """Positions of the anchors of a row or a column of cells, along it.

    Args:
        length: of the network's input, pixels.
        cells: how many there are.
        level: of the pyramid; its stride is 2^level.
        grid: one of `GRIDS`.

    Returns:
        [cells] pixels, float64.
    """
    index = torch.arange(cells, dtype=torch.float64)
    if grid == "torchvision":
        return index * (length // cells)
    return (index if grid == "corner" else index + 0.5) * 2**level


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # a tensor first made during evaluation must serve training too
def image_anchors(
    height: int,
    width: int,
    sizes: tuple[float, ...] = SIZES,
    ratios: tuple[float, ...] = RATIOS,
    scales: tuple[float, ...] = SCALES,
    grid: str = "center",
    device: torch.device | None = None,
) -> Tensor:
    """All anchors of an image, level after level, row after row, cell after cell.

    Args:
        height: of the network's input, pixels.
        width: of the network's input, pixels.
        sizes: side of the square anchor of scale 1 on each level, pixels of the input.
        ratios: height / width.
        scales: factors on `sizes`.
        grid: one of `GRIDS`.
        device: where the result is to live.

    Returns:
        [N, 4] xyxy float32, unclipped. It is shared by all callers: do not write to it.
    """
    levels = []
    for level, size, (rows, columns) in zip(
        PYRAMID_LEVELS, sizes, level_shapes(height, width), strict=True
    ):
        y = cell_points(height, rows, level, grid)
        x = cell_points(width, columns, level, grid)
        point = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # [rows, columns, 2]
        around = point.repeat(1, 1, 2).unsqueeze(2) + cell_anchors(size, ratios, scales, grid)
        levels.append(around.reshape(-1, 4))
    coordinates = torch.cat(levels).T.contiguous()  # [4, N]: their arithmetic is vectorised so
    return coordinates.float().to(device).T


class Anchors(nn.Module):
    """Anchors as a module without parameters, called with the images.

    Args:
        sizes: side of the square anchor of scale 1 on P3 to P7, pixels of the input.
        ratios: height / width.
        scales: factors on `sizes`.
        grid: one of `GRIDS`.
    """

    def __init__(
        self,
        sizes: Sequence[float] = SIZES,
        ratios: Sequence[float] = RATIOS,
        scales: Sequence[float] = SCALES,
        grid: str = "center",
    ) -> None:
        super().__init__()
        self.sizes, self.ratios, self.scales = tuple(sizes), tuple(ratios), tuple(scales)
        self.grid = grid

    def forward(self, images: Tensor) -> Tensor:
        """Anchors for `images` [B, 3, H, W], on their device: [1, N, 4] xyxy, unclipped."""
        H, W = images.shape[-2:]
        return image_anchors(H, W, self.sizes, self.ratios, self.scales, self.grid, images.device)[
            None
        ]
