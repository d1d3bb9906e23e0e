import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import reference
import torch
from conftest import make_mixed, unit
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError
from strategies import TOLERANCE, dtype_name, embeddings, to_numpy

from grclip import Items, ModalityGapRemover, MultimodalFuser, SearchTask, _spread

IS_TEXT = {"query": True, "text": True, "title": True, "body": True, "image": False, "cover": False}
BOTH, TEXT, IMAGE = frozenset({"text", "image"}), frozenset({"text"}), frozenset({"image"})


def complete(parts):
    """The same parts with a text in each row that has nothing at all."""
    none = np.all([np.isnan(part).all(axis=1) for part in parts.values()], axis=0)
    first = next(iter(parts))
    parts[first][none] = 1.0
    return parts


@st.composite
def documents(draw, roles=("title", "body", "cover", "image")):
    """Parts of a few roles in float64 NumPy, each row with at least one."""
    n, d = draw(st.integers(1, 12)), draw(st.integers(2, 8))
    names = draw(st.lists(st.sampled_from(roles), min_size=1, unique=True))
    parts = {role: draw(embeddings(n, d, zeros=False, dtypes=["float64"], libraries=["numpy"])) for role in names}
    return complete({role: np.array(part, dtype=np.float64) for role, part in parts.items()})


@given(documents(), st.sampled_from([0.0, 0.2, 0.5, 1.0]))
def test_alpha_matches_the_reference(parts, alpha):
    out = MultimodalFuser(alpha).fit_transform(Items(parts))
    np.testing.assert_allclose(out, reference.fuse(parts, alpha=alpha, is_text=IS_TEXT), atol=1e-12)


@given(documents(), st.lists(st.sampled_from([0.0, 0.5, 2.0]), min_size=4, max_size=4).filter(any))
def test_weights_match_the_reference(parts, values):
    weights = dict(zip(("title", "body", "cover", "image"), values, strict=True))
    weights = {role: weights[role] for role in parts}
    assume(any(weights.values()))
    out = MultimodalFuser(weights=weights).fit_transform(Items(parts))
    np.testing.assert_allclose(out, reference.fuse(parts, weights=weights), atol=1e-12)


@given(st.data(), st.sampled_from(["float16", "bfloat16", "float32", "float64"]), st.sampled_from(["numpy", "torch"]))
def test_library_and_dtype_of_the_parts_are_kept(data, dtype, library):
    n, d = data.draw(st.integers(1, 20)), data.draw(st.integers(2, 20))
    library = "torch" if dtype == "bfloat16" else library
    text = data.draw(embeddings(n, d, zeros=False, missing=False, dtypes=[dtype], libraries=[library]))
    image = data.draw(embeddings(n, d, zeros=False, dtypes=[dtype], libraries=[library]))
    out = MultimodalFuser(0.3).fit_transform(Items({"text": text, "image": image}))
    expected = reference.fuse({"text": to_numpy(text), "image": to_numpy(image)}, alpha=0.3, is_text=IS_TEXT)
    assert type(out) is type(text)
    assert dtype_name(out) == dtype
    np.testing.assert_allclose(to_numpy(out), expected, atol=30 * TOLERANCE[dtype])


@given(st.floats(0, 1), st.sampled_from(["text", "image"]))
def test_a_lone_part_keeps_its_direction_for_every_alpha(alpha, role):
    x = np.random.default_rng(0).normal(size=(5, 4))
    missing = np.full_like(x, np.nan)
    items = Items({"text": missing, "image": missing, role: x})
    np.testing.assert_allclose(MultimodalFuser(alpha).fit_transform(items), unit(x), atol=1e-15)
    np.testing.assert_allclose(MultimodalFuser(alpha).fit_transform(Items({role: x})), unit(x), atol=1e-15)


@given(documents(), st.floats(0, 1), st.randoms(use_true_random=False))
def test_unit_norm_and_order_of_rows(parts, alpha, random):
    items = Items(parts)
    order = list(range(len(items)))
    random.shuffle(order)
    fuser = MultimodalFuser(alpha).fit(items)
    out = fuser.transform(items)
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(fuser.transform(items[order]), out[order], rtol=0, atol=1e-15)


def test_parts_are_weighted_as_they_come_not_normalised_first():
    items = Items({"text": np.array([[3.0, 0.0]]), "image": np.array([[0.0, 4.0]])})
    np.testing.assert_allclose(MultimodalFuser(0.5).fit_transform(items), [[0.6, 0.8]])


