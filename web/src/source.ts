/**
 * A decoded picture that is read in bands of rows: 8-bit sRGB with its orientation applied, not premultiplied.
 */
import { AnimatedImageError, ConfigError, CorruptImageError, EmptyImageError, UnsupportedImageError } from "./errors.js";
import { checkSize, inspect, MAX_OUTPUT_PIXELS } from "./format.js";

export type Picture = Blob | ImageBitmap | ImageData;

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

/** Decode. Throws the ImageError family, or ConfigError for what is no picture at all. */
export async function openSource(picture: Picture, animation: "refuse" | "first-frame" = "refuse"): Promise<Source> {
  if (picture instanceof Blob) return openBlob(picture, animation);
  if (typeof ImageBitmap !== "undefined" && picture instanceof ImageBitmap) {
    if (!picture.width) throw new EmptyImageError("the ImageBitmap is closed");
    checkSize(picture.width, picture.height);
    return fromBitmap(await fitted(picture), true, []);
  }
  if (typeof ImageData !== "undefined" && picture instanceof ImageData) {
    checkSize(picture.width, picture.height);
    if (picture.width * picture.height > MAX_OUTPUT_PIXELS) return fromBitmap(await fitted(await createImageBitmap(picture)), true, []);
    return fromImageData(picture);
  }
  throw new ConfigError("a picture must be a Blob, an ImageBitmap or an ImageData");
}

async function openBlob(blob: Blob, animation: "refuse" | "first-frame"): Promise<Source> {
  const { format, animated } = await inspect(blob);
  if (animated && animation === "refuse") {
    throw new AnimatedImageError(`the ${format.toUpperCase()} is animated: ask for its first frame, or save that as a picture`);
  }
  let bitmap: ImageBitmap;
  try {
    // The type a file claims to have may be wrong and must not matter.
    bitmap = await createImageBitmap(new Blob([blob], { type: `image/${format}` }), { imageOrientation: "from-image" });
  } catch (error) {
    if (format === "heic" || format === "avif") {
      throw new UnsupportedImageError(
        `this browser cannot decode ${format.toUpperCase()}: save the picture as JPEG or PNG first`, { cause: error },
      );
    }
    throw new CorruptImageError(`the ${format.toUpperCase()} is damaged or incomplete`, { cause: error });
  }
  if (!bitmap.width || !bitmap.height) throw new EmptyImageError("the picture has no pixels");
  checkSize(bitmap.width, bitmap.height);
  const notes = animated ? ["animated: only the first frame was used"] : [];
  const size = [bitmap.width, bitmap.height];
  const fit = await fitted(bitmap);
  if (fit !== bitmap) notes.push(`${size[0]}×${size[1]} scaled down to ${fit.width}×${fit.height}`);
  return fromBitmap(fit, format !== "jpeg" && format !== "bmp", notes);
}

/** The bitmap itself, or a smaller one (and the original closed) where it has more pixels than are given out. */
async function fitted(bitmap: ImageBitmap): Promise<ImageBitmap> {
  const pixels = bitmap.width * bitmap.height;
  if (pixels <= MAX_OUTPUT_PIXELS) return bitmap;
  const scale = Math.sqrt(MAX_OUTPUT_PIXELS / pixels);
  const small = await createImageBitmap(bitmap, {
    resizeWidth: Math.max(1, Math.floor(bitmap.width * scale)), resizeHeight: Math.max(1, Math.floor(bitmap.height * scale)),
    resizeQuality: "high",
  });
  bitmap.close();
  return small;
}

function fromBitmap(bitmap: ImageBitmap, mayBeTransparent: boolean, notes: string[]): Source {
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

function fromImageData(image: ImageData): Source {
  const { width, height, data } = image;
  return {
    width, height, notes: [], mayBeTransparent: true,
    read: (y, rows) => new Uint8ClampedArray(data.subarray(y * width * 4, (y + rows) * width * 4)),
    close() {},
  };
}
