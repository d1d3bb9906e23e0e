"""MixBench: both editions, read and written, from folders and from the hub's cache; and all that files get wrong."""

import hashlib
import http.server
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import huggingface_hub.constants
import huggingface_hub.errors
import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from grclip import Items, SearchTask
from grclip.datasets import Dataset, Description, load_mixbench, make_scenes, mix_kinds, write_mixbench
from grclip.datasets.mixbench import KINDS, PUBLISHED, REVISIONS
from grclip.encoders._media import open_image

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n".encode()
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8ffff3f0005fe02fe"
    "a735811b0000000049454e44ae426082"
)
QUERIES = [{"query_id": 1, "text": "a bicycle", "image": None}, {"query_id": 2, "text": "the sea", "image": ""}]
CORPUS = [
    {"corpus_id": 11, "text": "a red bicycle", "image": None},
    {"corpus_id": 12, "text": None, "image": "images/sea.jpg"},
]
JUDGED = "query_id\tcorpus_id\tscore\n1\t11\t1\n2\t12\t1\n"


def put(root, queries=QUERIES, corpus=CORPUS, qrels=JUDGED, images=("sea.jpg",), subset="MSCOCO"):
    """The folder of a subset; lines as records, or as they are to stand in the file."""
    folder = root / subset
    (folder / "images").mkdir(parents=True)
    (folder / "qrels").mkdir()
    for name, lines in (("queries", queries), ("corpus", corpus), ("mixed_corpus", corpus)):
        (folder / f"{name}.jsonl").write_bytes(lines if isinstance(lines, bytes) else as_lines(lines))
    if qrels is not None:
        (folder / "qrels" / "qrels.tsv").write_bytes(qrels if isinstance(qrels, bytes) else qrels.encode())
    for name in images:
        (folder / "images" / name).write_bytes(b"no picture at all")
    return folder


def as_lines(records):
    return "".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in records).encode()


def load(root, **options):
    return load_mixbench("MSCOCO", root, check_counts=False, **options)


def refused(root, match, error=ValueError, **options):
    with pytest.raises(error, match=match) as caught:
        load(root, **options)
    return str(caught.value)


def query(identity=1, **more):
    return {"query_id": identity, "text": "a bicycle", "image": None} | more


def document(identity=11, **more):
    return {"corpus_id": identity, "text": "a red bicycle", "image": None} | more


def pixels(value):
    return np.asarray(value if isinstance(value, Image.Image) else open_image(value))


@pytest.fixture(scope="module")
def oven():
    """Six scenes asked for with text and picture, text alone, or a picture alone; fractional and graded qrels."""
    (task, _), (asked, _) = (make_scenes(6, random_state=seed, size=16) for seed in (0, 1))
    texts, pictures = task.queries["query"].copy(), asked.corpus["image"].copy()
    texts[1] = pictures[2] = None
    queries = Items({"query": texts, "query_image": pictures})
    return SearchTask(queries, task.corpus), [{i: 1, (i + 1) % 6: 0.5, (i + 2) % 6: 0} for i in range(6)]


def opened(folder):
    """A list that is filled with the files under a folder that are opened from now on."""
    found, active = [], [True]

    def hook(event, arguments):
        if active[0] and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            name = os.fsdecode(arguments[0])
            if name.startswith(str(folder)):
                found.append(name)

    sys.addaudithook(hook)
    return found, active


class TestRoundTrip:
    @pytest.mark.parametrize(("edition", "corpus"), [(2025, "mixed"), (2025, "full"), (2026, "mixed")])
    def test_nothing_is_lost(self, oven, tmp_path, edition, corpus):
        task, qrels = oven
        mixed = mix_kinds(task.corpus, (1, 2, 3), random_state=7)
        assert write_mixbench(task, qrels, tmp_path, "OVEN", mixed=mixed, edition=edition) is None
        found = load_mixbench("OVEN", str(tmp_path), edition=edition, corpus=corpus, check_counts=False)
        assert isinstance(found, Dataset)
        assert found.qrels == qrels
        for side, expected in ((found.task.queries, task.queries), (found.task.corpus, {"mixed": mixed}.get(corpus))):
            expected = task.corpus if expected is None else expected
            assert side.roles == expected.roles
            assert side.kinds.tolist() == expected.kinds.tolist()
            text, image = side.roles
            assert side[text].tolist() == expected[text].tolist()
            for one, other in zip(side[image], expected[image], strict=True):
                assert (one is None) == (other is None)
                if one is not None:
                    np.testing.assert_array_equal(pixels(one), pixels(other))
        assert found.task.queries.kinds.tolist()[1:3] == ["query_image", "query"]
        description = found.description
        assert isinstance(description, Description)
        assert description.kinds == dict(Counter(found.task.corpus.kinds.tolist()))
        assert (description.n_queries, description.n_documents) == (6, 6)
        assert description.query_ids == tuple(f"q{i}" for i in range(6))
        assert description.document_ids == tuple(f"d{i}" for i in range(6))
        assert description.name == f"MixBench {edition}, OVEN, {corpus} corpus"
        assert str(tmp_path) in description.source
        assert "query_ids" not in repr(description)

    def test_edition_2026_has_no_full_corpus(self, oven, tmp_path):
        write_mixbench(*oven, tmp_path, "OVEN", edition=2026)
        assert sorted(path.name for path in (tmp_path / "OVEN").iterdir()) == [
            "mixed_corpus.parquet",
            "qrels",
            "queries.parquet",
        ]
        for root in (tmp_path, None):
            with pytest.raises(ValueError, match="corpus='full' was not published in edition 2026; take edition=2025"):
                load_mixbench("OVEN", root, edition=2026, corpus="full")

    def test_both_editions_of_one_task_load_from_folders_side_by_side(self, oven, tmp_path):
        for edition in (2025, 2026):
            write_mixbench(*oven, tmp_path / str(edition), "OVEN", edition=edition)
        one, other = (
            load_mixbench("OVEN", tmp_path / str(edition), edition=edition, check_counts=False)
            for edition in (2025, 2026)
        )
        assert one.qrels == other.qrels
        assert one.task.corpus["text"].tolist() == other.task.corpus["text"].tolist()
        assert one.description.kinds == other.description.kinds == {"text": 2, "image": 2, "text+image": 2}

    def test_a_corpus_of_one_part_is_its_own_mixed_corpus(self, tmp_path):
        task = SearchTask(Items({"query_image": [Image.new("RGB", (3, 2), "red")]}), Items({"text": ["red", "blue"]}))
        write_mixbench(task, [{1: 2}], tmp_path, "MSCOCO")
        found = load(tmp_path)
        assert found.task.queries.roles == ("query_image",)
        assert found.task.corpus.roles == ("text",)
        assert found.qrels == [{1: 2}]
        assert pixels(found.task.queries["query_image"][0]).shape == (2, 3, 3)

    def test_the_order_of_roles_does_not_matter(self, tmp_path):
        task, qrels = make_scenes(6, random_state=0, size=8)
        turned = Items({"image": task.corpus["image"], "text": task.corpus["text"]})
        write_mixbench(SearchTask(task.queries, turned), qrels, tmp_path, "MSCOCO")
        assert load(tmp_path).description.kinds == {"text": 2, "image": 2, "text+image": 2}

    @pytest.mark.parametrize("edition", [2025, 2026])
    def test_texts_of_every_sort_come_back_as_they_were(self, tmp_path, edition):
        texts = [
            "a\u2028b\u2029c\u0085d",
            "two\nlines\r\nand\ttabs",
            '"quoted" \\ back',
            "שלום 你好 🚲",
            " padded ",
            "\x00\x0b",
        ]
        task = SearchTask(Items({"query": texts}), Items({"text": texts}))
        write_mixbench(task, [{i: 1} for i in range(len(texts))], tmp_path, "MSCOCO", edition=edition)
        found = load(tmp_path, edition=edition)
        assert found.task.queries["query"].tolist() == found.task.corpus["text"].tolist() == texts

    @pytest.mark.parametrize("edition", [2025, 2026])
    def test_files_of_pictures_are_copied_byte_by_byte(self, tmp_path, edition):
        (tmp_path / "a.JPG").write_bytes(b"bytes as they are")
        images = [str(tmp_path / "a.JPG"), tmp_path / "a.JPG", io.BytesIO(b"others")]
        task = SearchTask(Items({"query": ["q"]}), Items({"image": images}))
        write_mixbench(task, [{0: 1}], tmp_path / "root", "MSCOCO", edition=edition)
        found = load(tmp_path / "root", edition=edition).task.corpus["image"]
        contents = [Path(each).read_bytes() if edition == 2025 else each.getvalue() for each in found]
        assert contents == [b"bytes as they are"] * 2 + [b"others"]

    @pytest.mark.parametrize("edition", [2025, 2026])
    def test_a_picture_stays_upright_and_transparent(self, tmp_path, edition):
        file = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6  # turn it by a quarter
        Image.fromarray(np.arange(60, dtype=np.uint8).reshape(4, 5, 3)).save(file, "JPEG", exif=exif)
        file.seek(0)
        turned, clear = Image.open(file), Image.new("RGBA", (2, 2), (255, 0, 0, 0))
        task = SearchTask(Items({"query": ["q"]}), Items({"image": [turned, clear]}))
        write_mixbench(task, [{0: 1}], tmp_path, "MSCOCO", edition=edition)
        found = load(tmp_path, edition=edition).task.corpus["image"]
        assert pixels(found[0]).shape == (5, 4, 3)
        np.testing.assert_array_equal(pixels(found[0]), np.asarray(open_image(turned)))
        assert (pixels(found[1]) == 255).all()

    def test_grades_are_written_as_numbers(self, tmp_path):
        task = SearchTask(Items({"query": ["a", "b", "c"]}), Items({"text": ["a", "b"]}))
        write_mixbench(task, [{0: True}, {np.int64(1): np.float32(2.5), 0: 0}, {1: 3.0}], tmp_path, "MSCOCO")
        assert load(tmp_path).qrels == [{0: 1}, {1: 2.5, 0: 0}, {1: 3}]


