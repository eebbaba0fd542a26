// Talks to the program that serves this page, and says what is happening.

const FIRST_SIGN = 200; // milliseconds before a wait is mentioned
const POLL = 700;

let instance = null;
let lost = null;
const restarted = [];

/** Calls `listener` with what `about` tells when the program was started anew. */
export function onRestart(listener) {
  restarted.push(listener);
}

/** Shows a sentence at the foot of the page; `kind` is "", "busy" or "error". */
export function say(text, kind = "") {
  const status = document.getElementById("status");
  status.textContent = text;
  status.className = kind;
}

async function send(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    waitForProgram();
    throw new Error("The program does not answer. Is it still running?");
  }
  let body;
  try {
    body = await response.json();
  } catch {
    throw new Error(`The program answered ${response.status} without a word.`);
  }
  if (!response.ok) {
    throw Object.assign(new Error(body.error ?? `error ${response.status}`), { status: response.status });
  }
  return body;
}

/** Until the program is there again; one that was started anew has other pictures. */
function waitForProgram() {
  lost ??= setInterval(async () => {
    try {
      const told = await (await fetch("queue")).json();
      clearInterval(lost);
      lost = null;
      if (told.instance === instance) {
        say("The program answers again.");
        return;
      }
      await beginAnew();
    } catch {
      // Not yet.
    }
  }, 1500);
}

/** Another program listens here now than when the page was opened. */
async function beginAnew() {
  const news = await about();
  restarted.forEach((listener) => listener(news));
  say("The program was started anew.");
}

/** What the program is, and which pictures it has. */
export async function about() {
  const told = await send("about");
  instance = told.instance;
  return told;
}

/** The answer to a question; says that it waits, and for how many. */
export async function ask(name, body) {
  const done = busy();
  try {
    const options = { method: "POST", headers: { "content-type": "application/json" } };
    return await send(`ask/${name}`, { ...options, body: JSON.stringify({ ...body, instance }) });
  } catch (error) {
    if (error.status === 409) await beginAnew();
    throw error;
  } finally {
    done();
  }
}

/** Sends a file; the answer is its number and name. */
export async function upload(file) {
  const done = busy(`Sending ${file.name}…`);
  try {
    const headers = { "x-name": encodeURIComponent(file.name) };
    return await send("pictures", { method: "POST", headers, body: file });
  } finally {
    done();
  }
}

let waits = 0;

function busy(text = "Computing…") {
  waits += 1;
  document.body.dataset.waits = waits;
  const tell = async () => {
    try {
      const { waiting } = await (await fetch("queue")).json();
      if (waits > 0) say(waiting > waits ? `${text} (${waiting - waits} of others before)` : text, "busy");
    } catch {
      // The question itself says that nobody answers.
    }
  };
  const first = setTimeout(tell, FIRST_SIGN);
  const poll = setInterval(tell, POLL);
  return () => {
    clearTimeout(first);
    clearInterval(poll);
    waits -= 1;
    document.body.dataset.waits = waits;
    const status = document.getElementById("status");
    if (waits === 0 && status.className === "busy") say("");
  };
}

/**
 * Does `work` for the newest wish: one at a time, and those that were overtaken meanwhile are
 * dropped. A stroke of the brush makes many wishes a second.
 */
export class Newest {
  constructor(work) {
    this.work = work;
    this.running = false;
    this.failed = null; // what is said of the last wish
    this.wish = null;
  }

  async want(...wish) {
    this.wish = wish;
    if (this.running) return;
    this.running = true;
    try {
      while (this.wish) {
        const next = this.wish;
        this.wish = null;
        try {
          await this.work(...next);
          const status = document.getElementById("status");
          if (this.failed !== null && status.textContent === this.failed) say("");
          this.failed = null;
        } catch (error) {
          say(error.message, "error");
          this.failed = error.message;
        }
      }
    } finally {
      this.running = false;
    }
  }
}
