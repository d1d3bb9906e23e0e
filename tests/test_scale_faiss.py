"""FaissRetriever beside ExactRetriever, in real indexes."""

import copy
import json
import pickle
import re
import sys

import joblib
import numpy as np
import pytest
import torch
from conftest import unit
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from strategies import embeddings, lay_out, to_numpy

from benchmarks import ann
from benchmarks import real_clip as benchmark
from grclip import ExactRetriever, Items, ModalityGapRemover, MultimodalFuser, SearchTask
from grclip.metrics import ndcg_score, retrieval_scorer
from grclip.scale import faiss as ours
from grclip.scale.faiss import FaissRetriever

faiss = ours._faiss()
pytestmark = pytest.mark.filterwarnings("ignore:few rows to train an index on")


def draw(rng, n=2000, d=16, queries=20):
    return (unit(rng.normal(size=(size, d))).astype(np.float32) for size in (n, queries))


def assert_same_up_to_ties(found, exact, queries, corpus):
    """Wherever rows differ, the similarities of both are equal as far as float32 can tell."""
    scores = to_numpy(queries) @ to_numpy(corpus).T
    taken = [np.take_along_axis(scores, to_numpy(rows).astype(int), axis=1) for rows in (found, exact)]
    lengths = np.outer(*(np.linalg.norm(to_numpy(x), axis=1).clip(1e-30) for x in (queries, corpus))).max(axis=1)
    differ = to_numpy(found) != to_numpy(exact)
    assert (np.abs(taken[0] - taken[1]) <= 1e-5 * lengths[:, None])[differ].all()
    return differ.mean()


@settings(max_examples=60)
@given(embeddings(missing=False, zeros=False), st.data())
def test_flat_finds_what_exhaustive_search_finds(corpus, data):
    queries = data.draw(embeddings(d=corpus.shape[1], missing=False, zeros=False))
    k = data.draw(st.integers(1, len(corpus)))
    similarities, rows = FaissRetriever(k=k).fit(corpus).kneighbors(queries)
    expected, exact = ExactRetriever(k=k).fit(corpus).kneighbors(queries)
    assert_same_up_to_ties(rows, exact, queries, corpus)
    size = np.linalg.norm(to_numpy(queries), axis=1).max() * np.linalg.norm(to_numpy(corpus), axis=1).max()
    np.testing.assert_allclose(to_numpy(similarities), to_numpy(expected), atol=1e-5 * max(size, 1e-30))
    assert all(len(set(line)) == k for line in to_numpy(rows).tolist())
    assert type(rows) is type(similarities) is type(queries)
    assert str(similarities.dtype).endswith("float32")
    assert str(rows.dtype).endswith("int64")


@pytest.mark.parametrize("equalize", [False, True])
def test_flat_finds_the_same_on_real_embeddings(real_clip, equalize):
    calibrated = make_pipeline(ModalityGapRemover(), MultimodalFuser(equalize=equalize)).fit(
        benchmark.photos(real_clip), [{i: 1} for i in range(290)]
    )
    captions, images = benchmark.flickr(real_clip)
    for trial in range(3):
        task = calibrated.transform(benchmark.mixed(captions, images, trial))
        rows = FaissRetriever().fit(task).predict(task)
        exact = ExactRetriever().fit(task).predict(task)
        assert assert_same_up_to_ties(rows, exact, task.queries, task.corpus) < 0.01


@pytest.mark.filterwarnings("ignore:rows of zeros")
@pytest.mark.parametrize("index", ["Flat", "IVF2,Flat", "HNSW4"])
@pytest.mark.parametrize("wrap", [np.asarray, torch.from_numpy])
def test_rows_and_queries_of_zeros(index, wrap, rng):
    corpus, queries = rng.normal(size=(12, 4)), rng.normal(size=(3, 4))
    corpus[[0, 5, 11]] = queries[1] = 0
    retriever = FaissRetriever(k=12, index_factory=index).fit(wrap(corpus))
    if index.startswith("IVF"):
        retriever.set_params(search_parameters={"nprobe": 2})
    similarities, rows = (to_numpy(x) for x in retriever.kneighbors(wrap(queries)))
    exact = ExactRetriever(k=12).fit(corpus).predict(queries)
    np.testing.assert_array_equal(rows, exact)
    assert rows[1].tolist() == [1, 2, 3, 4, 6, 7, 8, 9, 10, 0, 5, 11]
    assert np.isneginf(similarities[:, 9:]).all()
    assert np.isfinite(similarities[:, :9]).all()


