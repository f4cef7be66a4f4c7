"""Windows tile the volume, keep to their size, and give what the whole gives."""

import math

import pytest
import torch
from denoisers import predict

from monai_diffens.networks.windows import receptive_halo, split


@pytest.mark.parametrize("shape", [(64, 64, 64), (37, 90, 41), (5, 6, 7), (192, 192, 152)], ids=str)
@pytest.mark.parametrize("max_voxels", [40**3, 70**3, 10**9])
@pytest.mark.parametrize("at_least", [1, 2, 3])
def test_cores_tile_the_volume_and_windows_keep_to_their_size(shape, max_voxels, at_least):
    halo, divisor = 8, 4
    windows = split(shape, max_voxels, halo, divisor, at_least)
    seen = torch.zeros(shape)
    for core, padded, inner in windows:
        seen[core] += 1
        assert all(
            c.start % divisor == 0 and p.start % divisor == 0 for c, p in zip(core, padded, strict=True)
        )
        for side, c, p, i in zip(shape, core, padded, inner, strict=True):
            assert p.start == max(0, c.start - halo) and p.stop == min(side, c.stop + halo)
            assert (p.start + i.start, p.start + i.stop) == (c.start, c.stop)
        if max_voxels >= 40**3 and at_least == 1:
            assert math.prod(p.stop - p.start for p in padded) <= max_voxels
    assert (seen == 1).all()
    if min(shape) > 12:
        assert len(windows) >= at_least
    if max_voxels == 10**9 and at_least == 1:
        assert len(windows) == 1


def test_the_smallest_windows_are_taken_where_none_fits():
    assert len(split((64, 64, 64), 1, 8, 4)) == 16**3


@pytest.mark.parametrize("channels", [(8,), (8, 16), (4, 8, 8)], ids=str)
def test_no_voxel_beyond_the_halo_is_read_and_the_last_one_is(tiny_ensembler, channels):
    network = tiny_ensembler(calibrator_channels=channels)
    calibrator = network.calibrator
    halo, stride = receptive_halo(calibrator.level_strides), calibrator.divisor
    side = stride * math.ceil((2 * halo + 3 * stride) / stride)
    x = torch.rand(1, 1, side, stride, stride, requires_grad=True)
    conditions, predictions = torch.rand(1, 1, side, stride, stride), torch.rand(1, 3, side, stride, stride)
    present = torch.ones(1, 3, dtype=torch.bool)
    weights, bias = calibrator(x, conditions, predictions, torch.tensor([500]), present)
    core = slice(halo + stride, halo + 2 * stride)
    (bias[:, :, core].sum() + weights[:, 0, core].sum()).backward()
    touched = torch.nonzero(x.grad.abs().sum(dim=(0, 1, 3, 4)))[:, 0]
    assert int(touched.min()) >= core.start - halo and int(touched.max()) < core.stop + halo
    assert int(touched.min()) < core.start - halo + stride  # no wider than alignment asks for


def test_fusion_in_windows_is_the_fusion_of_the_whole(tiny_ensembler, monkeypatch):
    network = tiny_ensembler()
    shape = (70, 24, 22)
    x_t, conditions = torch.randn(1, 1, *shape), torch.rand(1, 1, *shape)
    sizes = []
    run = network.calibrator.forward

    def counted(x, *arguments):
        sizes.append(x.shape[2:].numel())
        return run(x, *arguments)

    monkeypatch.setattr(network.calibrator, "forward", counted)
    expected = predict(network, x_t, conditions, torch.tensor([700]))
    network.window_voxels = 60 * 24 * 22
    parts = predict(network, x_t, conditions, torch.tensor([700]))
    network.keep_weights = False
    alone = predict(network, x_t, conditions, torch.tensor([700]))
    assert sizes[0] == x_t.numel() and len(sizes) == 1 + 2 * 2
    assert max(sizes[1:]) <= network.window_voxels
    for whole, part in zip(expected, parts, strict=True):
        torch.testing.assert_close(part, whole, rtol=0, atol=2e-5)
    assert torch.equal(alone.prediction, parts.prediction)
    assert alone.weights.numel() == 1
