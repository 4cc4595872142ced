/** The service worker: it keeps the page for later, and what the page may say about that. */
import { byId } from "./dom.js";

/** Resolves when the service worker is at work, or there will be none: then the page works with one thread and a network. */
export async function keepPage(): Promise<void> {
  const { serviceWorker } = navigator;
  if (!serviceWorker) return;
  try {
    const controlled = new Promise((resolve) => serviceWorker.addEventListener("controllerchange", resolve, { once: true }));
    await serviceWorker.register("sw.js");
    if (!serviceWorker.controller) await controlled;
    await sayKept();
  } catch { /* as above */ }
}

/** Say so where this browser has kept both the page and the model, and will answer with them. */
export async function sayKept(): Promise<void> {
  if (document.documentElement.dataset.state !== "ready" || !navigator.serviceWorker?.controller) return;
  const names = await caches.keys();
  const kept = ["cutout-demo-", "u2net-remover"].every((prefix) => names.some((name) => name.startsWith(prefix)));
  if (kept) byId("load-text").textContent = "Ready. From now on this page works offline, too.";
}
