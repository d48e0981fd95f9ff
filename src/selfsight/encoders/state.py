"""Fitting a state dict to a network: find the prefix, set the head aside, refuse everything that is left over.

Nothing is ever loaded in part: a tensor that is missing, too many or of another shape is an error that names it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

from selfsight.errors import WeightsError

HEADS = ("fc", "head", "heads", "head_dist", "dino_head", "ibot_head", "classifier", "last_linear")
"""Where classifiers and projection heads live in timm, torchvision, transformers and the usual Lightning modules."""

_SHOWN = 8
_COUNTER = "num_batches_tracked"


class Fitted(NamedTuple):
    """Tensors under the network's own names, what was done to get there, and the head that was set aside by the file's names."""

    tensors: dict[str, Tensor]
    notes: list[str]
    head: dict[str, Tensor]


def fit(
    found: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    where: str,
    name: str,
    *,
    heads: Iterable[str] = (),
    ignore: Iterable[str] = (),
    first: str = "teacher",
    advice: str = "Is arch= right?",
) -> Fitted:
    """`found` under the names and shapes of `own`, the state dict of the network `name` without its classifier.

    The prefix under which most of `own` is found is stripped; of a student and a teacher the one that is `first` is taken.
    `heads` are further names of classifiers; keys that begin with one of `ignore` are left out. Raises `WeightsError`, which
    begins with `where` and ends with `advice`.
    """
    notes: list[str] = []
    kept = _without(found, tuple(ignore), notes)
    prefix = _best_prefix(kept, own, where, name, first, advice)
    if prefix:
        notes.append(f"prefix '{prefix}' stripped")
    chosen = {key.removeprefix(prefix): kept[key] for key in kept if key.startswith(prefix) and key.removeprefix(prefix) in own}
    rest = [key for key in kept if not (key.startswith(prefix) and key.removeprefix(prefix) in own)]
    rest, head = _set_aside(rest, prefix, (*heads, *HEADS), notes)
    missing = [key for key in own if key not in chosen and not key.endswith(_COUNTER)]
    if missing or rest:
        raise WeightsError(f"{where}: {_left_over(name, missing, rest)}. {advice}")
    _check_shapes(chosen, own, where, name, advice)
    # Counters of batch norm have no part in inference, and older files lack them.
    return Fitted({key: chosen.get(key, tensor) for key, tensor in own.items()}, notes, {key: kept[key] for key in head})


def _without(found: Mapping[str, Tensor], ignore: tuple[str, ...], notes: list[str]) -> dict[str, Tensor]:
    left_out = [key for key in found if any(key == prefix or key.startswith(prefix.rstrip(".") + ".") for prefix in ignore)]
    if left_out:
        notes.append(f"ignored as asked: {_listed(left_out)}")
    return {key: tensor for key, tensor in found.items() if key not in set(left_out)}


def _best_prefix(found: Mapping[str, Tensor], own: Mapping[str, Tensor], where: str, name: str, first: str, advice: str) -> str:
    """The prefix under which most of the network's tensors are."""
    votes: Counter[str] = Counter()
    for key in found:
        parts = key.split(".")
        for cut in range(len(parts)):
            if ".".join(parts[cut:]) in own:
                votes[".".join(parts[:cut]) + "." if cut else ""] += 1
    if not votes:
        raise WeightsError(f"{where}: holds no tensor of '{name}'; its tensors are {_listed(list(found))}. {advice}")
    most = max(votes.values())
    best = [prefix for prefix, count in votes.items() if count == most]
    return best[0] if len(best) == 1 else _of_several(best, where, name, first)


def _of_several(prefixes: list[str], where: str, name: str, wanted: str) -> str:
    """Self-distillation leaves two equal networks, of which the teacher is the one to use, if it is not said otherwise."""
    teachers = [prefix for prefix in prefixes if _swapped(prefix) is not None]
    if len(teachers) == 1 and set(prefixes) == {teachers[0], _swapped(teachers[0])}:
        return prefixes[0] if _has(prefixes[0], wanted) else prefixes[1]
    first = prefixes[0].rstrip(".")
    raise WeightsError(
        f"{where}: holds '{name}' {len(prefixes)} times, under {', '.join(map(repr, prefixes))}; "
        f"leave one out, for example with ?ignore={first}"
    )


def _has(prefix: str, part: str) -> bool:
    return part in prefix.split(".")


def _swapped(prefix: str, of: str = "teacher", to: str = "student") -> str | None:
    """The student's prefix for a teacher's, or the other way round; None for one of neither."""
    parts = prefix.split(".")
    return ".".join(to if part == of else part for part in parts) if of in parts else None


def _set_aside(keys: list[str], prefix: str, heads: tuple[str, ...], notes: list[str]) -> tuple[list[str], list[str]]:
    """`keys` without heads, which sit beside the backbone or in one of the modules around it, and without its twin; the heads."""
    around = prefix.split(".")[:-1]
    outer = [".".join(around[:depth]) + "." if depth else "" for depth in range(len(around) + 1)]
    starts = tuple(f"{module}{head}." for module in outer for head in heads)
    head = [key for key in keys if key.startswith(starts)]
    if head:
        notes.append(f"head set aside: {_listed(head)}")
    twin: list[str] = []
    for used, other in (("teacher", "student"), ("student", "teacher")):
        if _has(prefix, used):
            twin = [key for key in keys if key.startswith(f"{prefix.split(used)[0]}{other}.")]
            notes += [f"the {used} is used, the {other} set aside ({len(twin)} tensors)"] if twin else []
    gone = {*head, *twin}
    return [key for key in keys if key not in gone], head


def _left_over(name: str, missing: list[str], unexpected: list[str]) -> str:
    parts = []
    if missing:
        parts.append(f"{len(missing)} tensors of '{name}' are missing: {_listed(missing)}")
    if unexpected:
        modules = ",".join(sorted({key.split(".")[0] for key in unexpected})[:3])
        parts.append(f"{len(unexpected)} tensors are unexpected: {_listed(unexpected)} (option ignore={modules} leaves them out)")
    return "; ".join(parts)


def _check_shapes(chosen: Mapping[str, Tensor], own: Mapping[str, Tensor], where: str, name: str, advice: str) -> None:
    wrong = [key for key, tensor in chosen.items() if tensor.shape != own[key].shape]
    if wrong:
        key = wrong[0]
        shapes = f"{tuple(chosen[key].shape)} in the file, {tuple(own[key].shape)} in '{name}'"
        raise WeightsError(f"{where}: {len(wrong)} tensors have another shape; first '{key}': {shapes}. {advice}")


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more