class TestIds:
    def test_numbers_strings_and_whole_floats_are_one(self, tmp_path):
        queries = [query(1), query("2"), query(3.0), query(" 4 ")]
        corpus = [document("11"), document(12), document(13.0), document("n:14")]
        judged = "query_id\tcorpus_id\tscore\n1\t11\t1\n2\t12\t1\n3\t13\t1\n4\tn:14\t1\n"
        put(tmp_path, queries, corpus, judged, images=())
        found = load(tmp_path)
        assert found.description.query_ids == ("1", "2", "3", "4")
        assert found.description.document_ids == ("11", "12", "13", "n:14")
        assert found.qrels == [{0: 1}, {1: 1}, {2: 1}, {3: 1}]

    @pytest.mark.parametrize("twin", [7, "7", 7.0, " 7"])
    def test_an_id_that_comes_twice_is_told_with_both_places(self, tmp_path, twin):
        put(tmp_path, corpus=[document(7), document(8), document(twin)])
        refused(tmp_path, r"mixed_corpus\.jsonl, line 3: the id '7' is there already, at .*corpus\.jsonl, line 1")

    def test_a_query_id_that_comes_twice(self, tmp_path):
        put(tmp_path, queries=[query(), query()])
        refused(tmp_path, r"queries\.jsonl, line 2: the id '1' is there already, at .*queries\.jsonl, line 1")

    @pytest.mark.parametrize("bad", [None, True, 1.5, [], {}, "", "  ", float("inf"), float("nan")])
    def test_what_is_no_id(self, tmp_path, bad):
        put(tmp_path, queries=[query(), query(bad)])
        refused(tmp_path, r"queries\.jsonl, line 2: 'query_id' must be a string or a whole number; got")

    def test_no_id_at_all(self, tmp_path):
        put(tmp_path, corpus=[{"id": 1, "text": "a"}])
        refused(tmp_path, r"mixed_corpus\.jsonl, line 1: no 'corpus_id'; it has 'id', 'text'")
        put(tmp_path / "other", queries=[{}])
        refused(tmp_path / "other", r"queries\.jsonl, line 1: no 'query_id'; it has nothing")


class TestParts:
    @pytest.mark.parametrize(
        "name", ["images/a.jpg", "a.jpg", "./images/a.jpg", "./a.jpg", r"images\a.jpg", r".\a.jpg"]
    )
    def test_a_path_may_begin_with_images(self, tmp_path, name):
        folder = put(tmp_path, corpus=[document(11, image=name), document(12)], images=["a.jpg"])
        assert load(tmp_path).task.corpus["image"].tolist() == [str(folder / "images" / "a.jpg"), None]

    @pytest.mark.parametrize("name", ["sub/a.jpg", "images/12:30.jpg", "images/a b&c%20.jpg", "...jpg", "images"])
    def test_names_that_are_merely_odd(self, tmp_path, name):
        folder = put(tmp_path, corpus=[document(11, image=f"images/{name.removeprefix('images/')}"), document(12)])
        path = folder / "images" / name.removeprefix("images/")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
        assert load(tmp_path).task.corpus["image"][0] == str(path)

    @pytest.mark.parametrize("absent", [{}, {"text": None}, {"text": ""}, {"text": " \n\u2003"}])
    def test_a_text_may_be_null_absent_empty_or_blank(self, tmp_path, absent):
        put(tmp_path, corpus=[{"corpus_id": 11, "image": "sea.jpg"} | absent, document(12)])
        assert load(tmp_path).task.corpus["text"].tolist() == [None, "a red bicycle"]

    @pytest.mark.parametrize("absent", [{}, {"image": None}, {"image": ""}, {"image": " "}])
    def test_an_image_may_be_null_absent_empty_or_blank(self, tmp_path, absent):
        put(tmp_path, corpus=[{"corpus_id": 11, "text": "a"} | absent, document(12, image="sea.jpg")])
        assert load(tmp_path).task.corpus.kinds.tolist() == ["text", "text+image"]

    def test_roles_that_no_row_has_are_left_out(self, tmp_path):
        put(tmp_path, corpus=[document(11), document(12)])
        found = load(tmp_path).task
        assert (found.queries.roles, found.corpus.roles) == (("query",), ("text",))

    def test_queries_of_images_alone(self, tmp_path):
        put(tmp_path, queries=[query(1, text=None, image="sea.jpg"), query(2, text="", image="images/sea.jpg")])
        assert load(tmp_path).task.queries.roles == ("query_image",)

    @pytest.mark.parametrize("role", ["text", "image"])
    @pytest.mark.parametrize("bad", [0, 5, False, True, [], ["a"], {}, {"bytes": "x"}])
    def test_what_is_no_string_is_told(self, tmp_path, role, bad):
        put(tmp_path, corpus=[document(11), document(12, **{role: bad})])
        refused(
            tmp_path, rf"mixed_corpus\.jsonl, line 2: '{role}' must be a string or null; got {re.escape(repr(bad))}"
        )

    @pytest.mark.parametrize("empty", [{"text": None, "image": None}, {"text": " ", "image": ""}])
    def test_documents_and_queries_without_any_part_are_named(self, tmp_path, empty):
        put(tmp_path, corpus=[document(11), document(12, **empty), document(13, **empty)])
        refused(tmp_path, r"mixed_corpus\.jsonl: neither a text nor an image in 2 rows: '12', '13'")
        put(tmp_path / "other", queries=[query(1, **empty), query(2)])
        refused(tmp_path / "other", r"queries\.jsonl: neither a text nor an image in 1 row: '1'")


