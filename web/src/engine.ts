/** This package's own engine: docs/engine.md says what it does, and what the exports named u2e_… are. */
import type { Bundle, ProgressReport } from "./bundle.js";
import { EngineError, line } from "./errors.js";
import { loadFile } from "./loader.js";
import { findModel } from "./manifest.js";
import { checkedMap, type Network, type NetworkOptions } from "./network.js";
import { toTensor } from "./pixels.js";

interface Exports {
  memory: WebAssembly.Memory;
  u2e_version(): number;
  u2e_reserve(bytes: number): number;
  u2e_load(threads: number): number;
  u2e_fault_place(): number;
  u2e_input(): number;
  u2e_input_height(): number;
  u2e_input_width(): number;
  u2e_run(): number;
  u2e_output(): number;
  u2e_output_height(): number;
  u2e_output_width(): number;
}

const STATUS: Record<number, string> = {
  1: "it is no file of this engine", 2: "it is of another version of the format", 3: "it is cut off or too long", 4: "it is damaged",
  5: "it is malformed", 6: "there is not enough memory for it",
};

/** The smallest module with a 128-bit vector in it. */
const SIMD = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11);

let compiled: Promise<WebAssembly.Module> | undefined;

/** Once, however many models are run. Throws EngineError where WebAssembly is missing, too old or forbidden. */
async function compile(): Promise<WebAssembly.Module> {
  if (typeof WebAssembly === "undefined") throw new EngineError("there is no WebAssembly here");
  if (!WebAssembly.validate(SIMD)) throw new EngineError("this browser's WebAssembly has no fixed-width SIMD (128-bit vectors), which the engine needs");
  const { default: bytes } = await import("../../build/engine/engine.wasm");
  try {
    return await WebAssembly.compile(bytes);
  } catch (error) {
    throw new EngineError(`the engine cannot be compiled (a content security policy must allow 'wasm-unsafe-eval'): ${line(error)}`, { cause: error });
  }
}

/** Throws what the loader throws, or EngineError. */
export async function openEngine({ manifest, load }: Bundle, _: NetworkOptions, report: ProgressReport, notes: string[]): Promise<Network> {
  const file = findModel(manifest, ["int8"], ["u2e"])!;
  report.expect([file]);
  report.report("download");
  compiled ??= compile().catch((error) => {
    compiled = undefined;
    throw error;
  });
  const [module, model] = await Promise.all([compiled, loadFile(file, load)]);
  report.report("compile");
  const { size } = manifest.input;
  let engine: Exports | undefined = start(module, model, file.path, size);
  const version = engine.u2e_version();
  return {
    info: {
      backend: "engine", precision: "int8", threads: 1, threadsReason: "the engine runs on one", engineVersion: String(version),
      model: manifest.model.name, modelVersion: manifest.version, size, notes,
    },
    async run(picture) {
      engine ??= start(module, model, file.path, size);
      try {
        new Float32Array(engine.memory.buffer, engine.u2e_input(), 3 * size * size).set(toTensor(picture));
        const status = engine.u2e_run();
        if (status) throw new EngineError(`status ${status}`);
        return checkedMap(new Float32Array(engine.memory.buffer, engine.u2e_output(), size * size), size);
      } catch (error) {
        engine = undefined; // the next picture gets a fresh one
        throw error instanceof EngineError ? error : new EngineError(`the engine failed: ${line(error)}`, { cause: error });
      }
    },
    async dispose() {
      engine = undefined;
    },
  };
}

/** An engine with a model in it. */
function start(module: WebAssembly.Module, model: Uint8Array, path: string, size: number): Exports {
  let engine: Exports;
  try {
    engine = new WebAssembly.Instance(module).exports as unknown as Exports;
  } catch (error) {
    throw new EngineError(`the engine cannot be started: ${line(error)}`, { cause: error });
  }
  const place = engine.u2e_reserve(model.length);
  if (!place) throw new EngineError(`${path} cannot be loaded: ${STATUS[6]}`);
  new Uint8Array(engine.memory.buffer, place, model.length).set(model);
  const status = engine.u2e_load(1);
  if (status) throw new EngineError(`${path} cannot be loaded: ${STATUS[status] ?? `status ${status}`} (record ${engine.u2e_fault_place()})`);
  const shape = [engine.u2e_input_height(), engine.u2e_input_width(), engine.u2e_output_height(), engine.u2e_output_width()];
  if (shape.some((side) => side !== size)) throw new EngineError(`${path} is for ${shape[0]}×${shape[1]} and gives ${shape[2]}×${shape[3]}, not ${size}×${size}`);
  return engine;
}
