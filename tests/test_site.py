"""The documentation site: built without a warning, whole, and nothing in it is fetched from elsewhere."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("mkdocstrings", reason="the site needs the extra `docs`, which needs Python 3.11")

ROOT = Path(__file__).parents[1]
FETCHING = {  # tags whose address a browser fetches by itself
    "script": "src",
    "link": "href",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "object": "data",
    "embed": "src",
    "image": "href",
    "use": "href",
}


class Fetched(HTMLParser):
    """Addresses that a page makes a browser fetch, and its styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.styles = ""
        self.tag = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tag = tag
        given = dict(attrs)
        if address := given.get(FETCHING.get(tag, "")):
            self.addresses.append(address)
        self.styles += given.get("style") or ""

    def handle_data(self, data: str) -> None:
        if self.tag == "style":
            self.styles += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    return folder


def external(address: str) -> bool:
    return bool(re.match(r"\s*(\w+:)?//", address))


@pytest.mark.slow
def test_nothing_is_fetched_from_elsewhere(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    for path in pages:
        page = path.read_text(encoding="utf-8")
        fetched = Fetched(page)
        assert fetched.addresses, path
        assert not [address for address in fetched.addresses if external(address)], path
        assert not re.search(r"(url\(|@import)\s*['\"]?(\w+:)?//", fetched.styles), path
        # what makes the theme's own script fetch something: diagrams, and a repository's stars
        assert 'class="mermaid"' not in page and 'data-md-component="source"' not in page, path
    for path in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", path.read_text(encoding="utf-8")), path


def test_it_can_tell_what_is_fetched():
    page = (
        '<link href="https://x.y/a.css"><script src="//x.y"></script><a href="https://x.y">x</a><img src="a">'
    )
    assert [external(address) for address in Fetched(page).addresses] == [True, True, False]


@pytest.mark.slow
def test_every_page_is_there(site):
    for source in [*ROOT.glob("docs/**/*.md"), *ROOT.glob("bundles/*/docs/*.md"), *ROOT.glob("*.md")]:
        name = source.relative_to(ROOT).with_suffix(".html")
        built = site / (name.with_name("index.html") if name.stem == "README" else name)
        assert built.is_file(), name
    for package in ROOT.glob("monai_diffens/*/__init__.py"):
        text = (site / "api" / f"{package.parent.name}.html").read_text(encoding="utf-8")
        modules = [path.stem for path in package.parent.glob("*.py") if path.stem[0] != "_"]
        for module in modules:
            assert f'id="monai_diffens.{package.parent.name}.{module}"' in text
    networks = (site / "api" / "networks.html").read_text(encoding="utf-8")
    assert "voxel-wise weights and a bias" in networks  # a docstring
    assert not re.search(r":(class|func|meth|mod):", networks)


@pytest.mark.slow
def test_formulas_are_mathml(site):
    page = (site / "docs" / "method.html").read_text(encoding="utf-8")
    source = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    assert page.count('display="block"') == source.count("$$") // 2 > 5
    assert page.count("<math") > 20 and "arithmatex" not in page and "\\frac" not in page
    for path in site.rglob("*.html"):
        assert path.name == "method.html" or "<math" not in path.read_text(encoding="utf-8"), path
