// Every WebAssembly memory that the page makes or gets, so that its size can be told, and every instance.
const memories = new Set();
/** @type {WebAssembly.Instance[]} */
export const instances = [];
const { Memory, Instance } = WebAssembly;
const note = (instance) => {
  instances.push(instance);
  for (const value of Object.values(instance.exports)) if (value instanceof Memory) memories.add(value);
  return instance;
};
WebAssembly.Memory = new Proxy(Memory, {
  construct(target, args) {
    const made = new target(...args);
    memories.add(made);
    return made;
  },
});
WebAssembly.Instance = new Proxy(Instance, { construct: (target, args) => note(new target(...args)) });
for (const name of ["instantiate", "instantiateStreaming"]) {
  const plain = WebAssembly[name].bind(WebAssembly);
  WebAssembly[name] = async (...args) => {
    const result = await plain(...args);
    note(result.instance ?? result);
    return result;
  };
}

/** Bytes of WebAssembly memories and of the JavaScript heap. */
export function memory() {
  let wasm = 0;
  for (const { buffer } of memories) wasm += buffer.byteLength;
  return { wasm_bytes: wasm, heap_bytes: performance.memory?.usedJSHeapSize ?? 0 };
}
