/** One picture of the person's: what it is, how far it is, and what is seen of it. */
import { AnimatedImageError, type ConvertResult, type CutoutResult, type RefineOption } from "../src/index.js";
import { cropBox, type Subject } from "../src/subject.js";
import { byId } from "./dom.js";
import { settings, type Task } from "./settings.js";
import { Stage } from "./stage.js";
import { describe, seconds } from "./words.js";

const NOTHING_FOUND = "Nothing was found. Take a picture in which one thing is large and stands out from what is behind it, or cut this one closer to it.";

export class Card {
  readonly element: HTMLElement;
  readonly stage: Stage;
  readonly #original: string;
  #shown?: string;
  #whole?: { width: number; height: number; subject?: Subject };
  /** The transparent cut-out, or the picture as it was: what every format and background is made from. */
  base?: Blob;
  task: Task = "cutout";
  refine: RefineOption = "balanced";
  /** The person wants the first frame of an animation. */
  firstFrame = false;
  /** Fires when the card is closed: what is being done for it stops. */
  readonly closing = new AbortController();

  constructor(readonly file: File) {
    const template = byId<HTMLTemplateElement>("card");
    this.element = (template.content.cloneNode(true) as DocumentFragment).firstElementChild as HTMLElement;
    this.#original = URL.createObjectURL(file);
    const before = this.find<HTMLImageElement>(".before");
    before.src = this.#original;
    before.alt = `Original of ${file.name}`;
    before.addEventListener("load", () => this.element.style.setProperty("--ratio", `${before.naturalWidth} / ${before.naturalHeight}`));
    this.find(".name").textContent = file.name;
    for (const [selector, label] of [
      [".drop-card", `Remove ${file.name} from the list`], [".save", `Download ${file.name}`], [".copy", `Copy ${file.name}`],
      [".stage", `${file.name}: plus and minus zoom, arrows move, 0 shows all`], [".zoom-in", `Zoom in on ${file.name}`],
      [".zoom-out", `Zoom out of ${file.name}`],
      [".split", `How much of ${file.name} to show without its background, in percent`],
    ]) this.find(selector).setAttribute("aria-label", label);
    this.stage = new Stage(this.find(".stage"), (scale) => {
      const percent = `${Math.round(scale * 100)}\u00a0%`;
      this.find(".zoom-fit").textContent = percent;
      this.find(".zoom-fit").setAttribute("aria-label", `${percent}: show all of ${file.name}`);
      this.find<HTMLButtonElement>(".zoom-out").disabled = scale === 1;
    });
    this.find(".zoom-in").addEventListener("click", this.stage.zoomIn);
    this.find(".zoom-out").addEventListener("click", this.stage.zoomOut);
    this.find(".zoom-fit").addEventListener("click", this.stage.fit);
    this.find(".copy").hidden = typeof ClipboardItem === "undefined";
  }

  find<T extends HTMLElement = HTMLElement>(selector: string): T {
    return this.element.querySelector<T>(selector)!;
  }

  get isFinished(): boolean {
    return /done|failed/.test(this.element.className);
  }

  wait(text: string): void {
    this.element.className = "card";
    this.find(".detail").textContent = text;
    this.find(".first-frame").hidden = true;
    this.find(".split").hidden = true;
    this.find(".tools").hidden = true;
    this.stage.show(0);
  }

  /** Show the result, all of it; returns a line on how it went. */
  done(base: Blob, result: CutoutResult | ConvertResult): string {
    const subject = "subject" in result ? result.subject : undefined;
    const { width, height, timings } = result;
    if (subject && !subject.found) {
      this.base = undefined;
      this.element.className = "card done empty";
      this.find(".detail").textContent = NOTHING_FOUND;
      return `${this.file.name}: ${NOTHING_FOUND}`;
    }
    this.base = base;
    this.#whole = { width, height, subject };
    if (this.#shown) URL.revokeObjectURL(this.#shown);
    this.#shown = URL.createObjectURL(base);
    const after = this.find<HTMLImageElement>(".after");
    after.src = this.#shown;
    after.alt = subject ? `${this.file.name} without its background` : this.file.name;
    this.find(".detail").textContent = [`${width}×${height}`, seconds(timings.totalMs), ...result.notes].join(" · ");
    this.element.className = `card done${subject ? "" : " plain"}`;
    this.find(".tools").hidden = false;
    this.find(".split").hidden = !subject;
    this.stage.show(100);
    this.stage.fit();
    this.showFrame();
    return `${this.file.name} is done.`;
  }

  /** Show the part of the picture that the settings ask for. */
  showFrame(): void {
    if (!this.#whole) return;
    const { width, height, subject } = this.#whole;
    const crop = settings.frame;
    const part = crop && subject?.box ? cropBox(subject.box, width, height, crop) : { x: 0, y: 0, width, height };
    const { style } = this.element;
    style.setProperty("--ratio", `${part.width} / ${part.height}`);
    style.setProperty("--left", `${(-100 * part.x) / part.width}%`);
    style.setProperty("--top", `${(-100 * part.y) / part.height}%`);
    style.setProperty("--wide", `${(100 * width) / part.width}%`);
    style.setProperty("--high", `${(100 * height) / part.height}%`);
    this.stage.fit();
  }

  fail(error: unknown): string {
    this.base = undefined;
    this.element.className = "card failed";
    this.find(".detail").textContent = describe(error);
    this.find(".first-frame").hidden = !(error instanceof AnimatedImageError);
    return `${this.file.name}: ${describe(error)}`;
  }

  close(): void {
    this.closing.abort();
    URL.revokeObjectURL(this.#original);
    if (this.#shown) URL.revokeObjectURL(this.#shown);
    this.element.remove();
  }
}
