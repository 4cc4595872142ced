/** How a picture is to come out. Each has its own look; the form shows and changes that of one, or of all. */
import type { Background, CropOptions, RefineOption } from "../src/index.js";

export type Format = "png" | "webp" | "jpeg" | "alpha";

/** As the form has it; what it means is said by the functions below. */
export interface Look {
  task: "cutout" | "convert";
  background: string;
  colour: string;
  frame: string;
  edges: string;
  shadow: boolean;
  format: Format;
  /** The background picture of the person's. */
  picture?: { file: Blob; url: string };
}

const GRADIENTS: Record<string, { stops: string[]; angle: number }> = {
  dawn: { stops: ["#fde2c4", "#f5b9ac", "#f3a6a0", "#c595b9", "#a889c9"], angle: 160 },
  sea: { stops: ["#d9f0fb", "#9accea", "#7cb9e0", "#5d94c8", "#3f6fb0"], angle: 180 },
  meadow: { stops: ["#f4f7d4", "#cbe3ae", "#b5d99c", "#8abb8b", "#5f9e7a"], angle: 180 },
};
const EDGES: Record<string, RefineOption> = { refined: "balanced", plain: "fast", hard: { threshold: 0.5 }, soft: { feather: 3 } };
const FRAMES: Record<string, Required<CropOptions>> = { subject: { margin: 0.05, square: false }, square: { margin: 0.08, square: true } };

export function refineOf({ edges }: Look): RefineOption {
  return EDGES[edges];
}

/** The crop that is meant, or undefined for the whole picture. */
export function cropOf({ task, frame }: Look): Required<CropOptions> | undefined {
  return task === "cutout" ? FRAMES[frame] : undefined;
}

export function backgroundOf({ background, colour, picture }: Look): Background {
  if (background === "own") return colour;
  if (background === "picture") return picture ? { image: picture.file } : "transparent";
  return GRADIENTS[background] ?? background;
}

/** Behind a transparent picture, at once; the file is made when it is saved. */
export function paintBackground(backdrop: HTMLElement, look: Look): void {
  const background = backgroundOf(look);
  backdrop.classList.toggle("cover", typeof background === "object" && "image" in background);
  backdrop.style.background = "";
  if (typeof background === "string") {
    if (background !== "transparent") backdrop.style.background = background;
  } else if ("stops" in background) {
    backdrop.style.background = `linear-gradient(${background.angle}deg, ${background.stops.join(", ")})`;
  } else {
    backdrop.style.backgroundImage = `url(${look.picture!.url})`;
  }
}
