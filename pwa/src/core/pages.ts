/**
 * The device's log as a live, append-only, one-table SQLite 3 database, kept page by page.
 *
 * Invariants:
 *   1. The pages 1..count, concatenated, are a database that SQLite itself opens, checks and goes on writing.
 *   2. `append` changes no page in place: it returns copies, and the file moves on only when `commit` is called, so a
 *      failed transaction leaves nothing to undo.
 *   3. Rows are only ever appended: the new row's cell goes to the right-most leaf, and a full page gets a right
 *      neighbour. No page is ever freed or reused.
 *
 * The caller stores the returned pages in one atomic transaction; SQLite's own journal is not needed then. The format is
 * described at https://www.sqlite.org/fileformat2.html; the numbers below are its offsets.
 */
import { Refusal, concat, putU32, text, u32, utf8 } from './bytes';

export interface NewRow {
  readonly kind: string;
  readonly register: string | null;
  readonly atMs: number;
  readonly body: Uint8Array;
}

export interface Row extends NewRow {
  readonly seq: number;
}

export type Pages = ReadonlyMap<number, Uint8Array>;

export const SCHEMA =
  'CREATE TABLE log (seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, register TEXT, at_ms INTEGER NOT NULL, body BLOB NOT NULL)';
const PAGE = 4096;
const ROOT = 2; // the table's root page never moves
const LEAF = 13;
const INTERIOR = 5;
const COUNTER_AT = 24;
const PAGES_AT = 28;
const RIGHT_CHILD_AT = 8;
// A longer payload than a page less 35 bytes spills to overflow pages; at least this much stays in the cell.
const LOCAL_MIN = Math.floor(((PAGE - 12) * 32) / 255) - 23;
const DEPTH_MAX = 12; // 2^32 pages of the smallest size are no deeper
const ROW_BYTES_MAX = 1 << 20;

const u16 = (page: Uint8Array, at: number): number => (page[at] << 8) | page[at + 1];
const putU16 = (page: Uint8Array, at: number, value: number): void => {
  page[at] = value >> 8;
  page[at + 1] = value;
};
const broken = (why: string): never => {
  throw new Refusal('not-an-export', why);
};

/** SQLite's big-endian base-128 number, for values below 2^53. */
function varint(n: number): number[] {
  const out = [n & 127];
  while ((n = Math.floor(n / 128)) > 0) out.unshift((n & 127) | 128);
  return out;
}

function bigEndian(n: number, size: number): number[] {
  const out: number[] = [];
  for (; size--; n = Math.floor(n / 256)) out.unshift(n & 255);
  return out;
}

type Column = string | number | null | Uint8Array;

/** One record: its header of serial types, then the values. Integers take 6 bytes (type 5). */
function record(columns: readonly Column[]): Uint8Array {
  const types: number[] = [];
  const values: Uint8Array[] = [];
  for (const column of columns) {
    if (column === null) types.push(0);
    else if (typeof column === 'number') {
      types.push(5);
      values.push(Uint8Array.from(bigEndian(column, 6)));
    } else {
      const bytes = typeof column === 'string' ? utf8(column) : column;
      types.push(...varint(bytes.length * 2 + (bytes === column ? 12 : 13)));
      values.push(bytes);
    }
  }
  // The header counts its own length; 120 bytes of types never happen with 5 columns.
  return concat([Uint8Array.from([types.length + 1, ...types]), ...values]);
}

function emptyPage(type: number): Uint8Array {
  const page = new Uint8Array(PAGE);
  page[0] = type;
  putU16(page, 5, PAGE);
  return page;
}

/** Add a cell behind the others of a b-tree page; false when it does not fit. */
function addCell(page: Uint8Array, cell: Uint8Array, at = 0): boolean {
  const pointers = at + (page[at] === INTERIOR ? 12 : 8);
  const count = u16(page, at + 3);
  const start = u16(page, at + 5) - cell.length;
  if (start < pointers + count * 2 + 2) return false;
  page.set(cell, start);
  putU16(page, pointers + count * 2, start);
  putU16(page, at + 3, count + 1);
  putU16(page, at + 5, start);
  return true;
}

