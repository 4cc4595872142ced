/**
 * The whole package in one file, for pages without a bundler, from whatever host: it is its own worker.
 *
 *     import { createRemover } from "https://…/u2net-remover/dist/standalone.js";
 */
import { help, HELPER_NAME } from "./helper.js";
import { WORKER_NAME } from "./protocol.js";
import { setWorker } from "./remover.js";
import { serve } from "./serve.js";

export * from "./index.js";

const { url } = import.meta;
const scope = globalThis as { name?: string; document?: unknown };

if (!scope.document && scope.name === HELPER_NAME) help();
else if (!scope.document && scope.name === WORKER_NAME) serve();
else setWorker(makeWorker);

function makeWorker(): Worker {
  const options = { type: "module", name: WORKER_NAME } as const;
  if (new URL(url).origin === location.origin) return new Worker(url, options);
  // A worker must come from the page's own origin: one line that does may import what is elsewhere.
  const shim = URL.createObjectURL(new Blob([`import ${JSON.stringify(url)};`], { type: "text/javascript" }));
  try {
    return new Worker(shim, options);
  } finally {
    setTimeout(() => URL.revokeObjectURL(shim), 60_000); // by when it has been read
  }
}
