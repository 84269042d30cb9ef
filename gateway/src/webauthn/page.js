// Carries a ceremony out whose ticket is in the fragment of this page's URL.

const element = (id) => document.getElementById(id);
const ticket = location.hash.slice(1);
// The ticket is a secret: it must not stay in the history.
history.replaceState(null, "", location.pathname);

const bytes = (text) =>
  Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
const text = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer)))
    .replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

async function post(path, body) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.message);
  return answer;
}

const described = (keys = []) => keys.map((key) => ({ ...key, id: bytes(key.id) }));

async function create({ publicKey }) {
  const made = await navigator.credentials.create({
    publicKey: {
      ...publicKey,
      challenge: bytes(publicKey.challenge),
      user: { ...publicKey.user, id: bytes(publicKey.user.id) },
      excludeCredentials: described(publicKey.excludeCredentials),
    },
  });
  return answerOf(made, {
    attestationObject: text(made.response.attestationObject),
    transports: made.response.getTransports?.() ?? [],
  });
}

async function sign({ publicKey }) {
  const made = await navigator.credentials.get({
    publicKey: {
      ...publicKey,
      challenge: bytes(publicKey.challenge),
      allowCredentials: described(publicKey.allowCredentials),
    },
  });
  const { authenticatorData, signature, userHandle } = made.response;
  return answerOf(made, {
    authenticatorData: text(authenticatorData),
    signature: text(signature),
    userHandle: userHandle ? text(userHandle) : null,
  });
}

const answerOf = (made, response) => ({
  id: made.id,
  rawId: text(made.rawId),
  type: made.type,
  response: { clientDataJSON: text(made.response.clientDataJSON), ...response },
  extensions: {},
});

function tell(message, state) {
  const outcome = element("outcome");
  outcome.textContent = message;
  outcome.dataset.state = state;
}

const reason = (error) =>
  error.name === "NotAllowedError"
    ? "The key did not answer, or you said no."
    : error.name === "InvalidStateError"
      ? "This key is enrolled already: use another one."
      : error.message;

let asked = null;

async function go() {
  const button = element("go");
  button.disabled = true;
  tell("Follow what your browser shows, and touch your key if it blinks.", "waiting");
  try {
    // The first challenge came with the page; each one is good for one answer.
    const { enrols, options } = asked ?? (await post("/webauthn/options", { ticket }));
    asked = null;
    const credential = await (enrols ? create(options) : sign(options));
    await post("/webauthn/finish", { ticket, credential });
    button.hidden = true;
    element("compare").hidden = true;
    tell("Done. You can close this page and go back to your terminal.", "done");
  } catch (error) {
    tell(reason(error), "failed");
    button.textContent = "Try again";
  }
  button.disabled = false;
}

async function start() {
  try {
    if (!ticket) throw new Error("This link is not complete: copy all of it.");
    if (!window.PublicKeyCredential) throw new Error("This browser knows no security keys.");
    asked = await post("/webauthn/options", { ticket });
  } catch (error) {
    element("who").textContent = "";
    tell(error.message, "failed");
    return;
  }
  element("title").textContent = asked.enrols ? "Enrol a passkey or security key" : "Prove that it is you";
  element("who").textContent = asked.enrols
    ? `It will be one of the ways in which ${asked.account} proves who they are.`
    : `A device of ${asked.account} wants proof by a passkey or security key.`;
  element("code").textContent = asked.code;
  element("compare").hidden = false;
  element("go").hidden = false;
  element("go").addEventListener("click", go);
}

start();
