"""The sweep over the dial: what it degrades, restores and measures, and that it goes on where it stopped."""

import copy
import csv
from hashlib import sha256

import pytest
import torch
from monai.data import MetaTensor

from monai_diffens.engines.baselines import Baseline
from monai_diffens.engines.sweep import KEYS, DialSweep
from monai_diffens.engines.tables import append_row, read_table, weights_mark
from monai_diffens.inferers.inferer import DiffEnsemblerInferer
from monai_diffens.inferers.regression_inferer import RegressionInferer
from monai_diffens.metrics import volume_metrics
from monai_diffens.metrics.realism import patch_realism
from monai_diffens.networks.regression_unet import RegressionUNet
from monai_diffens.networks.volume_denoiser import VolumeDenoiser
from monai_diffens.schedulers.trailing_ddim import TrailingDDIMScheduler
from monai_diffens.transforms.thick_slices import measurement_for, thick_slice

SIZE = (18, 20, 22)
SETTINGS = {
    "x2 pooled": {"factors": [2, 2, 2]},
    "5 mm sagittal": {"factors": [5, 1, 1], "profile": "gaussian"},
}
FUSIONS = ("mean", "calibrated")
DIAL = [[1, None], (2, None), (2, 0.5), [2, 0.5, 1.5]]  # as JSON and as Python give it
INTERPOLATIONS = ("cubic", "restored spline")


def load(item) -> dict:
    """Preprocessing: a ball of texture on 0, by the case's number."""
    generator = torch.Generator().manual_seed(int(item["case"][-1]))
    grid = torch.meshgrid(*(torch.linspace(-1.1, 1.1, n) for n in SIZE), indexing="ij")
    volume = (sum(axis**2 for axis in grid) < 1) * (0.3 + 0.6 * torch.rand(SIZE, generator=generator))
    return {**item, "label": MetaTensor(volume[None], meta={"filename_or_obj": item["label"]})}


@pytest.fixture
def sweep(tiny_ensembler, tmp_path):
    """Function (options of DialSweep) to a small one, and how often its network runs."""

    def build(**options) -> tuple[DialSweep, list[str]]:
        network, runs = tiny_ensembler(), []
        predict = network.predict

        def counted(x_t, conditions, timesteps, fusion, step, emphasis, project):
            runs.append(fusion)
            return predict(x_t, conditions, timesteps, fusion, step, emphasis, project)

        network.predict = counted
        small = {
            "items": [{"label": "/data/x.nii.gz", "case": case} for case in ("sub-1", "sub-2")],
            "preprocessing": load,
            "network": network,
            "inferer": DiffEnsemblerInferer(TrailingDDIMScheduler(), progress=False, amp=False),
            "settings": SETTINGS,
            "fusions": FUSIONS,
            "dial": DIAL,
            "output_dir": tmp_path / "results" / "val",
        }
        return DialSweep(**(small | options)), runs

    return build


def keys(rows: list[dict[str, str]]) -> list[tuple[str, ...]]:
    return [tuple(row[key] for key in KEYS) for row in rows]


def test_every_method_is_measured_on_every_case_and_setting(sweep, tmp_path):
    small, runs = sweep()
    table = small.run()
    assert table == tmp_path / "results" / "val" / "sweep.csv"
    expected = [
        (setting, case, *method)
        for case in ("sub-1", "sub-2")
        for setting in SETTINGS
        for method in [
            *((name, "0", "", "1") for name in INTERPOLATIONS),
            *(
                (f, str(steps), str(restart or ""), str(gain[0]) if gain else "1")
                for steps, restart, *gain in DIAL
                for f in FUSIONS
            ),
        ]
    ]
    assert keys(read_table(table)) == expected
    assert runs.count("mean") == runs.count("calibrated") == 2 * 2 * (1 + 2 + 2)  # a gain needs no passes