const childCell = (child: number, key: number): Uint8Array => Uint8Array.from([...bigEndian(child, 4), ...varint(key)]);

/** Pages changed by one append, and where the file stands then. */
export interface Append {
  readonly pages: Map<number, Uint8Array>;
  count: number;
  lastSeq: number;
}

export class LogFile {
  pages = new Map<number, Uint8Array>();
  count = 0;
  lastSeq = 0;

  /** The change counter of page 1; 0 before the first commit. */
  get counter(): number {
    const first = this.pages.get(1);
    return first ? u32(first, COUNTER_AT) : 0;
  }

  /** Take up pages that another tab or an earlier session stored. Throws {@link Refusal} when they are not a log. */
  load(pages: Pages): void {
    const all = new Map(this.pages);
    pages.forEach((page, no) => all.set(no, page));
    const get = (no: number): Uint8Array => all.get(no) || broken('page ' + no);
    const count = u32(get(1), PAGES_AT);
    this.lastSeq = lastRowid(spine(get).pop()![1]);
    this.pages = all;
    this.count = count;
  }

  /** Pages that an append may change: page 1 and the right spine. */
  changeable(): number[] {
    return this.count ? [1].concat(spine((no) => this.pages.get(no)!).map(([no]) => no)) : [];
  }

  /** The pages that would hold these rows too. Nothing changes before {@link commit}. */
  append(rows: readonly NewRow[]): Append {
    const draft: Append = { pages: new Map(), count: this.count, lastSeq: this.lastSeq };
    if (!this.count) createFile(draft);
    const edit = (no: number): Uint8Array => {
      let page = draft.pages.get(no);
      if (!page) draft.pages.set(no, (page = this.pages.get(no)!.slice()));
      return page;
    };
    for (const row of rows) {
      const payload = record([null, row.kind, row.register, row.atMs, row.body]);
      this.place(draft, edit, cellOf(draft, draft.lastSeq + 1, payload));
      draft.lastSeq++;
    }
    const first = edit(1);
    const counter = u32(first, COUNTER_AT) + 1;
    putU32(first, COUNTER_AT, counter);
    putU32(first, 92, counter); // "version valid for": the counter at which PAGES_AT was right
    putU32(first, PAGES_AT, draft.count);
    return draft;
  }

  /** Make an append part of the file: its transaction is complete. */
  commit(draft: Append): void {
    draft.pages.forEach((page, no) => this.pages.set(no, page));
    this.count = draft.count;
    this.lastSeq = draft.lastSeq;
  }

  /** The database file. */
  bytes(): Uint8Array {
    const all: Uint8Array[] = [];
    for (let no = 1; no <= this.count; no++) all.push(this.pages.get(no)!);
    return concat(all);
  }

  /** Rows behind `after`, in order. */
  rows(after = 0): Iterable<Row> {
    return this.count ? readTable((no) => this.pages.get(no), PAGE, ROOT, after) : [];
  }

  private place(draft: Append, edit: (no: number) => Uint8Array, cell: Uint8Array): void {
    const path = spine((no) => draft.pages.get(no) || this.pages.get(no)!).map(([no]) => no);
    let left = path.pop()!;
    if (addCell(edit(left), cell)) return;
    const leaf = emptyPage(LEAF);
    addCell(leaf, cell);
    let right = newPage(draft, leaf);
    // `left` now needs a right neighbour: its parent gets the cell (left, greatest key under left) and points to `right`.
    let key = draft.lastSeq;
    while (path.length) {
      const no = path.pop()!;
      const parent = edit(no);
      if (addCell(parent, childCell(left, key))) {
        putU32(parent, RIGHT_CHILD_AT, right);
        return;
      }
      const [child, childKey] = popCell(parent); // an interior page must keep one cell: the new neighbour takes `left`
      putU32(parent, RIGHT_CHILD_AT, child);
      const neighbour = emptyPage(INTERIOR);
      addCell(neighbour, childCell(left, key));
      putU32(neighbour, RIGHT_CHILD_AT, right);
      right = newPage(draft, neighbour);
      left = no;
      key = childKey;
    }
    const moved = newPage(draft, edit(ROOT)); // the root is full: its content moves down, the tree grows one level
    const root = emptyPage(INTERIOR);
    addCell(root, childCell(moved, key));
    putU32(root, RIGHT_CHILD_AT, right);
    draft.pages.set(ROOT, root);
  }
}

