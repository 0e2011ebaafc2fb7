// ONNX Runtime Web: its processor backend (MLAS, SIMD, threads) or WebGPU. Inputs and outputs are copied in every run.
import { bytesOf, channelsFirst } from "./tensors.js";
const FILES = "/peers/onnxruntime-web/dist/";
let ort, options;

export default {
  async init(chosen) {
    options = chosen;
    ort = await import(`${FILES}ort.${options.backend === "webgpu" ? "webgpu" : "wasm"}.min.mjs`);
    ort.env.wasm.numThreads = options.threads;
    ort.env.wasm.wasmPaths = FILES;
    ort.env.logLevel = "error";
    return { version: ort.env.versions?.web };
  },
  async prepare(workload, tensors) {
    if (workload.step) throw new Error("not offered: ONNX Runtime Web does not train");
    const model = await bytesOf(`/models/${workload.name}.onnx`);
    const session = await ort.InferenceSession.create(model, { executionProviders: [options.backend] });
    const first = ["image", "conv"].includes(workload.spec.kind);
    const found = await tensors();
    const feeds = {};
    for (const name of workload.inputs) {
      const { data, shape } = first ? channelsFirst(found[name]) : found[name];
      feeds[name] = new ort.Tensor(data instanceof Int32Array ? "int32" : "float32", data, shape);
    }
    return {
      async read() {
        const results = await session.run(feeds);
        return results[session.outputNames[0]].data;
      },
      dispose: () => session.release(),
    };
  },
};
