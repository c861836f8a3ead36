"""The page in a real browser: its slider counts and draws, tables sort, hostile names stay text."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retinanet.data.datasets import CocoDataset, CSVDataset
from retinanet.evaluation.matching import Matches
from retinanet.evaluation.measure import measure
from retinanet.postprocess import Detections
from retinanet.report.interactive import counts_by_threshold, steps_reached
from retinanet.report.report import write_report
from retinanet.report.suspects import suspected_errors
from retinanet.runtime.own_files import is_own
from tests.support.browser import CHROMIUM, Browser

HOSTILE = (
    "</script><script>document.title='hit'</script>",
    '" onload="document.title=\'hit\'" x="',
    "<img src=x onerror=document.title='hit'>",
    "\u202eright to left\u202c \u05d0\u05d1\u05d2",
    "&lt;b&gt; 'one' `two` ${three}",
    "long" * 500,
)
NAMES = ("cat", "dog", *HOSTILE)
SLIDER = "document.getElementById('threshold')"
ASKS = "[...document.querySelectorAll({!r})].map(it => it.textContent.trim())"


def detections(*rows: tuple[float, ...]) -> Detections:
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Detections(table[:, 4], table[:, 5].long(), table[:, :4])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> CocoDataset:
    """Two cats, and a box of every hostile class in a file of a hostile name."""
    folder = tmp_path_factory.mktemp("data")
    files = ("a.png", "b.png", f"{HOSTILE[2]}\n.png")
    (folder / "val").mkdir()
    for name in files:
        Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(folder / "val" / name)
    boxes = [(0, [2, 2, 18, 18], 0), (1, [2, 2, 18, 18], 0)]
    boxes += [(2, [2 + 5 * k, 30, 4, 10], 2 + k) for k in range(len(HOSTILE))]
    content = {
        "images": [
            {"id": k, "file_name": name, "width": 64, "height": 48} for k, name in enumerate(files)
        ],
        "categories": [{"id": k, "name": name} for k, name in enumerate(NAMES)],
        "annotations": [
            {"id": k + 1, "image_id": image, "bbox": box, "category_id": label, "iscrowd": 0}
            for k, (image, box, label) in enumerate(boxes)
        ],
    }
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_val.json").write_text(json.dumps(content))
    return CocoDataset(folder, "val")


FOUND = [
    detections((2, 2, 20, 20, 0.9, 0), (30, 30, 60, 44, 0.95, 1), (30, 2, 60, 20, 0.3, 2)),
    detections(),
    detections((2, 30, 6, 40, 0.8, 2), (7, 30, 11, 40, 0.7, 3), (40, 30, 60, 40, 0.6, 5)),
]


@pytest.fixture(scope="module")
def written(data: CocoDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    return write_report(folder, measure(data, FOUND), title=HOSTILE[0], facts={HOSTILE[1]: "1"})


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("chromium is not installed")
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def move(browser: Browser, at: int) -> None:
    browser.run(f"{SLIDER}.value = {at}; {SLIDER}.dispatchEvent(new Event('input'))")


def told(browser: Browser, selector: str) -> list[str]:
    return browser.run(ASKS.format(selector))  # type: ignore[no-any-return]


def test_the_slider_changes_the_counts(written: Path, browser: Browser) -> None:
    browser.open(written)
    seen = {}
    for at in (0, 75, 92, 100):
        move(browser, at)
        seen[at] = told(browser, ".slider b"), told(browser, "tfoot [data-count]")
    # true, false, missed of eight: 3 of the 6 detections are true, with 0.9, 0.8 and 0.7
    assert [bar for bar, _ in seen.values()] == [
        *(["3", "3", "5"], ["2", "1", "6"], ["0", "1", "8"], ["0", "0", "8"])
    ]
    assert all(bar == foot for bar, foot in seen.values())
    assert told(browser, "#threshold-value") == ["1.00"]
    assert browser.errors == []


DRAWN = """[...document.querySelectorAll('.photo')].map(photo =>
  [...photo.querySelectorAll('g')].filter(box => getComputedStyle(box).display !== 'none')
    .map(box => box.classList.contains('truth')
      ? box.classList.contains('missed') ? 'missed' : 'found'
      : box.querySelector('text').textContent).join(' '))"""


def test_the_slider_changes_what_is_drawn(written: Path, browser: Browser) -> None:
    browser.open(written)
    photo = "a.png"
    which = [photo in name for name in told(browser, ".photo figcaption")].index(True)
    seen = []
    for at in (0, 31, 91, 96):
        move(browser, at)
        tally = told(browser, ".photo .tally")[which]
        seen.append((browser.run(DRAWN)[which], tally))
    # the cat, found at 0.9; a dog where nothing is; another of 0.3, of the first hostile class
    assert seen[0] == ("found </script><script>… 0.30 cat 0.90 dog 0.95", "1 true2 false0 missed")
    assert seen[1] == ("found cat 0.90 dog 0.95", "1 true1 false0 missed")
    assert seen[2] == ("missed dog 0.95", "0 true1 false1 missed")
    assert seen[3] == ("missed", "0 true0 false1 missed")


def test_boxes_lie_where_the_detections_are(written: Path, browser: Browser) -> None:
    browser.open(written, width=1600)
    move(browser, 0)
    photo, box = browser.run(
        """(() => {
          const text = [...document.querySelectorAll('.photo text')]
            .find(text => text.textContent === 'dog 0.95');
          const edges = part => { const r = part.getBoundingClientRect();
            return [r.left, r.top, r.right, r.bottom]; };
          return [text.closest('div').querySelector('img'), text.parentNode.querySelector('rect')]
            .map(edges); })()"""
    )
    scale = (photo[2] - photo[0]) / 64
    found = [(edge - photo[k % 2]) / scale for k, edge in enumerate(box)]
    assert found == pytest.approx([30, 30, 60, 44], abs=0.5)


def test_tables_sort(written: Path, browser: Browser) -> None:
    browser.open(written)
    heads = told(browser, "table.sortable thead tr:last-child th")
    assert heads[:7] == ["class", "boxes", "COCO AP", "AP, IoU 0.5", "true", "false", "missed"]

    def first(head: str) -> list[str]:
        """First cells of a column, after one more click on its name."""
        column = heads.index(head)
        browser.run(f"document.querySelectorAll('thead tr:last-child th')[{column}].click()")
        return told(browser, f"tbody td:nth-child({column + 1})")[:7]

    assert first("boxes") == ["2", *"111111"]
    assert first("boxes") == [*"111111", "2"]
    assert [text[:5] for text in first("AP, IoU 0.5")][:4] == ["1.000", "1.000", "0.500", "0.000"]
    move(browser, 0)
    assert first("missed") == ["1", "1", "1", "1", "1", "0", "0"]
    assert first("class")[0].startswith('" onload=')
    assert browser.run("document.querySelector('[aria-sort]').textContent") == "class"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1600])
def test_it_fits_the_screen(written: Path, browser: Browser, width: int, dark: bool) -> None:
    browser.open(written, width=width, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") == width
    ground = browser.run("getComputedStyle(document.body).backgroundColor")
    ink = browser.run("getComputedStyle(document.body).color")
    bright = [sum(map(int, color[4:-1].split(", "))) > 3 * 128 for color in (ground, ink)]
    assert bright == [not dark, dark]
    bar = "document.querySelector('.slider').getBoundingClientRect().top"
    browser.run("document.querySelector('.pictures').scrollIntoView()")
    assert browser.run(bar) == 0  # it is still in sight


def test_no_script_of_a_name_runs_and_nothing_is_asked_of_a_network(
    written: Path, browser: Browser
) -> None:
    browser.open(written)
    move(browser, 0)
    assert browser.run("document.title") == HOSTILE[0]
    assert browser.errors == []
    assert browser.run("document.scripts.length") == 2  # the counts and the page's own
    assert told(browser, "tbody td:first-child")[1:7] == list(HOSTILE)
    for name in HOSTILE[:3]:
        assert name in browser.run("document.body.textContent")


def test_a_script_that_is_not_the_pages_own_does_not_run(
    written: Path, browser: Browser, tmp_path: Path
) -> None:
    """Were a name not escaped somewhere, the browser would still refuse it."""
    page = tmp_path / "page.html"
    page.write_bytes(written.read_bytes() + HOSTILE[0].encode() + HOSTILE[2].encode())
    browser.open(page)
    assert browser.run("document.title") == HOSTILE[0]


def test_a_page_that_renews_itself_keeps_its_slider(
    data: CocoDataset, browser: Browser, tmp_path: Path
) -> None:
    page = write_report(tmp_path, measure(data, FOUND), title="a", facts={}, progress="1 of 2")
    browser.open(page)
    move(browser, 42)
    browser.open(page)
    assert browser.run(f"{SLIDER}.value") == "42"


def test_without_a_script_the_page_has_the_counts_of_its_threshold(written: Path) -> None:
    html = written.read_text()
    assert "</script><script>" not in html
    assert html.count('data-count="0 0">3<') == 2  # the bar's, and the last row's


def test_counts_are_of_scores_of_at_least_the_threshold(data: CocoDataset) -> None:
    images = measure(data, [detections((2, 2, 20, 20, 0.5, 0)), detections(), FOUND[2]]).matches
    assert images is not None
    counts = counts_by_threshold(images, len(NAMES), 0.505)
    assert counts.start == 50
    assert (counts.tables[1][50], counts.tables[1][51]) == ([1, 0, 1], [0, 0, 2])
    assert counts.tables[2][50] == [0, 0, 0]
    assert steps_reached([0, 0.5, 0.509, 1]) == [0, 50, 50, 100]


def test_suspected_errors_are_training_data(written: Path) -> None:
    path = written.parent / "report" / "suspects.csv"
    lines = path.read_text().splitlines()
    assert lines[0] == "path,x1,y1,x2,y2,class,score,reason"
    assert lines[1].endswith("a.png,30,30,60,44,dog,0.950,nothing is annotated there")
    assert is_own(path)
    read = CSVDataset(path, {name: label for label, name in enumerate(NAMES)})
    assert read.load_annotations(0).tolist() == [[30, 30, 60, 44, 1]]


def test_what_is_annotated_twice_is_suspected_first() -> None:
    # IoU of the first two: 19 / 20; the third is another thing
    boxes = np.array([[0, 0, 20, 10, 0], [0, 0, 19, 10, 0], [0, 0, 10, 10, 0], [0, 0, 20, 10, 1]])
    image = Matches(detections((50, 50, 60, 60, 0.9, 1)), boxes.astype(float), np.array([-1]))
    text, count = suspected_errors([image], [Path("/a.png")], NAMES, 0.5)
    assert text.splitlines()[1:] == [
        "/a.png,0,0,19,10,cat,,annotated twice",
        '/a.png,0,0,20,10,dog,,"annotated as cat, too"',
        "/a.png,50,50,60,60,dog,0.900,nothing is annotated there",
    ]
    assert count == 3
