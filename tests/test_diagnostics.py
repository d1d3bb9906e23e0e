import re
import warnings
from html.parser import HTMLParser
from itertools import product

import ir_measures
import numpy as np
import pandas as pd
import pytest
import reference
import scipy.stats
import torch
from conftest import make_mixed, unit
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from ir_measures import RR, R, nDCG
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from strategies import embeddings, judged_rankings, lay_out, to_numpy

from benchmarks import diagnostics as benchmark
from grclip import ExactRetriever, Items, ModalityGapRemover, MultimodalFuser, SearchTask
from grclip.datasets import make_scenes
from grclip.diagnostics import alpha_curve, calibration_size, compare, modality_bias, modality_gap, replacement_curve
from grclip.diagnostics.comparison import randomisation_test
from grclip.encoders import toy_encoder
from grclip.metrics import ndcg_score, recall_score, reciprocal_rank_score, retrieval_scorer

MEASURES = [
    "distance",
    "paired_cosine",
    "unpaired_cosine",
    "relative_gap",
    "separability",
    "spread",
    "centred_spread",
    "by_dimension",
]
METRICS = {"ndcg": ndcg_score, "recall": recall_score, "reciprocal_rank": reciprocal_rank_score}


def raw(**options):
    return make_pipeline(MultimodalFuser(**options), ExactRetriever())


def centred(**options):
    return make_pipeline(ModalityGapRemover(), MultimodalFuser(**options), ExactRetriever())


def make_complete(rng, n=40, d=16, noise=1.0):
    """Queries and documents with both parts, and a wide gap."""
    topics = rng.normal(size=(n, d))
    query, text, image = (unit(topics + noise * rng.normal(size=(n, d)) + 3 * rng.normal(size=d)) for _ in range(3))
    return SearchTask(Items({"query": query}), Items({"text": text, "image": image})), [{i: 1} for i in range(n)]


@pytest.fixture
def complete(rng):
    return make_complete(rng)


@pytest.fixture
def methods(mixed):
    return {"raw": raw().fit(*mixed), "centred": centred().fit(*mixed), "scaled": centred(equalize=True).fit(*mixed)}


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
            (modality_gap(task, [{0: 0}, *({},) * 29]), "no row has both parts"),
            (modality_gap(Items({"a": half, "b": other})), "no row has both parts"),
        ):
            (pair,) = gap.pairs.values()
            assert pair.notes == dict.fromkeys(("paired_cosine", "relative_gap"), f"not measurable: {why}")
            assert measured(pair)["unpaired_cosine"] is not None
            assert f"paired_cosine not measurable: {why}" in str(gap)

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
        assert one.notes["relative_gap"] == "not measurable: all rows are alike"


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


def texts_and_images(texts, images, queries=1):
    """A task whose corpus has some texts, then some images."""
    x = np.eye(texts + images)
    text, image = x.copy(), x.copy()
    text[texts:], image[:texts] = np.nan, np.nan
    return SearchTask(Items({"query": np.ones((queries, texts + images))}), Items({"text": text, "image": image}))


