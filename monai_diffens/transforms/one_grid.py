"""Contrasts of one case on one grid: registered where they do not lie on each other, interpolated once."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NoReturn, cast

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from monai_diffens.acquisition.measurement import FWHM_TO_SIGMA, Measurement
from monai_diffens.contrasts import TARGET
from monai_diffens.files import installed
from monai_diffens.messages import InputRejected, say, warn
from monai_diffens.transforms.conditions import LOWEST_IN_BRAIN
from monai_diffens.transforms.intensity import on_one_grid
from monai_diffens.transforms.registration import (
    DOUBTFUL_AGREEMENT,
    ElastixMissing,
    Registration,
    RegistrationFailed,
    RigidMotion,
    Scan,
    WorkingGrid,
    align,
)
from monai_diffens.transforms.target_grid import RestoreToSpacingd
from monai_diffens.transforms.thick_slices import SAMPLING_KEY

REGISTER = ("auto", "always", "never")
SMALLEST_OVERLAP = 0.5  # of the brains, over the smaller one
SMALLEST_BRAIN = 200.0  # cm3, to be registered: less does not tell where the head lies
MOVES_KEY = "registration"


class OneGridd(MapTransform):
    """Bring the contrasts of a case to one target grid, each in one interpolation.

    The grid is that of the scan which the result has to agree with, whose slices would else no longer be
    whole rows of it; without that scan it is the grid of the thinnest one. The scan that gives it goes
    through :meth:`RestoreToSpacingd.restore`; so do others on its very voxels. What lies on other voxels,
    or is registered, goes by one cubic spline from its own slices, their profile undone, to the grid. No
    contrast but the measured one keeps values where its scan has none: 0 there, and above 0 where it has.

    ``data["registration"]`` tells, by contrast, what :meth:`Registration.plain` says.

    Args:
        keys: contrasts (1, X, Y, Z), MetaTensors in RAS order with an affine in mm, scaled, 0 outside of the
            brain; a case may lack some.
        spacing: see :class:`RestoreToSpacingd`, like ``profile`` and ``slice_thickness``.
        profile: of thick slices.
        slice_thickness: in mm.
        register: "auto" moves what agrees better then, "always" whatever it agrees, "never" nothing.
        measured_key: the contrast that the result agrees with.
        scan_key: where to keep that one on its own slices.

    Raises:
        InputRejected: brains share less than half of the smaller one, a registration failed, or slices are
            too far apart.
        ValueError: ``register`` is no choice.
    """

    def __init__(
        self,
        keys: KeysCollection,
        spacing: float | Sequence[float] | str | None = 1.0,
        profile: str = "box",
        slice_thickness: float | None = None,
        register: str = "auto",
        measured_key: str = TARGET,
        scan_key: str | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        if register not in REGISTER:
            raise ValueError(f"unknown register '{register}': use one of {', '.join(REGISTER)}")
        self.register, self.measured_key, self.scan_key = register, measured_key, scan_key
        self.target = RestoreToSpacingd(self.keys, spacing, profile, slice_thickness, allow_missing_keys=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Bring every key to the grid."""
        d = dict(data)
        scans = {str(key): d[key] for key in self.key_iterator(d)}
        for name in scans:
            self.target.check(d, name)
        giver = self.giver(scans)
        first, kept = self.target.restore(scans[giver])
        whole = support(scans[giver], first, np.eye(4))
        if giver == self.measured_key:
            if self.scan_key is not None:
                d[self.scan_key] = kept
        else:
            first = inside(first, whole)
        d[giver] = first
        told: dict[str, dict[str, float | str]] = {}
        for name, scan in scans.items():
            if name == giver:
                continue
            found = self.place(d, giver, scans[giver], name, scan)
            if found is not None:
                told[name] = found.plain()
            d[name], where = self.bring(d, found, (giver, scans[giver], first), (name, scan))
            overlap = shared(whole, where)
            if overlap < SMALLEST_OVERLAP:
                seen = {"one": giver, "other": name, "percent": 100 * overlap}
                raise InputRejected(say("no_overlap", name=str(d.get("case", "case")), **seen))
        if told:
            d[MOVES_KEY] = told
        return d

    def bring(
        self,
        data: dict[Hashable, Any],
        found: Registration | None,
        giver: tuple[str, MetaTensor, MetaTensor],
        moving: tuple[str, MetaTensor],
    ) -> tuple[MetaTensor, Tensor]:
        """A contrast on the grid, and where it has something there.

        Args:
            data: of the case, for its warnings.
            found: where the contrast lies; as its header says when None.
            giver: name of the contrast that gives the grid, its scan, and the grid.
            moving: name and scan of the other one.
        """
        motion = np.eye(4) if found is None else found.motion.matrix
        same = on_one_grid(giver[1], moving[1])
        if same and not (found is not None and found.moved):
            carried = self.target.restore(moving[1])[0]
        else:
            carried = self.carry(moving[1], giver[2], motion)
            if not same:
                warn(data, say("resampled", contrast=moving[0], first=giver[0]))
        where = support(moving[1], giver[2], motion)
        return inside(carried, where), where

    def giver(self, scans: Mapping[str, MetaTensor]) -> str:
        """Name of the contrast that gives the grid."""
        if self.measured_key in scans:
            return self.measured_key
        return min(scans, key=lambda name: float(scans[name].pixdim.max()))

    def carry(self, scan: MetaTensor, grid: MetaTensor, motion: NDArray[np.floating]) -> MetaTensor:
        """A scan (1, X, Y, Z) on the voxels of ``grid``, by one interpolation; ``motion`` maps its mm."""
        plan = self.target.plan(scan)
        knots = Measurement(plan.thick).knots(scan.as_tensor())[0].cpu().numpy()
        for axis, finer in enumerate(plan.average):
            if finer is not None:  # what the grid cannot show would alias
                width = np.sqrt(finer.factor**2 - 1) * FWHM_TO_SIGMA
                knots = gaussian_filter1d(knots, width, axis)
        source = Scan(knots, np.asarray(scan.affine, dtype=float))
        affine = np.asarray(grid.affine, dtype=float)
        values = source.on(affine, tuple(grid.shape[1:]), motion, order=3, mode="nearest")
        carried = MetaTensor(torch.as_tensor(values, dtype=scan.dtype)[None], meta=dict(scan.meta))
        carried.meta.pop(SAMPLING_KEY, None)
        carried.affine = torch.as_tensor(affine)
        return carried

    def place(
        self, data: dict[Hashable, Any], giver: str, fixed: MetaTensor, name: str, moving: MetaTensor
    ) -> Registration | None:
        """Where a contrast lies in the giver's mm, warnings told; None where nothing was measured."""
        if self.register == "never":
            return None
        pair = [Scan(_values(scan), np.asarray(scan.affine, dtype=float)) for scan in (fixed, moving)]
        smallest = min(float((scan.values > 0).sum() * scan.spacing.prod()) / 1000 for scan in pair)
        if smallest < SMALLEST_BRAIN:
            if self.register == "always":
                self.refuse(data, name, giver, "little_to_register", volume=smallest, limit=SMALLEST_BRAIN)
            return None
        brain = pair[0].values > 0
        try:
            if self.register == "auto" and not installed("itk-elastix"):
                return self.measured_only(data, giver, name, pair, brain)
            found = align(pair[0], pair[1], brain, always=self.register == "always")
        except ElastixMissing:
            self.refuse(data, name, giver, "no_elastix")
        except RegistrationFailed as failed:
            numbers = {"degrees": np.nan, "mm": np.nan, "before": np.nan, "after": np.nan, "overlap": np.nan}
            seen = numbers | failed.numbers
            seen["overlap"] *= 100
            self.refuse(data, name, giver, f"not_registered_{failed.why}", **seen)
        if found.moved:
            mm, degrees = found.motion.mm, found.motion.degrees
            warn(data, say("registered", contrast=name, first=giver, mm=mm, degrees=degrees))
        if found.doubtful:
            warn(data, say("doubtful", contrast=name, first=giver, after=found.after))
        return found

    def measured_only(
        self, data: dict[Hashable, Any], giver: str, name: str, pair: Sequence[Scan], brain: NDArray[np.bool_]
    ) -> Registration:
        """What can be told without the extra: how well the headers' poses agree."""
        before = WorkingGrid.of(pair[0], brain).agreement_with(pair[1], np.eye(4))[0]
        if not before >= DOUBTFUL_AGREEMENT:
            warn(data, say("may_be_apart", contrast=name, first=giver, before=before))
        return Registration(RigidMotion.none(np.zeros(3)), before, before, moved=False)

    def refuse(
        self, data: Mapping[Hashable, Any], name: str, giver: str, key: str, **seen: float
    ) -> NoReturn:
        """Raise InputRejected with the numbers."""
        case = str(data.get("case", "case"))
        raise InputRejected(say(key, name=case, contrast=name, first=giver, **seen))


def support(scan: MetaTensor, grid: MetaTensor, motion: NDArray[np.floating]) -> Tensor:
    """(1, X, Y, Z) bool: where a scan, on its own voxels, has something, on those of another grid.

    Never from the sign of an interpolated image: a spline swings below and above 0 around the brain.
    """
    source = Scan((_values(scan) > 0).astype(np.float32), np.asarray(scan.affine, dtype=float))
    affine = np.asarray(grid.affine, dtype=float)
    return torch.from_numpy(source.on(affine, tuple(grid.shape[1:]), motion, mode="nearest") >= 0.5)[None]


def inside(volume: MetaTensor, where: Tensor) -> MetaTensor:
    """A volume that is above 0 in its support and 0 outside."""
    cut = volume.clamp(min=LOWEST_IN_BRAIN) * where.to(volume.device)
    return cast(MetaTensor, cut)


def shared(one: Tensor, other: Tensor) -> float:
    """Voxels that two supports share, over those of the smaller: 0 to 1."""
    return float((one & other).sum()) / max(min(int(one.sum()), int(other.sum())), 1)


def _values(scan: MetaTensor) -> NDArray[np.float32]:
    return scan.as_tensor()[0].float().cpu().numpy()
