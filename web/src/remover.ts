/** The page's end: one small object in front of a worker, or in front of the pipeline itself. */
import type { EngineInfo } from "./engine.js";
import { ConfigError, DisposedError, EngineError, fromMessage } from "./errors.js";
import type { CreateOptions } from "./pipeline.js";
import type { Answer, Request } from "./protocol.js";
import type {
  ConvertOptions, ConvertResult, CutoutOptions, CutoutResult, Picture, Progress, Remover, RemoverOptions,
} from "./types.js";

/**
 * Load a bundle and start its model.
 *
 * Rejects with DownloadError, ManifestError, IntegrityError or EngineError, or with the signal's reason.
 */
export async function createRemover(options: RemoverOptions): Promise<Remover> {
  const { base, onProgress = () => {}, signal, mode = "worker", worker, ...rest } = options;
  if (mode !== "worker" && mode !== "main") throw new ConfigError('mode must be "worker" or "main"');
  if (!["auto", "wasm", "webgpu"].includes(rest.device ?? "auto")) throw new ConfigError('device must be "auto", "wasm" or "webgpu"');
  if (rest.threads !== undefined && !(Number.isInteger(rest.threads) && rest.threads >= 1)) {
    throw new ConfigError("threads must be a whole number from 1");
  }
  signal?.throwIfAborted();
  const create: CreateOptions = { ...rest, base: folderUrl(base) };
  return mode === "main" ? createHere(create, onProgress, signal) : createInWorker(create, onProgress, signal, worker);
}

function folderUrl(base: string | URL): string {
  let url: URL;
  try {
    url = new URL(base, globalThis.document?.baseURI ?? globalThis.location?.href);
  } catch {
    throw new ConfigError(`base ${JSON.stringify(String(base))} is no URL`);
  }
  if (!/^https?:$/.test(url.protocol)) throw new ConfigError(`base must be http or https, not ${url.protocol}`);
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  url.search = url.hash = "";
  return url.href;
}

async function createHere(create: CreateOptions, onProgress: (progress: Progress) => void, signal?: AbortSignal): Promise<Remover> {
  const { Pipeline } = await import("./pipeline.js");
  const pipeline = await Pipeline.create(create, onProgress, signal);
  let queue: Promise<unknown> = Promise.resolve();
  let disposed = false;
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const result = queue.then(() => {
      if (disposed) throw new DisposedError("this remover was disposed of");
      return work();
    });
    queue = result.catch(() => {});
    return result;
  };
  return {
    info: pipeline.info,
    cutout: (picture, { signal: abort, ...options } = {}) => inTurn(() => pipeline.cutout(picture, options, abort)),
    convert: (picture, { signal: abort, ...options } = {}) => inTurn(() => pipeline.convert(picture, options, abort)),
    async dispose() {
      if (disposed) return;
      disposed = true;
      await queue;
      await pipeline.dispose();
    },
  };
}

type Unnumbered<T> = T extends { id: number } ? Omit<T, "id"> : never;
interface Waiting { resolve: (value: any) => void; reject: (error: unknown) => void; onProgress?: (progress: Progress) => void }

async function createInWorker(
  create: CreateOptions, onProgress: (progress: Progress) => void, signal?: AbortSignal, make?: () => Worker,
): Promise<Remover> {
  // Written just so, for bundlers recognise it and bundle the worker.
  const worker = make?.() ?? new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "u2net-remover" });
  const waiting = new Map<number, Waiting>();
  let failure: Error | undefined;
  let last = 0;

  const stop = (error: Error): void => {
    failure ??= error;
    worker.terminate();
    for (const { reject } of waiting.values()) reject(failure);
    waiting.clear();
  };
  worker.onerror = (event) => {
    event.preventDefault?.();
    stop(new EngineError(`the worker failed: ${event.message || "it could not be loaded"}`));
  };
  worker.onmessageerror = () => stop(new EngineError("the worker sent what cannot be read"));
  worker.onmessage = ({ data }: MessageEvent<Answer>) => {
    const entry = waiting.get(data.id);
    if (!entry) return; // aborted meanwhile
    if (data.type === "progress") {
      entry.onProgress?.(data.progress);
      return;
    }
    waiting.delete(data.id);
    if (data.type === "done") entry.resolve(data.value);
    else entry.reject(fromMessage(data.error));
  };

  const ask = <T>(request: Unnumbered<Request>, abort?: AbortSignal, progress?: (progress: Progress) => void): Promise<T> =>
    new Promise<T>((resolve, reject) => {
      if (failure) throw failure;
      abort?.throwIfAborted();
      const id = ++last;
      const onAbort = (): void => {
        if (!waiting.delete(id)) return;
        worker.postMessage({ id, type: "abort" } satisfies Request);
        reject(abort!.reason);
      };
      abort?.addEventListener("abort", onAbort, { once: true });
      const settled = (): void => abort?.removeEventListener("abort", onAbort);
      waiting.set(id, {
        resolve(value) { settled(); resolve(value); },
        reject(error) { settled(); reject(error); },
        onProgress: progress,
      });
      try {
        worker.postMessage({ ...request, id });
      } catch (error) {
        waiting.delete(id);
        settled();
        throw new ConfigError("the picture or the options cannot be sent to the worker", { cause: error });
      }
    });

  let info: EngineInfo;
  try {
    info = await ask<EngineInfo>({ type: "create", options: create }, signal, onProgress);
  } catch (error) {
    // An aborted download still saves what has come, so that the next visit can go on from there.
    setTimeout(() => worker.terminate(), signal?.aborted ? 1000 : 0);
    throw error;
  }
  return {
    info,
    cutout: (picture: Picture, { signal: abort, ...options }: CutoutOptions = {}) =>
      ask<CutoutResult>({ type: "cutout", picture, options }, abort),
    convert: (picture: Picture, { signal: abort, ...options }: ConvertOptions = {}) =>
      ask<ConvertResult>({ type: "convert", picture, options }, abort),
    async dispose() {
      if (!failure) stop(new DisposedError("this remover was disposed of"));
    },
  };
}
