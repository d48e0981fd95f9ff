"""`export`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer


def export(
    encoder: Annotated[str, typer.Argument(help="Encoder spec of a network, such as a run folder.")],
    to: Annotated[str, typer.Option(help="timm or transformers (a folder), or onnx (a file).", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder, or .onnx file, to write.", show_default=False)],
    results: Annotated[
        Path | None, typer.Option(help="Results folder whose scores the model card shows.", show_default=False)
    ] = None,
) -> None:
    """Take an encoder elsewhere: to timm, transformers or ONNX, verified, with a model card."""
    from selfsight import api
    from selfsight.terminal import Terminal

    with Terminal() as terminal:
        made = api.export(encoder, to, out, results=results, watch=terminal)
    for note in made["notes"]:
        terminal.say(f"note: {note}")
    for flag in made["flags"]:
        terminal.say(f"licence: {flag}")
    terminal.say(export_summary(to, made))


def export_summary(to: str, made: Mapping[str, Any]) -> str:
    """The closing line of an export."""
    if made["difference"] is None:
        return f"done: {made['path']}, {to}, not verified: {to} is not installed; pip install 'selfsight[{to}]' and export again"
    return f"done: {made['path']}, {to}, largest difference {made['difference']:.1e}"
