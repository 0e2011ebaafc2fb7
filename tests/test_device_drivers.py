"""What only one device has: wasm's threads, traps and allocator, webgpu's pipelines, pool and loss."""

import random
import signal
import struct
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from threading import Event, get_ident
from typing import Any

import pytest

import nearfield as nf
from devices import need
from handmade_programs import chain, download, loaded, sums, take_over, trap, upload
from nearfield.device import Device, open_device
from nearfield.device.allocator import ALIGNMENT, Allocator
from nearfield.device.crew import Crew
from nearfield.errors import DeviceError, FormatError

COUNT = 6


@pytest.fixture
def wasm() -> Iterator[Device]:
    """The wasm device, with the number of threads put back afterwards."""
    need("wasm")
    device = open_device("wasm")
    threads = device.limits["threads"]
    yield device
    device.limits["threads"] = threads


# WebAssembly ---------------------------------------------------------------------------------------------------------


def test_threads_agree(wasm: Device) -> None:
    """One, two or seven threads give the same numbers, in every one of many runs."""
    session = wasm.load(sums("wasm", 12))
    x = upload(wasm, *range(1000))
    wanted = None
    for threads in (1, 2, 7, 1, 3):
        wasm.limits["threads"] = threads
        for _ in range(20):
            [y] = session.run("run", [x])
            wanted = wanted or download(y)
            assert download(y) == wanted


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_trap(wasm: Device, threads: int) -> None:
    """A trap in one thread is an error in all, hangs none, and leaves other memory and the Session usable."""
    wasm.limits["threads"] = threads
    session, other = wasm.load(trap()), loaded(wasm)
    from nearfield.device.wasmtime import RESERVED, TICKETS, WasmDevice

    assert isinstance(wasm, WasmDevice)
    tickets = wasm.view[TICKETS:RESERVED]
    x, keep = upload(wasm, *[0.0] * 100), upload(wasm, *range(COUNT))
    for _ in range(3):
        tickets[8] = 1  # of those that a thread took before it trapped
        with pytest.raises(DeviceError, match=r"wasm: fail: .*divide by zero"):
            session.run("fail", [x])
        assert not any(tickets)
    wasm.write(x, bytes(400))
    assert download(session.run("work", [x])[0]) == [1.0] * 100
    assert download(other.run("predict", [keep])[0]) == [0, 4, 8, 12, 16, 20]


