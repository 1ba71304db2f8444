'use strict'
// open.js: what Node's Hypercore makes of any six files, and of any bytes in them.
//
// Each line of standard input is a JSON list of directories, each of them { NAME: HEX, ... } with the files that it has. Each is
// answered by one event: { error }, or { key, length, byteLength, blocks: { INDEX: HEX, ... } } with all blocks that it claims to
// have, null in place of one that cannot be read. What Node does not catch ends the process.

const readline = require('readline')
const hypercore = require('hypercore')
const { emit, fail, call, file } = require('./lib')

async function open (files) {
  const feed = hypercore(name => file(Buffer.from(files[name] || '', 'hex')), null, { createIfMissing: false, sparse: true })
  feed.on('error', () => {}) // `ready` reports it too
  try {
    await call(feed, 'ready')
  } catch (err) {
    return { error: err.message }
  }
  const blocks = {}
  const end = Math.max(feed.length, feed.bitfield.length)
  for (let index = 0; index < end; index++) {
    if (feed.has(index)) blocks[index] = await read(feed, index)
  }
  const { key, length, byteLength } = feed
  return { key: key.toString('hex'), length, byteLength, blocks }
}

async function read (feed, index) {
  try {
    return (await call(feed, 'get', index, { wait: false })).toString('hex')
  } catch (err) {
    return null
  }
}

async function openAll (directories) {
  for (const files of directories) emit('opened', await open(files))
}

readline.createInterface({ input: process.stdin }).on('line', line => openAll(JSON.parse(line)).catch(fail))
