"""Devices: what they compute, what they hold, what they refuse, and what is left when things go wrong."""

import asyncio
import gc
import os
import random
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devices import need
from handmade_programs import chain, download, loaded, prepared, sums, take_over, upload
from nearfield.device import Device, available, names, open_async, open_device
from nearfield.device.device import octets
from nearfield.errors import DeviceError, FormatError
from nearfield.program.program import Kernel, Program

COUNT = 6
TWOS = struct.pack("<6f", *[2.0] * 6)
SOURCE = Path(__file__).resolve().parent.parent / "src"
TARGETS = ("wasm", "webgpu")


@pytest.fixture(params=TARGETS)
def dev(request: pytest.FixtureRequest) -> Iterator[Device]:
    """Each native device; what a test allocates there must be gone afterwards."""
    need(request.param)
    device = open_device(request.param)
    gc.collect()
    before = device.stats()
    yield device
    gc.collect()
    after = device.stats()
    assert (after.bytes, after.buffers) == (before.bytes, before.buffers)


# What a device says of itself ----------------------------------------------------------------------------------------


def test_devices_are_described(dev: Device) -> None:
    """Names, limits and features that a compiler can rely on."""
    assert dev.name in names()
    assert dev.description
    assert {"float16", "float32", "int8", "bool"} <= dev.dtypes
    assert ("float64" in dev.dtypes) == (dev.name == "wasm")
    assert open_device(dev.name) is dev
    assert asyncio.run(open_async(dev.name)) is dev
    if dev.name == "wasm":
        assert dev.limits["threads"] >= 1
        assert not dev.is_hardware
    else:
        assert dev.limits["maxStorageBufferBindingSize"] >= 2**27


def test_available_gives_a_reason_or_a_description() -> None:
    """One of the two, for each name."""
    found = available()
    assert tuple(row.name for row in found) == names()
    assert all(bool(row.description) != bool(row.reason) for row in found)


def test_unknown_device() -> None:
    """The message names the devices that there are."""
    with pytest.raises(DeviceError, match=r"'cuda'.*accepted are webgpu, wasm"):
        open_device("cuda")


def test_threads_are_checked() -> None:
    """A wrong NEARFIELD_THREADS is an error with the way out, not a traceback from deep inside."""
    need("wasm")
    code = "import nearfield.device as d; print([row.reason for row in d.available() if row.name == 'wasm'][0])"
    env = {**os.environ, "NEARFIELD_THREADS": "many"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, cwd=SOURCE)
    assert "NEARFIELD_THREADS is 'many'; accepted are 1 to 512" in done.stdout


