/** The page's end: one small object in front of a worker, or in front of the pipeline itself. */
import type { BundleChoice } from "./bundle.js";
import { ConfigError, DisposedError, EngineError, fromMessage, line, WorkerError } from "./errors.js";
import { type AnyComposeOptions, type AnyConvertOptions, type AnyCutoutOptions, checkBundle, checkCompose, checkConvert, checkCutout, checkRemover } from "./options.js";
import { type Picture, type Sendable, sendable } from "./picture.js";
import type { AnyComposeResult, AnyConvertResult, AnyCutoutResult, CreateOptions } from "./pipeline.js";
import { type Answer, type Request, WORKER_NAME } from "./protocol.js";
import type { Alpha, BundleOptions, NetworkInfo, Progress, Remover, RemoverInfo, RemoverOptions } from "./types.js";

/** What is done in the worker, or here. */
interface Workshop {
  readonly info: RemoverInfo;
  cutout(picture: Sendable, options: AnyCutoutOptions, signal?: AbortSignal, own?: ImageBitmap): Promise<AnyCutoutResult>;
  compose(picture: Sendable, alpha: Alpha, options: AnyComposeOptions, signal?: AbortSignal, own?: ImageBitmap): Promise<AnyComposeResult>;
  convert(picture: Sendable, options: AnyConvertOptions, signal?: AbortSignal, own?: ImageBitmap): Promise<AnyConvertResult>;
  dispose(): Promise<void>;
}

type OnProgress = (progress: Progress) => void;

/**
 * Load a bundle and start its model; without options the model that comes with this package.
 *
 * Rejects with ConfigError, DownloadError, ManifestError, IntegrityError, EngineError or WorkerError, or with the signal's
 * reason.
 */
export async function createRemover(options: RemoverOptions = {}): Promise<Remover> {
  checkRemover(options);
  const { base, onProgress = () => {}, signal, mode, worker, ...rest } = options;
  signal?.throwIfAborted();
  const create: CreateOptions = { ...rest, device: rest.device ?? "auto", base: base === undefined ? undefined : folderUrl(base) };
  return remover(await openWorkshop(create, mode, onProgress, signal, worker));
}

/** Fetch and keep a bundle's manifest and model, so that a later createRemover with the same options needs no network. */
export async function preload(options: BundleOptions = {}): Promise<void> {
  checkBundle(options);
  const { base, onProgress = () => {}, signal, ...rest } = options;
  signal?.throwIfAborted();
  const choice: BundleChoice = { ...rest, base: base === undefined ? undefined : folderUrl(base) };
  await (await import("./pipeline.js")).preloadBundle(choice, onProgress, signal);
}

/** An absolute URL that ends in a slash, of any scheme that has folders: extensions and apps have their own. */
export function folderUrl(base: string | URL): string {
  let url: URL;
  try {
    url = new URL(base, globalThis.document?.baseURI ?? globalThis.location?.href);
  } catch {
    throw new ConfigError(`base ${JSON.stringify(String(base))} is no URL`);
  }
  if (!url.href.startsWith(`${url.protocol}//`)) throw new ConfigError(`base must be the URL of a folder, which ${url.protocol} has none of`);
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  url.search = url.hash = "";
  return url.href;
}

function remover(workshop: Workshop): Remover {
  const prepared = async (picture: Picture, signal?: AbortSignal) => {
    signal?.throwIfAborted();
    return sendable(picture, signal);
  };
  return {
    get info() {
      return workshop.info;
    },
    async cutout(picture: Picture, options: AnyCutoutOptions = {}) {
      checkCutout(options);
      const { signal, ...rest } = options;
      const ready = await prepared(picture, signal);
      return (await workshop.cutout(ready.picture, rest as AnyCutoutOptions, signal, ready.own)) as any;
    },
    async compose(picture: Picture, alpha: Alpha, options: AnyComposeOptions = {}) {
      checkCompose(alpha, options);
      const { signal, ...rest } = options;
      const ready = await prepared(picture, signal);
      return (await workshop.compose(ready.picture, alpha, rest as AnyComposeOptions, signal, ready.own)) as any;
    },
    async convert(picture: Picture, options: AnyConvertOptions = {}) {
      checkConvert(options);
      const { signal, ...rest } = options;
      const ready = await prepared(picture, signal);
      return (await workshop.convert(ready.picture, rest as AnyConvertOptions, signal, ready.own)) as any;
    },
    dispose: () => workshop.dispose(),
  };
}

