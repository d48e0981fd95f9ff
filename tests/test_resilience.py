"""No run is lost: killed, damaged, without space, asked to stop, or run into numbers that are none."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from pictures import dataset
from selfsight import api, runs
from selfsight.errors import DiskFullError, InputError, NonFiniteError, WeightsError
from selfsight.runs import RunFolder, append_jsonl, read_jsonl, write_json_atomic
from selfsight.ssl.network import _lerp_by
from small_training import differing, start, train, words

EPOCHS = 30
STEPS = 2 * EPOCHS
OFTEN = "save_every_minutes=1e-9"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("pictures"), {"train": 16}) / "train"


@pytest.fixture(scope="module")
def uninterrupted(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    train(pictures, out, epochs=EPOCHS)
    return out


class Says(api.Silent):
    """Keeps what is said, and breaks off at a step if told to."""

    def __init__(self, breaks: int = -1) -> None:
        self.said: list[str] = []
        self.breaks = breaks

    def say(self, text: str) -> None:
        self.said.append(text)

    def on_step(self, row: object, progress: float) -> None:
        if isinstance(row, dict) and row["step"] == self.breaks:
            raise RuntimeError("power cut")


def logged(out: Path) -> list[int]:
    return [row["step"] for row in read_jsonl(out / "metrics.jsonl") if "loss" in row]


def finish(out: Path) -> None:
    process = start(["train", "--out", str(out), "--resume"])
    told, error = process.communicate(timeout=200)
    assert process.returncode == 0, f"{told}\n{error}"


# --- kill -9 ---------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
def test_three_kills_at_random_moments_leave_the_bits_of_a_run_that_was_let_alone(
    pictures: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    """With workers, and a checkpoint after every step, so that kills land in its writing too."""
    out = tmp_path / "run"
    seed = random.SystemRandom().randrange(2**32)
    draw = random.Random(seed)
    delays = []
    arguments = words(pictures, out, EPOCHS, "workers=2", OFTEN)
    for _ in range(3):
        reached = logged(out)[-1] if logged(out) else 0
        process = start(arguments)
        while process.poll() is None and (not logged(out) or logged(out)[-1] <= reached):
            time.sleep(0.005)
        delays.append(draw.randrange(400))
        time.sleep(delays[-1] / 1000)
        process.kill()
        process.communicate(timeout=60)
        if RunFolder(out).exists:
            arguments = ["train", "--out", str(out), "--resume"]
    finish(out)
    repeat = f"seed {seed}: killed {delays} ms after the first new step"
    assert differing(out, uninterrupted) == [], repeat
    assert logged(out) == list(range(1, STEPS + 1)), repeat
    assert [path.name for path in out.rglob(".*")] == [], repeat


KILL_AT_RENAME = """
import os, signal, sys
count = 0
def hook(event, args):
    global count
    if event == "os.rename" and str(args[1]).endswith({name!r}):
        count += 1
        if count == 5:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
"""
KILL_IN_FILE = """
import resource, signal, sys
count = 0
def hook(event, args):
    global count
    if event == "os.rename" and str(args[1]).endswith("latest.safetensors"):
        count += 1
        if count == 5:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
