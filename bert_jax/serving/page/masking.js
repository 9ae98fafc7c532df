// Fill in the blank: choose tokens to mask, read the guesses, see how surprising each token is.
const MOST_SCORED = 160, MOST_BITS = 10;

function fillSection(models) {
  let text = "", units = [], buttons = [], masks = new Set(), guesses = new Map(), bits = null;
  const own = section("fill", models, () => begin(true));
  const [box, input] = textarea("text", 2, () => { keepMasks(); update(); });
  const tokens = toolbar("tokens");
  const tint = make("input", { type: "checkbox", id: "tint", checked: true, onchange: () => { bits = null; paint(); update(0); } });
  const clear = make("button", { type: "button", say: "clear", onclick: () => { masks.clear(); guesses.clear(); paint(); update(0); input.focus(); } });
  const legend = make("span", { class: "legend", "aria-hidden": "true" }, make("span", { say: "low" }), make("i"), make("span", { say: "high" }));
  const total = make("p", { class: "total" }), blanks = make("div", { class: "blanks" }), spoken = make("p", { class: "hidden", role: "status" });
  own.node.append(box, tokens.box,
    make("div", { class: "controls" }, make("span", {}, tint, make("label", { for: "tint", say: "tint" })), legend, clear),
    total, blanks, spoken, make("p", { class: "note", role: "status" }));
  const update = live(own.node, work);

  function keepMasks() {
    const before = points(text), after = points(input.value);
    masks = new Set([...masks].map((place) => moved(place, before, after)).filter((place) => place >= 0));
    text = input.value;
  }

  const isMasked = (unit) => unit.fixed || masks.has(unit.start);

  async function work(signal) {
    text = input.value;
    const model = own.model(), shown = text;
    const found = shown.trim() ? unitsOf(shown, (await tokensOf(model, [shown], signal))[0]) : [];
    const same = found.length === buttons.length && found.every((unit, index) => label(shown, unit) === buttons[index].dataset.text);
    units = found;
    if (!same) { guesses.clear(); bits = null; build(); }
    paint();
    if (!units.length) {
      note(own.node, shown.trim() ? word("unreadable") : "");
      return;
    }
    const count = units.reduce((sum, unit) => sum + unit.pieces.length, 0);
    if (count > model.max_tokens - 2) note(own.node, word("tooLong", model.max_tokens - 2));
    await Promise.all([guess(model, shown, signal), score(model, shown, count, signal)]);
  }

  async function guess(model, shown, signal) {
    const chosen = units.filter(isMasked);
    if (!chosen.length) {
      guesses.clear();
      paint();
      return;
    }
    const characters = points(shown);
    let masked = "", place = 0;
    for (const unit of chosen) {
      masked += part(characters, place, unit.start) + "[MASK]".repeat(unit.pieces.length);
      place = unit.stop;
    }
    const body = { texts: masked + part(characters, place), model: model.name, truncate: true };
    const found = (await ask("fill-mask", body, signal)).answers[0].masks;
    guesses = new Map();
    for (const unit of chosen) guesses.set(unit.start, found.splice(0, unit.pieces.length));
    paint();
    spoken.textContent = chosen.map((unit, index) => `${word("blank", index + 1)}: ${best(unit)}`).join("; ");
  }

  async function score(model, shown, count, signal) {
    if (!tint.checked || !model.questions.includes("score")) return;
    if (count > MOST_SCORED) {
      note(own.node, word("longScore"));
      return;
    }
    const found = (await ask("score", { texts: shown, model: model.name, tokens: true, truncate: true }, signal)).answers[0].tokens;
    bits = new Map();
    for (const token of found) {
      const unit = units.find(({ start, stop }) => start <= token.start && token.start < stop);
      if (unit) bits.set(unit.start, (bits.get(unit.start) ?? 0) - token.log_probability / Math.LN2);
    }
    const sum = [...bits.values()].reduce((a, b) => a + b, 0);
    total.textContent = found.length ? word("total", sum.toFixed(1), (sum / found.length).toFixed(1)) : "";
    paint();
  }

  const label = (shown, unit) => part(points(shown), unit.start, unit.stop);
  const bare = (token) => token.replace(/^##/, "");
  const best = (unit) => {
    const found = guesses.get(unit.start);
    return found?.every((mask) => mask.length) ? `${spelled(found.map((mask) => mask[0].token))} ${found.map((mask) => percent(mask[0].probability)).join(", ")}` : "";
  };

  function build() {
    const nodes = [], characters = points(text), focused = buttons.indexOf(document.activeElement);
    let place = 0;
    buttons = units.map((unit) => {
      nodes.push(part(characters, place, unit.start));
      const button = make("button", { type: "button", "data-text": label(text, unit), onclick: () => toggle(button) });
      nodes.push(button);
      place = unit.stop;
      return button;
    });
    tokens.fill([...nodes, part(characters, place)]);
    if (focused >= 0) buttons[Math.min(focused, buttons.length - 1)]?.focus();
  }

  function toggle(button) {
    const unit = units[buttons.indexOf(button)];
    if (unit.fixed) return;
    if (!masks.delete(unit.start)) masks.add(unit.start);
    guesses.delete(unit.start);
    paint();
    update(0);
  }

  function paint() {
    if (!bits) total.textContent = "";
    legend.hidden = !bits;
    units.forEach((unit, index) => {
      const button = buttons[index], masked = isMasked(unit), shown = button.dataset.text, amount = masked ? undefined : bits?.get(unit.start);
      const found = guesses.get(unit.start);
      button.classList.toggle("masked", masked);
      button.setAttribute("aria-pressed", masked);
      button.textContent = masked ? (found ? spelled(found.map((mask) => mask[0].token)) : "…") : shown;
      const says = [unit.fixed ? word("masked") : shown];
      if (masked && !unit.fixed) says.push(word("masked"));
      if (found) says.push(word("guess", button.textContent, found.map((mask) => percent(mask[0].probability)).join(", ")));
      if (amount !== undefined) says.push(word("surprisal", amount.toFixed(1)));
      button.setAttribute("aria-label", says.join(", "));
      button.title = says.slice(1).join(", ");
      button.style.setProperty("--amount", amount === undefined ? "0%" : `${100 * Math.min(1, amount / MOST_BITS)}%`);
    });
    const chosen = units.filter(isMasked);
    clear.hidden = !masks.size;
    blanks.replaceChildren(...chosen.flatMap((unit, index) => (guesses.get(unit.start) ?? []).map((mask, piece) => {
      const { text: token, special } = unit.pieces[piece], was = unit.fixed ? "" : special ? label(text, unit) : bare(token);
      const many = unit.pieces.length > 1 ? `.${piece + 1}` : "";
      return make("article", {}, make("h3", {}, word("blank", `${index + 1}${many}`), was ? make("small", {}, word("was", was)) : null),
        bars(mask.map((guess) => [guess.token, guess.probability, guess.token === token && !unit.fixed ? "right" : ""])));
    })));
  }

  async function begin(anew) {
    const example = await examplesFor(own.model());
    if (!text || anew) {
      text = input.value = text && anew ? text : example.text;
      if (text === example.text) masks = new Set([points(text.slice(0, text.indexOf(example.mask))).length]);
      buttons = [];
    }
    update(0);
  }

  return { node: own.node, begin: () => begin(false) };
}