class TestLines:
    @pytest.mark.parametrize("line", ['{"corpus_id": 12, "text": "a"', "{'corpus_id': 12}", "corpus_id,text", "\x00"])
    def test_a_malformed_line_is_named(self, tmp_path, line):
        put(tmp_path, corpus=as_lines(CORPUS[:1]) + line.encode() + b"\n" + as_lines(CORPUS[1:]))
        message = refused(tmp_path, r"MSCOCO/mixed_corpus\.jsonl, line 2: no valid JSON \(.*column \d+.*\)")
        assert "ends here" not in message

    @pytest.mark.parametrize(
        "line",
        [
            '{"corpus_id": 12, "text": "a", "text": "b"}',
            '{"corpus_id": 12, "text": "a", "text": "a"}',
            '{"corpus_id": 12, "text": "a", "more": {"text": 1, "text": 2}}',
            '{"corpus_id": 12, "text": null, "image": "sea.jpg", "text": "a"}',
        ],
    )
    def test_a_key_that_comes_twice_is_named(self, tmp_path, line):
        put(tmp_path, corpus=as_lines(CORPUS[:1]) + line.encode())
        message = refused(tmp_path, r"mixed_corpus\.jsonl, line 2: the key 'text' comes twice in one object; keep one")
        assert "ends here" not in message

    @pytest.mark.parametrize("key", ["Image", "IMAGE", " image", "image\n", "Text", "text ", "Corpus_ID"])
    def test_a_key_with_capitals_or_blanks_is_not_passed_over(self, tmp_path, key):
        put(tmp_path, corpus=[document(11), document(12, **{key: "sea.jpg"})])
        meant = key.strip().lower()
        refused(
            tmp_path,
            rf"mixed_corpus\.jsonl, line 2: the key {re.escape(repr(key))} would not be read; write it '{meant}'",
        )

    def test_other_keys_are_left_alone(self, tmp_path):
        put(
            tmp_path, [query(1, images=[], id=7), query(2, query="x")], [document(11, title="a"), document(12, Alt="b")]
        )
        assert load(tmp_path).description.n_documents == 2

    @pytest.mark.parametrize("cut", [1, 10, 30])
    def test_a_last_line_that_is_cut_says_so(self, tmp_path, cut):
        put(tmp_path, corpus=as_lines(CORPUS)[: -1 - cut])
        refused(
            tmp_path, r"mixed_corpus\.jsonl, line 2: no valid JSON .*; the file ends here: was its download or copy"
        )

    def test_a_last_line_that_is_cut_within_a_character_says_so(self, tmp_path):
        content = as_lines([document(11), document(12, text="Café")])
        put(tmp_path, corpus=content[: content.index("é".encode()) + 1])
        refused(tmp_path, r"mixed_corpus\.jsonl, line 2: no UTF-8 text \(unexpected end of data\); the file ends here")

    @pytest.mark.parametrize("line", ["[]", "[1, 2]", '"text"', "7", "null", "true", "NaN"])
    def test_a_line_that_is_no_object(self, tmp_path, line):
        put(tmp_path, queries=as_lines(QUERIES) + line.encode())
        refused(tmp_path, rf"queries\.jsonl, line 3: expected a JSON object; got {re.escape(line)}")

    @pytest.mark.parametrize("line", ["[" * 100_000, '{"query_id": ' + "9" * 5000 + "}"])
    def test_a_line_that_json_gives_up_on_is_named_and_shortened(self, tmp_path, line):
        put(tmp_path, queries=as_lines(QUERIES) + line.encode() + b"\n")
        assert len(refused(tmp_path, r"queries\.jsonl, line 3: no valid JSON").replace(str(tmp_path), "")) < 300

    def test_a_byte_order_mark_carriage_returns_and_blank_lines(self, tmp_path):
        blanks = b"\r\n \t\r\n".join(as_lines([each]).rstrip() for each in CORPUS)
        table = JUDGED.replace("\n", "\r\n").replace("2\t", "\r\n  \r\n2\t", 1)
        put(
            tmp_path,
            as_lines(QUERIES).replace(b"\n", b"\r\n"),
            b"\xef\xbb\xbf" + blanks,
            b"\xef\xbb\xbf" + table.encode(),
        )
        found = load(tmp_path)
        assert found.task.corpus["text"].tolist() == ["a red bicycle", None]
        assert found.qrels == [{0: 1}, {1: 1}]

    def test_a_separator_of_lines_within_a_text_is_no_end_of_line(self, tmp_path):
        text = "a\u2028red\u2029bi\u0085cycle\x0b\x0c\x1c"
        put(tmp_path, corpus=as_lines([document(11, text=text), document(12)]).replace(b"\\u001c", b"\\u001c"))
        assert load(tmp_path).task.corpus["text"][0] == text

    @pytest.mark.parametrize(
        ("content", "reason"), [("é".encode("latin-1"), "invalid"), ("é".encode("utf-16"), "invalid")]
    )
    def test_another_encoding_is_named_with_its_line(self, tmp_path, content, reason):
        put(tmp_path, corpus=as_lines(CORPUS) + content + b"\n")
        refused(tmp_path, rf"mixed_corpus\.jsonl, line 3: no UTF-8 text \({reason}")
        put(tmp_path / "other", qrels=JUDGED.encode() + content + b"\n")
        refused(tmp_path / "other", rf"qrels\.tsv, line 4: no UTF-8 text \({reason}")

    @pytest.mark.parametrize("name", ["queries.jsonl", "mixed_corpus.jsonl", "qrels/qrels.tsv"])
    def test_a_pointer_of_git_lfs_in_place_of_a_file(self, tmp_path, name):
        (put(tmp_path) / name).write_bytes(POINTER)
        refused(tmp_path, rf"{name} is a Git LFS pointer, not the file itself; fetch it with: git lfs pull")

    @pytest.mark.parametrize("content", [b"", b"\n\r\n \n", b"\xef\xbb\xbf"])
    def test_an_empty_file(self, tmp_path, content):
        put(tmp_path / "a", queries=content)
        refused(tmp_path / "a", r"queries\.jsonl is empty: there is no row in it")
        put(tmp_path / "b", corpus=content)
        refused(tmp_path / "b", r"mixed_corpus\.jsonl is empty: there is no row in it")
        put(tmp_path / "c", qrels=content)
        refused(tmp_path / "c", r"qrels\.tsv, line 1: expected a header with 'query_id', 'corpus_id', 'score'; got")


class TestQrels:
    def test_columns_in_another_order_and_others(self, tmp_path):
        put(tmp_path, qrels="score\tby\tcorpus_id\tquery_id\n1\t\t11\t1\n2\tme\t12\t2\n")
        assert load(tmp_path).qrels == [{0: 1}, {1: 2}]

    @pytest.mark.parametrize("score", ["1", "1.0", " 1 ", "1e0", "+1"])
    def test_a_whole_score_is_an_int(self, tmp_path, score):
        put(tmp_path, qrels=JUDGED.replace("11\t1", f"11\t{score}"))
        grade = load(tmp_path).qrels[0][0]
        assert (grade, type(grade)) == (1, int)

    def test_a_fractional_score_stays_one(self, tmp_path):
        put(tmp_path, qrels=JUDGED.replace("11\t1", "11\t0.25"))
        assert load(tmp_path).qrels == [{0: 0.25}, {1: 1}]

    @pytest.mark.parametrize(
        "score", ["-1", "-0.5", "nan", "inf", "-inf", "1e999", "relevant", "", "1,5", "1_0", "0x1", "True"]
    )
    def test_a_score_that_is_none_is_named_with_its_line(self, tmp_path, score):
        put(tmp_path, qrels=JUDGED.replace("12\t1", f"12\t{score}"))
        refused(
            tmp_path, rf"qrels\.tsv, line 3: the score is {re.escape(repr(score))}; expected a number of at least 0"
        )

    @pytest.mark.parametrize(
        ("line", "what"),
        [
            ("9\t11\t1", "query of the id '9'"),
            ("1\t99\t0", "document of the id '99'"),
            ("\t11\t1", "query of the id ''"),
        ],
    )
    def test_an_unknown_id_is_named_with_its_line(self, tmp_path, line, what):
        put(tmp_path, qrels=f"{JUDGED}{line}\n")
        refused(tmp_path, rf"qrels\.tsv, line 4: there is no {what}")

    def test_ids_of_the_two_sides_are_not_mistaken_for_each_other(self, tmp_path):
        put(tmp_path, qrels="query_id\tcorpus_id\tscore\n11\t1\t1\n")
        refused(tmp_path, r"qrels\.tsv, line 2: there is no query of the id '11'")

    def test_no_header(self, tmp_path):
        put(tmp_path, qrels=JUDGED.split("\n", 1)[1])
        refused(tmp_path, r"qrels\.tsv, line 1: expected a header with .*'score'; got \['1', '11', '1'\]")

    @pytest.mark.parametrize("line", ["1\t12", "1\t12\t1\t1", "1 12 1", "x"])
    def test_a_ragged_line(self, tmp_path, line):
        put(tmp_path, qrels=f"{JUDGED}{line}\n")
        refused(tmp_path, rf"qrels\.tsv, line 4: {len(line.split(chr(9)))} columns, but the header has 3")

    def test_a_quote_is_a_character_like_any_other(self, tmp_path):
        put(tmp_path, queries=[query('"1'), query(2)], qrels=JUDGED.replace("\n1\t", '\n"1\t'))
        assert load(tmp_path).qrels == [{0: 1}, {1: 1}]

    def test_a_cell_beyond_all_bounds_is_named(self, tmp_path):
        put(tmp_path, qrels=f"{JUDGED}{'9' * 200_000}\t11\t1\n")
        refused(tmp_path, r"qrels\.tsv, line 4: field larger than field limit")

    def test_judged_twice(self, tmp_path):
        put(tmp_path / "same", qrels=f"{JUDGED}1\t11\t1.0\n")
        assert load(tmp_path / "same").qrels == [{0: 1}, {1: 1}]
        put(tmp_path / "other", qrels=f"{JUDGED}1\t11\t2\n")
        refused(tmp_path / "other", r"qrels\.tsv, line 4: '1' and '11' are judged twice, and differently")

    @pytest.mark.parametrize("line", ["", "2\t12\t0\n", "2\t11\t0.0\n2\t12\t0\n"])
    def test_a_query_without_a_relevant_document_is_named(self, tmp_path, line):
        put(tmp_path, qrels=f"query_id\tcorpus_id\tscore\n1\t11\t1\n{line}")
        refused(tmp_path, r"qrels\.tsv has no relevant document \(score above 0\) for 1 query: '2'")

    def test_no_judgements_at_all(self, tmp_path):
        put(tmp_path, queries=[query(i) for i in range(9)], qrels="query_id\tcorpus_id\tscore\n")
        refused(tmp_path, r"for 9 queries: '0', '1', '2', '3', '4', \.\.\.")


