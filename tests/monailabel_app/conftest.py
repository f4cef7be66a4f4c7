"""The app's own modules, as its server imports them; MONAI Label itself is not needed here."""

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

APP = Path(__file__).parents[2] / "monailabel_app"


@pytest.fixture(scope="session")
def app_module() -> Iterator[Callable[[str], ModuleType]]:
    """Function (name) to a module of the app's ``lib``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(APP)
        yield lambda name: importlib.import_module(f"lib.{name}")