/** The right-most path from the root to a leaf. */
function spine(get: (no: number) => Uint8Array): [number, Uint8Array][] {
  const path: [number, Uint8Array][] = [];
  for (let no = ROOT; path.length < DEPTH_MAX; ) {
    const page = get(no);
    path.push([no, page]);
    if (page[0] === LEAF) return path;
    no = u32(page, RIGHT_CHILD_AT);
  }
  return broken('depth');
}

function newPage(draft: Append, page: Uint8Array): number {
  draft.pages.set(++draft.count, page);
  return draft.count;
}

function createFile(draft: Append): void {
  const first = new Uint8Array(PAGE);
  first.set(utf8('SQLite format 3\0'));
  // page size, file format versions 1, no reserved bytes, the three fixed payload fractions
  first.set([PAGE >> 8, PAGE & 255, 1, 1, 0, 64, 32, 32], 16);
  putU32(first, 40, 1); // schema cookie
  putU32(first, 44, 4); // schema format
  putU32(first, 56, 1); // UTF-8
  putU32(first, 96, 3045000); // the SQLite version whose format this is
  first[100] = LEAF;
  putU16(first, 105, PAGE);
  const schema = record(['table', 'log', 'log', ROOT, SCHEMA]);
  addCell(first, Uint8Array.from([...varint(schema.length), 1, ...schema]), 100);
  draft.pages.set(1, first);
  draft.pages.set(ROOT, emptyPage(LEAF));
  draft.count = ROOT;
}

/** The leaf cell of a row; what does not fit into one page goes to a chain of overflow pages. */
function cellOf(draft: Append, rowid: number, payload: Uint8Array): Uint8Array {
  const head = Uint8Array.from([...varint(payload.length), ...varint(rowid)]);
  const local = localBytes(payload.length, PAGE);
  if (local === payload.length) return concat([head, payload]);
  const room = PAGE - 4;
  const first = draft.count + 1;
  for (let at = local; at < payload.length; at += room) {
    const page = new Uint8Array(PAGE);
    page.set(payload.subarray(at, at + room), 4);
    const no = newPage(draft, page);
    if (at + room < payload.length) putU32(page, 0, no + 1);
  }
  return concat([head, payload.subarray(0, local), Uint8Array.from(bigEndian(first, 4))]);
}

/** Payload bytes kept in the cell itself (file format, section 1.6), for a page with `usable` bytes. */
function localBytes(length: number, usable: number): number {
  if (length <= usable - 35) return length;
  const least = usable === PAGE ? LOCAL_MIN : Math.floor(((usable - 12) * 32) / 255) - 23;
  const local = least + ((length - least) % (usable - 4));
  return local <= usable - 35 ? local : least;
}

/** Take the last cell off an interior page: [child, key]. */
function popCell(page: Uint8Array): [number, number] {
  const count = u16(page, 3) - 1;
  const at = u16(page, 12 + count * 2);
  const [key, end] = readVarint(page, at + 4);
  const child = u32(page, at);
  page.fill(0, at, end);
  putU16(page, 12 + count * 2, 0);
  putU16(page, 3, count);
  putU16(page, 5, end); // cells stand in order of age: this was the lowest
  return [child, key];
}

function lastRowid(leaf: Uint8Array): number {
  const count = u16(leaf, 3);
  return count ? readVarint(leaf, readVarint(leaf, u16(leaf, 6 + count * 2))[1])[0] : 0;
}

/** [value, next offset]; refuses what leaves the page or 2^53. */
function readVarint(page: Uint8Array, at: number): [number, number] {
  let n = 0;
  for (let i = 0; i < 8; i++) {
    const byte = page[at + i];
    n = n * 128 + (byte & 127);
    if (byte < 128 && n <= Number.MAX_SAFE_INTEGER) return [n, at + i + 1];
  }
  return broken('number');
}

