"""`refine`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def refine(
    results: Annotated[Path, typer.Argument(help="Results folder of 'compare SET --tasks shift'.", show_default=False)],
    spec: Annotated[Path, typer.Argument(help="The spec that drew its set.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The new spec.", show_default=False)],
    encoder: Annotated[
        str | None, typer.Option("--encoder", "-e", help="Whose failures; default: the challenger.", show_default=False)
    ] = None,
) -> None:
    """Where an encoder failed on a drawn set, write a spec whose training shows more of that; its tests stay the same."""
    from selfsight import api
    from selfsight.cli.answers import refine_summary
    from selfsight.terminal import Terminal

    with Terminal() as terminal:
        made = api.refine(results, spec, out, encoder=encoder, watch=terminal)
    refine_summary(terminal, made, results)
