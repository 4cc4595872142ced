/** Step 1 of the specification: subjects and holes of a map, at the network's resolution. See u2net/components.py. */

const SUPPORT = 0.1;

/** Labels of the connected components of a mask: 0 outside, else 1… in order of their first pixel. */
export function connectedComponents(
  mask: Uint8Array, height: number, width: number, diagonal: boolean,
): { labels: Int32Array; count: number } {
  const labels = new Int32Array(mask.length);
  const stack: number[] = [];
  let count = 0;
  for (let start = 0; start < mask.length; start++) {
    if (!mask[start] || labels[start]) continue;
    labels[start] = ++count;
    stack.push(start);
    while (stack.length) {
      const at = stack.pop()!;
      const [x, y] = [at % width, Math.floor(at / width)];
      for (let dy = -1; dy <= 1; dy++) {
        for (let dx = -1; dx <= 1; dx++) {
          if ((!dx && !dy) || (dx && dy && !diagonal)) continue;
          if (x + dx < 0 || x + dx >= width || y + dy < 0 || y + dy >= height) continue;
          const next = at + dy * width + dx;
          if (mask[next] && !labels[next]) {
            labels[next] = count;
            stack.push(next);
          }
        }
      }
    }
  }
  return { labels, count };
}

/** Subjects that are too small become 0; see the specification for what counts as one. */
export function keepComponents(
  saliency: Float32Array, height: number, width: number, largest: boolean, minArea: number,
): Float32Array {
  const support = Math.fround(SUPPORT);
  const { labels, count } = connectedComponents(Uint8Array.from(saliency, (v) => Number(v >= support)), height, width, true);
  const areas = new Float64Array(count + 1);
  for (let i = 0; i < labels.length; i++) if (labels[i] && saliency[i] >= 0.5) areas[labels[i]]++;
  let best = 1;
  for (let label = 2; label <= count; label++) if (areas[label] > areas[best]) best = label;
  const kept = Array.from(areas, (area, label) => label > 0 && area >= minArea * saliency.length && (!largest || label === best));
  if (kept.slice(1).every(Boolean)) return saliency;
  return saliency.map((value, i) => (kept[labels[i]] ? value : 0));
}

/** Holes of at most `fraction` of the picture, which touch no border, become 1. */
export function fillHoles(saliency: Float32Array, height: number, width: number, fraction: number): Float32Array {
  const { labels, count } = connectedComponents(Uint8Array.from(saliency, (v) => Number(v < 0.5)), height, width, false);
  const areas = new Float64Array(count + 1);
  for (const label of labels) areas[label]++;
  const hole = Array.from(areas, (area, label) => label > 0 && area <= fraction * saliency.length);
  for (let x = 0; x < width; x++) hole[labels[x]] = hole[labels[(height - 1) * width + x]] = false;
  for (let y = 0; y < height; y++) hole[labels[y * width]] = hole[labels[y * width + width - 1]] = false;
  return saliency.map((value, i) => (hole[labels[i]] ? 1 : value));
}