def test_dtypes_are_promoted_within_a_library(rng):
    items = Items(
        {"text": rng.normal(size=(3, 4)).astype(np.float16), "image": rng.normal(size=(3, 4)).astype(np.float32)}
    )
    assert MultimodalFuser().fit_transform(items).dtype == np.float32
    halves = Items({"text": torch.ones(2, 3).half(), "image": torch.ones(2, 3).bfloat16()})
    assert MultimodalFuser().fit_transform(halves).dtype == torch.float32


def test_roles_of_other_names_have_the_modality_they_are_given(rng):
    sketch, text = rng.normal(size=(2, 3, 4))
    items = Items({"sketch": sketch, "text": text})
    with pytest.raises(ValueError, match="unknown modality of 'sketch'"):
        MultimodalFuser().fit(items)
    out = MultimodalFuser(0.25, modalities={"sketch": "image"}).fit_transform(items)
    np.testing.assert_allclose(out, unit(0.25 * text + 0.75 * sketch))
    out = MultimodalFuser(weights={"sketch": 3, "text": 1}).fit_transform(items)
    np.testing.assert_allclose(out, unit(0.25 * text + 0.75 * sketch))


def test_a_side_that_weights_do_not_name_keeps_alpha(mixed):
    task, _ = mixed
    out = MultimodalFuser(weights={"text": 0.5, "image": 0.5}).fit_transform(task)
    np.testing.assert_allclose(out.queries, MultimodalFuser().fit_transform(task).queries)


def test_queries_of_two_parts_are_fused_too(rng):
    words, picture = rng.normal(size=(2, 4, 6))
    task = SearchTask(Items({"query": words, "query_image": picture}), Items({"image": rng.normal(size=(9, 6))}))
    np.testing.assert_allclose(MultimodalFuser(0.7).fit_transform(task).queries, unit(0.7 * words + 0.3 * picture))


@pytest.mark.parametrize(
    "weighting", [{"alpha": 0.5}, {"alpha": 0.9}, {"weights": {"text": 1, "image": 3, "title": 0}}]
)
def test_spreads_match_the_definition(rng, weighting):
    task, qrels = make_mixed(rng, n=40, d=6)
    title = rng.normal(size=(40, 6))
    title[: 40 - 8] = np.nan
    title[:2] = 1.0
    task = SearchTask(task.queries, Items({**dict(task.corpus.items()), "title": title}))
    qrels[3] = {3: 0, 4: 2, 5: 1}
    task = ModalityGapRemover().fit_transform(task)
    fuser = MultimodalFuser(**weighting, equalize=True).fit(task, qrels)
    parts = {role: np.asarray(part) for role, part in task.corpus.items()}
    queries = unit(task.queries["query"])
    options = weighting if "weights" in weighting else {**weighting, "is_text": IS_TEXT}
    expected = reference.spreads(queries, parts, qrels, **options)
    assert set(fuser.spread_) == set(expected)
    assert frozenset({"text", "image", "title"}) in expected
    assert fuser.spread_ == pytest.approx(expected, rel=1e-12)


def test_spreads_leave_out_the_right_pairs_where_rows_are_missing_or_zero(rng):
    task, _ = make_mixed(rng, n=40, d=6)
    query, text = task.queries["query"].copy(), task.corpus["text"].copy()
    query[[0, 5]], query[7], text[3] = np.nan, 0, 0
    qrels = [{(i * 7) % 40: 1, i: 0, (i + 3) % 40: 2} for i in range(40)]
    partial = SearchTask(Items({"query": query}), task.corpus.replace({"text": text}))
    found = MultimodalFuser(equalize=True).fit(partial, qrels).spread_
    asked = [i for i in range(40) if i not in (0, 5, 7)]
    text[3] = np.nan  # as good as not there, and it is a text alone
    parts = {"text": text, "image": task.corpus["image"]}
    expected = reference.spreads(query[asked], parts, [qrels[i] for i in asked], alpha=0.5, is_text=IS_TEXT)
    assert found == pytest.approx({kind: expected[kind] for kind in found}, rel=1e-12)


