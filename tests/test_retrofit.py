"""Scores from raw dot products beside those of calibrated vectors."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from conftest import make_mixed, unit
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from strategies import to_numpy

from benchmarks import real_clip as benchmark
from benchmarks import retrofit as two_stages
from grclip import (
    ExactRetriever,
    Items,
    ModalityGapRemover,
    MultimodalFuser,
    SearchTask,
    _retrofit,
    load_pipeline,
    save_pipeline,
)
from grclip.metrics import ndcg_score
from grclip.retrofit import RetrofitTerms, retrofit_scores, retrofit_search, retrofit_terms
from grclip.scale.faiss import FaissRetriever

TOLERANCE = {np.float32: 1e-6, np.float64: 1e-12}


def calibrated(**options):
    return make_pipeline(ModalityGapRemover(), MultimodalFuser(**options))


def raw_products(task):
    """Dot products of the unit queries with the unit parts of documents; NaN where a part is missing."""
    return {role: unit(task.queries["query"]) @ unit(task.corpus[role]).T for role in task.corpus}


def one_product(products):
    """The products of documents of one part."""
    return np.where(np.isnan(products["text"]), products["image"], products["text"])


def direct(pipeline, task):
    vectors = pipeline.transform(task)
    return to_numpy(vectors.queries) @ to_numpy(vectors.corpus).T


@st.composite
def searches(draw, kinds=("text", "image", "text+image")):
    """A task in which parts have a gap as wide as that of CLIP, and a fitted pipeline."""
    n, d = draw(st.integers(12, 60)), draw(st.integers(8, 48))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    topics, gaps = unit(rng.normal(size=(n, d))), unit(rng.normal(size=(3, d)))
    query, text, image = ((unit(unit(topics + 0.5 * unit(rng.normal(size=(n, d)))) + g)).astype(dtype) for g in gaps)
    kind = rng.permutation(np.resize(np.array(kinds), n))
    text[kind == "image"] = image[kind == "text"] = np.nan
    length = dtype(draw(st.sampled_from([1.0, 7.0])))
    task = SearchTask(Items({"query": length * query}), Items({"text": length * text, "image": image}))
    weights = draw(st.sampled_from([None, {"text": 0.2, "image": 0.7, "query": 1}]))
    options = {"alpha": draw(st.sampled_from([0.0, 0.3, 0.5, 1.0])), "weights": weights}
    return task, calibrated(equalize=draw(st.booleans()), **options).fit(task, [{i: 1} for i in range(n)]), dtype


def assert_direct(scores, pipeline, task, dtype):
    """In spreads, where one scale is on: rounding is divided by them as all else is."""
    smallest = min(getattr(pipeline[-1], "spread_", {0: 1.0}).values())
    expected = direct(pipeline, task)
    assert to_numpy(scores).shape == expected.shape
    np.testing.assert_allclose(smallest * to_numpy(scores), smallest * expected, rtol=0, atol=TOLERANCE[dtype])


@given(searches(), st.sampled_from([np.asarray, torch.from_numpy]))
def test_scores_are_those_of_calibrated_vectors(search, wrap):
    task, pipeline, dtype = search
    terms = retrofit_terms(pipeline, task.corpus)
    products = {role: wrap(x) for role, x in raw_products(task).items()}
    scores = retrofit_scores(products, pipeline, task.queries, terms)
    assert type(scores) is type(products["text"])
    assert scores.dtype == products["text"].dtype
    assert_direct(scores, pipeline, task, dtype)


@given(searches(), st.data())
def test_an_index_may_be_asked_with_calibrated_queries(search, data):
    task, pipeline, dtype = search
    terms = retrofit_terms(pipeline, task.corpus, query_role=data.draw(st.sampled_from([None, "query"])))
    queries = pipeline.transform(task.queries)
    products = {role: queries @ unit(task.corpus[role]).T for role in task.corpus}
    scores = retrofit_scores(products, pipeline, task.queries, terms, asked="calibrated")
    assert_direct(scores, pipeline, task, dtype)


@given(searches(kinds=("text", "image")))
def test_documents_of_one_part_need_one_product_each(search):
    task, pipeline, dtype = search
    scores = retrofit_scores(
        one_product(raw_products(task)), pipeline, task.queries, retrofit_terms(pipeline, task.corpus)
    )
    assert_direct(scores, pipeline, task, dtype)


@given(searches())
def test_candidates_are_scored_as_all_are(search):
    task, pipeline, _ = search
    n, rng = len(task), np.random.default_rng(0)
    terms, products = retrofit_terms(pipeline, task.corpus), raw_products(task)
    rows = np.stack([rng.permutation(n)[:10] for _ in range(n)])
    rows[:, 3] = -1
    scores = retrofit_scores(
        {role: np.take_along_axis(x, rows, axis=1) for role, x in products.items()},
        pipeline,
        task.queries,
        terms,
        rows=rows,
    )
    whole = retrofit_scores(products, pipeline, task.queries, terms)
    np.testing.assert_array_equal(scores, np.where(rows < 0, -np.inf, np.take_along_axis(whole, rows, axis=1)))


def test_the_ranking_is_that_of_the_retriever(mixed):
    task, qrels = mixed
    for options in ({}, {"equalize": True}, {"alpha": 0.2}):
        pipeline = calibrated(**options).fit(task, qrels)
        scores = retrofit_scores(raw_products(task), pipeline, task.queries, retrofit_terms(pipeline, task.corpus))
        exact = ExactRetriever(k=30).fit(pipeline.transform(task)).predict(pipeline.transform(task))
        np.testing.assert_array_equal(np.argsort(-scores, axis=1), exact)


def test_an_encoder_before_and_a_retriever_after_are_passed_over(mixed):
    task, qrels = mixed
    pipeline = make_pipeline("passthrough", ModalityGapRemover(), MultimodalFuser(), ExactRetriever()).fit(task, qrels)
    terms = retrofit_terms(pipeline, task.corpus)
    scores = retrofit_scores(raw_products(task), pipeline, task.queries, terms)
    assert_direct(scores, pipeline[1:3], task, np.float64)


def test_blocks_change_nothing(mixed, monkeypatch):
    task, qrels = mixed
    pipeline = calibrated(equalize=True).fit(task, qrels)
    terms = retrofit_terms(pipeline, task.corpus)
    scores = retrofit_scores(raw_products(task), pipeline, task.queries, terms)
    monkeypatch.setattr("grclip._kernels._CPU_BLOCK", 7 * 16)
    monkeypatch.setattr(_retrofit, "_SCORES", 70)
    again = retrofit_terms(pipeline, task.corpus)
    for name in ("codes", "shift", "scale"):
        np.testing.assert_allclose(getattr(again, name), getattr(terms, name), rtol=1e-15, atol=1e-15)
    np.testing.assert_array_equal(retrofit_scores(raw_products(task), pipeline, task.queries, terms), scores)


@pytest.mark.filterwarnings("ignore:rows of zeros")
def test_rows_of_zeros_rank_last(mixed):
    task, qrels = mixed
    pipeline = calibrated().fit(task, qrels)
    text = np.array(task.corpus["text"])
    text[0] = 0  # a document of a text alone
    corpus = task.corpus.replace({"text": text})
    with pytest.warns(UserWarning, match=r"role 'text': 1 row \(0\)"):
        terms = retrofit_terms(pipeline, corpus)
    products = raw_products(task)
    products["text"] = np.where(np.arange(30) == 0, 0, products["text"])
    scores = retrofit_scores(products, pipeline, task.queries, terms)
    assert np.isneginf(scores[:, 0]).all()
    assert np.isfinite(scores[:, 1:]).all()
    assert_direct(scores[:, 1:], pipeline, SearchTask(task.queries, corpus[1:]), np.float64)


def test_a_row_of_zeros_beside_a_part_weighs_nothing(mixed):
    task, qrels = mixed
    pipeline = calibrated().fit(task, qrels)
    both = np.flatnonzero(task.corpus.kinds == "text+image")
    corpus = task.corpus[both]
    text = np.array(corpus["text"])
    text[0] = 0
    corpus = corpus.replace({"text": text})
    zeroed = SearchTask(task.queries, corpus)
    products = {role: np.nan_to_num(unit(task.queries["query"])) @ np.nan_to_num(corpus[role]).T for role in corpus}
    with pytest.warns(UserWarning, match="rows of zeros"):
        scores = retrofit_scores(products, pipeline, task.queries, retrofit_terms(pipeline, corpus))
    with pytest.warns(UserWarning, match="rows of zeros"):
        assert_direct(scores, pipeline, zeroed, np.float64)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_documents_that_lie_at_their_mean_rank_last(rng, dtype):
    """As where all images are one placeholder: what is left of them is rounding, and one over it is without bound."""
    task, qrels = make_mixed(rng)
    image = np.where(np.isnan(task.corpus["image"]), np.nan, unit(rng.normal(size=(1, 16)))).astype(dtype)
    parts = {"text": task.corpus["text"].astype(dtype), "image": image}
    task = SearchTask(Items({"query": task.queries["query"].astype(dtype)}), Items(parts))
    pipeline = calibrated().fit(task, qrels)
    alone = np.flatnonzero(task.corpus.kinds == "image")
    with pytest.warns(UserWarning, match=rf"fused parts: {len(alone)} rows \({alone[0]}, "):
        terms = retrofit_terms(pipeline, task.corpus)
    scores = retrofit_scores(raw_products(task), pipeline, task.queries, terms)
    assert np.isneginf(scores[:, alone]).all()
    rest = np.setdiff1d(np.arange(30), alone)
    expected = direct(pipeline, SearchTask(task.queries, task.corpus[rest]))
    np.testing.assert_allclose(scores[:, rest], expected, atol=4 * TOLERANCE[dtype])  # centred parts are short here


@pytest.mark.parametrize("equalize", [False, True])
def test_no_score_exceeds_the_length_of_the_calibrated_document(mixed, equalize):
    task, qrels = mixed
    pipeline = calibrated(equalize=equalize).fit(task, qrels)
    mean = pipeline[0].means_["text"] = unit(pipeline[0].means_["text"])  # unit rows lie near no shorter mean
    corpus = Items({"text": unit(mean + 1e-5 * unit(np.random.default_rng(0).normal(size=(20, 16))))})
    terms = retrofit_terms(pipeline, corpus)
    products = {"text": (unit(task.queries["query"]) @ corpus["text"].T + 1e-4).astype(np.float32)}
    scores = retrofit_scores(products, pipeline, task.queries, terms)
    longest = np.linalg.norm(pipeline.transform(corpus), axis=1).max()
    assert np.abs(scores).max() == pytest.approx(longest, rel=1e-6)


@pytest.mark.parametrize("dtype", ["u1", "u4", "u8", "i4", ">i8"])
def test_rows_of_candidates_may_be_of_any_integers(mixed, dtype):
    task, qrels = mixed
    pipeline = calibrated().fit(task, qrels)
    terms, products = retrofit_terms(pipeline, task.corpus), raw_products(task)
    rows = np.tile(np.arange(5), (30, 1))[:, ::-1]
    some = {role: np.take_along_axis(x, rows, axis=1) for role, x in products.items()}
    expected = retrofit_scores(products, pipeline, task.queries, terms)[:, 4::-1]
    for given_rows in (rows.astype(dtype), rows.tolist(), rows):
        found = retrofit_scores(some, pipeline, task.queries, terms, rows=given_rows)
        np.testing.assert_array_equal(found, expected)


def test_terms_may_come_from_columns_of_any_width_that_cannot_be_written_to(mixed):
    task, qrels = mixed
    pipeline = calibrated().fit(task, qrels)
    terms, products = retrofit_terms(pipeline, task.corpus), raw_products(task)
    columns = [terms.codes.astype(np.uint8), terms.shift.astype(np.float32), terms.scale.astype(np.float32)]
    for column in columns:
        column.setflags(write=False)
    loaded = RetrofitTerms(terms.roles, terms.query_role, *columns)
    np.testing.assert_allclose(
        retrofit_scores(products, pipeline, task.queries, loaded),
        retrofit_scores(products, pipeline, task.queries, terms),
        atol=1e-6,
    )
    with pytest.raises(TypeError, match="codes must be an array of int64; got float64"):
        RetrofitTerms(("text",), None, np.ones(1), np.ones(1), np.ones(1))
    with pytest.raises(TypeError, match="scale must be an array of float64; got <U1"):
        RetrofitTerms(("text",), None, np.ones(1, dtype=int), np.ones(1), np.array(["1"]))


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        *(("codes", code, f"codes: {code} in 1 row") for code in (0, -1, 4, 1 + 8, 1 + 16, 128)),
        *(("shift", number, f"shift: {number} in 1 row") for number in (np.nan, np.inf)),
        *(("scale", number, f"scale: {number} in 1 row") for number in (np.nan, np.inf, -0.5)),
        *(("roles", roles, "roles must be the names of the parts") for roles in ("text", (), ("text", "text"), (1, 2))),
    ],
)
def test_columns_that_came_back_incomplete_are_refused(column, value, told, mixed):
    """What a server has no value for would give scores of NaN, or of a document without parts."""
    task, qrels = mixed
    terms = retrofit_terms(calibrated().fit(task, qrels), task.corpus)
    if column != "roles":
        value = np.append(getattr(terms, column)[1:], [value])
    with pytest.raises(ValueError, match=re.escape(told)):
        dataclasses.replace(terms, **{column: value})
    assert dataclasses.replace(terms, roles=list(terms.roles)).roles == terms.roles


def test_products_of_an_index_that_is_not_of_unit_vectors_are_refused(mixed):
    task, qrels = mixed
    pipeline = calibrated().fit(task, qrels)
    terms, products = retrofit_terms(pipeline, task.corpus), raw_products(task)
    long = {**products, "text": 10 * products["text"]}
    rows = np.tile(np.arange(30), (30, 1))
    for options in ({}, {"rows": rows}):
        with pytest.raises(
            ValueError, match=r"products of 'text' reach .*, which those of unit vectors do not: the index holds"
        ):
            retrofit_scores(long, pipeline, task.queries, terms, **options)
    with pytest.raises(ValueError, match=r"products of 'text' reach .*, which those of unit vectors do not"):
        retrofit_scores({**products, "text": -10 * np.abs(products["text"])}, pipeline, task.queries, terms)
    lacking = np.isnan(task.corpus["text"]).all(axis=1)  # these places are not read
    unread = {**products, "text": np.where(lacking, 1e9, products["text"])}
    expected = retrofit_scores(products, pipeline, task.queries, terms)
    np.testing.assert_array_equal(retrofit_scores(unread, pipeline, task.queries, terms), expected)
    np.testing.assert_array_equal(
        retrofit_scores(long, pipeline, task.queries, terms, rows=np.full((30, 30), -1)), np.full((30, 30), -np.inf)
    )


def test_a_search_that_finds_nothing_leaves_the_others(mixed):
    task, qrels = mixed
    pipeline = calibrated().fit(task, qrels)
    terms, searches = retrofit_terms(pipeline, task.corpus), by_kind(task)
    nothing = {"image": lambda vectors, n: (np.empty((30, 0)), np.empty((30, 0), dtype=int))}
    alone = {"text": searches["text"], "text+image": None}
    expected = retrofit_search({**alone, "image": None}, pipeline, task.queries, terms)
    found = retrofit_search({**alone, **nothing}, pipeline, task.queries, terms)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    rest = {"text": None, "text+image": None}
    scores, rows = retrofit_search({**nothing, **rest}, pipeline, task.queries, terms, k=3)
    assert np.isneginf(scores).all()
    assert (rows == -1).all()


def test_queries_of_two_parts_ask_calibrated(rng):
    task, qrels = make_mixed(rng)
    queries = Items({"query": task.queries["query"], "query_image": unit(rng.normal(size=(30, 16)))})
    task = SearchTask(queries, task.corpus)
    pipeline = calibrated(equalize=True).fit(task, qrels)
    terms = retrofit_terms(pipeline, task.corpus)
    assert terms.query_role is None
    vectors = pipeline.transform(task.queries)
    products = {role: vectors @ unit(task.corpus[role]).T for role in task.corpus}
    scores = retrofit_scores(products, pipeline, queries, terms, asked="calibrated")
    assert_direct(scores, pipeline, task, np.float64)
    with pytest.raises(ValueError, match="these terms are for no role of queries"):
        retrofit_scores(products, pipeline, queries, terms)
    with pytest.raises(ValueError, match=r"query_role='query', but spreads were measured with queries of kind query\+"):
        retrofit_terms(pipeline, task.corpus, query_role="query")
    pipeline = calibrated().fit(task, qrels)
    terms = retrofit_terms(pipeline, task.corpus, query_role="query")
    with pytest.raises(ValueError, match=r"raw queries have the role 'query' alone.* got query, query_image"):
        retrofit_scores(products, pipeline, queries, terms)


def test_the_role_of_queries_needs_a_mean(mixed):
    task, qrels = mixed
    remover = ModalityGapRemover().fit(dict(task.corpus))
    pipeline = make_pipeline(remover, calibrated().fit(task, qrels)[1])
    with pytest.raises(ValueError, match="query_role='query' has no mean; the remover has those of text, image"):
        retrofit_terms(pipeline, task.corpus)
    with pytest.raises(ValueError, match=r"query_role=\['query'\] has no mean"):
        retrofit_terms(pipeline, task.corpus, query_role=["query"])


@pytest.mark.filterwarnings("ignore:rows of zeros", "ignore:too few")
@given(st.data())
def test_the_error_is_that_of_the_products_over_what_is_left_of_both(data):
    """Few dimensions, narrow clusters, copies, three parts, and an index of half precision; all in float64."""
    n, d = data.draw(st.integers(2, 40)), data.draw(st.sampled_from([1, 2, 3, 16]))
    gap, held = data.draw(st.sampled_from([0, 1, 30, 1e3])), data.draw(st.sampled_from([np.float16, np.float64]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    centres = gap * rng.normal(size=(4, 1, d))
    query, *others = (unit(unit(centre + rng.normal(size=(n, d))).astype(held).astype(float)) for centre in centres)
    parts = dict(zip(("text", "image", "audio"), others, strict=True))
    for r, part in enumerate(others):
        part[n // 2 :] = part[: n - n // 2]
        part[(rng.random(n) < 0.5) & (np.arange(n) % 3 != r)] = np.nan
    task = SearchTask(Items({"query": query}), Items(parts))
    options = {"alpha": data.draw(st.sampled_from([0.0, 0.3, 1.0])), "equalize": data.draw(st.booleans()) and gap < 1e3}
    try:
        pipeline = calibrated(**options).fit(task)
    except ValueError:  # no spread where all lie in one point
        assume(False)
    terms = retrofit_terms(pipeline, task.corpus)
    scores = retrofit_scores(raw_products(task), pipeline, task.queries, terms)
    alone = terms.scale == 0
    assert np.isneginf(scores[:, alone]).all()
    vectors, left = pipeline.transform(task), np.linalg.norm(query - pipeline[0].means_["query"], axis=1)
    lengths = np.linalg.norm(vectors.corpus, axis=1)
    error = np.abs(scores - vectors.queries @ vectors.corpus.T) / np.where(lengths > 0, lengths, 1)
    bound = 64 * np.finfo(float).eps * np.outer(1 / np.maximum(left, 1e-16), terms.scale / np.maximum(lengths, 1e-16))
    assert (error <= bound)[:, ~alone][left > 1e-14].all()


def test_queries_at_their_mean_are_warned_of(mixed):
    task, qrels = mixed
    queries = Items({"query": np.tile(task.queries["query"][:1], (30, 1))})
    pipeline = calibrated().fit(SearchTask(queries, task.corpus), qrels)
    terms, products = retrofit_terms(pipeline, task.corpus), raw_products(SearchTask(queries, task.corpus))
    with pytest.warns(UserWarning, match=r"queries without their mean: 30 rows \(0, 1"):
        scores = retrofit_scores(products, pipeline, queries, terms)
    np.testing.assert_array_equal(scores, np.zeros((30, 30)))


def test_a_pipeline_that_was_fitted_with_normalize_off(rng):
    task, qrels = make_mixed(rng)
    pipeline = make_pipeline(ModalityGapRemover(normalize=False), MultimodalFuser()).fit(task, qrels)
    scores = retrofit_scores(raw_products(task), pipeline, task.queries, retrofit_terms(pipeline, task.corpus))
    assert_direct(scores, pipeline, task, np.float64)


def test_terms_are_stored_and_made_again(mixed, tmp_path):
    task, qrels = mixed
    pipeline = calibrated(equalize=True).fit(task, qrels)
    terms = retrofit_terms(pipeline, task.corpus)
    assert terms.kinds.tolist() == task.corpus.kinds.tolist()
    np.savez(tmp_path / "terms.npz", codes=terms.codes, shift=terms.shift, scale=terms.scale)
    with np.load(tmp_path / "terms.npz") as file:
        columns = [file[name] for name in ("codes", "shift", "scale")]
    loaded = RetrofitTerms(terms.roles, terms.query_role, *columns, calibrator=terms.calibrator)
    some = np.array([4, 2, 9])
    products = {role: x[:, some] for role, x in raw_products(task).items()}
    np.testing.assert_allclose(
        retrofit_scores(products, pipeline, task.queries, loaded[some]),
        retrofit_scores(raw_products(task), pipeline, task.queries, terms)[:, some],
        rtol=1e-14,
    )
    assert len(loaded[:7]) == 7


def test_terms_of_another_pipeline_are_refused(mixed, tmp_path):
    task, qrels = mixed
    pipeline = calibrated(equalize=True).fit(task, qrels)
    terms, products = retrofit_terms(pipeline, task.corpus), raw_products(task)
    save_pipeline(pipeline, tmp_path / "p.safetensors")
    again = load_pipeline(tmp_path / "p.safetensors")
    frozen = make_pipeline(FrozenEstimator(pipeline[0]), pipeline[1])
    within = make_pipeline(FrozenEstimator(pipeline))
    scores = retrofit_scores(products, pipeline, task.queries, terms)
    for same in (again, frozen, within):
        np.testing.assert_array_equal(retrofit_scores(products, same, task.queries, terms), scores)
    other = calibrated(equalize=True, alpha=0.4).fit(task, qrels)
    for wrong in (terms, terms[:]):
        with pytest.raises(ValueError, match=r"these terms belong to the pipeline 'grclip@.*', and this is 'grclip@"):
            retrofit_scores(products, other, task.queries, wrong)
    unchecked = dataclasses.replace(terms, calibrator=None)
    assert np.isfinite(retrofit_scores(products, other, task.queries, unchecked)).all()


def by_kind(task, retriever=ExactRetriever):
    """A search of the raw vectors of each kind; documents of both parts are found by the sum of their parts."""
    functions = {}
    for kind in np.unique(task.corpus.kinds):
        rows = np.flatnonzero(task.corpus.kinds == kind)
        parts = {role: unit(task.corpus[role][rows]) for role in kind.split("+")}
        index = retriever(k=1).fit(sum(parts.values()))

        def search(vectors, n, rows=rows, parts=parts, index=index):
            _, found = index.kneighbors(vectors, n)
            products = {role: np.einsum("qd,qkd->qk", vectors, part[found]) for role, part in parts.items()}
            return products if len(parts) > 1 else next(iter(products.values())), rows[found]

        functions[str(kind)] = search
    return functions


@pytest.mark.parametrize("asked", ["raw", "calibrated"])
@pytest.mark.parametrize("retriever", [ExactRetriever, FaissRetriever])
def test_two_stages_come_to_the_exact_ranking(mixed, asked, retriever):
    task, qrels = mixed
    pipeline = calibrated(equalize=True).fit(task, qrels)
    terms, searches = retrofit_terms(pipeline, task.corpus), by_kind(task, retriever)
    exact = ExactRetriever(k=10).fit(pipeline.transform(task)).predict(pipeline.transform(task))
    overlap = []
    for candidates in (1, 3, 10):
        scores, rows = retrofit_search(
            searches, pipeline, task.queries, terms, k=10, candidates=candidates, asked=asked
        )
        assert rows.shape == scores.shape == (30, 10)
        assert (scores[:, :-1] >= scores[:, 1:]).all()
        overlap.append(np.mean([len(set(a) & set(b)) for a, b in zip(rows.tolist(), exact.tolist(), strict=True)]) / 10)
        assert ((rows == -1).sum(axis=1) == max(0, 10 - 3 * candidates)).all()
    np.testing.assert_array_equal(rows, exact)
    assert overlap[0] < overlap[1] <= overlap[2] == 1


def test_queries_are_calibrated_once_for_all_kinds(mixed, monkeypatch):
    task, qrels = mixed
    pipeline = calibrated(equalize=True).fit(task, qrels)
    terms, of, asked = retrofit_terms(pipeline, task.corpus), _retrofit.Asking.of, []
    monkeypatch.setattr(_retrofit.Asking, "of", lambda *given: asked.append(given) or of(*given))
    _, found = retrofit_search(by_kind(task, ExactRetriever), pipeline, task.queries, terms, candidates=30)
    assert len(asked) == 1
    assert len(np.unique(terms.kinds[found])) == 3


def test_two_stages_on_real_embeddings(real_clip):
    """NDCG@10 comes to that of the calibrated vectors as candidates grow; calibrated queries need fewer of them."""
    pipeline = benchmark.fitted("one scale", benchmark.photos(real_clip))
    captions, images = benchmark.flickr(real_clip)
    task = benchmark.mixed(captions, images, 0)
    terms, searches, qrels = retrofit_terms(pipeline, task.corpus), by_kind(task), [{i: 1} for i in range(100)]
    exact = benchmark.scores(pipeline, task).mean()
    found = {
        asked: [
            ndcg_score(qrels, retrofit_search(searches, pipeline, task.queries, terms, candidates=n, asked=asked)[1])
            for n in (1, 3, 10, 34)
        ]
        for asked in ("raw", "calibrated")
    }
    for scores in found.values():
        assert scores[-1] == pytest.approx(exact, abs=1e-12)
        assert scores[-2] == pytest.approx(exact, abs=0.02)
        assert abs(scores[0] - exact) > abs(scores[-1] - exact)


def test_no_kind_of_document_is_left_out_but_on_purpose(mixed):
    task, qrels = mixed
    pipeline = calibrated().fit(task, qrels)
    terms, searches = retrofit_terms(pipeline, task.corpus), by_kind(task)
    message = (
        r"searches lack kinds of documents, which .*: text\+image \(10\); give each a search, or None to leave it out"
    )
    both = searches.pop("text+image")
    with pytest.raises(ValueError, match=message):
        retrofit_search(searches, pipeline, task.queries, terms)
    with pytest.raises(ValueError, match=r": image \(10\), text\+image \(10\); give each"):
        retrofit_search({"text": searches["text"]}, pipeline, task.queries, terms)
    _, rows = retrofit_search({**searches, "text+image": None}, pipeline, task.queries, terms, k=30)
    assert sorted(set(terms.kinds[rows[rows >= 0]])) == ["image", "text"]
    expected = retrofit_search({**searches, "text+image": both}, pipeline, task.queries, terms)
    found = retrofit_search({**searches, "image+text": both}, pipeline, task.queries, terms)  # as Qdrant names it
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match=r"searches name one kind twice: 'text\+image' and 'image\+text'"):
        retrofit_search({**searches, "text+image": both, "image+text": both}, pipeline, task.queries, terms)


def test_a_role_may_have_the_name_of_a_kind(rng):
    """As of parts that an encoder took together; beside the parts alone, two kinds have one name and one search."""
    query, *parts = unit(rng.normal(size=(4, 12, 16)))
    for r, part in enumerate(parts):
        part[np.arange(12) % 2 == (r > 0)] = np.nan
    names = ("text+image", "text", "image")
    task = SearchTask(Items({"query": query}), Items(dict(zip(names, parts, strict=True))))
    pipeline = calibrated().fit(task)
    terms, products = retrofit_terms(pipeline, task.corpus), raw_products(task)
    assert set(terms.kinds) == {"text+image"}
    asked = {"image+text": lambda vectors, n: (products, np.tile(np.arange(12), (12, 1)))}
    scores, rows = retrofit_search(asked, pipeline, task.queries, terms, k=12)
    expected = retrofit_scores(products, pipeline, task.queries, terms)
    np.testing.assert_array_equal(scores, -np.sort(-expected, axis=1))
    assert (np.sort(rows, axis=1) == np.arange(12)).all()


def test_tensors_in_tensors_out(mixed):
    task, qrels = mixed
    pipeline = calibrated().fit(task, qrels)
    given = SearchTask(
        *(Items({role: torch.from_numpy(x) for role, x in side.items()}) for side in (task.queries, task.corpus))
    )
    before = given.queries["query"].clone()
    terms = retrofit_terms(pipeline, given.corpus)
    kinds = by_kind(task)

    def with_tensors(search):
        def ask(vectors, n):
            assert isinstance(vectors, torch.Tensor)
            products, rows = search(vectors.numpy(), n)
            if isinstance(products, dict):
                return {role: torch.from_numpy(x) for role, x in products.items()}, torch.from_numpy(rows)
            return torch.from_numpy(products), torch.from_numpy(rows)

        return ask

    asked = {kind: with_tensors(search) for kind, search in kinds.items()}
    scores, rows = retrofit_search(asked, pipeline, given.queries, terms, candidates=5)
    assert isinstance(scores, torch.Tensor)
    expected = retrofit_search(kinds, pipeline, task.queries, terms, candidates=5)
    np.testing.assert_array_equal(rows, expected[1])
    np.testing.assert_allclose(scores, expected[0])
    assert torch.equal(given.queries["query"], before)


def test_wrong_products(mixed):
    task, qrels = mixed
    pipeline = calibrated().fit(task, qrels)
    terms, products = retrofit_terms(pipeline, task.corpus), raw_products(task)

    def scores(products, **options):
        return retrofit_scores(products, pipeline, task.queries, terms, **options)

    with pytest.raises(ValueError, match="documents have several parts: products must be a dict with those of text"):
        scores(products["text"])
    with pytest.raises(ValueError, match="products are by role, here text, image; got those of text"):
        scores({"text": products["text"]})
    with pytest.raises(ValueError, match="got those of text, image, sound"):
        scores({**products, "sound": products["text"]})
    with pytest.raises(ValueError, match=r"products of 'image' have shape \(30, 29\); expected \(30, 30\)"):
        scores({**products, "image": products["image"][:, :29]})
    with pytest.raises(TypeError, match="products of 'image' has dtype int64"):
        scores({**products, "image": np.ones((30, 30), dtype=int)})
    for broken in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match=r"products of 'text': NaN or inf in 1 row \(3\)"):
            scores({**products, "text": np.where(np.arange(30)[:, None] == 3, broken, products["text"])})
    with pytest.raises(ValueError, match=r"rows must be integers of shape \(30, n_candidates\)"):
        scores(products, rows=np.zeros(30))
    with pytest.raises(ValueError, match="rows go from 0 to 30; terms have 30 rows"):
        scores(products, rows=np.tile(np.arange(31), (30, 1)))
    with pytest.raises(ValueError, match="rows go from -2 to -2"):
        scores(products, rows=np.full((30, 30), -2))
    with pytest.raises(ValueError, match="asked must be 'raw' or 'calibrated'; got 'centred'"):
        scores(products, asked="centred")


def test_other_wrong_input(mixed, rng):
    task, qrels = mixed
    pipeline = calibrated(equalize=True).fit(task, qrels)
    terms = retrofit_terms(pipeline, task.corpus)
    with pytest.raises(TypeError, match="pipeline must be a Pipeline with one ModalityGapRemover and, after it, one"):
        retrofit_terms(make_pipeline(MultimodalFuser()).fit(task), task.corpus)
    with pytest.raises(TypeError, match="pipeline must be a Pipeline"):
        retrofit_terms(ModalityGapRemover().fit(task), task.corpus)
    with pytest.raises(NotFittedError):
        retrofit_terms(calibrated(), task.corpus)
    with pytest.raises(TypeError, match="items must be Items: documents by role, as they were indexed; got ndarray"):
        retrofit_terms(pipeline, task.corpus["text"])
    with pytest.raises(TypeError, match="queries must be Items: raw vectors by role; got ndarray"):
        retrofit_scores(raw_products(task), pipeline, task.queries["query"], terms)
    with pytest.raises(
        ValueError, match="query_role='sketch' has no mean; the remover has those of query, text, image"
    ):
        retrofit_terms(pipeline, task.corpus, query_role="sketch")
    with pytest.raises(ValueError, match="no mean was learned for role 'title'"):
        retrofit_terms(pipeline, Items({"title": task.corpus["text"]}))
    with pytest.raises(ValueError, match=r"no part at all in 1 row \(0\)"):
        retrofit_terms(pipeline, Items({"text": np.full((1, 16), np.nan), "image": np.full((1, 16), np.nan)}))
    with pytest.raises(ValueError, match=r"role 'text': NaN beside numbers in 1 row \(0\)"):
        retrofit_terms(pipeline, Items({"text": np.array([[np.nan] + [1.0] * 15])}))
    with pytest.raises(ValueError, match="role 'text' has 3 features"):
        retrofit_terms(pipeline, Items({"text": np.eye(3)}))
    with pytest.raises(ValueError, match="codes, shift and scale have a value for each document"):
        RetrofitTerms(("text",), None, np.ones(2, dtype=int), np.ones(3), np.ones(2))
    other = ModalityGapRemover().fit(Items(dict(task.queries) | dict(task.corpus), encoder="a"))
    named = make_pipeline(other, MultimodalFuser().fit(task))
    with pytest.raises(ValueError, match="was fitted on vectors of encoder 'a', but these come from 'b'"):
        retrofit_terms(named, Items(task.corpus, encoder="b"))


def test_wrong_searches(mixed):
    task, qrels = mixed
    pipeline = calibrated().fit(task, qrels)
    terms, searches = retrofit_terms(pipeline, task.corpus), by_kind(task)

    def search(some, **options):
        given = some if callable(some) else {**dict.fromkeys(searches), **some}
        return retrofit_search(given, pipeline, task.queries, terms, **options)

    assert (search({"text": lambda v, n: ([[]] * 30, [[]] * 30)})[1] == -1).all()
    of_kinds = {kind: lambda v, n: None for kind in np.unique(terms.kinds)}
    with pytest.raises(TypeError, match="the search of kind 'image' must return products and rows; got NoneType"):
        retrofit_search(of_kinds, pipeline, task.queries, terms)
    with pytest.raises(ValueError, match="searches leave out every kind of document"):
        search({})
    with pytest.raises(
        TypeError, match=r"the search of kind 'text' must be a function search\(vectors, n\); got array"
    ):
        search({"text": np.eye(3)})
    with pytest.raises(ValueError, match=r"searches name the kind 'audio', but documents are image, text, text.image"):
        search({"audio": searches["text"]})
    with pytest.raises(
        ValueError, match=r"the search of kind 'text' returned 10 rows .*of kind 'image'; return rows of"
    ):
        search({"text": searches["image"]})
    with pytest.raises(ValueError, match="the search of kind 'text' returned a document twice for query 0"):
        search({"text": lambda v, n: (np.ones((30, 2)), np.zeros((30, 2), dtype=int) + 0)})
    with pytest.raises(TypeError, match="searches must be a dict with a function for each kind of document; got <func"):
        search(searches["text"])
    with pytest.raises(TypeError, match="the search of kind 'text' must return products and rows; got ndarray"):
        search({"text": lambda v, n: np.zeros((30, 2), dtype=int)})
    with pytest.raises(ValueError, match=r"must be integers of shape \(30, n_candidates\), rows of the terms; got <U1"):
        search({"text": lambda v, n: (np.ones((30, 2)), np.full((30, 2), "a"))})
    with pytest.raises(ValueError, match="are not as many for each query: fill up with -1, and products with 0"):
        search({"text": lambda v, n: (np.ones((30, 2)), [[0, 3], [6]] * 15)})
    with pytest.raises(ValueError, match=r"rows of the search of kind 'text' must be integers of shape \(30, n_cand"):
        search({"text": lambda v, n: (np.ones(3), np.arange(3))})
    with pytest.raises(ValueError, match="rows of the search of kind 'text' go from 0 to 30; terms have 30 rows"):
        search({"text": lambda v, n: (np.ones((30, 31)), np.tile(np.arange(31), (30, 1)))})
    with pytest.raises(ValueError, match="candidates must be a whole number of at least 1; got 0"):
        search(searches, candidates=0)
    with pytest.raises(ValueError, match="k must be a whole number of at least 1; got 0"):
        search(searches, k=0)


def test_the_benchmark_comes_to_the_exact_ranking(real_clip, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(two_stages, "CANDIDATES", (1, 30))
    assert two_stages.main(["--documents", "200", "--json", str(tmp_path / "r.json")]) == 0
    rows = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert len(rows) == 3 * 2 * 7
    exact = {(row["corpus"], row["method"]): row["ndcg"] for row in rows if row["asked"] == "exact"}
    for row in rows:
        if row["candidates"] is not None and row["candidates"] > 30:
            assert row["overlap"] > 0.999
            assert row["ndcg"] == pytest.approx(exact[row["corpus"], row["method"]], abs=1e-3)
        if row["candidates"] == 1:
            assert row["overlap"] < 0.5
    assert capsys.readouterr().out.count("| candidates a kind | 1 | 30 | all |") == 6
