"""The whole sampler as one TorchScript module: conditions in, volume out, nothing of this package needed.

For pipelines that know only a ``model.ts`` and MONAI's ``SimpleInferer``. Number of passes, scheduler, fusion
and seed are fixed when it is made.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from monai_diffens.acquisition.measurement import FIT_ITERATIONS, PROFILES, measurement_matrix
from monai_diffens.acquisition.slicing import PATCH_GRID
from monai_diffens.files import case_of
from monai_diffens.inferers.inferer import DiffEnsemblerInferer
from monai_diffens.inferers.region import FOREGROUND
from monai_diffens.inferers.sampling import SamplingScheduler, sample_with_prior
from monai_diffens.networks.diff_ensembler import DiffEnsembler
from monai_diffens.networks.predictions import EmptySpace
from monai_diffens.networks.slice_passes import slice_boxes
from monai_diffens.schedulers.prediction import from_clean, to_clean
from monai_diffens.target import target_base, to_residual


def sampling_plan(
    scheduler: SamplingScheduler, num_steps: int, restart: float | None
) -> tuple[list[int], list[list[float]]]:
    """Timesteps of the passes, and how x_t of each is made of the noise and of the clean samples before it.

    Deterministic solvers are linear: one walk over unit vectors in place of volumes shows all their
    coefficients, whatever the solver.

    Returns:
        One timestep a pass, and one row (noise, clean sample of pass 1, 2, ...) a pass and for the result.

    Raises:
        ValueError: the scheduler draws noise of its own, or is not linear.
    """

    def walk(scale: float, seed: int) -> tuple[list[int], Tensor]:
        unit = scale * torch.eye(num_steps + 1, dtype=torch.float64)
        times, rows = [], []

        def denoise(x_t: Tensor, t: int, step: int) -> Tensor:
            clean = unit[step + 1].reshape(x_t.shape)
            times.append(t)
            rows.append(x_t.flatten())
            return from_clean(clean, x_t, float(scheduler.alphas_cumprod[t]), scheduler.prediction_type)

        noise = unit[0].reshape(1, 1, -1, 1, 1)
        generator = torch.Generator().manual_seed(seed)
        result = sample_with_prior(denoise, noise, scheduler, num_steps, restart, generator)
        return times, torch.stack([*rows, result.flatten()]) / scale

    times, rows = walk(1.0, seed=0)
    if not torch.allclose(rows, walk(100.0, seed=1)[1], atol=1e-5):
        raise ValueError("only a scheduler that is linear and draws no noise of its own can be exported")
    return times, rows.tolist()


class ScriptedSampler(nn.Module):
    """What :class:`DiffEnsemblerInferer` computes of a plain tensor, in float32; compiles in TorchScript.

    Args:
        network: the model.
        inferer: settings are taken from it; maps and mixed precision are left out.
        factors: slice spacing of the scans along X, Y and Z in voxels of the conditions, 1 for a fine axis:
            the result then agrees with such scans. None for no consistency.
        profile: slice profile of those scans, without gaps.
    """

    def __init__(
        self,
        network: DiffEnsembler,
        inferer: DiffEnsemblerInferer,
        factors: tuple[float, float, float] | None = None,
        profile: str = "box",
    ) -> None:
        super().__init__()
        network.check_fusion(inferer.fusion)
        if profile not in PROFILES:
            raise ValueError(f"unknown slice profile '{profile}': use one of {', '.join(PROFILES)}")
        if factors is not None and min(factors) < 1:
            raise ValueError(f"factors are 1 or more, got {factors}")
        scheduler = inferer.scheduler
        self.network = network
        self.fusion = inferer.fusion
        self.timesteps, self.plan = sampling_plan(scheduler, inferer.num_steps, inferer.restart)
        self.seeds = [inferer.seed_of(case_of({}), number) for number in range(inferer.num_samples)]
        self.clean_of_x, self.clean_of_prediction = [], []
        one, zero = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for t in self.timesteps:
            level = float(scheduler.alphas_cumprod[t])
            self.clean_of_x.append(float(to_clean(zero, one, level, scheduler.prediction_type)))
            self.clean_of_prediction.append(float(to_clean(one, zero, level, scheduler.prediction_type)))
        self.factors = [float(factor) for factor in factors or (1, 1, 1)]
        self.profile = profile
        self.residual_scale = float(inferer.residual_scale)
        self.residual_gain = float(inferer.residual_gain)
        self.margin = inferer.margin
        self.grid = PATCH_GRID
        self.planes = network.planes
        self.base = inferer.base
        self.measured_channel = inferer.measured_channel
        self.project_experts = inferer.project_experts
        self.non_negative = inferer.non_negative
        self.emphasis = network.emphasis(inferer.condition_weights, inferer.plane_weights)
        self.threshold = FOREGROUND
        self.fit_iterations = FIT_ITERATIONS

    def forward(self, conditions: Tensor) -> Tensor:
        """Sample one volume a case.

        Args:
            conditions: (B, M, X, Y, Z), scaled as the bundle's preprocessing does, RAS.

        Returns:
            (B, 1, X, Y, Z) on the conditions' scale and grid.
        """
        with torch.no_grad():
            volumes: list[Tensor] = []
            for index in range(conditions.shape[0]):
                volumes.append(self.restore_case(conditions[index : index + 1].float()))
            return torch.cat(volumes)

    def restore_case(self, conditions: Tensor) -> Tensor:
        """One case (1, M, X, Y, Z) -> (1, 1, X, Y, Z)."""
        base = target_base(conditions, self.base)
        above = (conditions[0] > self.threshold).any(dim=0)
        if not bool(above.any()):
            return base
        x, x_end = self.extent(above.any(dim=2).any(dim=1))
        y, y_end = self.extent(above.any(dim=2).any(dim=0))
        z, z_end = self.extent(above.any(dim=1).any(dim=0))
        inside = conditions[:, :, x:x_end, y:y_end, z:z_end]
        size = conditions.shape
        projectors = [
            self.projector(size[2], x, x_end, self.factors[0], conditions.device),
            self.projector(size[3], y, y_end, self.factors[1], conditions.device),
            self.projector(size[4], z, z_end, self.factors[2], conditions.device),
        ]
        scan = inside[:, self.measured_channel : self.measured_channel + 1]
        if not bool((scan > self.threshold).any()):  # the case lacks the contrast that was measured
            projectors = [matrix[:0] for matrix in projectors]
        total = torch.zeros_like(inside[:, :1])
        for seed in self.seeds:
            total = total + self.sample_residual(seed, inside, projectors)
        residual = self.residual_scale * self.residual_gain * total / len(self.seeds)
        support = base > 0 if self.base == "brain" else torch.ones_like(base, dtype=torch.bool)
        restored = base.clone()
        restored[:, :, x:x_end, y:y_end, z:z_end] += residual
        if not self.non_negative:
            return restored * support
        result = restored.clamp(min=0.0) * support
        result[:, :, x:x_end, y:y_end, z:z_end] = self.fit_inside(
            restored[:, :, x:x_end, y:y_end, z:z_end],
            projectors,
            support[:, :, x:x_end, y:y_end, z:z_end],
        )
        return result

    def fit_inside(self, volume: Tensor, projectors: list[Tensor], support: Tensor) -> Tensor:
        """As :func:`~monai_diffens.acquisition.measurement.fit_inside`."""
        fitted = volume.clamp(min=0.0) * support
        if projectors[0].numel() + projectors[1].numel() + projectors[2].numel() == 0:
            return fitted
        for _ in range(self.fit_iterations):
            difference = volume - fitted
            fitted = (fitted + difference - self.unseen(difference, projectors)).clamp(min=0.0) * support
        return fitted

    def sample_residual(self, seed: int, conditions: Tensor, projectors: list[Tensor]) -> Tensor:
        """One sample of the scaled residual."""
        generator = torch.Generator()  # on the CPU, so that it is the same on every device
        generator.manual_seed(seed)
        noise = torch.randn(conditions[:, :1].shape, generator=generator)
        scan = conditions[:, self.measured_channel : self.measured_channel + 1]
        known = to_residual(scan, target_base(conditions, self.base), self.residual_scale)
        parts: list[Tensor] = [noise.to(conditions.device)]
        seen = (conditions > self.threshold).any(dim=1, keepdim=True)
        boxes = [slice_boxes(seen, plane) for plane in self.planes]
        for step, t in enumerate(self.timesteps):
            x_t = self.combine(self.plan[step], parts)
            timesteps = torch.full([x_t.shape[0]], t, device=x_t.device)
            of_x, of_prediction = self.clean_of_x[step], self.clean_of_prediction[step]
            empty = EmptySpace(boxes, -of_x / of_prediction)  # of a clean residual of 0
            experts = self.network.run_experts(
                x_t, conditions, timesteps, self.fusion, step, self.emphasis, empty
            )
            if self.project_experts:
                for index in range(experts.predictions.shape[1]):
                    prediction = experts.predictions[:, index : index + 1]
                    agreeing = known + self.unseen(
                        of_x * x_t + of_prediction * prediction - known, projectors
                    )
                    prediction.copy_((agreeing - of_x * x_t) / of_prediction)
            fused = self.network.fuse_experts(experts, x_t, conditions, timesteps, self.fusion)
            clean = of_x * x_t + of_prediction * fused.prediction
            parts.append(known + self.unseen(clean - known, projectors))
        return known + self.unseen(self.combine(self.plan[-1], parts) - known, projectors)

    def combine(self, weights: list[float], parts: list[Tensor]) -> Tensor:
        """Weighted sum of the parts there are so far."""
        total = torch.zeros_like(parts[0])
        for weight, part in zip(weights, parts):  # noqa: B905 (TorchScript's zip knows no `strict`)
            if weight != 0.0:
                total = total + weight * part
        return total

    def unseen(self, residual: Tensor, projectors: list[Tensor]) -> Tensor:
        """Remove what the scan would have seen of a residual; no matrix stands for a fine axis."""
        seen = residual
        x, y, z = projectors
        if x.numel() + y.numel() + z.numel() == 0:
            return residual
        if x.numel() > 0:
            seen = torch.einsum("wx,bcxyz->bcwyz", x, seen)
        if y.numel() > 0:
            seen = torch.einsum("wy,bcxyz->bcxwz", y, seen)
        if z.numel() > 0:
            seen = torch.einsum("wz,bcxyz->bcxyw", z, seen)
        return residual - seen

    def projector(self, size: int, begin: int, end: int, factor: float, device: torch.device) -> Tensor:
        """A+ A of one axis inside the region; empty for a fine axis."""
        if factor <= 1.0:
            return torch.zeros([0, 0], device=device)
        slices = max(1, int(torch.round(torch.tensor(size / factor, dtype=torch.float64)).item()))
        matrix = measurement_matrix(size, slices, factor, factor, self.profile)[:, begin:end]
        return (torch.linalg.pinv(matrix, rtol=1e-6) @ matrix).float().to(device)

    def extent(self, foreground: Tensor) -> tuple[int, int]:
        """Begin and end of the region along an axis, as :func:`foreground_box` has it."""
        places = foreground.nonzero()
        begin = max(0, int(places.min().item()) - self.margin) // self.grid * self.grid
        return begin, min(foreground.shape[0], int(places.max().item()) + 1 + self.margin)
