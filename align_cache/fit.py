"""Stage 2: train one pair of adapters on cached features, and leave a run folder."""

import time
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from align_cache.adapters import fuse, n_parameters, unit
from align_cache.checkpoint import load_adapters, load_trainer, save_checkpoint
from align_cache.config import to_toml
from align_cache.errors import AlignCacheError, ConfigError
from align_cache.files import publish_bytes
from align_cache.losses import LossParts, Objective
from align_cache.metrics.summary import margins, summarise
from align_cache.model import new_pair
from align_cache.pairs import Batches, FeatureRows, PairedFeatures, Pairs, Splits, join, split_pairs
from align_cache.probing import ProbeSets, open_probe_sets, probe_run
from align_cache.results import Record, Run, create_run, find_run, now
from align_cache.runtime import peak_memory_bytes, provenance, resolve_device
from align_cache.schedule import warmup_cosine
from align_cache.settings import FitConfig, fit_config
from align_cache.store import FeatureSet, open_feature_set
from align_cache.trainer import Embedded, Inputs, Trainer, embed_pairs, require_finite

OnRecord = Callable[[Record], None]
_SNAPSHOT_IMAGES = 500
_DEFAULT_EMBED_DIM = 768


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
    if not (run.checkpoints / "index.json").exists():
        run.keep_records(through_epoch=-1)
        return session.train(run, first_epoch=0)
    done = session.restore(run)
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
        self.device = resolve_device(config.device)
        self.joined = _open(config, cache_dir, info)
        self.splits = _split(config, self.joined)
        for note in (*self.joined.notes, *self.splits.notes):
            (on_note or (lambda note: None))(note)
        self.embed_dim = _embed_dim(config, self.joined)
        self.batches = _batches(config, self.splits)
        self.probe_sets = _probe_sets(config, self.joined, cache_dir)
        _check_k(config.evaluation.k, min(self.splits.val.n_images, config.evaluation.num_images))
        self.trainer = self._trainer()
        self.best: float | None = None

    def description(self, run: Run) -> Record:
        """Return what ``run.json`` says before the first epoch."""
        joined, splits = self.joined, self.splits
        sets = {"image": joined.image, "text": joined.text, "reference": joined.reference}
        return {
            "id": run.id,
            "project": self.config.log.project_name,
            "dataset": joined.image.dataset,
            "adapter": self.config.adapter.type,
            **{role: _describe(features) for role, features in sets.items()},
            "untrained": [s.encoder for s in sets.values() if s is not None and s.untrained],
            "embed_dim": self.embed_dim,
            "n_parameters": n_parameters(self.trainer.pair),
            "n_train_images": splits.train.n_images,
            "n_train_captions": splits.train.n_captions,
            "n_val_images": splits.val.n_images,
            "n_val_captions": splits.val.n_captions,
            "batch_size": self.batches.batch_size,
            "steps_per_epoch": self.batches.steps_per_epoch,
            "seed": self.config.seed,
            "device": str(self.device),
            "notes": [*joined.notes, *splits.notes],
        }

    def train(self, run: Run, *, first_epoch: int) -> Run:
        """Run the epochs that are left; epoch 0 only measures."""
        run.update(status="running", error=None)
        start = time.perf_counter()
        spent = float(run.info().get("duration_s") or 0.0)
        try:
            for epoch in range(first_epoch, self.config.optim.epochs + 1):
                self._epoch(run, epoch)
                run.update(
                    duration_s=spent + time.perf_counter() - start, peak_memory_bytes=peak_memory_bytes()
                )
        except AlignCacheError as error:
            run.update(status="failed", error=error.message)
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
        pairs = self.splits.val
        embedded = embed_pairs(self.trainer.pair, self.trainer.inputs, pairs)
        views = self._views(embedded, pairs)
        record["val"] = self._validation_loss(views)
        require_finite(record["val"], epoch=epoch)
        record.update(
            _measure(views, embedded, pairs, k=config.evaluation.k, limit=config.evaluation.num_images)
        )
        record["distribution"]["mean_norm"] = embedded.mean_norm
        record["duration_s"] = time.perf_counter() - start
        self._log(run, record)
        if config.log.viz_frequency and epoch % config.log.viz_frequency == 0:
            _save_snapshot(run, epoch, views, pairs)
        if self.probe_sets and epoch and epoch % config.evaluation.downstream_eval_frequency == 0:
            self._log(run, self._probe(epoch))
        if epoch:
            self._save(run, epoch, record)

    def _train_epoch(self, run: Run, epoch: int) -> dict[str, float]:
        per_epoch, done = self.batches.steps_per_epoch, 0

        def on_step(parts: LossParts, norm: Tensor) -> None:
            nonlocal done
            done += 1
            step = (epoch - 1) * per_epoch + done
            if step % self.config.log.log_frequency == 0:
                self._log(run, self._step_record(epoch, step, parts, norm))

        losses = self.trainer.epoch(self.batches.epoch(epoch), on_step=on_step).means(self._variance_weight)
        require_finite(losses, epoch=epoch)
        return losses

    def _step_record(self, epoch: int, step: int, parts: LossParts, norm: Tensor) -> Record:
        loss, pull, match = (float(part.detach()) for part in parts)
        share = (self._variance_weight or 0.0) * match / loss if loss else 0.0
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

    def _views(self, embedded: Embedded, pairs: Pairs) -> dict[str, Tensor]:
        text = embedded.captions[torch.from_numpy(pairs.caption_starts[:-1])]
        views = {"image": embedded.image, "text": text, "aligned": fuse(embedded.image, text)}
        if pairs.reference_rows is not None and self.trainer.inputs.reference is not None:
            views["reference"] = unit(self.trainer.inputs.reference.take(pairs.reference_rows))
        return views

    def _validation_loss(self, views: Mapping[str, Tensor]) -> dict[str, float]:
        sums = self.trainer.validation_loss(
            views["image"], views["text"], views.get("reference"), batch_size=self.batches.batch_size
        )
        return sums.means(self._variance_weight)

    def _probe(self, epoch: int) -> Record:
        assert self.probe_sets is not None
        settings = self.config.evaluation
        rows = probe_run(
            self.trainer.pair.image,
            self.probe_sets,
            hidden_dim=settings.classifier_hidden_dim,
            batch_size=settings.downstream_batch_size,
            seed=self.config.seed,
            device=self.device,
        )
        return {"kind": "probe", "epoch": epoch, "probe": self.probe_sets.name, "rows": rows}

    def _save(self, run: Run, epoch: int, record: Mapping[str, Any]) -> None:
        score = _score(record, self.config.evaluation.select_by)
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
            metadata={"run": run.id, "epoch": str(epoch), "embed_dim": str(self.embed_dim)},
            is_best=is_best,
        )
        if is_best:
            run.update(best_epoch=epoch)

    def _trainer(self) -> Trainer:
        config, joined = self.config, self.joined
        torch.manual_seed(config.seed)
        pair = new_pair(config, joined.image.dim, joined.text.dim, self.embed_dim).to(self.device)
        optim = config.optim
        heads = [*pair.image.parameters(), *pair.text.parameters()]
        groups: list[dict[str, Any]] = [{"params": heads, "weight_decay": optim.weight_decay}]
        if config.loss.learn_temperature:
            groups.append({"params": [pair.log_temperature], "weight_decay": 0.0})
        optimizer = torch.optim.AdamW(groups, lr=optim.lr, fused=self.device.type != "mps")
        per_epoch = self.batches.steps_per_epoch
        scheduler = warmup_cosine(
            optimizer,
            warmup_steps=round(optim.warmup_epochs * per_epoch),
            total_steps=optim.epochs * per_epoch,
            min_lr=optim.min_lr,
            num_cycles=optim.num_cycles,
        )
        objective = Objective(config.loss.label_smoothing, config.loss.direction, self._variance_weight)
        inputs = self._inputs()
        return Trainer(
            pair, inputs, objective, optimizer, scheduler, optim.clip_grad_norm, config.precision == "bf16"
        )

    def _inputs(self) -> Inputs:
        joined, where = self.joined, self.config.data.rows
        used = (self.splits.train, self.splits.val)

        def rows_of(features: FeatureSet, name: str) -> FeatureRows:
            rows = np.concatenate([getattr(pairs, name) for pairs in used])
            return FeatureRows(features, rows, device=self.device, where=where)

        reference = rows_of(joined.reference, "reference_rows") if joined.reference is not None else None
        return Inputs(rows_of(joined.image, "image_rows"), rows_of(joined.text, "caption_rows"), reference)

    @property
    def _variance_weight(self) -> float | None:
        loss = self.config.loss
        return loss.variance_weight if loss.distribution_matching else None

    def _lr(self) -> float:
        return float(self.trainer.optimizer.param_groups[0]["lr"])

    def _log(self, run: Run, record: Record) -> None:
        run.append_record(record)
        self.on_record(record)


