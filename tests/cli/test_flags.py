"""Flags: one line each in --help, two spellings, files of flags."""

import shlex
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import train
import validate
import visualize
from retinanet.cli import train_flags
from retinanet.cli.parser import (
    Parser,
    fraction,
    fraction_or_zero,
    non_negative_int,
    positive_float,
    positive_int,
    value_text,
)
from retinanet.tools import check_data, compare, convert, export


@pytest.mark.parametrize(
    "script", [train, validate, visualize, check_data, compare, convert, export]
)
def test_help_has_one_line_for_each_flag(script: ModuleType) -> None:
    parser = script.parser()
    _, *groups = parser.format_help().split("\n\n")
    shown = [line for group in groups for line in group.splitlines() if line.startswith("  ")]
    assert len(shown) == len(parser._actions)
    assert all(len(line) <= 100 for line in shown)
    assert all(action.help for action in parser._actions)


def test_texts_end_with_the_defaults() -> None:
    lines = [line.split(maxsplit=2) for line in train.parser().format_help().splitlines()]
    texts = {words[0]: words[-1] for words in lines if words}
    assert texts["--lr"].endswith(" (1e-5; shapes: 6e-4)")  # filled in once the data is known
    assert texts["--clip_norm"].endswith(" (0.1)")
    assert texts["--workers"].endswith(" (3)")
    assert texts["--keep"].endswith(" (all)")  # written out where None has a meaning
    assert not texts["--compile"].endswith(")")


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (1e-5, "1e-5"), (0.00025, "2.5e-4"), (0.05, "0.05"), (3, "3")]
)
def test_values_as_one_types_them(value: float, text: str) -> None:
    assert value_text(value) == text


def test_other_names_stand_below_the_flags() -> None:
    text = " ".join(validate.parser().format_help().split())
    for names in ("--model_path = --model", "--class_list_path, --class_list = --csv_classes"):
        assert names in text


def test_the_usage_of_a_tool_can_be_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    assert train.parser().format_usage().startswith("usage: ")
    started = SimpleNamespace(name="retinanet.tools.export")
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", started)
    assert "usage: python -m retinanet.tools.export " in export.parser().format_usage()


@pytest.mark.parametrize(
    "command",
    [
        "--dataset csv --csv_train 'my photos/a.csv' --csv_classes c.csv --lr 0.000123456789",
        '--dataset coco --coco_path "it\'s True" --minutes 5 --keep 2 --anchor_scales 1 1.26 1.5',
        "--data 'my photos' --format yolo --no_near_duplicates --tile 608 --tensorboard",
        "--dataset shapes --weight_decay 1e-4 --strict --resume --workers 0",
    ],
)
def test_a_run_says_the_command_that_repeats_it(command: str) -> None:
    """Of the flags that decide nothing none is in it."""
    args = train_flags.parse(shlex.split(command))
    again = shlex.split(train_flags.repeating_command(args))
    assert again[:2] == ["python", "train.py"]
    for name in ("--workers", "--keep", "--tensorboard", "--resume"):
        assert name not in again
    beside = {"workers": 3, "keep": None, "tensorboard": False, "resume": None}
    assert vars(train_flags.parse(again[2:])) == vars(args) | beside


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["--epoch", "3"], "--epoch 3; did you mean --epochs?"),
        (["--weight-decy=1"], "--weight_decy=1; did you mean --weight_decay?"),
        (["--xyzzy"], "--xyzzy; there is no such flag"),
        (["photos"], "photos; a value stands behind its flag"),
    ],
)
def test_unknown_words_are_met_with_advice(
    words: list[str], advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        train.parser().parse(words)
    assert f"error: unrecognized arguments: {advice} (see --help)" in capsys.readouterr().err


def test_images_without_their_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        visualize.parser().parse(["model.pt", "photos"])
    assert "arguments: photos; images stand behind --images" in capsys.readouterr().err


def parser() -> Parser:
    result = Parser("A program.")
    result.add_argument("--some_flag", type=positive_int)
    result.add_argument("--text")
    return result


def test_dashes_and_files_of_flags(tmp_path: Path) -> None:
    file = tmp_path / "flags"
    file.write_text("--some-flag 3  # a comment\n--text 'two words'\n")
    args = parser().parse([f"@{file}", "--some-flag=4"])
    assert (args.some_flag, args.text) == (4, "two words")  # the later one counts


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (r"--text C:\photos\new", r"C:\photos\new"),  # a backslash is itself
        (r"--text 'C:\my photos\new'", r"C:\my photos\new"),
        (r'--text "C:\my photos\new\"', "C:\\my photos\\new\\"),
        ("\ufeff--text x", "x"),  # a byte order mark of an editor
        ("--text=a#b # c", "a"),  # a comment begins anywhere: what holds # is quoted
        ("'--text=a#b'", "a#b"),
    ],
)
def test_values_in_files_of_flags(tmp_path: Path, line: str, value: str) -> None:
    (tmp_path / "flags").write_text(line, encoding="utf-8")
    assert parser().parse([f"@{tmp_path / 'flags'}"]).text == value


def test_files_of_flags_name_others(tmp_path: Path) -> None:
    (tmp_path / "outer").write_text(f"--text x @{tmp_path / 'inner'} @{tmp_path / 'inner'}")
    (tmp_path / "inner").write_text("--some_flag 3")
    assert parser().parse([f"@{tmp_path / 'outer'}"]).some_flag == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"--text 'no end", "No closing quotation; expected flags; quote what holds quotes"),
        (b"\xff", "expected UTF-8 text"),
        (b"--text x\n@flags", "@flags names itself; take the line out"),
        (b"@gone", "@gone: No such file or directory; correct the path"),
        (b"--text 'a\x07b'", "a\\x07b holds control characters"),
    ],
)
def test_bad_files_of_flags(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("flags").write_bytes(content)
    with pytest.raises(SystemExit) as end:
        parser().parse(["@flags"])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (positive_int, {"1": 1, "20": 20}, ["0", "-1", "1.5", "", "x", "9" * 5000]),
        (non_negative_int, {"0": 0, "3": 3}, ["-1", "1e3", "nan"]),
        (positive_float, {"1e-5": 1e-5, "2": 2.0}, ["0", "-1", "nan", "inf", "x"]),
        (fraction, {"0.5": 0.5}, ["0", "1", "1.5", "nan"]),
        (fraction_or_zero, {"0": 0.0, "0.5": 0.5}, ["-1", "1", "1.5", "nan"]),
    ],
)
def test_numbers_in_and_out_of_their_range(
    kind: type, good: dict[str, float], bad: list[str]
) -> None:
    flags = Parser("A program.")
    flags.add_argument("--value", type=kind)
    for text, value in good.items():
        assert flags.parse([f"--value={text}"]).value == value
    for text in bad:
        with pytest.raises(SystemExit):
            flags.parse([f"--value={text}"])
