"""A training as a job: submitted, preempted by the signal that Slurm sends, put in the queue again, and gone on with."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import pictures
import small_training
from selfsight import api
from selfsight.cluster import Cluster, Job
from selfsight.errors import ConfigError, InputError
from selfsight.runs import RunFolder, read_jsonl

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures.folder(tmp_path_factory.mktemp("photos") / "photos", 16, labelled=False)


def losses(out: Path) -> list[float]:
    return [row["loss"] for row in read_jsonl(out / "metrics.jsonl") if "loss" in row]


def reach(job: Any, out: Path, rows: int) -> None:
    end = time.monotonic() + 90
    while len(losses(out)) < rows:
        assert not job.done(), job.stderr()
        assert time.monotonic() < end, "the training did not get there in a minute and a half"
        time.sleep(0.05)


@pytest.mark.timeout(600)
def test_a_preempted_job_writes_a_checkpoint_comes_back_and_ends_as_if_nothing_had_been(photos: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    small_training.train(photos, whole, epochs=30)
    job = api.submit([*small_training.words(photos, out, 30), "--max-bad", "1"], out, "cluster=local, ranks=2, hours=0.1")
    reach(job, out, 10)
    # Slurm signals the processes of submitit, one a node; here that is the child of the one that stands for Slurm.
    psutil.Process(int(job.job_id)).children()[0].send_signal(signal.SIGUSR2)
    job.wait()
    assert job.exception() is None
    assert job.stderr().count("stopped by SIGTERM at step") == 1
    assert "Requeued job" in job.stderr() + job.stdout()
    assert "done: " in job.stdout()
    assert RunFolder(out).teacher.is_file()
    assert losses(out) == pytest.approx(losses(whole), abs=1e-4)


@pytest.mark.timeout(300)
def test_a_training_that_fails_is_a_job_that_fails(tmp_path: Path) -> None:
    job = api.submit(["train", str(tmp_path / "nothing"), "--out", str(tmp_path / "run")], tmp_path / "run", "cluster=local")
    job.wait()
    assert "the training ended with exit code" in str(job.exception())
    assert "nothing" in job.stderr()


def test_what_is_asked_of_the_cluster_is_what_slurm_is_asked_for() -> None:
    asked = Cluster.of("partition=gpu, nodes=2,gpus=8,hours=24,cpus=96,memory=500,account=vision")
    assert asked.parameters == {
        "nodes": 2,
        "tasks_per_node": 1,
        "timeout_min": 1440,
        "gpus_per_node": 8,
        "cpus_per_task": 96,
        "mem_gb": 500,
        "slurm_signal_delay_s": 120,
        "slurm_partition": "gpu",
        "slurm_account": "vision",
    }


def test_the_batch_file_asks_for_a_task_a_node_and_a_signal_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "srun").touch(0o755)
    (programs / "sbatch").write_text(f'#!/bin/sh\ncp "$1" {tmp_path}/batch\necho Submitted batch job 17\n')
    (programs / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    job = api.submit(["train", "photos", "--out", "run"], tmp_path / "run", "partition=gpu,nodes=2,gpus=8,hours=24")
    assert job.job_id == "17"
    asked = (tmp_path / "batch").read_text().splitlines()
    for line in ("nodes=2", "ntasks-per-node=1", "gpus-per-node=8", "time=1440", "partition=gpu", "signal=USR2@120"):
        assert f"#SBATCH --{line}" in asked


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("node=2", "Did you mean 'nodes'"),
        ("nodes", "--slurm 'nodes': expected key=value, for example --slurm nodes=2"),
        ("nodes=0", "nodes"),
        ("hours=-1", "hours"),
    ],
)
def test_a_slip_in_what_is_asked_for_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--slurm") as slip:
        api.submit([], tmp_path / "run", text)
    assert said in str(slip.value)
    assert "\n" not in str(slip.value)


def test_without_slurm_or_over_a_run_nothing_is_submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"^--slurm: .*srun.*cluster=local"):
        api.submit(["train", "photos"], tmp_path / "run", "gpus=8")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.yaml").touch()
    with pytest.raises(InputError, match="holds a run already"):
        api.submit(["train", "photos"], tmp_path / "old", "cluster=local")


def test_a_job_that_comes_back_keeps_of_its_words_what_a_resume_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", "photos", "--out", "run", "--epochs", "9", "--strategy", "fsdp", "--max-bad=1", "--strict"]
    job = Job(words, Path("run"), 1, 4)
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "4", "--standalone", "-m", "selfsight"]
    assert job.command() == [*start, *words]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    kept = ["train", "--out", "run", "--resume", "--strategy", "fsdp", "--max-bad=1", "--strict"]
    assert job.command() == [*start, *kept]
