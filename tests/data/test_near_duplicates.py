"""Pictures that look alike are found, others are not."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from skimage import data

from retinanet.data.images import read_image, small_grey
from retinanet.data.near_duplicates import alike, difference_hashes, linked
from tests.support.paths import SHARED


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_changed_copies_are_found_and_other_photographs_are_not(tmp_path: Path) -> None:
    cat = Image.fromarray(data.chelsea())
    turned = Image.Exif()
    turned[0x0112] = 6
    paths = [
        save(tmp_path / "coffee.jpg", Image.fromarray(data.coffee())),
        save(tmp_path / "cat.jpg", cat, quality=95),
        save(tmp_path / "rocket.png", Image.fromarray(data.rocket())),
        save(tmp_path / "small.jpg", cat.resize((160, 110)), quality=60),
        save(tmp_path / "bright.png", ImageEnhance.Brightness(cat).enhance(1.2)),
        save(tmp_path / "grey.webp", cat.convert("L")),
        save(tmp_path / "turned.jpg", cat.transpose(Image.Transpose.ROTATE_90), exif=turned),
        save(tmp_path / "mirrored.jpg", cat.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    ]
    assert alike(paths) == [[1, 3, 4, 5, 6]]


def test_what_has_no_structure_or_cannot_be_read_is_like_nothing(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{k}.png", Image.new("RGB", (40, 30), "white")) for k in range(3)]
    (tmp_path / "broken.jpg").write_bytes(b"<html>")
    paths += [tmp_path / "broken.jpg", tmp_path / "none.jpg"]
    assert not difference_hashes(paths)[1].any()
    assert alike(paths) == alike([]) == []


def test_groups_are_joined_by_way_of_others() -> None:
    bits = np.zeros((4, 256), bool)
    bits[1, :20] = bits[2, :40] = True  # 0 and 1 differ in 20 bits, 1 and 2 too, 0 and 2 in 40
    bits[3, 100:] = True
    assert linked(bits, 26).tolist() == [0, 0, 0, 3]


@given(st.integers(0, 14), st.integers(80, 140), st.integers(0, 2**32))
def test_groups_are_those_of_the_plain_search(count: int, distance: int, seed: int) -> None:
    bits = np.random.default_rng(seed).random((count, 256)) < 0.5
    expected = list(range(count))
    for _ in range(count):  # until nothing changes, at the latest
        for a in range(count):
            for b in range(count):
                if (bits[a] != bits[b]).sum() <= distance:
                    expected[a] = expected[b] = min(expected[a], expected[b])
    assert linked(bits, distance).tolist() == expected


def test_blocks_miss_no_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retinanet.data.near_duplicates.BLOCK", 3)
    bits = np.random.default_rng(0).random((10, 256)) < 0.5
    bits[9], bits[4] = bits[0], bits[5]
    assert linked(bits, 0).tolist() == [0, 1, 2, 3, 4, 4, 6, 7, 8, 0]


def test_a_film_of_one_scene_is_one_group_at_once() -> None:
    bits = np.tile(np.random.default_rng(0).random(256) < 0.5, (5000, 1))
    bits[np.arange(5000), np.arange(5000) % 256] ^= True
    assert not linked(bits, 26).any()


def test_a_small_view_is_the_mean_of_the_picture(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", Image.fromarray(data.astronaut()), quality=95)
    whole = np.asarray(Image.fromarray(read_image(path)).convert("L"))
    expected = whole.reshape(16, 32, 16, 32).mean(axis=(1, 3))
    np.testing.assert_allclose(small_grey(path, 16, 16), expected, atol=4)


@pytest.mark.skipif(not (SHARED / "data/coco_mini").exists(), reason="../shared is absent")
def test_real_photographs_are_not_alike() -> None:
    paths = sorted((SHARED / "data/coco_mini").rglob("*.jpg"))
    assert len(paths) > 100
    assert alike(paths) == []
