"""What several test files need: the reference values and the weights that they are for."""

import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from retinanet.data.shapes import SampleData
from retinanet.report.report import REPORT_FILES
from tests.support.paths import GOLDEN


class Touch:
    """Makes a file when unpickled by a careless reader."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.target}'",)


class Foreign(nn.Module):
    """Not a class of the original's."""


def csv_run_flags(sample: SampleData, folder: Path, *more: str) -> list[str]:
    """The flags of a small and exact training run on CSV data."""
    return [
        *("--dataset", "csv", "--csv_train", str(sample.csv_train)),
        *("--csv_classes", str(sample.csv_classes), "--csv_val", str(sample.csv_val)),
        *("--depth", "18", "--weights", "none", "--min_side", "64", "--max_side", "96"),
        *("--workers", "0", "--precision", "fp32", "--output_dir", str(folder), *more),
    ]


# Flags of a small and exact training run on any data.
SMALL = [
    *("--depth", "18", "--weights", "none", "--epochs", "2", "--batch_size", "2"),
    *("--min_side", "64", "--max_side", "96", "--workers", "0", "--precision", "fp32"),
]


def files(folder: Path) -> list[str]:
    """The files below a folder, without those beside a report, which depend on its mistakes."""
    found = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    return [str(path) for path in found if path.as_posix() not in REPORT_FILES[1:]]


def csv_flags(sample: SampleData) -> list[str]:
    return ["--csv_train", str(sample.csv_train), "--csv_classes", str(sample.csv_classes)]


def golden_arrays(name: str) -> dict[str, Tensor]:
    """The arrays of a file of reference values."""
    with np.load(GOLDEN / name) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def ruled_array(
    key: str, shape: Sequence[int], norm: str = r"\.bn|^bn|downsample\.1"
) -> np.ndarray:
    """One weight by the rule of golden/README.md; `norm` finds the keys of norm layers."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape)
    if key.endswith("running_mean"):
        return rng.normal(0, 0.1, shape)
    if len(shape) == 4:
        return rng.normal(0, np.sqrt(1 / np.prod(shape[1:])), shape)
    if re.search(norm, key):
        return rng.uniform(0.4, 0.7, shape) if key.endswith("weight") else rng.normal(0, 0.1, shape)
    values = rng.normal(0, 0.05, shape)
    return values - 2.0 if key == "classificationModel.output.bias" else values


def take_ruled_weights(model: nn.Module) -> None:
    """Give a model the weights that the reference values are for."""
    weights = model.state_dict()
    for key, value in weights.items():
        if value.is_floating_point():
            value.copy_(torch.from_numpy(ruled_array(key, tuple(value.shape))))


def ruled_images(seed: int, height: int, width: int) -> Tensor:
    """The two images [2, 3, H, W] that the reference values are for."""
    pixels = np.random.default_rng(seed).normal(0, 1, (2, 3, height, width))
    return torch.from_numpy(pixels.astype(np.float32))


def worst_match(found: Any, expected: Any) -> float:
    """How far the worst of the expected detections is from the nearest found one of its label.

    Scores lie close together, so that rounding may change their order.

    Args:
        found: scores [D], labels [D], boxes [D, 4].
        expected: the same, other D.
    """
    worst = 0.0
    for score, label, box in zip(*expected, strict=True):
        same = found[1] == label
        distance = (found[2][same] - box).abs().amax(dim=1).maximum((found[0][same] - score).abs())
        worst = max(worst, distance.min().item() if len(distance) else float("inf"))
    return worst


class NoHostSync(TorchDispatchMode):
    """Refuses what would make the host wait, were the tensors on a GPU."""

    aten = torch.ops.aten
    VALUE_READ = (aten._local_scalar_dense, aten.equal)
    SHAPE_FROM_VALUES = (aten.nonzero, aten.masked_select, aten._unique2, aten.repeat_interleave)
    MADE_FROM_NUMBERS = (aten.lift_fresh,)  # torch.tensor(...): a copy from pageable memory
    INDEXED = (aten.index, aten.index_put, aten.index_put_)  # a mask is turned into indices

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operator = func.overloadpacket
        forbidden = self.VALUE_READ + self.SHAPE_FROM_VALUES + self.MADE_FROM_NUMBERS
        masks = operator in self.INDEXED and any(
            isinstance(index, Tensor) and index.dtype == torch.bool
            for index in tree_leaves(args[1])
        )
        if operator in forbidden or masks:
            raise AssertionError(f"{func} would make the host wait for a GPU")
        return func(*args, **(kwargs or {}))
