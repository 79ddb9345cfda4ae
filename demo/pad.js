// The drawing pad. Gradio runs this once, when the component mounts, with: element, props, server.
// It asks the server for answers while the pen moves, one request at a time, and at pen-up sets `props.value` to a
// PNG data URL (280×280 RGBA, '' when blank) and tells the page with a 'digit' event.

const SIDE = 560; // canvas pixels a side, whatever the density of the screen
const EXPORT = 280; // pixels a side of what the network gets
const PAUSE = 120; // ms between two answers while drawing
const DOUBTFUL = 0.5; // an answer less likely than this may be none
const INK = '#14171c';
const CHALK = '#f7f7f4'; // on a dark picture

const find = (selector) => element.querySelector(selector);
const sheet = find('.pad-canvas');
const brush = find('.pad-brush input');
const pen = sheet.getContext('2d');
const copy = Object.assign(document.createElement('canvas'), { width: EXPORT, height: EXPORT });

let model = props.model;
let marks = []; // what was done, in order: strokes {points, width}, pictures {picture, paper}, clearings {}
let paper = null; // [r, g, b, a] of the picture underneath
let stroke = null; // the one being drawn

// ---- drawing

function extend({ points, width }, [x, y]) {
  const last = points.at(-1) ?? [x, y];
  const before = points.at(-2) ?? last;
  const dark = paper && paper[3] > 128 && paper[0] + paper[1] + paper[2] < 384;
  const ink = dark ? CHALK : INK;
  Object.assign(pen, { lineWidth: width, lineCap: 'round', lineJoin: 'round', strokeStyle: ink, fillStyle: ink });
  pen.beginPath();
  if (!points.length) {
    pen.arc(x, y, width / 2, 0, 2 * Math.PI); // the first touch is a dot
    pen.fill();
  } else {
    pen.moveTo((before[0] + last[0]) / 2, (before[1] + last[1]) / 2);
    // from midpoint to midpoint, so that two segments always meet smoothly
    pen.quadraticCurveTo(last[0], last[1], (last[0] + x) / 2, (last[1] + y) / 2);
    pen.stroke();
  }
  points.push([x, y]);
}

function paint(mark) {
  if (mark.points) {
    const replayed = { points: [], width: mark.width };
    mark.points.forEach((point) => extend(replayed, point));
    return;
  }
  paper = mark.paper ?? null;
  pen.clearRect(0, 0, SIDE, SIDE);
  if (!mark.picture) return;
  pen.fillStyle = `rgba(${paper[0]}, ${paper[1]}, ${paper[2]}, ${paper[3] / 255})`;
  pen.fillRect(0, 0, SIDE, SIDE);
  const { width, height } = mark.picture;
  const scale = SIDE / Math.max(width, height);
  pen.imageSmoothingQuality = 'high';
  pen.drawImage(
    mark.picture, (SIDE - width * scale) / 2, (SIDE - height * scale) / 2, width * scale, height * scale);
}

function repaint() {
  paint({});
  marks.forEach(paint);
}

const blank = () => !marks.length || !(marks.at(-1).points || marks.at(-1).picture);

function undo() {
  if (stroke || !marks.length) return;
  marks.pop();
  repaint();
  changed();
}

function clear() {
  if (stroke || blank()) return;
  marks.push({});
  repaint();
  changed();
}

function widen(step) {
  brush.value = Number(brush.value) + step;
}

function place(event) {
  const box = sheet.getBoundingClientRect();
  return [((event.clientX - box.left) / box.width) * SIDE, ((event.clientY - box.top) / box.height) * SIDE];
}

function lower(event) {
  if (stroke || !event.isPrimary || event.button !== 0) return;
  event.preventDefault();
  sheet.focus({ preventScroll: true });
  sheet.setPointerCapture(event.pointerId);
  stroke = { points: [], width: (brush.value / 100) * SIDE };
  marks.push(stroke);
  extend(stroke, place(event));
  changed();
}

function move(event) {
  if (!stroke || !event.isPrimary) return;
  const passed = event.getCoalescedEvents?.() ?? [];
  (passed.length ? passed : [event]).forEach((one) => extend(stroke, place(one)));
  changed();
}

function lift(event) {
  if (!stroke || !event.isPrimary) return;
  extend(stroke, stroke.points.at(-1)); // the last half segment
  stroke = null;
  changed();
}

// ---- a picture instead of a drawing

function border(picture) {
  // The median colour of the picture's border fills the sheet around it: the border is the background
  const n = 32;
  const small = new OffscreenCanvas(n, n).getContext('2d');
  small.drawImage(picture, 0, 0, n, n);
  const pixels = small.getImageData(0, 0, n, n).data;
  const edge = [...Array(n * n).keys()].filter((i) => i < n || i >= n * n - n || i % n === 0 || i % n === n - 1);
  return [0, 1, 2, 3].map((c) => edge.map((i) => pixels[4 * i + c]).sort((a, b) => a - b)[edge.length >> 1]);
}

async function load(blob) {
  try {
    const picture = await createImageBitmap(blob);
    marks.push({ picture, paper: border(picture) });
    repaint();
    changed();
  } catch {
    say('This file is not an image that the browser can read. Try a PNG or a JPEG.');
  }
}

