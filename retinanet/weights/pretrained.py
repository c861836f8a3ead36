"""Initial weights of a training: none, a backbone's, or a whole detector's of any project."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from retinanet.backbone import imagenet_weights
from retinanet.errors import DataError, reason
from retinanet.model import ModelConfig, RetinaNet
from retinanet.weights.checkpoint import check_fit, load_checkpoint, read_weights, resnet_depth
from retinanet.weights.conversion import PUBLISHED

IMAGENET = {"imagenet": 1, "imagenet-v2": 2}  # version of torchvision's weights, by name


class Start(NamedTuple):
    """The weights to start from, and the network that they are of."""

    source: str
    """Name of the weights or file, for messages."""
    weights: Mapping[str, Tensor] | None = None
    """Not all of them need fit the model; None: they come with the state of a resumed run."""
    config: ModelConfig | None = None
    """None where they are no detector's."""


def start_weights(source: str, depth: int) -> Start:
    """The weights that training is to start from.

    Args:
        source: "none", a name of `IMAGENET` or of `conversion.PUBLISHED`, or a file: a torchvision
            ResNet, or any detector.
        depth: of the model's ResNet.

    Raises:
        DataError: the file cannot be fetched or read, or its ResNet is another one.
    """
    if source == "none":
        return Start(source, {})
    if source in IMAGENET:
        return Start(source, imagenet_weights(depth, version=IMAGENET[source]))
    if source in PUBLISHED:
        checkpoint = load_checkpoint(source)
        start = Start(source, checkpoint.weights, checkpoint.config)
    else:
        start = Start(source, *read_weights(Path(source)))
    found = resnet_depth(start.weights or {}, source)
    if found != depth:
        raise DataError(
            f"{source}: it holds a ResNet-{found}, the model is a ResNet-{depth};"
            f" pass --depth {found} or other --weights"
        )
    return start


def resumed_start(state: Mapping[str, Any], source: str) -> Start:
    """The network of a resumed run, from its state; its weights come later.

    Args:
        state: content of the state's file.
        source: name of that file.

    Raises:
        DataError: they are no settings of a model, or of another one than the weights'.
    """
    try:
        if "network" not in state:
            return Start(source)
        config = ModelConfig(**state["network"])
        check_fit(state["weights"], config, source)
        return Start(source, config=config)
    except DataError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{source}: a damaged state ({reason(error)}); start without --resume"
        ) from error


def start_config(
    start: Start,
    *,
    num_classes: int,
    depth: int,
    settings: Mapping[str, Any],
) -> ModelConfig:
    """The settings of the model to train: those of a detector that it starts from, if any.

    Args:
        start: initial weights and their settings.
        num_classes: K, whatever the start's.
        depth: of the ResNet, which is the start's.
        settings: those of the network that were asked for: its size, tuples of its anchors.

    Raises:
        DataError: the start's are not those asked for.
    """
    if start.config is None:
        return ModelConfig(num_classes, depth, **settings)
    for name, asked in settings.items():
        found = getattr(start.config, name)
        if _numbers(found) != _numbers(asked):
            raise DataError(
                f"{start.source}: its {name} are {_numbers(found)}, asked for are"
                f" {_numbers(asked)}; give the same ones, or other --weights"
            )
    return replace(start.config, num_classes=num_classes)


def _numbers(values: int | Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in ([values] if isinstance(values, int) else values))


def take_weights(model: RetinaNet, weights: Mapping[str, Tensor]) -> str:
    """Load every tensor that has the same name and shape, of any float type.

    Returns:
        Which parts of the model were taken and which are new, in one line.
    """
    own = model.state_dict()
    fitting = {
        name: value
        for name, value in weights.items()
        if name in own and value.shape == own[name].shape
    }
    model.load_state_dict(fitting, strict=False)
    beginnings = {
        "backbone": ("conv1.", "bn1.", "layer"),
        "FPN": ("fpn.",),
        "box head": ("regressionModel.",),
        "class tower": ("classificationModel.conv", "classificationModel.norm"),
        "class output": ("classificationModel.output.",),
    }
    # A backbone's counters of batches are not weights, and old files lack them.
    parts = {
        part: [name for name in own if name.startswith(start) and own[name].dim()]
        for part, start in beginnings.items()
    }
    taken = [part for part, names in parts.items() if all(name in fitting for name in names)]
    new = [part for part in parts if part not in taken]
    return f"taken: {', '.join(taken) or 'nothing'}; new: {', '.join(new) or 'nothing'}"
