"""Fixtures that every test may use; real scans are read where they lie and never copied into git."""

import light_imports  # isort: skip  # noqa: F401  # before jsonschema
import gc
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest
import torch
from bad_input_table import note_row, pytest_terminal_summary  # noqa: F401 (a hook)
from metric_volumes import ball, pred, truth  # noqa: F401 (fixtures)
from tiny_training import arguments, assert_same, run_tiny, start, tiny_bids  # noqa: F401 (fixtures)

from monai_diffens.networks.diff_ensembler import DiffEnsembler

DATA_DIR = Path(os.environ.get("DIFFENS_DATA") or Path(__file__).parents[1].parent / "shared" / "data")
CROP_SHAPE = (48, 56, 40)

# two threads that wait for each other on a busy machine are slower than one: OMP_NUM_THREADS=1 is honoured
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "data_dir" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.data)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With DIFFENS_DATA_REQUIRED set, a `data` test that skips is a failure (xfail is not a skip)."""
    report = yield
    if call.when == "call" or not report.passed:
        note_row(item, report)
    if (
        report.skipped
        and not hasattr(report, "wasxfail")
        and os.environ.get("DIFFENS_DATA_REQUIRED")
        and item.get_closest_marker("data")
    ):
        report.outcome = "failed"
        report.longrepr = f"skipped although DIFFENS_DATA_REQUIRED is set: {report.longrepr}"
    return report


@pytest.fixture
def got(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Function (line) that notes what a user saw, for the table of bad inputs."""
    return lambda line: record_property("got", line)


def pytest_collection_finish() -> None:
    """What the libraries and the tests are made of stays: the garbage collector need not walk it again."""
    gc.collect()
    gc.freeze()


def hooks() -> tuple[object, ...]:
    """What a command sets for the whole process."""
    return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.unraisablehook


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    """Every test begins with one seed, and leaves signals as they were."""
    torch.default_generator.manual_seed(0)  # torch.manual_seed notes a stack for every kind of device
    before = hooks()
    yield
    assert hooks() == before, "a handler of signals was left behind"


@pytest.fixture(scope="session")
def tiny_ensembler() -> Callable[..., DiffEnsembler]:
    """Function (options of DiffEnsembler) to a small one with random weights everywhere.

    Layers that start at zero would hide errors; ``untrained=True`` leaves those of the fusion at zero. Every
    condition has an expert of its own in each plane, unless ``groups`` say otherwise.
    """

    def build(untrained: bool = False, **options: Any) -> DiffEnsembler:
        small = {"channels": (8, 16), "stem": 2, "norm_num_groups": 4, "num_head_channels": 8}
        small["groups"] = [[name] for name in options.get("conditions", ("image",))]
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(1)
            network = DiffEnsembler(**({"calibrator_channels": (8, 16)} | small | options)).eval()
            for name, parameter in network.named_parameters():
                noise = 0.1 * torch.randn_like(parameter)
                if name.startswith("bank.") or not untrained:
                    parameter += noise
        return network

    return build


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real scans; the test skips where there is none."""
    if not (DATA_DIR / "participants.tsv").is_file():
        pytest.skip(f"no real scans at {DATA_DIR}; set DIFFENS_DATA to a copy of the data pack")
    return DATA_DIR


@pytest.fixture(scope="session")
def data_dir_or_none() -> Path | None:
    """The folder of real scans where there is one, for tests that can do with the template brain."""
    return DATA_DIR if (DATA_DIR / "participants.tsv").is_file() else None


@pytest.fixture
def crop_path(data_dir: Path, tmp_path: Path) -> Path:
    """A NIfTI of the central 48x56x40 voxels (1 mm) of a real T1w, lying where they lie in the scan."""
    scan = nib.load(data_dir / "sub-upenn01" / "anat" / "sub-upenn01_T1w.nii.gz")
    corner = [(full - side) // 2 for full, side in zip(scan.shape, CROP_SHAPE, strict=True)]
    crop = scan.slicer[tuple(slice(c, c + side) for c, side in zip(corner, CROP_SHAPE, strict=True))]
    path = tmp_path / "crop_T1w.nii.gz"
    nib.save(crop, path)
    return path
