"""`protlig download`: public data sets from their official hosts, in formats that the readers accept; and the report's viewer.

`fetch.py` transfers one file, `converters.py` converts raw files into pair tables.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from protlig_dd.data.downloads.converters import convert_affinities, convert_bindingdb, convert_plinder, plinder_archives
from protlig_dd.data.downloads.fetch import Checksum, fetch, open_url, read_small
from protlig_dd.errors import DownloadError, nearest
from protlig_dd.files import written_whole


@dataclass(frozen=True, kw_only=True)
class Source:
    """A public data set, or a script for reports.

    Args:
        title: what it is.
        page: its web page.
        licence: as stated by the publisher.
        form: format of the downloaded file.
        kind: the `data.kind` that reads it; "" for a script.
        base: the official address of its files; --base replaces it.
        get: downloads into a folder and returns the file to train on.
        use: for a script, the command that uses it, before the path.
    """

    title: str
    page: str
    licence: str
    form: str
    kind: str
    base: str
    get: Callable[[str, Path, int, str], Path]
    use: str = ""


@dataclass(frozen=True, kw_only=True)
class Downloaded:
    """A downloaded file, and the `data.kind` that reads it."""

    path: Path
    kind: str
    source: Source

    def lines(self) -> list[str]:
        """Return the format, the licence and the next commands."""
        lines = [f"{self.path}: {self.source.form}", f"licence: {self.source.licence}; see {self.source.page}"]
        if not self.kind:
            return [*lines, f"use it: {self.source.use} {self.path}"]
        lines.append(f"look at it: protlig inspect {self.path}")
        return [*lines, f"train on it: data.kind={self.kind} data.path={self.path}"]


def download(name: str, folder: Path, *, limit: int = 0, base: str = "", release: str = "") -> Downloaded:
    """Download a public data set into a folder; an interrupted download is resumed.

    Args:
        name: one of `SOURCES`.
        folder: created if it does not exist.
        limit: most records; a large file is then read only as far as needed.
        base: the address of a mirror instead of the official one.
        release: for sources with dated releases; the latest if empty.

    Raises:
        DownloadError: if the data cannot be downloaded completely and correctly. There is no fallback.
    """
    if name not in SOURCES:
        raise DownloadError(f"download '{name}': expected one of {', '.join(SOURCES)}{nearest(name, SOURCES)}")
    source = SOURCES[name]
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from error
    path = source.get((base or source.base).rstrip("/"), folder, limit, release)
    return Downloaded(path=path, kind=source.kind, source=source)


def _get_uniref50(base: str, folder: Path, limit: int, release: str) -> Path:
    url = f"{base}/uniref50.fasta.gz"
    if limit:
        return _head(url, folder / f"uniref50_first{limit}.fasta", limit, starts=b">")
    metalink = read_small(f"{base}/RELEASE.metalink").decode("utf-8", "replace")
    entry = re.search(r'<file name="uniref50\.fasta\.gz">.*?</file>', metalink, re.DOTALL)
    digest = re.search(r'<hash type="md5">\s*([0-9a-fA-F]{32})\s*</hash>', entry.group(0)) if entry else None
    checksum = Checksum(algorithm="md5", digest=digest.group(1), origin="RELEASE.metalink") if digest else None
    return fetch(url, folder / "uniref50.fasta.gz", checksum=checksum)


def _get_pubchem(base: str, folder: Path, limit: int, release: str) -> Path:
    url = f"{base}/CID-SMILES.gz"
    if limit:
        return _head(url, folder / f"pubchem_first{limit}.smi", limit)
    return fetch(url, folder / "CID-SMILES.gz", checksum=_md5_at(f"{url}.md5"))


def _get_zinc250k(base: str, folder: Path, limit: int, release: str) -> Path:
    path = fetch(f"{base}/250k_rndm_zinc_drugs_clean_3.csv", folder / "zinc250k.csv")
    return convert_affinities(path, folder / f"zinc250k_first{limit}.csv", limit=limit) if limit else path


def _get_davis(base: str, folder: Path, limit: int, release: str) -> Path:
    raw = fetch(f"{base}/5219748", folder / "davis.tab")
    return convert_affinities(raw, folder / "davis_pairs.csv", nanomolar=True, limit=limit)


def _get_kiba(base: str, folder: Path, limit: int, release: str) -> Path:
    raw = fetch(f"{base}/5255037", folder / "kiba.tab")
    return convert_affinities(raw, folder / "kiba_pairs.csv", limit=limit)


def _get_bindingdb(base: str, folder: Path, limit: int, release: str) -> Path:
    release = release or _latest_bindingdb(base)
    stem = f"BindingDB_All_{release}_tsv"
    raw = fetch(f"{base}/downloads/{stem}.zip", folder / f"{stem}.zip", checksum=_md5_at(f"{base}/downloads/{stem}.md5"))
    return convert_bindingdb(raw, folder / f"bindingdb_{release}_pairs.tsv.gz", limit=limit)


def _latest_bindingdb(base: str) -> str:
    page = f"{base}/chemsearch/marvin/Download.jsp"
    found = re.findall(r"BindingDB_All_(\d{6})_tsv\.zip", read_small(page).decode("utf-8", "replace"))
    if not found:
        raise DownloadError(f"{page}: found no 'BindingDB_All_YYYYMM_tsv.zip' on the download page; look there, and give --release YYYYMM")
    return str(max(found))


def _get_plinder(base: str, folder: Path, limit: int, release: str) -> Path:
    base = f"{base}/{release or '2024-06/v2'}"
    split = fetch(f"{base}/splits/split.parquet", folder / "splits" / "split.parquet")
    index = fetch(f"{base}/index/annotation_table.parquet", folder / "index" / "annotation_table.parquet")
    archives = [fetch(f"{base}/systems/{code}.zip", folder / "systems" / f"{code}.zip") for code in plinder_archives(split, limit)]
    return convert_plinder(index, split, archives, folder / "plinder_pairs.tsv.gz", limit=limit)


def _get_3dmol(base: str, folder: Path, limit: int, release: str) -> Path:
    if limit:
        raise DownloadError(f"--limit {limit}: 3dmol is one script and has no records; leave it out")
    return fetch(f"{base}/3Dmol-min.js", folder / "3Dmol-min.js")


def _md5_at(url: str) -> Checksum:
    text = read_small(url).decode("utf-8", "replace")
    found = re.search(r"\b[0-9a-fA-F]{32}\b", text)
    if not found:
        raise DownloadError(f"{url}: found '{text[:40]}', expected an MD5 checksum; see the source's page")
    return Checksum(algorithm="md5", digest=found.group(0), origin=url.rsplit("/", 1)[-1])


def _head(url: str, path: Path, limit: int, *, starts: bytes = b"") -> Path:
    """Write the first records of a remote gzip file, which is read only as far as needed.

    A record is a line or, with `starts`, begins with a line that starts with it. The checksum of the whole file cannot be checked.
    """
    count = 0
    with written_whole(path) as growing, growing.open("wb") as out:
        for line in _gzip_lines(url):
            count += line.startswith(starts) if starts else 1
            if count > limit:
                break
            out.write(line)
    return path


def _gzip_lines(url: str) -> Iterator[bytes]:
    try:
        with open_url(url) as response, gzip.GzipFile(fileobj=response) as lines:
            yield from (line if line.endswith(b"\n") else line + b"\n" for line in lines)
    except EOFError as error:
        raise DownloadError(f"{url}: ended in the middle of its content; run the command again") from error
    except (OSError, zlib.error) as error:
        raise DownloadError(f"{url}: broken off or damaged ({error}); run the command again") from error


_DATAVERSE = "https://dataverse.harvard.edu/api/access/datafile"

SOURCES: Mapping[str, Source] = {
    "uniref50": Source(
        title="UniRef50 protein clusters, representative sequences",
        page="https://www.uniprot.org/help/uniref",
        licence="CC BY 4.0",
        form="FASTA, gzip (about 13 GB)",
        kind="sequences",
        base="https://ftp.uniprot.org/pub/databases/uniprot/uniref/uniref50",
        get=_get_uniref50,
    ),
    "bindingdb": Source(
        title="BindingDB, all measured affinities",
        page="https://www.bindingdb.org/rwd/bind/chemsearch/marvin/Download.jsp",
        licence="Creative Commons, by the origin of each entry",
        form="pairs of single-chain targets as gzip TSV, affinity as -log10 M",
        kind="pairs",
        base="https://www.bindingdb.org/rwd/bind",
        get=_get_bindingdb,
    ),
    "plinder": Source(
        title="PLINDER, protein-ligand systems of the PDB with its own split",
        page="https://www.plinder.sh",
        licence="Apache 2.0",
        form="pairs of single-chain systems as gzip TSV (index 1 GB, systems hundreds of GB in all; use --limit)",
        kind="pairs",
        base="https://storage.googleapis.com/plinder",
        get=_get_plinder,
    ),
    "davis": Source(
        title="Davis kinase inhibitors (Davis et al. 2011), Therapeutics Data Commons' copy",
        page="https://tdcommons.ai/multi_pred_tasks/dti",
        licence="CC BY 4.0 (Therapeutics Data Commons)",
        form="pairs as CSV, affinity as -log10 of Kd in M",
        kind="pairs",
        base=_DATAVERSE,
        get=_get_davis,
    ),
    "kiba": Source(
        title="KIBA kinase inhibitors (Tang et al. 2014), Therapeutics Data Commons' copy",
        page="https://tdcommons.ai/multi_pred_tasks/dti",
        licence="CC BY 4.0 (Therapeutics Data Commons)",
        form="pairs as CSV, affinity as the KIBA score",
        kind="pairs",
        base=_DATAVERSE,
        get=_get_kiba,
    ),
    "zinc250k": Source(
        title="250,000 drug-like molecules of ZINC (Gomez-Bombarelli et al. 2018)",
        page="https://github.com/aspuru-guzik-group/chemical_vae",
        licence="Apache 2.0 (repository); ZINC's terms for the molecules",
        form="CSV with a column smiles",
        kind="molecules",
        base="https://raw.githubusercontent.com/aspuru-guzik-group/chemical_vae/HEAD/models/zinc_properties",
        get=_get_zinc250k,
    ),
    "pubchem": Source(
        title="PubChem compounds as SMILES",
        page="https://pubchem.ncbi.nlm.nih.gov/docs/downloads",
        licence="public domain in the United States; see NCBI's policies",
        form="lines 'CID SMILES', gzip (about 1.4 GB)",
        kind="molecules",
        base="https://ftp.ncbi.nlm.nih.gov/pubchem/Compound/Extras",
        get=_get_pubchem,
    ),
    "3dmol": Source(
        title="3Dmol.js, a viewer of molecules for web pages (Rego and Koes 2015)",
        page="https://3dmol.org",
        licence="BSD 3-Clause",
        form="one JavaScript file (0.5 MB), which a report can hold",
        kind="",
        base="https://3Dmol.org/build",
        get=_get_3dmol,
        use="protlig report RUN --viewer",
    ),
}
"""The sources by name, with their official hosts."""