def _open(config: FitConfig, cache_dir: Path, info: Mapping[str, Any] | None) -> PairedFeatures:
    """Open and join the feature sets; a resumed run reads the very sets it began with."""

    def opened(encoder: str, role: str) -> FeatureSet:
        exact = f"{encoder.partition('@')[0]}@{info[role]['key8']}" if info else encoder
        return open_feature_set(cache_dir, config.data.dataset, exact)

    data = config.data
    reference = opened(data.reference, "reference") if data.reference is not None else None
    return join(opened(data.image_encoder, "image"), opened(data.text_encoder, "text"), reference)


def _split(config: FitConfig, joined: PairedFeatures) -> Splits:
    data = config.data
    return split_pairs(
        joined, how=data.split, val_fraction=data.val_fraction, num_samples=data.num_samples, seed=config.seed
    )


def _batches(config: FitConfig, splits: Splits) -> Batches:
    return Batches(
        splits.train,
        batch_size=config.data.batch_size,
        accumulation=config.optim.gradient_accumulation_steps,
        captions_per_image=config.data.captions_per_image,
        seed=config.seed,
    )


def _probe_sets(config: FitConfig, joined: PairedFeatures, cache_dir: Path) -> ProbeSets | None:
    if config.evaluation.probe is None:
        return None
    return open_probe_sets(cache_dir, config.evaluation.probe, image=joined.image, reference=joined.reference)


