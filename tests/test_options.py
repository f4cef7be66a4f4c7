"""Every option of both bundles is in the table, and takes what it should and nothing else."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_diffens.acquisition.measurement import PROFILES
from monai_diffens.acquisition.slicing import PLANES as REAL_PLANES
from monai_diffens.engines.processes import SHARES
from monai_diffens.networks.diff_ensembler import FUSIONS
from monai_diffens.options import (
    MORE,
    OPTIONS,
    PLANES,
    QUALITIES,
    OptionError,
    checked_option,
    nearest,
    options_of,
    values_of,
)
from monai_diffens.transforms.brain_mask import SKULL
from monai_diffens.transforms.one_grid import REGISTER

ROOT = Path(__file__).parents[1] / "bundles"
CONFIGS = {
    path.parents[1].name: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted(ROOT.glob("*/configs/inference.json"))
}
BY_NAME = {option.name: option for option in OPTIONS}
TRANSLATE = CONFIGS["diffensembler_translate"]


@pytest.mark.parametrize("name", CONFIGS)
def test_at_most_twenty_ids_stand_at_the_top_and_all_are_options(name):
    config = CONFIGS[name]
    top = list(config)[: list(config).index(MORE)]
    assert len(top) <= 20 and top[0] == "bundle_root"
    assert {*top[1:], *config[MORE]} <= set(options_of(config))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_default_is_allowed_and_stays_as_it_is(name):
    config = CONFIGS[name]
    for option in options_of(config).values():
        value = values_of(config)[option.name]
        if not str(value).startswith("$"):
            assert checked_option(option, value, config) == value, option.name


def test_choices_are_those_of_the_code():
    assert tuple(REAL_PLANES) == PLANES and BY_NAME["fusion"].choices == (*FUSIONS, *PLANES)
    assert BY_NAME["share"].choices == SHARES
    assert BY_NAME["register"].choices == REGISTER
    assert BY_NAME["skull"].choices == SKULL
    assert set(BY_NAME["slice_profile"].choices) == set(PROFILES)
    steps = BY_NAME["num_steps"]
    assert [checked_option(steps, value, {}) for value in QUALITIES.values()] == sorted(QUALITIES.values())


def test_help_is_one_line_and_numbers_have_ranges():
    for option in OPTIONS:
        assert option.help and "\n" not in option.help and len(option.help) < 100
        if option.kind in ("integer", "number", "weights", "spacing"):
            assert option.least is not None or option.above is not None, option.name
        if option.kind in ("number", "weights", "spacing"):  # else products of them are infinite
            assert option.most is not None or option.below is not None, option.name


RIGHT = [
    ("force", "FALSE", False),
    ("force", "True", True),
    ("report", " true ", True),
    ("amp", "auto", "auto"),
    ("amp", "false", False),
    ("num_steps", "8", 8),
    ("num_steps", 8.0, 8),
    ("seed", 2**32 - 1, 2**32 - 1),
    ("restart", "none", None),
    ("restart", "0.25", 0.25),
    ("max_memory", 0.5, 0.5),
    ("volume", "null", None),
    ("target_spacing", "1x1x3", [1, 1, 3]),
    ("target_spacing", "[1, 1, 3]", [1, 1, 3]),
    ("target_spacing", (1, 1, 3), [1, 1, 3]),
    ("target_spacing", "0.8", 0.8),
    ("plane_weights", "axial=0", {"axial": 0}),
    ("plane_weights", "{'axial': 2, 'coronal': 0}", {"axial": 2, "coronal": 0}),
    ("target", "T2w", "T2w"),
    ("leave_out", "T1w", ["T1w"]),
    ("leave_out", "T1w, FLAIR", ["T1w", "FLAIR"]),
    ("leave_out", "['T1w', 'FLAIR']", ["T1w", "FLAIR"]),
    ("leave_out", ("T1w",), ["T1w"]),
    ("leave_out", "none", None),
    ("input", Path("a"), "a"),
    ("series", 4, "4"),
    ("series", (4, 7), "4,7"),
    ("series", "4, t1_tra", "4,t1_tra"),
    ("device", "cpu", "cpu"),
]


@pytest.mark.parametrize(("name", "value", "typed"), RIGHT)
def test_right_values(name, value, typed):
    got = checked_option(BY_NAME[name], value, TRANSLATE)
    assert (str(got) if name == "device" else got) == typed
    assert type(got) is type(typed) or name in ("device", "plane_weights", "target_spacing")


TEXTS = ["$x", "abc", "NaN", "inf", "-1", "1e999", "９９x"]
WRONG_FOR_ALL = ["", " ", "\0", *TEXTS, [], {}, object(), b"1", -1, 1j]
WRONG = [
    ("force", 0),
    ("force", 1),
    ("force", "no"),
    ("force", "yes"),
    ("report", "on"),
    ("amp", "yes"),
    ("force", None),
    ("num_steps", 0),
    ("num_steps", 2.5),
    ("num_steps", True),
    ("num_steps", 1001),
    ("num_steps", "9" * 5000),
    ("num_steps", None),
    ("seed", -1),
    ("restart", 1),
    ("restart", 0),
    ("restart", -7),
    ("residual_gain", "1e999"),
    ("residual_gain", 0),
    ("slice_thickness", 0),
    ("slice_profile", "gauss"),
    ("max_memory", "8GB"),
    ("max_memory", 1e300),
    ("spread_scale", 1e300),
    ("slice_thickness", 1e-300),
    ("amp", "maybe"),
    ("device", "gpu9"),
    ("device", "cuda:4000"),
    ("device", "meta"),
    ("fusion", "Axial"),
    ("fusion", "T1w"),
    ("target", "PDw"),
    ("target", None),
    ("leave_out", "PDw"),
    ("leave_out", TRANSLATE["contrasts"]),
    ("target_spacing", [1, 1]),
    ("target_spacing", "1,0,1"),
    ("plane_weights", "axial"),
    ("plane_weights", "axial=-1"),
    ("plane_weights", dict.fromkeys(("axial", "coronal", "sagittal"), 0)),
    ("plane_weights", "[" * 5000),
    ("input", 5),
    ("series", "$abc"),
    ("series", "../4"),
    ("series", "4,,7"),
    ("series", True),
]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *WRONG,
        *(
            (name, value)
            for name, option in BY_NAME.items()
            for value in WRONG_FOR_ALL
            if not (option.kind in ("path", "series") and value in TEXTS)
            and not (option.optional and value in ("", " "))
        ),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_wrong_values_are_one_line(name, value):
    option = BY_NAME[name]
    with pytest.raises(OptionError) as error:
        checked_option(option, value, TRANSLATE)
    line = str(error.value)
    assert line.startswith(name) and "\n" not in line and len(line) < 400


def test_nearest_name():
    assert nearest("num_step", list(BY_NAME), "--") == "did you mean --num_steps?"
    assert "input" in nearest("qqqq", list(BY_NAME))


TEXT = ("path", "series")  # kinds that take texts of the user's own
NAMES = st.sampled_from([*PLANES, "T1w", "x", ""])
ANYTHING = st.one_of(
    st.text(max_size=30),
    st.from_regex(r"[-+]?[0-9]{1,5}(\.[0-9]{1,3})?(e[0-9]{1,4})?", fullmatch=True),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.binary(max_size=5),
    st.lists(st.floats(), max_size=4),
    st.dictionaries(
        st.sampled_from([*PLANES, "T1w", "x", ""]), st.one_of(st.floats(), st.text()), max_size=3
    ),
)


@settings(max_examples=600, deadline=None)
@given(option=st.sampled_from(OPTIONS), value=ANYTHING)
def test_any_value_is_typed_and_in_range_or_refused_in_one_line(option, value):
    try:
        typed = checked_option(option, value, TRANSLATE)
    except OptionError as error:
        assert "\n" not in str(error) and str(error).isprintable() and len(str(error)) < 500
        return
    if typed is None:
        assert option.optional
    elif isinstance(typed, bool):
        assert option.kind == "switch" and (value is typed or value.strip().lower() == str(typed).lower())
    elif isinstance(typed, int | float):
        assert option.kind in ("integer", "number", "spacing") and math.isfinite(typed)
        assert type(typed) is int or option.kind != "integer"
        assert option.least is None or typed >= option.least
        assert option.above is None or typed > option.above
        assert option.most is None or typed <= option.most
    elif isinstance(typed, str):
        assert option.kind in TEXT or (typed == value and typed in option.choices_for(TRANSLATE))
    # what was typed is taken as itself the second time
    assert checked_option(option, typed, TRANSLATE) == typed
