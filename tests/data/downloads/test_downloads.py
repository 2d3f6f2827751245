"""Downloads against a server on this machine: interruption and resume, wrong checksums, 404, and every downloaded form read."""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.server
import io
import json
import threading
import zipfile
from pathlib import Path

import pytest

from protlig_dd.cli.entry import main
from protlig_dd.data.bundle import load
from protlig_dd.data.downloads.catalogue import SOURCES, download
from protlig_dd.data.downloads.fetch import Checksum, fetch
from protlig_dd.data.settings import MoleculeData, PairData, RandomSplit, SequenceData
from protlig_dd.errors import DownloadError
from protlig_dd.tokens.settings import LigandTrack, ProteinTrack

TRACKS = {"protein": ProteinTrack().build("protein"), "ligand": LigandTrack().build("ligand")}


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves bytes with ranges; `breaks` cuts the connection after the given number of bytes, one number for each request."""

    def do_GET(self):
        server = self.server
        server.asked.append((self.path, self.headers.get("Range")))
        body = server.files.get(self.path)
        if body is None:
            return self.send_error(404)
        start = 0
        wanted = self.headers.get("Range")
        if wanted and server.ranges and self.headers.get("If-Range") in (None, server.tag):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                return self.end_headers()
        self.send_response(206 if start else 200)
        self.send_header("ETag", server.tag)
        self.send_header("Content-Type", server.content_type)
        if server.google:
            digest = base64.b64encode(hashlib.md5(body).digest()).decode()
            self.send_header("x-goog-hash", f"crc32c=AAAAAA==,md5={digest}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        stop = server.breaks.pop(0) if server.breaks else None
        self.wfile.write(body[start : None if stop is None else start + stop])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.files, running.asked, running.breaks = {}, [], []
        running.ranges, running.tag, running.google, running.content_type = (True, '"one"', False, "application/octet-stream")
        running.base = f"http://127.0.0.1:{running.server_address[1]}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


BODY = bytes(range(256)) * 40


def test_an_interrupted_download_goes_on_where_it_stopped(server, tmp_path):
    server.files["/a.bin"], server.breaks = BODY, [3000, 4000]
    path = fetch(f"{server.base}/a.bin", tmp_path / "a.bin", pause=0.0)
    assert path.read_bytes() == BODY
    assert [asked[1] for asked in server.asked] == [None, "bytes=3000-", "bytes=7000-"]
    record = json.loads((tmp_path / "a.bin.json").read_text())
    assert record["sha256"] == hashlib.sha256(BODY).hexdigest() and record["publisher_checksum"] is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.bin", "a.bin.json"]
    fetch(f"{server.base}/a.bin", tmp_path / "a.bin")
    assert len(server.asked) == 3


def test_after_the_last_attempt_the_part_stays_and_the_next_run_goes_on(server, tmp_path):
    server.files["/a.bin"], server.breaks = BODY, [3000, 0]
    with pytest.raises(DownloadError, match=r"a\.bin: stopped after 3000 bytes .*2 attempts; run the same command again to go on"):
        fetch(f"{server.base}/a.bin", tmp_path / "a.bin", attempts=2, pause=0.0)
    assert not (tmp_path / "a.bin").exists()
    assert fetch(f"{server.base}/a.bin", tmp_path / "a.bin").read_bytes() == BODY
    assert server.asked[-1][1] == "bytes=3000-"


@pytest.mark.parametrize("change", ["no ranges", "another file"])
def test_a_part_that_cannot_be_continued_is_begun_again(server, tmp_path, change):
    server.files["/a.bin"], server.breaks = BODY, [3000]
    with pytest.raises(DownloadError):
        fetch(f"{server.base}/a.bin", tmp_path / "a.bin", attempts=1)
    if change == "no ranges":
        server.ranges = False
    else:
        server.files["/a.bin"], server.tag = BODY[::-1], '"two"'
    assert fetch(f"{server.base}/a.bin", tmp_path / "a.bin").read_bytes() == server.files["/a.bin"]
    assert len(server.asked) == 2


def test_a_part_that_was_whole_is_finished(server, tmp_path):
    server.files["/a.bin"] = BODY
    (tmp_path / "a.bin.part").write_bytes(BODY)
    (tmp_path / "a.bin.part.json").write_text(json.dumps({"url": f"{server.base}/a.bin", "tag": '"one"'}))
    assert fetch(f"{server.base}/a.bin", tmp_path / "a.bin").read_bytes() == BODY
    assert server.asked == [("/a.bin", f"bytes={len(BODY)}-")]


def test_a_wrong_checksum_removes_the_file_and_names_both(server, tmp_path):
    server.files["/a.bin"] = BODY
    checksum = Checksum(algorithm="md5", digest="0" * 32, origin="a.bin.md5")
    with pytest.raises(
        DownloadError, match=rf"wrong checksum: found md5 {hashlib.md5(BODY).hexdigest()}, expected 0{{32}} \(a\.bin\.md5\)"
    ):
        fetch(f"{server.base}/a.bin", tmp_path / "a.bin", checksum=checksum)
    assert list(tmp_path.iterdir()) == []


def test_a_checksum_in_the_response_is_used(server, tmp_path):
    server.files["/a.bin"], server.google = BODY, True
    fetch(f"{server.base}/a.bin", tmp_path / "a.bin")
    assert json.loads((tmp_path / "a.bin.json").read_text())["publisher_checksum"]["digest"] == hashlib.md5(BODY).hexdigest()


def test_a_renewed_file_disagrees_with_the_record_of_first_use(server, tmp_path):
    server.files["/a.bin"] = BODY
    fetch(f"{server.base}/a.bin", tmp_path / "a.bin").unlink()
    server.files["/a.bin"] = BODY + b"!"
    with pytest.raises(DownloadError, match=r"recorded at first use in a\.bin\.json"):
        fetch(f"{server.base}/a.bin", tmp_path / "a.bin")


def test_errors_of_the_host_are_one_line_with_advice(server, tmp_path):
    with pytest.raises(DownloadError, match=r"/none: the host answered 404 Not Found; see the source's page .*--base URL"):
        fetch(f"{server.base}/none", tmp_path / "none")
    server.files["/a.bin"], server.content_type = b"<html>sorry", "text/html"
    with pytest.raises(DownloadError, match="the host sent a web page, expected a data file"):
        fetch(f"{server.base}/a.bin", tmp_path / "a.bin")
    with pytest.raises(DownloadError, match="1 attempts; run the same command again"):
        fetch("http://127.0.0.1:9/a.bin", tmp_path / "b.bin", attempts=1)
    with pytest.raises(DownloadError, match=r"download 'davies': expected one of .* \(did you mean 'davis'\?\)"):
        download("davies", tmp_path)


FASTA = b"".join(b">UniRef50_%d n\nMKVLAW\nGRT%s\n" % (i, b"A" * i) for i in range(12))
SMILES = b"".join(b"%d\tCC%s\n" % (i + 1, b"O" * (i % 4)) for i in range(12))
PAIRS = "ID1\tX1\tID2\tX2\tY\n" + "".join(f'{i}\t"{"C" * (i + 1)}O"\tp{i % 3}\tMKVLA{"G" * (i % 3)}\t{10.0 * (i + 1)}\n' for i in range(12))


def zipped(members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return out.getvalue()


def md5(data):
    return hashlib.md5(data).hexdigest()


def publish_uniref50(files):
    packed = gzip.compress(FASTA)
    files["/uniref50.fasta.gz"] = packed
    files["/RELEASE.metalink"] = (
        '<metalink><files><file name="README"><verification><hash type="md5">' + "0" * 32 + "</hash></verification></file>"
        f'<file name="uniref50.fasta.gz"><verification><hash type="md5">{md5(packed)}</hash></verification></file></files></metalink>'
    ).encode()


def publish_pubchem(files):
    packed = gzip.compress(SMILES[:60]) + gzip.compress(SMILES[60:])
    files["/CID-SMILES.gz"], files["/CID-SMILES.gz.md5"] = packed, f"{md5(packed)}  CID-SMILES.gz\n".encode()


def publish_bindingdb(files):
    chain, chains = ("BindingDB Target Chain Sequence 1", "Number of Protein Chains in Target (>1 implies a multichain complex)")
    header = ["BindingDB Reactant_set_id", "Ligand SMILES", "Ki (nM)", "IC50 (nM)", "Kd (nM)", "EC50 (nM)", chains, chain, "Target Name"]
    rows = [[str(i), "C" * (i + 1), " 10.0", ">100", "", "", "1", "MKVLA" + "G" * i, 'a 5" name'] for i in range(12)]
    rows += [
        ["90", "CC", "1", "", "", "", "2", "MKV", "x"],
        ["91", "CC", ">5", "", "", "", "1", "MKV", "x"],
        ["92", "CC", "5", "", "", "", "1"],
    ]
    packed = zipped({"BindingDB_All.tsv": "\n".join("\t".join(row) for row in [header, *rows]) + "\n"})
    files["/chemsearch/marvin/Download.jsp"] = b"<a>BindingDB_All_202408_tsv.zip</a> <a>BindingDB_All_202409_tsv.zip</a>"
    files["/downloads/BindingDB_All_202409_tsv.zip"], files["/downloads/BindingDB_All_202409_tsv.md5"] = (packed, md5(packed).encode())


def publish_plinder(files):
    import pyarrow as pa
    import pyarrow.parquet as pq

    def parquet(rows):
        out = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), out)
        return out.getvalue()

    systems = [f"1{code}{i}__1__1.A__1.B" for code in ("aa", "ab") for i in range(6)]
    rows = [
        {
            "system_id": s,
            "ligand_rdkit_canonical_smiles": "C" * (i + 1),
            "ligand_is_proper": i != 3,
            "ligand_binding_affinity": 5.0 + i if i % 2 else None,
        }
        for i, s in enumerate(systems)
    ]
    files["/2024-06/v2/index/annotation_table.parquet"] = parquet(rows)
    files["/2024-06/v2/splits/split.parquet"] = parquet(
        [{"system_id": s, "split": "val" if i == 1 else "train"} for i, s in enumerate(systems)]
    )
    for code in ("aa", "ab"):
        chains = {s: ">1.A\nMKVLA\nGR\n" + (">1.C\nMM\n" if s.startswith("1aa2") else "") for s in systems if s[1:3] == code}
        files[f"/2024-06/v2/systems/{code}.zip"] = zipped({f"{s}/sequences.fasta": text for s, text in chains.items()})


PUBLISHERS = {
    "uniref50": (publish_uniref50, 12),
    "pubchem": (publish_pubchem, 12),
    "bindingdb": (publish_bindingdb, 12),
    "plinder": (publish_plinder, 10),
    "davis": (lambda files: files.update({"/5219748": PAIRS.encode()}), 12),
    "kiba": (lambda files: files.update({"/5255037": PAIRS.encode()}), 12),
    "zinc250k": (lambda files: files.update({"/250k_rndm_zinc_drugs_clean_3.csv": ("smiles,logP\n" + '"CCO\n",1\n' * 12).encode()}), 12),
}


def read(found):
    settings = {"pairs": PairData, "sequences": SequenceData, "molecules": MoleculeData}[found.kind]
    return load(settings(path=str(found.path), split=RandomSplit(validation_fraction=0.1), leakage=False), TRACKS)


DATA = [name for name, source in SOURCES.items() if source.kind]


@pytest.mark.parametrize("limit", [0, 5])
@pytest.mark.parametrize("name", DATA)
def test_every_source_is_downloaded_and_read(server, tmp_path, name, limit):
    publish, count = PUBLISHERS[name]
    publish(server.files)
    found = download(name, tmp_path / name, base=server.base, limit=limit)
    bundle = read(found)
    # PLINDER's limit counts systems to fetch; of the first archive's six, one has two chains and one no proper ligand.
    expected = {("plinder", 5): 4}.get((name, limit), limit or count)
    assert sum(bundle.report.examples.values()) == expected
    assert any(f"data.path={found.path}" in line for line in found.lines())
    if name == "davis":
        assert sorted(bundle.train.labels["affinity"].tolist(), reverse=True)[0] == pytest.approx(8.0, abs=0.4)
    if name == "bindingdb":
        assert set(bundle.train.labels["affinity"].tolist()) == {8.0}
    if name == "plinder" and not limit:
        assert sorted(set(bundle.train.labels["split"].tolist()) | set(bundle.validation.labels["split"].tolist())) == [0, 1]


def test_a_source_with_a_wrong_checksum_leaves_nothing_to_train_on(server, tmp_path):
    publish_pubchem(server.files)
    server.files["/CID-SMILES.gz.md5"] = b"0" * 32
    with pytest.raises(DownloadError, match=r"wrong checksum: found md5 \w+, expected 0+ \(CID-SMILES\.gz\.md5\)"):
        download("pubchem", tmp_path, base=server.base)
    assert list(tmp_path.iterdir()) == []


def test_the_reports_viewer_is_downloaded_and_its_use_is_said(server, tmp_path, capsys):
    server.files["/3Dmol-min.js"] = b"var $3Dmol = {createViewer() {}};"
    command = ["download", "3dmol", "--base-url", server.base, "--out", str(tmp_path)]
    assert main(command) == 0
    path = tmp_path / "3Dmol-min.js"
    assert path.read_bytes() == server.files["/3Dmol-min.js"] and (tmp_path / "3Dmol-min.js.json").is_file()
    output = capsys.readouterr().out
    assert f"use it: protlig report RUN --viewer {path}" in output and "BSD 3-Clause" in output and "data.kind" not in output
    assert main([*command, "--limit", "5"]) == 1 and "3dmol is one script" in capsys.readouterr().err


def test_a_host_that_has_moved_is_an_error_for_every_source(server, tmp_path):
    for name in SOURCES:
        with pytest.raises(DownloadError, match="the host answered 404"):
            download(name, tmp_path / name, base=server.base)


def test_official_hosts_are_https_and_no_package_registries():
    assert set(SOURCES) == {"uniref50", "bindingdb", "plinder", "davis", "kiba", "zinc250k", "pubchem", "3dmol"}
    assert SOURCES["3dmol"].base == "https://3Dmol.org/build"
    assert all(source.base.startswith("https://") and source.page.startswith("https://") and source.licence for source in SOURCES.values())


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    blocker = Path(tmp_path / "file")
    blocker.write_text("x")
    with pytest.raises(DownloadError, match="cannot be made"):
        download("davis", blocker / "sub")


RECIPES = {
    "pairs": ("recipe/pairs", ["train.init_from=", "data.split.kind=random"]),
    "sequences": ("recipe/protein", []),
    "molecules": ("recipe/ligand", []),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DATA)
def test_every_downloaded_form_trains_two_steps(server, tmp_path, name):
    PUBLISHERS[name][0](server.files)
    found = download(name, tmp_path / name, base=server.base)
    config, more = RECIPES[found.kind]
    settings = [
        *(f"data.path={found.path}", "data.split.validation_fraction=0.2", "data.leakage=false", *more),
        *("model.hidden_size=16", "model.num_heads=2", "model.num_blocks=1", "train.steps=2", "train.batch_size=2"),
        *("train.tracking.tensorboard=false", "train.tracking.wandb=off", "train.validate_every=2"),
    ]
    assert main(["train", config, *settings, "--device", "cpu", "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run/checkpoints/step_00000002").is_dir()
