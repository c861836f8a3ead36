"""The detector as an ONNX graph: 8-bit pictures in, boxes in their pixels out.

Number and size of the pictures stay open. It knows nothing of files.
"""

import math
import operator
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

from retinanet.anchors import level_shapes
from retinanet.boxes import clip_boxes, decode_boxes
from retinanet.data.images import padded_size
from retinanet.data.transforms import MEAN, STD
from retinanet.model import RetinaNet
from retinanet.postprocess import DetectionLimits

OPSET = 18
NETWORK_OUTPUTS = ("anchor_scores", "anchor_boxes")
DETECTION_OUTPUTS = ("scores", "labels", "boxes")

# ONNX has the suppression of a whole batch as one operator, torch has not. This one is never run
# here: it stands in the traced program for ONNX's.
torch.library.define(
    "retinanet::suppress",
    "(Tensor boxes, Tensor scores, float nms_threshold, int max_detections) -> Tensor",
)


@torch.library.register_fake("retinanet::suppress")  # type: ignore[untyped-decorator]
def _suppressed(boxes: Tensor, scores: Tensor, nms_threshold: float, max_detections: int) -> Tensor:
    """[D, 3]: image, class and candidate of every box that is kept."""
    D = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty((D, 3), dtype=torch.int64)


class PictureNetwork(nn.Module):
    """The network with all that stands before it but the resizing.

    Args:
        model: a detector in evaluation mode.
    """

    gain: Tensor
    shift: Tensor

    def __init__(self, model: RetinaNet) -> None:
        super().__init__()
        self.model = model
        mean, std = torch.tensor(MEAN), torch.tensor(STD)
        self.register_buffer("gain", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Class probabilities and boxes of every anchor of images [B, H, W, 3] uint8 RGB.

        Returns:
            Scores [B, N, K] and boxes [B, N, 4], clipped to the images.
        """
        logits, boxes, _ = self.network(images)
        return logits.sigmoid(), boxes

    def network(self, images: Tensor) -> tuple[Tensor, Tensor, list[int]]:
        """Logits [B, N, K], boxes [B, N, 4], and how many of the N are each level's."""
        _, H, W, _ = images.shape
        height, width = padded_size(H, W)
        normalised = (images.float() * self.gain + self.shift).permute(0, 3, 1, 2)
        padded = F.pad(normalised, (0, width - W, 0, height - H))
        logits, deltas = self.model.head_outputs(padded)
        anchors = self.model.anchors(padded)[0]
        boxes = decode_boxes(anchors, deltas, self.model.config.log_ratio_limits)
        A = self.model.config.anchors_per_cell
        lengths = [rows * columns * A for rows, columns in level_shapes(height, width)]
        return logits, clip_boxes(boxes, H, W), lengths


class PictureDetector(PictureNetwork):
    """The network and the choice of its best boxes: `postprocess.suppress` and all before it.

    Args:
        model: a detector in evaluation mode.
        limits: thresholds and maximum numbers; both numbers are given.
    """

    def __init__(self, model: RetinaNet, limits: DetectionLimits) -> None:
        super().__init__(model)
        assert limits.candidates_per_level is not None
        assert limits.max_detections is not None
        self.candidates_per_level = limits.candidates_per_level
        self.max_detections = limits.max_detections
        assert isinstance(limits.score_threshold, float)
        self.score_threshold = limits.score_threshold
        self.limits = limits

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The detections of images [B, H, W, 3] uint8 RGB, best first.

        Returns:
            Scores [B, D], labels [B, D] and boxes [B, D, 4], filled up with scores of 0, labels of
            -1 and boxes of 0; then what `PictureNetwork` gives.
        """
        logits, boxes, lengths = self.network(images)
        levels = zip(
            *(torch.split(every, lengths, dim=1) for every in (logits, boxes)), strict=True
        )
        candidates = zip(*(self.candidates(*level) for level in levels), strict=True)
        scores, labels, places = (torch.cat(parts, dim=1) for parts in candidates)
        D = min(self.max_detections, scores.shape[1])
        best, row = self.suppressed(scores, labels, places).topk(D)
        empty = best == 0
        label = labels.gather(1, row).masked_fill(empty, -1)
        place = rows_of(places, row).masked_fill(empty[:, :, None], 0)
        return best, label, place, logits.sigmoid(), boxes

    def candidates(self, logits: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The best pairs of a level's anchors and classes, as `postprocess.best_entries` has them.

        Args:
            logits: [B, N, K].
            boxes: [B, N, 4].

        Returns:
            Scores [B, C], 0 where at or below the threshold; labels [B, C]; boxes [B, C, 4].
        """
        C, K = self.candidates_per_level, logits.shape[2]
        # A small image has fewer pairs than C on a level: it gets as many of score 0 for all.
        logits = F.pad(logits, (0, 0, 0, C), value=-math.inf)
        boxes = F.pad(boxes, (0, 0, 0, C))
        rows = logits.amax(dim=2).topk(C).indices
        best, pair = rows_of(logits, rows).flatten(1).topk(C)
        scores = best.sigmoid()
        scores = scores.masked_fill(scores <= self.score_threshold, 0)
        return scores, pair % K, rows_of(boxes, rows.gather(1, pair // K))

    def suppressed(self, scores: Tensor, labels: Tensor, boxes: Tensor) -> Tensor:
        """Scores [B, C] of the candidates that suppression keeps; 0 for the others."""
        of_group = scores[:, None]  # [B, 1, C]
        if not self.limits.class_agnostic_nms:
            classes = torch.arange(self.model.config.num_classes)
            of_group = of_group * (labels[:, None] == classes[:, None])  # [B, K, C]
        image, _, row = torch.ops.retinanet.suppress(
            boxes, of_group, self.limits.nms_threshold, self.max_detections
        ).unbind(1)
        flat, place = scores.flatten(), image * scores.shape[1] + row
        return torch.zeros_like(flat).scatter(0, place, flat.gather(0, place)).view_as(scores)


def rows_of(values: Tensor, rows: Tensor) -> Tensor:
    """The rows [B, D] of each image's values [B, N, X]: [B, D, X]."""
    return values.gather(1, rows[:, :, None].expand(-1, -1, values.shape[2]))


def export_graph(module: PictureNetwork, outputs: Sequence[str]) -> "torch.onnx.ONNXProgram":
    """Trace a module for batches [B, H, W, 3] of any B, H and W from 1 up.

    Args:
        module: gives these outputs.
        outputs: their names.
    """
    example = torch.zeros(2, 320, 416, 3, dtype=torch.uint8)
    open_sizes = ({0: Dim.DYNAMIC, 1: Dim.DYNAMIC, 2: Dim.DYNAMIC},)
    with warnings.catch_warnings(), torch.no_grad():
        # Strict tracing looks through the cache of anchors, which it warns of.
        warnings.simplefilter("ignore")
        program = torch.export.export(
            module.eval(), (example,), dynamic_shapes=open_sizes, strict=True
        )
        converted = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            input_names=["images"],
            output_names=list(outputs),
            custom_translation_table=translations(),
        )
    assert converted is not None
    graph = converted.model.graph
    name_sizes(graph.inputs, "BHW")
    name_sizes(graph.outputs, "BN")
    for node in graph:
        node.metadata_props.clear()  # stack traces, with paths of this machine
    return converted


def name_sizes(values: Sequence[Any], names: str) -> None:
    """Give the open sizes of a graph's inputs or outputs names, axis by axis."""
    for value in values:
        for axis, name in enumerate(names):
            if not isinstance(value.shape[axis], int):
                value.shape[axis] = name


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Operators that torch's exporter does not know or gets wrong, in ONNX."""
    from onnxscript import opset18

    op: Any = opset18

    def floor_divide(number: Any, divisor: Any) -> Any:
        # ONNX's division rounds towards zero: -(-height // 8) would come out a row short.
        return op.Div(op.Sub(number, op.Mod(number, divisor)), divisor)

    def suppress(boxes: Any, scores: Any, nms_threshold: float, max_detections: int) -> Any:
        return op.NonMaxSuppression(
            boxes,
            scores,
            op.Constant(value_int=max_detections),
            op.Constant(value_float=nms_threshold),
            op.Constant(value_float=0.0),
        )

    return {operator.floordiv: floor_divide, torch.ops.retinanet.suppress.default: suppress}
