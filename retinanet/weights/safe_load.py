"""Files of weights, read without ever running what is in them."""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retinanet.errors import DataError, printable, reason
from retinanet.weights.numpy_pickle import read_numpy_pickle
from retinanet.weights.pickle_check import Inert, check_torch_file


class _Inert(Inert):
    """Stands in for every class of a pickled module: it holds attributes and can do nothing."""

    dump_patches = False  # asked for by torch's reader of files older than 2020

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
        if path.suffix == ".pkl":
            return read_numpy_pickle(path)
        check_torch_file(path, _INERT_NAMES)
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
        raise DataError(
            f"{path}: it is damaged or no checkpoint ({reason(error)}); expected a .pt that"
            " train.py or torch.save wrote"
        ) from error


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


def bare_state_dict(content: object, path: Path) -> dict[str, Tensor]:
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
    check_weights(tensors, path)
    return {str(name).removeprefix("module."): value for name, value in tensors.items()}


def check_weights(weights: Mapping[Any, object], path: Path) -> None:
    """Make sure that all weights are finite numbers.

    Raises:
        DataError: one is not.
    """
    for name, value in weights.items():
        if problem := _weight_problem(value):
            raise DataError(
                f"{path}: {printable(name)[:80]} {problem}; expected finite numbers in"
                " plain tensors; take another file, perhaps of an earlier epoch"
            )


def _weight_problem(value: object) -> str:
    """Fault of a weight; empty where there is none."""
    if not isinstance(value, Tensor):
        return "is no tensor"
    if value.is_floating_point() and not value.float().isfinite().all():
        return "is not finite"
    return ""
