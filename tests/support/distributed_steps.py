"""The gradients of an epoch's steps by one or several processes, saved by the first.

In float64, so that the order of sums does not show; without steps, so that all are comparable.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torchvision.transforms import Compose

from retinanet.data.batches import AspectRatioBasedSampler, collater
from retinanet.data.datasets import CSVDataset
from retinanet.data.transforms import Augmenter, Normalizer, Resizer
from retinanet.model import resnet18
from retinanet.runtime.device import start_runtime
from retinanet.runtime.distributed import global_batch, shut_down
from retinanet.training import trainer as engine
from retinanet.training.optim import OptimConfig
from retinanet.training.run_log import RunLog


def main(words: Sequence[str]) -> int:
    """Take the gradients of every step of an epoch.

    Args:
        words: folder of the sample, images of a joint batch, file to save to, and "empty" if no
            image is to have a box.
    """
    sample, joint_size, out, empty = words
    runtime = start_runtime("cpu", "fp32", seed=0)
    folder = Path(sample)
    steps = Compose([Augmenter(0), Resizer(64, 96), Normalizer()])
    dataset = CSVDataset(folder / "train.csv", folder / "classes.csv", steps)
    model = resnet18(num_classes=4).double()
    torch.nn.init.normal_(model.regressionModel.output.weight, std=0.01)
    torch.nn.init.normal_(model.classificationModel.output.weight, std=0.01)
    log = engine.LossLog(RunLog(), dataset.image_path, skips_overflow=False)
    training = engine.Training(model, runtime, OptimConfig(clip_norm=1e30), log)
    training.optimizer = torch.optim.SGD(model.parameters(), lr=0.0, fused=True)
    model.train()
    model.freeze_bn()
    sampler = AspectRatioBasedSampler(
        dataset,
        int(joint_size) // runtime.world_size,
        rank=runtime.rank,
        world_size=runtime.world_size,
    )
    found = []
    for indices in sampler:
        batch = collater([dataset[index] for index in indices])
        batch["img"] = batch["img"].double()
        if empty:
            batch["annot"] = torch.full_like(batch["annot"], -1)
        joint = global_batch(*batch["img"].shape[-2:], len(batch["img"]), stop=False)
        losses = training.train_step(batch, joint)
        gradients = [p.grad.flatten() for p in model.parameters()]
        found.append({"losses": losses, "gradient": torch.cat(gradients).clone()})
    if runtime.rank == 0:
        torch.save(found, out)
    shut_down()
    return 0
