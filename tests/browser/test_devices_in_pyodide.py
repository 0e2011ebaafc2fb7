"""The devices of a page, from Python in it: the Programs that test_devices.py runs natively."""

from base64 import b64encode

import pytest

from browser.harness import Pyodide
from handmade_programs import chain, sums, take_over
from nearfield.program.codec import encode

TARGETS = ("wasm", "webgpu")

SETUP = """
    import base64, gc, struct
    from nearfield.device import available, open_async, open_device
    from nearfield.errors import DeviceError, FormatError
    from nearfield.program.codec import decode

    def upload(device, *values):
        memory = device.alloc(4 * len(values))
        device.write(memory, struct.pack(f"<{len(values)}f", *values))
        return memory

    def download(memory):
        return list(struct.unpack(f"<{memory.nbytes // 4}f", memory.device.read(memory, memory.nbytes)))

    programs = {name: decode(base64.b64decode(text)) for name, text in TEXTS.items()}
    twos = struct.pack("<6f", *[2.0] * 6)
"""


@pytest.fixture(params=TARGETS)
def python(request: pytest.FixtureRequest, pyodide: Pyodide) -> Pyodide:
    """Pyodide with the Programs for one target, and `device`."""
    target = request.param
    programs = {"chain": chain(target), "take_over": take_over(target), "sums": sums(target, 12)}
    texts = {name: b64encode(encode(program)).decode() for name, program in programs.items()}
    pyodide.run(f"TEXTS = {texts!r}")
    pyodide.run("import textwrap; exec(textwrap.dedent(" + repr(SETUP) + "))")
    pyodide.run(f"device = open_device({target!r}); gc.collect(); before = device.stats(); None")
    return pyodide


def test_described(python: Pyodide) -> None:
    """Both devices are found, and say what they are."""
    assert python.run("[row.reason for row in available()]") == ["", ""]
    assert python.run("bool(device.description), device.is_lost, open_device(device.name) is device") == [
        True,
        False,
        True,
    ]
    assert python.run("(await open_async(device.name)) is device") is True
    assert python.run("all(type(value) is int for value in device.limits.values())") is True


def test_run(python: Pyodide) -> None:
    """Constants, scratch, weights that are state, and memory given back."""
    code = """
        session = device.load(programs["chain"])
        session.load_weights({"w": twos})
        x = upload(device, *range(6))
        results = [download(session.run(entry, [x])[0]) for entry in ("predict", "train", "predict")]
        results.append(list(struct.unpack("<6f", session.read_weight("w"))))
        results.append(list(struct.unpack("<6f", await device.read_async(x, 24))))
        results
    """
    twice, thrice = [0, 4, 8, 12, 16, 20], [0, 6, 12, 18, 24, 30]
    assert python.run(code) == [twice, twice, thrice, [3] * 6, list(range(6))]
    assert python.run("del session, x; gc.collect(); device.stats()[::2] == before[::2]") is True


def test_take_over(python: Pyodide) -> None:
    """The output is the input's Memory."""
    code = """
        session = await device.load_async(programs["take_over"])
        x = upload(device, *range(6))
        [y] = session.run("next", [x])
        y is x, download(y)
    """
    assert python.run(code) == [True, [1, 2, 3, 4, 5, 6]]
    assert python.run("del session, x, y; gc.collect(); device.stats()[::2] == before[::2]") is True


def test_nothing_grows(python: Pyodide) -> None:
    """Many runs leave no trace in the figures."""
    code = """
        session = device.load(programs["sums"])
        x = upload(device, *[1.0] * 1000)
        [y] = session.run("run", [x])
        held = device.stats()
        for _ in range(200):
            [y] = session.run("run", [x])
        sorted(set(download(y))), device.stats()[::2] == held[::2]
    """
    assert python.run(code) == [[4096], True]
    assert python.run("del session, x, y; gc.collect(); device.stats()[::2] == before[::2]") is True


REFUSED = {
    "no entry 'fit'": "session.run('fit', [x])",
    "takes 1 inputs": "session.run('predict', [x, x])",
    "11 bytes into a block of 10": "device.write(device.alloc(10), bytes(11))",
    "'v' is not a weight": "session.load_weights({'v': b''})",
    "program: arena": "device.load(dataclasses.replace(programs['chain'], arena=-1))",
}


@pytest.mark.parametrize(("words", "code"), REFUSED.items())
def test_refused(python: Pyodide, words: str, code: str) -> None:
    """The same errors as natively."""
    python.run("import dataclasses; session = device.load(programs['chain']); x = upload(device, *range(6)); None")
    told = python.run(f"""
        try:
            {code}
        except (DeviceError, FormatError) as error:
            told = str(error)
        told
    """)
    assert words in told
    python.run("del session, x; None")
