"""The page docs/method.md: its figures are those that its commands print, and its derivation holds."""

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.pipeline import Pipeline

from benchmarks import method
from benchmarks import real_clip as benchmark
from grclip import ExactRetriever, Items, ModalityGapRemover, MultimodalFuser, SearchTask
from tests.conftest import unit

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "method.md").read_text()
BENCHMARKS = (DOCS / "benchmarks.md").read_text()
LAST_DIGIT = 0.0011
"""Figures have three digits; another machine may round the last one otherwise."""


def tables(text):
    """Every table of figures: its columns, and its rows by name."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        header, _, *lines = ([cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines())
        if all(re.fullmatch(r"-?\d+\.\d+", cell) for _, *cells in lines for cell in cells):
            found.append((tuple(header[1:]), {name: list(map(float, cells)) for name, *cells in lines}))
    return found


def numbers(text):
    """Figures of two digits or more after the point."""
    return [float(figure) for figure in re.findall(r"\d+\.\d{2,}", text)]


def is_part_of(table, other):
    """Whether each row of a table stands in the other, with its figures."""
    columns, rows = table
    return columns == other[0] and all(
        name in other[1] and row == pytest.approx(other[1][name], abs=LAST_DIGIT) for name, row in rows.items()
    )


@pytest.fixture(scope="module")
def printed(real_clip):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert method.main() == 0
    return out.getvalue()


@pytest.fixture(scope="module")
def by_title(printed):
    """The printed tables, by the first word of their titles."""
    titles = re.findall(r"^(\w+)[^|\n]*\n\n\|", printed, re.MULTILINE)
    return dict(zip(titles, (rows for _, rows in tables(printed)), strict=True))


def correlated(rng, n, scales, mean):
    """Rows of unit length around a mean, wider in some directions than in others."""
    return unit(rng.normal(size=(n, len(scales))) * scales + mean)


def test_every_table_of_the_page_is_printed_by_a_command(printed):
    known = tables(printed) + tables(BENCHMARKS)
    shown = tables(PAGE)
    assert len(shown) == 13
    assert [table for table in shown if not any(is_part_of(table, other) for other in known)] == []


def test_the_levels_on_another_collection(by_title):
    sentence = re.search(r"fitted on photos290,\s+the mean(.*?)\n\n", PAGE, re.DOTALL)[1]
    rows = [by_title[title]["Flickr8k, one scale"][:3] for title in ("Levels", "Widths")]
    assert numbers(sentence) == pytest.approx(np.ravel(rows), abs=LAST_DIGIT)


def test_every_other_figure_of_the_prose_stands_in_a_table_or_on_the_benchmark_page():
    prose = re.sub(r"\[arXiv.*?\)|^\|.*$|fitted on photos290,\s+the mean[^|]*?\n\n", "", PAGE, flags=re.MULTILINE)
    known = {abs(value) for _, rows in tables(PAGE) for row in rows.values() for value in row} | set(
        numbers(BENCHMARKS)
    )
    assert len(numbers(prose)) > 15
    assert [figure for figure in numbers(prose) if figure not in known] == []


def test_the_tables_of_the_other_command_are_those_of_the_benchmark_page():
    own = {("all", *benchmark.KINDS), tuple(map(str, benchmark.SHARES))}
    quoted = [table for table in tables(PAGE) if table[0] in own and "raw" in table[1]]
    assert len(quoted) == 2
    assert all(any(is_part_of(table, other) for other in tables(BENCHMARKS)) for table in quoted)


def test_a_wrong_figure_is_noticed():
    (columns, rows), *others = tables(PAGE)
    wrong = columns, {name: [row[0] + 0.002, *row[1:]] for name, row in rows.items()}
    assert is_part_of((columns, rows), (columns, rows))
    assert not is_part_of(wrong, (columns, rows))
    assert not any(is_part_of((columns, rows), other) for other in others)


def test_the_distance_of_means(by_title):
    (row,) = by_title["Distance"].values()
    assert row == pytest.approx([0.85, 0.84, 0.92, 1.01], abs=0.01)


def test_moments_predict_the_spreads_of_other_rows(by_title):
    rows = {name: np.reshape(row, (3, 2)).T for name, row in by_title["Spreads"].items()}
    halves = [row for name, row in rows.items() if name.endswith("other half")]
    assert len(halves) == 3
    for predicted, measured in halves:
        np.testing.assert_allclose(predicted, measured, rtol=0.05)
    predicted, measured = rows["Flickr8k, from photos290"]
    assert ((measured / predicted > 0.7) & (measured / predicted < 0.8)).all(), "about a quarter smaller"
    np.testing.assert_allclose(predicted / predicted[0], measured / measured[0], rtol=0.06)


def test_the_gaussian_model_tells_the_size_of_the_bias(by_title):
    for (predicted, measured, _), bound in zip(by_title["Ranks"].values(), (0.02, 0.07), strict=True):
        assert predicted == pytest.approx(measured, abs=bound)
    for _, gaussian, bound, measured in by_title["Extremes"].values():
        assert gaussian < measured < 1.1 * bound


def test_the_shares_are_those_of_the_other_benchmark(real_clip, by_title):
    others = benchmark.coco_halves(real_clip)
    for name, (_, _, share) in by_title["Ranks"].items():
        assert share == pytest.approx(others[name]["images in top 10"], abs=LAST_DIGIT)


def test_cosine_loses_the_scale(by_title):
    rows = by_title["Indexes"]
    assert rows["one scale, cosine"] == pytest.approx(rows["means removed"], abs=LAST_DIGIT)
    assert rows["one scale, inner product"][0] > rows["means removed"][0] + 0.1


def test_spreads_of_text_queries_harm_pictures(by_title):
    ndcg = {name: row[0] for name, row in by_title["Pictures"].items()}
    assert ndcg["one scale"] > ndcg["means removed"] > ndcg["one scale of text queries"] + 0.1


def test_the_trace_formula_is_the_variance_over_all_pairs(rng):
    scales, means = np.linspace(0.2, 2, 12), rng.normal(size=(2, 12))
    queries, documents = correlated(rng, 40, scales, means[0]), correlated(rng, 50, scales[::-1], means[1])
    similarities = queries @ documents.T
    assert method.predicted_spread(queries, documents) == pytest.approx(similarities.std(), rel=1e-12)
    (m_q, c_q), (m_d, c_d) = ((x.mean(axis=0), np.cov(x.T, bias=True)) for x in (queries, documents))
    assert similarities.var() == pytest.approx(np.trace(c_q @ c_d) + m_d @ c_q @ m_d + m_q @ c_d @ m_q, rel=1e-12)


def test_moments_of_some_rows_predict_fresh_ones_and_depend_on_the_overlap(rng):
    scales = np.geomspace(0.1, 3, 30)
    seen, fresh = ([correlated(rng, 2000, s, 0) for s in (scales, scales, scales[::-1])] for _ in range(2))
    spreads = [method.predicted_spread(seen[0], documents) for documents in seen[1:]]
    for spread, documents in zip(spreads, fresh[1:], strict=True):
        assert spread == pytest.approx((fresh[0] @ documents.T).std(), rel=0.03)
    assert spreads[0] > 3 * spreads[1], "the same size, but other directions"


def test_no_row_meets_itself_in_the_prediction(rng):
    texts, images = rng.normal(size=(2, 60, 200))
    task = method.captioned(texts, images)
    pipeline = benchmark.fitted("means removed", task)
    queries, documents = method.vectors(pipeline, task)
    assert method.predicted_spread(queries, documents["text"]) > 0.13, "with each row meeting itself"
    assert method.moment_spreads(pipeline, task)["text"] == pytest.approx(200**-0.5, rel=0.1)


def test_unrelated_pairs_leave_out_those_of_one_group():
    queries, documents = np.diag([1.0, 2.0, 3.0]), np.ones((3, 3))
    assert method.unrelated(queries, documents).tolist() == [1, 1, 2, 2, 3, 3]
    assert method.unrelated(queries, documents, np.array([0, 0, 1])).tolist() == [1, 2, 3, 3]


def test_shares_of_the_top_ten_are_those_of_drawn_scores(rng):
    spreads, counts = [0.16, 0.1], [200, 300]
    scores = rng.normal(size=(4000, 500)) * np.repeat(spreads, counts)
    drawn = (np.argpartition(-scores, 10)[:, :10] >= 200).mean()
    shares = method.gaussian_shares(spreads, counts)
    assert shares.sum() == pytest.approx(1)
    assert shares[1] == pytest.approx(drawn, abs=0.015)
    assert method.gaussian_shares([0.3, 0.3], [10, 30]) == pytest.approx([0.25, 0.75])


def test_the_expected_maximum_of_normal_draws():
    assert method.expected_maximum(1) == pytest.approx(0, abs=1e-9)
    assert method.expected_maximum(2) == pytest.approx(np.pi**-0.5)
    assert method.expected_maximum(3) == pytest.approx(1.5 * np.pi**-0.5)
    assert method.expected_maximum(249) < (2 * np.log(249)) ** 0.5


def test_leaving_out_keeps_the_order():
    ranking = np.array([np.arange(12), np.arange(12)[::-1]])
    left = method.leave_out(ranking, np.array([0, 3]), np.array([5, 11]))
    assert left.tolist() == [[1, 2, 3, 4, 6, 7, 8, 9, 10, 11], [10, 9, 8, 7, 6, 5, 4, 2, 1, 0]]


def test_the_worked_example_is_what_one_computes_by_hand():
    table = method.worked_example()
    raw, removed = ({name: round(value, 12) for name, value in row.items()} for row in table.values())
    assert (raw["text, bicycle"], raw["image, dog"]) == (0.36, 0.28)
    assert {round(value) for value in removed.values()} == {-1, 1}
    assert all((value > 0) == name.endswith("dog") for name, value in removed.items())
    shown = next(rows for columns, rows in tables(PAGE) if columns[0] == "text, dog")
    assert shown == {name: pytest.approx(list(row.values()), abs=5e-4) for name, row in table.items()}


def test_the_code_of_the_page_runs(rng, capsys):
    topics = rng.normal(size=(90, 16))
    queries, texts, images = (topics + 0.3 * rng.normal(size=topics.shape) + shift for shift in (2, 2, -2))
    texts[::3], images[1::3] = np.nan, np.nan
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {"np": np, "queries": queries, "texts": texts, "images": images, "qrels": [{i: 1} for i in range(90)]}
    ours = (ExactRetriever, Items, ModalityGapRemover, MultimodalFuser, Pipeline, SearchTask)
    exec(compile(block, "method.md", "exec"), names | {value.__name__: value for value in ours})
    assert len(block.splitlines()) == 5
    assert "'text+image'" in capsys.readouterr().out


def test_a_help_page_and_what_to_set_without_data(capsys, monkeypatch):
    with pytest.raises(SystemExit, match="0"):
        method.main(["--help"])
    assert "GRCLIP_REAL_DATA" in capsys.readouterr().out
    monkeypatch.delenv("GRCLIP_REAL_DATA", raising=False)
    with pytest.raises(SystemExit, match="set GRCLIP_REAL_DATA to the folder"):
        method.main()
