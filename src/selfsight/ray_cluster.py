"""Work spread over the machines of a Ray cluster, the engine `ray` of some verbs."""

from __future__ import annotations

import os
from typing import Any

from selfsight.errors import ConfigError, nearest

ENGINES = ("local", "ray")


def check_engine(engine: str) -> None:
    """`ConfigError` for one that is none."""
    if engine not in ENGINES:
        raise ConfigError(f"--engine: no engine '{engine}'. {nearest(engine, ENGINES)}")


def joined() -> Any:
    """The module `ray`, in a cluster: one that runs is joined, or one is started on this machine. `ConfigError` without Ray."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise ConfigError("--engine ray: needs Ray; pip install 'selfsight[ray]'") from None
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)
    return ray
