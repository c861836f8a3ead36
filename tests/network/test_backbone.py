"""The ResNet: folded batch norm, torchvision's outputs, its published files."""

import hashlib

import pytest
import torch
import torchvision
from torch import nn

from retinanet import backbone
from retinanet.backbone import conv_bn, imagenet_weights
from retinanet.errors import DataError
from retinanet.model import ModelConfig, RetinaNet
from tests.support.helpers import take_ruled_weights

EXACT = {"rtol": 1e-10, "atol": 1e-10}


# ---- batch norm folded into the convolution ----


def conv_and_bn():
    """A strided convolution and a batch norm with uneven statistics, gain and shift; float64."""
    torch.manual_seed(0)
    conv = nn.Conv2d(5, 7, 3, stride=2, padding=1, bias=False).double()
    bn = nn.BatchNorm2d(7).double()
    for tensor in (bn.weight.data, bn.bias.data, bn.running_mean):
        tensor.normal_()
    bn.running_var.uniform_(0.1, 3)
    return conv, bn


def test_folding_changes_neither_output_nor_gradients() -> None:
    conv, bn = conv_and_bn()
    bn.eval()
    x = torch.randn(2, 5, 9, 8, dtype=torch.float64, requires_grad=True)
    inputs = (x, conv.weight, bn.weight, bn.bias)
    folded, plain = conv_bn(x, conv, bn), bn(conv(x))
    torch.testing.assert_close(folded, plain, **EXACT)
    pull = torch.randn_like(plain)
    torch.testing.assert_close(
        torch.autograd.grad(folded, inputs, pull), torch.autograd.grad(plain, inputs, pull), **EXACT
    )


def test_batch_norm_in_training_is_applied_as_it_is() -> None:
    conv, bn = conv_and_bn()
    before = bn.running_mean.clone()
    out = conv_bn(torch.randn(4, 5, 8, 8, dtype=torch.float64), conv, bn)
    # Normalised by the batch: each channel has the mean of its shift.
    torch.testing.assert_close(out.mean(dim=(0, 2, 3)), bn.bias, **EXACT)
    assert not torch.equal(bn.running_mean, before)


@pytest.mark.parametrize("shape", [(0, 5, 8, 8), (1, 5, 2, 2)])
def test_a_batch_without_statistics_leaves_them_alone(shape) -> None:
    """No image, or one value a channel: those of earlier batches count."""
    conv, bn = conv_and_bn()
    before = {name: value.clone() for name, value in bn.state_dict().items()}
    x = torch.randn(shape, dtype=torch.float64)
    out = conv_bn(x, conv, bn)
    out.sum().backward()
    assert out.shape == (shape[0], 7, shape[2] // 2, shape[3] // 2)
    assert bool(conv.weight.grad.any()) == bool(shape[0])
    torch.testing.assert_close(out, bn.eval()(conv(x)), **EXACT)
    for name, value in bn.state_dict().items():
        torch.testing.assert_close(value, before[name])


def c5_and_gradients(network: nn.Module, run, names):
    """The output of `layer4` in `run()`, and gradients of a fixed sum over it."""
    outputs = []
    with network.layer4.register_forward_hook(lambda *args: outputs.append(args[-1])):
        run()
    C5 = outputs[0]
    pull = torch.linspace(-1, 1, C5.numel(), dtype=torch.float64).reshape(C5.shape)
    parameters = dict(network.named_parameters())
    return C5, torch.autograd.grad(C5, [parameters[name] for name in names], pull)


@pytest.mark.parametrize("depth", [18, 50])  # both kinds of block
def test_the_whole_backbone_equals_torchvisions_without_folding(depth) -> None:
    ours = RetinaNet(ModelConfig(num_classes=1, depth=depth)).double()
    take_ruled_weights(ours)
    theirs = getattr(torchvision.models, f"resnet{depth}")().double().eval()
    missing, _ = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert missing == ["fc.weight", "fc.bias"]
    names = [name for name, _ in theirs.named_parameters() if not name.startswith("fc")]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 64, 96, generator=generator, dtype=torch.float64)
    C5, gradients = c5_and_gradients(ours, lambda: ours.features(x), names)
    wanted_output, expected = c5_and_gradients(theirs, lambda: theirs(x), names)
    torch.testing.assert_close(C5, wanted_output, **EXACT)
    for name, found, wanted in zip(names, gradients, expected, strict=True):
        atol = 1e-10 * wanted.abs().max().item()
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=atol, msg=name)


