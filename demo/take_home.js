// Save the pictures of a tab as PNG or SVG and their values as CSV or JSON, made in the browser from the page.
const NS = 'http://www.w3.org/2000/svg';
const PAINTED = ['fill', 'fill-opacity', 'stroke', 'stroke-width', 'stroke-opacity', 'stroke-dasharray', 'opacity',
  'font-size', 'font-weight', 'text-anchor', 'dominant-baseline', 'vector-effect', 'image-rendering', 'visibility'];
const MARGIN = 24;
const pen = document.createElement('canvas').getContext('2d');
const tab = () => element.closest('.tabitem') ?? document.body;
const seen = (selector) => [...tab().querySelectorAll(selector)].filter((one) => one.offsetParent || one.getClientRects().length);
const words = (node) => (node?.innerText ?? '').replace(/\s+/g, ' ').trim();
const network = () => document.querySelector('#model input')?.value || 'network';
const question = () => words(tab().querySelector('.question h2'));
const xml = (text) => text.replace(/[&<>"]/g, (sign) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' }[sign]));
const number = (value) => +value.toFixed(2);

// ---- what is shown, as one SVG
function textLines(node) {
  const lines = [];
  const range = document.createRange();
  for (const { 0: word, index } of node.data.matchAll(/\S+\s*/g)) {
    range.setStart(node, index);
    range.setEnd(node, index + word.trimEnd().length);
    const box = range.getBoundingClientRect();
    const last = lines.at(-1);
    if (last && Math.abs(last.box.top - box.top) < 3) last.text += word;
    else if (box.width) lines.push({ text: word, box });
  }
  return lines;
}

function drawText(node, dx, dy) {
  const style = getComputedStyle(node.parentElement);
  pen.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
  const { fontBoundingBoxAscent: up, fontBoundingBoxDescent: down } = pen.measureText('x');
  return textLines(node).map(({ text, box }) => {
    const y = box.top + (box.height - up - down) / 2 + up + dy;
    return `<text x="${number(box.left + dx)}" y="${number(y)}" font-size="${style.fontSize}" `
      + `font-weight="${style.fontWeight}" fill="${style.color}">${xml(text.trimEnd())}</text>`;
  }).join('');
}

// A transparent stop takes its neighbours' colours, since SVG would mix in black. Returns the definition and its paint.
function gradient(image) {
  const colours = image.match(/rgba?\([^)]*\)/g);
  const clear = (colour) => /rgba\(.*, 0\)/.test(colour);
  const stops = colours.flatMap((colour, k) => (clear(colour) ? [colours[k - 1], colours[k + 1]] : [colour]).filter(Boolean).map((paint) =>
    `<stop offset="${k / (colours.length - 1)}" stop-color="${paint}" stop-opacity="${clear(colour) ? 0 : 1}"/>`));
  const id = `gradient-${colours.join().replace(/\W+/g, '-')}`;
  return [`<linearGradient id="${id}">${stops.join('')}</linearGradient>`, `fill="url(#${id})"`];
}

function drawBox(style, box, dx, dy) {
  const [x, y, width, height] = [box.left + dx, box.top + dy, box.width, box.height].map(number);
  const radius = parseFloat(style.borderRadius) || 0;
  const frame = (paint) => `<rect x="${x}" y="${y}" width="${width}" height="${height}" rx="${Math.min(radius, height / 2)}" ${paint}/>`;
  let drawn = '';
  if (!/rgba\(.*, 0\)|transparent/.test(style.backgroundColor)) drawn += frame(`fill="${style.backgroundColor}"`);
  if (style.backgroundImage.startsWith('linear-gradient(to right')) {
    const [definition, paint] = gradient(style.backgroundImage);
    drawn += definition + frame(paint);
  }
  if (parseFloat(style.outlineWidth) && style.outlineStyle !== 'none') {
    drawn += frame(`fill="none" stroke="${style.outlineColor}" stroke-width="${style.outlineWidth}"`);
  }
  const [above, below] = [style.borderTopWidth, style.borderBottomWidth].map(parseFloat);
  if (above && below) drawn += frame(`fill="none" stroke="${style.borderTopColor}" stroke-width="${above}"`);
  else if (below) drawn += `<path d="M${x} ${y + height}h${width}" stroke="${style.borderBottomColor}" stroke-width="${below}"/>`;
  return drawn;
}

function drawSvg(svg, box, dx, dy) {
  const copy = svg.cloneNode(true);
  const parts = svg.querySelectorAll('*');
  copy.querySelectorAll('*').forEach((part, k) => {
    const style = getComputedStyle(parts[k]);
    // where a definition is used, it inherits the properties that it does not set
    const painted = parts[k].closest('defs') ? PAINTED.filter((name) => parts[k].style.getPropertyValue(name)) : PAINTED;
    part.setAttribute('style', painted.map((name) => `${name}: ${style.getPropertyValue(name)}`).join('; '));
  });
  copy.querySelectorAll('.touched').forEach((mark) => mark.remove());
  copy.removeAttribute('data-values');
  copy.setAttribute('style', `color: ${getComputedStyle(svg).color}`);
  for (const [key, value] of Object.entries({ x: box.left + dx, y: box.top + dy, width: box.width, height: box.height })) {
    copy.setAttribute(key, number(value));
  }
  return new XMLSerializer().serializeToString(copy);
}

function draw(node, dx, dy) {
  if (node.nodeType === Node.TEXT_NODE) return drawText(node, dx, dy);
  if (!(node instanceof Element) || node.matches('.wrap, .hidden-text, script, style')) return '';
  const style = getComputedStyle(node);
  const box = node.getBoundingClientRect();
  if (style.display === 'none' || style.visibility === 'hidden') return '';
  if (node.tagName === 'svg') return drawSvg(node, box, dx, dy);
  const inside = node.tagName === 'IMG'
    ? `<image href="${node.src}" x="${number(box.left + dx)}" y="${number(box.top + dy)}" width="${number(box.width)}" `
      + `height="${number(box.height)}" preserveAspectRatio="none" style="image-rendering: pixelated"/>`
    : [...node.childNodes].map((child) => draw(child, dx, dy)).join('');
  const drawn = drawBox(style, box, dx, dy) + inside;
  return drawn && style.opacity !== '1' ? `<g opacity="${style.opacity}">${drawn}</g>` : drawn;
}

function picture() {
  const outermost = seen('.picture').filter((one) => !one.parentElement.closest('.picture'));
  const shown = outermost.filter((one) => (one.innerText.trim() || one.querySelector('svg, img')) && !one.querySelector('.waiting'));
  const width = Math.max(...shown.map((one) => one.getBoundingClientRect().width)) + 2 * MARGIN;
  const page = getComputedStyle(document.body);
  let height = MARGIN + 20;
  const title = `<text x="${MARGIN}" y="${height}" font-size="18" font-weight="600" fill="${page.color}">${xml(question())}</text>`;
  height += 20;
  const under = `<text x="${MARGIN}" y="${height}" font-size="13" fill="${page.color}" opacity="0.7">network ${xml(network())}</text>`;
  height += 20;
  const parts = shown.map((one) => {
    const box = one.getBoundingClientRect();
    const drawn = draw(one, MARGIN - box.left, height - box.top);
    height += box.height + 12;
    return drawn;
  });
  height += MARGIN;
  const paper = page.getPropertyValue('--body-background-fill') || page.backgroundColor;
  return {
    width, height,
    text: `<svg xmlns="${NS}" xmlns:xlink="http://www.w3.org/1999/xlink" width="${width}" height="${height}" `
      + `viewBox="0 0 ${width} ${height}" font-family="${xml(page.fontFamily)}">`
      + `<rect width="100%" height="100%" fill="${paper}"/>${title}${under}${parts.join('')}</svg>`,
  };
}

// Call `make` while no element has a sticky position
function still(make) {
  document.body.classList.add('saving');
  try {
    return make();
  } finally {
    document.body.classList.remove('saving');
  }
}

async function png() {
  const { width, height, text } = still(picture);
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const scale = Math.min(2, 8000 / Math.max(width, height));
  const canvas = Object.assign(document.createElement('canvas'), { width: scale * width, height: scale * height });
  const context = canvas.getContext('2d');
  context.scale(scale, scale);
  context.drawImage(image, 0, 0, width, height);
  return new Promise((done) => { canvas.toBlob(done, 'image/png'); });
}

// ---- its values
function content() {
  const grids = seen('[data-grid]').map((map) => {
    const numbers = map.dataset.numbers.split(' ').map(Number);
    const columns = Number(map.dataset.grid.split('x')[1]);
    const rows = Array.from({ length: numbers.length / columns }, (_, row) => numbers.slice(row * columns, (row + 1) * columns));
    return { name: map.dataset.name, rows };
  });
  const tables = seen('.picture table').map((table) => ({
    head: [...table.querySelectorAll('thead th')].map(words),
    rows: [...table.querySelectorAll('tbody tr')].map((row) => [...row.children].map((one) => one.dataset.value ?? words(one))),
  }));
  const panels = seen('.picture svg[data-values]').map((svg) => {
    const { title, x, y, curves } = JSON.parse(svg.dataset.values);
    return { title, x, y, curves: curves.map(({ name, points }) => ({ name, points: points.map(([a, b]) => [a, b]) })) };
  });
  return {
    tab: question(), network: network(), address: location.href, says: seen('.sentence').map(words), panels, tables, grids,
  };
}

const quoted = (cell) => (/[",\n]/.test(cell) ? `"${String(cell).replaceAll('"', '""')}"` : String(cell));
const line = (cells) => cells.map(quoted).join(',');

function csv() {
  const { panels, tables, grids } = content();
  const blocks = tables.map(({ head, rows }) => [head, ...rows]);
  if (panels.length) {
    const rows = panels.flatMap(({ title, x, y, curves }) => curves.flatMap(({ name, points }) =>
      points.map(([a, b]) => [title, name, x, a, y, b])));
    blocks.unshift([['panel', 'curve', 'x is', 'x', 'y is', 'y'], ...rows]);
  }
  if (grids.length) {
    const rows = grids.flatMap(({ name, rows: lines }) => lines.map((cells, row) => [name, row, ...cells]));
    blocks.push([['map', 'row', 'values'], ...rows]);
  }
  return blocks.map((rows) => rows.map(line).join('\r\n')).join('\r\n\r\n');
}

function save(blob, ending) {
  const link = Object.assign(document.createElement('a'), { href: URL.createObjectURL(blob) });
  link.download = `${network()}-${element.querySelector('[data-name]').dataset.name}.${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const KINDS = {
  png: () => png(),
  svg: () => new Blob([still(picture).text], { type: 'image/svg+xml' }),
  csv: () => new Blob([`\ufeff${csv()}`], { type: 'text/csv' }),
  json: () => new Blob([JSON.stringify(content(), null, 1)], { type: 'application/json' }),
};

element.addEventListener('click', async ({ target }) => {
  const kind = target.dataset?.save;
  if (kind) save(await KINDS[kind](), kind);
});
