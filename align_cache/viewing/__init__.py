"""A local page to explore the runs of a cache: curves, alignment, a map of what was embedded, search.

One process on the loopback interface, which only reads: nothing in the cache is changed by looking at it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from align_cache.results import find_run
from align_cache.runtime import DeviceName

if TYPE_CHECKING:
    from align_cache.viewing.server import PageServer

PAIRS = 3000
"""Images that are drawn of a split, each with its first caption."""


def open_view(
    run: str = "latest",
    *,
    cache_dir: Path = Path("cache"),
    port: int = 0,
    split: str | None = None,
    pairs: int = PAIRS,
    dataset: str | None = None,
    data_dir: Path | None = None,
    device: DeviceName = "auto",
) -> PageServer:
    """Bind a page about a run and the others of its cache to a port of this machine.

    Parameters
    ----------
    run : str
        What is shown first: ``latest``, an id, the head of one, or a folder. The page can change it.
    cache_dir : Path
        Holds the runs and the features that they were trained on.
    port : int
        Of 127.0.0.1; 0 takes a free one.
    split : str, optional
        Whose images are on the map and are searched; None: test where there is one, else what validated.
    pairs : int
        At most so many images of it, drawn at random, always the same ones; at least 3.
    dataset, data_dir : str, Path, optional
        Where pictures are read instead of where they were extracted from, as
        :func:`~align_cache.use.pictures.collect_pictures` takes them.
    device : {"auto", "cpu", "cuda", "mps"}
        Where embeddings are made.

    Returns
    -------
    PageServer
        Bound and not yet answering: ``url`` says where, ``serve_forever()`` answers until it is interrupted,
        ``server_close()`` (or leaving the ``with`` block) frees the port.

    Raises
    ------
    RunError
        If there is no such run.
    UsageError
        If the port is taken, or ``pairs`` is below 3.
    """
    from align_cache.viewing.server import PageServer
    from align_cache.viewing.viewer import Viewer

    viewer = Viewer(
        find_run(run, cache_dir=cache_dir),
        cache_dir=cache_dir,
        split=split,
        pairs=pairs,
        dataset=dataset,
        data_dir=data_dir,
        device=device,
    )
    return PageServer(viewer, port)
