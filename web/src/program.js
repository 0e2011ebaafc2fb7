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

/** Bytes of one element. @type {Record<string, number>} */
export const ITEMSIZE = {
  // @ts-ignore: no inherited names, so that a dtype called "constructor" is not found
  __proto__: null,
  bool: 1, int8: 1, uint8: 1, int32: 4, uint32: 4, int64: 8, float16: 2, float32: 4, float64: 8,
};
const SIGNATURE = [0x89, 0x4e, 0x46, 0x50, 0x0d, 0x0a, 0x1a, 0x0a];
const KEYS = ["target", "features", "buffers", "kernels", "steps", "entries", "arena", "module", "memory_flag", "data"];
const KINDS = ["input", "weight", "constant", "scratch", "output"];
/** @type {Record<string, string[]>} */
const FEATURES = { wasm: ["relaxed-simd"], webgpu: ["shader-f16", "subgroups"] };
const MAX_HEADER = 67108864;

/** @param {number} n @param {number} step */
export const roundUp = (n, step) => Math.ceil(n / step) * step;

/** Elements of a shape. @param {number[]} shape */
export const prod = (shape) => (shape.includes(0) ? 0 : shape.reduce((n, size) => n * size, 1));

/** Bytes of a buffer's values. @param {Buffer} buffer */
export const nbytes = (buffer) => prod(buffer.shape) * ITEMSIZE[buffer.dtype];

/** Bytes reserved for `n` bytes of values: a multiple of 16, at least 16. @param {number} n */
export const room = (n) => Math.max(16, roundUp(n, 16));

/**
 * @param {string} place @param {string} what
 * @returns {never}
 */
function bad(place, what) {
  throw new FormatError(`program: ${place}: ${what}. The file is damaged or was not made by Nearfield; export it again.`);
}

/** @param {unknown} value @param {string} place @param {number} [max] @param {number} [min] */
function integer(value, place, max = Number.MAX_SAFE_INTEGER, min = 0) {
  if (!Number.isInteger(value) || /** @type {number} */ (value) < min || /** @type {number} */ (value) > max)
    bad(place, `${show(value)} is not an integer in ${min} … ${max}`);
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
  if (typeof value !== "string" || /\p{Surrogate}/u.test(value)) bad(place, `${show(value)} is not text`);
}

/** Names are text, and no two are equal. @param {unknown[]} names @param {string} place */
function unique(names, place) {
  const seen = new Set();
  names.forEach((name, i) => {
    text(name, `${place}[${i}]`);
    if (seen.has(name)) bad(`${place}[${i}]`, `the name ${show(name)} is there twice`);
    seen.add(name);
  });
}

/**
 * The Program that a file holds, verified.
 * @param {Uint8Array | ArrayBuffer} file
 * @returns {Program}
 */
