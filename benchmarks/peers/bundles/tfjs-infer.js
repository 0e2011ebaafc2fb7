export { loadGraphModel } from "@tensorflow/tfjs-converter";
export { setThreadsCount, setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
export * from "@tensorflow/tfjs-core";
