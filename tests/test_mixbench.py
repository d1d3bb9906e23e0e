"""The harness of Table 1, end to end on drawn scenes in MixBench's layout."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import ndcg_score as sklearn_ndcg

from benchmarks import datasets, mixbench
from benchmarks._arguments import parser, prepare
from benchmarks._calibration import Calibration, calibrated, pooled, raw_pipeline, stacked
from benchmarks._data import Data, Judged, sampled
from benchmarks._models import CHECKPOINTS
from benchmarks._paper import METRICS, MODELS, PREFIX, SUBSETS, paper_table
from benchmarks._reproduction import ranked, reference_ndcg
from grclip import Items, ModalityGapRemover, SearchTask
from grclip.datasets import load_mixbench, make_scenes, mix_kinds, write_mixbench
from grclip.encoders import toy_encoder
from grclip.metrics import ndcg_score

ROOT = Path(__file__).parents[1]
N = 24


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A root of toy data, what the harness printed of it, and its results as JSON."""
    root = tmp_path_factory.mktemp("mixbench") / "data"
    page = root.parent / "page.md"
    page.write_text(f"before\n{mixbench.BEGIN}\nold\n{mixbench.END}\nafter\n")
    arguments = ["--toy", str(N), "--root", str(root), "--reference-metric", "--json", str(root.parent / "out.json")]
    assert mixbench.main([*arguments, "--markdown", str(page)]) == 0
    return root, page.read_text(), json.loads((root.parent / "out.json").read_text())


def cells(page, row):
    """The cells of a line of the first table that begins with these two."""
    line = next(line for line in page.splitlines() if line.startswith(f"| {row[0]} | {row[1]} |"))
    return dict(zip(SUBSETS, [cell.strip() for cell in line.split("|")[3:-1]], strict=True))


def test_the_paper_table_has_every_model_method_and_subset():
    table = paper_table()
    expected = {(m, method, s) for m in MODELS for method in PREFIX for s in SUBSETS}
    assert expected - set(table) == {(m, "means removed", s) for m in MODELS if "VLM2Vec" in m for s in SUBSETS}
    assert set(table) <= expected
    assert set(CHECKPOINTS) > set(MODELS)
    assert table["CLIP-B/16", "raw", "MSCOCO"] == {"ndcg@10": 0.388, "ndcg@100": 0.426, "recall@1": 0.292}


def test_the_whole_layout_of_the_table_is_printed(toy):
    _, page, _ = toy
    for method in mixbench.METHODS:
        for model in (*MODELS, "toy"):
            assert set(cells(page, (f"{model}, {method}", "measured"))) == set(SUBSETS)
    for model, method, _ in paper_table():
        assert mixbench.BLANK not in cells(page, (f"{model}, {method}", "paper")).values()
    assert "Measured on 24 drawn scenes a subset, not on the data of the paper." in page
    assert "difference" not in page
    assert cells(page, ("CLIP-B/16, raw", "paper"))["MSCOCO"] == "0.388/0.426/0.292"
    assert cells(page, ("CLIP-B/16, raw", "measured"))["MSCOCO"] == mixbench.BLANK
    assert page.startswith("before\n")
    assert page.endswith("\nafter\n")
    assert "\nold\n" not in page


def test_results_are_those_of_the_estimators(toy):
    root, page, results = toy
    task, qrels, _ = load_mixbench("MSCOCO", root, check_counts=False)
    encoded = toy_encoder().transform(task)
    expected = ndcg_score(qrels, ranked(raw_pipeline(encoded), encoded), k=10)
    found = {(r["subset"], r["method"], r["calibration"]): r for r in results["measured"]}
    assert found["MSCOCO", "raw", "none"]["scores"]["ndcg@10"] == pytest.approx(expected, abs=1e-6)
    measured = cells(page, ("toy, raw", "measured"))["MSCOCO"]
    assert measured.startswith(f"{expected:.3f}/")
    assert re.fullmatch(r"\d\.\d{3}/\d\.\d{3}/\d\.\d{3} \(\d\.\d{3}/\d\.\d{3}\)", measured)
    assert found["MSCOCO", "raw", "none"]["encoder"] == encoded.encoder
    assert found["Google_WIT", "raw", "none"]["n_documents"] == 2 * N


