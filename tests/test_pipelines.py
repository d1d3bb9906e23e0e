"""Fitted state that travels: dicts, files, and fingerprints."""

import errno
import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from conftest import make_mixed
from safetensors import safe_open
from safetensors.numpy import save_file
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from grclip import (
    ExactRetriever,
    Items,
    ModalityGapRemover,
    MultimodalFuser,
    MultimodalFuserCV,
    SearchTask,
    encoder_fingerprint,
    load_pipeline,
    pipeline_fingerprint,
    save_pipeline,
)
from grclip.encoders import toy_encoder


def known(task, encoder="ViT-B-32/openai"):
    return SearchTask(Items(task.queries, encoder=encoder), Items(task.corpus, encoder=encoder))


@pytest.fixture
def pipeline(mixed):
    task, qrels = mixed
    return make_pipeline(ModalityGapRemover(), MultimodalFuser(0.3, equalize=True)).fit(known(task), qrels)


@pytest.fixture
def saved(pipeline, tmp_path):
    save_pipeline(pipeline, tmp_path / "c.safetensors")
    return tmp_path / "c.safetensors"


def same(task, one, other):
    for side in (task.queries, task.corpus):
        np.testing.assert_array_equal(one.transform(side), other.transform(side))


class TestState:
    def test_it_travels_through_json(self, rng):
        remover = ModalityGapRemover(copy=False).fit(Items({"text": rng.normal(size=(7, 4))}, encoder="toy"))
        state = remover.to_state()
        state["means"] = {role: mean.tolist() for role, mean in state["means"].items()}
        again = ModalityGapRemover.from_state(json.loads(json.dumps(state)))
        np.testing.assert_array_equal(again.means_["text"], remover.means_["text"])
        assert again.means_["text"].dtype == np.float64
        assert (again.n_samples_seen_, again.n_features_in_, again.encoder_) == ({"text": 7}, 4, "toy")
        assert again.get_params() == remover.get_params()

    def test_states_of_batches_merge_to_one_fit(self, mixed):
        task, _ = mixed
        states = [ModalityGapRemover().fit(task.corpus[i : i + 7]).to_state() for i in range(0, 30, 7)]
        merged = ModalityGapRemover.from_state(states[0])
        for state in states[1:]:
            merged = merged.merge(ModalityGapRemover.from_state(state))
        whole = ModalityGapRemover().fit(task.corpus)
        assert merged.n_samples_seen_ == whole.n_samples_seen_
        for role, mean in whole.means_.items():
            np.testing.assert_allclose(merged.means_[role], mean, rtol=0, atol=1e-12)

    def test_it_shares_no_memory(self, rng):
        remover = ModalityGapRemover().fit({"text": rng.normal(size=(7, 4))})
        state = remover.to_state()
        again = ModalityGapRemover.from_state(state)
        state["means"]["text"][:] = 9
        assert (remover.means_["text"] == again.means_["text"]).all()

    def test_names_of_columns_survive(self, rng):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(rng.normal(size=(5, 2)), columns=["a", "b"])
        remover = ModalityGapRemover.from_state(ModalityGapRemover().fit(frame).to_state())
        with pytest.raises(ValueError, match="feature names"):
            remover.transform(frame[["b", "a"]])

    def test_columns_in_another_order_do_not_merge(self, rng):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(rng.normal(size=(5, 2)), columns=["a", "b"])
        one, other = ModalityGapRemover().fit(frame), ModalityGapRemover().fit(frame[["b", "a"]])
        with pytest.raises(ValueError, match="cannot merge: column 0 is 'a' here and 'b' in other; merge removers"):
            one.merge(other)
        assert list(one.merge(one).feature_names_in_) == ["a", "b"]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"n_samples_seen": {1: 2}, "means": {1: [1.0, 2.0]}}, "state holds no complete ModalityGapRemover"),
            ({"schema_version": 2}, "state has schema version 2, but this grclip reads up to 1: update grclip"),
            ({"schema_version": None}, "state has schema_version None: nothing that grclip wrote"),
            ({"class": "MultimodalFuser"}, "state holds a MultimodalFuser, not a ModalityGapRemover"),
            ({"means": None}, "state has no means by role"),
            ({"means": {"text": "many"}}, "state has no means by role"),
            ({"means": {"text": ["1.0", "2.0"]}}, "state has no means by role"),
            ({"means": {"text": [1j, 2j]}}, "state has no means by role"),
            ({"means": {"text": [1.0]}}, "state holds no complete ModalityGapRemover"),
            ({"means": {"text": [1.0, np.nan]}}, "state holds no complete ModalityGapRemover"),
            ({"means": {"image": [1.0, 2.0]}}, "state holds no complete ModalityGapRemover"),
            ({"n_samples_seen": {"text": 0}}, "state holds no complete ModalityGapRemover"),
            ({"n_samples_seen": None}, "state holds no complete ModalityGapRemover"),
            ({"normalize": 1}, "state holds no complete ModalityGapRemover"),
            ({"copy": 1}, "state holds no complete ModalityGapRemover"),
            ({"encoder": 1}, "state holds no complete ModalityGapRemover"),
            ({"n_features": 2.0}, "state holds no complete ModalityGapRemover"),
            ({"feature_names": ["a"]}, "state holds no complete ModalityGapRemover"),
        ],
    )
    def test_what_is_no_state(self, change, message):
        state = ModalityGapRemover().fit({"text": np.eye(2)}).to_state()
        with pytest.raises(ValueError, match=message):
            ModalityGapRemover.from_state({**state, **change})

    def test_neither_is_nothing(self):
        with pytest.raises(TypeError, match="state must be what to_state gave; got list"):
            ModalityGapRemover.from_state([])
        with pytest.raises(NotFittedError):
            ModalityGapRemover().to_state()


