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


def modality_gap(a, b, related=None):
    """Measures of the gap between the rows of two roles, pair by pair; None for what cannot be measured.

    `related` holds the pairs (i, j) that belong together, and is None where nobody knows.
    """
    sides = [{i: row / np.linalg.norm(row) for i, row in enumerate(x) if row @ row > 0} for x in (a, b)]
    if not all(sides):
        return None
    means = [sum(rows.values()) / len(rows) for rows in sides]
    centred = [
        {i: (row - mean) / np.linalg.norm(row - mean) for i, row in rows.items() if np.abs(row - mean).max() > 1e-12}
        for rows, mean in zip(sides, means, strict=True)
    ]
    cosines, centred_cosines = ({(i, j): x[i] @ y[j] for i in x for j in y} for x, y in (sides, centred))
    paired = [cosine for pair, cosine in cosines.items() if pair in (related or ())]
    unpaired, unpaired_centred = (
        [cosine for pair, cosine in found.items() if pair not in (related or ())]
        for found in (cosines, centred_cosines)
    )
    within = [np.mean([rows[i] @ rows[j] for i, j in combinations(rows, 2)] or np.nan) for rows in sides]
    apart, inside = 1 - np.mean(paired or np.nan), 1 - np.mean(within)
    scatter = [
        np.mean([(row - mean) @ (row - mean) for row in rows.values()]) / len(rows)
        for rows, mean in zip(sides, means, strict=True)
    ]
    difference = means[0] - means[1]
    return {
        "distance": np.sqrt(sum(difference**2)),
        "distance_by_chance": np.sqrt(sum(scatter)),
        "paired_cosine": np.mean(paired) if paired else None,
        "unpaired_cosine": np.mean(unpaired) if unpaired else None,
        "relative_gap": apart / (apart + inside) if apart + inside > 1e-9 else None,
        "spread": np.std(unpaired) if len(unpaired) >= 20 else None,
        "centred_spread": np.std(unpaired_centred) if len(unpaired_centred) >= 20 else None,
        "by_dimension": difference**2 / sum(difference**2) if np.abs(difference).max() > 1e-9 else None,
    }


def push_down(queries, corpus, cross_modal, k):
    """Rows by descending dot product, those that are cross-modal (n_queries, n_documents) after all others."""
    ranking = []
    for query, far in zip(queries, cross_modal, strict=True):
        keys = [(far[row], -(query @ document), row) for row, document in enumerate(corpus)]
        ranking.append([row for *_, row in sorted(keys)[:k]])
    return ranking


def scores_of_kind(qrels, ranking, kinds, kind):
    """qrels and ranking as if what is relevant and of another kind did not exist."""
    own = [{row: grade for row, grade in judged.items() if grade > 0 and kinds[row] == kind} for judged in qrels]
    lines = [
        [row for row in line if row >= 0 and not (judged.get(row, 0) > 0 and kinds[row] != kind)]
        for line, judged in zip(ranking, qrels, strict=True)
    ]
    return own, lines
