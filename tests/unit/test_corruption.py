"""Noise on pixels and words: what each kind does, how levels grow, and that only the sample decides it."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from align_cache.corruption import CAPTION_KINDS, IMAGE_KINDS, MAX_SEVERITY, Noise, parse_noise
from align_cache.corruption.captions import corrupt_captions
from align_cache.corruption.images import STRENGTHS, corrupt_image
from align_cache.errors import UsageError

SEVERITIES = range(1, MAX_SEVERITY + 1)
RATES = (0.1, 0.3, 0.6, 1.0)
DOCUMENT = Path(__file__).parents[2] / "docs" / "noise.md"


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Smooth shades with an edge and some texture, uint8 (3, 96, 96), never near black or white."""
    down, across = np.mgrid[0:96, 0:96]
    grey = 60 + 0.6 * down + 50 * (across > 40) + 12 * np.sin(across) * np.sin(down)
    return np.stack([grey, grey[::-1], grey.T]).round().astype(np.uint8)


def one(text: str, noise: Noise, sample_id: str = "a") -> str:
    return corrupt_captions([text], noise, sample_ids=[sample_id], group_ids=["g"], digest="")[0]


def shuffled(groups: list[str], rate: float, digest: str = "d") -> list[int]:
    """Which caption stands in each caption's place."""
    texts = [str(i) for i in range(len(groups))]
    given = corrupt_captions(texts, Noise("shuffle", rate), sample_ids=texts, group_ids=groups, digest=digest)
    return [int(text) for text in given]


# ---- names ----


@pytest.mark.parametrize("text", ["gaussian:3", "blur:1", "occlusion:5", "jpeg:2", "drop:0.2", "swap:1",
                                  "replace:0.125", "shuffle:0.0001"])  # fmt: skip
def test_the_text_of_noise_reads_back(text: str) -> None:
    assert str(parse_noise(text)) == text


def test_other_spellings_of_a_level_are_the_same_noise() -> None:
    assert parse_noise("drop:.20") == parse_noise("drop:0.2")
    assert parse_noise("drop:1").identity() == parse_noise("drop:1.0").identity()
    assert parse_noise("jpeg:02") == parse_noise("jpeg:2")


@pytest.mark.parametrize("text", ["", "noise:1", "Gaussian:1", "gaussian2", ":3"])
def test_an_unknown_kind_is_refused_with_those_there_are(text: str) -> None:
    with pytest.raises(UsageError, match="there is no noise") as caught:
        parse_noise(text)
    assert all(kind in str(caught.value.hint) for kind in IMAGE_KINDS + CAPTION_KINDS)


@pytest.mark.parametrize(
    "text",
    [*("gaussian", "gaussian:", "gaussian:0", "gaussian:6", "gaussian:2.5", "jpeg:x"),
     *("drop", "drop:0", "drop:-0.1", "drop:1.01", "drop:nan", "drop:inf")],
)  # fmt: skip
def test_a_level_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"the level of {text.partition(':')[0]} is"):
        parse_noise(text)


def test_the_identity_of_noise_names_kind_level_and_version() -> None:
    assert parse_noise("gaussian:3").identity() == {"kind": "gaussian", "severity": 3, "version": 1}
    assert parse_noise("drop:0.2").identity() == {"kind": "drop", "rate": 0.2, "version": 1}


def test_the_document_lists_every_strength() -> None:
    rows = [line.strip("|").split("|") for line in DOCUMENT.read_text(encoding="utf-8").splitlines()]
    documented: dict[str, list[str]] = {}
    for row in rows:
        if len(row) == 7:  # the table of images comes first; that of features has kinds of the same names
            documented.setdefault(row[0].strip().strip("`"), [cell.strip() for cell in row[2:]])
    for kind, strengths in STRENGTHS.items():
        factor, unit = (1, "") if kind == "jpeg" else (100, "%")
        assert documented[kind] == [f"{strength * factor:.3g}{unit}" for strength in strengths]
    assert STRENGTHS.keys() == set(IMAGE_KINDS)


# ---- images ----


@pytest.mark.parametrize("kind", IMAGE_KINDS)
@pytest.mark.parametrize("side", [1, 17, 64])
def test_noise_keeps_form_and_leaves_the_given_image_alone(kind: str, side: int) -> None:
    pixels = np.random.default_rng(side).integers(0, 256, (3, side, side), dtype=np.uint8)
    before = pixels.copy()
    noisy = corrupt_image(pixels, Noise(kind, 3), sample_id="a")
    assert (noisy.shape, noisy.dtype, noisy.flags.c_contiguous) == (pixels.shape, np.uint8, True)
    assert (pixels == before).all()


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_a_higher_severity_changes_more(kind: str, picture: np.ndarray) -> None:
    noisy = [corrupt_image(picture, Noise(kind, severity), sample_id="a") for severity in SEVERITIES]
    changes = [np.abs(image.astype(float) - picture).mean() for image in noisy]
    assert changes[0] > 0
    assert (np.diff(changes) > 0).all()


