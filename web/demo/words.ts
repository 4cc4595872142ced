/** How things are said to people. */
import { RemoverError } from "../src/index.js";
import type { RemoverInfo } from "../src/index.js";

export function describe(error: unknown): string {
  if (error instanceof RemoverError) {
    const { message, name } = error; // it begins with a small letter, or with the address of a file
    return `${/^\w+:\/\//.test(message) ? message : message[0].toUpperCase() + message.slice(1)}. (${name})`;
  }
  return error instanceof Error ? error.message : String(error);
}

export function seconds(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)}\u00a0ms` : `${(ms / 1000).toFixed(1)}\u00a0s`;
}

export function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}

const ENGINES: Record<RemoverInfo["backend"], string> = {
  engine: "This project's own engine, in WebAssembly",
  "onnxruntime-wasm": "ONNX Runtime Web, in WebAssembly",
  "onnxruntime-webgpu": "ONNX Runtime Web, on the graphics card (WebGPU)",
};

/** What runs, as pairs of a term and its value. */
export function technicalDetails(info: RemoverInfo): [string, string][] {
  const { model, precision, size, backend, threads, mode } = info;
  const pairs: [string, string][] = [
    ["Model", `${model}, ${precision}, looks at ${size}×${size} pixels`],
    ["Engine", ENGINES[backend]],
    ["Threads", `${threads}${info.threadsReason ? `: ${info.threadsReason}` : ""}`],
    ["Works", mode === "worker" ? "beside the page, which stays free" : `on the page itself${info.modeReason ? `: ${info.modeReason}` : ""}`],
  ];
  for (const note of [info.webgpuReason, info.engineReason, ...info.notes]) if (note) pairs.push(["Note", note]);
  return pairs;
}
