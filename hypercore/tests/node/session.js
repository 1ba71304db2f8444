'use strict'
// session.js: what Node's Hypercore does when a peer sends it any bytes.
//
// Each line of standard input is a JSON object, and is answered by one event.
//   { files: { NAME: HEX, ... }, gets: [INDEX, ...], bytes: HEX } opens a sparse feed of these files, asks for these blocks, and
//     lets a peer connect to it that begins with these bytes: the event `began`, { out }, tells what the feed says to that.
//   { steps: [HEX, ...] } goes on, one step after the other, each once all of the last one is done, and ends it. The event
//     `went` has { states }, for each step { out, over, error, length, blocks: { INDEX: HEX, ... }, digests: [...] }, the last
//     of each block below END. `over` is null while it goes on; `closed` or `failed`; `crashed` if something was thrown that
//     nobody catches, which would end the process; `hung` if a message is still worked on after HUNG ms, which may take years.
//     Steps after that are not made.

const readline = require('readline')
const vm = require('vm')
const hypercore = require('hypercore')
const { emit, fail, call, file } = require('./lib')

// Far above what a loaded machine needs.
const HUNG = 3000

// Above all blocks there are.
const END = 64

Math.random = () => 0 // whom and what it asks first

process.removeAllListeners('uncaughtException')
process.on('uncaughtException', err => session.over('crashed', err))

let session = null
const deliver = new vm.Script('deliver()')

// Memory answers before the next turn of the loop, and so does all that follows.
async function settle () {
  for (let i = 0; i < 3; i++) await new Promise(resolve => setImmediate(resolve))
}

class Session {
  constructor (files) {
    this.feed = hypercore(name => file(Buffer.from(files[name] || '', 'hex')), { sparse: true })
    this.feed.on('error', () => {}) // `ready` reports it too
    this.stream = this.end = this.error = null
    this.out = []
  }

  async begin (gets) {
    await call(this.feed, 'ready')
    for (const index of gets) this.feed.get(index, () => {})
    this.stream = this.feed.replicate(false, { live: true, timeout: false })
      .on('data', bytes => this.out.push(bytes))
      .on('error', err => this.over('failed', err))
      .on('end', () => this.over('closed'))
      .on('close', () => this.over('closed'))
  }

  // The first end is the one that counts.
  over (how, err) {
    if (this.end) return
    this.end = how
    this.error = err ? String(err) : null
  }

  async receive (hex) {
    const bytes = Buffer.from(hex, 'hex')
    // As the stream calls it, so that a loop without end can be left.
    globalThis.deliver = () => this.stream._write(bytes, () => {})
    try {
      deliver.runInThisContext({ timeout: HUNG })
    } catch (err) {
      this.over(err.code === 'ERR_SCRIPT_EXECUTION_TIMEOUT' ? 'hung' : 'crashed', err)
    }
    await settle()
    return Buffer.concat(this.out.splice(0)).toString('hex')
  }

  async step (hex) {
    const out = await this.receive(hex)
    const state = { out, over: this.end, error: this.error, length: this.feed.length, blocks: {}, digests: [] }
    if (this.end === 'hung' || this.end === 'crashed') return state
    for (let index = 0; index < END; index++) {
      if (this.feed.bitfield.get(index)) state.blocks[index] = await this.read(index)
      state.digests.push(this.feed.digest(index))
    }
    return state
  }

  async read (index) {
    try {
      return (await call(this.feed, 'get', index, { wait: false })).toString('hex')
    } catch (err) {
      return null
    }
  }

  // What it throws now is its own.
  async finish () {
    this.over('closed')
    this.stream.destroy()
    this.feed.close(() => {})
    await settle()
  }
}

async function handle ({ files, gets, bytes, steps }) {
  if (files) {
    session = new Session(files)
    await session.begin(gets)
    return emit('began', { out: await session.receive(bytes) })
  }
  const states = []
  for (const hex of steps) {
    states.push(await session.step(hex))
    if (session.end) break
  }
  await session.finish()
  emit('went', { states })
}

let last = Promise.resolve()
readline.createInterface({ input: process.stdin }).on('line', line => {
  last = last.then(() => handle(JSON.parse(line))).catch(fail)
})
