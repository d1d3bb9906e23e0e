"""Mixed corpora from documents that have both parts: some keep their text, some their picture, some both."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from torch import Tensor

from grclip._columns import is_missing, is_raw
from grclip._validation import check_k, few
from grclip.items import Items, modalities_of


def mix_kinds(
    items: Items,
    ratio: Sequence[float] = (1, 1, 1),
    random_state: Any = None,
    *,
    modalities: Mapping[str, str] | None = None,
) -> Items:
    """Leave documents with their text only, with their other parts only, or with both, at random and in a given ratio.

    Parameters
    ----------
    items : Items
        Documents, raw or encoded, each with a text and a part of another modality.
    ratio : sequence of 3 floats, default=(1, 1, 1)
        Shares of documents with text only, without text, and with all parts. Counts are exact to rounding.
    random_state : int, RandomState instance or None, default=None
        Decides which document is of which kind.
    modalities : dict of str to str, default=None
        Modality of roles that are not known by name.

    Returns
    -------
    Items
        The same rows in the same order; what was taken from them is missing.

    Raises
    ------
    TypeError
        If items are no Items.
    ValueError
        If the ratio is not three numbers of at least 0 with a positive sum, if there is no text role or no other one,
        or if a document has no text or nothing else.

    See Also
    --------
    replace_parts : Each document keeps one modality, at random.

    Examples
    --------
    >>> from grclip import Items
    >>> from grclip.datasets import mix_kinds
    >>> documents = Items({"text": ["a", "b", "c"], "image": ["a.png", "b.png", "c.png"]})
    >>> sorted(mix_kinds(documents, random_state=0).kinds.tolist())
    ['image', 'text', 'text+image']
    """
    shares = np.asarray(ratio, dtype=float)
    if shares.shape != (3,) or not np.isfinite(shares).all() or (shares < 0).any() or not shares.sum():
        raise ValueError(f"ratio must be three numbers of at least 0, (text only, without text, both); got {ratio!r}")
    texts, others = _two_sides(items, modalities)
    ends = np.round(np.cumsum(shares) / shares.sum() * len(items)).astype(int)
    order = check_random_state(random_state).permutation(len(items))
    return _without(_without(items, others, order[: ends[0]]), texts, order[ends[0] : ends[1]])


def replace_parts(
    items: Items,
    p: float,
    random_state: Any = None,
    *,
    modalities: Mapping[str, str] | None = None,
    incomplete: str = "raise",
) -> Items:
    """Leave each document with one modality: with probability p without its text, otherwise with its text alone.

    The corpora of the paper's heterogeneity experiment (its section 3). With one seed, a larger p changes more texts
    to pictures and none back.

    Parameters
    ----------
    items : Items
        Documents, raw or encoded, each with a text and a part of another modality.
    p : float
        Probability that a document loses its text, in [0, 1].
    random_state : int, RandomState instance or None, default=None
        Decides which document loses what.
    modalities : dict of str to str, default=None
        Modality of roles that are not known by name.
    incomplete : {"raise", "keep"}, default="raise"
        What a document is that has no text, or nothing else: an error, or left as it is.

    Returns
    -------
    Items
        The same rows in the same order; what was taken from them is missing.

    Raises
    ------
    TypeError
        If items are no Items.
    ValueError
        If p is no probability, if there is no text role or no other one, if ``incomplete="raise"`` and a document has
        no text or nothing else, or if all of them have.

    See Also
    --------
    mix_kinds : Documents of three kinds in a ratio.

    References
    ----------
    Li et al., Closing the Modality Gap for Mixed Modality Search, arXiv:2507.19054, section 3.

    Examples
    --------
    >>> from grclip import Items
    >>> from grclip.datasets import replace_parts
    >>> documents = Items({"text": ["a", "b", "c", "d"], "image": ["a.png", "b.png", "c.png", "d.png"]})
    >>> replace_parts(documents, 0.6, random_state=0).kinds.tolist()
    ['image', 'text', 'text', 'image']
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p must be a probability, in [0, 1]; got {p!r}")
    if incomplete not in ("raise", "keep"):
        raise ValueError(f"incomplete must be 'raise' or 'keep'; got {incomplete!r}")
    texts, others = _two_sides(items, modalities, complete=incomplete == "raise")
    both = has_both(items, modalities)
    if not both.any():
        raise ValueError("no document has a text and a part of another modality, so there is nothing to replace")
    lost = check_random_state(random_state).random_sample(len(items)) < p
    return _without(_without(items, texts, np.flatnonzero(lost & both)), others, np.flatnonzero(~lost & both))


