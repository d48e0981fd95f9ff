"""TokenCut (Wang et al. 2022): places as a graph that is cut in two where the fewest of its edges are (Shi and Malik 2000)."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.linalg import eigh
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from selfsight.attention.objects.base import Bools, Box, Finder, Floats, Found, all_alike, box_of, looked_in, part_with
from selfsight.attention.seeing import Seen

Doubles = npt.NDArray[np.float64]
TAU, EPS = 0.2, 1e-5
"""A cosine above TAU is an edge of weight 1, any other one of weight EPS."""
_FEW = 256
"""Places of which the whole matrix is solved sooner than Lanczos has begun."""
_EXACT, _RESTARTS = 1e-12, 100
_CORNERS = 3
"""Of the picture in a side that is background."""
_LEAST = 0.5
"""The score of a cut at random where all places are alike."""


class Cut(NamedTuple):
    """Two sides of a graph. `vector` [N] is the second smallest eigenvector and `value` its eigenvalue; `side` [N] are the places
    of the foreground, `seed` the one that stands out most."""

    vector: Doubles
    value: float
    side: Bools
    seed: int

    @property
    def turned(self) -> Cut:
        """The other side, with the seed that stands out most in it."""
        side = ~self.side
        return Cut(-self.vector, self.value, side, int(np.where(side, np.abs(self.vector), -1).argmax()))


class Graph:
    """Places that are joined by `edges` [N, N]."""

    def __init__(self, edges: Doubles) -> None:
        self.edges = edges

    @classmethod
    def of(cls, features: Floats, tau: float = TAU, eps: float = EPS) -> Graph:
        """Joined by the cosine of their features [N, D]: weight 1 above `tau`, else `eps` (section 3.2 of the paper)."""
        unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
        return cls(np.where(unit @ unit.T > tau, 1.0, eps))

    @cached_property
    def degrees(self) -> Doubles:
        return self.edges.sum(1)

    @property
    def tells_apart(self) -> bool:
        """Whether some pairs of places are joined and others are not."""
        joined = self.edges == 1
        pairs = int(joined.sum() - joined.diagonal().sum())
        return 0 < pairs < len(joined) * (len(joined) - 1)

    def within(self, places: npt.NDArray[np.int64]) -> Graph:
        """The graph of some of the places alone."""
        return Graph(self.edges[np.ix_(places, places)])

    def cut(self, *, plain: bool | None = None) -> Cut:
        """Bipartition at the mean of the second smallest eigenvector of (D - A) v = lambda D v, scaled to v' D v = 1.

        The foreground is the side of the place whose entry is largest. `plain` solves the whole matrix, which takes longer from
        a few hundred places on; the eigenvectors agree to 1e-6.
        """
        plain = len(self.edges) <= _FEW if plain is None else plain
        vector, value = self._plain() if plain else self._by_lanczos()
        seed = int(np.abs(vector).argmax())
        side = vector > vector.mean()
        if not side[seed]:
            vector, side = -vector, ~side
        return Cut(vector, value, side, seed)

    def apart(self, places: Bools) -> float:
        """1 minus half the normalised cut (equation 2 of Shi and Malik) between some places [N] and the others: 1 where no edge
        joins the two sides, 0.5 for sides taken at random from places that are all alike."""
        between = self.edges[np.ix_(places, ~places)].sum()
        return float(1 - (between / self.degrees[places].sum() + between / self.degrees[~places].sum()) / 2)

    def _plain(self) -> tuple[Doubles, float]:
        values, vectors = eigh(np.diag(self.degrees) - self.edges, np.diag(self.degrees), subset_by_index=[1, 1])
        return vectors[:, 0], float(values[0])

    def _by_lanczos(self) -> tuple[Doubles, float]:
        """The same v is D^-1/2 y, where y is the second *largest* eigenvector of D^-1/2 A D^-1/2, at 1 - lambda, which is the end
        of the spectrum where Lanczos is quick. The largest one is known, D^1/2 1 at 1; it is taken away twice, to -1, so that it
        cannot be found."""
        root = np.sqrt(self.degrees)
        known = root / np.linalg.norm(root)

        def times(y: Doubles) -> Doubles:
            y = y.reshape(-1)
            product: Doubles = (self.edges @ (y / root)) / root - 2 * known * (known @ y)
            return product

        operator = LinearOperator((len(root), len(root)), matvec=times, dtype=np.float64)
        begin = np.random.default_rng(0).standard_normal(len(root))
        try:
            values, vectors = eigsh(operator, k=1, which="LA", v0=begin, tol=_EXACT, maxiter=_RESTARTS)
        except ArpackNoConvergence:  # eigenvalues that lie too close together
            return self._plain()
        return vectors[:, 0] / root, float(1 - values[0])


class Seed(NamedTuple):
    """What `tokencut` gives over the grid [h, w]: the `cut`, its foreground as `bipartition`, the numbered `components` of that,
    and of these the one of the seed as `mask`."""

    cut: Cut
    bipartition: Bools
    components: npt.NDArray[np.int32]
    mask: Bools

    @property
    def box(self) -> Box:
        return box_of(self.mask)


def tokencut(features: Floats, grid: tuple[int, int], tau: float = TAU, eps: float = EPS, *, plain: bool | None = None) -> Seed:
    """The object of a picture, from features [N, D] over its grid, which are normalised here (`ncut` of `object_discovery.py` in
    YangtaoWANG95/TokenCut). `plain` as in `Graph.cut`."""
    cut = Graph.of(features, tau, eps).cut(plain=plain)
    bipartition = cut.side.reshape(grid)
    components, _ = ndimage.label(bipartition)
    return Seed(cut, bipartition, components, components == components.flat[cut.seed])


class TokenCut(Finder):
    """The first object is that of the paper. For the next ones the graph of the places that no object holds yet is cut again, as
    MaskCut does (section 3.2 of Wang et al. 2023, CutLER).

    As there, a side that holds three corners of the picture is background, and the other one is taken. An object after the first
    must lie further apart from the rest than a cut at random does. Objects stand in the order of the cuts. The score is 1 minus
    half the normalised cut around one, so that a later one may have a higher score.
    """

    def __init__(self, tau: float = TAU, eps: float = EPS) -> None:
        self.tau, self.eps = tau, eps

    def find(self, seen: Seen, count: int) -> list[Found]:
        features = looked_in(seen)
        if all_alike(seen.keys):
            return []
        whole, found = Graph.of(features, self.tau, self.eps), list[Found]()
        free = np.ones(seen.grid, dtype=np.bool_)
        while len(found) < count:
            mask = _cut_out(whole, free, first=not found)
            if mask is None:
                break
            score = whole.apart(mask.ravel())
            if found and score <= _LEAST:
                break
            found.append(Found(mask, box_of(mask), score))
            free &= ~mask
        return found


def _cut_out(whole: Graph, free: Bools, *, first: bool) -> Bools | None:
    """The mask [h, w] of what is cut out of the free places; None where they cannot be told apart."""
    places = np.flatnonzero(free)
    graph = whole if first else whole.within(places)
    if not graph.tells_apart:
        return None
    cut = graph.cut()
    mask = np.zeros(free.shape, dtype=np.bool_)
    if not first:
        mask.flat[places] = cut.side
        cut = cut.turned if mask[[0, 0, -1, -1], [0, -1, 0, -1]].sum() >= _CORNERS else cut
    mask.flat[places] = cut.side
    return part_with(mask, int(places[cut.seed]))
