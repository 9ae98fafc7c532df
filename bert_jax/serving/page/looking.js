// Attention: which token looks at which, as lines and as a map.
const MOST_TOKENS = 48, LINES_PER_TOKEN = 4;

const brief = (token, most) => (points(token).length > most ? `${part(points(token), 0, most - 1)}…` : token);

function attentionSection(models) {
  let found = null, chosen = -1, buttons = [];
  const own = section("attention", models, () => { choices(); update(0); });
  const [box, input] = textarea("text", 2, () => update());
  const layer = make("select", { onchange: () => update(0) }), head = make("select", { onchange: () => draw() });
  const tokens = toolbar("looking"), spoken = make("p", { role: "status", class: "total" }), shown = make("div", { class: "pair" });
  own.node.append(box, make("div", { class: "controls" }, field("layer", layer), field("head", head)), tokens.box, spoken, shown,
    make("p", { class: "note", role: "status" }));

  function choices() {
    const model = own.model(), numbers = (count) => Array.from({ length: count }, (_, index) => make("option", { value: index + 1 }, String(index + 1)));
    layer.replaceChildren(...numbers(model.layers));
    layer.value = model.layers;
    head.replaceChildren(make("option", { value: 0, say: "mean" }), ...numbers(model.heads));
  }

  const update = live(own.node, async (signal) => {
    const model = own.model(), text = input.value;
    const count = text.trim() ? (await tokensOf(model, [text], signal))[0].length : 0;
    if (count < 3) {
      found = null;
      draw();
      return;
    }
    const asked = { texts: text, model: model.name, layer: Number(layer.value), truncate: true };
    const answer = (await ask("attention", asked, signal)).answers[0];
    if (answer.tokens.length > MOST_TOKENS) note(own.node, word("tooLong", MOST_TOKENS));
    found = { tokens: answer.tokens.slice(0, MOST_TOKENS), heads: answer.weights[0].map((rows) => rows.slice(0, MOST_TOKENS).map((row) => row.slice(0, MOST_TOKENS))) };
    build();
    draw();
  });

  function weights() {
    const index = Number(head.value);
    if (index) return found.heads[index - 1];
    return found.tokens.map((_, row) => found.tokens.map((_, column) => found.heads.reduce((sum, one) => sum + one[row][column], 0) / found.heads.length));
  }

  function build() {
    const focused = buttons.indexOf(document.activeElement);
    chosen = chosen < found.tokens.length ? chosen : -1;
    buttons = found.tokens.map((token, index) => make("button", { type: "button", onclick: () => { chosen = chosen === index ? -1 : index; draw(); } }, token));
    tokens.fill(buttons);
    if (focused >= 0) buttons[Math.min(focused, buttons.length - 1)].focus();
  }

  function draw() {
    if (!found) {
      tokens.fill([]);
      shown.replaceChildren();
      spoken.textContent = "";
      return;
    }
    const rows = weights();
    buttons.forEach((button, index) => button.setAttribute("aria-pressed", index === chosen));
    const most = Math.max(...rows.flat());
    shown.replaceChildren(lines(rows, chosen < 0 ? most : Math.max(...rows[chosen])), map(rows, most));
    if (chosen < 0) {
      spoken.textContent = "";
      return;
    }
    const order = found.tokens.map((_, index) => index).sort((a, b) => rows[chosen][b] - rows[chosen][a]).slice(0, 5);
    spoken.textContent = word("looks", found.tokens[chosen], order.map((index) => `${found.tokens[index]} ${percent(rows[chosen][index])}`).join(", "));
  }

  // Everything is drawn relative to the greatest weight that is drawn, which the caption tells.
  function lines(rows, most) {
    const count = rows.length, step = 22, place = (index) => 16 + step * index;
    const pairs = rows.flatMap((row, from) => row.map((weight, to) => ({ weight, from, to }))).filter(({ from }) => chosen < 0 || from === chosen);
    const strongest = pairs.sort((a, b) => b.weight - a.weight).slice(0, chosen < 0 ? LINES_PER_TOKEN * count : count).filter(({ weight }) => weight > 0.01).reverse();
    const names = (x, anchor, marked) => found.tokens.map((token, index) =>
      make("text", { x, y: place(index) + 5, "text-anchor": anchor, "font-size": 13, class: marked && index === chosen ? "name chosen" : "name" }, brief(token, 11)));
    return make("figure", {}, make("svg", { viewBox: `0 0 320 ${step * count + 10}`, role: "img", "aria-label": word("linesOf", percent(most)) },
      ...strongest.map(({ weight, from, to }) => make("line", { x1: 100, y1: place(from), x2: 220, y2: place(to), class: "look", "stroke-opacity": (weight / most) ** 2, "stroke-width": 1 + (2 * weight) / most })),
      ...names(92, "end", true), ...names(228, "start", false)), make("figcaption", {}, word("linesOf", percent(most))));
  }

  function map(rows, most) {
    const count = rows.length, edge = 64, size = 240 / count, whole = edge + 244;
    const cells = rows.flatMap((row, y) => row.map((weight, x) =>
      make("rect", { x: edge + size * x, y: edge + size * y, width: size, height: size, class: "cell", "fill-opacity": weight / most })));
    const font = Math.min(12, size), middle = (index) => edge + size * (index + 0.5);
    const names = found.tokens.flatMap((token, index) => [
      make("text", { x: edge - 4, y: middle(index) + font / 3, "text-anchor": "end", "font-size": font, class: index === chosen ? "name chosen" : "name" }, brief(token, 9)),
      make("text", { transform: `translate(${middle(index) + font / 3} ${edge - 4}) rotate(-90)`, "font-size": font, class: "name" }, brief(token, 9)),
    ]);
    const box = make("rect", { x: edge, y: edge, width: 240, height: 240, class: "frame" });
    const row = chosen < 0 ? [] : [make("rect", { x: edge, y: edge + size * chosen, width: 240, height: size, class: "frame chosen" })];
    return make("figure", {}, make("svg", { viewBox: `0 0 ${whole} ${whole}`, role: "img", "aria-label": word("mapOf", percent(most)) }, box, ...cells, ...names, ...row),
      make("figcaption", {}, word("mapOf", percent(most))));
  }

  return { node: own.node, begin: async () => { if (!head.children.length) choices(); input.value ||= (await examplesFor(own.model())).text; update(0); } };
}
