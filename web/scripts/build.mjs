// Builds the package (dist/) and, without --package, the demo (demo-dist/). Prints what each weighs as JSON.
import { build } from "esbuild";
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
process.chdir(root);
const common = {
  bundle: true, format: "esm", splitting: true, minify: true, target: ["es2022"], legalComments: "none", logLevel: "warning",
};
const gzipBytes = (folder) => readdirSync(folder).filter((name) => name.endsWith(".js"))
  .reduce((sum, name) => sum + gzipSync(readFileSync(join(folder, name)), { level: 9 }).length, 0);

rmSync("dist", { recursive: true, force: true });
await build({ ...common, entryPoints: ["src/index.ts", "src/worker.ts"], outdir: "dist", external: ["onnxruntime-web/*"] });
execFileSync(process.execPath, [join("node_modules", "typescript", "bin", "tsc"), "-p", "tsconfig.types.json"], { stdio: "inherit" });
const sizes = { package_gzip_bytes: gzipBytes("dist") };

if (!process.argv.includes("--package")) {
  const out = "demo-dist";
  rmSync(out, { recursive: true, force: true });
  mkdirSync(out);
  for (const name of readdirSync("demo/static")) cpSync(join("demo/static", name), join(out, name), { recursive: true });
  // One folder for all scripts, so that the worker and the engine find each other by relative addresses.
  await build({
    ...common, outdir: join(out, "assets"), chunkNames: "[name]-[hash]",
    entryPoints: { main: "demo/main.ts", remover: "src/index.ts", worker: "src/worker.ts" }, // remover.js: for pages without a bundler
  });
  // The list of what works offline, and a version that changes with any byte of it.
  const files = readdirSync(out, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name).slice(out.length + 1).replaceAll("\\", "/"))
    .sort();
  const version = createHash("sha256");
  for (const file of files) version.update(file).update(readFileSync(join(out, file)));
  await build({
    ...common, splitting: false, format: "iife", outfile: join(out, "sw.js"), entryPoints: ["demo/sw.ts"],
    define: { SHELL: JSON.stringify(["./", ...files.filter((file) => file !== "index.html")]), VERSION: JSON.stringify(version.digest("hex").slice(0, 16)) },
  });
  sizes.demo_gzip_bytes = gzipBytes(join(out, "assets"));
}
writeFileSync("dist/.built", "");
console.log(JSON.stringify(sizes));
