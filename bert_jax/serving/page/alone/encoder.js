// The encoder and the layers of the heads, in float32 (bert_jax/model/encoder.py and heads.py).

// A matrix product of rows [n, inputs] with a kernel that is stored as [outputs, inputs], plus a bias.
function linear(rows, { kernel, bias, inputs, outputs }) {
  const count = rows.length / inputs, found = new Float32Array(count * outputs);
  let row = 0;
  for (; row + 1 < count; row += 2) {
    const a = row * inputs, b = a + inputs;
    let column = 0;
    for (; column + 3 < outputs; column += 4) {
      const w0 = column * inputs, w1 = w0 + inputs, w2 = w1 + inputs, w3 = w2 + inputs;
      let a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0;
      for (let k = 0; k < inputs; k++) {
        const x = rows[a + k], y = rows[b + k], p = kernel[w0 + k], q = kernel[w1 + k], r = kernel[w2 + k], s = kernel[w3 + k];
        a0 += x * p; a1 += x * q; a2 += x * r; a3 += x * s;
        b0 += y * p; b1 += y * q; b2 += y * r; b3 += y * s;
      }
      const first = row * outputs + column, second = first + outputs;
      found[first] = a0; found[first + 1] = a1; found[first + 2] = a2; found[first + 3] = a3;
      found[second] = b0; found[second + 1] = b1; found[second + 2] = b2; found[second + 3] = b3;
    }
    for (; column < outputs; column++) for (const one of [row, row + 1]) found[one * outputs + column] = product(rows, one * inputs, kernel, column * inputs, inputs);
  }
  if (row < count) for (let column = 0; column < outputs; column++) found[row * outputs + column] = product(rows, row * inputs, kernel, column * inputs, inputs);
  for (let index = 0; index < found.length; index++) found[index] += bias[index % outputs];
  return found;
}

function product(a, i, b, j, count) {
  let sum = 0;
  for (let k = 0; k < count; k++) sum += a[i + k] * b[j + k];
  return sum;
}

function normalized(rows, { scale, bias }, epsilon) {
  const width = scale.length;
  for (let start = 0; start < rows.length; start += width) {
    let mean = 0, variance = 0;
    for (let k = 0; k < width; k++) mean += rows[start + k] / width;
    for (let k = 0; k < width; k++) variance += (rows[start + k] - mean) ** 2 / width;
    const factor = 1 / Math.sqrt(variance + epsilon);
    for (let k = 0; k < width; k++) rows[start + k] = (rows[start + k] - mean) * factor * scale[k] + bias[k];
  }
  return rows;
}

// The error function by its series or the continued fraction of its complement (Abramowitz and Stegun 1964, 7.1.6 and 7.1.14).
function erf(x) {
  const size = Math.abs(x);
  if (size > 6) return Math.sign(x);
  if (size < 2.5) {
    let term = x, sum = x;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) sum += (term *= (2 * x * x) / (2 * n + 1));
    return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
  }
  let fraction = 0;
  for (let n = 40; n > 0; n--) fraction = n / 2 / (size + fraction);
  return Math.sign(x) * (1 - Math.exp(-x * x) / Math.sqrt(Math.PI) / (size + fraction));
}

const gelu = (rows) => rows.map((x) => 0.5 * x * (1 + erf(x * Math.SQRT1_2)));

// In place, of each row of `width` numbers.
function softmax(rows, width = rows.length) {
  for (let start = 0; start < rows.length; start += width) {
    let most = -Infinity, sum = 0;
    for (let k = start; k < start + width; k++) most = Math.max(most, rows[k]);
    for (let k = start; k < start + width; k++) sum += rows[k] = Math.exp(rows[k] - most);
    for (let k = start; k < start + width; k++) rows[k] /= sum;
  }
  return rows;
}

const rowsOf = (values, width, indices) => {
  const found = new Float32Array(indices.length * width);
  indices.forEach((index, row) => found.set(values.subarray(index * width, (index + 1) * width), row * width));
  return found;
};

