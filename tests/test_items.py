import copy
import pickle

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import KFold, ShuffleSplit, train_test_split
from sklearn.utils import _safe_indexing

from grclip import Items, ModalityGapRemover, SearchTask
from grclip.items import modalities_of

TEXTS = ["a red bicycle", None, "", "tea"]


@pytest.fixture
def items():
    image = np.arange(8, dtype=np.float32).reshape(4, 2)
    image[3] = np.nan
    return Items({"text": TEXTS, "image": image, "title": torch.ones(4, 3)}, encoder="clip")


def test_is_a_mapping_of_roles_with_the_length_of_its_rows(items):
    assert len(items) == 4
    assert items.shape == (4,)
    assert list(items) == list(items.keys()) == ["text", "image", "title"] == list(items.roles)
    assert set(dict(items)) == {"text", "image", "title"}
    assert [role for role, _ in items.items()] == list(items)
    assert len(items.values()) == 3
    assert "text" in items
    assert "audio" not in items
    assert items.get("audio") is None
    assert items.get("audio", 3) == 3
    assert items.get("text") is items["text"]
    assert items.encoder == "clip"


def test_an_empty_string_is_a_text_and_none_is_missing(items):
    assert items["text"].tolist() == TEXTS
    assert items.kinds.tolist() == ["text+image+title", "image+title", "text+image+title", "text+title"]


def test_kind_of_a_row_without_any_part_is_empty():
    assert Items({"text": ["a", None], "image": [None, None]}).kinds.tolist() == ["text", ""]


def test_repr_is_short(items):
    assert repr(items) == "Items(n=4, text=3 of 4, image=float32[4, 2], title=float32[4, 3], encoder='clip')"
    assert len(repr(Items({"text": ["long " * 1000]}))) < 50


def test_arrays_are_kept_and_raw_values_are_not_stacked():
    image = np.ones((2, 3), dtype=np.float16)
    sounds = [np.zeros(5), np.ones(5)]
    items = Items({"image": image, "audio": sounds})
    assert np.shares_memory(items["image"], image)
    assert items["audio"].shape == (2,)
    assert items["audio"][1] is sounds[1]


def test_raw_columns_cannot_be_changed(items):
    for same in (items, items[[0, 1]], pickle.loads(pickle.dumps(items)), copy.deepcopy(items)):
        with pytest.raises(ValueError, match="read-only"):
            same["text"][0] = "other"
    with pytest.raises(AttributeError):
        items.encoder = "other"
    with pytest.raises(TypeError):
        items["text"] = TEXTS


@pytest.mark.parametrize("key", [slice(1, 3), [1, 2], range(1, 3), np.array([1, 2]), np.array([1, 2], np.uint8),
                                 [False, True, True, False], np.array([False, True, True, False]), pd.Series([1, 2]),
                                 torch.tensor([1, 2]), [-3, -2], ([1, 2], ...), slice(-2, -4, -1),
                                 (np.array([1, 2]), Ellipsis)])  # fmt: skip
def test_rows_are_taken_by_every_kind_of_key(items, key):
    taken = items[key]
    expected = [2, 1] if isinstance(key, slice) and key.step else [1, 2]
    assert len(taken) == 2
    assert taken["text"].tolist() == [TEXTS[row] for row in expected]
    np.testing.assert_array_equal(taken["image"], items["image"][expected])
    assert isinstance(taken["title"], torch.Tensor)
    assert taken.encoder == "clip"


