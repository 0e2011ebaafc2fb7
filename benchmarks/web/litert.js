// LiteRT.js: TensorFlow Lite with XNNPACK, or WebGPU. Inputs and outputs stay in its memory.
import { bytesOf } from "./tensors.js";
let litert, options;

export default {
  async init(chosen) {
    options = chosen;
    litert = await import("/bundles/litert.mjs");
    const gpu = options.backend === "webgpu" ? { jspi: true } : {};
    await litert.loadLiteRt("/peers/@litertjs/core/wasm/", { threads: options.threads > 1, ...gpu });
    return {};
  },
  async prepare(workload, tensors) {
    if (workload.step) throw new Error("not offered: LiteRT.js does not train");
    const settings = { accelerator: options.backend, cpuOptions: { numThreads: options.threads } };
    const model = await litert.loadAndCompile(await bytesOf(`/models/${workload.name}.tflite`), settings);
    const found = await tensors();
    // an input's name contains the one that it was given, behind which nothing or a colon follows
    let feeds = model.getInputDetails().map(({ name }) => {
      const wanted = workload.inputs.find((input) => new RegExp(`(^|_)${input}(:|$)`).test(name));
      if (!wanted) throw new Error(`LiteRT.js: no input for ${name}`);
      return new litert.Tensor(found[wanted].data, found[wanted].shape);
    });
    if (options.backend === "webgpu") feeds = await Promise.all(feeds.map((feed) => feed.moveTo("webgpu")));
    const count = (tensor) => Array.from(tensor.type.layout.dimensions).reduce((a, b) => a * b, 1);
    return {
      async read() {
        const results = await model.run(feeds);
        const result = results.length > 1 ? results.find((r) => count(r) === workload.outputs) : results[0];
        const values = await result.data();
        results.forEach((r) => r.delete());
        return values;
      },
      async leave() {
        (await model.run(feeds)).forEach((r) => r.delete());
      },
      dispose() {
        feeds.forEach((feed) => feed.delete());
        model.delete();
      },
    };
  },
};