class TestModalityBias:
    def test_shares_by_hand(self):
        task = texts_and_images(3, 1, queries=4)
        lines = [[0, 1], [2, 3, 0], np.array([3, -1]), torch.tensor([-1, -1])]
        bias = modality_bias(task, lines, k=2)
        assert bias.kinds == ("text", "image")
        assert bias.corpus_share.tolist() == [0.75, 0.25]
        np.testing.assert_array_equal(bias.per_query, [[1, 0], [0.5, 0.5], [0, 1], [np.nan, np.nan]])
        assert bias.top_share.tolist() == [0.5, 0.5]
        assert bias.notes == ("left out of the shares: 1 query (3) without a document",)
        assert bias.scores == []
        assert [list(row) for row in bias.rows] == [["kind", "in corpus", "in top 2", "from", "to"]] * 2

    def test_rankings_of_any_library(self, mixed, methods):
        task, qrels = mixed
        ranking = methods["raw"].predict(task)
        first = modality_bias(task, ranking, qrels)
        for other in (torch.from_numpy(ranking), ranking.tolist(), iter(ranking), ranking.astype(np.uint8)):
            found = modality_bias(task, other, qrels)
            np.testing.assert_array_equal(found.per_query, first.per_query)
            assert found.scores == first.scores

    def test_kinds_of_few_parts_come_first(self):
        x, missing = np.ones((1, 2)), np.full((1, 2), np.nan)
        corpus = Items(
            {
                "image": np.concatenate([x, missing, x, missing]),
                "text": np.concatenate([missing, x, x, missing]),
            }
        )
        bias = modality_bias(SearchTask(Items({"query": x}), corpus), [[2, 3, 1]], k=3)
        assert bias.kinds == ("image", "text", "image+text")
        assert bias.corpus_share.tolist() == [0.25] * 3  # the fourth has no part at all
        assert bias.top_share.tolist() == [0, 0.5, 0.5]

    def test_the_interval_is_that_of_a_bootstrap_over_queries(self, rng):
        task = texts_and_images(40, 40, queries=50)
        lines = [rng.permutation(80)[:10] if i % 3 else rng.permutation(40)[:10] for i in range(50)]
        bias = modality_bias(task, lines, k=10, confidence=0.9, n_resamples=1999)
        shares = [np.mean(line < 40) for line in lines]
        means = sorted(np.mean(rng.choice(shares, 50)) for _ in range(1999))
        assert bias.interval[0] == pytest.approx([means[100], means[1899]], abs=0.012)
        assert bias.interval[1] == pytest.approx(1 - bias.interval[0, ::-1], abs=1e-12)
        wider = modality_bias(task, lines, k=10, confidence=0.99, n_resamples=1999).interval
        assert (wider[:, 0] < bias.interval[:, 0]).all()
        assert (wider[:, 1] > bias.interval[:, 1]).all()

    def test_the_interval_covers_the_truth(self):
        """Queries like texts more or less, all shares equally often: half of the top is texts."""
        task, covered = texts_and_images(10, 10, queries=40), 0
        for seed in range(150):
            rng = np.random.default_rng(seed)
            texts = rng.binomial(10, rng.random(40))
            lines = [[*range(count), *range(10, 20 - count)] for count in texts]
            low, high = modality_bias(task, lines, confidence=0.9, n_resamples=299, random_state=seed).interval[0]
            covered += low <= 0.5 <= high
        assert 0.83 <= covered / 150 <= 0.96

    def test_a_single_query_has_no_interval(self):
        bias = modality_bias(texts_and_images(2, 2), [[0, 3]], k=2)
        assert np.isnan(bias.interval).all()
        assert bias.notes == ("interval not measurable: a bootstrap over queries needs two of them",)
        assert bias.notes[0] in str(bias)

    def test_scores_of_kinds_by_hand(self):
        """A text that is rightly on top is no fault in the search for images."""
        task = texts_and_images(3, 3, queries=2)
        qrels = [{0: 1, 1: 2, 4: 1}, {5: 3, 2: 0}]
        bias = modality_bias(task, [[1, 2, 4, 0, 3, 5], [2, 5, 0, 1, 3, 4]], qrels, k=3)
        discount = 1 / np.log2([2, 3, 4])
        everything, text, image = bias.scores
        ideal = 3 * discount[0] + discount[1] + discount[2]
        assert everything["ndcg"] == pytest.approx(
            np.mean([(3 * discount[0] + discount[2]) / ideal, discount[1] / discount[0]])
        )
        assert everything["recall"] == pytest.approx((2 / 3 + 1) / 2)
        assert everything["reciprocal_rank"] == pytest.approx(0.75)
        assert text["n_queries"] == 1
        # Without the relevant image: 1, 2, 0, 3, 5
        assert text["ndcg"] == pytest.approx((3 * discount[0] + discount[2]) / (3 * discount[0] + discount[1]))
        assert text["recall"] == text["reciprocal_rank"] == 1
        # Without the relevant texts: 2, 4, 3, 5 and 2, 5, 0, 1, 3, 4
        assert image["n_queries"] == 2
        assert image["ndcg"] == pytest.approx(discount[1] / discount[0])
        assert image["reciprocal_rank"] == 0.5

    @hypothesis_settings(max_examples=60)
    @given(judged_rankings(), st.integers(0, 2**32 - 1))
    def test_scores_of_kinds_equal_those_of_pytrec_eval(self, case, seed):
        qrels, ranking, k = case
        texts, n = int(np.random.default_rng(seed).integers(0, 31)), len(qrels)
        task, kinds = texts_and_images(texts, 30 - texts, queries=n), ["text"] * texts + ["image"] * (30 - texts)
        lines = [line + [-1] * max(0, k - len(line)) for line in ranking]
        bias = modality_bias(task, lines, qrels, k=k, n_resamples=9)
        assert [row["kind"] for row in bias.scores] == ["all", *dict.fromkeys(kinds)]
        for row in bias.scores[1:]:
            own, rest = reference.scores_of_kind(qrels, ranking, kinds, row["kind"])
            judged = {str(i): {str(d): g for d, g in query.items()} for i, query in enumerate(own) if query}
            assert row["n_queries"] == len(judged)
            if not judged:
                assert row["note"] == f"not measurable: no query has a relevant document of kind {row['kind']}"
                assert np.isnan([row["ndcg"], row["recall"], row["reciprocal_rank"]]).all()
                assert f"{row['kind']}: {row['note']}" in bias.notes
                continue
            gains = {grade: 2**grade - 1 for grade in range(4)}
            for name, measure in (("ndcg", nDCG(gains=gains) @ k), ("recall", R @ k), ("reciprocal_rank", RR)):
                run = {q: {str(d): -float(r) for r, d in enumerate(rest[int(q)][:k])} for q in judged}
                values = [m.value for m in ir_measures.pytrec_eval.iter_calc([measure], judged, run)]
                assert row[name] == pytest.approx(sum(values) / len(judged), abs=1e-12)

    def test_queries_without_a_relevant_document(self):
        bias = modality_bias(texts_and_images(2, 2, queries=3), [[0], [1], [2]], [{0: 1}, {1: 0}, {}], k=1)
        assert bias.notes[0] == "left out: 2 queries (1, 2) without a relevant document"
        assert [(row["kind"], row["n_queries"]) for row in bias.scores] == [("all", 1), ("text", 1), ("image", 0)]
        assert "image: not measurable: no query has a relevant document of kind image" in str(bias)

    @pytest.mark.parametrize(
        ("ranking", "options", "error", "message"),
        [
            ([[0, 4], [0, 1]], {}, ValueError, r"ranking\[0\] holds document 4, but the corpus has the rows 0 to 3"),
            ([[0, 1], [0, -2]], {}, ValueError, r"ranking\[1\] holds document -2"),
            ([[0, 1], [0]], {}, ValueError, r"ranking\[1\] holds 1 documents, but k is 2: retrieve more, or fill up"),
            ([[0, 1], []], {}, ValueError, r"ranking\[1\] holds 0 documents, but k is 2"),
            ([[0, 1]], {}, ValueError, "ranking has 1 lines, but there are 2 queries"),
            (np.zeros((2, 2)), {}, ValueError, r"ranking\[0\] is array\(\[0., 0.\]\); expected document rows"),
            ([0, 1], {}, ValueError, r"ranking\[0\] is array\(0\)"),
            (None, {}, TypeError, "ranking must hold a line of document rows for each query; got None"),
            ([[0, 1], [1, 2, 1]], {}, ValueError, r"ranking\[1\] holds a document twice: \[1, 2, 1\]"),
            ([[-1, -1]] * 2, {}, ValueError, "ranking holds no document for any query"),
            ([[0, 1]] * 2, {"confidence": 95}, ValueError, "confidence must lie between 0 and 1; got 95"),
            ([[0, 1]] * 2, {"n_resamples": 0}, ValueError, "n_resamples must be a whole number of at least 1; got 0"),
            ([[0, 1]] * 2, {"k": 2.0}, ValueError, "k must be a whole number of at least 1; got 2.0"),
            ([[0, 1]] * 2, {"qrels": [{0: 0}, {}]}, ValueError, "qrels mark no document relevant"),
            ([[0, 1]] * 2, {"qrels": {0: 1}}, TypeError, "qrels must be a list of dicts"),
        ],
    )
    def test_wrong_input(self, ranking, options, error, message):
        with pytest.raises(error, match=message):
            modality_bias(texts_and_images(2, 2, queries=2), ranking, **{"k": 2, **options})

    def test_tasks_without_kinds(self):
        with pytest.raises(TypeError, match="the corpus of task is an array, whose kinds are unknown"):
            modality_bias(SearchTask(np.eye(3), np.eye(3)), [[0]] * 3, k=1)
        with pytest.raises(TypeError, match="task must be a SearchTask; got ndarray"):
            modality_bias(np.eye(3), [[0]] * 3, k=1)
        task = SearchTask(Items({"query": np.eye(3)}), Items({"all": np.eye(3)}))
        with pytest.raises(ValueError, match="a role of the corpus is called 'all', which stands for all kinds"):
            modality_bias(task, [[0]] * 3, k=1)

    def test_a_corpus_smaller_than_k(self):
        bias = modality_bias(texts_and_images(1, 1), [[1, 0]], k=10)
        assert bias.top_share.tolist() == [0.5, 0.5]


class TestRandomisation:
    @given(st.lists(st.integers(-40, 40), min_size=2, max_size=10), st.sampled_from([1, 0.1, 1 / 3, 1e-6]))
    def test_small_samples_are_exact(self, differences, step):
        """Whole numbers have equal sums that their multiples miss by rounding."""
        exact = scipy.stats.permutation_test(
            (np.array(differences),), np.sum, permutation_type="samples", n_resamples=np.inf
        )
        column = step * np.array(differences)[:, None]
        rng = np.random.default_rng(0)
        found = randomisation_test(np.hstack([column, -column, 2 * column]), 1024, rng)
        np.testing.assert_allclose(found, exact.pvalue, atol=1e-12)

    def test_random_signs_come_close_to_the_exact_value(self, rng):
        differences = rng.normal(0.3, 1, size=(12, 5))
        exact = randomisation_test(differences, 2**12, rng)
        drawn = randomisation_test(differences, 2**12 - 1, rng)
        assert (exact != drawn).any()
        np.testing.assert_allclose(drawn, exact, atol=4 * 0.5 / 64)
        assert (randomisation_test(np.full((60, 1), 0.5), 999, rng) == 1 / 1000).all()

    def test_many_rows_go_through_in_blocks(self, rng, monkeypatch):
        differences = rng.normal(0.1, 1, size=(40, 3))
        whole = randomisation_test(differences, 5000, np.random.default_rng(1))
        monkeypatch.setattr("grclip.diagnostics.comparison._SIGNS", 4000)
        np.testing.assert_allclose(randomisation_test(differences, 5000, np.random.default_rng(1)), whole, atol=0.03)
        monkeypatch.setattr("grclip.diagnostics.comparison._SIGNS", 1)
        assert randomisation_test(differences, 3, rng).shape == (3,)

    def test_p_is_uniform_where_there_is_no_difference(self, rng):
        differences = rng.normal(size=(30, 1000)) * rng.gamma(1, size=(30, 1))
        found = randomisation_test(differences, 999, rng)
        assert scipy.stats.kstest(found, "uniform").pvalue > 0.01
        assert (found <= 0.05).mean() < 0.05 + 3 * (0.05 * 0.95 / 1000) ** 0.5

    def test_no_difference_at_all(self, rng):
        for n in (3, 50):
            assert randomisation_test(np.zeros((n, 2)), 999, rng).tolist() == [1, 1]
        assert randomisation_test(np.array([[0.5], [-0.5]] * 20), 999, rng) == 1


