// The page of the inbox: a list that shows only the rows in sight, one message, and faults.
//
// Nothing of a message becomes markup here: text goes into text nodes, and HTML into a sandboxed frame that the server
// has made safe. The policy of this page forbids the rest.

const ROW = 76; // pixels, as --row in page.css
const CHUNK = 100; // messages of one request
const SOURCE = 1024 * 1024; // characters of a source that are shown
const PREVIEW = 2000; // characters of a text attachment

const $ = (id) => document.getElementById(id);
const VIEWS = ["html", "text", "headers", "source", "attachments", "smtp"];
const NAMES = { html: "HTML", text: "Text", headers: "Headers", source: "Source", attachments: "Attachments", smtp: "SMTP" };

const state = {
  items: [], // sparse: what was loaded, newest first
  total: 0, // messages that the query finds
  unread: 0, // in the whole inbox
  kept: 0, // in the whole inbox
  query: "",
  chosen: 0, // the row that keys work on
  open: null, // the id of the message that is shown
  view: null, // the view that was chosen last
  generation: 0, // counts lists; answers to requests of an earlier one are late
  loading: new Set(), // chunks that were asked for
  about: null,
  rules: [],
};

// ---- small things

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function template(id) {
  return $(id).content.firstElementChild.cloneNode(true);
}

async function ask(path, options = {}) {
  const answer = await fetch(path, options);
  if (!answer.ok) throw Object.assign(new Error((await answer.text()) || answer.statusText), { status: answer.status });
  return (answer.headers.get("content-type") || "").startsWith("application/json") ? answer.json() : answer.text();
}

const change = (method, path, data) =>
  ask(path, { method, headers: { "content-type": "application/json" }, body: data === undefined ? undefined : JSON.stringify(data) });

function size(octets) {
  if (octets < 1024) return `${octets} B`;
  return octets < 1024 * 1024 ? `${(octets / 1024).toFixed(1)} KiB` : `${(octets / 1024 / 1024).toFixed(1)} MiB`;
}

function when(text) {
  const date = new Date(text);
  const today = new Date().toDateString() === date.toDateString();
  return today
    ? date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })
    : date.toLocaleDateString([], { day: "numeric", month: "short" });
}

const person = (mailbox) => mailbox.Name || mailbox.Address || "(no sender)";
const address = (mailbox) => (mailbox.Name && mailbox.Address ? `${mailbox.Name} <${mailbox.Address}>` : mailbox.Address || mailbox.Name);
const say = (text) => { $("said").textContent = text; };

function complain(error) {
  $("trouble").hidden = !error;
  $("trouble").textContent = error ? error.message : "";
}

// ---- the list

const listPath = (start, limit) =>
  state.query
    ? `/api/v1/search?query=${encodeURIComponent(state.query)}&start=${start}&limit=${limit}`
    : `/api/v1/messages?start=${start}&limit=${limit}`;

async function reload() {
  const generation = ++state.generation;
  state.loading.clear();
  let page;
  try {
    page = await ask(listPath(0, CHUNK));
  } catch (error) {
    if (generation === state.generation) complain(error.status ? error : new Error("The inbox does not answer."));
    return;
  }
  if (generation !== state.generation) return;
  complain(null);
  const before = state.items[state.chosen]?.ID;
  state.items = new Array(page.messages_count);
  page.messages.forEach((item, at) => { state.items[at] = item; });
  Object.assign(state, { total: page.messages_count, unread: page.unread, kept: page.total });
  const again = page.messages.findIndex((item) => item.ID === before);
  state.chosen = again >= 0 ? again : Math.min(state.chosen, Math.max(0, state.total - 1));
  render();
}

async function loadChunk(chunk) {
  if (state.loading.has(chunk)) return;
  state.loading.add(chunk);
  const generation = state.generation;
  try {
    const page = await ask(listPath(chunk * CHUNK, CHUNK));
    if (generation !== state.generation) return;
    if (page.messages_count !== state.total) { reload(); return; }
    page.messages.forEach((item, at) => { state.items[chunk * CHUNK + at] = item; });
    render();
  } catch { /* the connection is lost, and events say so */ } finally {
    state.loading.delete(chunk);
  }
}

let rendering = false;
function render() {
  if (rendering) return;
  rendering = true;
  requestAnimationFrame(() => { rendering = false; draw(); });
}

const drawn = new Map(); // row elements by index

