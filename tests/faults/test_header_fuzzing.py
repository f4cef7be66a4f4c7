"""Every field of a NIfTI header, alone and two at once: one line, or the volume that nibabel reads.

Eight seconds altogether; DIFFENS_FUZZ_SECONDS=600 looks longer.
"""

import gzip
import itertools
import os
import time
import warnings

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nibabel.imageglobals import logger as nibabel_logger

from monai_diffens.data.load_scan import LoadScan
from monai_diffens.messages import InputRejected
from monai_diffens.transforms.input_gate import check_volume

SECONDS = float(os.environ.get("DIFFENS_FUZZ_SECONDS", "8")) / 2
EXAMPLES_A_SECOND = 60
UNITS = {1: 1e3, 2: 1.0, 3: 1e-3}
HEADER = {1: nib.Nifti1Header, 2: nib.Nifti2Header}
# what no reading of voxels or position looks at
IDLE = """data_type db_name extents session_error regular dim_info intent_p1 intent_p2 intent_p3 cal_max
cal_min slice_duration toffset glmax glmin descrip aux_file slice_start slice_end slice_code
intent_name""".split()
EXTREMES = [0, 1, -1, 2, 3, 5, 7, 8, 127, -128, 255, 32767, -32768, 65536, 2**31 - 1, -(2**31), 0.5, 1e-38]
EXTREMES += [1e38, -1e38, 1e-6, 352, 353, 348, 544, 1e25, float("nan"), float("inf"), -float("inf")]


def sound(version: int) -> bytes:
    voxels = np.random.default_rng(0).integers(1, 500, (9, 10, 4)).astype(np.int16)
    kind = {1: nib.Nifti1Image, 2: nib.Nifti2Image}[version]
    turned = np.diag([1.0, 1, 5, 1])
    turned[:3, :3] = nib.eulerangles.euler2mat(z=0.3, x=0.2) @ turned[:3, :3]
    turned[:3, 3] = (-4, 12, 7)
    image = kind(voxels, turned)
    image.header.set_xyzt_units("mm")
    image.header.set_qform(turned, 1)
    image.header.set_slope_inter(2, 1)
    return image.to_bytes()


SOUND = {version: sound(version) for version in (1, 2)}


def places(version: int, names=None) -> list[tuple[str, int, np.dtype]]:
    """Name, byte and type of each number of a header."""
    dtype = HEADER[version].template_dtype
    found = []
    for name in dtype.names:
        part, start = dtype.fields[name][:2]
        base, count = part.base, int(np.prod(part.shape, dtype=int))
        if base.kind in "SU":
            base, count = np.dtype("u1"), base.itemsize
        found += [(name, start + index * base.itemsize, base) for index in range(count)]
    return [each for each in found if names is None or each[0] in names]


PLACES = {version: places(version) for version in (1, 2)}


def put(data: bytes, place: tuple[str, int, np.dtype], value: float) -> bytes:
    """The bytes with one number changed; a value that the type cannot hold wraps round."""
    _, start, dtype = place
    with np.errstate(all="ignore"):
        if dtype.kind in "iu":
            value = int(np.nan_to_num(value, nan=0, posinf=2**62, neginf=-(2**62))) % 2 ** (
                8 * dtype.itemsize
            )
            packed = int(value).to_bytes(dtype.itemsize, "little")
        else:
            packed = np.array(value).astype(dtype.newbyteorder("<")).tobytes()
    return data[:start] + packed + data[start + len(packed) :]


def of_nibabel(data: bytes, version: int) -> tuple[np.ndarray, np.ndarray]:
    """Voxels and affine in mm as nibabel itself reads them, without parts that are not used."""
    header = HEADER[version](data[: HEADER[version].sizeof_hdr], check=False)
    if int(header["sform_code"]) in nib.nifti1.xform_codes.value_set() - {0}:
        header["qform_code"] = 0
        for letter in "bcd":
            header[f"quatern_{letter}"] = 0
    data = header.binaryblock + bytes(4) + data[HEADER[version].sizeof_hdr + 4 :]
    image = {1: nib.Nifti1Image, 2: nib.Nifti2Image}[version].from_bytes(data)
    with np.errstate(all="ignore"):
        voxels = np.asanyarray(image.dataobj).astype(np.float32)
    affine = image.affine.copy()
    affine[:3] *= UNITS.get(int(image.header["xyzt_units"]) % 8, 1.0)
    return voxels.reshape(image.shape[:3]), affine


@pytest.fixture
def attempt(tmp_path, capsys):
    """Function (bytes, version, zipped) to whether the file was accepted; compares what was read."""
    nibabel_logger.disabled = True
    load = LoadScan()

    def run(data: bytes, version: int, zipped: bool = False) -> bool:
        path = tmp_path / ("scan.nii.gz" if zipped else "scan.nii")
        path.write_bytes(gzip.compress(data, compresslevel=1, mtime=0) if zipped else data)
        try:
            checked = check_volume(path, force=True)
        except InputRejected as error:
            assert len(str(error).splitlines()) == 1 and str(tmp_path) not in str(error)
            return False
        volume = load(path)
        voxels, affine = of_nibabel(data, version)
        np.testing.assert_array_equal(volume[0].numpy(), voxels)
        np.testing.assert_allclose(checked.affine, affine, rtol=1e-5, atol=1e-4 * max(1, abs(affine).max()))
        np.testing.assert_array_equal(volume.affine, checked.affine)
        assert volume.meta["sha256"] == checked.sha256
        return True

    yield run
    nibabel_logger.disabled = False
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("version", [1, 2])
def test_fields_that_are_not_used_decide_nothing(attempt, version):
    idle = [place for place in PLACES[version] if place[0] in IDLE]
    idle += [place for place in PLACES[version] if place[0] == "pixdim"][5:]
    idle = [place for place in idle if place[0] in HEADER[version].template_dtype.names]
    for place, value in zip(idle, itertools.cycle(EXTREMES), strict=False):
        assert attempt(put(SOUND[version], place, value), version), (place, value)


@pytest.mark.slow
def test_each_field_takes_each_extreme(attempt):
    end, accepted = time.monotonic() + SECONDS, 0
    ways = [(place, value) for place in PLACES[1] if place[0] not in IDLE for value in EXTREMES]
    for number in np.random.default_rng(0).permutation(len(ways)):
        place, value = ways[number]
        if time.monotonic() > end:
            break
        accepted += attempt(put(SOUND[1], place, value), 1)
    assert accepted > 0


@pytest.mark.slow
def test_two_fields_at_once(attempt):
    end, tried = time.monotonic() + SECONDS, []
    value = st.one_of(st.sampled_from(EXTREMES), st.floats(width=32), st.integers(-(2**31), 2**31 - 1))

    @settings(
        max_examples=int(SECONDS * EXAMPLES_A_SECOND),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(version=st.sampled_from([1, 2]), zipped=st.booleans(), data=st.data())
    def two(version, zipped, data):
        bytes_ = SOUND[version]
        used = [place for place in PLACES[version] if place[0] not in IDLE]
        for _ in range(2):
            bytes_ = put(bytes_, data.draw(st.sampled_from(used)), data.draw(value))
        if time.monotonic() < end:
            tried.append(attempt(bytes_, version, zipped))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy's, on numbers that are too large
        two()
    assert any(tried) and not all(tried)
