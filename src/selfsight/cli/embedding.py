"""`embed`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from selfsight.cli.going_on import going_on
from selfsight.cli.options import Data, Device, Limit, MaxBad, MaxPixels, Strict


def embed(
    encoder: Annotated[str, typer.Argument(help="Encoder spec.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Parquet file to write.", show_default=False)],
    limit: Limit = None,
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images a batch.")] = 64,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that read and decode images (half of the cores); 0: none.", show_default=False),
    ] = None,
    dtype: Annotated[str, typer.Option(help="Numbers of the file: float32 or float16.")] = "float32",
    runtime: Annotated[str, typer.Option(help="auto (the fastest that is exact), torch, onnx or compile.")] = "auto",
    precision: Annotated[str, typer.Option(help="float32, or bfloat16 with torch: faster on a GPU.")] = "float32",
    engine: Annotated[str, typer.Option(help="local, or ray: actors of a cluster, as many as --workers.")] = "local",
    strict: Strict = False,
    max_bad: MaxBad = 5.0,
    max_pixels: MaxPixels = None,
) -> None:
    """Images in, a Parquet file of features out; the same command goes on with an interrupted one."""
    with going_on(" before the first image;"):
        from selfsight import api
        from selfsight.terminal import Terminal

        with Terminal() as terminal:
            summary = api.embed(
                encoder,
                data,
                out,
                limit=limit,
                device=device,
                batch_size=batch_size,
                workers=workers,
                dtype=dtype,
                runtime=runtime,
                precision=precision,
                engine=engine,
                strict=strict,
                max_bad=max_bad,
                max_pixels=max_pixels,
                watch=terminal,
            )
    terminal.say(_closing(out, summary))


def _closing(out: Path, summary: Mapping[str, Any]) -> str:
    """The last line."""
    from selfsight.runs import bad_list_of
    from selfsight.terminal import skipped

    rate = summary["images_per_second"]
    speed = "all done before" if rate is None else f"{rate:.1f} images/s, runtime {summary['runtime']}"
    text = f"done: {out}, {summary['images']} images, {summary['feature_width']} numbers each, {speed}"
    return text + skipped(bad_list_of(out))
