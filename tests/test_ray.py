"""`embed --engine ray` on a cluster of this machine: nothing is lost and nothing is there twice where a worker is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import pictures
from selfsight import api
from selfsight.errors import ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")
SPEC = "random/vit_w32_d1_p8?size=32"
PROGRAM = """
import contextlib, os, signal, sys
import psutil
from selfsight import api
from selfsight.api import filling

filling.PART_BYTES = 1024  # eight rows of a width of 32
killed = []

def commands():
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended in the meantime
            yield process.pid, " ".join(process.cmdline())


class Murderer(api.Silent):
    def advance(self, what, done, total):
        actors = [pid for pid, command in commands() if "MapWorker" in command]
        if not killed and actors:
            killed.append(actors[0])
            os.kill(actors[0], signal.SIGKILL)

if __name__ == "__main__":
    data, out = sys.argv[1:]
    made = api.embed({spec!r}, data, out, batch_size=4, engine="ray", workers=2, watch=Murderer())
    assert killed, "no actor was found"
    print(made["images"], made["runtime"])
"""


def test_a_worker_that_is_killed_costs_no_row_and_doubles_none(tmp_path: Path, environment_of: dict[str, str]) -> None:
    data = pictures.folder(tmp_path / "data", 160, classes=3)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.replace("{spec!r}", repr(SPEC)))
    command = [sys.executable, str(program), str(data), str(tmp_path / "ray.parquet")]
    done = subprocess.run(command, env=environment_of, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    assert "160 torch" in done.stdout.splitlines()  # Ray's own remarks may come after it
    api.embed(SPEC, data, tmp_path / "local.parquet", batch_size=4)
    assert pq.read_table(tmp_path / "ray.parquet").equals(pq.read_table(tmp_path / "local.parquet"))
    assert not (tmp_path / "ray.parquet.parts").exists()


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pictures.folder(tmp_path / "data", 4, labelled=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"--engine ray: needs Ray; pip install 'selfsight\[ray\]'"):
        api.embed(SPEC, data, tmp_path / "f.parquet", engine="ray")


def test_what_its_actors_do_not_do_is_refused(tmp_path: Path) -> None:
    for options in ({"runtime": "onnx"}, {"precision": "bfloat16"}, {"device": "cuda"}):
        with pytest.raises(ConfigError, match="--engine ray: its actors take runtime torch in float32 on the CPU"):
            api.embed(SPEC, tmp_path, tmp_path / "f.parquet", engine="ray", **options)
    with pytest.raises(ConfigError, match="--engine: no engine 'rai'"):
        api.embed(SPEC, tmp_path, tmp_path / "f.parquet", engine="rai")
