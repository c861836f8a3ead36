"""The ONNX file: what it finds, what it says of itself, and when none is written."""

import io
import json
import re
import runpy
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

import retinanet
from retinanet.data.images import read_image
from retinanet.data.transforms import Resizer
from retinanet.errors import DataError
from retinanet.model import ModelConfig, RetinaNet
from retinanet.postprocess import DetectionLimits, Detections
from retinanet.tools import export, onnx_compare
from retinanet.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tests.support.helpers import take_ruled_weights, worst_match
from tests.support.paths import ROOT

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

NAMES = ("cat", "dog", "emu")
LIMITS = DetectionLimits(
    score_threshold=0.13,  # the weights by rule are never sure
    nms_threshold=0.4,
    candidates_per_level=200,
    max_detections=20,
)
KEPT = {"thresholds": (0.14, 0.15, 0.625), "thresholds_epoch": 2}  # of the best F1, by class
pytestmark = pytest.mark.usefixtures("narrow")
FLAGS = [
    f"--{name}={value}" for name, value in asdict(LIMITS).items() if not isinstance(value, bool)
]


def checkpoint_of(**settings):
    """A checkpoint whose model finds things in any picture."""
    model = RetinaNet(ModelConfig(3, depth=18, **settings))
    take_ruled_weights(model)
    return Checkpoint(model.config, model.state_dict(), NAMES, min_side=96, max_side=160)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """What the command leaves and says: its files, and what it compared on the way."""
    folder = tmp_path_factory.mktemp("export")
    save_checkpoint(folder / "model.pt", replace(checkpoint_of(), **KEPT))
    real, programs, said = export.export_graph, [], io.StringIO()

    def kept(*arguments):
        program = real(*arguments)
        programs.append(program.model_proto.SerializeToString())
        return program

    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        patch.setattr(export, "export_graph", kept)
        code = export.main([str(folder / "model.pt"), str(folder / "model.onnx"), *FLAGS])
    assert code == 0
    return SimpleNamespace(
        folder=folder,
        checkpoint=load_checkpoint(folder / "model.pt"),
        pt=folder / "model.pt",
        onnx=folder / "model.onnx",
        content=(folder / "model.onnx").read_bytes(),
        network=programs[0],
        said=said.getvalue(),
    )


def resized(picture, min_side, max_side, views):
    """A batch of samples of a picture and its mirror images."""
    resize = Resizer(min_side, max_side)
    every = (picture, picture[:, ::-1], picture[::-1])[:views]
    return [
        resize({"img": torch.from_numpy(view.copy()), "annot": torch.zeros(0, 5)}) for view in every
    ]


def test_only_the_file_is_left_and_its_fit_is_said(exported) -> None:
    assert sorted(path.name for path in exported.folder.iterdir()) == ["model.onnx", "model.pt"]
    assert "Compared with PyTorch: " in exported.said
    assert " anchors in 9 batches, largest difference of a score " in exported.said
    assert re.search(r"; ([1-9]\d+) of \1 detections alike", exported.said)
    assert "opset 18" in exported.said
    note = (
        "score_thresholds: Score thresholds, where F1 was best on the validation data after epoch 2"
    )
    assert f"{note}: cat 0.140, dog 0.150, emu 0.625\n" in exported.said


@pytest.mark.parametrize(
    ("picture", "min_side", "max_side", "views"),
    [
        (data.chelsea(), 96, 160, 1),  # the checkpoint's own size
        (data.rocket(), 256, 416, 2),  # larger
        (np.rot90(data.coffee()), 150, 333, 3),  # upright, no multiples of 32
        (data.astronaut(), 32, 32, 3),  # one cell at most levels
        (data.astronaut(), 1, 1, 1),  # fewer cells than candidates
        (data.chelsea()[:, :40], 17, 900, 1),  # a strip
    ],
    ids=["own size", "large", "upright", "small", "one pixel", "strip"],
)
def test_every_number_and_size_of_pictures(exported, picture, min_side, max_side, views) -> None:
    model = exported.checkpoint.build(torch.device("cpu"))
    case = onnx_compare.expected(model, resized(picture, min_side, max_side, views), LIMITS)
    assert all(len(found.scores) > 0 for found in case.detections)
    agreement = onnx_compare.compare([case], exported.network, exported.content)
    assert agreement.score < 1e-5
    assert agreement.box < 1e-2
    assert (agreement.batches, agreement.unlike) == (1, 0)

    session = onnx_compare.open_session(exported.content)
    for theirs, *columns in zip(
        case.detections, *onnx_compare.run(session, case.pixels), strict=True
    ):
        scores, labels, boxes = columns
        count = len(theirs.scores)
        assert worst_match((scores, labels, boxes), theirs) < 1e-2
        assert (scores[:count] > LIMITS.score_threshold).all()
        assert (scores[:count].diff() <= 0).all()
        assert set(scores[count:].tolist()) <= {0.0}
        assert set(labels[count:].tolist()) <= {-1}
        assert not boxes[count:].any()


