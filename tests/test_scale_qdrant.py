"""QdrantRetriever on real Qdrants: embedded in memory and in a folder, and over HTTP with faults."""

import datetime
import pickle
import re
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pandas as pd
import pytest
import qdrant_client
import qdrant_rest
import torch
from conftest import make_mixed, unit
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from qdrant_grpc import GrpcServer
from qdrant_rest import Server
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline

from benchmarks import qdrant as benchmark
from grclip import (
    ExactRetriever,
    Items,
    ModalityGapRemover,
    MultimodalFuser,
    SearchTask,
    load_pipeline,
    pipeline_fingerprint,
    save_pipeline,
)
from grclip.metrics import ndcg_score, retrieval_scorer
from grclip.scale import _qdrant_points, qdrant
from grclip.scale.qdrant import QdrantRetriever

ONE_SCALE = (ModalityGapRemover(), MultimodalFuser(equalize=True))


@pytest.fixture
def fused(mixed) -> Pipeline:
    """What makes vectors of the documents of `mixed`."""
    return make_pipeline(*map(clone, ONE_SCALE)).fit(*mixed)


@pytest.fixture
def task(mixed) -> SearchTask:
    return mixed[0]


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def over_http(server, fused):
    """A retriever that waits for hundredths of seconds where others wait for seconds."""
    retriever = QdrantRetriever(server.url, "scenes", fused, batch_size=8, backoff=0.01)
    yield retriever
    retriever.close()


def exact(pipeline, task, k=10):
    vectors = pipeline.transform(task)
    return ExactRetriever(k=k).fit(vectors).kneighbors(vectors.queries)


def count(retriever):
    return retriever.client.count(retriever.collection).count


def points_of(retriever):
    """Everything that the collection holds, by id."""
    some, _ = retriever.client.scroll(retriever.collection, limit=10_000, with_vectors=True)
    return {point.id: (point.vector, point.payload) for point in some}


# What is found


def test_rows_and_similarities_are_those_of_exact_search(task, fused):
    similarities, rows = QdrantRetriever(pipeline=fused).fit(task).kneighbors(task.queries)
    expected, expected_rows = exact(fused, task)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(similarities, expected, rtol=1e-5, atol=1e-6)
    assert (rows.dtype, similarities.dtype) == (np.int64, expected.dtype)


def test_as_the_last_step_of_a_pipeline_it_takes_what_the_steps_before_have_fused(mixed, fused):
    task, qrels = mixed
    alone = QdrantRetriever(pipeline=fused).fit(task).predict(task.queries)
    last = Pipeline([*fused.steps, ("search", QdrantRetriever())]).fit(task, qrels)
    np.testing.assert_array_equal(last.predict(task.queries), alone)
    np.testing.assert_array_equal(last.predict(task), alone)
    named = Pipeline([*fused.steps, ("search", QdrantRetriever(pipeline=fused))])
    named["search"].fit(fused.transform(task))
    np.testing.assert_array_equal(named.predict(task), alone)
    metadata = named["search"].client.get_collection("grclip").config.metadata["grclip"]
    assert metadata == {"schema_version": 1, "encoder": None, "calibrator": pipeline_fingerprint(fused)}


def test_ids_and_payload_reach_it_through_a_pipeline(mixed, fused):
    task, qrels = mixed
    pipeline = Pipeline([*fused.steps, ("search", QdrantRetriever(k=1))])
    fields = [{"even": i % 2 == 0} for i in range(30)]
    pipeline.fit(task, qrels, search__ids=[f"d{i}" for i in range(30)], search__payload=fields)
    queries = fused.transform(task.queries)
    found = pipeline["search"].kneighbors(queries, filter={"even": True})[1].ravel()
    assert {int(name[1:]) % 2 for name in found} == {0}


def test_cross_validation_scores_it_as_exact_search(mixed):
    scorer = retrieval_scorer("ndcg", k=10)
    scores = [
        cross_val_score(make_pipeline(*map(clone, ONE_SCALE), search), *mixed, scoring=scorer, cv=3)
        for search in (ExactRetriever(), QdrantRetriever())
    ]
    np.testing.assert_array_equal(*scores)


def test_rows_on_real_clip_are_those_of_exact_search(real_clip):
    found = benchmark.agreements(real_clip, trials=2)
    assert {name: one.places for name, one in found.items()} == {
        "Flickr8k, means removed": 2000,
        "Flickr8k, one scale": 2000,
        "photos290, one scale": 2900,
        "COCO, one scale": 5000,
        "design patents, one scale": 10_000,
    }
    for name, (places, same, apart) in found.items():
        assert (same, apart) == (places, 0), name


def test_the_benchmark_prints_its_tables(real_clip, capsys):
    benchmark.main(["--documents", "300", "--in-folder", "10", "--trials", "1", "--threads", "1"])
    printed = capsys.readouterr().out
    assert printed.count("| Flickr8k, ") == 2
    assert printed.count("| Qdrant in ") == 2


def test_equal_documents_are_ordered_by_row():
    distinct = np.eye(4, dtype=np.float32)
    corpus = distinct[[2, 0, 1, 0, 0, 3, 0, 2, 0, 0]]
    retriever = QdrantRetriever(k=3).fit(corpus)
    np.testing.assert_array_equal(retriever.predict(distinct[:1]), [[1, 3, 4]])
    np.testing.assert_array_equal(retriever.predict(distinct), ExactRetriever(k=3).fit(corpus).predict(distinct))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_documents_are_ordered_by_row_whatever_their_place_adds_to_their_products(dtype, rng):
    """Sums over the same vector end in other bits in other rows of a matrix."""
    for d in (37, 512):
        distinct = unit(rng.normal(size=(70, d))).astype(dtype)
        corpus = np.concatenate([distinct] * 3)[rng.permutation(210)]
        queries = unit(rng.normal(size=(60, d))).astype(dtype)
        found = QdrantRetriever().fit(corpus).predict(queries)
        np.testing.assert_array_equal(found, ExactRetriever().fit(corpus).predict(queries))


def test_similarities_that_are_returned_as_equal_are_ordered_by_row():
    nearly = np.array([[1, 2**-30], [1, 2**-29], [1, 0]], dtype=np.float32)
    similarities, rows = QdrantRetriever(k=3).fit(nearly).kneighbors(np.ones((1, 2), dtype=np.float32))
    assert (similarities.tolist(), rows.tolist()) == ([[1, 1, 1]], [[0, 1, 2]])


def test_tensors_in_tensors_out(task, fused):
    vectors = fused.transform(task)
    retriever = QdrantRetriever().fit(torch.from_numpy(np.asarray(vectors.corpus)))
    similarities, rows = retriever.kneighbors(torch.from_numpy(np.asarray(vectors.queries)))
    assert isinstance(similarities, torch.Tensor)
    np.testing.assert_array_equal(rows.numpy(), exact(fused, task)[1])
    named = QdrantRetriever(k=1).fit(torch.eye(2), ids=["a", "b"])
    assert named.predict(torch.eye(2)).tolist() == [["a"], ["b"]]


def test_many_queries_are_asked_in_several_requests(over_http, server, task, fused):
    over_http.fit(task)
    queries = task.queries[np.arange(150) % len(task)]
    server.asked.clear()
    found = over_http.predict(queries)
    assert server.asked.count(("POST", "/collections/scenes/points/query/batch")) == 3
    np.testing.assert_array_equal(found, exact(fused, task)[1][np.arange(150) % len(task)])


# Arrays, which do not know what made them


@pytest.fixture
def wide(rng):
    """A task of as many numbers a vector as raw ones are told by."""
    return make_mixed(rng, d=128, dtype=np.float32)


