"""The results page: linear and MLP adapters on real features, with and without the variance term.

    python -m tests.benchmarks.results --data DIR [--cache-dir cache] [--out docs/results.md]

DIR holds images-mobilenet_v2.npz, images-mobilenet_v1.npz and captions-lsa_glove.npz. What is trained and
judged in the cache is not done again, so a script that was stopped goes on. The page
(tests/benchmarks/results_page.py) is written last and whole.
"""

import argparse
import shlex
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from align_cache import Run, compare, evaluate, fit, fit_config, import_features, resume_fit
from align_cache.config import to_toml
from align_cache.files import publish_text
from align_cache.judging.comparison import Comparison
from align_cache.judging.judged_run import JudgedRun, judge
from align_cache.results import list_runs
from align_cache.settings import EvalConfig, FitConfig
from tests.benchmarks.results_page import page

DATASET = "flickr8k-real"
FILES: tuple[tuple[str, Literal["image", "text"], str], ...] = (
    ("mobilenet_v2", "image", "images-mobilenet_v2.npz"),
    ("mobilenet_v1", "image", "images-mobilenet_v1.npz"),
    ("lsa_glove", "text", "captions-lsa_glove.npz"),
)
ADAPTERS = ("linear", "mlp")
NULL_SEED, SHUFFLES = 0, 200
"""The permutation null takes longer than all else of an evaluation: one seed of each setting has it."""


def settings(adapter: str, *, matching: bool, seed: int, epochs: int | None) -> FitConfig:
    """The preset of an adapter on the real features; fewer epochs are for trying the script."""
    flags = {
        "data.dataset": DATASET,
        "data.image_encoder": "mobilenet_v2",
        "data.text_encoder": "lsa_glove",
        "data.reference": "mobilenet_v1",
        "adapter.type": adapter,
        "loss.distribution_matching": matching,
        "precision": "fp32",  # the same on every machine
        "log.viz_frequency": 0,
        "log.checkpoint_frequency": 0,
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
    wanted = EvalConfig(metrics=("all",), permutations=SHUFFLES if config.seed == NULL_SEED else 0)
    if not is_judged(run, wanted):
        evaluate(run, wanted, cache_dir=cache_dir)
    return run


def is_judged(run: Run, wanted: EvalConfig) -> bool:
    """Whether the last evaluation is of the run as it is now, with every interval and the null."""
    if not isinstance(judge(run), JudgedRun):
        return False
    last = run.results()[-1]
    known = last["embeddings"].get("intervals", {}).keys()
    return known == set(wanted.metrics) and last["permutations"] == wanted.permutations


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
    command = "python -m tests.benchmarks.results --data DIR"
    command += f" --seeds {options.seeds}" * (options.seeds != 5)
    command += f" --epochs {options.epochs}" * (options.epochs is not None)
    publish_text(options.out, page(compared(options), command))
    print(options.out)


if __name__ == "__main__":
    main()
