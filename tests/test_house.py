"""What holds for the package as a whole: imports, documentation, packaging, README."""

import ast
import dataclasses
import inspect
import pkgutil
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import numpydoc.docscrape
import numpydoc.validate
import pytest
from sklearn.utils._metadata_requests import RequestMethod

import grclip
import grclip.cli
import grclip.encoders
import grclip.retrofit
import grclip.scale.faiss
import grclip.scale.qdrant
import grclip.scale.ray
from grclip._retriever import BaseRetriever
from grclip.encoders._base import BaseEncoder
from grclip.plots.curves import CurveDisplay

ROOT = Path(__file__).parents[1]
SOURCES = {
    path.relative_to(ROOT / "grclip").with_suffix("").as_posix().replace("/", "."): path
    for path in (ROOT / "grclip").rglob("*.py")
}

STAGES = {"metrics", "gap", "fusion", "search"}
ALLOWED = {
    "_kernels": set(),
    "_validation": {"_kernels"},
    "_columns": {"_kernels", "_validation"},
    "persistence": set(),
    "_doc_link": set(),
    "items": {"_kernels", "_validation", "_columns"},
    "_scan": {"_kernels"},
    "_topk": {"_kernels", "_scan"},
    "_fuse": {"_kernels", "_validation", "items"},
    "_lines": {"_kernels", "_validation", "_fuse"},
    "_spread": {"_kernels", "_validation", "items", "_fuse", "_lines"},
    "_measures": {"_validation"},
    "_alpha": {"_kernels", "_lines"},
    "_alpha_cv": {"items", "_fuse", "_lines", "_spread", "_measures", "_alpha"},
    "gap": {"_kernels", "_validation", "_doc_link", "items", "persistence"},
    "fusion": {"_kernels", "_validation", "_doc_link", "items", "_fuse", "_spread", "_measures", "_alpha_cv"},
    "_retriever": {"_kernels", "_validation", "_doc_link", "items"},
    "search": {"_kernels", "_validation", "_retriever", "_topk"},
    "_retrofit_checks": {"_fuse", "_kernels", "_validation", "gap", "fusion"},
    "_retrofit": {"_kernels", "_retrofit_checks", "_validation", "items", "gap", "fusion", "pipelines"},
    "retrofit": {"_kernels", "_validation", "items", "_fuse", "_retrofit", "_retrofit_checks", "pipelines"},
    "metrics": {"_validation", "_measures", "items"},
    "pipelines": {"_validation", "persistence", "gap", "fusion"},
    "diagnostics": {"_kernels", "_validation", "_columns", "_spread", "items", "metrics", "datasets"},
    "plots": {"_optional", "_validation", "_columns", "items", "diagnostics"},
    "_report": {"_optional", "_validation", "_columns", "items", "datasets", "diagnostics", "plots"},
    "__init__": {"items", "pipelines", *STAGES, "diagnostics", "plots", "datasets", "_report"},
    "_optional": set(),
    "encoders": {"_optional", "_validation", "_columns", "_doc_link", "items"},
    "datasets": {"_optional", "_validation", "_columns", "items"},
    "scale": {
        *("_kernels", "_validation", "_columns", "_optional", "_doc_link", "_retriever", "_parquet", "_fuse"),
        *("items", "pipelines", "gap", "fusion", "__version__"),
    },
    "_sheet": {"_optional"},
    "_calibrator": {"_validation", "persistence", "pipelines", "items", "gap", "fusion"},
    "_folder": {"_validation", "_columns", "_calibrator", "items", "gap", "fusion", "search"},
    "_judged": {"_validation", "_columns", "_calibrator", "_folder", "items", "search"},
    "_demo": {"_sheet", "_judged", "encoders", "datasets", "items", *STAGES},
    "_parquet": {"_optional", "_validation"},
    "_append": {"_parquet"},
    "_direction": {"_kernels", "items", "gap"},
    "_batch": {"_kernels", "_validation", "_parquet", "_append"},
    "_fit_files": {"_validation", "_parquet", "_batch", "items", "gap", "fusion", "pipelines"},
    "_transform_files": {
        *("_validation", "_parquet", "_append", "_batch", "_direction", "_fuse"),
        *("items", "gap", "fusion", "pipelines", "__version__"),
    },
    "_commands": {"_fit_files", "_transform_files", "_parquet", "_fuse", "persistence", "pipelines", "gap", "fusion"},
    "cli": {
        "_calibrator",
        "_commands",
        "_demo",
        "_folder",
        "_judged",
        "_report",
        "_sheet",
        "_optional",
        "encoders",
        "__version__",
    },
}
"""What each module, or all of a subpackage, may import of ours; stages never import one another."""


