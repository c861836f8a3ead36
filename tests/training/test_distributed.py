"""Several real processes: the same steps, scores and files as one."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from retinanet.data.shapes import SampleData, write_shapes
from retinanet.weights.checkpoint import load_checkpoint
from tests.support.helpers import csv_run_flags
from tests.support.paths import ROOT

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def torchrun(processes: int, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *(f"--nproc_per_node={processes}", *more),
    ]


def run(command: list[str], *, check: bool = True) -> "subprocess.CompletedProcess[str]":
    result = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
        timeout=300,
    )
    assert not check or result.returncode == 0, result.stderr[-3000:]
    return result


def started(command: list[str], *, until: str) -> "subprocess.Popen[str]":
    """A process that goes on, when a line of its stdout has begun so."""
    process = subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=ENVIRONMENT,
    )
    assert process.stdout
    assert any(line.startswith(until) for line in process.stdout)
    return process


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SampleData:
    # 7 images of both orientations: joint batches of 6 leave one for the last step.
    return write_shapes(
        tmp_path_factory.mktemp("data") / "shapes", train_images=7, val_images=5, seed=2
    )


def flags(sample: SampleData, folder: Path, *more: str) -> list[str]:
    return csv_run_flags(sample, folder, "--epochs", "2", "--lr", "1e-4", *more)


@pytest.mark.parametrize(
    ("processes", "joint_size", "empty"),
    [
        (2, 4, ""),  # shares 2+2, then 2+1
        (2, 6, ""),  # shares 3+3, then 1+0: a process without images
        (3, 6, ""),  # shares 2+2+2, then 1+0+0
        (2, 4, "empty"),  # no image has a box
    ],
)
def test_joint_step_is_the_step_of_one_process(
    sample: SampleData, tmp_path: Path, processes: int, joint_size: int, empty: str
) -> None:
    script = str(ROOT / "tests" / "support" / "distributed_steps.py")
    arguments = [str(sample.coco_root), str(joint_size)]
    run([sys.executable, script, *arguments, str(tmp_path / "one.pt"), empty])
    run([*torchrun(processes), script, *arguments, str(tmp_path / "many.pt"), empty])
    one, many = (torch.load(tmp_path / f"{name}.pt") for name in ("one", "many"))
    assert len(one) == len(many) == 2
    for expected, found in zip(one, many, strict=True):
        assert torch.allclose(found["losses"], expected["losses"], rtol=1e-6)
        scale = expected["gradient"].abs().max()
        assert (found["gradient"] - expected["gradient"]).abs().max() < 1e-6 * scale
        assert scale > 0


@pytest.fixture(scope="module")
def alone(sample: SampleData, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of one process with the joint batch."""
    folder = tmp_path_factory.mktemp("alone")
    command = [sys.executable, ROOT / "train.py", *flags(sample, folder, "--batch_size", "4")]
    return folder, run(command).stdout


