// A device that speaks CouchDB's protocol by hand: one PUT of one document, nothing else. The cheapest honest use.
import { Agent, request } from 'node:http'

function ask(port, method, id, body) {
  return new Promise((resolve, reject) => {
    const agent = new Agent({ keepAlive: false })
    const headers = body === undefined ? {} : { 'Content-Type': 'application/json', 'Content-Length': body.length }
    const path = `/registers/${encodeURIComponent(id)}`
    const asked = request({ host: '127.0.0.1', port, method, path, headers, agent }, (reply) => {
      const pieces = []
      reply.on('data', (piece) => pieces.push(piece))
      reply.on('end', () => {
        const text = Buffer.concat(pieces).toString()
        if (reply.statusCode < 300) resolve(JSON.parse(text))
        else if (reply.statusCode === 404) resolve(null)
        else reject(new Error(`${reply.statusCode} ${text}`))
      })
    })
    asked.setTimeout(60_000, () => asked.destroy(new Error('no answer within 60 s')))
    asked.on('error', reject)
    asked.end(body)
  })
}

const put = (port, id, doc) => ask(port, 'PUT', id, Buffer.from(JSON.stringify(doc)))

export async function push(port, register) {
  const { rev } = await put(port, register.id, { marks: register.marks })
  return [null, rev]
}

export async function correct(port, register, rev) {
  await put(port, register.id, { _rev: rev, marks: { ...register.marks, ...register.later } })
}

export async function has(port, register) {
  const doc = await ask(port, 'GET', register.id)
  return Object.keys(doc?.marks ?? {}).length === Object.keys(register.marks).length
}