class TestRoundTrip:
    def test_vectors_steps_and_fingerprint(self, mixed, pipeline, saved):
        task = known(mixed[0])
        again = load_pipeline(saved)
        same(task, again, pipeline)
        assert list(again.named_steps) == list(pipeline.named_steps)
        fuser = again["multimodalfuser"]
        assert fuser.spread_ == pipeline["multimodalfuser"].spread_
        assert set(fuser.spread_) == {frozenset(kind) for kind in (["text"], ["image"], ["text", "image"])}
        assert (fuser.query_kinds_, fuser.query_roles_) == ({frozenset(["query"])}, {"query"})
        assert again["modalitygapremover"].n_samples_seen_ == {"query": 30, "text": 20, "image": 20}
        assert pipeline_fingerprint(again) == pipeline_fingerprint(pipeline)
        assert encoder_fingerprint(again) == "ViT-B-32/openai"
        with pytest.raises(ValueError, match="but these come from 'SigLIP'"):
            again.transform(Items(task.corpus, encoder="SigLIP"))

    def test_any_parameters(self, rng, tmp_path):
        parts = {"title": rng.normal(size=(9, 4)), "sketch": rng.normal(size=(9, 4))}
        options = [
            {"weights": {"title": np.float64(0.25), "sketch": 1}},
            {"modalities": {"sketch": "image"}, "alpha": np.float64(0.7), "random_state": np.int64(3)},
        ]
        for option in options:
            fuser = MultimodalFuser(**option).fit(Items(parts))
            save_pipeline(fuser, tmp_path / "c")
            again = load_pipeline(tmp_path / "c")["fuse"]
            assert {name: again.get_params()[name] for name in option} == option
            np.testing.assert_array_equal(again.transform(Items(parts)), fuser.transform(Items(parts)))

    @pytest.mark.parametrize("alpha", [np.float16(0.1), np.float32(0.1), Fraction(1, 3), np.float64(0.1)])
    def test_alpha_of_any_sort_of_number_makes_the_same_vectors_after_loading(self, rng, tmp_path, alpha):
        parts = Items({"text": rng.normal(size=(9, 4)), "image": rng.normal(size=(9, 4))})
        fuser = MultimodalFuser(alpha).fit(parts)
        save_pipeline(fuser, tmp_path / "c")
        np.testing.assert_array_equal(load_pipeline(tmp_path / "c").transform(parts), fuser.transform(parts))

    def test_a_fuser_that_chose_alpha_is_saved_as_what_it_became(self, rng, tmp_path):
        task, qrels = make_mixed(rng, n=60, noise=0.9)
        chosen = make_pipeline(ModalityGapRemover(), MultimodalFuserCV(11, equalize=True)).fit(task, qrels)
        fingerprint = save_pipeline(chosen, tmp_path / "c")
        again = load_pipeline(tmp_path / "c")
        assert type(again[-1]) is MultimodalFuser
        assert again[-1].alpha == chosen[-1].alpha_
        same(task, again, chosen)
        plain = make_pipeline(ModalityGapRemover(), MultimodalFuser(chosen[-1].alpha_, equalize=True)).fit(task, qrels)
        assert fingerprint == pipeline_fingerprint(chosen) == pipeline_fingerprint(again) == pipeline_fingerprint(plain)

    def test_encoder_and_retriever_are_left_out(self, mixed, tmp_path):
        task, qrels = mixed
        steps = [("degap", ModalityGapRemover()), ("nothing", "passthrough"), ("fuse", MultimodalFuser())]
        search = Pipeline([*steps, ("search", ExactRetriever(k=3))]).fit(task, qrels)
        whole = Pipeline([("encode", toy_encoder()), *search.steps])
        fingerprint = save_pipeline(whole, tmp_path / "c")
        again = load_pipeline(tmp_path / "c")
        assert list(again.named_steps) == ["degap", "fuse"]
        assert fingerprint == pipeline_fingerprint(search) == pipeline_fingerprint(search[:-1])
        same(task, again, search[:-1])

    def test_a_frozen_step_is_saved_as_itself(self, mixed, tmp_path):
        remover = ModalityGapRemover().fit(mixed[0])
        frozen = Pipeline([("degap", FrozenEstimator(remover)), ("fuse", MultimodalFuser())]).fit(mixed[0])
        save_pipeline(frozen, tmp_path / "c")
        assert type(load_pipeline(tmp_path / "c")["degap"]) is ModalityGapRemover
        assert pipeline_fingerprint(frozen) == pipeline_fingerprint(load_pipeline(tmp_path / "c"))

    def test_a_pipeline_in_another_is_saved_as_its_steps(self, mixed, pipeline, tmp_path):
        task, qrels = known(mixed[0]), mixed[1]
        frozen = Pipeline([("calibrate", FrozenEstimator(pipeline)), ("search", ExactRetriever(k=3))]).fit(task, qrels)
        nested = make_pipeline(Pipeline([("encode", toy_encoder()), *pipeline.steps]), ExactRetriever())
        for whole in (frozen, nested, FrozenEstimator(pipeline), FrozenEstimator(nested), make_pipeline(pipeline)):
            assert save_pipeline(whole, tmp_path / "c") == pipeline_fingerprint(pipeline)
            again = load_pipeline(tmp_path / "c")
            assert list(again.named_steps) == list(pipeline.named_steps)
            same(task, again, pipeline)

    def test_steps_of_one_name_in_two_pipelines(self, mixed, tmp_path):
        task, qrels = mixed
        inner = Pipeline([("degap", ModalityGapRemover())])
        twice = Pipeline([("one", inner), ("degap", ModalityGapRemover()), ("fuse", MultimodalFuser())]).fit(
            task, qrels
        )
        save_pipeline(twice, tmp_path / "c")
        again = load_pipeline(tmp_path / "c")
        assert list(again.named_steps) == ["degap", "degap-2", "fuse"]
        same(task, again, twice)

    def test_the_header_says_what_the_file_is(self, pipeline, saved):
        with safe_open(saved, framework="numpy") as file:
            header = json.loads(file.metadata()["grclip"])
        assert header["schema_version"] == 1
        assert (header["class"], header["encoder"], header["n_features"]) == ("Pipeline", "ViT-B-32/openai", 16)
        assert header["roles"] == ["query", "text", "image"]
        assert header["fingerprint"] == pipeline_fingerprint(pipeline)
        assert [step["class"] for step in header["steps"]] == ["ModalityGapRemover", "MultimodalFuser"]
        assert header["steps"][0]["n_samples_seen"] == {"query": 30, "text": 20, "image": 20}
        assert header["steps"][1]["parameters"]["alpha"] == 0.3

    def test_a_generator_is_not_saved_and_said_so(self, mixed, tmp_path):
        task, qrels = mixed
        fuser = MultimodalFuser(equalize=True, random_state=np.random.RandomState(0)).fit(task, qrels)
        with pytest.warns(UserWarning, match="random_state of step 'fuse' is RandomState, which a file cannot hold"):
            save_pipeline(fuser, tmp_path / "c")
        again = load_pipeline(tmp_path / "c")
        assert again["fuse"].random_state is None
        same(task, again, fuser)
        assert pipeline_fingerprint(again) == pipeline_fingerprint(fuser)

    def test_it_is_on_the_disk_before_it_takes_its_name(self, pipeline, tmp_path, monkeypatch):
        steps, fsync, replace = [], os.fsync, os.replace

        def synced(file):
            steps.append(("fsync", os.fstat(file).st_size))
            fsync(file)

        def replaced(source, target):
            steps.append(("replace", os.path.getsize(source)))
            replace(source, target)

        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(os, "replace", replaced)
        save_pipeline(pipeline, tmp_path / "c")
        size = (tmp_path / "c").stat().st_size
        assert steps == [("fsync", size), ("replace", size)]

    def test_a_full_disk_names_the_file_and_leaves_what_was_there(self, pipeline, saved, monkeypatch):
        before = saved.read_bytes()

        def full(file):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*c\.safetensors'"):
            save_pipeline(pipeline, saved)
        assert saved.read_bytes() == before
        assert os.listdir(saved.parent) == [saved.name]


