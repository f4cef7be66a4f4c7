"""Row 26 of docs/bad_inputs.md: a volume too large for the memory, through the command line.

A real crop is repeated to a long volume, which fits where the networks run in windows, and to a huge one.
"""

import re
import resource
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from contrast_files import T1W, real_head, save
from runs import Run

pytestmark = [pytest.mark.slow, pytest.mark.bad_input(26)]

SUFFIX = "desc-synthetic_FLAIR"
REPEATS = {"long": (1, 1, 5), "huge": (6, 6, 6)}
LIMIT_GIB = 0.07
ADDRESS_SPACE = 1900 * 2**20  # bytes; Python with its libraries takes two thirds


@pytest.fixture(scope="module")
def scans(data_dir_or_none, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    scan = real_head(data_dir_or_none)[T1W]
    for name, times in REPEATS.items():
        voxels = np.tile(np.asanyarray(scan.dataobj), times)
        save(folder, name, {T1W: nib.Nifti1Image(voxels, scan.affine, scan.header)})
    return folder


@pytest.fixture(scope="module")
def told_to(translation, scans, run_inference, tmp_path_factory) -> Run:
    """A run with --max_memory."""
    out = tmp_path_factory.mktemp("told") / "out"
    done = run_inference(
        translation,
        out.parent,
        input=scans,
        output_dir=out,
        report=False,
        skull="keep",
        force=True,
        max_memory=LIMIT_GIB,
    )
    return Run.of(done, scans, out, SUFFIX)


@pytest.fixture(scope="module")
def running_out(translation, scans, run_inference, tmp_path_factory) -> Run:
    """A run whose process really gets no more memory."""
    out = tmp_path_factory.mktemp("out_of") / "out"

    limits = {resource.RLIMIT_AS: ADDRESS_SPACE}
    done = run_inference(
        translation, out.parent, limits, input=scans, output_dir=out, report=False, skull="keep", force=True
    )
    return Run.of(done, scans, out, SUFFIX)


def failure(run: Run, name: str) -> str:
    """The one line with which a case failed; the other is done, and nothing was killed."""
    assert run.returncode == 1 and "1 done, 0 skipped" in run.stdout, run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr
    (line,) = [line for line in run.stdout.splitlines() if line.startswith(f"failed: {name}")]
    assert [path.name for path in sorted(run.out.iterdir())] == [
        f"long_{SUFFIX}{e}" for e in (".json", ".nii.gz")
    ]
    return line.removeprefix("failed: ")


def test_what_cannot_fit_is_refused_before_sampling(told_to, got):
    line = failure(told_to, "huge")
    got(line)
    assert "GiB of memory and has 0.07; raise --max_memory" in line
    assert re.search(rf"long\S*: about {LIMIT_GIB:.2f} GiB of memory beside the model", told_to.stdout)


def test_a_lack_of_memory_is_told_and_the_next_case_goes_on(running_out):
    assert "GiB of memory and has" in failure(running_out, "huge")  # the process's own limit is seen


def test_windows_give_the_same_volume(told_to, running_out):
    """The long volume went through the calibrator in windows under the limit, and whole without it."""
    windowed, whole = told_to.result("long").get_fdata(), running_out.result("long").get_fdata()
    assert " 352000 voxels at once" in running_out.stdout and " 352000 voxels at once" not in told_to.stdout
    np.testing.assert_allclose(windowed, whole, atol=1e-4 * whole.max())