def test_raw_arrays_are_no_documents_of_a_pipeline_that_gives_lengths(task, fused):
    text = np.asarray(task.corpus["text"])
    raw = text[np.isfinite(text[:, 0])].astype(np.float32)
    lengths = ", ".join(f"{length:.4g}" for length in sorted(1 / spread for spread in fused[-1].spread_.values()))
    retriever = QdrantRetriever(pipeline=fused)
    told = rf"corpus: length 1, where the pipeline makes {lengths}, in 20 rows .*Items\({{'image': ..., 'text': ...}}\)"
    for X in (raw, torch.from_numpy(raw), raw.astype(np.float16)):
        for call in (retriever.fit, lambda X: retriever.add(X, range(20))):
            with pytest.raises(ValueError, match=told):
                call(X)
    one_raw = np.asarray(fused.transform(task.corpus)).copy()
    one_raw[7] = raw[0]
    with pytest.raises(ValueError, match=r"in 1 row \(7\); an array is taken as fused by this very pipeline"):
        retriever.fit(one_raw)
    assert not retriever.client.collection_exists("grclip")


def test_arrays_that_are_not_normalised_are_told_by_any_fuser(task, mixed):
    pipeline = make_pipeline(ModalityGapRemover(), MultimodalFuser()).fit(task)
    retriever = QdrantRetriever(pipeline=pipeline).fit(task)
    for call in (retriever.fit, retriever.predict):
        with pytest.raises(ValueError, match="length 7, where the pipeline makes 1, in 30 rows"):
            call(7 * np.asarray(task.queries["query"]))
    with pytest.raises(ValueError, match="corpus: 5 features, where the pipeline makes vectors of 16"):
        QdrantRetriever(pipeline=pipeline).fit(np.eye(5))


@pytest.mark.parametrize("equalize", [False, True])
def test_raw_unit_rows_are_told_by_their_directions(equalize, wide):
    task, qrels = wide
    pipeline = make_pipeline(ModalityGapRemover(), MultimodalFuser(equalize=equalize)).fit(task, qrels)
    retriever = QdrantRetriever(pipeline=pipeline).fit(task)
    raw = np.asarray(task.queries["query"])
    told = "queries: half of the rows or more lie along a mean that the pipeline subtracts, .*'query': "
    for some in (raw, raw[:1]):
        with pytest.warns(UserWarning, match=told):
            retriever.predict(some)
    if not equalize:
        image = np.asarray(task.corpus["image"])
        with pytest.warns(UserWarning, match="corpus: half of the rows or more lie along a mean"):
            QdrantRetriever(pipeline=pipeline).fit(image[np.isfinite(image[:, 0])])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("equalize", [False, True])
def test_fused_arrays_pass_and_so_do_documents_that_others_are_to_be_like(equalize, dtype, wide):
    task, qrels = wide
    pipeline = make_pipeline(ModalityGapRemover(), MultimodalFuser(equalize=equalize)).fit(task, qrels)
    vectors = pipeline.transform(task)
    queries, corpus = (np.asarray(side).astype(dtype) for side in (vectors.queries, vectors.corpus))
    retriever = QdrantRetriever(pipeline=pipeline, k=3).fit(corpus)
    np.testing.assert_array_equal(retriever.predict(queries)[:, 0], retriever.predict(task.queries)[:, 0])
    for row in range(30):
        retriever.predict(queries[row : row + 1])
    assert (retriever.predict(corpus) == np.arange(30)[:, None]).any(axis=1).all()


# What is stored


@pytest.mark.parametrize("large", ["vectors", "payload"])
def test_a_request_is_no_larger_than_a_server_takes(large, over_http, server, rng):
    n, width, text = (40, 40_000, "") if large == "vectors" else (36, 2, "x" * 2**20)
    vectors = unit(rng.normal(size=(n, width))).astype(np.float32)
    over_http.set_params(pipeline=None, batch_size=n, retries=0, k=1)
    over_http.add(vectors, range(n), payload=[{"text": text}] * n)
    assert count(over_http) == n
    assert server.asked.count(("PUT", "/collections/scenes/points")) == 3
    assert over_http.predict(vectors).shape == (n, 1)


def test_points_hold_vector_kind_and_payload(task, fused):
    payload = [{"brand": "AB"[i % 2], "price": i} for i in range(len(task.corpus))]
    retriever = QdrantRetriever(pipeline=fused).add(task.corpus, range(30), payload=payload)
    vectors = np.asarray(fused.transform(task.corpus), dtype=np.float32)
    points = points_of(retriever)
    assert list(points) == list(range(30))
    for row, (vector, stored) in points.items():
        assert vector == vectors[row].tolist()
        kind = {"text+image": "image+text"}.get(task.corpus.kinds[row], task.corpus.kinds[row])
        assert stored == {**payload[row], "kind": kind}
    assert {stored["kind"] for _, stored in points.values()} == {"text", "image", "image+text"}
    assert payload[0] == {"brand": "A", "price": 0}, "what the user gave is left as it was"
    assert retriever.n_features_in_ == vectors.shape[1]


@pytest.mark.parametrize("place", ["memory", "folder", "http"])
def test_storing_again_changes_nothing(place, task, fused, tmp_path, server):
    where = {"memory": ":memory:", "folder": tmp_path, "http": server.url}[place]
    retriever = QdrantRetriever(where, pipeline=fused, batch_size=7).add(task.corpus, range(30))
    before = points_of(retriever)
    for _ in range(2):
        retriever.add(task.corpus, range(30)).add(task.corpus[:10], range(10))
        retriever.fit(task)
    assert points_of(retriever) == before
    assert count(retriever) == len(task.corpus)
    retriever.close()


def test_ids_of_all_sorts_come_back_as_they_were_given():
    known = uuid.UUID(int=7)
    ids = [3, np.int64(5), known, str(uuid.UUID(int=8)), "shoe-17", "Ünïcode 👟", str(uuid.UUID(int=9)).upper() + "X"]
    retriever = QdrantRetriever(k=1).fit(np.eye(7), ids=ids)
    found = retriever.predict(np.eye(7))
    assert found.dtype == object
    assert found.ravel().tolist() == [3, 5, str(known), *ids[3:]]
    again = QdrantRetriever(retriever.client).add(np.eye(7), ids=ids)
    assert count(again) == 7
    assert retriever.predict(np.eye(7)[:2]).dtype == np.int64


def test_names_in_a_folder_are_those_that_are_there_when_it_is_opened_again(tmp_path):
    ids = ["shoe-17", str(uuid.UUID(int=8)), 3, "3", 2**63]
    for _ in range(2):
        retriever = QdrantRetriever(tmp_path, k=1, batch_size=2).fit(np.eye(5), ids=ids).add(np.eye(5)[::-1], ids[::-1])
        assert count(retriever) == 5
        assert retriever.predict(np.eye(5)).ravel().tolist() == ids
        retriever.close()


def test_ids_beyond_int64_are_kept():
    retriever = QdrantRetriever(k=1).fit(np.eye(2), ids=[2**64 - 1, 0])
    assert retriever.predict(np.eye(2)).tolist() == [[2**64 - 1], [0]]


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([0, 1], ValueError, "ids has 2 entries, but there are 3 documents"),
        ([4, 4, 5], ValueError, r"ids occur twice, again in 1 row \(1\)"),
        ([0, 1, -1], ValueError, "-1 is no id"),
        ([0, 1, 2**64], ValueError, "is no id"),
        ([0, 1, True], ValueError, "True is no id"),
        ([0, 1, 2.0], ValueError, "2.0 is no id"),
        ([0, 1, ""], ValueError, "'' is no id"),
        ([0, 1, "\ud800"], ValueError, r"'\\ud800' is no id"),
        ("abc", TypeError, "ids must be a list"),
        (b"abc", TypeError, "ids must be a list"),
        ({"a", "b", "c"}, TypeError, "ids must be a list .*; got set"),
        (3, TypeError, "ids must be a list"),
    ],
)
def test_ids_that_are_none_are_errors_before_anything_is_stored(ids, error, message):
    retriever = QdrantRetriever()
    with pytest.raises(error, match=message):
        retriever.add(np.eye(3), ids=ids)
    assert not retriever.client.collection_exists("grclip")


