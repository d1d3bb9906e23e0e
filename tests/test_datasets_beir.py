"""The layout of BEIR: what is written comes back, and every oddity of a folder is told."""

import gzip
import json
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grclip import Items, SearchTask
from grclip.datasets.beir import PUBLISHED, load_beir, write_beir

CORPUS = [
    {"_id": "d0", "title": "A bicycle", "text": "It is red."},
    {"_id": "d1", "title": "", "text": "The sea."},
    {"_id": "d2", "title": "Tea", "text": None},
    {"_id": 3, "text": "No title at all", "metadata": {"url": "x"}},
]
QUERIES = [{"_id": "q0", "text": "red"}, {"_id": "q1", "text": "water"}, {"_id": "q2", "text": "of another split"}]
TEST = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq0\td0\t1\nq0\t3\t0\n"


def lines(records):
    return "".join(f"{json.dumps(record)}\n" for record in records)


def write(folder, corpus=CORPUS, queries=QUERIES, **qrels):
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(corpus if isinstance(corpus, str) else lines(corpus))
    (folder / "queries.jsonl").write_text(queries if isinstance(queries, str) else lines(queries))
    for split, text in (qrels or {"test": TEST}).items():
        (folder / "qrels" / f"{split}.tsv").write_text(text)
    return folder


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "small"