# Memory --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nbytes", [0, 1, 3, 4, 15, 16, 17, 1001, 300_000])
def test_bytes_come_back(dev: Device, nbytes: int) -> None:
    """Whatever the length, and from any object that has bytes."""
    data = random.Random(nbytes).randbytes(nbytes)
    memory = dev.alloc(nbytes)
    for source in (data, bytearray(data), memoryview(data)):
        dev.write(memory, source)
        assert dev.read(memory, nbytes) == data
    assert asyncio.run(dev.read_async(memory, nbytes)) == data
    assert dev.read(memory, nbytes // 2) == data[: nbytes // 2]


def test_bytes_of_any_array() -> None:
    """Not contiguous, of a format that memoryview cannot cast, or empty."""
    import numpy as np

    for array in (np.arange(12.0).reshape(3, 4).T, np.ones(3, "float16"), np.zeros((0, 3)), np.array(True)):
        assert octets(array.data) == array.tobytes()


def test_read_and_write_stay_inside(dev: Device) -> None:
    """Neither past the end."""
    memory = dev.alloc(10)
    with pytest.raises(DeviceError, match="11 bytes into a block of 10"):
        dev.write(memory, bytes(11))
    with pytest.raises(DeviceError, match="11 bytes from a block of 10"):
        dev.read(memory, 11)
    with pytest.raises(DeviceError, match="-1 bytes from a block of 10"):
        dev.read(memory, -1)


def test_memory_is_counted(dev: Device) -> None:
    """Bytes and buffers rise and fall with the references."""
    before = dev.stats()
    blocks = [dev.alloc(1000) for _ in range(10)]
    now = dev.stats()
    assert (now.bytes, now.buffers) == (before.bytes + 10 * 1008, before.buffers + 10)
    assert now.peak >= now.bytes
    del blocks[:5]
    assert dev.stats().buffers == before.buffers + 5
    del blocks
    assert dev.stats()[::2] == before[::2]


def test_too_much_memory(dev: Device) -> None:
    """The message has the figures and the way out, and the device goes on."""
    with pytest.raises(DeviceError, match=r"dtype='float16'.*device '") as error:
        dev.alloc(2**33)
    assert "8,589,934,592" in str(error.value) or "8590 MB" in str(error.value)
    assert download(upload(dev, 1, 2)) == [1, 2]


# Running -------------------------------------------------------------------------------------------------------------


def test_run(dev: Device) -> None:
    """Constants, scratch and weights; outputs are fresh each time."""
    session = loaded(dev)
    x = upload(dev, *range(COUNT))
    [first] = session.run("predict", [x])
    [second] = session.run("predict", [upload(dev, *[1.0] * COUNT)])
    assert download(first) == [0, 4, 8, 12, 16, 20]
    assert download(second) == [2, 4, 6, 8, 10, 12]
    assert download(x) == list(range(COUNT))


def test_weights_are_state(dev: Device) -> None:
    """`train` adds 1 to w after using it; entries share it."""
    session = loaded(dev)
    x = upload(dev, *[1.0] * COUNT)
    first = [download(session.run("train", [x])[0])[0] for _ in range(3)]
    assert first == [2, 3, 4]
    assert session.read_weight("w") == struct.pack("<6f", *[5.0] * 6)
    assert download(session.run("predict", [x])[0])[0] == 5
    session.load_weights({"w": TWOS})
    assert download(session.run("predict", [x])[0])[0] == 2


def test_prepared_once_for_each_writing_of_weights(dev: Device) -> None:
    """`prepare` runs by itself before the first call, and again only when weights were written."""
    session = dev.load(prepared(dev.name))
    session.load_weights({"w": struct.pack("<6f", *[100.0] * 6), "runs": bytes(24)})
    x = upload(dev, *range(6))
    for _ in range(3):
        assert download(session.run("predict", [x])[0]) == [101 + n for n in range(6)]
    session.load_weights({"w": TWOS})
    for _ in range(2):
        assert download(session.run("predict", [x])[0]) == [4 + n for n in range(6)]
    assert session.read_weight("runs") == TWOS


def test_settled_sessions_hold_what_was_made_of_weights(dev: Device) -> None:
    """And the weights no more that only `prepare` reads; who writes or reads them is told so."""
    session = dev.load(prepared(dev.name))
    session.load_weights({"w": struct.pack("<6f", *[100.0] * 6), "runs": bytes(24)})
    full = dev.stats().bytes
    for _ in range(2):
        session.settle()
        assert full - dev.stats().bytes == 64
    x = upload(dev, *range(6))
    for _ in range(2):
        assert download(session.run("predict", [x])[0]) == [101 + n for n in range(6)]
    with pytest.raises(DeviceError, match=r"'w' cannot be written.*Load the Program again"):
        session.load_weights({"w": TWOS})
    with pytest.raises(DeviceError, match="'runs' cannot be read"):
        session.read_weight("runs")
    with pytest.raises(FormatError, match="'x' is not a weight"):
        session.read_weight("x")
    session.close()
    with pytest.raises(DeviceError, match="closed"):
        session.settle()


def test_settling_keeps_weights_that_calls_read(dev: Device) -> None:
    session = loaded(dev)
    session.settle()
    session.load_weights({"w": TWOS})
    assert session.read_weight("w") == TWOS


def test_loading_twice_gives_two_states(dev: Device) -> None:
    """Sessions of one Program have their own weights and scratch memory."""
    one, other = loaded(dev), loaded(dev)
    x = upload(dev, *[1.0] * COUNT)
    one.run("train", [x])
    assert one.read_weight("w") != other.read_weight("w") == TWOS


def test_wrong_weights(dev: Device) -> None:
    """All are checked before the first is written."""
    session = loaded(dev)
    with pytest.raises(FormatError, match="'v' is not a weight of this Program; it has w"):
        session.load_weights({"w": bytes(24), "v": bytes(24)})
    with pytest.raises(FormatError, match="'w' has 20 bytes; accepted are 24"):
        session.load_weights({"w": bytes(20)})
    with pytest.raises(FormatError, match="'x'"):
        session.read_weight("x")
    assert session.read_weight("w") == TWOS


def test_output_takes_over_input(dev: Device) -> None:
    """The same Memory, with new values; no memory is needed."""
    session = dev.load(take_over(dev.name))
    x = upload(dev, *range(COUNT))
    before = dev.stats()
    [y] = session.run("next", [x])
    assert y is x
    assert download(y) == [1, 2, 3, 4, 5, 6]
    assert dev.stats() == before


def taking_over_one_of_two(target: str) -> Program:
    """y = x + 1 in the memory of x; z, which is never written, shows the memory of the second input after the run."""
    base = take_over(target)
    return replace(
        base,
        buffers=(*base.buffers, replace(base.buffers[0], name="x2"), replace(base.buffers[1], name="z", alias=2)),
        entries=(replace(base.entries[0], inputs=(0, 2), outputs=(1, 3)),),
    )


def test_input_given_twice(dev: Device) -> None:
    """Where one of them is taken over, the other keeps the old values."""
    session = dev.load(taking_over_one_of_two(dev.name))
    x = upload(dev, *range(COUNT))
    y, z = session.run("next", [x, x])
    assert (y is x, z is x) == (True, False)
    assert download(y) == [1, 2, 3, 4, 5, 6]
    assert download(z) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("refused", [True, False])
def test_calls_in_a_row(dev: Device, refused: bool) -> None:
    """Each sees its own inputs: those of the call before, others in either place, one twice, one that is too small.

    refused  whether a call that is wrong comes between: what a device knows of the last one then may be forgotten
    """
    session = dev.load(taking_over_one_of_two(dev.name))
    a, b, c = (upload(dev, *range(n, n + COUNT)) for n in (0, 10, 20))
    for first, second in [(a, b), (a, b), (c, b), (c, a), (a, c), (b, c), (b, b), (b, c)]:
        want, kept = [value + 1 for value in download(first)], download(second)
        y, z = session.run("next", [first, second])
        assert (y is first, z is second) == (True, first is not second)
        assert (download(y), download(z)) == (want, kept)
        if refused:
            with pytest.raises(DeviceError, match="input 0 has room for 16 bytes, but needs 32"):
                session.run("next", [upload(dev, 1.0), second])
        dev.write(b, struct.pack("<6f", *range(30, 36)))


def test_calls_that_are_repeated(dev: Device) -> None:
    """With a token only what is named is looked at; without, or with another, all is."""
    session = dev.load(sums(dev.name, 3))
    inputs = [upload(dev, *[float(n)] * 1000) for n in range(4)]
    for n, token in [(0, 7), (0, 7), (1, 7), (2, 7), (3, 0), (2, 7), (1, 8), (2, 8), (2, 0), (0, 0), (2, 8)]:
        [y] = session.repeat("run", [inputs[n]], (0,), token) if token else session.run("run", [inputs[n]])
        assert download(y) == [8.0 * n] * 1000
        with pytest.raises(DeviceError, match="input 0 has room for 16 bytes, but needs"):
            session.repeat("run", [upload(dev, 1.0)], (0,), token or 8)


def test_repeated_calls_in_place(dev: Device) -> None:
    """What is taken over is written again and again; another block needs another token."""
    session = dev.load(take_over(dev.name))
    a, b = upload(dev, *range(COUNT)), upload(dev, *range(10, 10 + COUNT))
    for memory, token in [(a, 7), (a, 7), (b, 8), (a, 9), (a, 9), (b, 0), (a, 9), (a, 9)]:
        want = [value + 1 for value in download(memory)]
        if token:
            assert session.repeat("next", [memory], (), token) == []
        else:
            assert session.run("next", [memory]) == [memory]
        assert download(memory) == want


@pytest.mark.parametrize("steps", [1, 2, 17, 600])
def test_many_steps(dev: Device, steps: int) -> None:
    """Each step sees what the one before wrote, also where they are sent in several batches."""
    session = dev.load(sums(dev.name, steps))
    [y] = session.run("run", [upload(dev, *[1.0] * 1000)])
    assert download(y) == [float(2**steps) if steps < 128 else float("inf")] * 1000


def test_devices_agree() -> None:
    """The same numbers, to the bit."""
    results = []
    for name in TARGETS:
        need(name)
        device = open_device(name)
        session = device.load(sums(name, 12))
        results.append(download(session.run("run", [upload(device, *range(1000))])[0]))
    assert results[0] == results[1]


def test_wrong_calls(dev: Device) -> None:
    """Said before anything runs."""
    session = loaded(dev)
    x = upload(dev, *range(COUNT))
    with pytest.raises(DeviceError, match="no entry 'fit'; accepted are predict, train"):
        session.run("fit", [x])
    with pytest.raises(DeviceError, match="predict: 2 inputs were given; accepted are 1"):
        session.run("predict", [x, x])
    with pytest.raises(DeviceError, match="predict: input 0 has room for 16 bytes, but needs 32"):
        session.run("predict", [dev.alloc(4)])


def test_memory_of_another_device() -> None:
    """It is refused, in words."""
    for name in TARGETS:
        need(name)
    session = loaded(open_device("wasm"))
    with pytest.raises(DeviceError, match="input 0 is memory of another device"):
        session.run("predict", [upload(open_device("webgpu"), *range(COUNT))])


def test_load_refuses(dev: Device) -> None:
    """What is for another device, illegal, or cannot be compiled."""
    other = TARGETS[1 - TARGETS.index(dev.name)]
    before = dev.stats()
    if other == "webgpu":
        with pytest.raises(DeviceError, match="target is 'webgpu'"):
            dev.load(chain(other))
    with pytest.raises(FormatError, match="arena"):
        dev.load(replace(chain(dev.name), arena=0))
    bad = replace(chain(dev.name), module=b"\3") if dev.name == "wasm" else broken()
    with pytest.raises(FormatError, match=r"is not WebAssembly|kernel 'add': its WGSL is refused"):
        dev.load(replace(bad, memory_flag=0))
    gc.collect()
    assert dev.stats()[::2] == before[::2]


def broken() -> Any:
    """A Program with a kernel that is no WGSL."""
    program = chain("webgpu")
    return replace(program, kernels=(Kernel("add", "fn main( {", 3), *program.kernels[1:]))


def test_missing_feature(dev: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Program that needs what the device lacks is refused, with the feature's name."""
    feature = "relaxed-simd" if dev.name == "wasm" else "shader-f16"
    monkeypatch.setattr(dev, "features", frozenset())
    with pytest.raises(DeviceError, match=f"needs {feature}"):
        dev.load(replace(chain(dev.name), features=(feature,)))


def test_load_async(dev: Device) -> None:
    """The same Session, by the other way."""
    session = asyncio.run(dev.load_async(chain(dev.name)))
    session.load_weights({"w": TWOS})
    assert download(session.run("predict", [upload(dev, *range(COUNT))])[0]) == [0, 4, 8, 12, 16, 20]


def test_closing_gives_memory_back(dev: Device) -> None:
    """Closed by hand or let go; a closed Session says so."""
    before = dev.stats()
    session = loaded(dev)
    x = upload(dev, *range(COUNT))
    [y] = session.run("predict", [x])
    session.close()
    session.close()
    with pytest.raises(DeviceError, match="closed"):
        session.run("predict", [x])
    assert download(y)[1] == 4
    del session, x, y
    gc.collect()
    assert dev.stats()[::2] == before[::2]


def test_nothing_grows(dev: Device) -> None:
    """Ten thousand runs (fewer where each is slow) leave no trace in the figures."""
    session = loaded(dev)
    x = upload(dev, *range(COUNT))
    for _ in range(10):
        session.run("train", [x])
    before = dev.stats()
    for _ in range(10_000 if dev.name == "wasm" else 300):
        session.run("train", [x])
    assert dev.stats() == before
