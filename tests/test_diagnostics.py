"""What holds for all diagnostics: tables, untouched input, chance, real CLIP, and what cannot be meant."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import torch
from searches import centred, make_complete, raw
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from strategies import lay_out

from benchmarks import diagnostics as benchmark
from grclip import ExactRetriever, Items, ModalityGapRemover, MultimodalFuser, SearchTask
from grclip.datasets import make_scenes
from grclip.diagnostics import alpha_curve, calibration_size, compare, modality_bias, modality_gap, replacement_curve
from grclip.encoders import toy_encoder


class Text(HTMLParser):
    """Tags and text of a page, as a browser would see them."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.texts.append(data)


EVIL = "<script>alert('&')</script>"


@pytest.fixture
def results(rng):
    """One result of each sort, with names that must be escaped and something that is not measurable."""
    x = rng.normal(size=(2, 24, 8))
    text, image = x.copy()
    text[::2] = np.nan
    task = SearchTask(Items({"query": x[0]}), Items({"text": text, EVIL: image}))
    modalities, qrels = {EVIL: "image"}, [{i: 1} if i % 2 else {} for i in range(24)]
    method = raw(modalities=modalities).fit(task)
    return {
        "gap": modality_gap({EVIL: x[0], "b": x[1]}),
        "bias": modality_bias(task, method.predict(task), qrels, k=3),
        "compare": compare(task, qrels, {EVIL: method, "b": method}),
        "replacement": replacement_curve(task, qrels, {EVIL: method}, modalities=modalities, n_repeats=1),
        "alpha": alpha_curve(task, qrels, {EVIL: method}, [0, 0.5]),
        "size": calibration_size(
            task, qrels, {EVIL: centred(modalities=modalities)}, (task, qrels), [1, 20], n_repeats=2
        ),
    }


class TestTables:
    def test_html_is_escaped(self, results):
        for name, result in results.items():
            page = Text(result._repr_html_())
            assert set(page.tags) == {"table", "caption", "thead", "tbody", "tr", "th", "td", "p"}, name
            assert any(EVIL in text for text in page.texts), name

    def test_what_is_not_measurable_is_a_dash_and_says_why(self, results):
        for name in ("gap", "compare", "size"):
            shown, page = str(results[name]), Text(results[name]._repr_html_())
            assert re.search(r" -( |$)", shown, flags=re.MULTILINE), name
            assert "-" in page.texts, name
            assert not re.search(r"\bnan\b", shown, flags=re.IGNORECASE), name
            assert "not measurable" in shown, name
            assert any("not measurable" in text for text in page.texts), name
        for name in ("bias", "compare", "replacement", "alpha"):
            assert "left out: 12 queries (0, 2, 4, 6, 8, ...) without a relevant document" in str(results[name])

    def test_rows_are_those_of_a_data_frame(self, results):
        frames = {name: pd.DataFrame(result.rows) for name, result in results.items() if name != "size"}
        frames |= {"scores": pd.DataFrame(results["size"].scores.rows)}
        assert frames["gap"]["roles"].tolist() == [f"{EVIL} - b"]
        assert frames["compare"][frames["compare"]["kind"] == "all"]["ndcg"].nunique() == 1
        assert frames["bias"]["in corpus"].sum() == pytest.approx(1)
        assert frames["replacement"]["0.25"].between(0, 1).all()
        assert frames["alpha"].columns.tolist() == ["method", "0.0", "0.5"]
        assert frames["scores"].columns.tolist() == ["method", "1", "20"]

    def test_columns_line_up(self, mixed, methods):
        lines = str(compare(*mixed, methods)).splitlines()
        assert lines[0] == "Metrics at 10 of 30 queries, by kind of relevant document; p-values against 'raw'"
        assert lines[1].split() == ["method", "kind", "n_queries", "ndcg", "recall", "reciprocal_rank", "ndcg_p"]
        assert len(lines) == 2 + 12
        assert len({line.index("text") for line in lines if " text " in line}) == 1

    def test_representations_are_short(self, results):
        for result in results.values():
            assert len(repr(result)) < 4000
        assert repr(results["gap"]) == "<ModalityGap: Modality gap>"


