// A picture instead of a drawing: load, rotate and crop it. Runs after pad.js, in the same scope.

const LARGEST_PICTURE = 11000; // bytes, so that it fits into a link

const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];

// [r, g, b, a] to fill the sheet around a picture: the median colour of its border; if that is transparent, white, or
// black for light ink
function background(picture) {
  const n = 32;
  const small = new OffscreenCanvas(n, n).getContext('2d');
  small.drawImage(picture, 0, 0, n, n);
  const pixels = small.getImageData(0, 0, n, n).data;
  const all = [...Array(n * n).keys()];
  const edge = all.filter((i) => i < n || i >= n * n - n || i % n === 0 || i % n === n - 1);
  const colour = [0, 1, 2, 3].map((c) => median(edge.map((i) => pixels[4 * i + c])));
  if (colour[3] > 128) return colour;
  const inked = all.filter((i) => pixels[4 * i + 3] > 16);
  const light = inked.reduce((sum, i) => sum + pixels[4 * i] + pixels[4 * i + 1] + pixels[4 * i + 2], 0);
  return light > 384 * inked.length ? [20, 23, 28, 255] : [255, 255, 255, 255];
}

// Fills the sheet beside a picture with the colours of the picture's border, so that a shadow at the picture's border
// reaches the sheet's border too. The median leaves out lines and strokes that end at the picture's border.
function fillBeside(on, across, down) {
  const margin = Math.ceil((EXPORT - Math.min(across, down)) / 2);
  const upright = across < down; // margins on the left and on the right
  const half = 10;
  for (const [edge, first] of margin ? [[margin + 1, 0], [EXPORT - margin - 2, EXPORT - margin - 1]] : []) {
    const line = upright ? on.getImageData(edge, 0, 1, EXPORT) : on.getImageData(0, edge, EXPORT, 1);
    for (const c of [0, 1, 2, 3]) {
      const channel = line.data.filter((_, i) => i % 4 === c);
      channel.forEach((_, i) => {
        line.data[4 * i + c] = median(channel.slice(Math.max(0, i - half), i + half + 1));
      });
    }
    for (let at = first; at <= first + margin; at += 1) {
      on.putImageData(line, upright ? at : 0, upright ? 0 : at);
    }
  }
}

// The part `box` [x, y, width, height] of a bitmap, turned by quarters, as a sheet small enough for a link
async function picture(original, turns = 0, box = [0, 0, original.width, original.height]) {
  const colour = background(original);
  const page = new OffscreenCanvas(EXPORT, EXPORT);
  const on = page.getContext('2d');
  on.imageSmoothingQuality = 'high';
  on.translate(EXPORT / 2, EXPORT / 2);
  on.rotate((turns * Math.PI) / 2);
  const [, , width, height] = box;
  const scale = EXPORT / Math.max(width, height);
  const [across, down] = [width * scale, height * scale];
  on.drawImage(original, ...box, -across / 2, -down / 2, across, down);
  on.resetTransform();
  fillBeside(on, ...(turns % 2 ? [down, across] : [across, down]));
  on.globalCompositeOperation = 'destination-over';
  on.fillStyle = `rgb(${colour.slice(0, 3)})`;
  on.fillRect(0, 0, EXPORT, EXPORT);
  let file = await page.convertToBlob({ type: 'image/png' });
  for (let quality = 0.9; file.size > LARGEST_PICTURE && quality > 0; quality -= 0.15) {
    file = await page.convertToBlob({ type: 'image/jpeg', quality });
  }
  return {
    picture: await createImageBitmap(file), // the compressed one, as in the link
    paper: [...colour.slice(0, 3), 255],
    file: new Uint8Array(await file.arrayBuffer()),
    original, turns, box,
  };
}

async function load(blob) {
  let original;
  try {
    original = await createImageBitmap(blob);
  } catch {
    refuse();
    return;
  }
  showPicture(await picture(original));
}

function refuse() {
  say('This file is not an image that the browser can read. Try a PNG or a JPEG.');
  find('.pad-spoken').textContent = find('.pad-words').textContent;
}

function showPicture(mark) {
  add(mark);
  repaint();
  changed();
}

async function loadExample(example) {
  showPicture(await withPicture({ example }));
}

// A decoded mark with its picture
async function withPicture(mark) {
  if (mark.points) return mark;
  if (mark.file) {
    const original = await createImageBitmap(new Blob([mark.file]));
    return { ...mark, picture: original, original, turns: 0, box: [0, 0, original.width, original.height] };
  }
  const file = await (await fetch(examples[mark.example].dataset.example)).blob();
  return { ...mark, picture: await createImageBitmap(file) };
}

