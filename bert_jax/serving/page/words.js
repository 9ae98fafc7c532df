// Everything that the page itself says, in both languages. What models and the server say is shown as it is.
const WORDS = {
  en: {
    skip: "Skip to the content", lead: "Look into a model, live. All answers come from this server; nothing goes elsewhere.",
    leadShared: "Look into a model, live. It is inside this file: all answers are computed here, and nothing goes elsewhere.",
    share: "Save as one file", sharing: "Creating the file …", shared: "The file works without a server and without a network; send it to anyone.",
    noMask: "The text has no [MASK].", farMasks: "The blanks are too far apart for the model.",
    sections: "Sections", key: "API key", unlock: "Continue", wrongKey: "The key is missing or wrong.", other: "中文", otherLang: "zh",
    model: "Model", modelOf: (name, noun) => `${name} (${noun.replace(/^an? /, "")})`, text: "Text", unreachable: "The server cannot be reached.", tooLong: (most) => `The model reads the first ${most} tokens only.`,
    unreadable: "The model cannot read any of this text.",
    run: "Training run", runHelp: "The curves grow as training writes its metrics. Models appear with their first checkpoint.",
    runState: (name, state) => `${name}: ${state}`, running: "running", finished: "finished", stopped: "stopped; the same command resumes it",
    failed: "failed: too many updates in a row were not finite", step: "step", training: "training", heldOut: "held out",
    stageState: (state, step, steps) => `${state}, step ${step.toLocaleString("en")}${steps ? ` of ${steps.toLocaleString("en")}` : ""}`,
    chart: (title, now) => `${title}; last: ${now}. The numbers are in the table below.`, numbers: "The numbers as a table", numbersOf: (stage) => `${stage}: numbers`,
    stages: { pretrain: "Pre-training", finetune: "Fine-tuning", finetune_from_scratch: "Training from scratch" }, curves: {}, levels: {},
    fill: "Fill in the blank", fillHelp: "Choose a character or a word to mask it. The model guesses it from what is around it.",
    tokens: "Text as the model reads it: choose what to mask; arrow keys move", blank: (n) => `Blank ${n}`, masked: "masked", was: (word) => `was ${word}`,
    guess: (word, share) => `guess ${word}, ${share}`, clear: "Unmask all", tint: "Tint each token by its surprisal",
    surprisal: (bits) => `surprisal ${bits} bits`, low: "expected", high: "surprising",
    total: (bits, each) => `The text has a surprisal of ${bits} bits, ${each} per token.`,
    longScore: "The text is too long to measure the surprisal of each token.",
    complete: "Masked and completed", completeHelp: "Half of it is masked. The model says what was there; what it is less sure of is tinted.",
    images: "Choose or drop images", audios: "Choose or drop recordings", needTwoFiles: "Choose at least two.",
    pictures: {},
    next: "Next sentence", nextHelp: "Does the second sentence follow the first?", first: "First sentence", second: "Second sentence",
    follows: "follows", notFollows: "does not follow",
    classify: "Classification", classifyHelp: "Which label the model gives, and how sure it is.", pair: "Second text (optional)",
    regress: "Rating", regressHelp: "The number that the model gives.", file: "Choose or drop a file", image: "Choose or drop an image", audio: "Choose or drop a recording",
    tag: "Tags", tagHelp: "What the model marks in a text.", noTags: "Nothing is marked.",
    answer: "Questions", answerHelp: "The model answers a question with a part of the passage.", question: "Question", passage: "Passage",
    influence: (pro, contra) => `For the verdict: ${pro}; against it, underlined: ${contra} (gradient times input)`,
    noAnswer: "The passage does not answer it.", answered: (text, share) => `${text} (${share})`,
    similar: "Similarity", similarHelp: "How near the vectors are: their cosines, and the plane on which they differ most.", lines: "Texts, one per line",
    cosines: "Cosine of each pair", plane: (share) => `The vectors on the plane of their first two principal components, which hold ${share} of the variance`,
    atMost: (most) => `Only the first ${most} texts are compared.`, needTwo: "Write at least two lines.",
    attention: "Attention", attentionHelp: "Which token looks at which. Each row of a head adds up to 100%.", layer: "Layer", head: "Head", mean: "mean of all heads",
    looking: "Tokens: choose one to see what it looks at; arrow keys move", looks: (token, list) => `${token} looks at ${list}.`,
    linesOf: (most) => `Lines from tokens on the left to the tokens on the right that they look at; the strongest is ${most}.`,
    mapOf: (most) => `Map: a row for each token that looks, a column for each that is looked at; the strongest is ${most}.`,
  },
  zh: {
    skip: "跳到正文", lead: "实时观察模型。所有答案都来自这台服务器，数据不会发往别处。",
    leadShared: "实时观察模型。模型就在这个文件里：所有答案都在本页计算，数据不会发往别处。",
    share: "保存为单个文件", sharing: "正在生成文件……", shared: "该文件无需服务器和网络即可使用，可以发给任何人。",
    noMask: "文本中没有 [MASK]。", farMasks: "空与空之间相距太远，模型无法处理。",
    sections: "栏目", key: "API 密钥", unlock: "继续", wrongKey: "密钥缺失或错误。", other: "English", otherLang: "en",
    model: "模型", modelOf: (name, noun) => `${name}（${NOUNS[noun] ?? noun}）`, text: "文本", unreachable: "无法连接服务器。", tooLong: (most) => `模型只读取前 ${most} 个词元。`,
    unreadable: "模型无法读取这段文本中的任何内容。",
    run: "训练过程", runHelp: "曲线随训练写出的指标实时更新。保存第一个检查点后，模型就会出现在本页。",
    runState: (name, state) => `${name}：${state}`, running: "运行中", finished: "已完成", stopped: "已停止；用同一条命令继续",
    failed: "失败：连续多次更新出现非有限值", step: "步", training: "训练", heldOut: "留出集",
    stageState: (state, step, steps) => `${state}，第 ${step} 步${steps ? `，共 ${steps} 步` : ""}`,
    chart: (title, now) => `${title}；最新：${now}。数值见下方表格。`, numbers: "以表格显示数值", numbersOf: (stage) => `${stage}：数值`,
    stages: { pretrain: "预训练", finetune: "微调", finetune_from_scratch: "从头训练" },
    curves: {
      loss: "损失", mlm_loss: "遮盖词元的损失", mlm_accuracy: "遮盖词元的准确率", nsp_accuracy: "下一句的准确率", accuracy: "准确率", real_tokens_per_second: "每秒词元数",
      micro_f1: "微平均 F1", tag_f1: "标签 F1（不含 O）", mae: "平均绝对误差", mrr: "平均倒数排名", spearman: "斯皮尔曼相关系数",
    },
    levels: { chance: "随机猜测", "most frequent token": "总猜最常见的词元" },
    fill: "完形填空", fillHelp: "选择一个字或词把它遮住，模型根据上下文来猜。",
    tokens: "模型读到的文本：选择要遮住的部分，用方向键移动", blank: (n) => `空 ${n}`, masked: "已遮住", was: (word) => `原文：${word}`,
    guess: (word, share) => `猜测 ${word}，${share}`, clear: "全部恢复", tint: "按意外程度给词元着色",
    surprisal: (bits) => `意外程度 ${bits} 比特`, low: "意料之中", high: "出人意料",
    total: (bits, each) => `整段文本的意外程度为 ${bits} 比特，每个词元 ${each} 比特。`,
    longScore: "文本太长，不计算各词元的意外程度。",
    complete: "遮住再补全", completeHelp: "遮住一半，由模型补出原来的内容；它不太确定的部分带有颜色。",
    images: "选择或拖入多张图片", audios: "选择或拖入多段录音", needTwoFiles: "请至少选择两个。",
    pictures: { original: "原始", masked: "遮住后", completed: "补全后" },
    next: "下一句", nextHelp: "第二句是否接在第一句之后？", first: "第一句", second: "第二句", follows: "接得上", notFollows: "接不上",
    classify: "分类", classifyHelp: "模型给出的标签，以及它有多大把握。", pair: "第二段文本（可选）",
    regress: "评分", regressHelp: "模型给出的数值。", file: "选择或拖入文件", image: "选择或拖入图片", audio: "选择或拖入录音",
    tag: "标注", tagHelp: "模型在文本中标出的内容。", noTags: "没有标出任何内容。",
    answer: "问答", answerHelp: "模型用段落中的一段原文回答问题。", question: "问题", passage: "段落",
    influence: (pro, contra) => `支持该判断的：${pro}；反对的，带下划线：${contra}（梯度乘输入）`,
    noAnswer: "段落中没有答案。", answered: (text, share) => `${text}（${share}）`,
    similar: "相似度", similarHelp: "向量之间有多接近：两两的余弦相似度，以及它们差别最大的平面。", lines: "文本，每行一条",
    cosines: "两两的余弦相似度", plane: (share) => `向量在前两个主成分平面上的位置（占方差的 ${share}）`,
    atMost: (most) => `只比较前 ${most} 条文本。`, needTwo: "请至少写两行。",
    attention: "注意力", attentionHelp: "哪个词元在看哪个词元。在每个头中，每一行之和为 100%。", layer: "层", head: "头", mean: "所有头的平均",
    looking: "词元：选择一个，看它在看什么；用方向键移动", looks: (token, list) => `${token} 在看 ${list}。`,
    linesOf: (most) => `连线：从左边的词元连到它所看的右边的词元，最强的为 ${most}。`, mapOf: (most) => `注意力图：每行是一个看的词元，每列是一个被看的词元，最强的为 ${most}。`,
  },
};

