"""Files of weights: written whole or not at all, read without ever running what is in them.

Read are: this project's checkpoints, bare state dicts (the original's published weights), and whole
modules as the original's scripts pickled them.
"""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retinanet.backbone import LAYERS, imagenet_weights
from retinanet.errors import DataError
from retinanet.files import whole_file
from retinanet.model import ModelConfig, RetinaNet

VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """A model's weights and what is known of them; enough that no script needs another flag."""

    config: ModelConfig
    weights: dict[str, Tensor]
    class_names: tuple[str, ...] = ()
    """By label; empty where the file does not say."""
    min_side: int = 608
    """To which images were resized in training, pixels."""
    max_side: int = 1024
    epoch: int | None = None
    """The last one trained, from 0."""
    metrics: dict[str, float] = field(default_factory=dict)

    def build(self, device: torch.device) -> RetinaNet:
        """The model, in evaluation mode."""
        model = RetinaNet(self.config)
        model.load_state_dict(self.weights)
        return model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


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


def write_file(path: Path, content: dict[str, Any]) -> None:
    """Write plain data and tensors, whole or not at all.

    Raises:
        TypeError: the content is not dict, list, tuple, str, int, float, bool, None and Tensor.
        DataError: the disk is full or not writable; the old file is whole.
    """
    _check_plain(content, "checkpoint")
    with whole_file(path) as stream:
        torch.save(content, stream)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint as plain data."""
    content = {
        item.name: getattr(checkpoint, item.name)
        for item in fields(checkpoint)
        if item.name != "config"
    }
    write_file(path, {"version": VERSION, "config": asdict(checkpoint.config), **content})


# ---- reading ----


class _Inert:
    """Stands in for every class of a pickled module: it holds attributes and can do nothing."""

    dump_patches = False  # asked for by torch's reader of files older than 2020

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


# All that the original's whole-module files name, and this package's own when pickled that way.
_INERT_NAMES = (
    *(f"retinanet.model.{name}" for name in ("ResNet", "RegressionModel", "ClassificationModel")),
    *(
        f"retinanet.model.{name}"
        for name in ("RetinaNet", "PyramidFeatures", "Head", "ModelConfig")
    ),
    *(f"retinanet.utils.{name}" for name in ("BasicBlock", "Bottleneck")),
    *(f"retinanet.backbone.{name}" for name in ("BasicBlock", "Bottleneck")),
    *(f"retinanet.utils.{name}" for name in ("BBoxTransform", "ClipBoxes")),
    "retinanet.anchors.Anchors",
    "retinanet.losses.FocalLoss",
    "torch.nn.modules.activation.ReLU",
    "torch.nn.modules.activation.Sigmoid",
    "torch.nn.modules.batchnorm.BatchNorm2d",
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.conv.Conv2d",
    "torch.nn.modules.pooling.MaxPool2d",
    "torch.nn.modules.upsampling.Upsample",
    "torch.nn.parallel.data_parallel.DataParallel",
    "numpy.ndarray",
    "numpy.dtype",
    *(
        f"numpy.{core}.multiarray.{name}"
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    ),
)


def read_file(path: Path) -> object:
    """Unpickle plain data, tensors and inert modules; nothing of the file is ever called."""
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; expected a checkpoint (.pt)")
    inert: list[Any] = [(_Inert, name) for name in _INERT_NAMES]
    try:
        with torch.serialization.safe_globals(inert), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old files carry their classes' source to compare
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise anything at all
        if "Only persistent_load of storage is allowed" in str(error):
            raise DataError(
                f"{path}: a whole module as PyTorch before 1.6 wrote it, which cannot be read"
                " safely; save its state dict once with the program that made it:"
                f" torch.save(torch.load('{path.name}').state_dict(), 'weights.pt')"
            ) from error
        if "Unsupported global" in str(error):
            raise DataError(
                f"{path}: refused: it holds more than tensors and settings, and loading it could"
                " run code; expected a checkpoint of this project, a state dict, or a module saved"
                " by the original's scripts"
            ) from error
        raise DataError(f"{path}: it is damaged or no checkpoint ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    """An exception's first line, shortened."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:100]}"


