"""The program itself: its front page of help."""

from __future__ import annotations

from typing import Annotated

import typer

from selfsight import __version__

app = typer.Typer(
    name="selfsight",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="[bold]Should a self-supervised Vision Transformer replace your CNN?[/bold]\n\n"
    "Train one on your unlabelled images, compare it with what you use today, read the verdict.\n\n"
    "[dim]Start with[/dim] selfsight demo[dim], or on your own images:[/dim]\n\n"
    "  selfsight train photos --out runs/mine --minutes 60\n\n"
    "  selfsight compare labelled --encoder efficientnet-lite0 --encoder runs/mine --out results",
    epilog="Encoders: runs/NAME · timm/NAME · hf/ORG/NAME · torchvision/NAME · file/PATH?arch=NAME · onnx/PATH · "
    "efficientnet-lite0 · random/NAME · pixels. "
    "Options follow a question mark: timm/resnet50.a1_in1k?size=160",
)


def _version(asked: bool) -> None:
    if asked:
        print(f"selfsight {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    return
