"""The displays: what they draw is what was measured, and it can be read."""

import subprocess
import sys
import warnings
from dataclasses import replace
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from grclip import ExactRetriever, Items, ModalityGapRemover, MultimodalFuser, SearchTask
from grclip.diagnostics import (
    CalibrationSize,
    Curve,
    ModalityBias,
    alpha_curve,
    calibration_size,
    modality_bias,
    replacement_curve,
)
from grclip.metrics import retrieval_scorer
from grclip.plots import (
    AlphaCurveDisplay,
    CalibrationSizeDisplay,
    EmbeddingDisplay,
    ReplacementCurveDisplay,
    SimilarityHistogramDisplay,
    TopKShareDisplay,
)
from grclip.plots._palette import OKABE_ITO, THEMES, looks_of_kinds, looks_of_methods, looks_of_pairs

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


@pytest.fixture
def whole(rng):
    """A task whose documents all have both parts, and its qrels."""
    topics, gap = rng.normal(size=(40, 16)), 3 * rng.normal(size=(3, 16))
    query, text, image = (topics + 0.3 * rng.normal(size=(40, 16)) + shift for shift in gap)
    return SearchTask(Items({"query": query}), Items({"text": text, "image": image})), [{i: 1} for i in range(40)]


def pipelines(task, qrels):
    methods = {
        "raw": make_pipeline(MultimodalFuser(), ExactRetriever()),
        "means removed": make_pipeline(ModalityGapRemover(), MultimodalFuser(), ExactRetriever()),
        "one scale": make_pipeline(ModalityGapRemover(), MultimodalFuser(equalize=True), ExactRetriever()),
    }
    return {name: method.fit(task, qrels) for name, method in methods.items()}


def bias(top=(0.9, 0.1), corpus=(0.6, 0.4), kinds=("text", "image"), k=10):
    top = np.array(top)
    interval = np.stack([top - 0.05, top + 0.02], axis=1)
    unknown = np.full(len(kinds), np.nan)
    return ModalityBias(k, kinds, np.array(corpus), top, interval, top[None], unknown, [], ())


CURVE = {
    "p": Curve(
        "p",
        np.array([0.0, 0.5, 1.0]),
        {
            "raw": np.array([[0.9, 0.8], [0.3, 0.5], [0.8, 0.9]]),
            "flat": np.array([[0.9, 0.9], [np.nan, np.nan], [0.8, 0.8]]),
            "raw, pushed down": np.array([[0.9, 0.8], [0.2, 0.3], [0.8, 0.9]]),
        },
        "NDCG@10",
        "random corpora",
    ),
    "alpha": Curve(
        "alpha",
        np.array([0.0, 0.4, 1.0]),
        {"raw": np.array([[0.5, 0.3], [0.7, 0.9], [0.6, 0.4]]), "none": np.full((3, 2), np.nan)},
        "NDCG@5",
        "queries",
    ),
    "n": Curve("n", np.array([10, 100, 1000]), {"raw": np.array([[0.5], [0.6], [0.6]])}, "NDCG@10", "random subsets"),
}
ERRORS = Curve(
    "n",
    np.array([10, 100, 1000]),
    {"text": np.array([[0.3, 0.2], [0.1, 0.1], [0.0, 0.0]]), "image": np.array([[0.2, 0.2], [0.1, 0.1], [0.0, 0.0]])},
    "distance to the mean of all rows",
    "random subsets",
)
EXPECTED = {role: 0.9 / np.sqrt(ERRORS.values) for role in ERRORS.scores}
SIZE = CalibrationSize(CURVE["n"], ERRORS, EXPECTED)
SIMILARITIES = np.array([[0.9, 0.5, 0.2, 0.3], [0.4, 0.8, 0.1, 0.2], [0.6, 0.7, 0.3, 0.1]])
KINDS = (["query"] * 3, ["text", "text", "image", "image"])
RELEVANT = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], dtype=bool)
PARTS = {"text": np.eye(6) + 2, "image": np.eye(6)[:4] - 2}

DRAWN = {
    "embedding": lambda **options: EmbeddingDisplay.from_predictions(PARTS, **options),
    "embeddings": lambda **options: EmbeddingDisplay.from_estimator(ModalityGapRemover().fit(PARTS), PARTS, **options),
    "similarity": lambda **options: SimilarityHistogramDisplay.from_predictions(
        SIMILARITIES, *KINDS, RELEVANT, **options
    ),
    "replacement": lambda **options: ReplacementCurveDisplay.from_predictions(CURVE["p"], **options),
    "alpha": lambda **options: AlphaCurveDisplay.from_predictions(CURVE["alpha"], **options),
    "calibration": lambda **options: CalibrationSizeDisplay.from_predictions(SIZE, **options),
    "share": lambda **options: TopKShareDisplay.from_predictions({"raw": bias(), "fair": bias((0.6, 0.4))}, **options),
}
TWO = ("embeddings", "calibration")


def panels(display):
    return list(np.ravel(display.ax_))


def every(name):
    return pytest.mark.parametrize(name, DRAWN)


# What all displays share


@every("name")
def test_a_display_draws_on_a_figure_of_its_own_that_pyplot_knows(name):
    display = DRAWN[name]()
    assert plt.get_fignums() == [display.figure_.number]
    assert all(ax.figure is display.figure_ for ax in panels(display))
    assert len(panels(display)) == (2 if name in TWO else 1)
    assert (display.figure_.get_size_inches() * display.figure_.dpi).tolist() == [600, 400]


@every("name")
def test_a_display_draws_on_the_axes_of_the_caller(name):
    _, axes = plt.subplots(1, 2)
    given = axes if name in TWO else axes[1]
    display = DRAWN[name](ax=given)
    assert panels(display) == list(np.ravel(given))
    assert isinstance(display.ax_, np.ndarray) == (name in TWO)
    assert len(plt.get_fignums()) == 1
    assert panels(display)[-1].get_legend() is not None
    if name not in TWO:
        assert not axes[0].has_data()


