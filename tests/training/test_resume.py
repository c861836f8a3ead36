"""A run that was stopped, killed or broken goes on as if nothing had been."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

import train
import validate
from retinanet.cli.run_report import RunReport
from retinanet.data.shapes import SampleData, write_shapes
from retinanet.errors import DataError
from retinanet.evaluation import measure
from retinanet.report.report import report_title
from retinanet.runtime.folder_lock import lock_folder
from retinanet.runtime.signals import StoppedError, StopRequest
from retinanet.training.records import read_records
from retinanet.training.run_folder import RunFolder
from retinanet.weights.checkpoint import load_checkpoint
from tests.support.helpers import csv_run_flags
from tests.support.narrow import narrow_network
from tests.support.paths import ROOT
from tests.support.processes import READY, Forked, waiting_for_signals

EPOCHS, STEPS = 2, 3  # 5 images, batches of 2
pytestmark = pytest.mark.usefixtures("narrow")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SampleData:
    return write_shapes(
        tmp_path_factory.mktemp("data") / "shapes", train_images=5, val_images=2, seed=3
    )


def flags(sample: SampleData, folder: Path, *more: str) -> list[str]:
    return csv_run_flags(sample, folder, "--epochs", str(EPOCHS), "--lr", "1e-3", *more)


def losses(said: str) -> list[str]:
    """The lines of losses, without what depends on the clock."""
    return [line.split(" | lr: ")[0] for line in said.splitlines() if line.startswith("Epoch: ")]


def recorded(folder: Path) -> list[tuple[object, ...]]:
    """The numbers of metrics.jsonl that do not depend on the clock."""
    names = ("kind", "epoch", "iteration", "running_loss", "mean_loss", "lr", "metrics")
    records = read_records(folder / "metrics.jsonl")
    return [tuple(record.get(name) for name in names) for record in records]


def scores(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith(("mAP", "COCO's"))]


@pytest.fixture(scope="module")
def whole(sample: SampleData, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that was never stopped: its folder and what it said."""
    folder = tmp_path_factory.mktemp("whole")
    code, said, errors = Forked(train.main, flags(sample, folder)).end()
    assert code == 0, errors
    return folder, said


def assert_same_run(folder: Path, whole: Path, *, records_from: int = 0) -> None:
    """Bit for bit the same final file, and the same records from one on."""
    found, expected = (load_checkpoint(f / "model_final.pt") for f in (folder, whole))
    assert found.weights.keys() == expected.weights.keys()
    different = [k for k in found.weights if not torch.equal(found.weights[k], expected.weights[k])]
    assert different == []
    assert found.metrics == expected.metrics
    assert recorded(folder) == recorded(whole)[records_from:]


@pytest.mark.parametrize("steps", range(1, EPOCHS * STEPS + 1))
def test_stopped_after_any_step_and_resumed_ends_equal(
    sample: SampleData,
    whole: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    steps: int,
) -> None:
    taken = 0

    def stop_in_time(folder: RunFolder) -> bool:
        """Called after every step."""
        nonlocal taken
        taken += 1
        if taken == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return False

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "state_is_due", stop_in_time)
        assert train.main(flags(sample, tmp_path)) == 128 + signal.SIGTERM
    first = capsys.readouterr()
    assert "go on with the same command and --resume" in first.err
    # The number of workers may change.
    workers = ["--workers", "1"] if steps == 2 else []
    assert train.main(flags(sample, tmp_path, "--resume", *workers)) == 0
    second = capsys.readouterr()
    assert losses(first.out) + losses(second.out) == losses(whole[1])
    assert scores(first.out) + scores(second.out) == scores(whole[1])
    assert_same_run(tmp_path, whole[0])


