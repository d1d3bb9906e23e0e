import itertools
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import reference
import scipy.sparse
import torch
from conftest import make_mixed, unit
from hypothesis import given
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError
from strategies import TOLERANCE, dtype_name, embeddings, lay_out, to_numpy

from grclip import Items, ModalityGapRemover, MultimodalFuser, SearchTask

pytestmark = pytest.mark.filterwarnings("ignore:normalize=False, but rows have lengths")


def rows(rng, n=6, d=4):
    return rng.normal(size=(n, d)) + 1


@pytest.mark.filterwarnings("ignore:rows of zeros")
@given(embeddings(), st.booleans())
def test_matches_the_reference_for_any_array(x, normalize):
    mean, count = reference.mean_and_count(to_numpy(x), normalize)
    remover = ModalityGapRemover(normalize=normalize)
    if not count:
        with pytest.raises(ValueError, match="no row to learn a mean from"):
            remover.fit({"image": x})
        return
    out = remover.fit_transform({"image": x})["image"]
    assert remover.n_samples_seen_ == {"image": count}
    assert remover.means_["image"].dtype == np.float64
    np.testing.assert_allclose(remover.means_["image"], mean, rtol=1e-11, atol=1e-12)
    scale = 1 if normalize else 50
    expected = reference.remove_gap(to_numpy(x), mean, normalize)
    np.testing.assert_allclose(to_numpy(out), expected, atol=scale * TOLERANCE[dtype_name(x)])
    assert type(out) is type(x)
    assert dtype_name(out) == dtype_name(x)


@given(embeddings(zeros=False, dtypes=["float32", "float64"]))
def test_inverse_gives_back_unit_rows(x):
    if np.isnan(to_numpy(x)).all():
        return
    remover = ModalityGapRemover()
    back = remover.inverse_transform(remover.fit_transform({"image": x}))["image"]
    np.testing.assert_allclose(to_numpy(back), reference.unit(to_numpy(x)), atol=4 * TOLERANCE[dtype_name(x)])


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 60), min_size=1, max_size=4))
def test_any_split_of_the_rows_merges_to_one_fit(seed, cuts):
    x = np.random.default_rng(seed).normal(size=(60, 5)) + 0.5
    edges = [0, *sorted(cuts), 60]
    pieces = [x[a:b] for a, b in itertools.pairwise(edges) if b > a]
    whole = ModalityGapRemover().fit({"text": x})
    merged = ModalityGapRemover().fit({"text": pieces[0]})
    streamed = ModalityGapRemover().partial_fit({"text": pieces[0]})
    for piece in pieces[1:]:
        merged = merged.merge(ModalityGapRemover().fit({"text": piece}))
        assert streamed.partial_fit({"text": piece}) is streamed
    for other in (merged, streamed):
        assert other.n_samples_seen_ == whole.n_samples_seen_ == {"text": 60}
        np.testing.assert_allclose(other.means_["text"], whole.means_["text"], rtol=0, atol=1e-15)


def test_merge_is_associative_and_pools_roles(rng):
    a, b, c = (
        ModalityGapRemover().fit({role: rows(rng) for role in roles}) for roles in (["x", "y"], ["y"], ["y", "z"])
    )
    left, right = a.merge(b).merge(c), a.merge(b.merge(c))
    assert left.n_samples_seen_ == right.n_samples_seen_ == {"x": 6, "y": 18, "z": 6}
    for role in left.means_:
        np.testing.assert_allclose(left.means_[role], right.means_[role], rtol=0, atol=1e-15)
    assert a.n_samples_seen_ == {"x": 6, "y": 6}


