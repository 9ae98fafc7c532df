// What all sections use: nodes, places in texts, bars.
function make(tag, settings = {}, ...children) {
  const svg = ["svg", "g", "line", "rect", "circle", "text", "path"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(settings)) {
    if (name === "say") { node.dataset.say = value; node.textContent = word(value); }
    else if (name === "label") { node.dataset.label = value; node.setAttribute("aria-label", word(value)); }
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) node.style.setProperty(name, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

class Refused extends Error {}

// Returns a function that does the work once its input has been still, and drops what a later call has overtaken.
function live(section, work) {
  let timer = 0, current = null;
  return (wait = 250) => {
    clearTimeout(timer);
    current?.abort();
    timer = setTimeout(async () => {
      const own = (current = new AbortController());
      section.setAttribute("aria-busy", "true");
      try {
        note(section, "");
        await work(own.signal);
      } catch (error) {
        if (own.signal.aborted) return;
        if (!(error instanceof Refused)) throw error;
        note(section, error.message);
      } finally {
        if (own === current) section.removeAttribute("aria-busy");
      }
    }, wait);
  };
}

function note(section, message) {
  section.querySelector(".note").textContent = message;
}

// Places in texts are those of Python, in code points; JavaScript counts UTF-16 units.
const points = (text) => Array.from(text);
const part = (characters, start, end) => characters.slice(start, end).join("");

// The places, in code points, at which no character that a person sees is cut in two.
function borders(text) {
  const found = new Set([0]);
  let place = 0;
  for (const { segment } of new Intl.Segmenter(undefined, { granularity: "grapheme" }).segment(text)) found.add((place += points(segment).length));
  return found;
}

// Tokens joined to words: pieces of one, and what would cut a visible character.
function unitsOf(text, tokens) {
  const whole = borders(text), units = [];
  for (const token of tokens) {
    if (token.start === null || token.stop <= token.start) continue;
    const last = units.at(-1);
    const fixed = token.special && token.text === "[MASK]"; // typed as such
    const piece = last && !last.fixed && !fixed && token.start === last.stop && token.text.startsWith("##");
    if (last && (piece || token.start < last.stop || !whole.has(token.start))) {
      last.stop = Math.max(last.stop, token.stop);
      last.pieces.push(token);
    } else units.push({ start: token.start, stop: token.stop, fixed, pieces: [token] });
  }
  for (const unit of units) {
    while (!whole.has(unit.start)) unit.start--;
    while (!whole.has(unit.stop)) unit.stop++; // accents that the vocabulary leaves out
  }
  return units;
}

// Tokens as a person writes them: word pieces without their marks, and bytes, such as <0xE5>, as the characters that they spell.
function spelled(tokens) {
  const bytes = tokens.flatMap((token) => {
    const byte = /^<0x([0-9A-F]{2})>$/.exec(token);
    return byte ? [parseInt(byte[1], 16)] : [...new TextEncoder().encode(token.replace(/^##/, ""))];
  });
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes));
}

// Where a place of the old text is in the new one, if both differ in one stretch; -1 if it was in it.
function moved(place, before, after) {
  let head = 0, tail = 0;
  const shortest = Math.min(before.length, after.length);
  while (head < shortest && before[head] === after[head]) head++;
  while (tail < shortest - head && before.at(-1 - tail) === after.at(-1 - tail)) tail++;
  return place < head ? place : place >= before.length - tail ? place + after.length - before.length : -1;
}

const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}%`;

// Bars of [name, share, class, what to say of the share if it is no percentage], greatest first.
function bars(rows) {
  return make("ol", { class: "bars" }, ...rows.map(([name, share, kind, value]) =>
    make("li", { class: kind }, make("b", {}, name), make("span", { class: "bar", "aria-hidden": "true" }, make("i", { "--share": `${100 * share}%` })),
      make("span", { class: "share" }, value || percent(share)))));
}

// One stop for the Tab key; arrow keys move among the buttons.
function toolbar(label) {
  const box = make("div", { role: "toolbar", label, class: "tokens" });
  const buttons = () => [...box.querySelectorAll("button")];
  const stop = (chosen) => buttons().forEach((button) => (button.tabIndex = button === chosen ? 0 : -1));
  box.addEventListener("focusin", (event) => stop(event.target));
  box.addEventListener("keydown", (event) => {
    const all = buttons(), at = all.indexOf(document.activeElement);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (to === undefined || !all[to]) return;
    event.preventDefault();
    all[to].focus();
  });
  return { box, fill(nodes) { box.replaceChildren(...nodes); stop(buttons()[0]); } };
}

let made = 0;

function field(label, control) {
  control.id = `field${++made}`;
  return make("div", { class: "field" }, make("label", { for: control.id, say: label }), control);
}

function textarea(label, rows, changed) {
  const control = make("textarea", { rows, spellcheck: "false", dir: "auto", oninput: changed });
  return [field(label, control), control];
}

// A section about a question; `models` are those that answer it.
function section(name, models, changed) {
  const select = make("select", { onchange: changed }, ...models.map((model, index) => make("option", { value: index, "data-name": model.name, "data-noun": model.noun }, word("modelOf", model.name, model.noun))));
  const node = make("section", { id: name, "aria-labelledby": `${name}-title` },
    make("h2", { id: `${name}-title`, say: name }), make("p", { class: "help", say: `${name}Help` }));
  if (models.length > 1) node.append(field("model", select));
  return { node, model: () => models[Number(select.value) || 0] };
}

async function tokensOf(model, texts, signal) {
  return ask("tokenize", { inputs: texts, model: model.name }, signal);
}

// The examples in the language of a model: the one that it reads in fewer unknown tokens and pieces.
const languages = new Map();
async function examplesFor(model, signal) {
  if (!languages.has(model.name)) {
    const codes = Object.keys(EXAMPLES), found = await tokensOf(model, codes.map((code) => EXAMPLES[code].text), signal);
    const odd = found.map((tokens) => tokens.filter(({ text, special }) => text.startsWith("##") || (special && text !== "[CLS]" && text !== "[SEP]")).length / tokens.length);
    languages.set(model.name, odd[0] === odd[1] ? language : codes[odd[0] < odd[1] ? 0 : 1]);
  }
  return EXAMPLES[languages.get(model.name)];
}
