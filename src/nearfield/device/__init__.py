"""Devices: load a Program, run it, read back. They import errors, dtype and program, and their one driver."""
