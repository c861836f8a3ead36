"""RetinaNets of other projects: their names, orders and units converted to ours, and back.

What can be said in the weights is folded into them: the order of anchors, classes and colours, the
units of the deltas, the epsilon of batch norm. The rest are settings of the model.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.models.detection import (
    RetinaNet_ResNet50_FPN_V2_Weights,
    RetinaNet_ResNet50_FPN_Weights,
)

from retinanet.backbone import LAYERS, hub_file
from retinanet.boxes import CENTER_STD, SIZE_STD
from retinanet.data.transforms import STD
from retinanet.errors import DataError, first_few, printable, shown
from retinanet.model import ModelConfig, empty_weights
from retinanet.weights.projects import BN_EPS, SOURCES, Source

ODTK_ANCHORS = {"ratios": "1, 2, 0.5", "scales": "4, 5.04, 6.35"}  # as its files should have them

# torchvision's classifier has a column for every COCO id; eleven of them never had a class.
_CATEGORIES = RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
COCO_IDS = [i for i, name in enumerate(_CATEGORIES) if name not in ("__background__", "N/A")]
COCO_NAMES = tuple(_CATEGORIES[i] for i in COCO_IDS)
_SILENT = -20.0  # the logit of a column without a class
_DELTA_UNITS = torch.tensor([CENTER_STD, CENTER_STD, SIZE_STD, SIZE_STD], dtype=torch.float64)
_INPUT_UNITS = 255 * torch.tensor(STD, dtype=torch.float64).view(3, 1, 1)


# ---- their files in our weights ----


class Converted(NamedTuple):
    """A model of another project as one of ours."""

    config: ModelConfig
    weights: dict[str, Tensor]
    class_names: tuple[str, ...]
    """COCO's, where their number says so; else empty."""
    note: str
    """Assumption that was made, if any."""


def state_dict(content: object, source_name: str, file: object) -> dict[str, Any]:
    """The state dict in a project's file, by the names that the project has today.

    Args:
        content: of the file.
        source_name: a key of `SOURCES`.
        file: what the messages call it.

    Raises:
        DataError: there is none, or the file says itself that the model cannot be converted.
    """
    source = SOURCES[source_name]
    if isinstance(content, Mapping):
        _check_wrapper(content, file)
        content = content.get("model", content.get("state_dict", content))
    if not isinstance(content, Mapping):
        raise DataError(f"{file}: it holds no state dict; expected {source.title}")
    result = {}
    for name, value in content.items():
        today = str(name).removeprefix("module.")
        for pattern, replacement in source.renamed:
            today = re.sub(pattern, replacement, today)
        if not re.match(source.unused, today):
            result[today] = value
    return result


def _check_wrapper(content: Mapping[Any, Any], file: object) -> None:
    """Refuse what a file says of its model and the weights alone do not show."""
    for name, expected in ODTK_ANCHORS.items():
        if name in content and (found := _four_digits(content[name])) != expected:
            raise DataError(f"{file}: its anchors' {name} are {found}; expected {expected}")
    meta = content.get("meta")
    settings = meta.get("config") or meta.get("cfg") if isinstance(meta, Mapping) else ""
    if isinstance(settings, str) and re.search(r"style=['\"]caffe['\"]", settings):
        raise DataError(
            f"{file}: its ResNet is of style 'caffe', which takes other images; expected 'pytorch'"
        )


def _four_digits(values: object) -> str:
    """A list of numbers from a file, for comparing and saying."""
    if isinstance(values, list | tuple) and all(isinstance(v, int | float) for v in values):
        return ", ".join(f"{value:.4g}" for value in values)
    return printable(shown(values))


def convert(
    tensors: Mapping[str, Tensor], source_name: str, file: object, bn_eps: float | None = None
) -> Converted:
    """Convert another project's weights to ours.

    Args:
        tensors: as `state_dict` gives them.
        source_name: a key of `SOURCES`.
        file: what the messages call it.
        bn_eps: epsilon of the model's batch norm; None for that of the published files.

    Raises:
        DataError: they are not exactly the weights of a RetinaNet of that project.
    """
    source = SOURCES[source_name]
    config = _config(tensors, source, file)
    names = source.weight_names(empty_weights(config))
    _check(tensors, names, config, source, file)
    # Batch norm's counters are no weights, and few files have them.
    weights = {
        ours: torch.tensor(0) if ours.endswith("num_batches_tracked") else tensors[its].float()
        for ours, its in names.items()
    }

    note = ""
    if bn_eps is None:
        counts_batches = names["bn1.num_batches_tracked"] in tensors
        bn_eps, note = _guess_epsilon(source, counts_batches)
    _fold_epsilon(weights, bn_eps)
    if source.bgr:
        weights["conv1.weight"] = (weights["conv1.weight"].flip(1) * _INPUT_UNITS).float()

    order = list(source.anchor_order)
    knows_coco = config.num_classes == len(_CATEGORIES)
    columns = COCO_IDS if knows_coco else list(range(config.num_classes))
    _change_output(weights, "classificationModel", lambda rows: rows[order][:, columns])
    _change_output(weights, "regressionModel", lambda rows: _times(rows[order], 1 / _DELTA_UNITS))
    config = replace(config, num_classes=len(columns))
    class_names = COCO_NAMES if len(columns) == len(COCO_NAMES) else ()
    return Converted(config, weights, class_names, note)


