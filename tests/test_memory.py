"""A training without enough memory says what to turn."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import small_training
from selfsight.synth.drawing import draw_dataset

LIMIT = """
import resource, torch, selfsight.api
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 700 * 2**20,) * 2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space, which only Linux holds to")
def test_memory_that_is_not_to_be_had_ends_the_run_with_the_settings_to_turn(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "data", {"train": 16}, 0, 32, lambda done, total: None)
    words = small_training.words(tmp_path / "data" / "train", tmp_path / "run", 2, "objective.head.prototypes=30000000")
    process = small_training.start(words, LIMIT)
    _, error = process.communicate(timeout=100)
    assert process.returncode == 1, error
    assert "selfsight: out of memory with batch_size 8 in 1 parts. Raise parts (say to 2)" in error
    assert "nothing was trained yet" in error
    assert "Traceback" not in error
