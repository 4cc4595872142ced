/** What the form asks for, and the background behind the pictures as it says. */
import type { Background, CropOptions, RefineOption } from "../src/index.js";
import { byId } from "./dom.js";

export type Format = "png" | "webp" | "jpeg" | "alpha";
export type Task = "cutout" | "convert";

const GRADIENTS: Record<string, { stops: string[]; angle: number }> = {
  dawn: { stops: ["#fde2c4", "#f5b9ac", "#f3a6a0", "#c595b9", "#a889c9"], angle: 160 },
  sea: { stops: ["#d9f0fb", "#9accea", "#7cb9e0", "#5d94c8", "#3f6fb0"], angle: 180 },
  meadow: { stops: ["#f4f7d4", "#cbe3ae", "#b5d99c", "#8abb8b", "#5f9e7a"], angle: 180 },
};
const EDGES: Record<string, RefineOption> = { refined: "balanced", plain: "fast", hard: { threshold: 0.5 }, soft: { feather: 3 } };
const FRAMES: Record<string, Required<CropOptions>> = { subject: { margin: 0.05, square: false }, square: { margin: 0.08, square: true } };

const form = byId<HTMLFormElement>("settings");
let picture: { file: Blob; url: string } | undefined;

function chosen(name: string): string {
  return String(new FormData(form).get(name));
}

export const settings = {
  get task() { return chosen("task") as Task; },
  get edges() { return EDGES[chosen("edges")]; },
  get format() { return chosen("format") as Format; },
  /** The crop that is meant, or undefined for the whole picture. */
  get frame(): Required<CropOptions> | undefined { return FRAMES[chosen("frame")]; },
  get background(): Background {
    const value = chosen("background");
    if (value === "own") return byId<HTMLInputElement>("colour").value;
    if (value === "picture") return picture ? { image: picture.file } : "transparent";
    return GRADIENTS[value] ?? value;
  },
};

/** Behind the transparent pictures, at once; the file is made when it is saved. */
export function showBackground(): void {
  const { background } = settings;
  for (const element of document.querySelectorAll<HTMLElement>(".card .backdrop")) {
    element.classList.toggle("cover", typeof background === "object" && "image" in background);
    element.style.background = "";
    if (typeof background === "string") {
      if (background !== "transparent") element.style.background = background;
    } else if ("stops" in background) {
      element.style.background = `linear-gradient(${background.angle}deg, ${background.stops.join(", ")})`;
    } else {
      element.style.backgroundImage = `url(${picture!.url})`;
    }
  }
}

/** `onWork` is called where pictures must be worked on again, `onFrame` where another part of them is to be shown. */
export function setUpSettings(onWork: () => void, onFrame: () => void): void {
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", (event) => {
    const { name } = event.target as HTMLInputElement;
    if (name === "task" || (name === "edges" && settings.task === "cutout")) onWork();
    if (name === "frame") onFrame();
    showBackground();
  });
  byId("colour").addEventListener("input", () => {
    form.querySelector<HTMLInputElement>('[name=background][value=own]')!.checked = true;
    showBackground();
  });
  const file = byId<HTMLInputElement>("picture-file");
  form.querySelector('[name=background][value=picture]')!.addEventListener("click", () => file.click());
  file.addEventListener("change", () => {
    const [chosenFile] = file.files ?? [];
    if (chosenFile) {
      if (picture) URL.revokeObjectURL(picture.url);
      picture = { file: chosenFile, url: URL.createObjectURL(chosenFile) };
      byId("picture-swatch").style.backgroundImage = `url(${picture.url})`;
    }
    file.value = "";
    showBackground();
  });
}