class TestPictures:
    def test_missing_ones_are_counted_and_named_and_no_document_is_dropped(self, tmp_path):
        corpus = [document(i, image=f"images/{i}.jpg") for i in range(10)] + [document(10, image="0.jpg")]
        folder = put(
            tmp_path,
            corpus=corpus,
            images=["3.jpg", "4.jpg"],
            qrels=JUDGED.replace("\t11\t", "\t1\t").replace("12", "2"),
        )
        message = refused(tmp_path, "8 of the 10 image files that", FileNotFoundError)
        assert "are missing: images/0.jpg, images/1.jpg, images/2.jpg, images/5.jpg, images/6.jpg, ...; " in message
        assert message.endswith(f"put them there, or correct {folder / 'mixed_corpus.jsonl'}")
        with pytest.raises(FileNotFoundError, match=f"`hf download .*/MixBench25 .* --revision {REVISIONS[2025]}"):
            load_mixbench("MSCOCO", tmp_path)
        for i in range(10):
            (folder / "images" / f"{i}.jpg").write_bytes(b"x")
        assert load(tmp_path).description.n_documents == 11

    def test_missing_ones_of_queries_and_documents_are_told_at_once(self, tmp_path):
        put(tmp_path, queries=[query(1, image="q.jpg"), query(2)], images=())
        refused(tmp_path, "2 of the 2 image files .*: images/q.jpg, images/sea.jpg; ", FileNotFoundError)

    def test_a_folder_or_a_link_to_nowhere_is_no_file(self, tmp_path):
        folder = put(tmp_path, corpus=[document(11, image="a"), document(12, image="b"), document(13, image="c")])
        (folder / "images" / "a").mkdir()
        (folder / "images" / "b").symlink_to("nowhere.jpg")
        (folder / "images" / "c").symlink_to("c")
        refused(tmp_path, "3 of the 3 image files .*: images/a, images/b, images/c", FileNotFoundError)

    def test_empty_ones(self, tmp_path):
        (put(tmp_path) / "images" / "sea.jpg").write_bytes(b"")
        refused(
            tmp_path, "1 of the 1 image files that .* are empty: images/sea.jpg; remove them; then put them there, or"
        )

    def test_pointers_of_git_lfs(self, tmp_path):
        (put(tmp_path) / "images" / "sea.jpg").write_bytes(POINTER)
        refused(tmp_path, "1 of the 1 image files that .* are Git LFS pointers: images/sea.jpg; .*: git lfs pull")

    @pytest.mark.parametrize("content", [b"x", PNG, POINTER[:40], b"y" * 1025, POINTER[:39] + b"z" * 2000])
    def test_none_is_opened(self, tmp_path, content):
        (put(tmp_path) / "images" / "sea.jpg").write_bytes(content)
        found, active = opened(tmp_path)
        load(tmp_path)
        active[0] = False
        assert [Path(name).name for name in found] == ["queries.jsonl", "mixed_corpus.jsonl", "qrels.tsv"]

    def test_of_the_size_of_a_pointer_the_beginning_is_read(self, tmp_path):
        (put(tmp_path) / "images" / "sea.jpg").write_bytes(b"x" * len(POINTER))
        assert load(tmp_path).description.n_documents == 2

    @pytest.mark.parametrize(
        "name",
        [
            "../queries.jsonl", "images/../../secret.jpg", "a/../../../b", "..", "images/..", r"..\secret.jpg",
            r"images\..\..\x", "/etc/passwd", "//etc/passwd", "/images/sea.jpg", r"\etc\passwd",
            r"\\host\share\a.jpg", "C:/a.jpg", "C:a.jpg", r"c:\a.jpg",
        ],
    )  # fmt: skip
    def test_a_path_that_leaves_the_folder_is_not_followed(self, tmp_path, name):
        put(tmp_path, corpus=[document(11), document(12, image=name)])
        message = refused(
            tmp_path, r"mixed_corpus\.jsonl, line 2: .* leaves the folder .*; such a path is not followed"
        )
        assert repr(name) in message

    def test_an_absolute_path_into_the_folder_is_not_followed(self, tmp_path):
        put(tmp_path, corpus=[document(11), document(12, image=str(tmp_path / "MSCOCO" / "images" / "sea.jpg"))])
        refused(tmp_path, "line 2: .* is an absolute path; paths must be relative to the folder .*MSCOCO$")

    @pytest.mark.parametrize(
        "name", ["a\0.jpg", "images/\0", "\ud800.jpg", "\udfff/a.jpg", ".", "./", "images", "images/"]
    )
    def test_what_is_no_path_of_a_file(self, tmp_path, name):
        put(tmp_path, corpus=as_lines([document(11)]) + json.dumps(document(12, image=name)).encode())
        refused(tmp_path, r"mixed_corpus\.jsonl, line 2: expected the path of a file; got")

    def test_a_name_too_long_for_a_file_is_missing(self, tmp_path):
        put(tmp_path, corpus=[document(11), document(12, image="n" * 5000)])
        refused(tmp_path, "1 of the 1 image files .* are missing: images/nnn", FileNotFoundError)

    @pytest.mark.parametrize("there", [True, False])
    def test_a_link_out_of_the_folder_is_not_followed(self, tmp_path, there):
        (tmp_path / "secret.jpg").write_bytes(b"secret" * there)
        folder = put(tmp_path / "root", images=())
        (folder / "images" / "sea.jpg").symlink_to(tmp_path / ("secret.jpg" if there else "nowhere"))
        refused(tmp_path / "root", r"line 2: 'images/sea.jpg' leaves the folder")

    def test_a_linked_folder_out_of_it_is_not_followed(self, tmp_path):
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "sea.jpg").write_bytes(b"secret")
        folder = put(tmp_path / "root", images=())
        (folder / "images").rmdir()
        (folder / "images").symlink_to(tmp_path / "elsewhere")
        refused(tmp_path / "root", r"line 2: 'images/sea.jpg' leaves the folder")

    def test_a_folder_whose_name_begins_alike_is_another_one(self, tmp_path):
        (tmp_path / "MSCOCO-private").mkdir()
        (tmp_path / "MSCOCO-private" / "sea.jpg").write_bytes(b"secret")
        folder = put(tmp_path, images=())
        (folder / "images" / "sea.jpg").symlink_to("../../MSCOCO-private/sea.jpg")
        refused(tmp_path, "leaves the folder")

    def test_links_within_the_folder_and_a_linked_root_are_followed(self, tmp_path):
        folder = put(tmp_path / "real", images=["deep.jpg"])
        (folder / "images" / "sea.jpg").symlink_to("deep.jpg")
        (tmp_path / "linked").symlink_to(tmp_path / "real")
        assert load(tmp_path / "linked").task.corpus["image"][1] == str(tmp_path / "linked/MSCOCO/images/sea.jpg")


class TestPlace:
    def test_the_folder_of_the_subset_is_not_its_root(self, tmp_path):
        folder = put(tmp_path)
        refused(folder, "no such file; root is the folder that holds MSCOCO, not that one itself", FileNotFoundError)

    def test_the_other_edition(self, tmp_path):
        put(tmp_path)
        message = r"queries\.parquet and .*mixed_corpus\.parquet: no such file; that folder holds the other edition: "
        message += "edition=2025"
        refused(tmp_path, message, FileNotFoundError, edition=2026)
        task = SearchTask(Items({"query": ["a"]}), Items({"text": ["a"]}))
        write_mixbench(task, [{0: 1}], tmp_path / "new", "MSCOCO", edition=2026)
        refused(tmp_path / "new", "that folder holds the other edition: edition=2026", FileNotFoundError)

    @pytest.mark.parametrize("name", ["queries.jsonl", "mixed_corpus.jsonl", "qrels/qrels.tsv"])
    def test_a_file_that_is_missing_is_named_with_the_way_out(self, tmp_path, name):
        (put(tmp_path) / name).unlink()
        refused(tmp_path, rf"{name}: no such file; put it there, or correct the path", FileNotFoundError)
        message = (
            rf"{name}: no such file; get it elsewhere with `hf download .*/MixBench25 .*as root, or leave root out"
        )
        with pytest.raises(FileNotFoundError, match=message):
            load_mixbench("MSCOCO", tmp_path)

    def test_the_corpus_that_is_not_read_need_not_be_there(self, tmp_path):
        (put(tmp_path) / "corpus.jsonl").unlink()
        assert load(tmp_path).description.n_documents == 2
        refused(tmp_path, r"MSCOCO/corpus\.jsonl: no such file", FileNotFoundError, corpus="full")

    def test_a_root_that_is_not_there(self, tmp_path):
        refused(tmp_path / "nowhere", "no such file; put them there, or correct", FileNotFoundError)

    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("subset", "mscoco"),
            ("subset", None),
            ("edition", 2027),
            ("edition", "2025"),
            ("corpus", "text"),
            ("corpus", ["mixed"]),
        ],
    )
    def test_an_argument_that_has_no_such_value(self, tmp_path, argument, value):
        options = {"subset": "MSCOCO", "root": put(tmp_path).parent} | {argument: value}
        with pytest.raises(ValueError, match=rf"{argument} must be one of .*; got {re.escape(repr(value))}"):
            load_mixbench(**options)

    def test_a_revision_is_of_the_hub(self, tmp_path):
        put(tmp_path)
        refused(tmp_path, "revision='main' is of the hub, and not used with a root", revision="main")

    def test_a_switch_is_true_or_false(self, tmp_path):
        put(tmp_path)
        with pytest.raises(TypeError, match="check_counts must be True or False; got 'no'"):
            load_mixbench("MSCOCO", tmp_path, check_counts="no")

    @pytest.mark.parametrize("revision", ["", " ", 7])
    def test_a_revision_that_is_none(self, revision):
        with pytest.raises(ValueError, match="revision must be a commit, a branch or a tag; got"):
            load_mixbench("MSCOCO", revision=revision)


