"""Each estimator under pytest-benchmark: right in every run, and timed with ``--benchmark-enable --no-cov``."""

import numpy as np
import pytest
import reference
from conftest import make_mixed
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from grclip import ExactRetriever, Items, ModalityGapRemover, MultimodalFuser, MultimodalFuserCV, SearchTask
from grclip.metrics import ndcg_score, retrieval_scorer

N, D = 900, 64
IS_TEXT = {"text": True, "image": False}


@pytest.fixture
def search():
    """A task of float32 rows whose documents are in three kinds, and its qrels."""
    return make_mixed(np.random.default_rng(0), N, D, np.float32)


@pytest.fixture
def roles(search):
    return {"query": search[0].queries["query"], **search[0].corpus}


def means(roles):
    return {role: reference.mean_and_count(part.astype(float))[0] for role, part in roles.items()}


def removed(roles):
    """All parts without the gap."""
    return {role: reference.remove_gap(roles[role].astype(float), mean) for role, mean in means(roles).items()}


def assert_equal(found, expected):
    assert set(found) == set(expected)
    for role, part in expected.items():
        np.testing.assert_allclose(found[role], part, rtol=0, atol=1e-6, err_msg=role)


def test_fit(benchmark, roles):
    assert_equal(benchmark(ModalityGapRemover().fit, roles).means_, means(roles))


def test_partial_fit(benchmark, roles):
    def fit():
        remover = ModalityGapRemover()
        for start in range(0, N, 100):
            remover.partial_fit({role: part[start : start + 100] for role, part in roles.items()})
        return remover

    remover = benchmark(fit)
    assert_equal(remover.means_, means(roles))
    assert remover.n_samples_seen_ == {"query": N, "text": 2 * N // 3, "image": 2 * N // 3}


def test_transform(benchmark, roles):
    assert_equal(benchmark(ModalityGapRemover().fit(roles).transform, roles), removed(roles))


def test_transform_in_place(benchmark, roles):
    """Each round gets rows of its own, since a transform changes them."""
    remover, expected = ModalityGapRemover(copy=False).fit(roles), removed(roles)

    def fresh():
        return ({role: part.copy() for role, part in roles.items()},), {}

    def transform(parts):
        return parts, remover.transform(parts)

    parts, found = benchmark.pedantic(transform, setup=fresh, rounds=20)
    assert_equal(found, expected)
    assert all(np.shares_memory(found[role], part) for role, part in parts.items())


def test_fuse(benchmark, search):
    corpus = search[0].corpus
    found = benchmark(MultimodalFuser(alpha=0.3).fit(corpus).transform, corpus)
    expected = reference.fuse({role: part.astype(float) for role, part in corpus.items()}, alpha=0.3, is_text=IS_TEXT)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_fuse_on_one_scale(benchmark, search):
    """A document of a kind with spread s has length 1 / s."""
    task, qrels = search
    fuser = MultimodalFuser(equalize=True).fit(task, qrels)
    found = benchmark(fuser.transform, task.corpus)
    expected = reference.fuse({r: part.astype(float) for r, part in task.corpus.items()}, is_text=IS_TEXT)
    spread = np.array([fuser.spread_[frozenset(kind.split("+"))] for kind in task.corpus.kinds])
    np.testing.assert_allclose(found * spread[:, None], expected, rtol=0, atol=1e-6)


def test_fit_of_one_scale(benchmark, rng):
    task, qrels = make_mixed(rng, 60, 16)
    fuser = benchmark(MultimodalFuser(equalize=True).fit, task, qrels)
    expected = reference.spreads(task.queries["query"], dict(task.corpus), qrels, is_text=IS_TEXT)
    assert fuser.spread_ == pytest.approx(expected)


def test_search(benchmark, rng):
    corpus, queries = rng.normal(size=(N, D)).astype(np.float32), rng.normal(size=(50, D)).astype(np.float32)
    found = benchmark(ExactRetriever(k=10).fit(corpus).predict, queries)
    np.testing.assert_array_equal(found, reference.search(queries.astype(float), corpus.astype(float), 10))


def test_ndcg_score(benchmark, rng):
    """Found at place p, the only relevant document is worth 1 / log2(p + 1), and nothing after place 10."""
    ranking = rng.permuted(np.tile(np.arange(100), (200, 1)), axis=1)[:, :20]
    relevant = rng.integers(0, 100, 200)
    places = [np.flatnonzero(line == row) for line, row in zip(ranking, relevant, strict=True)]
    expected = np.mean([1 / np.log2(at[0] + 2) if len(at) and at[0] < 10 else 0 for at in places])
    assert 0 < expected < 1
    assert benchmark(ndcg_score, [{int(row): 1} for row in relevant], ranking, k=10) == pytest.approx(expected)


@pytest.mark.parametrize("equalize", [False, True])
def test_choice_of_alpha(benchmark, rng, equalize):
    """The slow and obvious version is a grid search."""
    task, qrels = make_mixed(rng, 60, 16, noise=2.0)
    task = SearchTask(*(Items(removed(side)) for side in (task.queries, task.corpus)))
    alphas = np.linspace(0, 1, 5)
    grid = GridSearchCV(
        make_pipeline(MultimodalFuser(equalize=equalize), ExactRetriever(k=10)),
        {"multimodalfuser__alpha": alphas},
        scoring=retrieval_scorer("ndcg", k=10),
        error_score="raise",
    ).fit(task, qrels)
    fuser = benchmark(MultimodalFuserCV(alphas, equalize=equalize).fit, task, qrels)
    assert fuser.alpha_ == grid.best_params_["multimodalfuser__alpha"]
    for name in ("mean_test_score", "std_test_score"):
        np.testing.assert_allclose(fuser.cv_results_[name], grid.cv_results_[name], rtol=0, atol=1e-12)
