"""Clotho, MSVD and NIGHTS: real sounds, clips and pictures go out and come back, and every oddity is told."""

import csv
import io
import json
import shutil
from functools import partial

import numpy as np
import PIL.Image
import pytest
import scipy.io.wavfile
from hypothesis import given
from hypothesis import strategies as st

from grclip import Items, SearchTask, datasets
from grclip.datasets import make_scenes, write_clotho, write_msvd, write_nights
from grclip.encoders._media import open_audio, open_image, open_video

load_clotho, load_msvd, load_nights = (
    partial(load, check_counts=False) for load in (datasets.load_clotho, datasets.load_msvd, datasets.load_nights)
)  # of a few rows each

CAPTIONS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1).map(str.strip).filter(bool)
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 70000\n"


def pairs(n):
    return [{row: 1} for row in range(n)]


def captioned(role, values, queries=None, texts=None):
    queries = queries or [f"query {i}" for i in range(len(values))]
    texts = texts or [f"text {i}" for i in range(len(values))]
    return SearchTask(Items({"query": queries}), Items({"text": texts, role: values}))


def tone(hertz, rate=8000, seconds=0.1):
    return np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate), rate


def clip(value, n=6, height=32, width=48):
    frames = np.full((n, height, width, 3), value, np.uint8)
    frames[:, : height // 2, :, 0] = np.arange(n)[:, None, None]
    return frames


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.fixture
def clotho(tmp_path):
    write_clotho(captioned("audio", [tone(200), tone(300), tone(400)]), pairs(3), tmp_path / "clotho")
    return tmp_path / "clotho"


@pytest.fixture
def msvd(tmp_path):
    write_msvd(captioned("video", [clip(10), clip(100), clip(200)]), pairs(3), tmp_path / "msvd")
    return tmp_path / "msvd"


@pytest.fixture
def nights(tmp_path):
    scenes = make_scenes(5, random_state=0, size=32)[0].corpus
    task = SearchTask(Items({"query_image": make_scenes(5, random_state=1, size=32)[0].corpus["image"]}), scenes)
    write_nights(task, pairs(5), tmp_path / "nights")
    return tmp_path / "nights"


class TestClotho:
    def test_what_is_written_comes_back_and_is_read_by_the_encoders_reader(self, tmp_path):
        wave, _ = tone(200)
        stereo = np.stack([wave, np.zeros_like(wave)])
        sounds = [
            (wave, 8000),
            (wave.astype(np.float32), 44100.0),
            ((wave * 20000).astype(np.int16), 22050),
            ((wave * 100 + 128).astype(np.uint8), 8000),
            (stereo, 8000),
            (stereo.T, 8000),
        ]
        task = captioned("audio", sounds)
        write_clotho(task, pairs(6), tmp_path / "clotho")
        found, qrels, description = load_clotho(tmp_path / "clotho")
        assert found.queries["query"].tolist() == task.queries["query"].tolist()
        assert found.corpus["text"].tolist() == task.corpus["text"].tolist()
        assert qrels == pairs(6)
        assert description.document_ids == description.query_ids == tuple(f"d{i}.wav" for i in range(6))
        assert description.kinds == {"text+audio": 6}
        assert "https://zenodo.org/records/4783391" in description.source
        assert "Tampere" in description.licence
        for sound, path in zip(sounds, found.corpus["audio"], strict=True):
            assert isinstance(path, str)
            assert np.abs(open_audio(path, 8000) - open_audio(sound, 8000)).max() < 1e-6

    @given(pair=st.lists(st.tuples(CAPTIONS, CAPTIONS), min_size=1, max_size=3))
    def test_captions_come_back_whatever_they_hold(self, tmp_path_factory, pair):
        queries, texts = map(list, zip(*pair, strict=True))
        folder = tmp_path_factory.mktemp("clotho") / "small"
        sound = np.zeros(8, np.int16), 8000
        write_clotho(captioned("audio", [sound] * len(pair), queries, texts), pairs(len(pair)), folder)
        task = load_clotho(folder).task
        assert task.queries["query"].tolist() == queries
        assert task.corpus["text"].tolist() == texts
        shutil.rmtree(folder)

    def test_paths_are_copied_and_nothing_is_opened(self, tmp_path):
        (tmp_path / "a.flac").write_bytes(b"not opened")
        write_clotho(captioned("audio", [tmp_path / "a.flac"]), pairs(1), tmp_path / "clotho", split="evaluation")
        (path,) = load_clotho(tmp_path / "clotho", split="evaluation").task.corpus["audio"]
        assert path == str(tmp_path / "clotho" / "evaluation" / "d0.flac")

    def test_captions_are_chosen_by_number(self, clotho):
        lines = ["file_name,caption_1,caption_2,caption_3,caption_4,caption_5"]
        lines += [f'd{i}.wav,one {i},"two, {i}",three {i},four {i},five {i}' for i in range(3)]
        (clotho / "clotho_captions_validation.csv").write_text("\r\n".join(lines))
        assert load_clotho(clotho).task.corpus["text"].tolist() == ["two, 0", "two, 1", "two, 2"]
        task, _, description = load_clotho(clotho, query_caption=5, text_caption=3)
        assert task.queries["query"][1] == "five 1"
        assert task.corpus["text"][2] == "three 2"
        assert "caption 5 asks, caption 3 is the text" in description.source

    def test_columns_come_in_any_order_and_unused_captions_may_be_empty(self, clotho):
        (clotho / "clotho_captions_validation.csv").write_text("extra,caption_2,file_name,caption_1\n,b,d0.wav,a\n")
        assert load_clotho(clotho).task.queries["query"].tolist() == ["a"]

    def test_sounds_may_lie_in_a_folder_of_the_archive_name(self, clotho):
        (clotho / "validation").rename(clotho / "clotho_audio_validation")
        assert len(open_audio(load_clotho(clotho).task.corpus["audio"][0], 8000)) == 800

    def test_missing_sounds_are_counted_and_named(self, clotho):
        for name in ("d0.wav", "d2.wav"):
            (clotho / "validation" / name).unlink()
        match = r"2 of the 3 .* are missing: validation/d0.wav, validation/d2.wav; put them there, or correct .*\.csv"
        with pytest.raises(FileNotFoundError, match=match):
            load_clotho(clotho)

    def test_a_sound_that_git_lfs_left_out(self, clotho):
        (clotho / "validation" / "d1.wav").write_text(POINTER)
        with pytest.raises(ValueError, match=r"1 of the 3 sound files .* are Git LFS pointers: validation/d1.wav"):
            load_clotho(clotho)

    def test_no_folder_of_sounds(self, clotho):
        shutil.rmtree(clotho / "validation")
        with pytest.raises(FileNotFoundError, match="neither a folder validation nor clotho_audio_validation; get "):
            load_clotho(clotho)

    def test_no_table(self, clotho):
        with pytest.raises(FileNotFoundError, match=r"captions_evaluation.csv: no such file; get .*evaluation.7z from"):
            datasets.load_clotho(clotho, split="evaluation")

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("d1.wav,query 1", "d0.wav,query 1", r"csv, line 3: the id 'd0.wav' is there already, at .*line 2"),
            ("d1.wav,query 1", "d1.wav,", r"csv, line 3: 'caption_1' is empty"),
            ("d1.wav,query 1", "d1.wav,query 1,more", r"csv, line 3: 7 columns, but the header has 6"),
            ("d1.wav,query 1", 'd1.wav,"query 1', r"csv, line \d+: "),
            ("d1.wav,", " ,", r"line 3: 'file_name' must be a string"),
            ("d1.wav,", "../d1.wav,", r"line 3: '../d1.wav' leaves the folder"),
            ("d1.wav,", "/d1.wav,", r"line 3: '/d1.wav' leaves the folder"),
            ("caption_2", "caption_9", r"csv, line 1: expected a header with 'file_name', 'caption_1', 'caption_2'"),
        ],
    )
    def test_what_the_table_gets_wrong(self, clotho, old, new, message):
        edit(clotho / "clotho_captions_validation.csv", old, new)
        with pytest.raises(ValueError, match=message):
            load_clotho(clotho)

    def test_a_table_without_rows(self, clotho):
        (clotho / "clotho_captions_validation.csv").write_text("file_name,caption_1,caption_2\n")
        with pytest.raises(ValueError, match="is empty: there is no sound in it"):
            load_clotho(clotho)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"split": "test"}, "split must be one of 'development', 'validation', 'evaluation'; got 'test'"),
            ({"query_caption": 6}, "query_caption must be a whole number from 1 to 5; got 6"),
            ({"text_caption": 0}, "text_caption must be a whole number of at least 1; got 0"),
            ({"text_caption": 1}, "query_caption and text_caption are both 1"),
        ],
    )
    def test_arguments_without_such_a_value(self, clotho, arguments, message):
        with pytest.raises(ValueError, match=message):
            load_clotho(clotho, **arguments)

    @pytest.mark.parametrize(
        "sound",
        [
            np.zeros(8),
            (np.zeros(0), 8000),
            (np.zeros((2, 2, 2)), 8000),
            (np.zeros(8, np.int64), 8000),
            (np.zeros(8), 8000.5),
            (np.zeros(8), 0),
            (np.zeros(8), "8000"),
            PIL.Image.new("RGB", (2, 2)),
        ],
    )
    def test_sounds_that_cannot_be_written(self, tmp_path, sound):
        with pytest.raises(TypeError, match=r"role 'audio', row 1: "):
            write_clotho(captioned("audio", [tone(200), sound]), pairs(2), tmp_path / "clotho")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("caption", ["two\nlines", " blanks ", "carriage\rreturn"])
    def test_a_caption_is_one_line(self, tmp_path, caption):
        with pytest.raises(ValueError, match=r"role 'text', row 0: a caption is one line"):
            write_clotho(captioned("audio", [tone(200)], texts=[caption]), pairs(1), tmp_path / "clotho")


