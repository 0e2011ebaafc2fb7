export * from "@jax-js/jax";
export { ONNXModel } from "@jax-js/onnx";
