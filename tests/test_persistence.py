import json
import os

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch_file
from sklearn.exceptions import NotFittedError

from grclip import Items, ModalityGapRemover

pytestmark = pytest.mark.filterwarnings("ignore:normalize=False, but rows have lengths")


@pytest.fixture
def remover(rng):
    parts = {"query": rng.normal(size=(5, 4)), "text": rng.normal(size=(5, 4)), "Bild - 画像": rng.normal(size=(5, 4))}
    parts["text"][1:3] = np.nan
    return ModalityGapRemover(normalize=False).fit(Items(parts, encoder="ViT-B-32/openai"))


@pytest.fixture
def saved(remover, tmp_path):
    remover.save(tmp_path / "c.safetensors")
    return tmp_path / "c.safetensors"


def test_round_trip_is_bit_identical(remover, saved, rng):
    for path in (saved, str(saved)):
        again = ModalityGapRemover.load(path)
        assert list(again.means_) == list(remover.means_)
        for role, mean in remover.means_.items():
            np.testing.assert_array_equal(again.means_[role], mean)
            assert again.means_[role].dtype == np.float64
        assert again.n_samples_seen_ == remover.n_samples_seen_ == {"query": 5, "text": 3, "Bild - 画像": 5}
        assert again.normalize is False
        assert again.n_features_in_ == 4
        assert again.encoder_ == "ViT-B-32/openai"
    x = Items({"text": rng.normal(size=(3, 4))}, encoder="ViT-B-32/openai")
    np.testing.assert_array_equal(again.transform(x)["text"], remover.transform(x)["text"])
    assert again.partial_fit(x).n_samples_seen_["text"] == 6


def test_the_header_says_what_the_file_is(saved):
    with safe_open(saved, framework="numpy") as file:
        header = json.loads(file.metadata()["grclip"])
        assert sorted(file.keys()) == ["mean:Bild - 画像", "mean:query", "mean:text"]
    assert header == {
        "schema_version": 1,
        "class": "ModalityGapRemover",
        "normalize": False,
        "n_features": 4,
        "encoder": "ViT-B-32/openai",
        "n_samples_seen": {"query": 5, "text": 3, "Bild - 画像": 5},
    }


def test_a_bare_array_and_an_unknown_encoder_survive(tmp_path, rng):
    x = rng.normal(size=(5, 4))
    remover = ModalityGapRemover().fit(x)
    remover.save(tmp_path / "c.safetensors")
    again = ModalityGapRemover.load(tmp_path / "c.safetensors")
    np.testing.assert_array_equal(again.transform(x), remover.transform(x))
    assert again.encoder_ is None


def test_a_subclass_writes_files_that_the_class_reads(remover, tmp_path):
    class Derived(ModalityGapRemover):
        pass

    Derived().fit(np.eye(3)).save(tmp_path / "c.safetensors")
    assert type(ModalityGapRemover.load(tmp_path / "c.safetensors")) is ModalityGapRemover
    assert type(Derived.load(tmp_path / "c.safetensors")) is Derived


def test_a_loaded_calibrator_refuses_another_encoder(saved, rng):
    with pytest.raises(ValueError, match="encoder 'ViT-B-32/openai', but these come from 'SigLIP'"):
        ModalityGapRemover.load(saved).transform(Items({"text": rng.normal(size=(3, 4))}, encoder="SigLIP"))


def test_a_file_cut_anywhere_is_an_error(saved):
    whole = saved.read_bytes()
    for length in range(len(whole)):
        saved.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"c\.safetensors' is damaged or no safetensors file"):
            ModalityGapRemover.load(saved)


def write(path, header, means):
    save_file(means, path, metadata={"grclip": header if isinstance(header, str) else json.dumps(header)})


GOOD = {"schema_version": 1, "class": "ModalityGapRemover", "normalize": True, "n_features": 2, "encoder": None,
        "n_samples_seen": {"text": 3}}  # fmt: skip


