// TensorFlow.js: graph models, operators one by one, and training; its wasm backend (XNNPACK) or WebGPU.
import { permuted } from "./tensors.js";
let tf, options;

const shaped = ({ data, shape }) => tf.tensor(data, shape, data instanceof Int32Array ? "int32" : "float32");

/** An operator as a function of its inputs; w are its weights, channels last. */
function operator({ kind, groups, n, d }, w) {
  return {
    matmul: (a, b) => tf.matMul(a, b ?? w[0]),
    conv: groups === 1 ? (x) => tf.conv2d(x, w[0], 1, "same") : (x) => tf.depthwiseConv2d(x, w[0], 1, "same"),
    chain: (a, b, c, e) => tf.mul(tf.tanh(tf.add(tf.mul(a, b), c)), tf.sigmoid(e)),
    softmax: (x) => tf.softmax(x),
    layer_norm: (x) => normalised(x, w[0], w[1], 1e-5),
    attention: (q, k, v) => tf.matMul(tf.softmax(tf.mul(tf.matMul(q, k, false, true), 1 / Math.sqrt(d))), v),
    embedding: (ids) => tf.gather(w[0], ids),
    embedding_gradient: (ids, rows) => tf.scatterND(tf.expandDims(ids, 1), rows, [n, d]),
  }[kind];
}

function normalised(x, weight, bias, eps) {
  const mean = tf.mean(x, -1, true);
  const centred = tf.sub(x, mean);
  const variance = tf.mean(tf.square(centred), -1, true);
  return tf.add(tf.mul(tf.mul(centred, tf.rsqrt(tf.add(variance, eps))), weight), bias);
}

const dense = (x, P, name) => tf.add(tf.matMul(x, P[`${name}.weight`]), P[`${name}.bias`]);

/** The models that are trained: (parameters by name, inputs) -> class scores. */
const NETWORKS = {
  train_mlp: (P, [x]) => dense(tf.relu(dense(tf.relu(dense(x, P, "layers.0")), P, "layers.1")), P, "layers.2"),
  train_cnn(P, [x]) {
    for (const n of [0, 1]) x = tf.relu(tf.add(tf.conv2d(x, P[`convs.${n}.weight`], 1, "same"), P[`convs.${n}.bias`]));
    x = tf.reshape(tf.maxPool(x, 2, 2, "valid"), [x.shape[0], -1]);
    return dense(tf.relu(dense(x, P, "hidden")), P, "out");
  },
  train_encoder(P, [ids, mask]) {
    const [batch, t] = ids.shape;
    const d = P["encoder.words.weight"].shape[1];
    const heads = 4;
    const norm = (x, name) => normalised(x, P[`${name}.weight`], P[`${name}.bias`], 1e-12);
    const flat = (x, name) => dense(x, P, name); // [batch · t, …]
    const split = (x) => tf.transpose(tf.reshape(x, [batch, t, heads, d / heads]), [0, 2, 1, 3]);
    const bias = tf.mul(tf.sub(1, tf.reshape(tf.cast(mask, "float32"), [batch, 1, 1, t])), -10000);
    let x = tf.reshape(tf.add(tf.gather(P["encoder.words.weight"], ids), P["encoder.positions"]), [batch * t, d]);
    x = norm(x, "encoder.norm");
    for (let n = 0; n < 4; n++) {
      const layer = `encoder.layers.${n}`;
      const [q, k, v] = ["query", "key", "value"].map((part) => split(flat(x, `${layer}.${part}`)));
      const weights = tf.softmax(tf.add(tf.mul(tf.matMul(q, k, false, true), 1 / Math.sqrt(d / heads)), bias));
      const h = tf.reshape(tf.transpose(tf.matMul(weights, v), [0, 2, 1, 3]), [batch * t, d]);
      x = norm(tf.add(x, flat(h, `${layer}.output`)), `${layer}.norm1`);
      const g = flat(x, `${layer}.grow`);
      const gelu = tf.mul(tf.mul(g, 0.5), tf.add(tf.erf(tf.mul(g, Math.SQRT1_2)), 1));
      x = norm(tf.add(x, flat(gelu, `${layer}.shrink`)), `${layer}.norm2`);
    }
    return dense(tf.mean(tf.reshape(x, [batch, t, d]), 1), P, "out");
  },
};

/** The loss of a step of Adam, and the step. */
async function trainer(workload, tensors) {
  const found = await tensors();
  const [labels, ...inputs] = workload.inputs.map((name) => shaped(found[name]));
  const P = {};
  for (const name of workload.parameters) P[name] = tf.variable(shaped(found[name]));
  const variables = Object.values(P);
  const classes = P["out.bias"]?.shape[0] ?? P["layers.2.bias"].shape[0];
  const target = tf.cast(tf.oneHot(labels, classes), "float32");
  const network = NETWORKS[workload.name];
  const loss = () => tf.neg(tf.mean(tf.sum(tf.mul(target, tf.logSoftmax(network(P, inputs))), -1)));
  const optimizer = tf.train.adam(1e-3, 0.9, 0.999, 1e-8);
  return {
    async read() {
      const result = optimizer.minimize(loss, true, variables);
      const values = options.backend === "wasm" ? result.dataSync() : await result.data();
      if (options.backend !== "wasm") await variables[0].data(); // the new parameters are part of the step
      result.dispose();
      return values;
    },
    dispose() {
      optimizer.dispose();
      [...variables, ...inputs, labels, target].forEach((tensor) => tensor.dispose());
    },
  };
}

export default {
  async init(chosen) {
    options = chosen;
    const bundle = options.backend === "webgpu" ? "webgpu" : options.first ? "infer" : "train";
    tf = await import(`/bundles/tfjs-${bundle}.mjs`);
    if (options.backend === "wasm") {
      tf.setWasmPaths("/peers/@tensorflow/tfjs-backend-wasm/dist/");
      tf.setThreadsCount(options.threads);
      tf.env().set("WASM_HAS_MULTITHREAD_SUPPORT", options.threads > 1);
    }
    await tf.setBackend(options.backend);
    await tf.ready();
    return { version: tf.version_core };
  },
  async prepare(workload, tensors) {
    if (workload.step) return trainer(workload, tensors);
    const found = await tensors();
    const inputs = workload.inputs.map((name) => shaped(found[name]));
    const wasm = options.backend === "wasm";
    let run, model;
    let kept = [];
    if (workload.group === "model") {
      model = await tf.loadGraphModel(`/models/${workload.name}.tfjs/model.json`);
      const feeds = Object.fromEntries(workload.inputs.map((name, i) => [name, inputs[i]]));
      run = () => [model.execute(feeds)].flat();
    } else {
      const { groups = 1 } = workload.spec;
      const fixed = Object.keys(found).filter((name) => name.startsWith("weight"));
      kept = fixed.map((name) => shaped(groups > 1 ? permuted(found[name], [0, 1, 3, 2]) : found[name]));
      const f = operator(workload.spec, kept);
      run = () => [tf.tidy(() => f(...inputs))];
    }
    const chosen = (results) => (results.length > 1 ? results.find((r) => r.size === workload.outputs) : results[0]);
    return {
      async read() {
        const results = run();
        const values = wasm ? chosen(results).dataSync() : await chosen(results).data();
        results.forEach((r) => r.dispose());
        return values;
      },
      // kernels of the wasm backend are done when the call returns
      leave: wasm ? async () => run().forEach((r) => r.dispose()) : undefined,
      dispose() {
        model?.dispose();
        [...inputs, ...kept].forEach((tensor) => tensor.dispose());
      },
    };
  },
};