@pytest.mark.parametrize("kind", ["gaussian", "occlusion"])
def test_the_id_and_the_kind_decide_what_is_drawn(kind: str, picture: np.ndarray) -> None:
    same = [corrupt_image(picture, Noise(kind, 3), sample_id="a") for _ in range(2)]
    other = corrupt_image(picture, Noise(kind, 3), sample_id="b")
    assert (same[0] == same[1]).all()
    assert (same[0] != other).any()


def test_gaussian_noise_is_one_field_scaled_by_the_severity() -> None:
    grey = np.full((3, 50, 50), 128, dtype=np.uint8)
    fields = []
    for severity, strength in zip((1, 2), STRENGTHS["gaussian"], strict=False):
        noisy = corrupt_image(grey, Noise("gaussian", severity), sample_id="a")
        fields.append((noisy.astype(float) - 128) / (255 * strength))
    rounding = sum(0.5 / (255 * strength) for strength in STRENGTHS["gaussian"][:2])
    assert np.abs(fields[0] - fields[1]).max() <= rounding + 1e-5
    assert abs(fields[1].std() - 1) < 0.03
    assert abs(fields[1].mean()) < 0.03


def test_gaussian_noise_is_cut_at_black_and_white_and_never_wraps() -> None:
    half = np.zeros((3, 40, 40), dtype=np.uint8)
    half[:, 20:] = 255
    noisy = corrupt_image(half, Noise("gaussian", 1), sample_id="a")
    assert noisy[:, :20].max() < 128 <= noisy[:, 20:].min()


@pytest.mark.parametrize("side", [13, 64, 224])
def test_the_covered_square_has_its_share_of_the_area_and_grows_around_the_smaller_ones(side: int) -> None:
    for name in map(str, range(20)):
        smaller = np.zeros((side, side), dtype=bool)
        for severity, share in zip(SEVERITIES, STRENGTHS["occlusion"], strict=True):
            noisy = corrupt_image(
                np.zeros((3, side, side), np.uint8), Noise("occlusion", severity), sample_id=name
            )
            covered = (noisy == 128).all(axis=0)
            assert ((noisy == 0).all(axis=0) == ~covered).all()
            assert abs(covered.sum() ** 0.5 - side * share**0.5) <= 0.5
            assert covered[smaller].all()
            smaller = covered