@given(st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter(random):
    x = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    order = list(range(50))
    random.shuffle(order)
    first, second = ModalityGapRemover().fit({"x": x}), ModalityGapRemover().fit({"x": x[order]})
    np.testing.assert_allclose(first.means_["x"], second.means_["x"], atol=1e-15)
    np.testing.assert_array_equal(first.transform({"x": x[order]})["x"], first.transform({"x": x})["x"][order])


def test_a_task_gives_a_task_and_items_give_items(mixed):
    task, _ = mixed
    remover = ModalityGapRemover().fit(task)
    assert remover.n_samples_seen_ == {"query": 30, "text": 20, "image": 20}
    assert remover.n_features_in_ == 16
    out = remover.transform(task)
    assert isinstance(out, SearchTask)
    assert isinstance(out.corpus, Items)
    assert out.corpus.kinds.tolist() == task.corpus.kinds.tolist()
    for side in (out.queries, out.corpus):
        for role, part in side.items():
            assert np.abs(np.nanmean(part, axis=0)).max() < 1e-15
            given_ = task.queries[role] if role == "query" else task.corpus[role]
            np.testing.assert_array_equal(part, remover.transform(Items({role: given_}))[role])
    assert list(remover.transform({"text": rows(np.random.default_rng(1), d=16)})) == ["text"]


def test_a_dict_is_a_calibration_set_of_unequal_lengths(rng):
    remover = ModalityGapRemover().fit({"query": rows(rng, 3), "image": torch.from_numpy(rows(rng, 9)).bfloat16()})
    assert remover.n_samples_seen_ == {"query": 3, "image": 9}
    assert isinstance(remover.means_["image"], np.ndarray)
    out = remover.transform({"image": np.ones((2, 4), np.float16)})
    assert out["image"].dtype == np.float16


def test_one_array_has_one_unnamed_role(rng):
    x = rows(rng)
    for given_ in (x, x.tolist(), torch.from_numpy(x)):
        remover = ModalityGapRemover().fit(given_)
        np.testing.assert_allclose(remover.means_[""], unit(x).mean(0))
        np.testing.assert_allclose(to_numpy(remover.transform(given_)), unit(x) - unit(x).mean(0))
    with pytest.raises(ValueError, match=r"no mean was learned for role 'text'.*fitted on one bare array"):
        remover.transform({"text": x})


def test_names_of_columns_are_remembered_until_fit_sees_none(rng):
    frame = pd.DataFrame(rows(rng), columns=list("abcd"))
    remover = ModalityGapRemover().fit(frame)
    assert remover.feature_names_in_.tolist() == list("abcd")
    assert not hasattr(remover.fit({"text": rows(rng)}), "feature_names_in_")


def test_rows_that_are_not_normalised_first_change_the_mean(rng):
    x = rows(rng) * np.arange(1, 7)[:, None]
    assert not np.allclose(ModalityGapRemover(normalize=False).fit(x).means_[""], unit(x).mean(0))
    np.testing.assert_allclose(ModalityGapRemover(normalize=False).fit(x).means_[""], x.mean(0))


def test_lengths_that_will_ruin_the_mean_are_warned_of(rng):
    remover = ModalityGapRemover(normalize=False)
    x = unit(rows(rng))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        remover.fit({"text": x.astype(np.float16), "image": torch.from_numpy(x).bfloat16()})
    with pytest.warns(UserWarning, match="normalize=False, but rows have lengths from 1 to 3: means of rows that"):
        remover.fit({"text": x, "image": x * np.array([1, 1, 1, 3, 1, 1])[:, None]})


def test_a_calibration_dict_may_hold_lists_of_vectors(rng):
    x = rows(rng)
    expected = ModalityGapRemover().fit({"x": x}).means_["x"]
    for listed in (x.tolist(), [*x, None], [x[0], None, *x[1:]]):
        np.testing.assert_allclose(ModalityGapRemover().fit({"x": listed}).means_["x"], expected, rtol=1e-12)


def test_output_is_not_normalised_again(rng):
    out = ModalityGapRemover().fit_transform(rows(rng))
    assert not np.allclose(np.linalg.norm(out, axis=1), 1)


def test_zero_rows_stay_zero_with_one_warning(rng):
    x = {"text": rows(rng), "image": rows(rng)}
    x["text"][[1, 4]] = x["image"][2] = 0
    with pytest.warns(UserWarning, match=r"role 'text': 2 rows \(1, 4\); role 'image': 1 row \(2\)") as caught:
        remover = ModalityGapRemover().fit(x)
    assert len(caught) == 1
    assert remover.n_samples_seen_ == {"text": 4, "image": 5}
    with pytest.warns(UserWarning, match="no direction") as caught:
        out = remover.transform(x)
    assert len(caught) == 1
    assert not out["text"][[1, 4]].any()
    assert not out["image"][2].any()


def test_a_role_without_a_row_needs_no_mean(rng):
    task, _ = make_mixed(rng)
    missing = np.full((30, 16), np.nan)
    audio = SearchTask(task.queries, Items({**dict(task.corpus.items()), "audio": missing}))
    remover = ModalityGapRemover().fit(audio)
    assert sorted(remover.means_) == ["image", "query", "text"]
    assert np.isnan(remover.transform(audio).corpus["audio"]).all()
    with pytest.raises(ValueError, match=r"no mean was learned for role 'audio'.*fitted on 'query', 'text', 'image'"):
        remover.transform({"audio": rows(rng, d=16)})


@pytest.mark.parametrize("make", [np.array, torch.from_numpy])
def test_in_place(rng, make):
    x = rows(rng)
    remover = ModalityGapRemover(copy=False).fit({"image": x})
    expected = ModalityGapRemover().fit({"image": x}).transform({"image": x})["image"]
    given_ = make(x.copy())
    out = remover.transform({"image": given_})["image"]
    assert out is given_
    np.testing.assert_array_equal(to_numpy(out), expected)


@pytest.mark.parametrize("layout", ["read-only", "big-endian", "back"])
def test_in_place_copies_what_cannot_be_written_to(rng, layout):
    x = lay_out(rows(rng), layout)
    before = x.copy()
    remover = ModalityGapRemover(copy=False).fit({"image": x})
    out = remover.transform({"image": x})["image"]
    np.testing.assert_array_equal(x, before)
    np.testing.assert_allclose(out, unit(before) - remover.means_["image"])


@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy])
def test_in_place_never_shifts_shared_rows_twice(rng, make):
    x = rows(rng, 10)
    parts = {"query": make(x), "text": make(x[2:]), "image": make(rows(rng))}
    expected = ModalityGapRemover().fit(parts).transform(parts)
    out = ModalityGapRemover(copy=False).fit(parts).transform(parts)
    for role in parts:
        np.testing.assert_array_equal(to_numpy(out[role]), to_numpy(expected[role]))
    assert out["image"] is parts["image"]


