/** What goes in and what comes out; index.ts exports all of it. */
import type { Backend, NetworkInfo } from "./network.js";
import type { Picture, PixelData } from "./picture.js";
import type { RefineOption, Refinement } from "./refinement.js";
import type { Box, Subject } from "./subject.js";

export type { Backend, Box, NetworkInfo, Picture, PixelData, RefineOption, Refinement, Subject };

/** Formats that come as a Blob; "alpha" is the matte alone as a grey PNG. */
export type OutputFormat = "png" | "webp" | "jpeg" | "alpha";

/** Which of the bundle's models: for frames of a video and old phones, for most pictures, or the best that it has. */
export type Quality = "video" | "standard" | "best";

/** A CSS colour, a gradient as CSS draws it (angle in degrees, 180 is downwards), or a picture that covers. */
export type Background =
  | "transparent"
  | (string & {})
  | { stops: string[]; angle?: number }
  | { image: Blob | ImageBitmap };

export interface Progress {
  phase: "manifest" | "download" | "compile" | "ready";
  /** Bytes that have come over the network, and that will have in all, compressed as the host sends them. */
  loaded: number;
  total: number;
}

export interface BundleOptions {
  /** The folder where a bundle's manifest.json lies. Default: the model that comes with this package. */
  base?: string | URL;
  /** Default "standard". A bundle that has only one model has it for all three. */
  quality?: Quality;
  /** Pin the manifest: "sha384-…". The manifest pins everything else. */
  integrity?: string;
  /**
   * "auto" (default) and "wasm" run this package's own engine, in WebAssembly; "webgpu" tries ONNX Runtime Web first, which
   * must be installed as well.
   */
  device?: "auto" | "wasm" | "webgpu";
  /** Keep the files in Cache Storage, for the next visit and for offline use. Default true. */
  cache?: boolean;
  onProgress?: (progress: Progress) => void;
  signal?: AbortSignal;
}

export interface RemoverOptions extends BundleOptions {
  /**
   * Where the work is done: "worker", or "main" for the page itself, which stands still meanwhile. Default: a worker, and the
   * page where no worker can be started; `info.modeReason` says why.
   */
  mode?: "worker" | "main";
  /** Of WebAssembly; more than one needs a cross-origin isolated page. Default: up to 4, leaving one core to the page. */
  threads?: number;
  /** Pixels of a picture over which it is refused before it is decoded. Default 150 million. */
  maxPixels?: number;
  /** Folder of onnxruntime-web's .wasm files, where it is used and neither the bundle nor your bundler provides them. */
  wasmPaths?: string;
  /** Makes the worker, where your bundler needs it done in your own code. */
  worker?: () => Worker;
}

export interface ConvertOptions {
  /** Default "png". */
  output?: Exclude<OutputFormat, "alpha">;
  /** Of WebP and JPEG, 0 to 1. Default 0.8 for WebP, 0.9 for JPEG. */
  quality?: number;
  /** Default "transparent"; JPEG has no transparency and gets white. */
  background?: Background;
  /** Of animated pictures: refused with AnimatedImageError (default), or their first frame, with a note. */
  animation?: "refuse" | "first-frame";
  signal?: AbortSignal;
}

export interface CropOptions {
  /** Room around the subject, as a part of the longer side of its box. Default 0.05. */
  margin?: number;
  /** As wide as high; what lies outside the picture is background. Default false. */
  square?: boolean;
}

export interface ShadowOptions {
  /** 0 to 1. Default 0.4. */
  opacity?: number;
  /** Softness, as a part of the longer side of the subject's box. Default 0.015. */
  blur?: number;
  /** How far below it lies, as a part of the same. Default 0.015. */
  drop?: number;
}

export interface ComposeOptions extends Omit<ConvertOptions, "output"> {
  /** Default "png". */
  output?: OutputFormat;
  /** Cut the picture to the subject. Default false. */
  crop?: boolean | CropOptions;
  /** A soft shadow under the subject; the matte stays as it is. Default false. */
  shadow?: boolean | ShadowOptions;
  /** The subject's colours along its edge without the background's share (default), or the picture's as they are. */
  colours?: "estimate" | "keep";
}

export interface CutoutOptions extends Omit<ComposeOptions, "colours"> {
  /** A preset ("fast", "balanced") or single settings; see Refinement. Default "balanced". */
  refine?: RefineOption;
}

/** Options under which the result is an ImageBitmap. */
export type BitmapOf<Options> = Omit<Options, "output"> & { output: "bitmap" };

/** Options under which no picture is made, only the matte. */
export type MaskOptions = Omit<CutoutOptions, "output" | "quality" | "background" | "shadow"> & { maskOnly: true };

/** Milliseconds of each part; the parts are disjoint, and the total includes what lies between. */
export interface Timings {
  decodeMs: number;
  resizeMs: number;
  inferenceMs: number;
  /** Looking again at what the first look found; 0 where that is not done. */
  secondLookMs: number;
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

export interface ConvertResult<Image extends Blob | ImageBitmap = Blob> {
  image: Image;
  width: number;
  height: number;
  timings: Timings;
  /** One readable line for each thing that a person may want to know ("animated: only the first frame was used"). */
  notes: string[];
}

export interface ComposeResult<Image extends Blob | ImageBitmap = Blob> extends ConvertResult<Image> {
  /** The matte of the picture, or of the part that `crop` left. */
  alpha: Alpha;
  /** What was found, in pixels of the whole picture. */
  subject: Subject;
}

export interface MaskResult extends Omit<ComposeResult, "image"> {
  /** What really ran. */
  backend: Backend;
}

export interface CutoutResult<Image extends Blob | ImageBitmap = Blob> extends MaskResult {
  image: Image;
}

export interface RemoverInfo extends NetworkInfo {
  /** Where the work is done. */
  mode: "worker" | "main";
  /** Why it is done on the page, where that was not asked for. */
  modeReason?: string;
}

export interface Remover {
  readonly info: RemoverInfo;
  /** Cut the subject out. One picture at a time; further calls wait their turn. */
  cutout(picture: Picture, options?: CutoutOptions): Promise<CutoutResult>;
  cutout(picture: Picture, options: BitmapOf<CutoutOptions>): Promise<CutoutResult<ImageBitmap>>;
  cutout(picture: Picture, options: MaskOptions): Promise<MaskResult>;
  cutout(picture: Picture, options: CutoutOptions | BitmapOf<CutoutOptions>): Promise<CutoutResult<Blob | ImageBitmap>>;
  /**
   * The cut-out that a matte makes of its picture, say one that `cutout` gave and somebody has painted in. The network is not asked.
   * Where the picture is transparent the cut-out is, too.
   */
  compose(picture: Picture, alpha: Alpha, options?: ComposeOptions): Promise<ComposeResult>;
  compose(picture: Picture, alpha: Alpha, options: BitmapOf<ComposeOptions>): Promise<ComposeResult<ImageBitmap>>;
  compose(picture: Picture, alpha: Alpha, options: ComposeOptions | BitmapOf<ComposeOptions>): Promise<ComposeResult<Blob | ImageBitmap>>;
  /** Change the format or fill the transparency, without removing anything. */
  convert(picture: Picture, options?: ConvertOptions): Promise<ConvertResult>;
  convert(picture: Picture, options: BitmapOf<ConvertOptions>): Promise<ConvertResult<ImageBitmap>>;
  convert(picture: Picture, options: ConvertOptions | BitmapOf<ConvertOptions>): Promise<ConvertResult<Blob | ImageBitmap>>;
  /** Free the model, the engine and the worker. What still waits is rejected with DisposedError. */
  dispose(): Promise<void>;
}
