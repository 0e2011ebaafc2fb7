// Node tests of the built runner, on what runner_samples.py writes (PYTHON: which Python runs it).
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { after, test } from "node:test";
import { bridge, decode, load, openDevice, verify } from "../../src/nearfield/web/nearfield.js";
import { makePool } from "../../web/src/threads.js";

const root = new URL("../../", import.meta.url).pathname;
const python = process.env.PYTHON ?? [`${root}.venv/bin/python`].find(existsSync) ?? "python3";
const directory = mkdtempSync(`${tmpdir()}/nearfield-`);
execFileSync(python, [`${root}tests/web/runner_samples.py`, directory], { env: { ...process.env, PYTHONPATH: `${root}src` } });
after(() => rmSync(directory, { recursive: true }));
const file = (name) => new Uint8Array(readFileSync(`${directory}/${name}`));
const programs = readdirSync(directory).filter((name) => name.endsWith(".nfp") && !name.startsWith("large"));
const N = 4096;
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** A file with another header; lengths are kept right. */
function withHeader(bytes, change) {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const length = view.getUint32(12, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(16, 16 + length)));
  const changed = change(header) ?? header;
  let text = typeof changed === "string" ? changed : JSON.stringify(changed);
  let body = new TextEncoder().encode(text);
  const padded = new Uint8Array(Math.ceil(body.length / 8) * 8).fill(32);
  padded.set(body);
  const result = new Uint8Array(16 + padded.length + bytes.length - 16 - length);
  result.set(bytes.subarray(0, 16));
  new DataView(result.buffer).setUint32(12, padded.length, true);
  result.set(padded, 16);
  result.set(bytes.subarray(16 + length), 16 + padded.length);
  return result;
}

const refused = (bytes) => assert.throws(() => decode(bytes), { name: "FormatError" });
function onlyFormatErrors(bytes) {
  try {
    decode(bytes);
  } catch (error) {
    assert.equal(error.name, "FormatError", error.stack);
  }
}

test("every sample decodes and verifies", () => {
  for (const name of programs) verify(decode(file(name)));
});

test("a changed byte gives a FormatError or a legal Program, never anything else", () => {
  for (const name of ["affine.wasm.nfp", "pair.webgpu.nfp"]) {
    const bytes = file(name);
    const end = 16 + new DataView(bytes.buffer).getUint32(12, true) + 64;
    for (let i = 0; i < Math.min(end, bytes.length); i++)
      for (const change of [1, 0x10, 0x80, 0xff]) {
        bytes[i] ^= change;
        onlyFormatErrors(bytes);
        bytes[i] ^= change;
      }
  }
});

test("a file cut short or with bytes after its end is refused", () => {
  const bytes = file("pair.wasm.nfp");
  for (let n = 0; n < bytes.length; n++) refused(bytes.slice(0, n));
  refused(new Uint8Array([...bytes, 0]));
});

test("every number replaced by a hostile value gives a FormatError or a legal Program, at once", () => {
  const hostile = [-1, -2, 0.5, 1e300, 2 ** 31, 2 ** 32, 2 ** 53 - 1, 2 ** 53, null, true, "x", [], {}, 1e9, 3, 17];
  for (const name of programs) {
    if (name.startsWith("chain")) continue;
    const bytes = file(name);
    const paths = [];
    withHeader(bytes, (header) => {
      const walk = (value, path) => {
        if (typeof value === "object") Object.keys(value).forEach((key) => walk(value[key], [...path, key]));
        paths.push(path);
      };
      walk(header, []);
    });
    const started = performance.now();
    for (const path of paths.filter((p) => p.length))
      for (const value of hostile)
        onlyFormatErrors(withHeader(bytes, (header) => {
          path.slice(0, -1).reduce((at, key) => at[key], header)[path.at(-1)] = value;
        }));
    assert.ok(performance.now() - started < 20_000);
  }
});

