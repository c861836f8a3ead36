"""Detect objects with an exported model: numpy, Pillow and onnxruntime, no PyTorch.

python -m retinanet.tools.export model_final.pt model.onnx
python examples/onnx_detect.py model.onnx photo.jpg another.jpg
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def as_rgb(picture: Image.Image) -> Image.Image:
    """8 bits RGB. Grey of more bits is scaled, where Pillow's own conversion would cut it off."""
    if not picture.mode.startswith("I"):
        return picture.convert("RGB")
    values = np.asarray(picture).astype(np.float32)
    white = next((2**bits - 1 for bits in (8, 10, 12, 14) if values.max() < 2**bits), 65535)
    return Image.fromarray((values * (255 / white) + 0.5).astype(np.uint8)).convert("RGB")


def resized(picture: Image.Image, min_side: int, max_side: int) -> Image.Image:
    """The picture with its shorter side at `min_side`, or else its longer one at `max_side`."""
    scale = min(min_side / min(picture.size), max_side / max(picture.size))
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BILINEAR)


def main() -> None:
    """Print a line for each object: path, class, score, corners in pixels of the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="an .onnx written by retinanet.tools.export")
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--score_threshold", type=float, help="the file's, of each class")
    args = parser.parse_args()

    session = onnxruntime.InferenceSession(args.model, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    names, min_side, max_side = (
        json.loads(facts[key]) for key in ("class_names", "min_side", "max_side")
    )
    stored = json.loads(facts["score_thresholds"])  # one of each class, or one for all
    thresholds = np.broadcast_to(
        stored if args.score_threshold is None else args.score_threshold, len(names)
    )
    for path in args.images:
        picture = as_rgb(ImageOps.exif_transpose(Image.open(path)))
        small = resized(picture, min_side, max_side)
        # The network takes several pictures of one size; here it is one, [1, height, width, 3].
        images = np.asarray(small)[None]
        scores, labels, boxes = (
            output[0] for output in session.run(["scores", "labels", "boxes"], {"images": images})
        )
        boxes *= 2 * (picture.width / small.width, picture.height / small.height)
        for found in np.flatnonzero(scores > thresholds[labels]):
            corners = ", ".join(f"{value:.1f}" for value in boxes[found])
            print(f"{path}: {names[labels[found]]} {scores[found]:.3f} ({corners})")


if __name__ == "__main__":
    main()
