/** Options are checked by name and by value before anything is done, so that a slip of the pen is no default. */
import { ConfigError } from "./errors.js";
import { cropSettings } from "./subject.js";
import { refinement } from "./refinement.js";
import { shadowSettings } from "./shadow.js";
import type { Alpha, BitmapOf, BundleOptions, ComposeOptions, ConvertOptions, CutoutOptions, MaskOptions, RemoverOptions } from "./types.js";

export type AnyCutoutOptions = CutoutOptions | BitmapOf<CutoutOptions> | MaskOptions;
export type AnyComposeOptions = ComposeOptions | BitmapOf<ComposeOptions>;
export type AnyConvertOptions = ConvertOptions | BitmapOf<ConvertOptions>;

type Names<Options> = Record<keyof Options, true>;
const BUNDLE: Names<BundleOptions> = { base: true, quality: true, integrity: true, device: true, cache: true, onProgress: true, signal: true };
const REMOVER: Names<RemoverOptions> = { ...BUNDLE, mode: true, threads: true, maxPixels: true, wasmPaths: true, worker: true };
const CONVERT: Names<ConvertOptions> = { output: true, quality: true, background: true, animation: true, signal: true };
const CUTOUT: Names<CutoutOptions & MaskOptions> = { ...CONVERT, refine: true, crop: true, shadow: true, maskOnly: true };
const COMPOSE: Names<ComposeOptions> = { ...CONVERT, crop: true, shadow: true, colours: true };

const FORMATS = ["png", "webp", "jpeg", "alpha", "bitmap"];

function only(options: object, names: object, what: string): void {
  if (typeof options !== "object" || options === null) throw new ConfigError(`the options of ${what} must be an object`);
  for (const name of Object.keys(options)) {
    if (!Object.hasOwn(names, name)) throw new ConfigError(`${what} has no option ${JSON.stringify(name)}: there are ${Object.keys(names).join(", ")}`);
  }
}

function oneOf(name: string, value: unknown, values: readonly string[]): void {
  if (value === undefined || values.includes(value as string)) return;
  throw new ConfigError(`${name} must be ${values.map((one) => JSON.stringify(one)).join(" or ")}, not ${shown(value)}`);
}

function aKind(name: string, value: unknown, kind: "function" | "boolean" | "string"): void {
  if (value !== undefined && typeof value !== kind) throw new ConfigError(`${name} must be a ${kind}, not ${shown(value)}`);
}

function aSignal(value: unknown): void {
  if (value !== undefined && !(value instanceof AbortSignal)) throw new ConfigError("signal must be an AbortSignal");
}

function aCount(name: string, value: unknown): void {
  if (value !== undefined && !(Number.isInteger(value) && (value as number) >= 1)) {
    throw new ConfigError(`${name} must be a whole number from 1, not ${shown(value)}`);
  }
}

function shown(value: unknown): string {
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}

/** Throws ConfigError, as all of these do. */
export function checkBundle(options: BundleOptions, what = "preload", names: object = BUNDLE): void {
  only(options, names, what);
  const { base, quality, integrity, device, cache, onProgress, signal } = options;
  if (base !== undefined && typeof base !== "string" && !(base instanceof URL)) throw new ConfigError(`base must be a URL, not ${shown(base)}`);
  oneOf("quality", quality, ["video", "standard", "best"]);
  oneOf("device", device, ["auto", "wasm", "webgpu"]);
  if (integrity !== undefined && !/^sha(256|384|512)-./.test(String(integrity))) throw new ConfigError("integrity must start with sha256-, sha384- or sha512-");
  if (integrity !== undefined && base === undefined) throw new ConfigError("integrity pins the manifest at base, and there is no base");
  aKind("cache", cache, "boolean");
  aKind("onProgress", onProgress, "function");
  aSignal(signal);
}

export function checkRemover(options: RemoverOptions): void {
  checkBundle(options, "createRemover", REMOVER);
  const { mode, threads, maxPixels, wasmPaths, worker } = options;
  oneOf("mode", mode, ["worker", "main"]);
  aCount("threads", threads);
  aCount("maxPixels", maxPixels);
  aKind("wasmPaths", wasmPaths, "string");
  aKind("worker", worker, "function");
}

export function checkCutout(options: AnyCutoutOptions): void {
  only(options, CUTOUT, "cutout");
  if ("maskOnly" in options) {
    aKind("maskOnly", options.maskOnly, "boolean");
    for (const name of ["output", "quality", "background", "shadow"] as const) {
      if (options.maskOnly && (options as CutoutOptions)[name] !== undefined) throw new ConfigError(`maskOnly makes no picture, so ${name} cannot be set`);
    }
  }
  checkPicture(options as CutoutOptions, FORMATS);
  cropSettings(options.crop);
  shadowSettings((options as CutoutOptions).shadow);
  refinement(options.refine);
}

export function checkCompose({ data, width, height }: Alpha, options: AnyComposeOptions): void {
  if (!(data instanceof Uint8Array) || data.length !== width * height) throw new ConfigError("a matte must be { data, width, height }, a Uint8Array of width · height values");
  only(options, COMPOSE, "compose");
  checkPicture(options as CutoutOptions, FORMATS);
  cropSettings(options.crop);
  shadowSettings(options.shadow);
  oneOf("colours", options.colours, ["estimate", "keep"]);
}

export function checkConvert(options: AnyConvertOptions): void {
  only(options, CONVERT, "convert");
  if ((options as CutoutOptions).output === "alpha") throw new ConfigError("convert removes nothing, so it has no alpha to give");
  checkPicture(options, ["png", "webp", "jpeg", "bitmap"]);
}

function checkPicture({ output, quality, background, animation, signal }: CutoutOptions | AnyConvertOptions, outputs: string[]): void {
  oneOf("output", output, outputs);
  if (quality !== undefined && !(typeof quality === "number" && quality >= 0 && quality <= 1)) throw new ConfigError(`quality must be 0 to 1, not ${shown(quality)}`);
  if (background !== undefined && typeof background !== "string") {
    const { stops, angle, image } = (background ?? {}) as { stops?: unknown; angle?: unknown; image?: unknown };
    const gradient = Array.isArray(stops) && stops.every((stop) => typeof stop === "string") && (angle === undefined || Number.isFinite(angle));
    if (!gradient && !image) throw new ConfigError('a background is "transparent", a CSS colour, { stops, angle } or { image }');
    if (gradient && stops.length < 2) throw new ConfigError("a gradient needs at least two stops");
    only(background, gradient ? { stops, angle } : { image }, "background");
  }
  oneOf("animation", animation, ["refuse", "first-frame"]);
  aSignal(signal);
}