def _module_tensors(module: object, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The state dict of an inert module, depth first as `nn.Module.state_dict` goes."""
    attributes = vars(module) if isinstance(module, _Inert) else {}
    for kind in ("_parameters", "_buffers"):
        for name, tensor in dict(attributes.get(kind) or {}).items():
            if isinstance(tensor, Tensor):
                yield f"{prefix}{name}", tensor.detach()
    for name, child in dict(attributes.get("_modules") or {}).items():
        yield from _module_tensors(child, f"{prefix}{name}.")


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    """The tensors of a bare state dict or an inert module, by the model's own names."""
    tensors = dict(content if isinstance(content, Mapping) else _module_tensors(content))
    if not tensors or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise DataError(f"{path}: it holds no state dict; expected the weights of a model")
    return {str(name).removeprefix("module."): value for name, value in tensors.items()}


def resnet_depth(weights: Mapping[str, Tensor], path: Path) -> int:
    """Which ResNet a state dict belongs to, from its names: how many blocks, of which kind."""
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
        + "; expected the weights of a RetinaNet or of torchvision's ResNet"
    )


def _config_of(weights: Mapping[str, Tensor], path: Path) -> ModelConfig:
    """The settings of a bare state dict, which has the original's anchors."""
    output = weights.get("classificationModel.output.weight")
    if output is None:
        raise DataError(
            f"{path}: it has no classificationModel.output.weight: not a whole detector;"
            " expected a RetinaNet (a backbone alone goes to train.py --weights)"
        )
    A = ModelConfig(1).anchors_per_cell
    return ModelConfig(num_classes=len(output) // A, depth=resnet_depth(weights, path))


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a detector from any file that this project or the original wrote.

    Args:
        path: a checkpoint, a bare state dict, or a pickled module of the original's.

    Raises:
        DataError: no such file, not a detector, damaged, of a newer version, or it could run code.
    """
    path = Path(path)
    content = read_file(path)
    if not (isinstance(content, dict) and "version" in content):
        weights = _state_dict(content, path)
        checkpoint = Checkpoint(_config_of(weights, path), weights)
    else:
        checkpoint = _checkpoint_of(content, path)
    with torch.device("meta"):  # shapes only
        expected = RetinaNet(checkpoint.config).state_dict()
    wrong = [
        f"{name} is {_shape(checkpoint.weights.get(name))}, expected {_shape(tensor)}"
        for name, tensor in expected.items()
        if _shape(checkpoint.weights.get(name)) != _shape(tensor) and tensor.dim() > 0
    ] + [f"{name} is not expected" for name in checkpoint.weights if name not in expected]
    if wrong:
        raise DataError(
            f"{path}: its weights do not fit a ResNet-{checkpoint.config.depth} RetinaNet:"
            f" {'; '.join(wrong[:3])}" + (f"; and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        )
    return checkpoint


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else "x".join(map(str, tensor.shape)) or "a number"


def _checkpoint_of(content: dict[str, Any], path: Path) -> Checkpoint:
    """Make sense of a file of this project."""
    if "config" not in content:
        raise DataError(f"{path}: it is no model; expected a checkpoint of train.py")
    if content["version"] != VERSION:
        raise DataError(
            f"{path}: its format is version {content['version']}, this program reads {VERSION};"
            " use the program that wrote it, or a newer one"
        )
    try:
        config = ModelConfig(**content["config"])
        known = {item.name for item in fields(Checkpoint)} - {"config"}
        return Checkpoint(config, **{name: content[name] for name in known})
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: it is no checkpoint of a model ({_reason(error)})") from error


def start_weights(source: str, depth: int) -> dict[str, Tensor]:
    """The weights that training is to start from.

    Args:
        source: "none", "imagenet", or a file: a torchvision ResNet, or any detector.
        depth: of the model's ResNet.

    Returns:
        A state dict; not all of it need fit the model.

    Raises:
        DataError: the file cannot be had or read, or its ResNet is another one.
    """
    if source == "none":
        return {}
    if source == "imagenet":
        return imagenet_weights(depth)
    path = Path(source)
    content = read_file(path)
    if isinstance(content, dict) and "version" in content:
        weights = _checkpoint_of(content, path).weights
    else:
        weights = _state_dict(content, path)
    found = resnet_depth(weights, path)
    if found != depth:
        raise DataError(
            f"{path}: it holds a ResNet-{found}, the model is a ResNet-{depth};"
            f" pass --depth {found} or other --weights"
        )
    return weights


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
    heads = {
        "FPN": "fpn.",
        "box head": "regressionModel.",
        "class tower": "classificationModel.conv",
        "class output": "classificationModel.output.",
    }
    # A backbone's counters of batches are not weights, and old files lack them.
    backbone = [n for n in own if not n.startswith(tuple(heads.values())) and own[n].dim()]
    parts = {"backbone": backbone}
    parts |= {part: [n for n in own if n.startswith(start)] for part, start in heads.items()}
    taken = [part for part, names in parts.items() if all(name in fitting for name in names)]
    new = [part for part in parts if part not in taken]
    return f"taken: {', '.join(taken) or 'nothing'}; new: {', '.join(new) or 'nothing'}"
