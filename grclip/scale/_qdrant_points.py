"""Points as Qdrant stores them: ids, payloads and filters."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from itertools import chain, permutations
from numbers import Integral
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import numpy as np
from numpy.typing import NDArray

from grclip._fuse import rename_kind
from grclip._optional import optional_import
from grclip._validation import few

KIND = "kind"
"""Payload field of the parts that a document has."""

NAME = "grclip_id"
"""Payload field of an id that is neither a number nor a UUID."""

NOTHING = -1
"""In the place of an id, where there is no document; no id is negative."""

_PARTS = 4  # parts whose orders are all looked for: 24 names

_NAMES = uuid5(NAMESPACE_URL, "https://grclip.readthedocs.io/qdrant-ids")

_KEY = r"""([\w-]+|"[^"\\]*")"""
_PATH = re.compile(rf"{_KEY}(\.{_KEY}|\[\d*\])*")


def _orders(kind: str) -> list[str]:
    """A kind under each name that it may be stored by."""
    parts = kind.split("+")
    return ["+".join(order) for order in permutations(parts)] if len(parts) <= _PARTS else [kind, rename_kind(kind)]


def point_ids(names: Sequence[Any]) -> list[int | str]:
    """The points under which documents are stored, after refusing two documents of one id."""
    points = [point_id(name) for name in names]
    first: dict[int | str, int] = {}
    twice = [row for row, point in enumerate(points) if first.setdefault(point, row) != row]
    if twice:
        raise ValueError(f"ids occur twice, again in {few(twice)}; each document needs an id of its own")
    return points


def names_of(ids: Any, n: int | None = None) -> list[Any]:
    """Some ids; of n documents, row numbers where none are given."""
    if ids is None and n is not None:
        return list(range(n))
    if isinstance(ids, str | bytes | set | frozenset | Mapping) or not isinstance(ids, Iterable):
        raise TypeError(f"ids must be a list with one id a document; got {type(ids).__name__}")
    names = list(ids)
    if n is not None and len(names) != n:
        raise ValueError(f"ids has {len(names)} entries, but there are {n} documents; one id each")
    return names


def point_id(name: Any) -> int | str:
    """The id of the point: whole numbers and UUIDs as they are, any other string by a UUID made of it."""
    if isinstance(name, Integral) and not isinstance(name, bool | np.bool_) and 0 <= int(name) < 2**64:
        return int(name)
    if isinstance(name, UUID):
        return str(name)
    if isinstance(name, str) and name and _is_unicode(name):
        return str(name) if _is_uuid(name) else str(uuid5(_NAMES, name))
    raise ValueError(f"{name!r} is no id; expected a whole number from 0 to 2**64 - 1, a UUID or a non-empty string")


def _is_unicode(name: str) -> bool:
    """Whether a string can be sent: no half of a surrogate pair."""
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def _is_uuid(name: str) -> bool:
    """Whether a string is a UUID as Qdrant writes it: lower case, with hyphens."""
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False


def payloads(payload: Any, names: Sequence[Any], points: Sequence[int | str], kinds: Any) -> list[dict[str, Any]]:
    """What each point carries: the user's fields, its kind where it is known, its id where Qdrant cannot keep it."""
    rows = [_as_json(i, row) if row else {} for i, row in enumerate(_check_payload(payload, len(names)))]
    own = {NAME} if kinds is None else {NAME, KIND}
    for i, row in enumerate(rows):
        if taken := own & row.keys():
            raise ValueError(f"payload[{i}] has the field {min(taken)!r}, which is kept for grclip; rename yours")
        if kinds is not None:
            row[KIND] = rename_kind(str(kinds[i]))
        if isinstance(names[i], str) and names[i] != points[i]:
            row[NAME] = str(names[i])
    return rows


def _check_payload(payload: Any, n: int) -> Sequence[Mapping[str, Any]]:
    """One mapping of fields a document."""
    if payload is None:
        return [{}] * n
    if isinstance(payload, str | Mapping) or not isinstance(payload, Sequence):
        hint = "; give payload.to_dict('records')" if hasattr(payload, "to_dict") else ""
        raise TypeError(f"payload must be a list with one dict a document; got {type(payload).__name__}{hint}")
    if len(payload) != n:
        raise ValueError(f"payload has {len(payload)} entries, but there are {n} documents; one dict each")
    for i, row in enumerate(payload):
        if not isinstance(row, Mapping):
            raise TypeError(f"payload[{i}] is {row!r}; expected a dict of fields, {{}} for none")
    return payload


