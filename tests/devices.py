"""Which devices this machine has, and what to do about one that is missing."""

import functools
import importlib
import os
import warnings
from pathlib import Path
from typing import NoReturn

import pytest

DEVICES = ("reference", "wasm", "webgpu")
IN_CI = os.environ.get("CI") == "true"
CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))


def chosen_devices() -> tuple[str, ...]:
    """What the `device` fixture runs over: NEARFIELD_DEVICE (names with commas), or all."""
    return tuple(filter(None, os.environ.get("NEARFIELD_DEVICE", "").split(","))) or DEVICES


@functools.cache
def why_missing(name: str) -> str | None:
    """The reason why this machine lacks the device, or None if it has it."""
    driver = {"reference": "numpy", "wasm": "wasmtime", "webgpu": "wgpu", "xla": "jax"}[name]
    try:
        with warnings.catch_warnings(action="ignore"):
            module = importlib.import_module(driver)
            adapters = module.gpu.enumerate_adapters_sync() if name == "webgpu" else [name]
    except ImportError as error:
        return f"{name}: {driver} cannot be imported ({error})"
    return None if adapters else "webgpu: no adapter; install a Vulkan driver (Debian: mesa-vulkan-drivers)"


def missing(reason: str) -> NoReturn:
    """Skip the test on a user's machine; fail it in CI, where nothing may be missing."""
    if IN_CI:
        pytest.fail(f"missing in CI: {reason}", pytrace=False)
    pytest.skip(reason)


def need(device: str) -> None:
    """End the test here if the device is missing."""
    if reason := why_missing(device):
        missing(reason)
