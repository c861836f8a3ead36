"""A model's weights with its settings: written whole, read from any file with a detector."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retinanet.backbone import LAYERS
from retinanet.data.transforms import MAX_SIDE, MIN_SIDE
from retinanet.errors import DataError, first_few, printable, reason, shown
from retinanet.model import MATCHINGS, ModelConfig, RetinaNet, empty_weights
from retinanet.runtime.device import memory_format
from retinanet.runtime.files import whole_file
from retinanet.weights import conversion
from retinanet.weights.safe_load import bare_state_dict, check_weights, read_file

VERSION = 1
DEFAULT_THRESHOLD = 0.5  # of the score, where no best F1 is known


@dataclass(frozen=True)
class Checkpoint:
    """A model's weights and what is known of them; enough that no script needs another flag."""

    config: ModelConfig
    weights: dict[str, Tensor]
    class_names: tuple[str, ...] = ()
    """Class names by label; empty where the file does not give them."""
    min_side: int = MIN_SIDE
    """Shorter side of the images in training, pixels; `max_side` limits the longer one."""
    max_side: int = MAX_SIDE
    epoch: int | None = None
    """The last one trained, from 0."""
    metrics: dict[str, float] = field(default_factory=dict)
    thresholds: tuple[float, ...] = ()
    """Scores where F1 was best on the validation data, by label; empty where not known."""
    thresholds_epoch: int | None = None
    """The epoch after which they were found."""
    matching: str = MATCHINGS[0]
    """Rule that gave boxes their anchors in training; nothing for detection."""
    tile: int | None = None
    """Side of the tiles that larger pictures are cut into, pixels; None: they are not cut."""
    tile_overlap: float = 0.2
    """Part of its side that a tile shares with the next one, at least."""

    @property
    def score_threshold(self) -> float | tuple[float, ...]:
        """Score threshold to detect with unless another is given: each class's best, or 0.5."""
        return self.thresholds or DEFAULT_THRESHOLD

    @property
    def threshold_note(self) -> str:
        """Sentence on the score thresholds in use."""
        if not self.thresholds:
            return f"Score threshold {DEFAULT_THRESHOLD}: the model's file has none of its own"
        pairs = zip(self.names, self.thresholds, strict=True)
        some = first_few((f"{name} {value:.3f}" for name, value in pairs), 10)
        is_lacking = DEFAULT_THRESHOLD in self.thresholds
        lacking = f" ({DEFAULT_THRESHOLD} without one)" if is_lacking else ""
        return (
            f"Score thresholds, where F1 was best on the validation data after epoch"
            f" {self.thresholds_epoch}{lacking}: {some}"
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names by label: the classes', or where the file does not say, numbers."""
        K = self.config.num_classes
        return self.class_names or tuple(f"class {label}" for label in range(K))

    def build(self, device: torch.device) -> RetinaNet:
        """The model, in evaluation mode."""
        model = RetinaNet(self.config)
        model.load_state_dict(self.weights)
        layout = memory_format(device, training=False)
        return model.to(device, memory_format=layout).eval()  # type: ignore[call-overload]


# ---- writing ----


def _check_plain(value: object, name: str) -> None:
    """Refuse what `torch.load(weights_only=True)` would refuse later, by name."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_plain(item, f"{name}[{key!r}]")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check_plain(item, f"{name}[{i}]")
    elif value is not None and type(value) not in (str, int, float, bool, Tensor):
        raise TypeError(f"{name} is {type(value).__module__}.{type(value).__name__}")


def write_file(path: Path, content: dict[str, Any], *, overwrite: bool = False) -> None:
    """Write plain data and tensors, whole or not at all; arguments as `files.whole_file`.

    Raises:
        TypeError: the content is not dict, list, tuple, str, int, float, bool, None and Tensor.
        DataError: as `files.whole_file`; the old file is whole.
    """
    _check_plain(content, "checkpoint")
    with whole_file(path, overwrite=overwrite) as stream:
        torch.save(content, stream)


def save_checkpoint(path: Path, checkpoint: Checkpoint, *, overwrite: bool = False) -> None:
    """Write a checkpoint as plain data; arguments and errors as `files.whole_file`."""
    content = {
        item.name: getattr(checkpoint, item.name)
        for item in fields(checkpoint)
        if item.name != "config"
    }
    content = {"version": VERSION, "config": asdict(checkpoint.config), **content}
    write_file(path, content, overwrite=overwrite)


def resnet_depth(weights: Mapping[str, Tensor], path: object) -> int:
    """Depth of the ResNet of a state dict, from the number and kind of the blocks it names."""
    blocks = tuple(
        len({name.split(".")[1] for name in weights if name.startswith(f"layer{stage}.")})
        for stage in (1, 2, 3, 4)
    )
    bottleneck = "layer1.0.conv3.weight" in weights
    for depth, layers in LAYERS.items():
        if layers == blocks and bottleneck == (depth >= 50):
            return depth
    raise DataError(
        f"{path}: its layers have {blocks} blocks, which is no ResNet-"
        + ", ".join(map(str, LAYERS))
        + "; expected the weights of a RetinaNet or of torchvision's ResNet (for a detector of"
        " another project: python -m retinanet.tools.convert)"
    )


def _config_of(weights: Mapping[str, Tensor], path: Path) -> ModelConfig:
    """The settings of a bare state dict, which has the original's anchors."""
    output = weights.get("classificationModel.output.weight")
    if output is None:
        raise DataError(
            f"{path}: it has no classificationModel.output.weight: not a whole detector;"
            " expected a RetinaNet (a backbone alone goes to train.py --weights, another project's"
            " file first through python -m retinanet.tools.convert)"
        )
    A = ModelConfig(1).anchors_per_cell
    tower = [name for name in weights if name.startswith("classificationModel.conv")]
    return ModelConfig(
        num_classes=len(output) // A,
        depth=resnet_depth(weights, path),
        channels=output.shape[1],
        head_convs=sum(name.endswith(".weight") for name in tower),
    )


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a detector from any file that this project or the original wrote.

    Args:
        path: a checkpoint, a bare state dict, or a pickled module of the original's; or a name of
            `conversion.PUBLISHED`.

    Raises:
        DataError: no such file, not a detector, damaged, of a newer version, or it could run code.
    """
    if str(path) in conversion.PUBLISHED:
        return _foreign_checkpoint(conversion.published(str(path)))
    path = Path(path)
    content = read_file(path)
    if not (isinstance(content, dict) and "version" in content):
        weights = bare_state_dict(content, path)
        checkpoint = Checkpoint(_config_of(weights, path), weights)
    else:
        checkpoint = _checkpoint_of(content, path)
    check_fit(checkpoint.weights, checkpoint.config, path)
    return checkpoint


def check_fit(weights: Mapping[str, Tensor], config: ModelConfig, path: object) -> None:
    """Make sure that weights are those of a model of such settings, before it is built.

    Raises:
        DataError: they are not, or there is no such model.
    """
    expected = _expected_weights(config, path)
    wrong = [
        f"{name} is {_shape(weights.get(name))}, expected {_shape(tensor)}"
        for name, tensor in expected.items()
        if _shape(weights.get(name)) != _shape(tensor) and tensor.dim() > 0
    ]
    unknown = [name for name in weights if name not in expected]
    wrong += [f"{printable(name)[:80]} is not expected" for name in unknown]
    if wrong:
        raise DataError(
            f"{path}: its weights do not fit a ResNet-{config.depth} RetinaNet:"
            f" {'; '.join(wrong[:3])}" + (f"; and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        )


def read_weights(path: Path) -> tuple[dict[str, Tensor], ModelConfig | None]:
    """The weights of a detector or of a backbone alone, and the settings if it is a detector.

    Raises:
        DataError: no such file, no weights, damaged, of a newer version, or it could run code.
    """
    content = read_file(path)
    if isinstance(content, dict) and "version" in content:
        checkpoint = _checkpoint_of(content, path)
        return checkpoint.weights, checkpoint.config
    weights = bare_state_dict(content, path)
    is_detector = "classificationModel.output.weight" in weights
    return weights, _config_of(weights, path) if is_detector else None


def load_foreign(
    path: Path, source_name: str, bn_eps: float | None = None
) -> tuple[Checkpoint, str]:
    """Read another project's detector.

    Args:
        path: the project's file.
        source_name: a key of `projects.SOURCES`.
        bn_eps: epsilon of its batch norm; None for that of the published files.

    Returns:
        The detector, and what was taken for granted, if anything.

    Raises:
        DataError: no such file, or not exactly a RetinaNet of that project.
    """
    tensors = conversion.state_dict(read_file(path), source_name, path)
    check_weights(tensors, path)
    found = conversion.convert(tensors, source_name, path, bn_eps)
    return _foreign_checkpoint(found), found.note


def _foreign_checkpoint(found: conversion.Converted) -> Checkpoint:
    """A converted detector, for images of the size that all these projects use."""
    return Checkpoint(found.config, found.weights, found.class_names, min_side=800, max_side=1333)


def _expected_weights(config: ModelConfig, path: object) -> dict[str, Tensor]:
    """The state dict of such a model, shapes only."""
    try:
        return empty_weights(config)
    except (TypeError, ValueError, RuntimeError) as error:  # numbers of which there is no model
        raise DataError(f"{path}: it is no checkpoint of a model ({reason(error)})") from error


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else "x".join(map(str, tensor.shape)) or "a number"


def _checkpoint_of(content: dict[str, Any], path: Path) -> Checkpoint:
    """Checkpoint from the content of a file of this project."""
    if "config" not in content:
        raise DataError(f"{path}: it is no model; expected a checkpoint of train.py")
    version = printable(shown(content["version"]))
    if version != str(VERSION):
        raise DataError(
            f"{path}: its format is version {version}, this program reads {VERSION};"
            " use the program that wrote it, or a newer one"
        )
    try:
        config = ModelConfig(**content["config"])
        known = {item.name for item in fields(Checkpoint)} - {"config"}
        # Since version 1.0:
        new = {"thresholds", "thresholds_epoch", "matching", "tile", "tile_overlap"}
        absent = new - content.keys()
        checkpoint = Checkpoint(config, **{name: content[name] for name in known - absent})
        _check_fields(checkpoint)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: it is no checkpoint of a model ({reason(error)})") from error
    check_weights(checkpoint.weights, path)
    return checkpoint


def _check_fields(checkpoint: Checkpoint) -> None:
    """Refuse, with a ValueError, what training cannot have written."""
    names, K = checkpoint.class_names, checkpoint.config.num_classes
    if len(names) not in (0, K) or any(printable(name) != name for name in names):
        raise ValueError(f"class names {shown(names)}")
    sides = (checkpoint.min_side, checkpoint.max_side)
    if not all(isinstance(side, int) for side in sides) or not 0 < sides[0] <= sides[1] < 1e5:
        raise ValueError(f"images of {shown(sides)} pixels")
    tile, overlap = checkpoint.tile, checkpoint.tile_overlap
    if not (tile is None or (isinstance(tile, int) and tile > 0)) or not 0 <= overlap < 1:
        raise ValueError(f"tiles of {shown(tile)} pixels that share {shown(overlap)}")
    thresholds = checkpoint.thresholds
    if len(thresholds) not in (0, K) or not all(0 <= value < 1 for value in thresholds):
        raise ValueError(f"score thresholds {shown(thresholds)}")
    if checkpoint.matching not in MATCHINGS:
        raise ValueError(f"anchors matched by {shown(checkpoint.matching)}")
    if not isinstance(checkpoint.weights, dict):
        raise ValueError(f"weights in a {type(checkpoint.weights).__name__}")
    if not all(isinstance(name, str) for name in checkpoint.weights):
        raise ValueError("a weight whose name is no text")
