// The drawing pad. Gradio runs this once, when the component mounts, with: element, props, server.
// It asks the server for answers while the pen moves, one request at a time. At pen-up it sets `props.value` to a PNG
// data URL (280×280 RGBA, '' when blank) and sends a 'digit' event to the page.

const SIDE = 560; // canvas pixels per side, at any screen density
const EXPORT = 280; // pixels per side of the drawing that is sent to the server
const PAUSE = 120; // minimum ms between two answers while drawing
const BACKOFF = 3; // the pause is at least this many times as long as the last answer took: fewer requests to a busy server
const RETRY = 2000; // ms until the next request if the server did not answer
const TAP = 8; // canvas pixels; a shorter stroke is a tap
const NEAR = 1.5; // canvas pixels; closer points of a stroke are skipped
const STORE = 'bnmodel-drawing';
const DOUBTFUL = 0.5; // less probable answers are shown as "?"
const GUESS = 0.2; // less probable answers are not shown at all
const INK = '#14171c';
const CHALK = '#f7f7f4'; // on a dark picture

const find = (selector) => element.querySelector(selector);
const sheet = find('.pad-canvas');
const boxes = find('.pad-boxes');
const brush = find('.pad-brush input');
const pen = sheet.getContext('2d');
const copy = Object.assign(document.createElement('canvas'), { width: EXPORT, height: EXPORT });
const examples = [...element.querySelectorAll('[data-example]')];

let model = props.model;
// Actions in order: strokes {points, brush, erases}, examples {example, picture}, other pictures
// {picture, paper, file, original}, clearings {}
let marks = [];
let undone = [];
let paper = null; // [r, g, b, a] of the picture underneath
let stroke = null; // the one being drawn
let before = {}; // the state before it, to restore after a tap
let erasing = false;
let chosen = null; // [x, y] in canvas pixels, a point of the chosen one of several digits
let found = []; // the digits on the sheet if there are several

// ---- drawing

function extend({ points, brush: width, erases }, [x, y]) {
  const last = points.at(-1) ?? [x, y];
  const before = points.at(-2) ?? last;
  const opaque = paper && paper[3] > 128;
  const dark = opaque && paper[0] + paper[1] + paper[2] < 384;
  const ink = erases && opaque ? `rgb(${paper.slice(0, 3)})` : dark ? CHALK : INK;
  const lineWidth = (width / 100) * SIDE;
  Object.assign(pen, { lineWidth, lineCap: 'round', lineJoin: 'round', strokeStyle: ink, fillStyle: ink });
  pen.globalCompositeOperation = erases && !opaque ? 'destination-out' : 'source-over';
  pen.beginPath();
  if (!points.length) {
    pen.arc(x, y, lineWidth / 2, 0, 2 * Math.PI); // the first touch is a dot
    pen.fill();
  } else {
    pen.moveTo((before[0] + last[0]) / 2, (before[1] + last[1]) / 2);
    // from midpoint to midpoint, so that two segments always meet smoothly
    pen.quadraticCurveTo(last[0], last[1], (last[0] + x) / 2, (last[1] + y) / 2);
    pen.stroke();
  }
  pen.globalCompositeOperation = 'source-over';
  points.push([x, y]);
}

function paint(mark) {
  if (mark.points) {
    const replayed = { ...mark, points: [] };
    mark.points.forEach((point) => extend(replayed, point));
    return;
  }
  paper = mark.paper ?? null;
  pen.clearRect(0, 0, SIDE, SIDE);
  pen.imageSmoothingQuality = 'high';
  if (mark.picture) pen.drawImage(mark.picture, 0, 0, SIDE, SIDE);
}

function repaint() {
  paint({});
  marks.forEach(paint);
}

const blank = () => !marks.length || !(marks.at(-1).points || marks.at(-1).picture);
const base = () => marks.findLastIndex((mark) => !mark.points); // of the present drawing: a clearing or a picture

function add(mark) {
  marks.push(mark);
  undone = [];
  chosen = null;
}

function undo() {
  if (stroke || !marks.length) return;
  undone.push(marks.pop());
  chosen = null;
  repaint();
  changed();
}

function redo() {
  if (stroke || !undone.length) return;
  marks.push(undone.pop());
  chosen = null;
  repaint();
  changed();
}

function clear() {
  if (stroke || blank()) return;
  add({});
  repaint();
  changed();
}

