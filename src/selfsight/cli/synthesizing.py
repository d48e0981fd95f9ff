"""`synth`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfsight.cli.going_on import going_on
from selfsight.errors import InputError
from selfsight.runs import counted

if TYPE_CHECKING:
    from selfsight.synthesis.spec import SynthSpec
    from selfsight.terminal import Terminal


def synth(
    spec: Annotated[Path | None, typer.Argument(help="YAML file of classes and factors.", show_default=False)] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for pictures and labels.", show_default=False)] = None,
    count: Annotated[int, typer.Option(help="Pictures of train; of other splits as many as the spec says.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other pictures.")] = 0,
    backend: Annotated[
        str | None, typer.Option(help="What draws (composite), in place of the spec's.", show_default=False)
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that draw; default: one a core.", show_default=False)
    ] = None,
    engine: Annotated[str, typer.Option(help="local, or ray: actors of a cluster, as many as --workers.")] = "local",
    export: Annotated[
        list[str] | None,
        typer.Option(
            help="Write OUT-FORMAT, too: coco, coco-polygons, yolo, yolo-segments, yolo-pose, voc, mot, bop, csv, imagefolder.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be drawn, and how factors are spread.")] = False,
    template: Annotated[bool, typer.Option("--template", help="Print a spec to begin with.")] = False,
) -> None:
    """Draw labelled pictures, and splits in which one factor of the world is another; the same command goes on."""
    if template:
        from selfsight.synthesis.template import template as text

        typer.echo(text(), nl=False)
        return
    if spec is None:
        raise InputError("synth: expected a spec; 'selfsight synth --template > spec.yaml' writes one to begin with")
    if out is None and not dry_run:
        raise InputError("synth: expected --out, a folder for pictures and labels")
    with going_on(" before the first picture;"):
        from selfsight import api
        from selfsight.terminal import Terminal

        if out is None or dry_run:
            _show_spread(Terminal(), *api.read_spec(spec, backend), count)
            return
        with Terminal() as terminal:
            asked = {"count": count, "seed": seed, "backend": backend, "workers": workers, "engine": engine}
            made = api.synth(spec, out, **asked, export=export or (), watch=terminal)  # type: ignore[arg-type]
    terminal.say(_closing(out, made))


def _show_spread(terminal: Terminal, spec: SynthSpec, base: Path, count: int) -> None:
    """What would be drawn, without drawing it."""
    from rich.markup import escape
    from rich.table import Table

    from selfsight.synthesis.sampler import counts
    from selfsight.synthesis.spec import described

    numbers = ", ".join(f"{split} {number}" for split, number in counts(spec, count).items())
    width, height = spec.size
    terminal.say(f"{spec.name}: {width} x {height} pixels by {spec.backend}: {numbers}")
    for name, given in spec.classes.items():
        terminal.say(f"  {name}: {counted(len(given.assets), 'asset')}, the first {given.assets[0]}")
    terminal.say(f"files are relative to {base}")
    table = Table()
    for column in ("factor", "in training", "elsewhere"):
        table.add_column(column)
    for row in described(spec):
        table.add_row(*map(escape, row))
    terminal.console.print(table)


def _closing(out: Path, made: dict[str, Any]) -> str:
    """The last line."""
    rate = made["pictures_per_second"]
    speed = "all done before" if rate is None else f"{rate:.0f} pictures/s"
    splits = ", ".join(f"{split} {number}" for split, number in made["splits"].items())
    what = f"{counted(made['pictures'], 'picture')} with {counted(made['objects'], 'object')} ({splits})"
    return f"done: {out}, {what}, {speed}; look at {' and '.join(made['files'])}"
