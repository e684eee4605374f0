"""The ``tokens`` encoder: captions as token ids, for text towers that are trained from scratch; no model.

Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from align_cache.encoders.base import EncoderRequest, EncoderSpec
from align_cache.encoders.tokenizer import (
    PAD_TOKENS,
    VOCABULARY_SIZE,
    Tokenizer,
    find_tokenizer,
    load_tokenizer,
    tokenizer_identity,
)
from align_cache.errors import EncoderError, UsageError
from align_cache.store.layout import PAD_ID


class TokenIds:
    """Cuts captions into tokens and fills each row up to the same length.

    Parameters
    ----------
    spec : EncoderSpec
    tokenizer : Tokenizer
        Gives at most ``spec.request.max_length`` ids, none of them ``PAD_ID``.
    """

    def __init__(self, spec: EncoderSpec, tokenizer: Tokenizer) -> None:
        self.spec = spec
        self.dim = spec.request.max_length
        self._tokenizer = tokenizer

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], int]:
        """Give token ids of captions.

        Parameters
        ----------
        texts : sequence of str
            An empty one has the tokenizer's special tokens only.

        Returns
        -------
        (int32 array, shape (n, dim), ``PAD_ID`` after each text's last token; int, the texts that were cut)
        """
        rows, truncated = self._tokenizer.encode(texts)
        ids = np.full((len(rows), self.dim), PAD_ID, dtype=np.int32)
        for row, tokens in zip(ids, rows, strict=True):
            row[: len(tokens)] = tokens
        return ids, truncated


def resolve(request: EncoderRequest, *, captions_digest: str | None) -> EncoderSpec:
    """Decide the encoder; a tokenizer's file is read, a vocabulary that is counted is not counted yet.

    Raises
    ------
    UsageError
        For weights or a pooling, which there are none of, or rows too short for a token of the text.
    EncoderError
        For a tokenizer whose id 0 is no padding.
    """
    if request.weights != "pretrained":
        raise UsageError(f"{request.name} has no weights: ids come from a tokenizer, not from a model",
                         hint="name the encoders that have: --weights ENCODER=WHAT")  # fmt: skip
    if request.pooling is not None:
        raise UsageError(f"{request.name} pools nothing", hint="leave --pooling out")
    file = None if request.tokenizer is None else find_tokenizer(request.tokenizer)
    named = tokenizer_identity(file, captions_digest, request)
    # Of a vocabulary that is yet to be counted, the special tokens alone tell what is asked here.
    tokenizer = load_tokenizer(file, lambda: (), max_length=request.max_length)
    _check(tokenizer, request, file)
    identity = {
        "tokenizer": named,
        "max_length": request.max_length,
        "vocabulary_size": VOCABULARY_SIZE if file is None else tokenizer.size,
        "pad_id": PAD_ID,
    }
    return EncoderSpec(
        name=request.name,
        modality="text",
        untrained=False,
        identity=identity,
        request=request,
        files={} if file is None else {"tokenizer": file},
        gives="tokens",
    )


def load(spec: EncoderSpec, *, captions: Callable[[], Iterable[str]] | None) -> TokenIds:
    """Read the tokenizer of a spec from :func:`resolve`, or count its vocabulary.

    Raises
    ------
    EncoderError
        If more tokens were counted than the spec has room for.
    """
    tokenizer = load_tokenizer(spec.files.get("tokenizer"), captions, max_length=spec.request.max_length)
    room = spec.identity["vocabulary_size"]
    if tokenizer.size > room:
        raise EncoderError(
            f"the letters of the captions make {tokenizer.size:,} tokens, expected at most {room:,}",
            hint="pass --tokenizer FOLDER, with a vocabulary for their script",
        )
    return TokenIds(spec, tokenizer)


def _check(tokenizer: Tokenizer, request: EncoderRequest, file: Path | None) -> None:
    if tokenizer.first not in PAD_TOKENS:
        # Ids could be moved up by one, but would no longer be those of the tokenizer that the key names.
        raise EncoderError(
            f"{file} has the token {tokenizer.first!r} as id {PAD_ID}, expected its padding "
            f"({' or '.join(PAD_TOKENS)}): rows of ids are filled up with {PAD_ID}",
            hint="take a vocabulary like BERT's, or none: one is counted from the captions",
        )
    if request.max_length <= tokenizer.n_special:
        raise UsageError(
            f"max_length is {request.max_length}, and the tokenizer adds {tokenizer.n_special} special "
            "tokens to every text",
            hint=f"--max-length {tokenizer.n_special + 1} or more",
        )