class TestLoading:
    def test_titles_are_joined_and_queries_of_other_splits_left_out(self, folder):
        task, qrels, description = load_beir(write(folder))
        assert task.corpus["text"].tolist() == ["A bicycle It is red.", "The sea.", "Tea", "No title at all"]
        assert task.queries["query"].tolist() == ["red", "water"]
        assert qrels == [{0: 1, 3: 0}, {1: 2}]
        assert description.query_ids == ("q0", "q1")
        assert description.document_ids == ("d0", "d1", "d2", "3")
        assert description.name == "small (BEIR), split test"
        assert description.source == f"read from {folder}; queries of other splits left out: 1"
        assert description.kinds == {"text": 4}
        assert "see its publishers" in description.licence

    def test_each_split_has_its_own_queries(self, folder):
        write(folder, test=TEST, dev="query-id\tcorpus-id\tscore\nq2\td2\t1\n")
        assert load_beir(folder, split="dev").qrels == [{2: 1}]
        assert load_beir(str(folder)).description.n_queries == 2

    def test_a_split_that_is_not_there_names_those_that_are(self, folder):
        write(folder, test=TEST, dev=TEST)
        with pytest.raises(ValueError, match=r"split must be one of 'dev', 'test', which .*small holds; got 'val'"):
            load_beir(folder, split="val")
        with pytest.raises(ValueError, match=r"split must be the name of a file, without folders; got '../test'"):
            load_beir(folder, split="../test")

    @pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
    def test_a_missing_file_says_what_to_download_and_where_to_put_it(self, folder, name):
        write(folder)
        (folder / name).unlink()
        with pytest.raises(FileNotFoundError, match=rf"{name}: no such file; unpack .*scifact.zip .* so that .*small"):
            load_beir(folder)

    @pytest.mark.parametrize("name", ["corpus.jsonl", "qrels/test.tsv"])
    def test_a_packed_file_is_to_be_unpacked(self, folder, name):
        write(folder, test=TEST, dev=TEST)
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()
        with pytest.raises(FileNotFoundError, match=rf"no such file; unpack it: gunzip .*{name}.gz"):
            load_beir(folder)

    def test_a_pointer_of_git_lfs(self, folder):
        write(folder, corpus="version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
        with pytest.raises(ValueError, match=r"corpus.jsonl is a Git LFS pointer"):
            load_beir(folder)

    @pytest.mark.parametrize(
        ("parts", "message"),
        [
            ({"corpus": lines(CORPUS) + '{"_id": "d9", "te'}, r"corpus.jsonl, line 5: no valid JSON .*interrupted"),
            ({"corpus": "\n"}, r"corpus.jsonl is empty: there is no document in it"),
            ({"corpus": [*CORPUS, {"_id": "d0", "text": "x"}]}, r"corpus.jsonl, line 5: the id 'd0' .* line 1"),
            ({"corpus": [*CORPUS, {"_id": "3", "text": "x"}]}, r"corpus.jsonl, line 5: the id '3' .* line 4"),
            ({"corpus": [*CORPUS, {"text": "x"}]}, r"corpus.jsonl, line 5: no '_id'"),
            (
                {"corpus": [*CORPUS, {"_id": "d9", "Title": "x"}]},
                r"line 5: the key 'Title' would not be read; write ",
            ),
            ({"corpus": [*CORPUS, {"_id": "d9", "text ": "x"}]}, r"line 5: the key 'text ' would not be read"),
            (
                {"corpus": '{"_id": "d9", "text": "x", "text": "y"}'},
                r"line 1: the key 'text' comes twice in one",
            ),
            ({"queries": [*QUERIES, {"_id": "q9", "TEXT": "x"}]}, r"queries.jsonl, line 4: the key 'TEXT' would not"),
            ({"corpus": [*CORPUS, {"_id": "d9", "text": 7}]}, r"line 5: 'text' must be a string or null; got 7"),
            (
                {"corpus": [*CORPUS, {"_id": "d8", "text": " "}, {"_id": "d9", "title": ""}]},
                r"corpus.jsonl: neither a title nor a text in 2 documents: 'd8', 'd9'",
            ),
            ({"queries": [*QUERIES, QUERIES[2]]}, r"queries.jsonl, line 4: the id 'q2' is there already"),
            (
                {"queries": [{"_id": "q0", "text": ""}, *QUERIES[1:]]},
                r"queries.jsonl: no text in 1 judged query: 'q0'",
            ),
            ({"queries": [{"_id": "q7", "text": "x"}]}, r"judges none of the 1 queries .*: are they of one dataset"),
            ({"test": "query-id\tcorpus-id\tscore\n"}, r"test.tsv is empty: there is no judgement in it"),
            ({"test": TEST.replace("score", "relevance")}, r"test.tsv, line 1: expected a header with 'query-id'"),
            ({"test": TEST.replace("\t", " ")}, r"test.tsv, line 1: expected a header"),
            ({"test": f"{TEST}q9\td0\t1\n"}, r"test.tsv, line 5: there is no query of the id 'q9'"),
            ({"test": f"{TEST}q0\td9\t1\n"}, r"test.tsv, line 5: there is no document of the id 'd9'"),
            ({"test": f"{TEST}q0\td2\t-1\n"}, r"test.tsv, line 5: the score is '-1'; expected a number of at least 0"),
            ({"test": f"{TEST}q0\td2\tyes\n"}, r"test.tsv, line 5: the score is 'yes'"),
            ({"test": f"{TEST}q0\td2\n"}, r"test.tsv, line 5: 2 columns, but the header has 3"),
            ({"test": f"{TEST}q2\td2\t0\n"}, r"test.tsv has no relevant document \(score above 0\) for 1 query: 'q2'"),
        ],
    )
    def test_what_a_file_gets_wrong(self, folder, parts, message):
        with pytest.raises(ValueError, match=message):
            load_beir(write(folder, **parts))

    def test_a_query_of_another_split_may_lack_a_text(self, folder):
        assert len(load_beir(write(folder, queries=[*QUERIES[:2], {"_id": "q2", "text": ""}])).task) == 2

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({}, r"give either a folder or a name \('scifact', 'nfcorpus'\); got folder=None, name=None"),
            ({"folder": "x", "name": "scifact"}, r"give either a folder or a name .*; got folder='x', name='scifact'"),
            ({"name": "SciFact"}, r"name must be one of 'scifact', 'nfcorpus'; got 'SciFact'"),
            ({"folder": "x", "revision": "main"}, r"revision='main' is of the hub, and not used with a folder"),
            ({"folder": "x", "revision": ""}, r"revision='' is of the hub, and not used with a folder"),
            ({"name": "scifact", "revision": ""}, r"revision must be a commit, a branch or a tag; got ''"),
        ],
    )
    def test_arguments_that_do_not_go_together(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            load_beir(**arguments)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of the hub, empty."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put(cache, name, n_queries, n_documents, n_judged, revision=None):
    """A dataset of these counts, as a download leaves it."""
    place = cache / f"datasets--mteb--{name}" / "snapshots" / (revision or PUBLISHED[name].revision)
    put_folder(place, n_queries, n_documents, n_judged)
    return place


def put_folder(folder, n_queries, n_documents, n_judged, split="test"):
    """A folder of these counts."""
    texts = Items({"text": [f"document {i}" for i in range(n_documents)]})
    task = SearchTask(Items({"query": [f"query {i}" for i in range(n_queries)]}), texts)
    qrels = [{} for _ in range(n_queries)]
    for i in range(n_judged):
        qrels[i % n_queries][i // n_queries] = 1
    write_beir(task, qrels, folder, split)


class TestTheHub:
    @pytest.mark.parametrize(("name", "counts"), [("scifact", (300, 5183, 339)), ("nfcorpus", (323, 3633, 12334))])
    def test_a_dataset_by_name_comes_from_the_cache_with_the_counts_of_the_paper(self, cache, name, counts):
        put(cache, name, *counts)
        task, qrels, description = load_beir(name=name)
        assert (len(task), len(task.corpus), len(qrels)) == (counts[0], counts[1], counts[0])
        assert description.name == f"{PUBLISHED[name].title} (BEIR), split test"
        assert PUBLISHED[name].revision in description.source
        assert f"mteb/{name}" in description.source
        assert "as its publishers say" in description.licence

    def test_other_counts_are_an_error(self, cache):
        place = put(cache, "scifact", 300, 5182, 339)
        with pytest.raises(ValueError, match=r"holds 5182 documents, but SciFact was published with 5183: is the copy"):
            load_beir(name="scifact")
        assert len(load_beir(name="scifact", check_counts=False).task.corpus) == 5182
        assert len(load_beir(place).task.corpus) == 5182

    def test_a_download_that_was_not_finished(self, cache):
        place = put(cache, "scifact", 3, 4, 3)
        (place / "corpus.jsonl").unlink()
        with pytest.raises(FileNotFoundError, match=r"corpus.jsonl: no such file; the download was not finished"):
            load_beir(name="scifact")

    def test_another_revision(self, cache):
        put(cache, "scifact", 300, 5183, 339, revision="a" * 40)
        assert "a" * 40 in load_beir(name="scifact", revision="a" * 40).description.source

    def test_without_connection_and_cache_it_says_how_to_get_the_dataset(self, cache):
        with pytest.raises(OSError, match=r"mteb/nfcorpus at revision ec0fa4f.*`hf download mteb/nfcorpus"):
            load_beir(name="nfcorpus")


WAY_OUT = r": is the copy whole\? check_counts=False takes other data in this layout"


class TestCountsOfAFolder:
    @pytest.mark.parametrize("name", ["scifact", "SciFact"])
    def test_judgements_that_were_cut_in_half(self, tmp_path, name):
        folder = tmp_path / name
        put_folder(folder, 300, 5183, 339)
        assert load_beir(folder).description.n_queries == 300
        path = folder / "qrels" / "test.tsv"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:170]))
        match = r"holds \d+ queries of the split 'test', 169 judgements, but SciFact was published with 300, 339"
        with pytest.raises(ValueError, match=match + WAY_OUT):
            load_beir(folder)
        assert load_beir(folder, check_counts=False).description.n_queries < 300

    def test_a_judgement_less_with_all_queries(self, tmp_path):
        put_folder(tmp_path / "nfcorpus", 323, 3633, 12333)
        with pytest.raises(ValueError, match=r"holds 12333 judgements, but NFCorpus was published with 12334"):
            load_beir(tmp_path / "nfcorpus")

    @pytest.mark.parametrize(
        ("name", "split", "n_queries", "n_documents"),
        [("scifact", "train", 809, 5183), ("nfcorpus", "train", 2590, 3633), ("nfcorpus", "dev", 324, 3633)],
    )
    def test_splits_to_learn_from(self, tmp_path, name, split, n_queries, n_documents):
        put_folder(tmp_path / name, n_queries, n_documents, 3000, split)
        assert load_beir(tmp_path / name, split=split).description.n_queries == n_queries
        put_folder(tmp_path / "less" / name, n_queries - 1, n_documents, 3000, split)
        with pytest.raises(ValueError, match=rf"{n_queries - 1} queries of the split '{split}', but .* {n_queries}: "):
            load_beir(tmp_path / "less" / name, split=split)

    def test_of_a_split_of_ones_own_only_documents_are_counted(self, tmp_path):
        put_folder(tmp_path / "scifact", 2, 5183, 2, "mine")
        assert load_beir(tmp_path / "scifact", split="mine").description.n_queries == 2

    def test_the_name_of_a_folder_is_its_own_however_it_is_given(self, tmp_path, monkeypatch):
        put_folder(tmp_path / "scifact", 2, 3, 2)
        monkeypatch.chdir(tmp_path / "scifact")
        with pytest.raises(ValueError, match=r"holds 3 documents, but .* with 5183:"):
            load_beir(".")

    def test_the_switch_is_true_or_false(self, folder):
        with pytest.raises(TypeError, match="check_counts must be True or False; got 0"):
            load_beir(write(folder), check_counts=0)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


