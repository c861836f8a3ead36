"""A checkpoint as an ONNX file, written only if it gives what PyTorch gives."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import skimage.data
import torch
from numpy.typing import NDArray
from torch import Tensor

from retinanet import __version__, cli
from retinanet.boxes import clip_boxes, decode_boxes
from retinanet.checkpoint import Checkpoint, load_checkpoint
from retinanet.dataloader import Normalizer, Resizer, Sample
from retinanet.errors import DataError
from retinanet.files import write_whole
from retinanet.flags import Parser, add_detection_flags, detection_limits
from retinanet.images import image_files, read_image
from retinanet.logger import say
from retinanet.model import RetinaNet
from retinanet.postprocess import Detections
from retinanet.tools.onnx_graph import (
    DETECTION_OUTPUTS,
    NETWORK_OUTPUTS,
    OPSET,
    PictureDetector,
    PictureNetwork,
    export_graph,
)

PACKAGES = ("onnx", "onnxruntime", "onnxscript")

# How far the file may be from PyTorch: two ways to add up the same float32 numbers.
SCORE_TOLERANCE = 1e-4
BOX_TOLERANCE = 0.1  # pixels
# Two boxes may overlap by so nearly the threshold that one side keeps both and the other does not.
MOST_UNLIKE = 0.01  # of the detections

INPUT = (
    "images: uint8 [B, H, W, 3], RGB, upright; B, H and W are free. Resize a picture so that its"
    " shorter side is min_side pixels, or its longer side max_side where that makes it smaller"
    " (bilinear, antialiased). Nothing else: normalisation and padding are inside."
)
OUTPUT = {
    False: "anchor_scores [B, N, K]: probabilities; anchor_boxes [B, N, 4]: x1, y1, x2, y2 in"
    " pixels of images, clipped to them. Non-maximum suppression is up to you.",
    True: "scores [B, D], best first; labels [B, D]; boxes [B, D, 4]: x1, y1, x2, y2 in pixels of"
    " images, clipped to them. Rows that hold no detection have score 0 and label -1.",
}


def parser() -> Parser:
    """The flags of the export."""
    result = Parser("Write a detector as an ONNX file, compared with PyTorch on photographs.")
    result.add_argument("file", metavar="MODEL", help="a saved .pt")
    result.add_argument("output", metavar="OUT", type=Path, help="the .onnx to write")
    result.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    result.add_argument(
        "--images",
        nargs="+",
        metavar="PATH",
        help="what to compare on: images, folders, patterns (three photographs)",
    )
    result.add_argument(
        "--no_nms",
        action="store_true",
        help="give all anchors' scores and boxes; detection flags are unused",
    )
    add_detection_flags(result)
    return result


@cli.script
def main(argv: Sequence[str] | None = None) -> None:
    """Export, compare, write."""
    args = parser().parse(argv)
    check_packages()
    check_output(args.output, overwrite=args.overwrite)
    checkpoint = load_checkpoint(args.file)
    photographs = read_photographs(args.images)
    limits = detection_limits(args)
    model = checkpoint.build(torch.device("cpu"))

    say(f"Exporting {args.file}; this takes about a minute")
    nms = not args.no_nms
    module = PictureDetector(model, **limits) if nms else PictureNetwork(model)
    outputs = DETECTION_OUTPUTS + NETWORK_OUTPUTS if nms else NETWORK_OUTPUTS
    program = export_graph(module, outputs)
    program.model.metadata_props.update(metadata(args, checkpoint, limits))
    network = content = program.model_proto.SerializeToString()
    if nms:  # what the network itself says is compared, but no part of the file
        del program.model.graph.outputs[len(DETECTION_OUTPUTS) :]
        program.optimize()
        content = program.model_proto.SerializeToString()

    batches = cases(model, checkpoint, photographs, limits)
    agreement = compare(batches, network, content if nms else None)
    write(args.output, content, agreement)
    say(f"Compared with PyTorch: {agreement}")
    say(f"Written: {args.output}, opset {OPSET}, {len(content) / 1e6:.0f} MB")
    say(f"  in: {INPUT}\n  out: {OUTPUT[nms]}")


# ---- before ----


def check_packages() -> None:
    """Refuse to begin without what the export needs."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise DataError(f"the export needs {', '.join(missing)}; pip install {' '.join(missing)}")


