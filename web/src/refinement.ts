/** Which steps of postprocess.ts are taken, and how: `Refinement` of u2net/postprocess.py, with the same defaults. */
import { ConfigError } from "./errors.js";

/** Which steps are taken, and how. */
export interface Refinement {
  /** Look again, closer, at what was found. */
  secondLook: boolean;
  /** Keep only the largest subject. */
  keepLargest: boolean;
  /** Fraction of the picture under which a subject is dropped; 0 keeps all. */
  minArea: number;
  /** Fraction of the picture up to which a hole is filled; 0 fills none. */
  fillHoles: number;
  /** Refinement at full resolution. The runner's "matting" is not for browsers. */
  edges: "none" | "guided";
  /** About the longest side of the grid that the guided filter works on. */
  workingSide: number;
  /** Of the guided filter, in pixels of that grid. */
  radius: number;
  /** In pixels of the map: how far edges move to where the picture has them; 0 leaves the map alone. */
  reach: number;
  /** Of the guided filter: variance of colour below which a region counts as flat. */
  epsilon: number;
  /** Power of |2p − 1| that weighs a pixel in the fit. */
  confidence: number;
  /** Makes the matte hard: above 0, at most 1. */
  threshold: number | null;
  /** Pixels by which the matte is softened. */
  feather: number;
  /** "keep" leaves the background's colour in soft edges. */
  colours: "keep" | "estimate";
}

export const BALANCED: Readonly<Refinement> = Object.freeze({
  secondLook: true, keepLargest: false, minArea: 0, fillHoles: 0, edges: "guided", workingSide: 640, radius: 3, reach: 8,
  epsilon: 1e-5, confidence: 1, threshold: null, feather: 0, colours: "estimate",
});
export const FAST: Readonly<Refinement> = Object.freeze({ ...BALANCED, secondLook: false, edges: "none", colours: "keep" });
export const PRESETS = Object.freeze({ fast: FAST, balanced: BALANCED });

/** A preset's name, or single settings upon `preset` (by default "balanced"). */
export type RefineOption = keyof typeof PRESETS | (Partial<Refinement> & { preset?: keyof typeof PRESETS });

/** The settings that are meant. Throws ConfigError where one cannot work. */
export function refinement(option: RefineOption = "balanced"): Refinement {
  if (option !== undefined && typeof option !== "string" && (typeof option !== "object" || option === null)) {
    throw new ConfigError("refine must be a preset or an object of settings");
  }
  const { preset, ...single } = typeof option === "string" ? { preset: option } : option;
  const base = Object.hasOwn(PRESETS, preset ?? "balanced") ? PRESETS[preset ?? "balanced"] : undefined;
  if (!base) {
    const text = `the preset ${JSON.stringify(preset)} is not known here: take "fast" or "balanced"`;
    throw new ConfigError(preset as string === "best" ? `${text} ("best" needs the Python runner)` : text);
  }
  const settings: Refinement = { ...base };
  for (const [name, value] of Object.entries(single)) {
    if (!Object.hasOwn(base, name)) throw new ConfigError(`refine has no setting ${JSON.stringify(name)}`);
    if (value !== undefined) (settings as any)[name] = value;
  }
  const within = (name: keyof Refinement, low: number, high: number): void => {
    const value = settings[name];
    if (typeof value !== "number" || !(value >= low && value <= high)) {
      throw new ConfigError(`${name} must be ${low} to ${high}, got ${JSON.stringify(value)}`);
    }
  };
  for (const name of ["secondLook", "keepLargest"] as const) {
    if (typeof settings[name] !== "boolean") throw new ConfigError(`${name} must be true or false`);
  }
  within("minArea", 0, 1);
  within("fillHoles", 0, 1);
  within("feather", 0, 200);
  within("confidence", 0, 64);
  for (const [name, low, high] of [["radius", 1, 100], ["reach", 0, 100], ["workingSide", 32, 8192]] as const) {
    within(name, low, high);
    if (!Number.isInteger(settings[name])) throw new ConfigError(`${name} must be a whole number, got ${settings[name]}`);
  }
  for (const name of settings.threshold === null ? ["epsilon"] as const : ["epsilon", "threshold"] as const) {
    const value = settings[name];
    if (typeof value !== "number" || !(value > 0 && value <= 1)) {
      throw new ConfigError(`${name} must be above 0 and at most 1, got ${JSON.stringify(value)}`);
    }
  }
  if (settings.edges !== "none" && settings.edges !== "guided") throw new ConfigError('edges must be "none" or "guided"');
  if (settings.colours !== "keep" && settings.colours !== "estimate") throw new ConfigError('colours must be "keep" or "estimate"');
  return settings;
}
