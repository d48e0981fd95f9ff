"""`synth`: the verb and the function, on real files, with real kills."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from PIL import Image

import selfsight
from backend_cases import cutout
from selfsight import manifest
from selfsight.cli import main
from selfsight.data.annotations import drawn
from selfsight.data.sources import open_source
from selfsight.errors import ConfigError, DiskFullError, InputError
from selfsight.synthesis.backends.composite import Composite
from selfsight.synthesis.loading import load_spec
from selfsight.synthesis.room import bytes_of
from selfsight.synthesis.sampler import sample
from selfsight.synthesis.spec import SynthSpec
from selfsight.synthesis.template import template

SPEC: dict[str, Any] = {
    "name": "parts",
    "size": 48,
    "classes": {"bolt": {"assets": "bolts"}, "star": {"assets": "shape/star"}},
    "factors": {"count": {"integers": [1, 3]}, "x": {"uniform": [0, 1]}, "background": ["mottled", "photo.png"]},
    "splits": {"train": 1, "test": 0.5},
    "shift": {"light": {"uniform": [0.2, 0.4]}},
}


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "bolts").mkdir()
    cutout(tmp_path / "bolts" / "a.png")
    cutout(tmp_path / "bolts" / "b.png", colour=(20, 160, 40))
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    (tmp_path / "parts.yaml").write_text(yaml.safe_dump(SPEC, sort_keys=False))
    return tmp_path / "parts.yaml"


def test_drawing_loads_no_torch(spec: Path) -> None:
    """Which takes longer than the drawing of a small set."""
    code = f"""
import sys
from selfsight.cli import main
try:
    main(["synth", {str(spec)!r}, "--out", {str(spec.parent / "set")!r}, "--count", "2", "--workers", "0", "--export", "coco"])