def paper_split(n: int) -> list[str]:
    """The kind of each document in the split of the paper's own code.

    That code shuffles the documents with Python's generator, seeded with 42, and takes the i-th of them as a text, a
    picture or both, by the remainder of i by three. The mixed corpora that were published with MixBench are others.

    Parameters
    ----------
    n : int
        Number of documents.

    Returns
    -------
    list of str
        ``"text"``, ``"image"`` or ``"text+image"`` for each document.

    Raises
    ------
    ValueError
        If n is no whole number of at least 1.

    See Also
    --------
    load_mixbench : The mixed corpora as published, with which the paper is reproduced.
    keep_kinds : Leave documents with the parts of these kinds.

    References
    ----------
    Li et al., Closing the Modality Gap for Mixed Modality Search, arXiv:2507.19054; ``src/retrieval_mixbench.py`` of
    its code.

    Examples
    --------
    >>> from grclip.datasets import paper_split
    >>> paper_split(6)
    ['image', 'image', 'text', 'text+image', 'text+image', 'text']
    """
    n = check_k(n, name="n")
    generator = random.Random(42)
    kinds = [""] * n
    for place, row in enumerate(generator.sample(range(n), n)):
        kinds[row] = ("text", "image", "text+image")[place % 3]
    return kinds


def keep_kinds(items: Items, kinds: Sequence[str]) -> Items:
    """Leave each document with the parts of its kind.

    Parameters
    ----------
    items : Items
        Documents, raw or encoded.
    kinds : sequence of str
        Roles that each document keeps, joined by ``+``, as `Items.kinds` gives them.

    Returns
    -------
    Items
        The same rows in the same order; parts that are not of its kind are missing in a row.

    Raises
    ------
    TypeError
        If items are no Items, or a kind is no str.
    ValueError
        If there are not as many kinds as documents, a kind names a role that there is not, or a document lacks a part
        of its kind.

    See Also
    --------
    mix_kinds : Documents of three kinds at random.

    Examples
    --------
    >>> from grclip import Items
    >>> from grclip.datasets import keep_kinds, paper_split
    >>> documents = Items({"text": ["a", "b", "c"], "image": ["a.png", "b.png", "c.png"]})
    >>> keep_kinds(documents, paper_split(3)).kinds.tolist()
    ['image', 'text+image', 'text']
    """
    _check_items(items)
    if len(kinds) != len(items):
        raise ValueError(f"kinds has {len(kinds)} entries, but there are {len(items)} documents")
    others = [kind for kind in kinds if not isinstance(kind, str)]
    if others:
        raise TypeError(f"kinds holds {others[0]!r}; expected roles joined by '+', e.g. 'text+image'")
    kept = [frozenset(filter(None, kind.split("+"))) for kind in kinds]
    unknown = sorted(set().union(*kept) - set(items.roles))
    if unknown:
        raise ValueError(f"kinds name {', '.join(map(repr, unknown))}; roles are {', '.join(map(repr, items.roles))}")
    mixed = items
    for role in items:
        wanted = np.array([role in kind for kind in kept])
        lacking = np.flatnonzero(wanted & is_missing(items[role]))
        if len(lacking):
            raise ValueError(f"role {role!r}: {few(lacking)} lack the part that their kind has")
        mixed = _without(mixed, [role], np.flatnonzero(~wanted))
    return mixed


def has_both(items: Items, modalities: Mapping[str, str] | None = None) -> NDArray[np.bool_]:
    """Which rows have a text and a part of another modality, (n,)."""
    known = dict(zip(items.roles, modalities_of(items.roles, modalities), strict=True))
    sides = ([role for role in known if (known[role] == "text") == is_text] for is_text in (True, False))
    return ~np.any([_lacking(items, roles) for roles in sides], axis=0)


def _two_sides(
    items: Any, modalities: Mapping[str, str] | None, *, complete: bool = True
) -> tuple[list[str], list[str]]:
    """The text roles and the other ones, of which each document, if they are to be complete, has at least one each."""
    _check_items(items)
    found = dict(zip(items.roles, modalities_of(items.roles, modalities), strict=True))
    sides = [[r for r in found if found[r] == "text"], [r for r in found if found[r] != "text"]]
    for roles, name in zip(sides, ("text", "part beside its text"), strict=True):
        if not roles:
            raise ValueError(f"the documents have no {name}: their roles are {', '.join(map(repr, items.roles))}")
        lacking = np.flatnonzero(_lacking(items, roles))
        if complete and len(lacking):
            raise ValueError(f"{few(lacking)} have no {name}; take documents that have both: items[rows]")
    return sides[0], sides[1]


def _check_items(items: Any) -> None:
    if not isinstance(items, Items):
        raise TypeError(f"items is {type(items).__name__}; expected Items, e.g. task.corpus")


def _lacking(items: Items, roles: Sequence[str]) -> NDArray[np.bool_]:
    """Which rows have no part of these roles; all of them where there are no roles."""
    return np.all([np.ones(len(items), dtype=bool), *(is_missing(items[role]) for role in roles)], axis=0)


def _without(items: Items, roles: Sequence[str], rows: NDArray[np.intp]) -> Items:
    """The same rows, some of which lack some parts."""
    return items.replace({role: _erased(items[role], rows) for role in roles})


def _erased(part: Any, rows: NDArray[np.intp]) -> Any:
    copy: Any = part.clone() if isinstance(part, Tensor) else part.copy()
    copy[rows] = None if is_raw(part) else np.nan
    return copy
