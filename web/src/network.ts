/**
 * The network: this package's own engine first, ONNX Runtime Web where that was asked for or is the only one that can. Which
 * one runs is said, and why others do not; one that gets the self-test picture wrong is not used.
 */
import type { Bundle, ProgressReport } from "./bundle.js";
import { EngineError, line, ManifestError, RemoverError } from "./errors.js";
import { openEngine } from "./engine.js";
import { findModel, type Manifest, type ManifestFile, type Precision, type Provider } from "./manifest.js";
import { PICTURE_VERSION, selfTestDifference, selfTestPicture } from "./selftest.js";

export type Backend = "engine" | "onnxruntime-wasm" | "onnxruntime-webgpu";

export interface NetworkInfo {
  /** What really runs: this package's own engine, or ONNX Runtime Web on one of its backends. */
  backend: Backend;
  precision: Precision;
  threads: number;
  /** Why there is one thread, where there is. */
  threadsReason?: string;
  /** Why WebGPU does not run, where it does not. */
  webgpuReason?: string;
  /** Why this package's own engine does not run, where it does not. */
  engineReason?: string;
  /** Mean absolute difference on the self-test picture, where the bundle has its answer. */
  selfTestDifference?: number;
  engineVersion: string;
  model: string;
  modelVersion: string;
  /** Side of the square that the model sees. */
  size: number;
  /** What was mended while loading. */
  notes: string[];
}

export interface Network {
  readonly info: NetworkInfo;
  /** The map, float32 (size, size) in [0, 1], of a resized picture, float32 (size, size, 3) in [0, 255]. */
  run(picture: Float32Array): Promise<Float32Array<ArrayBuffer>>;
  dispose(): Promise<void>;
}

export interface NetworkOptions {
  device: "auto" | "wasm" | "webgpu";
  threads?: number;
  wasmPaths?: string;
}

type Open = (bundle: Bundle, options: NetworkOptions, report: ProgressReport, notes: string[]) => Promise<Network>;
type OpenOnnx = (provider: Provider, ...rest: Parameters<Open>) => Promise<Network>;

let openOnnx: OpenOnnx | undefined;

/** onnxruntime.ts puts itself here; it is not imported from here, so that nobody needs ONNX Runtime who does not use it. */
export function registerOnnxRuntime(open: OpenOnnx): void {
  openOnnx = open;
}

const MISSING = "ONNX Runtime Web is not part of this build: import \"u2net-remover/onnxruntime\" where the work is done";

/** Throws what the loader throws, ManifestError where no backend has a model, EngineError where none starts. */
export async function openNetwork(bundle: Bundle, options: NetworkOptions, report: ProgressReport): Promise<Network> {
  const { manifest } = bundle;
  const notes: string[] = [];
  const load = { ...bundle.load, onNote: (note: string) => void notes.push(note) };
  const start = (open: Open): Promise<Network> => open({ manifest, load }, options, report, notes);
  /** The network, or why there is none. Altered bytes are an alarm, not a reason to try something else quietly. */
  const attempt = async (name: string, open: Open): Promise<Network | string> => {
    let network: Network | undefined;
    try {
      network = await start(open);
      const test = manifest.self_test;
      if (test?.picture === PICTURE_VERSION) {
        const { info } = network;
        info.selfTestDifference = selfTestDifference(await network.run(selfTestPicture(info.size)), info.size, test);
        if (!(info.selfTestDifference <= test.tolerance)) {
          throw new EngineError(`its mask of the self-test differs by ${info.selfTestDifference.toFixed(3)}, over ${test.tolerance}`);
        }
      }
      return network;
    } catch (error) {
      await network?.dispose();
      load.signal?.throwIfAborted();
      if (error instanceof RemoverError && ["integrity", "download"].includes(error.code)) throw error;
      return `${name} failed: ${line(error)}`;
    }
  };

  let webgpuReason = `webgpu was not asked for`;
  if (options.device === "webgpu") {
    const obstacle = await webgpuObstacle(manifest);
    const found = obstacle ?? await attempt("webgpu", (...all) => openOnnx!("webgpu", ...all));
    if (typeof found !== "string") return found;
    webgpuReason = found;
  }
  let engineReason = "the bundle has no model for it";
  if (findModel(manifest, ["int8"], ["u2e"])) {
    const found = await attempt("the engine", openEngine);
    if (typeof found !== "string") return Object.assign(found, { info: { ...found.info, webgpuReason } });
    engineReason = found;
  }
  if (!findModel(manifest, WASM_PRECISIONS, ["onnx", "ort"])) {
    if (findModel(manifest, ["int8"], ["u2e"])) throw new EngineError(engineReason);
    throw new ManifestError("the bundle has no model for wasm");
  }
  if (!openOnnx) throw new EngineError(`${engineReason}, and ${MISSING}`);
  const network = await start((...all) => openOnnx!("wasm", ...all));
  return Object.assign(network, { info: { ...network.info, webgpuReason, engineReason } });
}

