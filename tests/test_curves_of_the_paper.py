"""The figures of curves, end to end on drawn scenes in the layouts of MixBench and BEIR."""

import contextlib
import io
import json
from argparse import Namespace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from searches import make_complete
from sklearn.pipeline import make_pipeline

from benchmarks import alpha, metrics, ucurve
from benchmarks._calibration import Calibration, raw_pipeline
from benchmarks._curves import Measured, data_apart
from benchmarks._data import Judged
from benchmarks._reproduction import ranked
from benchmarks._toy import BEIR
from benchmarks.alpha import Alpha
from benchmarks.ucurve import PICTURES, SHARES, UCurve, training_part
from grclip import ExactRetriever, Items, ModalityGapRemover, MultimodalFuser, SearchTask
from grclip.datasets import load_beir, load_mixbench, make_scenes, write_mixbench
from grclip.datasets.screenshots import render_screenshots
from grclip.diagnostics import Curve
from grclip.encoders import toy_encoder
from grclip.metrics import ndcg_score

N = 20
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
PLAIN = Namespace(reference_metric=False)
MODEL = {"checkpoint": {}, "device": None, "batch_size": None}
"""Arguments about models."""


def run(script, *arguments):
    """The exit status of a script, and what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = script.main([str(argument) for argument in arguments])
    return status, printed.getvalue()


def states(folder):
    """Files below a folder, and when they were written."""
    return {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("curves")


@pytest.fixture(scope="module")
def figure_2(root):
    """What `benchmarks.ucurve` prints, and its results, on toy data that it draws."""
    file = root / "ucurve.json"
    given = ("--toy", N, "--root", root, "--repeats", 3, "--json", file, "--plots", root / "pictures")
    status, page = run(ucurve, *given)
    assert status == 0
    return page, json.loads(file.read_text())["ucurve"]


@pytest.fixture(scope="module")
def figure_3(root, figure_2):
    """What `benchmarks.alpha` prints, and its results, on the same."""
    status, page = run(alpha, "--toy", N, "--root", root, "--json", root / "alpha.json")
    assert status == 0
    return page, json.loads((root / "alpha.json").read_text())["alpha"]


def cells(page, heading, row):
    """Numbers of a row of a table."""
    table = page.split(f"### {heading}\n")[1].split("\n### ")[0]
    (line,) = (line for line in table.splitlines() if line.startswith(f"| {row} |"))
    return [cell.strip() for cell in line.strip("|").split("|")[len(row.split(" | ")) :]]


def means(found, dataset, calibration, metric="NDCG@10"):
    """Means of the methods of one calibration on one dataset."""
    key = (dataset, calibration, metric)
    (each,) = (x for x in found["measured"] if (x["dataset"], x["calibration"], x["metric"]) == key)
    return {name: np.array(scores["mean"]) for name, scores in each["scores"].items()}


def complete(root, dataset):
    """The raw task whose documents have a text and a picture, and its judgements."""
    return load_mixbench(dataset, root, corpus="full", check_counts=False)[:2]


def searched(task, qrels):
    """NDCG@10 of a plain search."""
    return ndcg_score(qrels, make_pipeline(MultimodalFuser(), ExactRetriever()).fit(task).predict(task))


@pytest.mark.parametrize("dataset", PICTURES)
def test_the_ends_are_searches_of_texts_and_of_pictures_alone(root, figure_2, dataset):
    page, found = figure_2
    task, qrels = complete(root, dataset)
    encoded = toy_encoder().transform(task)
    printed = cells(page, f"{dataset}, NDCG@10", "toy, raw | none")
    assert len(printed) == len(SHARES) + 1
    for end, role in ((0, "text"), (len(SHARES) - 1, "image")):
        score = searched(SearchTask(encoded.queries, Items({role: encoded.corpus[role]})), qrels)
        raw = means(found, dataset, "none")
        assert raw["raw"][end] == raw["raw, pushed down"][end] == pytest.approx(score)
        assert printed[end] == f"{score:.3f}"


@pytest.mark.parametrize("dataset", PICTURES)
def test_raw_vectors_make_a_u_and_calibration_flattens_it(figure_2, dataset):
    page, found = figure_2
    raw = means(found, dataset, "none")["raw"]
    assert raw.min() < 0.97 * min(raw[0], raw[-1])
    assert cells(page, f"{dataset}, NDCG@10", "toy, raw | none")[-1] == f"{raw.min() / min(raw[0], raw[-1]):.2f}"
    for calibration in ("training", "transductive", "cross-dataset"):
        for method, curve in means(found, dataset, calibration).items():
            assert curve.min() > raw.min() + 0.02, (calibration, method)


def test_cross_dataset_means_are_those_of_the_other_dataset(root, figure_2):
    """At the ends, as a plain pipeline finds it."""
    encoder, roles = toy_encoder(), ("text", "image")
    datasets = {dataset: complete(root, dataset) for dataset in PICTURES}
    encoded = {dataset: encoder.transform(task) for dataset, (task, _) in datasets.items()}
    for dataset, other in (PICTURES, PICTURES[::-1]):
        centred = ModalityGapRemover().fit(encoded[other]).transform(encoded[dataset])
        alone = [SearchTask(centred.queries, Items({role: centred.corpus[role]})) for role in roles]
        curve = means(figure_2[1], dataset, "cross-dataset")["means removed"]
        assert curve[[0, -1]] == pytest.approx([searched(one, datasets[dataset][1]) for one in alone])


def test_means_of_screenshots_are_those_of_the_other_dataset(root, figure_2):
    """At the end where all are pages."""
    encoder, encoded = toy_encoder(), {}
    for name in BEIR:
        task, qrels, _ = load_beir(root / name, check_counts=False)
        pages = render_screenshots(task.corpus, font=FONT)["screenshot"]
        encoded[name] = encoder.transform(SearchTask(task.queries, Items({"screenshot": pages}))), qrels
    for name, other in (BEIR, BEIR[::-1]):
        task, qrels = encoded[name]
        for calibration, source in (("cross-dataset", other), ("transductive", name)):
            score = searched(ModalityGapRemover().fit(encoded[source][0]).transform(task), qrels)
            assert means(figure_2[1], name, calibration)["means removed"][-1] == pytest.approx(score)


def test_screenshots_are_drawn_once(root, figure_2):
    pages = [path for path in states(root / "embeddings" / "pages") if path.suffix == ".png"]
    texts = [load_beir(root / name, check_counts=False).task.corpus["text"] for name in BEIR]
    assert len(pages) == sum(len(set(each)) for each in texts)


def test_training_screenshots_are_documents_that_training_queries_ask_for(root, figure_2):
    for each in figure_2[1]["measured"]:
        if each["dataset"] in BEIR and each["calibration"] == "training":
            rows = "text {0}, screenshot {0}, query {0} rows of {1} training".format(N // 2, each["dataset"])
            assert each["learned_from"] == rows
    part = training_part(Namespace(root=root, unpublished=True), "scifact")
    train, test = (load_beir(root / "scifact", split=split, check_counts=False) for split in ("train", "test"))
    kept = set(part.task.corpus["text"])
    assert kept == {train.task.corpus["text"][row] for judged in train.qrels for row in judged}
    assert not kept & {test.task.corpus["text"][row] for judged in test.qrels for row in judged}
    for query, judged in zip(part.task.queries["query"], part.qrels, strict=True):
        (row,) = train.qrels[list(train.task.queries["query"]).index(query)]
        assert [part.task.corpus["text"][each] for each in judged] == [train.task.corpus["text"][row]]


def test_pictures_of_the_curves(root, figure_2):
    files = sorted((root / "pictures").iterdir())
    assert len(files) == 3 * len(PICTURES) + 3 * len(BEIR)
    assert "ucurve-ndcg-10-toy-google-wit-cross-dataset.png" in {file.name for file in files}
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


def test_the_numbers_of_the_papers_text_stand_by_screenshots_and_clip_alone():
    def lines(dataset, model="CLIP-L/14", metric="NDCG@10"):
        curve = Curve("p", np.array(SHARES), {"raw": np.full((len(SHARES), 1), 0.5)}, metric, "random corpora")
        return UCurve(options, []).table([Measured(model, None, dataset, "none", None, curve, 1, 1)])

    options = Namespace(reference_metric=False, unpublished=False)

    row = lines("scifact")[-1]
    assert row.startswith("| paper's text, raw CLIP (it names neither dataset nor model) | ")
    assert row.endswith(" | 0.22 |  |  |  |  |  | 0.02 | 0.36 | 0.09 |")
    for others in (lines("MSCOCO"), lines("scifact", "toy"), lines("scifact", metric="NDCG@100")):
        assert "paper" not in others[-1]
    options.unpublished = True
    assert "paper" not in lines("scifact")[-1]


@pytest.mark.parametrize("dataset", ["MSCOCO", "OVEN"])
def test_alpha_of_a_half_is_the_search_of_table_1(root, figure_3, dataset):
    page, found = figure_3
    task, qrels = complete(root, dataset)
    judged = Judged(dataset, toy_encoder().transform(task), qrels)
    learned = Calibration([judged], judged.asked, judged=False)
    for method, curve in means(found, dataset, "transductive").items():
        assert curve[5] == pytest.approx(ndcg_score(qrels, ranked(learned.pipeline(method), judged.task)))
    raw = ndcg_score(qrels, ranked(raw_pipeline(judged.task), judged.task))
    assert means(found, dataset, "none")["raw"][5] == pytest.approx(raw)
    assert float(cells(page, f"{dataset}, NDCG@10", "toy, raw | none")[5]) == pytest.approx(raw, abs=0.0005)


@pytest.mark.parametrize("judged", [True, False])
def test_every_alpha_is_a_search_of_table_1(rng, judged):
    """With spreads of that alpha, learned with or without the judgements, and the weights of the queries' parts."""
    here, there = (asking_with_pictures(rng) for _ in range(2))
    learned = Calibration([there], there.asked, judged=judged)
    curve = Alpha(Namespace(query_alpha=0.3, reference_metric=False), []).curve(here, learned, ("ndcg", 10))
    assert list(curve.scores) == ["means removed", "one scale"]
    for method in curve.scores:
        slow = [ndcg_score(here.qrels, ranked(learned.pipeline(method, a, 0.3), here.task)) for a in curve.values]
        np.testing.assert_allclose(curve.mean(method), slow)
    assert (curve.mean("means removed") != curve.mean("one scale")).any()


