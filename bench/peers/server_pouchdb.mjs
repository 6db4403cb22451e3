// express-pouchdb, a server that speaks CouchDB's protocol over LevelDB, in the mode its readme calls the minimum.
// node server_pouchdb.mjs FOLDER PORT
import { sep } from 'node:path'
import express from 'express'
import expressPouchDB from 'express-pouchdb'
import PouchDB from 'pouchdb'

const [folder, port] = process.argv.slice(2)
const Stored = PouchDB.defaults({ prefix: folder + sep })
const app = express()
app.use('/', expressPouchDB(Stored, { mode: 'minimumForPouchDB' }))
const registers = new Stored('registers')
await registers.info()
const server = app.listen(Number(port), '127.0.0.1', () => console.log('ready'))
process.on('SIGTERM', async () => {
  server.close()
  await registers.close()
  process.exit(0)
})
