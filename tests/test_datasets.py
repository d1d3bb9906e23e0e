"""Drawn scenes, and the mixing of kinds."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grclip import Items
from grclip.datasets import keep_kinds, make_scenes, mix_kinds, paper_split, replace_parts, toy

BOTH = Items({"text": [f"t{i}" for i in range(20)], "image": [f"{i}.png" for i in range(20)]})


class TestScenes:
    def test_each_scene_has_a_query_a_text_and_a_picture(self):
        task, qrels = make_scenes(30, random_state=0, size=64)
        assert len(task) == len(task.corpus) == len(qrels) == 30
        assert task.corpus.kinds.tolist() == ["text+image"] * 30
        assert qrels == [{i: 1} for i in range(30)]
        assert {picture.size for picture in task.corpus["image"]} == {(64, 64)}
        assert {picture.mode for picture in task.corpus["image"]} == {"RGB"}

    def test_a_seed_repeats_and_another_differs(self):
        one, same, other = (make_scenes(5, random_state=seed)[0] for seed in (3, 3, 4))
        assert one.queries["query"].tolist() == same.queries["query"].tolist() != other.queries["query"].tolist()
        assert one.corpus["text"].tolist() == same.corpus["text"].tolist()
        for a, b in zip(one.corpus["image"], same.corpus["image"], strict=True):
            assert a.tobytes() == b.tobytes()

    def test_held_out_scenes_share_no_pair_and_relation_with_training(self):
        sides = {side: set(toy.combinations(side)) for side in (True, False)}
        assert len(sides[True]) > 4000
        assert not sides[True] & sides[False]
        rng, thirds = np.random.RandomState(0), 0
        for held_out, pool in ((side, toy.combinations(side)) for side in sides):
            for row in rng.choice(len(pool), 500):
                scene = toy.draw_scene(rng, pool[row], held_out)
                thirds += len(scene.things) - 2
                for i, one in enumerate(scene.things):
                    for other in scene.things[:i]:  # told or not
                        seen = toy.relations_of(one, other)
                        assert seen
                        assert all(toy.is_held_out(*relation) == held_out for relation in seen)
        assert thirds > 300

    def test_a_relation_and_its_inverse_are_on_one_side_of_the_split(self):
        for first, relation, second in toy.combinations(held_out=True)[::97]:
            assert toy.is_held_out(second, toy.INVERSE[relation], first)

    def test_queries_are_true_of_their_pictures(self):
        rng = np.random.RandomState(1)
        pool = toy.combinations(held_out=True)
        for row in rng.choice(len(pool), 100):
            scene = toy.draw_scene(rng, pool[row], held_out=True)
            query = toy.query_of(scene, rng)
            relation = next(words for words in toy.RELATIONS if f" {words} " in query)
            names = query.split(f" {relation} ")
            one, other = (next(thing for thing in scene.things if thing.name == name) for name in names)
            gap = {
                "left of": other.x - one.x,
                "right of": one.x - other.x,
                "above": other.y - one.y,
                "below": one.y - other.y,
            }
            assert gap[relation] > 0.3
            thing = scene.things[0]
            picture = np.asarray(toy.picture_of(toy.alone(scene, 0), 128))
            if thing.shape in ("circle", "square", "triangle", "diamond", "cross", "star"):
                centre = picture[int(thing.y * 128), int(thing.x * 128)]
                assert np.abs(centre.astype(int) - toy.COLOURS[thing.colour][0]).max() <= 2

    def test_texts_use_other_words_and_leave_statements_out_where_asked(self):
        rng = np.random.RandomState(2)
        scene = toy.draw_scene(rng, toy.combinations(held_out=True)[5], held_out=True)
        texts = {toy.document_of(scene, rng) for _ in range(50)}
        partial = [toy.document_of(scene, rng, leave_out=0.9) for _ in range(50)]
        assert len(texts) > 40
        assert all(text.endswith(".") and text[0].isupper() for text in texts | set(partial))
        assert max(map(len, partial)) <= max(map(len, texts))
        assert min(map(len, partial)) < min(map(len, texts)) / 2

    def test_complementary_parts_each_show_one_of_the_two(self):
        task, _ = make_scenes(40, random_state=0, complementary=True)
        rgb = {colour: np.array(value) for colour, (value, _) in toy.COLOURS.items()}
        words = {word: colour for colour, (_, synonyms) in toy.COLOURS.items() for word in (colour, *synonyms)}
        told_apart = 0
        for query, text, picture in zip(task.queries["query"], *task.corpus.values(), strict=True):
            assert text.count(" lies near ") == 1
            assert "one finds" not in text
            assert "There is" not in text
            asked = {word for word in query.split() if word in rgb}
            told = {words[word] for word in text.replace(".", "").lower().split() if word in words}
            assert len(told) == 1
            assert told < asked or told == asked
            if len(asked) == 2:  # the picture shows the colour that the text does not tell
                pixels = np.asarray(picture).reshape(-1, 3).astype(int)
                seen = {colour: (np.abs(pixels - rgb[colour]).max(axis=1) < 3).sum() for colour in asked}
                assert max(seen, key=seen.get) == (asked - told).pop()
                told_apart += 1
        assert told_apart > 20

    @pytest.mark.parametrize("n", [0, -1, 100_000])
    def test_a_number_of_scenes_that_cannot_be_drawn_is_an_error(self, n):
        with pytest.raises(ValueError, match=rf"n is {n}; there are 1 to \d+ scenes"):
            make_scenes(n)


class TestMixing:
    @given(n=st.integers(1, 60), ratio=st.tuples(*[st.integers(0, 5)] * 3).filter(any), seed=st.integers(0, 9))
    def test_counts_are_those_of_the_ratio(self, n, ratio, seed):
        items = Items({"text": ["t"] * n, "image": ["i"] * n})
        kinds = mix_kinds(items, ratio, random_state=seed).kinds
        counts = [int((kinds == kind).sum()) for kind in ("text", "image", "text+image")]
        assert sum(counts) == n
        assert np.abs(np.array(counts) - n * np.array(ratio) / sum(ratio)).max() <= 1

    def test_rows_stay_and_the_input_is_untouched(self):
        mixed = mix_kinds(BOTH, random_state=0)
        for role in BOTH:
            assert all(a in (None, b) for a, b in zip(mixed[role], BOTH[role], strict=True))
        assert BOTH.kinds.tolist() == ["text+image"] * 20

    @pytest.mark.parametrize("library", [np.asarray, torch.tensor])
    def test_vectors_become_rows_of_nan(self, library):
        items = Items({"text": library(np.ones((6, 3))), "image": library(np.ones((6, 3)))}, encoder="e")
        mixed = mix_kinds(items, random_state=0)
        assert sorted(mixed.kinds.tolist()) == ["image", "image", "text", "text", "text+image", "text+image"]
        assert mixed.encoder == "e"
        assert items.kinds.tolist() == ["text+image"] * 6

    def test_several_roles_of_a_side_go_together(self):
        items = Items({"title": ["t"] * 9, "body": ["b"] * 9, "sketch": ["s"] * 9})
        kinds = mix_kinds(items, random_state=0, modalities={"sketch": "image"}).kinds
        assert set(kinds.tolist()) == {"title+body", "sketch", "title+body+sketch"}

    @given(seed=st.integers(0, 20), low=st.floats(0, 1), high=st.floats(0, 1))
    def test_a_larger_p_only_adds_pictures(self, seed, low, high):
        low, high = sorted((low, high))
        fewer, more = (replace_parts(BOTH, p, random_state=seed).kinds == "image" for p in (low, high))
        assert not (fewer & ~more).any()

    def test_the_ends_of_p(self):
        assert set(replace_parts(BOTH, 0.0, random_state=0).kinds.tolist()) == {"text"}
        assert set(replace_parts(BOTH, 1.0, random_state=0).kinds.tolist()) == {"image"}

    @pytest.mark.parametrize("ratio", [(1, 1), (0, 0, 0), (1, -1, 1), (1, np.nan, 1)])
    def test_a_ratio_that_is_none_is_an_error(self, ratio):
        with pytest.raises(ValueError, match="ratio must be three numbers"):
            mix_kinds(BOTH, ratio)

    @pytest.mark.parametrize("p", [-0.1, 1.1, np.nan])
    def test_a_p_that_is_no_probability_is_an_error(self, p):
        with pytest.raises(ValueError, match="p must be a probability"):
            replace_parts(BOTH, p)

    def test_documents_that_lack_a_side_are_named(self):
        items = Items({"text": ["a", None, "c"], "image": ["x", "y", None]})
        with pytest.raises(ValueError, match=r"1 row \(1\) have no text"):
            mix_kinds(items)
        with pytest.raises(ValueError, match="the documents have no part beside its text: their roles are 'text'"):
            mix_kinds(Items({"text": ["a"]}))
        with pytest.raises(TypeError, match="items is list; expected Items"):
            replace_parts(["a"], 0.5)


class TestPaperSplit:
    @pytest.mark.parametrize("n", [1, 2, 5, 6, 21, 22, 981, 4421])
    def test_it_is_that_of_the_code_of_the_paper(self, n):
        random.seed(42)
        order = random.sample(range(n), n)
        kinds = paper_split(n)
        assert len(kinds) == n
        for i, row in enumerate(order):
            assert kinds[row] == ["text", "image", "text+image"][i % 3]

    def test_it_is_the_same_on_every_machine(self):
        assert paper_split(6) == ["image", "image", "text", "text+image", "text+image", "text"]
        kinds = paper_split(984)
        assert [kinds.count(kind) for kind in ("text", "image", "text+image")] == [328] * 3

    def test_other_random_numbers_are_left_alone(self):
        random.seed(7)
        state = random.getstate()
        paper_split(10)
        assert random.getstate() == state

    def test_a_whole_number_of_numpy_will_do(self):
        assert paper_split(np.int64(7)) == paper_split(7)

    @pytest.mark.parametrize("n", [0, -1, 2.0, True, None, "6"])
    def test_what_is_no_number_of_documents(self, n):
        with pytest.raises(ValueError, match="n must be a whole number of at least 1; got"):
            paper_split(n)


class TestKeepKinds:
    @given(kinds=st.lists(st.sampled_from(["text", "image", "text+image", "image+text"]), min_size=20, max_size=20))
    def test_documents_are_of_their_kinds_and_keep_their_rows(self, kinds):
        kept = keep_kinds(BOTH, kinds)
        assert [set(kind.split("+")) for kind in kept.kinds] == [set(kind.split("+")) for kind in kinds]
        for role in BOTH:
            assert all(a in (None, b) for a, b in zip(kept[role], BOTH[role], strict=True))
        assert BOTH.kinds.tolist() == ["text+image"] * 20

    def test_kinds_as_items_give_them_change_nothing(self):
        items = Items({"text": ["a", None, "c", None], "image": ["x", "y", None, None]})
        for kinds in (items.kinds, items.kinds.tolist(), tuple(items.kinds)):
            kept = keep_kinds(items, kinds)
            assert kept.kinds.tolist() == ["text+image", "image", "text", ""]

    @pytest.mark.parametrize("library", [np.asarray, torch.tensor])
    def test_vectors_become_rows_of_nan(self, library):
        items = Items({"text": library(np.ones((3, 2))), "image": library(np.ones((3, 2)))}, encoder="e")
        kept = keep_kinds(items, ["text", "image", "text+image"])
        assert kept.kinds.tolist() == ["text", "image", "text+image"]
        assert kept.encoder == "e"
        assert type(kept["text"]) is type(items["text"])
        assert items.kinds.tolist() == ["text+image"] * 3

    def test_any_roles_will_do(self):
        items = Items({"title": ["a", "b"], "sketch": ["x", "y"], "cover": ["u", "v"]})
        assert keep_kinds(items, ["cover+title", "sketch"]).kinds.tolist() == ["title+cover", "sketch"]

    @pytest.mark.parametrize(
        ("kinds", "message"),
        [
            (["text"] * 19, "kinds has 19 entries, but there are 20 documents"),
            ([], "kinds has 0 entries"),
            (["text"] * 19 + ["audio+text"], "kinds name 'audio'; roles are 'text', 'image'"),
            (["text"] * 19 + ["text + image"], "kinds name ' image', 'text '"),
            ("text", "kinds has 4 entries"),
        ],
    )
    def test_kinds_that_do_not_fit(self, kinds, message):
        with pytest.raises(ValueError, match=message):
            keep_kinds(BOTH, kinds)

    def test_documents_that_lack_a_part_of_their_kind_are_named(self):
        items = Items({"text": ["a", None, None], "image": ["x", "y", "z"]})
        with pytest.raises(ValueError, match=r"role 'text': 2 rows \(1, 2\) lack the part that their kind has"):
            keep_kinds(items, ["text", "text", "text+image"])

    def test_what_is_of_another_type(self):
        with pytest.raises(TypeError, match="items is list; expected Items"):
            keep_kinds(["a"], ["text"])
        with pytest.raises(TypeError, match=r"kinds holds None; expected roles joined by '\+'"):
            keep_kinds(BOTH, [None] * 20)
