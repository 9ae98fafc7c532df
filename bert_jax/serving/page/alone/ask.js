// Answers in place of a server, from the models in this document.
const alone = true;
let loaded = null;

function models() {
  loaded ??= new Map(JSON.parse(document.getElementById("models").textContent).map((description, index) => [description.name, { description, index, model: null }]));
  return loaded;
}

function modelOf(name) {
  const entry = models().get(name);
  if (!entry) throw new Refused(`There is no model ${name}.`);
  entry.model ??= new Model(entry.description, weightsOf(entry));
  return entry.model;
}

function weightsOf({ description, index }) {
  const element = document.getElementById(`weights${index}`), bytes = Uint8Array.from(atob(element.textContent), (character) => character.charCodeAt(0));
  element.remove(); // it is large
  const view = new DataView(bytes.buffer), weights = new Map();
  let place = 0;
  for (const [path, shape] of description.parameters) {
    const values = new Float32Array(shape.reduce((product, size) => product * size, 1));
    for (let k = 0; k < values.length; k++, place += 4) values[k] = view.getFloat32(place, true);
    weights.set(path, { shape, values });
  }
  return weights;
}

const listed = (texts) => (Array.isArray(texts) ? texts : [texts]);

// The route and the body are those of the server's questions.
async function ask(route, body, signal) {
  if (route === "models") return { models: [...models().values()].map(({ description }) => description) };
  await pause(signal);
  const model = modelOf(body.model), question = route === "v1/embeddings" ? "embed" : route.replace("-", "_");
  if (question === "tokenize") return listed(body.inputs).map((text) => tokenized(model, text));
  const settings = model.answers[question], texts = listed(body.texts ?? body.input), pairs = body.pairs === undefined ? [] : listed(body.pairs), answers = [];
  if (!settings) throw new Refused(`${model.name} does not answer ${question}.`);
  for (const [index, text] of texts.entries()) {
    await pause(signal);
    answers.push(await ANSWERS[settings.as](model, settings, text, pairs[index], body, signal));
  }
  return question === "embed" ? { data: answers } : { model: model.name, answers };
}

function tokenized(model, text) {
  const { tokenizer } = model, end = (id) => ({ id, text: tokenizer.tokens[id], special: true, start: null, stop: null });
  const found = tokenizer.encode(text).map(({ id, start, stop }) => ({ id, text: tokenizer.tokens[id], special: tokenizer.isSpecial(id), start, stop }));
  return [end(tokenizer.cls), ...found, end(tokenizer.sep)];
}

// For the console: bert.ask("fill-mask", { model: "demo-pretrain", texts: "房间很[MASK]。" }).
globalThis.bert = { ask, models: () => [...models().keys()], tokenizer: (values) => new Tokenizer(values) };
