'use strict'
// What the scripts share: events, options, deterministic blocks, opening a feed, connections, and the end.
//
// Names of events and of options are those of the `hypercore` command line where it has them.

const net = require('net')
const { parseArgs } = require('util')
const hypercore = require('hypercore')
const ram = require('random-access-memory')

// One event is one line of JSON on standard output.
function emit (event, fields) {
  process.stdout.write(JSON.stringify({ event, ...fields }) + '\n')
}

// Errors go to standard error. A lock that is held has the exit code it has in the `hypercore` command line.
function fail (err) {
  process.stderr.write((err.stack || String(err)) + '\n')
  process.exit(err.code === 'ELOCKED' ? 5 : 1)
}

process.on('uncaughtException', fail)
process.on('unhandledRejection', fail)

// `args({ port: 'number', live: 'flag', connect: 'list' })` reads the command line; a missing option is undefined.
function args (kinds) {
  const options = {}
  for (const [name, kind] of Object.entries(kinds)) {
    options[name] = { type: kind === 'flag' ? 'boolean' : 'string', multiple: kind === 'list' }
  }
  const { values, positionals } = parseArgs({ options, allowPositionals: true })
  for (const [name, kind] of Object.entries(kinds)) {
    if (kind === 'number' && name in values) values[name] = Number(values[name])
  }
  return { ...values, positionals }
}

// '4*11,1*0' is four blocks of 11 bytes and an empty one: [11, 11, 11, 11, 0].
function sizes (spec) {
  const all = []
  for (const run of (spec || '').split(',').filter(Boolean)) {
    const [count, size] = run.split('*').map(Number)
    for (let i = 0; i < count; i++) all.push(size)
  }
  return all
}

// The content of a block follows from its index and size alone (blocks.rs makes the same): the top bytes of a
// linear congruential generator. No line feed or carriage return, so that a block can also be a line of text.
function block (index, size) {
  const bytes = Buffer.allocUnsafe(size)
  let state = Math.imul(index, 2654435761) + 1
  for (let i = 0; i < size; i++) {
    state = Math.imul(state, 1664525) + 1013904223
    const byte = state >>> 24
    bytes[i] = byte === 0x0a || byte === 0x0d ? byte ^ 0x10 : byte
  }
  return bytes
}

// 'A..B,C' is [A, .., B - 1, C].
function indexes (ranges) {
  const all = []
  for (const range of ranges.split(',')) {
    const [start, end] = range.split('..').map(Number)
    for (let i = start; i < (end === undefined ? start + 1 : end); i++) all.push(i)
  }
  return all
}

// Calls a function that takes a callback last, and promises its answer.
function call (object, method, ...given) {
  return new Promise((resolve, reject) => {
    object[method](...given, (err, value) => err ? reject(err) : resolve(value))
  })
}

// A file with this content, in pages of which only those that are needed take memory.
function file (bytes) {
  const PAGE = 4096
  const file = ram({ pageSize: PAGE })
  file.length = bytes.length
  for (let at = 0; at < bytes.length; at += PAGE) {
    const page = Buffer.alloc(PAGE)
    bytes.copy(page, 0, at)
    file.buffers.push(page)
  }
  return file
}

async function open (dir, key, opts) {
  const feed = hypercore(dir, key, opts)
  feed.on('error', () => {}) // `ready` reports it too
  await call(feed, 'ready')
  return feed
}

// Appends blocks of these sizes, `batch` at a time: one signature each.
async function append (feed, all, batch = all.length) {
  const start = feed.length
  for (let i = 0; i < all.length; i += batch) {
    const blocks = all.slice(i, i + batch).map((size, k) => block(start + i + k, size))
    await call(feed, 'append', blocks)
  }
}

// Listens on a free port. `attach(socket)` gets every connection.
function listen (feed, attach) {
  const server = net.createServer(attach)
  server.listen(0, '127.0.0.1', () => {
    emit('listening', { address: `127.0.0.1:${server.address().port}`, key: feed.key.toString('hex') })
  })
}

function dial (address) {
  const [host, port] = address.split(':')
  return net.connect(Number(port), host)
}

// Joins a protocol stream and a socket; resolves when the connection is over. A broken connection is told, not thrown:
// another peer may still have everything.
function join (stream, socket) {
  emit('peer-open', {})
  return new Promise(resolve => {
    let reason = null
    stream.on('ack', ({ start, length }) => emit('ack', { start, length }))
    stream.on('error', err => { reason = err.message })
    stream.on('close', () => {
      socket.destroySoon()
      emit('peer-close', { reason })
      resolve()
    })
    socket.on('error', err => stream.destroy(err))
    socket.on('close', () => stream.destroy())
    stream.pipe(socket).pipe(stream)
  })
}

// Closes a feed so that all of it is on disk: `close` alone does not wait for the bits of the last downloads.
async function close (feed) {
  await call(feed, 'audit')
  await call(feed, 'close')
}

// Resolves at SIGTERM, or when standard input ends: a script does not outlive the test that started it.
function stopped () {
  return new Promise(resolve => {
    process.once('SIGTERM', resolve)
    process.stdin.resume().on('end', resolve)
  })
}

// Whole lines of a readable stream, as arrays of buffers: what arrived together comes together.
function lines (readable, onlines) {
  let rest = ''
  readable.setEncoding('latin1')
  readable.on('data', text => {
    const parts = (rest + text).split('\n')
    rest = parts.pop()
    if (parts.length) onlines(parts.map(part => Buffer.from(part, 'latin1')))
  })
}

module.exports = { emit, fail, args, sizes, block, indexes, call, file, open, append, close, listen, dial, join, stopped, lines }
