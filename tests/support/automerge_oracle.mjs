// npm @automerge/automerge as the second opinion: one JSON line in, one out (see automerge_oracle.py).
// {"sets": [[chunk hex, ...], ...]} -> {"registers": [{heads, values, conflicts, reloads} | {error}, ...]}
// {"document": hex}                 -> {heads, values, conflicts}
// {"seeds": [...], "rounds": n}     -> {"made": [{chunks, hashes, heads, values, conflicts}, ...]}
// Values are ImmutableString here: a plain JS string would become a Text object, which is no scalar and no mark.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(new URL("../../pwa/package.json", import.meta.url));
const A = require("@automerge/automerge");

const hex = (bytes) => Buffer.from(bytes).toString("hex");
const bytes = (text) => new Uint8Array(Buffer.from(text, "hex"));

function scalar(value) {
  if (A.isImmutableString(value)) return value.toString();
  throw new Error(`not an immutable string: ${JSON.stringify(value)}`);
}

function state(doc) {
  const values = {};
  const conflicts = {};
  for (const key of Object.keys(doc).sort()) {
    values[key] = scalar(doc[key]);
    // {"counter@actor": value}, or undefined where one value is visible. Here the core gives the same scalars as
    // plain strings, not as ImmutableString.
    const all = A.getConflicts(doc, key);
    if (all !== undefined) conflicts[key] = Object.fromEntries(Object.entries(all).sort());
  }
  return { heads: A.getHeads(doc).slice().sort(), values, conflicts };
}

function read(chunks) {
  let doc;
  let again;
  try {
    doc = A.applyChanges(A.init(), chunks.map(bytes))[0];
    const found = state(doc);
    again = A.load(A.save(doc));
    return { ...found, reloads: JSON.stringify(state(again)) === JSON.stringify(found) };
  } catch (problem) {
    return { error: String(problem) };
  } finally {
    if (again) A.free(again);
    if (doc) A.free(doc);
  }
}

function opened(document) {
  const doc = A.load(bytes(document));
  const found = state(doc);
  A.free(doc);
  return found;
}

// A small generator of its own (mulberry32): the same seed, the same documents.
function chance(seed) {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function make(seed, rounds) {
  const next = chance(seed);
  const below = (n) => Math.floor(next() * n);
  const docs = [0, 1, 2].map((i) =>
    A.init({ actor: Array.from({ length: 16 }, () => below(256).toString(16).padStart(2, "0")).join("") }),
  );
  for (let round = 0; round < rounds; round++) {
    const at = below(3);
    if (next() < 0.4) docs[at] = A.merge(docs[at], docs[(at + 1 + below(2)) % 3]);
    docs[at] = A.change(docs[at], { time: 1795000000 + round }, (doc) => {
      for (let n = 1 + below(6); n > 0; n--) {
        const key = `s${below(5)}`;
        const kept = doc[key];
        // Putting the value that already wins makes the core delete the losers instead of putting again.
        doc[key] = kept !== undefined && next() < 0.3 ? kept : new A.ImmutableString(`P${below(99999999)}`);
      }
    });
  }
  const all = A.merge(A.merge(docs[0], docs[1]), docs[2]);
  const chunks = A.getAllChanges(all);
  const made = { chunks: chunks.map(hex), hashes: chunks.map((chunk) => A.decodeChange(chunk).hash), ...state(all) };
  A.free(all);
  return made;
}

createInterface({ input: process.stdin, crlfDelay: Infinity }).on("line", (line) => {
  const asked = JSON.parse(line);
  const answer = asked.document
    ? opened(asked.document)
    : asked.sets
    ? { registers: asked.sets.map(read) }
    : { made: asked.seeds.map((seed) => make(seed, asked.rounds)) };
  process.stdout.write(`${JSON.stringify(answer)}\n`);
});