@every("name")
def test_plot_can_be_called_again(name):
    display = DRAWN[name]()
    first = display.figure_
    assert display.plot(theme="dark") is display
    assert display.figure_ is not first


@every("name")
def test_global_settings_stay_as_they_were(name):
    with matplotlib.rc_context({"font.size": 3, "text.color": "red", "axes.labelsize": 4}):
        before = dict(matplotlib.rcParams)
        DRAWN[name](theme="dark").figure_.canvas.draw()
        assert dict(matplotlib.rcParams) == before


@every("name")
@pytest.mark.parametrize("theme", THEMES)
def test_all_text_can_be_read_and_lies_inside_the_figure(name, theme):
    figure = DRAWN[name](theme=theme).figure_
    figure.canvas.draw()
    assert figure.get_facecolor()[:3] == to_rgb(THEMES[theme].background)
    texts = [text for text in figure.findobj(matplotlib.text.Text) if text.get_text() and text.get_visible()]
    assert len(texts) > 5
    for text in texts:
        assert contrast(text.get_color(), THEMES[theme].background) >= 4.5, text
        assert text.get_fontsize() >= 9, text
    for label in labels(figure):
        box = label.get_window_extent()
        assert box.x0 >= 0, label
        assert box.y0 >= 0, label
        assert box.x1 <= figure.bbox.x1, label
        assert box.y1 <= figure.bbox.y1, label


def labels(figure):
    """Labels of axes, titles and legend entries."""
    for ax in figure.axes:
        yield from (ax.xaxis.label, ax.yaxis.label, ax.title)
    for legend in figure.findobj(matplotlib.legend.Legend):
        yield from legend.get_texts()


@every("name")
def test_a_legend_of_our_own_figure_covers_no_data(name):
    figure = DRAWN[name]().figure_
    figure.canvas.draw()
    legends = figure.findobj(matplotlib.legend.Legend)
    assert legends
    for legend in legends:
        for ax in figure.axes:
            assert not legend.get_window_extent().overlaps(ax.get_window_extent())


@every("name")
def test_an_unknown_theme_is_an_error_and_leaves_no_figure(name):
    with pytest.raises(ValueError, match=r"theme must be one of 'light', 'dark'; got 'sepia'"):
        DRAWN[name](theme="sepia")
    assert plt.get_fignums() == []


@every("name")
def test_ax_of_a_wrong_type_or_number_is_an_error(name):
    wanted = "a sequence of 2 Axes, one a panel" if name in TWO else "one Axes"
    with pytest.raises(TypeError, match=f"ax must be {wanted}, of matplotlib; got str"):
        DRAWN[name](ax="here")
    _, axes = plt.subplots(1, 3)
    with pytest.raises(ValueError, match=f"ax must be {wanted}; got 3"):
        DRAWN[name](ax=axes)
    if name in TWO:
        with pytest.raises(ValueError, match=f"ax must be {wanted}; got 1"):
            DRAWN[name](ax=axes[0])


@every("name")
def test_without_matplotlib_the_error_names_the_extra(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r'Display needs \'matplotlib\'.*pip install "grclip\[plots\]"'):
        DRAWN[name]()


def test_a_drawing_that_fails_leaves_no_figure():
    with pytest.raises(AttributeError, match="colour"):
        ReplacementCurveDisplay.from_predictions(CURVE["p"], line_kw={"colour": "red"})
    assert plt.get_fignums() == []
    figure, ax = plt.subplots()
    with pytest.raises(AttributeError, match="colour"):
        ReplacementCurveDisplay.from_predictions(CURVE["p"], line_kw={"colour": "red"}, ax=ax)
    assert plt.get_fignums() == [figure.number]


def test_importing_plots_does_not_load_matplotlib():
    code = "import sys, grclip.plots; print([name for name in ('matplotlib', 'umap') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Colours, markers and lines


def luminance(colour):
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot(channels, [0.2126, 0.7152, 0.0722]))