@pytest.mark.parametrize("key", [[], slice(0, 0), np.zeros(4, bool)])
def test_no_rows_may_be_taken(items, key):
    assert len(items[key]) == 0
    assert items[key].shape == (0,)
    assert items[key].kinds.shape == (0,)


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        ("audio", KeyError, "no role 'audio'; these Items have 'text', 'image', 'title'"),
        (1, TypeError, "slice, or a list or array of integers or booleans; got 1"),
        (1.0, TypeError, "rows are taken by"),
        ([0.5], TypeError, "rows are taken by"),
        ([[0, 1]], TypeError, "rows are taken by"),
        (None, TypeError, "rows are taken by"),
        ([4], IndexError, "row 4 is out of bounds: there are 4 rows"),
        ([-5], IndexError, "row -5 is out of bounds"),
        ([True], IndexError, "a boolean key has 1 entries, but there are 4 rows"),
    ],
)
def test_a_wrong_key_is_an_error(items, key, error, message):
    with pytest.raises(error, match=message):
        items[key]


def test_scikit_learn_takes_rows(items):
    assert _safe_indexing(items, np.array([0, 3]))["text"].tolist() == ["a red bicycle", "tea"]
    train, test = train_test_split(items, test_size=1, random_state=0)
    assert (len(train), len(test)) == (3, 1)


def test_clone_and_copies_and_pickles(items):
    assert clone(items, safe=False) is items
    for other in (pickle.loads(pickle.dumps(items)), copy.deepcopy(items)):
        assert other["text"].tolist() == TEXTS
        np.testing.assert_array_equal(other["image"], items["image"])
        assert (other.encoder, len(other)) == ("clip", 4)


def test_items_of_items_keep_the_encoder(items):
    assert Items(items).encoder == "clip"
    assert Items(items, encoder="other").encoder == "other"
    assert Items(dict(items)).encoder is None


def test_a_pickled_slice_holds_its_own_rows_alone():
    items = Items({"image": torch.ones(10_000, 8)})[:2]
    assert len(pickle.dumps(items)) < 2000
    assert pickle.loads(pickle.dumps(items))["image"].shape == (2, 8)
    task = pickle.loads(data := pickle.dumps(SearchTask(torch.ones(10_000, 8), torch.eye(8))[:2]))
    assert len(data) < 3000
    assert (task.queries.shape, task.corpus.shape) == ((2, 8), (8, 8))


def test_small_integers_take_rows_of_long_tensors():
    items = Items({"image": torch.arange(600.0)[:, None]})
    for dtype in (np.uint8, np.int8):
        assert items[np.array([0, 3], dtype)]["image"].flatten().tolist() == [0, 3]


def test_from_records():
    items = Items.from_records([{"text": "a"}, {"image": "b.png", "text": None}, {}], encoder="e")
    assert items["text"].tolist() == ["a", None, None]
    assert items["image"].tolist() == [None, "b.png", None]
    assert items.encoder == "e"


@pytest.mark.parametrize(
    ("records", "error", "message"),
    [
        ([{"text": "a"}, "b"], TypeError, r"records\[1\] is 'b'; expected a mapping"),
        ([], ValueError, "at least one role and one row; got no role"),
        ([{}], ValueError, "at least one role"),
    ],
)
def test_from_wrong_records(records, error, message):
    with pytest.raises(error, match=message):
        Items.from_records(records)


@pytest.mark.parametrize("dtype", ["object", "str", "string"])
def test_pandas_columns(dtype):
    frame = pd.DataFrame({"text": pd.Series(["a", None, "c"], dtype=dtype), "image": ["x.png", "y.png", None]})
    frame.index = [5, 6, 7]
    for items in (Items(frame), Items({"text": frame["text"], "image": frame["image"]})):
        assert items["text"].tolist() == ["a", None, "c"]
        assert items["image"].tolist() == ["x.png", "y.png", None]


@pytest.mark.parametrize("make", [pa.array, lambda values, **options: pa.chunked_array([values], **options)])
def test_pyarrow_columns(make):
    """Their nulls are objects, which count as parts unless they are told from values."""
    items = Items({"text": make(["a", None]), "image": [None, "y.png"]})
    assert items["text"].tolist() == ["a", None]
    assert items.kinds.tolist() == ["text", "image"]
    for kind in (pa.list_(pa.float32()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 2)):
        column = make([[1, 2], None, [3, 4]], type=kind)
        np.testing.assert_array_equal(Items({"text": column})["text"], np.float32([[1, 2], [np.nan] * 2, [3, 4]]))
        assert ModalityGapRemover().fit({"text": column}).n_samples_seen_ == {"text": 2}


