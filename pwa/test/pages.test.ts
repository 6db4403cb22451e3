/** The page writer and reader, against the real SQLite (Python's), at every size where the tree changes shape. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Refusal } from '../src/core/bytes';
import { LogFile, NewRow, Row, SCHEMA } from '../src/core/pages';
import { rowsOfFile } from '../src/core/wire';
import { Random, seeded } from './support';

mkdirSync(join(process.env.PWA!, '.tmp'), { recursive: true });
const dir = mkdtempSync(join(process.env.PWA!, '.tmp', 'pages-'));
after(() => rmSync(dir, { recursive: true, force: true }));

const digest = (body: Uint8Array): string => createHash('sha256').update(body).digest('hex').slice(0, 16);
const plain = ({ seq, kind, register, atMs, body }: Row): unknown[] => [seq, kind, register, atMs, digest(body)];

interface Case { file: string; bytes: number; schema: string; rows: unknown[][]; insert: number; label: string }
const cases: Case[] = [];

/** Put a file on the list that SQLite will check. */
function keep(label: string, log: LogFile, rows: Row[], insert = 5): void {
  const bytes = log.bytes();
  const file = join(dir, cases.length + '.sqlite');
  writeFileSync(file, bytes);
  cases.push({ file, bytes: bytes.length, schema: SCHEMA, rows: rows.map(plain), insert, label });
}

/** Append one by one or in batches, with a reopen from the stored pages now and then, as after a kill. */
class Writer {
  log = new LogFile();
  rows: Row[] = [];
  stored = new Map<number, Uint8Array>();

  append(...rows: NewRow[]): number {
    const draft = this.log.append(rows);
    draft.pages.forEach((page, no) => this.stored.set(no, page.slice()));
    this.log.commit(draft);
    rows.forEach((row) => this.rows.push({ ...row, seq: this.rows.length + 1 }));
    return draft.pages.size;
  }

  /** Page 1 and the right spine are all that a writer needs to go on. */
  reopen(): void {
    const spine = this.log.changeable();
    const all = this.stored;
    this.log = new LogFile();
    this.log.load(new Map(spine.map((no) => [no, all.get(no)!])));
    this.log.load(all);
  }
}

const row = (random: Random, size: number): NewRow => ({
  kind: random.pick(['tap', 'change', 'frame', 'receipt']),
  register: random.int(3) ? 'c-3a/2026-11-22/day' : null,
  atMs: 1795000000000 + random.int(1000),
  body: random.bytes(size),
});

test('every count of small rows over the first splits, each file kept', () => {
  const writer = new Writer();
  const random = seeded(1);
  for (let n = 1; n <= 130; n++) {
    writer.append(row(random, 40));
    if (n % 7 === 0) writer.reopen();
    keep(`${n} small rows`, writer.log, writer.rows);
  }
});

test('every payload size around a page and around each overflow page', () => {
  const random = seeded(2);
  for (const middle of [400, 490, 530, 4030, 4061, 4092, 8150, 8184, 12250, 16384, 20480]) {
    const writer = new Writer();
    for (let size = middle - 24; size <= middle + 24; size++) {
      writer.append(row(random, size));
      if (size % 5 === 0) writer.reopen();
    }
    keep(`payloads around ${middle}`, writer.log, writer.rows);
  }
});

test('batches of rows of all sizes, reopened at random', () => {
  for (let seed = 1; seed <= 12; seed++) {
    const writer = new Writer();
    const random = seeded(100 + seed);
    for (let step = 0; step < 40; step++) {
      writer.append(...Array.from({ length: random.int(6) }, () => row(random, random.int(8) ? random.int(700) : random.int(17000))));
      if (!random.int(4)) writer.reopen();
    }
    keep(`batches of seed ${seed}`, writer.log, writer.rows);
  }
});