def test_the_file_says_what_goes_in_and_out(exported) -> None:
    model = onnx.load(exported.onnx)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    shapes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in [*model.graph.input, *model.graph.output]
    }
    assert shapes == {
        "images": ["B", "H", "W", 3],
        "scores": ["B", 20],
        "labels": ["B", 20],
        "boxes": ["B", 20, 4],
    }
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts.pop("input") == export.INPUT
    assert facts.pop("output") == export.OUTPUT[True]
    assert {name: json.loads(fact) for name, fact in facts.items()} == {
        "class_names": list(NAMES),
        "min_side": 96,
        "max_side": 160,
        "score_thresholds": list(KEPT["thresholds"]),
        "retinanet_version": retinanet.__version__,
        **asdict(LIMITS),
    }


def test_a_model_without_kept_thresholds_is_given_one_for_all() -> None:
    facts = export.metadata(SimpleNamespace(no_nms=True), checkpoint_of(), LIMITS)
    assert json.loads(facts["score_thresholds"]) == 0.5


def test_the_file_tells_nothing_of_the_machine(exported) -> None:
    assert str(ROOT).encode() not in exported.content
    assert b"site-packages" not in exported.content


@pytest.mark.parametrize("top", [255, 4095, 65535])
def test_the_example_sees_grey_of_any_depth_as_the_program_does(tmp_path, top) -> None:
    example = runpy.run_path(str(ROOT / "examples/onnx_detect.py"))
    values = (data.camera() / 255 * top).astype(np.uint16)
    path = tmp_path / "grey.png"
    Image.fromarray(values).save(path)
    seen = np.asarray(example["as_rgb"](Image.open(path)))
    np.testing.assert_array_equal(seen, read_image(path))
    assert seen.min() < 5
    assert seen.max() > 250
    assert 100 < seen.mean() < 160


def test_the_example_finds_what_the_detector_finds_without_torch(exported, tmp_path) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(data.coffee()).save(photo)
    detector = retinanet.load(
        exported.pt, "cpu", score_threshold=0.13, nms_threshold=0.4,
        candidates_per_level=200, max_detections=20,
    )  # fmt: skip
    result = detector(photo)
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0],"
        " run_name='__main__'); assert not {'torch', 'retinanet'} & set(sys.modules)"
    )
    example = ROOT / "examples/onnx_detect.py"
    done = subprocess.run(
        [sys.executable, "-c", code, example, exported.onnx, photo, "--score_threshold=0.13"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.removeprefix(f"{photo}: ") for line in done.stdout.splitlines()]
    name, score, *corners = lines[0].replace("(", "").replace(",", "").rstrip(")").split()
    # Pillow's resizing and torch's differ by a grey value here and there.
    assert abs(len(lines) - len(result)) <= 1
    assert name == result.names[0]
    assert abs(float(score) - result.scores[0]) < 0.005
    np.testing.assert_allclose(np.array(corners, float), result.boxes[0], atol=1.0)


# ---- what is refused ----


def test_a_file_that_disagrees_is_not_written(exported, tmp_path) -> None:
    other = dict(exported.checkpoint.weights)
    other["regressionModel.output.bias"] = other["regressionModel.output.bias"] + 0.1
    model = replace(exported.checkpoint, weights=other).build(torch.device("cpu"))
    case = onnx_compare.expected(model, resized(data.chelsea(), 96, 160, 2), LIMITS)
    agreement = onnx_compare.compare([case], exported.network, exported.content)
    assert agreement.score < 1e-5
    assert agreement.box > 0.1
    assert 0 < agreement.unlike <= agreement.detections
    with pytest.raises(DataError, match=r"a\.onnx: not written: .* disagree: .* of a box \d"):
        export.write(tmp_path / "a.onnx", exported.content, agreement, overwrite=False)
    assert list(tmp_path.iterdir()) == []


def agreement_of(**figures):
    """An agreement that holds but for these figures."""
    return onnx_compare.Agreement(**{"batches": 1, "anchors": 9, "detections": 100, **figures})


@pytest.mark.parametrize(
    ("agreement", "holds"),
    [
        (agreement_of(), True),
        (agreement_of(score=1e-5, box=0.01, unlike=1), True),  # a box at the very threshold
        (agreement_of(score=1e-3), False),
        (agreement_of(score=float("inf")), False),
        (agreement_of(box=0.5), False),
        (agreement_of(unlike=2), False),
        (agreement_of(detections=0), True),
        (agreement_of(detections=0, unlike=1), False),  # a detection out of nothing
    ],
)
def test_what_is_rounding_and_what_is_not(agreement, holds) -> None:
    assert agreement.holds() is holds


def test_detections_are_alike_in_label_score_and_place() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [5.0, 5.0, 50.0, 50.0]])
    found = Detections(torch.tensor([0.9, 0.8]), torch.tensor([1, 2]), boxes)
    assert onnx_compare.count_unlike(found, found) == 0
    assert onnx_compare.count_unlike(found, Detections(*(column.flip(0) for column in found))) == 0
    assert onnx_compare.count_unlike(found, found._replace(labels=torch.tensor([1, 1]))) == 1
    assert onnx_compare.count_unlike(found, found._replace(scores=found.scores + 0.01)) == 2
    assert onnx_compare.count_unlike(found, found._replace(boxes=boxes + torch.eye(2, 4))) == 2
    nothing = found.only(slice(0))
    assert (
        onnx_compare.count_unlike(found, nothing),
        onnx_compare.count_unlike(nothing, found),
    ) == (2, 0)