function take(files) {
  const all = [...(files ?? [])];
  const image = all.find((file) => file.type.startsWith('image/')) ?? all.find((file) => !file.type);
  if (image) load(image);
  else if (all.length) refuse();
}

// ---- rotate and crop the picture, without what is drawn on it

const below = () => marks.slice(Math.max(0, base())).find((mark) => mark.original);

async function rotate() {
  const { original, turns, box } = below() ?? {};
  if (original) showPicture(await picture(original, (turns + 1) % 4, box));
}

const frameOf = find('.pad-crop');
let part = [0.2, 0.2, 0.6]; // left, top and side of the crop, in shares of the sheet

function crop(on) {
  frameOf.hidden = !on;
  find('[data-do=crop]').setAttribute('aria-pressed', on);
  find('[data-do=crop]').textContent = on ? 'Crop here' : 'Crop';
  if (!on) return;
  shape();
  frameOf.focus({ preventScroll: true });
}

function shape() {
  const side = Math.max(0.1, Math.min(1, part[2]));
  part = [Math.max(0, Math.min(1 - side, part[0])), Math.max(0, Math.min(1 - side, part[1])), side];
  const [left, top, width] = part.map((share) => `${100 * share}%`);
  Object.assign(frameOf.style, { left, top, width, height: width });
}

// The square `part` of the sheet → the box of the original behind it
async function cropped() {
  const mark = below();
  crop(false);
  sheet.focus({ preventScroll: true });
  if (!mark) return;
  const { original, turns, box } = mark;
  const longer = Math.max(box[2], box[3]);
  let [x, y] = [part[0] + part[2] / 2 - 0.5, part[1] + part[2] / 2 - 0.5]; // of its centre, from the sheet's
  for (let turn = 0; turn < turns; turn += 1) [x, y] = [y, -x];
  const side = part[2] * longer;
  const centre = [box[0] + box[2] / 2 + x * longer, box[1] + box[3] / 2 + y * longer];
  showPicture(await picture(original, turns, [centre[0] - side / 2, centre[1] - side / 2, side, side]));
}

let held = null; // pointer and part when a drag began
function drag(event) {
  const box = frameOf.parentElement.getBoundingClientRect();
  const at = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  if (event.type === 'pointerdown') {
    frameOf.setPointerCapture(event.pointerId);
    held = { at, part: [...part], resizes: at[0] > part[0] + 0.75 * part[2] && at[1] > part[1] + 0.75 * part[2] };
  } else if (event.type === 'pointermove' && held) {
    const by = [at[0] - held.at[0], at[1] - held.at[1]];
    part = held.resizes ? [held.part[0], held.part[1], held.part[2] + Math.max(...by)]
      : [held.part[0] + by[0], held.part[1] + by[1], held.part[2]];
    shape();
  } else held = null;
}

frameOf.addEventListener('keydown', (event) => {
  const by = { ArrowLeft: [-0.02, 0], ArrowRight: [0.02, 0], ArrowUp: [0, -0.02], ArrowDown: [0, 0.02] }[event.key];
  if (event.key === 'Escape') crop(false);
  else if (event.key === 'Enter') cropped();
  else if (by) {
    part = event.shiftKey ? [part[0], part[1], part[2] + by[0] + by[1]] : [part[0] + by[0], part[1] + by[1], part[2]];
    shape();
  } else return;
  event.preventDefault();
});

// ---- wiring

find('[data-do=rotate]').addEventListener('click', rotate);
find('[data-do=crop]').addEventListener('click', () => (frameOf.hidden ? crop(true) : cropped()));
['pointerdown', 'pointermove', 'pointerup', 'pointercancel'].forEach((name) => frameOf.addEventListener(name, drag));

const chooser = find('.pad-file input');
chooser.addEventListener('change', () => {
  take(chooser.files);
  chooser.value = '';
});
const frame = find('.pad-sheet');
['dragenter', 'dragover', 'dragleave', 'drop'].forEach((name) => frame.addEventListener(name, (event) => {
  event.preventDefault();
  event.stopPropagation();
  frame.classList.toggle('is-target', name === 'dragenter' || name === 'dragover');
  if (name === 'drop') take(event.dataTransfer.files);
}));
document.addEventListener('paste', (event) => take(event.clipboardData?.files));
