/**
 * A picture to look at: a divider between the cut-out and the original, zoom and pan.
 *
 * Mouse: the wheel zooms, dragging moves a zoomed picture, and the divider where there is none to move. Touch: two fingers zoom and
 * move. Keys: plus, minus and 0 zoom, arrows move; on the divider arrows move the divider.
 *
 * With a brush there is no divider: one finger or the mouse paints, the wheel sizes the brush, arrows move it and Space presses it.
 */
/** What the stage tells a brush. Places are parts of the picture's sides, 0 to 1; `shown` is how wide the picture is seen, in pixels. */
export interface Brushed {
  press(at: { x: number; y: number }, shown: number): void;
  move(at: { x: number; y: number }): void;
  release(cancelled: boolean): void;
  resize(factor: number): void;
  /** Whether the key was one of the brush's. */
  key(event: KeyboardEvent): boolean;
  /** Pixels that an arrow moves it. */
  step(fine: boolean): number;
}

const MOST = 16;
const GRIP = 28; // pixels around the divider in which a press takes it
const STEP = 1.4;

export class Stage {
  #scale = 1;
  #x = 0; // of the picture's corner, in pixels of the stage
  #y = 0;
  #drag: "divider" | "picture" | undefined;
  #brushed?: Brushed;
  #brushX = 0; // in pixels of the stage
  #brushY = 0;
  #pressed = false;
  readonly #pointers = new Map<number, { x: number; y: number }>();