@pytest.fixture(scope="module")
def wit(tmp_path_factory):
    """A folder as large as Google_WIT: as many documents of each kind, with picture files of 1,100 bytes."""
    root = tmp_path_factory.mktemp("wit")
    n_queries, n_documents = PUBLISHED["Google_WIT"]
    corpus = [
        {"corpus_id": i, "text": f"text {i}" if i >= 1473 else None, "image": f"images/{i}.jpg" if i < 2948 else ""}
        for i in range(n_documents)
    ]
    queries = [{"query_id": f"q{i}", "text": f"query {i}", "image": ""} for i in range(n_queries)]
    qrels = "query_id\tcorpus_id\tscore\n" + "".join(f"q{i}\t{i}\t1\n" for i in range(n_queries))
    folder = put(root, queries, corpus, qrels, [], "Google_WIT")
    for record in corpus:
        if record["image"]:
            (folder / record["image"]).write_bytes(b"x" * 1100)
    return root


class TestCounts:
    def test_those_published_pass_without_opening_a_picture(self, wit):
        found, active = opened(wit)
        data = load_mixbench("Google_WIT", wit)
        active[0] = False
        assert (data.description.n_queries, data.description.n_documents) == (1000, 4421)
        assert data.description.kinds == KINDS["Google_WIT"]
        assert [Path(name).name for name in found] == ["queries.jsonl", "mixed_corpus.jsonl", "qrels.tsv"]

    @pytest.mark.parametrize(
        ("name", "counts"),
        [
            (
                "mixed_corpus.jsonl",
                "4420 documents, 1472 documents of the kind 'text', but Google_WIT was published with 4421, 1473",
            ),
            ("queries.jsonl", "999 queries, but Google_WIT was published with 1000"),
        ],
    )
    def test_a_line_less_does_not(self, wit, name, counts):
        folder = wit / "Google_WIT"
        whole = {path: path.read_bytes() for path in (folder / name, folder / "qrels" / "qrels.tsv")}
        try:
            (folder / name).write_bytes(whole[folder / name].rstrip().rpartition(b"\n")[0] + b"\n")
            if name == "queries.jsonl":
                path = folder / "qrels" / "qrels.tsv"
                path.write_bytes(whole[path].rstrip().rpartition(b"\n")[0])
            with pytest.raises(ValueError, match=rf"holds {counts}: is the copy whole"):
                load_mixbench("Google_WIT", wit)
            assert load_mixbench("Google_WIT", wit, check_counts=False).description.n_queries in (999, 1000)
        finally:
            for path, content in whole.items():
                path.write_bytes(content)

    def test_a_second_relevant_document_does_not(self, wit):
        path = wit / "Google_WIT" / "qrels" / "qrels.tsv"
        whole = path.read_bytes()
        try:
            path.write_bytes(whole + b"q0\t77\t1\n")
            with pytest.raises(ValueError, match=r"1001 judgements.*: is the copy whole"):
                load_mixbench("Google_WIT", wit)
        finally:
            path.write_bytes(whole)


def publish(root, subset, corpus="mixed", more=None):
    """A folder of the counts published, of which all pictures are one file; more is what changes lines."""
    n_queries, n_documents = PUBLISHED[subset]
    picture = "images/sea.jpg"
    kinds = ["text+image"] * n_documents if corpus == "full" else list(Counter(KINDS[subset]).elements())
    documents = [
        document(i, text="a" if "text" in kind else None, image=picture if "image" in kind else None)
        for i, kind in enumerate(kinds)
    ]
    queries = [query(i, image=picture if subset == "OVEN" else None) for i in range(n_queries)]
    qrels = "query_id\tcorpus_id\tscore\n" + "".join(f"{i}\t{i}\t1\n" for i in range(n_queries))
    sides = {"queries": queries, "corpus": documents}
    for side, change in (more or {}).items():
        sides[side] = [change(each) for each in sides[side]]
    put(root, sides["queries"], sides["corpus"], qrels, subset=subset)


def renamed(old, new):
    """What gives a key another name, in lines that have both a text and a picture."""
    return lambda line: (
        {new if key == old else key: value for key, value in line.items()} if line["text"] and line["image"] else line
    )


class TestCountsOfParts:
    """Counts of parts, which are wrong where a key is misspelt throughout."""

    @pytest.mark.parametrize("subset", PUBLISHED)
    @pytest.mark.parametrize("corpus", ["mixed", "full"])
    def test_those_published_pass(self, tmp_path, subset, corpus):
        publish(tmp_path, subset, corpus)
        kinds = load_mixbench(subset, tmp_path, corpus=corpus).description.kinds
        assert kinds == (KINDS[subset] if corpus == "mixed" else {"text+image": PUBLISHED[subset][1]})

    @pytest.mark.parametrize(("subset", "counts"), KINDS.items())
    def test_the_kinds_make_up_the_mixed_corpus(self, subset, counts):
        assert sum(counts.values()) == PUBLISHED[subset][1]

    def test_a_key_that_is_left_out_is_a_part_that_is_absent(self, tmp_path):
        def without_null(line):
            return {key: value for key, value in line.items() if value is not None}

        publish(tmp_path, "MSCOCO", more={"queries": without_null, "corpus": without_null})
        assert load_mixbench("MSCOCO", tmp_path).description.kinds == KINDS["MSCOCO"]

    @pytest.mark.parametrize(
        ("corpus", "message"),
        [
            (
                "mixed",
                "656 documents of the kind 'text', 0 documents of the kind 'text\\+image', but MSCOCO was published "
                "with 328, 328",
            ),
            (
                "full",
                "984 documents of the kind 'text', 0 documents of the kind 'text\\+image', but MSCOCO was published "
                "with 0, 984",
            ),
        ],
    )
    def test_pictures_under_another_key(self, tmp_path, corpus, message):
        publish(tmp_path, "MSCOCO", corpus, more={"corpus": renamed("image", "img")})
        with pytest.raises(ValueError, match=f"MSCOCO holds {message}: is the copy whole"):
            load_mixbench("MSCOCO", tmp_path, corpus=corpus)

    @pytest.mark.parametrize(("old", "role"), [("image", "query_image"), ("text", "query")])
    def test_queries_of_oven_have_both_parts(self, tmp_path, old, role):
        publish(tmp_path, "OVEN", more={"queries": renamed(old, "misspelt")})
        match = f"OVEN holds 1000 queries without '{role}', but OVEN was published with 0: is the copy whole"
        with pytest.raises(ValueError, match=match):
            load_mixbench("OVEN", tmp_path)

    def test_queries_of_the_others_have_a_text(self, tmp_path):
        def picture(line):
            return line if line["query_id"] else line | {"text": None, "image": "sea.jpg"}

        publish(tmp_path, "VisualNews", more={"queries": picture})
        with pytest.raises(ValueError, match="holds 1 queries without 'query', but VisualNews was published with 0"):
            load_mixbench("VisualNews", tmp_path)


IMAGE = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])


def put_parquet(root, corpus=None, queries=None, **types):
    """A folder of edition 2026; columns as lists."""
    folder = root / "MSCOCO"
    (folder / "qrels").mkdir(parents=True)
    (folder / "qrels" / "qrels.tsv").write_text("query_id\tcorpus_id\tscore\n1\t11\t1\n")
    types = {"id": arrow.string(), "text": arrow.string(), "image": IMAGE} | types
    sides = {
        "queries": queries or {"id": ["1"], "text": ["a"], "image": [None]},
        "mixed_corpus": corpus or {"id": ["11"], "text": ["a"], "image": [None]},
    }
    for name, columns in sides.items():
        table = arrow.table({key: arrow.array(column, types.get(key)) for key, column in columns.items()})
        parquet.write_table(table, folder / f"{name}.parquet")
    return folder