async function openWorkshop(
  create: CreateOptions, mode: "worker" | "main" | undefined, onProgress: OnProgress, signal?: AbortSignal, make?: () => Worker,
): Promise<Workshop> {
  if (mode === "main") return openHere(create, onProgress, signal);
  try {
    return await WorkerWorkshop.open(create, onProgress, signal, make);
  } catch (error) {
    if (mode === "worker" || make || !(error instanceof WorkerError)) throw error;
    return openHere(create, onProgress, signal, error.message);
  }
}

async function openHere(create: CreateOptions, onProgress: OnProgress, signal?: AbortSignal, modeReason?: string): Promise<Workshop> {
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
  /** The pipeline closes what it has read; a bitmap of the caller's must outlive it. */
  const copied = async (picture: Sendable, own?: ImageBitmap): Promise<Sendable> =>
    own || picture instanceof Blob || "data" in picture ? picture : createImageBitmap(picture);
  return {
    info: { ...pipeline.info, mode: "main", modeReason },
    cutout: (picture, options, abort, own) => inTurn(async () => pipeline.cutout(await copied(picture, own), options, abort)),
    compose: (picture, alpha, options, abort, own) => inTurn(async () => pipeline.compose(await copied(picture, own), alpha, options, abort)),
    convert: (picture, options, abort, own) => inTurn(async () => pipeline.convert(await copied(picture, own), options, abort)),
    async dispose() {
      if (disposed) return;
      disposed = true;
      await queue;
      await pipeline.dispose();
    },
  };
}

type Unnumbered<T> = T extends { id: number } ? Omit<T, "id"> : never;
interface Waiting { resolve: (value: any) => void; reject: (error: unknown) => void; onProgress?: OnProgress }

/** A worker that dies takes what it was doing with it, as WorkerError; the next picture gets a new one. */
class WorkerWorkshop implements Workshop {
  #link: WorkerLink;
  #starting?: Promise<void>;
  #disposed = false;
  private constructor(
    readonly create: CreateOptions, readonly make: (() => Worker) | undefined, link: WorkerLink, public info: RemoverInfo,
  ) {
    this.#link = link;
  }

  static async open(create: CreateOptions, onProgress: OnProgress, signal?: AbortSignal, make?: () => Worker): Promise<WorkerWorkshop> {
    const [link, info] = await WorkerWorkshop.#start(create, onProgress, signal, make);
    return new WorkerWorkshop(create, make, link, info);
  }