def _embed_dim(config: FitConfig, joined: PairedFeatures) -> int:
    reference = joined.reference
    embed_dim = config.adapter.embed_dim or (reference.dim if reference is not None else _DEFAULT_EMBED_DIM)
    if config.loss.distribution_matching and reference is not None and embed_dim != reference.dim:
        raise ConfigError(
            f"adapter.embed_dim = {embed_dim}, and {reference.name} has {reference.dim} dimensions: "
            "their variances are matched one by one",
            hint="leave adapter.embed_dim out, or set loss.distribution_matching=false",
        )
    return embed_dim


def _check_k(k: int, n: int) -> None:
    if k >= n:
        raise ConfigError(f"evaluation.k = {k} neighbours, and only {n} images validate",
                          hint=f"set evaluation.k below {n}")  # fmt: skip


def _describe(features: FeatureSet | None) -> Record | None:
    if features is None:
        return None
    return {
        "encoder": features.encoder,
        "key8": features.key8,
        "dim": features.dim,
        "untrained": features.untrained,
    }


def _measure(views: Mapping[str, Tensor], embedded: Embedded, pairs: Pairs, *, k: int, limit: int) -> Record:
    """Summarise the first ``limit`` images; margins are kept as plain numbers here."""
    some = pairs.subset(np.arange(min(limit, pairs.n_images)))
    summary = summarise(
        {name: rows[: some.n_images] for name, rows in views.items()},
        captions=embedded.captions[: some.n_captions],
        caption_image=some.caption_image,
        k=k,
    )
    judged = margins(summary, summary) or {}
    plain = {metric: {"h1": both.h1.margin, "h2": both.h2.margin} for metric, both in judged.items()}
    return {**summary.record, "hypotheses": plain or None}


def _save_snapshot(run: Run, epoch: int, views: Mapping[str, Tensor], pairs: Pairs) -> None:
    """Keep the same few validation pairs at each epoch, for the report to draw."""
    chosen = np.random.default_rng(0).permutation(pairs.n_images)[:_SNAPSHOT_IMAGES]
    arrays = {
        name: rows[torch.from_numpy(chosen)].cpu().numpy().astype(np.float16) for name, rows in views.items()
    }
    buffer = BytesIO()
    np.savez(buffer, sample_id=pairs.sample_ids[chosen], **arrays)  # type: ignore[arg-type] # stubs: allow_pickle
    publish_bytes(run.snapshots / f"epoch-{epoch:04d}.npz", buffer.getvalue())


def _score(record: Mapping[str, Any], select_by: str) -> float:
    """Return what makes an epoch the best; larger is better."""
    if select_by == "val_loss":
        return -float(record["val"]["loss"])
    directions = record["retrieval"].values()
    return float(np.mean([direction[key] for direction in directions for key in ("r1", "r5", "r10")]))
