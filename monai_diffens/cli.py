"""The command ``diffens``: restore and translate scans, look at results, and handle bundles.

Options come from the table of :mod:`monai_diffens.options` and their defaults from the bundles, so that they
are those of ``python -m monai.bundle run inference``, whose code is run. Heavy packages are imported where a
command needs them: help comes at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from monai_diffens.bundle.folder import BUNDLES, METADATA, WEIGHTS, bundle_path, read_config
from monai_diffens.cli_options import STATUSES, OneLine, a_path, checked, steps_of, with_options
from monai_diffens.cli_runs import PAGE, plan_cases, run_cases
from monai_diffens.files import sha256_of
from monai_diffens.messages import InputRejected, say, tell
from monai_diffens.options import QUALITIES, OptionError

__all__ = ["app", "bundle_app", "main"]

app = typer.Typer(
    cls=OneLine,
    help="Restore brain MRI with thick slices, and make one contrast from others. Research use only.",
    epilog=STATUSES,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
bundle_app = typer.Typer(
    cls=OneLine, help="Find, check, pack and fetch bundles.", rich_markup_mode=None, no_args_is_help=True
)
app.add_typer(bundle_app, name="bundle")

# --num-steps and --num_steps are one
EITHER: dict[str, Any] = {"token_normalize_func": lambda word: word.replace("-", "_")}
DIAL = ", ".join(f"{name} ({steps} step{'s' * (steps > 1)})" for name, steps in QUALITIES.items())
Output = Annotated[
    Path,
    typer.Option(
        "-o", "--output_dir", parser=a_path, metavar="PATH", help="folder of the results; made if missing"
    ),
]
Root = Annotated[Path | None, typer.Option("--bundle_root", help="a bundle of your own [default: installed]")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="print errors only")]
JsonLines = Annotated[bool, typer.Option("--json_lines", help="print a JSON object for each case, then one")]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="processes here that share the cases [default: none]")
]
Scheduler = Annotated[
    str | None, typer.Option("--scheduler", metavar="ADDRESS", help="dask scheduler of a cluster to use")
]
Quality = Annotated[str | None, typer.Option(metavar="WORD", help=f"dial: {DIAL}")]
NOTHING_GIVEN: Mapping[str, Any] = {}


def _version(asked: bool) -> None:
    if asked:
        from monai_diffens import __version__

        tell(f"diffens {__version__}")
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="show the version")
    ] = False,
) -> None:
    pass


@app.command(context_settings=EITHER)
@with_options("sr")
def sr(
    scan: Annotated[
        Path, typer.Argument(parser=a_path, metavar="SCAN|FOLDER|DICOM", help="NIfTI, or folder")
    ],
    output_dir: Output,
    quality: Quality = None,
    bundle_root: Root = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    quiet: Quiet = False,
    json_lines: JsonLines = False,
    options: Mapping[str, Any] = NOTHING_GIVEN,
) -> None:
    """Restore scans with thick slices."""
    root = bundle_root or bundle_path("sr")
    typed = checked(read_config(root), {**options, **steps_of(quality, options)})
    raise typer.Exit(run_cases("sr", root, scan, output_dir, typed, quiet, json_lines, workers, scheduler))


@app.command(context_settings=EITHER)
@with_options("translate")
def translate(
    cases: Annotated[
        Path, typer.Argument(parser=a_path, metavar="CASES", help="case folders, or a list (.json)")
    ],
    output_dir: Output,
    quality: Quality = None,
    bundle_root: Root = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    quiet: Quiet = False,
    json_lines: JsonLines = False,
    options: Mapping[str, Any] = NOTHING_GIVEN,
) -> None:
    """Make a contrast from others that a case has."""
    root = bundle_root or bundle_path("translate")
    typed = checked(read_config(root), {**options, **steps_of(quality, options)})
    raise typer.Exit(
        run_cases("translate", root, cases, output_dir, typed, quiet, json_lines, workers, scheduler)
    )


@app.command(context_settings=EITHER)
def check(
    scan: Annotated[
        Path, typer.Argument(parser=a_path, metavar="INPUT", help="what sr or translate would be given")
    ],
    task: Annotated[str, typer.Option(metavar="|".join(BUNDLES), help="what would be done")] = "sr",
    output_dir: Annotated[
        Path | None, typer.Option("-o", "--output_dir", help="its results count as there already")
    ] = None,
    bundle_root: Root = None,
    target_spacing: Annotated[str | None, typer.Option(metavar="NUMBER", help="voxel size, mm")] = None,
    brain_mask: Annotated[
        Path | None, typer.Option("--brain_mask", help="brain mask, or a folder of them")
    ] = None,
    volume: Annotated[str | None, typer.Option(metavar="INTEGER", help="volume of a 4D file, from 0")] = None,
    series: Annotated[str | None, typer.Option(metavar="NUMBER,...", help="DICOM series to take")] = None,
    fill_nan: Annotated[bool, typer.Option("--fill_nan", help="take NaN and infinity as 0")] = False,
    force: Annotated[bool, typer.Option("--force", help="accept values unlike MR")] = False,
    json_lines: JsonLines = False,
) -> None:
    """Say what would be done to each case; write nothing."""
    if task not in BUNDLES:
        raise OptionError("task", task, f"one of {', '.join(BUNDLES)}")
    root = bundle_root or bundle_path(task)
    given: dict[str, Any] = {
        "target_spacing": target_spacing,
        "brain_mask": brain_mask,
        "volume": volume,
        "series": series,
    }
    given = {name: value for name, value in given.items() if value is not None}
    options = checked(read_config(root), {**given, "fill_nan": fill_nan, "force": force})
    raise typer.Exit(plan_cases(root, scan, output_dir, options, json_lines))


@app.command()
def view(
    output_dir: Annotated[Path, typer.Argument(metavar="OUT", help="folder of the results, or a page")],
) -> None:
    """Open the page of a run in the browser."""
    page = output_dir / PAGE if output_dir.is_dir() else output_dir
    if not page.is_file() or page.suffix != ".html":
        raise InputRejected(say("no_page", name=output_dir))
    import webbrowser

    opened = webbrowser.open(page.resolve().as_uri())
    tell(f"{page.resolve()}" if opened else f"no browser here; open {page.resolve()}")


@app.command(context_settings=EITHER)
def demo(
    output_dir: Annotated[
        Path, typer.Option("-o", "--output_dir", parser=a_path, help="folder of what it writes")
    ] = Path("demo_output"),
    num_steps: Annotated[
        int | None, typer.Option(min=1, help="denoising steps [default: the bundle's]")
    ] = None,
    crop: Annotated[int | None, typer.Option(min=15, help="side of a central box to work on, voxels")] = None,
    bundle_root: Root = None,
) -> None:
    """Restore a template brain in 5 mm slices; measure it."""
    from monai_diffens.demo import run
    from monai_diffens.inference import Interrupted, told_status

    try:
        run(output_dir, bundle_root or bundle_path("sr"), num_steps, crop)
    except Interrupted as stopped:
        raise typer.Exit(told_status(stopped)) from None


@app.command()
def info() -> None:
    """Show version, weights and hash, device, threads."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from monai_diffens import __version__

    tell(
        f"diffens {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    )
    for package in ("torch", "monai", "nibabel", "itk", "pydicom"):
        try:
            tell(f"  {package} {version(package)}")
        except PackageNotFoundError:
            tell(f"  {package} is not installed")
    for task, name in BUNDLES.items():
        weights = bundle_path(task) / WEIGHTS
        recorded = Path(f"{weights}.sha256").read_text(encoding="utf-8").split()[0]
        digest = sha256_of(weights)
        kept = "as recorded" if digest == recorded else f"NOT the recorded {recorded}"
        tell(f"{task}: {name}, {weights}\n  SHA-256 {digest}, {kept}")
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        tell(f"device: cuda:{number}, {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    if not torch.cuda.is_available():
        tell("device: cpu (no GPU that this PyTorch can use)")
    tell(f"threads: {torch.get_num_threads()} (set OMP_NUM_THREADS for another number)")


@bundle_app.command("path")
def path(
    bundle: Annotated[str, typer.Argument(metavar="|".join(BUNDLES), help="task or name")] = "sr",
) -> None:
    """Print the folder of an installed bundle."""
    tell(str(bundle_path(bundle)))


@bundle_app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="zip or folder")],
    sha256: Annotated[str | None, typer.Option("--sha256", help="digest of the zip, as published")] = None,
) -> None:
    """Check a zip or an unpacked bundle; none of it is run."""
    from monai_diffens.bundle.archive import unpack_and_verify
    from monai_diffens.bundle.archive import verify as verify_folder
    from monai_diffens.bundle.folder import PACKAGE_DIR

    if bundle.is_file():
        count = unpack_and_verify(bundle, sha256)
    elif sha256 is not None:
        raise InputRejected(say("digest_of_folder", name=bundle))
    else:
        count = verify_folder(bundle)
        if PACKAGE_DIR.is_relative_to(bundle.resolve()):
            tell(f"{bundle}: checked with its own copy of monai_diffens, which proves no origin")
    tell(say("verified", name=bundle, count=count))
    tell(say("not_verified", name=bundle))


