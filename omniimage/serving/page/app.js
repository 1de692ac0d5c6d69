// The page: what is said, the answer as it comes, settings, earlier conversations.

import { ask, events, setToken } from "/page/api.js";
import { Brush } from "/page/brush.js";
import { Painting, loaded } from "/page/painting.js";
import { Sketch } from "/page/sketch.js";
import { askedAgain, forget, known, remember, said, titleOf, withoutLast, withPicture, wordsOf } from "/page/talk.js";

const at = (id) => document.getElementById(id);
const KEEP = 0.5; // of the visual tokens, in variations
const SMALL = 160; // pixels; a picture that is no larger is shown with its pixels
const NUMBERS = {
  temperature: "Temperature",
  guidance: "Guidance",
  token_guidance: "Painter's guidance by tokens",
  text_guidance: "Painter's guidance by text",
  top_p: "Top-p",
  diffusion_steps: "Diffusion steps",
};

let model = null; // what /api/model says
let name = null; // of the conversation
let messages = [];
let waiting = []; // names of pictures that are shown with what is said next
let answering = null; // an AbortController while an answer comes

const sketch = new Sketch({
  dialog: at("sketching"), sheet: at("sheet"), color: at("color"), width: at("width"),
  undo: at("unstroke"), clear: at("clear"), cancel: at("cancel"), use: at("use"),
});

const brush = new Brush({
  dialog: at("marking"), sheet: at("marked"), width: at("brush"),
  undo: at("unmark"), clear: at("unmark-all"), cancel: at("unmarked"), use: at("redraw"),
});

// What is said.

async function say(text) {
  if (answering || (!text.trim() && !waiting.length)) return;
  await named();
  const before = messages;
  messages = [...messages, said(text, waiting)];
  const pictures = waiting;
  waiting = [];
  at("text").value = "";
  showWaiting();
  show(messages.at(-1));
  follow(Infinity);
  const answer = new Answer(text);
  await listen(answer, { messages, ...settings() });
  if (answer.parts.length) {
    await take(answer, messages);
  } else {
    answer.element.remove();
    at("log").lastElementChild?.remove();
    messages = before;
    waiting = pictures;
    at("text").value = text;
    showWaiting();
  }
  enable();
  showKnown();
  at("text").focus();
}

/** Hears an answer to its end, or until it is stopped. */
async function listen(answer, body) {
  answering = new AbortController();
  enable();
  try {
    const response = await ask(`/api/conversations/${name}/answer`, { method: "POST", body, signal: answering.signal });
    for await (const event of events(response)) answer.hear(event);
    status("Finished.");
  } catch (error) {
    if (error.name !== "AbortError") problem(error.message);
    else status("Stopped.");
  }
  answering = null;
  await answer.settle();
}

/** The conversation goes on with an answer to these messages. */
async function take(answer, asked) {
  messages = [...asked, { role: "assistant", content: answer.parts }];
  remember(name, titleOf(messages));
  if (!answer.kept) await keep();
  answer.offer();
}

/** The last answer's picture drawn again in its place: a part of it under other words, or another like it. */
async function redraw(element, how, words = wordsOf(messages)) {
  if (answering || element !== at("log").lastElementChild) return;
  problem("");
  const asked = askedAgain(messages, words);
  const answer = new Answer(words);
  await listen(answer, { messages: asked, ...settings(), answer: "image", redraw: how });
  if (answer.parts.length) {
    element.remove();
    if (words !== wordsOf(messages)) {
      answer.element.previousElementSibling?.remove();
      at("log").append(show(asked.at(-1)), answer.element);
    }
    await take(answer, asked);
  } else {
    answer.element.remove();
  }
  enable();
  showKnown();
}