test("rules of the format, one broken at a time", () => {
  const wasm = file("affine.wasm.nfp");
  const webgpu = file("affine.webgpu.nfp");
  const prepared = file("prepared.wasm.nfp");
  decode(withHeader(wasm, () => {}));
  for (const change of [
    (h) => { h.buffers[3][4] = 16; },
    (h) => { h.buffers[3][5] = 0; },
    (h) => { h.entries[1][0] = "other"; },
    (h) => { h.entries[0][0] = "x"; h.entries[1][0] = "y"; },
    (h) => { h.entries[1][0] = "x"; h.entries[0][0] = "prepare"; },
  ]) assert.throws(() => decode(withHeader(prepared, change)), { name: "FormatError" }, String(change));
  for (const change of [
    (h) => { h.version = 1; },
    (h) => { delete h.data; },
    (h) => JSON.stringify(h).replace('"arena"', '"arena":0,"arena"'),
    (h) => JSON.stringify(h).replace('"arena":', '"arena":1e4,"x":'),
    (h) => JSON.stringify(h).replace(/"arena":(\d+)/, '"arena":$1.0'),
    (h) => `\ufeff${JSON.stringify(h)}`,
    (h) => "[".repeat(1e6),
    (h) => `[${"[".repeat(1e5)}${"]".repeat(1e5)}]`,
    (h) => "null",
    (h) => { h.features = ["shader-f16"]; },
    (h) => { h.features = ["relaxed-simd", "relaxed-simd"]; },
    (h) => { h.target = "webgpu"; },
    (h) => { h.target = "__proto__"; },
    (h) => { h.memory_flag += 1; },
    (h) => { h.memory_flag = 1e6; },
    (h) => { h.buffers[1][0] = "x"; },
    (h) => { h.buffers[1][0] = "\ud800"; },
    (h) => { h.buffers[0][1] = "constructor"; },
    (h) => { h.buffers[0][2] = Array(17).fill(1); },
    (h) => { h.buffers[0][2] = [2 ** 30, 2 ** 30]; },
    (h) => { h.buffers[0][3] = "mine"; },
    (h) => { h.buffers[0][4] = 16; },
    (h) => { h.buffers[0][5] = 0; },
    (h) => { h.buffers[2][4] = 8; },
    (h) => { h.buffers[2][4] = 16; },
    (h) => { h.buffers[3][4] = 16; },
    (h) => { h.buffers[3][4] = 512; },
    (h) => { h.buffers[5][5] = 1; },
    (h) => { h.buffers[5][5] = 6; },
    (h) => { h.buffers[5][2] = [4100]; },
    (h) => { h.kernels[1][0] = "axpy"; },
    (h) => { h.kernels[0][2] = 2; },
    (h) => { h.steps[0][0] = 3; },
    (h) => { h.steps[0][1][0] = 6; },
    (h) => { h.steps[0][2] = [4096]; },
    (h) => { h.steps[0][2] = [4096, 0]; },
    (h) => { h.entries[0][3] = 3; },
    (h) => { h.entries[0][4] = 6; },
    (h) => { h.entries[0][4] = 3; },
    (h) => { h.entries[0][1] = [4]; },
    (h) => { h.entries[0][1] = []; },
    (h) => { h.entries[0][1] = [0, 0]; },
    (h) => { h.entries[1][1] = []; },
    (h) => { h.entries[1][0] = "predict"; },
  ]) assert.throws(() => decode(withHeader(wasm, change)), { name: "FormatError" }, String(change));
  for (const change of [
    (h) => { h.steps[0][2] = [0, 1, 1]; },
    (h) => { h.steps[0][2] = [65536, 1, 1]; },
    (h) => { h.steps[0][1] = [0, 1, 1]; },
    (h) => { h.steps[0][1] = [0, 5, 3]; },
    (h) => { h.memory_flag = 1; },
  ]) assert.throws(() => decode(withHeader(webgpu, change)), { name: "FormatError" }, String(change));
});

const floats = (bytes) => new Float32Array(bytes.buffer);
const bytesOf = (values) => new Uint8Array(new Float32Array(values).buffer);

for (const threads of [1, 2, 3])
  test(`wasm with ${threads} threads runs entries, takes memory over, and gives all of it back`, async () => {
    const device = await openDevice("wasm", { threads });
    const session = threads === 2 ? device.load(file("affine.wasm.nfp")) : await device.loadAsync(file("affine.wasm.nfp"));
    for (let i = 0; threads > 1 && device.threads !== threads; i++) {
      assert.ok(i < 500, "the workers are not ready after 5 s");
      await sleep(10);
    }
    assert.equal(device.threads, threads);
    const x = device.alloc(4 * N);
    device.write(x, bytesOf(Array.from({ length: N }, (_, i) => i % 7)));
    device.write(device.weight(session, "w"), bytesOf(Array(N).fill(2)));
    const [y] = device.run(session, 0, [x]);
    assert.deepEqual(floats(device.readSync(y, 4 * N)), Float32Array.from({ length: N }, (_, i) => (i % 7) * 2 + 1 + i));
    for (let i = 0; i < 2000; i++) assert.deepEqual(device.run(session, 1, [x]), [x]);
    assert.deepEqual(floats(await device.read(x, 4 * N)), Float32Array.from({ length: N }, (_, i) => (i % 7) + 6000));
    // loading while workers sleep, and running in between
    for (let i = 0; i < 20; i++) {
      const other = device.load(file("chain.wasm.nfp"));
      device.run(other, 0, [x]);
      device.unload(other);
      device.run(session, 1, [x]);
    }
    assert.equal(floats(device.readSync(x, 4))[0], 6000 + 20 * 403);
    assert.equal(device.stats().buffers, 2);
    device.free(x);
    device.free(y);
    const { bytes, buffers, programs } = device.stats();
    assert.deepEqual([bytes, buffers], [0, 0]);
    assert.ok(programs > 0);
    device.unload(session);
    assert.deepEqual([device.heap.used, device.heap.holes, device.heap.top], [0, [], device.heap.base]);
    device.close();
  });