def asking_with_pictures(rng):
    """Queries of a text and a picture; of documents some have one of these."""
    task, qrels = make_complete(rng, n=60)
    asked = Items({**task.queries, "query_image": task.corpus["image"] + 0.1 * rng.normal(size=(60, 16))})
    corpus = {role: part.copy() for role, part in task.corpus.items()}
    corpus["text"][:15] = corpus["image"][15:40] = np.nan
    return Judged("noise", SearchTask(asked, Items(corpus)), qrels)


def test_what_is_searched_is_learned_from_without_its_judgements(halves):
    root, _ = halves
    data = data_apart("toy", Namespace(root=root, cache=root / "embeddings", unpublished=True, **MODEL))
    for figure in (UCurve(PLAIN, []), Alpha(PLAIN, [])):
        assert figure.calibrated(data, "MSCOCO", "transductive").judged is False


def test_queries_of_two_parts_have_no_other_dataset_to_learn_from(figure_3):
    page, found = figure_3
    reason = "there are no queries of kind query+query_image to learn a mean from"
    assert found["missing"] == {reason: ["toy, OVEN, calibration cross-dataset"]}
    assert f"- {reason} (toy, OVEN, calibration cross-dataset)" in page
    assert "| toy, one scale | training |" in page.split("### OVEN")[1]


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """Figure 3 where text and picture tell one half each, and its settings."""
    root = tmp_path_factory.mktemp("halves")
    write_mixbench(*make_scenes(100, random_state=0, complementary=True), root, "MSCOCO")
    given = ("--root", root, "--models", "toy", "--unpublished", "--datasets", "MSCOCO", "--calibrations")
    return root, (*given, "transductive", "training")