function draw() {
  const list = $("list");
  list.hidden = state.total === 0; // before its height is asked for
  $("rows").style.height = `${state.total * ROW}px`;
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
  const last = Math.min(state.total, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 4);
  for (const [at, row] of drawn) if (at < first || at >= last) { row.remove(); drawn.delete(at); }
  let added = false;
  for (let at = first; at < last; at++) added = drawRow(at) || added;
  if (added) for (let at = first; at < last; at++) $("rows").append(drawn.get(at)); // in order, for screen readers
  list.setAttribute("aria-activedescendant", drawn.has(state.chosen) ? `row-${state.chosen}` : "");
  $("empty").hidden = state.total > 0 || !state.query;
  $("empty").textContent = "Nothing found.";
  document.body.classList.toggle("empty", state.kept === 0);
  $("count").hidden = !state.unread;
  $("count").textContent = state.unread;
  $("count").title = `${state.unread} unread of ${state.kept}`;
  document.title = state.unread ? `(${state.unread}) Inbox` : "Inbox";
  $("read-all").disabled = !state.unread;
  $("delete-all").disabled = !state.total;
  $("delete-all").textContent = state.query ? "Delete found" : "Delete all";
  if (!state.open) drawNothingOpen();
}

function drawRow(at) {
  let row = drawn.get(at);
  const isNew = !row;
  if (isNew) {
    row = template("row-template");
    row.id = `row-${at}`;
    row.style.top = `${at * ROW}px`;
    row.addEventListener("click", () => { state.chosen = at; show(state.items[at]?.ID); });
    drawn.set(at, row);
  }
  const item = state.items[at];
  row.classList.toggle("chosen", at === state.chosen);
  row.setAttribute("aria-selected", String(at === state.chosen));
  row.setAttribute("aria-setsize", state.total);
  row.setAttribute("aria-posinset", at + 1);
  row.classList.toggle("waiting", !item);
  if (!item) { loadChunk(Math.floor(at / CHUNK)); return isNew; }
  if (row.dataset.id === item.ID && row.dataset.read === String(item.Read)) return isNew;
  Object.assign(row.dataset, { id: item.ID, read: String(item.Read) });
  row.classList.toggle("new", !item.Read);
  row.querySelector(".who").textContent = person(item.From);
  row.querySelector(".clip").hidden = !item.Attachments;
  const time = row.querySelector("time");
  time.textContent = when(item.Created);
  time.dateTime = item.Created;
  row.querySelector(".subject").textContent = item.Subject || "(no subject)";
  row.querySelector(".snippet").textContent = item.Snippet;
  const to = item.To.concat(item.Cc, item.Bcc).map(person).join(", ");
  row.title = `To ${to}`;
  row.setAttribute("aria-label", `${item.Read ? "" : "Unread. "}${person(item.From)}: ${item.Subject || "no subject"}. ${when(item.Created)}. To ${to}`);
  return isNew;
}

function choose(at) {
  if (!state.total) return;
  state.chosen = Math.max(0, Math.min(state.total - 1, at));
  const list = $("list"), top = state.chosen * ROW;
  if (top < list.scrollTop) list.scrollTop = top;
  else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  if (state.open && state.items[state.chosen] && !narrow()) show(state.items[state.chosen].ID, { focus: false });
  render();
}

const narrow = () => matchMedia("(max-width: 720px)").matches;
const indexOf = (id) => state.items.findIndex((item) => item?.ID === id);

// ---- events

let search = 0;
function refreshSoon() {
  clearTimeout(search);
  search = setTimeout(reload, 150);
}

const EVENTS = {
  new(item) {
    state.kept++;
    state.unread++;
    if (state.query) { refreshSoon(); return; }
    const list = $("list");
    state.items.unshift(item);
    state.total++;
    state.generation++; // what is on its way has other indices now
    state.loading.clear();
    if (state.total > 1 && (state.chosen > 0 || state.open)) state.chosen++;
    for (const row of drawn.values()) row.remove();
    drawn.clear();
    if (list.scrollTop > ROW / 2) list.scrollTop += ROW; // what is read stays where it is
    say(`New message from ${person(item.From)}: ${item.Subject}`);
    render();
  },
  read({ ID, Read }) {
    const item = state.items[indexOf(ID)];
    if (state.query && /\bis:/i.test(state.query)) refreshSoon();
    state.unread += Read ? -1 : 1;
    if (item) item.Read = Read;
    render();
  },
  delete({ ID }) {
    if (state.open === ID) close();
    refreshSoon();
  },
  prune() { refreshSoon(); },
};

