"""Vectors kept on disk: the same as without, whatever is killed, damaged, changed or gone."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import safetensors.numpy
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_encoders_vlm2vec import qwen

from benchmarks import _content
from benchmarks._embeddings import encoded
from grclip import Items, SearchTask
from grclip.datasets import make_scenes, mix_kinds
from grclip.encoders import OpenCLIPEncoder, VLM2VecEncoder, release_models, toy_encoder
from grclip.encoders.open_clip import PACKAGED

ROOT = Path(__file__).parents[1]
WORDS = ["a red circle", "a blue square", "two green stars", "", "a circle above a square", "a yellow triangle"]


@pytest.fixture(scope="module")
def scenes():
    """A task of 30 queries and 30 documents of three kinds."""
    task = make_scenes(30, random_state=0)[0]
    return SearchTask(task.queries, mix_kinds(task.corpus, random_state=0))


@pytest.fixture(scope="module")
def encoder():
    return toy_encoder()


@pytest.fixture
def checkpoint(tmp_path):
    """A copy of the toy checkpoint, without its checksums, as a model in a folder of its own."""
    folder = shutil.copytree(PACKAGED["toy"], tmp_path / "toy")
    (folder / "SHA256SUMS").unlink()
    return folder


@pytest.fixture
def pictures(tmp_path):
    """Twelve PNG files, as paths."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.png" for i in range(12)]
    for path in paths:
        PIL.Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    return paths


def assert_same(found, expected, tolerance=1e-6):
    """Items or tasks with the same roles, encoder, missing rows and vectors."""
    assert type(found) is type(expected)
    if isinstance(found, SearchTask):
        assert_same(found.queries, expected.queries, tolerance)
        assert_same(found.corpus, expected.corpus, tolerance)
        return
    assert (found.roles, found.encoder) == (expected.roles, expected.encoder)
    for role in found:
        assert isinstance(found[role], np.ndarray)
        assert found[role].dtype == np.float32
        np.testing.assert_allclose(found[role], expected[role], rtol=0, atol=tolerance)


def batches(folder):
    """Files of vectors below a folder, with what tells whether they were written again."""
    return {path: path.stat().st_ino for path in Path(folder).rglob("*.safetensors")}


def written(folder, before):
    """How many files of vectors are new, or were written again."""
    return sum(before.get(path) != number for path, number in batches(folder).items())


def leftovers(folder):
    return list(Path(folder).rglob("*.part"))