class TestMSVD:
    def test_what_is_written_comes_back_and_is_read_by_the_encoders_reader(self, tmp_path, rng):
        clips = [clip(10), clip(250, n=1), rng.integers(0, 256, (9, 33, 47, 3)).astype(np.uint8)]
        task = captioned("video", clips)
        write_msvd(task, pairs(3), tmp_path / "msvd")
        found, qrels, description = load_msvd(tmp_path / "msvd")
        assert found.queries["query"].tolist() == task.queries["query"].tolist()
        assert found.corpus["text"].tolist() == task.corpus["text"].tolist()
        assert qrels == pairs(3)
        assert description.query_ids == description.document_ids == ("clip0_0_1", "clip1_0_1", "clip2_0_1")
        assert description.kinds == {"text+video": 3}
        assert "https://www.cs.utexas.edu/" in description.source
        for frames, path in zip(clips, found.corpus["video"], strict=True):
            assert isinstance(path, str)
            assert np.array_equal(open_video(path, len(frames)), frames)

    @given(pair=st.lists(st.tuples(CAPTIONS, CAPTIONS), min_size=1, max_size=3))
    def test_captions_come_back_whatever_they_hold(self, tmp_path_factory, pair):
        queries = [query for query, _ in pair]
        texts = [f"unlike {query} {text}" for query, text in pair]
        folder = tmp_path_factory.mktemp("msvd")
        (folder / "a.avi").write_bytes(b"not opened")
        write_msvd(captioned("video", [folder / "a.avi"] * len(pair), queries, texts), pairs(len(pair)), folder / "m")
        task = load_msvd(folder / "m").task
        assert task.queries["query"].tolist() == queries
        assert task.corpus["text"].tolist() == texts
        shutil.rmtree(folder)

    def test_the_text_is_the_next_caption_with_other_words(self, msvd):
        captions = (
            "# comment\n\n# 2\nclip0_0_1 a cat\nclip1_0_1 x\nclip0_0_1 A  cat\nclip0_0_1 a cat eats\r\nclip1_0_1 y"
        )
        (msvd / "AllVideoDescriptions.txt").write_bytes(captions.encode())
        (msvd / "test_list.txt").write_text("clip1_0_1\nclip0_0_1.avi\n")
        task = load_msvd(msvd).task
        assert task.queries["query"].tolist() == ["x", "a cat"]
        assert task.corpus["text"].tolist() == ["y", "a cat eats"]

    def test_a_clip_with_one_caption_is_named(self, msvd):
        edit(msvd / "AllVideoDescriptions.txt", "clip1_0_1 text 1", "clip1_0_1 Query 1")
        with pytest.raises(ValueError, match=r"one caption only, however often, of 1 clip: 'clip1_0_1'"):
            load_msvd(msvd)

    def test_splits_by_the_mapping(self, msvd):
        (msvd / "test_list.txt").unlink()
        mapping = "clip0_0_1 vid1970\nclip1_0_1 vid1301\nclip2_0_1 vid1300\nabsent_0_1 vid1\n"
        (msvd / "youtube_mapping.txt").write_text(mapping)
        assert load_msvd(msvd).description.document_ids == ("clip1_0_1", "clip0_0_1")
        assert load_msvd(msvd, split="val").description.document_ids == ("clip2_0_1",)
        with pytest.raises(ValueError, match=r"mapping.txt, line 4: the clip 'absent_0_1' has no caption in"):
            load_msvd(msvd, split="train")

    def test_a_list_comes_before_the_mapping(self, msvd):
        (msvd / "youtube_mapping.txt").write_text("broken")
        assert load_msvd(msvd).description.n_queries == 3

    @pytest.mark.parametrize(
        ("mapping", "message"),
        [
            (
                "clip0_0_1 vid1971\n",
                r"mapping.txt, line 1: expected the name of a clip and vid1 to vid1970; got",
            ),
            ("clip0_0_1 vid0\n", r"line 1: expected the name of a clip and vid1"),
            ("clip0_0_1\n", r"line 1: expected the name of a clip and vid1"),
            ("clip0_0_1 vid1301\nclip1_0_1 vid1301\n", r"line 2: the id 'vid1301' is there already"),
            ("clip0_0_1 vid1301\nclip0_0_1 vid1302\n", r"line 2: the id 'clip0_0_1' is there already"),
            ("clip0_0_1 vid1\n", r"has no clip of the split 'test', whose clips are vid1301 to vid1970"),
        ],
    )
    def test_what_a_mapping_gets_wrong(self, msvd, mapping, message):
        (msvd / "test_list.txt").unlink()
        (msvd / "youtube_mapping.txt").write_text(mapping)
        with pytest.raises(ValueError, match=message):
            load_msvd(msvd)

    def test_without_a_list_it_says_which_file_to_add(self, msvd):
        (msvd / "test_list.txt").unlink()
        match = r"no list of the split 'test': put test_list.txt there, .* or youtube_mapping.txt, .* split='all'"
        with pytest.raises(FileNotFoundError, match=match):
            load_msvd(msvd)
        assert load_msvd(msvd, split="all").description.document_ids == ("clip0_0_1", "clip1_0_1", "clip2_0_1")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("clip0_0_1\nclip0_0_1.avi\n", r"test_list.txt, line 2: the id 'clip0_0_1' is there already"),
            ("clip7_0_1\n", r"test_list.txt, line 1: the clip 'clip7_0_1' has no caption in .*Descriptions.txt"),
            ("\n", r"test_list.txt is empty: there is no clip of the split 'test' in it"),
        ],
    )
    def test_what_a_list_gets_wrong(self, msvd, text, message):
        (msvd / "test_list.txt").write_text(text)
        with pytest.raises(ValueError, match=message):
            load_msvd(msvd)

    def test_a_line_without_a_caption(self, msvd):
        edit(msvd / "AllVideoDescriptions.txt", "clip1_0_1 text 1", "clip1_0_1 ")
        with pytest.raises(ValueError, match=r"Descriptions.txt, line 5: no caption after 'clip1_0_1'"):
            load_msvd(msvd)

    def test_captions_that_are_not_there(self, msvd):
        (msvd / "AllVideoDescriptions.txt").write_text("# nothing\n")
        with pytest.raises(ValueError, match=r"is empty: there is no caption in it"):
            load_msvd(msvd)
        (msvd / "AllVideoDescriptions.txt").unlink()
        with pytest.raises(FileNotFoundError, match=r"no such file; get AllVideoDescriptions.txt and YouTubeClips.tar"):
            datasets.load_msvd(msvd)

    def test_missing_clips_are_counted_and_named(self, msvd):
        (msvd / "YouTubeClips" / "clip2_0_1.avi").unlink()
        match = r"1 of the 3 video files .* are missing: YouTubeClips/clip2_0_1.avi; put them there, or correct .*txt"
        with pytest.raises(FileNotFoundError, match=match):
            load_msvd(msvd)

    def test_a_name_that_leaves_the_folder(self, msvd):
        (msvd / "AllVideoDescriptions.txt").write_text("../../secret a\n../../secret b\n")
        with pytest.raises(ValueError, match=r"'../../secret.avi' leaves the folder"):
            load_msvd(msvd, split="all")

    def test_a_split_that_there_is_not(self, msvd):
        with pytest.raises(ValueError, match="split must be one of 'train', 'val', 'test', 'all'; got 'dev'"):
            load_msvd(msvd, split="dev")
        with pytest.raises(ValueError, match="split must be one of"):
            write_msvd(captioned("video", [clip(1)]), pairs(1), msvd / "x", split="dev")

    def test_no_list_is_written_for_all(self, tmp_path):
        write_msvd(captioned("video", [clip(1)]), pairs(1), tmp_path / "msvd", split="all")
        assert not list((tmp_path / "msvd").glob("*_list.txt"))
        assert load_msvd(tmp_path / "msvd", split="all").description.n_queries == 1

    @pytest.mark.parametrize(
        ("value", "error", "message"),
        [
            (clip(1).astype(float), TypeError, r"expected uint8 frames of shape \(n, height, width, 3\); got float64"),
            (clip(1)[:0], TypeError, r"expected uint8 frames .* got uint8\[0, 32, 48, 3\]"),
            (clip(1)[0], TypeError, r"got uint8\[32, 48, 3\]"),
            ([clip(1)], TypeError, r"row 1: expected a path or frames; got list"),
            ("a.mp4", ValueError, r"clips of this layout are .avi files; got '.*a.mp4'"),
        ],
    )
    def test_clips_that_cannot_be_written(self, tmp_path, value, error, message):
        (tmp_path / "a.mp4").write_bytes(b"a film")
        value = str(tmp_path / value) if isinstance(value, str) else value
        with pytest.raises(error, match=message):
            write_msvd(captioned("video", [clip(1), value]), pairs(2), tmp_path / "msvd")
        assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]

    def test_query_and_text_are_two_captions(self, tmp_path):
        task = captioned("video", [clip(1)], ["a cat"], ["A  Cat"])
        with pytest.raises(ValueError, match="row 0: query and text are one caption"):
            write_msvd(task, pairs(1), tmp_path / "msvd")


