"""Weight files: back as they were written, refused in one line where they are not, and never executed."""

import hashlib
import os
import pickle
from pathlib import Path

import pytest
import torch

from monai_diffens.acquisition.slicing import PLANES
from monai_diffens.files import sha256_of
from monai_diffens.messages import BundleRejected
from monai_diffens.networks.plane_denoiser import PlaneDenoiser
from monai_diffens.networks.weights import (
    load_planes,
    load_weights,
    save_weights,
    start_expert,
)


def record(path: Path, digest: str | None = None) -> Path:
    """Write the hash file that belongs to a weight file."""
    text = f"{sha256_of(path) if digest is None else digest}  {path.name}\n"
    path.with_name(path.name + ".sha256").write_text(text)
    return path


def refusal(load, *arguments) -> str:
    """Return the one line with which a file is refused."""
    with pytest.raises(BundleRejected) as stop:
        load(*arguments)
    line = str(stop.value)
    assert len(line.splitlines()) == 1 and line.isprintable()
    return line


@pytest.fixture
def saved(tiny_ensembler, tmp_path) -> Path:
    path = tmp_path / "models" / "model.pt"
    save_weights(tiny_ensembler().state_dict(), path)
    return path


def test_round_trip_in_half_precision(tiny_ensembler, tmp_path):
    network, other = tiny_ensembler(), tiny_ensembler()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    save_weights(network.state_dict(), tmp_path / "model.pt")
    load_weights(other, tmp_path / "model.pt")
    for name, value in other.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, network.state_dict()[name], rtol=2**-11, atol=2**-24, msg=name)
    x, timesteps = torch.rand(1, 2, 8, 9, 10), torch.tensor([500])
    with torch.no_grad():
        torch.testing.assert_close(other(x, timesteps), network(x, timesteps), rtol=0, atol=1e-2)


def test_file_is_a_plain_state_dict_with_its_hash_beside_it(saved, tiny_ensembler):
    state = torch.load(saved, weights_only=True)
    assert set(state) == set(tiny_ensembler().state_dict())
    assert all(type(value) is torch.Tensor and value.dtype == torch.float16 for value in state.values())
    digest = hashlib.sha256(saved.read_bytes()).hexdigest()
    assert saved.with_name("model.pt.sha256").read_text() == f"{digest}  model.pt\n"


def test_gradients_and_originals_are_left_alone(tiny_ensembler, tmp_path):
    network = tiny_ensembler()
    save_weights(dict(network.named_parameters()), tmp_path / "model.pt")
    assert all(p.requires_grad and p.dtype == torch.float32 for p in network.parameters())


@pytest.mark.parametrize("missing", ["model.pt", "model.pt.sha256"])
def test_missing_file(saved, missing, tiny_ensembler):
    saved.with_name(missing).unlink()
    assert refusal(load_weights, tiny_ensembler(), saved).startswith(f"{saved.with_name(missing)} is missing")


@pytest.mark.parametrize("content", [b"0" * 64 + b"  model.pt\n", b"", b"\n", b"\xff\xfe\x00", b"a" * 10**5])
def test_wrong_hash(saved, content, tiny_ensembler):
    saved.with_name("model.pt.sha256").write_bytes(content)
    assert f"{saved} does not match model.pt.sha256" in refusal(load_weights, tiny_ensembler(), saved)


@pytest.mark.parametrize("kept", [0, 100, -100])
def test_damaged_file(saved, kept, tiny_ensembler):
    saved.write_bytes(saved.read_bytes()[:kept])
    assert "does not match" in refusal(load_weights, tiny_ensembler(), saved)
    record(saved)  # even where the hash is of the damaged file
    assert str(saved) in refusal(load_weights, tiny_ensembler(), saved)


