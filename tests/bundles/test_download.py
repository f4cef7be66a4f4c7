"""Release zips, downloaded by MONAI's own command and run where this package is not installed.

Real servers on the loopback interface, real processes. ``make download-test`` runs this file and shows the
lines that it prints.
"""

import gc
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import forked
import nibabel as nib
import numpy as np
import pytest
from bare_environment import imported, infer, make_environment, run
from release_server import OWNER, serve

from monai_diffens.__main__ import main
from monai_diffens.bundle.archive import pack, verify
from monai_diffens.files import sha256_of

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.name for path in (ROOT / "bundles").iterdir() if (path / "models" / "model.pt").is_file())
SR, TRANSLATION = "diffensembler_sr", "diffensembler_translate"

pytestmark = [
    pytest.mark.slow,
    # urllib leaves the connection of a download cut short to the garbage collector
    pytest.mark.filterwarnings("ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.skipif(sys.platform == "win32", reason="the bare environment is made of links"),
]


def proved(line: str) -> None:
    print(f"\nproved: {line}", flush=True)


@pytest.fixture(scope="session")
def releases(tmp_path_factory) -> dict[str, Path]:
    """Release zip of every bundle that has weights."""
    folder = tmp_path_factory.mktemp("releases")
    return {name: pack(ROOT / "bundles" / name, folder) for name in NAMES}


@pytest.fixture(scope="session")
def address(releases, tmp_path_factory) -> Iterator[str]:
    repositories = tmp_path_factory.mktemp("repositories")
    with zipfile.ZipFile(releases[SR]) as archive:
        archive.extractall(repositories)
    with serve(releases[SR].parent, repositories) as address:
        yield address


@pytest.fixture(scope="session")
def python(tmp_path_factory) -> Path:
    """Python of an environment without this package."""
    python = make_environment(tmp_path_factory.mktemp("bare"))
    done = run(python, "-c", "import monai_diffens", cwd=python.parent)
    assert "ModuleNotFoundError: No module named 'monai_diffens'" in done.stderr
    return python


@pytest.fixture(scope="session")
def downloaded(python, releases, address, tmp_path_factory) -> Path:
    """Folder of all bundles, fetched over HTTP as the manual says."""
    folder = tmp_path_factory.mktemp("downloaded")
    for name, path in releases.items():
        url = f"{address}/releases/{path.name}"
        command = ("-m", "monai.bundle", "download", "--name", name, "--url", url, "--bundle_dir", folder)
        done = run(python, *command, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


def test_packed_again_it_has_the_same_bytes(releases):
    if "DIFFENS_DIST" not in os.environ:
        pytest.skip("make download-test compares with what make bundles wrote")
    made = [Path(os.environ["DIFFENS_DIST"]) / path.name for path in releases.values()]
    for path in made:
        same = path.read_bytes() == releases[path.name.rsplit("_v", 1)[0]].read_bytes()
        assert same, f"{path} is of other sources: run make bundles"
        proved(f"{path.name} is reproducible, SHA-256 {sha256_of(path)}")


@pytest.mark.parametrize("name", NAMES)
def test_the_download_is_the_release(downloaded, name):
    count = verify(downloaded / name)
    standard = subprocess.run(
        ["sha256sum", "--quiet", "-c", "manifest.sha256"], cwd=downloaded / name, check=False
    )
    assert standard.returncode == 0
    proved(f"{name}: downloaded over HTTP by monai.bundle, {count} files as in the manifest")


def test_it_runs_without_this_package(python, downloaded, thick_template, tmp_path):
    done = infer(python, downloaded / SR, tmp_path, "--input", thick_template, "--output_dir", "out")
    assert done.returncode == 0, done.stdout + done.stderr
    own = downloaded / SR / "monai_diffens" / "__init__.py"
    assert imported(done) == str(own)
    before, after = nib.load(thick_template), nib.load(tmp_path / "out" / "brain_T1w_sr.nii.gz")
    assert after.shape == (40, 44, 40)
    np.testing.assert_allclose(nib.affines.voxel_sizes(after.affine), 1, atol=1e-4)
    again = after.get_fdata().reshape(40, 44, 8, 5).mean(-1)
    error = np.abs(again - before.get_fdata()).mean() / np.ptp(before.get_fdata())
    assert error < 0.01
    assert json.loads((tmp_path / "out" / "brain_T1w_sr.json").read_text())["Synthetic"]
    proved(
        f"{SR}: runs with its own package, where none is installed; sliced thick again, off by {error:.1e}"
    )


@pytest.mark.skipif(TRANSLATION not in NAMES, reason="the translation bundle has no weights")
def test_translation_runs_without_this_package(python, downloaded, thick_template, tmp_path):
    bundle = downloaded / TRANSLATION
    done = infer(python, bundle, tmp_path, "--input", thick_template.parent, "--output_dir", "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert imported(done) == str(bundle / "monai_diffens" / "__init__.py")
    before = nib.load(thick_template)
    after = nib.load(tmp_path / "out" / "brain_desc-synthetic_FLAIR.nii.gz")
    assert after.shape == (40, 44, 40) and after.get_data_dtype() == np.float32
    middles = [nib.affines.apply_affine(i.affine, (np.array(i.shape) - 1) / 2) for i in (before, after)]
    np.testing.assert_allclose(*middles, atol=1e-3)
    facts = json.loads((tmp_path / "out" / "brain_desc-synthetic_FLAIR.json").read_text())
    assert facts["Synthetic"] and facts["SynthesizedFrom"] == [thick_template.name]
    proved(f"{TRANSLATION}: runs with its own package, where none is installed: a FLAIR from a T1w alone")


def test_rows_28_and_29_in_a_run(python, downloaded, thick_template, tmp_path):
    copy = tmp_path / SR
    shutil.copytree(downloaded / SR, copy)
    weights = bytearray((copy / "models" / "model.pt").read_bytes())
    weights[len(weights) // 2] ^= 1
    (copy / "models" / "model.pt").write_bytes(weights)
    done = infer(python, copy, tmp_path, "--input", thick_template, "--output_dir", "out")
    line = f"{SR}: 1 files are not as released, first: models/model.pt (changed)"
    assert done.returncode == 1 and line in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
    proved("a changed weight file stops the run with one line, before it is read")


FILE_AND_HUB = """
import sys, monai.bundle
from pathlib import Path
from monai.bundle import ConfigWorkflow
name, url, repo, folder = sys.argv[1:]
monai.bundle.download(name=name, url=url, bundle_dir=folder + "/file", progress=False)
hub = {"source": "huggingface_hub", "repo": repo, "bundle_dir": folder + "/hub"}
monai.bundle.download(name=name, **hub, progress=False)
networks = []
for place in ("file", "hub"):  # two bundles in one process
    root = f"{folder}/{place}/{name}"
    sys.path.insert(1, root)
    workflow = ConfigWorkflow(f"{root}/configs/inference.json", workflow_type="infer", bundle_root=root)
    workflow.initialize()
    assert workflow.check_properties() == []
    networks.append(workflow.network_def)
    from monai_diffens.bundle.before_run import check_bundle  # with what a run begins
    check_bundle(Path(root))
a, b = networks
assert a is not b and type(a) is type(b)
print("two bundles, one package")
"""


def test_from_a_file_and_from_the_hub_into_one_process(python, releases, address, tmp_path):
    pytest.importorskip("huggingface_hub")
    arguments = (SR, releases[SR].as_uri(), f"{OWNER}/{SR}", tmp_path)
    hub = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    done = run(python, "-c", FILE_AND_HUB, *arguments, cwd=tmp_path, **hub)
    assert done.returncode == 0, done.stderr
    assert "two bundles, one package" in done.stdout
    for place in ("file", "hub"):
        verify(tmp_path / place / SR)
        proved(f"{SR}: downloaded by monai.bundle from {place}, verified")
    proved("two bundles in one process load, and their checks pass")


# What MONAI's command takes unchecked, and ours does not


def test_monai_writes_nothing_outside_either(releases, tmp_path):
    bad = tmp_path / "bad.zip"
    shutil.copy(releases[SR], bad)
    with zipfile.ZipFile(bad, "a") as archive:
        archive.writestr(f"{SR}/../../escaped.txt", "x")
    command = ("--name", SR, "--url", bad.as_uri(), "--bundle_dir", tmp_path / "deep" / "bundles")
    done = forked.run(["monai.bundle", "download", *command], tmp_path)
    assert done.returncode != 0 and "Unsafe path" in done.stderr
    assert not list(tmp_path.rglob("escaped.txt"))
    proved("monai.bundle download refuses a path that leads out, too")


@pytest.mark.parametrize(
    ("kind", "sha256", "words"),
    [
        ("half", None, "cannot be fetched"),
        ("releases", "0" * 64, f"not {'0' * 64}: damaged or replaced; nothing was unpacked"),
        ("nowhere", None, "cannot be fetched (HTTP Error 404: Not Found)"),
    ],
)
def test_our_download_refuses(releases, address, tmp_path, capsys, kind, sha256, words):
    options = ["--sha256", sha256] if sha256 else []
    url = f"{address}/{kind}/{releases[SR].name}"
    with pytest.raises(SystemExit) as caught:
        main(["download", url, "--bundle_dir", str(tmp_path / "bundles"), *options])
    told = capsys.readouterr().err.strip().splitlines()[-1]  # MONAI's bar stands before it
    assert caught.value.code == 3 and words in told
    assert [path.name for path in tmp_path.rglob("*")] == ["bundles"]
    proved(f"{kind}: {told}")
    del caught
    gc.collect()  # here, where its warning is expected


def test_our_download_takes_the_release(releases, address, tmp_path, capsys):
    url = f"{address}/releases/{releases[SR].name}"
    with pytest.raises(SystemExit) as ended:
        main(["download", url, "--bundle_dir", str(tmp_path), "--sha256", sha256_of(releases[SR])])
    assert not ended.value.code
    assert os.listdir(tmp_path) == [SR]