@pytest.mark.parametrize(
    ("payload", "error", "message"),
    [
        ([{}], ValueError, "payload has 1 entries, but there are 30 documents"),
        ({"brand": ["A"] * 30}, TypeError, "payload must be a list with one dict a document; got dict"),
        (pd.DataFrame({"brand": ["A"] * 30}), TypeError, r"got DataFrame; give payload.to_dict\('records'\)"),
        ([{}] * 29 + ["A"], TypeError, r"payload\[29\] is 'A'"),
        ([{}] * 3 + [{"kind": 1}] + [{}] * 26, ValueError, r"payload\[3\] has the field 'kind'"),
        ([{"grclip_id": 1}] * 30, ValueError, r"payload\[0\] has the field 'grclip_id'"),
        (
            [{}] * 29 + [{"made": object()}],
            TypeError,
            r"payload\[29\]\['made'\]: object is not JSON serializable; give",
        ),
        (
            [{}] * 29 + [{"at": np.datetime64("nat")}],
            TypeError,
            r"payload\[29\]\['at'\]: datetime64 is not JSON",
        ),
        ([{}] * 29 + [{"for": np.timedelta64(3, "ns")}], TypeError, r"payload\[29\]\['for'\]: timedelta64 is not JSON"),
        (
            [{}] * 29 + [{"price": float("nan")}],
            ValueError,
            r"payload\[29\]\['price'\]: .* not JSON .*None \(for NaN",
        ),
        ([{}] * 29 + [{"name": "\ud800"}], ValueError, r"payload\[29\]\['name'\]: .*surrogates not allowed"),
        ([{}] * 29 + [{(1, 2): 3}], TypeError, r"payload\[29\]\[\(1, 2\)\]: keys must be str"),
        ([{}] * 29 + [{"in": {1: "a", "1": "b"}}], ValueError, r"payload\[29\]: two fields have the name '1'"),
    ],
)
def test_payloads_that_do_not_fit_are_errors_before_anything_is_stored(payload, error, message, task, fused):
    retriever = QdrantRetriever(pipeline=fused, batch_size=5)
    with pytest.raises(error, match=message):
        retriever.add(task.corpus, range(30), payload=payload)
    assert not retriever.client.collection_exists("grclip")


@pytest.mark.parametrize("place", ["memory", "http"])
def test_payloads_of_numpy_dates_and_uuids_are_stored_as_json_has_them(place, server):
    retriever = QdrantRetriever({"memory": ":memory:", "http": server.url}[place], k=1)
    day, name = datetime.date(2024, 2, 29), uuid.UUID(int=3)
    fields = {"n": np.int64(3), "x": np.float32(0.5), "list": np.arange(2), "day": day, "id": name, "in": {"a": [None]}}
    fields |= {"at": np.datetime64("2024-02-29T12:00:00", "ns"), "days": np.array(["2024-02-29"], dtype="M8[D]")}
    retriever.fit(np.eye(2), payload=[fields, {"n": np.int64(4)}])
    told = {"n": 3, "x": 0.5, "list": [0, 1], "day": "2024-02-29", "id": str(name), "in": {"a": [None]}}
    told |= {"at": "2024-02-29T12:00:00", "days": ["2024-02-29"]}
    assert [payload for _, payload in points_of(retriever).values()] == [told, {"n": 4}]
    for given in (np.int64(4), [np.int64(4), 5], np.array([4]), np.array(4)):
        assert retriever.kneighbors(np.eye(2), filter={"n": given})[1].tolist() == [[1], [1]]
    for field in ("day", "id", "at", "days"):
        for given in (fields[field], [fields[field], "else"] if field != "days" else list(fields[field])):
            assert retriever.kneighbors(np.eye(2), filter={field: given})[1].tolist() == [[0], [0]]
    retriever.close()


def test_arrays_have_no_kind_and_leave_that_field_to_the_user():
    retriever = QdrantRetriever(k=1).fit(np.eye(2), payload=[{"kind": "shoe"}, {"kind": "hat"}])
    assert retriever.kneighbors(np.eye(2), filter={"kind": "hat"})[1].tolist() == [[1], [1]]


def test_kinds_that_the_user_labelled_arrays_with_are_found_as_they_are(task, fused):
    payload = [{"kind": kind} for kind in task.corpus.kinds]
    retriever = QdrantRetriever(k=1).fit(fused.transform(task), payload=payload)
    assert "text+image" in task.corpus.kinds
    for kind in set(task.corpus.kinds):
        _, rows = retriever.kneighbors(fused.transform(task.queries), filter={"kind": kind})
        assert set(task.corpus.kinds[rows.ravel()]) == {kind}
    _, rows = retriever.kneighbors(fused.transform(task.queries), filter={"kind": "image+text"})
    assert set(task.corpus.kinds[rows.ravel()]) == {"text+image"}
    numbers = QdrantRetriever(k=1).fit(np.eye(2), payload=[{"kind": 3}, {"kind": 4}])
    assert numbers.kneighbors(np.eye(2), filter={"kind": 4})[1].tolist() == [[1], [1]]


def test_a_corpus_in_blocks_is_stored_as_in_one(task, fused, monkeypatch):
    whole = points_of(QdrantRetriever(pipeline=fused).fit(task))
    monkeypatch.setattr(qdrant, "_BLOCK", 7)
    assert points_of(QdrantRetriever(pipeline=fused, batch_size=4).fit(task)) == whole


def test_warnings_about_parts_of_a_large_corpus_come_once(task, fused, monkeypatch):
    monkeypatch.setattr(qdrant, "_BLOCK", 10)
    text, image = (np.array(task.corpus[role]) for role in ("text", "image"))
    both = np.flatnonzero(task.corpus.kinds == "text+image")
    text[both[both >= 10][0]] = 0
    with pytest.warns(UserWarning, match="rows of zeros") as caught:
        QdrantRetriever(pipeline=fused).fit(Items({"text": text, "image": image}))
    assert len(caught) == 1


def test_a_progress_bar_counts_documents(task, fused, capsys):
    QdrantRetriever(pipeline=fused, progress=True).fit(task)
    assert "30/30" in capsys.readouterr().err
    QdrantRetriever(pipeline=fused).fit(task)
    assert capsys.readouterr().err == ""


# Filters


def test_filters_leave_what_they_say(task, fused):
    payload = [{"brand": "AB"[i % 2], "new": i < 15, "size": i % 3} for i in range(30)]
    retriever = QdrantRetriever(pipeline=fused, k=3).fit(task, payload=payload)
    kinds, row = task.corpus.kinds, np.arange(30)
    numbers = models.Filter(must=[models.FieldCondition(key="size", range=models.Range(gte=1))])
    for given, kept in [
        ({"brand": "A"}, row % 2 == 0),
        ({"brand": "A", "new": True}, (row % 2 == 0) & (row < 15)),
        ({"size": [0, 2]}, row % 3 != 1),
        ({"size": 1}, row % 3 == 1),
        ({"kind": "image"}, kinds == "image"),
        ({"kind": "text+image"}, kinds == "text+image"),
        ({"kind": ("text", "image")}, kinds != "text+image"),
        (numbers, row % 3 >= 1),
        ({}, row >= 0),
        (None, row >= 0),
    ]:
        vectors = fused.transform(task)
        expected = np.flatnonzero(kept)[ExactRetriever(3).fit(vectors.corpus[kept]).predict(vectors.queries)]
        np.testing.assert_array_equal(retriever.kneighbors(task.queries, filter=given)[1], expected)