/** int8 is smallest and fastest in WebAssembly; fp16 is computed as float32. On WebGPU int8 would fall back to the processor. */
export const WASM_PRECISIONS: readonly Precision[] = ["int8", "fp32", "fp16"];
export const WEBGPU_PRECISIONS: readonly Precision[] = ["fp16", "fp32"];

/** The model that `device` tries first. Throws ManifestError where the bundle has none for it. */
export function chooseModel(manifest: Manifest, device: NetworkOptions["device"]): ManifestFile {
  const found = (device === "webgpu" ? findModel(manifest, WEBGPU_PRECISIONS, ["onnx", "ort"]) : undefined)
    ?? findModel(manifest, ["int8"], ["u2e"]) ?? findModel(manifest, WASM_PRECISIONS, ["onnx", "ort"]);
  if (!found) throw new ManifestError(`the bundle has no model for ${device}`);
  return found;
}

/** Why WebGPU is not even tried. */
async function webgpuObstacle(manifest: Manifest): Promise<string | undefined> {
  const gpu = (globalThis.navigator as any)?.gpu;
  if (!gpu) return "this browser has no WebGPU here";
  if (!openOnnx) return MISSING;
  if (!findModel(manifest, WEBGPU_PRECISIONS, ["onnx", "ort"])) return "the bundle has no fp16 or fp32 model";
  if (!manifest.self_test) return "the bundle has no self-test";
  if (manifest.self_test.picture !== PICTURE_VERSION) return "the bundle's self-test is of another version";
  try {
    return (await gpu.requestAdapter()) ? undefined : "this device has no WebGPU adapter";
  } catch (error) {
    return `WebGPU cannot be used: ${line(error)}`;
  }
}

/** As many values as the map has, each a number. */
export function checkedMap(data: ArrayLike<number>, size: number, scale = 1): Float32Array<ArrayBuffer> {
  if (data.length !== size * size) throw new EngineError(`the model gave ${data.length} values, not ${size}×${size}`);
  const map = new Float32Array(data.length);
  for (let i = 0; i < map.length; i++) {
    const value = data[i] * scale;
    if (!(value > -Infinity && value < Infinity)) throw new EngineError("the model gave values that are not numbers");
    map[i] = Math.min(Math.max(value, 0), 1);
  }
  return map;
}

const MAX_THREADS = 4; // more gain nothing at 320×320

export function threadCount(asked: number | undefined): { count: number; reason?: string } {
  if (asked === 1) return { count: 1, reason: "one thread was asked for" };
  if (!("WorkerGlobalScope" in globalThis)) return { count: 1, reason: "threads are for work that is done in a worker" };
  if (!globalThis.crossOriginIsolated) {
    const reason = "the page is not cross-origin isolated (it needs the headers Cross-Origin-Opener-Policy: same-origin "
      + "and Cross-Origin-Embedder-Policy: require-corp), so threads are not available";
    return { count: 1, reason };
  }
  const cores = globalThis.navigator?.hardwareConcurrency ?? 1;
  // The page needs a core of its own where there are enough; with two, the second halves the time of float models.
  const count = asked ?? Math.min(MAX_THREADS, cores > 2 ? cores - 1 : cores);
  return count > 1 ? { count } : { count: 1, reason: "this device has one core" };
}
