"""Write the pictures of page and index that the documentation shows.

python tests/report/screenshots.py OUT [CASE]

OUT is the folder of a run, of scans that may be shown to everybody; CASE is the page to show, the first one
when left out. Pictures go to docs/images, in 256 colours, so that they stay small.
"""

import io
import sys
import tempfile
from pathlib import Path

from browser import Browser
from PIL import Image

IMAGES = Path(__file__).parents[2] / "docs" / "images"
WIDTHS = {400: 900, 1440: 1050, 2560: 1500}  # and the height of the window


def main(folder: Path, case: str | None = None) -> None:
    """Take them all."""
    page = folder / f"{case}.html" if case else min(folder.glob("*_*.html"))
    with tempfile.TemporaryDirectory() as profile, Browser(Path(profile)) as browser:
        for name, path, ready in (("page", page, "viewer"), ("index", folder / "index.html", "index")):
            for width, height in WIDTHS.items():
                browser.size(width, height)
                browser.open(path)
                browser.wait(f"document.documentElement.dataset.{ready}")
                if name == "page" and width == 400:  # figures fill the first screen of a telephone
                    browser.run("document.querySelector('.tools').scrollIntoView(); scrollBy(0, -70)")
                for dark in (False, True):
                    browser.dark(dark)
                    write(browser, IMAGES / f"{name}-{width}-{'dark' if dark else 'light'}.png")
        browser.size(1440, 1050)
        browser.dark(False)
        browser.open(page)
        browser.wait("document.documentElement.dataset.viewer")
        browser.run("document.querySelector('[data-mode=side]').click()")
        browser.run("document.getElementById('stage').focus()")
        browser.keys("o")
        browser.wait("!document.getElementById('legend').hidden")
        browser.run("document.querySelector('.tools').scrollIntoView(); scrollBy(0, -50)")
        write(browser, IMAGES / "page-difference.png")


def write(browser: Browser, path: Path) -> None:
    """One picture of the window, after it is drawn."""
    browser.settle()
    picture = Image.open(io.BytesIO(browser.shot())).convert("RGB")
    picture.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, optimize=True)
    print(path, path.stat().st_size)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:3])
