"""Rigid registration of two scans of one head, and a measure of how well they lie on each other.

itk-elastix registers (extra ``register``): rigid, mutual information, no masks, one thread. What surrounds it
here keeps it from what it does badly: a constant image ends the process, noise or another person gives a
motion and no error, and scans that lie well already are moved by half a millimetre. So the agreement is
measured before and after, by gradients inside the brain, and decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, binary_erosion, gaussian_filter1d

from monai_diffens.files import installed

RISE = 0.01  # of the agreement, below which the header's pose is kept; 1 mm off costs 0.015 to 0.046
SMALLEST_MOVE = 0.8  # mm, over the brain: the error of a registration itself, so that less is no motion
LOWEST_AGREEMENT = 0.25  # different subjects: 0.05 to 0.22; one subject: 0.34 to 0.52
DOUBTFUL_AGREEMENT = 0.30
LARGEST_TURN = 45.0  # degrees; within a session heads turn by a few
LARGEST_SHIFT = 100.0  # mm
SMALLEST_OVERLAP = 0.5  # of the brain that the other scan's field of view holds
BLUR = 1.5  # mm, of the gradients
RIM = 3.0  # mm of the brain's edge that are not compared: masks differ there
STRONGEST = 3.0  # times the median gradient, at which its weight is cut
WORKING_SPACING = 1.0  # mm, of the grid on which agreement is measured
FEWEST_SLICES = 8  # along an axis; thinner stacks are interpolated before they are registered

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


class ElastixMissing(ImportError):
    """The extra ``register`` is not installed."""


class RegistrationFailed(ValueError):
    """Two scans could not be brought onto each other.

    Attributes:
        why: "constant", "not_finite", "overlap", "implausible" or "agreement".
        numbers: what was measured: ``degrees``, ``mm``, ``before``, ``after``, ``overlap``, as far as known.
    """

    def __init__(self, why: str, **numbers: float) -> None:
        super().__init__(why, numbers)
        self.why, self.numbers = why, numbers


@dataclass(frozen=True, eq=False)
class Scan:
    """A volume and where it lies.

    Attributes:
        values: (X, Y, Z).
        affine: (4, 4), voxel index to RAS+ mm.
    """

    values: NDArray[np.floating]
    affine: NDArray[np.floating]

    @property
    def spacing(self) -> NDArray[np.floating]:
        """(3,) mm along the voxel axes."""
        return nib.affines.voxel_sizes(np.asarray(self.affine, dtype=float))

    def on(
        self,
        affine: NDArray[np.floating],
        shape: tuple[int, ...],
        motion: NDArray[np.floating] | None = None,
        order: int = 1,
        mode: str = "constant",
    ) -> NDArray[np.floating]:
        """Values at the voxels of another grid, in one interpolation.

        Args:
            affine: (4, 4) of the other grid.
            shape: (X, Y, Z) of the other grid.
            motion: (4, 4), from mm of the other grid to mm of this scan; none when None.
            order: of the spline: 1 linear, 3 cubic.
            mode: of what lies outside of this scan, as scipy names it: "constant" for 0, "nearest".
        """
        motion = np.eye(4) if motion is None else motion
        step = np.linalg.inv(self.affine) @ motion @ affine
        return affine_transform(
            self.values, step[:3, :3], step[:3, 3], output_shape=shape, order=order, mode=mode
        )


@dataclass(frozen=True, eq=False)
class RigidMotion:
    """Where the fixed scan's points lie in the moving scan.

    Attributes:
        matrix: (4, 4), fixed mm to moving mm, RAS+.
        centre: (3,) mm, the point of the fixed scan at which the shift is told.
    """

    matrix: NDArray[np.floating]
    centre: NDArray[np.floating]

    @property
    def degrees(self) -> float:
        """Angle of the turn."""
        cosine = (np.trace(self.matrix[:3, :3]) - 1) / 2
        return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))

    @property
    def mm(self) -> float:
        """How far the centre moves."""
        return float(np.linalg.norm(nib.affines.apply_affine(self.matrix, self.centre) - self.centre))

    @classmethod
    def none(cls, centre: NDArray[np.floating]) -> RigidMotion:
        """No motion."""
        return cls(np.eye(4), np.asarray(centre, dtype=float))


@dataclass(frozen=True, eq=False)
class Registration:
    """What became of one pair.

    Attributes:
        motion: to be applied; none where the header's pose was kept.
        before: agreement at the header's pose.
        after: agreement after ``motion``; that of before where the pose was kept.
        moved: whether a motion is applied.
    """

    motion: RigidMotion
    before: float
    after: float
    moved: bool

    @property
    def doubtful(self) -> bool:
        """Whether the agreement is low for two scans of one head."""
        return not self.after >= DOUBTFUL_AGREEMENT

    def plain(self) -> dict[str, float | str]:
        """Numbers for a JSON file: mm and degrees of the motion, agreement before and after."""
        return {
            "Pose": "registered" if self.moved else "header",
            "ShiftMillimetres": round(self.motion.mm, 2),
            "TurnDegrees": round(self.motion.degrees, 2),
            "AgreementBefore": round(self.before, 3),
            "AgreementAfter": round(self.after, 3),
        }


def align(fixed: Scan, moving: Scan, brain: NDArray[np.bool_], always: bool = False) -> Registration:
    """Register a scan to another where that makes them agree better.

    Args:
        fixed: the scan that stays.
        moving: the other one of the same head.
        brain: bool, (X, Y, Z) of the fixed scan.
        always: take the registration whatever the agreement was before; it must still not get worse.

    Returns:
        The motion, and the agreement before and after it.

    Raises:
        RegistrationFailed: no motion makes them agree as two scans of one head do.
        ElastixMissing: a registration is needed and its extra is not installed.
    """
    for scan in (fixed, moving):
        check_registrable(scan)
    grid = WorkingGrid.of(fixed, brain)
    points = nib.affines.apply_affine(fixed.affine, np.argwhere(brain)[:: max(1, int(brain.sum()) // 2000)])
    centre = points.mean(axis=0)
    before, _ = grid.agreement_with(moving, np.eye(4))
    motion = RigidMotion(register_rigid(fixed, moving), centre)
    after, overlap = grid.agreement_with(moving, motion.matrix)
    seen = {"mm": motion.mm, "degrees": motion.degrees, "before": before, "after": after, "overlap": overlap}
    kept = Registration(RigidMotion.none(centre), before, before, moved=False)
    plausible = motion.degrees <= LARGEST_TURN and motion.mm <= LARGEST_SHIFT
    enough = overlap >= SMALLEST_OVERLAP and after >= LOWEST_AGREEMENT and plausible
    shift = np.linalg.norm(nib.affines.apply_affine(motion.matrix, points) - points, axis=1).mean()
    better = after >= before + RISE and shift >= SMALLEST_MOVE
    if enough and (better or (always and not after < before - RISE)):
        return Registration(motion, before, after, moved=True)
    if before >= LOWEST_AGREEMENT and not always:
        return kept
    if not plausible:
        raise RegistrationFailed("implausible", **seen)
    if overlap < SMALLEST_OVERLAP:
        raise RegistrationFailed("overlap", **seen)
    raise RegistrationFailed("agreement", **seen)


def check_registrable(scan: Scan) -> None:
    """Raise RegistrationFailed for values that elastix cannot take: some of them end the process."""
    low, high = float(scan.values.min()), float(scan.values.max())
    if not math.isfinite(low) or not math.isfinite(high):
        raise RegistrationFailed("not_finite")
    if low == high:
        raise RegistrationFailed("constant")


def register_rigid(fixed: Scan, moving: Scan) -> NDArray[np.floating]:
    """Motion (4, 4) from mm of the fixed scan to mm of the moving one, RAS+; the same for equal scans.

    The finer one of the two is what elastix calls fixed: it samples there.

    Raises:
        RegistrationFailed: an image is constant or not finite, or elastix found too few common voxels.
        ElastixMissing: the extra ``register`` is not installed.
    """
    for scan in (fixed, moving):
        check_registrable(scan)
    if not installed("itk-elastix"):
        raise ElastixMissing("itk-elastix")
    if fixed.spacing.max() > moving.spacing.max() * 1.01:
        return np.linalg.inv(_register(moving, fixed))
    return _register(fixed, moving)


def _register(fixed: Scan, moving: Scan) -> NDArray[np.floating]:
    import itk

    settings = itk.ParameterObject.New()
    rigid = settings.GetDefaultParameterMap("rigid")
    rigid["NumberOfResolutions"] = ["3"]
    rigid["NumberOfSpatialSamples"] = ["4096"]
    rigid["AutomaticTransformInitialization"] = ["true"]
    rigid["AutomaticTransformInitializationMethod"] = ["CenterOfGravity"]
    rigid["WriteResultImage"] = ["false"]
    settings.AddParameterMap(rigid)
    method = itk.ElastixRegistrationMethod.New(_to_itk(fixed), _to_itk(moving))
    method.SetParameterObject(settings)
    method.SetLogToConsole(False)
    method.SetNumberOfThreads(1)
    try:
        method.UpdateLargestPossibleRegion()
    except RuntimeError as error:  # "too many samples map outside": its text is pages long
        raise RegistrationFailed("overlap", overlap=0.0) from error
    found = method.GetTransformParameterObject().GetParameterMap(0)
    x, y, z, *shift = (float(value) for value in found["TransformParameters"])
    centre = np.array([float(value) for value in found["CenterOfRotationPoint"]])
    turn = euler_matrix(x, y, z)
    lps = np.eye(4)
    lps[:3, :3], lps[:3, 3] = turn, centre + shift - turn @ centre
    return RAS_TO_LPS @ lps @ RAS_TO_LPS


def euler_matrix(x: float, y: float, z: float) -> NDArray[np.floating]:
    """(3, 3) turn Rz Rx Ry of three angles in radians, as ITK's Euler3DTransform orders them."""
    cx, sx, cy, sy, cz, sz = (f(angle) for angle in (x, y, z) for f in (math.cos, math.sin))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_x @ about_y


