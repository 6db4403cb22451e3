/** Bytes and text: the few conversions every other piece of the core uses. */

/** A refusal of bytes or of a request, with its slug (docs/protocol.md sections 2 and 9). Nothing kept is lost by one. */
export class Refusal extends Error {
  readonly safe = true;
  retry = 'never';

  constructor(
    public readonly slug: string,
    detail = '',
  ) {
    super(detail ? slug + ': ' + detail : slug);
  }
}

const encoder = new TextEncoder();
// ignoreBOM keeps a leading U+FEFF: dropping it would make two different byte strings read alike.
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

export const utf8 = (text: string): Uint8Array => encoder.encode(text);

/** Text of UTF-8 bytes; throws {@link Refusal} with `slug` when they are not UTF-8. */
export function text(bytes: Uint8Array, slug: string): string {
  try {
    return decoder.decode(bytes);
  } catch (notUtf8) {
    throw new Refusal(slug, 'not UTF-8');
  }
}

export function hex(bytes: Uint8Array): string {
  let out = '';
  for (let i = 0; i < bytes.length; i++) out += (bytes[i] < 16 ? '0' : '') + bytes[i].toString(16);
  return out;
}

export function concat(parts: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const part of parts) length += part.length;
  const out = new Uint8Array(length);
  length = 0;
  for (const part of parts) {
    out.set(part, length);
    length += part.length;
  }
  return out;
}

export const u32 = (page: Uint8Array, at: number): number =>
  ((page[at] << 24) | (page[at + 1] << 16) | (page[at + 2] << 8) | page[at + 3]) >>> 0;

export function putU32(page: Uint8Array, at: number, value: number): void {
  page[at] = value >>> 24;
  page[at + 1] = value >>> 16;
  page[at + 2] = value >>> 8;
  page[at + 3] = value;
}
