/**
 * Everything that people have a picture in, brought to what a worker can be sent: a file, a bitmap or plain pixels.
 */
import { ConfigError, DownloadError, EmptyImageError, line, UnsupportedImageError } from "./errors.js";

/** RGBA, 8 bits, not premultiplied, row by row; an ImageData is one. */
export interface PixelData { data: Uint8ClampedArray | Uint8Array; width: number; height: number }

/** A string is a URL. Bytes are those of an encoded file. */
export type Picture =
  | string | URL | Blob | Response | ArrayBuffer | ArrayBufferView
  | ImageBitmap | ImageData | PixelData
  | HTMLImageElement | HTMLCanvasElement | HTMLVideoElement | OffscreenCanvas | VideoFrame;

/** What the pipeline takes. */
export type Sendable = Blob | ImageBitmap | PixelData;

const KINDS = "a URL, a Blob, a Response, bytes, an ImageBitmap, an ImageData, an <img>, a canvas, a <video> or a VideoFrame";

/**
 * `own` is what was made here and may be transferred and closed. Throws ConfigError for what is no picture, DownloadError for
 * a URL that gives none, UnsupportedImageError for an element whose pixels the browser keeps to itself.
 */
export async function sendable(picture: Picture, signal?: AbortSignal): Promise<{ picture: Sendable; own?: ImageBitmap }> {
  if (picture instanceof Blob) return { picture };
  if (is(picture, "ImageBitmap")) {
    if (!picture.width) throw new EmptyImageError("the ImageBitmap is closed");
    return { picture };
  }
  if (typeof picture === "string" || picture instanceof URL) return { picture: await fetched(picture, signal) };
  if (picture instanceof Response) return { picture: await body(picture) };
  if (picture instanceof ArrayBuffer) return { picture: new Blob([picture]) };
  if (is(picture, "HTMLImageElement")) {
    try {
      await picture.decode();
    } catch (error) {
      throw new UnsupportedImageError("the <img> could not be loaded or decoded", { cause: error });
    }
    return bitmapOf(picture, "<img>");
  }
  if (is(picture, "HTMLCanvasElement") || is(picture, "OffscreenCanvas")) {
    if (!picture.width || !picture.height) throw new EmptyImageError("the canvas has no pixels");
    return bitmapOf(picture, "canvas");
  }
  if (is(picture, "HTMLVideoElement")) {
    if (!picture.videoWidth) throw new EmptyImageError("the <video> shows no frame yet");
    return bitmapOf(picture, "<video>");
  }
  if (is(picture, "VideoFrame")) {
    if (!picture.codedWidth) throw new EmptyImageError("the VideoFrame is closed");
    return bitmapOf(picture, "VideoFrame");
  }
  if (isPixels(picture)) {
    const { width, height, data } = picture;
    if (data.length !== width * height * 4) throw new ConfigError(`pixels of ${width}×${height} must be ${width * height * 4} bytes, RGBA`);
    return { picture: { width, height, data } };
  }
  if (ArrayBuffer.isView(picture)) return { picture: new Blob([picture as ArrayBufferView<ArrayBuffer>]) };
  throw new ConfigError(picture === undefined || picture === null ? `there is no picture: it is ${picture}` : `a picture must be ${KINDS}`);
}

interface Classes {
  ImageBitmap: ImageBitmap; HTMLImageElement: HTMLImageElement; HTMLCanvasElement: HTMLCanvasElement;
  HTMLVideoElement: HTMLVideoElement; OffscreenCanvas: OffscreenCanvas; VideoFrame: VideoFrame;
}

/** By name, for no place has all classes; of another frame's window, too. */
function is<Name extends keyof Classes>(value: unknown, name: Name): value is Classes[Name] {
  return Object.prototype.toString.call(value) === `[object ${name}]`;
}

function isPixels(value: unknown): value is PixelData {
  const { data, width, height } = (value ?? {}) as Partial<PixelData>;
  return (data instanceof Uint8ClampedArray || data instanceof Uint8Array) && Number.isInteger(width) && Number.isInteger(height);
}

async function fetched(url: string | URL, signal?: AbortSignal): Promise<Blob> {
  let address: URL;
  try {
    address = new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href);
  } catch {
    throw new ConfigError(`the picture ${JSON.stringify(short(String(url)))} is no URL`);
  }
  let response: Response;
  try {
    response = await fetch(address, { signal });
  } catch (error) {
    signal?.throwIfAborted();
    throw new DownloadError(`${short(address.href)}: ${line(error)}`, { cause: error });
  }
  return body(response);
}

async function body(response: Response): Promise<Blob> {
  if (!response.ok) throw new DownloadError(`${short(response.url)}: HTTP ${response.status}`);
  if (response.bodyUsed) throw new ConfigError("the body of the Response was read before");
  try {
    return await response.blob();
  } catch (error) {
    throw new DownloadError(`${short(response.url)}: ${line(error)}`, { cause: error });
  }
}

async function bitmapOf(
  element: HTMLImageElement | HTMLCanvasElement | HTMLVideoElement | OffscreenCanvas | VideoFrame, name: string,
): Promise<{ picture: ImageBitmap; own: ImageBitmap }> {
  try {
    const bitmap = await createImageBitmap(element);
    // Pixels of another site without CORS may be shown and not read, which shows only when one is read.
    const probe = new OffscreenCanvas(1, 1).getContext("2d")!;
    probe.drawImage(bitmap, 0, 0);
    probe.getImageData(0, 0, 1, 1);
    return { picture: bitmap, own: bitmap };
  } catch (error) {
    throw new UnsupportedImageError(`the pixels of the ${name} cannot be read: ${line(error)}`, { cause: error });
  }
}

/** data: URLs are long. */
function short(url: string): string {
  return url.length > 120 ? `${url.slice(0, 120)}…` : url;
}
