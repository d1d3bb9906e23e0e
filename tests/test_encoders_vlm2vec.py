"""VLM2Vec on tiny LLaVA-NeXT and Qwen2-VL checkpoints with random weights, against one sequence at a time."""

import json
import pickle
import shutil

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from tokenizers.decoders import ByteLevel

from grclip import ExactRetriever, Items, ModalityGapRemover, MultimodalFuser, SearchTask
from grclip.encoders.vlm2vec import VLM2VecEncoder

LIMIT = 512
SPECIAL = ["<s>", "<pad>", "<image>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
TEXT = {
    "vocab_size": 256 + len(SPECIAL),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": LIMIT,
    "initializer_range": 0.3,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": 257,
}
"""Wide random weights, so that different sequences have different vectors."""


def tokenizer(*, begins, **options):
    """A token for each byte, after <s> or not."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), ByteLevel()
    made.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    if begins:
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 256)]
        )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **options)


def llava(folder, **options):
    torch.manual_seed(0)
    pinpoints = [[16, 32], [32, 16], [32, 32]]
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
        "projection_dim": 8,
        "initializer_range": 0.3,
    }
    config = transformers.LlavaNextConfig(
        vision_config=transformers.CLIPVisionConfig(**vision),
        text_config=transformers.MistralConfig(**TEXT),
        image_token_index=258,
        image_grid_pinpoints=pinpoints,
    )
    transformers.LlavaNextForConditionalGeneration(config).eval().save_pretrained(folder)
    transformers.LlavaNextProcessor(
        transformers.LlavaNextImageProcessor(
            size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, image_grid_pinpoints=pinpoints
        ),
        tokenizer(begins=True, bos_token="<s>", eos_token="<pad>", **options),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)


def qwen(folder, **options):
    torch.manual_seed(0)
    config = transformers.Qwen2VLConfig(
        text_config=TEXT | {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}},
        vision_config={"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "patch_size": 4, "mlp_ratio": 2},
        vision_start_token_id=259,
        vision_end_token_id=260,
        image_token_id=261,
        video_token_id=262,
    )
    transformers.Qwen2VLForConditionalGeneration(config).eval().save_pretrained(folder)
    size = {"shortest_edge": 8 * 8, "longest_edge": 8 * 8 * 12}
    transformers.Qwen2VLProcessor(
        transformers.Qwen2VLImageProcessor(size=size, patch_size=4),
        tokenizer(begins=False, eos_token="<pad>", pad_token="<pad>", **options),
        transformers.Qwen2VLVideoProcessor(patch_size=4),
    ).save_pretrained(folder)


@pytest.fixture(scope="module", params=["llava-left", "llava-right", "qwen-left", "qwen-right"])
def checkpoint(request, tmp_path_factory):
    backbone, side = request.param.split("-")
    folder = tmp_path_factory.mktemp(request.param)
    {"llava": llava, "qwen": qwen}[backbone](folder, padding_side=side)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One checkpoint, for what does not depend on the backbone."""
    folder = tmp_path_factory.mktemp("qwen")
    qwen(folder)
    return folder


@pytest.fixture(scope="module")
def pictures():
    """Of several shapes, so that they have different numbers of tokens."""
    rng = np.random.default_rng(0)
    shapes = [(20, 20), (12, 40), (40, 12), (33, 21), (7, 5)]
    return [PIL.Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in shapes]


TEXTS = ["a red bicycle", "tea", "", "Ein Fahrrad, 2 Räder\nund mehr {}", "the sea at night, seen from a hill"]


def plain(folder, sequences):
    """The slow and obvious way: (words, picture) one after the other, through the whole model, without padding."""
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder)
    processor = transformers.AutoProcessor.from_pretrained(folder)
    vectors = []
    for words, picture in sequences:
        if picture is None:
            inputs = processor.tokenizer([words], return_tensors="pt", return_token_type_ids=False)
        elif model.config.model_type == "llava_next":
            inputs = processor(text=[f"<image>\n{words}"], images=[picture], return_tensors="pt")
            inputs.pop("token_type_ids", None)
        else:
            pixels = processor.image_processor([picture], return_tensors="pt")
            n = int(pixels["image_grid_thw"].prod()) // 4
            inputs = processor.tokenizer(
                ["<|image_pad|>" * n + f"\n{words}"], return_tensors="pt", return_token_type_ids=False
            )
            length = inputs["input_ids"].shape[1]
            inputs = {**inputs, **pixels, "position_ids": torch.arange(length).expand(3, 1, length)}
        with torch.no_grad():
            state = model(**inputs, output_hidden_states=True).hidden_states[-1][0, -1]
        vectors.append((state / state.norm()).numpy())
    return np.stack(vectors)