def test_fusing_beats_both_ends_where_text_and_picture_tell_one_half_each(halves):
    root, given = halves
    status, page = run(alpha, *given, "--json", root / "alpha.json")
    found = json.loads((root / "alpha.json").read_text())["alpha"]
    assert status == 0
    for method, curve in means(found, "MSCOCO", "transductive").items():
        row = cells(page, "MSCOCO, NDCG@10", f"toy, {method} | transductive")
        best = int(np.argmax(curve))
        assert 0 < best < 10
        ends = max(curve[0], curve[-1])
        assert row[-3:] == [f"{best / 10:g}", f"{curve[best]:.3f}", f"{curve[best] - ends:.3f}"]
        assert curve[best] > ends + 0.03
    (reason,) = found["missing"]
    assert f"{root / 'train'} holds none of Google_WIT, MSCOCO, OVEN, VisualNews" in reason
    assert found["missing"][reason] == ["toy, MSCOCO, calibration training"]
    assert f"- {reason} (toy, MSCOCO, calibration training)" in page


def test_recall_at_1_is_ndcg_at_1_where_one_document_is_relevant(halves):
    root, given = halves
    options = Namespace(query_alpha=0.5, reference_metric=False)
    data = data_apart("toy", Namespace(root=root, cache=root / "embeddings", unpublished=True, **MODEL))
    judged = data.subset("MSCOCO", "full")
    recall, ndcg = (Alpha(options, []).curve(judged, None, (metric, 1)) for metric in ("recall", "ndcg"))
    np.testing.assert_array_equal(recall.scores["raw"], ndcg.scores["raw"])
    assert run(metrics, *given, "--repeats", 1, "--json", root / "metrics.json")[0] == 0
    written = means(json.loads((root / "metrics.json").read_text())["alpha"], "MSCOCO", "none", "Recall@1")["raw"]
    np.testing.assert_allclose(written, ndcg.mean("raw"))
    assert np.ptp(written) > 0.1


