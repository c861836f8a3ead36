"""The plan of the house: sizes of folders, files and functions, and what a wheel holds."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGE = ROOT / "retinanet"
FOLDERS = sorted(file.parent for file in PACKAGE.rglob("__init__.py"))
BENCHMARKS = sorted(file.parent for file in ROOT.glob("benchmarks/**/__init__.py"))
TESTS = sorted({file.parent for file in ROOT.glob("tests/**/*.py")})
SOURCES = sorted([*PACKAGE.rglob("*.py"), *ROOT.glob("*.py")])
ALL_SOURCES = sorted([*SOURCES, *ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/**/*.py")])
# Words that a docstring must not begin with: the reader wants the noun or the verb first.
NO_NOUN = ("What", "How", "Where", "Which", "Of", "Say", "Tell")

FILES_IN_A_FOLDER = 14
LINES_IN_A_FILE = 450
LINES_IN_A_FUNCTION = 60


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def body_lines(function: ast.FunctionDef) -> int:
    """Lines of a function without its docstring."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        lines -= (first.end_lineno or 0) - first.lineno + 1
    return lines


@pytest.mark.parametrize("folder", [*FOLDERS, *BENCHMARKS, *TESTS], ids=name)
def test_a_folder_has_few_files(folder: Path) -> None:
    assert len(list(folder.glob("*.py"))) <= FILES_IN_A_FOLDER


@pytest.mark.parametrize("folder", [*FOLDERS, *BENCHMARKS], ids=name)
def test_a_folder_says_in_a_sentence_what_it_is_for(folder: Path) -> None:
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    assert text
    if folder != PACKAGE:
        assert len(text.splitlines()) <= 2
        assert text.endswith(".")


def test_files_are_short() -> None:
    lengths = {name(file): len(file.read_text().splitlines()) for file in ALL_SOURCES}
    assert {file: n for file, n in lengths.items() if n > LINES_IN_A_FILE} == {}


def test_functions_are_short() -> None:
    long = {
        f"{name(file)}:{node.name}": body_lines(node)
        for file in SOURCES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef) and body_lines(node) > LINES_IN_A_FUNCTION
    }
    assert long == {}
    story = ast.parse((ROOT / "train.py").read_text()).body
    lengths = {node.name: body_lines(node) for node in story if isinstance(node, ast.FunctionDef)}
    assert max(lengths["main"], lengths["run_epochs"]) <= 50


def test_docstrings_lead_with_a_noun_or_a_verb() -> None:
    found = [
        f"{name(file)}: {text.splitlines()[0]}"
        for file in SOURCES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and re.match(rf"({'|'.join(NO_NOUN)})\b", text := ast.get_docstring(node) or "")
    ]
    assert found == []


def test_every_folder_is_listed_for_the_wheel() -> None:
    settings = (ROOT / "pyproject.toml").read_text()
    listed = re.findall(
        r'"([\w.]+)"', re.search(r"^packages = \[(.*retinanet\.[^]]*)\]", settings, re.M)[1]
    )  # type: ignore[index]
    assert sorted(listed) == [".".join(f.relative_to(ROOT).parts) for f in FOLDERS]


@pytest.mark.slow
def test_a_wheel_installs_elsewhere_and_imports_every_module(tmp_path: Path) -> None:
    for file in ("pyproject.toml", "README.md", "LICENSE", *ROOT.glob("requirements*.txt")):
        shutil.copy(ROOT / file, tmp_path)
    shutil.copytree(PACKAGE, tmp_path / "retinanet")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(tmp_path)], check=True, cwd=tmp_path)
    shutil.rmtree(tmp_path / "retinanet")
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    modules = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for file in PACKAGE.rglob("*.py")
    ]
    lines = [f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})"]
    lines += [f"import {module}" for module in modules]
    lines += [f"assert retinanet.__file__.startswith({str(tmp_path)!r})"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def versions(file: str, relation: str) -> dict[str, str]:
    """The packages of a requirements file that have a version: `name>=1.2` gives name, 1.2."""
    lines = (ROOT / file).read_text().splitlines()
    return dict(line.split(relation) for line in lines if relation in line)


def test_the_lowest_versions_are_those_that_are_promised() -> None:
    promised = {}
    for kind in ("", "-export", "-fast", "-video", "-test"):
        promised |= versions(f"requirements{kind}.txt", ">=")
    untested = {"mypy", "pandas-stubs", "ruff"}  # they read the code, none of them runs it
    lowest = versions("requirements-lowest.txt", "==")
    assert lowest == {
        package: version for package, version in promised.items() if package not in untested
    }


def test_a_package_has_one_bound_in_all_requirements_files() -> None:
    test = versions("requirements-test.txt", ">=")
    for kind in ("-export", "-fast", "-video"):
        named = versions(f"requirements{kind}.txt", ">=")
        assert named == {package: test[package] for package in named}