class TestNIGHTS:
    def test_what_is_written_comes_back_and_is_read_by_the_encoders_reader(self, nights):
        task, qrels, description = load_nights(nights)
        asked, scenes = (make_scenes(5, random_state=seed, size=32)[0].corpus for seed in (1, 0))
        assert task.corpus["text"].tolist() == scenes["text"].tolist()
        assert qrels == pairs(5)
        assert description.query_ids == description.document_ids == ("0", "1", "2", "3", "4")
        assert description.kinds == {"text+image": 5}
        assert description.name == "NIGHTS, split test"
        assert description.source.endswith("; triplets with fewer than 6 votes left out: 0")
        for given_, found in ((asked["image"], task.queries["query_image"]), (scenes["image"], task.corpus["image"])):
            for picture, path in zip(given_, found, strict=True):
                assert isinstance(path, str)
                assert np.array_equal(open_image(path), picture)

    @given(texts=st.lists(CAPTIONS, min_size=1, max_size=4))
    def test_texts_come_back_whatever_they_hold(self, tmp_path_factory, texts):
        folder = tmp_path_factory.mktemp("nights") / "small"
        pictures = [PIL.Image.new("RGB", (2, 2))] * len(texts)
        task = SearchTask(Items({"query_image": pictures}), Items({"text": texts, "image": pictures}))
        write_nights(task, pairs(len(texts)), folder, split="val")
        assert load_nights(folder, "val").task.corpus["text"].tolist() == texts
        shutil.rmtree(folder)

    def test_pictures_as_paths_and_files(self, tmp_path):
        file = io.BytesIO()
        PIL.Image.new("RGB", (3, 2), "red").save(file, format="JPEG")
        (tmp_path / "a.jpg").write_bytes(file.getvalue())
        task = SearchTask(Items({"query_image": [tmp_path / "a.jpg"]}), Items({"text": ["red"], "image": [file]}))
        write_nights(task, pairs(1), tmp_path / "nights")
        found = load_nights(tmp_path / "nights").task
        assert found.queries["query_image"][0].endswith("ref/000/000.jpg")
        assert open_image(found.corpus["image"][0]).size == (3, 2)

    def test_the_document_is_the_picture_with_more_votes(self, nights):
        rows = list(csv.DictReader((nights / "data.csv").read_text().splitlines()))
        documents = load_nights(nights).task.corpus["image"]
        assert {(row["left_vote"], row["right_vote"]) for row in rows} == {("1", "0"), ("0", "1")}
        for row, path in zip(rows, documents, strict=True):
            assert path == str(nights / row["left_path" if row["left_vote"] == "1" else "right_path"])

    def test_only_pictures_that_are_used_need_to_be_there(self, nights):
        used = set(load_nights(nights).task.corpus["image"])
        others = [path for path in (nights / "distort").rglob("*.png") if str(path) not in used]
        assert len(others) == 5
        for path in others:
            path.unlink()
        assert load_nights(nights).description.n_queries == 5

    def test_triplets_with_few_votes_are_left_out_and_counted(self, nights):
        edit(nights / "data.csv", "\n1,0,1,6,", "\n1,0.5,0.5,5,")
        edit(nights / "data.csv", "\n3,0,1,6,", "\n3,0,1,9.0,")
        description = load_nights(nights).description
        assert description.query_ids == ("0", "2", "3", "4")
        assert description.source.endswith("; triplets with fewer than 6 votes left out: 1")

    def test_titles_of_a_file_or_a_mapping_take_the_place_of_prompts(self, nights, tmp_path):
        titles = {row: f"Title {row}" for row in range(7)}
        (tmp_path / "titles.jsonl").write_text(
            "".join(f"{json.dumps({'id': row, 'title': title})}\n" for row, title in titles.items())
        )
        edit(nights / "data.csv", "prompt", "unused")
        for given_ in (titles, {str(row): title for row, title in titles.items()}, str(tmp_path / "titles.jsonl")):
            found = load_nights(nights, titles=given_).task.corpus["text"].tolist()
            assert found == [f"Title {row}" for row in range(5)]

    @pytest.mark.parametrize(
        ("titles", "error", "message"),
        [
            ({0: "a", 2: " "}, ValueError, r"no title in titles for 4 triplets: '1', '2', '3', '4'"),
            (["a"], TypeError, r"titles must be a path, or a dict of id to str; got list"),
            (dict.fromkeys(range(5), 7), TypeError, r"titles must be str; got others for 5 triplets: '0'"),
            (
                '{"id": 0, "title": "a"}\n{"id": "0", "title": "b"}\n',
                ValueError,
                r"line 2: the id '0' is there",
            ),
            ('{"id": 0, "title": "a"}\n', ValueError, r"no title in .*titles.jsonl for 4 triplets: '1'"),
            ('{"id": 0, "title": 7}\n', ValueError, r"line 1: 'title' must be a string or null"),
            ("{\n", ValueError, r"titles.jsonl, line 1: no valid JSON"),
        ],
    )
    def test_what_titles_get_wrong(self, nights, tmp_path, titles, error, message):
        if isinstance(titles, str):
            (tmp_path / "titles.jsonl").write_text(titles)
            titles = tmp_path / "titles.jsonl"
        with pytest.raises(error, match=message):
            load_nights(nights, titles=titles)

    def test_a_draw_is_the_same_again_and_another_by_another_seed(self, nights):
        first, again, other = (load_nights(nights, n=3, random_state=seed) for seed in (0, 0, 2))
        assert first.description.query_ids == again.description.query_ids != other.description.query_ids
        assert list(first.description.query_ids) == sorted(first.description.query_ids)
        assert first.description.name == "NIGHTS, split test, 3 of 5 drawn"
        assert load_nights(nights, n=5).description.query_ids == load_nights(nights).description.query_ids

    def test_a_draw_needs_no_picture_and_no_title_of_the_others(self, nights):
        drawn = load_nights(nights, n=2).description.query_ids
        for row in {"0", "1", "2", "3", "4"} - set(drawn):
            (nights / "ref" / "000" / f"00{row}.png").unlink()
        titles = {row: f"Title {row}" for row in drawn}
        assert load_nights(nights, n=2, titles=titles).task.corpus["text"].tolist() == list(titles.values())
        match = r"3 of the 10 image files .* are missing: ref/000/.*; put them there, or correct .*data.csv"
        with pytest.raises(FileNotFoundError, match=match):
            load_nights(nights)

    @pytest.mark.parametrize(
        ("n", "message"),
        [
            (6, "n=6 is larger than the number of triplets, 5"),
            (0, "n must be a whole number of at least 1"),
            (2.0, "n must be a whole number"),
        ],
    )
    def test_a_number_that_cannot_be_drawn(self, nights, n, message):
        with pytest.raises(ValueError, match=message):
            load_nights(nights, n=n)

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("\n1,0,1,6,", "\n1,1,1,6,", r"data.csv, line 3: left_vote and right_vote are both 1"),
            ("\n1,0,1,6,", "\n1,no,1,6,", r"data.csv, line 3: left_vote is 'no'; expected a number of at least 0"),
            ("\n1,0,1,6,", "\n1,0,-1,6,", r"data.csv, line 3: right_vote is '-1'"),
            ("\n1,0,1,6,", "\n1,0,1,nan,", r"data.csv, line 3: votes is 'nan'"),
            ("\n1,0,1,6,", "\n0,0,1,6,", r"data.csv, line 3: the id '0' is there already, at .*line 2"),
            ("\n1,0,1,6,", "\n1,0,1,", r"data.csv, line 3: 9 columns, but the header has 10"),
            ("ref/000/001.png", "../001.png", r"data.csv, line 3: '../001.png' leaves the folder"),
            ("distort/000/001_1.png", "/etc/passwd", r"data.csv, line 3: '/etc/passwd' leaves the folder"),
            ("prompt", "caption", r"data.csv, line 1: expected a header with .*'prompt'"),
            (",6,", ",5,", r"none of the 5 triplets of the split 'test' has 6 votes"),
            ("id,left", "id,x\n", r"data.csv, line 1: expected a header"),
        ],
    )
    def test_what_the_table_gets_wrong(self, nights, old, new, message):
        edit(nights / "data.csv", old, new)
        with pytest.raises(ValueError, match=message):
            load_nights(nights)

    def test_a_blank_prompt(self, nights):
        prompt = load_nights(nights).task.corpus["text"][2]
        edit(nights / "data.csv", prompt, " ")
        with pytest.raises(ValueError, match="no prompt for 1 triplet: '2'"):
            load_nights(nights)

    def test_a_split_that_the_table_has_not(self, nights):
        edit(nights / "data.csv", "png,test", "png,train")
        with pytest.raises(ValueError, match=r"split must be one of 'train', which .*data.csv has; got 'test'"):
            load_nights(nights)

    def test_no_table(self, nights):
        (nights / "data.csv").unlink()
        with pytest.raises(FileNotFoundError, match=r"data.csv: no such file; get https://.*nights.zip"):
            datasets.load_nights(nights)


