"""TransformersEncoder against the library itself, on small random checkpoints of every family."""

import json
import os
import pickle
import shutil
import sys
import wave

import av
import huggingface_hub
import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from scipy.signal import resample_poly
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from grclip import Items
from grclip.encoders import _batches
from grclip.encoders.transformers import TransformersEncoder, TransformersModel

TEXTS = ["a photo of two cats", "a red bicycle", "the sea"]
LONG = "a photo of two cats in the sea , a red bicycle and a dog outside the sea ."
WORDS = sorted({word for text in [*TEXTS, LONG, "2 e g query : passage"] for word in text.split()})
LAYERS = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = LAYERS | {"vocab_size": len(WORDS) + 4, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
VISION = LAYERS | {"image_size": 32, "patch_size": 8}
POSITIONS = 12
SQUARE = {"height": 32, "width": 32}


def make_tokenizer(**options):
    """One token a word, in sentence marks; the library's idea of no limit unless model_max_length is given."""
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = [("<s>", 1), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=marks)
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special, **options)


def make_clip():
    text, tokenizer = TEXT | {"max_position_embeddings": POSITIONS}, make_tokenizer(model_max_length=POSITIONS)
    config = transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SQUARE)
    return transformers.CLIPModel(config), transformers.CLIPProcessor(images, tokenizer)


def make_siglip():
    text = TEXT | {"max_position_embeddings": POSITIONS}
    config = transformers.SiglipConfig(
        text_config=text, vision_config=VISION, bos_token_id=1, eos_token_id=2, pad_token_id=0
    )
    tokenizer = make_tokenizer(model_input_names=["input_ids"])
    return transformers.SiglipModel(config), transformers.SiglipProcessor(
        transformers.SiglipImageProcessor(size=SQUARE), tokenizer
    )


def make_siglip2():
    vision = LAYERS | {"num_patches": 256, "patch_size": 16}
    text = TEXT | {"max_position_embeddings": 64}
    config = transformers.Siglip2Config(text_config=text, vision_config=vision)
    tokenizer = make_tokenizer(model_input_names=["input_ids"])
    return transformers.Siglip2Model(config), transformers.Siglip2Processor(
        transformers.Siglip2ImageProcessor(), tokenizer
    )


def make_altclip():
    text = TEXT | {"max_position_embeddings": POSITIONS, "project_dim": 16}
    config = transformers.AltCLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SQUARE)
    return transformers.AltCLIPModel(config), transformers.AltCLIPProcessor(images, make_tokenizer())


def make_chinese_clip():
    text = TEXT | {"max_position_embeddings": POSITIONS}
    config = transformers.ChineseCLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)
    images = transformers.ChineseCLIPImageProcessor(size=SQUARE, crop_size=SQUARE)
    return transformers.ChineseCLIPModel(config), transformers.ChineseCLIPProcessor(images, make_tokenizer())


def make_clap(truncation="rand_trunc"):
    text = TEXT | {"max_position_embeddings": POSITIONS, "projection_dim": 16}
    audio = {
        "window_size": 2, "num_mel_bins": 64, "spec_size": 64, "patch_size": 4, "patch_stride": [4, 4],
        "depths": [1, 1], "hidden_size": 32, "num_attention_heads": [1, 2], "patch_embeds_hidden_size": 16,
        "num_hidden_layers": 2, "projection_dim": 16, "enable_fusion": truncation == "fusion",
    }  # fmt: skip
    config = transformers.ClapConfig(text_config=text, audio_config=audio, projection_dim=16)
    features = transformers.ClapFeatureExtractor(
        feature_size=64, sampling_rate=8000, hop_length=160, max_length_s=1, fft_window_size=256, frequency_max=4000,
        truncation=truncation,
    )  # fmt: skip
    return transformers.ClapModel(config), transformers.ClapProcessor(features, make_tokenizer())


def make_clap_fused():
    return make_clap("fusion")


def make_xclip():
    text = TEXT | {"max_position_embeddings": POSITIONS}
    vision = VISION | {
        "num_frames": 4, "mit_hidden_size": 16, "mit_intermediate_size": 16, "mit_num_hidden_layers": 1,
        "mit_num_attention_heads": 2,
    }  # fmt: skip
    config = transformers.XCLIPConfig(
        text_config=text, vision_config=vision, projection_dim=16, prompt_num_attention_heads=2
    )
    images = transformers.VideoMAEImageProcessor(size={"shortest_edge": 32}, crop_size=SQUARE)
    return transformers.XCLIPModel(config), transformers.XCLIPProcessor(images, make_tokenizer())


