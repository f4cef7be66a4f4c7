"""What is kept of a learned fusion."""

import pytest
import torch

from monai_diffens.messages import BundleRejected
from monai_diffens.networks.weights import shrink_fusion


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_shrunk_fusion_lies_between_the_average_and_the_learned_one(tiny_ensembler, share):
    network = tiny_ensembler()
    x, timesteps = torch.randn(1, 2, 8, 8, 8), torch.tensor([999])

    def predict(fusion: str) -> torch.Tensor:
        network.fusion = fusion
        with torch.no_grad():
            return network(x, timesteps)

    mean, learned = predict("mean"), predict("calibrated")
    assert (learned - mean).abs().max() > 1e-3
    shrink_fusion(network, share)
    torch.testing.assert_close(predict("calibrated"), mean + share * (learned - mean), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_outside_of_0_to_1_is_refused(tiny_ensembler, share):
    with pytest.raises(BundleRejected, match="fusion_share must lie between 0 and 1"):
        shrink_fusion(tiny_ensembler(), share)
