"""`explore`."""

from __future__ import annotations

from typing import Annotated

import typer

from selfsight.cli.going_on import going_on
from selfsight.cli.options import DATA, Device, MaxPixels, Workers


def explore(
    encoder: Annotated[str | None, typer.Argument(help="Encoder spec; default: efficientnet-lite0.", show_default=False)] = None,
    data: Annotated[str | None, typer.Argument(help=f"{DATA} Without it, no neighbours.", show_default=False)] = None,
    with_: Annotated[
        str | None, typer.Option("--with", metavar="ENCODER", help="A second encoder, side by side.", show_default=False)
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Shorter side of a picture in pixels; default: the encoder's own.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Index at most this many images.")] = 2000,
    host: Annotated[str, typer.Option(help="Where to listen; the default is for this machine alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0: any that is free.")] = 0,
    open: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    device: Device = "auto",
    workers: Workers = 0,
    max_pixels: MaxPixels = None,
) -> None:
    """A local page: click a point of a picture and see what the encoder sees alike, in it and in DATA."""
    with going_on("; what was indexed is kept:"):
        from selfsight.explorer import explore
        from selfsight.terminal import Terminal

        with Terminal() as terminal:
            explore(
                encoder,
                data,
                with_=with_,
                size=size,
                limit=limit,
                host=host,
                port=port,
                open=open,
                device=device,
                workers=workers,
                max_pixels=max_pixels,
                watch=terminal,
            )
