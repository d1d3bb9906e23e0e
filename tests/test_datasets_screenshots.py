"""Texts drawn as pages: what is laid out, what is drawn, what is written, and what is refused."""
# ruff: noqa: RUF001 (letters of many scripts are what is drawn here)

import os
import unicodedata
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from grclip import Items
from grclip.datasets import _layout, _words, render_screenshots, screenshots
from grclip.encoders._media import open_image

DEJAVU = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
ABSTRACT = (
    "Alterations of the architecture of cerebral white matter in the developing human brain can affect cortical "
    "development and result in functional disabilities. A line scan diffusion-weighted sequence was applied."
)
HEBREW = "המשפט הזה כתוב בעברית, וכולל מספר 3.14 ומילה באנגלית"
ARABIC = "هذا نص عربي طويل يختبر اتجاه الكتابة والتفاف الأسطر"

needs_raqm = pytest.mark.skipif(not features.check("raqm"), reason="Pillow without libraqm cannot shape scripts")


def items(*texts):
    return Items({"text": texts})


def draw(text, **options):
    """The page of one text."""
    return render_screenshots(items(text), **options)["screenshot"][0]


def ink(page):
    """Left, upper, right and lower edge of what is drawn."""
    return Image.eval(page, lambda grey: 255 - grey).getbbox()


@pytest.fixture(scope="module")
def faces():
    """DejaVu from large to small, for a page of 160 pixels."""
    return screenshots._faces(DEJAVU, 160)[0]


def compose(text, faces, size=160):
    return _layout.compose(screenshots._paragraphs(text, faces[0].shaped), size, faces, None)


def wrap(text, face, room):
    """The lines of one paragraph."""
    paragraph = _layout.Paragraph(text, _words.direction_of(text), list(_words.pieces_of(text)))
    return [line for line, _ in _layout.wrap(_layout.measure(paragraph, face, room), face, room)]


