"""Comparison of an ONNX file with PyTorch."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retinanet.boxes import clip_boxes, decode_boxes
from retinanet.data.transforms import Normalizer, Resizer, Sample, without_boxes
from retinanet.errors import counted
from retinanet.model import RetinaNet
from retinanet.postprocess import DetectionLimits, Detections
from retinanet.tools.onnx_graph import NETWORK_OUTPUTS
from retinanet.weights.checkpoint import Checkpoint

# How far the file may be from PyTorch: two ways to add up the same float32 numbers.
SCORE_TOLERANCE = 1e-4
BOX_TOLERANCE = 0.1  # pixels

# Two boxes may overlap by so nearly the threshold that one side keeps both and the other does not.
MOST_UNLIKE = 0.01  # of the detections


class Case(NamedTuple):
    """A batch of pictures and what PyTorch says of it."""

    pixels: Tensor
    """[B, H, W, 3] uint8."""
    scores: Tensor
    """[B, N, K], of every anchor."""
    boxes: Tensor
    """[B, N, 4], clipped to the pictures."""
    detections: list[Detections]


def cases(
    model: RetinaNet,
    checkpoint: Checkpoint,
    photographs: Sequence[NDArray[np.uint8]],
    limits: DetectionLimits,
) -> Iterator[Case]:
    """Batches of 1, 2 and 3 of each photograph: as trained, and at 1/2 and 1/3 of the size.

    The second are turned by a quarter, the third are upside down; a batch holds mirror images.
    """
    for photograph in photographs:
        for n in (1, 2, 3):
            picture = np.rot90(photograph, n - 1)
            resize = Resizer(max(1, checkpoint.min_side // n), max(1, checkpoint.max_side // n))
            views = [picture, picture[:, ::-1], picture[::-1]][:n]
            samples = [resize(without_boxes(view.copy())) for view in views]
            yield expected(model, samples, limits)


def expected(model: RetinaNet, samples: Sequence[Sample], limits: DetectionLimits) -> Case:
    """Outputs of the model for resized samples of one size."""
    size = H, W = samples[0]["size"]
    pixels = torch.stack([sample["img"][:H, :W] for sample in samples])
    normalise = Normalizer()
    images = torch.stack([normalise(sample)["img"] for sample in samples]).permute(0, 3, 1, 2)
    with torch.inference_mode():
        logits, deltas = model.head_outputs(images)
        anchors = model.anchors(images)[0]
        boxes = clip_boxes(decode_boxes(anchors, deltas, model.config.log_ratio_limits), *size)
        detections = model.detect(images, [size] * len(images), limits)
    return Case(pixels, logits.sigmoid(), boxes, detections)


@dataclass
class Agreement:
    """Largest differences between a file and PyTorch, over all cases."""

    batches: int = 0
    anchors: int = 0
    score: float = 0.0
    """Largest difference of a score."""
    box: float = 0.0
    """Largest difference of a corner, pixels."""
    detections: int = 0
    unlike: int = 0
    """Detections that the other side lacks."""

    def add_network(self, case: Case, found: Sequence[Tensor]) -> None:
        """Compare what the network says of every anchor: scores [B, N, K], boxes [B, N, 4]."""
        scores, boxes = found
        self.batches += 1
        self.anchors += case.scores.shape[:2].numel()
        self.score = max(self.score, largest_difference(scores, case.scores))
        self.box = max(self.box, largest_difference(boxes, case.boxes))

    def add_detections(self, case: Case, found: Sequence[Tensor]) -> None:
        """Compare detections: scores [B, D], labels [B, D], boxes [B, D, 4]."""
        for theirs, *columns in zip(case.detections, *found, strict=True):
            ours = Detections(*columns).only(columns[0] > 0)
            self.detections += len(theirs.scores)
            self.unlike += max(count_unlike(ours, theirs), count_unlike(theirs, ours))

    def holds(self) -> bool:
        """Whether it is all rounding."""
        return (
            self.score <= SCORE_TOLERANCE
            and self.box <= BOX_TOLERANCE
            and self.unlike <= MOST_UNLIKE * self.detections
        )

    def __str__(self) -> str:
        text = (
            f"{self.anchors} anchors in {self.batches} batches, largest difference of a score"
            f" {self.score:.1e}, of a box {self.box:.1e} px"
        )
        alike = max(0, self.detections - self.unlike)
        return text + f"; {alike:,} of {counted(self.detections, 'detection')} alike" * (
            self.detections > 0
        )


def largest_difference(found: Tensor, wanted: Tensor) -> float:
    """Infinite where the shapes differ or a number is none."""
    if found.shape != wanted.shape:
        return float("inf")
    return (found - wanted).abs().nan_to_num(nan=float("inf")).max().item()


def count_unlike(detections: Detections, others: Detections) -> int:
    """Number of detections without one of their label, score and place among others."""
    label = detections.labels[:, None] == others.labels
    score = (detections.scores[:, None] - others.scores).abs() <= SCORE_TOLERANCE
    place = (detections.boxes[:, None] - others.boxes).abs().amax(dim=2) <= BOX_TOLERANCE
    return int((~(label & score & place).any(dim=1)).sum())


def compare(cases: Iterable[Case], network: bytes, detector: bytes | None) -> Agreement:
    """Run an ONNX file that ends in the network's outputs, and perhaps one that detects."""
    sessions = [open_session(content) for content in (network, detector) if content]
    agreement = Agreement()
    for case in cases:
        found = [run(session, case.pixels) for session in sessions]
        agreement.add_network(case, found[0][-len(NETWORK_OUTPUTS) :])
        if detector:
            agreement.add_detections(case, found[1])
    return agreement


def open_session(content: bytes) -> Any:
    """An ONNX file, ready to run on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run(session: Any, pixels: Tensor) -> list[Tensor]:
    """All outputs for a batch [B, H, W, 3]."""
    return [torch.from_numpy(output) for output in session.run(None, {"images": pixels.numpy()})]
