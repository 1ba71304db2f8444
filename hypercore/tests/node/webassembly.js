'use strict'
// webassembly.js MODULE: has a feed in memory cloned by our peer, which is compiled to WebAssembly and runs in another
// process of Node, and checks that all of it arrived.
//
// webassembly.js --run MODULE ARGUMENT...: is that other process.

const assert = require('assert')
const fs = require('fs')
const { spawn } = require('child_process')
const { pipeline } = require('stream')

const BLOCKS = 1000

async function run ([module, ...args]) {
  const { WASI } = require('wasi')
  const wasi = new WASI({ version: 'preview1', args: [module, ...args], returnOnExit: true })
  const { instance } = await WebAssembly.instantiate(fs.readFileSync(module), wasi.getImportObject())
  process.exit(wasi.start(instance))
}

async function serve ([module]) {
  const feed = require('hypercore')(require('random-access-memory'))
  const blocks = Array.from({ length: BLOCKS }, (_, i) => `block ${i} ${'.'.repeat(i)}`)
  await new Promise((resolve, reject) => feed.append(blocks, err => err ? reject(err) : resolve()))

  const flags = ['--no-warnings', __filename, '--run', module, feed.key.toString('hex')]
  const peer = spawn(process.execPath, flags, { stdio: ['pipe', 'pipe', 'pipe'] })
  const stream = feed.replicate(false, { live: false })
  pipeline(peer.stdout, stream, peer.stdin, () => {})
  let said = ''
  peer.stderr.on('data', data => { said += data })
  const code = await new Promise(resolve => peer.on('close', resolve))

  assert.strictEqual(code, 0, said.slice(0, 1000))
  assert.strictEqual(said, `${feed.byteLength} bytes, the last block is: ${blocks[BLOCKS - 1]}\n`)
  console.log(`${BLOCKS} blocks came through WebAssembly`)
}

const [first, ...rest] = process.argv.slice(2)
const done = first === '--run' ? run(rest) : serve([first])
done.catch(err => { console.error(err); process.exit(1) })
