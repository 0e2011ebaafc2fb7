"""The benchmarks compute what they say: their numbers are exact, their functions agree with NumPy."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
from benchmarks import exported, models, report, weights
from benchmarks.chart import Bar, chart
from benchmarks.measure import summarised
from benchmarks.workloads import WORKLOADS, Job, attention, convolution, embedding_gradient, product, training

import nearfield as nf
from nearfield.program.codec import decode


def result(job: Job) -> np.ndarray:
    with nf.use("wasm"):
        return np.asarray(nf.jit(job.function)(*map(nf.asarray, job.inputs.values())))


def test_numbers_are_those_of_every_peer():
    """A change of one bit would make outputs of other frameworks' files incomparable."""
    assert weights.uniform(7, (3,)).tolist() == [-0.8063451051712036, -0.5713285207748413, 0.5628994107246399]
    assert weights.uniform(0xFFFFFFFF, (2,), 0.1).tobytes().hex() == "4af9c63a88cc1e3d"


def test_products_agree_with_numpy():
    for fixed in (False, True):
        expected = weights.uniform(1, (5, 7)) @ weights.uniform(2, (7, 6))
        np.testing.assert_allclose(result(product(5, 7, 6, fixed)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("groups", [1, 6])
def test_convolutions_agree_with_numpy(groups):
    x, w = weights.uniform(1, (1, 5, 5, 6)), weights.uniform(2, (6, 6 // groups, 3, 3), 0.1)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    spelled = "nyxchw,cohw->nyxc" if groups > 1 else "nyxchw,ochw->nyxo"
    expected = np.einsum(spelled, windows, w)
    np.testing.assert_allclose(result(convolution(5, 6, 6, 3, groups)), expected, rtol=1e-5, atol=1e-6)


def test_attention_agrees_with_numpy():
    q, k, v = (weights.uniform(n, (1, 2, 9, 4), 2.0).astype(float) for n in (1, 2, 3))
    scores = np.exp(q @ k.swapaxes(-1, -2) / 2)
    expected = scores / scores.sum(-1, keepdims=True) @ v
    np.testing.assert_allclose(result(attention(2, 9, 4)), expected, rtol=1e-4, atol=1e-5)


def test_an_embedding_gradient_adds_rows_where_they_belong():
    job = embedding_gradient(50, 20, 3)
    expected = np.zeros((20, 3))
    np.add.at(expected, job.inputs["x0"], job.inputs["x1"])
    np.testing.assert_allclose(result(job), expected, rtol=1e-5, atol=1e-6)


def test_folding_is_convolution_and_then_normalisation():
    weight, bias = weights.folded_convolution("layer", 3, 4, 1)
    x = weights.uniform(1, (3,)).astype(float)
    plain = weights.named("layer.weight", (4, 3, 1, 1), "he", 3)[:, :, 0, 0] @ x
    gain, shift, mean, variance = (
        weights.named(f"layer.{part}", (4,), kind)
        for part, kind in (("gain", "gain"), ("shift", "small"), ("mean", "small"), ("variance", "variance"))
    )
    expected = (plain - mean) / np.sqrt(variance + weights.BATCH_NORM_EPS) * gain + shift
    np.testing.assert_allclose(weight[:, :, 0, 0] @ x + bias, expected, rtol=1e-5)


def test_a_decoder_sees_its_own_place_and_earlier_ones_only():
    layer = models.DecoderLayer("layer", 8, 2)
    x = nf.asarray(weights.uniform(1, (1, 1, 8)))
    cache = weights.uniform(2, (2, 1, 2, 6, 4))
    changed = cache.copy()
    changed[..., 3:, :] = 9.0  # the place itself is written, the later ones are hidden
    with nf.use("wasm"):
        step = nf.jit(lambda place, keys, values: layer(x, place, keys, values)[0])
        ys = [step(nf.asarray(np.array([3], np.int32)), *map(nf.asarray, c)) for c in (cache, changed)]
        np.testing.assert_allclose(*map(np.asarray, ys), rtol=1e-6)


def test_a_training_step_lowers_the_loss():
    with nf.use("wasm"):
        job = WORKLOADS["train_mlp"].make()
        step, inputs = nf.jit(job.function), [nf.asarray(x) for x in job.inputs.values()]
        losses = [step(*inputs).item() for _ in range(3)]
    assert losses[2] < losses[0]


def test_every_row_says_what_it_costs():
    for name, workload in WORKLOADS.items():
        assert name == workload.name
        assert workload.bytes > 0
        assert workload.group in ("operator", "model", "training")


def test_an_exported_step_changes_its_state_as_the_function_does(tmp_path):
    inputs = {"x0": weights.uniform(5, (4, 784))}
    step = training(models.MLP, inputs, 10)
    with nf.use("wasm") as device:
        first, names = exported.write_step(training(models.MLP, inputs, 10), tmp_path / "step")
        about = json.loads((tmp_path / "step" / "step.json").read_text())
        program = decode((tmp_path / "step" / about["programs"]["wasm"]).read_bytes())
        values = {"y": step.inputs["y"], **inputs, **{name: np.asarray(t) for name, t in first.items()}}
        memories = [device.alloc(values[name].nbytes) for name in about["inputs"]]
        for name, memory in zip(about["inputs"], memories, strict=True):
            device.write(memory, values[name].tobytes())
        session, losses = device.load(program), []
        for _ in range(2):
            loss, *state = session.run("main", memories)
            losses.append(np.frombuffer(device.read(loss, 4), np.float32)[0])
            for position, memory in zip(about["next"], state, strict=True):
                memories[position] = memory
        jitted, tensors = nf.jit(step.function), [nf.asarray(x) for x in step.inputs.values()]
        expected = [jitted(*tensors).item() for _ in range(2)]
        session.close()
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    assert "layers.0.weight" in names


def test_a_chart_says_in_words_what_it_shows():
    svg = chart("Times & more", [Bar("MobileNetV2", {"Nearfield": 5.0, "LiteRT.js": 10.0}, 10.0)])
    assert ElementTree.fromstring(svg).find("{http://www.w3.org/2000/svg}title").text == "Times & more"
    assert "MobileNetV2: Nearfield 5 ms, LiteRT.js 10 ms" in svg


def test_the_page_is_what_the_results_give():
    """`python -m benchmarks.report` writes it."""
    for name, text in report.documents().items():
        assert (report.ROOT / name).read_text(encoding="utf-8") == text, name


def test_rounds_with_other_work_are_left_out_if_enough_remain():
    rounds = [(0.0, [1.0, 1.2]), (0.9, [9.0]), (0.1, [1.1])]
    assert summarised(rounds)["high"] == 1.2
    assert summarised(rounds)["median"] == 1.1
    assert summarised(rounds[:2])["high"] == 9.0
