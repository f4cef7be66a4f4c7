"""Training a fusion that reads the planes' feature maps."""

import monai.bundle
import pytest
import torch

from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.networks.weights import fusion_of, load_weights, save_weights
from research.features.ensembler import FeatureEnsembler

pytestmark = [
    pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning"),
    pytest.mark.filterwarnings("ignore:Not all config files"),
]


def test_a_fusion_that_reads_feature_maps_is_trained_on_the_experts_of_a_model(run_tiny, arguments, tmp_path):
    options = {"channels": [8, 16], "norm_num_groups": 4, "num_head_channels": 8}
    model = DiffEnsembler(**options, calibrator_channels=[8, 16])
    save_weights(model.state_dict(), tmp_path / "model.pt")
    given = {"overlays": ("with_features",), "init_weights": str(tmp_path / "model.pt"), "val_interval": 3}
    workflow = run_tiny("train", **given, preview_interval=0, max_epochs=3)
    out = tmp_path / "out"
    network = FeatureEnsembler(**options, calibrator_channels=[8, 16])
    load_weights(network, out / "model.pt")
    assert all(parameter.any() for parameter in network.alignment.parameters())  # they start at zero
    for name, value in network.bank.state_dict().items():
        torch.testing.assert_close(value, model.bank.state_dict()[name], rtol=1e-2, atol=1e-3)
    assert workflow.parser.get_parsed_content("train#dataset").features

    shrunk = {"init_weights": str(out / "model.pt"), "output_dir": str(tmp_path / "shrunk")}
    monai.bundle.run("shrink", **arguments("train", overlays=("with_features",), **shrunk), fusion_share=0.5)
    before = network.calibrator.conv_out.weight.detach().clone()
    load_weights(fusion_of(network), tmp_path / "shrunk" / "fusion_features.pt")
    torch.testing.assert_close(network.calibrator.conv_out.weight, 0.5 * before, rtol=1e-2, atol=1e-4)
