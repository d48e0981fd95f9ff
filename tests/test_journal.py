"""What encoders reached against masks is kept as it is measured: a killed comparison goes on, and nothing stale is taken."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import annotated
from annotated import Scene, Thing, Written
from selfsight.attention.seeing import Eyes
from selfsight.comparison.gather import Machine
from selfsight.comparison.looking import Masks, Measured, eyes_of, measure
from selfsight.data.annotations import open_annotations
from selfsight.data.sources import open_source
from selfsight.data.tolerance import Tolerance
from selfsight.encoders import load_encoder
from selfsight.runs import read_jsonl

VIT, CNN = "random/vit_w32_d1_p8?size=32", "random/resnet10t?size=64"
BETWEEN_TWO_ENCODERS = """
import os, signal, sys
seen = []
def hook(event, args):
    if event == "open" and os.path.basename(os.path.dirname(str(args[0]))) == "looks" and args[1] == "a":
        seen.append(args)
        if len(seen) == 6:
            os.kill(os.getpid(), signal.NAME)
sys.addaudithook(hook)
"""

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SELFSIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "looks"


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return annotated.png(tmp_path, [Scene(40, 24, [Thing((4 + n, 6, 20 + n, 18), "cat")]) for n in range(6)])


@pytest.fixture(scope="module")
def eyes() -> dict[str, Eyes]:
    return eyes_of({spec: load_encoder(spec) for spec in (VIT, CNN)}, machine([]))


def machine(said: list[str]) -> Machine:
    return Machine("cpu", 0, 4, said.append, lambda stage, done, total: None, Tolerance())


def measured(eyes: dict[str, Eyes], written: Written, *, limit: int = 300, seed: int = 0) -> tuple[Measured, list[str]]:
    """What was measured, and what was said of it."""
    source, said = open_source(written.images), list[str]()
    annotations = open_annotations(source, written.masks)
    assert annotations is not None
    found = measure(eyes, source, Masks(annotations, limit, seed), machine(said), group_by=None, images=False)
    return found, said


def before(spec: str, count: int) -> str:
    return f"segmentation, {spec}: {count} pictures from the cache"


def compared(written: Written, out: Path, stopped_by: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with a signal while the second encoder looks."""
    options = ["--tasks", "segmentation", "--masks", str(written.masks), "--no-images", "--out", str(out)]
    words = ["compare", str(written.images), "--encoder", VIT, "--encoder", CNN, *options]
    code = BETWEEN_TWO_ENCODERS.replace("NAME", stopped_by) + "from selfsight.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=200, check=False)


def test_ctrl_c_names_the_command_that_goes_on(written: Written, tmp_path: Path) -> None:
    done = compared(written, tmp_path / "out", stopped_by="SIGINT")
    assert done.returncode == 130, done.stderr
    kept = "features and what was measured against masks are kept"
    assert f"stopped by SIGINT; {kept}; go on with: selfsight compare " in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_killed_comparison_goes_on_where_it_was_and_ends_as_if_it_had_been_let_alone(
    eyes: dict[str, Eyes], written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = compared(written, tmp_path / "out", stopped_by="SIGKILL")
    assert done.returncode == -signal.SIGKILL, done.stderr
    resumed, said = measured(eyes, written)
    assert said == [before(VIT, 3), before(CNN, 2)]
    assert measured(eyes, written)[1] == [before(VIT, 6), before(CNN, 6)]
    monkeypatch.setenv("SELFSIGHT_CACHE", str(tmp_path / "elsewhere"))
    whole, said = measured(eyes, written)
    assert (resumed.outcomes, resumed.own, said) == (whole.outcomes, whole.own, [])


def test_more_pictures_or_another_order_take_what_there_is(eyes: dict[str, Eyes], written: Written) -> None:
    first, _ = measured(eyes, written, limit=4)
    more, said = measured(eyes, written, seed=1)
    assert said == [before(VIT, 4), before(CNN, 4)]
    for look, values in first.outcomes.values.items():
        again = dict(zip(more.outcomes.keys, more.outcomes.values[look], strict=True))
        assert [again[key] for key in first.outcomes.keys] == values


def test_what_has_changed_is_measured_anew(eyes: dict[str, Eyes], written: Written) -> None:
    measured(eyes, written)
    assert written.masks is not None
    moved = annotated.area(Scene(40, 24, []), (0, 0, 9, 9))
    Image.fromarray(moved).save(written.masks / "001.png")
    Image.new("RGB", (40, 24), "green").save(written.images / "002.jpg")
    assert measured(eyes, written)[1] == [before(VIT, 4), before(CNN, 4)]
    closer = {VIT: Eyes(load_encoder(VIT), 64), f"{VIT}&seed=1": Eyes(load_encoder(f"{VIT}&seed=1"), eyes[VIT].prepare.size)}
    assert measured(closer, written)[1] == []


def test_what_is_shown_is_looked_at_again(eyes: dict[str, Eyes], written: Written) -> None:
    source = open_source(written.images)
    annotations = open_annotations(source, written.masks)
    assert annotations is not None
    found = [measure(eyes, source, Masks(annotations), machine([]), group_by=None, images=True) for _ in range(2)]
    assert found[0] == found[1]
    assert len(found[0].drawn) == 6 * 3


@pytest.mark.parametrize(
    "damage", ['{"picture": 1}\n{}\n', "rubbish\n{}\n", '{"picture": "a", "own": "norm", "values": [["norm", "miou", NaN]]}\n']
)
def test_damage_is_told_and_costs_time_alone(eyes: dict[str, Eyes], written: Written, looks: Path, damage: str) -> None:
    whole, _ = measured({CNN: eyes[CNN]}, written)
    (path,) = looks.iterdir()
    path.write_text(damage)
    again, said = measured({CNN: eyes[CNN]}, written)
    assert again.outcomes == whole.outcomes
    (line,) = said
    assert line.startswith(f"{CNN}: what it reached is damaged and measured again: {path} (")
    assert len(read_jsonl(path)) == 6


def test_a_row_that_was_cut_off_is_left_out(eyes: dict[str, Eyes], written: Written, looks: Path) -> None:
    measured({CNN: eyes[CNN]}, written)
    (path,) = looks.iterdir()
    path.write_text(path.read_text()[:-20])
    assert measured({CNN: eyes[CNN]}, written)[1] == [before(CNN, 5)]
    assert [len(row["picture"]) for row in map(json.loads, path.read_text().splitlines())] == [40] * 6


def test_where_nothing_can_be_kept_the_comparison_goes_on(
    eyes: dict[str, Eyes], written: Written, tmp_path: Path, looks: Path
) -> None:
    looks.parent.write_text("a file where the cache should be")
    found, said = measured(eyes, written)
    assert len(found.outcomes.keys) == 6
    assert [line.split(" is not kept: ")[0] for line in said] == [f"{spec}: what it reaches" for spec in (VIT, CNN)]
