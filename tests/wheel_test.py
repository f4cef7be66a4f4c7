"""``make wheel-test``: the wheel alone, in an empty environment and an empty folder, with no clone in sight.

The environment holds what the wheel requires and nothing else, linked from the one that runs this script:
nothing is fetched.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from email import message_from_string
from pathlib import Path

from linked_environment import make_linked_environment

ROOT = Path(__file__).resolve().parents[1]
LARGEST_MB = 90
QUICK_S = {"--help": 0.5, "info": 3.0}  # of a processor: what a quiet machine takes
DOCTESTS = "import doctest, monai_diffens.api as api; raise SystemExit(doctest.testmod(api).failed)"


def main() -> None:
    """Build, install, use; SystemExit with the first step that fails."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        copy_source(base / "source")
        # no isolation: setuptools is the running environment's
        pip = (sys.executable, "-m", "pip")
        run(*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", base, base / "source")
        (wheel,) = base.glob("*.whl")
        check_content(wheel)
        python = install(wheel, base / "env")
        check_use(python, base / "empty")
    print("wheel-test: all held")


def copy_source(target: Path) -> None:
    """Copy what git knows: what else lies in the clone is in no release."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/", "research/")):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            copy(ROOT / name, target / name)


def check_content(wheel: Path) -> None:
    """The bundles are in it, nothing foreign is, and it is small."""
    names = zipfile.ZipFile(wheel).namelist()
    for bundle in ("diffensembler_sr", "diffensembler_translate"):
        for file in ("models/model.pt", "models/model.pt.sha256", "configs/inference.json", "LICENSE"):
            assert f"monai_diffens/bundles/{bundle}/{file}" in names, f"{bundle}/{file} is not in the wheel"
    foreign = [name for name in names if name.split("/")[0] not in ("monai_diffens", metadata_folder(wheel))]
    assert not foreign, f"in the wheel: {foreign}"
    size = wheel.stat().st_size / 1e6
    assert size < LARGEST_MB, f"the wheel has {size:.0f} MB"
    print(f"{wheel.name}: {size:.1f} MB, {len(names)} files")


def install(wheel: Path, env: Path) -> Path:
    """An environment with the wheel and what it requires; its Python."""
    with zipfile.ZipFile(wheel) as archive:
        facts = message_from_string(archive.read(f"{metadata_folder(wheel)}/METADATA").decode())
    python = make_linked_environment(env, facts.get_all("Requires-Dist", []))
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "-q", "--no-deps", "--no-index", wheel)
    run(*pip, "check")
    return python


def check_use(python: Path, empty: Path) -> None:
    """What a user does first."""
    empty.mkdir()
    diffens = python.with_name("diffens")
    for word, limit in QUICK_S.items():
        run(diffens, word, cwd=empty)  # files are cold the first time
        begin, before = time.perf_counter(), os.times()
        out = run(diffens, word, cwd=empty)
        seconds, after = time.perf_counter() - begin, os.times()
        spent = sum(after[2:4]) - sum(before[2:4])
        print(f"diffens {word}: {seconds:.2f} s, {spent:.2f} s of a processor (at most {limit})")
        assert spent < limit, f"diffens {word} took {spent:.1f} s of a processor"
    assert str(ROOT) not in out and "as recorded" in out, out
    run(diffens, "demo", "-o", "demo", "--crop", "48", cwd=empty)
    gain = json.loads((empty / "demo" / "figures.json").read_text())["metrics"]
    print(f"demo: PSNR {gain['ours']['psnr']:.2f} dB, cubic {gain['cubic']['psnr']:.2f} dB")
    scan = empty / "demo" / "thick_5mm.nii.gz"
    case = empty / "cases" / "sub-1"
    case.mkdir(parents=True)
    for contrast in ("T1w", "FLAIR"):
        copy(scan, case / f"sub-1_{contrast}.nii.gz")
    print(run(diffens, "sr", scan, "-o", "sr", cwd=empty), end="")
    print(run(diffens, "translate", "cases", "-o", "flair", "--target", "FLAIR", cwd=empty), end="")
    assert (empty / "sr" / "index.html").is_file() and list((empty / "flair").rglob("*.nii.gz"))
    run(python, "-c", DOCTESTS, cwd=empty)
    print("Python examples: held")


def run(*words: object, cwd: Path | None = None) -> str:
    """Stdout of a command that ends well."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"failed: {' '.join(map(str, words))}\n{done.stdout}{done.stderr}")
    return done.stdout


def copy(source: Path, target: Path) -> None:
    """A copy of a file's bytes."""
    target.write_bytes(source.read_bytes())


def metadata_folder(wheel: Path) -> str:
    """Name of a wheel's metadata folder."""
    return "-".join(wheel.name.split("-")[:2]) + ".dist-info"


if __name__ == "__main__":
    main()
