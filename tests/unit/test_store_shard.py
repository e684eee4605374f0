"""One shard file: read by hand, byte for byte, and attacked in every way HDF5 offers."""

import struct
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from align_cache.errors import CacheError, CorruptError
from align_cache.store.columns import encode_strings
from align_cache.store.shard import encode_shard, open_shard

KEY = "ab" * 32


def columns(rows: int = 3, dim: int = 2, **changes) -> dict[str, np.ndarray]:
    """The columns of a small valid shard, with some changed or, given None, left out."""
    base = {
        "features": np.arange(rows * dim, dtype="<f2").reshape(rows, dim),
        "sample_id": np.array([f"id{row}".encode() for row in range(rows)], dtype="S3"),
        "split": np.array([b"train"] * rows, dtype="S5"),
        "skipped_id": np.array([], dtype="S1"),
        "skipped_reason": np.array([], dtype="S1"),
    }
    return {name: value for name, value in (base | changes).items() if value is not None}


def encode(**changes) -> bytes:
    return encode_shard(key=KEY, index=7, columns=columns(**changes), counts={"truncated": 2})


def sealed(body: bytes) -> bytes:
    """Put a header in front of a forged body, as docs/cache-format.md says it."""
    text = f"align-cache shard\nformat 1\nxxh3_128 {xxhash.xxh3_128_hexdigest(body)}\n"
    return text.encode().ljust(512, b"\0") + body


def text_attribute(value: str) -> np.ndarray:
    return np.array(value.encode(), dtype=h5py.string_dtype("utf-8", len(value)))


def forge(path: Path, change: Callable[[h5py.File], None], **options) -> Path:
    """Write a shard through plain h5py, change it, and give it a checksum that fits."""
    options = {"alignment_threshold": 1, "alignment_interval": 64} | options
    with h5py.File(path, "w", userblock_size=512, **options) as file:
        for name, values in columns().items():
            tagged = (
                values.astype(h5py.string_dtype("utf-8", values.itemsize)) if name != "features" else values
            )
            file.create_dataset(name, data=tagged)
        file.attrs["format"], file.attrs["index"] = np.int64(1), np.int64(7)
        file.attrs["key"], file.attrs["counts"] = text_attribute(KEY), text_attribute("{}")
        change(file)
    path.write_bytes(sealed(path.read_bytes()[512:]))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shard-00007.h5"


def test_the_forge_itself_makes_a_shard_that_opens(path):
    shard = open_shard(forge(path, lambda file: None))
    assert shard.key == KEY
    assert shard.features.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_a_shard_is_its_header_and_hdf5_with_the_features_at_a_multiple_of_64():
    data = encode()
    text, _, rest = data[:512].partition(b"\n\0")
    assert text.decode() == f"align-cache shard\nformat 1\nxxh3_128 {xxhash.xxh3_128_hexdigest(data[512:])}"
    assert not rest.strip(b"\0")
    assert data[512:520] == b"\x89HDF\r\n\x1a\n"
    raw_features = struct.pack("<6e", 0, 1, 2, 3, 4, 5)
    places = [place for place in range(0, len(data), 64) if data[place : place + 12] == raw_features]
    assert len(places) == 1


def test_any_hdf5_reader_opens_a_shard_and_finds_the_bytes_at_the_offset(path):
    data = encode()
    path.write_bytes(data)
    with h5py.File(path) as file:
        offset = file["features"].id.get_offset()
        assert file.userblock_size == 512
        assert file["features"].dtype.str == "<f2"
        assert file["sample_id"].asstr()[:].tolist() == ["id0", "id1", "id2"]
    assert offset % 64 == 0
    assert data[offset : offset + 12] == struct.pack("<6e", 0, 1, 2, 3, 4, 5)


def test_the_same_content_gives_the_same_bytes_in_any_order_of_columns():
    reordered = dict(reversed(columns().items()))
    assert encode_shard(key=KEY, index=7, columns=reordered, counts={"truncated": 2}) == encode()


def test_no_clock_is_in_the_bytes():
    before = int(time.time())
    data = encode()
    stamps = [struct.pack("<I", second) for second in range(before, int(time.time()) + 1)]
    assert not any(stamp in data for stamp in stamps)


def test_what_is_written_is_what_is_opened(path):
    label = np.array([3, -1, 2**40], dtype="<i8")
    skipped = np.array([b"x1", b"x2"], dtype="S2")
    path.write_bytes(encode(label=label, skipped_id=skipped, skipped_reason=skipped))
    shard = open_shard(path)
    assert (shard.key, shard.index, shard.counts, shard.rows) == (KEY, 7, {"truncated": 2}, 3)
    assert shard.features.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert shard.columns["label"].tolist() == label.tolist()
    assert shard.columns["skipped_id"].tolist() == [b"x1", b"x2"]
    assert not shard.features.flags.writeable


