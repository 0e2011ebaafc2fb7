// What a page uses: `load` a model, `run` it.
import { DeviceError, FormatError, show } from "./errors.js";
import { loader, readWeights } from "./files.js";
import { decode, entryOf, nbytes, prod } from "./program.js";
import { fromBytes, toBytes } from "./values.js";
import { WasmDevice } from "./wasm.js";
import { WebGpuDevice } from "./webgpu.js";

/**
 * @typedef {import("./values.js").Value} Value
 * @typedef {WasmDevice | WebGpuDevice} AnyDevice
 * @typedef {"webgpu" | "wasm"} DeviceName
 */

const PATIENCE = 100; // milliseconds in which weights may come before kernels run without them

/**
 * A device to load Programs on.
 * @param {string} name "webgpu" or "wasm"
 * @param {{threads?: number, software?: boolean}} [options] software: false refuses a processor that plays a GPU
 * @returns {Promise<AnyDevice>}
 */
export async function openDevice(name, options = {}) {
  if (name === "webgpu") return WebGpuDevice.open(options.software);
  if (name === "wasm") return new WasmDevice(options);
  throw new DeviceError(`openDevice: ${show(name)} is not webgpu or wasm.`);
}

/** A compiled model, ready to run. */
class Model {
  /** @param {AnyDevice} device @param {number} session @param {import("./program.js").Program} program @param {any} about */
  constructor(device, session, program, about) {
    this.engine = device;
    this.session = session;
    this.program = program;
    /** Where it runs: "webgpu" or "wasm". @type {string} */
    this.device = device.name;
    /** @type {string[]} */
    this.labels = about.labels ?? [];
    /** @type {Record<string, unknown>} */
    this.metadata = about.metadata ?? {};
    this.entry = entryOf(program, "predict");
    const { inputs, outputs } = program.entries[this.entry] ?? bad("the Program has no entry 'predict'");
    /** @type {Value[]} */
    this.inputs = this.describe(inputs, about.inputs);
    /** @type {Value[]} */
    this.outputs = this.describe(outputs, about.outputs);
  }

  /** Names, shapes and dtypes of an entry's buffers; `values` says how the model calls them. @param {number[]} numbers @param {Value[]} [values] */
  describe(numbers, values) {
    if (values && values.length !== numbers.length) bad(`model.json has ${values.length} where the Program has ${numbers.length}`);
    return numbers.map((b, i) => {
      const { name, dtype, shape } = this.program.buffers[b];
      const value = values?.[i] ?? { name, shape };
      if (prod(value.shape) !== prod(shape)) bad(`model.json says '${value.name}' is [${value.shape}], the Program [${shape}]`);
      return { name: value.name, dtype, shape: [...value.shape] };
    });
  }

  /**
   * Call the model: names to arrays, in and out.
   * @param {Record<string, any>} values
   * @param {string} [name] another entry than `predict`, with its buffers' names
   * @returns {Promise<Record<string, any>>}
   */
  async run(values, name) {
    const { engine, program } = this;
    const index = name === undefined ? this.entry : entryOf(program, name);
    const entry = program.entries[index];
    if (!entry) throw new DeviceError(`run: no entry ${show(name)}; accepted are ${program.entries.map((e) => e.name).join(", ")}.`);
    const [inputs, outputs] = index === this.entry ? [this.inputs, this.outputs] : [this.describe(entry.inputs), this.describe(entry.outputs)];
    const names = inputs.map((input) => input.name);
    for (const key of Object.keys(values)) if (!names.includes(key)) throw new DeviceError(`run: no input ${show(key)}; accepted are ${names.join(", ")}.`);
    const bytes = inputs.map((input) => {
      if (values[input.name] == null) throw new DeviceError(`run: input '${input.name}' is missing; accepted is ${input.dtype}[${input.shape}].`);
      return toBytes(values[input.name], input);
    });
    /** @type {Set<number>} */
    const ids = new Set();
    try {
      const handles = bytes.map((data) => {
        const id = engine.alloc(data.length);
        ids.add(id);
        engine.write(id, data);
        return id;
      });
      const results = engine.run(this.session, index, handles);
      results.forEach((id) => ids.add(id));
      const read = await Promise.all(results.map((id, i) => engine.read(id, nbytes(program.buffers[entry.outputs[i]]))));
      return Object.fromEntries(outputs.map((output, i) => [output.name, fromBytes(read[i], output.dtype)]));
    } finally {
      ids.forEach((id) => engine.free(id));
    }
  }

  /** Give everything back; only a page that replaces its model needs this. */
  close() {
    this.engine.close();
  }
}

