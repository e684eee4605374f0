"""The names of splits: everywhere ``train``, ``val`` and ``test``, whatever a dataset calls them."""

SPLITS = ("train", "val", "test")
_ALIASES = {"dev": "val", "valid": "val", "validation": "val", "training": "train", "restval": "train"}


def canonical_split(name: str) -> str:
    """Return ``train``, ``val`` or ``test`` for the names in use (``dev``, ``validation``…); others stay."""
    lowered = name.strip().lower()
    return _ALIASES.get(lowered, lowered)
