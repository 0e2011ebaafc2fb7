// What a page holds (typed arrays, lists, pictures, sound) <-> the bytes of a buffer.
import { DeviceError, show } from "./errors.js";
import { DTYPES, prod } from "./program.js";

/** @typedef {{name: string, dtype: string, shape: number[]}} Value */

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/** The float16 nearest to a number, ties to even, as 16 bits. @param {number} x */
export function toHalf(x) {
  float[0] = x;
  const sign = (bits[0] >>> 16) & 0x8000;
  const rest = bits[0] & 0x7fffffff;
  if (rest >= 0x47800000) return sign | (rest > 0x7f800000 ? 0x7e00 : 0x7c00);
  if (rest >= 0x38800000) return sign | ((rest + 0xfff + ((rest >>> 13) & 1) - 0x38000000) >>> 13);
  float[0] = Math.abs(float[0]) + 0.5; // leaves the fraction in the last bits, rounded
  return sign | (bits[0] - 0x3f000000);
}

/** The number that 16 bits mean as a float16. @param {number} half */
export function fromHalf(half) {
  const exponent = (half >>> 10) & 31;
  const fraction = (half & 1023) / 1024;
  const size = exponent === 31 ? (fraction ? NaN : Infinity) : exponent ? (1 + fraction) * 2 ** (exponent - 15) : fraction * 2 ** -14;
  return half & 0x8000 ? -size : size;
}

/** From what a page has to what a typed array takes. @type {Record<string, (value: any) => any>} */
const CONVERT = { float16: toHalf, int64: BigInt, bool: (value) => +!!value };

/** The typed array for a buffer's bytes; float16 becomes Float32Array. @param {Uint8Array} bytes @param {string} dtype */
export function fromBytes(bytes, dtype) {
  const { array } = DTYPES[dtype];
  const values = new array(bytes.buffer, bytes.byteOffset, bytes.byteLength / array.BYTES_PER_ELEMENT);
  return dtype === "float16" ? Float32Array.from(values, fromHalf) : values;
}

/**
 * The bytes of an input.
 * @param {any} value typed array, (nested) list, number; ImageData, canvas, video, ImageBitmap, image; AudioBuffer
 * @param {Value} input
 */
export function toBytes(value, input) {
  const { name, dtype, shape } = input;
  const Kind = DTYPES[dtype].array;
  if (value?.getChannelData) value = value.getChannelData(0);
  else if (typeof value === "object" && value && !ArrayBuffer.isView(value) && !Array.isArray(value)) value = pixels(value, input);
  const values = ArrayBuffer.isView(value) ? /** @type {any} */ (value) : [value].flat(Infinity);
  const n = prod(shape);
  if (values.length !== n)
    throw new DeviceError(`run: input '${name}': has ${show(values.length)} values; accepted are ${n}, for ${dtype}[${shape}].`);
  const same = values instanceof Kind || (dtype === "bool" && values instanceof Uint8ClampedArray);
  let result = values;
  try {
    if (!same) result = Kind.from(values, CONVERT[dtype]);
  } catch (error) {
    throw new DeviceError(`run: input '${name}': ${/** @type {Error} */ (error).message}; accepted are numbers for ${dtype}.`);
  }
  return new Uint8Array(result.buffer, result.byteOffset, result.byteLength);
}

/** A picture's values, row by row: 0 … 1 for real dtypes, else 0 … 255. @param {any} source @param {Value} input */
function pixels(source, { name, dtype, shape }) {
  const [h, w, c] = shape.length === 4 && shape[0] === 1 ? shape.slice(1) : shape.length === 3 ? shape : [0, 0, 0];
  if (!h || !w || ![1, 3, 4].includes(c))
    throw new DeviceError(`run: input '${name}': not an array for ${dtype}[${shape}]; pictures need [h, w, c].`);
  let { data } = source;
  if (!data || source.width !== w || source.height !== h) {
    const draw = (/** @type {number} */ width, /** @type {number} */ height) =>
      /** @type {OffscreenCanvasRenderingContext2D} */ (new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true }));
    if (data) {
      const whole = draw(source.width, source.height);
      whole.putImageData(source, 0, 0);
      source = whole.canvas;
    }
    const context = draw(w, h);
    context.drawImage(source, 0, 0, w, h);
    ({ data } = context.getImageData(0, 0, w, h));
  }
  const result = new Float32Array(h * w * c);
  const scale = dtype.startsWith("float") ? 255 : 1;
  for (let i = 0, p = 0; p < data.length; p += 4) {
    if (c === 1) result[i++] = (0.299 * data[p] + 0.587 * data[p + 1] + 0.114 * data[p + 2]) / scale;
    else for (let k = 0; k < c; k++) result[i++] = data[p + k] / scale;
  }
  return scale === 1 ? result.map(Math.round) : result;
}
