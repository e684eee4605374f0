"""A small random CLIP in the hub's folder format, with a byte-pair tokenizer made of a few captions.

CLIP's published vocabulary is not part of the tests: this one has its form and its rules, and other merges.
"""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import torch

from align_cache.encoders.clip_tokenizer import END, START

TEXTS = ["a dog runs", "Two dogs", "", "a red ball's rim, a red ball: no 42 more words fit here", "a"]


def byte_pairs(folder: Path, *, merges: int = 40, size: int = 0) -> int:
    """Write ``vocab.json`` and ``merges.txt`` as CLIP's are made, and return how many tokens there are.

    All bytes, all bytes at the end of a word, the most frequent pairs one by one, tokens of no use up to
    ``size``, start and end of text last.
    """
    letters = _byte_letters()
    words = Counter(tuple(map(chr, word.encode())) for text in TEXTS for word in text.lower().split())
    spelt = {(*word[:-1], f"{word[-1]}</w>"): count for word, count in words.items()}
    pairs: list[tuple[str, str]] = []
    while len(pairs) < merges and (counts := _pair_counts(spelt)):
        best = max(counts, key=lambda pair: (counts[pair], pair))
        pairs.append(best)
        spelt = {_merged(word, best): count for word, count in spelt.items()}
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, pairs)]
    tokens += [f"<unused{index}>" for index in range(size - len(tokens) - 2)]
    tokens += [START, END]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in pairs)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    return len(tokens)


def clip_folder(folder: Path, *, true_size: bool = False) -> Path:
    """Save a CLIP as transformers does, small or a true ViT-B/32, with the files of its two processors."""
    import transformers

    folder.mkdir()
    side, shorter = (224, 224) if true_size else (32, 40)
    tokens = byte_pairs(folder, size=49408 if true_size else 0)
    transformers.CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)
    small = {"intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"hidden_size": 16, "max_position_embeddings": 12, "vocab_size": tokens, **small}
    text |= {"bos_token_id": tokens - 2, "eos_token_id": tokens - 1}
    vision = {"hidden_size": 24, "image_size": side, "patch_size": 8, **small}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=10)
    torch.manual_seed(0)
    transformers.CLIPModel(transformers.CLIPConfig() if true_size else config).save_pretrained(folder)
    size = {"size": {"shortest_edge": shorter}, "crop_size": {"height": side, "width": side}}
    transformers.CLIPImageProcessor(**size).save_pretrained(folder)
    return folder


def _byte_letters() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def _pair_counts(spelt: dict[tuple[str, ...], int]) -> Counter[tuple[str, str]]:
    counts: Counter[tuple[str, str]] = Counter()
    for word, count in spelt.items():
        for pair in pairwise(word):
            counts[pair] += count
    return counts


def _merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    for letter in word:
        if merged and (merged[-1], letter) == pair:
            merged[-1] += letter
        else:
            merged.append(letter)
    return tuple(merged)