@pytest.mark.parametrize("side", [64, 224])
@pytest.mark.parametrize("severity", [3, 4, 5])
def test_the_blur_of_an_edge_is_as_wide_as_the_severity_says_at_any_size(side: int, severity: int) -> None:
    edge = np.zeros((3, side, side), dtype=np.uint8)
    edge[:, :, side // 2 :] = 255
    profile = corrupt_image(edge, Noise("blur", severity), sample_id="a")[0, side // 2].astype(float)
    weights = np.diff(profile) / 255
    places = np.arange(side - 1)
    width = np.sqrt((weights * (places - (weights * places).sum()) ** 2).sum())
    expected = STRENGTHS["blur"][severity - 1] * side
    assert abs(width - expected) < 0.1 * expected + 0.05


# ---- words ----


@pytest.mark.parametrize("kind", ["drop", "swap", "replace"])
@pytest.mark.parametrize("text", ["", "   ", "\t"])
def test_a_caption_without_words_stays_as_it_is(kind: str, text: str) -> None:
    assert one(text, Noise(kind, 1.0)) == text


@pytest.mark.parametrize("kind", ["drop", "swap", "replace"])
def test_a_caption_in_which_nothing_changes_keeps_its_spaces(kind: str) -> None:
    text = "two  spaces\tand a tab"
    assert one(text, Noise(kind, 1e-9)) == text


@pytest.mark.parametrize("kind", ["drop", "swap"])
def test_a_captions_words_do_not_depend_on_the_other_captions(kind: str) -> None:
    texts = [f"a dog number {i} runs over the grass" for i in range(30)]
    noise, ids = Noise(kind, 0.5), [str(i) for i in range(30)]
    forwards = corrupt_captions(texts, noise, sample_ids=ids, group_ids=ids, digest="x")
    backwards = corrupt_captions(texts[::-1], noise, sample_ids=ids[::-1], group_ids=ids[::-1], digest="y")
    assert forwards == backwards[::-1] == [one(text, noise, i) for text, i in zip(texts, ids, strict=True)]
    assert len({text.replace(i, "") for text, i in zip(forwards, ids, strict=True)}) > 10


@pytest.mark.parametrize("words", [1, 2, 3, 20])
def test_words_dropped_at_a_rate_are_dropped_at_every_higher_one_and_one_always_stays(words: int) -> None:
    text = " ".join(f"w{i}" for i in range(words))
    for sample_id in map(str, range(30)):
        kept = [one(text, Noise("drop", rate), sample_id).split() for rate in RATES]
        for more, fewer in pairwise(kept):
            assert set(fewer) <= set(more)
        assert all(line == sorted(line, key=text.split().index) for line in kept)
        assert len(kept[-1]) == 1


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_the_share_of_words_that_go_or_are_moved_is_the_rate(rate: float) -> None:
    text = " ".join(f"w{i}" for i in range(20_000))
    dropped = 20_000 - len(one(text, Noise("drop", rate)).split())
    moved = sum(a != b for a, b in zip(one(text, Noise("swap", rate)).split(), text.split(), strict=True))
    assert abs(dropped / 20_000 - rate) < 0.02
    assert abs(moved / 20_000 - rate) < 0.02


@pytest.mark.parametrize("words", [1, 2, 3, 21])
def test_swapping_exchanges_disjoint_neighbours_and_more_of_them_at_a_higher_rate(words: int) -> None:
    before = [f"w{i}" for i in range(words)]
    for sample_id in map(str, range(30)):
        smaller: set[int] = set()
        for rate in RATES:
            after = one(" ".join(before), Noise("swap", rate), sample_id).split()
            assert sorted(after) == sorted(before)
            moved = {i for i in range(words) if after[i] != before[i]}
            assert all(abs(before.index(after[i]) - i) == 1 for i in moved)
            assert smaller <= moved
            smaller = moved


def test_a_word_is_replaced_by_the_same_other_word_at_every_rate_that_reaches_it() -> None:
    texts = ["a b c d e f", "a a b", "g"]
    for sample_id in map(str, range(30)):
        replaced: dict[int, str] = {}
        for rate in RATES:
            ids = [sample_id, "x", "y"]
            line = corrupt_captions(texts, Noise("replace", rate), sample_ids=ids, group_ids=ids, digest="")[
                0
            ]
            now = {i: word for i, word in enumerate(line.split()) if word != texts[0].split()[i]}
            assert replaced.items() <= now.items()
            assert set(now.values()) <= set("abcdefg")
            replaced = now
        assert len(replaced) == 6


def test_replacements_are_as_frequent_as_their_words_are_in_the_captions() -> None:
    texts = ["x " * 6000, "a " * 3000 + "b " * 1000]
    ids = ["1", "2"]
    given = corrupt_captions(texts, Noise("replace", 1.0), sample_ids=ids, group_ids=ids, digest="")
    for_x = Counter(given[0].split())
    assert for_x.keys() == {"a", "b"}
    assert abs(for_x["a"] / 6000 - 0.75) < 0.02
    for_a = Counter(given[1].split()[:3000])
    assert for_a.keys() == {"b", "x"}
    assert abs(for_a["x"] / 3000 - 6 / 7) < 0.02


def test_where_there_is_but_one_word_nothing_can_replace_it() -> None:
    assert one("dog dog", Noise("replace", 1.0)) == "dog dog"


# ---- captions of other images ----


@pytest.mark.parametrize("sizes", [[1, 1], [3, 3], [1, 2, 3], [5] * 40, [1] * 7, [10, 4, 3, 2, 1]], ids=str)
@pytest.mark.parametrize("digest", ["d", "e", "f"])
def test_shuffled_captions_are_all_there_and_none_is_with_its_own_image(
    sizes: list[int], digest: str
) -> None:
    groups = [str(g) for g, size in enumerate(sizes) for _ in range(size)]
    givers = shuffled(groups, 1.0, digest)
    assert sorted(givers) == list(range(len(groups)))
    assert all(groups[giver] != group for giver, group in zip(givers, groups, strict=True))


def test_a_share_of_the_captions_is_shuffled_and_the_same_ones_at_a_higher_share() -> None:
    groups = [str(i // 5) for i in range(500)]
    smaller: set[int] = set()
    for rate in RATES:
        givers = shuffled(groups, rate)
        moved = {i for i, giver in enumerate(givers) if giver != i}
        assert len(moved) == round(rate * 500)
        assert all(groups[givers[i]] != groups[i] for i in moved)
        assert sorted(givers) == list(range(500))
        assert smaller <= moved
        smaller = moved


def test_the_dataset_decides_which_captions_are_shuffled() -> None:
    groups = [str(i // 5) for i in range(100)]
    assert shuffled(groups, 0.5) == shuffled(groups, 0.5)
    assert shuffled(groups, 0.5) != shuffled(groups, 0.5, "other")


@pytest.mark.parametrize(("groups", "rate"), [(["a"] * 4, 1.0), (["a", "a", "b"], 1.0), (["a", "b"], 0.1)])
def test_shuffling_what_cannot_be_is_refused(groups: list[str], rate: float) -> None:
    with pytest.raises(UsageError, match="each is to get another image's"):
        shuffled(groups, rate)
