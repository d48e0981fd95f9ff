"""What `strict` and `max_bad` mean wherever a verb takes them."""

from __future__ import annotations

from selfsight.data.tolerance import Tolerance
from selfsight.errors import ConfigError


def tolerance(strict: bool, max_bad: float) -> Tolerance:
    """`max_bad` in percent."""
    if not 0 <= max_bad <= 100:
        raise ConfigError(f"--max-bad: expected a percentage from 0 to 100. Got {max_bad:g}.")
    return Tolerance(strict=strict, max_bad=max_bad / 100)
