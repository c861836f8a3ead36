"""A checkpoint as an ONNX file, written only if it gives what PyTorch gives."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import skimage.data
import torch
from numpy.typing import NDArray

from retinanet import __version__
from retinanet.cli.flags import add_detection_flags, detection_limits
from retinanet.cli.parser import Parser
from retinanet.cli.script import script
from retinanet.data.images import image_files, read_image
from retinanet.errors import DataError
from retinanet.postprocess import DetectionLimits
from retinanet.runtime.console import say
from retinanet.runtime.files import check_output_dir, write_whole
from retinanet.tools.onnx_compare import Agreement, cases, compare
from retinanet.tools.onnx_graph import (
    DETECTION_OUTPUTS,
    NETWORK_OUTPUTS,
    OPSET,
    PictureDetector,
    PictureNetwork,
    export_graph,
)
from retinanet.weights.checkpoint import Checkpoint, load_checkpoint

PACKAGES = ("onnx", "onnxruntime", "onnxscript")

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


@script
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
    module = PictureDetector(model, limits) if nms else PictureNetwork(model)
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
    write(args.output, content, agreement, overwrite=args.overwrite)
    say(f"Compared with PyTorch: {agreement}")
    say(f"Written: {args.output}, opset {OPSET}, {len(content) / 1e6:.0f} MB")
    say(f"  in: {INPUT}\n  out: {OUTPUT[nms]}")
    say(f"  score_thresholds: {checkpoint.threshold_note}")


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
    check_output_dir(path.parent, "choose another OUT")


def read_photographs(paths: Sequence[str] | None) -> list[NDArray[np.uint8]]:
    """[H, W, 3] RGB each: of these files, or three that come with scikit-image."""
    if paths is None:
        return [skimage.data.astronaut(), skimage.data.chelsea(), skimage.data.coffee()]
    return [read_image(file) for path in paths for file in image_files(path)]


def metadata(
    args: argparse.Namespace, checkpoint: Checkpoint, limits: DetectionLimits
) -> dict[str, str]:
    """Metadata of the file: texts for people, and JSON."""
    facts = {
        "class_names": checkpoint.names,
        "min_side": checkpoint.min_side,
        "max_side": checkpoint.max_side,
        "score_thresholds": checkpoint.score_threshold,
        "retinanet_version": __version__,
        **({} if args.no_nms else asdict(limits)),
    }
    texts = {"input": INPUT, "output": OUTPUT[not args.no_nms]}
    return texts | {name: json.dumps(fact) for name, fact in facts.items()}


def write(path: Path, content: bytes, agreement: Agreement, *, overwrite: bool) -> None:
    """Write the file, if it is what PyTorch agrees with.

    Raises:
        DataError: it is not, or the disk is full or not writable.
    """
    if not agreement.holds():
        raise DataError(
            f"{path}: not written: onnxruntime and PyTorch disagree: {agreement};"
            f" try other versions of {', '.join(PACKAGES)}"
        )
    write_whole(path, content, overwrite=overwrite)


if __name__ == "__main__":
    sys.exit(main())