/** What can be done with a picture of the last answer. */
function acts(element, picture) {
  const list = made("div", { className: "acts" });
  const others = list.appendChild(made("button", { type: "button", textContent: "Another like it" }));
  others.addEventListener("click", () => redraw(element, { picture, keep: KEEP }));
  const part = list.appendChild(made("button", { type: "button", textContent: "Draw a part again" }));
  part.addEventListener("click", async () => {
    if (answering || element !== at("log").lastElementChild) return;
    try {
      const blob = await (await ask(`/api/conversations/${name}/pictures/${picture}`)).blob();
      const image = await loaded(await asAddress(blob));
      at("words").value = wordsOf(messages);
      brush.mark(image, async (mask) => redraw(element, { picture, mask: await asAddress(mask) }, at("words").value));
    } catch (error) {
      problem(error.message);
    }
  });
  return list;
}

/** A Blob as a data: address. */
function asAddress(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(blob);
  });
}

/** The assistant's turn while it comes. */
class Answer {
  constructor(prompt) {
    this.prompt = prompt;
    this.parts = []; // of the first answer, what is whole or was said
    this.kept = false;
    this.unfinished = "";
    this.paintings = new Map(); // by answer, the one under way
    this.finished = []; // {name, figure} of whole pictures of single-picture answers
    this.element = entry("assistant");
    this.pictures = this.element.appendChild(made("div", { className: "pictures" }));
    this.text = null;
  }

  hear({ name: kind, data }) {
    if (data.error) throw new Error(data.error.message);
    this[`on_${kind}`]?.(data);
    follow();
  }

  on_start(data) {
    this.seeds = data.seeds;
    status("The answer has been begun.");
  }

  on_text({ answer, text }) {
    if (answer) return;
    this.text ??= this.element.appendChild(made("p"));
    this.text.append(text);
    this.unfinished += text;
  }

  on_text_end({ answer }) {
    if (answer) return;
    if (this.unfinished.trim()) this.parts.push({ type: "text", text: this.unfinished });
    this.unfinished = "";
    if (this.text) this.pictures = this.element.appendChild(made("div", { className: "pictures" }));
    this.text = null;
  }

  on_tokens(piece) {
    this.paint(piece);
    this.progress("planned", piece);
  }

  on_chunk(piece) {
    this.paint(piece);
    this.progress("painted", piece);
  }

  on_image({ answer, picture, seed }) {
    const { figure } = this.paintings.get(answer) ?? this.begin(answer);
    this.paintings.delete(answer);
    figure.append(made("figcaption", { textContent: `seed ${seed}` }));
    this.finished.push({ name: picture, figure });
    if (!answer) this.parts.push({ type: "picture", name: picture });
  }

  on_done({ kept }) {
    this.kept = kept;
  }

  paint(piece) {
    const { painting } = this.paintings.get(piece.answer) ?? this.begin(piece.answer);
    painting.add(piece);
  }

  begin(answer) {
    const size = sizeNow();
    const painting = new Painting(size.width, size.height, `A picture: ${this.prompt}`);
    const small = Math.max(size.width, size.height) <= SMALL;
    const figure = this.pictures.appendChild(made("figure", { className: small ? "small" : "" }));
    figure.append(painting.canvas);
    const both = { painting, figure };
    this.paintings.set(answer, both);
    return both;
  }

  progress(what, { top, rows, height }) {
    const share = Math.round((100 * (top + rows)) / height);
    if (share % 25 === 0) status(`The picture is ${share} % ${what}.`);
  }

  /** Once no event follows: what was said up to here stays. */
  async settle() {
    if (this.unfinished.trim()) this.parts.push({ type: "text", text: this.unfinished });
    for (const { figure } of this.paintings.values()) figure.remove();
  }

  /** What can be done with its pictures; where there are several, which one the conversation goes on with. */
  offer() {
    for (const { name: picture, figure } of this.finished) figure.append(acts(this.element, picture));
    if (this.finished.length < 2) return;
    const first = this.parts.find((part) => part.type === "picture")?.name;
    for (const { name: picture, figure } of this.finished) {
      const button = made("button", { type: "button", textContent: "Go on with this one" });
      const choose = (chosen) => {
        figure.classList.toggle("chosen", chosen);
        button.setAttribute("aria-pressed", String(chosen));
      };
      choose(picture === first);
      button.addEventListener("click", async () => {
        if (answering || messages.at(-1)?.role !== "assistant" || !this.element.isConnected) return;
        if (this.element !== at("log").lastElementChild) return;
        messages = withPicture(messages, picture);
        await keep();
        this.finished.forEach((other) => other.choose(other.name === picture));
      });
      Object.assign(this.finished.find((one) => one.figure === figure), { choose });
      figure.append(button);
    }
  }
}

