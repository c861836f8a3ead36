"""Files of weights: what is written, what is read, what is refused."""

import os
import pickle
import zipfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import retinanet.anchors
import retinanet.model
import retinanet.utils
from retinanet.errors import DataError
from retinanet.model import ModelConfig, RetinaNet, resnet18
from retinanet.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, write_file
from tests.support.helpers import Foreign, Touch

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> RetinaNet:
    torch.manual_seed(0)
    return resnet18(num_classes=3)


def same_weights(found: dict[str, torch.Tensor], model: nn.Module) -> bool:
    expected = model.state_dict()
    return found.keys() == expected.keys() and all(
        torch.equal(found[k], expected[k]) for k in found
    )


# ---- writing ----


def test_checkpoint_comes_back_as_it_was(tmp_path: Path, model: RetinaNet) -> None:
    saved = Checkpoint(
        model.config,
        model.state_dict(),
        class_names=("cat", "dog", "élan"),
        min_side=256,
        max_side=300,
        epoch=4,
        metrics={"AP": 0.25},
        thresholds=(0.3, 0.4, 0.5),
        thresholds_epoch=3,
        matching="atss",
    )
    save_checkpoint(tmp_path / "a.pt", saved)
    loaded = load_checkpoint(tmp_path / "a.pt")
    assert same_weights(loaded.weights, model)
    for name in (field.name for field in fields(Checkpoint) if field.name != "weights"):
        assert getattr(loaded, name) == getattr(saved, name), name
    assert not loaded.build(CPU).training
    assert os.listdir(tmp_path) == ["a.pt"]


def test_a_checkpoint_of_version_1_0_has_no_thresholds(tmp_path: Path, model: RetinaNet) -> None:
    save_checkpoint(tmp_path / "a.pt", Checkpoint(model.config, model.state_dict()))
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    del content["thresholds"], content["thresholds_epoch"], content["matching"]
    torch.save(content, tmp_path / "old.pt")
    old = load_checkpoint(tmp_path / "old.pt")
    assert old.matching == "iou"
    assert (old.thresholds, old.thresholds_epoch, old.score_threshold) == ((), None, 0.5)
    assert old.threshold_note == "Score threshold 0.5: the model's file has none of its own"


def test_a_class_without_a_best_f1_is_not_said_to_have_one(model: RetinaNet) -> None:
    known = Checkpoint(model.config, {}, ("cat", "dog", "emu"), thresholds=(0.3, 0.4, 0.6))
    said = "Score thresholds, where F1 was best on the validation data after epoch 3"
    known = replace(known, thresholds_epoch=3)
    assert known.threshold_note == f"{said}: cat 0.300, dog 0.400, emu 0.600"
    lacking = replace(known, thresholds=(0.3, 0.4, 0.5))
    assert lacking.threshold_note == (f"{said} (0.5 without one): cat 0.300, dog 0.400, emu 0.500")


@pytest.mark.parametrize(
    "values",
    [
        {"thresholds": (0.5,)},
        {"thresholds": (0.5, 0.5, 1.5)},
        {"thresholds": (0.5, 0.5, "a")},
        {"matching": "all"},
    ],
)
def test_values_that_cannot_be(tmp_path: Path, model: RetinaNet, values: dict[str, Any]) -> None:
    wrong = Checkpoint(model.config, model.state_dict(), **values)
    save_checkpoint(tmp_path / "a.pt", wrong)
    with pytest.raises(DataError, match="it is no checkpoint of a model"):
        load_checkpoint(tmp_path / "a.pt")


def test_a_bare_state_dict_tells_the_size_of_the_network(tmp_path: Path) -> None:
    small = RetinaNet(ModelConfig(num_classes=3, depth=18, channels=64, head_convs=2))
    torch.save(small.state_dict(), tmp_path / "small.pt")
    assert load_checkpoint(tmp_path / "small.pt").config == small.config