def near(found, expected):
    return np.abs(found - expected).max() < 1e-4


class TestVectors:
    @pytest.mark.parametrize("batch_size", [1, 4])
    def test_they_are_those_of_one_sequence_at_a_time(self, checkpoint, pictures, batch_size):
        encoder = VLM2VecEncoder(str(checkpoint), batch_size=batch_size)
        assert f"-{encoder._model().tokenizer.padding_side}" in checkpoint.name
        found = encoder.transform({"text": TEXTS, "query": TEXTS, "image": pictures})
        nothing = "" if "llava" in checkpoint.name else "\n"
        assert near(found["text"], plain(checkpoint, [(text or nothing, None) for text in TEXTS]))
        queries = [(f"Retrieve a relevant item that represents: {text}\n", None) for text in TEXTS]
        assert near(found["query"], plain(checkpoint, queries))
        images = [("Represent the given image.\n", picture) for picture in pictures]
        assert near(found["image"], plain(checkpoint, images))
        for vectors in found.values():
            assert (np.triu(vectors @ vectors.T, 1) < 0.999).all(), "different values have different vectors"

    @pytest.mark.parametrize("batch_size", [1, 4])
    def test_a_text_and_a_picture_are_one_sequence(self, checkpoint, pictures, batch_size):
        encoder = VLM2VecEncoder(str(checkpoint), batch_size=batch_size)
        found = encoder.transform(Items({"text": TEXTS, "image": pictures}))
        assert found.roles == ("text+image",)
        words = "Represent the given image with related text information: {}\n"
        expected = [(words.replace("{}", text), picture) for text, picture in zip(TEXTS, pictures, strict=True)]
        assert near(found["text+image"], plain(checkpoint, expected))

    def test_weights_keep_their_type_and_vectors_are_float32(self, checkpoint, pictures, tmp_path):
        shutil.copytree(checkpoint, tmp_path / "half")
        model = transformers.AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.bfloat16)
        model.save_pretrained(tmp_path / "half")
        items = Items({"text": [*TEXTS[:2], None], "image": [None, *pictures[:2]]})
        exact = VLM2VecEncoder(str(checkpoint)).transform(items)
        for precision in ("fp32", "bf16"):
            encoder = VLM2VecEncoder(str(tmp_path / "half"), precision=precision)
            found = encoder.transform(items)
            assert next(encoder._model().module.parameters()).dtype == torch.bfloat16
            assert found.kinds.tolist() == ["text", "text+image", "image"]
            for role in found:
                assert found[role].dtype == np.float32
                rows = ~np.isnan(found[role]).any(axis=1)
                assert ((found[role] * exact[role]).sum(axis=1)[rows] > 0.9).all()

    def test_the_head_is_left_behind(self, folder):
        model = VLM2VecEncoder(str(folder))._model()
        assert not any("lm_head" in name for name in model.module.state_dict())

    def test_words_that_name_a_placeholder_are_words(self, checkpoint, pictures):
        texts = ["an <image> tag", "<|image_pad|> and <|video_pad|>"]
        encoder = VLM2VecEncoder(str(checkpoint))
        assert np.isfinite(encoder.transform({"text": texts})["text"]).all()
        assert np.isfinite(encoder.transform(Items({"text": texts, "image": pictures[:2]}))["text+image"]).all()

    def test_long_texts_are_cut_and_pictures_are_not(self, checkpoint, pictures):
        encoder = VLM2VecEncoder(str(checkpoint))
        begins = int("llava" in checkpoint.name)
        head, fits = "ab " * LIMIT, "x" * (LIMIT - begins)
        with pytest.warns(UserWarning, match=rf"longer than the {LIMIT} tokens .*\('text' row 1\)"):
            found = encoder.transform({"text": [fits, head]})["text"]
        kept = head[: LIMIT - begins]
        assert near(found, plain(checkpoint, [(fits, None), (kept, None)]))
        with pytest.warns(UserWarning, match=r"1 text is cut, .*\('text\+image' row 0\)"):
            joint = encoder.transform(Items({"text": [head], "image": pictures[:1]}))["text+image"]
        words = f"Represent the given image with related text information: {kept}\n"
        assert near(joint, plain(checkpoint, [(words, pictures[0])]))