class Encoder {
  // `weights` holds arrays by the paths of the parameters: { shape, values }.
  constructor({ layers, width, heads, norm_epsilon: epsilon }, weights) {
    Object.assign(this, { width, heads, epsilon, weights });
    this.table = weights.get("embeddings/tokens").values;
    this.layers = Array.from({ length: layers }, (_, layer) => {
      const dense = (name) => this.dense(`encoder/layers/${name}`, layer), norm = (name) => this.norm(`encoder/layers/${name}`, layer);
      return {
        query: dense("query"), key: dense("key"), value: dense("value"), output: dense("attention_output"), attentionNorm: norm("attention_norm"),
        inner: dense("feed_forward"), outer: dense("feed_forward_output"), outerNorm: norm("feed_forward_norm"),
      };
    });
  }

  // The kernel [inputs, outputs] and bias of a linear layer, one of a stack if `layer` is given; transposed, so that products read it in order.
  dense(path, layer) {
    const { shape, values } = this.weights.get(`${path}/kernel`), [inputs, outputs] = shape.slice(-2), start = (layer ?? 0) * inputs * outputs;
    const kernel = new Float32Array(inputs * outputs);
    for (let row = 0; row < inputs; row++) for (let column = 0; column < outputs; column++) kernel[column * inputs + row] = values[start + row * outputs + column];
    return { kernel, bias: this.part(`${path}/bias`, layer), inputs, outputs };
  }

  norm(path, layer) {
    return { scale: this.part(`${path}/scale`, layer), bias: this.part(`${path}/bias`, layer) };
  }

  part(path, layer) {
    const { shape, values } = this.weights.get(path), size = shape.at(-1);
    return layer === undefined ? values : values.subarray(layer * size, (layer + 1) * size);
  }

  // The hidden states of all tokens, or of those at `places` only. `seen` is called with each layer's attention weights [heads, rows, n].
  run(ids, segments, { places = null, seen = null } = {}) {
    const { width, weights } = this, count = ids.length, position = weights.get("embeddings/positions").values, segment = weights.get("embeddings/segments").values;
    let hidden = new Float32Array(count * width);
    for (let row = 0; row < count; row++) {
      for (let k = 0; k < width; k++) hidden[row * width + k] = this.table[ids[row] * width + k] + position[row * width + k] + segment[segments[row] * width + k];
    }
    normalized(hidden, this.norm("embeddings/norm"), this.epsilon);
    this.layers.forEach((layer, index) => {
      const asking = places && index === this.layers.length - 1 ? rowsOf(hidden, width, places) : hidden;
      hidden = this.#layer(layer, asking, hidden, (attention) => seen?.(index, attention));
    });
    return hidden;
  }

  #layer(layer, asking, hidden, seen) {
    const { width, heads, epsilon } = this, size = width / heads, rows = asking.length / width, count = hidden.length / width;
    const query = linear(asking, layer.query), key = linear(hidden, layer.key), value = linear(hidden, layer.value);
    const attention = new Float32Array(heads * rows * count), mixed = new Float32Array(rows * width);
    for (let head = 0; head < heads; head++) {
      for (let row = 0; row < rows; row++) {
        const start = (head * rows + row) * count;
        for (let other = 0; other < count; other++) attention[start + other] = product(query, row * width + head * size, key, other * width + head * size, size) / Math.sqrt(size);
      }
    }
    softmax(attention, count);
    for (let head = 0; head < heads; head++) {
      for (let row = 0; row < rows; row++) {
        for (let other = 0; other < count; other++) {
          const weight = attention[(head * rows + row) * count + other];
          for (let k = head * size; k < (head + 1) * size; k++) mixed[row * width + k] += weight * value[other * width + k];
        }
      }
    }
    seen(attention);
    const first = linear(mixed, layer.output);
    for (let k = 0; k < first.length; k++) first[k] += asking[k];
    normalized(first, layer.attentionNorm, epsilon);
    const second = linear(gelu(linear(first, layer.inner)), layer.outer);
    for (let k = 0; k < second.length; k++) second[k] += first[k];
    return normalized(second, layer.outerNorm, epsilon);
  }
}
