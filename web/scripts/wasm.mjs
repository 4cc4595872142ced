// An esbuild plugin: a .wasm file becomes a module that exports its bytes, deflated (raw), in base64.
import { readFileSync } from "node:fs";
import { deflateRawSync } from "node:zlib";

export const deflatedWasm = {
  name: "deflated-wasm",
  setup({ onLoad }) {
    onLoad({ filter: /\.wasm$/ }, ({ path }) => ({ contents: deflateRawSync(readFileSync(path), { level: 9 }), loader: "binary" }));
  },
};

/** The engine for several threads is not taken in: it is the file engine-threads.js, beside. */
export const threadsBeside = {
  name: "threads-beside",
  setup({ onResolve }) {
    onResolve({ filter: /engine-threads\.wasm$/ }, () => ({ path: "./engine-threads.js", external: true }));
  },
};
