"""Devices: the choice, the precision, and the other way where one lacks something."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from retinanet.errors import DataError
from retinanet.model import ModelConfig, RetinaNet
from retinanet.runtime import device as devices
from retinanet.runtime.device import (
    BACKENDS,
    Backend,
    Runtime,
    backend,
    copied_to_host,
    cpu_backend,
    memory_format,
    start_runtime,
)
from retinanet.runtime.distributed import GlobalBatch
from retinanet.training.loss_log import LossLog
from retinanet.training.optim import OPTIMIZERS, OptimConfig
from retinanet.training.run_log import RunLog
from retinanet.training.trainer import Training

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _float32_as_it_was() -> Iterator[None]:
    precision, tf32 = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = tf32


# ---- the choice ----


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
def test_auto_is_the_accelerator_that_torch_names(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(kind))
    assert devices._accelerator() == kind


def test_auto_is_the_cpu_where_torch_was_only_built_for_an_accelerator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    assert start_runtime("auto", "fp32").device == CPU


@pytest.mark.parametrize(("name", "own"), [("auto", "xpu:3"), ("cuda", "cuda:3"), ("cpu", "cpu")])
def test_each_process_of_a_torchrun_takes_its_own(
    name: str, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(devices, "_accelerator", lambda: "xpu")
    assert devices._own_device(name) == own
    with pytest.raises(DataError, match=r"--device cuda:1: under torchrun .* give cuda$"):
        devices._own_device("cuda:1")


def test_an_unknown_backend_is_trusted_with_nothing() -> None:
    assert backend(torch.device("hpu")) == Backend()


@pytest.mark.parametrize(
    ("device", "capability", "training", "expected"),
    [
        ("cpu", "AVX512", True, torch.channels_last),
        ("cpu", "AVX2", True, torch.contiguous_format),
        ("cpu", "AVX2", False, torch.channels_last),
        ("cpu", "SVE256", True, torch.channels_last),
        ("cuda", "AVX2", True, torch.channels_last),  # whose processor does not matter
        ("mps", "AVX2", False, torch.contiguous_format),
    ],
)
def test_channels_lie_last_where_that_is_fast(
    device: str,
    capability: str,
    training: bool,
    expected: torch.memory_format,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(BACKENDS, "cpu", cpu_backend(capability))
    assert memory_format(torch.device(device), training=training) == expected


@pytest.mark.parametrize(("training", "last"), [(True, False), (False, True)])
def test_a_network_computes_in_that_format(
    training: bool, last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKENDS, "cpu", cpu_backend("AVX2"))
    model = RetinaNet(ModelConfig(2, depth=18, channels=32, head_convs=1)).train(training)
    images = torch.zeros(1, 3, 64, 96).to(memory_format=torch.channels_last)
    P3 = model.features(images)[0]
    assert P3.is_contiguous(memory_format=torch.channels_last) is last
    assert P3.is_contiguous() is not last


# ---- precision ----


@pytest.mark.parametrize(("ampere", "precision"), [(False, "fp32"), (True, "fp32"), (True, "tf32")])
def test_float32_is_float32_unless_tf32_is_asked_for(
    ampere: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch's own default is TF32 in convolutions."""
    monkeypatch.setattr(devices, "_is_ampere", lambda device: ampere)
    torch.backends.cudnn.allow_tf32 = True
    runtime = start_runtime("cpu", precision)
    rounds = precision == "tf32"
    assert torch.backends.cudnn.allow_tf32 is rounds
    assert torch.backends.cuda.matmul.allow_tf32 is rounds
    assert torch.get_float32_matmul_precision() == ("high" if rounds else "highest")
    assert (runtime.precision, runtime.autocast) == (precision, None)


def test_what_a_device_lacks_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"--precision tf32: cpu does not have it.*; give fp32"):
        start_runtime("cpu", "tf32")
    monkeypatch.setattr(torch.amp, "is_autocast_available", lambda kind: False)
    with pytest.raises(DataError, match="--precision bf16: cpu has float32 only; give fp32"):
        start_runtime("cpu", "bf16")


# ---- a backend without fused optimizers that skip, and without channels_last ----


def training_on(able: Backend, optimizer: str, monkeypatch: pytest.MonkeyPatch) -> Training:
    """A training on the CPU as if it were another backend."""
    monkeypatch.setitem(BACKENDS, "cpu", able)
    torch.manual_seed(0)
    model = RetinaNet(ModelConfig(2, depth=18, channels=32, head_convs=1))
    optim = OptimConfig(lr=1e-3, optimizer=optimizer, weight_decay=0.01)
    log = LossLog(RunLog(), lambda index: Path("a.jpg"), skips_overflow=False)
    training = Training(model, Runtime(CPU, None), optim, log)
    model.train()
    model.freeze_bn()
    return training


def step(training: Training, scale: float = 1.0) -> None:
    """One step whose losses are scaled."""
    loss = training.model.loss.forward
    training.model.loss.forward = lambda *inputs: tuple(scale * x for x in loss(*inputs))  # type: ignore[method-assign]
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    boxes = torch.tensor([[[8.0, 8.0, 40.0, 40.0, 1.0]]])
    training.train_step({"img": images, "annot": boxes}, GlobalBatch(64, 64, 1, False))
    training.model.loss.forward = loss  # type: ignore[method-assign]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_other_way_to_step_and_to_skip_gives_the_same_weights(
    optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights: list[dict[str, Tensor]] = []
    for able in (Backend(channels_last=True, found_inf=True), Backend()):
        training = training_on(able, optimizer, monkeypatch)
        for scale in (float("inf"), 1.0, 0.0, 1.0):  # the first and the third are skipped
            step(training, scale)
        assert training.optimizer.param_groups[0]["fused"] is (True if able.found_inf else None)
        weights.append(training.model.state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("scale", [0.0, float("inf")])
def test_a_step_that_must_not_count_changes_nothing_there_either(
    optimizer: str, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = training_on(Backend(), optimizer, monkeypatch)
    step(training)
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    step(training, scale)
    assert all(torch.equal(before[k], value) for k, value in training.model.state_dict().items())


# ---- a step's numbers, one step late ----


def test_a_steps_numbers_are_copied_before_the_next_step_is_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The host waits for their event, not for what the device was given since."""
    events = []

    class Event:
        def __init__(self, device: torch.device) -> None:
            self.device, self.calls = device, [""]
            events.append(self)

        def record(self) -> None:
            self.calls.append("record")

        def synchronize(self) -> None:
            self.calls.append("synchronize")

    monkeypatch.setattr(torch, "Event", Event)
    with FakeTensorMode():
        read = copied_to_host(torch.zeros(3, device="cuda"))
    (event,) = events
    assert event.device.type == "cuda"
    assert event.calls == ["", "record"]
    with pytest.raises(DataDependentOutputException, match="_local_scalar_dense"):
        read()  # there is no number in a fake tensor, but it was waited for
    assert event.calls == ["", "record", "synchronize"]


def test_numbers_of_the_cpu_are_read_as_they_are() -> None:
    assert copied_to_host(torch.tensor([1.0, 2.0]))() == [1.0, 2.0]