def everything(task, qrels, *, random_state=0):
    """All numbers that the diagnostics give, in one flat list."""
    methods = {"raw": raw().fit(task), "centred": centred().fit(task)}
    options = {"random_state": random_state}
    gap = modality_gap(task, qrels, **options)
    bias = modality_bias(task, methods["raw"].predict(task), qrels, n_resamples=99, **options)
    comparison = compare(task, qrels, methods, n_resamples=99, **options)
    curve = replacement_curve(task, qrels, methods, [0.5], n_repeats=2, **options)
    size = calibration_size(task, qrels, methods, (task, qrels), [10, 20], n_repeats=2, **options)
    arrays = [
        [pair.separability for pair in gap.pairs.values()],
        bias.interval,
        [row["ndcg_p"] or 0 for row in comparison.rows],
        *curve.scores.values(),
        *alpha_curve(task, qrels, methods, [0.5]).scores.values(),
        *size.scores.scores.values(),
        *size.errors.scores.values(),
    ]
    return np.concatenate([np.ravel(array) for array in arrays])


@pytest.mark.parametrize("layout", ["c", "f", "step", "back", "read-only", "big-endian"])
def test_input_stays_as_it_is(complete, layout):
    task, qrels = complete
    parts = {role: part.astype("float32") for side in (task.queries, task.corpus) for role, part in side.items()}
    expected = everything(task, qrels)
    parts = {role: lay_out(part, layout) for role, part in parts.items()}
    task = SearchTask(Items({"query": parts["query"]}), Items({role: parts[role] for role in ("text", "image")}))
    before = {role: part.copy() for role, part in parts.items()}
    found = everything(task, qrels)
    for role, part in parts.items():
        np.testing.assert_array_equal(part, before[role])
    assert qrels == [{i: 1} for i in range(40)]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_chance_is_drawn_from_random_state_alone(rng):
    task, qrels = make_complete(rng, noise=2.0)
    np.random.seed(1)  # noqa: NPY002 (the global state is what this is about)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    torch_state = torch.get_rng_state()
    first = everything(task, qrels)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.random.seed(2)  # noqa: NPY002
    np.testing.assert_array_equal(everything(task, qrels), first)
    assert (everything(task, qrels, random_state=1) != first).any()


def test_encoders_on_raw_items():
    task, qrels = make_scenes(24, random_state=0, size=64)
    encoder = toy_encoder()
    pipeline = make_pipeline(encoder, *centred(equalize=True)).fit(task, qrels)
    encoded = encoder.transform(task)
    from_vectors = pipeline[1:]
    result = compare(task, qrels, {"raw items": pipeline})
    np.testing.assert_array_equal(result.rankings["raw items"], from_vectors.predict(encoded))
    first = replacement_curve(task, qrels, pipeline, [0, 0.5, 1], n_repeats=1)
    second = replacement_curve(encoded, qrels, from_vectors, [0, 0.5, 1], n_repeats=1)
    for name in first.scores:
        np.testing.assert_allclose(first.scores[name], second.scores[name], atol=1e-6)
    alone = alpha_curve(encoded, qrels, from_vectors, [0.5]).mean("pipeline")
    assert alpha_curve(task, qrels, pipeline, [0.5]).mean("pipeline") == pytest.approx(alone)
    assert modality_bias(task, result.rankings["raw items"], qrels).kinds == ("text+image",)


def test_roles_of_odd_names(rng):
    x = rng.normal(size=(3, 12, 5))
    x[0, ::2], x[1, 1::2] = np.nan, np.nan
    corpus, modalities = Items({"text": x[0], "text+image": x[1]}), {"q<": "text"}
    task, qrels = SearchTask(Items({"q<": x[2]}), corpus), [{i: 1} for i in range(12)]
    method = raw(modalities=modalities).fit(task)
    result = compare(task, qrels, method)
    assert result.kinds == ("text", "text+image")
    assert [row["n_queries"] for row in result.rows] == [12, 6, 6]
    assert list(modality_gap(task, qrels).pairs) == [("q<", "text"), ("q<", "text+image"), ("text", "text+image")]


