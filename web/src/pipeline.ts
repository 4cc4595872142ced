/**
 * Everything that happens to a picture, in order; runs in the worker, or on the page where that is asked for.
 *
 * A picture is read twice in bands of rows, once for the network and once for the cut-out, so that memory holds the
 * decoded picture, the encoder's canvas and the matte, and never a second copy of any.
 */
import { Engine, type EngineInfo } from "./engine.js";
import { ConfigError } from "./errors.js";
import { loadManifest } from "./loader.js";
import type { ManifestFile } from "./manifest.js";
import { openSink } from "./output.js";
import { flattenOnWhite, NetworkResize } from "./pixels.js";
import { Upsample } from "./postprocess.js";
import { openSource, type Picture, type Source } from "./source.js";
import type { ConvertOptions, ConvertResult, CutoutOptions, CutoutResult, Progress, RemoverOptions, Timings } from "./types.js";

const BAND_PIXELS = 1 << 20;
const BAND_ROWS = 16; // bands are multiples of the lossy encoders' blocks
const OUTPUTS = ["png", "webp", "jpeg", "alpha", "bitmap"];

export type CreateOptions = Omit<RemoverOptions, "base" | "onProgress" | "signal" | "mode" | "worker"> & { base: string };

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

  async cutout(picture: Picture, options: CutoutOptions, signal?: AbortSignal): Promise<CutoutResult> {
    const { source, timings, clock, output, quality, background } = await begin(picture, options, signal);
    try {
      const { width, height } = source;
      const resize = new NetworkResize(width, height, this.info.size);
      for (const { y, rows } of bands(width, height)) {
        const rgba = source.read(y, rows);
        timings.decodeMs += clock();
        if (source.mayBeTransparent) flattenOnWhite(rgba);
        resize.push(rgba, rows);
        timings.resizeMs += clock();
        await pause();
      }
      const input = resize.finish();
      timings.resizeMs += clock();
      signal?.throwIfAborted();
      const map = await this.engine.run(input);
      timings.inferenceMs += clock();
      signal?.throwIfAborted();

      const sink = await openSink({ width, height, output, quality, background });
      timings.encodeMs += clock();
      const alpha = new Uint8Array(width * height);
      const { size } = this.info;
      const upsample = new Upsample(map, size, size, height, width);
      const line = new Float32Array(width);
      for (const { y, rows } of bands(width, height)) {
        const rgba = source.read(y, rows);
        timings.decodeMs += clock();
        for (let row = 0; row < rows; row++) {
          upsample.row(y + row, line);
          const start = (y + row) * width;
          for (let x = 0, p = row * width * 4 + 3; x < width; x++, p += 4) {
            const own = rgba[p];
            const value = own === 255 ? line[x] : line[x] * (own / 255);
            const a = (value * 255 + 0.5) | 0;
            alpha[start + x] = a;
            if (a) rgba[p] = a;
            else rgba[p] = rgba[p - 1] = rgba[p - 2] = rgba[p - 3] = 0; // nothing of the background is carried along
          }
        }
        timings.refineMs += clock();
        await sink.write(y, rgba);
        timings.compositeMs += clock();
        await pause();
        signal?.throwIfAborted();
      }
      const image = await sink.finish(alpha);
      timings.encodeMs += clock();
      timings.totalMs = performance.now() - timings.totalMs;
      return { image, alpha: { data: alpha, width, height }, width, height, timings, backend: this.info.backend, notes: source.notes };
    } finally {
      source.close();
    }
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

async function begin(picture: Picture, options: CutoutOptions | ConvertOptions, signal?: AbortSignal) {
  signal?.throwIfAborted();
  const { output = "png", quality = 0.9, background = "transparent" } = options;
  if (!OUTPUTS.includes(output)) throw new ConfigError(`output must be one of ${OUTPUTS.join(", ")}`);
  if (!(quality >= 0 && quality <= 1)) throw new ConfigError("quality must be 0 to 1");
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
  const source: Source = await openSource(picture);
  timings.decodeMs += clock();
  return { source, timings, clock, output, quality, background };
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