def test_file_is_plain_data(tmp_path: Path, model: RetinaNet) -> None:
    save_checkpoint(tmp_path / "a.pt", Checkpoint(model.config, model.state_dict()))
    assert isinstance(torch.load(tmp_path / "a.pt", weights_only=True), dict)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (np.float64(0.5), r"checkpoint\['metrics'\]\['ap'\] is numpy.float64"),
        (Path("x"), r"checkpoint\['metrics'\]\['ap'\] is pathlib"),
        ([1, {2}], r"checkpoint\['metrics'\]\['ap'\]\[1\] is builtins.set"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(
    tmp_path: Path, value: object, complaint: str
) -> None:
    with pytest.raises(TypeError, match=complaint):
        write_file(tmp_path / "a.pt", {"metrics": {"ap": value}})
    assert not os.listdir(tmp_path)


def test_failed_write_leaves_the_old_file(tmp_path: Path, model: RetinaNet) -> None:
    resource = pytest.importorskip("resource")
    save_checkpoint(tmp_path / "a.pt", Checkpoint(model.config, {"w": torch.ones(3)}))
    before = (tmp_path / "a.pt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores SIGXFSZ, so that a write beyond the limit fails with EFBIG, like a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(DataError, match=r"a\.pt: could not be written"):
            save_checkpoint(tmp_path / "a.pt", Checkpoint(model.config, model.state_dict()))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "a.pt").read_bytes() == before
    assert os.listdir(tmp_path) == ["a.pt"]


# ---- reading foreign files ----


@pytest.mark.parametrize("prefix", ["", "module."])
def test_bare_state_dict(tmp_path: Path, model: RetinaNet, prefix: str) -> None:
    weights = {prefix + name: value for name, value in model.state_dict().items()}
    torch.save(weights, tmp_path / "a.pt")
    loaded = load_checkpoint(tmp_path / "a.pt")
    assert loaded.config == ModelConfig(num_classes=3, depth=18)
    assert loaded.class_names == ()
    assert same_weights(loaded.weights, model)


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_depth_is_read_from_the_shapes(tmp_path: Path, depth: int) -> None:
    with torch.device("meta"):
        shapes = RetinaNet(ModelConfig(num_classes=2, depth=depth)).state_dict()
    # One byte a number: the file stays small.
    weights = {k: torch.zeros(v.shape, dtype=torch.uint8) for k, v in shapes.items()}
    torch.save(weights, tmp_path / "a.pt")
    assert load_checkpoint(tmp_path / "a.pt").config == ModelConfig(num_classes=2, depth=depth)


def original_module(model: RetinaNet, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A module tree with the class names of the original's pickles around a model's weights."""

    def stand_in(module: object, name: str) -> type[nn.Module]:
        made = type(name, (nn.Module,), {"__module__": module.__name__})  # type: ignore[attr-defined]
        monkeypatch.setattr(module, name, made, raising=False)
        return made

    result = stand_in(retinanet.model, "ResNet")()
    for name, child in model.named_children():
        if name not in ("anchors", "loss"):
            setattr(result, name, child)
    result.relu, result.upsample = nn.ReLU(inplace=True), nn.Upsample(scale_factor=2)
    result.anchors = stand_in(retinanet.anchors, "Anchors")()
    result.anchors.ratios, result.anchors.best = np.array([0.5, 1, 2]), np.float64(3)
    result.regressBoxes = stand_in(retinanet.utils, "BBoxTransform")()
    result.regressBoxes.mean = torch.zeros(4)
    return result


@pytest.mark.parametrize("parallel", [True, False])
def test_whole_module_of_the_original(
    tmp_path: Path, model: RetinaNet, monkeypatch: pytest.MonkeyPatch, parallel: bool
) -> None:
    module = original_module(model, monkeypatch)
    if parallel:
        module = nn.DataParallel(module)
    torch.save(module, tmp_path / "a.pt")
    monkeypatch.undo()
    loaded = load_checkpoint(tmp_path / "a.pt")
    assert loaded.config == ModelConfig(num_classes=3, depth=18)
    assert same_weights(loaded.weights, model)


def test_whole_module_with_numpys_other_name(
    tmp_path: Path, model: RetinaNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files from before NumPy 2 say numpy.core, the others numpy._core."""
    torch.save(original_module(model, monkeypatch), tmp_path / "a.pt")
    names = [b"cnumpy.core.multiarray", b"cnumpy._core.multiarray"]
    with zipfile.ZipFile(tmp_path / "a.pt") as old, zipfile.ZipFile(tmp_path / "b.pt", "w") as new:
        for entry in old.namelist():
            content = old.read(entry)
            if entry.endswith("data.pkl"):
                found, other = names if names[0] in content else names[::-1]
                assert found in content
                content = content.replace(found, other)
            new.writestr(entry, content)
    assert same_weights(load_checkpoint(tmp_path / "b.pt").weights, model)


def test_whole_module_of_very_old_torch_is_explained(
    tmp_path: Path, model: RetinaNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = original_module(model, monkeypatch)
    torch.save(module, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(DataError, match=r"before 1\.6.*save its state dict once"):
        load_checkpoint(tmp_path / "a.pt")


def test_own_module_pickled_the_originals_way(tmp_path: Path, model: RetinaNet) -> None:
    torch.save(nn.DataParallel(model), tmp_path / "a.pt")
    assert same_weights(load_checkpoint(tmp_path / "a.pt").weights, model)


# ---- refusing ----


@pytest.mark.parametrize("wrap", ["bare", "nested", "legacy", "pickle", "zip", "foreign"])
def test_code_is_refused_and_not_run(tmp_path: Path, wrap: str) -> None:
    target, file = tmp_path / "was_here", tmp_path / "a.pt"
    exploit = Touch(target)
    if wrap == "pickle":
        file.write_bytes(pickle.dumps(exploit))
    elif wrap == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(exploit))
            archive.writestr("archive/version", "3")
    else:
        content = {"nested": {"version": 1, "config": exploit}, "foreign": Foreign()}
        torch.save(
            content.get(wrap, exploit), file, _use_new_zipfile_serialization=wrap != "legacy"
        )
    with pytest.raises(DataError, match=r"a\.pt: "):
        load_checkpoint(file)
    assert not target.exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "damaged or no checkpoint"),
        (b"not a checkpoint", "damaged or no checkpoint"),
        (b"PK\x03\x04 half a zip", "damaged or no checkpoint"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(DataError, match=complaint):
        load_checkpoint(tmp_path / "a.pt")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.pt: there is no such file"):
        load_checkpoint(tmp_path / "none.pt")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"version": 99, "config": {}}, "format is version 99"),
        ({"version": 1}, "it is no model"),
        ({"version": 1, "config": {"depth": 18}}, "no checkpoint of a model"),
        ({"a": "b"}, "holds no state dict"),
        ([], "holds no state dict"),
        ({"a": torch.zeros(1)}, "not a whole detector"),
    ],
)
def test_files_that_are_no_detector(tmp_path: Path, content: object, complaint: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(DataError, match=complaint):
        load_checkpoint(tmp_path / "a.pt")


def test_weights_that_do_not_fit_are_named(tmp_path: Path, model: RetinaNet) -> None:
    weights = model.state_dict()
    weights["fpn.P6.weight"] = torch.zeros(256, 256, 3, 3)
    weights["extra"] = torch.zeros(1)
    del weights["conv1.weight"]
    torch.save(weights, tmp_path / "a.pt")
    with pytest.raises(DataError) as error:
        load_checkpoint(tmp_path / "a.pt")
    text = str(error.value)
    assert "conv1.weight is missing, expected 64x3x7x7" in text
    assert "fpn.P6.weight is 256x256x3x3, expected 256x512x3x3" in text
    assert "extra is not expected" in text
