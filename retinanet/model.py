"""RetinaNet: a ResNet, a feature pyramid, and two towers shared over its levels (paper, section 4).

Attribute names are the keys of the state dict and frozen: published weights load key for key.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retinanet.anchors import GRIDS, RATIOS, SCALES, SIZES, Anchors, level_shapes
from retinanet.atss import match_atss
from retinanet.backbone import LAYERS, WIDTH, conv_bn, imagenet_weights, make_layers
from retinanet.boxes import LOG_RATIO_LIMITS
from retinanet.errors import counted
from retinanet.losses import FocalLoss, Matcher, match_anchors
from retinanet.postprocess import (
    DEFAULT_LIMITS,
    DetectionLimits,
    Detections,
    best_candidates,
    suppress,
)
from retinanet.runtime.device import memory_format

PRIOR = 0.01  # score of every anchor and class in an untrained model (paper, section 3.3)
GROUPS = 32  # of group norm
MATCHINGS = ("iou", "atss")  # the original's, by thresholds of IoU; and `atss.match_atss`


@dataclass(frozen=True)
class ModelConfig:
    """All that decides the shapes and the meaning of a model's weights; kept in its checkpoint.

    The defaults are the original's. The fields below the anchors are for weights that were trained
    by other projects (`weights.projects`).
    """

    num_classes: int
    depth: int = 50
    """Layers of the ResNet: 18, 34, 50, 101 or 152."""
    anchor_sizes: tuple[float, ...] = SIZES
    """Side of the square anchor of scale 1 on P3 to P7, pixels of the network's input."""
    anchor_ratios: tuple[float, ...] = RATIOS
    """Height / width."""
    anchor_scales: tuple[float, ...] = SCALES
    anchor_grid: str = GRIDS[0]
    """Place of the anchors on their cells: one of `anchors.GRIDS`."""
    log_ratio_limits: tuple[float, float] = LOG_RATIO_LIMITS
    """Minimum and maximum of the logarithms of box / anchor."""
    stride_in_1x1: bool = False
    """Stride of a bottleneck block in its first 1x1 instead of its 3x3."""
    p6_from_p5: bool = False
    """Compute P6 from P5 instead of from C5."""
    p7_relu: bool = True
    """ReLU between P6 and P7."""
    group_norm: bool = False
    """Group norm after each convolution of the towers, which then has no bias."""
    channels: int = 256
    """Channels of the pyramid's levels and of the towers."""
    head_convs: int = 4
    """3x3 convolutions in each tower, before its output."""

    def __post_init__(self) -> None:
        if self.depth not in LAYERS:
            raise ValueError(
                f"depth is {self.depth}; expected one of {', '.join(map(str, LAYERS))}"
            )
        if self.num_classes < 1:
            raise ValueError(f"num_classes is {self.num_classes}; expected at least 1")
        if self.anchor_grid not in GRIDS:
            raise ValueError(
                f"anchor_grid is {self.anchor_grid}; expected one of {', '.join(GRIDS)}"
            )
        if self.channels < 1 or (self.group_norm and self.channels % GROUPS):
            raise ValueError(
                f"channels is {self.channels}; expected at least 1, with group norm a multiple of"
                f" {GROUPS}"
            )
        if self.head_convs < 0:
            raise ValueError(f"head_convs is {self.head_convs}; expected at least 0")

    @property
    def title(self) -> str:
        """Name of the network; with its size where that is not the original's."""
        size = []
        if self.channels != ModelConfig.channels:
            size.append(f"{self.channels} channels")
        if self.head_convs != ModelConfig.head_convs:
            size.append(counted(self.head_convs, "head convolution"))
        return f"ResNet-{self.depth} RetinaNet" + (f" ({', '.join(size)})" if size else "")

    @property
    def anchors_per_cell(self) -> int:
        """A, 9 by default."""
        return len(self.anchor_ratios) * len(self.anchor_scales)


