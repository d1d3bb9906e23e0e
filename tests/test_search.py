import pickle
import subprocess
import sys

import joblib
import numpy as np
import pytest
import reference
import torch
from conftest import unit
from hypothesis import given
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError
from strategies import embeddings, lay_out, to_numpy
from torch._subclasses.fake_tensor import FakeTensorMode

from grclip import ExactRetriever, Items, SearchTask, _scan, _topk
from grclip._kernels import row_norms


@pytest.fixture(autouse=True, params=[False, True], ids=["whole", "halved"])
def products(request, monkeypatch):
    """Products in both precisions, whatever the processor, in pieces that small inputs have several of."""
    monkeypatch.setattr(_topk, "is_halved", lambda q, k, norm: request.param and q.dtype == torch.float32)
    monkeypatch.setattr(_scan, "_CHUNK", 8)
    monkeypatch.setattr(_scan, "_QUERIES", 6)
    return request.param


@st.composite
def corpora(draw):
    """Queries and a corpus with many equal rows and similarities, in small whole numbers that multiply exactly."""
    n, d, queries = draw(st.integers(1, 60)), draw(st.integers(1, 12)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = draw(st.sampled_from([np.arange(-1, 2), np.arange(-3, 4), np.array([1])]))
    corpus = rng.choice(values, (n, d)).astype(draw(st.sampled_from(["float16", "float32", "float64"])))
    return rng.choice(values, (queries, d)).astype(np.float32), corpus


@pytest.mark.filterwarnings("ignore:rows of zeros")
@given(corpora(), st.data())
def test_rows_match_the_reference_with_ties_by_row(task, data):
    queries, corpus = task
    k = data.draw(st.integers(1, len(corpus)))
    block_size = data.draw(st.sampled_from([None, 1, 7, 32]))
    wrap = data.draw(st.sampled_from([np.asarray, torch.from_numpy]))
    similarities, rows = ExactRetriever(k=k, block_size=block_size).fit(wrap(corpus)).kneighbors(wrap(queries))
    expected = reference.search(queries.astype(float), corpus.astype(float), k)
    np.testing.assert_array_equal(to_numpy(rows), expected)
    zero = ~corpus[expected].any(axis=2)
    products = np.einsum("qd,qkd->qk", queries.astype(float), corpus[expected].astype(float))
    np.testing.assert_array_equal(to_numpy(similarities), np.where(zero, -np.inf, products))
    assert type(rows) is type(similarities) is type(wrap(queries))


@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.sampled_from(["float32", "float64"]))
def test_equal_rows_are_ranked_by_row_whatever_the_blocks(seed, block_size, dtype):
    rng = np.random.default_rng(seed)
    distinct = unit(rng.normal(size=(5, 24))).astype(dtype)
    corpus = distinct[rng.integers(0, 5, 300)]
    queries = unit(rng.normal(size=(4, 24))).astype(dtype)
    rows = ExactRetriever(k=150, block_size=block_size).fit(corpus).predict(queries)
    which = (queries.astype(float) @ corpus.T.astype(float)).round(9)
    for line, scores in zip(rows, which, strict=True):
        np.testing.assert_array_equal(line, np.lexsort((np.arange(300), -scores))[:150])


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_the_ranking_does_not_depend_on_blocks_or_other_queries(seed, parts):
    rng = np.random.default_rng(seed)
    corpus, queries = (unit(rng.normal(size=(n, 64))).astype(np.float32) for n in (500, 20))
    retriever = ExactRetriever().fit(corpus)
    similarities, rows = retriever.kneighbors(queries)
    for some in np.array_split(np.arange(20), parts):
        again = ExactRetriever(block_size=int(rng.integers(1, 500))).fit(corpus).kneighbors(queries[some])
        np.testing.assert_array_equal(again[1], rows[some])
        np.testing.assert_array_equal(again[0], similarities[some])


