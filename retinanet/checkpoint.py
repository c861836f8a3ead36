"""Files of weights: written whole or not at all, read without ever running what is in them.

Read are: this project's checkpoints, bare state dicts (the original's published weights), whole
modules as the original's scripts pickled them, and detectors of other projects.
"""

import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retinanet import foreign
from retinanet.annotations import shown
from retinanet.backbone import LAYERS
from retinanet.errors import DataError, printable, reason
from retinanet.files import whole_file
from retinanet.model import ModelConfig, RetinaNet, empty_weights
from retinanet.numpy_pickle import read_numpy_pickle

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

    @property
    def names(self) -> tuple[str, ...]:
        """Names by label: the classes', or where the file does not say, numbers."""
        K = self.config.num_classes
        return self.class_names or tuple(f"class {label}" for label in range(K))

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
    "torch.nn.modules.linear.Identity",
    "torch.nn.modules.normalization.GroupNorm",
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
    """Unpickle plain data, tensors and inert modules; nothing of the file is ever called.

    A .pkl is detectron2's: a pickle of numpy arrays, which are tensors then.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; expected a checkpoint (.pt)")
    inert: list[Any] = [(_Inert, name) for name in _INERT_NAMES]
    try:
        _check_unpacked_size(path)
        if path.suffix == ".pkl":
            return read_numpy_pickle(path)
        with torch.serialization.safe_globals(inert), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old files carry their classes' source to compare
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise anything at all
        if "Only persistent_load of storage is allowed" in str(error):
            raise DataError(
                f"{path}: a whole module as PyTorch before 1.6 wrote it, which cannot be read"
                " safely; if you trust it, save its state dict once with the program that made it:"
                f" torch.save(torch.load('{path.name}').state_dict(), 'weights.pt')"
            ) from error
        if "unsupported global" in str(error).lower():  # one not known, or one forbidden
            raise DataError(
                f"{path}: refused: it holds more than tensors and settings, and loading it could"
                " run code; expected a checkpoint of this project, a state dict, or a module saved"
                " by the original's scripts"
            ) from error
        raise DataError(f"{path}: it is damaged or no checkpoint ({reason(error)})") from error


def _check_unpacked_size(path: Path) -> None:
    """Refuse a zip that unpacks to more than its own size: torch packs nothing, a bomb does."""
    with path.open("rb") as stream:
        if stream.read(4) != b"PK\x03\x04":
            return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > path.stat().st_size:
        raise ValueError(f"unpacks to {unpacked:,} bytes, more than it has")


def _module_tensors(module: object, seen: set[int], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The state dict of an inert module, depth first as `nn.Module.state_dict` goes.

    A module met before is passed over: modules may hold each other, in more ways than can be gone.
    """
    if not isinstance(module, _Inert) or id(module) in seen:
        return
    seen.add(id(module))
    held = (vars(module).get(kind) for kind in ("_parameters", "_buffers", "_modules"))
    parameters, buffers, modules = (kind if isinstance(kind, dict) else {} for kind in held)
    for name, tensor in (parameters | buffers).items():
        if isinstance(tensor, Tensor):
            yield f"{prefix}{name}", tensor.detach()
    for name, child in modules.items():
        yield from _module_tensors(child, seen, f"{prefix}{name}.")


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    """The tensors of a bare state dict or an inert module, by the model's own names."""
    try:
        tensors = dict(content if isinstance(content, Mapping) else _module_tensors(content, set()))
    except RecursionError:
        tensors = {}
    if not tensors or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise DataError(
            f"{path}: it holds no state dict; expected the weights of a model (for a detector of"
            " another project: python -m retinanet.tools.convert)"
        )
    _check_weights(tensors, path)
    return {str(name).removeprefix("module."): value for name, value in tensors.items()}


def _check_weights(weights: Mapping[Any, object], path: Path) -> None:
    """Make sure that all weights are numbers, and that the file really holds them."""
    for name, value in weights.items():
        if problem := _weight_problem(value):
            raise DataError(
                f"{path}: {printable(name)[:80]} {problem}; expected finite numbers in"
                " plain tensors; take another file, perhaps of an earlier epoch"
            )


def _weight_problem(value: object) -> str:
    """What is wrong with a weight; empty where nothing is."""
    if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_quantized:
        return "is no plain tensor"
    if value.device.type != "cpu":  # meta: a shape without numbers
        return "is no plain tensor"
    if value.untyped_storage().nbytes() < value.nbytes:  # one number seen as many
        return "claims more numbers than the file holds"
    if value.is_floating_point() and not value.float().isfinite().all():
        return "is not finite"
    return ""