def test_a_failed_transform_in_place_changes_no_part(rng):
    good, bad = rows(rng), rows(rng)
    remover = ModalityGapRemover(copy=False).fit({"text": good, "image": bad})
    bad[3, 1] = np.nan
    before = good.copy()
    with pytest.raises(ValueError, match="role 'image'"):
        remover.transform({"text": good, "image": bad})
    np.testing.assert_array_equal(good, before)


def test_tensors_that_require_grad_are_detached(rng):
    x = torch.from_numpy(rows(rng)).requires_grad_()
    out = ModalityGapRemover().fit_transform({"image": x})["image"]
    assert not out.requires_grad
    assert x.requires_grad


BAD_VALUES = [
    (
        "partly NaN",
        np.nan,
        "role 'image': NaN beside numbers in 2 rows \\(1, 4\\) \\(a missing part is NaN throughout\\); drop",
    ),
    ("inf", np.inf, "role 'image': inf in 2 rows \\(1, 4\\)"),
    ("-inf", -np.inf, "role 'image': inf in 2 rows \\(1, 4\\)"),
    ("huge", 1e200, "role 'image': numbers too large to square in 2 rows \\(1, 4\\)"),
]


def test_nothing_is_written_before_everything_is_checked(rng):
    good, bad = rows(rng), rows(rng)
    remover = ModalityGapRemover(copy=False).fit(Items({"text": good, "image": bad}))
    before = good.copy()
    bad[3, 1] = np.nan
    bad.flags.writeable = False
    with pytest.raises(ValueError, match="role 'image'"):
        remover.transform({"text": good, "image": bad})
    np.testing.assert_array_equal(good, before)
    with pytest.raises(UserWarning, match="cannot check"):  # as warnings are errors here
        remover.transform(Items({"text": good}, encoder="a"))
    np.testing.assert_array_equal(good, before)


def test_a_task_is_never_written_to(mixed):
    task, _ = mixed
    before = {role: part.copy() for role, part in {**dict(task.queries), **dict(task.corpus)}.items()}
    remover = ModalityGapRemover(copy=False).fit(task)
    first, second = remover.transform(task), remover.transform(task[:9])
    np.testing.assert_array_equal(first.corpus["image"], second.corpus["image"])
    for role, part in before.items():
        np.testing.assert_array_equal((task.queries if role == "query" else task.corpus)[role], part)


