"""Whatever rows, strings, shard size and order of work: what is written is what is read."""

import string
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from align_cache.store import FeatureSet, FeatureSetWriter
from align_cache.store.verify import verify

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
names = texts.filter(bool)
slugs = st.text(string.ascii_letters + string.digits, min_size=1, max_size=9)
dtypes = st.sampled_from(["float16", "float32", "int32"])
# Each example writes a whole set with its flushes: few of them, and no limit to the time of one.
few = settings(max_examples=40, deadline=None)


@st.composite
def contents(draw: st.DrawFn) -> dict[str, Any]:
    """A feature set: its identity, and one entry for each sample, a skipped one having no row."""
    dtype, rows, dim = draw(dtypes), draw(st.integers(1, 17)), draw(st.integers(1, 9))
    is_tokens = dtype == "int32"
    encoder: dict[str, Any] = {"name": draw(slugs), "modality": "text" if is_tokens else "image"}
    if is_tokens:
        encoder |= {"tokenizer": {}, "max_length": dim, "vocabulary_size": 30, "pad_id": 0}
    of_each = {"min_size": rows, "max_size": rows}
    return {
        "identity": {
            "format": 1,
            "dataset": {
                "name": draw(slugs), "revision": draw(texts), "splits": None, "limit": None,
                "samples": "0" * 64, "rows": rows,
            },
            "encoder": encoder,
            "compute": {},
            "storage": {
                "dtype": dtype, "normalised": not is_tokens, "shard_rows": draw(st.integers(1, rows + 2))
            },
            "corruption": None,
        },
        "rows": _tokens(draw, rows, dim) if is_tokens else _features(draw, rows, dim),
        "sample_id": draw(st.lists(names, unique=True, **of_each)),
        "skipped": draw(st.lists(st.booleans(), **of_each)),
        "group_id": draw(st.none() | st.lists(names, **of_each)),
        "text": draw(st.none() | st.lists(texts, **of_each)),
        "split": draw(st.none() | st.lists(st.none() | names, **of_each)),
        "label": draw(st.none() | st.lists(st.integers(-(2**63), 2**63 - 1), **of_each)),
    }  # fmt: skip


def _features(draw: st.DrawFn, rows: int, dim: int) -> np.ndarray:
    values = np.random.default_rng(draw(st.integers(0, 99))).standard_normal((rows, dim))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def _tokens(draw: st.DrawFn, rows: int, dim: int) -> np.ndarray:
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    ids = generator.integers(1, 30, (rows, dim), dtype=np.int32)
    ids[np.arange(dim) >= generator.integers(1, dim + 1, rows)[:, None]] = 0
    return ids


def write(cache_dir: Path, content: dict[str, Any], order: list[int], sessions: int) -> Path:
    """Write the shards in some order, the work cut into several sessions."""
    parts = [order[start::sessions] for start in range(sessions)]
    for number, part in enumerate(parts):
        with FeatureSetWriter(cache_dir, content["identity"], untrained=False) as writer:
            for index in part:
                _write_shard(writer, index, content)
            if number == sessions - 1:
                writer.finish({})
    return writer.folder


def _write_shard(writer: FeatureSetWriter, index: int, content: dict[str, Any]) -> None:
    of_shard = writer.shard_slices[index]
    kept = [i for i in range(of_shard.start, of_shard.stop) if not content["skipped"][i]]
    left_out = [i for i in range(of_shard.start, of_shard.stop) if content["skipped"][i]]
    columns = {
        name: None if content[name] is None else [content[name][i] for i in kept]
        for name in ("group_id", "text", "split", "label")
    }
    writer.write_shard(
        index,
        features=content["rows"][kept],
        sample_id=[content["sample_id"][i] for i in kept],
        skipped=[(content["sample_id"][i], "a reason") for i in left_out],
        **columns,
    )


def n_shards(identity: dict[str, Any]) -> int:
    return -(-identity["dataset"]["rows"] // identity["storage"]["shard_rows"])


@few
@given(contents(), st.randoms(use_true_random=False), st.integers(1, 3))
def test_a_set_comes_back_as_it_was_given_however_it_was_cut_and_in_whatever_order(
    content: dict[str, Any], random: Any, sessions: int
) -> None:
    order = random.sample(range(n := n_shards(content["identity"])), n)
    with tempfile.TemporaryDirectory() as folder:
        features = FeatureSet.open(write(Path(folder), content, order, sessions))
        kept = [i for i, is_skipped in enumerate(content["skipped"]) if not is_skipped]
        np.testing.assert_array_equal(features.array(), content["rows"][kept].astype(features.dtype))
        assert features.sample_ids.tolist() == [content["sample_id"][i] for i in kept]
        assert [name for name, _ in features.manifest.skipped] == [
            name
            for name, is_skipped in zip(content["sample_id"], content["skipped"], strict=True)
            if is_skipped
        ]
        for column, name in (("group_ids", "group_id"), ("texts", "text"), ("labels", "label")):
            found, given_ = getattr(features, column), content[name]
            assert (None if found is None else found.tolist()) == (
                None if given_ is None or not kept else [given_[i] for i in kept]
            )
        splits = [(content["split"] or [None] * len(content["rows"]))[i] or "" for i in kept]
        assert ([""] * len(kept) if features.splits is None else features.splits.tolist()) == splits
        assert verify(Path(folder)) == []


@few
@given(contents(), st.randoms(use_true_random=False), st.integers(2, 4))
def test_no_order_and_no_partition_of_the_work_changes_a_byte(
    content: dict[str, Any], random: Any, sessions: int
) -> None:
    n = n_shards(content["identity"])
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        whole = write(Path(one), content, list(range(n)), 1)
        pieces = write(Path(other), content, random.sample(range(n), n), sessions)
        assert {path.name: path.read_bytes() for path in pieces.iterdir()} == {
            path.name: path.read_bytes() for path in whole.iterdir()
        }


@few
@given(contents(), st.lists(st.integers(0, 10**6), max_size=30))
def test_any_rows_in_any_order_are_taken_as_plain_indexing_takes_them(
    content: dict[str, Any], wanted: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        features = FeatureSet.open(
            write(Path(folder), content, list(range(n_shards(content["identity"]))), 1)
        )
        rows = np.array([row % features.rows for row in wanted if features.rows], dtype=np.int64)
        np.testing.assert_array_equal(features.take(rows), features.array()[rows])
