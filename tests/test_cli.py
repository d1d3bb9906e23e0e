"""The command line: the demo and the search of a folder, as a user calls them."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
from sklearn.pipeline import Pipeline, make_pipeline

from grclip import Items, ModalityGapRemover, MultimodalFuser, SearchTask, load_pipeline, save_pipeline
from grclip._calibrator import Calibrator
from grclip._demo import run_demo
from grclip._folder import asked_by_texts, calibrate, read_folder
from grclip._judged import METHODS, judged_folder
from grclip._optional import optional_import
from grclip.cli import main
from grclip.datasets import make_scenes, mix_kinds
from grclip.encoders import toy_encoder
from grclip.metrics import ndcg_score


@pytest.fixture(scope="module")
def task():
    drawn, _ = make_scenes(30, random_state=0)
    return drawn, mix_kinds(drawn.corpus, random_state=0)


@pytest.fixture
def folder(task, tmp_path):
    """Texts, pictures and both, under one name each; one of each kind in a subfolder."""
    _, corpus = task
    place = tmp_path / "things"
    (place / "deep").mkdir(parents=True)
    for i, (text, picture) in enumerate(zip(corpus["text"], corpus["image"], strict=True)):
        at = place / ("deep" if i % 3 == 0 else "") / f"{i:02}"
        if text:
            at.with_suffix(".txt").write_text(text)
        if picture:
            picture.save(at.with_suffix(".png"))
    return place


@pytest.fixture
def calibrated():
    """A pipeline fitted on other scenes than those of the folder."""
    drawn, _ = make_scenes(60, random_state=1)
    encoded = toy_encoder().transform(SearchTask(drawn.queries, mix_kinds(drawn.corpus, random_state=1)))

    def fitted(*, kinds=("text", "image", "text+image"), query="query", **options):
        corpus = encoded.corpus[np.isin(encoded.corpus.kinds, kinds)]
        task = SearchTask(Items({query: encoded.queries["query"]}, encoder=corpus.encoder), corpus)
        modalities = {query: "text"}
        return Pipeline(
            [("degap", ModalityGapRemover()), ("fuse", MultimodalFuser(modalities=modalities, **options))]
        ).fit(task)

    return fitted


def save(pipeline, path):
    """What is saved, as it is loaded."""
    save_pipeline(pipeline, path)
    return load_pipeline(path)


def run(capsys, *words):
    status = main([str(word) for word in words])
    return status, *capsys.readouterr()


class TestSearch:
    def test_it_finds_what_was_asked_for_in_every_kind(self, capsys, task, folder):
        drawn, corpus = task
        places = []
        for i, query in enumerate(drawn.queries["query"]):
            status, out, err = run(capsys, "search", folder, query, "--model", "toy", "-k", "5")
            assert (status, err) == (0, "")
            lines = [re.match(r" *(\d+) +(-?[\d.]+)  (\S+) +(.*)", line).groups() for line in out.splitlines()]
            assert [int(rank) for rank, *_ in lines] == [1, 2, 3, 4, 5]
            assert sorted((float(score) for _, score, *_ in lines), reverse=True) == [float(s) for _, s, *_ in lines]
            for _, _, kind, paths in lines:
                row = int(re.search(r"(\d\d)\.", paths)[1])
                assert kind == corpus.kinds[row]
                assert len(paths.split(" + ")) == len(kind.split("+"))
                assert all((folder / path).exists() for path in paths.split(" + "))
            found = [int(re.search(r"(\d\d)\.", paths)[1]) for *_, paths in lines]
            places.append(found.index(i) if i in found else 9)
        assert np.mean(np.array(places) == 0) > 0.8

    def test_results_are_saved_as_a_picture(self, capsys, folder, tmp_path):
        status, _, _ = run(capsys, "search", folder, "red", "--model", "toy", "--save", tmp_path / "r.png")
        assert status == 0
        with PIL.Image.open(tmp_path / "r.png") as picture:
            assert picture.size[0] > 1000

    def test_hidden_files_and_other_files_are_left_alone(self, capsys, folder):
        (folder / ".hidden.txt").write_text("red circle")
        (folder / ".git").mkdir()
        (folder / ".git" / "a.txt").write_text("red circle")
        (folder / "table.csv").write_text("red,circle")
        _, out, _ = run(capsys, "search", folder, "red circle", "--model", "toy", "-k", "1000")
        assert len(out.splitlines()) == 30

    def test_two_pictures_of_one_name_are_two_documents(self, capsys, task, tmp_path):
        picture = task[0].corpus["image"][0]
        for name in ("a.png", "a.jpg"):
            picture.save(tmp_path / name)
        (tmp_path / "a.txt").write_text("something")
        _, out, err = run(capsys, "search", tmp_path, "red", "--model", "toy")
        assert len(out.splitlines()) == 2
        assert "1 texts and 2 pictures are too few to calibrate on" in err

    def test_a_broken_picture_is_skipped_with_a_word(self, capsys, folder):
        (folder / "broken.png").write_bytes(b"no picture")
        status, out, err = run(capsys, "search", folder, "red", "--model", "toy", "-k", "100")
        assert status == 0
        assert len(out.splitlines()) == 30
        assert re.match(
            r"grclip: 1 part cannot be read, and missing from now on: role 'image', row \d+: .*broken.png", err
        )

    def test_odd_files_neither_win_nor_stop_a_search(self, capsys, task, folder):
        (folder / "empty.txt").touch()
        (folder / "blank.md").write_text("  \n")
        (folder / "dead.txt").symlink_to(folder / "gone")
        os.mkfifo(folder / "pipe.txt")
        (folder / "wide.txt").write_text(task[0].corpus["text"][1], encoding="utf-16")
        (folder / "long.txt").write_text("red circle " * 100_000)
        status, out, err = run(capsys, "search", folder, task[0].queries["query"][1], "--model", "toy", "-k", "100")
        assert status == 0
        assert len(out.splitlines()) == 32
        assert not {"empty.txt", "blank.md", "dead.txt", "pipe.txt"} & set(out.split())
        assert "wide.txt" in "".join(out.splitlines()[:3])
        assert "2 text files are empty or unreadable, and left out: " in err

    def test_documents_that_are_all_alike_are_searched_all_the_same(self, capsys, task, tmp_path):
        for i in range(6):
            (tmp_path / f"t{i}.txt").write_text("a red circle")
            task[0].corpus["image"][0].save(tmp_path / f"p{i}.png")
        status, out, err = run(capsys, "search", tmp_path, "red", "--model", "toy", "-k", "20")
        assert status == 0
        assert len(out.splitlines()) == 12
        assert "kinds of documents are not put on one scale" in err

    def test_names_that_the_terminal_cannot_show(self, folder):
        (folder / "\u00e9.txt").write_text("red")
        words = [sys.executable, "-m", "grclip.cli", "search", str(folder), "red", "--model", "toy", "-k", "99"]
        environment = os.environ | {"PYTHONIOENCODING": "ascii"}
        done = subprocess.run(words, capture_output=True, text=True, env=environment, check=True)
        assert "\\xe9.txt" in done.stdout

    def test_a_folder_of_one_kind_needs_no_calibration(self, capsys, task, tmp_path):
        for i, text in enumerate(task[0].corpus["text"][:5]):
            (tmp_path / f"{i}.md").write_text(text)
        status, out, err = run(capsys, "search", tmp_path, task[0].queries["query"][3], "--model", "toy")
        assert (status, err) == (0, "")
        assert out.splitlines()[0].endswith("3.md")

    def test_a_calibrator_from_elsewhere(self, capsys, task, folder, tmp_path):
        remover = ModalityGapRemover().fit(toy_encoder().transform(make_scenes(100, random_state=1)[0]))
        remover.save(tmp_path / "c.safetensors")
        query = task[0].queries["query"][1]
        words = ("search", folder, query, "--model", "toy", "--calibrator")
        status, out, _ = run(capsys, *words, tmp_path / "c.safetensors")
        assert status == 0
        assert "01." in out.splitlines()[0]
        other = ModalityGapRemover().fit({role: np.eye(128) + 1 for role in ("query", "text", "image")})
        other.encoder_ = "another model"
        other.save(tmp_path / "d.safetensors")
        status, _, err = run(capsys, *words, tmp_path / "d.safetensors")
        assert status == 1
        assert "fitted on vectors of encoder 'another model'" in err

    def test_a_calibrator_that_fuses(self, capsys, task, folder, tmp_path, calibrated):
        words = ("search", folder, task[0].queries["query"][1], "--model", "toy", "-k", "30", "--calibrator")
        pipeline = save(calibrated(equalize=True, alpha=0.8), tmp_path / "c")
        status, out, err = run(capsys, *words, tmp_path / "c")
        assert (status, err) == (0, "")
        documents, _ = read_folder(folder)
        encoded = toy_encoder().transform(SearchTask(Items({"query": [words[2]]}), documents))
        fused = pipeline.transform(encoded)
        expected = np.sort(fused.corpus @ fused.queries[0])[::-1]
        np.testing.assert_allclose([float(line.split()[1]) for line in out.splitlines()], expected, atol=0.0051)
        save(calibrated(alpha=0.8), tmp_path / "c")  # without spreads: those of the folder, at the same alpha
        calibrator = Calibrator.load(tmp_path / "c")
        fuser = calibrate(encoded.corpus, calibrator)["fuse"]
        own = calibrated(alpha=0.8)["degap"].transform(encoded.corpus)
        spread = MultimodalFuser(0.8, equalize=True).fit(*asked_by_texts(own)).spread_
        assert (fuser.alpha, fuser.equalize, fuser.spread_) == (0.8, True, spread)
        one = encoded.corpus[encoded.corpus.kinds == "text"]
        assert (calibrate(one, calibrator)["fuse"].alpha, calibrate(one, calibrator)["fuse"].equalize) == (0.8, False)

    def test_weights_of_a_calibrator(self, task, tmp_path, calibrated):
        save(calibrated(weights={"text": 3.0, "image": 1.0, "query": 2.0}, equalize=True), tmp_path / "c")
        calibrator = Calibrator.load(tmp_path / "c")
        assert calibrator.weighting(("text", "image"))["weights"] == {"text": 3.0, "image": 1.0}
        corpus = toy_encoder().transform(task[1])
        assert calibrate(corpus, calibrator)["fuse"] is calibrator.fuser
        save(calibrated(weights={"text": 3.0, "image": 1.0, "query": 2.0}), tmp_path / "c")
        calibrator = Calibrator.load(tmp_path / "c")
        for some in (corpus, corpus[corpus.kinds == "text"]):
            assert calibrate(some, calibrator)["fuse"].weights == {"text": 3.0, "image": 1.0}

    def test_spreads_that_do_not_fit_the_folder_are_not_used(self, capsys, folder, tmp_path, calibrated):
        words = ("search", folder, "red", "--model", "toy", "--calibrator", tmp_path / "c")
        for pipeline, told in (
            (calibrated(equalize=True, kinds=["text", "image"]), "without any of kind text+image"),
            (calibrated(equalize=True, query="query_text"), "measured with other queries than 'query' alone"),
        ):
            pipeline["degap"].means_["query"] = pipeline["degap"].means_["text"]
            pipeline["degap"].n_samples_seen_["query"] = 1
            save(pipeline, tmp_path / "c")
            status, out, err = run(capsys, *words)
            assert (status, len(out.splitlines())) == (0, 10)
            said = f"grclip: spreads of {tmp_path / 'c'} are not used ({told}), but those of this folder, if it has"
            assert err.startswith(said)
            assert err.count("\n") == 1

    def test_calibrators_that_a_search_cannot_use(self, capsys, folder, tmp_path, calibrated):
        pipeline, path = calibrated(equalize=True), tmp_path / "c"
        words = ("search", folder, "red", "--model", "toy", "--calibrator", path)
        asked = ModalityGapRemover().fit({role: np.eye(128) for role in ("text", "image")})
        other = calibrated(equalize=True)
        for step in (other["degap"], other["fuse"]):
            step.encoder_ = "another model"
        for write, message in (
            (lambda: path.write_text("hello"), "is damaged or no safetensors file"),
            (lambda: save(pipeline["fuse"], path), "c holds MultimodalFuser; --calibrator takes what grclip fit or"),
            (
                lambda: save(make_pipeline(pipeline["degap"], pipeline), path),
                "holds ModalityGapRemover, ModalityGapRem",
            ),
            (lambda: save(asked, path), "c has no mean of role 'query', but of 'text', 'image'; words have the role"),
            (lambda: save(other, path), "fitted on vectors of encoder 'another model'"),
            (path.unlink, "c: no such file; --calibrator takes what grclip fit"),
        ):
            write()
            status, out, err = run(capsys, *words)
            assert (status, out, message in err, err.count("\n")) == (1, "", True, 1)

    def test_a_reader_that_goes_away_is_no_error(self, folder):
        words = [sys.executable, "-m", "grclip.cli", "search", str(folder), "red", "--model", "toy"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            process.stdout.close()
            assert process.stderr.read() == b""

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["search", "no-such-folder", "red", "--model", "toy"], "no-such-folder is no folder"),
            (["search", "{folder}", "red", "--model", "ViT-B32"], "open_clip knows none of that name"),
            (["search", "{folder}", "red", "--model", "ViT-B-16"], "needs pretrained weights, one of 'openai'"),
            (["search", "{folder}", "red", "--model", "toyy"], "near it: 'toy'"),
            (["search", "{folder}", "", "--model", "toy"], "words are empty"),
            (["search", "{folder}", "red"], "cannot load ViT-B-32/laion2b_s34b_b79k"),
            (["search", "{folder}", "red", "--model", "toy", "-k", "0"], "k must be a whole number of at least 1"),
            (["search", "{folder}", "red", "--model", "toy", "--calibrator", "gone"], "gone"),
            (["search", "{empty}", "red", "--model", "toy"], "holds no picture"),
            (["search", "{folder}", "red", "--model", "local-dir:{empty}"], "config file missing"),
            (["search", "{folder}", "red", "--model", "toy", "--save", "{empty}/no/r.png"], "no such folder"),
            (["search", "{folder}", "red", "--model", "toy", "--save", "r.doc"], "end the name in .png"),
        ],
    )
    def test_what_goes_wrong_is_one_line(self, capsys, folder, tmp_path, words, message):
        (tmp_path / "empty").mkdir()
        status, out, err = run(capsys, *(word.format(folder=folder, empty=tmp_path / "empty") for word in words))
        assert (status, out) == (1, "")
        assert err.startswith("grclip: ")
        assert err.count("\n") == 1
        assert message in err

    def test_nothing_readable(self, capsys, tmp_path):
        (tmp_path / "broken.png").write_bytes(b"no picture")
        status, _, err = run(capsys, "search", tmp_path, "red", "--model", "toy")
        assert status == 1
        assert "none of the 1 documents" in err


class TestReport:
    @pytest.fixture
    def queries(self, task, folder, tmp_path):
        """Each scene's query, and the files of its document."""
        drawn, _ = task
        files = {int(path.stem): [] for path in folder.rglob("*.*")}
        for path in folder.rglob("*.*"):
            files[int(path.stem)].append(path.relative_to(folder).as_posix())
        lines = [
            json.dumps({"query": query, "relevant": files[i][:1]}) for i, query in enumerate(drawn.queries["query"])
        ]
        (tmp_path / "queries.jsonl").write_text("\n".join(lines) + "\n\n")
        return tmp_path / "queries.jsonl"

    def test_a_folder_with_judged_queries(self, capsys, task, folder, queries, tmp_path):
        page = tmp_path / "page.html"
        status, out, err = run(capsys, "report", folder, "--queries", queries, "--model", "toy", "--out", page)
        assert (status, err) == (0, "")
        assert str(page) in out
        text = page.read_text(encoding="utf-8")
        assert "Search in things" in text
        assert task[0].queries["query"][0] in text
        assert "deep/" not in text, "folders are not told"

    def test_relevance_follows_the_files(self, task, folder, queries):
        found = judged_folder(folder, queries, toy_encoder())
        _, corpus = task
        assert sorted(found.items.corpus.kinds) == sorted(corpus.kinds)
        for i, judged in enumerate(found.qrels):
            (row,) = judged
            assert corpus["text"][i] == found.items.corpus["text"][row]
            assert (corpus["image"][i] is None) == (found.items.corpus["image"][row] is None)
        ranking = found.methods["means removed, one scale"].predict(found.task)
        raw = found.methods["raw"].predict(found.task)
        assert ndcg_score(found.qrels, ranking) > max(0.9, ndcg_score(found.qrels, raw))

    def test_files_that_are_no_documents_are_a_warning(self, capsys, folder, tmp_path):
        (folder / "table.csv").write_text("red,circle")
        (folder / "broken.png").write_bytes(b"no picture")
        queries = tmp_path / "q.jsonl"
        known = next(path for path in folder.rglob("0*.*")).relative_to(folder).as_posix()
        queries.write_text(
            json.dumps({"query": "red", "relevant": ["table.csv", known]})
            + "\n"
            + json.dumps({"query": "blue", "relevant": ["broken.png"]})
        )
        status, _, err = run(
            capsys, "report", folder, "--queries", queries, "--model", "toy", "--out", tmp_path / "page.html"
        )
        assert status == 0
        assert "no documents, or unreadable: broken.png, table.csv" in err
        assert "1 query" in (tmp_path / "page.html").read_text(encoding="utf-8")

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            ('{"query": "red"}', "line 1: expected"),
            ('{"query": "red", "relevant": "bike.jpg"}', "line 1: expected"),
            ('{"query": "", "relevant": []}', "line 1: expected"),
            ('\n{"query": "red", "relevant": [', "line 2: expected"),
            ("[1]", "line 1: expected"),
            ("", "holds no query"),
            ('{"query": "red", "relevant": ["gone.png"]}', "line 1: 'gone.png' is not in"),
            ('{"query": "red", "relevant": ["../queries.jsonl"]}', "line 1: '../queries.jsonl' leaves the folder"),
            ('{"query": "red", "relevant": ["things/00.png"]}', "line 1: 'things/00.png' is not in"),
            ('{"query": "red", "relevant": ["/etc/passwd"]}', "line 1: '/etc/passwd' leaves the folder"),
            ("[" * 100_000, "line 1: expected"),
            ('{"query": "red", "relevant": []}', "mark no document relevant"),
        ],
    )
    def test_broken_judgements_are_one_line(self, capsys, folder, tmp_path, lines, message):
        (tmp_path / "queries.jsonl").write_text(lines)
        page = tmp_path / "page.html"
        status, out, err = run(
            capsys, "report", folder, "--queries", tmp_path / "queries.jsonl", "--model", "toy", "--out", page
        )
        assert (status, out) == (1, "")
        assert err.startswith("grclip: ")
        assert err.count("\n") == 1
        assert message in err
        assert not page.exists()

    def test_paths_as_people_write_them(self, folder, tmp_path):
        known = next(path for path in folder.rglob("0*.*") if path.parent != folder)
        name = known.relative_to(folder).as_posix()
        lines = [
            json.dumps({"query": "a red\u2028square", "relevant": [path]}, ensure_ascii=False)
            for path in (name, f"./{name}", f"deep/../{name}", str(known.absolute()))
        ]
        (tmp_path / "q.jsonl").write_text("\r\n".join(lines), encoding="utf-8-sig")
        found = judged_folder(folder, tmp_path / "q.jsonl", toy_encoder())
        assert found.qrels == [found.qrels[0]] * 4
        assert len(found.qrels[0]) == 1

    def test_a_name_that_is_elsewhere_in_the_folder_is_offered(self, folder, tmp_path):
        known = next(path for path in folder.rglob("0*.*") if path.parent != folder)
        (tmp_path / "q.jsonl").write_text(json.dumps({"query": "red", "relevant": [f"wrong\\{known.name}"]}))
        with pytest.raises(FileNotFoundError, match=rf"did you mean 'deep/{known.name}'\?"):
            judged_folder(folder, tmp_path / "q.jsonl", toy_encoder())

    def test_links_that_lead_out_of_the_folder_are_left_out(self, folder, queries, tmp_path):
        (tmp_path / "secret.txt").write_text("the password")
        (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
        with pytest.warns(UserWarning, match=r"links lead out of .*link\.txt"):
            found = judged_folder(folder, queries, toy_encoder())
        assert "the password" not in found.items.corpus["text"].tolist()

    @pytest.mark.parametrize("ending", ["png", "txt"])
    def test_a_folder_of_one_kind_is_shown_as_it_is(self, folder, queries, tmp_path, ending):
        one = tmp_path / "one"
        one.mkdir()
        for path in folder.rglob(f"*.{ending}"):
            (one / path.name).write_bytes(path.read_bytes())
        name = next(one.iterdir()).name
        (tmp_path / "q.jsonl").write_text(json.dumps({"query": "red", "relevant": [name]}))
        found = judged_folder(one, tmp_path / "q.jsonl", toy_encoder())
        assert list(found.methods) == ["raw"]
        assert found.calibration is None
        assert found.note.startswith("Nothing was calibrated: ")

    def test_what_it_was_calibrated_on_is_on_the_page(self, capsys, folder, queries, tmp_path):
        page = tmp_path / "page.html"
        run(capsys, "report", folder, "--queries", queries, "--model", "toy", "--out", page)
        assert "the judgements were not used" in page.read_text(encoding="utf-8")

    def test_what_came_from_a_file_is_on_the_page(self, task, folder, queries, tmp_path, calibrated):
        for options, told in (
            ({"equalize": True}, "Means and scales come from a file; the judgements were not used."),
            ({}, "Means come from a file, scales from the 30 documents of this folder, its texts"),
        ):
            save(calibrated(alpha=0.7, **options), tmp_path / "c")
            found = judged_folder(folder, queries, toy_encoder(), Calibrator.load(tmp_path / "c"))
            assert found.note.startswith(told)
            assert list(found.methods) == [METHODS[0], METHODS[2]]
            assert [method["fuse"].alpha for method in found.methods.values()] == [0.7, 0.7]
        for path in folder.rglob("*.png"):
            path.unlink()
        name = next(path for path in folder.rglob("*.txt")).relative_to(folder).as_posix()
        queries.write_text(json.dumps({"query": "red", "relevant": [name]}))
        found = judged_folder(folder, queries, toy_encoder(), Calibrator.load(tmp_path / "c"))
        assert found.note == "Means come from a file; the judgements were not used."

    def test_a_file_that_is_no_text(self, folder, tmp_path):
        (tmp_path / "q.jsonl").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ValueError, match=r"q\.jsonl is no UTF-8 text"):
            judged_folder(folder, tmp_path / "q.jsonl", toy_encoder())

    def test_a_folder_and_its_queries_go_together(self, capsys, folder, tmp_path):
        for words in (["report", folder], ["report", "--queries", tmp_path / "q.jsonl"]):
            status, _, err = run(capsys, *words)
            assert status == 1
            assert "go together" in err

    def test_a_calibrator_without_a_folder_is_not_passed_over(self, capsys, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        status, out, err = run(capsys, "report", "--calibrator", tmp_path / "none")
        assert (status, out, "--calibrator is for a folder" in err) == (1, "", True)

    def test_the_folder_of_the_page_is_looked_for_first(self, capsys, tmp_path):
        status, out, err = run(capsys, "report", "--out", tmp_path / "no" / "page.html")
        assert (status, out) == (1, "")
        assert "no such folder" in err

    @pytest.mark.parametrize("name", ["queries.jsonl", "c"])
    def test_the_page_is_not_written_over_what_is_read(self, capsys, folder, queries, tmp_path, calibrated, name):
        save(calibrated(), tmp_path / "c")
        before = (tmp_path / name).read_bytes()
        words = ["report", folder, "--queries", queries, "--model", "toy", "--calibrator", tmp_path / "c"]
        status, _, err = run(capsys, *words, "--out", folder / ".." / name)
        assert (status, f"{name} is the file that is read; name another" in err) == (1, True)
        assert (tmp_path / name).read_bytes() == before

    def test_drawn_scenes_as_a_user_calls_it(self, tmp_path):
        environment = os.environ | {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "grclip.cli", "report"],
            capture_output=True, text=True, env=environment, check=True, cwd=tmp_path,
        )  # fmt: skip
        assert done.stderr == ""
        assert "report.html: " in done.stdout
        assert 100_000 < (tmp_path / "report.html").stat().st_size < 5_000_000


