"""The networks and training steps that are compared: ours, the plain loop's and torchvision's.

All sides get the same images and boxes. The functions named `..._step` prepare a side and return a
function that takes one step.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from benchmarks.sides import plain
from benchmarks.sides.measure import Function
from retinanet.data.batches import Batch
from retinanet.data.transforms import MEAN, STD
from retinanet.model import ModelConfig, RetinaNet
from retinanet.runtime.device import memory_format, start_runtime
from retinanet.runtime.distributed import global_batch
from retinanet.training.loss_log import LossLog
from retinanet.training.optim import OptimConfig
from retinanet.training.run_log import RunLog
from retinanet.training.trainer import Training

CLASSES = 80
BATCH = 2
BOXES = 8  # of an image, unless said otherwise
SCORE_THRESHOLD = 0.05


def image_size(side: int) -> tuple[int, int]:
    """(height, width): 608 x 832 and its like."""
    return side, 32 * round(side * 26 / 19 / 32)


def pictures(side: int, count: int = BATCH) -> Tensor:
    """Noise of 0..1: [B, 3, H, W]."""
    return torch.rand(count, 3, *image_size(side), generator=torch.Generator().manual_seed(0))


def normalised(images: Tensor) -> Tensor:
    """Images [B, 3, H, W] of 0..1 as our network wants them."""
    mean, std = (images.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    return (images - mean) / std


def annotations(side: int, boxes: int = BOXES) -> Tensor:
    """Boxes all over the images, of 5 to 38 % of their side: [B, M, 5]."""
    random = torch.Generator().manual_seed(1)
    height, width = image_size(side)
    sizes = side * (0.05 + 0.33 * torch.rand(BATCH, boxes, 2, generator=random))
    corners = torch.rand(BATCH, boxes, 2, generator=random) * (
        torch.tensor([width, height]) - sizes
    )
    labels = torch.randint(CLASSES, (BATCH, boxes, 1), generator=random)
    return torch.cat((corners, corners + sizes, labels), dim=2)


def our_model(depth: int, *, training: bool = False) -> RetinaNet:
    """Ours, untrained, in the memory format that the scripts give it."""
    torch.manual_seed(0)
    model = RetinaNet(ModelConfig(CLASSES, depth))
    return model.to(memory_format=memory_format(torch.device("cpu"), training=training))


def torchvision_model(
    side: int,
    depth: int,
    classes: int = CLASSES,
    norm_layer: Callable[[int], nn.Module] = FrozenBatchNorm2d,
    seed: int = 0,
    trainable: int = 5,
) -> TorchvisionRetinaNet:
    """Theirs: `retinanet_resnet50_fpn`; all layers learn unless said."""
    torch.manual_seed(seed)
    backbone = resnet_fpn_backbone(
        backbone_name=f"resnet{depth}",
        weights=None,
        norm_layer=norm_layer,
        trainable_layers=trainable,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    longest = round(side * 1024 / 608)
    return TorchvisionRetinaNet(
        backbone, classes, min_size=side, max_size=longest, detections_per_img=100
    )


def our_step(
    side: int, depth: int, precision: str = "auto", boxes: int = BOXES, trainable: int = 5
) -> Function:
    """A step of train.py with its default flags, or another precision, or fewer layers to learn."""
    runtime = start_runtime("cpu", precision)
    model = our_model(depth, training=True)
    optim = OptimConfig(trainable_layers=trainable)
    training = Training(model, runtime, optim, LossLog(RunLog(), Path, skips_overflow=False))
    model.train()
    model.freeze_bn()
    images = normalised(pictures(side)).contiguous(memory_format=torch.channels_last)
    batch: Batch = {"img": images, "annot": annotations(side, boxes)}
    joint = global_batch(*images.shape[-2:], len(images), stop=False)
    return lambda: training.train_step(batch, joint)


def plain_step(side: int, depth: int) -> Function:
    """A step of the plain loop in float32."""
    model = plain.PlainRetinaNet(our_model(depth, training=True))
    optimizer = torch.optim.Adam(model.parameters(), lr=OptimConfig.lr)
    images, boxes = normalised(pictures(side)), annotations(side)
    return lambda: plain.train_step(model, optimizer, images, boxes)


def torchvision_step(side: int, depth: int, best: bool = False) -> Function:
    """A step of torchvision's, with fused Adam; `best` is channels_last with bf16 autocast."""
    model = torchvision_model(side, depth).train()
    if best:
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=OptimConfig.lr, fused=True)
    images = list(pictures(side))
    targets = [{"boxes": rows[:, :4], "labels": rows[:, 4].long()} for rows in annotations(side)]

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if best else contextlib.nullcontext():
            loss = sum(model(images, targets).values())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), OptimConfig.clip_norm)
        optimizer.step()

    return step


@torch.no_grad()
def spread(output: nn.Conv2d, values: Callable[[], Tensor], deviation: float) -> None:
    """Give an output layer random weights with which its values spread as they should."""
    nn.init.normal_(output.weight, std=0.01)
    nn.init.zeros_(output.bias)  # type: ignore[arg-type]
    output.weight *= deviation / values().std()


@torch.no_grad()
def let_pass(output: nn.Conv2d, logits: Callable[[], Tensor], candidates: int) -> None:
    """Spread the scores and shift them, so that this many pairs of anchor and class pass."""
    spread(output, logits, 1.0)
    worst = logits().flatten().topk(candidates).values[-1]
    output.bias += torch.logit(torch.tensor(SCORE_THRESHOLD)) - worst  # type: ignore[operator]
