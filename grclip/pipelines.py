"""Fitted pipelines as files, and fingerprints that tell which one made a vector."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Container, Iterator, Mapping
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from grclip._validation import warn
from grclip.fusion import MultimodalFuser, MultimodalFuserCV
from grclip.gap import ModalityGapRemover
from grclip.persistence import load_state, save_state

_KIND = "Pipeline"
_REMOVER, _FUSER = "ModalityGapRemover", "MultimodalFuser"
_NAMES = {_REMOVER: "degap", _FUSER: "fuse"}  # of an estimator that is saved by itself

Step = ModalityGapRemover | MultimodalFuser
State = tuple[dict[str, Any], dict[str, NDArray[np.float64]]]


def save_pipeline(pipeline: Any, path: str | os.PathLike[str]) -> str:
    """Write what was fitted to a safetensors file with a JSON header, which loads without pickle.

    Parameters
    ----------
    pipeline : Pipeline, ModalityGapRemover or MultimodalFuser
        Fitted. Of a Pipeline, an encoder in front, a retriever behind and ``"passthrough"`` are left out; steps of a
        Pipeline within it take its place, and what a FrozenEstimator holds is saved as itself; any other step is an
        error.
    path : str or path-like
        The file to write; replaced if it exists, and left as it was if writing fails.

    Returns
    -------
    str
        The fingerprint of the pipeline.

    Raises
    ------
    TypeError
        If a step is neither a ModalityGapRemover nor a MultimodalFuser (a subclass may compute other vectors).
    NotFittedError
        If a step is not fitted, or has ``equalize=True`` and no spreads.
    ValueError
        If there is no such step, or if steps have different widths or encoders.
    OSError
        If the file cannot be written.

    Warns
    -----
    UserWarning
        If ``random_state`` of a fuser is a generator.

    See Also
    --------
    load_pipeline : Reads it back.
    pipeline_fingerprint : Tells whether two pipelines make the same vectors.

    Notes
    -----
    A MultimodalFuserCV is saved as the MultimodalFuser that it has become, with ``alpha=alpha_``; its scores are not.
    ``random_state`` is saved if it is an int or None. A generator is not, and the loaded fuser has None: vectors do not
    depend on it once spreads are known, and only another fit would draw from it.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from grclip import Items, ModalityGapRemover, MultimodalFuser, load_pipeline, save_pipeline
    >>> documents = Items({"text": np.eye(4), "image": -np.eye(4)[::-1]})
    >>> pipeline = make_pipeline(ModalityGapRemover(), MultimodalFuser(alpha=0.3)).fit(documents)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fingerprint = save_pipeline(pipeline, pathlib.Path(folder) / "c.safetensors")
    ...     again = load_pipeline(pathlib.Path(folder) / "c.safetensors")
    >>> bool((again.transform(documents) == pipeline.transform(documents)).all())
    True
    >>> list(again.named_steps), again["multimodalfuser"].alpha
    (['modalitygapremover', 'multimodalfuser'], 0.3)
    """
    steps = fitted_steps(pipeline)
    header, vectors = _state_of(steps)
    for name, step in steps.items():
        state = getattr(step, "random_state", None)
        if not _is_seed(state):
            warn(
                f"random_state of step {name!r} is {type(state).__name__}, which a file cannot hold: the loaded fuser "
                "has random_state=None. Its vectors are the same; only another fit would draw other rows"
            )
    save_state(path, _KIND, header, vectors)
    return header["fingerprint"]


def load_pipeline(path: str | os.PathLike[str]) -> Pipeline:
    """Read a pipeline that save_pipeline wrote.

    Parameters
    ----------
    path : str or path-like
        The file to read.

    Returns
    -------
    Pipeline
        Fitted, of the same steps under the same names; one that was saved by itself is called ``"degap"`` or
        ``"fuse"``. Steps of a Pipeline within another keep their own names, which are followed by ``"-2"`` where they
        are taken.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated, foreign, inconsistent, of a newer schema version, or if what it holds does not have
        the fingerprint that it says.

    See Also
    --------
    save_pipeline : Writes it.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from grclip import ModalityGapRemover, load_pipeline, save_pipeline
    >>> remover = ModalityGapRemover().fit({"text": np.eye(4), "image": -np.eye(4)})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fingerprint = save_pipeline(remover, pathlib.Path(folder) / "c.safetensors")
    ...     load_pipeline(pathlib.Path(folder) / "c.safetensors")["degap"].means_["image"]
    array([-0.25, -0.25, -0.25, -0.25])
    """
    header, vectors = load_state(path, _KIND)
    name = os.fspath(path)
    try:
        steps = {step["name"]: _restored(step, _own(vectors, i)) for i, step in enumerate(header["steps"])}
        if not steps:
            raise ValueError("no steps")
        again, rewritten = _state_of(steps)
        pipeline = Pipeline(list(steps.items()))
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name!r} holds no complete {_KIND} ({error}); save it again") from error
    if again["fingerprint"] != header.get("fingerprint"):
        raise ValueError(
            f"{name!r} says that its fingerprint is {header.get('fingerprint')!r}, but what it holds has "
            f"{again['fingerprint']!r}: it was changed after it was saved; save it again"
        )
    if {**again, "schema_version": header["schema_version"], "class": _KIND} != header or set(rewritten) != set(
        vectors
    ):
        raise ValueError(f"{name!r} has a header that does not fit what it holds; save it again")
    return pipeline


def pipeline_fingerprint(pipeline: Any) -> str:
    """Name what decides the vectors that a fitted pipeline makes.

    Parameters
    ----------
    pipeline : Pipeline, ModalityGapRemover or MultimodalFuser
        As `save_pipeline` takes it.

    Returns
    -------
    str
        ``"grclip@"`` and 16 hexadecimal digits: of the classes, the parameters that matter (not ``copy``,
        ``random_state`` and names of steps), means, spreads, width and encoder. It is the same after save and load, in
        another process, and for a MultimodalFuserCV and a MultimodalFuser of its ``alpha_``.

    Raises
    ------
    TypeError, ValueError, NotFittedError
        As `save_pipeline`.

    See Also
    --------
    encoder_fingerprint : Names the model that the vectors come from.

    Notes
    -----
    Means that were summed in another order differ in their last digits, and so do fingerprints: copy the file, rather
    than fitting twice.

    Examples
    --------
    >>> import numpy as np
    >>> from grclip import ModalityGapRemover, pipeline_fingerprint
    >>> remover = ModalityGapRemover().fit({"text": np.eye(4), "image": -np.eye(4)})
    >>> pipeline_fingerprint(remover)
    'grclip@105879f2f1948ae2'
    """
    return _state_of(fitted_steps(pipeline))[0]["fingerprint"]


def encoder_fingerprint(pipeline: Any) -> str | None:
    """Name the encoder whose vectors a pipeline was fitted on.

    Parameters
    ----------
    pipeline : Pipeline, ModalityGapRemover or MultimodalFuser
        As `save_pipeline` takes it.

    Returns
    -------
    str or None
        ``encoder_`` of its steps; None where it was not known.

    Raises
    ------
    TypeError, ValueError, NotFittedError
        As `save_pipeline`.

    See Also
    --------
    pipeline_fingerprint : Names the pipeline itself.

    Examples
    --------
    >>> import numpy as np
    >>> from grclip import Items, ModalityGapRemover, encoder_fingerprint
    >>> remover = ModalityGapRemover().fit(Items({"text": np.eye(4)}, encoder="ViT-B-32/openai"))
    >>> encoder_fingerprint(remover)
    'ViT-B-32/openai'
    """
    return _common(fitted_steps(pipeline))[1]


def fitted_steps(pipeline: Any) -> dict[str, Step]:
    """The removers and fusers of a fitted pipeline by name, without an encoder in front or a retriever behind."""
    flat = list(flat_steps("", pipeline))
    named = [(name, step) for name, step in flat if step is not None and step != "passthrough"]
    if len(flat) != 1 or flat[0][0]:
        named = named[1:] if named and hasattr(type(named[0][1]), "fingerprint") else named
        named = named[:-1] if named and hasattr(named[-1][1], "kneighbors") else named
    if not named:
        raise ValueError(f"the pipeline has no {_REMOVER} and no {_FUSER}: nothing was fitted that could be kept")
    steps: dict[str, Step] = {}
    for name, step in named:
        steps[_free(name or _NAMES[_class_of(step)], steps)] = _fitted(step)
    return steps


def flat_steps(name: str, step: Any) -> Iterator[tuple[str, Any]]:
    """An estimator by name, or the steps of a pipeline, each as it is where it is frozen."""
    if isinstance(step, FrozenEstimator):
        yield from flat_steps(name, step.estimator)
    elif isinstance(step, Pipeline):
        for inner in step.steps:
            yield from flat_steps(*inner)
    else:
        yield name, step


def _free(name: str, taken: Container[str]) -> str:
    """A name as it is, or with the first number that makes it another."""
    names = itertools.chain([name], (f"{name}-{i}" for i in itertools.count(2)))
    return next(one for one in names if one not in taken)


def _class_of(step: Any) -> str:
    """The class that a step is kept as."""
    classes = {ModalityGapRemover: _REMOVER, MultimodalFuser: _FUSER, MultimodalFuserCV: _FUSER}
    if type(step) not in classes:
        raise TypeError(
            f"a step is {step!r}; expected a {_REMOVER} or {_FUSER}, after an encoder and before a retriever if there "
            "is one: what other steps compute cannot be kept"
        )
    return classes[type(step)]


def _fitted(step: Any) -> Step:
    """A step that is one to keep, after refusing one that is not fitted, or not as its parameters say."""
    _class_of(step)
    check_is_fitted(step)
    if isinstance(step, MultimodalFuser):
        step._check_parameters()
        if step.equalize:
            step._check_spreads()
    return step


def _common(steps: Mapping[str, Step]) -> tuple[int, str | None]:
    """The width and the encoder that all steps share."""
    widths = {name: step.n_features_in_ for name, step in steps.items()}
    encoders = {name: step.encoder_ for name, step in steps.items() if step.encoder_ is not None}
    for what, found in (("widths", widths), ("encoders", encoders)):
        if len(set(found.values())) > 1:
            raise ValueError(f"steps were fitted on vectors of different {what}: {found}; fit them together")
    return int(next(iter(widths.values()))), next(iter(encoders.values()), None)


def _state_of(steps: Mapping[str, Step]) -> State:
    """Header and vectors of a file, with the fingerprint."""
    told: list[dict[str, Any]] = []
    vectors: dict[str, NDArray[np.float64]] = {}
    for i, (name, step) in enumerate(steps.items()):
        header, own = _remover_state(step) if isinstance(step, ModalityGapRemover) else _fuser_state(step)
        told.append({"name": name, "class": _class_of(step), **header})
        vectors |= {f"{i}/{key}": np.asarray(value, dtype=np.float64) for key, value in own.items()}
    width, encoder = _common(steps)
    header = {"encoder": encoder, "n_features": width, "roles": _roles(steps), "steps": told}
    return {"fingerprint": _fingerprint(header, vectors), **header}, vectors


def _roles(steps: Mapping[str, Step]) -> list[str]:
    """Every role that a step knows of."""
    found: dict[str, None] = {}
    for step in steps.values():
        known = step.means_ if isinstance(step, ModalityGapRemover) else step.query_roles_ | step.document_roles_
        found |= dict.fromkeys(known if isinstance(known, dict) else sorted(known))
    return list(found)


def _remover_state(remover: ModalityGapRemover) -> State:
    state = remover.to_state()
    told = {name: state[name] for name in ("encoder", "n_features", "feature_names", "n_samples_seen")}
    header = {"parameters": {name: state[name] for name in ("normalize", "copy")}, **told}
    return header, {f"mean:{role}": mean for role, mean in state["means"].items()}


def _fuser_state(fuser: MultimodalFuser) -> State:
    """Parameters, roles and spreads; kinds of documents are listed in the order of the vector of spreads."""
    weighting, names = fuser._weighting(), getattr(fuser, "feature_names_in_", None)
    header: dict[str, Any] = {
        "parameters": {
            "alpha": float(weighting["alpha"]) + 0.0,  # -0.0 is 0.0
            "weights": _plain(weighting["weights"], float),
            "modalities": _plain(weighting["modalities"], str),
            "equalize": bool(fuser.equalize),
            "random_state": int(fuser.random_state) if isinstance(fuser.random_state, Integral) else None,
        },
        "encoder": fuser.encoder_,
        "n_features": int(fuser.n_features_in_),
        "feature_names": None if names is None else [str(name) for name in names],
        "query_roles": sorted(fuser.query_roles_),
        "document_roles": sorted(fuser.document_roles_),
    }
    if not fuser.equalize:  # spreads of an earlier fit are of no use
        return header, {}
    spread = {tuple(sorted(kind)): float(value) for kind, value in fuser.spread_.items()}
    kinds = sorted(spread)
    header |= {"kinds": [list(kind) for kind in kinds], "query_kinds": sorted(map(sorted, fuser.query_kinds_))}
    return header, {"spread": np.array([spread[kind] for kind in kinds])}


def _plain(by_role: Mapping[str, Any] | None, kind: type) -> dict[str, Any] | None:
    return None if by_role is None else {str(role): kind(value) for role, value in by_role.items()}


def _is_seed(state: Any) -> bool:
    return state is None or isinstance(state, Integral)


def _fingerprint(header: Mapping[str, Any], vectors: Mapping[str, NDArray[np.float64]]) -> str:
    """Of what decides the vectors: not the names of steps, how many rows were seen, or how spreads were drawn."""
    told: dict[str, Any] = {"encoder": header["encoder"], "n_features": header["n_features"], "steps": []}
    for step in header["steps"]:
        given = step["parameters"]
        if step["class"] == _REMOVER:
            decisive = {"normalize": given["normalize"], "roles": sorted(step["n_samples_seen"])}
        else:
            decisive = {name: given[name] for name in ("alpha", "equalize")}
            decisive |= {name: given[name] or {} for name in ("weights", "modalities")}
            if given["equalize"]:
                decisive |= {name: step[name] for name in ("query_roles", "document_roles", "query_kinds", "kinds")}
        told["steps"].append({"class": step["class"], **decisive})
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name in sorted(vectors):
        digest.update(name.encode("utf-8", "surrogatepass") + b"\0" + (vectors[name] + 0.0).astype("<f8").tobytes())
    return f"grclip@{digest.hexdigest()[:16]}"


def _own(vectors: Mapping[str, NDArray[np.float64]], i: int) -> dict[str, NDArray[np.float64]]:
    """The vectors of one step."""
    return {name.partition("/")[2]: value for name, value in vectors.items() if name.partition("/")[0] == str(i)}


def _restored(step: Mapping[str, Any], vectors: Mapping[str, NDArray[np.float64]]) -> Step:
    """A fitted step from its part of a header."""
    if step["class"] == _REMOVER:
        means = {name.removeprefix("mean:"): mean for name, mean in vectors.items()}
        state = {**step, **step["parameters"], "schema_version": 1, "means": means}
        return ModalityGapRemover.from_state(state)
    if step["class"] != _FUSER:
        raise ValueError(f"step {step['name']!r} is a {step['class']}, which this grclip does not know")
    fuser = MultimodalFuser(**step["parameters"])
    fuser.n_features_in_, fuser.encoder_ = int(step["n_features"]), step["encoder"]
    fuser.query_roles_, fuser.document_roles_ = frozenset(step["query_roles"]), frozenset(step["document_roles"])
    if step["feature_names"] is not None:
        fuser.feature_names_in_ = np.array(step["feature_names"], dtype=object)
    if "spread" in vectors:
        fuser.spread_ = _spreads(step["kinds"], vectors["spread"])
        fuser.query_kinds_ = set(map(frozenset, step["query_kinds"]))
        fuser.weighting_ = fuser._weighted_by()
    return _fitted(fuser)


def _spreads(kinds: list[list[str]], values: NDArray[np.float64]) -> dict[frozenset[str], float]:
    if values.shape != (len(kinds),) or not (np.isfinite(values) & (values > 0)).all():
        raise ValueError(f"{len(kinds)} kinds of documents have the spreads {values.tolist()}")
    return {frozenset(kind): value for kind, value in zip(kinds, values.tolist(), strict=True)}
