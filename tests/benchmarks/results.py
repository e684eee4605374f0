"""The results page: linear and MLP adapters on real features, with and without the variance term.

    python tests/benchmarks/results.py --data DIR [--cache-dir cache] [--out docs/results.md]

DIR holds images-mobilenet_v2.npz, images-mobilenet_v1.npz and captions-lsa_glove.npz. What is trained and
judged in the cache is not done again, so a script that was stopped goes on. The page is written last and
whole; every number and every sentence of a finding on it is made from the runs.
"""

import argparse
import platform
import shlex
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch

from align_cache import Run, __version__, compare, evaluate, fit, fit_config, import_features, resume_fit
from align_cache.comparison import Comparison, Difference, Group
from align_cache.config import to_toml
from align_cache.files import publish_text
from align_cache.judged_run import JudgedRun, judge
from align_cache.reporting.comparison import comparison_tables, difference_words, spread, words
from align_cache.reporting.tables import METRICS, PAIRS, Table
from align_cache.reporting.wording import number
from align_cache.results import Record, list_runs
from align_cache.settings import EvalConfig, FitConfig

DATASET = "flickr8k-real"
FILES: tuple[tuple[str, Literal["image", "text"], str], ...] = (
    ("mobilenet_v2", "image", "images-mobilenet_v2.npz"),
    ("mobilenet_v1", "image", "images-mobilenet_v1.npz"),
    ("lsa_glove", "text", "captions-lsa_glove.npz"),
)
ADAPTERS = ("linear", "mlp")
ROLES = ("image", "text", "reference")
INTRODUCTION = """# Results on real features of Flickr8k

Made by `{command}`, with every number and finding taken from its runs.

- **Data**: trained on {train}; judged on the {split} split, {judged}.{chose}
- **Features**: image {image}, text {text}, reference {reference}. The text features are
  weak (word statistics, no language model): the page compares settings and competes with nobody.
- **Runs**: seeds 0–{last} of each of four settings, {epochs} epochs, otherwise the preset of the adapter
  ([configuration.md](configuration.md)). A seed changes initial weights, batches and dropout, not the images.
- **Numbers**: mean ± sample standard deviation over {seeds} seeds; [metrics.md](metrics.md) defines them.
- **Made with**: {versions}, {device}.
"""
CHOSE = " It also chose the best epoch, so recalls are a little high, for all settings alike."
UNTRAINED = """Their *aligned* row is image and text side by side, nothing trained; its H1 margin is
{margins}:
a trained H1 margin says something as far as it is above that.
"""
OUTCOMES = {
    "supported": "holds in every run",
    "not supported": "is contradicted by every run",
    "undecided": "is undecided in every run",
    None: "was not judged",
}
EFFECTS = (
    "The variance term, on less off, paired by seed, moved {moved}. {clear} of {measured} intervals exclude "
    "zero; by chance alone about {chance:.0f} would, in clusters, for the numbers depend on each other. The "
    "validation loss contains the term and is not counted."
)


def settings(adapter: str, *, matching: bool, seed: int, epochs: int | None) -> FitConfig:
    """The preset of an adapter on the real features; fewer epochs are for trying the script."""
    flags = {
        "data.dataset": DATASET,
        "data.image_encoder": "mobilenet_v2",
        "data.text_encoder": "lsa_glove",
        "data.reference": "mobilenet_v1",
        "adapter.type": adapter,
        "loss.distribution_matching": matching,
        "log.viz_frequency": 0,
        "seed": seed,
    }
    if epochs is not None:
        flags |= {"optim.epochs": epochs, "optim.warmup_epochs": 0.0}
    return fit_config(flags=flags)


def trained(config: FitConfig, cache_dir: Path) -> Run:
    """The finished run of a config: the one that is there, gone on with if it was stopped, or a new one."""
    wanted = tomllib.loads(to_toml(config))
    same = [run for run in list_runs(cache_dir) if run.config() == wanted]
    if same:
        return resume_fit(same[-1].id, cache_dir=cache_dir)
    return fit(config, cache_dir=cache_dir, command=shlex.join(sys.argv))


def judged(config: FitConfig, cache_dir: Path) -> Run:
    run = trained(config, cache_dir)
    if not isinstance(judge(run), JudgedRun):
        evaluate(run, EvalConfig(), cache_dir=cache_dir)
    return run


def compared(options: argparse.Namespace) -> dict[str, Comparison]:
    """By adapter: group 1 without the variance term, group 2 with it."""
    comparisons, done = {}, 0
    total = len(ADAPTERS) * 2 * options.seeds
    for adapter in ADAPTERS:
        runs = []
        for matching in (False, True):
            for seed in range(options.seeds):
                start, done = time.perf_counter(), done + 1
                config = settings(adapter, matching=matching, seed=seed, epochs=options.epochs)
                runs.append(judged(config, options.cache_dir))
                seconds = time.perf_counter() - start
                print(
                    f"{done}/{total} {runs[-1].id} seed {seed} {seconds:.0f} s", file=sys.stderr, flush=True
                )
        comparisons[adapter] = compare(runs)
    return comparisons


def page(comparisons: dict[str, Comparison], command: str) -> str:
    run = next(iter(comparisons.values())).groups[0].runs[0].run
    return "\n".join(
        [
            *introduction(run, len(comparisons["linear"].groups[0].runs), command),
            *(line for adapter, comparison in comparisons.items() for line in section(adapter, comparison)),
        ]
    )