function erase() {
  erasing = !erasing;
  find('[data-do=erase]').setAttribute('aria-pressed', erasing);
}

function widen(step) {
  brush.value = Number(brush.value) + step;
}

// Rounded to half pixels, as in a link, so that a link shows the same picture
function place(event) {
  const box = sheet.getBoundingClientRect();
  const shares = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  return shares.map((share) => Math.round(2 * SIDE * Math.max(-0.5, Math.min(1.5, share))) / 2);
}

function lower(event) {
  if (stroke || !event.isPrimary || event.button !== 0 || (erasing && blank())) return;
  event.preventDefault();
  sheet.focus({ preventScroll: true });
  sheet.classList.add('is-pen');
  sheet.setPointerCapture(event.pointerId);
  stroke = { points: [], brush: Number(brush.value), erases: erasing };
  before = { chosen, undone };
  add(stroke);
  extend(stroke, place(event));
  changed();
}

function move(event) {
  if (!stroke || !event.isPrimary) return;
  const passed = event.getCoalescedEvents?.() ?? [];
  for (const point of (passed.length ? passed : [event]).map(place)) {
    const last = stroke.points.at(-1);
    if (Math.hypot(point[0] - last[0], point[1] - last[1]) >= NEAR) extend(stroke, point);
  }
  changed();
}

function lift(event) {
  if (!stroke || !event.isPrimary) return;
  const { points } = stroke;
  const tapped = found.find(({ box }) => box.every((edge, k) => (k < 2 ? points[0][k] >= edge * SIDE
    : points[0][k - 2] <= edge * SIDE)));
  const tap = points.every((point) => Math.hypot(point[0] - points[0][0], point[1] - points[0][1]) < TAP);
  extend(stroke, points.at(-1)); // the last half segment
  stroke = null;
  if (tapped && tap) { // it chooses a digit
    marks.pop();
    ({ chosen, undone } = before);
    repaint();
    choose(tapped);
  } else changed();
}

// ---- one of several digits

function choose({ box: [left, top, right, bottom] }) {
  chosen = [(left + right) / 2, (top + bottom) / 2].map((share) => Math.round(2 * SIDE * share) / 2);
  changed();
}

// In shares of the sheet: the chosen digit, or else the centre of the last stroke
function point() {
  if (chosen) return chosen.map((at) => at / SIDE);
  const { points } = marks.at(-1) ?? {};
  return points ? [0, 1].map((k) => points.reduce((sum, at) => sum + at[k], 0) / points.length / SIDE) : null;
}

function showBoxes(reply) {
  found = stroke ? [] : reply?.digits ?? [];
  const focused = boxes.contains(document.activeElement);
  boxes.replaceChildren(...found.map((digit, k) => {
    const [left, top, right, bottom] = digit.box.map((share) => `${100 * share}%`);
    const button = Object.assign(document.createElement('button'), { type: 'button', textContent: name(digit) });
    button.setAttribute('aria-label', `Digit ${k + 1} of ${found.length}: ${name(digit)}`);
    button.setAttribute('aria-pressed', k === reply.chosen);
    button.addEventListener('click', () => choose(digit));
    const frame = Object.assign(document.createElement('div'), { className: `pad-box${digit.box[1] < 0.1 ? ' is-high' : ''}` });
    Object.assign(frame.style, { left, top, width: `calc(${right} - ${left})`, height: `calc(${bottom} - ${top})` });
    frame.append(button);
    return frame;
  }));
  if (focused) boxes.querySelector('[aria-pressed=true]')?.focus({ preventScroll: true });
}

const name = ({ label, probability }) => (label === null || probability < DOUBTFUL ? '?' : `${label}`);

function download(href, name) {
  Object.assign(document.createElement('a'), { href, download: name }).click();
}

function save() {
  const page = Object.assign(document.createElement('canvas'), { width: SIDE, height: SIDE });
  const flat = page.getContext('2d');
  flat.fillStyle = '#fff';
  flat.fillRect(0, 0, SIDE, SIDE);
  flat.drawImage(sheet, 0, 0);
  download(page.toDataURL('image/png'), 'drawing.png');
}

// ---- the drawing in the browser's storage and in links

window.drawingCode = () => {
  const from = base();
  if (blank()) return '';
  const drawn = marks.slice(from < 0 || marks[from].picture ? Math.max(0, from) : from + 1);
  return encodeDrawing(chosen ? [...drawn, { choice: chosen }] : drawn);
};