const firstImage = (files) => [...(files ?? [])].find((file) => file.type.startsWith('image/'));

// ---- answers

let version = 0; // of the drawing
let answered = 0; // the version whose answer is on the page
let running = false;
let wake = () => {};

function changed() {
  version += 1;
  find('.pad').classList.toggle('is-blank', blank());
  if (!stroke) wake();
  if (!running) answer();
}

async function answer() {
  running = true;
  let url = '';
  while (answered < version) {
    const current = version;
    url = snapshot();
    show(url ? await ask(url) : null);
    answered = current;
    if (stroke) await new Promise((resolve) => { wake = resolve; setTimeout(resolve, PAUSE); });
  }
  running = false;
  if (!stroke) settle(url);
}

function settle(url) {
  find('.pad-spoken').textContent = find('.pad-words').textContent;
  find('.pad').dataset.settled = version;
  props.value = url;
  document.dispatchEvent(new CustomEvent('digit'));
}

function snapshot() {
  if (blank()) return '';
  const small = copy.getContext('2d', { willReadFrequently: true });
  small.clearRect(0, 0, EXPORT, EXPORT);
  small.drawImage(sheet, 0, 0, EXPORT, EXPORT);
  return copy.toDataURL('image/png');
}

async function ask(canvas) {
  try {
    const reply = await server.recognize({ canvas, model });
    return reply?.probabilities ? reply : { failed: true };
  } catch {
    return { failed: true };
  }
}

function show(reply) {
  const known = reply && reply.label !== null && !reply.failed;
  const sure = known ? reply.probabilities[reply.label] : 0;
  const doubtful = Boolean(known) && sure < DOUBTFUL;
  find('.pad-answer').dataset.label = known ? reply.label : '';
  find('.pad-answer').classList.toggle('is-doubtful', doubtful);
  find('.pad-digit').textContent = known && !doubtful ? reply.label : '?';
  if (doubtful) say(`${model} is not sure this is a digit. Closest guess: ${reply.label} (${percent(sure)} %).`);
  else if (known) say(`${model} reads ${reply.label}, ${percent(sure)} % sure.`);
  else if (reply?.failed) say('No answer from the server. Check that the app is running, then draw again.');
  else say('Nothing drawn yet. Draw a digit, 0 to 9.');
  bars.forEach((bar, digit) => {
    const p = known ? reply.probabilities[digit] : 0;
    bar.style.setProperty('--p', p);
    bar.classList.toggle('is-top', known && digit === reply.label);
    bar.querySelector('b').textContent = p >= 0.005 ? percent(p) : '';
  });
  const image = new ImageData(28, 28); // transparent
  if (known) [...atob(reply.digit)].forEach((byte, i) => {
    const grey = byte.charCodeAt(0);
    image.data.set([grey, grey, grey, 255], 4 * i);
  });
  find('.pad-saw canvas').getContext('2d').putImageData(image, 0, 0);
}

function say(words) {
  find('.pad-words').textContent = words.replaceAll(' %', '\u00a0%'); // no line begins with the sign
}

// 99.95 % must not read as a certainty
const percent = (p) => (p > 0.99 && p < 1 ? (Math.floor(1000 * p) / 10).toFixed(1) : `${Math.round(100 * p)}`);

// ---- wiring

const bars = [...Array(10).keys()].map((digit) => {
  const bar = document.createElement('li');
  bar.innerHTML = '<b></b><i></i>';
  bar.append(Object.assign(document.createElement('span'), { textContent: digit }));
  return find('.pad-bars').appendChild(bar);
});
show(null);
find('.pad').classList.add('is-blank');

sheet.addEventListener('pointerdown', lower);
sheet.addEventListener('pointermove', move);
['pointerup', 'pointercancel', 'lostpointercapture'].forEach((name) => sheet.addEventListener(name, lift));

const keys = { u: undo, c: clear, Escape: clear, Delete: clear, '[': () => widen(-1), ']': () => widen(1) };
sheet.addEventListener('keydown', (event) => {
  const undoing = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === 'z';
  const action = undoing ? undo : !event.ctrlKey && !event.metaKey && !event.altKey && keys[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

find('[data-do=undo]').addEventListener('click', undo);
find('[data-do=clear]').addEventListener('click', clear);
element.querySelectorAll('[data-example]').forEach((button) =>
  button.addEventListener('click', async () => load(await (await fetch(button.dataset.example)).blob())));

const chooser = find('.pad-file input');
chooser.addEventListener('change', () => {
  if (chooser.files[0]) load(chooser.files[0]);
  chooser.value = '';
});
const frame = find('.pad-sheet');
['dragenter', 'dragover', 'dragleave', 'drop'].forEach((name) => frame.addEventListener(name, (event) => {
  event.preventDefault();
  event.stopPropagation();
  frame.classList.toggle('is-target', name === 'dragenter' || name === 'dragover');
  const file = name === 'drop' && firstImage(event.dataTransfer.files);
  if (file) load(file);
}));
document.addEventListener('paste', (event) => {
  const file = firstImage(event.clipboardData?.files);
  if (file) load(file);
});
document.addEventListener('model', (event) => {
  model = event.detail;
  changed();
});
