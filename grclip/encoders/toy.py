"""The encoder that comes with the package."""

from __future__ import annotations

from typing import Any

from grclip.encoders.open_clip import OpenCLIPEncoder


def toy_encoder(**options: Any) -> OpenCLIPEncoder:
    """A very small CLIP that comes with the package, for demos and tests.

    It knows the drawn scenes of `grclip.datasets.make_scenes` and nothing else: on photographs it is useless. It is a
    real CLIP all the same, of open_clip's own architecture (a ResNet and a text transformer, 0.7 million weights),
    trained contrastively on drawn scenes with captions and nothing else. Nothing was added to make a gap: its gap is
    what training left. Its recipe (the temperature at which the training of large models ends, and captions that tell
    a part of what is seen) was chosen because it keeps a gap, as they do; with a higher temperature and full captions
    the gap closes. So it shows how the gap works and what removing it does, and proves nothing about models of
    photographs; for these see the benchmarks on real CLIP vectors.

    Parameters
    ----------
    **options : object
        Parameters of OpenCLIPEncoder by name: device, precision, batch_size, num_workers, output, modalities, on_error,
        progress.

    Returns
    -------
    OpenCLIPEncoder
        With vectors of 128 numbers. Its checkpoint is verified by checksum when it is loaded.

    Raises
    ------
    TypeError
        For an option that OpenCLIPEncoder does not have.
    ModuleNotFoundError
        If open_clip is not installed; raised when the encoder is first used.

    See Also
    --------
    grclip.datasets.make_scenes : The scenes that it knows; those it draws were not in training.

    Notes
    -----
    Trained by ``python -m benchmarks.train_toy_clip``, with the seed 0; ``docs/benchmarks.md`` has its figures beside
    those of other seeds and of another recipe.

    Examples
    --------
    >>> from grclip.datasets import make_scenes
    >>> from grclip.encoders import toy_encoder
    >>> task, qrels = make_scenes(20, random_state=0)
    >>> toy_encoder().transform(task).corpus["image"].shape
    (20, 128)
    """
    return OpenCLIPEncoder("toy", **options)
