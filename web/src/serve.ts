/** The worker's end: requests in, answers out, one picture at a time. */
import { ConfigError, toMessage } from "./errors.js";
import { Pipeline } from "./pipeline.js";
import type { Answer, Request } from "./protocol.js";
import { warmUp } from "./warmup.js";

/** What is used of DedicatedWorkerGlobalScope, whose types cannot live beside the page's. */
const scope = globalThis as unknown as {
  readonly name: string;
  onmessage: (event: MessageEvent<Request>) => void;
  postMessage(message: Answer, transfer: Transferable[]): void;
};

/** Called once, in the worker. */
export function serve(): void {
  let pipeline: Pipeline | undefined;
  let idle: AbortController | undefined; // aborted as soon as there is something to do
  let queue: Promise<unknown> = Promise.resolve();
  const running = new Map<number, AbortController>();

  const run = async (request: Exclude<Request, { type: "abort" }>, signal: AbortSignal): Promise<void> => {
    const { id } = request;
    const answer = (message: Answer, transfer: Transferable[] = []): void => scope.postMessage(message, transfer);
    try {
      signal.throwIfAborted();
      if (request.type === "create") {
        idle = new AbortController();
        pipeline = await Pipeline.create(request.options, (progress) => answer({ id, type: "progress", progress }), signal);
        answer({ id, type: "done", value: pipeline.info });
        void warmUp(idle.signal);
        return;
      }
      if (!pipeline) throw new ConfigError("the model is not loaded");
      const transfer: Transferable[] = [];
      const value = request.type === "cutout"
        ? await pipeline.cutout(request.picture, request.options, signal)
        : request.type === "compose" ? await pipeline.compose(request.picture, request.alpha, request.options, signal)
        : await pipeline.convert(request.picture, request.options, signal);
      if ("alpha" in value) transfer.push(value.alpha.data.buffer);
      if ("image" in value && value.image instanceof ImageBitmap) transfer.push(value.image);
      answer({ id, type: "done", value }, transfer);
    } catch (error) {
      answer({ id, type: "failed", error: toMessage(error) });
    } finally {
      running.delete(id);
    }
  };

  scope.onmessage = ({ data }) => {
    if (data.type === "abort") {
      running.get(data.id)?.abort();
      return;
    }
    idle?.abort();
    const controller = new AbortController();
    running.set(data.id, controller);
    queue = queue.then(() => run(data, controller.signal));
  };
}
