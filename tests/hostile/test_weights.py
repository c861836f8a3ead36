"""Weights made to do harm, given to everything that reads weights.

Refused means: exit code 1, one line that says why, no traceback, nothing written, nothing of the
file run. A hang, a crash or a flood of memory is a failed test: see `hostile.run`.
"""

import contextlib
import io
import pickle
import re
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import csv_validation
import retinanet
import train
import validate
import visualize
from retinanet.errors import DataError
from retinanet.model import ModelConfig
from retinanet.tools import convert, export
from retinanet.weights.checkpoint import Checkpoint
from tests.support.helpers import Foreign, Touch
from tests.support.hostile import (
    QUICK,
    TRAIN,
    Inputs,
    Script,
    no_file,
    refusal,
    training,
)
from tests.support.zips import repacked, saved, zipped

pytestmark = pytest.mark.usefixtures("narrow")


# ---- weights ----

WEIGHT_READERS: dict[str, Callable[[Inputs, Path], tuple[Script, list[object]]]] = {
    "train --weights": lambda good, file: (
        train.main,
        [*training(good), *TRAIN, "--weights", file],
    ),
    "train --resume": lambda good, file: (train.main, [*training(good), *TRAIN, "--resume", file]),
    "validate": lambda good, file: (validate.main, [file, "--csv_val", good.csv, *QUICK]),
    "csv_validation": lambda good, file: (
        csv_validation.main,
        ["--model_path", file, "--csv_annotations_path", good.csv, *QUICK],
    ),
    "visualize": lambda good, file: (
        visualize.main,
        ["--model", file, "--image_dir", good.folder / "good.jpg", *QUICK],
    ),
    "convert --from": lambda _, file: (convert.main, ["--from", "detectron2", file, "out.pt"]),
    "convert --to": lambda _, file: (convert.main, ["--to", "torchvision", file, "out.pt"]),
}
if all(map(find_spec, export.PACKAGES)):
    WEIGHT_READERS["export"] = lambda _, file: (export.main, [file, "out.onnx"])


def exploit(kind: str, target: Path) -> bytes:
    """A file of weights that makes `target` where it is read carelessly."""
    bomb = Touch(target)
    hidden_in_weights = {"conv1.weight": torch.zeros(64, 3, 7, 7), "bn1.weight": bomb}
    in_attribute = Foreign()
    in_attribute.bomb = bomb
    in_allowed_class = nn.Conv2d(1, 1, 1)  # one of the names that whole modules may hold
    in_allowed_class.bomb = bomb
    return {
        "pickle of protocol 0": lambda: pickle.dumps(bomb, protocol=0),
        "pickle of protocol 2": lambda: pickle.dumps(bomb, protocol=2),
        "pickle of protocol 5": lambda: pickle.dumps(bomb, protocol=5),
        "bare": lambda: saved(bomb),
        "among weights": lambda: saved(hidden_in_weights),
        "in a checkpoint": lambda: saved({"version": 1, "config": bomb, "weights": {}}),
        "in a state": lambda: saved({"version": 1, "settings": {}, "optimizer": [bomb]}),
        "legacy": lambda: saved(bomb, _use_new_zipfile_serialization=False),
        "legacy among weights": lambda: saved(
            hidden_in_weights, _use_new_zipfile_serialization=False
        ),
        "hand-made zip": lambda: zipped({"a/data.pkl": pickle.dumps(bomb, 2), "a/version": b"3"}),
        "foreign module": lambda: saved(in_attribute),
        "module of an allowed class": lambda: saved(in_allowed_class),
        # what the reader itself may call, called with a harmful argument
        "allowed callable": lambda: (
            b"\x80\x02c_codecs\nencode\n(cposix\nsystem\nX\x04\x00\x00\x00touctR."
        ),
    }[kind]()


FOR_EVERY_SCRIPT = ["pickle of protocol 2", "in a checkpoint", "legacy", "bare", "foreign module"]
EXPLOITS = [
    *(*FOR_EVERY_SCRIPT, "pickle of protocol 0", "pickle of protocol 5", "among weights"),
    *("in a state", "legacy among weights", "hand-made zip", "module of an allowed class"),
]