def make_videoprism():
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "num_frames": 4, "image_size": 36}
    layers = {"num_spatial_layers": 1, "num_temporal_layers": 1, "num_auxiliary_layers": 1}
    config = transformers.VideoPrismConfig(text_config=TEXT, vision_config=vision | layers)
    videos = transformers.LlavaOnevisionVideoProcessor(size={"height": 36, "width": 36})
    return transformers.VideoPrismClipModel(config), transformers.VideoPrismProcessor(videos, make_tokenizer())


FAMILIES = {
    "clip": make_clip, "siglip": make_siglip, "siglip2": make_siglip2, "altclip": make_altclip,
    "chinese_clip": make_chinese_clip, "clap": make_clap, "clap_fused": make_clap_fused, "xclip": make_xclip,
    "videoprism": make_videoprism,
}  # fmt: skip


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """The folder of a family's checkpoint, written when it is first asked for."""
    root = tmp_path_factory.mktemp("transformers")

    def written(family):
        if not (root / family).exists():
            torch.manual_seed(0)
            for part in FAMILIES[family]():
                part.save_pretrained(root / family)
        return str(root / family)

    return written


@pytest.fixture(scope="session")
def pictures():
    rng = np.random.default_rng(0)
    sizes = [(32, 32), (40, 60), (64, 48)]
    return [PIL.Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)) for size in sizes]


@pytest.fixture(scope="session")
def clips():
    rng = np.random.default_rng(1)
    return [rng.integers(0, 255, (n, 40, 48, 3), dtype=np.uint8) for n in (4, 9)]


@pytest.fixture(scope="session")
def sounds():
    rng = np.random.default_rng(2)
    return [rng.normal(scale=0.1, size=n).astype(np.float32) for n in (3000, 8000)]


def directly(folder, method, inputs):
    """The slow and obvious way: each item by itself, given as the processor made it."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    vectors = []
    with torch.no_grad():
        for one in inputs:
            found = getattr(model, method)(**one)
            vectors.append(getattr(found, "pooler_output", found)[0].flatten())
    return np.stack([(vector / vector.norm()).numpy() for vector in vectors])


def processed(folder, drop=(), **values):
    """Each item by itself through the checkpoint's own processor."""
    processor = transformers.AutoProcessor.from_pretrained(folder)
    ((name, items),) = [(name, items) for name, items in values.items() if isinstance(items, list)]
    options = {key: value for key, value in values.items() if key != name}
    made = [processor(**{name: [item]}, **options, return_tensors="pt") for item in items]
    return [{key: value for key, value in one.items() if key not in drop} for one in made]


def cache(folder, name, root):
    """A cache of the hub that holds a folder under a name."""
    model, commit = root / f"models--{name.replace('/', '--')}", "0" * 40
    shutil.copytree(folder, model / "snapshots" / commit)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    return root


def close(found, expected):
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-5


