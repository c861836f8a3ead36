"""What a training starts from: which tensors, and of which network."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

import train
from retinanet.anchors import SCALES
from retinanet.data.shapes import write_shapes
from retinanet.errors import DataError
from retinanet.model import ModelConfig, RetinaNet, resnet18, resnet50
from retinanet.weights import pretrained
from retinanet.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from retinanet.weights.pretrained import (
    Start,
    resumed_start,
    start_config,
    start_weights,
    take_weights,
)
from retinanet.weights.projects import SOURCES
from tests.support.helpers import csv_run_flags
from tests.support.narrow import narrow_network

pytestmark = pytest.mark.usefixtures("narrow")


@pytest.fixture(scope="module")
def model() -> RetinaNet:
    torch.manual_seed(0)
    return resnet18(num_classes=3)


def test_start_from_a_torchvision_resnet_of_any_float_type(
    tmp_path: Path, model: RetinaNet
) -> None:
    heads = ("fpn", "regression", "classification")
    resnet = {k: v.half() for k, v in model.state_dict().items() if not k.startswith(heads)}
    resnet["fc.weight"] = torch.zeros(1000, 512)
    torch.save(resnet, tmp_path / "resnet.pth")
    fresh = resnet18(num_classes=5)
    said = take_weights(fresh, start_weights(str(tmp_path / "resnet.pth"), 18).weights)
    assert said == "taken: backbone; new: FPN, box head, class tower, class output"
    assert fresh.conv1.weight.dtype == torch.float32
    assert torch.equal(fresh.conv1.weight, model.conv1.weight.half().float())


@pytest.mark.parametrize(
    ("classes", "new"), [(3, "nothing"), (5, "class output")], ids=["same classes", "others"]
)
def test_start_from_a_detector(tmp_path: Path, model: RetinaNet, classes: int, new: str) -> None:
    save_checkpoint(tmp_path / "a.pt", Checkpoint(model.config, model.state_dict()))
    fresh = resnet18(num_classes=classes)
    said = take_weights(fresh, start_weights(str(tmp_path / "a.pt"), 18).weights)
    assert said.endswith(f"new: {new}")
    assert torch.equal(
        fresh.classificationModel.conv4.weight, model.classificationModel.conv4.weight
    )
    output = fresh.classificationModel.output.weight
    assert torch.equal(output, model.classificationModel.output.weight) == (classes == 3) or (
        output.abs().max() == 0  # a new output starts at zero
    )


def test_start_from_another_depth_is_refused(tmp_path: Path, model: RetinaNet) -> None:
    torch.save(model.state_dict(), tmp_path / "a.pt")
    with pytest.raises(DataError, match=r"ResNet-18, the model is a ResNet-50; pass --depth 18"):
        start_weights(str(tmp_path / "a.pt"), 50)


@pytest.mark.parametrize(("name", "version"), [("imagenet", 1), ("imagenet-v2", 2)])
def test_start_from_torchvisions_imagenet_weights(
    monkeypatch: pytest.MonkeyPatch, name: str, version: int
) -> None:
    asked = []

    def weights(depth: int, *, version: int) -> dict[str, torch.Tensor]:
        asked.append((depth, version))
        return {"conv1.weight": torch.ones(2)}

    monkeypatch.setattr(pretrained, "imagenet_weights", weights)
    start = start_weights(name, 50)
    assert (start.source, start.config, asked) == (name, None, [(50, version)])


def test_start_from_nothing(model: RetinaNet) -> None:
    assert start_weights("none", 18) == Start("none", {})
    assert take_weights(resnet50(2), {}).startswith("taken: nothing; new: backbone")


# ---- a detector of another project ----


@pytest.mark.parametrize("source", SOURCES)
def test_all_but_the_classes_is_the_files(tmp_path: Path, source: str) -> None:
    config = ModelConfig(4, 18, **SOURCES[source].settings)
    torch.manual_seed(0)
    weights = RetinaNet(config).state_dict()
    save_checkpoint(tmp_path / "a.pt", Checkpoint(config, weights))
    start = start_weights(str(tmp_path / "a.pt"), 18)
    found = start_config(start, num_classes=3, depth=18, settings={})
    assert found == replace(config, num_classes=3)
    fresh = RetinaNet(found)
    said = take_weights(fresh, start.weights)
    assert said == "taken: backbone, FPN, box head, class tower; new: class output"
    for name, tensor in fresh.state_dict().items():
        kept = torch.equal(tensor, weights[name]) if tensor.shape == weights[name].shape else False
        assert kept == (not name.startswith("classificationModel.output")), name


def test_a_tower_without_its_norms_is_new(model: RetinaNet) -> None:
    fresh = RetinaNet(ModelConfig(3, 18, group_norm=True))
    said = take_weights(fresh, model.state_dict())
    assert said == "taken: backbone, FPN, class output; new: box head, class tower"


def test_where_nothing_is_known_the_flags_decide() -> None:
    asked = {"anchor_scales": (1.0,)}
    found = start_config(Start("imagenet", {}), num_classes=3, depth=18, settings=asked)
    assert found == ModelConfig(3, 18, anchor_scales=(1.0,))


def test_other_anchors_than_the_files_are_refused() -> None:
    start = Start("a.pt", {}, ModelConfig(80, anchor_sizes=(16, 32, 64, 128, 256)))
    asked: dict[str, tuple[float, ...]] = {"anchor_scales": SCALES}
    start_config(start, num_classes=3, depth=50, settings=asked)  # the sizes are the file's
    asked["anchor_sizes"] = (32, 64, 128, 256, 512)
    with pytest.raises(DataError) as error:
        start_config(start, num_classes=3, depth=50, settings=asked)
    assert str(error.value) == (
        "a.pt: its anchor_sizes are 16 32 64 128 256, asked for are 32 64 128 256 512;"
        " give the same ones, or other --weights"
    )


def test_a_run_and_its_resumption_keep_the_files_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = write_shapes(tmp_path / "shapes", train_images=2, val_images=1, seed=0)
    # Group norm needs two channels a group, where a level is one cell large.
    with narrow_network(divisor=4):
        config = ModelConfig(5, 18, **SOURCES["torchvision_v2"].settings)
        torch.manual_seed(0)
        save_checkpoint(tmp_path / "coco.pt", Checkpoint(config, RetinaNet(config).state_dict()))
        flags = csv_run_flags(sample, tmp_path / "run", "--weights", str(tmp_path / "coco.pt"))
        assert train.main([*flags, "--epochs", "1"]) == 0
        assert "class tower; new: class output" in capsys.readouterr().out
        (tmp_path / "coco.pt").unlink()
        assert train.main([*flags, "--epochs", "2", "--resume"]) == 0
        found = load_checkpoint(tmp_path / "run" / "model_final.pt")
        assert found.config == replace(config, num_classes=len(found.class_names))
        assert found.epoch == 1


def test_a_state_of_a_larger_network_than_its_weights_is_refused(model: RetinaNet) -> None:
    """A few settings must not make the program take 40 GB for a network of 30,000 channels."""
    state = {"network": asdict(model.config), "weights": model.state_dict()}
    assert resumed_start(state, "a.pt") == Start("a.pt", None, model.config)
    state["network"] |= {"channels": 30_000}
    with pytest.raises(DataError, match=r"a\.pt: .*do not fit"):
        resumed_start(state, "a.pt")
    state["weights"] = {"conv1.weight": 3}
    with pytest.raises(DataError, match=r"a\.pt: a damaged state"):
        resumed_start(state, "a.pt")
