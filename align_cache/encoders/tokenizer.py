"""WordPiece and other sub-word tokenizers, read from files or, for untrained encoders, counted from captions.

It stands on the `tokenizers` package: transformers takes a second to import, and its
``BertTokenizerFast(vocab_file=...)`` ignores the file in version 5.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from align_cache.encoders.base import EncoderRequest, Json
from align_cache.encoders.clip_tokenizer import merges_file, read_byte_pairs
from align_cache.errors import EncoderError, SampleError, UsageError

if TYPE_CHECKING:
    import tokenizers

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""The ids 0 to 4 of a counted vocabulary; of a ``vocab.txt`` all but [MASK] have to be in it."""
PAD_TOKENS = ("[PAD]", "<pad>")
"""What tokenizers call their padding."""
VOCABULARY_SIZE = 8192
"""Most tokens a counted vocabulary has; its letters come on top where there are more of them."""
_BYTE_PAIRS = "vocab.json"
_FILES = ("tokenizer.json", "vocab.txt", _BYTE_PAIRS)
_RULE = "frequent-words-1"
"""Names the rule of :func:`count_vocabulary` in the identity; a change of the rule changes it."""


class Tokenizer:
    """Token ids of captions, special tokens included, cut to ``max_length``.

    Parameters
    ----------
    backend : tokenizers.Tokenizer
        Its padding and truncation are replaced.
    max_length : int
        Most tokens a text is given.
    """

    def __init__(self, backend: tokenizers.Tokenizer, *, max_length: int) -> None:
        backend.no_padding()
        backend.enable_truncation(max_length)
        self._backend = backend
        self.size: int = max(backend.get_vocab().values()) + 1
        """Ids are below it."""
        self.first: str | None = backend.id_to_token(0)
        """The token with the id 0."""
        self.n_special: int = backend.num_special_tokens_to_add(is_pair=False)
        """Special tokens that every text is given."""

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        """Return the ids of each text and how many were cut; SampleError for what is no text."""
        try:
            encodings = self._backend.encode_batch_fast(list(texts))
        except TypeError as error:
            raise SampleError(
                f"among {len(texts)} captions one is no text, or holds half a surrogate pair"
            ) from error
        return [encoding.ids for encoding in encodings], sum(
            bool(encoding.overflowing) for encoding in encodings
        )

    def to_json(self) -> str:
        """Return the content of a ``tokenizer.json`` that gives the same ids."""
        text: str = self._backend.to_str()
        return text


def find_tokenizer(path: Path) -> Path:
    """Return ``tokenizer.json``, ``vocab.txt`` or ``vocab.json`` of a folder, or the file itself if named.

    Raises
    ------
    UsageError
        If there is none of them.
    """
    candidates = [path / name for name in _FILES] if path.is_dir() else [path]
    for candidate in candidates:
        if candidate.is_file() and candidate.suffix in (".json", ".txt"):
            return candidate
    raise UsageError(
        f"{path} holds no tokenizer",
        hint="give a tokenizer.json, a vocab.txt, CLIP's vocab.json and merges.txt, or the folder of one",
    )


def portable_files(file: Path) -> dict[str, bytes]:
    """Return what makes the same tokenizer in another folder: name and content, the file itself first."""
    if file.name == _BYTE_PAIRS:
        return {_BYTE_PAIRS: file.read_bytes(), "merges.txt": merges_file(file).read_bytes()}
    if file.suffix != ".txt":
        return {"tokenizer.json": file.read_bytes()}
    settings = {} if _lower_case(file) else {"tokenizer_config.json": b'{"do_lower_case": false}\n'}
    return {"vocab.txt": file.read_bytes(), **settings}


