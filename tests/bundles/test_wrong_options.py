"""What the real bundles say to values that an option cannot have: one line, status 2, before any work."""

from pathlib import Path

import pytest
from bundle_copies import ROOT

from monai_diffens.inference import open_inference, run_inference
from monai_diffens.options import OptionError

BOTH = [
    ("num_steps", 0),
    ("num_steps", "abc"),
    ("num_samples", -1),
    ("seed", "abc"),
    ("fusion", "Axial"),
    ("restart", -7),
    ("target_spacing", 0),
    ("target_spacing", [1, 1]),
    ("slice_profile", "gauss"),
    ("slice_thickness", 0),
    ("consistency", "maybe"),
    ("spread_scale", 0),
    ("spread_floor", "1e999"),
    ("save_weights", "oui"),
    ("report", 2),
    ("amp", "maybe"),
    ("max_memory", "8GB"),
    ("share", "volumes"),
    ("brain_mask", 7),
    ("volume", -1),
    ("fill_nan", "filled"),
    ("force", "$'no'+'pe'"),
    ("overwrite", []),
    ("device", "gpu9"),
    ("weights_file", 1.5),
    ("output_dir", 2024.1),
    ("num_step", 1),
]
OWN = {
    "diffensembler_sr": [("residual_gain", "1e999"), ("residual_gain", 0), ("fusion", "T1w")],
    "diffensembler_translate": [
        ("target", "PDw"),
        ("leave_out", ["T1"]),
        ("plane_weights", "axial"),
        ("register", "rigid"),
        ("spread_floor_unmeasured", -1),
        ("fusion", "T1w"),
    ],
}


@pytest.mark.parametrize(
    ("bundle", "name", "value"), [(bundle, *each) for bundle, own in OWN.items() for each in [*BOTH, *own]]
)
def test_one_line_and_nothing_else(bundle, name, value, tmp_path, capsys):
    out = tmp_path / "out"
    options = {"input": str(tmp_path), "output_dir": str(out), name: value}
    root: Path = ROOT / "bundles" / bundle
    with pytest.raises(OptionError) as stopped:
        run_inference(open_inference(root, options))
    told, line = capsys.readouterr(), str(stopped.value)
    assert line.startswith(name) and "\n" not in line and told.out == told.err == ""
    assert not out.exists() and list(tmp_path.iterdir()) == []