@given(st.integers(0, 2**32 - 1), st.sampled_from([8, 64, 300]), st.sampled_from(["float16", "float32"]))
def test_near_ones_are_told_apart(seed, d, dtype):
    """Similarities that differ by less than half precision can hold, of which the margin holds many."""
    rng = np.random.default_rng(seed)
    corpus = unit(rng.normal(size=(1, d)) + 0.05 * rng.normal(size=(120, d))).astype(dtype)
    queries = unit(rng.normal(size=(7, d))).astype(np.float32)
    rows = ExactRetriever().fit(corpus).predict(queries)
    exact = (queries.astype(float) @ corpus.T.astype(float)).astype(np.float32)
    expected = [np.lexsort((np.arange(120), -line))[:10] for line in exact]
    np.testing.assert_array_equal(rows, expected)


def test_a_scan_that_loses_a_document_to_rounding_is_repeated(rng, monkeypatch):
    """With more near ties than the margin holds, the scan alone cannot know the best; the answer still is exact."""
    direction = unit(rng.normal(size=(1, 32)))
    corpus = (direction + 1e-7 * rng.normal(size=(400, 32))).astype(np.float32)
    queries = direction.astype(np.float32)
    exact = corpus.astype(float) @ queries[0].astype(float)
    expected = np.lexsort((np.arange(400), -exact.astype(np.float32)))[:10]
    calls = []
    rescan = _topk._rescan
    monkeypatch.setattr(_topk, "_rescan", lambda *args: calls.append(1) or rescan(*args))
    for block_size in (None, 13, 1):
        np.testing.assert_array_equal(ExactRetriever(block_size=block_size).fit(corpus).predict(queries)[0], expected)
    assert len(calls) == 3
    ExactRetriever().fit(unit(rng.normal(size=(400, 32)))).predict(queries)
    assert len(calls) == 3


def test_many_queries_of_a_corpus_of_equal_rows(monkeypatch):
    """Every query is scanned again, in several chunks, and each finds the first rows."""
    monkeypatch.setattr(_topk, "_QUERIES", 7)
    monkeypatch.setattr(_topk, "_PAIRS", 50)
    settle, settled = _topk._settle, []
    monkeypatch.setattr(_topk, "_settle", lambda *args: settled.append(len(args[0])) or settle(*args))
    rng = np.random.default_rng(0)
    corpus = np.repeat(rng.normal(size=(2, 16)).astype(np.float32), 150, axis=0)
    queries = rng.normal(size=(40, 16)).astype(np.float32)
    rows = ExactRetriever(k=160, block_size=64).fit(corpus).predict(queries)
    assert settled == [7] * 5 + [5]  # copies of all that the scan kept would take more memory than the scan
    second = (queries @ corpus[-1]) > (queries @ corpus[0])
    first, then = np.arange(150), np.arange(150, 300)
    for line, swapped in zip(rows, second, strict=True):
        expected = np.concatenate([then, first] if swapped else [first, then])[:160]
        np.testing.assert_array_equal(line, expected)


@pytest.mark.parametrize("corpus", ["near", "equal", "one giant"])
def test_few_pairs_are_multiplied_one_by_one(corpus, rng, monkeypatch):
    """A pair by itself takes a hundred times as long as in a matrix product: a corpus in a crowd must not take all."""
    d, n, pairs, exact = 24, 3000, [], _topk._exact
    crowd = unit(rng.normal(size=(1, d))) + {"near": 1e-6, "equal": 0.0, "one giant": 1.0}[corpus] * rng.normal(
        size=(n, d)
    )
    crowd[7] *= 1e5 if corpus == "one giant" else 1
    crowd = crowd.astype(np.float32)
    crowd[[5, -2]] = 0
    queries = rng.normal(size=(20, d)).astype(np.float32)
    monkeypatch.setattr(_topk, "_exact", lambda *args: pairs.append(len(args[2])) or exact(*args))
    monkeypatch.setattr(_topk, "_CROWDED_QUERIES", 7)
    with pytest.warns(UserWarning, match="rows of zeros"):
        rows = ExactRetriever(block_size=500).fit(crowd).predict(queries)
    assert sum(pairs) < 0.1 * 20 * n
    similarities = np.einsum("qd,nd->qn", queries.astype(float), crowd.astype(float)).astype(np.float32)
    similarities[:, [5, -2]] = -np.inf
    np.testing.assert_array_equal(rows, [np.lexsort((np.arange(n), -line))[:10] for line in similarities])


