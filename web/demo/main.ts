/** The demo: one queue of pictures, one card for each. */
import { clearCache, type ComposeResult, type ConvertResult, type Remover } from "../src/index.js";
import { setUpCamera } from "./camera.js";
import { Card } from "./card.js";
import { byId } from "./dom.js";
import { copy, download, downloadAll, share } from "./files.js";
import { type Look, paintBackground, refineOf } from "./look.js";
import { loadModel } from "./model.js";
import { keepPage, sayKept } from "./offline.js";
import { setUpSamples, showLive, stopLive } from "./samples.js";
import { RepairTool } from "./repair/tool.js";
import { listPictures, setUpSettings } from "./settings.js";
import { watchTraffic } from "./traffic.js";
import { describe } from "./words.js";

const input = byId<HTMLInputElement>("files");
const cards: Card[] = [];
const traffic = watchTraffic();
const repair = new RepairTool(announce);
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
  repair.prepare();
  void sayKept();
  if (!cards.length) await showLive(remover);
  void work();
}

// ---- pictures -------------------------------------------------------------------------------------------------------

function add(files: Iterable<File>): void {
  const chosen = [...files];
  if (!chosen.length) return;
  const first = !cards.length;
  if (first) traffic.restart();
  stopLive();
  for (const file of chosen) {
    const card = new Card(file);
    cards.push(card);
    const press = (selector: string, action: () => Promise<void>): void =>
      card.find(selector).addEventListener("click", (event) => void busy(event.currentTarget as HTMLButtonElement, action));
    press(".save", () => download(remover!, card));
    press(".copy", async () => {
      await copy(remover!, card);
      announce(`${card.file.name} is on the clipboard.`, true);
    });
    press(".share", async () => {
      if (!await share(remover!, card)) announce(`${card.file.name} is ready to be shared: press Share once more.`, true);
    });
    card.find(".mend").addEventListener("click", () => startRepair(card));
    card.find(".first-frame").addEventListener("click", () => {
      card.firstFrame = true;
      card.wait("Waiting");
      void work();
    });
    card.find(".drop-card").addEventListener("click", () => {
      if (repair.card === card) repair.close();
      cards.splice(cards.indexOf(card), 1);
      card.close();
      showWork();
      (cards.length ? byId("add") : input).focus();
    });
    card.wait(remover ? "Waiting" : "Waiting for the model");
    byId("cards").append(card.element);
  }
  showWork();
  if (first) scrollTo(0, 0); // the landing page was longer
  void work();
}

function startRepair(card: Card): void {
  card.showFrame(true);
  card.showStage(true);
  repair.open(card, (data) => {
    card.element.classList.remove("repairing");
    card.showStage();
    card.showFrame();
    if (!cards.includes(card)) return;
    if (data) {
      card.matte = { ...card.matte!, data };
      card.isRepaired = true;
      again([card]);
    }
    showWork();
    if (!repair.card) card.find(".stage").focus();
  });
  showWork();
}

/** Make these once more, for they are to look otherwise. */
function again(changed: Card[]): void {
  for (const card of changed) {
    card.turn++;
    if (!card.element.classList.contains("failed")) card.wait("Waiting");
  }
  void work();
}

/** One picture after the other, in the order of the page. */
async function work(): Promise<void> {
  if (working || !remover) return;
  working = true;
  for (let card = next(); card; card = next()) {
    const { turn, closing: { signal } } = card;
    card.wait(card.look.task === "convert" ? "Converting …" : card.isSeen ? "Putting it together …" : "Removing the background …");
    try {
      const result = await make(remover, card, signal);
      if (turn === card.turn) announce(card.done(result)); // else it is to look otherwise by now
    } catch (error) {
      if (signal.aborted) continue;
      announce(card.fail(error));
    }
    showWork();
  }
  working = false;
}

async function make(remover: Remover, card: Card, signal: AbortSignal): Promise<ComposeResult | ConvertResult> {
  const { file, look: { task, edges, shadow }, colours } = card;
  const animation = card.firstFrame ? "first-frame" : "refuse";
  if (task === "convert") return remover.convert(file, { animation, signal });
  if (card.isSeen) return remover.compose(file, card.matte!, { shadow, colours, animation, signal });
  const result = await remover.cutout(file, { refine: refineOf(card.look), shadow, animation, signal });
  [card.matte, card.edges] = [result.alpha, edges];
  return result;
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
  all.disabled = !ready || repair.card !== undefined || cards.some((card) => !card.isFinished);
  all.textContent = ready > 1 ? `Download all ${ready}` : "Download";
  listPictures(cards);
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
setUpSettings(cards, (changed, name: keyof Look) => {
  for (const card of changed) paintBackground(card.find(".backdrop"), card.look);
  if (name === "frame") for (const card of changed) card.showFrame(repair.card === card);
  if (repair.card && changed.includes(repair.card) && ["task", "edges", "shadow"].includes(name)) repair.close();
  if (name === "task") again(changed);
  if (name === "edges" || name === "shadow") again(changed.filter(({ look, isRepaired }) => look.task === "cutout" && !(name === "edges" && isRepaired)));
});
setUpSamples((picture) => add([picture]), (error) => announce(describe(error), true));
setUpCamera((picture) => add([picture]));
void start();