class TestFingerprint:
    def test_it_is_that_of_another_process(self, pipeline, saved):
        code = f"import grclip; print(grclip.pipeline_fingerprint(grclip.load_pipeline({os.fspath(saved)!r})))"
        environment = {**os.environ, "PYTHONHASHSEED": "7"}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == pipeline_fingerprint(pipeline)

    def test_what_decides_vectors_changes_it(self, mixed):
        task, qrels = mixed
        encoded = known(task)

        def fitted(X=encoded, *, y=qrels, normalize=True, **options):
            return pipeline_fingerprint(
                make_pipeline(ModalityGapRemover(normalize=normalize), MultimodalFuser(**options)).fit(X, y)
            )

        found = [
            fitted(),
            fitted(alpha=0.4),
            fitted(weights={"text": 1, "image": 2}),
            fitted(modalities={"text": "image"}),
            fitted(equalize=True),
            fitted(equalize=True, y=None),
            fitted(normalize=False),
            fitted(encoded[:20], y=None),
            fitted(known(task, "SigLIP")),
            fitted(task),
            pipeline_fingerprint(ModalityGapRemover().fit(encoded)),
        ]
        assert len(set(found)) == len(found)
        assert all(len(name) == 23 and name.startswith("grclip@") for name in found)

    def test_what_does_not_changes_nothing(self, mixed):
        task, qrels = mixed

        def fitted(*, names=("a", "b"), copy=True, **options):
            steps = zip(names, (ModalityGapRemover(copy=copy), MultimodalFuser(**options)), strict=True)
            return pipeline_fingerprint(Pipeline(list(steps)).fit(task, qrels))

        plain = fitted()
        assert fitted(names=("c", "d"), copy=False) == plain
        assert fitted(random_state=7, modalities={}) == plain
        assert fitted(alpha=np.float64(0.5)) == plain
        assert fitted(alpha=-0.0) == fitted(alpha=0)
        remover = ModalityGapRemover().fit(task)
        turned = ModalityGapRemover().fit(dict(reversed(remover.transform(task.corpus).items())))
        straight = ModalityGapRemover().fit(dict(remover.transform(task.corpus).items()))
        assert pipeline_fingerprint(turned) == pipeline_fingerprint(straight)


