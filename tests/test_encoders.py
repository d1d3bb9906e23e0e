"""What all encoders share, on open_clip checkpoints: reading, batching, missing parts, faults, sharing."""

import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import joblib
import numpy as np
import open_clip
import PIL.Image
import pytest
import safetensors.torch
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from grclip import ExactRetriever, Items, ModalityGapRemover, MultimodalFuser, SearchTask
from grclip.datasets import make_scenes, mix_kinds
from grclip.encoders import OpenCLIPEncoder, _batches, _model, toy_encoder
from grclip.metrics import retrieval_scorer


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(40, random_state=0)[0]


@pytest.fixture(scope="module")
def encoder():
    return toy_encoder()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A ViT of two small layers with open_clip's own tokenizer, written as open_clip writes checkpoints."""
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    cfg = {
        "embed_dim": 16,
        "vision_cfg": {"layers": 2, "width": 32, "head_width": 16, "image_size": 32, "patch_size": 8},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": cfg, "preprocess_cfg": {}}))
    torch.save(open_clip.model.CLIP(**cfg).state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder


def plain(name, texts=(), images=(), **options):
    """The slow and obvious way: one value at a time, through open_clip's own functions."""
    model, _, preprocess = open_clip.create_model_and_transforms(name, require_pretrained=True)
    tokenize = open_clip.get_tokenizer(name, **options)
    model.eval()
    with torch.no_grad():
        vectors = [model.encode_text(tokenize([text]))[0] for text in texts]
        vectors += [model.encode_image(preprocess(image)[None])[0] for image in images]
    return np.stack([(v / v.norm()).numpy() for v in vectors])


def toy_folder():
    from grclip.encoders.open_clip import PACKAGED

    return PACKAGED["toy"]


class TestVectors:
    def test_they_are_those_of_open_clip(self, scenes, encoder):
        found = encoder.transform(scenes)
        folder = toy_folder()
        expected = plain(
            f"local-dir:{folder}",
            scenes.queries["query"],
            scenes.corpus["image"],
            bpe_path=str(folder / "merges.txt.gz"),
        )
        assert np.abs(found.queries["query"] - expected[:40]).max() < 1e-5
        assert np.abs(found.corpus["image"] - expected[40:]).max() < 1e-5

    def test_a_checkpoint_on_disk_gives_what_open_clip_gives(self, checkpoint, scenes):
        encoder = OpenCLIPEncoder(f"local-dir:{checkpoint}", batch_size=7)
        texts, images = ["red", "a blue thing", "x y z"], list(scenes.corpus["image"][:10])
        found = encoder.transform({"text": texts, "image": images})
        assert np.abs(found["text"] - plain(f"local-dir:{checkpoint}", texts)).max() < 1e-5
        assert np.abs(found["image"] - plain(f"local-dir:{checkpoint}", images=images)).max() < 1e-5

    def test_weights_may_be_a_file(self, checkpoint, tmp_path):
        name = "ViT-S-32-alt"
        torch.manual_seed(1)
        torch.save(open_clip.create_model(name).state_dict(), tmp_path / "weights.pt")
        encoder = OpenCLIPEncoder(name, str(tmp_path / "weights.pt"))
        found = encoder.transform({"text": ["a red bicycle"]})["text"]
        model = open_clip.create_model(name, str(tmp_path / "weights.pt")).eval()
        expected = torch.nn.functional.normalize(model.encode_text(open_clip.get_tokenizer(name)(["a red bicycle"])))
        assert np.abs(found - expected.detach().numpy()).max() < 1e-5

    def test_rows_are_unit_float32_and_missing_parts_are_nan(self, encoder, scenes):
        mixed = mix_kinds(scenes.corpus, random_state=0)
        found = encoder.transform(mixed)
        assert found.kinds.tolist() == mixed.kinds.tolist()
        for role in found:
            assert found[role].dtype == np.float32
            there = ~np.isnan(found[role]).any(axis=1)
            assert np.abs(np.linalg.norm(found[role][there], axis=1) - 1).max() < 1e-6
            assert np.isnan(found[role][~there]).all()

    def test_a_column_of_missing_parts_is_all_nan(self, encoder):
        found = encoder.transform(Items({"text": [None, None], "image": [None, None]}))
        assert found["text"].shape == found["image"].shape == (2, 128)
        assert np.isnan(found["text"]).all()

    def test_the_empty_text_is_a_text(self, encoder):
        assert np.isfinite(encoder.transform({"text": ["", None]})["text"]).all(axis=1).tolist() == [True, False]

    @pytest.mark.parametrize("batch_size", [1, 3, 40, 1000])
    def test_batches_do_not_matter(self, encoder, scenes, batch_size):
        small = clone(encoder).set_params(batch_size=batch_size).transform(scenes)
        whole = encoder.transform(scenes)
        for side, other in ((small.queries, whole.queries), (small.corpus, whole.corpus)):
            assert all(np.abs(side[role] - other[role]).max() < 1e-5 for role in side)

    def test_worker_processes_do_not_matter(self, encoder, scenes):
        state = torch.random.get_rng_state()
        apart = clone(encoder).set_params(num_workers=2, batch_size=8).transform(scenes.corpus)
        assert torch.equal(torch.random.get_rng_state(), state)
        here = encoder.transform(scenes.corpus)
        assert all(np.abs(apart[role] - here[role]).max() < 1e-5 for role in here)

    def test_tensors_come_out_where_the_model_is(self, encoder, scenes):
        found = clone(encoder).set_params(output="torch").transform(scenes.queries)["query"]
        assert isinstance(found, torch.Tensor)
        assert not found.is_inference()
        assert torch.equal(found, torch.from_numpy(encoder.transform(scenes.queries)["query"]))

    @pytest.mark.parametrize("precision", ["bf16", "fp16"])
    def test_reduced_precision_is_near(self, encoder, scenes, precision):
        reduced = clone(encoder).set_params(precision=precision)
        cosines = (reduced.transform(scenes.queries)["query"] * encoder.transform(scenes.queries)["query"]).sum(axis=1)
        assert 0.99 < cosines.min() < 1
        assert reduced.fingerprint == encoder.fingerprint

    def test_pictures_preprocessed_beforehand_are_taken_as_they_are(self, encoder, scenes):
        preprocess = encoder._model().preprocess
        tensors = [preprocess(picture) for picture in scenes.corpus["image"]]
        found = encoder.transform({"image": tensors})["image"]
        assert np.abs(found - encoder.transform(scenes.corpus)["image"]).max() < 1e-5

    def test_preprocessed_pictures_of_another_size_are_named(self, encoder):
        tensors = [torch.zeros(3, 64, 64), None, torch.zeros(3, 32, 32)]
        with pytest.raises(ValueError, match=r"role 'image', row 2: .* picture is \(3, 64, 64\); got \[3, 32, 32\]"):
            encoder.transform({"image": tensors})
        lenient = clone(encoder).set_params(on_error="skip")
        with pytest.warns(UserWarning, match="1 part cannot be read"):
            assert np.isfinite(lenient.transform({"image": tensors})["image"][:, 0]).tolist() == [True, False, False]

    @pytest.mark.gpu
    def test_a_gpu_gives_what_the_cpu_gives(self, encoder, scenes, cuda):
        there = clone(encoder).set_params(device=cuda, output="torch").transform(scenes)
        here = clone(encoder).set_params(device="cpu").transform(scenes)
        assert there.encoder == here.encoder
        assert np.abs(there.corpus["image"].cpu().numpy() - here.corpus["image"]).max() < 1e-3


class TestOnce:
    def count(self, monkeypatch, encoder):
        opened = []
        model = encoder._model()
        real = model.prepare
        monkeypatch.setattr(model, "prepare", lambda m, v, p: opened.extend(v) or real(m, v, p))
        return opened

    def test_equal_strings_and_paths_are_encoded_once(self, monkeypatch, encoder, scenes, tmp_path):
        path = tmp_path / "a.png"
        scenes.corpus["image"][0].save(path)
        opened = self.count(monkeypatch, encoder)
        task = SearchTask(
            Items({"query": ["sea", "sea", "sky"]}),
            Items({"text": ["sky", "sea", None], "image": [path, str(path), path]}),
        )
        found = encoder.transform(task)
        assert len(opened) == 4  # two texts, a path and a string
        assert np.array_equal(found.queries["query"][0], found.corpus["text"][1])
        assert np.array_equal(found.corpus["image"][0], found.corpus["image"][1])

    def test_one_picture_in_several_rows_is_encoded_once(self, monkeypatch, encoder, scenes):
        opened = self.count(monkeypatch, encoder)
        picture = scenes.corpus["image"][0]
        found = encoder.transform({"image": [picture, None, picture, picture.copy()]})["image"]
        assert len(opened) == 2
        assert np.array_equal(found[0], found[2])


class TestPictures:
    def encode(self, encoder, *pictures):
        return encoder.transform({"image": list(pictures)})["image"]

    def same(self, encoder, picture, expected):
        one, other = self.encode(encoder, picture, expected)
        return float(one @ other)

    @pytest.fixture
    def picture(self, scenes):
        return scenes.corpus["image"][3]

    def test_paths_files_bytes_and_arrays(self, encoder, picture, tmp_path):
        path = tmp_path / "p.png"
        picture.save(path)
        content = path.read_bytes()
        with open(path, "rb") as file:
            found = self.encode(
                encoder, picture, path, str(path), file, io.BytesIO(content), content, np.asarray(picture)
            )
            assert not file.closed
            again = self.encode(encoder, file)  # read from its beginning
        assert np.abs(found - found[0]).max() < 1e-6
        assert np.abs(again[0] - found[0]).max() < 1e-6

    @pytest.mark.parametrize(
        ("mode", "suffix"),
        [(mode, None) for mode in ("1", "L", "LA", "P", "CMYK", "RGBA", "YCbCr", "I", "I;16", "F")]
        + [(mode, ".png") for mode in ("1", "L", "LA", "P", "RGBA", "I;16")]
        + [(mode, ".tiff") for mode in ("L", "CMYK", "YCbCr", "I;16", "F")]
        + [("P", ".gif"), ("CMYK", ".jpg"), ("L", ".jpg")],
    )
    def test_every_mode_is_a_picture(self, encoder, picture, mode, suffix, tmp_path):
        grey = picture.convert("L")
        sixteen = np.asarray(grey).astype(np.int32) * 257
        converted = (
            PIL.Image.fromarray(sixteen.astype(np.uint16 if mode == "I;16" else np.int32))
            if mode in ("I", "I;16")
            else picture.convert(mode)
        )
        expected = grey if mode in ("L", "LA", "I", "I;16", "F") else picture.convert("1" if mode == "1" else "RGB")
        if suffix:
            converted.save(tmp_path / f"p{suffix}")
            converted = tmp_path / f"p{suffix}"
        assert self.same(encoder, converted, expected.convert("RGB")) > (0.98 if suffix in (".jpg", ".gif") else 0.995)

    def test_transparency_is_laid_on_white(self, encoder, picture):
        layer = picture.convert("RGBA")
        layer.putalpha(PIL.Image.linear_gradient("L").resize(layer.size))
        white = PIL.Image.new("RGBA", layer.size, "white")
        white.alpha_composite(layer)
        assert self.same(encoder, layer, white.convert("RGB")) > 0.9999
        clear = PIL.Image.new("LA", (64, 64), (0, 0))
        assert self.same(encoder, clear, PIL.Image.new("RGB", (64, 64), "white")) > 0.9999

    def test_a_transparent_palette_is_laid_on_white(self, encoder, tmp_path):
        palette = PIL.Image.new("P", (64, 64), 0)
        palette.putpalette([200, 0, 0, 0, 0, 200])
        palette.save(tmp_path / "p.png", transparency=0)
        assert self.same(encoder, tmp_path / "p.png", PIL.Image.new("RGB", (64, 64), "white")) > 0.9999

    def test_pictures_are_turned_upright(self, encoder, picture, tmp_path):
        exif = PIL.Image.Exif()
        exif[0x0112] = 6  # a quarter turn
        picture.save(tmp_path / "turned.png", exif=exif)
        upright = picture.transpose(PIL.Image.Transpose.ROTATE_270)
        with PIL.Image.open(tmp_path / "turned.png") as opened:
            for turned in (tmp_path / "turned.png", opened):
                assert self.same(encoder, turned, upright) > 0.9999
                assert self.same(encoder, turned, picture) < 0.99

    def test_an_animation_is_its_first_frame(self, encoder, scenes, tmp_path):
        first, second = scenes.corpus["image"][:2]
        first.save(tmp_path / "a.webp", save_all=True, append_images=[second], lossless=True)
        assert self.same(encoder, tmp_path / "a.webp", first) > 0.9999

    def test_a_bomb_is_refused(self, encoder, tmp_path, monkeypatch):
        PIL.Image.new("1", (400, 400)).save(tmp_path / "bomb.png")
        for limit in (100_000, 50_000):  # a little too large, and far too large
            monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", limit)
            with pytest.raises(ValueError, match=r"role 'image', row 0: cannot read '.*bomb.png'.*decompression bomb"):
                self.encode(encoder, tmp_path / "bomb.png")

    @pytest.mark.parametrize("size", [(2, 500), (900, 4), (0, 0), (0, 5)])
    def test_pictures_that_would_grow_without_end_are_refused(self, encoder, size):
        with pytest.raises(ValueError, match=rf"role 'image', row 0: .* its size is {size[0]} x {size[1]};"):
            self.encode(encoder, PIL.Image.new("RGB", size))

    def test_programs_are_not_started_for_odd_formats(self, encoder, tmp_path):
        (tmp_path / "cat.jpg").write_bytes(
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
        )
        with pytest.raises(ValueError, match="cannot identify image file"):
            self.encode(encoder, tmp_path / "cat.jpg")

    def test_grey_is_read_by_its_depth(self, encoder, picture):
        grey = np.asarray(picture.convert("L"))
        same = [
            PIL.Image.fromarray(grey),
            PIL.Image.fromarray((grey / 255).astype(np.float32)),
            PIL.Image.fromarray(grey.astype(np.uint16) * 257),
            PIL.Image.fromarray(grey.astype(np.int32) * 257),
        ]
        found = self.encode(encoder, *same)
        assert np.abs(found - found[0]).max() < 1e-5
        dark = grey.astype(np.int32) // 4
        found = self.encode(encoder, PIL.Image.fromarray(dark.astype(np.uint16)), PIL.Image.fromarray(dark))
        assert np.abs(found[0] - found[1]).max() < 1e-6
        for bad in (np.nan, np.inf, -1.0, 300.0):
            with pytest.raises(ValueError, match=r"its grey values .* convert it to mode L"):
                self.encode(encoder, PIL.Image.fromarray(np.full((8, 8), bad, np.float32)))

    @pytest.mark.parametrize(
        "url", ["https://example.org/a.png", "file:///etc/a.png", "s3://b/a.png", "data:image/png;base64,iVBO"]
    )
    def test_urls_are_refused(self, encoder, url):
        with pytest.raises(ValueError, match=r"role 'image', row 0: .* is a URL, and URLs are never fetched"):
            self.encode(encoder, url)

    def test_other_types_are_errors_that_name_the_row(self, encoder, picture):
        with pytest.raises(
            TypeError, match="role 'image', row 1: expected a PIL image, a path or a binary file; got int"
        ):
            self.encode(encoder, picture, 3)
        with pytest.raises(TypeError, match=r"role 'text', row 1: expected a str; got 'a.png'"):
            encoder.transform({"text": ["a.png", Path("a.png")]})
        with pytest.raises(TypeError, match="role 'text', row 2: expected a str; got Image"):
            encoder.transform({"text": ["a", None, picture]})


class TestFaults:
    def broken(self, folder, scenes):
        good = folder / "good.png"
        scenes.corpus["image"][0].save(good)
        (folder / "short.png").write_bytes(good.read_bytes()[:200])
        (folder / "junk.jpg").write_bytes(b"not a picture")
        return [good, folder / "short.png", folder / "junk.jpg", folder / "gone.png", None, good]

    def test_the_first_is_named_with_role_row_and_path(self, encoder, scenes, tmp_path):
        with pytest.raises(
            ValueError,
            match=r"role 'image', row 1: cannot read '.*short.png'.*\(and 2 more near it\); on_error='skip'",
        ):
            encoder.transform({"image": self.broken(tmp_path, scenes)})

    @pytest.mark.parametrize("num_workers", [0, 2])
    def test_they_can_be_skipped_and_are_listed(self, encoder, scenes, tmp_path, num_workers):
        lenient = clone(encoder).set_params(on_error="skip", num_workers=num_workers, batch_size=2)
        with pytest.warns(
            UserWarning,
            match=r"3 parts cannot be read, .*: role 'image', row 1: .*short.png.*row 3: .*gone.png",
        ):
            found = lenient.transform(Items({"image": self.broken(tmp_path, scenes)}))
        assert found.kinds.tolist() == ["image", "", "", "", "", "image"]

    def test_nothing_readable_is_all_missing(self, encoder):
        with pytest.warns(UserWarning, match="2 parts cannot be read"):
            found = clone(encoder).set_params(on_error="skip").transform({"image": ["gone.png", "lost.png"]})
        assert found["image"].shape == (2, 128)
        assert np.isnan(found["image"]).all()

    def test_texts_that_are_cut_are_counted_in_one_warning(self, encoder):
        long = "a red circle left of a blue square " * 9
        with pytest.warns(UserWarning, match="texts are cut") as caught:
            encoder.transform(SearchTask(Items({"query": ["red", long]}), Items({"text": [long, "blue", long]})))
        assert len(caught) == 1
        assert str(caught[0].message).startswith(
            "3 texts are cut, being longer than the 48 tokens that open_clip:toy reads"
        )
        assert "'query' row 1, 'text' row 0, 'text' row 2" in str(caught[0].message)
        assert caught[0].filename == __file__

    def test_a_text_that_just_fits_is_not_cut(self, encoder):
        tokenizer = encoder._model().tokenizer
        text = " ".join(["red"] * 46)
        assert len(tokenizer.encode(text)) + 2 == 48
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            encoder.transform({"text": [text]})
        with pytest.warns(UserWarning, match="1 text is cut, being longer"):
            encoder.transform({"text": [text + " red"]})

    def test_out_of_memory_halves_the_batch_and_goes_on(self, encoder, scenes, monkeypatch):
        model, sizes = encoder._model(), []
        real = model.embed

        def embed(modality, inputs):
            sizes.append(len(inputs))
            if len(inputs) > 6:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(modality, inputs)

        expected = encoder.transform(scenes.corpus)["image"]
        monkeypatch.setattr(model, "embed", embed)
        found = encoder.transform(Items({"image": scenes.corpus["image"]}))["image"]
        assert sizes == [40, 20, 10] + [5] * 8  # the batch size was 64
        assert np.abs(found - expected).max() < 1e-5

    def test_one_value_too_large_for_the_memory_is_an_error(self, encoder, monkeypatch):
        def embed(modality, inputs):
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(encoder._model(), "embed", embed)
        with pytest.raises(torch.OutOfMemoryError):
            encoder.transform({"text": ["a", "b"]})

    def test_half_a_character_is_no_text(self, encoder):
        with pytest.raises(ValueError, match=r"role 'text', row 1: cannot read .*surrogates not allowed"):
            encoder.transform({"text": ["a", "b \ud800 c"]})

    def test_vectors_of_nan_are_an_error(self, encoder, monkeypatch):
        real = encoder._model().embed
        monkeypatch.setattr(encoder._model(), "embed", lambda m, x: real(m, x) * torch.nan)
        with pytest.raises(ValueError, match="role 'text', row 1: the model gives NaN or infinity"):
            encoder.transform({"text": [None, "a"]})
        with pytest.raises(ValueError, match="precision='fp16' may overflow"):
            clone(encoder).set_params(precision="fp16").transform({"text": [None, "a"]})


class TestDoor:
    def test_vectors_are_not_encoded_again(self, encoder):
        with pytest.raises(TypeError, match=r"role 'text' holds vectors already \(float64\[2, 4\]\)"):
            encoder.transform(Items({"text": np.ones((2, 4))}))
        with pytest.raises(TypeError, match="this SearchTask holds arrays"):
            encoder.fit(SearchTask(np.ones((2, 4)), np.ones((3, 4))))

    def test_bare_lists_are_errors_with_a_way_out(self, encoder):
        with pytest.raises(TypeError, match=r"X is list; an encoder takes Items .* e.g. Items"):
            encoder.transform(["a red bicycle"])

    def test_a_modality_that_the_model_lacks_is_an_error(self, encoder):
        with pytest.raises(ValueError, match="role 'audio' is audio, but open_clip:toy encodes text and image only"):
            encoder.transform(Items({"audio": [(np.zeros(8), 8)]}))
        assert np.isnan(encoder.transform(Items({"text": ["a"], "audio": [None]}))["audio"]).all()

    def test_unknown_roles_need_a_modality(self, encoder, scenes):
        with pytest.raises(ValueError, match=r"unknown modality of 'sketch'"):
            encoder.fit(Items({"sketch": ["a.png"]}))
        told = clone(encoder).set_params(modalities={"sketch": "image"})
        assert told.fit_transform(Items({"sketch": scenes.corpus["image"]})).kinds[0] == "sketch"

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("batch_size", 0, "batch_size must be a whole number of at least 1; got 0"),
            ("num_workers", -1, "num_workers must be a whole number of at least 0; got -1"),
            ("precision", "fp8", "precision must be one of 'fp32', 'bf16', 'fp16'; got 'fp8'"),
            ("output", "jax", "output must be one of 'numpy', 'torch'; got 'jax'"),
            ("on_error", "ignore", "on_error must be one of 'raise', 'skip'; got 'ignore'"),
            ("progress", "yes", "progress must be True, False or None"),
        ],
    )
    def test_parameters_are_checked_before_the_model_is_loaded(self, name, value, message):
        encoder = OpenCLIPEncoder("no such model").set_params(**{name: value})
        for call in (encoder.fit, encoder.transform):
            with pytest.raises((TypeError, ValueError), match=message):
                call({"text": ["a"]})

    def test_a_progress_bar_is_shown_where_asked(self, encoder, capsys):
        clone(encoder).set_params(progress=True).transform({"text": ["a", "b"]})
        assert "encoding text: 100%" in capsys.readouterr().err
        for progress in (None, False):  # standard error is no terminal here
            clone(encoder).set_params(progress=progress).transform({"text": ["a", "b"]})
            assert capsys.readouterr().err == ""


