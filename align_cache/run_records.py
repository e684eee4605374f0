"""Reading a run folder: what was run, what was logged, what was judged, what was seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from align_cache.errors import RunError
from align_cache.results import Run

Record: TypeAlias = Mapping[str, Any]
"""One JSON object of a run folder."""

DIRECTIONS = {"image_to_text": "image → text", "text_to_image": "text → image"}
RECALLS = (1, 5, 10)
SIMILARITY = {
    "matched": "cosine similarity, matched pairs",
    "unmatched": "cosine similarity, unmatched pairs",
}
"""Keys of what is measured of a run, and their names for people."""


@dataclass(frozen=True)
class RunRecords:
    """A run folder in memory; snapshots stay on disk until a figure asks for them."""

    folder: Path
    record: Record
    """``run.json``."""
    config: str
    """``config.toml`` as it was resolved, empty where there is none."""
    steps: tuple[Record, ...]
    epochs: tuple[Record, ...]
    """One record per validation, epoch 0 (before training) first."""
    probe: Record | None
    """The latest probe: of the evaluation if it has one, of the training otherwise."""
    evaluation: Record | None
    """The latest evaluation, None where ``align-cache eval`` has not run."""
    snapshots: dict[int, Path]
    """Snapshot file of each recorded epoch, in order."""
    stress: Record | None
    """What ``align-cache stress`` measured; None where it has not run."""
    pictures: Mapping[str, str | None] | None
    """Small pictures of the gallery as data URLs by id; None where none were collected."""
    pictures_note: str | None
    """Where they are from, or why there are none."""

    @property
    def untrained(self) -> tuple[str, ...]:
        """Names of the encoders that have random weights."""
        evaluated = (self.evaluation or {}).get("untrained") or ()
        return tuple(dict.fromkeys([*(self.record.get("untrained") or ()), *evaluated]))

    @property
    def measured(self) -> tuple[Record, ...]:
        """The epochs whose alignment and spread were measured; by default all of them."""
        return tuple(epoch for epoch in self.epochs if "alignment" in epoch)

    @property
    def best_epoch(self) -> int | None:
        """The epoch of the checkpoint that counts."""
        best: int | None = self.record.get("best_epoch")
        return best

    @property
    def judged(self) -> Record:
        """The latest evaluation; before there is one, the validation of the best epoch in the same form."""
        if self.evaluation is not None:
            return self.evaluation
        best = [epoch for epoch in self.epochs if epoch["epoch"] == self.best_epoch]
        epoch = (best or [*self.epochs[-1:], {}])[0]
        margins = {
            metric: {key: {"margin": margin} for key, margin in tests.items()}
            for metric, tests in (epoch.get("hypotheses") or {}).items()
        }
        return {
            "split": "validation",
            "epoch": epoch.get("epoch"),
            "n_images": epoch.get("n"),
            "n_captions": dig(epoch, "retrieval", "image_to_text", "n_candidates"),
            "k": epoch.get("k"),
            "embeddings": epoch,
            "chance": epoch.get("chance"),
            "hypotheses": {"embeddings": margins} if margins else None,
            "probe": self.probe,
        }


def read_run(folder: Path) -> RunRecords:
    """Read a run folder.

    Parameters
    ----------
    folder : Path
        Holds ``run.json``, and as far as the run has come ``records.jsonl``, ``results.jsonl``,
        ``config.toml``, ``pictures.json`` and ``snapshots/``.

    Raises
    ------
    RunError
        If ``folder`` is no run folder or one of its files is not what it should be.
    """
    run = Run(folder)
    records, evaluation, pictures = run.records(), run.evaluation(), run.pictures()
    probes = [line for line in records if line.get("kind") == "probe"]
    config = folder / "config.toml"
    return RunRecords(
        folder=folder,
        record=run.info(),
        config=config.read_text(encoding="utf-8") if config.is_file() else "",
        steps=tuple(line for line in records if line.get("kind") == "step"),
        epochs=tuple(_merged_per_epoch(records)),
        probe=(evaluation or {}).get("probe") or (probes[-1] if probes else None),
        evaluation=evaluation,
        snapshots={_epoch_of(path): path for path in sorted(run.snapshots.glob("epoch-*.npz"))},
        stress=run.stress(),
        pictures=dig(pictures, "images"),
        pictures_note=dig(pictures, "note"),
    )


def dig(record: Record | None, *keys: str) -> Any:
    """Return ``record[k1][k2]…``, None as soon as a level is absent, null or no object."""
    value: Any = record
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _merged_per_epoch(records: Iterable[Record]) -> list[Record]:
    """Give each epoch's last record: a resumed run repeats the epoch that was cut short.

    What was measured of the best epoch at the end of the run belongs to it.
    """
    latest: dict[int, Record] = {}
    for record in records:
        if record.get("kind") == "epoch":
            latest[record["epoch"]] = record
        elif record.get("kind") == "best":
            latest[record["epoch"]] = {**record, **latest.get(record["epoch"], {})}
    return [latest[epoch] for epoch in sorted(latest)]


def _epoch_of(snapshot: Path) -> int:
    digits = snapshot.stem.removeprefix("epoch-")
    if not digits.isdecimal():
        raise RunError(f"{snapshot}: expected a name like epoch-0003.npz")
    return int(digits)