def test_pyarrow_dictionaries():
    """As pandas' categories become: `to_numpy` of their chunks puts other values in the place of nulls."""
    first, other = (pa.array(values).dictionary_encode() for values in (["a", None, "b"], ["c", None, "b"]))
    for chunks, texts in (([first], ["a", None, "b"]), ([first, other], ["a", None, "b", "c", None, "b"])):
        items = Items({"text": pa.chunked_array(chunks), "image": ["x.png"] * len(texts)})
        assert items["text"].tolist() == texts
    with pytest.raises(ValueError, match="one role and one row"):
        Items({"text": pa.chunked_array([], first.type)})
    table = pa.table({"a": first})
    for several in (table, table.to_batches()[0]):  # whose columns would be taken for rows, and further rows be missing
        with pytest.raises(ValueError, match=r"'text' has shape \(3, 1\); a column of raw values has one dimension"):
            Items({"text": several})
    with pytest.raises(TypeError, match="expected a column"):
        Items({"text": pa.Tensor.from_numpy(np.ones((2, 2)))})


def test_marks_for_missing_values_in_lists():
    assert Items({"text": ["a", float("nan"), np.nan, None]})["text"].tolist() == ["a", None, None, None]
    assert Items({"text": ["a", pd.NA, pd.NaT, np.float32("nan")]})["text"].tolist() == ["a", None, None, None]
    assert Items({"text": np.array(["a", "b"])})["text"].tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ({"text": ["a"], "image": ["b", "c"]}, ValueError, r"one length.*\{'text': 1, 'image': 2\}"),
        ({}, ValueError, "at least one role and one row; got no role"),
        ({"text": []}, ValueError, r"one row; got \{'text': 0\}"),
        ({"text": np.empty((0, 3))}, ValueError, r"one row; got \{'text': 0\}"),
        ({"text": np.empty((3, 0))}, ValueError, r"shape \(3, 0\)"),
        (["a"], TypeError, "parts must map roles to columns.*got list"),
        (pd.DataFrame({"text": ["a"], "price": [2.5]}), ValueError, "'price' is 1-D and numeric; .* take the columns"),
        (pd.Series(["a"]), TypeError, r"parts is a Series; name the role that it has: Items\({'text': column}\)"),
        ({"text": "a"}, TypeError, "role 'text' is 'a'; expected a column"),
        ({"text": 3}, TypeError, "role 'text' is 3; expected a column"),
        ({"text": {"a", "b"}}, TypeError, "expected a column"),
        ({"text": {"a": "b"}}, TypeError, "expected a column"),
        ({"image": pd.DataFrame(np.ones((2, 3)))}, ValueError, r"embeddings are an array or tensor of shape \(n, d\)"),
        ({"image": np.ma.masked_array(np.ones((2, 3)))}, TypeError, r"masked array; mark missing rows by NaN"),
        ({"image": torch.eye(3).to_sparse()}, TypeError, "role 'image' is sparse; embeddings are dense"),
        ({1: ["a"]}, TypeError, "a role is a non-empty str; got 1"),
        ({"": ["a"]}, TypeError, "a role is a non-empty str; got ''"),
        ({"image": np.ones(3)}, ValueError, r"role 'image' has shape \(3,\); expected \(n, d\)"),
        ({"image": np.ones((3, 2, 2))}, ValueError, r"role 'image' has shape \(3, 2, 2\)"),
        ({"image": torch.ones(3)}, ValueError, r"role 'image' has shape \(3,\)"),
        ({"image": [1.0, 2.0]}, ValueError, r"role 'image' is 1-D and numeric; expected \(n, d\)"),
        ({"image": pd.Series([1.0, 2.0])}, ValueError, "role 'image' is 1-D and numeric"),
        ({"image": np.array([["a"]])}, ValueError, "a column of raw values has one dimension"),
        ({"image": np.ones((3, 2), int)}, TypeError, "role 'image' has dtype int64; expected float16"),
        ({"image": np.ones((3, 2), bool)}, TypeError, "role 'image' has dtype bool"),
        ({"image": np.ones((3, 2), complex)}, TypeError, "role 'image' has dtype complex128"),
        ({"image": np.ones((3, 2), np.longdouble)}, TypeError, "role 'image' has dtype "),
        ({"image": torch.ones(3, 2, dtype=torch.int8)}, TypeError, "role 'image' has dtype torch.int8"),
    ],
)
def test_wrong_parts(parts, error, message):
    with pytest.raises(error, match=message):
        Items(parts)