def test_a_shard_without_rows_opens(path):
    path.write_bytes(encode(rows=0))
    assert open_shard(path).features.shape == (0, 2)


def test_every_flipped_byte_is_found(path):
    data = encode()
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 0x10
        path.write_bytes(bytes(flipped))
        with pytest.raises(CacheError):
            open_shard(path)


@pytest.mark.parametrize("length", [0, 1, 511, 512, 513, 2000, -1])
def test_a_truncated_or_extended_shard_is_refused(path, length):
    data = encode()
    path.write_bytes(data[:length])
    with pytest.raises(CorruptError):
        open_shard(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(CorruptError, match="do not fit its checksum"):
        open_shard(path)


def test_a_zeroed_page_is_refused(path):
    data = bytearray(encode(rows=5000))
    data[8192:12288] = bytes(4096)
    path.write_bytes(bytes(data))
    with pytest.raises(CorruptError, match="do not fit its checksum"):
        open_shard(path)


def test_a_newer_format_is_refused_by_its_number(path):
    path.write_bytes(encode().replace(b"format 1\n", b"format 2\n", 1))
    with pytest.raises(CacheError, match="format 2, this align-cache reads up to 1"):
        open_shard(path)


def test_a_missing_a_linked_and_a_foreign_file_are_told_apart(path, tmp_path):
    with pytest.raises(CorruptError, match="is missing"):
        open_shard(path)
    (tmp_path / "real").write_bytes(encode())
    path.symlink_to(tmp_path / "real")
    with pytest.raises(CorruptError, match="is not a regular file"):
        open_shard(path)
    (tmp_path / "text").write_bytes(b"hello " * 200)
    with pytest.raises(CorruptError, match="no header"):
        open_shard(tmp_path / "text")


def replace(file: h5py.File, name: str, **options) -> None:
    del file[name]
    file.create_dataset(name, **options)


def external_storage(file: h5py.File) -> None:
    secret = Path(file.filename).with_name("secret")
    secret.write_bytes(b"s" * 12)
    replace(file, "features", shape=(3, 2), dtype="<f2", external=[(str(secret), 0, 12)])


def external_link(file: h5py.File) -> None:
    del file["features"]
    file["features"] = h5py.ExternalLink("other.h5", "/features")


def soft_link(file: h5py.File) -> None:
    file.move("features", "text")
    file["features"] = h5py.SoftLink("/text")


def virtual(file: h5py.File) -> None:
    del file["features"]
    layout = h5py.VirtualLayout((3, 2), "<f2")
    layout[:] = h5py.VirtualSource("other.h5", "features", (3, 2))
    file.create_virtual_dataset("features", layout)


def compact(file: h5py.File) -> None:
    del file["features"]
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.COMPACT)
    space, kind = h5py.h5s.create_simple((3, 2)), h5py.h5t.py_create(np.dtype("<f2"))
    h5py.h5d.create(file.id, b"features", kind, space, properties)


def space_padded(file: h5py.File) -> None:
    del file["sample_id"]
    kind = h5py.h5t.py_create(h5py.string_dtype("utf-8", 3), logical=True).copy()
    kind.set_strpad(h5py.h5t.STR_SPACEPAD)
    h5py.h5d.create(file.id, b"sample_id", kind, h5py.h5s.create_simple((3,)))


