"""Settings of extraction."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from align_cache.corruption import Noise, parse_noise
from align_cache.errors import UsageError
from align_cache.runtime import DeviceName, Precision
from align_cache.settings.base import Positive, Settings
from align_cache.shares import parse_share

IDENTITY: dict[str, JsonValue] = {"role": "identity"}
PROVENANCE: dict[str, JsonValue] = {"role": "provenance"}


class ExtractConfig(Settings):
    """What ``align-cache extract`` does. Each field is marked: it decides the features, or it does not."""

    dataset: str = Field(json_schema_extra=IDENTITY)
    """A source: flickr30k, flickr8k, coco, cifar10, folder, shapes, shapes10, colours12."""
    encoders: tuple[str, ...] = Field(min_length=1, json_schema_extra=IDENTITY)
    """Encoders to run, image and text mixed; each image is decoded once for all of them."""
    name: str | None = Field(default=None, json_schema_extra=IDENTITY)
    """What the dataset is called in the cache; None: the source's own name."""
    revision: str | None = Field(default=None, json_schema_extra=IDENTITY)
    """Commit of the hub's dataset; None: the newest, resolved once."""
    options: dict[str, Any] = Field(default={}, json_schema_extra=IDENTITY)
    """Settings of the source itself, such as ``count``, ``image_size`` and ``seed`` of ``shapes``."""
    templates: tuple[str, ...] | Path | None = Field(default=None, json_schema_extra=IDENTITY)
    """Sentences with ``{}`` for the class, which text encoders read where a dataset has labels and no
    captions: a list, or a text file with one a line. None: the dataset's own."""
    vocabulary: str | None = Field(default=None, json_schema_extra=IDENTITY)
    """``dataset/encoder`` of the text features from whose captions an untrained text encoder without a
    tokenizer counts its vocabulary; None: the captions it encodes."""
    captions_of: str | None = Field(default=None, json_schema_extra=IDENTITY)
    """``dataset/encoder`` of text features in the cache whose captions are encoded, for instance where they
    were imported and the dataset lies nowhere; text encoders only. None: the dataset is opened."""
    split: tuple[str, ...] | None = Field(default=None, json_schema_extra=IDENTITY)
    """Only these splits; None: all."""
    limit: Positive | None = Field(default=None, json_schema_extra=IDENTITY)
    """At most so many images, their captions following."""
    weights: dict[str, str] = Field(default={}, json_schema_extra=IDENTITY)
    """Encoder to ``pretrained``, ``random[:seed]`` or a path; the key ``*`` stands for all others."""
    tokenizer: Path | None = Field(default=None, json_schema_extra=IDENTITY)
    """Folder or file with ``tokenizer.json`` or ``vocab.txt``; None: the encoder's own."""
    pooling: Literal["cls", "mean", "gap", "pooler", "projection"] | None = Field(
        default=None, json_schema_extra=IDENTITY
    )
    """None: the encoder's own."""
    max_length: Positive = Field(default=64, json_schema_extra=IDENTITY)
    """Tokens a caption is cut to."""
    resize: Literal["model", "squash"] = Field(default="model", json_schema_extra=IDENTITY)
    """``model``: the model's own preprocessing; ``squash``: straight to its input size."""
    decode: Literal["model", "fast"] = Field(default="model", json_schema_extra=IDENTITY)
    """``model``: Pillow decodes and resizes, as the models' authors did; ``fast``: simplejpeg decodes and
    torch resizes, within two levels of 255; small images are sent to the device as they are."""
    image_noise: str | None = Field(default=None, json_schema_extra=IDENTITY)
    """``gaussian``, ``blur``, ``occlusion`` or ``jpeg`` and a severity from 1 to 5, ``gaussian:3``: put on
    what image encoders are given. None: nothing is."""
    caption_noise: str | None = Field(default=None, json_schema_extra=IDENTITY)
    """``drop``, ``swap``, ``replace`` or ``shuffle`` and a rate up to 1, ``drop:0.2``: put on what text
    encoders are given. None: nothing is."""
    precision: Precision = Field(default="fp32", json_schema_extra=IDENTITY)
    """Number format of the encoder's weights and activations."""
    dtype: Literal["float16", "float32"] = Field(default="float16", json_schema_extra=IDENTITY)
    """Number format of the stored features."""
    batch_size: Positive = Field(default=64, json_schema_extra=IDENTITY)
    """Samples in one forward pass. Low-precision features depend on what shares a batch."""
    shard_rows: Positive = Field(default=1024, json_schema_extra=IDENTITY)
    """Samples in one file, the unit of resume."""
    data_dir: Path | None = Field(default=None, json_schema_extra=PROVENANCE)
    """The dataset on disk; None: the hub, or drawn."""
    device: DeviceName = Field(default="auto", json_schema_extra=PROVENANCE)
    """Where the encoders run."""
    workers: Annotated[int, Field(ge=1, le=256)] | None = Field(default=None, json_schema_extra=PROVENANCE)
    """Threads that decode images; None: one a processor."""
    on_error: Literal["fail", "skip"] = Field(default="fail", json_schema_extra=PROVENANCE)
    """What an unreadable image does: stop, naming it, or be left out and recorded."""
    overwrite: bool = Field(default=False, json_schema_extra=PROVENANCE)
    """Extract again what is already there."""
    shard_of: str | None = Field(default=None, json_schema_extra=PROVENANCE)
    """``RANK/WORLD``, ``0/8`` to ``7/8``: only the shards whose number leaves that rank when divided, beside
    other processes that make the others. None: all. The command takes it from torchrun or srun."""
    local_rank: Annotated[int, Field(ge=0)] | None = Field(default=None, json_schema_extra=PROVENANCE)
    """Which of the processes on its machine this is; it picks the GPU. None: the current one. The command
    takes it from torchrun or srun."""

    @field_validator("encoders")
    @classmethod
    def _each_once(cls, encoders: tuple[str, ...]) -> tuple[str, ...]:
        twice = [name for name, count in Counter(encoders).items() if count > 1]
        if twice:
            raise ValueError(f"{twice[0]} is named twice")
        return encoders

    @field_validator("shard_of")
    @classmethod
    def _share_of_several(cls, text: str | None) -> str | None:
        if text is None:
            return None
        try:
            share = parse_share(text)
        except UsageError as error:
            raise ValueError(error.message) from None
        return None if share.world == 1 else str(share)

    @field_validator("image_noise")
    @classmethod
    def _noise_of_images(cls, text: str | None) -> str | None:
        return _canonical_noise(text, "image")

    @field_validator("caption_noise")
    @classmethod
    def _noise_of_captions(cls, text: str | None) -> str | None:
        return _canonical_noise(text, "text")

    @model_validator(mode="after")
    def _weights_name_encoders(self) -> "ExtractConfig":
        unknown = [name for name in self.weights if name != "*" and name not in self.encoders]
        if unknown:
            raise ValueError(f"weights are given for {unknown[0]}, which is not among the encoders "
                             f"({', '.join(self.encoders)})")  # fmt: skip
        return self

    @model_validator(mode="after")
    def _captions_are_of_the_dataset(self) -> "ExtractConfig":
        if self.captions_of is None:
            return self
        of = self.captions_of.partition("/")[0]
        if of != self.dataset:
            raise ValueError(f"captions_of is {self.captions_of}, expected {self.dataset}/ENCODER: what is "
                             f"extracted belongs to the images of dataset {of}")  # fmt: skip
        for key in ("data_dir", "revision", "name", "options", "templates"):
            if getattr(self, key):
                raise ValueError(f"captions_of takes captions from the cache, where {key} has no meaning")
        return self

    def weights_of(self, encoder: str) -> str:
        """Return where the weights of one encoder come from."""
        return self.weights.get(encoder, self.weights.get("*", "pretrained"))

    def noise_of(self, modality: Literal["image", "text"]) -> Noise | None:
        """Return the noise on what encoders of a modality are given."""
        text = self.image_noise if modality == "image" else self.caption_noise
        return None if text is None else parse_noise(text)


def _canonical_noise(text: str | None, modality: Literal["image", "text"]) -> str | None:
    """Check noise and give it its one spelling."""
    if text is None:
        return None
    try:
        noise = parse_noise(text)
    except UsageError as error:
        raise ValueError("; ".join(filter(None, (error.message, error.hint)))) from None
    if noise.modality != modality:
        wanted, other = ("images", "captions") if modality == "image" else ("captions", "images")
        raise ValueError(f"{noise} is noise for {other}, expected noise for {wanted}")
    return str(noise)