def clotho_of(folder, split, n):
    """A folder with the table and the sounds of a split, of n rows."""
    (folder / split).mkdir(parents=True)
    for row in range(n):
        (folder / split / f"{row}.wav").write_bytes(b"not opened")
    lines = ["file_name,caption_1,caption_2,caption_3,caption_4,caption_5"]
    lines += [f"{row}.wav,query {row},text {row},three,four,the fifth one" for row in range(n)]
    (folder / f"clotho_captions_{split}.csv").write_text("\n".join(lines))
    return folder


def msvd_of(folder, split, n):
    """A folder with the captions and the clips of a split, of n rows, and its list."""
    (folder / "YouTubeClips").mkdir(parents=True)
    for row in range(n):
        (folder / "YouTubeClips" / f"c{row}.avi").write_bytes(b"not opened")
    lines = [f"c{row} query {row}\nc{row} text {row}\n" for row in range(n)]
    (folder / "AllVideoDescriptions.txt").write_text("".join(lines))
    (folder / f"{split}_list.txt").write_text("".join(f"c{row}\n" for row in range(n)))
    return folder


def nights_of(folder, n):
    """A folder with the table of n triplets, all of one picture, of which two are for tests."""
    folder.mkdir()
    (folder / "a.png").write_bytes(b"not opened")
    lines = ["id,left_vote,right_vote,votes,ref_path,left_path,right_path,split,prompt,is_imagenet"]
    lines += [f"{i},1,0,{5 + i % 2},a.png,a.png,a.png,{'test' if i < 4 else 'train'},a,False" for i in range(n)]
    (folder / "data.csv").write_text("\n".join(lines))
    return folder


