'use strict'
// mesh.js DIR --key KEY --blocks N [--origin ADDRESS --have A..B,C]: a peer of a mesh, until it is stopped: a sparse clone
// that shares what it has with everyone who connects, and fetches all N blocks, those to come too.
//
// With --origin it first fetches the blocks of --have there, and leaves. Each line of standard input is an address to
// connect to.

const { emit, fail, args, indexes, call, open, close, listen, dial, join, stopped, lines } = require('./lib')

async function main () {
  const opts = args({ key: 'string', blocks: 'number', origin: 'string', have: 'string' })
  const [dir] = opts.positionals
  const feed = await open(dir, Buffer.from(opts.key, 'hex'), { sparse: true })
  const connect = (initiator, socket) => {
    const stream = feed.replicate(initiator, { live: true })
    return { stream, over: join(stream, socket) }
  }

  if (opts.origin) {
    const { stream, over } = connect(true, dial(opts.origin))
    await call(feed, 'download', { blocks: indexes(opts.have) })
    stream.destroy()
    await over
  }

  feed.download({ start: 0, end: opts.blocks }, err => err || emit('whole', { length: feed.length }))
  listen(feed, socket => connect(false, socket))
  lines(process.stdin, addresses => addresses.forEach(address => connect(true, dial(address.toString()))))
  await stopped()
  await close(feed)
  process.exit(0)
}

main().catch(fail)
