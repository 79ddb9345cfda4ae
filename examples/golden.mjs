// Compare a file with its golden vectors, in Node and the browser: `ort` is onnxruntime-node or onnxruntime-web.

const TOLERANCE = 1e-5

function tensor(ort, { shape, type, data, divide_by = 1 }) {
  const values = type === 'uint8' ? Uint8Array.from(data) : Float32Array.from(data, x => x / divide_by)
  return new ort.Tensor(type, values, shape)
}

const argmax = values => values.indexOf(values.reduce((a, b) => Math.max(a, b)))

/** Runs `session` on the golden inputs: whether it agrees with the golden outputs, and a line with the differences. */
export async function agreement(ort, name, session, cases) {
  let largest = 0
  let differing = 0
  for (const { input, outputs } of cases) {
    const answer = await session.run({ [session.inputNames[0]]: tensor(ort, input) })
    if (outputs.length !== session.outputNames.length) throw new Error(`${name}: wrong number of outputs`)
    outputs.forEach((output, i) => {
      const received = answer[session.outputNames[i]]
      const expected = tensor(ort, output)
      if (`${received.dims}` !== `${expected.dims}`) throw new Error(`${name}: an output has the wrong shape`)
      received.data.forEach((value, j) => { largest = Math.max(largest, Math.abs(value - expected.data[j])) })
      if (i === 0 && argmax(received.data) !== argmax(expected.data)) differing += 1
    })
  }
  return {
    agrees: cases.length > 0 && largest <= TOLERANCE && differing === 0,
    line: `${name}: ${cases.length} golden vectors, largest difference ${largest.toExponential(1)}, labels differing ${differing}`,
  }
}
