"""How training ended, in one line: model, epochs, loss, cosine similarity."""

from __future__ import annotations

from align_cache.reporting.tables import Table
from align_cache.reporting.wording import count, number, text
from align_cache.run_records import RunRecords, dig


def training_table(run: RunRecords) -> Table:
    """Return the loss and the cosines of the validation pairs at the best epoch."""
    record, epochs = run.record, [epoch["epoch"] for epoch in run.epochs]
    best = next((epoch for epoch in run.epochs if epoch["epoch"] == run.best_epoch), None)
    image, caption = (text(dig(record, role, "encoder")) for role in ("image", "text"))
    row = (
        f"{image} + {caption}, {text(record.get('adapter'))}",
        f"{count(max(epochs, default=None))}, best {text(run.best_epoch)}",
        number(dig(best, "val", "loss")),
        *(number(dig(best, "similarity", name)) for name in ("matched", "unmatched")),
    )
    columns = ("model", "epochs", "loss", "cosine similarity", "of unmatched pairs")
    note = f"validation, N = {count(dig(best, 'n'))} images, at the best epoch; similarity: of matched pairs"
    return Table("", columns, (row,), note)