def contrast(one, other):
    light, dark = sorted([luminance(one), luminance(other)], reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(("name", "background"), [("light", "#ffffff"), ("dark", "#14181f")])
def test_contrast_of_the_palette(name, background):
    theme = THEMES[name]
    assert theme.background == background
    assert contrast(theme.text, background) >= 4.5
    for colour in theme.colours:
        assert contrast(colour, background) >= 3, colour
    assert set(theme.colours) <= {*OKABE_ITO.values(), theme.text}


@pytest.mark.parametrize("theme", THEMES)
def test_looks_are_fixed_and_never_differ_by_colour_alone(theme):
    theme = THEMES[theme]
    names = ["query", "text", "image", "text+image", "audio", "video", "query_image"]
    looks = looks_of_kinds(names, theme)
    assert looks_of_kinds(["image"], theme)["image"] == looks["image"]
    assert looks_of_kinds(["image+text"], theme)["image+text"] == looks["text+image"]
    for cue in ("marker", "hatch"):
        assert len({getattr(look, cue) for look in looks.values()}) == len(names)
    assert len({looks[name].colour for name in names[:5]}) == 5
    assert len({look.colour for look in looks_of_kinds(["title", "body", "image"], theme).values()}) == 3
    assert len({looks[name].dash for name in names[:4]}) == 4
    methods = looks_of_methods("abcdefg", theme)
    assert len({look.marker for look in methods.values()}) == 7
    assert len({methods[name].colour for name in "abcde"}) == 5


def test_pairs_with_one_kind_of_document_share_its_colour_and_differ_in_marker_and_line():
    looks = looks_of_pairs([("query", "text"), ("query_image", "text"), ("query_image", "image")], THEMES["light"])
    one, other, third = looks.values()
    assert one.colour == other.colour != third.colour
    assert one.marker != other.marker
    assert one.dash != other.dash


# EmbeddingDisplay


def reference_points(parts):
    """Points by role, the obvious way."""
    units = {role: x / np.linalg.norm(x, axis=1, keepdims=True) for role, x in parts.items()}
    stacked = np.concatenate(list(units.values()))
    pca = PCA(2, svd_solver="full").fit(stacked)
    return {role: pca.transform(x) for role, x in units.items()}, pca.explained_variance_ratio_


def drawn_points(scatter):
    return np.asarray(scatter.get_offsets())


def test_points_are_those_of_a_pca_over_unit_rows_of_all_roles(rng):
    parts = {"text": 5 * rng.normal(size=(30, 8)) + 2, "image": rng.normal(size=(20, 8)) - 2}
    display = EmbeddingDisplay.from_predictions(parts)
    expected, variance = reference_points(parts)
    for role, scatter in display.scatters_[0].items():
        np.testing.assert_allclose(np.abs(drawn_points(scatter)), np.abs(expected[role]), atol=1e-8)
    np.testing.assert_allclose(display.variance[0], variance)
    assert display.ax_.get_xlabel() == f"PC 1 ({100 * variance[0]:.0f} % of variance)"
    assert display.ax_.get_ylabel() == f"PC 2 ({100 * variance[1]:.0f} % of variance)"
    assert display.ax_.get_title() == "Embeddings by role"
    assert display.ax_.get_aspect() == 1


def test_before_and_after_show_the_same_rows(mixed):
    task, _ = mixed
    remover = ModalityGapRemover().fit(task)
    display = EmbeddingDisplay.from_estimator(remover, task, max_rows=5)
    assert [ax.get_title() for ax in display.ax_] == ["Before", "After"]
    assert [{role: len(x) for role, x in points.items()} for points in display.points] == [
        {"query": 5, "text": 5, "image": 5}
    ] * 2
    every = EmbeddingDisplay.from_estimator(remover, task)
    assert [len(x) for x in every.points[0].values()] == [30, 20, 20]
    after = {role: x[~np.isnan(x[:, 0])] for role, x in both_sides(remover.transform(task)).items()}
    expected, _ = reference_points(after)
    for role, scatter in every.scatters_[1].items():
        np.testing.assert_allclose(np.abs(drawn_points(scatter)), np.abs(expected[role]), atol=1e-6)
    assert distance_of_means(every.points[0]) > 5 * distance_of_means(every.points[1])


def both_sides(task):
    return {**task.queries, **task.corpus}


def distance_of_means(points):
    return np.linalg.norm(points["text"].mean(0) - points["image"].mean(0))


def test_a_pipeline_is_drawn_after_its_first_step(mixed):
    task, qrels = mixed
    pipeline = make_pipeline(ModalityGapRemover(), MultimodalFuser(), ExactRetriever()).fit(task, qrels)
    search = GridSearchCV(pipeline, {"multimodalfuser__alpha": [0.5]}, scoring=retrieval_scorer(), cv=2).fit(
        task, qrels
    )
    of_step = EmbeddingDisplay.from_estimator(pipeline[0], task)
    for estimator in (pipeline, search):
        for role, points in EmbeddingDisplay.from_estimator(estimator, task).points[1].items():
            np.testing.assert_array_equal(points, of_step.points[1][role])


def test_missing_and_zero_rows_are_not_drawn_and_the_sample_is_reproducible(rng):
    text = rng.normal(size=(50, 6))
    text[0], text[1] = np.nan, 0
    parts = {"text": text, "image": rng.normal(size=(50, 6))}
    assert len(EmbeddingDisplay.from_predictions(parts).points[0]["text"]) == 48
    one, same, other = (EmbeddingDisplay.from_predictions(parts, max_rows=20, random_state=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.points[0]["image"], same.points[0]["image"])
    assert not np.allclose(one.points[0]["image"], other.points[0]["image"])


def test_tensors_are_drawn_as_arrays_are():
    tensors = {role: torch.tensor(x, requires_grad=True) for role, x in PARTS.items()}
    one, other = (EmbeddingDisplay.from_predictions(x) for x in (PARTS, tensors))
    np.testing.assert_allclose(one.points[0]["text"], other.points[0]["text"])
    half = EmbeddingDisplay.from_predictions({role: x.bfloat16() for role, x in tensors.items()})
    np.testing.assert_allclose(np.abs(one.points[0]["text"]), np.abs(half.points[0]["text"]), atol=0.02)


def test_points_can_be_styled():
    display = EmbeddingDisplay.from_predictions(PARTS, scatter_kw={"s": 50, "alpha": 1.0}, name="")
    assert display.scatters_[0]["text"].get_sizes().tolist() == [50]
    assert display.ax_.get_title() == ""


@pytest.mark.parametrize(
    ("X", "error", "match"),
    [
        ({"text": np.eye(3)}, ValueError, "rows of 'text' alone; the plot compares roles"),
        ({"text": np.eye(3), "image": np.full((3, 3), np.nan)}, ValueError, "rows of 'text' alone"),
        ({"text": np.zeros((3, 3)), "image": np.zeros((3, 3))}, ValueError, "rows of no role alone"),
        (np.eye(3), TypeError, "X must be a SearchTask, Items or a dict of embeddings by role"),
        ({"text": np.eye(3), "image": np.eye(4)}, ValueError, "role 'image' has 4 features, but role 'text' has 3"),
        ({"text": np.ones((3, 1)), "image": np.ones((3, 1))}, ValueError, "X has 1 feature; a plane needs"),
        ({"text": [[1.0, np.nan], [1.0, 2.0]], "image": np.eye(2)}, ValueError, r"role 'text'.*in 1 row \(0\)"),
        (Items({"text": ["a"], "image": ["a.jpg"]}), TypeError, "encode them first"),
        (SearchTask(np.eye(3), np.eye(3)), TypeError, "holds plain arrays"),
    ],
)
def test_what_cannot_be_projected_is_an_error(X, error, match):
    with pytest.raises(error, match=match):
        EmbeddingDisplay.from_predictions(X)
    assert plt.get_fignums() == []


def test_estimators_that_do_not_give_parts_are_errors(mixed):
    task, qrels = mixed
    with pytest.raises(TypeError, match=r"estimator must be a fitted ModalityGapRemover, .*; got ExactRetriever"):
        EmbeddingDisplay.from_estimator(ExactRetriever(), task)
    with pytest.raises(TypeError, match="MultimodalFuser gives one vector a row and no roles"):
        EmbeddingDisplay.from_estimator(MultimodalFuser().fit(task, qrels), task)
    with pytest.raises(NotFittedError, match="ModalityGapRemover"):
        EmbeddingDisplay.from_estimator(ModalityGapRemover(), task)


def test_unknown_methods_and_numbers_of_rows_are_errors():
    with pytest.raises(ValueError, match="method must be one of 'pca', 'umap'; got 'tsne'"):
        EmbeddingDisplay.from_predictions(PARTS, method="tsne")
    with pytest.raises(ValueError, match="max_rows must be a whole number of at least 1; got 0"):
        EmbeddingDisplay.from_predictions(PARTS, max_rows=0)
    with pytest.raises(ValueError, match=r"names must be 2 titles, one a panel; got \('Before',\)"):
        EmbeddingDisplay.from_estimator(ModalityGapRemover().fit(PARTS), PARTS, names=("Before",))


def test_umap_names_its_package_where_it_is_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ModuleNotFoundError, match="pip install umap-learn"):
        EmbeddingDisplay.from_predictions(PARTS, method="umap")


def test_a_umap_that_lacks_something_of_its_own_says_what(monkeypatch, tmp_path):
    (tmp_path / "umap.py").write_text("import a_library_that_nobody_has")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "umap", raising=False)
    with pytest.raises(ModuleNotFoundError, match="a_library_that_nobody_has"):
        EmbeddingDisplay.from_predictions(PARTS, method="umap")