def cut(path, end):
    """What is left of a file when its copy stops before the last place of some text."""
    content = path.read_text()
    path.write_text(content[: content.rindex(end)])


WAY_OUT = r": is the copy whole\? check_counts=False takes other data in this layout"


class TestPublishedCounts:
    @pytest.mark.parametrize(
        ("split", "n"),
        [
            ("development", 3839),
            ("development", 3840),
            ("validation", 1045),
            ("validation", 1046),
            ("evaluation", 1045),
        ],
    )
    def test_both_versions_of_clotho_pass(self, tmp_path, split, n):
        assert datasets.load_clotho(clotho_of(tmp_path, split, n), split).description.n_documents == n

    @pytest.mark.parametrize(
        ("split", "n", "known"),
        [("validation", 1044, "1045 or 1046"), ("validation", 1047, "1045 or 1046"), ("evaluation", 1046, "1045")],
    )
    def test_other_counts_of_clotho_do_not(self, tmp_path, split, n, known):
        clotho_of(tmp_path, split, n)
        match = rf"holds {n} sounds of the split '{split}', but Clotho was published with {known}{WAY_OUT}"
        with pytest.raises(ValueError, match=match):
            datasets.load_clotho(tmp_path, split)
        assert load_clotho(tmp_path, split).description.n_documents == n

    def test_a_table_of_clotho_that_was_cut_within_a_caption(self, tmp_path):
        clotho_of(tmp_path, "validation", 1045)
        cut(tmp_path / "clotho_captions_validation.csv", " fifth one\n900.wav")
        with pytest.raises(ValueError, match=rf"holds 900 sounds of the split 'validation', but .*{WAY_OUT}"):
            datasets.load_clotho(tmp_path)

    @pytest.mark.parametrize(("split", "n"), [("train", 1200), ("val", 100), ("test", 670)])
    def test_the_lists_of_msvd(self, tmp_path, split, n):
        msvd_of(tmp_path, split, n)
        assert datasets.load_msvd(tmp_path, split).description.n_documents == n
        cut(tmp_path / f"{split}_list.txt", "c90\n")
        match = rf"holds 90 clips of the split '{split}', but MSVD was published with {n}{WAY_OUT}"
        with pytest.raises(ValueError, match=match):
            datasets.load_msvd(tmp_path, split)
        assert load_msvd(tmp_path, split).description.n_documents == 90

    def test_a_mapping_of_msvd_that_was_cut(self, tmp_path):
        msvd_of(tmp_path, "test", 670)
        (tmp_path / "test_list.txt").unlink()
        mapping = "".join(f"c{row} vid{1301 + row}\n" for row in range(670))
        (tmp_path / "youtube_mapping.txt").write_text(mapping)
        assert datasets.load_msvd(tmp_path).description.n_documents == 670
        cut(tmp_path / "youtube_mapping.txt", "c669")
        with pytest.raises(ValueError, match="holds 669 clips of the split 'test', but MSVD was published with 670"):
            datasets.load_msvd(tmp_path)

    def test_all_clips_of_msvd_are_of_any_number(self, msvd):
        assert datasets.load_msvd(msvd, "all").description.n_documents == 3

    def test_the_table_of_nights_is_counted_with_all_splits_and_votes(self, tmp_path):
        folder = nights_of(tmp_path / "nights", 20_019)
        assert datasets.load_nights(folder).description.n_documents == 2
        cut(folder / "data.csv", "20000,")
        match = rf"data.csv holds 20000 triplets, but NIGHTS was published with 20019{WAY_OUT}"
        for arguments in ({}, {"n": 1}, {"split": "train"}):
            with pytest.raises(ValueError, match=match):
                datasets.load_nights(folder, **arguments)
        assert load_nights(folder, n=1).description.n_documents == 1

    @pytest.mark.parametrize("load", [datasets.load_clotho, datasets.load_msvd, datasets.load_nights])
    def test_the_switch_is_true_or_false(self, tmp_path, load):
        with pytest.raises(TypeError, match="check_counts must be True or False; got 'no'"):
            load(tmp_path, check_counts="no")


