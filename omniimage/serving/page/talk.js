// A conversation as the page has it: messages, and which conversations this browser knows.

const KNOWN = "omniimage conversations";
const TITLE = 60; // characters

/** Conversations of this browser, [{name, title}], the last one first. */
export function known(storage = localStorage) {
  try {
    const list = JSON.parse(storage.getItem(KNOWN));
    return Array.isArray(list) ? list.filter((one) => /^[0-9a-f]{32}$/.test(one?.name)) : [];
  } catch {
    return [];
  }
}

export function remember(name, title, storage = localStorage) {
  const others = known(storage).filter((one) => one.name !== name);
  storage.setItem(KNOWN, JSON.stringify([{ name, title: title.slice(0, TITLE) }, ...others]));
}

export function forget(name, storage = localStorage) {
  storage.setItem(KNOWN, JSON.stringify(known(storage).filter((one) => one.name !== name)));
}

/** What a conversation is called by: the first words in it. */
export function titleOf(messages) {
  for (const message of messages) {
    const text = message.content.find((part) => part.type === "text");
    if (text) return text.text;
  }
  return "pictures";
}

/** Messages without the last of the user's and what follows it. */
export function withoutLast(messages) {
  const last = messages.findLastIndex((message) => message.role === "user");
  return last < 0 ? messages : messages.slice(0, last);
}

/** The user's message: pictures first, as training has them. */
export function said(text, pictures) {
  const parts = pictures.map((name) => ({ type: "picture", name }));
  return { role: "user", content: text.trim() ? [...parts, { type: "text", text: text.trim() }] : parts };
}

/** Messages in which the last answer has another of several pictures. */
export function withPicture(messages, name) {
  const last = messages.at(-1);
  const index = last.content.findIndex((part) => part.type === "picture");
  const content = last.content.map((part, i) => (i === index ? { type: "picture", name } : part));
  return [...messages.slice(0, -1), { ...last, content }];
}

/** What the user has said last, as one text. */
export function wordsOf(messages) {
  const last = messages.findLast((message) => message.role === "user");
  return (last?.content ?? []).filter((part) => part.type === "text").map((part) => part.text).join(" ");
}

/** Messages up to the user's last, which says these words. */
export function askedAgain(messages, words) {
  const last = messages.findLastIndex((message) => message.role === "user");
  const pictures = messages[last].content.filter((part) => part.type === "picture").map((part) => part.name);
  return [...messages.slice(0, last), said(words, pictures)];
}
