"""The converter as people run it, on files as the projects write them, and what it refuses."""

import hashlib
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from retinanet.errors import DataError
from retinanet.model import ModelConfig, RetinaNet
from retinanet.tools.convert import main
from retinanet.weights import conversion as foreign
from retinanet.weights.checkpoint import Checkpoint, load_checkpoint, load_foreign, save_checkpoint
from retinanet.weights.conversion import COCO_IDS, COCO_NAMES
from retinanet.weights.projects import SOURCES

pytestmark = pytest.mark.usefixtures("narrow")
WIDTH, CHANNELS = 8, 32  # of a narrow network


def their_weights(source: str, K: int = 80, depth: int = 18, counts: bool = False) -> dict:
    """A project's state dict, with a model's first weights."""
    torch.manual_seed(0)
    model = RetinaNet(ModelConfig(K, depth, **SOURCES[source].settings))
    names = SOURCES[source].weight_names(model.state_dict())
    return {
        names[ours]: tensor.contiguous()
        for ours, tensor in model.state_dict().items()
        if counts or tensor.dim()
    }


@pytest.fixture(scope="module")
def mmdetection() -> dict[str, Tensor]:
    return their_weights("mmdetection")


@pytest.fixture(scope="module")
def torchvision() -> dict[str, Tensor]:
    return their_weights("torchvision", K=91)


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], expected[name]) for name in expected
    )


# ---- the command ----


def test_a_file_becomes_a_checkpoint(tmp_path, mmdetection, capsys) -> None:
    torch.save({"meta": {"epoch": 12}, "state_dict": mmdetection}, tmp_path / "in.pth")
    out = tmp_path / "new" / "coco.pt"
    assert main(["--from", "mmdetection", str(tmp_path / "in.pth"), str(out)]) == 0
    assert "mmdetection's RetinaNet, ResNet-18, 80 classes" in capsys.readouterr().out
    found = load_checkpoint(out)
    assert found.config == ModelConfig(
        80,
        18,
        anchor_grid="corner",
        log_ratio_limits=(-4.135166556742356, 4.135166556742356),
        p7_relu=False,
    )
    assert found.class_names == COCO_NAMES
    assert (COCO_NAMES[0], COCO_NAMES[79], len(COCO_NAMES)) == ("person", "toothbrush", 80)
    assert (found.min_side, found.max_side) == (800, 1333)
    model = found.build(torch.device("cpu"))
    assert torch.equal(model.conv1.weight, mmdetection["backbone.conv1.weight"])


def test_an_existing_file_stays_unless_told(tmp_path, mmdetection, capsys) -> None:
    torch.save(mmdetection, tmp_path / "in.pth")
    (tmp_path / "out.pt").write_text("precious")
    flags = ["--from", "mmdetection", str(tmp_path / "in.pth"), str(tmp_path / "out.pt")]
    assert main(flags) == 1
    assert "out.pt: it exists; pass --overwrite or choose another name" in capsys.readouterr().err
    assert (tmp_path / "out.pt").read_text() == "precious"
    assert main([*flags, "--overwrite"]) == 0
    assert load_checkpoint(tmp_path / "out.pt").config.depth == 18