@pytest.mark.parametrize("kind", [*EXPLOITS, "allowed callable"])
def test_code_in_weights_is_refused_and_not_run(good: Inputs, tmp_path: Path, kind: str) -> None:
    file, target = tmp_path / "evil.pt", tmp_path / "was_here"
    file.write_bytes(exploit(kind, target))
    for reader in WEIGHT_READERS if kind in FOR_EVERY_SCRIPT else ["validate"]:
        error = refusal(*WEIGHT_READERS[reader](good, file), tmp_path / reader)
        assert f"evil.pt: {CODE_REFUSED}" in error
    with pytest.raises(DataError, match=CODE_REFUSED):
        retinanet.load(file)
    assert not target.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("wrap", ["bare", "in a model"])
def test_code_in_another_projects_pickle_is_refused(
    tmp_path: Path, protocol: int, wrap: str
) -> None:
    file, target = tmp_path / "evil.pkl", tmp_path / "was_here"
    content = Touch(target) if wrap == "bare" else {"model": {"a": Touch(target)}}
    file.write_bytes(pickle.dumps(content, protocol))
    flags = ["--from", "detectron2", file, "out.pt"]
    assert f"evil.pkl: {CODE_REFUSED}" in refusal(convert.main, flags, tmp_path / "out")
    assert not target.exists()


CODE_REFUSED = "refused: it holds more than tensors and settings, and loading it could run code"


@pytest.mark.parametrize("kind", EXPLOITS)
def test_the_exploits_are_real(tmp_path: Path, kind: str) -> None:
    content = exploit(kind, tmp_path / "was_here")
    with contextlib.suppress(Exception):
        torch.load(io.BytesIO(content), weights_only=False)
    assert (tmp_path / "was_here").exists()


def inert_module(**attributes: object) -> bytes:
    """A whole module as the original's scripts pickle it, holding what a module never holds."""
    module = nn.Sequential()
    vars(module).update(attributes)
    return saved(module)


def in_itself() -> bytes:
    module = nn.Sequential()
    module._modules["again"] = module
    return saved(module)


def shared_forty_deep() -> bytes:
    """Two names a level for the next level: 2^40 names of one tensor."""
    module = nn.BatchNorm2d(1)
    for _ in range(40):
        module = nn.Sequential(module, module)
    return saved(module)


def checkpoint(**fields: object) -> bytes:
    """A small file that is a checkpoint but for its weights, of which it has none."""
    names = ("cat", "dog")
    good = Checkpoint(ModelConfig(num_classes=2, depth=18), {}, names, min_side=64, max_side=96)
    return saved({"version": 1, **asdict(good), **fields})


def weight(value: object) -> bytes:
    """A checkpoint that holds this weight."""
    return checkpoint(weights={"fpn.P3_1.bias": value})


def zip_bomb(entry: str) -> bytes:
    """Zeros behind an entry, more than the memory allowed, packed into a few megabytes."""

    def grow(name: str, content: bytes) -> bytes:
        return content + bytes(6 * 10**8) if name.endswith(entry) else content

    return repacked(saved({"a": torch.zeros(1)}), grow, zipfile.ZIP_DEFLATED)


def huge_legacy_storage() -> bytes:
    """A file of the old format that claims a billion times as many numbers as it has."""
    content = saved({"a": torch.zeros(1)}, _use_new_zipfile_serialization=False)
    small, huge = (b"K" + bytes([1]) + b"N", b"\x8a\x05" + (10**9).to_bytes(5, "little") + b"N")
    assert content.count(small) == 1
    return content.replace(small, huge)


def huge_zip_storage() -> bytes:
    content = saved({"a": torch.zeros(10**6)})

    def shrink(name: str, entry: bytes) -> bytes:
        return entry[:4] if name.endswith("data/0") else entry

    return repacked(content, shrink, zipfile.ZIP_STORED)


