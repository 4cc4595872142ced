// Bundles test/*.test.ts and runs them with Node's own test runner.
import { build } from "esbuild";
import { spawnSync } from "node:child_process";
import { readdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { deflatedWasm } from "./wasm.mjs";

process.chdir(join(dirname(fileURLToPath(import.meta.url)), ".."));
rmSync(".test", { recursive: true, force: true });
const entryPoints = readdirSync("test").filter((name) => name.endsWith(".test.ts")).map((name) => join("test", name));
await build({ entryPoints, outdir: ".test", bundle: true, format: "esm", platform: "node", target: "es2022", outExtension: { ".js": ".mjs" }, logLevel: "warning", plugins: [deflatedWasm] });
const files = readdirSync(".test").map((name) => join(".test", name));
process.exit(spawnSync(process.execPath, ["--test", ...files], { stdio: "inherit" }).status ?? 1);