sys.addaudithook(hook)
"""


@pytest.mark.parametrize(
    ("first", "end"),
    [
        (KILL_AT_RENAME.format(name="previous.safetensors"), signal.SIGKILL),
        (KILL_AT_RENAME.format(name="latest.safetensors"), signal.SIGKILL),
        (KILL_AT_RENAME.format(name="teacher.safetensors"), signal.SIGKILL),
        (KILL_IN_FILE, signal.SIGXFSZ),
    ],
    ids=["before the first rename", "between the renames", "before the teacher", "in the middle of a file"],
)
def test_a_kill_while_a_checkpoint_is_written_loses_nothing(
    first: str, end: int, pictures: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = start(words(pictures, out, EPOCHS, OFTEN), first)
    error = process.communicate(timeout=200)[1]
    assert process.returncode == -end, error
    assert len(list(out.rglob(".*.safetensors.*"))) == 1
    assert RunFolder(out).previous.is_file()
    finish(out)
    assert differing(out, uninterrupted) == []
    assert logged(out) == list(range(1, STEPS + 1))
    assert list(out.rglob(".*")) == []


# --- damaged files ---------------------------------------------------------------------------------------------------


@pytest.fixture
def broken_off(pictures: Path, tmp_path: Path) -> RunFolder:
    """Checkpoints of steps 8 and 7 of 20."""
    with pytest.raises(RuntimeError, match="power cut"):
        train(pictures, tmp_path / "run", epochs=10, over={"save_every_minutes": 1e-9}, watch=Says(9))
    folder = RunFolder(tmp_path / "run")
    assert [step_in(path) for path in (folder.checkpoint, folder.previous)] == [8, 7]
    return folder


def step_in(path: Path) -> int:
    with safe_open(path, framework="pt") as file:
        return int(file.metadata()["step"])


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """One bit in the middle of the tensors."""
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(truncate, "is no readable checkpoint"), (flip, "checksum"), (Path.unlink, "is missing")],
    ids=["truncated", "a flipped bit", "missing"],
)
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(
    damage: object, reason: str, broken_off: RunFolder, pictures: Path, tmp_path: Path
) -> None:
    assert callable(damage)
    damage(broken_off.checkpoint)
    watch = Says()
    assert api.resume(broken_off.path, watch=watch)["step"] == 20
    assert len(watch.said) == 1
    assert watch.said[0].startswith(f"warning: {broken_off.checkpoint}: ")
    assert reason in watch.said[0]
    assert watch.said[0].endswith("going on from the one before it, previous.safetensors of step 7")
    train(pictures, tmp_path / "whole", epochs=10)
    assert differing(broken_off.path, tmp_path / "whole") == []
    assert logged(broken_off.path) == list(range(1, 21))


def test_a_damaged_checkpoint_never_takes_the_place_of_the_whole_one(broken_off: RunFolder) -> None:
    flip(broken_off.checkpoint)
    with pytest.raises(RuntimeError, match="power cut"):
        api.resume(broken_off.path, watch=Says(9))
    assert [step_in(path) for path in (broken_off.checkpoint, broken_off.previous)] == [8, 7]
    flip(broken_off.checkpoint)
    assert api.resume(broken_off.path)["step"] == 20


def test_two_damaged_checkpoints_are_an_error_that_names_both(broken_off: RunFolder) -> None:
    flip(broken_off.checkpoint)
    truncate(broken_off.previous)
    with pytest.raises(WeightsError) as error:
        api.resume(broken_off.path)
    assert "latest.safetensors: is no readable checkpoint (its content does not have the checksum" in str(error.value)
    assert "previous.safetensors: is no readable checkpoint" in str(error.value)
    assert "start again with another --out" in str(error.value)


def test_the_state_of_the_scaler_and_of_setbacks_is_kept(pictures: Path, tmp_path: Path) -> None:
    train(pictures, tmp_path / "run", epochs=2, over={"precision": "float16"})
    with safe_open(tmp_path / "run" / "checkpoint" / "latest.safetensors", framework="pt") as file:
        words = file.metadata()
    scaler, setbacks = json.loads(words["scaler"]), json.loads(words["setbacks"])
    assert scaler["scale"] > 0
    # Four steps: those that were made have been counted towards the next growth, or have lowered the scale.
    assert scaler["scale"] * 2 ** setbacks["skipped"] == 65536
    assert setbacks["rate_factor"] == 1.0


# --- no space --------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of three MiB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root and mount, for a file system of its own")
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(folder: Path, leave: int) -> None:
    free = shutil.disk_usage(folder).free
    (folder / "filler").write_bytes(bytes(max(0, free - leave)))


def test_a_full_disk_ends_the_run_with_one_line_and_what_was_saved_is_whole(small_disk: Path, pictures: Path) -> None:
    out = RunFolder(small_disk / "run")
    with pytest.raises(RuntimeError, match="power cut"):
        train(pictures, out.path, epochs=10, over={"save_every_minutes": 1e-9}, watch=Says(9))
    fill(small_disk, 40_000)
    process = start(["train", "--out", str(out.path), "--resume"])
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert error.startswith(f"selfsight: {out.checkpoint}: cannot be written, the disk is full: ")
    assert "KiB are needed, " in error
    assert "KiB are free on this disk" in error
    assert error.count("\n") == 1
    assert list(out.path.rglob(".*")) == []
    (small_disk / "filler").unlink()
    assert [step_in(path) for path in (out.checkpoint, out.previous)] == [8, 7]
    assert api.resume(out.path)["step"] == 20
    assert logged(out.path) == list(range(1, 21))


@pytest.mark.parametrize("leave", [0, 4096, 8192])
def test_a_disk_too_full_for_the_logs_ends_the_run_with_one_line(small_disk: Path, pictures: Path, leave: int) -> None:
    out = RunFolder(small_disk / "run")
    with pytest.raises(RuntimeError, match="power cut"):
        train(pictures, out.path, epochs=100, watch=Says(3))
    fill(small_disk, leave)
    process = start(["train", "--out", str(out.path), "--resume"])
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "the disk is full" in error
    assert error.count("\n") == 1


def test_a_limit_on_the_size_of_files_is_named(pictures: Path, tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))"
    process = start(words(pictures, tmp_path / "run", 2), limit)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "latest.safetensors: cannot be written, files may not grow so large here (ulimit -f): " in error
    assert error.count("\n") == 1
    assert list((tmp_path / "run").rglob(".*")) == []


def test_rows_and_small_files_on_a_full_disk_are_named(small_disk: Path) -> None:
    append_jsonl(small_disk / "rows.jsonl", [{"step": 1}])
    fill(small_disk, 0)
    with pytest.raises(
        DiskFullError, match=r"rows.jsonl: cannot be written, the disk is full: 9 KiB are needed, 0 bytes are free"
    ):
        append_jsonl(small_disk / "rows.jsonl", [{"step": "x" * 9000}])
    with pytest.raises(DiskFullError, match=r"facts.json: cannot be written, the disk is full"):
        write_json_atomic(small_disk / "facts.json", {"a": "x" * 9000})
    assert {path.name for path in small_disk.iterdir()} == {"rows.jsonl", "filler"}
    assert read_jsonl(small_disk / "rows.jsonl") == [{"step": 1}]


# --- asked to stop ---------------------------------------------------------------------------------------------------

SIGNAL_AT = """
import os, signal, sys
def hook(event, args):
    if event in ("open", "os.scandir", "os.listdir") and str(args[0]).startswith({name!r}):
        os.kill(os.getpid(), signal.SIGTERM)
