/// <reference types="node" />
/**
 * The package in Node: the same engine on the same pixels. Pictures are decoded, and WebP and JPEG written, by `sharp` where it
 * is installed; plain pixels and PNG need nothing.
 */
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

import { ConfigError, UnsupportedImageError } from "./errors.js";
import { platform } from "./platform.js";
import { createRemover as create, preload as load } from "./remover.js";
import type { BundleOptions, Remover, RemoverOptions } from "./types.js";

export * from "./index.js";

/** As in the browser; `base` may be a path. The work is done in this thread. */
export function createRemover(options: RemoverOptions = {}): Promise<Remover> {
  return create({ ...located(options), mode: "main" });
}

export function preload(options: BundleOptions = {}): Promise<void> {
  return load(located(options));
}

function located<Options extends BundleOptions>(options: Options): Options {
  const { base } = options;
  if (typeof base !== "string" || /^[a-z][a-z0-9+.-]+:/i.test(base)) return options;
  return { ...options, base: pathToFileURL(`${resolve(base)}/`) };
}

platform.fetch = async (url, init) => {
  if (!url.startsWith("file:")) return fetch(url, init);
  try {
    return new Response(await readFile(fileURLToPath(url)));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return new Response(null, { status: 404 });
    throw error;
  }
};

platform.decode = async (file) => {
  const sharp = await loadSharp("decode pictures");
  const { data, info } = await sharp(await file.arrayBuffer(), { limitInputPixels: false })
    .rotate().toColourspace("srgb").ensureAlpha().raw({ depth: "uchar" }).toBuffer({ resolveWithObject: true });
  return { data, width: info.width, height: info.height };
};

platform.encode = async ({ data, width, height }, format, quality) => {
  const sharp = await loadSharp(`write ${format.toUpperCase()}`);
  const picture = sharp(data, { raw: { width, height, channels: 4 } });
  const options = { quality: Math.max(1, Math.round(quality * 100)) };
  return new Blob([await (format === "webp" ? picture.webp(options) : picture.jpeg(options)).toBuffer()], { type: `image/${format}` });
};

platform.colour = async (text) => {
  const sharp = await loadSharp("read colours");
  try {
    const pixel = await sharp({ create: { width: 1, height: 1, channels: 4, background: text } }).raw().toBuffer();
    return [pixel[0], pixel[1], pixel[2], pixel[3]];
  } catch {
    return undefined;
  }
};

/** Named so that no bundler looks for it: who never needs it need not have it. */
async function loadSharp(purpose: string): Promise<any> {
  const name = "sharp";
  try {
    return (await import(/* webpackIgnore: true */ /* turbopackIgnore: true */ /* @vite-ignore */ name)).default;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ERR_MODULE_NOT_FOUND") throw new ConfigError(`sharp cannot be used: ${String(error)}`, { cause: error });
    throw new UnsupportedImageError(`to ${purpose} in Node install sharp (npm install sharp), or pass { data, width, height } and take PNG`);
  }
}
