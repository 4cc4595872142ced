/** The demo: one queue of pictures, one card for each. */
import { downloadZip } from "client-zip";

import {
  AnimatedImageError, type Background, clearCache, type CutoutResult, type ConvertResult, createRemover, type RefineOption, type Remover, RemoverError,
} from "../src/index.js";
import { setUpCamera } from "./camera.js";
import { byId, save } from "./dom.js";
import { watchTraffic } from "./traffic.js";

type Format = "png" | "webp" | "jpeg" | "alpha";
type Task = "cutout" | "convert";

const GRADIENTS: Record<string, { stops: string[]; angle: number }> = {
  dawn: { stops: ["#fde2c4", "#f5b9ac", "#f3a6a0", "#c595b9", "#a889c9"], angle: 160 },
  sea: { stops: ["#d9f0fb", "#9accea", "#7cb9e0", "#5d94c8", "#3f6fb0"], angle: 180 },
  meadow: { stops: ["#f4f7d4", "#cbe3ae", "#b5d99c", "#8abb8b", "#5f9e7a"], angle: 180 },
};
const EDGES: Record<string, RefineOption> = { refined: "balanced", plain: "fast", hard: { threshold: 0.5 }, soft: { feather: 3 } };
const SUFFIX: Record<Format, string> = { png: ".png", webp: ".webp", jpeg: ".jpg", alpha: "-mask.png" };

