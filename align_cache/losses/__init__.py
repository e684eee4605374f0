"""What is minimised: pure functions of unit-norm embeddings, and the weighted sum of them.

``contrastive`` pulls pairs together, ``distribution`` compares the aligned embeddings with the reference,
``structure`` compares embeddings with the features they were made of; ``objective`` adds them up, and
``balance`` weighs its two directions.

All take leading dimensions: embeddings (…, n, dim) are as many batches, judged one by one, and losses (…)
come back. Hyperparameters are numbers, or tensors that broadcast against (…): a batch of each of several
runs is judged at once. Nothing here reads a tensor's value back to the host.
"""

from align_cache.losses.balance import Balance, Schedule, row_signal
from align_cache.losses.contrastive import CONTRASTIVE, Directions, hard_negative, infonce, ntxent, siglip
from align_cache.losses.distribution import (
    DISTRIBUTION,
    coral,
    log_variance_matching,
    mmd,
    scaled_variance,
    variance_matching,
)
from align_cache.losses.objective import Direction, LossParts, Objective
from align_cache.losses.structure import structure_preservation

__all__ = [
    "CONTRASTIVE",
    "DISTRIBUTION",
    "Balance",
    "Direction",
    "Directions",
    "LossParts",
    "Objective",
    "Schedule",
    "coral",
    "hard_negative",
    "infonce",
    "log_variance_matching",
    "mmd",
    "ntxent",
    "row_signal",
    "scaled_variance",
    "siglip",
    "structure_preservation",
    "variance_matching",
]
