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
function operator({ kind, window, groups, n, d }) {
  const { nn } = jax;
  return {
    matmul: (a, b) => np.matmul(a, b),
    conv: (x, w) => convolution(x, w, window, groups),
    chain: (a, b, c, e) => np.tanh(a.mul(b).add(c)).mul(nn.sigmoid(e)),
    softmax: (x) => nn.softmax(x, -1),
    layer_norm: (x, w, b) => nn.standardize(x, -1, { epsilon: 1e-5 }).mul(w).add(b),
    attention: (q, k, v) => np.matmul(nn.softmax(np.matmul(q, np.matrixTranspose(k)).mul(1 / Math.sqrt(d)), -1), v),
    embedding: (ids, table) => table.slice(ids),
    // the gradient of the embedding, as jax-js derives it
    embedding_gradient: (ids, rows) => jax.grad((table) => np.sum(table.slice(ids).mul(rows)))(np.zeros([n, d])),
  }[kind];
}

const layer = (x, P, name) => np.matmul(x, P[`${name}.weight`]).add(P[`${name}.bias`]);

/** The models that are trained: (parameters by name, inputs) -> class scores. What is used twice is counted: `ref`. */
const NETWORKS = {
  train_mlp: (P, [x]) => layer(jax.nn.relu(layer(jax.nn.relu(layer(x, P, "layers.0")), P, "layers.1")), P, "layers.2"),
  train_cnn(P, [x]) {
    for (const n of [0, 1]) {
      const [w, b] = [P[`convs.${n}.weight`], P[`convs.${n}.bias`]];
      x = jax.nn.relu(convolution(x, w, 3, 1).add(b.reshape([1, -1, 1, 1])));
    }
    x = jax.lax.reduceWindow(x, np.max, [2, 2], [2, 2]).reshape([64, -1]);
    return layer(jax.nn.relu(layer(x, P, "hidden")), P, "out");
  },
  train_encoder(P, [ids, mask]) {
    const [batch, t, d, heads] = [...ids.shape, 256, 4];
    const norm = (x, name) => jax.nn.standardize(x, -1, { epsilon: 1e-12 }).mul(P[`${name}.weight`]).add(P[`${name}.bias`]);
    const split = (x) => x.reshape([batch, t, heads, d / heads]).transpose([0, 2, 1, 3]);
    const bias = mask.astype(np.float32).reshape([batch, 1, 1, t]).sub(1).mul(10000);
    let x = norm(P["encoder.words.weight"].slice(ids).add(P["encoder.positions"]), "encoder.norm");
    for (let n = 0; n < 4; n++) {
      const name = `encoder.layers.${n}`;
      const [q, k, v] = ["query", "key", "value"].map((part) => split(layer(x.ref, P, `${name}.${part}`)));
      const scores = np.matmul(q, np.matrixTranspose(k)).mul(1 / Math.sqrt(d / heads)).add(bias.ref);
      const h = np.matmul(jax.nn.softmax(scores, -1), v).transpose([0, 2, 1, 3]).reshape([batch, t, d]);
      x = norm(x.add(layer(h, P, `${name}.output`)), `${name}.norm1`);
      const grown = jax.nn.gelu(layer(x.ref, P, `${name}.grow`), { approximate: false });
      x = norm(x.add(layer(grown, P, `${name}.shrink`)), `${name}.norm2`);
    }
    bias.dispose();
    return layer(np.mean(x, 1), P, "out");
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
  const names = workload.parameters;
  const { jit, valueAndGrad, nn, tree } = jax;
  const found = await tensors();
  const inputs = workload.inputs.slice(1).map((name) => found[name]);
  const xs = inputs.map((x) => shaped(x.shape.length === 4 ? channelsFirst(x) : x));
  const classes = found[names.at(-1)].shape[0]; // the last parameter is the last layer's bias
  const y = nn.oneHot(np.array(found.y.data), classes);
  const byName = (P) => Object.fromEntries(P.map((p, i) => [names[i], p]));
  const loss = (P, xs, y) => np.mean(np.sum(y.mul(nn.logSoftmax(network(byName(P), xs), -1)), -1)).neg();
  const [beta1, beta2, rate, eps] = [0.9, 0.999, 1e-3, 1e-8];
  const step = jit((P, M, V, t, xs, y) => {
    const [value, G] = valueAndGrad(loss)(tree.ref(P), xs, y);
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
  let P = names.map((name) => shaped(parameter(name, found)));
  let [M, V] = [0, 1].map(() => names.map(zeros));
  let t = np.array([0]).reshape([]);
  return {
    async read() {
      let value;
      [P, M, V, t, value] = step(P, M, V, t, tree.ref(xs), y.ref);
      const values = await read(value);
      if (!plain()) await jax.blockUntilReady([P, M, V]);
      return values;
    },
    dispose() {
      [P, M, V, t, xs, y].forEach((part) => tree.dispose(part));
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