def test_classes_of_ones_own(tmp_path, capsys) -> None:
    torch.save(their_weights("mmdetection", K=2), tmp_path / "in.pth")
    flags = ["--from", "mmdetection", str(tmp_path / "in.pth"), str(tmp_path / "out.pt")]
    assert main(flags) == 0
    assert "names of its classes are not known; --csv_classes" in capsys.readouterr().out
    assert load_checkpoint(tmp_path / "out.pt").class_names == ()
    (tmp_path / "classes.csv").write_text("cat,0\ndog,1\n")
    assert main([*flags, "--overwrite", "--csv_classes", str(tmp_path / "classes.csv")]) == 0
    assert load_checkpoint(tmp_path / "out.pt").class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["in", "out"], "one of the arguments --from --to is required"),
        (["--from", "keras", "in", "out"], "invalid choice: 'keras'"),
        (["--to", "torchvision", "--bn-eps", "1e-5", "in", "out"], "go with --from"),
    ],
)
def test_flags_that_cannot_be(flags, complaint, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        main(flags)
    assert end.value.code == 2
    assert complaint in capsys.readouterr().err


# ---- what the files look like ----


@pytest.mark.parametrize("wrapper", ["bare", "state_dict", "model", "module."])
def test_wrappers(tmp_path, mmdetection, wrapper) -> None:
    content = {
        "bare": mmdetection,
        "module.": {f"module.{name}": tensor for name, tensor in mmdetection.items()},
    }.get(wrapper, {wrapper: mmdetection, "optimizer": {"state": {}}, "epoch": 3})
    torch.save(content, tmp_path / "in.pth")
    found, note = load_foreign(tmp_path / "in.pth", "mmdetection")
    assert note == ""
    assert torch.equal(found.weights["bn1.weight"], mmdetection["backbone.bn1.weight"])


def with_old_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As torchvision's models were called when the file was published."""
    old = {}
    for name, tensor in weights.items():
        parts = name.split(".")
        if parts[2] in ("inner_blocks", "layer_blocks"):
            del parts[4]  # inner_blocks.0.0.weight
        elif parts[2] == "conv":
            parts[3:5] = [str(2 * int(parts[3]))]  # conv.1.0.weight
        old[".".join(parts)] = tensor
    return old


def test_old_names_of_torchvision(tmp_path, torchvision) -> None:
    old = with_old_names(torchvision)
    assert len(old.keys() - torchvision.keys()) == 28
    torch.save(old, tmp_path / "old.pth")
    torch.save(torchvision, tmp_path / "new.pth")
    found, expected = (
        load_foreign(tmp_path / name, "torchvision")[0].weights for name in ("old.pth", "new.pth")
    )
    assert same(found, expected)


def test_what_is_no_weight_of_the_detector_is_left_out(tmp_path) -> None:
    detectron2 = their_weights("detectron2") | {
        "pixel_mean": torch.zeros(3, 1, 1),
        "anchor_generator.cell_anchors.0": torch.zeros(9, 4),
    }
    odtk = {
        name if "head" in name else f"backbones.ResNet18FPN.{name}": tensor
        for name, tensor in their_weights("odtk").items()
    }
    odtk["backbones.ResNet18FPN.features.fc.weight"] = torch.zeros(1000, 512)
    anchors = {"ratios": [1.0, 2.0, 0.5], "scales": [4 * 2 ** (i / 3) for i in range(3)]}
    torch.save({"model": detectron2}, tmp_path / "detectron2.pth")
    torch.save({"state_dict": odtk, "classes": 80, **anchors}, tmp_path / "odtk.pth")
    for source in ("detectron2", "odtk"):
        found, _ = load_foreign(tmp_path / f"{source}.pth", source)
        assert found.config == ModelConfig(80, 18, **SOURCES[source].settings)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_detectron2s_model_zoo_is_pickled_numpy(tmp_path, protocol) -> None:
    theirs = their_weights("detectron2")
    content = {
        "model": {name: tensor.numpy() for name, tensor in theirs.items()},
        "__author__": "Detectron2 Model Zoo",
    }
    (tmp_path / "model_final.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    torch.save({"model": theirs}, tmp_path / "in.pth")
    found, expected = (
        load_foreign(tmp_path / name, "detectron2")[0].weights
        for name in ("model_final.pkl", "in.pth")
    )
    assert same(found, expected)


# ---- the epsilon of torchvision's batch norm ----


def gains(path: Path, **options: float) -> tuple[Tensor, str]:
    found, note = load_foreign(path, "torchvision", **options)
    return found.weights["bn1.weight"], note


def test_epsilon_of_the_published_file_and_of_others(tmp_path, torchvision) -> None:
    weights = torchvision | {
        "backbone.body.bn1.running_var": torch.full((WIDTH,), 1e-5),
        "backbone.body.bn1.weight": torch.ones(WIDTH),
    }
    torch.save(weights, tmp_path / "in.pth")
    found, note = gains(tmp_path / "in.pth")
    # sqrt((1e-5 + 1e-5) / (1e-5 + 0))
    torch.testing.assert_close(found, torch.full((WIDTH,), 2**0.5))
    assert "an epsilon of 0, as the published file" in note
    assert "--bn_eps 1e-05" in note
    assert gains(tmp_path / "in.pth", bn_eps=1e-5)[0].tolist() == [1] * WIDTH

    counted = their_weights("torchvision", K=91, counts=True) | weights
    torch.save(counted, tmp_path / "counted.pth")
    found, note = gains(tmp_path / "counted.pth")
    assert found.tolist() == [1] * WIDTH
    assert "batch norm counts batches, so its epsilon is 1e-05" in note


# ---- what is refused ----


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"neck.fpn_convs.4.conv.bias": None}, "1 missing: neck.fpn_convs.4.conv.bias"),
        (
            {f"backbone.layer1.{i}.conv3.weight": torch.zeros(1) for i in range(4)},
            "4 left over: backbone.layer1.0.conv3.weight, backbone.layer1.1.conv3.weight,"
            " backbone.layer1.2.conv3.weight ...",
        ),
        (
            {"bbox_head.retina_reg.weight": torch.zeros(24, CHANNELS, 3, 3)},
            f"1 of another shape: bbox_head.retina_reg.weight ([24, {CHANNELS}, 3, 3], expected"
            f" [36, {CHANNELS}, 3, 3])",
        ),
        (
            {"bbox_head.retina_cls.bias": None},
            "there is no bbox_head.retina_cls.bias in it, so it is not mmdetection's RetinaNet",
        ),
        ({"backbone.bn1.bias": "text"}, "backbone.bn1.bias is no tensor"),
        ({"backbone.bn1.bias": torch.full((WIDTH,), torch.nan)}, "backbone.bn1.bias is not finite"),
    ],
)
def test_tensors_that_are_not_those_of_the_project(
    tmp_path, mmdetection, change, complaint
) -> None:
    weights = mmdetection | change
    torch.save({k: v for k, v in weights.items() if v is not None}, tmp_path / "in.pth")
    with pytest.raises(DataError) as error:
        load_foreign(tmp_path / "in.pth", "mmdetection")
    assert complaint in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "in.pth"))


