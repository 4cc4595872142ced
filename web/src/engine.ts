/** This package's own engine: docs/engine.md says what it does, and what the exports named u2e_… are. */
import type { Bundle, ProgressReport } from "./bundle.js";
import { EngineError, line } from "./errors.js";
import { loadFile } from "./loader.js";
import { findModel } from "./manifest.js";
import { HELPER_NAME, type HelperTask } from "./helper.js";
import { checkedMap, type Network, type NetworkOptions, threadCount } from "./network.js";
import { toTensor } from "./pixels.js";

interface Exports {
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

/** An engine with a model in it. */
interface Started { exports: Exports; memory: WebAssembly.Memory; helpers: Worker[] }

const MAX_PAGES = 4096; // of the memory that threads share: 256 MiB, of which the largest of our models needs a fraction
const HELPERS_MS = 3000; // to begin in; those that are late help with later pictures

const STATUS: Record<number, string> = {
  1: "it is no file of this engine", 2: "it is of another version of the format", 3: "it is cut off or too long", 4: "it is damaged",
  5: "it is malformed", 6: "there is not enough memory for it",
};

/** The smallest module with a 128-bit vector in it. */
const SIMD = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11);

const compiled = new Map<boolean, Promise<WebAssembly.Module>>();

/** Once, however many models are run. Throws EngineError where WebAssembly is missing, too old or forbidden. */
function compile(threads: boolean): Promise<WebAssembly.Module> {
  const known = compiled.get(threads);
  if (known) return known;
  const module = compileAnew(threads);
  compiled.set(threads, module);
  module.catch(() => compiled.delete(threads));
  return module;
}

async function compileAnew(threads: boolean): Promise<WebAssembly.Module> {
  if (typeof WebAssembly === "undefined") throw new EngineError("there is no WebAssembly here");
  if (!WebAssembly.validate(SIMD)) throw new EngineError("this browser's WebAssembly has no fixed-width SIMD (128-bit vectors), which the engine needs");
  const { default: deflated } = threads ? await import("../../build/engine/engine-threads.wasm") : await import("../../build/engine/engine.wasm");
  const bytes = await new Response(new Blob([deflated]).stream().pipeThrough(new DecompressionStream("deflate-raw"))).arrayBuffer();
  try {
    return await WebAssembly.compile(bytes);
  } catch (error) {
    throw new EngineError(`the engine cannot be compiled (a content security policy must allow 'wasm-unsafe-eval'): ${line(error)}`, { cause: error });
  }
}

/** Compile what openEngine is likely to need, while the bundle is on its way. What fails here fails there. */
export function prepareEngine({ device, threads }: NetworkOptions): void {
  if (device !== "webgpu") void compile(threadCount(threads).count > 1);
}

/** Throws what the loader throws, or EngineError. */
export async function openEngine({ manifest, load }: Bundle, options: NetworkOptions, report: ProgressReport, notes: string[]): Promise<Network> {
  const file = findModel(manifest, ["int8"], ["u2e"])!;
  report.expect([file]);
  report.report("download");
  const wanted = threadCount(options.threads);
  let { count, reason } = wanted;
  const [first, model] = await Promise.all([compile(count > 1).catch((error: unknown) => error), loadFile(file, load)]);
  report.report("compile");
  const { size } = manifest.input;
  let module = first as WebAssembly.Module;
  const begin = (): Promise<Started> => start(module, model, file.path, size, count);
  let running: Started | undefined;
  try {
    if (!(first instanceof WebAssembly.Module)) throw first;
    running = await begin();
  } catch (error) {
    if (count === 1) throw error;
    [count, reason] = [1, `threads failed: ${line(error)}`];
    module = await compile(false);
    running = await begin();
  }
  const threads = 1 + running.helpers.length;
  if (threads < count) reason = "the workers for more could not be started";
  const stop = (): void => {
    for (const helper of running?.helpers ?? []) helper.terminate();
    running = undefined;
  };
  return {
    info: {
      backend: "engine", precision: "int8", threads, threadsReason: reason, engineVersion: String(running.exports.u2e_version()), model: manifest.model.name, modelVersion: manifest.version, size, notes,
    },
    async run(picture) {
      running ??= await begin();
      const { exports, memory } = running;
      try {
        new Float32Array(memory.buffer, exports.u2e_input(), 3 * size * size).set(toTensor(picture));
        const status = exports.u2e_run();
        if (status) throw new EngineError(status === 8 ? "a thread of the engine did not finish its work" : `the engine failed: status ${status}`);
        return checkedMap(new Float32Array(memory.buffer, exports.u2e_output(), size * size), size);
      } catch (error) {
        stop(); // the next picture gets a fresh one
        throw error instanceof EngineError ? error : new EngineError(`the engine failed: ${line(error)}`, { cause: error });
      }
    },
    async dispose() {
      stop();
    },
  };
}

async function start(module: WebAssembly.Module, model: Uint8Array, path: string, size: number, threads: number): Promise<Started> {
  let [exports, memory]: [Exports?, WebAssembly.Memory?] = [];
  try {
    if (threads > 1) memory = new WebAssembly.Memory({ initial: 32, maximum: MAX_PAGES, shared: true });
    exports = new WebAssembly.Instance(module, { env: { memory: memory! } }).exports as unknown as Exports;
    memory ??= (exports as Exports & { memory: WebAssembly.Memory }).memory;
  } catch (error) {
    throw new EngineError(`the engine cannot be started: ${line(error)}`, { cause: error });
  }
  const place = exports.u2e_reserve(model.length);
  if (!place) throw new EngineError(`${path} cannot be loaded: ${STATUS[6]}`);
  new Uint8Array(memory.buffer, place, model.length).set(model);
  const status = exports.u2e_load(threads);
  if (status) throw new EngineError(`${path} cannot be loaded: ${STATUS[status] ?? `status ${status}`} (record ${exports.u2e_fault_place()})`);
  const shape = [exports.u2e_input_height(), exports.u2e_input_width(), exports.u2e_output_height(), exports.u2e_output_width()];
  if (shape.some((side) => side !== size)) throw new EngineError(`${path} is for ${shape[0]}×${shape[1]} and gives ${shape[2]}×${shape[3]}, not ${size}×${size}`);
  const shared = memory;
  const helpers = await Promise.all(Array.from({ length: threads - 1 }, (_, i) => startHelper({ module, memory: shared, number: i + 1 })));
  return { exports, memory, helpers: helpers.filter((helper) => helper !== undefined) };
}

/** A worker of this worker's own file, which waits for work in the shared memory; undefined where it does not start. */
async function startHelper(task: HelperTask): Promise<Worker | undefined> {
  // Bundlers write this file as a module or not, and nothing tells from the inside.
  return (await startWorker(task, "module")) ?? (await startWorker(task, "classic"));
}

function startWorker(task: HelperTask, type: "module" | "classic"): Promise<Worker | undefined> {
  return new Promise((resolve) => {
    try {
      const worker = new Worker(location.href, { type, name: HELPER_NAME });
      setTimeout(() => resolve(worker), HELPERS_MS);
      worker.onmessage = () => resolve(worker);
      worker.onerror = (event) => {
        event.preventDefault();
        worker.terminate();
        resolve(undefined);
      };
      worker.postMessage(task);
    } catch {
      resolve(undefined); // WebKitGTK lets no worker of a worker have the memory
    }
  });
}
