/** Pictures to try at once, and one of them cut out live on the landing page by the model that has just been loaded. */
import type { RefineOption, Remover } from "../src/index.js";
import { byId } from "./dom.js";
import { Stage } from "./stage.js";
import { seconds } from "./words.js";

const SPLIT = 52; // percent: some of both is to be seen
const stopped = new AbortController();

export function setUpSamples(onPicture: (picture: File) => void, onError: (error: unknown) => void): void {
  for (const button of document.querySelectorAll<HTMLButtonElement>("[data-sample]")) {
    button.addEventListener("click", async () => {
      try {
        const response = await fetch(button.querySelector("img")!.src);
        if (!response.ok) throw new Error(`The sample could not be loaded (${response.status}).`);
        const blob = await response.blob();
        onPicture(new File([blob], `${button.dataset.sample}.webp`, { type: blob.type }));
      } catch (error) {
        onError(error);
      }
    });
  }
}

/** Makes way for a picture of the person's. */
export function stopLive(): void {
  stopped.abort();
}

/** At first sight as soon as can be, and then as a picture of the person's is: with a second look, and fine edges. */
export async function showLive(remover: Remover): Promise<void> {
  const live = byId("live");
  if (live.dataset.state || stopped.signal.aborted) return;
  const { signal } = stopped;
  const [before, after] = [".before", ".after"].map((selector) => live.querySelector<HTMLImageElement>(selector)!);
  const show = async (refine: RefineOption): Promise<string> => {
    const { image, timings } = await remover.cutout(before, { refine, signal });
    const last = after.src;
    after.src = URL.createObjectURL(image);
    await after.decode();
    if (last) URL.revokeObjectURL(last);
    return seconds(timings.totalMs);
  };
  try {
    await before.decode();
    const first = await show("fast");
    live.dataset.state = "done";
    const stage = new Stage(live.querySelector<HTMLElement>(".stage")!);
    stage.divider.hidden = false;
    stage.show(SPLIT);
    byId("live-text").textContent = `Cut out just now, in this browser, in ${first}. The edges follow …`;
    byId("live-text").textContent = `Cut out just now, in this browser: at first sight in ${first}, with fine edges in ${await show("balanced")}.`;
  } catch {
    live.dataset.state ||= "none"; // the picture stays as it is; the person's own ones say what is wrong
  }
}
