'use strict'
// serve.js DIR [--finite] [--ack] [--lines] [--initiator] [--origin ADDRESS --key KEY (--have A..B,C | --part K/N)]:
// shares a feed with everyone who connects, until it is stopped.
//
// --finite ends a connection when neither side has anything left to fetch. --lines appends the lines of standard input. --initiator starts the handshake although the other side connected.
// With --origin, DIR becomes a sparse clone of KEY that first fetches the blocks it is to hold: those of --have, or
// every Nth from K on.

const { emit, fail, args, indexes, call, open, close, listen, dial, join, stopped, lines } = require('./lib')

async function main () {
  const opts = args({
    finite: 'flag',
    ack: 'flag',
    lines: 'flag',
    initiator: 'flag',
    origin: 'string',
    key: 'string',
    have: 'string',
    part: 'string'
  })
  const [dir] = opts.positionals
  const feed = opts.origin ? await fetchPart(dir, opts) : await open(dir, null, { createIfMissing: false })
  feed.on('upload', index => emit('upload', { index }))
  feed.on('append', () => emit('append', { length: feed.length }))

  listen(feed, socket => join(feed.replicate(!!opts.initiator, { live: !opts.finite, ack: opts.ack }), socket))
  if (opts.lines) lines(process.stdin, blocks => feed.append(blocks, err => err && fail(err)))
  await stopped()
  await close(feed)
  process.exit(0)
}

async function fetchPart (dir, { origin, key, have, part }) {
  const feed = await open(dir, Buffer.from(key, 'hex'), { sparse: true })
  const stream = feed.replicate(true, { live: true })
  const over = join(stream, dial(origin))

  await call(feed, 'update')
  let blocks
  if (have) {
    blocks = indexes(have)
  } else {
    const [k, n] = part.split('/').map(Number)
    blocks = indexes(`0..${feed.length}`).filter(index => index % n === k)
  }
  await call(feed, 'download', { blocks })

  stream.destroy()
  await over
  return feed
}

main().catch(fail)