test("workers do each job once, and have left it before its memory can be given back", async () => {
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 65536, shared: true });
  const done = new Int32Array(memory.buffer, 64, 1);
  const pool = makePool(memory, 1024, 2);
  const module = new WebAssembly.Module(file("late.wasm"));
  const settled = async () => {
    for (let i = 0; pool.ready() !== 3; i++) {
      assert.ok(i < 500, "the workers are not ready after 5 s");
      await sleep(10);
    }
  };
  pool.post(() => ({ session: 1, module, names: ["main"] }));
  await settled();
  pool.start(1, 0, 64, 3);
  pool.post(() => ({ session: 2 }));
  assert.equal(done[0], 2);
  for (let i = 0; i < 100; i++) {
    pool.post(() => ({ session: 2 })); // the second is often read before it wakes anybody
    pool.post(() => ({ session: 2 }));
    if (i % 10 === 0) await settled();
  }
  await settled();
  assert.equal(done[0], 2);
  pool.stop();
});

test("what depends on weights alone is prepared once, and again when a weight was written", async () => {
  const device = await openDevice("wasm", { threads: 1 });
  const session = device.load(file("prepared.wasm.nfp"));
  const [w, runs] = ["w", "runs"].map((name) => device.weight(session, name));
  const x = device.alloc(256);
  device.write(x, bytesOf(Array(64).fill(5)));
  const call = () => {
    const [y] = device.run(session, 0, [x]);
    const [value] = floats(device.readSync(y, 4));
    device.free(y);
    return value;
  };
  device.write(w, bytesOf(Array(64).fill(100)));
  device.write(runs, bytesOf(Array(64).fill(0)));
  assert.deepEqual([call(), call(), call()], [106, 106, 106]);
  device.write(x, bytesOf(Array(64).fill(6)));
  assert.equal(call(), 107);
  device.write(w, bytesOf([200]));
  assert.deepEqual([call(), call()], [208, 208]);
  device.close();
});

test("an input given twice is copied when its memory is taken over", async () => {
  const device = await openDevice("wasm", { threads: 1 });
  const session = device.load(file("pair.wasm.nfp"));
  const a = device.alloc(256);
  device.write(a, bytesOf(Array(64).fill(5)));
  const [s, r] = device.run(session, 0, [a, a]);
  assert.equal(r, a);
  assert.equal(floats(device.readSync(s, 4))[0], 11);
  assert.equal(floats(device.readSync(r, 4))[0], 6);
  assert.equal(device.stats().buffers, 2);
});

test("wrong calls are DeviceErrors, and leave nothing behind", async () => {
  const device = await openDevice("wasm", { threads: 1 });
  const session = device.load(file("pair.wasm.nfp"));
  const a = device.alloc(256);
  const small = device.alloc(16);
  const wrong = (call) => assert.throws(call, { name: "DeviceError" });
  wrong(() => device.run(session, 1, [a]));
  wrong(() => device.run(session, 0, [a]));
  wrong(() => device.run(session, 0, [a, small]));
  wrong(() => device.run(session, 0, [a, 99]));
  wrong(() => device.run(99, 0, [a, a]));
  wrong(() => device.alloc(2 ** 40));
  wrong(() => device.alloc(-1));
  wrong(() => device.alloc("8"));
  wrong(() => device.write(small, new Uint8Array(17)));
  wrong(() => device.readSync(small, 17));
  wrong(() => device.free(99));
  wrong(() => device.load(file("pair.webgpu.nfp")));
  assert.equal(device.stats().buffers, 2);
  const weights = device.load(file("affine.wasm.nfp"));
  wrong(() => device.free(device.weight(weights, "w")));
  assert.throws(() => device.load(withHeader(file("pair.wasm.nfp"), (h) => { h.kernels[0][1] = "none"; })), { name: "FormatError" });
  const damaged = file("pair.wasm.nfp");
  damaged[decode(damaged).module.byteOffset + 4] ^= 0xff;
  assert.throws(() => device.load(damaged), { name: "FormatError" });
});

