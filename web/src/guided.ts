/** Step 3 of the specification: a map checked against the picture, and brought to full size by a guided filter. */
import { type BoxReduce, resizeBilinear } from "./pixels.js";
import type { Refinement } from "./refinement.js";
import { boxMean, cellMeans, clip, Stretch, toUnit } from "./sampling.js";

export const UNSURE = 1 / 64; // where a pixel would move by a smaller part the map is sure
const UNMOVED = 1e-5; // where mending would move the map by less it does not
const TRUST_RADIUS = 2; // these four as in the specification
const TRUST_EPSILON = 1e-6;
const LEFT_OVER = 0.04;
const EDGE_VARIANCE = 0.004;

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
export function prepareGuided(
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
