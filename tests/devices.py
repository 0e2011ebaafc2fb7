"""Which devices this machine has, and what to do about one that is missing."""

import functools
import os
from pathlib import Path
from typing import NoReturn

import pytest

DEVICES = ("reference", "wasm", "webgpu")
IN_CI = os.environ.get("CI") == "true"
MANY = 10_000 if os.environ.get("NEARFIELD_LONG") == "1" else 1_000  # steps of the long memory tests
CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))


def chosen_devices() -> tuple[str, ...]:
    """What the `device` fixture runs over: NEARFIELD_DEVICE (names with commas), or all."""
    return tuple(filter(None, os.environ.get("NEARFIELD_DEVICE", "").split(","))) or DEVICES


@functools.cache
def why_missing(name: str) -> str | None:
    """The reason why this machine lacks the device, or None if it has it."""
    if name == "reference":
        return None
    from nearfield.device.open import available

    reasons = {found.name: found.reason for found in available()}
    return reasons.get(name, f"{name} is not a device; there are {', '.join(reasons)}") or None


def missing(reason: str) -> NoReturn:
    """Skip the test on a user's machine; fail it in CI, where nothing may be missing."""
    if IN_CI:
        pytest.fail(f"missing in CI: {reason}", pytrace=False)
    pytest.skip(reason)


def need(device: str) -> None:
    """End the test here if the device is missing."""
    if reason := why_missing(device):
        missing(reason)
