"""MultimodalFuserCV: everything that GridSearchCV over MultimodalFuser finds, which is its slow and obvious version."""

import re
import warnings

import joblib
import numpy as np
import pytest
import torch
from conftest import make_mixed
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    LeaveOneOut,
    RepeatedKFold,
    ShuffleSplit,
    StratifiedKFold,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks, get_tags

from benchmarks.alpha_cv import DATA, against_grid_search, agreement
from grclip import (
    ExactRetriever,
    Items,
    ModalityGapRemover,
    MultimodalFuser,
    MultimodalFuserCV,
    SearchTask,
    _alpha,
    _lines,
    _spread,
)
from grclip.metrics import retrieval_scorer

ALPHAS = [0.0, 0.3, 0.5, 0.7, 1.0]


def grid_search(task, qrels, alphas, *, cv=5, scoring=None, **options):
    """The same by fusing and searching for each alpha and fold."""
    scoring = scoring or retrieval_scorer()
    pipeline = make_pipeline(MultimodalFuser(**options), ExactRetriever(k=min(scoring.k, len(task.corpus))))
    search = GridSearchCV(
        pipeline, {"multimodalfuser__alpha": alphas}, scoring=scoring, cv=cv, error_score="raise", refit=False
    )
    return search.fit(task, qrels)


def assert_same(own, grid):
    names = [name for name in grid.cv_results_ if name.endswith("_test_score")]
    assert set(own.cv_results_) == {"params", "param_alpha", *names}
    for name in names:
        np.testing.assert_allclose(own.cv_results_[name], grid.cv_results_[name], rtol=0, atol=1e-12, err_msg=name)
    assert own.alpha_ == grid.best_params_["multimodalfuser__alpha"]
    assert own.best_score_ == pytest.approx(grid.best_score_, abs=1e-12)


def changed(task, change):
    """A task with other arrays."""
    return SearchTask(*(Items({r: change(x) for r, x in side.items()}) for side in (task.queries, task.corpus)))


@st.composite
def sides(draw, roles, n, d, dtype, library, levels, *, missing=0.2):
    """Parts of some roles; numbers of few levels, so that scores are often equal; no row without a part."""
    names = draw(st.lists(st.sampled_from(roles), min_size=1, unique=True))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    parts = {role: rng.normal(size=(n, d)) for role in names}
    for part in parts.values():
        if levels:
            part[:] = np.round(part * levels) / levels
        part[rng.random(n) < missing] = np.nan
        part[rng.random(n) < 0.05] = 0
    if len(names) > 1 and draw(st.booleans()):
        parts[names[1]][:2] = -parts[names[0]][:2]  # cancel at some alpha
    same = rng.integers(0, n, n)
    if draw(st.booleans()):  # some rows are copies of others
        copied = rng.random(n) < 0.5
        for part in parts.values():
            part[copied] = part[same[copied]]
    nothing = np.all([np.isnan(part).all(axis=1) for part in parts.values()], axis=0)
    parts[names[0]][nothing] = 1.0
    if library == "numpy":
        return Items({role: part.astype(dtype) for role, part in parts.items()})
    return Items({role: torch.from_numpy(part).to(getattr(torch, dtype)) for role, part in parts.items()})


@st.composite
def searches(draw, max_documents=25, missing=0.2, levels=(0, 0, 1, 2), narrowest=1):
    """A task of any roles, dtypes and libraries, and its qrels; queries that lack parts with probability `missing`."""
    n, m, d = draw(st.integers(4, 10)), draw(st.integers(1, max_documents)), draw(st.integers(narrowest, 9))
    library = draw(st.sampled_from(["numpy", "torch"]))
    dtypes = ["float16", "float32", "float64"] + ["bfloat16"] * (library == "torch")
    levels = draw(st.sampled_from(levels))
    asked = sides(["query", "query_image"], n, d, draw(st.sampled_from(dtypes)), library, levels, missing=missing)
    queries = draw(asked)
    corpus = draw(sides(["text", "title", "image", "cover"], m, d, draw(st.sampled_from(dtypes)), library, levels))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    qrels = [
        {int(row): int(rng.integers(0, 4)) for row in rng.choice(m, rng.integers(0, m + 1), replace=False)}
        for _ in range(n)
    ]
    return SearchTask(queries, corpus), qrels


