"""Structures in 3Dmol: the script is embedded in the page and cannot break it, only it may run, and other files are refused."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from protlig_dd.cli.entry import main
from protlig_dd.errors import FormatError
from protlig_dd.evaluation.trace_pairs import TracePair, write_traces
from protlig_dd.report.page import write_report
from protlig_dd.report.viewer import Viewer, structures_html
from tests.support.chains import helix, traces

# A substitute for 3Dmol: it reports its calls, and contains what would end or swallow a script element.
FAKE = """/*! a stand-in */
var $3Dmol = {createViewer(place, how) {
  const chains = [];
  return {
    addModel(text, form) { place.dataset.read = form + " of " + text.split("\\n").filter(x => x.startsWith("ATOM")).length; },
    setStyle(where, style) { chains.push(where.chain + style.cartoon.color); },
    zoomTo() {},
    render() { place.dataset.drawn = chains.join(" ") + [" </script>", " <!-- <script>", / <\\/SCRIPT>/.test(" </SCRIPT>")].join(""); },
  };
}};
//# sourceMappingURL=3Dmol-min.js.map
"""


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    write_traces(tmp_path / "run/traces.json", traces())
    (tmp_path / "run/config.yaml").write_text("name: x\nmodel: {kind: kanzi}\n")
    (tmp_path / "3Dmol-min.js").write_text(FAKE)
    return tmp_path / "run"


class Scripts(HTMLParser):
    """The scripts of a page, the policy in its head, and its other tags, read as HTML reads them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.policy = ""
        self.tags: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag == "meta" and ("http-equiv", "Content-Security-Policy") in attrs:
            self.policy = dict(attrs)["content"] or ""

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            attrs, text = self.scripts[-1]
            self.scripts[-1] = (attrs, text + data)


def test_the_page_holds_the_viewer_the_structures_and_the_pictures(run_folder: Path) -> None:
    page = write_report(run_folder, viewer=run_folder.parent / "3Dmol-min.js").read_text()
    found = Scripts(page)
    data, script, start = found.scripts
    pdbs = json.loads(data[1])
    assert data[0] == {"type": "application/json", "id": "protlig-traces"} and len(pdbs) == 3
    assert all(text.count("CA  UNK P") == text.count("CA  UNK T") == 20 for text in pdbs)
    assert "$3Dmol = {" in script[1] and script[1].rstrip().endswith("}};") and "createViewer(place" in start[1]
    assert "#d1495b" in start[1] and "#8a8f98" in start[1], "the prediction is red, the truth grey"
    assert found.tags.count("noscript") == 3 and page.count("<animate") == 6, "turning pictures where no script runs"
    assert "sourceMappingURL" not in page and "no scripts" not in page
    assert "http" not in re.sub(r"http-equiv|<footer>.*", "", page.replace(FAKE, ""))


def test_only_the_scripts_of_the_page_may_run_and_nothing_may_be_fetched(run_folder: Path) -> None:
    found = Scripts(write_report(run_folder, viewer=run_folder.parent / "3Dmol-min.js").read_text())
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for _, text in found.scripts[1:]]
    assert found.policy.startswith("default-src 'none';")
    assert found.policy.endswith("script-src " + " ".join(f"'sha256-{digest}'" for digest in digests))
    assert "unsafe-inline" not in found.policy.split("script-src")[1]


def test_a_script_cannot_end_its_element(run_folder: Path) -> None:
    """Closing tags and comments in strings and patterns are written so that HTML reads past them; the script means the same."""
    text = Viewer.read(run_folder.parent / "3Dmol-min.js").script
    assert not re.search(r"</script|<!--", text, re.IGNORECASE)
    assert r'" <\/script>"' in text and r'" <\!-- <script>"' in text
    page = write_report(run_folder, viewer=run_folder.parent / "3Dmol-min.js").read_text()
    assert page.count("</script>") == 3 and Scripts(page).tags[-1] == "script"


def test_names_and_coordinates_are_no_markup() -> None:
    html = structures_html(["</script><!-- \u2028 & <b>"])
    assert json.loads(Scripts(html).scripts[0][1]) == ["</script><!-- \u2028 & <b>"]
    assert html.count("<") == 2 and "&" not in html and html.isascii()


def test_without_a_viewer_or_without_traces_there_is_no_script(run_folder: Path) -> None:
    assert "<script" not in write_report(run_folder).read_text()
    (run_folder / "traces.json").unlink()
    page = write_report(run_folder, viewer=run_folder.parent / "3Dmol-min.js").read_text()
    assert "<script" not in page and "script-src" not in page and "no scripts" in page


@pytest.mark.parametrize(
    "content",
    [b"<!DOCTYPE html><script>$3Dmol.createViewer()</script>", b"var a = 1;", b"\xff\xfe$3Dmol createViewer", b"$3Dmol createViewer\0"],
)
def test_a_file_that_is_not_3dmol_is_refused(run_folder: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = run_folder.parent / "wrong.js"
    wrong.write_bytes(content)
    assert main(["report", str(run_folder), "--viewer", str(wrong)]) == 1
    told = capsys.readouterr().err
    assert "wrong.js: " in told and "expected 3Dmol-min.js; fetch it with: protlig download 3dmol" in told
    assert told.count("\n") == 1 and not (run_folder / "report.html").exists()
    with pytest.raises(FormatError, match="none.js: not readable"):
        Viewer.read(run_folder / "none.js")


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; install it to see the report as a browser does")
@pytest.mark.parametrize("works", [True, False])
def test_a_browser_runs_the_viewer_or_shows_the_pictures(run_folder: Path, tmp_path: Path, works: bool) -> None:
    script = run_folder.parent / "3Dmol-min.js"
    if not works:
        script.write_text("var $3Dmol = {createViewer() { throw new Error('no WebGL'); }};")
    page = write_report(run_folder, viewer=script)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    offline = ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [str(CHROMIUM), *flags, *offline, "--dump-dom", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert shown.returncode == 0, shown.stderr[-2000:]
    drawn = re.findall(r'data-read="([^"]*)" data-drawn="([^"]*)"', shown.stdout)
    outside = re.sub(r"<noscript>.*?</noscript>", "", shown.stdout, flags=re.DOTALL)
    if works:
        ends = "T#8a8f98 P#d1495b </script> <!-- <script>true"
        assert [(read, text.replace("&lt;", "<").replace("&gt;", ">")) for read, text in drawn] == [("pdb of 40", ends)] * 3
    assert outside.count("<animate") == (0 if works else 6)


def test_a_chain_of_two_residues_has_a_view(tmp_path: Path) -> None:
    write_traces(tmp_path / "traces.json", [TracePair(name="short", predicted=helix(2), true=helix(2) + 0.1)])
    (tmp_path / "3Dmol-min.js").write_text(FAKE)
    page = write_report(tmp_path, viewer=tmp_path / "3Dmol-min.js").read_text()
    assert np.isfinite([float(x) for x in re.findall(r"-?\d+\.\d{3}(?= )", json.loads(Scripts(page).scripts[0][1])[0])]).all()
