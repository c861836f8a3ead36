"""What is drawn onto a picture: where, in which colour, and that nothing falls off its edge."""

import numpy as np
import pytest
from matplotlib import pyplot
from PIL import ImageDraw

from retinanet.errors import DataError
from retinanet.report.drawing import class_color, contact_sheet, draw_boxes, draw_ground_truth, show

NAMES = ("cat", "dog")
GREY = 90


def grey(height: int = 120, width: int = 160) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def extent(changed: np.ndarray) -> tuple[int, int, int, int]:
    """The box of a mask [H, W], xyxy."""
    rows, columns = changed.nonzero()
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def changed(picture: np.ndarray) -> np.ndarray:
    return (picture != GREY).any(axis=2)


# ---- boxes


def test_the_line_lies_on_the_boxs_outermost_pixels_in_the_colour_of_its_class() -> None:
    picture = draw_boxes(grey(), [[40.2, 50.4, 99.9, 100]], [1], [0.5], class_names=NAMES)
    assert (picture[99, 40:100] == class_color(1)).all()  # bottom
    assert (picture[50:100, 40] == class_color(1)).all()  # left
    assert (picture[50:100, 99] == class_color(1)).all()  # right
    assert (picture[60:90, 50:90] == GREY).all()  # inside
    assert (picture[100:] == GREY).all()
    assert (picture[50:, 100:] == GREY).all()  # the caption above it is as wide as the font is


def test_the_image_stays_as_it_is_and_without_boxes_the_result_equals_it() -> None:
    for image in (grey(), grey()[:, ::-1]):  # a mirrored view has negative strides
        image.flags.writeable = False
        for draw in (draw_boxes, draw_ground_truth):
            copy = draw(image, np.zeros((0, 4)), np.zeros(0), class_names=NAMES)
            assert (copy == image).all()
            copy[:] = 0
            draw(image, [[10, 10, 60, 60]], [0], class_names=NAMES)
            assert (image == GREY).all()


def test_boxes_are_clipped_and_what_is_empty_then_is_left_out() -> None:
    image = grey()
    clipped = draw_boxes(image, [[-50, 60, 80, 500]], [0], class_names=NAMES)
    assert (clipped[60:, 0] == class_color(0)).all()  # a line at the picture's edge
    assert (clipped[-1, :80] == class_color(0)).all()
    empty = [[30, 30, 30, 60], [60, 60, 40, 80], [200, 10, 300, 50], [np.nan, 0, 9, 9]]
    for draw in (draw_boxes, draw_ground_truth):
        assert (draw(image, empty, [0, 1, 0, 1], class_names=NAMES) == image).all()


def test_the_highest_score_is_on_top() -> None:
    boxes = [[20, 30, 100, 90], [20, 30, 100, 90]]
    for scores, label in (([0.9, 0.3], 0), ([0.3, 0.9], 1)):
        picture = draw_boxes(grey(), boxes, [0, 1], scores, class_names=NAMES)
        assert (picture[89, 20:100] == class_color(label)).all()


def test_lines_and_letters_grow_with_the_picture() -> None:
    def line_and_caption(scale: int) -> tuple[int, int]:
        box = np.array([[40, 60, 120, 100]]) * scale
        picture = draw_boxes(grey(120 * scale, 160 * scale), box, [0], [0.5], class_names=NAMES)
        line = (picture[80 * scale, : 60 * scale] != GREY).any(axis=1).sum()
        return line, 60 * scale - extent(changed(picture))[1]

    small, large = line_and_caption(4), line_and_caption(16)
    assert large == pytest.approx(np.multiply(small, 4), abs=4)


# ---- captions


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[float, ...]]]:
    """Every text written from now on, and where: xyxy pixels."""
    texts = []
    write = ImageDraw.ImageDraw.text

    def spy(self, xy, text, fill, font, anchor):
        texts.append((text, self.textbbox(xy, text, font, anchor)))
        return write(self, xy, text, fill, font, anchor)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", spy)
    return texts


@pytest.mark.parametrize(
    "box",
    [
        [60, 40, 100, 80],  # in the middle
        [0, 40, 10, 80],  # at each edge
        [150, 40, 160, 80],
        [60, 0, 100, 20],
        [60, 100, 100, 120],
        [-9, -9, 10, 10],  # beyond two corners
        [150, 110, 180, 140],
        [0, 0, 160, 120],  # the whole picture
    ],
)
@pytest.mark.parametrize("draw", [draw_boxes, draw_ground_truth])
@pytest.mark.parametrize("name", ["cat", "a name that is wider than the picture"])
def test_the_whole_caption_is_inside_the_picture(written, draw, box: list[int], name: str) -> None:
    picture = draw(grey(), [box], [0], class_names=[name])
    [(text, (left, top, right, bottom))] = written
    assert text == name
    assert 0 <= left < right <= 160
    assert 0 <= top < bottom <= 120
    ground = picture[int(top) - 1, int(left) - 1]  # wider than the text
    assert tuple(ground) == (class_color(0) if draw is draw_boxes else (255, 255, 255))


