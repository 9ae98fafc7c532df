// A model inside the page, and its answers: the same records as the server's.
const rounded = (value, digits = 6) => Number(value.toFixed(digits));

// Lets the page react, and stops work whose question has changed.
async function pause(signal) {
  await new Promise((done) => setTimeout(done));
  signal?.throwIfAborted();
}

class Model {
  constructor(description, weights) {
    Object.assign(this, description); // encoder, pooling, labels, answers, ...
    this.tokenizer = new Tokenizer(description.tokenizer);
    this.network = new Encoder(description.encoder, weights);
    const has = (name) => weights.has(`${name}/dense/kernel`);
    this.pooler = has("pooler") && this.network.dense("pooler/dense");
    this.follows = has("next_sentence") && this.network.dense("next_sentence/dense");
    this.classifier = has("classifier") && this.network.dense("classifier/dense");
    if (has("masked_token")) {
      const table = weights.get("embeddings/tokens"), [outputs, inputs] = table.shape;
      this.masked = { dense: this.network.dense("masked_token/dense"), norm: this.network.norm("masked_token/norm") };
      this.vocabulary = { kernel: table.values, bias: weights.get("masked_token/bias").values, inputs, outputs };
    }
  }

  tokens(ids) {
    return ids.map((id) => this.tokenizer.tokens[id]);
  }

  encode(text) {
    const found = this.tokenizer.encode(text);
    if (!found.length) throw new Refused(word("unreadable"));
    return found;
  }

  // The ids and segments of a text or a pair, of which the longer one is cut first.
  example(text, pair) {
    const a = this.encode(text).map(({ id }) => id), b = pair === undefined ? [] : this.encode(pair).map(({ id }) => id);
    const capacity = this.encoder.max_positions - (pair === undefined ? 2 : 3), half = Math.floor(capacity / 2);
    const kept = Math.min(a.length, Math.max(capacity - b.length, half));
    return this.framed(a.slice(0, kept), b.slice(0, Math.min(b.length, capacity - kept)));
  }

  framed(a, b = []) {
    const { cls, sep } = this.tokenizer, first = [cls, ...a, sep], second = b.length ? [...b, sep] : [];
    return { ids: [...first, ...second], segments: [...first.map(() => 0), ...second.map(() => 1)] };
  }

  // The logits of all tokens at places of a text: [places, vocabulary].
  logits({ ids, segments }, places) {
    const hidden = this.network.run(ids, segments, { places });
    return linear(normalized(gelu(linear(hidden, this.masked.dense)), this.masked.norm, this.encoder.norm_epsilon), this.vocabulary);
  }

  pooled({ ids, segments }) {
    return linear(this.network.run(ids, segments, { places: [0] }), this.pooler).map(Math.tanh);
  }

  // The outputs of the last layer for a text or a pair.
  outputs(text, pair) {
    const example = this.example(text, pair);
    return linear(this.pooling === "cls" ? this.pooled(example) : mean(this.network.run(example.ids, example.segments), this.encoder.width), this.classifier);
  }
}

function mean(rows, width, weight = () => 1) {
  const found = new Float32Array(width), count = rows.length / width;
  let total = 0;
  for (let row = 0; row < count; row++) {
    total += weight(row);
    for (let k = 0; k < width; k++) found[k] += weight(row) * rows[row * width + k];
  }
  return found.map((value) => value / Math.max(1, total));
}

