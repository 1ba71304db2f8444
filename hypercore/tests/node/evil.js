'use strict'
// evil.js DIR --lie KIND [--after N] [--connect ADDRESS]: a peer that has a feed, speaks the protocol and lies.
//
// It listens, or connects with --connect. The first N answers are honest. KIND is one of
//   capability  the feed is opened without a proof of knowing its key
//   value       a byte of the block is changed
//   length      a byte is added to the block
//   hash        a hash of the proof is changed
//   size        a size of the proof is changed
//   signature   the signature is changed
//   roots       a changed block whose proof stops below the roots, with the true roots and the true signature
//   empty       the same, with an empty block (Node itself believes this one)

const { emit, fail, args, call, open, listen, dial, join, stopped } = require('./lib')

async function main () {
  const opts = args({ lie: 'string', after: 'number', connect: 'string' })
  const feed = await open(opts.positionals[0], null, { createIfMissing: false })
  const truth = {
    nodes: await call(feed, 'rootHashes', feed.length - 1),
    signature: (await call(feed, 'signature', feed.length - 1)).signature
  }

  const attach = (initiator, socket) => {
    const stream = feed.replicate(initiator, { live: true })
    corrupt(stream, truth, opts)
    return join(stream, socket)
  }
  if (opts.connect) await attach(true, dial(opts.connect))
  else listen(feed, socket => attach(false, socket))
  await stopped()
  process.exit(0)
}

function corrupt (stream, truth, { lie, after = 0 }) {
  // What the other side says: nothing, to one who does not know the key.
  for (const type of ['options', 'status', 'have', 'want', 'request', 'data']) {
    const receive = stream.channelizer['on' + type]
    stream.channelizer['on' + type] = function (id, message) {
      emit('recv', { type })
      receive.call(this, id, message)
    }
  }

  if (lie === 'capability') {
    const wrong = Buffer.alloc(32, 7)
    stream.state.capability = () => wrong
  } else {
    let answers = 0
    const send = stream.state.data
    stream.state.data = function (id, message) {
      const changed = answers++ < after ? null : LIES[lie](message, truth)
      if (changed) emit('lie', { index: message.index })
      return send.call(this, id, changed || message)
    }
  }
}

// Each makes a false answer of a true one, or null where this answer has nothing to falsify.
const LIES = {
  value: message => message.value && message.value.length
    ? { ...message, value: flip(message.value) }
    : null,
  length: message => message.value
    ? { ...message, value: Buffer.concat([message.value, Buffer.from([0])]) }
    : null,
  hash: message => message.nodes.length
    ? { ...message, nodes: message.nodes.map(node => ({ ...node, hash: flip(node.hash) })) }
    : null,
  size: message => message.nodes.length
    ? { ...message, nodes: message.nodes.map(node => ({ ...node, size: node.size + 1 })) }
    : null,
  signature: message => message.signature
    ? { ...message, signature: flip(message.signature) }
    : null,
  roots: (message, truth) => message.value && message.value.length
    ? { ...message, ...truth, value: flip(message.value) }
    : null,
  empty: (message, truth) => message.value
    ? { ...message, ...truth, value: Buffer.alloc(0) }
    : null
}

function flip (bytes) {
  const copy = Buffer.from(bytes)
  copy[0] ^= 1
  return copy
}

main().catch(fail)
