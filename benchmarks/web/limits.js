// What the machine can do in WebAssembly: fused multiply-adds in registers, and copies of memory; on each of the threads.
const WORKER = `
  const sized = (bytes) => (bytes.length < 128 ? [bytes.length, ...bytes] : [(bytes.length & 127) | 128, bytes.length >> 7, ...bytes]);
  // (func (param $count i32) (param $x f32) (local v128 …): b is x in all lanes, and 12 accumulators begin with k, so
  // that none is known to equal another; (loop: each a = relaxed_madd(a, b, b); until count is 0))
  const lanes = 12;
  const b = lanes + 2;
  const body = [1, lanes + 1, 123, 32, 1, 253, 19, 33, b];
  for (let k = 0; k < lanes; k++) body.push(67, ...new Uint8Array(new Float32Array([k]).buffer), 253, 19, 33, k + 2);
  body.push(3, 64);
  for (let k = 2; k < b; k++) body.push(32, k, 32, b, 32, b, 253, 133, 2, 33, k);
  body.push(32, 0, 65, 1, 107, 34, 0, 13, 0, 11, 32, 2);
  for (let k = 3; k < b; k++) body.push(32, k, 253, 228, 1); // the sum is the result: what nobody uses is not computed
  body.push(253, 31, 0, 11);
  const sections = [1, ...sized([1, 96, 2, 127, 125, 1, 125]), 3, ...sized([1, 0]), 7, ...sized([1, 1, 102, 0, 0]), 10, ...sized([1, ...sized(body)])];
  const module = new WebAssembly.Module(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, ...sections]));
  const { f } = new WebAssembly.Instance(module).exports;
  const half = 1 << 25;
  const memory = new Uint8Array(new WebAssembly.Memory({ initial: 1024 }).buffer).fill(1);
  const tasks = {
    fma: [() => f(1e6, 0.5), 1e6 * lanes * 8],
    copy: [() => memory.copyWithin(half, 0, half), 2 * half],
  };
  onmessage = ({ data: [name, ms] }) => {
    const [task, amount] = tasks[name];
    for (let n = 0; n < 5; n++) task();
    let best = 0;
    for (const start = performance.now(); performance.now() - start < ms; ) {
      const began = performance.now();
      task();
      best = Math.max(best, amount / (performance.now() - began));
    }
    postMessage(best * 1e3);
  };
`;

/** Operations or bytes in a second, of all workers together. @param {number} threads @param {string} name @param {number} ms */
export async function measured(threads, name, ms) {
  const url = URL.createObjectURL(new Blob([WORKER], { type: "text/javascript" }));
  const rates = Array.from({ length: threads }, () => {
    const worker = new Worker(url);
    return new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => (worker.terminate(), resolve(data));
      worker.onerror = (event) => reject(new Error(event.message));
      worker.postMessage([name, ms]);
    });
  });
  return (await Promise.all(rates)).reduce((a, b) => a + b);
}
