"""Threads: the package starts none and sets no limits, and keeps to those of torch, threadpoolctl and joblib.

Limits are set once for a process, so what is tested of them runs in processes of their own.
"""

import ast
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from conftest import make_mixed
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_limits
from torch.overrides import TorchFunctionMode

from grclip import ExactRetriever, Items, ModalityGapRemover, MultimodalFuser, MultimodalFuserCV
from grclip.metrics import retrieval_scorer

TASKS = Path("/proc/self/task")
"""Where Linux lists the threads of a process."""

CORES = joblib.cpu_count(only_physical_cores=True)
"""torch's matrix products take no more threads than this."""

needs_two_cores = pytest.mark.skipif(CORES < 2, reason="one core tells no two numbers of threads apart")

STARTS = {"Thread", "Timer", "ThreadPool", "ThreadPoolExecutor", "ProcessPoolExecutor", "Process", "Pool", "Parallel"}
LIMITS = {"set_num_threads", "set_num_interop_threads", "threadpool_limits", "ThreadpoolController"}


def in_new_python(function, *arguments, **environment):
    """What a function of this file finds in a process of its own, where no number of threads has been set yet.

    Threads of OpenMP sleep while they wait: awake, they hold each other up on a busy machine.
    """
    call = f"test_threads.{function.__name__}(*{arguments!r})"
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    kept |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(
        [sys.executable, "-c", f"import json, test_threads; print(json.dumps({call}))"],
        env={**kept, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Noting(TorchFunctionMode):
    """Notes how many threads torch may use whenever it is called in this thread."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.found.add(torch.get_num_threads())
        return function(*args, **(kwargs or {}))


def calls():
    """What there is to limit, by name; each gives an array."""
    x = np.random.default_rng(0).standard_normal((60_000, 128), dtype=np.float32)
    roles = {"query": x[:20_000], "text": x[20_000:40_000], "image": x[40_000:]}
    items = Items({"text": roles["text"], "image": roles["image"]})
    remover, retriever = ModalityGapRemover().fit(roles), ExactRetriever(k=10).fit(x)
    fuser, task = MultimodalFuser().fit(items), make_mixed(np.random.default_rng(0), 300, 64)
    return {
        "fit": lambda: ModalityGapRemover().fit(roles).means_["text"],
        "transform": lambda: remover.transform(roles)["text"],
        "fuse": lambda: fuser.transform(items),
        "search": lambda: retriever.predict(x[:400]),
        "choose": lambda: MultimodalFuserCV(5, equalize=True).fit(*task).cv_results_["mean_test_score"],
    }


def share_of_others(call):
    """The least part of a call's processor time, in five calls, that is not this thread's.

    Threads that compute do so in every call; one that wakes for a moment, whatever for, does not.
    """
    shares = []
    for _ in range(5):
        time.sleep(0.2)  # what other libraries have started, too, sleeps by then
        process, thread = time.process_time(), time.thread_time()
        call()
        shares.append(1 - (time.thread_time() - thread) / (time.process_time() - process))
    return min(shares)


def limited(by):
    """Threads before, at and after a limit of one, who computes without and with it, and how far results differ."""
    some, before = calls(), torch.get_num_threads()
    expected = {name: call() for name, call in some.items()}
    free = {name: share_of_others(some[name]) for name in ("fit", "transform", "search")}
    if by == "threadpoolctl":
        limit = threadpool_limits(1)
    else:
        torch.set_num_threads(1)
    with Noting() as noting:
        found = {name: call() for name, call in some.items()}
    shares = {name: share_of_others(call) for name, call in some.items()}
    still = torch.get_num_threads()
    if by == "threadpoolctl":
        limit.restore_original_limits()
    else:
        torch.set_num_threads(before)
    return {
        "threads": [before, sorted(noting.found), still, torch.get_num_threads()],
        "shares": [free, shares],
        "same ranking": bool((found.pop("search") == expected.pop("search")).all()),
        "difference": max(float(np.abs(found[name] - expected[name]).max()) for name in found),
    }


@needs_two_cores
@pytest.mark.parametrize("by", ["threadpoolctl", "torch"])
def test_a_limit_of_one_thread_is_kept_and_left_as_it_was(by):
    found = in_new_python(limited, by, OMP_NUM_THREADS="2")
    assert found["threads"] == [2, [1], 1, 2]
    free, shares = found["shares"]
    assert min(free.values()) > 0.05, "two threads can be told from one"
    assert max(shares.values()) < 0.02
    assert found["same ranking"]
    assert found["difference"] < 1e-6


def threads_of_the_process():
    """How many there are when torch has started its own, and after ours; and those that Python knows."""
    x = torch.randn(2_000, 2_000)
    (x @ x).clone().sort()
    before = len(os.listdir(TASKS))
    for call in calls().values():
        call()
    return before, len(os.listdir(TASKS)), threading.active_count()


@needs_two_cores
@pytest.mark.skipif(not TASKS.exists(), reason=f"needs {TASKS}")
def test_no_threads_are_started_beside_those_of_torch():
    before, after, of_python = in_new_python(threads_of_the_process, OMP_NUM_THREADS="2")
    assert before > 1
    assert after == before
    assert of_python == 1


def test_no_module_starts_threads_or_sets_limits():
    for path in (Path(__file__).parents[1] / "grclip").rglob("*.py"):
        named = {
            node.attr if isinstance(node, ast.Attribute) else node.id
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute | ast.Name)
        }
        assert not named & (STARTS | LIMITS), path


def threads_within_transform(_=None):
    """How many torch may use at most inside a fit and a transform, in whatever process and thread this runs."""
    with Noting() as noting:
        ModalityGapRemover().fit_transform({"query": np.ones((3_000, 64)), "text": np.ones((3_000, 64))})
    return max(noting.found)


def threads_of_workers(backend, *limits):
    """The same in two workers of joblib at once, by the limits that joblib is told."""
    found = []
    for limit in limits:
        with joblib.parallel_config(backend=backend, n_jobs=2, inner_max_num_threads=limit):
            found.append(joblib.Parallel()(joblib.delayed(threads_within_transform)(i) for i in range(4)))
    return found


@needs_two_cores
def test_workers_of_loky_share_the_cores_or_keep_to_what_joblib_is_told():
    shared, told = in_new_python(threads_of_workers, "loky", None, 2)
    assert max(shared) <= max(1, joblib.cpu_count() // 2)
    assert set(told) == {2}


def threads_of_threads():
    """The same in two threads of joblib, under limits of one by threadpoolctl and by torch."""
    with threadpool_limits(1):
        by_threadpoolctl = threads_of_workers("threading", None)
    torch.set_num_threads(1)
    return by_threadpoolctl + threads_of_workers("threading", None)


@needs_two_cores
def test_workers_that_are_threads_keep_to_the_limit_of_torch():
    """A limit of threadpoolctl holds for the thread that sets it; the guide says so."""
    by_threadpoolctl, by_torch = in_new_python(threads_of_threads, OMP_NUM_THREADS="2")
    assert set(by_threadpoolctl) == {2}
    assert set(by_torch) == {1}


def scores_of_a_grid_search():
    """All scores of a grid search by one worker, by two processes, and by two threads."""
    task, qrels = make_mixed(np.random.default_rng(0), 2_400, 128, np.float32, noise=1.5)
    found = []
    for backend, n_jobs in (("loky", 1), ("loky", 2), ("threading", 2)):
        grid = GridSearchCV(
            make_pipeline(ModalityGapRemover(), MultimodalFuser(), ExactRetriever(k=10)),
            {"multimodalfuser__alpha": [0.2, 0.5, 0.8]},
            scoring=retrieval_scorer("ndcg", k=10),
            cv=3,
            error_score="raise",
        )
        with joblib.parallel_config(backend=backend, n_jobs=n_jobs):
            grid.fit(task, qrels)
        found.append([grid.cv_results_[f"split{split}_test_score"].tolist() for split in range(3)])
    return found


def test_a_grid_search_finds_the_same_scores_by_any_number_of_workers():
    one, processes, threads = in_new_python(scores_of_a_grid_search)
    assert 0 < np.min(one) < np.max(one) < 1
    assert processes == one
    assert threads == one
