/**
 * A picture to look at: a divider between the cut-out and the original, zoom and pan.
 *
 * Mouse: the wheel zooms, dragging moves a zoomed picture, and the divider where there is none to move. Touch: two fingers zoom and
 * move. Keys: plus, minus and 0 zoom, arrows move; on the divider arrows move the divider.
 */
const MOST = 16;
const GRIP = 28; // pixels around the divider in which a press takes it
const STEP = 1.4;

export class Stage {
  #scale = 1;
  #x = 0; // of the picture's corner, in pixels of the stage
  #y = 0;
  #drag: "divider" | "picture" | undefined;
  readonly #pointers = new Map<number, { x: number; y: number }>();

  /** `element` is `.stage` of index.html; `onZoom` is told the scale. */
  constructor(readonly element: HTMLElement, readonly onZoom: (scale: number) => void = () => {}) {
    this.divider.addEventListener("input", () => this.show(Number(this.divider.value)));
    element.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    element.addEventListener("keydown", (event) => this.#key(event));
    element.addEventListener("pointerdown", (event) => this.#press(event));
    element.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"] as const) element.addEventListener(name, (event) => this.#release(event));
  }

  get divider(): HTMLInputElement {
    return this.element.querySelector<HTMLInputElement>(".split")!;
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

  #wheel(event: WheelEvent): void {
    // A page that can be scrolled goes on scrolling, until the picture is zoomed.
    const scrolls = this.#scale === 1 && (event.deltaY > 0 || scrollY > 0);
    if (scrolls && !event.ctrlKey) return;
    event.preventDefault();
    const { left, top } = this.element.getBoundingClientRect();
    this.zoom(Math.exp(-Math.max(-60, Math.min(60, event.deltaY)) * (event.ctrlKey ? 0.01 : 0.004)), event.clientX - left, event.clientY - top);
  }

  #key(event: KeyboardEvent): void {
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

  #press(event: PointerEvent): void {
    if (event.button !== 0) return;
    this.#pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    this.element.setPointerCapture(event.pointerId);
    const { left, width } = this.element.getBoundingClientRect();
    const at = left + (width * Number(this.divider.value)) / 100;
    const grips = !this.divider.hidden && (this.#scale === 1 || Math.abs(event.clientX - at) < GRIP);
    this.#drag = this.#pointers.size > 1 ? undefined : grips ? "divider" : "picture";
  }

  #move(event: PointerEvent): void {
    const last = this.#pointers.get(event.pointerId);
    if (!last) return;
    const now = { x: event.clientX, y: event.clientY };
    const { left, top, width } = this.element.getBoundingClientRect();
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
  }
}
