"""grclip.scale.ray on a local Ray cluster of two workers."""

import io
import itertools
import os
import re
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import ray
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline, make_pipeline

from grclip import (
    ExactRetriever,
    Items,
    ModalityGapRemover,
    MultimodalFuser,
    __version__,
    load_pipeline,
    pipeline_fingerprint,
    save_pipeline,
)
from grclip._parquet import Source, as_vectors
from grclip._transform_files import transform_files
from grclip.datasets import make_scenes
from grclip.encoders import release_models, toy_encoder
from grclip.scale._arrow import as_lists, one_name, parts_of_table, raw_values, where
from grclip.scale._blocks import Encoder, fit_block, transform_batch
from grclip.scale.ray import _actors, _cpus, _gpus, encode, fit, to_items, transform

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:ray.data.context"
)  # of options that Ray itself sets

COLUMNS = {"text": "text_embedding", "image": "image_embedding"}
N, D = 600, 24


@pytest.fixture(scope="module")
def cluster():
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    short = "/tmp" if os.name == "posix" else None  # paths of Ray's sockets in it have 107 bytes at most
    with tempfile.TemporaryDirectory(prefix="ray", dir=short, ignore_cleanup_errors=True) as folder:
        try:
            ray.init(
                "local",  # a new one, whatever RAY_ADDRESS says and whatever else runs here
                num_cpus=2,
                num_gpus=1,  # a slot that Ray hands out, whether or not there is a device
                include_dashboard=False,
                object_store_memory=80 * 2**20,
                configure_logging=False,
                log_to_driver=False,
                _temp_dir=folder,
                _system_config={
                    "memory_monitor_refresh_ms": 0,  # kills workers where others use up the memory of the machine
                    "idle_worker_killing_time_threshold_ms": 3_600_000,  # starting one takes seconds
                },
            )
            ray.data.DataContext.get_current().enable_progress_bars = False
            yield
        finally:
            ray.shutdown()
            ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def make_table(rng, n=N, dtype=np.float32, encoder="model@1"):
    """Texts, images and both by turns, far from one another, in a random order of ids."""
    text, image = ((rng.normal(size=(n, D)) + shift).astype(dtype) for shift in rng.normal(size=(2, D)))
    text[1::3] = image[::3] = np.nan
    columns = {"text_embedding": as_lists(text), "image_embedding": as_lists(image), "encoder": [encoder] * n}
    return pa.table({"id": rng.permutation(n), **columns})


@pytest.fixture
def table(rng):
    return make_table(rng)


def items_of(table, encoder="model@1"):
    return Items(parts_of_table(table, COLUMNS), encoder=encoder)


def fitted(table):
    return make_pipeline(ModalityGapRemover(), MultimodalFuser(alpha=0.3)).fit(items_of(table))


def blocks(table, n):
    """A dataset of n blocks of unequal sizes."""
    ends = [0, *sorted(np.random.default_rng(n).choice(np.arange(1, len(table)), n - 1, replace=False)), len(table)]
    return ray.data.from_arrow([table[a:b] for a, b in itertools.pairwise(ends)])


def by_id(dataset):
    return pa.concat_tables(ray.get(dataset.materialize().to_arrow_refs())).sort_by("id")