def _config(tensors: Mapping[str, Tensor], source: Source, file: object) -> ModelConfig:
    """The settings of a model: the depth that fits the names best, classes by the output's rows."""
    output = f"{source.module_names()['classificationModel.output']}.bias"
    if output not in tensors:
        raise DataError(
            f"{file}: there is no {output} in it, so it is not {source.title}; it holds"
            f" {first_few(tensors, 3)}; give --from the project that wrote it"
        )
    K = max(1, tensors[output].numel() // 9)

    def misfits(config: ModelConfig) -> int:
        return len(tensors.keys() ^ source.weight_names(empty_weights(config)).values())

    return min((ModelConfig(K, depth, **source.settings) for depth in LAYERS), key=misfits)


def _check(
    tensors: Mapping[str, Tensor],
    names: Mapping[str, str],
    config: ModelConfig,
    source: Source,
    file: object,
) -> None:
    """Refuse tensors that are not exactly those of a model."""
    shapes = {names[name]: tensor.shape for name, tensor in empty_weights(config).items()}
    present = [name for name in shapes if name in tensors]
    problems = {
        "missing": [name for name, shape in shapes.items() if name not in tensors and shape],
        "left over": [name for name in tensors if name not in shapes],
        "of another shape": [
            f"{name} ({list(tensors[name].shape)}, expected {list(shapes[name])})"
            for name in present
            if tensors[name].shape != shapes[name]
        ],
    }
    found = [f"{len(some)} {what}: {first_few(some, 3)}" for what, some in problems.items() if some]
    if found:
        raise DataError(
            f"{file}: its weights are not those of {source.title} on a ResNet-{config.depth}:"
            f" {'; '.join(found)}; give --from the project and version that wrote it"
        )


def _guess_epsilon(source: Source, counts_batches: bool) -> tuple[float, str]:
    """The epsilon of a model's batch norm, and a note where it could be another."""
    if source.bn_eps == BN_EPS:
        return BN_EPS, ""
    if counts_batches:
        return BN_EPS, f"its batch norm counts batches, so its epsilon is {BN_EPS:g}"
    return source.bn_eps, (
        f"its batch norm is taken to have an epsilon of {source.bn_eps:g}, as the published file;"
        f" a model trained from a backbone alone needs --bn_eps {BN_EPS:g}"
    )


def _fold_epsilon(weights: dict[str, Tensor], bn_eps: float) -> None:
    """Change the gains so that batch norm with our epsilon gives what it gave with `bn_eps`."""
    for name in [name for name in weights if name.endswith(".running_var")]:
        gain, variance = f"{name.removesuffix('running_var')}weight", weights[name].double()
        ratio = (variance + BN_EPS) / (variance + bn_eps)
        weights[gain] = (weights[gain] * ratio.sqrt()).float()


def _change_output(
    weights: dict[str, Tensor], head: str, change: Callable[[Tensor], Tensor]
) -> None:
    """Change the weight and the bias of an output, seen as [9, outputs of an anchor, ...]."""
    for name in (f"{head}.output.weight", f"{head}.output.bias"):
        rows = weights[name].double()
        rows = rows.reshape(9, -1, *rows.shape[1:])
        weights[name] = change(rows).float().flatten(0, 1)


def _times(rows: Tensor, units: Tensor) -> Tensor:
    """Rows of a box output [9, 4, ...], each of the four times its unit."""
    return rows * units.view(4, *[1] * (rows.dim() - 2))


# ---- the files that torchvision publishes ----

PUBLISHED = {
    "torchvision-coco": ("torchvision", RetinaNet_ResNet50_FPN_Weights.COCO_V1.url),
    "torchvision-coco-v2": ("torchvision_v2", RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1.url),
}


def published(name: str) -> Converted:
    """A model that torchvision trained on COCO, from torch.hub's cache or downloaded into it.

    Args:
        name: a key of `PUBLISHED`.

    Raises:
        DataError: there is no such file and no network, or the file is not the published one.
    """
    source, url = PUBLISHED[name]
    tensors = state_dict(hub_file(url, name, "or give another file"), source, name)
    return convert(tensors, source, name, SOURCES[source].bn_eps)


# ---- and back ----


def to_torchvision(
    config: ModelConfig, weights: Mapping[str, Tensor], class_names: Sequence[str], file: object
) -> tuple[dict[str, Tensor], int]:
    """A model of ours as torchvision's RetinaNet: the inverse of `convert`.

    COCO's classes get the columns of their ids again, other classes keep their labels.

    Args:
        config: of the model.
        weights: of the model.
        class_names: of the model.
        file: what the messages call it.

    Returns:
        Its state dict there, where batch norm's epsilon is 1e-5, and its number of classes there.

    Raises:
        DataError: torchvision has no such model.
    """
    source = SOURCES["torchvision_v2" if config.group_norm else "torchvision"]
    twin = asdict(ModelConfig(config.num_classes, config.depth, **source.settings))
    others = [
        f"{name} is {value}, not {twin[name]}"
        for name, value in asdict(config).items()
        if value != twin[name]
    ]
    if others:
        raise DataError(
            f"{file}: torchvision has no such model: its {'; its '.join(others)}; only what began"
            " with torchvision's weights can go back"
        )
    result = dict(weights)
    _change_output(result, "regressionModel", lambda rows: _times(rows, _DELTA_UNITS))
    K = config.num_classes
    if tuple(class_names) == COCO_NAMES:
        K = len(_CATEGORIES)
        _change_output(result, "classificationModel", _columns_by_id)
    names = source.weight_names(result)
    return {names[ours]: tensor for ours, tensor in result.items()}, K


def _columns_by_id(rows: Tensor) -> Tensor:
    """Rows of COCO's 80 classes [9, 80, ...] as rows by COCO's ids [9, 91, ...]."""
    silent = _SILENT if rows.dim() == 2 else 0.0  # the bias, or the weight
    result = rows.new_full((9, len(_CATEGORIES), *rows.shape[2:]), silent)
    result[:, COCO_IDS] = rows
    return result
