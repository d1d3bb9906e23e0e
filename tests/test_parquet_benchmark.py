"""benchmarks.parquet: what it draws is what the commands take, and a transform that it kills comes out whole."""

import sys

import pyarrow.parquet as pq
import pytest

from benchmarks.parquet import COLUMNS, draw, killed, measure, words
from grclip.cli import main

N, D = 20_000, 512  # two row groups


def test_a_transform_that_is_killed_comes_out_whole(tmp_path, capsys):
    documents, calibrator, output = (
        tmp_path / name for name in ("docs.parquet", "calibrator.safetensors", "out.parquet")
    )
    draw(documents, N, D)
    table = pq.read_table(documents)
    assert (len(table), table.column_names) == (N, ["id", *COLUMNS.values(), "language"])
    assert all(abs(table[name].null_count - N / 3) < 1 for name in COLUMNS.values())
    assert main(words("fit", documents, "--output", calibrator)[3:]) == 0
    assert main(words("transform", documents, output, "--calibrator", calibrator)[3:]) == 0
    found = killed(tmp_path, kills=2, within=0.1)
    assert found["kills"] == 2
    assert all(found["outputs equal to the uninterrupted one"])
    assert found["every row once, in order"]
    assert found["left over"] == []


def test_a_transform_that_fails_by_itself_is_not_waited_for(tmp_path, monkeypatch, capfd):
    documents, calibrator = tmp_path / "docs.parquet", tmp_path / "calibrator.safetensors"
    draw(documents, 90, 8)
    assert main(words("fit", documents, "--output", calibrator)[3:]) == 0
    (tmp_path / "out.parquet").touch()
    calibrator.write_text("damaged")
    (tmp_path / ".killed.parquet.journal").touch()
    monkeypatch.setattr("benchmarks.parquet.LOADING", 0)
    with pytest.raises(RuntimeError, match="the transform failed by itself, with status 1"):
        killed(tmp_path, kills=1)
    assert "damaged" in capfd.readouterr().err


def test_a_process_is_measured():
    found = measure([sys.executable, "-c", "import time; time.sleep(0.2); bytearray(10**8)"])
    assert found["seconds"] > 0.2
    assert 100 < found["peak MB"] < 250
