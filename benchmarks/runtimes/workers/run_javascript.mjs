// ONNX Runtime in JavaScript: onnxruntime-node, or onnxruntime-web's wasm. node run_javascript.mjs ENVIRONMENT PACKAGE FOLDER STEM

import { readFileSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'

const [environment, name, folder, stem] = process.argv.slice(2)
const SECONDS = 2
const TYPES = { float32: Float32Array, uint8: Uint8Array, int32: Int32Array }

function values({ type, data, base64, divide_by = 1 }) {
  const array = TYPES[type]
  if (base64) {
    const bytes = Buffer.from(base64, 'base64')
    return new array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length))
  }
  return array.from(data, x => x / divide_by)
}

const argmax = list => list.indexOf(list.reduce((a, b) => Math.max(a, b)))

function labels(outputs) {
  if (stem !== 'numbers') return [argmax(outputs[0])]
  const count = Math.max(Number(outputs[0][0]), 0)
  return Array.from({ length: count }, (_, i) => argmax(outputs[2].slice(10 * i, 10 * i + 10)))
}

async function measured() {
  const ort = createRequire(join(environment, 'package.json'))(name)
  if (ort.env.wasm) ort.env.wasm.numThreads = 1
  const file = join(folder, `${stem}.onnx`)
  const session = await ort.InferenceSession.create(readFileSync(file), { intraOpNumThreads: 1, interOpNumThreads: 1 })
  const cases = JSON.parse(readFileSync(join(folder, 'golden.json')))[stem]
  const feeds = cases.map(({ input }) => (
    { [session.inputNames[0]]: new ort.Tensor(input.type, values(input), input.shape) }))
  let difference = 0
  let differing = 0
  for (const [i, { outputs }] of cases.entries()) {
    const answer = await session.run(feeds[i])
    const received = session.outputNames.map(output => answer[output].data)
    const expected = outputs.map(values)
    received.forEach((data, k) => data.forEach((x, j) => {
      difference = Math.max(difference, Math.abs(Number(x) - Number(expected[k][j])))
    }))
    differing += `${labels(received)}` === `${labels(expected)}` ? 0 : 1
  }
  let best = Infinity
  const end = performance.now() + 1e3 * SECONDS
  do {
    const start = performance.now()
    for (let i = 0; i < 10; i++) await session.run(feeds[0])
    best = Math.min(best, (performance.now() - start) / 10)
  } while (performance.now() < end)
  const { version } = JSON.parse(readFileSync(join(environment, 'node_modules', name, 'package.json')))
  return { version, bytes: statSync(file).size, cases: cases.length, difference, labels_differing: differing, ms: best }
}

let result
try {
  result = await measured()
} catch (error) {
  result = { reason: `${error.message ?? error}`.slice(0, 400) }
}
console.log(`\n${JSON.stringify(result)}`)
process.exit(0)
