"""``shapes``: drawn and captioned scenes, made on demand; nothing is downloaded or stored."""

from align_cache.errors import UsageError
from align_cache.sources.assembly import Record, checked_captions
from align_cache.sources.base import ImageSample, Source
from align_cache.sources.drawing import Canvas
from align_cache.sources.grammar import describe
from align_cache.sources.scenes import draw_scene, sample_scene

GENERATOR_VERSION = 1
"""Part of the revision: raise it with any change to a pixel or a word."""

_SPLIT_OF_TENTH = ("train",) * 8 + ("val", "test")


def open_shapes(*, count: int = 2000, image_size: int = 64, seed: int = 0) -> Source:
    """Return ``count`` scenes with five captions each, split 80/10/10.

    Scene i is the same in a set of any size: image, captions and split are functions of ``seed`` and i.

    Parameters
    ----------
    count : int
        Number of scenes; at least 1.
    image_size : int
        Side in pixels, 16 to 1024; the same scene at every size.
    seed : int

    Raises
    ------
    UsageError
    """
    if count < 1 or not 16 <= image_size <= 1024:
        raise UsageError(
            f"shapes: count {count}, image_size {image_size}; wanted count >= 1, 16 <= image_size <= 1024"
        )
    records = [
        Record(
            f"scene-{index:06d}",
            captions=list(describe(sample_scene(seed, index), seed=seed, index=index)),
            split=_SPLIT_OF_TENTH[index % 10],
        )
        for index in range(count)
    ]
    fingerprint = f"seed{seed}-{image_size}px"
    images = tuple(ImageSample(record.name, fingerprint, split=record.split) for record in records)
    captions, notes = checked_captions(records)

    def read_image(row: int) -> Canvas:
        return draw_scene(sample_scene(seed, row), image_size)

    return Source("shapes", f"generator-{GENERATOR_VERSION}", images, captions, read_image, notes=notes)
