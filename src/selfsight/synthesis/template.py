"""The spec that `selfsight synth --template` writes: it draws as it is, and says what else can be said."""

from __future__ import annotations

from selfsight.synthesis.backends import BACKENDS
from selfsight.synthesis.factors import FACTORS

_HEAD = """\
# A set of labelled pictures, drawn by:  selfsight synth THIS_FILE --out shapes --count 1000
# Each factor is drawn anew for every picture, or for every object. A factor that is not given here has the usual spread below.
name: shapes
size: 128                       # pixels; [width, height] if not square

# A class is a folder of cut-outs (images with alpha), some files, or built-in shapes. Files are relative to this one.
classes:
  ring:
    assets: shape/ring
  star:
    assets: [shape/star, shape/gear]
  heart:
    assets: shape/heart
    factors:                    # this class alone
      hue: {normal: [350, 5]}

factors:
  size: {uniform: [0.3, 0.6]}                     # evenly between two numbers
  texture: [plain, dots, stripes]                 # one of these; images or a folder of them do as well
  background: {choice: [mottled, gradient], weights: [3, 1]}
  light: {loguniform: [0.7, 1.4]}                 # each doubling as likely as the next
  count: {integers: [1, 2]}                       # whole numbers, both ends included
  noise: 0.02                                     # always the same

# Pictures of a split for each one asked for by --count.
splits: {train: 1.0, test: 0.25}

# Splits in which one factor leaves what training shows. Scene for scene they are those of `test`, but for that factor.
shift:
  size: {small: {uniform: [0.12, 0.2]}, large: {uniform: [0.8, 1.0]}}
  light: {uniform: [0.2, 0.4]}
  texture: [checks, zigzag]
  occlusion: {uniform: [0.3, 0.6]}

# Splits with other assets of the same classes:
# shift_assets:
#   unseen: {ring: shape/disc, star: shape/cross, heart: shape/drop}

# What `train` alone shows more of, while test and shifts stay the same pictures ('selfsight refine' writes this):
# training:
#   size: {mixture: [{uniform: [0.3, 0.6]}, {uniform: [0.12, 0.2]}], weights: [2, 1]}

# Pictures that follow one another: each scene several times, while factors of numbers grow from one to the next:
# sequence: {frames: 8, motion: {x: {uniform: [-0.03, 0.03]}, rotation: 4}}

# mixed: true                   # each object draws a class of its own; pictures then have no label, objects have
# distractors: [shape/cross]    # what has no class: things of the factors `distractors` and `occlusion`
"""


def template() -> str:
    """YAML, with a line for each factor that a backend draws; those that not every one does say which."""
    lines = ["", "# All factors, and how they are spread where nothing is said:"]
    drawn = frozenset[str]().union(*(backend.factors for backend in BACKENDS.values())) - {"asset"}
    for name, factor in FACTORS.items():
        if name in drawn:
            bounds = "" if factor.low is None else f" ({factor.low:g} to {factor.high:g})"
            able = [backend for backend, kind in BACKENDS.items() if name in kind.factors]
            alone = "" if len(able) == len(BACKENDS) else f" (backend {' or '.join(able)})"
            lines.append(f"#   {name}: {factor.usual.text()}{bounds}; {factor.says}{alone}")
    return _HEAD + "\n".join(lines) + "\n"
