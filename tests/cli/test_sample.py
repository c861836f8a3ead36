"""The arithmetic of the README's first command, which no machine's speed changes."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from retinanet.cli.from_flags import SAMPLE_SIZE
from retinanet.cli.train_flags import SHAPES_DEFAULTS
from retinanet.data.images import padded_size, resized_size
from retinanet.data.shapes import CLASS_NAMES, LONG_SIDE, SHORT_SIDE
from retinanet.model import ModelConfig, RetinaNet

# 1.0 took 600 steps of 163 GFLOP (two images of 256 x 352) and 240 evaluated images of 27 GFLOP.
FLOPS_OF_1_0 = 600 * 162.7e9 + 240 * 27.3e9


def test_the_sample_takes_a_sixth_of_what_it_took() -> None:
    sides = (int(SHAPES_DEFAULTS["min_side"]), int(SHAPES_DEFAULTS["max_side"]))  # type: ignore[call-overload]
    H, W = padded_size(*resized_size(SHORT_SIDE, LONG_SIDE, *sides)[0])
    model = RetinaNet(ModelConfig(len(CLASS_NAMES), depth=18))
    box = torch.tensor([[[10.0, 10, 60, 60, 1]]] * 2)
    with FlopCounterMode(display=False) as step:
        torch.cat(model([torch.zeros(2, 3, H, W), box])).sum().backward()  # type: ignore[no-untyped-call]
    with FlopCounterMode(display=False) as image, torch.no_grad():
        model.head_outputs(torch.zeros(1, 3, H, W))
    epochs = int(SHAPES_DEFAULTS["epochs"])  # type: ignore[call-overload]
    steps = epochs * SAMPLE_SIZE["train_images"] // 2
    evaluated = epochs * SAMPLE_SIZE["val_images"]
    total = steps * step.get_total_flops() + evaluated * image.get_total_flops()
    assert total <= FLOPS_OF_1_0 / 6
