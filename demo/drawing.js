// A drawing as a short text, for links and for the browser's storage. Runs before pad.js, in the same scope.
// A version byte, then the marks: an example, a picture's file, strokes of the brush or the eraser; at the end the
// position of the chosen digit.

const LONGEST_CODE = 16000; // characters
const MOST_POINTS = 20000; // of all strokes together
const VERSION = 1;
const [EXAMPLE, PICTURE, BRUSH, ERASER, CHOICE] = [1, 2, 3, 4, 5];

// marks → text, or '' if it would be too long. Points are in half pixels, widths in half per cents.
function encodeDrawing(marks) {
  const bytes = [VERSION];
  const number = (n) => {
    for (; n > 127; n >>>= 7) bytes.push((n & 127) | 128);
    bytes.push(n);
  };
  for (const mark of marks) {
    if (mark.choice) {
      bytes.push(CHOICE);
      mark.choice.forEach((at) => number(2 * at));
    } else if (mark.example !== undefined) bytes.push(EXAMPLE, mark.example);
    else if (mark.file) {
      bytes.push(PICTURE, ...mark.paper.slice(0, 3));
      number(mark.file.length);
      mark.file.forEach((byte) => bytes.push(byte));
    } else {
      bytes.push(mark.erases ? ERASER : BRUSH, 2 * mark.brush);
      number(mark.points.length);
      let before = [0, 0];
      for (const point of mark.points) {
        point.forEach((to, k) => { const by = 2 * (to - before[k]); number(by < 0 ? -2 * by - 1 : 2 * by); });
        before = point;
      }
    }
    if (bytes.length > LONGEST_CODE) return '';
  }
  let text = '';
  bytes.forEach((byte) => { text += String.fromCharCode(byte); });
  const code = btoa(text).replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '');
  return code.length > LONGEST_CODE ? '' : code;
}

// text → marks without their pictures. Throws a RangeError if the text is not valid.
function decodeDrawing(code, examples) {
  if (code.length > LONGEST_CODE || !/^[\w-]+$/.test(code)) throw new RangeError('not a drawing');
  const bytes = Uint8Array.from(atob(code.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0));
  let at = 0;
  const byte = () => {
    if (at >= bytes.length) throw new RangeError('truncated');
    return bytes[at++];
  };
  const number = (most) => {
    let n = 0;
    for (let shift = 0, more = true; more; shift += 7) {
      const part = byte();
      n += (part & 127) * 2 ** shift;
      more = part > 127;
      if (n > most) throw new RangeError('too large');
    }
    return n;
  };
  if (byte() !== VERSION) throw new RangeError('another version');
  const marks = [];
  let left = MOST_POINTS;
  while (at < bytes.length) {
    const kind = byte();
    if (kind === EXAMPLE) {
      const example = byte();
      if (example >= examples) throw new RangeError('no such example');
      marks.push({ example });
    } else if (kind === CHOICE) {
      marks.push({ choice: [number(2000) / 2, number(2000) / 2] });
      if (at < bytes.length) throw new RangeError('a choice must be the last mark');
    } else if (kind === PICTURE) {
      const paper = [byte(), byte(), byte(), 255];
      const length = number(bytes.length - at);
      marks.push({ paper, file: bytes.slice(at, at + length) });
      at += length;
    } else if (kind === BRUSH || kind === ERASER) {
      const brush = byte() / 2;
      const count = number(left);
      left -= count;
      let before = [0, 0];
      const points = [];
      for (let k = 0; k < count; k += 1) {
        before = before.map((from) => { const n = number(8000); return from + (n % 2 ? -(n + 1) / 2 : n / 2) / 2; });
        points.push(before);
      }
      marks.push({ points, brush, erases: kind === ERASER });
    } else throw new RangeError('an unknown mark');
  }
  return marks;
}
