"""The replay buffer: what it holds is what the experts say, and training sees nothing else."""

import inspect
from collections import Counter

import numpy as np
import pytest
import torch
from monai.data import DataLoader, MetaTensor
from monai.networks.schedulers import DDPMScheduler

from monai_diffens.data.expert_draws import ExpertDraws
from monai_diffens.data.expert_replay import ExpertReplay
from monai_diffens.data.volume_replay import derived_seed
from monai_diffens.engines.fusion import FusionPrepareBatch, FusionStep, RelativeSquaredError
from monai_diffens.schedulers.arithmetic import to_clean
from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler
from monai_diffens.target import RESIDUAL_SCALE, ResidualTarget
from monai_diffens.transforms.conditions import HAS_KEY, TARGET_KEY
from monai_diffens.transforms.thick_slices import measurement_for, record_sampling

SIZE = (20, 24, 28)
SCHEDULERS = [
    TrailingDDIMScheduler(),
    DDPMScheduler(400, schedule="scaled_linear_beta", prediction_type="v_prediction"),
]


def cases(count: int = 3, conditions: int = 1) -> list[dict]:
    """Items as transforms leave them."""
    items = []
    for _ in range(count):
        label = torch.rand(1, *SIZE)
        image = label + 0.1 * torch.randn(conditions, *SIZE)
        item = {"image": MetaTensor(image, affine=np.eye(4)), "label": MetaTensor(label), "case": "x"}
        # of several conditions the last is the target's own scan
        items.append(item | {HAS_KEY: torch.ones(conditions, dtype=torch.bool), TARGET_KEY: conditions - 1})
    return items


@pytest.fixture
def replay(tiny_ensembler):
    """Function (options of ExpertDraws and ExpertReplay) to a small one over random cases, filled."""

    def build(filled: bool = True, conditions: int = 1, **options) -> ExpertReplay:
        names = ("flair", "t1ce")[:conditions] if conditions > 1 else ("image",)
        small = {
            "source": cases(conditions=conditions),
            "bank": tiny_ensembler(conditions=names).bank,
            "scheduler": SCHEDULERS[0],
            "strata": 4,
            "length": 6,
            "crop_size": 12,
            "amp": False,
        } | options
        of_draws = inspect.signature(ExpertDraws).parameters
        makes = ExpertDraws(**{name: value for name, value in small.items() if name in of_draws})
        of_buffer = inspect.signature(ExpertReplay).parameters
        buffer = ExpertReplay(makes, **{name: value for name, value in small.items() if name in of_buffer})
        if filled:
            buffer.fill()
        return buffer

    return build


@pytest.mark.parametrize(
    ("scheduler", "conditions"), list(zip(SCHEDULERS, (2, 1), strict=True)), ids=["cosine", "linear"]
)
def test_entries_are_what_the_experts_say(replay, scheduler, conditions):
    buffer = replay(scheduler=scheduler, conditions=conditions, seed=11, kept=(1, 1))
    levels = scheduler.alphas_cumprod
    for number, entry in enumerate(buffer.entries):
        random = np.random.RandomState(derived_seed(11, number))
        timestep = int((number + random.rand()) / 4 * len(levels))
        random.randint(2**31)  # the seed of the source's transforms
        generator = torch.Generator().manual_seed(random.randint(2**31))
        item = buffer.draw.source[random.randint(3)]
        image, label = (item[key].as_tensor()[None] for key in ("image", "label"))
        residual = (label - image[:, :1]) / RESIDUAL_SCALE
        noise = torch.randn(residual.shape, generator=generator)
        alpha, sigma = levels[timestep].sqrt(), (1 - levels[timestep]).sqrt()
        x_t = alpha * residual + sigma * noise
        target = alpha * noise - sigma * residual
        with torch.no_grad():
            predictions = buffer.draw.bank(x_t, image, torch.tensor([timestep]))
        expected = torch.cat([x_t, target, image, predictions], dim=1)[0]
        assert entry["timestep"] == timestep
        assert entry["volumes"].dtype == torch.float16 and entry["volumes"].device.type == "cpu"
        torch.testing.assert_close(entry["volumes"].float(), expected, rtol=2e-3, atol=1e-3)
        error = (predictions.mean(dim=1, keepdim=True) - target).square().mean()
        assert float(entry["gram"].mean()) == pytest.approx(float(error), rel=1e-4)
        assert entry["present"].all() and entry["present"].shape == (3 * conditions,)


