"""The method on real CLIP embeddings, against figures that were measured independently of the package."""

import numpy as np
import pytest

from benchmarks import real_clip as benchmark
from grclip import ModalityGapRemover

TABLE = {
    "raw": {"all": 0.52, "text": 0.88, "image": 0.003, "text+image": 0.67},
    "means removed": {"all": 0.723, "text": 0.891, "image": 0.368, "text+image": 0.905},
    "one scale": {"all": 0.880, "text": 0.844, "image": 0.884, "text+image": 0.913},
}
CURVE = {
    "means removed": [0.846, 0.796, 0.730, 0.643, 0.645, 0.726, 0.899],
    "one scale": [0.846, 0.849, 0.856, 0.867, 0.882, 0.889, 0.899],
}
CHANCE = sum(1 / np.log2(rank + 1) for rank in range(1, 11)) / 499
"""NDCG@10 of one relevant document among 249 captions and 250 images in random order."""


def test_spreads(real_clip):
    found = benchmark.photo_spreads(real_clip)["spread"]
    assert found["text"] == pytest.approx(0.18, abs=0.005)
    assert found["image"] == pytest.approx(0.10, abs=0.005)


def test_flickr_table(real_clip):
    found = benchmark.flickr_table(real_clip)
    for method, row in TABLE.items():
        assert found[method] == pytest.approx(row, abs=0.005)


def test_u_curve(real_clip):
    found = benchmark.u_curve(real_clip, CURVE)
    for method, row in CURVE.items():
        assert list(found[method].values()) == pytest.approx(row, abs=0.01)


def test_coco_fitted_on_one_half_and_measured_on_the_other(real_clip):
    found = benchmark.coco_halves(real_clip)
    assert found["means removed"]["images in top 10"] <= 0.10
    assert 0.35 <= found["one scale"]["images in top 10"] <= 0.65
    assert found["means removed"]["ndcg"] == pytest.approx(0.22, abs=0.02)
    assert found["one scale"]["ndcg"] >= 0.56


def test_an_untrained_model_stays_at_chance(real_clip):
    for row in benchmark.coco_halves(real_clip, "features_clip_random.npy").values():
        assert row["ndcg"] <= CHANCE


def test_rows_that_nobody_normalised(real_clip):
    folder = real_clip / "design_patents1000_clip_vitb32"
    parts = {role: np.load(folder / f"{role}_embeddings.npy") for role in ("text", "image")}
    scaled = {role: part * np.linspace(0.1, 9, len(part))[:, None] for role, part in parts.items()}
    first, second = (ModalityGapRemover().fit(x) for x in (parts, scaled))
    for role in parts:
        np.testing.assert_allclose(first.means_[role], second.means_[role], atol=1e-14)
        np.testing.assert_allclose(first.transform(parts)[role], second.transform(scaled)[role], atol=1e-14)


def test_the_benchmark_prints_its_tables(real_clip, capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "TRIALS", 2)
    monkeypatch.setattr(benchmark, "HALVES", 1)
    assert benchmark.main() == 0
    printed = capsys.readouterr().out
    assert printed.count("| one scale |") == 4
    assert "| | all | text | image | text+image |" in printed


def test_the_benchmark_has_a_help_page(capsys):
    with pytest.raises(SystemExit, match="0"):
        benchmark.main(["--help"])
    assert "GRCLIP_REAL_DATA" in capsys.readouterr().out


def test_without_data_the_benchmark_says_what_to_set(monkeypatch):
    monkeypatch.delenv("GRCLIP_REAL_DATA", raising=False)
    with pytest.raises(SystemExit, match="set GRCLIP_REAL_DATA to the folder"):
        benchmark.main()