def test_queries_too_short_to_measure_take_the_first_rows(rng):
    direction = unit(rng.normal(size=(1, 64)))
    corpus = (direction + 1e-7 * rng.normal(size=(300, 64))).astype(np.float32)
    queries = np.repeat((direction * 1e-25).astype(np.float32), 5, axis=0)
    for block_size in (None, 1, 50):
        with pytest.warns(UserWarning, match="queries: 5 rows"):
            rows = ExactRetriever(k=100, block_size=block_size).fit(corpus).predict(queries)
        np.testing.assert_array_equal(rows, np.tile(np.arange(100), (5, 1)))


def test_one_long_row_among_short_ones(rng):
    corpus = unit(rng.normal(size=(500, 16))).astype(np.float32)
    corpus[5] *= 1e5
    queries = unit(rng.normal(size=(20, 16))).astype(np.float32)
    rows = ExactRetriever(block_size=100).fit(corpus).predict(queries)
    np.testing.assert_array_equal(rows, reference.search(queries.astype(float), corpus.astype(float), 10))


@pytest.mark.parametrize(("precision", "bound"), [("tf32", 2**-9), ("bf16", 2**-7), ("ieee", 0.0)])
def test_the_error_bound_knows_of_rounded_factors(precision, bound):
    q = torch.zeros(1, 100)
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = precision
    try:
        assert _scan.rounding_error(q) == 102 * torch.finfo(torch.float32).eps + bound
        assert _scan.rounding_error(q.double()) == 102 * torch.finfo(torch.float64).eps
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before