class TestParquet:
    def test_ids_may_be_numbers_and_absent_images_structures_of_nothing(self, tmp_path):
        images = [None, {"bytes": None, "path": None}, {"bytes": b"picture", "path": "a.jpg"}]
        queries = {"id": [1], "text": ["a"], "image": [None]}
        put_parquet(tmp_path, {"id": [11, 12, 13], "text": ["a", "b", ""], "image": images}, queries, id=arrow.int64())
        found = load(tmp_path, edition=2026)
        assert found.task.corpus.kinds.tolist() == ["text", "text", "image"]
        assert found.task.corpus["image"][2].read() == b"picture"
        assert found.description.document_ids == ("11", "12", "13")

    def test_numbers_that_became_floats_are_whole_again(self, tmp_path):
        columns = {"id": [11.0], "text": ["a"], "image": [None]}
        put_parquet(tmp_path, columns, {"id": [1.0], "text": ["a"], "image": [None]}, id=arrow.float64())
        assert load(tmp_path, edition=2026).qrels == [{0: 1}]

    @pytest.mark.parametrize("image", [{"bytes": b"", "path": None}, {"bytes": None, "path": "a.jpg"}])
    def test_an_image_without_bytes(self, tmp_path, image):
        put_parquet(tmp_path, {"id": ["10", "11"], "text": ["a", "b"], "image": [None, image]})
        refused(tmp_path, r"mixed_corpus\.parquet, row 1: the image has no bytes", edition=2026)

    @pytest.mark.parametrize(("kind", "value"), [(arrow.string(), "a.jpg"), (arrow.binary(), b"x"), (arrow.int64(), 1)])
    def test_an_image_that_is_no_structure(self, tmp_path, kind, value):
        columns = {"id": ["11"], "text": ["a"], "image": [value]}
        put_parquet(tmp_path, columns, {"id": ["1"], "text": ["a"], "image": [None]}, image=kind)
        refused(tmp_path, r"mixed_corpus\.parquet, row 0: the image has no bytes", edition=2026)

    @pytest.mark.parametrize("column", ["id", "text", "image"])
    def test_a_column_that_is_missing(self, tmp_path, column):
        columns = {"id": ["11"], "text": ["a"], "image": [None]}
        del columns[column]
        put_parquet(tmp_path, columns)
        refused(
            tmp_path, rf"mixed_corpus\.parquet is no whole Parquet file of id, text and image: .*{column}", edition=2026
        )

    @pytest.mark.parametrize(
        "damage", [lambda c: b"", lambda c: b"no Parquet", lambda c: c[: len(c) // 2], lambda c: c[:-1]]
    )
    def test_a_file_that_is_not_whole(self, tmp_path, damage):
        path = put_parquet(tmp_path) / "mixed_corpus.parquet"
        path.write_bytes(damage(path.read_bytes()))
        refused(tmp_path, r"mixed_corpus\.parquet is no whole Parquet file", edition=2026)

    def test_bytes_that_were_altered(self, tmp_path):
        texts = [f"{i}" * 50 for i in range(200)]
        ids = [str(i) for i in range(200)]
        path = put_parquet(tmp_path, {"id": ids, "text": texts, "image": [None] * 200}) / "mixed_corpus.parquet"
        content = bytearray(path.read_bytes())
        content[4:400] = b"\xff" * 396
        path.write_bytes(content)
        refused(tmp_path, r"mixed_corpus\.parquet is no whole Parquet file", edition=2026)

    def test_a_pointer_of_git_lfs(self, tmp_path):
        (put_parquet(tmp_path) / "queries.parquet").write_bytes(POINTER)
        refused(tmp_path, r"queries\.parquet is a Git LFS pointer", edition=2026)

    def test_no_rows(self, tmp_path):
        put_parquet(tmp_path, {"id": [], "text": [], "image": []})
        refused(tmp_path, r"mixed_corpus\.parquet is empty", edition=2026)

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"id": ["11", None], "text": ["a", "b"]}, "row 1: 'id' must be a string or a whole number; got None"),
            ({"id": ["11", "11"], "text": ["a", "b"]}, "row 1: the id '11' is there already, at .*, row 0"),
            ({"id": ["11", "12"], "text": ["a", " "]}, "neither a text nor an image in 1 row: '12'"),
        ],
    )
    def test_rows_are_named(self, tmp_path, columns, message):
        put_parquet(tmp_path, columns | {"image": [None, None]})
        refused(tmp_path, rf"mixed_corpus\.parquet.*{message}", edition=2026)


class TestWriting:
    def test_a_folder_that_is_there_is_left_as_it_is(self, oven, tmp_path):
        (tmp_path / "OVEN").mkdir()
        (tmp_path / "OVEN" / "mine").write_text("mine")
        with pytest.raises(FileExistsError, match="OVEN is there already; nothing was written"):
            write_mixbench(*oven, tmp_path, "OVEN")
        assert [path.name for path in tmp_path.rglob("*")] == ["OVEN", "mine"]

    def test_nor_is_a_link_to_nowhere_replaced(self, oven, tmp_path):
        (tmp_path / "OVEN").symlink_to(tmp_path / "nowhere")
        with pytest.raises(FileExistsError, match="OVEN is there already"):
            write_mixbench(*oven, tmp_path, "OVEN")
        assert [path.name for path in tmp_path.iterdir()] == ["OVEN"]

    @pytest.mark.parametrize("edition", [2025, 2026])
    @pytest.mark.parametrize(
        ("row", "error", "message"),
        [
            ("nowhere.jpg", FileNotFoundError, "nowhere.jpg"),
            (7, TypeError, "role 'image', row 4: expected a PIL image, a path or a BytesIO; got int"),
            (io.BytesIO(), ValueError, "role 'image', row 4: the file is empty"),
            (Image.new("CMYK", (2, 2)), ValueError, "role 'image', row 4: cannot be written as PNG .*; convert it"),
        ],
    )
    def test_a_row_that_fails_leaves_nothing_behind(self, oven, tmp_path, edition, row, error, message):
        task, qrels = oven
        images = task.corpus["image"].copy()
        images[4] = row
        with pytest.raises(error, match=message):
            write_mixbench(
                SearchTask(task.queries, task.corpus.replace({"image": images})),
                qrels,
                tmp_path,
                "OVEN",
                edition=edition,
            )
        assert list(tmp_path.iterdir()) == []

    def test_a_text_that_is_none_leaves_nothing_behind(self, tmp_path):
        task = SearchTask(Items({"query": ["a"]}), Items({"text": ["a", 7]}))
        with pytest.raises(TypeError, match="role 'text', row 1: expected a str; got int"):
            write_mixbench(task, [{0: 1}], tmp_path, "MSCOCO")
        half = SearchTask(Items({"query": ["a"]}), Items({"text": ["a", "\ud800"]}))
        with pytest.raises(ValueError, match=r"role 'text', row 1: the text cannot be written as UTF-8"):
            write_mixbench(half, [{0: 1}], tmp_path, "MSCOCO")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("queries", "corpus", "error", "message"),
        [
            (
                {"question": ["a"]},
                {"text": ["a"]},
                ValueError,
                "role 'question': queries .* have 'query' and 'query_image' only",
            ),
            (
                {"query": ["a"]},
                {"caption": ["a"]},
                ValueError,
                "role 'caption': documents .* have 'text' and 'image' only",
            ),
            ({"query": np.ones((1, 2))}, {"text": ["a"]}, TypeError, "role 'query' holds vectors"),
            ({"query": ["a"]}, {"text": np.ones((1, 2))}, TypeError, "role 'text' holds vectors"),
            ({"query": [""]}, {"text": ["a"]}, ValueError, r"queries: 1 row \(0\) have a blank text"),
            (
                {"query": ["a"]},
                {"text": ["a", " "], "image": [None, "x.jpg"]},
                ValueError,
                r"corpus: 1 row \(1\) have a blank text",
            ),
            (
                {"query": ["a"]},
                {"text": ["a", None]},
                ValueError,
                r"corpus: 1 row \(1\) have neither a text nor a picture",
            ),
            ({"query": [None]}, {"text": ["a"]}, ValueError, r"queries: 1 row \(0\) have neither"),
        ],
    )
    def test_what_would_not_come_back_is_refused(self, tmp_path, queries, corpus, error, message):
        with pytest.raises(error, match=message):
            write_mixbench(SearchTask(Items(queries), Items(corpus)), [{0: 1}], tmp_path, "MSCOCO")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("qrels", "error", "message"),
        [
            ([{0: 1}], ValueError, "qrels has 1 entries, but there are 2 queries"),
            ([{0: 1}, {2: 1}], ValueError, "judges document 2, but the corpus has 2 rows"),
            ([{0: 1}, {1: -1}], ValueError, "a grade is a finite number"),
            ([{0: 1}, {1: 0}], ValueError, r"qrels have no relevant document for 1 query \(1\)"),
            ([{0: 1}, {}], ValueError, r"qrels have no relevant document for 1 query \(1\)"),
            ({0: {0: 1}}, TypeError, "qrels must be a list of dicts"),
        ],
    )
    def test_qrels_that_fit_no_task_are_refused(self, tmp_path, qrels, error, message):
        task = SearchTask(Items({"query": ["a", "b"]}), Items({"text": ["a", "b"]}))
        with pytest.raises(error, match=message):
            write_mixbench(task, qrels, tmp_path, "MSCOCO")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("mixed", "error", "message"),
        [
            (Items({"text": ["a"] * 5}), ValueError, "mixed has 5 rows, but the corpus has 6"),
            (Items({"caption": ["a"] * 6}), ValueError, "role 'caption': documents of this layout"),
            (Items({"text": np.ones((6, 2))}), TypeError, "role 'text' holds vectors"),
            (["a"] * 6, TypeError, "mixed is list; expected Items"),
            (Items({"text": ["a"] * 5 + [None]}), ValueError, r"mixed_corpus: 1 row \(5\) have neither"),
            (
                Items({"image": [Image.new("RGB", (2, 2))] * 6}),
                ValueError,
                "mixed, row 0: the picture is not that of the corpus",
            ),
        ],
    )
    def test_a_mixed_corpus_that_is_not_of_this_one_is_refused(self, oven, tmp_path, mixed, error, message):
        with pytest.raises(error, match=message):
            write_mixbench(*oven, tmp_path, "OVEN", mixed=mixed)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("task", [None, Items({"text": ["a"]}), SearchTask(np.ones((1, 2)), np.ones((1, 2)))])
    def test_a_task_that_is_none(self, tmp_path, task):
        with pytest.raises(TypeError, match="expected a SearchTask of Items"):
            write_mixbench(task, [{0: 1}], tmp_path, "MSCOCO")

    def test_a_subset_or_edition_that_there_is_not(self, oven, tmp_path):
        with pytest.raises(ValueError, match="subset must be one of 'MSCOCO'"):
            write_mixbench(*oven, tmp_path, "../out")
        with pytest.raises(ValueError, match="edition must be one of 2025, 2026; got 2024"):
            write_mixbench(*oven, tmp_path, "OVEN", edition=2024)
        assert list(tmp_path.iterdir()) == []