function listen() {
  const source = new EventSource("/api/events");
  source.onopen = () => {
    $("live").classList.remove("lost");
    $("live").textContent = "live";
    $("live").title = "New messages appear by themselves.";
    reload(); // what came in between
  };
  source.onerror = () => {
    $("live").classList.add("lost");
    $("live").textContent = "connecting…";
    $("live").title = "The inbox does not answer; trying again.";
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
  };
  source.onmessage = (event) => {
    const { Type, Data } = JSON.parse(event.data);
    if (Object.hasOwn(EVENTS, Type)) EVENTS[Type](Data);
  };
}

// ---- one message

function show(id, { focus = true } = {}) {
  if (!id) return;
  const hash = `#/${id}`;
  if (location.hash.startsWith(hash)) { route({ focus }); return; }
  if (state.open) { history.replaceState(null, "", hash); route({ focus }); } else location.hash = hash;
}

function close() {
  if (state.open) history.replaceState(null, "", location.pathname);
  route();
}

let shown = 0;
async function route({ focus = true } = {}) {
  const match = /^#\/([0-9a-z]{1,64})(?:\/([a-z]+))?$/.exec(location.hash);
  const id = match ? match[1] : null;
  if (match && VIEWS.includes(match[2])) state.view = match[2];
  if (id === state.open && id) return;
  const turn = ++shown;
  state.open = id;
  document.body.classList.toggle("reading", Boolean(id));
  if (!id) {
    $("reader").replaceChildren();
    drawNothingOpen();
    $("list").focus();
    render();
    return;
  }
  let message, facts;
  try {
    [message, facts] = await Promise.all([ask(`/api/v1/message/${id}`), ask(`/api/v1/message/${id}/facts`)]);
  } catch (error) {
    if (turn !== shown) return;
    $("reader").replaceChildren(make("p", { className: "choose", textContent: error.status === 404 ? "This message is not there any more." : error.message }));
    return;
  }
  if (turn !== shown) return;
  const at = indexOf(id);
  if (at >= 0) { state.chosen = at; render(); }
  drawMessage(message, facts, focus);
}

function drawNothingOpen() {
  const reader = $("reader");
  const wanted = state.kept === 0 ? "nothing" : "choose";
  if (reader.dataset.shows === wanted && reader.firstElementChild) return;
  reader.dataset.shows = wanted;
  const element = template(`${wanted}-template`);
  if (wanted === "nothing" && state.about) fillHelp(element);
  reader.replaceChildren(element);
}

function fillHelp(element) {
  const { Host, Port, TLS } = state.about.SMTP;
  const where = Host.includes(":") ? `[${Host}]:${Port}` : `${Host}:${Port}`;
  element.querySelector(".where").textContent = where;
  const code = {
    python: `smtplib.SMTP("${Host}", ${Port}).send_message(message)`,
    django: `EMAIL_HOST = "${Host}"\nEMAIL_PORT = ${Port}`,
    shell: `echo Hello | trio-smtp send --server ${where}${TLS === "starttls" ? " --tls opportunistic" : ""} --from me@example.com --to you@example.com`,
  };
  for (const pre of element.querySelectorAll("pre")) pre.textContent = code[pre.dataset.code];
}

function drawMessage(message, facts, focus) {
  const article = template("message-template");
  const find = (selector) => article.querySelector(selector);
  find(".subject").textContent = message.Subject || "(no subject)";
  find(".download").href = `/api/v1/message/${message.ID}/raw?dl=1`;
  find(".back").addEventListener("click", close);
  find(".delete").addEventListener("click", () => remove(message.ID));
  find(".unread").addEventListener("click", async () => {
    await change("PUT", "/api/v1/messages", { IDs: [message.ID], Read: false });
    close();
  });
  drawPeople(find(".people"), message, facts);
  if (facts.Warnings.length) {
    find(".warnings").hidden = false;
    find(".warnings summary").textContent = facts.Warnings.length === 1 ? "1 remark" : `${facts.Warnings.length} remarks`;
    find(".warnings ul").append(...facts.Warnings.map((each) => make("li", { textContent: each })));
  }
  if (facts.Codes.length) {
    find(".codes").hidden = false;
    find(".codes").append("Codes:", ...facts.Codes.slice(0, 8).map(copyButton));
  }
  drawTabs(find(".tabs"), find(".view"), message, facts);
  $("reader").dataset.shows = "message";
  $("reader").replaceChildren(article);
  if (focus) find(".subject").focus({ preventScroll: true });
}

