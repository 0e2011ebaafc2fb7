// The page: a pen, a picture of 64 × 64 pixels for the model, and bars for what the model answers.
import { load } from "./nearfield.js";

const SIZE = 64; // of the model's picture
const PEN = 0.095; // width of a stroke, as a share of the paper
const STEP = 1 / 16; // of the pen, when keys move it

const $ = (id) => document.getElementById(id);
const sheet = $("sheet");
const paper = sheet.getContext("2d");
const picture = Object.assign(document.createElement("canvas"), { width: SIZE, height: SIZE });
const dark = matchMedia("(prefers-color-scheme: dark)");

// -- what is drawn: strokes, each a list of [x, y] from 0 to 1 ---------------------------------------------------------------

let strokes = [];
const pen = { x: 0.5, y: 0.25, isDown: false, byKeys: false };

function trace(context, size, stroke) {
  context.beginPath();
  context.moveTo(stroke[0][0] * size, stroke[0][1] * size);
  if (stroke.length === 1) context.lineTo(stroke[0][0] * size + 0.01, stroke[0][1] * size); // a dot: its ends are round
  for (let i = 1; i < stroke.length; i++) {
    const [x, y] = stroke[i];
    const [a, b] = stroke[i + 1] ?? stroke[i];
    context.quadraticCurveTo(x * size, y * size, ((x + a) / 2) * size, ((y + b) / 2) * size); // corners become curves
  }
  context.stroke();
}

function draw(context, size, colour) {
  Object.assign(context, { strokeStyle: colour, lineWidth: PEN * size, lineCap: "round", lineJoin: "round" });
  for (const stroke of strokes) trace(context, size, stroke);
}

function show() {
  const side = Math.round(sheet.clientWidth * devicePixelRatio) || 640;
  if (sheet.width !== side) sheet.width = sheet.height = side;
  paper.clearRect(0, 0, side, side);
  const style = getComputedStyle(sheet);
  draw(paper, side, style.color);
  if (pen.byKeys && document.activeElement === sheet) {
    paper.beginPath();
    paper.arc(pen.x * side, pen.y * side, (PEN / 2) * side, 0, 2 * Math.PI);
    Object.assign(paper, { fillStyle: style.getPropertyValue("--accent"), strokeStyle: style.getPropertyValue("--accent"), lineWidth: side / 160 });
    if (pen.isDown) paper.fill();
    else paper.stroke();
  }
  document.body.classList.toggle("drawn", strokes.length > 0);
  $("undo").disabled = $("clear").disabled = strokes.length === 0;
}

function changed({ ended = false } = {}) {
  show();
  read(ended);
}

function clear() {
  strokes = [];
  pen.isDown = false;
  changed({ ended: true });
}

function undo() {
  strokes.pop();
  pen.isDown = false;
  changed({ ended: true });
}

// -- pen, finger, mouse -----------------------------------------------------------------------------------------------------

const held = new Map(); // the stroke that each pointer draws

function point(event) {
  const box = sheet.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

sheet.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  event.preventDefault();
  sheet.focus({ preventScroll: true, focusVisible: false });
  sheet.setPointerCapture(event.pointerId);
  pen.byKeys = pen.isDown = false;
  const stroke = [point(event)];
  held.set(event.pointerId, stroke);
  strokes.push(stroke);
  changed();
});
sheet.addEventListener("pointermove", (event) => {
  const stroke = held.get(event.pointerId);
  if (!stroke) return;
  const events = event.getCoalescedEvents?.() ?? [];
  stroke.push(...(events.length ? events : [event]).map(point));
  changed();
});
for (const name of ["pointerup", "pointercancel"])
  sheet.addEventListener(name, (event) => {
    if (held.delete(event.pointerId)) changed({ ended: true });
  });

// -- keyboard ----------------------------------------------------------------------------------------------------------------

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

sheet.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const arrow = ARROWS[event.key];
  if (arrow) {
    pen.x = Math.min(1 - STEP, Math.max(STEP, pen.x + arrow[0] * STEP));
    pen.y = Math.min(1 - STEP, Math.max(STEP, pen.y + arrow[1] * STEP));
    if (pen.isDown) strokes.at(-1).push([pen.x, pen.y]);
  } else if (event.key === " " || event.key === "Enter") {
    if (event.repeat) return event.preventDefault();
    pen.isDown = !pen.isDown;
    if (pen.isDown) strokes.push([[pen.x, pen.y]]);
  } else if (event.key === "Backspace") undo();
  else if (event.key === "Escape" || event.key === "Delete") clear();
  else return;
  event.preventDefault();
  pen.byKeys = true;
  changed({ ended: !pen.isDown });
});
sheet.addEventListener("focus", () => {
  pen.byKeys = sheet.matches(":focus-visible");
  show();
});
sheet.addEventListener("blur", () => {
  pen.isDown = false;
  show();
});
$("undo").addEventListener("click", undo);
$("clear").addEventListener("click", clear);
new ResizeObserver(show).observe(sheet);
dark.addEventListener("change", () => (show(), paint()));

