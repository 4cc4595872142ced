/**
 * The network: ONNX Runtime Web on WebGPU where that is there and right, on WebAssembly otherwise, and it says which.
 */
import type { Env, InferenceSession, Tensor } from "onnxruntime-web";

import { EngineError, ManifestError, RemoverError } from "./errors.js";
import { type LoadOptions, loadFile } from "./loader.js";
import {
  findEngine, findModel, type Manifest, type ManifestFile, type Precision, type Provider,
} from "./manifest.js";
import { toImage, toTensor } from "./pixels.js";
import { PICTURE_VERSION, selfTestDifference, selfTestPicture } from "./selftest.js";

interface Ort { env: Env; InferenceSession: typeof InferenceSession; Tensor: typeof Tensor }

const PRECISIONS: Record<Provider, readonly Precision[]> = {
  wasm: ["int8", "fp32", "fp16"], // int8 is smallest and fastest there; fp16 is computed as float32
  webgpu: ["fp16", "fp32"], // int8 operators would fall back to the processor
};
const MAX_THREADS = 4; // more gain nothing at 320×320

export interface EngineInfo {
  /** What really runs. */
  backend: Provider;
  precision: Precision;
  threads: number;
  /** Why there is one thread, where there is. */
  threadsReason?: string;
  /** Why WebGPU does not run, where it does not. */
  webgpuReason?: string;
  /** Mean absolute difference on the self-test picture, where it was asked. */
  selfTestDifference?: number;
  engineVersion: string;
  model: string;
  modelVersion: string;
  size: number;
  /** What was mended while loading. */
  notes: string[];
}

export interface EngineOptions {
  device: "auto" | Provider;
  threads?: number;
  wasmPaths?: string;
  onPhase: (phase: "download" | "compile", expected: ManifestFile[]) => void;
}

export class Engine {
  private constructor(
    readonly info: EngineInfo,
    readonly interface_: "tensor" | "image",
    private readonly ort: Ort,
    private readonly session: InferenceSession,
    private readonly names: { input: string; output: string },
  ) {}

  /** Try WebGPU where it may be had, then WebAssembly. Throws what the loader throws, or EngineError. */
  static async create(manifest: Manifest, load: LoadOptions, options: EngineOptions): Promise<Engine> {
    const notes: string[] = [];
    const loading = { ...load, onNote: (note: string) => notes.push(note) };
    let webgpuReason: string | undefined;
    if (options.device !== "wasm") {
      webgpuReason = await webgpuObstacle(manifest, options.device);
      if (!webgpuReason) {
        try {
          const engine = await Engine.#start("webgpu", manifest, loading, options, notes);
          webgpuReason = await engine.#distrust(manifest);
          if (!webgpuReason) return engine;
          await engine.dispose();
        } catch (error) {
          load.signal?.throwIfAborted();
          // Altered bytes are an alarm, not a reason to try something else quietly.
          if (error instanceof RemoverError && error.code === "integrity") throw error;
          webgpuReason = `webgpu failed: ${line(error)}`;
        }
      }
    } else {
      webgpuReason = "wasm was asked for";
    }
    const engine = await Engine.#start("wasm", manifest, loading, options, notes);
    engine.info.webgpuReason = webgpuReason;
    return engine;
  }

