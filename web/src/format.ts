/**
 * What a file is and how large its picture is, from its first bytes: before a browser decodes a pixel of it.
 */
import { EmptyImageError, ImageTooLargeError, UnsupportedImageError } from "./errors.js";

export const MAX_DECODE_PIXELS = 150_000_000; // as the Python runner: today's cameras make 102 and 108 million; 600 MB decoded
export const MAX_OUTPUT_PIXELS = 50_000_000; // larger pictures are scaled down to this
export const MAX_FILE_BYTES = 512 * 2 ** 20;
export const MAX_SIDE = 65535;
const HEAD_BYTES = 1 << 20; // a JPEG's size may lie behind a megabyte of metadata

export type Format = "jpeg" | "png" | "gif" | "webp" | "bmp" | "avif" | "heic" | "jxl" | "tiff" | "svg" | "unknown";

export interface Sniffed {
  format: Format;
  /** As stored, before EXIF orientation; absent where the head does not say. */
  width?: number;
  height?: number;
  animated: boolean;
}

/** Look at a file. Throws EmptyImageError, UnsupportedImageError (SVG, text, …) or ImageTooLargeError. */
export async function inspect(blob: Blob, maxPixels = MAX_DECODE_PIXELS): Promise<Sniffed> {
  if (blob.size === 0) throw new EmptyImageError("the file is empty");
  if (blob.size > MAX_FILE_BYTES) throw new ImageTooLargeError(`the file has more than ${MAX_FILE_BYTES} bytes`);
  const sniffed = sniff(new Uint8Array(await blob.slice(0, HEAD_BYTES).arrayBuffer()), blob.size);
  if (sniffed.format === "svg") {
    throw new UnsupportedImageError("SVG is a drawing, not a photograph: export it as PNG first");
  }
  if (sniffed.format === "tiff") throw new UnsupportedImageError("TIFF cannot be decoded by browsers: save the picture as JPEG or PNG first");
  if (sniffed.format === "unknown") throw new UnsupportedImageError("not a picture of a known format");
  if (sniffed.width !== undefined && sniffed.height !== undefined) checkSize(sniffed.width, sniffed.height, maxPixels);
  return sniffed;
}

export function checkSize(width: number, height: number, maxPixels = MAX_DECODE_PIXELS): void {
  if (width < 1 || height < 1) throw new EmptyImageError("the picture has no pixels");
  if (width * height > maxPixels) {
    throw new ImageTooLargeError(
      `${width}×${height} is ${Math.round((width * height) / 1e6)} megapixels, over the limit of ${+(maxPixels / 1e6).toFixed(1)}`,
    );
  }
  if (Math.max(width, height) > MAX_SIDE) throw new ImageTooLargeError(`a side of ${Math.max(width, height)} pixels is too long`);
}

