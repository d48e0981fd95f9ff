"""`embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfsight.cli.options import Data, Device, Limit, MaxBad, MaxPixels, Strict, Workers


def embed(
    encoder: Annotated[str, typer.Argument(help="Encoder spec.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Parquet file to write.", show_default=False)],
    limit: Limit = None,
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images a batch.")] = 64,
    workers: Workers = 0,
    strict: Strict = False,
    max_bad: MaxBad = 5.0,
    max_pixels: MaxPixels = None,
) -> None:
    """Images in, a Parquet file of features out."""
    from selfsight import api
    from selfsight.terminal import Terminal, embed_summary

    with Terminal() as terminal:
        summary = api.embed(
            encoder,
            data,
            out,
            limit=limit,
            device=device,
            batch_size=batch_size,
            workers=workers,
            strict=strict,
            max_bad=max_bad,
            max_pixels=max_pixels,
            watch=terminal,
        )
    terminal.say(embed_summary(out, summary))