@pytest.mark.parametrize("place", ["memory", "http"])
def test_places_for_which_a_filter_leaves_nothing_come_last(place, mixed, fused, server):
    task, qrels = mixed
    where = {"memory": ":memory:", "http": server.url}[place]
    retriever = QdrantRetriever(where, pipeline=fused).fit(task, payload=[{"row": i} for i in range(30)])
    similarities, rows = retriever.kneighbors(task.queries, k=3, filter={"row": [4, 5]})
    assert (rows.dtype, similarities.dtype) == (np.int64, np.float64)
    np.testing.assert_array_equal(np.sort(rows), [[-1, 4, 5]] * 30)
    np.testing.assert_array_equal(rows[:, 2], -1)
    np.testing.assert_array_equal(similarities == -np.inf, rows == -1)
    assert ndcg_score(qrels, rows, k=3, per_query=True)[6] == 0
    similarities, rows = retriever.kneighbors(task.queries, k=50, filter={"row": 99})
    assert (rows == -1).all()
    assert (similarities == -np.inf).all()
    assert (retriever.kneighbors(task.queries, k=31, filter={})[1][:, 30:] == -1).all()
    with pytest.raises(ValueError, match="k=31 is larger than collection 'grclip', 30 documents"):
        retriever.kneighbors(task.queries, k=31)
    retriever.close()


def test_no_document_is_minus_one_among_names_too():
    retriever = QdrantRetriever(k=2).fit(torch.eye(3), ids=["a", "b", "c"], payload=[{"n": i} for i in range(3)])
    similarities, names = retriever.kneighbors(torch.eye(3), filter={"n": 1})
    assert names.tolist() == [["b", -1]] * 3
    assert similarities[:, 1].tolist() == [-np.inf] * 3
    assert retriever.kneighbors(torch.eye(3), filter={"n": 7})[1].tolist() == [[-1, -1]] * 3


def test_whole_numbers_match_whole_numbers_and_ranges_all():
    retriever = QdrantRetriever(k=2).fit(np.eye(2), payload=[{"price": 3}, {"price": 3.0}])
    assert retriever.kneighbors(np.eye(2)[1:], filter={"price": 3})[1].tolist() == [[0, -1]]
    three = models.FieldCondition(key="price", range=models.Range(gte=3, lte=3))
    assert retriever.kneighbors(np.eye(2)[1:], filter=models.Filter(must=[three]))[1].tolist() == [[1, 0]]


@pytest.mark.parametrize("place", ["memory", "http"])
def test_fields_of_any_name_are_found(place, server):
    names = ["plain_1-a", "price (EUR)", "Größe", "a b", "a[0", "?", "über/unter"]
    retriever = QdrantRetriever({"memory": ":memory:", "http": server.url}[place], k=1)
    retriever.fit(np.eye(2), payload=[dict.fromkeys(names, row) | {"in": {"a b": row}, "c.d": row} for row in range(2)])
    for name in [*names, 'in."a b"', '"c.d"']:
        assert retriever.kneighbors(np.eye(2), filter={name: 1})[1].tolist() == [[1], [1]]
    for name in ('a"b', "a\\b "):
        with pytest.raises(TypeError, match=r"filter has the field .*; Qdrant finds no field with a quote or"):
            retriever.kneighbors(np.eye(2), filter={name: 1})
    retriever.close()


@pytest.mark.parametrize(
    "given",
    [
        *({"a": value} for value in (0.5, None, [], {"b": 1}, [1, "b"], [True, False], [1, True])),
        *("a", [("a", 1)], {1: "a"}, {"": "a"}, {"a": np.datetime64("nat")}),
    ],
)
def test_filters_that_are_none_are_errors(given):
    with pytest.raises(TypeError, match="filter"):
        QdrantRetriever(k=1).fit(np.eye(2)).kneighbors(np.eye(2), filter=given)


# Fingerprints, distances and widths


def other_calibrator(task, qrels):
    return make_pipeline(ModalityGapRemover(), MultimodalFuser(alpha=0.9)).fit(task, qrels)


@pytest.mark.parametrize("place", ["folder", "http"])
def test_another_calibrator_neither_writes_nor_searches(place, mixed, fused, tmp_path, server):
    task, qrels = mixed
    where = {"folder": tmp_path, "http": server.url}[place]
    writer = QdrantRetriever(where, "scenes", fused).fit(task)
    before = points_of(writer)
    writer.close()
    other = other_calibrator(task, qrels)
    names = f"{pipeline_fingerprint(fused)!r}, but the pipeline here is {pipeline_fingerprint(other)!r}"
    for pipeline, message in [(other, names), (None, r"is unknown \(pipeline=None\)")]:
        stranger = QdrantRetriever(where, "scenes", pipeline)
        vectors = fused.transform(task)
        for call in (stranger.fit, stranger.predict, lambda task, s=stranger: s.add(task.corpus, range(30))):
            with pytest.raises(ValueError, match=message):
                call(task if pipeline else vectors)
        stranger.close()
    assert points_of(writer) == before
    writer.close()


def test_the_calibrator_from_a_file_is_the_same(task, fused, tmp_path):
    QdrantRetriever(tmp_path / "q", pipeline=fused).fit(task).close()
    save_pipeline(fused, tmp_path / "calibrator.safetensors")
    reader = QdrantRetriever(tmp_path / "q", pipeline=load_pipeline(tmp_path / "calibrator.safetensors"))
    np.testing.assert_array_equal(reader.predict(task.queries), exact(fused, task)[1])
    reader.close()


def named(task, encoder):
    return SearchTask(Items(task.queries, encoder=encoder), Items(task.corpus, encoder=encoder))


def test_a_collection_that_is_replaced_while_documents_are_stored_is_told_of(mixed, fused, monkeypatch):
    """As where a writer follows an alias, and another process leads it to the collection of a new calibrator."""
    task, qrels = mixed
    other = make_pipeline(ModalityGapRemover(), MultimodalFuser(alpha=0.3)).fit(task, qrels)
    client = QdrantClient(":memory:")
    for name, pipeline in (("old", fused), ("new", other)):
        QdrantRetriever(client, name, pipeline).add(task.corpus[:1], ["first"])

    def lead_to(name):
        lead = models.CreateAlias(collection_name=name, alias_name="live")
        client.update_collection_aliases([models.CreateAliasOperation(create_alias=lead)])

    lead_to("old")
    upsert = client.upsert
    monkeypatch.setattr(client, "upsert", lambda *given, **options: (upsert(*given, **options), lead_to("new")))
    with pytest.raises(ValueError, match="'live' was written with calibrator") as raised:
        QdrantRetriever(client, "live", fused, batch_size=10).add(task.corpus, range(30))
    assert "the last of them may be in what is there now. Delete these" in raised.value.__notes__[0]
    assert [client.count(name).count for name in ("old", "new")] == [11, 21]


def test_another_encoder_neither_writes_nor_searches(mixed):
    task, qrels = mixed
    one, two = (
        make_pipeline(*map(clone, ONE_SCALE)).fit(named(task, encoder), qrels) for encoder in ("clip@1", "clip@2")
    )
    client = QdrantClient(":memory:")
    writer = QdrantRetriever(client, pipeline=one).fit(named(task, "clip@1"))
    assert client.get_collection("grclip").config.metadata["grclip"]["encoder"] == "clip@1"
    with pytest.raises(ValueError, match=r"'clip@1', but these come from 'clip@2'"):
        QdrantRetriever(client, pipeline=two).predict(named(task, "clip@2").queries)
    with pytest.raises(ValueError, match=r"'clip@1', but these come from 'clip@2'"):
        QdrantRetriever(client, pipeline=two).add(named(task, "clip@2").corpus, range(30))
    with pytest.raises(ValueError, match=r"'clip@1', but these come from 'clip@2'"):
        writer.add(named(task, "clip@2").corpus, range(30))
    known = named(task, "clip@1")
    np.testing.assert_array_equal(writer.predict(known), exact(one, known)[1])
    client.close()


