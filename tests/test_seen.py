"""Encoders are not judged on images whose labels they have learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import labelled
from selfsight import api
from selfsight.comparison.seen import refuse_seen
from selfsight.data.sources import overlap
from selfsight.errors import DataError


def run(path: Path, data: Any, **settings: Any) -> str:
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump({"data": data, **settings}))
    return str(path)


TUNED: dict[str, Any] = {"finetune": {"validation": None}}
LEARNT = [
    ("/data", TUNED),
    (["/data/test", "/more"], {"objective": {"name": "supervised"}}),
    ({"/data/test": 0.5, "/more": 0.5}, TUNED),
    ("/data/train", {"finetune": {"validation": "/data/test"}}),
]


@pytest.mark.parametrize(("data", "settings"), LEARNT)
def test_runs_that_learnt_from_labels_are_refused_their_own_images(data: Any, settings: dict[str, Any], tmp_path: Path) -> None:
    spec = run(tmp_path / "run", data, **settings)
    with pytest.raises(DataError, match=r"has learnt the labels of /data.*; give --test images that it has not seen"):
        refuse_seen(["pixels", f"{spec}?pool=logits"], "/data/test")
    refuse_seen([spec], "/elsewhere/test")
    refuse_seen([f"{spec}?weights=init"], "/data/test")


def test_what_began_with_such_a_run_or_followed_it_is_refused_too(tmp_path: Path) -> None:
    first = run(tmp_path / "first", "/data", **TUNED)
    second = run(tmp_path / "second", "/photos", init=first, objective={"name": "dino"})
    third = run(tmp_path / "third", "/photos", guide=second)
    for spec in (second, third, f"{second}?weights=init"):
        with pytest.raises(DataError, match=f"has learnt the labels of /data through {first}"):
            refuse_seen([spec], "/data")
    refuse_seen([f"{third}?weights=init"], "/data")
    refuse_seen([run(tmp_path / "fourth", "/photos", init="/gone/run", objective={"name": "dino"})], "/data")


def test_splits_that_took_no_part_may_judge(tmp_path: Path) -> None:
    spec = run(tmp_path / "run", ["/drawn", "/more"], finetune={"splits": ["train", "val"]})
    refuse_seen([spec], "/drawn?split=test")
    for test in ("/drawn", "/drawn?split=train", "/more?split=val"):
        with pytest.raises(DataError, match="has learnt the labels of /"):
            refuse_seen([spec], test)


def test_images_seen_without_labels_are_no_reason(tmp_path: Path) -> None:
    spec = run(tmp_path / "run", "/data", objective={"name": "dino"})
    refuse_seen([spec], "/data")
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump({"data": "/data", "objective": {"name": "supervised"}}))
    with pytest.raises(DataError, match="has learnt the labels of /data"):
        refuse_seen([spec], "/data")


def test_places(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert overlap(str(tmp_path / "link" / "a"), str(tmp_path / "real"))
    assert not overlap("/d/t.csv?split=train", "/d/t.csv?split=test")
    assert overlap("/d/t.csv?split=train", "/d/t.csv")
    assert overlap("/d/*.tar", "/d/a.tar")
    assert not overlap("/d/train", "/d/test")
    assert not overlap("s3://bucket/train", "s3://bucket/test")


def test_lists_of_labels_are_said_not_to_be_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFSIGHT_CACHE", str(tmp_path / "cache"))
    data = labelled.coloured(tmp_path / "several.parquet", 24)
    results = api.compare(data, ["pixels", "random/vit_w32_d1_p8?size=16"], tmp_path / "out")
    assert results.verdict is None
    assert any("lists of labels, which are not compared yet" in note for note in results.data.notes)