def test_rows_are_what_a_hand_computes(sweep):
    small, _ = sweep(items=[{"label": "x", "case": "sub-1"}])
    rows = {key: row for row in read_table(small.run()) for key in keys([row])}
    for setting, options in SETTINGS.items():
        truth = load({"case": "sub-1", "label": "x"})["label"].as_tensor()
        profile = options.get("profile", "box")
        measurement = measurement_for(SIZE, options["factors"], profile)
        condition = thick_slice(MetaTensor(truth, meta={"case": "sub-1"}), options["factors"], profile)
        inferer = DiffEnsemblerInferer(
            TrailingDDIMScheduler(), num_steps=2, restart=0.5, fusion="mean", progress=False, amp=False
        )
        sharper = copy.copy(inferer)
        sharper.residual_gain = 1.5
        by_hand = {
            ("cubic", "0", "", "1"): measurement.interpolate(measurement(truth)),
            ("restored spline", "0", "", "1"): condition.as_tensor(),
            ("mean", "2", "0.5", "1"): inferer(condition[None], small.network)[0].as_tensor(),
            ("mean", "2", "0.5", "1.5"): sharper(condition[None], small.network)[0].as_tensor(),
        }
        for method, volume in by_hand.items():
            volume = volume.clamp(min=0)
            expected = volume_metrics(volume[0], truth[0], truth[0] > 0, data_range=1.0)
            expected["consistency"] = float((measurement(volume) - measurement(truth)).abs().mean())
            row = rows[(setting, "sub-1", *method)]
            assert list(row) == [*KEYS, *expected, "seconds"]
            for name, value in expected.items():
                assert float(row[name]) == pytest.approx(value, rel=1e-3, abs=1e-6), (method, name)
            assert float(row["seconds"]) > 0


def test_nothing_is_computed_twice(sweep):
    first, runs = sweep()
    rows = read_table(first.run())
    again, more = sweep()
    again.run()
    assert more == [] and read_table(again.table) == rows

    # one row lost, as when it was stopped before
    lost = next(i for i, key in enumerate(keys(rows)) if key[2:] == ("calibrated", "2", "0.5", "1"))
    again.table.unlink()
    for row in rows[:lost] + rows[lost + 1 :]:
        append_row(again.table, row)
    third, runs = sweep()
    renewed = read_table(third.run())
    assert runs == ["calibrated"] * 2
    strip = [{k: v for k, v in row.items() if k != "seconds"} for row in (rows[lost], renewed[-1])]
    assert strip[0] == strip[1] and len(renewed) == len(rows)


def test_new_points_of_the_dial_are_added(sweep):
    sweep()[0].run()
    more, runs = sweep(dial=[*DIAL, (3, None)], fusions=(*FUSIONS, "axial"))
    rows = read_table(more.run())
    assert len(rows) == 2 * 2 * (2 + 5 * 3)
    assert runs.count("mean") == 2 * 2 * 3 and runs.count("axial") == 2 * 2 * (1 + 2 + 2 + 3)


def test_region_is_the_central_box(sweep):
    seen = []
    small, _ = sweep(region=(12, 14, 16), fusions=(), settings={"x2": {"factors": [2, 2, 2]}})
    sweep_case = small.sweep_case
    small.sweep_case = lambda case, truth, *rest: seen.append(truth) or sweep_case(case, truth, *rest)
    small.run()
    expected = load({"case": "sub-1", "label": "x"})["label"][:, 3:15, 3:17, 3:19]
    assert torch.equal(torch.as_tensor(seen[0]), expected)


def test_the_swept_inferer_is_left_as_it_was(sweep):
    inferer = DiffEnsemblerInferer(TrailingDDIMScheduler(), num_steps=7, progress=False, amp=False)
    small, _ = sweep(inferer=inferer, items=[{"label": "x", "case": "sub-1"}])
    small.run()
    assert (inferer.num_steps, inferer.fusion, inferer.restart) == (7, "calibrated", 0.5)


def test_unknown_fusion_is_named_before_anything_runs(sweep):
    with pytest.raises(ValueError, match="unknown fusion 'best'"):
        sweep(fusions=("mean", "best"))


def test_table_is_plain_csv_with_one_header(tmp_path):
    path = tmp_path / "t.csv"
    assert read_table(path) == []
    for number in (1, 2):
        append_row(path, {"setting": "a, b", "psnr": 31.2345678 * number, "num_steps": number})
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["setting", "psnr", "num_steps"],
            ["a, b", "31.235", "1"],
            ["a, b", "62.469", "2"],
        ]


