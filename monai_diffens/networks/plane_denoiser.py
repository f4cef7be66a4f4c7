"""The 2D expert: MONAI's DiffusionModelUNet behind a patch stem, one per plane and condition group."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets.diffusion_model_unet import get_timestep_embedding
from monai.networks.schedulers import Scheduler
from torch import Tensor, nn

from monai_diffens.acquisition.slicing import from_slice_patches, to_slice_patches
from monai_diffens.networks.computation import as_computed, in_fast_layout
from monai_diffens.networks.scriptable_unet import ScriptableUNet


class PlaneDenoiser(nn.Module):
    """2D conditional denoiser of one anatomical plane.

    The slice and its condition slices pass a pixel-unshuffle stem: at equal width a patch of ``stem``
    quarters (2) or sixteenths (4) the cost of a pass. Any slice size is accepted; it is padded inside
    to what stem and levels need.

    Args:
        condition_channels: channels of the condition, neighbours included (2.5D: 5 a condition volume).
        conditions: volumes that these channels show, one behind the other. Of several (a joint expert) any
            may be absent: as many channels behind them say which are there.
        channels: width of each level of the U-Net.
        num_res_blocks: residual blocks a level.
        stem: side of the patch that becomes one position.
        norm_num_groups: groups of the group normalisation.
        num_head_channels: channels a head of the middle block's self-attention.
        num_class_embeds: number of condition groups, or of targets, when one network serves several, else
            None.
        detail_gain: amplification of the condition's detail, see :meth:`SliceStem.read`.
        prior_stds: what is known of the clean sample before any pass, a number a condition group: 1 knows
            nothing; below 1 the sample lies that far (standard deviation) about the condition itself, taken
            as a residual to the brain, see :meth:`SliceStem.prior_mean`. 1 for every group when None.
        prior_scale: divisor of the training's residuals, needed with ``prior_stds``.
        schedule: noise schedule it is trained for, a name in MONAI's NoiseSchedules.
        num_train_timesteps: length of the schedule.
    """

    def __init__(
        self,
        condition_channels: int = 5,
        conditions: int = 1,
        channels: tuple[int, ...] = (48, 96, 128),
        num_res_blocks: int = 1,
        stem: int = 4,
        norm_num_groups: int = 16,
        num_head_channels: int = 32,
        num_class_embeds: int | None = None,
        detail_gain: float = 10.0,
        prior_stds: Sequence[float] | None = None,
        prior_scale: float = 1.0,
        schedule: str = "cosine",
        num_train_timesteps: int = 1000,
    ) -> None:
        super().__init__()
        if condition_channels % conditions:
            raise ValueError(f"{condition_channels} channels are no whole number for {conditions} conditions")
        self.stem = stem
        self.condition_channels = condition_channels
        self.conditions = conditions
        self.divisor = stem * 2 ** (len(channels) - 1)
        self.slice_stem = SliceStem(
            stem,
            self.divisor,
            detail_gain,
            prior_stds,
            prior_scale,
            schedule,
            num_train_timesteps,
            conditions,
        )
        self.base_channels = channels[0]
        self.feature_channels = tuple(reversed(channels))
        # voxels a position of each feature map spans; every decoder block but the last ends with upsampling
        self.feature_strides = tuple(
            stem * 2 ** max(level - 1, 0) for level in reversed(range(len(channels)))
        )
        self.unet = ScriptableUNet(
            spatial_dims=2,
            in_channels=(1 + condition_channels) * stem**2 + conditions * (1 if conditions == 1 else 2),
            out_channels=stem**2,
            channels=channels,
            num_res_blocks=num_res_blocks,
            attention_levels=(False,) * len(channels),
            norm_num_groups=norm_num_groups,
            num_head_channels=num_head_channels,
            num_class_embeds=num_class_embeds,
        )

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, class_labels: Tensor | None = None
    ) -> Tensor:
        """Predict from cat[x_t, condition slices], of a joint expert cat[x_t, condition slices, presence].

        Args:
            x: (N, 1 + condition_channels, H, W); ``conditions`` channels more of a joint expert, each 1
                everywhere where that condition is there, else 0.
            timesteps: (N,).
            context: unused; MONAI's DiffusionInferer passes it.
            class_labels: (N,) condition group, when built with ``num_class_embeds``.

        Returns:
            (N, 1, H, W), in the prediction type it was trained for.
        """
        return self.predict_with_features(x, timesteps, class_labels)[0]

    def predict_with_features(
        self, x: Tensor, timesteps: Tensor, class_labels: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Predict as :meth:`forward`, and return the decoder's feature maps, coarsest first.

        Returns:
            The prediction (N, 1, H, W) and one map (N, channels, H / s, W / s) a level.
        """
        present: Tensor | None = None
        if self.conditions > 1:
            present = x[:, 1 + self.condition_channels :, 0, 0]
        patches = self.slice_stem.patches(x[:, : 1 + self.condition_channels])
        condition = [patches[:, 1 + k] for k in range(self.condition_channels)]
        h, expected, gain = self.slice_stem(patches[:, 0], condition, timesteps, class_labels, present)
        output, features = self.denoise(h, timesteps, class_labels)
        return self.slice_stem.leave(output, expected, gain)[..., : x.shape[2], : x.shape[3]], features

    def predict_runs(
        self,
        slices: list[Tensor],
        around: list[Tensor],
        timesteps: Tensor,
        class_labels: Tensor | None = None,
        present: Tensor | None = None,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Predict runs of neighbouring slices of a volume as :meth:`predict_with_features`, in one pass.

        A slice is cut into patches once, for all of which it is a neighbour.

        Args:
            slices: of each run, x_t (n, 1, H, W); the size is that of all runs.
            around: of each run, the conditions' slices from the first one's neighbours to the last one's,
                (n + condition_channels / conditions - 1, conditions, H, W).
            timesteps: (1,), or (N,) of all slices.
            class_labels: likewise, as in :meth:`forward`.
            present: likewise (1, conditions) or (N, conditions): what of a joint expert's is there.

        Returns:
            For each run its prediction (n, 1, H, W); the maps of all slices (N, channels, H / s, W / s).
        """
        sizes = [run.shape[0] for run in slices]
        single = timesteps.shape[0] == 1
        steps = [timesteps] * len(sizes) if single else list(timesteps.split(sizes))
        inputs: list[Tensor] = []
        about: list[tuple[Tensor, Tensor]] = []
        for i, size in enumerate(sizes):
            patches = self.slice_stem.patches(slices[i])[:, 0]
            shown = self.slice_stem.patches(around[i])
            condition: list[Tensor] = []
            for number in range(self.conditions):
                for k in range(shown.shape[0] - size + 1):
                    condition.append(shown[k : k + size, number])
            labels, there = class_labels, present
            if not single:
                if class_labels is not None:
                    labels = class_labels.split(sizes)[i]
                if present is not None:
                    there = present.split(sizes)[i]
            h, expected, gain = self.slice_stem(patches, condition, steps[i], labels, there)
            inputs.append(h)
            about.append((expected, gain))
        joined = inputs[0] if len(inputs) == 1 else torch.cat(inputs)
        output, features = self.denoise(joined, timesteps, class_labels)
        predictions: list[Tensor] = []
        for i, part in enumerate(output.split(sizes)):
            prediction = self.slice_stem.leave(part, about[i][0], about[i][1])
            predictions.append(prediction[..., : slices[i].shape[2], : slices[i].shape[3]])
        return predictions, features

    def denoise(
        self, h: Tensor, timesteps: Tensor, class_labels: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the U-Net: its output (N, stem^2, h, w) and its decoder's feature maps, coarsest first.

        MONAI's ``DiffusionModelUNet.forward`` keeps its decoder maps to itself, and a hook would not
        script, so its blocks are called here in its own order.
        """
        emb = self.unet.time_embed(get_timestep_embedding(timesteps, self.base_channels).to(h.dtype))
        if self.unet.num_class_embeds is not None:
            if class_labels is None:
                raise ValueError("class_labels are needed: built with num_class_embeds")
            emb = emb + self.unet.class_embedding(class_labels).to(h.dtype)
        h = self.unet.conv_in(in_fast_layout(h, h.shape[2] * h.shape[3]))
        skips: list[Tensor] = [h]
        for down_block in self.unet.down_blocks:
            h, outputs = down_block(hidden_states=h, temb=emb, context=None)
            for output in outputs:
                skips.append(output)
        h = self.unet.middle_block(hidden_states=h, temb=emb, context=None)
        features: list[Tensor] = []
        for up_block in self.unet.up_blocks:
            count: int = len(up_block.resnets)  # type: ignore[arg-type]
            h = up_block(hidden_states=h, res_hidden_states_list=skips[-count:], temb=emb, context=None)
            skips = skips[:-count]
            features.append(h)
        return self.unet.out(h), features


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
