"""Lists and mixtures: exact shares, repeats that are counted, one pure function of the position."""

from __future__ import annotations

import itertools
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from pictures import tar
from selfsight.data.agreement import check_agreement
from selfsight.data.draws import Indices
from selfsight.data.sources import Source, first, open_source
from selfsight.data.sources.base import Picked
from selfsight.data.sources.dealing import STRETCH, Dealing, shares
from selfsight.data.sources.mixture import MixtureSource, Part
from selfsight.errors import DataError
from test_sources import encoded, grey_level, put


class Numbers(Source):
    """A source of `count` samples whose bytes are their numbers."""

    def __init__(self, count: int, blocks: Indices | None = None, labels: int = 0) -> None:
        self.location = f"numbers-{count}"
        self.keys = Picked([str(number) for number in range(count)], np.arange(count))
        self.classes = tuple(f"class {label}" for label in range(labels))
        self.labels = np.arange(count) % labels if labels else None
        self.blocks = blocks
        self.expected: list[int] = []

    def image_bytes(self, index: int) -> bytes:
        return str(index).encode()

    def columns(self) -> tuple[str, ...]:
        return ("parity",)

    def column(self, name: str) -> npt.NDArray[np.str_]:
        return np.array([str(number % 2) for number in range(len(self))])

    def expect(self, indices: Indices) -> None:
        self.expected += indices.tolist()


def mixed(*parts: tuple[int, float | None]) -> MixtureSource:
    return MixtureSource("mixture", [Part(f"p{place}", Numbers(size), weight) for place, (size, weight) in enumerate(parts)])


def owners(source: MixtureSource, indices: Indices) -> Indices:
    return np.searchsorted(np.cumsum([len(part.source) for part in source.parts]), indices, side="right")


MIXTURES = {
    "even": ((3000, 1), (3000, 1)),
    "one repeated": ((500, 3), (9000, 1)),
    "many": ((100, 1), (7000, 2.5), (3, 0.001), (900, 40), (2500, 0.3)),
    "small": ((5, 1), (7, 2)),
    "one sample often": ((1, 1), (4000, 1)),
    "sizes": ((1234, None), (1, None), (4321, None), (17, None)),
}


@pytest.fixture(params=sorted(MIXTURES))
def mixture(request: pytest.FixtureRequest) -> MixtureSource:
    return mixed(*MIXTURES[request.param])


# --- draws ----------------------------------------------------------------------------------------------------------


def test_each_part_has_its_share_of_the_epoch_exactly(mixture: MixtureSource) -> None:
    drawn = mixture.draws(0, 0, np.arange(len(mixture)))
    weights = np.array([len(part.source) if part.weight is None else part.weight for part in mixture.parts])
    counts = np.bincount(owners(mixture, drawn.indices), minlength=len(weights))
    assert counts.sum() == len(mixture)
    assert np.abs(counts - len(mixture) * weights / weights.sum()).max() < 1


def test_weights_are_how_often_samples_are_drawn_in_the_mean(mixture: MixtureSource) -> None:
    weights, counts = mixture.weights(), np.zeros(len(mixture))
    for epoch in range(4):
        np.add.at(counts, mixture.draws(1, epoch, np.arange(len(mixture))).indices, 1 / 4)
    expected = np.ones(len(mixture)) if weights is None else weights.astype(np.float64)
    owner = owners(mixture, np.arange(len(mixture)))
    for number, part in enumerate(mixture.parts):
        assert counts[owner == number].sum() == pytest.approx(expected[owner == number].sum(), abs=1)
        assert np.ptp(expected[owner == number]) == 0, part.name
    assert mixture.only(np.arange(0, len(mixture), 2)).weights() is None or weights is not None
    assert (weights is None) == (counts == 1).all()


def test_each_part_has_its_share_of_every_stretch_to_within_one(mixture: MixtureSource) -> None:
    owner = owners(mixture, mixture.draws(0, 0, np.arange(len(mixture))).indices)
    total = np.bincount(owner, minlength=len(mixture.parts)) / len(mixture)
    for start in range(0, len(mixture), STRETCH):
        stretch = owner[start : start + STRETCH]
        counts = np.bincount(stretch, minlength=len(mixture.parts))
        # The shares of a stretch are those of the epoch, in which a part has a whole number of draws.
        assert np.abs(counts - len(stretch) * total).max() < 1.5


