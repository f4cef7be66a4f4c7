"""What is a stripped brain, what is a head, and what is done with either."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_diffens.messages import InputRejected, say
from monai_diffens.transforms import brain_mask
from monai_diffens.transforms.brain_mask import (
    BRAIN_KEY,
    FACTS_KEY,
    HEAD_KEY,
    BrainMaskd,
    BrainNotFound,
    Found,
    PlaceBrainMaskd,
    find_brain,
    is_cut,
    is_stripped,
)
from monai_diffens.transforms.intensity import SCALE_KEY, ScaleForegroundPercentiled
from monai_diffens.transforms.registration import Scan

STEP = 4.0  # mm; coarse, to be quick


def ball(*radii: float) -> np.ndarray:
    places = np.stack(np.meshgrid(*[np.arange(-126.0, 127, STEP)] * 3, indexing="ij"))
    return np.square(places / np.array(radii)[:, None, None, None]).sum(0) < 1


BRAIN, SKIN = ball(68, 84, 64), ball(80, 100, 90)


def head(noise: float = 5.0) -> Scan:
    """Brain of 100, bone of 10, scalp of 400, air of noise."""
    bone = ball(72, 90, 76)
    values = np.where(BRAIN, 100, np.where(bone, 10, np.where(SKIN, 400, 0))).astype(np.float32)
    values += np.abs(np.random.default_rng(0).normal(size=values.shape)) * noise
    return Scan(values, nib.affines.from_matvec(np.eye(3) * STEP, [-126.0] * 3))


def tensor(scan: Scan) -> MetaTensor:
    return MetaTensor(torch.from_numpy(scan.values)[None], affine=torch.as_tensor(scan.affine))


@pytest.fixture
def finder(monkeypatch):
    """A finder that knows the brain, in place of the network."""

    def finds(scan):
        return Found(BRAIN, brain_mask.cubic_centimetres(BRAIN, scan), cut=False)

    monkeypatch.setattr(brain_mask, "find_brain", finds)
    monkeypatch.setattr(brain_mask, "version", lambda _: "1")


@pytest.mark.parametrize(
    ("values", "stripped"),
    [
        (head().values * BRAIN, True),
        (head().values, False),
        (head(0).values, False),  # a head with zeros for air
        (np.roll(head().values * BRAIN, 10, 2), True),  # cut off by the volume
        (head().values * 0 + 1, False),
        (np.clip(head().values * BRAIN - 60, None, None) * BRAIN, True),  # negative voxels are no background
    ],
)
def test_a_stripped_scan_is_told_by_its_zeros_and_its_size(values, stripped):
    assert is_stripped(Scan(values.astype(np.float32), head().affine)) is stripped


def test_axes_in_any_order_are_told_apart():
    turned = Scan(np.moveaxis(head().values * ball(80, 100, 60), 1, 2), head().affine[:, [0, 2, 1, 3]])
    upright = Scan(head().values * ball(80, 100, 60), head().affine)
    assert is_stripped(turned) is is_stripped(upright)


def test_a_stripped_scan_passes_untouched(finder):
    stripped = tensor(Scan(head().values * BRAIN, head().affine))
    for keeps in (True, False):
        done = BrainMaskd("image", keeps_head=keeps)({"image": stripped})
        assert done["image"] is stripped and not {BRAIN_KEY, FACTS_KEY, HEAD_KEY} & set(done)


def test_super_resolution_keeps_the_head_and_scales_by_the_brain(finder):
    done = BrainMaskd("image", keeps_head=True)({"image": tensor(head())})
    assert torch.equal(done["image"].as_tensor(), tensor(head()).as_tensor())
    assert (done[BRAIN_KEY].as_tensor()[0].numpy() > 0).tolist() == BRAIN.tolist()
    told = done[FACTS_KEY]["image"]
    assert abs(told["VolumeCm3"] - brain_mask.cubic_centimetres(BRAIN, head())) < 0.1
    scaled = ScaleForegroundPercentiled("image", brain_key=BRAIN_KEY)(done)
    assert 100 <= scaled["image"].meta[SCALE_KEY] < 130  # not the scalp's 400
    assert ScaleForegroundPercentiled("image")(done)["image"].meta[SCALE_KEY] > 390


def test_translation_strips_every_contrast(finder):
    data = {"T1w": tensor(head()), "T2w": tensor(head(2)), "case": "a"}
    done = BrainMaskd(["T1w", "T2w"])(data)
    for key in ("T1w", "T2w"):
        assert ((done[key][0].numpy() != 0) == (BRAIN & (data[key][0].numpy() != 0))).all()
    assert set(done[FACTS_KEY]) == {"T1w", "T2w"} and BRAIN_KEY not in done
    done["image"] = torch.cat([done["T1w"], done["T2w"]])
    fine = MetaTensor(
        torch.zeros(1, 127, 127, 127), affine=nib.affines.from_matvec(np.eye(3) * 2, [-126] * 3)
    )
    placed = PlaceBrainMaskd()(done | {"pred": fine})[BRAIN_KEY]
    assert placed.shape == fine.shape
    volume = float(placed.sum()) * 8 / 1000
    assert abs(volume - brain_mask.cubic_centimetres(BRAIN, head())) < 0.04 * volume


def test_the_volume_is_checked(monkeypatch):
    def refuses(_):
        raise BrainNotFound(2496.0)

    monkeypatch.setattr(brain_mask, "find_brain", refuses)
    with pytest.raises(InputRejected) as refused:
        BrainMaskd("image", keeps_head=True)({"image": tensor(head()), "case": "a"})
    seen = {"which": "image", "volume": 2496.0, "low": 900.0, "high": 2200.0}
    assert str(refused.value) == say("no_brain", name="a", **seen)
    kept = BrainMaskd("image", skull="keep", keeps_head=True)({"image": tensor(head()), "case": "a"})
    assert kept[HEAD_KEY] is True and BRAIN_KEY not in kept


def test_without_the_extra_one_line_tells_what_to_install(monkeypatch):
    monkeypatch.setattr(brain_mask, "installed", lambda _: False)
    told = BrainMaskd("image", keeps_head=True)({"image": tensor(head()), "case": "a"})
    assert told["warnings"] == [say("no_deepbet_kept")] and told[HEAD_KEY] is True
    with pytest.raises(InputRejected) as refused:
        BrainMaskd(["T1w", "T2w"], allow_missing_keys=True)({"T1w": tensor(head()), "case": "a"})
    assert str(refused.value) == say("no_deepbet", name="a", which="T1w")


def test_given_needs_a_mask():
    with pytest.raises(InputRejected) as refused:
        BrainMaskd("image", skull="given", keeps_head=True)({"image": tensor(head()), "case": "a"})
    assert str(refused.value) == say("mask_needed", name="a")
    with pytest.raises(ValueError, match="unknown skull"):
        BrainMaskd("image", skull="maybe")


def test_a_given_mask_counts_before_any_other(tmp_path, finder):
    path = tmp_path / "mask.nii.gz"
    nib.Nifti1Image(ball(40, 40, 40).astype(np.uint8), head().affine).to_filename(path)
    done = BrainMaskd("image", keeps_head=True)({"image": tensor(head()), "mask": str(path)})
    assert int(done[BRAIN_KEY].sum()) == ball(40, 40, 40).sum()
    assert done[FACTS_KEY]["image"]["From"] == "given"


def test_less_than_a_brains_field_of_view_is_no_head(finder):
    crop = Scan(head().values[28:36, 28:36, 28:36], head().affine)
    done = BrainMaskd("image", keeps_head=True)({"image": tensor(crop)})
    assert not {BRAIN_KEY, FACTS_KEY, HEAD_KEY} & set(done)


def test_a_brain_at_the_border_is_cut_off():
    spacing = np.full(3, STEP)
    assert not is_cut(BRAIN, spacing)
    assert is_cut(BRAIN[:, :, :30], spacing)
    assert not is_cut(BRAIN[:, :, :30], 2 * spacing)  # room for a head: what reaches its end is no brain


@pytest.mark.slow
def test_the_network_finds_the_brain_of_a_head():
    pytest.importorskip("deepbet")
    from scipy.ndimage import zoom

    places = zoom(head().values, 2, order=1)
    scan = Scan(places, nib.affines.from_matvec(np.eye(3) * 2, [-126.0] * 3))
    try:
        found = find_brain(scan)
    except BrainNotFound as none:  # a head of balls is far from any scan
        assert not 900 < none.volume < 2200
    else:
        assert 900 < found.volume < 2200
    with pytest.raises(BrainNotFound):
        find_brain(Scan(np.random.default_rng(0).random((64, 64, 64), dtype=np.float32), scan.affine))
