// Shows the server's OpenAPI document. A token that is entered stays in the memory of this page and goes to this server only.
"use strict";

const [form, field, state] = ["access", "token", "state"].map((id) => document.getElementById(id));
let token = "";
let loads = 0;

function say(text, failed) {
  state.textContent = text;
  state.toggleAttribute("data-failed", failed);
}

// What a request sends to say who asks.
function credentials() {
  return token ? { Authorization: `Bearer ${token}` } : {};
}

function sign(request) {
  const isOurs = new URL(request.url, location.href).origin === location.origin;
  if (isOurs) Object.assign(request.headers, credentials());
  return request;
}

// Which of the models the page shows. `model` and `after` are the document's own parameters.
function models({ shown, left_out: leftOut, next }) {
  const models = `${shown} ${shown === 1 ? "model" : "models"}`;
  return leftOut ? `${models}, ${leftOut} left out: add ?after=${next} or ?model=<glob> to this address` : models;
}

// Another token may be entered meanwhile: only the last load counts.
async function show(load) {
  say("loading …", false);
  const response = await fetch(new URL(`openapi.json${location.search}`, location.href), { headers: credentials() });
  const description = await response.json();
  if (load !== loads) return;
  if (!response.ok) {
    say(description.detail, true);
    return;
  }
  // The page may be seen under another address than the server knows of.
  for (const server of description.servers) server.url = new URL(server.url, location.href).href.replace(/\/$/, "");
  const asks = description.components.securitySchemes !== undefined;
  for (const part of form.querySelectorAll("label, input, button")) part.hidden = !asks;
  const shown = models(description["x-snaphook-models"]);
  say(asks && !token ? `${shown}; enter a token to see what it may read` : shown, false);
  SwaggerUIBundle({
    spec: description,
    dom_id: "#api",
    deepLinking: true,
    docExpansion: "none",
    defaultModelsExpandDepth: 0,
    filter: true,
    validatorUrl: null,
    queryConfigEnabled: false,
    persistAuthorization: false,
    requestInterceptor: sign,
  });
}

function refresh() {
  const load = ++loads;
  show(load).catch((error) => {
    if (load === loads) say(`the document cannot be loaded: ${error.message}`, true);
  });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  token = field.value.trim();
  refresh();
});

refresh();
