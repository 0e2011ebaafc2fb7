// The WebAssembly device: one memory, an allocator in it, and perhaps workers that share it.
import { Device } from "./device.js";
import { FormatError, show } from "./errors.js";
import { Heap } from "./heap.js";
import { isCallers, nbytes, room, roundUp } from "./program.js";
import { blockSize, canShare, defaultThreads, makePool, mayBlock } from "./threads.js";

/**
 * @typedef {import("./program.js").Program} Program
 * @typedef {import("./device.js").Block & {at: number}} WasmBlock
 * @typedef {(args: number, thread: number, threads: number) => void} Run
 */

const BASE = 1024; // address of the tickets; address 0 is never a buffer
const COST_OF_STEP = 20_000; // what waking and meeting costs, in operations
const COST_OF_THREAD = 100_000; // fewer operations than this are not worth a thread

// (module (func (result v128) …) with one i8x16.relaxed_swizzle
const RELAXED = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2, 253, 15, 253, 128, 2, 11];

/**
 * @typedef {object} WasmParts
 * @property {number} args address of the block that the module reads: barrier words and the buffers' addresses
 * @property {Run[]} entries
 * @property {number[]} costs arithmetic of the steps before each step
 * @property {WebAssembly.Module} [module] what workers need, if the Program has work for them
 * @typedef {import("./device.js").Session<WasmBlock> & WasmParts} WasmSession
 */

/** @extends {Device<WasmBlock, WasmSession>} */
export class WasmDevice extends Device {
  /** @param {{threads?: number}} [options] threads: at most so many; 1 means no workers */
  constructor({ threads = defaultThreads() } = {}) {
    super("wasm");
    this.features = WebAssembly.validate(new Uint8Array(RELAXED)) ? ["relaxed-simd"] : [];
    this.adapter = "WebAssembly SIMD";
    this.shared = threads > 1 && canShare();
    try {
      this.memory = new WebAssembly.Memory({ initial: 1, maximum: 65536, shared: this.shared });
    } catch {
      this.shared = false;
      this.memory = new WebAssembly.Memory({ initial: 1, maximum: 65536 });
    }
    /** Threads that there will be when all workers are ready. */
    this.most = this.shared ? threads : 1;
    const workers = this.most - 1;
    const words = BASE + 64 * this.most;
    this.heap = new Heap(this.memory, roundUp(words + blockSize(workers), 64));
    this.heap.reach(this.heap.base);
    this.pool = workers ? makePool(this.memory, words, workers) : null;
    this.blocking = +mayBlock();
  }

  /** Threads that would share the work of a call made now. */
  get threads() {
    return this.pool?.ready() ?? 1;
  }

  limits() {
    return { features: this.features, adapter: this.adapter, maxBufferSize: 2 ** 32 - this.heap.base, threads: this.most };
  }

  pooled() {
    return this.memory.buffer.byteLength - this.heap.base - this.heap.used;
  }

  /** @param {number} n */
  take(n) {
    const at = this.heap.take(n);
    if (at < 0) this.fail(`out of memory: ${n} bytes were asked for, ${this.heap.used} of at most ${2 ** 32} are in use`);
    return { at, room: n };
  }

  /** @param {WasmBlock} block */
  give(block) {
    this.heap.give(block.at, block.room);
  }

  /** @param {WasmBlock} block @param {Uint8Array} bytes @param {number} offset */
  put(block, bytes, offset) {
    new Uint8Array(this.memory.buffer, block.at + offset).set(bytes);
  }

  /** @param {WasmBlock} from @param {WasmBlock} to */
  copy(from, to) {
    new Uint8Array(this.memory.buffer).copyWithin(to.at, from.at, from.at + Math.min(from.room, to.room));
  }

  /** @param {WasmBlock} block @param {number} n */
  async get(block, n) {
    return this.getSync(block, n);
  }

  /** @param {WasmBlock} block @param {number} n */
  getSync(block, n) {
    return new Uint8Array(this.memory.buffer, block.at, n).slice();
  }

  /** A copy of the first `n` bytes. @param {number} id @param {number} n */
  readSync(id, n) {
    return this.getSync(this.block(id, n), n);
  }

  /** The module's bytes, for this device's memory. @param {Program} program @returns {BufferSource} */
  patched(program) {
    const bytes = program.module.slice();
    if (!this.shared) bytes[program.memoryFlag] = 1;
    return bytes;
  }