function copyButton(code) {
  const button = make("button", { type: "button", textContent: code, title: "Copy" });
  button.addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(code); say(`${code} was copied`); button.title = "Copied"; } catch { say("It could not be copied"); }
  });
  return button;
}

function drawPeople(people, message, facts) {
  const add = (name, ...content) => people.append(make("dt", { textContent: name }), make("dd", { dir: "auto" }, ...content));
  add("From", address(message.From) || "(no sender)");
  const sender = facts.Sender.Address;
  if (sender.toLowerCase() !== message.From.Address.toLowerCase()) {
    people.lastElementChild.append(make("span", { className: "tag", textContent: `envelope: <${sender}>` }));
  }
  for (const [name, boxes] of [["To", message.To], ["Cc", message.Cc], ["Bcc", message.Bcc], ["Reply-To", message.ReplyTo]]) {
    if (boxes.length) add(name, boxes.map(address).join(", "));
    if (name === "Bcc" && boxes.length) {
      people.lastElementChild.append(make("span", { className: "tag", textContent: "not in To or Cc", title: "Recipients of the envelope alone, or of a Bcc field" }));
    }
  }
  add("Date", `${new Date(message.Date).toLocaleString()} · ${size(message.Size)}`);
}

function drawTabs(tabs, panel, message, facts) {
  const parts = [...message.Attachments, ...message.Inline];
  const offered = VIEWS.filter((view) => view !== "html" || message.HTML);
  const wanted = offered.includes(state.view) ? state.view : message.HTML ? "html" : "text";
  panel.id = "view";
  const buttons = offered.map((view) => {
    const button = make("button", { type: "button", id: `tab-${view}`, textContent: NAMES[view] });
    if (view === "attachments") button.dataset.count = parts.length; // shown by the style sheet
    button.setAttribute("role", "tab");
    button.setAttribute("aria-controls", "view");
    button.addEventListener("click", () => { state.view = view; select(view); });
    return button;
  });
  tabs.append(...buttons);
  tabs.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const at = (buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length;
    buttons[at].focus();
    buttons[at].click();
    event.stopPropagation();
  });
  function select(view) {
    for (const button of buttons) {
      const isIt = button.id === `tab-${view}`;
      button.setAttribute("aria-selected", String(isIt));
      button.tabIndex = isIt ? 0 : -1;
    }
    panel.setAttribute("aria-labelledby", `tab-${view}`);
    panel.className = "view";
    panel.replaceChildren();
    DRAW[view](panel, message, facts, parts);
  }
  select(wanted);
}

const DRAW = {
  html(panel, message) {
    const frame = make("iframe", { title: "The message as HTML" });
    frame.setAttribute("sandbox", "allow-popups allow-popups-to-escape-sandbox"); // for links that are clicked
    frame.setAttribute("referrerpolicy", "no-referrer");
    frame.src = `/view/${message.ID}.html?embed=1`;
    const width = make("button", { type: "button", className: "width", textContent: "Phone width" });
    width.addEventListener("click", () => {
      width.textContent = panel.classList.toggle("phone") ? "Full width" : "Phone width";
    });
    panel.classList.add("frame");
    panel.append(frame, width);
  },
  text(panel, message, facts) {
    if (!facts.HasText && message.HTML) panel.append(make("p", { className: "none", textContent: "There is no text part; this is the text of the HTML." }));
    const pre = make("pre", { className: "text", dir: "auto" });
    linkify(pre, message.Text);
    panel.append(message.Text.trim() ? pre : make("p", { className: "none", textContent: "The message has no text." }));
  },
  headers(panel, message, facts) {
    panel.append(table(facts.Headers));
  },
  async source(panel, message) {
    const pre = make("pre", { textContent: "…" });
    panel.append(pre);
    try {
      const text = await ask(`/api/v1/message/${message.ID}/raw`);
      pre.textContent = text.length > SOURCE ? `${text.slice(0, SOURCE)}\n… (${size(text.length)} in all)` : text;
    } catch (error) { pre.textContent = error.message; }
  },
  attachments(panel, message, facts, parts) {
    if (!parts.length) { panel.append(make("p", { className: "none", textContent: "The message has no attachments." })); return; }
    panel.append(make("ul", { className: "parts" }, ...parts.map((part) => drawPart(message, part))));
  },
  async smtp(panel, message, facts) {
    const params = (party) => Object.entries(party.Params).map(([name, value]) => (value === null ? name : `${name}=${value}`)).join(" ");
    panel.append(make("h3", { textContent: "Envelope" }));
    panel.append(table([
      ["From", `<${facts.Sender.Address}> ${params(facts.Sender)}`],
      ...facts.Recipients.map((each) => ["To", `<${each.Address}> ${params(each)}`]),
      ["Client", `${facts.Hello}${facts.Peer ? ` (${facts.Peer[0]})` : ""}`],
      ["TLS", facts.TLS ? `${facts.TLS.Version}, ${facts.TLS.Cipher}` : "none: in clear"],
      ["Login", facts.Username || "none"],
    ]));
    panel.append(make("h3", { textContent: "Dialogue" }));
    const pre = make("pre");
    panel.append(pre);
    try {
      const text = await ask(`/api/v1/message/${message.ID}/transcript`);
      for (const line of text.split("\n")) {
        pre.append(make("span", { className: line.startsWith("C:") ? "c" : "s", textContent: line }), "\n");
      }
    } catch (error) { pre.textContent = error.message; }
  },
};

