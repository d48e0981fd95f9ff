"""What can go wrong, as one tree.

::

    SelfsightError            exit 1   something failed while working
    ├── InputError            exit 2   what the user gave is wrong: one line says what, where, what would be right
    │   ├── DataError                  images, labels, folders
    │   ├── WeightsError               checkpoints, encoder specs
    │   └── ConfigError                settings
    ├── TrainingError         exit 1   a training that cannot go on
    │   ├── CollapseError              the teacher says the same for every image
    │   └── NonFiniteError             the loss is no number
    ├── DiskFullError         exit 1   a file does not fit on its disk
    ├── Interrupted           exit 128 + signal (130 Ctrl-C, 143 SIGTERM), after a checkpoint was written
    └── ElsewhereError        another of the ranks that train together has failed, and said why
"""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable


class SelfsightError(Exception):
    """Root of every error that selfsight raises on purpose."""

    exit_code = 1
    alone = False
    """Whether one of several ranks has it and the others have not."""


class InputError(SelfsightError):
    """What the user gave is wrong."""

    exit_code = 2


class DataError(InputError):
    """Images, labels or the folders that hold them."""


class WeightsError(InputError):
    """A checkpoint or an encoder spec."""


class ConfigError(InputError):
    """A setting."""


class TrainingError(SelfsightError):
    """A training that cannot go on."""


class CollapseError(TrainingError):
    """The teacher gives the same answer for every image."""


class NonFiniteError(TrainingError):
    """The loss is no longer a finite number."""


class DiskFullError(SelfsightError):
    """A file does not fit on its disk, or in the quota or the limit that is set for files."""


class Interrupted(SelfsightError):  # noqa: N818 (no error: the user asked for it)
    """A signal ended the work after a checkpoint was written."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.number, self.exit_code = signal_number, 128 + signal_number

    @classmethod
    def by(cls, signal_number: int, step: int) -> Interrupted:
        """Of a training, after `step`."""
        name = signal.Signals(signal_number).name
        return cls(signal_number, f"stopped by {name} at step {step}; a checkpoint is written")


class ElsewhereError(SelfsightError):
    """Another of the ranks that train together has failed; it alone says why."""

    def __init__(self, exit_code: int = 1) -> None:
        super().__init__("another rank has failed")
        self.exit_code = exit_code


def nearest(word: str, known: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` for a near miss, else the list of what exists."""
    options = sorted(known)
    close = difflib.get_close_matches(word, options, n=1)
    if close:
        return f"Did you mean '{close[0]}'?"
    return "Valid are: " + ", ".join(options) + "."
