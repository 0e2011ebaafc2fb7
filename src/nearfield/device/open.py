"""Which devices there are, and opening them; each is opened once."""

import atexit
import sys
from threading import Lock
from typing import NamedTuple

from ..errors import DeviceError
from .device import Device

__all__ = ["Found", "available", "names", "open_async", "open_device"]

IN_BROWSER: bool = sys.platform == "emscripten"
_opened: dict[str, Device] = {}
_guard = Lock()
_PACKAGES = {"webgpu": "wgpu", "wasm": "wasmtime"}


class Found(NamedTuple):
    """A device's name, and either its description or the reason why it is missing; the other is ""."""

    name: str
    description: str
    reason: str


def names() -> tuple[str, ...]:
    """The names of all devices, here or not: the best first."""
    return tuple(_PACKAGES)


def available() -> list[Found]:
    """For each name, what the device is, or why it is missing. Nothing is opened."""
    return [_look(name) for name in names()]


def open_device(name: str) -> Device:
    """The device, the same one each time.

    errors   DeviceError with the reason and the way out, if it is missing
    """
    if name not in _PACKAGES:
        raise DeviceError(f"device: {name!r} is not a device; accepted are {', '.join(_PACKAGES)}.")
    with _guard:
        device = _opened.get(name)
        if device is None or device.is_lost:
            device = _opened[name] = _open(name)
        return device


async def open_async(name: str) -> Device:
    """What `open_device` gives, where a page's WebGPU can only be waited for."""
    if not IN_BROWSER:
        return open_device(name)
    device = _opened.get(name)
    if device is None or device.is_lost:
        from . import browser

        device = _opened[name] = await browser.open_async(name)
    return device


@atexit.register
def _close_all() -> None:
    """Drivers complain when Python takes them apart in an order of its own."""
    for device in _opened.values():
        device.close()


def _open(name: str) -> Device:
    if IN_BROWSER:
        from . import browser

        return browser.open_device(name)
    try:
        if name == "wasm":
            from .wasmtime import WasmDevice

            return WasmDevice()
        from .wgpu import WgpuDevice
    except ImportError as error:
        raise DeviceError(f"{name}: {_missing(name, error)}") from None
    return WgpuDevice()


def _look(name: str) -> Found:
    try:
        if IN_BROWSER:
            from . import browser

            return Found(name, browser.describe(name), "")
        if name == "wasm":
            from . import wasmtime

            return Found(name, wasmtime.describe(), "")
        from . import wgpu

        return Found(name, wgpu.describe(), "")
    except ImportError as error:
        return Found(name, "", _missing(name, error))
    except DeviceError as error:
        return Found(name, "", str(error))


def _missing(name: str, error: ImportError) -> str:
    package = _PACKAGES[name]
    if isinstance(error, ModuleNotFoundError):
        return f"the package {package} is not installed. Run `pip install {package}`."
    return f"the package {package} does not load: {error}. Reinstall it, or use another device."