class TestRealClip:
    def test_gaps(self, real_clip):
        expected = {"coco500": 0.85, "flickr8k100x5": 0.84, "photos290": 0.92, "design patents": 1.01}
        for name, gap in benchmark.gaps(real_clip).items():
            pair = gap["text", "image"]
            assert pair.distance == pytest.approx(expected.pop(name), abs=0.01)
            assert pair.separability > 0.99
            assert pair.by_dimension.sum() == pytest.approx(1)
        assert not expected

    @pytest.mark.parametrize("centred", [False, True])
    def test_spreads(self, real_clip, centred):
        gap = benchmark.photo_gap(real_clip, centred=centred)
        assert gap["query", "text"].centred_spread == pytest.approx(0.176, abs=0.005)
        assert gap["query", "image"].centred_spread == pytest.approx(0.098, abs=0.005)

    def test_u_curve(self, real_clip):
        found = benchmark.u_curve(real_clip)
        for method, row in {
            "means removed": [0.846, 0.796, 0.730, 0.643, 0.645, 0.726, 0.899],
            "one scale": [0.846, 0.849, 0.856, 0.867, 0.882, 0.889, 0.899],
        }.items():
            assert found.mean(method).tolist() == pytest.approx(row, abs=0.02)
        unaided, pushed = found.mean("raw"), found.mean("raw, pushed down")
        assert min(unaided) < 0.3 < unaided[0]
        assert pushed.tolist() == pytest.approx(unaided.tolist(), abs=0.05)

    def test_one_corpus(self, real_clip):
        comparison, biases = benchmark.one_corpus(real_clip)
        by_kind = {(row["method"], row["kind"]): row for row in comparison.rows}
        assert by_kind["raw", "image"]["ndcg"] < 0.05
        assert by_kind["one scale", "all"]["ndcg_p"] < 0.001
        shares = {name: dict(zip(bias.kinds, bias.top_share, strict=True)) for name, bias in biases.items()}
        assert shares["raw"]["image"] < 0.02
        assert shares["one scale"]["image"] > 0.2
        for name, bias in biases.items():
            ours = {row["kind"]: row["ndcg"] for row in bias.scores}
            assert ours == pytest.approx({kind: by_kind[name, kind]["ndcg"] for kind in ours})


class TestWhatCannotBeMeant:
    """Arguments that would give a table of nothing, or of something else."""

    @pytest.fixture
    def search(self, mixed):
        task, qrels = mixed
        return task, qrels, make_pipeline(ModalityGapRemover(), MultimodalFuser(), ExactRetriever(k=5))

    def test_a_method_that_no_subset_suits_is_an_error(self, search):
        task, qrels, pipeline = search
        pipeline.set_params(multimodalfuser__alpha=7)
        with pytest.raises(ValueError, match="alpha must be a number from 0 to 1"):
            calibration_size(task, qrels, pipeline, (task, qrels), [10, 30])

    def test_a_frozen_pipeline_is_searched_with_and_not_fitted_again(self, search):
        task, qrels, pipeline = search
        frozen = FrozenEstimator(pipeline.fit(task))
        assert compare(task, qrels, frozen).rows == compare(task, qrels, pipeline).rows
        for again in (alpha_curve, lambda *a: calibration_size(*a, (task, qrels))):
            with pytest.raises(TypeError, match=r"methods\['pipeline'\] is frozen"):
                again(task, qrels, frozen)

    def test_a_search_that_has_found_nothing_yet_is_named(self, search):
        task, qrels, pipeline = search
        grid = GridSearchCV(pipeline, {"multimodalfuser__alpha": [0.5]})
        with pytest.raises(NotFittedError, match=r"methods\['grid'\] is not fitted"):
            compare(task, qrels, {"grid": grid})

    def test_points_of_a_curve(self, search):
        task, qrels, pipeline = search
        with pytest.raises(ValueError, match="alphas holds a number twice"):
            alpha_curve(task, qrels, pipeline, [0.5, 0.5])
        with pytest.raises(TypeError, match="alphas is 'half'; expected numbers"):
            alpha_curve(task, qrels, pipeline, "half")

    def test_the_name_of_the_simulation_is_taken(self, search):
        task, qrels, pipeline = search
        methods = dict.fromkeys(("raw", "raw, pushed down"), pipeline.fit(task))
        with pytest.raises(ValueError, match="call it something else"):
            replacement_curve(task, qrels, methods)

    def test_one_role_is_no_pair(self, search):
        task, *_ = search
        for roles in ("text", ("text",), ("text", "image", "query")):
            with pytest.raises(KeyError, match="take two roles"):
                modality_gap(task)[roles]

    def test_one_resample_has_no_interval(self, search):
        task, _, pipeline = search
        with pytest.raises(ValueError, match="n_resamples must be at least 2"):
            modality_bias(task, pipeline.fit(task).predict(task), k=5, n_resamples=1)

    def test_random_states_are_those_of_scikit_learn(self, search):
        task, qrels, pipeline = search
        ranking = pipeline.fit(task).predict(task)
        for measure in (
            lambda state: modality_bias(task, ranking, k=5, random_state=state).interval.tolist(),
            lambda state: compare(task, qrels, {"a": pipeline, "b": pipeline}, random_state=state).rows,
            lambda state: str(modality_gap(task, random_state=state)),
        ):
            assert measure(3) == measure(np.random.RandomState(3))