# ---- ImageNet weights ----


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """torch.hub's folder of files, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A small file that stands in for the published one of depth 18: its bytes and its name."""
    torch.save({"conv1.weight": torch.ones(2)}, tmp_path / "weights")
    data = (tmp_path / "weights").read_bytes()
    name = f"resnet18-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    monkeypatch.setitem(backbone.IMAGENET_URLS, 18, f"https://example.org/models/{name}")
    return data, name


def test_weights_in_the_cache_need_no_network(cache, published) -> None:
    data, name = published
    cache.mkdir(parents=True)
    (cache / name).write_bytes(data)
    assert imagenet_weights(18)["conv1.weight"].tolist() == [1, 1]


def test_weights_are_fetched_into_the_cache_once(cache, published, monkeypatch) -> None:
    data, name = published
    calls = []

    def download(url, target, hash_prefix=None):
        calls.append((url, hash_prefix))
        (cache / name).write_bytes(data)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):
        assert imagenet_weights(18)["conv1.weight"].tolist() == [1, 1]
    assert calls == [(f"https://example.org/models/{name}", name[9:17])]


@pytest.mark.parametrize(
    "error",
    [
        OSError("Name or service not known"),  # no network (URLError is an OSError)
        RuntimeError('invalid hash value (expected "f37072fd", got "00000000")'),  # cut off
    ],
)
def test_without_a_network_the_way_out_is_said(cache, monkeypatch, error) -> None:
    def download(*args, **kwargs):
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(DataError) as caught:
        imagenet_weights(18)
    message = str(caught.value)
    for part in (cache / "resnet18-f37072fd.pth", error, "--weights none", "--weights FILE"):
        assert str(part) in message
    assert "\n" not in message
    assert not list(cache.glob("*"))


def test_a_wrong_file_in_the_cache_is_refused(cache) -> None:
    cache.mkdir(parents=True)
    (cache / "resnet18-f37072fd.pth").write_bytes(b"an error page")
    found = hashlib.sha256(b"an error page").hexdigest()[:8]
    with pytest.raises(DataError, match=f"begins with {found}, the published file's with f37072fd"):
        imagenet_weights(18)


def test_the_newer_weights_are_of_their_own_file(cache) -> None:
    cache.mkdir(parents=True)
    (cache / "resnet50-11ad3fa6.pth").write_bytes(b"an error page")
    with pytest.raises(DataError, match="the published file's with 11ad3fa6"):
        imagenet_weights(50, version=2)


def test_a_depth_without_newer_weights_is_refused(cache) -> None:
    with pytest.raises(DataError) as caught:
        imagenet_weights(18, version=2)
    assert str(caught.value) == (
        "--weights imagenet-v2: there are none of a ResNet-18; expected a depth of 50, 101, 152;"
        " pass one of these as --depth, or --weights imagenet"
    )
    assert not list(cache.parent.glob("*"))  # nothing was looked for


def test_names_of_the_published_files_hold_their_hash() -> None:
    files = [*backbone.IMAGENET_URLS.items(), *backbone.IMAGENET_V2_URLS.items()]
    assert len({url for _, url in files}) == len(files)
    for depth, url in files:
        name = url.rsplit("/", 1)[1]
        digits = name.removeprefix(f"resnet{depth}-").removesuffix(".pth")
        assert len(digits) == 8
        assert int(digits, 16)
    assert backbone.IMAGENET_URLS.keys() == backbone.LAYERS.keys()
