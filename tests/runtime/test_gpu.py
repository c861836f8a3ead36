"""What only a GPU shows: `python -m pytest -m gpu` on a machine with one."""

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from retinanet.model import ModelConfig, RetinaNet
from retinanet.runtime.device import Runtime, copied_to_host, start_runtime
from retinanet.runtime.distributed import GlobalBatch
from retinanet.training.loss_log import LossLog
from retinanet.training.optim import OPTIMIZERS, OptimConfig
from retinanet.training.run_log import RunLog
from retinanet.training.trainer import Training, compile_network
from tests.support.helpers import take_ruled_weights, worst_match
from tests.support.paths import ROOT

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
]
GPU = torch.device("cuda:0")


def batch(images: int = 2) -> dict[str, Tensor]:
    made = torch.Generator().manual_seed(0)
    boxes = torch.tensor([[8.0, 8, 60, 70, 1], [30, 20, 120, 90, 0]])
    return {
        "img": torch.randn(images, 3, 128, 160, generator=made).pin_memory(),
        "annot": boxes.expand(images, -1, -1).contiguous().pin_memory(),
    }


def ruled_model() -> RetinaNet:
    model = RetinaNet(ModelConfig(3, depth=18))
    take_ruled_weights(model)
    return model


def train(
    model: RetinaNet,
    device: torch.device,
    precision: torch.dtype | None = None,
    *,
    optimizer: str = "adam",
    steps: int = 3,
) -> list[list[float]]:
    """The numbers of some steps."""
    log = LossLog(RunLog(), lambda index: Path(), skips_overflow=True)
    training = Training(
        model.to(device, memory_format=torch.channels_last),  # type: ignore[call-overload]
        Runtime(device, precision),
        OptimConfig(lr=1e-4, optimizer=optimizer),
        log,
    )
    training.wrapper.train()
    model.freeze_bn()
    joint = GlobalBatch(128, 160, 2, False)
    return [training.train_step(batch(), joint).tolist() for _ in range(steps)]  # type: ignore[arg-type]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_steps_are_those_of_the_cpu(optimizer: str) -> None:
    start_runtime("cuda:0", "fp32")
    found = train(ruled_model(), GPU, optimizer=optimizer)
    expected = train(ruled_model(), torch.device("cpu"), optimizer=optimizer)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_low_precision_is_near_float32(precision: torch.dtype) -> None:
    start_runtime("cuda:0", "fp32")
    losses = torch.tensor(train(ruled_model(), GPU, precision, steps=1))[:, :2]
    exact = torch.tensor(train(ruled_model(), GPU, steps=1))[:, :2]
    torch.testing.assert_close(losses, exact, rtol=0.05, atol=0)


def test_detections_are_those_of_the_cpu() -> None:
    start_runtime("cuda:0", "fp32")
    model, images = ruled_model().eval(), batch()["img"]
    with torch.inference_mode():
        expected = model.detect(images, [(128, 160), (100, 150)])
        found = model.to(GPU).detect(images.to(GPU), [(128, 160), (100, 150)])
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.boxes.device.type == "cpu"
        assert worst_match(ours, theirs) < 1e-3


def test_a_steps_numbers_do_not_wait_for_the_next_step() -> None:
    numbers = copied_to_host(torch.arange(3.0, device=GPU))
    later = torch.cuda.Event()
    torch.cuda._sleep(2_000_000_000)  # cycles: about a second
    later.record()
    assert numbers() == [0, 1, 2]
    assert not later.query()
    torch.cuda.synchronize()


def test_data_parallel_takes_the_step_of_one_gpu() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU here")
    start_runtime("cuda", "fp32")
    shared = train(ruled_model(), torch.device("cuda"), steps=1)
    alone = train(ruled_model(), GPU, steps=1)
    torch.testing.assert_close(torch.tensor(shared), torch.tensor(alone), rtol=1e-3, atol=1e-5)


def test_processes_meet_through_nccl() -> None:
    code = (
        "import torch; from retinanet.runtime.device import start_runtime;"
        "from retinanet.runtime.distributed import all_reduce_sum, shut_down;"
        "r = start_runtime('cuda', 'fp32');"
        "x = all_reduce_sum(torch.ones(1, device=r.device)); assert x.item() == r.world_size;"
        "shut_down()"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    count = f"--nproc_per_node={torch.cuda.device_count()}"
    subprocess.run(
        [*command, count, "--no-python", sys.executable, "-c", code],
        check=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=120,
    )  # fmt: skip


def test_a_compiled_network_gives_the_same_losses() -> None:
    start_runtime("cuda:0", "fp32")
    plain = ruled_model()
    compiled = copy.deepcopy(plain)
    compile_network(compiled)
    found, expected = train(compiled, GPU, steps=1), train(plain, GPU, steps=1)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-3, atol=1e-5)


def test_the_loss_takes_little_memory_beside_its_logits() -> None:
    """12 bytes an entry for a moment, 2 for the gradient that is kept."""
    model = nn.ModuleList([ruled_model().loss])
    images, anchors, classes = 2, 94851, 80
    logits = torch.randn(images, anchors, classes, device=GPU, dtype=torch.bfloat16)
    logits.requires_grad_()
    boxes = torch.rand(anchors, 4, device=GPU).cumsum(1)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    deltas = torch.zeros(images, anchors, 4, device=GPU)
    loss: Callable[..., tuple[Tensor, Tensor]] = model[0]  # type: ignore[assignment]
    loss(logits, deltas, boxes, torch.rand(images, 20, 5, device=GPU).cumsum(2).floor())
    used = torch.cuda.max_memory_allocated() - before
    assert used < 18 * logits.numel() * 81 / 80
