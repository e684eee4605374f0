"""Noise on the words of captions, and captions of other images.

Chance is Python's ``random.Random.random``, which gives the same numbers in every version. Rates are nested:
the words that are dropped, swapped or replaced at one rate are so at every higher one, and so are the
captions that are shuffled.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from random import Random
from typing import TypeAlias

from align_cache.corruption import Noise
from align_cache.errors import UsageError

_Change: TypeAlias = Callable[[list[str], float, Random], list[str]]
"""From the words of one caption, a rate and its own chance to other words."""


def corrupt_captions(
    texts: Sequence[str], noise: Noise, *, sample_ids: Sequence[str], group_ids: Sequence[str], digest: str
) -> list[str]:
    """Return all captions of a dataset with noise on them, in their order.

    Parameters
    ----------
    texts : sequence of str
        Words are what white space parts. A caption in which nothing changes is returned as it is; in any
        other the words are parted by single spaces.
    noise : Noise
        Of a kind for captions.
    sample_ids, group_ids : sequences of str
        Each caption's id, which decides what is drawn for its words, and its image's.
    digest : str
        Stands for the captions; decides which ones are shuffled, and how.

    Returns
    -------
    list of str, as many as ``texts``

    Raises
    ------
    UsageError
        If captions are to be shuffled and there are too few, or one image has more than half of them.
    """
    if noise.kind == "shuffle":
        return _shuffled(texts, noise, group_ids, digest)
    change = _change(noise.kind, texts)
    return [
        _changed(text, noise, change, sample_id) for text, sample_id in zip(texts, sample_ids, strict=True)
    ]


def _change(kind: str, texts: Iterable[str]) -> _Change:
    if kind == "replace":
        return _Replacing(texts)
    return _dropped if kind == "drop" else _swapped


def _changed(text: str, noise: Noise, change: _Change, sample_id: str) -> str:
    words = text.split()
    changed = change(words, noise.level, Random(f"{noise.kind}:{sample_id}")) if words else words
    return text if changed == words else " ".join(changed)


def _dropped(words: list[str], rate: float, random: Random) -> list[str]:
    """Leave out each word with probability ``rate``; of a caption that would lose all, one stays."""
    draws = [random.random() for _ in words]
    stays = max(draws)
    return [word for word, draw in zip(words, draws, strict=True) if draw >= rate or draw == stays]


def _swapped(words: list[str], rate: float, random: Random) -> list[str]:
    """Exchange the words of each pair of neighbours with probability ``rate``.

    Pairs are disjoint, and begin with the first or the second word: no word moves by more than one place.
    """
    swapped = list(words)
    for i in range(int(random.random() < 0.5), len(words) - 1, 2):
        if random.random() < rate:
            swapped[i], swapped[i + 1] = words[i + 1], words[i]
    return swapped


class _Replacing:
    """Put, with probability ``rate``, another word of the captions in a word's place.

    It is drawn by how often it occurs in them.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        counts = sorted(Counter(word for text in texts for word in text.split()).items())
        self._words = [word for word, _ in counts]
        self._counts = dict(counts)
        self._ends = list(accumulate(count for _, count in counts))
        self._starts = dict(zip(self._words, [0, *self._ends], strict=False))

    def __call__(self, words: list[str], rate: float, random: Random) -> list[str]:
        draws = [(random.random(), random.random()) for _ in words]
        return [
            self._other(word, place) if draw < rate else word
            for word, (draw, place) in zip(words, draws, strict=True)
        ]

    def _other(self, word: str, place: float) -> str:
        """Return the word at a place from 0 to 1 of all words in a row, those that are ``word`` left out."""
        others = self._ends[-1] - self._counts[word]
        if not others:
            return word
        index = int(place * others)
        index += self._counts[word] if index >= self._starts[word] else 0
        return self._words[bisect_right(self._ends, index)]


def _shuffled(texts: Sequence[str], noise: Noise, group_ids: Sequence[str], digest: str) -> list[str]:
    """Permute a share of the captions so that none of these stays with its image; the others stay."""
    random = Random(f"{noise.kind}:{digest}")
    chosen = _drawn_order(range(len(texts)), random)[: round(noise.level * len(texts))]
    largest = max(Counter(group_ids[i] for i in chosen).values(), default=0)
    if not chosen or 2 * largest > len(chosen):
        raise UsageError(
            f"{noise} takes {len(chosen)} of {len(texts)} captions, {largest} of one image: "
            "each is to get another image's"
        )
    givers = _drawn_order(chosen, random)
    _part_groups(givers, [group_ids[i] for i in chosen], group_ids, random)
    shuffled = list(texts)
    for taker, giver in zip(chosen, givers, strict=True):
        shuffled[taker] = texts[giver]
    return shuffled


def _part_groups(givers: list[int], groups: Sequence[str], group_ids: Sequence[str], random: Random) -> None:
    """Exchange givers until none is of its taker's group; ``groups`` are those of the takers.

    A taker with a giver of its own group g exchanges with one that neither is of g nor has a giver of g.
    There is one as long as no group has more than half of the takers, and neither is left with its own group.
    """
    for place, group in enumerate(groups):
        if group_ids[givers[place]] == group:
            fit = [i for i, giver in enumerate(givers) if group not in (groups[i], group_ids[giver])]
            other = fit[int(random.random() * len(fit))]
            givers[place], givers[other] = givers[other], givers[place]


def _drawn_order(items: Sequence[int], random: Random) -> list[int]:
    draws = [random.random() for _ in items]
    return [items[i] for i in sorted(range(len(items)), key=draws.__getitem__)]