def kill_once(flag, at=N // 2):
    """A step that kills the worker it runs in when it first sees a row."""

    def step(batch):
        if at in batch["id"].to_pylist() and not os.path.exists(flag):
            open(flag, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return batch

    return step


# Columns


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_arrays_survive_as_lists(rng, dtype):
    x = rng.normal(size=(7, 3)).astype(dtype)
    x[[0, 4]] = np.nan
    column = pa.chunked_array([as_lists(x)[1:4], as_lists(x)[4:]])
    assert column.type == pa.list_(pa.from_numpy_dtype(dtype), 3)
    assert column.null_count == 1
    np.testing.assert_array_equal(as_vectors(column, "c"), x[1:])
    assert as_vectors(column, "c").dtype == dtype


def test_tensors_are_read_and_columns_of_nulls_are_left_out(rng):
    x = rng.normal(size=(3, 2))
    tensors = pa.table({"t": pa.FixedShapeTensorArray.from_numpy_ndarray(x), "n": pa.nulls(3)})
    parts = parts_of_table(tensors, {"text": "t", "image": "n"})
    assert list(parts) == ["text"]
    np.testing.assert_array_equal(parts["text"], x)


def test_rows_that_cannot_be_used_are_told_by_their_ids():
    column = as_lists(np.array([[1.0, 2.0], [np.nan, 3.0], [np.nan, np.nan], [1.0, 1.0]]))
    table, columns = pa.table({"v": column, "id": ["a", "b", "c", "d"]}), {"text": "v"}
    assert where(table, columns, "id") == (
        "rows are counted from 0 in a block of 4, of column 'v' (role 'text'); "
        "'id' of rows that cannot be used: 'b', 'c'"
    )
    assert where(table[3:], columns, "id").endswith("'id' of its first row: 'd'")
    assert where(table.drop_columns("v"), columns, "id").endswith("'id' of its first row: 'a'")
    assert where(table, columns, None).endswith("(role 'text')")


def test_a_column_of_fingerprints_has_one_or_none():
    assert one_name(pa.table({"e": ["a", None, "a"]}), "e") == "a"
    assert one_name(pa.table({"e": pa.nulls(2, pa.string())}), "e") is None
    assert one_name(pa.table({"e": ["a"]}), "f") is one_name(pa.table({"e": ["a"]}), None) is None
    with pytest.raises(ValueError, match="names two encoders, 'a' and 'b'"):
        one_name(pa.table({"e": ["b", "a"]}), "e")
    for other in (1, ["a"], {"b": 1}):
        told = re.escape(f"holds {other!r}; expected fingerprints of encoders (str): if it is about something else")
        with pytest.raises(TypeError, match=told):
            one_name(pa.table({"e": [other]}), "e")


@pytest.mark.parametrize("values", [["x"], {"grams": 3}, 3, "grclip", None])
def test_a_column_of_calibrators_may_be_about_something_else(values):
    table = pa.table({"t": as_lists(np.eye(2)), "calibrator": [values, None]})
    assert list(parts_of_table(table, {"text": "t"})) == ["text"]


def test_a_column_of_calibrators_may_hold_tensors():
    """Which pyarrow cannot tell apart."""
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.eye(2, dtype=np.float32))
    table = pa.table({"t": as_lists(np.eye(2)), "calibrator": tensors})
    assert list(parts_of_table(table, {"text": "t"})) == ["text"]
    with pytest.raises(TypeError, match=r"holds \[1.0, 0.0\]; expected fingerprints"):
        one_name(table, "calibrator")


# Fitting


@pytest.mark.parametrize("n_blocks", [1, 2, 5])
def test_fit_on_blocks_equals_one_fit(cluster, table, n_blocks):
    expected = ModalityGapRemover().fit(items_of(table))
    found = fit(blocks(table, n_blocks))
    assert found.n_samples_seen_ == expected.n_samples_seen_ == {"text": 400, "image": 400}
    assert found.encoder_ == "model@1"
    for role, mean in expected.means_.items():
        np.testing.assert_allclose(found.means_[role], mean, rtol=0, atol=1e-12)


def test_fit_does_not_depend_on_the_order_of_blocks(cluster, table):
    parts = [table[start : start + 100] for start in range(0, N, 100)]
    one, other = fit(ray.data.from_arrow(parts)), fit(ray.data.from_arrow(parts[::-1]))
    assert pipeline_fingerprint(one) == pipeline_fingerprint(other)


def test_blocks_may_lack_a_part_or_any_row(cluster, table):
    lone = table.slice(2, 1).set_column(2, "image_embedding", pa.nulls(1))
    empty = table.slice(0, 2).set_column(1, "text_embedding", pa.nulls(2, table.schema.field(1).type))
    empty = empty.set_column(2, "image_embedding", pa.nulls(2, table.schema.field(2).type))
    found = fit(ray.data.from_arrow([table, empty]))
    assert found.n_samples_seen_ == {"text": 400, "image": 400}
    assert fit(ray.data.from_arrow([lone])).n_samples_seen_ == {"text": 1}
    with pytest.raises(ValueError, match="no row to learn a mean from in 'text_embedding', 'image_embedding'"):
        fit(ray.data.from_arrow([empty]))


def test_a_worker_killed_in_fit_counts_nothing_twice(cluster, table, tmp_path):
    steps = blocks(table, 5).map_batches(kill_once(tmp_path / "killed"), batch_size=20, batch_format="pyarrow")
    found = fit(steps)
    assert (tmp_path / "killed").exists()
    expected = ModalityGapRemover().fit(items_of(table))
    assert found.n_samples_seen_ == expected.n_samples_seen_
    for role, mean in expected.means_.items():
        np.testing.assert_allclose(found.means_[role], mean, rtol=0, atol=1e-12)


def broken(table, row, values):
    x = as_vectors(table.column("text_embedding"), "").copy()
    x[row, : len(values)] = values
    return table.set_column(1, "text_embedding", as_lists(x))


@pytest.mark.parametrize(
    ("spoil", "error", "told"),
    [
        (
            lambda t: broken(t, 6, [np.nan]),
            ValueError,
            r"'text': NaN beside numbers in 1 row \(6\).*'text_embedding'.*{id}",
        ),
        (
            lambda t: broken(t, 6, [np.inf]),
            ValueError,
            r"'text': inf in 1 row \(6\).*'text_embedding'.*cannot be used: {id}",
        ),
        (
            lambda t: t.set_column(1, "text_embedding", as_lists(np.ones((N, 3), np.float32))),
            ValueError,
            "role 'image' has 24 features, but role 'text' has 3.*'image_embedding'",
        ),
        (
            lambda t: t.set_column(1, "text_embedding", [["a"] * N]),
            TypeError,
            "column 'text_embedding' .* is of type string",
        ),
        (
            lambda t: t.set_column(3, "encoder", [["model@2"] * 9 + ["model@1"] * (N - 9)]),
            ValueError,
            "column 'encoder' names two encoders, 'model@1' and 'model@2'",
        ),
    ],
)
def test_what_cannot_be_fitted_is_told_with_column_and_rows(cluster, table, spoil, error, told):
    bad = spoil(table)
    with pytest.raises(error, match=told.replace("{id}", str(table.column("id")[6]))):
        fit(ray.data.from_arrow([bad]), id_column="id")


def test_blocks_of_two_widths_or_encoders_are_errors(cluster, table, rng):
    other = make_table(rng, encoder="model@2")
    with pytest.raises(ValueError, match="column 'encoder' names two encoders, 'model@1' and 'model@2'"):
        fit(ray.data.from_arrow([table, other]))
    narrow = table.select(["id"]).append_column("text_embedding", as_lists(np.ones((N, 3), np.float32)))
    narrow = narrow.append_column("image_embedding", pa.nulls(N))
    told = r"3 numbers in 600 rows of column 'text_embedding' \(role 'text'\); 24 numbers in 400 rows of .*'image'"
    with pytest.raises(ValueError, match=told):
        fit(ray.data.from_arrow([table, narrow]))


# Transforming


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_transform_gives_the_bytes_of_one_process_through_parquet(cluster, rng, tmp_path, dtype):
    table = make_table(rng, dtype=dtype)
    for part in range(3):
        pq.write_table(table[part * N // 3 : (part + 1) * N // 3], tmp_path / f"{part}.parquet", row_group_size=70)
    pipeline = fitted(table)
    found = transform(ray.data.read_parquet(str(tmp_path)), pipeline, batch_size=128)
    found.write_parquet(str(tmp_path / "out"))
    told = pq.read_table(tmp_path / "out").sort_by("id")
    expected = pipeline.transform(items_of(table.sort_by("id")))
    assert told.column_names == ["id", "encoder", "vector", "calibrator"]
    assert told.schema.field("vector").type.value_type == pa.from_numpy_dtype(dtype)
    assert as_vectors(told.column("vector"), "").tobytes() == expected.tobytes()
    assert told.column("id").to_pylist() == list(range(N))
    assert one_name(told, "calibrator") == pipeline_fingerprint(pipeline)
    save_pipeline(pipeline, tmp_path / "calibrator")
    (tmp_path / "cli").mkdir()
    for part in range(3):
        source, out = tmp_path / f"{part}.parquet", tmp_path / "cli" / f"{part}.parquet"
        list(transform_files([source], [out], tmp_path / "calibrator", COLUMNS, encoder="model@1"))
    cli = pa.concat_tables([pq.read_table(tmp_path / "cli" / f"{part}.parquet") for part in range(3)]).sort_by("id")
    assert cli.select(["id", "encoder", "vector"]).equals(told.select(["id", "encoder", "vector"]))
    read = ray.data.read_parquet(str(tmp_path / "cli"))
    message = rf"column 'vector' \(role 'text'\) holds fused vectors of calibrator {pipeline_fingerprint(pipeline)}: m"
    with pytest.raises(ValueError, match=message):
        fit(read, {"text": "vector"})
    read.write_parquet(str(tmp_path / "again"))  # without metadata of the file, but with those of the column
    with pytest.raises(ValueError, match=message):
        Source.open(next((tmp_path / "again").iterdir()), {"text": "vector"})


def test_a_worker_killed_in_transform_loses_no_row_and_doubles_none(cluster, table, tmp_path):
    pipeline = fitted(table)
    steps = blocks(table, 5).map_batches(kill_once(tmp_path / "killed"), batch_size=20, batch_format="pyarrow")
    found = by_id(transform(steps, pipeline, batch_size=20))
    assert (tmp_path / "killed").exists()
    assert found.column("id").to_pylist() == list(range(N))
    expected = pipeline.transform(items_of(table.sort_by("id")))
    assert as_vectors(found.column("vector"), "").tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda t: broken(t, 6, [np.nan]), "'text': NaN beside numbers in 1 row (6)"),
        (lambda t: broken(t, 3, [np.nan] * D), "no part at all in 1 row (3)"),
        (
            lambda t: t.set_column(1, "text_embedding", as_lists(np.ones((N, 3), np.float32))),
            "role 'text' has 3 features, but ModalityGapRemover is expecting 24",
        ),
        (
            lambda t: t.set_column(3, "encoder", [["model@2"] * N]),
            "fitted on vectors of encoder 'model@1', but these come from 'model@2'",
        ),
    ],
)
def test_what_cannot_be_transformed_is_told_through_ray(cluster, table, spoil, told):
    bad = spoil(table)
    rows = {"(6)": 6, "(3)": 3}
    row = next((row for ending, row in rows.items() if told.endswith(ending)), 0)
    with pytest.raises(ray.exceptions.RayTaskError) as caught:
        transform(ray.data.from_arrow([bad]), fitted(table), id_column="id", batch_size=None).materialize()
    message = str(caught.value)
    assert told in message
    assert "column 'text_embedding' (role 'text')" in message
    assert f": {table.column('id')[row]}" in message


