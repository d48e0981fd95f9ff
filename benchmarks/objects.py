"""How long objects take to find beside the network that sees them, and TokenCut beside the whole matrix.

    python benchmarks/objects.py
    python benchmarks/objects.py --grid 60 --rounds 3

Claim: TokenCut is at least three times as fast as with `scipy.linalg.eigh` of the generalised problem, as the published code
solves it (`ncut` in `object_discovery.py` of YangtaoWANG95/TokenCut), from 28 x 28 places on, and the masks are the same. Both
sides start from the same features and end with a mask and a box. Features are drawn: soft fields of likeness with one thing that
stands out, and noise. The limit is the forward pass of a ViT-S over as many patches, with the attention of its last block; a
method far above it hardly counts.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from scipy.linalg import eigh
from threadpoolctl import threadpool_limits

from selfsight.attention.objects import FINDERS, box_of
from selfsight.attention.objects.tokencut import EPS, TAU, tokencut
from selfsight.attention.seeing import Eyes, Seen
from selfsight.encoders import TorchEncoder, load_encoder

PATCH, WIDTH, HEADS = 8, 384, 6
NETWORK = "random/vit_small_patch8_224"
Bools = npt.NDArray[np.bool_]


def drawn(side: int, seed: int) -> Seen:
    """What an encoder might see of a picture of side x side places."""
    draw = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(draw.standard_normal((side, side, WIDTH)), (side / 8, side / 8, 0))
    features = field / field.std() + 0.4 * draw.standard_normal(field.shape)
    left, top = draw.integers(side // 8, side // 2, 2)
    features[top : top + side // 3, left : left + side // 3] += 1.5 * draw.standard_normal(WIDTH)
    flat = features.reshape(-1, WIDTH).astype(np.float32)
    attention = draw.dirichlet(np.full(side * side, 0.5), HEADS).astype(np.float32)
    return Seen((side, side), flat, flat.copy(), attention)


def whole_matrix(seen: Seen) -> Bools:
    """The mask as the published code finds it: the matrix of degrees as a whole, two eigenvectors of the generalised problem."""
    unit = torch.nn.functional.normalize(torch.from_numpy(seen.keys), p=2)
    weights = (unit @ unit.T).numpy() > TAU
    weights = np.where(weights.astype(float) == 0, EPS, weights)
    degrees = np.diag(np.sum(weights, axis=1))
    _, vectors = eigh(degrees - weights, degrees, subset_by_index=[1, 2])
    vector = vectors[:, 0]
    foreground = vector > vector.mean()
    seed = np.argmax(np.abs(vector))
    foreground = foreground if foreground[seed] else ~foreground
    parts, _ = ndimage.label(foreground.reshape(seen.grid))
    mask: Bools = parts == parts.flat[seed]
    box_of(mask)
    return mask


def ours(seen: Seen) -> Bools:
    found = tokencut(seen.keys, seen.grid)
    assert found.box
    return found.mask


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def forward(eyes: Eyes, side: int) -> float:
    images = torch.randn(1, 3, side * PATCH, side * PATCH)
    return seconds(lambda: eyes.see(images))


def measured(seen: Seen, peer_first: bool) -> dict[str, float]:
    """Seconds of both sides and of every finder; the masks of the sides must be the same."""
    masks: dict[str, Bools] = {}
    sides = {
        "ours": lambda: masks.update(ours=ours(seen)),
        "peer": lambda: masks.update(peer=whole_matrix(seen)),
    }
    row = {name: seconds(sides[name]) for name in (reversed(sides) if peer_first else sides)}
    if not (masks["ours"] == masks["peer"]).all():
        sys.exit(f"objects: masks differ in a scene of {seen.grid[0]} x {seen.grid[1]} places")
    for name, kind in FINDERS.items():
        row[name] = seconds(partial(kind().find, seen, 1))
    return row


def run(side: int, rounds: int, eyes: Eyes) -> None:
    """A scene a round."""
    rows = [measured(drawn(side, n), n % 2 == 0) | {"limit": forward(eyes, side)} for n in range(rounds)]
    median = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    print(f"{side} x {side} places, images/s: " + "   ".join(f"{name} {1 / median[name]:.3g}" for name in [*FINDERS, "limit"]))
    ratio = statistics.median(row["peer"] / row["ours"] for row in rows)
    print(
        f"objects-{side} ratio={ratio:.2f} ours={1 / median['ours']:.2f} peer={1 / median['peer']:.2f} "
        f"limit={1 / median['limit']:.2f} unit=images/s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--grid", type=int, action="append", help="places a side; default: 14, 28 and 60")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of torch, SciPy and NumPy")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    threadpool_limits(given.threads)
    encoder = load_encoder(NETWORK)
    assert isinstance(encoder, TorchEncoder)
    for side in given.grid or (14, 28, 60):
        run(side, given.rounds, Eyes(encoder))


if __name__ == "__main__":
    main()
