'use strict'
// clone.js KEY DIR --connect ADDRESS... [--live] [--finite] [--ack] [--responder]
// [--sparse [--range A..B,C] [--seek BYTE]]: clones a feed from everyone who listens at these addresses.
//
// Ends when everything is here; when everyone is gone; with --sparse, when what was asked for is here; with --live,
// when it is stopped; with --finite, when the connections are over: each ends when neither side has anything left to
// fetch. --responder waits for the other side to start the handshake.

const crypto = require('hypercore-crypto')
const { emit, fail, args, indexes, call, open, close, dial, join, stopped } = require('./lib')

async function main () {
  const opts = args({
    connect: 'list',
    live: 'flag',
    finite: 'flag',
    ack: 'flag',
    responder: 'flag',
    sparse: 'flag',
    range: 'string',
    seek: 'number'
  })
  const [key, dir] = opts.positionals
  const feed = await open(dir, Buffer.from(key, 'hex'), { sparse: !!opts.sparse })
  feed.on('append', () => emit('append', { length: feed.length }))
  feed.on('download', (index, data) => emit('download', { index, hash: crypto.data(data).toString('hex') }))

  const synced = new Promise(resolve => feed.once('sync', resolve))
  const gone = Promise.all(opts.connect.map(address => {
    return join(feed.replicate(!opts.responder, { live: !opts.finite, ack: opts.ack }), dial(address))
  }))

  if (opts.range) await Promise.all(indexes(opts.range).map(index => call(feed, 'get', index)))
  if (opts.seek !== undefined) {
    const [index, offset] = await seek(feed, opts.seek)
    emit('seek', { index, offset })
  }

  if (opts.live) await stopped()
  else if (opts.finite) await gone
  else if (!opts.sparse) await Promise.race([synced, gone])

  emit('synced', { length: feed.length, byteLength: feed.byteLength, downloaded: feed.downloaded() })
  await close(feed)
  process.exit(0)
}

function seek (feed, byte) {
  return new Promise((resolve, reject) => {
    feed.seek(byte, (err, index, offset) => err ? reject(err) : resolve([index, offset]))
  })
}

main().catch(fail)