  /** `element` is `.stage` of index.html; `onZoom` is told the scale. */
  constructor(readonly element: HTMLElement, readonly onZoom: (scale: number) => void = () => {}) {
    this.divider.addEventListener("input", () => this.show(Number(this.divider.value)));
    element.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    element.addEventListener("keydown", (event) => this.#key(event));
    element.addEventListener("keyup", (event) => {
      if (event.key === " ") this.#lift(false);
    });
    element.addEventListener("blur", () => this.#lift(false));
    element.addEventListener("dragstart", (event) => event.preventDefault()); // what is selected would be dragged
    element.addEventListener("pointerdown", (event) => this.#pointerDown(event));
    element.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"] as const) element.addEventListener(name, (event) => this.#release(event));
  }

  get divider(): HTMLInputElement {
    return this.element.querySelector<HTMLInputElement>(".split")!;
  }

  set brushed(brushed: Brushed | undefined) {
    this.#lift(false);
    this.#brushed = brushed;
    this.#moveBrush(this.element.clientWidth / 2, this.element.clientHeight / 2);
  }

  /** How much of the result is to be seen, in percent from the left. */
  show(percent: number): void {
    this.divider.value = String(percent);
    this.element.style.setProperty("--split", `${percent}%`);
  }

  zoom(factor: number, x = this.element.clientWidth / 2, y = this.element.clientHeight / 2): void {
    const scale = Math.min(MOST, Math.max(1, this.#scale * factor));
    const by = scale / this.#scale;
    this.#scale = scale;
    this.#place(x - (x - this.#x) * by, y - (y - this.#y) * by);
  }

  zoomIn = (): void => this.zoom(STEP);
  zoomOut = (): void => this.zoom(1 / STEP);
  fit = (): void => this.zoom(0);

  #place(x: number, y: number): void {
    const { clientWidth, clientHeight, style } = this.element;
    const inside = (value: number, side: number): number => Math.min(0, Math.max(side * (1 - this.#scale), value));
    [this.#x, this.#y] = [inside(x, clientWidth), inside(y, clientHeight)];
    style.setProperty("--zoom", `translate(${this.#x}px, ${this.#y}px) scale(${this.#scale})`);
    this.element.classList.toggle("zoomed", this.#scale > 1);
    this.onZoom(this.#scale);
  }

  /** The place of the brush, as a part of the picture's sides. */
  get #at(): { x: number; y: number } {
    const { clientWidth, clientHeight } = this.element;
    return { x: (this.#brushX - this.#x) / this.#scale / clientWidth, y: (this.#brushY - this.#y) / this.#scale / clientHeight };
  }

  #moveBrush(x: number, y: number): void {
    [this.#brushX, this.#brushY] = [x, y];
    this.element.style.setProperty("--brush", `${x}px ${y}px`);
    if (this.#pressed) this.#brushed?.move(this.#at);
  }

  #press(): void {
    if (!this.#brushed || this.#pressed) return;
    this.#pressed = true;
    this.#brushed.press(this.#at, this.element.clientWidth * this.#scale);
  }

  #lift(cancelled: boolean): void {
    if (!this.#pressed) return;
    this.#pressed = false;
    this.#brushed?.release(cancelled);
  }

  #wheel(event: WheelEvent): void {
    if (this.#brushed && !event.ctrlKey) {
      event.preventDefault();
      this.#brushed.resize(Math.exp(-Math.max(-60, Math.min(60, event.deltaY)) * 0.003));
      return;
    }
    // A page that can be scrolled goes on scrolling, until the picture is zoomed.
    const scrolls = this.#scale === 1 && (event.deltaY > 0 || scrollY > 0);
    if (scrolls && !event.ctrlKey) return;
    event.preventDefault();
    const { left, top } = this.element.getBoundingClientRect();
    this.zoom(Math.exp(-Math.max(-60, Math.min(60, event.deltaY)) * (event.ctrlKey ? 0.01 : 0.004)), event.clientX - left, event.clientY - top);
  }

  #key(event: KeyboardEvent): void {
    if (this.#brushed && event.target === this.element && this.#brushKey(event)) {
      event.preventDefault();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "+" || event.key === "=") this.zoomIn();
    else if (event.key === "-") this.zoomOut();
    else if (event.key === "0") this.fit();
    else if (event.key.startsWith("Arrow") && event.target === this.element && this.#scale > 1) {
      const step = this.element.clientWidth / 10;
      const [dx, dy] = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] }[event.key]!;
      this.#place(this.#x + dx, this.#y + dy);
    } else return;
    event.preventDefault();
  }

  /** Arrows move the brush, and the picture where it would leave what is seen; Space and Enter press it. */
  #brushKey(event: KeyboardEvent): boolean {
    const brushed = this.#brushed!;
    if (event.key === " " || event.key === "Enter") {
      this.#press();
      if (event.key === "Enter") this.#lift(false);
      return true;
    }
    if (!event.key.startsWith("Arrow")) return brushed.key(event);
    const step = brushed.step(event.shiftKey);
    const [dx, dy] = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key]!;
    const { clientWidth, clientHeight } = this.element;
    const [x, y] = [this.#brushX + dx, this.#brushY + dy];
    const [inX, inY] = [Math.min(clientWidth, Math.max(0, x)), Math.min(clientHeight, Math.max(0, y))];
    if (inX !== x || inY !== y) this.#place(this.#x + inX - x, this.#y + inY - y);
    this.#moveBrush(inX, inY);
    return true;
  }

  #pointerDown(event: PointerEvent): void {
    if (event.button !== 0) return;
    this.#pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    this.element.setPointerCapture(event.pointerId);
    const { left, top, width } = this.element.getBoundingClientRect();
    if (this.#brushed) {
      if (this.#pointers.size > 1) this.#lift(true);
      else {
        this.#moveBrush(event.clientX - left, event.clientY - top);
        this.#press();
      }
      return;
    }
    const at = left + (width * Number(this.divider.value)) / 100;
    const grips = !this.divider.hidden && (this.#scale === 1 || Math.abs(event.clientX - at) < GRIP);
    this.#drag = this.#pointers.size > 1 ? undefined : grips ? "divider" : "picture";
  }

  #move(event: PointerEvent): void {
    const last = this.#pointers.get(event.pointerId);
    const now = { x: event.clientX, y: event.clientY };
    const { left, top, width } = this.element.getBoundingClientRect();
    if (this.#brushed && this.#pointers.size < 2) this.#moveBrush(now.x - left, now.y - top);
    if (!last) return;
    if (this.#pointers.size === 2) {
      const [other] = [...this.#pointers].filter(([id]) => id !== event.pointerId).map(([, point]) => point);
      const far = ({ x, y }: typeof now): number => Math.max(1, Math.hypot(x - other.x, y - other.y));
      this.zoom(far(now) / far(last), (now.x + other.x) / 2 - left, (now.y + other.y) / 2 - top);
      this.#place(this.#x + (now.x - last.x) / 2, this.#y + (now.y - last.y) / 2);
    } else if (this.#drag === "divider") {
      this.show(Math.round(Math.min(100, Math.max(0, ((now.x - left) / width) * 100))));
    } else if (this.#drag === "picture") {
      this.#place(this.#x + now.x - last.x, this.#y + now.y - last.y);
    }
    this.#pointers.set(event.pointerId, now);
  }

  #release(event: PointerEvent): void {
    this.#pointers.delete(event.pointerId);
    this.#drag = undefined;
    this.#lift(event.type === "pointercancel");
  }
}
