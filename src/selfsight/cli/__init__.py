"""The command line: parse, call the function of the same name, print. Nothing else is decided here.

A verb is a file, or shares one with its like, and stands in `VERBS`, in the order of the front page.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import typer

from selfsight.cli.app import app
from selfsight.cli.attending import attend
from selfsight.cli.comparing import compare, report
from selfsight.cli.embedding import embed
from selfsight.cli.exploring import explore
from selfsight.cli.exporting import export
from selfsight.cli.finding import objects
from selfsight.cli.finetuning import finetune, predict
from selfsight.cli.propagating import propagate
from selfsight.cli.refining import refine
from selfsight.cli.searching import duplicates, search
from selfsight.cli.starting import demo, doctor, views
from selfsight.cli.synthesizing import synth
from selfsight.cli.training import train
from selfsight.errors import ElsewhereError, SelfsightError

VERBS: dict[str, tuple[Callable[..., None], ...]] = {
    "The main job": (train, compare, report),
    "Use an encoder": (finetune, predict, embed, export, search, duplicates),
    "See what it looks at": (attend, objects, propagate, explore),
    "Make images": (synth, refine),
    "Start here": (demo, views, doctor),
}
for _panel, _verbs in VERBS.items():
    for _verb in _verbs:
        app.command(rich_help_panel=_panel)(_verb)


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the program; a user's mistake is one line and exit code 2, never a traceback."""
    try:
        code: Any = app(args=argv, standalone_mode=False)
    except ElsewhereError as error:
        sys.exit(error.exit_code)
    except SelfsightError as error:
        if error.alone or os.environ.get("RANK", "0") == "0":
            print(f"selfsight: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        print(f"selfsight: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, (FileExistsError, NotADirectoryError, PermissionError, IsADirectoryError)) else 1)
    except typer.Abort:
        sys.exit(130)
    except KeyboardInterrupt:
        print("selfsight: stopped", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        # Typer's own usage errors carry the exit code and print themselves in its style.
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show()
            sys.exit(error.exit_code)
        raise
    sys.exit(code if isinstance(code, int) else 0)


__all__ = ["VERBS", "app", "main"]