test("random allocations never overlap, and all of it comes back", async () => {
  const device = await openDevice("wasm", { threads: 1 });
  const live = new Map();
  let seed = 1;
  const random = (n) => (seed = (seed * 48271) % 2147483647) % n;
  for (let i = 0; i < 5000; i++) {
    if (live.size && random(2)) {
      const id = [...live.keys()][random(live.size)];
      const { n, value } = live.get(id);
      assert.ok(device.readSync(id, n).every((byte) => byte === value));
      device.free(id);
      live.delete(id);
    } else {
      const n = random(random(10) ? 500 : 200_000);
      const id = device.alloc(n);
      device.write(id, new Uint8Array(n).fill(i));
      live.set(id, { n, value: i % 256 });
    }
  }
  for (const id of live.keys()) device.free(id);
  const { bytes, buffers } = device.stats();
  assert.deepEqual([bytes, buffers, device.heap.used, device.heap.holes], [0, 0, 0, []]);
});

test("the bridge speaks in numbers", async () => {
  assert.deepEqual((await bridge.devices()).map(({ name }) => name), ["wasm"]);
  const dev = bridge.openSync("wasm", { threads: 1 });
  const session = bridge.load(dev, file("affine.wasm.nfp"));
  const x = bridge.alloc(dev, 4 * N);
  bridge.write(dev, x, bytesOf(Array(N).fill(1)));
  bridge.write(dev, bridge.weight(dev, session, "w"), bytesOf(Array(N).fill(3)));
  const [y] = bridge.run(dev, session, 0, [x]);
  assert.equal(floats(bridge.readSync(dev, y, 8))[1], 5);
  bridge.free(dev, x);
  bridge.free(dev, y);
  bridge.unload(dev, session);
  const { bytes, buffers, programs, peak } = bridge.stats(dev);
  assert.deepEqual([bytes, buffers, programs], [0, 0, 0]);
  assert.ok(peak > 5 * 4 * N && peak < 6 * 4 * N); // x, y, w, c and the arena
  bridge.close(dev);
  assert.throws(() => bridge.alloc(dev, 1), { name: "DeviceError" });
  assert.throws(() => bridge.openSync("webgpu"), { name: "DeviceError" });
  await assert.rejects(bridge.open("xla"), { name: "DeviceError" });
});

/** A fetch that serves the samples, in small chunks. */
const fetchSamples = (changes = {}) => async (url) => {
  const name = new URL(url).pathname.split("/").at(-1);
  const bytes = changes[name] ?? file(name);
  const body = new ReadableStream({
    start(controller) {
      for (let at = 0; at < bytes.length; at += 1000) controller.enqueue(bytes.slice(at, at + 1000));
      controller.close();
    },
  });
  return new Response(body, { headers: { "content-length": String(bytes.length) } });
};

test("a model directory loads warm, reports progress and runs by name", async () => {
  const progress = [];
  const model = await load("http://site/m", { fetch: fetchSamples(), threads: 1, onProgress: (p) => progress.push(p) });
  assert.equal(model.device, "wasm");
  assert.deepEqual(model.inputs, [{ name: "values", dtype: "float32", shape: [1, N] }]);
  assert.deepEqual(model.labels, ["a", "b"]);
  const { loaded, total } = progress.at(-1);
  assert.equal(loaded, total);
  const { result } = await model.run({ values: new Float32Array(N).fill(1) });
  assert.equal(result[10], 13);
  const { z } = await model.run({ x: Array(N).fill(1) }, "step");
  assert.equal(z[0], 4);
  await assert.rejects(model.run({}), { name: "DeviceError", message: /'values' is missing/ });
  await assert.rejects(model.run({ values: [1, 2] }), { name: "DeviceError", message: /has 2 values; accepted are 4096/ });
  await assert.rejects(model.run({ values: Array(N).fill(0), more: 1 }), { name: "DeviceError" });
  assert.equal(model.engine.stats().buffers, 0);
  model.close();
});