def test_two_documents_and_a_few_pairs_are_too_few(rng):
    task, _ = make_mixed(rng)
    parts = {
        "text": np.vstack([rng.normal(size=(30, 16)), np.full((2, 16), np.nan)]),
        "image": np.full((32, 16), np.nan),
    }
    parts["image"][30:] = rng.normal(size=(2, 16))
    with pytest.warns(UserWarning, match="spread of kind image "):
        MultimodalFuser(equalize=True).fit(SearchTask(task.queries[:9], Items(parts)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MultimodalFuser(equalize=True).fit(SearchTask(task.queries[:10], Items(parts)))


def test_documents_are_divided_by_the_spread_of_their_kind_and_queries_are_not(mixed):
    task, qrels = mixed
    fuser = MultimodalFuser(equalize=True).fit(task, qrels)
    assert sorted(map(sorted, fuser.spread_)) == [["image"], ["image", "text"], ["text"]]
    plain, out = MultimodalFuser().fit_transform(task), fuser.transform(task)
    np.testing.assert_allclose(out.queries, plain.queries)
    names = {"text": TEXT, "image": IMAGE, "text+image": BOTH}
    spread = np.array([fuser.spread_[names[kind]] for kind in task.corpus.kinds])
    np.testing.assert_allclose(out.corpus, plain.corpus / spread[:, None])
    np.testing.assert_array_equal(fuser.transform(task.queries), out.queries)
    np.testing.assert_array_equal(fuser.transform(task.corpus), out.corpus)


def test_unrelated_scores_have_one_spread_afterwards(rng):
    task, qrels = make_mixed(rng, n=300, d=24)
    task = ModalityGapRemover().fit_transform(task)
    out = MultimodalFuser(equalize=True).fit(task, qrels).transform(task)
    scores = np.where(np.eye(300, dtype=bool), np.nan, out.queries @ out.corpus.T)
    for kind in ("text", "image", "text+image"):
        assert np.nanstd(scores[:, task.corpus.kinds == kind]) == pytest.approx(1, abs=0.02)


def test_parts_found_together_also_give_the_spread_of_each_alone(mixed, rng):
    task, _ = mixed
    both = SearchTask(task.queries, Items({"text": rng.normal(size=(9, 16)), "image": rng.normal(size=(9, 16))}))
    fuser = MultimodalFuser(equalize=True).fit(both)
    assert set(fuser.spread_) == {TEXT, IMAGE, BOTH}
    text = MultimodalFuser().fit(both).transform(both.corpus[["text" in k for k in both.corpus.kinds]])
    assert np.isfinite(fuser.transform(task.corpus)).all()
    assert len(text) == 9


def test_a_kind_that_fit_has_not_seen_is_an_error(rng):
    task, _ = make_mixed(rng)
    kinds = task.corpus.kinds
    apart = SearchTask(task.queries, task.corpus[kinds != "text+image"])
    fuser = MultimodalFuser(equalize=True).fit(apart)
    with pytest.raises(
        ValueError, match=r"no spread was learned for documents of kind text\+image, as in 10 rows \(2, 5, 8"
    ):
        fuser.transform(task)


def test_large_samples_are_bounded_reproducible_and_close(rng, monkeypatch):
    task, qrels = make_mixed(rng, n=600, d=8)
    whole = MultimodalFuser(equalize=True).fit(task, qrels).spread_
    monkeypatch.setattr(_spread, "SAMPLE", 100)
    first, second = (MultimodalFuser(equalize=True).fit(task, qrels).spread_ for _ in range(2))
    other = MultimodalFuser(equalize=True, random_state=1).fit(task, qrels).spread_
    assert first == second
    assert first != other
    assert first != whole
    assert first == pytest.approx(whole, rel=0.15)
    sizes = []
    unit_rows = _spread._unit_rows
    monkeypatch.setattr(_spread, "_unit_rows", lambda *args: sizes.append(len(args[1])) or unit_rows(*args))
    MultimodalFuser(equalize=True).fit(task, qrels)
    assert sizes == [100] * 4


def test_too_few_rows_for_a_spread_warn_and_use_the_pooled_one(rng):
    task, _ = make_mixed(rng)
    text, image = task.corpus["text"][:2].copy(), task.corpus["image"][:2].copy()  # a text, then an image
    text = np.vstack([text, task.corpus["text"][3::3]])
    image = np.vstack([image, np.full((len(text) - 2, 16), np.nan)])
    scarce = SearchTask(task.queries, Items({"text": text, "image": image}))
    with pytest.warns(
        UserWarning, match=r"too few documents to measure the spread of kind image \(2 different documents and 20"
    ):
        fuser = MultimodalFuser(equalize=True).fit(scarce)
    queries = unit(task.queries["query"])
    squares, count = 0.0, 0
    for documents_ in (np.delete(text, 1, axis=0), image[1:2]):
        scores = queries @ unit(documents_).T
        squares, count = squares + scores.var() * scores.size, count + scores.size
    assert fuser.spread_[IMAGE] == pytest.approx((squares / count) ** 0.5)
    assert fuser.spread_[TEXT] == pytest.approx((queries @ unit(np.delete(text, 1, axis=0)).T).std())


def test_no_unrelated_pairs_are_an_error():
    task = SearchTask(Items({"query": np.eye(2)[:1]}), Items({"text": np.eye(2)[:1]}))
    with pytest.raises(ValueError, match="no unrelated pairs of a query and a document that differ"):
        MultimodalFuser(equalize=True).fit(task, [{0: 1}])


def test_documents_that_are_all_the_same_have_no_spread_of_their_own(rng):
    text, image = np.full((2, 60, 8), np.nan)
    text[:30], image[30:] = rng.normal(size=(30, 8)), rng.normal(size=8)
    task = SearchTask(Items({"query": rng.normal(size=(1, 8))}), Items({"text": text, "image": image}))
    with pytest.warns(UserWarning, match="too few documents to measure the spread of kind image "):
        fuser = MultimodalFuser(equalize=True).fit(task)
    assert fuser.spread_[IMAGE] == pytest.approx(fuser.spread_[TEXT] * 0.5**0.5)


def test_similarities_that_hardly_differ_are_an_error_and_no_infinite_vectors():
    cone = np.ones((60, 8)) + 1e-9 * np.random.default_rng(0).normal(size=(60, 8))
    task = SearchTask(Items({"query": cone[:30]}), Items({"text": cone[30:]}))
    with pytest.raises(ValueError, match=r"its standard deviation is .* in 900 pairs, below 0.0001"):
        MultimodalFuser(equalize=True).fit(task)


def test_qrels_go_by_position_whatever_their_labels(mixed):
    task, qrels = mixed
    order = np.random.default_rng(0).permutation(30)
    series = pd.Series(qrels).iloc[order]
    by_list, by_series = (
        MultimodalFuser(equalize=True).fit(task[order], y).spread_ for y in ([qrels[i] for i in order], series)
    )
    assert by_series == by_list


def test_many_roles_together_cannot_be_equalized(rng):
    roles = {f"r{i}": rng.normal(size=(30, 4)) for i in range(9)}
    fuser = MultimodalFuser(modalities=dict.fromkeys(roles, "text"), equalize=True)
    task = SearchTask(Items({"query": rng.normal(size=(5, 4))}), Items(roles))
    with pytest.raises(ValueError, match="some have 9; at most 8 can be measured"):
        fuser.fit(task)
    del roles["r8"]
    assert len(fuser.fit(SearchTask(task.queries, Items(roles))).spread_) == 255


def test_fit_does_not_speak_of_zero_rows_that_transform_names(mixed):
    task, qrels = mixed
    text = task.corpus["text"].copy()
    text[27] = 0
    zero = SearchTask(task.queries, task.corpus.replace({"text": text}))
    fuser = MultimodalFuser(equalize=True).fit(zero, qrels)
    with pytest.warns(UserWarning, match=r"fused parts: 1 row \(27\)"):
        fuser.transform(zero)


def test_weights_that_name_no_role_of_the_data_are_an_error(mixed):
    task, _ = mixed
    for weights in ({"txt": 1.0}, {"text": 1.0, "image": 0.5, "txt": 1.0}):
        with pytest.raises(ValueError, match="weights name 'txt', but X has the roles 'query', 'text', 'image'"):
            MultimodalFuser(weights=weights).fit(task)


def test_spreads_belong_to_a_kind_of_query(rng):
    task, qrels = make_mixed(rng)
    picture = rng.normal(size=(30, 16))
    fuser = MultimodalFuser(equalize=True).fit(task, qrels)
    assert fuser.query_kinds_ == {frozenset({"query"})}
    with_picture = Items({"query": task.queries["query"], "query_image": picture})
    for asked in (Items({"query_image": picture}), with_picture):
        with pytest.raises(ValueError, match=r"measured with queries of kind query, and differ for kind .*query_image"):
            fuser.transform(SearchTask(asked, task.corpus))
    with pytest.raises(ValueError, match=r"documents of kind query_image, .*\(queries were of kind query\)"):
        fuser.transform(Items({"query_image": picture}))
    picture[:10] = np.nan
    several = SearchTask(Items({"query": task.queries["query"], "query_image": picture}), task.corpus)
    with pytest.warns(
        UserWarning, match=r"queries of several kinds \(query, query\+query_image\) have spreads of their own"
    ):
        fuser.fit(several, qrels)
    assert len(fuser.transform(several).queries) == 30
    assert MultimodalFuser().fit(task).transform(several.queries).shape == (30, 16)


def test_only_the_ratio_of_weights_counts(mixed):
    task, _ = mixed
    huge, small = (MultimodalFuser(weights={"text": w, "image": w}).fit_transform(task).corpus for w in (1e308, 0.5))
    np.testing.assert_allclose(huge, small)


def test_names_of_columns_are_forgotten(mixed):
    task, _ = mixed
    fuser = MultimodalFuser().fit(pd.DataFrame(np.eye(3), columns=list("abc")))
    assert fuser.feature_names_in_.tolist() == list("abc")
    assert not hasattr(fuser.fit(task), "feature_names_in_")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"alpha": 0.9}, r"alpha was 0\.5 and is 0\.9"),
        ({"weights": {"text": 1, "image": 3}}, r"weights was \{\} and is \{'text': 1\.0, 'image': 3\.0\}"),
        ({"modalities": {"image": "text"}}, "modalities was"),
    ],
)
def test_weights_changed_after_fit_are_refused_until_spreads_are_measured_anew(mixed, changed, told):
    task, _ = mixed
    fuser = MultimodalFuser(equalize=True).fit(task)
    with pytest.raises(ValueError, match=f"spreads belong to the weights that they were measured with: {told}"):
        fuser.set_params(**changed).transform(task)
    assert np.isfinite(fuser.fit(task).transform(task).corpus).all()


