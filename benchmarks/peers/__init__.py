"""The models of the benchmarks for other frameworks: ONNX, TensorFlow (TensorFlow Lite, TensorFlow.js), PyTorch."""
