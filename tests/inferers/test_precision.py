"""bf16 where the processor computes in it, for any inferer, and float32 comes back."""

from pathlib import Path

import pytest
import torch
from monai.inferers import SimpleInferer

from monai_diffens.engines.plane_training import AutocastInferer

CONFIGS = sorted((Path(__file__).parents[2] / "bundles").glob("*/configs/train*.json"))


class Notes(torch.nn.Module):
    """A convolution that notes what it computed in."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 1, 3, padding=1)
        self.seen: list[torch.dtype] = []

    def forward(self, x: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
        result = self.conv(x) * gain
        self.seen.append(result.dtype)
        return result


@pytest.mark.parametrize("has_it", [True, False])
@pytest.mark.parametrize("amp", [True, False, "auto"])
def test_a_network_computes_in_bf16_and_answers_in_float32(amp, has_it, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_it)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    network, x = Notes(), torch.rand(1, 1, 8, 8)
    result = AutocastInferer(SimpleInferer(), amp)(x, network, gain=2.0)
    used = has_it if amp == "auto" else amp
    assert network.seen == [torch.bfloat16 if used else torch.float32]
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, network(x, gain=2.0), rtol=0.02 * used, atol=0.02 * used)
    result.sum().backward()
    assert network.conv.weight.grad.dtype == torch.float32 and network.conv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parents[1].name}/{path.stem}")
def test_only_2d_networks_are_trained_in_bf16(path):
    """A processor's bf16 gradients of small 3D convolutions cannot be relied on, see AutocastInferer."""
    assert ("AutocastInferer" in path.read_text(encoding="utf-8")) == (path.stem == "train_planes")
