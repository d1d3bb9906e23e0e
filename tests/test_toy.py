"""What the encoder that comes with the package is promised to show, measured by its benchmark."""

import hashlib

import numpy as np
import pytest

from benchmarks import toy
from grclip.encoders import toy_encoder
from grclip.encoders.open_clip import PACKAGED


@pytest.fixture(scope="module")
def scenes():
    return toy.scenes(toy_encoder())


def test_its_files_are_small_and_as_their_checksums_say():
    folder = PACKAGED["toy"]
    assert sum(file.stat().st_size for file in folder.iterdir()) < 2_000_000
    listed = dict(reversed(line.split()) for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert set(listed) == {file.name for file in folder.iterdir()} - {"SHA256SUMS"}
    for name, digest in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_it_finds_pictures_and_has_a_gap(scenes):
    test, _ = scenes
    assert len(test) >= 1000
    table = toy.encoder_table(test)
    assert table["text to image"] >= 0.85
    assert min(table["gap text-image"], table["gap query-image"]) >= 0.5


def test_removing_means_helps_in_mixed_corpora_and_one_scale_costs_nothing(scenes):
    table = toy.mixed_table(*scenes)
    assert table["means removed"]["all"] >= table["raw"]["all"] + 0.15
    assert table["one scale"]["all"] >= table["means removed"]["all"] - 0.01


def test_the_p_curve_is_flat(scenes):
    curves = toy.p_curve(*scenes)
    assert toy.dip(curves["raw"]) < 0.6
    assert toy.dip(curves["means removed"]) >= 0.95
    assert toy.dip(curves["one scale"]) >= 0.95


def test_fusing_pays_where_text_and_picture_complement_each_other():
    for method, curve in toy.alpha_curve(*toy.scenes(toy_encoder(), complementary=True)).items():
        alphas, values = np.array(list(curve)), np.array(list(curve.values()))
        assert 0 < alphas[values.argmax()] < 1, method
        assert values.max() >= max(values[0], values[-1]) + 0.03, method
