// Serves pwa/dist the way the real server does (CSP from build.json, precompressed files), for checks of the page alone.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';

/** The policy docs and server promise; the hashes come from the build. */
export const policy = ({ csp }) =>
  [
    "default-src 'none'",
    `script-src 'self' ${csp.script.map((hash) => `'${hash}'`).join(' ')}`,
    `style-src ${csp.style.map((hash) => `'${hash}'`).join(' ')}`,
    "connect-src 'self'", "img-src 'self' data:", "manifest-src 'self'", "worker-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
  ].join('; ');

/** Start on an ephemeral port of 127.0.0.1. `seen` collects the paths asked for. */
export async function serveDist(dist) {
  const build = JSON.parse(readFileSync(join(dist, 'build.json'), 'utf8'));
  const files = new Map(build.files.map((file) => [`/${file.path}`, file]));
  const seen = [];
  const server = createServer((request, response) => {
    const path = new URL(request.url, 'http://x').pathname;
    seen.push(path);
    const file = files.get(path === '/' ? '/index.html' : path);
    if (!file || request.method !== 'GET') return response.writeHead(404).end();
    // Old browsers take brotli only over https.
    const packed = file.br_bytes && /\bbr\b/.test(request.headers['accept-encoding'] || '');
    response.writeHead(200, {
      'Content-Type': file.type, 'Content-Security-Policy': policy(build), 'X-Content-Type-Options': 'nosniff',
      'Cache-Control': file.immutable ? 'public, max-age=31536000, immutable' : 'no-cache',
      ...(packed ? { 'Content-Encoding': 'br' } : {}),
    });
    return response.end(readFileSync(join(dist, file.path + (packed ? '.br' : ''))));
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  return { url: `http://127.0.0.1:${server.address().port}/`, seen, close: () => new Promise((done) => { server.closeAllConnections(); server.close(done); }) };
}
