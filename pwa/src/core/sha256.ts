/**
 * Synchronous SHA-256 (FIPS 180-4). Synchronous because an `await` on WebCrypto inside an IndexedDB transaction would
 * end the transaction. The constants are the fractional parts of roots of the first primes; the test-suite compares
 * them, through digests, with the platform's SHA-256.
 */

const K = new Uint32Array(64);
const START = new Uint32Array(8);
{
  const fraction = (x: number): number => ((x - Math.floor(x)) * 4294967296) | 0;
  let n = 0;
  for (let p = 2; n < 64; p++) {
    let d = 2;
    while (p % d) d++;
    if (d < p) continue;
    if (n < 8) START[n] = fraction(Math.sqrt(p));
    K[n++] = fraction(Math.cbrt(p));
  }
}

const W = new Uint32Array(64);

/** The 32-byte digest of `message`. */
export function sha256(message: Uint8Array): Uint8Array {
  const length = message.length;
  const padded = new Uint8Array((((length + 8) >> 6) + 1) << 6);
  padded.set(message);
  padded[length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 4, length << 3);
  view.setUint32(padded.length - 8, length / 0x20000000);
  const h = START.slice();
  for (let at = 0; at < padded.length; at += 64) {
    for (let i = 0; i < 64; i++) {
      const x = W[i - 15];
      const y = W[i - 2];
      W[i] =
        i < 16
          ? view.getUint32(at + i * 4)
          : W[i - 16] +
            (((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3)) +
            W[i - 7] +
            (((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10));
    }
    let [a, b, c, d, e, f, g, k] = h;
    for (let i = 0; i < 64; i++) {
      const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
      const t1 = (k + s1 + ((e & f) ^ (~e & g)) + K[i] + W[i]) | 0;
      const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      k = g;
      g = f;
      f = e;
      e = (d + t1) | 0;
      d = c;
      c = b;
      b = a;
      a = (t1 + t2) | 0;
    }
    [a, b, c, d, e, f, g, k].forEach((v, i) => (h[i] += v));
  }
  const out = new Uint8Array(32);
  const digest = new DataView(out.buffer);
  h.forEach((v, i) => digest.setUint32(i * 4, v));
  return out;
}