LOADS = """
import json, sys
from grclip.datasets import load_mixbench
for options in json.loads(sys.argv[1]):
    try:
        task, qrels, description = load_mixbench(**{"subset": "MSCOCO", "check_counts": False} | options)
        image = task.corpus.get("image", [])
        files = [file.read() if hasattr(file, "read") else open(file, "rb").read() for file in image if file]
        found = {"kinds": task.corpus.kinds.tolist(), "qrels": [list(map(list, each.items())) for each in qrels],
                 "files": [file.decode() for file in files], "source": description.source}
    except Exception as error:
        found = {"error": type(error).__name__, "is_os_error": isinstance(error, OSError), "message": str(error)}
    print(json.dumps(found))
"""


def load_apart(cache, *calls, endpoint="http://127.0.0.1:9", offline=True):
    """What each call of the loader gives in a new interpreter, which has this cache of the hub."""
    hub = {"HF_HUB_CACHE": str(cache), "HF_HOME": str(cache / "home"), "HF_ENDPOINT": endpoint}
    env = os.environ | hub | {"HF_HUB_OFFLINE": str(int(offline)), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-c", LOADS, json.dumps(calls)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=120)
    return [json.loads(line) for line in done.stdout.splitlines()]


def home_of(cache, edition=2025):
    return cache / f"datasets--mixed-modality-search--{ {2025: 'MixBench25', 2026: 'MixBench2026'}[edition] }"


def keep(cache, files, edition=2025, revision=None):
    """Files of a snapshot as the hub's cache keeps them: relative links to blobs that are named by their content."""
    for name, content in files.items():
        blob = home_of(cache, edition) / "blobs" / hashlib.sha256(content).hexdigest()
        link = home_of(cache, edition) / "snapshots" / (revision or REVISIONS[edition]) / name
        for path in (blob, link):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link.symlink_to(os.path.relpath(blob, link.parent))


def published(subset="MSCOCO", images=("0.jpg", "1.jpg", "2.jpg")):
    """Files of a subset by name, with one document to each picture and one that has none."""
    corpus = [document(i, image=f"images/{name}") for i, name in enumerate(images)] + [document(11)]
    files = {"queries.jsonl": as_lines([query(1)]), "corpus.jsonl": b"", "mixed_corpus.jsonl": as_lines(corpus)}
    files |= {"qrels/qrels.tsv": b"query_id\tcorpus_id\tscore\n1\t11\t1\n"}
    files |= {f"images/{name}": f"picture {name} of {subset}".encode() for name in images}
    return {f"{subset}/{name}": content for name, content in files.items()}


def published_parquet(tmp_path, subset="MSCOCO"):
    folder = put_parquet(tmp_path, {"id": ["11"], "text": [None], "image": [{"bytes": b"within", "path": None}]})
    return {
        f"{subset}/{name}.parquet": (folder / f"{name}.parquet").read_bytes() for name in ("queries", "mixed_corpus")
    }


def without(files, *names):
    return {name: content for name, content in files.items() if not name.endswith(names)}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the loader gives with whole, unfinished and strange snapshots in the hub's cache, without a connection."""
    cache, other = tmp_path_factory.mktemp("cache"), tmp_path_factory.mktemp("other")
    keep(cache, published())
    keep(cache, without(published("VisualNews"), "0.jpg", "2.jpg"))
    keep(cache, without(published("OVEN"), "mixed_corpus.jsonl", "corpus.jsonl", "qrels.tsv"))
    keep(cache, published("Google_WIT"))
    snapshot = home_of(cache) / "snapshots" / REVISIONS[2025]
    shared = cache / "blobs" / "ab" / "abcd"  # blobs of several datasets may be kept once
    shared.parent.mkdir(parents=True)
    blob = (snapshot / "MSCOCO" / "images" / "0.jpg").resolve()
    blob.rename(shared)
    blob.symlink_to(os.path.relpath(shared, blob.parent))
    (snapshot / "Google_WIT" / "images" / "1.jpg").resolve().unlink()
    (home_of(cache) / "refs").mkdir()
    (home_of(cache) / "refs" / "main").write_text(REVISIONS[2025])
    for subset in ("MSCOCO", "OVEN"):
        keep(cache, published_parquet(other / subset, subset), 2026)
    (other / "linked").symlink_to(snapshot)
    keep(cache, published(), revision="e" * 40)
    (other / "secret.jpg").write_bytes(b"secret")
    link = home_of(cache) / "snapshots" / ("e" * 40) / "MSCOCO" / "images" / "0.jpg"
    link.unlink()
    link.symlink_to(other / "secret.jpg")
    calls = {
        "whole": {},
        "branch": {"revision": "main"},
        "root": {"root": str(snapshot)},
        "linked": {"root": str(other / "linked")},
        "missing": {"subset": "VisualNews"},
        "dangling": {"subset": "Google_WIT"},
        "no corpus": {"subset": "OVEN"},
        "parquet": {"edition": 2026},
        "own parquet": {"edition": 2026, "root": str(other / "own")},
        "no qrels": {"subset": "OVEN", "edition": 2026},
        "commit": {"revision": "f" * 40},
        "no branch": {"revision": "nope"},
        "stray": {"revision": "e" * 40},
    }
    put_parquet(other / "own")
    (other / "own" / "MSCOCO" / "qrels" / "qrels.tsv").unlink()
    return dict(zip(calls, load_apart(cache, *calls.values()), strict=True))


class TestCache:
    """The hub's cache, without a connection."""

    @pytest.mark.parametrize("name", ["whole", "branch", "root", "linked"])
    def test_a_snapshot_of_links_into_blobs_loads(self, found, name):
        assert found[name]["kinds"] == ["text+image"] * 3 + ["text"]
        assert found[name]["files"] == [f"picture {i}.jpg of MSCOCO" for i in range(3)]
        assert found[name]["qrels"] == [[[3, 1]]]

    def test_the_source_is_told_with_its_revision(self, found):
        assert found["whole"]["source"].endswith(
            f"datasets/mixed-modality-search/MixBench25, revision {REVISIONS[2025]}"
        )
        assert found["branch"]["source"].endswith("revision main")

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            (
                "missing",
                "2 of the 3 image files that .* are missing: images/0.jpg, images/2.jpg; the download was not fin",
            ),
            (
                "dangling",
                "1 of the 3 image files that .* are missing: images/1.jpg; the download was not finished: load",
            ),
            (
                "no corpus",
                "OVEN/mixed_corpus.jsonl and .*OVEN/qrels/qrels.tsv: no such file; the download was not finish",
            ),
            (
                "no qrels",
                "OVEN/qrels/qrels.tsv: no such file; .* those of MixBench25, and its download was not finished",
            ),
        ],
    )
    def test_an_interrupted_download_is_never_half_read(self, found, name, message):
        assert found[name]["error"] == "FileNotFoundError"
        assert re.search(message, found[name]["message"])

    @pytest.mark.parametrize("name", ["parquet", "own parquet"])
    def test_the_edition_of_2026_takes_the_judgements_of_the_other_one(self, found, name):
        assert found[name]["qrels"] == [[[0, 1]]]
        assert found[name].get("files") == (["within"] if name == "parquet" else [])

    @pytest.mark.parametrize(("name", "revision"), [("commit", "f" * 40), ("no branch", "nope")])
    def test_a_revision_that_is_not_there_is_told(self, found, name, revision):
        assert found[name]["is_os_error"]
        assert f"MixBench25 at revision {revision} is not on this machine" in found[name]["message"]

    def test_a_link_that_leaves_the_cache_is_not_followed(self, found):
        assert found["stray"]["error"] == "ValueError"
        assert "'images/0.jpg' leaves the folder" in found["stray"]["message"]

    def test_nothing_at_all_is_told_with_the_ways_out(self, tmp_path):
        folder = put_parquet(tmp_path / "own")
        (folder / "qrels" / "qrels.tsv").unlink()
        one, own = load_apart(tmp_path / "cache", {}, {"edition": 2026, "root": str(tmp_path / "own")})
        command = f"hf download mixed-modality-search/MixBench25 --repo-type dataset --revision {REVISIONS[2025]}"
        assert one["is_os_error"]
        assert "unset HF_HUB_OFFLINE, to download it, or get it elsewhere with `" + command in one["message"]
        assert own["is_os_error"]
        assert own["message"].startswith(
            f"{folder}/qrels/qrels.tsv: no such file; the judgements are those of MixBench25"
        )
        assert own["message"].endswith(f"or copy MSCOCO/qrels/qrels.tsv of it to {folder}/qrels/qrels.tsv")


