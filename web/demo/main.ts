/** The demo: one queue of pictures, one card for each. */
import { clearCache, type Remover } from "../src/index.js";
import { setUpCamera } from "./camera.js";
import { Card } from "./card.js";
import { byId } from "./dom.js";
import { copy, download, downloadAll } from "./files.js";
import { loadModel } from "./model.js";
import { keepPage } from "./offline.js";
import { setUpSamples, showLive, stopLive } from "./samples.js";
import { setUpSettings, settings, showBackground } from "./settings.js";
import { watchTraffic } from "./traffic.js";
import { describe } from "./words.js";

const input = byId<HTMLInputElement>("files");
const cards: Card[] = [];
const traffic = watchTraffic();
let remover: Remover | undefined;
let working = false;

/** The model begins to travel at once; the service worker comes after it, and what it gives threads on the second visit. */
async function start(): Promise<void> {
  await openModel();
  await keepPage();
}

async function openModel(): Promise<void> {
  remover = await loadModel();
  if (!remover) return;
  if (!cards.length) await showLive(remover);
  void work();
}

// ---- pictures -------------------------------------------------------------------------------------------------------

function add(files: Iterable<File>): void {
  const chosen = [...files];
  if (!chosen.length) return;
  if (!cards.length) traffic.restart();
  stopLive();
  for (const file of chosen) {
    const card = new Card(file);
    cards.push(card);
    card.find(".save").addEventListener("click", (event) => void busy(event.currentTarget as HTMLButtonElement, () => download(remover!, card)));
    card.find(".copy").addEventListener("click", (event) => void busy(event.currentTarget as HTMLButtonElement, async () => {
      await copy(remover!, card);
      announce(`${card.file.name} is on the clipboard.`, true);
    }));
    card.find(".first-frame").addEventListener("click", () => {
      card.firstFrame = true;
      card.wait("Waiting");
      void work();
    });
    card.find(".drop-card").addEventListener("click", () => {
      cards.splice(cards.indexOf(card), 1);
      card.close();
      showWork();
      (cards.length ? byId("add") : input).focus();
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
    card.task = settings.task;
    card.refine = settings.edges;
    const { signal } = card.closing;
    const animation = card.firstFrame ? "first-frame" : "refuse";
    card.wait(card.task === "cutout" ? "Removing the background …" : "Converting …");
    try {
      const result = card.task === "cutout"
        ? await remover.cutout(card.file, { refine: card.refine, animation, signal })
        : await remover.convert(card.file, { animation, signal });
      announce(card.done(result.image, result));
    } catch (error) {
      if (signal.aborted) continue;
      announce(card.fail(error));
    }
    showWork();
  }
  working = false;
}

function next(): Card | undefined {
  return cards.find((card) => !card.isFinished);
}

// ---- the page -------------------------------------------------------------------------------------------------------

function showWork(): void {
  const none = !cards.length;
  byId("work").hidden = none;
  byId("hero").classList.toggle("small", !none);
  byId("work-title").textContent = cards.length > 1 ? `Your ${cards.length} pictures` : "Your picture";
  const ready = cards.filter((card) => card.base).length;
  const all = byId<HTMLButtonElement>("all");
  all.hidden = cards.length < 2;
  all.disabled = !ready || cards.some((card) => !card.isFinished);
  all.textContent = ready > 1 ? `Download all ${ready}` : "Download";
}

/** Do what a button asks for; it waits meanwhile, and what goes wrong is said. */
async function busy(button: HTMLButtonElement, action: () => Promise<void>): Promise<void> {
  button.disabled = true;
  try {
    await action();
  } catch (error) {
    announce(describe(error), true);
  }
  button.disabled = false;
}

function announce(text: string, visibly = false): void {
  byId("status").textContent = text;
  byId("note").textContent = visibly ? text : "";
}

input.addEventListener("change", () => {
  add(input.files ?? []);
  input.value = "";
});
byId("add").addEventListener("click", () => input.click());
byId("all").addEventListener("click", async () => {
  const all = byId<HTMLButtonElement>("all");
  await busy(all, () => downloadAll(remover!, cards.filter((card) => card.base), (text) => { all.textContent = text; }));
  showWork();
});
byId("retry").addEventListener("click", () => void openModel());
byId("clear").addEventListener("click", async () => {
  const had = await clearCache();
  announce(had ? "The model was removed from this browser; the next visit loads it again." : "There was nothing to remove.", true);
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
setUpSettings(
  () => {
    for (const card of cards) if (!card.element.classList.contains("failed")) card.wait("Waiting");
    void work();
  },
  () => { for (const card of cards) card.showFrame(); },
);
setUpSamples((picture) => add([picture]), (error) => announce(describe(error), true));
setUpCamera((picture) => add([picture]));
void start();
