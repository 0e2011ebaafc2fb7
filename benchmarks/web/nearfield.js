// Nearfield: models as nf.export writes them, and steps that change their state (exported.py), without Python.
import { instances } from "./memory.js";
import { bytesOf } from "./tensors.js";
let options, load, openDevice;

/** Buffers with the values of the inputs; int32 and float32 as they are. */
function upload(device, tensors, names) {
  return names.map((name) => {
    const { data } = tensors[name];
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    const handle = device.alloc(bytes.length);
    device.write(handle, bytes);
    return handle;
  });
}

async function read(device, handle, count) {
  const bytes = await device.read(handle, 4 * count);
  return new Float32Array(bytes.buffer, bytes.byteOffset, count);
}

/**
 * Each step of an entry by itself, on one thread: [kernel, fewest milliseconds].
 * The buffers of the last call must be bound still. For the runner's source only: the file that is shipped has other names.
 */
function steps(device, session, entry, times) {
  const { blocks, program } = device.sessions.get(session);
  const names = program.kernels.map((kernel) => kernel.code);
  const { exports } = instances.findLast((instance) => names.every((name) => name in instance.exports));
  const { start, stop } = program.entries[entry];
  const calls = program.steps.slice(start, stop).map(({ kernel, buffers, size }) => ({
    name: program.kernels[kernel].name,
    call: exports[names[kernel]],
    args: [...buffers.map((b) => blocks[b].at), 0, size[0]],
    least: Infinity,
  }));
  for (let n = 0; n < times; n++) {
    for (const step of calls) {
      const began = performance.now();
      step.call(...step.args);
      step.least = Math.min(step.least, performance.now() - began);
    }
  }
  return calls.map(({ name, least }) => [name, least]);
}

/** A model without state: the inputs stay where they are. */
async function predictor(workload, tensors) {
  const { backend: device, threads, base = location.href } = options;
  // a page that wants its first output early does without the runs that make the second call as fast as the thousandth
  const model = await load(new URL(`/exports/${workload.name}/`, base), { device, threads, warm: !options.first });
  const { engine, session, entry } = model;
  const handles = upload(engine, await tensors(), workload.inputs);
  const count = model.outputs[0].shape.reduce((a, b) => a * b, 1);
  const run = () => engine.run(session, entry, handles);
  const free = (made) => made.forEach((handle) => engine.free(handle));
  return {
    async read() {
      const made = run();
      const values = await read(engine, made[0], count);
      free(made);
      return values;
    },
    async leave() {
      const made = run();
      if (engine.name === "webgpu") await engine.read(made[0], 4); // a step of a GPU is done when its result can be read
      free(made);
    },
    memory: () => engine.stats(),
    profile(times) {
      const made = run();
      const rows = steps(engine, session, entry, times);
      free(made);
      return rows;
    },
    dispose: () => model.close(),
  };
}

/** A step whose outputs are the next call's inputs. */
async function stepper(workload, tensors) {
  const device = await openDevice(options.backend, { threads: options.threads });
  const folder = `/exports/${workload.name}`;
  const about = await (await fetch(`${folder}/step.json`)).json();
  const session = await device.loadAsync(await bytesOf(`${folder}/${about.programs[device.name]}`));
  const handles = upload(device, await tensors(), about.inputs);
  const run = () => {
    const made = device.run(session, 0, handles);
    about.next.forEach((input, k) => {
      if (handles[input] !== made[k + 1]) device.free(handles[input]);
      handles[input] = made[k + 1];
    });
    return made[0];
  };
  return {
    async read() {
      const result = run();
      const values = await read(device, result, workload.outputs);
      device.free(result);
      return values;
    },
    async leave() {
      const result = run();
      if (device.name === "webgpu") await device.read(result, 4);
      device.free(result);
    },
    memory: () => device.stats(),
    profile(times) {
      device.free(run());
      return steps(device, session, 0, times);
    },
    dispose: () => device.close(),
  };
}

export default {
  async init(chosen) {
    options = chosen;
    const runner = options.runner ?? (options.source ? "/runner/main.js" : "/nearfield/nearfield.js");
    ({ load, openDevice } = await import(runner));
    return {};
  },
  prepare: (workload, tensors) => (workload.step ? stepper : predictor)(workload, tensors),
};