export function decode(file) {
  const bytes = ArrayBuffer.isView(file) ? new Uint8Array(file.buffer, file.byteOffset, file.byteLength) : new Uint8Array(file, 0);
  if (bytes.length < 16 || SIGNATURE.some((byte, i) => bytes[i] !== byte)) bad("signature", "this is not a Nearfield Program");
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const version = view.getUint32(8, true);
  if (version !== 1) bad("version", `${version} is unknown; this reader accepts 1`);
  const length = view.getUint32(12, true);
  if (length % 8 || length > MAX_HEADER || 16 + length > bytes.length)
    bad("header", `a length of ${length} in a file of ${bytes.length} bytes; accepted are multiples of 8 up to ${MAX_HEADER} that fit`);
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
  for (const key of keys) if (!KEYS.includes(key)) bad("header", `the key ${show(key)} is unknown`);
  for (const key of KEYS) if (!keys.includes(key)) bad("header", `the key '${key}' is missing`);
  // JSON.parse keeps the last of equal keys and makes 1.0 an integer. A valid header holds one object
  // and only integers, so colons outside strings count its keys, and '.', 'e', 'E' do not occur there.
  let colons = 0;
  for (let i = 0, quoted = false; i < json.length; i++) {
    const c = json[i];
    if (quoted && c === "\\") i++;
    else if (c === '"') quoted = !quoted;
    else if (quoted) continue;
    else if (c === ":") colons++;
    else if (c === "." || c === "e" || c === "E") bad("header", "a value that is neither text, list nor integer");
  }
  if (colons !== KEYS.length) bad("header", "a key is there twice, or an object in a list");

  const moduleLength = integer(header.module, "module");
  const dataLength = integer(header.data, "data");
  const start = 16 + length;
  const dataStart = start + roundUp(moduleLength, 8);
  if (dataStart + dataLength !== bytes.length)
    bad("file", `${bytes.length} bytes, but the header says ${dataStart + dataLength}; it is cut short or has something after its end`);
  for (let i = start + moduleLength; i < dataStart; i++) if (bytes[i]) bad("module", "its padding is not zero");

  /** @param {string} key @param {number} width @param {(row: any[]) => any} make */
  const rows = (key, width, make) => list(header[key], key).map((row, i) => make(list(row, `${key}[${i}]`, width)));
  const program = {
    target: header.target,
    features: header.features,
    buffers: rows("buffers", 6, ([name, dtype, shape, kind, offset, alias]) => ({ name, dtype, shape, kind, offset, alias })),
    kernels: rows("kernels", 3, ([name, code, bindings]) => ({ name, code, bindings })),
    steps: rows("steps", 4, ([kernel, buffers, size, cost]) => ({ kernel, buffers, size, cost })),
    entries: rows("entries", 5, ([name, inputs, outputs, start, stop]) => ({ name, inputs, outputs, start, stop })),
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
  unique(list(features, "features"), "features");
  features.forEach((name, i) => oneOf(name, `features[${i}]`, FEATURES[target]));
  integer(arena, "arena");
  integer(memoryFlag, "memory_flag", webgpu ? 0 : module.length - 1);
  if (webgpu ? module.length : module[memoryFlag] !== 3) bad("module", webgpu ? "a webgpu Program has none" : "no 03 at memory_flag");

  unique(buffers.map((b) => b.name), "buffers");
  const rooms = buffers.map((b, i) => {
    const place = `buffers[${i}]`;
    oneOf(b.dtype, place, Object.keys(ITEMSIZE));
    oneOf(b.kind, place, KINDS);
    if (list(b.shape, place).length > 16) bad(place, "more than 16 axes");
    b.shape.forEach((size) => integer(size, place));
    const bytes = integer(nbytes(b), place, Number.MAX_SAFE_INTEGER - 15);
    const [step, end] = b.kind === "scratch" ? [256, arena - room(bytes)] : b.kind === "constant" ? [16, data.length - bytes] : [1, 0];
    if (integer(b.offset, place) > end || b.offset % step)
      bad(place, `offset ${b.offset} is not a multiple of ${step}, or its ${bytes} bytes do not fit`);
    return room(bytes);
  });
  buffers.forEach((b, i) => {
    const place = `buffers[${i}]`;
    integer(b.alias, place, b.kind === "output" ? buffers.length - 1 : -1, -1);
    if (b.alias >= 0 && (buffers[b.alias].kind !== "input" || rooms[b.alias] !== rooms[i]))
      bad(place, `alias ${b.alias} is not an input of the same room`);
  });

  unique(kernels.map((k) => k.name), "kernels");
  kernels.forEach((k, i) => {
    text(k.code, `kernels[${i}]`);
    integer(k.bindings, `kernels[${i}]`);
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
      if (buffers[b].kind === "input" || buffers[b].kind === "output") count = count + 1, uses[b].push(i);
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
        if (spans[k - 1].memory === spans[k].memory && spans[k - 1].at + spans[k - 1].room > spans[k].at) bad(place, "two arguments overlap in memory");
    }
  });

  unique(entries.map((e) => e.name), "entries");
  entries.forEach((e, i) => {
    const place = `entries[${i}]`;
    integer(e.stop, place, steps.length);
    integer(e.start, place, e.stop);
    let count = 0;
    for (const kind of ["input", "output"]) {
      const numbers = kind === "input" ? e.inputs : e.outputs;
      for (const b of list(numbers, place)) {
        if (buffers[integer(b, place, buffers.length - 1)].kind !== kind) bad(place, `buffer ${b} is not an ${kind}`);
        count += lowerBound(uses[b], e.stop) - lowerBound(uses[b], e.start);
      }
      if (new Set(numbers).size !== numbers.length) bad(place, `an ${kind} is there twice`);
    }
    const aliases = e.outputs.map((b) => buffers[b].alias).filter((b) => b >= 0);
    const inputs = new Set(e.inputs);
    if (new Set(aliases).size !== aliases.length || aliases.some((b) => !inputs.has(b)))
      bad(place, "an output takes over memory that is not an input of this entry, or that another output takes");
    if (count !== before[e.stop] - before[e.start]) bad(place, "its steps use an input or output that the entry does not have");
  });
}

/** The first position in sorted `values` that holds `value` or more. @param {number[]} values @param {number} value */
function lowerBound(values, value) {
  let low = 0;
  for (let high = values.length; low < high; ) {
    const middle = (low + high) >>> 1;
    if (values[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}