@pytest.mark.filterwarnings("ignore:rows of zeros")
@pytest.mark.parametrize("index", ["Flat", "IVF2,Flat"])
def test_a_corpus_of_zeros_alone(index):
    similarities, rows = FaissRetriever(k=2, index_factory=index).fit(np.zeros((3, 2))).kneighbors(np.eye(2))
    assert rows.tolist() == [[0, 1], [0, 1]]
    assert np.isneginf(similarities).all()


def test_zero_rows_are_warned_of():
    with pytest.warns(UserWarning, match=r"corpus: 1 row \(1\)"):
        FaissRetriever(k=1).fit(np.array([[1.0, 0], [0, 0]]))


@pytest.mark.filterwarnings("ignore:rows of zeros")
def test_what_an_index_does_not_find_comes_last_as_minus_one(rng):
    corpus, queries = draw(rng, n=400)
    corpus[7] = 0
    retriever = FaissRetriever(k=400, index_factory="IVF16,Flat").fit(corpus)
    similarities, rows = retriever.kneighbors(queries)
    for line, scores in zip(rows, similarities, strict=True):
        n = int((line >= 0).sum())
        assert 0 < n < 400
        assert (line[n:] == -1).all()
        assert line[n - 1] == 7  # the row of zeros is behind all that was found, and before what was not
        assert len(set(line[:n])) == n
        assert np.isneginf(scores[n - 1 :]).all()
        assert (np.diff(scores[: n - 1]) <= 0).all()
    assert 0 < ndcg_score([{int(line[0]): 1, 7: 1} for line in rows], rows) <= 1


@pytest.mark.parametrize(
    ("index", "name", "least", "most"),
    [("IVF16,Flat", "nprobe", 1, 16), ("HNSW8", "efSearch", 10, 400), ("PCA12,IVF16,PQ12x4", "nprobe", 1, 16)],
)
def test_a_search_that_may_spend_more_finds_more(index, name, least, most, rng):
    corpus, queries = draw(rng, n=10_000)
    exact = ExactRetriever().fit(corpus).predict(queries)
    retriever = FaissRetriever(index_factory=index, search_parameters={name: least}).fit(corpus)
    found = []
    for value in (least, most):
        rows = retriever.set_params(search_parameters={name: value}).predict(queries)
        found.append(np.mean([len(set(a) & set(b)) for a, b in zip(rows, exact, strict=True)]) / 10)
    assert found[0] < found[1]
    assert found[1] > (0.98 if "PQ" not in index else found[0])


def test_a_search_parameter_that_is_left_out_stays_until_the_next_fit(rng):
    corpus, _ = draw(rng, n=1000)
    retriever = FaissRetriever(index_factory="IVF16,Flat", search_parameters={"nprobe": 5}).fit(corpus)
    retriever.set_params(search_parameters=None).predict(corpus[:3])
    assert faiss.extract_index_ivf(retriever.index_).nprobe == 5
    assert faiss.extract_index_ivf(retriever.fit(corpus).index_).nprobe == 1


