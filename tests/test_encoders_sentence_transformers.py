"""SentenceTransformerEncoder against the library itself, on small random models of texts, and of texts and pictures."""

import os
import pickle
import shutil

import huggingface_hub
import numpy as np
import PIL.Image
import pytest
import sentence_transformers
import torch
import transformers
from sentence_transformers.base.modality import infer_modality
from sentence_transformers.sentence_transformer.modules import Pooling, Router, StaticEmbedding, Transformer
from test_encoders_transformers import (
    LONG,
    POSITIONS,
    TEXT,
    TEXTS,
    cache,
    clips,
    close,
    directly,
    make_clap,
    make_clip,
    make_tokenizer,
    pictures,
    processed,
    viclip,
)

from grclip import Items
from grclip.encoders import _batches
from grclip.encoders._media import open_video
from grclip.encoders.sentence_transformers import Instruction, SentenceTransformerEncoder, SentenceTransformersModel

__all__ = ["clips", "pictures", "viclip"]  # fixtures

PROMPTS = {"query": "query : ", "document": "passage : "}


def load(folder):
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu")


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def save(folder, *modules, **options):
    model = sentence_transformers.SentenceTransformer(modules=list(modules), device="cpu", **options)
    model.save(str(folder), create_model_card=False)
    return str(folder)


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    """The folder of a small BERT with its tokenizer, as transformers writes it."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    transformers.BertModel(transformers.BertConfig(**TEXT, max_position_embeddings=POSITIONS)).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def text_model(bert, tmp_path_factory):
    """A model of texts alone, with prompts for queries and documents."""
    return save(tmp_path_factory.mktemp("texts"), Transformer(bert), Pooling(32, "mean"), prompts=PROMPTS)


@pytest.fixture(scope="session")
def clip_model(tmp_path_factory):
    """A model of texts and pictures."""
    torch.manual_seed(0)
    for part in make_clip():
        part.save_pretrained(tmp_path_factory.getbasetemp() / "st_clip")
    return save(tmp_path_factory.mktemp("clip"), Transformer(str(tmp_path_factory.getbasetemp() / "st_clip")))


CHAT = """{% for message in messages %}<|im_start|>{% for part in message['content'] %}
{% if part['type'] == 'text' %}{{ part['text'] }}
{% else %}<|vision_start|><|{{ part['type'] }}_pad|><|vision_end|>
{% endif %}{% endfor %}<|im_end|>{% endfor %}"""


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory):
    """A vision-language model, which takes everything as a message: texts, pictures and videos."""
    root = tmp_path_factory.mktemp("chat")
    tokenizer = make_tokenizer(model_max_length=100)
    marks = [f"<|{name}|>" for name in ("im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad")]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    tokenizer.image_token, tokenizer.video_token = marks[4:]
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    text = TEXT | {"vocab_size": len(tokenizer), "num_key_value_heads": 2, "rope_parameters": rope}
    config = transformers.Qwen2VLConfig(
        text_config=text,
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2},
        **dict(zip(names, tokenizer.convert_tokens_to_ids(marks[2:]), strict=True)),
    )
    pixels = {"min_pixels": 28 * 28, "max_pixels": 28 * 28 * 4}
    images = transformers.Qwen2VLImageProcessor(**pixels)
    videos = transformers.Qwen2VLVideoProcessor(**pixels, cap_pixels_per_frame=False)
    torch.manual_seed(0)
    transformers.Qwen2VLModel(config).save_pretrained(root / "qwen")
    transformers.Qwen2VLProcessor(images, tokenizer, videos, chat_template=CHAT).save_pretrained(root / "qwen")
    return save(root / "model", Transformer(str(root / "qwen")), Pooling(32, "lasttoken"), prompts=PROMPTS)


class TestVectors:
    def test_they_are_those_of_bert_step_by_step(self, bert, tmp_path):
        folder = save(tmp_path, Transformer(bert), Pooling(32, "mean"))
        model, tokenizer = transformers.BertModel.from_pretrained(bert).eval(), make_tokenizer()
        with torch.no_grad():
            expected = [model(**tokenizer(text, return_tensors="pt"))[0][0].mean(dim=0).numpy() for text in TEXTS]
        found = SentenceTransformerEncoder(folder, batch_size=2).transform({"text": TEXTS})["text"]
        close(found, unit(np.stack(expected)))

    def test_roles_are_queries_or_documents(self, text_model):
        roles = dict.fromkeys(["query", "query_text", "text", "title"], TEXTS)
        found = SentenceTransformerEncoder(text_model).transform(roles)
        model = load(text_model)
        for role in ("query", "query_text"):
            close(found[role], unit(model.encode_query(TEXTS)))
        for role in ("text", "title"):
            close(found[role], unit(model.encode_document(TEXTS)))
        assert np.abs(found["query"] - found["text"]).max() > 1e-3

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"prompts": {"query": "query : "}},
            {"prompts": {"passage": "passage : "}},
            {"prompts": {"other": "passage : "}, "default_prompt_name": "other"},
            {"truncate_dim": 8},
        ],
    )
    def test_prompts_are_chosen_as_the_library_chooses(self, options, bert, tmp_path):
        folder = save(tmp_path, Transformer(bert), Pooling(32, "mean"), **options)
        found = SentenceTransformerEncoder(folder).transform({"query": TEXTS, "text": TEXTS})
        model = load(folder)
        close(found["query"], unit(model.encode_query(TEXTS)))
        close(found["text"], unit(model.encode_document(TEXTS)))

    def test_prompts_may_be_given_for_each_role(self, text_model):
        prompts = {"query": "a photo of ", "title": ""}
        found = SentenceTransformerEncoder(text_model, prompts=prompts).transform(
            {"query": TEXTS, "title": TEXTS, "text": TEXTS}
        )
        model = load(text_model)
        close(found["query"], unit(model.encode_query([f"a photo of {text}" for text in TEXTS], prompt="")))
        close(found["title"], unit(model.encode_document(TEXTS, prompt="")))
        close(found["text"], unit(model.encode_document(TEXTS)))

    def test_prompts_are_left_out_of_the_mean_where_the_model_says_so(self, bert, tmp_path):
        folder = save(tmp_path, Transformer(bert), Pooling(32, "mean", include_prompt=False), prompts=PROMPTS)
        found = SentenceTransformerEncoder(folder).transform({"query": TEXTS})["query"]
        model = load(folder)
        close(found, unit(model.encode_query(TEXTS)))
        model.set_pooling_include_prompt(True)
        assert np.abs(found - unit(model.encode_query(TEXTS))).max() > 1e-3

    def test_queries_and_documents_may_take_different_routes(self, bert, tmp_path):
        torch.manual_seed(1)
        quick = StaticEmbedding(make_tokenizer(), embedding_dim=32)
        router = Router.for_query_document([quick], [Transformer(bert), Pooling(32, "cls")])
        folder = save(tmp_path, router)
        found = SentenceTransformerEncoder(folder).transform({"query": TEXTS, "text": TEXTS})
        model = load(folder)
        close(found["query"], unit(model.encode_query(TEXTS)))
        close(found["text"], unit(model.encode_document(TEXTS)))

    def test_pictures_are_those_of_the_library(self, clip_model, pictures):
        found = SentenceTransformerEncoder(clip_model, batch_size=2).transform({"text": TEXTS, "image": pictures})
        model = load(clip_model)
        close(found["text"], unit(model.encode_document(TEXTS)))
        close(found["image"], unit(np.stack([model.encode_document(picture) for picture in pictures])))

    def test_messages_are_those_of_the_library(self, chat_model, pictures, clips):
        """Vision-language models are told as a query or as a document of pictures, too."""
        parts = {"query": TEXTS, "text": TEXTS, "query_image": pictures, "image": pictures, "video": clips}
        found = SentenceTransformerEncoder(chat_model).transform(parts)
        model = load(chat_model)
        for role, values in parts.items():
            encode = model.encode_query if role.startswith("query") else model.encode_document
            if role == "video":
                values = [open_video(clip, 8) for clip in clips]
            close(found[role], unit(np.stack([encode(value) for value in values])))
        assert np.abs(found["image"] - found["query_image"]).max() > 1e-3

    def test_sounds_are_those_of_the_library(self, tmp_path, rng):
        torch.manual_seed(0)
        for part in make_clap():
            part.save_pretrained(tmp_path / "clap")
        folder = save(tmp_path / "model", Transformer(str(tmp_path / "clap")))
        sounds = [rng.normal(scale=0.1, size=n).astype(np.float32) for n in (3000, 8000)]
        found = SentenceTransformerEncoder(folder).transform({"audio": [(sound, 8000) for sound in sounds]})["audio"]
        expected = load(folder).encode([{"array": sound, "sampling_rate": 8000} for sound in sounds])
        close(found, unit(expected))


class TestModality:
    def test_messages_too_hold_texts_as_texts(self, chat_model, pictures, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        encoder = SentenceTransformerEncoder(chat_model)
        before = encoder.transform({"text": ["holiday.jpg"]})["text"]
        pictures[0].save("holiday.jpg")
        close(encoder.transform({"text": ["holiday.jpg"]})["text"], before)

    def test_a_text_is_a_text_though_a_file_has_its_name(self, clip_model, pictures, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        encoder = SentenceTransformerEncoder(clip_model)
        names = ["holiday.jpg", "https://a/sea.jpg", "data:image/png;base64,in"]
        before = encoder.transform({"text": names})["text"]
        pictures[0].save("holiday.jpg")
        after = encoder.transform({"text": names, "image": names[:1]})
        model = load(clip_model)
        assert infer_modality("holiday.jpg") == "image", "what is prevented here"
        close(after["text"], before)
        close(after["text"], directly(clip_model, "get_text_features", processed(clip_model, text=names)))
        close(after["image"], unit(model.encode([PIL.Image.open("holiday.jpg")])))
        assert np.abs(after["text"][0] - after["image"][0]).max() > 1e-3

    def test_a_picture_for_a_model_of_texts_is_an_error(self, text_model, pictures):
        with pytest.raises(
            ValueError, match="role 'image' is image, but sentence_transformers:local encodes text only"
        ):
            SentenceTransformerEncoder(text_model).transform({"text": TEXTS, "image": pictures})

    def test_a_prepared_picture_is_an_error(self, clip_model):
        with pytest.raises(TypeError, match=r"role 'image', row 1: expected a picture.*; got a tensor"):
            SentenceTransformerEncoder(clip_model).transform({"image": [None, torch.zeros(3, 32, 32)]})


class TestParts:
    def test_missing_parts_are_nan_and_duplicates_are_encoded_once(self, clip_model, pictures, monkeypatch):
        given = []
        prepare = SentenceTransformersModel.prepare

        def counted(self, modality, values, prompt):
            given.append((modality, prompt.task, list(values)))
            return prepare(self, modality, values, prompt)

        encoder = SentenceTransformerEncoder(clip_model)
        encoder._model()
        monkeypatch.setattr(SentenceTransformersModel, "prepare", counted)
        parts = {
            "query": ["the sea"],
            "text": ["the sea", None, "cats", "cats"],
            "title": ["cats"],
            "image": [None] * 2,
        }
        found = encoder.transform(parts | {"cover": [pictures[0]] * 2})
        assert given == [
            ("text", "query", ["the sea"]),
            ("text", "document", ["the sea", "cats"]),
            ("image", "document", [pictures[0]]),
        ]
        assert np.isnan(found["text"]).all(axis=1).tolist() == [False, True, False, False]
        assert np.isnan(found["image"]).all()
        assert np.array_equal(found["text"][2], found["title"][0])

    def test_longer_texts_are_cut_with_a_warning(self, text_model):
        encoder = SentenceTransformerEncoder(text_model, prompts={"text": ""})
        with pytest.warns(UserWarning, match=rf"longer than the {POSITIONS} tokens .*\('text' row 1\)"):
            found = encoder.transform({"text": ["cats " * (POSITIONS - 2), LONG]})["text"]
        close(found, unit(load(text_model).encode(["cats " * (POSITIONS - 2), LONG], prompt="")))

    def test_models_without_a_limit_cut_nothing(self, tmp_path):
        folder = save(tmp_path, StaticEmbedding(make_tokenizer(), embedding_dim=16))
        encoder = SentenceTransformerEncoder(folder)
        close(encoder.transform({"text": [LONG * 9]})["text"], unit(load(folder).encode([LONG * 9])))
        assert encoder._model().max_tokens is None


class TestCheckpoints:
    def test_pickles_leave_the_weights_out(self, text_model):
        encoder = SentenceTransformerEncoder(text_model, prompts={"text": "a photo of "})
        found = encoder.transform({"text": TEXTS})["text"]
        pickled = pickle.dumps(encoder)
        assert len(pickled) < 1000
        close(pickle.loads(pickled).transform({"text": TEXTS})["text"], found)

    @pytest.mark.parametrize("kind", ["text_model", "clip_model", "chat_model"])
    def test_a_worker_prepares_alike_without_the_weights(self, kind, request, pictures, clips):
        model = SentenceTransformerEncoder(request.getfixturevalue(kind))._model()
        model.module[0].model.register_buffer("ballast", torch.ones(1_000_000), persistent=False)
        pickled = pickle.dumps(model)
        del model.module[0].model.ballast
        assert len(pickled) < 500_000
        copy = pickle.loads(pickled)
        assert {weight.device.type for weight in copy.module.parameters()} == {"meta"}
        for modality in model.modalities:
            task = _batches.Task(modality, Instruction("query", "query : "))
            values = {"text": TEXTS, "image": pictures, "video": clips}[modality]
            ours, theirs = (_batches.Batches(one, task, values, 0, 4)[0].inputs for one in (model, copy))
            assert ours.keys() == theirs.keys()
            for name, value in ours.items():
                assert torch.equal(value, theirs[name]) if isinstance(value, torch.Tensor) else value == theirs[name]

    def test_the_fingerprint_goes_with_the_contents(self, bert, text_model, tmp_path):
        first = SentenceTransformerEncoder(text_model)
        shutil.copytree(text_model, tmp_path / "again")
        save(tmp_path / "pooled", Transformer(bert), Pooling(32, "cls"), prompts=PROMPTS)
        save(tmp_path / "prompted", Transformer(bert), Pooling(32, "mean"))
        trained = Transformer(bert)
        trained.model.pooler.dense.weight.data += 1e-4
        save(tmp_path / "trained", trained, Pooling(32, "mean"), prompts=PROMPTS)
        assert SentenceTransformerEncoder(str(tmp_path / "again")).fingerprint == first.fingerprint
        assert first.fingerprint.startswith("sentence_transformers@")
        for secret in (text_model, bert, "0x"):
            assert secret not in first._model().preprocessing
        names = ("again", "pooled", "prompted", "trained")
        assert len({SentenceTransformerEncoder(str(tmp_path / name)).fingerprint for name in names}) == 4
        assert first.transform(Items({"text": TEXTS})).encoder == first.fingerprint

    def test_code_of_a_model_is_refused_unless_asked_for(self, viclip, monkeypatch):
        monkeypatch.delenv("TINY_CODE_RAN", raising=False)
        with pytest.raises(ValueError, match="trust_remote_code=True"):
            SentenceTransformerEncoder(viclip).transform({"text": TEXTS})
        assert "TINY_CODE_RAN" not in os.environ
        SentenceTransformerEncoder(viclip, trust_remote_code=True)._model()
        assert os.environ["TINY_CODE_RAN"] == "yes"

    def test_a_name_is_looked_up_in_the_cache(self, text_model, tmp_path, monkeypatch):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache(text_model, "owner/tiny", tmp_path)))
        by_name, by_path = (SentenceTransformerEncoder(name) for name in ("owner/tiny", text_model))
        close(by_name.transform({"query": TEXTS})["query"], by_path.transform({"query": TEXTS})["query"])
        assert by_name.fingerprint == by_path.fingerprint

    def test_a_name_out_of_reach_is_one_clear_error(self):
        with pytest.raises(OSError, match=r"cannot load owner/absent: not all of it is on this machine"):
            SentenceTransformerEncoder("owner/absent").transform({"text": TEXTS})

    def test_a_folder_that_is_not_there_is_an_error(self):
        with pytest.raises(FileNotFoundError, match="no such folder"):
            SentenceTransformerEncoder("/no/such/folder").transform({"text": TEXTS})
