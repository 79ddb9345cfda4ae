// A drawing sheet read by sketch.onnx. Input: RGBA bytes. Outputs: probabilities, the 28×28 digit, the share of ink.
// ?model=FOLDER: another checkpoint folder, relative to this page.

import { agreement } from '../golden.mjs'

const folder = new URLSearchParams(location.search).get('model') ?? '../../checkpoints/lecture'
const [sheet, label, seen, bars, clear, golden] = ['sheet', 'label', 'digit', 'bars', 'clear', 'golden']
  .map(id => document.getElementById(id))
const pen = sheet.getContext('2d', { willReadFrequently: true })
const scheme = matchMedia('(prefers-color-scheme: dark)')
let strokes = [] // each a list of points, in canvas pixels
let drawing = null // the pointer that draws
let ort, session

// ---- the answer

async function read() {
  const { data, width, height } = pen.getImageData(0, 0, sheet.width, sheet.height)
  const canvas = new ort.Tensor('uint8', new Uint8Array(data.buffer), [height, width, 4])
  const { probabilities, digit, ink } = await session.run({ canvas })
  show(probabilities.data, digit.data, ink.data[0] === 0)
}

let stale = false // the sheet has changed since it was last read
let reading = false

/** Reads the sheet, and repeats this while the sheet changes, so that the answer follows the pen. */
async function changed() {
  stale = true
  if (reading || !session) return
  reading = true
  while (stale) {
    stale = false
    await read()
    await new Promise(requestAnimationFrame)
  }
  reading = false
}

function show(probabilities, digit, blank) {
  const top = probabilities.indexOf(Math.max(...probabilities))
  label.textContent = blank ? '–' : top
  probabilities.forEach((p, i) => {
    const bar = bars.children[i]
    bar.className = !blank && i === top ? 'top' : ''
    bar.querySelector('i').style.setProperty('--p', blank ? 0 : p)
    bar.querySelector('b').textContent = blank ? '' : `${Math.round(p * 100)}%`
  })
  const image = new ImageData(28, 28)
  digit.forEach((value, i) => image.data.set([value * 255, value * 255, value * 255, 255], i * 4))
  seen.getContext('2d').putImageData(image, 0, 0)
}

// ---- the pen: its ink has the text colour, light or dark, on a transparent sheet; the model accepts both

function point(event) {
  const box = sheet.getBoundingClientRect()
  const scale = sheet.width / box.width
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale]
}

function redraw() {
  pen.clearRect(0, 0, sheet.width, sheet.height)
  Object.assign(pen, { lineWidth: 26, lineCap: 'round', lineJoin: 'round', strokeStyle: getComputedStyle(sheet).color })
  for (const stroke of strokes) {
    pen.beginPath()
    pen.moveTo(...stroke[0])
    for (const to of stroke) pen.lineTo(...to)
    pen.stroke()
  }
  document.querySelector('main').classList.toggle('drawn', strokes.length > 0)
  clear.disabled = strokes.length === 0
  changed()
}

sheet.addEventListener('pointerdown', event => {
  if (drawing !== null || event.button !== 0) return
  drawing = event.pointerId
  sheet.setPointerCapture(drawing)
  strokes.push([point(event)])
  redraw()
})
sheet.addEventListener('pointermove', event => {
  if (event.pointerId !== drawing) return
  const between = event.getCoalescedEvents?.() ?? []
  strokes.at(-1).push(...(between.length ? between : [event]).map(point))
  redraw()
})
for (const end of ['pointerup', 'pointercancel', 'lostpointercapture']) {
  sheet.addEventListener(end, event => { if (event.pointerId === drawing) drawing = null })
}
clear.addEventListener('click', () => { strokes = []; redraw() })
scheme.addEventListener('change', redraw)

// ---- the start

for (let i = 0; i < 10; i++) {
  const bar = document.createElement('li')
  bar.append(i, document.createElement('i'), document.createElement('b'))
  bars.append(bar)
}

try {
  ort = await import('./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs')
  session = await ort.InferenceSession.create(`${folder}/sketch.onnx`)
  redraw()
  const vectors = await (await fetch(`${folder}/golden.json`)).json()
  const results = []
  for (const stem of ['sketch', 'digits']) {
    const file = await ort.InferenceSession.create(`${folder}/${stem}.onnx`)
    results.push(await agreement(ort, `${stem}.onnx`, file, vectors[stem]))
  }
  golden.textContent = results.map(({ agrees, line }) => `${agrees ? '✓' : '✗'} ${line}`).join('\n')
  golden.className = results.every(result => result.agrees) ? 'agrees' : 'wrong'
} catch (error) {
  golden.textContent = `${error.message ?? error}\nRun \`npm install\` in examples/browser, and start the server in the repository's root.`
  golden.className = 'wrong'
}