def check_output(path: Path, *, overwrite: bool) -> None:
    """Refuse a name that is no ONNX file's, or one that is taken."""
    if path.suffix != ".onnx":
        raise DataError(f"{path}: expected a name that ends in .onnx")
    if path.exists() and not overwrite:
        raise DataError(f"{path}: it exists; pass --overwrite or choose another name")


def read_photographs(paths: Sequence[str] | None) -> list[NDArray[np.uint8]]:
    """[H, W, 3] RGB each: of these files, or three that come with scikit-image."""
    if paths is None:
        return [skimage.data.astronaut(), skimage.data.chelsea(), skimage.data.coffee()]
    return [read_image(file) for path in paths for file in image_files(path)]


def metadata(
    args: argparse.Namespace, checkpoint: Checkpoint, limits: dict[str, Any]
) -> dict[str, str]:
    """What the file says of itself: texts for people, and JSON."""
    facts = {
        "class_names": checkpoint.names,
        "min_side": checkpoint.min_side,
        "max_side": checkpoint.max_side,
        "retinanet_version": __version__,
        **({} if args.no_nms else limits),
    }
    texts = {"input": INPUT, "output": OUTPUT[not args.no_nms]}
    return texts | {name: json.dumps(fact) for name, fact in facts.items()}


# ---- comparison ----


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
    limits: dict[str, Any],
) -> Iterator[Case]:
    """Batches of 1, 2 and 3 of each photograph: as trained, and at 1/2 and 1/3 of the size.

    The second are turned by a quarter, the third are upside down; a batch holds mirror images.
    """
    for photograph in photographs:
        for n in (1, 2, 3):
            picture = np.rot90(photograph, n - 1)
            resize = Resizer(max(1, checkpoint.min_side // n), max(1, checkpoint.max_side // n))
            views = [picture, picture[:, ::-1], picture[::-1]][:n]
            samples: list[Sample] = [
                {"img": torch.from_numpy(view.copy()), "annot": torch.zeros(0, 5)} for view in views
            ]
            yield expected(model, [resize(sample) for sample in samples], limits)


def expected(model: RetinaNet, samples: Sequence[Sample], limits: dict[str, Any]) -> Case:
    """What the model says of resized samples of one size."""
    size = H, W = samples[0]["size"]
    pixels = torch.stack([sample["img"][:H, :W] for sample in samples])
    normalise = Normalizer()
    images = torch.stack([normalise(sample)["img"] for sample in samples]).permute(0, 3, 1, 2)
    with torch.inference_mode():
        logits, deltas = model.predict(images)
        anchors = model.anchors(images)[0]
        boxes = clip_boxes(decode_boxes(anchors, deltas, model.config.log_ratio_limits), *size)
        detections = model.detect(images, [size] * len(images), **limits)
    return Case(pixels, logits.sigmoid(), boxes, detections)


@dataclass
class Agreement:
    """How far a file is from PyTorch, over all cases."""

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
            ours = Detections(*(column[columns[0] > 0] for column in columns))
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
        return text + f"; {alike} of {self.detections} detections alike" * (self.detections > 0)


def largest_difference(found: Tensor, wanted: Tensor) -> float:
    """Infinite where the shapes differ or a number is none."""
    if found.shape != wanted.shape:
        return float("inf")
    return (found - wanted).abs().nan_to_num(nan=float("inf")).max().item()


def count_unlike(detections: Detections, others: Detections) -> int:
    """How many detections have none of their label, score and place among others."""
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


def write(path: Path, content: bytes, agreement: Agreement) -> None:
    """Write the file, if it is what PyTorch agrees with.

    Raises:
        DataError: it is not, or the disk is full or not writable.
    """
    if not agreement.holds():
        raise DataError(
            f"{path}: not written: onnxruntime and PyTorch disagree: {agreement};"
            f" try other versions of {', '.join(PACKAGES)}"
        )
    write_whole(path, content)


if __name__ == "__main__":
    sys.exit(main())
