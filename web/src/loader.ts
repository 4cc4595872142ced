/**
 * Files in: streamed, resumed, checked against their sha256 before use, kept in Cache Storage, and checked again when
 * they come from there. Fails closed: bytes that are not the promised ones are never returned and never kept.
 */
import { ConfigError, DownloadError, IntegrityError, line } from "./errors.js";
import { type Manifest, type ManifestFile, parseManifest } from "./manifest.js";
import { platform } from "./platform.js";

export const CACHE_NAME = "u2net-remover-1";
const MAX_MANIFEST_BYTES = 1 << 20;
const RETRY_DELAYS_MS = [200, 600]; // a dropped connection is worth two more tries, an unreachable server is not

export interface LoadOptions {
  /** The URL of a file of the bundle, by its path. */
  locate: (path: string) => string;
  /** Keep files in Cache Storage. */
  cache: boolean;
  signal?: AbortSignal;
  /**
   * Bytes of `file` that have come over the network by now, and that will have in all, as the host compresses them; none where
   * it was kept. Falls back to 0 when a file has to be fetched anew.
   */
  onBytes?: (file: ManifestFile, loaded: number, total: number) => void;
  /** One readable line for what was mended on the way. */
  onNote?: (note: string) => void;
  /** What is still being written to Cache Storage: bytes are of use before they are kept. Never rejects. */
  keeping: Promise<unknown>[];
}

/** Delete everything that this package has kept. Resolves to whether there was anything. */
export async function clearCache(): Promise<boolean> {
  return "caches" in globalThis ? caches.delete(CACHE_NAME) : false;
}

/** The manifest: from the network, or as last seen where the network is not there. `integrity` pins it ("sha384-…"). */
export async function loadManifest(options: LoadOptions, integrity?: string): Promise<Manifest> {
  const url = options.locate("manifest.json");
  const opening = openCache(options, url);
  let text: string | undefined;
  let failure: unknown;
  try {
    const response = await platform.fetch(url, { signal: options.signal, cache: "no-cache" });
    if (response.ok) text = await response.text();
    else failure = new DownloadError(`${url}: HTTP ${response.status}`);
  } catch (error) {
    options.signal?.throwIfAborted();
    failure = new DownloadError(`${url}: ${line(error)}`, { cause: error });
  }
  const store = await opening;
  const kept = text === undefined ? await store?.match(url) : undefined;
  if (kept) text = await kept.text();
  if (text === undefined) throw failure;
  if (text.length > MAX_MANIFEST_BYTES) throw new IntegrityError(`${url}: larger than a manifest may be`);
  const bytes = new TextEncoder().encode(text);
  if (integrity && (await sri(bytes, integrity)) !== integrity) {
    if (kept) await store?.delete(url);
    throw new IntegrityError(`${url} is not the manifest that was pinned`);
  }
  const manifest = parseManifest(text);
  if (!kept) options.keeping.push(quietly(store?.put(url, new Response(text))));
  return manifest;
}

/** The verified bytes of `file`. Throws IntegrityError, DownloadError, or the signal's reason. */
export async function loadFile(file: ManifestFile, options: LoadOptions): Promise<Uint8Array<ArrayBuffer>> {
  if (!globalThis.crypto?.subtle) {
    throw new ConfigError("files cannot be verified here: the page must be served over https or from localhost");
  }
  const url = options.locate(file.path);
  const store = await openCache(options, url);
  const key = `${url}?sha256=${file.sha256}`;
  const kept = await store?.match(key);
  if (kept) {
    const bytes = new Uint8Array(await kept.arrayBuffer());
    if (await matches(bytes, file)) {
      options.onBytes?.(file, 0, 0);
      return bytes;
    }
    await store?.delete(key);
    options.onNote?.(`${file.path}: the copy kept in this browser was altered; it was thrown away`);
  }
  let bytes = await download(url, file, options, store);
  if (!(await matches(bytes, file))) {
    // A resumed download may mix two versions, and the HTTP cache may be what is damaged: once more, from the source.
    options.onBytes?.(file, 0, file.bytes);
    bytes = await download(url, file, options, undefined, "reload");
    if (!(await matches(bytes, file))) {
      throw new IntegrityError(`${url}: its sha256 is not the one in the manifest; it was not used`);
    }
  }
  options.signal?.throwIfAborted();
  if (store) {
    options.keeping.push(quietly(store.put(key, new Response(bytes)).then(() => evictOthers(store, url, key))));
  }
  return bytes;
}

