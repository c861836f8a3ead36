"""Under torchrun: train.py, each process saving its model's buffers after every epoch."""

import os
import sys
from pathlib import Path
from typing import Any

import torch

import train
from retinanet.training.trainer import Training

train_epoch = Training.train_epoch


def train_epoch_and_save(self: Training, *args: Any, **more: Any) -> None:
    """To FOLDER/RANK.pt."""
    train_epoch(self, *args, **more)
    torch.save(dict(self.model.named_buffers()), Path(sys.argv[1], f"{os.environ['RANK']}.pt"))


Training.train_epoch = train_epoch_and_save  # type: ignore[method-assign]
sys.exit(train.main(sys.argv[2:]))
