"""Fault 08: a run from Python leaves the process as it was, whether it works or is turned down."""

import logging
import os
import random
import signal
import sys
import threading

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch


def state() -> dict:
    """What a process has for all that runs in it."""
    return {
        "signals": {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)},
        "hooks": (sys.unraisablehook, sys.excepthook, threading.excepthook),
        "environment": dict(os.environ),
        "threads": torch.get_num_threads(),
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),
        "python": random.getstate(),
        "precision": torch.get_float32_matmul_precision(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "folder": os.getcwd(),
        "mask": os.umask(os.umask(0o22)),
        "logging": logging.raiseExceptions,
        "streams": [getattr(stream, "errors", None) for stream in (sys.stdout, sys.stderr)],
    }


@pytest.fixture
def _interruptible():
    """Python's own answer to SIGINT: a process that a script started in the background has none."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("_interruptible")
@pytest.mark.filterwarnings("ignore::UserWarning")  # MONAI's on every configuration
@pytest.mark.parametrize("given", ["scan.nii.gz", "missing.nii.gz"])
def test_08_a_run_from_python_leaves_the_process_as_it_was(bundle, tmp_path, given, monkeypatch):
    values = np.random.default_rng(0).integers(1, 900, (24, 28, 8)).astype(np.int16)
    nib.Nifti1Image(values, np.diag([1, 1, 5, 1.0])).to_filename(tmp_path / "scan.nii.gz")
    monkeypatch.setattr(sys, "path", [*sys.path])
    options = {"input": str(tmp_path / given), "output_dir": str(tmp_path / "out"), "report": False}
    before = state()
    try:
        monai.bundle.run(
            run_id="inference",
            config_file=str(bundle / "configs" / "inference.json"),
            bundle_root=str(bundle),
            **options,
        )
    except SystemExit as stop:
        assert given != "scan.nii.gz" and stop.code == 1
    else:
        assert (tmp_path / "out" / "scan_sr.nii.gz").is_file()
    now = state()
    assert {name: now[name] for name in before if now[name] != before[name]} == {}
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