class TestRefused:
    def test_other_steps(self, mixed, tmp_path):
        task, _ = mixed
        remover = ModalityGapRemover().fit(task)

        class Derived(ModalityGapRemover):
            pass

        for other in (StandardScaler(), make_pipeline(StandardScaler()), [remover], Derived().fit(task)):
            with pytest.raises(TypeError, match="expected a ModalityGapRemover or MultimodalFuser"):
                save_pipeline(other, tmp_path / "c")
        with pytest.raises(TypeError, match="expected a ModalityGapRemover or MultimodalFuser"):
            save_pipeline(Pipeline([("a", remover), ("b", StandardScaler()), ("c", MultimodalFuser())]), tmp_path / "c")
        for nothing in (Pipeline([("search", ExactRetriever())]), Pipeline([("encode", toy_encoder())])):
            with pytest.raises(ValueError, match="nothing was fitted that could be kept"):
                save_pipeline(nothing, tmp_path / "c")
        assert not (tmp_path / "c").exists()

    def test_what_is_not_fitted(self, mixed):
        task, _ = mixed
        with pytest.raises(NotFittedError):
            pipeline_fingerprint(ModalityGapRemover())
        late = MultimodalFuser().fit(task).set_params(equalize=True)
        with pytest.raises(NotFittedError, match="equalize=True, but this MultimodalFuser was fitted without it"):
            pipeline_fingerprint(late)

    def test_spreads_that_are_not_in_use_are_not_kept(self, mixed, tmp_path):
        task, _ = mixed
        fuser = MultimodalFuser(alpha=0.3, equalize=True).fit(task).set_params(alpha=0.7, equalize=False)
        assert save_pipeline(fuser, tmp_path / "c") == pipeline_fingerprint(MultimodalFuser(alpha=0.7).fit(task))
        again = load_pipeline(tmp_path / "c")["fuse"].set_params(equalize=True)
        with pytest.raises(NotFittedError, match="equalize=True, but this MultimodalFuser was fitted without it"):
            again.transform(task)

    def test_steps_that_do_not_belong_together(self, mixed, rng):
        task, _ = mixed
        remover = ModalityGapRemover().fit(known(task))
        with pytest.raises(ValueError, match=r"vectors of different encoders: .*'SigLIP'"):
            encoder_fingerprint(make_pipeline(remover, MultimodalFuser().fit(known(task, "SigLIP"))))
        narrow = MultimodalFuser().fit(Items({"text": rng.normal(size=(3, 4))}))
        with pytest.raises(ValueError, match=r"vectors of different widths: .*16.*4"):
            pipeline_fingerprint(make_pipeline(remover, narrow))


