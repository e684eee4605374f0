"""What is drawn for one sample: decided by its id and the kind of noise, in any shard, worker and order."""

import hashlib

import numpy as np


def generator_of(kind: str, sample_id: str) -> np.random.Generator:
    """Return a generator that starts alike wherever a sample is met."""
    digest = hashlib.sha256(f"{kind}:{sample_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))