class TestPrompts:
    def test_given_ones_count_by_role_and_others_stay(self, folder, pictures):
        prompts = {"text": "passage: {}", "image": "Look.", "question": "{}"}
        encoder = VLM2VecEncoder(str(folder), prompts=prompts)
        found = encoder.transform({"text": ["a"], "image": pictures[:1], "question": ["b"], "query": ["b"]})
        query = "Retrieve a relevant item that represents: b\n"
        expected = [("passage: a", None), ("Look.", pictures[0]), ("b", None), (query, None)]
        assert near(np.concatenate(list(found.values())), plain(folder, expected))

    @pytest.mark.parametrize(
        ("prompts", "words"),
        [
            (None, "Retrieve a relevant item that represents: a\n"),
            ({"query": "{}!", "query_image": "Look."}, "a!"),
            ({"query": "{}!", "query+query_image": "both: {}"}, "both: a"),
        ],
    )
    def test_a_joint_role_has_its_own_or_that_of_its_text(self, folder, pictures, prompts, words):
        encoder = VLM2VecEncoder(str(folder), prompts=prompts)
        found = encoder.transform(Items({"query": ["a"], "query_image": pictures[:1]}))
        assert found.roles == ("query+query_image",)
        assert near(found["query+query_image"], plain(folder, [(words, pictures[0])]))

    @pytest.mark.parametrize(
        ("prompts", "message"),
        [
            ({"text": "passage:"}, r"prompts\['text'\] is 'passage:'; expected a str with \{\} where the text goes"),
            ({"image": "a {}"}, r"prompts\['image'\] is 'a \{\}'; expected a str without \{\}"),
            ({"text": 3}, r"prompts\['text'\] is 3"),
        ],
    )
    def test_wrong_ones_are_errors_before_the_model_is_loaded(self, prompts, message):
        items = Items({"text": ["a", None], "image": [None, "b.png"]})
        with pytest.raises(ValueError, match=message):
            VLM2VecEncoder("owner/none", prompts=prompts).fit(items)


