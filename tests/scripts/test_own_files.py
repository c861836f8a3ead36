"""Files that this program did not write stay, whatever their names; its own are known again."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import train
import validate
import visualize
from retinanet.data.shapes import SampleData
from retinanet.inference.results import FORMATS
from retinanet.report.report import REPORT_FILES
from retinanet.runtime.own_files import is_own
from retinanet.tools import check_data, convert, export
from tests.support.helpers import SMALL, csv_flags

pytestmark = pytest.mark.usefixtures("narrow")

Tool = Callable[[list[str]], int]
MINE = "mine"
RUN = (
    *(
        "config.json",
        "metrics.jsonl",
        "model_card.md",
        "model_final.pt",
        "training_state.pt",
        ".retinanet.lock",
    ),
    *("csv_retinanet_0.pt", "csv_retinanet_7.pt", "csv_retinanet_best.pt", *REPORT_FILES),
)
VALIDATION = ("metrics.json", "detections.json", *REPORT_FILES)
CHECK = ("check.json", "box_sizes.png", "samples.jpg", "augmented.jpg")


def training(sample: SampleData, folder: Path) -> list[str]:
    flags = ["--dataset", "csv", *csv_flags(sample), "--csv_val", str(sample.csv_val)]
    return [*flags, "--output_dir", str(folder), *SMALL]


def validation(sample: SampleData, run: Path, folder: Path) -> list[str]:
    flags = [str(run / "model_final.pt"), "--csv_val", str(sample.csv_val), "--report"]
    return [*flags, "--workers", "0", "--score_threshold", "0.001", "--output_dir", str(folder)]


def checking(sample: SampleData, folder: Path) -> list[str]:
    flags = ["--dataset", "csv", *csv_flags(sample), "--augment", "mild"]
    return [*flags, "--output_dir", str(folder)]


def drawing(sample: SampleData, run: Path, folder: Path) -> list[str]:
    images = str(sample.coco_root / "images/val2017/0002.jpg")
    flags = [str(run / "model_final.pt"), "--images", images, "--save", "pictures", *FORMATS]
    return [*flags, "--workers", "0", "--score_threshold", "0.001", "--output_dir", str(folder)]


def put(folder: Path, name: str) -> Path:
    """A file of somebody else."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(MINE)
    return file


def assert_refused(code: int, file: Path, said: str) -> None:
    assert code == 1
    assert f"{file.name}: was not written by this program" in said
    assert file.read_text() == MINE


def test_all_that_is_written_is_known_again(sample: SampleData, run: Path, tmp_path: Path) -> None:
    """So that the same command may be given twice, and a run be resumed or overwritten."""
    assert validate.main(validation(sample, run, tmp_path / "validation")) == 0
    assert check_data.main(checking(sample, tmp_path / "check")) == 0
    assert visualize.main(drawing(sample, run, tmp_path / "drawn")) == 0
    written = [path for f in (run, tmp_path) for path in f.rglob("*") if path.is_file()]
    assert {path.name for path in written} > {"losses.png", "0002.jpg", "check.json", "config.json"}
    of_free_names = {name for name, _ in FORMATS.values()}
    assert {path.name for path in written if not is_own(path)} == of_free_names


@pytest.mark.parametrize("name", RUN)
def test_training_leaves_the_users_files(
    sample: SampleData, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    file = put(tmp_path, name)
    code = train.main([*training(sample, tmp_path), "--overwrite"])
    assert_refused(code, file, capsys.readouterr().err)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


def test_resuming_leaves_the_users_files(
    sample: SampleData, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "training_state.pt").write_bytes((run / "training_state.pt").read_bytes())
    file = put(tmp_path, "report/missed_1.jpg")
    code = train.main([*training(sample, tmp_path), "--resume"])
    assert_refused(code, file, capsys.readouterr().err)


def test_training_over_an_old_run_leaves_what_lies_beside_it(
    sample: SampleData, run: Path, tmp_path: Path
) -> None:
    """`--keep 1` removes old epochs' files, `--overwrite` all of the old run's."""
    for path in run.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    others = ["coco_retinanet_3.pt", "csv_retinanet_old.pt", "report/mine.png", "notes.pt.tmp"]
    others += ["tensorboard/events.out.tfevents.1.mine", "model.onnx", "shapes/train.csv"]
    files = [put(tmp_path, name) for name in others]
    flags = [*training(sample, tmp_path), "--overwrite", "--keep", "1", "--epochs", "1"]
    assert train.main(flags) == 0
    assert [file.read_text() for file in files] == [MINE] * len(files)
    assert not (tmp_path / "csv_retinanet_1.pt").exists()  # the old run's


@pytest.mark.parametrize("name", VALIDATION)
def test_validation_leaves_the_users_files(
    sample: SampleData, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    file = put(tmp_path, name)
    code = validate.main(validation(sample, run, tmp_path))
    assert_refused(code, file, capsys.readouterr().err)


@pytest.mark.parametrize("name", CHECK)
def test_check_data_leaves_the_users_files(
    sample: SampleData, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    file = put(tmp_path, name)
    assert_refused(check_data.main(checking(sample, tmp_path)), file, capsys.readouterr().err)


def test_visualize_draws_beside_the_users_files(
    sample: SampleData, run: Path, tmp_path: Path
) -> None:
    names = ["0002.jpg", *(name for name, _ in FORMATS.values())]
    files = [put(tmp_path, name) for name in names]
    for _ in range(2):  # the second time its own picture is replaced
        assert visualize.main(drawing(sample, run, tmp_path)) == 0
    assert [file.read_text() for file in files] == [MINE] * len(files)
    with Image.open(tmp_path / "0002_2.jpg") as drawn:
        assert drawn.size == Image.open(sample.coco_root / "images/val2017/0002.jpg").size
    assert not (tmp_path / "0002_3.jpg").exists()


@pytest.mark.parametrize(("tool", "name"), [(convert.main, "out.pth"), (export.main, "out.onnx")])
def test_tools_replace_only_what_overwrite_gives_up(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], tool: Tool, name: str
) -> None:
    file = put(tmp_path, name)
    more = ["--to", "torchvision"] if tool is convert.main else []
    assert tool([str(run / "model_final.pt"), str(file), *more]) == 1
    assert "it exists; pass --overwrite or choose another name" in capsys.readouterr().err
    assert file.read_text() == MINE


def test_the_sample_leaves_the_users_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = put(tmp_path, "shapes/train.csv")
    assert train.main(["--dataset", "shapes", "--output_dir", str(tmp_path)]) == 1
    assert "shapes holds something other than the shapes data" in capsys.readouterr().err
    assert file.read_text() == MINE
