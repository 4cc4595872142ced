/** What page and worker have sent, as the service worker counts it; without one, requests of the page itself. */
export interface Traffic { bytes: number; requests: number }

export function watchTraffic(onChange: (traffic: Traffic) => void): { restart: () => void } {
  let traffic: Traffic = { bytes: 0, requests: 0 };
  const counted = (): boolean => Boolean(navigator.serviceWorker?.controller);
  navigator.serviceWorker?.addEventListener("message", ({ data }) => {
    if (data?.type !== "request") return;
    traffic.bytes += data.bytes;
    traffic.requests++;
    onChange(traffic);
  });
  new PerformanceObserver((list) => {
    if (counted()) return;
    traffic.requests += list.getEntries().filter((entry) => /^https?:/.test(entry.name)).length;
    onChange(traffic);
  }).observe({ type: "resource" });
  return {
    /** Count from here on: the page is loaded, the first picture is chosen. */
    restart() {
      traffic = { bytes: 0, requests: 0 };
      onChange(traffic);
    },
  };
}
