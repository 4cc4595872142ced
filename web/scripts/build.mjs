// Builds the package (dist/) and, without --package, the demo (demo-dist/) and what pages of the tests load (test-dist/).
// Prints what each weighs as JSON. The package carries the model in model/, where scripts/make_bundle.py has put one. Tests build
// other packages: --model DIR --dist DIR.
import { build } from "esbuild";
import { execFileSync } from "node:child_process";
import { copyFileSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";

import { deflatedWasm, threadsBeside } from "./wasm.mjs";

const { values: settings } = parseArgs({
  options: { package: { type: "boolean" }, model: { type: "string", default: "model" }, dist: { type: "string", default: "dist" } },
});
const { model, dist } = settings;
const root = join(dirname(fileURLToPath(import.meta.url)), "..");
process.chdir(root);
const plain = { bundle: true, format: "esm", minify: true, target: ["es2022"], legalComments: "none", logLevel: "warning", plugins: [deflatedWasm] };
const common = { ...plain, splitting: true };
const gzipBytes = (folder, counts = () => true) => readdirSync(folder).filter((name) => name.endsWith(".js") && counts(name))
  .reduce((sum, name) => sum + gzipSync(readFileSync(join(folder, name)), { level: 9 }).length, 0);

if (!existsSync("../build/engine/engine-threads.wasm")) {
  console.error("build: the engine is not built: run `make engine`");
  process.exit(1);
}
/** The model that the package brings, as its manifest and file. */
const own = existsSync(join(model, "manifest.json")) ? JSON.parse(readFileSync(join(model, "manifest.json"), "utf8")) : undefined;
const ownFile = own?.files.find((file) => file.role === "model" && file.format === "u2e");
const define = ownFile ? { OWN_MANIFEST: JSON.stringify(JSON.stringify({ ...own, files: [ownFile] })) } : {};
if (!ownFile) console.error(`build: no model in ${model}/, so this package brings none`);

const isEngine = (name) => name.startsWith("engine-");
rmSync(dist, { recursive: true, force: true });
const external = ["onnxruntime-web/*", "react", "node:*"];
await build({
  ...common, define, external, outdir: dist, sourcemap: true, plugins: [threadsBeside, deflatedWasm],
  entryPoints: ["index", "worker", "onnxruntime", "react", "element", "node", "cli"].map((name) => `src/${name}.ts`),
});
// One file, but for the engine for several threads: where that does not lie beside it there is one.
await build({ ...plain, define, external, outdir: dist, sourcemap: true, plugins: [threadsBeside, deflatedWasm], entryPoints: ["src/standalone.ts"] });
await build({ ...plain, outfile: join(dist, "engine-threads.js"), entryPoints: ["../build/engine/engine-threads.wasm"] });
if (ownFile) copyFileSync(join(model, ownFile.path), join(dist, "model.u2e"));
execFileSync(process.execPath, [join("node_modules", "typescript", "bin", "tsc"), "-p", "tsconfig.types.json", "--outDir", dist], { stdio: "inherit" });
const sizes = {
  package_gzip_bytes: gzipBytes(dist, (name) => name !== "standalone.js" && !isEngine(name)), engine_gzip_bytes: gzipBytes(dist, (name) => isEngine(name) && name !== "engine-threads.js"),
  standalone_gzip_bytes: gzipBytes(dist, (name) => name === "standalone.js"),
};

if (!settings.package) {
  rmSync("test-dist", { recursive: true, force: true });
  await build({ ...common, outdir: "test-dist", entryPoints: ["test/pages/remover.ts", "test/pages/worker.ts"] });
  const out = "demo-dist";
  rmSync(out, { recursive: true, force: true });
  mkdirSync(out);
  for (const name of readdirSync("demo/static")) cpSync(join("demo/static", name), join(out, name), { recursive: true });
  // One folder for all scripts, so that the workers are found by their relative addresses. They share no file with the page or each
  // other, which would be fetched by both where a host lets nothing be kept.
  const scripts = { ...common, outdir: join(out, "assets"), chunkNames: "[name]-[hash]", metafile: true };
  const page = await build({ ...scripts, entryPoints: { main: "demo/main.ts", remover: "src/index.ts" } }); // remover.js: for pages without a bundler
  const work = await build({ ...scripts, entryPoints: { worker: "demo/worker.ts" } });
  await build({ ...scripts, entryPoints: { repair: "demo/repair/worker.ts" } });
  // What few visits need: ONNX Runtime, and what works on the page where there is no worker.
  const began = new Set([`${out}/assets/main.js`]);
  for (const file of began) for (const { path, kind } of page.metafile.outputs[file].imports) if (kind === "import-statement") began.add(path);
  const later = [...Object.keys(page.metafile.outputs).filter((file) => !began.has(file)), ...Object.keys(work.metafile.outputs).filter((file) => /\/ort\./.test(file))]
    .map((file) => file.slice(out.length + 1));
  // What works offline, what each file must be, and a version that changes with any byte of it. The page itself may be pointed at
  // another bundle by hand.
  const digest = (data) => createHash("sha256").update(data).digest("base64");
  const shell = Object.fromEntries(readdirSync(out, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name).slice(out.length + 1).replaceAll("\\", "/"))
    .filter((file) => file !== "index.html" && file !== "_headers")
    .sort()
    .map((file) => [file, `sha256-${digest(readFileSync(join(out, file)))}`]));
  const version = digest(JSON.stringify(shell) + readFileSync(join(out, "index.html"))).slice(0, 16);
  await build({
    ...plain, format: "iife", outfile: join(out, "sw.js"), entryPoints: ["demo/sw.ts"],
    define: { SHELL: JSON.stringify(shell), LATER: JSON.stringify(later), VERSION: JSON.stringify(version) },
  });
  sizes.demo_gzip_bytes = gzipBytes(join(out, "assets"));
}
writeFileSync(join(dist, ".built"), "");
console.log(JSON.stringify(sizes));