@pytest.mark.parametrize("copy", [True, False])
def test_a_row_that_equals_its_mean_comes_back(copy):
    x = np.tile([1.0, 0.0, 0.0], (3, 1))
    remover = ModalityGapRemover(copy=copy).fit({"text": x})
    out = remover.transform({"text": x.copy()})
    assert not out["text"].any()
    np.testing.assert_array_equal(remover.inverse_transform(out)["text"], x)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_rows_too_short_to_measure_count_as_zero(rng, dtype):
    x = unit(rows(rng)).astype(dtype)
    tiny = x.astype(np.float32)
    tiny[1] *= 1e-16  # the square underflows, the number does not
    tiny[2] *= 1e-11
    with pytest.warns(UserWarning, match=r"role 'text': 1 row \(1\)"):
        remover = ModalityGapRemover().fit({"text": tiny})
    assert remover.n_samples_seen_ == {"text": 5}
    with pytest.warns(UserWarning, match=r"role 'text': 1 row \(1\)"):
        out = remover.transform({"text": tiny})["text"]
    assert not out[1].any()
    np.testing.assert_allclose(out[2] + remover.means_["text"], unit(x[2].astype(float)), atol=1e-5)


def test_tensors_that_require_grad_are_not_written_to(rng):
    x = torch.from_numpy(rows(rng)).requires_grad_()
    before = x.detach().clone()
    remover = ModalityGapRemover(copy=False).fit(x)
    remover.transform(x)
    ModalityGapRemover(copy=False).fit({"text": x}).transform({"text": x})
    assert torch.equal(x.detach(), before)


def test_a_batch_in_which_no_row_has_a_part(rng):
    remover = ModalityGapRemover().fit({"text": rows(rng), "image": rows(rng)})
    batch = Items({"text": rows(rng), "image": [None] * 6})
    out = remover.transform(batch)
    assert out.kinds.tolist() == ["text"] * 6
    task = SearchTask(Items({"query": rows(rng)}), batch)
    remover = ModalityGapRemover().fit(task)
    assert sorted(remover.means_) == ["query", "text"]
    fused = MultimodalFuser(equalize=True).fit_transform(remover.transform(task))
    assert fused.corpus.shape == (6, 4)
    with pytest.raises(TypeError, match="holds only missing"):
        remover.transform(Items({"text": [None, None]}))


def test_bare_arrays_and_roles_do_not_mix(rng):
    remover = ModalityGapRemover().fit({"text": rows(rng)})
    for call in (lambda: remover.partial_fit(rows(rng)), lambda: remover.merge(ModalityGapRemover().fit(rows(rng)))):
        with pytest.raises(ValueError, match="a bare array has no role"):
            call()


def test_foreign_byte_order_is_read_as_it_is(rng):
    x = rows(rng).astype(">f4")
    out = ModalityGapRemover().fit_transform(x)
    assert out.dtype.name == "float32"
    np.testing.assert_allclose(out, unit(x) - unit(x).mean(0), atol=1e-6)


def test_switches_are_true_or_false(rng):
    with pytest.raises(TypeError, match="normalize must be True or False; got 'no'"):
        ModalityGapRemover(normalize="no").fit(rows(rng))


def test_a_merge_warns_of_an_unknown_encoder_and_keeps_names(rng):
    known = ModalityGapRemover().fit(Items({"text": rows(rng)}, encoder="a"))
    with pytest.warns(UserWarning, match="cannot check"):
        assert ModalityGapRemover().fit({"text": rows(rng)}).merge(known).encoder_ == "a"
    frame = pd.DataFrame(rows(rng), columns=list("abcd"))
    named = ModalityGapRemover().fit(frame)
    assert named.merge(named).transform(frame).shape == (6, 4)


@pytest.mark.parametrize("call", ["fit", "partial_fit", "fit_transform"])
def test_warnings_point_to_the_line_that_called(rng, call):
    x = rows(rng)
    x[0] = 0
    with pytest.warns(UserWarning, match="no direction") as caught:
        getattr(ModalityGapRemover(), call)({"text": x})
    assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.parametrize("make", [np.array, torch.from_numpy])
@pytest.mark.parametrize(("value", "message"), [case[1:] for case in BAD_VALUES], ids=[case[0] for case in BAD_VALUES])
def test_bad_values_name_role_and_rows(rng, make, value, message):
    x = rows(rng)
    remover = ModalityGapRemover().fit({"text": rows(rng), "image": x})
    x[[1, 4], 2] = value
    for call in (remover.transform, remover.fit, remover.partial_fit, remover.inverse_transform):
        with pytest.raises(ValueError, match=message):
            call({"text": rows(rng), "image": make(x)})


def test_many_bad_rows_are_counted_and_the_first_few_named(rng):
    x = rows(rng, 50)
    x[10:] = np.inf
    with pytest.raises(ValueError, match=r"in 40 rows \(10, 11, 12, 13, 14, \.\.\.\)"):
        ModalityGapRemover().fit({"image": x})


