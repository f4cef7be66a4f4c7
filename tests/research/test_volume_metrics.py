"""Each metric by known answers, and through MONAI's interface."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.handlers.ignite_metric import IgniteMetricHandler
from monai.metrics import PSNRMetric, SSIMMetric
from scipy import ndimage

from monai_diffens.metrics import MaskedPSNRMetric, MaskedSSIMMetric
from research.metrics.hfen import HFENMetric
from research.metrics.inter_slice import InterSliceErrorMetric
from research.metrics.sharpness import SharpnessRatioMetric

METRICS = {
    "hfen": (HFENMetric, {}),
    "sharpness": (SharpnessRatioMetric, {}),
    "inter_slice": (InterSliceErrorMetric, {}),
    "psnr": (MaskedPSNRMetric, {"data_range": 1.0}),
    "ssim": (MaskedSSIMMetric, {"data_range": 1.0}),
}
PERFECT = {"hfen": 0.0, "sharpness": 1.0, "inter_slice": 0.0, "psnr": float("inf"), "ssim": 1.0}
every_metric = pytest.mark.parametrize("name", list(METRICS))


def make(name: str, **kwargs):
    """Build a metric by its short name."""
    cls, required = METRICS[name]
    return cls(**required, **kwargs)


def measure(metric, pred: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor | None = None) -> float:
    """Run a metric on one pair of (X, Y, Z) volumes."""
    if mask is not None:
        mask = mask[None, None]
    return metric(pred[None, None], truth[None, None], mask=mask).item()


@every_metric
def test_equal_volumes_score_perfectly(name, truth, ball):
    assert measure(make(name), truth, truth.clone(), ball) == pytest.approx(PERFECT[name], abs=1e-6)


def test_blur_lowers_sharpness_as_scipy_computes_it(truth, pred, ball):
    log_pred, log_truth = (ndimage.gaussian_laplace(v.numpy().astype(np.float64), 1.0) for v in (pred, truth))
    inside = ball.numpy()
    expected = log_pred[inside].std() / log_truth[inside].std()
    value = measure(SharpnessRatioMetric(), pred, truth, ball)
    assert value == pytest.approx(expected, rel=1e-6)
    assert value < 0.7
    assert measure(SharpnessRatioMetric(), pred, truth) == pytest.approx(
        log_pred.std() / log_truth.std(), rel=1e-6
    )


def test_hfen_is_scipys(truth, pred, ball):
    log_pred, log_truth = (ndimage.gaussian_laplace(v.numpy().astype(np.float64), 1.5) for v in (pred, truth))
    for mask, inside in ((None, np.ones_like(ball.numpy())), (ball, ball.numpy())):
        error = np.linalg.norm((log_pred - log_truth)[inside]) / np.linalg.norm(log_truth[inside])
        assert measure(HFENMetric(), pred, truth, mask) == pytest.approx(error, rel=1e-6)


def test_hfen_of_a_flat_prediction_is_one(truth):
    assert measure(HFENMetric(), torch.zeros_like(truth), truth) == pytest.approx(1.0)


def test_jitter_of_slices_raises_inter_slice_error_by_its_own_axis(truth):
    offsets = 0.2 * (torch.arange(truth.shape[2]) % 2)
    value = measure(InterSliceErrorMetric(), truth + offsets, truth)
    # Every step along axis 2 is wrong by 0.2; along the other two axes none is.
    expected = 0.2 / truth.diff(dim=2).abs().mean().item() / 3
    assert value == pytest.approx(expected, rel=1e-4)


def test_inter_slice_error_ignores_an_offset_and_calls_a_flat_prediction_one(truth):
    assert measure(InterSliceErrorMetric(), truth + 0.5, truth) == pytest.approx(0.0, abs=1e-5)
    assert measure(InterSliceErrorMetric(), torch.zeros_like(truth), truth) == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["inter_slice", "psnr"])
def test_voxel_metrics_see_nothing_outside_the_mask(name, truth, pred, ball):
    spoiled = torch.where(ball, pred, torch.full_like(pred, 50.0))
    assert measure(make(name), spoiled, truth, ball) == measure(make(name), pred, truth, ball)


@pytest.mark.parametrize(("name", "reach"), [("hfen", 6), ("sharpness", 4), ("ssim", 5)])
def test_window_metrics_see_no_further_than_their_window(name, reach, truth, pred):
    mask = torch.zeros_like(truth, dtype=torch.bool)
    mask[11:15, 13:18, 10:13] = True
    far = ndimage.distance_transform_cdt(~mask.numpy(), metric="chessboard") > reach
    spoiled = torch.where(torch.from_numpy(far), torch.full_like(pred, 50.0), pred)
    value = measure(make(name), pred, truth, mask)
    assert measure(make(name), spoiled, truth, mask) == pytest.approx(value, rel=1e-5)
    assert value != pytest.approx(measure(make(name), pred, truth, torch.ones_like(mask)), rel=1e-3)


def test_masked_psnr_is_the_formula(truth, pred, ball):
    mse = ((pred - truth)[ball].double() ** 2).mean().item()
    value = measure(MaskedPSNRMetric(data_range=2.0), pred, truth, ball)
    assert value == pytest.approx(10 * np.log10(4 / mse), rel=1e-6)


def test_whole_box_masks_give_monais_psnr_and_ssim(truth, pred):
    batch = (pred[None, None], truth[None, None])
    interior = torch.zeros_like(truth)
    interior[5:-5, 5:-5, 5:-5] = 1
    whole = torch.ones_like(truth)
    psnr, ssim = PSNRMetric(1.0)(*batch).item(), SSIMMetric(3, data_range=1.0)(*batch).item()
    assert measure(MaskedPSNRMetric(1.0), pred, truth, whole) == pytest.approx(psnr, rel=1e-5)
    assert measure(MaskedSSIMMetric(1.0), pred, truth, interior) == pytest.approx(ssim, abs=1e-5)


@every_metric
def test_batches_lists_channels_aggregate_and_reset(name, truth, pred, ball):
    metric = make(name)
    noisy = truth + 0.1 * torch.rand(truth.shape, generator=torch.Generator().manual_seed(0))
    single = [measure(make(name), p, truth, ball) for p in (pred, noisy)]
    y_pred, y = torch.stack([pred, noisy])[:, None], torch.stack([truth, truth])[:, None]
    mask = ball.expand(2, 1, *ball.shape)
    assert metric(y_pred, y, mask=mask).shape == (2, 1)
    assert metric(list(y_pred), list(y), mask=list(mask)).flatten().tolist() == pytest.approx(single)
    assert metric.get_buffer().flatten().tolist() == pytest.approx(single * 2)
    assert metric.aggregate().item() == pytest.approx(np.mean(single))
    metric.reset()
    assert metric(y_pred.movedim(0, 1), y.movedim(0, 1), mask=mask[:1]).shape == (1, 2)
    assert metric.aggregate("none").tolist() == [pytest.approx(single)]


@every_metric
def test_ignite_handler_masks_by_background(name, truth, pred, ball):
    y, y_pred = truth * ball, pred * ball
    handler = IgniteMetricHandler(make(name, background=0.0), save_details=False)
    handler.update(([MetaTensor(y_pred[None])], [MetaTensor(y[None])]))
    assert handler.compute() == pytest.approx(measure(make(name), y_pred, y, y > 0), rel=1e-6)


@every_metric
def test_wrong_inputs_raise_one_clear_line(name, truth, pred, ball):
    batch, mask = truth[None, None], ball[None, None]
    broken = batch.clone()
    broken[0, 0, 3, 3, 3] = float("nan")
    cases = [
        ((batch[..., :-1], batch, mask), "one shape"),
        ((truth, truth, mask), "one shape"),
        ((batch, None, mask), "must be tensors"),
        ((batch, batch, ball), "does not fit"),
        ((batch, batch, mask[..., :-1]), "does not fit"),
        ((batch, batch, torch.zeros_like(mask)), "mask is empty"),
        ((broken, batch, mask), "pred holds NaN"),
        ((batch, broken, mask), "truth holds NaN"),
        (([batch[0]] * 2, [batch[0]], None), "same length"),
    ]
    for (y_pred, y, m), message in cases:
        with pytest.raises(ValueError, match=message) as caught:
            make(name)(y_pred, y, mask=m)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["hfen", "sharpness", "inter_slice"])
@pytest.mark.parametrize("level", [0.0, 0.7, 1e4])
def test_a_flat_truth_is_refused(name, level, pred):
    with pytest.raises(ValueError, match=r"truth is flat|truth does not vary"):
        measure(make(name), pred, torch.full_like(pred, level))


def test_a_mask_one_voxel_thin_has_no_steps(truth, pred):
    mask = torch.zeros_like(truth)
    mask[:, 10] = 1
    with pytest.raises(ValueError, match="no two neighbouring voxels along axis 1"):
        measure(InterSliceErrorMetric(), pred, truth, mask)


@pytest.mark.parametrize("cls", [MaskedPSNRMetric, MaskedSSIMMetric])
def test_masked_metrics_want_a_mask_and_a_range(cls, truth):
    for data_range in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="data_range must be a positive number"):
            cls(data_range=data_range)
    with pytest.raises(ValueError, match="needs a mask"):
        measure(cls(data_range=1.0), truth, truth)
