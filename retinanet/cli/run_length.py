"""A run's length on this machine, said after its first steps, with ways to shorten it."""

import argparse
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from retinanet.model import ModelConfig, RetinaNet
from retinanet.training.run_clock import RunClock, duration

LONG = 3600.0  # seconds from which it is said what would shorten a run
SMALLEST_SIDE = 256  # that is proposed, pixels: below, small objects are lost

# Smaller networks that are proposed: the shallowest, and that of recipes/small-machine.args.
SMALLER: dict[str, Callable[[ModelConfig], ModelConfig]] = {
    "--depth 18": lambda config: replace(config, depth=18),
    "--depth 18 --fpn_channels 80 --head_convs 2": lambda config: replace(
        config, depth=18, channels=80, head_convs=2
    ),
}


def run_length(
    args: argparse.Namespace, config: ModelConfig, clock: RunClock, epoch: int, step: int
) -> str:
    """The line on a run's length; empty where there is nothing to say.

    Args:
        args: flags of train.py.
        config: of the network.
        clock: of the run; its speed is known.
        epoch: that the run is in.
        step: of that epoch that comes next.
    """
    if args.minutes is not None:
        epochs = epoch + (step + clock.steps_left(epoch, step)) / clock.course.epoch_steps
        return f"--minutes {args.minutes:g}: there is time for about {epochs:.1f} epochs"
    left = clock.left(epoch, step) or 0.0
    if left < LONG:
        return ""
    if args.resume:  # all that would shorten it must stay as it was
        return f"By its steps so far the rest of the run takes about {duration(left)}"
    ways = [
        f"{flags} ({duration(share * left)})" for flags, share in _ways(args, config) if share < 1
    ]
    return (
        f"By its first steps the run takes about {duration(left)} on this machine. Shorter,"
        f" each at some cost in AP: {', '.join([*ways, f'--minutes {LONG / 60:.0f}'])}"
    )


def _ways(args: argparse.Namespace, config: ModelConfig) -> list[tuple[str, float]]:
    """Flags that shorten a run, and the share of its time that each leaves, by arithmetic."""
    ways: list[tuple[str, float]] = []
    side = 32 * round(args.min_side / math.sqrt(2) / 32)  # about half the pixels
    if side >= SMALLEST_SIDE:
        share = side / args.min_side
        longer = 32 * round(args.max_side * share / 32)
        ways.append((f"--min_side {side} --max_side {longer}", share**2))
    if args.weights in ("imagenet", "none"):  # those of a file fit its own network alone
        flops = _flops(config)
        ways += [(flags, _flops(smaller(config)) / flops) for flags, smaller in SMALLER.items()]
    return ways


def _flops(config: ModelConfig) -> int:
    """Operations of a network on a small image."""
    # The run's own random numbers stay as they are.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), torch.random.fork_rng([]):
        RetinaNet(config).head_outputs(torch.zeros(1, 3, 128, 128))
    return int(counter.get_total_flops())
