'use strict'
// audit.js: for each directory named by a line of standard input, says in a line whether all is well with the feed there.
// One process for many of them.

const readline = require('readline')
const { emit, fail, call, open } = require('./lib')

async function audit (dir) {
  const feed = await open(dir, null, { createIfMissing: false, sparse: true })
  try {
    const { valid, invalid } = await call(feed, 'audit')
    const last = feed.length - 1
    const signature = feed.length ? (await call(feed, 'signature', last)).signature : null
    const verified = signature === null || await call(feed, 'verify', last, signature)
    return { length: feed.length, valid, invalid, verified }
  } finally {
    await call(feed, 'close')
  }
}

async function main () {
  for await (const dir of readline.createInterface({ input: process.stdin })) {
    emit('audited', await audit(dir).catch(err => ({ error: String(err) })))
  }
}

main().catch(fail)