def _to_itk(scan: Scan) -> Any:
    import itk

    scan = _for_elastix(scan)
    image = itk.GetImageFromArray(np.ascontiguousarray(scan.values.T, dtype=np.float32))
    lps = RAS_TO_LPS @ scan.affine
    image.SetOrigin([float(value) for value in lps[:3, 3]])
    image.SetSpacing([float(value) for value in scan.spacing])
    direction = np.ascontiguousarray(lps[:3, :3] / scan.spacing)
    image.SetDirection(itk.matrix_from_array(direction))
    return image


def _for_elastix(scan: Scan) -> Scan:
    """The scan itself; on a straight grid of its spacing where its axes are sheared or its slices few."""
    direction = scan.affine[:3, :3] / scan.spacing
    sheared = not np.allclose(direction.T @ direction, np.eye(3), atol=1e-3)
    if not sheared and min(scan.values.shape) >= FEWEST_SLICES:
        return scan
    spacing = np.minimum(scan.spacing, np.maximum(scan.spacing.min(), WORKING_SPACING))
    affine, shape = straight_grid(scan, spacing) if sheared else finer_grid(scan, spacing)
    return Scan(scan.on(affine, shape, mode="nearest"), affine)


def finer_grid(
    scan: Scan, spacing: NDArray[np.floating]
) -> tuple[NDArray[np.floating], tuple[int, int, int]]:
    """Affine and shape of a grid along the scan's own axes, over the same field of view."""
    size = np.array(scan.values.shape)
    x, y, z = (max(1, round(value)) for value in size * scan.spacing / spacing)
    step = np.diag([*(spacing / scan.spacing), 1.0])
    step[:3, 3] = (size - 1) / 2 - step[:3, :3] @ ((np.array([x, y, z]) - 1) / 2)
    return scan.affine @ step, (x, y, z)


