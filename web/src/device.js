// What the two devices share: handles, counting, and the order in which a call binds its buffers.
import { DeviceError, show } from "./errors.js";
import { PREPARE, decode, entryOf, nbytes, room } from "./program.js";

/**
 * @typedef {import("./program.js").Program} Program
 * @typedef {{room: number}} Block memory of a device: at least `room` bytes
 */

/**
 * A Program on a device.
 * @template {Block} B
 * @typedef {object} Session
 * @property {Program} program
 * @property {B[]} blocks the memory of each buffer
 * @property {B[]} owned memory that lives as long as the Session
 * @property {Map<string, number>} weights handles by name
 * @property {number} [stale] the entry that must run before another, since weights were written; −1: none
 */

/**
 * Buffers as integer handles, and Programs that run on them. `B` is how a device describes memory, `S` its Session.
 * @template {Block} B
 * @template {Session<B>} S
 * @abstract
 */
export class Device {
  /** @param {string} name */
  constructor(name) {
    this.name = name;
    /** @type {string[]} */
    this.features = [];
    /** Words that tell this machine's device from others of the same name. */
    this.adapter = "";
    /** @type {Map<number, B>} */
    this.handles = new Map();
    /** Handles that `free` leaves alone: weights, and whose they are. @type {Map<number, S>} */
    this.kept = new Map();
    /** @type {Map<number, S>} */
    this.sessions = new Map();
    this.serial = 0;
    /** Bytes of the callers' buffers, of Programs, and the most that both ever were. */
    this.bytes = 0;
    this.programs = 0;
    this.peak = 0;
  }

  // What each device adds -----------------------------------------------------------------------------------------

  /** Memory with unknown contents. @param {number} room @returns {B} */
  take(room) { throw room; }
  /** @param {B} block */
  give(block) { throw block; }
  /** @param {B} block @param {Uint8Array} bytes @param {number} offset */
  put(block, bytes, offset) { throw [block, bytes, offset]; }
  /** @param {B} from @param {B} to */
  copy(from, to) { throw [from, to]; }
  /** Throws DeviceError if the device is gone. */
  alive() {}
  /** @param {B} block @param {number} n @returns {Promise<Uint8Array>} */
  async get(block, n) { throw [block, n]; }
  /** A Session with neither memory nor code. @param {Program} program @returns {S} */
  build(program) { throw program; }
  /** Give a Session its memory. @param {S} session */
  place(session) { throw session; }
  /** Give a Session its code now. @param {S} session @param {number} serial */
  link(session, serial) { throw session; }
  /** The same, off the calling thread. @param {S} session @param {number} serial @returns {Promise<void>} */
  async compile(session, serial) { throw session; }
  /** Run the steps of an entry on `session.blocks`. @param {S} session @param {number} entry @param {number} serial */
  execute(session, entry, serial) { throw [session, entry, serial]; }
  /** A Session is about to go. @param {S} session @param {number} serial */
  forget(session, serial) {}
  /** Bytes held for later use. @returns {number} */
  pooled() { throw this; }
  /** @returns {Record<string, unknown>} */
  limits() { throw this; }

  // Buffers -------------------------------------------------------------------------------------------------------

  /** @param {string} what @returns {never} */
  fail(what) {
    throw new DeviceError(`${this.name}: ${what}.`);
  }

  /** A new buffer's handle; its contents are unknown. @param {number} n bytes */
  alloc(n) {
    this.alive();
    if (!Number.isSafeInteger(n) || n < 0) this.fail(`alloc: ${show(n)} is not a number of bytes`);
    const block = this.take(room(n));
    this.bytes += block.room;
    this.note();
    this.handles.set(++this.serial, block);
    return this.serial;
  }

  /** The memory of a handle, which must hold `n` bytes. @param {number} id @param {number} [n] */
  block(id, n = 0) {
    this.alive();
    const block = this.handles.get(id) ?? this.fail(`no buffer ${show(id)}`);
    if (!(n >= 0 && n <= block.room)) this.fail(`buffer ${id} has ${block.room} bytes, not ${show(n)}`);
    return block;
  }

  /** Give a buffer's memory back. Work that was started with it is not disturbed. @param {number} id */
  free(id) {
    const block = this.handles.get(id);
    if (!block || this.kept.has(id)) this.fail(`free: ${block ? "a Program's weight" : "no buffer"} ${show(id)}`);
    this.handles.delete(id);
    this.bytes -= block.room;
    this.give(block);
  }

  /** @param {number} id @param {Uint8Array} bytes @param {number} [offset] a multiple of 4 */
  write(id, bytes, offset = 0) {
    this.put(this.block(id, offset + bytes.length), bytes, offset);
    const owner = this.kept.get(id);
    if (owner) owner.stale = entryOf(owner.program, PREPARE);
  }

  /** A copy of the first `n` bytes, when all that was started before is done. @param {number} id @param {number} n */
  async read(id, n) {
    return this.get(this.block(id, n), n);
  }

  note() {
    this.peak = Math.max(this.peak, this.bytes + this.programs);
  }

  stats() {
    const { bytes, programs, peak, handles, kept } = this;
    return { bytes, programs, peak, buffers: handles.size - kept.size, pooled: this.pooled() };
  }

  // Programs ------------------------------------------------------------------------------------------------------