def test_a_dict_of_weights_is_kept_as_it_was_at_fit(mixed):
    task, _ = mixed
    weights = {"query": 1.0, "text": 1.0, "image": 3.0}
    fuser = MultimodalFuser(weights=weights, equalize=True).fit(task)
    weights["image"] = 1.0
    with pytest.raises(ValueError, match="weights was"):
        fuser.transform(task)


def test_equalize_needs_queries(rng, mixed):
    task, _ = mixed
    for x in (task.corpus, rng.normal(size=(5, 4))):
        with pytest.raises(
            ValueError, match="equalize=True measures kinds of documents against queries: fit on a SearchTask"
        ):
            MultimodalFuser(equalize=True).fit(x)
    fuser = MultimodalFuser().fit(task)
    with pytest.raises(NotFittedError, match="equalize=True, but this MultimodalFuser was fitted without it"):
        fuser.set_params(equalize=True).transform(task)
    with pytest.raises(ValueError, match="got ndarray"):
        fuser.fit(task).transform(rng.normal(size=(5, 16)))
    assert not hasattr(fuser.set_params(equalize=False).fit(task), "spread_")


def test_roles_of_queries_and_documents_do_not_mix(mixed):
    task, _ = mixed
    fuser = MultimodalFuser().fit(task)
    mix = Items({"query": task.queries["query"], "text": task.corpus["text"]})
    with pytest.raises(ValueError, match=r"mix roles of queries \(query\) and of documents \(text\)"):
        fuser.transform(mix)