def test_removing_means_helps_where_documents_are_mixed(toy):
    scores = {(r["subset"], r["method"], r["calibration"]): r["scores"]["ndcg@10"] for r in toy[2]["measured"]}
    for subset in ("MSCOCO", "Google_WIT", "VisualNews"):
        for calibration in mixbench.CALIBRATIONS:
            assert scores[subset, "means removed", calibration] > scores[subset, "raw", "none"] + 0.02


def test_oven_has_no_other_subset_to_learn_from(toy):
    _, _, results = toy
    (reason,) = results["missing"]
    assert "queries of kind query+query_image" in reason
    assert results["missing"][reason] == ["toy, OVEN, calibration cross-dataset"]
    found = {(r["subset"], r["calibration"]) for r in results["measured"]}
    assert ("OVEN", "training") in found
    assert ("OVEN", "cross-dataset") not in found


def test_it_says_what_was_learned_from(toy, tmp_path, capsys):
    _, page, results = toy
    learned = {(r["subset"], r["calibration"]): r["learned_from"] for r in results["measured"]}
    text = learned["MSCOCO", "training"]
    assert all(f"{role} {n}" in text for role, n in (("query", 3 * N + N // 2), ("text", 5 * N), ("image", 5 * N)))
    assert "nfcorpus train queries" in text
    assert f"query {N}, query_image {N}" in learned["OVEN", "training"]
    assert learned["MSCOCO", "none"] is None
    assert f"toy (Google_WIT, MSCOCO, VisualNews): {text}" in page
    for place in (tmp_path, tmp_path / "train"):
        write_mixbench(*make_scenes(12, random_state=len(place.parts)), place, "MSCOCO")
    assert mixbench.main(["--root", str(tmp_path), "--models", "toy", "--subsets", "MSCOCO", "--unpublished"]) == 0
    printed = capsys.readouterr().out
    assert "12 rows of train/MSCOCO" in printed
    assert "without nfcorpus train queries (" in printed
    assert ", train/Google_WIT, train/OVEN, train/VisualNews" in printed


def test_a_second_run_encodes_nothing(toy, capsys):
    root, page, _ = toy
    files = {path: path.stat().st_mtime_ns for path in (root / "embeddings").rglob("*.safetensors")}
    assert files
    mixbench.main(["--toy", str(N), "--root", str(root), "--reference-metric"])
    assert capsys.readouterr().out.strip() in page
    assert files == {path: path.stat().st_mtime_ns for path in (root / "embeddings").rglob("*.safetensors")}


SLOW = """
import sys, time
from pathlib import Path
from grclip.encoders import _batches, open_clip
log = open(sys.argv[1], "a", buffering=1)
embed = open_clip.OpenCLIPModel.embed
def slow(self, modality, inputs):
    time.sleep(0.15)
    found = embed(self, modality, inputs)
    if inputs.shape[0] > 1 or modality == "image":
        log.write(f"{modality} {inputs.double().sum().item()!r} {tuple(inputs.shape)}\\n")
    return found
open_clip.OpenCLIPModel.embed = slow
from benchmarks import mixbench
sys.exit(mixbench.main(sys.argv[2:]))
"""


def test_a_run_that_is_killed_goes_on_and_encodes_no_finished_batch_twice(tmp_path):
    log, out = tmp_path / "log", tmp_path / "out.json"
    arguments = ["--toy", "16", "--root", str(tmp_path / "data"), "--json", str(out), "--calibrations", "transductive"]
    command = [sys.executable, "-W", "error", "-c", SLOW, str(log), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as first:
        while first.poll() is None and len(list((tmp_path / "data").rglob("*.safetensors"))) < 2:
            time.sleep(0.02)
        first.send_signal(signal.SIGKILL)
    assert first.returncode == -signal.SIGKILL
    assert not out.exists()
    before = len(log.read_text().splitlines())
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    lines = log.read_text().splitlines()
    twice = {line for line in lines if lines.count(line) > 1}
    assert before >= 2
    assert len(lines) > before
    assert len(twice) <= 2  # at most the batch that was under way: its texts and its pictures
    fresh = tmp_path / "fresh.json"
    assert mixbench.main([*arguments, "--cache", str(tmp_path / "fresh"), "--json", str(fresh)]) == 0
    resumed, at_once = ([r["scores"] for r in json.loads(path.read_text())["measured"]] for path in (out, fresh))
    assert resumed == at_once


def test_without_data_it_says_what_to_get_and_where_to_put_it(tmp_path, capsys):
    assert mixbench.main(["--root", str(tmp_path), "--models", "toy"]) == 1
    printed = capsys.readouterr().out
    assert f"{tmp_path / 'MSCOCO' / 'queries.jsonl'}" in printed
    assert "hf download mixed-modality-search/MixBench25 --repo-type dataset --revision 88e3916036ea" in printed
    assert cells(printed, ("CLIP-B/16, raw", "paper"))["MSCOCO"] == "0.388/0.426/0.292"


def test_without_training_splits_the_rest_is_measured(tmp_path, capsys):
    for seed, subset in enumerate(("MSCOCO", "VisualNews")):
        write_mixbench(*make_scenes(12, random_state=seed), tmp_path, subset)
    arguments = ["--root", str(tmp_path), "--models", "toy", "--subsets", "MSCOCO", "VisualNews", "--unpublished"]
    assert mixbench.main(arguments) == 0
    printed = capsys.readouterr().out
    assert cells(printed, ("toy, means removed", "measured"))["MSCOCO"] == mixbench.BLANK
    assert "Calibration: transductive" in printed
    assert re.search(r"\| toy, one scale \| — \| \d", printed)
    assert f"{tmp_path / 'train'} holds none of" in printed


def test_other_counts_than_those_published_are_refused(tmp_path, capsys):
    write_mixbench(*make_scenes(12, random_state=0), tmp_path, "MSCOCO")
    assert mixbench.main(["--root", str(tmp_path), "--models", "toy", "--subsets", "MSCOCO"]) == 1
    assert "published with 984" in capsys.readouterr().out


def test_a_model_that_is_not_here_is_told_with_its_data_found(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    write_mixbench(*make_scenes(8, random_state=0), tmp_path, "MSCOCO")
    arguments = ["--root", str(tmp_path), "--subsets", "MSCOCO", "--unpublished"]
    assert mixbench.main([*arguments, "--models", "SigLIP-400m", "toy"]) == 0
    printed = capsys.readouterr().out
    assert "- cannot load google/siglip-so400m-patch14-384" in printed
    assert "(SigLIP-400m, MSCOCO, calibration none; SigLIP-400m, MSCOCO, calibration" in printed
    assert cells(printed, ("toy, raw", "measured"))["MSCOCO"] != mixbench.BLANK


def test_a_model_may_be_taken_from_a_folder(tmp_path, capsys):
    write_mixbench(*make_scenes(8, random_state=0), tmp_path, "MSCOCO")
    checkpoint = ROOT / "grclip" / "encoders" / "toy_clip"
    arguments = ["--root", str(tmp_path), "--subsets", "MSCOCO", "--unpublished", "--models", "CLIP-B/16"]
    assert mixbench.main([*arguments, "--checkpoint", f"CLIP-B/16={checkpoint}"]) == 0
    printed = capsys.readouterr().out
    assert re.fullmatch(r"\d\.\d{3}/\d\.\d{3}/\d\.\d{3}", cells(printed, ("CLIP-B/16, raw", "measured"))["MSCOCO"])
    assert "not to be compared with the paper" in printed
    assert "difference" not in printed


def test_differences_are_ours_less_the_papers(toy):
    found = {("CLIP-B/16", "raw", "MSCOCO"): {"ndcg@10": 0.4, "ndcg@100": 0.426, "recall@1": 0.2}}
    lines = "\n".join(mixbench.table(found, MODELS, compared=True))
    assert cells(lines, ("CLIP-B/16, raw", "difference"))["MSCOCO"] == "+0.012/+0.000/-0.092"
    assert cells(lines, ("CLIP-B/16, raw", "difference"))["OVEN"] == mixbench.BLANK


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "CLIP-Z"], "--models: no model CLIP-Z; there are CLIP-B/16"),
        (["--checkpoint", "CLIP-B/16"], "--checkpoint takes MODEL=PLACE; got CLIP-B/16"),
        (["--checkpoint", "CLIPB=x"], "--checkpoint: no model CLIPB; there are CLIP-B/16"),
        (["--toy", "0"], "expected a number from 2 to 299; got '0'"),
        (["--toy", "300"], "expected a number from 2 to 299; got '300'"),
        (["--toy", "20", "--models", "CLIP-B/16"], "--toy measures toy; leave --models out"),
        (["--alpha", "2"], "expected a number from 0 to 1; got '2'"),
        (["--batch-size", "0"], "got '0'"),
        (["--device", "gpu"], "'gpu' is no device of this machine"),
        (["--json", "no/such/folder/x.json"], "is no file in a folder that is there"),
        (["--markdown", __file__], "is no page with the lines"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_before_anything_is_measured(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        mixbench.main(["--root", str(tmp_path), *arguments])
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_machine_loses_nothing_that_was_measured(tmp_path, capsys, monkeypatch):
    write_mixbench(*make_scenes(8, random_state=0), tmp_path, "MSCOCO")
    place = ROOT / "grclip" / "encoders" / "toy_clip"
    arguments = ["--root", str(tmp_path), "--subsets", "MSCOCO", "--unpublished", "--models", "toy", "CLIP-B/16"]
    measure = mixbench.measure_subset

    def breaking(data, *others):
        if data.model == "CLIP-B/16":
            raise RuntimeError("CUDA error: an illegal memory access")
        return measure(data, *others)

    monkeypatch.setattr(mixbench, "measure_subset", breaking)
    out = tmp_path / "out.json"
    assert mixbench.main([*arguments, "--checkpoint", f"CLIP-B/16={place}", "--json", str(out)]) == 0
    printed = capsys.readouterr()
    assert "- RuntimeError: CUDA error: an illegal memory access (CLIP-B/16, MSCOCO, calibration none" in printed.out
    assert "Traceback" in printed.err
    assert {r["model"] for r in json.loads(out.read_text())["measured"]} == {"toy"}


def test_toy_data_are_not_written_among_others(tmp_path):
    write_mixbench(*make_scenes(8, random_state=0), tmp_path, "MSCOCO")
    with pytest.raises(SystemExit, match="holds other data; give --toy 8 a folder of its own"):
        mixbench.main(["--toy", "8", "--root", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["MSCOCO"]


def test_toy_data_of_another_size_are_not_taken_for_these(toy):
    with pytest.raises(SystemExit, match=f"holds {N} toy scenes a dataset; give --toy 8 a folder of its own"):
        mixbench.main(["--toy", "8", "--root", str(toy[0])])


def test_the_reference_metric_is_that_of_the_papers_code(rng):
    qrels = [{0: 1, 5: 1, 6: 1}, {3: 1}, {9: 1}]
    ranking = np.array([[0, 1, 2], [1, 3, 2], [1, 2, 3]])
    places = [[3.0, 2.0, 1.0]]
    grades = [[[judged.get(int(row), 0) for row in line]] for judged, line in zip(qrels, ranking, strict=True)]
    expected = np.mean([sklearn_ndcg(line, places, k=10) for line in grades])
    assert reference_ndcg(qrels, ranking) == pytest.approx(expected)
    assert reference_ndcg(qrels[:1], ranking[:1]) == 1
    assert ndcg_score(qrels[:1], ranking[:1]) == pytest.approx(0.469, abs=5e-4)


def test_both_metrics_agree_where_each_query_has_one_relevant_document(toy):
    for result in toy[2]["measured"]:
        assert result["scores"]["reference ndcg@10"] == pytest.approx(result["scores"]["ndcg@10"], abs=1e-12)
        assert set(METRICS) < set(result["scores"])


def encoded_scenes(n, seed):
    drawn, qrels = make_scenes(n, random_state=seed)
    return toy_encoder().transform(drawn), qrels


def test_pooled_tasks_keep_their_judgements():
    one, qrels = encoded_scenes(5, 0)
    other, more = encoded_scenes(7, 1)
    other = SearchTask(other.queries, Items({"image": other.corpus["image"]}, encoder=other.encoder))
    task, judged = pooled([Judged("one", one, qrels), Judged("other", other, more)])
    assert len(task.corpus) == 12
    assert judged == [{i: 1} for i in range(12)]
    assert task.corpus.kinds.tolist() == ["text+image"] * 5 + ["image"] * 7
    np.testing.assert_array_equal(task.corpus["image"][5:], other.corpus["image"])
    assert stacked([one.queries, other.queries]).encoder == one.encoder


def test_means_are_of_the_rows_of_all_sources_and_queries_of_the_kind_that_is_asked():
    one, qrels = encoded_scenes(5, 0)
    other, more = encoded_scenes(7, 1)
    queries = Items({**other.queries, "query_image": other.corpus["image"]}, encoder=other.encoder)
    sources = [Judged("one", one, qrels), Judged("other", SearchTask(queries, other.corpus), more)]
    remover = Calibration(sources, "query").remover
    texts = np.concatenate([one.corpus["text"], other.corpus["text"]])
    expected = ModalityGapRemover().fit({"query": one.queries["query"], "text": texts})
    for role in ("query", "text"):
        np.testing.assert_allclose(remover.means_[role], expected.means_[role], atol=1e-12)
    assert remover.n_samples_seen_ == {"query": 5, "text": 12, "image": 12}
    assert "query_image" not in remover.means_


def test_training_queries_of_nfcorpus_go_into_the_mean_of_text_queries(toy):
    root, _, _ = toy
    made = prepare(parser(None, ["toy"]), ["--toy", str(N), "--root", str(root)])
    data = Data("toy", made)
    seen = {subset: calibrated(data, subset, "training").remover.n_samples_seen_ for subset in ("MSCOCO", "OVEN")}
    assert seen["MSCOCO"] == {"query": 3 * N + N // 2, "text": 5 * N, "image": 5 * N}
    assert seen["OVEN"] == {"query": N, "query_image": N, "text": 5 * N, "image": 5 * N}


def test_a_sample_keeps_the_judgements_of_its_rows(tmp_path):
    write_mixbench(*make_scenes(20, random_state=0), tmp_path, "MSCOCO")
    whole = load_mixbench("MSCOCO", tmp_path, corpus="full", check_counts=False)
    task, qrels, _ = sampled(whole, 8, 11)
    assert (len(task), len(task.corpus), len(qrels)) == (8, 11, 8)
    texts = list(whole.task.corpus["text"])
    asked = list(whole.task.queries["query"])
    for query, judged in zip(task.queries["query"], qrels, strict=True):
        right = texts[asked.index(query)]
        assert [task.corpus["text"][row] for row in judged] == ([right] if right in list(task.corpus["text"]) else [])


def test_mixed_corpora_of_a_subset_need_no_image_to_be_opened(tmp_path):
    task, qrels = make_scenes(6, random_state=0)
    write_mixbench(task, qrels, tmp_path, "MSCOCO", mixed=mix_kinds(task.corpus, (1, 0, 0), random_state=0))
    found = load_mixbench("MSCOCO", tmp_path, check_counts=False)
    assert found.task.corpus.roles == ("text",)


def test_the_time_of_scoring_is_printed(capsys):
    assert mixbench.main(["--speed"]) == 0
    assert re.search(r"4,421 documents, three methods and metrics: \d+\.\d\d s", capsys.readouterr().out)


def test_what_loading_and_drawing_cost_is_printed(capsys):
    assert datasets.main(["--pages", "20"]) == 0
    loaded, drawn = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"4,421 documents in the .* MixBench25: \d\.\d{3} s \(median of 7\), 0 pictures opened", loaded)
    assert re.fullmatch(r"20 abstracts drawn as pages: \d+\.\d s, \d+ MB; found there again: \d+\.\d s", drawn)
