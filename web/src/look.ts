/**
 * Looking again: a map that shows small subjects and wide pictures as well as a close crop would. The specification is
 * u2net/second_look.py, step by step; names are the same but for their spelling.
 */
import { NetworkResize, resizeBilinear } from "./pixels.js";

/** In pixels of the picture; right and bottom are excluded. */
export interface Part { left: number; top: number; right: number; bottom: number }

/** float32 in [0, 1], row by row. */
export interface SaliencyMap { values: Float32Array<ArrayBuffer>; height: number; width: number }

export interface Seen extends SaliencyMap {
  /** Passes of the network. */
  looks: number;
  /** What the second look looked at, where it is believed. */
  box?: Part;
}

/** The map (size, size) of a part of the picture; mirrored, the network's input is turned round and its map back. */
export type Look = (part: Part, mirrored: boolean) => Promise<Float32Array<ArrayBuffer>>;

const WIDE = 2;
const WINDOW = 1.5;
const MOST_WINDOWS = 16;
const FOUND = Math.fround(0.3);
const MARGIN = 0.3;
const NEARLY_ALL = 0.9;
const SURE = 0.9;
const BELIEVED = 0.5;
const FINEST = 4;

/** `NetworkResize` of a part of a picture, out of whole rows of it. */
export class PartResize {
  readonly #resize: NetworkResize;

  constructor(readonly part: Part, size: number) {
    this.#resize = new NetworkResize(part.right - part.left, part.bottom - part.top, size);
  }

  /** RGBA rows of the picture, `width` pixels each, from row `y` on; those outside the part are passed over. */
  push(rgba: Uint8ClampedArray, y: number, rows: number, width: number): void {
    const { left, top, right, bottom } = this.part;
    const [from, to] = [Math.max(y, top), Math.min(y + rows, bottom)];
    if (from >= to) return;
    const across = (right - left) * 4;
    if (across === width * 4) {
      this.#resize.push(rgba.subarray((from - y) * across, (to - y) * across), to - from);
      return;
    }
    const cut = new Uint8ClampedArray((to - from) * across);
    for (let row = from; row < to; row++) {
      const at = ((row - y) * width + left) * 4;
      cut.set(rgba.subarray(at, at + across), (row - from) * across);
    }
    this.#resize.push(cut, to - from);
  }

  /** As of `NetworkResize`. */
  finish(): Float32Array<ArrayBuffer> {
    return this.#resize.finish();
  }
}

/** Steps 2 to 5, after the first look's map `first`, for which the network ran `looks` times. */
export async function lookAgain(first: SaliencyMap, looks: number, width: number, height: number, size: number, look: Look): Promise<Seen> {
  const box = subjectBox(first, width, height);
  if (!box || (box.right - box.left) * (box.bottom - box.top) >= NEARLY_ALL * width * height) return { ...first, looks };
  const before = sampleBox(first, box, width, height, size);
  const second = await look(box, false);
  looks++;
  const seen = new Float32Array(size * size);
  if (agreement(before, second) >= SURE) {
    for (let i = 0; i < seen.length; i++) seen[i] = (2 * second[i] + before[i]) / 3;
  } else {
    const mirrored = await look(box, true);
    looks++;
    for (let i = 0; i < seen.length; i++) seen[i] = (second[i] + mirrored[i] + before[i]) / 3;
  }
  if (agreement(before, seen) < BELIEVED) return { ...first, looks };
  return { ...putBack(first, seen, size, box, width, height), looks, box };
}

/** The parts that the first look sees, in order: the picture, or windows along the long side of a wide one. */
export function windows(width: number, height: number): Part[] {
  const [long, short] = [Math.max(width, height), Math.min(width, height)];
  if (long <= WIDE * short) return [{ left: 0, top: 0, right: width, bottom: height }];
  const side = Math.floor(Math.max(WINDOW * short, long / MOST_WINDOWS) + 0.5);
  const count = 1 + Math.ceil((long - side) / ((side * 2) / 3));
  return Array.from({ length: count }, (_, index) => {
    const start = Math.floor((index * (long - side)) / (count - 1) + 0.5);
    return width >= height ? { left: start, top: 0, right: start + side, bottom: height } : { left: 0, top: start, right: width, bottom: start + side };
  });
}

/** One map of the whole picture from those of `windows`, (size, size) each. */
export function mergeWindows(maps: Float32Array<ArrayBuffer>[], parts: Part[], size: number, width: number, height: number): SaliencyMap {
  if (parts.length === 1) return { values: maps[0], height: size, width: size };
  if (height > width) {
    const turned = parts.map(({ left, top, right, bottom }) => ({ left: top, top: left, right: bottom, bottom: right }));
    const merged = mergeWindows(maps.map((map) => transposed(map, size, size)), turned, size, height, width);
    return { values: transposed(merged.values, merged.height, merged.width), height: merged.width, width: merged.height };
  }
  const cells = Math.floor((size * width) / (parts[0].right - parts[0].left) + 0.5);
  const values = new Float32Array(size * cells);
  const weights = new Float32Array(cells);
  const every = Float64Array.from({ length: size }, (_, y) => y);
  parts.forEach(({ left, right }, i) => {
    const inside: number[] = [];
    for (let cell = 0; cell < cells; cell++) {
      const x = (cell + 0.5) * (width / cells);
      if (x >= left && x < right) inside.push(cell);
    }
    const centres = inside.map((cell) => (cell + 0.5) * (width / cells));
    const sampled = sampledAt(maps[i], size, size, every, Float64Array.from(centres, (x) => (x - left) * (size / (right - left)) - 0.5));
    inside.forEach((cell, k) => {
      const weight = Math.fround(Math.min(centres[k] - left, right - centres[k]));
      weights[cell] += weight;
      for (let y = 0; y < size; y++) values[y * cells + cell] += weight * sampled[y * inside.length + k];
    });
  });
  for (let at = 0; at < values.length; at++) values[at] /= weights[at % cells];
  return { values, height: size, width: cells };
}