class Card {
  readonly element: HTMLElement;
  readonly #original: string;
  #shown?: string;
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
    this.find(".drop-card").setAttribute("aria-label", `Remove ${file.name} from the list`);
    this.find(".save").setAttribute("aria-label", `Download ${file.name}`);
    const split = this.find<HTMLInputElement>(".split");
    split.setAttribute("aria-label", `How much of the original of ${file.name} to show, in percent`);
    split.addEventListener("input", () => this.stage.style.setProperty("--split", `${split.value}%`));
  }

  find<T extends HTMLElement = HTMLElement>(selector: string): T {
    return this.element.querySelector<T>(selector)!;
  }

  get stage(): HTMLElement {
    return this.find(".stage");
  }

  wait(text: string): void {
    this.element.className = "card";
    this.find(".detail").textContent = text;
    this.find<HTMLButtonElement>(".save").disabled = true;
    this.find(".first-frame").hidden = true;
    this.find(".split").hidden = true;
    this.stage.style.setProperty("--split", "100%");
  }

  done(base: Blob, result: CutoutResult | ConvertResult): void {
    this.base = base;
    if (this.#shown) URL.revokeObjectURL(this.#shown);
    this.#shown = URL.createObjectURL(base);
    const after = this.find<HTMLImageElement>(".after");
    after.src = this.#shown;
    after.alt = this.task === "cutout" ? `${this.file.name} without its background` : this.file.name;
    this.element.style.setProperty("--ratio", `${result.width} / ${result.height}`);
    const { totalMs, inferenceMs } = result.timings;
    const parts = [`${result.width}×${result.height}`, seconds(totalMs)];
    if ("backend" in result) parts.push(`model ${seconds(inferenceMs)} on ${result.backend}`);
    const unbroken = parts.map((part) => part.replaceAll(" ", "\u00a0"));
    this.find(".detail").textContent = [...unbroken, ...result.notes].join(" · ");
    this.element.className = "card done";
    this.find<HTMLButtonElement>(".save").disabled = false;
    const split = this.find<HTMLInputElement>(".split");
    const cutout = this.task === "cutout";
    split.hidden = !cutout;
    this.element.classList.toggle("plain", !cutout);
    split.value = cutout ? "22" : "0";
    this.stage.style.setProperty("--split", `${split.value}%`);
  }

  fail(error: unknown): void {
    this.base = undefined;
    this.element.className = "card failed";
    this.find(".detail").textContent = describe(error);
    this.find(".first-frame").hidden = !(error instanceof AnimatedImageError);
  }

  close(): void {
    this.closing.abort();
    URL.revokeObjectURL(this.#original);
    if (this.#shown) URL.revokeObjectURL(this.#shown);
    this.element.remove();
  }
}

const settings = byId<HTMLFormElement>("settings");
const input = byId<HTMLInputElement>("files");
const cards: Card[] = [];
let remover: Remover | undefined;
let backgroundPicture: Blob | undefined;
let working = false;

const traffic = watchTraffic(({ bytes, requests }) => {
  const sent = byId("sent");
  sent.classList.toggle("bad", bytes > 0);
  sent.classList.toggle("good", bytes === 0);
  sent.querySelector("b")!.textContent = `${bytes.toLocaleString("en")} bytes sent`;
  sent.title = `${requests} requests since the first picture, counted by this page's service worker`;
  byId("sent-why").textContent = sent.title;
});

// ---- the model ------------------------------------------------------------------------------------------------------

async function loadModel(): Promise<void> {
  const bar = byId<HTMLProgressElement>("load-bar");
  const text = byId("load-text");
  const load = byId("load");
  load.className = "load";
  byId("retry").hidden = true;
  try {
    const base = document.querySelector<HTMLMetaElement>('meta[name="bundle"]')!.content;
    remover = await createRemover({
      base,
      onProgress({ phase, loaded, total }) {
        if (total) bar.value = loaded / total;
        text.textContent = phase === "download" && total
          ? `Loading the model: ${megabytes(loaded)} of ${megabytes(total)} MB. You can choose pictures already.`
          : phase === "compile" ? "Starting the model …" : "Loading the model …";
      },
    });
    const { info } = remover;
    load.className = "load done";
    text.textContent = "Ready. This page needs no network any more.";
    const backend = byId("backend");
    backend.hidden = false;
    backend.textContent = `${info.model} ${info.precision} · ${info.backend}${info.backend.endsWith("webgpu") ? "" : ` · ${info.threads} thread${info.threads > 1 ? "s" : ""}`}`;
    const reasons = [info.threadsReason, info.webgpuReason, ...info.notes].filter(Boolean);
    backend.title = reasons.join("\n");
    byId("note").textContent = info.threadsReason && !crossOriginIsolated ? "One thread: this host sends no isolation headers and the service worker is not in charge yet; reload to use more." : "";
    document.documentElement.dataset.state = "ready";
    void work();
  } catch (error) {
    load.className = "load failed";
    text.textContent = `The model could not be loaded. ${describe(error)}`;
    byId("retry").hidden = false;
    document.documentElement.dataset.state = "failed";
  }
}

/** The service worker makes the page cross-origin isolated, which takes effect with one reload on the first visit. */
async function start(): Promise<void> {
  if ("serviceWorker" in navigator) {
    try {
      await navigator.serviceWorker.register("sw.js");
      const ready = navigator.serviceWorker.controller ?? await Promise.race([
        new Promise<unknown>((resolve) => navigator.serviceWorker.addEventListener("controllerchange", () => resolve(true), { once: true })),
        new Promise<undefined>((resolve) => setTimeout(resolve, 4000)),
      ]);
      if (ready && !crossOriginIsolated && !cards.length && !sessionStorage.getItem("reloaded")) {
        sessionStorage.setItem("reloaded", "1");
        location.reload();
        return;
      }
    } catch { /* without it the page works, with one thread and a network */ }
  }
  await loadModel();
}

// ---- pictures -------------------------------------------------------------------------------------------------------

function add(files: Iterable<File>): void {
  const chosen = [...files];
  if (!chosen.length) return;
  if (!cards.length) traffic.restart();
  for (const file of chosen) {
    const card = new Card(file);
    cards.push(card);
    card.find(".save").addEventListener("click", () => void download(card));
    card.find(".first-frame").addEventListener("click", () => {
      card.firstFrame = true;
      card.wait("Waiting");
      void work();
    });
    card.find(".drop-card").addEventListener("click", () => {
      cards.splice(cards.indexOf(card), 1);
      card.close();
      showWork();
      byId("add").focus();
    });
    card.wait(remover ? "Waiting" : "Waiting for the model");
    byId("cards").append(card.element);
  }
  showWork();
  showBackground();
  void work();
}

/** One picture after the other, in the order of the page. */
async function work(): Promise<void> {
  if (working || !remover) return;
  working = true;
  for (let card = next(); card; card = next()) {
    card.task = chosen("task") as Task;
    card.refine = EDGES[chosen("edges")];
    const { signal } = card.closing;
    const animation = card.firstFrame ? "first-frame" : "refuse";
    card.wait(card.task === "cutout" ? "Removing the background …" : "Converting …");
    try {
      const result = card.task === "cutout"
        ? await remover.cutout(card.file, { refine: card.refine, animation, signal })
        : await remover.convert(card.file, { animation, signal });
      card.done(result.image as Blob, result);
      announce(`${card.file.name} is done.`);
    } catch (error) {
      if (signal.aborted) continue;
      card.fail(error);
      announce(`${card.file.name}: ${describe(error)}`);
    }
    showBackground();
    showWork();
  }
  working = false;
}

function next(): Card | undefined {
  return cards.find((card) => !/done|failed/.test(card.element.className));
}

async function render(card: Card): Promise<Blob> {
  const format = chosen("format") as Format;
  if (format === "alpha") return (await remover!.cutout(card.file, { output: "alpha", refine: card.refine, animation: "first-frame" })).image as Blob;
  const background = chosenBackground();
  if (format === "png" && background === "transparent") return card.base!;
  return (await remover!.convert(card.base!, { output: format, background })).image as Blob;
}

function nameOf(card: Card): string {
  const stem = card.file.name.replace(/\.[^.]+$/, "") || "picture";
  return `${stem}${card.task === "cutout" && chosen("format") !== "alpha" ? "-cutout" : ""}${SUFFIX[chosen("format") as Format]}`;
}

async function download(card: Card): Promise<void> {
  const button = card.find<HTMLButtonElement>(".save");
  button.disabled = true;
  try {
    save(await render(card), nameOf(card));
  } catch (error) {
    announce(describe(error), true);
  }
  button.disabled = false;
}

async function downloadAll(): Promise<void> {
  const button = byId<HTMLButtonElement>("all");
  const ready = cards.filter((card) => card.base);
  const names = new Map<string, number>();
  const entries = [];
  button.disabled = true;
  try {
    for (const [i, card] of ready.entries()) {
      button.textContent = `${i + 1} of ${ready.length}`;
      const name = nameOf(card);
      const seen = names.get(name) ?? 0;
      names.set(name, seen + 1);
      entries.push({ name: seen ? name.replace(/(\.[^.]+)$/, `-${seen + 1}$1`) : name, input: await render(card) });
    }
    if (entries.length === 1) save(entries[0].input, entries[0].name);
    else save(await downloadZip(entries).blob(), "cutouts.zip");
  } catch (error) {
    announce(describe(error), true);
  }
  showWork();
}

// ---- the page -------------------------------------------------------------------------------------------------------

function chosen(name: string): string {
  return String(new FormData(settings).get(name));
}

function chosenBackground(): Background {
  const value = chosen("background");
  if (value === "own") return byId<HTMLInputElement>("colour").value;
  if (value === "picture") return backgroundPicture ? { image: backgroundPicture } : "transparent";
  return GRADIENTS[value] ?? value;
}

/** Behind the transparent picture, at once; the file is made when it is saved. */
function showBackground(): void {
  const background = chosenBackground();
  for (const element of document.querySelectorAll<HTMLElement>(".backdrop")) {
    element.classList.toggle("cover", typeof background === "object" && "image" in background);
    element.style.background = "";
    if (typeof background === "string") {
      if (background !== "transparent") element.style.background = background;
    } else if ("stops" in background) {
      element.style.background = `linear-gradient(${background.angle}deg, ${background.stops.join(", ")})`;
    } else {
      element.style.backgroundImage = byId("picture-swatch").style.backgroundImage;
    }
  }
}

function showWork(): void {
  byId("work").hidden = !cards.length;
  byId("hero").classList.toggle("small", cards.length > 0);
  const ready = cards.filter((card) => card.base).length;
  const all = byId<HTMLButtonElement>("all");
  all.disabled = !ready || cards.some((card) => !/done|failed/.test(card.element.className));
  all.textContent = ready > 1 ? `Download all ${ready}` : "Download";
}

function announce(text: string, visibly = false): void {
  byId("status").textContent = text;
  if (visibly) byId("note").textContent = text;
}

function describe(error: unknown): string {
  if (error instanceof RemoverError) return `${error.message[0].toUpperCase()}${error.message.slice(1)}. (${error.name})`;
  return error instanceof Error ? error.message : String(error);
}

function seconds(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}

input.addEventListener("change", () => {
  add(input.files ?? []);
  input.value = "";
});
byId("add").addEventListener("click", () => input.click());
byId("all").addEventListener("click", () => void downloadAll());
byId("retry").addEventListener("click", () => void loadModel());
byId("clear").addEventListener("click", async () => {
  const had = await clearCache();
  byId("note").textContent = had ? "The model was removed from this browser; the next visit loads it again." : "There was nothing to remove.";
});
addEventListener("dragenter", (event) => {
  if (event.dataTransfer?.types.includes("Files")) document.body.classList.add("dragging");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  add(event.dataTransfer?.files ?? []);
});
addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length) {
    event.preventDefault();
    add(files);
  }
});
settings.addEventListener("submit", (event) => event.preventDefault());
settings.addEventListener("change", (event) => {
  const { name } = event.target as HTMLInputElement;
  if (name === "task" || (name === "edges" && chosen("task") === "cutout")) {
    for (const card of cards) if (!card.element.classList.contains("failed")) card.wait("Waiting");
    void work();
  }
  showBackground();
});
byId("colour").addEventListener("input", () => {
  settings.querySelector<HTMLInputElement>('[name=background][value=own]')!.checked = true;
  showBackground();
});
const pictureFile = byId<HTMLInputElement>("picture-file");
settings.querySelector('[name=background][value=picture]')!.addEventListener("click", () => pictureFile.click());
pictureFile.addEventListener("change", () => {
  backgroundPicture = pictureFile.files?.[0] ?? backgroundPicture;
  if (backgroundPicture) byId("picture-swatch").style.backgroundImage = `url(${URL.createObjectURL(backgroundPicture)})`;
  pictureFile.value = "";
  showBackground();
});
setUpCamera((picture) => add([picture]));
void start();
