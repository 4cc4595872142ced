/**
 * Everything that happens to a picture, in order; runs in the worker, or on the page where that is asked for.
 *
 * A picture is worked on in bands of rows, three times: for the network, for the matte, for the colours. Bands of
 * ordinary pictures are read once and kept; those of very large ones are read anew each time. So memory holds the
 * picture, the encoder's canvas and the matte, and never a second copy of any.
 */
import { type BundleChoice, openBundle, ProgressReport } from "./bundle.js";
import { colourFactor, ForegroundRows } from "./foreground.js";
import { loadFile, type LoadOptions } from "./loader.js";
import { lookAgain, mergeWindows, mirror, type Part, PartResize, type SaliencyMap, windows } from "./look.js";
import { chooseModel, type Network, type NetworkOptions, openNetwork } from "./network.js";
import { prepareEngine } from "./engine.js";
import { ConfigError } from "./errors.js";
import type { AnyComposeOptions, AnyConvertOptions, AnyCutoutOptions } from "./options.js";
import { CroppedSink, openSink, type SinkOptions } from "./output.js";
import type { Sendable } from "./picture.js";
import { BoxReduce, flatten } from "./pixels.js";
import { clean, feather, MatteRows } from "./postprocess.js";
import { type Refinement, refinement } from "./refinement.js";
import { toAlpha, workingFactor } from "./sampling.js";
import { ShadedSink, shadowSettings } from "./shadow.js";
import { openSource, type Source } from "./source.js";
import { type Box, cropBox, cropRows, cropSettings, findSubject } from "./subject.js";
import { Transparency } from "./transparency.js";
import type { Alpha, ComposeResult, ConvertResult, CutoutOptions, CutoutResult, MaskResult, NetworkInfo, Progress, Timings } from "./types.js";

const KEEP_PIXELS = 16_777_216; // above, bands are read anew: time for memory
const BAND_PIXELS = 1 << 20;
const BAND_ROWS = 16; // bands are multiples of the lossy encoders' blocks

/** What createRemover was asked for, without what cannot cross to a worker. */
export interface CreateOptions extends BundleChoice, NetworkOptions { maxPixels?: number }

export type AnyCutoutResult = CutoutResult<Blob | ImageBitmap> | MaskResult;
export type AnyComposeResult = ComposeResult<Blob | ImageBitmap>;
export type AnyConvertResult = ConvertResult<Blob | ImageBitmap>;

/** What a picture needs of the network. */
export type Seer = Pick<Network, "run"> & { info: Pick<NetworkInfo, "size" | "backend"> };

export class Pipeline {
  private constructor(readonly network: Network, readonly maxPixels: number | undefined) {}

  get info(): NetworkInfo {
    return this.network.info;
  }

  static async create(options: CreateOptions, onProgress: (progress: Progress) => void, signal?: AbortSignal): Promise<Pipeline> {
    const report = new ProgressReport(onProgress);
    report.report();
    const onBytes: LoadOptions["onBytes"] = (file, loaded, total) => report.bytes(file, loaded, total);
    prepareEngine(options);
    const bundle = await openBundle(options, { signal, onBytes });
    let network: Network;
    try {
      network = await openNetwork(bundle, options, report);
    } finally {
      await Promise.all(bundle.load.keeping); // a model that this device cannot run is kept all the same: the next try may
    }
    report.report("ready");
    return new Pipeline(network, options.maxPixels);
  }

  cutout(picture: Sendable, options: AnyCutoutOptions, signal?: AbortSignal): Promise<AnyCutoutResult> {
    return cutout(this.network, picture, options, signal, this.maxPixels);
  }

  compose(picture: Sendable, alpha: Alpha, options: AnyComposeOptions, signal?: AbortSignal): Promise<AnyComposeResult> {
    return compose(picture, alpha, options, signal, this.maxPixels);
  }

