"""What one core does in a second, on which `benchmarks.plan` reckons: as measured once, and measured anew."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

MEASURED = 512
"""Width that the rates of a core were measured at; other widths take as long a number."""


@dataclass(frozen=True)
class Rates:
    """What one core does in a second, measured; `ray` is the share of it that a worker of Ray keeps."""

    fit: float
    transform: float
    read: float
    write: float
    decode: float
    flops: float
    ray: float


RATES = Rates(fit=1190e3, transform=510e3, read=234e3, write=168e3, decode=320, flops=102e9, ray=0.37)
"""Documents a second (decode: pictures of 640 by 480; flops: operations of ViT-B-32), by ``--measure``; the share that
Ray keeps is the lower one, of transform, by ``benchmarks.ray_data``. What an encoder costs, in docs/benchmarks.md, has
256 pictures in 14.31 s on two cores: 79e9 a core, by the clock."""


def measure(documents: int = 30_000, width: int = MEASURED) -> Rates:
    """The rates of one core here, in seconds of processor time."""
    import torch

    from benchmarks.ray_data import COLUMNS, OPTIONS, draw, items_of
    from grclip import ModalityGapRemover, MultimodalFuser
    from grclip._optional import optional_import
    from grclip.scale._arrow import as_lists

    torch.set_num_threads(1)
    pq: Any = optional_import("pyarrow.parquet", "ray", "benchmarks.plan")
    pa: Any = optional_import("pyarrow", "ray", "benchmarks.plan")
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder, documents, width)
        items = items_of(pq.read_table(folder))
        remover, fuser = ModalityGapRemover().fit(items), MultimodalFuser()
        fuser.fit(items)
        fused = fuser.transform(remover.transform(items))
        vectors = pa.table({"vector": as_lists(fused)})
        per_document = {
            "fit": lambda: ModalityGapRemover().fit(items),
            "transform": lambda: as_lists(fuser.transform(remover.transform(items))),
            "read": lambda: items_of(pq.read_table(folder, columns=list(COLUMNS.values()))),
            "write": lambda: pq.write_table(vectors, folder / "out", **OPTIONS),
        }
        found = {what: documents / processor_seconds(call) for what, call in per_document.items()}
    return replace(RATES, **found, **measure_pictures())


def measure_pictures(pictures: int = 16) -> dict[str, float]:
    """Pictures a second that are decoded and brought to the size of CLIP, and operations of ViT-B-32."""
    import torch

    from benchmarks._architectures import DualEncoder
    from grclip._optional import optional_import

    open_clip: Any = optional_import("open_clip", "open-clip", "benchmarks.plan")
    image: Any = optional_import("PIL.Image", "open-clip", "benchmarks.plan")
    smooth = np.random.default_rng(0).integers(0, 256, size=(30, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    image.fromarray(smooth).resize((640, 480), image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-32")
    read = lambda: [preprocess(image.open(io.BytesIO(buffer.getvalue())).convert("RGB")) for _ in range(pictures)]  # noqa: E731
    batch = torch.stack(read())
    with torch.inference_mode():
        seconds = processor_seconds(lambda: model.encode_image(batch))
    flops = DualEncoder("ViT-B-32").picture() * pictures / seconds
    return {"decode": pictures / processor_seconds(read), "flops": flops}


def processor_seconds(call: Callable[[], Any], repeats: int = 5) -> float:
    """Median seconds of processor time, after one call that does not count."""
    taken = []
    for _ in range(repeats + 1):
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return median(taken[1:])
