"""Batch jobs on Ray Data: encode, fit and transform datasets that no machine holds."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from math import inf
from numbers import Real
from typing import Any

from grclip import __version__
from grclip._optional import optional_import
from grclip._parquet import arrow
from grclip._validation import check_flag, check_k
from grclip.fusion import MultimodalFuser
from grclip.gap import ModalityGapRemover
from grclip.items import Items
from grclip.pipelines import flat_steps, pipeline_fingerprint
from grclip.scale._arrow import check_columns, check_new, mixed, one_name, parts_of_table, told, vectors_of_table
from grclip.scale._blocks import EMBEDDING, Encoder, fit_block, transform_batch

__all__ = ["encode", "fit", "to_items", "transform"]

_EMBEDDINGS = {role: EMBEDDING.format(role) for role in ("text", "image")}


def encode(
    dataset: Any,
    encoder: Any,
    columns: Mapping[str, str],
    *,
    batch_size: int = 256,
    concurrency: int | None = None,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    encoder_column: str = "encoder",
    id_column: str | None = None,
) -> Any:
    """Encode raw columns of a Ray dataset, in a pool of actors that each load the model once.

    Parameters
    ----------
    dataset : ray.data.Dataset
        Rows with texts, paths, or the bytes of files, null where a part is missing; pictures may be tensors.
    encoder : transformer
        Of `grclip.encoders`, or any whose ``transform`` gives Items of embeddings for raw Items.
    columns : dict of str to str
        Column of each role: ``{"text": "caption", "image": "path"}``.
    batch_size : int, default=256
        Rows that go to the encoder at once; it divides them by its own ``batch_size``.
    concurrency : int, default=None
        Actors at most. None: as many as the cluster's GPUs allow, or, without, one for each CPU but one.
    num_cpus : float, default=None
        CPUs of an actor; None leaves it to Ray, which gives one, and one thread. What reads the rows needs a CPU too:
        if actors hold all of them, Ray waits for ever. Where one CPU an actor would be all that the cluster has, None
        is 0.
    num_gpus : float, default=None
        GPUs of an actor. None: 1 if the cluster has any and the encoder's ``device`` is not the CPU, else 0.
    encoder_column : str, default="encoder"
        Column for the fingerprint of the encoder. Where the dataset has it already, it has to say the same.
    id_column : str, default=None
        Column whose values errors name rows by.

    Returns
    -------
    ray.data.Dataset
        Lazy: the rows as they were, with a column ``{role}_embedding`` of fixed-size lists of float32 for each role,
        null where a part is missing, and the fingerprint.

    Raises
    ------
    TypeError
        If dataset is no Ray dataset, columns no dict of names, or encoder has no ``transform`` or is a class.
    ValueError
        If a column is not there or a number is out of range. What the encoder refuses is raised where the dataset is
        consumed, by Ray, with the encoder's message in it.
    ModuleNotFoundError
        If Ray is not installed.

    See Also
    --------
    fit : Learns means from the columns that this adds.

    Notes
    -----
    A worker that dies is replaced, and its batch done again: Ray keeps a batch's output or has none of it. The encoder
    travels without its model, so each actor needs to have the model's files, or has to download them. After an error,
    Ray's actors hold their CPUs and GPUs until Python has let go of the error and has collected garbage.

    Ray's ``write_parquet`` adds to what a folder holds, which may be what a job that failed has written: begin in an
    empty one, or rows are there twice.

    Examples
    --------
    >>> import ray  # doctest: +SKIP
    >>> from grclip.scale.ray import encode
    >>> captions = ray.data.read_parquet("products")  # doctest: +SKIP
    >>> encoded = encode(captions, encoder, {"text": "title", "image": "picture"})  # doctest: +SKIP
    >>> encoded.write_parquet("embeddings", use_dictionary=False, compression="none")  # doctest: +SKIP
    """
    roles = _check(dataset, columns, id_column, batch_size=batch_size)
    _check_encoder(encoder)
    _check_name("encoder_column", encoder_column)
    _check_amounts(num_cpus=num_cpus, num_gpus=num_gpus)
    _check_new(dataset, [EMBEDDING.format(role) for role in roles], encoder_column)
    gpus = _gpus(encoder) if num_gpus is None else num_gpus
    actors = _actors(gpus) if concurrency is None else check_k(concurrency, name="concurrency")
    return dataset.map_batches(
        Encoder,
        fn_constructor_kwargs={"encoder": encoder, "encoder_column": encoder_column, "version": __version__},
        fn_kwargs={"columns": roles, "id_column": id_column},
        batch_format="pyarrow",
        batch_size=batch_size,
        compute=_data().ActorPoolStrategy(min_size=1, max_size=actors),
        num_cpus=_cpus(gpus, actors) if num_cpus is None else num_cpus,
        num_gpus=gpus or None,
    )


def fit(
    dataset: Any,
    columns: Mapping[str, str] | None = None,
    *,
    normalize: bool = True,
    encoder_column: str | None = "encoder",
    id_column: str | None = None,
) -> ModalityGapRemover:
    """Learn the mean of each role from a Ray dataset, in one pass without a shuffle.

    Parameters
    ----------
    dataset : ray.data.Dataset
        Rows with embeddings: lists of float16, float32 or float64 of one size, or tensors; null where one is missing.
    columns : dict of str to str, default=None
        Column of each role. None: ``{"text": "text_embedding", "image": "image_embedding"}``.
    normalize : bool, default=True
        As in `ModalityGapRemover`.
    encoder_column : str, default="encoder"
        Column of fingerprints, if the dataset has it; None looks at none.
    id_column : str, default=None
        Column whose values errors name rows by.

    Returns
    -------
    ModalityGapRemover
        As one fit on all rows gives it: counts are the same, means differ by float64 rounding alone. The same blocks
        give the same bits, in whatever order they are done.

    Raises
    ------
    TypeError
        If dataset is no Ray dataset, columns no dict of names, or a column holds no vectors.
    ValueError
        If a column is not there; for another width, NaN beside numbers, or inf; if the rows come from two encoders; and
        if there is no row to learn from. Column and rows of the block are named.
    ModuleNotFoundError
        If Ray is not installed.

    See Also
    --------
    transform : Applies it, with a fuser behind it.
    grclip.ModalityGapRemover.merge : What puts the blocks together.

    Notes
    -----
    Each block becomes one small state (a vector and a count for each role), and these are merged here, in pairs: 4 kB a
    role for 512 numbers, so that 16,000 blocks of 128 MB (10^9 rows of text and image in float16) make 130 MB. Ray
    reads all columns of a file: where others are large, name those that are needed in ``read_parquet``. Warnings, as
    of rows of zeros, come from the workers, and Ray prints them.

    Examples
    --------
    >>> import ray  # doctest: +SKIP
    >>> from grclip.scale.ray import fit
    >>> remover = fit(ray.data.read_parquet("embeddings").random_sample(0.001))  # doctest: +SKIP
    >>> remover.n_samples_seen_  # doctest: +SKIP
    {'text': 1000211, 'image': 999803}
    """
    roles = _check(dataset, _EMBEDDINGS if columns is None else columns, id_column)
    check_flag("normalize", normalize)
    options = {
        "columns": roles,
        "normalize": normalize,
        "encoder_column": encoder_column,
        "id_column": id_column,
        "version": __version__,
    }
    states = dataset.map_batches(fit_block, fn_kwargs=options, batch_format="pyarrow", batch_size=None)
    removers = [ModalityGapRemover.from_state(pickle.loads(state)) for state in sorted(_told(states))]
    if not removers:
        raise ValueError(f"dataset has no row to learn a mean from in {', '.join(map(repr, roles.values()))}")
    _refuse_two_encoders(removers, encoder_column)
    _refuse_two_widths(removers, roles)
    return _merge(removers)


def transform(
    dataset: Any,
    pipeline: Any,
    columns: Mapping[str, str] | None = None,
    *,
    output: str = "vector",
    batch_size: int | None = None,
    encoder_column: str | None = "encoder",
    calibrator_column: str | None = "calibrator",
    id_column: str | None = None,
) -> Any:
    """Make the vectors to search of the embeddings in a Ray dataset.

    Parameters
    ----------
    dataset : ray.data.Dataset
        As `fit` takes it.
    pipeline : Pipeline or MultimodalFuser
        Fitted, without an encoder, and ending in a MultimodalFuser: of a search, ``pipeline[:-1]``. A step may be
        frozen, or a Pipeline itself, such as `load_pipeline` gives.
    columns : dict of str to str, default=None
        Column of each role. None: ``{"text": "text_embedding", "image": "image_embedding"}``.
    output : str, default="vector"
        Column for the fused vectors.
    batch_size : int, default=None
        Rows that are transformed at once. None takes whole blocks (128 MB at most, by Ray's default, of which a worker
        needs some three times the memory), in the task that reads them. The vectors do not depend on it.
    encoder_column : str, default="encoder"
        Column of fingerprints, if the dataset has it, which have to be those that the pipeline was fitted with; None
        looks at none.
    calibrator_column : str, default="calibrator"
        Column for the fingerprint of the pipeline; None adds none. Under the default name it makes fused vectors known,
        which are refused as embeddings; under another, or without it, they are not.
    id_column : str, default=None
        Column whose values errors name rows by.

    Returns
    -------
    ray.data.Dataset
        Lazy: the other columns as they were, the fused vectors, byte for byte those of ``pipeline.transform``, as lists
        of a fixed size in the dtype of the embeddings, and the fingerprint.

    Raises
    ------
    TypeError
        If dataset is no Ray dataset, columns no dict of names, output or calibrator_column no name, or pipeline begins
        with an encoder or ends in something else.
    ValueError
        If a column is not there, or output or calibrator_column is there already. What the pipeline refuses (another
        width or encoder, NaN beside numbers, rows without any part) is raised where the dataset is consumed, by Ray,
        with a message that names column and rows.
    NotFittedError
        If the pipeline is not fitted.
    ModuleNotFoundError
        If Ray is not installed.

    See Also
    --------
    fit : Learns the means.
    grclip.pipeline_fingerprint : What the column of calibrators says.

    Notes
    -----
    The pipeline lies in the object store once, and each worker reads it there. A worker that dies is replaced, and its
    block done again. What is written adds to what a folder holds, as of `encode`.

    Examples
    --------
    >>> import ray  # doctest: +SKIP
    >>> from grclip.scale.ray import transform
    >>> vectors = transform(ray.data.read_parquet("embeddings"), pipeline)  # doctest: +SKIP
    >>> vectors.write_parquet("vectors", use_dictionary=False, compression="none")  # doctest: +SKIP
    """
    roles = _check(dataset, _EMBEDDINGS if columns is None else columns, id_column, batch_size=batch_size)
    _check_name("output", output)
    _check_new(dataset, [output], calibrator_column)
    if calibrator_column is not None:
        _check_name("calibrator_column", calibrator_column)
        _check_new(dataset, [calibrator_column])
    _check_fuser(pipeline)
    return dataset.map_batches(
        transform_batch,
        fn_kwargs={
            "fingerprint": pipeline_fingerprint(pipeline),
            "pipeline": _ray().put(pipeline),
            "columns": roles,
            "encoder_column": encoder_column,
            "id_column": id_column,
            "output": output,
            "calibrator_column": calibrator_column,
            "version": __version__,
        },
        batch_format="pyarrow",
        batch_size=batch_size,
    )


def to_items(
    dataset: Any, columns: Mapping[str, str] | None = None, *, encoder_column: str | None = "encoder"
) -> Items:
    """Bring the embeddings of a dataset that memory holds, such as a sample, to this process.

    Parameters
    ----------
    dataset : ray.data.Dataset
        As `fit` takes it.
    columns : dict of str to str, default=None
        Column of each role. None: ``{"text": "text_embedding", "image": "image_embedding"}``.
    encoder_column : str, default="encoder"
        Column of fingerprints, if the dataset has it; None looks at none.

    Returns
    -------
    Items
        A row each, in the order in which Ray gives them out, with the fingerprint of the encoder.

    Raises
    ------
    TypeError
        If dataset is no Ray dataset, columns no dict of names, or a column holds no vectors.
    ValueError
        If a column is not there, if there is no row, or if the rows come from two encoders.
    ModuleNotFoundError
        If Ray is not installed.

    See Also
    --------
    fit : Learns means without bringing rows here.

    Examples
    --------
    >>> import ray  # doctest: +SKIP
    >>> from grclip.scale.ray import to_items
    >>> to_items(ray.data.read_parquet("embeddings").random_sample(0.0001))  # doctest: +SKIP
    Items(n=100320, text=float16[100320, 512], image=float16[100320, 512], encoder='open_clip/ViT-B-32@0f1b')
    """
    roles = _check(dataset, _EMBEDDINGS if columns is None else columns)
    pa: Any = arrow()
    tables = dataset.iter_batches(batch_format="pyarrow", batch_size=None)
    blocks = [vectors_of_table(table, roles, encoder_column) for table in tables if len(table)]
    if not blocks:
        raise ValueError("dataset has no row")
    table = pa.concat_tables(blocks, promote_options="permissive")
    return Items(parts_of_table(table, roles), encoder=one_name(table, encoder_column))


def _told(states: Any) -> Iterator[bytes]:
    """The states as they come; the first problem is raised, and ends the job."""
    for row in states.iter_rows():
        if row["problem"] is not None:
            raise pickle.loads(row["problem"])
        if row["state"] is not None:
            yield row["state"]


def _merge(removers: list[ModalityGapRemover]) -> ModalityGapRemover:
    """All in one, by pairs: rounding grows with the depth of the tree, not with the number of blocks."""
    while len(removers) > 1:
        pairs = zip_longest(removers[::2], removers[1::2])
        removers = [one if other is None else one.merge(other) for one, other in pairs]
    return removers[0]


def _refuse_two_encoders(removers: list[ModalityGapRemover], encoder_column: str | None) -> None:
    """Blocks of different encoders are an error that names two."""
    names = sorted({remover.encoder_ for remover in removers if remover.encoder_ is not None})
    if len(names) > 1:
        raise ValueError(mixed(str(encoder_column), *names[:2]))


def _refuse_two_widths(removers: list[ModalityGapRemover], columns: Mapping[str, str]) -> None:
    """Blocks of different widths are an error that says which columns hold them, and in how many rows."""
    found: dict[int, dict[str, int]] = {}
    for remover in removers:
        rows = found.setdefault(remover.n_features_in_, {})
        for role, count in remover.n_samples_seen_.items():
            rows[role] = rows.get(role, 0) + count
    if len(found) > 1:
        listed = (
            f"{width} numbers in {count:,} rows of {told(columns[role], role)}"
            for width, rows in sorted(found.items())
            for role, count in rows.items()
        )
        raise ValueError(f"vectors have different widths: {'; '.join(listed)}; all vectors come from one encoder")


def _check(
    dataset: Any, columns: Any, id_column: str | None = None, *, batch_size: int | None = None
) -> dict[str, str]:
    """The columns by role, after looking at all that can be told before the dataset is read."""
    if not isinstance(dataset, _data().Dataset):
        raise TypeError(f"dataset must be a ray.data.Dataset, as read_parquet gives it; got {type(dataset).__name__}")
    names = [*columns, *columns.values()] if isinstance(columns, Mapping) else []
    if not names or not all(isinstance(name, str) and name for name in names):
        raise TypeError(f"columns must be a dict from role to the name of a column; got {columns!r}")
    if batch_size is not None:
        check_k(batch_size, name="batch_size")
    schema = dataset.schema(fetch_if_missing=False)
    if schema is not None:
        check_columns(schema, columns)
        if id_column is not None and id_column not in schema.names:
            raise ValueError(f"id_column={id_column!r} is no column; there are {', '.join(map(repr, schema.names))}")
    return dict(columns)


def _check_new(dataset: Any, names: Sequence[str], beside: str | None = None) -> None:
    """That no column will be written over, as far as can be told now."""
    if beside in names:
        raise ValueError(f"column {beside!r} cannot hold both vectors and fingerprints: name another for one of them")
    schema = dataset.schema(fetch_if_missing=False)
    if schema is not None:
        check_new(schema, names)


def _check_name(argument: str, name: Any) -> None:
    """That a column to be made gets a name."""
    if not isinstance(name, str) or not name:
        raise TypeError(f"{argument} must be the name of a column; got {name!r}")


def _check_amounts(**amounts: Any) -> None:
    """That an actor asks for CPUs and GPUs that there can be."""
    for argument, amount in amounts.items():
        if amount is not None and not (isinstance(amount, Real) and 0 <= float(amount) < inf):
            raise ValueError(f"{argument} must be a number of at least 0, or None; got {amount!r}")


def _check_encoder(encoder: Any) -> None:
    """That there is something to encode with: an encoder, not its name or class."""
    if isinstance(encoder, type) or not callable(getattr(encoder, "transform", None)):
        raise TypeError(
            "encoder must be an encoder, such as OpenCLIPEncoder(...) of grclip.encoders, which has transform; "
            f"got {encoder!r}"
        )


def _check_fuser(pipeline: Any) -> None:
    """That the pipeline takes embeddings and gives fused vectors."""
    steps = [step for _, step in flat_steps("", pipeline) if step is not None and step != "passthrough"]
    if not steps or not isinstance(steps[-1], MultimodalFuser):
        last = type(steps[-1]).__name__ if steps else "no step"
        raise TypeError(
            f"pipeline ends in {last}; expected a fitted MultimodalFuser, or a Pipeline that ends in "
            "one (of a search, pipeline[:-1])"
        )
    if hasattr(type(steps[0]), "fingerprint"):
        raise TypeError(
            f"pipeline begins with {type(steps[0]).__name__}, an encoder, but the dataset holds embeddings: leave it "
            "out, pipeline[1:]"
        )


def _gpus(encoder: Any) -> int:
    """GPUs of an actor: one where there are any, unless the encoder says that it needs none."""
    cluster = _ray().cluster_resources()
    return int(cluster.get("GPU", 0) >= 1 and str(getattr(encoder, "device", None)) != "cpu")


def _actors(gpus: float) -> int:
    """Actors that the cluster has room for: by its GPUs, or one for each CPU but one, which reads."""
    cluster = _ray().cluster_resources()
    return max(1, int(cluster.get("GPU", 0) / gpus) if gpus else int(cluster.get("CPU", 1)) - 1)


def _cpus(gpus: float, actors: int) -> int | None:
    """CPUs of an actor: what Ray gives, but none where nothing would be left for what reads the rows."""
    holding = actors if gpus else 1  # as many as the pool begins with, or as GPUs let it grow to
    return 0 if _ray().cluster_resources().get("CPU", 1) <= holding else None


def _ray() -> Any:
    return optional_import("ray", "ray", "grclip.scale.ray")


def _data() -> Any:
    return optional_import("ray.data", "ray", "grclip.scale.ray")
