"""Sample to sample: flip, resize, normalise. Any order is right, uint8 until the end is fastest.

It knows nothing of files. Samples of somebody's own data set (numpy arrays, with the original's
keys `img`, `annot`, `scale`) are taken too.
"""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypedDict, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import Compose, v2
from torchvision.tv_tensors import BoundingBoxes, Image

from retinanet.data.images import padded_size, resized_size

MEAN = (0.485, 0.456, 0.406)  # ImageNet's, RGB of 0..1
STD = (0.229, 0.224, 0.225)
MIN_SIDE, MAX_SIDE = 608, 1024  # pixels of the shorter and the longer side: the original's
AUGMENTATIONS = ("none", "mild", "strong")
LEAST_SHARE = 0.4  # of a box's area that must be left of it where a picture is cut


def training_transform(min_side: int, max_side: int, *, augment: str, seed: int) -> Compose:
    """Transform of training: flipped and distorted at random, resized and normalised."""
    steps = [] if augment == "none" else [Distorter(augment, seed, min_side, max_side)]
    return Compose([Augmenter(seed), *steps, Resizer(min_side, max_side), Normalizer()])


def evaluation_transform(min_side: int, max_side: int) -> Compose:
    """Transform of evaluation and prediction: resized and normalised."""
    return Compose([Resizer(min_side, max_side), Normalizer()])


class Sample(TypedDict, total=False):
    """One image and its boxes. Only `img` and `annot` are needed."""

    img: Tensor  # [H, W, 3] RGB: uint8 as read, or float32 of 0..1, or normalised float32
    annot: Tensor  # [M, 5] float32: x1, y1, x2, y2 in pixels of img, label
    scale: float  # pixels of img per pixel of the file, before rounding
    size: tuple[int, int]  # (height, width) of the picture in img; the rest is padding
    original_size: tuple[int, int]  # (height, width) of the file, upright
    index: int  # which sample,
    epoch: int  # and of which epoch: the key of its random choices
    unreadable: str  # alone: why the image could not be read


def without_boxes(pixels: NDArray[np.uint8] | Tensor) -> Sample:
    """Sample of a picture [H, W, 3] that nobody labelled."""
    return {"img": torch.as_tensor(pixels), "annot": torch.zeros(0, 5)}


def random_stream(purpose: str, *key: int) -> np.random.Generator:
    """Random numbers that depend on nothing but the purpose and the key: seed, epoch, index."""
    return np.random.default_rng([zlib.crc32(purpose.encode()), *key])


