"""The command `export` on the translation bundle, with a small random network."""

import json
import zipfile
from pathlib import Path

import pytest
import torch

from monai_diffens.__main__ import main
from monai_diffens.commands.one_line import NOT_USABLE, WRONG_USE
from monai_diffens.data.bids import CONTRASTS
from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.networks.weights import save_weights

BUNDLE = Path(__file__).parents[2] / "bundles" / "diffensembler_translate"
TINY = {"channels": [8, 8, 16], "norm_num_groups": 4, "num_head_channels": 8}

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    copy = tmp_path_factory.mktemp("bundles") / BUNDLE.name
    (copy / "configs").mkdir(parents=True)
    config = json.loads((BUNDLE / "configs" / "inference.json").read_text())
    config["network_def"] |= TINY
    (copy / "configs" / "inference.json").write_text(json.dumps(config))
    (copy / "configs" / "metadata.json").write_bytes((BUNDLE / "configs" / "metadata.json").read_bytes())
    torch.manual_seed(0)
    network = DiffEnsembler(
        **{name: each for name, each in config["network_def"].items() if name != "_target_"}
    )
    with torch.no_grad():
        for parameter in network.parameters():  # the last layers start at zero
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    save_weights(network.state_dict(), copy / "models" / "model.pt")
    return copy


@pytest.mark.slow
def test_several_contrasts(bundle, tmp_path, capsys):
    path = tmp_path / "model.ts"
    main(["export", str(bundle), "--output", str(path), "--num_steps", "2", "--factors", "1", "1", "5"])
    assert "model.ts: written; differs from the bundle by" in capsys.readouterr().out
    conditions = torch.zeros(1, len(CONTRASTS), 24, 24, 20)
    conditions[:, [0, 3], 6:-6, 6:-6, 5:-5] = torch.rand(1, 2, 12, 12, 10)  # two of the four are absent
    result = torch.jit.load(path)(conditions)
    assert result.shape == (1, 1, 24, 24, 20) and result.isfinite().all()
    assert result[conditions[:, :1] > 0].std() > 0 and not result[..., 0].any()
    with zipfile.ZipFile(path) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("extra/metadata.json"))
        assert (
            json.loads(archive.read(metadata))["name"]
            == json.loads((BUNDLE / "configs" / "metadata.json").read_text())["name"]
        )


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (("--fusion", "median"), WRONG_USE),
        (("--num_steps", "0"), WRONG_USE),
        (("--factors", "0.5", "1", "1"), NOT_USABLE),
        (("--slice_profile", "bell"), WRONG_USE),
    ],
)
def test_a_setting_that_cannot_be_is_refused_in_one_line(bundle, tmp_path, capsys, options, status):
    with pytest.raises(SystemExit) as stop:
        main(["export", str(bundle), "--output", str(tmp_path / "model.ts"), *options])
    assert stop.value.code == status and capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_without_weights_it_is_refused_in_one_line(tmp_path, capsys):
    copy = tmp_path / BUNDLE.name
    (copy / "configs").mkdir(parents=True)
    for name in ("inference.json", "metadata.json"):
        (copy / "configs" / name).write_bytes((BUNDLE / "configs" / name).read_bytes())
    with pytest.raises(SystemExit) as stop:
        main(["export", str(copy), "--output", str(tmp_path / "model.ts")])
    line = capsys.readouterr().err
    assert stop.value.code == NOT_USABLE and "model.pt is missing" in line and line.count("\n") == 1
    assert not list(tmp_path.glob("model.ts"))
