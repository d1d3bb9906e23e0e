"""benchmarks.plan and benchmarks.ray_data: the plan's figures are those of the pages that it is made of."""

import re
from math import sqrt
from pathlib import Path

import numpy as np
import pytest

from benchmarks import plan, ray_data
from benchmarks._architectures import DualEncoder

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_shows_what_the_command_prints(capsys):
    plan.main([])
    assert capsys.readouterr().out.strip() in (DOCS / "scale.md").read_text()


def test_what_the_page_says_of_the_other_gpu_is_what_the_command_prints(capsys):
    plan.main(["--gpu", "H100 SXM"])
    encode = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| encode |"))
    assert encode in (DOCS / "scale.md").read_text()


def test_figures_are_those_of_the_benchmark_page():
    page = (DOCS / "benchmarks.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith("| CLIP-B/16 | 150"))
    text, _, picture, both = [float(cell) for cell in row.split("|")[4:8]]
    assert {"text": text, "picture": picture, "both": both} == plan.GFLOPS
    counts, errors = (
        next(line for line in page.split("### How many calibration rows")[1].splitlines() if line.startswith(start))
        for start in ("| | 10", "| error of the mean")
    )
    cells = zip(counts.split("|")[2:-2], errors.split("|")[2:-2], strict=True)
    assert {int(n): float(error) for n, error in cells} == plan.MEAN_ERRORS
    assert f"| spread | 0.176 | {plan.SMALLEST_SPREAD} |" in page
    rows = [
        line for line in (DOCS / "scale_ray.md").read_text().splitlines() if line.startswith(("| fit", "| transform"))
    ]
    assert min(float(row.split("|")[-2]) for row in rows) == plan.RATES.ray


def test_the_published_operations_are_those_of_the_real_model():
    encoder = DualEncoder("ViT-B-16")
    assert encoder.picture() / 1e9 == pytest.approx(plan.GFLOPS["picture"], rel=0.01)
    assert encoder.width == plan.Setting().width


def test_the_measured_errors_of_means_follow_from_one_trace():
    for n, error in plan.MEAN_ERRORS.items():
        assert error == pytest.approx(sqrt(plan.trace() / n * (1 - n / plan.PHOTOS)), rel=0.12)
    assert plan.trace() <= 1  # of unit rows it cannot be more


def test_twice_the_documents_take_twice_as_long_and_other_rates_change_what_limits():
    setting, more = plan.Setting(), plan.Setting(documents=2e9)
    for one, two in zip(plan.stages(setting, plan.RATES), plan.stages(more, plan.RATES), strict=True):
        factor = 1 if one.name.startswith("fit") else 2
        assert two.read == pytest.approx(factor * one.read)
        assert two.cost(more) == pytest.approx(factor * one.cost(setting), rel=0.2)
    fast = plan.stages(plan.Setting(share=1.0, gpus=1000, storage=1e15), plan.RATES)[0]
    hours = fast.hours(plan.Setting(share=1.0, gpus=1000, storage=1e15))
    assert max(hours, key=hours.__getitem__) == "cores"


def test_bytes_of_indexes():
    rows = plan.indexes(plan.Setting())
    assert [row[0] for row in rows.values()] == ["1.02", "1.30", "0.07"]
    assert rows["exact, float16"][1:] == ["13", "2"]
    assert rows["HNSW32, float16"][1] == ""


def test_an_index_of_faiss_holds_what_the_plan_says():
    faiss = pytest.importorskip("faiss")
    x = np.random.default_rng(0).normal(size=(4000, 32)).astype(np.float32)
    index = faiss.index_factory(32, "HNSW32_SQfp16")
    index.train(x)
    index.add(x)
    said = 2 * 32 + 2 * plan.LINKS * 4 + plan.NODE
    assert len(faiss.serialize_index(index)) / len(x) == pytest.approx(said, rel=0.01)


def test_the_error_of_a_mean_stays_within_its_bounds(rng):
    rows = rng.normal(size=(5000, 8)) + 0.3
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    errors = [np.linalg.norm(rng.choice(rows, 50, replace=False).mean(0) - rows.mean(0)) for _ in range(500)]
    assert np.sqrt(np.mean(np.square(errors))) <= sqrt(1 / 50)
    assert np.mean(np.array(errors) > plan.bound(50, odds=0.01)) <= 0.01
    assert plan.bound(1e6) == pytest.approx(6.26e-3, rel=1e-2)


def test_a_job_that_takes_no_longer_than_its_start_has_no_rate():
    one, start, long = ray_data.Cost(1.0, 1.0), ray_data.Cost(2.0, 3.0), ray_data.Cost(4.0, 8.0)
    told = ray_data.table({"fit": {"one process": one, "Ray": start, "start": start}}, 100).splitlines()[-1]
    assert told == "| fit | 100 | 50 | 2.0 | | |"
    told = ray_data.table({"fit": {"one process": one, "Ray": long, "start": start}}, 100).splitlines()[-1]
    assert told == "| fit | 100 | 25 | 2.0 | 50 | 0.20 |"


def test_wider_vectors_take_the_cores_longer():
    one, two = (plan.stages(plan.Setting(width=width), plan.RATES) for width in (512, 1024))
    for narrow, wide in zip(one[2:], two[2:], strict=True):
        assert wide.core_seconds == pytest.approx(2 * narrow.core_seconds)


@pytest.mark.parametrize(
    "arguments", [["--documents", "0"], ["--documents", "inf"], ["--share", "nan"], ["--cores", "-1"], ["--gpu", "K80"]]
)
def test_arguments_without_sense_are_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        plan.main(arguments)
    assert re.search(r"must be above 0|invalid choice", capsys.readouterr().err)
