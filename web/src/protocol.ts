/** What the page and the worker say to each other. Every request has a number that its answer repeats. */
import type { ErrorMessage } from "./errors.js";
import type { AnyComposeOptions, AnyConvertOptions, AnyCutoutOptions } from "./options.js";
import type { Sendable } from "./picture.js";
import type { AnyComposeResult, AnyConvertResult, AnyCutoutResult, CreateOptions } from "./pipeline.js";
import type { Alpha, NetworkInfo, Progress } from "./types.js";

/** By this name the file that is both, standalone.js, knows that it is the worker. */
export const WORKER_NAME = "u2net-remover";

export type Request =
  | { id: number; type: "create"; options: CreateOptions }
  | { id: number; type: "cutout"; picture: Sendable; options: AnyCutoutOptions }
  | { id: number; type: "compose"; picture: Sendable; alpha: Alpha; options: AnyComposeOptions }
  | { id: number; type: "convert"; picture: Sendable; options: AnyConvertOptions }
  | { id: number; type: "abort" };

export type Answer =
  | { id: number; type: "done"; value: NetworkInfo | AnyCutoutResult | AnyComposeResult | AnyConvertResult }
  | { id: number; type: "failed"; error: ErrorMessage }
  | { id: number; type: "progress"; progress: Progress };