def tokenizer_identity(file: Path | None, captions_digest: str | None, request: EncoderRequest) -> Json:
    """Return what names a tokenizer in the cache key: its file's hash, or the captions it is counted from.

    Raises
    ------
    UsageError
        If there is neither a file nor captions.
    """
    if file is not None:
        identity = {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        if file.name == _BYTE_PAIRS:
            return identity | {"merges": hashlib.sha256(merges_file(file).read_bytes()).hexdigest()}
        return identity | {"lower_case": _lower_case(file)} if file.suffix == ".txt" else identity
    if captions_digest is None:
        raise UsageError(
            f"{request.name} has no tokenizer, and the dataset no captions to count a vocabulary from",
            hint="pass --tokenizer FOLDER (with tokenizer.json or vocab.txt)",
        )
    return {"counted_from": captions_digest, "rule": _RULE, "size": VOCABULARY_SIZE}


def load_tokenizer(
    file: Path | None, captions: Callable[[], Iterable[str]] | None, *, max_length: int
) -> Tokenizer:
    """Read a tokenizer's file or, without one, count a vocabulary from the captions."""
    import tokenizers

    if file is None:
        if captions is None:
            raise UsageError("a vocabulary can only be counted from captions and none were given")
        vocabulary = count_vocabulary(captions(), size=VOCABULARY_SIZE)
        return Tokenizer(_wordpiece(vocabulary, lower_case=True), max_length=max_length)
    if file.suffix == ".txt":
        return Tokenizer(
            _wordpiece(_read_vocabulary(file), lower_case=_lower_case(file)), max_length=max_length
        )
    if file.name == _BYTE_PAIRS:
        return Tokenizer(read_byte_pairs(file), max_length=max_length)
    try:
        backend = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:
        raise EncoderError(f"{file} is no tokenizer of the tokenizers library: {error}") from error
    return Tokenizer(backend, max_length=max_length)


def count_vocabulary(captions: Iterable[str], *, size: int) -> dict[str, int]:
    """Make a WordPiece vocabulary of letters and the most frequent words, the same in every process.

    Words that did not make it are spelt letter by letter, so nothing in the captions is unknown. The trainer
    of the tokenizers library is not used: four processes made four vocabularies of one list.

    Parameters
    ----------
    captions : iterable of str
    size : int
        Most tokens; the special ones, letters and their ``##`` forms are always in.

    Returns
    -------
    dict of token to id; ids count from 0, ties of frequency are in the order of the code points.
    """
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    normalize, split = BertNormalizer(lowercase=True).normalize_str, BertPreTokenizer().pre_tokenize_str
    words = Counter(word for caption in captions for word, _ in split(normalize(caption)))
    letters = sorted({letter for word in words for letter in word})
    tokens = [*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters)]
    known = set(tokens)
    by_frequency = sorted(
        (word for word in words if word not in known), key=lambda word: (-words[word], word)
    )
    tokens += by_frequency[: max(size - len(tokens), 0)]
    return {token: index for index, token in enumerate(tokens)}


def _wordpiece(vocabulary: dict[str, int], *, lower_case: bool) -> tokenizers.Tokenizer:
    """Build BERT's tokenizer: its normalisation and splitting, and [CLS] text [SEP]."""
    import tokenizers
    from tokenizers import models, normalizers, pre_tokenizers, processors

    backend = tokenizers.Tokenizer(
        models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100)
    )
    backend.normalizer = normalizers.BertNormalizer(lowercase=lower_case)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    return backend


def _read_vocabulary(file: Path) -> dict[str, int]:
    tokens = file.read_text(encoding="utf-8").split("\n")
    vocabulary = {token.rstrip("\r"): index for index, token in enumerate(tokens) if token}
    if absent := [token for token in SPECIAL_TOKENS[:4] if token not in vocabulary]:
        raise EncoderError(f"{file} is no WordPiece vocabulary: it lacks {', '.join(absent)}")
    return vocabulary


def _lower_case(vocabulary_file: Path) -> bool:
    """Return ``do_lower_case`` of the ``tokenizer_config.json`` beside a vocabulary, True without one."""
    settings = vocabulary_file.with_name("tokenizer_config.json")
    if not settings.is_file():
        return True
    return bool(json.loads(settings.read_text(encoding="utf-8")).get("do_lower_case", True))
