'use strict'
// append.js DIR [--blocks SPEC] [--batch N] [--text BLOCK]...: appends to an existing feed.

const { emit, fail, args, sizes, call, open, append } = require('./lib')

async function main () {
  const { positionals: [dir], blocks, batch, text } = args({ blocks: 'string', batch: 'number', text: 'list' })
  const feed = await open(dir, null, { createIfMissing: false, writable: true })
  await append(feed, sizes(blocks), batch)
  if (text) await call(feed, 'append', text.map(block => Buffer.from(block)))
  emit('appended', { length: feed.length, byteLength: feed.byteLength })
  await call(feed, 'close')
}

main().catch(fail)
