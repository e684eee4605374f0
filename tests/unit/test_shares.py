"""Several processes, one feature set: which shards are whose, who may enter, who publishes."""

import fcntl
from pathlib import Path
from typing import Any

import pytest

from align_cache.errors import BusyError, ConfigError
from align_cache.extraction.extracting import Extracted, extract
from align_cache.runtime import resolve_device
from align_cache.settings import ExtractConfig
from align_cache.shares import Share, launched, parse_share
from align_cache.store import FeatureSet, FeatureSetWriter
from align_cache.store.verify import remove, verify
from tests.unit.stored import published_bytes


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("world", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("count", [1, 2, 7, 13])
def test_every_shard_is_of_exactly_one_rank_and_ranks_differ_by_one_at_most(world: int, count: int) -> None:
    shares = [list(Share(rank, world).shards(count)) for rank in range(world)]
    assert sorted(shard for share in shares for shard in share) == list(range(count))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("text", ["8/8", "0/0", "1", "1/", "-1/4", "1/4/2", "a/b", " 1/4", "0.5/2", ""])
def test_what_is_no_share_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="expected RANK/WORLD, of eight processes 0/8 to 7/8"):
        parse_share(text)
    with pytest.raises(ValueError, match="expected RANK/WORLD"):
        ExtractConfig(dataset="shapes", encoders=("small-cnn",), shard_of=text)


def test_a_share_is_written_as_it_is_read_and_one_of_one_is_the_whole() -> None:
    assert parse_share("3/8") == Share(3, 8)
    config = ExtractConfig(dataset="shapes", encoders=("small-cnn",), shard_of="03/8")
    assert config.shard_of == "3/8"
    assert config.model_copy(update={"shard_of": None}) == ExtractConfig(
        dataset="shapes", encoders=("small-cnn",), shard_of="0/1"
    )


TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
SRUN = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize(
    ("environment", "settings"),
    [
        ({}, None),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, None),
        ({"RANK": "3"}, None),
        (TORCHRUN, {"shard_of": "5/8", "local_rank": 1, "workers": 4}),
        (SRUN, {"shard_of": "5/8", "local_rank": 1}),
        (SRUN | {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}, {"shard_of": "5/8", "local_rank": 1}),
        # A step of fewer tasks than its job has, and the batch script, which is no step.
        (SRUN | {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "6"}, {"shard_of": "5/6", "local_rank": 1}),
        (SRUN | {"SLURM_PROCID": "0", "SLURM_JOB_ID": "7"}, None),
        (SRUN | TORCHRUN | {"RANK": "2"}, {"shard_of": "2/8", "local_rank": 1, "workers": 4}),
    ],
)
def test_what_a_launcher_says_becomes_settings(
    environment: dict[str, str], settings: dict[str, Any] | None
) -> None:
    process = launched(environment)
    assert (None if process is None else process.settings(processors=16)) == settings


@pytest.mark.parametrize(("rank", "world"), [("x", "2"), ("2", "2"), ("0", "-2"), ("0", "0"), ("", "2")])
def test_a_launcher_that_makes_no_sense_is_refused(rank: str, world: str) -> None:
    with pytest.raises(ConfigError):
        launched({"RANK": rank, "WORLD_SIZE": world})


def test_processes_of_a_machine_take_its_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert [str(resolve_device("auto", local_rank=rank)) for rank in (0, 3, 4, 5)] == [
        *("cuda:0", "cuda:3", "cuda:0", "cuda:1")
    ]
    assert str(resolve_device("cuda")) == "cuda"
    assert str(resolve_device("cpu", local_rank=3)) == "cpu"