class TestVectors:
    @pytest.mark.parametrize(
        "family", ["clip", "siglip", "siglip2", "altclip", "chinese_clip", "clap", "xclip", "videoprism"]
    )
    def test_texts_are_those_of_the_library(self, family, checkpoint):
        folder = checkpoint(family)
        padding = {"siglip": {"padding": "max_length", "max_length": POSITIONS}}  # the others' processors pad unasked
        inputs = processed(folder, drop=("token_type_ids",), text=TEXTS, **padding.get(family, {}))
        found = TransformersEncoder(folder).transform({"text": TEXTS})["text"]
        close(found, directly(folder, "get_text_features", inputs))

    @pytest.mark.parametrize("family", ["clip", "siglip", "siglip2", "altclip", "chinese_clip"])
    def test_pictures_are_those_of_the_library(self, family, checkpoint, pictures):
        folder = checkpoint(family)
        found = TransformersEncoder(folder, batch_size=2).transform({"image": pictures})["image"]
        close(found, directly(folder, "get_image_features", processed(folder, images=pictures)))

    @pytest.mark.parametrize("family", ["clap", "clap_fused"])
    def test_sounds_are_those_of_the_library(self, family, checkpoint, sounds):
        folder = checkpoint(family)
        found = TransformersEncoder(folder).transform({"audio": [(sound, 8000) for sound in sounds]})["audio"]
        inputs = processed(folder, audio=sounds, sampling_rate=8000)
        close(found, directly(folder, "get_audio_features", inputs))

    @pytest.mark.parametrize("family", ["xclip", "videoprism"])
    def test_videos_are_those_of_the_library(self, family, checkpoint, clips):
        folder = checkpoint(family)
        found = TransformersEncoder(folder).transform({"video": clips})["video"]
        spaced = [list(clips[0]), [clips[1][i] for i in (0, 3, 5, 8)]]
        close(found, directly(folder, "get_video_features", processed(folder, videos=spaced)))

    @pytest.mark.parametrize("family", ["siglip", "siglip2"])
    def test_the_padding_of_siglip_counts(self, family, checkpoint):
        folder = checkpoint(family)
        unpadded = processed(folder, drop=("token_type_ids",), text=TEXTS, padding=True)
        found = TransformersEncoder(folder).transform({"text": TEXTS})["text"]
        assert np.abs(found - directly(folder, "get_text_features", unpadded)).max() > 1e-3

    def test_a_batch_pads_nothing_into_its_shorter_texts(self, checkpoint):
        encoder = TransformersEncoder(checkpoint("clip"))
        close(encoder.transform({"text": [*TEXTS, LONG[:30]]})["text"][:3], encoder.transform({"text": TEXTS})["text"])

    def test_weights_of_half_precision_are_computed_with_in_full(self, checkpoint, tmp_path):
        model, processor = make_clip()
        model.half().save_pretrained(tmp_path)
        processor.save_pretrained(tmp_path)
        found = TransformersEncoder(str(tmp_path)).transform({"text": TEXTS})["text"]
        model.float().save_pretrained(tmp_path)
        inputs = processed(tmp_path, drop=("token_type_ids",), text=TEXTS)
        close(found, directly(tmp_path, "get_text_features", inputs))

    def test_pictures_may_come_prepared(self, checkpoint, pictures):
        folder = checkpoint("clip")
        encoder = TransformersEncoder(folder)
        ready = [one["pixel_values"][0] for one in processed(folder, images=pictures)]
        mixed = encoder.transform({"image": [ready[0], pictures[1], ready[2]]})["image"]
        close(mixed, encoder.transform({"image": pictures})["image"])
        close(encoder.transform({"image": ready})["image"], mixed)