class TestLoading:
    def test_nothing_is_loaded_before_use_and_clones_share(self, monkeypatch):
        loads = []
        real = OpenCLIPEncoder._load
        monkeypatch.setattr(OpenCLIPEncoder, "_load", lambda self, device: loads.append(1) or real(self, device))
        monkeypatch.setattr(_model, "_LOADED", type(_model._LOADED)())
        one = toy_encoder().fit({"text": ["a"]})
        assert not loads
        one.transform({"text": ["a"]})
        clone(one).set_params(batch_size=3).transform({"text": ["b"]})
        pickle.loads(pickle.dumps(one)).transform({"text": ["b"]})
        assert len(loads) == 1

    def test_pickles_leave_the_model_out(self, encoder):
        encoder.transform({"text": ["a"]})
        copy = pickle.loads(pickle.dumps(encoder))
        assert len(pickle.dumps(encoder)) < 2000
        assert np.array_equal(copy.transform({"text": ["a"]})["text"], encoder.transform({"text": ["a"]})["text"])
        assert joblib.hash(encoder) == joblib.hash(toy_encoder())

    def test_the_fingerprint_is_that_of_the_model_wherever_it_lies(self, tmp_path, encoder):
        copied = OpenCLIPEncoder(f"local-dir:{shutil.copytree(toy_folder(), tmp_path / 'copy')}")
        assert copied.fingerprint == encoder.fingerprint
        remover = ModalityGapRemover().fit(encoder.transform(Items({"text": ["a"]})))
        assert remover.transform(copied.transform(Items({"text": ["b"]}))).encoder == encoder.fingerprint

    @pytest.mark.parametrize(
        "change",
        [
            {"preprocess_cfg": {"mean": [0.4] * 3}},
            {"model_cfg": {"quick_gelu": True}},
            {"model_cfg": {"text_cfg": {"heads": 2}}},
            {"model_cfg": {"text_cfg": {"no_causal_mask": True}}},
            {"model_cfg": {"text_cfg": {"tokenizer_kwargs": {"clean": "whitespace"}}}},
        ],
    )
    def test_the_fingerprint_follows_everything_that_decides_the_vectors(self, tmp_path, encoder, change):
        def merge(old, new):
            return {**old, **{k: merge(old.get(k, {}), v) if isinstance(v, dict) else v for k, v in new.items()}}

        folder = shutil.copytree(toy_folder(), tmp_path / "copy")
        (folder / "SHA256SUMS").unlink()
        config = json.loads((folder / "open_clip_config.json").read_text())
        (folder / "open_clip_config.json").write_text(json.dumps(merge(config, change)))
        assert OpenCLIPEncoder(f"local-dir:{folder}").fingerprint != encoder.fingerprint

    @pytest.mark.parametrize(
        "name", ["text_projection", "visual.conv1.weight", "visual.bn1.running_mean", "logit_scale"]
    )
    def test_the_fingerprint_follows_every_weight(self, tmp_path, encoder, name):
        folder = shutil.copytree(toy_folder(), tmp_path / "copy")
        (folder / "SHA256SUMS").unlink()
        weights = safetensors.torch.load_file(folder / "open_clip_model.safetensors")
        safetensors.torch.save_file(weights | {name: weights[name] * 1.01}, folder / "open_clip_model.safetensors")
        assert OpenCLIPEncoder(f"local-dir:{folder}").fingerprint != encoder.fingerprint

    def test_a_relative_name_is_that_of_its_working_directory(self, tmp_path, monkeypatch, encoder):
        for place in ("one", "two"):
            shutil.copytree(toy_folder(), tmp_path / place / "m")
        weights = safetensors.torch.load_file(toy_folder() / "open_clip_model.safetensors")
        (tmp_path / "two" / "m" / "SHA256SUMS").unlink()
        file = tmp_path / "two" / "m" / "open_clip_model.safetensors"
        safetensors.torch.save_file(weights | {"text_projection": -weights["text_projection"]}, file)
        found = []
        for place in ("one", "two"):
            monkeypatch.chdir(tmp_path / place)
            found.append(OpenCLIPEncoder("local-dir:m").transform({"text": ["a red circle"]})["text"])
        assert np.abs(found[0] + found[1]).max() < 1e-5

    def test_the_fingerprint_goes_into_items(self, encoder, scenes):
        found = encoder.transform(scenes)
        assert found.encoder == found.corpus.encoder == encoder.fingerprint
        assert re.fullmatch(r"open_clip@[0-9a-f]{16}", encoder.fingerprint)

    def test_a_damaged_checkpoint_is_refused(self, tmp_path):
        folder = shutil.copytree(toy_folder(), tmp_path / "copy")
        weights = bytearray((folder / "open_clip_model.safetensors").read_bytes())
        weights[-1] ^= 1
        (folder / "open_clip_model.safetensors").write_bytes(weights)
        with pytest.raises(ValueError, match=r"open_clip_model.safetensors is damaged"):
            OpenCLIPEncoder(f"local-dir:{folder}").transform({"text": ["a"]})

    def test_a_checkpoint_without_weights_is_no_random_model(self, tmp_path, checkpoint):
        (tmp_path / "open_clip_config.json").write_bytes((checkpoint / "open_clip_config.json").read_bytes())
        with pytest.raises(RuntimeError, match="Required pretrained weights"):
            OpenCLIPEncoder(f"local-dir:{tmp_path}").transform({"text": ["a"]})

    @pytest.mark.parametrize("quick", [True, False])
    def test_weights_get_the_activation_that_they_were_trained_with(self, quick, tmp_path, monkeypatch):
        vision = {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 8}
        text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
        config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
        for name, more in (("small", {}), ("small-quickgelu", {"quick_gelu": True})):
            (tmp_path / f"{name}.json").write_text(json.dumps({**config, **more}))
        monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
        monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", [*open_clip.factory._MODEL_CONFIG_PATHS])
        open_clip.add_model_config(tmp_path)
        weights = str(tmp_path / "weights.pt")
        torch.save(open_clip.create_model("small").state_dict(), weights)
        tags = {"published": open_clip.pretrained._pcfg(file=weights, quick_gelu=quick)}
        for name in ("small", "small-quickgelu"):
            monkeypatch.setitem(open_clip.pretrained._PRETRAINED, name, tags)
        encoder = OpenCLIPEncoder("small", "published")
        activation = encoder._model().module.transformer.resblocks[0].mlp.gelu
        assert isinstance(activation, open_clip.transformer.QuickGELU) == quick
        if quick:
            assert encoder.fingerprint == OpenCLIPEncoder("small-quickgelu", "published").fingerprint

    def test_names_that_open_clip_does_not_know(self):
        with pytest.raises(ValueError, match=r"model_name='ViT-B32': open_clip knows none of that name.*'ViT-B-32'"):
            OpenCLIPEncoder("ViT-B32", "openai").transform({"text": ["a"]})
        with pytest.raises(
            ValueError, match=r"pretrained='laion2b': .* for 'ViT-B-32', nor is it a file.*'laion2b_s34b_b79k'"
        ):
            OpenCLIPEncoder("ViT-B-32", "laion2b").transform({"text": ["a"]})
        with pytest.raises(ValueError, match="model_name='ViT-B-32' needs pretrained weights, one of 'openai'"):
            OpenCLIPEncoder("ViT-B-32").transform({"text": ["a"]})
        with pytest.raises(ValueError, match="pretrained='openai' is not used"):
            OpenCLIPEncoder("toy", "openai").transform({"text": ["a"]})
        with pytest.raises(FileNotFoundError, match="no such folder"):
            OpenCLIPEncoder("local-dir:/no/such").transform({"text": ["a"]})

    @pytest.mark.parametrize("names", [("ViT-B-32", "laion2b_s34b_b79k"), ("hf-hub:no/such-model", None)])
    @pytest.mark.parametrize("hub", ["offline", "refused", "unavailable"])
    def test_a_hub_name_without_network_and_cache_is_one_error(self, names, hub, tmp_path, unavailable):
        code = (
            "import time, open_clip; from grclip.encoders import OpenCLIPEncoder\n"
            f"start = time.monotonic()\ntry: OpenCLIPEncoder{names!r}.transform({{'text': ['a']}})\n"
            "except OSError as error: print(error)\n"
            "print('after', int(time.monotonic() - start))"
        )
        environment = os.environ | {
            "HF_HUB_OFFLINE": str(int(hub == "offline")),
            "HF_HOME": str(tmp_path),
            "HF_ENDPOINT": unavailable.url if hub == "unavailable" else "http://127.0.0.1:9",
        }
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        assert done.stdout.startswith(f"cannot load {names[0]}")
        assert "copy the model's folder here and give its path" in done.stdout
        assert done.stderr == ""
        assert int(done.stdout.split()[-1]) < 5


