/** The device's P-256 key: born in WebCrypto, never extractable; raw `r ‖ s` signatures. */
import { concat, utf8 } from './bytes';
import { sha256 } from './sha256';

const CURVE = { name: 'ECDSA', namedCurve: 'P-256' };
const SIGN = { name: 'ECDSA', hash: 'SHA-256' };

/** What the cache keeps. `publicKey` is the uncompressed point, 65 bytes. */
export interface DeviceKey {
  readonly privateKey: CryptoKey;
  readonly publicKey: Uint8Array;
}

export async function newKey(): Promise<DeviceKey> {
  const pair = (await crypto.subtle.generateKey(CURVE, false, ['sign', 'verify'])) as CryptoKeyPair;
  return { privateKey: pair.privateKey, publicKey: new Uint8Array(await crypto.subtle.exportKey('raw', pair.publicKey)) };
}

export const sign = async (key: DeviceKey, message: Uint8Array): Promise<Uint8Array> =>
  new Uint8Array(await crypto.subtle.sign(SIGN, key.privateKey, message as BufferSource));

/** Whether the owner of `publicKey` signed `message`. Bytes that are no point of the curve sign nothing. */
export async function verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): Promise<boolean> {
  let key: CryptoKey;
  try {
    key = await crypto.subtle.importKey('raw', publicKey as BufferSource, CURVE, false, ['verify']);
  } catch (noPoint) {
    return false;
  }
  return crypto.subtle.verify(SIGN, key, signature as BufferSource, message as BufferSource);
}

/** 16 bytes naming the device: bound to its key. */
export const deviceId = (publicKey: Uint8Array): Uint8Array => sha256(concat([utf8('device1'), publicKey])).subarray(0, 16);
