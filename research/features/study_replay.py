"""Cached draws that several trainings share: of fewer subjects on demand, with the experts' feature maps."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from monai.data import Dataset
from monai.utils import convert_to_tensor
from torch import Tensor

from monai_diffens.acquisition.slicing import plane_axis, to_slices, to_volume
from monai_diffens.data.expert_replay import ExpertReplay
from monai_diffens.networks.weights import save_atomically


class FirstSubjects(Dataset):
    """A dataset whose items are those of the first ``count`` of another, which take the others' places.

    Its length is the other's, so whoever draws items at random draws the same numbers, and a draw of one of
    the first items is the same draw.

    Args:
        source: the other dataset.
        count: number of its items to use; all when None.

    Raises:
        ValueError: when the source does not have as many.
    """

    def __init__(self, source: Sequence[Mapping[str, Any]], count: int | None = None) -> None:
        self.source = source  # named so that set_rnd finds its transforms
        self.count = len(source) if count is None else count
        if not 0 < self.count <= len(source):
            raise ValueError(f"{count} subjects of {len(source)}")

    def __len__(self) -> int:
        """Length of the source."""
        return len(self.source)

    def __getitem__(self, index: int) -> Any:  # type: ignore[override]
        """An item of the first ``count``."""
        return self.source[index % self.count]


class StudyReplay(ExpertReplay):
    """Replay buffer for trainings that are compared: files of one folder serve all of them.

    Draw n has the same timestep, noise and place in the source's random sequence whatever the subjects are,
    and files are told apart by the subject too. Files are never deleted here: the folder belongs to one bank,
    seed and source. Crops begin on the grid of the experts' patches, so that feature maps can be cut.

    Args:
        source: the full dataset.
        subjects: number of its first items to use, see :class:`FirstSubjects`.
        features: whether items hold the decoders' finest maps, entry "maps": for each plane
            (M, S, C, S / p, S / p) of crops of S voxels and patches of p, 0 for absent conditions. Files
            hold them in any case.
        **options: of :class:`ExpertReplay`.
    """

    def __init__(
        self,
        source: Sequence[Mapping[str, Any]],
        subjects: int | None = None,
        features: bool = False,
        **options: Any,
    ) -> None:
        chosen = FirstSubjects(source, subjects)
        super().__init__(cast(Sequence[Mapping[str, Any]], chosen), **options)
        self.subjects = chosen.count
        self.features = features
        self.resumed = True  # files that are there are used
        denoiser: Any = self.bank.experts[0]
        self.patch = int(denoiser.feature_strides[-1])
        self.maps: dict[str, Tensor] = {}
        if self.flip_prob:
            raise ValueError("crops with feature maps are not flipped: flip_prob must be 0")
        if self.crop_size % self.patch:
            raise ValueError(f"crops of {self.crop_size} voxels are no whole patches of {self.patch}")

    def entry(self, number: int) -> dict[str, Any]:
        """Draw ``number``, from its file where there is one."""
        if self.folder is None:
            return self.draw(number)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"draw_{number:06d}_subject_{self.subject(number):02d}.pt"
        if not path.is_file():
            save_atomically(self.draw(number), path)
        return torch.load(path, mmap=True, weights_only=True)

    def subject(self, number: int) -> int:
        """Number of the source's item that draw ``number`` is of."""
        return self.chance(number).case % self.subjects

    def draw(self, number: int) -> dict[str, Any]:
        """Run the experts, see :class:`ExpertReplay`.

        Entry "maps" holds each plane's decoder maps, "seconds" the processor time it took.
        """
        started = time.process_time()
        entry = super().draw(number)
        maps, self.maps = self.maps, {}
        return entry | {"maps": maps, "seconds": time.process_time() - started}

    def run_experts(
        self, x_t: Tensor, conditions: Tensor, timesteps: Tensor, present: Tensor | None
    ) -> Tensor:
        """What the frozen experts say, (1, E, X, Y, Z); their finest maps are kept for the entry."""
        predictions, features = self.bank.predict_with_features(x_t, conditions, timesteps, present)
        count = len(self.bank.conditions)
        self.maps = {}
        for first, plane in enumerate(self.bank.planes):
            of_plane = features[first * count : (first + 1) * count]
            shape = next(each[-1].shape for each in of_plane if each)
            whole = [each[-1] if each else x_t.new_zeros(shape) for each in of_plane]
            self.maps[plane] = torch.stack(whole).half().cpu()
        return predictions

    def __getitem__(self, index: int) -> dict[str, Any]:  # type: ignore[override]
        """One random crop, as :class:`ExpertReplay` gives it, with its part of the maps on demand."""
        if not self.entries:
            self.fill()
        entry = dict(self.entries[self.R.randint(len(self.entries))])
        maps = entry.pop("maps")
        shape = entry["volumes"].shape[1:]
        places = [(side - self.crop_size) // self.patch + 1 for side in shape]
        box = [slice(p, p + self.crop_size) for p in (self.patch * self.R.randint(n) for n in places)]
        volumes = convert_to_tensor(
            entry["volumes"][(slice(None), *box)], dtype=torch.float32, track_meta=False
        )
        entry["volumes"] = volumes
        if self.features:
            entry["maps"] = {plane: cut_maps(each, plane, box, self.patch) for plane, each in maps.items()}
        return entry


def cut_maps(maps: Tensor, plane: str, box: Sequence[slice], patch: int) -> Tensor:
    """Part of a plane's maps (M, N, C, H / p, W / p) over a box of voxels whose ends are multiples of p."""
    volume = to_volume(maps.flatten(0, 1), plane, maps.shape[0])  # (M, C, ...), coarse in the plane
    along = plane_axis(plane)
    x, y, z = (
        part if axis == along else slice(part.start // patch, part.stop // patch)
        for axis, part in enumerate(box)
    )
    return to_slices(volume[:, :, x, y, z].float(), plane).unflatten(0, (maps.shape[0], -1))
