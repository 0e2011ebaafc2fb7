// The WebGPU device: pooled buffers, pipelines made once, few submits.
import { Device } from "./device.js";
import { DeviceError } from "./errors.js";
import { isCallers, nbytes, room } from "./program.js";

/**
 * @typedef {import("./program.js").Program} Program
 * @typedef {import("./device.js").Block & {gpu: GPUBuffer, size: number, serial: number, offset: number}} GpuBlock
 *   `room` bytes at `offset` of a GPUBuffer of `size` bytes; `serial` names the GPUBuffer
 */

const FEATURES = /** @type {const} */ (["shader-f16", "subgroups", "timestamp-query"]);
/** The limits that matter here, as the adapter or device has them. @param {any} limits @returns {Record<string, number>} */
function limitsOf(limits) {
  /** @type {Record<string, number>} */
  const result = {};
  for (const name in limits) if (/^max(Buffer|Compute|Storage)/.test(name)) result[name] = limits[name];
  return result;
}
const MOST_POOLED = 2 ** 28;
const MOST_GROUPS = 1024; // bind groups a Session remembers
const MOST_PIPELINES = 4096; // a device remembers
const MOST_DISPATCHES = 24; // in one submit: the GPU starts while the rest is recorded, and little is left when it is
const STAGING = 4; // buffers kept for reading back
// GPUBufferUsage and GPUMapMode exist only where WebGPU does
const STORAGE = 0x80 | 0x4 | 0x8;
const READBACK = 0x1 | 0x8;
const COMPUTE = 4;

/**
 * @typedef {object} GpuParts
 * @property {GPUComputePipeline[]} pipelines
 * @property {number[][]} callers for each step, the arguments that come with the call
 * @property {Map<string, {group: GPUBindGroup, serials: number[]}>} groups
 * @typedef {import("./device.js").Session<GpuBlock> & GpuParts} GpuSession
 */

/** The GPU adapter, or nothing. */
export async function requestAdapter() {
  try {
    return await globalThis.navigator?.gpu?.requestAdapter({ powerPreference: "high-performance" });
  } catch {
    // as good as none
  }
}

/** Whether the adapter is a processor that plays a GPU. @param {any} adapter */
export const isSoftware = (adapter) => !!(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter);

/** @param {GPUAdapter} adapter */
export const describe = ({ info }) =>
  (info && [info.vendor, info.architecture, info.device, info.description].filter(Boolean).join(" ")) || "unnamed";

/** @extends {Device<GpuBlock, GpuSession>} */
export class WebGpuDevice extends Device {
  /** @param {boolean} [software] whether a processor that plays a GPU will do */
  static async open(software = true) {
    const adapter = await requestAdapter();
    if (!adapter || (!software && isSoftware(adapter))) throw new DeviceError(`webgpu: no ${adapter ? "hardware " : ""}adapter. Use 'wasm'.`);
    const { features, limits } = adapter;
    try {
      const gpu = await adapter.requestDevice({
        requiredFeatures: FEATURES.filter((name) => features.has(name)),
        requiredLimits: limitsOf(limits),
      });
      return new WebGpuDevice(gpu, describe(adapter));
    } catch (error) {
      throw new DeviceError(`webgpu: ${/** @type {Error} */ (error).message}.`);
    }
  }

  /** @param {GPUDevice} gpu @param {string} adapter */
  constructor(gpu, adapter) {
    super("webgpu");
    this.gpu = gpu;
    this.adapter = adapter;
    this.features = FEATURES.filter((name) => gpu.features.has(name));
    /** Free buffers by size, the size freed last at the end. @type {Map<number, GpuBlock[]>} */
    this.pool = new Map();
    this.poolBytes = 0;
    /** @type {GPUBuffer[]} */
    this.staging = [];
    /** By the number of bindings and the text. @type {Map<string, GPUComputePipeline>} */
    this.pipelines = new Map();
    /** @type {GPUBindGroupLayout[]} */
    this.layouts = [];
    /** Why the device is gone. */
    this.gone = "";
    /** The first error that no call has reported yet. @type {string} */
    this.trouble = "";
    /** Resolves when all that was asked so far is known to be right or wrong. @type {Promise<void> | undefined} */
    this.checked = undefined;
    gpu.lost.then(({ reason, message }) => (this.gone = `${reason}: ${message}`));
    gpu.onuncapturederror = ({ error }) => this.report(error.message);
  }

  /** @param {string} [message] */
  report(message) {
    this.trouble ||= message ?? "";
  }

  alive() {
    if (this.gone) this.fail(`the device is lost (${this.gone}); open it again`);
  }

  limits() {
    return { features: this.features, adapter: this.adapter, ...limitsOf(this.gpu.limits) };
  }

  pooled() {
    return this.poolBytes;
  }

  // Buffers -------------------------------------------------------------------------------------------------------

