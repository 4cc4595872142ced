/**
 * A decoded picture that is read in bands of rows: 8-bit sRGB with its orientation applied, not premultiplied.
 */
import { AnimatedImageError, CorruptImageError, EmptyImageError, RemoverError, UnsupportedImageError } from "./errors.js";
import { checkSize, type Format, inspect, MAX_OUTPUT_PIXELS } from "./format.js";
import type { PixelData, Sendable } from "./picture.js";
import { platform } from "./platform.js";

export interface Source {
  width: number;
  height: number;
  notes: string[];
  /** Whether any pixel may be transparent. */
  mayBeTransparent: boolean;
  /** RGBA rows y to y + rows; the caller may change them but must not keep them beyond the next call. */
  read(y: number, rows: number): Uint8ClampedArray<ArrayBuffer>;
  close(): void;
}

export interface SourceOptions { animation: "refuse" | "first-frame"; maxPixels?: number }

/** Decode. Throws the ImageError family. */
export async function openSource(picture: Sendable, options: SourceOptions): Promise<Source> {
  if (picture instanceof Blob) return openBlob(picture, options);
  checkSize(picture.width, picture.height, options.maxPixels);
  if ("data" in picture) {
    if (picture.width * picture.height <= MAX_OUTPUT_PIXELS || typeof createImageBitmap === "undefined") return fromPixels(picture, true, []);
    const { data, width, height } = picture;
    const image = new ImageData(new Uint8ClampedArray(data.buffer as ArrayBuffer, data.byteOffset, data.length), width, height);
    return fromBitmap(...(await fitted(await createImageBitmap(image))), true);
  }
  return fromBitmap(...(await fitted(picture)), true);
}

async function openBlob(blob: Blob, { animation, maxPixels }: SourceOptions): Promise<Source> {
  const { format, animated } = await inspect(blob, maxPixels);
  if (animated && animation === "refuse") {
    throw new AnimatedImageError(`the ${format.toUpperCase()} is animated: ask for its first frame, or save that as a picture`);
  }
  const notes = animated ? ["animated: only the first frame was used"] : [];
  const opaque = format === "jpeg" || format === "bmp";
  // The type a file claims to have may be wrong and must not matter.
  const file = new Blob([blob], { type: `image/${format}` });
  if (platform.decode) {
    const pixels = await decoded(format, () => platform.decode!(file));
    checkSize(pixels.width, pixels.height, maxPixels);
    return fromPixels(pixels, !opaque, notes);
  }
  const bitmap = await decoded(format, () => createImageBitmap(file, { imageOrientation: "from-image" }));
  if (!bitmap.width || !bitmap.height) throw new EmptyImageError("the picture has no pixels");
  checkSize(bitmap.width, bitmap.height, maxPixels);
  const [fit, more] = await fitted(bitmap);
  return fromBitmap(fit, [...notes, ...more], !opaque);
}

async function decoded<T>(format: Format, decode: () => Promise<T>): Promise<T> {
  try {
    return await decode();
  } catch (error) {
    if (error instanceof RemoverError) throw error;
    if (format === "heic" || format === "avif" || format === "jxl") {
      throw new UnsupportedImageError(
        `${format === "jxl" ? "JPEG XL" : format.toUpperCase()} cannot be decoded here: save the picture as JPEG or PNG first`, { cause: error },
      );
    }
    throw new CorruptImageError(`the ${format.toUpperCase()} is damaged or incomplete`, { cause: error });
  }
}

/** The bitmap itself, or a smaller one, a note, and the original closed, where it has more pixels than are given out. */
async function fitted(bitmap: ImageBitmap): Promise<[ImageBitmap, string[]]> {
  const { width, height } = bitmap;
  const pixels = width * height;
  if (pixels <= MAX_OUTPUT_PIXELS) return [bitmap, []];
  const scale = Math.sqrt(MAX_OUTPUT_PIXELS / pixels);
  const small = await createImageBitmap(bitmap, {
    resizeWidth: Math.max(1, Math.floor(bitmap.width * scale)), resizeHeight: Math.max(1, Math.floor(bitmap.height * scale)),
    resizeQuality: "high",
  });
  bitmap.close();
  return [small, [`${width}×${height} scaled down to ${small.width}×${small.height}`]];
}

function fromBitmap(bitmap: ImageBitmap, notes: string[], mayBeTransparent: boolean): Source {
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(1, 1);
  // In main memory: it is read, never shown. Without an alpha channel there is nothing to divide colours by.
  const context = canvas.getContext("2d", { willReadFrequently: true, alpha: mayBeTransparent })!;
  return {
    width, height, notes, mayBeTransparent,
    read(y, rows) {
      if (canvas.width !== width || canvas.height !== rows) {
        canvas.width = width;
        canvas.height = rows;
      } else if (mayBeTransparent) {
        context.clearRect(0, 0, width, rows);
      }
      context.drawImage(bitmap, 0, y, width, rows, 0, 0, width, rows);
      return context.getImageData(0, 0, width, rows).data as Uint8ClampedArray<ArrayBuffer>;
    },
    close() {
      bitmap.close();
      canvas.width = canvas.height = 1;
    },
  };
}

function fromPixels({ width, height, data }: PixelData, mayBeTransparent: boolean, notes: string[]): Source {
  return {
    width, height, notes, mayBeTransparent,
    read: (y, rows) => new Uint8ClampedArray(data.subarray(y * width * 4, (y + rows) * width * 4)),
    close() {},
  };
}
