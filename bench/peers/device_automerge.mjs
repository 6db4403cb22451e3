// A device with automerge-repo: one document per register. automerge-repo tells nobody "stored"; a push is complete when
// a sync message of the server names the heads of the device's document.
import { decodeSyncMessage, decodeSyncState, getHeads } from '@automerge/automerge'
import { Repo } from '@automerge/automerge-repo'
import { WebSocketClientAdapter } from '@automerge/automerge-repo-network-websocket'
import { within } from './wait.mjs'

const NEVER_MS = 3_600_000

// Storage in memory, so that a second connection knows what the server has, as on a real device.
class Memory {
  #kept = new Map()
  #under = (prefix) => [...this.#kept].filter(([key]) => key.startsWith(JSON.stringify(prefix).slice(0, -1)))
  load = async (key) => this.#kept.get(JSON.stringify(key))
  save = async (key, data) => void this.#kept.set(JSON.stringify(key), data)
  remove = async (key) => void this.#kept.delete(JSON.stringify(key))
  loadRange = async (prefix) => this.#under(prefix).map(([key, data]) => ({ key: JSON.parse(key), data }))
  // Whether it is written down that the server has these heads.
  knows = (heads) =>
    [...this.#kept].some(([key, data]) => key.includes('sync-state') && `${decodeSyncState(data).sharedHeads}` === heads)
  removeRange = async (prefix) => this.#under(prefix).forEach(([key]) => this.#kept.delete(key))
}

const connection = (port) => new WebSocketClientAdapter(`ws://127.0.0.1:${port}`, NEVER_MS)

async function synced(repo, handle, port, storage) {
  const adapter = connection(port)
  const heads = `${getHeads(handle.doc())}`
  await within(60_000, 'automerge-repo', (resolve) => {
    adapter.on('message', (message) => {
      if (message.type === 'sync' && `${decodeSyncMessage(message.data).heads}` === heads) resolve()
    })
    repo.networkSubsystem.addNetworkAdapter(adapter)
  })
  for (let tries = 0; storage !== undefined && !storage.knows(heads); tries++) {
    if (tries === 500) throw new Error('automerge-repo did not write down what the server has')
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  adapter.disconnect()
}

export async function push(port, register, keep) {
  const storage = keep ? new Memory() : undefined
  const repo = new Repo({ storage, network: [], saveDebounceRate: 0 })
  const handle = repo.create({ register: register.id, marks: register.marks })
  await synced(repo, handle, port, storage)
  if (keep) await repo.flush()
  return [handle.url, { storage, url: handle.url, peerId: repo.peerId }]
}

export async function correct(port, register, { storage, url, peerId }) {
  const repo = new Repo({ storage, network: [], peerId })
  const handle = await repo.find(url)
  handle.change((doc) => Object.assign(doc.marks, register.later))
  await synced(repo, handle, port)
}

export async function has(port, register, url) {
  const adapter = connection(port)
  const repo = new Repo({ network: [adapter] })
  try {
    const handle = await repo.find(url, { signal: AbortSignal.timeout(20_000) })
    return Object.keys(handle.doc()?.marks ?? {}).length === Object.keys(register.marks).length
  } catch {
    return false // the server says that there is no such document
  } finally {
    adapter.disconnect()
  }
}