class Augmenter:
    """Flip left to right at random.

    The choice is a function of (seed, epoch, index) of the sample, so workers and resuming change
    nothing. A sample without index and epoch draws from torch's global generator.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def __call__(self, sample: Sample, flip_x: float = 0.5) -> Sample:
        """Flip with probability `flip_x`; padding stays where it is."""
        if self._draw(sample) >= flip_x:
            return sample
        image, annot = _tensors(sample)
        height, width = _picture_size(sample, image)
        picture = image[:height, :width].flip(1)
        if (height, width) != tuple(image.shape[:2]):
            picture = _padded(picture, image.shape[0], image.shape[1])
        x1, y1, x2, y2, label = annot.unbind(1)
        annot = torch.stack((width - x2, y1, width - x1, y2, label), dim=1)
        return {**sample, "img": picture, "annot": annot}

    def _draw(self, sample: Sample) -> float:
        """A number of [0, 1)."""
        if "index" in sample and "epoch" in sample:
            return random_stream("flip", self.seed, sample["epoch"], sample["index"]).random()
        return torch.rand(()).item()


class Distorter:
    """Change size, position and colours at random; the result has the size that `Resizer` makes.

    The operations are torchvision's: a random size, of which a random part is cut out, or which is
    filled up with the mean colour at random sides; then colours. mild has the range of sizes that
    Ghiasi et al. (2021) call standard; strong has more, and the colours of SSD (Liu et al., 2016).
    A box of which less than `LEAST_SHARE` is left is dropped.

    The choices are a function of (seed, epoch, index) of the sample, as those of `Augmenter`.

    Args:
        augment: mild or strong.
        seed: of the choices.
        min_side: as of `Resizer`.
        max_side: as of `Resizer`.
    """

    def __init__(self, augment: str, seed: int, min_side: int, max_side: int) -> None:
        self.seed, self.min_side, self.max_side = seed, min_side, max_side
        self.scales = {"mild": (0.8, 1.25), "strong": (0.5, 2.0)}[augment]
        self.recolour = {
            "mild": v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
            "strong": v2.RandomPhotometricDistort(),
        }[augment]

    def __call__(self, sample: Sample) -> Sample:
        """Distort a sample whose img is uint8, or floats of 0..1; a picture of few pixels stays."""
        image, annot = _tensors(sample)
        height, width = _picture_size(sample, image)
        size, scale = resized_size(height, width, self.min_side, self.max_side)
        if scale * self.scales[0] * min(height, width) < 1:
            return sample
        picture = Image(image[:height, :width].permute(2, 0, 1))
        corners = BoundingBoxes(annot[:, :4], format="XYXY", canvas_size=(height, width))
        resize = v2.ScaleJitter((size[1], size[0]), self.scales)  # (width, height)
        unit = 255.0 if image.dtype == torch.uint8 else 1.0
        cut = v2.RandomCrop(size, pad_if_needed=True, fill=[unit * mean for mean in MEAN])
        with self._draws(sample):
            picture, corners = resize(picture, corners)
            resized_height, areas = picture.shape[1], _areas(corners)
            picture, corners = cut(picture, corners)
            picture = self.recolour(picture)
        kept = _areas(corners) >= LEAST_SHARE * areas
        return {
            **sample,
            "img": picture.as_subclass(Tensor).permute(1, 2, 0),
            "annot": torch.cat((corners.as_subclass(Tensor), annot[:, 4:]), dim=1)[kept],
            "scale": sample.get("scale", 1.0) * resized_height / height,
            "size": size,
            "original_size": sample.get("original_size", (height, width)),
        }

    @contextmanager
    def _draws(self, sample: Sample) -> Iterator[None]:
        """Let torch's global generator draw what the sample's key says, and leave it as it was."""
        if "index" not in sample or "epoch" not in sample:
            yield
            return
        stream = random_stream("augment", self.seed, sample["epoch"], sample["index"])
        with torch.random.fork_rng(devices=()):
            # torch.manual_seed would seed the accelerators too, which nothing would undo.
            torch.default_generator.manual_seed(int(stream.integers(2**63)))
            yield


def _areas(corners: Tensor) -> Tensor:
    """[M, 4] x1, y1, x2, y2 to [M]."""
    x1, y1, x2, y2 = corners.as_subclass(Tensor).unbind(1)
    return (x2 - x1) * (y2 - y1)


class Resizer:
    """Bring the smaller side to `min_side`, or the larger to `max_side`, and pad to 32.

    Antialiased bilinear; uint8 stays uint8. The padding is on the right and below, zero, and only
    where a side is no multiple of 32 pixels. Boxes are scaled by the real ratios of the rounded
    size.
    """

    def __init__(self, min_side: int = MIN_SIDE, max_side: int = MAX_SIDE) -> None:
        self.min_side = min_side
        self.max_side = max_side

    def __call__(self, sample: Sample) -> Sample:
        """Resize img and annot, and set `scale`, `size` and `original_size`."""
        image, annot = _tensors(sample)
        height, width = _picture_size(sample, image)
        size, scale = resized_size(height, width, self.min_side, self.max_side)
        ratios = (size[1] / width, size[0] / height)
        return {
            **sample,
            "img": _padded(_resized(image[:height, :width], size), *padded_size(*size)),
            "annot": annot * annot.new_tensor((*ratios, *ratios, 1.0)),
            "scale": sample.get("scale", 1.0) * scale,
            "size": size,
            "original_size": sample.get("original_size", (height, width)),
        }


class Normalizer:
    """Subtract ImageNet's mean and divide by its standard deviation; the padding becomes zero."""

    def __call__(self, sample: Sample) -> Sample:
        """Normalise img: uint8 counts as 0..255, floats as 0..1."""
        image, annot = _tensors(sample)
        height, width = _picture_size(sample, image)
        unit = 255.0 if image.dtype == torch.uint8 else 1.0
        # Whole rows of a row-major image, [H, W * 3]: three times as quick as [H, W, 3].
        gain = (1 / (unit * torch.tensor(STD))).repeat(width)
        shift = (-torch.tensor(MEAN) / torch.tensor(STD)).repeat(width)
        out = torch.zeros(image.shape)
        rows = out.view(len(out), -1)[:height, : 3 * width]
        rows.copy_(image[:height, :width].reshape(height, -1))
        torch.addcmul(shift, rows, gain, out=rows)
        return {**sample, "img": out, "annot": annot}


class UnNormalizer:
    """The way back, for looking at what a network was given."""

    def __call__(self, image: Tensor) -> Tensor:
        """Normalised [..., 3, H, W] to RGB of 0..1 (a new tensor)."""
        mean, std = image.new_tensor(MEAN), image.new_tensor(STD)
        return image * std[:, None, None] + mean[:, None, None]


def _tensors(sample: Sample) -> tuple[Tensor, Tensor]:
    """(img, annot) as tensors: img uint8 or float32, annot float32 [M, 5]."""
    image, annot = (_tensor(sample[key]) for key in ("img", "annot"))
    image = image if image.dtype == torch.uint8 else image.float()
    return image, annot.float().reshape(-1, 5)


def _tensor(values: object) -> Tensor:
    # A flipped numpy array has negative strides, which a tensor cannot have.
    return values if isinstance(values, Tensor) else torch.from_numpy(np.ascontiguousarray(values))


def _picture_size(sample: Sample, image: Tensor) -> tuple[int, int]:
    """(height, width) of the picture in img."""
    return sample.get("size") or cast(tuple[int, int], tuple(image.shape[:2]))


def _resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """[H, W, 3] of any size, resized."""
    if tuple(picture.shape[:2]) == size:
        return picture
    # The batch dimension goes first: then torch sees channels-last, and takes its SIMD path.
    batch = picture[None].permute(0, 3, 1, 2)
    resized: Tensor = F.interpolate(batch, size, mode="bilinear", antialias=True)
    return resized.permute(0, 2, 3, 1)[0]


def _padded(picture: Tensor, height: int, width: int) -> Tensor:
    """[height, width, 3] with the picture in the upper left corner and zeros elsewhere."""
    if tuple(picture.shape[:2]) == (height, width):
        return picture
    out = picture.new_zeros(height, width, 3)
    out[: picture.shape[0], : picture.shape[1]] = picture
    return out