  async convert(picture: Sendable, options: AnyConvertOptions, signal?: AbortSignal): Promise<AnyConvertResult> {
    const { source, timings, clock, drawing } = await begin(picture, options, signal, this.maxPixels);
    try {
      const { width, height } = source;
      const sink = await openSink(drawing);
      const alpha = new Uint8Array(width * height);
      timings.encodeMs += clock();
      for (const { y, rows } of bands(width, height)) {
        const rgba = source.read(y, rows);
        timings.decodeMs += clock();
        ownAlpha(rgba, alpha, y * width);
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
    return this.network.dispose();
  }
}

/** A bundle's manifest and model into the cache, and nothing else. */
export async function preloadBundle(choice: BundleChoice & Partial<NetworkOptions>, onProgress: (progress: Progress) => void, signal?: AbortSignal): Promise<void> {
  const report = new ProgressReport(onProgress);
  report.report();
  const { manifest, load } = await openBundle(choice, { signal, onBytes: (file, loaded, total) => report.bytes(file, loaded, total) });
  const model = chooseModel(manifest, choice.device ?? "auto");
  report.expect([model]);
  report.report("download");
  await loadFile(model, load);
  await Promise.all(load.keeping);
  report.report("ready");
}

/** One picture without its background. */
export async function cutout(
  network: Seer, picture: Sendable, options: AnyCutoutOptions, signal?: AbortSignal, maxPixels?: number,
): Promise<AnyCutoutResult> {
  const settings = refinement(options.refine);
  const work = await begin(picture, options, signal, maxPixels);
  const { source, timings, clock } = work;
  const maskOnly = "maskOnly" in options && options.maskOnly;
  try {
    const { width, height } = source;
    const read = reader(source);
    const turn = turns(clock, signal);
    const alpha = new Uint8Array(width * height);
    const own = source.mayBeTransparent ? new Transparency(width, height) : undefined;
    if (own) {
      for (const { y, rows } of bands(width, height)) {
        own.push(read(y, rows), rows);
        timings.decodeMs += clock();
        await turn();
      }
    }
    let foreground: ForegroundRows | undefined;
    if (own?.isCutout) {
      for (const { y, rows } of bands(width, height)) ownAlpha(read(y, rows), alpha, y * width);
      source.notes.push("already a cut-out: kept as it is");
      timings.decodeMs += clock();
    } else {
      const paints = settings.colours === "estimate" && !maskOnly && work.drawing.output !== "alpha";
      foreground = await see({ network, source, read, settings, paints, ground: own?.ground, timings, clock, turn }, alpha);
    }
    const result = await draw(work, read, turn, alpha, foreground, options);
    return { ...result, backend: network.info.backend };
  } finally {
    source.close();
  }
}

/** The cut-out that a matte makes of its picture. */
async function compose(picture: Sendable, { data, width, height }: Alpha, options: AnyComposeOptions, signal?: AbortSignal, maxPixels?: number): Promise<AnyComposeResult> {
  const work = await begin(picture, options, signal, maxPixels);
  const { source, timings, clock } = work;
  try {
    if (width !== source.width || height !== source.height) throw new ConfigError(`the matte is ${width}×${height}, and its picture ${source.width}×${source.height}`);
    const read = reader(source);
    const turn = turns(clock, signal);
    const alpha = new Uint8Array(data);
    const own = source.mayBeTransparent ? new Transparency(width, height) : undefined;
    const k = colourFactor(height, width);
    const [colours, grid] = [boxes(width, height, k), new BoxReduce(width, height, k, k, 1)];
    for (const { y, rows } of bands(width, height)) {
      const rgba = read(y, rows);
      timings.decodeMs += clock();
      own?.push(rgba, rows);
      if (own) for (let i = y * width, p = 3; p < rgba.length; i++, p += 4) alpha[i] = Math.min(alpha[i], rgba[p]);
      colours.push(rgba, rows);
      grid.push(alpha.subarray(y * width, (y + rows) * width), rows);
      timings.refineMs += clock();
      await turn();
    }
    const keeps = own?.isCutout || options.colours === "keep" || options.output === "alpha";
    return (await draw(work, read, turn, alpha, keeps ? undefined : new ForegroundRows(width, height, colours, grid), options)) as AnyComposeResult;
  } finally {
    source.close();
  }
}

/** From the matte on: subject, crop, shadow, colours, and out. */
async function draw(
  { source, timings, clock, drawing }: Work, read: Read, turn: () => Promise<void>, alpha: Uint8Array<ArrayBuffer>,
  foreground: ForegroundRows | undefined, options: AnyCutoutOptions | AnyComposeOptions,
): Promise<Omit<MaskResult, "backend">> {
  const { width, height } = source;
  const crop = cropSettings(options.crop);
  const subject = findSubject(alpha, width, height);
  if (!subject.found) source.notes.push("nothing was found in the picture");
  const part: Box = crop && subject.found && subject.box ? cropBox(subject.box, width, height, crop) : { x: 0, y: 0, width, height };
  const whole = part.width === width && part.height === height && !part.x && !part.y;
  const matteOf = { data: whole ? alpha : cropRows(alpha, width, height, part), width: part.width, height: part.height };
  const result = (): Omit<MaskResult, "backend"> => {
    timings.totalMs = performance.now() - timings.totalMs;
    return { alpha: matteOf, subject, width: part.width, height: part.height, timings, notes: source.notes };
  };
  timings.refineMs += clock();
  if ("maskOnly" in options && options.maskOnly) return result();

  const painted = drawing.output !== "alpha"; // the colours are wanted
  let inner = await openSink({ ...drawing, width: part.width, height: part.height });
  const shadow = shadowSettings((options as CutoutOptions).shadow);
  if (shadow && subject.box && painted) inner = new ShadedSink(inner, matteOf.data, part.width, part.height, Math.max(subject.box.width, subject.box.height), shadow);
  const sink = whole ? inner : new CroppedSink(inner, width, part);
  timings.encodeMs += clock();
  if (painted) {
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
  const image = await sink.finish(matteOf.data);
  timings.encodeMs += clock();
  return { image, ...result() } as Omit<MaskResult, "backend">;
}

/** Lets others have a turn; throws where the work was given up. What they did meanwhile is nobody's part. */
function turns(clock: () => number, signal?: AbortSignal): () => Promise<void> {
  return async () => {
    await pause();
    signal?.throwIfAborted();
    clock();
  };
}

type Read = ReturnType<typeof reader>;

interface Sight {
  network: Seer; source: Source; read: Read; settings: Refinement;
  /** Whether colours are to be estimated. */
  paints: boolean;
  /** The grey under a picture that may be transparent. */
  ground: number | undefined;
  timings: Timings; clock: () => number;
  /** Lets others have a turn; throws where the work was given up. */
  turn: () => Promise<void>;
}

/** What the network sees, as the matte, into `alpha`; the subject's colours where they are wanted. */
async function see({ network, source, read, settings, paints, ground, timings, clock, turn }: Sight, alpha: Uint8Array): Promise<ForegroundRows | undefined> {
  const { width, height } = source;
  const { size } = network.info;
  const laid = (rgba: Uint8ClampedArray<ArrayBuffer>): Uint8ClampedArray<ArrayBuffer> => {
    if (ground === undefined || isOpaque(rgba)) return rgba;
    const flat = rgba.slice();
    flatten(flat, ground);
    return flat;
  };

  // For the network, and for the working grids of edges and colours.
  const parts = settings.secondLook ? windows(width, height) : [{ left: 0, top: 0, right: width, bottom: height }];
  const views = parts.map((part) => new PartResize(part, size));
  const guided = settings.edges === "guided" ? boxes(width, height, workingFactor(height, width, settings.workingSide)) : undefined;
  const k = colourFactor(height, width);
  const colours = !paints ? undefined : guided?.kx === k ? guided : boxes(width, height, k);
  for (const { y, rows } of bands(width, height)) {
    const rgba = read(y, rows);
    timings.decodeMs += clock();
    const flat = laid(rgba);
    for (const view of views) view.push(flat, y, rows, width);
    timings.resizeMs += clock();
    for (const grid of new Set([guided, colours])) grid?.push(rgba, rows);
    timings.refineMs += clock();
    await turn();
  }
  const maps: Float32Array<ArrayBuffer>[] = [];
  for (const view of views) {
    const input = view.finish();
    timings.resizeMs += clock();
    maps.push(await network.run(input));
    timings.inferenceMs += clock();
    await turn();
  }
  let seen: SaliencyMap = mergeWindows(maps, parts, size, width, height);
  if (settings.secondLook) {
    const inputs = new Map<Part, Float32Array<ArrayBuffer>>(); // a mirrored look is at what the look before it was at
    const resized = async (part: Part): Promise<Float32Array<ArrayBuffer>> => {
      const view = new PartResize(part, size);
      for (const { y, rows } of bands(width, height)) {
        if (y + rows <= part.top || y >= part.bottom) continue;
        view.push(laid(read(y, rows)), y, rows, width);
        timings.secondLookMs += clock();
        await turn();
      }
      return view.finish();
    };
    const look = async (part: Part, mirrored: boolean): Promise<Float32Array<ArrayBuffer>> => {
      const input = inputs.get(part) ?? await resized(part);
      inputs.set(part, input);
      const map = await network.run(mirrored ? mirror(input, size, 3) : input);
      timings.secondLookMs += clock();
      await turn();
      return mirrored ? mirror(map, size, 1) : map;
    };
    seen = await lookAgain(seen, parts.length, width, height, size, look);
    timings.secondLookMs += clock();
  }

  // The matte.
  const grid = paints ? new BoxReduce(width, height, k, k, 1) : undefined;
  const cleaned = clean(seen.values, seen.height, seen.width, settings);
  const matte = new MatteRows(width, height, cleaned, seen.height, seen.width, settings, guided);
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
  const foreground = colours && grid ? new ForegroundRows(width, height, colours, grid) : undefined;
  timings.refineMs += clock();
  return foreground;
}

type Work = Awaited<ReturnType<typeof begin>>;

async function begin(picture: Sendable, options: AnyCutoutOptions | AnyComposeOptions | AnyConvertOptions, signal?: AbortSignal, maxPixels?: number) {
  signal?.throwIfAborted();
  const { output = "png", quality, background = "transparent", animation = "refuse" } = options as CutoutOptions;
  const start = performance.now();
  const timings: Timings = {
    decodeMs: 0, resizeMs: 0, inferenceMs: 0, secondLookMs: 0, refineMs: 0, compositeMs: 0, encodeMs: 0, totalMs: start,
  };
  let last = start;
  const clock = (): number => {
    const before = last;
    last = performance.now();
    return last - before;
  };
  const source: Source = await openSource(picture, { animation, maxPixels });
  timings.decodeMs += clock();
  const drawing: SinkOptions = { width: source.width, height: source.height, output, quality, background };
  return { source, timings, clock, drawing };
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

/** The alpha of RGBA pixels into `alpha` from `from` on. */
function ownAlpha(rgba: Uint8ClampedArray, alpha: Uint8Array, from: number): void {
  for (let p = 3; p < rgba.length; p += 4) alpha[from++] = rgba[p];
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