@pytest.mark.filterwarnings("ignore:cannot check that one encoder")
def test_the_encoder_of_items_counts_where_the_calibrator_does_not_know_its_own(task, fused):
    client = QdrantClient(":memory:")
    QdrantRetriever(client, pipeline=fused).fit(named(task, "clip@1"))
    with pytest.raises(ValueError, match="holds vectors of encoder 'clip@1', but these come from 'clip@2'"):
        QdrantRetriever(client, pipeline=fused).add(named(task, "clip@2").corpus, range(30))
    client.close()


@pytest.mark.parametrize("distance", ["Cosine", "Euclid", "Manhattan"])
def test_other_distances_are_refused(distance, task, fused):
    client = QdrantClient(":memory:")
    client.create_collection("scenes", models.VectorParams(size=8, distance=models.Distance[distance.upper()]))
    for call in (lambda r: r.fit(task), lambda r: r.predict(task.queries)):
        with pytest.raises(ValueError, match=f"'scenes' compares by {distance}; expected Dot: .* which cosine undoes"):
            call(QdrantRetriever(client, "scenes", fused))
    assert client.count("scenes").count == 0
    client.close()


def test_collections_of_others_are_refused(task, fused):
    dot = models.VectorParams(size=8, distance=models.Distance.DOT)
    several = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    client = QdrantClient(":memory:")
    for name, vectors, message in [
        ("foreign", dot, "'foreign' has no fingerprints in its metadata"),
        ("named", {"image": dot}, "'named' has named or several vectors"),
        ("several", dot.model_copy(update={"multivector_config": several}), "'several' has named or several vectors"),
    ]:
        client.create_collection(name, vectors)
        with pytest.raises(ValueError, match=message):
            QdrantRetriever(client, name, fused).fit(task)
    client.close()


@pytest.mark.parametrize(
    "entry",
    [
        {"schema_version": 2, "encoder": None, "calibrator": None},
        {"encoder": None, "calibrator": None},
        {"schema_version": 1, "encoder": None},
        "grclip@123",
    ],
)
def test_collections_of_another_version_are_refused(entry):
    client = QdrantClient(":memory:")
    dot = models.VectorParams(size=2, distance=models.Distance.DOT)
    client.create_collection("grclip", dot, metadata={"grclip": entry})
    for call in (QdrantRetriever(client, k=1).fit, QdrantRetriever(client, k=1).predict):
        with pytest.raises(ValueError, match=rf"'grclip' has {re.escape(repr(entry))} in its metadata, .* schema 1"):
            call(np.eye(2))
    assert client.count("grclip").count == 0
    client.close()


def test_a_server_that_keeps_no_metadata_is_refused(task, fused):
    server = Server(version="1.15.4")
    with pytest.raises(RuntimeError, match=r"Qdrant 1.15.4 keeps no metadata .* version 1.16 and newer do"):
        QdrantRetriever(server.url, pipeline=fused).fit(task)
    assert not server.qdrant.collection_exists("grclip")
    server.close()


def test_another_width_is_an_error(rng):
    client = QdrantClient(":memory:")
    retriever = QdrantRetriever(client, k=1).fit(unit(rng.normal(size=(5, 8))))
    message = "X has 6 features, but QdrantRetriever is expecting 8 features as input, the width of collection 'grclip'"
    for call in (retriever.fit, lambda X: retriever.add(X, range(5)), retriever.predict):
        with pytest.raises(ValueError, match=message):
            call(unit(rng.normal(size=(5, 6))))
    assert retriever.n_features_in_ == 8
    client.close()


def test_options_reach_the_collection(server, task, fused):
    sent = []
    create = server.create
    server.create = lambda name, body: sent.append(body) or create(name, body)
    QdrantRetriever(server.url, pipeline=fused, options={"shard_number": 3, "on_disk_payload": True}).fit(task).close()
    assert (sent[0]["shard_number"], sent[0]["on_disk_payload"]) == (3, True)
    assert sent[0]["vectors"]["distance"] == "Dot"


@pytest.mark.parametrize(("given", "sent"), [(False, False), (True, True)])
def test_exact_search_is_asked_for(given, sent, over_http, server, task, monkeypatch):
    asked = []
    batch = server.qdrant.query_batch_points
    monkeypatch.setattr(server.qdrant, "query_batch_points", lambda name, some: asked.extend(some) or batch(name, some))
    over_http.set_params(exact=given).fit(task).predict(task.queries)
    assert {one.params.exact for one in asked} == {sent}


def test_embedded_search_is_exact_unasked_or_the_client_would_warn(fused, task, monkeypatch):
    retriever, asked = QdrantRetriever(pipeline=fused, exact=True).fit(task), []
    batch = retriever.client.query_batch_points
    monkeypatch.setattr(
        retriever.client, "query_batch_points", lambda name, some: asked.extend(some) or batch(name, some)
    )
    np.testing.assert_array_equal(retriever.predict(task.queries), exact(fused, task)[1])
    assert {one.params for one in asked} == {None}


# Values


def test_values_that_cannot_be_compared_are_errors_before_anything_is_stored(rng, monkeypatch):
    monkeypatch.setattr(qdrant, "_BLOCK", 4)
    good = unit(rng.normal(size=(9, 8)))
    broken = {np.nan: "NaN in", np.inf: "inf in", 1e300: "inf in", 1e30: "numbers too large", 0: "zeros, or"}
    for value, message in broken.items():
        bad = good.copy()
        bad[6] = value
        retriever = QdrantRetriever(k=1)
        with pytest.raises(ValueError, match=rf"corpus: {message} .*1 row \(2\)") as caught:
            retriever.fit(bad)
        assert caught.value.__notes__ == ["Rows are counted from row 4 of the documents."]
        assert not retriever.client.collection_exists("grclip")
        retriever.fit(good)
        if value:
            with pytest.raises(ValueError, match=rf"queries: {message} .*1 row \(6\)"):
                retriever.predict(bad)
    with pytest.warns(UserWarning, match="queries: 1 row"):
        retriever.predict(bad)


def test_a_row_that_is_partly_missing_is_an_error(task, fused):
    text = np.array(task.corpus["text"])
    text[np.flatnonzero(np.isfinite(text[:, 0]))[2], 1] = np.nan
    retriever = QdrantRetriever(pipeline=fused)
    with pytest.raises(ValueError, match="role 'text': NaN beside numbers"):
        retriever.fit(task.corpus.replace({"text": text}))
    assert not retriever.client.collection_exists("grclip")


def test_k_beyond_the_corpus_is_an_error():
    retriever = QdrantRetriever(k=3).fit(np.eye(2))
    with pytest.raises(ValueError, match="k=3 is larger than collection 'grclip', 2 documents"):
        retriever.predict(np.eye(2))
    for k in (0, -1, 1.5, "3", True):
        with pytest.raises(ValueError, match="k must be a whole number of at least 1"):
            retriever.kneighbors(np.eye(2), k=k)
    assert retriever.kneighbors(np.eye(2), k=2)[1].shape == (2, 2)


def test_an_index_that_misses_documents_is_told_apart_from_k_beyond_the_corpus(over_http, server, task, monkeypatch):
    over_http.fit(task)
    batch = server.qdrant.query_batch_points
    few = models.QueryRequest
    monkeypatch.setattr(
        server.qdrant,
        "query_batch_points",
        lambda name, some: batch(name, [few(query=one.query, limit=4) for one in some]),
    )
    with pytest.raises(ValueError, match="a query found 4 of 30 documents in Qdrant's index; ask with exact=True"):
        over_http.predict(task.queries)


