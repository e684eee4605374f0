"""Stage 2: train one pair of adapters on cached features, and leave a run folder."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from align_cache.adapters import n_parameters
from align_cache.assemble import assemble
from align_cache.checkpoint import load_adapters, load_trainer, save_checkpoint
from align_cache.config import to_toml
from align_cache.embedding import embed_pairs, embedding_views
from align_cache.errors import AlignCacheError
from align_cache.lock import holding
from align_cache.losses import LossParts
from align_cache.probing import probe_run
from align_cache.results import Record, Run, create_run, find_run
from align_cache.runtime import now, peak_memory_bytes, provenance
from align_cache.settings import FitConfig, fit_config
from align_cache.store import FeatureSet
from align_cache.trainer import require_finite
from align_cache.validation import measure, save_snapshot, selection_score

OnRecord = Callable[[Record], None]


def fit(
    config: FitConfig,
    *,
    cache_dir: Path,
    on_record: OnRecord | None = None,
    on_note: Callable[[str], None] | None = None,
    command: str | None = None,
) -> Run:
    """Train adapters as ``config`` says.

    Parameters
    ----------
    config : FitConfig
    cache_dir : Path
        Holds ``features/``, and ``runs/`` unless ``log.save_dir`` is set.
    on_record : callable, optional
        Told each record as it is logged.
    on_note : callable, optional
        Told what was decided: images left out, a split made.
    command : str, optional
        The command line, recorded.

    Returns
    -------
    Run
        Finished; its best and last checkpoints are in its folder.

    Raises
    ------
    AlignCacheError
        Features missing, damaged or not belonging together, settings that do not fit them, a loss that
        is no number. A run that had started is marked failed.
    """
    session = _Session(config, cache_dir, on_record, on_note)
    runs_folder = config.log.save_dir or cache_dir / "runs"
    run = create_run(runs_folder, cache_dir, adapter=config.adapter.type, config_toml=to_toml(config))
    run.update(**session.description(run), created=now(), command=command, provenance=provenance())
    with holding(run.folder / "training"):
        return session.train(run, first_epoch=0)


def resume_fit(
    name: str,
    *,
    cache_dir: Path,
    on_record: OnRecord | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Run:
    """Continue a run after its last whole epoch; the result is that of a run that was never interrupted.

    Raises
    ------
    AlignCacheError
        Also if the features are not the ones the run began with.
    """
    run = find_run(cache_dir, name)
    info = run.info()
    if info["status"] == "finished":
        return run
    session = _Session(fit_config(file=run.folder / "config.toml"), cache_dir, on_record, on_note, info)
    with holding(run.folder / "training"):
        done = session.restore(run) if (run.checkpoints / "index.json").exists() else -1
        run.keep_records(through_epoch=done)
        return session.train(run, first_epoch=done + 1)


class _Session:
    """One run's parts, put together from its config."""

    def __init__(
        self,
        config: FitConfig,
        cache_dir: Path,
        on_record: OnRecord | None,
        on_note: Callable[[str], None] | None,
        info: Mapping[str, Any] | None = None,
    ) -> None:
        self.config = config
        self.on_record = on_record or (lambda record: None)
        self.parts = assemble(config, cache_dir, info)
        self.trainer = self.parts.trainer
        self.best: float | None = None
        for note in self.parts.notes:
            (on_note or (lambda note: None))(note)

    def description(self, run: Run) -> Record:
        """Return what ``run.json`` says before the first epoch."""
        joined, splits = self.parts.joined, self.parts.splits
        sets = {"image": joined.image, "text": joined.text, "reference": joined.reference}
        return {
            "id": run.id,
            "project": self.config.log.project_name,
            "dataset": joined.image.dataset,
            "adapter": self.config.adapter.type,
            **{role: _describe(features) for role, features in sets.items()},
            "untrained": [s.encoder for s in sets.values() if s is not None and s.untrained],
            "embed_dim": self.parts.embed_dim,
            "n_parameters": n_parameters(self.trainer.pair),
            "n_train_images": splits.train.n_images,
            "n_train_captions": splits.train.n_captions,
            "n_val_images": splits.val.n_images,
            "n_val_captions": splits.val.n_captions,
            "batch_size": self.parts.batches.batch_size,
            "steps_per_epoch": self.parts.batches.steps_per_epoch,
            "seed": self.config.seed,
            "device": str(self.parts.device),
            "notes": list(self.parts.notes),
        }

    def train(self, run: Run, *, first_epoch: int) -> Run:
        """Run the epochs that are left; epoch 0 only measures."""
        run.update(status="running", error=None)
        start, spent = time.perf_counter(), float(run.info().get("duration_s") or 0.0)
        try:
            for epoch in range(first_epoch, self.config.optim.epochs + 1):
                self._epoch(run, epoch)
                seconds = spent + time.perf_counter() - start
                run.update(duration_s=seconds, peak_memory_bytes=peak_memory_bytes())
        except (AlignCacheError, OSError) as error:
            with suppress(OSError):  # on a full disk the state before is all that can be kept
                run.update(status="failed", error=str(error).partition("\n")[0])
            raise
        except BaseException:
            run.update(status="interrupted")
            raise
        run.update(status="finished")
        return run

    def restore(self, run: Run) -> int:
        """Load the last checkpoint; return its epoch."""
        weights, epoch = load_adapters(run.checkpoints, "last")
        state, state_epoch = load_trainer(run.checkpoints)
        assert state_epoch == epoch  # one index entry names both
        self.trainer.pair.load_state_dict(weights)
        self.trainer.optimizer.load_state_dict(state["optimizer"])
        self.trainer.scheduler.load_state_dict(state["scheduler"])
        self.best = state["best"]
        run.update(best_epoch=load_adapters(run.checkpoints, "best")[1])
        return epoch

    def _epoch(self, run: Run, epoch: int) -> None:
        """Train (from epoch 1 on), measure, log, snapshot, probe, save."""
        config, start = self.config, time.perf_counter()
        # Dropout depends on the seed and the epoch alone, so that a resumed run draws the same.
        torch.manual_seed(config.seed * 100_003 + epoch)
        record: Record = {"kind": "epoch", "epoch": epoch}
        if epoch:
            record["lr"] = self._lr()
            record["train"] = self._train_epoch(run, epoch)
        pairs = self.parts.splits.val
        embedded = embed_pairs(self.trainer.pair, self.trainer.inputs, pairs)
        views = embedding_views(embedded, self.trainer.inputs, pairs)
        record["val"] = self._validation_loss(views)
        require_finite(record["val"], epoch=epoch)
        record.update(
            measure(views, embedded, pairs, k=config.evaluation.k, limit=config.evaluation.num_images)
        )
        record["distribution"]["mean_norm"] = embedded.mean_norm
        record["duration_s"] = time.perf_counter() - start
        self._log(run, record)
        if config.log.viz_frequency and epoch % config.log.viz_frequency == 0:
            save_snapshot(run.snapshots, epoch, views, pairs)
        if self.parts.probe_sets and epoch and epoch % config.evaluation.downstream_eval_frequency == 0:
            self._log(run, self._probe(epoch))
        if epoch:
            self._save(run, epoch, record)

    def _train_epoch(self, run: Run, epoch: int) -> dict[str, float]:
        per_epoch, done = self.parts.batches.steps_per_epoch, 0

        def on_step(parts: LossParts, norm: Tensor) -> None:
            nonlocal done
            done += 1
            step = (epoch - 1) * per_epoch + done
            if step % self.config.log.log_frequency == 0:
                self._log(run, self._step_record(epoch, step, parts, norm))

        losses = self.trainer.epoch(self.parts.batches.epoch(epoch), on_step=on_step).means(
            self.parts.variance_weight
        )
        require_finite(losses, epoch=epoch)
        return losses

    def _step_record(self, epoch: int, step: int, parts: LossParts, norm: Tensor) -> Record:
        loss, pull, match = (float(part.detach()) for part in parts)
        share = (self.parts.variance_weight or 0.0) * match / loss if loss else 0.0
        return {
            "kind": "step",
            "epoch": epoch,
            "step": step,
            "lr": self._lr(),
            "loss": loss,
            "contrastive": pull,
            "variance": match,
            "variance_share": share,
            "grad_norm": float(norm),
            "temperature": float(self.trainer.pair.temperature.detach()),
        }

    def _validation_loss(self, views: Mapping[str, Tensor]) -> dict[str, float]:
        sums = self.trainer.validation_loss(
            views["image"], views["text"], views.get("reference"), batch_size=self.parts.batches.batch_size
        )
        return sums.means(self.parts.variance_weight)

    def _probe(self, epoch: int) -> Record:
        assert self.parts.probe_sets is not None
        settings = self.config.evaluation
        rows = probe_run(
            self.trainer.pair.image,
            self.parts.probe_sets,
            hidden_dim=settings.classifier_hidden_dim,
            batch_size=settings.downstream_batch_size,
            seed=self.config.seed,
            device=self.parts.device,
        )
        return {"kind": "probe", "epoch": epoch, "probe": self.parts.probe_sets.name, "rows": rows}

    def _save(self, run: Run, epoch: int, record: Mapping[str, Any]) -> None:
        score = selection_score(record, self.config.evaluation.select_by)
        is_best = self.best is None or score > self.best
        if is_best:
            self.best = score
        save_checkpoint(
            run.checkpoints,
            epoch=epoch,
            weights=self.trainer.pair.state_dict(),
            trainer={
                "optimizer": self.trainer.optimizer.state_dict(),
                "scheduler": self.trainer.scheduler.state_dict(),
                "best": self.best,
            },
            metadata={"run": run.id, "epoch": str(epoch), "embed_dim": str(self.parts.embed_dim)},
            is_best=is_best,
        )
        if is_best:
            run.update(best_epoch=epoch)

    def _lr(self) -> float:
        return float(self.trainer.optimizer.param_groups[0]["lr"])

    def _log(self, run: Run, record: Record) -> None:
        run.append_record(record)
        self.on_record(record)


def _describe(features: FeatureSet | None) -> Record | None:
    if features is None:
        return None
    return {
        "encoder": features.encoder,
        "key8": features.key8,
        "dim": features.dim,
        "untrained": features.untrained,
    }