@pytest.fixture(scope="module")
def pair(sample: SampleData, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The same run by two processes."""
    folder = tmp_path_factory.mktemp("pair")
    command = [*torchrun(2), ROOT / "train.py", *flags(sample, folder, "--batch_size", "2")]
    return folder, run(command).stdout


def test_files_and_lines_of_one(alone: tuple[Path, str], pair: tuple[Path, str]) -> None:
    assert sorted(os.listdir(alone[0])) == sorted(os.listdir(pair[0]))
    lines = [
        [line.split(" | lr: ")[0] for line in said.splitlines() if line.startswith("Epoch: ")]
        for said in (alone[1], pair[1])
    ]
    assert len(lines[0]) == len(lines[1]) == 4
    for one, other in zip(*lines, strict=True):
        numbers = [[float(n) for n in re.findall(r"\d+\.\d+", line)] for line in (one, other)]
        assert numbers[1] == pytest.approx(numbers[0], rel=2e-3)
    assert pair[1].count("Training data: ") == 1


def test_trained_batch_norm_of_two_processes(sample: SampleData, tmp_path: Path) -> None:
    """Seven images by three and three: one process has none in the last step."""
    more = ["--batch_size", "3", "--batch_norm", "trained"]
    script = ROOT / "tests" / "support" / "distributed_norm.py"
    run([*torchrun(2), script, tmp_path, *flags(sample, tmp_path / "run", *more)])
    weights = load_checkpoint(tmp_path / "run" / "model_final.pt").weights
    assert weights["bn1.num_batches_tracked"] == 2 * 2
    # Both processes evaluate with the statistics that are saved.
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert "layer4.1.bn2.running_var" in one
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
        assert name not in weights or torch.equal(value, weights[name]), name
        assert value.isfinite().all()


def test_two_processes_keep_the_layers_that_are_not_to_learn(
    sample: SampleData, alone: tuple[Path, str], tmp_path: Path
) -> None:
    """Seven images by three and three: one process has none in the last step."""
    start = alone[0] / "model_final.pt"
    more = ["--weights", start, "--trainable_layers", "3", "--batch_size", "3", "--epochs", "1"]
    run([*torchrun(2), ROOT / "train.py", *flags(sample, tmp_path, *map(str, more))])
    before, after = (load_checkpoint(file).weights for file in (start, tmp_path / "model_final.pt"))
    learn = [name for name in before if name.endswith(("weight", "bias"))]
    kept = {name for name in learn if torch.equal(before[name], after[name])}
    assert kept == {name for name in learn if name.startswith(("conv1", "bn1", "layer1"))}


def test_validation_by_two_processes_equals_one(
    sample: SampleData, alone: tuple[Path, str]
) -> None:
    command = [ROOT / "validate.py", alone[0] / "model_final.pt", "--csv_val", sample.csv_val]
    command += ["--workers", "0"]
    one = run([sys.executable, *command]).stdout
    two = run([*torchrun(2), *command]).stdout
    assert one == two


def test_killed_worker_resumes_by_itself(
    sample: SampleData, pair: tuple[Path, str], tmp_path: Path
) -> None:
    command = [*torchrun(2, "--max_restarts=2"), ROOT / "train.py"]
    command += [*flags(sample, tmp_path, "--save_every_minutes", "0.0001")]
    process = started(command, until="Epoch: 0 | Iteration: 0")
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    )
    os.kill(int(children.stdout.split()[1]), signal.SIGKILL)
    rest = process.communicate(timeout=300)[0]
    assert process.returncode == 0
    assert "Resumed " in rest
    found, expected = (load_checkpoint(f / "model_final.pt").weights for f in (tmp_path, pair[0]))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_sigterm_to_torchrun_leaves_a_state_to_resume(
    sample: SampleData, pair: tuple[Path, str], tmp_path: Path
) -> None:
    command = [*torchrun(2), ROOT / "train.py", *flags(sample, tmp_path)]
    process = started([*command, "--epochs", "1000"], until="Epoch: 0 | Iteration: 1")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode != 0
    run([*command, "--resume"])
    found, expected = (load_checkpoint(f / "model_final.pt").weights for f in (tmp_path, pair[0]))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_error_of_one_process_stops_all_with_its_message(
    sample: SampleData, tmp_path: Path
) -> None:
    image = tmp_path / "cut.jpg"
    whole = (sample.coco_root / "images/train2017/0001.jpg").read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    rows = tmp_path / "train.csv"
    text = sample.csv_train.read_text().replace("images/", f"{sample.coco_root}/images/")
    rows.write_text(text + f"{image},1,1,50,50,ring\n")
    command = [*torchrun(2), ROOT / "train.py", *flags(sample, tmp_path / "out")]
    started = time.monotonic()
    result = run([*command, "--csv_train", str(rows)], check=False)
    assert result.returncode != 0
    assert time.monotonic() - started < 120
    assert "cut.jpg" in result.stderr


@pytest.mark.slow
def test_two_machines(sample: SampleData, alone: tuple[Path, str], tmp_path: Path) -> None:
    """Two agents of torchrun that meet on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    agents = []
    for node in range(2):
        command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2"]
        command += [f"--node_rank={node}", "--nproc_per_node=1", "--master_addr=127.0.0.1"]
        command += [f"--master_port={port}", ROOT / "train.py", *flags(sample, tmp_path)]
        agents.append(
            subprocess.Popen(
                [str(word) for word in command],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env=ENVIRONMENT,
            )
        )
    for agent in agents:
        _, errors = agent.communicate(timeout=300)
        assert agent.returncode == 0, errors[-2000:]
    assert sorted(os.listdir(tmp_path)) == sorted(os.listdir(alone[0]))
    found, expected = (load_checkpoint(f / "model_final.pt").weights for f in (tmp_path, alone[0]))
    for name in ("conv1.weight", "classificationModel.output.bias"):
        assert torch.allclose(found[name].float(), expected[name].float(), atol=1e-3)
