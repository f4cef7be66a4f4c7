"""What the shipped weights make of two fixed cases stays, to rounding, whatever moves in the code."""

import pytest
import torch
from bundle_copies import BUNDLE, TRANSLATION
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from monai_diffens.networks.weights import load_weights
from monai_diffens.transforms.thick_slices import measurement_for, record_sampling

SHAPE = (40, 48, 40)
# mean, deviation, two voxels, mean spread: float32, 3 steps, 2 samples; those of super-resolution computed at
# commit 7cc5c70, those of translation when its weights came
STORED = {
    (BUNDLE, 0): (0.228005, 0.309366, 0.638999, 0.635404, 0.020215),
    (BUNDLE, 1): (0.228202, 0.309821, 0.737407, 0.646439, 0.020254),
    (TRANSLATION, 0): (0.225368, 0.309867, 0.567902, 0.596643, 0.019286),
    (TRANSLATION, 1): (0.227378, 0.312925, 0.677656, 0.730576, 0.020724),
}


def contrasts(count: int, seed: int) -> torch.Tensor:
    """Textured balls, 0 outside."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in SHAPE), indexing="ij")
    ball = (sum(axis**2 for axis in grid) < 0.8)[None].float()
    smooth = torch.nn.functional.avg_pool3d(torch.rand(count, *SHAPE, generator=generator), 5, 1, 2)
    return (smooth + 0.3 * torch.rand(count, *SHAPE, generator=generator)) * ball


def scan(count: int, case: int) -> MetaTensor:
    """Conditions of a case, the last sliced every 4 mm; the second case of several lacks the first."""
    volumes, measurement = contrasts(count, case), measurement_for(SHAPE, (1, 1, 4))
    thick = measurement.restore(measurement(volumes[-1:]))
    if count > 1:
        thick = measurement.restore_inside(thick, volumes[-1:] > 0)
        volumes[0] *= 1 - case
    volumes[-1:] = thick
    inputs = MetaTensor(volumes, meta={"case": f"c{case}"})
    record_sampling(inputs, measurement)
    return inputs


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")
@pytest.mark.parametrize("bundle", [BUNDLE, TRANSLATION], ids=lambda path: path.name)
def test_results_stay(bundle):
    config = ConfigParser()
    config.read_config(bundle / "configs" / "inference.json")
    config["num_steps"], config["num_samples"], config["more::amp"] = 3, 2, False
    network = config.get_parsed_content("network_def").eval()
    load_weights(network, bundle / "models" / "model.pt")
    inferer = config.get_parsed_content("inferer").changed(progress=False)
    for case in range(2):
        result, spread = inferer(scan(1 if bundle == BUNDLE else 4, case)[None], network)[0].as_tensor()
        found = (result.mean(), result.std(), result[20, 24, 20], result[12, 30, 15], spread.mean())
        assert [float(value) for value in found] == pytest.approx(STORED[bundle, case], abs=2e-5)