def test_items_come_to_this_process(cluster, table):
    rest = table.slice(200).append_column("note", pa.array(["x"] * (N - 200)))
    items = to_items(ray.data.from_arrow([table.slice(0, 200)]).union(ray.data.from_arrow([rest.drop_columns("note")])))
    assert items.encoder == "model@1"
    np.testing.assert_array_equal(items["text"], items_of(table)["text"])
    with pytest.raises(ValueError, match=r"no column 'image_embedding' \(role 'image'\)"):
        to_items(ray.data.from_arrow([table, table.drop_columns("image_embedding")]))
    x = np.nan_to_num(items_of(table)["text"])
    tensors = pa.table({"t": pa.FixedShapeTensorArray.from_numpy_ndarray(x)})
    lists = pa.table({"t": as_lists(x.astype(np.float64))})
    found = to_items(ray.data.from_arrow([tensors, lists]), {"text": "t"})
    np.testing.assert_array_equal(found["text"], np.concatenate([x, x]))
    with pytest.raises(ValueError, match="dataset has no row"):
        to_items(ray.data.from_arrow([table.slice(0, 0)]))


def test_the_blocks_of_the_page_run_as_written(cluster, tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "scale_ray.md").read_text()
    names = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL)[:2]:
        for name in ("embeddings", "queries", "vectors", "query_vectors", "calibrator.safetensors"):
            block = block.replace(f'"{name}"', repr(str(tmp_path / name)))  # workers began in another folder
        exec(compile(block, "scale_ray.md", "exec"), names)
    pipeline, corpus = load_pipeline(tmp_path / "calibrator.safetensors"), names["corpus"]
    counts = {role: sum(part is not None for part in corpus[role]) for role in ("text", "image")}
    assert pipeline["modalitygapremover"].n_samples_seen_ == {**counts, "query": 300}
    assert set(map(len, pipeline["multimodalfuser"].spread_)) == {1, 2}
    told = pq.read_table(tmp_path / "vectors").sort_by("id")
    assert told.column_names == ["id", "title", "encoder", "vector", "calibrator"]
    assert told.column("title").to_pylist() == list(corpus["text"])
    assert one_name(told, "calibrator") == pipeline_fingerprint(pipeline)
    embedded = pq.read_table(tmp_path / "embeddings").sort_by("id")
    expected = pipeline.transform(items_of(embedded, names["encoder"].fingerprint))
    assert as_vectors(told.column("vector"), "").tobytes() == expected.tobytes()
    asked = pq.read_table(tmp_path / "query_vectors").sort_by("words")
    assert as_vectors(asked.column("vector"), "").shape == (300, expected.shape[1])


