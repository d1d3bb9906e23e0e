"""The report, as a file and in a real browser."""

import base64
import io
import os
import re
import resource
import shutil
from dataclasses import replace
from html import unescape
from itertools import pairwise
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from conftest import make_mixed
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from grclip import ExactRetriever, Items, ModalityGapRemover, MultimodalFuser, SearchTask
from grclip._demo import scenes as scenes_of
from grclip._report import report
from grclip._report.cases import LONG, MOST, SIDE, group_queries
from grclip._report.measured import Search, gather
from grclip._report.story import _familiar
from grclip.datasets import make_scenes, mix_kinds
from grclip.diagnostics import compare, modality_gap
from grclip.encoders import toy_encoder

pytest.importorskip("matplotlib")

NASTY = [
    "<script>window.bad = 1</script>",
    '"><img src=x onerror="window.bad = 1">',
    "</style><script>window.bad = 1</script><style>",
    "{{ 7 * 7 }} {% raw %}",
    "<!-- <![CDATA[ </title></svg>",
    "javascript:window.bad=1",
    "x" * 150,
]


def pipelines(calibration, qrels):
    methods = {
        "raw": make_pipeline(MultimodalFuser(), ExactRetriever()),
        "means removed": make_pipeline(ModalityGapRemover(), MultimodalFuser(), ExactRetriever()),
        "one scale": make_pipeline(ModalityGapRemover(), MultimodalFuser(equalize=True), ExactRetriever()),
    }
    return {name: method.fit(calibration, qrels) for name, method in methods.items()}


class Scenes:
    """Drawn scenes in a corpus of texts, pictures and both, the last ten without relevant documents."""

    n, n_calibration, without = 150, 100, 10

    def __init__(self):
        drawn, _ = make_scenes(self.n + self.n_calibration, random_state=0)
        self.items = SearchTask(drawn.queries[: self.n], mix_kinds(drawn.corpus[: self.n], random_state=0))
        encoder, rest = toy_encoder(), slice(self.n, None)
        self.task = encoder.transform(self.items)
        self.qrels = [{i: 1} if i < self.n - self.without else {} for i in range(self.n)]
        others = encoder.transform(SearchTask(drawn.queries[rest], drawn.corpus[rest]))
        self.calibration = others, [{i: 1} for i in range(self.n_calibration)]
        self.methods = pipelines(*self.calibration)


@pytest.fixture(scope="module")
def scenes():
    return Scenes()


