"""The bank is its experts run slice by slice: nothing added, nothing mixed up, nothing run in vain."""

from collections import defaultdict

import pytest
import torch

from monai_diffens.acquisition.slicing import PLANES, plane_axis
from monai_diffens.networks.expert_bank import ExpertBank

SIZE = (9, 12, 7)
TIMESTEPS = torch.tensor([30, 870])
TWO = ("flair", "t1ce")


@pytest.fixture
def bank(tiny_ensembler):
    """Function (options) to a bank with random weights."""
    return lambda **options: tiny_ensembler(**options).bank


def batch(conditions: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, 1, *SIZE), torch.rand(2, conditions, *SIZE)


def count_runs(bank: ExpertBank, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """How many slices each plane's network is going to be given, a number a pass."""
    runs = defaultdict(list)
    for name, expert in zip(bank.planes, bank.experts, strict=True):

        def counted(slices, *arguments, run=expert.predict_runs, name=name):
            runs[name].append(sum(map(len, slices)))
            return run(slices, *arguments)

        monkeypatch.setattr(expert, "predict_runs", counted)
    return runs


@pytest.mark.parametrize("reach", [0, 2])
def test_equals_its_experts_run_by_hand(bank, reach):
    bank = bank(reach=reach)
    x_t, volumes = batch()
    expected = torch.empty(2, len(bank.names), *SIZE)
    with torch.no_grad():
        predictions = bank(x_t, volumes, TIMESTEPS)
        for e, plane in enumerate(bank.names):
            axis, expert = 2 + plane_axis(plane), bank.experts[e]
            last = x_t.shape[axis] - 1
            for n in range(last + 1):
                near = [min(max(n + offset, 0), last) for offset in range(-reach, reach + 1)]
                slices = [volumes[:, 0].select(axis - 1, m) for m in near]
                x = torch.stack([x_t[:, 0].select(axis - 1, n), *slices], dim=1)
                expected[:, e].select(axis - 1, n).copy_(expert(x, TIMESTEPS)[:, 0])
    assert predictions.std() > 0.05
    torch.testing.assert_close(predictions, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("slice_chunk", [1, 7, None])
def test_chunks_never_change_the_result(bank, slice_chunk, monkeypatch):
    whole, chunked = bank(slice_chunk=10**6), bank(slice_chunk=slice_chunk)
    sizes = count_runs(chunked, monkeypatch)
    x_t, volumes = batch()
    with torch.no_grad():
        expected = whole(x_t, volumes, TIMESTEPS)
        predictions = chunked(x_t, volumes, TIMESTEPS)
    assert {name: max(chunks) for name, chunks in sizes.items()} == {
        plane: slice_chunk or 2 * SIZE[plane_axis(plane)] for plane in PLANES
    }
    torch.testing.assert_close(predictions, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "present", [(True, False, True), (False, True, False), (False, False, False)], ids=str
)
def test_absent_experts_are_not_run_and_predict_zero(bank, present, monkeypatch):
    bank = bank()
    runs = count_runs(bank, monkeypatch)
    x_t, volumes = batch()
    with torch.no_grad():
        everyone = bank(x_t, volumes, TIMESTEPS)
        runs.clear()
        some = bank(x_t, volumes, TIMESTEPS, torch.tensor(present))
    for e, here in enumerate(present):
        slices = 2 * SIZE[plane_axis(bank.names[e])]
        assert sum(runs[bank.names[e]]) == (slices if here else 0)
        assert torch.equal(some[:, e], everyone[:, e] if here else torch.zeros(2, *SIZE))


def test_cases_of_a_batch_may_lack_different_conditions(bank, monkeypatch):
    bank = bank(conditions=TWO)
    runs = count_runs(bank, monkeypatch)
    x_t, volumes = batch(2)
    present = torch.tensor([[True, False] * 3, [False, False] * 3])
    with torch.no_grad():
        everyone = bank(x_t, volumes, TIMESTEPS)
        runs.clear()
        some = bank(x_t, volumes, TIMESTEPS, present)
    assert torch.equal(some, torch.where(present[:, :, None, None, None], everyone, torch.zeros(())))
    assert {plane: sum(slices) for plane, slices in runs.items()} == {
        plane: 2 * SIZE[plane_axis(plane)]
        for plane in PLANES  # the condition that nobody has is not run
    }


@pytest.mark.parametrize("changed", [0, 1])
def test_each_expert_sees_its_own_condition_only(bank, changed):
    bank = bank(conditions=TWO)
    assert bank.names == [f"{plane}/{name}" for plane in PLANES for name in TWO]
    x_t, volumes = batch(2)
    others = volumes.clone()
    others[:, changed] += 0.1
    with torch.no_grad():
        difference = (
            (bank(x_t, others, TIMESTEPS) - bank(x_t, volumes, TIMESTEPS)).abs().amax(dim=(0, 2, 3, 4))
        )
    for name, value in zip(bank.names, difference.tolist(), strict=True):
        assert (value > 1e-3) if name.endswith(TWO[changed]) else (value == 0)


@pytest.mark.parametrize("planes", [("sagittal",), ("coronal", "axial")], ids=str)
def test_order_and_names_follow_the_planes(bank, planes):
    assert bank(planes=planes).names == list(planes)
    assert bank(planes=planes)(*batch(), TIMESTEPS).shape == (2, len(planes), *SIZE)


def test_a_case_is_predicted_alike_alone_and_in_a_batch(bank):
    bank = bank()
    x_t, volumes = batch()
    with torch.no_grad():
        together = bank(x_t, volumes, TIMESTEPS)
        for i in range(2):
            alone = bank(x_t[i : i + 1], volumes[i : i + 1], TIMESTEPS[i : i + 1])
            torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-5)


def test_shares_of_several_processes_add_up(bank, monkeypatch):
    bank = bank()
    x_t, volumes = batch()
    runs = count_runs(bank, monkeypatch)
    with torch.no_grad():
        expected = bank(x_t, volumes, TIMESTEPS)
        runs.clear()
        total = torch.zeros_like(expected)
        monkeypatch.setattr(bank, "sum_over_processes", lambda share: None)
        for rank in range(3):
            bank.share(rank, 3)
            total += bank(x_t, volumes, TIMESTEPS)
    assert {name: sum(chunks) for name, chunks in runs.items()} == {
        plane: 2 * SIZE[plane_axis(plane)] for plane in PLANES
    }
    torch.testing.assert_close(total, expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="rank 3 is none of 3 processes"):
        bank.share(3, 3)


# --- joint experts ----------------------------------------------------------------------------------------

FOUR = ("t1", "t1ce", "t2", "flair")


@pytest.mark.parametrize("groups", [[FOUR], [("flair",), ("t1", "t1ce", "t2")]], ids=len)
def test_joint_experts_see_what_is_there_of_their_group(bank, groups):
    bank = bank(conditions=FOUR, groups=groups, target="t2", reach=1, num_class_embeds=8)
    x_t, volumes = batch(4)
    volumes[1, 1] = 0  # the second case lacks it
    has = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 1]])
    assert len(bank.names) == 3 * len(groups) and bank.target == 2
    with torch.no_grad():
        predictions = bank(x_t, volumes, TIMESTEPS)
        for e, name in enumerate(bank.names):
            plane, _, group = name.partition("/")
            members = group.split("+") if group else FOUR
            mask = torch.tensor([each in members for each in FOUR])
            axis, expert = 2 + plane_axis(plane), bank.experts[PLANES.index(plane)]
            last = x_t.shape[axis] - 1
            for n in range(last + 1):
                near = [min(max(n + offset, 0), last) for offset in (-1, 0, 1)]
                shown = (
                    torch.stack([volumes.select(axis, m) for m in near], dim=2) * mask[:, None, None, None]
                )
                there = (has * mask)[:, :, None, None].expand(-1, -1, *shown.shape[3:]).float()
                x = torch.cat([x_t.select(axis, n), shown.flatten(1, 2), there], dim=1)
                by_hand = expert(x, TIMESTEPS, None, torch.full((2,), 2))[:, 0]
                torch.testing.assert_close(predictions[:, e].select(axis - 1, n), by_hand, rtol=0, atol=1e-5)
        again = bank(x_t[1:], volumes[1:], TIMESTEPS[1:])  # alone it is told once for all slices
    torch.testing.assert_close(again, predictions[1:], rtol=0, atol=1e-5)
    assert predictions.std() > 0.05


def test_a_joint_expert_is_absent_where_all_of_its_conditions_are(tiny_ensembler):
    network = tiny_ensembler(conditions=FOUR, groups=[("flair",), ("t1", "t2")], num_class_embeds=4)
    _, volumes = batch(4)
    volumes[0, 3] = 0
    volumes[1, :3] = 0
    assert network.bank.present(volumes).tolist() == [[False, True] * 3, [True, False] * 3]


def test_a_group_of_an_unknown_condition_is_refused():
    with pytest.raises(ValueError, match="unknown condition 'pd'"):
        ExpertBank(conditions=FOUR, groups=[("t1", "pd")])
