// Runs what Python asks for: a line of JSON in, a line of JSON out. See tests/node_runner.py.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { decode, load, openDevice } from "../../src/nearfield/web/nearfield.js";

// one device for each number of threads, with all its workers ready
const devices = new Map();
async function deviceOf(threads) {
  if (!devices.has(threads)) devices.set(threads, await openDevice("wasm", { threads }));
  const device = devices.get(threads);
  for (let i = 0; device.threads !== threads; i++) {
    if (i > 500) throw new Error(`${device.threads} of ${threads} threads are ready after 5 s`);
    await new Promise((done) => setTimeout(done, 10));
  }
  return device;
}

const bytes = (text) => new Uint8Array(Buffer.from(text, "base64"));
const text = (data) => Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("base64");

/** A Program's entry "main", `times` in a row on the same inputs; the last results. */
async function program({ file, inputs, weights, results, threads, times }) {
  const device = await deviceOf(threads);
  const data = bytes(file);
  const session = device.load(data);
  await deviceOf(threads); // the workers have it, too
  for (const [name, values] of Object.entries(weights)) device.write(device.weight(session, name), bytes(values));
  const entry = decode(data).entries.findIndex(({ name }) => name === "main");
  let found = [];
  for (let i = 0; i < times; i++) {
    const given = inputs.map(bytes).map((values) => {
      const memory = device.alloc(values.length);
      device.write(memory, values);
      return memory;
    });
    const made = device.run(session, entry, given);
    found = results.map(([kind, at, n]) => text(device.readSync((kind === "output" ? made : given)[at], n)));
    new Set([...given, ...made]).forEach((memory) => device.free(memory));
  }
  device.unload(session);
  const { bytes: left } = device.stats();
  return { found, left };
}

/** A model directory's outputs for the inputs. */
async function model({ url, inputs, threads }) {
  const fetch = async (at) => new Response(readFileSync(new URL(at)));
  const loaded = await load(url, { device: "wasm", threads, fetch });
  const types = { float32: Float32Array, int32: Int32Array };
  const given = Object.fromEntries(
    loaded.inputs.map(({ name, dtype }) => [name, new types[dtype](bytes(inputs[name]).buffer)]),
  );
  const found = await loaded.run(given);
  loaded.close();
  return { found: loaded.outputs.map(({ name }) => text(found[name].data ?? found[name])) };
}

const features = (await openDevice("wasm", { threads: 1 })).features;
console.log(JSON.stringify({ features }));
for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  try {
    console.log(JSON.stringify(await (request.file ? program : model)(request)));
  } catch (error) {
    console.log(JSON.stringify({ error: `${error.name}: ${error.message}` }));
  }
}
process.exit(0);