sys.addaudithook(hook)
"""


def test_a_signal_before_the_first_step_says_how_to_begin_again(pictures: Path, tmp_path: Path) -> None:
    """While the images are looked at for a plan."""
    process = start(words(pictures, tmp_path / "run", 2), SIGNAL_AT.format(name=str(pictures)))
    _told, error = process.communicate(timeout=60)
    assert process.returncode == 143, error
    assert error.startswith("selfsight: stopped by SIGTERM before the first step, nothing is lost; start again with: selfsight ")
    assert f"selfsight train {pictures} --out {tmp_path / 'run'} --backbone" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_signal_in_the_first_probe_goes_on_from_the_beginning(pictures: Path, uninterrupted: Path, tmp_path: Path) -> None:
    """The first probe follows the description of the run."""
    out = tmp_path / "run"
    first = """
import os, signal
from selfsight import metrics
measure = metrics.rankme
def rankme(*given):
    os.kill(os.getpid(), signal.SIGTERM)
    return measure(*given)
metrics.rankme = rankme
"""
    process = start(words(pictures, out, EPOCHS), first)
    _told, error = process.communicate(timeout=60)
    assert process.returncode == 143, error
    assert f"stopped by SIGTERM before the first step, nothing is lost; go on with: selfsight train {pictures}" in error
    finish(out)
    assert differing(out, uninterrupted) == []


def test_a_signal_to_the_whole_group_leaves_no_image_out(pictures: Path, uninterrupted: Path, tmp_path: Path) -> None:
    """Workers live on until the training has taken its last step."""
    out = tmp_path / "run"
    process = start(words(pictures, out, EPOCHS, "workers=2"), "import os; os.setsid()")
    while process.poll() is None and len(logged(out)) < 8:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143, error
    finish(out)
    assert differing(out, uninterrupted) == []
    assert not (out / "bad_images.jsonl").exists()


# --- numbers that are none -------------------------------------------------------------------------------------------


def test_a_rate_far_too_high_goes_back_once_at_half_of_it_and_then_stops(pictures: Path, tmp_path: Path) -> None:
    out = RunFolder(tmp_path / "run")
    watch = Says()
    with pytest.raises(NonFiniteError, match=r"again after the learning rate was multiplied by 0.5") as error:
        train(pictures, out.path, epochs=20, over={"optimizer": {"learning_rate": 1e30, "warmup": 0.0}}, watch=watch)
    assert "lower optimizer.learning_rate (say a quarter of 1e+30)" in str(error.value)
    assert len(watch.said) == 1
    assert "back to the start with 0.5 times the learning rate" in watch.said[0]
    rows = read_jsonl(out.skipped)
    assert [row["rollbacks"] for row in rows] == [0, 0, 0, 1, 1, 1]
    assert all(row["why"] == "the loss is nan" and row["loss"] is None and len(row["keys"]) == 8 for row in rows)
    assert [row["step"] for row in rows[:3]] == [rows[0]["step"] + i for i in range(3)]
    assert all((pictures / key).is_file() for row in rows for key in row["keys"])


def test_the_lower_rate_is_kept_in_log_and_checkpoint_and_the_run_ends_well(pictures: Path, tmp_path: Path) -> None:
    """Weights that overflow, put there from outside once: the checkpoint from before them is taken up."""
    out = RunFolder(tmp_path / "run")

    class Overflows(Says):
        def on_step(self, row: object, progress: float) -> None:
            super().on_step(row, progress)
            if isinstance(row, dict) and row["step"] == 9 and not self.said:
                with torch.no_grad():
                    next(iter(training.learner.student.parameters())).fill_(3e38)

    from selfsight.api import training as room

    made: list[room.Training] = []
    plain = room.Training.__init__

    def remember(self: room.Training, *given: object, **more: object) -> None:
        plain(self, *given, **more)  # type: ignore[arg-type]
        made.append(self)

    class _Now:
        @property
        def learner(self) -> object:
            return made[0].learner

    training = _Now()
    watch = Overflows()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room.Training, "__init__", remember)
        summary = train(pictures, out.path, epochs=20, over={"save_every_minutes": 1e-9}, watch=watch)
    assert summary["step"] == 40
    assert summary["skipped_steps"] == 3
    assert len(watch.said) == 1
    assert "back to step 8 (previous.safetensors) with 0.5 times the learning rate" in watch.said[0]
    rows = {row["step"]: row for row in read_jsonl(out.metrics) if "loss" in row}
    assert list(rows) == list(range(1, 41))
    assert [rows[8]["rate_factor"], rows[9]["rate_factor"], rows[40]["rate_factor"]] == [1.0, 0.5, 0.5]
    assert rows[40]["skipped"] == 3
    with safe_open(out.checkpoint, framework="pt") as file:
        assert json.loads(file.metadata()["setbacks"])["rate_factor"] == 0.5
    assert all(torch.isfinite(value).all() for value in load_file(out.teacher).values())


def test_the_teacher_moves_by_a_weight_on_the_device_as_by_a_number() -> None:
    ours, theirs = [torch.randn(3, 4), torch.randn(5)], [torch.randn(3, 4), torch.randn(5)]
    expected = [torch.lerp(a, b, 0.25) for a, b in zip(ours, theirs, strict=True)]
    before = [a.clone() for a in ours]
    _lerp_by(ours, theirs, torch.tensor(0.0))
    assert all(torch.equal(a, b) for a, b in zip(ours, before, strict=True))
    _lerp_by(ours, theirs, torch.tensor(0.25))
    torch.testing.assert_close(ours, expected)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, in which nobody can make a file")
def test_a_place_where_nothing_can_be_written_is_told_in_a_line() -> None:
    for place in (runs.place_for_file, runs.place_for_folder):
        with pytest.raises(InputError, match=r"^--out /proc/new/out: nothing can be written in /proc \(.+\); give another"):
            place("/proc/new/out")
    with pytest.raises(InputError, match="--out /proc/out: nothing can be written in /proc"), runs.alone(Path("/proc/out")):
        pass
