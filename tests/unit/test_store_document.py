"""The format document against the code, and against a set that the first release wrote."""

import json
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest

from align_cache.store import FeatureSet
from align_cache.store.layout import EncoderIdentity, TokensIdentity
from align_cache.store.shard import HEADER_BYTES, MAX_STRING_BYTES, OPTIONAL_COLUMNS, REQUIRED_COLUMNS
from align_cache.store.verify import verify

DOCUMENT = Path(__file__).parents[2] / "docs" / "cache-format.md"
GOLDEN = Path(__file__).parents[1] / "data" / "format-1"
COLUMNS = {
    "group_id": ["g"] * 10,
    "label": list(range(10)),
    "split": ["train"] * 10,
    "text": ["a caption"] * 10,
}
TYPES = {"int64": "<i8", "float16, float32 or int32": "<f2", "UTF-8": "|S"}
JSON_TYPES = {"integer": int, "string": str, "boolean": bool, "list": list, "object": dict}


def table(first_header: str) -> list[list[str]]:
    """The rows of the one table whose first column has this header, back-ticks taken off."""
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    (start,) = [i for i, line in enumerate(lines) if line.startswith(f"| {first_header} |")]
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        cells = line.replace("\\|", "¦").strip("|").split("|")
        rows.append([cell.strip().strip("`") for cell in cells])
    return rows


@pytest.fixture
def folder(write_toy) -> Path:
    return write_toy(columns=COLUMNS)


def test_the_document_lists_the_datasets_of_a_shard_with_their_types(folder):
    documented = {row[0]: row[1:4] for row in table("dataset")}
    assert {name for name, row in documented.items() if row[2] == "always"} == REQUIRED_COLUMNS
    assert {name for name, row in documented.items() if row[2] == "optional"} == OPTIONAL_COLUMNS
    with h5py.File(folder / "shard-00000.h5") as file:
        assert set(file) == set(documented)
        for name, (kind, shape, _) in documented.items():
            assert file[name].dtype.str.startswith(TYPES[kind])
            assert file[name].shape == {"rows, dim": (4, 5), "rows": (4,), "skipped": (0,)}[shape]
            assert file[name].size == 0 or file[name].id.get_offset() % 64 == 0


def test_the_document_lists_the_attributes_of_a_shard_with_their_types(folder):
    with h5py.File(folder / "shard-00000.h5") as file:
        found = {name: file.attrs.get_id(name).dtype.str for name in file.attrs}
    documented = {name: TYPES[kind] for name, kind, _ in table("attribute")}
    assert found.keys() == documented.keys()
    assert all(found[name].startswith(kind) for name, kind in documented.items())


@pytest.mark.parametrize("header", ["manifest key", "shard key"])
def test_the_document_lists_the_keys_of_the_manifest_with_their_types(folder, header):
    manifest = json.loads((folder / "manifest.json").read_text())
    found = manifest if header == "manifest key" else manifest["shards"][0]
    documented = {name: JSON_TYPES[kind.split()[0]] for name, kind, _ in table(header)}
    assert {name: type(value) for name, value in found.items()} == documented


def test_the_document_lists_the_keys_of_the_identity(toy_identity):
    identity = toy_identity()
    found = set()
    for name, value in identity.items():
        found |= {f"{name}.{part}" for part in value} if isinstance(value, dict) and value else {name}
    assert {row[0] for row in table("identity key")} == found


def test_the_document_lists_what_the_encoder_of_token_ids_says():
    documented = {row[0].removeprefix("encoder.") for row in table("token key")}
    assert documented == TokensIdentity.model_fields.keys() - EncoderIdentity.model_fields.keys()


def test_the_document_has_the_numbers_of_the_code():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert f"at most {MAX_STRING_BYTES:,} bytes" in text
    assert f"| 0 to {HEADER_BYTES - 1} |" in text
    assert f"tail -c +{HEADER_BYTES + 1} " in text


def test_a_set_of_the_first_release_opens_with_the_values_it_was_given():
    (folder,) = GOLDEN.glob("features/*/*")
    features = FeatureSet.open(folder)
    given = np.array([[1, 0, 0], [0, 1, 0], [0.6, 0, -0.8], [0, 0, 1]], np.float16)
    np.testing.assert_array_equal(features.array(), given)
    assert features.sample_ids.tolist() == ["a#0", "a#1", "b#0", "d#0"]
    assert features.group_ids.tolist() == ["a", "a", "b", "d"]
    assert features.splits.tolist() == ["train", "train", "", "val"]
    assert features.labels.tolist() == [0, 0, 1, -5]
    assert features.texts.tolist() == ["", "ein Bär", "熊 🐻", "x"]
    assert features.manifest.skipped == (("c#0", "half a JPEG"),)
    assert features.manifest.counts == {"empty": 1}
    assert (features.untrained, features.label_names) == (True, ("cat", "dog"))
    assert verify(GOLDEN) == []


def test_the_first_row_of_the_first_release_lies_where_the_document_says():
    (path,) = GOLDEN.glob("features/*/*/shard-00000.h5")
    with h5py.File(path) as file:
        offset = file["features"].id.get_offset()
    data = path.read_bytes()
    assert struct.unpack_from("<6e", data, offset) == (1, 0, 0, 0, 1, 0)
    assert data[:27] == b"align-cache shard\nformat 1\n"
    assert data[HEADER_BYTES : HEADER_BYTES + 8] == b"\x89HDF\r\n\x1a\n"
