"""Slow and obvious versions, in float64 NumPy and plain loops, of what the package does fast."""

from itertools import combinations

import numpy as np


def unit(x):
    """Rows at length 1; zero rows stay zero, missing ones missing."""
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, norms, out=np.where(np.isnan(x), np.nan, 0.0), where=norms > 0)


def mean_and_count(x, normalize=True):
    """Mean of the rows that are neither missing nor zero, and how many there are."""
    rows = [row for row in (unit(x) if normalize else x) if np.any(row) and not np.isnan(row).all()]
    return (np.mean(rows, axis=0) if rows else None), len(rows)


def remove_gap(x, mean, normalize=True):
    """unit(x) - mean for each row that has a direction."""
    out = np.array(unit(x) if normalize else x, dtype=float)
    for row in out:
        if np.any(row):
            row -= mean
    return out


def shares(present, alpha=0.5, weights=None, is_text=None):
    """Weights of the parts that one row has, as a dict that adds up to 1."""
    if weights is not None:
        raw = {role: weights[role] for role in present}
    else:
        sides = {True: [r for r in present if is_text[r]], False: [r for r in present if not is_text[r]]}
        raw = {role: (alpha if side else 1 - alpha) / len(roles) for side, roles in sides.items() for role in roles}
    total = sum(raw.values())
    return {role: raw[role] / total if total else 1 / len(present) for role in present}


def fuse(parts, **weighting):
    """Fused unit rows, one row at a time."""
    rows = []
    for i in range(len(next(iter(parts.values())))):
        present = [role for role, part in parts.items() if not np.isnan(part[i]).all()]
        share = shares(present, **weighting)
        total = sum(share[role] * parts[role][i] for role in present)
        rows.append(total / np.linalg.norm(total) if np.any(total) else total)
    return np.array(rows)


def spreads(queries, parts, qrels, **weighting):
    """Standard deviation of unrelated similarities for every set of roles found together and every subset of it."""
    n = len(next(iter(parts.values())))
    kinds = [frozenset(role for role, part in parts.items() if not np.isnan(part[i]).all()) for i in range(n)]
    subsets = {
        frozenset(some) for kind in kinds for size in range(1, len(kind) + 1) for some in combinations(kind, size)
    }
    result = {}
    for subset in subsets:
        values = []
        for i in range(n):
            if subset <= kinds[i]:
                document = fuse({role: parts[role][i : i + 1] for role in subset}, **weighting)[0]
                values += [q @ document for j, q in enumerate(queries) if not qrels[j].get(i, 0) > 0]
        result[subset] = np.std(values)
    return result


def search(queries, corpus, k):
    """Rows by descending dot product, equal ones by row, zero rows last."""
    ranking = []
    for query in queries:
        keys = [(-(query @ document) if np.any(document) else np.inf, row) for row, document in enumerate(corpus)]
        ranking.append([row for _, row in sorted(keys)[:k]])
    return np.array(ranking)