def test_other_metrics_come_from_the_same_embeddings(root, figure_2, figure_3):
    """Not one file of vectors or pages is written again, and the model is not loaded."""
    before = states(root / "embeddings")
    file = root / "metrics.json"
    status, page = run(metrics, "--toy", N, "--root", root, "--repeats", 1, "--json", file)
    assert status == 0
    assert states(root / "embeddings") == before
    assert len(before) > 30
    found = json.loads(file.read_text())
    assert {each["metric"] for each in found["ucurve"]["measured"]} == {"NDCG@100"}
    assert {each["metric"] for each in found["alpha"]["measured"]} == {"NDCG@100", "Recall@1"}
    assert {each["dataset"] for each in found["ucurve"]["measured"]} == {*PICTURES, *BEIR}
    assert page.index("## Figure 6: ") < page.index("## Figure 7: ")
    at_100, at_10 = (
        means(figure, "nfcorpus", "none", metric)["raw"]
        for figure, metric in ((found["ucurve"], "NDCG@100"), (figure_2[1], "NDCG@10"))
    )
    assert at_100[-1] > at_10[-1]
    assert cells(page, "nfcorpus, NDCG@100", "toy, raw | none")[:-1] == [f"{score:.3f}" for score in at_100]
    intervals = [each["scores"]["raw"]["interval"] for each in found["ucurve"]["measured"] if "raw" in each["scores"]]
    assert intervals == [[[None, None]] * len(SHARES)] * 4, "one random corpus says nothing of others"


def test_on_request_curves_by_the_metric_of_the_papers_code(root, figure_3, tmp_path):
    given = ("--root", root, "--unpublished", "--models", "toy", "--datasets", "MSCOCO", "--calibrations")
    out = tmp_path / "out.json"
    assert run(alpha, *given, "transductive", "--reference-metric", "--json", out)[0] == 0
    found = json.loads(out.read_text())["alpha"]
    usual, reference = (means(found, "MSCOCO", "none", name)["raw"] for name in ("NDCG@10", "reference ndcg@10"))
    np.testing.assert_allclose(usual, reference)  # as each query has one relevant document


@pytest.mark.parametrize("script", [ucurve, alpha, metrics])
def test_nothing_at_hand(tmp_path, script):
    status, page = run(script, "--root", tmp_path, "--models", "toy", "--datasets", "MSCOCO")
    assert status == 1
    for calibration in ("none", "training", "transductive", "cross-dataset"):
        assert f"toy, MSCOCO, calibration {calibration}" in page
    assert f"{tmp_path / 'MSCOCO' / 'queries.jsonl'}" in page


def test_a_model_that_is_not_here_is_told_beside_one_that_is(root, figure_3, tmp_path):
    given = ("--root", root, "--unpublished", "--datasets", "MSCOCO", "--calibrations", "transductive")
    lost = f"CLIP-B/16={tmp_path / 'lost'}"
    status, page = run(alpha, *given, "--models", "CLIP-B/16", "toy", "--checkpoint", lost)
    assert status == 0
    assert "| toy, raw | none |" in page
    assert "(CLIP-B/16, MSCOCO, calibration none; CLIP-B/16, MSCOCO, calibration transductive)" in page
    assert str(tmp_path / "lost") in page


def test_vlm2vec_reads_texts_and_pictures_apart():
    data = data_apart("VLM2Vec(Qwen)", Namespace(**MODEL))
    assert data.encoder.joint is False
