// Builds pwa/dist: one start page with everything inlined, small lazy modules, service worker, manifest, icons.
//
//   node build.mjs            build, print the sizes, fail over the budget
//
// How lazy modules work here. Chrome 64 is the floor, so the start script is a classic inline script. A literal
// `import('./x')` in a source file is cut out of the start script, bundled as a classic script of its own
// (`m/x-HASH.js`) and loaded by a script tag. What such a module imports from the start script is not bundled again: the
// start script hands those values over in one array (`$s`), by position. One lazy module does the same for another one
// (see `BEHIND`).
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliCompressSync, constants } from 'node:zlib';
import * as esbuild from 'esbuild';
import { iconFiles } from './icons.mjs';

const HERE = dirname(fileURLToPath(import.meta.url));
const TARGET = 'chrome64';
/** The start page fits one initial TCP window of 10 segments; the rest is what 2G carries in about three seconds. */
const START_BUDGET_BYTES = 14_600;
const LAZY_BUDGET_BYTES = 45_000;
const TYPES = {
  html: 'text/html; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  png: 'image/png',
  svg: 'image/svg+xml',
  webmanifest: 'application/manifest+json',
};

const sha256 = (data, encoding) => createHash('sha256').update(data).digest(encoding);
/** Encodings to try: mode, window, postfix bits, direct distances. Which is smallest changes with every hash in the page. */
const ENCODINGS = [constants.BROTLI_MODE_TEXT, constants.BROTLI_MODE_GENERIC].flatMap((mode) =>
  [16, 24].flatMap((window) => [[0, 0], [0, 4], [0, 8], [1, 2]].map(([postfix, direct]) => [mode, window, postfix, direct])));

/** The smallest of several encodings: all of them are plain brotli, and the difference is up to a hundred bytes of the start page. */
const brotli = (data) =>
  ENCODINGS.map(([mode, window, postfix, direct]) =>
    brotliCompressSync(data, {
      params: {
        [constants.BROTLI_PARAM_QUALITY]: 11,
        [constants.BROTLI_PARAM_MODE]: mode,
        [constants.BROTLI_PARAM_SIZE_HINT]: data.length,
        [constants.BROTLI_PARAM_LGWIN]: window,
        [constants.BROTLI_PARAM_NPOSTFIX]: postfix,
        [constants.BROTLI_PARAM_NDIRECT]: direct,
      },
    }),
  ).reduce((best, one) => (one.length < best.length ? one : best));

/** Release name: the package's version and a digest of every source file, at most 16 characters. */
function releaseName(src) {
  const { version } = JSON.parse(readFileSync(join(HERE, 'package.json'), 'utf8'));
  const hash = createHash('sha256');
  const walk = (dir) => {
    for (const name of readdirSync(dir).sort()) {
      const path = join(dir, name);
      if (statSync(path).isDirectory()) walk(path);
      else hash.update(relative(src, path)).update(readFileSync(path));
    }
  };
  walk(src);
  return `${version}-${hash.digest('hex').slice(0, 6)}`;
}

/** `wire` is only ever run behind `ledger`, so what both hold is carried once, in `ledger`, and handed over in `$t`. */
const BEHIND = { first: join(HERE, 'src/core/ledger.ts'), then: join(HERE, 'src/core/wire.ts') };
const LAZY = 'lazy:';
const SHARED = 'shared:';

/** Leave `import('./x')` in the output as `import("lazy:ABSOLUTE PATH")`, and remember what was asked for. */
function lazyImports(found) {
  return {
    name: 'lazy-imports',
    setup(build) {
      build.onResolve({ filter: /.*/ }, async (args) => {
        if (args.kind !== 'dynamic-import' || args.pluginData === 'seen') return undefined;
        const target = await build.resolve(args.path, { kind: 'import-statement', resolveDir: args.resolveDir, pluginData: 'seen' });
        if (target.errors.length) return { errors: target.errors };
        found.add(target.path);
        return { path: LAZY + target.path, external: true };
      });
    },
  };
}

/** Imports of a file that the start script already holds become `shared:` imports. */
function sharedImports(startFiles) {
  return {
    name: 'shared-imports',
    setup(build) {
      build.onResolve({ filter: /.*/ }, async (args) => {
        if (args.kind !== 'import-statement' || args.pluginData === 'seen') return undefined;
        const target = await build.resolve(args.path, { kind: args.kind, resolveDir: args.resolveDir, importer: args.importer, pluginData: 'seen' });
        if (target.errors.length || !startFiles.has(target.path)) return target;
        return { path: SHARED + target.path, external: true };
      });
    },
  };
}

