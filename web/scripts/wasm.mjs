// Esbuild plugins for the engine's .wasm files.
import { readFileSync } from "node:fs";
import { deflateRawSync } from "node:zlib";

/**
 * A .wasm file becomes a module that exports its bytes, deflated (raw), in base64. Esbuild's own loader for bytes would make
 * it a CommonJS module where there is one file for all, and then define a property for each byte of it when it is imported.
 */
export const deflatedWasm = {
  name: "deflated-wasm",
  setup({ onLoad }) {
    onLoad({ filter: /\.wasm$/ }, ({ path }) => {
      const text = JSON.stringify(deflateRawSync(readFileSync(path), { level: 9 }).toString("base64"));
      return {
        contents: `const text = ${text};
          export default Uint8Array.fromBase64?.(text) ?? Uint8Array.from(atob(text), (character) => character.charCodeAt(0));`,
        loader: "js",
      };
    });
  },
};

/** The engine for several threads is not taken in: it is the file engine-threads.js, beside. */
export const threadsBeside = {
  name: "threads-beside",
  setup({ onResolve }) {
    onResolve({ filter: /engine-threads\.wasm$/ }, () => ({ path: "./engine-threads.js", external: true }));
  },
};
