"""Curves over shares of pictures, alpha and calibration rows, against plain loops."""

import numpy as np
import pytest
import reference
import scipy.stats
from conftest import make_mixed, unit
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from searches import centred, make_complete, raw
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from grclip import ExactRetriever, Items, ModalityGapRemover, MultimodalFuser, SearchTask
from grclip.diagnostics import alpha_curve, calibration_size, replacement_curve
from grclip.metrics import ndcg_score, recall_score, reciprocal_rank_score

OTHER_METRICS = [("recall", recall_score, "Recall@3"), ("reciprocal_rank", reciprocal_rank_score, "MRR@3")]


class Recorder(TransformerMixin, BaseEstimator):
    """A first step that keeps what is searched."""

    def fit(self, X, y=None):
        self.seen_ = []
        return self

    def transform(self, X):
        self.seen_.append(X)
        return X


class NeedsQrels(Recorder):
    """A first step that takes no queries without their qrels: documents that repeat the query, and these alone."""

    def fit(self, X, y=None):
        for query, judged in zip(X.queries["query"], y, strict=True):
            if set(judged) != set(np.flatnonzero((X.corpus["text"] == query).all(axis=1))):
                raise RuntimeError("these qrels are those of another task")
        return super().fit(X)


class TestReplacementCurve:
    def test_it_is_a_loop_over_corpora(self, complete):
        task, qrels = complete
        recorded = make_pipeline(Recorder(), *centred()).fit(task)
        methods = {"recorded": recorded, "raw": raw().fit(task)}
        recorded[0].seen_.clear()
        curve = replacement_curve(task, qrels, methods, [0.2, 0.7, 1.0], k=5, n_repeats=3, push_down=False)
        assert len(recorded[0].seen_) == 7, "where all documents are pictures one search serves all repeats"
        corpora = [recorded[0].seen_[:3], recorded[0].seen_[3:6], 3 * recorded[0].seen_[6:]]
        assert (curve.parameter, curve.metric, curve.repeats) == ("p", "NDCG@5", "random corpora")
        assert curve.values.tolist() == [0.2, 0.7, 1.0]
        for name, method in methods.items():
            slow = [[ndcg_score(qrels, method.predict(one), k=5) for one in line] for line in corpora]
            np.testing.assert_allclose(curve.scores[name], slow, atol=1e-12)
            np.testing.assert_allclose(curve.mean(name), np.mean(slow, axis=1), atol=1e-12)
        for one in recorded[0].seen_:
            kinds = one.corpus.kinds
            assert set(kinds) <= {"text", "image"}
            for role in ("text", "image"):
                np.testing.assert_array_equal(one.corpus[role][kinds == role], task.corpus[role][kinds == role])
        images = np.array([[one.corpus.kinds == "image" for one in line] for line in corpora])
        assert (images[1:] >= images[:-1]).all()
        assert images[2].all()
        assert images[:2].mean(axis=(1, 2)) == pytest.approx([0.2, 0.7], abs=4 * 0.5 / 120**0.5)
        assert (images[0, 0] != images[0, 1]).any()

    def test_the_ends_are_searches_of_one_modality(self, complete):
        task, qrels = complete
        methods = {"raw": raw().fit(task), "scaled": centred(equalize=True).fit(task, qrels)}
        curve = replacement_curve(task, qrels, methods, n_repeats=2)
        for name, method in methods.items():
            for end, role in ((0, "text"), (-1, "image")):
                alone = SearchTask(task.queries, Items({role: task.corpus[role]}))
                score = ndcg_score(qrels, method.predict(alone))
                np.testing.assert_allclose(curve.scores[name][end], score, atol=1e-12)
        np.testing.assert_array_equal(curve.scores["raw, pushed down"][[0, -1]], curve.scores["raw"][[0, -1]])

    @pytest.mark.parametrize(("metric", "score", "label"), OTHER_METRICS)
    def test_by_another_metric(self, complete, metric, score, label):
        """The simulation, too: at both ends it is the search of one modality."""
        task, qrels = complete
        qrels = [judged | {(i + 1) % 40: 1} for i, judged in enumerate(qrels)]
        method = raw().fit(task)
        curve = replacement_curve(task, qrels, {"raw": method}, [0, 1], metric=metric, k=3, n_repeats=1)
        assert curve.metric == label
        alone = [SearchTask(task.queries, Items({role: task.corpus[role]})) for role in ("text", "image")]
        slow = [score(qrels, method.predict(one), k=3) for one in alone]
        assert slow != [ndcg_score(qrels, method.predict(one), k=3) for one in alone]
        for scores in curve.scores.values():
            np.testing.assert_allclose(scores[:, 0], slow)

    def test_by_a_metric_of_ones_own(self, complete):
        task, qrels = complete

        def top_two(qrels, ranking, *, k, per_query=False):
            return recall_score(qrels, ranking, k=min(k, 2), per_query=per_query)

        curve = replacement_curve(task, qrels, {"raw": raw().fit(task)}, [0.5], metric=top_two, k=5, n_repeats=1)
        usual = replacement_curve(task, qrels, {"raw": raw().fit(task)}, [0.5], metric="recall", k=2, n_repeats=1)
        assert curve.metric == "top two@5"
        np.testing.assert_array_equal(curve.mean("raw"), usual.mean("raw"))
        assert alpha_curve(task, qrels, raw(), [0.5], metric=top_two).metric == "top two@10"

    @pytest.mark.parametrize("metric", ["NDCG", None, ["ndcg"]])
    def test_unknown_metrics(self, complete, metric):
        task, qrels = complete
        for curve, method in ((replacement_curve, raw().fit(task)), (alpha_curve, raw())):
            with pytest.raises(
                ValueError, match="must be a function or one of 'ndcg', 'recall', 'reciprocal_rank'; got"
            ):
                curve(task, qrels, method, metric=metric)

    @hypothesis_settings(max_examples=25)
    @given(st.integers(0, 2**32 - 1), st.integers(1, 30))
    def test_pushed_down(self, seed, k):
        """Queries of text, of images and of both; documents with sound beside their image are near to both."""
        rng = np.random.default_rng(seed)
        task, qrels = make_complete(rng, n=24)
        query, query_image = task.queries["query"].copy(), rng.normal(size=(24, 16))
        query[::3], query_image[1::3] = np.nan, np.nan
        corpus = {role: part.copy() for role, part in task.corpus.items()}
        corpus["text"][:3] = corpus["image"][3:5] = np.nan
        corpus["audio"] = np.where(np.arange(24)[:, None] % 2, rng.normal(size=(24, 16)), np.nan)
        task = SearchTask(Items({"query": query, "query_image": query_image}), Items(corpus))
        method = make_pipeline(Recorder(), *raw()).fit(task)
        method[0].seen_.clear()
        curve = replacement_curve(task, qrels, {"raw": method}, [0.0, 0.5, 1.0], k=k, n_repeats=1)
        assert list(curve.scores) == ["raw", "raw, pushed down"]
        asked = [
            {"text"} if np.isnan(i[0]) else {"image"} if np.isnan(q[0]) else {"text", "image"}
            for q, i in zip(query, query_image, strict=True)
        ]
        whole = [one for one in method[0].seen_ if len(one) == len(one.corpus) == 24]
        for i, one in enumerate(whole[:: len(whole) // 3]):
            fused = method[1].transform(one)
            far = [[not side & set(kind.split("+")) for kind in one.corpus.kinds] for side in asked]
            slow = reference.push_down(fused.queries, fused.corpus, far, k)
            assert curve.scores["raw, pushed down"][i, 0] == pytest.approx(ndcg_score(qrels, slow, k=k))

    def test_documents_of_one_modality_stay(self, complete):
        task, qrels = complete
        corpus = {role: part.copy() for role, part in task.corpus.items()}
        corpus["text"][:10] = corpus["image"][10:20] = np.nan
        task = SearchTask(task.queries, Items(corpus))
        recorded = make_pipeline(Recorder(), *raw()).fit(task)
        recorded[0].seen_.clear()
        replacement_curve(task, qrels, recorded, [0.0, 0.4, 1.0], n_repeats=1, push_down=False)
        for one in recorded[0].seen_:
            assert one.corpus.kinds[:20].tolist() == ["image"] * 10 + ["text"] * 10
            assert set(one.corpus.kinds[20:]) <= {"text", "image"}

    def test_several_roles_of_a_modality_go_together(self, rng):
        x = rng.normal(size=(5, 20, 6))
        corpus = Items(dict(zip(("title", "body", "cover", "sketch"), x[1:], strict=True)))
        task, modalities = SearchTask(Items({"query": x[0]}), corpus), {"sketch": "image"}
        recorded = make_pipeline(Recorder(), *raw(modalities=modalities)).fit(task)
        recorded[0].seen_.clear()
        qrels = [{i: 1} for i in range(20)]
        replacement_curve(task, qrels, recorded, 0.5, n_repeats=1, modalities=modalities)
        assert set(recorded[0].seen_[0].corpus.kinds) == {"title+body", "cover+sketch"}
        with pytest.raises(ValueError, match="unknown modality of 'sketch'; say for each"):
            replacement_curve(task, qrels, recorded, 0.5)

    def test_queries_without_a_relevant_document_are_left_out(self, complete):
        task, qrels = complete
        some = [{} if i < 10 else judged for i, judged in enumerate(qrels)]
        method = raw().fit(task)
        curve = replacement_curve(task, some, method, [0.0, 1.0], n_repeats=1)
        assert curve.notes == ("left out: 10 queries (0, 1, 2, 3, 4, ...) without a relevant document",)
        alone = SearchTask(task.queries, Items({"text": task.corpus["text"]}))
        assert curve.scores["pipeline"][0, 0] == pytest.approx(ndcg_score(some, method.predict(alone), empty="skip"))

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"p": 1.5}, ValueError, r"p must be a probability, in \[0, 1\]; got 1.5"),
            ({"p": [np.nan]}, ValueError, "p must be a probability"),
            ({"p": []}, ValueError, r"p has shape \(0,\); expected at least one number"),
            ({"p": [[0, 1]]}, ValueError, r"p has shape \(1, 2\)"),
            ({"k": 0}, ValueError, "k must be a whole number"),
            ({"n_repeats": 0}, ValueError, "n_repeats must be a whole number"),
            ({"push_down": "no"}, TypeError, "push_down must be True or False; got 'no'"),
        ],
    )
    def test_wrong_input(self, complete, options, error, message):
        task, qrels = complete
        with pytest.raises(error, match=message):
            replacement_curve(task, qrels, raw().fit(task), **options)

    def test_nothing_to_replace(self, complete):
        task, qrels = complete
        one = np.where(np.arange(40)[:, None] < 20, task.corpus["text"], np.nan)
        other = np.where(np.arange(40)[:, None] < 20, np.nan, task.corpus["image"])
        method = raw().fit(task)
        with pytest.raises(ValueError, match="no document has a text and a part of another modality"):
            replacement_curve(SearchTask(task.queries, Items({"text": one, "image": other})), qrels, method)
        with pytest.raises(ValueError, match="the documents have no part beside its text"):
            replacement_curve(SearchTask(task.queries, Items({"text": task.corpus["text"]})), qrels, method)

    def test_intervals(self, complete):
        task, qrels = complete
        curve = replacement_curve(task, qrels, raw().fit(task), [0.3, 0.6], n_repeats=4)
        for confidence in (0.5, 0.95):
            for scores, interval in zip(curve.scores["pipeline"], curve.interval("pipeline", confidence), strict=True):
                slow = scipy.stats.t.interval(confidence, 3, scores.mean(), scipy.stats.sem(scores))
                assert interval == pytest.approx(slow)
        for wrong in (0, 1, 95, np.nan):
            with pytest.raises(ValueError, match="confidence must lie between 0 and 1"):
                curve.interval("pipeline", wrong)
        for method in (curve.mean, curve.interval):
            with pytest.raises(KeyError, match="other"):
                method("other")
        single = replacement_curve(task, qrels, raw().fit(task), [0.3, 0.6], n_repeats=1)
        assert np.isnan(single.interval("pipeline")).all()


