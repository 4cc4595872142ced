/** What browsers give and Node does not; node.ts fills it in there. */
import type { PixelData } from "./picture.js";

export interface Platform {
  /** As `fetch`, for `file:` URLs as well. */
  fetch: (url: string, init?: RequestInit) => Promise<Response>;
  /** Decode a file, its orientation applied, where there is no `createImageBitmap`. */
  decode?: (file: Blob) => Promise<PixelData>;
  /** Encode RGBA, where there is no canvas. */
  encode?: (pixels: PixelData, format: "webp" | "jpeg", quality: number) => Promise<Blob>;
  /** What a CSS colour is in RGBA, 0 to 255; undefined where it is none. */
  colour?: (text: string) => Promise<[number, number, number, number] | undefined>;
}

export const platform: Platform = { fetch: (url, init) => fetch(url, init) };