HALVES = np.zeros((3, 2), "<f2")
ATTACKS: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "external storage": (external_storage, "features is stored in another file"),
    "external link": (external_link, "features is a soft or external link"),
    "soft link": (soft_link, "features is a soft or external link"),
    "virtual": (virtual, "features is virtual"),
    "compact": (compact, "features is compact"),
    "chunked": (lambda f: replace(f, "features", data=HALVES, chunks=(1, 2)), "features is chunked"),
    "compressed": (lambda f: replace(f, "features", data=HALVES, compression="gzip"), "features is chunked"),
    "resizable": (lambda f: replace(f, "features", data=HALVES, maxshape=(None, 2)), "features is chunked"),
    "big-endian": (lambda f: replace(f, "features", data=HALVES.astype(">f2")), "dtype >f2"),
    "float64": (lambda f: replace(f, "features", data=HALVES.astype("<f8")), "dtype <f8"),
    "integers": (lambda f: replace(f, "features", data=HALVES.astype("<i2")), "dtype <i2"),
    "one dimension": (lambda f: replace(f, "features", data=HALVES[:, 0]), r"shape \(3,\)"),
    "scalar": (lambda f: replace(f, "features", data=np.float16(1)), r"shape \(\)"),
    "no dataspace": (lambda f: replace(f, "features", data=h5py.Empty("<f2")), r"shape \(\)"),
    "shape bomb": (lambda f: replace(f, "features", shape=(1 << 40, 768), dtype="<f2"), "never written"),
    "never written": (lambda f: replace(f, "features", shape=(3, 2), dtype="<f2"), "was never written"),
    "empty shape bomb": (lambda f: replace(f, "features", shape=(0, 1 << 62), dtype="<f2"), "is not a shard"),
    "fewer rows": (lambda f: replace(f, "features", data=HALVES[:2]), "sample_id has 3 rows, expected 2"),
    "group": (lambda f: (f.move("features", "text"), f.create_group("features")), "features is no dataset"),
    "unknown dataset": (lambda f: f.create_dataset("extra", data=[1]), r"unknown datasets \['extra'\]"),
    "missing dataset": (lambda f: f.__delitem__("split"), r"missing datasets \['split'\]"),
    "big-endian label": (lambda f: f.create_dataset("label", data=np.zeros(3, ">i8")), "label has dtype >i8"),
    "ascii ids": (lambda f: replace(f, "sample_id", data=np.array([b"a"] * 3, "S1")), "sample_id has dtype"),
    "variable ids": (lambda f: replace(f, "sample_id", data=["a"] * 3, dtype=h5py.string_dtype()), "dtype"),
    "space-padded ids": (space_padded, "sample_id has dtype"),
    "counts no JSON": (lambda f: f.attrs.__setitem__("counts", text_attribute("no")), "is not a shard"),
    "counts no integers": (lambda f: f.attrs.__setitem__("counts", text_attribute("[1]")), "no JSON object"),
    "key a number": (lambda f: f.attrs.__setitem__("key", np.int64(1)), "attribute key is no scalar"),
    "index an array": (lambda f: f.attrs.__setitem__("index", np.zeros(2, "<i8")), "index is no scalar"),
    "missing attribute": (lambda f: f.attrs.__delitem__("key"), "is not a shard"),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("verify", [True, False])
def test_an_attack_file_with_a_fitting_checksum_is_refused_by_name(path, attack, verify):
    change, match = ATTACKS[attack]
    forge(path, change)
    with pytest.raises(CorruptError, match=match):
        open_shard(path, verify=verify)


def test_features_that_do_not_lie_aligned_are_refused(path):
    def unalign(file: h5py.File) -> None:
        for size in range(1, 64):
            replace(file, "features", data=HALVES)
            if file["features"].id.get_offset() % 64:
                return
            replace(file, "split", data=np.array([b"x" * size] * 3, h5py.string_dtype("utf-8", size)))

    forge(path, unalign, alignment_threshold=1 << 30)
    with pytest.raises(CorruptError, match="does not lie aligned"):
        open_shard(path)


def test_an_hdf5_file_that_is_damaged_before_it_is_sealed_is_refused(path):
    body = bytearray(encode()[512:])
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = body.copy()
        damaged[int(rng.integers(0, 400))] ^= int(rng.integers(1, 256))  # the metadata at the head
        path.write_bytes(sealed(bytes(damaged)))
        try:
            open_shard(path)
        except CacheError:
            refused += 1
    assert refused > 50  # the rest hit bytes that HDF5 does not use


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


@given(st.lists(texts, max_size=8))
def test_every_text_without_nul_and_surrogates_survives(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("texts") / "shard.h5"
    text = encode_strings(values, "text", range(len(values)))
    path.write_bytes(encode(rows=len(values), sample_id=np.array([b"i"] * len(values), "S1"), text=text))
    stored = open_shard(path).columns["text"]
    assert [value.decode("utf-8") for value in stored.tolist()] == values


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ("a\0b", "holds a NUL character"),
        ("\ud800", "holds a lone surrogate"),
        (None, "is NoneType, expected text"),
        (float("nan"), "is float, expected text"),
        (b"bytes", "is bytes, expected text"),
        ("ä" * 4097, "has 8,194 bytes, expected at most 8,192"),
    ],
)
def test_a_text_that_cannot_be_stored_is_refused_naming_the_sample(value, match):
    with pytest.raises(CacheError, match=f"the text of sample 'two' {match}"):
        encode_strings(["fine", value], "text", ["one", "two"])


def test_an_empty_id_is_refused_and_an_empty_text_kept():
    assert encode_strings(["", "a"], "text", ["one", "two"]).tolist() == [b"", b"a"]
    with pytest.raises(CacheError, match="the sample_id of sample '' is empty"):
        encode_strings([""], "sample_id", [""], allow_empty=False)
