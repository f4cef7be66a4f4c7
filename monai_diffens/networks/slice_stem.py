"""The ends of a 2D expert: slices to what its U-Net reads, and its output to a prediction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.schedulers import Scheduler
from torch import Tensor, nn

from monai_diffens.acquisition.slicing import from_slice_patches, to_slice_patches
from monai_diffens.networks.computation import as_computed


class SliceStem(nn.Module):
    """Patch stem of a :class:`PlaneDenoiser`, and what is known of the clean sample before any pass.

    Args:
        side: side of the patch that becomes one position.
        divisor: divides the sides that slices are padded to.
        detail_gain: amplification of the condition's detail, see :meth:`read`.
        prior_stds: as of the denoiser.
        prior_scale: likewise.
        schedule: likewise.
        num_train_timesteps: likewise.
        conditions: volumes that the condition slices come from.
    """

    def __init__(
        self,
        side: int,
        divisor: int,
        detail_gain: float,
        prior_stds: Sequence[float] | None,
        prior_scale: float,
        schedule: str,
        num_train_timesteps: int,
        conditions: int = 1,
    ) -> None:
        super().__init__()
        self.conditions = conditions
        signal = Scheduler(num_train_timesteps, schedule).alphas_cumprod ** 0.5
        self.register_buffer("signal_level", signal, persistent=False)
        self.side = side
        self.divisor = divisor
        self.detail_gain = detail_gain
        self.has_prior = prior_stds is not None
        self.register_buffer("prior_stds", torch.tensor(prior_stds or [1.0]), persistent=False)
        self.prior_scale = prior_scale

    def forward(
        self,
        x_t: Tensor,
        condition: list[Tensor],
        timesteps: Tensor,
        class_labels: Tensor | None,
        present: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the U-Net reads, and what its output is about.

        Args:
            x_t: patches (N, h, w, side^2), see :meth:`patches`.
            condition: those of each condition slice, neighbours included; volume by volume.
            timesteps: (N,), or (1,) for all.
            class_labels: likewise, or None.
            present: (N, conditions), or (1, conditions) for all: 1 where a volume is there, 0 where not;
                None where there is one volume alone.

        Returns:
            The U-Net's input (N, channels, h, w); what is expected of the prediction, in patches, and the
            factor on what the U-Net says beside it.
        """
        expected, gain = x_t.new_zeros(1), x_t.new_ones(1)
        if self.has_prior and class_labels is not None:
            # Karras et al., arXiv 2206.00364, about a prior mean and for v: the network predicts what is left
            # of v, at unit variance. At std 1 and mean 0 this is v itself.
            std = self.prior_stds[class_labels].to(x_t.dtype)[:, None, None, None]  # type: ignore[index]
            alpha = self.signal(timesteps, x_t.dtype)
            sigma, variance = (1 - alpha**2) ** 0.5, 1 - alpha**2 * (1 - std**2)
            mean = self.prior_mean(condition[len(condition) // 2], std)
            deviation = x_t - alpha * mean
            expected = alpha * sigma * (1 - std**2) / variance * deviation - sigma * mean
            gain = std / variance**0.5
            x_t = deviation * std / variance
        return self.read(x_t, condition, timesteps, present), expected, gain

    def read(
        self, x_t: Tensor, condition: list[Tensor], timesteps: Tensor, present: Tensor | None = None
    ) -> Tensor:
        """Patches of x_t and of the conditions' detail, and each condition's patch mean, as channels.

        x_t enters as alpha_t x_t, the best linear guess of the clean sample: where it is noise alone it
        is silent, instead of drowning the condition.

        The residual depends on detail of a few per cent of the condition's range, beside noise of unit
        variance; amplified against the patch mean of the middle slice it is learned many times sooner.

        Of several conditions each brings a channel that says whether it is there; an absent one is silent.

        Args:
            x_t: as in :meth:`forward`.
            condition: likewise.
            timesteps: likewise.
            present: likewise.
        """
        slices = len(condition) // self.conditions
        channels = [as_computed(self.signal(timesteps, x_t.dtype) * x_t)]
        for number in range(self.conditions):
            shown = condition[number * slices : (number + 1) * slices]
            mean = shown[slices // 2].mean(dim=3, keepdim=True)
            base = mean * -self.detail_gain
            for patches in shown:  # the mean is taken off and the rest amplified in one pass
                channels.append(as_computed(torch.add(base, patches, alpha=self.detail_gain)))
            level = 2 * mean - 1
            if present is not None:
                there = present[:, number].to(mean.dtype)[:, None, None, None]
                level = level * there
                channels.append(as_computed(there.expand_as(mean)))
            channels.append(as_computed(level))
        return torch.cat(channels, dim=3).permute(0, 3, 1, 2)

    def leave(self, output: Tensor, expected: Tensor, gain: Tensor) -> Tensor:
        """The prediction (N, 1, H, W), padded, of the U-Net's output (N, side^2, h, w).

        Args:
            output: what the U-Net says.
            expected: as :meth:`forward` gave it.
            gain: likewise.
        """
        patches = output.permute(0, 2, 3, 1)
        if self.has_prior:
            patches = expected + gain * patches
        return from_slice_patches(patches, self.side)

    def patches(self, slices: Tensor) -> Tensor:
        """Slices (N, C, H, W), padded, in patches (N, C, h, w, side^2)."""
        return to_slice_patches(slices, self.side, self.divisor)

    def signal(self, timesteps: Tensor, dtype: torch.dtype) -> Tensor:
        """alpha_t of each slice, (N, 1, 1, 1)."""
        signal = self.signal_level[timesteps.long()]  # type: ignore[index]
        return signal.to(dtype)[:, None, None, None]

    def prior_mean(self, condition: Tensor, stds: Tensor) -> Tensor:
        """Clean sample to expect, shaped as the condition.

        The middle condition slice as a residual to the brain (base "brain" of the training) where a group's
        prior is narrow, else 0.

        Args:
            condition: patches (N, h, w, side^2) of the middle condition slice.
            stds: (N, 1, 1, 1) of the priors.
        """
        anchored = (condition - (condition > 0).to(condition.dtype)) / self.prior_scale
        return torch.where(stds < 1, anchored, torch.zeros_like(anchored))
