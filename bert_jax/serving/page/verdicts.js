// Questions with one verdict: the next sentence, classes, numbers, tags, answers.
const MOST_BARS = 12;

// The parts of a text, marked where something was found.
function marked(text, spans, hues) {
  const characters = points(text), nodes = [];
  let place = 0;
  for (const { start, end, label } of spans) {
    nodes.push(part(characters, place, start));
    nodes.push(make("mark", { class: `color${hues(label) % 6}` }, part(characters, start, end), label ? make("small", {}, label) : null));
    place = end;
  }
  return make("p", { class: "marked", dir: "auto" }, ...nodes, part(characters, place));
}

// A text whose parts are tinted by how much they speak for the verdict or against it.
function influences(text, tokens) {
  const characters = points(text), nodes = [];
  const units = unitsOf(text, tokens.map(({ token, start, end, influence }) => ({ text: token, start, stop: end, influence })));
  const amounts = units.map(({ pieces }) => pieces.reduce((sum, { influence }) => sum + influence, 0)), most = Math.max(1e-9, ...amounts.map(Math.abs));
  let place = 0;
  units.forEach(({ start, stop }, index) => {
    const signed = `${amounts[index] < 0 ? "−" : "+"}${Math.abs(amounts[index]).toFixed(2)}`;
    const kind = amounts[index] < 0 ? "against" : "for", clearly = Math.abs(amounts[index]) > most / 10 ? " clearly" : "";
    nodes.push(part(characters, place, start), make("span", { class: kind + clearly, title: signed, "--amount": `${(100 * Math.abs(amounts[index])) / most}%` }, part(characters, start, stop)));
    place = stop;
  });
  const strongest = (sign) => units.map((unit, index) => [part(characters, unit.start, unit.stop), sign * amounts[index]]).filter(([, amount]) => amount > most / 10)
    .sort((a, b) => b[1] - a[1]).slice(0, 3).map(([name]) => name).join(" · ") || "–";
  return [make("p", { class: "marked influence", dir: "auto" }, ...nodes, part(characters, place)),
    make("p", { class: "total" }, word("influence", strongest(1), strongest(-1)))];
}

// A section whose inputs are texts; `show(answer, texts, model)` returns the nodes of the answer.
function verdictSection(name, models, inputs, show, question = name) {
  const own = section(name, models, () => begin(true));
  const verdict = make("div", { class: "verdict", role: "status" }), holder = make("div");
  let controls = [], file = null, shownFor = null;
  own.node.append(holder, verdict, make("p", { class: "note", role: "status" }));
  const update = live(own.node, async (signal) => {
    const model = own.model(), texts = file ? [file] : controls.map(({ value }) => value);
    const given = texts.map((text) => text.trim() !== "");
    if (!given[0] || (inputs[1] && !inputs[1].optional && !given[1])) {
      verdict.replaceChildren();
      return;
    }
    const body = { texts: texts[0], model: model.name, truncate: true };
    if (given[1]) body.pairs = texts[1];
    const { answers } = await ask(question.replace("_", "-"), body, signal);
    verdict.replaceChildren(...show(answers[0], texts, model));
    if (!file && !given[1] && model.questions.includes("influence")) {
      const asked = { texts: texts[0], model: model.name, truncate: true };
      verdict.append(...influences(texts[0], (await ask("influence", asked, signal)).answers[0].tokens));
    }
  });

  function build(model) {
    if (model.reads !== "text") {
      controls = [];
      holder.replaceChildren(fileField(model.reads, ([{ content }]) => { file = content; update(0); }));
      return;
    }
    file = null;
    const fields = inputs.filter((one) => !one.optional || model.pairs).map((one) => textarea(one.label, one.rows, () => update()));
    controls = fields.map(([, control]) => control);
    holder.replaceChildren(...fields.map(([box]) => box));
  }

  async function begin(anew) {
    const model = own.model(), before = controls.map(({ value }) => value);
    if (shownFor !== model) build(model);
    const changed = shownFor !== model;
    shownFor = model;
    if (model.reads === "text" && (changed || anew)) {
      const example = await examplesFor(model);
      controls.forEach((control, index) => (control.value = before[index] || (inputs[index].example ? example[inputs[index].example] : "")));
    }
    update(0);
  }

  return { node: own.node, begin: () => begin(false) };
}

const nextSection = (models) => verdictSection("next", models,
  [{ label: "first", rows: 2, example: "first" }, { label: "second", rows: 2, example: "second" }],
  ({ probability }) => [bars([[word("follows"), probability, probability >= 0.5 ? "chosen" : ""], [word("notFollows"), 1 - probability, probability < 0.5 ? "chosen" : ""]])],
  "next_sentence");

const classifySection = (models) => verdictSection("classify", models,
  [{ label: "text", rows: 2, example: "text" }, { label: "pair", rows: 1, optional: true }],
  ({ label, labels, probabilities }) => {
    const right = new Set(labels ?? [label]);
    const rows = Object.entries(probabilities).sort((a, b) => b[1] - a[1]).slice(0, MOST_BARS);
    return [bars(rows.map(([name, share]) => [name, share, right.has(name) ? "chosen" : ""]))];
  });

const regressSection = (models) => verdictSection("regress", models,
  [{ label: "text", rows: 2, example: "text" }, { label: "pair", rows: 2, optional: true }],
  ({ value }) => [make("p", { class: "value" }, String(value))]);

const tagSection = (models) => verdictSection("tag", models, [{ label: "text", rows: 2, example: "tag" }],
  ({ spans }, [text], { labels }) => {
    const names = [...new Set(labels.map((label) => label.replace(/^[A-Z]-/, "")))];
    return [marked(text, spans, (label) => Math.max(0, names.indexOf(label))), ...(spans.length ? [] : [make("p", {}, word("noTags"))])];
  });

const answerSection = (models) => verdictSection("answer", models,
  [{ label: "question", rows: 1, example: "question" }, { label: "passage", rows: 4, example: "passage" }],
  ({ answer, start, end, probability }, [, passage]) => answer === null ? [make("p", {}, word("noAnswer"))]
    : [make("p", { class: "value" }, word("answered", answer, percent(probability))), marked(passage, [{ start, end, label: "" }], () => 0)]);