def rewrite(path, change, vectors=None):
    """The file with another header, or other vectors."""
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["grclip"])
        kept = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    change(header)
    save_file({**kept, **(vectors or {})}, path, metadata={"grclip": json.dumps(header)})


class TestDamagedFiles:
    def test_a_file_cut_anywhere_is_an_error(self, saved):
        whole = saved.read_bytes()
        for length in [*range(0, len(whole), 37), len(whole) - 1]:
            saved.write_bytes(whole[:length])
            with pytest.raises(ValueError, match=r"c\.safetensors' is damaged or no safetensors file"):
                load_pipeline(saved)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda h: h.update(schema_version=2), "schema version 2, but this grclip reads up to 1: update grclip"),
            (lambda h: h.update({"class": "X"}), "holds a X, not a Pipeline"),
            (lambda h: h.pop("steps"), "holds no complete Pipeline"),
            (lambda h: h.update(steps=[]), "holds no complete Pipeline"),
            (lambda h: h["steps"][1].update(n_features=float("inf")), "holds no complete Pipeline"),
            (lambda h: h.update(steps=3), "holds no complete Pipeline"),
            (lambda h: h["steps"][0].pop("n_samples_seen"), "holds no complete Pipeline"),
            (lambda h: h["steps"][1].update({"class": "Scaler"}), "is a Scaler, which this grclip does not know"),
            (lambda h: h["steps"][1]["parameters"].update(beta=1), "holds no complete Pipeline"),
            (lambda h: h["steps"][1]["parameters"].update(alpha=7), "alpha must be a number from 0 to 1"),
            (lambda h: h["steps"][1]["kinds"].pop(), "2 kinds of documents have the spreads"),
            (lambda h: h["steps"][1]["parameters"].update(alpha=0.4), "it was changed after it was saved"),
            (lambda h: h["steps"][1].update(query_roles=["text"]), "it was changed after it was saved"),
            (lambda h: h.update(fingerprint="grclip@0"), "says that its fingerprint is 'grclip@0', but"),
            (lambda h: h.pop("fingerprint"), "says that its fingerprint is None, but"),
            (lambda h: h.update(encoder="SigLIP"), "has a header that does not fit what it holds"),
            (lambda h: [step.update(encoder="SigLIP") for step in h["steps"]], "it was changed after it was saved"),
            (lambda h: h.update(roles=["text"]), "has a header that does not fit what it holds"),
        ],
    )  # fmt: skip
    def test_headers(self, saved, change, message):
        rewrite(saved, change)
        with pytest.raises(ValueError, match=message):
            load_pipeline(saved)

    @pytest.mark.parametrize("text", ["[", "[" * 10**5, "1" * 5000, '{"schema_version": 1' + "0" * 5000 + "}"])
    def test_headers_that_are_no_json(self, saved, text):
        save_file({"0/mean:text": np.zeros(2)}, saved, metadata={"grclip": text})
        with pytest.raises(ValueError, match=r"c\.safetensors' is damaged or no safetensors file \("):
            load_pipeline(saved)

    @pytest.mark.parametrize("name", ["0/mean:text", "0/mean:query", "1/spread"])
    def test_numbers(self, saved, name):
        with safe_open(saved, framework="numpy") as file:
            value = file.get_tensor(name)
        value[0] = np.nextafter(value[0], 2)
        rewrite(saved, lambda header: None, {name: value})
        with pytest.raises(ValueError, match="it was changed after it was saved"):
            load_pipeline(saved)
        rewrite(saved, lambda header: None, {name: value * np.nan})
        with pytest.raises(ValueError, match="holds no complete Pipeline"):
            load_pipeline(saved)

    def test_vectors_of_no_step(self, saved):
        rewrite(saved, lambda header: None, {"9/mean:text": np.zeros(2)})
        with pytest.raises(ValueError, match="has a header that does not fit what it holds"):
            load_pipeline(saved)

    def test_foreign_files(self, pipeline, tmp_path):
        pipeline["modalitygapremover"].save(tmp_path / "r")
        with pytest.raises(ValueError, match="holds a ModalityGapRemover, not a Pipeline"):
            load_pipeline(tmp_path / "r")
        with pytest.raises(FileNotFoundError):
            load_pipeline(tmp_path / "none")
        with pytest.raises(FileNotFoundError, match="there is no folder"):
            save_pipeline(pipeline, tmp_path / "none" / "c")

    def test_no_pickle(self):
        source = Path(sys.modules["grclip.pipelines"].__file__).read_text()
        assert "import pickle" not in source
        assert "joblib" not in source
