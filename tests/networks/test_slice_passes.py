"""Slices are cropped to what they show, run once each, and only their place decides how."""

import math
from itertools import pairwise

import pytest
import torch

from monai_diffens.acquisition.slicing import PATCH_GRID, PLANES, in_plane_axes, plane_axis
from monai_diffens.files import case_of
from monai_diffens.inferers.case_denoiser import foreground_box
from monai_diffens.inferers.inferer import DiffEnsemblerInferer
from monai_diffens.networks.expert_bank import BLOCK, MARGIN, crop_slices, slice_boxes, slice_passes
from monai_diffens.schedulers.arithmetic import to_clean
from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler
from monai_diffens.target import RESIDUAL_SCALE

SHAPE = (70, 90, 51)
STEP = torch.tensor([600])


def ball(shape=SHAPE, radius: float = 0.7) -> torch.Tensor:
    """A ball of tissue on 0, (1, 1, X, Y, Z)."""
    axes = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in shape), indexing="ij")
    inside = sum(axis**2 for axis in axes) < radius**2
    return (inside * (0.2 + torch.rand(shape, generator=torch.Generator().manual_seed(0))))[None, None]


def cut(plane: str, chunk: int, shares: int = 1, volumes: int = 1) -> list[list[list[int]]]:
    """The passes of all processes over a batch of balls."""
    boxes = slice_boxes(torch.cat([ball() > 0] * volumes), plane)
    count, size = SHAPE[plane_axis(plane)], [SHAPE[axis] for axis in in_plane_axes(plane)]
    total = volumes * count
    return [
        each
        for rank in range(shares)
        for each in slice_passes(
            total * rank // shares, total * (rank + 1) // shares, count, size, chunk, boxes
        )
    ]


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize(("chunk", "shares", "volumes"), [(8, 1, 1), (3, 1, 2), (100, 2, 1), (16, 3, 2)])
def test_all_that_is_seen_is_run_once(plane, chunk, shares, volumes):
    seen = torch.cat([ball() > 0] * volumes)
    runs = torch.zeros(seen.shape)
    stack = runs.movedim(2 + plane_axis(plane), 1).flatten(0, 1)
    for parts in cut(plane, chunk, shares, volumes):
        assert 0 < sum(part[1] - part[0] for part in parts) <= chunk
        assert len({(part[3] - part[2], part[5] - part[4]) for part in parts}) == 1
        assert all(one[1] == other[0] for one, other in pairwise(parts))
        for first, end, row, row_end, column, column_end in parts:
            assert row % PATCH_GRID == column % PATCH_GRID == 0
            stack[first:end, :, row:row_end, column:column_end] += 1
    count = SHAPE[plane_axis(plane)]
    runs = stack.unflatten(0, (volumes, count)).movedim(1, 2 + plane_axis(plane))
    assert (runs[seen] == 1).all() and runs.max() == 1
    assert runs.mean() < 0.75  # the ball fills 18 % of its scan, a third of its box


def test_a_box_keeps_its_margin_and_neither_chunk_nor_process_changes_it():
    seen = torch.zeros(1, 1, 100, 100, 20, dtype=torch.bool)
    seen[..., 30:40, 50:91, 3:14] = True
    boxes = slice_boxes(seen, "axial")
    assert len(boxes) == math.ceil(20 / BLOCK)
    row, row_end, column, column_end = boxes[0]
    assert (
        row <= 30 - MARGIN and row_end >= 40 + MARGIN and column <= 50 - MARGIN and column_end >= 91 + MARGIN
    )
    assert boxes[1] == boxes[0] and boxes[2] == [0, 0, 0, 0]

    def by_slice(passes):
        return {n: part[2:] for parts in passes for part in parts for n in range(part[0], part[1])}

    assert by_slice(cut("coronal", 8)) == by_slice(cut("coronal", 3, 2)) == by_slice(cut("coronal", 50))


def test_without_boxes_whole_slices_are_run():
    assert slice_passes(2, 9, 20, [30, 40], 4, None) == [[[2, 6, 0, 30, 0, 40]], [[6, 9, 0, 30, 0, 40]]]


