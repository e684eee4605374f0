"""Looking ids up among ids, against a dict."""

import numpy as np
import pytest

from align_cache.store.matching import repeated, rows_of


def encoded(ids: list[str]) -> np.ndarray:
    data = [name.encode() for name in ids]
    return np.array(data, dtype=f"S{max(map(len, data), default=1)}")


def plain_rows_of(ids: list[str], known: list[str]) -> list[int]:
    row_of = {name: row for row, name in enumerate(known)}
    return [row_of.get(name, -1) for name in ids]


@pytest.mark.parametrize("n_known", [0, 1, 2, 7, 60])
@pytest.mark.parametrize("n", [0, 1, 2, 61])
@pytest.mark.parametrize("seed", range(4))
def test_rows_are_those_that_a_dict_finds(n: int, n_known: int, seed: int) -> None:
    """Ids of differing widths, some of them prefixes of others, some known, in runs and alone."""
    draw = np.random.default_rng(seed)
    names = np.array([f"{'ä' * (i % 3)}{i}" for i in range(90)])
    known = draw.permutation(names)[:n_known].tolist()
    ids = np.repeat(draw.choice(names, n), draw.integers(1, 4, n)).tolist()
    assert rows_of(encoded(ids), encoded(known)).tolist() == plain_rows_of(ids, known)


@pytest.mark.parametrize("captions", [1, 5])
def test_sets_in_one_order_and_sets_with_some_left_out_are_found_row_by_row(captions: int) -> None:
    known = [f"{i:03d}" for i in range(50)]
    groups = [name for name in known for _ in range(captions)]
    assert rows_of(encoded(groups), encoded(known)).tolist() == plain_rows_of(groups, known)
    fewer = [name for name in known if name != "017"]
    assert rows_of(encoded(groups), encoded(fewer)).tolist() == plain_rows_of(groups, fewer)


def test_an_id_that_stands_twice_is_found_and_unique_ones_give_none() -> None:
    assert repeated(encoded(["b", "a", "ab", "b"])) == b"b"
    assert repeated(encoded(["b", "a", "ab"])) is None
    assert repeated(encoded([])) is None