def introduction(run: Run, seeds: int, command: str) -> Iterator[str]:
    info, record = run.info(), run.results()[-1]
    encoders = {role: f"`{info[role]['encoder']}` ({info[role]['dim']}-d)" for role in ROLES}
    yield INTRODUCTION.format(
        command=command,
        train=f"{info['n_train_images']:,} images with {info['n_train_captions']:,} captions",
        judged=f"N = {record['n_images']:,} images with {record['n_captions']:,} captions",
        split=record["split"],
        chose=CHOSE if record["split"] == "val" else "",
        **encoders,
        seeds=seeds,
        last=seeds - 1,
        epochs=run.config()["optim"]["epochs"],
        versions=f"align-cache {__version__}, torch {torch.__version__}, {platform.machine()}",
        device=info["device"],
    )
    yield from markdown(baseline(record))
    yield UNTRAINED.format(margins=" and ".join(untrained_margins(record)))


def baseline(record: Record) -> Table:
    """The raw features and chance, which no seed changes."""
    alignment, chance = record["features"]["alignment"], record["chance"]
    parameters = {"mutual_knn": f", k = {record['k']}", "cka": ", unbiased"}
    columns = (f"{METRICS.get(metric, metric)}{parameters.get(metric, '')}" for metric in alignment)
    rows = [(label, *(f"{pairs[pair]:.4f}" for pairs in alignment.values())) for pair, label in PAIRS.items()]
    rows.append(("chance", *(f"{chance[metric]:.4f}" for metric in alignment)))
    return Table("", ("raw features", *columns), tuple(rows))


def untrained_margins(record: Record) -> Iterator[str]:
    """H1 of the raw features side by side: what fusing gives before anything is trained."""
    for metric, pairs in record["features"]["alignment"].items():
        parts = pairs["image_reference"], pairs["text_reference"]
        margin = number(pairs["aligned_reference"] - sum(parts) / 2, signed=True)
        yield f"{margin} under {METRICS.get(metric, metric)}"


def section(adapter: str, comparison: Comparison) -> Iterator[str]:
    yield f"## {'MLP' if adapter == 'mlp' else adapter.capitalize()} adapter\n"
    for table in comparison_tables(comparison):
        yield f"### {adapter}: {table.title}\n"
        yield from markdown(table)
    yield f"### {adapter}: what holds and what does not\n"
    yield from (f"- {sentence}" for sentence in (*hypotheses(comparison), *effects(comparison)))
    yield ""


def markdown(table: Table) -> Iterator[str]:
    """A table as GitHub reads it: labels to the left, numbers to the right."""
    yield f"| {' | '.join(table.columns)} |"
    rules = ("---" if index < table.label_columns else "---:" for index in range(len(table.columns)))
    yield f"| {' | '.join(rules)} |"
    yield from (f"| {' | '.join(row)} |" for row in table.rows)
    yield f"\n{table.note[:1].upper()}{table.note[1:]}.\n" if table.note else ""


def hypotheses(comparison: Comparison) -> Iterator[str]:
    """One sentence a margin: in how many seeds its own interval supports it, without and with the term."""
    for name in comparison.names:
        if name.startswith("hypotheses."):
            off, on = (tally(group, name) for group in comparison.groups)
            verdicts = {run.verdicts.get(name) for group in comparison.groups for run in group.runs}
            outcome = OUTCOMES[verdicts.pop()] if len(verdicts) == 1 else "differs between runs"
            quantity, against = words(name)
            yield f"{quantity}, {against}: **{outcome}**; supported without the term {off}, with it {on}."


def tally(group: Group, name: str) -> str:
    supported = group.verdicts.get(name, {}).get("supported", 0)
    return f"in {supported} of {len(group.runs)} seeds ({spread(name, group.numbers.get(name))})"


def effects(comparison: Comparison) -> Iterator[str]:
    """What the variance term moved, as far as the seeds tell."""
    paired = {name: found for name, found in (comparison.paired or {}).items() if found.interval}
    moved = {name: found for name, found in paired.items() if excludes_zero(found) and name != "val_loss"}
    listed = "; ".join(
        f"{' '.join(words(name))} by {difference_words(name, found)}" for name, found in moved.items()
    )
    measured = len(paired) - ("val_loss" in paired)
    yield EFFECTS.format(
        moved=listed or "nothing that the seeds can tell",
        measured=measured,
        clear=len(moved),
        chance=0.05 * measured,
    )


def excludes_zero(difference: Difference) -> bool:
    low, high = difference.interval or (0.0, 0.0)
    return low > 0 or high < 0


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the three .npz files")
    parser.add_argument("--cache-dir", type=Path, default=Path("cache"))
    parser.add_argument("--out", type=Path, default=Path("docs/results.md"))
    parser.add_argument("--seeds", type=int, default=5, help="at least 2")
    parser.add_argument("--epochs", type=int, help="to try the script; the page then says so")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    for encoder, modality, file in FILES:
        import_features(
            options.data / file,
            dataset=DATASET,
            encoder=encoder,
            modality=modality,
            cache_dir=options.cache_dir,
        )
    command = "python tests/benchmarks/results.py --data DIR"
    command += f" --seeds {options.seeds}" * (options.seeds != 5)
    command += f" --epochs {options.epochs}" * (options.epochs is not None)
    publish_text(options.out, page(compared(options), command))
    print(options.out)


if __name__ == "__main__":
    main()
