"""Nothing that a test keeps may land in the cache of whoever runs it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="session")
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("SELFSIGHT_CACHE")
    os.environ["SELFSIGHT_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["SELFSIGHT_CACHE"]
    else:
        os.environ["SELFSIGHT_CACHE"] = before
