'use strict'
// lock.js DIR: opens a feed, and so holds its lock, until it is stopped.

const { emit, fail, args, call, open, stopped } = require('./lib')

async function main () {
  const { positionals: [dir] } = args({})
  const feed = await open(dir, null, { createIfMissing: false })
  emit('locked', {})
  await stopped()
  await call(feed, 'close')
  process.exit(0)
}

main().catch(fail)