@bundle_app.command()
def pack(
    bundles: Annotated[list[Path], typer.Argument(metavar="BUNDLE...", help="folders of bundles")],
    output_dir: Annotated[
        Path, typer.Option("-o", "--output_dir", parser=a_path, help="where zips go")
    ] = Path("dist"),
) -> None:
    """Write a release zip of each bundle."""
    from monai_diffens.bundle.archive import DIGESTS, unpack_and_verify, write_digests
    from monai_diffens.bundle.archive import pack as pack_bundle

    paths = []
    for root in bundles:
        path = pack_bundle(root, output_dir)
        count = unpack_and_verify(path)
        tell(f"{path}: {count} files, {path.stat().st_size / 1e6:.1f} MB, unpacked and verified")
        paths.append(path)
    tell(f"{write_digests(paths)}: SHA-256 of {len(paths)} archives, check with: sha256sum -c {DIGESTS}")


@bundle_app.command()
def download(
    url: Annotated[str, typer.Argument(metavar="URL", help="https://, http:// or file://")],
    bundle_dir: Annotated[Path, typer.Option("--bundle_dir", help="where the bundle's folder goes")] = Path(
        "."
    ),
    sha256: Annotated[str | None, typer.Option("--sha256", help="digest of the zip, as published")] = None,
) -> None:
    """Fetch a release zip, check it and unpack it."""
    from monai_diffens.bundle.archive import fetch
    from monai_diffens.bundle.folder import check_versions

    root = fetch(url, bundle_dir, sha256)
    check_versions(root)
    told = ", SHA-256 as given" if sha256 else "; no SHA-256 was given to compare"
    tell(f"{root}: fetched and verified{told}")


@bundle_app.command()
def seal(bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="folder of a bundle")]) -> None:
    """Write a bundle's manifest again after a change of your own."""
    from monai_diffens.bundle.allow_list import check_configs
    from monai_diffens.bundle.archive import release_files
    from monai_diffens.bundle.folder import write_manifest

    root = bundle.resolve()
    read_config(root, METADATA)  # there is a bundle
    check_configs(root)
    path = write_manifest(root, release_files(root))
    tell(f"{path}: written; it vouches for what is there now")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``diffens``; SystemExit carries the status."""
    app(args=None if arguments is None else list(arguments), prog_name="diffens")