// -- the model ------------------------------------------------------------------------------------------------------------------

let model;
let labels = [..."0123456789"];
let bars = [];
let seen = new Float32Array(64);
let milliseconds = 0;
let isBusy = false;
let isDue = false;
let isEnded = false; // has a stroke ended since the last answer?

function makeBars() {
  bars = labels.map((label) => {
    const row = document.createElement("li");
    const [name, meter, share] = ["span", "div", "span"].map((tag) => row.appendChild(document.createElement(tag)));
    name.textContent = label;
    name.ariaHidden = share.ariaHidden = "true";
    for (const [key, value] of Object.entries({ role: "meter", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100 })) meter.setAttribute(key, value);
    return { row, meter, share };
  });
  $("bars").replaceChildren(...bars.map(({ row }) => row));
}

/** The answer for what is drawn now; while one is being made, the next one waits. */
async function read(ended) {
  isEnded ||= ended;
  isDue = true;
  if (isBusy || !model) return;
  isBusy = true;
  document.body.dataset.busy = "true";
  while (isDue) {
    isDue = false;
    const mine = model;
    const context = picture.getContext("2d", { willReadFrequently: true });
    Object.assign(context, { fillStyle: "black" }).fillRect(0, 0, SIZE, SIZE);
    draw(context, SIZE, "white");
    const start = performance.now();
    try {
      const answer = await mine.run({ drawing: picture });
      const took = performance.now() - start;
      milliseconds = milliseconds ? 0.8 * milliseconds + 0.2 * took : took;
      seen = answer.seen;
      tell(answer.probabilities);
    } catch (error) {
      if (mine === model) $("status").textContent = `The model stopped: ${error.message}`;
      break;
    }
  }
  isBusy = false;
  document.body.dataset.busy = "false";
}

function tell(probabilities) {
  const isEmpty = strokes.length === 0;
  const best = probabilities.indexOf(Math.max(...probabilities));
  bars.forEach(({ row, meter, share }, i) => {
    const p = isEmpty ? 0 : probabilities[i];
    row.classList.toggle("best", !isEmpty && i === best);
    meter.style.setProperty("--share", p);
    meter.setAttribute("aria-valuenow", (100 * p).toFixed(1));
    share.textContent = isEmpty ? "" : `${(100 * p).toFixed(p > 0.9995 ? 0 : 1)} %`;
  });
  const digit = isEmpty ? "–" : labels[best];
  const p = probabilities[best];
  const sure = isEmpty ? "Nothing drawn yet" : `${p > 0.95 ? "for sure" : p > 0.6 ? "probably" : "perhaps"}, ${Math.round(100 * p)} %`;
  const [shown, words] = $("answer").children;
  if (shown.textContent !== digit) shown.textContent = digit;
  if (words.textContent !== sure) words.textContent = sure;
  if (isEnded && !isDue) {
    isEnded = false; // people see every change; a screen reader says the answer when a stroke has ended
    $("said").textContent = isEmpty ? sure : `${digit}, ${sure}`;
  }
  document.body.dataset.answer = isEmpty ? "" : digit;
  $("status").textContent = `${milliseconds < 10 ? milliseconds.toFixed(1) : Math.round(milliseconds)} ms for an answer`;
  paint();
}

/** The 8 × 8 cells that the network gets. */
function paint() {
  const context = $("seen").getContext("2d");
  const ink = getComputedStyle(sheet).color.match(/\d+/g).map(Number);
  const cells = context.createImageData(8, 8);
  seen.forEach((value, i) => cells.data.set([...ink.slice(0, 3), 255 * Math.min(1, value)], 4 * i));
  context.putImageData(cells, 0, 0);
}

const choices = [...document.querySelectorAll("[name=device]")];

async function choose(device) {
  $("devices").disabled = true;
  $("status").textContent = "Loading the model …";
  try {
    const onProgress = ({ loaded }) => ($("status").textContent = `Loading the model: ${Math.round(loaded / 1000)} kB`);
    const next = await load("./model/", { device, onProgress });
    const old = model;
    model = next;
    old?.close();
    labels = model.labels;
    milliseconds = 0;
    makeBars();
    choices.forEach((choice) => (choice.checked = choice.value === model.device));
    document.body.dataset.device = model.device;
    await read(true);
  } catch (error) {
    for (const choice of choices) {
      if (choice.value === device) choice.disabled = true;
      choice.checked = choice.value === model?.device;
    }
    $("status").textContent = `${model ? "Not here" : "The model cannot be loaded"}: ${error.message}`;
  }
  $("devices").disabled = false;
}

for (const choice of choices)
  choice.addEventListener("change", async () => {
    const url = new URL(location);
    url.searchParams.set("device", choice.value);
    history.replaceState(null, "", url);
    await choose(choice.value);
    choice.focus();
  });

makeBars();
show();
choose(new URLSearchParams(location.search).get("device") ?? undefined);
