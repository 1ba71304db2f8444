'use strict'
// bench.js ROUNDS PEER [PICTURE] [STORE:WORKLOAD...]: runs Node's feed and ours, whose program is PEER, in turns, and
// prints the medians as a table of Markdown. Draws them into the file PICTURE, an SVG.

const fs = require('fs')
const os = require('os')
const path = require('path')
const { spawn } = require('child_process')

// What is measured, how it is called, the figure that counts, and its unit.
const ROWS = [
  ['disk:A1', 'A1', '10,000 appends of 64 bytes, each awaited', 'ops', '/s'],
  ['ram:A1', 'A1', 'the same in memory', 'ops', '/s'],
  ['disk:A2', 'A2', '100,000 × 64 bytes in batches of 1,000', 'ops', '/s'],
  ['disk:A3', 'A3', '512 MiB in 64 KiB blocks, batches of 64', 'mibs', ' MiB/s'],
  ['disk:M'],
  ['disk:B1', 'B1open', 'open a log of 1,000,000 blocks and get one', 'secs', ' ms'],
  ['disk:B1', 'B1get-1', 'random get of 64 bytes, one by one', 'ops', '/s'],
  ['disk:B1', 'B1get-16', 'the same, 16 in flight', 'ops', '/s'],
  ['disk:B2', 'B2', 'stream of 512 MiB', 'mibs', ' MiB/s'],
  ['disk:C1', 'C1', 'replicate 512 MiB', 'mibs', ' MiB/s'],
  ['ram:C1', 'C1', 'the same in memory', 'mibs', ' MiB/s'],
  ['disk:C2', 'C2', 'replicate 200,000 × 64 bytes', 'ops', '/s'],
  ['ram:C2', 'C2', 'the same in memory', 'ops', '/s'],
  ['ram:L', 'L', 'from append to the reader’s get, median', 'us50', ' µs'],
  ['ram:L', 'L', 'the slowest of a hundred', 'us99', ' µs']
]

const [rounds, program, picture, ...chosen] = process.argv.slice(2)
const dir = process.env.BENCH_DIR
const PEERS = {
  node: [process.execPath, path.join(__dirname, 'bench_peer.js')],
  here: [program]
}
const LIMIT = 120 // seconds for one process; what takes longer is left out

function start (peer, args) {
  const [command, ...first] = PEERS[peer]
  const stdio = ['ignore', 'pipe', 'inherit']
  return spawn(command, [...first, ...args], { stdio, env: { ...process.env, BENCH_DIR: dir } })
}

async function output (child) {
  const timer = setTimeout(() => child.kill('SIGKILL'), LIMIT * 1000)
  let text = ''
  for await (const data of child.stdout) text += data
  clearTimeout(timer)
  return text.split('\n').filter(line => line.startsWith('{')).map(line => JSON.parse(line))
}

async function measure (peer, store, workload) {
  if (!/^[CL]/.test(workload)) return output(start(peer, [store, workload]))
  const server = start(peer, [store, workload, 'server'])
  const timer = setTimeout(() => server.kill('SIGKILL'), 2 * LIMIT * 1000)
  const ready = await new Promise((resolve, reject) => {
    let text = ''
    server.stdout.on('data', data => { if ((text += data).includes('\n')) resolve(text.trim().split(' ')) })
    server.on('exit', () => reject(new Error(`the server of ${workload} ended`)))
  })
  const results = await output(start(peer, [store, workload, 'client', ...ready.slice(1)]))
  clearTimeout(timer)
  server.kill('SIGKILL')
  return results
}

function median (values) {
  return values.sort((a, b) => a - b)[values.length >> 1]
}

function format (value, unit) {
  if (unit === ' ms') return (value * 1000).toFixed(1) + unit
  return Math.round(value).toLocaleString('en') + unit
}