DAMAGED: dict[str, tuple[Callable[[Inputs], bytes], str]] = {
    "empty": (lambda _: b"", "damaged or no checkpoint"),
    "text": (lambda _: b"version https://git-lfs.github.com/spec/v1\n", "damaged or no checkpoint"),
    "truncated": (lambda good: good.model.read_bytes()[: 10**6], "damaged or no checkpoint"),
    "truncated at its end": (lambda good: good.model.read_bytes()[:-50], "damaged or no"),
    "zip bomb, pickle": (lambda _: zip_bomb("data.pkl"), "unpacks to 600,000,"),
    "zip bomb, tensor": (lambda _: zip_bomb("data/0"), "unpacks to 600,000,"),
    "huge storage, legacy": (lambda _: huge_legacy_storage(), "damaged or no checkpoint"),
    "huge storage, zip": (lambda _: huge_zip_storage(), "damaged or no checkpoint"),
    "one number seen often": (
        lambda _: weight(torch.zeros(()).expand(10**10)),
        "claims more numbers",
    ),
    "list 100,000 deep": (lambda _: b"\x80\x02" + b"]" * 10**5 + b"a" * 99_999 + b".", "damaged"),
    "module in itself": (lambda _: in_itself(), "holds no state dict"),
    "module of 2^40 names": (lambda _: shared_forty_deep(), "no classificationModel|no ResNet"),
    "module without parts": (lambda _: inert_module(_modules="abc"), "holds no state dict"),
    "module with a tensor": (
        lambda _: inert_module(_parameters=torch.ones(2)),
        "holds no state dict",
    ),
    "NaN": (lambda _: weight(torch.full((256,), np.nan)), "not finite"),
    "sparse": (lambda _: weight(torch.zeros(256).to_sparse()), "more than tensors"),
    "meta": (lambda _: weight(torch.zeros(256, device="meta")), "more than tensors"),
    "no tensor": (lambda _: weight("abc"), "fpn.P3_1.bias is no tensor"),
    "weights in a list": (lambda _: checkpoint(weights=[1, 2]), "no checkpoint of a model"),
    "a weight without a name": (
        lambda _: checkpoint(weights={1: torch.zeros(1)}),
        "no checkpoint of a model",
    ),
    "version is a tensor": (lambda _: checkpoint(version=torch.zeros(2)), "version"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_weights(good: Inputs, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "bad.pt"
    make, expected = DAMAGED[kind]
    file.write_bytes(make(good))
    for reader in ("validate", "train --weights"):
        error = refusal(*WEIGHT_READERS[reader](good, file), tmp_path / reader)
        assert re.search(rf"bad\.pt: .*({expected})", error), error


def test_a_weight_with_a_long_name_that_breaks_lines(good: Inputs, tmp_path: Path) -> None:
    content = torch.load(good.model, weights_only=True)
    content["weights"]["a\nb\x1b[31m" + "c" * 10**6] = torch.zeros(1)
    (tmp_path / "bad.pt").write_bytes(saved(content))
    flags = [tmp_path / "bad.pt", "--csv_val", good.csv, *QUICK]
    error = refusal(validate.main, flags, tmp_path / "out")
    assert r": a\nb\x1b[31mccc" in error
    assert "c is not expected" in error


WRONG_FIELDS: dict[str, dict[str, object]] = {
    "config in a list": {"config": [1]},
    "no classes": {"config": {"num_classes": 0, "depth": 18}},
    "half a class": {"config": {"num_classes": 2.5, "depth": 18}},
    "classes without end": {"config": {"num_classes": 10**30, "depth": 18}, "class_names": ()},
    "another depth": {"config": {"num_classes": 2, "depth": 19}},
    "unknown setting": {"config": {"num_classes": 2, "depth": 18, "colour": "red"}},
    "class names": {"class_names": 5},
    "three class names": {"class_names": ("cat", "dog", "cow")},
    "class names of numbers": {"class_names": (1, 2)},
    "class name of two lines": {"class_names": ("cat\ndog", "cow")},
    "negative side": {"min_side": -1},
    "side of text": {"max_side": "large"},
    "sides exchanged": {"min_side": 96, "max_side": 64},
    "side without end": {"max_side": 10**30},
}


@pytest.mark.parametrize("kind", WRONG_FIELDS)
def test_checkpoints_that_say_what_cannot_be(good: Inputs, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "bad.pt"
    file.write_bytes(checkpoint(**WRONG_FIELDS[kind]))
    error = refusal(*WEIGHT_READERS["validate"](good, file), tmp_path / "out")
    assert "bad.pt: it is no checkpoint of a model" in error, error


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "missing"])
def test_weights_that_are_no_file(good: Inputs, tmp_path: Path, kind: str) -> None:
    file = no_file(tmp_path / "bad.pt", kind)
    for reader in WEIGHT_READERS:
        error = refusal(*WEIGHT_READERS[reader](good, file), tmp_path / reader)
        assert "bad.pt: there is no" in error
