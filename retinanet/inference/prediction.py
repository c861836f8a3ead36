"""Detections of a data set or a stream of images, in pixels of their files.

It knows nothing of metrics.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice, zip_longest
from typing import Any, Protocol, cast

import torch
from torch import nn
from torch.utils.data import Dataset

from retinanet.boxes import clip_boxes
from retinanet.data.loading import Loader
from retinanet.data.transforms import Sample
from retinanet.errors import DataError
from retinanet.inference.batching import (
    Item,
    Key,
    Value,
    batches_of_one_shape,
    in_order,
    loaded_ahead,
)
from retinanet.inference.tiles import Tiling, detect_tiled
from retinanet.model import RetinaNet
from retinanet.postprocess import (
    DEFAULT_LIMITS,
    DetectionLimits,
    Detections,
)
from retinanet.runtime.console import progress as progress_bar
from retinanet.runtime.device import backend
from retinanet.runtime.distributed import gather, rank_and_world_size

NOTHING = Detections(torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
WINDOW = 8  # batches whose samples wait for others of their shape


class SampleDataset(Protocol):
    """Whatever gives samples by their number; only `img` must be in them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


class SampleLoader:
    """The samples of a data set that fall to this process, those of one shape together.

    Its loader processes stay from one pass to the next.

    Args:
        dataset: gives normalised samples.
        workers: processes that load samples; 0 loads them in this one.
        pin_memory: for copies to a GPU.
    """

    def __init__(self, dataset: SampleDataset, *, workers: int = 0, pin_memory: bool) -> None:
        self.order = own_part(loading_order(dataset))
        self.total = len(dataset)
        self._loader = Loader(
            cast(Dataset[Sample], dataset),
            batch_size=None,
            sampler=self.order,
            workers=workers,
            collate=as_loaded,
            pin_memory=pin_memory,
        )

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[tuple[int, Sample]]:
        """Each index with its sample."""
        return zip(self.order, self._loader, strict=True)


def predict(
    model: nn.Module,
    dataset: SampleDataset | SampleLoader,
    limits: DetectionLimits = DEFAULT_LIMITS,
    *,
    batch_size: int = 4,
    workers: int = 0,
    autocast: torch.dtype | None = None,
    progress: bool = False,
    tiling: Tiling | None = None,
    unreadable: dict[int, str] | None = None,
) -> list[Detections]:
    """Detect the objects in every sample of a data set, on the device of the model.

    Under torchrun every process takes a part, and all get the whole result.

    A batch holds samples of one padded shape only, so that each image sees the same zeros beyond
    its border as it would alone.

    Args:
        model: a `RetinaNet`, bare or inside a wrapper (of whose devices the first is used); its
            training flags come back as they were.
        dataset: gives normalised samples, or decoded ones where there is a tiling; or its loader,
            to be used again.
        limits: thresholds and maximum numbers.
        batch_size: images at a time, at most.
        workers: of a loader that is made here.
        autocast: float type of the network's convolutions; None leaves them in that of the weights.
        progress: whether to show a bar.
        tiling: how images are cut into tiles, if they are.
        unreadable: takes in the reasons for which samples could not be read, by index, where the
            data set skips these; None: the first one is raised.

    Returns:
        One `Detections` an image, in the order of the data set, on the CPU; boxes in float32 pixels
        of the file, clipped to it. None are found in a sample that could not be read.
    """
    if not isinstance(dataset, SampleLoader):
        pin_memory = backend(_network(model)[1]).pinned
        dataset = SampleLoader(dataset, workers=workers, pin_memory=pin_memory)
    loaded: Iterable[tuple[int, Sample]] = dataset
    if progress:
        loaded = progress_bar(loaded, total=len(dataset), desc="detect")
    found: dict[int, Detections] = {}
    errors: dict[int, str] = {}
    for index, result in detect_samples(
        model, loaded, limits, batch_size=batch_size, autocast=autocast, tiling=tiling
    ):
        if isinstance(result, DataError):
            if unreadable is None:
                raise result
            found[index], errors[index] = NOTHING, str(result)
        else:
            found[index] = result
    for part, part_errors in gather((found, errors)):
        found.update(part)
        errors.update(part_errors)
    if unreadable is not None:
        unreadable.update(sorted(errors.items()))
    return [found[index] for index in range(dataset.total)]


def predict_stream(
    model: nn.Module,
    items: Iterable[Item],
    load: Callable[[Item], Sample],
    limits: DetectionLimits = DEFAULT_LIMITS,
    *,
    batch_size: int = 4,
    threads: int = 0,
    autocast: torch.dtype | None = None,
    tiling: Tiling | None = None,
) -> Iterator[tuple[Item, Detections | DataError]]:
    """Detect the objects in images that are loaded as they are wanted, however many they are.

    Memory holds a window of some batches. An image that cannot be loaded stops nothing. Under
    torchrun every process must be given the same items; it takes a part, and all get all results.

    Args:
        model: as `predict` takes it.
        items: paths, numbers: whatever names an image.
        load: the normalised sample of an item, or the decoded one where there is a tiling.
        limits: thresholds and maximum numbers.
        batch_size: images at a time, at most.
        threads: that load; 0 loads in this one.
        autocast: as `predict` takes it.
        tiling: as `predict` takes it.

    Yields:
        Each item in its order, with its detections as `predict` gives them, or with the error.
    """

    def load_or_say(item: tuple[int, Item]) -> Sample:
        try:
            return load(item[1])
        except DataError as error:
            return {"unreadable": str(error)}

    rank, world_size = rank_and_world_size()
    loaded = loaded_ahead(enumerate(islice(items, rank, None, world_size)), load_or_say, threads)
    found = in_order(
        detect_samples(
            model,
            loaded,
            limits,
            batch_size=batch_size,
            window=WINDOW * batch_size,
            autocast=autocast,
            tiling=tiling,
        )
    )
    return found if world_size == 1 else _of_all_processes(found, WINDOW * batch_size)


