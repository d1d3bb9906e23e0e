"""ModalityGapRemover: subtract the mean vector of each role."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from grclip._doc_link import DocLinkMixin
from grclip._kernels import (
    Array,
    dtype_of,
    empty_like,
    is_writable,
    norm_limits,
    overlap,
    row_norms,
    shift_rows,
    sum_rows,
)
from grclip._validation import (
    check_flag,
    check_matrix,
    check_values,
    check_width,
    refuse_other_encoder,
    remember_width,
    warn,
    warn_zero_rows,
)
from grclip.items import Items, SearchTask, encoder_of, parts_of, refuse_documents_as_y, with_parts
from grclip.persistence import SCHEMA_VERSION, check_header, load_state, save_state

UNNAMED = ""
"""The role of a bare 2-D array."""

_KIND = "ModalityGapRemover"  # what files say they hold, subclasses too

UNIT_TOLERANCE = 0.02
"""How far from 1 the length of a unit row may be; half precision is off by up to half of that."""


class ModalityGapRemover(  # type: ignore[call-arg]
    DocLinkMixin, TransformerMixin, BaseEstimator, auto_wrap_output_keys=None
):
    """Close the modality gap: subtract from each embedding the mean vector of its role.

    CLIP-family encoders put texts and images in separate clusters, so a text query ranks irrelevant texts above the
    right image. ``fit`` learns one mean per role over unit rows; ``transform`` gives ``unit(x) - mean``. The result is
    not normalised again: documents are normalised once, after fusing.

    Parameters
    ----------
    normalize : bool, default=True
        L2-normalise rows before anything else. Means of rows that are not of unit length ruin the ranking, so turn it
        off only for rows that already are.
    copy : bool, default=True
        If False, transform in place where an array can be written to and shares no memory with another part. A
        SearchTask is always copied: its corpus is shared by all its slices.

    Attributes
    ----------
    means_ : dict of str to ndarray of shape (d,), float64
        Mean of the rows of each role. A bare array's role is ``""``.
    n_samples_seen_ : dict of str to int
        Rows that each mean was taken over: missing rows and rows of zeros do not count.
    n_features_in_ : int
        Width d of the embeddings.
    encoder_ : str or None
        Fingerprint of the encoder that made them, where it was known.

    Raises
    ------
    TypeError
        From fit and transform, for parts that are not embeddings (raw texts, images, integers, complex numbers).
    ValueError
        From fit and transform, for NaN beside numbers, inf, another width, a role that fit has not seen, or vectors
        of another encoder. A failed partial_fit or merge changes nothing.

    Warns
    -----
    UserWarning
        For rows of zeros, for rows not of unit length with ``normalize=False``, and once where the encoder is known on
        one side only.

    See Also
    --------
    grclip.MultimodalFuser : Fuses what this transforms, and puts all kinds of documents on one scale.

    Notes
    -----
    X is a SearchTask, Items, a dict of arrays of unequal lengths by role (a calibration set), or one 2-D array. The
    output is of the same kind, library, dtype and device; sums are in float64; fitted state is NumPy wherever X was.

    On pure text-to-image search, where all documents are of one kind, removing means can cost a little.

    References
    ----------
    .. [1] Li et al., "Closing the Modality Gap for Mixed Modality Search", arXiv:2507.19054, 2025, Algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from grclip import ModalityGapRemover
    >>> rng = np.random.default_rng(0)
    >>> calibration = {"query": rng.normal(size=(500, 8)) + 1, "image": rng.normal(size=(300, 8)) - 1}
    >>> remover = ModalityGapRemover().fit(calibration)
    >>> remover.n_samples_seen_
    {'query': 500, 'image': 300}
    >>> {role: bool(np.abs(x.mean(0)).max() < 1e-12) for role, x in remover.transform(calibration).items()}
    {'query': True, 'image': True}
    """

    means_: dict[str, NDArray[np.float64]]
    n_samples_seen_: dict[str, int]
    n_features_in_: int
    encoder_: str | None

    def __init__(self, *, normalize: bool = True, copy: bool = True) -> None:
        self.normalize = normalize
        self.copy = copy

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn the mean of each role.

        Parameters
        ----------
        X : SearchTask, Items, dict of str to array of shape (n, d), or array of shape (n, d)
            Embeddings. A role without a single row gets no mean.
        y : None
            Ignored.

        Returns
        -------
        ModalityGapRemover
            This instance, fitted anew.

        Raises
        ------
        TypeError, ValueError
            As said of the class; the instance is then as it was.
        """
        refuse_documents_as_y(y)
        means, counts, width, encoder = self._sum(X, width=None)
        if not means:
            raise ValueError("X has no row to learn a mean from: all are missing or zero")
        self._remember(X, means, counts, width, encoder)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Take more rows into the means.

        Parameters
        ----------
        X : SearchTask, Items, dict of str to array of shape (n, d), or array of shape (n, d)
            One batch; roles may differ from batch to batch.
        y : None
            Ignored.

        Returns
        -------
        ModalityGapRemover
            This instance.

        Raises
        ------
        TypeError, ValueError
            As said of the class; the instance is then as it was.
        """
        refuse_documents_as_y(y)
        if not hasattr(self, "means_"):
            return self.fit(X)
        means, counts, _, encoder = self._sum(X, width=self.n_features_in_)
        refuse_other_encoder(self, self.encoder_, encoder)
        pooled = _pool(self.means_, self.n_samples_seen_, means, counts)
        self._warn_unknown_encoder(encoder)
        self.means_, self.n_samples_seen_ = pooled
        self.encoder_ = self.encoder_ or encoder
        return self

    def merge(self, other: ModalityGapRemover) -> ModalityGapRemover:
        """A new remover, as if fitted on the rows of both.

        Parameters
        ----------
        other : ModalityGapRemover
            Fitted with the same ``normalize`` on vectors of the same encoder.

        Returns
        -------
        ModalityGapRemover
            Fitted; counts are exact sums, means differ from those of one fit by float64 rounding alone.

        Raises
        ------
        TypeError
            If other is no ModalityGapRemover.
        ValueError
            If widths, ``normalize``, encoders, or names of columns differ.

        Examples
        --------
        >>> import numpy as np
        >>> from grclip import ModalityGapRemover
        >>> x = np.random.default_rng(0).normal(size=(10, 4))
        >>> halves = [ModalityGapRemover().fit({"image": half}) for half in (x[:3], x[3:])]
        >>> halves[0].merge(halves[1]).n_samples_seen_
        {'image': 10}
        """
        if not isinstance(other, ModalityGapRemover):
            raise TypeError(f"other must be a ModalityGapRemover; got {type(other).__name__}")
        check_is_fitted(self)
        check_is_fitted(other)
        for name in ("normalize", "n_features_in_"):
            if getattr(self, name) != getattr(other, name):
                raise ValueError(
                    f"cannot merge: {name} is {getattr(self, name)} here and {getattr(other, name)} in other; "
                    "merge removers fitted alike"
                )
        names = [getattr(remover, "feature_names_in_", ()) for remover in (self, other)]
        for i, (here, there) in enumerate(zip(*names, strict=False)):
            if here != there:
                raise ValueError(
                    f"cannot merge: column {i} is {here!r} here and {there!r} in other; merge removers fitted on "
                    "the same columns in the same order"
                )
        refuse_other_encoder(self, self.encoder_, other.encoder_)
        merged = clone(self)
        merged.means_, merged.n_samples_seen_ = _pool(
            self.means_, self.n_samples_seen_, other.means_, other.n_samples_seen_
        )
        merged.n_features_in_, merged.encoder_ = self.n_features_in_, self.encoder_
        if hasattr(self, "feature_names_in_"):
            merged.feature_names_in_ = self.feature_names_in_
        merged._warn_unknown_encoder(other.encoder_)
        merged.encoder_ = self.encoder_ or other.encoder_
        return merged

    def transform(self, X: Any) -> Any:
        """Subtract from each (unit) row the mean of its role.

        Parameters
        ----------
        X : SearchTask, Items, dict of str to array of shape (n, d), or array of shape (n, d)
            Embeddings of roles that fit has seen.

        Returns
        -------
        SearchTask, Items, dict or array
            As X: the same kind, library, dtype and device. Missing rows stay missing, rows of zeros stay zero.

        Raises
        ------
        TypeError, ValueError
            As said of the class.
        """
        return self._shift(X, sign=-1, normalize=self.normalize)

    def inverse_transform(self, X: Any) -> Any:
        """Add the means back.

        Parameters
        ----------
        X : SearchTask, Items, dict of str to array of shape (n, d), or array of shape (n, d)
            What transform gave.

        Returns
        -------
        SearchTask, Items, dict or array
            The unit rows that transform started from (with ``normalize=False``, the rows themselves). Rows of zeros
            come back as the mean: transform turns both into zeros.

        Raises
        ------
        TypeError, ValueError
            As said of the class.
        """
        return self._shift(X, sign=+1, normalize=False)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted means to a safetensors file, which loads without pickle.

        Parameters
        ----------
        path : str or path-like
            The file to write; replaced if it exists, and left as it was if writing fails.

        Raises
        ------
        OSError
            If the file cannot be written.

        See Also
        --------
        load : Reads it back.
        """
        check_is_fitted(self)
        header = {
            "normalize": bool(self.normalize),
            "n_features": self.n_features_in_,
            "encoder": self.encoder_,
            "n_samples_seen": self.n_samples_seen_,
        }
        save_state(path, _KIND, header, {f"mean:{role}": mean for role, mean in self.means_.items()})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a remover that save wrote.

        Parameters
        ----------
        path : str or path-like
            The file to read.

        Returns
        -------
        ModalityGapRemover
            Fitted, with bit-identical means.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is truncated, foreign, inconsistent, or of a newer schema version.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> from grclip import ModalityGapRemover
        >>> remover = ModalityGapRemover().fit({"text": np.eye(4), "image": -np.eye(4)})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     remover.save(pathlib.Path(folder) / "c.safetensors")
        ...     ModalityGapRemover.load(pathlib.Path(folder) / "c.safetensors").means_["image"]
        array([-0.25, -0.25, -0.25, -0.25])
        """
        header, vectors = load_state(path, _KIND)
        means = {name.removeprefix("mean:"): mean for name, mean in vectors.items() if name.startswith("mean:")}
        if len(means) < len(vectors) or not _is_complete(header, means):
            raise ValueError(f"{os.fspath(path)!r} holds no complete {_KIND}: header {header}; save it again")
        return cls(normalize=header["normalize"])._restore(header, means)

    def to_state(self) -> dict[str, Any]:
        """The fitted remover as plain values: to send to another process, and to merge there.

        Returns
        -------
        dict
            ``schema_version`` and ``class``; ``normalize`` and ``copy``; ``n_features``, ``encoder`` and
            ``feature_names`` (str, or None where they are unknown); ``n_samples_seen`` (role -> int) and ``means``
            (role -> float64 array of shape (d,), a copy). Keys are str; all else than the arrays is JSON.

        Raises
        ------
        NotFittedError
            If there is nothing to tell yet.

        See Also
        --------
        from_state : Makes a remover of it.
        merge : Puts two of them together.

        Examples
        --------
        >>> import numpy as np
        >>> from grclip import ModalityGapRemover
        >>> state = ModalityGapRemover().fit({"image": np.eye(4)}).to_state()
        >>> state["n_samples_seen"], state["means"]["image"]
        ({'image': 4}, array([0.25, 0.25, 0.25, 0.25]))
        """
        check_is_fitted(self)
        names = getattr(self, "feature_names_in_", None)
        return {
            "schema_version": SCHEMA_VERSION,
            "class": _KIND,
            "normalize": bool(self.normalize),
            "copy": bool(self.copy),
            "n_features": int(self.n_features_in_),
            "encoder": self.encoder_,
            "feature_names": None if names is None else [str(name) for name in names],
            "n_samples_seen": {role: int(count) for role, count in self.n_samples_seen_.items()},
            "means": {role: mean.copy() for role, mean in self.means_.items()},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """A fitted remover from what to_state gave.

        Parameters
        ----------
        state : mapping
            As to_state gives it; means may be lists of numbers, as they come out of JSON.

        Returns
        -------
        ModalityGapRemover
            Fitted, with bit-identical means.

        Raises
        ------
        TypeError
            If state is no mapping.
        ValueError
            If it is that of another class or of a newer schema, or lacks something.

        Examples
        --------
        >>> import json
        >>> import numpy as np
        >>> from grclip import ModalityGapRemover
        >>> state = ModalityGapRemover().fit({"image": np.eye(4)}).to_state()
        >>> state["means"] = {role: mean.tolist() for role, mean in state["means"].items()}
        >>> ModalityGapRemover.from_state(json.loads(json.dumps(state))).means_["image"]
        array([0.25, 0.25, 0.25, 0.25])
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state must be what to_state gave; got {type(state).__name__}")
        check_header(state, "state", _KIND)
        try:
            means = {role: np.array(mean).astype(np.float64, casting="safe") for role, mean in state["means"].items()}
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"state has no means by role: {error}; take it from to_state again") from error
        if not _is_complete(state, means) or not isinstance(state.get("copy", True), bool):
            told = {name: value for name, value in state.items() if name != "means"}
            raise ValueError(f"state holds no complete {_KIND}: {told}; take it from to_state again")
        return cls(normalize=state["normalize"], copy=state.get("copy", True))._restore(state, means)

    def _restore(self, header: Mapping[str, Any], means: Mapping[str, NDArray[np.float64]]) -> Self:
        """Take over fitted state that has been checked."""
        self.n_samples_seen_ = dict(header["n_samples_seen"])
        self.means_ = {role: means[role] for role in self.n_samples_seen_}
        self.n_features_in_, self.encoder_ = int(header["n_features"]), header["encoder"]
        if header.get("feature_names") is not None:
            self.feature_names_in_ = np.array(header["feature_names"], dtype=object)
        return self

    def _sum(self, X: Any, width: int | None) -> tuple[dict[str, NDArray], dict[str, int], int, str | None]:
        """Mean and count of each role that has a row, the width, and the encoder. Changes nothing on self."""
        check_flag("normalize", self.normalize)
        check_flag("copy", self.copy)
        parts = self._parts(X, reset=width is None)
        width = check_width(self, parts, width)
        means, counts, zero, lengths = {}, {}, {}, []
        for role, part in parts.items():
            total, norms = sum_rows(part, normalize=self.normalize)
            zero[_name(role)] = _check(role, part, norms)
            count = len(part) - int(np.isnan(norms.cpu().numpy()).sum()) - len(zero[_name(role)])
            if count:
                means[role], counts[role] = total / count, count
                if not self.normalize:
                    lengths.append(norms[norms >= norm_limits(dtype_of(part))[0]])
        warn_zero_rows(zero)
        _warn_of_lengths(lengths)
        return means, counts, width, encoder_of(X)

    def _shift(self, X: Any, *, sign: int, normalize: bool) -> Any:
        """X with the means added or subtracted; in place only after every value has been checked."""
        check_is_fitted(self)
        encoder = encoder_of(X)
        refuse_other_encoder(self, self.encoder_, encoder)
        parts = self._parts(X, reset=False)
        check_width(self, parts, self.n_features_in_)
        shifts = {role: sign * self._mean(role, part) for role, part in parts.items()}
        # A task's corpus is shared by all its slices, so only what is passed by itself is written to.
        given = {UNNAMED: X} if UNNAMED in parts else X
        in_place = set() if self.copy or isinstance(X, SearchTask) else _writable_roles(parts, given)
        out, zero, known = {}, {}, {}
        for role, part in parts.items():
            if role in in_place:
                out[role] = part
                norms = known[role] = row_norms(part)
            else:
                out[role] = empty_like(part, dtype_of(part))
                norms = shift_rows(part, shifts[role], normalize=normalize, keep_zeros=sign < 0, out=out[role])
            zero[_name(role)] = _check(role, part, norms)
        if sign < 0:
            warn_zero_rows(zero)
        self._warn_unknown_encoder(encoder)
        for role, norms in known.items():  # nothing can fail from here on
            shift_rows(out[role], shifts[role], normalize=normalize, keep_zeros=sign < 0, norms=norms, out=out[role])
        return out[UNNAMED] if UNNAMED in out else with_parts(X, out)

    def _parts(self, X: Any, *, reset: bool) -> dict[str, Array]:
        """X as embeddings by role; a bare array has one role without a name."""
        if isinstance(X, SearchTask | Items | Mapping) and not issparse(X):  # some sparse matrices are dicts
            return parts_of(X)
        return {UNNAMED: check_matrix(self, X, reset=reset)}

    def _mean(self, role: str, part: Array) -> NDArray[np.float64]:
        """The mean of a role that fit has seen; of another only if all its rows are missing."""
        if role in self.means_:
            return self.means_[role]
        if role != UNNAMED and row_norms(part).isnan().all():
            return np.zeros(self.n_features_in_)
        known = ", ".join(repr(name) for name in self.means_ if name) or "one bare array"
        raise ValueError(
            f"no mean was learned for {_name(role)}; this {type(self).__name__} was fitted on {known}. "
            + ("Say which role it has: Items({'query': X})" if role == UNNAMED else "Fit it on rows of that role too")
        )

    def _remember(self, X: Any, means: dict, counts: dict, width: int, encoder: str | None) -> None:
        remember_width(self, X, None if UNNAMED in means else width)
        self.means_, self.n_samples_seen_, self.encoder_ = means, counts, encoder
        self._warned_of_encoder = False

    def _warn_unknown_encoder(self, given: str | None) -> None:
        """Say, once per fit, that the vectors of only one side are known to come from some encoder."""
        if (given is None) == (self.encoder_ is None) or getattr(self, "_warned_of_encoder", False):
            return
        known, unknown = ("these rows", "those of fit") if given else ("the rows of fit", "these")
        warn(
            f"cannot check that one encoder made all vectors: {known} come from {given or self.encoder_!r}, {unknown} "
            "from an unknown one; pass Items(..., encoder=...) to have it checked"
        )
        self._warned_of_encoder = True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32", "float16"]
        return tags