@pytest.fixture
def write_share(cache_dir, toy_identity, unit_rows):
    """Write what one rank of several has to, and leave; a whole toy set has the shards 0, 1 and 2."""

    def write(text: str, **options: Any) -> Any:
        identity = toy_identity()
        shards = parse_share(text).shards(3)
        with FeatureSetWriter(cache_dir, identity, untrained=True, shards=shards, **options) as writer:
            for index in writer.missing:
                part = writer.shard_slices[index]
                ids = [f"image-{row}" for row in range(part.start, part.stop)]
                writer.write_shard(index, features=unit_rows(10)[part], sample_id=ids)
            return writer.finish_if_last({"host": "toy"})

    return write


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_ranks_in_turn_leave_the_bytes_of_one_writer(write_toy, write_share, tmp_path, world):
    reference = contents(folder := write_toy())
    folder.rename(tmp_path / "aside")
    published = [write_share(f"{rank}/{world}") for rank in range(world)]
    last = min(world, 3) - 1  # ranks beyond the shards find everything there and say so again
    assert [manifest is not None for manifest in published] == [rank >= last for rank in range(world)]
    assert contents(folder) == reference
    assert not folder.with_name(f"{folder.name}.holder").exists()


def test_writers_of_different_shards_work_at_once_and_only_the_last_to_leave_publishes(
    cache_dir, toy_identity, unit_rows, write_toy, tmp_path
):
    reference = contents(folder := write_toy())
    folder.rename(tmp_path / "aside")
    rows, ids = unit_rows(10), [f"image-{row}" for row in range(10)]

    def writer(*shards: int) -> FeatureSetWriter:
        return FeatureSetWriter(cache_dir, toy_identity(), untrained=True, shards=shards)

    with writer(0, 1) as one, writer(2) as other:
        for at, index in ((one, 0), (other, 2), (one, 1)):
            part = at.shard_slices[index]
            at.write_shard(index, features=rows[part], sample_id=ids[part])
        assert one.absent() == other.absent() == ()
        assert one.finish_if_last({"host": "toy"}) is None  # the other is still there
        assert not (folder / "manifest.json").exists()
        assert other.finish_if_last({"host": "toy"}) is not None
    assert contents(folder) == reference


def test_two_writers_of_the_same_shard_do_each_other_no_harm(
    cache_dir, toy_identity, unit_rows, write_toy, tmp_path
):
    reference = contents(folder := write_toy())
    folder.rename(tmp_path / "aside")
    one, other = (
        FeatureSetWriter(cache_dir, toy_identity(), untrained=True, shards=range(3)) for _ in range(2)
    )
    ids = [f"image-{row}" for row in range(10)]
    with one, other:
        for index in range(3):
            for writer in (one, other):
                part = writer.shard_slices[index]
                writer.write_shard(index, features=unit_rows(10)[part], sample_id=ids[part])
        assert one.finish_if_last({"host": "toy"}) is None
        assert other.finish_if_last({"host": "toy"}) is not None
    assert contents(folder) == reference


def test_a_writer_of_the_whole_and_writers_of_shards_exclude_each_other(
    cache_dir, toy_identity, write_toy, monkeypatch
):
    monkeypatch.setattr("align_cache.lock._PATIENCE_S", 0.2)
    whole = FeatureSetWriter(cache_dir, toy_identity(), untrained=True)
    some = FeatureSetWriter(cache_dir, toy_identity(), untrained=True, shards=[0])
    with some:
        with pytest.raises(BusyError, match="pid"), whole:
            pytest.fail("entered beside a writer of shards")
        with pytest.raises(BusyError):
            remove(some.folder)
    with whole, pytest.raises(BusyError, match="pid"), some:
        pytest.fail("entered beside a writer of the whole")


def test_a_writer_of_shards_waits_for_one_that_is_about_to_leave(cache_dir, toy_identity, monkeypatch):
    whole = FeatureSetWriter(cache_dir, toy_identity(), untrained=True)
    some = FeatureSetWriter(cache_dir, toy_identity(), untrained=True, shards=[0])
    whole.__enter__()
    monkeypatch.setattr("time.sleep", lambda seconds: whole.__exit__(None, None, None))
    with some:
        assert some.missing == (0,)


def test_a_lock_file_removed_before_it_is_locked_is_made_anew(cache_dir, toy_identity, monkeypatch):
    writer = FeatureSetWriter(cache_dir, toy_identity(), untrained=True)
    path = writer.folder.with_name(f"{writer.folder.name}.lock")
    take, opened = fcntl.flock, []

    def flock(lock: int, kind: int) -> None:
        take(lock, kind)
        opened.append(lock)
        if len(opened) == 1:
            path.unlink()

    monkeypatch.setattr("fcntl.flock", flock)
    with writer:
        assert len(opened) == 2
        assert path.exists()