class TestCompare:
    def test_rows_are_those_of_the_metrics(self, mixed, methods):
        task, qrels = mixed
        result = compare(task, qrels, methods, k=3)
        assert result.methods == ("raw", "centred", "scaled")
        assert result.kinds == ("text", "image", "text+image")
        assert [(row["method"], row["kind"]) for row in result.rows] == [
            (method, kind) for method in methods for kind in ("all", *result.kinds)
        ]
        kinds = task.corpus.kinds
        for name, method in methods.items():
            ranking = method.predict(task)
            np.testing.assert_array_equal(result.rankings[name], ranking[:, :3])
            np.testing.assert_allclose(
                result.similarities[name], method[-1].kneighbors(method[:-1].transform(task), k=3)[0]
            )
            for metric, score in METRICS.items():
                each = score(qrels, ranking, k=3, per_query=True)
                np.testing.assert_allclose(result.per_query[metric][name], each)
                for row in (row for row in result.rows if row["method"] == name):
                    some = slice(None) if row["kind"] == "all" else kinds == row["kind"]
                    assert row[metric] == pytest.approx(each[some].mean())
                    assert row["n_queries"] == len(each[some])
                    assert row["note"] == ""

    def test_p_values_are_those_of_a_permutation_test(self, rng):
        task, _ = make_mixed(rng, n=12, noise=1.0)
        qrels = [{i: 1, (5 * i + 1) % 12: 2, (7 * i + 2) % 12: 0} for i in range(12)]
        methods = {"raw": raw().fit(task), "centred": centred().fit(task)}
        whole = {name: clone(method).set_params(exactretriever__k=12).fit(task) for name, method in methods.items()}
        kinds = task.corpus.kinds
        rows = {(row["method"], row["kind"]): row for row in compare(task, qrels, methods, k=5).rows}
        for kind, (metric, score) in product(("text", "image", "text+image"), METRICS.items()):
            own = {name: reference.scores_of_kind(qrels, whole[name].predict(task), kinds, kind) for name in methods}
            each = {name: score(*case, k=5, per_query=True, empty="skip") for name, case in own.items()}
            differences = (each["centred"] - each["raw"])[~np.isnan(each["raw"])]
            exact = scipy.stats.permutation_test((differences,), np.sum, permutation_type="samples", n_resamples=np.inf)
            assert rows["centred", kind][f"{metric}_p"] == pytest.approx(exact.pvalue)
            assert rows["raw", kind][f"{metric}_p"] is None
        assert len({row["ndcg_p"] for row in rows.values()}) > 3

    def test_a_method_against_itself(self, mixed, methods):
        rows = compare(*mixed, {"one": methods["raw"], "other": methods["raw"]}).rows
        assert [row["ndcg_p"] for row in rows] == [None] * 4 + [1] * 4

    def test_baseline_by_name(self, mixed, methods):
        first, last = compare(*mixed, methods), compare(*mixed, methods, baseline="scaled")
        assert (first.baseline, last.baseline) == ("raw", "scaled")
        assert [row["ndcg_p"] is None for row in last.rows] == [False] * 8 + [True] * 4
        with pytest.raises(ValueError, match="baseline 'none' is none of the methods: 'raw', 'centred', 'scaled'"):
            compare(*mixed, methods, baseline="none")

    def test_scores_of_a_kind_do_not_end_where_others_fill_the_top(self):
        """Three right texts on top, then the right image: the image is the first of what else there is."""
        x = np.array([[1.0, 0.0], [0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
        text, image = x.copy(), x.copy()
        text[3:], image[:3] = np.nan, np.nan
        task = SearchTask(Items({"query": [[1.0, 0.0]]}), Items({"text": text, "image": image}))
        qrels, method = [{0: 1, 1: 1, 2: 1, 3: 1}], raw().set_params(exactretriever__k=2).fit(task)
        result = compare(task, qrels, method, k=2)
        assert result.rows[2]["kind"] == "image"
        assert result.rows[2]["ndcg"] == result.rows[2]["recall"] == result.rows[2]["reciprocal_rank"] == 1
        assert result.rankings["pipeline"].tolist() == [[0, 1]]
        assert result.similarities["pipeline"].shape == (1, 2)

    @hypothesis_settings(max_examples=20)
    @given(st.integers(0, 2**32 - 1), st.integers(1, 12))
    def test_scores_of_kinds_are_those_of_the_whole_ranking(self, seed, k):
        rng = np.random.default_rng(seed)
        task, _ = make_mixed(rng, n=20, noise=2.0)
        qrels = [{int(j): int(rng.integers(0, 4)) for j in rng.permutation(20)[:8]} | {i: 1} for i in range(20)]
        method = raw().set_params(exactretriever__k=20).fit(task)
        ours = compare(task, qrels, method, k=k).rows
        whole = modality_bias(task, method.predict(task), qrels, k=k).scores
        for row, other in zip(ours, whole, strict=True):
            assert {name: row[name] for name in other} == pytest.approx(other)

    def test_queries_and_kinds_without_a_relevant_document(self, mixed, methods):
        task, qrels = mixed
        kinds = task.corpus.kinds
        qrels = [{} if kinds[i] == "image" else {i: 1, 29 - i: 0} for i in range(30)]
        result = compare(task, qrels, methods)
        left_out = np.flatnonzero(kinds == "image")
        assert result.notes == (
            f"left out: 10 queries ({', '.join(map(str, left_out[:5]))}, ...) without a relevant document",
        )
        np.testing.assert_array_equal(np.flatnonzero(np.isnan(result.per_query["ndcg"]["raw"])), left_out)
        for row in result.rows:
            if row["kind"] == "image":
                assert row["note"] == "not measurable: no query has a relevant document of kind image"
                assert row["n_queries"] == 0
                assert np.isnan(row["ndcg"])
                assert row["ndcg_p"] is None
            elif row["kind"] == "all":
                each = ndcg_score(qrels, result.rankings[row["method"]], empty="skip", per_query=True)
                assert row["ndcg"] == pytest.approx(np.nanmean(each))
                assert row["n_queries"] == 20

    def test_a_grid_search_is_the_pipeline_it_found(self, mixed):
        task, qrels = mixed
        grid = GridSearchCV(centred(), {"multimodalfuser__alpha": [0.0, 1.0]}, scoring=retrieval_scorer(), cv=3)
        with pytest.raises(NotFittedError, match=r"methods\['grid'\] is not fitted"):
            compare(task, qrels, {"grid": grid})
        grid.fit(task, qrels)
        result = compare(task, qrels, {"grid": grid, "best": grid.best_estimator_})
        np.testing.assert_array_equal(result.rankings["grid"], grid.predict(task))
        np.testing.assert_array_equal(result.rankings["grid"], result.rankings["best"])

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
    def test_tensors(self, mixed, methods, dtype):
        task, qrels = mixed
        sides = [
            Items({role: torch.from_numpy(part).to(dtype) for role, part in side.items()})
            for side in (task.queries, task.corpus)
        ]
        result = compare(SearchTask(*sides), qrels, methods)
        for name in methods:
            assert type(result.rankings[name]) is type(result.similarities[name]) is np.ndarray
        if dtype == torch.float64:
            for name, method in methods.items():
                np.testing.assert_array_equal(result.rankings[name], method.predict(task))

    @pytest.mark.gpu
    def test_a_gpu_compares_as_a_cpu(self, mixed, methods, cuda):
        task, qrels = mixed
        sides = [
            Items({role: torch.from_numpy(part).to(cuda) for role, part in side.items()})
            for side in (task.queries, task.corpus)
        ]
        there, here = (compare(each, qrels, methods) for each in (SearchTask(*sides), task))
        for name in methods:
            np.testing.assert_array_equal(there.rankings[name], here.rankings[name])

    def test_a_corpus_smaller_than_k(self, rng):
        task, qrels = make_mixed(rng, n=6)
        result = compare(task, qrels, raw().set_params(exactretriever__k=2).fit(task), k=10)
        assert result.rankings["pipeline"].shape == (6, 6)
        assert result.rows[0]["recall"] == 1

    def test_a_single_query_and_a_single_document(self):
        task = SearchTask(Items({"query": [[1.0, 2.0]]}), Items({"text": [[1.0, 1.0]]}))
        method = raw().set_params(exactretriever__k=1).fit(task)
        result = compare(task, [{0: 1}], {"one": method, "other": method}, k=1)
        assert [row["ndcg"] for row in result.rows] == [1] * 4
        assert result.rows[-1]["ndcg_p"] == 1
        assert modality_bias(task, [[0]], [{0: 1}], k=1).top_share.tolist() == [1]

    def test_qrels_as_others_keep_them(self, mixed, methods):
        task, qrels = mixed
        series = pd.Series(qrels, index=range(7, 37))
        numpy = np.array([{np.int64(row): np.float32(1) for row in judged} for judged in qrels], dtype=object)
        first, *others = (compare(task, each, methods).rows for each in (qrels, series, numpy))
        assert all(rows == first for rows in others)

    @pytest.mark.parametrize(
        ("wrong", "error", "message"),
        [
            ({"a": raw()}, NotFittedError, r"methods\['a'\] is not fitted; fit it on a calibration task"),
            ({"a": make_pipeline(MultimodalFuser())}, TypeError, r"methods\['a'\] is Pipeline, .* end in a retriever"),
            ({"a": ModalityGapRemover()}, TypeError, r"methods\['a'\] is ModalityGapRemover, .* end in a retriever"),
            (["a"], TypeError, r"methods\['pipeline'\] is list, which does not end in a retriever"),
            ({}, ValueError, "methods is empty"),
            ({1: raw()}, TypeError, "methods has the key 1; names are strings"),
        ],
    )
    def test_wrong_methods(self, mixed, complete, wrong, error, message):
        with pytest.raises(error, match=message):
            compare(*mixed, wrong)
        if error is not NotFittedError:
            with pytest.raises(error, match=message):
                alpha_curve(*mixed, wrong)
            with pytest.raises(error, match=message):
                calibration_size(*mixed, wrong, mixed)
        with pytest.raises(error, match=message):
            replacement_curve(*complete, wrong)

    @pytest.mark.parametrize(
        ("qrels", "error", "message"),
        [
            (None, TypeError, "qrels must be a list of dicts .*; got NoneType"),
            ({0: 1}, TypeError, "qrels must be a list of dicts"),
            ([{0: 0}] * 30, ValueError, "qrels mark no document relevant"),
            ([{0: 1}] * 29, ValueError, "qrels has 29 entries, but there are 30 queries"),
            ([{30: 1}] * 30, ValueError, r"qrels\[0\] judges document 30, but the corpus has 30 rows"),
        ],
    )
    def test_wrong_qrels(self, mixed, methods, qrels, error, message):
        task, judged = mixed
        for measure in (compare, replacement_curve, alpha_curve):
            with pytest.raises(error, match=message):
                measure(task, qrels, methods)
        with pytest.raises(error, match=message):
            calibration_size(task, qrels, methods, (task, judged))

    def test_wrong_numbers(self, mixed, methods):
        for name in ("k", "n_resamples"):
            with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1; got 0"):
                compare(*mixed, methods, **{name: 0})


class Recorder(TransformerMixin, BaseEstimator):
    """A first step that keeps what is searched."""

    def fit(self, X, y=None):
        self.seen_ = []
        return self

    def transform(self, X):
        self.seen_.append(X)
        return X


class NeedsQrels(Recorder):
    """A first step that takes no queries without their qrels: documents that repeat the query, and these alone."""

    def fit(self, X, y=None):
        for query, judged in zip(X.queries["query"], y, strict=True):
            if set(judged) != set(np.flatnonzero((X.corpus["text"] == query).all(axis=1))):
                raise RuntimeError("these qrels are those of another task")
        return super().fit(X)


class TestReplacementCurve:
    def test_it_is_a_loop_over_corpora(self, complete):
        task, qrels = complete
        recorded = make_pipeline(Recorder(), *centred()).fit(task)
        methods = {"recorded": recorded, "raw": raw().fit(task)}
        recorded[0].seen_.clear()
        curve = replacement_curve(task, qrels, methods, [0.2, 0.7, 1.0], k=5, n_repeats=3, push_down=False)
        corpora = [recorded[0].seen_[i : i + 3] for i in (0, 3, 6)]
        assert len(recorded[0].seen_) == 9
        assert (curve.parameter, curve.metric, curve.repeats) == ("p", "NDCG@5", "random corpora")
        assert curve.values.tolist() == [0.2, 0.7, 1.0]
        for name, method in methods.items():
            slow = [[ndcg_score(qrels, method.predict(one), k=5) for one in line] for line in corpora]
            np.testing.assert_allclose(curve.scores[name], slow, atol=1e-12)
            np.testing.assert_allclose(curve.mean(name), np.mean(slow, axis=1), atol=1e-12)
        for one in recorded[0].seen_:
            kinds = one.corpus.kinds
            assert set(kinds) <= {"text", "image"}
            for role in ("text", "image"):
                np.testing.assert_array_equal(one.corpus[role][kinds == role], task.corpus[role][kinds == role])
        images = np.array([[one.corpus.kinds == "image" for one in line] for line in corpora])
        assert (images[1:] >= images[:-1]).all()
        assert images[2].all()
        assert images[:2].mean(axis=(1, 2)) == pytest.approx([0.2, 0.7], abs=4 * 0.5 / 120**0.5)
        assert (images[0, 0] != images[0, 1]).any()

    def test_the_ends_are_searches_of_one_modality(self, complete):
        task, qrels = complete
        methods = {"raw": raw().fit(task), "scaled": centred(equalize=True).fit(task, qrels)}
        curve = replacement_curve(task, qrels, methods, n_repeats=2)
        for name, method in methods.items():
            for end, role in ((0, "text"), (-1, "image")):
                alone = SearchTask(task.queries, Items({role: task.corpus[role]}))
                score = ndcg_score(qrels, method.predict(alone))
                np.testing.assert_allclose(curve.scores[name][end], score, atol=1e-12)
        np.testing.assert_array_equal(curve.scores["raw, pushed down"][[0, -1]], curve.scores["raw"][[0, -1]])

    @hypothesis_settings(max_examples=25)
    @given(st.integers(0, 2**32 - 1), st.integers(1, 30))
    def test_pushed_down(self, seed, k):
        """Queries of text, of images and of both; documents with sound beside their image are near to both."""
        rng = np.random.default_rng(seed)
        task, qrels = make_complete(rng, n=24)
        query, query_image = task.queries["query"].copy(), rng.normal(size=(24, 16))
        query[::3], query_image[1::3] = np.nan, np.nan
        corpus = {role: part.copy() for role, part in task.corpus.items()}
        corpus["text"][:3] = corpus["image"][3:5] = np.nan
        corpus["audio"] = np.where(np.arange(24)[:, None] % 2, rng.normal(size=(24, 16)), np.nan)
        task = SearchTask(Items({"query": query, "query_image": query_image}), Items(corpus))
        method = make_pipeline(Recorder(), *raw()).fit(task)
        method[0].seen_.clear()
        curve = replacement_curve(task, qrels, {"raw": method}, [0.0, 0.5, 1.0], k=k, n_repeats=1)
        assert list(curve.scores) == ["raw", "raw, pushed down"]
        asked = [
            {"text"} if np.isnan(i[0]) else {"image"} if np.isnan(q[0]) else {"text", "image"}
            for q, i in zip(query, query_image, strict=True)
        ]
        whole = [one for one in method[0].seen_ if len(one) == len(one.corpus) == 24]
        for i, one in enumerate(whole[:: len(whole) // 3]):
            fused = method[1].transform(one)
            far = [[not side & set(kind.split("+")) for kind in one.corpus.kinds] for side in asked]
            slow = reference.push_down(fused.queries, fused.corpus, far, k)
            assert curve.scores["raw, pushed down"][i, 0] == pytest.approx(ndcg_score(qrels, slow, k=k))

    def test_documents_of_one_modality_stay(self, complete):
        task, qrels = complete
        corpus = {role: part.copy() for role, part in task.corpus.items()}
        corpus["text"][:10] = corpus["image"][10:20] = np.nan
        task = SearchTask(task.queries, Items(corpus))
        recorded = make_pipeline(Recorder(), *raw()).fit(task)
        recorded[0].seen_.clear()
        replacement_curve(task, qrels, recorded, [0.0, 0.4, 1.0], n_repeats=1, push_down=False)
        for one in recorded[0].seen_:
            assert one.corpus.kinds[:20].tolist() == ["image"] * 10 + ["text"] * 10
            assert set(one.corpus.kinds[20:]) <= {"text", "image"}

    def test_several_roles_of_a_modality_go_together(self, rng):
        x = rng.normal(size=(5, 20, 6))
        corpus = Items(dict(zip(("title", "body", "cover", "sketch"), x[1:], strict=True)))
        task, modalities = SearchTask(Items({"query": x[0]}), corpus), {"sketch": "image"}
        recorded = make_pipeline(Recorder(), *raw(modalities=modalities)).fit(task)
        recorded[0].seen_.clear()
        qrels = [{i: 1} for i in range(20)]
        replacement_curve(task, qrels, recorded, 0.5, n_repeats=1, modalities=modalities)
        assert set(recorded[0].seen_[0].corpus.kinds) == {"title+body", "cover+sketch"}
        with pytest.raises(ValueError, match="unknown modality of 'sketch'; say for each"):
            replacement_curve(task, qrels, recorded, 0.5)

    def test_queries_without_a_relevant_document_are_left_out(self, complete):
        task, qrels = complete
        some = [{} if i < 10 else judged for i, judged in enumerate(qrels)]
        method = raw().fit(task)
        curve = replacement_curve(task, some, method, [0.0, 1.0], n_repeats=1)
        assert curve.notes == ("left out: 10 queries (0, 1, 2, 3, 4, ...) without a relevant document",)
        alone = SearchTask(task.queries, Items({"text": task.corpus["text"]}))
        assert curve.scores["pipeline"][0, 0] == pytest.approx(ndcg_score(some, method.predict(alone), empty="skip"))

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"p": 1.5}, ValueError, r"p must be a probability, in \[0, 1\]; got 1.5"),
            ({"p": [np.nan]}, ValueError, "p must be a probability"),
            ({"p": []}, ValueError, r"p has shape \(0,\); expected at least one number"),
            ({"p": [[0, 1]]}, ValueError, r"p has shape \(1, 2\)"),
            ({"k": 0}, ValueError, "k must be a whole number"),
            ({"n_repeats": 0}, ValueError, "n_repeats must be a whole number"),
            ({"push_down": "no"}, TypeError, "push_down must be True or False; got 'no'"),
        ],
    )
    def test_wrong_input(self, complete, options, error, message):
        task, qrels = complete
        with pytest.raises(error, match=message):
            replacement_curve(task, qrels, raw().fit(task), **options)

    def test_nothing_to_replace(self, complete):
        task, qrels = complete
        one = np.where(np.arange(40)[:, None] < 20, task.corpus["text"], np.nan)
        other = np.where(np.arange(40)[:, None] < 20, np.nan, task.corpus["image"])
        method = raw().fit(task)
        with pytest.raises(ValueError, match="no document has a text and a part of another modality"):
            replacement_curve(SearchTask(task.queries, Items({"text": one, "image": other})), qrels, method)
        with pytest.raises(ValueError, match="the documents have no part beside its text"):
            replacement_curve(SearchTask(task.queries, Items({"text": task.corpus["text"]})), qrels, method)

    def test_intervals(self, complete):
        task, qrels = complete
        curve = replacement_curve(task, qrels, raw().fit(task), [0.3, 0.6], n_repeats=4)
        for confidence in (0.5, 0.95):
            for scores, interval in zip(curve.scores["pipeline"], curve.interval("pipeline", confidence), strict=True):
                slow = scipy.stats.t.interval(confidence, 3, scores.mean(), scipy.stats.sem(scores))
                assert interval == pytest.approx(slow)
        for wrong in (0, 1, 95, np.nan):
            with pytest.raises(ValueError, match="confidence must lie between 0 and 1"):
                curve.interval("pipeline", wrong)
        for method in (curve.mean, curve.interval):
            with pytest.raises(KeyError, match="other"):
                method("other")
        single = replacement_curve(task, qrels, raw().fit(task), [0.3, 0.6], n_repeats=1)
        assert np.isnan(single.interval("pipeline")).all()


class TestAlphaCurve:
    @pytest.mark.parametrize("apart", [False, True])
    def test_it_is_a_loop_over_clones(self, complete, apart):
        task, qrels = complete
        calibration = make_complete(np.random.default_rng(1), n=30) if apart else None
        methods = {"raw": raw(), "scaled": centred(equalize=True)}
        curve = alpha_curve(task, qrels, methods, [0.0, 0.3, 1.0], calibration=calibration, k=5)
        assert (curve.parameter, curve.metric, curve.repeats) == ("alpha", "NDCG@5", "queries")
        for name, method in methods.items():
            for i, alpha in enumerate((0.0, 0.3, 1.0)):
                fitted = clone(method).set_params(multimodalfuser__alpha=alpha).fit(*(calibration or (task, qrels)))
                each = ndcg_score(qrels, fitted.predict(task), k=5, per_query=True)
                np.testing.assert_allclose(curve.scores[name][i], each, atol=1e-12)
            assert not hasattr(method[-2], "n_features_in_")

    def test_steps_before_the_search_are_fitted_with_qrels(self, complete):
        task = SearchTask(complete[0].queries, Items({"text": complete[0].queries["query"][::-1]}))
        qrels = [{39 - i: 1} for i in range(40)]
        method, some = make_pipeline(NeedsQrels(), *raw()), (task[:20], qrels[:20])
        assert np.isfinite(alpha_curve(task, qrels, method, [0.5]).mean("pipeline"))
        assert np.isfinite(alpha_curve(task, qrels, method, [0.5], calibration=some).mean("pipeline"))
        found = calibration_size(task, qrels, method, some, [5, 20], n_repeats=2)
        assert np.isfinite(found.scores.scores["pipeline"]).all()
        assert not hasattr(method[0], "seen_")

    def test_where_it_is_calibrated_matters(self, complete):
        task, qrels = complete
        here, there = (
            alpha_curve(task, qrels, centred(), [0.5], calibration=calibration).mean("pipeline")
            for calibration in (None, make_complete(np.random.default_rng(1)))
        )
        assert abs(here - there) > 0.01

    def test_all_alphas(self, complete):
        curve = alpha_curve(*complete, raw())
        assert curve.values.tolist() == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]
        assert [row["method"] for row in curve.rows] == ["pipeline"]
        assert curve.interval("pipeline").shape == (11, 2)

    def test_a_corpus_smaller_than_k_and_queries_left_out(self, rng):
        task, qrels = make_complete(rng, n=5)
        curve = alpha_curve(task, [{}, *qrels[1:]], raw(), [0.5], calibration=make_complete(rng))
        assert curve.scores["pipeline"].shape == (1, 4)
        assert curve.notes == ("left out: 1 query (0) without a relevant document",)

    @pytest.mark.parametrize(
        ("method", "options", "error", "message"),
        [
            (
                make_pipeline(FunctionTransformer(), ExactRetriever()),
                {},
                ValueError,
                r"methods\['pipeline'\] has 0 parameters called alpha \(no fuser in it\)",
            ),
            (
                make_pipeline(MultimodalFuser(), MultimodalFuser(), ExactRetriever()),
                {},
                ValueError,
                r"has 2 parameters called alpha \(multimodalfuser-1__alpha, multimodalfuser-2__alpha\)",
            ),
            (ExactRetriever(), {}, TypeError, "which has no step to fit before the search"),
            (raw(), {"alphas": [2]}, ValueError, "alpha must be a number from 0 to 1; got 2.0"),
            (raw(), {"alphas": []}, ValueError, r"alphas has shape \(0,\)"),
            (raw(), {"calibration": "photos"}, TypeError, r"calibration must be a pair \(SearchTask, qrels\); got str"),
        ],
    )
    def test_wrong_input(self, complete, method, options, error, message):
        with pytest.raises(error, match=message):
            alpha_curve(*complete, method, **options)

    def test_a_frozen_step_stays_as_it_was_fitted(self, complete):
        task, qrels = complete
        remover = ModalityGapRemover().fit(make_complete(np.random.default_rng(1))[0])
        frozen = make_pipeline(FrozenEstimator(remover), MultimodalFuser(), ExactRetriever())
        curve = alpha_curve(task, qrels, {"frozen": frozen, "fitted": centred()}, [0.5])
        fused = MultimodalFuser().fit_transform(remover.transform(task))
        ranking = ExactRetriever().fit(fused).predict(fused)
        np.testing.assert_allclose(curve.scores["frozen"][0], ndcg_score(qrels, ranking, per_query=True))
        assert curve.mean("frozen") != curve.mean("fitted")


