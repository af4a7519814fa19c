"""Downloads against a local https server that cuts, lies and forgets as real ones do."""

import hashlib
import http.server
import io
import re
import ssl
import threading
import zipfile
from dataclasses import dataclass, field, replace

import pytest
import trustme

from avfuse.encoders.weights.download import fetch, is_whole
from avfuse.encoders.weights.http import DownloadError
from avfuse.encoders.weights.registry import Archive, WeightFile, entry

CONTENT = bytes(range(256)) * 4000  # about 1 MB
OTHER = CONTENT[::-1]


@dataclass
class Behaviour:
    """What the server does; `cuts` are the numbers of bytes after which it hangs up, one an answer."""

    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    redirect: str | None = None
    length: bool = True
    asked: list[str | None] = field(default_factory=list)


class Handler(http.server.BaseHTTPRequestHandler):
    server: "Server"

    def do_GET(self):
        does = self.server.behaviour
        does.asked.append(self.headers["Range"])
        content = does.files.get(self.path)
        if does.redirect:
            self.answer(302, {"Location": does.redirect, "Content-Length": "0"})
        elif content is None:
            self.answer(404, {"Content-Length": "0"})
        else:
            self.send(content, does)

    def send(self, content, does):
        wanted = re.match(r"bytes=(\d+)-", self.headers["Range"] or "")
        start = int(wanted[1]) if wanted and does.ranges else 0
        if wanted and does.ranges and start >= len(content):
            self.answer(416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"})
            return
        length = {"Content-Length": str(len(content) - start)} if does.length else {}
        placed = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        self.answer(206 if start else 200, length | placed)
        self.wfile.write(content[start:][: does.cuts.pop(0) if does.cuts else None])
        self.close_connection = True

    def answer(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    behaviour: Behaviour

    def handle_error(self, request, client_address):
        """A client that hangs up is part of these tests."""


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def running(authority):
    server = Server(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def base(running):
    return f"https://localhost:{running.server_address[1]}"


@pytest.fixture
def server(running, authority, tmp_path, monkeypatch):
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    for name in (
        "AVFUSE_OFFLINE",
        "AVFUSE_WEIGHTS_MIRROR",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    running.behaviour = Behaviour({"/w.pth": CONTENT})
    return running.behaviour


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache" / "weights"


@pytest.fixture
def file(base):
    return WeightFile(
        name="w",
        feature="vggish",
        architecture="a network",
        file_name="w.pth",
        url=f"{base}/w.pth",
        size_bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        licence="a licence",
        note="",
    )


def held(cache):
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []


def test_fetched_and_kept(server, file, cache):
    seen = []
    path = fetch(file, cache, lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert held(cache) == ["w.pth"]
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert fetch(file, cache) == path
    assert len(server.asked) == 1, "what is there whole is not fetched again"


def test_resumed_after_a_cut_in_the_same_run(server, file, cache):
    server.cuts = [300_000, 200_000]
    assert fetch(file, cache).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=500000-"]


def test_resumed_in_the_next_run(server, file, cache):
    server.cuts = [100_000] * 5
    with pytest.raises(DownloadError, match=r"cut 5 times, 500000 bytes in; run it again"):
        fetch(file, cache)
    assert held(cache) == ["w.pth.part"]
    assert fetch(file, cache).read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=500000-"


def test_a_server_that_ignores_range_begins_again(server, file, cache):
    server.cuts, server.ranges = [300_000], False
    assert fetch(file, cache).read_bytes() == CONTENT
    assert held(cache) == ["w.pth"]


@pytest.mark.parametrize("size", [1000, len(CONTENT), len(CONTENT) + 1])
@pytest.mark.parametrize("known", [True, False])
def test_the_part_of_another_file_is_caught(server, file, cache, size, known):
    cache.mkdir(parents=True)
    (cache / "w.pth.part").write_bytes((OTHER + b"!")[:size])
    file = file if known else replace(file, size_bytes=None)
    assert fetch(file, cache).read_bytes() == CONTENT
    assert held(cache) == ["w.pth"]


def test_a_part_that_is_whole_is_taken(server, file, cache):
    cache.mkdir(parents=True)
    (cache / "w.pth.part").write_bytes(CONTENT)
    assert fetch(replace(file, size_bytes=None), cache).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


def test_wrong_content_names_both_hashes_and_keeps_nothing(server, file, cache):
    server.files["/w.pth"] = OTHER
    with pytest.raises(DownloadError) as caught:
        fetch(file, cache)
    assert hashlib.sha256(OTHER).hexdigest() in str(caught.value)
    assert file.sha256 in str(caught.value)
    assert held(cache) == []


def test_wrong_content_behind_a_part_is_tried_once_more(server, file, cache):
    server.files["/w.pth"], server.cuts = OTHER, []
    cache.mkdir(parents=True)
    (cache / "w.pth.part").write_bytes(CONTENT[:1000])
    with pytest.raises(DownloadError, match="Nothing was kept"):
        fetch(file, cache)
    assert server.asked == ["bytes=1000-", None]
    assert held(cache) == []


def test_the_hash_in_a_hub_name_is_checked(server, file, cache, base):
    server.files["/w-0badbeef.pth"] = CONTENT
    hub = replace(file, sha256=None, file_name="w-0badbeef.pth", url=f"{base}/w-0badbeef.pth")
    with pytest.raises(DownloadError, match="expected 0badbeef"):
        fetch(hub, cache)
    good = f"w-{file.sha256[:8]}.pth"
    server.files[f"/{good}"] = CONTENT
    assert fetch(replace(hub, file_name=good, url=f"{base}/{good}"), cache).name == good


def test_another_size_is_refused_before_it_is_fetched(server, file, cache):
    server.files["/w.pth"] = CONTENT + b"!"
    with pytest.raises(DownloadError, match=r"has 1024001 bytes, expected 1024000"):
        fetch(file, cache)
    assert held(cache) == []


def test_without_a_length_the_hash_decides(server, file, cache):
    server.length = False
    assert fetch(replace(file, size_bytes=None), cache).read_bytes() == CONTENT


def test_a_damaged_file_is_fetched_again(server, file, cache):
    cache.mkdir(parents=True)
    (cache / "w.pth").write_bytes(b"half")
    assert not is_whole(file, cache / "w.pth")
    assert fetch(file, cache).read_bytes() == CONTENT


# --- zip members


def zipped(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def packed(server, file, base):
    def serve(content):
        server.files["/all.zip"] = content
        archive = Archive("member", len(content), hashlib.sha256(content).hexdigest())
        return replace(file, url=f"{base}/all.zip", archive=archive)

    return serve


def test_only_the_named_member_is_taken(packed, cache):
    assert fetch(packed(zipped(other=b"1", member=CONTENT)), cache).read_bytes() == CONTENT
    assert held(cache) == ["w.pth"]


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ({"other": b"1"}, "no item named 'member'"),
        ({"member": CONTENT * 2}, "has 2048000 bytes, expected 1024000"),
        ({"member": OTHER}, hashlib.sha256(OTHER).hexdigest()),
    ],
)
def test_a_wrong_member_is_refused(packed, cache, members, complaint):
    with pytest.raises(DownloadError, match=re.escape(complaint)):
        fetch(packed(zipped(**members)), cache)
    assert held(cache) == []


def test_no_zip_at_all(packed, cache):
    with pytest.raises(DownloadError, match="not a zip file"):
        fetch(packed(CONTENT), cache)
    assert held(cache) == []


# --- what cannot be fetched


def test_not_found(server, file, cache, base):
    with pytest.raises(DownloadError, match=rf"{base}/missing.pth: the server says 404 Not Found"):
        fetch(replace(file, url=f"{base}/missing.pth"), cache)
    assert held(cache) == []


def test_http_is_refused(server, file, cache, base, monkeypatch):
    plain = file.url.replace("https", "http")
    with pytest.raises(DownloadError, match="not an https address"):
        fetch(replace(file, url=plain), cache)
    server.redirect = plain
    with pytest.raises(DownloadError, match="not an https address"):
        fetch(file, cache)
    monkeypatch.setenv("AVFUSE_WEIGHTS_MIRROR", "http://mirror.example")
    with pytest.raises(DownloadError, match=r"http://mirror\.example/w\.pth is not an https address"):
        fetch(file, cache)


def test_an_unknown_certificate_is_refused(server, file, cache, monkeypatch, tmp_path):
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "stranger.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "stranger.pem"))
    with pytest.raises(DownloadError, match="CERTIFICATE_VERIFY_FAILED"):
        fetch(file, cache)


def test_nobody_there(server, file, cache):
    with pytest.raises(DownloadError, match=r"cannot be reached .* AVFUSE_WEIGHTS_MIRROR"):
        fetch(replace(file, url="https://localhost:1/w.pth"), cache)


def test_offline_says_how_to_do_it_by_hand(server, file, cache, monkeypatch):
    monkeypatch.setenv("AVFUSE_OFFLINE", "1")
    with pytest.raises(DownloadError) as caught:
        fetch(file, cache)
    assert f"fetch {file.url}, save it as {cache / 'w.pth'}" in str(caught.value)
    with pytest.raises(DownloadError, match=r"buffalo_l\.zip, take w600k_r50\.onnx out of it"):
        fetch(entry("w600k_r50"), cache)
    assert server.asked == []
    monkeypatch.setenv("AVFUSE_OFFLINE", "0")
    assert fetch(file, cache).exists()
    monkeypatch.setenv("AVFUSE_OFFLINE", "1")
    assert fetch(file, cache).exists(), "what is there needs no network"


def test_what_has_no_address(cache):
    with pytest.raises(DownloadError, match=r"no address .*ABAW3.*res50_ir_0\.887\.pth"):
        fetch(entry("suzhang-ir50"), cache)


def test_the_mirror_replaces_the_host(server, file, cache, base, monkeypatch):
    server.files = {"/mirror/w.pth": CONTENT}
    monkeypatch.setenv("AVFUSE_WEIGHTS_MIRROR", f"{base}/mirror/")
    assert fetch(replace(file, url="https://example.invalid/releases/w.pth"), cache).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "target", ["file:///etc/hostname", "ftp://localhost/w.pth", "http://localhost/w.pth", "data:,x"]
)
def test_a_redirect_leads_to_https_or_nowhere(server, file, cache, target):
    server.redirect = target
    with pytest.raises(DownloadError):
        fetch(file, cache)
    assert held(cache) == []


def test_redirects_in_a_circle_end(server, file, cache):
    server.redirect = file.url
    with pytest.raises(DownloadError, match="the server says 302"):
        fetch(file, cache)
    assert len(server.asked) < 20


def test_more_than_announced_is_not_written(server, file, cache):
    """A server that gives no length and goes on: what is written ends near the size that is known."""
    server.length = False
    server.files["/w.pth"] = CONTENT + bytes(32 << 20)
    with pytest.raises(DownloadError, match=rf"sends more than {len(CONTENT)} bytes"):
        fetch(file, cache)
    assert sum(path.stat().st_size for path in cache.iterdir()) <= len(CONTENT)


def test_a_replaced_byte_keeps_nothing(server, file, cache):
    changed = bytearray(CONTENT)
    changed[len(changed) // 2] ^= 1
    server.files["/w.pth"] = bytes(changed)
    with pytest.raises(DownloadError, match="sha256"):
        fetch(file, cache)
    assert held(cache) == []


@pytest.mark.parametrize("name", ["../w.bin", "/tmp/w.bin", "w.bin"])
def test_a_member_never_leaves_the_cache(server, base, cache, name):
    """The member is written under the registry's name, wherever the archive says that it lies."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(name, CONTENT)
    server.files["/a.zip"] = packed.getvalue()
    zipped = Archive(name, len(packed.getvalue()), hashlib.sha256(packed.getvalue()).hexdigest())
    digest = hashlib.sha256(CONTENT).hexdigest()
    wanted = WeightFile("w", "vggish", "a network", "w.bin", f"{base}/a.zip", len(CONTENT), digest, "", "", zipped)
    assert fetch(wanted, cache) == cache / "w.bin"
    assert held(cache) == ["w.bin"]
    assert not (cache.parent / "w.bin").exists()
