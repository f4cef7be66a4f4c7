"""Every file that docs/architecture.md names is there, and the loop it draws is the one that runs."""

import inspect
import re
from pathlib import Path

from monai_diffens.inferers import sampling

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_every_path_is_there():
    paths = set(re.findall(r"(?<![\w/])[\w./]*\w+\.(?:py|json)\b", DOCUMENT))
    names = {path.name for path in (ROOT / "monai_diffens").rglob("*")} | {
        path.name for path in (ROOT / "bundles").rglob("*.json")
    }
    names |= {
        path.name for path in (ROOT / "research").rglob("*") if ".py" in path.name or ".json" in path.name
    }
    missing = [
        path
        for path in sorted(paths)
        if not any((folder / path).is_file() for folder in (ROOT, ROOT / "monai_diffens"))
        and not ("/" not in path and path in names)
    ]
    assert len(paths) > 40 and missing == []


def test_the_step_is_four_calls():
    loop = inspect.getsource(sampling.sample).split("first_step):")[1]
    calls = re.findall(r"(model\.experts|model\.fuse|model\.agree|scheduler\.step)\(", loop)
    assert calls == ["model.experts", "model.fuse", "model.agree", "scheduler.step"]