def test_rows_of_other_weights_are_not_used(sweep, tmp_path):
    files = [tmp_path / "model.pt", tmp_path / "encoder.pt"]
    for file in files:
        file.write_bytes(file.name.encode())
    (tmp_path / "model.pt.sha256").write_text("0123456789abcdef  model.pt\n")
    options = {"weights_files": [*files, None], "settings": {"x2": {"factors": [2, 2, 2]}}, "dial": DIAL[:1]}
    rows = read_table(sweep(**options)[0].run())
    mark = f"0123456789ab+{sha256(b'encoder.pt').hexdigest()[:12]}"
    assert {row["weights"] for row in rows} == {mark}
    again, runs = sweep(**options)
    assert read_table(again.run()) == rows and runs == []
    files[1].write_bytes(b"another")
    renewed, runs = sweep(**options)
    rows = read_table(renewed.run())
    assert len(runs) == 4 and {row["weights"] for row in rows} == {weights_mark(files)} != {mark}

    # neither is a table from before there were marks
    renewed.table.unlink()
    for row in rows:
        append_row(renewed.table, {key: value for key, value in row.items() if key != "weights"})
    old, runs = sweep(**options)
    old.run()
    assert len(runs) == 4


@pytest.fixture
def baselines() -> dict[str, Baseline | None]:
    """Small 3D networks that predict something, and one that there are no weights of."""
    torch.manual_seed(0)
    unet = RegressionUNet(1, [8] * 6, [1.0], 0.07, "condition", 10.0)
    denoiser = VolumeDenoiser((8, 16), norm_num_groups=4, num_head_channels=8, window=32, overlap=0.5)
    for parameter in (*unet.unet.final_conv.parameters(), *denoiser.unet.out.parameters()):
        torch.nn.init.normal_(parameter, std=0.1)
    options = {"residual_scale": 0.07, "measured_channel": 0, "base": "condition", "window": 32}
    inferer = DiffEnsemblerInferer(TrailingDDIMScheduler(), fusion="mean", progress=False, non_negative=True)
    return {
        "3D U-Net regression": Baseline(unet, RegressionInferer(**options)),
        "3D diffusion": Baseline(denoiser, inferer),
        "no weights": None,
    }


def test_baselines_are_methods_with_weights_of_their_own(sweep, baselines, tmp_path):
    files = {name: tmp_path / f"{name}.pt" for name in ("model", "regression", "volume_diffusion")}
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
            "3D diffusion": [files["volume_diffusion"]],
        },
    }
    small, runs = sweep(**options)
    rows = read_table(small.run())
    assert rows[: len(before)] == before and runs == []  # rows of the model stay
    assert {(row["setting"], row["case"]) for row in rows} == {("x2", "sub-1")}
    added = {key[2:]: row for row in rows[len(before) :] for key in keys([row])}
    assert list(added) == [
        ("3D U-Net regression", "1", "", "1"),
        ("3D diffusion", "1", "", "1"),
        ("3D U-Net regression", "1", "", "2"),
        ("3D diffusion", "1", "", "2"),
        ("3D diffusion", "2", "0.5", "1"),
    ]
    assert passes == ["3D U-Net regression"] + ["3D diffusion"] * 3  # a gain needs none
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
        weights_mark(files[name]) for name in ("regression", "volume_diffusion")
    ]


def test_realism_is_a_column(sweep, tmp_path):
    grid = torch.meshgrid(*[torch.linspace(-1, 1, 64)] * 3, indexing="ij")
    texture = 0.3 + 0.6 * torch.rand(64, 64, 64, generator=torch.Generator().manual_seed(0))
    truth = MetaTensor(((sum(axis**2 for axis in grid) < 1) * texture)[None])
    options = {
        "items": [{"label": "x", "case": "sub-1"}],
        "preprocessing": lambda item: {**item, "label": truth},
        "settings": {"4 mm": {"factors": [1, 1, 4]}},
        "fusions": (),
        "realism": patch_realism(),
    }
    rows = read_table(sweep(**options)[0].run())
    assert [row["method"] for row in rows] == list(INTERPOLATIONS)
    realism = patch_realism()
    measurement = measurement_for((64, 64, 64), [1, 1, 4])
    cubic = measurement.interpolate(measurement(truth.as_tensor())).clamp(min=0)
    expected = realism(cubic[0], truth.as_tensor()[0], truth.as_tensor()[0] > 0)
    assert {name: float(rows[0][name]) for name in expected} == pytest.approx(expected, rel=1e-3)
    assert set(expected) == {"fid", "mmd"} and expected["fid"] > 1