class TestDemo:
    @pytest.fixture(scope="class")
    @staticmethod
    def demo():
        return run_demo()

    def test_the_figures_that_it_promises(self, demo):
        table = demo.table()
        raw, removed, equal = (table[method][0] for method in METHODS)
        assert removed >= raw + 0.15
        assert equal >= removed - 0.01
        assert table["raw"][-1] < 0.2 < 1 / 3 - 0.06 < table[METHODS[-1]][-1] < 1 / 3 + 0.06
        assert len(demo.task) >= 1000

    def test_examples_show_five_of_each_method(self, demo):
        examples = demo.examples()
        assert sorted(demo.kinds[query] for query in examples) == ["image", "text", "text+image"]
        for query in examples:
            for ranking in demo.rankings(query):
                assert len(ranking.cards) == 5
                for card in ranking.cards:
                    assert (card.text is not None) == ("text" in card.kind)
                    assert (card.picture is not None) == ("image" in card.kind)

    def test_what_rises_most_comes_first(self, demo):
        examples = demo.examples()
        raw, last = ([[*demo.rows[method][query], query].index(query) for query in examples] for method in METHODS[::2])
        rises = np.subtract(raw, last)
        assert rises[0] > 0
        assert (np.diff(rises) <= 0).all()

    def test_as_a_user_calls_it(self, tmp_path):
        environment = os.environ | {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "grclip.cli", "demo", "--save", str(tmp_path / "demo.png")],
            capture_output=True, text=True, env=environment, check=True,
        )  # fmt: skip
        assert done.stderr == ""
        figures = {line[:26].strip(): line[26:].split() for line in done.stdout.splitlines() if "%" in line}
        assert list(figures) == list(METHODS)
        assert float(figures[METHODS[1]][0]) >= float(figures["raw"][0]) + 0.15
        assert len(re.findall(r"^  [* ] +-?\d\.\d\d  (?:text|image|text\+image) ", done.stdout, re.MULTILINE)) == 30
        with PIL.Image.open(tmp_path / "demo.png") as picture:
            assert picture.size[0] > 1000
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 50


def test_an_absent_library_is_named_with_its_extra():
    with pytest.raises(ModuleNotFoundError, match=r"flying needs 'no_such_wings', .* the extra 'fly' .*pip install"):
        optional_import("no_such_wings.left", "fly", "flying")
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'grclip.no_such_part'"):
        optional_import("grclip.no_such_part", "fly", "flying")


def test_the_version():
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
