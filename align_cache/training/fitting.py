"""Stage 2: train adapters on cached features, one run or several together, and leave run folders."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeAlias

from align_cache.config import to_toml
from align_cache.errors import AlignCacheError
from align_cache.lock import holding
from align_cache.results import Run, create_run, find_run
from align_cache.runtime import keeping_freed_memory, now, provenance
from align_cache.settings import FitConfig, fit_config
from align_cache.training.assemble import Opened, assemble
from align_cache.training.run_loss import Losses
from align_cache.training.scalar_log import require_tensorboard
from align_cache.training.session import OnRecord, Session
from align_cache.training.trainer import Trainer

OnEnd: TypeAlias = Callable[[Session, Exception | None], None]


def fit(
    config: FitConfig,
    *,
    cache_dir: Path = Path("cache"),
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

    Examples
    --------
    >>> from align_cache import fit, fit_config
    >>> sets = ("data.dataset=shapes", "data.image_encoder=small-cnn", "data.text_encoder=small-text")
    >>> alone = ("data.reference=none", "loss.distribution_matching=false")
    >>> config = fit_config(assignments=(*sets, *alone, "optim.epochs=4", "evaluation.k=3"))
    >>> run = fit(config, cache_dir=Path("cache"))
    >>> run.info()["status"]
    'finished'
    >>> [record["epoch"] for record in run.records() if record["kind"] == "epoch"]
    [0, 1, 2, 3, 4]
    """
    session = start(config, Opened(cache_dir), on_record=on_record, on_note=on_note, command=command)
    train([session])
    return session.run


def resume_fit(
    name: str,
    *,
    cache_dir: Path = Path("cache"),
    on_record: OnRecord | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Run:
    """Continue a run after its last saved epoch; the result is that of a run that was never interrupted.

    Raises
    ------
    AlignCacheError
        Also if the features are not the ones the run began with.
    """
    run = find_run(name, cache_dir=cache_dir)
    if run.info()["status"] != "finished":
        train([reopen(run, Opened(cache_dir), on_record=on_record, on_note=on_note)])
    return run


def start(
    config: FitConfig,
    opened: Opened,
    *,
    on_record: OnRecord | None = None,
    on_note: Callable[[str], None] | None = None,
    command: str | None = None,
    sweep: str | None = None,
    trial: str | None = None,
) -> Session:
    """Make a new run ready for :func:`train`; of a sweep it is told which trial it is."""
    require_tensorboard(wanted=config.log.tensorboard)
    parts = assemble(config, opened)
    _tell(parts.notes, on_note)
    runs_folder = config.log.save_dir or opened.cache_dir / "runs"
    run = create_run(runs_folder, opened.cache_dir, adapter=config.adapter.type, config_toml=to_toml(config))
    session = Session(run, config, parts, on_record=on_record)
    run.update(
        **session.description(),
        status="running",  # from the first write on: a run stopped before its first epoch is gone on with
        error=None,
        sweep=sweep,
        trial=trial,
        created=now(),
        command=command,
        provenance=provenance(),
    )
    return session


def reopen(
    run: Run,
    opened: Opened,
    *,
    on_record: OnRecord | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Session:
    """Make a run that was interrupted ready for :func:`train`."""
    config = fit_config(file=run.folder / "config.toml")
    require_tensorboard(wanted=config.log.tensorboard)
    parts = assemble(config, opened, run.info())
    _tell(parts.notes, on_note)
    session = Session(run, config, parts, on_record=on_record)
    with holding(run.folder / "training"):
        session.restore()
    return session


def train(sessions: Sequence[Session], *, on_end: OnEnd | None = None) -> None:
    """Run the epochs that are left; epoch 0 only measures.

    Parameters
    ----------
    sessions : sequence of Session
        Several have to be at the same epoch and of one shape (a sweep sees to that); they train together.
    on_end : callable, optional
        Told of each run that ended, and of the error that ended it; the others go on. None: an error is
        raised.
    """
    with ExitStack() as held:
        held.enter_context(keeping_freed_memory())
        for session in sessions:
            held.enter_context(holding(session.run.folder / "training"))
            if session.scalars is not None:
                held.callback(session.scalars.close)
            session.run.update(status="running", error=None)
        try:
            _train(list(sessions), on_end)
        except BaseException as error:
            for session in sessions:
                _mark_unfinished(session.run, error)
            raise


def _train(sessions: list[Session], on_end: OnEnd | None) -> None:
    if all(session.is_over for session in sessions):  # stopped after the last epoch was saved
        for session in sessions:
            _finish(session, on_end)
        return
    trainer = _trainer(sessions)
    for epoch in range(sessions[0].epoch + 1, sessions[0].last_epoch + 1):
        began = time.perf_counter()
        losses: Sequence[Losses | None] = [None] * len(sessions)
        if epoch and sessions[0].parts.chosen is None:
            steps = [s.parts.batches.epoch(epoch, pool=s.pool(epoch)) for s in sessions]
            taken = (epoch - 1) * sessions[0].steps_per_epoch
            losses = trainer.epoch(zip(*steps, strict=True), epoch=epoch, first_step=taken)
        seconds = (time.perf_counter() - began) / len(sessions)
        ended = [_close(s, epoch, own, seconds, on_end) for s, own in zip(sessions, losses, strict=True)]
        if any(ended):
            sessions = [session for session, over in zip(sessions, ended, strict=True) if not over]
            if not sessions:
                return
            trainer = _trainer(sessions)


def _close(session: Session, epoch: int, losses: Losses | None, seconds: float, on_end: OnEnd | None) -> bool:
    """Close an epoch of one run; tell whether the run is over."""
    try:
        session.close_epoch(epoch, losses, seconds)
        if not session.is_over:
            return False
        _finish(session, on_end)
    except (AlignCacheError, OSError) as error:
        if on_end is None:
            raise
        _mark_unfinished(session.run, error)
        on_end(session, error)
    return True


def _finish(session: Session, on_end: OnEnd | None) -> None:
    session.finish()
    if on_end is not None:
        on_end(session, None)


def _trainer(sessions: Sequence[Session]) -> Trainer:
    parts = sessions[0].parts
    members = [session.parts.member for session in sessions]
    return Trainer(
        members,
        parts.inputs,
        device=parts.device,
        bf16=parts.precision == "bf16",
        cuda_graph=sessions[0].config.cuda_graph,
    )


def _mark_unfinished(run: Run, error: BaseException) -> None:
    """Write down how a run ended that was running."""
    with suppress(OSError, AlignCacheError):  # on a full disk the state before is all that can be kept
        if run.info()["status"] != "running":
            return
        if isinstance(error, (AlignCacheError, OSError)):
            run.update(status="failed", error=str(error).partition("\n")[0])
        else:
            run.update(status="interrupted")


def _tell(notes: Sequence[str], on_note: Callable[[str], None] | None) -> None:
    for note in notes if on_note is not None else ():
        on_note(note)  # type: ignore[misc]  # narrowed by the condition above
