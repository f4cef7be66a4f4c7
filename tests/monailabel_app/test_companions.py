import pytest


@pytest.fixture(scope="module")
def module(app_module):
    return app_module("companions")


def test_patient_and_contrast(module):
    told = module.patient_and_contrast
    assert told("sub-01_T1w") == ("sub-01", "T1w")
    assert told("sub-01_ce-gadolinium_T1w") == ("sub-01", "ce-gadolinium_T1w")
    assert told("a_b_FLAIR") == ("a_b", "FLAIR")
    assert told("sub-05_ce-gadolinium_run-1_T1w") == ("sub-05_run-1", "ce-gadolinium_T1w")
    assert told("sub-01_t1w") == ("sub-01", "T1w")
    assert told("BraTS-GLI-00001-000-t1c") == ("BraTS-GLI-00001-000", "ce-gadolinium_T1w")
    for name in ("scan", "T1w", "_T1w", "sub-01_T1w_diffensembler_sr", "sub-01_part-phase_T1w"):
        assert told(name) is None


def test_companions_are_of_the_same_patient_only(module):
    images = [
        "p1_FLAIR",
        "p1_T1w",
        "p11_T1w",
        "p1_ce-gadolinium_T1w",
        "p1_FLAIR_diffensembler_translate",
        "x",
    ]
    found = module.companions("p1_T1w", images)
    assert found == {"T1w": "p1_T1w", "ce-gadolinium_T1w": "p1_ce-gadolinium_T1w", "FLAIR": "p1_FLAIR"}
    assert list(found) == ["T1w", "ce-gadolinium_T1w", "FLAIR"]
    assert module.companions("p11_T1w", images) == {"T1w": "p11_T1w"}
    assert module.companions("x", images) == {}
