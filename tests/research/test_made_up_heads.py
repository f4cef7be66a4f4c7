"""Heads made from label maps: what is one, what is cut off, and what is none."""

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation

from monai_diffens.messages import InputRejected, say
from monai_diffens.transforms.registration import Scan
from monai_diffens.transforms.unlike_training import FlagUnlikeTrainingd, load_ranges
from research.clinic.heads import brain_with_fluid, head
from research.clinic.trials import read

HEAD = "head_shown"  # key of a case whose skull may be there


@pytest.fixture(scope="module")
def labels(data_dir: Path) -> Scan:
    """A whole head's label map, every second voxel."""
    path = data_dir / "derivatives" / "headlabels" / "labels_01.nii.gz"
    if not path.is_file():
        pytest.skip("the data pack has no label maps of heads")
    whole = read(path)
    return Scan(whole.values[::2, ::2, ::2], whole.affine @ np.diag([2, 2, 2, 1]))


def upright(scan: Scan) -> MetaTensor:
    volume = MetaTensor(torch.from_numpy(np.asarray(scan.values, dtype=np.float32))[None], affine=scan.affine)
    return Orientation("RAS", labels=None)(volume)


@pytest.mark.parametrize("contrast", ["T1w", "FLAIR"])
def test_heads_pass_and_what_is_as_large_as_none_is_refused(labels, contrast):
    whole = upright(head(labels, contrast, 1))
    told = FlagUnlikeTrainingd("image")({"image": whole, HEAD: True, "case": "a"})["warnings"]
    assert len(told) == 2  # its skull, and its voxels of 2 mm
    for stretch in ([2, 2, 2, 1], [1, 1, 2.2, 1]):  # a wrong unit; a trunk
        other = MetaTensor(whole.as_tensor(), affine=np.asarray(whole.affine) @ np.diag(stretch))
        with pytest.raises(InputRejected) as refused:
            FlagUnlikeTrainingd("image")({"image": other, HEAD: True, "case": "a"})
        extent = " x ".join(f"{side * 2 * s:.0f}" for side, s in zip(whole.shape[1:], stretch, strict=False))
        assert str(refused.value) == say("not_a_head", name="a", extent=extent)


def test_a_stripped_brain_is_told_from_a_part_of_one(labels):
    made = head(labels, "T1w", 1)
    brain = upright(Scan(made.values * brain_with_fluid(labels), made.affine))
    reference = load_ranges()["any"]
    kinds = [
        reference.kind(reference.measure(MetaTensor(part.contiguous(), affine=brain.affine)))
        for part in (brain.as_tensor(), brain.as_tensor()[..., 50:70])
    ]
    assert kinds[1] == "cropped"
    assert kinds[0] in ("brain", "other")  # with the fluid around it, larger than those of the training
