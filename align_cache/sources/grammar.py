"""Five captions for a drawn scene, in the manner of people: partial, varied, true.

Every caption says only what holds; none says everything. A caption is one of several kinds (a list, a
place, a relation, a count, a glance), each with its own openings and synonyms.
"""

import random
from collections.abc import Callable, Sequence

from align_cache.sources.scenes import Scene, Thing, pick, scene_random

CAPTIONS_PER_SCENE = 5

# The first word is repeated where it is the usual one: `pick` gives each entry the same chance.
_NOUNS = {
    "circle": ("circle", "circle", "disc"),
    "square": ("square", "square", "box"),
    "triangle": ("triangle",),
    "diamond": ("diamond", "diamond", "rhombus"),
    "hexagon": ("hexagon", "hexagon", "six-sided shape"),
    "star": ("star", "star", "five-pointed star"),
    "heart": ("heart",),
    "cross": ("cross", "cross", "plus sign"),
    "crescent": ("crescent", "crescent", "moon"),
    "ring": ("ring", "ring", "hoop"),
}
_COLOURS = {
    "turquoise": ("turquoise", "teal", "cyan"),
    "purple": ("purple", "purple", "violet"),
    "grey": ("grey", "gray"),
    "yellow": ("yellow", "yellow", "golden"),
}
_SIZES = {
    "small": ("small", "small", "little", "tiny"),
    "medium": ("medium-sized",),
    "large": ("large", "large", "big"),
}
_GROUNDS = {
    "white": ("a white background", "white"),
    "cream": ("a cream background", "a beige background"),
    "light blue": ("a light blue background", "a pale blue background"),
    "pale green": ("a pale green background", "a mint green background"),
    "grey": ("a grey background", "a gray background"),
    "dark blue": ("a dark blue background", "a navy background"),
    "black": ("a black background", "black", "a dark background"),
}
_PLACES = {
    (0, 0): ("in the top left corner", "in the upper left", "at the top left"),
    (1, 0): ("at the top", "near the top edge", "at the top in the middle"),
    (2, 0): ("in the top right corner", "in the upper right", "at the top right"),
    (0, 1): ("on the left", "on the left side", "at the left edge"),
    (1, 1): ("in the middle", "in the centre", "right in the center"),
    (2, 1): ("on the right", "on the right side", "at the right edge"),
    (0, 2): ("in the bottom left corner", "in the lower left", "at the bottom left"),
    (1, 2): ("at the bottom", "near the bottom edge", "at the bottom in the middle"),
    (2, 2): ("in the bottom right corner", "in the lower right", "at the bottom right"),
}
_NUMBERS = {1: ("one", "a single"), 2: ("two", "two", "a pair of"), 3: ("three", "three")}
_THINGS = ("shape", "object", "figure")
_OPENINGS = ("", "", "", "a picture of ", "an image of ", "a drawing of ", "there is ", "we see ")
_SIZE_CHANCE, _COLOUR_CHANCE, _GROUND_CHANCE = 0.5, 0.88, 0.4


def describe(scene: Scene, *, seed: int, index: int) -> tuple[str, ...]:
    """Return five different captions of a scene, a function of the arguments alone."""
    rng = scene_random(seed, index, "captions")
    kinds = _kinds(scene)
    turn = int(rng.random() * len(kinds))
    captions: list[str] = []
    while len(captions) < CAPTIONS_PER_SCENE:
        text = kinds[turn % len(kinds)](scene, rng)
        text = text[0].upper() + text[1:] + pick(rng, (".", ".", ""))
        if text not in captions:
            captions.append(text)
        turn += 1
    return tuple(captions)


def _kinds(scene: Scene) -> tuple[Callable[[Scene, random.Random], str], ...]:
    if len(scene.things) == 1:
        return (_listed, _placed, _glanced, _placed)
    return (_listed, _placed, _related, _counted, _glanced)


def _listed(scene: Scene, rng: random.Random) -> str:
    """Name every object, equal ones together, and perhaps the ground."""
    return pick(rng, _OPENINGS) + _joined(_groups(scene.things, rng)) + _on_ground(scene, rng)