WRITERS = {"audio": (write_clotho, tone(200)), "video": (write_msvd, clip(1))}


class TestPairs:
    """What all three writers ask of a task."""

    @pytest.mark.parametrize("role", WRITERS)
    @pytest.mark.parametrize(
        ("qrels", "message"),
        [
            ([{1: 1}, {0: 1}], r"qrels\[i\] == \{i: 1\}; qrels say otherwise in 2 rows \(0, 1\)"),
            ([{0: 1}, {1: 2}], r"qrels say otherwise in 1 row \(1\)"),
            ([{0: 1}, {}], r"qrels say otherwise in 1 row \(1\)"),
        ],
    )
    def test_each_query_asks_for_its_own_document(self, tmp_path, role, qrels, message):
        write, value = WRITERS[role]
        with pytest.raises(ValueError, match=message):
            write(captioned(role, [value, value]), qrels, tmp_path / "x")

    @pytest.mark.parametrize("role", WRITERS)
    def test_a_judgement_of_0_says_nothing(self, tmp_path, role):
        write, value = WRITERS[role]
        write(captioned(role, [value, value]), [{0: 1, 1: 0}, {1: 1.0}], tmp_path / "x")

    @pytest.mark.parametrize("role", WRITERS)
    def test_a_folder_that_is_there_is_left_alone(self, tmp_path, role):
        write, value = WRITERS[role]
        with pytest.raises(FileExistsError, match="is there already"):
            write(captioned(role, [value]), pairs(1), tmp_path)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("role", WRITERS)
    def test_parts_are_all_there(self, tmp_path, role):
        write, value = WRITERS[role]
        with pytest.raises(ValueError, match=rf"role '{role}': .* a part in every row; none in 1 row \(1\)"):
            write(captioned(role, [value, None]), pairs(2), tmp_path / "x")
        lone = SearchTask(Items({"query": ["a"]}), Items({"text": ["b"]}))
        with pytest.raises(ValueError, match=rf"documents of this layout have the role '{role}'; got 'text'"):
            write(lone, pairs(1), tmp_path / "x")
        more = SearchTask(Items({"query": ["a"]}), Items({"text": ["b", "c"], role: [value, value]}))
        with pytest.raises(ValueError, match="as many documents as queries; got 2 documents and 1 queries"):
            write(more, pairs(1), tmp_path / "x")

    @pytest.mark.parametrize("role", WRITERS)
    def test_a_path_that_is_not_there(self, tmp_path, role):
        with pytest.raises(FileNotFoundError):
            WRITERS[role][0](captioned(role, [tmp_path / "none.avi"]), pairs(1), tmp_path / "x")
        assert list(tmp_path.iterdir()) == []