class TestAlphaCurve:
    @pytest.mark.parametrize("apart", [False, True])
    def test_it_is_a_loop_over_clones(self, complete, apart):
        task, qrels = complete
        calibration = make_complete(np.random.default_rng(1), n=30) if apart else None
        methods = {"raw": raw(), "scaled": centred(equalize=True)}
        curve = alpha_curve(task, qrels, methods, [0.0, 0.3, 1.0], calibration=calibration, k=5)
        assert (curve.parameter, curve.metric, curve.repeats) == ("alpha", "NDCG@5", "queries")
        for name, method in methods.items():
            for i, alpha in enumerate((0.0, 0.3, 1.0)):
                fitted = clone(method).set_params(multimodalfuser__alpha=alpha).fit(*(calibration or (task, qrels)))
                each = ndcg_score(qrels, fitted.predict(task), k=5, per_query=True)
                np.testing.assert_allclose(curve.scores[name][i], each, atol=1e-12)
            assert not hasattr(method[-2], "n_features_in_")

    def test_steps_before_the_search_are_fitted_with_qrels(self, complete):
        asked = complete[0].queries["query"][::-1]
        task = SearchTask(complete[0].queries, Items({"text": asked, "image": asked}))
        qrels = [{39 - i: 1} for i in range(40)]
        method, some = make_pipeline(NeedsQrels(), *raw()), (task[:20], qrels[:20])
        assert np.isfinite(alpha_curve(task, qrels, method, [0.5]).mean("pipeline"))
        assert np.isfinite(alpha_curve(task, qrels, method, [0.5], calibration=some).mean("pipeline"))
        found = calibration_size(task, qrels, method, some, [5, 20], n_repeats=2)
        assert np.isfinite(found.scores.mean("pipeline")).all()
        assert not hasattr(method[0], "seen_")

    @pytest.mark.parametrize(("metric", "score", "label"), OTHER_METRICS)
    def test_by_another_metric(self, complete, metric, score, label):
        task, qrels = complete
        qrels = [judged | {(i + 1) % 40: 1} for i, judged in enumerate(qrels)]
        curve = alpha_curve(task, qrels, raw(), [0.2, 0.9], metric=metric, k=3)
        assert curve.metric == label
        for scores, alpha in zip(curve.scores["pipeline"], (0.2, 0.9), strict=True):
            ranking = raw(alpha=alpha).fit(task).predict(task)
            np.testing.assert_allclose(scores, score(qrels, ranking, k=3, per_query=True))

    def test_where_it_is_calibrated_matters(self, complete):
        task, qrels = complete
        here, there = (
            alpha_curve(task, qrels, centred(), [0.5], calibration=calibration).mean("pipeline")
            for calibration in (None, make_complete(np.random.default_rng(1)))
        )
        assert abs(here - there) > 0.01

    def test_all_alphas(self, complete):
        curve = alpha_curve(*complete, raw())
        assert curve.values.tolist() == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]
        assert [row["method"] for row in curve.rows] == ["pipeline"]
        assert curve.interval("pipeline").shape == (11, 2)

    def test_a_corpus_smaller_than_k_and_queries_left_out(self, rng):
        task, qrels = make_complete(rng, n=5)
        curve = alpha_curve(task, [{}, *qrels[1:]], raw(), [0.5], calibration=make_complete(rng))
        assert curve.scores["pipeline"].shape == (1, 4)
        assert curve.notes == ("left out: 1 query (0) without a relevant document",)

    @pytest.mark.parametrize(
        ("method", "options", "error", "message"),
        [
            (
                make_pipeline(FunctionTransformer(), ExactRetriever()),
                {},
                ValueError,
                r"methods\['pipeline'\] has 0 parameters called alpha \(no fuser in it\)",
            ),
            (
                make_pipeline(MultimodalFuser(), MultimodalFuser(), ExactRetriever()),
                {},
                ValueError,
                r"has 2 parameters called alpha \(multimodalfuser-1__alpha, multimodalfuser-2__alpha\)",
            ),
            (ExactRetriever(), {}, TypeError, "which has no step to fit before the search"),
            (raw(), {"alphas": [2]}, ValueError, "alpha must be a number from 0 to 1; got 2.0"),
            (raw(), {"alphas": []}, ValueError, r"alphas has shape \(0,\)"),
            (raw(), {"calibration": "photos"}, TypeError, r"calibration must be a pair \(SearchTask, qrels\); got str"),
        ],
    )
    def test_wrong_input(self, complete, method, options, error, message):
        with pytest.raises(error, match=message):
            alpha_curve(*complete, method, **options)

    def test_a_frozen_step_stays_as_it_was_fitted(self, complete):
        task, qrels = complete
        remover = ModalityGapRemover().fit(make_complete(np.random.default_rng(1))[0])
        frozen = make_pipeline(FrozenEstimator(remover), MultimodalFuser(), ExactRetriever())
        curve = alpha_curve(task, qrels, {"frozen": frozen, "fitted": centred()}, [0.5])
        fused = MultimodalFuser().fit_transform(remover.transform(task))
        ranking = ExactRetriever().fit(fused).predict(fused)
        np.testing.assert_allclose(curve.scores["frozen"][0], ndcg_score(qrels, ranking, per_query=True))
        assert curve.mean("frozen") != curve.mean("fitted")


