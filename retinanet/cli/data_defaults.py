"""Settings that suit a data set: what --data takes for the flags that are not given.

They follow from the data alone, so that a run on the same data has the same ones. The figures
behind them are in benchmarks/README.md, under Learning.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from retinanet.data.datasets import Data
from retinanet.data.transforms import MAX_SIDE, MIN_SIDE
from retinanet.data_check.anchor_coverage import TrainingSetup, all_boxes, better_anchors
from retinanet.errors import DataError
from retinanet.inference.tiles import Tiling
from retinanet.model import ModelConfig
from retinanet.runtime.console import say
from retinanet.training.tiles import TrainingTiles
from retinanet.weights.checkpoint import read_weights, resnet_depth
from retinanet.weights.conversion import PUBLISHED
from retinanet.weights.pretrained import IMAGENET, start_weights

SIDES = (256, MIN_SIDE)  # pixels, between which the shorter side of the images may be kept
SHAPE = MAX_SIDE / MIN_SIDE  # longer side by the shorter one, at most: the paper's
CROWDED = 10  # boxes an image, on average, from which the higher learning rate is better
IMAGES_SEEN = 2000  # at least, in a training from trained weights; three times as many from none
EPOCHS = (6, 100)
LONG = 40  # epochs, from which pictures are changed at random: a flip alone is learned by heart


def suited_settings(dataset: Data, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings for a training on this data.

    Args:
        dataset: to train on.
        given: flags by name, None where they were not given; some of the settings depend on them.

    Returns:
        Values by name, of flags that were not given.

    Raises:
        DataError: the file of `--weights` cannot be read.
    """
    weights, depth, config = _start(given)
    new = weights == "none"
    boxes = all_boxes(dataset, given.get("tile"))
    images = _views(dataset, given)
    crowded = len(boxes.labels) >= CROWDED * images
    values: dict[str, Any] = {
        "weights": weights,
        "depth": depth,
        **_sides(dataset, given),
        "epochs": _epochs(images, new),
        "lr": 6e-4 if new else 2e-4 if crowded else 1e-4,
        "schedule": "cosine",
        "batch_norm": "trained" if new else "frozen",
    }
    values |= {name: value for name, value in given.items() if value is not None}
    if values["epochs"] >= LONG and not given.get("minutes"):
        values.setdefault("augment", "mild")
    steps = values["epochs"] * math.ceil(images / values["batch_size"])
    # With --minutes the number of steps is not known yet; it shortens its warm-up itself.
    warmup = 100 if given.get("minutes") else min(100, steps // 5)
    values["warmup"] = warmup if values["schedule"] != "plateau" else 0
    asked = any(given.get(f"anchor_{name}") for name in ("sizes", "ratios", "scales"))
    if config is None and not asked:  # a detector's heads have learned with its own anchors
        network = ModelConfig(dataset.num_classes())
        setup = TrainingSetup(values["min_side"], values["max_side"], network)
        choice = better_anchors(boxes, setup)
        values["anchor_sizes"] = choice and list(choice.sizes)
    return {name: value for name, value in values.items() if given.get(name) is None}


def _start(given: Mapping[str, Any]) -> tuple[str, int, ModelConfig | None]:
    """Weights and depth, and the settings of the detector that the weights are of, if any."""
    weights, depth = given["weights"], given["depth"]
    if weights is None:
        try:
            start_weights("imagenet", depth or 50)
            return "imagenet", depth or 50, None
        except DataError as error:
            say(f"{error}; training begins without them, which takes more epochs")
            weights = "none"
    if weights == "none":
        return weights, depth or 18, None
    if weights in (*IMAGENET, *PUBLISHED):
        depth = depth or 50
        return weights, depth, start_weights(weights, depth).config
    tensors, config = read_weights(Path(weights))
    return weights, depth or resnet_depth(tensors, weights), config


def _views(dataset: Data, given: Mapping[str, Any]) -> int:
    """Images of an epoch, as the network sees them: tiles where there are such."""
    if not given.get("tile"):
        return len(dataset)
    tiling = Tiling(given["tile"], given["tile_overlap"], lambda sample: sample)
    return len(TrainingTiles(dataset, tiling, seed=0))


def _sides(dataset: Data, given: Mapping[str, Any]) -> dict[str, int]:
    """The size of the images: about their own, so that nothing is enlarged, up to the paper's."""
    most = given.get("tile") or math.inf
    shorter = np.median([min(*dataset.image_size(k), most) for k in range(len(dataset))])
    side = given["min_side"] or int(np.clip(32 * round(float(shorter) / 32), *SIDES))
    return {"min_side": side, "max_side": max(side, 32 * round(side * SHAPE / 32))}


def _epochs(images: int, new: bool) -> int:
    """Number of epochs in which enough images are seen: more where there are few."""
    wanted = (3 if new else 1) * IMAGES_SEEN
    return int(np.clip(math.ceil(wanted / images), *EPOCHS))