finally:
    assert not {{"torch", "sklearn", "jinja2"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert len(manifest.read(spec.parent / "set").samples) == 4


def digest(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def called(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit code and what was printed on both streams; in this process, as each start of another takes seconds."""
    with pytest.raises(SystemExit) as left:
        main(["synth", *map(str, words)])
    shown = capsys.readouterr()
    return int(left.value.code or 0), shown.out, shown.err


def test_a_set_is_complete_and_says_what_is_in_it(spec: Path, tmp_path: Path) -> None:
    made = selfsight.synth(spec, tmp_path / "set", count=12, workers=0)
    assert (made["pictures"], made["splits"], made["resumed"]) == (24, {"train": 12, "test": 6, "shift.light": 6}, 0)
    content = manifest.read(tmp_path / "set")
    assert content.info.classes == ["bolt", "star"]
    assert content.info.factors["count"] == [1, 3]
    assert [row["split"] for row in content.samples] == ["train"] * 12 + ["test"] * 6 + ["shift.light"] * 6
    assert len({row["key"] for row in content.samples}) == 24
    for row in content.samples:
        image, instances, semantic = (
            np.array(Image.open(tmp_path / "set" / row[part])) for part in ("path", "instances", "semantic")
        )
        assert image.shape == (48, 48, 3) and instances.shape == semantic.shape == (48, 48)
        things = [thing for thing in content.objects if thing["sample"] == row["key"]]
        assert [thing["object"] for thing in things] == list(range(1, row["count"] + 1))
        for thing in things:
            mask = manifest.decode_mask(thing["mask"])
            assert np.array_equal(mask, instances == thing["object"])
            assert set(semantic[mask]) <= {content.info.classes.index(thing["class"]) + 1}
            assert thing["class"] == content.info.classes[row["label"]]
        assert not semantic[instances == 0].any()


def test_rows_hold_every_factor_as_the_scene_has_it(spec: Path, tmp_path: Path) -> None:
    selfsight.synth(spec, tmp_path / "set", count=4, seed=3, workers=0)
    content = manifest.read(tmp_path / "set")
    whole, _ = selfsight.api.read_spec(spec)
    for row in content.samples:
        scene = sample(whole, 3, row["split"], row["index"]).only(Composite.factors)
        assert "light" in scene.factors and "focal_length" not in row and "focal_length" not in scene.factors
        assert {name: row[name] for name in scene.factors} == dict(scene.factors)
        assert row["asset"] == scene.objects[0].asset
        things = [thing for thing in content.objects if thing["sample"] == row["key"]]
        assert [thing["factors"] for thing in things] == [dict(thing.factors) for thing in scene.objects]


def test_pictures_do_not_depend_on_workers_and_differ_by_seed(spec: Path, tmp_path: Path) -> None:
    sets = {}
    for name, workers, seed in (("a", 0, 0), ("b", 2, 0), ("c", 0, 1)):
        selfsight.synth(spec, tmp_path / name, count=8, seed=seed, workers=workers)
        sets[name] = digest(tmp_path / name)
    assert sets["a"] == sets["b"]
    pictures = [name for name in sets["a"] if name.endswith(".png") and "train/" in name and "labels" not in name]
    assert not any(sets["a"][name] == sets["c"][name] for name in pictures)


def test_a_shift_is_the_test_split_in_another_light(spec: Path, tmp_path: Path) -> None:
    selfsight.synth(spec, tmp_path / "set", count=8, workers=0)
    content = manifest.read(tmp_path / "set")
    test, shift = ([row for row in content.samples if row["split"] == split] for split in ("test", "shift.light"))
    for here, there in zip(test, shift, strict=True):
        changed = {name for name in here if here[name] != there[name]}
        assert changed == {"key", "path", "instances", "semantic", "split", "group", "light"}
        masks = (np.array(Image.open(tmp_path / "set" / row["instances"])) for row in (here, there))
        assert np.array_equal(*masks)
        bright, dark = (np.array(Image.open(tmp_path / "set" / row["path"])).mean() for row in (here, there))
        assert dark < 0.75 * bright


@pytest.mark.parametrize("place", ["set/train", "set?split=train"])
def test_a_split_is_a_source_with_labels_and_masks(spec: Path, tmp_path: Path, place: str) -> None:
    selfsight.synth(spec, tmp_path / "set", count=6, workers=0)
    source = open_source(f"{tmp_path}/{place}")
    assert (len(source), source.classes) == (6, ("bolt", "star"))
    assert source.labels is not None and sorted(source.labels) == [0] * 3 + [1] * 3
    beside = drawn.beside(source)
    assert beside == tmp_path / "set"
    found = drawn.DrawnAnnotations(beside, source).of(source, 0)
    assert found is not None and {thing.name for thing in found.instances} == {source.classes[source.labels[0]]}


def test_factors_are_columns_to_group_by(spec: Path, tmp_path: Path) -> None:
    selfsight.synth(spec, tmp_path / "set", count=6, workers=0)
    source = open_source(f"{tmp_path}/set?split=shift.light")
    assert {"light", "count", "background", "size"} <= set(source.columns())
    assert all(0.2 <= float(value) <= 0.4 for value in source.column("light"))


def test_a_mixed_set_has_no_label_a_picture(tmp_path: Path) -> None:
    classes = {"star": {"assets": "shape/star"}, "ring": {"assets": "shape/ring"}}
    mixed = SynthSpec.model_validate({"name": "m", "size": 32, "classes": classes, "mixed": True, "factors": {"count": 4}})
    selfsight.synth(mixed, tmp_path / "set", count=5, workers=0)
    content = manifest.read(tmp_path / "set")
    assert {row["label"] for row in content.samples} == {None}
    assert (tmp_path / "set" / "train" / "000004.png").is_file()
    assert {thing["class"] for thing in content.objects} == {"star", "ring"}


def test_a_set_is_exported_beside_itself_once_it_is_finished(spec: Path, tmp_path: Path) -> None:
    made = selfsight.synth(spec, tmp_path / "set", count=4, workers=0, export=["coco", "yolo"])
    assert made["files"][2:] == [str(tmp_path / "set-coco"), str(tmp_path / "set-yolo")]
    told = json.loads((tmp_path / "set-coco" / "annotations" / "instances_train.json").read_text())
    assert len(told["images"]) == 4
    before = digest(tmp_path)
    selfsight.synth(spec, tmp_path / "set", count=4, workers=0, export=["coco", "csv"])
    after = digest(tmp_path)
    assert {name for name in after if after[name] != before.get(name)} == {name for name in after if name.startswith("set-csv/")}
    with pytest.raises(ConfigError, match=r"--export: no format 'cocoo'\. Did you mean 'coco'"):
        selfsight.synth(spec, tmp_path / "other", export=["cocoo"])
    assert not (tmp_path / "other").exists()


# --- interrupted --------------------------------------------------------------------------------------------------------


def begun(spec: Path, out: Path, count: int, least: int = 5) -> subprocess.Popen[bytes]:
    """The verb at work, so many pictures in."""
    words = [sys.executable, "-m", "selfsight", "synth", str(spec), "--out", str(out), "--count", str(count), "--workers", "1"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while len(manifest.read(out).samples if (out / "dataset.json").is_file() else []) < least:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    return process


def test_a_set_that_was_killed_goes_on_and_is_that_of_one_go(spec: Path, tmp_path: Path) -> None:
    process = begun(spec, tmp_path / "set", 300)
    process.kill()
    process.communicate()
    there = manifest.read(tmp_path / "set")
    assert 5 <= len(there.samples) < 600  # an unclosed set is readable
    assert all((tmp_path / "set" / row["path"]).is_file() for row in there.samples)
    made = selfsight.synth(spec, tmp_path / "set", count=300, workers=1)
    assert made["resumed"] >= len(there.samples)
    selfsight.synth(spec, tmp_path / "again", count=300, workers=0)
    assert digest(tmp_path / "set") == digest(tmp_path / "again")


def test_rows_cut_off_by_a_kill_are_drawn_again(spec: Path, tmp_path: Path) -> None:
    selfsight.synth(spec, tmp_path / "whole", count=4, workers=0)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    content = manifest.read(tmp_path / "whole")
    begun = {row["key"] for row in content.samples[:4]}
    rows, things = content.samples[:3], [thing for thing in content.objects if thing["sample"] in begun]
    for table, kept in (("samples", rows), ("objects", things)):  # objects of the fourth are there, its own row is cut
        (tmp_path / "cut" / f"{table}.parquet").unlink()
        (tmp_path / "cut" / f"{table}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept) + '{"key": "tra')
    made = selfsight.synth(spec, tmp_path / "cut", count=4, workers=0)
    assert made["resumed"] == 3
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_names_the_command_that_goes_on(spec: Path, tmp_path: Path, asked: signal.Signals) -> None:
    process = begun(spec, tmp_path / "set", 3000)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(asked)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + asked
    line = said.decode().strip().splitlines()[-1]
    assert f"stopped by {asked.name}: " in line and f"go on with: selfsight synth {spec} --out" in line
    psutil.wait_procs(workers, timeout=10)
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)


def test_a_worker_that_is_killed_loses_no_picture(spec: Path, tmp_path: Path) -> None:
    process = begun(spec, tmp_path / "set", 150)
    [worker] = [w for w in psutil.Process(process.pid).children() if "resource_tracker" not in " ".join(w.cmdline())]
    worker.kill()
    assert process.wait(timeout=120) == 0
    process.communicate()
    selfsight.synth(spec, tmp_path / "again", count=150, workers=0)
    assert digest(tmp_path / "set") == digest(tmp_path / "again")


def test_a_set_grows_to_that_of_one_go_though_killed_meanwhile(spec: Path, tmp_path: Path) -> None:
    selfsight.synth(spec, tmp_path / "set", count=5, workers=0, export=["csv"])
    assert json.loads((tmp_path / "set" / "dataset.json").read_text())["provenance"]["count"] == 5
    with pytest.raises(InputError, match=r"--export: .*set-csv is there, though the set is still to be drawn; remove it"):
        selfsight.synth(spec, tmp_path / "set", count=100, workers=0, export=["csv"])
    before = digest(tmp_path / "set")
    assert all((tmp_path / "set" / name).is_file() for name in ("samples.parquet", "sheet.png"))
    process = begun(spec, tmp_path / "set", 100, least=14)
    process.kill()
    process.communicate()
    assert not (tmp_path / "set" / "factors.png").exists()
    there = len(manifest.read(tmp_path / "set").samples)
    made = selfsight.synth(spec, tmp_path / "set", count=100, workers=0)
    assert 9 < there <= made["resumed"] < made["pictures"] == 200
    selfsight.synth(spec, tmp_path / "again", count=100, workers=0)
    after = digest(tmp_path / "set")
    assert after == digest(tmp_path / "again")
    pictures = {name for name in before if name.count("/") and name.endswith(".png")}
    assert len(pictures) == 27 and all(before[name] == after[name] for name in pictures)


@pytest.mark.parametrize("gone", [[], ["samples"], ["samples", "objects"]])
def test_a_kill_while_tables_are_written_or_opened_again_costs_no_picture(spec: Path, tmp_path: Path, gone: list[str]) -> None:
    """Streams that are there beside their tables, or already gone, or tables that are gone already."""
    selfsight.synth(spec, tmp_path / "set", count=4, workers=0)
    before = digest(tmp_path / "set")
    content = manifest.read(tmp_path / "set")
    for table, rows in (("samples", content.samples), ("objects", content.objects)):
        if table not in gone:
            (tmp_path / "set" / f"{table}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "set" / "factors.png").unlink()
    assert selfsight.synth(spec, tmp_path / "set", count=4, workers=0)["resumed"] == 8
    assert digest(tmp_path / "set") == before


# --- said once, before the first picture --------------------------------------------------------------------------------


def test_a_finished_set_is_left_as_it_is_and_another_is_not_laid_over_it(spec: Path, tmp_path: Path) -> None:
    selfsight.synth(spec, tmp_path / "set", count=4, workers=0)
    before = digest(tmp_path / "set")
    made = selfsight.synth(spec, tmp_path / "set", count=4, workers=0)
    assert (made["resumed"], made["pictures_per_second"]) == (8, None)
    for changes, told in (({"count": 3}, "count 4, not 3"), ({"seed": 1}, "seed 0, not 1")):
        with pytest.raises(InputError, match=f"was drawn with {told}; remove it"):
            selfsight.synth(spec, tmp_path / "set", **{"count": 4, "workers": 0, **changes})
    spec.write_text(yaml.safe_dump(SPEC | {"size": 32}, sort_keys=False))
    with pytest.raises(InputError, match="was drawn with another spec; remove it"):
        selfsight.synth(spec, tmp_path / "set", count=4, workers=0)
    assert digest(tmp_path / "set") == before


def test_other_files_are_left_alone(spec: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds files that are not of a drawn set; give another folder"):
        selfsight.synth(spec, tmp_path / "mine", workers=0)
    with pytest.raises(InputError, match=r"holds .*bolts/a.png, which the spec draws from"):
        selfsight.synth(spec, tmp_path / "bolts", workers=0)
    with pytest.raises(ConfigError, match=r"--count: expected 1 picture at least\. Got 0"):
        selfsight.synth(spec, tmp_path / "set", count=0)
    assert not (tmp_path / "set").exists()


def test_a_full_disk_is_one_line_and_what_was_drawn_stays(spec: Path, tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, limit[1]))
    try:
        with pytest.raises(DiskFullError, match="files may not grow so large here"):
            selfsight.synth(spec, tmp_path / "set", count=40, workers=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    there = manifest.read(tmp_path / "set").samples
    made = selfsight.synth(spec, tmp_path / "set", count=40, workers=0)
    assert made["resumed"] == len(there) > 0


def test_a_disk_that_may_be_too_small_is_said_before_the_first_picture(spec: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"2000000000000 pictures may take \d+\.\d GiB, and .* are free on this disk; make room"):
        selfsight.synth(spec, tmp_path / "set", count=10**12)
    assert not (tmp_path / "set").exists()
    noisy = SynthSpec.model_validate({**SPEC, "classes": {"s": {"assets": "shape/star"}}, "factors": {"noise": 0.2}, "shift": {}})
    selfsight.synth(noisy, tmp_path / "set", count=8, workers=0)
    taken = sum(
        512 * file.stat().st_blocks for file in (tmp_path / "set").rglob("*") if file.suffix != ".png" or file.parts[-2] != "set"
    )
    assert taken < bytes_of(noisy, 12) < 10 * taken


def test_sequences_are_drawn_in_whole_and_exported_with_the_numbers_of_their_objects(spec: Path, tmp_path: Path) -> None:
    motion = {"x": {"uniform": [0.04, 0.08]}, "rotation": 5}
    spec.write_text(yaml.safe_dump(SPEC | {"sequence": {"frames": 3, "motion": motion}}))
    made = selfsight.synth(spec, tmp_path / "set", count=8, workers=2, export=["mot"])
    assert made["splits"] == {"train": 9, "test": 6, "shift.light": 6}
    content = manifest.read(tmp_path / "set")
    rows = [row for row in content.samples if row["split"] == "test"]
    assert [(row["sequence"], row["frame"], row["group"]) for row in rows][2:4] == [
        ("000000", 2, "test/000000"),
        ("000001", 0, "test/000001"),
    ]
    boxes = {(each["sample"], each["object"]): each for each in content.objects}
    for name in ("000000", "000001"):
        folder = tmp_path / "set-mot" / "test" / name
        assert len(list((folder / "img1").iterdir())) == 3
        lines = [list(map(float, line.split(","))) for line in (folder / "gt/gt.txt").read_text().splitlines()]
        assert {line[0] for line in lines} == {1, 2, 3}
        for frame, number, left, top, width, height, *_ in lines:
            there = boxes[f"test/{3 * int(name) + int(frame) - 1:06d}", int(number)]
            assert [left - 1, top - 1, width, height] == [there[f"full_{side}"] for side in "xywh"]
        ways = {number: [line[2] + line[4] / 2 for line in lines if line[1] == number] for number in {line[1] for line in lines}}
        assert all(1 < step < 5 for way in ways.values() for step in np.diff(way))
    grown = selfsight.synth(spec, tmp_path / "more", count=5, workers=0)
    assert grown["splits"]["train"] == 6
    selfsight.synth(spec, tmp_path / "more", count=8, workers=0)
    assert digest(tmp_path / "more" / "train") == digest(tmp_path / "set" / "train")


@pytest.mark.parametrize("format", ["mot", "yolo-pose", "bop"])
def test_a_format_of_what_is_never_drawn_is_refused_before_drawing(spec: Path, tmp_path: Path, format: str) -> None:
    why = "(sequences, which a spec draws that has 'sequence'|(keypoints|camera), which composite does not draw)"
    with pytest.raises(ConfigError, match=f"--export {format}: needs {why}; this one gives coco, "):
        selfsight.synth(spec, tmp_path / "set", count=4, workers=0, export=["coco", format])
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "synth: expected a spec; 'selfsight synth --template > spec.yaml' writes one"),
        (["none.yaml", "--out", "set"], "none.yaml: cannot be read (No such file or directory)"),
        (["parts.yaml"], "synth: expected --out, a folder for pictures and labels"),
        (["parts.yaml", "--out", "set", "--backend", "compsite"], "no backend 'compsite'. Did you mean 'composite'?"),
        (["photo.png", "--out", "set"], "photo.png: is no YAML"),
        (["rendered.yaml", "--out", "set"], "rendered.yaml: render: the backend composite renders nothing"),
    ],
)
def test_a_wrong_call_is_one_line(
    spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    monkeypatch.chdir(spec.parent)
    Path("rendered.yaml").write_text(yaml.safe_dump(SPEC | {"render": {"samples": 4}}))
    code, printed, said = called(capsys, *words)
    assert (code, printed) == (2, "")
    assert line in said and said.count("\n") == 1
    assert not Path("set").exists()


def test_a_dry_run_says_how_factors_are_spread_and_writes_nothing(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(spec.parent.iterdir())
    code, printed, _ = called(capsys, spec, "--dry-run", "--count", "100")
    assert code == 0
    assert "parts: 48 x 48 pixels by composite: train 100, test 50, shift.light 50" in printed
    assert "bolt: 2 assets, the first bolts/a.png" in printed
    [row] = [line for line in printed.splitlines() if "│ light " in line]
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["light", "always 1", "shift.light: 0.2 to 0.4"]
    assert sorted(spec.parent.iterdir()) == before


def test_the_template_draws_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(template())
    spec = load_spec(tmp_path / "t.yaml")
    made = selfsight.synth(tmp_path / "t.yaml", tmp_path / "set", count=9, workers=0)
    assert made["pictures"] == 9 + 2 * (1 + len(spec.shifts()))
    for name in ("sheet.png", "factors.png"):
        picture = np.array(Image.open(tmp_path / "set" / name).convert("RGB"))
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 3
