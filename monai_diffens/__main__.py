"""Commands for bundles: ``python -m monai_diffens pack | verify | download | seal | export``."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

from monai_diffens.bundle.allow_list import check_configs
from monai_diffens.bundle.archive import DIGESTS, fetch, pack, release_files, unpack_and_verify, write_digests
from monai_diffens.bundle.check import verify
from monai_diffens.bundle.manifest import PACKAGE_DIR, BundleRejected, write_manifest
from monai_diffens.bundle.versions import check_versions
from monai_diffens.messages import say


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command.

    Raises:
        SystemExit: with one line, when a bundle is turned down or a file cannot be read or written.
    """
    options = _parse(arguments)
    try:
        options.command(options)
    except BundleRejected as error:
        raise SystemExit(str(error)) from error
    except OSError as error:
        raise SystemExit(f"{error.filename or 'disk'}: {error.strerror or error}") from error


def _pack(options: argparse.Namespace) -> None:
    paths = []
    for root in options.bundles:
        path = pack(root, options.output_dir)
        count = unpack_and_verify(path)
        print(f"{path}: {count} files, {path.stat().st_size / 1e6:.1f} MB, unpacked and verified")
        paths.append(path)
    print(f"{write_digests(paths)}: SHA-256 of {len(paths)} archives, check with: sha256sum -c {DIGESTS}")


def _verify(options: argparse.Namespace) -> None:
    path = options.bundle
    if path.is_file():
        count = unpack_and_verify(path, options.sha256)
    elif options.sha256 is not None:
        raise SystemExit(f"{path}: --sha256 is of a zip; give the zip")
    else:
        count = verify(path)
        if PACKAGE_DIR.is_relative_to(path.resolve()):
            print(f"{path}: checked with its own copy of monai_diffens, which proves no origin")
    print(say("verified", name=path, count=count))
    print(say("not_verified", name=path))


def _download(options: argparse.Namespace) -> None:
    root = fetch(options.url, options.bundle_dir, options.sha256)
    check_versions(root)
    print(
        f"{root}: fetched and verified"
        + (", SHA-256 as given" if options.sha256 else "; no SHA-256 was given to compare")
    )


def _seal(options: argparse.Namespace) -> None:
    root = options.bundle.resolve()
    check_configs(root)
    path = write_manifest(root, release_files(root))
    print(f"{path}: written; it vouches for what is there now")


def _export(options: argparse.Namespace) -> None:
    from monai_diffens.inferers.export import (
        export_sampler,
    )  # compiles parts of MONAI: not for the others to wait

    names = ("num_steps", "num_samples", "seed", "fusion")
    settings = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    factors = None if options.factors is None else tuple(options.factors)
    difference = export_sampler(
        options.bundle.resolve(), options.output, settings, factors, options.slice_profile
    )
    print(f"{options.output}: written; differs from the bundle by {difference:.2g} at most on a test volume")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m monai_diffens", description="Commands for bundles.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("pack", help="write a release zip of each bundle")
    command.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE", help="folder of a bundle")
    command.add_argument("--output_dir", type=Path, default=Path("dist"), help="default: %(default)s")
    command.set_defaults(command=_pack)

    command = commands.add_parser("verify", help="check a zip or an unpacked bundle; none of it is run")
    command.add_argument("bundle", type=Path, metavar="BUNDLE", help="zip or folder")
    command.add_argument("--sha256", help="digest of the zip, as published")
    command.set_defaults(command=_verify)

    command = commands.add_parser("download", help="fetch a release zip, check it and unpack it")
    command.add_argument("url", help="https://, http:// or file://")
    command.add_argument("--bundle_dir", type=Path, default=Path("."), help="where the bundle's folder goes")
    command.add_argument("--sha256", help="digest of the zip, as published")
    command.set_defaults(command=_download)

    command = commands.add_parser("seal", help="write a bundle's manifest again after a change of your own")
    command.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of a bundle")
    command.set_defaults(command=_seal)

    command = commands.add_parser("export", help="write the whole sampler as one TorchScript file")
    command.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of a bundle")
    command.add_argument("--output", type=Path, default=Path("model.ts"), help="default: %(default)s")
    for name in ("num_steps", "num_samples", "seed"):
        command.add_argument(f"--{name}", type=int, help="default: the bundle's")
    command.add_argument("--fusion", help="default: the bundle's")
    command.add_argument(
        "--factors",
        type=float,
        nargs=3,
        metavar=("RIGHT", "FRONT", "HEAD"),
        help="slice spacing of the scans in voxels of the result, 1 for a fine axis, as 1 1 5: the result "
        "then agrees with such scans",
    )
    command.add_argument("--slice_profile", default="box", help="box or gaussian")
    command.set_defaults(command=_export)

    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        near = difflib.get_close_matches(
            unknown[0].split("=")[0], [f"--{name}" for name in vars(options)], n=1
        )
        parser.error(f"unknown argument {unknown[0]}" + (f"; did you mean {near[0]}?" if near else ""))
    return options


if __name__ == "__main__":
    main(sys.argv[1:])
