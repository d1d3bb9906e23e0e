"""Hypothesis strategies: arrays of embeddings as they come, and graded rankings."""

import numpy as np
import torch
from hypothesis import strategies as st

DTYPES = ["float16", "bfloat16", "float32", "float64"]

TOLERANCE = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 2e-6, "float64": 1e-12}
"""A few units in the last place of each dtype, for numbers of size 1."""


@st.composite
def embeddings(draw, n=None, d=None, missing=True, zeros=True, dtypes=DTYPES, libraries=("numpy", "torch")):
    """An (n, d) array or tensor of any float dtype, layout and library, with missing and zero rows."""
    n = draw(st.integers(1, 40)) if n is None else n
    d = draw(st.integers(1, 33)) if d is None else d
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * draw(st.sampled_from([1e-2, 1.0, 10.0])) + draw(st.sampled_from([0.0, 1.0]))
    if missing:
        x[rng.random(n) < draw(st.sampled_from([0.0, 0.3]))] = np.nan
    if zeros:
        x[rng.random(n) < draw(st.sampled_from([0.0, 0.1]))] = 0
    library, dtype = draw(st.sampled_from(libraries)), draw(st.sampled_from(dtypes))
    if library == "torch" or dtype == "bfloat16":
        return lay_out_tensor(torch.from_numpy(x).to(getattr(torch, dtype)), draw(st.sampled_from(["c", "f", "step"])))
    return lay_out(x.astype(dtype), draw(st.sampled_from(["c", "f", "step", "back", "read-only", "big-endian"])))


def lay_out(x, layout):
    """x with the same values and another memory layout."""
    if layout == "f":
        return np.asfortranarray(x)
    if layout == "step":
        return np.repeat(np.repeat(x, 2, axis=0), 3, axis=1)[::2, ::3]
    if layout == "back":
        return x[::-1, ::-1].copy()[::-1, ::-1]
    if layout == "big-endian":
        return x.astype(x.dtype.newbyteorder(">"))
    if layout == "read-only":
        x = x.copy()
        x.flags.writeable = False
    return x


def lay_out_tensor(x, layout):
    if layout == "f":
        return x.T.contiguous().T
    if layout == "step":
        return x.repeat_interleave(2, 0).repeat_interleave(3, 1)[::2, ::3]
    return x


def to_numpy(x):
    """Any array in float64 NumPy."""
    return x.detach().cpu().double().numpy() if isinstance(x, torch.Tensor) else np.asarray(x, dtype=np.float64)


def dtype_name(x):
    return str(x.dtype).removeprefix("torch.") if isinstance(x, torch.Tensor) else x.dtype.newbyteorder("=").name


@st.composite
def judged_rankings(draw, max_grade=3):
    """qrels with at least one relevant document a query, a ranking of distinct documents, and k."""
    n_queries, n_documents = draw(st.integers(1, 6)), draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    qrels, ranking = [], []
    for _ in range(n_queries):
        judged = rng.choice(n_documents, rng.integers(1, n_documents + 1), replace=False)
        grades = rng.integers(0, max_grade + 1, len(judged))
        grades[0] = max(grades[0], 1)
        qrels.append(dict(zip(judged.tolist(), grades.tolist(), strict=True)))
        ranking.append(rng.permutation(n_documents)[: rng.integers(1, n_documents + 1)].tolist())
    return qrels, ranking, draw(st.integers(1, 35))