def _is_complete(header: Mapping[str, Any], means: Mapping[str, NDArray[np.float64]]) -> bool:
    """Whether a header and means are those of one fitted remover."""
    counts, names, width = header.get("n_samples_seen"), header.get("feature_names"), header.get("n_features")
    return (
        isinstance(header.get("normalize"), bool)
        and "encoder" in header
        and isinstance(header["encoder"], str | None)
        and isinstance(counts, dict)
        and all(isinstance(role, str) and type(count) is int and count > 0 for role, count in counts.items())
        and means.keys() == counts.keys() != set()
        and (UNNAMED not in counts or len(counts) == 1)
        and type(width) is int
        and all(mean.shape == (width,) and np.isfinite(mean).all() for mean in means.values())
        and (names is None or (isinstance(names, list) and len(names) == width))
    )


def _name(role: str) -> str:
    return f"role {role!r}" if role != UNNAMED else "X"


def _check(role: str, part: Array, norms: Tensor) -> NDArray[np.intp]:
    return check_values(_name(role), part, norms, allow_missing=role != UNNAMED)


def _warn_of_lengths(lengths: list[Tensor]) -> None:
    """Say so if rows that are not to be normalised are not of unit length either."""
    ends = [float(end) for some in lengths for end in (some.min(), some.max())]
    if ends and max(abs(end - 1) for end in ends) > UNIT_TOLERANCE:
        warn(
            f"normalize=False, but rows have lengths from {min(ends):.3g} to {max(ends):.3g}: means of rows that are "
            "not of unit length ruin the ranking"
        )


def _writable_roles(parts: Mapping[str, Array], given: Any) -> set[str]:
    """Roles that can be written to in place, unseen by other roles (which may share the array) and by autograd."""
    return {
        role
        for role, part in parts.items()
        if is_writable(part)
        and not getattr(given[role], "requires_grad", False)
        and not any(overlap(part, other) for name, other in parts.items() if name != role)
    }


def _pool(
    means: dict[str, NDArray], counts: dict[str, int], more: dict[str, NDArray], more_counts: dict[str, int]
) -> tuple[dict[str, NDArray], dict[str, int]]:
    """Means and counts of two sets of rows together."""
    if counts and more_counts and (UNNAMED in counts) != (UNNAMED in more_counts):
        raise ValueError("a bare array has no role: let all that is put together be bare arrays, or all have roles")
    pooled, total = dict(means), dict(counts)
    for role, count in more_counts.items():
        total[role] = counts.get(role, 0) + count
        pooled[role] = (means.get(role, 0.0) * counts.get(role, 0) + more[role] * count) / total[role]
    return pooled, total
