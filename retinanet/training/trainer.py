"""A model with its optimizer, schedule and scaler: one step, one epoch, its state."""

import operator
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from retinanet.data.batches import Batch
from retinanet.data.problems import MOST_SKIPPED
from retinanet.errors import DataError, reason
from retinanet.model import ModelConfig, RetinaNet
from retinanet.runtime.console import say
from retinanet.runtime.device import Runtime, backend, memory_format, shares_batches
from retinanet.runtime.distributed import (
    GlobalBatch,
    all_reduce_sum,
    broadcast_from_main,
    global_batch,
)
from retinanet.runtime.signals import StopRequest
from retinanet.training.loss_log import LossLog
from retinanet.training.optim import OptimConfig
from retinanet.training.saved_state import SavedState
from retinanet.weights.checkpoint import Checkpoint
from retinanet.weights.pretrained import Start, take_weights

MOST_GRAPHS = 64  # of a network; torch gives up after 8


def prepare_model(
    config: ModelConfig, start: Start, runtime: Runtime, *, compiled: bool
) -> RetinaNet:
    """Build the network with its initial weights, on its device, and say which weights it took.

    Args:
        config: settings of the network.
        start: initial weights; those of a resumed run come with its state.
        runtime: device and precision.
        compiled: whether torch is to compile all that comes before the loss.
    """
    if compiled and shares_batches(runtime):  # the replicas would run the first GPU's weights
        raise DataError("--compile with several GPUs needs torchrun, or give --device cuda:0")
    model = RetinaNet(config)
    if start.weights is not None:
        say(f"Weights {start.source}: {take_weights(model, start.weights)}")
    layout = memory_format(runtime.device, training=True)
    model.to(runtime.device, memory_format=layout)  # type: ignore[call-overload]
    if compiled:
        say("--compile: takes minutes in the first steps and in the first evaluation")
        compile_network(model)
    return model


def compile_network(model: RetinaNet, compiler: str | Callable[..., Any] = "inductor") -> None:
    """Let torch compile all that comes before the loss, for images of any size.

    A few graphs serve all sizes: for one image and for more, for training and for evaluation, for
    small images whose last levels are one cell wide.
    """
    torch._dynamo.config.recompile_limit = MOST_GRAPHS
    model.head_outputs = torch.compile(  # type: ignore[method-assign]
        model.head_outputs, dynamic=True, backend=compiler
    )


def parallel(model: RetinaNet, runtime: Runtime) -> nn.Module:
    """Wrap a model for all the devices it is to train on.

    DistributedDataParallel under torchrun; else DataParallel as the original, which splits batches
    over the GPUs, and over nothing on a CPU. Every step begins with batch norm's statistics of the
    first process or GPU.
    """
    device = runtime.device
    if runtime.world_size > 1:
        ids = None if device.type == "cpu" else [device]
        return DistributedDataParallel(model, device_ids=ids)
    if device.type != "cuda" and torch.accelerator.is_available():
        return model  # DataParallel would move it to GPUs that the user does not want
    return nn.DataParallel(model, device_ids=None if device.index is None else [device.index])