@pytest.fixture(scope="module")
def page(scenes, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "scenes.html"
    given = (scenes.task, scenes.qrels, scenes.methods, scenes.items)
    assert report(*given, path, calibration=scenes.calibration, title="Drawn scenes") == path
    return path


@pytest.fixture
def small(rng):
    """A task of 30 queries and documents, its qrels, and two methods."""
    task, qrels = make_mixed(rng)
    methods = pipelines(task, qrels)
    return task, qrels, {name: methods[name] for name in ("raw", "means removed")}


def as_tensors(items):
    return Items({role: torch.tensor(np.asarray(part, np.float64)) for role, part in items.items()})


def nudged(items):
    return Items({role: part + 1e-3 for role, part in items.items()})


def picture(colour="teal", size=(40, 30)):
    return PIL.Image.new("RGB", size, colour)


def words(html):
    """What a page says, without its tags, its script and its style."""
    body = re.sub(r"<(script|style)>.*?</\1>", "", html[html.index("<body") :], flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", body)))


def table(html, name):
    found = re.search(rf'aria-labelledby="{name}-caption".*?</table>', html, re.DOTALL)[0]
    return [
        [unescape(re.sub(r"<[^>]+>", "", cell)).strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
        for row in re.findall(r"<tr.*?</tr>", found, re.DOTALL)
    ]


class TestNumbers:
    def test_the_table_of_scores_is_that_of_compare(self, scenes, page):
        rows = table(page.read_text("utf-8"), "scores")
        expected = compare(scenes.task, scenes.qrels, scenes.methods, k=10).rows
        by_kind = {kind: [row for row in expected if row["kind"] == kind] for kind in ("all", *KINDS)}
        assert rows.pop(0) == ["Method", "NDCG@10", "Recall@10", "Reciprocal rank", "p-value"]
        for kind, found in by_kind.items():
            (heading,) = rows.pop(0)
            assert heading.startswith(
                "All queries" if kind == "all" else f"Relevant document: {kind.replace('+', ' + ')}"
            )
            assert heading.endswith(f"n = {found[0]['n_queries']}")
            for row in found:
                p = row["ndcg_p"]
                told = "reference" if p is None else "< 0.001" if p < 0.001 else "1" if p == 1 else f"{p:.3f}"
                scores = [f"{row[metric]:.3f}" for metric in ("ndcg", "recall", "reciprocal_rank")]
                assert rows.pop(0) == [row["method"], *scores, told]
        assert not rows

    def test_shares_are_counted(self, scenes, page):
        rows = table(page.read_text("utf-8"), "shares")[1:]
        kinds = scenes.task.corpus.kinds
        for kind, n, share, relevant, *top in rows:
            kind = kind.replace(" ", "")
            assert int(n) == (kinds == kind).sum()
            assert float(relevant.split()[0]) == pytest.approx(float(share.split()[0]), abs=1.5), "one query a document"
            assert float(share.split()[0]) == pytest.approx(100 * (kinds == kind).mean(), abs=0.5)
            for cell, method in zip(top, scenes.methods.values(), strict=True):
                found = (kinds[np.asarray(method.predict(scenes.task))] == kind).mean()
                assert float(cell.split()[0]) == pytest.approx(100 * found, abs=0.5)

    def test_a_kind_that_is_never_relevant_is_not_missed(self, rng, tmp_path):
        x, missing = np.eye(60), np.full((60, 60), np.nan)
        corpus = Items({"text": np.concatenate([x, missing]), "image": np.concatenate([missing, -x])})
        task, qrels = SearchTask(Items({"query": x}), corpus), [{i: 1} for i in range(60)]
        methods = {"raw": make_pipeline(MultimodalFuser(), ExactRetriever()).fit(task)}
        said = words(report(task, qrels, methods, path=tmp_path / "r.html", n_cases=0).read_text("utf-8"))
        assert "no kind of document is crowded out" in said

    def test_curves_of_many_queries_are_measured_on_some(self, small, tmp_path, monkeypatch):
        monkeypatch.setattr("grclip._report.figures.CURVE_QUERIES", 12)
        task, qrels, _ = small
        page = report(*small, path=tmp_path / "r.html", n_cases=0, calibration=(task, qrels))
        assert "The curves are measured on 12 of the queries" in words(page.read_text("utf-8"))

    def test_the_queries_of_the_curves_are_of_all_kinds(self):
        """The first rows of the permutation that mixed the corpus are those of one kind."""
        mixed = scenes_of(n=150)
        search = Search(mixed.task, mixed.qrels, mixed.methods, None, None, None, 10, 0)
        some = search.sampled(50, np.arange(150))
        rows = [next(iter(judged)) for judged in some.qrels]
        assert len(np.unique(mixed.task.corpus.kinds[rows])) == 3
        np.testing.assert_array_equal(some.task.queries["query"], mixed.task.queries["query"][rows])

    def test_the_headline_says_who_is_missing_and_what_changes(self, scenes, page):
        rows = compare(scenes.task, scenes.qrels, scenes.methods, k=10).rows
        overall = [f"{row['ndcg']:.3f}" for row in rows if row["kind"] == "all"]
        said = words(page.read_text("utf-8"))
        assert re.search(r"With “raw”, [\d.]+ % of the top 10 are images, though 33 % of the collection is\.", said)
        assert f"NDCG@10 rises from {overall[0]} to {overall[-1]} with “one scale”." in said

    def test_what_is_left_out_is_told(self, scenes, page):
        said = words(page.read_text("utf-8"))
        assert "Left out: 10 queries (140, 141, 142, 143, 144, ...) without a relevant document." in said
        assert said.count("Left out") == 1
        assert "Of 140 queries with a relevant document" in said

    def test_all_drawings_are_there_twice_with_numbers_in_words(self, page):
        figures = re.findall(r"<figure>.*?</figure>", page.read_text("utf-8"), re.DOTALL)
        assert len(figures) == 7
        for figure in figures:
            assert len(set(re.findall(r"data:image/[a-z+]+;base64,[^\"]+", figure))) == 2
            assert re.search(r'alt="[^"]*\d', figure)
            assert re.search(r"<figcaption><h3>.+</h3>.+</figcaption>", figure)

    def test_a_harm_is_called_a_harm(self, scenes, tmp_path):
        backwards = {name: scenes.methods[name] for name in ("means removed", "raw")}
        path = report(scenes.task, scenes.qrels, backwards, path=tmp_path / "r.html", n_cases=0)
        said = words(path.read_text("utf-8"))
        assert re.search(r"NDCG@10 falls from 0\.\d+ to 0\.\d+ with “raw”", said)
        assert re.search(r"NDCG@10 falls where the relevant document is of the kind image \(from 0.9", said)
        assert "which chance alone is unlikely to bring about" in said

    def test_what_may_be_chance_is_not_called_a_gain(self, scenes, tmp_path):
        again = {"raw": scenes.methods["raw"], "raw again": scenes.methods["raw"]}
        path = report(scenes.task, scenes.qrels, again, path=tmp_path / "r.html", n_cases=3)
        said = words(path.read_text("utf-8"))
        assert re.search(r"With “raw again”, NDCG@10 is 0\.\d+ as before", said)
        assert "so the two cannot be told apart" in said
        assert "0 are fixed, 0 broken and 140 unchanged" in said

    def test_one_method_is_shown_by_itself(self, scenes, tmp_path):
        path = report(scenes.task, scenes.qrels, {"raw": scenes.methods["raw"]}, scenes.items, tmp_path / "r.html")
        html = path.read_text("utf-8")
        assert "Before" not in words(html).split("Case studies")[-1]
        assert "p-value" not in words(html).split("Notes")[1]
        assert {"missed", "found"} == set(re.findall(r'class="case" data-group="(\w+)"', html))
        assert len(re.findall('<div class="column">', html)) == len(re.findall("<article", html)) == 30

    def test_the_head_says_what_the_calibration_is_for(self, scenes, page, small, tmp_path):
        head = words(page.read_text("utf-8")).split("What the modality gap is")[0]
        assert "150 queries, 150 documents (" in head
        given = (
            "Curves over alpha and calibration rows are fitted on 100 queries and 100 documents given as calibration."
        )
        assert given in head
        assert "Encoder" not in head
        assert f"Encoder: {scenes.task.encoder}." in words(page.read_text("utf-8"))
        html = report(*small, path=tmp_path / "r.html", n_cases=0, note="Means of <b>600</b> others.").read_text(
            "utf-8"
        )
        assert "(10 text, 10 image, 10 text + image). Means of &lt;b&gt;600&lt;/b&gt; others.</p>" in html

    @pytest.mark.parametrize(
        ("calibration", "told"),
        [
            (lambda task: task, "Of 30 queries that are scored, all are in the calibration too: "),
            (lambda task: SearchTask(task.queries[::-1], task.corpus), "all are in the calibration too"),
            (lambda task: SearchTask(as_tensors(task.queries), task.corpus), "all are in the calibration too"),
            (lambda task: task[np.arange(12)], "Of 30 queries that are scored, 12 are in the calibration too: "),
            (lambda task: task[[3]], "Of 30 queries that are scored, 1 is in the calibration too: "),
            (lambda task: SearchTask(nudged(task.queries), task.corpus), ""),
            (lambda task: SearchTask(Items({"question": task.queries["query"]}), task.corpus), ""),
        ],
    )
    def test_the_head_says_how_many_queries_are_scored_that_were_calibrated_on(self, rng, tmp_path, calibration, told):
        task, qrels = make_mixed(rng)
        methods = {"raw": make_pipeline(MultimodalFuser(modalities={"question": "text"}), ExactRetriever()).fit(task)}
        others = calibration(task)
        for note in (None, "Means of 600 others."):
            page = report(
                *(task, qrels, methods),
                path=tmp_path / "r.html",
                n_cases=0,
                note=note,
                calibration=(others, [{i: 1} for i in range(len(others))]),
            )
            head = words(page.read_text("utf-8")).split("What the modality gap is")[0]
            assert (note or "") in head
            assert ("in the calibration too" in head) == bool(told)
            assert told in head

    def test_queries_that_are_not_scored_do_not_count_as_calibrated_on(self, small):
        task, qrels, methods = small
        search = Search(task, [{}, *qrels[1:]], methods, None, None, (task[[0, 1]], qrels[:2]), 10, 0)
        assert search.calibrated_on.tolist() == [0, 1]
        assert _familiar(search, gather(search)).startswith("Of 29 queries that are scored, 1 is in the calibration")
        assert not _familiar(replace(search, calibration=None), gather(search))

    def test_one_scale_is_explained_with_the_spreads_of_the_method(self, scenes, page, small, tmp_path):
        spreads = scenes.methods["one scale"][1].spread_
        text, both = (spreads[frozenset(kind)] for kind in (["text"], ["text", "image"]))
        said = words(page.read_text("utf-8"))
        assert f"“one scale” has learned the spreads {text:.3f} for texts, " in said
        assert f" and {both:.3f} for documents with text and image." in said
        assert "One scale." not in words(report(*small, path=tmp_path / "r.html", n_cases=0).read_text("utf-8"))

    def test_the_gap_that_is_left_is_told_and_why(self, scenes, tmp_path):
        task, qrels = scenes.task, scenes.qrels
        rows = table(report(task, qrels, scenes.methods, path=tmp_path / "r.html", n_cases=0).read_text("utf-8"), "gap")
        left = modality_gap(scenes.methods["one scale"][0].transform(task), qrels)
        assert rows[0][1:3] == ["Distance of the means", "Distance after"]
        assert [row[2] for row in rows[1:]] == [f"{pair.distance:.3f}" for pair in left.pairs.values()]
        assert "Still apart" not in words((tmp_path / "r.html").read_text("utf-8"))
        moved = SearchTask(task.queries, task.corpus.replace({"image": task.corpus["image"][:, ::-1]}))
        path = report(moved, qrels, scenes.methods, path=tmp_path / "r.html", n_cases=0)
        said = words(path.read_text("utf-8"))
        assert re.search(r"Still apart are .*text and image \(means \d\.\d+ apart before, \d\.\d+ after\)", said)
        assert "were learned on other data than these" in said

    def test_both_histograms_are_about_the_kind_that_stands_worst_before(self, page):
        captions = re.findall(r"<h3>Similarities: .*?</figcaption>", page.read_text("utf-8"))
        kinds = [re.search(r"relevant documents of the kind (.+?) score below", caption)[1] for caption in captions]
        assert kinds == ["image", "image"]

    def test_numbers_of_one_have_their_grammar(self, rng, tmp_path):
        x = rng.normal(size=(3, 8))
        task = SearchTask(Items({"query": x[:1]}), Items({"image": x}))
        method = make_pipeline(MultimodalFuser(), ExactRetriever(k=2)).fit(task)
        methods = {"a": method, "b": method}
        said = words(report(task, [{0: 1}], methods, path=tmp_path / "r.html", k=2).read_text("utf-8"))
        assert "1 query, 3 documents" in said
        assert "over 1 query has p = 1 (" in said
        assert "Of 1 query with a relevant document, 0 are fixed, 0 broken and 1 unchanged." in said
        assert "1 queries" not in said

    def test_a_kind_that_is_never_relevant_has_one_line(self, small, tmp_path):
        task, qrels, methods = small
        texts = [judged if "text" in task.corpus.kinds[i] else {} for i, judged in enumerate(qrels)]
        html = report(task, texts, methods, path=tmp_path / "r.html", n_cases=0).read_text("utf-8")
        assert sum("not measurable: no query has" in cell for row in table(html, "scores") for cell in row) == 1

    def test_no_curve_over_alpha_where_no_document_has_both_parts(self, rng, tmp_path):
        task, qrels = make_mixed(rng)
        task.corpus["text"][2::3] = np.nan
        methods = {"raw": make_pipeline(MultimodalFuser(), ExactRetriever()).fit(task)}
        path = report(task, qrels, methods, path=tmp_path / "r.html", n_cases=0, calibration=(task, qrels))
        said = words(path.read_text("utf-8"))
        assert (
            "Left out: the curve over alpha. It needs documents with both a text and another part; there are none."
            in said
        )

    def test_a_search_without_fused_vectors_has_no_histogram(self, rng, tmp_path):
        class ByText(ExactRetriever):
            def kneighbors(self, X, **options):
                return super().kneighbors(SearchTask(X.queries["query"], X.corpus["text"]), **options)

        x = rng.normal(size=(30, 8))
        task, qrels = SearchTask(Items({"query": x}), Items({"text": x, "image": -x})), [{i: 1} for i in range(30)]
        method = ByText().fit(SearchTask(x, x))
        path = report(task, qrels, {"own": method}, path=tmp_path / "r.html", n_cases=0, calibration=(task, qrels))
        assert words(path.read_text("utf-8")).count("“own” is no pipeline that fuses each row into one vector") == 3

    def test_a_bug_in_a_drawing_is_no_note(self, small, tmp_path, monkeypatch):
        monkeypatch.setattr("grclip.plots.TopKShareDisplay.plot", lambda *_, **__: 1 + "")
        with pytest.raises(TypeError, match="unsupported operand"):
            report(*small, path=tmp_path / "r.html", n_cases=0)

    def test_without_calibration_the_page_says_how_to_get_more(self, small, tmp_path):
        said = words(report(*small, path=tmp_path / "r.html").read_text("utf-8"))
        assert "calibration=(task, qrels)" in said
        assert "it needs 50 documents with both a text and another part; there are 10" in said.lower()

    def test_small_corpora_and_one_kind(self, rng, tmp_path):
        x = rng.normal(size=(4, 8))
        task = SearchTask(Items({"query": x}), Items({"image": x + 0.1}))
        method = make_pipeline(MultimodalFuser(), ExactRetriever(k=2)).fit(task)
        path = report(task, [{0: 1}, {}, {}, {}], {"a": method, "b": method}, path=tmp_path / "r.html", k=2)
        said = words(path.read_text("utf-8"))
        assert "All documents are of one kind" in said
        assert "not measurable" in said


KINDS = ("text", "image", "text+image")


class TestCases:
    def test_groups_are_what_the_page_says_they_are(self):
        before, after = np.array([1, 6, 5, 9, 3, 40]), np.array([2, 5, 6, 8, 3, 1])
        groups = group_queries([before, after], np.arange(6))
        assert {name: queries.tolist() for name, queries in groups.items()} == {
            "fixed": [5, 1],
            "broken": [2],
            "unchanged": [0, 3, 4],
        }

    def test_counts_are_over_all_queries_and_groups_have_their_share(self, scenes, page):
        html = page.read_text("utf-8")
        ranks = [places(scenes.methods[name], scenes) for name in ("raw", "one scale")]
        expected = {name: len(q) for name, q in group_queries(ranks, np.arange(scenes.n - scenes.without)).items()}
        buttons = dict(re.findall(r'data-group="(\w+)" aria-pressed="false">\w+ \(\d+ of (\d+)\)', html))
        assert {name: int(n) for name, n in buttons.items()} == expected
        shown = re.findall(r'<article class="case" data-group="(\w+)"', html)
        assert len(shown) == 30
        assert all(shown.count(name) >= min(10, expected[name]) for name in expected)

    def test_marks_and_ranks_agree_with_the_qrels(self, scenes, page):
        cases = re.findall(r"<article.*?</article>", page.read_text("utf-8"), re.DOTALL)
        rankings = [scenes.methods[name].set_params(exactretriever__k=150) for name in ("raw", "one scale")]
        found = [np.asarray(method.predict(scenes.task)) for method in rankings]
        for method in rankings:
            method.set_params(exactretriever__k=10)
        for case in cases:
            query = int(re.search(r'id="case-(\d+)"', case)[1])
            columns = case.split('<div class="column">')[1:]
            for column, ranking in zip(columns, found, strict=True):
                hits = re.findall(
                    r'<li class="hit([^"]*)" data-row="(\d+)">.*?rank </span>([\d,]+)<(.*?)</li>', column, re.DOTALL
                )
                assert [int(row) for _, row, *_ in hits[:5]] == ranking[query, :5].tolist()
                for look, row, rank, rest in hits:
                    assert ranking[query, int(rank) - 1] == int(row)
                    assert ("right" in look) == ("relevant</span>" in rest) == (int(row) == query)
                assert any(int(row) == query for _, row, *_ in hits)

    def test_each_document_is_embedded_once(self, small, tmp_path):
        task, qrels, methods = small
        same = Items({"text": ["one text"] * 30, "image": [picture()] * 30})
        html = report(task, qrels, methods, same, tmp_path / "r.html").read_text("utf-8")
        assert len(re.findall('<image id="', html)) == 1
        assert len(re.findall('<use href="#t0"/>', html)) > 30

    def test_a_part_that_took_no_part_in_the_search_is_not_shown(self, small, tmp_path):
        task, qrels, methods = small
        whole = Items({"text": [f"text {i}" for i in range(30)], "image": [picture()] * 30})
        html = report(task, qrels, methods, whole, tmp_path / "r.html").read_text("utf-8")
        for look, rest in re.findall(r'<li class="hit[^>]*data-row="(\d+)">(.*?)</li>', html, re.DOTALL):
            kind = task.corpus.kinds[int(look)]
            assert (f"text {look}<" in rest) == ("text" in kind)
            assert ("thumbnail" in rest) == ("image" in kind)

    def test_thumbnails_are_small_whatever_they_are_of(self, small, rng, tmp_path):
        task, qrels, methods = small
        noise = [PIL.Image.fromarray(rng.integers(0, 256, (900, 700, 3), dtype=np.uint8)) for _ in range(30)]
        path = report(task, qrels, methods, Items({"image": noise}), tmp_path / "r.html")
        thumbnails = re.findall(r'<image id="\w+" [^>]*base64,([^"]+)"', path.read_text("utf-8"))
        assert len(thumbnails) == 20
        for thumbnail in map(base64.b64decode, thumbnails):
            assert len(thumbnail) <= MOST
            assert max(PIL.Image.open(io.BytesIO(thumbnail)).size) <= SIDE
        assert path.stat().st_size < 2_000_000

    def test_pictures_of_many_sorts(self, small, tmp_path):
        task, qrels, methods = small
        files = {}
        for name, mode in {"a.png": "RGBA", "b.gif": "P", "c.tif": "I;16", "d.jpg": "CMYK", "e.png": "LA"}.items():
            PIL.Image.new(mode, (300, 20)).save(tmp_path / name)
            files[name] = tmp_path / name
        sorts = [*files.values(), np.zeros((9, 9, 3), np.uint8), io.BytesIO(files["a.png"].read_bytes()), picture()]
        column = [sorts[i % len(sorts)] for i in range(30)]
        html = report(task, qrels, methods, Items({"image": column}), tmp_path / "r.html").read_text("utf-8")
        assert "cannot be read" not in html

    def test_pictures_that_cannot_be_read_are_placeholders_and_counted(self, small, tmp_path):
        task, qrels, methods = small
        (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
        (tmp_path / "drawing.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
        os.mkfifo(tmp_path / "pipe.png")
        sorts = [tmp_path / name for name in ("broken.jpg", "drawing.eps", "pipe.png", "gone.png", "")]
        sorts += ["https://example.org/a.png", 7, "nul\0.png"]
        column = [sorts[i % len(sorts)] for i in range(30)]
        html = report(task, qrels, methods, Items({"image": column}), tmp_path / "r.html").read_text("utf-8")
        shown = {int(row) for row in re.findall(r'data-row="(\d+)"', html)}
        n = len([row for row in shown if "image" in task.corpus.kinds[row]])
        assert f"{n} pictures of the case studies cannot be read" in words(html)
        assert "cannot be read: broken.jpg" in words(html)
        assert str(tmp_path) not in html

    def test_files_are_told_by_name_and_sounds_are_not_opened(self, rng, tmp_path):
        x = rng.normal(size=(6, 8))
        task = SearchTask(Items({"query": x}), Items({"audio": x, "video": x}))
        method = make_pipeline(MultimodalFuser(), ExactRetriever(k=5)).fit(task)
        raw = Items({"audio": ["/secret/place/bark.wav"] * 6, "video": [Path("/secret/dog.mp4")] * 6})
        html = report(task, [{i: 1} for i in range(6)], {"a": method}, raw, tmp_path / "r.html", k=5).read_text("utf-8")
        assert "bark.wav" in words(html)
        assert "dog.mp4" in words(html)
        assert "secret" not in html

    def test_queries_may_be_pictures_and_roles_may_have_any_name(self, rng, tmp_path):
        x = rng.normal(size=(20, 8))
        task = SearchTask(Items({"query_image": x}), Items({"story": x, "sketch": x}))
        method = make_pipeline(MultimodalFuser(modalities={"story": "text", "sketch": "image"}), ExactRetriever())
        picture("red").save(tmp_path / "drawn.png")
        documents = Items({"story": ["/not/a/path.png"] * 20, "sketch": [str(tmp_path / "drawn.png")] * 20})
        items = SearchTask(Items({"query_image": [picture("blue")] * 20}), documents)
        page = report(task, [{i: 1} for i in range(20)], {"a": method.fit(task)}, items, tmp_path / "r.html", n_cases=2)
        html = page.read_text("utf-8")
        assert re.search(r'<h3 id="case-\d+" dir="auto">Query \d+</h3>', html)
        assert len(re.findall('<image id="', html)) == 2
        assert "/not/a/path.png" in words(html)
        assert 'aria-label="drawn.png"' in html
        assert str(tmp_path) not in html

    def test_each_query_and_document_tells_its_row_once(self, scenes, page, small, tmp_path):
        task, qrels, methods = small
        bare = report(task, qrels, methods, path=tmp_path / "r.html").read_text("utf-8")
        for html, by_name in ((page.read_text("utf-8"), False), (bare, True)):
            hits = re.findall(r'<li class="hit[^>]*data-row="(\d+)">(.*?)</li>', html, re.DOTALL)
            assert len(hits) > 100
            for row, rest in hits:
                assert re.findall(r"\b(?:row|Document) \d+", words(f"<body{rest}")) == [
                    f"Document {row}" if by_name else f"row {row}"
                ]
            cases = re.findall(r'<article.*?<h3 id="case-\d+".*?</h3>', html, re.DOTALL)
            for case in cases:
                query = re.search(r'id="case-(\d+)"', case)[1]
                told = f"Query {query}" if by_name else f"query row {query}"
                assert re.findall(r"\b[Qq]uery (?:row )?\d+", words(f"<body{case}")) == [told]
            assert "counted from 0" in words(html)
        row = int(re.search(r">row (\d+)<", page.read_text("utf-8"))[1])
        assert f'data-row="{row}"' in page.read_text("utf-8")
        assert "counted from 0" not in words(report(*small, path=tmp_path / "r.html", n_cases=0).read_text("utf-8"))

    def test_a_picture_of_a_file_tells_its_name_without_folders(self, small, tmp_path):
        task, qrels, methods = small
        picture().save(tmp_path / "a&b <1>.png")
        (tmp_path / "broken.png").write_bytes(b"no picture")
        with PIL.Image.open(tmp_path / "a&b <1>.png") as opened:
            sorts = [tmp_path / "a&b <1>.png", str(tmp_path / "broken.png"), picture(), opened]
            items = Items({"image": [sorts[i % 4] for i in range(30)]})
            html = report(task, qrels, methods, items, tmp_path / "r.html").read_text("utf-8")
        names = ("a&b <1>.png", "broken.png", "image of document", "a&b <1>.png")
        hits = re.findall(r'<li class="hit[^>]*data-row="(\d+)">(.*?)</li>', html, re.DOTALL)
        seen = {int(row) % 4 for row, _ in hits if "image" in task.corpus.kinds[int(row)]}
        assert seen == {0, 1, 2, 3}
        for row, rest in hits:
            if "image" in task.corpus.kinds[int(row)]:
                told = words(f"<body{rest}")
                assert told.count(names[int(row) % 4]) == (int(row) % 4 != 2), told
        assert str(tmp_path) not in html

    def test_a_document_of_which_nothing_can_be_shown_keeps_its_name(self, small, tmp_path):
        task, qrels, methods = small
        texts = [(None, "", " \n", "something")[i % 4] for i in range(30)]
        html = report(task, qrels, methods, Items({"text": texts}), tmp_path / "r.html").read_text("utf-8")
        hits = re.findall(r'<li class="hit[^>]*data-row="(\d+)">(.*?)</li>', html, re.DOTALL)
        assert len({row for row, _ in hits}) > 20
        for row, rest in hits:
            shown = "text" in task.corpus.kinds[int(row)] and texts[int(row)] == "something"
            assert (f">Document {row}<" in rest) != shown

    def test_a_page_without_cases_has_no_buttons(self, small, tmp_path):
        html = report(*small, path=tmp_path / "r.html", n_cases=0).read_text("utf-8")
        assert "<button" not in html
        assert "Of 30 queries with a relevant document" in words(html)

    def test_a_relevant_document_beyond_the_depth_is_said_to_be_missing(self, small, tmp_path, monkeypatch):
        monkeypatch.setattr("grclip._report.measured.DEEPEST", 10)
        html = report(*small, path=tmp_path / "r.html", n_cases=30).read_text("utf-8")
        assert "No relevant document is among the first 10." in words(html)
        assert "rank 1 after" in words(html).replace("not found before, ", "")

    def test_long_texts_are_shortened_visibly(self, small, tmp_path):
        task, qrels, methods = small
        long = Items({"text": ["word " * 5000] * 30})
        html = report(task, qrels, methods, long, tmp_path / "r.html").read_text("utf-8")
        assert f"{25_000 - LONG:,} more characters are not part of this page" in words(html)
        assert "word " * (LONG // 5) not in html


def places(method, scenes):
    """Rank of document i for query i among all."""
    fused = method[:-1].transform(scenes.task)
    _, rows = ExactRetriever(k=scenes.n).fit(fused).kneighbors(fused)
    return (np.asarray(rows) == np.arange(scenes.n)[:, None]).argmax(axis=1) + 1


class TestBadInput:
    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"methods": {}}, ValueError, "methods is empty"),
            ({"methods": [1]}, TypeError, "methods must be a dict"),
            ({"methods": {"raw": make_pipeline(MultimodalFuser(), ExactRetriever())}}, NotFittedError, "not fitted"),
            ({"qrels": [{0: 1}]}, ValueError, "qrels has 1 entries, but there are 30 queries"),
            ({"qrels": [{}] * 30}, ValueError, "no document relevant"),
            ({"items": Items({"text": ["a"] * 29})}, ValueError, "items have 29 rows of the corpus, but task has 30"),
            (
                {"items": SearchTask(Items({"query": ["a"] * 3}), Items({"text": ["a"] * 30}))},
                ValueError,
                "items have 3 rows of the queries, but task has 30",
            ),
            ({"items": Items({"text": np.eye(30)})}, TypeError, "role 'text' of items holds embeddings"),
            (
                {"items": Items({"caption": ["a"] * 30})},
                ValueError,
                "items have the roles 'caption' in the corpus, but task has 'text', 'image'",
            ),
            (
                {"items": SearchTask(Items({"question": ["a"] * 30}), Items({"text": ["a"] * 30}))},
                ValueError,
                "items have the roles 'question' in the queries, but task has 'query'",
            ),
            ({"items": ["a"] * 30}, TypeError, "items must be a SearchTask of raw Items"),
            ({"k": 31}, ValueError, "k=31 is larger than the corpus"),
            ({"k": 0}, ValueError, "k must be a whole number"),
            ({"n_cases": -1}, ValueError, "n_cases must be a whole number"),
            ({"title": 7}, TypeError, "title must be a str"),
            ({"note": 7}, TypeError, "note must be a str"),
            ({"random_state": "a"}, TypeError, "random_state must be an int"),
            ({"calibration": 7}, TypeError, "calibration must be a pair"),
            ({"path": "no-such-folder/r.html"}, FileNotFoundError, "there is no folder"),
            ({"path": "."}, IsADirectoryError, "is a folder; name a file in it"),
            ({"path": 7}, TypeError, "path must be a str or path-like"),
        ],
    )
    def test_errors_come_before_any_work(self, small, tmp_path, monkeypatch, change, error, message):
        monkeypatch.chdir(tmp_path)
        given = dict(zip(("task", "qrels", "methods"), small, strict=True)) | change
        with pytest.raises(error, match=re.escape(message)):
            report(**given)
        assert list(tmp_path.iterdir()) == []

    def test_a_task_of_arrays_has_no_kinds(self, small, tmp_path):
        task = SearchTask(np.eye(30), np.eye(30))
        with pytest.raises(TypeError, match="kinds are unknown; pass"):
            report(task, *small[1:], path=tmp_path / "r.html")

    def test_a_failed_write_leaves_the_old_page(self, small, tmp_path):
        path = tmp_path / "r.html"
        path.write_text("old")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        try:
            with pytest.raises(OSError, match="too large"):
                report(*small, path=path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_link_stays_a_link(self, small, tmp_path):
        (tmp_path / "deep").mkdir()
        (tmp_path / "link.html").symlink_to(tmp_path / "deep" / "r.html")
        report(*small, path=tmp_path / "link.html", n_cases=0)
        assert (tmp_path / "link.html").is_symlink()
        assert (tmp_path / "deep" / "r.html").stat().st_size > 10_000

    def test_the_same_arguments_give_the_same_page(self, small, tmp_path):
        pages = [report(*small, path=tmp_path / name).read_bytes() for name in ("a.html", "b.html")]
        assert pages[0] == pages[1]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: no browser to look with"
    )
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on the PATH: the page cannot be looked at in a browser")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield found
        found.close()


@pytest.fixture
def open_page(browser):
    """Open a page; what it asks for and complains of is noted on it."""
    contexts = []

    def opened(path, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        tab = context.new_page()
        tab.asked, tab.complaints = [], []
        tab.on("request", lambda request: tab.asked.append(request.url))
        tab.on("console", lambda message: tab.complaints.append(message.text))
        tab.on("pageerror", lambda error: tab.complaints.append(str(error)))
        tab.goto(path.as_uri())
        return tab

    yield opened
    for context in contexts:
        context.close()


def quiet(tab):
    """Whether nothing was complained of, and nothing asked for but the file and what it holds."""
    return not tab.complaints and [url for url in tab.asked if not url.startswith("data:")] == [tab.url]


def visible_cases(tab):
    return [case.get_attribute("data-group") for case in tab.locator(".case").all() if case.is_visible()]


class TestInABrowser:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("width", [1280, 390])
    def test_axe_finds_nothing(self, open_page, page, scheme, width):
        axe = pytest.importorskip("axe_playwright_python.sync_playwright")
        tab = open_page(page, color_scheme=scheme, viewport={"width": width, "height": 900})
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        assert quiet(tab)
        found = axe.Axe().run(tab)
        assert found.violations_count == 0, found.generate_report()

    def test_pictures_are_drawn_and_follow_the_colour_scheme(self, open_page, page):
        sources = []
        for scheme in ("light", "dark"):
            tab = open_page(page, color_scheme=scheme)
            assert tab.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 300)")
            sources.append(tab.evaluate("document.images[0].currentSrc"))
        assert sources[0] != sources[1]

    def test_filters_work_from_the_keyboard(self, open_page, page):
        tab = open_page(page)
        tab.keyboard.press("Tab")
        assert tab.evaluate("document.activeElement.className") == "skip"
        for _ in range(40):
            tab.keyboard.press("Tab")
            if tab.evaluate("document.activeElement.dataset.group") == "all":
                break
        groups = ["fixed", "broken", "unchanged"]
        for group, key in zip(groups, ["Enter", "Space", "Enter"], strict=True):
            tab.keyboard.press("Tab")
            tab.keyboard.press(key)
            assert tab.evaluate("document.activeElement.dataset.group") == group
            assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
            shown = visible_cases(tab)
            assert set(shown) <= {group}
            assert tab.locator("button[aria-pressed=true]").get_attribute("data-group") == group
            told = tab.locator(f"button[data-group={group}]").inner_text()
            assert f"({len(shown)} of " in told
            assert f"Showing {len(shown)} " in tab.locator("#shown").inner_text()
        tab.locator("button[data-group=all]").press("Enter")
        assert len(visible_cases(tab)) == 30
        assert quiet(tab)

    def test_without_javascript_everything_is_shown(self, open_page, page):
        tab = open_page(page, java_script_enabled=False)
        assert len(visible_cases(tab)) == 30
        assert not tab.locator(".filters").is_visible()

    def test_headings_and_landmarks_are_in_order(self, open_page, page):
        tab = open_page(page)
        levels = [int(h.evaluate("h => h.tagName[1]")) for h in tab.locator("h1, h2, h3, h4").all()]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))
        assert tab.title() == "Drawn scenes"
        assert [tab.locator(name).count() for name in ("body > header", "nav", "main", "footer")] == [1, 1, 1, 1]

    def test_texts_do_not_run_and_are_shown_as_they_are(self, open_page, small, tmp_path):
        task, qrels, (raw, removed) = small[0], small[1], small[2].values()
        methods = {NASTY[0]: raw, NASTY[-1]: removed}
        documents = Items({"text": [NASTY[i % 7] for i in range(30)], "image": [f"/a/{NASTY[1]}\x00\ud800"] * 30})
        items = SearchTask(Items({"query": [NASTY[i % 7] for i in range(30)]}), documents)
        path = report(task, qrels, methods, items, tmp_path / "r.html", title="</title><script>window.bad = 1</script>")
        tab = open_page(path, viewport={"width": 390, "height": 800})
        assert tab.evaluate("window.bad") is None
        assert tab.evaluate("document.scripts.length") == 1
        assert tab.title() == "</title><script>window.bad = 1</script>"
        said = tab.inner_text("main")
        assert all(text in said for text in NASTY)
        assert quiet(tab)
        assert tab.evaluate("document.documentElement.scrollWidth") == 390

    def test_control_characters_and_other_scripts_are_visible(self, open_page, small, tmp_path):
        task, qrels, methods = small
        odd = "nul \x00, bell \x07, half \ud83d, c1 \x9b, right-to-left \u202e\u05d0\u05d1, end " + "\U0001f6b2" * 3
        path = report(task, qrels, methods, Items({"text": [odd] * 30}), tmp_path / "r.html")
        shown = open_page(path).locator(".about p").first.inner_text()
        assert shown.startswith("nul \u2400, bell \u2407, half \ufffd, c1 \ufffd, right-to-left")

    def test_a_script_of_somebody_else_is_refused(self, open_page, page, tmp_path):
        forged = tmp_path / "forged.html"
        html = page.read_text("utf-8").replace("</main>", "<script>window.bad = 1</script></main>")
        forged.write_text(html, "utf-8")
        tab = open_page(forged)
        assert tab.evaluate("window.bad") is None
        assert any("Content Security Policy" in complaint for complaint in tab.complaints)
