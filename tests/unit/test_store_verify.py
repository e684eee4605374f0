"""Judging and removing: every damage is listed by name, and only feature sets are removed."""

import pytest

from align_cache.errors import BusyError, CacheError
from align_cache.store import FeatureSet, FeatureSetWriter
from align_cache.store.verify import remove, verify


def findings(path):
    return [(finding.path.name, finding.kind, finding.problem) for finding in verify(path)]


def test_a_sound_cache_has_no_findings(write_toy, toy_identity, cache_dir):
    assert verify(cache_dir) == []
    folder = write_toy()
    write_toy(toy_identity(seed=1))
    assert verify(cache_dir) == verify(folder) == []


def test_every_damage_in_a_cache_is_listed_at_once(write_toy, toy_identity, cache_dir):
    one, two = write_toy(), write_toy(toy_identity(encoder="other"))
    flipped = bytearray((one / "shard-00000.h5").read_bytes())
    flipped[700] ^= 4
    (one / "shard-00000.h5").write_bytes(flipped)
    (one / "shard-00001.h5").unlink()
    (one / "shard-00002.h5").write_bytes(b"short")
    (two / "manifest.json").write_bytes(b"{")
    assert findings(cache_dir) == [
        ("shard-00000.h5", "damage", "is damaged: its bytes do not fit its checksum"),
        ("shard-00001.h5", "damage", "is missing"),
        ("shard-00002.h5", "damage", "has 5 bytes, expected 5,944"),
        ("manifest.json", "damage", "the manifest is torn or no manifest at all"),
    ]


def test_leftovers_are_no_damage(write_toy, cache_dir):
    folder = write_toy(stop=2, finish=False)
    (folder / ".shard-00002.h5.0a1b2c.tmp").write_bytes(b"half")
    (folder / "notes.txt").write_text("mine")
    assert findings(cache_dir) == [
        (".shard-00002.h5.0a1b2c.tmp", "leftover", "is half-written; the next extract removes it"),
        ("notes.txt", "leftover", "is not of align-cache"),
        (folder.name, "leftover", "is unfinished: it has no manifest"),
    ]


def test_a_surplus_shard_and_a_renamed_folder_are_listed(write_toy):
    folder = write_toy()
    (folder / "shard-00003.h5").write_bytes((folder / "shard-00002.h5").read_bytes())
    renamed = folder.rename(folder.with_name("flat-00000000"))
    problems = findings(renamed)
    assert ("shard-00003.h5", "leftover", "is no shard of this set") in problems
    assert ("flat-00000000", "damage", f"is named for another set, expected {folder.name}") in problems


def test_a_damaged_shard_of_an_unfinished_set_is_listed(write_toy):
    folder = write_toy(stop=1, finish=False)
    (folder / "shard-00000.h5").write_bytes(b"")
    assert ("shard-00000.h5", "damage", "is empty") in findings(folder)


def test_a_path_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(CacheError, match="is no folder"):
        verify(tmp_path / "nowhere")


def test_remove_takes_the_set_and_nothing_else(write_toy, toy_identity, cache_dir):
    folder, other = write_toy(), write_toy(toy_identity(seed=1))
    remove(folder)
    assert not folder.exists()
    assert FeatureSet.open(other).rows == 10
    remove(other)
    assert list((cache_dir / "features").rglob("*")) == []


def test_an_unfinished_and_a_damaged_set_can_be_removed(write_toy):
    folder = write_toy(stop=1, finish=False)
    (folder / "shard-00000.h5").write_bytes(b"")
    (folder / ".manifest.json.aa.tmp").write_bytes(b"")
    remove(folder)
    assert not folder.exists()


def test_a_set_that_is_being_written_is_not_removed(write_toy, toy_identity, cache_dir):
    folder = write_toy(stop=1, finish=False)
    with FeatureSetWriter(cache_dir, toy_identity(), untrained=True), pytest.raises(BusyError, match="pid"):
        remove(folder)
    assert (folder / "shard-00000.h5").exists()


@pytest.mark.parametrize("stranger", ["thesis.tex", "sub/"])
def test_a_folder_with_anything_of_someone_else_is_not_removed(write_toy, stranger):
    folder = write_toy()
    path = folder / stranger
    path.mkdir() if stranger.endswith("/") else path.write_text("years of work")
    with pytest.raises(CacheError, match=f"holds {stranger.rstrip('/')}, which align-cache did not write"):
        remove(folder)
    assert path.exists()
    assert FeatureSet.open(folder).rows == 10


def test_what_does_not_look_like_a_set_is_not_removed(write_toy, cache_dir, tmp_path):
    folder = write_toy()
    link = tmp_path / folder.name
    link.symlink_to(folder)
    for path in (cache_dir, folder.parent, link, cache_dir / "nothing-00000000"):
        with pytest.raises(CacheError, match="is not the folder of a feature set"):
            remove(path)
    assert FeatureSet.open(folder).rows == 10
