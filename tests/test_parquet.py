"""Parquet: columns of vectors, the commands on files, and what faults leave: kill -9, a full disk, a second writer."""

import errno
import fcntl
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from conftest import unit

from grclip import Items, ModalityGapRemover, MultimodalFuser, SearchTask, load_pipeline, save_pipeline
from grclip import _batch as batch
from grclip import _transform_files as transforming
from grclip._append import AppendedParquet, _advance, _After
from grclip._fit_files import fit_files
from grclip._parquet import KEY, Source, as_lists, as_vectors, opened
from grclip._transform_files import transform_files
from grclip.cli import main
from grclip.persistence import save_state

N, D = 600, 16
COLUMNS = {"text": "text_embedding", "image": "image_embedding"}
WORDS = ["--column", "text=text_embedding", "--column", "image=image_embedding"]
ASKED = ["--query-column", "query=query_embedding"]


def drawn(n=N, d=D, dtype=np.float16, seed=0):
    """Documents in kinds 1:1:1, and queries, with a gap between modalities."""
    rng = np.random.default_rng(seed)
    topics = rng.normal(size=(n, d))
    text, image, query = (
        unit(topics + 0.3 * rng.normal(size=(n, d)) + 2 * rng.normal(size=d)).astype(dtype) for _ in range(3)
    )
    text[1::3] = image[::3] = np.nan
    return {"text": text, "image": image}, query


def lists(x, dtype=None):
    """A column of lists in which missing rows are null."""
    kind = pa.list_(pa.from_numpy_dtype(x.dtype), x.shape[1]) if dtype is None else dtype
    return pa.array([None if np.isnan(row).all() else row.tolist() for row in x.astype(float)], type=kind)


def write(path, parts, *, encoder=None, row_group_size=100, **others):
    """Documents with ids and names, as a user has them."""
    n = len(next(iter(parts.values())))
    columns = {f"{role}_embedding": lists(part) for role, part in parts.items()}
    table = pa.table({"id": np.arange(n), **columns, "name": [f"n{i % 7}" for i in range(n)], **others})
    if encoder:
        table = table.replace_schema_metadata({KEY: json.dumps({"schema_version": 1, "encoder": encoder})})
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """Files of some hundred rows are read in several pieces, as large ones are."""
    monkeypatch.setattr(batch, "BATCH", 64 * 2 * 2 * D)
    monkeypatch.setattr(transforming, "GROUP", 2)


@pytest.fixture
def files(tmp_path):
    """Documents, queries, and a calibrator learned from them."""
    parts, query = drawn()
    documents = write(tmp_path / "docs.parquet", parts)
    queries = write(tmp_path / "queries.parquet", {"query": query}, row_group_size=1000)
    pipeline = fit_files(
        [documents], COLUMNS, tmp_path / "c.safetensors", queries=[queries],
        query_columns={"query": "query_embedding"}, equalize=True,
    )  # fmt: skip
    return tmp_path, parts, query, pipeline


def run(capsys, *words):
    status = main([str(word) for word in words])
    return status, *capsys.readouterr()


def transform_file(path, output, calibrator, columns):
    """What became of a file that is transformed."""
    [done] = transform_files([path], [output], calibrator, columns)
    return done


def transform(capsys, folder, *more, source="docs.parquet", output="out.parquet"):
    words = ["transform", folder / source, folder / output, "--calibrator", folder / "c.safetensors"]
    return run(capsys, *words, *(more or WORDS))


class TestColumns:
    KINDS = (pa.list_(pa.float16(), D), pa.list_(pa.float16()), pa.large_list(pa.float16()))

    @pytest.mark.parametrize("kind", KINDS, ids=str)
    def test_lists_of_every_sort_are_the_same_array(self, kind):
        parts, _ = drawn(50)
        for column in (lists(parts["text"], kind), lists(parts["text"][10:], kind)[5:20]):
            rows = slice(None) if len(column) == 50 else slice(15, 30)
            np.testing.assert_array_equal(as_vectors(column, "here"), parts["text"][rows])
        pieces = pa.chunked_array([lists(parts["text"][a:b], kind) for a, b in ((0, 1), (1, 30), (30, 50))])
        np.testing.assert_array_equal(as_vectors(pieces, "here"), parts["text"])

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_numbers_of_every_width_there_and_back(self, dtype, rng, tmp_path):
        x = rng.normal(size=(9, 5)).astype(dtype)
        pq.write_table(pa.table({"x": as_lists(x)}), tmp_path / "x")
        found = as_vectors(pq.read_table(tmp_path / "x")["x"], "here")
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, x)

    def test_numbers_behind_a_null_mean_nothing(self):
        values = pa.array(np.arange(12, dtype=np.float32))
        column = pa.FixedSizeListArray.from_arrays(values, 4, mask=pa.array([False, True, False]))
        np.testing.assert_array_equal(as_vectors(column, "here")[[0, 2]], [[0, 1, 2, 3], [8, 9, 10, 11]])
        assert np.isnan(as_vectors(column, "here")[1]).all()

    def test_tensor_columns(self, rng):
        x = rng.normal(size=(4, 3)).astype(np.float32)
        tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(x)
        np.testing.assert_array_equal(as_vectors(pa.chunked_array([tensors]), "here"), x)

    def test_a_column_of_nulls_alone(self):
        assert as_vectors(pa.array([None, None], pa.list_(pa.float32())), "here") is None
        assert as_vectors(pa.array([None, None], pa.list_(pa.float32())), "here", width=3).shape == (2, 3)
        assert np.isnan(as_vectors(pa.array([None], pa.list_(pa.float32(), 3)), "here")).all()
        assert as_vectors(pa.nulls(2), "here") is None
        assert np.isnan(as_vectors(pa.nulls(2), "here", width=3)).all()

    @pytest.mark.parametrize(
        ("column", "message"),
        [
            (pa.array([[1.0], [1.0, 2.0], [3.0]]), r"vectors of 2 numbers in 1 row \(101\), where 1 are expected"),
            (pa.array([[1.0, None], [1.0, 2.0]]), r"nulls inside the vectors of 1 row \(100\)"),
            (pa.array([[1.0, 2.0], None, [1.0, None]], pa.list_(pa.float32(), 2)), r"nulls inside .* 1 row \(102\)"),
            (
                pa.array([[], []], pa.list_(pa.float32())),
                r"vectors of 0 numbers in 2 rows \(100, 101\); write null where",
            ),
            (
                pa.array([[], [1.0, 2.0]]),
                r"vectors of 0 numbers in 1 row \(100\), where 2 are expected; write null where",
            ),
        ],
    )
    def test_rows_that_are_no_vectors(self, column, message):
        with pytest.raises(ValueError, match=f"here has {message}"):
            as_vectors(column, "here", first=100)

    def test_empty_lists_alone(self):
        with pytest.raises(TypeError, match="write null, not an empty list, where a part is missing"):
            as_vectors(pa.array([[], []]), "here")

    @pytest.mark.parametrize("column", [pa.array([1.0]), pa.array(["a"]), pa.array([[1]]), pa.array([["a"]])])
    def test_columns_that_hold_no_vectors(self, column):
        with pytest.raises(TypeError, match=r"here is of type .*; expected lists of float16, float32 or float64"):
            as_vectors(column, "here")

    @pytest.mark.parametrize("size", [1, 7, 100, 1000])
    @pytest.mark.parametrize("start", [0, 1, 99, 100, 250, 599])
    def test_rows_come_in_equal_pieces_from_any_place(self, tmp_path, size, start):
        parts, _ = drawn()
        source = Source.open(write(tmp_path / "d", parts, row_group_size=70), COLUMNS)
        pieces = list(source.tables(["id", "text_embedding"], size, start))
        assert [first for first, _ in pieces] == list(range(start, N, size))
        assert {len(table) for _, table in pieces[:-1]} <= {size}
        whole = pa.concat_tables([table for _, table in pieces])
        assert whole["id"].to_pylist() == list(range(start, N))
        np.testing.assert_array_equal(as_vectors(whole["text_embedding"], ""), parts["text"][start:])


