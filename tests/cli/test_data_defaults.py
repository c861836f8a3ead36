"""Settings that suit a data set: from its images, its boxes, and what training starts from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retinanet.cli import data_defaults
from retinanet.cli.data_defaults import suited_settings
from retinanet.errors import DataError
from retinanet.model import ModelConfig, RetinaNet
from retinanet.weights.pretrained import Start

NOTHING = dict.fromkeys(
    "weights depth epochs lr schedule warmup batch_norm min_side max_side anchor_sizes"
    " anchor_ratios anchor_scales".split()
) | {"batch_size": 2}


class Data:
    """Images of one size with the same boxes."""

    def __init__(
        self, images: int, size: tuple[int, int], boxes: Sequence[Sequence[float]]
    ) -> None:
        self.images, self.size = images, size
        self.boxes = np.array(boxes, float).reshape(-1, 5)

    def __len__(self) -> int:
        return self.images

    def num_classes(self) -> int:
        return 2

    def image_size(self, index: int) -> tuple[int, int]:
        return self.size

    def load_annotations(self, index: int) -> Any:
        return self.boxes


LARGE = (0, 0, 100, 120, 0)
SMALL = (0, 0, 12, 12, 1)


def settings(data: Data, **given: Any) -> dict[str, Any]:
    """The settings, of training from no file."""
    return suited_settings(data, NOTHING | {"weights": "none"} | given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "sides"),
    [
        ((480, 640), (480, 800)),  # 480 * 1024 / 608 = 808, to a multiple of 32
        ((3000, 4000), (608, 1024)),
        ((100, 80), (256, 416)),
        ((470, 470), (480, 800)),
    ],
)
def test_images_keep_about_their_size(size: tuple[int, int], sides: tuple[int, int]) -> None:
    found = settings(Data(10, size, [LARGE]))
    assert (found["min_side"], found["max_side"]) == sides


@pytest.mark.parametrize(
    ("images", "weights", "epochs"),
    [(10, "none", 100), (200, "none", 30), (4000, "none", 6), (200, "imagenet", 10)],
)
def test_few_images_are_seen_more_often(
    monkeypatch: pytest.MonkeyPatch, images: int, weights: str, epochs: int
) -> None:
    monkeypatch.setattr(data_defaults, "start_weights", lambda source, depth: Start({}))
    assert settings(Data(images, (480, 640), [LARGE]), weights=weights)["epochs"] == epochs


@pytest.mark.parametrize(
    ("images", "given", "augment"),
    [
        (150, {}, "mild"),  # 3 * 2000 / 150 = 40 epochs
        (151, {}, "mild"),  # 39.7 are 40
        (154, {}, None),  # 39
        (154, {"epochs": 40}, "mild"),
        (150, {"epochs": 39}, None),
        (150, {"minutes": 60.0}, None),  # whose number of epochs is not known yet
        (150, {"augment": "none"}, None),
        (150, {"augment": "strong"}, None),
    ],
)
def test_long_runs_change_their_pictures(
    images: int, given: dict[str, Any], augment: str | None
) -> None:
    assert settings(Data(images, (480, 640), [LARGE]), **given).get("augment") == augment


def test_crowded_images_learn_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_defaults, "start_weights", lambda source, depth: Start({}))
    few, many = Data(200, (480, 640), [LARGE] * 9), Data(200, (480, 640), [LARGE] * 10)
    assert settings(few, weights="imagenet")["lr"] == 1e-4
    assert settings(many, weights="imagenet")["lr"] == 2e-4


def test_without_weights_to_be_had_training_begins_from_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def offline(source: str, depth: int) -> Start:
        raise DataError("not here and could not be fetched")

    monkeypatch.setattr(data_defaults, "start_weights", offline)
    found = settings(Data(200, (480, 640), [LARGE]), weights=None)
    assert (found["weights"], found["depth"], found["batch_norm"]) == ("none", 18, "trained")
    assert "training begins without them" in capsys.readouterr().out


def test_a_file_tells_its_depth_and_keeps_its_anchors(tmp_path: Path) -> None:
    detector = RetinaNet(ModelConfig(3, depth=18))
    torch.save(detector.state_dict(), tmp_path / "detector.pt")
    data = Data(20, (480, 640), [SMALL])
    found = settings(data, weights=str(tmp_path / "detector.pt"))
    assert (found["depth"], found.get("anchor_sizes")) == (18, None)
    # A box of 12 px has no anchor of 32 px with half its area: 144 / 1024 = 0.14.
    assert max(settings(data)["anchor_sizes"]) < 512


def test_what_is_given_stays_given_and_the_rest_follows_it() -> None:
    data = Data(200, (480, 640), [SMALL])
    found = settings(data, min_side=320, lr=1e-3, epochs=2, anchor_ratios=[1.0])
    assert {"min_side", "lr", "epochs"}.isdisjoint(found)
    assert found["max_side"] == 544  # 320 * 1024 / 608 = 539, to a multiple of 32
    assert found["warmup"] == 40  # a fifth of 200 steps
    assert found.get("anchor_sizes") is None
    assert settings(data, schedule="plateau")["warmup"] == 0
