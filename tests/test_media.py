"""The U-curves of sounds, videos and pictures that ask, end to end on toy data."""

import json

import pytest
from test_encoders_transformers import make_clap, make_xclip

from benchmarks import media
from grclip.datasets import load_clotho, load_msvd, load_nights

N = 12


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Small random models of sounds and of videos."""
    folder = tmp_path_factory.mktemp("models")
    for name, make in (("CLAP", make_clap), ("X-CLIP", make_xclip)):
        for part in make():
            part.save_pretrained(folder / name)
    return [f"{name}={folder / name}" for name in ("CLAP", "X-CLIP")]


@pytest.fixture(scope="module")
def toy(tmp_path_factory, places):
    """A root of toy data, and what was measured there."""
    root = tmp_path_factory.mktemp("media") / "data"
    out = root.parent / "out.json"
    arguments = ["--toy", str(N), "--root", str(root), "--repeats", "2", "--json", str(out)]
    with pytest.warns(UserWarning, match="texts are cut"):  # these models read twelve tokens
        assert media.main([*arguments, "--checkpoint", *places]) == 0
    return root, json.loads(out.read_text())["media"]


def test_each_dataset_is_measured_with_the_model_of_its_kind(toy):
    found = {(r["dataset"], r["model"], r["calibration"]) for r in toy[1]["measured"]}
    models = {"MSVD": "X-CLIP", "Clotho": "CLAP", "NIGHTS": "toy"}
    calibrations = ("none", "training", "transductive")
    assert found == {(dataset, model, how) for dataset, model in models.items() for how in calibrations}
    assert toy[1]["missing"] == {}


def test_the_split_that_is_searched_is_not_that_of_the_means(toy):
    root, measured = toy
    half = N // 2
    for result in measured["measured"]:
        assert (result["n_queries"], result["n_documents"]) == (N - half, N - half)
    for load, split in ((load_clotho, "development"), (load_msvd, "train"), (load_nights, "train")):
        folder = root / load.__name__.removeprefix("load_")
        searched, training = (load(folder, **of, check_counts=False) for of in ({}, {"split": split}))
        assert not set(searched.description.document_ids) & set(training.description.document_ids)
        assert len(training.task) == half


def test_pictures_that_are_asked_with_find_texts_badly_until_means_are_removed(toy):
    scores = {
        (r["calibration"], name): found["mean"]
        for r in toy[1]["measured"]
        if r["dataset"] == "NIGHTS"
        for name, found in r["scores"].items()
    }
    raw, removed = scores["none", "raw"], scores["training", "means removed"]
    assert raw[-1] == pytest.approx(1, abs=0.05)  # the same pictures, smaller
    assert min(removed) > min(raw)


def test_what_is_not_there_is_told(tmp_path, capsys):
    assert media.main(["--root", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    for name in ("clotho_captions_validation.csv", "AllVideoDescriptions.txt", "data.csv"):
        assert name in printed
    assert "X-CLIP, MSVD" in printed
    assert "CLAP, NIGHTS" not in printed


def test_datasets_that_no_model_encodes_are_told(toy, capsys):
    root, _ = toy
    arguments = ["--toy", str(N), "--root", str(root), "--calibrations", "transductive", "--repeats", "1"]
    assert media.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "none of the models encodes it; --models, or --checkpoint with --toy, names one (MSVD; Clotho)" in printed
