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
    assert capsys.readouterr().out.strip() in (DOCS / "scale_plan.md").read_text()


def test_the_summary_is_of_the_table():
    page, rows = (DOCS / "scale_plan.md").read_text(), plan.steps(plan.Setting(), plan.RATES)
    cost, hours = rows["all four"][:2]
    assert f"about {float(hours.split()[0]):.0f} hours and \\${round(float(cost), -1):.0f} on eight" in page
    cost, time, *_ = rows["transform"]
    assert f"transforming takes {time.replace('min', 'minutes')} and \\${cost}" in page.replace("\n", " ")
    assert f"are {plan.indexes(plan.Setting())['exact, float16'][0]} in memory" in page
    speeds = f"the {plan.RATES.fit:,.0f} fitted and {plan.RATES.transform:,.0f} transformed in [the plan]"
    assert speeds in (DOCS / "scale_ray.md").read_text().replace("\n", " ")


def test_what_the_page_says_of_the_other_gpu_is_what_the_command_prints(capsys):
    plan.main(["--gpu", "H100 SXM"])
    encode = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| encode |"))
    assert encode in (DOCS / "scale_plan.md").read_text()


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
    assert f"| spread | 0.176 | {plan.SPREAD} |" in page
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
    assert [row[0] for row in rows.values()] == ["1.02 TB", "1.3 TB", "72 GB"]
    assert rows["HNSW32, float16"][1] == ""


def test_indexes_leave_room_in_memory():
    exact, codes = (plan.indexes(plan.Setting())[name][1:] for name in ("exact, float16", "IVF262144,PQ64"))
    assert (exact, codes) == (["16", "3"], ["2", "1"])
    assert plan.indexes(plan.Setting(filled=1.0))["exact, float16"][1:] == ["13", "2"]  # without room for anything else


def test_units_can_be_read():
    assert [plan.scaled(x, "B") for x in (0, 999, 12288, 66.8e12)] == ["0 B", "999 B", "12.3 kB", "66.8 TB"]
    assert [plan.duration(h) for h in (0, 1e-9, 3.9e-5, 0.27, 645)] == ["", "under 0.01 s", "0.14 s", "16 min", "645 h"]
    assert [plan.digits(x) for x in (0.1, 3.16e-5, 62.04)] == ["0.1", "0.000032", "62"]


def test_a_step_costs_all_cores_and_gpus_for_as_long_as_it_takes():
    setting, price = plan.Setting(), 128 * 0.04
    encode, fit, transform, index, on_cores = plan.stages(setting, plan.RATES)
    for stage in (fit, transform, on_cores):
        assert stage.cost(setting) == pytest.approx(stage.takes(setting) * price)
    for stage in (encode, index):
        assert stage.cost(setting) == pytest.approx(stage.takes(setting) * (price + 8 * 2.0))
    four = (encode, fit, transform, index)
    assert plan.steps(setting, plan.RATES)["all four"][0] == plan.figure(sum(stage.cost(setting) for stage in four))


def test_an_index_of_few_documents_learns_from_no_more():
    few = plan.stages(plan.Setting(documents=1e6), plan.RATES)[3]
    assert few.flops == pytest.approx(1e6 * 2 * 512 * (10 * 2**18 + 2**18 + 256))


def test_help_says_what_each_option_is(capsys):
    with pytest.raises(SystemExit):
        plan.main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    for name in vars(plan.Setting()):
        assert re.search(rf"--{name.replace('_', '-')} \S.*? {re.escape(plan.HELP[name])} \(default: ", told), name
    assert told.count("(default: ") == len(plan.HELP)


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
    for narrow, wide in zip(one[1:4], two[1:4], strict=True):
        assert wide.core_seconds == pytest.approx(2 * narrow.core_seconds)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--documents", "0"],
        ["--documents", "inf"],
        ["--share", "nan"],
        ["--share", "35"],
        ["--filled", "1.1"],
        ["--cores", "-1"],
        ["--gpu", "K80"],
    ],
)
def test_arguments_without_sense_are_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        plan.main(arguments)
    assert re.search(r"must be above 0|must be at most 1|invalid choice", capsys.readouterr().err)
