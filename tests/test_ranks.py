"""Several ranks are one: the same losses, gradients and decisions, started by torchrun as a user would."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

import pictures
from objective_cases import CASES
from ranks_program import everything
from selfsight import api, config
from selfsight.runs import RunFolder, read_jsonl
from selfsight.ssl import checkpoint, sharded_checkpoint
from selfsight.ssl.world import BY_ITSELF
from test_documents import ROOT, blocks, quick
from test_training import BACKBONE, SMALL

TESTS = Path(__file__).parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
EPOCHS = 10


def environment() -> dict[str, str]:
    paths = [str(TESTS), *sys.path]
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the program finds on one rank, in this process, and on two."""
    path = tmp_path_factory.mktemp("ranks") / "found.json"
    command = [*TORCHRUN, str(TESTS / "ranks_program.py"), str(path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    return everything(BY_ITSELF), json.loads(path.read_text())


@pytest.mark.parametrize("how", ["curves", "divided"])
@pytest.mark.parametrize("name", [*sorted(CASES), "late gram teacher"])
def test_two_ranks_give_the_losses_of_one_on_the_same_batches(
    found: tuple[dict[str, Any], dict[str, Any]], name: str, how: str
) -> None:
    one, two = (each[how][name] for each in found)
    assert len(one) == 20
    assert two == pytest.approx(one, abs=1e-4)
    assert max(one) - min(one) > 1e-2


@pytest.mark.parametrize("how", ["parts", "parts divided"])
def test_batches_in_parts_give_the_same_on_two_ranks(found: tuple[dict[str, Any], dict[str, Any]], how: str) -> None:
    assert found[1][how] == pytest.approx(found[0][how], abs=1e-4)


def test_divided_blocks_are_computed_again_in_the_backward_pass(found: tuple[dict[str, Any], dict[str, Any]]) -> None:
    assert found[1]["again divided"] == pytest.approx(found[0]["curves"]["dino"], abs=1e-4)


def test_divided_blocks_in_half_precision_train_as_whole_ones(found: tuple[dict[str, Any], dict[str, Any]]) -> None:
    whole, divided = found[1]["half"], found[1]["half divided"]
    # Halves have three digits. What they round is carried on by each step, on some processors by more than on others.
    assert divided[:10] == pytest.approx(whole[:10], abs=0.01)
    assert fmean(divided[10:]) == pytest.approx(fmean(whole[10:]), abs=0.02)
    assert divided != whole
    assert whole != found[1]["curves"]["dino"]


def test_the_gradient_through_gathered_rows_is_that_of_the_whole_batch(found: tuple[dict[str, Any], dict[str, Any]]) -> None:
    one, two = (each["reductions"] for each in found)
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-12)
    torch.testing.assert_close(torch.tensor(two["gradient"]), torch.tensor(one["gradient"]))


def test_sums_over_ranks_normalise_as_on_one(found: tuple[dict[str, Any], dict[str, Any]]) -> None:
    one, two = (each["reductions"] for each in found)
    torch.testing.assert_close(torch.tensor(two["shares"]), torch.tensor(one["shares"]))


def test_ranks_agree(found: tuple[dict[str, Any], dict[str, Any]]) -> None:
    two = found[1]["reductions"]
    assert two["mean"] == [2.0, 1.0]
    assert two["highest"] == [4.0, 0.0]
    assert two["said"] == 10.0
    assert two["first"] == "rank 0"


# --- whole runs -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures.folder(tmp_path_factory.mktemp("photos") / "photos", 24, classes=2)


def words(data: Path, out: Path, epochs: float = EPOCHS, over: Mapping[str, Any] | None = None) -> list[str]:
    tree = config.merge(SMALL, over or {})
    pairs = [f"{a}.{b}={v}" for a, inner in tree.items() if isinstance(inner, dict) for b, v in inner.items()]
    pairs += [f"{key}={value}" for key, value in tree.items() if not isinstance(value, dict)]
    sets = [word for pair in pairs for word in ("--set", pair)]
    return ["train", str(data), "--out", str(out), "--backbone", BACKBONE, "--epochs", str(epochs), "--device", "cpu", *sets]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    command = [*TORCHRUN, "-m", "selfsight", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    told, error = process.communicate(timeout=100)
    return process.returncode, told, error


def reach(process: subprocess.Popen[str], out: Path, rows: int) -> None:
    end = time.monotonic() + 90
    while len(read_jsonl(out / "metrics.jsonl")) < rows:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "the training did not get there in a minute and a half"
        time.sleep(0.01)


def losses(out: Path) -> list[float]:
    rows = [row for row in read_jsonl(out / "metrics.jsonl") if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return [row["loss"] for row in rows]


def values(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a checkpoint, whether it is a file or a folder of parts."""
    if path.is_file():
        return load_file(path)
    into = {name: torch.zeros(size) for name, size in sharded_checkpoint.sizes(path).items()}
    sharded_checkpoint.load(path, into)
    return into


def same(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name].reshape(-1).float(), b[name].reshape(-1).float(), rtol=1e-3, atol=1e-4, msg=name)


def test_a_divided_run_leaves_the_state_of_a_whole_one_and_each_takes_up_the_others(photos: Path, tmp_path: Path) -> None:
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    over = {"save_every_minutes": 1e-9, "backbone": {"registers": 3}}
    whole = on_one(photos, one.path, 4, **over)
    code, _, error = finish(start([*words(photos, two.path, 4, over), "--strategy", "fsdp"]))
    assert code == 0, error
    assert losses(two.path) == pytest.approx(whole, abs=1e-4)
    assert two.checkpoints == [two.sharded, two.sharded_previous]
    assert len(list(two.sharded.glob("*.safetensors"))) == 2
    for ours, theirs in ((one.checkpoint, two.sharded), (one.previous, two.sharded_previous), (one.teacher, two.teacher)):
        same(values(ours), values(theirs))


class Stops(api.Silent):
    """A power cut after a step, and what was said before."""

    def __init__(self, step: int) -> None:
        self.step, self.said = step, list[str]()

    def on_step(self, row: Mapping[str, Any], progress: float) -> None:
        if row["step"] == self.step:
            raise RuntimeError("power cut")

    def say(self, text: str) -> None:
        self.said.append(text)


def test_a_divided_run_goes_on_from_and_to_any_number_of_ranks_whatever_ends_it(photos: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    over = {"save_every_minutes": 1e-9}
    whole = on_one(photos, tmp_path / "whole", 40)
    with pytest.raises(RuntimeError, match="power cut"):
        on_one(photos, run.path, 40, watch=Stops(9), **over)

    one_to_two = start(["train", "--out", str(run.path), "--resume", "--strategy", "fsdp"])
    reach(one_to_two, run.path, 20)
    one_to_two.send_signal(signal.SIGTERM)
    _, _told, error = finish(one_to_two)
    assert error.count("selfsight: stopped by SIGTERM at step") == 1
    assert run.checkpoints == [run.sharded, run.sharded_previous]

    part = sorted(run.sharded.glob("*.safetensors"))[1]
    content = bytearray(part.read_bytes())
    content[-3] ^= 1
    part.write_bytes(content)
    two_to_one = Stops(checkpoint.step_of(run.sharded) + 5)
    with pytest.raises(RuntimeError, match="power cut"):
        api.resume(run.path, watch=two_to_one)
    assert re.fullmatch(
        rf"warning: .*{part.name} does not have the checksum .*from the one before it, previous of step \d+", *two_to_one.said
    )

    killed = start(["train", "--out", str(run.path), "--resume", "--strategy", "fsdp"])
    reach(killed, run.path, two_to_one.step + 10)
    next(child for child in psutil.Process(killed.pid).children() if child.environ().get("RANK") == "1").kill()
    code, _, error = finish(killed)
    assert code == 1
    assert "another rank is gone" in error
    assert 0 < len(losses(run.path)) < 120

    code, _, error = finish(start(["train", "--out", str(run.path), "--resume", "--strategy", "ddp"]))
    assert code == 0, error
    assert losses(run.path) == pytest.approx(whole, abs=1e-4)
    assert run.checkpoints == [run.checkpoint, run.previous]
    assert not list(run.checkpoint.parent.glob(".*"))


def on_one(photos: Path, out: Path, epochs: float, watch: api.Silent | None = None, **over: Any) -> list[float]:
    api.train(photos, out, backbone=BACKBONE, epochs=epochs, device="cpu", set=config.merge(SMALL, over), watch=watch)
    return losses(out)


def test_a_run_stopped_on_two_ranks_goes_on_on_one_and_one_stopped_on_one_goes_on_on_two(photos: Path, tmp_path: Path) -> None:
    whole = on_one(photos, tmp_path / "whole", 60)
    out = tmp_path / "run"
    process = start(words(photos, out, 60))
    reach(process, out, 12)
    process.send_signal(signal.SIGTERM)
    code, told, error = finish(process)
    assert code != 0
    assert error.count("selfsight: stopped by SIGTERM at step") == 1
    assert (out / "checkpoint").is_dir()
    before = len(losses(out))
    assert 0 < before < 180
    torch.set_num_threads(1)
    assert api.resume(out)["step"] == 180
    assert losses(out) == pytest.approx(whole, abs=1e-4)

    half = tmp_path / "half"
    over = config.merge(SMALL, {"save_every_minutes": 1e-9})
    with pytest.raises(RuntimeError, match="power cut"):
        api.train(photos, half, backbone=BACKBONE, epochs=EPOCHS, device="cpu", set=over, watch=Stops(21))
    code, told, error = finish(start(["train", str(photos), "--out", str(half), "--resume"]))
    assert code == 0, error
    assert told.count("done: ") == 1
    assert losses(half) == pytest.approx(on_one(photos, tmp_path / "short", EPOCHS), abs=1e-4)


def test_a_rank_that_is_killed_ends_all_with_one_line_and_the_run_goes_on(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(words(photos, out, 60, {"save_every_minutes": 1e-9}))
    reach(process, out, 20)
    ranks = [child for child in psutil.Process(process.pid).children() if child.environ().get("RANK") == "1"]
    ranks[0].kill()
    code, _, error = finish(process)
    assert code == 1
    assert error.count("selfsight: ") == 1
    assert "another rank is gone" in error
    before = len(losses(out))
    assert 0 < before < 180
    code, _, error = finish(start(["train", str(photos), "--out", str(out), "--resume"]))
    assert code == 0, error
    assert len(losses(out)) == 180


def test_an_image_that_one_rank_cannot_read_leaves_the_others_of_its_batch(tmp_path: Path) -> None:
    data = pictures.folder(tmp_path / "data", 24, labelled=False)
    sorted(data.iterdir())[2].write_bytes(b"no picture")
    one = on_one(data, tmp_path / "one", 4, tolerance={"max_bad": 0.2}, objective={"center_momentum": 1.0})
    over = {"tolerance": {"max_bad": 0.2}, "objective": {"center_momentum": 1.0}}
    code, told, error = finish(start(words(data, tmp_path / "two", 4, over)))
    assert code == 0, error
    assert "1 file skipped" in told
    assert [row["key"] for row in read_jsonl(tmp_path / "two" / "bad_images.jsonl")] == ["0002.png"]
    assert losses(tmp_path / "two") == pytest.approx(one, abs=1e-4)


def test_a_batch_that_cannot_be_dealt_out_is_one_line(photos: Path, tmp_path: Path) -> None:
    code, _, error = finish(start(words(photos, tmp_path / "run", 1, {"batch_size": 7})))
    assert code == 1
    line = "selfsight: batch_size: is that of all ranks together and must be divisible by their number, 2. Got 7; 6 or 8 would be"
    assert error.count(line) == 1
    assert "Traceback (most recent call last):\n  File" not in error.split(line)[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.timeout(900)
def test_each_command_of_the_guide_to_many_devices_runs(tmp_path: Path, environment_of: dict[str, str]) -> None:
    pictures.folder(tmp_path / "photos", 40, labelled=False)
    lines = [
        line for block in blocks("bash", (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")) for line in block.splitlines()
    ]
    assert lines
    for line in lines:
        words = shlex.split(quick(line))
        done = subprocess.run(words, cwd=tmp_path, env=environment_of, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