def test_training_takes_a_sample_that_is_drawn_once_and_for_all(rng):
    corpus, queries = draw(rng)
    options = {"index_factory": "IVF8,Flat", "training_size": 320}
    first, again = (FaissRetriever(**options).fit(corpus).predict(queries) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    retriever = FaissRetriever(**options)
    assert len(retriever._sample(corpus, None)) == 320
    kept = np.arange(5, 1000)
    drawn = retriever._sample(corpus, kept)
    assert len(set(drawn.tolist())) == 320
    assert set(drawn.tolist()) <= set(kept.tolist())
    other = FaissRetriever(**options, random_state=1).fit(corpus).predict(queries)
    assert (first != other).any()


@pytest.mark.parametrize("index", ["PCA16,Flat", "PCAR16,Flat", "OPQ4,PCA16,Flat", "PCA16,SQfp16,RFlat"])
def test_principal_components_keep_the_inner_product_of_vectors_off_centre(index, rng):
    corpus, queries = (x + np.float32(side) for x, side in zip(draw(rng), (0.3, -0.2), strict=True))
    corpus *= rng.uniform(0.5, 2, size=(len(corpus), 1)).astype(np.float32)
    retriever = FaissRetriever(index_factory=index).fit(corpus)
    similarities, rows = pickle.loads(pickle.dumps(retriever)).kneighbors(queries)
    exact = ExactRetriever().fit(corpus).predict(queries)
    assert np.mean([len(set(a) & set(b)) for a, b in zip(rows, exact, strict=True)]) > 9.9
    taken = np.take_along_axis(queries @ corpus.T, rows, axis=1)
    np.testing.assert_allclose(similarities, taken, rtol=1e-4, atol=1e-4)


def test_documents_of_one_scale_keep_their_lengths(mixed):
    calibrated = make_pipeline(ModalityGapRemover(), MultimodalFuser(equalize=True)).fit(*mixed)
    task = calibrated.transform(mixed[0])
    lengths = np.linalg.norm(task.corpus, axis=1)
    assert len(np.unique(lengths.round(6))) == 3
    similarities, rows = FaissRetriever(k=30).fit(task).kneighbors(task.queries)
    np.testing.assert_allclose(
        similarities, np.take_along_axis(task.queries @ task.corpus.T, rows, axis=1), rtol=1e-5, atol=1e-5
    )
    with pytest.raises(ValueError, match="normalises vectors, whose length may carry the scale"):
        FaissRetriever(k=3, index_factory="L2norm,Flat").fit(task)


def test_it_stands_in_a_pipeline(mixed):
    task, qrels = mixed
    search = make_pipeline(ModalityGapRemover(), MultimodalFuser(equalize=True), FaissRetriever())
    by_faiss = cross_val_score(search, task, qrels, scoring=retrieval_scorer("ndcg"), cv=3)
    search.steps[-1] = ("search", ExactRetriever())
    np.testing.assert_allclose(by_faiss, cross_val_score(search, task, qrels, scoring=retrieval_scorer("ndcg"), cv=3))


def test_a_task_brings_its_own_corpus(rng):
    first, second = rng.normal(size=(2, 20, 5))
    queries = rng.normal(size=(4, 5))
    retriever = FaissRetriever(k=3).fit(SearchTask(queries, first))
    index = retriever.index_
    np.testing.assert_array_equal(retriever.predict(queries), retriever.predict(SearchTask(queries, first)))
    np.testing.assert_array_equal(
        retriever.predict(SearchTask(queries, second)), FaissRetriever(k=3).fit(second).predict(queries)
    )
    assert retriever.index_ is index
    assert retriever.kneighbors(SearchTask(queries, second), k=7)[1].shape == (4, 7)


@pytest.mark.parametrize("wrap", [np.array, torch.tensor])
def test_a_corpus_is_told_by_its_values(rng, wrap, monkeypatch):
    monkeypatch.setattr(ours, "_BLOCK", 7)
    corpus, queries = wrap(rng.normal(size=(20, 5))), wrap(rng.normal(size=(4, 5)))
    retriever = FaissRetriever(k=3).fit(corpus)
    before, built = retriever.predict(queries), FaissRetriever._learn
    monkeypatch.setattr(FaissRetriever, "_learn", None)  # nothing is built where the corpus is that of fit
    for same in (corpus, copy.deepcopy(corpus), corpus[:]):
        np.testing.assert_array_equal(retriever.predict(SearchTask(queries, same)), before)
    monkeypatch.setattr(FaissRetriever, "_learn", built)
    for row in (0, 13, 19):
        changed = copy.deepcopy(corpus)
        changed[row] *= -100
        found = retriever.predict(SearchTask(queries, changed))
        np.testing.assert_array_equal(found, ExactRetriever(k=3).fit(changed).predict(queries))
    corpus[0] *= 100
    found = retriever.predict(SearchTask(queries, corpus))
    np.testing.assert_array_equal(found, ExactRetriever(k=3).fit(corpus).predict(queries))
    np.testing.assert_array_equal(retriever.predict(queries), before)


def test_a_pipeline_builds_one_index_for_a_task(mixed, monkeypatch):
    task, qrels = mixed
    search = make_pipeline(ModalityGapRemover(), MultimodalFuser(equalize=True), FaissRetriever()).fit(task, qrels)
    expected = search.predict(task.queries)
    monkeypatch.setattr(FaissRetriever, "_learn", None)
    np.testing.assert_array_equal(search.predict(task), expected)
    np.testing.assert_array_equal(search.predict(task[3:5]), expected[3:5])


@pytest.mark.parametrize("layout", ["read-only", "f", "step", "back", "big-endian"])
def test_the_corpus_may_lie_in_memory_anyhow(rng, layout, monkeypatch):
    monkeypatch.setattr(ours, "_BLOCK", 7)
    corpus, queries = rng.normal(size=(50, 6)), rng.normal(size=(9, 6))
    expected = ExactRetriever().fit(corpus).predict(queries)
    np.testing.assert_array_equal(FaissRetriever().fit(lay_out(corpus, layout)).predict(queries), expected)


@pytest.mark.filterwarnings("ignore:rows of zeros")
@pytest.mark.parametrize("index", ["Flat", "IVF8,PQ4x4", "HNSW8"])
def test_an_index_is_kept_in_files(index, rng, tmp_path):
    corpus, queries = draw(rng, n=10_000)
    corpus[3] = 0
    retriever = FaissRetriever(k=5, index_factory=index).fit(corpus)
    if index == "IVF8,PQ4x4":
        retriever.set_params(search_parameters={"nprobe": 3})
    expected = retriever.kneighbors(queries)
    joblib.dump(retriever, tmp_path / "r.joblib")
    for loaded in (joblib.load(tmp_path / "r.joblib"), pickle.loads(pickle.dumps(retriever)), copy.deepcopy(retriever)):
        for a, b in zip(loaded.kneighbors(queries), expected, strict=True):
            np.testing.assert_array_equal(a, b)
        assert loaded.get_params() == retriever.get_params()
        assert loaded._holds(corpus)
    fresh = clone(retriever)
    assert fresh.get_params() == retriever.get_params()
    with pytest.raises(NotFittedError):
        fresh.predict(queries)
    assert pickle.loads(pickle.dumps(fresh)).get_params() == fresh.get_params()


def test_an_index_that_compresses_keeps_no_copy_of_the_corpus(rng):
    corpus, _ = draw(rng, n=10_000, d=64)
    retriever = FaissRetriever(index_factory="IVF8,PQ8x4").fit(corpus)
    assert len(pickle.dumps(retriever)) < corpus.nbytes / 8


@pytest.mark.parametrize("index", ["Flat", "SQ8", "HNSW8"])
@pytest.mark.filterwarnings("ignore:rows of zeros")
def test_rows_are_added_in_blocks_without_moving_those_before(index, rng, monkeypatch):
    """A vector that grows is held twice while it moves, and keeps room for up to twice its rows."""
    corpus, queries = draw(rng, n=1000)
    corpus[3] = 0
    expected = FaissRetriever(index_factory=index).fit(corpus).predict(queries)
    index_type, places = type(faiss.index_factory(16, index, faiss.METRIC_INNER_PRODUCT)), set()
    add = index_type.add

    def add_and_look(self, rows):
        add(self, rows)
        places.add(int(faiss.downcast_index(getattr(self, "storage", self)).codes.data()))

    monkeypatch.setattr(index_type, "add", add_and_look)
    monkeypatch.setattr(ours, "_BLOCK", 7)
    retriever = FaissRetriever(index_factory=index).fit(corpus)
    assert len(places) == 1
    assert retriever.index_.ntotal == 999
    if index != "HNSW8":  # a graph depends on the order in which it was built
        np.testing.assert_array_equal(retriever.predict(queries), expected)


def test_search_parameters_are_chosen_by_grid_search(mixed):
    task, qrels = mixed
    steps = (ModalityGapRemover(), MultimodalFuser(), FaissRetriever(k=5, index_factory="IVF4,Flat"))
    spent = {"faissretriever__search_parameters": [{"nprobe": n} for n in (1, 2, 4)]}
    scored = GridSearchCV(make_pipeline(*steps), spent, scoring=retrieval_scorer("recall", k=5), cv=3, refit=True)
    found = scored.fit(task, qrels)
    assert (np.diff(found.cv_results_["mean_test_score"]) >= 0).all()
    assert found.cv_results_["mean_test_score"][-1] > found.cv_results_["mean_test_score"][0]
    retriever = found.best_estimator_[-1]
    assert retriever.search_parameters == found.best_params_["faissretriever__search_parameters"]
    assert faiss.extract_index_ivf(retriever.index_).nprobe == retriever.search_parameters["nprobe"]


def test_faiss_uses_no_more_threads_than_torch_may(rng, monkeypatch):
    corpus, queries = draw(rng, n=100)
    before, seen = faiss.omp_get_max_threads(), []
    index_type = type(faiss.index_factory(16, "Flat"))
    search = index_type.search
    monkeypatch.setattr(
        index_type, "search", lambda *args, **rest: seen.append(faiss.omp_get_max_threads()) or search(*args, **rest)
    )
    retriever = FaissRetriever().fit(corpus)
    try:
        for of_torch, of_faiss, used in ((1, 3, 1), (3, 2, 2)):
            monkeypatch.setattr(torch, "get_num_threads", lambda n=of_torch: n)
            faiss.omp_set_num_threads(of_faiss)
            retriever.predict(queries)
            assert seen[-1] == used
            assert faiss.omp_get_max_threads() == of_faiss
    finally:
        faiss.omp_set_num_threads(before)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"k": 0}, ValueError, "k must be a whole number of at least 1; got 0"),
        ({"k": 51}, ValueError, "k=51 is larger than the corpus, which has 50 rows"),
        ({"index_factory": None}, TypeError, "index_factory must be a str such as 'Flat' or 'HNSW32'; got None"),
        (
            {"index_factory": faiss.IndexFlatIP(8)},
            TypeError,
            r"an index that holds raw vectors already is asked through grclip\.retrofit\.retrofit_search",
        ),
        (
            {"index_factory": "Nonsense"},
            ValueError,
            "'Nonsense' makes no index .* Faiss says: could not parse index string",
        ),
        ({"index_factory": "PQ5"}, ValueError, "50 rows of 8 numbers; Faiss says: .*multiple of the number of subq"),
        ({"index_factory": "IVF64,Flat"}, ValueError, r"Faiss says: Number of training points \(50\) should be at le"),
        (
            {"index_factory": "IVF40,Flat", "training_size": 30},
            ValueError,
            r"Faiss says: Number of training points \(30\) .*; it was given training_size=30 of them",
        ),
        ({"index_factory": "IDMap,Flat"}, ValueError, "here rows are the ids: leave IDMap out"),
        ({"index_factory": "SQ8_direct"}, ValueError, "takes numbers for whole ones of a byte, .*: choose SQ8"),
        ({"index_factory": "NSG2"}, ValueError, "a graph that may never be finished .*: choose HNSW"),
        ({"index_factory": "IVF1000000000,Flat"}, MemoryError, "which takes more memory than there is; choose a sm"),
        ({"index_factory": "LSH"}, ValueError, "compares signs, and does not rank by inner product: choose SQ4 or PQ"),
        ({"index_factory": "PCAW4,Flat"}, ValueError, "divides directions by their spread, .*: choose OPQ or PCA"),
        ({"index_factory": "ITQ4,Flat"}, ValueError, "subtracts means and normalises, .*: choose OPQ or PCA"),
        ({"index_factory": "HNSW8,PQ4"}, ValueError, "does not rank by inner product: choose another index"),
        ({"search_parameters": {"nprobe": 4}}, ValueError, "name 'nprobe', which the index 'Flat' does not have"),
        (
            {"search_parameters": {"nprobe": 0}},
            ValueError,
            r"search_parameters\['nprobe'\] must be a whole number from 1",
        ),
        ({"search_parameters": {"nprobe": True}}, ValueError, "must be a whole number from 1 .*; got True"),
        ({"search_parameters": {"nprobe": "4"}}, ValueError, "must be a whole number from 1 .*; got '4'"),
        ({"search_parameters": {"efSearch": 0.5}}, ValueError, "must be a whole number from 1 .*; got 0.5"),
        ({"search_parameters": {"nprobe": 2.5}}, ValueError, "must be a whole number from 1 .*; got 2.5"),
        ({"search_parameters": {"nprobe": 2**31}}, ValueError, r"from 1 to 2\*\*31 - 1; got 2147483648"),
        ({"search_parameters": {"nprobe": np.nan}}, ValueError, "must be a whole number from 1 .*; got nan"),
        ({"search_parameters": {"k_factor_rf": 0.5}}, ValueError, "must be a number from 1 .*; got 0.5"),
        ({"search_parameters": {3: 4}}, TypeError, "search_parameters are by name, a str such as 'nprobe'; got 3"),
        ({"index_factory": "IVF0,Flat"}, ValueError, "asks for IVF0, which finds nothing or ends the process"),
        ({"index_factory": "PCA0,Flat"}, ValueError, "asks for PCA0, which"),
        ({"index_factory": "HNSW0"}, ValueError, "asks for HNSW0, which"),
        ({"index_factory": "IVF4_HNSW1,Flat"}, ValueError, "asks for HNSW1, which .* links of a graph from 2"),
        ({"search_parameters": "nprobe=4"}, TypeError, "search_parameters must be a dict"),
        ({"training_size": 0}, ValueError, "training_size must be a whole number of at least 1; got 0"),
    ],
)
def test_wrong_parameters(options, error, message, rng):
    corpus = rng.normal(size=(50, 8))
    retriever = FaissRetriever(k=2).fit(corpus)
    before = retriever.index_
    with pytest.raises(error, match=message):
        retriever.set_params(**options).fit(corpus)
    assert retriever.index_ is before


