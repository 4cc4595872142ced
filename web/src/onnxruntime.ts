/**
 * ONNX Runtime Web as a backend. Importing this module is all that is needed to make it one; it wants the npm package
 * onnxruntime-web, and must be imported where the work is done: in the worker's file, or on the page with `mode: "main"`.
 *
 *     import "u2net-remover/onnxruntime";
 *     import "u2net-remover/worker";
 */
import type { Env, InferenceSession, Tensor } from "onnxruntime-web";

import type { Bundle, ProgressReport } from "./bundle.js";
import { EngineError, line, ManifestError } from "./errors.js";
import { loadFile } from "./loader.js";
import { findEngine, findModel, type Provider } from "./manifest.js";
import {
  checkedMap, type Network, type NetworkOptions, registerOnnxRuntime, threadCount, WASM_PRECISIONS, WEBGPU_PRECISIONS,
} from "./network.js";
import { toImage, toTensor } from "./pixels.js";

interface Ort { env: Env; InferenceSession: typeof InferenceSession; Tensor: typeof Tensor }

// Some bundlers put ONNX Runtime into the worker's file, which it then starts again as one of its threads. Those belong to the
// wasm build: WebGPU runs without.
if (String((globalThis as { name?: string }).name).startsWith("em-pthread")) void import("onnxruntime-web/wasm");
else registerOnnxRuntime(openOnnxRuntime);

async function openOnnxRuntime(
  provider: Provider, { manifest, load }: Bundle, options: NetworkOptions, report: ProgressReport, notes: string[],
): Promise<Network> {
  const model = findModel(manifest, provider === "wasm" ? WASM_PRECISIONS : WEBGPU_PRECISIONS, ["onnx", "ort"]);
  if (!model) throw new ManifestError(`the bundle has no model for ${provider}`);
  const ort: Ort = provider === "webgpu" ? await import("onnxruntime-web/webgpu") : await import("onnxruntime-web/wasm");
  const version = ort.env.versions.web ?? ort.env.versions.common;
  const runtime = ort.env.wasm.wasmBinary ? undefined : findEngine(manifest, provider, version);
  report.expect(runtime ? [runtime, model] : [model]);
  report.report("download");
  const [weights, binary] = await Promise.all([loadFile(model, load), runtime && loadFile(runtime, load)]);
  report.report("compile");
  const threads = provider === "webgpu" ? { count: 1, reason: "webgpu needs no threads" } : threadCount(options.threads);
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = threads.count;
  ort.env.wasm.proxy = false; // this package has a worker of its own
  if (binary) ort.env.wasm.wasmBinary = binary.buffer;
  else if (options.wasmPaths) ort.env.wasm.wasmPaths = options.wasmPaths;
  let session: InferenceSession;
  try {
    session = await ort.InferenceSession.create(weights, {
      executionProviders: [provider], graphOptimizationLevel: "all", // int8 is no faster than float below "all"
      logSeverityLevel: 3,
    });
  } catch (error) {
    throw new EngineError(`ONNX Runtime refuses ${model.path}: ${line(error)}`, { cause: error });
  }
  // Kept by ONNX Runtime from here on; a second reference would keep 14 MB alive.
  ort.env.wasm.wasmBinary = binary ? new ArrayBuffer(0) : undefined;
  const { input, output } = manifest;
  if (!session.inputNames.includes(input.name) || !session.outputNames.includes(output.name)) {
    await session.release();
    throw new EngineError(`${model.path} has no input "${input.name}" or no output "${output.name}"`);
  }
  load.signal?.throwIfAborted();
  const { size } = input;
  return {
    info: {
      backend: `onnxruntime-${provider}`, precision: model.precision!, threads: threads.count, threadsReason: threads.reason,
      engineVersion: version, model: manifest.model.name, modelVersion: manifest.version, size, notes,
    },
    async run(picture) {
      const tensor = input.interface === "tensor"
        ? new ort.Tensor("float32", toTensor(picture), [1, 3, size, size])
        : new ort.Tensor("uint8", toImage(picture), [1, size, size, 4]);
      let values: Float32Array | Uint8Array;
      try {
        const result = (await session.run({ [input.name]: tensor }))[output.name];
        values = (await result.getData()) as Float32Array | Uint8Array;
        result.dispose();
      } catch (error) {
        throw new EngineError(`ONNX Runtime failed: ${line(error)}`, { cause: error });
      }
      return checkedMap(values, size, values instanceof Uint8Array ? 1 / 255 : 1);
    },
    dispose: () => session.release(),
  };
}