def test_what_an_index_misses_of_a_filter_is_asked_for_exactly(over_http, server, task, monkeypatch):
    over_http.fit(task, payload=[{"even": row % 2 == 0} for row in range(30)])
    expected = over_http.kneighbors(task.queries, k=20, filter={"even": True})
    batch, asked = server.qdrant.query_batch_points, []

    def missing(name, some):
        """An index that finds four documents."""
        asked.append(some[0].params.exact)
        limit = {} if some[0].params.exact else {"limit": 4}
        return batch(name, [one.model_copy(update={"params": None} | limit) for one in some])

    monkeypatch.setattr(server.qdrant, "query_batch_points", missing)
    for found, whole in zip(over_http.kneighbors(task.queries, k=20, filter={"even": True}), expected, strict=True):
        np.testing.assert_array_equal(found, whole)
    assert ((expected[1] == -1).sum(axis=1) == 5).all()
    assert asked == [False, True]


def test_items_need_a_pipeline_that_fuses(task, fused):
    with pytest.raises(TypeError, match="one vector a row; got Items: give the fitted remover and fuser"):
        QdrantRetriever().fit(task)
    with pytest.raises(TypeError, match="pipeline makes Items, not one vector a row"):
        QdrantRetriever(pipeline=fused[:1]).fit(task)
    with pytest.raises(TypeError, match="let it end in a MultimodalFuser"):
        QdrantRetriever(pipeline=fused[:1]).fit(fused.transform(task.corpus))
    searching = Pipeline([*fused.steps, ("search", ExactRetriever().fit(fused.transform(task)))])
    with pytest.raises(TypeError, match=r"got Pipeline that transforms nothing: leave out a retriever"):
        QdrantRetriever(pipeline=searching).fit(task)
    with pytest.raises(NotFittedError):
        QdrantRetriever(pipeline=make_pipeline(*map(clone, ONE_SCALE))).fit(task)
    with pytest.raises(TypeError, match="add takes documents; got a SearchTask"):
        QdrantRetriever(pipeline=fused).add(task, range(30))
    with pytest.raises(ValueError, match="X holds nothing; expected at least one document"):
        QdrantRetriever(pipeline=fused).fit(task.corpus[:0])
    with pytest.raises(TypeError, match="y is Items"):
        QdrantRetriever(pipeline=fused).fit(task.queries, task.corpus)


def test_a_task_whose_corpus_is_another_is_an_error(mixed, fused):
    task, _ = mixed
    retriever = QdrantRetriever(pipeline=fused).fit(task)
    message = "the corpus of the task is not what collection 'grclip' holds under its row numbers"
    for corpus in (task.corpus[:20], task.corpus[::-1]):
        with pytest.raises(ValueError, match=message):
            retriever.predict(SearchTask(task.queries, corpus))
    other = QdrantRetriever(pipeline=fused).fit(task, ids=[f"d{i}" for i in range(30)])
    with pytest.raises(ValueError, match=message):
        other.predict(task)
    with pytest.raises(ValueError, match=r"task.queries alone .*: map the ids that these find to rows, to score them"):
        other.predict(task)
    assert other.predict(task.queries)[0, 0].startswith("d")


def test_fit_refuses_documents_of_others_and_add_adds_to_them(tmp_path):
    retriever = QdrantRetriever(tmp_path, k=1).fit(np.eye(5))
    with pytest.raises(ValueError, match="holds 3 documents of other ids; use add"):
        retriever.fit(np.eye(5)[:2])
    assert count(retriever) == 5
    retriever.add(np.eye(5)[:2], ids=[7, 8])
    assert count(retriever) == 7
    retriever.close()
    memory = QdrantRetriever(k=1).fit(np.eye(5)).fit(np.eye(3))
    assert count(memory) == 3


def test_documents_that_are_added_need_ids_or_they_would_replace_those_before():
    retriever = QdrantRetriever(k=1).fit(np.eye(5))
    with pytest.raises(TypeError, match="ids"):
        retriever.add(np.eye(5))
    with pytest.raises(TypeError, match="ids must be a list with one id a document; fit alone takes row numbers"):
        retriever.add(np.eye(5), None)
    assert count(retriever.add(np.eye(5), range(5, 10))) == 10


def test_fit_says_that_another_writer_stored_other_documents(over_http, server):
    over_http.pipeline, upsert = None, server.qdrant.upsert

    def meet(*given, **options):
        """Before the first batch of one, another stores a document."""
        server.qdrant.upsert = upsert
        upsert("scenes", [models.PointStruct(id=77, vector=[1.0] * 9)])
        return upsert(*given, **options)

    server.qdrant.upsert = meet
    with pytest.raises(RuntimeError, match="'scenes' holds 10 documents after 9 were stored: another process writes"):
        over_http.fit(np.eye(9))


def test_nothing_to_search_is_an_error_that_says_where(tmp_path):
    client = QdrantClient(":memory:")
    (tmp_path / "of-others").mkdir()
    for place, told in [
        (":memory:", "':memory:'"),
        (tmp_path / "mistyped", repr(str(tmp_path / "mistyped"))),
        (tmp_path / "of-others", repr(str(tmp_path / "of-others"))),
        (client, "the Qdrant of the client"),
    ]:
        retriever = QdrantRetriever(place, "shoes")
        with pytest.raises(NotFittedError, match=rf"there is no collection 'shoes' in {re.escape(told)}; fit or add"):
            retriever.predict(np.eye(2))
        retriever.close()
    client.close()
    assert [path.name for path in tmp_path.rglob("*")] == ["of-others"], "a search makes nothing"


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"exact": 1}, TypeError),
        ({"progress": "yes"}, TypeError),
        ({"batch_size": 0}, ValueError),
        ({"retries": -1}, ValueError),
        ({"backoff": -1.0}, ValueError),
        ({"backoff": float("nan")}, ValueError),
        ({"timeout": None}, ValueError),
        ({"timeout": 0}, ValueError),
        ({"options": 3}, TypeError),
        ({"options": {"metadata": {"of": "mine"}}}, ValueError),
        ({"options": {"vectors_config": None}}, ValueError),
        ({"collection": ""}, TypeError),
        ({"client_or_url": 3}, TypeError),
        ({"client_or_url": ""}, TypeError),
        ({"client_or_url": "localhost:6333"}, ValueError),
        ({"client_or_url": "grpc://localhost"}, ValueError),
    ],
)
def test_parameters_that_are_none_are_errors_that_name_them(parameters, error, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for call in (QdrantRetriever(**parameters).fit, QdrantRetriever(**parameters).predict):
        with pytest.raises(error, match=next(iter(parameters))):
            call(np.eye(2))
    assert not list(tmp_path.iterdir())


# In the manner of scikit-learn


def test_the_constructor_stores_and_clones_share_client_and_pipeline(fused, tmp_path):
    retriever = QdrantRetriever(tmp_path / "none", "scenes", fused, k=4, options={"shard_number": 2})
    assert not (tmp_path / "none").exists()
    copy = clone(retriever)
    assert copy.get_params(deep=False) == retriever.get_params(deep=False)
    assert copy.pipeline is fused
    assert copy.options is not retriever.options
    client = QdrantClient(":memory:")
    assert clone(QdrantRetriever(client)).client is client
    client.close()
    assert "grclip.scale.qdrant.QdrantRetriever" in retriever._repr_html_()


def test_a_pickle_holds_the_place_and_no_client(task, fused, tmp_path):
    retriever = QdrantRetriever(tmp_path, "scenes", fused).fit(task)
    expected = retriever.predict(task.queries)
    stored = pickle.dumps(retriever)
    retriever.close()
    again = pickle.loads(stored)
    np.testing.assert_array_equal(again.predict(task.queries), expected)
    again.close()
    with pytest.raises(TypeError, match="a QdrantClient cannot be pickled; give its URL or folder"):
        pickle.dumps(QdrantRetriever(qdrant_client.QdrantClient(":memory:")))


def test_a_folder_is_closed_and_opened_again(task, fused, tmp_path):
    retriever = QdrantRetriever(tmp_path, "scenes", fused).fit(task)
    second = QdrantRetriever(str(tmp_path), "scenes", fused)
    with pytest.raises(RuntimeError, match=r"already accessed by another instance.* Call close\(\) on the retri"):
        second.predict(task.queries)
    assert retriever.close() is retriever
    np.testing.assert_array_equal(second.predict(task.queries), exact(fused, task)[1])
    second.close().close()
    assert count(retriever) == 30
    retriever.close()


def test_threads_that_search_first_share_one_client(tmp_path):
    QdrantRetriever(tmp_path, k=1).fit(np.eye(3)).close()
    for _ in range(5):
        retriever, start = QdrantRetriever(tmp_path, k=1), threading.Barrier(6)
        with ThreadPoolExecutor(6) as pool:
            found = list(
                pool.map(lambda _, r=retriever, s=start: (s.wait(), r.predict(np.eye(3)).tolist())[1], range(6))
            )
        assert found == [[[0], [1], [2]]] * 6
        retriever.close()


def test_threads_that_store_and_search_at_once_lose_nothing(rng):
    corpus = unit(rng.normal(size=(600, 16))).astype(np.float32)
    retriever = QdrantRetriever(batch_size=5)
    retriever.add(corpus[:50], range(50))

    def work(start):
        if start % 2:
            return retriever.predict(corpus[:5]).shape
        rows = range(50 + start * 25, 100 + start * 25)
        return retriever.add(corpus[rows.start : rows.stop], rows)

    often = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(22)))
    finally:
        sys.setswitchinterval(often)
    assert count(retriever) == 600
    np.testing.assert_array_equal(retriever.predict(corpus), ExactRetriever().fit(corpus).predict(corpus))


