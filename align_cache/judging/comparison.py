"""Runs side by side: what differs in nothing but the seed is one group, and its numbers are mean ± sd.

Reads run folders and never imports torch. A run that cannot be compared is named with the reason and the
way out, and enters no mean.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev

from align_cache.errors import RunError, UsageError
from align_cache.judging.judged_run import JudgedRun, LeftOut, judge
from align_cache.results import Record, Run

_LEVEL = 0.975
"""Of Student's t: both sides of a 95% interval."""


@dataclass(frozen=True, slots=True)
class Spread:
    """One number over the runs of a group that have it."""

    mean: float
    sd: float | None
    """Sample standard deviation; None for one run."""
    n: int
    interval: tuple[float, float] | None
    """95%: of the mean over seeds, by Student's t; of one run the run's own over items; None without."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One number of the second group less that of the first, paired by seed."""

    mean: float
    interval: tuple[float, float] | None
    """95% interval of the mean, by Student's t over seeds; None for one seed."""
    n: int


@dataclass(frozen=True, slots=True)
class Group:
    """Runs of the same settings, one a seed."""

    settings: Record
    """Those that are not the same in all groups."""
    runs: tuple[JudgedRun, ...]

    @property
    def numbers(self) -> dict[str, Spread]:
        """Each number that at least one run has."""
        names = dict.fromkeys(name for run in self.runs for name in run.numbers)
        return {name: _spread(name, [run for run in self.runs if name in run.numbers]) for name in names}

    @property
    def verdicts(self) -> dict[str, dict[str, int]]:
        """How many runs came to each verdict, by margin."""
        names = dict.fromkeys(name for run in self.runs for name in run.verdicts)
        return {name: dict(Counter(run.verdicts[name] for run in self.runs if name in run.verdicts))
                for name in names}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Comparison:
    """Groups in the order in which their first run was named, and what was left out."""

    groups: tuple[Group, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Every number that at least one run has."""
        return tuple(dict.fromkeys(name for group in self.groups for name in group.numbers))

    @property
    def untrained(self) -> tuple[str, ...]:
        """Names of the encoders with random weights."""
        runs = (run for group in self.groups for run in group.runs)
        return tuple(dict.fromkeys(name for run in runs for name in run.untrained))

    @property
    def shared(self) -> Record:
        """The settings, and conditions of the evaluation, that are the same in all groups."""
        settings = self.groups[0].runs[0].settings
        return {key: value for key, value in settings.items() if key not in self.groups[0].settings}

    @property
    def paired(self) -> dict[str, Difference] | None:
        """Second group less first over the seeds that both have; None unless two groups share one."""
        if len(self.groups) != 2:
            return None
        first, second = ({run.seed: run.numbers for run in group.runs} for group in self.groups)
        seeds = sorted(first.keys() & second.keys())
        values = {
            name: [second[seed][name] - first[seed][name] for seed in seeds
                   if name in first[seed] and name in second[seed]]
            for name in self.names
        }  # fmt: skip
        return {name: difference_of(found) for name, found in values.items() if found} or None

    def to_record(self) -> Record:
        """Everything as JSON can hold it."""
        paired = self.paired
        return {
            "shared": self.shared,
            "groups": [_group_record(group) for group in self.groups],
            "paired": paired and {name: asdict(difference) for name, difference in paired.items()},
            "left_out": [asdict(run) for run in self.left_out],
            "untrained": list(self.untrained),
        }

    def to_csv(self) -> str:
        """One line for each group and number: the settings that differ, seeds, mean, sd and interval."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        settings = list(self.groups[0].settings)
        writer.writerow(["group", *settings, "number", "n", "mean", "sd", "low", "high"])
        for index, group in enumerate(self.groups, start=1):
            values = [group.settings[key] for key in settings]
            for name, spread in group.numbers.items():
                bounds = spread.interval or (None, None)
                writer.writerow([index, *values, name, spread.n, spread.mean, spread.sd, *bounds])
        return text.getvalue()


def compare(runs: Sequence[Run]) -> Comparison:
    """Group runs by their settings and set the groups side by side.

    Parameters
    ----------
    runs : sequence of Run
        At least one; a run named twice counts once. A group is the runs of the same settings, ``seed`` and
        ``log.*`` aside, on the same feature sets, evaluated alike (checkpoint, split, N, k). Of several runs
        of one group and seed the newest counts.

    Returns
    -------
    Comparison
        Its numbers are those of each run's latest evaluation: ``retrieval.<way>.r<k>``,
        ``alignment.<metric>.<pair>``, ``calibrated.<metric>.<pair>``,
        ``hypotheses.<baseline>.<metric>.<h1 or h2>``, ``similarity.matched`` and ``.unmatched``,
        ``distribution.variance_difference`` and ``.modality_gap``, ``probe.<dataset>.<rows>.<head>``,
        ``zero_shot.<dataset>.<top1 or top5>``, and ``val_loss`` of the epoch that was evaluated.

    Raises
    ------
    UsageError
        If no run is named.
    RunError
        If none of them is finished and evaluated, or a run folder is damaged.
    """
    if not runs:
        raise UsageError("no run is named", hint="align-cache runs ls shows them")
    outcomes = [judge(run) for run in {run.folder.resolve(): run for run in runs}.values()]
    left_out = [outcome for outcome in outcomes if isinstance(outcome, LeftOut)]
    groups: dict[str, dict[int, JudgedRun]] = {}
    for run in (outcome for outcome in outcomes if isinstance(outcome, JudgedRun)):
        seeds = groups.setdefault(canonical(run.settings), {})
        older, newer = sorted([seeds.get(run.seed, run), run], key=lambda each: each.created)
        seeds[run.seed] = newer
        if older is not newer:
            reason = f"{newer.run.id} has the same settings and seed, and is newer"
            left_out.append(LeftOut(older.run.id, "finished", reason, None))
    if not groups:
        raise RunError(f"nothing to compare: {'; '.join(f'{run.run} {run.reason}' for run in left_out)}",
                       hint=left_out[0].remedy)  # fmt: skip
    return Comparison(_with_differing([seeds.values() for seeds in groups.values()]), tuple(left_out))


def _with_differing(groups: Sequence[Iterable[JudgedRun]]) -> tuple[Group, ...]:
    """Order each group by seed, and keep of its settings those that are not the same everywhere."""
    ordered = [tuple(sorted(runs, key=lambda run: run.seed)) for runs in groups]
    differing = differing_keys([runs[0].settings for runs in ordered])
    return tuple(Group({key: runs[0].settings.get(key) for key in differing}, runs) for runs in ordered)


def differing_keys(settings: Sequence[Record]) -> list[str]:
    """Return the keys whose values are not the same in all of some settings."""
    keys = dict.fromkeys(key for each in settings for key in each)
    return [key for key in keys if len({canonical(each.get(key)) for each in settings}) > 1]


def _spread(name: str, runs: Sequence[JudgedRun]) -> Spread:
    values = [run.numbers[name] for run in runs]
    if len(values) == 1:
        return Spread(values[0], None, 1, runs[0].intervals.get(name))
    return Spread(fmean(values), stdev(values), len(values), mean_interval(values))


def difference_of(values: Sequence[float]) -> Difference:
    """Summarise differences of pairs of runs, one a seed; at least one."""
    interval = mean_interval(values) if len(values) > 1 else None
    return Difference(fmean(values), interval, len(values))


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95% interval of the mean of two or more values, by Student's t."""
    from scipy.special import stdtrit

    mean, n = fmean(values), len(values)
    half = float(stdtrit(n - 1, _LEVEL)) * stdev(values) / math.sqrt(n)
    return mean - half, mean + half


def _group_record(group: Group) -> Record:
    runs = [{"id": run.run.id, "folder": str(run.run.folder), "seed": run.seed, "numbers": run.numbers,
             "verdicts": run.verdicts} for run in group.runs]  # fmt: skip
    numbers = {name: asdict(spread) for name, spread in group.numbers.items()}
    return {"settings": group.settings, "numbers": numbers, "verdicts": group.verdicts, "runs": runs}


def canonical(value: object) -> str:
    """Return settings as a string that is equal for equal ones."""
    return json.dumps(value, sort_keys=True, default=str)
