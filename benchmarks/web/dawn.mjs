// Nearfield's runner on a graphics card without a browser: Dawn, Chromium's WebGPU, for Node.
//
//     node benchmarks/web/dawn.mjs [workload …]
//
// It needs what `python -m benchmarks.exported` wrote, and the npm package `webgpu` (in .cache/peers, or where NODE_PATH says).
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const root = new URL("../../", import.meta.url);
const near = createRequire(new URL(".cache/peers/package.json", root));
const { create, globals } = await import(pathToFileURL(near.resolve("webgpu")).href);
Object.assign(globalThis, globals);
Object.defineProperty(globalThis, "navigator", { value: { gpu: create([]) }, configurable: true });
// pages fetch from a server; here the same addresses are files
globalThis.fetch = async (address) => {
  const path = new URL(address, "http://files").pathname.replace(/^\/exports\//, "");
  return new Response(readFileSync(new URL(`.cache/benchmarks/exports/${path}`, root)));
};

const { default: peer } = await import("./nearfield.js");
const { tensors } = await import("./tensors.js");
const workloads = await (await fetch("/exports/workloads.json")).json();
const runner = new URL("src/nearfield/web/nearfield.js", root).href;
await peer.init({ backend: "webgpu", threads: 1, runner, base: "http://files" });

for (const name of process.argv.slice(2).length ? process.argv.slice(2) : Object.keys(workloads)) {
  const began = performance.now();
  const job = await peer.prepare({ name, ...workloads[name] }, () => tensors(`/exports/${name}/tensors.safetensors`));
  const values = await job.read();
  const first = performance.now() - began;
  const rms = Math.sqrt(values.reduce((sum, v) => sum + v * v, 0) / values.length);
  const times = [];
  for (const start = performance.now(); performance.now() - start < 1000 || times.length < 5; ) {
    const before = performance.now();
    await job.leave();
    times.push(performance.now() - before);
  }
  times.sort((a, b) => a - b);
  console.log(`${name}: ${times[times.length >> 1].toFixed(3)} ms, first ${first.toFixed(0)} ms, rms ${rms.toPrecision(7)}`);
  await job.dispose();
}
process.exit(0); // Dawn's threads go on
