/** A QR code as one SVG path, dark on light whatever the theme. */
import { correction, generate } from 'lean-qr';

const QUIET = 4; // modules of empty border, as the standard asks

export function qrPicture(text: string, title: string): SVGSVGElement {
  const code = generate(text, { minCorrectionLevel: correction.M });
  let path = '';
  for (let y = 0; y < code.size; y++) for (let x = 0; x < code.size; x++) if (code.get(x, y)) path += `M${x} ${y}h1v1h-1z`;
  const namespace = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(namespace, 'svg');
  const side = code.size + 2 * QUIET;
  svg.setAttribute('viewBox', `${-QUIET} ${-QUIET} ${side} ${side}`);
  svg.setAttribute('class', 'qr');
  svg.setAttribute('role', 'img');
  svg.setAttribute('aria-label', title);
  const dark = document.createElementNS(namespace, 'path');
  dark.setAttribute('d', path);
  svg.appendChild(dark);
  return svg;
}