class TestFit:
    def test_it_learns_what_one_fit_in_memory_learns(self, files):
        folder, parts, query, pipeline = files
        task = SearchTask(Items({"query": query}), Items(parts))
        remover = ModalityGapRemover().fit(task)
        again = load_pipeline(folder / "c.safetensors")
        assert again["degap"].n_samples_seen_ == remover.n_samples_seen_
        for role, mean in remover.means_.items():
            np.testing.assert_allclose(again["degap"].means_[role], mean, rtol=0, atol=1e-12)
        fuser = MultimodalFuser(equalize=True).fit(remover.transform(task))
        assert again["fuse"].spread_.keys() == fuser.spread_.keys()
        for kind, spread in fuser.spread_.items():
            assert again["fuse"].spread_[kind] == pytest.approx(spread, rel=1e-3)
        assert pipeline["fuse"].query_roles_ == {"query"}

    def test_queries_from_a_column_of_the_same_file_and_a_bounded_sample(self, capsys, tmp_path):
        parts, query = drawn(dtype=np.float32)
        write(tmp_path / "all", {**parts, "query": query})
        words = ["fit", tmp_path / "all", "--output", tmp_path / "c", *WORDS, *ASKED, "--equalize", "--sample", "200"]
        status, out, err = run(capsys, *words)
        assert (status, err) == (0, "")
        assert "means of rows: text 400, image 400, query 600" in out
        assert "spreads: image 0." in out
        assert set(load_pipeline(tmp_path / "c")["fuse"].spread_) == set(map(frozenset, (["text"], ["image"], COLUMNS)))

    def test_several_files_are_one_collection(self, capsys, tmp_path):
        parts, _ = drawn()
        for i in range(3):
            write(tmp_path / f"{i}", {role: part[200 * i : 200 * (i + 1)] for role, part in parts.items()})
        write(tmp_path / "all", parts)
        for names, output in ((["0", "1", "2"], "some"), (["all"], "one")):
            assert run(capsys, "fit", *(tmp_path / n for n in names), "--output", tmp_path / output, *WORDS)[0] == 0
        some, one = (load_pipeline(tmp_path / name)["degap"] for name in ("some", "one"))
        assert some.n_samples_seen_ == one.n_samples_seen_
        np.testing.assert_allclose(some.means_["image"], one.means_["image"], rtol=0, atol=1e-12)

    def test_lists_of_any_length_whose_first_rows_are_null(self, capsys, tmp_path):
        parts, _ = drawn()
        parts["text"][:100] = np.nan
        columns = {f"{role}_embedding": lists(part, pa.list_(pa.float16())) for role, part in parts.items()}
        kept = np.flatnonzero(~(np.isnan(parts["text"][:, 0]) & np.isnan(parts["image"][:, 0])))
        pq.write_table(pa.table(columns).take(kept), tmp_path / "d")
        assert run(capsys, "fit", tmp_path / "d", "--output", tmp_path / "c", *WORDS)[0] == 0
        assert load_pipeline(tmp_path / "c")["degap"].n_samples_seen_["text"] == 333

    def test_shards_of_one_kind_and_empty_ones_whose_columns_have_the_type_null(self, capsys, files):
        """As pandas writes them: it knows the type of a column by its values alone."""
        folder, parts, *_ = files
        pandas = pytest.importorskip("pandas")
        lists_of = {f"{role}_embedding": [None if np.isnan(row).all() else row for row in part.astype(np.float32)]
                    for role, part in parts.items()}  # fmt: skip
        frame = pandas.DataFrame({"id": range(N), **lists_of})
        kinds = frame[list(lists_of)].notna().astype(int).sum(axis=1) + frame["image_embedding"].notna()
        shards = [*(frame[kinds == kind] for kind in (1, 2, 3)), frame[:0]]
        for i, shard in enumerate(shards):
            shard.to_parquet(folder / f"{i}.parquet")
        nulls = [{str(field.type) for field in pq.read_schema(folder / f"{i}.parquet")} for i in range(4)]
        assert ["null" in types for types in nulls] == [True, True, False, True]
        names = [folder / f"{i}.parquet" for i in (3, 1, 0, 2)]
        assert run(capsys, "fit", *names, "--output", folder / "c.safetensors", *WORDS)[::2] == (0, "")
        pipeline = load_pipeline(folder / "c.safetensors")
        assert pipeline["degap"].n_samples_seen_ == {"text": 400, "image": 400}
        whole = pipeline.transform(Items({role: part.astype(np.float32) for role, part in parts.items()}))
        for i, shard in enumerate(shards):
            assert transform(capsys, folder, source=f"{i}.parquet")[::2] == (0, "")
            found = pq.read_table(folder / "out.parquet")
            assert found.schema.field("vector").type == pa.list_(pa.field("element", pa.float32()), D)
            np.testing.assert_array_equal(as_vectors(found["vector"], "", width=D), whole[shard["id"]])
        write_null = ["fit", folder / "1.parquet", "--output", folder / "new", *WORDS]
        status, _, err = run(capsys, *write_null)
        assert (status, "(role 'text') holds no vector in any of 1 file(s)" in err) == (1, True)

    def test_the_encoder_is_kept(self, capsys, tmp_path):
        parts, _ = drawn()
        write(tmp_path / "said", parts, encoder="toy")
        write(tmp_path / "unsaid", parts)
        words = ["--output", tmp_path / "c", *WORDS]
        assert run(capsys, "fit", tmp_path / "said", *words)[0] == 0
        assert load_pipeline(tmp_path / "c")["degap"].encoder_ == "toy"
        assert run(capsys, "fit", tmp_path / "unsaid", *words, "--encoder", "SigLIP")[0] == 0
        assert load_pipeline(tmp_path / "c")["degap"].encoder_ == "SigLIP"
        status, _, err = run(capsys, "fit", tmp_path / "said", tmp_path / "unsaid", *words)
        assert status == 0
        assert err == (
            f"grclip: cannot check that one encoder made all vectors: {tmp_path / 'said'} says 'toy', "
            f"{tmp_path / 'unsaid'} nothing; if it is the same, say --encoder NAME\n"
        )

    @pytest.mark.parametrize("statistics", [True, False])
    def test_columns_of_fingerprints_count_where_metadata_are_silent(self, capsys, tmp_path, statistics):
        """As Ray writes them, which keeps no metadata."""
        parts, _ = drawn()
        encoder = "toy@0123456789abcdef"
        table = pq.read_table(write(tmp_path / "metadata", parts, encoder=encoder)).replace_schema_metadata(None)
        rows = table.append_column("encoder", pa.array([encoder] * (N - 1) + [None]))
        pq.write_table(rows, tmp_path / "rows", row_group_size=100, write_statistics=statistics)
        prints = []
        for name in ("rows", "metadata"):
            status, out, err = run(capsys, "fit", tmp_path / name, "--output", tmp_path / "c.safetensors", *WORDS)
            assert (status, err) == (0, "")
            prints.append(out.split("\n")[0])
        assert prints[0] == prints[1]
        assert transform(capsys, tmp_path, source="rows")[::2] == (0, "")
        _, out, _ = run(capsys, "info", tmp_path / "rows")
        assert "encoder     toy@0123456789abcdef (column 'encoder')\n  column" in out
        fused = {"vector": lists(parts["text"]), "calibrator": ["grclip@0123456789abcdef"] * N}
        write(tmp_path / "fused", parts, **fused)
        if not statistics:
            pq.write_table(pq.read_table(tmp_path / "fused"), tmp_path / "fused", write_statistics=False)
        status, _, err = transform(capsys, tmp_path, "--column", "text=vector", source="fused")
        assert status == 1
        assert "fused: column 'calibrator' says that grclip@0123456789abcdef made its vectors: means would be" in err
        _, out, _ = run(capsys, "info", tmp_path / "fused")
        assert "calibrator  grclip@0123456789abcdef (column 'calibrator')" in out
        two = pa.array(["b@0123456789abcdef", "a@0123456789abcdef"] * (N // 2))
        pq.write_table(table.append_column("encoder", two), tmp_path / "two", write_statistics=statistics)
        status, _, err = run(capsys, "fit", tmp_path / "two", "--output", tmp_path / "new", *WORDS)
        told = (
            "column 'encoder' and metadata name several encoders: 'a@0123456789abcdef', 'b@0123456789abcdef'; write the"
        )
        assert (status, told in err) == (1, True)

    def test_statistics_that_a_writer_has_cut_short(self, capsys, tmp_path):
        """As arrow-rs writes those of long values: a prefix as the smallest, and a larger one as the largest."""
        encoder = f"{'long/' * 14}@0123456789abcdef".encode()
        table = pq.read_table(write(tmp_path / "d", drawn()[0])).append_column(
            "encoder", pa.array([encoder.decode()] * N)
        )
        pq.write_table(table, tmp_path / "d")
        whole = (tmp_path / "d").read_bytes()
        start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
        before, between, after = whole[start:-8].split(bytes([len(encoder)]) + encoder)
        cut = encoder[:64]
        footer = before + b"\x40" + cut[:-1] + b"~" + between + b"\x40" + cut + after
        (tmp_path / "d").write_bytes(whole[:start] + footer + len(footer).to_bytes(4, "little") + b"PAR1")
        statistics = pq.read_metadata(tmp_path / "d").row_group(0).column(4).statistics
        assert (statistics.min, statistics.max) == (cut.decode(), cut.decode()[:-1] + "~")
        _, out, _ = run(capsys, "info", tmp_path / "d")
        assert f"encoder     {encoder.decode()} (column 'encoder')\n" in out

    @pytest.mark.parametrize("values", [["H264"] * N, [3] * N, [["toy@0123456789abcdef"]] * N])
    def test_columns_of_these_names_that_hold_something_else(self, capsys, tmp_path, values):
        table = pq.read_table(write(tmp_path / "d", drawn()[0]))
        for name in ("encoder", "calibrator"):
            table = table.append_column(name, pa.array(values))
        pq.write_table(table, tmp_path / "d")
        assert run(capsys, "fit", tmp_path / "d", "--output", tmp_path / "c.safetensors", *WORDS)[::2] == (0, "")
        assert load_pipeline(tmp_path / "c.safetensors")["degap"].encoder_ is None
        assert transform(capsys, tmp_path, source="d")[0] == 0

    def test_a_column_of_encoders_that_says_other_than_the_metadata_or_itself(self, capsys, tmp_path):
        table = pq.read_table(write(tmp_path / "d", drawn()[0], encoder="toy"))
        for values, named in (
            (["toy@0123456789abcdef"] * N, "'toy', 'toy@0123456789abcdef'"),
            (["toy", "toy@0123456789abcdef"] * (N // 2), "'toy', 'toy@0123456789abcdef'"),
        ):
            pq.write_table(table.append_column("encoder", pa.array(values)), tmp_path / "d")
            status, _, err = run(capsys, "fit", tmp_path / "d", "--output", tmp_path / "c.safetensors", *WORDS)
            assert (status, f"name several encoders: {named}; write" in err) == (1, True)

    def test_two_encoders_are_an_error(self, capsys, tmp_path):
        parts, _ = drawn(30)
        for name in ("toy", "SigLIP"):
            write(tmp_path / name, parts, encoder=name)
        status, _, err = run(capsys, "fit", tmp_path / "toy", tmp_path / "SigLIP", "--output", tmp_path / "c", *WORDS)
        assert status == 1
        assert f"several encoders: 'toy' ({tmp_path / 'toy'}), 'SigLIP' ({tmp_path / 'SigLIP'})" in err
        status, _, err = run(capsys, "fit", tmp_path / "toy", "--output", tmp_path / "c", *WORDS, "--encoder", "SigLIP")
        assert (status, "(--encoder)" in err, (tmp_path / "c").exists()) == (1, True, False)

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--column", "text=none"], "docs.parquet has no column 'none' (role 'text'); it has id, text_embedding"),
            (["--column", "text=id"], "column 'id' (role 'text') is of type int64; expected lists of float16"),
            ([*WORDS, "--equalize"], "--equalize measures documents against queries: give --query-column"),
            ([*WORDS, "--queries", "docs.parquet"], "--queries needs to know its column"),
            ([*WORDS, "--query-column", "text=text_embedding"], "share the role 'text'"),
            ([*WORDS, "--column", "text=image_embedding"], "--column names a role twice"),
            (["--column", "text=text_embedding", "--column", "image=text_embedding"], "names a column twice"),
            ([*WORDS, "--output", "none/c"], "there is no folder"),
            ([*WORDS, "--alpha", "3"], "alpha must be a number from 0 to 1; got 3.0"),
            ([*WORDS, "--weight", "text=1"], "weights of 'text' leave out 'image'; give every role of a side"),
            ([*WORDS, "--weight", "title=1"], "weights name 'title', but X has the roles 'text', 'image'"),
            ([*WORDS, "--weight", "text=1", "--weight", "text=2"], "--weight names a role twice: text=1.0, text=2.0"),
            ([*WORDS, "--weight", "text=-1", "--weight", "image=2"], "weights['text'] must be a finite number"),
            ([*WORDS, "--sample", "0"], "sample must be a whole number of at least 1"),
            (["--column", "sketch=text_embedding"], "say which of text, image, audio, video it is: --modality sketch="),
            ([*WORDS, "--modality", "text=words"], "--modality text=words: expected one of text, image, audio, video"),
            (["--column", "text=text_embedding"], "no part at all in 43 rows (1, 4, 7, 10, 13, ...): nothing in"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_learned_from(self, capsys, files, monkeypatch, words, message):
        monkeypatch.chdir(files[0])
        before = (files[0] / "c.safetensors").read_bytes()
        status, _, err = run(capsys, "fit", "docs.parquet", "--output", "c.safetensors", *words)
        assert status == 1
        assert message in err
        assert (files[0] / "c.safetensors").read_bytes() == before

    def test_nothing_is_written_over_what_is_read(self, capsys, files):
        folder, *_ = files
        os.link(folder / "docs.parquet", folder / "same.parquet")
        before = {name: (folder / name).read_bytes() for name in ("docs.parquet", "queries.parquet")}
        for name in ("docs.parquet", "same.parquet", "queries.parquet"):
            words = ["fit", folder / "docs.parquet", "--output", folder / name, *WORDS]
            status, _, err = run(capsys, *words, "--queries", folder / "queries.parquet", *ASKED)
            assert (status, f"{folder / name} is the file that is read; write to another" in err) == (1, True)
        assert {name: (folder / name).read_bytes() for name in before} == before

    def test_devices_and_unfinished_files_are_not_replaced(self, capsys, files):
        folder, *_ = files
        os.mkfifo(folder / "pipe")
        for words in (["fit", folder / "docs.parquet", "--output", folder / "pipe", *WORDS],
                      ["transform", folder / "docs.parquet", folder / "pipe", "--calibrator", folder / "c.safetensors",
                       *WORDS]):  # fmt: skip
            status, _, err = run(capsys, *words)
            assert (status, "pipe is a device or a pipe, which would be replaced" in err) == (1, True)
        assert (folder / "pipe").is_fifo()
        os.rename(folder / "docs.parquet", folder / ".out.parquet.part")
        before = (folder / ".out.parquet.part").read_bytes()
        status, _, err = transform(capsys, folder, source=".out.parquet.part")
        assert (status, ".out.parquet.part is the file that is read; write to another" in err) == (1, True)
        assert (folder / ".out.parquet.part").read_bytes() == before

    def test_data_is_not_replaced(self, capsys, files):
        folder, parts, *_ = files
        other = write(folder / "other.parquet", parts)
        (folder / "notes.txt").write_text("of another kind")
        (folder / "empty.parquet").touch()
        (folder / "damaged.parquet").write_bytes(other.read_bytes()[:-1])
        for name in ("other.parquet", "notes.txt", "damaged.parquet"):
            before = (folder / name).read_bytes()
            status, _, err = transform(capsys, folder, output=name)
            told = f"{name} is there, and grclip transform did not write it; name a file to write, or --output-dir"
            assert (status, told in err, (folder / name).read_bytes()) == (1, True, before)
        status, _, err = run(capsys, "fit", folder / "docs.parquet", "--output", other, *WORDS)
        assert (status, "other.parquet is a Parquet file, which the calibrator would replace" in err) == (1, True)
        assert [transform(capsys, folder, output="empty.parquet")[0] for _ in range(2)] == [0, 0]

    def test_a_file_that_is_named_twice(self, capsys, files):
        folder, *_ = files
        (folder / "link").symlink_to("docs.parquet")
        words = ["--output", folder / "new", *WORDS]
        status, _, err = run(capsys, "fit", folder / "docs.parquet", folder / "link", *words)
        assert (status, "link are one file, whose rows would count twice; name it once" in err) == (1, True)
        status, _, err = run(capsys, "fit", folder / "docs.parquet", "--output", folder, *WORDS)
        assert (status, f"{folder} is a folder; name a file in it to write to" in err) == (1, True)

    def test_roles_of_other_names(self, capsys, tmp_path):
        parts, _ = drawn()
        write(tmp_path / "d", {"sketch": parts["image"], "text": parts["text"]})
        words = ["--column", "sketch=sketch_embedding", "--column", "text=text_embedding"]
        status, *_ = run(
            capsys, "fit", tmp_path / "d", "--output", tmp_path / "c", *words, "--modality", "sketch=image"
        )
        assert status == 0
        assert load_pipeline(tmp_path / "c")["fuse"].modalities == {"sketch": "image"}

    def test_weights_of_roles(self, capsys, files):
        folder, parts, *_ = files
        words = ["fit", folder / "docs.parquet", "--output", folder / "w", *WORDS]
        assert run(capsys, *words, "--weight", "text=1", "--weight", "image=2")[0] == 0
        again, weights = load_pipeline(folder / "w"), {"text": 1, "image": 2}
        assert again["fuse"].weights == weights
        expected = MultimodalFuser(weights=weights).fit_transform(again["degap"].transform(Items(parts)))
        np.testing.assert_array_equal(again.transform(Items(parts)), expected)

    def test_parameters_are_checked_before_anything_is_read(self, capsys, files, monkeypatch):
        folder, *_ = files
        monkeypatch.setattr(Source, "open", None)
        for more in (["--alpha", "3"], ["--weight", "text=1"]):
            words = ["fit", folder / "docs.parquet", "--output", folder / "w", *WORDS]
            assert run(capsys, *words, *more)[0] == 1

    def test_an_option_that_is_no_pair(self, capsys):
        with pytest.raises(SystemExit):
            main(["fit", "d", "--output", "c", "--column", "text=t", "--weight", "text=much"])
        assert "'text=much': 'much' is no number" in capsys.readouterr().err
        with pytest.raises(SystemExit):
            main(["fit", "d", "--output", "c", "--column", "text"])
        assert "'text' is not of the form role=name" in capsys.readouterr().err


class TestTransform:
    def test_the_output_is_what_the_pipeline_makes(self, capsys, files):
        folder, parts, _, pipeline = files
        status, out, err = transform(capsys, folder)
        assert (status, err) == (0, "")
        assert "out.parquet: 600 rows (image 200, image+text 200, text 200); " in out
        table = pq.read_table(folder / "out.parquet")
        assert table.column_names == ["id", "name", "vector"]
        assert table.schema.field("vector").type == pa.list_(pa.field("element", pa.float16()), D)
        np.testing.assert_array_equal(as_vectors(table["vector"], ""), pipeline.transform(Items(parts)))
        source = pq.read_table(folder / "docs.parquet")
        assert table["id"].equals(source["id"])
        assert table["name"].equals(source["name"])
        assert pq.read_metadata(folder / "out.parquet").num_row_groups == 5
        assert sorted(os.listdir(folder)) == ["c.safetensors", "docs.parquet", "out.parquet", "queries.parquet"]

    def test_queries_keep_unit_length(self, capsys, files):
        folder, _, query, pipeline = files
        words = ["--column", "query=query_embedding", "--vectors", "q"]
        assert transform(capsys, folder, *words, source="queries.parquet")[0] == 0
        found = as_vectors(pq.read_table(folder / "out.parquet")["q"], "")
        np.testing.assert_array_equal(found, pipeline.transform(Items({"query": query})))

    def test_the_size_of_row_groups_changes_nothing(self, capsys, files):
        folder, parts, *_ = files
        outputs = []
        for size in (1, 33, 1000):
            write(folder / "docs.parquet", parts, row_group_size=size)
            assert transform(capsys, folder)[0] == 0
            outputs.append((folder / "out.parquet").read_bytes())
        assert outputs[0] == outputs[1] == outputs[2]

    def test_large_values_beside_vectors_make_smaller_pieces(self, capsys, files):
        folder, parts, _, pipeline = files
        pictures = [bytes([i % 256]) * 3000 + i.to_bytes(4, "big") for i in range(N)]
        write(folder / "docs.parquet", parts, picture=pictures)
        assert transform(capsys, folder)[0] == 0
        found = pq.ParquetFile(folder / "out.parquet")
        sizes = [found.metadata.row_group(i).total_byte_size for i in range(found.num_row_groups)]
        assert max(sizes) < 5 * batch.BATCH * transforming.GROUP
        assert found.read()["picture"].to_pylist() == pictures
        np.testing.assert_array_equal(as_vectors(found.read()["vector"], ""), pipeline.transform(Items(parts)))

    def test_other_columns_and_their_metadata_are_carried_through(self, capsys, files):
        folder, parts, *_ = files
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame({
            "at": pandas.date_range("2026-01-01", periods=N, tz="UTC"),
            "kind": pandas.Categorical(["a", "b", None] * (N // 3)),
            "tags": [[i, i + 1] for i in range(N)],
            "told": [{"a": i} for i in range(N)],
            "none": [None] * N,
        }, index=pandas.Index([f"row{i}" for i in range(N)], name="key"))  # fmt: skip
        table = pa.Table.from_pandas(frame)
        for role, part in parts.items():
            table = table.append_column(f"{role}_embedding", lists(part))
        pq.write_table(table, folder / "docs.parquet")
        assert transform(capsys, folder)[0] == 0
        found = pq.read_table(folder / "out.parquet")
        assert found.drop_columns("vector").equals(
            pq.read_table(folder / "docs.parquet").drop_columns(list(COLUMNS.values()))
        )
        assert found.to_pandas().index.tolist() == frame.index.tolist()

    def test_columns_of_tensors_and_of_names_with_dots_are_carried_through(self, capsys, files):
        folder, *_ = files
        tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(4.0 * N).reshape(N, 2, 2))
        others = {"a.b": list(range(N)), "a": [{"b": i} for i in range(N)], "with space": ["x"] * N, "": ["y"] * N}
        table = pq.read_table(folder / "docs.parquet")
        for name, column in {**others, "tensors": tensors}.items():
            table = table.append_column(name, pa.array(column) if isinstance(column, list) else column)
        pq.write_table(table, folder / "docs.parquet", row_group_size=70)
        assert transform(capsys, folder, *WORDS, "--vectors", "a.vector")[0] == 0
        found = pq.read_table(folder / "out.parquet")
        assert found.drop_columns("a.vector").equals(table.drop_columns(list(COLUMNS.values())))
        pq.write_table(table.append_column("id", table["id"]), folder / "docs.parquet")
        status, _, err = transform(capsys, folder)
        assert (status, "has more than one column 'id': give each a name of its own" in err) == (1, True)

    def test_the_metadata_say_what_made_the_vectors(self, capsys, files):
        folder, parts, *_ = files
        write(folder / "docs.parquet", parts, encoder="toy")
        assert run(capsys, "fit", folder / "docs.parquet", "--output", folder / "c.safetensors", *WORDS)[0] == 0
        assert transform(capsys, folder)[0] == 0
        told = json.loads(pq.read_schema(folder / "out.parquet").metadata[KEY])
        _, out, _ = run(capsys, "info", folder / "c.safetensors")
        assert told["encoder"] == "toy"
        assert f"fingerprint {told['calibrator']}" in out
        status, out, err = transform(
            capsys, folder, "--column", "text=vector", source="out.parquet", output="twice.parquet"
        )
        assert status == 1
        assert "means would be subtracted twice" in err
        table = pq.read_table(folder / "out.parquet").replace_schema_metadata(None)  # as Ray reads and writes it
        pq.write_table(table.rename_columns({"vector": "v"}), folder / "moved.parquet")
        status, _, err = transform(capsys, folder, "--column", "text=v", source="moved.parquet", output="twice.parquet")
        message = "moved.parquet: column 'v' (role 'text') holds fused vectors of calibrator grclip@"
        assert (status, message in err) == (1, True)
        _, out, _ = run(capsys, "info", folder / "moved.parquet")
        assert f"calibrator  {json.loads(table.field('vector').metadata[KEY])['calibrator']}: made column 'v' of" in out
        write(folder / "docs.parquet", parts, encoder="SigLIP")
        status, _, err = transform(capsys, folder)
        assert status == 1
        told = f"docs.parquet holds vectors of encoder 'SigLIP', but {folder / 'c.safetensors'} was fitted on those of"
        assert f"{told} 'toy'; means" in err

    def test_the_metadata_do_not_say_an_encoder_that_nobody_stated(self, capsys, files):
        folder, *_ = files
        words = ["fit", folder / "docs.parquet", "--output", folder / "c.safetensors", *WORDS, "--encoder", "toy"]
        assert run(capsys, *words)[0] == 0
        status, _, err = transform(capsys, folder)
        told = f"{folder / 'c.safetensors'} was fitted on 'toy', but {folder / 'docs.parquet'} says nothing; say"
        assert (status, f"{told} --encoder NAME" in err, "Items(" in err) == (0, True, False)
        assert json.loads(pq.read_schema(folder / "out.parquet").metadata[KEY])["encoder"] is None
        _, out, _ = run(capsys, "info", folder / "out.parquet")
        assert "encoder     unknown: nobody said which made the vectors that these were fused from\n" in out
        assert transform(capsys, folder, *WORDS, "--encoder", "toy")[::2] == (0, "")
        assert json.loads(pq.read_schema(folder / "out.parquet").metadata[KEY])["encoder"] == "toy"

    def test_a_folder_of_files(self, capsys, files, monkeypatch):
        folder, parts, _, pipeline = files
        names = [f"part{i}.parquet" for i in range(4)]
        for i, name in enumerate(names):
            write(folder / name, {role: part[150 * i : 150 * (i + 1)] for role, part in parts.items()})
        words = ["transform", *(folder / name for name in names), "--output-dir", folder / "new" / "fused"]
        words += ["--calibrator", folder / "c.safetensors", *WORDS]
        fused, n_files = transforming._fused, []

        def two(*args):
            n_files.append(args)
            if len(n_files) == 3:
                raise KeyboardInterrupt
            return fused(*args)

        with monkeypatch.context() as patch:
            patch.setattr(transforming, "_fused", two)
            assert run(capsys, *words)[0] == 130
        written = folder / "new" / "fused"
        assert sorted(path.name for path in written.glob("*")) == [
            ".part0.parquet.journal", ".part1.parquet.journal", *names[:2]
        ]  # fmt: skip
        before = [(written / name).stat().st_ino for name in names[:2]]
        write(folder / names[1], {role: part[150:300] for role, part in parts.items()})
        status, out, err = run(capsys, *words)
        assert status == 0
        assert err == f"grclip: {written / names[1]}: what an earlier run left is of another input, calibrator or " \
                      "version, and begun anew\n"  # fmt: skip
        assert ["150 of them by an earlier run" in line for line in out.splitlines()] == [True, False, False, False]
        assert (written / names[0]).stat().st_ino == before[0]
        assert sorted(os.listdir(written)) == names
        found = np.concatenate([as_vectors(pq.read_table(written / name)["vector"], "") for name in names])
        np.testing.assert_array_equal(found, pipeline.transform(Items(parts)))

    def test_folders_that_cannot_be_written_to(self, capsys, files):
        folder, *_ = files
        (folder / "more").mkdir()
        (folder / "link").symlink_to(folder / "gone")
        (folder / "more" / "docs.parquet").write_bytes((folder / "docs.parquet").read_bytes())
        words = ["--calibrator", folder / "c.safetensors", *WORDS]
        documents, other = folder / "docs.parquet", folder / "more" / "docs.parquet"
        for given, message in (
            ([documents, other, "--output-dir", folder / "out"], "have one name, and would be written to one file"),
            ([documents, "--output-dir", folder], "docs.parquet is the file that is read; write to another"),
            ([documents, "--output-dir", other], "docs.parquet is a file, or a link to nothing; name a folder"),
            ([documents, "--output-dir", folder / "link"], "link is a file, or a link to nothing; name a folder"),
            ([documents, folder / "none", "--output-dir", folder / "out" / "in"], "none: no such file"),
            ([documents, "--vectors", "id", "--output-dir", folder / "out"], "docs.parquet has a column 'id'"),
            ([documents, "--column", "audio=id", "--output-dir", folder / "out"], "is of type int64; expected lists"),
            ([documents], "name a file and the one to write, IN OUT, or files and --output-dir OUT; got 1"),
            ([documents, other, folder / "out"], "IN OUT, or files and --output-dir OUT; got 3"),
        ):
            status, _, err = run(capsys, "transform", *given, *words)
            assert (status, message in err) == (1, True)
        assert not (folder / "out").exists()

    def test_two_outputs_that_are_one_file(self, capsys, files):
        folder, *_ = files
        (folder / "out").mkdir()
        (folder / "more.parquet").write_bytes((folder / "docs.parquet").read_bytes())
        (folder / "out" / "more.parquet").symlink_to("docs.parquet")
        paths = [folder / "docs.parquet", folder / "more.parquet"]
        words = ["--calibrator", folder / "c.safetensors", "--output-dir", folder / "out", *WORDS]
        status, out, err = run(capsys, "transform", *paths, *words)
        first, second = (folder / "out" / path.name for path in paths)
        assert (status, f"{second} and {first} are one file, by a link, or because" in err) == (1, True)
        assert out.startswith(f"{first}: 600 rows")

    def test_names_that_pyarrow_cannot_open(self, tmp_path):
        with (
            pytest.raises(ValueError, match="parquet: pyarrow takes file names in UTF-8 alone; rename it"),
            opened(tmp_path / os.fsdecode(b"\xff.parquet")),
        ):
            pass

    def test_a_file_without_rows(self, capsys, files):
        folder, *_ = files
        empty = pq.read_table(folder / "docs.parquet").slice(0, 0)
        pq.write_table(empty, folder / "docs.parquet")
        assert transform(capsys, folder)[0] == 0
        table = pq.read_table(folder / "out.parquet")
        assert (len(table), table.column_names) == (0, ["id", "name", "vector"])
        status, _, err = run(capsys, "fit", folder / "docs.parquet", "--output", folder / "c", *WORDS)
        assert (status, "no rows to learn from" in err) == (1, True)

    def test_rows_of_zeros_are_said_a_few_times(self, capsys, files):
        folder, parts, *_ = files
        parts["text"][::60] = 0
        write(folder / "docs.parquet", parts)
        status, _, err = transform(capsys, folder)
        assert status == 0
        assert err.count("rows of zeros") == 3
        assert "more such warnings" in err
        more = ["--equalize", "--queries", folder / "queries.parquet", *ASKED, "--sample", "600"]
        _, _, err = run(capsys, "fit", folder / "docs.parquet", "--output", folder / "c", *WORDS, *more)
        assert err.count("rows of zeros") == 3, "not a fourth time, by rows of the sample"

    def bad(self, parts, change):
        text = parts["text"]
        if change == "nan":
            text[[302, 599], 3] = np.nan
        elif change == "inf":
            text[302, 3] = np.inf
        elif change == "empty":
            text[[330, 333]] = np.nan
        return parts

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ("nan", "docs.parquet: column 'text_embedding' (role 'text') has NaN beside numbers (a missing part is a "
                    "null, or NaN throughout) in 1 row (302)"),
            ("inf", "docs.parquet: column 'text_embedding' (role 'text') has inf, or numbers too large to square, in "
                    "1 row (302)"),
            ("empty", "docs.parquet: no part at all in 2 rows (330, 333): nothing in 'text_embedding', "
                      "'image_embedding'"),
        ],
    )  # fmt: skip
    def test_rows_that_cannot_be_used(self, capsys, files, change, message):
        folder, parts, *_ = files
        assert transform(capsys, folder)[0] == 0
        before = (folder / "out.parquet").read_bytes()
        write(folder / "docs.parquet", self.bad(parts, change))
        for status, _, err in (
            transform(capsys, folder),
            run(capsys, "fit", folder / "docs.parquet", "--output", folder / "new", *WORDS),
        ):
            assert status == 1
            assert message in err
        assert (folder / "out.parquet").read_bytes() == before
        assert not (folder / "new").exists()

    def test_nothing_is_left_of_a_job_that_failed_before_a_row_group_was_written(self, capsys, files):
        folder, parts, *_ = files
        names = sorted(os.listdir(folder))
        parts["text"][2, 3] = np.inf
        write(folder / "docs.parquet", parts)
        assert transform(capsys, folder)[0] == 1
        assert sorted(os.listdir(folder)) == names
        status, _, err = transform(capsys, folder, "--column", "query=query_embedding", source="queries.parquet")
        assert (status, err) == (0, "")

    def test_after_the_input_was_mended_the_job_begins_anew(self, capsys, files):
        folder, parts, *_ = files
        assert transform(capsys, folder)[0] == 0
        whole = (folder / "out.parquet").read_bytes()
        (folder / "out.parquet").unlink()
        good = {role: part.copy() for role, part in parts.items()}
        write(folder / "docs.parquet", self.bad(parts, "nan"))
        assert transform(capsys, folder)[0] == 1
        write(folder / "docs.parquet", good)
        status, _, err = transform(capsys, folder)
        assert status == 0
        assert "what an earlier run left is of another input, calibrator or version, and begun anew" in err
        assert (folder / "out.parquet").read_bytes() == whole

    def test_columns_and_files_that_were_exchanged(self, capsys, files):
        folder, _, query, _ = files
        status, _, err = transform(
            capsys, folder, "--column", "image=text_embedding", "--column", "text=image_embedding"
        )
        assert (status, err.count("if columns or files were exchanged, put --column right")) == (0, 2)
        assert re.search(
            r"docs.parquet: column 'text_embedding' \(role 'image'\) looks like 'text': the mean of its first \d+ "
            r"vectors has cosine (0\.9\d|1\.00) with the mean of 'text', and -?0\.[0-7]\d with that of 'image'", err
        )  # fmt: skip
        write(folder / "asked.parquet", {"query": query})
        status, _, err = transform(capsys, folder, "--column", "image=query_embedding", source="asked.parquet")
        assert (status, "(role 'image') looks like" in err) == (0, True)

    def test_no_alarm_about_roles_of_one_modality_other_topics_or_few_rows(self, capsys, files):
        folder, parts, query, _ = files
        same = ["--column", "text=query_embedding"]
        assert transform(capsys, folder, *same, source="queries.parquet")[::2] == (0, "")
        write(folder / "few.parquet", {"image": parts["text"][parts["text"][:, 0] == parts["text"][:, 0]][:29]})
        swapped = ["--column", "image=image_embedding"]
        assert transform(capsys, folder, *swapped, source="few.parquet")[::2] == (0, "")
        topic = np.argsort(parts["text"].astype(float) @ query[0])
        write(folder / "topic.parquet", {role: part[topic[:60]] for role, part in parts.items()})
        assert transform(capsys, folder, source="topic.parquet")[::2] == (0, "")

    def test_columns_of_another_width_or_type(self, capsys, files):
        folder, parts, *_ = files
        write(folder / "wide.parquet", {role: np.tile(part, 2) for role, part in parts.items()})
        status, _, err = transform(capsys, folder, source="wide.parquet")
        assert status == 1
        assert "column 'text_embedding' (role 'text') has vectors of 32 numbers, where 16 are expected" in err
        status, _, err = transform(capsys, folder, "--column", "text=name")
        assert status == 1
        assert "docs.parquet: column 'name' (role 'text') is of type string; expected lists of float16" in err
        mixed = [row[: 16 - (i == 77)].tolist() for i, row in enumerate(drawn()[1].astype(float))]
        pq.write_table(pa.table({"t": pa.array(mixed)}), folder / "mixed.parquet")
        status, _, err = transform(capsys, folder, "--column", "text=t", source="mixed.parquet")
        assert status == 1
        assert "mixed.parquet: column 't' (role 'text') has vectors of 15 numbers in 1 row (77)" in err
        assert not (folder / "out.parquet").exists()

    def test_files_that_are_none(self, capsys, files):
        folder, *_ = files
        (folder / "text").write_text("hello, this is no Parquet file")
        whole = (folder / "docs.parquet").read_bytes()
        (folder / "cut").write_bytes(whole[: len(whole) // 2])
        broken = bytearray(whole)
        broken[len(whole) // 2 : len(whole) // 2 + 2000] = bytes(2000)
        (folder / "broken").write_bytes(broken)
        (folder / "empty").touch()
        for name in ("text", "cut", "broken", "empty"):
            status, _, err = transform(capsys, folder, source=name)
            assert status == 1, name
            assert f"{folder / name} is damaged or no Parquet file" in err
        for name, message in (("none", "none: no such file"), (".", "is a folder; give the Parquet files in it")):
            status, _, err = transform(capsys, folder, source=name)
            assert (status, message in err) == (1, True)
        os.mkfifo(folder / "pipe")  # which nobody writes to: to open it would be to wait for ever
        for name in ("pipe", "/dev/null"):
            status, _, err = transform(capsys, folder, source=name)
            assert (status, "is a device or a pipe, and Parquet is read from its end; give a file" in err) == (1, True)
        words = ["transform", folder / "docs.parquet", folder / "out.parquet", *WORDS, "--calibrator", folder / "pipe"]
        status, _, err = run(capsys, *words)
        assert (status, "is a folder, a device or a pipe, not a file that grclip wrote" in err) == (1, True)
        status, _, err = run(capsys, "info", folder / "pipe")
        assert (status, "is a folder, a device or a pipe, not a file that grclip wrote" in err) == (1, True)
        assert not (folder / "out.parquet").exists()

    def test_columns_that_pyarrow_cannot_read_in_pieces(self, capsys, files):
        folder, *_ = files
        words = pa.array([[f"w{i}"] for i in range(N)], pa.list_(pa.dictionary(pa.int32(), pa.string())))
        table = pq.read_table(folder / "docs.parquet").append_column("words", words)
        pq.write_table(table, folder / "docs.parquet", row_group_size=70)
        status, _, err = transform(capsys, folder)
        told = "docs.parquet: pyarrow .* cannot read one of its columns piece by piece .*; write dictionaries within li"
        assert (status, bool(re.search(told, err))) == (1, True)

    def test_without_pyarrow(self, capsys, files, monkeypatch):
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        status, _, err = transform(capsys, files[0])
        assert (status, 'pip install "grclip[parquet]"' in err) == (1, True)

    def test_lists_that_an_older_pyarrow_cannot_read(self, tmp_path):
        path = write(tmp_path / "d", drawn(30)[0])
        message = (
            r"d: Expected all lists to be of size=16 .*; pyarrow before 26 cannot read a null .* \(this one is \d+"
        )
        with pytest.raises(ValueError, match=message), opened(path):
            raise pa.ArrowInvalid("Expected all lists to be of size=16 but index 2 had size=0")

    def test_words_that_make_no_sense(self, capsys, files):
        folder, _, _, pipeline = files
        whole = (folder / "docs.parquet").read_bytes()
        status, _, err = transform(capsys, folder, output="docs.parquet")
        assert (status, "is the file that is read" in err) == (1, True)
        assert (folder / "docs.parquet").read_bytes() == whole
        status, _, err = transform(capsys, folder, output="c.safetensors")
        assert (status, "c.safetensors is the file that is read" in err) == (1, True)
        assert load_pipeline(folder / "c.safetensors")
        (folder / "folder").mkdir()
        status, _, err = transform(capsys, folder, output="folder")
        assert (status, f"{folder / 'folder'} is a folder; name a file in it to write to" in err) == (1, True)
        assert not (folder / ".folder.part").exists()
        for more, message in (
            (["--vectors", "name"], "has a column 'name', which would be carried through"),
            (["--encoder", "toy"], "cannot check"),
        ):
            status, _, err = transform(capsys, folder, *WORDS, *more)
            assert message in err
            assert status == (0 if "--encoder" in more else 1)
        status, _, err = transform(capsys, folder, "--column", "audio=text_embedding")
        message = (
            "c.safetensors has no mean of role 'audio', but of 'text', 'image', 'query'; name roles in --column as"
        )
        assert (status, message in err) == (1, True)
        status, _, err = transform(capsys, folder, output="none/out.parquet")
        assert (status, "there is no folder" in err) == (1, True)
        save_pipeline(pipeline["degap"], folder / "c.safetensors")
        status, _, err = transform(capsys, folder)
        assert (status, "removes the gap, but does not fuse" in err) == (1, True)
        pipeline["degap"].save(folder / "c.safetensors")
        status, _, err = transform(capsys, folder)
        wanted = "--calibrator takes what grclip fit wrote, or save_pipeline of a pipeline that fuses"
        assert (status, f"holds a ModalityGapRemover, not a Pipeline; {wanted}" in err) == (1, True)
        words = ["transform", folder / "docs.parquet", folder / "out.parquet", *WORDS, "--calibrator"]
        for name, message in (("queries.parquet", "queries.parquet is a Parquet file"), ("none", "none: no such file")):
            status, _, err = run(capsys, *words, folder / name)
            assert (status, f"{message}; {wanted}" in err) == (1, True)

    def test_a_column_that_was_forgotten(self, capsys, files):
        folder, *_ = files
        status, _, err = transform(capsys, folder, "--column", "image=image_embedding")
        told = "nothing in 'image_embedding'; leave these rows out; the calibrator also knows 'text': --column text=..."
        assert (status, told in err) == (1, True)
        status, _, err = transform(capsys, folder)
        assert (status, err) == (0, "")

    def test_fit_says_that_queries_were_left_out(self, capsys, files):
        folder, *_ = files
        status, out, _ = run(capsys, "fit", folder / "docs.parquet", "--output", folder / "c.safetensors", *WORDS)
        assert (status, "no queries: this calibrator cannot transform queries; add --queries FILE" in out) == (0, True)
        more = ["--queries", folder / "queries.parquet", *ASKED]
        _, out, _ = run(capsys, "fit", folder / "docs.parquet", "--output", folder / "c.safetensors", *WORDS, *more)
        assert "no queries" not in out
        asked = [
            "--queries",
            folder / "queries.parquet",
            "--query-column",
            "ask=query_embedding",
            "--modality",
            "ask=text",
        ]
        _, out, _ = run(capsys, "fit", folder / "docs.parquet", "--output", folder / "c.safetensors", *WORDS, *asked)
        assert "no queries" not in out

    @pytest.mark.parametrize(
        "told",
        [
            b"[",
            b"[1]",
            b'{"schema_version": "x"}',
            b'{"schema_version": 1, "encoder": 3}',
            b'{"schema_version": 1, "calibrator": "x"}',
        ],
    )
    def test_metadata_of_others_under_our_key(self, capsys, files, told):
        folder, *_ = files
        table = pq.read_table(folder / "docs.parquet").replace_schema_metadata({KEY: told})
        pq.write_table(table, folder / "docs.parquet")
        status, _, err = transform(capsys, folder)
        assert (status, "has metadata 'grclip' that grclip did not write" in err) == (1, True)
        status, _, err = run(capsys, "info", folder / "docs.parquet")
        assert (status, "has metadata 'grclip' that grclip did not write" in err) == (1, True)
        field = table.schema.field("text_embedding").with_metadata({KEY: told})
        column = table.replace_schema_metadata(None).set_column(1, field, table["text_embedding"])
        pq.write_table(column, folder / "docs.parquet")
        status, _, err = transform(capsys, folder)
        message = "column 'text_embedding' (role 'text') has metadata 'grclip' that grclip did not write"
        assert (status, message in err) == (1, True)
        newer = table.replace_schema_metadata({KEY: b'{"schema_version": 2}'})
        pq.write_table(newer, folder / "docs.parquet")
        status, _, err = transform(capsys, folder)
        assert (status, "has schema version 2, but this grclip reads up to 1" in err) == (1, True)


class TestInfo:
    def test_a_calibrator_in_words(self, capsys, files):
        folder, _, _, pipeline = files
        status, out, _ = run(capsys, "info", folder / "c.safetensors")
        assert status == 0
        assert "a fitted pipeline\n  fingerprint grclip@" in out
        assert "encoder     unknown\n  width       16\n" in out
        assert "ModalityGapRemover(), means of rows: text 400, image 400, query 600" in out
        assert "MultimodalFuser(equalize=True), spreads: image 0." in out
        assert "(asked by query)" in out
        pipeline["degap"].save(folder / "r.safetensors")
        status, out, _ = run(capsys, "info", folder / "r.safetensors")
        assert (status, "the means of a ModalityGapRemover" in out) == (0, True)

    def test_a_parquet_file_in_words(self, capsys, files):
        folder, *_ = files
        status, out, _ = run(capsys, "info", folder / "docs.parquet")
        assert status == 0
        assert "Parquet, 600 rows in 6 row groups\n  encoder     unknown\n" in out
        assert "column      text_embedding: fixed_size_list<element: halffloat>[16]" in out
        transform(capsys, folder)
        _, out, _ = run(capsys, "info", folder / "out.parquet")
        assert "made column 'vector' of image, text" in out

    def test_other_files(self, capsys, files):
        folder, *_ = files
        (folder / "text").write_text("hello")
        save_state(folder / "other", "Unknown", {}, {})
        wrapped = {"grclip": json.dumps({"schema_version": 2, "class": "Pipeline"})}
        (folder / "newer").write_bytes(safetensors.numpy.save({}, metadata=wrapped))
        (folder / "foreign").write_bytes(safetensors.numpy.save({"x": np.ones(3)}))
        (folder / "no safetensors file, holds a ModalityGapRemover").write_bytes(
            safetensors.numpy.save({}, metadata={"grclip": json.dumps({"schema_version": 1, "class": "Pipeline"})})
        )
        unread = "is neither a calibrator nor a Parquet file that can be read"
        for name, message in (
            ("text", f"text {unread} ('{folder / 'text'}' is damaged or no safetensors file"),
            ("newer", f"newer {unread} ('{folder / 'newer'}' has schema version 2, but this grclip reads up to 1"),
            ("foreign", "is a safetensors file, but not one that grclip wrote"),
            ("other", "holds a Unknown, not a Pipeline"),
            ("no safetensors file, holds a ModalityGapRemover", "holds no complete Pipeline"),
            ("none", "none: no such file"),
            (".", "folder"),
        ):
            status, out, err = run(capsys, "info", folder / name)
            assert (status, out, message in err) == (1, "", True)


SERVER = f"""
import os, resource, sys
from pathlib import Path
from grclip import _batch, _transform_files
_batch.BATCH, _transform_files.GROUP = 8 * 2 * 2 * {D}, 2
for line in sys.stdin:
    folder, limit = line.split()
    process = os.fork()
    if not process:
        if int(limit):
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
        try:
            folder = Path(folder)
            paths = [folder / name for name in ("docs.parquet", "out.parquet", "c.safetensors")]
            list(_transform_files.transform_files(paths[:1], paths[1:2], paths[2], {COLUMNS}))
        except OSError as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    print(process, flush=True)
    next(sys.stdin)
    print(os.waitpid(process, 0)[1], flush=True)
"""


@pytest.fixture(scope="module")
def server():
    """A process that starts a transform in a new process for a line that it reads, and waits for it at the next."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.stdin.close()


def started(server, folder, limit=0):
    """The number of the process that transforms."""
    server.stdin.write(f"{folder} {limit}\n")
    server.stdin.flush()
    return int(server.stdout.readline())


def ended(server):
    server.stdin.write("\n")
    server.stdin.flush()
    return os.waitstatus_to_exitcode(int(server.stdout.readline()))


class TestFaults:
    def whole(self, files, monkeypatch):
        """What an uninterrupted run makes, in the pieces of SERVER."""
        folder, *_ = files
        monkeypatch.setattr(batch, "BATCH", 8 * 2 * 2 * D)
        transform_file(folder / "docs.parquet", folder / "out.parquet", folder / "c.safetensors", COLUMNS)
        whole = (folder / "out.parquet").read_bytes()
        (folder / "out.parquet").unlink()
        return whole

    def test_kill_9_loses_nothing_and_writes_nothing_twice(self, files, server, monkeypatch):
        folder, *_ = files
        whole, draw, kept = self.whole(files, monkeypatch), random.Random(0), []
        journal = folder / ".out.parquet.journal"
        for _ in range(5):
            process = started(server, folder)
            time.sleep(draw.uniform(0, 0.1))
            os.kill(process, signal.SIGKILL)  # not waited for yet, so it is there, or what is left of it
            assert ended(server) in (-signal.SIGKILL, 0)
            if (folder / "out.parquet").exists():
                assert (folder / "out.parquet").read_bytes() == whole
                (folder / "out.parquet").unlink()
            kept.append(len(journal.read_bytes().splitlines()) if journal.exists() else 0)
        started(server, folder)
        assert ended(server) == 0
        assert (folder / "out.parquet").read_bytes() == whole
        assert pq.read_table(folder / "out.parquet")["id"].to_pylist() == list(range(N))
        assert sorted(os.listdir(folder)) == ["c.safetensors", "docs.parquet", "out.parquet", "queries.parquet"]

    def test_broken_off_at_every_place_it_goes_on(self, files, monkeypatch):
        """Each row group is written by another process's worth of state, and the last step is broken off, too."""
        folder, *_ = files
        whole = self.whole(files, monkeypatch)

        class Stop(BaseException):
            pass

        append, replace = AppendedParquet._append, os.replace
        counts = []

        def once(self, table):
            if counts and counts[-1] == "written":
                counts.append("stop")
                raise Stop
            append(self, table)
            counts.append("written")

        def refuse(*args):
            raise Stop

        monkeypatch.setattr(AppendedParquet, "_append", once)
        monkeypatch.setattr(os, "replace", refuse)
        job = [folder / "docs.parquet", folder / "out.parquet", folder / "c.safetensors", COLUMNS]
        for _ in range(60):
            with pytest.raises(Stop):
                transform_file(*job)
        assert not (folder / "out.parquet").exists()
        assert counts.count("written") == 38
        monkeypatch.setattr(os, "replace", replace)
        assert transform_file(*job)[1] == N
        assert (folder / "out.parquet").read_bytes() == whole

    def test_killed_between_its_name_and_its_journal(self, files, monkeypatch):
        folder, *_ = files
        whole = self.whole(files, monkeypatch)
        journal = folder / ".out.parquet.journal"
        unlink = Path.unlink
        job = [folder / "docs.parquet", folder / "out.parquet", folder / "c.safetensors", COLUMNS]
        monkeypatch.setattr(Path, "unlink", lambda self, **options: None)
        transform_file(*job)
        monkeypatch.setattr(Path, "unlink", unlink)
        assert journal.exists()
        before = (folder / "out.parquet").stat()
        assert transform_file(*job)[:2] == (N, N)
        assert not journal.exists()
        assert (folder / "out.parquet").stat().st_ino == before.st_ino
        assert (folder / "out.parquet").read_bytes() == whole

    @pytest.mark.parametrize("damage", ["rows", "torn line", "count", "no line", "short", "no part", "lines", "magic"])
    def test_what_was_left_is_checked(self, files, monkeypatch, damage):
        folder, *_ = files
        whole = self.whole(files, monkeypatch)
        job = [folder / "docs.parquet", folder / "out.parquet", folder / "c.safetensors", COLUMNS]
        append = AppendedParquet._append
        written = []

        def four(self, table):
            if len(written) == 4:
                raise KeyboardInterrupt
            written.append(len(table))
            append(self, table)

        monkeypatch.setattr(AppendedParquet, "_append", four)
        with pytest.raises(KeyboardInterrupt):
            transform_file(*job)
        monkeypatch.setattr(AppendedParquet, "_append", append)
        part, journal = folder / ".out.parquet.part", folder / ".out.parquet.journal"
        content, lines = bytearray(part.read_bytes()), journal.read_bytes()
        ends = [json.loads(line.partition(b" ")[2])["end"] for line in lines.splitlines()[1:]]
        if damage == "rows":
            content[(ends[1] + ends[2]) // 2] ^= 1
        elif damage == "torn line":
            lines = lines[:-30]
        elif damage == "count":
            lines = re.sub(rb'"rows": \d+', b'"rows": 31', lines)
        elif damage == "no line":
            lines = b"".join(lines.splitlines(keepends=True)[:3])
        elif damage == "short":
            content = content[: ends[2] - 7]
        elif damage == "lines":
            lines = b"\xff\x00" + lines
        elif damage == "magic":
            content = content[:2]
        part.write_bytes(content)
        journal.write_bytes(lines)
        if damage == "no part":
            part.unlink()
        kept = {"rows": 2, "torn line": 3, "no line": 2, "short": 2}.get(damage, 0)
        assert transform_file(*job)[1] == sum(written[:kept])
        assert (folder / "out.parquet").read_bytes() == whole

    @pytest.mark.parametrize("change", ["removed", "begun anew", "longer", "no journal"])
    def test_files_that_another_program_changes_meanwhile(self, capsys, files, monkeypatch, change):
        folder, *_ = files
        whole = self.whole(files, monkeypatch)
        append = AppendedParquet._append

        def meddled(self, table):
            append(self, table)
            if self.n_rows == 5 * len(table):
                if change == "removed":
                    self.partial.unlink()
                elif change == "no journal":
                    self.journal.unlink()
                else:
                    self.partial.write_bytes(b"PAR1" if change == "begun anew" else self.partial.read_bytes() + b"x")

        with monkeypatch.context() as patch:
            patch.setattr(AppendedParquet, "_append", meddled)
            status, _, err = transform(capsys, folder)
        if change == "no journal":
            assert (status, err) == (0, "")
        else:
            told = {
                "removed": "No such file",
                "begun anew": "part has 4 bytes where",
                "longer": "another program changed",
            }
            assert (status, told[change] in err) == (1, True)
            assert transform(capsys, folder)[0] == 0
        assert (folder / "out.parquet").read_bytes() == whole

    def test_another_calibrator_begins_anew(self, files, monkeypatch):
        folder, _, _, pipeline = files
        job = self.broken_off(folder, monkeypatch)
        save_pipeline(pipeline.set_params(fuse__equalize=False), folder / "c.safetensors")
        note = "what an earlier run left is of another input, calibrator or version, and begun anew"
        assert transform_file(*job)[1:3] == (0, note)

    def test_the_same_calibrator_saved_again_goes_on(self, files, monkeypatch):
        folder, _, _, pipeline = files
        job = self.broken_off(folder, monkeypatch)
        save_pipeline(pipeline, folder / "c.safetensors")
        assert transform_file(*job)[1:] == (N, "", {})

    def test_a_full_disk_is_said_and_the_job_goes_on_later(self, files, server, monkeypatch):
        folder, *_ = files
        whole = self.whole(files, monkeypatch)
        started(server, folder, limit=len(whole) // 2)
        assert ended(server) == 1
        assert "rows are kept in" in (said := server.stderr.readline())
        assert "run the same command again to go on after them" in said
        assert not (folder / "out.parquet").exists()
        again = transform_file(folder / "docs.parquet", folder / "out.parquet", folder / "c.safetensors", COLUMNS)
        assert 0 < again[1] < N
        assert (folder / "out.parquet").read_bytes() == whole

    def test_a_second_writer_is_refused_until_the_first_is_gone(self, capsys, files):
        folder, *_ = files
        with AppendedParquet(folder / "out.parquet", pa.schema([("id", pa.int64())]), {}):
            status, _, err = transform(capsys, folder)
            assert status == 1
            assert f"another process is writing {folder / 'out.parquet'}" in err
        assert transform(capsys, folder)[0] == 0

    def test_a_system_or_file_system_without_locks(self, capsys, files, monkeypatch):
        folder, *_ = files

        def unsupported(file, operation):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        with monkeypatch.context() as patch:
            patch.setattr(fcntl, "flock", unsupported)
            status, _, err = transform(capsys, folder)
            assert (status, "its file system has no locks; write to another, and move it: '" in err) == (1, True)
            assert "out.parquet'" in err
        (folder / ".out.parquet.journal").unlink()
        monkeypatch.setitem(sys.modules, "fcntl", None)
        status, _, err = transform(capsys, folder)
        assert (status, "this system has no flock; run the command on Linux, macOS or WSL" in err) == (1, True)
        assert not list(folder.glob(".*"))

    def test_a_second_writer_by_a_link_is_refused(self, capsys, files):
        folder, *_ = files
        (folder / "link.parquet").symlink_to("out.parquet")
        with AppendedParquet(folder / "out.parquet", pa.schema([("id", pa.int64())]), {}):
            status, _, err = transform(capsys, folder, output="link.parquet")
            assert (status, "another process is writing" in err) == (1, True)
        assert transform(capsys, folder, output="link.parquet")[0] == 0
        assert (folder / "link.parquet").is_symlink()
        assert len(pq.read_table(folder / "out.parquet")) == N
        assert not list(folder.glob(".*"))

    def test_an_interrupted_command_says_so_in_a_line_and_goes_on(self, capsys, files, monkeypatch):
        folder, *_ = files
        append = AppendedParquet._append

        def two(self, table):
            if self.n_rows:
                raise KeyboardInterrupt
            append(self, table)

        with monkeypatch.context() as patch:
            patch.setattr(AppendedParquet, "_append", two)
            assert transform(capsys, folder) == (130, "", "grclip: interrupted\n")
        status, out, _ = transform(capsys, folder)
        assert (status, "600 rows, 128 of them by an earlier run" in out) == (0, True)

    def broken_off(self, folder, monkeypatch):
        """A job that was broken off before its file took its name."""
        job = [folder / "docs.parquet", folder / "out.parquet", folder / "c.safetensors", COLUMNS]

        def stop(*args):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", stop)
            with pytest.raises(KeyboardInterrupt):
                transform_file(*job)
        return job

    def test_an_input_that_was_exchanged_for_one_of_the_same_size_and_time(self, files, monkeypatch):
        folder, *_ = files
        options = {"compression": "none", "use_dictionary": False, "write_statistics": False, "row_group_size": 100}
        table, path = pq.read_table(folder / "docs.parquet"), folder / "docs.parquet"
        pq.write_table(table, path, **options)
        before = path.stat()
        job = self.broken_off(folder, monkeypatch)
        turned = table.set_column(0, "id", pa.array(np.arange(N)[::-1]))
        pq.write_table(turned, path, **options)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_size == before.st_size
        _, there, note, _ = transform_file(*job)
        assert (there, "begun anew" in note) == (0, True)
        assert pq.read_table(folder / "out.parquet")["id"].to_pylist() == list(range(N))[::-1]

    def test_another_file_with_the_number_of_the_finished_one(self, files, monkeypatch):
        folder, *_ = files
        whole = self.whole(files, monkeypatch)
        job = [folder / "docs.parquet", folder / "out.parquet", folder / "c.safetensors", COLUMNS]
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", lambda self, **options: None)  # as if killed before its journal goes
            transform_file(*job)
        fewer = pq.read_table(folder / "out.parquet").slice(0, 9)
        with open(folder / "out.parquet", "r+b") as file:
            file.truncate()
            pq.write_table(fewer, file)
        assert transform_file(*job)[1] == 0
        assert (folder / "out.parquet").read_bytes() == whole

    def test_rows_that_come_after_they_were_counted(self, files, monkeypatch):
        folder, parts, *_ = files
        schema = transforming._schema

        def grow(*args):
            write(folder / "docs.parquet", {role: np.tile(part, (2, 1)) for role, part in parts.items()})
            return schema(*args)

        monkeypatch.setattr(transforming, "_schema", grow)
        with pytest.raises(RuntimeError, match="was changed while it was read"):
            transform_file(folder / "docs.parquet", folder / "out.parquet", folder / "c.safetensors", COLUMNS)
        assert not (folder / "out.parquet").exists()

    def test_a_disk_that_is_full_at_once(self, files, server):
        folder, *_ = files
        started(server, folder, limit=100)
        assert ended(server) == 1
        assert "0 rows are kept in" in server.stderr.readline()

    def test_going_on_behind_many_bytes_takes_little_memory(self, tmp_path):
        """What is reserved counts, too, under `ulimit -v`, and where a system promises no more than it has."""
        with open(tmp_path / "part", "ab", buffering=0) as file:
            behind, n = _After(file, 2**31), 2**31 + 5
            sink = pa.PythonFile(behind, mode="w")
            tracemalloc.start()
            try:
                _advance(sink, n)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert (behind.left, (tmp_path / "part").stat().st_size) == (0, 5)
        assert peak < 2**27

    def test_an_input_that_changes_while_it_is_read(self, files, monkeypatch):
        folder, *_ = files
        append = AppendedParquet._append

        def touch(self, table):
            append(self, table)
            os.utime(folder / "docs.parquet", (1, 1))

        monkeypatch.setattr(AppendedParquet, "_append", touch)
        with pytest.raises(RuntimeError, match="was changed while it was read"):
            transform_file(folder / "docs.parquet", folder / "out.parquet", folder / "c.safetensors", COLUMNS)
        assert not (folder / "out.parquet").exists()
