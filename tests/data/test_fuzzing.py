"""Damaged and hostile files at our boundary: one line each, nothing written, no identifier repeated."""

import gzip
import logging
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monai.transforms import Compose, Orientationd

from monai_diffens.data.cases import CaseFolder
from monai_diffens.data.load_scan import LoadScand
from monai_diffens.messages import InputRejected
from monai_diffens.transforms.intensity import ScaleForegroundPercentiled
from monai_diffens.transforms.target_grid import RestoreToSpacingd

IDENTIFIER = "DOE^JANE"
HEADER = 352
SECONDS = 20  # for all examples together, on an idle core; deadline=None because machines differ
EXAMPLES = 60

FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

PREPARE = Compose(
    [
        LoadScand("image"),
        Orientationd("image", axcodes="RAS", labels=None),
        ScaleForegroundPercentiled("image"),
        RestoreToSpacingd("image", spacing=1.0),
    ]
)


def scan_bytes(version: int = 1) -> bytes:
    """A small sound scan that names a patient wherever a header can."""
    voxels = np.random.default_rng(0).integers(1, 500, (9, 10, 4)).astype(np.int16)
    kind = nib.Nifti1Image if version == 1 else nib.Nifti2Image
    image = kind(voxels, np.diag([1, 1, 5, 1.0]))
    image.header.set_xyzt_units("mm")
    for field in ("descrip", "aux_file", "intent_name"):
        image.header[field] = IDENTIFIER.encode()
    return image.to_bytes()


SOUND = {version: scan_bytes(version) for version in (1, 2)}
edits = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=8)
# fields that decide sizes, offsets, scales and geometry: (offset, struct format) in a NIfTI-1 header
FIELDS = [(40 + 2 * i, "<h") for i in range(8)] + [(70, "<h"), (72, "<h")]
FIELDS += [(76 + 4 * i, "<f") for i in range(8)] + [(108, "<f"), (112, "<f"), (116, "<f")]
FIELDS += [(252, "<h"), (254, "<h"), (123, "<b")] + [(256 + 4 * i, "<f") for i in range(18)]
extremes = st.sampled_from([0, 1, -1, 2, 3, 127, -128, 32767, -32768, 1e-38, 1e38, -1e38])
anything = st.one_of(extremes, st.floats(width=32), st.integers(-32768, 32767))


@pytest.fixture
def attempt(tmp_path, caplog, capsys):
    """Function (name, content) that takes a file through the boundary and checks what must always hold."""
    inside = tmp_path / "doe_jane" / "in"
    inside.mkdir(parents=True)
    caplog.set_level(logging.DEBUG, "monai_diffens")

    def run(name: str, content: bytes) -> bool:
        caplog.clear()
        path = inside / name
        path.write_bytes(content)
        before = sorted(p for p in tmp_path.rglob("*"))
        cases = CaseFolder(inside, tmp_path / "out", target_spacing=1.0)
        accepted = len(cases.items)
        if accepted:
            try:
                prepared = PREPARE(dict(cases.items[0]))["image"]
                assert prepared.isfinite().all() and min(prepared.shape) > 0
            except RuntimeError as error:  # MONAI wraps what a transform raises
                assert isinstance(error.__cause__, InputRejected), error.__cause__
        assert accepted + len(cases.rejected) + len(cases.fine) == 1
        for entry in cases.rejected:
            assert len(entry.reason.splitlines()) == 1 and entry.reason.startswith(name)
        told = caplog.text + "".join(capsys.readouterr())
        assert "DOE" not in told and "doe_jane" not in told and "Traceback" not in told
        assert sorted(p for p in tmp_path.rglob("*")) == before
        path.unlink()
        return bool(accepted)

    return run


def edited(data: bytes, changes: list[tuple[int, int]], length: int) -> bytes:
    """The data with bytes changed at places (taken modulo ``length``)."""
    broken = bytearray(data)
    for place, value in changes:
        broken[place % min(length, len(broken))] = value
    return bytes(broken)


def test_the_sound_file_is_accepted(attempt):
    assert attempt("a.nii", SOUND[1]) and attempt("a.nii.gz", gzip.compress(SOUND[2], mtime=0))


@FUZZ
@given(version=st.sampled_from([1, 2]), changes=edits, zipped=st.booleans())
def test_changed_header_bytes(attempt, version, changes, zipped):
    broken = edited(SOUND[version], changes, HEADER if version == 1 else 544)
    attempt("a.nii.gz" if zipped else "a.nii", gzip.compress(broken, mtime=0) if zipped else broken)


@FUZZ
@given(fields=st.lists(st.tuples(st.sampled_from(FIELDS), anything), min_size=1, max_size=4))
def test_impossible_header_values(attempt, fields):
    broken = bytearray(SOUND[1])
    for (place, kind), value in fields:
        try:
            packed = struct.pack(kind, value if kind == "<f" else int(value))
        except (struct.error, OverflowError, ValueError):
            continue  # not a value of this field
        broken[place : place + len(packed)] = packed
    attempt("a.nii", bytes(broken))


@FUZZ
@given(changes=edits, length=st.integers(0, 1 << 16))
def test_damaged_compression(attempt, changes, length):
    data = gzip.compress(SOUND[1], mtime=0)
    attempt("a.nii.gz", edited(data, changes, len(data))[: length % (len(data) + 1)])


@FUZZ
@given(content=st.binary(max_size=700), name=st.sampled_from(["a.nii", "a.nii.gz"]))
def test_anything_at_all(attempt, content, name):
    assert not attempt(name, content)


@FUZZ
@given(stem=st.text(min_size=1, max_size=40).filter(lambda s: "/" not in s and "\0" not in s))
def test_names_never_lead_out_of_the_output_folder(tmp_path, stem):
    try:
        name = stem.encode().decode() + ".nii"
    except UnicodeEncodeError:
        return  # not a file name
    (tmp_path / "in").mkdir(exist_ok=True)
    path = Path(tmp_path / "in" / name)
    path.write_bytes(SOUND[1])
    if not name.startswith("."):
        cases = CaseFolder(path, tmp_path / "out", target_spacing=1.0)
        result = cases._result(cases.items[0]["case"])
        assert result.parent == tmp_path / "out" and result.name == Path(result.name).name
        assert result.name.isprintable()
    path.unlink()
