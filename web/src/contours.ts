/** The outline of a matte as polygons, and as an SVG path; the specification is u2net/contours.py. */

/** Corners (x, y); the last is not the first again. */
export type Polygon = [number, number][];

type Side = [direction: number, target: number];

/**
 * Outlines of what is at least `threshold` in an 8-bit matte, row by row: closed polygons on pixel corners with the subject
 * at their right hand, y pointing down. With `tolerance` 0 they give the mask again exactly; above, they are simplified.
 */
export function contours(alpha: Uint8Array, height: number, width: number, tolerance = 0, threshold = 128): Polygon[] {
  const stride = width + 1;
  const inside = (x: number, y: number): boolean =>
    x >= 0 && x < width && y >= 0 && y < height && alpha[y * width + x] >= threshold;
  // Directed sides of pixels, corner to corner: right along tops, down right sides, left along bottoms, up left ones.
  const following = new Map<number, Side[]>();
  for (const [direction, [dx, dy, startX, startY, step]] of [
    [0, -1, 0, 0, 1], [1, 0, 1, 0, stride], [0, 1, 1, 1, -1], [-1, 0, 0, 1, -stride],
  ].entries()) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        if (alpha[y * width + x] < threshold || inside(x + dx, y + dy)) continue;
        const corner = (y + startY) * stride + x + startX;
        const ways = following.get(corner);
        if (ways) ways.push([direction, corner + step]);
        else following.set(corner, [[direction, corner + step]]);
      }
    }
  }
  const polygons: Polygon[] = [];
  for (const first of [...following.keys()].sort((a, b) => a - b)) {
    while (following.get(first)!.length) polygons.push(trace(following, first, stride));
  }
  return tolerance > 0 ? polygons.map((polygon) => simplify(polygon, tolerance)).filter(({ length }) => length >= 3) : polygons;
}

function trace(following: Map<number, Side[]>, first: number, stride: number): Polygon {
  const polygon: Polygon = [];
  for (let corner = first, direction = -1; ;) {
    const ways = following.get(corner)!;
    const right = (direction + 1) % 4;
    // At a corner that two pixels share, turn right: the outline stays with its own pixel.
    const index = direction < 0 ? 0 : Math.max(0, ways.findIndex(([way]) => way === right));
    const [[turned, target]] = ways.splice(index, 1);
    if (turned !== direction) polygon.push([corner % stride, Math.floor(corner / stride)]);
    corner = target;
    direction = turned;
    if (corner === first && !following.get(corner)!.some(([way]) => way === (direction + 1) % 4)) return polygon;
  }
}

/** Douglas & Peucker (1973) on a closed polygon. */
export function simplify(polygon: Polygon, tolerance: number): Polygon {
  const count = polygon.length;
  if (count < 4) return polygon;
  const points: Polygon = [...polygon, polygon[0]];
  let far = 0;
  const away = ([x, y]: [number, number]): number => (x - points[0][0]) ** 2 + (y - points[0][1]) ** 2;
  for (let i = 1; i < count; i++) if (away(points[i]) > away(points[far])) far = i;
  const keep = new Set([0, far]);
  const stack: [number, number][] = [[0, far], [far, count]];
  while (stack.length) {
    const [low, high] = stack.pop()!;
    if (high - low < 2) continue;
    const [[ax, ay], [bx, by]] = [points[low], points[high]];
    const length = Math.hypot(bx - ax, by - ay);
    let [farthest, largest] = [low + 1, -1];
    for (let i = low + 1; i < high; i++) {
      const [x, y] = points[i];
      const distance = length === 0 ? Math.hypot(x - ax, y - ay) : Math.abs((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / length;
      if (distance > largest) [farthest, largest] = [i, distance];
    }
    if (largest > tolerance) {
      keep.add(farthest);
      stack.push([low, farthest], [farthest, high]);
    }
  }
  return [...keep].sort((a, b) => a - b).map((index) => polygon[index]);
}

/** The `d` of an SVG `<path>`, to be filled with `fill-rule="evenodd"`: `M0 0L3 0L3 2Z…`. */
export function svgPath(polygons: Polygon[]): string {
  return polygons.map((polygon) => `M${polygon.map(([x, y]) => `${x} ${y}`).join("L")}Z`).join("");
}