class TestCalibrationSize:
    def test_all_rows(self, complete, rng):
        task, qrels = complete
        calibration = make_complete(rng, n=30)
        methods = {"raw": raw(), "scaled": centred(equalize=True)}
        found = calibration_size(task, qrels, methods, calibration, [10, 30], n_repeats=2)
        assert (found.scores.parameter, found.scores.metric, found.scores.repeats) == ("n", "NDCG@10", "random subsets")
        assert found.scores.values.tolist() == found.errors.values.tolist() == [10, 30]
        assert set(found.errors.scores) == set(found.expected) == {"query", "text", "image"}
        for role in found.expected:
            assert np.isnan(found.errors.scores[role][1]).all(), "the mean of all rows has no distance to itself"
            assert f"{role}, n=30, not measurable: these are all rows" in found.errors.notes
            assert (found.errors.scores[role][0] > 0.01).all()
        for name, method in methods.items():
            whole = ndcg_score(qrels, clone(method).fit(*calibration).predict(task))
            np.testing.assert_allclose(found.scores.scores[name][1], [whole, np.nan])
        assert len(set(found.scores.scores["scaled"][0])) == 2

    def test_the_error_is_what_theory_expects(self, rng):
        n, d = 400, 32
        query, text = rng.normal(size=(2, n, d)) + rng.normal(size=(2, 1, d))
        calibration = SearchTask(Items({"query": query}), Items({"text": text})), [{i: 1} for i in range(n)]
        sizes = np.array([5, 20, 100, 300])
        few = SearchTask(Items({"query": query[:5]}), Items({"text": text[:5]}))
        found = calibration_size(few, [{i: 1} for i in range(5)], centred(), calibration, sizes, n_repeats=60)
        for role, part in (("query", query), ("text", text)):
            mean = unit(part).mean(axis=0)
            np.testing.assert_allclose(found.expected[role], np.sqrt((1 - mean @ mean) / sizes))
            seen = np.sqrt(np.mean(found.errors.scores[role] ** 2, axis=1))
            np.testing.assert_allclose(seen, found.expected[role] * np.sqrt((n - sizes) / (n - 1)), rtol=0.1)

    def test_default_sizes(self, rng):
        task, qrels = make_complete(rng, n=60)
        found = calibration_size(task, qrels, centred(), (task[:55], qrels[:55]), n_repeats=1)
        assert found.scores.values.tolist() == [5, 10, 20, 50, 55]
        assert list(found.scores.rows[0]) == ["method", "5", "10", "20", "50", "55"]

    def test_subsets_that_cannot_be_fitted(self, rng):
        """One document has no unrelated pairs, and no kind but its own."""
        task, qrels = make_mixed(rng)
        found = calibration_size(task, qrels, {"scaled": centred(equalize=True)}, (task, qrels), [1, 30], n_repeats=3)
        assert np.isnan(found.scores.scores["scaled"][0]).all()
        assert np.isnan(found.scores.mean("scaled")[0])
        assert np.isfinite(found.scores.scores["scaled"][1]).tolist() == [True, False, False], "all rows are one subset"
        assert found.scores.notes
        assert all(note.startswith("scaled, n=1, not measurable in a subset: ") for note in found.scores.notes)
        assert found.scores.notes[0] in str(found)

    def test_grades_out_of_range_are_no_matter_of_subsets(self, mixed):
        with pytest.raises(ValueError, match="a grade above 1000 is too large"):
            calibration_size(mixed[0], [{i: 2000} for i in range(30)], raw(), mixed, [30])

    def test_rows_that_are_their_own_mean_give_no_warning(self, mixed):
        assert calibration_size(*mixed, centred(), mixed, [2, 5], n_repeats=3).scores.values.tolist() == [2, 5]

    def test_roles_of_fewer_rows(self, mixed):
        task, qrels = mixed
        found = calibration_size(task, qrels, centred(), (task, qrels), [10, 20, 25], n_repeats=2)
        rows = {role: int((~np.isnan(task.corpus[role][:, 0])).sum()) for role in ("text", "image")}
        assert rows == {"text": 20, "image": 20}
        why = {20: "these are all rows", 25: "the role has 20 rows"}
        assert found.errors.notes == tuple(
            f"{role}, n={n}, not measurable: {why[n]}" for role in ("text", "image") for n in (20, 25)
        )
        for role in rows:
            assert np.isnan(found.errors.scores[role]).tolist() == [[False] * 2, [True] * 2, [True] * 2]

    def test_a_role_of_none(self, complete):
        task, qrels = complete
        empty = np.full_like(task.corpus["text"], np.nan)
        calibration = SearchTask(task.queries, Items({"text": task.corpus["text"], "image": empty})), qrels
        alone = SearchTask(task.queries, Items({"text": task.corpus["text"]}))
        found = calibration_size(alone, qrels, centred(), calibration, [10], n_repeats=2)
        assert found.errors.notes == ("image, n=10, not measurable: the role has 0 rows",)
        assert np.isnan(found.errors.scores["image"]).all()
        assert np.isfinite(found.scores.scores["pipeline"]).all()

    def test_rows_all_alike(self, complete):
        task, qrels = complete
        for seed in range(5):
            same = np.tile(np.random.default_rng(seed).normal(size=16), (40, 1))
            calibration = SearchTask(Items({"query": same}), Items({"text": same, "image": same})), qrels
            found = calibration_size(task, qrels, raw(), calibration, [10], n_repeats=1)
            assert found.expected["text"] == pytest.approx(0, abs=1e-7)

    @pytest.mark.parametrize(
        ("sizes", "message"),
        [
            ([0], "a size must be a whole number of at least 1; got 0"),
            ([5.5], "a size must be a whole number of at least 1; got 5.5"),
            ([5, 31], r"sizes are \[5, 31\]; expected numbers from 1 to 30"),
            ([], r"sizes are \[\]"),
        ],
    )
    def test_wrong_sizes(self, mixed, sizes, message):
        with pytest.raises(ValueError, match=message):
            calibration_size(*mixed, raw(), mixed, sizes)

    @pytest.mark.parametrize("calibration", [None, "photos", (1, 2), (1, 2, 3)])
    def test_wrong_calibration(self, mixed, calibration):
        with pytest.raises(TypeError, match=r"calibration must be a pair \(SearchTask, qrels\)"):
            calibration_size(*mixed, raw(), calibration)

    def test_a_search_alone_has_nothing_to_calibrate(self, mixed):
        with pytest.raises(TypeError, match="which has no step to fit before the search"):
            calibration_size(*mixed, make_pipeline(ExactRetriever()), mixed)