@pytest.fixture(scope="module")
def hub():
    """A server on this machine that answers like the hub, for one dataset at one commit, and can break down."""
    state = SimpleNamespace(files=published(), broken=None, asked=[], served=set(), rest=threading.Event())

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            place = re.fullmatch(r"(/api)?/datasets/mixed-modality-search/MixBench25/(\w+)/(\w+)/?([^?]*).*", self.path)
            _, what, revision, name = place.groups()
            if revision == "silent":
                self.close_connection = True
            elif revision != REVISIONS[2025]:
                self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
            elif what == "tree":
                listed = [(path, content) for path, content in state.files.items()]
                tree = [
                    {"type": "file", "path": p, "size": len(c), "oid": hashlib.sha1(c).hexdigest()} for p, c in listed
                ]
                self.answer(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})
            else:
                self.send_file(name, state.files[name])

        do_HEAD = do_GET  # noqa: N815 (the name that the server calls)

        def send_file(self, name, content):
            etag = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": REVISIONS[2025]}
            state.asked += [name] if self.command == "GET" else []
            if self.command == "HEAD":
                self.answer(200, content, etag)
            elif name != state.broken:
                self.answer(200, content, etag)
                state.served.add(name)
                if state.served >= set(without(published(), "/corpus.jsonl")) - {state.broken}:
                    state.rest.set()
            elif state.asked.count(name) == 1:  # half of it, when the others are through
                state.rest.wait(30)
                self.answer(200, content, etag, part=content[: len(content) // 2])
                self.close_connection = True
            else:
                self.answer(503, b"", {})

        def answer(self, status, content, headers, part=None):
            self.send_response(status)
            for key, value in (headers | {"Content-Length": str(len(content))}).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content if part is None else part)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        state.url = f"http://127.0.0.1:{server.server_port}"
        yield state
        server.shutdown()


@pytest.fixture(scope="module")
def downloads(hub, tmp_path_factory):
    """A download that breaks off, what is there without a connection, and the same when the hub is well again."""
    cache = tmp_path_factory.mktemp("downloads")
    hub.files |= published("OVEN") | {"README.md": b"", "MSCOCO/more.zip": b""}
    hub.broken = "MSCOCO/images/1.jpg"
    (stopped,) = load_apart(cache, {}, endpoint=hub.url, offline=False)
    first, hub.broken, hub.asked = hub.asked, None, []
    (offline,) = load_apart(cache, {})
    calls = [{}, {}, *({"revision": revision} for revision in ("nope", "f" * 40, "silent"))]
    whole, again, *others = load_apart(cache, *calls, endpoint=hub.url, offline=False)
    return SimpleNamespace(
        stopped=stopped, first=first, offline=offline, whole=whole, again=again, others=others, later=hub.asked
    )


class TestDownload:
    def test_one_that_breaks_off_is_told(self, downloads):
        assert downloads.stopped["is_os_error"]
        assert "stopped (HfHubHTTPError: " in downloads.stopped["message"]
        assert "load it again, and it goes on there" in downloads.stopped["message"]
        assert downloads.first.count("MSCOCO/images/1.jpg") == 2

    def test_without_a_connection_it_is_not_half_read(self, downloads):
        assert downloads.offline["error"] == "FileNotFoundError"
        message = "1 of the 3 image files .* are missing: images/1.jpg; the download was not finished: load it again"
        assert re.search(message, downloads.offline["message"])

    def test_it_goes_on_with_what_is_not_there_yet(self, downloads):
        assert downloads.whole["files"] == [f"picture {i}.jpg of MSCOCO" for i in range(3)]
        assert downloads.again == downloads.whole
        assert downloads.later == ["MSCOCO/images/1.jpg"]

    def test_only_what_is_read_is_downloaded(self, downloads):
        assert set(downloads.first) == set(without(published(), "/corpus.jsonl"))

    @pytest.mark.parametrize(("row", "revision"), [(0, "nope"), (1, "f" * 40)])
    def test_a_revision_that_the_hub_has_not(self, downloads, row, revision):
        assert downloads.others[row]["error"] == "ValueError"
        message = (
            f"revision='{revision}': mixed-modality-search/MixBench25 has none of that name; a revision is a commit"
        )
        assert downloads.others[row]["message"].startswith(message)

    def test_a_connection_that_is_cut_is_told(self, downloads):
        assert downloads.others[2]["is_os_error"]
        message = "the download of mixed-modality-search/MixBench25 at revision silent stopped"
        assert downloads.others[2]["message"].startswith(message)


class TestHelp:
    """What lies beside, and what a wrong file looks like."""

    @pytest.mark.parametrize(
        ("gone", "packed"),
        [
            ("root/MSCOCO", "root/MSCOCO.zip"),
            ("root/MSCOCO/images", "root/MSCOCO/images.zip"),
            ("root/MSCOCO/mixed_corpus.jsonl", "root/MSCOCO/mixed_corpus.jsonl.gz"),
        ],
    )
    def test_what_is_packed_beside_it_is_to_be_unpacked(self, tmp_path, gone, packed):
        put(tmp_path / "root")
        (tmp_path / gone).rename(tmp_path / "gone")
        (tmp_path / packed).write_bytes(b"packed")
        refused(tmp_path / "root", rf"; unpack (it: gunzip )?{tmp_path / packed}$", FileNotFoundError)

    def test_a_root_that_is_an_archive(self, tmp_path):
        (tmp_path / "MixBench25.zip").write_bytes(b"packed")
        refused(tmp_path / "MixBench25.zip", r"; unpack .*MixBench25\.zip, and give the folder$", FileNotFoundError)

    def test_a_subset_of_another_name_or_one_level_deeper(self, tmp_path):
        put(tmp_path / "root", subset="mscoco")
        if (tmp_path / "root" / "MSCOCO").exists():
            pytest.skip("capitals do not count in this file system")
        refused(tmp_path / "root", "; there is .*root/mscoco: rename it to MSCOCO", FileNotFoundError)
        (tmp_path / "root" / "mscoco").rename(tmp_path / "root" / "MSCOCO")
        refused(tmp_path, r"; there is .*root/MSCOCO: give root='.*/root'", FileNotFoundError)

    def test_a_tilde_is_the_home_folder(self, oven, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        write_mixbench(*oven, "~/root", "OVEN")
        assert (tmp_path / "root" / "OVEN").is_dir()
        data = load_mixbench("OVEN", "~/root", check_counts=False)
        assert f"read from {tmp_path / 'root'}" in data.description.source

    def test_a_url_is_not_fetched(self, tmp_path):
        put(tmp_path, corpus=[document(11), document(12, image="https://example.org/sea.jpg")])
        refused(tmp_path, "line 2: 'https://example.org/sea.jpg' is a URL, and URLs are not fetched: download")

    def test_a_missing_file_is_told_as_the_dataset_calls_it(self, tmp_path):
        put(tmp_path, corpus=[document(11), document(12, image="MSCOCO/images/sea.jpg")])
        refused(tmp_path, r"; the first is called 'MSCOCO/images/sea.jpg' at .*jsonl, line 2$", FileNotFoundError)

    @pytest.mark.parametrize(
        ("qrels", "message"),
        [
            (JUDGED.replace("\t", ","), "separated by tabs; here they are not: query_id,corpus_id,score$"),
            (JUDGED.replace("\t", "  "), "separated by tabs; here they are not: query_id  corpus_id  score$"),
            (JUDGED.replace("_id", "-id"), "; write the names as expected$"),
            ("1\t11\t1\n", "separated by tabs; this looks like a judgement: put the header before the first line$"),
            ("1 0 11 1\n", "take the second column out, which is that of TREC, and put the header before the first"),
        ],
    )
    def test_a_header_that_is_none_says_what_it_looks_like(self, tmp_path, qrels, message):
        put(tmp_path, qrels=qrels)
        refused(tmp_path, rf"qrels\.tsv, line 1: expected a header .*{message}")

    def test_a_line_with_other_separators(self, tmp_path):
        put(tmp_path, qrels=f"{JUDGED}1,12,0\n")
        refused(tmp_path, r"qrels\.tsv, line 4: 1 columns, but the header has 3, separated by tabs")

    @pytest.mark.parametrize("indent", [None, 1])
    @pytest.mark.parametrize("value", [QUERIES, QUERIES[0]])
    def test_a_file_that_is_one_value_of_json(self, tmp_path, value, indent):
        if (value, indent) != (QUERIES[0], None):
            put(tmp_path, queries=json.dumps(value, indent=indent).encode())
            refused(tmp_path, r"queries\.jsonl, line 1: .*; the file must hold one JSON object a line")

    @pytest.mark.parametrize("name", ["queries", "mixed_corpus"])
    def test_a_file_cut_at_a_line_is_not_blamed_on_the_judgements(self, tmp_path, name):
        publish(tmp_path, "MSCOCO")
        path = tmp_path / "MSCOCO" / f"{name}.jsonl"
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:500]))
        with pytest.raises(ValueError, match=r"holds 500 (queries|documents).*, but MSCOCO was published with 984"):
            load_mixbench("MSCOCO", tmp_path)

    @pytest.mark.parametrize(
        ("offline", "cure"), [(True, "connect, and unset HF_HUB_OFFLINE, to"), (False, "connect to")]
    )
    def test_only_a_switch_that_is_set_is_to_be_unset(self, monkeypatch, offline, cure):
        def out_of_reach(*_, **__):  # the real one waits half a minute
            raise huggingface_hub.errors.LocalEntryNotFoundError("out of reach")

        monkeypatch.setattr(huggingface_hub, "snapshot_download", out_of_reach)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
        with pytest.raises(OSError, match=f"; {cure} download it, or get it elsewhere"):
            load_mixbench("MSCOCO")