@pytest.mark.parametrize("count", [1, 5, 1023, 1024, 1025, 10_000, 1_000_003])
@pytest.mark.parametrize("weights", [(1,), (1, 1), (3, 1), (1, 2, 3, 4, 5), (1e-6, 1, 1e6), (0.1, 0.2, 0.7), (1,) * 50])
def test_what_is_dealt_never_decreases_and_fits_the_stretches(count: int, weights: tuple[float, ...]) -> None:
    dealing = Dealing(count, weights)
    stretches = -(-count // STRETCH)
    had = np.array([dealing.before(stretch) for stretch in range(stretches + 1)])
    assert had[0].tolist() == [0] * len(weights)
    assert had[-1].tolist() == dealing.totals.tolist()
    each = np.diff(had, axis=0)
    assert each.min() >= 0
    assert each.sum(axis=1).tolist() == [STRETCH] * (count // STRETCH) + [count % STRETCH] * (count % STRETCH > 0)
    share = np.array(weights) / sum(weights)
    assert np.abs(each - np.outer(each.sum(axis=1), share)).max() < 1 + len(weights) / max(1, count // STRETCH)


def test_occurrences_count_what_came_before_in_the_epoch(mixture: MixtureSource) -> None:
    """Repeats come pass by pass: no sample comes a second time before the others of its part came once."""
    for seed, epoch in ((0, 0), (5, 3)):
        drawn = mixture.draws(seed, epoch, np.arange(len(mixture)))
        pairs = set(zip(drawn.indices.tolist(), drawn.occurrences.tolist(), strict=True))
        assert len(pairs) == len(mixture)
        for index, times in Counter(drawn.indices.tolist()).items():
            assert {(index, time) for time in range(times)} <= pairs
        for number, part in enumerate(mixture.parts):
            here = owners(mixture, drawn.indices) == number
            times = np.bincount(drawn.indices[here], minlength=len(mixture))[
                np.arange(len(part.source)) + mixture._starts[number]
            ]
            assert times.max() - times.min() <= 1


def test_some_positions_are_those_of_the_whole(mixture: MixtureSource) -> None:
    whole = mixture.draws(1, 2, np.arange(len(mixture)))
    for some in (np.array([len(mixture) - 1, 0, 3, 3]), np.random.default_rng(0).integers(0, len(mixture), 200)):
        drawn = mixture.draws(1, 2, some)
        np.testing.assert_array_equal(drawn.indices, whole.indices[some])
        np.testing.assert_array_equal(drawn.occurrences, whole.occurrences[some])
    assert len(mixture.draws(1, 2, np.array([], dtype=np.int64)).indices) == 0


def test_a_part_with_little_weight_shows_no_sample_twice_and_others_next_time() -> None:
    source = mixed((2000, 1), (2000, 9))
    seen = []
    for epoch in range(2):
        indices = source.draws(0, epoch, np.arange(4000)).indices
        few = indices[indices < 2000]
        assert len(few) == len(set(few.tolist())) == 400
        seen.append(set(few.tolist()))
    assert 40 < len(seen[0] & seen[1]) < 130  # 80 by chance


def test_a_list_gives_every_sample_once() -> None:
    source = mixed((1234, None), (1, None), (4321, None), (17, None))
    for epoch in range(3):
        drawn = source.draws(0, epoch, np.arange(len(source)))
        assert sorted(drawn.indices.tolist()) == list(range(len(source)))
        assert not drawn.occurrences.any()


def test_each_repeat_comes_in_another_order() -> None:
    source = mixed((300, 3), (100, 1))
    drawn = source.draws(0, 0, np.arange(400))
    first_part = drawn.indices < 300
    assert first_part.sum() == 300
    often = mixed((50, 3), (150, 1))
    drawn = often.draws(0, 0, np.arange(200))
    passes = [drawn.indices[(drawn.indices < 50) & (drawn.occurrences == time)].tolist() for time in range(3)]
    assert [len(one) for one in passes] == [50, 50, 50]
    assert len({tuple(one) for one in passes}) == 3


def test_orders_differ_by_seed_and_epoch_and_parts_of_one_size_have_orders_of_their_own() -> None:
    source = mixed((1000, 1), (1000, 1))
    orders = {tuple(source.draws(seed, epoch, np.arange(64)).indices) for seed, epoch in itertools.product(range(4), repeat=2)}
    assert len(orders) == 16
    owner, turn = source._dealing.at(0, 0, np.arange(2000))
    indices = source.draws(0, 0, np.arange(2000)).indices
    ours = [dict(zip(turn[owner == part].tolist(), (indices[owner == part] % 1000).tolist(), strict=True)) for part in (0, 1)]
    assert sum(ours[0][place] == ours[1][place] for place in range(1000)) < 10


def test_a_part_that_is_read_in_blocks_keeps_its_order() -> None:
    blocks = np.arange(0, 10_000, 500)
    source = MixtureSource("m", [Part("a", Numbers(10_000, blocks)), Part("b", Numbers(2_000))])
    indices = source.draws(0, 0, np.arange(12_000)).indices
    owner, turn = source._dealing.at(0, 0, np.arange(12_000))
    its = np.empty(10_000, dtype=np.int64)
    its[turn[owner == 0]] = indices[owner == 0]
    visits = its // 500
    assert np.count_nonzero(np.diff(visits)) == 19, "one block after another"
    for start in range(0, 12_000, STRETCH):
        within = indices[start : start + STRETCH]
        assert len(set((within[within < 10_000] // 500).tolist())) <= 3


def test_shares_sum_up() -> None:
    assert shares(10, [1, 1, 1]).sum() == 10
    assert shares(7, [3, 1]).tolist() == [5, 2]
    assert shares(3, [0.1] * 3).tolist() == [1, 1, 1]


# --- what belongs to a sample ---------------------------------------------------------------------------------------


def test_keys_columns_and_bytes_belong_together() -> None:
    source = mixed((3, 1), (2, 5))
    assert list(source.keys) == ["p0/0", "p0/1", "p0/2", "p1/0", "p1/1"]
    assert [source.image_bytes(i) for i in range(5)] == [b"0", b"1", b"2", b"0", b"1"]
    assert source.columns() == ("source", "parity")
    assert source.groups("source").tolist() == ["p0"] * 3 + ["p1"] * 2
    assert source.groups("parity").tolist() == ["0", "1", "0", "0", "1"]


def test_what_is_expected_is_told_to_the_parts() -> None:
    source = mixed((3, 1), (2, 5))
    source.expect(np.array([4, 0, 2, 3]))
    assert [part.source.expected for part in source.parts] == [[0, 2], [1, 0]]


def test_labels_are_put_together_by_the_name_of_the_class() -> None:
    one, two = Numbers(4, labels=2), Numbers(4, labels=2)
    two.classes = ("class 1", "class 7")
    source = MixtureSource("m", [Part("a", one), Part("b", two)])
    assert source.classes == ("class 0", "class 1", "class 7")
    assert source.labels.tolist() == [0, 1, 0, 1, 1, 2, 1, 2]
    assert source.labels.dtype == np.int64


def test_one_part_without_labels_leaves_all_without() -> None:
    source = MixtureSource("m", [Part("a", Numbers(4, labels=2)), Part("b", Numbers(4))])
    assert source.labels is None
    assert source.classes == ()


def test_the_first_samples_come_from_all_parts() -> None:
    source = mixed((1000, 3), (50, 1), (1000, None))
    some = first(source, 100)
    assert len(some) == 100
    assert Counter(key.partition("/")[0] for key in some.keys)["p2"] >= 90
    assert Counter(key.partition("/")[0] for key in first(mixed((1000, 3), (50, 1)), 100).keys) == {"p0": 75, "p1": 25}
    assert Counter(key.partition("/")[0] for key in first(mixed((1000, 1), (5, 1)), 100).keys) == {"p0": 95, "p1": 5}
    assert len(first(mixed((10, 1), (10, 1)), 1)) == 1


def test_a_mixture_within_a_mixture_is_flat() -> None:
    inner = mixed((10, 1), (90, 3))
    outer = MixtureSource("outer", [Part("in", inner, 1), Part("x", Numbers(100), 1)])
    assert [part.name for part in outer.parts] == ["in/p0", "in/p1", "x"]
    drawn = outer.draws(0, 0, np.arange(200))
    assert np.bincount(owners(outer, drawn.indices)).tolist() == [25, 75, 100]
    assert drawn.occurrences.max() == 2


@pytest.mark.parametrize(("weights", "share"), [((3, 1), 0.75), ((None, None), 0.04)])
def test_a_part_of_the_samples_is_drawn_in_the_shares_of_the_whole(weights: tuple[float | None, ...], share: float) -> None:
    """As where some are held back to judge by: forty images of one part count as much as a thousand of the other, as before."""
    few, many = Numbers(50, labels=2), Numbers(1200, labels=3)
    source = MixtureSource("m", [Part("few", few, weights[0]), Part("many", many, weights[1])])
    kept = np.sort(np.concatenate([np.arange(0, 50, 5), np.arange(1, 50, 2)[:15], 50 + np.arange(0, 1200, 2)]))
    some = source.only(np.unique(kept))
    assert [some.keys[i] for i in (0, 1, -1)] == ["few/0", "few/1", "many/1198"]
    assert some.labels.tolist() == source.labels[np.unique(kept)].tolist() and some.classes == source.classes
    drawn = some.draws(0, 0, np.arange(len(some))).indices
    first = sum(some.keys[i].startswith("few") for i in drawn)
    assert first == pytest.approx(share * len(some), abs=4)
    alone = pickle.loads(pickle.dumps(source.only(np.arange(50, 60))))
    assert alone.classes == source.classes and [part.name for part in alone.parts] == ["many"]


def agreeing(*classes: tuple[str, ...]) -> list[str]:
    parts = []
    for names in classes:
        source = Numbers(6, labels=len(names))
        source.classes = names
        parts.append(Part(f"p{len(parts)}", source))
    return check_agreement(MixtureSource("m", parts))


def test_parts_that_do_not_mean_the_same_by_their_classes_are_named() -> None:
    assert agreeing(("bolt", "nut"), ("nut", "bolt")) == []
    assert agreeing(("bolt", "nut", "pin"), ("nut",)) == ["note: part 'p1' has no images of 2 classes (bolt, pin)"]
    assert agreeing(("c", "C"), ("C", "c")) == []
    for one, other in ((("Hex nut", "bolt"), ("hex_nut", "bolt")), (("07", "1"), ("7", "1"))):
        told = f"m: '{one[0]}' in its part 'p0' and '{other[0]}' in 'p1' differ in spelling alone; expected one name for a class"
        with pytest.raises(DataError, match=told):
            agreeing(one, other)
    with pytest.raises(DataError, match="m: its part 'p0' has the classes 1, 2, the others one, two; expected a class in common"):
        agreeing(("1", "2"), ("one", "two"))
    with pytest.raises(DataError, match="m: its part 'p1' has no labels, others have; expected labels in all"):
        agreeing(("a", "b"), ())


def test_a_pickled_mixture_is_the_same() -> None:
    source = MixtureSource("m", [Part("a", Numbers(40, labels=2), 3), Part("b", Numbers(4, labels=3), 1)])
    again = pickle.loads(pickle.dumps(source))
    assert list(again.keys) == list(source.keys)
    assert again.labels.tolist() == source.labels.tolist()
    np.testing.assert_array_equal(again.draws(1, 1, np.arange(44)).indices, source.draws(1, 1, np.arange(44)).indices)


# --- what a user writes ---------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for number in range(4):
        put(tmp_path / "photos" / f"{number}.png", encoded(number))
        put(tmp_path / "more" / "photos" / f"{number}.png", encoded(100 + number))
    tar(tmp_path / "shards" / "0.tar", {f"{number}.png": encoded(200 + number) for number in range(4)})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_list_of_locations_is_one_source(data: Path) -> None:
    source = open_source(["photos", data / "more" / "photos", "shards/*.tar"])
    assert list(source.keys)[::4] == ["photos/0.png", "photos-2/0.png", "shards/0.tar/0"]
    assert [grey_level(source, index) for index in (0, 5, 10)] == [0, 101, 202]
    assert source.location == f"photos + {data}/more/photos + shards/*.tar"
    assert sorted(source.draws(0, 0, np.arange(12)).indices) == list(range(12))


def test_a_list_of_one_is_that_one(data: Path) -> None:
    assert list(open_source(["photos"]).keys) == ["0.png", "1.png", "2.png", "3.png"]


def test_a_mapping_has_weights(data: Path) -> None:
    source = open_source({"photos": 3, "shards/*.tar": 1})
    assert np.bincount(owners(source, source.draws(0, 0, np.arange(8)).indices)).tolist() == [6, 2]


def test_a_yaml_file_has_paths_that_start_at_it(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "mixture:\n- {data: ../photos, weight: 3}\n- {data: photos, weight: 1}\n- data: ../shards/*.tar\n  weight: 0.5\n"
    path = put(data / "more" / "mix.yaml", text.encode())
    monkeypatch.chdir("/")
    source = open_source(path)
    assert source.location == str(path)
    assert [part.name for part in source.parts] == ["photos", "photos-2", "shards"]
    assert [part.weight for part in source.parts] == [3, 1, 0.5]
    assert [grey_level(source, index) for index in (0, 5, 10)] == [0, 101, 202]


def test_a_yaml_file_may_be_a_plain_list_and_hold_options(data: Path) -> None:
    put(data / "list.csv", b"path,split\nphotos/0.png,train\nphotos/1.png,test\n")
    source = open_source(put(data / "mix.yml", b"mixture: [photos, 'list.csv?split=test']"))
    assert list(source.keys)[-1] == "list.csv/photos/1.png"
    assert [part.weight for part in source.parts] == [None, None]


def test_a_yaml_file_may_hold_another(data: Path) -> None:
    put(data / "inner.yaml", b"mixture: {}".replace(b"{}", b"[photos, more]"))
    source = open_source(put(data / "outer.yaml", b"mixture: [{data: inner.yaml, weight: 1}, {data: shards/0.tar, weight: 1}]"))
    assert [part.name for part in source.parts] == ["inner.yaml/photos", "inner.yaml/more", "0.tar"]
    assert np.bincount(owners(source, source.draws(0, 0, np.arange(12)).indices)).tolist() == [3, 3, 6]


@pytest.mark.parametrize("other", ["a.yaml", "b.yaml"])
def test_a_yaml_file_that_holds_itself_says_so(data: Path, other: str) -> None:
    put(data / "a.yaml", f"mixture: [photos, {other}]".encode())
    put(data / "b.yaml", b"mixture: [photos, ./a.yaml]")
    with pytest.raises(DataError, match=r"a\.yaml: is part of itself"):
        open_source(data / "a.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no mixture; expected 'mixture:' and below it '- {data: photos, weight: 3}', ..."),
        ("seed: 0\nmixture: [a]", "is no mixture; expected 'mixture:' and below it '- {data: photos, weight: 3}', ..."),
        ("mixture: photos", "is no mixture; expected 'mixture:' and below it '- {data: photos, weight: 3}', ..."),
        ("mixture: []", "its mixture is empty; expected entries such as '- {data: photos, weight: 3}'"),
        ("mixture: [photos, 3]", "entry 2: is 3; expected '{data: photos, weight: 3}' or a location"),
        ("mixture: [{data: photos, wieght: 3}]", "entry 1: has no key 'wieght'. Did you mean 'weight'?"),
        ("mixture: [{weight: 3}]", "entry 1: data is None; expected a location"),
        ("mixture: [{data: 7}]", "entry 1: data is 7; expected a location"),
        ("mixture: [{data: photos, weight: 0}]", "entry 1: weight is 0; expected a number above 0"),
        ("mixture: [{data: photos, weight: .nan}]", "entry 1: weight is nan; expected a number above 0"),
        ("mixture: [{data: photos, weight: true}]", "entry 1: weight is True; expected a number above 0"),
        ("mixture: [{data: photos, weight: much}]", "entry 1: weight is 'much'; expected a number above 0"),
        (
            "mixture: [{data: photos, weight: 1}, more]",
            "entry 2 has no weight, others have; expected one in all entries or in none",
        ),
    ],
)
def test_a_yaml_file_that_is_wrong_says_where(data: Path, text: str, message: str) -> None:
    path = put(data / "mix.yaml", text.encode())
    with pytest.raises(DataError) as error:
        open_source(path)
    assert str(error.value).removeprefix(f"{path}: ") == message


def test_what_is_no_yaml_says_where(data: Path) -> None:
    with pytest.raises(DataError, match=r"mix\.yaml: is no YAML .*line 2"):
        open_source(put(data / "mix.yaml", b"mixture:\n- {data: photos"))


def test_locations_and_weights_that_are_wrong_say_so(data: Path) -> None:
    with pytest.raises(DataError, match="nowhere: does not exist"):
        open_source(["photos", "nowhere"])
    with pytest.raises(DataError, match="no location is given; expected one or more"):
        open_source([])
    with pytest.raises(DataError, match="photos: its weight is -1; expected a number above 0"):
        open_source({"photos": -1, "more": 1})


def test_a_batch_costs_the_same_in_an_epoch_of_any_length() -> None:
    """The whole order of an epoch is never made: a batch of a large mixture touches two stretches."""
    source = MixtureSource("m", [Part("a", Numbers(10), 10**6), Part("b", Numbers(20), 1)])
    source._dealing = Dealing(10**10, [10**6, 1])
    drawn = source.draws(0, 0, np.arange(10**10 - 5000, 10**10 - 4744))
    assert drawn.occurrences.max() > 9 * 10**8