function remember() {
  try {
    sessionStorage.setItem(STORE, window.drawingCode());
  } catch {} // not allowed here, or full: then a reload loses the drawing
}

async function restore() {
  const linked = new URLSearchParams(location.hash.slice(1)).get('drawing');
  let code = linked;
  try {
    code ??= sessionStorage.getItem(STORE);
  } catch {}
  if (linked !== null) history.replaceState(history.state, '', location.pathname + location.search);
  if (!code) return;
  try {
    const decoded = decodeDrawing(code, examples.length);
    const choice = decoded.at(-1)?.choice;
    const restored = await Promise.all(decoded.filter((mark) => !mark.choice).map(withPicture));
    if (stroke) return; // the visitor is drawing already
    marks.push(...(marks.length ? [{}] : []), ...restored);
    chosen = choice ?? null;
    repaint();
    changed();
  } catch {
    if (linked !== null) say('The drawing in this link is damaged. Draw a digit, 0 to 9.');
  }
}

// ---- answers

let version = 0; // of the drawing
let answered = 0; // the version whose answer is on the page
let turn = 0; // counts the calls of `answer`
let running = false; // the latest of them
let retry; // timer

function changed() {
  version += 1;
  find('.pad').classList.toggle('is-blank', blank());
  find('.pad-edit').hidden = !below();
  find('[data-do=undo]').setAttribute('aria-disabled', !marks.length);
  find('[data-do=redo]').setAttribute('aria-disabled', !undone.length);
  if (!stroke) remember(); // before the answer, since a reload may come first
  if (!stroke || !running) answer(); // a finished drawing does not wait for the answer to an unfinished stroke
}

async function answer() {
  turn += 1;
  const own = turn;
  running = true;
  let url = '';
  let reply = null;
  while (answered < version) {
    const current = version;
    const began = performance.now();
    url = snapshot();
    reply = url ? await ask(url) : null;
    if (own !== turn) return;
    show(reply);
    answered = current;
    const pause = Math.max(PAUSE, BACKOFF * (performance.now() - began));
    if (stroke) await new Promise((resolve) => { setTimeout(resolve, pause); });
    if (own !== turn) return;
  }
  running = false;
  if (!stroke) settle(reply?.canvas || url, Boolean(reply?.failed));
}

function settle(url, failed) {
  find('.pad-spoken').textContent = find('.pad-words').textContent;
  find('.pad').dataset.settled = version;
  clearTimeout(retry);
  if (failed) retry = setTimeout(changed, RETRY);
  requestAnimationFrame(() => setTimeout(() => tellTabs(url, failed))); // once the answer is on the screen
}

function tellTabs(url, failed) {
  props.value = url;
  document.body.classList.toggle('has-drawing', Boolean(url));
  document.body.classList.toggle('is-stale', failed); // the tabs still show an earlier drawing
  if (!failed) document.dispatchEvent(new CustomEvent('digit'));
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
    const reply = await server.recognize({ canvas, model, at: point() });
    return reply?.probabilities ? reply : { failed: true };
  } catch {
    return { failed: true };
  }
}

function show(reply) {
  const known = reply && reply.label !== null && !reply.failed;
  const sure = known ? reply.probabilities[reply.label] : 0;
  const doubtful = Boolean(known) && sure < DOUBTFUL;
  const several = known && reply.digits.length > 0;
  find('.pad-answer').dataset.label = known ? reply.label : '';
  find('.pad-answer').classList.toggle('is-several', Boolean(several));
  find('.pad-answer').classList.toggle('is-doubtful', several ? Boolean(reply.advice) : doubtful);
  const output = find('.pad-digit');
  output.replaceChildren(...(several ? reply.digits.map(name) : [known && !doubtful ? `${reply.label}` : '?'])
    .map((text, k) => {
      const part = Object.assign(document.createElement('span'), { textContent: text });
      part.classList.toggle('is-chosen', several && k === reply.chosen);
      return part;
    }));
  output.style.setProperty('--digits', Math.max(1, several ? reply.digits.length : 1));
  say(inWords(reply, known, several, doubtful, sure));
  showBoxes(known ? reply : null);
  bars.forEach((bar, digit) => {
    const p = known ? reply.probabilities[digit] : 0;
    bar.style.setProperty('--p', p);
    bar.classList.toggle('is-top', known && digit === reply.label);
    bar.querySelector('b').textContent = p >= 0.005 ? percent(p).replace('above ', '>') : '';
    bar.querySelector('em').textContent = `${digit}: ${known ? percent(p) : 0} per cent`;
  });
  const image = new ImageData(28, 28); // transparent
  if (known) [...atob(reply.digit)].forEach((byte, i) => {
    const grey = byte.charCodeAt(0);
    image.data.set([grey, grey, grey, 255], 4 * i);
  });
  find('.pad-saw canvas').getContext('2d').putImageData(image, 0, 0);
}

