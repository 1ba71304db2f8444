'use strict'
// bench_peer.js ram|disk WORKLOAD [server | client PORT KEY]: the same workloads as examples/bench_peer.rs, which
// describes them, for Node's feed. Takes the same directory from BENCH_DIR and prints the same lines.

const fs = require('fs')
const net = require('net')
const path = require('path')
const hypercore = require('hypercore')
const ram = require('random-access-memory')

const POOL = 64 << 20
const WORKLOADS = {
  A1: [10000, 64, 1],
  A2: [100000, 64, 1000],
  A3: [8192, 65536, 64],
  B2: [8192, 65536, 64],
  C1: [8192, 65536, 64],
  M: [1000000, 64, 1000],
  B1: [1000000, 64, 1000],
  C2: [200000, 64, 1000],
  L: [0, 64, 1]
}
const MIB = 1 << 20

const [store, name, role = '', port, key] = process.argv.slice(2)
const dir = process.env.BENCH_DIR
const pool = fs.readFileSync(path.join(dir, 'pool.bin'))

function call (feed, method, ...given) {
  return new Promise((resolve, reject) => {
    feed[method](...given, (err, value) => err ? reject(err) : resolve(value))
  })
}

async function open (what, key, fresh) {
  const place = path.join(dir, `node9-${what}`)
  if (store === 'disk' && fresh) fs.rmSync(place, { recursive: true, force: true })
  const feed = hypercore(store === 'ram' ? ram : place, key)
  await call(feed, 'ready')
  return feed
}

async function fill (feed, workload) {
  const [count, size, batch] = WORKLOADS[workload]
  while (feed.length < count) {
    const blocks = []
    for (let i = feed.length; i < Math.min(count, feed.length + batch); i++) {
      const start = i * size % POOL
      blocks.push(pool.subarray(start, start + size))
    }
    await call(feed, 'append', batch === 1 ? blocks[0] : blocks)
  }
}

function print (result) {
  console.log(JSON.stringify({ peer: 'node9', store, ...result }))
}

function clock () {
  const [cpu, wall] = [process.cpuUsage(), process.hrtime.bigint()]
  return (wl, n, bytes) => {
    const secs = Number(process.hrtime.bigint() - wall) / 1e9
    const { user, system } = process.cpuUsage(cpu)
    const rss = Math.round(process.resourceUsage().maxRSS / 1024)
    print({ wl, role, n, bytes, secs, cpu: (user + system) / 1e6, ops: n / secs, mibs: bytes / secs / MIB, rss })
  }
}

async function append () {
  const feed = await open(name, null, true)
  const report = clock()
  await fill(feed, name)
  report(name, feed.length, feed.byteLength)
  await call(feed, 'close')
}

// A xorshift64 generator, so that every peer reads the same blocks.
function random () {
  let state = 88172645463325252n
  return bound => {
    state = BigInt.asUintN(64, state ^ (state << 13n))
    state ^= state >> 7n
    state = BigInt.asUintN(64, state ^ (state << 17n))
    return Number(state % BigInt(bound))
  }
}

async function read () {
  const opened = clock()
  const feed = await open(name === 'B1' ? 'M' : 'A3', null, false)
  if (store === 'ram') await fill(feed, name)
  await call(feed, 'get', feed.length / 2)
  if (name === 'B2') {
    const report = clock()
    let bytes = 0
    for await (const block of feed.createReadStream()) bytes += block.length
    return report('B2', feed.length, bytes)
  }
  opened('B1open', 1, 64)
  const next = random()
  for (const together of [1, 16]) {
    const indexes = Array.from({ length: 100000 }, () => next(feed.length))
    const report = clock()
    for (let i = 0; i < indexes.length; i += together) {
      await Promise.all(indexes.slice(i, i + together).map(index => call(feed, 'get', index)))
    }
    report(`B1get-${together}`, indexes.length, 64 * indexes.length)
  }
}

async function serve () {
  const feed = await open(`repl-${name}-server`, null, name === 'L')
  await fill(feed, name)
  const server = net.createServer(socket => {
    socket.setNoDelay(true)
    socket.on('error', () => {})
    socket.pipe(feed.replicate(false, { live: true })).on('error', () => {}).pipe(socket)
    if (name === 'L') setTimeout(appendNow, 1000, feed, 1100)
  })
  server.listen(0, '127.0.0.1', () => console.log(`READY ${server.address().port} ${feed.key.toString('hex')}`))
}

function appendNow (feed, left) {
  const block = Buffer.alloc(64)
  block.writeBigUInt64LE(process.hrtime.bigint())
  feed.append(block)
  if (left > 1) setTimeout(appendNow, 5, feed, left - 1)
}

async function clone () {
  const [count, size] = WORKLOADS[name]
  const feed = await open(`repl-${name}-client`, Buffer.from(key, 'hex'), true)
  const socket = net.connect(Number(port), '127.0.0.1')
  socket.setNoDelay(true)
  await new Promise(resolve => socket.on('connect', resolve))
  const report = clock()
  socket.pipe(feed.replicate(true, { live: true })).pipe(socket)
  if (name === 'L') {
    const delays = []
    for (let i = 0; i < 1100; i++) {
      const block = await call(feed, 'get', i)
      delays.push(Number((process.hrtime.bigint() - block.readBigUInt64LE()) / 1000n))
    }
    const sorted = delays.slice(100).sort((a, b) => a - b)
    return print({ wl: 'L', role, us50: sorted[500], us99: sorted[990] })
  }
  let stored = 0
  await new Promise(resolve => feed.on('download', () => { if (++stored === count) resolve() }))
  report(name, count, count * size)
}

const work = role === 'server' ? serve : role === 'client' ? clone : name.startsWith('B') ? read : append
work().then(() => role !== 'server' && process.exit(0))
