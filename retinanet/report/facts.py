"""Facts about a model and its training, by name, as they stand in the report."""

import re

from retinanet.errors import counted
from retinanet.report.html import Html, element, joined
from retinanet.weights.checkpoint import Checkpoint


def model_facts(checkpoint: Checkpoint, precision: str) -> dict[str, str]:
    """Network, image size and precision: what scores depend on."""
    images = f"{checkpoint.min_side}-{checkpoint.max_side} px"
    if checkpoint.tile:
        shared = 100 * checkpoint.tile_overlap
        images += f", tiles of {checkpoint.tile} px, {shared:g} % shared"
    return {
        "Network": checkpoint.config.title,
        "Images": images,
        "Precision": precision,
    }


def training_facts(
    *, started_from: str, images: int, batch_size: int, settings: str
) -> dict[str, str]:
    """Initial weights, data and settings of a training.

    Args:
        started_from: name of the initial weights.
        images: of the training data.
        batch_size: images of a batch.
        settings: flags of learning with their values.
    """
    return {
        "Started from": started_from,
        "Trained on": f"{counted(images, 'image')}, batches of {batch_size}",
        "Learned by": _flags(settings),
    }


def _flags(settings: str) -> Html:
    """Flags that lines break between, not at the dashes in them."""
    flags = re.split(" (?=--)", settings)
    return joined(*(joined(element("code", flag), " ") for flag in flags))
