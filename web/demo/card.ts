/** One picture of the person's: what it is, how far it is, and what is seen of it. */
import { type Alpha, AnimatedImageError, type ComposeOptions, type ComposeResult, type ConvertResult } from "../src/index.js";
import { cropBox, type Subject } from "../src/subject.js";
import { byId } from "./dom.js";
import { cropOf, type Look, paintBackground } from "./look.js";
import { canShare } from "./files.js";
import { commonLook } from "./settings.js";
import { Stage } from "./stage.js";
import { describe, seconds } from "./words.js";

const NOTHING_FOUND = "Nothing was found. Take a picture in which one thing is large and stands out from what is behind it, or cut this one closer to it. Or paint it in: Repair.";

export class Card {
  static #count = 0;
  readonly element: HTMLElement;
  readonly stage: Stage;
  readonly #original: string;
  #shown?: string;
  #whole?: { width: number; height: number; subject?: Subject };
  /** The transparent cut-out, or the picture as it was: what every format and background is made from. */
  base?: Blob;
  readonly look: Look = commonLook();
  /** Of the cut-out, as the network or the person has made it. */
  matte?: Alpha;
  /** The setting of edges that the matte was made with. */
  edges?: string;
  /** The person has painted in the matte: it is not made anew. */
  isRepaired = false;
  /** Nothing was found: all that can be done is to paint it in. */
  isEmpty = false;
  /** Counts what has been shown, and what was asked for. */
  edition = 0;
  turn = 0;
  /** The person wants the first frame of an animation. */
  firstFrame = false;
  /** Fires when the card is closed: what is being done for it stops. */
  readonly closing = new AbortController();
  readonly id: string;

  constructor(readonly file: File) {
    this.id = `picture-${++Card.#count}`;
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
      [".share", `Share ${file.name}`], [".mend", `Repair ${file.name}`], [".zoom-in", `Zoom in on ${file.name}`],
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
    this.find(".share").hidden = !canShare();
    this.showStage();
    paintBackground(this.find(".backdrop"), this.look);
  }

  find<T extends HTMLElement = HTMLElement>(selector: string): T {
    return this.element.querySelector<T>(selector)!;
  }

  get isFinished(): boolean {
    return /done|failed/.test(this.element.className);
  }

  /** What the matte's colours along its edge are to be. */
  get colours(): ComposeOptions["colours"] {
    return this.edges === "plain" ? "keep" : "estimate";
  }

  /** Whether a matte is there that the look asks for. */
  get isSeen(): boolean {
    return this.matte !== undefined && (this.isRepaired || this.edges === this.look.edges);
  }

  /** What the picture is to somebody who does not see it, and to the keys. */
  showStage(repairing = false): void {
    const stage = this.find(".stage");
    stage.setAttribute("role", repairing ? "application" : "group");
    stage.setAttribute("aria-label", repairing
      ? `Repair ${this.file.name}: arrows move the brush, Space paints, E erases, R restores, K keeps only what is under the brush, brackets change its size, Escape ends`
      : `${this.file.name}: plus and minus zoom, arrows move, 0 shows all`);
  }

  wait(text: string): void {
    this.element.className = "card";
    this.showStage();
    this.find(".detail").textContent = text;
    this.find(".first-frame").hidden = true;
    this.find(".split").hidden = true;
    this.find(".tools").inert = true;
    if (this.isSeen) return; // what is seen stays until there is something better
    this.find(".tools").hidden = true;
    this.stage.show(0);
  }

  /** Show the result, all of it; returns a line on how it went. */
  done(result: ComposeResult | ConvertResult): string {
    const { image: base, width, height, timings } = result;
    const subject = "subject" in result ? result.subject : undefined;
    this.edition++;
    this.#whole = { width, height, subject };
    this.isEmpty = subject !== undefined && !subject.found && !this.isRepaired;
    if (this.isEmpty) {
      this.base = undefined;
      this.element.className = "card done empty";
      this.find(".tools").hidden = this.find(".tools").inert = false;
      this.find(".detail").textContent = NOTHING_FOUND;
      return `${this.file.name}: ${NOTHING_FOUND}`;
    }
    this.base = base;
    if (this.#shown) URL.revokeObjectURL(this.#shown);
    this.#shown = URL.createObjectURL(base);
    const after = this.find<HTMLImageElement>(".after");
    after.src = this.#shown;
    after.alt = subject ? `${this.file.name} without its background` : this.file.name;
    this.find(".detail").textContent = [`${width}×${height}`, this.isRepaired && subject ? "repaired" : seconds(timings.totalMs), ...result.notes].join(" · ");
    this.element.className = `card done${subject ? "" : " plain"}`;
    this.find(".tools").hidden = this.find(".tools").inert = false;
    this.find(".split").hidden = this.find(".mend").hidden = !subject;
    this.stage.show(100);
    this.stage.fit();
    this.showFrame();
    return `${this.file.name} is done.`;
  }

  /** Show the part of the picture that the settings ask for. */
  showFrame(whole = false): void {
    if (!this.#whole) return;
    const { width, height, subject } = this.#whole;
    const crop = whole ? undefined : cropOf(this.look);
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
