/** A soft shadow under a cut-out. The specification is u2net/shadow.py; its Gaussian is made on a coarser grid here. */
import { ConfigError } from "./errors.js";
import type { Sink } from "./output.js";
import { BoxReduce } from "./pixels.js";
import { boxMean, Stretch } from "./sampling.js";
import type { ShadowOptions } from "./types.js";

const DEFAULTS: Required<ShadowOptions> = { opacity: 0.4, blur: 0.015, drop: 0.015 };
const MOST: Required<ShadowOptions> = { opacity: 1, blur: 0.5, drop: 1 };
const SAMPLES = 4; // of the grid in a standard deviation; more are not seen
const GRID_PIXELS = 4e6; // a small subject in a very large picture gets fewer

/** The settings that are meant, or undefined for no shadow. Throws ConfigError where one cannot work. */
export function shadowSettings(shadow: boolean | ShadowOptions | undefined): Required<ShadowOptions> | undefined {
  if (shadow === undefined || shadow === false) return undefined;
  if (shadow !== true && (typeof shadow !== "object" || shadow === null)) throw new ConfigError("shadow must be true, false or { opacity, blur, drop }");
  const settings = { ...DEFAULTS, ...(shadow === true ? {} : shadow) };
  for (const [name, value] of Object.entries(settings)) {
    const most = (MOST as Record<string, number>)[name];
    if (most === undefined) throw new ConfigError(`shadow has no setting ${JSON.stringify(name)}`);
    if (typeof value !== "number" || !(value >= 0 && value <= most)) throw new ConfigError(`${name} of the shadow must be 0 to ${most}`);
  }
  return settings;
}

/** Lays the shadow of a matte of the sink's size under what passes through. `longer` is the longer side of the subject's box. */
export class ShadedSink implements Sink {
  readonly #shade: Stretch;
  readonly #both: Uint8Array<ArrayBuffer>;

  constructor(readonly sink: Sink, alpha: Uint8Array, readonly width: number, height: number, longer: number, readonly settings: Required<ShadowOptions>) {
    const [sigma, drop] = [settings.blur * longer, Math.min(height, Math.floor(settings.drop * longer + 0.5))];
    const k = Math.max(1, Math.floor(sigma / SAMPLES), Math.ceil(Math.sqrt((width * height) / GRID_PIXELS)));
    const moved = new BoxReduce(width, height, k, k, 1);
    if (drop) moved.push(new Uint8Array(width * drop), drop);
    if (drop < height) moved.push(alpha.subarray(0, width * (height - drop)), height - drop);
    let shade: Float32Array = Float32Array.from(moved.pixels);
    for (const radius of boxRadii(sigma / k)) shade = boxMean(shade, moved.height, moved.width, 1, radius);
    this.#shade = new Stretch(shade, moved.height, moved.width, 1, height, width, 1 / k, 1 / k);
    this.#both = new Uint8Array(width * height);
  }

  async write(y: number, rgba: Uint8ClampedArray<ArrayBuffer>): Promise<void> {
    const { width } = this;
    const { left, right, weight } = this.#shade.horizontal;
    const opacity = this.settings.opacity / 255;
    for (let p = 0, i = y * width; p < rgba.length; y++) {
      const line = this.#shade.line(y);
      for (let x = 0; x < width; x++, p += 4, i++) {
        const a = rgba[p + 3] / 255;
        if (a < 1) {
          const shade = line[left[x]] + (line[right[x]] - line[left[x]]) * weight[x];
          const both = a + shade * opacity * (1 - a);
          const share = a / Math.max(both, 1e-6);
          for (let c = p; c < p + 3; c++) rgba[c] = Math.floor(rgba[c] * share + 0.5);
          rgba[p + 3] = Math.floor(both * 255 + 0.5);
        }
        this.#both[i] = rgba[p + 3];
      }
    }
    await this.sink.write(y - rgba.length / 4 / width, rgba);
  }

  finish(): Promise<Blob | ImageBitmap> {
    return this.sink.finish(this.#both);
  }
}

/** Radii of three box means that together are as wide as a Gaussian. */
function boxRadii(sigma: number): number[] {
  const ideal = Math.sqrt(4 * sigma * sigma + 1);
  const small = Math.floor((ideal - 1) / 2);
  const side = 2 * small + 1;
  const wide = Math.round((12 * sigma * sigma - 3 * side * side + 3) / (4 * side + 4)); // of the three, the wider ones
  return [0, 1, 2].map((i) => (i < wide ? small + 1 : small));
}