def straight_grid(
    scan: Scan, spacing: NDArray[np.floating] | float
) -> tuple[NDArray[np.floating], tuple[int, int, int]]:
    """Affine and shape of a grid along right, front and head that holds the scan."""
    corners = nib.affines.apply_affine(scan.affine, _corners(np.array(scan.values.shape) - 1))
    low, high = corners.min(axis=0), corners.max(axis=0)
    spacing = np.broadcast_to(np.asarray(spacing, dtype=float), 3)
    x, y, z = (int(count) + 1 for count in np.ceil((high - low) / spacing))
    return nib.affines.from_matvec(np.diag(spacing), low), (x, y, z)


def _corners(last: NDArray[np.integer]) -> NDArray[np.integer]:
    return np.stack(np.meshgrid(*([0, end] for end in last), indexing="ij"), axis=-1).reshape(-1, 3)


class WorkingGrid:
    """The fixed scan on 1 mm voxels around its brain, where agreement with others is measured.

    Args:
        fixed: gradients of the fixed scan, (3, X, Y, Z).
        inside: bool, (X, Y, Z): brain without its edge.
        affine: (4, 4) of the grid.
    """

    def __init__(
        self, fixed: NDArray[np.floating], inside: NDArray[np.bool_], affine: NDArray[np.floating]
    ) -> None:
        self.fixed, self.inside, self.affine = fixed, inside, affine

    @classmethod
    def of(cls, fixed: Scan, brain: NDArray[np.bool_]) -> WorkingGrid:
        """Grid of a scan and its brain, bool of the scan's shape."""
        places = np.argwhere(brain)
        if not len(places):
            raise RegistrationFailed("overlap", overlap=0.0)
        low, high = np.maximum(places.min(axis=0) - 4, 0), places.max(axis=0) + 5
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        here = fixed.affine @ nib.affines.from_matvec(np.eye(3), low)
        cut = Scan(np.asarray(fixed.values[box], dtype=np.float32), here)
        affine, shape = finer_grid(cut, np.full(3, WORKING_SPACING))
        inside = Scan(brain[box].astype(np.float32), here).on(affine, shape, mode="nearest") > 0.5
        inside = binary_erosion(inside, iterations=round(RIM / WORKING_SPACING), border_value=0)
        return cls(gradients(cut.on(affine, shape, mode="nearest")), inside, affine)

    def agreement_with(self, moving: Scan, motion: NDArray[np.floating]) -> tuple[float, float]:
        """Agreement with a scan after a motion, and the share of the brain that the scan's field holds."""
        shape = self.inside.shape
        held = Scan(np.ones(moving.values.shape, dtype=np.float32), moving.affine)
        seen = held.on(self.affine, shape, motion) > 0.5
        overlap = float((seen & self.inside).sum() / max(int(self.inside.sum()), 1))
        values = Scan(np.asarray(moving.values, dtype=np.float32), moving.affine)
        moved = gradients(values.on(self.affine, shape, motion, mode="nearest"))
        return agreement(self.fixed, moved, self.inside & seen), overlap


