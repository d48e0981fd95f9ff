"""Encoders in the forms of other libraries, each verified by loading it again with its own library.

To add a target: a file here with its `TARGET`, and a line in `TARGETS`; `tests/test_export.py` runs its round trip.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

from selfsight.encoders.base import Encoder, TorchEncoder
from selfsight.encoders.export import onnx_program, timm_folder, transformers_folder
from selfsight.encoders.export.base import CARD, LARGEST, Target, difference
from selfsight.errors import InputError, SelfsightError, WeightsError, nearest
from selfsight.runs import remove_folder, room_for

TARGETS: dict[str, Target] = {
    "timm": timm_folder.TARGET,
    "transformers": transformers_folder.TARGET,
    "onnx": onnx_program.TARGET,
}

Card: TypeAlias = Callable[[TorchEncoder, Target, float | None, list[str]], str]
"""The text of the model card, given the largest difference and the notes."""


class Exported(NamedTuple):
    """What was written: a folder with its card, or a file and the card beside it. `difference` is None where the target's own
    library is not installed to verify it; `notes` say what the form does not hold."""

    path: Path
    card: Path
    difference: float | None
    notes: list[str]


def export_encoder(encoder: Encoder, to: str, out: Path, card: Card) -> Exported:
    """Write `encoder` in the form `to` at `out`, where nothing may be yet; all of it or nothing.

    `InputError` for a form or a place that will not do, `WeightsError` for a network that the form cannot hold, `SelfsightError`
    where it says another thing than the encoder.
    """
    target, beside = checked(to, out)
    if not isinstance(encoder, TorchEncoder):
        raise WeightsError(f"{encoder.spec}: has no torch network to export; expected runs/NAME, timm/NAME, file/PATH?arch=NAME")
    work = out.parent / f".{out.name}.writing"
    remove_folder(work)
    try:
        with room_for(out, 4 * encoder.parameters):
            place = work / "folder" if target.folder else work / out.name
            (place if target.folder else work).mkdir(parents=True)
            notes = target.write(encoder, place)
            found = _verified(encoder, target, place)
            text = card(encoder, target, found, notes)
            (place / CARD if target.folder else work / beside.name).write_text(text, encoding="utf-8")
        if not target.folder:
            (work / beside.name).replace(beside)
        place.replace(out)
    finally:
        remove_folder(work)
    return Exported(out, beside, found, notes)


def checked(to: str, out: Path) -> tuple[Target, Path]:
    """The target, and where its card will be."""
    if to not in TARGETS:
        raise InputError(f"--to {to}: there is no such form. {nearest(to, TARGETS)}")
    target = TARGETS[to]
    if not target.folder and out.suffix != f".{target.library}":
        raise InputError(f"--out {out}: expected a file that ends in .{target.library}")
    beside = out / CARD if target.folder else out.with_suffix(".md")
    for path in (out, beside):
        if path.exists():
            raise InputError(f"--out {out}: {path} is there already; give another path or remove it")
    return target, beside


def _verified(encoder: TorchEncoder, target: Target, place: Path) -> float | None:
    """The largest difference, as loaded by the target's own library; None where that is not installed."""
    try:
        found = difference(encoder, target.read(place, encoder), target.sizes(place, encoder))
    except ImportError:
        return None
    if not found <= LARGEST:
        raise SelfsightError(
            f"{encoder.spec}: {target.library} gives other features than the encoder (largest difference {found:.1e}, allowed "
            f"{LARGEST:.0e}), so nothing was written; this form does not hold the network, another may"
        )
    return found


__all__ = ["TARGETS", "Exported", "Target", "checked", "export_encoder"]
