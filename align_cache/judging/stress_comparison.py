"""Stress tests of several runs side by side: runs that differ in their seed alone are one line, mean ± sd.

Reads run folders and never imports torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from align_cache.errors import UsageError
from align_cache.judging.comparison import Spread, canonical, differing_keys, mean_interval
from align_cache.judging.judged_run import settings_of
from align_cache.judging.stress_record import Place, place_of
from align_cache.results import Record, Run

_CONDITIONS = ("split", "n_images", "n_captions", "checkpoint")


@dataclass(frozen=True, slots=True)
class StressGroup:
    """Runs of the same settings, one a seed, each with its record."""

    settings: Record
    """Those that are not the same in all groups."""
    runs: tuple[str, ...]
    records: tuple[Mapping[str, Any], ...]

    def recall(self, place: Place | None, way: str, k: int) -> Spread:
        """Return a recall under one level of noise, None: without, over the runs.

        Of one run the interval is its own over images, of several that of their mean over seeds.
        """
        found = [_retrieval(record, place)[way] for record in self.records]
        values = [each[f"r{k}"] for each in found]
        if len(values) == 1:
            low, high = found[0]["intervals"][f"r{k}"]
            return Spread(values[0], None, 1, (low, high))
        return Spread(fmean(values), stdev(values), len(values), mean_interval(values))


@dataclass(frozen=True, slots=True)
class StressComparison:
    """Groups in the order in which their first run was named."""

    groups: tuple[StressGroup, ...]

    @property
    def places(self) -> tuple[Place, ...]:
        """Every level of noise that all runs were measured under, in order."""
        records = [record for group in self.groups for record in group.records]
        shared = set.intersection(*({place_of(point) for point in record["points"]} for record in records))
        return tuple(sorted(shared))

    @property
    def record(self) -> Mapping[str, Any]:
        """The first run's record, for what is the same for all: split, sizes, chance."""
        return self.groups[0].records[0]

    @property
    def untrained(self) -> list[str]:
        """Names of the encoders with random weights."""
        records = (record for group in self.groups for record in group.records)
        return list(dict.fromkeys(name for record in records for name in record["untrained"]))

    def to_record(self) -> Record:
        """Everything as JSON can hold it."""
        places = (None, *self.places)
        return {
            **{name: self.record[name] for name in _CONDITIONS},
            "groups": [
                {
                    "settings": group.settings,
                    "runs": list(group.runs),
                    "points": [_point_record(group, place) for place in places],
                }
                for group in self.groups
            ],
            "untrained": self.untrained,
        }


def compare_stress(tested: Sequence[tuple[Run, Record]]) -> StressComparison:
    """Group runs by their settings, ``seed`` and ``log.*`` aside.

    Parameters
    ----------
    tested : sequence of (Run, dict)
        At least one run with its record from :func:`align_cache.stress`.

    Raises
    ------
    UsageError
        If two runs were judged on different pairs, or share no level of noise.
    """
    _check_same_pairs(tested)
    grouped: dict[str, list[tuple[Run, Record]]] = {}
    settings: dict[str, Record] = {}
    for run, record in tested:
        own = settings_of(run, run.info())
        settings.setdefault(canonical(own), own)
        grouped.setdefault(canonical(own), []).append((run, record))
    differing = differing_keys(list(settings.values()))
    groups = [
        StressGroup(
            {key: settings[name].get(key) for key in differing},
            tuple(run.id for run, _ in members),
            tuple(record for _, record in members),
        )
        for name, members in grouped.items()
    ]
    comparison = StressComparison(tuple(groups))
    if not comparison.places:
        raise UsageError(
            f"no level of noise was put on the same side of all {len(tested)} runs",
            hint="token ids take none on their features: --feature-side image is there for every run",
        )
    return comparison


def _check_same_pairs(tested: Sequence[tuple[Run, Record]]) -> None:
    first_run, first = tested[0]
    for run, record in tested[1:]:
        for name in _CONDITIONS:
            if record[name] != first[name]:
                raise UsageError(
                    f"{run.id} was judged with {name} = {record[name]} and {first_run.id} with {first[name]}",
                    hint="name runs of one dataset, or a --split that they share",
                )


def _retrieval(record: Mapping[str, Any], place: Place | None) -> Record:
    if place is None:
        found: Record = record["clean"]
        return found
    return next(point["retrieval"] for point in record["points"] if place_of(point) == place)


def _point_record(group: StressGroup, place: Place | None) -> Record:
    on, kind, level = place or (None, None, None)
    recalls = {
        way: {f"r{k}": asdict(group.recall(place, way, k)) for k in (1, 5, 10)}
        for way in ("image_to_text", "text_to_image")
    }
    return {"on": on, "kind": kind, "level": level, **recalls}
