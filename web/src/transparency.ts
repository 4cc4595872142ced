/** What a picture's own transparency says. The specification is u2net/decode.py, "Own transparency". */

const LIGHT = 170; // mean luma of the visible pixels from which white hides them
const CUT_AWAY = 0.1; // of the picture's pixels
const FILLED = 0.75; // of its box

/** Sums over the RGBA rows of a picture, pushed from the top. */
export class Transparency {
  #y = 0;
  #luma = 0;
  #weight = 0;
  #clear = 0;
  #visible = 0;
  #box = { left: Infinity, top: Infinity, right: -1, bottom: -1 };

  constructor(readonly width: number, readonly height: number) {}

  push(rgba: Uint8ClampedArray, rows: number): void {
    const box = this.#box;
    for (let row = 0, p = 0; row < rows; row++, this.#y++) {
      for (let x = 0; x < this.width; x++, p += 4) {
        const a = rgba[p + 3];
        this.#weight += a;
        this.#luma += a * (77 * rgba[p] + 150 * rgba[p + 1] + 29 * rgba[p + 2]);
        if (!a) this.#clear++;
        if (a < 128) continue;
        this.#visible++;
        if (x < box.left) box.left = x;
        if (x > box.right) box.right = x;
        if (this.#y < box.top) box.top = this.#y;
        box.bottom = this.#y;
      }
    }
  }

  /** 0 or 255: the grey that the visible pixels stand out from. */
  get ground(): number {
    return this.#luma > LIGHT * 256 * this.#weight ? 0 : 255;
  }

  /** Whether the alpha channel cuts a subject out. */
  get isCutout(): boolean {
    const { left, top, right, bottom } = this.#box;
    if (this.#clear < CUT_AWAY * this.width * this.height || right < 0) return false;
    return this.#visible < FILLED * (right - left + 1) * (bottom - top + 1);
  }
}