def test_a_wav_of_another_program_is_read_from_the_loaded_path(clotho):
    samples = (tone(440, 44100)[0] * 20000).astype(np.int16)
    scipy.io.wavfile.write(clotho / "validation" / "d0.wav", 44100, samples)
    found = open_audio(load_clotho(clotho).task.corpus["audio"][0], 44100)
    assert np.abs(found - samples / 2**15).max() < 1e-6


class TestHelp:
    def test_sounds_may_lie_in_a_folder_of_the_split_within_that_of_the_archive(self, clotho):
        (clotho / "clotho_audio_validation").mkdir()
        (clotho / "validation").rename(clotho / "clotho_audio_validation" / "validation")
        assert len(open_audio(load_clotho(clotho).task.corpus["audio"][0], 8000)) == 800

    def test_archives_beside_what_is_missing_are_to_be_unpacked(self, clotho, msvd, nights):
        for folder, name, archive, load in (
            (clotho, "validation", "clotho_audio_validation.7z", load_clotho),
            (msvd, "YouTubeClips", "YouTubeClips.tar", load_msvd),
            (nights, "ref", "ref.zip", load_nights),
        ):
            shutil.rmtree(folder / name)
            (folder / archive).write_bytes(b"packed")
            with pytest.raises(FileNotFoundError, match=f"; unpack {folder / archive}"):
                load(folder)

    @pytest.mark.parametrize("name", ["clotho", "msvd", "nights"])
    def test_a_tilde_is_the_home_folder(self, name, request, monkeypatch):
        folder = request.getfixturevalue(name)
        monkeypatch.setenv("HOME", str(folder.parent))
        data = getattr(datasets, f"load_{name}")(f"~/{name}", check_counts=False)
        assert f"read from {folder};" in data.description.source
        getattr(datasets, f"write_{name}")(data.task, data.qrels, "~/copy")
        assert (folder.parent / "copy").is_dir()
