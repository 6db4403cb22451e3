// The codec of the phone's page (pwa/src/core) as a child process: one JSON line in, one out.
// {"chunks": [hex, ...]}        -> {"verdicts": [hash hex | {"refused": code} | {"broken": words}, ...]}
// {"sets": [[hex, ...], ...]}   -> {"histories": [{heads, visible, pending, inconsistent, equivocations}, ...]}
import { mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath, pathToFileURL } from "node:url";

const page = new URL("../../pwa/", import.meta.url);
const esbuild = createRequire(new URL("package.json", page))("esbuild");
const folder = mkdtempSync(join(tmpdir(), "hudur-twin-"));
const outfile = join(folder, "twin.mjs");
await esbuild.build({
  stdin: {
    contents: `
      export { parseChange } from "./src/core/change";
      export { merge } from "./src/core/history";
      export { Refusal } from "./src/core/bytes";
      export { zlibInflate } from "./test/support";`,
    resolveDir: fileURLToPath(page),
    loader: "ts",
  },
  bundle: true,
  platform: "node",
  format: "esm",
  outfile,
  logLevel: "warning",
});
const { parseChange, merge, Refusal, zlibInflate } = await import(pathToFileURL(outfile).href);
rmSync(folder, { recursive: true });

function verdict(chunk) {
  try {
    return parseChange(Uint8Array.from(Buffer.from(chunk, "hex")), zlibInflate).hash;
  } catch (problem) {
    return problem instanceof Refusal ? { refused: problem.slug } : { broken: String(problem) };
  }
}

function history(chunks) {
  const found = merge(chunks.map((chunk) => parseChange(Uint8Array.from(Buffer.from(chunk, "hex")), zlibInflate)));
  const visible = {};
  for (const [key, puts] of found.visible) visible[key] = puts.map((put) => put.value);
  return {
    heads: [...found.heads],
    visible,
    pending: [...found.pending].sort(),
    inconsistent: Object.fromEntries(found.inconsistent),
    equivocations: [...found.equivocations].sort(),
  };
}

createInterface({ input: process.stdin, crlfDelay: Infinity }).on("line", (line) => {
  const asked = JSON.parse(line);
  const answer = asked.chunks
    ? { verdicts: asked.chunks.map(verdict) }
    : { histories: asked.sets.map(history) };
  process.stdout.write(`${JSON.stringify(answer)}\n`);
});