// What the server calls a model.
const NOUNS = {
  "a pre-trained model": "预训练模型", "a classifier": "分类模型", "a multi-label classifier": "多标签分类模型", "a regression model": "回归模型",
  "a tagger": "标注模型", "a question answering model": "问答模型", "an embedding model": "嵌入模型",
};

// Texts to begin with, in the language that a model reads.
const EXAMPLES = {
  en: {
    text: "The hotel was clean and the staff were very friendly.", mask: "clean", first: "He opened the door.", second: "There was nobody in the room.",
    lines: "The room was clean.\nThe room was tidy.\nThe staff were friendly.\nWe will not come back.\nBreakfast was cold.",
    tag: "Anna Keller moved from Bern to Oslo.", question: "Where did she move?", passage: "Anna Keller grew up in Bern. In 2019 she moved to Oslo.",
  },
  zh: {
    text: "这家酒店的服务很好，房间也很干净。", mask: "净", first: "他打开门。", second: "屋里没有人。",
    lines: "房间很干净\n房间很整洁\n服务员很热情\n再也不来了\n早餐是凉的",
    tag: "张伟从北京搬到了上海。", question: "她搬到了哪里？", passage: "她在北京长大，2019年搬到了上海。",
  },
};

let language = "en";

function stored(kind, name, value) {
  try {
    if (value !== undefined) window[kind].setItem(name, value);
    return window[kind].getItem(name);
  } catch {
    return null; // storage may be forbidden
  }
}

function word(name, ...values) {
  const found = WORDS[language][name];
  return typeof found === "function" ? found(...values) : found;
}

function translate() {
  document.documentElement.lang = language;
  for (const node of document.querySelectorAll("[data-say]")) node.textContent = word(node.dataset.say);
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", word(node.dataset.label));
  for (const option of document.querySelectorAll("option[data-noun]")) option.textContent = word("modelOf", option.dataset.name, option.dataset.noun);
  const button = document.getElementById("language");
  button.textContent = word("other");
  button.lang = word("otherLang");
}
