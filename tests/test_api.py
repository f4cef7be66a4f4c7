"""Python in, Python out: every kind of image, one result; the network is loaded once."""

import doctest
import subprocess
import sys
import threading
import time

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from typer.testing import CliRunner

import monai_diffens
import monai_diffens.api as api
from monai_diffens import DiffEnsembleRestored, load_model, super_resolve, translate
from monai_diffens.cli import app
from monai_diffens.demo import thick_scan
from monai_diffens.messages import InputRejected, say
from monai_diffens.networks import weights
from monai_diffens.options import OptionError

SIDE = 24


@pytest.fixture(scope="module")
def scan() -> nib.Nifti1Image:
    return thick_scan(crop=SIDE)


@pytest.fixture(scope="module")
def by_image(scan) -> nib.Nifti1Image:
    return super_resolve(scan)


def test_nothing_heavy_is_imported_before_it_is_asked_for():
    code = "import sys, monai_diffens; print('torch' in sys.modules, len(monai_diffens.__all__))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", str(len(monai_diffens.__all__))]
    assert all(getattr(monai_diffens, name) is getattr(api, name) for name in monai_diffens.__all__)
    with pytest.raises(AttributeError):
        monai_diffens.superresolve  # noqa: B018


def test_image_in_image_out(scan, by_image):
    assert isinstance(by_image, nib.Nifti1Image)
    assert by_image.shape == (SIDE, SIDE, 5 * scan.shape[2])
    np.testing.assert_allclose(nib.affines.voxel_sizes(by_image.affine), 1, atol=1e-5)
    again = by_image.get_fdata().reshape(*scan.shape, 5).mean(-1)
    assert np.abs(again - scan.get_fdata()).mean() < 0.01 * scan.get_fdata().max()


def test_every_kind_gives_the_same_volume(scan, by_image, tmp_path):
    wanted, affine = by_image.get_fdata(dtype=np.float32), by_image.affine
    voxels = scan.get_fdata(dtype=np.float32)
    array, its_affine = super_resolve(voxels, scan.affine)
    assert type(array) is np.ndarray
    tensor, tensor_affine = super_resolve(torch.from_numpy(voxels), torch.from_numpy(scan.affine))
    assert type(tensor) is torch.Tensor and type(tensor_affine) is torch.Tensor
    meta = super_resolve(MetaTensor(voxels[None], affine=torch.from_numpy(scan.affine)))
    assert isinstance(meta, MetaTensor) and meta.shape == (1, *wanted.shape)
    for volume, where in ((array, its_affine), (tensor, tensor_affine), (meta[0], meta.affine)):
        np.testing.assert_array_equal(np.asarray(volume), wanted)
        np.testing.assert_allclose(np.asarray(where), affine, atol=1e-6)
    path = tmp_path / "image.nii.gz"
    nib.save(scan, path)
    result = super_resolve(str(path))
    assert result == tmp_path / "image_sr.nii.gz" and result.with_name("image_sr.json").is_file()
    np.testing.assert_array_equal(nib.load(result).get_fdata(dtype=np.float32), wanted)
    assert super_resolve(path) == result  # there already


def test_it_is_the_command_lines_result(scan, by_image, tmp_path):
    nib.save(scan, tmp_path / "image.nii.gz")
    words = ["sr", str(tmp_path / "image.nii.gz"), "-o", str(tmp_path / "out"), "--no_report", "--quiet"]
    assert CliRunner().invoke(app, words).exit_code == 0
    wanted = nib.load(tmp_path / "out" / "image_sr.nii.gz").get_fdata()
    np.testing.assert_array_equal(by_image.get_fdata(), wanted)


def test_the_network_is_loaded_once_and_stays_as_it_was(scan, monkeypatch):
    model = load_model("sr")
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    monkeypatch.setattr(weights, "torch", None)  # whoever loads now fails
    changed = super_resolve(scan, seed=7, residual_gain=2.0)
    assert load_model("sr") is model
    assert not np.array_equal(changed.get_fdata(), super_resolve(scan).get_fdata())
    after = model.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_translate_and_the_transform(scan):
    voxels, affine = scan.get_fdata(dtype=np.float32), torch.from_numpy(scan.affine)
    made = translate({"T1w": scan, "FLAIR": scan}, register="never")
    assert isinstance(made, nib.Nifti1Image) and made.shape == (SIDE, SIDE, 5 * scan.shape[2])
    data = {"T1w": MetaTensor(voxels[None], affine=affine), "FLAIR": MetaTensor(voxels[None], affine=affine)}
    restored = DiffEnsembleRestored(
        ("T1w", "FLAIR", "T2w"), "translate", "made", allow_missing_keys=True, register="never"
    )(data)
    assert restored["made"].shape == (1, *made.shape) and restored["T1w"] is data["T1w"]
    both = Compose([DiffEnsembleRestored("T1w", seed=3)])(data)
    np.testing.assert_array_equal(both["T1w"][0], super_resolve(scan, seed=3).get_fdata(dtype=np.float32))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"num_step": 3}, "num_step"),
        ({"num_steps": 0}, "num_steps"),
        ({"force": "maybe"}, "force"),
        ({"report": True}, "report"),
        ({"input": "x"}, "input"),
    ],
)
def test_wrong_options(scan, options, name):
    with pytest.raises(OptionError) as error:
        super_resolve(scan, **options)
    assert error.value.name == name
    with pytest.raises(OptionError):
        DiffEnsembleRestored("image", **options)


def test_what_cannot_be_restored_is_one_line(scan, by_image, tmp_path, capsys):
    voxels = scan.get_fdata()
    bad = [
        (("nowhere.nii",), "nowhere.nii"),
        ((voxels,), "affine"),
        ((voxels[0], scan.affine), "(X, Y, Z)"),
        ((np.full_like(voxels, np.nan), scan.affine), "fill_nan"),
        ((np.zeros_like(voxels), scan.affine), "every voxel"),
        ((by_image,), "nothing to do"),
        (({"T1w": scan},), "one scan"),
        (("object",), "object"),
    ]
    for arguments, word in bad:
        with pytest.raises(InputRejected) as error:
            super_resolve(*arguments)
        assert word in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(InputRejected, match="mapping"):
        translate(scan)
    with pytest.raises(InputRejected):
        translate({"PDw": scan})
    with pytest.raises(OptionError):
        translate({"T1w": scan}, target="CT")
    with pytest.raises(InputRejected) as error:
        super_resolve(tmp_path)
    assert str(error.value) == say("no_cases", name=tmp_path)
    assert capsys.readouterr() == ("", "") and not list(tmp_path.iterdir())


def test_no_state_of_the_process_changes(scan):
    import signal

    before = (signal.getsignal(signal.SIGINT), sys.path[:], sys.unraisablehook, torch.get_rng_state())
    super_resolve(scan)
    after = (signal.getsignal(signal.SIGINT), sys.path[:], sys.unraisablehook, torch.get_rng_state())
    assert before[:3] == after[:3] and torch.equal(before[3], after[3])


def test_from_a_thread(scan, by_image):
    got = []
    thread = threading.Thread(target=lambda: got.append(super_resolve(scan)))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(got[0].get_fdata(), by_image.get_fdata())


@pytest.mark.slow
def test_the_examples_of_the_docstrings():
    begin = time.perf_counter()
    outcome = doctest.testmod(api)
    assert outcome.attempted > 10 and outcome.failed == 0, time.perf_counter() - begin
