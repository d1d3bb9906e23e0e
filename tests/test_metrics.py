import pickle

import ir_measures
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import RR, R, nDCG
from strategies import judged_rankings

from grclip import ExactRetriever, Items, MultimodalFuser, SearchTask
from grclip.metrics import ndcg_score, recall_score, reciprocal_rank_score, retrieval_scorer

METRICS = [ndcg_score, recall_score, reciprocal_rank_score]


def by_ir_measures(measure, qrels, ranking):
    """The value of each query by an independent implementation (pytrec_eval)."""
    judgements = {str(q): {str(d): g for d, g in judged.items()} for q, judged in enumerate(qrels)}
    run = {str(q): {str(d): float(-rank) for rank, d in enumerate(line)} for q, line in enumerate(ranking)}
    values = {int(m.query_id): m.value for m in ir_measures.pytrec_eval.iter_calc([measure], judgements, run)}
    return [values[q] for q in range(len(qrels))]


@given(judged_rankings())
def test_metrics_equal_those_of_pytrec_eval(case):
    qrels, ranking, k = case
    exponential = {grade: 2**grade - 1 for grade in range(4)}
    for found, measure in (
        (ndcg_score(qrels, ranking, k=k, gain="linear", per_query=True), nDCG @ k),
        (ndcg_score(qrels, ranking, k=k, per_query=True), nDCG(gains=exponential) @ k),
        (recall_score(qrels, ranking, k=k, per_query=True), R @ k),
        (reciprocal_rank_score(qrels, ranking, k=k, per_query=True), RR),  # pytrec_eval knows no cut-off here
    ):
        shown = [line[:k] for line in ranking] if measure is RR else ranking
        np.testing.assert_allclose(found, by_ir_measures(measure, qrels, shown), atol=1e-12)


@given(judged_rankings())
def test_the_mean_is_that_of_the_queries_and_a_perfect_ranking_scores_one(case):
    qrels, ranking, k = case
    for metric in METRICS:
        each = metric(qrels, ranking, k=k, per_query=True)
        assert each.shape == (len(qrels),)
        assert metric(qrels, ranking, k=k) == pytest.approx(each.mean())
        assert ((each >= 0) & (each <= 1)).all()
    best = [sorted(judged, key=judged.get, reverse=True) for judged in qrels]
    assert ndcg_score(qrels, best, k=k) == 1
    assert reciprocal_rank_score(qrels, best, k=k) == 1
    assert recall_score(qrels, best, k=30) == 1


@given(st.integers(0, 2**32 - 1), st.integers(1, 150), st.integers(0, 150))
def test_the_best_ranking_scores_one_whatever_comes_after_it(seed, n, more):
    grades = 3 * np.random.default_rng(seed).random(n)
    best = np.argsort(-grades).tolist() + list(range(n, n + more))
    for gain in ("linear", "exponential"):
        assert ndcg_score([dict(enumerate(grades.tolist()))], [best], k=200, gain=gain) == 1


def test_the_ideal_comes_from_all_qrels_not_from_what_was_retrieved():
    assert ndcg_score([{0: 1, 8: 1, 9: 1}], [[0, 1, 2]], k=10) == pytest.approx(0.469, abs=5e-4)


def test_gain():
    qrels, ranking = [{0: 3, 1: 1}], [[1, 0]]
    discount = 1 / np.log2(3)
    assert ndcg_score(qrels, ranking) == pytest.approx((1 + 7 * discount) / (7 + discount))
    assert ndcg_score(qrels, ranking, gain="linear") == pytest.approx((1 + 3 * discount) / (3 + discount))
    with pytest.raises(ValueError, match="gain must be one of 'exponential', 'linear'; got 'log'"):
        ndcg_score(qrels, ranking, gain="log")


def test_a_cut_off_far_beyond_the_ranking_costs_nothing():
    assert ndcg_score([{0: 1}] * 300, [[0, 1]] * 300, k=10**9) == 1


