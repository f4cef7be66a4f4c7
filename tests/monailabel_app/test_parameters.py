import pytest

from monai_diffens.messages import InputRejected

OFFERED = {"num_steps": 1, "learning_rate": 0.001, "publish": False, "fusion": ["calibrated", "mean"]}
DEFAULTS = {"num_steps": 1, "learning_rate": 0.001, "publish": False, "fusion": "calibrated"}


@pytest.fixture(scope="module")
def checked(app_module):
    return app_module("parameters").checked_parameters


def test_what_a_viewer_adds_is_not_looked_at(checked):
    request = {
        "model": "m",
        "image": "/etc/passwd",
        "result_dtype": "uint8",
        "result_extension": ".nrrd",
        "client_id": "$x",
    }
    assert checked(request, OFFERED) == DEFAULTS
    assert checked(OFFERED, OFFERED) == DEFAULTS  # sent back as they were offered


@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [
        ("num_steps", 8, 8),
        ("num_steps", "8", 8),
        ("num_steps", 8.0, 8),
        ("learning_rate", "1e-4", 1e-4),
        ("learning_rate", 1, 1.0),
        ("publish", True, True),
        ("publish", "True", True),
        ("fusion", "mean", "mean"),
    ],
)
def test_values_of_the_right_type(checked, name, value, taken):
    values = checked({name: value}, OFFERED)
    assert values == {**DEFAULTS, name: taken}
    assert type(values[name]) is type(DEFAULTS[name])


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("num_steps", 1.5, "a whole number"),
        ("num_steps", True, "a whole number"),
        ("num_steps", "$__import__('os').getcwd()", "a whole number"),
        ("num_steps", [3], "a whole number"),
        ("num_steps", 0, "a whole number from 1 to 1000.*"),
        ("num_steps", -4, "a whole number from 1 to 1000.*"),
        ("num_steps", "9" * 5000, "a whole number"),
        ("learning_rate", "nan", "a number"),
        ("learning_rate", 0, "a number above 0"),
        ("learning_rate", -1e-3, "a number above 0"),
        ("learning_rate", {"_target_": "os.getcwd"}, "a number"),
        ("publish", "yes", "true or false"),
        ("fusion", "@seed", "one of calibrated, mean"),
        ("fusion", ["mean"], "one of calibrated, mean"),
        ("fusion", None, "one of calibrated, mean"),
    ],
)
def test_other_values_are_rejected_by_name(checked, name, value, wanted):
    with pytest.raises(InputRejected, match=f"^parameter {name}: .* is not {wanted}$"):
        checked({name: value}, OFFERED)


def test_an_unknown_name_is_rejected_with_the_nearest(checked):
    with pytest.raises(InputRejected, match=r"'num_step': no such parameter; did you mean num_steps\?"):
        checked({"num_step": 3}, OFFERED)
    with pytest.raises(InputRejected, match="its parameters: num_steps, learning_rate, publish, fusion"):
        checked({"$x": 3}, OFFERED)
