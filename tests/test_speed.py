"""The benchmark of speed, for function and never for time."""

import contextlib
import io
import itertools
import json
import time

import pytest

from benchmarks import speed
from benchmarks._speed import HEADER, Row, compare


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """What a quick run prints and writes."""
    folder, printed = tmp_path_factory.mktemp("speed"), io.StringIO()
    arguments = ["--quick", "--folder", str(folder), "--json", str(folder / "speed.json")]
    with contextlib.redirect_stdout(printed):
        assert speed.main(arguments) == 0
    return printed.getvalue(), json.loads((folder / "speed.json").read_text())


def test_every_figure_has_a_row_that_is_measured_or_says_why_not(command):
    printed, written = command
    rows = written["figures"]
    assert len(rows) == len(speed.FIGURES)
    for row in rows:
        assert row["value"] is not None or row["note"]
        assert row["agree"]
        assert row["met"] == (None if row["value"] is None else row["value"] <= row["line"])
        assert f"| {row['figure']} |" in printed


def test_ratios_are_those_of_the_medians(command):
    ratios = [row for row in command[1]["figures"] if row["ours"] is not None]
    assert len(ratios) >= 10
    for row in ratios:
        assert row["value"] == pytest.approx(row["ours"] / row["reference"])


def row_about(command, name):
    (row,) = (row for row in command[1]["figures"] if row["figure"] == name)
    return row


def test_faiss_finds_the_same_rows(command):
    same = "100.00% of the places hold the same row"
    assert row_about(command, "ExactRetriever / faiss IndexFlatIP")["note"] == same
    note = row_about(command, "ExactRetriever without bfloat16 / faiss IndexFlatIP")["note"]
    assert note.startswith(f"{same}; torch's matrix product alone takes")


@pytest.mark.parametrize("name", ["", ", one scale"])
def test_a_grid_search_finds_the_same_alpha_and_scores(command, name):
    note = row_about(command, f"MultimodalFuserCV / GridSearchCV{name}")["note"]
    assert note.startswith("both choose alpha 0.")
    assert note.endswith("at most; medians of 2")


def test_a_rate_is_work_by_seconds(command):
    search = row_about(command, "ExactRetriever / faiss IndexFlatIP")
    flops = 2 * 50 * 3_000 * 64
    assert search["rates"] == pytest.approx([flops / search[side] / 1e9 for side in ("ours", "reference")])
    fused = row_about(command, "remover and fuser / clone() of both parts")
    assert fused["rates"][0] / fused["rates"][1] == pytest.approx(7 / 4 / fused["value"])
    assert f"| {fused['rates'][0]:.3g} GB/s | {fused['rates'][1]:.3g} GB/s |" in command[0]
    assert row_about(command, "import grclip / import torch, sklearn")["rates"] is None


def test_machine_and_versions_are_written(command):
    about = command[1]["about"]
    assert {"date", "machine", "cores", "capability", "threads", "torch", "numpy", "scipy", "scikit-learn"} <= set(
        about
    )
    assert about["faiss-cpu"].count(".") >= 1
    assert "not-installed" not in dict(speed._versions("not-installed", "numpy"))


def test_every_line_of_the_table_has_as_many_cells_as_its_header(command):
    table = [line for line in command[0].split("\n\n")[1].splitlines() if line.startswith("|")]
    assert len(table) == len(speed.FIGURES) + 2
    assert {line.count("|") for line in table} == {HEADER.splitlines()[0].count("|")}


def test_growth_goes_over_rows_and_widths(command):
    growth = command[1]["growth"]
    assert [costs["n"] for costs in growth["rows"]] == [1_000, 2_000]
    assert [costs["d"] for costs in growth["widths"]] == [64, 128]


def test_sides_are_measured_in_turn(monkeypatch):
    """By a clock that ticks once whenever it is read: so many seconds are so many readings."""
    monkeypatch.setattr(time, "perf_counter", itertools.count().__next__)
    calls = []
    row = compare("a figure", 1.0, lambda: calls.append("ours"), lambda: calls.append("reference"), repeats=3)
    assert calls == ["ours", "reference"] * 4
    compare("a figure", 1.0, lambda: calls.append("ours"), lambda: None, repeats=3, warm=3)
    assert calls.count("ours") == 4 + 3 + 3, "three turns of a warm-up come first"
    assert row.spread[0] <= row.spread[1]


def test_a_line_is_met_up_to_its_value():
    assert Row("a figure", 1.3, value=1.3).met
    assert not Row("a figure", 1.3, value=1.31).met
    assert not Row("a figure", 1.3, value=0.1, agree=False).met
    assert Row("a figure", 1.3).met is None


def test_figures_of_a_device_are_in_two_precisions():
    arguments = speed.parser().parse_args(["--quick"])
    for dtype in (speed.torch.float32, speed.torch.bfloat16):
        figures = speed.DeviceFigures(arguments, dtype)
        assert all(getattr(figures, name)().value > 0 for name in speed.DEVICE_FIGURES)
