/** A matte that somebody repairs, step by step; each step can be undone. Nothing here knows of pages or canvases. */
import { connectedComponents, fillHoles } from "../../src/components.js";
import { BoxReduce } from "../../src/pixels.js";
import { workingFactor } from "../../src/sampling.js";
import { type Box, cropRows } from "../../src/subject.js";
import { snap } from "./snap.js";

export interface Point { x: number; y: number }
export interface Brush { radius: number; restore: boolean }

const GRID_SIDE = 1024; // about the longest side of the grid on which subjects and holes are told apart
const SUPPORT = 26; // a tenth: fainter parts connect nothing
const HISTORY_BYTES = 64e6;
const SOFT = 0.3; // of the radius, in which a stroke fades out

interface Step { box: Box; values: Uint8Array<ArrayBuffer> }
interface Stroke { before: Uint8Array<ArrayBuffer>; cover: Uint8Array<ArrayBuffer>; box?: Box; brush: Brush }

export class EditedMatte {
  readonly #undo: Step[] = [];
  #redo: Step[] = [];
  #stroke?: Stroke;

  /** `data` is changed in place. */
  constructor(readonly data: Uint8Array<ArrayBuffer>, readonly width: number, readonly height: number) {}

  get canUndo(): boolean { return this.#undo.length > 0; }
  get canRedo(): boolean { return this.#redo.length > 0; }

  begin(brush: Brush): void {
    this.#stroke = { before: this.data.slice(), cover: new Uint8Array(this.data.length), brush };
  }

  /** Paint from one point to the next; returns what has changed. */
  paint(from: Point, to: Point): Box | undefined {
    const stroke = this.#stroke;
    if (!stroke) return undefined;
    const { before, cover, brush: { radius, restore } } = stroke;
    const box = this.#inside(Math.min(from.x, to.x) - radius, Math.min(from.y, to.y) - radius, Math.max(from.x, to.x) + radius, Math.max(from.y, to.y) + radius);
    if (!box) return undefined;
    const [dx, dy] = [to.x - from.x, to.y - from.y];
    const length = dx * dx + dy * dy;
    for (let y = box.y; y < box.y + box.height; y++) {
      for (let x = box.x, i = y * this.width + x; x < box.x + box.width; x++, i++) {
        const [px, py] = [x + 0.5 - from.x, y + 0.5 - from.y];
        const along = length ? Math.min(1, Math.max(0, (px * dx + py * dy) / length)) : 0;
        const near = 1 - Math.hypot(px - along * dx, py - along * dy) / radius;
        if (near * 255 <= cover[i]) continue;
        cover[i] = near * 255;
        this.data[i] = painted(before[i], restore ? 255 : 0, fade(cover[i]));
      }
    }
    stroke.box = union(stroke.box, box);
    return box;
  }

  /** The stroke ends; with `guide`, which gives the picture's RGBA of a box, its edge follows the picture's. */
  end(guide?: (box: Box) => Uint8ClampedArray): Box | undefined {
    const stroke = this.#stroke;
    this.#stroke = undefined;
    if (!stroke?.box) return undefined;
    const { before, cover, brush: { radius, restore }, box } = stroke;
    if (guide) {
      const wide = this.#inside(box.x - radius, box.y - radius, box.x + box.width + radius, box.y + box.height + radius)!;
      const part = (values: Uint8Array): Uint8Array => cropRows(values, this.width, this.height, wide);
      this.#put(wide, snap(guide(wide), wide.width, wide.height, part(before), part(cover), radius, restore));
    }
    this.#remember({ box, values: cropRows(before, this.width, this.height, box) });
    return box;
  }

  /** The stroke was none; what it had covered is as before. */
  cancel(): Box | undefined {
    const { box, before } = this.#stroke ?? {};
    this.#stroke = undefined;
    if (box && before) this.#put(box, cropRows(before, this.width, this.height, box));
    return box;
  }

  /** Everything but the subject at a point goes; undefined where there is none. */
  keepOnly({ x, y }: Point): Box | undefined {
    const { grid, k } = this.#reduced();
    const { width, height } = grid;
    const { labels } = connectedComponents(grid.pixels.map((value) => Number(value >= SUPPORT)), height, width, true);
    const chosen = labels[Math.min(height - 1, Math.floor(y / k)) * width + Math.min(width - 1, Math.floor(x / k))];
    if (!chosen) return undefined;
    // Soft edges reach beyond what connects; those of others do, too.
    const kept = grown(labels, width, height, (label) => label === chosen, (label) => label === 0, 2);
    return this.#change(k, width, (cell, value) => (kept[cell] ? value : 0));
  }

  /** Every hole that the subject closes all around is filled; undefined where there is none. */
  fillHoles(): Box | undefined {
    const { grid, k } = this.#reduced();
    const { width, height } = grid;
    const map = Float32Array.from(grid.pixels, (value) => value / 255);
    const full = fillHoles(map, height, width, 1);
    const filled = grown(full, width, height, (value, i) => value !== map[i], (value) => value >= 0.5, 2);
    return this.#change(k, width, (cell, value) => (filled[cell] ? 255 : value));
  }

  undo(): Box | undefined { return this.#swap(this.#undo, this.#redo); }
  redo(): Box | undefined { return this.#swap(this.#redo, this.#undo); }

  #reduced(): { grid: BoxReduce; k: number } {
    const k = workingFactor(this.height, this.width, GRID_SIDE);
    const grid = new BoxReduce(this.width, this.height, k, k, 1);
    grid.push(this.data, this.height);
    return { grid, k };
  }

  #change(k: number, columns: number, change: (cell: number, value: number) => number): Box | undefined {
    const before = this.data.slice();
    let [left, top, right, bottom] = [this.width, this.height, -1, -1];
    for (let y = 0, i = 0; y < this.height; y++) {
      const row = Math.floor(y / k) * columns;
      for (let x = 0; x < this.width; x++, i++) {
        const value = change(row + Math.floor(x / k), before[i]);
        if (value === before[i]) continue;
        this.data[i] = value;
        [left, right, top, bottom] = [Math.min(left, x), Math.max(right, x), Math.min(top, y), y];
      }
    }
    const box = this.#inside(left, top, right + 1, bottom + 1);
    if (box) this.#remember({ box, values: cropRows(before, this.width, this.height, box) });
    return box;
  }

  #swap(from: Step[], to: Step[]): Box | undefined {
    const step = from.pop();
    if (!step) return undefined;
    to.push({ box: step.box, values: cropRows(this.data, this.width, this.height, step.box) });
    this.#put(step.box, step.values);
    return step.box;
  }

  #put({ x, y, width, height }: Box, values: Uint8Array): void {
    for (let row = 0; row < height; row++) this.data.set(values.subarray(row * width, (row + 1) * width), (y + row) * this.width + x);
  }