def test_umap_where_it_is_installed(rng):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those that its import raises
        pytest.importorskip("umap", reason="umap-learn is not installed, and no extra brings it")
        parts = {"text": rng.normal(size=(30, 8)) + 3, "image": rng.normal(size=(30, 8)) - 3}
        display = EmbeddingDisplay.from_predictions(parts, method="umap")
    assert display.variance == [None]
    assert display.points[0]["text"].shape == (30, 2)
    assert display.ax_.get_xlabel() == "UMAP 1 (no unit)"
    assert not set(map(tuple, display.points[0]["text"])) & set(map(tuple, display.points[0]["image"]))


# SimilarityHistogramDisplay


def test_histograms_hold_the_share_of_unrelated_pairs_of_each_bin():
    display = SimilarityHistogramDisplay.from_predictions(SIMILARITIES, *KINDS, RELEVANT, bins=8)
    np.testing.assert_allclose(display.edges, np.linspace(0.1, 0.9, 9))
    for kind, columns in {"text": slice(0, 2), "image": slice(2, 4)}.items():
        unrelated = SIMILARITIES[:, columns][~RELEVANT[:, columns]]
        expected = np.histogram(unrelated, display.edges)[0] / len(unrelated)
        np.testing.assert_allclose(display.unrelated["query", kind], expected)
        drawn = display.unrelated_["query", kind].get_data()
        held = np.flatnonzero(expected)
        np.testing.assert_allclose(drawn.values, 100 * expected[held[0] : held[-1] + 1])
        np.testing.assert_allclose(drawn.edges, display.edges[held[0] : held[-1] + 2])
        relevant = np.sort(SIMILARITIES[:, columns][RELEVANT[:, columns]])
        np.testing.assert_allclose(display.relevant_["query", kind].get_xdata(), relevant)
        assert display.medians_["query", kind].get_xdata() == pytest.approx([np.median(relevant)])
    assert display.ax_.get_xlabel() == "similarity (dot product)"
    assert display.ax_.get_ylabel() == "share of unrelated pairs (% a bin)"
    assert min(display.ax_.get_yticks()) == 0


def test_without_relevant_pairs_there_are_histograms_alone():
    display = SimilarityHistogramDisplay.from_predictions(SIMILARITIES, *KINDS, unit="cosine", name="")
    assert display.relevant_ == {}
    assert display.ax_.get_ylim()[0] == 0
    assert display.ax_.get_xlabel() == "similarity (cosine)"
    assert [text.get_text() for text in display.figure_.legends[0].get_texts()] == ["query - text", "query - image"]


def test_similarities_that_are_not_finite_are_left_out():
    similarities = SIMILARITIES.copy()
    similarities[0, 1], similarities[1, 0], similarities[2, 2] = -np.inf, np.nan, np.nan
    display = SimilarityHistogramDisplay.from_predictions(similarities, *KINDS, RELEVANT)
    assert list(display.relevant) == [("query", "text")]
    text = similarities[:, :2][~RELEVANT[:, :2]]
    expected = np.histogram(text[np.isfinite(text)], display.edges)[0] / 2
    np.testing.assert_allclose(display.unrelated["query", "text"], expected)


def test_many_relevant_pairs_are_thinned_by_rank(rng):
    similarities = rng.normal(size=(2500, 1))
    relevant = np.ones((2500, 1), dtype=bool)
    relevant[0] = False
    display = SimilarityHistogramDisplay.from_predictions(similarities, ["query"] * 2500, ["image"], relevant)
    ticks = display.relevant_["query", "image"].get_xdata()
    assert 500 < len(ticks) <= 1000
    assert ticks[0] == similarities[1:].min()
    assert len(display.relevant["query", "image"]) == 2499