@pytest.mark.parametrize("written", ["", "[]", '{"collections": {"a": 3}}'])
def test_a_folder_that_is_broken_is_named(written, tmp_path):
    (tmp_path / "meta.json").write_text(written)
    for call in (QdrantRetriever(tmp_path).fit, QdrantRetriever(tmp_path).predict):
        with pytest.raises(
            ValueError, match=rf"'{tmp_path}' is no folder of Qdrant, or a broken one \(.*; give another"
        ):
            call(np.eye(2))
    assert (tmp_path / "meta.json").read_text() == written


def test_a_folder_whose_database_is_broken_is_named(tmp_path):
    QdrantRetriever(tmp_path, k=1).fit(np.eye(2)).close()
    (database,) = tmp_path.rglob("*.sqlite")
    database.write_bytes(b"x" * 5000)
    with pytest.raises(ValueError, match=r"or a broken one .*not a database"):
        QdrantRetriever(tmp_path, k=1).predict(np.eye(2))


def test_another_place_that_is_set_is_where_documents_go(task, fused, tmp_path):
    retriever = QdrantRetriever(tmp_path / "one", pipeline=fused, k=1).fit(task.corpus[:3])
    retriever.set_params(client_or_url=tmp_path / "two").fit(task.corpus[:5])
    assert count(retriever) == 5
    retriever.set_params(client_or_url=tmp_path / "one")
    assert count(retriever) == 3
    memory = QdrantRetriever(pipeline=fused).fit(task)
    assert count(memory.set_params(timeout=5)) == 30
    retriever.close()


def test_the_limit_of_embedded_collections_is_told(rng):
    corpus = unit(rng.normal(size=(20_001, 2))).astype(np.float32)
    with pytest.warns(UserWarning, match="Local mode is not recommended for collections with more than 20,000 points"):
        retriever = QdrantRetriever(k=1, batch_size=5000).fit(corpus)
    assert count(retriever) == 20_001


# A server that fails


def test_over_http_all_is_as_embedded(over_http, task, fused):
    over_http.fit(task)
    similarities, rows = over_http.kneighbors(task)
    expected, expected_rows = exact(fused, task)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(similarities, expected, rtol=1e-5, atol=1e-6)
    found = over_http.kneighbors(task.queries, k=2, filter={"kind": "image"})[1]
    assert (task.corpus.kinds[found] == "image").all()


@pytest.mark.parametrize("where", ["embedded", "over http"])
def test_documents_are_taken_out_by_the_ids_that_they_were_given(where, request, task, fused):
    retriever = QdrantRetriever(pipeline=fused) if where == "embedded" else request.getfixturevalue("over_http")
    names = [f"shoe-{row}" for row in range(10)] + [uuid.UUID(int=row) for row in range(10)] + list(range(10))
    retriever.add(task.corpus, names)
    assert retriever.delete([names[3], names[12], np.int64(7), "never there"]) is retriever
    left = {str(name) for row, name in enumerate(names) if row not in (3, 12, 27)}
    assert set(map(str, retriever.kneighbors(task.queries[:1], k=27)[1][0])) == left
    retriever.delete([names[3]]).delete([])
    assert count(retriever) == 27
    for ids, error, message in (
        ("shoe-1", TypeError, "ids must be a list"),
        (None, TypeError, "ids must be a list"),
        (["shoe-1", -1], ValueError, "-1 is no id"),
    ):
        with pytest.raises(error, match=message):
            retriever.delete(ids)
    other = clone(fused).set_params(multimodalfuser__alpha=0.1).fit(task)
    with pytest.raises(ValueError, match="written with calibrator"):
        QdrantRetriever(retriever.client, retriever.collection, other).delete(names)
    with pytest.raises(NotFittedError, match="no collection 'none'"):
        QdrantRetriever(retriever.client, "none").delete([1])
    assert count(retriever) == 27


def test_a_request_to_delete_is_repeated(over_http, server, task):
    over_http.add(task.corpus, range(30))
    server.faults += [None, "lost", 503]
    assert count(over_http.delete(range(10))) == 20
    assert not server.faults


def test_queries_under_the_role_of_documents_are_told_of(task, fused):
    retriever = QdrantRetriever(pipeline=fused, k=3).fit(task)
    same = Items({"text": task.queries["query"]}, encoder=task.queries.encoder)
    with pytest.warns(UserWarning, match="queries have the role 'text', so that they are calibrated as documents"):
        retriever.predict(same)
    alone = make_pipeline(ModalityGapRemover(), MultimodalFuser()).fit(task.corpus)  # knows of no queries
    QdrantRetriever(pipeline=alone, k=3).fit(task.corpus).predict(task.corpus[:2])


@pytest.mark.parametrize("fault", [408, 429, 500, 502, 503, "close", "lost", "slow"])
def test_each_request_is_repeated_where_it_may_pass(fault, over_http, server, task, fused):
    n = 4 if fault != "slow" else 1
    over_http.timeout = 60 if fault != "slow" else 1
    server.faults += [fault] * n
    over_http.add(task.corpus, range(30))
    server.faults += [None, None, fault]
    over_http.add(task.corpus[:9], range(9))
    server.faults += [fault] * n
    np.testing.assert_array_equal(over_http.predict(task.queries), exact(fused, task)[1])
    assert not server.faults
    assert points_of(over_http) == points_of(QdrantRetriever(pipeline=fused).fit(task))


def test_a_server_that_is_asked_too_often_says_how_long_to_wait(over_http, server, task, monkeypatch):
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    server.retry_after, server.faults = 3, [429, 429]
    assert count(over_http.fit(task)) == 30
    assert waited == [3, 3]
    server.retry_after, server.faults = "Wed, 21 Oct 2026 07:28:00 GMT", [None, None, None, 429]
    assert count(over_http.fit(task)) == 30
    assert waited[2:] == [over_http.backoff]


def test_every_request_of_a_job_may_fail_once(over_http, server, task, fused):
    for fault in (503, "close", "lost"):
        over_http.collection = f"scenes-{fault}"
        server.faults += [fault, None] * 20
        rows = over_http.fit(task).predict(task)
        server.faults.clear()
        np.testing.assert_array_equal(rows, exact(fused, task)[1])
        assert count(over_http) == 30