def _placed(scene: Scene, rng: random.Random) -> str:
    """Say where one or two of the objects are."""
    chosen = _some(scene.things, rng, most=2)
    return pick(rng, _OPENINGS) + _joined([f"{_one(thing, rng)} {_place(thing, rng)}" for thing in chosen])


def _related(scene: Scene, rng: random.Random) -> str:
    """Say how one object lies to another; at least two objects."""
    first, second = _some(scene.things, rng, most=2, least=2)
    verb = pick(rng, ("", "is ", "sits "))
    return f"{_one(first, rng)} {verb}{_relation(first, second, rng)} {_one(second, rng)}"


def _counted(scene: Scene, rng: random.Random) -> str:
    """Count the objects, and name one of them or the ground; at least two objects."""
    number = pick(rng, _NUMBERS[len(scene.things)])
    noun = pick(rng, _THINGS)
    if rng.random() < 0.5:
        return f"{number} {noun}s on {pick(rng, _GROUNDS[scene.ground])}"
    link = pick(rng, (", one of them ", ", one is ", ", including "))
    return f"{number} {noun}s{link}{_one(pick(rng, scene.things), rng)}"


def _glanced(scene: Scene, rng: random.Random) -> str:
    """Name one object and the ground, as after a short look."""
    thing = pick(rng, scene.things)
    return f"{_one(thing, rng)} on {pick(rng, _GROUNDS[scene.ground])}"


def _some(things: Sequence[Thing], rng: random.Random, *, most: int, least: int = 1) -> list[Thing]:
    """Draw between ``least`` and ``most`` of the objects, in random order."""
    left = list(things)
    wanted = min(len(left), least + int(rng.random() * (most - least + 1)))
    return [left.pop(int(rng.random() * len(left))) for _ in range(wanted)]


def _groups(things: Sequence[Thing], rng: random.Random) -> list[str]:
    """Name objects, those of one shape and colour together: "two red circles"."""
    alike: dict[tuple[str, str], list[Thing]] = {}
    for thing in things:
        alike.setdefault((thing.shape, thing.colour), []).append(thing)
    return [_one(group[0], rng) if len(group) == 1 else _several(group, rng) for group in alike.values()]


def _one(thing: Thing, rng: random.Random) -> str:
    words = [*_size(thing, rng), *_colour(thing, rng), pick(rng, _NOUNS[thing.shape])]
    article = "an" if words[0][0] in "aeiou" else "a"
    return " ".join([article, *words])


def _several(group: Sequence[Thing], rng: random.Random) -> str:
    noun = pick(rng, _NOUNS[group[0].shape])
    words = [
        pick(rng, _NUMBERS[len(group)]),
        *_colour(group[0], rng),
        noun + ("es" if noun[-1] in "sx" else "s"),
    ]
    return " ".join(words)


def _size(thing: Thing, rng: random.Random) -> list[str]:
    chance = _SIZE_CHANCE / 3 if thing.size == "medium" else _SIZE_CHANCE  # people seldom say "medium"
    return [pick(rng, _SIZES[thing.size])] if rng.random() < chance else []


def _colour(thing: Thing, rng: random.Random) -> list[str]:
    said = rng.random() < _COLOUR_CHANCE
    return [pick(rng, _COLOURS.get(thing.colour, (thing.colour,)))] if said else []


def _place(thing: Thing, rng: random.Random) -> str:
    return pick(rng, _PLACES[thing.column, thing.row])


def _relation(first: Thing, second: Thing, rng: random.Random) -> str:
    across, down = second.column - first.column, second.row - first.row
    told = []
    if across:
        told.append("to the left of" if across > 0 else "to the right of")
    if down:
        told.append(pick(rng, ("above", "over") if down > 0 else ("below", "under")))
    return pick(rng, told)


def _on_ground(scene: Scene, rng: random.Random) -> str:
    return f" on {pick(rng, _GROUNDS[scene.ground])}" if rng.random() < _GROUND_CHANCE else ""


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
