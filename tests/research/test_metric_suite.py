"""volume_metrics: the numbers in the tables, against skimage and against the single metrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import MultiScaleSSIMMetric
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from monai_diffens.metrics import MaskedPSNRMetric, MaskedSSIMMetric, gaussian_smooth
from research.metrics.detail import MS_SSIM_WEIGHTS
from research.metrics.hfen import HFENMetric
from research.metrics.inter_slice import InterSliceErrorMetric
from research.metrics.sharpness import SharpnessRatioMetric
from research.metrics.suite import volume_metrics

KEYS = ["psnr", "psnr_brain", "ssim", "ssim_brain", "hfen", "inter_slice", "sharpness"]
BRAIN_KEYS = KEYS[1:2] + KEYS[3:]


def test_equal_volumes(truth, ball):
    values = volume_metrics(truth, truth, ball, 1.0)
    assert list(values) == KEYS
    assert all(type(value) is float for value in values.values())
    assert list(values.values()) == pytest.approx([math.inf, math.inf, 1, 1, 0, 0, 1], abs=1e-9)


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (320.0, 0.0), (1.0, 1000.0)])
def test_psnr_and_ssim_are_skimages(truth, pred, ball, scale, offset):
    # float32 volumes far from zero are where single-precision variances would break.
    p, t = pred * scale + offset, truth * scale + offset
    a, b = t.double().numpy(), p.double().numpy()
    values = volume_metrics(p, t, ball, scale)
    assert values["psnr"] == pytest.approx(peak_signal_noise_ratio(a, b, data_range=scale), rel=1e-6)
    options = {"data_range": scale, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    ssim = structural_similarity(a, b, **options)
    assert values["ssim"] == pytest.approx(ssim, abs=1e-6)
    inside = np.where(ball.numpy(), b, a)
    _, full = structural_similarity(a, inside, full=True, **options)
    assert values["ssim_brain"] == pytest.approx(full[ball.numpy()].mean(), abs=1e-6)


def test_it_agrees_with_the_single_metrics(truth, pred, ball):
    brain = torch.where(ball, pred, truth)
    single = {
        "psnr_brain": MaskedPSNRMetric(1.0),
        "ssim_brain": MaskedSSIMMetric(1.0),
        "hfen": HFENMetric(),
        "inter_slice": InterSliceErrorMetric(),
        "sharpness": SharpnessRatioMetric(),
    }
    values = volume_metrics(pred, truth, ball, 1.0)
    for name, metric in single.items():
        value = metric(brain[None, None], truth[None, None], mask=ball[None, None]).item()
        assert values[name] == pytest.approx(value, rel=1e-5)


def test_what_lies_outside_the_mask_moves_no_brain_figure(truth, pred, ball):
    values = volume_metrics(pred, truth, ball, 1.0)
    masked = volume_metrics(pred * ball, truth, ball.float(), 1.0)
    assert [masked[key] for key in BRAIN_KEYS] == [values[key] for key in BRAIN_KEYS]
    assert masked["psnr"] != pytest.approx(values["psnr"])
    assert masked["ssim"] != pytest.approx(values["ssim"])


def test_integers_are_measured_in_double(truth, pred, ball):
    p, t = (pred * 1000).round(), (truth * 1000).round()
    exact = volume_metrics(p.double(), t.double(), ball, 1000)
    assert volume_metrics(p.to(torch.int16), t.to(torch.int16), ball, 1000) == exact


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pred": torch.rand(26, 31, 22)}, "one shape"),
        ({"pred": torch.rand(1, 26, 31, 23)}, "one shape"),
        ({"mask": torch.ones(26, 31, 22)}, "mask must have the shape"),
        ({"mask": torch.zeros(26, 31, 23)}, "mask is empty"),
        ({"data_range": 0.0}, "data_range must be a positive number"),
        ({"pred": torch.full((26, 31, 23), float("inf"))}, "pred holds NaN or infinite"),
        ({"truth": torch.ones(26, 31, 23)}, "truth is flat"),
    ],
)
def test_wrong_inputs_raise_one_clear_line(truth, pred, ball, change, message):
    with pytest.raises(ValueError, match=message) as caught:
        volume_metrics(**{"pred": pred, "truth": truth, "mask": ball, "data_range": 1.0, **change})
    assert "\n" not in str(caught.value)


def test_a_volume_smaller_than_the_window_is_refused(truth):
    small = truth[:, :10]
    with pytest.raises(ValueError, match="each side must have 11 voxels"):
        volume_metrics(small, small, torch.ones_like(small), 1.0)


def test_ms_ssim_is_monais_of_three_scales_where_it_fits():
    generator = torch.Generator().manual_seed(0)
    t = gaussian_smooth(torch.rand(44, 47, 50, generator=generator, dtype=torch.double), 1.0, 4)
    p = t + 0.2 * torch.rand(t.shape, generator=generator)
    weights = torch.tensor(MS_SSIM_WEIGHTS)
    reference = MultiScaleSSIMMetric(3, data_range=1.0, weights=(weights / weights.sum()).tolist())
    value = volume_metrics(p, t, torch.ones_like(t), 1.0)["ms_ssim"]
    assert value == pytest.approx(float(reference(p[None, None].float(), t[None, None].float())), abs=1e-4)
    assert 0 < value < 0.99 and volume_metrics(t, t, torch.ones_like(t), 1.0)["ms_ssim"] == 1
    assert "ms_ssim" not in volume_metrics(p[:43], t[:43], torch.ones_like(t[:43]), 1.0)


def test_sharpness_along_the_axes_asked_for():
    """Steps from slice to slice are detail along that axis, and none in the slices."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(16, 17, 40, generator=generator) + 0.5
    pred, mask = truth + torch.rand(40, generator=generator), torch.ones(truth.shape)
    slices, across, whole = (
        volume_metrics(pred, truth, mask, 2.0, axes)["sharpness"] for axes in ((0, 1), (2,), (0, 1, 2))
    )
    assert slices == pytest.approx(1, abs=1e-6)
    assert min(across, whole) > 1.1