class PyramidFeatures(nn.Module):
    """Feature pyramid P3 to P7 from C3, C4 and C5 (Lin et al., 2017; P6 from C5 as in the paper).

    Args:
        C3: channels of the stage of stride 8.
        C4: of stride 16.
        C5: of stride 32.
        channels: of every level of the pyramid.
        p6_from_p5: make P6 of P5 instead.
        p7_relu: whether P7 is made of what is positive in P6.
    """

    def __init__(
        self,
        C3: int,
        C4: int,
        C5: int,
        channels: int = 256,
        *,
        p6_from_p5: bool = False,
        p7_relu: bool = True,
    ) -> None:
        super().__init__()
        self.p6_from_p5, self.p7_relu = p6_from_p5, p7_relu
        self.P5_1 = nn.Conv2d(C5, channels, 1)
        self.P5_2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.P4_1 = nn.Conv2d(C4, channels, 1)
        self.P4_2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.P3_1 = nn.Conv2d(C3, channels, 1)
        self.P3_2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.P6 = nn.Conv2d(channels if p6_from_p5 else C5, channels, 3, stride=2, padding=1)
        self.P7_2 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, C3: Tensor, C4: Tensor, C5: Tensor) -> list[Tensor]:
        """P3 to P7: [B, channels, H / 2^l, W / 2^l] each, sizes rounded up."""
        lateral5 = self.P5_1(C5)
        lateral4 = _add_upsampled(self.P4_1(C4), lateral5)
        lateral3 = _add_upsampled(self.P3_1(C3), lateral4)
        P5 = self.P5_2(lateral5)
        P6 = self.P6(P5 if self.p6_from_p5 else C5)
        # Float32, at no cost: where P6 is one cell wide, oneDNN's bf16 weight gradient of a strided
        # convolution is NaN.
        with torch.autocast(P6.device.type, enabled=False):
            P7 = self.P7_2((F.relu(P6) if self.p7_relu else P6).to(self.P7_2.weight))
        return [self.P3_2(lateral3), self.P4_2(lateral4), P5, P6, P7]


def _add_upsampled(lateral: Tensor, top: Tensor) -> Tensor:
    """Add the coarser map, each cell repeated, in place; sizes that are odd are cut."""
    return lateral.add_(F.interpolate(top, size=lateral.shape[-2:], mode="nearest"))


class Head(nn.Module):
    """A tower of 3x3 convolutions with ReLU and an output, the same on every level.

    Args:
        anchors: per cell.
        outputs: per anchor: classes, or 4 deltas.
        channels: of the levels and of the tower.
        convs: in the tower.
        group_norm: whether each of the tower's convolutions is normalised.
    """

    def __init__(
        self,
        anchors: int,
        outputs: int,
        channels: int = 256,
        convs: int = 4,
        group_norm: bool = False,
    ) -> None:
        super().__init__()
        self.anchors, self.outputs, self.convs = anchors, outputs, convs
        for i in range(1, convs + 1):  # conv1 ... conv4: the original's names
            conv = nn.Conv2d(channels, channels, 3, padding=1, bias=not group_norm)
            self.add_module(f"conv{i}", conv)
        for i in range(1, convs + 1):
            norm = nn.GroupNorm(GROUPS, channels) if group_norm else nn.Identity()
            self.add_module(f"norm{i}", norm)
        self.output = nn.Conv2d(channels, anchors * outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, h, w] of one level to [B, h * w * A, outputs], in the anchors' order."""
        for i in range(1, self.convs + 1):
            x = F.relu_(getattr(self, f"norm{i}")(getattr(self, f"conv{i}")(x)))
        B, _, H, W = x.shape
        # All sizes are given, none is -1: B may be 0 in a process whose share of a batch is empty.
        return self.output(x).permute(0, 2, 3, 1).reshape(B, H * W * self.anchors, self.outputs)


