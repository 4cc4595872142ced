/**
 * Repair a card's matte by hand: erase, restore, keep one subject, fill holes. The work is done in a worker that waits for it, so
 * that nothing is fetched once a picture is chosen.
 *
 * Mouse and finger paint, the wheel and the keys [ and ] size the brush, two fingers (or Ctrl and the wheel) zoom. By keyboard: arrows
 * move the brush, with Shift by less, Space paints, held down it draws; E, R and K choose the tool; Ctrl+Z and Ctrl+Y undo and redo.
 */
import type { Card } from "../card.js";
import { byId } from "../dom.js";
import type { Brushed } from "../stage.js";
import type { Point } from "./matte.js";
import type { Report, Task } from "./worker.js";

const [LEAST, MOST] = [3, 200]; // pixels of the screen
const STEP = 1.15;
const FINE = 2;

const form = byId<HTMLFormElement>("repair");
const size = byId<HTMLInputElement>("brush-size");
const SAID: Partial<Record<Task["type"], [string, string]>> = {
  undo: ["Undone.", "There is nothing to undo."],
  redo: ["Done again.", "There is nothing to do again."],
  fill: ["Holes are filled.", "There are no holes."],
  keep: ["Only this subject is left.", "There is no other than this one, or nothing at this place."],
};

type OnDone = (data?: Uint8Array<ArrayBuffer>) => void;

export class RepairTool {
  #worker?: Worker;
  #card?: Card;
  #onDone?: OnDone;
  readonly #closing: OnDone[] = [];

  /** `announce` is told what was done, and what went wrong, which is to be seen, too. */
  constructor(readonly announce: (text: string, visibly?: boolean) => void) {
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("change", () => this.#showTool());
    size.addEventListener("input", () => this.#showTool());
    byId("fill").addEventListener("click", () => this.#send({ type: "fill" }));
    byId("undo").addEventListener("click", () => this.#send({ type: "undo" }));
    byId("redo").addEventListener("click", () => this.#send({ type: "redo" }));
    byId("repair-done").addEventListener("click", () => this.close());
  }

  /** Start the worker, once: before a picture is chosen, and after what the page needs first. */
  prepare(): void {
    if (this.#worker) return;
    this.#worker = new Worker(new URL("./repair.js", import.meta.url), { type: "module", name: "repair" });
    this.#worker.onmessage = ({ data }: MessageEvent<Report>) => this.#hear(data);
    this.#worker.onerror = (event) => {
      this.close();
      this.#worker = undefined; // the next repair gets another
      for (const onDone of this.#closing.splice(0)) onDone();
      this.announce(`The repair failed: ${event.message || "its worker could not be started"}.`, true);
    };
  }

  /** Begin with a card that has a matte; `onDone` gets it back where it was changed. */
  open(card: Card, onDone: OnDone): void {
    this.prepare();
    this.close();
    const { data, width, height } = card.matte!;
    [this.#card, this.#onDone] = [card, onDone];
    const canvas = document.createElement("canvas"); // a new one each time, for it can be handed over once
    canvas.className = "repaired";
    card.find(".repaired")?.remove();
    card.find(".after").after(canvas);
    card.element.classList.add("repairing");
    card.find("figcaption").append(form);
    form.hidden = false;
    const offscreen = canvas.transferControlToOffscreen();
    this.#send({ type: "open", file: card.file, alpha: { data: data.slice(), width, height }, canvas: offscreen }, [offscreen]);
    card.stage.fit();
    card.stage.brushed = this.#brushed(width, height);
    this.#choose(card.isEmpty ? "restore" : this.#tool);
    card.stage.element.focus();
  }

  /** Ends what is open; the matte comes back by `onDone`. */
  close(): void {
    const card = this.#card;
    if (!card) return;
    card.stage.brushed = undefined;
    form.hidden = true;
    byId("work").append(form);
    this.#send({ type: "close" });
    this.#closing.push(this.#onDone!);
    this.#card = undefined;
  }

  get card(): Card | undefined { return this.#card; }

  #send(task: Task, transfer: Transferable[] = []): void {
    if (this.#card) this.#worker!.postMessage(task, transfer);
  }

  #hear(report: Report): void {
    if (report.type === "failed") {
      this.announce(`The repair failed: ${report.message}.`, true);
      this.close();
    } else if (report.type === "closed") this.#closing.shift()?.(report.data);
    else {
      const said = SAID[report.by]?.[report.found ? 0 : 1];
      if (said) this.announce(said);
      else if (report.by === "end" && report.found) this.announce(this.#tool === "restore" ? "Restored." : "Erased.");
      byId<HTMLButtonElement>("undo").disabled = !report.canUndo;
      byId<HTMLButtonElement>("redo").disabled = !report.canRedo;
    }
  }

  get #tool(): string {
    return String(new FormData(form).get("tool"));
  }

  #choose(tool: string): void {
    form.querySelector<HTMLInputElement>(`[name=tool][value=${tool}]`)!.checked = true;
    this.#showTool();
  }

  #resize(factor: number): void {
    size.value = String(Math.min(MOST, Math.max(LEAST, Math.max(Number(size.value) * factor, factor > 1 ? Number(size.value) + 1 : 0))));
    this.#showTool();
  }

  #showTool(): void {
    const brush = this.#card?.find(".brush");
    if (!brush) return;
    brush.dataset.tool = this.#tool;
    brush.style.setProperty("--radius", `${this.#tool === "keep" ? 8 : Number(size.value)}px`);
  }

  /** What the stage asks of a brush: places are in pixels of its picture, seen at `scale`. */
  #brushed(width: number, height: number): Brushed {
    let painting = false;
    const place = ({ x, y }: Point): Point => ({ x: x * width, y: y * height });
    return {
      press: (at, shown) => {
        if (this.#tool === "keep") {
          this.#send({ type: "keep", at: place(at) });
          return;
        }
        painting = true;
        this.#send({ type: "begin", brush: { radius: (Number(size.value) * width) / shown, restore: this.#tool === "restore" }, at: place(at) });
      },
      move: (at) => {
        if (painting) this.#send({ type: "paint", to: place(at) });
      },
      release: (cancelled) => {
        if (!painting) return;
        painting = false;
        this.#send(cancelled ? { type: "cancel" } : { type: "end", follow: byId<HTMLInputElement>("follow").checked });
      },
      resize: (factor) => this.#resize(factor),
      key: (event) => this.#key(event),
      step: (fine) => (fine ? FINE : Math.max(8, Number(size.value) / 2)),
    };
  }

  #key(event: KeyboardEvent): boolean {
    if (event.ctrlKey || event.metaKey) {
      const key = event.key.toLowerCase();
      if (key === "z") this.#send({ type: event.shiftKey ? "redo" : "undo" });
      else if (key === "y") this.#send({ type: "redo" });
      else return false;
      return true;
    }
    switch (event.key.length > 1 ? event.key : event.key.toLowerCase()) {
      case "[": this.#resize(1 / STEP); break;
      case "]": this.#resize(STEP); break;
      case "e": this.#choose("erase"); break;
      case "r": this.#choose("restore"); break;
      case "k": this.#choose("keep"); break;
      case "Escape": this.close(); break;
      default: return false;
    }
    return true;
  }
}
