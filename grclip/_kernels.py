"""Blocked arithmetic on rows of embeddings.

Every pass over the data runs through here. NumPy arrays are viewed as tensors block by block, never copied
whole, so a memory-mapped file larger than memory is fine, and a block is small enough to stay in cache.
Validation happens before (structure) or after (values, from the norms that a pass returns): see _validation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray | Tensor

PARTLY = -1.0
"""Stands for the norm of a row that holds NaN beside numbers; that of a row which is NaN throughout is NaN."""

_CPU_BLOCK = 2**20  # numbers in a block: 2,048 rows of 512, 4 MB of float32
_GPU_BLOCK = 2**25
_PIECES = 8  # of a block, whose weighted sums are taken at once: one vector times one matrix keeps one thread busy
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class _Writable:
    """An array interface that calls a read-only buffer writable, as torch wants it; nothing here writes to it."""

    def __init__(self, array: NDArray) -> None:
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}
        self.owner = array


def is_viewable(x: NDArray) -> bool:
    """Whether torch can look at x in place."""
    return bool(
        x.flags.aligned and x.dtype.isnative and all(stride >= 0 and stride % x.itemsize == 0 for stride in x.strides)
    )


def is_writable(x: Array) -> bool:
    """Whether x can be written to through torch, each number in a place of its own."""
    extent = 1 if isinstance(x, Tensor) else x.itemsize
    for stride, size in sorted(zip(_strides(x), x.shape, strict=True)):
        if size > 1 and stride < extent:
            return False
        extent += (size - 1) * stride
    return isinstance(x, Tensor) or (x.flags.writeable and is_viewable(x))


def overlap(a: Array, b: Array) -> bool:
    """Whether the memory between the first and the last number of a and of b has a byte in common."""
    (start_a, end_a), (start_b, end_b) = _bounds(a), _bounds(b)
    return device_of(a) == device_of(b) and start_a < end_b and start_b < end_a


def _strides(x: Array) -> tuple[int, ...]:
    return x.stride() if isinstance(x, Tensor) else x.strides


def _bounds(x: Array) -> tuple[int, int]:
    if isinstance(x, np.ndarray):
        return np.lib.array_utils.byte_bounds(x)
    last = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    return x.data_ptr(), x.data_ptr() + (last + 1) * x.itemsize


def as_tensor(x: Array) -> Tensor:
    """X as a detached tensor: a view where torch can take one, else a copy."""
    if isinstance(x, Tensor):
        return x.detach()
    if not is_viewable(x):
        x = np.array(x, dtype=x.dtype.newbyteorder("="), order="C")
    if not x.flags.writeable:
        x = np.asarray(_Writable(x))
    return torch.from_numpy(x)


def block_rows(x: Array) -> int:
    """How many rows of x stay in cache, or, on a GPU, are worth a launch."""
    return max(1, (_GPU_BLOCK if isinstance(x, Tensor) and x.is_cuda else _CPU_BLOCK) // x.shape[1])


def row_blocks(x: Array, rows: int | None = None) -> Iterator[slice]:
    """Slices of consecutive rows that cover x; `rows` at a time, or as many as stay in cache."""
    rows = rows or block_rows(x)
    for start in range(0, x.shape[0], rows):
        yield slice(start, min(start + rows, x.shape[0]))


def dtype_of(x: Array) -> torch.dtype:
    """The torch dtype of x."""
    return x.dtype if isinstance(x, Tensor) else torch.from_numpy(np.empty(0, x.dtype.newbyteorder("="))).dtype


def compute_dtype(*dtypes: torch.dtype) -> torch.dtype:
    """The dtype of intermediate results: float64 where an input has it, else float32."""
    return torch.float64 if torch.float64 in dtypes else torch.float32


def device_of(x: Array) -> torch.device:
    """The device that x lies on."""
    return x.device if isinstance(x, Tensor) else torch.device("cpu")


def empty_like(x: Array, dtype: torch.dtype) -> Array:
    """An uninitialised array of the shape, library and device of x.

    NumPy asks the system for large pages, torch does not: first writing to 400 MB in small ones takes as long as
    several copies of it.
    """
    if device_of(x).type != "cpu":
        return torch.empty(tuple(x.shape), dtype=dtype, device=device_of(x))
    out = torch.from_numpy(np.empty(tuple(x.shape), dtype=f"i{dtype.itemsize}")).view(dtype)
    return out if isinstance(x, Tensor) else out.numpy()


def norm_limits(dtype: torch.dtype) -> tuple[float, float]:
    """The smallest and the largest norm whose square does not underflow or overflow in dtype's compute dtype."""
    info = torch.finfo(compute_dtype(dtype))
    return info.tiny**0.5 / info.eps, info.max**0.5


