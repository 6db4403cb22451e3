// A device with PouchDB: one document per register, replicated to the server. Requests of one replication share a kept
// connection, which is less than PouchDB does by itself in Node (a connection for each request).
import { Agent } from 'node:http'
import PouchDB from 'pouchdb'
import memory from 'pouchdb-adapter-memory'

PouchDB.plugin(memory)
let number = 0

async function replicate(local, port) {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const remote = new PouchDB(`http://127.0.0.1:${port}/registers`, {
    skip_setup: true,
    fetch: (url, options) => PouchDB.fetch(url, { ...options, agent }),
  })
  try {
    const done = await local.replicate.to(remote)
    if (!done.ok || done.docs_written !== 1) throw new Error(`replicated ${JSON.stringify(done)}`)
  } finally {
    agent.destroy()
  }
}

export async function push(port, register, keep) {
  const local = new PouchDB(`device-${process.pid}-${number++}`, { adapter: 'memory' })
  await local.put({ _id: register.id, marks: register.marks })
  await replicate(local, port)
  if (!keep) await local.destroy()
  return [null, local]
}

export async function correct(port, register, local) {
  const doc = await local.get(register.id)
  await local.put({ ...doc, marks: { ...doc.marks, ...register.later } })
  await replicate(local, port)
  await local.destroy()
}

export { has } from './device_put.mjs'