def test_a_crop_is_what_the_expert_says_of_it_and_the_rest_is_given(tiny_ensembler):
    conditions = ("t1", "flair")
    bank = tiny_ensembler(conditions=conditions).bank
    shape = (46, 58, 35)  # air in the corners, and two blocks along every axis
    volumes, x_t = ball(shape).repeat(1, len(conditions), 1, 1, 1), torch.randn(1, 1, *shape)
    boxes = [slice_boxes(volumes[:, :1] > 0, plane) for plane in bank.planes]
    with torch.no_grad():
        predictions = bank(x_t, volumes, STEP, None, boxes, 7.0)
        for plane in range(3):
            name, expert = bank.planes[plane], plane * len(conditions)
            count, size = shape[plane_axis(name)], [shape[axis] for axis in in_plane_axes(name)]
            untouched = torch.ones(1, 1, *shape, dtype=torch.bool)
            for (part,) in slice_passes(0, count, count, size, BLOCK, boxes[plane]):
                crops = [crop_slices(volume, name, part) for volume in (x_t, volumes)]
                expected = bank(*crops, STEP)[:, expert].movedim(1 + plane_axis(name), 1)[
                    :, part[0] : part[1]
                ]
                result = crop_slices(predictions[:, expert : expert + 1], name, part)[:, 0]
                result = result.movedim(1 + plane_axis(name), 1)[:, part[0] : part[1]]
                torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)
                here = crop_slices(untouched, name, part)
                here.movedim(2 + plane_axis(name), 2)[:, :, part[0] : part[1]] = False
            assert untouched.any()
            assert (predictions[:, expert : expert + 1][untouched] == 7 * x_t[untouched]).all()


@pytest.mark.parametrize("num_steps", [1, 3])
def test_the_inferer_crops_and_leaves_air_to_the_base(tiny_ensembler, num_steps):
    network, sizes = tiny_ensembler(), []
    run = network.bank.experts[2].predict_runs

    def counted(slices, *arguments):
        sizes.extend(each.numel() for each in slices)
        return run(slices, *arguments)

    network.bank.experts[2].predict_runs = counted
    scan = ball()
    options = {"restart": None, "progress": False, "amp": False, "fusion": "sagittal"}
    result = DiffEnsemblerInferer.of(TrailingDDIMScheduler(), num_steps=num_steps, **options)(scan, network)
    assert 0 < sum(sizes) < 0.8 * num_steps * scan.numel()
    air = torch.nn.functional.max_pool3d((scan > 0).float(), 9, 1, 4) == 0
    corner = torch.zeros_like(air)
    corner[..., :8, :12, :8] = True  # in no block's box
    assert corner[air].any() and result[corner & air].abs().max() < 1e-6
    assert (result - scan)[scan > 0].abs().mean() > 0.01


def test_the_inferer_runs_whole_slices_where_it_is_told_to(tiny_ensembler):
    network, scan, scheduler = tiny_ensembler(), ball((46, 58, 35)), TrailingDDIMScheduler()
    options = {"restart": None, "progress": False, "amp": False}
    inferer = DiffEnsemblerInferer.of(scheduler, **options, crop_slices=False)
    noise_of = torch.Generator().manual_seed(inferer.seed_of(case_of({}), 0))
    box = foreground_box(scan, inferer.run_time.margin)
    condition = scan[(..., *box)]
    x_t, t = torch.randn(condition.shape, generator=noise_of), scheduler.num_train_timesteps - 1
    with torch.no_grad():
        prediction = network(torch.cat([x_t, condition], dim=1), torch.tensor([t]))
    clean = to_clean(prediction, x_t, float(scheduler.alphas_cumprod[t]), "v_prediction")
    expected = condition + RESIDUAL_SCALE * clean
    torch.testing.assert_close(inferer(scan, network)[(..., *box)], expected, rtol=0, atol=1e-5)
    cropped = DiffEnsemblerInferer.of(scheduler, **options)(scan, network)[(..., *box)]
    assert (cropped - expected).abs().mean() > 1e-4
