/**
 * `<remove-background>`: the pictures inside it lose their background. Importing this module defines it.
 *
 *     <remove-background><img src="photo.jpg" alt="A bicycle"></remove-background>
 *
 * Attributes: `base`, `quality` (of the model), `background`, `crop`, as the options of those names. The original stays until the
 * cut-out is there, and where there is none. It fires "cutout" (detail: { image, result }) and "cutouterror" (detail: { image,
 * error }) for each picture, and "progress" (detail: Progress), which bubble. `data-state` is "loading", "done" or "failed".
 */
import { createRemover } from "./remover.js";
import type { CutoutResult, Progress, Quality, Remover } from "./types.js";

/** One remover for all elements that ask for the same model; kept while the page is. */
const removers = new Map<string, { remover: Promise<Remover>; listeners: Set<(progress: Progress) => void> }>();

function shared(base: string | undefined, quality: Quality | undefined, listener: (progress: Progress) => void): Promise<Remover> {
  const key = JSON.stringify([base, quality]);
  let entry = removers.get(key);
  if (!entry) {
    const listeners = new Set<(progress: Progress) => void>();
    const remover = createRemover({ base, quality, onProgress: (progress) => listeners.forEach((listen) => listen(progress)) });
    entry = { remover, listeners };
    removers.set(key, entry);
    remover.catch(() => removers.delete(key)); // the next one tries again
  }
  entry.listeners.add(listener);
  return entry.remover;
}

const Base = globalThis.HTMLElement ?? class {}; // on a server this can be imported and does nothing

export class RemoveBackgroundElement extends Base {
  static readonly observedAttributes = ["base", "quality", "background", "crop"];
  readonly #done = new WeakMap<HTMLImageElement, string>(); // what was shown last
  readonly #originals = new WeakMap<HTMLImageElement, string>();
  #watch?: MutationObserver;
  #turn = 0;

  connectedCallback(): void {
    this.#watch = new MutationObserver(() => void this.#work());
    this.#watch.observe(this, { childList: true, subtree: true, attributes: true, attributeFilter: ["src"] });
    void this.#work();
  }

  disconnectedCallback(): void {
    this.#watch?.disconnect();
    this.#turn++;
  }

  attributeChangedCallback(): void {
    if (!this.isConnected) return;
    for (const image of this.querySelectorAll("img")) this.#restore(image);
    void this.#work();
  }

  #restore(image: HTMLImageElement): void {
    const original = this.#originals.get(image);
    const shown = this.#done.get(image);
    if (original === undefined || image.getAttribute("src") !== shown) return;
    this.#done.delete(image);
    image.src = original;
  }

  async #work(): Promise<void> {
    const turn = ++this.#turn;
    const images = [...this.querySelectorAll("img")].filter((image) => image.getAttribute("src") && image.getAttribute("src") !== this.#done.get(image));
    if (!images.length) return;
    this.dataset.state = "loading";
    const failed = (image: HTMLImageElement | undefined, error: unknown): void => {
      this.dataset.state = "failed";
      this.#tell("cutouterror", { image, error });
    };
    let remover: Remover;
    try {
      remover = await shared(
        this.getAttribute("base") ?? undefined, (this.getAttribute("quality") ?? undefined) as Quality | undefined,
        (progress) => this.#tell("progress", progress),
      );
    } catch (error) {
      failed(undefined, error);
      return;
    }
    for (const image of images) {
      const original = image.getAttribute("src")!;
      try {
        const result: CutoutResult = await remover.cutout(image, {
          background: this.getAttribute("background") ?? "transparent", crop: this.hasAttribute("crop"),
        });
        if (turn !== this.#turn || image.getAttribute("src") !== original) return; // something newer is on its way
        const before = this.#done.get(image);
        if (before) URL.revokeObjectURL(before);
        const url = URL.createObjectURL(result.image);
        this.#originals.set(image, original);
        this.#done.set(image, url);
        image.removeAttribute("srcset");
        image.src = url;
        this.#tell("cutout", { image, result });
      } catch (error) {
        if (turn === this.#turn) failed(image, error);
        this.#done.set(image, original); // not again and again
      }
    }
    if (this.dataset.state === "loading") this.dataset.state = "done";
  }

  #tell(type: string, detail: unknown): void {
    this.dispatchEvent(new CustomEvent(type, { detail, bubbles: true }));
  }
}

if (globalThis.customElements && !customElements.get("remove-background")) customElements.define("remove-background", RemoveBackgroundElement);