# Encoding


class Letters:
    """An encoder of texts that counts their letters, and writes down where its model is loaded, and with which GPUs."""

    def __init__(self, folder):
        self.folder, self.loaded = folder, False

    @property
    def fingerprint(self):
        if not self.loaded:
            with open(self.folder / "loads", "a") as loads:
                loads.write(f"{os.getpid()} {ray.get_gpu_ids()}\n")
        self.loaded = True
        return "letters@1"

    def transform(self, items):
        if "42" in items["text"]:
            kill_once(self.folder / "killed", at=0)(pa.table({"id": [0]}))
        counts = [[np.nan] * 4 if text is None else [text.count(c) for c in "0123"] for text in items["text"]]
        return Items({"text": np.array(counts, dtype=np.float32) + 1}, encoder=self.fingerprint)


def test_each_actor_loads_the_model_once_and_one_that_is_killed_loses_no_row_and_doubles_none(cluster, tmp_path):
    texts = [None if i % 7 == 3 else str(i) for i in range(100)]
    tables = [pa.table({"id": range(a, a + 25), "t": texts[a : a + 25]}) for a in range(0, 100, 25)]
    encoded = encode(ray.data.from_arrow(tables), Letters(tmp_path), {"text": "t"}, batch_size=10, concurrency=1)
    found = by_id(encoded)
    loads = (tmp_path / "loads").read_text().splitlines()
    assert (tmp_path / "killed").exists()
    assert len(loads) == len(set(loads)) == 2
    assert all(load.endswith(" [0]") for load in loads)  # the cluster has a GPU, and this encoder does not refuse it
    assert found.column("id").to_pylist() == list(range(100))
    assert found.column("text_embedding").null_count == 14
    expected = Letters(tmp_path).transform(Items({"text": texts}))["text"]
    np.testing.assert_array_equal(as_vectors(found.column("text_embedding"), ""), expected)
    assert one_name(found, "encoder") == "letters@1"


