"""The benchmark of speed, for function and never for time."""

import contextlib
import io
import json

import pytest

from benchmarks import speed
from benchmarks._speed import Row, compare


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
        assert row["met"] == (None if row["value"] is None else row["value"] <= row["line"])
        assert f"| {row['figure']} |" in printed


def test_ratios_are_those_of_the_medians(command):
    ratios = [row for row in command[1]["figures"] if row["ours"] is not None]
    assert len(ratios) >= 6
    for row in ratios:
        assert row["value"] == pytest.approx(row["ours"] / row["reference"])


def test_faiss_finds_the_same_rows_where_it_is_installed(command):
    (row,) = (row for row in command[1]["figures"] if "faiss" in row["figure"])
    assert row["note"] in ("100.00% of the places hold the same row", "faiss is not installed")


def test_machine_and_versions_are_written(command):
    assert {"date", "machine", "threads", "torch", "numpy"} <= set(command[1]["about"])


def test_growth_goes_over_rows_and_widths(command):
    growth = command[1]["growth"]
    assert [costs["n"] for costs in growth["rows"]] == [1_000, 2_000]
    assert [costs["d"] for costs in growth["widths"]] == [64, 128]


def test_sides_are_measured_in_turn():
    calls = []
    row = compare("a figure", 1.0, lambda: calls.append("ours"), lambda: calls.append("reference"), repeats=3)
    assert calls == ["ours", "reference"] * 4
    assert row.spread[0] <= row.spread[1]


def test_a_line_is_met_up_to_its_value():
    assert Row("a figure", 1.3, value=1.3).met
    assert not Row("a figure", 1.3, value=1.31).met
    assert Row("a figure", 1.3).met is None


def test_figures_of_a_device_are_in_two_precisions():
    arguments = speed.parser().parse_args(["--quick"])
    for dtype in (speed.torch.float32, speed.torch.bfloat16):
        figures = speed.DeviceFigures(arguments, dtype)
        assert all(getattr(figures, name)().value > 0 for name in speed.DEVICE_FIGURES)
