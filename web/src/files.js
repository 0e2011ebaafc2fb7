// Files from a web server, read as they arrive; safetensors, straight into a device.
import { FormatError, show } from "./errors.js";
import { ITEMSIZE, nbytes, prod } from "./program.js";

const PIECE = 2 ** 22;
const MAX_HEADER = 100_000_000; // of a safetensors file, as its own library has it
/** @type {Record<string, string>} */
const DTYPES = {
  BOOL: "bool", I8: "int8", U8: "uint8", I32: "int32", U32: "uint32", I64: "int64", F16: "float16", F32: "float32", F64: "float64",
};

/**
 * @typedef {{loaded: number, total: number}} Progress bytes so far, and of all files begun (0: unknown)
 * @typedef {{signal?: AbortSignal, onProgress?: (progress: Progress) => void, fetch?: typeof fetch}} FetchOptions
 */

/** Counts what all files of a model have brought. */
export class Loader {
  /** @param {FetchOptions} options */
  constructor({ signal, onProgress, fetch = (...args) => globalThis.fetch(...args) }) {
    this.signal = signal;
    this.onProgress = onProgress;
    this.fetch = fetch;
    this.loaded = 0;
    this.total = 0;
  }

  /** A file as a stream. @param {URL} url */
  async open(url) {
    const response = await this.fetch(url.href, { signal: this.signal });
    if (!response.ok) throw new FormatError(`load: ${url.href}: the server answers ${response.status}.`);
    this.total += Number(response.headers.get("content-length")) || 0;
    return new Stream(this, url, response);
  }

  /** A whole file. @param {URL} url */
  async bytes(url) {
    const stream = await this.open(url);
    return stream.take(Infinity);
  }
}

/** A file that arrives in chunks and is taken in pieces. */
class Stream {
  /** @param {Loader} loader @param {URL} url @param {Response} response */
  constructor(loader, url, response) {
    this.loader = loader;
    this.url = url;
    this.reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
    /** @type {Uint8Array} */
    this.rest = new Uint8Array(0);
  }

  /** The next `n` bytes, or all that are left if `n` is Infinity. @param {number} n */
  async take(n) {
    const chunks = [this.rest];
    let have = this.rest.length;
    while (have < n) {
      const { done, value } = await this.reader.read();
      if (done) break;
      chunks.push(value);
      have += value.length;
      this.loader.loaded += value.length;
      const { loaded, total, onProgress } = this.loader;
      onProgress?.({ loaded, total: total && Math.max(loaded, total) });
    }
    if (have < n && n < Infinity) this.bad("it is cut short");
    const all = chunks.length > 1 ? new Uint8Array(have) : this.rest;
    if (chunks.length > 1) for (let at = 0, i = 0; i < chunks.length; at += chunks[i++].length) all.set(chunks[i], at);
    this.rest = all.subarray(Math.min(n, have));
    return all.subarray(0, n);
  }

  /** @param {string} what @returns {never} */
  bad(what) {
    this.reader.cancel().catch(() => {});
    throw new FormatError(`load: ${this.url.href}: ${what}.`);
  }
}

/**
 * Write each tensor of a safetensors file where it belongs, as it arrives.
 * @param {Stream} stream
 * @param {import("./program.js").Buffer[]} weights all must be in the file, with their dtype and shape
 * @param {(name: string, bytes: Uint8Array, offset: number) => void} write
 */
export async function readWeights(stream, weights, write) {
  const view = new DataView((await stream.take(8)).slice().buffer);
  const length = Number(view.getBigUint64(0, true));
  if (length > MAX_HEADER) stream.bad(`a header of ${length} bytes`);
  const bytes = await stream.take(length);
  /** @type {[string, any][]} */
  let rows = [];
  try {
    const header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    rows = Object.entries(header).filter(([name]) => name !== "__metadata__");
    rows.sort(([, a], [, b]) => a.data_offsets[0] - b.data_offsets[0] || a.data_offsets[1] - b.data_offsets[1]);
  } catch {
    stream.bad("its header is not that of a safetensors file");
  }
  const wanted = new Map(weights.map((b) => [b.name, b]));
  let at = 0;
  for (const [name, { dtype, shape, data_offsets: [start, end] }] of rows) {
    const place = `tensor ${show(name)}`;
    const size = end - start;
    const known = ITEMSIZE[DTYPES[dtype]];
    if (start !== at || !Number.isSafeInteger(end) || !(size >= 0) || !Array.isArray(shape) || (known && prod(shape) * known !== size))
      stream.bad(`${place}: its place or size is wrong`);
    const buffer = wanted.get(name);
    if (buffer && (buffer.dtype !== DTYPES[dtype] || String(buffer.shape) !== String(shape) || nbytes(buffer) !== size))
      stream.bad(`${place}: is ${show(dtype)}[${shape}]; the Program needs ${buffer.dtype}[${buffer.shape}]`);
    for (let offset = 0; offset < size; offset += PIECE) {
      const piece = await stream.take(Math.min(PIECE, size - offset));
      if (buffer) write(name, piece, offset);
    }
    wanted.delete(name);
    at = end;
  }
  if (wanted.size) stream.bad(`the weight ${show([...wanted.keys()][0])} is not in it`);
  if ((await stream.take(Infinity)).length) stream.bad("something follows its last tensor");
}