def test_one_changed_byte(saved, tiny_ensembler):
    data = bytearray(saved.read_bytes())
    data[len(data) // 2] ^= 1
    saved.write_bytes(data)
    assert "does not match" in refusal(load_weights, tiny_ensembler(), saved)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (lambda s: {**s, "extra": torch.zeros(1)}, 'Unexpected key(s) in state_dict: "extra"'),
        (lambda s: dict(list(s.items())[1:]), "Missing key(s) in state_dict"),
        (lambda s: {k: v[..., :1] for k, v in s.items()}, "size mismatch for"),
        (lambda s: torch.zeros(3), "Expected state_dict to be dict-like"),
    ],
    ids=["extra", "missing", "shape", "tensor"],
)
def test_what_does_not_fit_is_named(saved, state, reason, tiny_ensembler):
    torch.save(state(torch.load(saved, weights_only=True)), saved)
    line = refusal(load_weights, tiny_ensembler(), record(saved))
    assert line.startswith(f"{saved} does not fit this network: ") and reason in line


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("form", ["torch", "legacy", "pickle"])
def test_nothing_in_a_file_is_executed(tmp_path, form, tiny_ensembler):
    path, sprung = tmp_path / "model.pt", tmp_path / "sprung"
    state = {"weight": torch.zeros(1), "trap": Trap(sprung)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(state, protocol=2))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "torch")
    network = tiny_ensembler()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    line = refusal(load_weights, network, record(path))
    assert line == f"{path} holds more than plain tensors: it was not loaded"
    assert not sprung.exists()
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    if form == "pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert sprung.is_dir()  # the trap was a real one


def checkpoint(folder: Path, network: torch.nn.Module, value: float, age: int = 0) -> Path:
    """Write a checkpoint of stage 1 whose averaged weights are all ``value``."""
    folder.mkdir(exist_ok=True)
    path = folder / f"checkpoint_{age}.pt"
    state = {name: torch.full_like(weight, value) for name, weight in network.state_dict().items()}
    torch.save({"ema": state, "network": network.state_dict(), "optimizer": {"state": {}}}, path)
    os.utime(path, (10**9 - age, 10**9 - age))
    return path


def test_load_planes_takes_the_newest_checkpoint_of_each(tiny_ensembler, tmp_path):
    network = tiny_ensembler()
    folders = {}
    for number, (plane, expert) in enumerate(zip(PLANES, network.bank.experts, strict=True)):
        folders[plane] = str(tmp_path / plane)
        checkpoint(tmp_path / plane, expert, -1.0, age=100)
        checkpoint(tmp_path / plane, expert, number, age=0)
        checkpoint(tmp_path / plane, expert, -1.0, age=50)
    before = {name: value.clone() for name, value in network.calibrator.state_dict().items()}
    load_planes(network, folders)
    for number, expert in enumerate(network.bank.experts):
        assert all((value == number).all() for value in expert.state_dict().values())
    for name, value in network.calibrator.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("lack", ["folder", "checkpoint", "place"])
def test_load_planes_names_the_expert_that_lacks(tiny_ensembler, tmp_path, lack, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = tiny_ensembler()
    folders = {plane: str(tmp_path / plane) for plane in PLANES}
    for plane, expert in zip(PLANES, network.bank.experts, strict=True):
        checkpoint(tmp_path / plane, expert, 0.0)
    (tmp_path / "stray.pt").touch()
    if lack == "folder":
        del folders["coronal"]
    elif lack == "checkpoint":
        next((tmp_path / "coronal").iterdir()).unlink()
    else:
        folders["coronal"] = str(tmp_path / "nowhere")
    assert refusal(load_planes, network, folders) == (
        "no checkpoint of expert 'coronal': run train_planes.json --planes coronal first"
    )


def small_denoiser() -> PlaneDenoiser:
    return PlaneDenoiser(channels=(8, 16), stem=2, norm_num_groups=4, num_head_channels=8)


def test_start_expert_from_a_checkpoint(tmp_path):
    denoiser = small_denoiser()
    start_expert(denoiser, checkpoint(tmp_path, denoiser, 0.25), "axial")
    assert all((value == 0.25).all() for value in denoiser.state_dict().values())


@pytest.mark.parametrize("planes", ["coronal", ["sagittal"], ["axial", "sagittal"]], ids=str)
def test_start_expert_from_a_bundle(saved, tiny_ensembler, planes):
    denoiser, source = small_denoiser(), tiny_ensembler()
    start_expert(denoiser, saved, planes)
    chosen = [
        source.bank.experts[PLANES.index(p)].state_dict()
        for p in ([planes] if planes == "coronal" else planes)
    ]
    for name, value in denoiser.state_dict().items():
        expected = torch.stack([state[name] for state in chosen]).mean(dim=0)
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-3)


def test_start_expert_says_what_does_not_fit(saved):
    line = refusal(
        start_expert, PlaneDenoiser(channels=(8,), norm_num_groups=4, num_head_channels=8), saved, "axial"
    )
    assert line.startswith(f"{saved} does not fit this expert: ")