def test_a_detections_caption_stands_above_its_box_and_an_annotations_below(written) -> None:
    box = [60, 40, 100, 80]
    draw_boxes(grey(), [box], [1], [0.256], class_names=NAMES)
    draw_ground_truth(grey(), [box], [1], class_names=NAMES)
    [(detection, above), (annotation, below)] = written
    assert (detection, annotation) == ("dog 0.26", "dog")
    assert above[3] <= 40
    assert below[1] >= 80


@pytest.mark.parametrize("draw", [draw_boxes, draw_ground_truth])
def test_captions_of_boxes_on_each_other_are_all_read(written, draw) -> None:
    """Five names of an object, and one of its neighbour."""
    boxes = [[30, 40, 120, 90]] * 5 + [[34, 36, 124, 92]]
    draw(grey(), boxes, [0, 1] * 3, class_names=NAMES)
    assert len(written) == 6
    for k, (_, one) in enumerate(written):
        for _, other in written[:k]:
            beside = one[0] >= other[2] or other[0] >= one[2]
            assert beside or one[1] >= other[3] or other[1] >= one[3]


@pytest.mark.parametrize(("height", "width"), [(16, 16), (5, 200), (200, 5), (1, 1)])
def test_a_caption_that_cannot_be_read_is_left_out(written, height: int, width: int) -> None:
    for draw in (draw_boxes, draw_ground_truth):
        box = [0, 0, width, height]
        picture = draw(grey(height, width), [box], [0], class_names=["hippopotamus"])
        assert extent(changed(picture)) == (0, 0, width, height)
    assert written == []


# ---- the rest


def test_ground_truth_is_black_and_white_and_seen_below_a_detection() -> None:
    box = [[40, 40, 120, 90]]
    truth = draw_ground_truth(grey(), box, [0], class_names=NAMES)
    assert {tuple(pixel) for pixel in truth[40:90, 40].tolist()} == {(0, 0, 0), (255, 255, 255)}
    both = draw_boxes(truth, box, [0], [0.9], class_names=NAMES)
    assert (both[40:90, 40] == class_color(0)).all()
    assert (both[45:85, 42] == truth[45:85, 42]).all()  # its line is a pixel wider


def test_the_colours_of_classes_differ_and_are_bright() -> None:
    colors = np.array([class_color(label) for label in range(80)])
    assert (colors.max(axis=1) == 255).all()
    few = colors[:12].astype(float)
    distance = np.linalg.norm(few[:, None] - few, axis=2) + 1000 * np.eye(12)
    assert distance.min() > 50
    assert len(np.unique(colors, axis=0)) == 80


def test_contact_sheet_holds_every_picture() -> None:
    red, green, blue = (
        np.full((height, width, 3), color, np.uint8)
        for height, width, color in (
            (40, 20, (255, 0, 0)),
            (20, 40, (0, 255, 0)),
            (10, 5, (0, 0, 255)),
        )
    )
    sheet = contact_sheet([red, green, blue], columns=2, side=40)
    assert sheet.shape == (1 + 40 + 1 + 10 + 1, 1 + 40 + 1 + 40 + 1, 3)
    for picture in (red, green, blue):  # in the middle of its place, as large as it was
        left, top, right, bottom = extent((sheet == picture[0, 0]).all(axis=2))
        assert (bottom - top, right - left) == picture.shape[:2]
    assert tuple(sheet[21, 21]) == (255, 0, 0)
    assert tuple(sheet[21, 62]) == (0, 255, 0)
    assert max(contact_sheet([red], columns=3, side=10).shape) == 1 + 10 + 1  # made smaller


def test_a_window_shows_the_picture_or_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyplot, "get_backend", lambda: "agg")
    with pytest.raises(DataError, match=r"no window can be opened here .* leave out --show"):
        show(grey(), "a.jpg")
    shown = []
    monkeypatch.setattr(pyplot, "get_backend", lambda: "TkAgg")
    monkeypatch.setattr(pyplot, "show", lambda: shown.append(pyplot.gca().images[0].get_array()))
    show(grey(), "a.jpg")
    assert (shown[0] == grey()).all()
    assert pyplot.get_fignums() == []  # hundreds of windows must not stay in memory


def test_names_of_other_alphabets_have_letters() -> None:
    drawn = {
        draw_boxes(
            np.zeros((60, 200, 3), np.uint8), [[10, 30, 190, 50]], [0], class_names=[name]
        ).tobytes()
        for name in ("кот", "пёс", "γάτα", "ღღღ", "été")
    }
    assert len(drawn) == 5  # a font without them draws the same box for each letter