function inWords(reply, known, several, doubtful, sure) {
  if (reply?.failed) return 'No answer from the server. Check that the app is running, then draw again.';
  if (!known) return reply?.advice || 'Nothing drawn yet. Draw a digit, 0 to 9.';
  const certain = `${percent(sure).replace('above', 'more than')}% sure`;
  if (several) {
    const number = reply.digits.map(name).join('');
    const one = doubtful ? `digit ${reply.chosen + 1}` : `the ${reply.label}, ${certain}`;
    return `The network ${model} reads ${number}. ${reply.advice} The tabs use ${one}; click another digit to choose it.`;
  }
  const guess = sure >= GUESS ? `Closest guess: ${reply.label} (${percent(sure)}%).` : '';
  if (doubtful) return `The network ${model} is not sure. ${reply.advice} ${guess}`.trim();
  return `The network ${model} reads ${reply.label}, ${certain}. ${reply.advice}`.trim();
}

function say(words) {
  find('.pad-words').textContent = words;
}

// As bnmodel.plotting.certainty: 99.95% must not read as a certainty
function percent(p) {
  if (p > 0.999) return 'above 99.9';
  if (p < 0.001) return 'below 0.1';
  if (p > 0.99) return (Math.floor(1000 * p) / 10).toFixed(1);
  return p < 0.01 ? (100 * p).toFixed(1) : `${Math.round(100 * p)}`;
}

// ---- wiring

const bars = [...Array(10).keys()].map((digit) => {
  const bar = document.createElement('li');
  bar.innerHTML = `<em></em><b aria-hidden="true"></b><i></i><span aria-hidden="true">${digit}</span>`;
  return find('.pad-bars').appendChild(bar);
});
show(null);
find('.pad').classList.add('is-blank');

sheet.addEventListener('pointerdown', lower);
sheet.addEventListener('pointermove', move);
['pointerup', 'pointercancel', 'lostpointercapture'].forEach((name) => sheet.addEventListener(name, lift));

sheet.addEventListener('blur', () => sheet.classList.remove('is-pen'));

const keys = {
  u: undo, r: redo, e: erase, c: clear, Escape: clear, Delete: clear, '[': () => widen(-1), ']': () => widen(1),
};
sheet.addEventListener('keydown', (event) => {
  const held = event.ctrlKey || event.metaKey;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const again = held && (key === 'y' || (key === 'z' && event.shiftKey));
  const action = again ? redo : held && key === 'z' ? undo : !held && !event.altKey && keys[key];
  if (!action) return;
  event.preventDefault();
  action();
});

const actions = { undo, redo, erase, clear, save };
Object.entries(actions).forEach(([name, action]) => find(`[data-do=${name}]`).addEventListener('click', action));

const more = find('[data-do=examples]');
const unfold = (open) => {
  more.setAttribute('aria-expanded', open);
  find('.pad').classList.toggle('shows-examples', open);
};
more.addEventListener('click', () => unfold(more.getAttribute('aria-expanded') === 'false'));
examples.forEach((button, example) => {
  button.tabIndex = example ? -1 : 0; // one tab stop; arrow keys move between the examples
  button.addEventListener('click', () => {
    unfold(false);
    loadExample(example);
  });
  button.addEventListener('keydown', (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = examples.at((example + step) % examples.length);
    examples.forEach((one) => { one.tabIndex = one === next ? 0 : -1; });
    next.focus();
  });
});

document.addEventListener('click', ({ target }) => { // the button above the code of a tab
  if (target.dataset?.do === 'save-digit') download(props.value, 'digit.png');
});
document.addEventListener('model', (event) => {
  model = event.detail;
  changed();
});
window.addEventListener('hashchange', restore);
restore();
