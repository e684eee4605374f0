"""How a feature set came about, as recorded beside its manifest: sealed, so that damage to it is found.

Nothing depends on it: a set whose record is lost opens like any other, and ``extract`` writes one anew.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from align_cache.errors import CorruptError
from align_cache.files import is_plain_file
from align_cache.store.layout import PROVENANCE_NAME, canonical_json, plain

_SEAL = "sha256"


def provenance_bytes(record: Mapping[str, Any], *, key: str) -> bytes:
    """Return the content of ``provenance.json``: JSON values, the set's key, the checksum of both."""
    return _sealed({**plain(record), "key": key})


def read_provenance(folder: Path, *, key: str) -> dict[str, Any]:
    """Return what was recorded of a feature set; a record without a checksum, of old, is not checked.

    Raises
    ------
    CorruptError
        If it is missing, no JSON object, was edited, or is that of another set.
    """
    path = folder / PROVENANCE_NAME
    if not is_plain_file(path):
        there = path.is_symlink() or path.exists()
        raise CorruptError(f"{path} is not a regular file" if there else f"{path} is missing")
    data = path.read_bytes()
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{path} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise CorruptError(f"{path} holds a {type(record).__name__}, expected an object")
    if record.pop(_SEAL, None) is None:
        return record
    if data != _sealed(record):
        raise CorruptError(f"{path} was edited or damaged: its checksum does not fit its content")
    if (found := record.pop("key", None)) != key:
        raise CorruptError(f"{path} belongs elsewhere: its key is {found}, expected {key}")
    return record


def _sealed(record: Mapping[str, Any]) -> bytes:
    document = {**record, _SEAL: hashlib.sha256(canonical_json(record)).hexdigest()}
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode("ascii")
