"""Other networks than the model as methods of a sweep."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from small_sweep import keys, small_sweep

from monai_diffens.target import ResidualTarget
from research.baselines.regression_inferer import RegressionInferer
from research.baselines.regression_unet import RegressionUNet
from research.studies.baselines import Baseline
from research.studies.tables import read_table, weights_mark


@pytest.fixture
def sweep(tiny_ensembler, tmp_path):
    return partial(small_sweep, tiny_ensembler, tmp_path)


@pytest.fixture
def baselines() -> dict[str, Baseline | None]:
    """Small 3D networks that predict something, and one that there are no weights of."""
    torch.manual_seed(0)
    unet = RegressionUNet(1, [8] * 6, residual_scale=0.07, base="condition", detail_gain=10.0)
    for parameter in unet.unet.final_conv.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    options = {"target": ResidualTarget(), "window": 32}
    return {
        "3D U-Net regression": Baseline(unet, RegressionInferer(**options)),
        "no weights": None,
    }


def test_baselines_are_methods_with_weights_of_their_own(sweep, baselines, tmp_path):
    files = {name: tmp_path / f"{name}.pt" for name in ("model", "regression")}
    for name, file in files.items():
        file.write_bytes(name.encode())
    passes = []
    for name, baseline in baselines.items():
        if baseline:
            baseline.network.register_forward_hook(lambda *_, name=name: passes.append(name))
    options = {
        "items": [{"label": "x", "case": "sub-1"}],
        "settings": {"x2": {"factors": [2, 2, 2]}},
        "dial": [[1, None], [1, None, 2.0], [2, 0.5]],
        "weights_files": [files["model"]],
    }
    before = read_table(sweep(**options)[0].run())
    options |= {
        "baselines": baselines,
        "method_weights": {
            "3D U-Net regression": [files["regression"]],
        },
    }
    small, runs = sweep(**options)
    rows = read_table(small.run())
    assert rows[: len(before)] == before and runs == []  # rows of the model stay
    assert {(row["setting"], row["case"]) for row in rows} == {("x2", "sub-1")}
    added = {key[2:]: row for row in rows[len(before) :] for key in keys([row])}
    assert list(added) == [
        ("3D U-Net regression", "1", "", "1"),
        ("3D U-Net regression", "1", "", "2"),
    ]
    assert passes == ["3D U-Net regression"]  # a gain needs none
    assert len({row["psnr_brain"] for row in rows}) == len(rows)
    agreement = {row["method"]: float(row["consistency"]) for row in rows}
    assert all(float(row["consistency"]) < 1e-2 for row in added.values()), agreement

    files["regression"].write_bytes(b"trained on")
    renewed, runs = sweep(**options)
    assert {row["method"] for row in read_table(renewed.table)} == {row["method"] for row in rows}
    passes.clear()
    others = read_table(renewed.run())
    assert passes == ["3D U-Net regression"] and runs == [] and len(others) == len(rows)
    marks = {row["method"]: row["weights"] for row in others}
    assert marks["mean"] == marks["cubic"] == weights_mark(files["model"])
    assert [marks[name] for name in options["method_weights"]] == [
        weights_mark(files[name]) for name in ("regression",)
    ]