/** `import rules from './x.css'` gives the minified text. */
const cssText = {
  name: 'css-text',
  setup(build) {
    build.onLoad({ filter: /\.css$/ }, async ({ path }) => {
      const { code } = await esbuild.transform(readFileSync(path, 'utf8'), { loader: 'css', minify: true, target: TARGET });
      return { contents: `export default ${JSON.stringify(code.trim())}`, loader: 'js' };
    });
  },
};

/**
 * Properties of our own objects that get short names, the same in every script of the build. Never one that is stored, sent,
 * given to the browser, or reached by a computed name.
 */
const INTERNAL = (
  'attempts backlog blame cancelLoad cancelSeal catchUp changeable damaged enrolment exclusively floating floatingCache giveUp keepFloating lastCompleteSyncAtMs ' +
  'lastSeq lastTryAtMs lazily ledger listeners modulesAtHand monoMs msSinceMidnight onRow partial prepare runJobs sealed sealRows shown snapshot strange ' +
  'subscribe tappedAtMs touch unsealed wallMs written'
).split(' ');
/** No property of ours, and none of the browser's that we use, is called so. */
const SHORT = 'abcefgijklnopqrstuvwxyzCFGIJKMOQRTVWYZ';

const base = (app) => ({
  bundle: true,
  write: false,
  minify: true,
  target: TARGET,
  charset: 'utf8',
  mangleProps: new RegExp(`^(${INTERNAL.join('|')})$`),
  mangleCache: Object.fromEntries(INTERNAL.map((name, i) => [name, SHORT[i]])),
  legalComments: 'none',
  metafile: true,
  define: { __APP__: JSON.stringify(app) },
  absWorkingDir: HERE,
  logLevel: 'warning',
});

const inputsOf = (result) => new Set(Object.keys(result.metafile.inputs).map((path) => resolve(HERE, path)));

/** The names an ES module bundle imports from each `shared:` file. esbuild has already dropped the unused ones. */
function sharedNames(code) {
  const names = new Map();
  for (const [, list, path] of code.matchAll(/import\s*\{([^}]*)\}\s*from\s*"shared:([^"]+)"/g)) {
    const seen = names.get(path) ?? new Set();
    for (const part of list.split(',')) seen.add(part.trim().split(/\s+as\s+/)[0]);
    names.set(path, seen);
  }
  const all = (code.match(/"shared:/g) ?? []).length;
  const parsed = (code.match(/import\s*\{[^}]*\}\s*from\s*"shared:/g) ?? []).length;
  if (all !== parsed) throw new Error('a lazy module imports a start module by namespace or for its effects: name what you need');
  return names;
}

/** Replace each `import("lazy:PATH")` by a call of the loader with the final address. */
const linkLazy = (code, urls) =>
  code.replace(/import\("lazy:([^"]+)"\)/g, (_, path) => {
    const url = urls.get(path);
    if (!url) throw new Error(`lazy modules form a cycle at ${path}`);
    return `$l(${JSON.stringify(url)})`;
  });

