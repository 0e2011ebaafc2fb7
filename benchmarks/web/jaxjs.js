// jax-js: everything jitted; one thread is its synchronous path, more its pool of workers. Models from the ONNX files.
import { bytesOf, channelsFirst, permuted } from "./tensors.js";
let jax, np, options;

const plain = () => options.backend === "wasm" && options.threads === 1;
const read = async (array) => (plain() ? array.dataSync() : array.data());
const shaped = ({ data, shape }) => np.array(data).reshape(shape);

function convolution(x, w, window, groups) {
  const pad = [window >> 1, window >> 1];
  return jax.lax.convGeneralDilated(x, w, [1, 1], [pad, pad], { featureGroupCount: groups });
}

/** An operator as a function of its inputs and weights. */
function operator({ kind, window, groups, d }) {
  const { nn } = jax;
  return {
    matmul: (a, b) => np.matmul(a, b),
    conv: (x, w) => convolution(x, w, window, groups),
    chain: (a, b, c, e) => np.tanh(a.mul(b).add(c)).mul(nn.sigmoid(e)),
    softmax: (x) => nn.softmax(x, -1),
    layer_norm: (x, w, b) => nn.standardize(x, -1, { epsilon: 1e-5 }).mul(w).add(b),
    attention: (q, k, v) => np.matmul(nn.softmax(np.matmul(q, np.matrixTranspose(k)).mul(1 / Math.sqrt(d)), -1), v),
    embedding: (ids, table) => table.slice(ids),
  }[kind];
}

const dense = (x, w, b) => np.matmul(x, w).add(b);

/** The models that are trained: (parameters in order, x) -> class scores. */
const NETWORKS = {
  train_mlp: (P, x) => dense(jax.nn.relu(dense(jax.nn.relu(dense(x, P[0], P[1])), P[2], P[3])), P[4], P[5]),
  train_cnn(P, x) {
    const layer = (h, w, b, c) => jax.nn.relu(convolution(h, w, 3, 1).add(b.reshape([1, c, 1, 1])));
    let h = layer(layer(x, P[0], P[1], 32), P[2], P[3], 64);
    h = jax.lax.reduceWindow(h, np.max, [2, 2], [2, 2]).reshape([64, -1]);
    return dense(jax.nn.relu(dense(h, P[4], P[5])), P[6], P[7]);
  },
};

/** A parameter as jax-js has it: channels first, also in the rows that follow a flattening. */
function parameter(name, found) {
  const { data, shape } = found[name];
  if (shape.length === 4) return permuted(found[name], [3, 2, 0, 1]);
  if (shape[0] !== 12544) return found[name];
  return { ...permuted({ data, shape: [196, 64, 128] }, [1, 0, 2]), shape };
}

async function trainer(workload, tensors) {
  const network = NETWORKS[workload.name];
  if (!network) throw new Error(`not offered: jax-js has no gradient for the gather of ${workload.name}`);
  const { jit, valueAndGrad, nn, tree } = jax;
  const found = await tensors();
  const image = found.x0.shape.length === 4;
  const x = shaped(image ? channelsFirst(found.x0) : found.x0);
  const y = nn.oneHot(np.array(found.y.data), 10);
  const loss = (P, x, y) => np.mean(np.sum(y.mul(nn.logSoftmax(network(P, x), -1)), -1)).neg();
  const [beta1, beta2, rate, eps] = [0.9, 0.999, 1e-3, 1e-8];
  const step = jit((P, M, V, t, x, y) => {
    const [value, G] = valueAndGrad(loss)(tree.ref(P), x, y);
    const m = M.map((m, i) => m.mul(beta1).add(G[i].ref.mul(1 - beta1)));
    const v = V.map((v, i) => v.mul(beta2).add(np.square(G[i]).mul(1 - beta2)));
    const next = t.add(1);
    const [c1, c2] = [beta1, beta2].map((beta) => np.subtract(1, np.power(beta, next.ref)));
    const p = P.map((p, i) => p.sub(m[i].ref.div(c1.ref).mul(rate).div(np.sqrt(v[i].ref.div(c2.ref)).add(eps))));
    c1.dispose();
    c2.dispose();
    return [p, m, v, next, value];
  });
  const zeros = (name) => np.zeros(found[name].shape.length === 4 ? parameter(name, found).shape : found[name].shape);
  let P = workload.parameters.map((name) => shaped(parameter(name, found)));
  let [M, V] = [0, 1].map(() => workload.parameters.map(zeros));
  let t = np.array([0]).reshape([]);
  return {
    async read() {
      let value;
      [P, M, V, t, value] = step(P, M, V, t, x.ref, y.ref);
      const values = await read(value);
      if (!plain()) await jax.blockUntilReady([P, M, V]);
      return values;
    },
    dispose() {
      [P, M, V, t].forEach((part) => tree.dispose(part));
      x.dispose();
      y.dispose();
    },
  };
}

export default {
  async init(chosen) {
    options = chosen;
    jax = await import("/bundles/jaxjs.mjs");
    np = jax.numpy;
    await jax.init(options.backend);
    jax.defaultDevice(options.backend);
    return {};
  },
  async prepare(workload, tensors) {
    if (workload.step) return trainer(workload, tensors);
    const found = await tensors();
    const { kind } = workload.spec;
    const first = (name) => (kind === "conv" || kind === "image" ? channelsFirst(found[name]) : found[name]);
    const inputs = workload.inputs.map((name) => shaped(first(name)));
    let call, dispose;
    if (workload.group === "model") {
      const model = new jax.ONNXModel(await bytesOf(`/models/${workload.name}.onnx`));
      const f = jax.jit(model.run);
      call = () => Object.values(f(Object.fromEntries(workload.inputs.map((name, i) => [name, inputs[i].ref]))));
      dispose = () => model.dispose();
    } else {
      const f = operator(workload.spec);
      if (!f) throw new Error(`not offered: jax-js has no ${kind}`);
      const fixed = Object.keys(found).filter((name) => name.startsWith("weight"));
      const jitted = jax.jit(f);
      for (const name of fixed) inputs.push(shaped(kind === "conv" ? permuted(found[name], [3, 2, 0, 1]) : found[name]));
      call = () => [jitted(...inputs.map((x) => x.ref))];
    }
    return {
      async read() {
        const [result, ...others] = call();
        others.forEach((r) => r.dispose());
        return read(result);
      },
      async leave() {
        for (const result of call()) {
          await result.blockUntilReady();
          result.dispose();
        }
      },
      dispose() {
        inputs.forEach((x) => x.dispose());
        dispose?.();
      },
    };
  },
};
