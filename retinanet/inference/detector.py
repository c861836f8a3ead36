"""A trained detector in Python: images in, numpy arrays in pixels of those images out."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from retinanet.data.images import read_image
from retinanet.data.transforms import Sample, evaluation_transform, without_boxes
from retinanet.errors import DataError
from retinanet.inference.prediction import predict_stream
from retinanet.inference.tiles import Tiling
from retinanet.postprocess import DEFAULT_LIMITS, DetectionLimits, Detections
from retinanet.runtime.console import progress as progress_bar
from retinanet.runtime.device import start_runtime
from retinanet.weights.checkpoint import load_checkpoint

ImageInput = str | Path | Image.Image | NDArray[np.uint8] | Tensor


@dataclass(frozen=True, eq=False)
class Result:
    """Detections of one image, best first; its length is their number D."""

    boxes: NDArray[np.float32]
    """[D, 4] xyxy, pixels of the image, clipped to it."""
    scores: NDArray[np.float32]
    """[D] probabilities."""
    labels: NDArray[np.int64]
    """[D] classes."""
    names: NDArray[np.str_]
    """[D] their names."""

    def __len__(self) -> int:
        return len(self.scores)

    def to_supervision(self) -> Any:
        """As `supervision.Detections`, with the names under `data["class_name"]`.

        Raises:
            ImportError: supervision is not installed.
        """
        import supervision  # a package for drawing, tracking and counting; not needed otherwise

        return supervision.Detections(
            xyxy=self.boxes,
            confidence=self.scores,
            class_id=self.labels,
            data={"class_name": self.names},
        )

    def to_coco(
        self, image_id: int | str, category_ids: Mapping[str, int] | None = None
    ) -> list[dict[str, Any]]:
        """As records of COCO's results format, in plain numbers.

        Args:
            image_id: of the image.
            category_ids: by class name; label + 1 where left out.
        """
        columns = (self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), self.names)
        return [
            {
                "image_id": image_id,
                "category_id": category_ids[str(name)] if category_ids else label + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": score,
            }
            for (x1, y1, x2, y2), score, label, name in zip(*columns, strict=True)
        ]


class Detector:
    """A saved model with all that stands between an image and its boxes.

    Called with an image it gives a `Result`, with a list of images a list of them; `stream` takes
    any number of images and gives results as they come. An image is

    - a path: the file is turned upright, as its EXIF orientation says;
    - a PIL image, a numpy array [H, W, 3] or [H, W], a tensor [3, H, W] or [1, H, W]: uint8, RGB or
      grey, taken as it lies.

    Under torchrun all processes must be given the same images, and share the work.

    The settings from `score_threshold` on are attributes and may be changed.

    Args:
        path: any file that `checkpoint.load_checkpoint` reads.
        device: "auto" (a GPU if there is one), or any name that torch knows.
        precision: fp32, bf16, fp16, or auto: bf16 where the hardware multiplies it.
        score_threshold: scores at or below it are dropped; as an attribute also one of each class.
            None: where the F1 of each class was best on the validation data, if the file says, as
            `train.py` writes it; else 0.5.
        nms_threshold: IoU with a better box of its class above which a box is dropped.
        candidates_per_level: maximum number of pairs of anchor and class before suppression; None:
            all.
        max_detections: maximum number of detections of an image; None: all.
        class_agnostic_nms: let a box be dropped for a better one of any class.
        batch_size: images at a time, at most; those of one shape go together.
        tile: side of the tiles that larger images are cut into, pixels; 0 does not cut, None cuts
            as the model was trained.
        tile_overlap: least part of it that neighbours share: as large as most objects; None: as
            the model was trained, else 0.2.

    Raises:
        DataError: the file is no detector, or there is no such device.
    """

    def __init__(
        self,
        path: str | Path,
        device: str = "auto",
        *,
        precision: str = "fp32",
        score_threshold: float | None = None,
        nms_threshold: float = DEFAULT_LIMITS.nms_threshold,
        candidates_per_level: int | None = DEFAULT_LIMITS.candidates_per_level,
        max_detections: int | None = DEFAULT_LIMITS.max_detections,
        class_agnostic_nms: bool = DEFAULT_LIMITS.class_agnostic_nms,
        batch_size: int = 4,
        tile: int | None = None,
        tile_overlap: float | None = None,
    ) -> None:
        checkpoint = load_checkpoint(path)
        runtime = start_runtime(device, precision)
        self.class_names = checkpoint.names
        self.model = checkpoint.build(runtime.device)
        self.autocast = runtime.autocast
        self.transform = evaluation_transform(checkpoint.min_side, checkpoint.max_side)
        self.score_threshold = (
            checkpoint.score_threshold if score_threshold is None else score_threshold
        )
        self._stored = checkpoint.score_threshold, checkpoint.threshold_note
        self.nms_threshold = nms_threshold
        self.candidates_per_level = candidates_per_level
        self.max_detections = max_detections
        self.class_agnostic_nms = class_agnostic_nms
        self.batch_size = batch_size
        self.tile = checkpoint.tile if tile is None else tile
        self.tile_overlap = checkpoint.tile_overlap if tile_overlap is None else tile_overlap

    def __repr__(self) -> str:
        """The network and the score thresholds in use, and where these are from."""
        stored, note = self._stored
        if self.score_threshold != stored:
            note = f"Score threshold {self.score_threshold}"
        return f"<Detector: {self.model.config.title}. {note}.>"

    @overload  # a path is a sequence too, of letters, and no list of images
    def __call__(self, images: ImageInput) -> Result: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, images: Sequence[ImageInput]) -> list[Result]: ...

    def __call__(self, images: ImageInput | Sequence[ImageInput]) -> Result | list[Result]:
        """Detect the objects in an image, or in each of a list of images.

        Raises:
            DataError: a file is missing, damaged or no image, or an image is of no kind above.
        """
        pictures = images if isinstance(images, list | tuple) else [cast(ImageInput, images)]
        results = [result for _, result in self.stream(pictures)]
        return results if pictures is images else results[0]

    def stream(
        self,
        images: Iterable[ImageInput],
        *,
        on_bad_image: Literal["error", "skip"] = "error",
        workers: int = 0,
        progress: bool = False,
    ) -> Iterator[tuple[ImageInput, Result]]:
        """Detect the objects in any number of images, taken as they are wanted.

        Memory holds some batches of images, not all: `images` may be a generator without end.

        Args:
            images: of any kind that the detector takes; paths need least memory.
            on_bad_image: skip warns of files that cannot be read and leaves them out.
            workers: threads that decode files ahead.
            progress: whether to show a bar.

        Yields:
            Each image as it was given, and its result, in order.

        Raises:
            DataError: as a call does, when the turn of the image has come.
        """
        numbered: Iterable[tuple[int, ImageInput]] = enumerate(images)
        if progress:
            total = len(images) if isinstance(images, Sized) else None
            numbered = progress_bar(numbered, total=total, desc="detect")
        for (_, image), found in predict_stream(
            self.model,
            numbered,
            self._sample,
            self._limits(),
            batch_size=self.batch_size,
            threads=workers,
            autocast=self.autocast,
            tiling=self._tiling(),
        ):
            if not isinstance(found, DataError):
                yield image, self._named(found)
            elif on_bad_image == "skip":
                warnings.warn(f"skipped: {found}", stacklevel=2)
            else:
                raise found

    def _tiling(self) -> Tiling | None:
        return Tiling(self.tile, self.tile_overlap, self.transform) if self.tile else None

    def _limits(self) -> DetectionLimits:
        return DetectionLimits(
            self.score_threshold,
            self.nms_threshold,
            self.candidates_per_level,
            self.max_detections,
            self.class_agnostic_nms,
        )

    def _sample(self, numbered: tuple[int, ImageInput]) -> Sample:
        """Sample that the network is given of an image, or its pixels where it is cut first.

        Raises:
            DataError: it cannot be read, or is of no kind that the detector takes.
        """
        index, image = numbered
        pixels = read_image(image) if isinstance(image, str | Path) else _rgb_pixels(image)
        if pixels is None:
            raise DataError(
                f"image {index}: {_described(image)}; expected a path, a PIL image of 8 bits,"
                " or uint8 RGB or grey: a numpy array [H, W, 3] or [H, W], a tensor [3, H, W]"
                f"{'; pass what gives images to stream' if isinstance(image, Iterator) else ''}"
            )
        # A copy: torch warns of arrays that must not be written to, as Pillow's.
        sample = without_boxes(pixels.copy())
        return sample if self.tile else self.transform(sample)

    def _named(self, detections: Detections) -> Result:
        scores, labels, boxes = (tensor.numpy() for tensor in detections)
        return Result(boxes, scores, labels, np.array(self.class_names)[labels])


def _rgb_pixels(picture: object) -> NDArray[np.uint8] | None:
    """[H, W, 3] RGB of an image in memory; None if it is none that `Detector` takes."""
    pixels: NDArray[np.generic] = np.empty(0)
    if isinstance(picture, Image.Image):
        # Pillow would cut off, not scale, grey values of more than 8 bits.
        if picture.mode != "F" and not picture.mode.startswith("I"):
            pixels = np.asarray(picture.convert("RGB"))
    elif isinstance(picture, Tensor) and picture.dim() == 3:
        pixels = picture.movedim(0, -1).cpu().numpy()
    elif isinstance(picture, np.ndarray):
        pixels = picture if picture.ndim == 3 else picture[..., None]
    fits = pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] in (1, 3)
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3)) if fits and pixels.size else None


def _described(picture: object) -> str:
    """Kind of an image in memory, for a message."""
    kind = type(picture)
    text = f"{kind.__module__}.{kind.__name__}"
    if isinstance(picture, Image.Image):
        text += f" of mode {picture.mode}"
    elif isinstance(picture, np.ndarray | Tensor):
        text += f" of {str(picture.dtype).removeprefix('torch.')} {list(picture.shape)}"
    return text


load = Detector  # as `retinanet.load`