def test_a_grade_that_overflows_its_gain_is_an_error():
    assert ndcg_score([{0: 5000, 1: 1}], [[0, 1]], gain="linear") == 1
    with pytest.raises(ValueError, match="a grade above 1000 is too large for gain='exponential'"):
        ndcg_score([{0: 1024}], [[0]])
    with pytest.raises(ValueError, match=r"a grade above 1e\+300 is too large for gain='linear'"):
        ndcg_score([{0: 1.7e308, 1: 1.7e308}], [[0, 1]], gain="linear")


def test_rankings_of_any_library_and_lines_of_any_length():
    qrels = [{1: 1}, {2: 1}]
    for ranking in ([[0, 1], [2, 0]], np.array([[0, 1], [2, 0]]), torch.tensor([[0, 1], [2, 0]])):
        assert reciprocal_rank_score(qrels, ranking) == 0.75
    assert recall_score(qrels, [[0, 1], []]) == 0.5
    assert recall_score(qrels, np.array([[0, -1, -1], [2, 0, -1]])) == 0.5
    assert recall_score(np.array(qrels, dtype=object), [[1], [2]]) == 1


def test_tables_are_read_by_position():
    """Labels of rows and columns could be taken for queries and documents."""
    lines = [[0, 1], [2, 0], [1, 2]]
    qrels = [{1: 1}, {2: 1}, {0: 1}]
    for ranking in (pd.DataFrame(lines, columns=["b", "a"], index=[2, 1, 0]), pd.Series(lines, index=[2, 1, 0])):
        np.testing.assert_array_equal(reciprocal_rank_score(qrels, ranking, per_query=True), [0.5, 1, 0])
    for line, message in (([5, 5], "holds a document twice"), ([-3, 5], "holds -3"), (["a", "b"], r"is \['a', 'b'\]")):
        with pytest.raises(ValueError, match=rf"ranking\[1\] {message}"):
            recall_score(qrels, pd.Series([[0, 1], line, [1]], index=[7, 8, 9]))


def test_what_is_no_ranking_is_told_before_qrels_are_counted():
    with pytest.raises(TypeError, match="ranking is a pair of arrays, as kneighbors returns them; give the rows"):
        recall_score([{0: 1}] * 3, (np.ones((3, 2)), np.array([[0, 1]] * 3)))
    with pytest.raises(ValueError, match=r"ranking has shape \(2,\); expected a line"):
        recall_score([{0: 1}] * 3, np.array([0, 1]))


@pytest.mark.parametrize("metric", METRICS)
def test_queries_without_a_relevant_document(metric):
    qrels, ranking = [{0: 1}, {}, {3: 0}], [[0], [1], [2]]
    with pytest.raises(ValueError, match=r"no document is relevant .* for 2 queries \(1, 2\); say empty='skip'"):
        metric(qrels, ranking)
    assert metric(qrels, ranking, empty="skip") == 1
    assert metric(qrels, ranking, empty="zero") == pytest.approx(1 / 3)
    np.testing.assert_array_equal(metric(qrels, ranking, empty="skip", per_query=True), [1, np.nan, np.nan])
    with pytest.raises(ValueError, match="no query has a relevant document"):
        metric(qrels[1:], ranking[1:], empty="skip")
    with pytest.raises(ValueError, match="empty must be one of 'raise', 'skip', 'zero'; got 'ignore'"):
        metric(qrels, ranking, empty="ignore")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("qrels", "ranking", "options", "error", "message"),
    [
        ([{0: 1}], [[0], [1]], {}, ValueError, "qrels has 1 entries, but there are 2 queries"),
        ([], [], {}, ValueError, "qrels and ranking are empty"),
        ([{0: 1}], np.array(3), {}, TypeError, "ranking must hold a line of document rows for each query; got array"),
        ([{0: 1}], None, {}, TypeError, "ranking must hold a line of document rows for each query; got None"),
        ([{0: 1}], [[0]], {"empty": ["raise"]}, ValueError, "empty must be one of"),
        ({0: 1}, [[0]], {}, TypeError, "qrels must be a list of dicts"),
        ([{0: 1}], [[0, 0]], {}, ValueError, r"ranking\[0\] holds a document twice: \[0, 0\]"),
        ([{0: 1}], [[-2]], {}, ValueError, r"ranking\[0\] holds -2; expected document rows from 0, or -1"),
        ([{0: 1}], [[0.5]], {}, ValueError, r"ranking\[0\] is \[0.5\]; expected document rows"),
        ([{0: 1}], [["a"]], {}, ValueError, r"ranking\[0\] is \['a'\]"),
        ([{0: 1}], [0], {}, ValueError, r"ranking\[0\] is 0"),
        ([{0: 1}], [[0]], {"k": 0}, ValueError, "k must be a whole number of at least 1; got 0"),
        ([{0: float("inf")}], [[0]], {}, ValueError, r"qrels\[0\]\[0\] is inf; a grade is a finite number"),
        ([{0: "high"}], [[0]], {}, ValueError, r"qrels\[0\]\[0\] is 'high'"),
    ],
)
def test_wrong_input(metric, qrels, ranking, options, error, message):
    with pytest.raises(error, match=message):
        metric(qrels, ranking, **options)


