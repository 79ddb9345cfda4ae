// digits.onnx and sketch.onnx with onnxruntime-node, compared with the golden vectors.
// node main.mjs [CHECKPOINT_DIR]

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import ort from 'onnxruntime-node'
import { agreement } from '../golden.mjs'

const folder = process.argv[2] ?? fileURLToPath(new URL('../../checkpoints/lecture', import.meta.url))
const golden = JSON.parse(await readFile(join(folder, 'golden.json'), 'utf8'))

for (const stem of ['digits', 'sketch']) {
  const session = await ort.InferenceSession.create(join(folder, `${stem}.onnx`))
  const { agrees, line } = await agreement(ort, `${stem}.onnx`, session, golden[stem])
  console.log(line)
  if (!agrees) process.exitCode = 1
}
