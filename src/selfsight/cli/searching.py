"""`search` and `duplicates`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfsight.cli.options import DATA, Device, MaxBad, MaxPixels, Strict, Workers
from selfsight.runs import counted

if TYPE_CHECKING:
    from selfsight.terminal import Terminal

_FEATURES = "Or a Parquet file of features that embed wrote."
_TELLS_LITTLE = 1.0
"""Percent of all pairs: a level that so many reach does not tell twins from strangers."""

Encoder = Annotated[str, typer.Argument(help="Encoder spec.")]
Gallery = Annotated[str, typer.Argument(help=f"{DATA} {_FEATURES}")]
Images = Annotated[
    str | None, typer.Option(help="Where the images of a file of features are now, for the pictures.", show_default=False)
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images a batch.")]
Format = Annotated[str, typer.Option(help="csv, parquet or json.")]


def search(
    encoder: Encoder,
    data: Gallery,
    queries: Annotated[
        list[str] | None, typer.Argument(metavar="QUERY...", help="Image files, or keys of DATA.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the table and a contact sheet.", show_default=False)] = None,
    k: Annotated[int, typer.Option("--k", "-k", help="Neighbours of each query.")] = 10,
    index: Annotated[
        Path | None, typer.Option(help="Folder that keeps the index; default: one of the cache.", show_default=False)
    ] = None,
    images: Images = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also ask each image of DATA for its class: mAP, recall and precision.")
    ] = False,
    format: Format = "csv",
    device: Device = "auto",
    batch_size: BatchSize = 64,
    workers: Workers = 0,
    strict: Strict = False,
    max_bad: MaxBad = 5.0,
    max_pixels: MaxPixels = None,
) -> None:
    """Find the images of DATA that an encoder sees as most like a given one."""
    from selfsight import api
    from selfsight.terminal import Terminal

    with Terminal() as terminal:
        found = api.search(
            encoder,
            data,
            queries or (),
            out,
            k=k,
            index=index,
            images=images,
            measure=measure,
            format=format,
            device=device,
            batch_size=batch_size,
            workers=workers,
            strict=strict,
            max_bad=max_bad,
            max_pixels=max_pixels,
            watch=terminal,
        )
    _show_search(terminal, found)


def duplicates(
    encoder: Encoder,
    data: Gallery,
    out: Annotated[Path, typer.Option(help="Folder for the pairs and a contact sheet.", show_default=False)],
    data2: Annotated[
        str | None, typer.Argument(help="A second set, as test images beside those of a training.", show_default=False)
    ] = None,
    above: Annotated[float, typer.Option(help="The least cosine of a pair.")] = 0.95,
    images: Images = None,
    images2: Images = None,
    format: Format = "csv",
    device: Device = "auto",
    batch_size: BatchSize = 64,
    workers: Workers = 0,
    strict: Strict = False,
    max_bad: MaxBad = 5.0,
    max_pixels: MaxPixels = None,
) -> None:
    """Find images that are too alike: within DATA, or those of DATA2 that have a twin in DATA."""
    from selfsight import api
    from selfsight.terminal import Terminal

    with Terminal() as terminal:
        found = api.duplicates(
            encoder,
            data,
            data2,
            out=out,
            above=above,
            images=images,
            images2=images2,
            format=format,
            device=device,
            batch_size=batch_size,
            workers=workers,
            strict=strict,
            max_bad=max_bad,
            max_pixels=max_pixels,
            watch=terminal,
        )
    for line in duplicates_summary(found, data, data2, above):
        terminal.say(line)
    terminal.say(_done(found))


def _show_search(terminal: Terminal, found: Mapping[str, Any]) -> None:
    """A table of each query, the measures, and what was written."""
    from rich.markup import escape
    from rich.table import Table

    for rows in found["results"]:
        table = Table(title=escape(rows[0]["query"]) if rows else "", title_justify="left")
        table.add_column("rank", justify="right")
        table.add_column("key", overflow="fold")
        table.add_column("cosine", justify="right")
        if rows and "label" in rows[0]:
            table.add_column("label", overflow="fold")
        for row in rows:
            label = [escape(row["label"])] if "label" in row else []
            table.add_row(str(row["rank"]), escape(row["key"]), f"{row['cosine']:.4f}", *label)
        terminal.console.print(table)
    if found["measure"]:
        terminal.say(measure_summary(found["measure"], found["images"]))
    if found["files"] or found["bad_images"]:
        terminal.say(_done(found))


def measure_summary(measure: Mapping[str, Any], images: int) -> str:
    """How well neighbours share a class."""
    recall, precision = (", ".join(f"@{k} {value:.1f}" for k, value in measure[name].items()) for name in ("recall", "precision"))
    alone = images - measure["queries"]
    left_out = f" ({alone} stand alone in their class and are left out)" if alone else ""
    return (
        f"each of {measure['queries']} images asks for the others of its class{left_out}, in percent: "
        f"mAP {measure['mean_average_precision']:.1f}; recall {recall}; precision {precision}"
    )


def duplicates_summary(found: Mapping[str, Any], data: str, data2: str | None, above: float) -> list[str]:
    """How many pairs there are, and what follows from them."""
    if not found["pairs"]:
        highest = f"; the most alike pair has {found['highest']:.4f}" if found["highest"] is not None else ""
        of = f"image of {data2} has a twin in {data}" if data2 else f"two images of {data} are twins"
        return [f"no {of} at a cosine of {above:g} or more{highest}"]
    same = f", {found['identical']} of them copies to the byte" if found["identical"] is not None else ""
    lines = [f"{counted(found['pairs'], 'pair')} of cosine {above:g} or more in {counted(found['groups'], 'group')}{same}"]
    lines.append(_leak(found, data, data2) if data2 else _repeats(found, data))
    if found["labels_differ"]:
        lines.append(f"{counted(found['labels_differ'], 'pair')} with different labels: at most one label of each is right")
    if found["share_of_pairs"] > _TELLS_LITTLE:
        share = f"{found['share_of_pairs']:.1f} % of all pairs are as alike"
        lines.append(f"{share}: to this encoder {above:g} tells little; look at the sheet and give a higher --above")
    return lines


def _leak(found: Mapping[str, Any], data: str, data2: str) -> str:
    twins = f"{found['twins']} of {found['images2']} images of {data2} ({found['share']:.1f} %) have a twin in {data}"
    return (
        f"{twins}: what is trained on {data} knows them by heart, so up to {found['share']:.1f} points of its accuracy on "
        f"{data2} may be memory; leave those images out of the test (column second)"
    )


def _repeats(found: Mapping[str, Any], data: str) -> str:
    return (
        f"{found['twins']} of {found['images']} images of {data} ({found['share']:.1f} %) repeat another: a split at random puts "
        "twins on both sides, so keep one of each group, or keep groups together (column group)"
    )


def _done(found: Mapping[str, Any]) -> str:
    bad = found["bad_images"]
    skipped = f"; {counted(len(bad), 'file')} skipped, first {bad[0]['key']} ({bad[0]['reason']})" if bad else ""
    return f"done: {', '.join(found['files']) or 'nothing written'}{skipped}"
