/** What a matte shows: whether there is a subject, where it is, and the cut to it. */
import { ConfigError } from "./errors.js";
import type { CropOptions } from "./types.js";

export interface Box { x: number; y: number; width: number; height: number }

export interface Subject {
  /** Whether at least a thousandth of the picture is subject. */
  found: boolean;
  /** The smallest box around all pixels that are at least half subject; null where there are none. */
  box: Box | null;
  /** Mean of the matte, 0 to 1: the part of the picture that is subject. */
  area: number;
}

const HALF = 128;
const LEAST_AREA = 0.001;
const MARGIN = 0.05;

export function findSubject(alpha: Uint8Array, width: number, height: number): Subject {
  let [left, top, right, bottom, sum] = [width, height, -1, -1, 0];
  for (let y = 0, at = 0; y < height; y++) {
    let [first, last] = [-1, -1];
    for (let x = 0; x < width; x++, at++) {
      const value = alpha[at];
      sum += value;
      if (value >= HALF) {
        if (first < 0) first = x;
        last = x;
      }
    }
    if (first < 0) continue;
    if (first < left) left = first;
    if (last > right) right = last;
    if (top === height) top = y;
    bottom = y;
  }
  const area = sum / 255 / (width * height);
  const box = right < 0 ? null : { x: left, y: top, width: right - left + 1, height: bottom - top + 1 };
  return { found: box !== null && area >= LEAST_AREA, box, area };
}

/** The settings that are meant, or undefined for no crop. Throws ConfigError where one cannot work. */
export function cropSettings(crop: boolean | CropOptions | undefined): Required<CropOptions> | undefined {
  if (crop === undefined || crop === false) return undefined;
  if (crop !== true && (typeof crop !== "object" || crop === null)) throw new ConfigError("crop must be true, false or { margin, square }");
  const { margin = MARGIN, square = false, ...rest } = crop === true ? {} : crop;
  for (const name of Object.keys(rest)) throw new ConfigError(`crop has no setting ${JSON.stringify(name)}`);
  if (typeof margin !== "number" || !(margin >= 0 && margin <= 1)) throw new ConfigError("the margin of crop must be 0 to 1");
  if (typeof square !== "boolean") throw new ConfigError("square of crop must be true or false");
  return { margin, square };
}

/** The part of the picture to keep; with `square` it may reach beyond the picture. */
export function cropBox(box: Box, width: number, height: number, { margin, square }: Required<CropOptions>): Box {
  const room = Math.round(margin * Math.max(box.width, box.height));
  if (square) {
    const side = Math.max(box.width, box.height) + 2 * room;
    return { x: box.x - ((side - box.width) >> 1), y: box.y - ((side - box.height) >> 1), width: side, height: side };
  }
  const [x, y] = [Math.max(0, box.x - room), Math.max(0, box.y - room)];
  return {
    x, y,
    width: Math.min(width, box.x + box.width + room) - x, height: Math.min(height, box.y + box.height + room) - y,
  };
}

/** `part` of a picture of `width` columns; outside it there is 0. */
export function cropRows(source: Uint8Array, width: number, height: number, part: Box): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(part.width * part.height);
  const [left, right] = [Math.max(0, part.x), Math.min(width, part.x + part.width)];
  for (let y = Math.max(0, part.y); y < Math.min(height, part.y + part.height); y++) {
    out.set(source.subarray(y * width + left, y * width + right), (y - part.y) * part.width + left - part.x);
  }
  return out;
}
