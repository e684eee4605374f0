"""Reading: rows against a plain reference, refusals, and finding a set by name."""

import errno
import mmap
import threading
from dataclasses import replace

import numpy as np
import pytest

from align_cache.errors import CacheError, CorruptError, ShapeError
from align_cache.store import FeatureSet, Manifest, find, open_feature_set

COLUMNS = {
    "group_id": [f"group-{row // 2}" for row in range(10)],
    "label": list(range(9, -1, -1)),
    "split": ["train"] * 5 + ["val"] * 4 + [None],
    "text": ["", "ä", "日本語", "🙂", " spaces ", "line\nbreak", "x" * 99, "\t", "e\u0301", "\U0010ffff"],
}


@pytest.fixture(params=[1, 3, 4, 10, 64], ids=lambda rows: f"shards of {rows}")
def features(request, write_toy, toy_identity) -> FeatureSet:
    return FeatureSet.open(write_toy(toy_identity(shard_rows=request.param), columns=COLUMNS))


def test_columns_come_back_as_they_were_given(features):
    assert features.sample_ids.tolist() == [f"image-{row}" for row in range(10)]
    assert features.group_ids.tolist() == COLUMNS["group_id"]
    assert features.labels.tolist() == COLUMNS["label"]
    assert features.splits.tolist() == [split or "" for split in COLUMNS["split"]]
    assert features.texts.tolist() == COLUMNS["text"]


def test_absent_columns_are_none(write_toy):
    features = FeatureSet.open(write_toy())
    assert (features.group_ids, features.labels, features.splits, features.texts) == (None, None, None, None)


def test_a_set_says_what_it_is(write_toy, toy_identity):
    features = FeatureSet.open(write_toy(toy_identity(encoder="timm:vit", modality="text")))
    assert (features.dataset, features.encoder, features.modality) == ("toy", "timm:vit", "text")
    assert (features.rows, features.dim, features.untrained, features.label_names) == (10, 5, True, ())
    assert features.name == f"toy/timm:vit@{features.key8}"
    assert repr(features) == f"FeatureSet({features.name}, 10 x 5 float16)"
    assert features.folder.name == f"timm-vit-{features.key8}"


@pytest.mark.parametrize(
    "rows", [[], [0], [9], [9, 0, 9, 3, 4, 4, 8], list(range(10)), list(range(9, -1, -1))]
)
@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8, np.uint64])
def test_take_gives_what_plain_indexing_gives(features, rows, kind):
    plain = np.concatenate([np.array(shard) for shard in features.shards])
    np.testing.assert_array_equal(features.take(np.array(rows, kind)), plain[np.array(rows, int)])


def test_take_writes_into_what_it_is_given(features):
    out = np.full((3, 5), 7, np.float16)
    assert features.take(np.array([2, 9, 2]), out) is out
    np.testing.assert_array_equal(out, features.array()[[2, 9, 2]])


@pytest.mark.parametrize("rows", [[-1], [10], [0, 11], [-1, 3]])
def test_take_refuses_rows_outside_the_set(features, rows):
    with pytest.raises(IndexError, match="10 rows"):
        features.take(np.array(rows))


@pytest.mark.parametrize(
    "out",
    [
        np.empty((2, 5), np.float32),
        np.empty((3, 5), np.float16),
        np.empty((2, 10), np.float16)[:, ::2],
        np.empty((5, 2), np.float16).T,
    ],
)
def test_take_refuses_an_out_that_does_not_fit(features, out):
    with pytest.raises(ShapeError, match="expected contiguous"):
        features.take(np.array([0, 1]), out)
    with pytest.raises(ShapeError, match="expected one dimension"):
        features.take(np.array([[0, 1]]))


def base_of(array: np.ndarray) -> object:
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array


def test_one_shard_is_the_map_itself_and_no_copy(write_toy, toy_identity):
    features = FeatureSet.open(write_toy(toy_identity(shard_rows=10)))
    assert features.array() is features.shards[0]
    assert isinstance(base_of(features.array()), mmap.mmap)
    assert not features.array().flags.writeable


def test_readers_keep_their_rows_while_the_set_is_written_anew(write_toy):
    folder = write_toy()
    features = FeatureSet.open(folder)
    before = features.array().copy()
    write_toy(overwrite=True, stop=0, finish=False)
    np.testing.assert_array_equal(features.take(np.arange(10)), before)
    with pytest.raises(CacheError, match="unfinished"):
        FeatureSet.open(folder)


def test_many_readers_at_once_see_the_same_rows(write_toy):
    folder, results = write_toy(), []
    plain = FeatureSet.open(folder).array()

    def read() -> None:
        results.append(np.array_equal(FeatureSet.open(folder).take(np.arange(10)), plain))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 8


def test_a_damaged_set_is_refused_naming_the_file_and_the_way_out(write_toy):
    folder = write_toy()
    path = folder / "shard-00001.h5"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptError, match=r"shard-00001\.h5 is damaged") as caught:
        FeatureSet.open(folder)
    assert "rebuilds" in caught.value.hint
    path.write_bytes(data[:-1])
    with pytest.raises(CorruptError, match=r"has [\d,]+ bytes, expected"):
        FeatureSet.open(folder, verify=False)