  #remember(step: Step): void {
    this.#redo = [];
    this.#undo.push(step);
    let bytes = this.#undo.reduce((sum, { values }) => sum + values.length, 0);
    while (bytes > HISTORY_BYTES && this.#undo.length > 1) bytes -= this.#undo.shift()!.values.length;
  }

  /** Whole pixels of the matte between these edges. */
  #inside(left: number, top: number, right: number, bottom: number): Box | undefined {
    const [x, y] = [Math.max(0, Math.floor(left)), Math.max(0, Math.floor(top))];
    const [width, height] = [Math.min(this.width, Math.ceil(right)) - x, Math.min(this.height, Math.ceil(bottom)) - y];
    return width > 0 && height > 0 ? { x, y, width, height } : undefined;
  }
}

/** How much a stroke counts where it covers so much, 0 to 1: all of it but for its rim. */
export function fade(cover: number): number {
  return Math.min(1, cover / (255 * SOFT));
}

/** `value` moved towards 0 or 255, never away from it. */
function painted(value: number, target: number, share: number): number {
  return target ? Math.max(value, Math.round(255 * share)) : Math.min(value, Math.round(255 * (1 - share)));
}

function union(a: Box | undefined, b: Box): Box {
  if (!a) return b;
  const [x, y] = [Math.min(a.x, b.x), Math.min(a.y, b.y)];
  return { x, y, width: Math.max(a.x + a.width, b.x + b.width) - x, height: Math.max(a.y + a.height, b.y + b.height) - y };
}

/** 1 where `seed` holds, and up to `steps` cells from there where `may` does. */
function grown<T extends Int32Array | Float32Array>(
  cells: T, width: number, height: number, seed: (value: number, i: number) => boolean, may: (value: number) => boolean, steps: number,
): Uint8Array {
  const out = new Uint8Array(cells.length);
  let edge: number[] = [];
  for (let i = 0; i < cells.length; i++) if (seed(cells[i], i)) edge.push(i);
  for (const i of edge) out[i] = 1;
  for (let step = 0; step < steps; step++) {
    const next: number[] = [];
    for (const i of edge) {
      const [x, y] = [i % width, Math.floor(i / width)];
      for (let v = Math.max(0, y - 1); v <= Math.min(height - 1, y + 1); v++) {
        for (let u = Math.max(0, x - 1); u <= Math.min(width - 1, x + 1); u++) {
          const at = v * width + u;
          if (out[at] || !may(cells[at])) continue;
          out[at] = 1;
          next.push(at);
        }
      }
    }
    edge = next;
  }
  return out;
}