def test_a_wrong_encoder():
    with pytest.raises(TypeError, match="encoder must be a fingerprint"):
        Items({"text": ["a"]}, encoder=3)


def test_replace(items):
    other = items.replace({"image": np.zeros((4, 9))})
    assert other["image"].shape == (4, 9)
    assert other["title"] is items["title"]
    assert other.encoder == "clip"
    with pytest.raises(KeyError, match="audio"):
        items.replace({"audio": TEXTS})


def test_modalities():
    roles = ["query", "title", "query_image", "cover", "audio", "query_video", "query_title"]
    assert modalities_of(roles) == ["text", "text", "image", "image", "audio", "video", "text"]
    assert modalities_of(["sketch", "text"], {"sketch": "image", "text": "image"}) == ["image", "image"]
    with pytest.raises(
        ValueError, match=r"unknown modality of 'sketch', 'brand'; .*modalities=\{'sketch': ..., 'brand': ...\}"
    ):
        modalities_of(["text", "sketch", "brand"])
    with pytest.raises(ValueError, match="expected 'text', 'image', 'audio' or 'video'"):
        modalities_of(["sketch"], {"sketch": "drawing"})


def test_a_column_of_vectors_is_stacked_with_a_row_of_nan_for_each_that_is_missing():
    vectors = [np.ones(3, np.float32), None, np.zeros(3, np.float32)]
    frame = pd.DataFrame({"text": ["a", "b", "c"], "image": vectors})
    expected = np.array([[1, 1, 1], [np.nan] * 3, [0, 0, 0]])
    for items in (Items({"image": vectors}), Items(frame), Items.from_records([{"image": v} for v in vectors])):
        assert items["image"].dtype == np.float32
        np.testing.assert_array_equal(items["image"], expected)
    assert Items({"text": [[0.5, 1.0], [2, 3]]})["text"].tolist() == [[0.5, 1.0], [2.0, 3.0]]  # JSON writes 2 for 2.0
    tensors = Items({"image": [torch.ones(3), None, torch.zeros(3).half().float()]})["image"]
    np.testing.assert_array_equal(tensors.numpy(), expected)


@pytest.mark.parametrize("values", [
    [np.ones(3), np.ones(4)], [np.ones(3), "a"], [np.ones((2, 2)), np.ones((2, 2))], [np.ones(3, int)] * 2, [[1, 2]],
    [(np.ones(3), 16_000)] * 2, [[], []], [torch.ones(3), np.ones(3)], [torch.ones(3, dtype=torch.int)], [[True, 0.5]],
])  # fmt: skip
def test_other_values_stay_as_they_are(values):
    assert Items({"image": values})["image"].dtype == object


def test_sounds_are_never_stacked():
    for role in ("audio", "query_audio", "jingle"):
        assert Items({role: [np.ones(3), None, np.ones(3)]})[role].dtype == object


def test_items_and_tasks_are_no_arrays(items, task):
    for value, message in ((items, "fuse its parts"), (task, r"take task\.queries or task\.corpus")):
        with pytest.raises(TypeError, match=message):
            np.asarray(value)