function table(rows) {
  return make("table", {}, make("tbody", {}, ...rows.map(([name, value]) => {
    const heading = make("th", { scope: "row", textContent: name });
    return make("tr", {}, heading, make("td", { textContent: value, dir: "auto" }));
  })));
}

function linkify(element, text) {
  let end = 0;
  for (const match of text.matchAll(/https?:\/\/[^\s<>"']+/gi)) {
    const url = match[0].replace(/[.,;:!?)*_]+$/, "");
    element.append(text.slice(end, match.index), make("a", { href: url, textContent: url, target: "_blank", rel: "noopener noreferrer" }));
    end = match.index + url.length;
  }
  element.append(text.slice(end));
}

function drawPart(message, part) {
  const path = `/api/v1/message/${message.ID}/part/${part.PartID}`;
  const preview = make("div", { className: "preview" });
  if (/^image\/(png|jpeg|gif|webp|bmp|avif)$/.test(part.ContentType)) {
    preview.append(make("img", { src: path, alt: "", loading: "lazy" }));
  } else if (/^(text\/|application\/(json|xml)$)/.test(part.ContentType) && part.Size < 1024 * 1024) {
    ask(path).then((text) => {
      const shown = typeof text === "string" ? text : JSON.stringify(text, null, 2);
      preview.append(make("pre", { textContent: shown.slice(0, PREVIEW) }));
    }, () => {});
  } else {
    preview.append(make("span", { className: "kind", textContent: part.ContentType }));
  }
  const link = make("a", { href: `${path}?dl=1`, textContent: part.FileName, download: part.FileName });
  const kind = make("p", { className: "kind", textContent: `${part.ContentType} · ${size(part.Size)}${part.ContentID ? " · inline" : ""}` });
  return make("li", {}, preview, link, kind);
}

async function remove(id) {
  const at = indexOf(id);
  const next = at >= 0 ? state.items[at + 1] ?? state.items[at - 1] : undefined;
  if (state.open === id) { // before the event that it is gone
    if (next && !narrow()) show(next.ID, { focus: false }); else close();
  }
  if (at >= 0) state.chosen = Math.max(0, Math.min(at, state.total - 2));
  await change("DELETE", "/api/v1/messages", { IDs: [id] });
  say("The message was deleted.");
}

// ---- faults

function describe(rule) {
  const who = [rule.recipient && `to ${rule.recipient}`, rule.sender && `from ${rule.sender}`].filter(Boolean).join(", ") || "everybody";
  const what = rule.reply !== undefined ? rule.reply : rule.stall !== undefined ? `stall ${rule.stall} s` : "cut the connection";
  const extra = [
    rule.share !== undefined && rule.share < 1 && `${Math.round(rule.share * 100)} %`,
    rule.rate && `beyond ${rule.rate[0]} in ${rule.rate[1]} s`,
    rule.times !== undefined && `${rule.times} more`,
  ].filter(Boolean).join(", ");
  return `${who}, ${rule.stage ?? (rule.recipient ? "rcpt" : "mail")}: ${what}${extra ? ` (${extra})` : ""}`;
}

function drawRules(rules) {
  state.rules = rules;
  $("fault-count").hidden = !rules.length;
  $("fault-count").textContent = rules.length;
  $("rule-list").replaceChildren(...rules.map((rule, at) => {
    const button = make("button", { type: "button", textContent: "Remove" });
    button.setAttribute("aria-label", `Remove the rule ${describe(rule)}`);
    button.addEventListener("click", () => setRules(rules.filter((_, other) => other !== at)));
    return make("li", {}, make("span", { textContent: describe(rule) }), button);
  }));
  $("forget-rules").disabled = !rules.length;
}

async function setRules(rules) {
  try {
    drawRules((await change("PUT", "/api/faults", { rules })).rules);
    $("rule-trouble").hidden = true;
  } catch (error) {
    $("rule-trouble").hidden = false;
    $("rule-trouble").textContent = error.message;
  }
}

function ruleOf(form) {
  const value = (name) => form.elements[name].value.trim();
  const rule = { stage: value("stage") };
  for (const name of ["recipient", "sender"]) if (value(name)) rule[name] = value(name);
  const kind = value("kind");
  if (kind === "reply") rule.reply = value("reply");
  else if (kind === "stall") rule.stall = Number(value("stall"));
  else rule.cut = true;
  if (value("share") !== "" && Number(value("share")) !== 100) rule.share = Number(value("share")) / 100;
  if (value("seed")) rule.seed = Number(value("seed"));
  if (value("times")) rule.times = Number(value("times"));
  if (value("rate")) rule.rate = [Number(value("rate")), Number(value("rate-seconds"))];
  return rule;
}

function prepareFaults() {
  const form = $("new-rule"), dialog = $("rules");
  $("faults").addEventListener("click", async () => {
    dialog.showModal();
    drawRules((await ask("/api/faults")).rules);
  });
  form.elements.kind.addEventListener("change", () => {
    const kind = form.elements.kind.value;
    form.querySelector(".for-reply").hidden = kind !== "reply";
    form.querySelector(".for-stall").hidden = kind !== "stall";
    form.elements.reply.required = kind === "reply";
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    setRules([...state.rules, ruleOf(form)]);
  });
  $("forget-rules").addEventListener("click", () => setRules([]));
}

// ---- keys and buttons

const KEYS = {
  j: () => choose(state.chosen + 1),
  k: () => choose(state.chosen - 1),
  ArrowDown: () => choose(state.chosen + 1),
  ArrowUp: () => choose(state.chosen - 1),
  PageDown: () => choose(state.chosen + 8),
  PageUp: () => choose(state.chosen - 8),
  Home: () => choose(0),
  End: () => choose(state.total - 1),
  Enter: () => show(state.items[state.chosen]?.ID),
  Delete: () => { const id = state.open ?? state.items[state.chosen]?.ID; if (id) remove(id); },
  Escape: () => close(),
  "/": () => { $("query").focus(); $("query").select(); },
};
const ANYWHERE = new Set(["j", "k", "/", "Delete", "Escape"]); // the others scroll what has the focus

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("rules").open || !Object.hasOwn(KEYS, event.key)) return;
  if (event.target.matches("input, select, textarea")) {
    if (event.key === "Escape" || event.key === "ArrowDown") { $("list").focus(); event.preventDefault(); }
    return;
  }
  const isInList = event.target === $("list") || event.target === document.body;
  if (!isInList && !ANYWHERE.has(event.key)) return;
  event.preventDefault();
  KEYS[event.key]();
}

function start() {
  document.addEventListener("keydown", onKey);
  $("list").addEventListener("scroll", render, { passive: true });
  addEventListener("resize", render);
  addEventListener("hashchange", () => route());
  $("search").addEventListener("submit", (event) => { event.preventDefault(); $("list").focus(); });
  $("query").addEventListener("input", () => {
    state.query = $("query").value.trim();
    state.chosen = 0;
    $("list").scrollTop = 0;
    refreshSoon();
  });
  $("read-all").addEventListener("click", () => change("PUT", "/api/v1/messages", { Read: true }));
  $("delete-all").addEventListener("click", () => {
    if (state.total > 20 && !confirm(`Delete ${state.total} messages?`)) return;
    change("DELETE", state.query ? `/api/v1/search?query=${encodeURIComponent(state.query)}` : "/api/v1/messages");
  });
  prepareFaults();
  ask("/api/about").then((about) => { state.about = about; $("reader").dataset.shows = ""; render(); }, () => {});
  ask("/api/faults").then(({ rules }) => drawRules(rules), () => {});
  listen();
  route();
}

start();