def test_quick_and_plain_calls_agree(wasm: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the way past wasmtime's Python layer, all works as well."""
    from nearfield.device import wasmtime_call

    def missing(*_: object) -> None:
        raise AttributeError

    monkeypatch.setattr(wasmtime_call, "_quick", missing)
    assert download(loaded(wasm).run("predict", [upload(wasm, *range(COUNT))])[0]) == [0, 4, 8, 12, 16, 20]
    with pytest.raises(DeviceError, match="divide by zero"):
        wasm.load(trap()).run("fail", [upload(wasm, *[0.0] * 100)])


WRONG_MODULES = {
    "imports more": '(import "env" "print" (func (param i32)))',
    "has no run function": "",
    "has a run function of another type": '(func (export "run_next") (param i32))',
    "traps at the start": '(func (export "run_next") (param i32 i32 i32)) (func $s unreachable) (start $s)',
}


@pytest.mark.parametrize("text", WRONG_MODULES.values(), ids=WRONG_MODULES)
def test_wrong_module(wasm: Device, text: str) -> None:
    """A module that is not of the form the format asks for is refused before it is run."""
    import wasmtime

    module = bytes(wasmtime.wat2wasm(f'(module (import "env" "memory" (memory 1 65536 shared)) {text})'))
    program = replace(take_over("wasm"), module=module, memory_flag=module.index(b"\x02\x03\x01") + 1)
    with pytest.raises(FormatError, match="module"):
        wasm.load(program)


def test_crew_raises_what_a_task_raised() -> None:
    """From the caller's task or from another's; the Crew works on."""
    crew, done = Crew(), []

    def fail() -> None:
        raise KeyError("x")

    for tasks in ([fail, lambda: done.append(1)], [lambda: done.append(2), fail]):
        with pytest.raises(KeyError):
            crew.run(tasks)
    crew.run([lambda: done.append(3)] * 5)
    assert sorted(done) == [1, 2, 3, 3, 3, 3, 3]
    crew.dismiss()


def test_crew_waits_for_all_when_interrupted() -> None:
    """They use the caller's memory: an interruption is raised when they have ended, and leaves nothing behind."""
    crew, waiting, interrupted, done = Crew(), Event(), Event(), []
    main = get_ident()

    def interrupt() -> None:
        waiting.wait()
        signal.pthread_kill(main, signal.SIGINT)
        interrupted.set()

    def late() -> None:
        interrupted.wait()
        done.append(1)

    with pytest.raises(KeyboardInterrupt):
        crew.run([waiting.set, interrupt, late])
    assert done == [1]
    interrupted.clear()
    crew.run([interrupted.set, late, late])
    assert done == [1, 1, 1]
    crew.dismiss()


@pytest.mark.parametrize("seed", range(20))
def test_allocator(seed: int) -> None:
    """Blocks never overlap, are aligned and inside; freed memory is found again; in the end all is one piece."""
    rng = random.Random(seed)
    limit = rng.choice((10_000, 100_000, 1_000_000))
    allocator, held = Allocator(1000, limit), []
    for _ in range(600):
        if held and rng.random() < rng.choice((0.3, 0.5, 0.7)):
            allocator.give(held.pop(rng.randrange(len(held))))
        else:
            address = allocator.take(rng.choice((1, 64, 65, 1000, rng.randrange(limit // 20))))
            held += [address] if address >= 0 else []
        blocks = allocator.blocks()
        assert [address for address, _ in blocks] == sorted(held)
        assert all(address % ALIGNMENT == 0 and address >= 1000 for address in held)
        assert all(a + size <= b for (a, size), (b, _) in pairwise(blocks))
        assert all(address + size <= allocator.end <= limit for address, size in blocks)
        assert allocator.freed == allocator.end - 1024 - sum(size for _, size in blocks)
    for address in held:
        allocator.give(address)
    assert allocator.take((limit - 1024) // 64 * 64) == 1024
    assert allocator.take(1) == -1
    with pytest.raises(KeyError):
        allocator.give(5)


def test_wasm_memory_ends_at_four_gigabytes(wasm: Device) -> None:
    """Growing is refused by the device or by the machine; what is there stays."""
    keep = upload(wasm, 1, 2, 3)
    with pytest.raises(DeviceError, match="out of memory"):
        wasm.alloc(2**32 - 64)
    assert download(keep) == [1, 2, 3]


def test_a_refused_block_does_not_harm_smaller_ones(wasm: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the memory cannot grow, what is free in it is still given out."""
    device: Any = wasm
    blocks = [wasm.alloc(n) for n in (1000, 2000, 1000)]
    address = blocks.pop(1).key
    device.stats()
    device._blocks.join()
    monkeypatch.setattr(device, "_grow", lambda: False)
    for _ in range(3):
        with pytest.raises(DeviceError, match="out of memory"):
            wasm.alloc(10**9)
        assert wasm.alloc(1500).key == address


# WebGPU --------------------------------------------------------------------------------------------------------------


@pytest.mark.device("webgpu")
def test_pipelines_are_compiled_once() -> None:
    """The same text gives the same pipeline, in whatever Program it stands."""
    device: Any = open_device("webgpu")
    one, other = loaded(device), device.load(take_over("webgpu"))
    again = loaded(device)
    assert all(a is b for a, b in zip(one._pipelines, again._pipelines, strict=True))
    assert other._pipelines[0] is not one._pipelines[2]  # `enable` apart, the texts are equal
    del one, other, again


@pytest.mark.device("webgpu")
def test_expected_kernels_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was expected is not compiled again when the Program comes, and what is refused is the Program's error."""
    device: Any = open_device("webgpu")
    program = chain("webgpu")
    own = tuple(replace(k, code=f"{k.code}\n// expected") for k in program.kernels)
    texts: list[str] = []
    make = device._gpu.create_shader_module
    monkeypatch.setattr(device._gpu, "create_shader_module", lambda code: (texts.append(code), make(code=code))[1])
    for kernel in own:
        device.expect(kernel)
    session = device.load(replace(program, kernels=own))
    session.load_weights({"w": struct.pack("<6f", *[2.0] * COUNT)})
    assert sorted(texts) == sorted({k.code.replace("enable subgroups;", "") for k in own})
    assert download(session.run("train", [upload(device, *range(COUNT))])[0]) == [0, 4, 8, 12, 16, 20]
    wrong = replace(own[0], code="fn main() { nonsense }")
    for _ in range(2):  # also when it is asked for again
        device.expect(wrong)
        with pytest.raises(FormatError, match=f"kernel {wrong.name!r}: its WGSL is refused"):
            device.load(replace(program, kernels=(wrong, *own[1:])))


@pytest.mark.device("webgpu")
def test_first_buffer_to_read_is_made_while_kernels_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, and a larger one when it is too small."""
    from nearfield.device.wgpu import WgpuDevice

    device = WgpuDevice()
    make, sizes = device._make_staging, list[int]()
    monkeypatch.setattr(device, "_make_staging", lambda size=0: (sizes.append(size), make(size))[1])
    for kernel in chain("webgpu").kernels:
        device.expect(kernel)
    x = upload(device, *range(50_000))
    for nbytes in (16, 4096, 200_000, 16):
        assert len(device.read(x, nbytes)) == nbytes
    assert sizes == [0, 200_000]
    device.close()


@pytest.mark.device("webgpu")
def test_a_buffer_to_read_that_was_refused_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What went wrong in a thread is told by who reads, and not kept."""
    from nearfield.device.wgpu import WgpuDevice

    def refuse(size: int = 0) -> None:
        raise RuntimeError("there is none")

    device = WgpuDevice()
    monkeypatch.setattr(device, "_make_staging", refuse)
    device.expect(chain("webgpu").kernels[0])
    x = upload(device, *range(COUNT))
    with pytest.raises(DeviceError, match="webgpu: read: there is none"):
        device.read(x, 4)
    monkeypatch.undo()
    assert len(device.read(x, 4)) == 4
    device.close()


@pytest.mark.device("webgpu")
def test_weights_go_to_the_device_while_kernels_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that a function reads, once all of its kernels are known; not before, and each once."""
    device: Any = open_device("webgpu")
    seen: list[str] = []
    expect, put = device.expect, device.put
    monkeypatch.setattr(device, "expect", lambda kernel: (seen.append("kernel"), expect(kernel))[1])
    monkeypatch.setattr(device, "put", lambda *given: (seen.append("weight"), put(*given))[1])
    monkeypatch.setenv("NEARFIELD_CACHE", "off")
    with nf.use("webgpu"):
        w, v = nf.asarray([[2.0, 1.5], [0.5, 3.25]]), nf.asarray([0.125, 7.0])
        step = nf.jit(lambda x: (nf.sum(nf.exp(x) @ w, axis=0) + v) @ w)
        for _ in range(2):
            step(nf.asarray([[0.0, 0.0]])).tolist()
    first = seen.index("weight")
    assert seen[:first] == ["kernel"] * first
    assert first > 0
    assert seen[first:] == ["weight"] * 4  # two weights, and the input of each call


C_TYPES = (
    "WGPULimits *",
    "WGPULimits",
    "WGPUFeatureName[]",
    "WGPUDevice",
    "WGPUDevice const *",
    "uint8_t *",
    "char []",
    "uintptr_t",
    "struct WGPUBufferImpl *",
    "void(*)(WGPUBuffer, WGPUStringView, void *)",
)


@pytest.mark.device("webgpu")
def test_c_types_are_looked_up_quickly() -> None:
    """The parser of C sees a few typedefs, not the whole header's; the types are the same, wrong names are errors."""
    from cffi import FFI, CDefError
    from wgpu.backends.wgpu_native._ffi import get_wgpu_header

    from nearfield.device.wgpu_types import quicken

    slow, quick = FFI(), FFI()
    for ffi in (slow, quick):
        ffi.cdef(get_wgpu_header())
    assert quicken(quick)
    parser: Any = quick._parser
    parse, sizes = parser._parse, []
    parser._parse = lambda text: (sizes.append(len(parser._declarations)), parse(text))[1]
    for name in C_TYPES:
        assert _structure(quick.typeof(name)) == _structure(slow.typeof(name))
    assert len(sizes) == len([name for name in C_TYPES if len(name.split()) > 2 or "(" in name])
    assert max(sizes) <= 3 < len(parser._declarations)
    with pytest.raises(CDefError, match="WGPUNothing"):
        quick.typeof("WGPUNothing *")
    assert parser._declarations.keys() == slow._parser._declarations.keys()
    assert not quicken(object())


def _structure(ctype: Any) -> Any:
    """A type in words: its C name, and the fields of what it points to."""
    item = ctype.item if ctype.kind in ("pointer", "array") else None
    fields = item.fields if item is not None and item.kind == "struct" else None
    return ctype.cname, ctype.kind, [(name, f.type.cname, f.offset) for name, f in fields or ()]


@pytest.mark.device("webgpu")
def test_quick_and_plain_recording_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the way past wgpu's Python layer, all works as well."""
    from nearfield.device import wgpu_record

    device: Any = open_device("webgpu")
    monkeypatch.setattr(device, "_handle", lambda thing: thing)
    monkeypatch.setattr(device, "_write_batch", wgpu_record._plain)
    session = loaded(device)
    assert download(session.run("train", [upload(device, *range(COUNT))])[0]) == [0, 4, 8, 12, 16, 20]


@pytest.mark.device("webgpu")
def test_limits_have_names() -> None:
    """An error names the figure, the limit and the way out."""
    device = open_device("webgpu")
    limit = device.limits["maxStorageBufferBindingSize"]
    with pytest.raises(DeviceError, match=r"a buffer of .* exceeds .* limit of .* \(maxStorageBufferBindingSize\)"):
        device.alloc(limit + 1)
    program = replace(chain("webgpu"), arena=device.limits["maxBufferSize"] + 256)
    with pytest.raises(DeviceError, match="maxBufferSize"):
        device.load(program)


@pytest.mark.device("webgpu")
def test_freed_buffers_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound they are destroyed, and what was recorded for them is dropped."""
    from nearfield.device import wgpu_pool

    device: Any = open_device("webgpu")
    monkeypatch.setattr(wgpu_pool, "KEPT", 4096)
    session = loaded(device)
    inputs = [upload(device, *range(COUNT)) for _ in range(40)]
    for x in inputs:
        session.run("predict", [x])
    many = len(session._tapes)
    del inputs, x
    assert device.stats().pooled <= 4096
    [y] = session.run("predict", [upload(device, *range(COUNT))])
    assert len(session._tapes) < many
    assert download(y) == [0, 4, 8, 12, 16, 20]


@pytest.mark.device("webgpu")
def test_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """First what is kept for reuse is given up; if that is not enough, the message has the figures."""
    import wgpu

    device: Any = open_device("webgpu")
    make, failures = device._pool._make, [1]

    def full(size: int) -> Any:
        if failures and failures.pop():
            raise wgpu.GPUOutOfMemoryError("no")
        return make(size)

    upload(device, *range(COUNT))
    monkeypatch.setattr(device._pool, "_make", full)
    assert download(upload(device, *range(5000)))[-1] == 4999
    assert device.stats().pooled < 30_000
    failures += [1, 1]
    with pytest.raises(DeviceError, match=r"out of memory: a buffer of 48,000 bytes .* in use\. Let go of tensors"):
        device.alloc(48_000)


@pytest.mark.device("webgpu")
def test_lost_device() -> None:
    """Everything on it fails in words, other devices go on, and opening it again gives a new one."""
    from nearfield.device.wgpu import WgpuDevice

    device = WgpuDevice()
    session, x = loaded(device), upload(device, *range(COUNT))
    device._gpu.destroy()
    device.expect(replace(chain("webgpu").kernels[0], code="// to be compiled on what is lost"))
    with pytest.raises(DeviceError, match="the device is lost"):
        device.read(x, 4)
    with pytest.raises(DeviceError, match="lost"):
        session.run("predict", [x])
    with pytest.raises(DeviceError, match="lost"):
        device.alloc(4)
    assert device.is_lost
    with pytest.raises(DeviceError, match="lost"):
        device.load(chain("webgpu"))
    fresh = open_device("webgpu")
    assert download(loaded(fresh).run("predict", [upload(fresh, *range(COUNT))])[0])[1] == 4
    del session, x
    device.close()
    device.expect(chain("webgpu").kernels[0])


@pytest.mark.slow
@pytest.mark.device("webgpu")
def test_nothing_grows_in_ten_thousand_runs_on_webgpu() -> None:
    """As above, for as long."""
    device = open_device("webgpu")
    session = loaded(device)
    x = upload(device, *range(COUNT))
    [y] = session.run("predict", [x])
    before = device.stats()
    for _ in range(10_000):
        [y] = session.run("predict", [x])
    download(y)
    assert device.stats()[::2] == before[::2]