def gradients(volume: NDArray[np.floating]) -> NDArray[np.float32]:
    """(3, X, Y, Z) gradients of a 1 mm volume, blurred by ``BLUR``."""
    found = []
    for axis in range(3):
        part = np.asarray(volume, dtype=np.float32)
        for other in range(3):
            part = gaussian_filter1d(part, BLUR, other, order=int(other == axis), truncate=3)
        found.append(part)
    return np.stack(found)


def agreement(one: NDArray[np.floating], other: NDArray[np.floating], inside: NDArray[np.bool_]) -> float:
    """How well edges of two volumes lie on each other: about 0 for unlike ones, 2/3 for equal ones.

    Mean of the squared cosine between both gradients, weighted by both magnitudes (each over its median and
    cut at 3), minus 1/3, which is what gradients of random directions have. It does not mind which of two
    tissues is brighter.

    Args:
        one: (3, X, Y, Z) gradients.
        other: the same of the other volume.
        inside: bool, (X, Y, Z): where they are compared.

    Returns:
        -1/3 to 2/3; NaN where there is nothing to compare.
    """
    a, b = one[:, inside], other[:, inside]
    sizes = [np.sqrt(np.square(each).sum(axis=0)) for each in (a, b)]
    medians = [float(np.median(size)) if size.size else 0.0 for size in sizes]
    if min(medians) <= 0:
        return math.nan
    weights = np.ones(a.shape[1], dtype=np.float64)
    for size, median in zip(sizes, medians, strict=True):
        weights *= np.minimum(size / median, STRONGEST)
    cosine = (a * b).sum(axis=0) / np.maximum(sizes[0] * sizes[1], 1e-20)
    return float((weights * np.square(cosine)).sum() / weights.sum() - 1 / 3)