def test_a_server_that_goes_away_and_comes_back(over_http, server, task, fused):
    over_http.set_params(backoff=0.05, batch_size=2)
    over_http.add(task.corpus[:2], range(2))
    upsert = server.qdrant.upsert

    def stumble(*given, **options):
        """After a few batches the server is gone for a while."""
        server.qdrant.upsert = upsert
        threading.Thread(target=away).start()
        return upsert(*given, **options)

    def away():
        server.down()
        threading.Event().wait(0.4)
        server.up()

    server.qdrant.upsert = stumble
    over_http.fit(task)
    assert count(over_http) == 30
    np.testing.assert_array_equal(over_http.predict(task.queries), exact(fused, task)[1])


def test_a_server_that_stays_away_leaves_word_of_what_is_stored_and_calling_again_finishes(
    over_http, server, task, fused
):
    over_http.set_params(retries=2)
    server.faults += [None] * 4 + [None, None] + [503] * 3  # look up, exists, version, create, look up; two batches
    over_http.batch_size = 10
    with pytest.raises(
        ConnectionError, match=r"asked 3 times with 0.03 s between \(.*503.*as told.*\); 10 of 30 documents are stored"
    ):
        over_http.add(task.corpus, range(30))
    assert count(over_http) == 10
    assert over_http.add(task.corpus, range(30)) is over_http
    assert points_of(over_http) == points_of(QdrantRetriever(pipeline=fused).fit(task))


def test_searching_a_server_that_is_not_there(server, fused, task):
    server.down()
    retriever = QdrantRetriever(server.url, pipeline=fused, retries=1, backoff=0.01)
    with pytest.raises(ConnectionError, match=rf"no good answer from '{server.url}', asked 2 times with 0\.01 s"):
        retriever.predict(task.queries)
    retriever.retries = 0
    with pytest.raises(ConnectionError, match="asked 1 times with 0 s between"):
        retriever.predict(task.queries)
    server.up()
    with pytest.raises(NotFittedError):
        retriever.predict(task.queries)
    retriever.close()


def test_grpc_is_waited_for_too(server, task, fused):
    client = QdrantClient(
        "127.0.0.1", grpc_port=server.port, prefer_grpc=True, check_compatibility=False, timeout=1
    )  # a port that speaks no gRPC
    with pytest.raises(ConnectionError, match=r"asked 2 times .*StatusCode.UNAVAILABLE"):
        QdrantRetriever(client, pipeline=fused, retries=1, backoff=0.01).predict(task.queries)
    client.close()


def test_over_grpc_all_is_as_embedded(task, fused):
    server = GrpcServer()
    client = server.client()
    retriever = QdrantRetriever(client, "scenes", fused, batch_size=8, backoff=0.01)
    server.faults += [getattr(grpc.StatusCode, name) for name in ("UNAVAILABLE", "DEADLINE_EXCEEDED")]
    server.faults += [getattr(grpc.StatusCode, name) for name in ("INTERNAL", "RESOURCE_EXHAUSTED")]
    retriever.fit(task, payload=[{"n": i % 2, "new": i < 15, "in": {"s": ["ü", None, 0.5]}} for i in range(30)])
    np.testing.assert_array_equal(retriever.predict(task), exact(fused, task)[1])
    assert server.qdrant.get_collection("scenes").config.metadata["grclip"]["calibrator"] == pipeline_fingerprint(fused)
    found = retriever.kneighbors(task.queries, k=2, filter={"n": 1, "new": True, "kind": ["text", "text+image"]})[1]
    assert {(row % 2, row < 15) for row in found.ravel()} == {(1, True)}
    ids = ["shoe-17", str(uuid.UUID(int=8)), 3, 2**64 - 1]
    named = QdrantRetriever(client, "names", k=1).fit(np.eye(4), ids=ids)
    assert named.predict(np.eye(4)).ravel().tolist() == ids
    assert count(named.delete(ids[:2])) == 2
    with pytest.raises(ValueError, match="written with calibrator"):
        QdrantRetriever(client, "scenes").predict(np.eye(8))
    with pytest.raises(NotFittedError, match="no collection 'none' in the Qdrant of the client"):
        QdrantRetriever(client, "none").predict(np.eye(8))
    client.close()
    server.close()


def test_a_server_over_grpc_that_keeps_no_metadata_is_refused():
    server = GrpcServer(version="1.15.4")
    client = server.client()
    with pytest.raises(RuntimeError, match=r"Qdrant 1.15.4 keeps no metadata"):
        QdrantRetriever(client).fit(np.eye(2))
    client.close()
    server.close()


@pytest.mark.parametrize("fault", [400, 401, 403, 422])
def test_what_the_server_refuses_is_not_repeated(fault, over_http, server, task):
    over_http.fit(task)
    server.asked.clear()
    server.faults += [None, fault]
    with pytest.raises(UnexpectedResponse, match=str(fault)) as caught:
        over_http.add(task.corpus, range(30))
    assert caught.value.__notes__ == ["0 of 30 documents are stored in 'scenes'; call again to store all of them"]
    assert len(server.asked) == 2


def test_a_proxy_that_takes_small_requests_alone_asks_for_a_smaller_batch(over_http, server, task, monkeypatch):
    server.faults += [None] * 6 + [413]  # look up, exists, version, create, look up, count
    with pytest.raises(UnexpectedResponse, match="413") as caught:
        over_http.fit(task)
    assert caught.value.__notes__[1:] == ["Up to 8 documents a request are too much for it; give a smaller batch_size."]
    monkeypatch.setattr(qdrant_rest, "LIMIT", 700)
    with pytest.raises(UnexpectedResponse, match="larger than allowed") as caught:
        over_http.fit(task)
    assert "give a smaller batch_size" in caught.value.__notes__[1]
    assert count(over_http.set_params(batch_size=1).fit(task)) == 30


def test_an_answer_that_makes_no_sense_is_not_repeated(over_http, server, task):
    over_http.fit(task)
    server.asked.clear()
    server.faults += [None, "nonsense"]
    with pytest.raises(ResponseHandlingException):
        over_http.add(task.corpus, range(30))
    assert len(server.asked) == 2


def test_two_writers_of_the_same_ids_leave_one_copy(server, task, fused):
    writers = [QdrantRetriever(server.url, "scenes", fused, batch_size=3, backoff=0.01) for _ in range(2)]
    server.faults += [None, 503] * 6
    threads = [threading.Thread(target=writer.fit, args=(task,)) for writer in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert points_of(writers[0]) == points_of(QdrantRetriever(pipeline=fused).fit(task))
    np.testing.assert_array_equal(writers[1].predict(task.queries), exact(fused, task)[1])
    for writer in writers:
        writer.close()


def test_a_collection_is_taken_that_was_created_though_the_answer_was_lost(over_http, server, task):
    server.faults += [None, None, None, "lost"]
    over_http.fit(task)
    assert server.asked.count(("PUT", "/collections/scenes")) == 2
    assert count(over_http) == 30


def test_a_collection_is_taken_that_appears_between_two_questions(over_http, server, task, fused):
    over_http.fit(task)
    server.faults += [404]
    np.testing.assert_array_equal(over_http.predict(task.queries), exact(fused, task)[1])


def test_a_server_that_goes_away_before_the_collection_is_made(over_http, server, task):
    server.faults += [None, None, None, 503]
    with pytest.raises(ConnectionError, match="asked 1 times"):
        over_http.set_params(retries=0).fit(task)
    assert not server.qdrant.collection_exists("scenes")


def test_a_collection_that_cannot_be_made_is_an_error(over_http, server, task):
    server.faults += [None, None, None, 403]
    with pytest.raises(UnexpectedResponse, match="403"):
        over_http.fit(task)
    assert not server.qdrant.collection_exists("scenes")


def test_names_of_points_are_what_they_were():
    assert _qdrant_points.point_id("shoe-17") == "e337d5ae-c4ec-50b7-b698-c5aec3bb853b"