def _inverse(norms: Tensor, smallest: float) -> Tensor:
    """1 / norm; zero for rows without direction, and for missing ones."""
    return torch.where(norms >= smallest, 1 / norms, 0)


def row_norms(x: Array) -> Tensor:
    """L2 norms of the rows, (n,); NaN for a missing row, PARTLY for one with NaN beside numbers."""
    norms = torch.empty(x.shape[0], dtype=compute_dtype(dtype_of(x)), device=device_of(x))
    for rows in row_blocks(x):
        _measure(as_tensor(x[rows]).to(norms.dtype), norms[rows])
    _tell_apart_later(x, norms)
    return norms


def _measure(block: Tensor, norms: Tensor) -> None:
    """Write the norms of a block."""
    torch.linalg.vector_norm(block, dim=1, out=norms)
    _tell_apart_now(block, norms)


def _tell_apart_now(block: Tensor, norms: Tensor) -> None:
    """The CPU looks at rows with NaN while they are in cache; a GPU must not wait inside a loop for their number."""
    if not block.is_cuda:
        _tell_apart(block, norms)


def _tell_apart_later(x: Array, norms: Tensor) -> None:
    if norms.is_cuda:
        _tell_apart(as_tensor(x), norms)


def _tell_apart(x: Tensor, norms: Tensor) -> None:
    """Mark rows with NaN beside numbers in their norms, in place."""
    for rows in torch.nonzero(norms.isnan()).flatten().split(block_rows(x)):
        if not len(rows):
            continue
        block = x.index_select(0, rows)
        low, high = torch.aminmax(block.view(_BITS[block.itemsize]))
        if low != high:  # comparing numbers one by one takes ten times as long, and most NaN are one pattern of bits
            norms[rows[~block.isnan().all(dim=1)]] = PARTLY


def missing_rows(x: Array) -> NDArray[np.bool_]:
    """Which rows are NaN throughout, (n,)."""
    return row_norms(x).isnan().cpu().numpy()