class TestSound:
    def test_it_is_resampled(self, checkpoint, sounds):
        folder = checkpoint("clap")
        twice = resample_poly(sounds[0], 2, 1).astype(np.float32)
        found = TransformersEncoder(folder).transform({"audio": [(twice, 16_000)]})["audio"]
        expected = processed(folder, audio=[resample_poly(twice, 1, 2).astype(np.float32)], sampling_rate=8000)
        close(found, directly(folder, "get_audio_features", expected))

    def test_a_file_gives_what_its_samples_give(self, checkpoint, sounds, tmp_path):
        samples = (np.clip(sounds[0], -1, 1) * 32767).astype(np.int16)
        with wave.open(str(tmp_path / "dog.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes(samples.tobytes())
        found = TransformersEncoder(checkpoint("clap")).transform(
            {"audio": [tmp_path / "dog.wav", (samples, 16_000), None]}
        )["audio"]
        close(found[0], found[1])
        assert np.isnan(found[2]).all()

    @pytest.mark.parametrize("family", ["clap", "clap_fused"])
    def test_long_and_short_sounds_do_not_depend_on_chance_or_neighbours(self, family, checkpoint, rng):
        encoder = TransformersEncoder(checkpoint(family))
        sounds = [(rng.normal(scale=0.1, size=n), 8000) for n in (30_000, 5000, 20_000)]
        before = np.random.get_state()[1].tolist()  # noqa: NPY002
        together = encoder.transform({"audio": sounds})["audio"]
        assert np.random.get_state()[1].tolist() == before, "nor do they draw from the user's dice"  # noqa: NPY002
        np.random.seed(5)  # noqa: NPY002
        close(np.concatenate([encoder.transform({"audio": [sound]})["audio"] for sound in sounds]), together)


class TestVideo:
    def test_a_file_gives_what_its_frames_give(self, checkpoint, clips, tmp_path):
        path = tmp_path / "cats.mkv"
        with av.open(path, "w") as container:
            stream = container.add_stream("ffv1", rate=5)  # lossless
            stream.width, stream.height, stream.pix_fmt = 48, 40, "bgr0"
            for frame in clips[1]:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        encoder = TransformersEncoder(checkpoint("xclip"))
        found = encoder.transform({"video": [path, clips[1], [PIL.Image.fromarray(frame) for frame in clips[1]]]})
        close(found["video"][[0, 0]], found["video"][1:])


class TestParts:
    def test_missing_parts_are_nan_and_duplicates_are_encoded_once(self, checkpoint, pictures, monkeypatch):
        given = []
        prepare = TransformersModel.prepare

        def counted(self, modality, values, prompt):
            given.extend(values)
            return prepare(self, modality, values, prompt)

        encoder = TransformersEncoder(checkpoint("clip"), batch_size=2)
        encoder._model()
        monkeypatch.setattr(TransformersModel, "prepare", counted)
        items = Items({"text": ["sea", None, "cats", "sea"], "title": ["cats", "sea", None, None], "image": [
            pictures[0], None, pictures[0], None
        ]})  # fmt: skip
        found = encoder.transform(items)
        assert given == ["sea", "cats", pictures[0]]
        assert np.isnan(found["text"]).all(axis=1).tolist() == [False, True, False, False]
        assert np.isnan(found["image"]).all(axis=1).tolist() == [False, True, False, True]
        assert np.array_equal(found["text"][[0, 2]], found["title"][[1, 0]])
        assert found.encoder == encoder.fingerprint

    @pytest.mark.parametrize("family", ["clip", "siglip", "altclip", "chinese_clip", "clap", "xclip"])
    def test_longer_texts_are_cut_with_a_warning(self, family, checkpoint):
        encoder = TransformersEncoder(checkpoint(family))
        limit = POSITIONS - 1 if family in ("altclip", "clap") else POSITIONS  # RoBERTa's padding takes a position
        with pytest.warns(UserWarning, match=rf"longer than the {limit} tokens .*\('text' row 1\)"):
            found = encoder.transform({"text": [" ".join(["cats"] * (limit - 2)), " ".join(["cats"] * (limit + 9))]})
        close(found["text"][0], found["text"][1])

    @pytest.mark.parametrize(
        ("family", "role", "has"),
        [
            ("clip", "audio", "text and image"),
            ("clap", "image", "text and audio"),
            ("xclip", "image", "text and video"),
        ],
    )
    def test_what_a_model_lacks_is_an_error(self, family, role, has, checkpoint, pictures):
        with pytest.raises(ValueError, match=f"transformers:local encodes {has} only"):
            TransformersEncoder(checkpoint(family)).transform({role: pictures})


class TestCheckpoints:
    def test_pickles_leave_the_weights_out(self, checkpoint, pictures):
        encoder = TransformersEncoder(checkpoint("clip"))
        items = {"text": TEXTS, "image": pictures}
        found = encoder.transform(items)
        pickled = pickle.dumps(encoder)
        assert len(pickled) < 1000
        close(pickle.loads(pickled).transform(items)["image"], found["image"])

    @pytest.mark.parametrize("family", FAMILIES)
    def test_a_worker_prepares_alike_without_the_weights(self, family, checkpoint, pictures, clips, sounds):
        model = TransformersEncoder(checkpoint(family))._model()
        copy = pickle.loads(pickle.dumps(model))
        assert not hasattr(copy, "module")
        values = {"text": TEXTS, "image": pictures, "audio": [(sound, 8000) for sound in sounds], "video": clips}
        for modality in model.modalities:
            task = _batches.Task(modality, None)
            ours, theirs = (_batches.Batches(one, task, values[modality], 0, 4)[0].inputs for one in (model, copy))
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    def test_the_fingerprint_goes_with_the_contents(self, checkpoint, tmp_path):
        folder = checkpoint("clip")
        first = TransformersEncoder(folder)
        model, processor = (
            kind.from_pretrained(folder) for kind in (transformers.CLIPModel, transformers.CLIPProcessor)
        )
        for part in (model, processor):
            part.save_pretrained(tmp_path / "again")
        assert TransformersEncoder(str(tmp_path / "again")).fingerprint == first.fingerprint
        assert first.fingerprint.startswith("transformers@")
        for secret in (folder, "0x"):
            assert secret not in first._model().preprocessing
        model.text_projection.weight.data += 1e-4
        for part in (model, processor):
            part.save_pretrained(tmp_path / "trained")
        processor.image_processor.image_mean = [0.5, 0.5, 0.5]
        for part in (transformers.CLIPModel.from_pretrained(folder), processor):
            part.save_pretrained(tmp_path / "otherwise")
        shaped = transformers.CLIPModel.from_pretrained(folder)
        shaped.config.text_config.hidden_act = "relu"
        for part in (shaped, transformers.CLIPProcessor.from_pretrained(folder)):
            part.save_pretrained(tmp_path / "shaped")
        names = ("again", "trained", "otherwise", "shaped")
        assert len({TransformersEncoder(str(tmp_path / name)).fingerprint for name in names}) == 4

    def test_a_name_is_looked_up_in_the_cache(self, checkpoint, tmp_path, monkeypatch):
        cached = cache(checkpoint("clip"), "owner/tiny", tmp_path)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cached))
        by_name, by_path = (TransformersEncoder(name) for name in ("owner/tiny", checkpoint("clip")))
        close(by_name.transform({"text": TEXTS})["text"], by_path.transform({"text": TEXTS})["text"])
        assert by_name.fingerprint == by_path.fingerprint

    def test_a_name_out_of_reach_is_one_clear_error(self):
        with pytest.raises(OSError, match=r"cannot load owner/absent: not all of it is on this machine"):
            TransformersEncoder("owner/absent").transform({"text": TEXTS})

    @pytest.mark.parametrize("name", ["/no/such/folder", "./folder", "a/b/c"])
    def test_a_folder_that_is_not_there_is_an_error(self, name):
        with pytest.raises(FileNotFoundError, match="no such folder"):
            TransformersEncoder(name).transform({"text": TEXTS})

    def test_a_model_that_is_no_dual_encoder_is_an_error(self, tmp_path):
        config = transformers.BertConfig(**TEXT, max_position_embeddings=POSITIONS)
        transformers.BertModel(config).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="is a BertModel, which has no get_text_features"):
            TransformersEncoder(str(tmp_path)).transform({"text": TEXTS})

    def test_a_model_that_gives_more_than_a_vector_is_an_error(self, checkpoint, monkeypatch):
        encoder = TransformersEncoder(checkpoint("clip"))
        monkeypatch.setattr(encoder._model().module, "get_text_features", lambda **inputs: torch.zeros(3, 5, 16))
        with pytest.raises(
            ValueError, match=r"transformers:local gives \[3, 5, 16\] for text values, not a vector each"
        ):
            encoder.transform({"text": TEXTS})


