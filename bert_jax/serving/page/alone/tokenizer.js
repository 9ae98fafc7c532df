// Splits texts into tokens as the server does (bert_jax/modalities/text/portable.py describes the values).
const HANGUL = [0xac00, 0xd7a3], REPLACEMENT = 0xfffd;

function isIn(ranges, code) {
  let low = 0, high = ranges.length / 2 - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    if (code < ranges[2 * middle]) high = middle - 1;
    else if (code > ranges[2 * middle + 1]) low = middle + 1;
    else return true;
  }
  return false;
}

class Tokenizer {
  constructor(values) {
    Object.assign(this, values); // tokens, characters, longest, removed, blanks, spaced, hangul, marks, gaps
    [this.pad, this.unknown, this.cls, this.sep, this.mask] = values.special;
    this.ids = new Map(values.tokens.map((token, id) => [token, id]));
    this.changed = new Map(Array.from(values.mapped).map((character, index) => [character, Array.from(values.mapped_to[index])]));
    this.whole = new Map(values.added);
    // Of several that begin at the same place, the longest is meant.
    const escaped = [...this.whole.keys()].sort((a, b) => b.length - a.length).map((token) => token.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"));
    this.added = new RegExp(escaped.join("|"), "gu");
  }

  isSpecial(id) {
    return id === this.pad || id === this.unknown || id === this.cls || id === this.sep || id === this.mask;
  }

  // The tokens { id, start, stop } of a text, without [CLS] and [SEP]; places are code points.
  encode(text) {
    const found = [];
    let place = 0, from = 0;
    const between = (until) => {
      const characters = points(text.slice(from, until));
      this.#words(characters, place, found);
      place += characters.length;
    };
    for (const { 0: token, index } of text.matchAll(this.added)) {
      between(index);
      const length = points(token).length;
      found.push({ id: this.whole.get(token), start: place, stop: place + length });
      place += length;
      from = index + token.length;
    }
    between(text.length);
    return found;
  }

  // What becomes of a character: none or several.
  #normalized(character) {
    const code = character.codePointAt(0);
    if (code < 128 && !this.changed.has(character) && !isIn(this.removed, code) && !isIn(this.blanks, code)) return [character];
    if (code >= 0xd800 && code < 0xe000) return this.#normalized(String.fromCodePoint(REPLACEMENT));
    if (isIn(this.removed, code)) return [];
    if (isIn(this.blanks, code)) return [" "];
    if (isIn(this.spaced, code)) return [" ", character, " "];
    if (this.hangul && code >= HANGUL[0] && code <= HANGUL[1]) return Array.from(character.normalize("NFD"));
    return this.changed.get(character) ?? [character];
  }

  #words(characters, place, found) {
    let word = []; // [character, place]
    const end = () => {
      if (word.length) this.#pieces(word, found);
      word = [];
    };
    characters.forEach((original, index) => {
      for (const character of this.#normalized(original)) {
        const code = character.codePointAt(0);
        if (code === 32 || isIn(this.gaps, code)) end();
        else if (isIn(this.marks, code)) {
          end();
          word.push([character, place + index]);
          end();
        } else word.push([character, place + index]);
      }
    });
    end();
  }

  #pieces(word, found) {
    const add = (id, first, last) => found.push({ id, start: word[first][1], stop: word[last][1] + 1 });
    if (this.characters) {
      word.forEach(([character], index) => add(this.ids.get(character) ?? this.unknown, index, index));
      return;
    }
    const pieces = [];
    for (let begin = 0; begin < word.length && word.length <= this.longest; ) {
      let end = word.length, id;
      while (end > begin && (id = this.ids.get((begin ? "##" : "") + word.slice(begin, end).map(([character]) => character).join(""))) === undefined) end--;
      if (id === undefined) break;
      pieces.push([id, begin, end - 1]);
      begin = end;
    }
    if (pieces.length && pieces.at(-1)[2] === word.length - 1) pieces.forEach((piece) => add(...piece));
    else add(this.unknown, 0, word.length - 1);
  }
}