def resnet_depth(weights: Mapping[str, Tensor], path: object) -> int:
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
    return ModelConfig(num_classes=len(output) // A, depth=resnet_depth(weights, path))


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a detector from any file that this project or the original wrote.

    Args:
        path: a checkpoint, a bare state dict, or a pickled module of the original's; or a name of
            `foreign.PUBLISHED`.

    Raises:
        DataError: no such file, not a detector, damaged, of a newer version, or it could run code.
    """
    if str(path) in foreign.PUBLISHED:
        return _foreign_checkpoint(foreign.published(str(path)))
    path = Path(path)
    content = read_file(path)
    if not (isinstance(content, dict) and "version" in content):
        weights = _state_dict(content, path)
        checkpoint = Checkpoint(_config_of(weights, path), weights)
    else:
        checkpoint = _checkpoint_of(content, path)
    expected = _expected_weights(checkpoint.config, path)
    wrong = [
        f"{name} is {_shape(checkpoint.weights.get(name))}, expected {_shape(tensor)}"
        for name, tensor in expected.items()
        if _shape(checkpoint.weights.get(name)) != _shape(tensor) and tensor.dim() > 0
    ]
    unknown = [name for name in checkpoint.weights if name not in expected]
    wrong += [f"{printable(name)[:80]} is not expected" for name in unknown]
    if wrong:
        raise DataError(
            f"{path}: its weights do not fit a ResNet-{checkpoint.config.depth} RetinaNet:"
            f" {'; '.join(wrong[:3])}" + (f"; and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        )
    return checkpoint


def read_weights(path: Path) -> tuple[dict[str, Tensor], ModelConfig | None]:
    """The weights of a detector or of a backbone alone, and the settings if it is a detector.

    Raises:
        DataError: no such file, no weights, damaged, of a newer version, or it could run code.
    """
    content = read_file(path)
    if isinstance(content, dict) and "version" in content:
        checkpoint = _checkpoint_of(content, path)
        return checkpoint.weights, checkpoint.config
    weights = _state_dict(content, path)
    is_detector = "classificationModel.output.weight" in weights
    return weights, _config_of(weights, path) if is_detector else None


def load_foreign(
    path: Path, source_name: str, bn_eps: float | None = None
) -> tuple[Checkpoint, str]:
    """Read another project's detector.

    Args:
        path: the project's file.
        source_name: a key of `sources.SOURCES`.
        bn_eps: epsilon of its batch norm; None for that of the published files.

    Returns:
        The detector, and what was taken for granted, if anything.

    Raises:
        DataError: no such file, or not exactly a RetinaNet of that project.
    """
    tensors = foreign.state_dict(read_file(path), source_name, path)
    _check_weights(tensors, path)
    found = foreign.convert(tensors, source_name, path, bn_eps)
    return _foreign_checkpoint(found), found.note


def _foreign_checkpoint(found: foreign.Converted) -> Checkpoint:
    """A converted detector, for images of the size that all these projects use."""
    return Checkpoint(found.config, found.weights, found.class_names, min_side=800, max_side=1333)


def _expected_weights(config: ModelConfig, path: Path) -> dict[str, Tensor]:
    """The state dict of such a model, shapes only."""
    try:
        return empty_weights(config)
    except (TypeError, ValueError, RuntimeError) as error:  # numbers of which there is no model
        raise DataError(f"{path}: it is no checkpoint of a model ({reason(error)})") from error


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else "x".join(map(str, tensor.shape)) or "a number"


def _checkpoint_of(content: dict[str, Any], path: Path) -> Checkpoint:
    """Make sense of a file of this project."""
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
        checkpoint = Checkpoint(config, **{name: content[name] for name in known})
        _check_fields(checkpoint)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: it is no checkpoint of a model ({reason(error)})") from error
    _check_weights(checkpoint.weights, path)
    return checkpoint


def _check_fields(checkpoint: Checkpoint) -> None:
    """Refuse, with a ValueError, what training cannot have written."""
    names, K = checkpoint.class_names, checkpoint.config.num_classes
    if len(names) not in (0, K) or any(printable(name) != name for name in names):
        raise ValueError(f"class names {shown(names)}")
    sides = (checkpoint.min_side, checkpoint.max_side)
    if not all(isinstance(side, int) for side in sides) or not 0 < sides[0] <= sides[1] < 1e5:
        raise ValueError(f"images of {shown(sides)} pixels")
    if not isinstance(checkpoint.weights, dict):
        raise ValueError(f"weights in a {type(checkpoint.weights).__name__}")
    if not all(isinstance(name, str) for name in checkpoint.weights):
        raise ValueError("a weight whose name is no text")