// Pictures of the user's.

async function addPicture(blob) {
  if (model && blob.size > model.body) {
    problem(`The picture has ${blob.size} bytes; at most ${model.body} are sent.`);
    return;
  }
  try {
    await named();
    const response = await ask(`/api/conversations/${name}/pictures`, { method: "POST", body: blob });
    waiting = [...waiting, (await response.json()).name];
    problem("");
    showWaiting();
  } catch (error) {
    problem(error.message);
  }
}

async function showWaiting() {
  const list = at("waiting");
  list.replaceChildren();
  waiting.forEach((picture, index) => {
    const item = list.appendChild(made("li"));
    item.append(pictureOf(picture, `picture ${index + 1} to be shown`));
    const button = made("button", { type: "button", textContent: "Leave out" });
    button.addEventListener("click", () => {
      waiting = waiting.filter((_, i) => i !== index);
      showWaiting();
    });
    item.append(button);
  });
}

/** An image of the conversation. It is fetched with the token, which an address could not carry. */
function pictureOf(picture, alt) {
  const image = made("img", { alt });
  ask(`/api/conversations/${name}/pictures/${picture}`)
    .then((response) => response.blob())
    .then((blob) => {
      image.src = URL.createObjectURL(blob);
      image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
    })
    .catch(() => {
      image.alt = `${alt} (it is gone)`;
    });
  return image;
}

// The conversation.

function entry(role) {
  const item = at("log").appendChild(made("li", { className: role }));
  item.append(made("span", { className: "who", textContent: role === "user" ? "You: " : "Model: " }));
  return item;
}

function show(message) {
  const item = entry(message.role);
  const size = sizeNow();
  const small = Math.max(size.width, size.height) <= SMALL ? "small" : "";
  for (const part of message.content) {
    if (part.type === "text") {
      item.append(made("p", { textContent: part.text }));
    } else {
      const figure = item.appendChild(made("figure", { className: small }));
      figure.append(pictureOf(part.name, message.role === "user" ? "your picture" : "a picture that the model has drawn"));
      if (message.role === "assistant") figure.append(acts(item, part.name));
    }
  }
  return item;
}

async function keep() {
  try {
    await ask(`/api/conversations/${name}`, { method: "PUT", body: { messages, size: at("size").value } });
  } catch (error) {
    problem(error.message);
  }
}

async function named() {
  if (!name) name = (await (await ask("/api/conversations", { method: "POST" })).json()).name;
}

async function open(other) {
  answering?.abort();
  name = other;
  messages = [];
  waiting = [];
  at("log").replaceChildren();
  problem("");
  status("");
  showWaiting();
  if (other) {
    try {
      messages = (await (await ask(`/api/conversations/${other}`)).json()).messages;
      messages.forEach(show);
    } catch (error) {
      if (error.status === 404) forget(other);
      else problem(error.message);
      name = null;
    }
  }
  enable();
  showKnown();
}

async function takeBack() {
  messages = withoutLast(messages);
  await keep();
  await open(name);
}

async function remove() {
  if (!name || !confirm("Delete this conversation and its pictures?")) return;
  try {
    await ask(`/api/conversations/${name}`, { method: "DELETE" });
  } catch (error) {
    if (error.status !== 404) return problem(error.message);
  }
  forget(name);
  await open(null);
}

