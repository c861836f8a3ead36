"""Several processes: the same steps, scores and files as one."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import train
import validate
import visualize
from retinanet.data.shapes import SampleData, write_shapes
from retinanet.training.run_folder import RunFolder
from retinanet.training.trainer import Training
from retinanet.weights.checkpoint import load_checkpoint
from tests.support import distributed_steps
from tests.support.helpers import csv_run_flags
from tests.support.narrow import narrow_network
from tests.support.paths import ROOT
from tests.support.processes import READY, Forked, peers, waiting_for_signals

pytestmark = pytest.mark.usefixtures("narrow")


def said_by(processes: list[Forked]) -> str:
    """The stdout of processes that must end well."""
    ends = [process.end() for process in processes]
    for code, _, errors in ends:
        assert code == 0, errors[-3000:]
    return "".join(said for _, said, _ in ends)


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
    arguments = [sample.coco_root, joint_size]
    said_by(peers(1, distributed_steps.main, [*arguments, tmp_path / "one.pt", empty]))
    said_by(peers(processes, distributed_steps.main, [*arguments, tmp_path / "many.pt", empty]))
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
    return folder, said_by(peers(1, train.main, flags(sample, folder, "--batch_size", "4")))


@pytest.fixture(scope="module")
def pair(sample: SampleData, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The same run by two processes."""
    folder = tmp_path_factory.mktemp("pair")
    return folder, said_by(peers(2, train.main, flags(sample, folder)))


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

    def train_and_save_buffers(words: Sequence[str]) -> int:
        """Each process saves its model's buffers after every epoch."""
        train_epoch = Training.train_epoch

        def train_epoch_and_save(self: Training, *arguments: Any, **more: Any) -> None:
            train_epoch(self, *arguments, **more)
            torch.save(dict(self.model.named_buffers()), tmp_path / f"{os.environ['RANK']}.pt")

        Training.train_epoch = train_epoch_and_save  # type: ignore[method-assign]
        return train.main(words)

    more = ["--batch_size", "3", "--batch_norm", "trained"]
    said_by(peers(2, train_and_save_buffers, flags(sample, tmp_path / "run", *more)))
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
    said_by(peers(2, train.main, [*flags(sample, tmp_path), *more]))
    before, after = (load_checkpoint(file).weights for file in (start, tmp_path / "model_final.pt"))
    learn = [name for name in before if name.endswith(("weight", "bias"))]
    kept = {name for name in learn if torch.equal(before[name], after[name])}
    assert kept == {name for name in learn if name.startswith(("conv1", "bn1", "layer1"))}


def test_validation_by_two_processes_equals_one(
    sample: SampleData, alone: tuple[Path, str]
) -> None:
    command = [alone[0] / "model_final.pt", "--csv_val", sample.csv_val, "--workers", "0"]
    one = said_by(peers(1, validate.main, command))
    assert "mAP" in one
    assert said_by(peers(2, validate.main, command)) == one


def test_a_stream_of_pictures_through_two_processes_equals_one(
    alone: tuple[Path, str], tmp_path: Path
) -> None:
    """40 pictures of three shapes: two rounds of exchange, the second one not full."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for k in range(40):
        size = ((60, 40), (40, 60), (50, 50))[k * k % 3]
        Image.effect_noise(size, 10 + 2 * k).convert("RGB").save(photos / f"{k:02}.png")
    files = {}
    for count in (1, 2):
        out = tmp_path / str(count)
        command = [alone[0] / "model_final.pt", "--images", photos, "--output_dir", out]
        command += ["--save", "pictures", "json", "--score_threshold", "0.01", "--batch_size", "2"]
        command += ["--workers", "0"]  # torch's threads do not live on in a fork
        said_by(peers(count, visualize.main, command))
        assert len(list(out.glob("*.jpg"))) == 40
        files[count] = json.loads((out / "predictions.json").read_text())
    assert [Path(record["image"]).name for record in files[2]] == [f"{k:02}.png" for k in range(40)]
    assert sum(len(record["detections"]) for record in files[1]) > 40
    for one, two in zip(files[1], files[2], strict=True):
        assert len(one["detections"]) == len(two["detections"])
        for ours, theirs in zip(one["detections"], two["detections"], strict=True):
            assert ours["class"] == theirs["class"]
            assert ours["score"] == pytest.approx(theirs["score"], abs=1e-3)


def assert_same_weights(folder: Path, other: Path) -> None:
    found, expected = (load_checkpoint(f / "model_final.pt").weights for f in (folder, other))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_killed_process_and_a_restart(
    sample: SampleData, pair: tuple[Path, str], tmp_path: Path
) -> None:
    """The second of two dies after step 1; torchrun, whose restarts are told so, starts both again.

    The first one has saved its state after step 0.
    """

    def killed_after_two_steps(words: Sequence[str]) -> int:
        state_is_due, steps = RunFolder.state_is_due, iter(range(4))

        def die_or_ask(folder: RunFolder) -> bool:
            if next(steps) == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return state_is_due(folder)

        if os.environ["RANK"] == "1":
            RunFolder.state_is_due = die_or_ask  # type: ignore[method-assign]
        return train.main(words)

    command = flags(sample, tmp_path, "--save_every_minutes", "0.0001")
    this = {"TORCHELASTIC_RUN_ID": "this run"}
    ends = [process.end() for process in peers(2, killed_after_two_steps, command, this)]
    assert [code for code, _, _ in ends] == [1, -signal.SIGKILL]
    assert "another process of this run has ended" in ends[0][2]
    restarted = {**this, "TORCHELASTIC_RESTART_COUNT": "1"}
    assert "Resumed " in said_by(peers(2, train.main, command, restarted))
    assert_same_weights(tmp_path, pair[0])


def test_sigterm_to_all_leaves_a_state_to_resume(
    sample: SampleData, pair: tuple[Path, str], tmp_path: Path
) -> None:
    """As torchrun's agent sends it, when it is sent one."""
    command = flags(sample, tmp_path)
    stopped = peers(2, waiting_for_signals(train.main, steps=2), [*command, "--epochs", "1000"])
    for process in stopped:
        process.read_until(READY)
    for process in stopped:
        os.kill(process.pid, signal.SIGTERM)
    assert [process.end()[0] for process in stopped] == [128 + signal.SIGTERM] * 2
    assert "Resumed " in said_by(peers(2, train.main, [*command, "--resume"]))
    assert_same_weights(tmp_path, pair[0])