def imports(path):
    """Names of our own modules that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "grclip":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("grclip."):
            names.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("grclip.")}
    return names


def test_each_module_imports_only_what_it_may():
    assert {name.split(".")[0] for name in SOURCES} == set(ALLOWED)
    for name, path in SOURCES.items():
        house = name.split(".")[0]
        assert imports(path) - {house} <= ALLOWED[house], name
    assert not any(ALLOWED[stage] & STAGES for stage in STAGES)


def test_importing_grclip_loads_nothing_heavy():
    heavy = [
        "open_clip",
        "sentence_transformers",
        "transformers",
        "matplotlib",
        "jinja2",
        "ray",
        "qdrant_client",
        "datasets",
        "faiss",
        "pyarrow",
        "PIL",
        "av",
        "huggingface_hub",
    ]
    ours = "grclip, grclip.encoders, grclip.cli, grclip.datasets, grclip.diagnostics, grclip.plots, grclip._report"
    ours += ", grclip.retrofit, grclip.scale.faiss, grclip.scale.qdrant, grclip.scale.ray"
    alone = "import sys; sys.modules['pandas'] = None"  # scikit-learn loads it where it is there, and it loads pyarrow
    code = f"{alone}; import {ours}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def public():
    """Every public class, function, method and property, by its dotted name."""
    owners = (
        grclip, grclip.metrics, grclip.encoders, grclip.datasets, grclip.diagnostics, grclip.plots, grclip.cli,
        grclip.retrofit, grclip.scale.faiss, grclip.scale.ray,
    )  # fmt: skip
    for owner in owners:
        listed = hasattr(owner, "__all__")
        for name in owner.__all__ if listed else [n for n in vars(owner) if not n.startswith("_")]:
            value = getattr(owner, name)
            if inspect.isfunction(value) and (listed or value.__module__ == owner.__name__):
                yield f"{value.__module__}.{name}"
            elif inspect.isclass(value) and value.__module__.startswith("grclip"):
                yield f"{value.__module__}.{name}"
                yield from members(value)
    for owner in (grclip.scale.qdrant.QdrantRetriever,):  # modules that are imported by name, where they are used
        yield f"{owner.__module__}.{owner.__name__}"
        yield from members(owner)
    yield from members(BaseEncoder)
    yield from members(BaseRetriever)
    yield from members(CurveDisplay)


def members(owner):
    for name, item in vars(owner).items():
        public = not name.startswith("_") and not isinstance(item, RequestMethod)  # which scikit-learn adds
        if public and (inspect.isroutine(item) or isinstance(item, property | classmethod)):
            yield f"{owner.__module__}.{owner.__name__}.{name}"


PUBLIC = sorted(set(public()))
SHORT = {
    "get",
    "keys",
    "values",
    "items",
    "roles",
    "encoder",
    "shape",
    "kinds",
    "fingerprint",
    "client",
    "release_models",
    "rows",
    "notes",
    "half_in",
}
"""Members of a mapping or plain attributes: a line says it all."""

IGNORED = {
    "EX01",  # an example for each class and function; methods are shown in that of their class
    "SA01", "SA04",  # see also where there is something to see
    "ES01",  # an extended summary where the summary is not enough
    "GL08",  # no docstring: dealt with below
    "SS06",  # summaries of two lines
    "RT02", "RT03", "RT04", "RT05", "PR08", "PR09", "YD01",
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_have_complete_numpydoc(name):
    member = name.rsplit(".", 1)[1]
    result = numpydoc.validate.validate(name)
    assert result["docstring"], name
    if member in SHORT:
        return
    sections = numpydoc.docscrape.NumpyDocString(inspect.cleandoc(result["docstring"]))
    ignored = IGNORED
    if is_result(name):
        ignored = IGNORED | {"PR01"}
        listed = {field for attribute in sections["Attributes"] for field in attribute.name.split(", ")}
        assert listed >= set(inspect.signature(load(name)).parameters)
    assert [error for error in result["errors"] if error[0] not in ignored] == []
    assert sections["Raises"] or is_plain(name), "says what it raises"
    if is_top_level(name):
        assert sections["Examples"], "shows how it is used"
    if inspect.isroutine(load(name)):
        assert sections["Returns"] or member == "save" or member.startswith("write_"), "says what it returns"


def is_result(name):
    """Whether a name is that of what the diagnostics find or loaders return, which users read and do not make."""
    return is_plain(name) or (name.startswith("grclip.diagnostics") and dataclasses.is_dataclass(load(name)))


def is_plain(name):
    """Whether a name is that of a class that holds values and does nothing."""
    return name.startswith("grclip.datasets._dataset.")


def load(name):
    return pkgutil.resolve_name(name)


def is_top_level(name):
    """Whether a name is that of a class or a function, not of a method."""
    return "." not in getattr(load(name), "__qualname__", ".")


@pytest.mark.parametrize(
    "name", [name for name in PUBLIC if name.endswith("kneighbors") or (is_top_level(name) and not is_result(name))]
)
def test_documented_defaults_are_those_of_the_signature(name):
    value = load(name)
    documented = {
        part.name: part.type.rpartition("default=")[2]
        for part in numpydoc.docscrape.NumpyDocString(inspect.cleandoc(value.__doc__))["Parameters"]
        if "default=" in part.type
    }
    signature = inspect.signature(value)
    actual = {
        parameter.name: repr(parameter.default).replace("'", '"')
        for parameter in signature.parameters.values()
        if parameter.default is not inspect.Parameter.empty
    }
    assert documented == actual


def test_the_readme_example_runs_as_written(capsys):
    example = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(example) == 1
    code = [line for line in example[0].splitlines() if line.strip()]
    assert len(code) - sum(line.startswith(("import", "from")) for line in code) <= 15
    exec(compile(example[0], "README.md", "exec"), {})
    printed = capsys.readouterr().out
    score = float(printed.split("\n")[0].split()[-1])
    assert score > 0.9
    assert re.search(r"\[\[ *0 .*\n *\[ *1 ", printed), "each query finds its document first"


def test_the_readme_shows_what_its_example_prints(capsys):
    example, printed = re.search(
        r"```python\n(.*?)```\n\n```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    ).groups()
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out == printed


def run_blocks(page):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    names = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    return len(blocks), names


def test_the_blocks_of_the_guide_run_one_after_the_other(capsys):
    n_blocks, names = run_blocks("guide.md")
    assert n_blocks == 14
    printed = capsys.readouterr().out
    assert "'query': 200" in printed
    assert f"{names['tuned']['fuse'].alpha_} {names['tuned']['fuse'].best_score_}" in printed
    assert 0.1 < names["tuned"]["fuse"].alpha_ < 0.9
    assert names["per_query"].mean() > 0.8
    assert names["graded"] == names["qrels"]
    assert names["stored"].shape == (240, 32)


def test_the_blocks_of_the_encoder_page_run_one_after_the_other(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    n_blocks, names = run_blocks("encoders.md")
    assert n_blocks == 3
    printed = capsys.readouterr().out
    assert "['text+image' 'text'] 1 part cannot be read" in printed
    assert names["again"].encoder == names["encoder"].fingerprint


def test_the_blocks_of_the_datasets_page_run_one_after_the_other(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    n_blocks, names = run_blocks("datasets.md")
    assert n_blocks == 4
    printed = capsys.readouterr().out
    page = (ROOT / "docs" / "datasets.md").read_text()
    for told in re.findall(r"```text\n(Items.*?|0\..*?)```", page, re.DOTALL):
        assert told in printed
    assert "(512, 512)" in printed
    assert re.search(r"^q0 Q0 d0 1 \d\.\d{6} grclip$", printed, re.MULTILINE)
    assert sorted(set(names["mixed"].corpus.kinds)) == ["screenshot", "text"]


def test_the_block_of_the_reproduction_page_writes_what_the_benchmarks_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_blocks("reproduction.md")[0] == 1
    task, qrels, _ = grclip.datasets.load_mixbench("MSCOCO", "ROOT/train", corpus="full", check_counts=False)
    assert len(task) == len(task.corpus) == len(qrels) == 20


def test_the_blocks_and_commands_of_the_page_on_files_run_one_after_the_other(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "scale_files.md").read_text()
    blocks = re.findall(r"```(python|bash)\n(.*?)```", page, re.DOTALL)
    names = {}
    for language, block in blocks:
        assert max(map(len, block.splitlines())) <= 85, "lines are not cut where the page is 1280 pixels wide"
        if language == "python":
            exec(compile(block, "scale_files.md", "exec"), names)
            continue
        (tmp_path / "shards").mkdir(exist_ok=True)
        names["pq"].write_table(names["pq"].read_table("documents.parquet"), "shards/1.parquet")
        for command in block.replace("\\\n", " ").replace("shards/*.parquet", "shards/1.parquet").splitlines():
            assert grclip.cli.main(shlex.split(command)[1:]) == 0
    assert [language for language, _ in blocks] == [*["python"] * 4, "bash", "python", "bash"]
    out, err = capsys.readouterr()
    assert "['degap', 'fuse'] ViT-B-32/openai\nTrue\n{'text': 300, 'image': 300}\n" in out
    assert "(300, 10)" in out
    assert err == ""
    assert (names["rows"][:, 0] == np.arange(300)).mean() > 0.9
    assert Path("fused/1.parquet").read_bytes() == Path("fused.parquet").read_bytes()


def test_the_blocks_of_the_qdrant_page_run_one_after_the_other(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    n_blocks, names = run_blocks("scale_qdrant.md")
    assert n_blocks == 6
    first, _, again, between, score, alike = capsys.readouterr().out.splitlines()
    assert first == f"90 {again}"
    assert "-1" not in again
    assert between.count("scene-") == 3
    assert between.count("-inf") == 2
    assert float(score) > 0.9
    assert alike == "True"
    names["retriever"].close()


def test_the_blocks_of_the_diagnostics_page_run_one_after_the_other(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    n_blocks, names = run_blocks("diagnostics.md")
    assert n_blocks == 7
    printed = capsys.readouterr().out
    assert "Modality gap\nroles " in printed
    assert "raw, pushed down" in printed
    assert "report.html True" in printed
    assert len(names["display"].ax_) == 2
    plt.close("all")


def test_the_blocks_of_the_faiss_page_run_one_after_the_other(capsys):
    n_blocks, names = run_blocks("scale_faiss.md")
    assert n_blocks == 4
    assert np.mean(names["shares"]) > 0.95
    assert f"{names['tried'].best_params_}" in capsys.readouterr().out
    vectors, merged = names["vectors"], names["merged"]
    exact = grclip.ExactRetriever().fit(vectors).predict(vectors)
    assert merged.shape == (200, 10)
    assert np.mean([len(set(a) & set(b)) for a, b in zip(merged, exact, strict=True)]) > 5


def test_the_blocks_of_the_retrofit_page_run_one_after_the_other(capsys):
    n_blocks, names = run_blocks("scale_retrofit.md")
    assert n_blocks == 6
    printed = capsys.readouterr().out
    assert "scores as calibrated: True" in printed
    assert float(re.search(r"places as in exact search: (\S+)", printed)[1]) > 0.99
    assert float(re.search(r"places as in exact search, served: (\S+)", printed)[1]) > 0.99
    assert set(names["terms"].kinds[names["rows"]].ravel()) == {"text", "image", "text+image"}
    assert "scores of the server as calibrated: True" in printed


@pytest.mark.parametrize("page", ["scale_faiss.md", "scale_retrofit.md"])
def test_blocks_of_these_pages_are_not_cut_and_each_has_one_title(page):
    text = (ROOT / "docs" / page).read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert max(len(line) for block in blocks for line in block.splitlines()) <= 85
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert len(re.findall(r"^# ", prose, re.MULTILINE)) == 1


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_a_price_does_not_begin_a_formula(page):
    text = re.sub(r"```.*?```|`[^`]*`|\\\$|\$\$.*?\$\$", "", page.read_text(), flags=re.DOTALL)
    assert not re.findall(r"\$\d.*", re.sub(r"\$(?=\S)[^$]*(?<=\S)\$", "", text)), r"write \$2, not $2"


def test_the_readme_has_two_commands():
    commands = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert [len(command.strip().splitlines()) for command in commands] == [1, 1]
    assert commands[0].strip().endswith("grclip demo")
    assert "pytest" in commands[1]


def test_the_readme_quotes_the_figures_of_the_benchmark_page():
    rows = [
        line.split("|", 2)[2] for line in (ROOT / "README.md").read_text().splitlines() if re.match(r"\|.*\d\.\d", line)
    ]
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    assert len(rows) == 3
    for row in rows:
        assert row in page


def test_packaging():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    features = {
        "open-clip", "sentence-transformers", "transformers", "datasets", "parquet", "media", "plots", "eval", "ray",
        "qdrant", "faiss",
    }  # fmt: skip
    assert set(extras) == features | {"all", "test", "docs"}
    assert {re.split("[>=<]", name)[0] for name in project["project"]["dependencies"]} == {
        "torch", "numpy", "scikit-learn", "scipy", "joblib", "safetensors", "tqdm"
    }  # fmt: skip
    assert set(re.search(r"\[(.*)\]", extras["all"][0])[1].split(",")) == features
    floors = {name: [wish for wish in extras[name] if wish.startswith("pyarrow")] for name in ("datasets", "ray")}
    assert list(floors.values()) == [extras["parquet"]] * 2
    assert (ROOT / "grclip" / "py.typed").exists()
    assert grclip.__version__ in (ROOT / "CHANGELOG.md").read_text()
