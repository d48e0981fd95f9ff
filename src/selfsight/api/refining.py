"""`refine`: where an encoder failed on a drawn set, and a spec whose training shows more of that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from selfsight import manifest
from selfsight.api.synthesizing import read_spec
from selfsight.api.watch import Silent, Watch
from selfsight.comparison.refine import Failure, failures
from selfsight.errors import ConfigError, InputError
from selfsight.runs import write_text_atomic
from selfsight.synthesis.loading import checked, load_spec
from selfsight.synthesis.refining import refined
from selfsight.synthesis.spec import Refinement, SynthSpec, written


def refine(
    results: str | Path, spec: str | Path, out: str | Path, *, encoder: str | None = None, watch: Watch | None = None
) -> dict[str, Any]:
    """Write to `out` the spec `spec` with more of what `encoder` fails on, by default the challenger, in its training.

    `results` is the folder of a comparison with the task shift on the set of `spec`. A slice of its test pictures, or a shift, is
    answered where the encoder fails there for certain: the whole interval below zero and p below 0.05, by Holm over all slices,
    or shifts. A third of training goes to what a factor fails on; `test` and all shifted splits are drawn as before, picture by
    picture, so that a comparison on the new set can be laid beside the old one (`compare(..., before=results)`).

    Returns `encoder`, `failures` (tuples of `comparison.refine.Failure`), `answered` (of `synthesis.spec.Refinement`), `left`
    (what a spec cannot answer, with the reason), `out` (None where nothing is answered and nothing was written), and for the next
    comparison `encoders`, and `count` and `seed` of the set.
    """
    watch, place = watch or Silent(), Path(out)
    given = load_spec(spec)
    base = read_spec(spec)[1]
    _check_place(given, base, place)
    weak = failures(results, encoder)
    answer = refined(given, [_asked(weak.encoder, each) for each in weak.failures], str(spec))
    for why in answer.left:
        watch.say(f"left: {why}")
    if answer.answered:
        head = f"# {spec}, refined by where {weak.encoder} failed in {results}\n"
        write_text_atomic(place, head + written(checked(answer.spec, str(out))))
    told = {"encoder": weak.encoder, "failures": weak.failures, "answered": answer.answered, "left": answer.left}
    return told | {"out": str(place) if answer.answered else None, "encoders": weak.encoders, **_drawn(weak.data)}


def _drawn(folder: str) -> dict[str, Any]:
    """`count` and `seed` of the set, with which its tests are drawn again; None where it is gone or says neither."""
    there = (Path(folder) / "dataset.json").is_file()
    made = manifest.read_info(folder).provenance if there else {}
    return {name: made.get(name) for name in ("count", "seed")}


def _asked(encoder: str, each: Failure) -> Refinement:
    told = {name: getattr(each, name) for name in ("condition", "factor", "span", "value", "n")}
    return Refinement(encoder=encoder, change="", **told | {"value": round(each.value, 2)})


def _check_place(spec: SynthSpec, base: Path, out: Path) -> None:
    if out.exists():
        raise InputError(f"--out {out}: is there already; give another name")
    files = [name for name in spec.named() if name and (base / name).exists()]
    if files and out.absolute().parent != base:
        raise ConfigError(f"--out {out}: the spec names files relative to its folder, such as {files[0]}; write it to {base}")