@pytest.fixture
def broken(sample: SampleData, tmp_path: Path) -> list[str]:
    """Flags of a run of which one process meets an image that is cut."""
    image = tmp_path / "cut.png"
    Image.effect_noise((64, 64), 50).save(image)
    image.write_bytes(image.read_bytes()[:1000])
    rows = tmp_path / "train.csv"
    text = sample.csv_train.read_text().replace("images/", f"{sample.coco_root}/images/")
    rows.write_text(text + f"{image},1,1,50,50,ring\n")
    return flags(sample, tmp_path / "out", "--csv_train", str(rows))


def test_error_of_one_process_ends_all_with_its_message(broken: list[str]) -> None:
    ends = [process.end(seconds=60) for process in peers(2, train.main, broken)]
    assert [code for code, _, _ in ends] == [1, 1]
    assert sum("cut.png: cannot be decoded" in errors for _, _, errors in ends) == 1


# ---- the same by torchrun itself


def torchrun(
    *more: str, script: Sequence[str] = ("-m", "tests.support.narrow", "train.py")
) -> list[str]:
    """The command up to the script's flags."""
    return [sys.executable, "-m", "torch.distributed.run", *more, *script]


def started(command: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_killed_worker_resumes_by_itself(
    sample: SampleData, pair: tuple[Path, str], tmp_path: Path
) -> None:
    """A worker of a real torchrun."""
    command = torchrun("--standalone", "--nproc_per_node=2", "--max_restarts=2")
    process = started([*command, *flags(sample, tmp_path, "--save_every_minutes", "0.0001")])
    assert process.stdout
    assert any(line.startswith("Epoch: 0 | Iteration: 0") for line in process.stdout)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    )
    os.kill(int(children.stdout.split()[1]), signal.SIGKILL)
    said, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    assert "Resumed " in said
    assert_same_weights(tmp_path, pair[0])


@pytest.mark.slow
def test_error_of_one_process_stops_torchrun_with_its_message(broken: list[str]) -> None:
    process = started([*torchrun("--standalone", "--nproc_per_node=2"), *broken])
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "cut.png" in errors


@pytest.mark.slow
def test_sigterm_to_torchrun_leaves_a_state_to_resume(sample: SampleData, tmp_path: Path) -> None:
    """Of a network of full width, which takes its time."""
    start = torchrun("--standalone", "--nproc_per_node=2", script=["train.py"])
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert started([*start, *flags(sample, whole)]).wait(120) == 0
    process = started([*start, *flags(sample, stopped), "--epochs", "1000"])
    assert process.stdout
    assert any(line.startswith("Epoch: 0 | Iteration: 1") for line in process.stdout)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode != 0
    resumed = started([*start, *flags(sample, stopped), "--resume"])
    assert "Resumed " in resumed.communicate(timeout=120)[0]
    with narrow_network(divisor=1):
        assert_same_weights(stopped, whole)


@pytest.mark.slow
def test_two_machines(sample: SampleData, alone: tuple[Path, str], tmp_path: Path) -> None:
    """Two agents of torchrun that meet on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    agents = []
    for node in range(2):
        here = [f"--node_rank={node}", "--nproc_per_node=1", "--nnodes=2"]
        command = torchrun(*here, "--master_addr=127.0.0.1", f"--master_port={port}")
        agents.append(started([*command, *flags(sample, tmp_path)]))
    for agent in agents:
        _, errors = agent.communicate(timeout=300)
        assert agent.returncode == 0, errors[-2000:]
    assert sorted(os.listdir(tmp_path)) == sorted(os.listdir(alone[0]))
    found, expected = (load_checkpoint(f / "model_final.pt").weights for f in (tmp_path, alone[0]))
    for name in ("conv1.weight", "classificationModel.output.bias"):
        assert torch.allclose(found[name].float(), expected[name].float(), atol=1e-3)
