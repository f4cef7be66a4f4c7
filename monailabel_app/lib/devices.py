"""Which device a request runs on."""

from __future__ import annotations

from typing import Any

from monailabel.utils.others.generic import device_list, device_map, name_to_device

from monai_diffens.messages import InputRejected, say

__all__ = ["checked_device"]


def checked_device(name: Any) -> str:
    """Return this machine's device, in torch's words, for what a client calls it.

    Args:
        name: one of MONAI Label's ``device_list()``, or of torch; that list itself, or None, for its first.
            "cuda" is the CPU on a machine that has none, since viewers send it unasked.

    Raises:
        InputRejected: this machine has no such device.
    """
    wanted = name[0] if isinstance(name, list) and name else name
    known = {"cpu", "cuda", *device_map(), *device_map().values()}
    if wanted not in (None, "", []) and not (isinstance(wanted, str) and wanted in known):
        wish = f"one of {', '.join(device_list())}"
        raise InputRejected(say("bad_parameter", name="device", value=repr(wanted)[:40], wanted=wish))
    return str(name_to_device(wanted))
