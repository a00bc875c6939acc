// Speaks to the browser's authenticator for forms of class "passkey": asks the console for a challenge, lets the browser
// answer it, and sends the answer with the form. (W3C Web Authentication Level 3)
"use strict";
(() => {
  const bytes = (text) =>
    Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (letter) => letter.charCodeAt(0));
  const text = (buffer) =>
    btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  const known = (list) => (list || []).map((one) => ({ ...one, id: bytes(one.id) }));

  const create = async ({ publicKey: asked }) => {
    const made = await navigator.credentials.create({
      publicKey: {
        ...asked,
        challenge: bytes(asked.challenge),
        user: { ...asked.user, id: bytes(asked.user.id) },
        excludeCredentials: known(asked.excludeCredentials),
      },
    });
    return {
      id: made.id,
      rawId: text(made.rawId),
      type: made.type,
      response: {
        attestationObject: text(made.response.attestationObject),
        clientDataJSON: text(made.response.clientDataJSON),
      },
    };
  };

  const get = async ({ publicKey: asked }) => {
    const given = await navigator.credentials.get({
      publicKey: { ...asked, challenge: bytes(asked.challenge), allowCredentials: known(asked.allowCredentials) },
    });
    const { authenticatorData, clientDataJSON, signature, userHandle } = given.response;
    return {
      id: given.id,
      rawId: text(given.rawId),
      type: given.type,
      response: {
        authenticatorData: text(authenticatorData),
        clientDataJSON: text(clientDataJSON),
        signature: text(signature),
        userHandle: userHandle ? text(userHandle) : null,
      },
    };
  };

  for (const form of document.querySelectorAll("form.passkey")) {
    const said = form.querySelector(".said");
    const button = form.querySelector("button");
    if (!window.PublicKeyCredential) {
      said.textContent = "This browser knows no passkeys.";
      button.disabled = true;
      continue;
    }
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      button.disabled = true;
      said.textContent = "Follow what your device asks.";
      try {
        const begun = await fetch(form.dataset.begin, {
          method: "POST",
          headers: { "content-type": "application/json", accept: "application/json" },
          body: "{}",
        });
        if (!begun.ok) throw new Error(begun.status === 403 || begun.status === 401 ? "again" : "begin");
        const { challenge, options } = await begun.json();
        const answer = await (form.dataset.does === "create" ? create(options) : get(options));
        form.elements.challenge.value = challenge;
        form.elements.answer.value = JSON.stringify(answer);
        form.submit();
      } catch (error) {
        button.disabled = false;
        said.textContent = {
          InvalidStateError: "This device has a passkey here already.",
          NotAllowedError: "It was not confirmed. Try again.",
        }[error.name] || (error.message === "again" ? "Load this page anew and prove that it is you." : "This did not work. Try again.");
      }
    });
  }
})();
