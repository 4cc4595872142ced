/**
 * From the network's map to a matte and clean colours at the picture's full resolution.
 *
 * The specification is u2net/postprocess.py, step by step; names are the same but for their spelling (`keep_largest` is
 * `keepLargest`), results agree to 1/255. What there works on whole arrays works on bands of rows here.
 */
import { ConfigError } from "./errors.js";
import { BoxReduce, resizeBilinear, type Taps, taps } from "./pixels.js";

/** Which steps are taken, and how. */
export interface Refinement {
  /** Keep only the largest subject. */
  keepLargest: boolean;
  /** Fraction of the picture under which a subject is dropped; 0 keeps all. */
  minArea: number;
  /** Fraction of the picture up to which a hole is filled; 0 fills none. */
  fillHoles: number;
  /** Refinement at full resolution. The runner's "matting" is not for browsers. */
  edges: "none" | "guided";
  /** About the longest side of the grid that the guided filter works on. */
  workingSide: number;
  /** Of the guided filter, in pixels of that grid. */
  radius: number;
  /** In pixels of the map: how far edges move to where the picture has them; 0 leaves the map alone. */
  reach: number;
  /** Of the guided filter: variance of colour below which a region counts as flat. */
  epsilon: number;
  /** Power of |2p − 1| that weighs a pixel in the fit. */
  confidence: number;
  /** Makes the matte hard: above 0, at most 1. */
  threshold: number | null;
  /** Pixels by which the matte is softened. */
  feather: number;
  /** "keep" leaves the background's colour in soft edges. */
  colours: "keep" | "estimate";
}

export const BALANCED: Readonly<Refinement> = Object.freeze({
  keepLargest: false, minArea: 0, fillHoles: 0, edges: "guided", workingSide: 640, radius: 3, reach: 8,
  epsilon: 1e-5, confidence: 1, threshold: null, feather: 0, colours: "estimate",
});
export const FAST: Readonly<Refinement> = Object.freeze({ ...BALANCED, edges: "none", colours: "keep" });
export const PRESETS = Object.freeze({ fast: FAST, balanced: BALANCED });

/** A preset's name, or single settings upon `preset` (by default "balanced"). */
export type RefineOption = keyof typeof PRESETS | (Partial<Refinement> & { preset?: keyof typeof PRESETS });

const SUPPORT = 0.1;
const COLOUR_SIDE = 320; // working grid of the colours
const COLOUR_RADII = [48, 16, 6, 2];
const UNSURE = 1 / 64; // where a pixel would move by a smaller part the map is sure
const BETWEEN = 2; // neither 0 nor 1
const UNMOVED = 1e-5; // where mending would move the map by less it does not
const TRUST_RADIUS = 2; // these four as in the specification
const TRUST_EPSILON = 1e-6;
const LEFT_OVER = 0.04;
const EDGE_VARIANCE = 0.004;

/** The settings that are meant. Throws ConfigError where one cannot work. */
export function refinement(option: RefineOption = "balanced"): Refinement {
  const { preset, ...single } = typeof option === "string" ? { preset: option } : option ?? {};
  const base = PRESETS[preset ?? "balanced"];
  if (!base) {
    const text = `the preset ${JSON.stringify(preset)} is not known here: take "fast" or "balanced"`;
    throw new ConfigError(preset as string === "best" ? `${text} ("best" needs the Python runner)` : text);
  }
  const settings: Refinement = { ...base };
  for (const [name, value] of Object.entries(single)) {
    if (!(name in base)) throw new ConfigError(`refine has no setting ${JSON.stringify(name)}`);
    if (value !== undefined) (settings as any)[name] = value;
  }
  const within = (name: keyof Refinement, low: number, high: number): void => {
    const value = settings[name];
    if (typeof value !== "number" || !(value >= low && value <= high)) {
      throw new ConfigError(`${name} must be ${low} to ${high}, got ${JSON.stringify(value)}`);
    }
  };
  within("minArea", 0, 1);
  within("fillHoles", 0, 1);
  within("feather", 0, 200);
  within("confidence", 0, 64);
  for (const [name, low, high] of [["radius", 1, 100], ["reach", 0, 100], ["workingSide", 32, 8192]] as const) {
    within(name, low, high);
    if (!Number.isInteger(settings[name])) throw new ConfigError(`${name} must be a whole number, got ${settings[name]}`);
  }
  within("epsilon", Number.MIN_VALUE, 1);
  if (settings.threshold !== null) within("threshold", Number.MIN_VALUE, 1);
  if (settings.edges !== "none" && settings.edges !== "guided") throw new ConfigError('edges must be "none" or "guided"');
  if (settings.colours !== "keep" && settings.colours !== "estimate") throw new ConfigError('colours must be "keep" or "estimate"');
  return settings;
}

// ---- 1. At the network's resolution ---------------------------------------------------------------------------------

/** Labels of the connected components of a mask: 0 outside, else 1… in order of their first pixel. */
export function connectedComponents(
  mask: Uint8Array, height: number, width: number, diagonal: boolean,
): { labels: Int32Array; count: number } {
  const labels = new Int32Array(mask.length);
  const stack: number[] = [];
  let count = 0;
  for (let start = 0; start < mask.length; start++) {
    if (!mask[start] || labels[start]) continue;
    labels[start] = ++count;
    stack.push(start);
    while (stack.length) {
      const at = stack.pop()!;
      const [x, y] = [at % width, Math.floor(at / width)];
      for (let dy = -1; dy <= 1; dy++) {
        for (let dx = -1; dx <= 1; dx++) {
          if ((!dx && !dy) || (dx && dy && !diagonal)) continue;
          if (x + dx < 0 || x + dx >= width || y + dy < 0 || y + dy >= height) continue;
          const next = at + dy * width + dx;
          if (mask[next] && !labels[next]) {
            labels[next] = count;
            stack.push(next);
          }
        }
      }
    }
  }
  return { labels, count };
}