class TestCalibrationSize:
    def test_all_rows(self, complete, rng):
        task, qrels = complete
        calibration = make_complete(rng, n=30)
        methods = {"raw": raw(), "scaled": centred(equalize=True)}
        found = calibration_size(task, qrels, methods, calibration, [10, 30], n_repeats=2)
        assert (found.scores.parameter, found.scores.metric, found.scores.repeats) == ("n", "NDCG@10", "random subsets")
        assert found.scores.values.tolist() == found.errors.values.tolist() == [10, 30]
        assert set(found.errors.scores) == set(found.expected) == {"query", "text", "image"}
        for role in found.expected:
            np.testing.assert_allclose(found.errors.scores[role][1], 0, atol=1e-15)
            assert (found.errors.scores[role][0] > 0.01).all()
        for name, method in methods.items():
            whole = ndcg_score(qrels, clone(method).fit(*calibration).predict(task))
            np.testing.assert_allclose(found.scores.scores[name][1], whole)
        assert len(set(found.scores.scores["scaled"][0])) == 2

    def test_the_error_is_what_theory_expects(self, rng):
        n, d = 400, 32
        query, text = rng.normal(size=(2, n, d)) + rng.normal(size=(2, 1, d))
        calibration = SearchTask(Items({"query": query}), Items({"text": text})), [{i: 1} for i in range(n)]
        sizes = np.array([5, 20, 100, 300])
        few = SearchTask(Items({"query": query[:5]}), Items({"text": text[:5]}))
        found = calibration_size(few, [{i: 1} for i in range(5)], centred(), calibration, sizes, n_repeats=60)
        for role, part in (("query", query), ("text", text)):
            mean = unit(part).mean(axis=0)
            np.testing.assert_allclose(found.expected[role], np.sqrt((1 - mean @ mean) / sizes))
            seen = np.sqrt(np.mean(found.errors.scores[role] ** 2, axis=1))
            np.testing.assert_allclose(seen, found.expected[role] * np.sqrt((n - sizes) / (n - 1)), rtol=0.1)

    def test_default_sizes(self, rng):
        task, qrels = make_complete(rng, n=60)
        found = calibration_size(task, qrels, centred(), (task[:55], qrels[:55]), n_repeats=1)
        assert found.scores.values.tolist() == [5, 10, 20, 50, 55]
        assert list(found.scores.rows[0]) == ["method", "5", "10", "20", "50", "55"]

    def test_subsets_that_cannot_be_fitted(self, rng):
        """One document has no unrelated pairs, and no kind but its own."""
        task, qrels = make_mixed(rng)
        found = calibration_size(task, qrels, {"scaled": centred(equalize=True)}, (task, qrels), [1, 30], n_repeats=3)
        assert np.isnan(found.scores.scores["scaled"][0]).all()
        assert np.isnan(found.scores.mean("scaled")[0])
        assert np.isfinite(found.scores.scores["scaled"][1]).all()
        assert found.scores.notes
        assert all(note.startswith("scaled, n=1, not measurable in a subset: ") for note in found.scores.notes)
        assert found.scores.notes[0] in str(found)

    def test_grades_out_of_range_are_no_matter_of_subsets(self, mixed):
        with pytest.raises(ValueError, match="a grade above 1000 is too large"):
            calibration_size(mixed[0], [{i: 2000} for i in range(30)], raw(), mixed, [30])

    def test_rows_that_are_their_own_mean_give_no_warning(self, mixed):
        assert calibration_size(*mixed, centred(), mixed, [2, 5], n_repeats=3).scores.values.tolist() == [2, 5]

    def test_roles_of_fewer_rows(self, mixed):
        task, qrels = mixed
        found = calibration_size(task, qrels, centred(), (task, qrels), [10, 20, 25], n_repeats=2)
        rows = {role: int((~np.isnan(task.corpus[role][:, 0])).sum()) for role in ("text", "image")}
        assert rows == {"text": 20, "image": 20}
        assert found.errors.notes == tuple(
            f"{role}, n=25, not measurable: the role has 20 rows" for role in ("text", "image")
        )
        for role in rows:
            np.testing.assert_allclose(found.errors.scores[role][1], 0, atol=1e-15)
            assert np.isnan(found.errors.scores[role][2]).all()

    def test_a_role_of_none(self, complete):
        task, qrels = complete
        empty = np.full_like(task.corpus["text"], np.nan)
        calibration = SearchTask(task.queries, Items({"text": task.corpus["text"], "image": empty})), qrels
        alone = SearchTask(task.queries, Items({"text": task.corpus["text"]}))
        found = calibration_size(alone, qrels, centred(), calibration, [10], n_repeats=2)
        assert found.errors.notes == ("image, n=10, not measurable: the role has 0 rows",)
        assert np.isnan(found.errors.scores["image"]).all()
        assert np.isfinite(found.scores.scores["pipeline"]).all()

    def test_rows_all_alike(self, complete):
        task, qrels = complete
        for seed in range(5):
            same = np.tile(np.random.default_rng(seed).normal(size=16), (40, 1))
            calibration = SearchTask(Items({"query": same}), Items({"text": same, "image": same})), qrels
            found = calibration_size(task, qrels, raw(), calibration, [10], n_repeats=1)
            assert found.expected["text"] == pytest.approx(0, abs=1e-7)

    @pytest.mark.parametrize(
        ("sizes", "message"),
        [
            ([0], "a size must be a whole number of at least 1; got 0"),
            ([5.5], "a size must be a whole number of at least 1; got 5.5"),
            ([5, 31], r"sizes are \[5, 31\]; expected numbers from 1 to 30"),
            ([], r"sizes are \[\]"),
        ],
    )
    def test_wrong_sizes(self, mixed, sizes, message):
        with pytest.raises(ValueError, match=message):
            calibration_size(*mixed, raw(), mixed, sizes)

    @pytest.mark.parametrize("calibration", [None, "photos", (1, 2), (1, 2, 3)])
    def test_wrong_calibration(self, mixed, calibration):
        with pytest.raises(TypeError, match=r"calibration must be a pair \(SearchTask, qrels\)"):
            calibration_size(*mixed, raw(), calibration)

    def test_a_search_alone_has_nothing_to_calibrate(self, mixed):
        with pytest.raises(TypeError, match="which has no step to fit before the search"):
            calibration_size(*mixed, make_pipeline(ExactRetriever()), mixed)


