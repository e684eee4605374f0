"""CLIP's tokenizer from ``vocab.json`` and ``merges.txt``, for folders that hold no ``tokenizer.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from align_cache.errors import EncoderError

if TYPE_CHECKING:
    import tokenizers

START, END = "<|startoftext|>", "<|endoftext|>"
# Contractions, words, single digits, and whatever else is no space.
_PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


def merges_file(vocabulary: Path) -> Path:
    """Return the ``merges.txt`` beside a ``vocab.json``.

    Raises
    ------
    EncoderError
        If there is none.
    """
    merges = vocabulary.with_name("merges.txt")
    if not merges.is_file():
        raise EncoderError(f"{vocabulary} has no merges.txt beside it", hint="give both, or a tokenizer.json")
    return merges


def read_byte_pairs(vocabulary: Path) -> tokenizers.Tokenizer:
    """Build CLIP's byte-level byte-pair tokenizer: lower case, START text END.

    Raises
    ------
    EncoderError
        If the files are damaged, or another model's: RoBERTa and GPT-2 have files of these names too.
    """
    import tokenizers
    from tokenizers import models, normalizers, pre_tokenizers, processors

    ids, pairs = _read_vocabulary(vocabulary), _read_pairs(merges_file(vocabulary))
    # The library panics, past every handler of exceptions, where a pair makes no token.
    if unknown := [pair for pair in pairs if not {*pair, "".join(pair)} <= ids.keys()]:
        raise EncoderError(
            f"merges.txt and {vocabulary} do not belong together: no token for {' + '.join(unknown[0])}"
        )
    model = models.BPE(vocab=ids, merges=pairs, unk_token=END, end_of_word_suffix="</w>")
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(tokenizers.Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    pieces = pre_tokenizers.Split(tokenizers.Regex(_PIECES), behavior="removed", invert=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pieces, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, ids[START]), (END, ids[END])]
    )
    backend.add_special_tokens([START, END])
    return backend


def _read_vocabulary(file: Path) -> dict[str, int]:
    try:
        ids = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EncoderError(f"{file} is no JSON: {error}") from error
    if not isinstance(ids, dict) or not all(isinstance(number, int) for number in ids.values()):
        raise EncoderError(f"{file} is no vocabulary: expected each token with its number")
    if absent := [token for token in (START, END) if token not in ids]:
        raise EncoderError(
            f"{file} is not CLIP's vocabulary: it lacks {', '.join(absent)}",
            hint="give a tokenizer.json: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
        )
    return ids


def _read_pairs(file: Path) -> list[tuple[str, str]]:
    """Read one pair a line, in the order in which they are merged; the first line names the version."""
    pairs = []
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
        words = line.rstrip("\r").split(" ")
        if (number == 1 and line.startswith("#version")) or words == [""]:
            continue
        if len(words) != 2:
            raise EncoderError(f"{file} line {number}: found {line[:60]!r}, wanted two tokens")
        pairs.append((words[0], words[1]))
    return pairs
