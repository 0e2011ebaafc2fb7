// The page of one peer. The driver opens peer.html?peer=…&backend=…&threads=…[&first=workload] and calls window.bench.
import { memory } from "./memory.js"; // before any library: it watches what they allocate
import { tensors } from "./tensors.js";

/** A fingerprint that does not depend on the order of the elements: peers differ in layout. As weights.summary. */
function summary(values) {
  let [sum, absolute, squares, max] = [0, 0, 0, -Infinity];
  for (const v of values) {
    sum += v;
    absolute += Math.abs(v);
    squares += v * v;
    if (v > max) max = v;
  }
  const n = values.length;
  return { n, mean: sum / n, absolute: absolute / n, rms: Math.sqrt(squares / n), max };
}

const query = new URLSearchParams(location.search);
const options = {
  backend: query.get("backend"),
  threads: Number(query.get("threads")),
  first: query.get("first"), // a workload to run at once: a cold start
  source: query.has("source"), // Nearfield's runner as it is written, not as it is shipped
};
const times = {};
async function timed(name, action) {
  const began = performance.now();
  const result = await action();
  times[name] = performance.now() - began;
  return result;
}

let workloads, peer, job, about;
async function prepare(name) {
  const workload = { name, ...workloads[name] };
  return peer.prepare(workload, () => tensors(`/exports/${name}/tensors.safetensors`));
}

window.bench = {
  about: () => ({ ...about, ...times, memory: memory() }),
  async prepare(name) {
    job = null;
    const load = await timed("load", async () => (job = await prepare(name)));
    const output = await timed("predict", () => load.read());
    return { load: times.load, predict: times.predict, output: summary(output) };
  },
  /** Milliseconds of single runs until the budget is spent. `left`: the output stays in the peer's memory. */
  async run(budget, least, most, left) {
    const found = [];
    const go = left && job.leave ? () => job.leave() : () => job.read();
    const start = performance.now();
    while (found.length < least || (found.length < most && performance.now() - start < budget)) {
      const began = performance.now();
      await go();
      found.push(performance.now() - began);
    }
    return found;
  },
  profile: async (times) => job.profile(times),
  async release() {
    await job?.dispose();
    job = null;
  },
  memory: async () => ({ ...memory(), ...job?.memory?.() }),
};

try {
  workloads = await (await fetch("/exports/workloads.json")).json();
  peer = (await timed("import", () => import(`./${query.get("peer")}.js`))).default;
  about = await timed("init", () => peer.init(options));
  if (options.first) {
    const output = (await window.bench.prepare(options.first)).output;
    // performance.now() counts from the navigation; the fingerprint's own time is small and the same for all
    window.first = { total: performance.now(), ...times, ...(await window.bench.memory()), output };
  }
} catch (error) {
  window.failure = String(error?.stack ?? error).slice(0, 600);
}
window.ready = true;