@given(st.data())
def test_scores_are_as_far_off_as_the_scan_says_and_no_further(data):
    """Nor is any document that was dropped above the last score by more."""
    queries, n, d = (data.draw(st.integers(1, most)) for most in (20, 200, 40))
    halved = data.draw(st.booleans())
    dtype = torch.float32 if halved else data.draw(st.sampled_from([torch.float32, torch.float64]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    lengths, offset = 10.0 ** rng.integers(-3, 4, (n, 1)), data.draw(st.sampled_from([0.0, 1.0, 30.0]))
    corpus = torch.from_numpy(lengths * (rng.normal(size=(n, d)) + offset)).to(dtype)
    q = torch.from_numpy(rng.normal(size=(queries, d)) - offset).to(dtype)
    kept, zero = data.draw(st.integers(1, n)), np.zeros(0, dtype=np.intp)
    blocks = _scan.Blocks(corpus, zero, float(row_norms(corpus).max()), data.draw(st.sampled_from([None, 1, 24, 50])))
    scores, rows, error = (x.double().numpy() for x in _scan.scan(q, blocks, kept, halved=halved))
    exact = q.double().numpy() @ corpus.double().numpy().T
    assert (np.diff(scores, axis=1) <= 0).all()
    assert all(len(set(line)) == kept for line in rows.tolist())
    assert (np.abs(scores - np.take_along_axis(exact, rows.astype(int), axis=1)) <= error[:, None]).all()
    np.put_along_axis(exact, rows.astype(int), -np.inf, axis=1)
    assert (exact <= (scores[:, -1] + error)[:, None]).all()


@pytest.mark.parametrize("order", ["ascending", "descending", "drawn"])
def test_chunks_that_cannot_enter_are_passed_over_without_a_loss(order, rng, monkeypatch):
    scores = np.sort(rng.normal(size=2000))[:: -1 if order == "descending" else 1]
    corpus = torch.from_numpy(rng.permutation(scores) if order == "drawn" else scores.copy())[:, None]
    looked_at = []
    for name in ("_keep_some", "_keep_all"):
        keep = getattr(_scan, name)
        monkeypatch.setattr(_scan, name, lambda *args, keep=keep, name=name: looked_at.append(name) or keep(*args))
    blocks = _scan.Blocks(corpus, np.zeros(0, dtype=np.intp), float(row_norms(corpus).max()), 200)
    found, rows, _ = _scan.scan(torch.ones(1, 1, dtype=torch.float64), blocks, 5)
    np.testing.assert_array_equal(found[0], np.sort(scores)[::-1][:5])
    np.testing.assert_array_equal(corpus[rows[0], 0], found[0])
    seen = {"ascending": ["_keep_all"] * 10, "descending": ["_keep_all"]}
    assert looked_at == seen.get(order, looked_at)
    assert order != "drawn" or {"_keep_some", "_keep_all"} == set(looked_at)


def test_no_block_waits_for_a_gpu(products):
    """Tensors that only pretend to be on one raise where a number of theirs is needed."""
    with FakeTensorMode():
        corpus, queries = torch.empty(100, 8, device="cuda"), torch.empty(20, 8, device="cuda")
        blocks = _scan.Blocks(corpus, np.zeros(0, dtype=np.intp), 1.0, 30)
        scores, rows, error = _scan.scan(queries, blocks, 5, halved=products)
    assert scores.shape == rows.shape == (20, 5)
    assert error.shape == (20,)


def test_a_crowd_is_told_apart_as_single_pairs_are(rng, monkeypatch):
    """Similarities halfway between two numbers of float32, but for what is lost or not in the order of a sum."""
    corpus = np.full((400, 32), 2.0**-54, dtype=np.float32)
    corpus[:, 0], corpus[:, 1] = 1, 2.0**-24
    for row in corpus:
        row[2 if rng.random() < 0.5 else rng.integers(3, 32) :] = 0
        row[:] = rng.permutation(row)
    queries = np.ones((40, 32), dtype=np.float32)
    found = []
    for crowded in (0.0, 2.0):  # always multiplied in float64 first, and never
        monkeypatch.setattr(_topk, "_CROWDED", crowded)
        found.append(ExactRetriever(k=300, block_size=90).fit(corpus).kneighbors(queries))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])
    assert len(np.unique(found[0][0])) == 2