def test_histograms_of_a_pipeline_are_those_of_its_fused_vectors(mixed):
    task, qrels = mixed
    for name, pipeline in pipelines(task, qrels).items():
        display = SimilarityHistogramDisplay.from_estimator(pipeline, task, qrels, bins=20)
        fused = pipeline[:-1].transform(task)
        expected = SimilarityHistogramDisplay.from_predictions(
            fused.queries @ fused.corpus.T, task.queries.kinds, task.corpus.kinds, np.eye(30, dtype=bool), bins=20
        )
        np.testing.assert_allclose(display.edges, expected.edges, rtol=1e-5, atol=1e-6)
        assert list(display.unrelated) == [("query", "text"), ("query", "image"), ("query", "text+image")]
        for pair, shares in expected.unrelated.items():
            assert np.abs(display.unrelated[pair] - shares).sum() <= 2 / 200  # single precision moves a pair at most
            np.testing.assert_allclose(np.sort(display.relevant[pair]), np.sort(expected.relevant[pair]), rtol=1e-4)
        unit = "spreads above unrelated" if name == "one scale" else "dot product of unit vectors"
        assert display.unit == unit
        assert display.ax_.get_xlabel() == f"similarity ({unit})"


def test_a_sample_of_rows_keeps_all_relevant_documents_of_its_queries(mixed):
    task, qrels = mixed
    pipeline = pipelines(task, qrels)["raw"]
    display = SimilarityHistogramDisplay.from_estimator(pipeline, task, qrels, max_rows=4)
    assert sum(map(len, display.relevant.values())) == 4
    same = SimilarityHistogramDisplay.from_estimator(pipeline, task, qrels, max_rows=4)
    np.testing.assert_array_equal(display.edges, same.edges)
    assert display.unrelated.keys() == {("query", kind) for kind in ("text", "image", "text+image")}


def test_tensors_give_the_histograms_of_arrays(mixed):
    task, qrels = mixed
    tensors = SearchTask(
        *(side.replace({r: torch.tensor(x) for r, x in side.items()}) for side in (task.queries, task.corpus))
    )
    one, other = (
        SimilarityHistogramDisplay.from_estimator(pipelines(x, qrels)["raw"], x, qrels) for x in (task, tensors)
    )
    np.testing.assert_allclose(one.edges, other.edges, rtol=1e-4)


def test_an_unfit_pipeline_or_task_is_an_error(mixed):
    task, qrels = mixed
    pipeline = pipelines(task, qrels)["raw"]
    with pytest.raises(TypeError, match=r"pipeline must be a Pipeline that fuses .*; got ExactRetriever"):
        SimilarityHistogramDisplay.from_estimator(ExactRetriever(), task)
    with pytest.raises(TypeError, match=r"task must be a SearchTask of Items.*; got Items"):
        SimilarityHistogramDisplay.from_estimator(pipeline, task.corpus)
    with pytest.raises(TypeError, match="must fuse parts into one vector a row"):
        SimilarityHistogramDisplay.from_estimator(
            make_pipeline(ModalityGapRemover().fit(task), ExactRetriever().fit(np.eye(16))), task
        )
    with pytest.raises(NotFittedError):
        SimilarityHistogramDisplay.from_estimator(make_pipeline(MultimodalFuser(), ExactRetriever()), task)
    with pytest.raises(ValueError, match="qrels has 3 entries, but there are 30 queries"):
        SimilarityHistogramDisplay.from_estimator(pipeline, task, qrels[:3])


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((SIMILARITIES[0], *KINDS), ValueError, r"similarities has shape \(4,\)"),
        ((SIMILARITIES, ["query"], KINDS[1]), ValueError, r"query_kinds has shape \(1,\); expected \(3,\)"),
        ((SIMILARITIES, KINDS[0], ["text"]), ValueError, r"document_kinds has shape \(1,\); expected \(4,\)"),
        ((SIMILARITIES, *KINDS, RELEVANT.astype(int)), TypeError, "relevant has dtype int64; expected a boolean"),
        ((SIMILARITIES, *KINDS, RELEVANT[:2]), ValueError, r"relevant has shape \(2, 4\); expected .*\(3, 4\)"),
        ((np.full((3, 4), np.nan), *KINDS), ValueError, "no similarity is finite"),
    ],
)
def test_similarities_that_do_not_fit_are_errors(arguments, error, match):
    with pytest.raises(error, match=match):
        SimilarityHistogramDisplay.from_predictions(*arguments)
    with pytest.raises(ValueError, match="bins must be a whole number"):
        SimilarityHistogramDisplay.from_predictions(SIMILARITIES, *KINDS, bins=0)


# ReplacementCurveDisplay and AlphaCurveDisplay


def band_ends(band):
    """Lower and upper end of a band at each x."""
    vertices = band.get_paths()[0].vertices
    return {x: (vertices[vertices[:, 0] == x, 1].min(), vertices[vertices[:, 0] == x, 1].max()) for x in vertices[:, 0]}


def test_the_u_curve_draws_means_and_intervals_and_leaves_holes():
    display = ReplacementCurveDisplay.from_predictions(CURVE["p"])
    for name, line in display.lines_.items():
        np.testing.assert_array_equal(line.get_xdata(), [0, 0.5, 1])
        np.testing.assert_array_equal(line.get_ydata(), CURVE["p"].mean(name))
    assert np.isnan(display.lines_["flat"].get_ydata()[1])
    for x, low_high in zip((0, 0.5, 1), CURVE["p"].interval("raw"), strict=True):
        assert band_ends(display.bands_["raw"])[x] == pytest.approx(tuple(low_high))
    assert display.ax_.get_xlabel() == "share of documents without text, p (0 to 1)"
    assert display.ax_.get_ylabel() == "NDCG@10 (0 to 1)"
    assert display.ax_.get_ylim()[0] == 0


