"""Two processes write the table of one."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from two_processes import ROOT, run_two

from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.networks.weights import save_weights
from research.studies.sweep import KEYS
from research.studies.tables import MARK, read_table

BUNDLES = ["diffensembler_sr", "diffensembler_translate"]


@pytest.fixture
def with_weights(tmp_path):
    """Function (bundle) to a copy of its configs beside random weights of a small network."""

    def copy(bundle: str) -> Path:
        root = tmp_path / bundle
        shutil.copytree(ROOT / "bundles" / bundle / "configs", root / "configs")
        own = json.loads((root / "configs" / "inference.json").read_text())["network_def"]
        small = {
            "channels": [8, 16],
            "norm_num_groups": 4,
            "num_head_channels": 8,
            "calibrator_channels": [8, 16],
        }
        network = DiffEnsembler(**{name: value for name, value in own.items() if name != "_target_"} | small)
        with torch.no_grad():
            for parameter in network.parameters():  # the last layers start at zero
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
        save_weights(network.state_dict(), root / "models" / "model.pt")
        return root

    return copy


@pytest.mark.slow
@pytest.mark.parametrize("bundle", BUNDLES)
def test_two_processes_write_the_table_of_one(bundle, with_weights, arguments, start, tmp_path):
    options = {"split": "train", "region": [16, 16, 16], "dial": [[2, 0.5]]}
    options |= {"bundle": bundle, "bundle_root": str(with_weights(bundle))}
    process = start(arguments("evaluate", output_dir=str(tmp_path / "one"), **options))
    two = arguments("evaluate", ("multi_gpu_evaluate",), output_dir=str(tmp_path / "two"), **options)
    run_two(two)
    process.join()
    assert process.exitcode == 0

    one = read_table(tmp_path / "one" / "sweep.csv")
    joined = read_table(tmp_path / "two" / "sweep.csv")
    assert len({row["case"] for row in one}) == 2 and len(one) > 20
    keys, figures = [], []
    for table in (one, joined):
        keys.append([tuple(row[key] for key in (*KEYS, MARK)) for row in table])
        figures.append(
            [
                {
                    name: float(value)
                    for name, value in row.items()
                    if value and name not in (*KEYS, MARK, "seconds")
                }
                for row in table
            ]
        )
    assert keys[0] == keys[1]
    for a, b in zip(*figures, strict=True):
        assert len(a) >= 7 and b == pytest.approx(a, rel=1e-3, abs=1e-4)
    shares = [read_table(tmp_path / "two" / f"process_{number}" / "sweep.csv") for number in (0, 1)]
    assert [len(share) for share in shares] == [len(one) / 2] * 2
    written = {path.name for path in (tmp_path / "two").iterdir()}
    assert written == {path.name for path in (tmp_path / "one").iterdir()} | {"process_0", "process_1"}
