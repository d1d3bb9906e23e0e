"""Raw values as models take them: pictures in RGB, sound at one rate, frames of a video."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from fractions import Fraction
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly
from torch import Tensor

from grclip._optional import optional_import

FORMATS = (
    "AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "TGA", "TIFF", "WEBP"
)  # fmt: skip
"""Formats that Pillow decodes by itself; for EPS, say, it starts a program that may do anything."""

MAX_ASPECT = 200
"""Long side over short side. Models scale the short side to theirs, and the long one grows along."""

ORIENTATION = 0x0112
"""The EXIF tag that says which way up a picture is."""


class UnreadableError(ValueError):
    """A value that should be there and cannot be read: a missing or broken file, a bomb, a URL."""


def check_text(value: Any) -> str:
    """A text as it is; a string in a text role is a text, whatever it looks like."""
    if not isinstance(value, str):
        raise TypeError(f"expected a str; got {_shown(value)}")
    if not value.isascii():
        _read(value.encode, value)  # half a surrogate pair is no character, and tokenizers fall over it
    return value


def open_image(value: Any) -> Any:
    """An upright RGB image of a picture, a path, a binary file or an array of pixels, transparency on white.

    A (channels, height, width) floating tensor is a picture that the model's own preprocessing has been through.
    """
    if isinstance(value, Tensor) and value.ndim == 3 and value.is_floating_point():
        return value.float()
    image, ops = (optional_import(f"PIL.{name}", "open-clip", "reading pictures") for name in ("Image", "ImageOps"))
    if isinstance(value, np.ndarray):
        return _read(lambda: _to_rgb(image.fromarray(value), image), value)
    if isinstance(value, image.Image):
        return _read(lambda: _to_rgb(_upright(value, ops), image), value)
    file = _file(value, "a PIL image, a path or a binary file")
    return _read(lambda: _open_picture(file, image, ops), value)


def _open_picture(file: Any, image: Any, ops: Any) -> Any:
    image.init()
    with image.open(file, formats=[name for name in FORMATS if name in image.OPEN]) as opened:
        n_pixels, limit = opened.width * opened.height, image.MAX_IMAGE_PIXELS
        if limit is not None and n_pixels > limit:  # Pillow itself only warns, up to twice the limit
            raise ValueError(f"{n_pixels} pixels are more than PIL.Image.MAX_IMAGE_PIXELS: a decompression bomb?")
        opened.load()
        return _to_rgb(_upright(opened, ops), image)


def _upright(picture: Any, ops: Any) -> Any:
    """A picture turned as its EXIF tag says; the same object where there is nothing to turn."""
    return ops.exif_transpose(picture) if picture.getexif().get(ORIENTATION, 1) != 1 else picture


def _to_rgb(picture: Any, image: Any) -> Any:
    """Eight bits of red, green and blue, on white; a picture much longer than wide would be enlarged without end."""
    if not min(picture.size) or max(picture.size) > MAX_ASPECT * min(picture.size):
        size = f"{picture.width} x {picture.height}"
        raise ValueError(f"its size is {size}; no side may be empty, or over {MAX_ASPECT} x the other")
    if picture.mode.startswith(("I", "F")):
        return image.fromarray(_eight_bits(np.asarray(picture), picture.mode)).convert("RGB")
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        return image.alpha_composite(image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture.convert("RGB")


def _eight_bits(grey: NDArray, mode: str) -> NDArray[np.uint8]:
    """Grey of 16 bits (integers), or in [0, 1] or [0, 255] (floats), in 8 bits."""
    top = (65535 if mode.startswith("I") else 1 if grey.max() <= 1 else 255) if np.isfinite(grey).all() else 0
    if not top or grey.min() < 0 or grey.max() > top:
        raise ValueError(f"its grey values (mode {mode}) are not of 16 bits, [0, 1] or [0, 255]; convert it to mode L")
    return (grey.astype(np.float64) * (255 / top)).round().astype(np.uint8)


def open_audio(value: Any, rate: int) -> NDArray[np.float32]:
    """Mono samples at a rate, of (samples, rate) or a path; 2-D samples have their channels on the short side."""
    if isinstance(value, tuple) and len(value) == 2:
        samples, found = np.asarray(value[0]), value[1]
    else:
        file = _file(value, "(samples, rate) or a path")
        samples, found = _read(lambda: _decode_audio(file), value)
    usable = isinstance(found, Real) and 1 <= float(found) < 1e9
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "iuf" or not usable:
        raise TypeError(
            "expected (samples, rate) with 1-D or 2-D samples and a rate in Hz; "
            f"got {samples.dtype}{list(samples.shape)} at {found!r} Hz"
        )
    if not samples.size or not np.isfinite(samples).all():
        raise UnreadableError("the sound is empty, or holds NaN or infinity")
    wave = _to_wave(samples)
    ratio = Fraction(rate) / Fraction(float(found)).limit_denominator(1000)
    return resample_poly(wave, ratio.numerator, ratio.denominator).astype(np.float32)


def _to_wave(samples: NDArray) -> NDArray[np.float64]:
    """Mono, in [-1, 1] where the samples were integers; unsigned ones have their zero in the middle."""
    mono = samples.mean(axis=int(np.argmin(samples.shape)) if samples.ndim == 2 else (), dtype=np.float64)
    if samples.dtype.kind == "f":
        return mono
    info = np.iinfo(samples.dtype)
    half = (int(info.max) - int(info.min) + 1) / 2
    return (mono - (half if samples.dtype.kind == "u" else 0)) / half


def _decode_audio(file: Any) -> tuple[NDArray, int]:
    with _container(file) as container:
        blocks = [frame.to_ndarray() for frame in _floats(container)]
        rate = container.streams.audio[0].rate
    return np.concatenate(blocks, axis=1), rate


def _floats(container: Any) -> Any:
    """The frames of the first sound track as planar floats, whatever the codec gives."""
    resampler = optional_import("av", "media", "reading sound").AudioResampler(format="fltp")
    if not container.streams.audio:
        raise ValueError("it has no sound")
    for frame in container.decode(audio=0):
        yield from resampler.resample(frame)


def open_video(value: Any, n_frames: int) -> NDArray[np.uint8]:
    """Evenly spaced frames (n_frames, height, width, 3) of a path, a binary file, a list of pictures or an array."""
    if isinstance(value, list | tuple | np.ndarray):
        pixels = isinstance(value, np.ndarray) and (value.dtype != np.uint8 or value.ndim != 4 or value.shape[3] != 3)
        if pixels or not len(value):
            raise TypeError(
                f"expected a path, a list of pictures or uint8 frames of shape (n, h, w, 3); got {_shown(value)}"
            )
        chosen = [value[i] for i in _spaced(len(value), n_frames)]
        return _read(lambda: np.stack([np.asarray(open_image(frame)) for frame in chosen]), value)
    file = _file(value, "a path, a binary file or frames")
    return _read(lambda: _decode_video(file, n_frames), value)


def _decode_video(file: Any, n_frames: int) -> NDArray[np.uint8]:
    with _container(file) as container:
        if not container.streams.video:
            raise ValueError("it has no pictures")
        total = container.streams.video[0].frames or sum(packet.pts is not None for packet in container.demux(video=0))
        container.seek(0)
        rows = _spaced(max(total, 1), n_frames)
        wanted = set(rows)
        kept: dict[int, NDArray] = {}
        for i, frame in enumerate(container.decode(video=0)):
            if i in wanted or not kept:
                kept[i] = frame.to_ndarray(format="rgb24")
            if i >= rows[-1]:
                break
    if not kept:
        raise ValueError("none of its frames can be decoded")
    return np.stack([kept[max(i for i in kept if i <= row)] for row in rows])


def _spaced(n: int, k: int) -> list[int]:
    """K rows of n, evenly spaced from the first to the last, some of them twice where n is smaller."""
    return np.linspace(0, n - 1, k).round().astype(int).tolist()


def _container(file: Any) -> Any:
    """An opened sound or video file; playlists in it may not name anything on a network."""
    av = optional_import("av", "media", "reading sound and video files")
    return av.open(os.fspath(file) if isinstance(file, os.PathLike) else file, options={"protocol_whitelist": "file"})


def _file(value: Any, expected: str) -> Any:
    """A local path, or a binary file at its beginning; addresses are refused."""
    if isinstance(value, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+:(//|\S*,)", value):
        raise UnreadableError(f"{_shown(value)} is a URL, and URLs are never fetched; download it and give its path")
    if isinstance(value, str | os.PathLike):
        if not os.path.exists(value):
            raise UnreadableError(f"no such file: {_shown(value)}")
        return value
    if isinstance(value, bytes):
        return io.BytesIO(value)
    if not hasattr(value, "read"):
        raise TypeError(f"expected {expected}; got {_shown(value)}")
    value.seek(0)
    return value


def _read(read: Callable[[], Any], value: Any) -> Any:
    """What a decoder makes of a value; whatever a broken file makes it raise is said in one way."""
    try:
        return read()
    except (UnreadableError, ImportError):
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise UnreadableError(f"cannot read {_shown(value)}: {reason}") from error


def _shown(value: Any) -> str:
    """A value in an error message: short, and never its content."""
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        return repr(text if len(text) <= 200 else f"{text[:200]}...")
    return f"{type(value).__name__}{list(value.shape) if hasattr(value, 'shape') else ''}"
