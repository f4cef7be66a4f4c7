"""FID and MMD on patches: what they rise with, what they do not depend on, and which encoder is taken."""

from __future__ import annotations

import shutil

import pytest
import torch

from monai_diffens.messages import BundleRejected
from monai_diffens.metrics import gaussian_smooth
from research.realism.patch_encoder import PATCH_SIZE, PatchEncoder
from research.realism.patches import cut_patches, patch_corners, spread_evenly
from research.realism.realism import ENCODER_FILE, GaussianKernelFeatures, PatchRealism, patch_realism

SIZE = (72, 64, 72)


@pytest.fixture(scope="module")
def head() -> torch.Tensor:
    """A ball of smooth tissue with folds and a little noise, 0 outside."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, *SIZE, generator=generator)
    broad, fine = (gaussian_smooth(noise[i], s, 8) for i, s in enumerate((3.0, 1.2)))
    tissue = 0.5 + 0.15 * torch.sign(broad) + 0.05 * fine / fine.std() + 0.01 * noise[2]
    grid = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SIZE), indexing="ij")
    return gaussian_smooth(tissue, 0.5, 3).clamp(min=0.05) * (sum(axis**2 for axis in grid) < 0.9)


@pytest.fixture(scope="module")
def realism() -> PatchRealism:
    return patch_realism()


def figures(realism: PatchRealism, results: list[torch.Tensor], truth: torch.Tensor) -> list[dict]:
    return [realism(result, truth, truth > 0) for result in results]


def test_equal_volumes_are_equal(realism, head):
    values = realism(head, head, head > 0)
    assert values == pytest.approx({"fid": 0, "mmd": 0}, abs=0.02) and values["mmd"] <= 0


def test_they_rise_with_blur_and_with_noise(realism, head):
    noise = torch.randn(SIZE, generator=torch.Generator().manual_seed(1))
    blurred = [head, *(gaussian_smooth(head, sigma, 6) for sigma in (0.4, 0.7, 1.2))]
    noisy = [head, *(head + std * noise for std in (0.01, 0.02, 0.05))]
    for results in (blurred, noisy):
        found = figures(realism, results, head)
        for metric in ("fid", "mmd"):
            values = [each[metric] for each in found]
            assert values == sorted(values) and values[-1] > 0.1


def test_a_sharp_guess_is_more_real_than_the_mean_of_the_guesses(realism, head):
    coarse = gaussian_smooth(head, 1.0, 5)
    detail = head - coarse
    guesses = [coarse + detail.flip(axis) for axis in range(3)]  # detail of other places
    mean = torch.stack(guesses).mean(dim=0)
    sharp, smooth = figures(realism, [guesses[0], mean], head)
    error = [(each - head)[head > 0].square().mean() for each in (guesses[0], mean)]
    assert error[1] < error[0]  # which the error sees the other way round
    assert smooth["fid"] > 1.2 * sharp["fid"] and smooth["mmd"] > sharp["mmd"]


def test_neither_outside_nor_the_order_of_patches_counts(realism, head):
    blurred, inside = gaussian_smooth(head, 0.7, 4), head > 0
    expected = realism(blurred, head, inside)
    assert realism(torch.where(inside, blurred, 0.3), head, inside) == expected
    shuffled = patch_realism()
    shuffled(head, head, inside)
    shuffled._corners = shuffled._corners[torch.randperm(len(shuffled._corners))]
    assert shuffled(blurred, head, inside) == pytest.approx(expected, rel=1e-5)


def test_the_truth_is_seen_anew_when_it_changes(head):
    kept, blurred = patch_realism(), gaussian_smooth(head, 0.7, 4)
    first = kept(blurred, head, head > 0)
    assert kept(head, blurred, head > 0)["fid"] > 1
    assert kept(blurred, blurred, head > 0)["fid"] == pytest.approx(0, abs=1e-6)
    assert kept(blurred, head, head > 0) == first


def test_too_few_patches_give_no_figure(realism, head):
    for box in (head[:20], head[20:52, 20:52, 20:52]):
        assert realism(box, box, box > 0) == {}


def test_patches_lie_on_the_grid_inside():
    inside = torch.zeros(40, 40, 40, dtype=torch.bool)
    inside[:, :, :20] = True
    corners = patch_corners(inside, 16, 8)
    assert corners.shape == (4 * 4 * 2, 3) and corners[:, 2].max() == 8  # 12 of 16 inside, not 4
    assert torch.equal(spread_evenly(corners, 3), corners[[0, 16, 31]])
    volume = torch.arange(40**3).reshape(40, 40, 40)
    x, y, z = corners[5].tolist()
    assert torch.equal(cut_patches(volume, corners, 16)[5, 0], volume[x : x + 16, y : y + 16, z : z + 16])


def test_random_features_are_of_a_gaussian_kernel():
    points = torch.randn(40, 64, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    mapped = GaussianKernelFeatures(64)(points)
    kernel = torch.exp(-(torch.cdist(points, points) ** 2) / (2 * 2 * 64))
    assert torch.allclose(mapped @ mapped.T, kernel, atol=0.12)
    assert torch.allclose((mapped**2).sum(dim=1), torch.ones(40, dtype=torch.double))


def test_a_changed_encoder_is_not_loaded(tmp_path, realism, head):
    for name in (ENCODER_FILE.name, f"{ENCODER_FILE.name}.sha256"):
        shutil.copy(ENCODER_FILE.with_name(name), tmp_path)
    file = tmp_path / ENCODER_FILE.name
    blurred = gaussian_smooth(head, 1.0, 4)
    assert patch_realism(file)(blurred, head, head > 0) == realism(blurred, head, head > 0)
    content = bytearray(file.read_bytes())
    content[-500] ^= 1
    file.write_bytes(content)
    with pytest.raises(BundleRejected, match="does not match"):
        patch_realism(file)


def test_another_encoder_or_none(tmp_path, head):
    assert patch_realism(None) is None
    own = PatchEncoder((4, 4, 4, 8)).eval()
    example = torch.rand(2, 1, *[PATCH_SIZE] * 3)
    torch.jit.trace(own, example).save(tmp_path / "other.ts")
    blurred = gaussian_smooth(head, 1.0, 4)
    expected = PatchRealism(own)(blurred, head, head > 0)
    found = patch_realism(tmp_path / "other.ts")(blurred, head, head > 0)
    assert found == pytest.approx(expected, rel=1e-4) and found["fid"] > 0
    (tmp_path / "other.ts").write_bytes(b"no archive")
    for name in ("other.ts", "missing.ts"):
        with pytest.raises(SystemExit, match="no encoder in TorchScript"):
            patch_realism(tmp_path / name)