/** @param {string} what @returns {never} */
function bad(what) {
  throw new FormatError(`load: ${what}.`);
}

/** A file that model.json names, next to it. @param {unknown} name @param {URL} base */
function beside(name, base) {
  if (typeof name !== "string" || !name || /^[/\\]|\.\.|[:\\]/.test(name)) bad(`model.json: the file name ${show(name)} is not relative`);
  return new URL(/** @type {string} */ (name), base);
}

/**
 * A model from a directory that `nf.export` wrote, or from one Program (.nfp). When it resolves, the model is warm:
 * it has run on zeros until that got no faster, so that the first call is as fast as those after it.
 * @param {string | URL} url
 * @param {import("./files.js").FetchOptions & {device?: DeviceName, threads?: number, warm?: boolean}} [options]
 *   warm: false for the first output as soon as possible; the first call is then some times slower than the second
 */
export async function load(url, options = {}) {
  const open = loader(options);
  const whole = async (/** @type {URL} */ name) => (await open(name)).take(Infinity);
  const page = /** @type {any} */ (globalThis).document?.baseURI ?? globalThis.location?.href;
  const base = new URL(url, page);
  const single = base.pathname.endsWith(".nfp");
  if (!single && !base.pathname.endsWith(".json")) base.pathname += base.pathname.endsWith("/") ? "model.json" : "/model.json";

  /** @type {any} */
  let about = { programs: [] };
  let file = single ? await whole(base) : undefined;
  if (file) {
    const { target, features } = decode(file);
    about.programs.push({ target, features });
  } else {
    const bytes = await whole(base);
    try {
      about = JSON.parse(new TextDecoder().decode(bytes));
    } catch {
      about = null;
    }
    const lists = (/** @type {any} */ rows, /** @type {string} */ key) => Array.isArray(rows) && rows.every((row) => Array.isArray(row?.[key]));
    if (about?.format !== "nearfield-model" || about.version !== 1 || !lists(about.programs, "features") || !lists(about.inputs, "shape") || !lists(about.outputs, "shape"))
      bad(`${base.href}: not a Nearfield model of version 1`);
  }

  const { device, row } = await choose(about.programs, options, single);
  try {
    const weights = about.weights && open(beside(about.weights, base));
    weights?.catch(() => {}); // reported where it is awaited
    file ??= await whole(beside(row.file, base));
    const program = decode(file);
    const session = device.begin(program);
    const model = new Model(device, session, program, about);
    const buffers = program.buffers.filter((b) => b.kind === "weight");
    const zeros = Object.fromEntries(model.inputs.map(({ name, shape }) => [name, new Uint8Array(prod(shape))]));
    // weights go to their places while kernels compile, and run once if there is time:
    // browsers translate code quickly at first, and well when they have seen it run
    let there = false;
    const ready = device.finish(session);
    /** @type {Promise<unknown> | undefined} */
    let early; // its error is the load's
    ready.then(() => setTimeout(() => there || (early = model.run(zeros)).catch(() => {}), PATIENCE), () => {});
    if (weights) await readWeights(await weights, buffers, (name, bytes, offset) => device.write(device.weight(session, name), bytes, offset));
    else if (buffers.length && !single) bad(`${base.href}: names no weights`);
    there = true;
    await ready;
    await early;
    for (let i = 0, took = Infinity, last = took; options.warm !== false && (weights || !buffers.length) && i < 4 && took <= last * 0.8; i++) {
      const start = performance.now();
      await model.run(zeros);
      [last, took] = [took, performance.now() - start];
    }
    options.signal?.throwIfAborted();
    return model;
  } catch (error) {
    device.close();
    throw error;
  }
}

/**
 * The first of a model's Programs that can run here, and its device.
 * @param {{target: string, features: string[], file?: string}[]} programs
 * @param {{device?: DeviceName, threads?: number}} options
 * @param {boolean} single there is no other Program, so a software GPU will do
 */
async function choose(programs, options, single) {
  /** @type {string[]} */
  const reasons = [];
  /** @type {AnyDevice | undefined} */
  let device;
  for (const row of programs) {
    const { target } = row;
    if (target !== (options.device ?? target)) continue;
    try {
      if (device?.name !== target) {
        device?.close();
        device = await openDevice(target, { software: single || target === options.device, ...options });
      }
      device.accept(/** @type {any} */ (row));
      return { device, row };
    } catch (error) {
      if (!(error instanceof DeviceError)) throw error;
      reasons.push(error.message);
    }
  }
  device?.close();
  throw new DeviceError(`load: no Program runs here. ${reasons.join(" ") || `None is for ${show(options.device)}.`}`);
}