class Text(HTMLParser):
    """Tags and text of a page, as a browser would see them."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.texts.append(data)


EVIL = "<script>alert('&')</script>"


@pytest.fixture
def results(rng):
    """One result of each sort, with names that must be escaped and something that is not measurable."""
    x = rng.normal(size=(2, 24, 8))
    text, image = x.copy()
    text[::2] = np.nan
    task = SearchTask(Items({"query": x[0]}), Items({"text": text, EVIL: image}))
    modalities, qrels = {EVIL: "image"}, [{i: 1} if i % 2 else {} for i in range(24)]
    method = raw(modalities=modalities).fit(task)
    return {
        "gap": modality_gap({EVIL: x[0], "b": x[1]}),
        "bias": modality_bias(task, method.predict(task), qrels, k=3),
        "compare": compare(task, qrels, {EVIL: method, "b": method}),
        "replacement": replacement_curve(task, qrels, {EVIL: method}, modalities=modalities, n_repeats=1),
        "alpha": alpha_curve(task, qrels, {EVIL: method}, [0, 0.5]),
        "size": calibration_size(
            task, qrels, {EVIL: centred(modalities=modalities)}, (task, qrels), [1, 20], n_repeats=2
        ),
    }


class TestTables:
    def test_html_is_escaped(self, results):
        for name, result in results.items():
            page = Text(result._repr_html_())
            assert set(page.tags) == {"table", "caption", "thead", "tbody", "tr", "th", "td", "p"}, name
            assert any(EVIL in text for text in page.texts), name

    def test_what_is_not_measurable_is_a_dash_and_says_why(self, results):
        for name in ("gap", "compare", "size"):
            shown, page = str(results[name]), Text(results[name]._repr_html_())
            assert re.search(r" -( |$)", shown, flags=re.MULTILINE), name
            assert "-" in page.texts, name
            assert not re.search(r"\bnan\b", shown, flags=re.IGNORECASE), name
            assert "not measurable" in shown, name
            assert any("not measurable" in text for text in page.texts), name
        for name in ("bias", "compare", "replacement", "alpha"):
            assert "left out: 12 queries (0, 2, 4, 6, 8, ...) without a relevant document" in str(results[name])

    def test_rows_are_those_of_a_data_frame(self, results):
        frames = {name: pd.DataFrame(result.rows) for name, result in results.items() if name != "size"}
        frames |= {"scores": pd.DataFrame(results["size"].scores.rows)}
        assert frames["gap"]["roles"].tolist() == [f"{EVIL} - b"]
        assert frames["compare"][frames["compare"]["kind"] == "all"]["ndcg"].nunique() == 1
        assert frames["bias"]["in corpus"].sum() == pytest.approx(1)
        assert frames["replacement"]["0.25"].between(0, 1).all()
        assert frames["alpha"].columns.tolist() == ["method", "0.0", "0.5"]
        assert frames["scores"].columns.tolist() == ["method", "1", "20"]

    def test_columns_line_up(self, mixed, methods):
        lines = str(compare(*mixed, methods)).splitlines()
        assert lines[0] == "Metrics at 10 of 30 queries, by kind of relevant document; p-values against 'raw'"
        assert lines[1].split() == ["method", "kind", "n_queries", "ndcg", "recall", "reciprocal_rank", "ndcg_p"]
        assert len(lines) == 2 + 12
        assert len({line.index("text") for line in lines if " text " in line}) == 1

    def test_representations_are_short(self, results):
        for result in results.values():
            assert len(repr(result)) < 4000
        assert repr(results["gap"]) == "<ModalityGap: Modality gap>"


def everything(task, qrels, *, random_state=0):
    """All numbers that the diagnostics give, in one flat list."""
    methods = {"raw": raw().fit(task), "centred": centred().fit(task)}
    options = {"random_state": random_state}
    gap = modality_gap(task, qrels, **options)
    bias = modality_bias(task, methods["raw"].predict(task), qrels, n_resamples=99, **options)
    comparison = compare(task, qrels, methods, n_resamples=99, **options)
    curve = replacement_curve(task, qrels, methods, [0.5], n_repeats=2, **options)
    size = calibration_size(task, qrels, methods, (task, qrels), [10, 20], n_repeats=2, **options)
    arrays = [
        [pair.separability for pair in gap.pairs.values()],
        bias.interval,
        [row["ndcg_p"] or 0 for row in comparison.rows],
        *curve.scores.values(),
        *alpha_curve(task, qrels, methods, [0.5]).scores.values(),
        *size.scores.scores.values(),
        *size.errors.scores.values(),
    ]
    return np.concatenate([np.ravel(array) for array in arrays])


@pytest.mark.parametrize("layout", ["c", "f", "step", "back", "read-only", "big-endian"])
def test_input_stays_as_it_is(complete, layout):
    task, qrels = complete
    parts = {role: part.astype("float32") for side in (task.queries, task.corpus) for role, part in side.items()}
    expected = everything(task, qrels)
    parts = {role: lay_out(part, layout) for role, part in parts.items()}
    task = SearchTask(Items({"query": parts["query"]}), Items({role: parts[role] for role in ("text", "image")}))
    before = {role: part.copy() for role, part in parts.items()}
    found = everything(task, qrels)
    for role, part in parts.items():
        np.testing.assert_array_equal(part, before[role])
    assert qrels == [{i: 1} for i in range(40)]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_chance_is_drawn_from_random_state_alone(rng):
    task, qrels = make_complete(rng, noise=2.0)
    np.random.seed(1)  # noqa: NPY002 (the global state is what this is about)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    torch_state = torch.get_rng_state()
    first = everything(task, qrels)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.random.seed(2)  # noqa: NPY002
    np.testing.assert_array_equal(everything(task, qrels), first)
    assert (everything(task, qrels, random_state=1) != first).any()


def test_encoders_on_raw_items():
    task, qrels = make_scenes(24, random_state=0, size=64)
    encoder = toy_encoder()
    pipeline = make_pipeline(encoder, *centred(equalize=True)).fit(task, qrels)
    encoded = encoder.transform(task)
    from_vectors = pipeline[1:]
    result = compare(task, qrels, {"raw items": pipeline})
    np.testing.assert_array_equal(result.rankings["raw items"], from_vectors.predict(encoded))
    first = replacement_curve(task, qrels, pipeline, [0, 0.5, 1], n_repeats=1)
    second = replacement_curve(encoded, qrels, from_vectors, [0, 0.5, 1], n_repeats=1)
    for name in first.scores:
        np.testing.assert_allclose(first.scores[name], second.scores[name], atol=1e-6)
    alone = alpha_curve(encoded, qrels, from_vectors, [0.5]).mean("pipeline")
    assert alpha_curve(task, qrels, pipeline, [0.5]).mean("pipeline") == pytest.approx(alone)
    assert modality_bias(task, result.rankings["raw items"], qrels).kinds == ("text+image",)


def test_roles_of_odd_names(rng):
    x = rng.normal(size=(3, 12, 5))
    x[0, ::2], x[1, 1::2] = np.nan, np.nan
    corpus, modalities = Items({"text": x[0], "text+image": x[1]}), {"q<": "text"}
    task, qrels = SearchTask(Items({"q<": x[2]}), corpus), [{i: 1} for i in range(12)]
    method = raw(modalities=modalities).fit(task)
    result = compare(task, qrels, method)
    assert result.kinds == ("text", "text+image")
    assert [row["n_queries"] for row in result.rows] == [12, 6, 6]
    assert list(modality_gap(task, qrels).pairs) == [("q<", "text"), ("q<", "text+image"), ("text", "text+image")]


class TestRealClip:
    def test_gaps(self, real_clip):
        expected = {"coco500": 0.85, "flickr8k100x5": 0.84, "photos290": 0.92, "design patents": 1.01}
        for name, gap in benchmark.gaps(real_clip).items():
            pair = gap["text", "image"]
            assert pair.distance == pytest.approx(expected.pop(name), abs=0.01)
            assert pair.separability > 0.99
            assert pair.by_dimension.sum() == pytest.approx(1)
        assert not expected

    @pytest.mark.parametrize("centred", [False, True])
    def test_spreads(self, real_clip, centred):
        gap = benchmark.photo_gap(real_clip, centred=centred)
        assert gap["query", "text"].centred_spread == pytest.approx(0.176, abs=0.005)
        assert gap["query", "image"].centred_spread == pytest.approx(0.098, abs=0.005)

    def test_u_curve(self, real_clip):
        found = benchmark.u_curve(real_clip)
        for method, row in {
            "means removed": [0.846, 0.796, 0.730, 0.643, 0.645, 0.726, 0.899],
            "one scale": [0.846, 0.849, 0.856, 0.867, 0.882, 0.889, 0.899],
        }.items():
            assert found.mean(method).tolist() == pytest.approx(row, abs=0.02)
        unaided, pushed = found.mean("raw"), found.mean("raw, pushed down")
        assert min(unaided) < 0.3 < unaided[0]
        assert pushed.tolist() == pytest.approx(unaided.tolist(), abs=0.05)

    def test_one_corpus(self, real_clip):
        comparison, biases = benchmark.one_corpus(real_clip)
        by_kind = {(row["method"], row["kind"]): row for row in comparison.rows}
        assert by_kind["raw", "image"]["ndcg"] < 0.05
        assert by_kind["one scale", "all"]["ndcg_p"] < 0.001
        shares = {name: dict(zip(bias.kinds, bias.top_share, strict=True)) for name, bias in biases.items()}
        assert shares["raw"]["image"] < 0.02
        assert shares["one scale"]["image"] > 0.2
        for name, bias in biases.items():
            ours = {row["kind"]: row["ndcg"] for row in bias.scores}
            assert ours == pytest.approx({kind: by_kind[name, kind]["ndcg"] for kind in ours})


class TestWhatCannotBeMeant:
    """Arguments that would give a table of nothing, or of something else."""

    @pytest.fixture
    def search(self, mixed):
        task, qrels = mixed
        return task, qrels, make_pipeline(ModalityGapRemover(), MultimodalFuser(), ExactRetriever(k=5))

    def test_a_method_that_no_subset_suits_is_an_error(self, search):
        task, qrels, pipeline = search
        pipeline.set_params(multimodalfuser__alpha=7)
        with pytest.raises(ValueError, match="alpha must be a number from 0 to 1"):
            calibration_size(task, qrels, pipeline, (task, qrels), [10, 30])

    def test_a_frozen_pipeline_is_searched_with_and_not_fitted_again(self, search):
        task, qrels, pipeline = search
        frozen = FrozenEstimator(pipeline.fit(task))
        assert compare(task, qrels, frozen).rows == compare(task, qrels, pipeline).rows
        for again in (alpha_curve, lambda *a: calibration_size(*a, (task, qrels))):
            with pytest.raises(TypeError, match=r"methods\['pipeline'\] is frozen"):
                again(task, qrels, frozen)

    def test_a_search_that_has_found_nothing_yet_is_named(self, search):
        task, qrels, pipeline = search
        grid = GridSearchCV(pipeline, {"multimodalfuser__alpha": [0.5]})
        with pytest.raises(NotFittedError, match=r"methods\['grid'\] is not fitted"):
            compare(task, qrels, {"grid": grid})

    def test_points_of_a_curve(self, search):
        task, qrels, pipeline = search
        with pytest.raises(ValueError, match="alphas holds a number twice"):
            alpha_curve(task, qrels, pipeline, [0.5, 0.5])
        with pytest.raises(TypeError, match="alphas is 'half'; expected numbers"):
            alpha_curve(task, qrels, pipeline, "half")

    def test_the_name_of_the_simulation_is_taken(self, search):
        task, qrels, pipeline = search
        methods = dict.fromkeys(("raw", "raw, pushed down"), pipeline.fit(task))
        with pytest.raises(ValueError, match="call it something else"):
            replacement_curve(task, qrels, methods)

    def test_one_role_is_no_pair(self, search):
        task, *_ = search
        for roles in ("text", ("text",), ("text", "image", "query")):
            with pytest.raises(KeyError, match="take two roles"):
                modality_gap(task)[roles]

    def test_one_resample_has_no_interval(self, search):
        task, _, pipeline = search
        with pytest.raises(ValueError, match="n_resamples must be at least 2"):
            modality_bias(task, pipeline.fit(task).predict(task), k=5, n_resamples=1)

    def test_random_states_are_those_of_scikit_learn(self, search):
        task, qrels, pipeline = search
        ranking = pipeline.fit(task).predict(task)
        for measure in (
            lambda state: modality_bias(task, ranking, k=5, random_state=state).interval.tolist(),
            lambda state: compare(task, qrels, {"a": pipeline, "b": pipeline}, random_state=state).rows,
            lambda state: str(modality_gap(task, random_state=state)),
        ):
            assert measure(3) == measure(np.random.RandomState(3))
