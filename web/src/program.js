// Decode and verify Programs, as docs/spec/program.md says. No allocation follows a number in the file.
import { FormatError, show } from "./errors.js";

/**
 * @typedef {{name: string, dtype: string, shape: number[], kind: string, offset: number, alias: number}} Buffer
 * @typedef {{name: string, code: string, bindings: number}} Kernel
 * @typedef {{kernel: number, buffers: number[], size: number[], cost: number}} Step
 * @typedef {{name: string, inputs: number[], outputs: number[], start: number, stop: number}} Entry
 * @typedef {{target: string, features: string[], buffers: Buffer[], kernels: Kernel[], steps: Step[], entries: Entry[],
 *   arena: number, module: Uint8Array, memoryFlag: number, data: Uint8Array}} Program
 */

/** Element types: how a page holds them, and their name in safetensors files. @type {Record<string, {array: any, file: string}>} */
export const DTYPES = {
  // @ts-ignore: no inherited names, so that a dtype called "constructor" is not found
  __proto__: null,
  bool: { array: Uint8Array, file: "BOOL" },
  int8: { array: Int8Array, file: "I8" },
  uint8: { array: Uint8Array, file: "U8" },
  int32: { array: Int32Array, file: "I32" },
  uint32: { array: Uint32Array, file: "U32" },
  int64: { array: BigInt64Array, file: "I64" },
  float16: { array: Uint16Array, file: "F16" },
  float32: { array: Float32Array, file: "F32" },
  float64: { array: Float64Array, file: "F64" },
};
const SIGNATURE = [0x89, 0x4e, 0x46, 0x50, 0x0d, 0x0a, 0x1a, 0x0a];
const KEYS = ["target", "features", "buffers", "kernels", "steps", "entries", "arena", "module", "memory_flag", "data"];
const KINDS = ["input", "weight", "constant", "prepared", "scratch", "output"];
/** @type {Record<string, string[]>} */
const FEATURES = { wasm: ["relaxed-simd"], webgpu: ["shader-f16", "subgroups"] };
const MAX_HEADER = 67108864;

/** The entry that fills buffers of kind "prepared" from weights and constants. */
export const PREPARE = "prepare";

/** Number of an entry, or −1. @param {Program} program @param {string} name */
export const entryOf = (program, name) => program.entries.findIndex((e) => e.name === name);

/** @param {number} n @param {number} step */
export const roundUp = (n, step) => Math.ceil(n / step) * step;

/** Elements of a shape. @param {number[]} shape */
export const prod = (shape) => (shape.includes(0) ? 0 : shape.reduce((n, size) => n * size, 1));

/** Bytes of a buffer's values. @param {Buffer} buffer */
export const nbytes = (buffer) => prod(buffer.shape) * DTYPES[buffer.dtype].array.BYTES_PER_ELEMENT;

/** Bytes reserved for `n` bytes of values: a multiple of 16, at least 16. @param {number} n */
export const room = (n) => Math.max(16, roundUp(n, 16));

/** Whether a buffer comes with each call. @param {Buffer} buffer */
export const isCallers = ({ kind }) => kind === "input" || kind === "output";

/**
 * @param {string} place @param {string} what
 * @returns {never}
 */
function bad(place, what) {
  throw new FormatError(`program: ${place}: ${what}. Export it again.`);
}

/** @param {unknown} value @param {string} place @param {number} [max] @param {number} [min] */
function integer(value, place, max = Number.MAX_SAFE_INTEGER, min = 0) {
  if (!Number.isInteger(value) || /** @type {number} */ (value) < min || /** @type {number} */ (value) > max)
    bad(place, `${show(value)} is not an integer from ${min} to ${max}`);
  return /** @type {number} */ (value);
}

/** @param {unknown} value @param {string} place @param {number} [length] @returns {any[]} */
function list(value, place, length) {
  if (!Array.isArray(value)) return bad(place, `${show(value)} is not a list`);
  if (length !== undefined && value.length !== length) bad(place, `has ${value.length} items, not ${length}`);
  return value;
}

/** @param {unknown} value @param {string} place @param {string[]} words */
function oneOf(value, place, words) {
  if (!words.includes(/** @type {string} */ (value))) bad(place, `${show(value)} is not one of ${words.join(", ")}`);
}

/** @param {unknown} value @param {string} place */
function text(value, place) {
  if (typeof value !== "string" || !value.isWellFormed()) bad(place, `${show(value)} is not text`);
}