/** The box around all that is found in a map, with its margin; undefined where nothing is. */
export function subjectBox(map: SaliencyMap, width: number, height: number): Part | undefined {
  let [first, last, top, bottom] = [map.width, -1, -1, -1];
  for (let y = 0, at = 0; y < map.height; y++) {
    for (let x = 0; x < map.width; x++, at++) {
      if (map.values[at] < FOUND) continue;
      if (x < first) first = x;
      if (x > last) last = x;
      if (top < 0) top = y;
      bottom = y;
    }
  }
  if (last < 0) return undefined;
  const extent = (from: number, to: number, count: number, length: number): [number, number] => {
    const [low, high] = [(from * length) / count, ((to + 1) * length) / count];
    const room = MARGIN * (high - low);
    return [Math.max(0, Math.floor(low - room)), Math.min(length, Math.ceil(high + room))];
  };
  const [left, right] = extent(first, last, map.width, width);
  const [above, below] = extent(top, bottom, map.height, height);
  return { left, top: above, right, bottom: below };
}

/** A map of the whole picture sampled over a box: (size, size). */
export function sampleBox(map: SaliencyMap, box: Part, width: number, height: number, size: number): Float32Array<ArrayBuffer> {
  const positions = (low: number, high: number, cells: number, length: number): Float64Array =>
    Float64Array.from({ length: size }, (_, i) => (low + (i + 0.5) * ((high - low) / size)) * (cells / length) - 0.5);
  return sampledAt(
    map.values, map.height, map.width, positions(box.top, box.bottom, map.height, height), positions(box.left, box.right, map.width, width),
  );
}

/** Intersection over union of a ≥ 0.5 and b ≥ 0.5; 1 where both are empty. */
export function agreement(a: Float32Array, b: Float32Array): number {
  let [both, either] = [0, 0];
  for (let i = 0; i < a.length; i++) {
    const [first, second] = [a[i] >= 0.5, b[i] >= 0.5];
    if (first && second) both++;
    if (first || second) either++;
  }
  return either ? both / either : 1;
}

/** The map of the whole picture, as fine as `seen`, (size, size), is, with that in the box. */
export function putBack(map: SaliencyMap, seen: Float32Array, size: number, box: Part, width: number, height: number): SaliencyMap {
  const grid = (cells: number, low: number, high: number, length: number) => {
    const count = Math.max(cells, Math.min(length, FINEST * size, Math.ceil((size * length) / (high - low))));
    const inside: number[] = [];
    for (let cell = 0; cell < count; cell++) {
      const x = (cell + 0.5) * (length / count);
      if (x >= low && x < high) inside.push(cell);
    }
    const at = Float64Array.from(inside, (cell) => ((cell + 0.5) * (length / count) - low) * (size / (high - low)) - 0.5);
    return { count, from: inside[0], at };
  };
  const rows = grid(map.height, box.top, box.bottom, height);
  const columns = grid(map.width, box.left, box.right, width);
  const values = resizeBilinear(map.values, map.height, map.width, rows.count, columns.count);
  const inner = sampledAt(seen, size, size, rows.at, columns.at);
  const across = columns.at.length;
  for (let y = 0; y < rows.at.length; y++) {
    values.set(inner.subarray(y * across, (y + 1) * across), (rows.from + y) * columns.count + columns.from);
  }
  return { values, height: rows.count, width: columns.count };
}

/** Turned round, left to right; a row has `width` pixels of `channels` values. */
export function mirror(values: Float32Array, width: number, channels: number): Float32Array<ArrayBuffer> {
  const out = new Float32Array(values.length);
  const row = width * channels;
  for (let start = 0; start < values.length; start += row) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < channels; c++) out[start + x * channels + c] = values[start + (width - 1 - x) * channels + c];
    }
  }
  return out;
}

function transposed(values: Float32Array, height: number, width: number): Float32Array<ArrayBuffer> {
  const out = new Float32Array(values.length);
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) out[x * height + y] = values[y * width + x];
  return out;
}

/** Bilinear, at rows `y` and columns `x`, clamped to the map's edges. */
function sampledAt(map: Float32Array, height: number, width: number, y: Float64Array, x: Float64Array): Float32Array<ArrayBuffer> {
  const taps = (positions: Float64Array, count: number) => Array.from(positions, (position) => {
    const clamped = Math.min(Math.max(position, 0), count - 1);
    const low = Math.floor(clamped);
    return { low, high: Math.min(low + 1, count - 1), share: Math.fround(clamped - low) };
  });
  const out = new Float32Array(y.length * x.length);
  const columns = taps(x, width);
  let to = 0;
  for (const { low, high, share } of taps(y, height)) {
    const [top, bottom] = [low * width, high * width];
    for (const column of columns) {
      const upper = map[top + column.low] + (map[top + column.high] - map[top + column.low]) * column.share;
      const lower = map[bottom + column.low] + (map[bottom + column.high] - map[bottom + column.low]) * column.share;
      out[to++] = upper + (lower - upper) * share;
    }
  }
  return out;
}