@pytest.fixture(scope="module")
def chinese_font(tmp_path_factory):
    """A font file with six Chinese characters and stops, each a bar of its own height, and no other glyph.

    Beside a space 中 stands almost a character away.
    """
    names = {ord(char): f"u{ord(char):X}" for char in "中文字好。「"} | {ord(" "): "space"}
    shapes = {}
    for i, name in enumerate([".notdef", *names.values()]):
        pen = TTGlyphPen(None)
        if name != "space":
            corners = [(50, 0), (50, 300 + 80 * i), (900, 300 + 80 * i), (900, 0)]
            pen.moveTo(corners[0])
            for corner in corners[1:]:
                pen.lineTo(corner)
            pen.closePath()
        shapes[name] = pen.glyph()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(list(shapes))
    font.setupCharacterMap(names)
    font.setupGlyf(shapes)
    font.setupHorizontalMetrics(dict.fromkeys(shapes, (1000, 50)))
    font.setupHorizontalHeader(ascent=1000, descent=-200)
    font.setupNameTable({"familyName": "Six", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.addOpenTypeFeatures("feature kern { pos space u4E2D 900; } kern;")
    path = tmp_path_factory.mktemp("fonts") / "six.ttf"
    font.save(path)
    return path


LETTERS = st.sampled_from([*"aiWé-.(5αшאשلم中文。「เ각", "fi", "لا", "ก็", "क्ष"])
CLUSTERS = st.sampled_from(["e\u0301", "\u1100\u1161", "👍🏽", "👩\u200d🔬", "🇫🇷", "\u00ad", "\u200b", "\u200f"])
SPACES = st.sampled_from([" ", "  ", "\t", "\n", "\n\n\n", "\r\n", "\u00a0", "\u3000", "\x00", "\x1f", "\u2028"])
TEXTS = st.lists(st.one_of(LETTERS, LETTERS, CLUSTERS, SPACES), min_size=1, max_size=150).map("".join)


class TestLayout:
    @given(text=TEXTS, size=st.sampled_from([64, 100, 160, 400]))
    @example(text="مستشفياتهم" * 30, size=64)
    @example(text="W" * 500, size=64)
    @settings(max_examples=60)
    def test_nothing_is_lost_and_no_line_is_wider_than_the_page(self, faces, text, size):
        page = compose(text, faces, size)
        room = page.side - 2 * _layout.margin_of(page.side)
        normal = unicodedata.normalize("NFC", text).replace("\x00", "")
        assert "".join("".join(line for line, _ in page.lines).split()) == "".join(normal.split())
        for line, direction in page.lines:
            assert page.face.font.getlength(line, **page.face.options(direction)) <= room
            assert line == line.strip()
        assert len(page.lines) * page.face.leading <= room
        assert page.side >= size

    @given(words=st.lists(st.text("abcdefgiAW.", min_size=1, max_size=8), min_size=1, max_size=200))
    @settings(max_examples=40)
    def test_words_stay_whole_and_lines_are_as_full_as_the_page_allows(self, faces, words):
        face = faces[-1]
        lines = wrap(" ".join(words), face, 100)
        assert " ".join(lines).split() == words
        for line, following in pairwise(lines):
            assert face.font.getlength(f"{line} {following.split()[0]}") > 99

    def test_lines_of_a_text_are_lines_of_the_page(self, faces):
        page = compose("\n one\ttwo\r\n\n \n\nthree\n", faces)
        assert [line for line, _ in page.lines] == ["one two", "", "three"]

    def test_longer_texts_have_smaller_letters_and_then_larger_pages(self):
        faces = screenshots._faces(DEJAVU, 400)[0]
        pages = [compose("word " * n, faces, 400) for n in (1, 100, 150, 200, 2000, 20_000)]
        leading, sides = [page.face.leading for page in pages], [page.side for page in pages]
        assert leading == sorted(leading, reverse=True)
        assert len(set(leading)) == 5
        assert sides == sorted(sides)
        assert sides[:4] == [400] * 4
        assert 400 < sides[4] < sides[5]
        area = pages[-1].side ** 2
        used = sum(pages[-1].face.font.getlength(line) for line, _ in pages[-1].lines) * pages[-1].face.leading
        assert used > 0.6 * area, "a page grows no more than it must"

    def test_a_word_wider_than_the_page_is_broken_between_characters(self, faces):
        lines = wrap("before " + "e\u0323\u0302x" * 60 + " after", faces[-1], 100)
        assert "".join(lines).replace(" ", "") == "before" + "e\u0323\u0302x" * 60 + "after"
        assert len(lines) > 3
        assert all(line[0] in "bex" for line in lines), "no line begins with a mark"

    def test_a_single_character_wider_than_the_page_makes_the_page_wider(self, faces):
        page = compose("👩" + "\u200d👩" * 40, faces, 64)
        assert len(page.lines) == 1
        assert page.side > 200

    def test_scripts_without_spaces_break_anywhere_but_before_a_stop_and_after_a_bracket(self, faces):
        text = "中文「字好」" * 20 + "。" + " word " + "文" * 30
        lines = wrap(text, faces[-1], 100)
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")
        assert len(lines) == 8
        for line in lines:
            assert line[0] not in "」。"
            assert line[-1] not in "「"
        assert any("word 文" in line for line in lines), "text goes on after a Latin word"

    @needs_raqm
    def test_letters_that_keep_apart_make_no_line_too_wide(self, chinese_font):
        face = screenshots._faces(chinese_font, 160)[0][0]
        room = 10 * face.length("中")
        for line in wrap("文 中 字 好 中 中 字 好 文 中 中 中 中 中 字", face, room):
            assert face.font.getlength(line) <= room
            assert line

    def test_the_width_of_words_is_measured_once(self):
        face = screenshots._faces(DEJAVU, 512)[0][-1]
        lines = wrap("one two three " * 2000, face, 400)
        assert len(lines) > 100
        assert face.length.cache_info().misses == 4, "three words and the space"


class TestClusters:
    @pytest.mark.parametrize(
        "clusters",
        [
            ["a", "b"],
            ["e\u0301\u0323", "x"],
            ["👩\u200d🔬", "👍🏽", "❤\ufe0f", "a"],
            ["🇫🇷", "🇩🇪", "🇫"],
            ["🏴\U000e0067\U000e0062\U000e007f", "a"],
            ["각", "\u1100\u1161\u11a8", "\u1100\u1100\u1161", "a"],
            ["क्षि", "क"],
            ["ก็", "น้ำ", "า"],
            ["か\u3099", "葛\U000e0100"],
        ],
        ids=ascii,
    )
    def test_what_a_reader_takes_for_one_character_is_one(self, clusters):
        text = "".join(clusters)
        spans = _words.clusters_of(text, 0, len(text))
        assert [text[start:end] for start, end in spans] == clusters

    @pytest.mark.parametrize(
        ("text", "pieces"),
        [
            ("one two", ["one", "two"]),
            ("x中文y", ["x", "中", "文", "y"]),
            ("「中」、文。", ["「中」、", "文。"]),
            ("เด็กดี", ["เด็", "ก", "ดี"]),
            ("ok👍🏽 fine", ["ok", "👍🏽", "fine"]),
            ("データー", ["デー", "ター"]),
        ],
    )
    def test_lines_may_break_between_pieces(self, text, pieces):
        assert [text[start:end] for start, end in _words.pieces_of(text)] == pieces


class TestPages:
    def test_a_page_for_each_text_and_none_for_a_missing_one(self):
        given = Items({"text": ["one", None, "three"], "image": ["a.png", "b.png", None]}, encoder="m")
        drawn = render_screenshots(given, size=224)
        assert drawn.roles == ("text", "image", "screenshot")
        assert drawn.encoder == "m"
        assert drawn["text"].tolist() == ["one", None, "three"]
        assert drawn["screenshot"][1] is None
        for row in (0, 2):
            page = drawn["screenshot"][row]
            assert (page.size, page.mode) == ((224, 224), "L")
            assert open_image(page).mode == "RGB"
        assert drawn["screenshot"][0].tobytes() != drawn["screenshot"][2].tobytes()
        assert given.roles == ("text", "image")

    def test_other_roles_and_vectors_beside_the_texts(self):
        vectors = np.ones((2, 4), dtype=np.float32)
        given = Items({"query": ["one", "two"], "image": vectors})
        drawn = render_screenshots(given, role="query", into="query_screenshot", size=64)
        assert drawn["query_screenshot"][0].size == (64, 64)
        assert drawn["image"] is vectors

    def test_a_column_of_missing_texts_has_no_pages(self):
        assert render_screenshots(items(None, None))["screenshot"].tolist() == [None, None]

    @given(text=st.text("abc xyz.\n", min_size=1, max_size=400).filter(str.strip))
    @settings(max_examples=20)
    def test_one_text_gives_one_page(self, text):
        assert draw(text, size=96).tobytes() == draw(text, size=96).tobytes()

    def test_white_space_and_control_characters_change_nothing(self):
        assert draw("a  \x00b\t\x07c\x85\x1b").tobytes() == draw("a b c").tobytes()

    def test_composed_and_decomposed_letters_are_one_page(self):
        assert draw("re\u0301sume\u0301", font=DEJAVU).tobytes() == draw("résumé", font=DEJAVU).tobytes()

    @pytest.mark.parametrize("font", [None, DEJAVU, str(DEJAVU)])
    def test_letters_lie_within_the_margins_from_the_upper_left(self, font):
        page = draw(ABSTRACT, font=font, size=256)
        left, upper, right, lower = ink(page)
        assert 8 <= left <= 12
        assert 8 <= upper <= 24
        assert 200 < right <= 250
        assert 100 < lower <= 250
        assert np.asarray(page).min() < 60

    def test_a_page_larger_than_asked_for_holds_all_words_and_can_be_read(self):
        page = draw("word " * 3000, size=128)
        assert page.width == page.height > 128
        left, upper, right, lower = ink(page)
        assert right - left > 0.85 * page.width
        assert lower - upper > 0.7 * page.height
        assert open_image(page).size == page.size

    @needs_raqm
    @pytest.mark.parametrize("text", [HEBREW, ARABIC])
    def test_text_from_right_to_left_begins_at_the_right(self, text):
        left, _, right, _ = ink(draw(text.split()[0], font=DEJAVU))
        assert right > 490
        assert left > 256
        left, _, right, _ = ink(draw(text, font=DEJAVU))
        assert right > 490

    @needs_raqm
    def test_the_first_letter_of_a_hebrew_word_is_the_rightmost(self):
        page = np.asarray(draw("לווו", font=DEJAVU)) < 128  # lamed is taller than vav
        columns, top = np.flatnonzero(page.any(axis=0)), np.flatnonzero(page[np.flatnonzero(page.any(axis=1))[0]])
        assert top.min() > (columns.min() + columns.max()) / 2

    @needs_raqm
    def test_arabic_letters_are_joined(self):
        def width(text):
            left, _, right, _ = ink(draw(text, font=DEJAVU))
            return right - left

        assert width("ههه") < width("ه\u200cه\u200cه")

    @needs_raqm
    def test_each_paragraph_has_its_own_direction(self, faces):
        page = compose(f"English with עברית\n{HEBREW} English\n12 {ARABIC}\n123", faces)
        directions = dict.fromkeys(direction for _, direction in page.lines)
        assert list(directions) == ["ltr", "rtl"]
        assert page.lines[0][1] == page.lines[-1][1] == "ltr"
        assert all(direction == "rtl" for _, direction in page.lines[1:-1])

    def test_chinese_is_drawn_by_a_font_that_has_it(self, chinese_font):
        one, other = (draw(text, font=chinese_font, size=128) for text in ("中文字好。", "好文字中。"))
        assert one.tobytes() != other.tobytes()
        page = draw("「中文字好。」"[:-1] * 40, font=chinese_font, size=128)
        left, _, right, _ = ink(page)
        assert right - left > 0.8 * page.width


class TestGlyphs:
    def test_characters_without_a_glyph_are_one_warning_with_their_rows(self):
        with pytest.warns(UserWarning, match="font") as caught:
            render_screenshots(items("plain", "α and β", "中"), size=64)
        assert len(caught) == 1
        message = str(caught[0].message)
        assert (
            "has no glyph for 3 of the characters of role 'text', 'α' (U+03B1), 'β' (U+03B2), '中' (U+4E2D)" in message
        )
        assert "2 rows (1, 2); give font=" in message
        assert caught[0].filename == __file__

    def test_many_of_them_are_counted_and_few_named(self):
        with pytest.warns(UserWarning, match=r"no glyph for 24 .* 'ε' \(U\+03B5\), \.\.\.: boxes"):
            render_screenshots(items("αβγδεζηθικλμνξοπρστυφχψω"), size=64)

    def test_a_font_that_has_them_and_invisible_characters_are_no_warning(self):
        render_screenshots(items("α ≤ β – é \u1ebf e\u0301"), font=DEJAVU)
        render_screenshots(items("soft\u00adhyphen\u200b \ufeff \u200ejoined\u200d"))

    def test_cached_pages_warn_again(self, tmp_path):
        for _ in range(2):
            with pytest.warns(UserWarning, match="no glyph for 1 "):
                render_screenshots(items("α"), size=64, folder=tmp_path)


class TestFolder:
    def test_pages_are_files_with_the_pixels_of_the_pictures(self, tmp_path):
        folder = tmp_path / "new" / "pages"
        given = items("one", None, "three\nfour", "one")
        paths, pages = (render_screenshots(given, size=128, folder=f)["screenshot"] for f in (folder, None))
        assert paths[1] is None
        assert paths[0] == paths[3] != paths[2]
        assert sorted(map(str, folder.iterdir())) == sorted({paths[0], paths[2]})
        for row in (0, 2):
            assert isinstance(paths[row], str)
            with Image.open(paths[row]) as written:
                assert written.format == "PNG"
                assert written.tobytes() == pages[row].tobytes()
            assert open_image(paths[row]).size == (128, 128)

    def test_a_second_call_draws_only_what_is_not_there(self, tmp_path):
        first = render_screenshots(items("one", "two"), size=64, folder=tmp_path)["screenshot"]
        contents = [Path(path).read_bytes() for path in first]
        Path(first[0]).write_bytes(contents[0][:-20])  # as a full disk or a broken copy leaves it
        os.utime(first[1], (1, 1))
        again = render_screenshots(items("one", "two"), size=64, folder=str(tmp_path))["screenshot"]
        assert again.tolist() == first.tolist()
        assert [Path(path).read_bytes() for path in first] == contents
        assert Path(first[1]).stat().st_mtime == 1

    def test_whatever_changes_a_page_changes_its_name(self, tmp_path, chinese_font):
        options = [{}, {"size": 65}, {"font": DEJAVU}, {"font": DEJAVU.with_name("DejaVuSans-Bold.ttf")}]
        paths = [
            render_screenshots(items("one"), **{"size": 64, "folder": tmp_path, **o})["screenshot"][0] for o in options
        ]
        assert len(set(paths)) == 4
        other = render_screenshots(items("o\nne"), size=64, folder=tmp_path)["screenshot"][0]
        assert other not in paths

    def test_one_font_under_two_names_is_one(self, tmp_path):
        (tmp_path / "copy.ttf").write_bytes(DEJAVU.read_bytes())
        one, other = (
            render_screenshots(items("one"), font=font, folder=tmp_path / "pages")["screenshot"][0]
            for font in (DEJAVU, tmp_path / "copy.ttf")
        )
        assert one == other

    def test_a_failure_to_write_leaves_no_piece(self, tmp_path, monkeypatch):
        def fail(*_):
            raise OSError("no space left")

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="no space left"):
            render_screenshots(items("one"), size=64, folder=tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_a_file_in_its_place_is_an_error(self, tmp_path):
        (tmp_path / "pages").write_text("")
        with pytest.raises(NotADirectoryError, match=r"folder '.*pages' is a file"):
            render_screenshots(items("one"), folder=tmp_path / "pages")

    def test_bad_texts_leave_no_folder(self, tmp_path):
        with pytest.raises(ValueError, match="blank"):
            render_screenshots(items("one", ""), folder=tmp_path / "pages")
        assert not (tmp_path / "pages").exists()


class TestErrors:
    def test_other_things_than_items(self):
        with pytest.raises(TypeError, match=r"items is list; expected Items, e.g. task.corpus"):
            render_screenshots(["one"])

    @pytest.mark.parametrize("name", ["role", "into"])
    @pytest.mark.parametrize("value", [0, "", None])
    def test_names_of_roles(self, name, value):
        with pytest.raises(TypeError, match=f"{name} must be the name of a role"):
            render_screenshots(items("one"), **{name: value})

    def test_a_role_that_is_not_there(self):
        with pytest.raises(KeyError, match="no role 'body'; these Items have 'text'"):
            render_screenshots(items("one"), role="body")

    @pytest.mark.parametrize("into", ["image", "text"])
    def test_a_role_that_is_taken(self, into):
        with pytest.raises(ValueError, match=f"into='{into}': these Items have that role already"):
            render_screenshots(Items({"text": ["one"], "image": ["a.png"]}), into=into)

    @pytest.mark.parametrize(("into", "modality"), [("caption", "text"), ("query_audio", "audio")])
    def test_a_role_of_another_modality(self, into, modality):
        with pytest.raises(ValueError, match=f"into='{into}': .* has the modality {modality}, but pages are images"):
            render_screenshots(items("one"), into=into)

    def test_vectors(self):
        with pytest.raises(TypeError, match="role 'text' holds vectors; draw texts before they are encoded"):
            render_screenshots(Items({"text": np.ones((2, 3))}))

    def test_values_that_are_no_texts(self):
        with pytest.raises(TypeError, match=r"role 'text' holds bytes in 2 rows \(1, 3\); expected texts"):
            render_screenshots(items("one", b"two", None, b"four"))

    def test_half_a_character(self):
        with pytest.raises(ValueError, match=r"role 'text' holds half a surrogate pair.* 1 row \(1\)"):
            render_screenshots(items("é", "a\ud83d"))

    @pytest.mark.parametrize("blank", ["", " \n\t", "\u3000\u00a0", "\x00\x07", "\u200b \ufeff", "\u200b\n\u200b"])
    def test_blank_texts(self, blank):
        with pytest.raises(ValueError, match=r"role 'query' has empty or blank texts in 2 rows \(1, 3\)"):
            render_screenshots(Items({"query": ["one", blank, None, ""]}), role="query")

    @pytest.mark.parametrize("size", [63, 0, -1, 64.0, True, "64", None])
    def test_sizes(self, size):
        with pytest.raises(ValueError, match="size must be a whole number of pixels, at least 64; got"):
            render_screenshots(items("one"), size=size)

    def test_a_page_that_pillow_would_not_open(self):
        with pytest.raises(ValueError, match=r"size=10000 is too large: .* has a side of 9459 pixels"):
            render_screenshots(items("one"), size=10_000)

    def test_a_text_that_no_page_holds(self, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150_000)
        assert 300 < draw("word " * 500, size=64).width <= 387
        for text in ("word " * 20_000, "word\n" * 1000):
            with pytest.raises(
                ValueError, match=r"role 'text', row 1: .* more than PIL.Image.MAX_IMAGE_PIXELS \(150,000"
            ):
                render_screenshots(items("one", text), size=64)

    def test_no_limit_where_pillow_has_none(self, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        assert draw("word\n" * 900, size=64).width > 8000

    def test_fonts(self, tmp_path):
        (tmp_path / "text.ttf").write_text("no font")
        with pytest.raises(ValueError, match=r"font '.*text.ttf' is no font that Pillow can scale: "):
            render_screenshots(items("one"), font=tmp_path / "text.ttf")
        with pytest.raises(FileNotFoundError, match=r"font '.*none.ttf': there is no such file"):
            render_screenshots(items("one"), font=str(tmp_path / "none.ttf"))
        with pytest.raises(TypeError, match=r"font must be the path of a .ttf, .otf or .ttc file, or None; got int"):
            render_screenshots(items("one"), font=12)


class TestWithoutRaqm:
    @pytest.fixture(autouse=True)
    def _without(self, monkeypatch):
        monkeypatch.setattr(features, "check", lambda name: False)

    @pytest.mark.parametrize("text", [HEBREW, ARABIC, "हिन्दी", "ខ្មែរ"])
    def test_scripts_that_it_shapes_are_errors(self, text):
        with pytest.raises(ValueError, match=r"role 'text' has texts in a script .* 1 row \(1\); .*libraqm"):
            render_screenshots(items("plain", f"plain {text}"), font=DEJAVU)

    def test_plain_texts_are_drawn_without_boxes(self, tmp_path):
        assert draw("a\u00adb\u200b c\u200d\ufeff").tobytes() == draw("ab c").tobytes()
        left, _, right, _ = ink(draw(ABSTRACT, size=256))
        assert left < 12
        assert 200 < right <= 250

    def test_its_pages_have_names_of_their_own(self, tmp_path, monkeypatch):
        plain = render_screenshots(items("one"), folder=tmp_path)["screenshot"][0]
        monkeypatch.undo()
        shaped = render_screenshots(items("one"), folder=tmp_path)["screenshot"][0]
        assert (plain == shaped) == (not features.check("raqm"))
