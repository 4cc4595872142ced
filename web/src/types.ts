/** What goes in and what comes out; index.ts exports all of it. */
import type { EngineInfo } from "./engine.js";
import type { Provider } from "./manifest.js";
import type { RefineOption, Refinement } from "./postprocess.js";
import type { Picture } from "./source.js";

export type { EngineInfo, Picture, Provider, RefineOption, Refinement };

/** "bitmap" is an ImageBitmap, "alpha" the matte alone as a grey PNG, the others are Blobs. */
export type OutputFormat = "png" | "webp" | "jpeg" | "alpha" | "bitmap";

/** A CSS colour, a gradient as CSS draws it (angle in degrees, 180 is downwards), or a picture that covers. */
export type Background =
  | "transparent"
  | (string & {})
  | { stops: string[]; angle?: number }
  | { image: Blob | ImageBitmap };

export interface Progress {
  phase: "manifest" | "download" | "compile" | "ready";
  /** Bytes of model and engine that are here, and that are expected in all; 0 before the manifest is read. */
  loaded: number;
  total: number;
}

export interface RemoverOptions {
  /** Where the bundle lies: the folder of manifest.json. */
  base: string | URL;
  onProgress?: (progress: Progress) => void;
  signal?: AbortSignal;
  /** "auto" (default) takes WebGPU where it is real hardware and passes the self-test, else WebAssembly. */
  device?: "auto" | Provider;
  /** Where the work is done. On the main thread the page stands still meanwhile. Default "worker". */
  mode?: "worker" | "main";
  /** Of WebAssembly; needs a cross-origin isolated page. Default: up to 4, leaving one core to the page. */
  threads?: number;
  /** Keep the files in Cache Storage, for the next visit and for offline use. Default true. */
  cache?: boolean;
  /** Pin the manifest: "sha384-…". The manifest pins everything else. */
  integrity?: string;
  /** Folder of onnxruntime-web's .wasm files, where neither the bundle nor your bundler provides them. */
  wasmPaths?: string;
  /** Makes the worker, where your bundler needs it done in your own code. */
  worker?: () => Worker;
}

export interface CutoutOptions {
  output?: OutputFormat;
  /** Of WebP and JPEG, 0 to 1. Default 0.8 for WebP, 0.9 for JPEG. */
  quality?: number;
  /** Default "transparent"; JPEG has no transparency and gets white. */
  background?: Background;
  /** Of animated pictures: refused with AnimatedImageError (default), or their first frame, with a note. */
  animation?: "refuse" | "first-frame";
  /** A preset ("fast", "balanced") or single settings; see Refinement. Default "balanced". */
  refine?: RefineOption;
  signal?: AbortSignal;
}

export interface ConvertOptions {
  output?: Exclude<OutputFormat, "alpha">;
  quality?: number;
  background?: Background;
  animation?: "refuse" | "first-frame";
  signal?: AbortSignal;
}

/** Milliseconds of each part; the parts are disjoint, and the total includes what lies between. */
export interface Timings {
  decodeMs: number;
  resizeMs: number;
  inferenceMs: number;
  refineMs: number;
  compositeMs: number;
  encodeMs: number;
  totalMs: number;
}

export interface Alpha {
  /** Row by row, 255 is subject. */
  data: Uint8Array<ArrayBuffer>;
  width: number;
  height: number;
}

export interface ConvertResult {
  /** A Blob, or an ImageBitmap where output is "bitmap". */
  image: Blob | ImageBitmap;
  width: number;
  height: number;
  timings: Timings;
  /** One readable line for each thing that a person may want to know ("animated: only the first frame was used"). */
  notes: string[];
}

export interface CutoutResult extends ConvertResult {
  alpha: Alpha;
  /** What really ran. */
  backend: Provider;
}

export interface Remover {
  readonly info: EngineInfo;
  /** Cut the subject out. One picture at a time; further calls wait their turn. */
  cutout(picture: Picture, options?: CutoutOptions): Promise<CutoutResult>;
  /** Change the format or fill the transparency, without removing anything. */
  convert(picture: Picture, options?: ConvertOptions): Promise<ConvertResult>;
  /** Free the model, the engine and the worker. What still waits is rejected with DisposedError. */
  dispose(): Promise<void>;
}