test('the tree grows to depth 3, and each split of an interior page holds', () => {
  // Rows of 1,300 bytes: 3 to a leaf, so that interior pages (about 500 children) fill with few megabytes.
  const writer = new Writer();
  const random = seeded(3);
  const body = random.bytes(1300);
  const small = new Set<number>();
  let depth = 0;
  let before = 0;
  for (let n = 1; n <= 3300; n++) {
    const changed = writer.append({ kind: 'frame', register: null, atMs: n, body });
    small.add(changed);
    const spine = writer.log.changeable().length - 1;
    // Keep the file at each change of depth and where an interior page got a neighbour (4 or more pages changed).
    if (spine !== before || changed >= 5) {
      writer.reopen();
      keep(`${n} rows, depth ${spine}, ${changed} pages changed`, writer.log, writer.rows);
    }
    before = spine;
    depth = Math.max(depth, spine);
  }
  keep('3300 rows', writer.log, writer.rows, 40);
  assert.equal(depth, 3);
  assert.ok(Math.max(...small) <= 6, 'an append changes few pages');
});

test('a tap changes two pages', () => {
  const writer = new Writer();
  const random = seeded(4);
  for (let i = 0; i < 10; i++) writer.append(row(random, 30));
  assert.equal(writer.append(row(random, 30)), 2);
});

test('our reader gives back every row, from the start or behind any row', () => {
  const writer = new Writer();
  const random = seeded(5);
  for (let n = 0; n < 400; n++) writer.append(row(random, random.int(10) ? random.int(300) : random.int(9000)));
  assert.deepEqual([...writer.log.rows()].map(plain), writer.rows.map(plain));
  for (const after of [0, 1, 17, 200, 399, 400]) {
    assert.deepEqual([...writer.log.rows(after)].map(plain), writer.rows.slice(after).map(plain));
  }
  assert.deepEqual([...rowsOfFile(writer.log.bytes())].map(plain), writer.rows.map(plain), 'as a foreign file');
});

test('an uncommitted append leaves the file as it was', () => {
  const writer = new Writer();
  const random = seeded(6);
  for (let n = 0; n < 60; n++) writer.append(row(random, 200));
  const before = writer.log.bytes();
  writer.log.append([row(random, 5000), row(random, 10)]);
  assert.deepEqual(writer.log.bytes(), before);
});

test('a damaged or hostile file ends in a refusal or in rows, soon, and never in a loop', () => {
  const writer = new Writer();
  const random = seeded(7);
  for (let n = 0; n < 300; n++) writer.append(row(random, random.int(9) ? random.int(200) : random.int(9000)));
  const whole = writer.log.bytes();
  let refused = 0;
  const started = performance.now();
  for (let round = 0; round < 1500; round++) {
    const file = whole.slice(0, random.int(5) ? whole.length : random.int(whole.length));
    for (let edits = 1 + random.int(8); edits-- && file.length > 200; ) {
      // Mostly page headers and cell pointers, where the structure lives.
      const page = random.int(Math.ceil(file.length / 4096)) * 4096;
      const at = Math.min(file.length - 1, page + (random.int(3) ? random.int(120) : random.int(4096)));
      file[at] = random.pick([0, 1, 2, 5, 13, 255, random.int(256)]);
    }
    let count = 0;
    try {
      for (const one of rowsOfFile(file)) count += one.body.length >= 0 ? 1 : 0;
    } catch (cause) {
      assert.ok(cause instanceof Refusal, String(cause));
      refused++;
    }
    assert.ok(count <= 100000);
  }
  assert.ok(refused > 300, `${refused} refused`);
  assert.ok(performance.now() - started < 20000);
});

test('a chain of pages that points back to itself is refused', () => {
  const writer = new Writer();
  const random = seeded(8);
  writer.append(row(random, 15000));
  const file = writer.log.bytes();
  const first = 2 * 4096; // the first overflow page, number 3
  file.set([0, 0, 0, 3], first);
  assert.throws(() => [...rowsOfFile(file)], { slug: 'not-an-export' });
});

test('SQLite opens all these files, finds them whole, reads every row and goes on inserting', () => {
  assert.ok(cases.length > 150);
  const input = JSON.stringify(cases);
  const run = spawnSync('python3', ['-W', 'error', join(process.env.PWA!, 'test', 'sqlite.py')], { input, encoding: 'utf8', maxBuffer: 1 << 26 });
  assert.equal(run.status, 0, run.stderr);
  const verdicts = run.stdout.trim().split('\n').map((line) => JSON.parse(line));
  assert.equal(verdicts.length, cases.length);
  const wrong = verdicts.flatMap((verdict, i) => (verdict ? [`${cases[i].label}: ${verdict}`] : []));
  assert.deepEqual(wrong, []);
});
