// Tensors of a safetensors file, and their axes in another order.
const ARRAYS = { F32: Float32Array, I32: Int32Array };

/** name -> {name, data, shape}, in the order of the file's header. @param {string} url */
export async function tensors(url) {
  const bytes = await (await fetch(url)).arrayBuffer();
  const length = Number(new DataView(bytes).getBigUint64(0, true));
  const { __metadata__, ...rows } = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 8, length)));
  const found = {};
  for (const [name, { dtype, shape, data_offsets: [start, end] }] of Object.entries(rows)) {
    const data = new ARRAYS[dtype](bytes.slice(8 + length + start, 8 + length + end));
    found[name] = { name, data, shape };
  }
  return found;
}

/** The tensor with its axes in the order of `axes`, copied. */
export function permuted({ name, data, shape }, axes) {
  const strides = shape.map((_, i) => shape.slice(i + 1).reduce((a, b) => a * b, 1));
  const sizes = axes.map((i) => shape[i]);
  const steps = axes.map((i) => strides[i]);
  const result = new data.constructor(data.length);
  const index = sizes.map(() => 0);
  for (let k = 0, at = 0; k < result.length; k++) {
    result[k] = data[at];
    for (let axis = sizes.length - 1; axis >= 0; axis--) {
      at += steps[axis];
      if (++index[axis] < sizes[axis]) break;
      at -= steps[axis] * sizes[axis];
      index[axis] = 0;
    }
  }
  return { name, data: result, shape: sizes };
}

/** Pictures with channels last -> channels first. */
export const channelsFirst = (tensor) => permuted(tensor, [0, 3, 1, 2]);

export const bytesOf = async (url) => {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
};
