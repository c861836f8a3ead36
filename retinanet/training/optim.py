"""Settings of learning: optimizer, learning rate of every step, clipping."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from retinanet.runtime.device import backend

OPTIMIZERS = ("adam", "sgd")
SCHEDULES = ("plateau", "cosine", "step")
BATCH_NORMS = ("frozen", "trained")
MOMENTUM = 0.9  # of SGD

# The published 12-epoch schedule: a tenth of the rate after epoch 8, a tenth of that after 11.
DROPS = (8 / 12, 11 / 12)
MOST_WARMUP = 1 / 5  # of a run that keeps to a time, whatever the steps of its warm-up


@dataclass(frozen=True)
class OptimConfig:
    """The settings of learning; the defaults are the original's."""

    lr: float = 1e-5
    """Highest learning rate: that of `schedule` after the warm-up."""
    optimizer: str = "adam"
    weight_decay: float = 0.0
    """L2 penalty, added to every parameter's gradient."""
    schedule: str = "plateau"
    """plateau: a tenth when the loss stands still; cosine: down to 0; step: drops at `DROPS`."""
    warmup: int = 0
    """Steps in which the rate rises evenly from 0; with cosine and step only."""
    clip_norm: float = 0.1
    """Norm of the gradient over all parameters above which it is clipped."""
    batch_norm: str = "frozen"
    """frozen: its statistics stay as they are; trained: those of each batch, and a running mean."""
    matching: str = "iou"
    """Rule that gives boxes their anchors: iou, the paper's thresholds; atss, each box's own."""
    trainable_layers: int = 5
    """Parts of the ResNet that are trained, of five, counted from its end; 0: none."""
    steps: int = 0
    """Steps of the whole run; for cosine and step."""

    def make_optimizer(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimizer: a fused one where such can be told on the device to skip a step."""
        parameters = list(parameters)
        fused = True if backend(parameters[0].device).found_inf else None  # None: torch's choice
        decay = self.weight_decay
        if self.optimizer == "adam":
            return torch.optim.Adam(parameters, self.lr, weight_decay=decay, fused=fused)
        optimizer = torch.optim.SGD(
            parameters, self.lr, momentum=MOMENTUM, weight_decay=decay, fused=fused
        )
        optimizer.register_step_pre_hook(_start_momenta)
        return optimizer

    def lr_at(self, step: int, done: float | None = None) -> float:
        """The learning rate of a step; not for plateau.

        Args:
            step: of the run, counted from 0.
            done: share of the run that is behind, where a time is given and no number of steps: the
                warm-up takes a fifth of the run at most. By default of all steps.
        """
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if done is None:
            done = min(1.0, step / self.steps)
        else:
            warm = max(warm, min(1.0, done / MOST_WARMUP))
        if self.schedule == "cosine":
            return self.lr * warm * (1 + math.cos(math.pi * done)) / 2
        return self.lr * warm * 0.1 ** sum(done >= drop for drop in DROPS)


def _start_momenta(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Momenta of 0 before the first step.

    Torch's fused SGD would allocate them without a value, and write none where it skips that step.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            if parameter.grad is not None and state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(parameter.grad)