def test_other_shapes_and_no_numbers_are_infinitely_far() -> None:
    ones = torch.ones(2, 3)
    assert onnx_compare.largest_difference(ones, ones + torch.eye(2, 3) / 2) == 0.5
    assert onnx_compare.largest_difference(ones, torch.ones(2, 2)) == float("inf")
    assert onnx_compare.largest_difference(ones * float("nan"), ones) == float("inf")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.pt", "model.onnx"], "model.onnx: it exists; pass --overwrite or choose another"),
        (["model.pt", "model.pt", "--overwrite"], "model.pt: expected a name that ends in .onnx"),
        (["no.pt", "other.onnx"], "no.pt: there is no such file"),
        (["model.pt", "other.onnx", "--images", "no.jpg"], "no.jpg: No such file"),
    ],
)
def test_wrong_arguments_are_refused_before_the_work(
    exported, arguments, message, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(exported.folder)
    before = exported.onnx.stat()
    assert export.main(arguments) == 1
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""
    assert exported.onnx.stat() == before


def test_missing_packages_are_named_with_the_command(exported, monkeypatch, capsys) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None if name != "onnx" else object())
    assert export.main([str(exported.pt), "other.onnx"]) == 1
    expected = "the export needs onnxruntime, onnxscript; pip install onnxruntime onnxscript\n"
    assert capsys.readouterr().err.endswith(f"error: {expected}")


# ---- the other kinds ----


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "flags", "outputs"),
    [
        ({}, ["--no_nms"], ["anchor_scores", "anchor_boxes"]),
        (
            {"anchor_grid": "torchvision", "p6_from_p5": True, "p7_relu": False},
            ["--class_agnostic_nms", "--images", "photo.png"],
            ["scores", "labels", "boxes"],
        ),
        (
            # As wide as can be: a group of one channel has no deviation on a map of one cell.
            {
                "anchor_ratios": (1.0, 2.0),
                "anchor_scales": (1.0,),
                "group_norm": True,
                "channels": 256,
            },
            ["--max_detections=2000", "--candidates_per_level=30"],
            ["scores", "labels", "boxes"],
        ),
        ({"channels": 24, "head_convs": 1}, [], ["scores", "labels", "boxes"]),
    ],
    ids=["no NMS", "of another project, class agnostic", "own anchors, few candidates", "small"],
)
def test_every_kind_is_exported(settings, flags, outputs, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(data.chelsea()).save("photo.png")
    save_checkpoint(Path("model.pt"), checkpoint_of(**settings))
    assert export.main(["model.pt", "model.onnx", *flags]) == 0
    assert [value.name for value in onnx.load("model.onnx").graph.output] == outputs