def test_an_actor_gives_the_vectors_of_the_encoder():
    task, _ = make_scenes(12, random_state=0)
    captions = [None if i == 7 else caption for i, caption in enumerate(task.corpus["text"])]
    pictures = [None if i == 5 else png(picture) for i, picture in enumerate(task.corpus["image"])]
    rows = pa.table({"caption": captions, "picture": pictures})
    roles = {"text": "caption", "image": "picture"}
    actor = Encoder(toy_encoder(), "encoder")
    found = pa.concat_tables([actor(rows.slice(start, 4), columns=roles, id_column=None) for start in (0, 4, 8)])
    expected = toy_encoder().transform(Items({"text": captions, "image": pictures}))
    for role in roles:
        assert found.column(f"{role}_embedding").null_count == 1
        np.testing.assert_allclose(as_vectors(found.column(f"{role}_embedding"), ""), expected[role], atol=1e-6)
    assert one_name(found, "encoder") == expected.encoder
    release_models()


def png(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def test_actors_take_gpus_where_there_are_and_leave_a_cpu_to_what_reads(cluster):
    assert (_gpus(toy_encoder()), _gpus(toy_encoder(device="cpu"))) == (1, 0)
    assert (_actors(0), _actors(1), _actors(0.25)) == (1, 1, 4)
    assert (_cpus(0, 1), _cpus(0, 5), _cpus(1, 1), _cpus(0.5, 2)) == (None, None, None, 0)  # of two, one has to read


@pytest.mark.parametrize("taller", [0, 1])
def test_pictures_may_be_tensors_of_ray(cluster, taller):
    class Means:
        def transform(self, items):
            return Items({"image": np.array([[x.mean(), x.shape[1]] for x in items["image"]], np.float32)})

    pictures = [np.full((4, 4 + taller * i, 3), i, np.uint8) for i in range(2)]
    (rows,) = ray.get(
        ray.data.from_items([{"p": picture} for picture in pictures], override_num_blocks=1).to_arrow_refs()
    )
    found = Encoder(Means(), "encoder")(rows, columns={"image": "p"}, id_column=None)
    assert found.column("image_embedding").to_pylist() == [[0.0, 4.0], [1.0, 4.0 + taller]]
    assert found.column("encoder").to_pylist() == [None, None]


# What is refused before anything is read


def test_arguments_are_checked_before_the_dataset_is_read(cluster, table):
    dataset, pipeline = ray.data.from_arrow([table]), fitted(table)
    with pytest.raises(TypeError, match=r"dataset must be a ray\.data\.Dataset.*got Table"):
        fit(table)
    with pytest.raises(TypeError, match="columns must be a dict from role to the name of a column; got 'text'"):
        fit(dataset, "text")
    with pytest.raises(ValueError, match=r"no column 'pixels' \(role 'image'\); there are 'id', 'text_embedding'"):
        fit(dataset, {"image": "pixels"})
    with pytest.raises(ValueError, match="id_column='key' is no column"):
        fit(dataset, id_column="key")
    with pytest.raises(TypeError, match="normalize must be True or False"):
        fit(dataset, normalize="no")
    with pytest.raises(ValueError, match="column 'id' is there already"):
        transform(dataset, pipeline, output="id")
    with pytest.raises(ValueError, match="batch_size must be a whole number"):
        transform(dataset, pipeline, batch_size=0)
    with pytest.raises(TypeError, match=r"ends in ExactRetriever.*pipeline\[:-1\]"):
        transform(dataset, Pipeline([*pipeline.steps, ("search", ExactRetriever())]))
    with pytest.raises(TypeError, match="ends in ModalityGapRemover"):
        transform(dataset, ModalityGapRemover().fit(items_of(table)))
    with pytest.raises(TypeError, match=r"begins with OpenCLIPEncoder.*pipeline\[1:\]"):
        transform(dataset, Pipeline([("encode", toy_encoder()), *pipeline.steps]))
    with pytest.raises(NotFittedError):
        transform(dataset, MultimodalFuser())
    with pytest.raises(ValueError, match="column 'v' cannot hold both vectors and fingerprints"):
        transform(dataset, pipeline, output="v", calibrator_column="v")
    for taken in ("id", "encoder"):
        with pytest.raises(ValueError, match=f"column '{taken}' is there already"):
            transform(dataset, pipeline, calibrator_column=taken)
    with pytest.raises(ValueError, match="column 'query_embedding' cannot hold both"):
        encode(dataset, toy_encoder(), {"query": "id"}, encoder_column="query_embedding")
    with pytest.raises(ValueError, match="column 'text_embedding' is there already"):
        encode(dataset, toy_encoder(), {"text": "id"})
    with pytest.raises(ValueError, match="concurrency must be a whole number"):
        encode(dataset, toy_encoder(), {"query": "id"}, concurrency=0)
    for no_encoder in ("ViT-B-32", Letters):
        with pytest.raises(TypeError, match=r"encoder must be an encoder, such as OpenCLIPEncoder\(\.\.\.\)"):
            encode(dataset, no_encoder, {"query": "id"})
    for amount in ({"num_gpus": float("nan")}, {"num_cpus": -1}, {"num_cpus": "2"}):
        with pytest.raises(ValueError, match=rf"{next(iter(amount))} must be a number of at least 0"):
            encode(dataset, toy_encoder(), {"query": "id"}, **amount)
    for nameless in ({"output": ""}, {"output": 3}, {"calibrator_column": 5}):
        with pytest.raises(TypeError, match=f"{next(iter(nameless))} must be the name of a column"):
            transform(dataset, pipeline, **nameless)
    with pytest.raises(TypeError, match="encoder_column must be the name of a column; got None"):
        encode(dataset, toy_encoder(), {"query": "id"}, encoder_column=None)


# What runs in workers, run here


def test_steps_of_workers_say_what_is_wrong(table, tmp_path):
    options = {"columns": COLUMNS, "encoder_column": "encoder", "id_column": "id"}
    fine, wrong = (fit_block(t, normalize=True, **options) for t in (table, broken(table, 6, [np.nan])))
    assert fine.column("problem").null_count == wrong.column("state").null_count == 1
    assert fit_block(table.slice(0, 0), normalize=True, **options).column("state").null_count == 1
    words = pa.table({"id": [1, 2], "t": ["a", None], "encoder": ["letters@1", "letters@2"]})
    actor, asked = Encoder(Letters(tmp_path), "encoder"), {"columns": {"text": "t"}, "id_column": "id"}
    assert actor(words[:1], **asked).column("text_embedding").to_pylist() == [[1.0] * 4]
    with pytest.raises(ValueError, match="names two encoders, 'letters@2' and 'letters@1'"):
        actor(words[1:], **asked)
    with pytest.raises(ValueError, match=r"'text_embedding' is there already.*'id' of its first row: 1"):
        actor(actor(words[:1], **asked), **asked)


def test_a_batch_is_transformed_as_by_the_pipeline(cluster, table):
    pipeline = fitted(table)
    options = {"columns": COLUMNS, "output": "v", "encoder_column": "encoder", "id_column": None}
    kept = ray.put(pipeline)
    found = transform_batch(table, pipeline=kept, fingerprint="c@1", calibrator_column=None, **options)
    assert found.column_names == ["id", "encoder", "v"]
    assert as_vectors(found.column("v"), "").tobytes() == pipeline.transform(items_of(table)).tobytes()
    assert raw_values(found.column("encoder"))[:1] == ["model@1"]


def test_fused_vectors_are_not_calibrated_again(cluster, table):
    pipeline = fitted(table)
    options = {"output": "v", "encoder_column": "encoder", "id_column": None}
    fused = transform_batch(
        table, pipeline=ray.put(pipeline), fingerprint=pipeline_fingerprint(pipeline), columns=COLUMNS,
        calibrator_column="calibrator", **options,
    )  # fmt: skip
    told = "column 'calibrator' says that grclip@.* made the vectors: means would be subtracted twice"
    for use in (fit, to_items):
        with pytest.raises(ValueError, match=told):
            use(ray.data.from_arrow(fused), {"text": "v"})
    with pytest.raises(ValueError, match=told):
        transform_batch(
            fused, pipeline=ray.put(pipeline), fingerprint="", columns={"text": "v"},
            calibrator_column=None, **{**options, "output": "w"},
        )  # fmt: skip


def test_a_calibrator_is_not_written_over_where_the_schema_was_not_known(cluster, table):
    options = {"columns": COLUMNS, "output": "v", "encoder_column": "encoder", "id_column": "id"}
    kept = ray.put(fitted(table))
    with pytest.raises(ValueError, match="column 'id' is there already"):
        transform_batch(table, pipeline=kept, fingerprint="c@1", calibrator_column="id", **options)


def test_one_column_may_have_two_roles_and_steps_may_be_frozen(cluster, table):
    pipeline = fitted(table)
    frozen = make_pipeline(*map(FrozenEstimator, pipeline))
    texts = table.filter(pc.is_valid(table["text_embedding"])).drop_columns("image_embedding")
    both = {"text": "text_embedding", "image": "text_embedding"}
    found = transform(ray.data.from_arrow([texts]), frozen, both).take_batch(len(texts))
    x = as_vectors(texts.column("text_embedding"), "")
    expected = pipeline.transform(Items({"text": x, "image": x}, encoder="model@1"))
    np.testing.assert_array_equal(np.stack(found["vector"]), expected)
    assert sorted(found) == ["calibrator", "encoder", "id", "vector"]


def test_a_calibrator_from_a_file_may_be_a_step_or_be_frozen_itself(cluster, table, tmp_path):
    save_pipeline(fitted(table), tmp_path / "calibrator")
    loaded = load_pipeline(tmp_path / "calibrator")
    expected = loaded.transform(items_of(table.sort_by("id")))
    for nested in (
        make_pipeline(FrozenEstimator(loaded)),
        make_pipeline(loaded, "passthrough"),
        FrozenEstimator(loaded),
    ):
        found = by_id(transform(ray.data.from_arrow([table]), nested))
        assert as_vectors(found.column("vector"), "").tobytes() == expected.tobytes()
        assert one_name(found, "calibrator") == pipeline_fingerprint(loaded)


def test_an_encoder_or_a_retriever_within_a_nested_pipeline_is_refused(cluster, table):
    dataset, inner = ray.data.from_arrow([table]), fitted(table)
    with pytest.raises(TypeError, match="pipeline begins with OpenCLIPEncoder, an encoder"):
        transform(dataset, make_pipeline(make_pipeline(toy_encoder()), FrozenEstimator(inner)))
    with pytest.raises(TypeError, match="pipeline ends in ExactRetriever"):
        transform(dataset, make_pipeline(inner, make_pipeline(ExactRetriever())))
    with pytest.raises(TypeError, match="pipeline ends in no step"):
        transform(dataset, make_pipeline("passthrough"))


def test_tensors_of_more_than_one_dimension_are_no_vectors(rng):
    pictures = pa.table({"p": pa.FixedShapeTensorArray.from_numpy_ndarray(rng.normal(size=(3, 2, 4)))})
    with pytest.raises(TypeError, match=r"column 'p' \(role 'image'\) holds tensors of shape \(2, 4\)"):
        parts_of_table(pictures, {"image": "p"})


def test_a_block_without_rows_may_have_no_chunk(table):
    empty = pa.table({name: pa.chunked_array([], type=table.schema.field(name).type) for name in table.column_names})
    options = {"columns": COLUMNS, "encoder_column": "encoder", "id_column": "id"}
    assert fit_block(empty, normalize=True, **options).to_pylist() == [{"state": None, "problem": None}]


def test_a_worker_with_another_version_says_so(table, tmp_path):
    options = {"columns": COLUMNS, "encoder_column": "encoder", "id_column": None, "version": "0.0.1"}
    told = f"has grclip {__version__}, but the process that gave it the work has 0.0.1"
    with pytest.raises(RuntimeError, match=told):
        fit_block(table, normalize=True, **options)
    with pytest.raises(RuntimeError, match=told):
        transform_batch(table, pipeline=None, fingerprint="", output="v", calibrator_column=None, **options)
    with pytest.raises(RuntimeError, match=told):
        Encoder(Letters(tmp_path), "encoder", "0.0.1")


class Odd:
    """An encoder that does what its function says."""

    fingerprint = "odd@1"

    def __init__(self, call):
        self.transform = call


@pytest.mark.parametrize(
    "call",
    [
        lambda items: np.ones((len(items), 4)),
        lambda items: Items({"text": np.ones((len(items) - 1, 4))}),
        lambda items: Items({"query": np.ones((len(items), 4))}),
        lambda items: Items({"text": [None] * len(items)}),
    ],
)
def test_what_an_encoder_gives_has_to_be_embeddings_of_the_same_rows_and_roles(call):
    words = pa.table({"id": [7, 8], "t": ["a", "b"]})
    with pytest.raises(TypeError, match=r"(?s)the encoder gave .* for Items\(n=2, text=.*'id' of its first row: 7"):
        Encoder(Odd(call), "encoder")(words, columns={"text": "t"}, id_column="id")


def test_errors_of_other_kinds_are_kept_and_told_with_their_place():
    def fail(items):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory") as caught:
        Encoder(Odd(fail), "encoder")(pa.table({"id": [7], "t": ["a"]}), columns={"text": "t"}, id_column="id")
    assert caught.value.__notes__[0].endswith("of column 't' (role 'text'); 'id' of its first row: 7")


class Unloadable(Odd):
    @property
    def fingerprint(self):
        raise AttributeError("the weights of ViT-X are not in the cache")


def test_a_model_that_cannot_be_loaded_is_told_to_the_driver(cluster):
    with pytest.raises(AttributeError, match="weights of ViT-X"):
        Encoder(Unloadable(len), "encoder")
    words = ray.data.from_items([{"t": "a"}])
    with pytest.raises(ray.exceptions.RayError, match="weights of ViT-X are not in the cache"):
        encode(words, Unloadable(len), {"text": "t"}, num_gpus=0, concurrency=1).materialize()