def sum_rows(x: Array, *, normalize: bool) -> tuple[NDArray[np.float64], Tensor]:
    """Sum of the (unit) rows in float64, (d,), and the norms of the rows, (n,). Rows without direction add nothing."""
    smallest, _ = norm_limits(dtype_of(x))
    height = -(-min(block_rows(x), x.shape[0]) // _PIECES)
    kind: dict[str, Any] = {"dtype": torch.float64, "device": device_of(x)}
    total, norms = torch.zeros(x.shape[1], **kind), torch.empty(x.shape[0], **kind)
    scratch = torch.zeros((_PIECES, height, x.shape[1]), **kind)
    factors = torch.zeros((_PIECES, 1, height), **kind)
    for rows in row_blocks(x):
        n = rows.stop - rows.start
        given = as_tensor(x[rows])
        block = scratch.view(-1, x.shape[1])[:n].copy_(given)
        torch.linalg.vector_norm(block, dim=1, out=norms[rows])
        factors.view(-1)[:n] = norms[rows].reciprocal() if normalize else 1
        factors.view(-1)[n:] = 0  # what an earlier block left
        if block.is_cuda or not norms[rows].min() >= smallest:  # which is so where there are NaN
            unusable = ~(norms[rows] >= smallest)
            _clear(block, unusable)  # 0 * NaN is NaN
            factors.view(-1)[:n].masked_fill_(unusable, 0)
            _tell_apart_now(given, norms[rows])
        total += torch.bmm(factors, scratch).sum(dim=(0, 1))
    _tell_apart_later(x, norms)
    return total.cpu().numpy(), norms


def _clear(block: Tensor, rows: Tensor) -> None:
    """Fill the rows of a mask with zeros; a GPU must not wait for their number, and visits all rows."""
    if block.is_cuda:
        block.masked_fill_(rows[:, None], 0)
    else:
        block.index_fill_(0, torch.nonzero(rows).flatten(), 0)


def shift_rows(
    x: Array,
    shift: NDArray[np.float64],
    *,
    normalize: bool,
    keep_zeros: bool = True,
    norms: Tensor | None = None,
    out: Array,
) -> Tensor:
    """Write (unit) rows plus `shift` into `out`, which may be x itself; return the norms of the rows, (n,).

    Missing rows stay NaN throughout, and with `keep_zeros` rows without direction stay zero. `norms`, where they are
    known, save half of the reading.
    """
    smallest, _ = norm_limits(dtype_of(x))
    dtype, known = compute_dtype(dtype_of(x)), norms is not None
    if norms is None:
        norms = torch.empty(x.shape[0], dtype=dtype, device=device_of(x))
    shift_ = torch.as_tensor(shift, dtype=dtype, device=norms.device)
    scratch = _scratch(x, dtype, out)
    for rows in row_blocks(x):
        block, target = as_tensor(x[rows]), as_tensor(out[rows])
        result = target if scratch is None else scratch[: len(target)]
        if block.dtype != dtype:
            block = result.copy_(block)
        if not known:
            _measure(block, norms[rows])
        if normalize:
            torch.addcmul(shift_, block, _inverse(norms[rows], smallest)[:, None], out=result)
        else:
            torch.add(block, shift_, out=result)
        if scratch is not None:
            target.copy_(result)
    if not known:
        _tell_apart_later(x, norms)
    if keep_zeros:
        zero = torch.from_numpy(np.flatnonzero(norms.cpu().numpy() < smallest))
        as_tensor(out).index_fill_(0, zero.to(norms.device), 0)  # a mask would visit every number
    return norms


def _scratch(x: Array, dtype: torch.dtype, out: Array) -> Tensor | None:
    """Room for the results of a block, where `out` is of another dtype and cannot take them itself."""
    if dtype_of(out) == dtype:
        return None
    return torch.empty((min(block_rows(x), x.shape[0]), x.shape[1]), dtype=dtype, device=device_of(x))


def kind_codes(norms: list[Tensor]) -> Tensor:
    """Which parts each row has, from the row norms of all parts: bit r of its code stands for part r, (n,)."""
    return torch.stack([(~norm.isnan()).long() << r for r, norm in enumerate(norms)]).sum(dim=0)


def fuse_rows(
    parts: list[Array], weights: NDArray[np.float64], scales: NDArray[np.float64], *, out: Array
) -> tuple[list[Tensor], Tensor]:
    """Write the weighted sum of each row's parts, at length `scales`, into `out`.

    `weights` (2**n_parts, n_parts) and `scales` (2**n_parts,) are looked up by the code of a row's kind.
    Returns the norms of the rows of each part and the norms of the sums, (n,).
    """
    dtype, device = compute_dtype(*map(dtype_of, parts)), device_of(out)
    smallest, _ = norm_limits(dtype)
    weights_, scales_ = (torch.as_tensor(table, dtype=dtype, device=device) for table in (weights, scales))
    norms = [torch.empty(out.shape[0], dtype=dtype, device=device) for _ in parts]
    lengths = torch.empty(out.shape[0], dtype=dtype, device=device)
    sums = _scratch(out, dtype, out)
    term = torch.empty((min(block_rows(out), out.shape[0]), out.shape[1]), dtype=dtype, device=device)
    for rows in row_blocks(out):
        blocks, target = [as_tensor(part[rows]).to(dtype) for part in parts], as_tensor(out[rows])
        total, present = target if sums is None else sums[: len(target)], term[: len(target)]
        for norm, block in zip(norms, blocks, strict=True):
            _measure(block, norm[rows])
        kinds = kind_codes([norm[rows] for norm in norms])
        shares = weights_[kinds]
        # A missing part weighs nothing, but 0 * NaN is NaN. Inf is not fused either: its norm tells the caller.
        torch.nan_to_num(blocks[0], out=total).mul_(shares[:, :1])
        for r, block in enumerate(blocks[1:], start=1):
            total.addcmul_(torch.nan_to_num(block, out=present), shares[:, r, None])
        torch.linalg.vector_norm(total, dim=1, out=lengths[rows])
        total.mul_((_inverse(lengths[rows], smallest) * scales_[kinds])[:, None])
        if total is not target:
            target.copy_(total)
    for part, norm in zip(parts, norms, strict=True):
        _tell_apart_later(part, norm)
    return norms, lengths