METRICS = st.sampled_from(["ndcg", "recall", "reciprocal_rank"])
SCORERS = st.builds(retrieval_scorer, METRICS, k=st.integers(1, 30), empty=st.just("zero")) | st.builds(
    retrieval_scorer, st.just("ndcg"), k=st.integers(1, 5), gain=st.just("linear"), empty=st.just("zero")
)
SPLITTERS = [
    2,
    KFold(3, shuffle=True, random_state=0),
    ShuffleSplit(3, random_state=0),
    RepeatedKFold(n_splits=2, n_repeats=2, random_state=0),
]


TIES = r"\d+ alphas, from"
"""Begins the warning of alphas that score alike, which small drawn searches often have."""


@settings(max_examples=150)
@given(
    searches(),
    st.lists(st.sampled_from([0.0, 0.1, 0.5, 2 / 3, 1.0]), min_size=1, max_size=6),
    SCORERS,
    st.sampled_from(SPLITTERS),
)
def test_scores_are_those_of_a_grid_search(search, alphas, scoring, cv):
    task, qrels = search
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", f"rows of zeros|{TIES}")
        own = MultimodalFuserCV(alphas, cv=cv, scoring=scoring).fit(task, qrels)
        assert_same(own, grid_search(task, qrels, alphas, cv=cv, scoring=scoring))


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few numbers, so that a small search crosses the borders of all."""
    monkeypatch.setattr(_alpha, "_CPU_SCORES", 15)
    monkeypatch.setattr(_alpha, "_PAIRS", 20)
    monkeypatch.setattr(_alpha, "_PENDING", 10)
    monkeypatch.setattr(_lines, "_CPU_NUMBERS", 30)


@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("parts", ["as they are", "of few levels"])
def test_borders_of_blocks_do_not_show(rng, small_blocks, k, parts):
    task, qrels = make_mixed(rng, n=30, d=5, noise=1.0, dtype=np.float32)
    if parts == "of few levels":
        task = SearchTask(
            *(Items({role: x.round(0) for role, x in side.items()}) for side in (task.queries, task.corpus))
        )
    qrels = [judged | {int(row): 2 for row in rng.choice(30, i % 6)} for i, judged in enumerate(qrels)]
    scoring = retrieval_scorer("ndcg", k=k)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "rows of zeros")
        own = MultimodalFuserCV(ALPHAS, cv=3, scoring=scoring).fit(task, qrels)
        assert_same(own, grid_search(task, qrels, ALPHAS, cv=3, scoring=scoring))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_scores_are_those_of_a_grid_search_at_size(rng, dtype):
    task, qrels = make_mixed(rng, n=400, d=64, noise=2.0)
    task = ModalityGapRemover().fit_transform(task)
    task = changed(task, lambda x: x.astype(dtype))
    qrels = [judged | {int(row): 1 for row in rng.choice(400, 30 * (i % 7 == 0))} for i, judged in enumerate(qrels)]
    own = MultimodalFuserCV(ALPHAS).fit(task, qrels)
    assert len(set(own.cv_results_["mean_test_score"])) > 3
    assert_same(own, grid_search(task, qrels, ALPHAS))


@pytest.mark.parametrize(("asked", "told"), [("float64", "float32"), ("float32", "float64"), ("float64", "bfloat16")])
@pytest.mark.parametrize("size", [1.0, 1.5e-12])
def test_rows_are_rounded_where_they_are_fused(rng, asked, told, size):
    """Rows of the lower precision are fused in it, and may be too short for it, though the higher compares them."""
    task, qrels = make_mixed(rng, n=60, d=64)
    queries = Items({"query": torch.from_numpy(task.queries["query"]).to(getattr(torch, asked))})
    topic = rng.normal(size=64) / 8
    text, image = (sign * size * (topic + 0.1 * rng.normal(size=(60, 64))) for sign in (-1, 1))
    text, image = (torch.from_numpy(x).to(getattr(torch, told)) for x in (text, image))
    task, alphas = SearchTask(queries, Items({"text": text, "image": image})), np.linspace(0, 1, 21)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "rows of zeros")
        assert_same(MultimodalFuserCV(alphas, cv=3).fit(task, qrels), grid_search(task, qrels, alphas, cv=3))


@pytest.mark.parametrize("size", [1.2e154, 1e-136])
@pytest.mark.parametrize("equalize", [False, True])
def test_rows_at_the_limits_of_their_dtype(rng, size, equalize):
    """Norms whose squares are as large, or as small, as a float64 may be."""
    task, qrels = make_mixed(rng, n=60, noise=2.0)
    task = changed(task, lambda x: x * size)
    own = MultimodalFuserCV(ALPHAS, cv=3, equalize=equalize).fit(task, qrels)
    assert_same(own, grid_search(task, qrels, ALPHAS, cv=3, equalize=equalize))


@pytest.fixture
def compared(monkeypatch):
    """How many comparisons are made exactly."""
    counts, settle = [], _alpha.Ranker._settle
    monkeypatch.setattr(_alpha.Ranker, "_settle", lambda *given: counts.append(given[-1].shape[1]) or settle(*given))
    return counts


@pytest.mark.parametrize(("dtype", "most"), [("float32", 0.1), ("float16", 0.15), ("bfloat16", 1.2)])
def test_few_documents_are_compared_exactly(rng, compared, dtype, most):
    task, qrels = make_mixed(rng, n=400, d=64, noise=2.0)
    task = ModalityGapRemover().fit_transform(task)
    task = changed(task, lambda x: torch.from_numpy(x).to(getattr(torch, dtype)))
    MultimodalFuserCV(11).fit(task, qrels)
    assert sum(compared) < most * 400 * 11  # a number of documents for each query and alpha


def test_rows_of_zeros_rank_last_without_comparisons(rng, compared):
    task, qrels = make_mixed(rng, n=90)
    nothing = np.arange(90)[:, None] % 3 == 1
    corpus = Items({role: np.where(nothing, 0, np.nan_to_num(x)) for role, x in task.corpus.items()})
    asked = task.queries["query"] + 0.1
    task, scoring = SearchTask(Items({"query": asked}), corpus), retrieval_scorer(k=90)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "rows of zeros")
        own = MultimodalFuserCV([0.3, 0.7], cv=3, scoring=scoring).fit(task, [{0: 1, 3: 1} for _ in qrels])
        assert sum(compared) == 0
        assert_same(own, grid_search(task, [{0: 1, 3: 1} for _ in qrels], [0.3, 0.7], cv=3, scoring=scoring))
        own = MultimodalFuserCV(ALPHAS, cv=3, scoring=scoring).fit(task, qrels)  # some of them relevant
        assert_same(own, grid_search(task, qrels, ALPHAS, cv=3, scoring=scoring))


def test_rows_of_zeros_rank_by_row_beside_parts_that_cancel(rng):
    """At 0.5 the parts of some rows add up to nothing: these are then as far down as rows of zeros."""
    task, qrels = make_mixed(rng, n=30)
    text = np.nan_to_num(task.corpus["text"])
    text[::4] = 0
    task, scoring = SearchTask(task.queries, Items({"text": text, "image": -text})), retrieval_scorer(k=30)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "rows of zeros")
        own = MultimodalFuserCV(ALPHAS, cv=3, scoring=scoring).fit(task, qrels)
        assert_same(own, grid_search(task, qrels, ALPHAS, cv=3, scoring=scoring))


LARGER = {"max_documents": 60, "levels": [0], "narrowest": 2}


@settings(max_examples=60)
@given(searches(**LARGER, missing=0.0) | searches(**LARGER), st.data())
def test_scores_with_one_scale_are_those_of_a_grid_search(search, data):
    """But for ties of documents in one direction that are no copies: the last bit of a spread decides them."""
    task, qrels = search
    alphas = data.draw(st.lists(st.floats(0, 1), min_size=1, max_size=4))
    options = {"cv": data.draw(st.sampled_from([2, 3])), "scoring": retrieval_scorer("ndcg", k=5, empty="zero")}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", f"rows of zeros|too few documents|queries of several kinds|{TIES}")
        try:
            grid = grid_search(task, qrels, alphas, equalize=True, **options)
        except ValueError:
            with pytest.raises(ValueError, match=r"spreads were measured|no unrelated pairs"):
                MultimodalFuserCV(alphas, equalize=True, **options).fit(task, qrels)
        else:
            assert_same(MultimodalFuserCV(alphas, equalize=True, **options).fit(task, qrels), grid)


@pytest.mark.parametrize("queries", [["query"], ["query", "query_image"]])
@pytest.mark.parametrize("random_state", [0, 3, np.random.RandomState(1)])
def test_one_scale_from_a_sample_of_rows(rng, monkeypatch, queries, random_state):
    monkeypatch.setattr(_spread, "SAMPLE", 25)
    task, qrels = make_mixed(rng, n=80, noise=1.5)
    asked = Items({role: task.queries["query"] + i * rng.normal(size=(80, 16)) for i, role in enumerate(queries)})
    task = ModalityGapRemover().fit_transform(SearchTask(asked, task.corpus))
    own = MultimodalFuserCV(ALPHAS, equalize=True, random_state=random_state).fit(task, qrels)
    assert_same(own, grid_search(task, qrels, ALPHAS, equalize=True, random_state=random_state))
    plain = MultimodalFuserCV(ALPHAS).fit(task, qrels)
    assert (plain.cv_results_["mean_test_score"] != own.cv_results_["mean_test_score"]).any()


@pytest.mark.parametrize("n_text", [1, 2])
@pytest.mark.parametrize("asked", [["query"], ["query_image"], ["query", "query_image"]])
def test_spreads_by_alpha_are_those_of_each_alpha(rng, monkeypatch, n_text, asked):
    task, qrels = make_mixed(rng, n=60)
    queries = Items({role: task.queries["query"] + i * rng.normal(size=(60, 16)) for i, role in enumerate(asked)})
    corpus = dict(task.corpus.items())
    if n_text == 2:
        corpus["title"] = task.corpus["image"] + rng.normal(size=(60, 16))
    task = SearchTask(queries, Items(corpus))
    expected = [_spread.document_spreads(task, qrels, alpha=alpha)[0] for alpha in ALPHAS]
    monkeypatch.delattr(_spread, "document_spreads")  # all at once, without it
    for spreads, own in zip(_spread.spreads_by_alpha(task, qrels, np.array(ALPHAS)), expected, strict=True):
        assert spreads == pytest.approx(own, rel=1e-12)


def test_spreads_where_parts_cancel_are_measured_at_that_alpha_alone(rng, monkeypatch):
    task, qrels = make_mixed(rng, n=60)
    image = np.nan_to_num(task.corpus["image"], nan=1.0)
    task = SearchTask(task.queries, Items({"text": -image, "image": np.where(np.arange(60)[:, None] < 9, image, 1)}))
    expected = [_spread.document_spreads(task, qrels, alpha=alpha)[0] for alpha in [0.2, 0.5]]
    measured, measure = [], _spread.document_spreads
    monkeypatch.setattr(
        _spread, "document_spreads", lambda *given, **o: measured.append(o["alpha"]) or measure(*given, **o)
    )
    for spreads, own in zip(_spread.spreads_by_alpha(task, qrels, np.array([0.2, 0.5])), expected, strict=True):
        assert spreads == pytest.approx(own, rel=1e-12)
    assert measured == [0.5]


def test_after_fit_it_is_a_fuser_of_the_best_alpha(mixed):
    task, qrels = mixed
    own = MultimodalFuserCV(ALPHAS, equalize=True, cv=3).fit(task, qrels)
    fuser = MultimodalFuser(own.alpha_, equalize=True).fit(task, qrels)
    fitted = {name: value for name, value in vars(own).items() if name.endswith("_")}
    for name in ("alpha_", "best_score_", "cv_results_"):
        del fitted[name]
    assert fitted == {name: value for name, value in vars(fuser).items() if name.endswith("_")}
    for X in (task, task.queries, task.corpus):
        ours, theirs = own.transform(X), fuser.transform(X)
        for a, b in zip(*([x.queries, x.corpus] if X is task else [x] for x in (ours, theirs)), strict=True):
            np.testing.assert_array_equal(a, b)


def test_results_have_the_form_of_a_grid_search(mixed):
    task, qrels = mixed
    own = MultimodalFuserCV([0.7, 0.2, 0.7], cv=2).fit(task, qrels).cv_results_
    grid = grid_search(task, qrels, [0.7, 0.2, 0.7], cv=2).cv_results_
    assert own["params"] == [{"alpha": 0.7}, {"alpha": 0.2}, {"alpha": 0.7}]
    ours, theirs = own["param_alpha"], grid["param_multimodalfuser__alpha"]
    assert type(ours) is type(theirs)
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)
    assert own["rank_test_score"].dtype == grid["rank_test_score"].dtype
    assert own["split1_test_score"].shape == (3,)


def test_the_first_of_equally_good_alphas_is_chosen(rng):
    x = rng.normal(size=(10, 4))
    task, qrels = SearchTask(Items({"query": x}), Items({"image": x})), [{i: 1} for i in range(10)]
    own = MultimodalFuserCV([0.4, 0.2, 0.9], cv=2).fit(task, qrels)
    assert own.alpha_ == 0.4
    assert own.best_score_ == 1
    assert own.cv_results_["rank_test_score"].tolist() == [1, 1, 1]


def test_a_number_of_alphas_and_the_defaults(mixed):
    task, qrels = mixed
    own = MultimodalFuserCV().fit(task, qrels)
    np.testing.assert_array_equal(own.cv_results_["param_alpha"], np.linspace(0, 1, 101))
    assert "split4_test_score" in own.cv_results_
    assert "split5_test_score" not in own.cv_results_
    few = MultimodalFuserCV(3, k=1, scoring="recall", cv=[(range(10), range(10, 30))]).fit(task, qrels)
    assert few.cv_results_["param_alpha"].tolist() == [0, 0.5, 1]
    scoring = retrieval_scorer("recall", k=1)
    assert_same(few, grid_search(task, qrels, [0, 0.5, 1], cv=[(range(10), range(10, 30))], scoring=scoring))


def test_a_scorer_brings_its_own_k_and_options(mixed):
    task, qrels = mixed
    graded = [{**judged, (i + 1) % 30: 3} for i, judged in enumerate(qrels)]
    scoring = retrieval_scorer("ndcg", k=2, gain="linear")
    own = MultimodalFuserCV(ALPHAS, k=7, scoring=scoring).fit(task, graded)
    assert_same(own, grid_search(task, graded, ALPHAS, scoring=scoring))
    assert own.best_score_ != MultimodalFuserCV(ALPHAS, k=2).fit(task, graded).best_score_


@pytest.mark.parametrize("empty", ["skip", "zero"])
def test_queries_without_relevant_documents(mixed, empty):
    task, qrels = mixed
    qrels = [{0: 0} if i % 4 == 0 else judged for i, judged in enumerate(qrels)]
    scoring = retrieval_scorer("ndcg", empty=empty)
    own = MultimodalFuserCV(ALPHAS, scoring=scoring).fit(task, qrels)
    assert_same(own, grid_search(task, qrels, ALPHAS, scoring=scoring))
    with pytest.raises(ValueError, match=r"graded above 0\) for 8 queries \(0, 4, 8, 12, 16, ...\)"):
        MultimodalFuserCV(ALPHAS).fit(task, qrels)
    within = [(np.arange(30), np.array([1, 2, 3]))]
    own = MultimodalFuserCV(ALPHAS, cv=within).fit(task, qrels)  # only test queries need relevant documents
    assert_same(own, grid_search(task, qrels, ALPHAS, cv=within))


def test_splits_that_have_nothing_to_average_are_errors(mixed):
    task, qrels = mixed
    scoring = retrieval_scorer(empty="skip")
    none = [{} for _ in range(10)] + qrels[10:]
    with pytest.raises(ValueError, match="split 0 has no test query with a relevant document"):
        MultimodalFuserCV(scoring=scoring, cv=3).fit(task, none)


@pytest.mark.parametrize(
    ("cv", "message"),
    [
        ([], "makes no split"),
        (iter([]), r"makes no split of the queries \(an iterator makes them only once\)"),
        ([(np.arange(30), [])], r"split 0 of cv has training and test rows of shapes \(30,\) and \(0,\)"),
        ([([0], [1]), ([], [1])], r"split 1 of cv has training and test rows of shapes \(0,\) and \(1,\)"),
        ([([0, 1], [[2, 3]])], r"of shapes \(2,\) and \(1, 2\)"),
        ([([0, 1], [40])], "does not divide 30 queries: index 40 is out of bounds"),
        ([0, 1], "does not divide 30 queries: cannot unpack"),
        ([([0, 1], [1.5])], "does not divide 30 queries: only integers"),
        (
            GroupKFold(3),
            r"'groups' parameter should not be None. Where a splitter needs groups .* list\(GroupKFold\(5\)",
        ),
        (StratifiedKFold(3), "does not divide 30 queries: Supported target types .* the list of its splits"),
    ],
)
def test_splits_that_are_none(mixed, cv, message):
    with pytest.raises(ValueError, match=message):
        MultimodalFuserCV(ALPHAS, cv=cv).fit(*mixed)


def test_splits_by_groups_come_as_a_list(mixed):
    task, qrels = mixed
    splits = list(GroupKFold(3).split(task, groups=np.arange(30) % 10))
    own = MultimodalFuserCV(ALPHAS, cv=splits).fit(task, qrels)
    assert_same(own, grid_search(task, qrels, ALPHAS, cv=splits))


def test_with_one_query_a_fold(mixed):
    task, qrels = mixed
    own = MultimodalFuserCV(ALPHAS, cv=LeaveOneOut()).fit(task, qrels)
    assert_same(own, grid_search(task, qrels, ALPHAS, cv=LeaveOneOut()))


def test_in_a_pipeline_and_scored_from_outside(rng):
    task, qrels = make_mixed(rng, n=60, noise=0.9)
    pipeline = make_pipeline(ModalityGapRemover(), MultimodalFuserCV(11, cv=2), ExactRetriever(k=10))
    assert pipeline.fit(task, qrels).predict(task.queries).shape == (60, 10)
    scores = cross_val_score(pipeline, task, qrels, scoring=retrieval_scorer(), cv=3, error_score="raise")
    assert scores.min() > 0.5
    search = GridSearchCV(
        pipeline, {"multimodalfusercv__equalize": [False, True]}, scoring=retrieval_scorer(), cv=2, error_score="raise"
    )
    assert 0 <= search.fit(task, qrels).best_estimator_[1].alpha_ <= 1


def test_an_end_that_is_no_better_than_others_is_told_of(rng):
    """All alphas find the right document, and the first of them leaves out all texts."""
    task, qrels = make_mixed(rng, n=30, noise=0.01)
    text, image = (task.queries["query"] + 0.01 * rng.normal(size=(30, 16)) for _ in range(2))
    task = SearchTask(task.queries, Items({"text": text, "image": image}))
    with pytest.warns(UserWarning, match=r"5 alphas, from 0 to 1, .* 1.000, and alpha_=0, the first, leaves out the t"):
        assert MultimodalFuserCV(5).fit(task, qrels).alpha_ == 0
    with pytest.warns(UserWarning, match="alpha_=1, the first, leaves out all but the texts of what"):
        assert MultimodalFuserCV([1, 0.5]).fit(task, qrels).alpha_ == 1
    assert MultimodalFuserCV([0.2, 0.5]).fit(task, qrels).alpha_ == 0.2
    assert MultimodalFuserCV([0, 0]).fit(task, qrels).alpha_ == 0
    task = SearchTask(task.queries, Items({"text": rng.normal(size=(30, 16)), "image": image}))
    assert MultimodalFuserCV(2).fit(task, qrels).alpha_ == 0
    odd = np.arange(30)[:, None] % 2 == 1
    apart = {"text": np.where(odd, text, np.nan), "image": np.where(odd, np.nan, image)}
    task = SearchTask(task.queries, Items(apart))
    assert MultimodalFuserCV(2).fit(task, qrels).alpha_ == 0  # which leaves out nothing: no document has both parts


def test_joblib_and_clone(mixed, tmp_path):
    task, qrels = mixed
    own = MultimodalFuserCV(ALPHAS, equalize=True).fit(task, qrels)
    joblib.dump(own, tmp_path / "fuser.joblib")
    loaded = joblib.load(tmp_path / "fuser.joblib")
    np.testing.assert_array_equal(loaded.transform(task).corpus, own.transform(task).corpus)
    with pytest.raises(NotFittedError, match="this MultimodalFuserCV was fitted without it"):
        MultimodalFuserCV(ALPHAS).fit(task, qrels).set_params(equalize=True).transform(task)
    again = clone(own)
    assert again.get_params()["alphas"] == ALPHAS
    with pytest.raises(NotFittedError):
        again.transform(task)


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_estimator_tags_renamed,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_mixin_order,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_set_params,
        estimator_checks.check_valid_tag_types,
    ],
)
def test_scikit_learn_checks_without_data(check):
    """What holds for any estimator; the other checks need one that takes a 2-D array, which the tags deny."""
    check("MultimodalFuserCV", MultimodalFuserCV())
    assert not get_tags(MultimodalFuserCV()).input_tags.two_d_array


def test_torch_equals_numpy(mixed):
    task, qrels = mixed
    tensors = changed(task, torch.from_numpy)
    ours, theirs = (MultimodalFuserCV(11, equalize=True).fit(X, qrels) for X in (tensors, task))
    np.testing.assert_array_equal(ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"])
    assert isinstance(ours.transform(tensors.corpus), torch.Tensor)


def test_warnings_are_those_of_the_fit_on_all_queries(rng):
    task, qrels = make_mixed(rng, n=40)
    text = np.where(np.isnan(task.corpus["text"]), 1.0, task.corpus["text"])
    image = np.full_like(text, np.nan)
    image[2] = 1.0
    scarce = SearchTask(task.queries, Items({"text": text, "image": image}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        MultimodalFuserCV(ALPHAS, equalize=True).fit(scarce, qrels)
    assert [str(warning.message)[:18] for warning in caught] == ["too few documents "]


def test_bad_values_and_rows_without_parts_are_named(mixed):
    task, qrels = mixed
    text = task.corpus["text"].copy()
    text[3, 2] = np.inf
    with pytest.raises(ValueError, match=r"role 'text': inf in 1 row \(3\)"):
        MultimodalFuserCV().fit(SearchTask(task.queries, Items({"text": text})), qrels)
    with pytest.raises(ValueError, match=r"no part at all in 10 rows \(1, 4, 7"):
        MultimodalFuserCV().fit(SearchTask(task.queries, Items({"text": task.corpus["text"]})), qrels)
    asked = task.queries["query"].copy()
    asked[5] = np.nan
    with pytest.raises(ValueError, match=r"no part at all in 1 row \(5\)"):
        MultimodalFuserCV().fit(SearchTask(Items({"query": asked}), task.corpus), qrels)


def test_test_queries_of_a_kind_that_was_not_learned_from(mixed):
    task, qrels = mixed
    query, picture = task.queries["query"].copy(), np.full((30, 16), np.nan)
    picture[20:], query[20:] = query[20:], np.nan
    task = SearchTask(Items({"query": query, "query_image": picture}), task.corpus)
    with pytest.raises(ValueError, match="queries of kind query in a training split, and differ for kind query_image"):
        MultimodalFuserCV(equalize=True, cv=3).fit(task, qrels)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"alphas": 1}, ValueError, "alphas=1 is too few"),
        ({"alphas": True}, ValueError, "alphas must be a list of numbers from 0 to 1"),
        ({"alphas": []}, ValueError, "alphas must be a list"),
        ({"alphas": [0.5, 1.5]}, ValueError, "alphas must be a list"),
        ({"alphas": [0.5, np.nan]}, ValueError, "alphas must be a list"),
        ({"alphas": "all"}, ValueError, "alphas must be a list"),
        ({"alphas": [[0.5]]}, ValueError, "alphas must be a list"),
        ({"alphas": [[0.5], [0.1, 0.2]]}, ValueError, "alphas must be a list"),
        ({"k": 0}, ValueError, "k must be a whole number of at least 1"),
        ({"scoring": "accuracy"}, ValueError, "scoring must be one of 'ndcg', 'recall', 'reciprocal_rank'"),
        ({"scoring": len}, TypeError, "GridSearchCV over a MultimodalFuser takes any scorer"),
        ({"scoring": None}, TypeError, "scoring must be the name of a metric"),
        ({"equalize": "yes"}, TypeError, "equalize must be True or False"),
        ({"modalities": ["text"]}, TypeError, "modalities must be a dict"),
        ({"cv": "five"}, ValueError, "cv"),
        ({"cv": 31}, ValueError, "n_splits=31"),
    ],
)
def test_wrong_parameters(mixed, parameters, error, message):
    with pytest.raises(error, match=message):
        MultimodalFuserCV(**parameters).fit(*mixed)


def test_wrong_data(mixed):
    task, qrels = mixed
    with pytest.raises(TypeError, match="X must be a SearchTask of Items, and y its qrels; got Items"):
        MultimodalFuserCV().fit(task.corpus, qrels)
    with pytest.raises(TypeError, match="X must be a SearchTask of Items, and y its qrels; got ndarray"):
        MultimodalFuserCV().fit(np.ones((3, 2)), [0, 1, 0])
    with pytest.raises(TypeError, match="give qrels as y"):
        MultimodalFuserCV().fit(task)
    with pytest.raises(TypeError, match="a SearchTask of Items is needed"):
        MultimodalFuserCV().fit(MultimodalFuser().fit_transform(task), qrels)
    with pytest.raises(TypeError, match="a corpus goes beside the queries"):
        MultimodalFuserCV().fit(task, task.corpus)
    with pytest.raises(ValueError, match="qrels has 29 entries"):
        MultimodalFuserCV().fit(task, qrels[1:])


def test_a_failed_fit_changes_nothing_and_a_new_one_forgets(mixed):
    task, qrels = mixed
    own = MultimodalFuserCV(ALPHAS, equalize=True).fit(task, qrels)
    before = dict(vars(own))
    with pytest.raises(ValueError, match="no document is relevant"):
        own.fit(task, [{} for _ in qrels])
    assert vars(own) == before
    own.set_params(equalize=False).fit(task, qrels)
    assert not hasattr(own, "spread_")


@pytest.mark.parametrize("equalize", [False, True])
@pytest.mark.parametrize("data", DATA)
def test_the_benchmark_compares_like_with_like(data, equalize):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "rows of zeros" if data == "zeros" else "nothing else")
        row = against_grid_search(
            repeats=1, n_alphas=5, equalize=equalize, n_queries=40, n_documents=110, d=128, data=data
        )
    assert row.agree
    assert re.fullmatch(r"both choose alpha \d(\.\d+)?, scores differ by (0|\de-1\d) at most; medians of 1", row.note)


def test_the_benchmark_tells_when_alphas_or_scores_differ(mixed):
    own = MultimodalFuserCV(ALPHAS, cv=3).fit(*mixed)
    assert agreement(own, grid_search(*mixed, ALPHAS, cv=3))[0]
    agree, note = agreement(own, grid_search(*mixed, ALPHAS, cv=3, equalize=True))
    assert not agree
    assert "scores differ by 0." in note
    agree, note = agreement(own.set_params(alphas=[0.3]).fit(*mixed), grid_search(*mixed, [0.7], cv=3))
    assert not agree
    assert "alpha is 0.3 and 0.7" in note


def test_gpu_equals_cpu(cuda, rng):
    task, qrels = make_mixed(rng, n=200, d=64, noise=2.0)
    task = changed(task, lambda x: torch.from_numpy(x).float())
    there = changed(task, lambda x: x.to(cuda))
    for equalize in (False, True):
        expected = MultimodalFuserCV(21, equalize=equalize).fit(task, qrels).cv_results_["mean_test_score"]
        for X in (there, SearchTask(task.queries, there.corpus)):
            found = MultimodalFuserCV(21, equalize=equalize).fit(X, qrels).cv_results_["mean_test_score"]
            np.testing.assert_allclose(found, expected, atol=1e-6)
