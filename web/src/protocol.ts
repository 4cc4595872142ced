/** What the page and the worker say to each other. Every request has a number that its answer repeats. */
import type { EngineInfo } from "./engine.js";
import type { ErrorMessage } from "./errors.js";
import type { CreateOptions } from "./pipeline.js";
import type { Picture } from "./source.js";
import type { ConvertOptions, ConvertResult, CutoutOptions, CutoutResult, Progress } from "./types.js";

export type Request =
  | { id: number; type: "create"; options: CreateOptions }
  | { id: number; type: "cutout"; picture: Picture; options: CutoutOptions }
  | { id: number; type: "convert"; picture: Picture; options: ConvertOptions }
  | { id: number; type: "abort" };

export type Answer =
  | { id: number; type: "done"; value: EngineInfo | CutoutResult | ConvertResult }
  | { id: number; type: "failed"; error: ErrorMessage }
  | { id: number; type: "progress"; progress: Progress };
