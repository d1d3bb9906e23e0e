"""What all tests share."""

import http.server
import os
import threading
from pathlib import Path
from types import SimpleNamespace

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["SCIPY_ARRAY_API"] = "1"  # scikit-learn skips some of its checks without; SciPy reads it when imported

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from searches import centred, make_complete, raw

from grclip import Items, SearchTask

settings.register_profile("grclip", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.load_profile("grclip")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def real_clip() -> Path:
    folder = os.environ.get("GRCLIP_REAL_DATA")
    if not folder:
        pytest.skip("GRCLIP_REAL_DATA is not set: real CLIP embeddings are measurement data, not part of the project")
    return Path(folder)


@pytest.fixture
def cuda() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device("cuda")


@pytest.fixture
def unavailable():
    """A server on this machine that has 503 for every request, and notes what it was asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(503)

        do_HEAD = do_GET  # noqa: N815 (the name that the server calls)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}", asked=asked)
        server.shutdown()


@pytest.fixture
def mixed(rng) -> tuple[SearchTask, list[dict[int, int]]]:
    """30 queries and 30 documents in kinds 1:1:1, about one topic each, with a wide gap between the modalities."""
    return make_mixed(rng)


def make_mixed(rng, n=30, d=16, dtype=np.float64, noise=0.3):
    topics = rng.normal(size=(n, d))
    gap = 3 * rng.normal(size=(3, d))
    query, text, image = (unit(topics + noise * rng.normal(size=(n, d)) + shift).astype(dtype) for shift in gap)
    text[1::3] = image[::3] = np.nan
    return SearchTask(Items({"query": query}), Items({"text": text, "image": image})), [{i: 1} for i in range(n)]


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture
def complete(rng):
    return make_complete(rng)


@pytest.fixture
def methods(mixed):
    return {"raw": raw().fit(*mixed), "centred": centred().fit(*mixed), "scaled": centred(equalize=True).fit(*mixed)}