SOME = st.lists(TEXTS, min_size=1, max_size=5)


class TestWriting:
    @given(data=st.data(), queries=SOME, texts=SOME)
    def test_what_is_written_comes_back(self, tmp_path_factory, data, queries, texts):
        grades = st.dictionaries(st.integers(0, len(texts) - 1), st.sampled_from([0, 1, 2, 0.5]), min_size=1)
        qrels = [data.draw(grades.filter(lambda judged: any(judged.values()))) for _ in queries]
        task = SearchTask(Items({"query": queries}), Items({"text": texts}))
        folder = tmp_path_factory.mktemp("beir") / "small"
        write_beir(task, qrels, folder, split="dev")
        found = load_beir(folder, split="dev")
        assert found.task.queries["query"].tolist() == queries
        assert found.task.corpus["text"].tolist() == texts
        assert found.qrels == qrels
        shutil.rmtree(folder)

    @pytest.mark.parametrize(
        ("queries", "documents", "qrels", "error", "message"),
        [
            ({"query": ["a"]}, {"text": ["b"]}, [{}], ValueError, "no relevant document for 1 query: 'q0'"),
            ({"query": ["a"]}, {"text": ["b"]}, [{0: 0}], ValueError, "no relevant document for 1 query: 'q0'"),
            ({"query": ["a"]}, {"text": [" "]}, [{0: 1}], ValueError, "role 'text', row 0: .* a text in every row"),
            ({"query": [None]}, {"text": ["b"]}, [{0: 1}], ValueError, "role 'query', row 0: .* got None"),
            ({"query": ["a"]}, {"text": [Path("b")]}, [{0: 1}], TypeError, "role 'text', row 0: expected a str"),
            ({"query": ["a"]}, {"image": ["b.png"]}, [{0: 1}], ValueError, "role 'image': documents .* 'text' only"),
        ],
    )
    def test_what_cannot_be_written_leaves_nothing(self, tmp_path, queries, documents, qrels, error, message):
        with pytest.raises(error, match=message):
            write_beir(SearchTask(Items(queries), Items(documents)), qrels, tmp_path / "small")
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_is_there_stays_as_it_is(self, folder):
        write(folder)
        task, qrels, _ = load_beir(folder)
        with pytest.raises(FileExistsError, match="is there already"):
            write_beir(task, qrels, folder)
        assert json.loads((folder / "corpus.jsonl").read_text().split("\n")[0]) == CORPUS[0]

    @pytest.mark.parametrize("split", ["", "a/b", "..", ".hidden"])
    def test_a_split_is_a_name(self, folder, split):
        task = SearchTask(Items({"query": ["a"]}), Items({"text": ["b"]}))
        with pytest.raises(ValueError, match="split must be the name of a file"):
            write_beir(task, [{0: 1}], folder, split=split)


class TestHelp:
    def test_a_folder_of_mixbench_names_its_loader(self, folder):
        write(folder, qrels=TEST.replace("query-id", "query_id"))
        for split in ("test", "qrels"):
            with pytest.raises(ValueError, match=r"layout of MixBench.*load_mixbench\('small', "):
                load_beir(folder, split=split)

    def test_a_corpus_cut_at_a_line_is_not_blamed_on_the_judgements(self, folder):
        place = write(folder.with_name("scifact"), corpus=CORPUS[:1])
        with pytest.raises(ValueError, match="holds 1 documents, but SciFact was published with 5183"):
            load_beir(place)

    def test_a_tilde_is_the_home_folder(self, folder, monkeypatch):
        monkeypatch.setenv("HOME", str(folder.parent))
        write(folder)
        data = load_beir("~/small")
        assert data.description.source.startswith(f"read from {folder};")
        write_beir(data.task, data.qrels, "~/copy")
        assert (folder.parent / "copy" / "corpus.jsonl").is_file()