def test_the_simulated_curve_is_dashed_in_the_colour_of_its_method():
    lines = ReplacementCurveDisplay.from_predictions(CURVE["p"]).lines_
    assert lines["raw, pushed down"].get_color() == lines["raw"].get_color() != lines["flat"].get_color()
    assert lines["raw, pushed down"].is_dashed()
    assert not lines["raw"].is_dashed()
    assert len({line.get_marker() for line in lines.values()}) == 3


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("n_between", [0, 4])
def test_a_simulated_curve_can_be_told_from_its_method_where_the_two_are_one(theme, n_between):
    """Along the line of the method there is its colour, and the background in the gaps of the other."""
    same = np.array([[0.9], [0.3], [0.8]])
    names = ["raw", *(f"method {i}" for i in range(n_between)), "raw, pushed down"]
    curve = Curve("p", np.array([0.0, 0.5, 1.0]), {name: same * ("raw" in name) for name in names}, "NDCG@10", "none")
    for options in ({}, {"lw": 7}):
        display = ReplacementCurveDisplay.from_predictions(curve, theme=theme, line_kw=options)
        below, above = display.lines_["raw"], display.lines_["raw, pushed down"]
        background, ink = (np.multiply(255, to_rgb(c)) for c in (THEMES[theme].background, below.get_color()))
        assert above.get_zorder() > below.get_zorder()
        assert above.get_gapcolor() == above.get_markerfacecolor() == THEMES[theme].background
        assert above.get_linewidth() < 0.5 * below.get_linewidth()
        assert above.get_markersize() < 0.7 * below.get_markersize()
        seen = along(display, below)
        assert (np.abs(seen - ink).sum(axis=1) < 60).mean() > 0.3
        assert (np.abs(seen - background).sum(axis=1) < 250).mean() > 0.2
        plt.close(display.figure_)


def along(display, line):
    """Pixels of a drawing on the first piece of a line."""
    display.figure_.canvas.draw()
    drawn = np.asarray(display.figure_.canvas.buffer_rgba()).astype(float)
    (x0, y0), (x1, y1) = display.ax_.transData.transform(line.get_xydata())[:2]
    steps = np.linspace(0.1, 0.9, 400)
    rows = len(drawn) - 1 - (y0 + steps * (y1 - y0)).round().astype(int)
    return drawn[rows, (x0 + steps * (x1 - x0)).round().astype(int), :3]


def test_one_repeat_has_no_band():
    curve = Curve("p", np.array([0.0, 1.0]), {"raw": np.array([[0.5], [0.6]])}, "NDCG@10", "random corpora")
    display = ReplacementCurveDisplay.from_predictions(curve)
    assert not any(len(path.vertices) for path in display.bands_["raw"].get_paths())
    assert display.lines_["raw"].get_ydata().tolist() == [0.5, 0.6]


def test_the_best_alpha_is_marked_and_named():
    display = AlphaCurveDisplay.from_predictions(CURVE["alpha"])
    assert display.best_ == {"raw": 0.4}
    ring = next(line for line in display.ax_.lines if line not in display.lines_.values())
    assert (ring.get_xdata(), ring.get_ydata()) == ([0.4], [pytest.approx(0.8)])
    assert [text.get_text() for text in display.figure_.legends[0].get_texts()] == ["raw (best: 0.4)", "none"]
    assert display.ax_.get_ylabel() == "NDCG@5 (0 to 1)"
    assert "alpha" in display.ax_.get_xlabel()


def test_an_alpha_that_makes_no_difference_is_not_called_the_best():
    scores = {"flat": np.array([[0.7, 0.7], [0.7004, 0.7004], [0.7, 0.7]]), "raw": np.array([[0.7], [0.7006], [0.7]])}
    curve = Curve("alpha", np.array([0.0, 0.4, 1.0]), scores, "NDCG@5", "queries")
    display = AlphaCurveDisplay.from_predictions(curve)
    assert display.best_ == {"raw": 0.4}
    told = [text.get_text() for text in display.figure_.legends[0].get_texts()]
    assert told == ["flat (no difference)", "raw (best: 0.4)"]


def test_lines_can_be_styled_by_long_and_short_names():
    display = AlphaCurveDisplay.from_predictions(CURVE["alpha"], line_kw={"lw": 7, "c": "red"}, name="Mine")
    assert display.lines_["raw"].get_linewidth() == 7
    assert display.lines_["raw"].get_color() == "red"
    assert display.ax_.get_title() == "Mine"


def test_curves_are_measured_by_the_diagnostics(whole):
    task, qrels = whole
    methods = pipelines(task, qrels)
    u = ReplacementCurveDisplay.from_estimator(methods, task, qrels, p=[0, 0.5], n_repeats=2, k=5)
    expected = replacement_curve(task, qrels, methods, [0, 0.5], n_repeats=2, k=5)
    assert list(u.lines_) == list(expected.scores)
    assert [name for name, line in u.lines_.items() if line.is_dashed()] == ["raw, pushed down"]
    for name, line in u.lines_.items():
        np.testing.assert_array_equal(line.get_ydata(), expected.mean(name))
    by_alpha = AlphaCurveDisplay.from_estimator(methods, task, qrels, alphas=[0, 0.5])
    for name, line in by_alpha.lines_.items():
        np.testing.assert_array_equal(line.get_ydata(), alpha_curve(task, qrels, methods, [0, 0.5]).mean(name))
    calibration = (task, qrels)
    size = CalibrationSizeDisplay.from_estimator(methods, task, qrels, calibration, sizes=[10, 40], n_repeats=2)
    measured = calibration_size(task, qrels, methods, calibration, [10, 40], n_repeats=2)
    for name, line in size.lines_.items():
        np.testing.assert_array_equal(line.get_ydata(), measured.scores.mean(name))
    for role, line in size.error_lines_.items():
        np.testing.assert_array_equal(line.get_ydata(), measured.errors.mean(role))