def test_a_ratio_may_be_broken(rng):
    corpus, queries = draw(rng)
    options = {"index_factory": "PQ4x4,RFlat", "search_parameters": {"k_factor_rf": 1.5}}
    assert FaissRetriever(**options).fit(corpus).predict(queries).shape == (20, 10)
    assert FaissRetriever(index_factory="HNSW10", search_parameters={"efSearch": np.float32(20)}).fit(corpus)


@pytest.mark.parametrize(
    ("index", "asked"),
    [
        ("IVF16,PQ4np", 9984),
        ("PQ4x4,RFlat", 624),
        ("RR8,IVF4,PQ2x4", 624),
        ("IVF4,PQ4x4fs", 624),
        ("RQ2x4", 624),
    ],
)
def test_few_rows_to_train_on_are_said_once_and_change_nothing(index, asked, rng, capfd):
    corpus, _ = draw(rng, n=300)
    plain = faiss.index_factory(16, index, faiss.METRIC_INNER_PRODUCT)
    plain.train(corpus)
    plain.add(corpus)
    assert "please provide at least" in capfd.readouterr().err
    told = re.escape(f"index_factory={index!r} asks for {asked}, and gets 300; ")
    with pytest.warns(UserWarning, match=f"few rows to train an index on: {told}.*, or index more documents") as said:
        retriever = FaissRetriever(index_factory=index).fit(corpus)
    assert len(said) == 1
    assert capfd.readouterr().err == ""
    np.testing.assert_array_equal(faiss.serialize_index(retriever.index_), faiss.serialize_index(plain))
    with pytest.warns(UserWarning, match="and gets 256; .*, or raise training_size"):
        FaissRetriever(index_factory=index, training_size=256).fit(corpus)


