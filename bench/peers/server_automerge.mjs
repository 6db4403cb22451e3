// automerge-repo as its own sync server sets it up: WebSocket adapter, files for storage, documents never announced.
// node server_automerge.mjs FOLDER PORT
import { createServer } from 'node:http'
import { Repo } from '@automerge/automerge-repo'
import { NodeFSStorageAdapter } from '@automerge/automerge-repo-storage-nodefs'
import { WebSocketServerAdapter } from '@automerge/automerge-repo-network-websocket'
import { WebSocketServer } from 'ws'

const [folder, port] = process.argv.slice(2)
const sockets = new WebSocketServer({ noServer: true })
const repo = new Repo({
  network: [new WebSocketServerAdapter(sockets)],
  storage: new NodeFSStorageAdapter(folder),
  peerId: 'bench-sync-server',
  sharePolicy: async () => false,
})
const server = createServer((_, response) => response.end('ok'))
server.on('upgrade', (request, socket, head) => {
  sockets.handleUpgrade(request, socket, head, (opened) => sockets.emit('connection', opened, request))
})
server.listen(Number(port), '127.0.0.1', () => console.log('ready'))
process.on('SIGTERM', async () => {
  await repo.flush()
  process.exit(0)
})
