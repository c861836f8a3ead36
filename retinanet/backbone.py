"""ResNet (He et al., 2016) without its classifier, in torchvision's names and with its weights."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retinanet.errors import DataError

# Blocks in layer1 to layer4, by depth.
LAYERS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
WIDTH = 64  # channels of the stem and of layer1's 3x3 convolutions; each later stage doubles them

# torchvision's IMAGENET1K_V1, whose names end in the first eight digits of the file's SHA-256.
IMAGENET_URLS = {
    18: "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    34: "https://download.pytorch.org/models/resnet34-b627a593.pth",
    50: "https://download.pytorch.org/models/resnet50-0676ba61.pth",
    101: "https://download.pytorch.org/models/resnet101-63fe2227.pth",
    152: "https://download.pytorch.org/models/resnet152-394f9c45.pth",
}

# IMAGENET1K_V2: the same networks trained with a newer recipe, which the small depths lack.
IMAGENET_V2_URLS = {
    50: "https://download.pytorch.org/models/resnet50-11ad3fa6.pth",
    101: "https://download.pytorch.org/models/resnet101-cd907fc2.pth",
    152: "https://download.pytorch.org/models/resnet152-f82ba261.pth",
}


def conv_bn(x: Tensor, conv: nn.Conv2d, bn: nn.BatchNorm2d) -> Tensor:
    """Convolution and batch norm in one pass over the activations.

    With frozen statistics batch norm is an affine map of each channel, so it is folded into the
    convolution: its gain scales the weight, its shift becomes the bias. The gradient reaches gain,
    shift and weight through that product; no activation is touched or kept for it.

    Args:
        x: [B, C, H, W].
        conv: a convolution without bias.
        bn: its batch norm; in training mode (before `freeze_bn`) it is applied as it is, but where
            the batch has no statistics: B = 0, a process's share of a small last batch, or one
            value a channel, as of one image of 32 x 32 pixels.

    Returns:
        [B, C', H', W'].
    """
    if bn.running_var is None or bn.running_mean is None:
        return bn(conv(x))
    if bn.training:
        out = conv(x)
        if out[:, 0].numel() > 1:
            return bn(out)
    gain = bn.weight * torch.rsqrt(bn.running_var + bn.eps)
    shift = bn.bias - bn.running_mean * gain
    weight = conv.weight * gain.view(-1, 1, 1, 1)
    return F.conv2d(x, weight, shift, conv.stride, conv.padding)


def _downsample(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """The shortcut's projection, where the block changes the shape."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
    )


def _add_shortcut(out: Tensor, x: Tensor, downsample: nn.Sequential | None) -> Tensor:
    """The block's end: add its input, projected where shapes differ, then ReLU, in place."""
    shortcut = x if downsample is None else conv_bn(x, downsample[0], downsample[1])  # type: ignore[arg-type]
    return F.relu_(out.add_(shortcut))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions: the block of ResNet-18 and 34."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _downsample(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, channels, H / stride, W / stride]."""
        out = F.relu_(conv_bn(x, self.conv1, self.bn1))
        return _add_shortcut(conv_bn(out, self.conv2, self.bn2), x, self.downsample)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1: the block of ResNet-50, 101 and 152.

    The 3x3 takes the stride, as in torchvision; or the first 1x1, as He et al. had it.
    """

    expansion = 4

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, stride_in_1x1: bool = False
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, channels, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, second, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * channels)
        self.downsample = _downsample(in_channels, 4 * channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, 4 * channels, H / stride, W / stride]."""
        out = F.relu_(conv_bn(x, self.conv1, self.bn1))
        out = F.relu_(conv_bn(out, self.conv2, self.bn2))
        return _add_shortcut(conv_bn(out, self.conv3, self.bn3), x, self.downsample)


def make_layers(depth: int, stride_in_1x1: bool = False) -> tuple[list[nn.Sequential], list[int]]:
    """The four stages of a ResNet and how many channels each one gives.

    Args:
        depth: 18, 34, 50, 101 or 152.
        stride_in_1x1: of the bottleneck blocks.

    Returns:
        layer1 to layer4 (strides 4, 8, 16, 32 of the image), and their channels.
    """
    stages, widths = [], []
    in_channels = WIDTH
    for stage, count in enumerate(LAYERS[depth]):
        channels = WIDTH * 2**stage
        blocks = nn.Sequential()
        for i in range(count):
            stride = 2 if stage > 0 and i == 0 else 1
            block = (
                BasicBlock(in_channels, channels, stride)
                if depth < 50
                else Bottleneck(in_channels, channels, stride, stride_in_1x1)
            )
            blocks.append(block)
            in_channels = channels * block.expansion
        stages.append(blocks)
        widths.append(in_channels)
    return stages, widths


def imagenet_weights(depth: int, *, version: int = 1) -> dict[str, Tensor]:
    """ImageNet weights of torchvision's ResNet.

    Args:
        depth: of the ResNet.
        version: 1 or 2: IMAGENET1K_V1, IMAGENET1K_V2.

    Returns:
        The state dict, with the classifier `fc`.

    Raises:
        DataError: none are published for this depth, there is no such file and no network, or the
            file is not the published one.
    """
    urls = IMAGENET_URLS if version == 1 else IMAGENET_V2_URLS
    if depth not in urls:
        raise DataError(
            f"--weights imagenet-v2: there are none of a ResNet-{depth}; expected a depth of"
            f" {', '.join(map(str, urls))}; pass one of these as --depth, or --weights imagenet"
        )
    return hub_file(urls[depth], "ImageNet", "or pass --weights none or --weights FILE")


def hub_file(url: str, name: str, instead: str) -> dict[str, Tensor]:
    """A published state dict, from torch.hub's cache or downloaded into it.

    The file's hash is checked each time, a cached file's too.

    Args:
        url: ends in -HHHHHHHH.pth, the first digits of the file's SHA-256.
        name: what the messages call it.
        instead: what else its user can do.

    Raises:
        DataError: there is no such file and no network, or the file is not the published one.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    digits = file.stem.rsplit("-", 1)[1]
    way_out = f"place the file of {url} there, {instead}"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(file), hash_prefix=digits)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{file}: the {name} weights are not here and could not be fetched"
                f" ({str(error).splitlines()[0]}); {way_out}"
            ) from error
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if not digest.startswith(digits):
        raise DataError(
            f"{file}: its SHA-256 begins with {digest[:8]}, the published file's with {digits};"
            f" {way_out}"
        )
    return torch.load(file, map_location="cpu", weights_only=True)
