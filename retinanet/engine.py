"""One training step, one epoch."""

import collections
import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from retinanet.dataloader import Batch
from retinanet.errors import DataError
from retinanet.logger import say
from retinanet.model import RetinaNet

MAX_GRADIENT_NORM = 0.1
RUNNING_LOSSES = 500  # how many steps the running loss is the mean of


def freeze_and_train(model: nn.Module) -> None:
    """Training mode with batch norm's statistics kept, of a model or a parallel wrapper of it."""
    model.train()
    for module in model.modules():
        if isinstance(module, RetinaNet):
            module.freeze_bn()


def train_step(
    model: nn.Module,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    autocast: torch.dtype | None,
) -> Tensor:
    """Forward, backward, clip, step; without waiting for the device.

    A batch whose loss is exactly 0, or whose loss or gradient is not finite, changes nothing: the
    optimizer is told so on the device (a fused optimizer's `found_inf`).

    Args:
        model: a `RetinaNet` or a parallel wrapper of it, in training mode.
        batch: images [B, 3, H, W] and annotations [B, M, 5].
        optimizer: a fused one.
        scaler: of the loss, enabled for float16 only.
        autocast: dtype of the network, None for float32.

    Returns:
        Classification loss, regression loss and the gradient's norm before clipping: [3], float32,
        on the device.
    """
    device = next(model.parameters()).device
    images = batch["img"].to(device, non_blocking=True)
    annotations = batch["annot"].to(device, non_blocking=True)
    optimizer.zero_grad(set_to_none=True)
    precision = (
        contextlib.nullcontext() if autocast is None else torch.autocast(device.type, autocast)
    )
    with precision:
        # Under DataParallel each device gives one mean; they count alike, as in the original.
        classification, regression = (loss.mean() for loss in model([images, annotations]))
    loss = classification + regression
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
    skip = (loss == 0) | ~torch.isfinite(loss) | ~torch.isfinite(norm)
    optimizer.found_inf = skip.float()  # type: ignore[attr-defined]
    optimizer.step()
    scaler.update()
    return torch.stack((classification, regression, norm)).detach()


class LossLog:
    """Reads each step's losses one step late, when the device has long computed them.

    Args:
        epoch: its number, for the line.
        running: losses of the last steps, over epochs.
        log_every: steps between two lines.
        image_path: says for an index which file it is, for errors.
        skips_overflow: float16 may overflow now and then; the scaler sees to it.
    """

    def __init__(
        self,
        epoch: int,
        running: collections.deque[float],
        log_every: int,
        image_path: Callable[[int], Path],
        *,
        skips_overflow: bool = False,
    ) -> None:
        self.epoch, self.running, self.log_every = epoch, running, log_every
        self.image_path = image_path
        self.skips_overflow = skips_overflow
        self.losses: list[float] = []
        self._pending: tuple[int, Tensor, Sequence[int]] | None = None

    def add(self, step: int, losses: Tensor, images: Sequence[int]) -> None:
        """Take a step's losses and read the step's before."""
        self.flush()
        self._pending = (step, losses, images)

    def flush(self) -> None:
        """Read what is waiting: this waits for the device.

        Raises:
            DataError: the loss or the gradient was not finite.
        """
        if self._pending is None:
            return
        step, losses, images = self._pending
        self._pending = None
        classification, regression, norm = losses.tolist()
        loss = classification + regression
        finite = math.isfinite(loss) and (math.isfinite(norm) or self.skips_overflow)
        if not finite:
            names = ", ".join(str(self.image_path(index)) for index in images)
            raise DataError(
                f"epoch {self.epoch}, iteration {step}: the numbers are not finite: classification"
                f" loss {classification:g}, regression loss {regression:g}, gradient norm {norm:g};"
                f" images: {names}; this step changed no weights; try a lower --lr or"
                " --precision fp32, and look at these images' boxes"
            )
        if loss == 0:
            return
        self.running.append(loss)
        self.losses.append(loss)
        if step % self.log_every == 0:
            say(
                f"Epoch: {self.epoch} | Iteration: {step}"
                f" | Classification loss: {classification:1.5f}"
                f" | Regression loss: {regression:1.5f}"
                f" | Running loss: {sum(self.running) / len(self.running):1.5f}"
            )


def train_one_epoch(
    model: nn.Module,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    log: LossLog,
    autocast: torch.dtype | None = None,
) -> float:
    """Train on every batch once.

    Args:
        model: a `RetinaNet` or a parallel wrapper of it.
        batches: of the epoch.
        optimizer: a fused one.
        scaler: of the loss, enabled for float16 only.
        log: takes the losses.
        autocast: dtype of the network, None for float32.

    Returns:
        The mean loss of the steps that counted; 0 without any.

    Raises:
        DataError: the loss or the gradient was not finite.
    """
    freeze_and_train(model)
    for step, batch in enumerate(batches):
        log.add(step, train_step(model, batch, optimizer, scaler, autocast), batch["index"])
    log.flush()
    return sum(log.losses) / max(1, len(log.losses))


def parallel(model: RetinaNet, device: torch.device) -> nn.Module:
    """Wrap a model in DataParallel, which splits batches over the GPUs (one CPU: over nothing)."""
    if device.type == "cpu" and torch.cuda.is_available():
        return model  # DataParallel would move it to the GPUs that the user does not want
    return nn.DataParallel(model, device_ids=None if device.index is None else [device.index])