/** Subjects that are too small become 0; see the specification for what counts as one. */
export function keepComponents(
  saliency: Float32Array, height: number, width: number, largest: boolean, minArea: number,
): Float32Array {
  const support = Math.fround(SUPPORT);
  const { labels, count } = connectedComponents(Uint8Array.from(saliency, (v) => Number(v >= support)), height, width, true);
  const areas = new Float64Array(count + 1);
  for (let i = 0; i < labels.length; i++) if (labels[i] && saliency[i] >= 0.5) areas[labels[i]]++;
  let best = 1;
  for (let label = 2; label <= count; label++) if (areas[label] > areas[best]) best = label;
  const kept = Array.from(areas, (area, label) => label > 0 && area >= minArea * saliency.length && (!largest || label === best));
  if (kept.slice(1).every(Boolean)) return saliency;
  return saliency.map((value, i) => (kept[labels[i]] ? value : 0));
}

/** Holes of at most `fraction` of the picture, which touch no border, become 1. */
export function fillHoles(saliency: Float32Array, height: number, width: number, fraction: number): Float32Array {
  const { labels, count } = connectedComponents(Uint8Array.from(saliency, (v) => Number(v < 0.5)), height, width, false);
  const areas = new Float64Array(count + 1);
  for (const label of labels) areas[label]++;
  const hole = Array.from(areas, (area, label) => label > 0 && area <= fraction * saliency.length);
  for (let x = 0; x < width; x++) hole[labels[x]] = hole[labels[(height - 1) * width + x]] = false;
  for (let y = 0; y < height; y++) hole[labels[y * width]] = hole[labels[y * width + width - 1]] = false;
  return saliency.map((value, i) => (hole[labels[i]] ? 1 : value));
}

/** Step 1. */
export function clean(saliency: Float32Array, height: number, width: number, settings: Refinement): Float32Array {
  if (settings.keepLargest || settings.minArea > 0) {
    saliency = keepComponents(saliency, height, width, settings.keepLargest, settings.minArea);
  }
  return settings.fillHoles > 0 ? fillHoles(saliency, height, width, settings.fillHoles) : saliency;
}

// ---- 2. To full resolution ------------------------------------------------------------------------------------------

/** Rows of interleaved channels at the picture's resolution: vertical first, and horizontal by the caller's taps. */
class Stretch {
  readonly horizontal: Taps;
  readonly #vertical: Taps;
  readonly #line: Float32Array;

  constructor(
    readonly source: Float32Array, sourceHeight: number, readonly sourceWidth: number, readonly channels: number,
    readonly height: number, readonly width: number, stepY: number, stepX: number,
  ) {
    this.horizontal = taps(sourceWidth, width, stepX);
    this.#vertical = taps(sourceHeight, height, stepY);
    this.#line = new Float32Array(sourceWidth * channels);
  }

