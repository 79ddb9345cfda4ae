// Show the values of a tab's picture at the mouse, finger or arrow keys, and highlight a channel in all pictures.
// `svg[data-values]`: a panel of a figure (demo/svg.py). `[data-grid]`: the map of a channel. `[data-tip]`: a text.
const tip = document.querySelector('.tip') ?? document.body.appendChild(
  Object.assign(document.createElement('div'), { className: 'tip', hidden: true }));
const NS = 'http://www.w3.org/2000/svg';
const signed = (text) => String(text).replaceAll('-', '−');
const percent = (share) => { // as bnmodel.plotting.percent
  if (share > 0 && share < 0.001) return 'below 0.1%';
  if (share > 0.999 && share < 1) return 'above 99.9%';
  return `${+(100 * share).toPrecision(3)}%`;
};
const number = (value, share) => (share ? percent(value) : signed(+value.toPrecision(4)));
const escaped = (text) => Object.assign(document.createElement('i'), { textContent: text }).innerHTML;

function show(html, x, y) {
  tip.innerHTML = html;
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = Math.min(Math.max(4, x + 14), document.documentElement.clientWidth - width - 4);
  tip.style.left = `${left}px`;
  tip.style.top = `${y - height - 12 > 4 ? y - height - 12 : y + 18}px`;
}

function hide() {
  tip.hidden = true;
  element.querySelectorAll('.touched').forEach((mark) => mark.remove());
  highlight(null);
}

// ---- panels
const read = new WeakMap();
function values(svg) {
  if (!read.has(svg)) read.set(svg, JSON.parse(svg.dataset.values));
  return read.get(svg);
}

// The points closest to `at`, an x coordinate of the panel, at most one per curve: [{ name, point }, …]
function nearest({ curves }, at) {
  const all = curves.flatMap(({ name, points }) => points.map((point) => ({ name, point })));
  const first = all.reduce((a, b) => (Math.abs(b.point[2] - at) < Math.abs(a.point[2] - at) ? b : a));
  return curves.flatMap(({ name, points }) => {
    const point = points.reduce((a, b) => (Math.abs(b[2] - first.point[2]) < Math.abs(a[2] - first.point[2]) ? b : a));
    return Math.abs(point[2] - first.point[2]) < 7 ? [{ name, point }] : [];
  });
}

function readPanel(svg, at, x, y) {
  const panel = values(svg);
  const found = nearest(panel, at);
  element.querySelectorAll('.touched').forEach((mark) => mark.remove());
  const place = found[0].point[0];
  const named = panel.ticks.find(([tick]) => Math.abs(tick - place) < 0.5);
  const rows = found.map(({ name, point }) => {
    const mark = svg.appendChild(document.createElementNS(NS, 'circle'));
    for (const [key, value] of Object.entries({ class: 'touched', cx: point[2], cy: point[3], r: 4 })) {
      mark.setAttribute(key, value);
    }
    return `<div>${escaped(name || panel.y || panel.title)} <b>${number(point[1], panel.share)}</b></div>`;
  });
  const head = `${escaped(panel.x || 'x')} ${named ? escaped(named[1]) : number(place)}`;
  show(`<small>${head}</small>${rows.join('')}${panel.levels.map((level) => `<div>${escaped(level)}</div>`).join('')}`, x, y);
}

function panelAt(svg, x) {
  const box = svg.viewBox.baseVal;
  const { left, width } = svg.getBoundingClientRect();
  return box.x + ((x - left) / width) * box.width;
}

// ---- maps of a channel: the same pixel in all of them
function cell(map, x, y) {
  const { left, top, width, height } = map.getBoundingClientRect();
  const [rows, columns] = map.dataset.grid.split('x').map(Number);
  const inside = (share, count) => Math.min(count - 1, Math.max(0, Math.floor(share * count)));
  return { rows, columns, row: inside((y - top) / height, rows), column: inside((x - left) / width, columns) };
}

function readMap(map, { columns, row, column }, x, y) {
  const value = map.dataset.numbers.split(' ')[row * columns + column];
  show(`<small>row ${row}, column ${column}</small><div>${escaped(map.dataset.name)} <b>${signed(value)}</b></div>`, x, y);
  for (const other of element.querySelectorAll(`[data-grid="${map.dataset.grid}"]`)) {
    const spot = other.querySelector('.spot');
    if (spot) spot.style.cssText = place(other, row, column);
  }
}

function place(map, row, column) {
  const [rows, columns] = map.dataset.grid.split('x').map(Number);
  const share = (part, of) => `${(100 * part) / of}%`;
  return `left: ${share(column, columns)}; top: ${share(row, rows)}; width: ${share(1, columns)}; height: ${share(1, rows)}`;
}

// ---- channels
function highlight(channel) {
  const tab = element.closest('.tabitem') ?? element;
  tab.querySelectorAll('.hot').forEach((one) => one.classList.remove('hot'));
  if (channel === null) return;
  tab.querySelectorAll(`[data-channel="${channel}"]`).forEach((one) => one.classList.add('hot'));
}

// ---- pointer and keys
function touch(event) {
  const { target, clientX: x, clientY: y } = event;
  if (!(target instanceof Element)) return;
  const svg = target.closest('svg[data-values]');
  const map = target.closest('[data-grid]');
  const told = target.closest('[data-tip]');
  highlight(target.closest('[data-channel]')?.dataset.channel ?? null);
  if (svg) readPanel(svg, panelAt(svg, x), x, y);
  else if (map) readMap(map, cell(map, x, y), x, y);
  else if (told) show(escaped(told.dataset.tip), x, y);
  else hide();
}

function choose(what, value) {
  window.touched = { ...window.touched, [what]: value };
  trigger(what === 'pixel' ? 'select' : 'apply');
}

element.addEventListener('pointermove', touch);
element.addEventListener('pointerdown', touch);
element.addEventListener('pointerleave', hide);
document.addEventListener('scroll', () => { tip.hidden = true; }, { passive: true });
element.addEventListener('click', ({ target, clientX, clientY }) => {
  const map = target.closest('[data-grid].choosable');
  if (map) {
    const { columns, row, column } = cell(map, clientX, clientY);
    choose('pixel', row * columns + column);
  }
  const channel = target.closest('button[data-channel]');
  if (channel) choose('channel', Number(channel.dataset.channel));
});
element.addEventListener('keydown', (event) => {
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (event.key === 'Escape') hide();
  if (!step) return;
  const map = event.target.closest('[data-grid].choosable');
  const svg = event.target.closest('svg[data-values]');
  if (map) {
    const [rows, columns] = map.dataset.grid.split('x').map(Number);
    const at = Number(map.dataset.pixel);
    const row = Math.min(rows - 1, Math.max(0, Math.floor(at / columns) + step[0]));
    const column = Math.min(columns - 1, Math.max(0, (at % columns) + step[1]));
    map.dataset.pixel = row * columns + column;
    choose('pixel', row * columns + column);
  } else if (svg && step[1]) {
    const places = [...new Set(values(svg).curves.flatMap(({ points }) => points.map((point) => point[2])))].sort((a, b) => a - b);
    const now = places.indexOf(Number(svg.dataset.at));
    const at = places[Math.min(places.length - 1, Math.max(0, now + step[1]))];
    svg.dataset.at = at;
    const { left, top, width } = svg.getBoundingClientRect();
    const box = svg.viewBox.baseVal;
    readPanel(svg, at, left + ((at - box.x) / box.width) * width, top + 20);
  } else return;
  event.preventDefault();
});