def test_more_epochs_after_the_end_and_none_after_that(
    sample: SampleData, whole: tuple[Path, str], tmp_path: Path
) -> None:
    assert train.main(flags(sample, tmp_path, "--epochs", "1")) == 0
    for _ in range(2):  # the second time nothing is left to do
        assert train.main(flags(sample, tmp_path, "--resume")) == 0
        assert_same_run(tmp_path, whole[0])
        assert sorted(os.listdir(tmp_path)) == sorted(os.listdir(whole[0]))
        assert load_checkpoint(tmp_path / "model_final.pt").epoch == EPOCHS - 1


def test_a_run_killed_while_its_report_is_written_gets_one_when_resumed(
    sample: SampleData,
    whole: tuple[Path, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "report.html").unlink()  # it is written last
    for evaluations in (1, 0):  # the second time nothing is missing
        assert train.main(flags(sample, tmp_path, "--resume")) == 0
        said = capsys.readouterr().out
        assert said.count("Evaluating on") == said.count("Report: ") == evaluations
        assert report_title(tmp_path) == f"{tmp_path.name}: csv, epoch {EPOCHS - 1}"


def test_the_report_of_fewer_epochs_does_not_count(
    sample: SampleData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kill comes before anything of the old report is replaced."""
    assert train.main(flags(sample, tmp_path, "--epochs", "1")) == 0
    with monkeypatch.context() as patch:
        patch.setattr(RunReport, "finish", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        assert train.main(flags(sample, tmp_path, "--resume")) == 128 + signal.SIGINT
    assert report_title(tmp_path).endswith(": csv, epoch 0")
    assert train.main(flags(sample, tmp_path, "--resume")) == 0
    assert report_title(tmp_path).endswith(": csv, epoch 1")


@pytest.mark.parametrize("lost", [1, 40])
def test_the_last_epochs_record_comes_back_if_it_was_cut(
    sample: SampleData, whole: tuple[Path, str], tmp_path: Path, lost: int
) -> None:
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(file.read_bytes()[:-lost])
    assert train.main(flags(sample, tmp_path, "--resume")) == 0
    assert file.read_bytes() == (whole[0] / "metrics.jsonl").read_bytes()


def test_a_second_run_in_the_folder_ends_at_once(
    sample: SampleData, whole: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in whole[0].iterdir() if path.is_file()}
    with lock_folder(whole[0]):
        for more in ([], ["--resume"], ["--overwrite"]):
            assert train.main(flags(sample, whole[0], *more)) == 1
            said = f"another run is at work there (process {os.getpid()} on "
            assert said in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before


def test_stopped_during_the_evaluation(
    sample: SampleData,
    whole: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(measure, "predict", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT))
        assert train.main(flags(sample, tmp_path)) == 128 + signal.SIGINT
    assert "--resume" in capsys.readouterr().err
    assert train.main(flags(sample, tmp_path, "--resume")) == 0
    assert scores(capsys.readouterr().out) == scores(whole[1])
    assert_same_run(tmp_path, whole[0])


def test_a_checkpoint_is_no_state(
    sample: SampleData, whole: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(whole[0] / "model_final.pt")
    assert train.main(flags(sample, tmp_path / "new", "--resume", model)) == 1
    assert "a model to start from goes to --weights" in capsys.readouterr().err
    state = str(whole[0] / "training_state.pt")
    assert train.main(flags(sample, tmp_path / "new", "--weights", state)) == 1
    assert "it is no model" in capsys.readouterr().err


def test_another_runs_state(sample: SampleData, whole: tuple[Path, str], tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert train.main(flags(sample, first, "--epochs", "1")) == 0
    before = sorted(os.listdir(first))
    state = str(first / "training_state.pt")
    assert train.main(flags(sample, second, "--resume", state)) == 0
    assert_same_run(second, whole[0], records_from=STEPS + 1)  # those of epoch 0 are the first's
    assert sorted(os.listdir(first)) == before


def test_a_schedule_goes_on_where_it_was(
    sample: SampleData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the warm-up, with momentum; another number of epochs is another schedule.

    Batch norm's running means come along: they too are among the weights.
    """
    recipe = ["--optimizer", "sgd", "--schedule", "cosine", "--warmup", "3"]
    recipe += ["--batch_norm", "trained"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train.main(flags(sample, whole, *recipe)) == 0
    with monkeypatch.context() as patch:
        stop = iter([False, True])
        patch.setattr(
            RunFolder,
            "state_is_due",
            lambda _: next(stop, False) and os.kill(os.getpid(), signal.SIGTERM),
        )
        assert train.main(flags(sample, parts, *recipe)) == 128 + signal.SIGTERM
    assert train.main(flags(sample, parts, *recipe, "--resume", "--epochs", "5")) == 1
    assert train.main(flags(sample, parts, *recipe, "--resume")) == 0
    assert_same_run(parts, whole)
    rates = [r["lr"] for r in read_records(whole / "metrics.jsonl") if r["kind"] == "step"]
    assert rates[:3] == sorted(rates[:3])
    assert rates[2:] == sorted(rates[2:], reverse=True)


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--lr", "0.5"], "--lr is 0.5, was 0.001"),
        (["--seed", "7"], "--seed is 7, was 0"),
        (["--batch_size", "1"], "--batch_size (of all processes) is 1, was 2"),
        (["--depth", "34"], "--depth is 34, was 18"),
        (["--csv_train", "VAL"], "the training data's checksum is"),
    ],
)
def test_other_settings_are_refused_by_name(
    sample: SampleData,
    whole: tuple[Path, str],
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    complaint: str,
) -> None:
    more = [str(sample.csv_val) if word == "VAL" else word for word in more]
    assert train.main(flags(sample, whole[0], "--resume", *more)) == 1
    assert complaint in capsys.readouterr().err


def test_nothing_to_resume_is_an_error(
    sample: SampleData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(flags(sample, tmp_path / "new", "--resume")) == 1
    assert "there is no state to resume from" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def kill_twice(process: int, number: int) -> None:
    """As `timeout` does: to all processes, and to the one that it started."""
    os.killpg(process, number)
    time.sleep(0.05)
    os.kill(process, number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("send", [os.kill, os.killpg, kill_twice])
def test_signal_to_a_process(
    sample: SampleData,
    whole: tuple[Path, str],
    tmp_path: Path,
    number: signal.Signals,
    send: Callable[[int, int], None],
) -> None:
    main = waiting_for_signals(train.main, steps=2, signals=1 + (send is kill_twice))
    process = Forked(main, flags(sample, tmp_path, "--workers", "1", "--epochs", "1000"))
    process.read_until(READY)
    send(process.pid, number)
    code, _, errors = process.end()
    assert code == 128 + number
    assert errors.count("\n") == 1
    assert "--resume" in errors
    assert train.main(flags(sample, tmp_path, "--resume")) == 0
    assert_same_run(tmp_path, whole[0])


@pytest.mark.slow
def test_interrupt_to_a_real_process(sample: SampleData, tmp_path: Path) -> None:
    """Ctrl-C: to the process and its loader's worker, wherever they are."""
    more = ["--workers", "1", "--epochs", "1000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.narrow", "train.py", *flags(sample, tmp_path, *more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    assert process.stdout
    assert any(line.startswith("Epoch: 0 | Iteration: 1") for line in process.stdout)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert errors.count("\n") == 1
    assert "--resume" in errors
    assert (tmp_path / "training_state.pt").exists()


def test_a_signal_that_is_held_back_stops_at_the_end() -> None:
    """As a loader's start is: half started, it would complain when the process ends."""
    done = []

    def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("all of it")

    with StopRequest("") as stop, pytest.raises(StoppedError), stop.at_once(), StopRequest.held():
        work()
    assert done == ["all of it"]


@pytest.mark.parametrize(
    ("pause", "end"),
    [
        (0.0, (0, "goes on\n")),  # the same request, sent twice
        (1.5, (-signal.SIGTERM, "")),  # somebody is in a hurry
    ],
)
def test_a_later_signal_ends_at_once(pause: float, end: tuple[int, str]) -> None:
    def stopped_twice(_: Sequence[str]) -> int:
        with StopRequest(""):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(pause)
            os.kill(os.getpid(), signal.SIGTERM)
            sys.stdout.write("goes on\n")
        return 0

    assert Forked(stopped_twice, []).end()[:2] == end


def test_an_error_nobody_expected_ends_the_loaders_workers_too() -> None:
    """The traceback holds the loader until the interpreter ends: it has to end its workers."""
    lines = [
        "import torch",
        "from retinanet.inference.prediction import SampleLoader",
        "def main():",
        "    data = [{'img': torch.zeros(1)}] * 100",
        "    samples = iter(SampleLoader(data, workers=2, pin_memory=False))",
        "    next(samples)",
        "    raise LookupError('as no code expects it')",
        "main()",
    ]
    command = [sys.executable, "-c", "\n".join(lines)]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 1
    assert "LookupError" in result.stderr


def kill_until_done(
    sample: SampleData, folder: Path, kills: int, seconds: float, seed: int = 0
) -> int:
    """Start the run again and again, killing it at random moments of its work.

    Args:
        sample: what it trains on.
        folder: its own.
        kills: at most so many.
        seconds: that it is left alone at most, once its loop is about to begin.
        seed: of the moments.

    Returns:
        How many kills it took until it ended or they were used up.
    """
    pause = random.Random(seed)
    for done in range(kills):
        resume = ["--resume"] if (folder / "training_state.pt").exists() else ["--overwrite"]
        often = ["--save_every_minutes", "0.0001"]
        process = Forked(train.main, flags(sample, folder, *often, *resume))
        process.read_until("Training a ResNet")
        process.process.join(pause.uniform(0, seconds))
        process.process.kill()
        code, _, errors = process.end()
        if code != -signal.SIGKILL:
            assert code == 0, errors
            return done
    return kills


def resume_and_compare(sample: SampleData, folder: Path, whole: Path) -> None:
    resume = ["--resume"] if (folder / "training_state.pt").exists() else []
    assert train.main(flags(sample, folder, *resume)) == 0
    assert_same_run(folder, whole)


def test_kill_9_and_resume(sample: SampleData, whole: tuple[Path, str], tmp_path: Path) -> None:
    assert kill_until_done(sample, tmp_path, kills=4, seconds=0.4) > 0
    resume_and_compare(sample, tmp_path, whole[0])


@pytest.mark.slow
def test_fifty_kills(sample: SampleData, tmp_path: Path) -> None:
    """Of a network of full width, whose files take their time."""
    kills, runs = 0, 0
    with narrow_network(divisor=1):
        assert train.main(flags(sample, tmp_path / "whole")) == 0
        while kills < 50:  # a run that ends before its share of kills makes room for another
            folder = tmp_path / str(runs)
            kills += kill_until_done(sample, folder, kills=50 - kills, seconds=5, seed=runs)
            resume_and_compare(sample, folder, tmp_path / "whole")
            runs += 1


def test_numbers_gone_wrong_stop_the_run(
    sample: SampleData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    more = ["--lr", "1e30", "--save_every_minutes", "0.0001"]
    assert train.main(flags(sample, tmp_path, *more)) == 1
    captured = capsys.readouterr()
    for part in ("iteration 1", "not finite", ".jpg", "learning rate 1e+30", "--lr"):
        assert part in captured.err
    assert time.monotonic() - started < 60
    state = torch.load(tmp_path / "training_state.pt", weights_only=True)
    assert all(torch.isfinite(w).all() for w in state["weights"].values())


def with_broken_image(csv: Path, root: Path, folder: Path) -> tuple[Path, Path]:
    """A CSV file with one image more, and that image.

    Its header is whole, so only decoding shows that the rest is missing.
    """
    image = folder / "cut.png"
    Image.effect_noise((64, 64), 50).save(image)
    image.write_bytes(image.read_bytes()[:1000])
    text = csv.read_text().replace("images/", f"{root}/images/")
    rows = folder / csv.name
    rows.write_text(text + f"{image},1,1,50,50,ring\n")
    return rows, image


def test_an_image_that_breaks_after_the_start(
    sample: SampleData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, image = with_broken_image(sample.csv_train, sample.coco_root, tmp_path)
    line = len(rows.read_text().splitlines())

    def said(folder: str, code: int, *more: str) -> str:
        run = flags(sample, tmp_path / folder, "--csv_train", str(rows), *more)
        assert train.main(run) == code
        return capsys.readouterr().err

    error = said("stopped", 1)
    assert f"train.csv:{line}: {image}: cannot be decoded" in error
    assert error.endswith("or go on without it: the same with --resume --on_bad_image skip\n")
    assert f"Skipped (1): {rows}:{line}: {image}: cannot" in said("whole", 0, "--on_bad_image=skip")
    text = said("stopped", 0, "--resume", "--on_bad_image", "skip")
    assert text.count("cut.png") == 1  # though every epoch meets it
    whole, resumed = (
        load_checkpoint(tmp_path / name / "model_final.pt") for name in ("whole", "stopped")
    )
    for key, value in whole.weights.items():
        assert torch.equal(resumed.weights[key], value), key


def test_a_validation_image_that_cannot_be_read(
    sample: SampleData,
    whole: tuple[Path, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It costs the evaluation, not the epoch; skipped, the other images are evaluated."""
    rows, image = with_broken_image(sample.csv_val, sample.coco_root, tmp_path)
    run = flags(sample, tmp_path / "run", "--csv_val", str(rows))
    assert train.main(run) == 1
    error = capsys.readouterr().err
    assert f"val.csv:{len(rows.read_text().splitlines())}: {image}: cannot be decoded" in error
    assert error.endswith("or go on without it: the same with --resume --on_bad_image skip\n")
    assert train.main([*run, "--resume", "--on_bad_image", "skip"]) == 0
    said = capsys.readouterr()
    assert said.err.count("cut.png") == 1  # though each of two evaluations meets it
    assert said.out.count("Without 1 of 3 images, which could not be read:\n") == EPOCHS
    assert scores(said.out) == scores(whole[1])
    assert_same_run(tmp_path / "run", whole[0])
    validated = [str(whole[0] / "model_final.pt"), "--csv_val", str(rows), "--workers", "0"]
    assert validate.main(validated) == 1
    assert capsys.readouterr().err.endswith("or leave it out: --on_bad_image skip\n")
    assert validate.main([*validated, "--on_bad_image", "skip"]) == 0
    assert "Without 1 of 3 images, which could not be read:\n" in capsys.readouterr().out


def test_every_content_is_written_once(
    sample: SampleData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch its file, of which the best and the last are links; the state when due, and last."""
    written: list[str] = []
    real = torch.save

    def save(content: dict[str, object], stream: object) -> None:
        written.append("state" if "optimizer" in content else f"epoch {content['epoch']}")
        real(content, stream)

    monkeypatch.setattr(torch, "save", save)
    assert train.main(flags(sample, tmp_path)) == 0
    assert written == ["epoch 0", "epoch 1", "state"]
    assert os.path.samefile(tmp_path / "csv_retinanet_1.pt", tmp_path / "model_final.pt")


def test_an_evaluation_that_fails_loses_nothing(
    sample: SampleData,
    whole: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise DataError("a validation image cannot be read")

    with monkeypatch.context() as patch:
        patch.setattr(train, "evaluate", fail)
        assert train.main(flags(sample, tmp_path)) == 1
    first = capsys.readouterr()
    assert train.main(flags(sample, tmp_path, "--resume")) == 0
    assert losses(first.out) + losses(capsys.readouterr().out) == losses(whole[1])
    assert_same_run(tmp_path, whole[0])