async function download(
  url: string, file: ManifestFile, options: LoadOptions, store: Cache | undefined, mode: RequestCache = "default",
): Promise<Uint8Array<ArrayBuffer>> {
  const { signal } = options;
  const partKey = `${url}?part=${file.sha256}`;
  const bytes = new Uint8Array(file.bytes);
  let loaded = 0; // of the file's own bytes
  const part = await store?.match(partKey);
  if (part) {
    const begun = new Uint8Array(await part.arrayBuffer());
    await store?.delete(partKey);
    if (begun.length < bytes.length) {
      bytes.set(begun);
      loaded = begun.length;
    }
  }
  for (let attempt = 0; ; attempt++) {
    try {
      const response = await platform.fetch(url, {
        signal,
        // Only a plain, uncompressed answer has byte positions that mean what we mean; browsers ask for one with Range.
        ...(loaded ? { headers: { Range: `bytes=${loaded}-` }, cache: "no-store" } : { cache: mode }),
      });
      if (response.status === 416) loaded = 0;
      else if (!response.ok) throw new DownloadError(`${url}: HTTP ${response.status}`);
      else {
        const range = /^bytes (\d+)-/.exec(response.headers.get("Content-Range") ?? "");
        // A server that does not allow ranges sends the whole file with 200.
        loaded = response.status === 206 ? Number(range?.[1] ?? loaded) : 0;
        const kept = loaded;
        const travel = travelBytes(response, file) - kept;
        const reader = response.body!.getReader();
        for (let step = await reader.read(); !step.done; step = await reader.read()) {
          if (loaded + step.value.length > bytes.length) {
            await quietly(reader.cancel());
            throw new IntegrityError(`${url}: longer than the ${file.bytes} bytes in the manifest; it was not used`);
          }
          bytes.set(step.value, loaded);
          loaded += step.value.length;
          options.onBytes?.(file, Math.round((travel * (loaded - kept)) / (file.bytes - kept)), travel);
        }
        if (loaded === bytes.length) return bytes;
        throw new TypeError(`ended after ${loaded} of ${file.bytes} bytes`);
      }
    } catch (error) {
      if (error instanceof IntegrityError || (error instanceof DownloadError && !signal?.aborted)) throw error;
      if (signal?.aborted || attempt >= RETRY_DELAYS_MS.length) {
        // What has come so far spares the next visit from starting again; its hash is checked when it is whole.
        if (loaded) await quietly(store?.put(partKey, new Response(bytes.slice(0, loaded))));
        signal?.throwIfAborted();
        throw new DownloadError(`${url}: ${line(error)}`, { cause: error });
      }
      await new Promise((wake) => setTimeout(wake, RETRY_DELAYS_MS[attempt]));
    }
  }
}

/** Bytes of the whole file on the wire: the manifest knows what it compresses to, the answer says whether it was. */
function travelBytes(response: Response, file: ManifestFile): number {
  const coding = response.headers.get("Content-Encoding");
  return (coding === "br" ? file.transfer?.brotli : coding === "gzip" ? file.transfer?.gzip : undefined) ?? file.bytes;
}

async function openCache(options: LoadOptions, url: string): Promise<Cache | undefined> {
  // Of other schemes (extensions, apps) nothing may be kept, and nothing needs to be: their files are on the disk.
  if (!options.cache || !("caches" in globalThis) || !/^https?:/.test(url)) return undefined;
  try {
    return await caches.open(CACHE_NAME);
  } catch {
    return undefined; // private windows of some browsers refuse storage; everything works without it
  }
}

/** Storage is a convenience: a full disk must not cost the picture. */
async function quietly(work: Promise<unknown> | undefined): Promise<void> {
  try {
    await work;
  } catch { /* see above */ }
}

async function evictOthers(store: Cache, url: string, keep: string): Promise<void> {
  for (const request of await store.keys()) {
    if (request.url !== keep && request.url.startsWith(`${url}?`)) await store.delete(request);
  }
}

async function matches(bytes: Uint8Array<ArrayBuffer>, file: ManifestFile): Promise<boolean> {
  if (bytes.length !== file.bytes) return false;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("") === file.sha256;
}

/** `pinned` begins with sha256-, sha384- or sha512-. */
async function sri(bytes: Uint8Array<ArrayBuffer>, pinned: string): Promise<string> {
  const name = pinned.slice(0, 6);
  const digest = await crypto.subtle.digest(name.replace("sha", "SHA-"), bytes);
  return `${name}-${btoa(String.fromCharCode(...new Uint8Array(digest)))}`;
}