def test_an_ax_that_cannot_be_drawn_on_is_refused_before_anything_is_measured():
    for display, rest in (
        (ReplacementCurveDisplay, ()),
        (AlphaCurveDisplay, ()),
        (CalibrationSizeDisplay, (None,)),
        (TopKShareDisplay, ()),
        (SimilarityHistogramDisplay, ()),
    ):
        with pytest.raises(TypeError, match="ax must be"):
            display.from_estimator(None, None, None, *rest, ax=3)


def test_what_is_no_curve_along_the_right_parameter_is_an_error(mixed):
    with pytest.raises(TypeError, match="curve must be the Curve that replacement_curve returns; got dict"):
        ReplacementCurveDisplay.from_predictions({"raw": [1]})
    with pytest.raises(ValueError, match="curve runs along 'alpha', not 'p'; pass what replacement_curve returns"):
        ReplacementCurveDisplay.from_predictions(CURVE["alpha"])
    with pytest.raises(ValueError, match="curve runs along 'p', not 'alpha'"):
        AlphaCurveDisplay.from_predictions(CURVE["p"])
    with pytest.raises(TypeError, match=r"result must be the CalibrationSize .*; got Curve"):
        CalibrationSizeDisplay.from_predictions(CURVE["n"])
    task, qrels = mixed
    with pytest.raises(TypeError, match="qrels must be a list of dicts"):
        ReplacementCurveDisplay.from_estimator(pipelines(task, qrels), task, None)


def test_a_task_in_the_place_of_the_methods_is_told_the_order(mixed):
    task, qrels = mixed
    methods = pipelines(task, qrels)
    for display in (ReplacementCurveDisplay, AlphaCurveDisplay, TopKShareDisplay):
        with pytest.raises(
            TypeError, match=r"methods must be .*; got SearchTask: .* from_estimator\(methods, task, qrels\)"
        ):
            display.from_estimator(task, qrels, methods)
    with pytest.raises(TypeError, match=r"from_estimator\(methods, task, qrels, calibration\)"):
        CalibrationSizeDisplay.from_estimator(task, qrels, methods, (task, qrels))
    with pytest.raises(TypeError, match=r"pipeline must be .*; got SearchTask: .*\(pipeline, task, qrels\)"):
        SimilarityHistogramDisplay.from_estimator(task, methods["raw"])


# CalibrationSizeDisplay


def test_scores_and_errors_over_the_number_of_rows():
    display = CalibrationSizeDisplay.from_predictions(SIZE)
    left, right = display.ax_
    np.testing.assert_array_equal(display.lines_["raw"].get_ydata(), [0.5, 0.6, 0.6])
    for role in ("text", "image"):
        np.testing.assert_array_equal(display.error_lines_[role].get_ydata(), ERRORS.mean(role))
        np.testing.assert_array_equal(display.expected_lines_[role].get_ydata(), EXPECTED[role])
        assert display.expected_lines_[role].get_linestyle() == ":"
        assert display.expected_lines_[role].get_color() == display.error_lines_[role].get_color()
    assert left.get_xscale() == right.get_xscale() == "log"
    assert left.get_xlabel() == right.get_xlabel() == "calibration rows (log scale)"
    assert (left.get_ylabel(), right.get_ylabel()) == ("NDCG@10 (0 to 1)", "distance (of unit vectors)")
    display.figure_.canvas.draw()
    assert "100" in [text.get_text() for text in left.get_xticklabels()]
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["text", "image", "expected"]


def test_an_error_that_is_not_measurable_all_along_says_to_where_it_is():
    errors = {"query": [0.3, 0.1, np.nan], "text": [0.3, 0.2, 0.1], "audio": [np.nan] * 3, "image": [0.2, 0.1, 0.1]}
    curve = replace(ERRORS, scores={role: np.array(means)[:, None] for role, means in errors.items()})
    display = CalibrationSizeDisplay.from_predictions(CalibrationSize(CURVE["n"], curve, {}))
    told = [text.get_text() for text in display.ax_[1].get_legend().get_texts()]
    assert told == ["query (measurable to 100)", "text", "audio (not measurable)", "image", "expected"]
    assert list(display.error_lines_) == list(errors)
    display.figure_.canvas.draw()
    assert all(label.get_window_extent().x1 <= display.figure_.bbox.x1 for label in labels(display.figure_))


@pytest.mark.parametrize("sizes", [[20, 30, 40, 50, 60], [5, 10, 20, 50, 100, 200, 500, 600], [7], [1000, 4000, 9000]])
def test_ticks_are_sizes_that_were_measured_and_do_not_overlap(sizes):
    values = np.array(sizes)
    scores, errors = (
        Curve("n", values, {name: np.full((len(sizes), 1), 0.5)}, "NDCG@10", "random subsets") for name in ("a", "text")
    )
    display = CalibrationSizeDisplay.from_predictions(CalibrationSize(scores, errors, {}))
    display.figure_.canvas.draw()
    for ax in display.ax_:
        assert not any(label.get_text() for label in ax.get_xticklabels(minor=True))
        texts = [label for label in ax.get_xticklabels() if label.get_text()]
        shown = [int(label.get_text().replace(",", "")) for label in texts]
        assert set(shown) <= set(sizes)
        assert {min(sizes), max(sizes)} <= set(shown)
        boxes = [label.get_window_extent() for label in texts]
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


# TopKShareDisplay


