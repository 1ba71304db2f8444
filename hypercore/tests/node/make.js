'use strict'
// make.js DIR --seed HEX64 [--blocks SPEC] [--batch N]: a new feed whose key pair follows from the seed.

const crypto = require('hypercore-crypto')
const { emit, fail, args, sizes, call, open, append } = require('./lib')

async function main () {
  const { positionals: [dir], seed, blocks, batch } = args({ seed: 'string', blocks: 'string', batch: 'number' })
  const { publicKey, secretKey } = crypto.keyPair(Buffer.from(seed, 'hex'))
  const feed = await open(dir, publicKey, { secretKey })
  await append(feed, sizes(blocks), batch)
  emit('made', { key: feed.key.toString('hex'), length: feed.length, byteLength: feed.byteLength })
  await call(feed, 'close')
}

main().catch(fail)