  /** @param {number} n */
  take(n) {
    // eight sizes in each power of two: at most an eighth is wasted
    const step = Math.max(256, 2 ** (Math.floor(Math.log2(n)) - 3));
    const size = Math.ceil(n / step) * step;
    const block = this.pool.get(size)?.pop();
    if (block) {
      this.poolBytes -= size;
      block.room = n;
      return block;
    }
    return { gpu: this.create(size, n, STORAGE), size, room: n, offset: 0, serial: ++this.serial };
  }

  /** @param {number} size @param {number} n of which the caller needs @param {number} usage */
  create(size, n, usage) {
    const { gpu } = this;
    const { maxBufferSize } = gpu.limits;
    if (n > maxBufferSize) this.fail(`a buffer of ${n} bytes exceeds the limit of ${maxBufferSize} (maxBufferSize). Use a smaller dtype or 'wasm'`);
    gpu.pushErrorScope("out-of-memory");
    const buffer = gpu.createBuffer({ size: Math.min(size, maxBufferSize), usage });
    gpu.popErrorScope().then(
      (error) => error && this.report(`out of memory: a buffer of ${n} bytes, ${this.bytes} in use and ${this.poolBytes} pooled`),
      () => {}, // lost meanwhile, which the next call reports
    );
    return buffer;
  }

  /** @param {GpuBlock} block */
  give(block) {
    const { pool } = this;
    const list = pool.get(block.size) ?? [];
    pool.delete(block.size);
    pool.set(block.size, list);
    list.push(block);
    this.poolBytes += block.size;
    for (const [size, blocks] of pool) {
      while (this.poolBytes > MOST_POOLED && blocks.length) this.destroy(/** @type {GpuBlock} */ (blocks.shift()));
      if (!blocks.length) pool.delete(size);
      if (this.poolBytes <= MOST_POOLED) break;
    }
  }

  /** Destroy a pooled buffer; work already submitted keeps its memory until it is done. @param {GpuBlock} block */
  destroy(block) {
    this.poolBytes -= block.size;
    block.gpu.destroy();
    for (const { groups } of this.sessions.values())
      for (const [key, { serials }] of groups) if (serials.includes(block.serial)) groups.delete(key);
  }

  /** @param {GpuBlock} block @param {Uint8Array} bytes @param {number} offset */
  put(block, bytes, offset) {
    // the queue takes whole words, and no shared memory
    const whole = bytes.length & ~3;
    const { queue } = this.gpu;
    const source = /** @type {Uint8Array<ArrayBuffer>} */ (bytes.buffer instanceof ArrayBuffer ? bytes : bytes.slice());
    if (whole) queue.writeBuffer(block.gpu, block.offset + offset, source, 0, whole);
    if (whole < bytes.length) {
      const word = new Uint8Array(4);
      word.set(bytes.subarray(whole));
      queue.writeBuffer(block.gpu, block.offset + offset + whole, word);
    }
  }

  /** Note the first thing that is wrong in what `work` asks of the GPU. @template T @param {() => T} work */
  watched(work) {
    const { gpu } = this;
    gpu.pushErrorScope("validation");
    try {
      return work();
    } finally {
      this.checked = gpu.popErrorScope().then((error) => this.report(error?.message), () => {}); // lost: the next call says so
    }
  }

  /** @param {GpuBlock} from @param {GpuBlock} to */
  copy(from, to) {
    const encoder = this.gpu.createCommandEncoder();
    encoder.copyBufferToBuffer(from.gpu, from.offset, to.gpu, to.offset, Math.min(from.room, to.room));
    this.gpu.queue.submit([encoder.finish()]);
  }

  /** @param {GpuBlock} block @param {number} n */
  async get(block, n) {
    const size = room(n);
    const found = this.staging.findIndex((buffer) => buffer.size >= size && buffer.size <= 4 * size + 65536);
    const staging = found < 0 ? this.create(size, size, READBACK) : this.staging.splice(found, 1)[0];
    this.watched(() => this.copy(block, /** @type {any} */ ({ gpu: staging, offset: 0, room: size })));
    let result;
    try {
      await staging.mapAsync(1, 0, size);
      await this.checked;
      result = new Uint8Array(staging.getMappedRange(0, size)).slice(0, n);
      staging.unmap();
      this.staging.push(staging);
      if (this.staging.length > STAGING) this.staging.shift()?.destroy();
    } catch (error) {
      staging.destroy();
      this.report(/** @type {Error} */ (error).message);
    }
    this.alive();
    if (this.trouble || !result) {
      const { trouble } = this;
      this.trouble = "";
      this.fail(`read: ${trouble.trim()}`);
    }
    return result;
  }

  // Programs ------------------------------------------------------------------------------------------------------

  /** @param {number} bindings */
  layout(bindings) {
    const { maxStorageBuffersPerShaderStage: most } = this.gpu.limits;
    if (bindings > most) this.fail(`a kernel of ${bindings} buffers exceeds the limit of ${most} (maxStorageBuffersPerShaderStage)`);
    return (this.layouts[bindings] ??= this.gpu.createBindGroupLayout({
      entries: Array.from({ length: bindings }, (_, binding) => ({ binding, visibility: COMPUTE, buffer: { type: "storage" } })),
    }));
  }

