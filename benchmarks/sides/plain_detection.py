"""The plain loop's other half: images read and detections made the original's way.

Images are normalised and resized as floats; suppression runs in a loop over the classes, without a
limit. Where the package corrected the original so that numbers differ, this does as the package (no
needless padding, boxes clipped at both ends): that costs no time. What was slow by accident in the
original (a list of scalars made of each tensor) is left out.
"""

from pathlib import Path

import numpy as np
import skimage.color
import skimage.io
import skimage.transform
import torch
from torch import Tensor
from torchvision.ops import nms

from benchmarks.sides.plain import BOX_STD, PlainRetinaNet
from retinanet.data.images import padded_size, resized_size
from retinanet.data.transforms import MEAN, STD, Sample
from retinanet.postprocess import Detections


@torch.no_grad()
def detect(model: PlainRetinaNet, image: Tensor, size: tuple[int, int] | None = None) -> Detections:
    """All detections of one image [1, 3, H, W], class after class, clipped to `size` (H, W)."""
    probabilities, deltas, boxes = model(image)
    height, width = size or (image.shape[2], image.shape[3])
    sizes = boxes[:, 2:] - boxes[:, :2]
    moves = deltas[0] * torch.tensor(BOX_STD)
    centers = boxes[:, :2] + sizes / 2 + moves[:, :2] * sizes
    halves = torch.exp(moves[:, 2:]) * sizes / 2
    x1, y1, x2, y2 = torch.cat((centers - halves, centers + halves), dim=1).unbind(1)
    x1, x2 = x1.clamp(0, width), x2.clamp(0, width)
    y1, y2 = y1.clamp(0, height), y2.clamp(0, height)
    boxes = torch.stack((x1, y1, x2, y2), dim=1)
    found = []
    for label in range(probabilities.shape[2]):
        scores = probabilities[0, :, label]
        over = scores > 0.05
        if not over.any():
            continue
        keep = nms(boxes[over], scores[over], 0.5)
        labels = torch.full((len(keep),), label)
        found.append(Detections(scores[over][keep], labels, boxes[over][keep]))
    if not found:
        return Detections(torch.zeros(0), torch.zeros(0, dtype=torch.long), torch.zeros(0, 4))
    return Detections(*map(torch.cat, zip(*found, strict=True)))


def read_sample(path: str | Path, min_side: int, max_side: int) -> Sample:
    """Read, normalise and resize an image, in floats all the way: `img` [H, W, 3] float32."""
    pixels = skimage.io.imread(path)
    if pixels.ndim == 2:
        pixels = skimage.color.gray2rgb(pixels)
    image = (pixels.astype(np.float32) / 255 - np.array([[MEAN]])) / np.array([[STD]])
    height, width = image.shape[:2]
    size, scale = resized_size(height, width, min_side, max_side)
    resized = skimage.transform.resize(image, size)
    padded = np.zeros((*padded_size(*size), 3))
    padded[: size[0], : size[1]] = resized
    return {
        "img": torch.from_numpy(padded).float(),
        "annot": torch.zeros(0, 5),
        "scale": scale,
        "size": size,
        "original_size": (height, width),
    }
