"""What the README and docs say is so: their commands run, docs/flags.md names every flag."""

import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import train
import validate
import visualize
from retinanet.cli import from_flags
from retinanet.data.shapes import write_shapes
from retinanet.tools import check_data, compare, convert, export
from tests.support.paths import ROOT

PAGES = {file: file.read_text() for file in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]}
TEXT = "\n".join(PAGES.values())
FLAGS = PAGES[ROOT / "docs" / "flags.md"]
SCRIPTS = {
    "train.py": train,
    "validate.py": validate,
    "visualize.py": visualize,
    "-m retinanet.tools.check_data": check_data,
    "-m retinanet.tools.compare": compare,
    "-m retinanet.tools.convert": convert,
    "-m retinanet.tools.export": export,
}
SHELL = "\n".join(re.findall(r"^```bash\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL))
COMMANDS = re.findall(r"^(?:.*&& )?python (\w+\.py .*|-m retinanet\..*)$", SHELL, re.MULTILINE)
# Appended to a training command, so that it takes seconds.
QUICK = "--depth 18 --weights none --epochs 1 --min_side 64 --max_side 96 --workers 0".split()
pytestmark = pytest.mark.usefixtures("narrow")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the README's commands find what they name."""
    root = tmp_path_factory.mktemp("home")
    sample = write_shapes(root / "coco", train_images=4, val_images=2)
    home = root / "work"
    shutil.copytree(sample.coco_root / "images", home / "images")
    shutil.copytree(home / "images/val2017", home / "photos")
    shutil.copy(home / "photos/0001.jpg", home / "one.jpg")
    shutil.copytree(ROOT / "recipes", home / "recipes")
    (home / "more").mkdir()
    Image.new("RGB", (90, 60), "green").save(home / "more" / "two.png")
    for file in (sample.csv_train, sample.csv_val, sample.csv_classes):
        shutil.copy(file, home)
    return home


def script_and_flags(command: str) -> tuple[str, list[str]]:
    """`train.py` or `-m retinanet.tools.x`, and what follows."""
    words = shlex.split(command)
    length = 2 if words[0] == "-m" else 1
    return " ".join(words[:length]), words[length:]


def test_commands_are_found() -> None:
    named = {script_and_flags(command)[0] for command in COMMANDS}
    assert named == set(SCRIPTS) - {"-m retinanet.tools.convert"}  # which needs others' files
    assert len(COMMANDS) >= 9


def with_patience(command: str) -> Any:
    """A command as a parameter; an export takes a minute, and its own tests make another."""
    slow = command.startswith("-m retinanet.tools.export")
    return pytest.param(command, marks=pytest.mark.slow if slow else ())


# Training, which saves what the others need, comes first.
IN_ORDER = sorted(set(COMMANDS), key=lambda command: (command[:5] != "train", command))


@pytest.mark.parametrize("command", [with_patience(command) for command in IN_ORDER])
def test_command_runs(command: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setattr(from_flags, "SAMPLE_SIZE", {"train_images": 4, "val_images": 2})
    script, flags = script_and_flags(command)
    models = {"model_final.pt", "one.pt", "other.pt"}.intersection(flags)
    if models and not Path("model_final.pt").exists():  # run by itself
        assert train.main([*script_and_flags(IN_ORDER[0])[1], *QUICK, "--overwrite"]) == 0
    for other in models - {"model_final.pt"}:
        shutil.copy("model_final.pt", other)
    if script == "train.py":
        flags += [*QUICK, "--overwrite"]
    elif script.endswith((".py", "compare")):
        flags += ["--workers", "0"]
    assert SCRIPTS[script].main(flags) == 0


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_every_flag_is_in_the_docs(script: str) -> None:
    flags = {
        name
        for action in SCRIPTS[script].parser()._actions
        for name in action.option_strings
        if name.startswith("--") and name not in ("--help", "--dataset")
    }
    missing = [flag for flag in sorted(flags) if f"`{flag}`" not in FLAGS]
    assert missing == []


def test_every_flag_of_the_docs_exists() -> None:
    known = {
        name
        for module in SCRIPTS.values()
        for action in module.parser()._actions
        for name in action.option_strings
    }
    named = set(re.findall(r"`(--\w+)`", TEXT))
    assert named - known == set()


def test_pictures_and_pages_that_are_linked_are_there() -> None:
    for page, text in PAGES.items():
        for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", text):
            assert os.path.exists(page.parent / target), (page.name, target)


def test_the_original_is_named_once() -> None:
    assert TEXT.count("yhenon") == 2  # the link and its text