  /** @param {import("./program.js").Kernel} kernel @returns {[string, GPUComputePipelineDescriptor] | [string]} its key, and how to make it unless it is there */
  missing(kernel) {
    const { gpu, pipelines } = this;
    const key = `${kernel.bindings} ${kernel.code}`;
    if (pipelines.has(key)) return [key];
    const layout = gpu.createPipelineLayout({ bindGroupLayouts: [this.layout(kernel.bindings)] });
    return [key, { layout, compute: { module: gpu.createShaderModule(kernel) } }];
  }

  /** @param {GpuSession} session */
  async compile(session) {
    const { gpu, pipelines } = this;
    await Promise.all(session.program.kernels.map(async (kernel) => {
      gpu.pushErrorScope("validation"); // says what is wrong with the text; the pipeline's own error does not
      let scope, made;
      try {
        made = this.missing(kernel);
      } finally {
        scope = gpu.popErrorScope();
      }
      const [key, descriptor] = made;
      try {
        if (descriptor) pipelines.set(key, await gpu.createComputePipelineAsync(descriptor));
      } catch (error) {
        const { message } = (await scope) ?? /** @type {Error} */ (error);
        this.fail(`load: kernel '${kernel.name}': ${message.trim()}`);
      }
    }));
    this.link(session);
  }

  /** @param {GpuSession} session */
  link(session) {
    const { gpu, pipelines } = this;
    this.watched(() => session.program.kernels.forEach((kernel, i) => {
      const [key, descriptor] = this.missing(kernel);
      session.pipelines[i] = descriptor ? gpu.createComputePipeline(descriptor) : /** @type {GPUComputePipeline} */ (pipelines.get(key));
      pipelines.set(key, session.pipelines[i]);
    }));
    for (const key of pipelines.keys()) if (pipelines.size > MOST_PIPELINES) pipelines.delete(key);
  }

  /** @param {Program} program @returns {GpuSession} */
  build(program) {
    const callers = program.steps.map((s) => s.buffers.filter((b) => isCallers(program.buffers[b])));
    return { program, pipelines: [], callers, groups: new Map(), blocks: [], owned: [], weights: new Map() };
  }

  /** @param {GpuSession} session */
  place(session) {
    const { program } = session;
    const { maxStorageBufferBindingSize: most } = this.gpu.limits;
    const largest = program.buffers.reduce((n, b) => Math.max(n, nbytes(b)), 0);
    if (room(largest) > most) this.fail(`a buffer of ${largest} bytes exceeds the limit of ${most} (maxStorageBufferBindingSize). Use a smaller dtype or 'wasm'`);
    const own = (/** @type {number} */ n) => this.own(session, n);
    const arena = own(room(program.arena));
    session.blocks = program.buffers.map((b) => {
      const n = nbytes(b);
      if (b.kind === "scratch") return { ...arena, offset: b.offset, room: room(n) };
      if (isCallers(b)) return arena;
      const block = own(room(n));
      if (b.kind === "constant") this.put(block, program.data.subarray(b.offset, b.offset + n), 0);
      return block;
    });
  }

  /** @param {GpuSession} session @param {number} index of the step */
  group(session, index) {
    const { blocks, groups, program } = session;
    const serials = session.callers[index].map((b) => blocks[b].serial);
    const key = [index, ...serials].join();
    let found = groups.get(key);
    if (!found) {
      const { buffers } = program.steps[index];
      const group = this.gpu.createBindGroup({
        layout: this.layout(buffers.length),
        entries: buffers.map((b, binding) => ({
          binding,
          resource: { buffer: blocks[b].gpu, offset: blocks[b].offset, size: room(nbytes(program.buffers[b])) },
        })),
      });
      groups.set(key, (found = { group, serials }));
      if (groups.size > MOST_GROUPS + program.steps.length) groups.delete([...groups.keys()][0]);
    }
    return found.group;
  }

  /** @param {GpuSession} session @param {number} index */
  execute(session, index) {
    this.watched(() => this.submit(session, index));
  }

  /** @param {GpuSession} session @param {number} index */
  submit(session, index) {
    const { gpu } = this;
    const { entries, steps } = session.program;
    const { start, stop } = entries[index];
    for (let i = start; i < stop; ) {
      const end = Math.min(stop, i + MOST_DISPATCHES);
      const encoder = gpu.createCommandEncoder();
      const pass = encoder.beginComputePass();
      for (let last = -1; i < end; i++) {
        const { kernel, size } = steps[i];
        if (kernel !== last) pass.setPipeline(session.pipelines[(last = kernel)]);
        pass.setBindGroup(0, this.group(session, i));
        pass.dispatchWorkgroups(size[0], size[1], size[2]);
      }
      pass.end();
      gpu.queue.submit([encoder.finish()]);
    }
  }

  close() {
    super.close();
    this.gpu.destroy();
  }
}
