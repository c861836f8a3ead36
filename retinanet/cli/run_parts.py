"""The parts of a training run, as the flags set them: folder, loaders, training."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import torch

from retinanet.cli.flags import learning_settings
from retinanet.cli.from_flags import tiling
from retinanet.cli.run_length import run_length
from retinanet.data.batches import TrainingBatches
from retinanet.data.datasets import Data
from retinanet.errors import counted
from retinanet.evaluation.measure import Evaluator
from retinanet.inference.tiles import Tiling
from retinanet.model import RetinaNet
from retinanet.runtime.console import say
from retinanet.runtime.device import Runtime, backend, usable_workers
from retinanet.training.loss_log import LossLog
from retinanet.training.optim import OptimConfig
from retinanet.training.run_clock import Course, RunClock
from retinanet.training.run_folder import RunFolder
from retinanet.training.run_log import RunLog
from retinanet.training.tiles import TrainingTiles
from retinanet.training.trainer import Training
from retinanet.weights.checkpoint import Checkpoint


def make_folder(args: argparse.Namespace) -> RunFolder:
    """The folder of the run; nothing is read or written yet."""
    return RunFolder(
        Path(args.output_dir),
        args.dataset,
        keep=args.keep,
        save_every_minutes=args.save_every_minutes,
    )


def make_loaders(
    args: argparse.Namespace, runtime: Runtime, train: Data, val: Data | None
) -> tuple[TrainingBatches, Evaluator | None]:
    """Batches to train on, and the evaluation if there are data for it."""
    loading: dict[str, Any] = {
        "workers": usable_workers(args.workers),
        "pin_memory": backend(runtime.device).pinned,
    }
    tiles = tiling(args)
    samples = TrainingTiles(train, tiles, args.seed) if tiles else train
    if tiles:
        views = counted(len(samples), "view")
        say(f"{views} an epoch: tiles of {args.tile} px, and each picture as a whole")
    batches = TrainingBatches(samples, args.batch_size, seed=args.seed, **loading)
    if val is None:
        return batches, None
    evaluator = Evaluator(
        val, 2 * args.batch_size, autocast=runtime.autocast, tiling=tiles, **loading
    )
    return batches, evaluator


def make_training(
    args: argparse.Namespace,
    runtime: Runtime,
    folder: RunFolder,
    model: RetinaNet,
    train: Data,
    val: Data | None,
    batches: TrainingBatches,
) -> Training:
    """The model with its optimizer, the clock of the run and the log of its losses.

    Args:
        args: flags of train.py.
        runtime: device and precision.
        folder: of the run, for its log.
        model: on its device.
        train: the training data.
        val: the validation data, if there are any.
        batches: of an epoch.

    Raises:
        DataError: --tensorboard without its package.
    """
    course = Course(
        len(batches),
        args.epochs,
        args.minutes,
        args.eval_every,
        evaluation=_views(val, tiling(args)) / (args.batch_size * runtime.world_size),
    )
    clock = RunClock(course, runtime.started)
    log = RunLog(
        folder.path,
        device=runtime.device,
        log_every=args.log_every,
        clock=clock,
        announce=partial(run_length, args, model.config, clock),
        tensorboard=args.tensorboard,
    )
    losses = LossLog(
        log, batches.samples.image_path, skips_overflow=runtime.autocast is torch.float16
    )
    optim = OptimConfig(**learning_settings(args), steps=(args.epochs or 0) * len(batches))
    checkpoint = Checkpoint(
        model.config,
        model.state_dict(),
        train.class_names,
        min_side=args.min_side,
        max_side=args.max_side,
        tile=args.tile,
        tile_overlap=args.tile_overlap,
        matching=args.matching,
    )
    return Training(model, runtime, optim, losses, checkpoint)


def _views(val: Data | None, tiles: Tiling | None) -> int:
    """Images that an evaluation looks at: of pictures that are cut, the tiles and the whole."""
    if val is None or tiles is None:
        return len(val or ())
    return sum(len(tiles.windows(*val.image_size(index))) for index in range(len(val)))