/** Do `check` for each row of a table whose names are text, no two of them equal. @template {{name: string}} T @param {T[]} rows @param {string} key @param {(row: T, place: string, index: number) => void} check */
function each(rows, key, check) {
  const names = new Set();
  rows.forEach((row, i) => {
    const place = `${key}[${i}]`;
    text(row.name, place);
    if (names.has(row.name)) bad(place, `a second ${show(row.name)}`);
    names.add(row.name);
    check(row, place, i);
  });
}

/**
 * The Program that a file holds, verified.
 * @param {Uint8Array | ArrayBuffer} file
 * @returns {Program}
 */
export function decode(file) {
  const bytes = ArrayBuffer.isView(file) ? new Uint8Array(file.buffer, file.byteOffset, file.byteLength) : new Uint8Array(file, 0);
  if (bytes.length < 16 || SIGNATURE.some((byte, i) => bytes[i] !== byte)) bad("signature", "not a Nearfield Program");
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const version = view.getUint32(8, true);
  if (version !== 1) bad("version", `${version} is unknown; this reader accepts 1`);
  const length = view.getUint32(12, true);
  if (length % 8 || length > MAX_HEADER || 16 + length > bytes.length)
    bad("header", `its length ${length} is not a multiple of 8 inside the file`);
  let json = "";
  /** @type {any} */
  let header;
  try {
    // `slice`, because a view of shared memory cannot be decoded
    json = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes.slice(16, 16 + length));
    header = JSON.parse(json);
  } catch {
    bad("header", "not JSON in UTF-8");
  }
  if (typeof header !== "object" || !header || Array.isArray(header)) bad("header", "not an object");
  const keys = Object.keys(header);
  if (keys.length !== KEYS.length || !KEYS.every((key) => keys.includes(key))) bad("header", `its keys are not ${KEYS.join(", ")}`);
  // JSON.parse keeps the last of equal keys and makes 1.0 an integer. A valid header holds one object
  // and only integers, so colons outside strings count its keys, and '.', 'e', 'E' do not occur there.
  const bare = json.replace(/"(\\.|[^"\\])*"/g, "");
  if (/[.eE]/.test(bare) || bare.split(":").length !== KEYS.length + 1) bad("header", "not one object of text, lists and integers");

  const moduleLength = integer(header.module, "module");
  const dataLength = integer(header.data, "data");
  const start = 16 + length;
  const dataStart = start + roundUp(moduleLength, 8);
  if (dataStart + dataLength !== bytes.length)
    bad("file", `${bytes.length} bytes; the header says ${dataStart + dataLength}`);
  for (let i = start + moduleLength; i < dataStart; i++) if (bytes[i]) bad("module", "its padding is not zero");

  /** @param {string} key @param {string[]} fields @returns {any[]} */
  const rows = (key, ...fields) => list(header[key], key).map((row, i) => {
    const values = list(row, `${key}[${i}]`, fields.length);
    return Object.fromEntries(fields.map((field, k) => [field, values[k]]));
  });
  const program = {
    target: header.target,
    features: header.features,
    buffers: rows("buffers", "name", "dtype", "shape", "kind", "offset", "alias"),
    kernels: rows("kernels", "name", "code", "bindings"),
    steps: rows("steps", "kernel", "buffers", "size", "cost"),
    entries: rows("entries", "name", "inputs", "outputs", "start", "stop"),
    arena: header.arena,
    module: bytes.subarray(start, start + moduleLength),
    memoryFlag: header.memory_flag,
    data: bytes.subarray(dataStart),
  };
  verify(program);
  return program;
}

/**
 * Throws FormatError unless the Program keeps every rule of the format.
 * @param {Program} program
 */
