// Behind the pages: swagger-ui on the page's document, its colours as the system's, and the buttons that copy.
"use strict";

const dark = window.matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

const place = document.getElementById("swagger-ui");
SwaggerUIBundle({
  url: place.dataset.document,
  domNode: place,
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  docExpansion: "list",
  displayRequestDuration: true,
  filter: false,
  tryItOutEnabled: true,
  validatorUrl: null, // the default sends the document to a service on the internet
});

for (const button of document.querySelectorAll("figcaption button")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const code = button.closest("figure").querySelector("code");
    if (navigator.clipboard) {
      await navigator.clipboard.writeText(code.textContent);
    } else {
      // Without HTTPS a browser has no other way.
      window.getSelection().selectAllChildren(code);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    window.setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}