/** A minified ES module as a function body: its one `export{a as x}` at the end becomes `return{x:a}`. */
function exportsAsObject(code) {
  const found = /export\{([^}]*)\};?$/.exec(code);
  if (!found || /(^|[;}])(import|export)[\s{*"]/.test(code.slice(0, found.index))) throw new Error('a lazy module is not in the expected form');
  const pairs = found[1].split(',').map((part) => part.trim().split(' as ')).map(([name, as]) => `${as ?? name}:${name}`);
  return `${code.slice(0, found.index)}return{${pairs.join(',')}}`;
}

/** The script-tag loader: scripts run in the order asked for; a load that failed is forgotten, so that it can be tried again. */
const LOADER = `var $m={},$p={};function $l(u){return $p[u]||($p[u]=new Promise((y,n)=>{var s=document.createElement("script");s.src=u;s.async=!1;s.onload=()=>$m[u]?y($m[u]):s.onerror();s.onerror=()=>{delete $p[u];n(Object.assign(Error(u),{slug:"offline"}))};document.head.appendChild(s)}))}`;

async function bundleScripts(entry, app, plugins) {
  const wanted = new Set();
  const first = await esbuild.build({ ...base(app), entryPoints: [entry], format: 'iife', plugins: [...plugins, lazyImports(wanted)] });
  const startFiles = inputsOf(first);

  const secondFiles = new Set();
  for (const path of inputsOf(await esbuild.build({ ...base(app), entryPoints: [BEHIND.first], format: 'esm', plugins: [...plugins, lazyImports(new Set())] })))
    if (!startFiles.has(path)) secondFiles.add(path);
  const sharedWith = (path) => (path === BEHIND.then ? new Set([...startFiles, ...secondFiles]) : startFiles);

  // Which values of others do the lazy modules need? A dry run as ES modules tells.
  const needs = new Map();
  const lazyPaths = [];
  for (const path of wanted) {
    lazyPaths.push(path);
    const dry = await esbuild.build({
      ...base(app), entryPoints: [path], format: 'esm', plugins: [...plugins, lazyImports(wanted), sharedImports(sharedWith(path))],
    });
    for (const [file, names] of sharedNames(dry.outputFiles[0].text)) {
      const all = needs.get(file) ?? new Set();
      for (const name of names) all.add(name);
      needs.set(file, all);
    }
  }
  const slotsOf = (files) => {
    const slots = new Map();
    for (const file of [...needs.keys()].filter((path) => files.has(path)).sort())
      for (const name of [...needs.get(file)].sort()) slots.set(`${file}#${name}`, slots.size);
    return slots;
  };
  const given = { $s: slotsOf(startFiles), $t: slotsOf(secondFiles) };
  /** Statements that put the values other scripts need into the array. */
  const handOver = (array) => {
    const names = [...given[array].keys()].map((slot) => slot.split('#'));
    const imports = names.map(([file, name], i) => `import { ${name} as s${i} } from ${JSON.stringify(file)};`);
    return `${imports.join('\n')}\nwindow.${array} = [${names.map((_, i) => `s${i}`).join(', ')}];\n`;
  };
  // The start entry comes last: its lazy calls happen after the array stands.
  const start = await esbuild.build({
    ...base(app),
    stdin: {
      contents: `${handOver('$s')}import ${JSON.stringify(entry)};`,
      resolveDir: HERE,
      loader: 'ts',
    },
    format: 'esm', // as `iife`, esbuild adds helpers for `import()` that nothing of ours calls
    plugins: [...plugins, lazyImports(new Set())],
  });

  const fromSlots = (path) => ({
    name: 'from-slots',
    setup(build) {
      build.onResolve({ filter: /.*/ }, async (args) => {
        if (args.kind !== 'import-statement' || args.pluginData === 'seen') return undefined;
        const target = await build.resolve(args.path, { kind: args.kind, resolveDir: args.resolveDir, importer: args.importer, pluginData: 'seen' });
        if (target.errors.length || !sharedWith(path).has(target.path)) return target;
        return { path: target.path, namespace: 'slots' };
      });
      build.onLoad({ filter: /.*/, namespace: 'slots' }, (args) => ({
        contents: [...(needs.get(args.path) ?? [])]
          .map((name) => {
            const array = startFiles.has(args.path) ? '$s' : '$t';
            return `export ${name === 'default' ? 'default' : `const ${name} =`} ${array}[${given[array].get(`${args.path}#${name}`)}];`;
          })
          .join('\n'),
        loader: 'js',
      }));
    },
  });

  const urls = new Map();
  const lazy = [];
  const visit = async (path, trail) => {
    if (urls.has(path)) return;
    if (trail.includes(path)) throw new Error(`lazy modules form a cycle: ${[...trail, path].join(' -> ')}`);
    const inner = new Set();
    const result = await esbuild.build({
      ...base(app), format: 'esm', plugins: [...plugins, lazyImports(inner), fromSlots(path)],
      ...(path === BEHIND.first
        ? { stdin: { contents: `${handOver('$t')}export * from ${JSON.stringify(path)};`, resolveDir: HERE, loader: 'ts' } }
        : { entryPoints: [path] }),
    });
    for (const next of inner) await visit(next, [...trail, path]);
    const body = linkLazy(exportsAsObject(result.outputFiles[0].text.trim()), urls);
    const name = basename(path).replace(/\.[^.]+$/, '');
    const url = `m/${name}-${sha256(body, 'hex').slice(0, 8)}.js`;
    if ([...urls.values()].some((other) => other.startsWith(`m/${name}-`))) throw new Error(`two lazy modules are called ${name}`);
    urls.set(path, url);
    // Wrapped, so that modules share no names; the exports are filed under the module's address.
    lazy.push({ path: url, data: Buffer.from(`(()=>{$m[${JSON.stringify(url)}]=(()=>{${body}})()})();\n`) });
  };
  for (const path of lazyPaths) await visit(path, []);
  return { start: `${LOADER}(()=>{${linkLazy(start.outputFiles[0].text.trim(), urls)}})()`, lazy, startMeta: start.metafile };
}

/** The exports of a TypeScript module without side effects, run here. */
async function imported(path) {
  const { outputFiles } = await esbuild.build({ entryPoints: [path], bundle: true, write: false, format: 'esm' });
  return import(`data:text/javascript;base64,${Buffer.from(outputFiles[0].text).toString('base64')}`);
}

/** Remove what a browser does not need from our own small template (no `pre`, no inline text that matters). */
const squeeze = (html) => html.replace(/<!--[^]*?-->/g, '').replace(/\s*\n\s*/g, '').trim();

export async function build({ outdir = join(HERE, 'dist'), plugins = [] } = {}) {
  const src = join(HERE, 'src');
  const app = releaseName(src);
  const { start, lazy, startMeta } = await bundleScripts(join(src, 'main.ts'), app, [cssText, ...plugins]);
  const css = (await esbuild.build({ ...base(app), entryPoints: [join(src, 'style.css')] })).outputFiles[0].text.trim();
  if (start.includes('</script') || css.includes('</style')) throw new Error('the inlined text would end its own element');

  const early = (await esbuild.build({ ...base(app), entryPoints: [join(src, 'early.ts')], format: 'iife', plugins })).outputFiles[0].text.trim();
  const { arEnrol: words } = await imported(join(src, 'i18n/ar-enrol.ts'));
  const html = squeeze(readFileSync(join(src, 'index.html'), 'utf8'))
    .replace(/\{(\w+)\}/g, (_, name) => {
      if (!words[name]) throw new Error(`index.html wants the word ${name}, ar-enrol.ts does not have it`);
      return words[name];
    })
    .replace('/*EARLY*/', () => early)
    .replace('/*STYLE*/', () => css)
    .replace('/*SCRIPT*/', () => start);
  const files = [
    { path: 'index.html', data: Buffer.from(html) },
    ...lazy,
    { path: 'manifest.webmanifest', data: Buffer.from(JSON.stringify(JSON.parse(readFileSync(join(src, 'manifest.webmanifest'), 'utf8')))) },
    ...iconFiles(),
  ];
  const cacheName = `hudur-${sha256(files.map((file) => sha256(file.data, 'hex')).join(), 'hex').slice(0, 12)}`;
  const worker = await esbuild.build({
    ...base(app), entryPoints: [join(src, 'sw.ts')], format: 'iife',
    define: {
      __CACHE__: JSON.stringify(cacheName),
      __FILES__: JSON.stringify(files.map((file) => (file.path === 'index.html' ? './' : file.path))),
    },
  });
  files.push({ path: 'sw.js', data: Buffer.from(worker.outputFiles[0].text) });

  rmSync(outdir, { recursive: true, force: true });
  mkdirSync(join(outdir, 'm'), { recursive: true });
  const listed = files.map(({ path, data }) => {
    const type = TYPES[path.split('.').pop()];
    const packed = type === TYPES.png ? null : brotli(data);
    writeFileSync(join(outdir, path), data);
    if (packed) writeFileSync(join(outdir, `${path}.br`), packed);
    return {
      path, type, bytes: data.length, br_bytes: packed ? packed.length : null, sha256: sha256(data, 'hex'),
      // Named by their content: may be kept for ever. The others must be asked for again each time.
      immutable: path.startsWith('m/'),
    };
  });
  const size = (file) => file.br_bytes ?? file.bytes;
  const totals = {
    start_bytes: size(listed[0]), start_budget_bytes: START_BUDGET_BYTES,
    lazy_bytes: listed.filter((file) => file.immutable).reduce((sum, file) => sum + size(file), 0), lazy_budget_bytes: LAZY_BUDGET_BYTES,
  };
  const manifest = {
    app, cache: cacheName, ...totals,
    csp: { script: [early, start].map((script) => `sha256-${sha256(script, 'base64')}`), style: [`sha256-${sha256(css, 'base64')}`] },
    files: listed,
  };
  writeFileSync(join(outdir, 'build.json'), `${JSON.stringify(manifest, null, 1)}\n`);
  return { ...manifest, startMeta };
}

function report(result) {
  for (const file of result.files) console.log(`${String(file.bytes).padStart(8)} B ${String(file.br_bytes ?? '-').padStart(7)} B br  ${file.path}`);
  const parts = Object.values(result.startMeta.outputs)[0].inputs;
  for (const [path, { bytesInOutput }] of Object.entries(parts).sort((a, b) => b[1].bytesInOutput - a[1].bytesInOutput))
    console.log(`${String(bytesInOutput).padStart(8)} B in start   ${path}`);
  console.log(`start path ${result.start_bytes} of ${START_BUDGET_BYTES} B, lazy modules ${result.lazy_bytes} of ${LAZY_BUDGET_BYTES} B (brotli), app ${result.app}`);
  if (result.start_bytes > START_BUDGET_BYTES || result.lazy_bytes > LAZY_BUDGET_BYTES) {
    console.error('over the budget');
    process.exitCode = 1;
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) report(await build());