@pytest.fixture
def task():
    return SearchTask(Items({"query": ["a", "b", "c"]}), Items({"text": ["x", "y", "z"]}))


def test_a_task_is_as_long_as_its_queries_and_keeps_the_corpus(task):
    assert len(task) == 3
    assert task.shape == (3,)
    for key in ([2, 0], np.array([True, False, True]), slice(None, None, 2), ([0, 2], ...)):
        part = task[key]
        assert len(part) == 2
        assert part.corpus is task.corpus
    assert task[[2, 0]].queries["query"].tolist() == ["c", "a"]


def test_splitters_divide_queries_and_never_the_corpus_of_equal_size(task):
    train, test, y_train, y_test = train_test_split(task, [{0: 1}, {1: 1}, {2: 1}], test_size=1, random_state=0)
    assert (len(train), len(test)) == (2, 1)
    assert train.corpus is test.corpus is task.corpus
    for part, judged in ((train, y_train), (test, y_test)):
        assert judged == [{"abc".index(query): 1} for query in part.queries["query"]]
    for splitter in (KFold(3), ShuffleSplit(2, test_size=1, random_state=0)):
        for rows, _ in splitter.split(task):
            assert len(task[rows]) == 2


def test_a_task_is_frozen_and_clone_returns_it(task):
    assert clone(task, safe=False) is task
    assert copy.deepcopy(task) is not task
    with pytest.raises(AttributeError):
        task.corpus = None
    assert pickle.loads(pickle.dumps(task)).corpus["text"].tolist() == ["x", "y", "z"]


def test_a_task_of_arrays():
    task = SearchTask(np.eye(3), torch.eye(3))
    assert len(task[[0]]) == 1
    assert task.encoder is None
    assert len(task[1:].corpus) == 3
    assert isinstance(SearchTask(torch.eye(3), torch.eye(3))[np.array([-1])].queries, torch.Tensor)


def test_a_task_knows_the_encoder_of_either_side():
    assert SearchTask(Items({"query": np.eye(2)}), Items({"text": np.eye(2)}, encoder="a")).encoder == "a"
    assert SearchTask(Items({"query": np.eye(2)}, encoder="a"), Items({"text": np.eye(2)})).encoder == "a"


def test_wrong_tasks(task):
    image = Items({"image": ["a.png"]})
    with pytest.raises(ValueError, match=r"share the role 'image'; .* e.g. 'query_image'"):
        SearchTask(image, image)
    with pytest.raises(ValueError, match="queries come from encoder 'a', but the corpus from 'b'"):
        SearchTask(Items({"query": ["q"]}, encoder="a"), Items({"text": ["t"]}, encoder="b"))
    with pytest.raises(TypeError, match=r"both be Items or both be arrays .*; got Items and ndarray"):
        SearchTask(task.queries, np.eye(2))
    with pytest.raises(TypeError, match="queries holds str objects, not embeddings"):
        SearchTask(["a"], ["b"])
    with pytest.raises(ValueError, match=r"corpus has shape \(2,\)"):
        SearchTask(np.eye(2), np.ones(2))
    with pytest.raises(ValueError, match="queries have 2 features, the corpus 3"):
        SearchTask(np.eye(2), np.eye(3))
    with pytest.raises(TypeError, match="wrap a dict of columns in Items"):
        SearchTask({"query": np.eye(2)}, {"text": np.eye(2)})
    with pytest.raises(KeyError, match="a SearchTask is sliced by query"):
        task["query"]


def test_a_role_joined_by_plus_has_the_modality_of_its_first_part():
    assert modalities_of(["text+image", "image+text", "query+query_image"]) == ["text", "image", "text"]
    assert modalities_of(["sketch+text"], {"sketch": "image"}) == ["image"]
    assert modalities_of(["text+image"], {"text+image": "image"}) == ["image"]
    with pytest.raises(ValueError, match=r"unknown modality of 'brand\+image'"):
        modalities_of(["brand+image"])