  /** All that a module may import; anything else is an error when it is instantiated. */
  imports() {
    return { env: { memory: this.memory } };
  }

  /** @param {WasmSession} session @param {number} serial */
  async compile(session, serial) {
    try {
      const { module, instance } = await WebAssembly.instantiate(this.patched(session.program), this.imports());
      this.attach(session, serial, module, instance);
    } catch {
      this.link(session, serial); // says what is wrong
    }
  }

  /** @param {WasmSession} session @param {number} serial */
  link(session, serial) {
    try {
      const module = new WebAssembly.Module(this.patched(session.program));
      this.attach(session, serial, module, new WebAssembly.Instance(module, this.imports()));
    } catch (error) {
      const { message } = /** @type {Error} */ (error);
      // Chromium compiles large modules only asynchronously on a page's main thread
      if (error instanceof RangeError) this.fail(`load: ${message}; use loadAsync`);
      throw new FormatError(`program: module: ${message}.`);
    }
  }

  /** @param {WasmSession} session @param {number} serial @param {WebAssembly.Module} module @param {WebAssembly.Instance} instance */
  attach(session, serial, module, { exports }) {
    const { kernels, entries } = session.program;
    /** @param {string} name */
    const exported = (name) => {
      const found = exports[name];
      if (typeof found !== "function") throw new FormatError(`no function ${show(name)}`);
      return /** @type {Run} */ (found);
    };
    kernels.forEach((k) => exported(k.code));
    session.entries = entries.map((e) => exported(`run_${e.name}`));
    if (entries.some((e) => this.worth(session, e) > 1)) {
      session.module = module;
      this.pool?.post(() => ({ module, names: entries.map((e) => e.name), session: serial }));
    }
  }

  /** @param {Program} program @returns {WasmSession} */
  build(program) {
    const costs = [0];
    program.steps.forEach((step, i) => costs.push(costs[i] + Math.max(0, step.cost - COST_OF_STEP)));
    return { program, entries: [], costs, blocks: [], owned: [], weights: new Map(), args: 0 };
  }

  /** @param {WasmSession} session @param {number} serial */
  forget({ module }, serial) {
    if (module) this.pool?.post(() => ({ session: serial }));
  }

  /** How many threads an entry's arithmetic is worth. @param {WasmSession} session @param {import("./program.js").Entry} entry */
  worth({ costs }, { start, stop }) {
    return Math.floor((costs[stop] - costs[start]) / COST_OF_THREAD);
  }

  /** @param {WasmSession} session */
  place(session) {
    const { arena, buffers, data } = session.program;
    const own = (/** @type {number} */ n) => this.own(session, n);
    const args = own(20 + 4 * buffers.length);
    const scratch = own(room(arena));
    const constants = own(room(data.length) + 16);
    this.put(constants, data, 0);
    session.blocks = buffers.map((b) => {
      const n = room(nbytes(b));
      if (b.kind === "scratch") return { at: scratch.at + b.offset, room: n };
      if (b.kind === "constant") return { at: constants.at + b.offset, room: n };
      return isCallers(b) ? { at: 0, room: 0 } : own(n);
    });
    session.args = args.at;
    this.words(session).set([0, 0, this.blocking, 0, BASE]);
  }

  /** @param {WasmSession} session */
  words(session) {
    return new Uint32Array(this.memory.buffer, session.args, 5 + session.blocks.length);
  }

  /** @param {WasmSession} session @param {number} index @param {number} serial */
  execute(session, index, serial) {
    const words = this.words(session);
    session.blocks.forEach((block, i) => (words[5 + i] = block.at));
    const { pool } = this;
    const worth = this.worth(session, session.program.entries[index]);
    const threads = worth > 1 && pool ? Math.min(worth, pool.ready()) : 1;
    try {
      if (threads > 1) pool?.start(serial, index, session.args, threads);
      session.entries[index](session.args, 0, threads);
    } catch (error) {
      // the other threads may wait for this one for ever
      if (threads > 1) pool?.stop();
      words.set([0, 0]);
      new Uint8Array(this.memory.buffer, BASE, 64).fill(0); // from now on there is one thread
      this.fail(`run: '${session.program.entries[index].name}' stopped: ${/** @type {Error} */ (error).message}`);
    }
  }

  close() {
    super.close();
    this.pool?.stop();
  }
}
