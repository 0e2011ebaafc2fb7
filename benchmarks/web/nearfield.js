// Nearfield: models as nf.export writes them, and steps that change their state (exported.py), without Python.
import { load, openDevice } from "/nearfield/nearfield.js";
import { bytesOf } from "./tensors.js";
let options;

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

const read = async (device, handle, count) => new Float32Array((await device.read(handle, 4 * count)).slice().buffer);

/** A model without state: the inputs stay where they are. */
async function predictor(workload, tensors) {
  const model = await load(`/exports/${workload.name}/`, { device: options.backend, threads: options.threads });
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
    dispose: () => device.close(),
  };
}

export default {
  async init(chosen) {
    options = chosen;
    return {};
  },
  prepare: (workload, tensors) => (workload.step ? stepper : predictor)(workload, tensors),
};
