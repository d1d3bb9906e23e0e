"""Scenes: drawn pictures with a terse query and a long description each, for demos and tests without a download."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import cos, pi, sin
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from grclip._optional import optional_import
from grclip.items import Items, SearchTask

COLOURS = {
    "red": ((214, 39, 40), ("crimson", "scarlet")),
    "orange": ((255, 127, 14), ("tangerine", "amber")),
    "yellow": ((245, 216, 32), ("golden", "lemon")),
    "green": ((30, 130, 50), ("emerald", "grassy")),
    "blue": ((31, 80, 200), ("azure", "navy")),
    "purple": ((125, 50, 170), ("violet", "plum")),
    "pink": ((245, 130, 190), ("rosy", "salmon")),
    "brown": ((120, 72, 38), ("chestnut", "cocoa")),
    "black": ((20, 20, 20), ("jet", "ebony")),
    "white": ((252, 252, 252), ("ivory", "snowy")),
}
SHAPES = {
    "circle": ("disc", "dot"),
    "square": ("box", "block"),
    "triangle": ("wedge", "pyramid"),
    "star": ("asterisk", "pentagram"),
    "ring": ("hoop", "annulus"),
    "cross": ("plus", "crucifix"),
    "diamond": ("rhombus", "lozenge"),
    "moon": ("crescent", "sickle"),
}
SIZES = {
    "small": (0.085, ("little", "tiny")),
    "medium": (0.12, ("middling", "mid-sized")),
    "large": (0.16, ("big", "huge")),
}
BACKGROUNDS = {
    "grey": ((190, 192, 196), "silver"),
    "cream": ((246, 236, 208), "vanilla"),
    "mint": ((190, 232, 208), "seafoam"),
    "lilac": ((216, 202, 238), "lavender"),
    "icy": ((190, 220, 246), "frosty"),
    "peach": ((250, 212, 188), "apricot"),
}
TEXTURES = {"plain": "even", "striped": "banded", "dotted": "speckled", "checked": "chequered"}
RELATIONS = {
    "left of": ("to the left of", "on the left-hand side of"),
    "right of": ("to the right of", "on the right-hand side of"),
    "above": ("over", "higher than"),
    "below": ("under", "beneath"),
}
APART = 0.15
"""Distance of two centres along an axis from which one is left of, or above, the other."""

INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


@dataclass(frozen=True)
class Thing:
    """One object of a scene: what it is, and where in the unit square its centre lies (y grows downwards)."""

    colour: str
    shape: str
    size: str
    x: float
    y: float

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """Two objects in a relation (left of, or above), sometimes a third, on a background."""

    things: tuple[Thing, ...]
    relation: str
    colour: str
    texture: str


def is_held_out(first: str, relation: str, second: str) -> bool:
    """Whether a (pair, relation) is kept from training: one in three, by a checksum of its words."""
    if relation in ("right of", "below"):
        first, relation, second = second, INVERSE[relation], first
    return zlib.crc32(f"{first} {relation} {second}".encode()) % 3 == 0


def combinations(held_out: bool) -> list[tuple[str, str, str]]:
    """Every (first object, relation, second object) of one side of the split, each pair in one direction."""
    names = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
    return [
        (first, relation, second)
        for first in names
        for relation in ("left of", "above")
        for second in names
        if first != second and is_held_out(first, relation, second) == held_out
    ]


def draw_scene(rng: np.random.RandomState, combination: tuple[str, str, str], held_out: bool) -> Scene:
    """A scene in which a combination is seen; in two of five a third object stands above, below or beside one of them.

    Whatever relations the third object has to the others are on the same side of the split, though no text tells them.
    """
    first, relation, second = combination
    third = rng.random_sample() < 0.4
    along = np.array((0.27, 0.73)) + rng.uniform(-0.04, 0.04, 2)
    across = (rng.choice((0.34, 0.66)) if third else rng.uniform(0.3, 0.7)) + rng.uniform(-0.03, 0.03, 2)
    places = [(a, b) if relation == "left of" else (b, a) for a, b in zip(along, across, strict=True)]
    things = [_thing(rng, name, place) for name, place in zip((first, second), places, strict=True)]
    if third:
        beside, beyond = along[rng.randint(2)] + rng.uniform(-0.05, 0.05), 0.16 if across[0] >= 0.5 else 0.84
        place = (beside, beyond) if relation == "left of" else (beyond, beside)
        names = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
        fitting = [name for name in names if _fits(_thing(rng, name, place), things, held_out)]
        things += [_thing(rng, _pick(rng, fitting), place)] if fitting else []
    return Scene(tuple(things), relation, _pick(rng, BACKGROUNDS), _pick(rng, TEXTURES))


def _thing(rng: np.random.RandomState, name: str, place: tuple[float, float]) -> Thing:
    colour, shape = name.split()
    return Thing(colour, shape, _pick(rng, SIZES), *map(float, place))


def relations_of(one: Thing, other: Thing) -> list[tuple[str, str, str]]:
    """Everything that can be said of where one thing is from another: along each axis on which they are apart."""
    found = []
    if abs(one.x - other.x) > APART:
        found.append((one.name, "left of" if one.x < other.x else "right of", other.name))
    if abs(one.y - other.y) > APART:
        found.append((one.name, "above" if one.y < other.y else "below", other.name))
    return found


def _fits(thing: Thing, others: Sequence[Thing], held_out: bool) -> bool:
    """Whether a thing is a new one, and in no relation of the other side of the split."""
    new = thing.name not in {other.name for other in others}
    return new and all(is_held_out(*seen) == held_out for other in others for seen in relations_of(thing, other))


def _pick(rng: np.random.RandomState, words: Any) -> str:
    return list(words)[rng.randint(len(words))]


def alone(scene: Scene, i: int) -> Scene:
    """The scene with one of its things only."""
    return replace(scene, things=(scene.things[i],))


def query_of(scene: Scene, rng: np.random.RandomState) -> str:
    """The terse query: the two objects and their relation, said from either end."""
    if len(scene.things) == 1:
        return scene.things[0].name
    first, second = scene.things[:2]
    if rng.random_sample() < 0.5:
        return f"{first.name} {scene.relation} {second.name}"
    return f"{second.name} {INVERSE[scene.relation]} {first.name}"


def document_of(scene: Scene, rng: np.random.RandomState, leave_out: float = 0.0) -> str:
    """The long description, in other words and another order; each statement is left out with a probability."""
    kept = rng.random_sample(4) >= leave_out
    pair = [thing for thing, keep in zip(scene.things[:2], kept[1:], strict=False) if keep]
    told = (
        [_sentence_of_two(pair[0], pair[1], scene.relation, rng)]
        if len(pair) == 2
        else [_sentence_of_one(t, rng) for t in pair]
    )
    told += [f"besides, {_sentence_of_one(thing, rng)}" for thing in scene.things[2:] if kept[3]]
    if kept[0] or not told:
        told.insert(rng.randint(2) * len(told), _ground(scene, rng))
    return " ".join(f"{sentence.capitalize()}." for sentence in told)


def _sentence_of_two(first: Thing, second: Thing, relation: str, rng: np.random.RandomState) -> str:
    if rng.random_sample() < 0.5:
        first, second, relation = second, first, INVERSE[relation]
    words = _pick(rng, (relation, *RELATIONS[relation]))
    one, other = _noun_phrase(first, rng), _noun_phrase(second, rng)
    return f"there is {one}, {words} {other}" if rng.random_sample() < 0.5 else f"{words} {other} one finds {one}"


def _sentence_of_one(thing: Thing, rng: np.random.RandomState) -> str:
    edges = {"the top": thing.y, "the bottom": 1 - thing.y, "the left edge": thing.x, "the right edge": 1 - thing.x}
    return f"{_noun_phrase(thing, rng)} lies near {min(edges, key=edges.__getitem__)}"


def _noun_phrase(thing: Thing, rng: np.random.RandomState) -> str:
    size, colour, shape = (
        _pick(rng, (word, *synonyms))
        for word, synonyms in (
            (thing.size, SIZES[thing.size][1]),
            (thing.colour, COLOURS[thing.colour][1]),
            (thing.shape, SHAPES[thing.shape]),
        )
    )
    return f"a {size} {colour} {shape}"


def _ground(scene: Scene, rng: np.random.RandomState) -> str:
    colour = _pick(rng, (scene.colour, BACKGROUNDS[scene.colour][1]))
    texture = _pick(rng, (scene.texture, TEXTURES[scene.texture]))
    return f"the {_pick(rng, ('backdrop', 'background', 'ground'))} is {texture} and {colour}"


def picture_of(scene: Scene, size: int) -> Any:
    """A PIL image of a scene; drawn at four times the size, so that edges are smooth."""
    image, draw = (optional_import(f"PIL.{name}", "open-clip", "drawing scenes") for name in ("Image", "ImageDraw"))
    side = 4 * size
    canvas = image.new("RGB", (side, side), BACKGROUNDS[scene.colour][0])
    pen = draw.Draw(canvas)
    _texture(pen, scene, side)
    for thing in scene.things:
        _outline(pen, thing, side)
    return canvas.reduce(4)


def _texture(pen: Any, scene: Scene, side: int) -> None:
    """The texture, in a slightly darker shade of the background."""
    shade = tuple(int(0.9 * value) for value in BACKGROUNDS[scene.colour][0])
    step = side // 8
    if scene.texture == "striped":
        for i in range(0, 8, 2):
            pen.rectangle((0, i * step, side, (i + 1) * step - 1), fill=shade)
    elif scene.texture in ("dotted", "checked"):
        for i in range(8):
            for j in range(8):
                box = (i * step, j * step, (i + 1) * step - 1, (j + 1) * step - 1)
                if scene.texture == "dotted":
                    pen.ellipse(
                        [edge + inset for edge, inset in zip(box, (step // 4,) * 2 + (-step // 4,) * 2, strict=True)],
                        fill=shade,
                    )
                elif (i + j) % 2:
                    pen.rectangle(box, fill=shade)


def _outline(pen: Any, thing: Thing, side: int) -> None:
    """A filled shape with a thin dark edge, which sets white and black apart from any background."""
    x, y, r = thing.x * side, thing.y * side, SIZES[thing.size][0] * side
    fill, edge, width = COLOURS[thing.colour][0], (60, 60, 60), max(side // 100, 1)
    if thing.shape == "ring":
        pen.arc((x - r, y - r, x + r, y + r), 0, 360, fill=edge, width=int(0.45 * r))
        inner = r - width
        pen.arc((x - inner, y - inner, x + inner, y + inner), 0, 360, fill=fill, width=int(0.45 * r) - 2 * width)
    else:
        points = [(x + r * a, y + r * b) for a, b in OUTLINES[thing.shape]]
        pen.polygon(points, fill=fill, outline=edge, width=width)


def _turn(radii: Sequence[float], start: float = -pi / 2) -> list[tuple[float, float]]:
    """Corners at equal angles, clockwise from the top."""
    angles = [start + 2 * pi * i / len(radii) for i in range(len(radii))]
    return [(radius * cos(angle), radius * sin(angle)) for radius, angle in zip(radii, angles, strict=True)]


OUTLINES = {
    "circle": _turn([1.0] * 72),
    "square": _turn([1.25] * 4, -pi / 4),
    "triangle": _turn([1.1] * 3),
    "star": _turn([1.15, 0.45] * 5),
    "cross": [
        (-0.36, -1),
        (0.36, -1),
        (0.36, -0.36),
        (1, -0.36),
        (1, 0.36),
        (0.36, 0.36),
        (0.36, 1),
        (-0.36, 1),
        (-0.36, 0.36),
        (-1, 0.36),
        (-1, -0.36),
        (-0.36, -0.36),
    ],
    "diamond": _turn([1.2, 0.8] * 2),
    "moon": [(cos(a), sin(a)) for a in np.linspace(-1.9, 1.9, 40)]
    + [(0.75 * cos(a) - 0.45, 0.9 * sin(a)) for a in np.linspace(1.5, -1.5, 40)],
}
"""Corners of each shape of radius 1; the ring is drawn with arcs."""


def make_scenes(
    n: int = 1000, random_state: Any = None, complementary: bool = False, *, size: int = 128
) -> tuple[SearchTask, list[dict[int, int]]]:
    """Draw scenes that the toy encoder was not trained on, each with a terse query and a long text.

    A scene has two objects (of ten colours, eight shapes, three sizes), one left of or above the other, on one of 24
    backgrounds, and sometimes a third object aside. The query names the two objects and their relation; the text says
    all in other words and another order. No two scenes share the pair and the relation that is asked for.

    Parameters
    ----------
    n : int, default=1000
        Number of scenes, up to some 4,000.
    random_state : int, RandomState instance or None, default=None
        Decides what is drawn.
    complementary : bool, default=False
        Whether text and picture each tell a part: the one shows one of the two objects, the other the other one. A
        search then needs both.
    size : int, default=128
        Width and height of the pictures, in pixels.

    Returns
    -------
    task : SearchTask
        Queries in the role ``"query"``; documents of a ``"text"`` (str) and an ``"image"`` (PIL image, RGB).
    qrels : list of dict
        Document i is relevant to query i.

    Raises
    ------
    ValueError
        If there are not that many scenes.
    ModuleNotFoundError
        If Pillow is not installed.

    See Also
    --------
    mix_kinds : A corpus of texts, pictures and both.
    grclip.encoders.toy_encoder : The encoder that knows such scenes.

    Notes
    -----
    One (pair, relation) in three is held out from training, by a checksum of its words; these are the ones drawn.

    Examples
    --------
    >>> from grclip.datasets import make_scenes
    >>> task, qrels = make_scenes(3, random_state=0)
    >>> task.queries["query"][0]
    'pink diamond left of purple triangle'
    >>> task.corpus["image"][0].size
    (128, 128)
    """
    pool = combinations(held_out=True)
    if not 1 <= n <= len(pool):
        raise ValueError(f"n is {n}; there are 1 to {len(pool)} scenes without two of one pair and relation")
    rng = check_random_state(random_state)
    scenes = [draw_scene(rng, pool[row], held_out=True) for row in rng.permutation(len(pool))[:n]]
    told = shown = scenes
    if complementary:
        first = rng.randint(2, size=n)
        told = [alone(scene, i) for scene, i in zip(scenes, first, strict=True)]
        shown = [alone(scene, 1 - i) for scene, i in zip(scenes, first, strict=True)]
    queries = Items({"query": [query_of(scene, rng) for scene in scenes]})
    texts = [document_of(scene, rng) for scene in told]
    pictures = [picture_of(scene, size) for scene in shown]
    return SearchTask(queries, Items({"text": texts, "image": pictures})), [{i: 1} for i in range(n)]
