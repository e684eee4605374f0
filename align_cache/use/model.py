"""The model that comes of a run: two frozen encoders, the adapters that were trained on them, one space."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any, Literal, Self

from huggingface_hub import ModelCard, ModelHubMixin

from align_cache.adapters.pair import AdapterPair
from align_cache.adapters.run_adapters import load_pair
from align_cache.results import Record, Run, find_run
from align_cache.runtime import DeviceName
from align_cache.settings import FitConfig, fit_config
from align_cache.store import find_one
from align_cache.use.embedder import Embedder
from align_cache.use.known_encoder import KnownEncoder, encoder_of, with_files
from align_cache.use.model_card import run_records, write_card
from align_cache.use.model_folder import model_folder, read_model, write_model


class AlignedModel(Embedder, ModelHubMixin):
    """Encodes pictures and sentences into one space, where what belongs together is near.

    Made by :meth:`from_run` or :meth:`from_pretrained`. An encoder is loaded when it is first needed, and
    kept; who has features already needs none. Embeddings are float32 rows of unit length, so that their
    products are cosines.

    Parameters
    ----------
    pair : AdapterPair
        The trained heads.
    config : FitConfig
        What they were trained with.
    image_encoder, text_encoder : KnownEncoder
        What made the features that they were trained on.
    embed_dim : int
        Components of an embedding.
    source : str
        For people: where the model is from.
    records : mapping
        What the model card tells of the run, as JSON can hold it.
    device : {"auto", "cpu", "cuda", "mps"}

    Examples
    --------
    >>> from align_cache import AlignedModel
    >>> model = AlignedModel.from_run("latest")
    >>> sentences = ["a red circle", "two blue squares on a white background"]
    >>> texts = model.encode_text(sentences)
    >>> texts.shape, texts.dtype
    ((2, 768), dtype('float32'))
    >>> picture = np.full((64, 64, 3), 255, dtype=np.uint8)
    >>> model.similarity(model.encode_image([picture]), texts).shape
    (1, 2)
    >>> model.save_pretrained("my-model")
    >>> again = AlignedModel.from_pretrained("my-model")
    >>> bool((again.encode_text(sentences) == texts).all())
    True
    """

    _hub_mixin_config: dict[str, Any] | None = {}  # noqa: RUF012 - so that the mixin records no arguments

    def __init__(
        self,
        pair: AdapterPair,
        config: FitConfig,
        *,
        image_encoder: KnownEncoder,
        text_encoder: KnownEncoder,
        embed_dim: int,
        source: str,
        records: Mapping[str, Record | None],
        device: DeviceName = "auto",
    ) -> None:
        super().__init__(
            pair, image_encoder=image_encoder, text_encoder=text_encoder, embed_dim=embed_dim, device=device
        )
        self.config, self.source, self.records = config, source, dict(records)

    def __repr__(self) -> str:
        image, text = self.image_encoder.name, self.text_encoder.name
        return f"AlignedModel({image} + {text} → {self.embed_dim}, {self.source}, on {self.device})"

    @classmethod
    def from_run(
        cls,
        run: str | Path | Run = "latest",
        *,
        cache_dir: str | Path = Path("cache"),
        checkpoint: Literal["best", "last"] = "best",
        device: DeviceName = "auto",
        weights: Mapping[str, str] | None = None,
        tokenizer: str | Path | None = None,
    ) -> Self:
        """Take the adapters of a run, and the encoders of the features it was trained on.

        Parameters
        ----------
        run : str, Path or Run
            ``latest``, an id or its head, or a run's folder.
        cache_dir : Path
            Holds the run's feature sets, whose records say what made them.
        checkpoint : {"best", "last"}
        device : {"auto", "cpu", "cuda", "mps"}
            Of the adapters and of the encoders.
        weights : mapping, optional
            Where the very same weights lie now, ``{"image": path, "text": path}``; an encoder that is not
            named is read from where extraction read it.
        tokenizer : path, optional
            Where the text encoder's tokenizer lies now.

        Raises
        ------
        RunError
            If there is no such run, or it has no checkpoint yet.
        CacheError
            If its feature sets are not in the cache.
        CorruptError
            If the checkpoint is damaged.
        """
        cache_dir = Path(cache_dir)
        found = run if isinstance(run, Run) else find_run(str(run), cache_dir=cache_dir)
        info, config = found.info(), fit_config(file=found.folder / "config.toml")
        pair, epoch = load_pair(found, checkpoint)

        def known(role: str) -> KnownEncoder:
            name = f"{info[role]['encoder']}@{info[role]['key8']}"
            return encoder_of(find_one(cache_dir, config.data.dataset, name), cache_dir)

        image, text = with_files(known("image"), known("text"), weights=weights, tokenizer=tokenizer)
        return cls(
            pair,
            config,
            image_encoder=image,
            text_encoder=text,
            embed_dim=info["embed_dim"],
            source=f"run {found.id}, {checkpoint} epoch {epoch}",
            records=run_records(found, epoch=epoch),
            device=device,
        )

    @classmethod
    def from_pretrained(  # type: ignore[override] # fewer options, each of which does something here
        cls,
        folder_or_hub_id: str | Path,
        *,
        revision: str | None = None,
        device: DeviceName = "auto",
        weights: Mapping[str, str] | None = None,
        tokenizer: str | Path | None = None,
    ) -> Self:
        """Read a model that :meth:`save_pretrained` or :meth:`push_to_hub` left.

        Parameters
        ----------
        folder_or_hub_id : str or Path
            A folder, which needs no network, or ``owner/name`` on the hub.
        revision : str, optional
            Branch, tag or commit on the hub.
        device, weights, tokenizer
            As :meth:`from_run` takes them.

        Raises
        ------
        SourceError
            If there is no such folder or repository; OfflineError where the hub cannot be reached.
        CorruptError
            If a file is missing, damaged, or not what the others say.
        """
        read = read_model(model_folder(folder_or_hub_id, revision=revision))
        image, text = with_files(read.image_encoder, read.text_encoder, weights=weights, tokenizer=tokenizer)
        return cls(
            read.pair,
            read.config,
            image_encoder=image,
            text_encoder=text,
            embed_dim=read.embed_dim,
            source=str(folder_or_hub_id),
            records=read.records,
            device=device,
        )

    def _save_pretrained(self, save_directory: Path) -> None:
        write_model(self, save_directory, card=str(self.generate_model_card()))

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """Write the model card from the records of the run."""
        return write_card(self)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the model to the hub as :meth:`save_pretrained` saves it, but for the paths of this machine.

        Parameters
        ----------
        repo_id : str
            ``owner/name``.
        **options
            Those of :meth:`huggingface_hub.ModelHubMixin.push_to_hub`.

        Returns
        -------
        str : the address of the commit.
        """
        public = copy(self)
        public.image_encoder, public.text_encoder = (
            each.without_paths() for each in (self.image_encoder, self.text_encoder)
        )
        url: str = super(AlignedModel, public).push_to_hub(repo_id, **options)
        return url
