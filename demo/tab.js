// The ear of a tab. The page says 'digit' when the drawing or the model has changed; the tab's heading hears it and
// passes it on as its 'input' event, but only while it is visible: a hidden tab catches up when it is shown.
let stale = true;
const refresh = () => {
  if (!stale || !element.offsetParent) return;
  stale = false;
  trigger('input');
};
document.addEventListener('digit', () => {
  stale = true;
  refresh();
});
new ResizeObserver(refresh).observe(element); // shown, hidden, or only just built
