"""The manifest: what is torn, edited, newer or contradicts itself is refused."""

import hashlib
import json

import pytest

from align_cache.errors import CacheError, CorruptError
from align_cache.store.layout import canonical_json
from align_cache.store.manifest import Manifest, read_manifest


@pytest.fixture
def data(write_toy) -> bytes:
    return (write_toy() / "manifest.json").read_bytes()


def signed(document: dict) -> bytes:
    """Give a forged manifest the checksum that fits it."""
    body = {name: value for name, value in document.items() if name != "sha256"}
    return json.dumps(body | {"sha256": hashlib.sha256(canonical_json(body)).hexdigest()}).encode()


def test_a_manifest_survives_the_round_trip(data):
    manifest = Manifest.from_bytes(data)
    assert manifest.to_bytes() == data
    assert (manifest.rows, manifest.dim, manifest.name) == (10, 5, f"toy/flat@{manifest.key[:8]}")


def test_every_flipped_bit_is_found(data):
    for position in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            with pytest.raises(CacheError):
                Manifest.from_bytes(bytes(flipped))


def test_every_torn_manifest_is_found(data):
    for length in range(len(data.rstrip())):
        with pytest.raises(CorruptError):
            Manifest.from_bytes(data[:length])


@pytest.mark.parametrize("junk", [b"", b"null", b"[]", b"3", b"\xff\xfe", b"[" * 100_000, b'{"format":1}'])
def test_what_is_no_manifest_is_refused(junk):
    with pytest.raises(CorruptError, match="torn or no manifest"):
        Manifest.from_bytes(junk)


def test_a_newer_format_is_refused_by_its_number(data):
    with pytest.raises(CacheError, match="format 2, this align-cache reads up to 1") as caught:
        Manifest.from_bytes(signed(json.loads(data) | {"format": 2, "new": "field"}))
    assert not isinstance(caught.value, CorruptError)


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("key", "f" * 64, "its identity gives"),
        ("modality", "text", "its identity gives"),
        ("rows", 11, "do not add up"),
        ("rows", -1, "rows"),
        ("rows", "10", "rows"),
        ("rows", True, "rows"),
        ("dim", 0, "dim"),
        ("untrained", 1, "untrained"),
        ("skipped", [["a"]], "skipped"),
        ("skipped", [["a", "b"]], "do not add up"),
        ("counts", {"a": 1.5}, "counts"),
        ("shards", [], "asks for shards"),
        ("identity", {}, "identity"),
        ("surprise", 1, "surprise"),
    ],
)
def test_a_forged_manifest_that_contradicts_itself_is_refused(data, name, value, match):
    with pytest.raises(CorruptError, match=match):
        Manifest.from_bytes(signed(json.loads(data) | {name: value}))


@pytest.mark.parametrize("file", ["../../../secret.h5", "/etc/passwd", "shard-00001.h5", ""])
def test_a_forged_manifest_cannot_name_another_file(data, file):
    document = json.loads(data)
    document["shards"][0]["file"] = file
    with pytest.raises(CorruptError, match="asks for shards"):
        Manifest.from_bytes(signed(document))


def test_reading_names_the_file_and_the_way_out(write_toy):
    folder = write_toy()
    (folder / "manifest.json").write_bytes(b"{")
    with pytest.raises(CorruptError, match=r"manifest\.json: the manifest is torn") as caught:
        read_manifest(folder)
    assert "cache verify" in caught.value.hint


def test_a_linked_manifest_is_refused(write_toy, tmp_path):
    folder = write_toy()
    (folder / "manifest.json").rename(tmp_path / "elsewhere.json")
    (folder / "manifest.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(CorruptError, match="not a regular file"):
        read_manifest(folder)


def test_a_set_without_a_manifest_is_unfinished_and_not_corrupt(write_toy):
    with pytest.raises(CacheError, match="unfinished") as caught:
        read_manifest(write_toy(finish=False))
    assert not isinstance(caught.value, CorruptError)
