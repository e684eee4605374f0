import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from align_cache.encoders.base import EncoderRequest
from align_cache.encoders.tokenizer import (
    SPECIAL_TOKENS,
    count_vocabulary,
    find_tokenizer,
    load_tokenizer,
    tokenizer_identity,
)
from align_cache.errors import EncoderError, SampleError, UsageError

CAPTIONS = ["A dog runs.", "a DOG sits", "Two dogs, one ball", "a ball"]
REQUEST = EncoderRequest("distilbert", "random")


def write_vocabulary(path: Path, *words: str) -> Path:
    path.write_text("\n".join([*SPECIAL_TOKENS, *words]) + "\n", encoding="utf-8")
    return path


def test_a_counted_vocabulary_is_special_tokens_letters_and_words_by_frequency() -> None:
    vocabulary = count_vocabulary(["bb bb ab", "cc ab bb"], size=100)
    assert list(vocabulary) == [*SPECIAL_TOKENS, "a", "b", "c", "##a", "##b", "##c", "bb", "ab", "cc"]
    assert list(vocabulary.values()) == list(range(len(vocabulary)))


def test_words_beyond_the_size_are_spelt_with_letters() -> None:
    texts = ["bb bb ab"]
    vocabulary = count_vocabulary(texts, size=10)
    assert "bb" in vocabulary
    assert "ab" not in vocabulary
    tokenizer = load_tokenizer(None, lambda: texts, max_length=16)
    assert 1 not in tokenizer.encode(texts)[0][0]  # 1 is [UNK]


def test_a_vocabulary_larger_than_its_size_keeps_all_letters() -> None:
    assert len(count_vocabulary(["abc"], size=3)) == len(SPECIAL_TOKENS) + 6


def test_two_processes_count_the_same_vocabulary() -> None:
    script = (
        "from align_cache.encoders.tokenizer import count_vocabulary\n"
        f"print(list(count_vocabulary({CAPTIONS!r}, size=40)))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{list(count_vocabulary(CAPTIONS, size=40))}\n"}


def test_the_identity_names_the_captions_and_the_rule() -> None:
    one, two = (tokenizer_identity(None, digest, REQUEST) for digest in ("a", "b"))
    assert one != two
    assert one == {"counted_from": "a", "rule": "frequent-words-1", "size": 8192}


def test_without_a_file_and_without_captions_there_is_no_tokenizer() -> None:
    with pytest.raises(UsageError, match="distilbert has no tokenizer"):
        tokenizer_identity(None, None, REQUEST)


def test_texts_are_framed_lowercased_cut_and_counted(tmp_path: Path) -> None:
    file = write_vocabulary(tmp_path / "vocab.txt", "dog", "##s", "a")
    ids, cut = load_tokenizer(file, None, max_length=5).encode(["", "A DOGS", "a a a", "a a a a", "cat"])
    assert ids == [[2, 3], [2, 7, 5, 6, 3], [2, 7, 7, 7, 3], [2, 7, 7, 7, 3], [2, 1, 3]]
    assert cut == 1


def test_case_stays_where_the_settings_beside_the_vocabulary_say_so(tmp_path: Path) -> None:
    file = write_vocabulary(tmp_path / "vocab.txt", "Dog", "dog")
    before = tokenizer_identity(file, None, REQUEST)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    assert load_tokenizer(file, None, max_length=9).encode(["Dog"])[0] == [[2, 5, 3]]
    assert tokenizer_identity(file, None, REQUEST) != before


def test_the_identity_of_a_file_is_its_content(tmp_path: Path) -> None:
    one = tokenizer_identity(write_vocabulary(tmp_path / "vocab.txt", "a"), None, REQUEST)
    same = tokenizer_identity(write_vocabulary(tmp_path / "other.txt", "a"), "digest", REQUEST)
    other = tokenizer_identity(write_vocabulary(tmp_path / "vocab.txt", "b"), None, REQUEST)
    assert one == same != other


def test_a_folder_is_searched_for_tokenizer_json_first(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no tokenizer"):
        find_tokenizer(tmp_path)
    vocabulary = write_vocabulary(tmp_path / "vocab.txt")
    assert find_tokenizer(tmp_path) == vocabulary
    (tmp_path / "tokenizer.json").write_text("{}")
    assert find_tokenizer(tmp_path) == tmp_path / "tokenizer.json"
    with pytest.raises(EncoderError, match="is no tokenizer"):
        load_tokenizer(tmp_path / "tokenizer.json", None, max_length=8)


def test_a_saved_tokenizer_json_gives_the_same_ids_whatever_padding_it_was_saved_with(tmp_path: Path) -> None:
    file = write_vocabulary(tmp_path / "vocab.txt", "dog", "a")
    plain = load_tokenizer(file, None, max_length=4)
    backend = plain._backend
    backend.enable_padding(length=32)
    backend.save(str(tmp_path / "tokenizer.json"))
    again = load_tokenizer(tmp_path / "tokenizer.json", None, max_length=4)
    assert again.encode(["a dog", "a a a"]) == ([[2, 6, 5, 3], [2, 6, 6, 3]], 1)


def test_a_vocabulary_without_its_special_tokens_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\ndog\n")
    with pytest.raises(EncoderError, match=r"it lacks \[CLS\], \[SEP\]"):
        load_tokenizer(tmp_path / "vocab.txt", None, max_length=8)


def test_half_a_surrogate_pair_is_refused() -> None:
    tokenizer = load_tokenizer(None, lambda: CAPTIONS, max_length=8)
    with pytest.raises(SampleError, match="among 2 captions"):
        tokenizer.encode(["a", "\ud800"])


def test_the_real_vocabulary_gives_berts_ids(real_data: Path) -> None:
    tokenizer = load_tokenizer(find_tokenizer(real_data / "bert-base-uncased-vocab"), None, max_length=64)
    assert tokenizer.size == 30522
    ids, _ = tokenizer.encode(["Hello, World! unaffable"])
    assert ids == [[101, 7592, 1010, 2088, 999, 14477, 20961, 3468, 102]]


def test_the_real_vocabulary_splits_as_transformers_does(real_data: Path) -> None:
    transformers = pytest.importorskip("transformers")
    texts = (real_data / "flickr8k" / "captions.txt").read_text(encoding="utf-8").splitlines()[1:200]
    texts += ["", "naïve CAFÉ", "日本語 text", "tabs\tand\nlines", "it's 3.14"]
    folder = real_data / "bert-base-uncased-vocab"
    reference = transformers.BertTokenizerFast.from_pretrained(folder)
    assert len(reference) == 30522
    assert (
        load_tokenizer(folder / "vocab.txt", None, max_length=64).encode(texts)[0]
        == (reference(texts, truncation=True, max_length=64)["input_ids"])
    )