@pytest.mark.parametrize(
    ("header", "means", "message"),
    [
        ({**GOOD, "schema_version": 2}, None, "schema version 2, but this grclip reads up to 1: update grclip"),
        ({**GOOD, "schema_version": "x"}, None, "not one that grclip wrote"),
        ({**GOOD, "class": "MultimodalFuser"}, None, "holds a MultimodalFuser, not a ModalityGapRemover"),
        ({"class": "ModalityGapRemover"}, None, "not one that grclip wrote"),
        ("[1]", None, "not one that grclip wrote"),
        ("{", None, "is damaged"),
        (
            {k: v for k, v in GOOD.items() if k != "normalize"},
            None,
            "no complete ModalityGapRemover: header",
        ),
        ({**GOOD, "n_samples_seen": {"image": 3}}, None, "no complete ModalityGapRemover"),
        ({**GOOD, "n_samples_seen": [3]}, None, "no complete ModalityGapRemover"),
        ({**GOOD, "n_samples_seen": {"text": "many"}}, None, "no complete ModalityGapRemover"),
        ({**GOOD, "n_samples_seen": {"text": 0}}, None, "no complete ModalityGapRemover"),
        ({**GOOD, "n_features": 3}, None, "no complete ModalityGapRemover"),
        (GOOD, np.zeros(2, np.float32), "holds 'mean:text' in another dtype than float64"),
        ({**GOOD, "normalize": "no"}, None, "no complete ModalityGapRemover"),
        ({**GOOD, "encoder": 3}, None, "no complete ModalityGapRemover"),
        ({**GOOD, "n_samples_seen": {}}, None, "no complete ModalityGapRemover"),
        ({**GOOD, "n_samples_seen": {"text": True}}, None, "no complete ModalityGapRemover"),
        ({**GOOD, "n_samples_seen": {"text": 1.5}}, None, "no complete ModalityGapRemover"),
        ({**GOOD, "schema_version": True}, None, "not one that grclip wrote"),
        ({**GOOD, "schema_version": 0}, None, "not one that grclip wrote"),
        ("[" * 100_000, None, "is damaged"),
        (GOOD, np.array([0, np.nan]), "no complete ModalityGapRemover"),
    ],
)
def test_wrong_files(tmp_path, header, means, message):
    path = tmp_path / "c.safetensors"
    write(path, GOOD, {"mean:text": np.zeros(2)})
    ModalityGapRemover.load(path)
    write(path, header, {"mean:text": np.zeros(2) if means is None else means})
    with pytest.raises(ValueError, match=message):
        ModalityGapRemover.load(path)


def test_foreign_and_absent_files(tmp_path):
    path = tmp_path / "c.safetensors"
    save_file({"weight": np.zeros(2)}, path)
    with pytest.raises(ValueError, match="not one that grclip wrote"):
        ModalityGapRemover.load(path)
    path.write_text("hello, this is no safetensors file")
    with pytest.raises(ValueError, match="is damaged or no safetensors file"):
        ModalityGapRemover.load(path)
    save_torch_file({"weight": torch.zeros(2, dtype=torch.bfloat16)}, path)
    with pytest.raises(ValueError, match="not one that grclip wrote"):
        ModalityGapRemover.load(path)
    with pytest.raises(ValueError, match="is a folder"):
        ModalityGapRemover.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        ModalityGapRemover.load(tmp_path / "none.safetensors")
    with pytest.raises(NotFittedError):
        ModalityGapRemover().save(path)


def test_others_may_read_the_file_and_links_are_followed(remover, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "c.safetensors")
    remover.save(tmp_path / "link")
    plain = tmp_path / "plain"
    plain.touch()
    assert (tmp_path / "c.safetensors").stat().st_mode == plain.stat().st_mode
    assert (tmp_path / "link").is_symlink()


def test_a_failed_write_leaves_the_old_file(remover, saved, monkeypatch):
    before = saved.read_bytes()

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        remover.save(saved)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]
    with pytest.raises(FileNotFoundError, match=r"there is no folder '.*no such folder' to write 'c\.safetensors' to"):
        remover.save(saved.parent / "no such folder" / "c.safetensors")


def test_a_device_is_not_replaced(remover, tmp_path):
    for name, make in (("pipe", os.mkfifo), ("folder", os.mkdir)):
        make(tmp_path / name)
        with pytest.raises(FileExistsError, match=f"{name}' is a folder, a device or a pipe, not a file to replace"):
            remover.save(tmp_path / name)
    assert (tmp_path / "pipe").is_fifo()
    assert sorted(os.listdir(tmp_path)) == ["folder", "pipe"]