def test_shards_that_changed_places_are_refused(write_toy):
    folder = write_toy()
    first, second = (folder / f"shard-0000{index}.h5" for index in (0, 1))
    swapped = second.read_bytes(), first.read_bytes()
    first.write_bytes(swapped[0])
    second.write_bytes(swapped[1])
    with pytest.raises(CorruptError, match="is another shard than the one that was published"):
        FeatureSet.open(folder)


def test_a_shard_of_another_set_under_a_forged_manifest_is_refused(write_toy, toy_identity):
    stranger, folder = write_toy(toy_identity(seed=1)), write_toy()
    (folder / "shard-00000.h5").write_bytes((stranger / "shard-00000.h5").read_bytes())
    forged = FeatureSet.open(stranger).manifest.model_dump() | {"identity": toy_identity()}
    (folder / "manifest.json").write_bytes(Manifest.model_validate(forged).to_bytes())
    with pytest.raises(CorruptError, match="belongs elsewhere: its key is"):
        FeatureSet.open(folder)


@pytest.fixture
def cache(write_toy, toy_identity, cache_dir):
    for dataset, encoder, batch in (
        ("flowers", "resnet18", 8),
        ("flowers", "resnet18", 16),
        ("birds", "dinov2", 8),
    ):
        write_toy(toy_identity(dataset=dataset, encoder=encoder, batch=batch))
    return cache_dir


def test_find_goes_by_dataset_encoder_and_head_of_the_key(cache):
    both = find(cache, dataset="flowers")
    assert len(both) == 2
    assert len(find(cache)) == 3
    assert find(cache, encoder=f"resnet18@{both[1].manifest.key[:5]}") == [both[1]]
    assert find(cache, encoder="resnet18@") == find(cache, encoder="resnet") == find(cache, dataset="x") == []
    assert find(cache / "nowhere") == []


def test_the_one_set_that_answers_is_opened(cache):
    assert open_feature_set("birds", "dinov2", cache_dir=cache).dataset == "birds"


def test_a_set_that_is_not_there_is_refused_with_the_nearest_name_and_the_command(cache):
    with pytest.raises(
        CacheError, match=r"no feature set of flowers by resnet81 .* there are resnet18"
    ) as caught:
        open_feature_set("flowers", "resnet81", cache_dir=cache)
    assert caught.value.hint == "align-cache extract --dataset flowers --encoder resnet81"
    for asked, name in {"net@12ab": "net", "hf:owner/net@main": "hf:owner/net@main"}.items():
        with pytest.raises(CacheError) as caught:
            open_feature_set("flowers", asked, cache_dir=cache)
        assert caught.value.hint == f"align-cache extract --dataset flowers --encoder {name}"
    with pytest.raises(CacheError, match="there are flowers"):
        open_feature_set("flower", "resnet18", cache_dir=cache)
    with pytest.raises(CacheError, match="the cache has no finished feature sets"):
        open_feature_set("flowers", "resnet18", cache_dir=cache / "empty")


def test_several_sets_are_refused_with_what_differs(cache):
    with pytest.raises(CacheError, match="2 feature sets of flowers answer to resnet18") as caught:
        open_feature_set("flowers", "resnet18", cache_dir=cache)
    keys = [stored.manifest.key8 for stored in find(cache, dataset="flowers")]
    assert all(f"resnet18@{key}" in caught.value.hint for key in keys)
    assert "compute.batch" in caught.value.hint
    assert open_feature_set("flowers", f"resnet18@{keys[0]}", cache_dir=cache).key8 == keys[0]


def test_a_set_with_an_unreadable_manifest_hides_no_other_and_is_counted(cache):
    folder = find(cache, dataset="birds")[0].folder
    (folder / "manifest.json").write_bytes(b"")
    assert len(find(cache)) == 2
    with pytest.raises(CacheError, match="1 cannot be read"):
        open_feature_set("birds", "dinov2", cache_dir=cache)


def test_columns_as_bytes_and_single_words_are_those_of_the_decoded_columns(features):
    for column, decoded in {"sample_id": features.sample_ids, "group_id": features.group_ids,
                            "split": features.splits, "text": features.texts}.items():  # fmt: skip
        encoded = features.encoded(column)
        assert [name.decode() for name in encoded.tolist()] == decoded.tolist()
        assert [features.words(column, row) for row in range(10)] == decoded.tolist()


def test_a_column_that_is_not_there_has_neither_bytes_nor_words(write_toy):
    features = FeatureSet.open(write_toy())
    assert features.encoded("text") is None
    assert features.words("text", 3) is None


def test_words_that_are_no_utf8_are_refused_under_a_right_checksum(write_toy):
    """Bytes that the writer would not take, put in by hand."""
    folder = write_toy()
    features = FeatureSet.open(folder)
    first, second, *others = features._shards
    forged = replace(second, columns={**second.columns, "sample_id": np.array([b"\xff"] * 4)})
    features._shards = (first, forged, *others)
    for read in (lambda: features.sample_ids, lambda: features.encoded("sample_id"),
                 lambda: features.words("sample_id", 5)):  # fmt: skip
        with pytest.raises(CorruptError, match=r"sample_id in .* is not UTF-8"):
            read()


def test_more_shards_than_can_be_mapped_are_refused_with_the_way_out(write_toy, monkeypatch):
    folder = write_toy()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(np, "memmap", full)
    with pytest.raises(CacheError, match="holds as many maps as the system allows") as caught:
        FeatureSet.open(folder)
    assert "vm.max_map_count" in caught.value.hint