  static async #start(
    create: CreateOptions, onProgress: OnProgress, signal?: AbortSignal, make?: () => Worker,
  ): Promise<[WorkerLink, RemoverInfo]> {
    const link = new WorkerLink(make);
    try {
      const info = await link.ask<NetworkInfo>({ type: "create", options: create }, [], signal, onProgress);
      return [link, { ...info, mode: "worker" }];
    } catch (error) {
      // An aborted download still saves what has come, so that the next visit can go on from there.
      setTimeout(() => link.stop(new DisposedError("this remover could not be created")), signal?.aborted ? 1000 : 0);
      // Of what some bundlers make of ONNX Runtime, threads cannot be started, which it blames on the model.
      if (!(error instanceof EngineError) || create.threads === 1 || !globalThis.crossOriginIsolated) throw error;
      const [second, info] = await WorkerWorkshop.#start({ ...create, threads: 1 }, onProgress, signal, make);
      return [second, { ...info, threadsReason: `threads failed: ${error.message}` }];
    }
  }

  async #ask<T>(request: Unnumbered<Request>, own: ImageBitmap | undefined, signal?: AbortSignal): Promise<T> {
    if (this.#link.failure && !this.#disposed) {
      this.#starting ??= WorkerWorkshop.#start(this.create, () => {}, undefined, this.make)
        .then(([link, info]) => {
          if (this.#disposed) link.stop(new DisposedError("this remover was disposed of"));
          this.#link = link;
          this.info = info;
        })
        .finally(() => {
          this.#starting = undefined;
        });
      await this.#starting;
    }
    return this.#link.ask<T>(request, own ? [own] : [], signal);
  }

  cutout(picture: Sendable, options: AnyCutoutOptions, signal?: AbortSignal, own?: ImageBitmap): Promise<AnyCutoutResult> {
    return this.#ask({ type: "cutout", picture, options }, own, signal);
  }

  compose(picture: Sendable, alpha: Alpha, options: AnyComposeOptions, signal?: AbortSignal, own?: ImageBitmap): Promise<AnyComposeResult> {
    return this.#ask({ type: "compose", picture, alpha, options }, own, signal);
  }

  convert(picture: Sendable, options: AnyConvertOptions, signal?: AbortSignal, own?: ImageBitmap): Promise<AnyConvertResult> {
    return this.#ask({ type: "convert", picture, options }, own, signal);
  }

  async dispose(): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#link.stop(new DisposedError("this remover was disposed of"));
  }
}

/** One worker, and what waits for its answers. */
class WorkerLink {
  failure?: Error;
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  #last = 0;

  constructor(make?: () => Worker) {
    try {
      this.#worker = (make ?? makeWorker)();
    } catch (error) {
      throw new WorkerError(`no worker can be started: ${line(error)}`, { cause: error });
    }
    this.#worker.onerror = (event) => {
      event.preventDefault?.();
      this.stop(new WorkerError(`the worker failed: ${event.message || "it could not be loaded"}`));
    };
    this.#worker.onmessageerror = () => this.stop(new WorkerError("the worker sent what cannot be read"));
    this.#worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      const entry = this.#waiting.get(data.id);
      if (!entry) return; // aborted meanwhile
      if (data.type === "progress") {
        entry.onProgress?.(data.progress);
        return;
      }
      this.#waiting.delete(data.id);
      if (data.type === "done") entry.resolve(data.value);
      else entry.reject(fromMessage(data.error));
    };
  }

  stop(error: Error): void {
    this.failure = this.failure instanceof DisposedError ? this.failure : error;
    this.#worker.terminate();
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }

  ask<T>(request: Unnumbered<Request>, transfer: Transferable[], abort?: AbortSignal, onProgress?: OnProgress): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.failure) throw this.failure;
      abort?.throwIfAborted();
      const id = ++this.#last;
      const onAbort = (): void => {
        if (!this.#waiting.delete(id)) return;
        this.#worker.postMessage({ id, type: "abort" } satisfies Request);
        reject(abort!.reason);
      };
      abort?.addEventListener("abort", onAbort, { once: true });
      const settled = (): void => abort?.removeEventListener("abort", onAbort);
      this.#waiting.set(id, {
        resolve(value) { settled(); resolve(value); },
        reject(error) { settled(); reject(error); },
        onProgress,
      });
      try {
        this.#worker.postMessage({ ...request, id }, transfer);
      } catch (error) {
        this.#waiting.delete(id);
        settled();
        throw new ConfigError(`the picture or the options cannot be sent to the worker: ${line(error)}`, { cause: error });
      }
    });
  }
}

let makeWorker = (): Worker =>
  // Written just so, for bundlers recognise it and bundle the worker.
  new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: WORKER_NAME });

/** For builds in which the worker is another file. */
export function setWorker(make: () => Worker): void {
  makeWorker = make;
}