// By the name that a question gives (`Question.portable`): (model, what it says of itself, text, pair, options, signal) -> record.
const ANSWERS = {
  async fill_mask(model, _, text, pair, { top_k: most = 5 }) {
    const { mask, tokens } = model.tokenizer, all = model.encode(text).map(({ id }) => id), capacity = model.encoder.max_positions - 2;
    const first = all.indexOf(mask), last = all.lastIndexOf(mask);
    if (first < 0) throw new Refused(word("noMask"));
    const start = Math.min(Math.max(0, Math.floor((first + last) / 2) - Math.floor(capacity / 2)), Math.max(0, all.length - capacity));
    if (first < start || last >= start + capacity) throw new Refused(word("farMasks"));
    const example = model.framed(all.slice(start, start + capacity)), places = example.ids.flatMap((id, index) => (id === mask ? [index] : []));
    const logits = softmax(model.logits(example, places), model.vocabulary.outputs);
    return {
      masks: places.map((_, index) => {
        const shares = logits.subarray(index * model.vocabulary.outputs, index * model.vocabulary.outputs + tokens.length);
        const best = [...shares.keys()].sort((a, b) => shares[b] - shares[a]).slice(0, most);
        return best.map((id) => ({ token: tokens[id], id, probability: rounded(shares[id]) }));
      }),
    };
  },

  async score(model, _, text, pair, options, signal) {
    const { pad, cls, sep, mask } = model.tokenizer, found = model.encode(text).slice(0, model.encoder.max_positions - 2), tokens = [];
    const example = model.framed(found.map(({ id }) => id));
    for (const [index, { id, start, stop }] of found.entries()) {
      if ([pad, cls, sep, mask].includes(id)) continue;
      await pause(signal);
      const ids = example.ids.with(index + 1, mask), shares = softmax(model.logits({ ids, segments: example.segments }, [index + 1]));
      tokens.push({ token: model.tokenizer.tokens[id], start, end: stop, log_probability: rounded(Math.log(shares[id])) });
    }
    return { score: rounded(tokens.reduce((sum, token) => sum + token.log_probability, 0)), tokens };
  },

  async next_sentence(model, _, text, pair) {
    return { probability: rounded(softmax(linear(model.pooled(model.example(text, pair)), model.follows))[1]) };
  },

  async classes(model, _, text, pair) {
    const shares = softmax(model.outputs(text, pair)), probabilities = Object.fromEntries(model.labels.map((label, index) => [label, rounded(shares[index])]));
    return { label: model.labels[shares.indexOf(Math.max(...shares))], probabilities };
  },

  async label_sets(model, { threshold }, text, pair) {
    const shares = model.outputs(text, pair).map((value) => 1 / (1 + Math.exp(-value)));
    const chosen = [...shares.keys()].filter((index) => shares[index] >= threshold).sort((a, b) => shares[b] - shares[a]);
    return { labels: chosen.map((index) => model.labels[index]), probabilities: Object.fromEntries(model.labels.map((label, index) => [label, rounded(shares[index])])) };
  },

  async number(model, _, text, pair) {
    return { value: Number(model.outputs(text, pair)[0].toPrecision(6)) };
  },

  // The modes are those of bert_jax/model/pooling.py.
  async vector(model, { modes, prompt, skipped, longest, size, normalize }, text) {
    const { width } = model.encoder, ids = model.encode(prompt + text).map(({ id }) => id).slice(0, longest - 2), example = model.framed(ids);
    const rows = model.network.run(example.ids, example.segments), count = example.ids.length, left = count - skipped, counted = rows.subarray(skipped * width);
    const by = {
      cls: () => rows.subarray((left > 0 ? skipped : 0) * width).subarray(0, width),
      max: () => counted.subarray(0, width).map((_, k) => Math.max(...Array.from({ length: left }, (_, row) => counted[row * width + k]))),
      mean: () => mean(counted, width),
      mean_sqrt_len_tokens: () => mean(counted, width).map((value) => value * Math.sqrt(left)),
      weightedmean: () => mean(counted, width, (row) => row + skipped + 1),
      lasttoken: () => rows.subarray((count - 1) * width),
    };
    const whole = modes.flatMap((mode) => [...by[mode]()]), length = normalize ? Math.max(1e-12, Math.hypot(...whole)) : 1;
    return { embedding: whole.slice(0, size).map((value) => value / length) };
  },

  async attention(model, _, text, pair, { layer }) {
    const { ids, segments } = model.example(text, pair), count = ids.length, { heads, layers } = model.encoder, weights = [];
    const only = layer === undefined || layer === null ? null : layer < 0 ? layers + layer : layer - 1;
    const square = (values) => Array.from({ length: count }, (_, row) => Array.from(values.subarray(row * count, (row + 1) * count), (value) => rounded(value, 5)));
    model.network.run(ids, segments, { seen: (index, found) => {
      if (only === null || only === index) weights.push(Array.from({ length: heads }, (_, head) => square(found.subarray(head * count * count, (head + 1) * count * count))));
    } });
    return { tokens: model.tokens(ids), weights };
  },
};
