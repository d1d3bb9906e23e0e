"""Items and SearchTask: documents made of parts, and a search over them."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from grclip._columns import as_column, describe, freeze, is_missing, is_raw, own, row_key, stack_vectors, take_rows
from grclip._kernels import Array
from grclip._validation import check_embeddings

_TEXTS = ["query", "text", "title", "headline", "body", "summary", "abstract", "description", "caption", "question"]
_IMAGES = ["image", "photo", "picture", "cover", "thumbnail", "screenshot"]

MODALITIES: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(_TEXTS, "text") | dict.fromkeys(_IMAGES, "image") | {"audio": "audio", "video": "video"}
)
"""The modality of the roles that are known by name; ``query_`` before a name changes nothing."""


def modalities_of(roles: Iterable[str], modalities: Mapping[str, str] | None = None) -> list[str]:
    """The modality of each role: as given, else as known by its name, else an error; text+image has that of text."""
    given = modalities or {}
    firsts = {role: role.partition("+")[0] for role in roles}
    found = {
        role: given.get(role) or given.get(first) or MODALITIES.get(first.removeprefix("query_"))
        for role, first in firsts.items()
    }
    unknown = [role for role, modality in found.items() if modality is None]
    if unknown:
        raise ValueError(
            f"unknown modality of {', '.join(map(repr, unknown))}; say for each whether it is 'text', 'image', 'audio' "
            f"or 'video': modalities={{{', '.join(f'{role!r}: ...' for role in unknown)}}}"
        )
    for role, modality in found.items():
        if modality not in ("text", "image", "audio", "video"):
            raise ValueError(f"modalities[{role!r}] is {modality!r}; expected 'text', 'image', 'audio' or 'video'")
    return [str(modality) for modality in found.values()]


class Items:
    """Queries or documents made of parts, one row each: an immutable mapping from role to part.

    A role is the name of a part (``"query"``, ``"text"``, ``"image"``, ``"title"``, ...). A part is a column of n
    values: strings, images, paths or sound before encoding, an (n, d) floating array or tensor after it.

    Parameters
    ----------
    parts : mapping of str to array-like, or DataFrame
        Columns of equal length n. Lists and columns of pandas and pyarrow hold raw values, where None (NaN, NA or null)
        is a missing part and ``""`` is a text like any other. (n, d) arrays and tensors hold embeddings, one row each,
        of dtype float16, bfloat16, float32 or float64; a row of NaN throughout is a missing part. A list of vectors
        (some None) becomes such an array too, in roles that are known by name and are not sound.
    encoder : str, default=None
        Fingerprint of the model that made the vectors; None where it is unknown. Items made of Items keep theirs.

    Attributes
    ----------
    roles : tuple of str
        Names of the parts, in the order given.
    encoder : str or None
        As given.
    shape : tuple of int
        ``(n,)``.
    kinds : ndarray of str, shape (n,)
        The roles that each row has, joined by ``+``.

    Raises
    ------
    TypeError
        If parts is no mapping, or an array has another dtype.
    ValueError
        If there is no part or no row, if lengths differ, or if an array is not 2-D.

    See Also
    --------
    SearchTask : Queries and the corpus that they search.

    Notes
    -----
    Arrays are kept, not copied. Whether a row is partly NaN is checked where the values are read.

    Roles that have a modality by name: query, text, title, headline, body, summary, abstract, description, caption and
    question are texts; image, photo, picture, cover, thumbnail and screenshot are images; audio and video are
    themselves; and so is each with ``query_`` before it. Parts that an encoder took together have a role of names
    joined by ``+`` (``"text+image"``), with the modality of the first.

    Examples
    --------
    >>> from grclip import Items
    >>> documents = Items({"text": ["a red bicycle", None], "image": ["bike.jpg", "sea.jpg"]})
    >>> documents
    Items(n=2, text=1 of 2, image=2)
    >>> documents.kinds.tolist()
    ['text+image', 'image']
    >>> documents[1:]["image"].tolist()
    ['sea.jpg']
    """

    __slots__ = ("_encoder", "_length", "_parts")

    def __init__(self, parts: Any, *, encoder: str | None = None) -> None:
        if hasattr(parts, "to_frame"):
            raise TypeError(f"parts is a {type(parts).__name__}; name the role that it has: Items({{'text': column}})")
        if not hasattr(parts, "keys"):
            raise TypeError(
                f"parts must map roles to columns, e.g. {{'text': [...], 'image': [...]}}; got {type(parts).__name__}"
            )
        if encoder is None and isinstance(parts, Items):
            encoder = parts.encoder
        if encoder is not None and not isinstance(encoder, str):
            raise TypeError(f"encoder must be a fingerprint (str) or None; got {encoder!r}")
        columns = {_check_role(role): _as_part(role, parts[role]) for role in parts.keys()}  # noqa: SIM118 (DataFrames)
        lengths = {role: len(column) for role, column in columns.items()}
        if not columns or not max(lengths.values()):
            raise ValueError(
                "Items needs at least one role and one row; got " + (f"{lengths}" if columns else "no role")
            )
        if len(set(lengths.values())) > 1:
            raise ValueError(f"all parts of Items need one length, with None where a part is missing; got {lengths}")
        self._parts, self._encoder, self._length = columns, encoder, next(iter(lengths.values()))

    @classmethod
    def from_records(cls, records: Iterable[Mapping[str, Any]], *, encoder: str | None = None) -> Self:
        """Items from one mapping a row.

        Parameters
        ----------
        records : iterable of mapping
            ``{"text": ..., "image": ...}``; a role that a record lacks is a missing part of that row.
        encoder : str, default=None
            Fingerprint of the model that made the vectors.

        Returns
        -------
        Items
            With the roles in the order in which they first occur.

        Raises
        ------
        TypeError
            If a record is no mapping.
        ValueError
            If there are no records.

        Examples
        --------
        >>> from grclip import Items
        >>> Items.from_records([{"text": "a red bicycle"}, {"image": "sea.jpg"}])
        Items(n=2, text=1 of 2, image=1 of 2)
        """
        rows = list(records)
        for i, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise TypeError(f"records[{i}] is {row!r}; expected a mapping of roles to parts")
        roles = dict.fromkeys(role for row in rows for role in row)
        return cls({role: [row.get(role) for row in rows] for role in roles}, encoder=encoder)

    @property
    def roles(self) -> tuple[str, ...]:
        """Names of the parts, in the order given."""
        return tuple(self._parts)

    @property
    def encoder(self) -> str | None:
        """Fingerprint of the model that made the vectors; None where it is unknown."""
        return self._encoder

    @property
    def shape(self) -> tuple[int]:
        """``(n,)``, as scikit-learn's indexing asks for it."""
        return (self._length,)

    @property
    def kinds(self) -> NDArray[np.str_]:
        """The roles that each row has, joined by ``+``; empty for a row that has none."""
        present = np.stack([~is_missing(part) for part in self._parts.values()], axis=1)
        names = np.array(self.roles)
        sets, inverse = np.unique(present, axis=0, return_inverse=True)
        return np.array(["+".join(names[row]) for row in sets])[inverse.ravel()]

    def keys(self) -> KeysView[str]:
        """The roles."""
        return self._parts.keys()

    def values(self) -> ValuesView[Any]:
        """The parts."""
        return self._parts.values()

    def items(self) -> ItemsView[str, Any]:
        """Pairs of role and part."""
        return self._parts.items()

    def get(self, role: str, default: Any = None) -> Any:
        """The part of a role, or the default where there is none."""
        return self._parts.get(role, default)

    def replace(self, parts: Mapping[str, Any]) -> Items:
        """The same rows with other values in some parts.

        Parameters
        ----------
        parts : mapping of str to array-like
            New columns, for roles that these Items have.

        Returns
        -------
        Items
            With the same roles and encoder.

        Raises
        ------
        KeyError
            If a role is new.
        """
        for role in parts:
            self[role]
        return Items({**self._parts, **parts}, encoder=self._encoder)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __contains__(self, role: object) -> bool:
        return role in self._parts

    @overload
    def __getitem__(self, key: str) -> Any: ...
    @overload
    def __getitem__(self, key: Any) -> Items: ...
    def __getitem__(self, key: Any) -> Any:
        """The part of a role, or the Items of some rows (slice, integer or boolean array)."""
        if isinstance(key, str):
            if key not in self._parts:
                raise KeyError(f"no role {key!r}; these Items have {', '.join(map(repr, self._parts))}")
            return self._parts[key]
        rows = row_key(key, self._length)
        taken = object.__new__(Items)
        taken._parts = {role: freeze(take_rows(part, rows)) for role, part in self._parts.items()}
        taken._encoder, taken._length = self._encoder, len(next(iter(taken._parts.values())))
        return taken

    def __sklearn_clone__(self) -> Self:
        return self

    def __getstate__(self) -> dict[str, Any]:
        """The state to pickle, with tensors of their own size: a view would take its whole storage along."""
        return {
            "_parts": {role: own(part) for role, part in self._parts.items()},
            "_encoder": self._encoder,
            "_length": self._length,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        for part in self._parts.values():
            freeze(part)

    def __array__(self, *args: Any, **options: Any) -> NDArray:
        raise TypeError(
            f"{self!r} is no single array; fuse its parts (MultimodalFuser) or take one, e.g. items['text']"
        )

    def __repr__(self) -> str:
        shown = ", ".join(f"{role}={describe(part)}" for role, part in self._parts.items())
        return f"Items(n={self._length}, {shown}{f', encoder={self._encoder!r}' if self._encoder else ''})"


@dataclass(frozen=True, eq=False)
class SearchTask:
    """Queries, and the corpus that they search: what a search is fitted and scored on.

    Length and slicing are those of the queries, and the corpus is carried whole, so scikit-learn's splitters divide
    the queries and never the corpus.

    Parameters
    ----------
    queries : Items or array of shape (n_queries, d)
        What is asked.
    corpus : Items or array of shape (n_documents, d)
        What is searched. Its roles are other names than those of the queries.

    Attributes
    ----------
    queries : Items or array of shape (n_queries, d)
        As given.
    corpus : Items or array of shape (n_documents, d)
        As given.
    encoder : str or None
        Fingerprint of the model that made the vectors, where either side knows it.
    shape : tuple of int
        ``(n_queries,)``.

    Raises
    ------
    TypeError
        If a side is neither Items nor an array, or one is Items and the other is not.
    ValueError
        If both sides use one role, or come from two encoders, or are arrays of two widths.

    See Also
    --------
    Items : One side of a task.

    Examples
    --------
    >>> from grclip import Items, SearchTask
    >>> task = SearchTask(Items({"query": ["bicycle", "sea"]}),
    ...                   Items({"text": ["a red bicycle", None, "tea"], "image": [None, "sea.jpg", None]}))
    >>> len(task), len(task[:1]), len(task[:1].corpus)
    (2, 1, 3)
    """

    queries: Any
    corpus: Any

    def __post_init__(self) -> None:
        if isinstance(self.queries, Items) and isinstance(self.corpus, Items):
            shared = [role for role in self.queries if role in self.corpus]
            if shared:
                raise ValueError(
                    f"queries and corpus share the role {shared[0]!r}; a mean is learned per role, so give each side "
                    f"its own, e.g. 'query_{shared[0]}' for what is asked with"
                )
            if None not in (self.queries.encoder, self.corpus.encoder) and self.queries.encoder != self.corpus.encoder:
                raise ValueError(
                    f"queries come from encoder {self.queries.encoder!r}, but the corpus from {self.corpus.encoder!r}; "
                    "encode both with one model"
                )
        elif any(isinstance(side, Items | Mapping) for side in (self.queries, self.corpus)):
            raise TypeError(
                "queries and corpus must both be Items or both be arrays (wrap a dict of columns in Items); got "
                f"{type(self.queries).__name__} and {type(self.corpus).__name__}"
            )
        else:
            object.__setattr__(self, "queries", check_embeddings(self.queries, "queries"))
            object.__setattr__(self, "corpus", check_embeddings(self.corpus, "corpus"))
            if self.queries.shape[1] != self.corpus.shape[1]:
                raise ValueError(f"queries have {self.queries.shape[1]} features, the corpus {self.corpus.shape[1]}")

    @property
    def encoder(self) -> str | None:
        """Fingerprint of the model that made the vectors, where either side knows it."""
        return getattr(self.queries, "encoder", None) or getattr(self.corpus, "encoder", None)

    @property
    def shape(self) -> tuple[int]:
        """``(n_queries,)``, as scikit-learn's indexing asks for it."""
        return (len(self.queries),)

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, key: Any) -> SearchTask:
        """The task of some queries (slice, integer or boolean array); the corpus stays whole."""
        if isinstance(key, str):
            raise KeyError(f"a SearchTask is sliced by query; for a part take task.queries[{key!r}] or task.corpus")
        task = object.__new__(SearchTask)
        object.__setattr__(task, "queries", take_rows(self.queries, row_key(key, len(self))))
        object.__setattr__(task, "corpus", self.corpus)
        return task

    def __getstate__(self) -> dict[str, Any]:
        """The state to pickle, with tensors of their own size."""
        return {"queries": own(self.queries), "corpus": own(self.corpus)}

    def __array__(self, *args: Any, **options: Any) -> NDArray:
        raise TypeError("a SearchTask is no single array; take task.queries or task.corpus")

    def __sklearn_clone__(self) -> Self:
        return self


