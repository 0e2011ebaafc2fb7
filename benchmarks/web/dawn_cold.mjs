// The first run of an exported model through Dawn, for Node: where its time goes. One line of JSON, as cold_graphics.py reads it.
//
//     node benchmarks/web/dawn_cold.mjs workload
//
// The clock starts when the device's library is there and stops when the output is read; for each part: when it first
// began, last ended, and how long it took in all.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const root = new URL("../../", import.meta.url);
const near = createRequire(new URL(".cache/peers/package.json", root));
const { create, globals } = await import(pathToFileURL(near.resolve("webgpu")).href);
Object.assign(globalThis, globals);
const files = (path) => readFileSync(new URL(`.cache/benchmarks/exports/${path}`, root));
globalThis.fetch = async (address) => new Response(files(new URL(address, "http://files").pathname.replace(/^\/exports\//, "")));

const parts = {};
let start = performance.now();

/** Make each call of `owner[name]` an interval of a part; of a promise, until it is fulfilled. */
function timed(part, owner, name) {
  const original = owner[name].bind(owner);
  owner[name] = (...args) => {
    const began = performance.now();
    const note = (result) => {
      const row = (parts[part] ??= [Infinity, 0, 0]);
      const now = performance.now();
      parts[part] = [Math.min(row[0], began - start), Math.max(row[1], now - start), row[2] + now - began];
      return result;
    };
    const result = original(...args);
    return result instanceof Promise ? result.then(note) : note(result);
  };
}

const gpu = create([]);
Object.defineProperty(globalThis, "navigator", { value: { gpu }, configurable: true });
timed("open: adapter", gpu, "requestAdapter");
const { requestAdapter } = gpu;
gpu.requestAdapter = async (...args) => {
  const adapter = await requestAdapter(...args);
  timed("open: device", adapter, "requestDevice");
  const { requestDevice } = adapter;
  adapter.requestDevice = async (...more) => {
    const device = await requestDevice(...more);
    timed("module", device, "createShaderModule");
    timed("pipeline", device, "createComputePipelineAsync");
    timed("allocate", device, "createBuffer");
    timed("bind", device, "createBindGroup");
    timed("upload", device.queue, "writeBuffer");
    timed("submit", device.queue, "submit");
    return device;
  };
  return adapter;
};

const name = process.argv[2];
const { load } = await import(new URL("src/nearfield/web/nearfield.js", root).href);
const { tensors } = await import("./tensors.js");
const workload = JSON.parse(files("workloads.json"))[name];
const found = await tensors(`/exports/${name}/tensors.safetensors`);
const values = Object.fromEntries(workload.inputs.map((key) => [key, found[key].data]));
start = performance.now();
const model = await load(`http://files/exports/${name}/`, { device: "webgpu", warm: false });
const loaded = performance.now();
const output = await model.run(values);
const total = performance.now() - start;
const again = performance.now();
await model.run(values);
const second = performance.now() - again;
parts.load = [0, loaded - start, loaded - start];
parts["first run"] = [loaded - start, total, total - (loaded - start)];
const y = Object.values(output)[0];
const rms = Math.sqrt(y.reduce((sum, v) => sum + v * v, 0) / y.length);
console.log(JSON.stringify({ total, second, parts, rms, device: `Dawn, ${model.engine.adapter}` }));
process.exit(0); // Dawn's threads go on