  static async #start(
    backend: Provider, manifest: Manifest, load: LoadOptions, options: EngineOptions, notes: string[],
  ): Promise<Engine> {
    const model = findModel(manifest, PRECISIONS[backend]);
    if (!model) throw new ManifestError(`the bundle has no model for ${backend}`);
    const ort: Ort = backend === "webgpu" ? await import("onnxruntime-web/webgpu") : await import("onnxruntime-web/wasm");
    const version = ort.env.versions.web ?? ort.env.versions.common;
    const runtime = ort.env.wasm.wasmBinary ? undefined : findEngine(manifest, backend, version);
    const files = runtime ? [runtime, model] : [model];
    options.onPhase("download", files);
    const [weights, binary] = await Promise.all([loadFile(model, load), runtime && loadFile(runtime, load)]);
    options.onPhase("compile", files);
    const threads = backend === "webgpu" ? { count: 1, reason: "webgpu needs no threads" } : threadCount(options.threads);
    ort.env.logLevel = "error";
    ort.env.wasm.numThreads = threads.count;
    ort.env.wasm.proxy = false; // this package has a worker of its own
    if (binary) ort.env.wasm.wasmBinary = binary.buffer;
    else if (options.wasmPaths) ort.env.wasm.wasmPaths = options.wasmPaths;
    let session: InferenceSession;
    try {
      session = await ort.InferenceSession.create(weights, {
        executionProviders: [backend], graphOptimizationLevel: "all", // int8 is no faster than float below "all"
        logSeverityLevel: 3,
      });
    } catch (error) {
      throw new EngineError(`ONNX Runtime refuses ${model.path}: ${line(error)}`, { cause: error });
    }
    // Kept by the engine from here on; a second reference would keep 14 MB alive.
    ort.env.wasm.wasmBinary = binary ? new ArrayBuffer(0) : undefined;
    const { input, output } = manifest;
    if (!session.inputNames.includes(input.name) || !session.outputNames.includes(output.name)) {
      await session.release();
      throw new EngineError(`${model.path} has no input "${input.name}" or no output "${output.name}"`);
    }
    load.signal?.throwIfAborted();
    const info: EngineInfo = {
      backend, precision: model.precision!, threads: threads.count, threadsReason: threads.reason,
      engineVersion: version, model: manifest.model.name, modelVersion: manifest.version, size: input.size, notes,
    };
    return new Engine(info, input.interface, ort, session, { input: input.name, output: output.name });
  }

  /** The map, float32 (size, size) in [0, 1], of a resized picture, float32 (size, size, 3) in [0, 255]. */
  async run(picture: Float32Array): Promise<Float32Array<ArrayBuffer>> {
    const { size } = this.info;
    const tensor = this.interface_ === "tensor"
      ? new this.ort.Tensor("float32", toTensor(picture), [1, 3, size, size])
      : new this.ort.Tensor("uint8", toImage(picture), [1, size, size, 4]);
    let output: Tensor;
    try {
      output = (await this.session.run({ [this.names.input]: tensor }))[this.names.output];
    } catch (error) {
      throw new EngineError(`ONNX Runtime failed: ${line(error)}`, { cause: error });
    }
    const data = (await output.getData()) as Float32Array | Uint8Array;
    output.dispose();
    if (data.length !== size * size) throw new EngineError(`the model gave ${data.length} values, not ${size}×${size}`);
    const scale = data instanceof Uint8Array ? 1 / 255 : 1;
    const map = new Float32Array(data.length);
    for (let i = 0; i < map.length; i++) {
      const value = data[i] * scale;
      if (!(value > -Infinity && value < Infinity)) throw new EngineError("the model gave values that are not numbers");
      map[i] = Math.min(Math.max(value, 0), 1);
    }
    return map;
  }

  /** Why this backend's masks cannot be trusted; undefined where they can. */
  async #distrust(manifest: Manifest): Promise<string | undefined> {
    const test = manifest.self_test!;
    const size = this.info.size;
    let difference: number;
    try {
      difference = selfTestDifference(await this.run(selfTestPicture(size)), size, test);
    } catch (error) {
      return `${this.info.backend} failed the self-test: ${line(error)}`;
    }
    this.info.selfTestDifference = difference;
    return difference <= test.tolerance
      ? undefined
      : `${this.info.backend} failed the self-test: its mask differs by ${difference.toFixed(3)}, over ${test.tolerance}`;
  }

  async dispose(): Promise<void> {
    await this.session.release();
  }
}

/** Why WebGPU is not even tried. A software adapter is, only where WebGPU was asked for by name. */
async function webgpuObstacle(manifest: Manifest, device: "auto" | Provider): Promise<string | undefined> {
  const gpu = (globalThis.navigator as any)?.gpu;
  if (!gpu) return "this browser has no WebGPU here";
  if (!findModel(manifest, PRECISIONS.webgpu)) return "the bundle has no fp16 or fp32 model";
  if (!manifest.self_test) return "the bundle has no self-test";
  if (manifest.self_test.picture !== PICTURE_VERSION) return "the bundle's self-test is of another version";
  try {
    const adapter = await gpu.requestAdapter();
    if (!adapter) return "this device has no WebGPU adapter";
    if (device === "auto" && (adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter)) {
      return "the only WebGPU adapter is a software one, slower than wasm";
    }
  } catch (error) {
    return `WebGPU cannot be used: ${line(error)}`;
  }
  return undefined;
}

function threadCount(asked: number | undefined): { count: number; reason?: string } {
  if (!globalThis.crossOriginIsolated) {
    const reason = "the page is not cross-origin isolated (it needs the headers Cross-Origin-Opener-Policy: same-origin "
      + "and Cross-Origin-Embedder-Policy: require-corp), so threads are not available";
    return { count: 1, reason };
  }
  const cores = globalThis.navigator?.hardwareConcurrency ?? 1;
  // The page needs a core of its own where there are enough; with two, the second halves the time of float models.
  const count = asked ?? Math.min(MAX_THREADS, cores > 2 ? cores - 1 : cores);
  return count > 1 ? { count } : { count: 1, reason: asked === 1 ? "one thread was asked for" : "this device has one core" };
}

function line(error: unknown): string {
  const text = (error instanceof Error ? error.message : String(error)).replace(/\s+/g, " ").trim();
  return text.length > 240 ? `${text.slice(0, 240)}…` : text;
}