  /** @param {Program | Uint8Array | ArrayBuffer} program */
  accept(program) {
    this.alive();
    if (ArrayBuffer.isView(program) || program instanceof ArrayBuffer) program = decode(program);
    const missing = program.features.filter((feature) => !this.features.includes(feature));
    if (program.target !== this.name || missing.length)
      this.fail(`load: the Program needs ${[program.target, ...missing].join(", ")}`);
    return program;
  }

  /** Memory that a Session holds. @param {S} session @param {number} n */
  own(session, n) {
    const block = this.take(n);
    session.owned.push(block);
    this.programs += n;
    return block;
  }

  /**
   * A Program's Session, as a number, with memory and no code yet: its weights can be written, and hold unknown
   * values until then. `finish` must come before `run`.
   * @param {Program | Uint8Array | ArrayBuffer} program
   */
  begin(program) {
    const session = this.build(this.accept(program));
    try {
      this.place(session);
    } catch (error) {
      this.discard(session);
      throw error;
    }
    const serial = ++this.serial;
    session.stale = entryOf(session.program, PREPARE);
    for (const [i, b] of session.program.buffers.entries()) {
      if (b.kind !== "weight") continue;
      this.handles.set(++this.serial, session.blocks[i]);
      this.kept.set(this.serial, session);
      session.weights.set(b.name, this.serial);
    }
    this.sessions.set(serial, session);
    this.note();
    return serial;
  }

  /** Compile what `begin` began, off the calling thread. @param {number} serial */
  async finish(serial) {
    try {
      await this.compile(this.session(serial), serial);
      this.session(serial);
    } catch (error) {
      if (this.sessions.has(serial)) this.unload(serial);
      throw error;
    }
    return serial;
  }

  /** Both at once, waiting for the compiler. @param {Program | Uint8Array | ArrayBuffer} program */
  load(program) {
    const serial = this.begin(program);
    try {
      this.link(this.session(serial), serial);
    } catch (error) {
      this.unload(serial);
      throw error;
    }
    return serial;
  }

  /** @param {Program | Uint8Array | ArrayBuffer} program */
  async loadAsync(program) {
    return this.finish(this.begin(program));
  }

  /** @param {number} serial */
  session(serial) {
    this.alive();
    return this.sessions.get(serial) ?? this.fail(`no Program ${show(serial)}`);
  }

  /** The handle of a weight, to read and write. @param {number} serial @param {string} name */
  weight(serial, name) {
    return this.session(serial).weights.get(name) ?? this.fail(`no weight ${show(name)}`);
  }

  /** @param {number} serial */
  unload(serial) {
    const session = this.sessions.get(serial) ?? this.fail(`no Program ${show(serial)}`);
    this.sessions.delete(serial);
    for (const id of session.weights.values()) this.handles.delete(id), this.kept.delete(id);
    this.forget(session, serial);
    this.discard(session);
  }

  /** @param {S} session */
  discard(session) {
    for (const block of session.owned.splice(0)) {
      this.programs -= block.room;
      this.give(block);
    }
  }

  /**
   * Start an entry; the outputs' handles. An output that takes over an input's memory has that input's handle,
   * and the input is gone. An input given twice is copied, so that arguments never share memory.
   * If weights were written since the last call, the Program's entry `prepare` runs first.
   * @param {number} serial @param {number} index @param {Iterable<number>} ids
   */
  run(serial, index, ids) {
    const session = this.session(serial);
    const { blocks, program: { buffers, entries } } = session;
    const entry = entries[index] ?? this.fail(`run: no entry ${show(index)}; there are ${entries.length}`);
    const stale = session.stale ?? -1;
    if (stale >= 0) this.execute(session, stale, serial);
    session.stale = -1;
    const inputs = [...ids];
    if (inputs.length !== entry.inputs.length) this.fail(`run: '${entry.name}' takes ${entry.inputs.length} inputs, not ${inputs.length}`);
    const taken = new Set(entry.outputs.map((b) => buffers[b].alias));
    /** @type {Set<number>} */
    const made = new Set();
    /** @type {Set<number>} */
    const bound = new Set();
    try {
      for (const first of [true, false])
        entry.inputs.forEach((b, i) => {
          if (taken.has(b) !== first) return;
          const n = nbytes(buffers[b]);
          const block = this.block(inputs[i], room(n));
          if (bound.has(inputs[i])) {
            made.add((inputs[i] = this.alloc(n)));
            this.copy(block, this.block(inputs[i]));
          }
          bound.add(inputs[i]);
          blocks[b] = this.block(inputs[i]);
        });
      const outputs = entry.outputs.map((b) => {
        const { alias } = buffers[b];
        const id = alias < 0 ? this.alloc(nbytes(buffers[b])) : inputs[entry.inputs.indexOf(alias)];
        if (alias < 0) made.add(id);
        blocks[b] = this.block(id);
        return id;
      });
      this.execute(session, index, serial);
      outputs.forEach((id) => made.delete(id));
      return outputs;
    } finally {
      made.forEach((id) => this.free(id));
    }
  }

  /** Stop the device and free what it holds. */
  close() {
    for (const serial of [...this.sessions.keys()]) this.unload(serial);
    for (const id of [...this.handles.keys()]) this.free(id);
  }
}
