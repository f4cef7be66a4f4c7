"""The buffer of varied volumes: its seed and count alone say what it holds; a few are renewed at a time."""

import numpy as np
import pytest
import torch
from monai.data import Dataset
from monai.transforms import Randomizable, RandScaleIntensityd

from monai_diffens.data.volume_replay import VolumeReplay


class Whole(Randomizable):
    """Crops that are the volumes themselves, twice."""

    def __call__(self, data):
        return [dict(data), dict(data)]


def replay(**options) -> VolumeReplay:
    items = [
        {"label": torch.full((1, 2, 2, 2), float(1 + number)), "case": f"case{number}"} for number in range(3)
    ]
    source = Dataset(items, RandScaleIntensityd("label", factors=0.4, prob=1.0))
    return VolumeReplay(source, Whole(), **({"slots": 4, "refresh": 2, "length": 9} | options))


def held(dataset: VolumeReplay) -> list[float]:
    dataset[0]
    return [float(entry["label"].float().mean()) for entry in dataset.entries]


def test_each_epoch_replaces_the_oldest_volumes_and_a_resumed_run_holds_the_same():
    dataset = replay()
    first = held(dataset)
    assert len(dataset) == 9 and len(dataset[0]) == 2 and len(set(first)) == 4
    dataset.renew()
    second = held(dataset)
    assert second[2:] == first[2:] and second[0] != first[0] and second[1] != first[1]
    dataset.renew()
    dataset.renew()
    resumed = replay()
    resumed.load_state_dict(dataset.state_dict())
    assert held(resumed) == held(dataset)
    assert held(replay(seed=1)) != first


def test_volumes_are_kept_in_half_precision_and_texts_stay():
    dataset = replay()
    dataset[0]
    assert dataset.entries[0]["label"].dtype == torch.float16
    assert type(dataset.entries[0]["label"]) is torch.Tensor and dataset.entries[0]["case"].startswith("case")


def test_items_are_drawn_by_their_weights():
    dataset = replay(slots=400, weights=[0.0, 3.0, 1.0])
    dataset[0]
    cases = [entry["case"] for entry in dataset.entries]
    assert "case0" not in cases
    assert cases.count("case1") / 400 == pytest.approx(0.75, abs=0.08)


def test_crops_come_from_all_slots_and_follow_the_random_state():
    dataset = replay()
    draws = []
    for _ in range(2):
        dataset.set_random_state(5)
        draws.append([float(dataset[n][0]["label"].mean()) for n in range(40)])
    assert draws[0] == draws[1]
    assert len(np.unique(draws[0])) == 4


@pytest.mark.parametrize("options", [{"slots": 0}, {"refresh": 5}, {"refresh": -1}])
def test_a_buffer_that_cannot_be(options):
    with pytest.raises(ValueError, match="refresh"):
        replay(**options)
