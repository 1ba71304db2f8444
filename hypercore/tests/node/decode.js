'use strict'
// decode.js: what Node's decoders make of any bytes.
//
// Each line of standard input is a JSON list of [KIND, HEX], and is answered by one event with the list of results. KIND is
//   stream  the bytes of a connection in clear: { messages: [[channel, type, message], ...], error }
//   rle     an encoded bitfield: { bits }, { error }, or { error: 'too long' } beyond MAX bytes

const readline = require('readline')
const rle = require('bitfield-rle')
const Protocol = require('simple-hypercore-protocol')
const { emit, fail } = require('./lib')

const TYPES = ['open', 'options', 'status', 'have', 'unhave', 'want', 'unwant', 'request', 'cancel', 'data', 'close']
const MAX = 1 << 16

const decoders = {
  stream (bytes) {
    const messages = []
    let error = null
    const handlers = { noise: false, encrypted: false, send () {}, destroy (err) { error = String(err) } }
    TYPES.forEach((type, number) => {
      handlers['on' + type] = (channel, message) => messages.push([channel, number, plain(message)])
    })
    handlers.onextension = (channel, id, payload) => messages.push([channel, 15, plain({ id, payload })])
    try {
      new Protocol(true, handlers).recv(bytes)
    } catch (err) { // this one would end the process
      error = String(err)
    }
    return { messages, error }
  },

  rle (bytes) {
    if (rle.decodingLength(bytes) > MAX) throw new Error('too long')
    return { bits: rle.decode(bytes).toString('hex') }
  }
}

// Bytes as hexadecimal digits.
function plain (value) {
  if (Buffer.isBuffer(value)) return value.toString('hex')
  if (Array.isArray(value)) return value.map(plain)
  if (value === null || typeof value !== 'object') return value
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, plain(field)]))
}

function decode ([kind, hex]) {
  try {
    return decoders[kind](Buffer.from(hex, 'hex'))
  } catch (err) {
    return { error: err.message }
  }
}

readline.createInterface({ input: process.stdin })
  .on('line', line => emit('decoded', { results: JSON.parse(line).map(decode) }))
  .on('error', fail)