def encoder_of(X: Any) -> str | None:
    """Fingerprint of the model that made the vectors of X, where X can know it."""
    return X.encoder if isinstance(X, Items | SearchTask) else None


def parts_of(X: Items | SearchTask | Mapping[str, Any]) -> dict[str, Array]:
    """All embedded parts of X by role, checked for structure; both sides of a task together.

    A column of None alone is left out.
    """
    if isinstance(X, SearchTask):
        if not isinstance(X.queries, Items):
            raise TypeError(
                "this SearchTask holds plain arrays; a SearchTask of Items is needed, with a role for each part"
            )
        return parts_of(X.queries) | parts_of(X.corpus)
    if not len(X):
        raise ValueError(f"X holds nothing; expected at least one {'row' if isinstance(X, Items) else 'role'}")
    vectors = X if isinstance(X, Items) else {role: stack_vectors(part) for role, part in X.items()}
    there = {role: part for role, part in vectors.items() if not _is_absent(part)} or vectors
    return {_check_role(role): check_embeddings(part, f"role {role!r}") for role, part in there.items()}


def with_parts(X: Any, parts: dict[str, Array]) -> Any:
    """X with other parts: the same kind of container."""
    if isinstance(X, SearchTask):
        sides = [side.replace({role: parts[role] for role in side if role in parts}) for side in (X.queries, X.corpus)]
        return SearchTask(*sides)
    return X.replace(parts) if isinstance(X, Items) else parts


def refuse_documents_as_y(y: Any) -> None:
    """A corpus in the place of y is an error: y takes relevance, or nothing."""
    if isinstance(y, Items | SearchTask):
        raise TypeError(
            f"y is {type(y).__name__}; a corpus goes beside the queries: fit(SearchTask(queries, corpus), qrels)"
        )


def _as_part(role: str, values: Any) -> Any:
    """A column; a list of vectors becomes one array, unless it may be a list of sounds."""
    known = MODALITIES.get(role.removeprefix("query_"), "audio")
    return as_column(role, values if known == "audio" else stack_vectors(values))


def _is_absent(part: Any) -> bool:
    """Whether a column of raw values has none: a role that no row of a batch has."""
    return is_raw(part) and bool(is_missing(part).all())


def _check_role(role: Any) -> str:
    if not isinstance(role, str) or not role:
        raise TypeError(f"a role is a non-empty str; got {role!r}")
    return role