def test_the_half_written_file_of_a_killed_rank_goes_when_the_set_is_published(
    write_share, cache_dir, toy_identity
):
    write_share("0/2")
    with FeatureSetWriter(cache_dir, toy_identity(), untrained=True, shards=[1]) as writer:
        folder = writer.folder
    stale = folder / ".shard-00001.h5.abc123.tmp"
    stale.write_bytes(b"half")
    with FeatureSetWriter(cache_dir, toy_identity(), untrained=True, shards=[1]):
        assert stale.exists()  # it could be the work of a rank that is alive
    write_share("1/2")
    assert not stale.exists()
    assert verify(folder) == []


BASE: dict[str, Any] = {
    "dataset": "shapes",
    "encoders": ("small-cnn", "small-text"),
    "weights": {"*": "random"},
    "options": {"count": 20},
    "shard_rows": 8,
    "batch_size": 4,
    "device": "cpu",
}


def run(cache_dir: Path, **changes: Any) -> tuple[list[Extracted], list[str]]:
    notes: list[str] = []
    return extract(ExtractConfig(**{**BASE, **changes}), cache_dir=cache_dir, on_note=notes.append), notes


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process makes: three image shards, thirteen of captions."""
    cache_dir = tmp_path_factory.mktemp("whole")
    run(cache_dir)
    return published_bytes(cache_dir)


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 2, 0, 3, 1)])
def test_five_ranks_in_any_order_make_what_one_process_makes(
    cache_dir: Path, whole: dict[str, bytes], order: tuple[int, ...]
) -> None:
    for rank in order[:-1]:
        results, notes = run(cache_dir, shard_of=f"{rank}/5")
        assert "small-text" not in {result.encoder for result in results}
        assert any("of 13 shards of shapes/small-text-" in note and "are others'" in note for note in notes)
    results, notes = run(cache_dir, shard_of=f"{order[-1]}/5")
    assert [result.encoder for result in results] == ["small-cnn", "small-text"]
    assert not any("others'" in note for note in notes)
    assert published_bytes(cache_dir) == whole


def test_a_rank_again_makes_nothing_and_the_plain_command_makes_what_is_missing(
    cache_dir: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(cache_dir, shard_of="1/2")
    before = published_bytes(cache_dir)
    with monkeypatch.context() as patch:
        patch.setattr(
            "align_cache.extraction.encoding.load", lambda *_, **__: pytest.fail("a model was loaded")
        )
        assert run(cache_dir, shard_of="1/2")[0] == []
    assert published_bytes(cache_dir) == before
    results, _ = run(cache_dir)
    assert sum(result.samples_done for result in results) < sum(result.rows for result in results)
    assert published_bytes(cache_dir) == whole


def test_a_damaged_shard_of_another_rank_is_removed_and_made_by_its_rank(
    cache_dir: Path, whole: dict[str, bytes]
) -> None:
    one = {"encoders": ("small-cnn",)}
    run(cache_dir, shard_of="0/2", **one)
    victim = next(cache_dir.glob("features/*/*/shard-00002.h5"))
    victim.write_bytes(victim.read_bytes()[:-1])
    results, notes = run(cache_dir, shard_of="1/2", **one)
    assert results == []
    assert any("damaged" in note for note in notes)
    assert any("1 of 3 shards" in note for note in notes)
    (result,), _ = run(cache_dir, shard_of="0/2", **one)
    assert result.samples_done == 4
    assert published_bytes(cache_dir).items() <= whole.items()
    FeatureSet.open(result.folder)


def test_overwriting_ranks_make_their_own_shards_anew(cache_dir: Path, whole: dict[str, bytes]) -> None:
    run(cache_dir)
    for rank in range(2):
        results, _ = run(cache_dir, shard_of=f"{rank}/2", overwrite=True)
        assert {result.status for result in results} == {"extracted"}
        assert published_bytes(cache_dir) == whole
