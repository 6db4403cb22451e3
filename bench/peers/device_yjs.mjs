// A device with y-websocket: one document per register. The protocol acknowledges nothing; but the server sends every
// update to everyone connected, the sender too. A push is complete when these echoes hold all that the device has.
import * as decoding from 'lib0/decoding'
import { WebSocket } from 'ws'
import { WebsocketProvider } from 'y-websocket'
import * as Y from 'yjs'
import { within } from './wait.mjs'

const SYNC = 0
const UPDATE = 2

function connect(port, register, doc) {
  const provider = new WebsocketProvider(`ws://127.0.0.1:${port}`, encodeURIComponent(register.id), doc, {
    WebSocketPolyfill: WebSocket,
    disableBc: true,
    maxBackoffTime: 3_600_000,
  })
  provider.on('connection-error', () => provider.destroy())
  return provider
}

async function echoed(port, register, doc) {
  const known = new Y.Doc() // what the server was seen to have
  const wanted = Y.encodeStateVector(doc)
  const provider = connect(port, register, doc)
  await within(60_000, 'y-websocket', (resolve) => {
    provider.ws.addEventListener('message', ({ data }) => {
      const decoder = decoding.createDecoder(new Uint8Array(data))
      if (decoding.readVarUint(decoder) !== SYNC || decoding.readVarUint(decoder) !== UPDATE) return
      Y.applyUpdate(known, decoding.readVarUint8Array(decoder))
      if (Buffer.compare(Y.encodeStateVector(known), wanted) === 0) resolve()
    })
  })
  provider.destroy()
}

export async function push(port, register) {
  const doc = new Y.Doc()
  const marks = doc.getMap('marks')
  doc.transact(() => Object.entries(register.marks).forEach(([pupil, mark]) => marks.set(pupil, mark)))
  await echoed(port, register, doc)
  return [null, doc]
}

export async function correct(port, register, doc) {
  const marks = doc.getMap('marks')
  doc.transact(() => Object.entries(register.later).forEach(([pupil, mark]) => marks.set(pupil, mark)))
  await echoed(port, register, doc)
}

export async function has(port, register) {
  const doc = new Y.Doc()
  const marks = doc.getMap('marks')
  const provider = connect(port, register, doc)
  const whole = () => marks.size === Object.keys(register.marks).length
  try {
    // what was stored is read after the first answer, so the first answer does not decide
    await within(5_000, 'y-websocket', (resolve) => doc.on('update', () => whole() && resolve()))
    return true
  } catch {
    return false
  } finally {
    provider.destroy()
  }
}
