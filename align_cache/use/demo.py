"""The main job on the embedded dataset: no download, no GPU, no pretrained weights."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from align_cache.extraction.extracting import extract
from align_cache.judging.evaluation import evaluate
from align_cache.progress import Progress
from align_cache.reporting import report
from align_cache.results import Record, Run
from align_cache.settings import EvalConfig, ExtractConfig, fit_config
from align_cache.training.fitting import fit
from align_cache.training.session import OnRecord
from align_cache.use.pictures import collect_pictures

IMAGE, TEXT, REFERENCE = "small-cnn", "small-text", "small-vit"

_SCENES = ExtractConfig(
    dataset="shapes", encoders=(IMAGE, REFERENCE, TEXT), weights={"*": "random"}, options={"count": 3000}
)
_PROBE = ExtractConfig(dataset="shapes10", encoders=(IMAGE, REFERENCE), weights={"*": "random"})
_ZERO_SHOT = ExtractConfig(
    dataset="colours12", encoders=(IMAGE, TEXT), weights={"*": "random"}, split=("test",)
)
_FIT = {
    "adapter.type": "mlp",
    "adapter.mlp_hidden_dims": [512],
    "data.dataset": "shapes",
    "data.image_encoder": IMAGE,
    "data.text_encoder": TEXT,
    "data.reference": REFERENCE,
    "data.captions_per_image": "all",
    "data.batch_size": 128,
    "loss.temperature": 0.07,
    "loss.label_smoothing": 0.0,
    "optim.lr": 1e-3,
    "optim.epochs": 12,
    "optim.warmup_epochs": 1,
    "optim.gradient_accumulation_steps": 1,
    "log.project_name": "demo",
}


@dataclass(frozen=True, slots=True)
class Demo:
    """What the demo left behind."""

    run: Run
    evaluation: Record
    report: Path
    seconds: float


def demo(
    *,
    cache_dir: Path,
    progress: Progress | None = None,
    on_note: Callable[[str], None] | None = None,
    on_record: OnRecord | None = None,
) -> Demo:
    """Extract drawn scenes with untrained encoders, fit, evaluate with probe and zero-shot, write the report.

    The encoders are untrained, and every table says so: what it shows is that the pipeline works, not
    what real encoders can do.
    """
    start, note = time.perf_counter(), on_note or (lambda line: None)
    note("extract: 3,000 drawn scenes, shapes10 to probe, colours12 for zero-shot; untrained encoders")
    *_, captions = extract(_SCENES, cache_dir=cache_dir, progress=progress, on_note=note)
    # The text encoder counts its words: prompts have to be read with those of the captions.
    words = f"{captions.dataset}/{captions.encoder}@{captions.key}"
    for config in (_PROBE, _ZERO_SHOT.model_copy(update={"vocabulary": words})):
        extract(config, cache_dir=cache_dir, progress=progress, on_note=note)
    note("fit: an MLP on each side")
    run = fit(
        fit_config(flags=dict(_FIT)),
        cache_dir=cache_dir,
        on_record=on_record,
        on_note=note,
        command="align-cache demo",
    )
    judged = EvalConfig(probe="shapes10", zero_shot="colours12")
    evaluation = evaluate(run, judged, cache_dir=cache_dir, on_stage=note)
    note("report")
    collect_pictures(run, cache_dir=cache_dir)
    page = report(run.folder)
    return Demo(run, evaluation, page, time.perf_counter() - start)
