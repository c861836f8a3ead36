"""Other projects that train this network: their names of its weights, and their settings."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from retinanet.boxes import LOG_RATIO_LIMITS

BN_EPS = 1e-5  # of batch norm: torch's default, and so ours


@dataclass(frozen=True)
class Source:
    """A project that trains the same network, and how it differs."""

    title: str
    backbone: Callable[[str], str]
    """Their name of a ResNet's weight, from ours."""
    names: tuple[str, ...]
    """Its names of the modules of `_OURS`, as far as it has them."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of our model that make it theirs."""
    anchor_order: tuple[int, ...] = tuple(range(9))
    """Its anchor that is our first, second ..."""
    bn_eps: float = BN_EPS
    bgr: bool = False
    """Its images are BGR of 0..255, less the mean colour."""
    renamed: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = ()
    """Patterns of other names that its files may have, and what they are now."""
    unused: str = r"(?!)"
    """Pattern of the names in its files that no detection depends on."""

    def module_names(self) -> dict[str, str]:
        """Our names of the modules after the ResNet, and its names."""
        pairs = zip(_OURS, self.names, strict=False)  # norms stand last, and few have them
        return {
            our: its
            for ours, theirs in pairs
            for our, its in zip(_spelled_out(ours), _spelled_out(theirs), strict=True)
        }

    def weight_names(self, ours: Iterable[str]) -> dict[str, str]:
        """Our names of a model's weights, and its names."""
        modules = self.module_names()
        result = {}
        for name in ours:
            module, _, leaf = name.rpartition(".")
            result[name] = f"{modules[module]}.{leaf}" if module in modules else self.backbone(name)
        return result


def _detectron2_backbone(name: str) -> str:
    """`layer1.0.bn2.bias` to `backbone.bottom_up.res2.0.conv2.norm.bias`."""
    stage = re.match(r"layer(\d)", name)
    name = f"res{int(stage[1]) + 1}{name[6:]}" if stage else f"stem.{name}"
    name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
    return "backbone.bottom_up." + re.sub(r"bn(\d)", r"conv\1.norm", name)


def _spelled_out(names: str) -> list[str]:
    """`a{1,2}b` to `a1b`, `a2b`."""
    start, _, rest = names.partition("{")
    inside, _, end = rest.partition("}")
    return [start + part + end for part in inside.split(",")]


def _old_torchvision_tower(match: re.Match[str]) -> str:
    """A convolution's number among convolutions and ReLUs, to that among convolutions."""
    return f"_head.conv.{int(match[1]) // 2}.0."


# A name for each of {these}; the projects' names below stand in the same order.
_OURS = (
    "fpn.P{3,4,5}_1",
    "fpn.P{3,4,5}_2",
    "fpn.{P6,P7_2}",
    "classificationModel.conv{1,2,3,4}",
    "classificationModel.output",
    "regressionModel.conv{1,2,3,4}",
    "regressionModel.output",
    "classificationModel.norm{1,2,3,4}",
    "regressionModel.norm{1,2,3,4}",
)

_TORCHVISION = (
    "backbone.fpn.inner_blocks.{0,1,2}.0",
    "backbone.fpn.layer_blocks.{0,1,2}.0",
    "backbone.fpn.extra_blocks.{p6,p7}",
    "head.classification_head.conv.{0,1,2,3}.0",
    "head.classification_head.cls_logits",
    "head.regression_head.conv.{0,1,2,3}.0",
    "head.regression_head.bbox_reg",
    "head.classification_head.conv.{0,1,2,3}.1",
    "head.regression_head.conv.{0,1,2,3}.1",
)

_DETECTRON2 = (
    "backbone.fpn_lateral{3,4,5}",
    "backbone.fpn_output{3,4,5}",
    "backbone.top_block.{p6,p7}",
    "head.cls_subnet.{0,2,4,6}",
    "head.cls_score",
    "head.bbox_subnet.{0,2,4,6}",
    "head.bbox_pred",
)

_MMDETECTION = (
    "neck.lateral_convs.{0,1,2}.conv",
    "neck.fpn_convs.{0,1,2}.conv",
    "neck.fpn_convs.{3,4}.conv",
    "bbox_head.cls_convs.{0,1,2,3}.conv",
    "bbox_head.retina_cls",
    "bbox_head.reg_convs.{0,1,2,3}.conv",
    "bbox_head.retina_reg",
)

_ODTK = (
    "lateral{3,4,5}",
    "smooth{3,4,5}",
    "pyramid{6,7}",
    "cls_head.{0,2,4,6}",
    "cls_head.8",
    "box_head.{0,2,4,6}",
    "box_head.8",
)

_TORCHVISION_RENAMED = (
    (r"((?:inner|layer)_blocks\.\d)\.(?=weight|bias)", r"\1.0."),
    (r"_head\.conv\.(\d)\.(?=weight|bias)", _old_torchvision_tower),
)

_UPPER = LOG_RATIO_LIMITS[1]

SOURCES = {
    "torchvision": Source(
        "torchvision's RetinaNet",
        "backbone.body.{}".format,
        _TORCHVISION,
        {"anchor_grid": "torchvision", "p6_from_p5": True},
        bn_eps=0.0,  # of the published file; torchvision's code sets it for that file alone
        renamed=_TORCHVISION_RENAMED,
    ),
    "torchvision_v2": Source(
        "torchvision's RetinaNet v2",
        "backbone.body.{}".format,
        _TORCHVISION,
        {"anchor_grid": "torchvision", "group_norm": True},
        renamed=_TORCHVISION_RENAMED,
    ),
    "detectron2": Source(
        "detectron2's RetinaNet",
        _detectron2_backbone,
        _DETECTRON2,
        {"anchor_grid": "corner", "stride_in_1x1": True},
        anchor_order=(0, 3, 6, 1, 4, 7, 2, 5, 8),
        bgr=True,
        unused=r"pixel_(mean|std)$|anchor_generator\.",
    ),
    "mmdetection": Source(
        "mmdetection's RetinaNet",
        "backbone.{}".format,
        _MMDETECTION,
        {"anchor_grid": "corner", "log_ratio_limits": (-_UPPER, _UPPER), "p7_relu": False},
    ),
    "odtk": Source(
        "ODTK's RetinaNet",
        "features.{}".format,
        _ODTK,
        {"anchor_grid": "odtk", "log_ratio_limits": (-torch.inf, torch.inf)},
        anchor_order=(2, 5, 8, 0, 3, 6, 1, 4, 7),
        renamed=((r"^backbones\.ResNet\d+FPN\.", ""),),
        unused=r"features\.fc\.",
    ),
}
