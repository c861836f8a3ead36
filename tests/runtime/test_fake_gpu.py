"""A training step and a detection on a fake GPU: which tensors meet, and where the host waits.

Torch's fake tensors know device and shape, but no values. What would need one raises.
"""

import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from retinanet.anchors import image_anchors
from retinanet.inference.prediction import detect_samples
from retinanet.model import ModelConfig, RetinaNet
from retinanet.postprocess import DEFAULT_LIMITS
from retinanet.runtime.device import Runtime
from retinanet.runtime.distributed import GlobalBatch
from retinanet.training import trainer
from retinanet.training.loss_log import LossLog
from retinanet.training.optim import OptimConfig
from retinanet.training.run_log import RunLog
from tests.support.helpers import NoHostSync

GPU = torch.device("cuda")
PRECISIONS = [None, torch.bfloat16, torch.float16]


class ReachedHost(Exception):  # noqa: N818
    """A tensor of the GPU was copied to the CPU: from there on all is the CPU's."""


class OneDevice(NoHostSync):
    """Refuse operators of two devices, of float64 on the GPU, and what makes the host wait."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        kinds = {tensor.device.type for tensor in tensors if tensor.dim()}
        assert len(kinds) < 2 or func.overloadpacket == self.aten.copy_, f"{func} of {kinds}"
        result = super().__torch_dispatch__(func, types, args, kwargs)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.dim() and "cuda" in kinds:
                if leaf.device.type == "cpu":
                    raise ReachedHost(tuple(leaf.shape))
                assert leaf.dtype != torch.float64, func
        self.counts[str(func)] += 1
        return result


@pytest.fixture(autouse=True)
def _gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let torch believe in the GPU, where it asks the driver instead of the tensors."""
    image_anchors.cache_clear()
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.amp.autocast_mode, "is_autocast_available", lambda kind: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr(torch, "_fused_sgd_", lambda *_, **__: None)  # it has no fake kernel
    monkeypatch.setattr(trainer, "parallel", lambda model, runtime: model)
    with FakeTensorMode(), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # "CUDA is not available. Disabling"
        yield
    image_anchors.cache_clear()


def network() -> RetinaNet:
    with GPU:
        return RetinaNet(ModelConfig(3, depth=18, channels=32, head_convs=1))


@pytest.mark.parametrize("autocast", PRECISIONS)
@pytest.mark.parametrize(
    ("matching", "optimizer", "batch_norm"),
    [("iou", "adam", "frozen"), ("atss", "sgd", "trained")],
)
def test_a_training_step_is_the_gpus_alone(
    matching: str,
    optimizer: str,
    batch_norm: str,
    autocast: torch.dtype | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All but torch's own backward pass, which asks the driver; the gradients are made up."""
    model = network()
    model.matching = matching
    log = LossLog(RunLog(), lambda index: Path(), skips_overflow=False)
    optim = OptimConfig(optimizer=optimizer, batch_norm=batch_norm, weight_decay=0.1)
    training = trainer.Training(model, Runtime(GPU, autocast), optim, log)
    model.train()
    if batch_norm == "frozen":
        model.freeze_bn()

    def backward(loss: Tensor) -> None:
        assert (loss.device.type, loss.requires_grad) == ("cuda", True)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)

    monkeypatch.setattr(Tensor, "backward", backward)
    batch = {"img": torch.zeros(2, 3, 64, 96), "annot": torch.zeros(2, 4, 5)}
    training.train_step(batch, GlobalBatch(64, 128, 2, False))  # type: ignore[arg-type]
    with OneDevice() as watched:
        numbers = training.train_step(batch, GlobalBatch(64, 128, 2, False))  # type: ignore[arg-type]
    assert (numbers.device.type, numbers.shape, numbers.dtype) == ("cuda", (3,), torch.float32)
    assert training.scaler.is_enabled() == (autocast is torch.float16)
    assert watched.counts["aten.convolution.default"] > 20


@pytest.mark.parametrize("autocast", PRECISIONS)
def test_a_detection_waits_once_a_batch(autocast: torch.dtype | None) -> None:
    model = network().eval()
    images = torch.zeros(4, 3, 64, 96, device=GPU)
    model.anchors(images)  # made once for a size
    with torch.no_grad(), torch.autocast("cuda", autocast, enabled=autocast is not None):
        with OneDevice(), pytest.raises(ReachedHost) as reached:
            model.detect(images, [(64, 90)] * 4)
    # Of 9 anchors and 3 classes: 1000 of the 2592 pairs on the 96 cells of P3, and all of 24, 6, 2
    # and 1 cells.
    assert reached.value.args[0] == (4, 1000 + 27 * (24 + 6 + 2 + 1), 6)


@pytest.mark.parametrize("autocast", PRECISIONS)
def test_an_evaluation_waits_once_a_batch(autocast: torch.dtype | None) -> None:
    """Samples as the loader gives them go to the GPU, and nothing waits before the candidates."""
    model = network()
    model.anchors(torch.zeros(1, 3, 64, 96, device=GPU))
    sample = {"img": torch.zeros(64, 96, 3), "size": (64, 90), "scale": 0.5}
    found = detect_samples(
        model, enumerate([sample] * 4), DEFAULT_LIMITS, batch_size=4, autocast=autocast
    )
    with OneDevice() as watched, pytest.raises(ReachedHost) as reached:
        next(found)
    assert reached.value.args[0] == (4, 1000 + 27 * (24 + 6 + 2 + 1), 6)
    assert watched.counts["aten.conv2d.default"] > 20
    assert model.training  # as it was