class TestPipeline:
    def test_from_raw_scenes_to_ndcg_under_a_grid_search(self):
        task, qrels = make_scenes(60, random_state=0)
        mixed = SearchTask(task.queries, mix_kinds(task.corpus, random_state=0))
        pipe = Pipeline(
            [
                ("encode", toy_encoder()),
                ("degap", ModalityGapRemover()),
                ("fuse", MultimodalFuser()),
                ("search", ExactRetriever(k=10)),
            ]
        )
        grid = GridSearchCV(pipe, {"fuse__alpha": [0.2, 0.5, 0.8]}, scoring=retrieval_scorer("ndcg", k=10), cv=3)
        grid.fit(mixed, qrels)
        assert grid.best_score_ > 0.7
        rows = grid.predict(Items({"query": mixed.queries["query"][:3]}))
        assert rows.shape == (3, 10)
        assert np.isfinite(grid.cv_results_["mean_test_score"]).all()
        copy = pickle.loads(pickle.dumps(grid.best_estimator_))
        assert np.array_equal(copy.predict(Items({"query": mixed.queries["query"][:3]})), rows)

    def test_another_encoder_is_refused_after_fitting(self, encoder, checkpoint, scenes):
        remover = ModalityGapRemover().fit(encoder.transform(scenes))
        other = OpenCLIPEncoder(f"local-dir:{checkpoint}").transform(Items({"query": ["red"]}))
        with pytest.raises(ValueError, match="fitted on vectors of encoder"):
            remover.transform(other)


def test_a_spawned_worker_gets_no_weights(encoder):
    model = encoder._model()
    batches = _batches.Batches(model, _batches.Task("text", None), ["a red circle"], 0, 1)
    copy = pickle.loads(pickle.dumps(batches))
    assert torch.equal(copy[0].inputs, batches[0].inputs)
    assert len(pickle.dumps(batches)) < 400_000
