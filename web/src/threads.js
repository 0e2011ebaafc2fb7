// Workers that share a WebAssembly memory and run entries together with the calling thread.

// Words of the block they talk through.
const SEQ = 0; // counts jobs and letters; workers sleep on it
const MAIL = 1; // number of the last letter posted
const SESSION = 2;
const ENTRY = 3;
const THREADS = 4;
const ARGS = 5;
const JOB = 6; // SEQ of the last job; others are letters
const WORKER = 8; // then two words for each worker: the last SEQ it is done with, and the last letter it has read
const MOST_SPINS = 1e7;

/** Bytes of that block. @param {number} workers */
export const blockSize = (workers) => 4 * (WORKER + 2 * (workers + 1));

/** @type {any} */
const node = /** @type {any} */ (globalThis).process?.getBuiltinModule?.("node:worker_threads");

/** Whether this thread may wait: true in Node and in workers, false on a page's main thread. */
export function mayBlock() {
  try {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 1, 0);
    return true;
  } catch {
    return false;
  }
}

/** How many threads are worth using unless told otherwise. */
export const defaultThreads = () => Math.min(8, globalThis.navigator?.hardwareConcurrency ?? node?.availableParallelism ?? 4);

/** Whether memory can be shared with workers here. */
export const canShare = () =>
  typeof SharedArrayBuffer === "function" && (node ? true : globalThis.crossOriginIsolated === true && typeof Worker === "function");

/**
 * What a worker does; its source text is what the Worker gets, so it must stand alone.
 * A letter is {memory, at, k} first, then {serial, session, module, names} to load or {serial, session} to unload.
 */
function worker() {
  /** @type {any} */
  const scope = globalThis;
  /** @type {Record<number, Function[]>} */
  const sessions = {};
  /** @type {Int32Array} */
  let words;
  /** @type {number} */
  let k;
  /** @type {any} */
  let memory;
  /** @param {any} letter */
  const receive = (letter) => {
    if (letter.memory) {
      ({ memory, k } = letter);
      words = new Int32Array(memory.buffer, letter.at, letter.length);
    } else if (letter.module) {
      const { exports } = new WebAssembly.Instance(letter.module, { env: { memory } });
      sessions[letter.session] = letter.names.map((/** @type {string} */ name) => exports["run_" + name]);
    } else delete sessions[letter.session];
    // SEQ before MAIL: a letter or job that comes after these reads wakes the wait below
    let seen = Atomics.store(words, 8 + 2 * k, Atomics.load(words, 0));
    Atomics.store(words, 9 + 2 * k, letter.serial);
    while (Atomics.load(words, 1) === letter.serial) {
      // the next job often comes at once, and waking takes long
      for (let i = 0; i < 5000 && Atomics.load(words, 0) === seen; i++);
      Atomics.wait(words, 0, seen);
      const next = Atomics.load(words, 0);
      // letters wake, too, and the last job's words still stand then
      if (next !== seen && words[6] === next && k < words[4]) sessions[words[2]][words[3]](words[5], k, words[4]);
      seen = Atomics.store(words, 8 + 2 * k, next);
    }
  };
  if (scope.process?.getBuiltinModule) scope.process.getBuiltinModule("node:worker_threads").parentPort.on("message", receive);
  else scope.onmessage = (/** @type {any} */ event) => receive(event.data);
}

/**
 * Workers 1 … count; nothing waits for one of them before all are ready.
 * @param {WebAssembly.Memory} memory
 * @param {number} at address of the block
 * @param {number} count
 */
export function makePool(memory, at, count) {
  const words = new Int32Array(memory.buffer, at, blockSize(count) / 4);
  words.fill(0);
  const source = `(${worker})()`;
  const url = node ? "" : URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  /** @type {any[]} */
  const workers = [];
  let serial = 0;
  const wake = () => {
    Atomics.add(words, SEQ, 1);
    Atomics.notify(words, SEQ);
  };
  /** Threads there are when all workers have left the last job, which they wake up late to do; 1 if they do not. */
  const left = () => {
    for (let k = 1, spins = 0; k <= workers.length; k++)
      while (Atomics.load(words, WORKER + 2 * k) < words[JOB]) if (++spins > MOST_SPINS) return 1;
    return workers.length + 1;
  };
  /** Send every worker a letter. @param {(k: number) => object} write */
  const post = (write) => {
    left(); // what they use may be given back next
    Atomics.store(words, MAIL, ++serial);
    workers.forEach((worker, i) => worker.postMessage({ ...write(i + 1), serial }));
    wake();
  };
  const stop = () => {
    workers.splice(0).forEach((worker) => worker.terminate());
    if (url) URL.revokeObjectURL(url);
  };
  for (let k = 1; k <= count; k++) {
    const made = node ? new node.Worker(source, { eval: true }) : new Worker(url);
    // a worker that fails is never ready, and then one thread does the work
    if (node) made.on("error", stop).unref();
    else made.onerror = stop;
    workers.push(made);
  }
  post((k) => ({ memory, at, length: words.length, k }));
  return {
    post,
    stop,
    /** Threads that can start a job together now: 1, or all. */
    ready() {
      return workers.every((_, i) => Atomics.load(words, WORKER + 3 + 2 * i) === serial) ? left() : 1;
    },
    /** @param {number} session @param {number} entry @param {number} args @param {number} threads */
    start(session, entry, args, threads) {
      words.set([session, entry, threads, args, words[SEQ] + 1], SESSION);
      wake();
    },
  };
}