/** `head` is the file's first bytes, `size` how many it has in all. */
export function sniff(head: Uint8Array, size = head.length): Sniffed {
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  const ascii = (from: number, length: number): string => String.fromCharCode(...head.subarray(from, from + length));
  const has = (bytes: number): boolean => head.length >= bytes;
  if (has(24) && ascii(0, 8) === "\x89PNG\r\n\x1a\n") {
    let animated = false;
    for (let at = 8; has(at + 8); at += 12 + view.getUint32(at)) {
      const type = ascii(at + 4, 4);
      if (type === "acTL" && has(at + 12)) animated = view.getUint32(at + 8) > 1; // with one frame it is a picture
      if (type === "IDAT") break;
    }
    return { format: "png", width: view.getUint32(16), height: view.getUint32(20), animated };
  }
  if (has(3) && head[0] === 0xff && head[1] === 0xd8 && head[2] === 0xff) {
    for (let at = 2; has(at + 9) && head[at] === 0xff;) {
      const marker = head[at + 1];
      if (marker === 0xff) {
        at++; // fill bytes
      } else if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
        return { format: "jpeg", width: view.getUint16(at + 7), height: view.getUint16(at + 5), animated: false };
      } else if (marker === 0xda || marker === 0xd9) {
        break;
      } else {
        at += 2 + view.getUint16(at + 2);
      }
    }
    return { format: "jpeg", animated: false };
  }
  if (has(10) && /^GIF8[79]a/.test(ascii(0, 6))) {
    return { format: "gif", width: view.getUint16(6, true), height: view.getUint16(8, true), animated: gifFrames(head) > 1 };
  }
  if (has(30) && ascii(0, 4) === "RIFF" && ascii(8, 4) === "WEBP") {
    const chunk = ascii(12, 4);
    if (chunk === "VP8X") {
      const u24 = (at: number): number => view.getUint16(at, true) | (head[at + 2] << 16);
      return { format: "webp", width: u24(24) + 1, height: u24(27) + 1, animated: (head[20] & 2) !== 0 && webpFrames(head, view, size) > 1 };
    }
    if (chunk === "VP8L") {
      const bits = view.getUint32(21, true);
      return { format: "webp", width: (bits & 0x3fff) + 1, height: ((bits >>> 14) & 0x3fff) + 1, animated: false };
    }
    return { format: "webp", width: view.getUint16(26, true) & 0x3fff, height: view.getUint16(28, true) & 0x3fff, animated: false };
  }
  if (has(26) && ascii(0, 2) === "BM") {
    return { format: "bmp", width: Math.abs(view.getInt32(18, true)), height: Math.abs(view.getInt32(22, true)), animated: false };
  }
  if (has(16) && ascii(4, 4) === "ftyp") {
    const brands = ascii(8, Math.min(view.getUint32(0), 64) - 8);
    const format = /avi[fs]/.test(brands) ? "avif" : /he[iv][cxms]|mif1|msf1/.test(brands) ? "heic" : "unknown";
    return { format, ...largestExtent(head, view), animated: /^(avis|msf1|hevc)/.test(brands) };
  }
  if (has(12) && (ascii(0, 2) === "\xff\x0a" || ascii(4, 8) === "JXL \r\n\x87\n")) return { format: "jxl", animated: false };
  if (has(8) && /^(II[*+]\0|MM\0[*+])$/.test(ascii(0, 4))) return { format: "tiff", animated: false };
  const text = new TextDecoder().decode(head.subarray(0, 4096)).replace(/^\ufeff/, "").trimStart();
  if (/^<(\?xml|!--|!doctype svg|svg)/i.test(text) && /<svg[\s>]/i.test(text)) return { format: "svg", animated: false };
  return { format: "unknown", animated: false };
}

/** Frames of an animated WebP's head, as far as two; what lies beyond the head counts as further ones. */
function webpFrames(head: Uint8Array, view: DataView, size: number): number {
  let frames = 0;
  let at = 12;
  for (; at + 8 <= head.length && frames < 2; at += 8 + ((view.getUint32(at + 4, true) + 1) & ~1)) {
    if (String.fromCharCode(...head.subarray(at, at + 4)) === "ANMF") frames++;
  }
  return at + 8 < size && at + 8 > head.length ? 2 : frames;
}

/** Frames of a GIF's head, as far as two. */
function gifFrames(head: Uint8Array): number {
  const tableBytes = (flags: number): number => (flags & 0x80 ? 3 * 2 ** ((flags & 7) + 1) : 0);
  const skipBlocks = (at: number): number => {
    while (at < head.length && head[at] !== 0) at += head[at] + 1;
    return at + 1;
  };
  let frames = 0;
  for (let at = 13 + tableBytes(head[10]); at < head.length && frames < 2;) {
    if (head[at] === 0x21) at = skipBlocks(at + 2);
    else if (head[at] === 0x2c) {
      frames++;
      at = skipBlocks(at + 11 + tableBytes(head[at + 9]));
    } else break;
  }
  return frames;
}

/** The largest `ispe` (image spatial extent) of an ISO base media file: grids and thumbnails have their own. */
function largestExtent(head: Uint8Array, view: DataView): { width?: number; height?: number } {
  let best: { width?: number; height?: number } = {};
  const end = Math.min(head.length - 16, 1 << 16);
  for (let at = 0; at < end; at++) {
    if (head[at] === 0x69 && head[at + 1] === 0x73 && head[at + 2] === 0x70 && head[at + 3] === 0x65) {
      const [width, height] = [view.getUint32(at + 8), view.getUint32(at + 12)];
      if (width * height > (best.width ?? 0) * (best.height ?? 0)) best = { width, height };
    }
  }
  return best;
}
