"""The plain loop: the original's way, written directly in torch and numpy, to compare with.

Network, loss and step as the original does them: batch norm as a layer, NCHW float32, anchors made
in numpy at each forward, a focal loss of probabilities with a dense target for each image. It gives
the numbers that the package gives. Detection is in `plain_detection`.
"""

import copy
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_iou

from retinanet.backbone import BasicBlock, Bottleneck
from retinanet.model import Head, RetinaNet

BOX_STD = (0.1, 0.1, 0.2, 0.2)


class PlainRetinaNet(nn.Module):
    """A copy of a model's layers, applied the plain way; batch norm's statistics are kept."""

    def __init__(self, model: RetinaNet) -> None:
        super().__init__()
        # One memory format for all: `to` asks for it at every 4-D weight.
        self.net = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
        self.net.freeze_bn()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images [B, 3, H, W] to probabilities [B, N, K], deltas [B, N, 4] and anchors [N, 4]."""
        net, fpn = self.net, self.net.fpn
        x = F.relu(net.bn1(net.conv1(images)), inplace=True)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        C3 = _stage(net.layer2, _stage(net.layer1, x))
        C4 = _stage(net.layer3, C3)
        C5 = _stage(net.layer4, C4)
        top5 = fpn.P5_1(C5)
        top4 = fpn.P4_1(C4) + _upsampled(top5, C4)
        top3 = fpn.P3_1(C3) + _upsampled(top4, C3)
        P6 = fpn.P6(C5)
        levels = [fpn.P3_2(top3), fpn.P4_2(top4), fpn.P5_2(top5), P6, fpn.P7_2(F.relu(P6))]
        deltas = torch.cat([_head(net.regressionModel, level) for level in levels], dim=1)
        logits = [_head(net.classificationModel, level) for level in levels]
        probabilities = torch.cat([torch.sigmoid(level) for level in logits], dim=1)
        H, W = images.shape[-2:]
        return probabilities, deltas, torch.from_numpy(anchors(H, W))


def _upsampled(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="nearest")


def _stage(blocks: nn.Sequential, x: Tensor) -> Tensor:
    for block in blocks:
        x = _block(cast(BasicBlock | Bottleneck, block), x)
    return x


def _block(block: BasicBlock | Bottleneck, x: Tensor) -> Tensor:
    """A residual block of ResNet."""
    out = F.relu(block.bn1(block.conv1(x)), inplace=True)
    out = block.bn2(block.conv2(out))
    if isinstance(block, Bottleneck):
        out = block.bn3(block.conv3(F.relu(out, inplace=True)))
    out += x if block.downsample is None else block.downsample(x)
    return F.relu(out, inplace=True)


def _head(head: Head, x: Tensor) -> Tensor:
    for conv in (head.conv1, head.conv2, head.conv3, head.conv4):
        x = F.relu(conv(x))
    return head.output(x).permute(0, 2, 3, 1).contiguous().view(len(x), -1, head.outputs)


def anchors(height: int, width: int) -> NDArray[np.float32]:
    """All anchors of an image: [N, 4] xyxy."""
    ratios = np.repeat([0.5, 1.0, 2.0], 3)
    scales = np.tile(2 ** (np.arange(3) / 3), 3)
    levels = []
    for level in range(3, 8):
        stride = 2**level
        widths = np.sqrt((4 * stride * scales) ** 2 / ratios)
        sizes = np.stack((widths, widths * ratios), axis=1)  # [A, 2]
        x, y = (stride * (np.arange(-(-side // stride)) + 0.5) for side in (width, height))
        centers = np.stack(np.meshgrid(x, y), axis=2).reshape(-1, 1, 2)  # [cells, 1, 2]
        boxes = np.concatenate((centers - sizes / 2, centers + sizes / 2), axis=2)
        levels.append(boxes.reshape(-1, 4))
    return np.concatenate(levels).astype(np.float32)


def losses(model: PlainRetinaNet, images: Tensor, annotations: Tensor) -> tuple[Tensor, Tensor]:
    """Both losses of a batch [B, 3, H, W] with annotations [B, M, 5], rows of -1 being padding."""
    probabilities, deltas, boxes = model(images)
    results = [
        image_losses(p, d, boxes, annotation[annotation[:, 4] != -1])
        for p, d, annotation in zip(probabilities, deltas, annotations, strict=True)
    ]
    classification, regression = zip(*results, strict=True)
    return torch.stack(classification).mean(), torch.stack(regression).mean()


def image_losses(
    p: Tensor, deltas: Tensor, anchors: Tensor, truth: Tensor
) -> tuple[Tensor, Tensor]:
    """Focal loss and smooth L1 of one image: p [N, K], deltas and anchors [N, 4], truth [M, 5]."""
    p = p.clamp(1e-4, 1 - 1e-4)
    if not len(truth):
        return (0.75 * p**2 * -torch.log(1 - p)).sum(), torch.zeros(())
    iou, best = box_iou(anchors, truth[:, :4]).max(dim=1)
    matched = truth[best]
    positive = iou >= 0.5
    target = torch.full_like(p, -1)
    target[iou < 0.4] = 0
    target[positive] = 0
    target[positive, matched[positive, 4].long()] = 1
    alpha = torch.where(target == 1, 0.25, 0.75)
    wrongness = torch.where(target == 1, 1 - p, p)
    entropy = -(target * torch.log(p) + (1 - target) * torch.log(1 - p))
    focal = torch.where(target != -1, alpha * wrongness**2 * entropy, 0.0)
    classification = focal.sum() / positive.sum().clamp(min=1)
    if not positive.any():
        return classification, torch.zeros(())
    near, boxes = anchors[positive], matched[positive, :4]
    sizes, box_sizes = near[:, 2:] - near[:, :2], boxes[:, 2:] - boxes[:, :2]
    shifts = (boxes[:, :2] + box_sizes / 2 - near[:, :2] - sizes / 2) / sizes
    ratios = torch.log(box_sizes.clamp(min=1) / sizes)
    wanted = torch.cat((shifts, ratios), dim=1) / torch.tensor(BOX_STD)
    distance = (wanted - deltas[positive]).abs()
    smooth = torch.where(distance <= 1 / 9, 4.5 * distance**2, distance - 0.5 / 9)
    return classification, smooth.mean()


def train_step(
    model: PlainRetinaNet, optimizer: torch.optim.Optimizer, images: Tensor, annotations: Tensor
) -> float:
    """Forward, backward, clip, step; the loss."""
    optimizer.zero_grad()
    classification, regression = losses(model, images, annotations)
    loss = classification + regression
    if loss == 0:
        return 0.0
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    optimizer.step()
    return loss.item()