  /** Source row for picture row `y`, not yet widened; of its pixels those from `first` to before `end`. */
  line(y: number, first = 0, end = this.sourceWidth): Float32Array {
    const { source, sourceWidth, channels } = this;
    const line = this.#line;
    const weight = this.#vertical.weight[y];
    const stop = end * channels;
    let top = (this.#vertical.left[y] * sourceWidth + first) * channels;
    let bottom = (this.#vertical.right[y] * sourceWidth + first) * channels;
    for (let i = first * channels; i < stop; i++, top++, bottom++) line[i] = source[top] + (source[bottom] - source[top]) * weight;
    return line;
  }

  /** All rows of a single channel. */
  whole(): Float32Array<ArrayBuffer> {
    const { height, width, horizontal: { left, right, weight } } = this;
    const out = new Float32Array(height * width);
    for (let y = 0, at = 0; y < height; y++) {
      const line = this.line(y);
      for (let x = 0; x < width; x++, at++) {
        const a = line[left[x]];
        out[at] = a + (line[right[x]] - a) * weight[x];
      }
    }
    return out;
  }
}

/** 8 bits: floor(255 · v + 0.5) in float32, clipped. */
export function toAlpha(value: number): number {
  // Clipped as a whole number: noise around 0 and 1 would be branches that processors could not predict.
  const scaled = Math.fround(Math.fround(Math.fround(value) * 255) + 0.5) | 0;
  return scaled > 255 ? 255 : scaled > 0 ? scaled : 0;
}

// ---- 3. Edges -------------------------------------------------------------------------------------------------------

/**
 * Box mean of interleaved channels, windows cut at the borders: running sums in float64, one row at a time. Where `needed`
 * is 0 nothing is written.
 */
export function boxMean(
  source: Float32Array, height: number, width: number, channels: number, radius: number, needed?: Uint8Array,
  out = new Float32Array(source.length),
): Float32Array<ArrayBuffer> {
  const stride = width * channels;
  const margin = radius * channels;
  const sums = new Float64Array(stride + 2 * margin + channels); // of columns; those left and right of the picture stay 0
  const shares = Float64Array.from({ length: width }, (_, x) => 1 / (Math.min(x + radius, width - 1) - Math.max(x - radius, 0) + 1));
  for (let y = -radius; y < height; y++) {
    const enters = (y + radius) * stride;
    const leaves = (y - radius - 1) * stride;
    const last = y + radius < height;
    if (last && leaves >= 0) for (let x = 0, at = margin + channels; x < stride; x++, at++) sums[at] += source[enters + x] - source[leaves + x];
    else if (last) for (let x = 0, at = margin + channels; x < stride; x++, at++) sums[at] += source[enters + x];
    else if (leaves >= 0) for (let x = 0, at = margin + channels; x < stride; x++, at++) sums[at] -= source[leaves + x];
    if (y < 0) continue;
    const share = 1 / (Math.min(y + radius, height - 1) - Math.max(y - radius, 0) + 1);
    for (let start = 0, stop = 0; start < width; start = stop) {
      stop = width;
      if (needed) {
        while (start < width && needed[y * width + start] === 0) start++;
        for (stop = start; stop < width && needed[y * width + stop] !== 0;) stop++;
        if (start === stop) break;
      }
      if (channels === 4) slideFour(sums, radius, start, stop, share, shares, out, y * stride);
      else slide(sums, channels, radius, start, stop, share, shares, out, y * stride);
    }
  }
  return out;
}

/** Box means, of the columns' sums, for the columns from `start` to before `stop` of the row that begins at index `row`. */
function slide(
  sums: Float64Array, channels: number, radius: number, start: number, stop: number, share: number, shares: Float64Array,
  out: Float32Array, row: number,
): void {
  for (let c = 0; c < channels; c++) {
    let running = 0;
    let leave = start * channels + c; // `radius` + 1 further left in the picture
    let enter = leave;
    for (const end = leave + (2 * radius + 1) * channels; enter < end; enter += channels) running += sums[enter];
    for (let x = start, to = row + leave; x < stop; x++, enter += channels, leave += channels, to += channels) {
      running += sums[enter] - sums[leave];
      out[to] = running * share * shares[x];
    }
  }
}

/** `slide` for four channels at once, which takes a third of the time. */
function slideFour(
  sums: Float64Array, radius: number, start: number, stop: number, share: number, shares: Float64Array, out: Float32Array,
  row: number,
): void {
  let r0 = 0, r1 = 0, r2 = 0, r3 = 0;
  let leave = start * 4;
  let enter = leave;
  for (const end = leave + (2 * radius + 1) * 4; enter < end; enter += 4) {
    r0 += sums[enter];
    r1 += sums[enter + 1];
    r2 += sums[enter + 2];
    r3 += sums[enter + 3];
  }
  for (let x = start, to = row + leave; x < stop; x++, enter += 4, leave += 4, to += 4) {
    r0 += sums[enter] - sums[leave];
    r1 += sums[enter + 1] - sums[leave + 1];
    r2 += sums[enter + 2] - sums[leave + 2];
    r3 += sums[enter + 3] - sums[leave + 3];
    const scale = share * shares[x];
    out[to] = r0 * scale;
    out[to + 1] = r1 * scale;
    out[to + 2] = r2 * scale;
    out[to + 3] = r3 * scale;
  }
}

/** k of the working grid. */
export function workingFactor(height: number, width: number, workingSide: number): number {
  return Math.max(1, Math.floor(Math.max(height, width) / workingSide + 0.5));
}

/** Interleaved RGB, 8 bits to [0, 1]. */
function toUnit(pixels: Uint8Array): Float32Array<ArrayBuffer> {
  const out = new Float32Array(pixels.length);
  for (let i = 0; i < out.length; i++) out[i] = pixels[i] / 255;
  return out;
}

/** Means of interleaved channels over cells of stepY × stepX, the first from (0, 0) on; parts of pixels count in part. */
export function cellMeans(
  source: Float32Array, height: number, width: number, channels: number, rows: number, columns: number, stepY: number,
  stepX: number,
): Float32Array<ArrayBuffer> {
  const out = new Float32Array(rows * columns * channels);
  const stride = width * channels;
  const line = new Float64Array(stride);
  // Each cell ends `part` into the pixel `end`.
  const end = new Int32Array(columns);
  const part = new Float64Array(columns);
  const share = new Float64Array(columns);
  for (let column = 0; column < columns; column++) {
    const edge = Math.min((column + 1) * stepX, width);
    end[column] = Math.min(Math.floor(edge), width - 1);
    part[column] = edge - end[column];
    share[column] = 1 / (edge - column * stepX);
  }
  for (let row = 0; row < rows; row++) {
    const top = row * stepY;
    const bottom = Math.min(top + stepY, height);
    line.fill(0);
    for (let y = Math.floor(top); y < bottom; y++) {
      const weight = (Math.min(bottom, y + 1) - Math.max(top, y)) / (bottom - top);
      for (let i = 0, from = y * stride; i < stride; i++, from++) line[i] += weight * source[from];
    }
    for (let c = 0; c < channels; c++) {
      let [sum, before] = [0, 0]; // of the line: up to pixel `at`, up to the last cell's end
      for (let column = 0, at = c, to = row * columns * channels + c; column < columns; column++, to += channels) {
        for (const stop = end[column] * channels; at < stop; at += channels) sum += line[at];
        const until = sum + line[at] * part[column];
        out[to] = (until - before) * share[column];
        before = until;
      }
    }
  }
  return out;
}

/** How the guided filter is fitted; where `needed` is 0 nothing is. */
interface Windows { radius: number; epsilon: number; confidence: number; needed: Uint8Array }

/** Of each window: the target's variance, and what the model leaves over of it. */
interface Spread { variance: Float32Array; residual: Float32Array }

const PRODUCTS = 15; // w, wp, wr, wg, wb, wrp, wgp, wbp, wrr, wrg, wrb, wgg, wgb, wbb, wpp

/** Add `sign` times the products of row `y`, where `counted`, to the sums of columns from index `at` on. */
function addProducts(
  sums: Float64Array, at: number, guide: Float32Array, target: Float32Array, counted: Uint8Array, y: number, width: number,
  confidence: number, sign: number,
): void {
  for (let i = y * width, end = i + width; i < end; i++, at += PRODUCTS) {
    if (counted[i] === 0) continue;
    const p = target[i];
    const r = guide[i * 3];
    const g = guide[i * 3 + 1];
    const b = guide[i * 3 + 2];
    let w = sign;
    if (confidence !== 0) {
      const sure = Math.abs(2 * p - 1);
      w *= (confidence === 1 ? sure : sure ** confidence) + 1e-3;
    }
    const wp = w * p;
    const wr = w * r;
    const wg = w * g;
    const wb = w * b;
    sums[at] += w;
    sums[at + 1] += wp;
    sums[at + 2] += wr;
    sums[at + 3] += wg;
    sums[at + 4] += wb;
    sums[at + 5] += wr * p;
    sums[at + 6] += wg * p;
    sums[at + 7] += wb * p;
    sums[at + 8] += wr * r;
    sums[at + 9] += wr * g;
    sums[at + 10] += wr * b;
    sums[at + 11] += wg * g;
    sums[at + 12] += wg * b;
    sums[at + 13] += wb * b;
    sums[at + 14] += wp * p;
  }
}

/**
 * The local linear model of each window, four interleaved values a pixel (three slopes and the offset), into `fit`: the
 * weighted fit of the specification, in float64. `guide` is interleaved RGB in [0, 1], `target` is p. Windows are summed
 * as they slide along the runs of `needed`, so that none of the fifteen products is ever stored, and only what those
 * windows hold is looked at. With `variance` the target's goes there, and what the model leaves over of it comes back,
 * summed.
 */
function fitWindows(
  guide: Float32Array, target: Float32Array, height: number, width: number, windows: Windows, fit: Float32Array,
  spread?: Spread,
): void {
  const { radius, confidence, epsilon, needed } = windows;
  const counted = dilate(needed, height, width, radius);
  const size = 2 * radius + 1;
  const first = radius * PRODUCTS;
  const sums = new Float64Array((width + 2 * radius) * PRODUCTS); // of columns; those left and right of the picture stay 0
  for (let y = -radius; y < height; y++) {
    if (y + radius < height) addProducts(sums, first, guide, target, counted, y + radius, width, confidence, 1);
    if (y - radius - 1 >= 0) addProducts(sums, first, guide, target, counted, y - radius - 1, width, confidence, -1);
    if (y < 0) continue;
    const row = y * width;
    for (let start = 0, stop = 0; start < width; start = stop) {
      while (start < width && needed[row + start] === 0) start++;
      stop = start;
      while (stop < width && needed[row + stop] !== 0) stop++;
      if (start === stop) break;
      let s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0, s8 = 0, s9 = 0, s10 = 0, s11 = 0, s12 = 0, s13 = 0, s14 = 0;
      for (let column = start; column < stop + 2 * radius; column++) { // `radius` further left in the picture
        const enter = column * PRODUCTS;
        const leave = column - start < size ? 0 : enter - size * PRODUCTS;
        s0 += sums[enter] - sums[leave];
        s1 += sums[enter + 1] - sums[leave + 1];
        s2 += sums[enter + 2] - sums[leave + 2];
        s3 += sums[enter + 3] - sums[leave + 3];
        s4 += sums[enter + 4] - sums[leave + 4];
        s5 += sums[enter + 5] - sums[leave + 5];
        s6 += sums[enter + 6] - sums[leave + 6];
        s7 += sums[enter + 7] - sums[leave + 7];
        s8 += sums[enter + 8] - sums[leave + 8];
        s9 += sums[enter + 9] - sums[leave + 9];
        s10 += sums[enter + 10] - sums[leave + 10];
        s11 += sums[enter + 11] - sums[leave + 11];
        s12 += sums[enter + 12] - sums[leave + 12];
        s13 += sums[enter + 13] - sums[leave + 13];
        s14 += sums[enter + 14] - sums[leave + 14];
        const x = column - 2 * radius;
        if (x < start) continue;
        const one = 1 / s0;
        const p = s1 * one;
        const mr = s2 * one;
        const mg = s3 * one;
        const mb = s4 * one;
        const cr = s5 * one - mr * p;
        const cg = s6 * one - mg * p;
        const cb = s7 * one - mb * p;
        const rr = s8 * one - mr * mr + epsilon;
        const rg = s9 * one - mr * mg;
        const rb = s10 * one - mr * mb;
        const gg = s11 * one - mg * mg + epsilon;
        const gb = s12 * one - mg * mb;
        const bb = s13 * one - mb * mb + epsilon;
        // The adjugate of the symmetric matrix.
        const irr = gg * bb - gb * gb;
        const irg = rb * gb - rg * bb;
        const irb = rg * gb - rb * gg;
        const igg = rr * bb - rb * rb;
        const igb = rg * rb - rr * gb;
        const ibb = rr * gg - rg * rg;
        const scale = 1 / (rr * irr + rg * irg + rb * irb);
        const ar = (irr * cr + irg * cg + irb * cb) * scale;
        const ag = (irg * cr + igg * cg + igb * cb) * scale;
        const ab = (irb * cr + igb * cg + ibb * cb) * scale;
        const i = row + x;
        fit[i * 4] = ar;
        fit[i * 4 + 1] = ag;
        fit[i * 4 + 2] = ab;
        fit[i * 4 + 3] = p - ar * mr - ag * mg - ab * mb;
        if (!spread) continue;
        const variance = Math.max(0, s14 * one - p * p);
        spread.variance[i] = variance;
        spread.residual[i] = Math.max(0, variance - ar * cr - ag * cg - ab * cb);
      }
    }
  }
}

/** The guided filter's coefficients: `fitWindows`, and box means of what it gives. */
export function guidedCoefficients(
  guide: Float32Array, target: Float32Array, height: number, width: number, windows: Windows,
): Float32Array<ArrayBuffer> {
  const fit = new Float32Array(height * width * 4);
  fitWindows(guide, target, height, width, windows, fit);
  return boxMean(fit, height, width, 4, windows.radius, windows.needed);
}

/** clip(a · I + b, 0, 1) at pixel `i`. */
function modelled(coefficients: Float32Array, guide: Float32Array, i: number): number {
  const at = i * 4;
  const q = coefficients[at] * guide[i * 3] + coefficients[at + 1] * guide[i * 3 + 1] + coefficients[at + 2] * guide[i * 3 + 2]
    + coefficients[at + 3];
  return clip(q);
}

/** To [0, 1], without branches: where there is noise around 0 or 1 processors could not predict them. */
function clip(value: number): number {
  return (Math.abs(value) - Math.abs(value - 1) + 1) * 0.5;
}

/** Every pixel within `radius` of one of the mask's, both ways. */
function dilate(mask: Uint8Array, height: number, width: number, radius: number): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(mask.length);
  const until = new Int32Array(width).fill(-1); // the last row that each column's latest pixel reaches
  for (let y = 0; y < height + radius; y++) {
    if (y < height) {
      const row = y * width;
      for (let start = 0, stop = 0; start < width; start = stop) {
        while (start < width && mask[row + start] === 0) start++;
        stop = start;
        while (stop < width && mask[row + stop] !== 0) stop++;
        if (start < stop) until.fill(y + radius, Math.max(0, start - radius), stop + radius);
      }
    }
    if (y < radius) continue;
    for (let x = 0, at = (y - radius) * width; x < width; x++, at++) out[at] = until[x] >= y - radius ? 1 : 0;
  }
  return out;
}

/** How far a pixel may move, 0 where the map is sure. */
function unsureOf(p: number): number {
  const u = 4 * (1 - Math.abs(2 * p - 1));
  return u < UNSURE ? 0 : u < 1 ? u : 1;
}

/** 1 where `map` is unsure. */
function unsureMask(map: Float32Array): Uint8Array<ArrayBuffer> {
  const mask = new Uint8Array(map.length);
  for (let i = 0; i < map.length; i++) mask[i] = unsureOf(map[i]) > 0 ? 1 : 0;
  return mask;
}

/** The map with its edges where the picture has them, in place, and how far it was to be trusted, 0 to 1. */
function mendMap(guide: Float32Array, cells: Float32Array, height: number, width: number, settings: Refinement): Float32Array {
  const trust = new Float32Array(cells.length).fill(1);
  const unsure = unsureMask(cells);
  if (settings.reach === 0 || !unsure.includes(1)) return trust;
  const { reach, epsilon, confidence } = settings;
  const fit = new Float32Array(cells.length * 4);
  const spread = (): Spread => ({ variance: new Float32Array(cells.length), residual: new Float32Array(cells.length) });
  const unweighted = {
    radius: TRUST_RADIUS, epsilon: TRUST_EPSILON, confidence: 0, needed: dilate(unsure, height, width, TRUST_RADIUS + 1),
  };
  const leftOver = (map: Float32Array, of: Spread): number => {
    fitWindows(guide, map, height, width, unweighted, fit, of);
    return (sum(of.residual) + 1e-9) / (sum(of.variance) + 1e-9);
  };
  const sharp = spread();
  const wide = spread();
  const blurred = leftOver(boxMean(cells, height, width, 1, 1), wide);
  const left = leftOver(cells, sharp);
  const doubt = 1 - 1 / (1 + (left * (left / blurred) ** 2 / LEFT_OVER) ** 3);

  const windows = { radius: reach, epsilon, confidence, needed: dilate(unsure, height, width, reach + 1) };
  fitWindows(guide, cells, height, width, windows, fit.fill(0), wide);
  const amount = new Float32Array(cells.length);
  const moving = new Uint8Array(cells.length);
  for (let i = 0; i < cells.length; i++) {
    const explained = windows.needed[i] !== 0 ? 1 - wide.residual[i] / (wide.variance[i] + 1e-6) : 1;
    const square = explained * explained; // engines are slow at **
    trust[i] = 1 - doubt * square * square;
    amount[i] = (((1 - trust[i]) * sharp.variance[i]) / (sharp.variance[i] + EDGE_VARIANCE)) * unsureOf(cells[i]);
    if (amount[i] > UNMOVED) moving[i] = 1;
  }
  if (!moving.includes(1)) return trust;
  const map = cells.slice();
  let fitted = boxMean(fit, height, width, 4, reach, moving);
  for (let pass = 0; pass < 2; pass++) {
    if (pass > 0) fitted = guidedCoefficients(guide, cells, height, width, { ...windows, needed: dilate(moving, height, width, reach) });
    for (let i = 0; i < map.length; i++) if (moving[i]) cells[i] = map[i] + amount[i] * (modelled(fitted, guide, i) - map[i]);
  }
  return trust;
}

function sum(values: Float32Array): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i];
  return total;
}