def test_half_precision_is_for_many_queries_of_float32_on_processors_that_have_it(monkeypatch):
    q = torch.ones(64, 8)
    for able, told in (({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx512_bf16": False}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able, raising=False)
        assert _scan.is_halved(q, 10, 1.0) == told
        assert not _scan.is_halved(q.double(), 10, 1.0)
        assert not _scan.is_halved(q[:5], 10, 1.0)
        assert not _scan.is_halved(q, 1000, 1.0)
        assert not _scan.is_halved(q, 10, 1e37)  # could be rounded to infinity
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not _scan.is_halved(q, 10, 1.0)


@given(embeddings(missing=False, zeros=False), st.data())
def test_any_array_of_numbers_can_be_searched(x, data):
    queries = data.draw(embeddings(d=x.shape[1], missing=False, zeros=False))
    similarities, rows = ExactRetriever(k=1).fit(x).kneighbors(queries)
    exact = to_numpy(queries) @ to_numpy(x).T
    np.testing.assert_allclose(to_numpy(similarities)[:, 0], exact.max(axis=1), rtol=1e-6, atol=1e-6)
    assert rows.shape == (len(queries), 1)
    assert isinstance(rows, torch.Tensor) == isinstance(queries, torch.Tensor)


def test_zero_rows_rank_last_below_negative_similarities():
    corpus = np.array([[0.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    with pytest.warns(UserWarning, match=r"\(corpus: 2 rows \(0, 2\)\)"):
        retriever = ExactRetriever(k=4).fit(corpus)
    similarities, rows = retriever.kneighbors(np.array([[1.0, 0.0]]))
    assert rows.tolist() == [[3, 1, 0, 2]]
    assert similarities.tolist() == [[1.0, -1.0, -np.inf, -np.inf]]


@pytest.mark.filterwarnings("ignore:rows of zeros")
def test_a_corpus_of_zeros_alone():
    similarities, rows = ExactRetriever(k=2).fit(np.zeros((3, 2))).kneighbors(np.eye(2))
    assert rows.tolist() == [[0, 1], [0, 1]]
    assert np.isneginf(similarities).all()


def test_a_zero_query_warns_and_takes_the_first_rows():
    retriever = ExactRetriever(k=2).fit(np.eye(3))
    with pytest.warns(UserWarning, match=r"queries: 1 row \(1\)"):
        rows = retriever.predict(np.array([[0, 0, 1.0], [0, 0, 0]]))
    assert rows.tolist() == [[2, 0], [0, 1]]


def test_a_task_brings_its_own_corpus(rng):
    first, second = rng.normal(size=(2, 20, 5))
    queries = rng.normal(size=(4, 5))
    retriever = ExactRetriever(k=3).fit(SearchTask(queries, first))
    np.testing.assert_array_equal(retriever.predict(queries), retriever.predict(SearchTask(queries, first)))
    np.testing.assert_array_equal(
        retriever.predict(SearchTask(queries, second)), ExactRetriever(k=3).fit(second).predict(queries)
    )
    assert retriever.corpus_ is first
    assert retriever.kneighbors(SearchTask(queries, second), k=7)[1].shape == (4, 7)


@pytest.mark.parametrize("layout", ["read-only", "f", "step", "back", "big-endian"])
def test_the_corpus_may_lie_in_memory_anyhow(rng, layout):
    corpus, queries = rng.normal(size=(50, 6)), rng.normal(size=(4, 6))
    expected = ExactRetriever().fit(corpus).predict(queries)
    np.testing.assert_array_equal(ExactRetriever().fit(lay_out(corpus, layout)).predict(queries), expected)


MEMORY = """
import resource, sys
import numpy as np
import torch
from grclip import ExactRetriever

rows, d = 400_000, 256
corpus = np.memmap(sys.argv[1], np.float16, "r", shape=(rows, d))
queries = np.asarray(corpus[[7, rows - 1]], dtype=np.float32)
torch.ones(64, 64) @ torch.ones(64, 64)
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + 128 * 2**20, resource.RLIM_INFINITY))  # mapped files do not count
print(ExactRetriever(k=2).fit(corpus).predict(queries)[:, 0].tolist())
np.asarray(corpus, dtype=np.float32)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_a_corpus_larger_than_memory_is_searched_in_blocks(tmp_path, rng):
    """205 MB in a process that may allocate 128 MB: the search works, and loading the corpus as a whole fails."""
    corpus = np.memmap(tmp_path / "corpus.f16", np.float16, "w+", shape=(400_000, 256))
    corpus[:] = np.resize(unit(rng.normal(size=(997, 256))), corpus.shape)
    corpus[[7, -1]] *= 2
    corpus.flush()
    done = subprocess.run([sys.executable, "-c", MEMORY, corpus.filename], capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[0] == "[7, 399999]", done.stderr
    assert "MemoryError" in done.stderr


@pytest.mark.parametrize(
    ("k", "message"),
    [
        (0, "k must be a whole number of at least 1; got 0"),
        (-3, "k must be a whole number of at least 1; got -3"),
        (1.0, "k must be a whole number of at least 1; got 1.0"),
        (True, "k must be a whole number of at least 1; got True"),
        (None, "k must be a whole number of at least 1; got None"),
        (4, "k=4 is larger than the corpus, which has 3 rows"),
    ],
)
def test_wrong_k(k, message):
    with pytest.raises(ValueError, match=message):
        ExactRetriever(k=k).fit(np.eye(3))
    retriever = ExactRetriever(k=1).fit(np.eye(3))
    if k is not None:
        with pytest.raises(ValueError, match=message):
            retriever.kneighbors(np.eye(3), k=k)
    with pytest.raises(ValueError, match=message):
        retriever.set_params(k=k).predict(np.eye(3))


def test_other_wrong_input():
    retriever = ExactRetriever(k=1).fit(np.eye(3))
    with pytest.raises(ValueError, match="block_size must be a whole number of at least 1; got 0"):
        ExactRetriever(k=1, block_size=0).fit(np.eye(3))
    with pytest.raises(ValueError, match=r"corpus: NaN in 1 row \(1\)"):
        ExactRetriever(k=1).fit(np.array([[1.0], [np.nan]]))
    with pytest.raises(ValueError, match=r"queries: inf in 1 row \(0\)"):
        retriever.predict(np.full((1, 3), np.inf))
    with pytest.raises(ValueError, match="X has 2 features, but ExactRetriever is expecting 3 features"):
        retriever.predict(np.ones((1, 2)))
    with pytest.raises(ValueError, match="X has 2 features, but ExactRetriever is expecting 3 features"):
        retriever.predict(torch.ones(1, 2))
    with pytest.raises(TypeError, match="got Items: fuse their parts first"):
        retriever.predict(Items({"query": np.eye(3)}))
    with pytest.raises(TypeError, match="got Items: fuse their parts first"):
        ExactRetriever(k=1).fit(SearchTask(Items({"query": np.eye(3)}), Items({"text": np.eye(3)})))
    with pytest.raises(TypeError, match="X is a dict"):
        retriever.predict({"query": np.eye(3)})
    with pytest.raises(TypeError, match="y is Items; a corpus goes beside the queries"):
        ExactRetriever(k=1).fit(np.eye(3), Items({"text": np.eye(3)}))
    with pytest.raises(NotFittedError):
        ExactRetriever().predict(np.eye(3))


def test_a_failed_fit_changes_nothing():
    retriever = ExactRetriever(k=2).fit(np.eye(3))
    before = {name: str(value) for name, value in vars(retriever).items()}
    for bad, message in ((np.eye(1), "larger than the corpus"), (np.full((3, 5), np.nan), "NaN"), (np.ones(4), "1D")):
        with pytest.raises(ValueError, match=message):
            retriever.fit(bad)
    assert {name: str(value) for name, value in vars(retriever).items()} == before


def test_a_pickle_holds_what_is_searched_and_no_more(rng, tmp_path):
    large = torch.from_numpy(rng.normal(size=(10_000, 8)))
    retriever = ExactRetriever(k=3).fit(large[:50])
    data = pickle.dumps(retriever)
    assert len(data) < 10_000
    queries = rng.normal(size=(4, 8))
    np.testing.assert_array_equal(pickle.loads(data).predict(queries), retriever.predict(queries))
    joblib.dump(ExactRetriever(k=3).fit(large.numpy()), tmp_path / "r.joblib")
    assert joblib.load(tmp_path / "r.joblib").predict(queries).shape == (4, 3)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_gpu_equals_cpu(cuda, rng, dtype):
    corpus = torch.from_numpy(unit(rng.normal(size=(5000, 96)))).to(dtype)
    corpus[4000:] = corpus[:1000]
    queries = torch.from_numpy(unit(rng.normal(size=(50, 96)))).to(dtype)
    cpu = ExactRetriever(k=20).fit(corpus).kneighbors(queries)
    retriever = ExactRetriever(k=20).fit(corpus.to(cuda))
    for asked in (queries, queries.to(cuda)):
        similarities, rows = retriever.kneighbors(asked)
        assert rows.device == asked.device
        assert torch.equal(rows.cpu(), cpu[1])
        np.testing.assert_allclose(similarities.cpu(), cpu[0], rtol=1e-6)
    assert pickle.loads(pickle.dumps(retriever)).corpus_.device.type == "cpu"
