// Bundle src/ into one file: `node build.mjs` writes it, `node build.mjs --check` fails if it is stale or too large.
import { readFileSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { minify } from "terser";

const TARGET = new URL("../src/nearfield/web/nearfield.js", import.meta.url);
const BUDGET = 12_000;
// Properties that only the runner itself uses get short names. None of them is in a file's JSON, in the interface
// to pages or Python, or a property of the browser.
const INTERNAL = `accept alive args attach blocking blocks callers checked compiled costs discard execute exported forget getSync gone
  groups handles imports instantiated keep kept layouts link missing most note own owned patched pipelines pool poolBytes post ready remember
  report room serial serials sessions stale staging trouble watched words worth`.split(/\s+/);

/** Methods of one line that throw are abstract: every device has its own, and only the type checker reads these. */
const concrete = {
  name: "concrete",
  setup({ onLoad }) {
    onLoad({ filter: /device\.js$/ }, ({ path }) => ({
      contents: readFileSync(path, "utf8").replace(/^  (async )?\w+\(.*\) \{ throw .* \}$/gm, ""),
    }));
  },
};

const { outputFiles } = await build({
  plugins: [concrete],
  entryPoints: [new URL("src/main.js", import.meta.url).pathname],
  bundle: true, minify: true, format: "esm", target: "es2022", charset: "utf8", legalComments: "none", write: false,
});
// esbuild ends an ES module in `export{a as load,…};`. Python evaluates the part before "\nexport"
// as a script, and pages import the whole, so the names become the properties of one object.
const [, body, names] = /^([^]*)export\{([^}]*)\};\s*$/.exec(outputFiles[0].text) ?? [];
const pairs = names.split(",").map((pair) => pair.split(" as "));
const exported = pairs.map(([local, name = local]) => `${name}:${local}`);
// esbuild bundles; terser looks at the whole a few times more and takes off another four percent.
const script = `const nearfield=(()=>{"use strict";${body}return{${exported}}})();`;
const properties = { regex: new RegExp(`^(${INTERNAL.join("|")})$`) };
const { code } = await minify(script, { ecma: 2020, compress: { passes: 4 }, mangle: { properties } });
const text = `${code}\nexport const {${pairs.map(([local, name = local]) => name)}}=nearfield;\n`;
if (!/^const nearfield=\(\(\)=>{.*}\)\(\);\nexport const {.*}=nearfield;\n$/.test(text)) throw new Error("not the form that Python cuts");

const size = gzipSync(text, { level: 9 }).length;
console.log(`nearfield.js: ${text.length} characters, ${size} bytes with gzip -9 (budget ${BUDGET})`);
if (!process.argv.includes("--check")) writeFileSync(TARGET, text);
else if (size > BUDGET) throw new Error("over budget");
else if (readFileSync(TARGET, "utf8") !== text) throw new Error("src/nearfield/web/nearfield.js is stale: run `node build.mjs`");