async function save() {
  try {
    const blob = await (await ask(`/api/conversations/${name}/export`)).blob();
    const link = made("a", { href: URL.createObjectURL(blob), download: "conversation.jsonl" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  } catch (error) {
    problem(error.message);
  }
}

function showKnown() {
  const list = at("conversations");
  list.replaceChildren();
  for (const one of known()) {
    const button = made("button", { type: "button", textContent: one.title });
    if (one.name === name) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => open(one.name));
    list.appendChild(made("li")).append(button);
  }
  at("earlier").hidden = !list.childElementCount;
}

// Settings.

function settings() {
  const chosen = { size: at("size").value, n: Number(at("n").value) || 1 };
  if (at("seed").value) chosen.seed = at("seed").value;
  if (at("answer").value) chosen.answer = at("answer").value;
  for (const input of at("numbers").querySelectorAll("input")) {
    if (input.value !== "") chosen[input.name] = Number(input.value);
  }
  return chosen;
}

function sizeNow() {
  return model?.sizes.find((size) => size.name === at("size").value) ?? { width: 256, height: 256 };
}

function showSettings() {
  at("told").textContent = model.told;
  at("n").max = model.images;
  if (at("size").childElementCount) return;
  for (const { name: own, width, height } of model.sizes) {
    at("size").append(made("option", { value: own, textContent: `${width}×${height}` }));
  }
  for (const [key, title] of Object.entries(NUMBERS)) {
    const [min, max] = model.ranges[key];
    const input = made("input", { type: "number", name: key, min, max, step: "any", placeholder: model.sampling[key] });
    const label = made("label", { textContent: `${title} ` });
    label.append(input);
    at("numbers").append(label);
  }
}

async function look() {
  try {
    model = await (await ask("/api/model")).json();
  } catch (error) {
    if (error.status === 401) return askForToken();
    problem(error.message);
    return setTimeout(look, 5000);
  }
  showSettings();
  problem("");
  if (!model.ready) {
    status(`The model is being compiled: ${model.compiled} of ${model.to_compile}. You may ask already.`);
    setTimeout(look, 2000);
  }
}

function askForToken() {
  at("token-dialog").showModal();
  at("token-dialog").addEventListener("close", () => {
    setToken(at("token").value.trim());
    begin();
  }, { once: true });
}

// Small things.

function made(tag, properties = {}) {
  return Object.assign(document.createElement(tag), properties);
}

/** Keeps what comes last in view, unless somebody reads further up. */
function follow(near = 300) {
  const page = document.scrollingElement;
  if (page && page.scrollHeight - page.scrollTop - page.clientHeight < near) page.scrollTop = page.scrollHeight;
}

function status(text) {
  at("status").textContent = text;
}

function problem(text) {
  at("problem").textContent = text;
}

function enable() {
  at("send").disabled = Boolean(answering);
  at("stop").hidden = !answering;
  for (const id of ["undo", "export", "delete"]) at(id).disabled = Boolean(answering) || !messages.length;
  at("size").disabled = messages.length > 0; // a conversation has pictures of one size
  for (const list of at("log").querySelectorAll(".acts")) {
    list.hidden = Boolean(answering) || !list.closest("li").matches(":last-child");
  }
}

async function begin() {
  await look();
  if (model) await open(known()[0]?.name ?? null);
}

at("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  problem("");
  say(at("text").value).catch((error) => problem(error.message));
});
at("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at("composer").requestSubmit();
  }
});
at("stop").addEventListener("click", () => answering?.abort());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) answering?.abort();
});
at("file").addEventListener("change", async (event) => {
  for (const file of [...event.target.files]) await addPicture(file);
  event.target.value = "";
});
document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])].filter((file) => file.type.startsWith("image/"));
  if (files.length) event.preventDefault();
  files.forEach(addPicture);
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  [...(event.dataTransfer?.files ?? [])].filter((file) => file.type.startsWith("image/")).forEach(addPicture);
});
at("sketch").addEventListener("click", () => {
  const { width, height } = sizeNow();
  sketch.open(width, height, addPicture);
});
at("new").addEventListener("click", () => open(null));
at("undo").addEventListener("click", takeBack);
at("export").addEventListener("click", save);
at("delete").addEventListener("click", remove);
enable();
begin();