@pytest.mark.filterwarnings("error")
def test_enough_rows_to_train_on_are_not_warned_of(rng):
    corpus, _ = draw(rng, n=700)
    for index in ("IVF16,Flat", "PQ4x4", "SQ8", "HNSW8", "Flat"):
        FaissRetriever(index_factory=index).fit(corpus)


def test_wrong_search_parameters_after_fit(rng):
    retriever = FaissRetriever(k=1).fit(np.eye(3)).set_params(search_parameters={"efSearch": 4})
    with pytest.raises(ValueError, match="name 'efSearch', which the index 'Flat' does not have"):
        retriever.predict(np.eye(3))


def test_other_wrong_input():
    retriever = FaissRetriever(k=1).fit(np.eye(3))
    with pytest.raises(ValueError, match=r"corpus: NaN in 1 row \(1\)"):
        FaissRetriever(k=1).fit(np.array([[1.0], [np.nan]]))
    with pytest.raises(ValueError, match=r"queries: inf in 1 row \(0\)"):
        retriever.predict(np.full((1, 3), np.inf))
    with pytest.raises(ValueError, match="corpus holds numbers too large for float32"):
        FaissRetriever(k=1).fit(1e30 * np.eye(3))
    with pytest.raises(ValueError, match="queries holds numbers too large for float32"):
        retriever.predict(1e30 * np.eye(3))
    small = np.diag([1.0, 1e-50, 1.0])  # in float32 it would be as similar to all
    with pytest.raises(ValueError, match=r"corpus: numbers too small for float32, .*, in 1 row \(1\); scale them up"):
        FaissRetriever(k=1).fit(small)
    with pytest.raises(ValueError, match=r"queries: numbers too small for float32, .*, in 1 row \(1\)"):
        retriever.predict(torch.from_numpy(small))
    with pytest.raises(ValueError, match="X has 2 features, but FaissRetriever is expecting 3 features"):
        retriever.predict(torch.ones(1, 2))
    with pytest.raises(ValueError, match="k=4 is larger than the corpus, which has 3 rows"):
        retriever.kneighbors(np.eye(3), k=4)
    with pytest.raises(TypeError, match="FaissRetriever compares one vector a row; got Items: fuse their parts first"):
        retriever.predict(Items({"query": np.eye(3)}))
    with pytest.raises(TypeError, match="y is Items; a corpus goes beside the queries"):
        FaissRetriever(k=1).fit(np.eye(3), Items({"text": np.eye(3)}))
    with pytest.raises(NotFittedError):
        FaissRetriever().predict(np.eye(3))