// ---- reading; also for the file of another phone, which may be made to harm: every page is visited at most once

/**
 * Rows of the b-tree at page `root` with a rowid greater than `after`, in order.
 *
 * Bounded for hostile input: each page is visited once, depth and row size are limited, and every offset is checked.
 * Throws {@link Refusal} `not-an-export`.
 */
export function* readTable(get: (no: number) => Uint8Array | undefined, usable: number, root: number, after = 0): Iterable<Row> {
  for (const [seq, payload] of cells(get, usable, root, after)) {
    const [, kind, register, atMs, body] = readRecord(payload);
    if (typeof kind !== 'string' || typeof atMs !== 'number' || !(body instanceof Uint8Array)) broken('row');
    else yield { seq, kind, register: typeof register === 'string' ? register : null, atMs, body };
  }
}

/** [rowid, payload] of every cell of a table b-tree. */
export function* cells(get: (no: number) => Uint8Array | undefined, usable: number, root: number, after = 0): Iterable<[number, Uint8Array]> {
  const seen = new Set<number>();
  const visit = (no: number): Uint8Array => {
    const page = get(no);
    if (!page || seen.has(no)) return broken('page ' + no);
    seen.add(no);
    return page;
  };
  // An explicit stack of children still to visit, the next one last.
  const stack: [no: number, depth: number][] = [[root, 0]];
  while (stack.length) {
    const [no, depth] = stack.pop()!;
    const page = visit(no);
    const at = no === 1 ? 100 : 0;
    const count = u16(page, at + 3);
    if (page[at] === INTERIOR) {
      if (depth > DEPTH_MAX) broken('depth');
      stack.push([u32(page, at + RIGHT_CHILD_AT), depth + 1]);
      for (let i = count; i--; ) {
        const cell = u16(page, at + 12 + i * 2);
        if (readVarint(page, cell + 4)[0] <= after) break; // all further left is older still
        stack.push([u32(page, cell), depth + 1]);
      }
    } else if (page[at] === LEAF) {
      for (let i = 0; i < count; i++) {
        const [length, next] = readVarint(page, u16(page, at + 8 + i * 2));
        const [rowid, start] = readVarint(page, next);
        if (length > ROW_BYTES_MAX) broken('row too large');
        if (rowid > after) yield [rowid, payloadAt(visit, page, start, length, usable)];
      }
    } else broken('page type');
  }
}

function payloadAt(visit: (no: number) => Uint8Array, page: Uint8Array, at: number, length: number, usable: number): Uint8Array {
  const local = localBytes(length, usable);
  if (at + local + (local < length ? 4 : 0) > usable) broken('cell');
  if (local === length) return page.subarray(at, at + length);
  const parts = [page.subarray(at, at + local)];
  let next = u32(page, at + local);
  for (let left = length - local; left > 0; left -= usable - 4) {
    const more = visit(next);
    parts.push(more.subarray(4, 4 + Math.min(left, usable - 4)));
    next = u32(more, 0);
  }
  return concat(parts);
}

/** The columns of a record. Floats and integers beyond 2^53 are refused: no log has them. */
export function readRecord(payload: Uint8Array): Column[] {
  const [header, first] = readVarint(payload, 0);
  const columns: Column[] = [];
  let at = header;
  for (let head = first; head < header; ) {
    const [type, next] = readVarint(payload, head);
    head = next;
    const size = type >= 12 ? (type - 12) >> 1 : [0, 1, 2, 3, 4, 6, 8, -1, 0, 0, -1, -1][type];
    if (size < 0 || at + size > payload.length) broken('record');
    const bytes = payload.subarray(at, (at += size));
    if (!type) columns.push(null);
    else if (type === 8 || type === 9) columns.push(type - 8);
    else if (type < 8) columns.push(integer(bytes));
    else if (type % 2) columns.push(text(bytes, 'not-an-export'));
    else columns.push(bytes);
  }
  return columns;
}

function integer(bytes: Uint8Array): number {
  let n = bytes[0] > 127 ? -1 : 0;
  for (let i = 0; i < bytes.length; i++) n = n * 256 + bytes[i];
  return Number.isSafeInteger(n) ? n : broken('integer');
}
