"""Devices: load a Program, run it, read back. They import errors, dtype and program, and their one driver."""

from .device import Device, Memory, Session, Stats
from .interruption import Uninterrupted
from .open import Found, available, names, open_async, open_device

__all__ = [
    "Device", "Found", "Memory", "Session", "Stats", "Uninterrupted", "available", "names", "open_async", "open_device",
]  # fmt: skip