def test_a_row_without_any_part_is_an_error_that_names_it(rng):
    text, image = rng.normal(size=(2, 6, 4))
    text[[1, 3]] = image[[1, 3, 5]] = np.nan
    for items in (
        Items({"text": text, "image": image}),
        Items({"text": torch.from_numpy(text), "image": torch.from_numpy(image)}),
    ):
        with pytest.raises(ValueError, match=r"no part at all in 2 rows \(1, 3\) \(roles 'text', 'image'\)"):
            MultimodalFuser().fit_transform(items)


def test_zero_rows_stay_zero_with_a_warning(rng):
    text = rng.normal(size=(4, 3))
    image = -text
    image[0] = 1.0
    with pytest.warns(UserWarning, match=r"3 rows \(1, 2, 3\)"):
        out = MultimodalFuser(0.5).fit_transform(Items({"text": text, "image": image}))
    assert not out[1:].any()


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"alpha": -0.1}, ValueError, "alpha must be a number from 0 to 1; got -0.1"),
        ({"alpha": 1.1}, ValueError, "alpha must be a number from 0 to 1; got 1.1"),
        ({"alpha": float("nan")}, ValueError, "alpha must be a number from 0 to 1; got nan"),
        ({"alpha": "0.5"}, ValueError, "alpha must be a number from 0 to 1; got '0.5'"),
        ({"alpha": None}, ValueError, "alpha must be a number"),
        ({"alpha": True}, ValueError, "alpha must be a number"),
        ({"weights": {"text": -1, "image": 1}}, ValueError, r"weights\['text'\] must be .* at least 0; got -1"),
        ({"weights": {"text": np.inf, "image": 1}}, ValueError, r"weights\['text'\] must be a finite number"),
        ({"weights": {"text": 10**400, "image": 1}}, ValueError, r"weights\['text'\] must be a finite number"),
        ({"weights": {"text": "1", "image": 1}}, ValueError, r"weights\['text'\] must be a finite number"),
        ({"weights": {"text": 0, "image": 0}}, ValueError, "weights have nothing above zero"),
        ({"weights": {}}, ValueError, "weights have nothing above zero"),
        ({"equalize": "no"}, TypeError, "equalize must be True or False; got 'no'"),
        ({"modalities": "image"}, TypeError, "modalities must be a dict with a value for each role; got 'image'"),
        ({"weights": [1, 2]}, TypeError, "weights must be a dict with a value for each role"),
        ({"weights": {"text": 1}}, ValueError, "weights of 'text' leave out 'image'; give every role"),
        ({"modalities": {"image": "drawing"}}, ValueError, r"modalities\['image'\] is 'drawing'"),
    ],
)  # fmt: skip
def test_wrong_parameters(mixed, parameters, error, message):
    task, _ = mixed
    with pytest.raises(error, match=message):
        MultimodalFuser(**parameters).fit(task)
    with pytest.raises(error, match=message):
        MultimodalFuser().fit(task).set_params(**parameters).transform(task)


