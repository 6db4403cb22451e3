// Kills a real Chromium with SIGKILL while it captures, again and again on one profile, and checks with real SQLite that
// every row told to be durable is in the log. `node test/browser/kill.mjs [kills]`; needs chromium and python3.
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as esbuild from 'esbuild';

const here = dirname(fileURLToPath(import.meta.url));
const kills = Number(process.argv[2] ?? 5);
const tmp = join(here, '..', '..', '.tmp', 'kill');
rmSync(tmp, { recursive: true, force: true });
mkdirSync(tmp, { recursive: true });
const [{ text: script }] = (
  await esbuild.build({ entryPoints: [join(here, 'harness.ts')], bundle: true, write: false, target: 'chrome64', format: 'iife', logLevel: 'warning' })
).outputFiles;

let told = () => {};
let opened = null;
let durable = 0;
const server = createServer((request, reply) => {
  const url = new URL(request.url, 'http://x');
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    if (url.pathname === '/opened') opened = { rows: Number(url.searchParams.get('rows')), mode: url.searchParams.get('mode'), file: Buffer.concat(chunks) };
    if (url.pathname === '/durable') durable = Math.max(durable, Number(url.searchParams.get('row')));
    reply.setHeader('Content-Type', url.pathname === '/' ? 'text/html' : 'text/plain');
    reply.end(url.pathname === '/' ? `<!DOCTYPE html><title>capture</title><script>${script}</script>` : '');
    told();
  });
});
await new Promise((done) => server.listen(0, '127.0.0.1', done));
const address = `http://127.0.0.1:${server.address().port}/#capture`;
const until = (condition, what) =>
  new Promise((done, failed) => {
    const deadline = setTimeout(() => failed(new Error('timed out: ' + what)), 60000);
    told = () => {
      if (!condition()) return;
      clearTimeout(deadline);
      done();
    };
    told();
  });

let failures = 0;
for (let round = 0; round <= kills; round++) {
  const before = durable;
  opened = null;
  const browser = spawn(
    process.env.CHROMIUM ?? 'chromium',
    ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', `--user-data-dir=${join(tmp, 'profile')}`, address],
    { detached: true, stdio: 'ignore' },
  );
  await until(() => opened, 'the page opens its log');
  const file = join(tmp, `${round}.sqlite`);
  writeFileSync(file, opened.file);
  const check = 'import sqlite3,sys;d=sqlite3.connect(sys.argv[1]);print(d.execute("PRAGMA integrity_check").fetchone()[0],d.execute("SELECT count(*),coalesce(max(at_ms),0) FROM log").fetchone())';
  const verdict = opened.file.length ? spawnSync('python3', ['-c', check, file], { encoding: 'utf8' }).stdout.trim() : 'ok (0, 0)';
  const good = opened.mode === 'durable' && opened.rows >= before && verdict === `ok (${opened.rows}, ${opened.rows})`;
  console.log(`${good ? 'ok' : 'NOT OK'} ${round}: ${before} told durable, ${opened.rows} found, ${verdict}`);
  if (!good) failures++;
  const goal = Math.max(before, opened.rows) + 7 + ((round * 37) % 60);
  if (round < kills) await until(() => durable >= goal, 'more rows');
  process.kill(-browser.pid, 'SIGKILL');
  await new Promise((done) => browser.once('exit', done));
}
server.close();
process.exitCode = failures ? 1 : 0;
