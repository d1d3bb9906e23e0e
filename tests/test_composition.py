"""The estimators under scikit-learn's own tools, with real pipelines on a corpus as long as the queries."""

import numpy as np
import pytest
import torch
from conftest import make_mixed
from sklearn import set_config
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, cross_validate, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from grclip import ExactRetriever, Items, ModalityGapRemover, MultimodalFuser, SearchTask
from grclip.metrics import ndcg_score, retrieval_scorer


@parametrize_with_checks(
    [ModalityGapRemover(), ModalityGapRemover(normalize=False), MultimodalFuser(), ExactRetriever(k=1)]
)
@pytest.mark.filterwarnings("ignore:rows of zeros", "ignore:normalize=False, but rows have lengths")
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def pipeline(**parameters):
    steps = [("degap", ModalityGapRemover()), ("fuse", MultimodalFuser()), ("search", ExactRetriever(k=10))]
    return Pipeline(steps).set_params(**parameters)


@pytest.fixture
def tensors(mixed):
    task, qrels = mixed
    sides = (
        Items({role: torch.from_numpy(part) for role, part in side.items()}) for side in (task.queries, task.corpus)
    )
    return SearchTask(*sides), qrels


class Spy(ModalityGapRemover):
    """Remembers what reached fit."""

    seen: list = []  # noqa: RUF012

    def fit(self, X, y=None):
        self.seen.append((X.queries["query"].copy(), X.corpus, len(y)))
        return super().fit(X, y)


@pytest.mark.parametrize("equalize", [False, True])
def test_held_out_queries_never_reach_fit_and_the_corpus_is_whole(mixed, equalize):
    task, qrels = mixed
    assert len(task) == len(task.corpus)
    Spy.seen.clear()
    scores = cross_val_score(
        pipeline(degap=Spy(), fuse__equalize=equalize),
        task,
        qrels,
        scoring=retrieval_scorer(),
        cv=KFold(5),
        error_score="raise",
    )
    assert scores.shape == (5,)
    assert scores.min() > 0.5
    for fold, (train, _) in enumerate(KFold(5).split(task)):
        queries, corpus, judged = Spy.seen[fold]
        np.testing.assert_array_equal(queries, task.queries["query"][train])
        assert corpus is task.corpus
        assert judged == len(train)


def test_a_fold_scores_what_a_hand_made_split_scores(mixed):
    task, qrels = mixed
    scores = cross_val_score(pipeline(), task, qrels, scoring=retrieval_scorer(), cv=KFold(3), error_score="raise")
    for score, (train, test) in zip(scores, KFold(3).split(task), strict=True):
        fitted = pipeline().fit(task[train], [qrels[i] for i in train])
        assert score == ndcg_score([qrels[i] for i in test], fitted.predict(task[test].queries))


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_grid_search_over_alpha(mixed, tensors, n_jobs, library):
    task, qrels = mixed if library == "numpy" else tensors
    parameters = {"fuse__alpha": np.linspace(0, 1, 3), "degap": [ModalityGapRemover(), "passthrough"]}
    options = {"scoring": retrieval_scorer("ndcg", k=10), "cv": 3, "n_jobs": n_jobs, "error_score": "raise"}
    grid = GridSearchCV(pipeline(fuse__equalize=True), parameters, **options)
    grid.fit(task, qrels)
    assert isinstance(grid.best_params_["degap"], ModalityGapRemover)
    rows = grid.predict(Items({"query": task.queries["query"][:2]}))
    assert rows.shape == (2, 10)
    assert isinstance(rows, torch.Tensor) == (library == "torch")
    assert grid.score(task, qrels) > 0.9
    assert len(grid.cv_results_["mean_test_score"]) == 6


def test_a_frozen_encoder_is_left_out_of_the_search(mixed):
    """The design's own example, with a stand-in for the encoder."""
    task, qrels = mixed
    pipe = Pipeline([("encode", "passthrough"), *pipeline().steps])
    grid = GridSearchCV(pipe[1:], {"fuse__alpha": np.linspace(0, 1, 11)}, scoring=retrieval_scorer("ndcg", k=10), cv=5)
    grid.fit(task, qrels)
    assert 0 <= grid.best_params_["fuse__alpha"] <= 1
    assert grid.predict(task.queries[:1]).shape == (1, 10)


def test_a_search_with_copy_false_scores_the_same_and_leaves_the_corpus(mixed):
    task, qrels = mixed
    before = task.corpus["image"].copy()
    scores = [
        cross_val_score(pipeline(degap__copy=copy), task, qrels, scoring=retrieval_scorer(), cv=3, error_score="raise")
        for copy in (True, False)
    ]
    np.testing.assert_array_equal(*scores)
    np.testing.assert_array_equal(task.corpus["image"], before)


def test_nested_search(mixed):
    task, qrels = mixed
    inner = GridSearchCV(pipeline(), {"fuse__alpha": [0.3, 0.7]}, scoring=retrieval_scorer(), cv=2, error_score="raise")
    result = cross_validate(
        inner, task, qrels, cv=3, scoring={"ndcg": retrieval_scorer(), "recall": retrieval_scorer("recall", k=1)},
        return_train_score=True, return_estimator=True, error_score="raise",
    )  # fmt: skip
    assert result["test_ndcg"].shape == result["train_recall"].shape == (3,)
    for search in result["estimator"]:
        assert len(search.best_estimator_["search"].corpus_) == len(task.corpus)


def test_train_test_split(mixed):
    task, qrels = mixed
    train, test, y_train, y_test = train_test_split(task, qrels, test_size=0.25, random_state=0)
    assert (len(train), len(test), len(y_train), len(y_test)) == (22, 8, 22, 8)
    assert retrieval_scorer()(pipeline().fit(train, y_train), test, y_test) > 0.5


def test_a_task_with_another_corpus_is_searched_in_its_own(rng):
    first, qrels = make_mixed(rng, n=60)
    second = SearchTask(first.queries[40:], first.corpus[40:])
    fitted = pipeline().fit(first[:40], qrels[:40])
    rows = fitted.predict(second)
    assert rows.max() < 20
    assert retrieval_scorer()(fitted, second, [{i: 1} for i in range(20)]) > 0.8


def test_clone_copies_neither_corpus_nor_calibrator_state(mixed):
    task, _ = mixed
    fitted = pipeline().fit(task)
    again = clone(fitted)
    assert not hasattr(again["degap"], "means_")
    assert not hasattr(again["search"], "corpus_")
    assert clone(task, safe=False).corpus is task.corpus


def test_parameters_round_trip():
    estimator = pipeline(fuse__alpha=0.25, fuse__weights={"text": 1.0}, degap__normalize=False, search__k=3)
    assert clone(estimator).get_params()["fuse__weights"] == {"text": 1.0}
    assert "MultimodalFuser(alpha=0.25, weights={'text': 1.0})" in repr(estimator)


@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_a_global_output_container_leaves_tasks_alone(mixed, container):
    task, qrels = mixed
    set_config(transform_output=container)
    try:
        assert retrieval_scorer()(pipeline().fit(task, qrels), task, qrels) > 0.9
    finally:
        set_config(transform_output="default")


def test_threads_may_share_a_fitted_pipeline(mixed):
    from joblib import Parallel, delayed

    task, qrels = mixed
    fitted = pipeline(fuse__equalize=True).fit(task, qrels)
    expected = fitted.predict(task.queries)
    for rows in Parallel(n_jobs=4, backend="threading")(delayed(fitted.predict)(task.queries) for _ in range(16)):
        np.testing.assert_array_equal(rows, expected)
