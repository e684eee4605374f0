"""One run while it trains: what is measured after an epoch, logged, selected and saved."""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from textwrap import shorten
from typing import Any

from torch import Tensor

from align_cache.adapters.checkpoint import Weights, load_adapters, load_trainer, save_checkpoint
from align_cache.adapters.pair import AdapterPair, n_parameters
from align_cache.errors import CorruptError
from align_cache.pairing.embedding import Embedded, Views, embed_pairs, embedding_views
from align_cache.pairing.pairs import Pairs, Rows
from align_cache.probes.probing import probe_run
from align_cache.results import Record, Run
from align_cache.runtime import peak_memory_bytes
from align_cache.settings import FitConfig
from align_cache.store import FeatureSet
from align_cache.training.assemble import Parts
from align_cache.training.curriculum import curriculum_share, most_alike
from align_cache.training.run_loss import Losses, require_finite, validation_loss
from align_cache.training.scalar_log import ScalarLog
from align_cache.training.validation import (
    in_parts,
    mean_of_parts,
    measure,
    recalls,
    save_snapshot,
    selection_score,
    similarity,
)

OnRecord = Callable[[Record], None]


class Session:
    """Keeps the books of a run; its steps are taken by a :class:`~align_cache.training.trainer.Trainer`."""

    def __init__(
        self, run: Run, config: FitConfig, parts: Parts, *, on_record: OnRecord | None = None
    ) -> None:
        self.run, self.config, self.parts = run, config, parts
        self._on_record = on_record or (lambda record: None)
        self.scalars = ScalarLog(run.folder / "tensorboard", run.records) if config.log.tensorboard else None
        self.epoch = -1 if parts.chosen is None else 0
        """The last one that was closed; 0 only measures. Adapters that are solved for have one, the first."""
        self.spent_s = 0.0
        """Seconds of its epochs so far; of those that it shared, its share."""
        self._best: float | None = None
        self._best_epoch = 0
        self._unsaved_best: Weights | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Steps of the optimiser."""
        return self.parts.batches.steps_per_epoch

    def description(self) -> Record:
        """Return what ``run.json`` says before the first epoch."""
        joined, splits, config = self.parts.joined, self.parts.splits, self.config
        sets = {"image": joined.image, "text": joined.text, "reference": joined.reference}
        return {
            "id": self.run.id,
            "project": config.log.project_name,
            "dataset": joined.image.dataset,
            "adapter": config.adapter.type,
            **{role: _describe(features) for role, features in sets.items()},
            "untrained": [s.encoder for s in sets.values() if s is not None and s.untrained],
            "embed_dim": self.parts.embed_dim,
            "n_parameters": n_parameters(self.parts.member.pair),
            "n_train_images": splits.train.n_images,
            "n_train_captions": splits.train.n_captions,
            "n_val_images": splits.val.n_images,
            "n_val_captions": splits.val.n_captions,
            "batch_size": self.parts.batches.batch_size,
            "steps_per_epoch": self.steps_per_epoch,
            "solved": self.parts.chosen,
            "seed": config.seed,
            "device": str(self.parts.device),
            "precision": self.parts.precision,
            "notes": list(self.parts.notes),
        }

    def restore(self) -> None:
        """Go back to the last checkpoint, or to the beginning where there is none."""
        if not (self.run.checkpoints / "index.json").exists():
            self.run.keep_records(through_epoch=-1)
            return
        weights, epoch = load_adapters(self.run.checkpoints, "last")
        state, state_epoch = load_trainer(self.run.checkpoints)
        assert state_epoch == epoch  # one index entry names both
        if not state:  # only the weights were saved, at the end, and then the run was stopped: once more
            self.run.keep_records(through_epoch=-1)
            return
        try:
            self._load(weights, state)
        except (KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            why = shorten(f"{type(error).__name__} {error}", 300)
            raise CorruptError(f"the last checkpoint of {self.run.id} is not of its config: {why}") from error
        self._best_epoch = load_adapters(self.run.checkpoints, "best")[1]
        self.run.update(best_epoch=self._best_epoch)
        self.run.keep_records(through_epoch=epoch)
        self.epoch = epoch
        self.spent_s = float(self.run.info().get("duration_s") or 0.0)

    def _load(self, weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        member = self.parts.member
        member.judged.load_state_dict(weights)
        if member.average is not None:
            member.pair.load_state_dict(state["pair"])
            member.average.n_averaged.fill_(state["n_averaged"])
        if member.balance is not None:
            member.balance.load_state_dict(state["balance"])
        member.optimizer.load_state_dict(state["optimizer"])
        self._best = float(state["best"])

    @property
    def last_epoch(self) -> int:
        """The last there can be."""
        return self.config.optim.epochs if self.parts.chosen is None else 1

    @property
    def is_over(self) -> bool:
        """Whether no epoch is left, or early stopping ends the run."""
        patience = self.config.optim.early_stopping
        stopped = patience is not None and self.epoch - self._best_epoch >= patience
        return stopped or self.epoch >= self.last_epoch

    def pool(self, epoch: int) -> Rows | None:
        """Return the positions of the images that the curriculum lets train; None: all."""
        data, pairs = self.config.data, self.parts.splits.train
        share = curriculum_share(epoch, epochs=data.curriculum_epochs, start=data.curriculum_start)
        if share == 1:
            return None
        at_least = self.parts.batches.batch_size
        return most_alike(self.parts.member.pair, self.parts.inputs, pairs, share=share, at_least=at_least)

    def close_epoch(self, epoch: int, losses: Losses | None, train_s: float) -> None:
        """Measure, log, snapshot, probe and save; epoch 0 only measures.

        Raises
        ------
        NonFiniteError
            If a loss is no number.
        """
        self.epoch, start = epoch, time.perf_counter()
        record: Record = {"kind": "epoch", "epoch": epoch}
        if losses is not None:
            self._log_steps(epoch, losses)
            record["lr"] = self.parts.member.learning_rates[(epoch - 1) * self.steps_per_epoch]
            record["train"] = losses.means(self.parts.member.variance_weight)
            require_finite(record["train"], epoch=epoch)
        settings, pairs = self.config.evaluation, self.parts.splits.val
        measured = settings.frequency > 0 and epoch % settings.frequency == 0
        by_recall = settings.select_by == "mean_recall"
        if not (measured or by_recall):
            pairs = pairs.with_first_captions()  # the loss looks at no others
        pairs, *rest = self._in_parts(pairs)
        embedded, views = self._look(self.parts.member.judged, pairs)
        record["val"] = self._validation_loss(pairs, views, rest)
        require_finite(record["val"], epoch=epoch)
        if measured:
            record |= self._measured(views, embedded)
        else:
            record["similarity"] = similarity(views, limit=settings.num_images)
            if by_recall:
                record["retrieval"] = recalls(embedded, pairs, limit=settings.num_images)
        record["train_s"] = train_s
        record["duration_s"] = train_s + time.perf_counter() - start
        self._log(record)
        viz_every = self.config.log.viz_frequency
        if viz_every and epoch % viz_every == 0:
            save_snapshot(self.run.snapshots, epoch, views, pairs)
        if self.parts.probe_sets and epoch and epoch % settings.downstream_eval_frequency == 0:
            self._log(self._probe(epoch))
        if epoch:
            self._select(epoch, record)
        self.spent_s += train_s + time.perf_counter() - start
        self.run.update(duration_s=self.spent_s, peak_memory_bytes=peak_memory_bytes())

    def _embed(self, pair: AdapterPair, pairs: Pairs) -> Embedded:
        """Embed as the run computes; ``align-cache eval`` embeds in float32 whatever the run did."""
        return embed_pairs(pair, self.parts.inputs, pairs, bf16=self.parts.precision == "bf16")

    def _in_parts(self, pairs: Pairs) -> list[Pairs]:
        """Cut validation pairs; everything but the loss looks at the first part alone."""
        at_least = self.config.evaluation.num_images
        return in_parts(pairs, at_least=at_least, batch_size=self.parts.batches.batch_size)

    def _look(self, pair: AdapterPair, pairs: Pairs) -> tuple[Embedded, Views]:
        embedded = self._embed(pair, pairs)
        return embedded, embedding_views(embedded, self.parts.inputs, pairs)

    def _validation_loss(self, first: Pairs, views: Views, rest: Sequence[Pairs]) -> dict[str, float]:
        """Mean the loss over all whole batches; of the first part the views are there already."""
        size, judged = self.parts.batches.batch_size, self.parts.member.judged
        losses = [self._loss_of(first, views)]
        losses += (self._loss_of(part, self._look(judged, part)[1]) for part in rest)
        return mean_of_parts(losses, [part.n_images // size for part in (first, *rest)])

    def _loss_of(self, pairs: Pairs, views: Views) -> dict[str, float]:
        inputs, pairs = self.parts.inputs, pairs.with_first_captions()
        return validation_loss(
            self.parts.member,
            views["image"],
            views["text"],
            views.get("reference"),
            features=(inputs.image.take(pairs.image_rows), inputs.text.take(pairs.caption_rows)),
            batch_size=self.parts.batches.batch_size,
        )

    def _measured(self, views: Views, embedded: Embedded) -> Record:
        settings = self.config.evaluation
        measured = measure(views, embedded, self.parts.splits.val, k=settings.k, limit=settings.num_images)
        measured["distribution"]["mean_norm"] = embedded.mean_norm
        return measured

    def finish(self) -> None:
        """Measure the best epoch where that was not done at the time, and call the run finished."""
        start, every = time.perf_counter(), self.config.evaluation.frequency
        if not every or self._best_epoch % every:
            self._measure_best()
        self.spent_s += time.perf_counter() - start
        self.run.update(duration_s=self.spent_s, status="finished")

    def _measure_best(self) -> None:
        if any(record["kind"] == "best" for record in self.run.records()):
            return  # the run was stopped just after that
        weights, epoch = load_adapters(self.run.checkpoints, "best")
        pair = copy.deepcopy(self.parts.member.judged)
        pair.load_state_dict(weights)
        embedded, views = self._look(pair, self._in_parts(self.parts.splits.val)[0])
        self._log({"kind": "best", "epoch": epoch, **self._measured(views, embedded)})

    def _log_steps(self, epoch: int, losses: Losses) -> None:
        member = self.parts.member
        for index in range(len(losses.grad_norm)):
            done = (epoch - 1) * self.steps_per_epoch + index
            if (done + 1) % self.config.log.log_frequency == 0:
                self._log(
                    {
                        "kind": "step",
                        "epoch": epoch,
                        "step": done + 1,
                        "lr": member.learning_rates[done],
                        **losses.step(index, member.variance_weight),
                        "grad_norm": float(losses.grad_norm[index]),
                        "temperature": float(losses.temperature[index]),
                    }
                )

    def _probe(self, epoch: int) -> Record:
        assert self.parts.probe_sets is not None
        settings = self.config.evaluation
        rows = probe_run(
            self.parts.member.judged.image,
            self.parts.probe_sets,
            hidden_dim=settings.classifier_hidden_dim,
            batch_size=settings.downstream_batch_size,
            seed=self.config.seed,
            device=self.parts.device,
        )
        return {"kind": "probe", "epoch": epoch, "probe": self.parts.probe_sets.name, "rows": rows}

    def _select(self, epoch: int, record: Mapping[str, Any]) -> None:
        """Remember the best epoch, and save where it is time to."""
        score = selection_score(record, self.config.evaluation.select_by)
        every = self.config.log.checkpoint_frequency
        is_best = self._best is None or score > self._best
        if is_best:
            self._best, self._best_epoch = score, epoch
        saving = self.is_over or (every > 0 and epoch % every == 0)
        if is_best and not saving:
            self._unsaved_best = Weights.of(self.parts.member.judged, epoch)
        if saving:
            self._save(epoch, is_best=is_best)

    def _save(self, epoch: int, *, is_best: bool) -> None:
        member = self.parts.member
        last = Weights.of(member.judged, epoch)
        state: Record = {"optimizer": member.optimizer.state_dict(), "best": self._best}
        if member.average is not None:
            state |= {"pair": member.pair.state_dict(), "n_averaged": int(member.average.n_averaged)}
        if member.balance is not None:
            state |= {"balance": member.balance.state_dict()}
        if self.config.log.checkpoint_frequency == 0:
            state = {}  # saved at the end only: nothing is ever gone on with
        metadata = {"run": self.run.id, "embed_dim": str(self.parts.embed_dim)}
        best = last if is_best else self._unsaved_best
        save_checkpoint(self.run.checkpoints, last=last, best=best, trainer=state, metadata=metadata)
        self._unsaved_best = None
        self.run.update(best_epoch=self._best_epoch)

    def _log(self, record: Record) -> None:
        self.run.append_record(record)
        if self.scalars is not None:
            self.scalars.write(record)
        self._on_record(record)


def _describe(features: FeatureSet | None) -> Record | None:
    if features is None:
        return None
    return {
        "encoder": features.variant,
        "key8": features.key8,
        "dim": features.dim,
        "untrained": features.untrained,
    }