def test_another_projects_file_and_another_version(tmp_path, torchvision) -> None:
    torch.save(torchvision, tmp_path / "in.pth")
    with pytest.raises(DataError, match=r"no head\.cls_score\.bias in it, so it is not detectron2"):
        load_foreign(tmp_path / "in.pth", "detectron2")
    with pytest.raises(DataError, match=r"RetinaNet v2 on a ResNet-18: 16 missing: head\.regr"):
        load_foreign(tmp_path / "in.pth", "torchvision_v2")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ([1], "it holds no state dict; expected ODTK's RetinaNet"),
        ({}, "there is no cls_head.8.bias in it, so it is not ODTK's RetinaNet; it holds nothing"),
        ({"state_dict": {}, "ratios": [1.0, 3.0]}, "ratios are 1, 3; expected 1, 2, 0.5"),
        ({"state_dict": {}, "scales": {"a": 1}}, "scales are {'a': 1}; expected 4, 5.04, 6.35"),
        ({"state_dict": {}, "meta": {"config": "x\nstyle='caffe'"}}, "is of style 'caffe'"),
    ],
)
def test_what_a_file_says_of_itself(tmp_path, content, complaint) -> None:
    torch.save(content, tmp_path / "in.pth")
    with pytest.raises(DataError) as error:
        load_foreign(tmp_path / "in.pth", "odtk")
    assert complaint in str(error.value)


def test_no_such_file(tmp_path, capsys) -> None:
    flags = ["--from", "odtk", str(tmp_path / "none.pth"), str(tmp_path / "out.pt")]
    assert main(flags) == 1
    assert "none.pth: there is no such file" in capsys.readouterr().err