/** The fits of step 3: the mended map and the correction, interleaved, and the coefficients on the working grid. */
function prepareGuided(
  saliency: Float32Array, mapHeight: number, mapWidth: number, reduced: BoxReduce, settings: Refinement,
): { maps: Float32Array; coefficients: Float32Array } {
  const { width: w, height: h, kx: k, sourceWidth, sourceHeight } = reduced;
  const guide = toUnit(reduced.pixels);
  const [rows, columns] = [Math.min(mapHeight, h), Math.min(mapWidth, w)];
  const [stepY, stepX] = [sourceHeight / (k * rows), sourceWidth / (k * columns)];
  const alike = rows === mapHeight && columns === mapWidth;
  const toMap = (cells: Float32Array): Float32Array => (alike ? cells : resizeBilinear(cells, rows, columns, mapHeight, mapWidth));
  const toGrid = (map: Float32Array): Float32Array =>
    new Stretch(map, mapHeight, mapWidth, 1, h, w, (mapHeight * k) / sourceHeight, (mapWidth * k) / sourceWidth).whole();

  const cells = alike ? saliency : cellMeans(saliency, mapHeight, mapWidth, 1, rows, columns, mapHeight / rows, mapWidth / columns);
  const mended = cells.slice();
  const trust = mendMap(cellMeans(guide, h, w, 3, rows, columns, stepY, stepX), mended, rows, columns, settings);
  const moved = toMap(combined(mended, cells, -1));
  const map = combined(saliency, moved, 1);

  const { radius, epsilon, confidence } = settings;
  const q = toGrid(map); // p at first
  const unsure = unsureMask(q);
  const needed = dilate(unsure, h, w, radius + 2); // the windows, and the neighbour that bilinear sampling takes
  const coefficients = guidedCoefficients(guide, q, h, w, { radius, epsilon, confidence, needed });
  follow(q, coefficients, guide, unsure);
  let correction = new Float32Array(saliency.length);
  for (let pass = 0; pass < 2; pass++) {
    const now = pass === 0 ? q : lifted(q, toGrid(correction), unsure);
    const missing = combined(mended, cellMeans(now, h, w, 1, rows, columns, stepY, stepX), -1);
    for (let i = 0; i < missing.length; i++) missing[i] *= trust[i];
    correction = combined(correction, toMap(missing), 1);
  }
  const maps = new Float32Array(saliency.length * 2);
  for (let i = 0; i < map.length; i++) {
    maps[2 * i] = map[i];
    maps[2 * i + 1] = correction[i];
  }
  return { maps, coefficients };
}

