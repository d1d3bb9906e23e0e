"""The gap between two roles, against slow loops; what is not measurable says why."""

import warnings

import numpy as np
import pytest
import reference
import torch
from conftest import make_mixed, unit
from hypothesis import given
from hypothesis import strategies as st
from strategies import embeddings, to_numpy

from grclip import Items, SearchTask
from grclip.diagnostics import modality_gap

MEASURES = [
    "distance",
    "distance_by_chance",
    "paired_cosine",
    "unpaired_cosine",
    "relative_gap",
    "separability",
    "spread",
    "centred_spread",
    "by_dimension",
]


def measured(pair):
    """The measures of a pair of roles, None for what is not measurable, which has a note."""
    assert set(pair.notes) <= set(MEASURES)
    for name in MEASURES:
        values = np.atleast_1d(getattr(pair, name))
        assert np.isnan(values).all() if name in pair.notes else np.isfinite(values).all(), name
    assert all(note.startswith("not measurable: ") for note in pair.notes.values())
    return {name: None if name in pair.notes else getattr(pair, name) for name in MEASURES}


def quiet_gap(*args, **options):
    """The gap, without the warning about rows of zeros."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="rows of zeros")
        return modality_gap(*args, **options)


@st.composite
def with_gap(draw):
    """Items, a dict or a task of any arrays; its columns; and which rows of two roles belong together, if known."""
    container, d = draw(st.sampled_from(["items", "dict", "task", "task with qrels"])), draw(st.integers(1, 8))
    n, asked = draw(st.integers(1, 40)), draw(st.integers(1, 12))
    lengths = {"query": asked, "text": n, "image": n if container != "dict" else draw(st.integers(1, 40))}
    parts = {role: draw(embeddings(length, d)) for role, length in lengths.items()}
    same = {(i, i) for i in range(n)}
    if container == "dict":
        return parts, None, parts, {}
    if container == "items":
        columns = {role: parts[role] for role in ("text", "image")}
        return Items(columns), None, columns, {("text", "image"): same}
    task = SearchTask(Items({"query": parts["query"]}), Items({"text": parts["text"], "image": parts["image"]}))
    if container == "task":
        return task, None, parts, {("text", "image"): same}
    seed = draw(st.integers(0, 2**32 - 1))
    grades = np.random.default_rng(seed).choice([0, 0, 1, 3], (asked, n), p=draw(st.sampled_from(GRADES)))
    qrels = [{j: int(grades[i, j]) for j in range(0, n, 1 + i % 2)} for i in range(asked)]
    related = {(i, j) for i, judged in enumerate(qrels) for j, grade in judged.items() if grade > 0}
    return task, qrels, parts, {("query", "text"): related, ("query", "image"): related, ("text", "image"): same}


GRADES = [(0.4, 0.4, 0.1, 0.1), (0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 0.0, 0.0)]
"""Chances of four grades: few relevant documents, many, none."""


@given(with_gap())
def test_the_gap_equals_slow_loops(case):
    X, qrels, parts, related = case
    found = quiet_gap(X, qrels)
    roles = list(parts)
    assert list(found.pairs) == [(a, b) for i, a in enumerate(roles) for b in roles[i + 1 :]]
    for pair, gap in found.pairs.items():
        ours, sides = measured(gap), [to_numpy(parts[role]) for role in pair]
        directions = [int((np.nan_to_num(side) != 0).any(axis=1).sum()) for side in sides]
        assert gap.roles == pair
        assert list(gap.n_rows) == directions
        slow = reference.modality_gap(*sides, related.get(pair))
        if slow is None:
            assert set(gap.notes) == set(MEASURES)
            continue
        if min(directions) < 20:
            assert f"there are {directions[0]} and {directions[1]}" in gap.notes["separability"]
        for name, value in slow.items():
            assert (ours[name] is None) == (value is None), (name, gap.notes)
            if value is not None:
                np.testing.assert_allclose(ours[name], value, rtol=1e-6, atol=1e-7, err_msg=name)
        if ours["by_dimension"] is not None:
            assert ours["by_dimension"].sum() == pytest.approx(1)


@given(embeddings(25, missing=False, zeros=False, dtypes=["float32", "float64"]), st.integers(0, 99))
def test_symmetry_and_scale_of_rows(x, seed):
    rng = np.random.default_rng(seed)
    y = to_numpy(x)[rng.permutation(25)] + rng.normal(size=x.shape)
    first = modality_gap(Items({"a": x, "b": y}))["a", "b"]
    second = modality_gap(Items({"b": y, "a": x}))["a", "b"]
    scaled = modality_gap(Items({"a": to_numpy(x) * 2.0 ** rng.integers(-5, 5, (25, 1)), "b": 8 * y}))["a", "b"]
    assert second.roles == ("b", "a")
    for name in set(MEASURES) - {"separability"}:  # the probe draws its halves in the order of the roles
        ours = measured(first)[name]
        for other in (second, scaled):
            theirs = measured(other)[name]
            assert (ours is None) == (theirs is None)
            if ours is not None:
                np.testing.assert_allclose(theirs, ours, rtol=1e-7, atol=1e-9, err_msg=name)


def test_a_gap_by_hand():
    pair = modality_gap(Items({"text": [[3.0, 0.0], [0.0, 2.0]], "image": [[-1.0, 0.0], [0.0, 5.0]]}))["text", "image"]
    assert pair.distance == pytest.approx(1)  # means (.5, .5) and (-.5, .5)
    assert pair.paired_cosine == pytest.approx(0)  # -1 and 1
    assert pair.unpaired_cosine == pytest.approx(0)
    assert pair.relative_gap == pytest.approx(1 / (1 + 1))  # rows of a role are at right angles
    assert pair.by_dimension.tolist() == [1, 0]
    assert pair.n_rows == (2, 2)
    assert pair.notes == {
        "separability": "not measurable: a probe needs 20 rows of each role; there are 2 and 2",
        "spread": "not measurable: a spread needs 20 unrelated pairs; there are 2",
        "centred_spread": "not measurable: a spread needs 20 unrelated pairs; there are 2",
    }


def test_a_file_larger_than_a_block_gives_what_memory_gives(rng, tmp_path):
    columns, mapped = {}, {}
    for role in ("text", "image"):
        columns[role] = rng.normal(size=(2500, 512)).astype("float32") + rng.normal(size=512).astype("float32")
        columns[role][rng.random(2500) < 0.1] = np.nan
        np.save(tmp_path / f"{role}.npy", columns[role])
        mapped[role] = np.load(tmp_path / f"{role}.npy", mmap_mode="r")
    first, second = (modality_gap(Items(parts))["text", "image"] for parts in (columns, mapped))
    for name in MEASURES:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    x, y = (unit(column.astype(float)) for column in columns.values())
    both = ~np.isnan(x[:, 0] + y[:, 0])
    assert first.distance == pytest.approx(np.linalg.norm(np.nanmean(x, 0) - np.nanmean(y, 0)), abs=1e-9)
    assert first.paired_cosine == pytest.approx(np.mean(np.sum(x * y, axis=1)[both]), abs=1e-9)
    every = np.nan_to_num(x) @ np.nan_to_num(y).T
    n = float((~np.isnan(x[:, 0])).sum() * (~np.isnan(y[:, 0])).sum())
    assert first.unpaired_cosine == pytest.approx((every.sum() - np.trace(every)) / (n - both.sum()), abs=1e-9)


def test_spreads_of_a_sample_are_close_to_those_of_all_rows(rng):
    x, y = rng.normal(size=(2, 5000, 8)) + rng.normal(size=(2, 1, 8))
    pair = modality_gap({"a": x, "b": y})["a", "b"]
    x, y = unit(x), unit(y)
    assert pair.spread == pytest.approx((x @ y.T).std(), rel=0.02)
    assert pair.centred_spread == pytest.approx((unit(x - x.mean(0)) @ unit(y - y.mean(0)).T).std(), rel=0.02)


class TestSeparability:
    def test_two_clusters(self, rng):
        x, y = rng.normal(size=(2, 100, 8)) + np.array([[[3.0]], [[-3.0]]])
        assert modality_gap(Items({"a": x, "b": y}))["a", "b"].separability == 1
        assert modality_gap({"a": x, "b": y[:30]})["a", "b"].separability == 1

    def test_the_smaller_role_counts_as_much(self, rng):
        x, y = rng.normal(size=(400, 3)), rng.normal(loc=[0, 0, 1.5], size=(60, 3))
        parts = {role: np.hstack([part, np.ones((len(part), 1))]) for role, part in (("a", x), ("b", y))}
        assert 0.65 < modality_gap(parts)["a", "b"].separability < 0.9

    @pytest.mark.parametrize("wrap", [Items, dict])
    def test_the_same_rows_in_both_roles(self, rng, wrap):
        x = rng.normal(size=(61, 5))
        for seed in range(5):
            found = modality_gap(wrap({"a": x, "b": x.copy()}), random_state=seed)["a", "b"].separability
            assert found == 0.5 if wrap is Items else found < 0.75

    def test_rows_of_one_distribution_are_at_chance_on_average(self):
        found = []
        for seed in range(60):
            rng = np.random.default_rng(seed)
            x, y = rng.normal(size=(80, 4)), rng.normal(size=(50, 4))
            found.append(modality_gap({"a": x, "b": y}, random_state=seed)["a", "b"].separability)
        assert np.mean(found) == pytest.approx(0.5, abs=4 * np.std(found) / 60**0.5)
        assert np.std(found) < 0.1

    def test_partners_do_not_fall_on_both_sides(self):
        """Near copies of each other: a probe that had seen a row's partner would call it by the partner's role."""
        found = []
        for seed in range(40):
            rng = np.random.default_rng(seed)
            x = rng.normal(size=(40, 60))
            found.append(modality_gap(Items({"a": x, "b": x + 0.01 * rng.normal(size=x.shape)}))["a", "b"].separability)
        assert np.mean(found) == pytest.approx(0.5, abs=0.05)

    def test_rows_that_cannot_be_divided(self, rng):
        """One query to which all documents belong: they go to one half with it."""
        x = rng.normal(size=(25, 4))
        task = SearchTask(Items({"query": x}), Items({"image": x + 1}))
        pair = modality_gap(task, [dict.fromkeys(range(25), 1), *({},) * 24])["query", "image"]
        assert "cannot be divided into two halves" in pair.notes["separability"]
        measured(pair)


class TestNotMeasurable:
    def test_a_role_whose_rows_are_all_alike_has_no_centred_spread(self, rng):
        alike = np.tile(rng.normal(size=5), (30, 1))
        pair = modality_gap({"a": alike, "b": rng.normal(size=(30, 5))})["a", "b"]
        assert pair.notes["centred_spread"] == "not measurable: a spread needs 20 unrelated pairs; there are 0"
        measured(pair)

    def test_an_empty_role(self, rng):
        parts = {"a": rng.normal(size=(3, 4)), "b": np.full((3, 4), np.nan), "c": np.zeros((3, 4))}
        with pytest.warns(UserWarning, match=r"rows of zeros .* \(role 'c': 3 rows \(0, 1, 2\)\)"):
            found = modality_gap(parts)
        for pair in found.pairs.values():
            assert set(pair.notes) == set(MEASURES)
            assert pair.by_dimension.shape == (4,)
            measured(pair)
        assert found["a", "b"].notes["distance"] == "not measurable: role 'b' has no row with a direction"
        assert "role 'b' and role 'c'" in found["b", "c"].notes["distance"]

    def test_pairs(self, rng):
        x = rng.normal(size=(30, 4))
        task = SearchTask(Items({"query": x}), Items({"text": x + 1}))
        missing = np.full((30, 4), np.nan)
        half, other = np.concatenate([x, missing]), np.concatenate([missing, x + 1])
        for gap, why in (
            (modality_gap({"a": x, "b": x + 1}), "rows of a dict are not paired; use Items, whose parts share rows"),
            (modality_gap(task), "give qrels, which say what belongs together"),
            (modality_gap(task, [{0: 0}, *({},) * 29]), "qrels mark no document with this part"),
            (modality_gap(Items({"a": half, "b": other})), "no row has both parts"),
        ):
            (pair,) = gap.pairs.values()
            assert pair.notes == dict.fromkeys(("paired_cosine", "relative_gap"), f"not measurable: {why}")
            unknown = "dict" in why or "give qrels" in why
            assert pair.n_paired == (None if unknown else 0)
            assert ("take all rows for unrelated" in str(gap)) == unknown
            assert measured(pair)["unpaired_cosine"] is not None
            assert f"paired_cosine, relative_gap not measurable: {why}" in str(gap)

    def test_all_pairs_belong_together(self):
        task = SearchTask(Items({"query": [[1.0, 0.0]]}), Items({"text": [[1.0, 1.0], [0.0, 1.0]]}))
        pair = modality_gap(task, [{0: 1, 1: 2}])["query", "text"]
        assert pair.notes["unpaired_cosine"] == "not measurable: all rows are paired"
        assert pair.paired_cosine == pytest.approx(0.5**0.5 / 2)

    def test_means_alike(self, rng):
        x = rng.normal(size=(30, 4))
        pair = modality_gap(Items({"a": x, "b": x}))["a", "b"]
        assert pair.notes == {"by_dimension": "not measurable: the means do not differ"}
        assert pair.distance == pair.relative_gap == 0
        one = modality_gap(Items({"a": x[:1], "b": 3 * x[:1]}))["a", "b"]
        assert one.notes["relative_gap"] == "not measurable: a distance within a role needs two rows of each"
        two = modality_gap(Items({"a": x[[0, 0]], "b": 3 * x[[0, 0]]}))["a", "b"]
        assert two.notes["relative_gap"] == "not measurable: all rows are alike"


@pytest.mark.parametrize(
    ("X", "qrels", "error", "message"),
    [
        (np.eye(3), None, TypeError, "X is ndarray; expected a SearchTask of Items, Items, or a dict"),
        (SearchTask(np.eye(3), np.eye(3)), None, TypeError, "this SearchTask holds plain arrays"),
        ({"a": np.eye(3)}, None, ValueError, "a gap lies between two roles, but X has only 'a'"),
        (Items({"a": np.eye(3), "b": [None] * 3}), None, ValueError, "X has only 'a'"),
        ({}, None, ValueError, "X holds nothing"),
        ({"a": np.eye(3), "b": np.eye(3)}, [{}] * 3, TypeError, "qrels are about a SearchTask; X is dict"),
        (Items({"a": np.eye(3), "b": np.eye(3)}), [{}] * 3, TypeError, "qrels are about a SearchTask; X is Items"),
        (Items({"a": ["x"], "b": ["y"]}), None, TypeError, "role 'a' holds str objects, not embeddings"),
        ({"a": np.eye(3), "b": np.eye(4)}, None, ValueError, "role 'b' has 4 features, but role 'a' has 3"),
        (
            {"a": np.eye(3), "b": np.array([[1, 2, 3], [np.nan, 1, 1.0]])},
            None,
            ValueError,
            r"role 'b': NaN beside numbers in 1 row \(1\)",
        ),
        ({"a": np.eye(3), "b": np.full((2, 3), np.inf)}, None, ValueError, r"role 'b': inf in 2 rows \(0, 1\)"),
        ({"a": np.eye(3), "b": 1e300 * np.eye(3)}, None, ValueError, "role 'b': numbers too large to square in 3 rows"),
        (
            SearchTask(Items({"query": np.eye(3)}), Items({"text": np.eye(3)})),
            [{}] * 2,
            ValueError,
            "qrels has 2 entries, but there are 3 queries",
        ),
        (
            SearchTask(Items({"query": np.eye(3)}), Items({"text": np.eye(3)})),
            [{3: 1}] * 3,
            ValueError,
            r"qrels\[0\] judges document 3, but the corpus has 3 rows",
        ),
    ],
)
def test_what_has_no_gap(X, qrels, error, message):
    with pytest.raises(error, match=message):
        modality_gap(X, qrels)


def test_roles_that_were_not_measured():
    found = modality_gap({"a": np.eye(3), "b": -np.eye(3)})
    assert found["a", "b"] is found["b", "a"]
    with pytest.raises(KeyError, match=r"no roles 'a' and 'c'; measured: \('a', 'b'\)"):
        found["a", "c"]


def test_a_task_with_queries_of_two_roles(rng):
    x = rng.normal(size=(4, 30, 6))
    x[0, ::2], x[1, 1::2] = np.nan, np.nan
    queries = Items({"query": x[0], "query_image": x[1]})
    found = modality_gap(SearchTask(queries, Items({"text": x[2], "image": x[3]})), [{i: 1} for i in range(30)])
    assert len(found.pairs) == 6
    assert found["query", "query_image"].notes["paired_cosine"] == "not measurable: no row has both parts"
    assert found["query", "text"].paired_cosine == pytest.approx(np.mean(np.sum(unit(x[0]) * unit(x[2]), 1)[1::2]))
    assert found["text", "image"].paired_cosine == pytest.approx(np.mean(np.sum(unit(x[2]) * unit(x[3]), 1)))


@pytest.mark.gpu
def test_a_gpu_measures_the_gap_of_a_cpu(rng, cuda):
    task, qrels = make_mixed(rng, n=600, d=64, dtype=np.float32)
    sides = [
        Items({role: torch.from_numpy(part).to(cuda) for role, part in side.items()})
        for side in (task.queries, task.corpus)
    ]
    for other in (SearchTask(*sides), SearchTask(sides[0], task.corpus)):  # there whole, or there in part
        for pair, there in modality_gap(other, qrels).pairs.items():
            here = modality_gap(task, qrels)[pair]
            assert there.n_rows == here.n_rows
            for name in MEASURES:
                np.testing.assert_allclose(getattr(there, name), getattr(here, name), atol=1e-5, err_msg=name)


def test_two_samples_of_one_distribution_are_apart_by_chance(rng):
    """What a distance has to be compared with: few rows of many dimensions lie apart without any gap."""
    distances, chances = [], []
    for _ in range(40):
        found = modality_gap({"a": rng.normal(size=(10, 64)), "b": rng.normal(size=(15, 64))})["a", "b"]
        distances.append(found.distance**2)
        chances.append(found.distance_by_chance**2)
    assert np.mean(chances) == pytest.approx(np.mean(distances), rel=0.15)


def test_rows_with_several_partners_stay_on_one_side(rng):
    """Chains of near copies: a probe that sees a copy of a row in the other role learns to call it wrong."""
    x = rng.normal(size=(200, 32))
    task = SearchTask(Items({"query": x}), Items({"text": x + 0.01 * rng.normal(size=x.shape)}))
    pairs = [{i: 1, i + 1: 1} if i % 2 == 0 else {i: 1} for i in range(200)]
    found = [modality_gap(task, pairs, random_state=seed)["query", "text"].separability for seed in range(8)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.06)


def test_dimensions_that_hold_half_of_the_gap():
    x = np.eye(4)[[0] * 30]
    pair = modality_gap(Items({"a": x, "b": x[:, [1, 0, 2, 3]]}))["a", "b"]
    assert pair.half_in == 1
    assert pair.by_dimension.tolist() == [0.5, 0.5, 0, 0]
    assert modality_gap(Items({"a": x, "b": x}))["a", "b"].half_in is None
