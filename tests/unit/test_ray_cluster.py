"""What a Ray cluster's nodes are divided into, and what is refused before any work; no cluster is started."""

import sys
from pathlib import Path

import pytest

from align_cache.cli import main
from align_cache.errors import BusyError, UsageError
from align_cache.extraction.on_ray import extract_on_ray
from align_cache.ray_cluster import Slots, connected, patiently, slots_of
from align_cache.settings import ExtractConfig

CPU_NODE = {"CPU": 4.0, "memory": 1e9}
GPU_NODE = {"CPU": 16.0, "GPU": 8.0}


@pytest.mark.parametrize(
    ("nodes", "device", "slots"),
    [
        ([CPU_NODE, CPU_NODE], "auto", Slots(8, 1, 0)),
        ([GPU_NODE], "auto", Slots(8, 2, 1)),
        # A node without a GPU adds no processors to a GPU's part; the poorest node decides.
        ([GPU_NODE, CPU_NODE, {"CPU": 64.0, "GPU": 1.0}], "cuda", Slots(9, 2, 1)),
        ([{"CPU": 2.0, "GPU": 4.0}], "auto", Slots(4, 1, 1)),
        ([GPU_NODE, CPU_NODE], "cpu", Slots(20, 1, 0)),
        ([{}, CPU_NODE], "auto", Slots(4, 1, 0)),
    ],
)
def test_what_the_nodes_have_is_divided(nodes: list[dict[str, float]], device: str, slots: Slots) -> None:
    assert slots_of(nodes, device=device) == slots


def test_a_gpu_that_no_node_has_is_refused() -> None:
    with pytest.raises(UsageError, match="no node of the Ray cluster has a GPU"):
        slots_of([CPU_NODE], device="cuda")


def test_a_lock_that_is_freed_in_time_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    held = iter([True, True, False])

    def action() -> str:
        if next(held):
            raise BusyError("held")
        return "done"

    assert patiently(action) == "done"
    monkeypatch.setattr("align_cache.ray_cluster._PATIENCE_S", 0.0)
    with pytest.raises(BusyError):
        patiently(lambda: (_ for _ in ()).throw(BusyError("held")))


def test_without_ray_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(UsageError, match="ray, which is not installed") as refused,
        connected(None, device="auto"),
    ):
        pytest.fail("connected")
    assert refused.value.hint == "pip install 'align-cache[ray]'"


def test_a_share_is_not_shared_out_again(cache_dir: Path) -> None:
    config = ExtractConfig(dataset="shapes", encoders=("small-cnn",), shard_of="0/2")
    with pytest.raises(UsageError, match="shares are given out by the driver"):
        extract_on_ray(config, cache_dir=cache_dir)


def test_everything_there_needs_no_cluster(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["extract", "--dataset", "shapes", "--set", "options.count=8", "--encoder", "small-cnn",
            "--weights", "random", "--device", "cpu", "--cache-dir", str(cache_dir)]  # fmt: skip
    assert main(line) == 0
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([*line, "--executor", "ray"]) == 0
    assert "already there" in capsys.readouterr().out
    assert main([*line, "--executor", "ray", "--overwrite"]) == 2
    assert len(list(cache_dir.glob("features/*/*/manifest.json"))) == 1  # refused before anything was dropped