async function main () {
  fs.mkdirSync(dir, { recursive: true })
  const pool = path.join(dir, 'pool.bin')
  if (!fs.existsSync(pool)) fs.writeFileSync(pool, require('crypto').randomBytes(64 << 20))

  const rows = ROWS.filter(([run]) => !chosen.length || chosen.includes(run))
  const figures = {}
  for (let round = 0; round < Number(rounds); round++) {
    for (const run of new Set(rows.map(([run]) => run))) {
      for (const peer of Object.keys(PEERS)) {
        for (const result of await measure(peer, ...run.split(':'))) {
          const name = `${peer} ${run} ${result.wl}`
          figures[name] = [...(figures[name] || []), result]
        }
      }
    }
    process.stderr.write(`round ${round + 1} of ${rounds}\n`)
  }

  const table = []
  for (const [run, workload, text, field, unit] of rows.filter(([, workload]) => workload)) {
    const of = (peer, field) => median((figures[`${peer} ${run} ${workload}`] || []).map(result => result[field]))
    const [node, here] = [of('node', field), of('here', field)]
    if (!node || !here) continue
    const times = /^(secs|us)/.test(field) ? node / here : here / node
    const both = (field, digits) => field in (figures[`here ${run} ${workload}`][0])
      ? `${of('here', field).toFixed(digits)} / ${of('node', field).toFixed(digits)}`
      : ''
    const name = `${run.replace(':', ' ')}: ${text}`
    table.push({ name, node: format(node, unit), here: format(here, unit), times, cpu: both('cpu', 2), rss: both('rss', 0) })
  }
  const load = os.loadavg().map(load => load.toFixed(1)).join(', ')
  console.log(`${os.cpus().length} × ${os.cpus()[0].model.trim()}, Node ${process.version}, load ${load}, medians of ${rounds}\n`)
  console.log('| workload | Node 9 | here | times Node | CPU s, here / Node | MiB, here / Node |')
  console.log('| --- | --- | --- | --- | --- | --- |')
  for (const { name, node, here, times, cpu, rss } of table) {
    console.log(`| ${name} | ${node} | ${here} | ${times.toFixed(1)} | ${cpu} | ${rss} |`)
  }
  if (picture) fs.writeFileSync(picture, draw(table))
}

// One bar for each row: how many times as fast as Node, on a scale that doubles.
function draw (table) {
  const [left, width, height, top] = [350, 330, 24, 44]
  const [least, most] = [0.5, 32]
  const x = times => left + width * Math.log2(Math.min(most, Math.max(least, times)) / least) / Math.log2(most / least)
  const bottom = top + height * table.length
  const text = (x, y, anchor, words) => `<text x="${x}" y="${y}" text-anchor="${anchor}">${words}</text>`
  const lines = []
  for (let times = least; times <= most; times *= 2) {
    const stroke = times === 1 ? '#777' : '#ddd'
    lines.push(`<line x1="${x(times)}" x2="${x(times)}" y1="${top - 6}" y2="${bottom}" stroke="${stroke}"/>`)
    lines.push(text(x(times), top - 12, 'middle', `${times}×`))
  }
  table.forEach(({ name, node, here, times }, i) => {
    const y = top + height * i
    const [from, to] = [x(1), x(times)].sort((a, b) => a - b)
    const colour = times < 1 ? '#c66' : '#48a'
    lines.push(text(left - 12, y + 16, 'end', name))
    lines.push(`<rect x="${from}" y="${y + 4}" width="${to - from}" height="${height - 8}" fill="${colour}"/>`)
    lines.push(text(left + width + 14, y + 16, 'start', `${here} <tspan fill="#777">(Node: ${node})</tspan>`))
  })
  const size = `width="920" height="${bottom + 14}" viewBox="0 0 920 ${bottom + 14}"`
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size} font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#fff"/>
${text(12, 24, 'start', 'How many times as fast as Node’s Hypercore 9')}
${lines.join('\n')}
</svg>
`
}

main().catch(err => { console.error(err); process.exit(1) })
