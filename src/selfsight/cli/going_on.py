"""What verbs have in common whose same command goes on with interrupted work."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from selfsight.errors import Interrupted


@contextmanager
def going_on(kept: str) -> Iterator[None]:
    """While entered, Ctrl-C and SIGTERM end in `Interrupted` with the command that goes on.

    `kept` says what is left where the work did not say it itself; it follows the name of the signal.
    """
    from selfsight.ssl.signals import Asked, Stop

    with Stop(always=True):
        try:
            yield
        except (Asked, Interrupted) as by:
            told = str(by) + ";" if isinstance(by, Interrupted) else f"stopped by {by.name}{kept}"
            raise Interrupted(by.number, f"{told} go on with: {shlex.join(['selfsight', *sys.argv[1:]])}") from None