export function verify(program) {
  const { target, features, buffers, kernels, steps, entries, arena, module, memoryFlag, data } = program;
  oneOf(target, "target", ["wasm", "webgpu"]);
  const webgpu = target === "webgpu";
  const named = list(features, "features").map((name) => ({ name }));
  each(named, "features", ({ name }, place) => oneOf(name, place, FEATURES[target]));
  integer(arena, "arena");
  integer(memoryFlag, "memory_flag", webgpu ? 0 : module.length - 1);
  if (webgpu ? module.length : module[memoryFlag] !== 3) bad("module", "there is one for webgpu, or no 03 at memory_flag");

  /** @type {number[]} */
  const rooms = [];
  each(buffers, "buffers", (b, place) => {
    oneOf(b.dtype, place, Object.keys(DTYPES));
    oneOf(b.kind, place, KINDS);
    if (list(b.shape, place).length > 16) bad(place, "more than 16 axes");
    b.shape.forEach((size) => integer(size, place));
    const bytes = integer(nbytes(b), place, Number.MAX_SAFE_INTEGER - 15);
    const [step, end] = b.kind === "scratch" ? [256, arena - room(bytes)] : b.kind === "constant" ? [16, data.length - bytes] : [1, 0];
    if (integer(b.offset, place) > end || b.offset % step)
      bad(place, `offset ${b.offset}: not a multiple of ${step}, or ${bytes} bytes do not fit there`);
    rooms.push(room(bytes));
  });
  buffers.forEach((b, i) => {
    const place = `buffers[${i}]`;
    integer(b.alias, place, b.kind === "output" ? buffers.length - 1 : -1, -1);
    if (b.alias >= 0 && (buffers[b.alias].kind !== "input" || rooms[b.alias] !== rooms[i]))
      bad(place, `alias ${b.alias} is not an input of the same room`);
  });

  each(kernels, "kernels", (k, place) => {
    text(k.code, place);
    integer(k.bindings, place);
  });

  // Where each of the callers' buffers is used, and how many such uses come before each step.
  /** @type {number[][]} */
  const uses = buffers.map(() => []);
  const before = [0];
  steps.forEach((step, i) => {
    const place = `steps[${i}]`;
    const kernel = kernels[integer(step.kernel, place, kernels.length - 1)];
    list(step.buffers, place, kernel.bindings);
    list(step.size, place, webgpu ? 3 : 2);
    step.size.forEach((n, axis) => (webgpu ? integer(n, place, 65535, 1) : integer(n, place, undefined, axis)));
    integer(step.cost, place);
    let count = before[i];
    for (const b of step.buffers) {
      integer(b, place, buffers.length - 1);
      if (isCallers(buffers[b])) count++, uses[b].push(i);
    }
    before.push(count);
    if (webgpu) {
      const spans = step.buffers.map((b) => {
        const { kind, offset, alias } = buffers[b];
        if (kind === "scratch") return { memory: -1, at: offset, room: rooms[b] };
        if (kind === "constant") return { memory: -2, at: offset, room: nbytes(buffers[b]) || 1 };
        return { memory: alias < 0 ? b : alias, at: 0, room: 1 };
      });
      spans.sort((a, b) => a.memory - b.memory || a.at - b.at);
      for (let k = 1; k < spans.length; k++)
        if (spans[k - 1].memory === spans[k].memory && spans[k - 1].at + spans[k - 1].room > spans[k].at) bad(place, "two arguments overlap");
    }
  });

  each(entries, "entries", (e, place) => {
    integer(e.stop, place, steps.length);
    integer(e.start, place, e.stop);
    let count = 0;
    for (const kind of ["input", "output"]) {
      const numbers = kind === "input" ? e.inputs : e.outputs;
      for (const b of list(numbers, place)) {
        if (buffers[integer(b, place, buffers.length - 1)].kind !== kind) bad(place, `buffer ${b} is not an ${kind}`);
        const usesBefore = (/** @type {number} */ step) => bisect(uses[b].length, (k) => uses[b][k] < step);
        count += usesBefore(e.stop) - usesBefore(e.start);
      }
      if (new Set(numbers).size !== numbers.length) bad(place, `an ${kind} twice`);
    }
    const aliases = e.outputs.map((b) => buffers[b].alias).filter((b) => b >= 0);
    const inputs = new Set(e.inputs);
    if (new Set(aliases).size !== aliases.length || aliases.some((b) => !inputs.has(b)))
      bad(place, "an output takes over what is not its input, or is taken");
    if (count !== before[e.stop] - before[e.start]) bad(place, "its steps use an input or output of another entry");
    if (e.name === PREPARE && e.inputs.length + e.outputs.length) bad(place, "it has inputs or outputs");
  });
  if (entryOf(program, PREPARE) < 0 && buffers.some((b) => b.kind === "prepared")) bad("entries", `none is called ${PREPARE}`);
}

/** The first of 0 … n that does not lie before what is sought. @param {number} n @param {(i: number) => boolean} before */
export function bisect(n, before) {
  let low = 0;
  while (low < n) {
    const middle = (low + n) >>> 1;
    if (before(middle)) low = middle + 1;
    else n = middle;
  }
  return low;
}
