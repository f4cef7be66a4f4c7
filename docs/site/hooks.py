"""What the documentation site is made of: the repository's Markdown where it lies, and pages of the API.

Pages keep their places, so links between them are the same on the site and on a repository's page.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
SHOWN = (
    "*.md",
    "CITATION.cff",
    "LICENSE",
    "docs/*.ipynb",
    "docs/*.md",
    "docs/images/*",
    "docs/performance/*",
    "docs/results/**/*",
    "docs/site/*.css",
    "bundles/*/LICENSE",
    "bundles/*/docs/*",
)
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.S)


def on_config(config: Any) -> Any:
    """List results that have no title in the configuration under their own headings."""
    results = next(part["Results"] for part in config.nav if "Results" in part)
    listed = {path for entry in results for path in entry.values()}
    for path in sorted(ROOT.glob("docs/results/**/*.md")):
        name = path.relative_to(ROOT).as_posix()
        if name not in listed:
            results.append(name)
    return config


def on_files(files: Files, config: Any) -> Files:
    """Put the repository's files in place of those of ``docs_dir``, which alone MkDocs would take."""
    site = [file for file in files if file.src_dir != config.docs_dir]
    for path in sorted({path for pattern in SHOWN for path in ROOT.glob(pattern) if path.is_file()}):
        name = path.relative_to(ROOT).as_posix()
        site.append(File.generated(config, name, abs_src_path=str(path)))
    for package in sorted((ROOT / "monai_diffens").rglob("__init__.py")):
        name = module_name(package.parent).removeprefix("monai_diffens.")
        site.append(File.generated(config, f"api/{name}.md", content=api_page(package.parent)))
    return Files(site)


def api_page(package: Path) -> str:
    """Markdown that asks mkdocstrings for every module of a package."""
    modules = sorted(path.stem for path in package.glob("*.py") if not path.stem.startswith("_"))
    name = module_name(package)
    return "\n\n".join([f"# {name}", *(f"::: {name}.{module}" for module in modules)]) + "\n"


def module_name(package: Path) -> str:
    """Dotted name of a folder of the package."""
    return ".".join(package.relative_to(ROOT).parts)


def on_page_content(content: str, **_: Any) -> str:
    """Turn formulas into MathML, which browsers draw by themselves."""

    def mathml(found: re.Match[str]) -> str:
        display = "block" if found[1] == "div" else "inline"
        return convert(html.unescape(found[2]).strip(), display=display)

    return FORMULA.sub(mathml, content)
