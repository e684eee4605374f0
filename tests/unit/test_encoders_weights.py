import hashlib
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from align_cache.encoders.weights import (
    WeightsChoice,
    digest_files,
    fetch_file,
    fill,
    parse_weights,
    read_state,
    seeded,
)
from align_cache.errors import EncoderError, OfflineError, UsageError


def linear() -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Identity())


def test_the_forms_of_weights_are_told_apart(tmp_path: Path) -> None:
    assert parse_weights("pretrained") == WeightsChoice()
    assert parse_weights("random") == WeightsChoice(seed=0)
    assert parse_weights("random:12") == WeightsChoice(seed=12)
    assert parse_weights(str(tmp_path)) == WeightsChoice(path=tmp_path)


@pytest.mark.parametrize("text", ["random:x", "random:-1", "random:1.5", "nowhere/at/all", "Pretrained"])
def test_other_forms_of_weights_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="weights"):
        parse_weights(text)


def test_the_digest_is_of_the_bytes_and_their_order_not_of_names(tmp_path: Path) -> None:
    one, same, two = (tmp_path / name for name in ("one", "same", "two"))
    one.write_bytes(b"a")
    same.write_bytes(b"a")
    two.write_bytes(b"b")
    assert digest_files([one]) == digest_files([same]) == f"sha256:{hashlib.sha256(b'a').hexdigest()}"
    assert digest_files([one, two]) == digest_files([same, two])
    assert len({digest_files([one, two]), digest_files([two, one]), digest_files([one])}) == 3


def test_drawing_from_a_seed_neither_reads_nor_changes_the_global_state() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with seeded(7):
        first = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with seeded(7):
        assert torch.equal(torch.rand(3), first)
    with seeded(8):
        assert not torch.equal(torch.rand(3), first)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pt"])
def test_a_state_is_read_from_each_kind_of_file(tmp_path: Path, name: str) -> None:
    state = {"0.weight": torch.arange(6.0).view(3, 2)}
    if name.endswith("safetensors"):
        save_file(state, tmp_path / name)
    else:
        torch.save(state, tmp_path / name)
    assert torch.equal(read_state(tmp_path / name)["0.weight"], state["0.weight"])


def test_a_malicious_pickle_is_refused_and_does_nothing(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Attack:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (canary,))

    with (tmp_path / "w.pth").open("wb") as file:
        pickle.dump({"0.weight": Attack()}, file)
    with pytest.raises(EncoderError, match="cannot be read as weights"):
        read_state(tmp_path / "w.pth")
    torch.save({"0.weight": Attack()}, tmp_path / "w.pth")
    with pytest.raises(EncoderError, match="cannot be read as weights"):
        read_state(tmp_path / "w.pth")
    assert not canary.exists()


@pytest.mark.parametrize("content", [b"", b"junk", b"\x08\0\0\0\0\0\0\0{}"])
@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_damaged_weights_are_refused_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EncoderError, match=name):
        read_state(tmp_path / name)


def test_a_checkpoint_that_is_no_plain_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"0.weight": torch.ones(1)}, "epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(EncoderError, match="no plain state dict"):
        read_state(tmp_path / "w.pth")


def test_a_model_is_filled_with_or_without_the_part_that_was_taken_out() -> None:
    state = {"0.weight": torch.ones(3, 2), "0.bias": torch.ones(3)}
    for extra in ({}, {"1.weight": torch.ones(10, 3), "1.bias": torch.ones(10)}):
        model = linear()
        fill(model, state | extra, without=["1"], origin=Path("w.pth"))
        assert all((value == 1).all() for value in model.state_dict().values())


@pytest.mark.parametrize(
    ("state", "what"),
    [
        ({"0.weight": torch.ones(3, 2)}, r"1 missing \(0.bias\)"),
        ({"0.weight": torch.ones(3, 2), "0.bias": torch.ones(4)}, r"1 of another shape \(0.bias\)"),
        (
            {"0.weight": torch.ones(3, 2), "0.bias": torch.ones(3), "10.bias": torch.ones(3)},
            r"1 unexpected \(10.bias\)",
        ),
        ({}, r"2 missing \(0.bias, 0.weight\)"),
    ],
)
def test_weights_that_fill_only_part_are_refused_and_leave_the_model_alone(
    state: dict[str, torch.Tensor], what: str
) -> None:
    model = linear()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(EncoderError, match=what):
        fill(model, state, without=["1"], origin=Path("w.pth"))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_fetched_file_is_used_and_a_missing_one_offline_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "https://example.invalid/net-0a1b2c3d.pth"
    monkeypatch.setattr("align_cache.sources.hub.is_reachable", lambda _: False)
    with pytest.raises(OfflineError, match=r"net-0a1b2c3d\.pth is not in") as caught:
        fetch_file(url, folder=tmp_path, command="the command")
    assert "the command" in str(caught.value.hint)
    (tmp_path / "net-0a1b2c3d.pth").touch()
    assert fetch_file(url, folder=tmp_path, command="") == tmp_path / "net-0a1b2c3d.pth"
