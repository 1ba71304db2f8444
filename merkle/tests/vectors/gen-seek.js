// Answers of hypercore 9.12.0 Feed._seek on complete and sparse trees of 11 blocks.
const hypercore = require('hypercore')
const flat = require('flat-tree')
const sizes = [5, 0, 3, 0, 0, 7, 1, 2, 4, 6, 9]
const n = sizes.length
const size = i => { let s = 0; for (let b = flat.leftSpan(i) / 2; b <= flat.rightSpan(i) / 2; b++) s += sizes[b]; return s }
const all = []
for (let i = 0; i < 2 * n; i++) if (flat.rightSpan(i) < 2 * n) all.push(i)
const roots = flat.fullRoots(2 * n)
let x = 3
const rnd = m => { x = (x * 1103515245 + 12345) % 2147483648; return Math.floor(x / 65536) % m }
const states = [all, roots]
for (let k = 0; k < 30; k++) states.push(all.filter(i => roots.includes(i) || rnd(3) === 0))
const out = []
for (const nodes of states) {
  const rows = []
  for (let offset = 0; offset <= 40; offset++) {
    const feed = { length: n, tree: { get: i => nodes.includes(i) }, _storage: { getNode: (i, cb) => cb(null, { index: i, size: size(i) }) } }
    hypercore.prototype._seek.call(feed, offset, (err, index, rest) => {
      rows.push(err ? [offset, -1, 0] : [offset, index, rest])
    })
  }
  out.push({ nodes, rows })
}
const head = { about: 'hypercore 9.12.0 Feed._seek on trees of 11 blocks of which only some nodes are known. rows: [byte offset, tree index found, rest of the offset]; index -1: Out of bounds', sizes }
console.log(JSON.stringify(head).slice(0, -1) + ',"states":[\n' + out.map(s => JSON.stringify(s)).join(',\n') + '\n]}')