// Loops of their own, for engines compile functions that are called again, not each loop of a long one.

/** a + factor · b. */
function combined(a: Float32Array, b: Float32Array, factor: number): Float32Array<ArrayBuffer> {
  const out = new Float32Array(a.length);
  for (let i = 0; i < out.length; i++) out[i] = a[i] + factor * b[i];
  return out;
}

/** p becomes q, in place, where it is unsure. */
function follow(p: Float32Array, coefficients: Float32Array, guide: Float32Array, unsure: Uint8Array): void {
  for (let i = 0; i < p.length; i++) if (unsure[i] !== 0) p[i] += unsureOf(p[i]) * (modelled(coefficients, guide, i) - p[i]);
}

/** clip(q + c, 0, 1) where the map is unsure, else q; into `c`. */
function lifted(q: Float32Array, c: Float32Array, unsure: Uint8Array): Float32Array {
  for (let i = 0; i < q.length; i++) c[i] = unsure[i] !== 0 ? clip(q[i] + c[i]) : q[i];
  return c;
}

/** Steps 2 to 4 without feathering, row by row from the top. `reduced` is the picture on the working grid of `settings`. */
export class MatteRows {
  readonly #map: Stretch;
  readonly #coefficients?: Stretch;
  readonly #threshold: number | null;
  /** Columns of the picture that have each column of the map on their left: from its entry to before the next. */
  readonly #columns: Int32Array;
  /**
   * Where the last row is in between: from each even entry, of the first `bounds`, to before the odd one that follows.
   * What lies between those is 0 or 1 in 8 bits, all of one stretch alike.
   */
  readonly between: Int32Array;
  bounds = 0;