class TestJoint:
    def items(self, pictures):
        return Items({"image": [pictures[0], pictures[1], None, None], "text": [None, "a", "b", None]})

    def test_rows_with_both_have_a_role_of_their_own(self, folder, pictures):
        items = self.items(pictures)
        encoder = VLM2VecEncoder(str(folder))
        found = encoder.transform(items)
        assert found.roles == ("image", "text", "image+text")
        assert found.kinds.tolist() == ["image", "image+text", "text", ""]
        assert found.encoder == encoder.fingerprint
        assert items.kinds.tolist() == ["image", "image+text", "text", ""], "what went in is as it was"
        for role in found:
            there = ~np.isnan(found[role]).any(axis=1)
            assert there.sum() == 1
            assert np.isnan(found[role][~there]).all()

    def test_joint_false_encodes_each_part(self, folder, pictures):
        items = self.items(pictures)
        found = VLM2VecEncoder(str(folder), joint=False).transform(items)
        assert found.roles == items.roles
        assert found.kinds.tolist() == items.kinds.tolist()
        assert near(found["text"][1:3], plain(folder, [("a", None), ("b", None)]))

    def test_columns_of_a_dict_are_no_rows(self, folder, pictures):
        found = VLM2VecEncoder(str(folder)).transform({"text": TEXTS, "image": pictures})
        assert {role: len(part) for role, part in found.items()} == {"text": 5, "image": 5}

    def test_rows_without_any_part_keep_their_roles(self, folder):
        found = VLM2VecEncoder(str(folder)).transform(Items({"text": [None], "image": [None]}))
        assert found.roles == ("text", "image")
        assert np.isnan(found["text"]).all()

    def test_equal_pairs_are_encoded_once(self, folder, pictures, monkeypatch):
        encoder = VLM2VecEncoder(str(folder))
        model, sizes = encoder._model(), []
        embed = model.embed
        monkeypatch.setattr(
            model, "embed", lambda modality, inputs: sizes.append(len(inputs["input_ids"])) or embed(modality, inputs)
        )
        encoder.transform(Items({"text": ["a", "a", "b"], "image": [pictures[0]] * 3}))
        assert sizes == [2]

    @pytest.mark.parametrize("roles", [("title", "body", "image"), ("text", "cover", "image")])
    def test_more_roles_than_one_of_a_kind_are_an_error(self, folder, roles):
        items = Items({role: ["x.png"] for role in roles})
        with pytest.raises(ValueError, match=r"one text and one picture of a row .* use joint=False, or leave out"):
            VLM2VecEncoder(str(folder)).fit(items)
        VLM2VecEncoder(str(folder), joint=False).fit(items)
        VLM2VecEncoder(str(folder)).fit(Items({"title": ["a"], "body": ["b"]}))

    def test_a_picture_that_cannot_be_read_takes_its_text_along(self, folder, pictures):
        items = Items({"text": ["a", "b"], "image": [pictures[0], "gone.png"]})
        with pytest.raises(ValueError, match=r"role 'text\+image', row 1: no such file"):
            VLM2VecEncoder(str(folder)).transform(items)
        with pytest.warns(UserWarning, match=r"role 'text\+image', row 1: no such file"):
            found = VLM2VecEncoder(str(folder), on_error="skip").transform(items)
        assert np.isnan(found["text+image"]).all(axis=1).tolist() == [False, True]

    def test_wrong_values_are_named(self, folder, pictures):
        encoder = VLM2VecEncoder(str(folder))
        with pytest.raises(TypeError, match=r"role 'text\+image', row 0: expected a str; got int"):
            encoder.transform(Items({"text": [3, "a"], "image": pictures[:2]}))
        with pytest.raises(TypeError, match="which the model prepares; got a tensor"):
            encoder.transform({"image": [torch.zeros(3, 8, 8)]})
        with pytest.raises(ValueError, match="role 'audio' is audio"):
            encoder.transform(Items({"audio": ["a.wav"]}))


@pytest.fixture(scope="module")
def mixed():
    rng = np.random.default_rng(1)
    words = [" ".join(rng.choice(["red", "blue", "sea", "tea", "hill"], 4)) for _ in range(60)]
    pictures = [PIL.Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(60)]
    kinds = np.arange(60) % 3
    texts = [None if kind == 1 else text for kind, text in zip(kinds, words, strict=True)]
    images = [None if kind == 0 else picture for kind, picture in zip(kinds, pictures, strict=True)]
    return SearchTask(Items({"query": words[:12]}), Items({"text": texts, "image": images}))


class TestPipeline:
    def test_from_encoder_to_ranking(self, folder, mixed):
        pipe = Pipeline(
            [
                ("encode", VLM2VecEncoder(str(folder))),
                ("degap", ModalityGapRemover()),
                ("fuse", MultimodalFuser(equalize=True)),
                ("search", ExactRetriever(k=5)),
            ]
        ).fit(mixed)
        assert set(pipe["degap"].means_) == {"query", "text", "image", "text+image"}
        assert set(pipe["fuse"].spread_) == {frozenset({role}) for role in ("text", "image", "text+image")}
        rows = pipe.predict(mixed)
        assert rows.shape == (12, 5)
        assert (pipe.predict(mixed.queries[:2]) == rows[:2]).all()

    def test_batches_may_lack_a_role(self, folder, mixed):
        stages = Pipeline(
            [
                ("encode", VLM2VecEncoder(str(folder))),
                ("degap", ModalityGapRemover()),
                ("fuse", MultimodalFuser(equalize=True)),
            ]
        ).fit(mixed)
        whole = stages.transform(mixed.corpus)
        for rows in ([0, 3], [1, 4], [2, 5], [0, 1], [1, 2], [0, 2]):
            assert np.abs(stages.transform(mixed.corpus[rows]) - whole[rows]).max() < 1e-3