def test_experts_are_frozen(replay):
    buffer = replay(filled=False)
    assert not buffer.draw.bank.training
    assert not any(parameter.requires_grad for parameter in buffer.draw.bank.parameters())


@pytest.mark.parametrize("draws", [1, 5, 16])
def test_timesteps_are_stratified(replay, draws):
    buffer = replay(filled=False, strata=draws)
    timesteps = [buffer.draw(number)["timestep"] for number in range(2 * draws)]
    assert [timestep * draws // 1000 for timestep in timesteps] == [*range(draws)] * 2
    assert timesteps[:draws] != timesteps[draws:]


def test_renewal_replaces_in_order_and_keeps_the_strata(replay):
    buffer = replay(strata=5, refresh=2, filled=False)
    buffer.draw = lambda number: {"number": number}
    buffer.renew()
    assert buffer.entries == []  # nothing to replace yet
    buffer.fill()
    for replaced in ([0, 1], [2, 3], [4, 0], [1, 2]):
        before = list(buffer.entries)
        buffer.renew("an ignite engine")
        assert [i for i in range(5) if buffer.entries[i] is not before[i]] == sorted(replaced)
        assert [entry["number"] % 5 for entry in buffer.entries] == list(range(5))
    assert [entry["number"] for entry in buffer.entries] == [10, 6, 7, 8, 9][:1] + [11, 12, 8, 9]


def test_resumed_buffer_holds_the_same_and_runs_no_expert(replay, tmp_path):
    source = cases()
    first = replay(folder=tmp_path, refresh=3, source=source)
    for _ in range(3):
        first.renew()
    resumed = replay(folder=tmp_path, refresh=3, source=source, filled=False)
    resumed.load_state_dict(first.state_dict())
    resumed.draw = None  # not needed: everything is in the folder
    resumed.fill()
    for a, b in zip(first.entries, resumed.entries, strict=True):
        assert a["timestep"] == b["timestep"] and torch.equal(a["volumes"], b["volumes"])
    # killed before the next checkpoint: what it holds is still there
    first.renew()
    resumed.fill()
    assert len(list(tmp_path.iterdir())) <= 2 * 4
    fresh = replay(folder=tmp_path, seed=1, source=source)  # a new run never reads another's draws
    assert all(
        not torch.equal(a["volumes"], b["volumes"])
        for a, b in zip(resumed.entries, fresh.entries, strict=True)
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"draw_{n:06d}.pt" for n in range(4)]


def test_draws_depend_on_seed_and_number_alone(replay, tmp_path):
    source = cases()
    in_memory, on_disk = replay(source=source), replay(source=source, folder=tmp_path)
    again = in_memory.draw(2)
    for entry in (in_memory.entries[2], on_disk.entries[2]):
        assert torch.equal(entry["volumes"], again["volumes"]) and torch.equal(entry["gram"], again["gram"])


@pytest.mark.parametrize(("refresh", "replaced"), [(0, 0), (3, 3), (99, 4)])
def test_renewal_replaces_as_many_as_asked(replay, refresh, replaced):
    buffer = replay(refresh=refresh)
    before = list(buffer.entries)
    buffer.renew()
    assert sum(new is not old for new, old in zip(buffer.entries, before, strict=True)) == replaced


@pytest.mark.parametrize("crop_size", [8, 12, 20])
def test_crops_are_windows_of_one_entry(replay, crop_size):
    buffer = replay(filled=False, crop_size=crop_size)
    grid = torch.stack(torch.meshgrid(*(torch.arange(n) for n in SIZE), indexing="ij")).float()
    for number in range(4):
        own = torch.full((1, *SIZE), float(number))
        buffer.entries.append(
            {"volumes": torch.cat([grid, own]).half(), "timestep": 10 * number, "gram": number / 10}
        )
    seen, starts = set(), set()
    for index in range(60):
        item = buffer[index % 6]
        x, y, z, number = (int(value) for value in item["volumes"][:, 0, 0, 0])
        window = buffer.entries[number]["volumes"][:, x : x + crop_size, y : y + crop_size, z : z + crop_size]
        assert type(item["volumes"]) is torch.Tensor and item["volumes"].dtype == torch.float32
        assert torch.equal(item["volumes"], window.float())
        assert (item["timestep"], item["gram"]) == (10 * number, number / 10)
        seen.add(number)
        starts.add((x, y, z))
    assert seen == {0, 1, 2, 3} and len(starts) > 20


def test_it_fills_itself_once_and_repeats_for_a_seed(replay):
    source = cases(2)
    buffers = [replay(filled=False, seed=seed, source=source) for seed in (5, 5, 6)]
    items = [[buffer[i] for i in range(len(buffer))] for buffer in buffers]
    assert [len(buffer.entries) for buffer in buffers] == [4, 4, 4]
    for a, b in zip(items[0], items[1], strict=True):
        assert torch.equal(a["volumes"], b["volumes"]) and a["timestep"] == b["timestep"]
    assert any(not torch.equal(a["volumes"], b["volumes"]) for a, b in zip(items[0], items[2], strict=True))


def test_the_plain_mean_of_a_whole_draw_has_a_relative_error_of_one(replay, tiny_ensembler):
    """Through the parts of train.json: loader, batch preparation, inferer and loss."""
    buffer = replay(crop_size=64)  # larger than the volumes: the whole draw
    network = tiny_ensembler(untrained=True)
    losses = []
    for batch in DataLoader(buffer, batch_size=3):
        x_t, target, arguments, keywords = FusionPrepareBatch()(batch, torch.device("cpu"))
        assert x_t.shape == (3, 1, *SIZE) and keywords["predictions"].shape == (3, 3, *SIZE)
        with torch.no_grad():
            prediction = FusionStep(network)(x_t, *arguments, **keywords)
        losses.append(float(RelativeSquaredError()(prediction, target)))
    assert losses == pytest.approx([1, 1], rel=5e-3)


def test_predictions_agree_with_the_measured_condition_or_go_without_it(replay):
    source = cases(conditions=2)
    measurement = measurement_for(SIZE, (1, 1, 4))
    for item in source:
        item["image"][1] = measurement.restore(measurement(item["label"].as_tensor()))[0]
        record_sampling(item["image"], measurement)
    options = {"target": ResidualTarget(measured=1), "noise_emphasis": 2.0, "kept": (1, 0.5)}
    buffer = replay(conditions=2, source=source, strata=24, **options)
    counts, without = Counter(), []
    for entry in buffer.entries:
        with_it = bool(entry["present"][1])
        counts[with_it] += 1
        x_t, target, *conditions = entry["volumes"][:4].float()
        predictions = entry["volumes"][4:].float()
        assert bool(conditions[1].any()) is with_it and bool(entry["present"][0])
        level = float(SCHEDULERS[0].alphas_cumprod[entry["timestep"]])
        clean = to_clean(predictions, x_t, level, "v_prediction")
        seen = measurement(clean - to_clean(target, x_t, level, "v_prediction")).abs()
        of_measured = [index for index, name in enumerate(buffer.draw.bank.names) if "t1ce" in name]
        if with_it:
            assert seen.max() < 0.1
        else:
            without.append(seen.mean())
            assert not predictions[of_measured].any()
    assert torch.stack(without).mean() > 0.1
    assert min(counts.values()) >= 6


def test_more_draws_are_noisy_on_demand(replay):
    even, noisy = (replay(strata=8, noise_emphasis=emphasis).entries for emphasis in (1.0, 3.0))
    for plain, emphasised in zip(even, noisy, strict=True):
        fraction = (plain["timestep"] + 0.5) / 1000
        assert emphasised["timestep"] == pytest.approx(1000 * (1 - (1 - fraction) ** 3), abs=3)


@pytest.mark.parametrize("prob", [0.0, 0.5, 1.0])
def test_crops_are_flipped_as_often_as_asked_all_volumes_alike(replay, prob):
    buffer = replay(crop_size=20, flip_prob=prob, source=cases(1), strata=1)
    (entry,) = buffer.entries
    entry["volumes"] = entry["volumes"][..., :20, :20]
    whole = entry["volumes"].float()
    ways = {axes: whole.flip(axes) for axes in ((), (1,), (2,), (3,), (1, 2), (1, 3), (2, 3), (1, 2, 3))}
    found = []
    for index in range(40):
        crop = buffer[index]["volumes"]
        found += [axes for axes, flipped in ways.items() if torch.equal(crop, flipped)]
    assert len(found) == 40
    assert set(found) == {0.0: {()}, 0.5: set(ways), 1.0: {(1, 2, 3)}}[prob]


@pytest.mark.parametrize(("hidden", "shown"), [(True, False), (False, True), (None, False)])
def test_bar_of_the_experts_is_shown_where_asked(replay, capsys, hidden, shown):
    replay(hide_progress=hidden)  # nothing here is a terminal
    assert ("frozen experts" in capsys.readouterr().err) == shown
