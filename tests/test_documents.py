"""Commands, options, targets and imports that the documents name are there, and the notebook runs."""

import importlib
import os
import re
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from monai_diffens.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("bundles/*/docs/README.md")),
]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def code_lines() -> list[str]:
    """Indented lines, joined where one ends with a backslash, without comments."""
    joined = re.sub(r"\\\n\s*", " ", TEXT)
    return [line.split("  #")[0].strip() for line in joined.splitlines() if line.startswith("    ")]


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """The (sub)command that words call, and what follows it."""
    command = typer.main.get_command(app)
    while (commands := getattr(command, "commands", None)) and words and not words[0].startswith("-"):
        assert words[0] in commands, words
        command, words = commands[words[0]], words[1:]
    return command, words


def test_every_diffens_command_and_option_is_there():
    lines = [line for line in code_lines() if line.startswith("diffens ")]
    assert len(lines) > 10
    for line in lines:
        if re.match(r"diffens (bundle )?\S*\|", line):
            continue  # a choice of subcommands
        command, rest = command_of(shlex.split(line)[1:])
        known = {plain(name) for parameter in command.params for name in parameter.opts}
        given = {plain(word.split("=")[0]) for word in rest if re.match(r"--?[a-z]", word)}
        assert given <= known | {"--help"}, line


def plain(option: str) -> str:
    return option.replace("_", "-")


def test_every_make_target_is_there():
    lines = [*code_lines(), *re.findall(r"`(make .+?)`", TEXT)]
    named = {found[1] for line in lines if (found := re.match(r"make ([a-z][a-z-]+)", line))}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert {"demo", "test", "release"} <= targets and len(named) > 5
    assert named <= targets


def test_every_import_is_there():
    found = set(re.findall(r"^ {4}from (monai_diffens[\w.]*) import ([\w, ]+)", TEXT, re.M))
    assert found
    for module, names in found:
        for name in names.split(","):
            assert hasattr(importlib.import_module(module), name.strip()), (module, name)


def test_the_glossarys_code_is_there():
    page = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    package = ROOT / "monai_diffens"
    source = "".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py"))
    for path in re.findall(r"`([a-z_/]+\.py)`", page):
        assert (package / path).is_file(), path
    for name in re.findall(r"`([A-Z][A-Za-z]+)(?:\.\w+)?`", page):
        assert f"class {name}" in source, name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_notebook_runs(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    command = tmp_path / "bin" / "diffens"  # of this tree, whatever is installed
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\nfrom monai_diffens.cli import main\n\nmain()\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    book = nbformat.read(ROOT / "docs" / "tour.ipynb", as_version=4)
    assert not [cell for cell in book.cells if cell.get("outputs")], "clear the outputs before you commit"
    before = signal.getsignal(signal.SIGINT)  # nbclient puts Python's own in its place
    try:
        nbclient.NotebookClient(book, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    finally:
        signal.signal(signal.SIGINT, before)
    said = "".join(out.get("text", "") for cell in book.cells for out in cell.get("outputs", []))
    assert "Restored 1 case" in said and "num_step: no such option" in said
