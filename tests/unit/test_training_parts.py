"""The learning rate of every step, against the formula written out."""

import math
from itertools import pairwise
from typing import get_args

import pytest

from align_cache.settings import OptimSettings
from align_cache.training.schedule import Decay, learning_rates

CASES = [(0, 10, 0.5), (1, 10, 0.5), (4, 20, 0.5), (3, 21, 1.0)]


@pytest.mark.parametrize(("warmup", "total", "cycles"), CASES)
def test_the_learning_rate_warms_up_linearly_and_follows_a_cosine(
    warmup: int, total: int, cycles: float
) -> None:
    seen = learning_rates(0.1, warmup_steps=warmup, total_steps=total, min_lr=0.01, num_cycles=cycles)
    assert len(seen) == total
    for step, lr in enumerate(seen):
        if step < warmup:
            expected = 0.1 * (step + 1) / warmup
        else:
            progress = (step - warmup) / (total - warmup)
            expected = 0.01 + 0.09 * 0.5 * (1 + math.cos(math.pi * 2 * cycles * progress))
        assert lr == pytest.approx(expected, rel=1e-6), step


@pytest.mark.parametrize("decay", get_args(Decay))
@pytest.mark.parametrize(("warmup", "total"), [(0, 11), (1, 11), (4, 15), (11, 11)])
def test_each_decay_is_its_formula_after_the_same_warm_up(decay: Decay, warmup: int, total: int) -> None:
    """Steps of 3, so that none of them falls on the end."""
    seen = learning_rates(
        0.1, warmup_steps=warmup, total_steps=total, decay=decay, min_lr=0.01, decay_steps=3, decay_factor=0.2
    )
    assert seen[:warmup] == pytest.approx([0.1 * (step + 1) / warmup for step in range(warmup)])
    for after, lr in enumerate(seen[warmup:]):
        expected = {
            "cosine": 0.01 + 0.045 * (1 + math.cos(math.pi * after / (total - warmup))),
            "linear": 0.1 + (0.01 - 0.1) * after / (total - warmup),
            "step": 0.1 * 0.2 ** (after // 3),
            "exponential": 0.1 * 0.2 ** (after / 3),
            "constant": 0.1,
        }[decay]
        assert lr == pytest.approx(expected, rel=1e-6), after
    assert all(later <= rate for rate, later in pairwise(seen[max(warmup, 1) - 1 :]))


def test_settings_and_schedule_name_the_same_decays() -> None:
    assert get_args(OptimSettings.model_fields["decay"].annotation) == get_args(Decay)
