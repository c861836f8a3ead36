"""A module imports modules of lower levels only, at its top, and says nothing when imported."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "retinanet"

# From the bottom up; a package (tools) stands for all its modules.
LEVELS = [
    "errors",
    "boxes anchors backbone files images annotations runtime visualization curves page"
    " numpy_pickle optim",
    "csv_annotations coco_annotations image_checks box_checks transforms losses postprocess"
    " logger history sources",
    "dataloader model flags matching charts",
    "foreign",
    "checkpoint inference mistakes",
    "engine run_folder coco_eval csv_eval sample_data detector start",
    "data_check findings evaluation predictions cli",
    "report utils tools",
    "train validate visualize",
    "csv_validation",
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names.split()}


def module_name(file: Path) -> str:
    """`retinanet/a.py` and `retinanet/a/b.py` give a; `train.py` gives train."""
    if file.is_relative_to(PACKAGE):
        return file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return file.stem


FILES = sorted([*PACKAGE.rglob("*.py"), *ROOT.glob("*.py")])
MODULES = [file for file in FILES if file.name != "__init__.py"]
NAMES = {module_name(file) for file in MODULES}


def project_imports(node: ast.AST) -> set[str]:
    """Modules of this project that one import statement names."""
    if isinstance(node, ast.Import):
        paths = [alias.name.split(".") for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "a relative import"
        paths = [[*str(node.module).split("."), alias.name] for alias in node.names]
    else:
        return set()
    scripts = {path[0] for path in paths if path[0] in NAMES and (ROOT / f"{path[0]}.py").exists()}
    return scripts | {path[1] for path in paths if path[0] == "retinanet" and path[1] in NAMES}


def broken_rules(name: str, source: str) -> list[str]:
    """What is wrong with the imports of a module, a sentence each."""
    tree = ast.parse(source)
    found = []
    for node in ast.walk(tree):
        for other in sorted(project_imports(node)):
            if node not in tree.body:
                found.append(f"{name} imports {other} inside a function or a block")
            if other == "utils":
                found.append(f"{name} imports utils, which is for the original's scripts only")
            elif LEVEL[other] >= LEVEL[name] and other != name:
                found.append(f"{name} imports {other}, which is not of a lower level")
    return found


def test_the_rules_are_seen_when_broken():
    assert broken_rules("model", "import math\nfrom retinanet.losses import FocalLoss") == []
    for source, complaint in {
        "from retinanet.model import RetinaNet": "losses imports model, which is not of a lower",
        "from retinanet import boxes, postprocess": "losses imports postprocess, which is not",
        "import retinanet.model as models": "losses imports model, which is not",
        "def f():\n    from retinanet.boxes import pairwise_iou": "losses imports boxes inside a",
        "import train": "losses imports train, which is not",
        "from retinanet.utils import ClipBoxes": "losses imports utils",
    }.items():
        assert [text.startswith(complaint) for text in broken_rules("losses", source)] == [True]


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_module_imports_lower_levels_only(file):
    name = module_name(file)
    assert name in LEVEL, f"{name} has no level: give it one in LEVELS"
    assert broken_rules(name, file.read_text(encoding="utf-8")) == []


def test_the_package_itself_imports_nothing():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    assert not any(isinstance(node, ast.Import | ast.ImportFrom) for node in tree.body)


def test_importing_says_nothing_writes_nothing_and_starts_no_gpu(tmp_path):
    modules = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in MODULES]
    lines = [f"import sys; sys.path.insert(0, {str(ROOT)!r})"]
    lines += [f"import {name}" for name in modules if not name.endswith("__main__")]
    lines += ["import torch; assert not torch.cuda.is_initialized()"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
