/**
 * Everything that happens to a picture, in order; runs in the worker, or on the page where that is asked for.
 *
 * A picture is worked on in bands of rows, three times: for the network, for the matte, for the colours. Bands of
 * ordinary pictures are read once and kept; those of very large ones are read anew each time. So memory holds the
 * picture, the encoder's canvas and the matte, and never a second copy of any.
 */
import { Engine, type EngineInfo } from "./engine.js";
import { ConfigError } from "./errors.js";
import { colourFactor, ForegroundRows } from "./foreground.js";
import { loadManifest } from "./loader.js";
import type { ManifestFile } from "./manifest.js";
import { openSink } from "./output.js";
import { BoxReduce, flattenOnWhite, NetworkResize } from "./pixels.js";
import { clean, feather, MatteRows, refinement } from "./postprocess.js";
import { toAlpha, workingFactor } from "./sampling.js";
import { openSource, type Picture, type Source } from "./source.js";
import type { ConvertOptions, ConvertResult, CutoutOptions, CutoutResult, Progress, RemoverOptions, Timings } from "./types.js";

const KEEP_PIXELS = 16_777_216; // above, bands are read anew: time for memory
const BAND_PIXELS = 1 << 20;
const BAND_ROWS = 16; // bands are multiples of the lossy encoders' blocks
const OUTPUTS = ["png", "webp", "jpeg", "alpha", "bitmap"];

export type CreateOptions = Omit<RemoverOptions, "base" | "onProgress" | "signal" | "mode" | "worker"> & { base: string };

/** What a picture needs of the engine. */
export type Network = Pick<Engine, "run"> & { info: Pick<EngineInfo, "size" | "backend"> };

export class Pipeline {
  private constructor(readonly engine: Engine) {}

  get info(): EngineInfo {
    return this.engine.info;
  }

  static async create(options: CreateOptions, onProgress: (progress: Progress) => void, signal?: AbortSignal): Promise<Pipeline> {
    const base = new URL(options.base);
    let phase: Progress["phase"] = "manifest";
    const expected = new Map<ManifestFile, number>();
    const report = (): void => {
      let [loaded, total] = [0, 0];
      for (const [file, bytes] of expected) {
        loaded += bytes;
        total += file.bytes;
      }
      onProgress({ phase, loaded, total });
    };
    const load = {
      base, cache: options.cache ?? true, signal,
      onBytes(file: ManifestFile, bytes: number) {
        expected.set(file, bytes);
        report();
      },
    };
    report();
    const manifest = await loadManifest(load, options.integrity);
    const engine = await Engine.create(manifest, load, {
      device: options.device ?? "auto", threads: options.threads, wasmPaths: options.wasmPaths,
      onPhase(next, files) {
        phase = next;
        for (const file of files) if (!expected.has(file)) expected.set(file, 0);
        report();
      },
    });
    phase = "ready";
    report();
    return new Pipeline(engine);
  }

  cutout(picture: Picture, options: CutoutOptions, signal?: AbortSignal): Promise<CutoutResult> {
    return cutout(this.engine, picture, options, signal);
  }

  async convert(picture: Picture, options: ConvertOptions, signal?: AbortSignal): Promise<ConvertResult> {
    const { source, timings, clock, output, quality, background } = await begin(picture, options, signal);
    try {
      if ((output as string) === "alpha") throw new ConfigError("convert removes nothing, so it has no alpha to give");
      const { width, height } = source;
      const sink = await openSink({ width, height, output, quality, background });
      const alpha = new Uint8Array(width * height);
      timings.encodeMs += clock();
      for (const { y, rows } of bands(width, height)) {
        const rgba = source.read(y, rows);
        timings.decodeMs += clock();
        for (let i = y * width, p = 3; p < rgba.length; i++, p += 4) alpha[i] = rgba[p];
        await sink.write(y, rgba);
        timings.compositeMs += clock();
        await pause();
        signal?.throwIfAborted();
      }
      const image = await sink.finish(alpha);
      timings.encodeMs += clock();
      timings.totalMs = performance.now() - timings.totalMs;
      return { image, width, height, timings, notes: source.notes };
    } finally {
      source.close();
    }
  }

  dispose(): Promise<void> {
    return this.engine.dispose();
  }
}