  constructor(
    readonly width: number, height: number, saliency: Float32Array, mapHeight: number, mapWidth: number,
    settings: Refinement, reduced?: BoxReduce,
  ) {
    this.#threshold = settings.threshold === null ? null : Math.fround(settings.threshold);
    let [maps, channels] = [saliency, 1];
    if (settings.edges === "guided" && reduced) {
      const prepared = prepareGuided(saliency, mapHeight, mapWidth, reduced, settings);
      [maps, channels] = [prepared.maps, 2];
      const { width: w, height: h, kx: k } = reduced;
      this.#coefficients = new Stretch(prepared.coefficients, h, w, 4, height, width, 1 / k, 1 / k);
    }
    this.#map = new Stretch(maps, mapHeight, mapWidth, channels, height, width, mapHeight / height, mapWidth / width);
    this.#columns = new Int32Array(mapWidth + 1).fill(width);
    for (let x = width - 1, column = mapWidth; x >= 0; x--) while (column > this.#map.horizontal.left[x] + 1) this.#columns[--column] = x + 1;
    this.#columns[0] = 0;
    this.between = new Int32Array(mapWidth + 2);
  }

  /** Row `y` of the matte in [0, 1] into `out`; its pixels are `rgba` from `at` on. */
  row(y: number, rgba: Uint8ClampedArray | Uint8Array, at: number, out: Float32Array): void {
    const line = this.#map.line(y);
    const { sourceWidth, channels } = this.#map;
    const columns = this.#columns;
    this.bounds = 0;
    for (let column = 0; column < sourceWidth;) {
      const start = columns[column];
      const kind = this.#kind(line, column);
      do column++; while (column < sourceWidth && this.#kind(line, column) === kind);
      const end = columns[column];
      if (kind !== BETWEEN) {
        out.fill(kind, start, end);
        continue;
      }
      this.#widen(line, start, end, out);
      if (channels > 1 && start < end) this.#refine(y, rgba, at, out, line, start, end);
      this.between[this.bounds++] = start; // though it may be empty, in pictures smaller than the map
      this.between[this.bounds++] = end;
    }
    if (this.#threshold !== null) for (let x = 0; x < out.length; x++) out[x] = out[x] >= this.#threshold ? 1 : 0;
  }

  /** What the pixels that have the map's `column` on their left are, refined or not: 0, 1 or BETWEEN. */
  #kind(line: Float32Array, column: number): number {
    const { channels, sourceWidth } = this.#map;
    const a = line[column * channels];
    const b = column + 1 < sourceWidth ? line[(column + 1) * channels] : a;
    // A threshold may be lower or higher than any value that matters otherwise.
    if (this.#threshold === null && a <= UNSURE / 8 && b <= UNSURE / 8) return 0;
    return this.#threshold === null && a >= 1 - UNSURE / 8 && b >= 1 - UNSURE / 8 ? 1 : BETWEEN;
  }

  /** The map for the columns from `first` to before `end`. */
  #widen(line: Float32Array, first: number, end: number, out: Float32Array): void {
    const { horizontal: { left, right, weight }, channels } = this.#map;
    for (let x = first; x < end; x++) {
      const a = line[left[x] * channels];
      out[x] = a + (line[right[x] * channels] - a) * weight[x];
    }
  }

  /** Step 3 for the columns from `first` to before `end`. */
  #refine(
    y: number, rgba: Uint8ClampedArray | Uint8Array, at: number, out: Float32Array, line: Float32Array, first: number, end: number,
  ): void {
    if (!this.#coefficients) return;
    const { left, right, weight } = this.#coefficients.horizontal;
    const { left: mapLeft, right: mapRight, weight: mapWeight } = this.#map.horizontal;
    const c = this.#coefficients.line(y, left[first], right[end - 1] + 1);
    for (let x = first; x < end;) {
      const column = left[x];
      const l = column * 4;
      const r = right[x] * 4;
      const ar = c[l];
      const ag = c[l + 1];
      const ab = c[l + 2];
      const b = c[l + 3];
      const dr = c[r] - ar;
      const dg = c[r + 1] - ag;
      const db = c[r + 2] - ab;
      const d = c[r + 3] - b;
      do {
        const p = out[x];
        const unsure = 4 * (1 - Math.abs(2 * p - 1));
        if (unsure >= UNSURE) {
          const w = weight[x];
          const i = at + 4 * x;
          const q = clip(b + d * w
            + ((ar + dr * w) * rgba[i] + (ag + dg * w) * rgba[i + 1] + (ab + db * w) * rgba[i + 2]) * (1 / 255));
          const before = line[mapLeft[x] * 2 + 1];
          const correction = before + (line[mapRight[x] * 2 + 1] - before) * mapWeight[x];
          out[x] = clip(p + (unsure < 1 ? unsure : 1) * (q - p) + correction);
        }
      } while (++x < end && left[x] === column);
    }
  }
}

// ---- 4. and 5. The matte --------------------------------------------------------------------------------------------

/** Softened: two box means of radius max(1, floor(pixels + 0.5)), in bands, so that one copy is all the memory needed. */
export function feather(values: Float32Array, height: number, width: number, pixels: number): Float32Array<ArrayBuffer> {
  const radius = Math.max(1, Math.floor(pixels + 0.5));
  const out = new Float32Array(values.length);
  const rows = Math.max(4 * radius, Math.floor((1 << 19) / width));
  for (let y = 0; y < height; y += rows) {
    const end = Math.min(height, y + rows);
    const first = Math.max(0, y - 2 * radius);
    const count = Math.min(height, end + 2 * radius) - first;
    const band = values.subarray(first * width, (first + count) * width);
    const soft = boxMean(boxMean(band, count, width, 1, radius), count, width, 1, radius);
    out.set(soft.subarray((y - first) * width, (end - first) * width), y * width);
  }
  return out;
}

/** Steps 1 to 5 on a whole picture, RGBA: the matte in 8 bits. */
export function matte(
  rgba: Uint8ClampedArray | Uint8Array, height: number, width: number, saliency: Float32Array, size: number,
  option: RefineOption = "balanced",
): Uint8Array<ArrayBuffer> {
  const settings = refinement(option);
  const reduced = reduceFor(rgba, height, width, settings.workingSide);
  const rows = new MatteRows(width, height, clean(saliency, size, size, settings), size, size, settings, reduced);
  let values = new Float32Array(height * width);
  for (let y = 0; y < height; y++) rows.row(y, rgba, y * width * 4, values.subarray(y * width, (y + 1) * width));
  if (settings.feather > 0) values = feather(values, height, width, settings.feather);
  const out = new Uint8Array(values.length);
  for (let i = 0; i < out.length; i++) out[i] = toAlpha(values[i] * (rgba[i * 4 + 3] / 255));
  return out;
}

function reduceFor(rgba: Uint8ClampedArray | Uint8Array, height: number, width: number, side: number): BoxReduce {
  const k = workingFactor(height, width, side);
  const reduced = new BoxReduce(width, height, k, k, 3);
  reduced.push(rgba, height);
  return reduced;
}

// ---- 6. Colours -----------------------------------------------------------------------------------------------------

/** k of the working grid of the colours. */
export function colourFactor(height: number, width: number): number {
  return workingFactor(height, width, COLOUR_SIDE);
}

const UNIT = Float64Array.from({ length: 256 }, (_, value) => value / 255);
const SHARE = UNIT.map((a) => a / (a * a + (1 - a) * (1 - a))); // of what is left over in a colour, the subject's

/** Colours of the subject alone, row by row; picture and matte are given on the colours' working grid. */
export class ForegroundRows {
  readonly #estimates: Stretch;

  constructor(readonly width: number, height: number, reduced: BoxReduce, matteReduced: BoxReduce) {
    const { width: w, height: h, kx: k } = reduced;
    const colours = toUnit(reduced.pixels);
    this.#estimates = new Stretch(fuse(colours, matteReduced.pixels, h, w), h, w, 6, height, width, 1 / k, 1 / k);
  }

  /** Put colours and matte of one row, from matte index `from` on, into RGBA at byte `at`. Black where alpha is 0. */
  row(y: number, rgba: Uint8ClampedArray, at: number, alpha: Uint8Array, from: number): void {
    const stretch = this.#estimates;
    let line: Float32Array | undefined;
    const { left, right, weight } = stretch.horizontal;
    const end = from + this.width;
    for (let i = from, p = at; i < end;) {
      const a8 = alpha[i];
      if (a8 === 0) {
        const start = p;
        do p += 4; while (++i < end && alpha[i] === 0);
        rgba.fill(0, start, p);
        continue;
      }
      if (a8 === 255) { // as the picture's own transparency is, then
        do p += 4; while (++i < end && alpha[i] === 255);
        continue;
      }
      line ??= stretch.line(y);
      const x = i - from;
      const l = left[x] * 6;
      const r = right[x] * 6;
      const w = weight[x];
      const a = UNIT[a8];
      const share = SHARE[a8];
      rgba[p] = frontColour(line[l], line[r], line[l + 3], line[r + 3], w, a, share, rgba[p]);
      rgba[p + 1] = frontColour(line[l + 1], line[r + 1], line[l + 4], line[r + 4], w, a, share, rgba[p + 1]);
      rgba[p + 2] = frontColour(line[l + 2], line[r + 2], line[l + 5], line[r + 5], w, a, share, rgba[p + 2]);
      rgba[p + 3] = a8;
      p += 4;
      i++;
    }
  }
}

/** F of one channel in 8 bits, with F̂ and B̂ between their left and right samples; what is under 0 the clamped array mends. */
function frontColour(
  f: number, fRight: number, b: number, bRight: number, weight: number, a: number, share: number, value: number,
): number {
  const front = f + (fRight - f) * weight;
  const back = b + (bRight - b) * weight;
  return ((front + share * (UNIT[value] - a * front - (1 - a) * back)) * 255 + 0.5) | 0; // floor, but under 0
}

/** F̂ and B̂ of the last level, six interleaved values a pixel. */
function fuse(colours: Float32Array, matte: Uint8Array, height: number, width: number): Float32Array {
  const front = new Float32Array(colours.length);
  const back = colours.slice();
  const weighted = new Float32Array(matte.length * 4);
  const [fronts, backs] = [new Float32Array(matte.length * 4), new Float32Array(matte.length * 4)];
  const frontWeight = UNIT.map((a) => a ** 2);
  const backWeight = UNIT.map((a) => (1 - a) ** 4);
  for (const radius of COLOUR_RADII) {
    average(back, matte, backWeight, height, width, radius, weighted, backs);
    unmixFront(colours, matte, backs, front);
    average(front, matte, frontWeight, height, width, radius, weighted, fronts);
    unmixBack(colours, matte, fronts, backs, back);
  }
  const estimates = new Float32Array(matte.length * 6);
  for (let i = 0, from = 0; i < estimates.length; i += 6, from += 4) {
    for (let c = 0; c < 3; c++) {
      estimates[i + c] = fronts[from + c];
      estimates[i + 3 + c] = backs[from + c];
    }
  }
  return estimates;
}

const FRONT_SHARE = UNIT.map((a) => 1 / Math.max(a, 0.1));
const BACK_SHARE = UNIT.map((a) => (1 - a) / (a * a + (1 - a) * (1 - a)));

/** F from the picture and B̂. */
function unmixFront(colours: Float32Array, matte: Uint8Array, backs: Float32Array, front: Float32Array): void {
  for (let i = 0, p = 0, at = 0; i < matte.length; i++, p += 3, at += 4) {
    const clear = 1 - UNIT[matte[i]];
    const scale = FRONT_SHARE[matte[i]];
    front[p] = clip((colours[p] - clear * backs[at]) * scale);
    front[p + 1] = clip((colours[p + 1] - clear * backs[at + 1]) * scale);
    front[p + 2] = clip((colours[p + 2] - clear * backs[at + 2]) * scale);
  }
}

/** B from the picture, F̂ and B̂. */
function unmixBack(colours: Float32Array, matte: Uint8Array, fronts: Float32Array, backs: Float32Array, back: Float32Array): void {
  for (let i = 0, p = 0, at = 0; i < matte.length; i++, p += 3, at += 4) {
    const a = UNIT[matte[i]];
    const clear = 1 - a;
    const share = BACK_SHARE[matte[i]];
    back[p] = clip(backs[at] + share * (colours[p] - a * fronts[at] - clear * backs[at]));
    back[p + 1] = clip(backs[at + 1] + share * (colours[p + 1] - a * fronts[at + 1] - clear * backs[at + 1]));
    back[p + 2] = clip(backs[at + 2] + share * (colours[p + 2] - a * fronts[at + 2] - clear * backs[at + 2]));
  }
}

/** Box means of colours weighted by what `weights` says for the matte, over those of the weights, into `means` (of four). */
function average(
  source: Float32Array, matte: Uint8Array, weights: Float64Array, height: number, width: number, radius: number,
  weighted: Float32Array, means: Float32Array<ArrayBuffer>,
): void {
  for (let i = 0, from = 0, at = 0; i < matte.length; i++, from += 3, at += 4) {
    const weight = weights[matte[i]];
    weighted[at] = weight * source[from];
    weighted[at + 1] = weight * source[from + 1];
    weighted[at + 2] = weight * source[from + 2];
    weighted[at + 3] = weight;
  }
  boxMean(weighted, height, width, 4, radius, undefined, means);
  for (let at = 0; at < means.length; at += 4) {
    const scale = 1 / (means[at + 3] + 1e-5);
    means[at] *= scale;
    means[at + 1] *= scale;
    means[at + 2] *= scale;
  }
}

/** Step 6 on a whole picture: RGBA with the matte, colours without the background's share, black where alpha is 0. */
export function estimateForeground(
  rgba: Uint8ClampedArray | Uint8Array, height: number, width: number, alpha: Uint8Array, workingSide = COLOUR_SIDE,
): Uint8ClampedArray<ArrayBuffer> {
  const out = new Uint8ClampedArray(rgba);
  const reduced = reduceFor(rgba, height, width, workingSide);
  const matteReduced = new BoxReduce(width, height, reduced.kx, reduced.ky, 1);
  matteReduced.push(alpha, height);
  const rows = new ForegroundRows(width, height, reduced, matteReduced);
  for (let y = 0; y < height; y++) rows.row(y, out, y * width * 4, alpha, y * width);
  return out;
}
