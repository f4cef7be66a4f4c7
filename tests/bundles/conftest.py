"""A copy of the bundle with fresh weights, and its command line."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import forked
import nibabel as nib
import numpy as np
import pytest
from bundle_copies import BUNDLE, copy_bundle, copy_translation


@pytest.fixture(scope="session")
def shipped() -> Path:
    """The super-resolution bundle as it ships."""
    return BUNDLE


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of its configs with untrained weights that predict a little noise."""
    return copy_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="session")
def translation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the translation bundle with a small random network."""
    return copy_translation(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="session")
def thick_template(tmp_path_factory) -> Path:
    """A 5 mm scan of the middle of nilearn's template brain, 40 x 44 x 40 mm."""
    datasets = pytest.importorskip("nilearn.datasets")
    whole = nib.as_closest_canonical(datasets.load_mni152_template(resolution=1))
    start = [(full - side) // 2 for full, side in zip(whole.shape, (40, 44, 40), strict=True)]
    crop = whole.slicer[tuple(slice(s, s + n) for s, n in zip(start, (40, 44, 40), strict=True))]
    thick = crop.get_fdata(dtype=np.float32).reshape(40, 44, 8, 5).mean(-1)
    affine = crop.affine @ np.diag([1, 1, 5, 1])
    affine[:3, 3] = nib.affines.apply_affine(crop.affine, (0, 0, 2))
    image = nib.Nifti1Image(thick, affine)
    image.header.set_xyzt_units("mm")
    path = tmp_path_factory.mktemp("scan") / "brain_T1w.nii.gz"
    image.to_filename(path)
    return path


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def run_inference() -> Run:
    """Function (bundle, cwd, limits, option=value, ...) that runs the inference command of a bundle.

    ``limits``: of :mod:`resource`, by their number.
    """

    def run(
        bundle: Path, cwd: Path, limits: dict[int, int] | None = None, **options: object
    ) -> subprocess.CompletedProcess[str]:
        return forked.run(forked.inference(bundle, **options), cwd, limits=limits)

    return run
