// Puts the page together.

import { route, start } from "./router.js";
import { build, focusSearch } from "./parts/sidebar.js";
import { listen as listenKeys } from "./parts/shortcuts.js";
import { listen as listenDrops } from "./parts/drop.js";
import { chatView } from "./views/chat.js";
import { documentsView } from "./views/documents.js";
import { documentView } from "./views/document.js";
import { jobsView } from "./views/jobs.js";
import { settingsView } from "./views/settings.js";

route("/", chatView);
route("/chat/:id", chatView);
route("/documents", documentsView);
route("/documents/:id", documentView);
route("/jobs", jobsView);
route("/settings", settingsView);

build();
listenKeys({ focusSearch });
listenDrops();
start();
