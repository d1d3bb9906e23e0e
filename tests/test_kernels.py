"""The blocked arithmetic against slow references, over dtypes, layouts, block edges and missing parts."""

import pickle
from unittest.mock import Mock

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import TOLERANCE, dtype_name, embeddings, lay_out, to_numpy
from torch._subclasses.fake_tensor import FakeTensorMode

from grclip import _kernels
from grclip._kernels import as_tensor, is_viewable, is_writable, overlap, row_blocks


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of a few rows, so that small inputs have edges."""
    monkeypatch.setattr(_kernels, "_CPU_BLOCK", 64)
    monkeypatch.setattr(_kernels, "_GPU_BLOCK", 96)


@given(st.integers(1, 50), st.integers(1, 40))
def test_blocks_cover_all_rows_once(n, d):
    x = np.zeros((n, d))
    assert [row for rows in row_blocks(x) for row in range(n)[rows]] == list(range(n))
    assert [row for rows in row_blocks(x, 7) for row in range(n)[rows]] == list(range(n))


@given(embeddings())
def test_any_array_is_seen_as_a_tensor_with_its_values(x):
    np.testing.assert_array_equal(to_numpy(as_tensor(x)), to_numpy(x))


@pytest.mark.parametrize("layout", ["c", "f", "step", "read-only"])
def test_usual_arrays_are_viewed_not_copied(layout):
    x = lay_out(np.ones((4, 6)), layout)
    assert is_viewable(x)
    assert as_tensor(x).data_ptr() == x.ctypes.data


@pytest.mark.parametrize("layout", ["back", "big-endian"])
def test_unusual_arrays_are_copied(layout):
    x = lay_out(np.arange(24.0).reshape(4, 6), layout)
    assert not is_viewable(x)
    assert not is_writable(x)
    np.testing.assert_array_equal(as_tensor(x).numpy(), np.arange(24.0).reshape(4, 6))


def test_a_misaligned_array_is_copied():
    x = np.frombuffer(b"\0" + np.arange(6.0).tobytes(), dtype=np.float64, offset=1).reshape(2, 3)
    assert not is_viewable(x)
    np.testing.assert_array_equal(as_tensor(x).numpy(), np.arange(6.0).reshape(2, 3))


def test_what_can_be_written_to():
    x = np.zeros((4, 6))
    assert is_writable(x)
    assert is_writable(torch.zeros(4, 6))
    assert not is_writable(lay_out(x, "read-only"))
    assert not is_writable(torch.zeros(1, 6).expand(4, 6))
    assert not is_writable(torch.zeros(9).unfold(0, 6, 1))
    assert is_writable(torch.zeros(8, 12)[::2, ::3])
    assert is_writable(torch.zeros(6, 4).T)
    assert is_writable(torch.zeros(6).expand(1, 6))


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_overlap(convert):
    x = np.zeros((6, 4))
    assert overlap(convert(x), convert(x))
    assert overlap(convert(x[:4]), convert(x[3:]))
    assert overlap(convert(x), x)
    assert not overlap(convert(x[:3]), convert(x[3:]))
    assert not overlap(convert(x), convert(x.copy()))


@given(embeddings(), st.booleans())
def test_sums_match_the_reference(x, normalize):
    total, norms = _kernels.sum_rows(x, normalize=normalize)
    mean, count = reference.mean_and_count(to_numpy(x), normalize)
    assert total.dtype == np.float64
    np.testing.assert_allclose(total, count * mean if count else np.zeros_like(total), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(norms.numpy(), np.linalg.norm(to_numpy(x), axis=1), rtol=1e-12)


def test_half_precision_is_summed_in_float64():
    x = np.ones((100_000, 3), np.float16)
    x[:, 1] = 2**-11
    total, _ = _kernels.sum_rows(x, normalize=False)
    assert total.tolist() == [100_000, 100_000 / 2**11, 100_000]


@given(embeddings(), st.booleans())
def test_shifts_match_the_reference(x, normalize):
    shift = np.linspace(-1, 1, x.shape[1])
    out = _kernels.empty_like(x, _kernels.dtype_of(x))
    norms = _kernels.shift_rows(x, shift, normalize=normalize, out=out)
    expected = reference.remove_gap(to_numpy(x), -shift, normalize)
    tolerance = TOLERANCE[dtype_name(x)] * (1 if normalize else 100)
    np.testing.assert_allclose(to_numpy(out), expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(to_numpy(norms), np.linalg.norm(to_numpy(x), axis=1), rtol=1e-6)
    assert type(out) is type(x)
    assert dtype_name(out) == dtype_name(x)


@given(st.data())
def test_fused_rows_match_the_reference(data):
    n, d, count = (data.draw(st.integers(1, most)) for most in (30, 20, 3))
    library, dtype = data.draw(st.sampled_from(["numpy", "torch"])), data.draw(st.sampled_from(["float32", "float64"]))
    parts = [data.draw(embeddings(n, d, dtypes=[dtype], libraries=[library])) for _ in range(count)]
    weights = np.random.default_rng(0).random((2**count, count))
    lengths = np.linspace(1, 2, 2**count)
    out = _kernels.empty_like(parts[0], _kernels.dtype_of(parts[0]))
    norms, fused = _kernels.fuse_rows(parts, weights, lengths, out=out)
    for i in range(n):
        present = [r for r in range(count) if not np.isnan(to_numpy(parts[r])[i]).any()]
        kind = sum(1 << r for r in present)
        total = sum((weights[kind, r] * to_numpy(parts[r])[i] for r in present), np.zeros(d))
        norm = np.linalg.norm(total)
        expected = lengths[kind] * total / norm if norm else total
        np.testing.assert_allclose(to_numpy(out)[i], expected, atol=10 * TOLERANCE[dtype])
        np.testing.assert_allclose(float(fused[i]), norm, rtol=1e-5)
    for part, norm in zip(parts, norms, strict=True):
        np.testing.assert_array_equal(np.isnan(to_numpy(norm)), np.isnan(to_numpy(part)).all(axis=1))


@given(embeddings())
def test_missing_rows(x):
    np.testing.assert_array_equal(_kernels.missing_rows(x), np.isnan(to_numpy(x)).all(axis=1))


@given(embeddings(zeros=False), st.data())
def test_rows_with_nan_beside_numbers_are_told_from_missing_ones(x, data):
    """Whatever bits their NaN have: a NaN may be of either sign, and hold a payload."""
    x = as_tensor(x).clone()
    whole = x.isnan().all(dim=1)
    rows = data.draw(st.lists(st.integers(0, len(x) - 1), unique=True, max_size=len(x)))
    x[rows, 0] = torch.nan
    partly = torch.zeros(len(x), dtype=torch.bool)
    partly[rows] = ~whole[rows] & (x.shape[1] > 1)
    if whole.any() and data.draw(st.booleans()):
        x[torch.nonzero(whole)[0, 0], -1] = -torch.nan
    for norms in (_kernels.row_norms(x), _kernels.sum_rows(x, normalize=True)[1]):
        np.testing.assert_array_equal(norms == _kernels.PARTLY, partly)
        np.testing.assert_array_equal(norms.isnan(), x.isnan().all(dim=1))


@pytest.mark.parametrize("kernel", ["sum_rows", "shift_rows", "fuse_rows", "row_norms"])
def test_no_block_waits_for_a_gpu(kernel, monkeypatch):
    """Tensors that only pretend to be on one raise where a number of theirs is needed: after all blocks."""
    monkeypatch.setattr(_kernels, "_tell_apart_later", Mock(side_effect=TimeoutError))
    with FakeTensorMode():
        x, out = torch.empty(50, 8, device="cuda"), torch.empty(50, 8, device="cuda")
        calls = {
            "sum_rows": lambda: _kernels.sum_rows(x, normalize=True),
            "shift_rows": lambda: _kernels.shift_rows(x, np.zeros(8), normalize=True, out=out),
            "fuse_rows": lambda: _kernels.fuse_rows([x, x], np.ones((4, 2)), np.ones(4), out=out),
            "row_norms": lambda: _kernels.row_norms(x),
        }
        with pytest.raises(TimeoutError):
            calls[kernel]()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (7, 5)])
def test_memory_for_results_is_like_any_other(dtype, shape):
    out = _kernels.empty_like(torch.empty(shape), dtype)
    assert out.dtype == dtype
    assert out.shape == shape
    assert out.is_contiguous()
    out.fill_(1).requires_grad_()
    assert torch.equal(pickle.loads(pickle.dumps(out)), torch.ones(shape, dtype=dtype))
    assert out.detach().share_memory_().is_shared()
    if dtype != torch.bfloat16:
        array = _kernels.empty_like(np.empty(shape), dtype)
        assert (array.shape, array.dtype.name) == (shape, str(dtype).removeprefix("torch."))
        assert array.flags.c_contiguous
        assert array.flags.writeable