class RetinaNet(nn.Module):
    """The detector: losses in training mode, detections in evaluation mode.

    Images are float, normalised by ImageNet's mean and deviation (`transforms.Normalizer`). Any
    size will do; a multiple of 32 wastes nothing.

    Args:
        config: the model's settings.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        # Float type of the network in training. Entered inside forward, because the threads of
        # DataParallel do not inherit autocast's dtype. None leaves it to the caller.
        self.autocast: torch.dtype | None = None
        self.matching = MATCHINGS[0]  # of anchors with boxes, in training
        self.conv1 = nn.Conv2d(3, WIDTH, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTH)
        stages, (_, C3, C4, C5) = make_layers(config.depth, config.stride_in_1x1)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        A, channels = config.anchors_per_cell, config.channels
        self.fpn = PyramidFeatures(
            C3, C4, C5, channels, p6_from_p5=config.p6_from_p5, p7_relu=config.p7_relu
        )
        tower = (channels, config.head_convs, config.group_norm)
        self.regressionModel = Head(A, 4, *tower)
        self.classificationModel = Head(A, config.num_classes, *tower)
        self.anchors = Anchors(
            config.anchor_sizes, config.anchor_ratios, config.anchor_scales, config.anchor_grid
        )
        self.loss = FocalLoss()
        self._initialize()

    def _initialize(self) -> None:
        """He-normal convolutions; heads that give all anchors a score of `PRIOR`, deltas of 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for head, bias in (
            (self.classificationModel, -math.log((1 - PRIOR) / PRIOR)),
            (self.regressionModel, 0.0),
        ):
            nn.init.zeros_(head.output.weight)
            nn.init.constant_(head.output.bias, bias)  # type: ignore[arg-type]
        self.freeze_bn()

    def freeze_bn(self) -> None:
        """Keep batch norm's statistics as they are (its weight and bias still learn).

        To be called after every `train()`, which undoes it.
        """
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

    def train_layers(self, count: int) -> None:
        """Let only the last `count` of the ResNet's parts learn: stem, layer1 to layer4.

        What does not learn keeps no activations for a backward pass either.
        """
        stem = nn.ModuleList((self.conv1, self.bn1))
        parts = (stem, self.layer1, self.layer2, self.layer3, self.layer4)
        for i, part in enumerate(parts):
            part.requires_grad_(i >= len(parts) - count)

    def features(self, images: Tensor) -> list[Tensor]:
        """The pyramid P3 to P7 of images [B, 3, H, W]."""
        layout = memory_format(images.device, training=self.training)
        x = images.contiguous(memory_format=layout)
        x = F.relu_(conv_bn(x, self.conv1, self.bn1))
        x = self.layer1(F.max_pool2d(x, 3, stride=2, padding=1))
        C3 = self.layer2(x)
        C4 = self.layer3(C3)
        C5 = self.layer4(C4)
        return self.fpn(C3, C4, C5)

    def head_outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits and box deltas of every anchor.

        Args:
            images: [B, 3, H, W] float, normalised.

        Returns:
            Logits [B, N, K] and deltas [B, N, 4], in the order of `anchors(images)`.
        """
        if not images.is_floating_point():
            raise ValueError(f"images are {images.dtype}; expected normalised floats")
        levels = self.features(images)
        logits = torch.cat([self.classificationModel(level) for level in levels], dim=1)
        deltas = torch.cat([self.regressionModel(level) for level in levels], dim=1)
        return logits, deltas

    def forward(self, inputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, Tensor] | list[Tensor]:
        """Losses of a batch in training mode, detections of one image in evaluation mode.

        Args:
            inputs: in training mode (images [B, 3, H, W], annotations [B, M, 5] padded with rows
                of -1); in evaluation mode one image [1, 3, H, W].

        Returns:
            The classification loss [1] and the regression loss [1]; or scores [D], labels [D] and
            boxes [D, 4] of everything above the thresholds, best first.
        """
        if self.training:
            images, annotations = inputs
            precision = (
                nullcontext()
                if self.autocast is None
                else torch.autocast(images.device.type, self.autocast)
            )
            with precision:
                logits, deltas = self.head_outputs(images)
            match = self._matcher(*images.shape[-2:])
            return self.loss(logits, deltas, self.anchors(images), annotations, match)
        if not isinstance(inputs, Tensor) or len(inputs) != 1:
            raise ValueError(
                f"model(images) takes one image [1, 3, H, W] in evaluation mode, got {len(inputs)};"
                " use model.detect(images, sizes) for a batch, model.train() for losses"
            )
        H, W = inputs.shape[-2:]
        everything = DetectionLimits(candidates_per_level=None, max_detections=None)
        (found,) = self.detect(inputs, [(H, W)], everything)
        return [column.to(inputs.device) for column in found]

    def _matcher(self, height: int, width: int) -> Matcher:
        """Matching of anchors with boxes in images of this size."""
        if self.matching == "iou":
            return match_anchors
        return partial(match_atss, shapes=level_shapes(height, width))

    def detect(
        self,
        images: Tensor,
        sizes: Sequence[tuple[int, int]],
        limits: DetectionLimits = DEFAULT_LIMITS,
    ) -> list[Detections]:
        """Detections of each image of a batch.

        Args:
            images: [B, 3, H, W] float, normalised, padded with zeros.
            sizes: (height, width) of the picture inside each image, to which its boxes are clipped.
            limits: thresholds and maximum numbers.

        Returns:
            One `Detections` an image, on the CPU, in pixels of `images`.
        """
        logits, deltas = self.head_outputs(images)
        H, W = images.shape[-2:]
        lengths = [h * w * self.config.anchors_per_cell for h, w in level_shapes(H, W)]
        anchors = self.anchors(images)[0]
        candidates = best_candidates(
            logits, deltas, anchors, lengths, limits, self.config.log_ratio_limits
        ).cpu()  # the one place where the host waits for the device, once a batch
        return [
            suppress(candidates_of_image, size, limits)
            for candidates_of_image, size in zip(candidates, sizes, strict=True)
        ]


def empty_weights(config: ModelConfig) -> dict[str, Tensor]:
    """The state dict of a model without its numbers: names, shapes and types."""
    with torch.device("meta"):
        return RetinaNet(config).state_dict()


def build_model(config: ModelConfig, pretrained: bool = False) -> RetinaNet:
    """A new model, its backbone trained on ImageNet if wanted.

    Raises:
        DataError: the ImageNet weights are not available.
    """
    weights = imagenet_weights(config.depth) if pretrained else {}
    model = RetinaNet(config)
    model.load_state_dict(weights, strict=False)
    return model


def resnet18(num_classes: int, pretrained: bool = False) -> RetinaNet:
    """RetinaNet on ResNet-18; `pretrained` takes the backbone from ImageNet."""
    return build_model(ModelConfig(num_classes, depth=18), pretrained)


def resnet34(num_classes: int, pretrained: bool = False) -> RetinaNet:
    """RetinaNet on ResNet-34; `pretrained` takes the backbone from ImageNet."""
    return build_model(ModelConfig(num_classes, depth=34), pretrained)


def resnet50(num_classes: int, pretrained: bool = False) -> RetinaNet:
    """RetinaNet on ResNet-50; `pretrained` takes the backbone from ImageNet."""
    return build_model(ModelConfig(num_classes, depth=50), pretrained)


def resnet101(num_classes: int, pretrained: bool = False) -> RetinaNet:
    """RetinaNet on ResNet-101; `pretrained` takes the backbone from ImageNet."""
    return build_model(ModelConfig(num_classes, depth=101), pretrained)


def resnet152(num_classes: int, pretrained: bool = False) -> RetinaNet:
    """RetinaNet on ResNet-152; `pretrained` takes the backbone from ImageNet."""
    return build_model(ModelConfig(num_classes, depth=152), pretrained)
