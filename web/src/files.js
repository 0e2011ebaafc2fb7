// Files from a web server, read as they arrive; safetensors, straight into a device.
import { FormatError, show } from "./errors.js";
import { DTYPES, nbytes, prod } from "./program.js";

const MAX_HEADER = 100_000_000; // of a safetensors file, as its own library has it
/**
 * @typedef {{loaded: number, total: number}} Progress bytes so far, and of all files begun (0: unknown)
 * @typedef {{signal?: AbortSignal, onProgress?: (progress: Progress) => void, fetch?: typeof fetch}} FetchOptions
 * @typedef {{take: (n: number, least?: number) => Promise<Uint8Array>, bad: (what: string) => never}} Stream
 *   `take` gives the next n bytes, or all that are left if n is Infinity; with `least`, as many as have come by then,
 *   in whole words unless they are the last
 */

/**
 * What opens the files of a model, and counts what all of them bring.
 * @param {FetchOptions} options
 */
export function loader({ signal, onProgress, fetch = (...args) => globalThis.fetch(...args) }) {
  let loaded = 0;
  let total = 0;
  /** @param {URL} url @returns {Promise<Stream>} */
  return async (url) => {
    /** @param {string} what @returns {never} */
    const bad = (what) => {
      throw new FormatError(`load: ${url.href}: ${what}.`);
    };
    const response = await fetch(url.href, { signal });
    if (!response.ok) bad(`the server answers ${response.status}`);
    total += Number(response.headers.get("content-length")) || 0;
    const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
    /** @type {Uint8Array} */
    let rest = new Uint8Array(0);
    return {
      bad: (what) => (reader.cancel().catch(() => {}), bad(what)),
      async take(n, least = n) {
        const chunks = [rest];
        let have = rest.length;
        while (have < least) {
          const { done, value } = await reader.read();
          if (done) break;
          chunks.push(value);
          have += value.length;
          loaded += value.length;
          onProgress?.({ loaded, total: total && Math.max(loaded, total) });
        }
        if (have < least && least < Infinity) bad("it is cut short");
        const end = have < n && n < Infinity ? have & ~3 : n;
        const all = chunks.length > 1 ? new Uint8Array(have) : rest;
        let at = 0;
        if (all !== rest) for (const chunk of chunks) all.set(chunk, at), (at += chunk.length);
        rest = all.subarray(Math.min(end, have));
        return all.subarray(0, end);
      },
    };
  };
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
  /** @type {{name: string, dtype: string, shape: number[], start: number, end: number}[]} */
  let rows = [];
  try {
    const { __metadata__, ...tensors } = JSON.parse(new TextDecoder().decode(bytes));
    rows = Object.entries(tensors).map(([name, { dtype, shape, data_offsets: [start, end] }]) => ({ name, dtype, shape, start, end }));
    rows.sort((a, b) => a.start - b.start || a.end - b.end);
  } catch {
    stream.bad("its header is not that of a safetensors file");
  }
  const wanted = new Map(weights.map((b) => [b.name, b]));
  let at = 0;
  for (const { name, dtype, shape, start, end } of rows) {
    const place = `tensor ${show(name)}`;
    const size = end - start;
    const known = Object.entries(DTYPES).find(([, row]) => row.file === dtype);
    if (start !== at || !Number.isSafeInteger(end) || !(size >= 0) || !Array.isArray(shape) || (known && prod(shape) * known[1].array.BYTES_PER_ELEMENT !== size))
      stream.bad(`${place}: its place or size is wrong`);
    const buffer = wanted.get(name);
    if (buffer && (buffer.dtype !== known?.[0] || String(buffer.shape) !== String(shape) || nbytes(buffer) !== size))
      stream.bad(`${place}: is ${show(dtype)}[${shape}]; the Program needs ${buffer.dtype}[${buffer.shape}]`);
    for (let offset = 0; offset < size; ) {
      const piece = await stream.take(size - offset, Math.min(4, size - offset));
      if (buffer) write(name, piece, offset);
      offset += piece.length;
    }
    wanted.delete(name);
    at = end;
  }
  if (wanted.size) stream.bad(`the weight ${show([...wanted.keys()][0])} is not in it`);
  if ((await stream.take(Infinity)).length) stream.bad("something follows its last tensor");
}
