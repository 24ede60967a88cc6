"use strict";

// Swagger UI has dark colours, and leaves it to the page when to use them.
const dark = matchMedia("(prefers-color-scheme: dark)");
const colours = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", colours);
colours();

SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#docs",
  layout: "BaseLayout",
  deepLinking: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
  // Otherwise it would ask a validator on the internet, and take its settings from the address of the page.
  validatorUrl: null,
  queryConfigEnabled: false,
});
