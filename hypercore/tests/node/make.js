'use strict'
// make.js DIR (--seed HEX64 | --static) [--blocks SPEC] [--batch N]: a new feed whose key pair follows from the seed, or
// one that nobody signs, with the hash of all blocks for a key.

const crypto = require('hypercore-crypto')
const { emit, fail, args, sizes, call, open, append } = require('./lib')

async function main () {
  const opts = args({ seed: 'string', static: 'flag', blocks: 'string', batch: 'number' })
  const { positionals: [dir], seed, blocks, batch } = opts
  const { publicKey, secretKey } = seed ? crypto.keyPair(Buffer.from(seed, 'hex')) : {}
  const feed = await open(dir, publicKey, { secretKey, live: !opts.static })
  await append(feed, sizes(blocks), batch)
  if (opts.static) await call(feed, 'finalize')
  emit('made', { key: feed.key.toString('hex'), length: feed.length, byteLength: feed.byteLength })
  await call(feed, 'close')
}

main().catch(fail)
