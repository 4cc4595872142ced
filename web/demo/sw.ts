/**
 * The demo's service worker does three things, none of which sees a pixel:
 *
 * - keeps the page's own files, so that it starts without a network (the package keeps model and engine itself);
 * - adds the headers that make a page cross-origin isolated, which threads need and many static hosts cannot send, and
 *   the page's content security policy, so that it holds in the worker as well;
 * - tells the page of every request that it or its worker makes, so that "0 bytes sent" is counted and not claimed.
 */
/** The page's own files but for itself, and what each must be, as in an integrity attribute. */
declare const SHELL: Record<string, string>;
/** Those of them that few visits need: they are kept once they were used. */
declare const LATER: string[];
declare const VERSION: string;

const worker = self as any;
const PREFIX = "cutout-demo-";
const CACHE = `${PREFIX}${VERSION}`;
const SCOPE = new URL(worker.registration.scope);
const PAGE = SCOPE.href;
const shell = new Map(Object.entries(SHELL).map(([path, integrity]) => [new URL(path, SCOPE).href, integrity]));
const later = new Set(LATER.map((path) => new URL(path, SCOPE).href));
const POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob:; "
  + "media-src 'self' blob:; connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'";

worker.addEventListener("install", (event: any) => {
  event.waitUntil((async () => {
    const cache = await caches.open(CACHE);
    await cache.put(PAGE, await fetchWhole(PAGE, { cache: "no-cache" }));
    await Promise.all([...shell].map(async ([url, integrity]) => {
      const file = await fetchFile(url, integrity);
      if (file) await cache.put(url, file);
    }));
    await worker.skipWaiting();
  })());
});

/** What the page has loaded a moment ago is not fetched twice, unless it is of another version. */
async function fetchFile(url: string, integrity: string): Promise<Response | undefined> {
  const found = await fetch(url, { cache: later.has(url) ? "only-if-cached" : "force-cache", mode: "same-origin", integrity }).catch(() => undefined);
  if (found?.ok) return found;
  return later.has(url) ? undefined : fetchWhole(url, { cache: "reload", integrity });
}

async function fetchWhole(url: string, init: RequestInit): Promise<Response> {
  const response = await fetch(url, init);
  if (!response.ok) throw new Error(`${url}: HTTP ${response.status}`);
  return response;
}

worker.addEventListener("activate", (event: any) => {
  event.waitUntil((async () => {
    for (const name of await caches.keys()) if (name.startsWith(PREFIX) && name !== CACHE) await caches.delete(name);
    await worker.clients.claim();
  })());
});

worker.addEventListener("fetch", (event: any) => {
  const request: Request = event.request;
  if (new URL(request.url).origin !== SCOPE.origin) return; // the content security policy forbids it anyway
  event.waitUntil(tell(request.clone()));
  event.respondWith(answer(request));
});

async function answer(request: Request): Promise<Response> {
  const url = new URL(request.url);
  url.search = url.hash = "";
  if (url.href.endsWith("/index.html")) url.href = url.href.slice(0, -"index.html".length);
  if (request.method !== "GET" || !(url.href === PAGE || shell.has(url.href))) return isolated(await fetch(request));
  const cache = await caches.open(CACHE);
  const kept = await cache.match(url.href);
  if (kept) return isolated(kept);
  const response = await fetch(request);
  if (response.ok && later.has(url.href)) await cache.put(url.href, response.clone());
  return isolated(response);
}

function isolated(response: Response): Response {
  if (response.status === 0) return response;
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  headers.set("Cross-Origin-Resource-Policy", "same-origin");
  headers.set("Content-Security-Policy", POLICY);
  const empty = [101, 204, 205, 304].includes(response.status);
  return new Response(empty ? null : response.body, { status: response.status, statusText: response.statusText, headers });
}

async function tell(request: Request): Promise<void> {
  const bytes = request.method === "GET" || request.method === "HEAD" ? 0 : (await request.arrayBuffer()).byteLength;
  for (const client of await worker.clients.matchAll({ type: "window" })) {
    client.postMessage({ type: "request", url: request.url, bytes });
  }
}