def test_a_missing_row_of_a_bare_array_is_an_error(rng):
    x = rows(rng)
    x[2] = np.nan
    with pytest.raises(ValueError, match=r"X: NaN in 1 row \(2\)"):
        ModalityGapRemover().fit(x)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.ones(4), ValueError, r"role 'image' has shape \(4,\); expected \(n, d\)"),
        (np.ones((2, 2, 4)), ValueError, r"role 'image' has shape \(2, 2, 4\)"),
        (np.ones((2, 4), int), TypeError, "role 'image' has dtype int64"),
        (np.ones((2, 4), bool), TypeError, "role 'image' has dtype bool"),
        (np.ones((2, 4), complex), TypeError, "role 'image' has dtype complex128"),
        (np.ones((2, 4), object), TypeError, "role 'image' holds int objects"),
        (torch.ones(2, 4, dtype=torch.int64), TypeError, "role 'image' has dtype torch.int64"),
        (torch.ones(2, 4, dtype=torch.complex64), TypeError, "role 'image' has dtype torch.complex64"),
        (np.empty((0, 4)), ValueError, r"role 'image' has shape \(0, 4\); expected at least one row"),
        (["a.jpg", None], TypeError, "role 'image' holds str objects, not embeddings; encode them first"),
        (np.ones((2, 5)), ValueError, "role 'image' has 5 features, but ModalityGapRemover is expecting 4 features"),
    ],
)
def test_bad_structure_names_the_role(rng, x, error, message):
    remover = ModalityGapRemover().fit({"text": rows(rng), "image": rows(rng)})
    calls = (remover.transform, remover.partial_fit) if "features" in message else (remover.transform, remover.fit)
    for call in calls:
        with pytest.raises(error, match=message):
            call({"image": x})


def test_other_bad_input(rng):
    remover = ModalityGapRemover().fit({"text": rows(rng), "image": rows(rng)})
    with pytest.raises(ValueError, match="role 'image' has 5 features, but role 'text' has 4"):
        remover.fit({"text": rows(rng), "image": rows(rng, d=5)})
    with pytest.raises(ValueError, match=r"no mean was learned for role 'query'.*fitted on 'text', 'image'"):
        remover.transform(Items({"query": rows(rng)}))
    with pytest.raises(ValueError, match=r"no mean was learned for X.*Items\(\{'query': X\}\)"):
        remover.transform(rows(rng))
    with pytest.raises(TypeError, match="X is 'a red bicycle'; expected embeddings"):
        remover.transform("a red bicycle")
    with pytest.raises(TypeError, match=r"X is \['a red bicycle', 'b'\]; expected embeddings"):
        remover.transform(["a red bicycle", "b"])
    for call in (remover.fit, remover.partial_fit):
        with pytest.raises(TypeError, match=r"y is Items; a corpus goes beside the queries"):
            call(Items({"text": rows(rng)}), Items({"image": rows(rng)}))
    with pytest.raises(ValueError, match="X holds nothing; expected at least one role"):
        remover.fit({})
    with pytest.raises(ValueError, match="X holds nothing; expected at least one row"):
        remover.transform(Items({"text": rows(rng)})[[]])
    with pytest.raises(TypeError, match="a role is a non-empty str; got 3"):
        remover.fit({3: rows(rng)})
    with pytest.raises(TypeError, match="this SearchTask holds plain arrays"):
        remover.transform(SearchTask(rows(rng), rows(rng)))
    with pytest.raises(TypeError, match="X has dtype bool"):
        remover.fit(np.ones((2, 4), bool))
    with pytest.raises(TypeError, match="X has dtype datetime64"):
        remover.fit(np.ones((2, 4), "M8[s]"))
    with pytest.raises(ValueError, match="Complex data not supported"):
        remover.fit(np.ones((2, 4), complex))
    with pytest.raises(NotFittedError):
        ModalityGapRemover().transform(rows(rng))
    with pytest.raises(TypeError, match="role 'text' is sparse; embeddings are dense"):
        remover.fit({"text": scipy.sparse.eye_array(4)})


def state(remover):
    return {name: str(value) for name, value in sorted(vars(remover).items())}