/** One picture without its background. */
export async function cutout(network: Network, picture: Picture, options: CutoutOptions, signal?: AbortSignal): Promise<CutoutResult> {
  const settings = refinement(options.refine);
  const { source, timings, clock, output, quality, background } = await begin(picture, options, signal);
  try {
    const { width, height } = source;
    const { size } = network.info;
    const read = reader(source);
    const turn = async (): Promise<void> => {
      await pause();
      signal?.throwIfAborted();
      clock(); // what others did meanwhile is nobody's part
    };

    // For the network, and for the working grids of edges and colours.
    const resize = new NetworkResize(width, height, size);
    const guided = settings.edges === "guided" ? boxes(width, height, workingFactor(height, width, settings.workingSide)) : undefined;
    const estimate = settings.colours === "estimate" && output !== "alpha";
    const k = colourFactor(height, width);
    const colours = !estimate ? undefined : guided?.kx === k ? guided : boxes(width, height, k);
    for (const { y, rows } of bands(width, height)) {
      const rgba = read(y, rows);
      timings.decodeMs += clock();
      let flat = rgba;
      if (source.mayBeTransparent && !isOpaque(rgba)) flattenOnWhite((flat = rgba.slice()));
      resize.push(flat, rows);
      timings.resizeMs += clock();
      for (const grid of new Set([guided, colours])) grid?.push(rgba, rows);
      timings.refineMs += clock();
      await turn();
    }
    const input = resize.finish();
    timings.resizeMs += clock();
    const saliency = await network.run(input);
    timings.inferenceMs += clock();
    signal?.throwIfAborted();

    // The matte.
    const alpha = new Uint8Array(width * height);
    const grid = estimate ? new BoxReduce(width, height, k, k, 1) : undefined;
    const matte = new MatteRows(width, height, clean(saliency, size, size, settings), size, size, settings, guided);
    timings.refineMs += clock();
    const line = new Float32Array(width);
    const finish = (values: Float32Array, rgba: Uint8ClampedArray, at: number, y: number, between: Int32Array, bounds: number): void => {
      if (source.mayBeTransparent) alphaWithin(values, rgba, at, alpha, y * width);
      else alphaOf(values, alpha, y * width, between, bounds);
    };
    let values: Float32Array | undefined = settings.feather > 0 ? new Float32Array(width * height) : undefined;
    for (const { y, rows } of bands(width, height)) {
      const rgba = read(y, rows);
      timings.decodeMs += clock();
      for (let row = 0; row < rows; row++) {
        const at = row * width * 4;
        const out = values ? values.subarray((y + row) * width, (y + row + 1) * width) : line;
        matte.row(y + row, rgba, at, out);
        if (!values) finish(out, rgba, at, y + row, matte.between, matte.bounds);
      }
      if (!values) grid?.push(alpha.subarray(y * width, (y + rows) * width), rows);
      timings.refineMs += clock();
      await turn();
    }
    if (values) {
      const whole = Int32Array.of(0, width);
      values = feather(values, height, width, settings.feather);
      for (const { y, rows } of bands(width, height)) {
        const rgba = read(y, rows);
        for (let row = 0; row < rows; row++) {
          finish(values.subarray((y + row) * width, (y + row + 1) * width), rgba, row * width * 4, y + row, whole, 2);
        }
        grid?.push(alpha.subarray(y * width, (y + rows) * width), rows);
      }
      values = undefined;
      timings.refineMs += clock();
    }

    // The colours, and out.
    const sink = await openSink({ width, height, output, quality, background });
    timings.encodeMs += clock();
    const foreground = colours && grid ? new ForegroundRows(width, height, colours, grid) : undefined;
    timings.refineMs += clock();
    if (output !== "alpha") {
      for (const { y, rows } of bands(width, height)) {
        const rgba = read(y, rows, true);
        timings.decodeMs += clock();
        for (let row = 0; row < rows; row++) {
          if (foreground) foreground.row(y + row, rgba, row * width * 4, alpha, (y + row) * width);
          else putAlpha(rgba, row * width * 4, alpha, (y + row) * width, width);
        }
        timings.refineMs += clock();
        await sink.write(y, rgba);
        timings.compositeMs += clock();
        await turn();
      }
    }
    source.close();
    const image = await sink.finish(alpha);
    timings.encodeMs += clock();
    timings.totalMs = performance.now() - timings.totalMs;
    return {
      image, alpha: { data: alpha, width, height }, width, height, timings, backend: network.info.backend, notes: source.notes,
    };
  } finally {
    source.close();
  }
}

