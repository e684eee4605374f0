"""A small run on drawn scenes for the tests of the page, and the page at work on a port."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from align_cache.extraction.extracting import extract
from align_cache.judging.evaluation import evaluate
from align_cache.results import Run
from align_cache.settings import EvalConfig, ExtractConfig
from align_cache.training.fitting import fit
from align_cache.viewing import open_view
from align_cache.viewing.server import PageServer
from tests.unit.test_fit import toy

SCENES = 120


def drawn_run(cache_dir: Path) -> Run:
    """Train on drawn scenes, captions and all, and evaluate on the twelve of the test split."""
    scenes = ExtractConfig(
        dataset="shapes",
        encoders=("small-cnn", "small-text"),
        weights={"*": "random"},
        options={"count": SCENES, "image_size": 32},
        device="cpu",
    )
    extract(scenes, cache_dir=cache_dir)
    run = fit(toy(**DRAWN), cache_dir=cache_dir)
    evaluate(run, EvalConfig(k=3), cache_dir=cache_dir)
    return run


DRAWN: dict[str, Any] = {
    "data__dataset": "shapes",
    "data__image_encoder": "small-cnn",
    "data__text_encoder": "small-text",
    "data__reference": "none",
    "loss__distribution_matching": False,
    "device": "cpu",
}


@contextmanager
def serving(run: str, cache_dir: Path, **options: Any) -> Iterator[PageServer]:
    """Answer requests in a thread while the block runs."""
    with open_view(run, cache_dir=cache_dir, device="cpu", **options) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