def _as_json(i: int, row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a document as they come back from a server; what no server could be sent is an error."""
    try:
        sent = json.dumps(dict(row), default=_plain, allow_nan=False, ensure_ascii=False).encode()
        return json.loads(sent, object_pairs_hook=_fields)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        where = f"payload[{i}]{_broken_field(row)}"
        raise kind(f"{where}: {error}; give str, int, float, bool, None (for NaN, too), lists and dicts") from error


def _broken_field(row: Mapping[str, Any]) -> str:
    """The first field that cannot be sent, as it is written in Python; nothing where it is not one alone."""
    for name, value in row.items():
        try:
            json.dumps({name: value}, default=_plain, allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError):
            return f"[{name!r}]"
    return ""


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The fields of a JSON object, by names that are strings: where 1 and "1" are two, a value would be lost."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"two fields have the name {next(name for name in names if names.count(name) > 1)!r}")
    return fields


def _plain(value: Any) -> Any:
    """What JSON has in the place of some other types."""
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in "mM":
        return value.tolist()
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind == "M" and not np.isnat(value).any():
        finer = np.promote_types(value.dtype, "M8[us]") != "M8[us]"  # which Python has no dates for, nor has Qdrant
        return (value.astype("M8[us]") if finer else value).tolist()
    if isinstance(value, date) and value == value:  # NaT of pandas is a date, too
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON serializable")


def as_filter(given: Any) -> Any:
    """A filter of Qdrant, made of a dict {field: value or list of values} where that is given."""
    models = optional_import("qdrant_client.models", "qdrant", "QdrantRetriever")
    if given is None or isinstance(given, models.Filter):
        return given
    if not isinstance(given, Mapping):
        raise TypeError(f"filter must be a dict {{field: value}} or a qdrant_client.models.Filter; got {given!r}")
    return models.Filter(must=[_condition(models, field, value) for field, value in given.items()])


def _condition(models: Any, field: str, value: Any) -> Any:
    """That a field is this value, or one of these."""
    if not isinstance(field, str) or not field:
        raise TypeError(f"filter has the field {field!r}; expected the name of one in the payload")
    plain = _as_stored(value) if isinstance(value, np.ndarray) else value
    given = list(plain) if isinstance(plain, list | tuple | set | frozenset) else [plain]
    values = [_as_stored(one) for one in given]
    types = {next((kind for kind in (bool, int, str) if isinstance(one, kind)), None) for one in values}
    if types not in ({str}, {int}) and not (types == {bool} and len(values) == 1):
        raise TypeError(
            f"filter[{field!r}] is {value!r}; expected a str, int or bool, or a list of str or of int; for ranges and "
            "the like pass a qdrant_client.models.Filter"
        )
    if field == KIND and types == {str}:  # as Items name it, or as documents that came as arrays were labelled
        values = list(dict.fromkeys(chain.from_iterable(map(_orders, values))))
    match = models.MatchValue(value=values[0]) if len(values) == 1 else models.MatchAny(any=values)
    return models.FieldCondition(key=_path(field), match=match)


def _as_stored(value: Any) -> Any:
    """A value as a payload has it; what none can have is left as it is."""
    try:
        return json.loads(json.dumps(value, default=_plain))
    except (TypeError, ValueError):
        return value


def _path(field: str) -> str:
    """The path to a field as Qdrant reads it; what is none is the name of a field, and stands in quotes."""
    if _PATH.fullmatch(field):
        return field
    if '"' in field or "\\" in field:
        raise TypeError(f"filter has the field {field!r}; Qdrant finds no field with a quote or backslash in its name")
    return f'"{field}"'


def found(points: Sequence[Any], k: int) -> tuple[list[float], list[Any]]:
    """Scores and ids of the k best scored points; equal scores by id, numbers before names.

    Scores are those of float32, as vectors are: an embedded Qdrant sums in float64, where equal documents come to
    different last bits.
    """
    scores = np.array([point.score for point in points], dtype=np.float32).tolist()
    scored = zip(scores, points, strict=True)
    best = sorted(scored, key=lambda one: (-one[0], isinstance(one[1].id, str), one[1].id))[:k]
    return [score for score, _ in best], [(point.payload or {}).get(NAME, point.id) for _, point in best]


def as_rows(ids: list[list[Any]]) -> NDArray[Any]:
    """Ids as an array: int64 where all are such numbers, else objects."""
    if all(isinstance(name, int) and name < 2**63 for row in ids for name in row):
        return np.array(ids, dtype=np.int64)
    return np.array(ids, dtype=object)
