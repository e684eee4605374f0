"""Stage 3: pictures of a run that are asked for one by one; ``reporting`` draws those of the report."""

from collections.abc import Callable, Sequence
from pathlib import Path

from align_cache.errors import UsageError
from align_cache.judging.drawn_pairs import DrawnPairs, SpaceName, judged_pairs, snapshot_pairs
from align_cache.metrics.similarity import pair_similarity
from align_cache.reporting import style
from align_cache.reporting.mixing import Mixing, mixing
from align_cache.reporting.tsne import Layout, check_perplexities, lay_out, pairs_figure
from align_cache.results import Record, Run

PERPLEXITIES = (5, 10, 30, 50)


def plot_tsne(
    run: Run,
    *,
    cache_dir: Path,
    perplexities: Sequence[int] = PERPLEXITIES,
    pairs: int = 500,
    split: str | None = None,
    space: SpaceName = "embeddings",
    epoch: int | None = None,
    seed: int = 0,
    out: Path | None = None,
    device: str = "auto",
    on_progress: Callable[[int, int], None] | None = None,
) -> Record:
    """Draw image–caption pairs laid out by t-SNE, one picture a perplexity.

    Parameters
    ----------
    run : Run
        With a checkpoint, or with snapshots where ``epoch`` is given.
    cache_dir : Path
        Holds the feature sets the run was trained on; not read where ``epoch`` is given.
    perplexities : sequence of int
    pairs : int
        At most so many, drawn at random; of each image the first caption.
    split : str, optional
        None: test where there is one, else what validated.
    space : {"embeddings", "features"}
        Raw features have a common space only where image and text are two towers of one model.
    epoch : int, optional
        Draw the validation embeddings that this epoch kept; None: those that the best checkpoint makes.
    seed : int
        Which pairs are drawn; fewer lie within more of the same seed. The layout has none.
    out : Path, optional
        Folder of the pictures, made where it is missing; None: the run's ``figures/``.
    device : {"auto", "cpu", "cuda", "mps"}
        Where embeddings are made.
    on_progress : callable (done, total), optional
        Called after each picture.

    Returns
    -------
    dict
        ``figures`` (``perplexity``, ``path``, ``divergence`` each), and of the pairs that are drawn
        ``n_pairs``, ``mixing`` and ``similarity``, measured in their own space and not in the plane.

    Raises
    ------
    AlignCacheError
    """
    drawn = _drawn(
        run, cache_dir, epoch=epoch, limit=pairs, split=split, space=space, seed=seed, device=device
    )
    asked = check_perplexities(perplexities, points=2 * len(drawn.image))
    mixed, info = mixing(drawn.image, drawn.text), run.info()
    figures = []
    for done, perplexity in enumerate(asked, start=1):
        layout = lay_out(drawn.image, drawn.text, perplexity=perplexity)
        heading = f"t-SNE of {mixed.n_pairs:,} pairs, perplexity {perplexity}, seed {seed}"
        figure = pairs_figure(
            layout, heading=heading + _untrained(info), subtitle=_told(info, drawn, mixed, layout)
        )
        path = style.save(figure, (out or run.folder / "figures") / _file_name(drawn, epoch, perplexity))
        figures.append({"perplexity": perplexity, "path": str(path), "divergence": layout.divergence})
        if on_progress is not None:
            on_progress(done, len(asked))
    return {
        "run": run.id,
        "space": drawn.space,
        "split": drawn.split,
        "epoch": drawn.epoch,
        "n_pairs": mixed.n_pairs,
        "seed": seed,
        "mixing": mixed.to_record(),
        "similarity": pair_similarity(drawn.image, drawn.text).to_record(),
        "untrained": info["untrained"],
        "figures": figures,
    }


def _drawn(
    run: Run,
    cache_dir: Path,
    *,
    epoch: int | None,
    limit: int,
    split: str | None,
    space: SpaceName,
    seed: int,
    device: str,
) -> DrawnPairs:
    if limit < 2:
        raise UsageError(f"pairs = {limit}: expected at least 2")
    if epoch is None:
        return judged_pairs(
            run, cache_dir=cache_dir, limit=limit, split=split, space=space, seed=seed, device=device
        )
    if split is not None or space == "features":
        raise UsageError("--epoch draws validation embeddings that the run kept: no --split, no --features")
    return snapshot_pairs(run, epoch, limit=limit, seed=seed)


def _untrained(info: Record) -> str:
    return f"\nUNTRAINED encoders: {', '.join(info['untrained'])}" if info["untrained"] else ""


def _told(info: Record, drawn: DrawnPairs, mixed: Mixing, layout: Layout) -> str:
    """Say in three lines what the points are, how they mix, and what the layout can tell."""
    of = "raw features" if drawn.epoch is None else f"epoch {drawn.epoch}"
    return (
        f"{info['id']}: {info['dataset']}, {drawn.split} split, {of}\n"
        f"nearest neighbour before the layout: own pair {mixed.own_pair:.1%} (chance "
        f"{mixed.chance_own_pair:.1%}), other modality {mixed.other_modality:.1%} (chance "
        f"{mixed.chance_other_modality:.0%})\n"
        f"divergence left {layout.divergence:.2f}; near is alike, how far is far and how large a group is "
        "means little"
    )


def _file_name(drawn: DrawnPairs, epoch: int | None, perplexity: int) -> str:
    """Name the picture; one that is not of the best checkpoint's embeddings says of what it is."""
    what = "_features" if drawn.space == "features" else "" if epoch is None else f"_epoch_{epoch:04d}"
    return f"tsne{what}_perplexity_{perplexity}.png"
