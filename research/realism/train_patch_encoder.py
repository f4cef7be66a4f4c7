"""Train the encoder whose features the realism metrics (fid, mmd) compare.

    python -m research.realism.train_patch_encoder --dataset_dir BIDS_FOLDER [--output FILE]

Patches of the ``train`` subjects' sharp volumes, of all contrasts, are left as they are or degraded: thick
slices interpolated or restored by a spline, blurred, noisy, sharpened, with weaker or with misplaced detail.
Two linear heads on the features say what was done and which contrast it is, a third one how strongly; the
heads are then dropped. So the features tell what a generated volume may get wrong. The weights are written in
half precision with their SHA-256, by default where the metrics look for them. Printed at the end: how often
the heads are right on the ``val`` subjects, which have no part in the training.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from monai.transforms import Compose, LoadImaged, Orientationd
from monai.utils import set_determinism
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from monai_diffens.contrasts import CONTRASTS
from monai_diffens.networks.weights import save_weights
from monai_diffens.transforms.intensity import ScaleForegroundPercentiled
from research.data_pack import sharp_volumes
from research.realism.degraded_patches import KINDS, degraded_patches
from research.realism.patch_encoder import NUM_FEATURES, PATCH_SIZE, PatchEncoder
from research.realism.realism import ENCODER_FILE

BATCH_SIZE, LEARNING_RATE, STRENGTH_WEIGHT = 64, 3e-3, 5.0


class Judge(nn.Module):
    """The encoder with its three heads: kind, contrast, strength."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = PatchEncoder()
        self.heads = nn.Linear(NUM_FEATURES, len(KINDS) + len(CONTRASTS) + 1)

    def forward(self, patches: Tensor) -> tuple[Tensor, ...]:
        """Scores (N, kinds), scores (N, contrasts) and strengths (N, 1) of patches (N, 1, X, Y, Z)."""
        found: Tensor = self.heads(self.encoder.pooled(patches))
        return found.split([len(KINDS), len(CONTRASTS), 1], dim=1)


def train(judge: Judge, patches: TensorDataset, epochs: int, seed: int = 0) -> None:
    """Train for so many passes over the patches, flipped at random and with random brightness."""
    loader = DataLoader(
        patches, BATCH_SIZE, shuffle=True, drop_last=True, generator=torch.Generator().manual_seed(seed)
    )
    optimizer = torch.optim.AdamW(judge.parameters(), lr=LEARNING_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, epochs * len(loader))
    judge.train()
    for epoch in range(epochs):
        started, total = time.perf_counter(), 0.0
        for volumes, kind, contrast, strength in loader:
            flips = [axis for axis in (2, 3, 4) if torch.rand(1) < 0.5]
            brightness = 0.9 + 0.2 * torch.rand(len(volumes), 1, 1, 1, 1)
            scores, contrasts, strengths = judge(volumes.float().flip(flips) * brightness)
            loss = nn.functional.cross_entropy(scores, kind)
            loss = loss + nn.functional.cross_entropy(contrasts, contrast)
            loss = loss + STRENGTH_WEIGHT * nn.functional.mse_loss(strengths[:, 0], strength)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        seconds = time.perf_counter() - started
        print(f"epoch {epoch + 1}: loss {total / len(loader):.3f}, {seconds:.0f} s", flush=True)


@torch.no_grad()
def check(judge: Judge, patches: TensorDataset) -> dict[str, float]:
    """Share of patches whose kind and whose contrast are told, and the mean error of the strength."""
    judge.eval()
    found = [(judge(batch[0].float()), batch[1:]) for batch in DataLoader(patches, BATCH_SIZE)]
    scores, contrasts, strengths = (torch.cat([out[i] for out, _ in found]) for i in range(3))
    kind, contrast, strength = (torch.cat([wanted[i] for _, wanted in found]) for i in range(3))
    return {
        "kind": float((scores.argmax(dim=1) == kind).float().mean()),
        "contrast": float((contrasts.argmax(dim=1) == contrast).float().mean()),
        "strength_error": float((strengths[:, 0] - strength).abs().mean()),
    }


@torch.no_grad()
def standardise(encoder: PatchEncoder, patches: TensorDataset) -> None:
    """Standardise the features by those of the real patches."""
    encoder.eval()
    volumes, kinds = patches.tensors[:2]
    real = volumes[kinds == 0].split(BATCH_SIZE)
    encoder.standardise_by(torch.cat([encoder.pooled(batch.float()) for batch in real]))


def main() -> None:
    """Train, write the weights, and print the check on ``val``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dataset_dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=ENCODER_FILE, help="weights file to write")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    set_determinism(asked.seed)
    torch.set_flush_denormal(True)
    load = Compose(
        [
            LoadImaged("label", ensure_channel_first=True),
            Orientationd("label", axcodes="RAS", labels=None),
            ScaleForegroundPercentiled("label"),
        ]
    )
    sets = {
        split: degraded_patches(sharp_volumes(asked.dataset_dir, split), load, PATCH_SIZE, asked.seed)
        for split in ("train", "val")
    }
    print({split: len(patches) for split, patches in sets.items()}, flush=True)
    judge = Judge()
    train(judge, sets["train"], asked.epochs, asked.seed)
    standardise(judge.encoder, sets["train"])
    save_weights(judge.encoder.state_dict(), asked.output)
    print({split: check(judge, patches) for split, patches in sets.items()})


if __name__ == "__main__":
    main()
