"""A training as a job of a Slurm cluster, submitted through submitit; it goes on by itself after preemption.

What stands by the training on each node imports no torch: it is there within a second, and small.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from selfsight import config
from selfsight.config import Settings
from selfsight.errors import ConfigError, InputError, TrainingError
from selfsight.runs import RunFolder

_WRITING = 600
"""Seconds that ranks have to write a checkpoint after SIGTERM, where Slurm gives them as many."""
_LEFT_TO_THE_FIRST = 120


class Cluster(Settings):
    """What is asked of the cluster: `nodes` with so many `gpus` each, and a rank for each GPU if `ranks` does not say otherwise.

    `cpus` and `memory` (GB) are those of a node. `grace` seconds before `hours` are over, or when it is preempted, a job is told
    to write a checkpoint, and is then put in the queue again. With `cluster: local` the job runs on this machine.
    """

    cluster: Literal["slurm", "local"] = "slurm"
    nodes: int = Field(1, ge=1)
    gpus: int = Field(0, ge=0)
    ranks: int | None = Field(None, ge=1)
    cpus: int | None = Field(None, ge=1)
    memory: float | None = Field(None, gt=0)
    hours: float = Field(24.0, gt=0)
    grace: int = Field(120, ge=1)
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None

    @classmethod
    def of(cls, text: str) -> Cluster:
        """From `partition=gpu,nodes=2,gpus=8,hours=24`. `ConfigError` names what is wrong."""
        try:
            return config.build(cls, config.parse_overrides([part.strip() for part in text.split(",")]), "--slurm")
        except ConfigError as error:
            raise ConfigError(str(error).replace("--set", "--slurm").replace("views.local_count=4", "nodes=2")) from None

    @property
    def parameters(self) -> dict[str, Any]:
        """In submitit's words. One task a node: torchrun starts the ranks there."""
        asked: dict[str, Any] = {
            "nodes": self.nodes,
            "tasks_per_node": 1,
            "timeout_min": max(1, round(60 * self.hours)),
            "gpus_per_node": self.gpus,
        }
        asked |= {"cpus_per_task": self.cpus, "mem_gb": self.memory, "slurm_signal_delay_s": self.grace}
        asked |= {f"slurm_{name}": getattr(self, name) for name in ("partition", "account", "qos", "constraint")}
        return {name: value for name, value in asked.items() if value is not None}


class Job:
    """What runs on each node: `torchrun` with the words of `selfsight train`, or to go on where the run has begun.

    submitit calls `checkpoint` on the first node when the job has to go, and puts it in the queue again.
    """

    def __init__(self, words: Sequence[str], out: Path, nodes: int, ranks: int) -> None:
        self.words, self.out, self.nodes, self.ranks = list(words), out, nodes, ranks
        self.folder = Path.cwd()
        self.process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> None:
        from submitit import JobEnvironment

        self.process = subprocess.Popen(self.command(), cwd=self.folder)
        code = self._end()
        if code and JobEnvironment().node:
            time.sleep(_LEFT_TO_THE_FIRST)  # it may be about to put the job in the queue again, which ends this one
        if code:
            raise TrainingError(f"{self.out}: the training ended with exit code {code}; why stands in the log of this job")

    def checkpoint(self) -> Any:
        """Have the ranks write a checkpoint (a signal to one of them is one to all); what is to run when the job is back."""
        from submitit.helpers import DelayedSubmission

        if self.process is not None:
            self.process.terminate()
            self._end()
            self.process = None
        return DelayedSubmission(self)

    def command(self) -> list[str]:
        """The command line of this node."""
        start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(self.ranks), *self._meeting()]
        return [*start, "-m", "selfsight", *(self.resumed() if RunFolder(self.folder / self.out).exists else self.words)]

    def resumed(self) -> list[str]:
        """What may be said of a run that goes on: all else is in its config.yaml."""
        words, kept = self.words, ["train", "--out", str(self.out), "--resume"]
        for place, word in enumerate(words):
            if word == "--strict" or word.startswith(("--strategy=", "--max-bad=")):
                kept.append(word)
            elif word in ("--strategy", "--max-bad"):
                kept += words[place : place + 2]
        return kept

    def _meeting(self) -> list[str]:
        """Where the nodes find each other."""
        from submitit.helpers import TorchDistributedEnvironment

        os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(_WRITING))
        if self.nodes == 1:
            return ["--standalone"]
        first = TorchDistributedEnvironment()
        endpoint = f"{first.master_addr}:{first.master_port}"
        job = os.environ.get("SLURM_JOB_ID", "selfsight")
        return ["--nnodes", str(self.nodes), "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", job]

    def _end(self) -> int:
        """The exit code of the process. `Popen.wait` takes a lock, which the handler of a signal would find taken."""
        assert self.process is not None
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        return self.process.wait()


def submit(words: Sequence[str], out: str | Path, cluster: str, *, resume: bool = False) -> Any:
    """Put `selfsight WORDS`, a training that leaves the run `out`, in the queue of a `cluster` (see `Cluster.of`).

    Returns submitit's job; its logs lie in the folder `slurm` of the run. `ConfigError` without submitit or Slurm.
    """
    asked, folder = Cluster.of(cluster), RunFolder(out)
    try:
        import submitit
    except ImportError:
        raise ConfigError("--slurm: needs submitit; pip install 'selfsight[slurm]'") from None
    if folder.exists and not resume:
        raise InputError(f"{out}: holds a run already; go on with it by --resume, or give another --out")
    again = {f"{asked.cluster}_max_num_timeout": 1_000_000}  # until the budget of the training is spent
    try:
        executor = submitit.AutoExecutor(folder=str(folder.path / "slurm"), cluster=asked.cluster, **again)
    except RuntimeError as error:
        raise ConfigError(f"--slurm: {error} Submit from a machine that has sbatch, or try it here with cluster=local") from None
    executor.update_parameters(name=folder.path.name, **asked.parameters)
    return executor.submit(Job(words, Path(out), asked.nodes, asked.ranks or max(1, asked.gpus)))