class TestModel:
    def test_the_fingerprint_is_that_of_the_files_and_not_of_their_place(self, checkpoint, tmp_path):
        first = VLM2VecEncoder(str(checkpoint)).fingerprint
        shutil.copytree(checkpoint, tmp_path / "copy")
        assert VLM2VecEncoder(str(tmp_path / "copy")).fingerprint == first
        assert first.startswith("vlm2vec@")
        model = VLM2VecEncoder(str(tmp_path / "copy"))._model()
        assert str(tmp_path) not in model.preprocessing
        assert " at 0x" not in model.preprocessing
        file = tmp_path / "copy" / "processor_config.json"
        settings = json.loads(file.read_text())
        settings["image_processor"]["image_mean"] = [0.1, 0.2, 0.3]
        file.write_text(json.dumps(settings))
        assert VLM2VecEncoder(str(tmp_path / "copy")).fingerprint != first

    def test_a_name_on_the_hub_gives_the_fingerprint_of_its_files(self, folder, monkeypatch):
        here = VLM2VecEncoder(str(folder)).fingerprint
        config, model, processor = (
            getattr(transformers, name).from_pretrained(folder)
            for name in ("AutoConfig", "AutoModelForImageTextToText", "AutoProcessor")
        )
        asked = []

        def give(value):
            return classmethod(lambda cls, name, **options: asked.append((name, options)) or value)

        monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", give(config))
        monkeypatch.setattr(transformers.AutoModelForImageTextToText, "from_pretrained", give(model))
        monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", give(processor))
        encoder = VLM2VecEncoder("TIGER-Lab/VLM2Vec-Tiny", revision="v1")
        assert encoder._model().name == "vlm2vec:TIGER-Lab/VLM2Vec-Tiny"
        assert encoder.fingerprint == here
        assert {name for name, _ in asked} == {"TIGER-Lab/VLM2Vec-Tiny"}
        assert all(options["revision"] == "v1" for _, options in asked)

    def test_pickles_leave_the_weights_out(self, folder, pictures):
        encoder = VLM2VecEncoder(str(folder))
        items = Items({"text": ["a", "b"], "image": [pictures[0], None]})
        found = encoder.transform(items)
        packed = pickle.dumps(encoder)
        assert len(packed) < 1000
        again = pickle.loads(packed).transform(items)
        model = pickle.loads(pickle.dumps(encoder._model()))
        assert not hasattr(model, "module")
        assert "input_ids" in model.prepare("text+image", [("a", pictures[0])], None)
        assert all(np.array_equal(found[role], again[role], equal_nan=True) for role in found)

    def test_worker_processes_do_not_matter(self, folder, pictures):
        encoder = VLM2VecEncoder(str(folder), batch_size=2)
        items = Items({"text": TEXTS, "image": pictures})
        apart = clone(encoder).set_params(num_workers=1).transform(items)
        assert near(apart["text+image"], encoder.transform(items)["text+image"])

    def test_other_models_are_refused(self, tmp_path):
        transformers.CLIPConfig().save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="is of the kind 'clip'; VLM2VecEncoder takes those of llava_next and"):
            VLM2VecEncoder(str(tmp_path)).transform({"text": ["a"]})

    def test_a_folder_that_is_not_there_is_named(self):
        with pytest.raises(FileNotFoundError, match="no such folder"):
            VLM2VecEncoder("/no/such/folder").transform({"text": ["a"]})
