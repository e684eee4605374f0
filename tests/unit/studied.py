"""A study that nobody trained: any recalls, image by image."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from align_cache.studies.records import RECALLS
from align_cache.studies.results import JudgedTrial, Place, Study

METRICS = ("mean_recall", *RECALLS)


def trial(recall: float | Sequence[float], *, n: int = 4, images: str = "a") -> JudgedTrial:
    """Every recall is the same: one number for all images, or a number an image."""
    by_image = np.full(n, recall) if isinstance(recall, float) else np.array(recall, dtype=np.float64)
    return JudgedTrial("run", images, np.repeat(by_image[:, None], len(RECALLS), axis=1))


def made_up(
    trials: Mapping[Place, JudgedTrial],
    *,
    levels: Sequence[Any] = ("fixed", "variance"),
    conditions: Sequence[Mapping[str, Any]] = ({"data.train_fraction": 0.1}, {"data.train_fraction": 1.0}),
    seeds: Sequence[int] = (0, 1, 2),
    **given: Any,
) -> Study:
    return Study(
        **{
            "name": "toy",
            "factor": "loss.schedule",
            "baseline": "fixed",
            "levels": levels,
            "conditions": conditions,
            "seeds": seeds,
            "metrics": METRICS,
            "split": "test",
            "trials": trials,
            "failed": (),
            "sizes": ((4, 12),),
            "untrained": (),
            **given,
        }
    )


def drawn(n_levels: int = 4, fractions: Sequence[float] = (0.1, 0.25, 0.5, 1.0), n_seeds: int = 5) -> Study:
    """Recalls that grow with the fraction; the second level is better, the others no different."""
    generator, trials = np.random.default_rng(0), {}
    for condition, fraction in enumerate(fractions):
        for seed in range(n_seeds):
            shared = 0.1 + 0.2 * fraction + 0.02 * generator.standard_normal()
            difficulty = generator.random(200)  # of each image, the same for all levels
            for level in range(n_levels):
                share = shared + 0.04 * (level == 1) + 0.005 * generator.standard_normal()
                trials[condition, level, seed] = trial(list(difficulty < share))
    names = ("fixed", "variance", "entropy", "spread", *(f"level {i}" for i in range(4, n_levels)))
    return made_up(
        trials,
        levels=names[:n_levels],
        conditions=[{"data.train_fraction": fraction} for fraction in fractions],
        seeds=list(range(n_seeds)),
        sizes=((200, 1000),),
    )
