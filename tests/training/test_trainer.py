"""What the losses of a run are watched for, and what a step leaves alone."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from retinanet.data.batches import Batch
from retinanet.data.problems import MOST_SKIPPED
from retinanet.errors import DataError
from retinanet.model import ModelConfig, RetinaNet, resnet18
from retinanet.runtime.device import start_runtime
from retinanet.runtime.distributed import global_batch
from retinanet.runtime.signals import StopRequest
from retinanet.training.loss_log import MAX_OVERFLOWS, LossLog
from retinanet.training.optim import BATCH_NORMS, OPTIMIZERS, OptimConfig
from retinanet.training.run_log import RunLog
from retinanet.training.trainer import Training, compile_network

pytestmark = pytest.mark.usefixtures("narrow")

INF = float("inf")


def loss_log(*, skips_overflow: bool) -> LossLog:
    return LossLog(RunLog(), lambda index: Path(f"{index}.jpg"), skips_overflow=skips_overflow)


def add(log: LossLog, step: int, *numbers: float) -> None:
    """Classification loss, regression loss and gradient norm of a step."""
    log.add(0, step, 1e-5, torch.tensor(numbers), [7])


def test_mean_is_of_the_steps_that_counted() -> None:
    log = loss_log(skips_overflow=False)
    for step, loss in enumerate((1.0, 0.0, 3.0)):  # a loss of exactly 0 is skipped
        add(log, step, loss, 0.0, 1.0)
    log.flush()
    assert log.mean == (1 + 3) / 2
    assert list(log.running) == [1, 3]


@pytest.mark.parametrize("numbers", [(float("nan"), 1.0, 1.0), (1.0, INF, 1.0), (1.0, 1.0, INF)])
def test_numbers_gone_wrong_name_the_images_one_step_late(numbers: tuple[float, ...]) -> None:
    log = loss_log(skips_overflow=False)
    add(log, 3, *numbers)
    with pytest.raises(DataError, match=r"iteration 3: the numbers are not finite.*7\.jpg"):
        add(log, 4, 1.0, 1.0, 1.0)


def test_float16_may_overflow_now_and_then_but_not_for_ever() -> None:
    log = loss_log(skips_overflow=True)
    for step in range(MAX_OVERFLOWS):
        add(log, step, 1.0, 1.0, INF)
    add(log, MAX_OVERFLOWS, 1.0, 1.0, 1.0)  # the count begins anew
    for step in range(MAX_OVERFLOWS + 1):
        add(log, step, 1.0, 1.0, INF)
    with pytest.raises(DataError, match="gradient norm inf"):
        log.flush()


@pytest.fixture(scope="module", params=OPTIMIZERS)
def training(request: pytest.FixtureRequest) -> Training:
    log = loss_log(skips_overflow=False)
    model = resnet18(num_classes=2)
    optim = OptimConfig(lr=1e-3, optimizer=request.param, weight_decay=0.01)
    return Training(model, start_runtime("cpu", "fp32", seed=0), optim, log)


@pytest.mark.parametrize("scale", [0.0, INF])
def test_a_step_that_must_not_count_changes_nothing(training: Training, scale: float) -> None:
    """A loss of 0 or infinity, made by scaling what the model says."""
    model = training.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    annotations = torch.tensor([[[8.0, 8.0, 40.0, 40.0, 1.0]]])
    losses = model.loss.forward
    model.loss.forward = lambda *inputs: tuple(scale * loss for loss in losses(*inputs))  # type: ignore[method-assign]
    try:
        images = torch.randn(1, 3, 64, 64)
        joint = global_batch(64, 64, 1, stop=False)
        training.train_step({"img": images, "annot": annotations}, joint)
    finally:
        model.loss.forward = losses  # type: ignore[method-assign]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("batch_norm", BATCH_NORMS)
def test_batch_norm_is_frozen_or_trained(batch_norm: str) -> None:
    """Trained: a tenth of the batch's mean after the first step; frozen: the 0 of the start."""
    optim = OptimConfig(batch_norm=batch_norm)
    runtime = start_runtime("cpu", "fp32", seed=0)
    log = loss_log(skips_overflow=False)
    training = Training(resnet18(num_classes=2), runtime, optim, log)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        means = training.model.conv1(images).mean(dim=(0, 2, 3))
    batch: Batch = {"img": images, "annot": torch.full((2, 1, 5), -1.0), "index": [0, 1]}
    training.train_epoch([batch], StopRequest(""), after_step=lambda: None)
    expected = 0.1 * means if batch_norm == "trained" else torch.zeros_like(means)
    assert torch.allclose(training.model.bn1.running_mean, expected, atol=1e-6)


def test_layers_that_do_not_learn_stay_bit_for_bit() -> None:
    """One step with decay, which would move a parameter of gradient 0, but not one without."""
    optim = OptimConfig(lr=1e-3, weight_decay=0.01, trainable_layers=3)
    log = loss_log(skips_overflow=False)
    training = Training(resnet18(num_classes=2), start_runtime("cpu", "fp32", seed=0), optim, log)
    model = training.model.train()
    model.freeze_bn()
    torch.nn.init.normal_(model.classificationModel.output.weight, std=0.01)  # 0: no gradient
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    annotations = torch.tensor([[[8.0, 8.0, 40.0, 40.0, 1.0]]])
    batch: Batch = {"img": torch.randn(1, 3, 64, 64), "annot": annotations}
    training.train_step(batch, global_batch(64, 64, 1, stop=False))
    same = {name for name, value in model.named_parameters() if torch.equal(value, before[name])}
    assert same == {name for name in before if name.startswith(("conv1", "bn1", "layer1"))}


def test_too_many_unreadable_images_end_the_run(
    training: Training, capsys: pytest.CaptureFixture[str]
) -> None:
    def batch(*messages: str) -> dict[str, object]:
        return {"unreadable": messages}

    training._note_unreadable(batch("a.jpg", "a.jpg"))
    assert capsys.readouterr().err == "Skipped (1): a.jpg\n"
    with pytest.raises(DataError, match=f"more than {MOST_SKIPPED} images cannot be read"):
        training._note_unreadable(batch(*map(str, range(MOST_SKIPPED))))
    training._note_unreadable(batch())  # nothing new is wrong


@pytest.mark.slow
def test_few_graphs_serve_all_sizes_of_images() -> None:
    """More sizes than the 8 graphs that torch makes at most; COCO has 24."""
    graphs: list[Any] = []

    def counting(graph: Any, inputs: Sequence[Any]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward  # type: ignore[no-any-return]

    model = RetinaNet(ModelConfig(2, depth=18, channels=32, head_convs=1))
    compile_network(model, counting)
    sizes = [(160 + 32 * i, 160 + 32 * j) for i in range(3) for j in range(4)]
    model.train()
    model.freeze_bn()
    for H, W in sizes:
        for B in (2, 1):
            model([torch.randn(B, 3, H, W), torch.tensor([[[2.0, 2, 30, 30, 0]]] * B)])
    model.eval()
    with torch.inference_mode():
        for H, W in sizes:
            model.detect(torch.randn(4, 3, H, W), [(H, W)] * 4)
    assert 2 <= len(graphs) <= 10
    assert not torch._dynamo.utils.counters["unimplemented"]
