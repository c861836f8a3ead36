"""Samples to batches: the sampler, the index that knows its epoch, and the collater."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypedDict, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from retinanet.data.loading import Loader
from retinanet.data.transforms import Sample, random_stream
from retinanet.errors import DataError
from retinanet.runtime.distributed import rank_and_world_size

BINS_PER_OCTAVE = 8  # of aspect ratio


class SampleIndex(int):
    """The index of a sample that also knows its epoch, also on the way into a loader worker."""

    epoch: int

    def __new__(cls, index: int, epoch: int) -> "SampleIndex":
        """Make index `index` of epoch `epoch`."""
        made = super().__new__(cls, index)
        made.epoch = epoch
        return made

    def __getnewargs__(self) -> tuple[int, int]:  # type: ignore[override]
        return int(self), self.epoch


class AspectRatioSource(Protocol):
    """The part of a data set that the sampler needs."""

    def __len__(self) -> int: ...

    def image_aspect_ratio(self, image_index: int) -> float:
        """Width / height."""
        ...


class AspectRatioBasedSampler(Sampler[list[int]]):
    """Batches of images of like shape, shuffled anew every epoch as (seed, epoch) say.

    The images are shuffled, sorted by aspect ratio in bins of 1/8 octave, and cut into batches,
    which are shuffled. Nothing is repeated. The epoch is the number of passes begun before, unless
    `set_epoch` says otherwise. Processes that train together cut joint batches and take a share
    each, which may be empty where the last batch is a small one.

    Args:
        data_source: a data set.
        batch_size: images of a batch, of each process.
        drop_last: leave out, at random, the images that make no whole batch.
        seed: what the order depends on besides the epoch.
        rank: which of the processes that train together this is.
        world_size: how many they are.
    """

    def __init__(
        self,
        data_source: AspectRatioSource,
        batch_size: int,
        drop_last: bool = False,
        seed: int = 0,
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1:
            raise DataError(f"batch size {batch_size}; expected at least 1; correct --batch_size")
        ratios = [data_source.image_aspect_ratio(k) for k in range(len(data_source))]
        # Rounded, so that the common shapes (1:1, 4:3, 16:9) lie inside a bin and not on its edge.
        self._bins = np.rint(BINS_PER_OCTAVE * np.log2(ratios)).astype(int)
        self._joint_size = batch_size * world_size
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.seed = seed
        self.rank, self.world_size = rank, world_size
        self.epoch, self.first_batch = 0, 0

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Set the epoch of the next pass, and the batch that it begins with."""
        self.epoch, self.first_batch = epoch, first_batch

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        count = len(self._bins)
        return count // self._joint_size if self.drop_last else -(-count // self._joint_size)

    def __iter__(self) -> Iterator[list[int]]:
        # A generator: a loader with workers makes two iterators a pass, and begins one.
        epoch, first_batch = self.epoch, self.first_batch
        self.set_epoch(epoch + 1)
        stream = random_stream("shuffle", self.seed, epoch)
        order = stream.permutation(len(self._bins))[: len(self) * self._joint_size]
        order = order[np.argsort(self._bins[order], kind="stable")]
        for batch in stream.permutation(len(self)).tolist()[first_batch:]:
            joint = order[batch * self._joint_size : (batch + 1) * self._joint_size]
            share = np.array_split(joint, self.world_size)[self.rank]
            yield [SampleIndex(index, epoch) for index in share.tolist()]


class Batch(TypedDict, total=False):
    """Samples of one batch, padded to the largest."""

    img: Tensor  # [B, 3, H, W] float32, channels last in memory
    annot: Tensor  # [B, M, 5] x1, y1, x2, y2, label; rows of -1 where an image has fewer than M
    scale: list[float]
    size: list[tuple[int, int]]  # these three where all samples have them
    original_size: list[tuple[int, int]]
    index: list[int]
    unreadable: list[str]  # what is wrong with images that were left out


def collater(samples: Sequence[Sample]) -> Batch:
    """Stack normalised samples: zeros right of and below each image, M at least 1, B perhaps 0."""
    unreadable = [sample["unreadable"] for sample in samples if "unreadable" in sample]
    samples = [sample for sample in samples if "unreadable" not in sample]
    images = [torch.as_tensor(sample["img"]) for sample in samples]
    annots = [torch.as_tensor(sample["annot"]) for sample in samples]
    height, width = (max((image.shape[axis] for image in images), default=32) for axis in (0, 1))
    img = torch.zeros(len(images), height, width, 3)
    annot = torch.full((len(annots), max([1, *map(len, annots)]), 5), -1.0)
    for k, (image, boxes) in enumerate(zip(images, annots, strict=True)):
        img[k, : image.shape[0], : image.shape[1]] = image
        annot[k, : len(boxes)] = boxes
    batch: Batch = {
        "img": img.permute(0, 3, 1, 2),
        "annot": annot,
        "scale": [sample.get("scale", 1.0) for sample in samples],
        "unreadable": unreadable,
    }
    more: dict[str, Any] = {
        key: [sample[key] for sample in samples]
        for key in ("size", "original_size", "index")
        if all(key in sample for sample in samples)
    }
    return cast(Batch, {**batch, **more})


class TrainingBatches:
    """Batches of every epoch, from loader processes that stay for the whole run.

    Under torchrun each process gets its share of joint batches.

    Args:
        dataset: an `AspectRatioSource` that gives the samples.
        batch_size: images of a batch, of each process.
        seed: of the order.
        workers: loader processes of each process; 0 loads in this one.
        pin_memory: for copies to a GPU.
    """

    def __init__(
        self, dataset: Any, batch_size: int, *, seed: int, workers: int, pin_memory: bool
    ) -> None:
        rank, world_size = rank_and_world_size()
        self.samples = dataset
        self._sampler = AspectRatioBasedSampler(
            dataset, batch_size, seed=seed, rank=rank, world_size=world_size
        )
        self._loader = Loader(
            dataset,
            batch_sampler=self._sampler,
            collate=collater,
            workers=workers,
            pin_memory=pin_memory,
        )

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return len(self._sampler)

    def of_epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from one of them on."""
        self._sampler.set_epoch(epoch, first_batch)
        return iter(self._loader)
