"""The folder of a study: what each of its runs was judged to be. Imports no torch: the report reads it.

<cache>/studies/<name>/study.toml  judged.jsonl  scores/<run>-<split>.npz  study.json  study.md  figures/

Its runs are those of the sweep of the same name.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from align_cache.files import publishing
from align_cache.results import append_line, read_lines

RECALLS = ("i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10")
"""What every run is judged by; the columns of its scores."""

Scores = NDArray[np.float64]
"""What each image contributes to the recalls, shape (n_images, 6): their means are the recalls."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the best checkpoint of one run does on the images of a split."""

    run: str
    split: str
    epoch: int
    """Of the checkpoint."""
    n_images: int
    n_captions: int
    images: str
    """Digest of the images' ids: runs can be compared image by image where it is the same."""
    untrained: tuple[str, ...]
    """Names of the encoders with random weights."""
    recalls: Mapping[str, float]
    """By the names of :data:`RECALLS`."""


def judgements_of(folder: Path, split: str) -> dict[str, Judgement]:
    """Read what was judged on a split, by run."""
    lines = (line for line in read_lines(folder / "judged.jsonl") if line["split"] == split)
    return {line["run"]: Judgement(**{**line, "untrained": tuple(line["untrained"])}) for line in lines}


def append_judgement(folder: Path, judgement: Judgement, scores: Scores) -> None:
    """Keep a judgement: the scores of its images first, so that a line never lacks them."""
    path = _scores_path(folder, judgement)
    path.parent.mkdir(parents=True, exist_ok=True)
    with publishing(path) as temporary, temporary.open("xb") as file:
        np.savez_compressed(file, scores=scores)
    append_line(folder / "judged.jsonl", asdict(judgement))


def scores_of(folder: Path, judgement: Judgement) -> Scores:
    """Read what each image contributes, in the order of the images' ids."""
    with np.load(_scores_path(folder, judgement), allow_pickle=False) as archive:
        scores: Scores = archive["scores"]
    return scores


def _scores_path(folder: Path, judgement: Judgement) -> Path:
    return folder / "scores" / f"{judgement.run}-{judgement.split}.npz"
