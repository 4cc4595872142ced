/** What page and worker have sent, as the service worker counts it, and what the page says about it. */
import { byId } from "./dom.js";

/** Starts to watch; `restart` counts from there on: the page is loaded, the first picture is chosen. A first visit is counted once it has its service worker. */
export function watchTraffic(): { restart: () => void } {
  let [bytes, requests] = [0, 0];
  let begin = "the page was loaded";
  const isCounting = (): boolean => Boolean(navigator.serviceWorker?.controller);
  const show = (): void => {
    const counted = isCounting();
    const sent = byId("sent");
    sent.classList.toggle("good", counted && bytes === 0);
    sent.classList.toggle("bad", bytes > 0);
    sent.querySelector("b")!.textContent = counted ? `${bytes.toLocaleString("en")} bytes sent` : "Bytes sent: not counted";
    byId("sent-why").textContent = counted
      ? `Counted by this page's service worker: ${requests} requests since ${begin}, which sent ${bytes.toLocaleString("en")} bytes.`
      : "Nothing counts this page's requests: its service worker has not started yet, or this browser or this host gives it none. Its policy still allows it to talk to its own host alone, and it has no code that sends pictures.";
  };
  navigator.serviceWorker?.addEventListener("message", ({ data }) => {
    if (data?.type !== "request") return;
    bytes += data.bytes;
    requests++;
    show();
  });
  navigator.serviceWorker?.addEventListener("controllerchange", () => {
    begin = "the counting began";
    show();
  });
  show();
  return {
    restart() {
      bytes = requests = 0;
      begin = "the first picture";
      show();
    },
  };
}