class TestVectors:
    def test_items_that_fit_in_a_batch_are_bitwise_those_of_transform(self, encoder, scenes, tmp_path):
        assert_same(encoded(encoder, scenes.corpus, tmp_path), encoder.transform(scenes.corpus), tolerance=0)
        assert len(batches(tmp_path)) == 1

    @pytest.mark.parametrize("rows", [1, 7, 30])
    def test_a_task_has_the_vectors_of_transform_now_and_later(self, encoder, scenes, tmp_path, rows):
        first = encoded(encoder, scenes, tmp_path, rows=rows)
        assert_same(first, encoder.transform(scenes))
        before = batches(tmp_path)
        assert len(before) == 2 * -(-30 // rows)
        assert_same(encoded(encoder, scenes, tmp_path, rows=rows), first, tolerance=0)
        assert not written(tmp_path, before)

    def test_batches_without_a_part_and_roles_without_a_row(self, encoder, tmp_path):
        items = Items({"image": [None] * 6, "text": [None, None, "a red circle", None, None, ""]})
        found = encoded(encoder, items, tmp_path, rows=2)
        assert_same(found, encoder.transform(items))
        assert found.roles == ("image", "text")
        assert np.isnan(found["image"]).all()

    def test_arrays_come_out_whatever_the_output_of_the_encoder(self, scenes, tmp_path):
        found = encoded(toy_encoder(output="torch"), scenes, tmp_path)
        assert_same(found, toy_encoder().transform(scenes))
        assert found.corpus["text"].flags.writeable

    @given(
        rows=st.integers(1, 12),
        batch_size=st.integers(1, 12),
        texts=st.lists(st.sampled_from([*WORDS, None]), min_size=1, max_size=12),
    )
    @example(rows=2, batch_size=1, texts=[None, None, None])
    @settings(max_examples=30)
    def test_any_split_gives_the_same(self, rows, batch_size, texts):
        encoder = toy_encoder(batch_size=batch_size)
        items = Items({"text": texts, "title": texts[::-1]})
        expected = encoder.transform(items)
        with tempfile.TemporaryDirectory() as folder:
            for again in range(2):
                assert_same(encoded(encoder, items, folder, rows=rows), expected)
                assert not leftovers(folder), again

    def test_any_name_of_a_role_will_do(self, tmp_path):
        items = Items({"__metadata__": ["a"], 'it\'s "so"': ["b"]})
        encoder = toy_encoder(modalities=dict.fromkeys(items, "text"))
        for _ in range(2):
            assert_same(encoded(encoder, items, tmp_path), encoder.transform(items))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny VLM2Vec checkpoint with random weights."""
    folder = tmp_path_factory.mktemp("qwen")
    qwen(folder)
    return folder


class TestJoint:
    @pytest.fixture
    def items(self, pictures):
        texts = ["a", "b", None, None, None, None, "c", None, "d"]
        images = [None, None, None, None, pictures[0], pictures[1], pictures[2], None, None]
        return Items({"image": images, "text": texts})

    @pytest.mark.parametrize("rows", [1, 2, 3, 9])
    def test_batches_of_different_roles_are_put_together(self, folder, items, tmp_path, rows):
        encoder = VLM2VecEncoder(str(folder))
        expected = encoder.transform(items)
        assert expected.roles == ("image", "text", "image+text")
        for _ in range(2):
            assert_same(encoded(encoder, items, tmp_path / "kept", rows=rows), expected, tolerance=1e-5)

    @pytest.mark.parametrize("rows", [slice(2, 4), slice(6, 7), slice(2, 7), slice(0, 2)])
    def test_roles_without_a_row_are_those_that_transform_drops(self, folder, items, tmp_path, rows):
        encoder = VLM2VecEncoder(str(folder))
        found = encoded(encoder, items[rows], tmp_path / "kept", rows=1)
        assert_same(found, encoder.transform(items[rows]), tolerance=1e-5)

    def test_prompts_and_joint_decide_vectors(self, folder, items, tmp_path):
        kept = tmp_path / "kept"
        for options in ({}, {"prompts": {"text": "say {}"}}, {"prompts": {"text": "tell {}"}}, {"joint": False}):
            encoder = VLM2VecEncoder(str(folder), **options)
            before = batches(kept)
            assert_same(encoded(encoder, items, kept), encoder.transform(items), tolerance=1e-5)
            assert written(kept, before) == 1
        assert len(list(kept.iterdir())) == 4

    def test_errors_and_warnings_of_joint_roles_name_true_rows(self, folder, items, tmp_path):
        broken = Items({"text": items["text"], "image": [*items["image"][:6], "gone.png", None, None]})
        with pytest.raises(ValueError, match=r"role 'text\+image', row 6: no such file"):
            encoded(VLM2VecEncoder(str(folder)), broken, tmp_path / "kept", rows=2)
        with pytest.warns(UserWarning, match=r"^1 part cannot be read.*role 'text\+image', row 6: no such file"):
            encoded(VLM2VecEncoder(str(folder), on_error="skip"), broken, tmp_path / "kept", rows=2)


SCRIPT = """
import os, resource, sys, time
import numpy as np
from grclip import Items
from grclip.encoders import OpenCLIPEncoder
from benchmarks._embeddings import encoded

folder, log, out, pause, limit = sys.argv[1:]

class Slow(OpenCLIPEncoder):
    def transform(self, X):
        with open(log, "a") as file:
            print(X["text"][0], file=file)
        time.sleep(float(pause))
        return super().transform(X)

if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
found = encoded(Slow("toy"), Items({"text": [f"text {i}" for i in range(40)]}), folder, rows=4)
np.save(out, found["text"])
"""


@pytest.fixture
def start(tmp_path):
    """Starts the script above in a process of its own, which notes in a log what it encodes."""
    (tmp_path / "slow.py").write_text(SCRIPT)
    running = []

    def start(log, out="out.npy", pause=0.1, limit=0):
        command = [sys.executable, str(tmp_path / "slow.py"), str(tmp_path / "kept"), str(log), str(tmp_path / out)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        arguments = [*command, str(pause), str(limit)]
        running.append(subprocess.Popen(arguments, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


def lines(log):
    return log.read_text().splitlines() if log.exists() else []


@pytest.fixture(scope="module")
def expected():
    return toy_encoder().transform(Items({"text": [f"text {i}" for i in range(40)]}))["text"]


class TestKilled:
    def test_no_finished_batch_is_encoded_twice(self, start, tmp_path, expected):
        log, in_flight = tmp_path / "log", set()
        for more in (1, 4):
            process, done = start(log), len(lines(log))
            while len(lines(log)) < done + more:
                assert process.poll() is None, process.communicate()
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            in_flight.add(lines(log)[-1])
        assert 0 < len(batches(tmp_path / "kept")) < 10
        process = start(log)
        assert process.wait(120) == 0
        found = Counter(lines(log))
        assert set(found) == {f"text {i}" for i in range(0, 40, 4)}
        assert {text for text, n in found.items() if n > 1} <= in_flight
        assert np.abs(np.load(tmp_path / "out.npy") - expected).max() < 1e-6
        before = len(lines(log))
        assert start(log).wait(120) == 0
        assert len(lines(log)) == before, "all of it is read"

    def test_two_at_once_disturb_nobody(self, start, tmp_path, expected):
        processes = [start(tmp_path / f"log{i}", f"out{i}.npy", pause=0.02 * i) for i in range(2)]
        for i, process in enumerate(processes):
            assert process.wait(120) == 0, process.communicate()
            assert np.abs(np.load(tmp_path / f"out{i}.npy") - expected).max() < 1e-6
        assert len(batches(tmp_path / "kept")) == 10
        assert not leftovers(tmp_path)

    def test_a_full_disk_leaves_nothing_half_written(self, start, tmp_path):
        process = start(tmp_path / "log", limit=2000)  # a file of a batch is longer, the note is not
        error = process.communicate(timeout=120)[1]
        assert process.returncode == 1
        assert "cannot keep vectors in" in error
        assert "File too large; make room there, or choose another folder" in error
        assert not batches(tmp_path)
        assert not leftovers(tmp_path)

    def test_what_killed_runs_left_is_removed_but_not_what_another_is_writing(self, encoder, scenes, tmp_path):
        encoded(encoder, scenes.queries, tmp_path)
        (folder,) = tmp_path.iterdir()
        old, young = folder / ".a.safetensors.0.part", folder / ".b.safetensors.1.part"
        for path in (old, young):
            path.write_bytes(b"half")
        os.utime(old, (time.time() - 7200,) * 2)
        encoded(encoder, scenes.corpus, tmp_path)
        assert leftovers(tmp_path) == [young]


class TestDamage:
    @pytest.mark.parametrize("length", [0, 5, 8, 100, 400, -1])
    def test_a_truncated_file_is_told_of_and_encoded_again(self, encoder, scenes, tmp_path, length):
        first = encoded(encoder, scenes.queries, tmp_path, rows=16)
        before = batches(tmp_path)
        path = next(iter(before))
        path.write_bytes(path.read_bytes()[:length])
        with pytest.warns(UserWarning, match=rf"{path.name} is damaged .*; its rows are encoded again") as told:
            found = encoded(encoder, scenes.queries, tmp_path, rows=16)
        assert len(told) == 1
        assert_same(found, first)
        assert written(tmp_path, before) == 1
        assert_same(encoded(encoder, scenes.queries, tmp_path, rows=16), found, tolerance=0)

    def test_any_damaged_byte_is_found(self, encoder, tmp_path):
        items = Items({"text": ["a red circle"]})
        first = encoded(encoder, items, tmp_path)
        (path,) = batches(tmp_path)
        content = path.read_bytes()
        for at in range(0, len(content), 3):
            path.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                assert_same(encoded(encoder, items, tmp_path), first)
            assert len(told) == 1 or content[at : at + 1] == b" ", "only spaces may turn into others"

    def test_a_file_under_the_name_of_another_is_no_vector_of_its(self, encoder, scenes, tmp_path):
        first = encoded(encoder, scenes.queries, tmp_path, rows=15)
        a, b = batches(tmp_path)
        shutil.copy(a, b)
        with pytest.warns(UserWarning, match=f"{b.name} is damaged"):
            assert_same(encoded(encoder, scenes.queries, tmp_path, rows=15), first)

    def test_a_damaged_note_is_written_anew(self, encoder, scenes, tmp_path):
        encoded(encoder, scenes.queries, tmp_path)
        (note,) = tmp_path.rglob("encoder.json")
        note.write_text("{")
        encoded(encoder, scenes, tmp_path)
        found = json.loads(note.read_text())
        assert found["encoder"] == "grclip.encoders.open_clip.OpenCLIPEncoder"
        assert found["parameters"] == {
            "model_name": "toy", "pretrained": None, "precision": "fp32", "modalities": None, "on_error": "raise"
        }  # fmt: skip
        assert "Delete this folder to encode anew" in found["about"]
        assert note.parent.name.startswith("OpenCLIPEncoder-toy-")


class TestModel:
    def test_what_is_kept_needs_no_model(self, checkpoint, scenes, tmp_path):
        kept, name = tmp_path / "kept", f"local-dir:{checkpoint}"
        first = encoded(OpenCLIPEncoder(name), scenes, kept, rows=8)
        shutil.rmtree(checkpoint)
        release_models()
        assert_same(encoded(OpenCLIPEncoder(name), scenes, kept, rows=8), first, tolerance=0)
        with pytest.raises(FileNotFoundError, match="no such folder"):
            encoded(OpenCLIPEncoder(name), Items({"text": ["new"]}), kept)
        with pytest.raises(FileNotFoundError, match="no such folder"):
            encoded(OpenCLIPEncoder(name, precision="bf16"), scenes, kept, rows=8)
        (note,) = kept.rglob("encoder.json")
        note.write_text("[]")
        with pytest.raises(FileNotFoundError, match="no such folder"):
            encoded(OpenCLIPEncoder(name), scenes, kept, rows=8)

    def test_a_folder_that_cannot_be_written_serves_what_it_has(self, encoder, scenes, tmp_path):
        first = encoded(encoder, scenes, tmp_path)
        for path in [*tmp_path.rglob("*"), tmp_path]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        try:
            assert_same(encoded(encoder, scenes, tmp_path), first, tolerance=0)
            assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        finally:
            for path in [tmp_path, *tmp_path.rglob("*")]:
                path.chmod(0o755)

    def test_other_weights_in_the_same_folder_are_another_model(self, checkpoint, scenes, tmp_path):
        kept, encoder = tmp_path / "kept", OpenCLIPEncoder(f"local-dir:{checkpoint}")
        first = encoded(encoder, scenes.queries, kept)
        change_weights(checkpoint)
        found = encoded(encoder, scenes.queries, kept)
        assert found.encoder != first.encoder
        assert_same(found, encoder.transform(scenes.queries))

    def test_a_model_that_changed_unseen_is_an_error_that_says_what_to_delete(self, checkpoint, scenes, tmp_path):
        kept, name = tmp_path / "kept", f"local-dir:{checkpoint}"
        first = encoded(OpenCLIPEncoder(name), scenes.queries[:8], kept, rows=8)
        times = {path: path.stat().st_mtime_ns for path in checkpoint.rglob("*")}
        change_weights(checkpoint)
        for path, at in times.items():
            os.utime(path, ns=(at, at))
        release_models()
        with pytest.raises(
            ValueError, match=r"holds vectors of the model 'open_clip@.*, but .* delete .*kept"
        ) as error:
            encoded(OpenCLIPEncoder(name), scenes, kept, rows=8)
        assert first.encoder in str(error.value)
        (folder,) = kept.iterdir()
        assert f"delete {folder} " in str(error.value)
        shutil.rmtree(folder)
        assert encoded(OpenCLIPEncoder(name), scenes, kept, rows=8).encoder != first.encoder


def change_weights(checkpoint):
    """Other numbers in the file of weights, which keeps its size."""
    path = checkpoint / "open_clip_model.safetensors"
    content, weights = bytearray(path.read_bytes()), safetensors.numpy.load_file(path)
    old = weights["positional_embedding"].tobytes()
    at = content.index(old)
    content[at : at + len(old)] = (1.5 * weights["positional_embedding"]).tobytes()
    path.write_bytes(content)


class TestNames:
    def test_only_the_batch_of_a_changed_text_is_encoded(self, encoder, tmp_path):
        texts = [f"text {i}" for i in range(12)]
        encoded(encoder, Items({"text": texts}), tmp_path, rows=4)
        for change in ("another", "", None):
            before = batches(tmp_path)
            items = Items({"text": [*texts[:5], change, *texts[6:]]})
            assert_same(encoded(encoder, items, tmp_path, rows=4), encoder.transform(items))
            assert written(tmp_path, before) == 1

    def test_a_replaced_picture_is_encoded_anew(self, encoder, pictures, tmp_path):
        items, kept = Items({"image": [str(path) for path in pictures]}), tmp_path / "kept"
        first = encoded(encoder, items, kept, rows=4)
        before = batches(kept)
        size = pictures[5].stat().st_size
        shutil.copy(pictures[0], pictures[5])
        with open(pictures[5], "ab") as file:
            file.write(bytes(max(0, size - pictures[5].stat().st_size)))
        os.utime(pictures[5], ns=(1, 1))
        found = encoded(encoder, items, kept, rows=4)
        assert written(kept, before) == 1
        assert np.abs(found["image"][5] - first["image"][0]).max() < 1e-6
        assert np.abs(found["image"][5] - first["image"][5]).max() > 1e-3

    def test_a_file_that_was_missing_and_comes_is_encoded(self, pictures, tmp_path):
        encoder, gone = toy_encoder(on_error="skip"), tmp_path / "later.png"
        items = Items({"image": [pictures[0], gone]})
        with pytest.warns(UserWarning, match="no such file"):
            assert np.isnan(encoded(encoder, items, tmp_path / "kept")["image"][1]).all()
        shutil.copy(pictures[1], gone)
        assert np.isfinite(encoded(encoder, items, tmp_path / "kept")["image"]).all()

    def test_pictures_in_memory_count_by_their_content(self, encoder, pictures, tmp_path):
        kept = tmp_path / "kept"

        def items():
            opened = [io.BytesIO(pictures[0].read_bytes()), pictures[1].read_bytes(), PIL.Image.open(pictures[2])]
            return Items({"image": [*opened, np.asarray(PIL.Image.open(pictures[3])), torch.ones(3, 32, 32)]})

        size = encoder._model().size
        values = [*items()["image"][:4], torch.ones(3, *size)]
        first = encoded(encoder, Items({"image": values}), kept)
        assert_same(first, encoder.transform(Items({"image": values})))
        before = batches(kept)
        again = [*items()["image"][:4], torch.ones(3, *size)]
        assert_same(encoded(encoder, Items({"image": again}), kept), first, tolerance=0)
        assert not written(kept, before), "equal content, whatever the objects"
        for i, other in enumerate([io.BytesIO(pictures[5].read_bytes()), pictures[5].read_bytes(),
                                   PIL.Image.open(pictures[5]), np.asarray(PIL.Image.open(pictures[5])),
                                   torch.zeros(3, *size)]):  # fmt: skip
            before = batches(kept)
            changed = Items({"image": [*again[:i], other, *again[i + 1 :]]})
            assert_same(encoded(encoder, changed, kept), encoder.transform(changed))
            assert written(kept, before) == 1

    def test_parameters_that_decide_vectors_and_those_that_do_not(self, encoder, scenes, tmp_path):
        first = encoded(encoder, scenes.queries, tmp_path)
        before = batches(tmp_path)
        options = {"device": "cpu", "batch_size": 3, "num_workers": 1, "output": "torch", "progress": False}
        assert_same(encoded(toy_encoder(**options), scenes.queries, tmp_path), first, tolerance=0)
        assert not written(tmp_path, before)
        for option in ({"precision": "bf16"}, {"on_error": "skip"}, {"modalities": {"sketch": "image"}}):
            before = batches(tmp_path)
            encoded(toy_encoder(**option), scenes.queries, tmp_path)
            assert written(tmp_path, before) == 1, option

    def test_one_string_is_another_value_in_another_role(self, encoder, pictures, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        kept = tmp_path / "kept"
        for role in ("text", "image", "title"):
            items = Items({role: [pictures[0].name]})
            assert_same(encoded(encoder, items, kept), encoder.transform(items))
        assert len(batches(kept)) == 3

    def test_rows_that_moved_are_found(self, encoder, tmp_path):
        texts = [f"text {i}" for i in range(8)]
        encoded(encoder, Items({"text": texts}), tmp_path, rows=4)
        before = batches(tmp_path)
        items = Items({"text": texts[4:] + texts[:4]})
        assert_same(encoded(encoder, items, tmp_path, rows=4), encoder.transform(items))
        assert not written(tmp_path, before)

    def test_no_two_values_are_taken_for_one(self, pictures, tmp_path):
        grey = PIL.Image.new("L", (2, 2), 1)
        palette = PIL.Image.new("P", (2, 2), 1)
        palette.putpalette([0, 0, 0, 255, 0, 0])
        other = PIL.Image.new("P", (2, 2), 1)
        other.putpalette([0, 0, 0, 0, 255, 0])
        clear = other.copy()
        clear.info["transparency"] = 1
        turned = PIL.Image.new("L", (2, 2), 1)
        turned.getexif()[0x0112] = 6
        broken = PIL.Image.open(io.BytesIO(pictures[0].read_bytes()[:500]))
        zeros = np.zeros(4, dtype=np.float32)
        values = [
            None, "", "a", "ab", pictures[0], str(pictures[1]), str(tmp_path / "gone"), b"", b"a", io.BytesIO(b"ab"),
            ["a", "b"], ["ab"], [["a"], "b"], [], [None], [1, 2], [12], [1.0, 2], 12, 12.0, zeros, zeros.reshape(2, 2),
            zeros.view(np.int32), zeros.astype(">f4"), (zeros, 8000), (zeros, 16000), (zeros[:2], 8000),
            np.array(["a", None], dtype=object), torch.zeros(1, 2, 2), torch.zeros(2, 1, 2), grey, palette, other,
            clear, turned, PIL.Image.new("L", (4, 1), 1), PIL.Image.new("L", (2, 2), 2), broken,
        ]  # fmt: skip
        digests = [_content._digest(value) for value in values]
        for (a, x), (b, y) in combinations(zip(values, digests, strict=True), 2):
            assert x != y, (a, b)
        assert _content._digest("a", is_text=True) != _content._digest("a")
        assert digests == [_content._digest(value) for value in values], "the same when asked again"
        assert _content._digest(str(pictures[0])) == _content._digest(pictures[0])
        assert _content.hashed("kind", b"ab", b"c") != _content.hashed("kind", b"a", b"bc")

    @pytest.mark.parametrize("value", ["\ud800", "nul\0.png"])
    def test_strings_that_are_no_names_of_files(self, value, tmp_path):
        with pytest.raises(ValueError, match="role 'image', row 1"):
            encoded(toy_encoder(), Items({"image": [None, value]}), tmp_path, rows=1)


class TestTold:
    def test_errors_name_the_row_of_the_whole_and_what_was_finished_stays(self, encoder, pictures, tmp_path):
        items, kept = Items({"text": ["a"] * 12, "image": pictures}), tmp_path / "kept"
        content = pictures[9].read_bytes()
        pictures[9].write_bytes(content[:100])
        with pytest.raises(ValueError, match=r"role 'image', row 9: cannot read .*9\.png") as error:
            encoded(encoder, items, kept, rows=4)
        assert "row 1:" not in str(error.value)
        assert error.value.__notes__ == ["while encoding rows 8 to 11 of text, image"]
        before = batches(kept)
        assert len(before) == 2
        assert not leftovers(kept)
        pictures[9].write_bytes(content)
        assert_same(encoded(encoder, items, kept, rows=4), encoder.transform(items))
        assert written(kept, before) == 1

    def test_values_of_a_wrong_type_are_named(self, encoder, tmp_path):
        for value, message in ((3, "expected a str; got int"), ({"a"}, "its content cannot be read .it is a set")):
            with pytest.raises(TypeError, match=f"role 'text', row 5: {message}"):
                encoded(encoder, Items({"text": [*"abcde", value]}), tmp_path, rows=4)

    def test_a_closed_file_is_named(self, encoder, pictures, tmp_path):
        with open(pictures[1], "rb") as closed:
            pass
        with pytest.raises(ValueError, match=r"role 'image', row 1: its content cannot be read .*closed file"):
            encoded(encoder, Items({"image": [pictures[0], closed]}), tmp_path / "kept", rows=1)

    def test_one_warning_with_rows_of_the_whole_now_and_later(self, pictures, tmp_path):
        encoder, long = toy_encoder(on_error="skip"), "word " * 200
        items = Items(
            {
                "text": ["a", long, "b", "c", "d", "e", long, long],
                "image": [*pictures[:4], tmp_path / "'text', row 1.png", None, None, None],
            }
        )
        for _ in range(2):
            with pytest.warns(UserWarning, match="texts are cut") as told:
                found = encoded(encoder, items, tmp_path / "kept", rows=4)
            assert len(told) == 1
            first, second, third = str(told[0].message).splitlines()
            assert "1 text is cut" in first
            assert "('text' row 1)" in first
            assert "2 texts are cut" in second
            assert "('text' row 6, 'text' row 7)" in second
            assert "role 'image', row 4: no such file" in third
            assert np.isnan(found["image"][4]).all()

    def test_a_few_of_many_warnings_are_told(self, encoder, tmp_path):
        with pytest.warns(UserWarning, match="row 4\\)\nand so in 3 more batches$") as told:
            encoded(encoder, Items({"text": [f"{i} word " * 100 for i in range(8)]}), tmp_path, rows=1)
        assert len(told) == 1

    def test_warnings_of_libraries_pass_once_and_as_they_are(self, tmp_path):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("default")
            encoded(Dated("toy"), Items({"text": [*"abcdef"]}), tmp_path, rows=1)
        assert [(w.category, str(w.message)) for w in told] == [(DeprecationWarning, "old")]
        with pytest.raises(DeprecationWarning, match="old"):
            encoded(Dated("toy"), Items({"text": ["g"]}), tmp_path)

    def test_a_bar_for_all_and_none_for_each_batch(self, scenes, tmp_path, capsys):
        encoded(toy_encoder(progress=True), scenes, tmp_path, rows=4, progress=True)
        shown = capsys.readouterr().err
        assert "encoding by OpenCLIPEncoder-toy: 100%" in shown
        assert "60/60" in shown
        assert "encoding text" not in shown
        encoded(toy_encoder(), scenes, tmp_path, rows=4, progress=False)
        assert not capsys.readouterr().err


class Dated(OpenCLIPEncoder):
    """An encoder of a library that is not quite up to date."""

    def transform(self, X):
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        return super().transform(X)


class TestBadInput:
    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"encoder": "toy"}, TypeError, "encoder is a str; expected one of grclip.encoders"),
            ({"X": {"text": ["a"]}}, TypeError, "X is dict; expected Items or a SearchTask"),
            ({"X": Items({"text": np.ones((2, 3))})}, TypeError, "role 'text' holds vectors already"),
            ({"X": SearchTask(np.ones((2, 3)), np.ones((2, 3)))}, TypeError, "this SearchTask holds arrays"),
            ({"X": Items({"sketch": ["a"]})}, ValueError, "unknown modality of 'sketch'"),
            ({"rows": 0}, ValueError, "rows must be a whole number of at least 1; got 0"),
            ({"rows": 2.5}, ValueError, "rows must be a whole number"),
            ({"progress": "yes"}, TypeError, "progress must be True, False or None"),
            ({"encoder": toy_encoder(precision="int8")}, ValueError, "precision must be one of"),
        ],
    )
    def test_it_is_an_error_before_anything_is_written(self, encoder, tmp_path, change, error, message):
        arguments = {"encoder": encoder, "X": Items({"text": ["a"]}), "folder": tmp_path / "kept", **change}
        with pytest.raises(error, match=message):
            encoded(**arguments)
        assert not (tmp_path / "kept").exists()

    def test_a_file_where_the_folder_should_be(self, encoder, tmp_path):
        (tmp_path / "kept").write_text("mine")
        with pytest.raises(OSError, match=r"cannot keep vectors in .*kept.*; make room there, or choose another"):
            encoded(encoder, Items({"text": ["a"]}), tmp_path / "kept")
        assert (tmp_path / "kept").read_text() == "mine"

    @pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
    def test_a_folder_that_cannot_be_written(self, encoder, tmp_path):
        tmp_path.chmod(0o555)
        try:
            with pytest.raises(PermissionError, match=r"cannot keep vectors in .*Permission denied"):
                encoded(encoder, Items({"text": ["a"]}), tmp_path)
        finally:
            tmp_path.chmod(0o755)