def test_bars_are_shares_in_percent_with_their_intervals_and_the_share_in_the_corpus():
    display = TopKShareDisplay.from_predictions({"raw": bias(), "fair": bias((0.6, 0.4))})
    heights = {kind: [bar.get_height() for bar in bars] for kind, bars in display.bars_.items()}
    assert heights == {"text": pytest.approx([90, 60]), "image": pytest.approx([10, 40])}
    intervals, corpus = display.ax_.collections[0], display.ax_.collections[1]
    np.testing.assert_allclose([line[:, 1] for line in intervals.get_segments()], [[85, 92], [55, 62]])
    np.testing.assert_allclose([line[:, 1] for line in corpus.get_segments()], [[60, 60], [60, 60]])
    assert [text.get_text() for text in display.ax_.get_xticklabels()] == ["raw", "fair"]
    assert [text.get_text() for text in display.ax_.texts] == ["90", "60", "10", "40"]
    assert display.ax_.get_ylabel() == "share of the top 10 (%)"
    assert display.ax_.get_xlabel() == "method"
    assert len({bar.get_hatch() for bars in display.bars_.values() for bar in bars}) == 2


def test_a_share_that_is_not_known_is_not_drawn_as_zero():
    display = TopKShareDisplay.from_predictions(bias((np.nan, 0.0)))
    assert np.isnan(display.bars_["text"][0].get_height())
    assert [text.get_text() for text in display.ax_.texts] == ["n/a", "0"]
    display.figure_.canvas.draw()


def test_shares_are_measured_by_the_diagnostics(mixed):
    task, qrels = mixed
    methods = pipelines(task, qrels)
    display = TopKShareDisplay.from_estimator(methods, task, k=5, n_resamples=50)
    for place, (name, method) in enumerate(methods.items()):
        expected = modality_bias(task, method.predict(task), k=5, n_resamples=50)
        assert [bars[place].get_height() for bars in display.bars_.values()] == pytest.approx(100 * expected.top_share)
        np.testing.assert_array_equal(display.biases[name].interval, expected.interval)
    assert not display.biases["raw"].scores
    assert TopKShareDisplay.from_estimator(methods["raw"], task, qrels, k=20).biases["pipeline"].scores


def test_a_task_and_a_ranking_go_to_modality_bias_first(mixed):
    task, qrels = mixed
    ranking = pipelines(task, qrels)["raw"].predict(task)
    for given in ((task,), (task, ranking), (task, ranking, qrels)):
        with pytest.raises(
            TypeError, match=r"takes the result of modality_bias.*; got SearchTask.*modality_bias\(task"
        ):
            TopKShareDisplay.from_predictions(*given)


@pytest.mark.parametrize(
    ("biases", "error", "match"),
    [
        ({}, ValueError, "biases is empty"),
        ([1], TypeError, "biases must be the ModalityBias that modality_bias returns; got list"),
        ({"raw": 1}, TypeError, r"biases\['raw'\] must be the ModalityBias"),
        ({"a": bias(), "b": bias(k=5)}, ValueError, "top 10 of text, image and of the top 5 of text, image"),
        ({"a": bias(), "b": bias(kinds=("text", "audio"))}, ValueError, "compare methods on one corpus"),
    ],
)
def test_biases_that_cannot_be_compared_are_errors(biases, error, match):
    with pytest.raises(error, match=match):
        TopKShareDisplay.from_predictions(biases)


# What reviewers of a page would trip over


def test_the_figure_of_the_caller_keeps_its_colour(whole):
    task, qrels = whole
    figure, axes = plt.subplots(1, 2, facecolor="black")
    curve = alpha_curve(task, qrels, pipelines(task, qrels), [0, 1])
    AlphaCurveDisplay.from_predictions(curve, ax=axes[0])
    assert figure.get_facecolor() == (0, 0, 0, 1)


def test_names_are_no_formulas_and_no_control_characters(whole):
    task, qrels = whole
    method = pipelines(task, qrels)["raw"]
    display = AlphaCurveDisplay.from_estimator({"raw_{$": method, "$a$\x0b": method}, task, qrels, alphas=[0, 1])
    display.figure_.canvas.draw()
    shown = [text.get_text() for legend in display.figure_.legends for text in legend.get_texts()]
    assert any(text.startswith("raw_{$") for text in shown)
    assert any(text.startswith("$a$ ") for text in shown)


def test_a_kind_has_one_colour_in_all_plots(rng):
    x = rng.normal(size=(30, 8))
    title, cover = x.copy(), x.copy()
    title[::3], cover[1::3] = np.nan, np.nan
    task, qrels = SearchTask(Items({"query": x}), Items({"title": title, "cover": cover})), [{i: 1} for i in range(30)]
    method = make_pipeline(MultimodalFuser(), ExactRetriever(k=5)).fit(task)
    histogram = SimilarityHistogramDisplay.from_estimator(method, task, qrels)
    share = TopKShareDisplay.from_estimator({"raw": method}, task, k=5)
    assert [document for _, document in histogram.unrelated] == list(next(iter(share.biases.values())).kinds)


class Counting(ModalityGapRemover):
    """A remover that counts the rows that it transforms."""

    def transform(self, X):
        type(self).rows = max(len(X.queries), len(X.corpus))
        return super().transform(X)


def test_only_what_is_drawn_is_transformed(rng):
    x = rng.normal(size=(500, 8))
    task = SearchTask(Items({"query": x[:40]}), Items({"text": x + 1, "image": x - 1}))
    remover = Counting().fit(task)
    display = EmbeddingDisplay.from_estimator(remover, task, max_rows=30)
    assert Counting.rows <= 60
    assert {len(points) for points in display.points[1].values()} == {30}
    method = make_pipeline(remover, MultimodalFuser(), ExactRetriever()).fit(task)
    SimilarityHistogramDisplay.from_estimator(method, task, [{i: 1} for i in range(40)], max_rows=20)
    assert Counting.rows <= 40
