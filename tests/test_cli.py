"""The program as a user meets it: real processes, exit codes, one-line errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import pictures
import selfsight
from selfsight.cli import main

TINY = ["--backbone", "vit_w32_d1_p8", "--set", "workers=0", "--set", "threads=1"]


def run(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from selfsight.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_help_names_every_verb_and_no_other() -> None:
    done = run("--help")
    assert done.returncode == 0
    for verb in (
        "train", "compare", "report", "finetune", "predict", "embed", "export", "search", "duplicates", "attend", "objects",
        "propagate", "synth", "demo", "views", "doctor", "explore",
    ):  # fmt: skip
        assert f" {verb} " in done.stdout


def test_importing_the_package_and_asking_for_help_load_no_torch() -> None:
    code = "import sys, selfsight, selfsight.cli; sys.exit('torch' in sys.modules or 'plotly' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_public_names_are_the_verbs() -> None:
    assert set(selfsight.__all__) == {
        "__version__", "attend", "compare", "demo", "doctor", "duplicates", "embed", "export", "finetune", "load_encoder",
        "objects", "explore", "predict", "propagate", "refine", "report", "resume", "search", "synth", "train", "views",
    }  # fmt: skip
    for name in selfsight.__all__:
        assert getattr(selfsight, name) is not None
    assert callable(selfsight.compare)
    with pytest.raises(AttributeError, match="no attribute 'synth_scenes'"):
        selfsight.synth_scenes  # noqa: B018


def test_version() -> None:
    assert run("--version").stdout.strip() == f"selfsight {selfsight.__version__}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nowhere", "--out", "run", "--epochs", "1"], "nowhere: does not exist"),
        (["train", "data", "--out", "run", "--recipe", "dini"], "Did you mean 'dino'?"),
        (["train", "data", "--out", "run", "--backbone", "vit_smal_patch16_224"], "vit_small_patch16_224"),
        (["train", "data", "--out", "run", "--set", "views.local_cout=3"], "Did you mean 'local_count'?"),
        (["train", "data", "--out", "run", "--set", "views.local_size=17"], "multiple of the patch"),
        (["train", "data", "--out", "run", "--epochs", "0"], "greater than 0"),
        (["train", "data", "--out", "run", "--device", "gpu"], "expected auto, cpu, cuda"),
        (["train", "data", "--out", "run", "--config", "none.yaml"], "none.yaml"),
        (["train", "--out", "run", "--resume"], "no run to resume"),
        (["train", "empty", "--out", "run"], "holds no image"),
        (["compare", "data", "-e", "pixels", "--out", "res"], "at least two encoders"),
        (["compare", "data", "-e", "pixels", "-e", "pixel", "--out", "res"], "pixels"),
        (["report", "data"], "results.json"),
        (["embed", "pixels", "data", "--out", "x.csv"], ".parquet"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    pictures.folder(tmp_path / "data", 16, classes=2)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(arguments)
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert message in said
    assert len(said.strip().splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "empty"]


def test_a_mistake_shows_no_traceback_in_a_real_process(tmp_path: Path) -> None:
    done = run("train", "nowhere", "--out", "run", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("selfsight: nowhere: does not exist; expected a folder of images, ")
    assert done.stderr.count("\n") == 1


def test_typers_own_usage_errors_exit_with_2_too(tmp_path: Path) -> None:
    assert run("compare", cwd=tmp_path).returncode == 2
    assert run("train", "--what", cwd=tmp_path).returncode == 2


def test_train_prints_what_it_derived_and_names_skipped_files(tmp_path: Path) -> None:
    data = pictures.folder(tmp_path / "data", 40, labelled=False)
    (data / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    done = run("train", data, "--out", tmp_path / "run", "--epochs", "2", *TINY)
    assert done.returncode == 0, done.stderr
    assert "head.prototypes" in done.stdout
    assert "on disk" in done.stdout
    assert "1 file skipped, first broken.jpg" in done.stdout
    rows = [json.loads(line) for line in (tmp_path / "run" / "bad_images.jsonl").read_text().splitlines()]
    assert [row["key"] for row in rows] == ["broken.jpg"]


def test_embed_writes_vectors_with_their_provenance(tmp_path: Path) -> None:
    data = pictures.folder(tmp_path / "data", 12, classes=3)
    done = run("embed", "random/vit_w32_d1_p8?size=32", data, "--out", tmp_path / "f.parquet")
    assert done.returncode == 0, done.stderr
    table = pq.read_table(tmp_path / "f.parquet")
    assert table.column_names == ["key", "label", "vector"]
    assert table.num_rows == 12
    assert len(table["vector"][0].as_py()) == 32
    about = json.loads(table.schema.metadata[b"selfsight"])
    assert about["encoder"] == "random/vit_w32_d1_p8?size=32"
    assert about["classes"] == ["bricks", "cells", "checks"] or len(about["classes"]) == 3


def test_doctor_looks_at_this_machine() -> None:
    done = run("doctor")
    assert done.returncode == 0, done.stdout
    for line in ("torch", "GFLOP/s", "JPEGs", "efficientnet-lite0"):
        assert line in done.stdout
    assert "compiling" not in done.stdout


def test_doctor_says_that_nothing_compiles_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no-such-compiler is not installed" in run("doctor", "--compile").stdout