# ---- torchvision's published files ----


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """torch.hub's folder of files, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def test_without_a_network_the_file_to_place_is_named(cache) -> None:
    with pytest.raises(DataError) as error:
        load_checkpoint("torchvision-coco")
    message = str(error.value)
    assert str(cache / "retinanet_resnet50_fpn_coco-eeacb38b.pth") in message
    assert "the torchvision-coco weights are not here and could not be fetched" in message
    assert "https://download.pytorch.org/models/retinanet_resnet50_fpn_coco-" in message
    assert "\n" not in message


def test_a_placed_file_is_converted_on_the_fly(cache, torchvision, monkeypatch) -> None:
    cache.mkdir(parents=True)
    torch.save(with_old_names(torchvision), cache / "file")
    digits = hashlib.sha256((cache / "file").read_bytes()).hexdigest()[:8]
    (cache / "file").rename(cache / f"retinanet-{digits}.pth")
    url = f"https://example.org/retinanet-{digits}.pth"
    monkeypatch.setitem(foreign.PUBLISHED, "torchvision-coco", ("torchvision", url))
    found = load_checkpoint("torchvision-coco")
    assert found.config == ModelConfig(80, 18, anchor_grid="torchvision", p6_from_p5=True)
    assert found.class_names == COCO_NAMES
    output = torchvision["head.classification_head.cls_logits.bias"].view(9, 91)[:, COCO_IDS]
    assert torch.equal(found.weights["classificationModel.output.bias"], output.flatten())


# ---- and back ----


def test_back_to_torchvision(tmp_path, torchvision, capsys) -> None:
    torch.save(torchvision, tmp_path / "in.pth")
    paths = [str(tmp_path / name) for name in ("in.pth", "ours.pt", "out.pth")]
    assert main(["--from", "torchvision", "--bn_eps", "1e-5", *paths[:2]]) == 0
    assert main(["--to", "torchvision", *paths[1:]]) == 0
    assert "retinanet_resnet18_fpn(weights=None, weights_backbone=None, num_classes=91)" in (
        capsys.readouterr().out
    )
    found = torch.load(tmp_path / "out.pth", weights_only=True)
    for name, expected in torchvision.items():
        if "cls_logits" not in name:
            torch.testing.assert_close(found[name], expected, rtol=1e-6, atol=1e-12, msg=name)
    bias = found["head.classification_head.cls_logits.bias"].view(9, 91)
    assert (bias[:, [0, 12, 83]] == -20).all()
    # Read again, nothing is folded twice.
    again, _ = load_foreign(tmp_path / "out.pth", "torchvision")
    ours = load_checkpoint(tmp_path / "ours.pt")
    torch.testing.assert_close(again.weights, ours.weights, rtol=1e-6, atol=1e-12)


def test_other_classes_keep_their_labels(tmp_path) -> None:
    config = ModelConfig(3, 18, **SOURCES["torchvision_v2"].settings)
    weights = RetinaNet(config).state_dict()
    save_checkpoint(tmp_path / "in.pt", Checkpoint(config, weights, ("a", "b", "c")))
    assert main(["--to", "torchvision", str(tmp_path / "in.pt"), str(tmp_path / "out.pth")]) == 0
    found = torch.load(tmp_path / "out.pth", weights_only=True)
    assert torch.equal(
        found["head.classification_head.cls_logits.bias"],
        weights["classificationModel.output.bias"],
    )


def test_what_torchvision_cannot_build_stays(tmp_path, capsys) -> None:
    config = ModelConfig(3, 18, anchor_ratios=(0.5, 1.0))
    save_checkpoint(tmp_path / "in.pt", Checkpoint(config, RetinaNet(config).state_dict()))
    assert main(["--to", "torchvision", str(tmp_path / "in.pt"), str(tmp_path / "out.pth")]) == 1
    said = capsys.readouterr().err
    assert (
        "torchvision has no such model: its anchor_ratios is (0.5, 1.0), not (0.5, 1.0, 2" in said
    )
    assert "its anchor_grid is center, not torchvision" in said
    assert "its p6_from_p5 is False, not True" in said
    assert not (tmp_path / "out.pth").exists()
