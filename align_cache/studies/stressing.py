"""How retrieval falls with noise: one run, judged on the same pairs with more and more of it.

It stands above both stages: what is missing of noisy images and captions is extracted, and then judged as
``eval`` judges, by the run's own adapters.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from align_cache.adapters.run_adapters import load_pair
from align_cache.corruption import Noise
from align_cache.errors import UsageError
from align_cache.extraction.variants import noisy_variant, without_noise
from align_cache.judging.noisy_pairs import Embeddings, NoisyPairs, Side
from align_cache.judging.run_features import choose_split, open_run_features
from align_cache.judging.stress_record import merged
from align_cache.metrics.retrieval import retrieval
from align_cache.pairing.pairs import PairedFeatures, Pairs, join
from align_cache.progress import Progress, no_progress
from align_cache.results import Record, Run
from align_cache.runtime import now, resolve_device
from align_cache.settings import StressConfig, fit_config
from align_cache.store import FeatureSet

_FEATURES = {"image": "image features", "text": "caption features", "both": "features"}


@dataclass(frozen=True, slots=True)
class _Point:
    """One kind of noise at one level, and what makes the embeddings under it."""

    on: str
    kind: str
    level: float
    embed: Callable[[], Embeddings]


def stress(
    run: Run,
    config: StressConfig,
    *,
    cache_dir: Path = Path("cache"),
    progress: Progress = no_progress,
    on_note: Callable[[str], None] | None = None,
) -> Record:
    """Measure a run's retrieval without noise and under every kind and level of it.

    Parameters
    ----------
    run : Run
        A run with a checkpoint.
    config : StressConfig
    cache_dir : Path
        Holds the feature sets the run was trained on; noisy variants are added to it.
    progress : callable, optional
        Makes the progress bars.
    on_note : callable, optional
        Told once each what extraction has to say.

    Returns
    -------
    dict
        ``clean`` is the retrieval of the unchanged pairs. Each of ``points`` says what the noise was put
        ``on`` (``images``, ``captions``, ``image features``, ``caption features``, ``features``), its
        ``kind`` and ``level``, and holds the ``retrieval`` under it. ``stress.json`` in the run folder keeps
        it, beside the points of earlier calls on the same pairs.

    Raises
    ------
    UsageError
        For noise on the features of a text tower that reads token ids.
    CacheError
        If a noisy variant is not in the cache and cannot be extracted from here; names the command.
    AlignCacheError
    """
    info, trained = run.info(), fit_config(file=run.folder / "config.toml")
    joined, notes = _clean(open_run_features(info, trained, cache_dir), cache_dir)
    split, chosen = choose_split(joined, trained, config.split)
    side = _feature_side(config, joined, notes)
    device = resolve_device(config.device)
    pair, epoch = load_pair(run, config.checkpoint)
    noisy = NoisyPairs.open(joined, chosen, pair.to(device), device=device)
    variant = partial(
        noisy_variant,
        cache_dir=cache_dir,
        splits=_splits(noisy),
        device=config.device,
        workers=config.workers,
        progress=progress,
        on_note=_once(on_note),
    )
    points = [*_variant_points(config, noisy, variant), *_feature_points(config, noisy, side)]
    record: Record = {
        "kind": "stress",
        "created": now(),
        "run": run.id,
        "checkpoint": config.checkpoint,
        "epoch": epoch,
        "split": split,
        "n_images": chosen.n_images,
        "n_captions": chosen.n_captions,
        "clean": retrieval(*noisy.clean, chosen.caption_image).to_record(),
        "points": _measured(points, chosen, progress),
        "untrained": info["untrained"],
        "notes": notes,
    }
    run.keep_stress(merged(run.stress(), record))
    return record


def _measured(points: Sequence[_Point], pairs: Pairs, progress: Progress) -> list[Record]:
    measured = []
    with progress(len(points), "judging", "levels of noise") as bar:
        for point in points:
            found = retrieval(*point.embed(), pairs.caption_image).to_record()
            measured.append({"on": point.on, "kind": point.kind, "level": point.level, "retrieval": found})
            bar.advance()
    return measured


def _once(on_note: Callable[[str], None] | None) -> Callable[[str], None]:
    """Say a note of extraction once, however many variants it is repeated for."""
    said: set[str] = set()

    def say(line: str) -> None:
        if on_note is not None and line not in said:
            said.add(line)
            on_note(line)

    return say


def _clean(joined: PairedFeatures, cache_dir: Path) -> tuple[PairedFeatures, list[str]]:
    """Return the clean pairs of a run that was trained on noisy ones, and the notes on all of them."""
    image, text = (without_noise(features, cache_dir) for features in (joined.image, joined.text))
    notes = [
        f"trained on {noisy.name}, which is noisy: judged from {clean.name} on"
        for noisy, clean in ((joined.image, image), (joined.text, text))
        if noisy is not clean
    ]
    if notes:
        joined = join(image, text, None)
    return joined, [*joined.notes, *notes]


def _feature_side(config: StressConfig, joined: PairedFeatures, notes: list[str]) -> Side:
    """Say whose features take noise: token ids take none, which is noted."""
    if not joined.text.holds_tokens or not _feature_kinds(config) or config.feature_side == "image":
        return config.feature_side
    what = f"{joined.text.name} holds token ids, which take no noise on features"
    if config.feature_side == "text":
        raise UsageError(what, hint="put it on the captions: --caption-noise drop")
    notes.append(f"{what}: it is put on those of the images alone")
    return "image"


def _feature_kinds(config: StressConfig) -> tuple[str, ...]:
    """Return the kinds asked for; where no noise is named at all those that need no extraction."""
    named = config.image_noise or config.caption_noise or config.feature_noise
    return config.feature_noise if named else ("gaussian", "dropout")


def _variant_points(
    config: StressConfig, noisy: NoisyPairs, variant: Callable[..., FeatureSet]
) -> Iterator[_Point]:
    """Have every variant ready before anything is judged."""
    joined = noisy.joined
    asked = (
        ("images", joined.image, noisy.image_ids, config.image_noise, config.severities),
        ("captions", joined.text, noisy.caption_ids, config.caption_noise, config.rates),
    )
    for on, clean, ids, kinds, levels in asked:
        for kind in kinds:
            for level in levels:
                found = variant(clean, Noise(kind, level), sample_ids=ids)
                yield _Point(on, kind, level, partial(noisy.with_variant, found))


def _feature_points(config: StressConfig, noisy: NoisyPairs, side: Side) -> Iterator[_Point]:
    for kind in _feature_kinds(config):
        for severity in config.severities:
            embed = partial(noisy.with_feature_noise, kind, severity, side)
            yield _Point(_FEATURES[side], kind, severity, embed)


def _splits(noisy: NoisyPairs) -> tuple[str, ...] | None:
    """Return the splits that the judged images are of; None where not all have one."""
    named = noisy.joined.image.splits
    if named is None:
        return None
    found = {str(name) for name in named[noisy.pairs.image_rows]}
    return tuple(sorted(found)) if all(found) else None