test("a loaded model has prepared what its weights make, once, and only then", async () => {
  for (const warm of [true, false]) {
    const model = await load("http://site/prepared.json", { fetch: fetchSamples(), threads: 1, warm });
    const runs = () => floats(model.engine.readSync(model.engine.weight(model.session, "runs"), 4))[0];
    assert.equal(runs(), warm ? 1 : 0); // however often it ran on zeros
    for (let i = 0; i < 3; i++) assert.equal((await model.run({ x: new Float32Array(64).fill(5) })).y[63], 106);
    assert.equal(runs(), 1);
    model.close();
  }
});

test("where weights take their time, kernels run once without them", async (t) => {
  const { instantiate } = WebAssembly;
  let runs = 0;
  t.mock.method(WebAssembly, "instantiate", async (...args) => {
    const { module, instance: { exports } } = await instantiate(...args);
    const run_predict = (...words) => (runs++, exports.run_predict(...words));
    return { module, instance: { exports: { ...exports, run_predict } } };
  });
  // the time is over when the kernels are compiled; the weights come after that
  let passed;
  const patience = new Promise((done) => (passed = done));
  t.mock.method(globalThis, "setTimeout", (work) => (work(), passed()));
  const serve = fetchSamples();
  const slow = async (url, options) => (String(url).endsWith(".safetensors") && (await patience), serve(url, options));
  const model = await load("http://site/prepared.json", { fetch: slow, threads: 1, warm: false });
  assert.equal(runs, 1);
  assert.equal((await model.run({ x: new Float32Array(64).fill(5) })).y[63], 106); // prepared again, from the weights
  assert.equal(model.engine.stats().buffers, 0);
  model.close();
});

test("damaged model directories are FormatErrors", async () => {
  const json = JSON.parse(new TextDecoder().decode(file("model.json")));
  const encode = (value) => new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value));
  const weights = file("weights.safetensors");
  const text = new TextDecoder("latin1").decode(weights);
  const latin = (s) => Uint8Array.from(s, (c) => c.charCodeAt(0));
  for (const changes of [
    { "model.json": encode("{") },
    { "model.json": encode("null") },
    { "model.json": encode({ ...json, version: 2 }) },
    { "model.json": encode({ ...json, weights: undefined }) },
    { "model.json": encode({ ...json, weights: "../weights.safetensors" }) },
    { "model.json": encode({ ...json, weights: "https://other/weights.safetensors" }) },
    { "model.json": encode({ ...json, inputs: [] }) },
    { "model.json": encode({ ...json, inputs: [null] }) },
    { "model.json": encode({ ...json, inputs: [{ name: "values", shape: "4096" }] }) },
    { "model.json": encode({ ...json, outputs: 1 }) },
    { "model.json": encode({ ...json, programs: [null] }) },
    { "model.json": encode({ ...json, programs: [{ target: "wasm", file: "affine.wasm.nfp" }] }) },
    { "model.json": encode({ ...json, programs: [{ target: "wasm", features: [] }] }) },
    { "model.json": encode({ ...json, inputs: [{ name: "values", dtype: "float32", shape: [7] }] }) },
    { "weights.safetensors": weights.slice(0, -1) },
    { "weights.safetensors": new Uint8Array([...weights, 0]) },
    { "weights.safetensors": weights.slice(0, 5) },
    { "weights.safetensors": latin("\x0a\0\0\0\0\0\0\0{\"w\":null}") },
    { "weights.safetensors": latin("\x04\0\0\0\0\0\0\0null") },
    { "weights.safetensors": latin("\xff\xff\xff\xff\xff\xff\xff\xff" + text.slice(8)) },
    { "weights.safetensors": latin(text.replace('"w"', '"v"')) },
    { "weights.safetensors": latin(text.replace('[4096]', '[4095]')) },
    { "weights.safetensors": latin(text.replace('{"dtype": "F32", "shape": [4096]', '{"dtype": "I32", "shape": [4096]')) },
    { "affine.wasm.nfp": file("affine.wasm.nfp").slice(0, -4) },
  ]) await assert.rejects(load("http://site/m/", { fetch: fetchSamples(changes), threads: 1 }), { name: "FormatError" });
  await assert.rejects(load("http://site/m/", { fetch: fetchSamples(), device: "webgpu" }), { name: "DeviceError" });
  await assert.rejects(load("http://site/m/", { fetch: fetchSamples(), signal: AbortSignal.abort() }), { name: "AbortError" });
});

test("one Program loads alone", async () => {
  const model = await load("http://site/image.wasm.nfp?v=1", { fetch: fetchSamples() });
  const { brighter } = await model.run({ picture: { data: new Uint8ClampedArray(256).fill(255), width: 8, height: 8 } });
  assert.ok(Math.abs(brighter[63] - 2) < 1e-6);
  model.close();
});
