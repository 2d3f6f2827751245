"""Structures in a page that can be turned by hand: 3Dmol.js from a local file, embedded in the page, so that nothing is fetched.

The script is not part of this package (BSD-3-Clause, https://3dmol.org); `protlig download 3dmol` fetches it. The page's content policy lists
the SHA-256 of the scripts that may run; a browser without WebGL, or with scripts turned off, shows the pictures instead.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from protlig_dd.errors import FormatError

DATA_ID = "protlig-traces"
_ADVICE = "expected 3Dmol-min.js; fetch it with: protlig download 3dmol"
_LARGEST = 1 << 24
_SOURCE_MAP = re.compile(r"^//[#@] *sourceMappingURL=.*$", re.MULTILINE)
# Each place is followed by a <noscript> with its picture, which a browser that runs scripts keeps as text.
_START = """
(() => {
  const structures = JSON.parse(document.getElementById("DATA_ID").textContent);
  for (const place of document.querySelectorAll("[data-trace]")) {
    try {
      const view = $3Dmol.createViewer(place, {backgroundColor: "white"});
      view.addModel(structures[Number(place.dataset.trace)], "pdb");
      view.setStyle({chain: "T"}, {cartoon: {style: "trace", thickness: 0.3, color: "TRUE_COLOUR"}});
      view.setStyle({chain: "P"}, {cartoon: {style: "trace", thickness: 0.3, color: "PREDICTED_COLOUR"}});
      view.zoomTo();
      view.render();
    } catch (error) {
      place.outerHTML = place.nextElementSibling.textContent;
    }
  }
})();
"""


@dataclass(frozen=True)
class Viewer:
    """3Dmol.js, ready to be embedded in a page.

    Args:
        script: its text; no part of it ends the script element.
    """

    script: str

    @staticmethod
    def read(path: Path) -> Viewer:
        """Return the viewer read from a local file.

        Raises:
            FormatError: if it is not 3Dmol.js.
        """
        try:
            size = path.stat().st_size
            text = path.read_text(encoding="utf-8") if size <= _LARGEST else ""
        except (OSError, UnicodeDecodeError) as error:
            raise FormatError(f"--viewer {path}: not readable ({error}); {_ADVICE}") from error
        if "$3Dmol" not in text or "createViewer" not in text or text.lstrip().startswith("<") or "\0" in text:
            raise FormatError(f"--viewer {path}: found a file of {size:,} bytes that is not 3Dmol.js; {_ADVICE}")
        return Viewer(_inline(text))

    def html(self, *, true_colour: str, predicted_colour: str) -> tuple[str, str]:
        """Return the script elements, and the content policy that allows these scripts and no others."""
        start = _START.replace("DATA_ID", DATA_ID).replace("TRUE_COLOUR", true_colour)
        scripts = (self.script, start.replace("PREDICTED_COLOUR", predicted_colour))
        elements = "".join(f"<script>{script}</script>" for script in scripts)
        return elements, "script-src " + " ".join(f"'sha256-{_digest(script)}'" for script in scripts)


def structures_html(pdbs: Sequence[str]) -> str:
    """Return the element with the structures, as JSON of the texts of PDB files in which no text is markup."""
    text = json.dumps(list(pdbs), ensure_ascii=True)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="{DATA_ID}">{text}</script>'


def _inline(text: str) -> str:
    """A script that cannot end its own element: in strings and patterns, the only places for such sequences, `\\/` is `/` and `\\!` is `!`."""
    text = _SOURCE_MAP.sub("", text.removeprefix("\ufeff")).replace("\r\n", "\n").replace("\r", "\n")
    text = re.sub(r"</(?=script)", r"<\\/", text, flags=re.IGNORECASE)
    return text.replace("<!--", "<\\!--")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
