"""What was trained on what, as a table."""

from __future__ import annotations

from collections.abc import Iterator

from align_cache.reporting.tables import Record, Table
from align_cache.reporting.wording import NOT_MEASURED, byte_size, count, duration, text


def run_table(run: Record) -> Table:
    """Return what was trained on what, as name and value."""
    return Table("Run", ("", ""), tuple(_run_rows(run)), label_columns=2)


def _run_rows(run: Record) -> Iterator[tuple[str, str]]:
    yield "run", text(run.get("id"))
    yield "status", text(run.get("status"))
    yield "dataset", text(run.get("dataset"))
    yield "train", _pairs_of(run.get("n_train_images"), run.get("n_train_captions"))
    yield "validation", _pairs_of(run.get("n_val_images"), run.get("n_val_captions"))
    for role in ("image", "text", "reference"):
        yield f"{role} encoder", encoder_label(run.get(role))
    yield "adapter", f"{text(run.get('adapter'))}, {count(run.get('n_parameters'))} parameters"
    yield "embedding", f"{count(run.get('embed_dim'))} dimensions"
    yield "best epoch", text(run.get("best_epoch"))
    yield "seed", text(run.get("seed"))
    yield "time", NOT_MEASURED if run.get("duration_s") is None else duration(run["duration_s"])
    yield "peak memory", byte_size(run.get("peak_memory_bytes"))


def _pairs_of(images: int | None, captions: int | None) -> str:
    return f"{count(images)} images, {count(captions)} captions"


def encoder_label(encoder: Record | None) -> str:
    """Return an encoder's name, dimension and key, and whether it is untrained."""
    if encoder is None:
        return "none"
    untrained = ", UNTRAINED" if encoder.get("untrained") else ""
    dim = f"{count(encoder.get('dim'))}-d{untrained}"
    return f"{text(encoder.get('encoder'))} ({dim}), {text(encoder.get('key8'))}"
