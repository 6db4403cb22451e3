// The app's icons, drawn from a few rectangles and two strokes: a register with a tick. No picture file is kept.
import { deflateSync } from 'node:zlib';

const GREEN = [0x0b, 0x5d, 0x4e];
const PAPER = [0xff, 0xff, 0xff];
const LINE = [0xb9, 0xd3, 0xcc];

const chunk = (type, data) => {
  const out = Buffer.alloc(12 + data.length);
  out.writeUInt32BE(data.length, 0);
  out.write(type, 4, 'latin1');
  data.copy(out, 8);
  out.writeUInt32BE(checksum(out.subarray(4, 8 + data.length)), 8 + data.length);
  return out;
};

/** CRC-32 as PNG wants it, by hand: Node has its own only since 20.15 and 22.2. */
function checksum(data) {
  let crc = ~0;
  for (const byte of data) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

const distanceToSegment = (x, y, [ax, ay, bx, by]) => {
  const t = Math.max(0, Math.min(1, ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2)));
  return Math.hypot(x - ax - t * (bx - ax), y - ay - t * (by - ay));
};

/** Colour of a point of the unit square; `margin` leaves the outer ring plain for maskable icons. */
function colourAt(x, y, margin) {
  const scale = 1 - 2 * margin;
  const u = (x - margin) / scale;
  const v = (y - margin) / scale;
  const tick = [[0.3, 0.56, 0.45, 0.7], [0.45, 0.7, 0.74, 0.36]];
  if (tick.some((segment) => distanceToSegment(u, v, segment) < 0.055)) return GREEN;
  if (u > 0.17 && u < 0.83 && v > 0.1 && v < 0.9) {
    const ruled = [0.22, 0.8].some((line) => Math.abs(v - line) < 0.018) && u > 0.27 && u < 0.73;
    return ruled ? LINE : PAPER;
  }
  return GREEN;
}

function png(size, margin) {
  const rows = Buffer.alloc(size * (1 + size * 3));
  for (let y = 0; y < size; y++)
    for (let x = 0; x < size; x++) {
      // Four samples a pixel are enough to make the tick's edges smooth.
      const sum = [0, 0, 0];
      for (const [dx, dy] of [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])
        colourAt((x + dx) / size, (y + dy) / size, margin).forEach((value, i) => { sum[i] += value / 4; });
      sum.forEach((value, i) => { rows[y * (1 + size * 3) + 1 + x * 3 + i] = Math.round(value); });
    }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(size, 0);
  header.writeUInt32BE(size, 4);
  header[8] = 8;
  header[9] = 2;
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([signature, chunk('IHDR', header), chunk('IDAT', deflateSync(rows, { level: 9 })), chunk('IEND', Buffer.alloc(0))]);
}

const SVG = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100"><rect width="100" height="100" rx="18" fill="#0b5d4e"/><rect x="17" y="10" width="66" height="80" rx="4" fill="#fff"/><path d="M27 22h46M27 80h46" stroke="#b9d3cc" stroke-width="3.6"/><path d="M30 56l15 14 29-34" fill="none" stroke="#0b5d4e" stroke-width="11" stroke-linecap="round" stroke-linejoin="round"/></svg>`;

export const iconFiles = () => [
  { path: 'icon.svg', data: Buffer.from(SVG) },
  { path: 'icon-192.png', data: png(192, 0) },
  { path: 'icon-512.png', data: png(512, 0.12) },
];