@pytest.fixture
def searched():
    x = np.eye(6)
    task = SearchTask(Items({"query": x[:4]}), Items({"image": x}))
    return ExactRetriever(k=3).fit(x), MultimodalFuser().fit(task).transform(task), [{i: 1} for i in range(4)]


@pytest.mark.parametrize("metric", ["ndcg", "recall", "reciprocal_rank"])
def test_scorer(searched, metric):
    retriever, task, qrels = searched
    scorer = retrieval_scorer(metric, k=3)
    assert scorer(retriever, task, qrels) == 1
    assert scorer(retriever, task, [{5: 1}, *qrels[1:]]) == 0.75
    assert repr(pickle.loads(pickle.dumps(scorer))) == f"retrieval_scorer({metric!r}, k=3)"


def test_scorer_options(searched):
    retriever, task, qrels = searched
    scorer = retrieval_scorer("ndcg", k=3, gain="linear", empty="skip")
    assert repr(scorer) == "retrieval_scorer('ndcg', k=3, gain='linear', empty='skip')"
    assert scorer(retriever, task, [{}, *qrels[1:]]) == 1
    with pytest.raises(ValueError, match="no document is relevant"):
        retrieval_scorer(k=3)(retriever, task, [{}, *qrels[1:]])


def test_a_corpus_smaller_than_k_is_scored_whole(searched):
    _, task, qrels = searched
    assert retrieval_scorer(k=10)(ExactRetriever(k=6).fit(task), task, qrels) == 1


def test_wrong_scorers(searched):
    retriever, task, qrels = searched
    with pytest.raises(ValueError, match="metric must be one of 'ndcg', 'recall', 'reciprocal_rank'; got 'map'"):
        retrieval_scorer("map")
    with pytest.raises(ValueError, match="'recall' has no option 'gain'; it has 'empty'"):
        retrieval_scorer("recall", gain="linear")
    with pytest.raises(ValueError, match="k must be a whole number"):
        retrieval_scorer(k=0)
    with pytest.raises(ValueError, match="gain must be one of 'exponential', 'linear'; got 'log'"):
        retrieval_scorer(gain="log")
    with pytest.raises(TypeError, match=r"qrels must be a list of dicts .*; got NoneType"):
        retrieval_scorer(k=3)(retriever, task)
    with pytest.raises(
        ValueError, match=r"retrieval_scorer\('ndcg', k=5\) needs 5 documents a query, but predict returned 3"
    ):
        retrieval_scorer(k=5)(retriever, task, qrels)
    with pytest.raises(TypeError, match="X must be a SearchTask, whose corpus the qrels are about; got ndarray"):
        retrieval_scorer(k=3)(retriever, task.queries, qrels)
    with pytest.raises(ValueError, match=r"qrels\[0\] judges document 6, but the corpus has 6 rows"):
        retrieval_scorer(k=3)(retriever, task, [{6: 1}] * 4)