@pytest.mark.parametrize("fit", ["fit", "partial_fit"])
def test_a_failed_fit_changes_nothing(rng, fit):
    bad = rows(rng)
    bad[0, 0] = np.inf
    fresh = ModalityGapRemover()
    fitted = ModalityGapRemover().fit(Items({"text": rows(rng), "image": rows(rng)}, encoder="a"))
    for remover in (fresh, fitted):
        before = state(remover)
        for broken in (
            bad,
            {"text": rows(rng), "image": bad},
            {"text": bad, "image": rows(rng)},
            [["a"]],
            bad.tolist(),
        ):
            with pytest.raises((TypeError, ValueError)):
                getattr(remover, fit)(broken)
        assert state(remover) == before


def test_a_failed_merge_changes_nothing(rng):
    remover = ModalityGapRemover().fit(Items({"text": rows(rng)}, encoder="a"))
    before = state(remover)
    for other, error, message in (
        (ModalityGapRemover().fit({"text": rows(rng, d=5)}), ValueError, "n_features_in_ is 4 here and 5 in other"),
        (ModalityGapRemover(normalize=False).fit({"text": rows(rng)}), ValueError, "normalize is True here and False"),
        (ModalityGapRemover().fit(Items({"text": rows(rng)}, encoder="b")), ValueError, "encoder 'a'.*'b'"),
        (ModalityGapRemover(), NotFittedError, "not fitted"),
        ({"text": rows(rng)}, TypeError, "other must be a ModalityGapRemover; got dict"),
    ):
        with pytest.raises(error, match=message):
            remover.merge(other)
        assert state(remover) == before


def test_vectors_of_another_encoder_are_refused(rng):
    remover = ModalityGapRemover().fit(Items({"image": rows(rng)}, encoder="ViT-B-32/openai"))
    assert remover.encoder_ == "ViT-B-32/openai"
    for call in (remover.transform, remover.inverse_transform, remover.partial_fit):
        with pytest.raises(
            ValueError, match="fitted on vectors of encoder 'ViT-B-32/openai', but these come from 'SigLIP'"
        ):
            call(Items({"image": rows(rng)}, encoder="SigLIP"))
    assert remover.transform(Items({"image": rows(rng)}, encoder="ViT-B-32/openai")).encoder == "ViT-B-32/openai"


@pytest.mark.parametrize(("fitted", "given"), [("a", None), (None, "a")])
def test_an_encoder_known_on_one_side_warns_once(rng, fitted, given):
    remover = ModalityGapRemover().fit(Items({"image": rows(rng), "text": rows(rng)}, encoder=fitted))
    x = Items({"image": rows(rng), "text": rows(rng)}, encoder=given)
    with pytest.warns(UserWarning, match="cannot check that one encoder made all vectors.*'a'") as caught:
        remover.transform(x)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    remover.transform(x)
    with pytest.warns(UserWarning, match="cannot check"):
        remover.fit(x[:3]).partial_fit(Items({"image": rows(rng)}, encoder=None if given else "a"))
    assert remover.encoder_ == "a"


def test_joblib_round_trip_is_bit_identical(rng, tmp_path, mixed):
    task, _ = mixed
    remover = ModalityGapRemover().fit(task)
    joblib.dump(remover, tmp_path / "r.joblib")
    again = joblib.load(tmp_path / "r.joblib")
    for role, part in again.transform(task).corpus.items():
        np.testing.assert_array_equal(part, remover.transform(task).corpus[role])


def test_fitted_state_is_numpy_whatever_was_fitted(rng):
    remover = ModalityGapRemover().fit({"image": torch.from_numpy(rows(rng)).bfloat16()})
    assert not [value for value in vars(remover).values() if isinstance(value, torch.Tensor)]
    assert all(type(mean) is np.ndarray for mean in remover.means_.values())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_gpu_equals_cpu(rng, cuda, tmp_path, dtype):
    x = torch.from_numpy(rows(rng, 3000, 64)).to(dtype)
    x[::7] = torch.nan
    cpu, gpu = ModalityGapRemover().fit({"image": x}), ModalityGapRemover().fit({"image": x.to(cuda)})
    assert cpu.n_samples_seen_ == gpu.n_samples_seen_
    np.testing.assert_allclose(gpu.means_["image"], cpu.means_["image"], atol=1e-12)
    out = gpu.transform({"image": x.to(cuda)})["image"]
    assert out.device.type == "cuda"
    tolerance = TOLERANCE[dtype_name(x)]
    np.testing.assert_allclose(to_numpy(out), to_numpy(cpu.transform({"image": x})["image"]), atol=tolerance)
    joblib.dump(gpu, tmp_path / "gpu.joblib")
    assert b"cuda" not in (tmp_path / "gpu.joblib").read_bytes()