def _of_all_processes(own: Iterator[Value], count: int) -> Iterator[Value]:
    """The results of all processes in turn, exchanged after every `count` of each."""
    while any(parts := gather(list(islice(own, count)))):
        for row in zip_longest(*parts):
            yield from (value for value in row if value is not None)


def detect_samples(
    model: nn.Module,
    loaded: Iterable[tuple[Key, Sample]],
    limits: DetectionLimits,
    *,
    batch_size: int,
    window: int | None = None,
    autocast: torch.dtype | None = None,
    tiling: Tiling | None = None,
) -> Iterator[tuple[Key, Detections | DataError]]:
    """Detect the objects in samples as they come.

    Args:
        model: as `predict` takes it.
        loaded: samples, each with a key.
        limits: thresholds and maximum numbers.
        batch_size: samples at a time, at most, all of one shape.
        window: how many later samples one waits for others of its shape; a batch's by default.
        autocast: as `predict` takes it.
        tiling: as `predict` takes it.

    Yields:
        Each key with detections in pixels of the file, on the CPU, batch by batch; or with the
        error of a sample that could not be read.
    """
    if tiling:
        detect = partial(
            detect_samples, model, limits=limits, batch_size=batch_size, window=window,
            autocast=autocast,
        )  # fmt: skip
        yield from detect_tiled(loaded, tiling, limits, detect)
        return
    for group in batches_of_one_shape(loaded, batch_size, window or batch_size):
        if message := group[0][1].get("unreadable"):
            yield group[0][0], DataError(message)
            continue
        batch = _detect([sample for _, sample in group], model, limits, autocast)
        for (key, sample), detections in zip(group, batch, strict=True):
            yield key, to_original(detections, sample)


def _detect(
    samples: Sequence[Sample],
    model: nn.Module,
    limits: DetectionLimits,
    autocast: torch.dtype | None,
) -> list[Detections]:
    """Detections of samples of one shape, in pixels of the network's input."""
    network, device = _network(model)
    with torch.inference_mode(), evaluation_mode(model):
        # Copied one by one: a stack of pinned tensors would not be pinned. [B, H, W, 3] seen as
        # [B, 3, H, W] is channels_last as it lies.
        images = [sample["img"].to(device, non_blocking=True) for sample in samples]
        # Scores, boxes and suppression are float32 nevertheless: see `RetinaNet.detect`.
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            return network.detect(
                torch.stack(images).permute(0, 3, 1, 2), list(map(picture_size, samples)), limits
            )


def _network(model: nn.Module) -> tuple[RetinaNet, torch.device]:
    """The detector inside a wrapper, if there is one, and the device it is on."""
    network = cast(RetinaNet, getattr(model, "module", model))
    return network, next(network.parameters()).device


def own_part(order: list[int]) -> list[int]:
    """The stretch of an order that falls to this process, where several evaluate together."""
    rank, world_size = rank_and_world_size()
    return order[rank * len(order) // world_size : (rank + 1) * len(order) // world_size]


def loading_order(dataset: Any) -> list[int]:
    """Indices by aspect ratio, where the data set knows it: images of one shape come together."""
    aspect_ratio = getattr(dataset, "image_aspect_ratio", None)
    return sorted(range(len(dataset)), key=aspect_ratio)


def as_loaded(sample: Any) -> Any:
    """A collate function that leaves a sample alone (torch's own makes lists of its tuples)."""
    return sample


def picture_size(sample: Sample) -> tuple[int, int]:
    """(height, width) of the picture inside `img`; all of `img` where the sample does not say."""
    H, W, _ = sample["img"].shape
    return sample.get("size", (H, W))


def to_original(detections: Detections, sample: Sample) -> Detections:
    """Detections in pixels of the network's input as detections in pixels of the file, on the CPU.

    Sizes are whole numbers, so the two sides were scaled by slightly different factors. Those are
    used where the sample knows the size of its file, else the one `scale`.
    """
    height, width = picture_size(sample)
    scale = sample.get("scale", 1.0)
    scaled_back = (round(height / scale), round(width / scale))
    file_height, file_width = sample.get("original_size", scaled_back)
    x_ratio, y_ratio = file_width / width, file_height / height
    scores, labels, boxes = (tensor.cpu() for tensor in detections)
    boxes = boxes.float() * boxes.new_tensor((x_ratio, y_ratio, x_ratio, y_ratio))
    return Detections(scores.float(), labels, clip_boxes(boxes, file_height, file_width))


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode for a while.

    Afterwards every part has its own flag again: `train()` would also unfreeze batch norm, and
    scripts set the wrapper's flag alone.
    """
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, flag in training:
            module.training = flag
