"""`embed` and `synth` by a cluster on this machine: where a worker is killed nothing is lost and nothing is there twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

import pictures
from selfsight import api
from selfsight.errors import ConfigError
from selfsight.synthesis.on_ray import check_alike, machine
from selfsight.synthesis.render import Order
from selfsight.synthesis.spec import SynthSpec

pytestmark = pytest.mark.usefixtures("one_thread")
SPEC = "random/vit_w32_d1_p8?size=32"
PARTS = {
    "name": "parts",
    "size": 48,
    "classes": {"star": {"assets": "shape/star"}, "ring": {"assets": "shape/ring"}},
    "factors": {"count": {"integers": [1, 3]}, "background": ["mottled", "photo.png"]},
}
PROGRAM = """
import contextlib, os, signal, sys
from pathlib import Path
import psutil
from selfsight import api
from selfsight.api import filling, synthesizing

filling.PART_BYTES = 1024  # eight rows of a width of 32
crews = []

def commands():
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended in the meantime
            yield process.pid, " ".join(process.cmdline())


class Murderer(api.Silent):
    def __init__(self, victims):
        self.victims, self.killed = victims, []

    def advance(self, what, done, total):
        actors = [pid for pid, command in commands() if self.victims in command]
        if not self.killed and actors:
            self.killed.append(actors[0])
            os.kill(actors[0], signal.SIGKILL)


class Leaver(api.Silent):
    def advance(self, what, done, total):
        if done == 5:
            raise TimeoutError


class Noted(synthesizing.RayCrew):
    def __init__(self, *args):
        super().__init__(*args)
        crews.append(self)


if __name__ == "__main__":
    place, (first, second) = Path(sys.argv[1]), (Murderer("MapWorker"), Murderer("Artist"))
    made = api.embed(SPEC, place / "data", place / "ray.parquet", batch_size=4, engine="ray", workers=2, watch=first)
    assert first.killed, "no actor was found"
    print(made["images"], made["runtime"])
    synthesizing.RayCrew = Noted
    asked = {"count": 40, "engine": "ray", "workers": 2}
    with contextlib.suppress(TimeoutError):
        api.synth(place / "parts.yaml", place / "ray", watch=Leaver(), **asked)
    made = api.synth(place / "parts.yaml", place / "ray", watch=second, **asked)
    assert second.killed, "no actor was found"
    print(made["pictures"], "pictures", made["resumed"], "resumed", crews[1].lost, "lost")
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, environment_of: dict[str, str]) -> tuple[Path, list[str]]:
    """The folder in which one cluster embedded and drew, and what that said; a cluster takes many seconds to start."""
    place = tmp_path_factory.mktemp("ray")
    pictures.folder(place / "data", 160, classes=3)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)).save(place / "photo.png")
    (place / "parts.yaml").write_text(yaml.safe_dump(PARTS))
    program = place / "program.py"
    program.write_text(PROGRAM.replace("SPEC", repr(SPEC)))
    command = [sys.executable, str(program), str(place)]
    # Ray kills its actors where the machine's memory is nearly full, though it be of tests that run beside this one.
    environment = environment_of | {"RAY_memory_monitor_refresh_ms": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    return place, done.stdout.splitlines()  # Ray's own remarks may come after it


def test_a_worker_that_is_killed_costs_no_row_and_doubles_none(ran: tuple[Path, list[str]]) -> None:
    place, said = ran
    assert "160 torch" in said
    api.embed(SPEC, place / "data", place / "local.parquet", batch_size=4)
    assert pq.read_table(place / "ray.parquet").equals(pq.read_table(place / "local.parquet"))
    assert not (place / "ray.parquet.parts").exists()


def test_a_set_drawn_by_actors_of_which_one_is_killed_is_that_of_this_process(ran: tuple[Path, list[str]]) -> None:
    place, said = ran
    assert "50 pictures 5 resumed 1 lost" in said
    api.synth(place / "parts.yaml", place / "local", count=40, workers=0)
    ray, local = ({f.relative_to(of): f.read_bytes() for f in of.rglob("*.*")} for of in (place / "ray", place / "local"))
    assert len(ray) == 3 * 50 + 5 and ray == local


def test_a_machine_that_would_draw_other_pictures_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"1")
    order = Order(SynthSpec.model_validate(PARTS), tmp_path, tmp_path / "set", 4, 0)
    here = machine(order, ["a.png"])
    check_alike(here, here)
    older = here._replace(name="node7", versions=here.versions | {"numpy": "1.0"})
    with pytest.raises(ConfigError, match=r"node7 has numpy 1\.0, this machine .*; expected the same"):
        check_alike(here, older)
    (tmp_path / "a.png").write_bytes(b"22")
    with pytest.raises(ConfigError, match="has other files under the names of the spec; copy those"):
        check_alike(here, machine(order, ["a.png"]))
    (tmp_path / "a.png").unlink()
    with pytest.raises(ConfigError, match=r"a\.png is not on .*; expected the spec's files under the same names"):
        check_alike(here, machine(order, ["a.png"]))


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pictures.folder(tmp_path / "data", 4, labelled=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"--engine ray: needs Ray; pip install 'selfsight\[ray\]'"):
        api.embed(SPEC, data, tmp_path / "f.parquet", engine="ray")
    with pytest.raises(ConfigError, match=r"--engine ray: needs Ray; pip install 'selfsight\[ray\]'"):
        api.synth(SynthSpec.model_validate(PARTS | {"factors": {}}), tmp_path / "set", engine="ray")
    assert not (tmp_path / "set").exists()


def test_what_its_actors_do_not_do_is_refused(tmp_path: Path) -> None:
    for options in ({"runtime": "onnx"}, {"precision": "bfloat16"}, {"device": "cuda"}):
        with pytest.raises(ConfigError, match="--engine ray: its actors take runtime torch in float32 on the CPU"):
            api.embed(SPEC, tmp_path, tmp_path / "f.parquet", engine="ray", **options)
    with pytest.raises(ConfigError, match="--engine: no engine 'rai'"):
        api.embed(SPEC, tmp_path, tmp_path / "f.parquet", engine="rai")
    spec = SynthSpec.model_validate(PARTS | {"factors": {}})
    with pytest.raises(ConfigError, match="--engine: no engine 'rai'"):
        api.synth(spec, tmp_path / "set", engine="rai")
    with pytest.raises(ConfigError, match="--workers: expected 1 actor at least with --engine ray"):
        api.synth(spec, tmp_path / "set", engine="ray", workers=0)
