// What Python in the same page (Pyodide) talks to: plain functions on integer handles.
import { DeviceError, show } from "./errors.js";
import { openDevice } from "./model.js";
import { WasmDevice } from "./wasm.js";
import { describe, isSoftware, requestAdapter } from "./webgpu.js";

/** @typedef {import("./model.js").AnyDevice} AnyDevice */

/** @type {Map<number, AnyDevice>} */
const devices = new Map();
let serial = 0;

/** @param {AnyDevice} device */
function add(device) {
  devices.set(++serial, device);
  return serial;
}

/** @param {number} number */
const at = (number) => devices.get(number) ?? fail(`no device ${show(number)}`);

/** @param {string} what @returns {never} */
function fail(what) {
  throw new DeviceError(`bridge: ${what}.`);
}

/** Call with the bytes of a typed array or of a Python object that has them. @template T @param {any} bytes @param {(bytes: Uint8Array) => T} use */
function withBytes(bytes, use) {
  const view = bytes.getBuffer?.("u8");
  try {
    return use(view ? view.data : bytes);
  } finally {
    view?.release();
  }
}

/** @type {Record<string, Function>} */
export const bridge = {
  /** What can be opened here, best first. @returns {Promise<{name: string, adapter: string, software: boolean}[]>} */
  async devices() {
    const adapter = await requestAdapter();
    const gpu = adapter && { name: "webgpu", adapter: describe(adapter), software: isSoftware(adapter) };
    const cpu = { name: "wasm", adapter: "WebAssembly SIMD", software: false };
    return gpu ? (gpu.software ? [cpu, gpu] : [gpu, cpu]) : [cpu];
  },
  /** @param {string} name @param {{threads?: number}} [options] */
  open: async (name, options) => add(await openDevice(name, options)),
  /** @param {string} name @param {{threads?: number}} [options] */
  openSync: (name, options) => (name === "wasm" ? add(new WasmDevice(options)) : fail(`openSync: await open(${show(name)})`)),
  /** @param {number} dev */
  close(dev) {
    at(dev).close();
    devices.delete(dev);
  },
  /** @param {number} dev @param {number} id @param {any} bytes @param {number} [offset] */
  write: (dev, id, bytes, offset) => withBytes(bytes, (data) => at(dev).write(id, data, offset)),
  /** @param {number} dev @param {number} id @param {number} nbytes */
  readSync(dev, id, nbytes) {
    const device = at(dev);
    return device instanceof WasmDevice ? device.readSync(id, nbytes) : fail("readSync: await read");
  },
  /** @param {number} dev @param {any} bytes */
  load: (dev, bytes) => withBytes(bytes, (data) => at(dev).load(data.slice())),
  /** @param {number} dev @param {any} bytes @returns {Promise<number>} */
  loadAsync: async (dev, bytes) => withBytes(bytes, (data) => at(dev).loadAsync(data.slice())),
};

// These are the device's own: bridge.alloc(device, nbytes) is device.alloc(nbytes).
for (const name of ["alloc", "free", "limits", "read", "run", "stats", "unload", "weight"])
  bridge[name] = (/** @type {number} */ dev, /** @type {unknown[]} */ ...args) => /** @type {any} */ (at(dev))[name](...args);