async function begin(picture: Picture, options: CutoutOptions | ConvertOptions, signal?: AbortSignal) {
  signal?.throwIfAborted();
  const { output = "png", quality, background = "transparent", animation = "refuse" } = options;
  if (!OUTPUTS.includes(output)) throw new ConfigError(`output must be one of ${OUTPUTS.join(", ")}`);
  if (quality !== undefined && !(quality >= 0 && quality <= 1)) throw new ConfigError("quality must be 0 to 1");
  if (animation !== "refuse" && animation !== "first-frame") throw new ConfigError('animation must be "refuse" or "first-frame"');
  const start = performance.now();
  const timings: Timings = {
    decodeMs: 0, resizeMs: 0, inferenceMs: 0, refineMs: 0, compositeMs: 0, encodeMs: 0, totalMs: start,
  };
  let last = start;
  const clock = (): number => {
    const before = last;
    last = performance.now();
    return last - before;
  };
  const source: Source = await openSource(picture, animation);
  timings.decodeMs += clock();
  return { source, timings, clock, output, quality, background };
}

/** Bands of a source: read once, kept and the bitmap freed, unless the picture is very large. `last` lets go of one. */
function reader(source: Source): (y: number, rows: number, last?: boolean) => Uint8ClampedArray<ArrayBuffer> {
  if (source.width * source.height > KEEP_PIXELS) return (y, rows) => source.read(y, rows);
  const kept = new Map<number, Uint8ClampedArray<ArrayBuffer>>();
  return (y, rows, last = false) => {
    const band = kept.get(y) ?? source.read(y, rows);
    if (last) kept.delete(y);
    else kept.set(y, band);
    if (y + rows === source.height && !last) source.close();
    return band;
  };
}

function boxes(width: number, height: number, k: number): BoxReduce {
  return new BoxReduce(width, height, k, k, 3);
}

function isOpaque(rgba: Uint8ClampedArray): boolean {
  for (let p = 3; p < rgba.length; p += 4) if (rgba[p] !== 255) return false;
  return true;
}

// Loops of their own, for engines compile functions that are called again, not each loop of a long one.

/** One row of the matte in 8 bits into `alpha`, which is 0 there, from `from` on; `between` and `bounds` as in MatteRows. */
function alphaOf(values: Float32Array, alpha: Uint8Array, from: number, between: Int32Array, bounds: number): void {
  for (let i = 0, x = 0; i <= bounds; i += 2) {
    const start = i < bounds ? between[i] : values.length;
    if (x < start && values[x] === 1) alpha.fill(255, from + x, from + start);
    if (i === bounds) break;
    for (x = start; x < between[i + 1]; x++) alpha[from + x] = toAlpha(values[x]);
  }
}

/** `alphaOf`, times the transparency that the row's pixels have, which are `rgba` from `at` on. */
function alphaWithin(values: Float32Array, rgba: Uint8ClampedArray, at: number, alpha: Uint8Array, from: number): void {
  for (let x = 0, p = at + 3; x < values.length; x++, p += 4) alpha[from + x] = toAlpha(values[x] * (rgba[p] / 255));
}

/** The matte into a row of RGBA; where it is 0 nothing of the background is carried along. */
function putAlpha(rgba: Uint8ClampedArray, at: number, alpha: Uint8Array, from: number, width: number): void {
  for (let x = 0, p = at; x < width; x++, p += 4) {
    const a = alpha[from + x];
    if (a) rgba[p + 3] = a;
    else rgba[p] = rgba[p + 1] = rgba[p + 2] = rgba[p + 3] = 0;
  }
}

function* bands(width: number, height: number): Generator<{ y: number; rows: number }> {
  const step = Math.max(BAND_ROWS, Math.floor(BAND_PIXELS / width / BAND_ROWS) * BAND_ROWS);
  for (let y = 0; y < height; y += step) yield { y, rows: Math.min(step, height - y) };
}

/** Lets messages (an abort) and, on the main thread, the page itself have a turn. */
function pause(): Promise<void> {
  return new Promise((wake) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      wake();
    };
    port2.postMessage(0);
  });
}
