'use strict'
// check.js DIR [--blocks SPEC]: opens a feed and judges everything in it.
//
// `valid` and `invalid` are Node's own audit. `wrong` lists blocks that differ from SPEC. `verified` says that the
// newest signature holds, over the roots as stored and, where every block is here, over roots computed anew; or, of a
// whole static feed, that the key is their hash.

const crypto = require('hypercore-crypto')
const Merkle = require('merkle-tree-stream/generator')
const { emit, fail, args, sizes, block, call, open } = require('./lib')

async function main () {
  const { positionals: [dir], blocks } = args({ blocks: 'string' })
  const feed = await open(dir, null, { createIfMissing: false, sparse: true })
  const downloaded = feed.downloaded()
  const { valid, invalid } = await call(feed, 'audit')

  const merkle = new Merkle(crypto)
  const expected = blocks === undefined ? null : sizes(blocks)
  const wrong = []
  const whole = downloaded === feed.length && feed.length ? await call(feed, 'getBatch', 0, feed.length) : null
  for (let i = 0; i < feed.length; i++) {
    if (!feed.has(i)) continue
    const data = whole ? whole[i] : await call(feed, 'get', i)
    if (expected && !(i < expected.length && data.equals(block(i, expected[i])))) wrong.push(i)
    merkle.next(data)
  }

  const signature = feed.length && feed.live ? (await call(feed, 'signature', feed.length - 1)).signature : null
  let verified = signature === null && (feed.live || !whole || crypto.tree(merkle.roots).equals(feed.key))
  if (signature) {
    verified = await call(feed, 'verify', feed.length - 1, signature)
    if (whole) {
      verified = verified && crypto.verify(crypto.signable(merkle.roots, feed.length), signature, feed.key)
    }
  }

  emit('checked', {
    key: feed.key.toString('hex'),
    length: feed.length,
    byteLength: feed.byteLength,
    writable: feed.writable,
    downloaded,
    valid,
    invalid,
    wrong,
    signature: signature && signature.toString('hex'),
    verified
  })
  await call(feed, 'close')
}

main().catch(fail)
