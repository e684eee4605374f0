"""What stays in sight on the terminal while many runs train and are judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from align_cache.reporting.leaderboard import leaderboard_table
from align_cache.terminal.console import SettableBar, progress, stderr
from align_cache.terminal.tables import rich_table

if TYPE_CHECKING:
    from align_cache.sweeps.records import RankBy, TrialRecord
    from align_cache.sweeps.sweeping import Standing


@contextmanager
def live_leaderboard(rank_by: RankBy) -> Iterator[Callable[[Sequence[TrialRecord], int], None]]:
    """Keep the best ten trials of a sweep on stderr; where that is no terminal, a line as each one ends.

    Yields
    ------
    callable (trials that ended, trials in all)
    """
    from rich.live import Live

    if stderr().is_terminal:
        with Live(console=stderr(), auto_refresh=False) as screen:
            yield lambda ended, total: screen.update(
                rich_table(leaderboard_table(ended, rank_by, n_trials=total, limit=10)), refresh=True
            )
        return
    told: set[str] = set()

    def tell(ended: Sequence[TrialRecord], total: int) -> None:
        for trial in ended:
            if trial.key not in told:
                told.add(trial.key)
                score = f"{rank_by} {trial.scores[rank_by]:.4f}" if trial.scores else f"failed: {trial.error}"
                values = ", ".join(f"{key} {value}" for key, value in trial.values.items())
                stderr().print(
                    f"{len(told)}/{total}  {score}  {trial.duration_s:.1f} s  {values}", soft_wrap=True
                )

    yield tell


@contextmanager
def live_study() -> Iterator[tuple[Callable[[Standing], None], Callable[[int, int], None]]]:
    """Show the leaderboard while a study trains, and then a bar while it judges.

    Yields
    ------
    callable (where the sweep stands), and callable (runs judged, runs in all)
    """
    with ExitStack() as screen:
        show = screen.enter_context(live_leaderboard("mean_recall"))
        bar: SettableBar | None = None

        def on_judged(done: int, total: int) -> None:
            nonlocal bar
            if bar is None:
                screen.close()  # the leaderboard: a terminal has room for one live display
                bar = screen.enter_context(progress(total, "judging", "runs"))
            bar.update(done, total)

        yield lambda standing: show(standing.ended, standing.n_trials), on_judged