@pytest.mark.parametrize(
    ("qrels", "error", "message"),
    [
        ([{}] * 29, ValueError, "qrels has 29 entries, but there are 30 queries"),
        ([{30: 1}] * 30, ValueError, r"qrels\[0\] judges document 30, but the corpus has 30 rows"),
        ([{-1: 1}] * 30, ValueError, r"qrels\[0\] judges document -1"),
        ([{"a": 1}] * 30, ValueError, r"qrels\[0\] judges document 'a'; documents are row numbers"),
        ([{0: -1}] * 30, ValueError, r"qrels\[0\]\[0\] is -1; a grade is a finite number"),
        ([{0: None}] * 30, ValueError, r"qrels\[0\]\[0\] is None"),
        ([[0]] * 30, TypeError, r"qrels\[0\] is \[0\]; expected a dict"),
        ({0: 1}, TypeError, "qrels must be a list of dicts .*; got dict"),
        (np.eye(30), TypeError, r"qrels is a table of shape \(30, 30\); expected a list of dicts, e.g."),
    ],
)
@pytest.mark.parametrize("equalize", [False, True])
def test_wrong_qrels(mixed, qrels, error, message, equalize):
    task, _ = mixed
    with pytest.raises(error, match=message):
        MultimodalFuser(equalize=equalize).fit(task, qrels)


def test_bad_values_name_role_and_rows(mixed):
    task, qrels = mixed
    image = task.corpus["image"].copy()
    image[[1, 4], 3] = np.nan
    broken = SearchTask(task.queries, task.corpus.replace({"image": image}))
    fitted = MultimodalFuser().fit(task)
    with pytest.raises(ValueError, match=r"role 'image': NaN beside numbers in 2 rows \(1, 4\)"):
        fitted.transform(broken)
    with pytest.raises(ValueError, match=r"role 'image': NaN beside numbers in 2 rows \(1, 4\)"):
        MultimodalFuser(equalize=True).fit(broken, qrels)


