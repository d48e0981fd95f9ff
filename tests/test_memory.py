"""The largest batch that fits is found; a training without enough memory says what to turn."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

import pictures
import small_training
from selfsight import api, config, device
from selfsight.ssl.settings import TrainSettings

LIMIT = """
import resource, torch, selfsight.api.training
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 700 * 2**20,) * 2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space, which only Linux holds to")
def test_memory_that_is_not_to_be_had_ends_the_run_with_the_settings_to_turn(tmp_path: Path) -> None:
    pictures.dataset(tmp_path / "data", {"train": 16})
    words = small_training.words(tmp_path / "data" / "train", tmp_path / "run", 2, "objective.head.prototypes=30000000")
    process = small_training.start(words, LIMIT)
    _, error = process.communicate(timeout=100)
    assert process.returncode == 1, error
    assert "selfsight: out of memory with batch_size 8 in 1 parts. Raise parts (say to 2)" in error
    assert "nothing was trained yet" in error
    assert "Traceback" not in error


@pytest.mark.skipif(sys.platform != "linux", reason="on the CPU memory is measured by a file of Linux")
def test_the_largest_batch_that_fits_is_found_and_rates_follow_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures.dataset(tmp_path / "data", {"train": 600})
    options = {"backbone": "vit_w192_d6_p4", "device": "cpu", "epochs": 0.1, "set": {"workers": 0, "threads": 1}}

    def trained(name: str, free_mb: float) -> TrainSettings:
        monkeypatch.setattr(device, "free_memory_mb", lambda on: free_mb)
        api.train(tmp_path / "data" / "train", tmp_path / name, batch_size="auto", **options)
        return config.load(TrainSettings, tmp_path / name / "config.yaml")

    roomy, tight = trained("roomy", 1e6), trained("tight", 60)
    assert roomy.batch_size == 64, "an eighth of the images"
    assert tight.batch_size < 64
    assert roomy.optimizer.learning_rate >= tight.optimizer.learning_rate
    rows = [json.loads(line) for line in (tmp_path / "roomy" / "metrics.jsonl").read_text().splitlines()]
    assert any(row.get("peak_memory_mb", 0) > 100 for row in rows)


def test_more_images_in_memory_are_seen_in_its_peak() -> None:
    before = device.peak_memory_mb()
    held = torch.ones(60 * 2**18)  # 60 MiB
    assert device.peak_memory_mb() >= before
    assert device.peak_memory_mb() * 2**20 >= held.nbytes
    assert device.free_memory_mb(torch.device("cpu")) > 0


def test_rates_follow_the_batch(tmp_path: Path) -> None:
    pictures.dataset(tmp_path / "data", {"train": 64}, side=128)
    found = {}
    for batch in (4, 8):
        out = tmp_path / str(batch)
        api.train(
            tmp_path / "data" / "train",
            out,
            batch_size=batch,
            backbone="vit_w32_d1_p8",
            epochs=0.1,
            device="cpu",
            set={"workers": 0, "views": {"global_size": 32, "local_size": 16}},
        )
        settings = config.load(TrainSettings, out / "config.yaml")
        assert settings.batch_size == batch
        found[batch] = settings.optimizer.learning_rate
    assert found[8] == pytest.approx(2 * found[4], rel=1e-3)
