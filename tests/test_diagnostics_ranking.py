"""What fills the first ranks, and methods compared, against counts by hand, SciPy and ir_measures."""

from itertools import product

import ir_measures
import numpy as np
import pandas as pd
import pytest
import reference
import scipy.stats
import torch
from conftest import make_mixed
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from ir_measures import RR, R, nDCG
from searches import centred, raw
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from strategies import judged_rankings

from grclip import Items, ModalityGapRemover, MultimodalFuser, SearchTask
from grclip.diagnostics import alpha_curve, calibration_size, compare, modality_bias, replacement_curve
from grclip.diagnostics.comparison import randomisation_test
from grclip.metrics import ndcg_score, recall_score, reciprocal_rank_score, retrieval_scorer

METRICS = {"ndcg": ndcg_score, "recall": recall_score, "reciprocal_rank": reciprocal_rank_score}


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
            (["a"], TypeError, r"methods is a list; give a pipeline, or a dict"),
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


def test_more_queries_than_a_number_has_bits(rng):
    """1,024 queries once overflowed: 2.0**1024 is no float."""
    x = rng.normal(size=(1030, 8)).astype(np.float32)
    task, qrels = SearchTask(Items({"query": x}), Items({"image": x})), [{i: 1} for i in range(1030)]
    methods = {"a": raw().fit(task), "b": raw().fit(task)}
    assert {row["ndcg_p"] for row in compare(task, qrels, methods, n_resamples=50).rows} == {None, 1.0}


def test_a_ranking_too_shallow_for_scores_by_kind_says_so():
    task = texts_and_images(20, 1)
    qrels = [dict.fromkeys(range(21), 1)]
    shallow = modality_bias(task, [list(range(10))], qrels)
    assert any("may be too low for 1 query (0)" in note for note in shallow.notes)
    deep = modality_bias(task, [list(range(21))], qrels)
    assert not any("too low" in note for note in deep.notes)
    assert {row["kind"]: row["ndcg"] for row in deep.scores}["image"] == 1


def test_the_share_of_relevant_documents(mixed):
    task, _ = mixed
    qrels = [{0: 1, 1: 1}, {3: 2}, *({1: 1} for _ in range(28))]
    bias = modality_bias(task, [list(range(10))] * 30, qrels)
    kinds = dict(zip(bias.kinds, bias.relevant_share, strict=True))
    assert kinds == pytest.approx({"text": 1.5 / 30, "image": 28.5 / 30, "text+image": 0})
    assert np.isnan(modality_bias(task, [list(range(10))] * 30).relevant_share).all()