def test_bad_structure(rng, mixed):
    task, _ = mixed
    fuser = MultimodalFuser().fit(task)
    with pytest.raises(ValueError, match="role 'text' has 5 features, but MultimodalFuser is expecting 16"):
        fuser.transform(Items({"text": rng.normal(size=(3, 5))}))
    with pytest.raises(ValueError, match="role 'image' has 5 features, but role 'text' has 4"):
        MultimodalFuser().fit(Items({"text": rng.normal(size=(3, 4)), "image": rng.normal(size=(3, 5))}))
    with pytest.raises(
        ValueError, match="parts of a document lie in different places \\('text': NumPy, 'image': cpu\\)"
    ):
        MultimodalFuser().fit_transform(Items({"text": rng.normal(size=(3, 4)), "image": torch.ones(3, 4)}))
    with pytest.raises(ValueError, match="different places \\('text': meta, 'image': cpu\\)"):
        MultimodalFuser().fit_transform(Items({"text": torch.ones(3, 4, device="meta"), "image": torch.ones(3, 4)}))
    with pytest.raises(TypeError, match="role 'text' holds str objects, not embeddings"):
        MultimodalFuser().fit(Items({"text": ["a"]}))
    with pytest.raises(TypeError, match="this SearchTask holds plain arrays"):
        fuser.transform(SearchTask(np.eye(16), np.eye(16)))
    with pytest.raises(ValueError, match="one side has 17 roles; at most 16"):
        MultimodalFuser(modalities=dict.fromkeys(map(str, range(17)), "text")).fit(
            Items({str(i): np.eye(3) for i in range(17)})
        )
    for call in (fuser.transform, MultimodalFuser(equalize=True).fit):
        with pytest.raises(TypeError, match="X is a dict; wrap columns of one length in Items"):
            call({"text": rng.normal(size=(3, 16))})
    with pytest.raises(TypeError, match="y is Items; a corpus goes beside the queries"):
        fuser.fit(task.queries, task.corpus)
    with pytest.raises(NotFittedError):
        MultimodalFuser().transform(task)


def test_vectors_of_another_encoder_are_refused(mixed):
    task, qrels = mixed
    known = SearchTask(Items(task.queries, encoder="a"), Items(task.corpus, encoder="a"))
    fuser = MultimodalFuser(equalize=True).fit(known, qrels)
    assert fuser.encoder_ == "a"
    with pytest.raises(ValueError, match="fitted on vectors of encoder 'a', but these come from 'b'"):
        fuser.transform(Items(task.corpus, encoder="b"))


def test_a_failed_fit_changes_nothing(mixed):
    task, qrels = mixed
    fuser = MultimodalFuser(equalize=True).fit(task, qrels)
    before = str(vars(fuser))
    with pytest.raises(ValueError, match="judges document 99"):
        fuser.fit(task[:5], [{99: 1}] * 5)
    assert str(vars(fuser)) == before


def test_torch_equals_numpy(mixed):
    task, qrels = mixed
    tensors = SearchTask(
        *(Items({r: torch.from_numpy(p) for r, p in side.items()}) for side in (task.queries, task.corpus))
    )
    first, second = (MultimodalFuser(equalize=True).fit(x, qrels) for x in (task, tensors))
    assert first.spread_ == pytest.approx(second.spread_, rel=1e-14)
    out = second.transform(tensors)
    assert isinstance(out.corpus, torch.Tensor)
    np.testing.assert_allclose(out.corpus.numpy(), first.transform(task).corpus, rtol=1e-13)


def test_joblib_round_trip_is_bit_identical(mixed, tmp_path):
    task, qrels = mixed
    fuser = MultimodalFuser(equalize=True).fit(task, qrels)
    joblib.dump(fuser, tmp_path / "f.joblib")
    again = joblib.load(tmp_path / "f.joblib")
    assert again.spread_ == fuser.spread_
    np.testing.assert_array_equal(again.transform(task).corpus, fuser.transform(task).corpus)


def test_fitting_is_quiet(mixed):
    task, qrels = mixed
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MultimodalFuser(equalize=True).fit(task, qrels).transform(task)


@pytest.mark.gpu
def test_gpu_equals_cpu(cuda, rng):
    task, qrels = make_mixed(rng, n=600, d=64, dtype=np.float32)
    sides = [
        Items({role: torch.from_numpy(part).to(cuda) for role, part in side.items()})
        for side in (task.queries, task.corpus)
    ]
    gpu, cpu = (MultimodalFuser(equalize=True).fit(x, qrels) for x in (SearchTask(*sides), task))
    assert gpu.spread_ == pytest.approx(cpu.spread_, rel=1e-6)
    out = gpu.transform(sides[1])
    assert out.device.type == "cuda"
    np.testing.assert_allclose(out.cpu().numpy(), cpu.transform(task.corpus), rtol=1e-5, atol=1e-5)