class Training:
    """A model with its optimizer, schedule and losses: what a run continues from.

    Args:
        model: on its device.
        runtime: device, precision and peers.
        optim: optimizer, schedule, clipping.
        losses: takes those of every step; has the log of the run, which has its clock.
        checkpoint: the model with the names of its classes and the sizes of its images; the model
            alone by default.
    """

    def __init__(
        self,
        model: RetinaNet,
        runtime: Runtime,
        optim: OptimConfig,
        losses: LossLog,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.model, self.runtime, self.optim = model, runtime, optim
        self.losses, self.log, self.clock = losses, losses.log, losses.log.clock
        model.autocast, model.matching = runtime.autocast, optim.matching
        model.train_layers(optim.trainable_layers)
        self.wrapper = parallel(model, runtime)
        self.optimizer = optim.make_optimizer(model.parameters())
        self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimizer, patience=3)
        self.scaler = torch.amp.GradScaler(
            runtime.device.type, enabled=runtime.autocast is torch.float16
        )
        self.epoch, self.step = 0, 0
        self.steps_done = 0  # of the whole run
        self.checkpoint = checkpoint or Checkpoint(model.config, model.state_dict())
        """The weights as they are now, with epoch and metrics of the last whole epoch."""
        self._unreadable: set[str] = set()

    def state(self) -> dict[str, Any]:
        """Everything that decides how the run goes on, as plain data."""
        self.losses.flush()
        return {
            "weights": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "steps_done": self.steps_done,
            "running": list(self.losses.running),
            "total": self.losses.total,
            "count": self.losses.count,
            "unreadable": sorted(self._unreadable),
            "epoch_record": self.log.epoch_record,
            "clock": self.clock.state(),
        }

    def restore(self, saved: SavedState) -> None:
        """Go on from a state, of `state()` and with the metrics of the last whole epoch.

        Raises:
            DataError: it is not complete, or of another model.
        """
        state = saved.content
        try:
            self.model.load_state_dict(state["weights"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])
            if state["scaler"]:
                self.scaler.load_state_dict(state["scaler"])
            self.epoch, self.step = operator.index(state["epoch"]), operator.index(state["step"])
            self.steps_done = operator.index(state["steps_done"])
            self.losses.running.extend(map(float, state["running"]))
            self.losses.total = float(state["total"])
            self.losses.count = operator.index(state["count"])
            self._unreadable.update(state["unreadable"])
            self.log.epoch_record = str(state.get("epoch_record", ""))  # not in version 1.0
            self.clock.restore(state.get("clock", {}))  # neither
            self.checkpoint = replace(
                self.checkpoint,
                epoch=self.epoch - 1 if self.epoch else None,
                metrics=state["metrics"],
                thresholds=tuple(state.get("thresholds", ())),  # not in version 1.0
                thresholds_epoch=state.get("thresholds_epoch"),
            )
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise DataError(
                f"{saved.path}: a damaged state ({reason(error)}); start without --resume"
            ) from error

    def train_epoch(
        self, batches: Iterable[Batch], stop: StopRequest, after_step: Callable[[], None]
    ) -> None:
        """Train on what is left of the epoch, or as long as there is time; `step` counts on.

        Args:
            batches: from number `step` on.
            stop: asked after every step.
            after_step: called then, with everything up to date but the log.

        Raises:
            StoppedError: `stop` was asked for, and a step was just finished.
            LoadingError: the next batch could not be loaded, and a step was just finished.
            DataError: the loss or the gradient was not finite, or too many images were skipped.
        """
        self.wrapper.train()
        if self.optim.batch_norm == "frozen":
            self.model.freeze_bn()
        if self.runtime.world_size == 1:  # where nobody else must agree
            batches = stop.while_waiting(batches)
        for batch in self.log.watch(batches, self.epoch, self.step):
            if not self.clock.begin_step(self.epoch, self.step):
                break
            H, W = batch["img"].shape[-2:]
            joint = global_batch(H, W, len(batch["img"]), stop=stop.signal_number is not None)
            self._note_unreadable(batch)
            if joint.images:
                if self.optim.schedule != "plateau":
                    self._set_lr(self.optim.lr_at(self.steps_done, self.clock.done))
                numbers = self.train_step(batch, joint)
                self.losses.add(self.epoch, self.step, self.lr, numbers, batch.get("index", ()))
            self.log.end_step(self.epoch, self.step, joint.images)
            self.step += 1
            self.steps_done += 1
            after_step()
            if joint.stop:
                stop.stop()
        self.clock.end_epoch(self.epoch)
        self.losses.flush()
        broadcast_from_main(self.model.buffers())  # of batch norm: the ones that are saved
        self.checkpoint = replace(self.checkpoint, epoch=self.epoch, metrics={})

    @property
    def goes_on(self) -> bool:
        """Whether there is an epoch to begin or to finish."""
        return self.clock.goes_on(self.epoch, self.step)

    @property
    def lr(self) -> float:
        """The learning rate as it is now."""
        return float(self.optimizer.param_groups[0]["lr"])

    def _set_lr(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def finish_epoch(self) -> None:
        """Let the plateau schedule see the epoch's mean loss, and begin the next epoch."""
        if self.optim.schedule == "plateau":
            lr = self.lr
            self.scheduler.step(self.losses.mean)
            if self.lr != lr:
                say(f"The loss stands still: learning rate {self.lr:g}")
        self.losses.total, self.losses.count = 0.0, 0
        self.epoch, self.step = self.epoch + 1, 0

    def train_step(self, batch: Batch, joint: GlobalBatch) -> Tensor:
        """Forward, backward, clip, step; without waiting for the device.

        A batch whose loss is exactly 0, or whose loss or gradient is not finite, changes no
        parameter: the optimizer is told so on the device (a fused optimizer's `found_inf`), or
        where that is not possible, the host waits and decides.

        Args:
            batch: images [B, 3, H, W] and annotations [B, M, 5] of this process.
            joint: what all processes have.

        Returns:
            Classification loss, regression loss and the gradient's norm before clipping, of the
            joint batch: [3], float32, on the device.
        """
        device = self.runtime.device
        images = batch["img"].to(device, non_blocking=True)
        annotations = batch["annot"].to(device, non_blocking=True)
        # Padding has anchors too: one process with the joint batch would see as many.
        H, W = images.shape[-2:]
        images = F.pad(images, (0, joint.width - W, 0, joint.height - H))
        self.optimizer.zero_grad(set_to_none=True)
        # Under DataParallel each device gives a mean, which count alike as in the original.
        losses = torch.stack([x.mean() for x in self.wrapper([images, annotations])])
        # DistributedDataParallel takes the mean over processes; the joint mean is over images.
        losses = losses * (len(images) * self.runtime.world_size / joint.images)
        self.scaler.scale(losses.sum()).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.optim.clip_norm)
        losses = all_reduce_sum(losses.detach() / self.runtime.world_size)
        loss = losses.sum()
        skip = (loss == 0) | ~torch.isfinite(loss) | ~torch.isfinite(norm)
        if backend(device).found_inf:
            self.optimizer.found_inf = skip.float()  # type: ignore[attr-defined]
            self.optimizer.step()
        elif not skip:
            self.optimizer.step()
        self.scaler.update()
        return torch.cat((losses, norm.detach().reshape(1)))

    def _note_unreadable(self, batch: Batch) -> None:
        """Print each image that was skipped once, from any process, and give up when many are."""
        for message in batch.get("unreadable", ()):
            if message in self._unreadable:
                continue
            self._unreadable.add(message)
            sys.stderr.write(f"Skipped ({len(self._unreadable)}): {message}\n")
            if len(self._unreadable) > MOST_SKIPPED:
                raise DataError(
                    f"more than {MOST_SKIPPED} images cannot be read, the last: {message};"
                    " mend the data"
                )
