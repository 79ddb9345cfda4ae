// The tab and its controls in the address, so that a link restores them. Runs once, when the page opens;
// demo/url_state.py calls its functions. Other parameters (__theme, …) stay as they are.

const asked = new URLSearchParams(location.search);
const groups = new Map(); // of controls, by the name of their tab: {controls: {key: {value, …}}, values: {key: value}}
let first; // tab
let visible;
let timer;

// The value of a control that `text` stands for; undefined if it is not valid.
function read(text, control) {
  if (text === null) return undefined;
  if (control.choices) return control.choices.find((choice) => String(choice) === text);
  const number = text.trim() === '' ? NaN : Number(text);
  if (!Number.isFinite(number)) return undefined;
  const start = control.minimum ?? 0;
  const stepped = control.step ? start + Math.round((number - start) / control.step) * control.step : number;
  const clamped = Math.max(control.minimum ?? -Infinity, Math.min(control.maximum ?? Infinity, stepped));
  return Number(clamped.toPrecision(12)); // 0.1 + 0.2 is 0.3
}

function link() {
  const address = new URL(location.href);
  const state = address.searchParams;
  for (const { controls } of groups.values()) Object.keys(controls).forEach((key) => state.delete(key));
  state.delete('tab');
  if (visible !== first) state.set('tab', visible);
  for (const name of ['', visible]) {
    const { controls, values } = groups.get(name) ?? { controls: {} };
    for (const [key, control] of Object.entries(controls)) {
      const value = values[key] ?? control.value; // a number field may be empty
      if (String(value) !== String(control.value)) state.set(key, value);
    }
  }
  return address.href;
}

function write() {
  clearTimeout(timer); // browsers limit the number of changes per second, and a slider changes often
  timer = setTimeout(replace, 150);
}

function replace() {
  clearTimeout(timer);
  history.replaceState(history.state, '', link());
}

function tell() {
  document.dispatchEvent(new CustomEvent('tab', { detail: visible }));
}

// Back and forward go from tab to tab; the controls stay as they are.
window.addEventListener('popstate', () => {
  const tab = new URLSearchParams(location.search).get('tab');
  visible = tab && groups.has(tab) ? tab : first;
  document.querySelector(`.tab-container [data-tab-id="${visible}"]`)?.click();
  tell();
  write();
});

window.urlState = {
  // At load: Gradio's updates of the tabs, then of the controls, for this address. `described`: {tab: {key: control}},
  // '' for the controls that all tabs share.
  open(described) {
    const set = (property, value) => ({ __type__: 'update', ...(value !== undefined && { [property]: value }) });
    const updates = [];
    for (const [name, controls] of Object.entries(described)) {
      const values = {};
      for (const [key, control] of Object.entries(controls)) {
        values[key] = read(asked.get(key), control);
        updates.push(set('value', values[key]));
      }
      groups.set(name, { controls, values });
    }
    [first] = Object.keys(described).filter(Boolean);
    const tab = asked.get('tab');
    const known = tab && groups.has(tab);
    visible = known ? tab : first;
    tell();
    return [set('selected', known ? tab : undefined), ...updates];
  },
  note(name, keys, values) {
    keys.forEach((key, k) => { groups.get(name).values[key] = values[k]; });
    write();
  },
  show(name) {
    if (name === visible) return;
    replace(); // what is pending belongs to the tab that is left
    visible = name;
    history.pushState(null, '', link());
    tell();
  },
  defaults(name) {
    return Object.values(groups.get(name).controls).map((control) => control.value);
  },
  async copy() {
    const code = window.drawingCode?.();
    const whole = link().replace(/#.*$/, '') + (code ? `#drawing=${code}` : '');
    try {
      await navigator.clipboard.writeText(whole);
      return true;
    } catch { // no https, or not permitted in this frame
      const text = Object.assign(document.createElement('textarea'), { value: whole, className: 'hidden-text' });
      document.body.append(text);
      text.select();
      const copied = document.execCommand('copy');
      text.remove();
      if (!copied) history.replaceState(history.state, '', whole); // to be copied from there
      return copied;
    }
  },
};
