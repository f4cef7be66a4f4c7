"""``diffens bundle``: find, check, pack and fetch bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from monai_diffens.bundle.location import BUNDLES, bundle_path
from monai_diffens.commands.one_line import OneLine
from monai_diffens.messages import InputRejected, say, tell

__all__ = ["bundle_app"]

bundle_app = typer.Typer(
    cls=OneLine, help="Find, check, pack and fetch bundles.", rich_markup_mode=None, no_args_is_help=True
)


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
    from monai_diffens.bundle.check import verify as verify_folder
    from monai_diffens.bundle.manifest import PACKAGE_DIR

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
    output_dir: Annotated[Path, typer.Option("-o", "--output_dir", help="where zips go")] = Path("dist"),
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
    from monai_diffens.bundle.versions import check_versions

    root = fetch(url, bundle_dir, sha256)
    check_versions(root)
    told = ", SHA-256 as given" if sha256 else "; no SHA-256 was given to compare"
    tell(f"{root}: fetched and verified{told}")


@bundle_app.command()
def seal(bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="folder of a bundle")]) -> None:
    """Write a bundle's manifest again after a change of your own."""
    from monai_diffens.bundle.allow_list import check_configs
    from monai_diffens.bundle.archive import release_files
    from monai_diffens.bundle.manifest import write_manifest

    root = bundle.resolve()
    check_configs(root)
    path = write_manifest(root, release_files(root))
    tell(f"{path}: written; it vouches for what is there now")