def test_a_failed_fit_changes_nothing():
    retriever = FaissRetriever(k=2).fit(np.eye(3))
    before = dict(vars(retriever))
    for bad, message in ((np.eye(1), "larger than the corpus"), (np.full((3, 5), np.nan), "NaN"), (np.ones(4), "1D")):
        with pytest.raises(ValueError, match=message):
            retriever.fit(bad)
    assert vars(retriever) == before


def test_its_representation_links_to_its_documentation():
    assert FaissRetriever()._get_doc_link().endswith("#grclip.scale.faiss.FaissRetriever")
    assert ExactRetriever()._get_doc_link().endswith("#grclip.ExactRetriever")


def test_without_faiss_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ModuleNotFoundError, match=r'FaissRetriever needs .faiss.*pip install "grclip\[faiss\]"'):
        FaissRetriever(k=1).fit(np.eye(3))


def test_the_benchmark_finds_all_where_it_looks_at_all(real_clip, tmp_path, capsys, monkeypatch):
    indexes = {"IVF128,Flat": ("nprobe", (1, 128)), "HNSW32": ("efSearch", (600,))}
    monkeypatch.setattr(ann, "INDEXES", indexes)
    monkeypatch.setattr(ann, "BY_KIND", ("IVF8,Flat", "nprobe", (1, 8)))
    assert ann.main(["--documents", "200", "--json", str(tmp_path / "ann.json")]) == 0
    told = json.loads((tmp_path / "ann.json").read_text())
    assert {"date", "versions", "threads", "documents"} < set(told)
    assert len(told["rows"]) == 3 * 3 * 4 + 3 * 2
    for row in told["rows"]:
        assert 0 <= row["recall"] <= 1
        assert 0 <= row["ndcg"] <= 1
        assert sum(row["kinds_found"].values()) == pytest.approx(1)
        assert len(row["ndcg_by_kind"]) == (3 if "mixed" in row["corpus"] else 1)
        if row["parameter"] in ("nprobe=128", "nprobe=8", "efSearch=600"):
            assert row["recall"] > 0.99
        if row["parameter"] == "nprobe=1":
            assert row["compared"] < 0.3
            assert row["recall"] < 0.9
    assert capsys.readouterr().out.count("| IVF128,Flat nprobe=1 |") == 3


def test_without_data_the_benchmark_says_what_to_set(monkeypatch):
    monkeypatch.delenv("GRCLIP_REAL_DATA", raising=False)
    with pytest.raises(SystemExit, match="set GRCLIP_REAL_DATA to the folder"):
        ann.main()
