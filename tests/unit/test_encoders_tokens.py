"""The ``tokens`` encoder: ids of captions in the cache."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from align_cache.encoders import load, resolve
from align_cache.encoders.base import EncoderRequest, EncoderSpec
from align_cache.encoders.tokenizer import SPECIAL_TOKENS, load_tokenizer
from align_cache.encoders.tokens import TokenIds
from align_cache.errors import EncoderError, PairingError, UsageError
from align_cache.extraction.external import import_features
from align_cache.extraction.extracting import Extracted, extract
from align_cache.probes.labelled import open_like
from align_cache.settings import ExtractConfig
from align_cache.store import FeatureSet

SHAPES: dict[str, Any] = {
    "dataset": "shapes", "encoders": ("tokens",), "options": {"count": 12}, "shard_rows": 16, "device": "cpu",
}  # fmt: skip


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    return write_vocabulary(tmp_path, *SPECIAL_TOKENS, "a", "dog", "##s")


def write_vocabulary(folder: Path, *tokens: str) -> Path:
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return folder


def spec_of(tokenizer: Path | None, **changes: Any) -> EncoderSpec:
    return resolve(EncoderRequest("tokens", tokenizer=tokenizer, **changes), captions_digest="d")


def encoder_of(tokenizer: Path | None, captions: Any = None, **changes: Any) -> TokenIds:
    spec = spec_of(tokenizer, **changes)
    encoder = load(spec, device=torch.device("cpu"), dtype=torch.float32, captions=captions)
    assert isinstance(encoder, TokenIds)
    return encoder


def run(cache_dir: Path, **changes: Any) -> Extracted:
    (made,) = extract(ExtractConfig(**{**SHAPES, **changes}), cache_dir=cache_dir)
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "provenance.json"}


def test_a_text_is_framed_cut_and_filled_up(vocabulary: Path) -> None:
    ids, cut = encoder_of(vocabulary, max_length=5).encode(["a dogs", "dog", "", "a a a a", "cat"])
    assert ids.dtype == np.int32
    assert ids.tolist() == [
        [2, 5, 6, 7, 3],
        [2, 6, 3, 0, 0],
        [2, 3, 0, 0, 0],
        [2, 5, 5, 5, 3],
        [2, 1, 3, 0, 0],
    ]
    assert cut == 1


@pytest.mark.parametrize("texts", [[], [""], ["dog"]], ids=str)
def test_few_texts_are_no_special_case(vocabulary: Path, texts: list[str]) -> None:
    ids, cut = encoder_of(vocabulary, max_length=3).encode(texts)
    assert ids.shape == (len(texts), 3)
    assert cut == 0


def test_the_identity_says_which_ids_there_are(vocabulary: Path) -> None:
    spec = spec_of(vocabulary, max_length=7)
    assert {key: spec.identity[key] for key in ("max_length", "vocabulary_size", "pad_id")} == {
        "max_length": 7, "vocabulary_size": 8, "pad_id": 0,
    }  # fmt: skip
    assert spec.identity.keys() == {"tokenizer", "max_length", "vocabulary_size", "pad_id"}
    assert (spec.modality, spec.gives, spec.untrained) == ("text", "tokens", False)


def test_without_a_tokenizer_a_vocabulary_is_counted_and_its_size_is_its_bound() -> None:
    captions = ["a dog", "two dogs"]
    encoder = encoder_of(None, lambda: captions)
    ids, _ = encoder.encode(captions)
    expected, _ = load_tokenizer(None, lambda: captions, max_length=64).encode(captions)
    assert [row[row > 0].tolist() for row in ids] == expected
    assert encoder.spec.identity["vocabulary_size"] == 8192
    assert encoder.spec.identity["tokenizer"]["counted_from"] == "d"


def test_more_letters_than_the_vocabulary_has_room_for_are_refused() -> None:
    captions = ["".join(map(chr, range(0x4E00, 0x4E00 + 8200)))]
    with pytest.raises(
        EncoderError, match=r"the letters of the captions make 16,\d+ tokens, expected at most 8,192"
    ):
        encoder_of(None, lambda: captions)


@pytest.mark.parametrize("weights", ["random", "random:1", "some/folder"])
def test_weights_are_refused(vocabulary: Path, weights: str) -> None:
    with pytest.raises(UsageError, match="tokens has no weights"):
        spec_of(vocabulary, weights=weights)


def test_a_pooling_is_refused(vocabulary: Path) -> None:
    with pytest.raises(UsageError, match="tokens pools nothing"):
        spec_of(vocabulary, pooling="cls")


@pytest.mark.parametrize("counted", [True, False], ids=["counted", "file"])
@pytest.mark.parametrize("max_length", [1, 2])
def test_rows_without_room_for_a_word_are_refused(vocabulary: Path, counted: bool, max_length: int) -> None:
    with pytest.raises(UsageError, match="adds 2 special tokens to every text") as caught:
        spec_of(None if counted else vocabulary, max_length=max_length)
    assert caught.value.hint == "--max-length 3 or more"


def test_a_vocabulary_whose_id_0_is_no_padding_is_refused(tmp_path: Path) -> None:
    folder = write_vocabulary(tmp_path, "[UNK]", "[PAD]", "[CLS]", "[SEP]", "dog")
    with pytest.raises(EncoderError, match=r"has the token '\[UNK\]' as id 0, expected its padding"):
        spec_of(folder)


def test_a_tokenizer_without_special_tokens_may_give_rows_of_one_token_and_none(tmp_path: Path) -> None:
    import tokenizers
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    backend = tokenizers.Tokenizer(WordLevel({"<pad>": 0, "<unk>": 1, "dog": 2}, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    backend.save(str(tmp_path / "tokenizer.json"))
    ids, cut = encoder_of(tmp_path / "tokenizer.json", max_length=1).encode(["dog", "cat", "dog dog"])
    assert (ids.tolist(), cut) == ([[2], [1], [2]], 1)
    assert encoder_of(tmp_path / "tokenizer.json", max_length=2).encode([""])[0].tolist() == [[0, 0]]


def test_ids_are_those_of_the_tokenizers_library_on_the_real_vocabulary(real_data: Path) -> None:
    from tokenizers import BertWordPieceTokenizer

    folder = real_data / "bert-base-uncased-vocab"
    lines = (real_data / "flickr8k" / "captions.txt").read_text(encoding="utf-8").splitlines()[1:3000]
    texts = [*(line.partition(",")[2] for line in lines), "", " ", "naïve CAFÉ", "日本語", "x" * 500]
    reference = BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True)
    for length in (3, 12, 64):
        reference.enable_truncation(length)
        reference.enable_padding(length=length)
        encoder = encoder_of(folder, max_length=length)
        ids, cut = encoder.encode(texts)
        assert ids.tolist() == [encoding.ids for encoding in reference.encode_batch(texts)]
        reference.no_truncation()
        reference.no_padding()
        assert cut == sum(len(encoding.ids) > length for encoding in reference.encode_batch(texts))
        assert encoder.spec.identity["vocabulary_size"] == 30522


def test_a_caption_that_spells_the_padding_is_words_and_no_padding(vocabulary: Path) -> None:
    ids, _ = encoder_of(vocabulary, max_length=6).encode(["a [PAD] a"])
    assert ids.tolist() == [[2, 5, 1, 1, 1, 3]]


def test_extracted_ids_are_the_encoders_with_everything_a_caption_has(
    cache_dir: Path, vocabulary: Path
) -> None:
    made = run(cache_dir, tokenizer=vocabulary)
    features = FeatureSet.open(made.folder)
    assert (made.rows, made.dim, made.width, made.untrained) == (60, 64, "64 tokens", False)
    assert (features.holds_tokens, features.vocabulary_size, len(features.shards)) == (True, 8, 4)
    assert features.texts is not None
    assert features.group_ids is not None
    assert features.splits is not None
    assert (features.array() == encoder_of(vocabulary).encode(features.texts.tolist())[0]).all()


@pytest.mark.parametrize(
    "change",
    [{"dtype": "float32"}, {"precision": "bf16"}, {"batch_size": 7}, {"resize": "squash"}],
    ids=str,
)
def test_what_decides_features_and_no_ids_makes_no_second_set(
    cache_dir: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    first, second = run(cache_dir), run(tmp_path / "other", **change)
    assert second.key == first.key
    assert contents(second.folder) == contents(first.folder)
    assert run(cache_dir, **change).status == "already there"


def test_another_length_or_tokenizer_is_another_set(cache_dir: Path, vocabulary: Path) -> None:
    keys = {run(cache_dir, **change).key for change in ({}, {"max_length": 8}, {"tokenizer": vocabulary})}
    assert len(keys) == 3


def test_a_damaged_shard_is_made_again_to_the_same_bytes(cache_dir: Path) -> None:
    folder = run(cache_dir).folder
    before = contents(folder)
    (folder / "shard-00001.h5").write_bytes(before["shard-00001.h5"][:-1])
    (folder / "shard-00002.h5").unlink()
    assert run(cache_dir).samples_done == 32
    assert contents(folder) == before


def test_ids_and_features_are_extracted_in_one_call(cache_dir: Path) -> None:
    config = ExtractConfig(**{**SHAPES, "encoders": ("tokens", "small-text", "small-cnn"),
                              "weights": {"small-text": "random", "small-cnn": "random"}})  # fmt: skip
    opened = [FeatureSet.open(made.folder) for made in extract(config, cache_dir=cache_dir)]
    assert [features.holds_tokens for features in opened] == [True, False, False]
    assert opened[0].sample_ids.tolist() == opened[1].sample_ids.tolist()


def test_imported_features_as_wide_as_ids_are_not_taken_for_ids(cache_dir: Path, tmp_path: Path) -> None:
    """Imported features do not say what made them, and the dims agree."""
    tokens = FeatureSet.open(run(cache_dir, max_length=4).folder)
    file = tmp_path / "features.npz"
    np.savez(file, sample_id=["a/0"], group_id=["a"], label=[0], features=np.array([[1.0, 0, 0, 0]]))
    import_features(file, dataset="other", encoder="tokens", modality="text", cache_dir=cache_dir)
    notes: list[str] = []
    with pytest.raises(PairingError, match=r"holds features, and the run was trained on token ids"):
        open_like(cache_dir, "other", tokens, None, notes)


def test_the_encoder_needs_no_torch(vocabulary: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from align_cache.encoders.base import EncoderRequest\n"
        "from align_cache.encoders.tokens import load, resolve\n"
        f"request = EncoderRequest('tokens', tokenizer=Path({str(vocabulary)!r}))\n"
        "spec = resolve(request, captions_digest=None)\n"
        "assert load(spec, captions=None).encode(['dog'])[0].shape == (1, 64)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
