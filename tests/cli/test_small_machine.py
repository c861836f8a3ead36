"""The small network of recipes/small-machine.args: its arithmetic, its flags, its files."""

from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import train
from retinanet.cli.train_flags import network_settings, parse
from retinanet.data.shapes import SampleData, write_shapes
from retinanet.model import ModelConfig, RetinaNet
from retinanet.training.saved_state import SavedState
from retinanet.weights.checkpoint import load_checkpoint
from tests.support.helpers import csv_run_flags
from tests.support.narrow import narrow_network
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SampleData:
    return write_shapes(tmp_path_factory.mktemp("shapes"), train_images=4, val_images=2, seed=0)


def flops(config: ModelConfig) -> int:
    """Of one image of 608 x 832 pixels, without computing anything."""
    with FakeTensorMode(), torch.no_grad():
        model = RetinaNet(config)
        with FlopCounterMode(display=False) as count:
            model.head_outputs(torch.zeros(1, 3, 608, 832))
    return count.get_total_flops()


@pytest.mark.parametrize("classes", [3, 80])
def test_the_recipe_takes_a_quarter_of_the_default_arithmetic(classes: int) -> None:
    args = parse([*"--dataset coco --coco_path .".split(), f"@{ROOT}/recipes/small-machine.args"])
    small = ModelConfig(classes, args.depth, **network_settings(args))
    assert flops(small) <= flops(ModelConfig(classes, 50)) / 4


def test_its_size_stays_with_the_model(
    sample: SampleData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = csv_run_flags(sample, tmp_path / "run", "--epochs", "1")
    size = ["--fpn_channels", "24", "--head_convs", "1"]
    with narrow_network():
        assert train.main([*flags, *size]) == 0
        assert "(24 channels, 1 head convolution)" in capsys.readouterr().out
        config = load_checkpoint(tmp_path / "run" / "model_final.pt").config
        assert (config.channels, config.head_convs) == (24, 1)

        # As it is where nothing is asked for; a line where something else is.
        final = str(tmp_path / "run" / "model_final.pt")
        assert train.main([*flags, "--epochs", "2", "--resume"]) == 0
        capsys.readouterr()
        for more in (["--resume"], ["--weights", final, "--overwrite"]):
            assert train.main([*flags, *more, "--fpn_channels", "32"]) == 1
            error = capsys.readouterr().err
            assert "its channels are 24, asked for are 32; give the same ones" in error
        assert train.main([*flags, "--resume", "--head_convs", "4"]) == 1
        assert "its head_convs are 1, asked for are 4" in capsys.readouterr().err


def test_states_of_before_had_the_originals_size() -> None:
    SavedState(Path("state.pt"), {"settings": {}}).check({"--fpn_channels": 256, "--head_convs": 4})