CODE = """
import os

import torch
from transformers import PretrainedConfig, PreTrainedModel


class TinyConfig(PretrainedConfig):
    model_type = "tiny_viclip"

    def __init__(self, vocab_size=30, hidden_size=16, num_frames=3, **options):
        super().__init__(**options)
        os.environ["TINY_CODE_RAN"] = "yes"
        self.vocab_size, self.hidden_size, self.num_frames = vocab_size, hidden_size, num_frames


class TinyModel(PreTrainedModel):
    config_class = TinyConfig

    def __init__(self, config):
        super().__init__(config)
        self.words = torch.nn.Embedding(config.vocab_size, config.hidden_size)
        self.pixels = torch.nn.Linear(3 * config.num_frames, config.hidden_size)
        self.post_init()

    def get_text_features(self, input_ids):
        return self.words(input_ids).sum(dim=1)

    def get_video_features(self, pixel_values):
        return self.pixels(pixel_values.mean(dim=(3, 4)).flatten(1))
"""


@pytest.fixture(scope="module")
def viclip(tmp_path_factory):
    """A dual encoder for videos whose code lies in its folder, as that of ViCLIP does."""
    folder = tmp_path_factory.mktemp("viclip")
    with pytest.MonkeyPatch.context() as patch:
        modules = str(tmp_path_factory.mktemp("modules"))  # where the library copies the code to
        patch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", modules)
        patch.setattr(sys, "path", [*sys.path])
        (folder / "tiny.py").write_text(CODE)
        auto_map = {"AutoConfig": "tiny.TinyConfig", "AutoModel": "tiny.TinyModel"}
        (folder / "config.json").write_text(json.dumps({"model_type": "tiny_viclip", "auto_map": auto_map}))
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True)
        torch.manual_seed(0)
        transformers.AutoModel.from_config(config, trust_remote_code=True).save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
        transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SQUARE).save_pretrained(folder)
        yield str(folder)


class TestRemoteCode:
    def test_it_is_refused_unless_asked_for(self, viclip, monkeypatch):
        monkeypatch.delenv("TINY_CODE_RAN", raising=False)
        with pytest.raises(ValueError, match="trust_remote_code=True"):
            TransformersEncoder(viclip).transform({"text": TEXTS})
        assert "TINY_CODE_RAN" not in os.environ

    def test_it_runs_where_it_is_trusted(self, viclip, clips):
        encoder = TransformersEncoder(viclip, trust_remote_code=True)
        found = encoder.transform({"text": TEXTS, "video": clips})
        model = encoder._model()
        assert (model.modalities, model.n_frames) == (("text", "video"), 3)
        images = transformers.CLIPImageProcessor.from_pretrained(viclip)
        frames = images(list(clips[0][[0, 2, 3]]), return_tensors="pt")["pixel_values"]
        expected = model.module.get_video_features(frames[None])[0]
        close(found["video"][0], (expected / expected.norm()).numpy())
        expected = model.module.get_text_features(make_tokenizer()(TEXTS[:1], return_tensors="pt")["input_ids"])[0]
        close(found["text"][0], (expected / expected.norm()).numpy())
