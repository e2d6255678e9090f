"""The HTTP server as a scraper, a probe and a rude client see it."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import socket
import ssl
from contextlib import asynccontextmanager

import aiohttp
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from stream_monitor.errors import ConfigError, StreamMonitorError
from stream_monitor.frozen import Secret
from stream_monitor.kafka.tls import server_context
from stream_monitor.runtime.families import wanted
from stream_monitor.runtime.http import LIMITS, SWEEP_S, HttpServer, Limits, announce
from stream_monitor.settings import HttpSettings
from tests.clock import skip

TEXT = b"# TYPE model_accuracy gauge\n" + b'model_accuracy{model="m"} 0.5\n' * 100


ANY_PORT = HttpSettings(port=0)


async def metrics():
    return TEXT


def answering(metrics):
    """An exporter that has text only."""

    async def scrape(accept):
        return await metrics(), wanted(accept).content_type

    return scrape


@asynccontextmanager
async def serving(
    *,
    metrics=metrics,
    ready=lambda: (True, "2 partitions open"),
    settings=ANY_PORT,
    limits=LIMITS,
):
    """A server: a client's session, the base of its URLs, and its port."""
    server = HttpServer(settings, answering(metrics), ready, limits)
    port = await server.start()
    try:
        async with aiohttp.ClientSession(
            auto_decompress=False, timeout=aiohttp.ClientTimeout(total=60)
        ) as session:
            yield session, settings.url(port), port
    finally:
        await server.stop()
        await server.stop()


async def get(path, *, method="GET", headers=None, **server):
    async with (
        serving(**server) as (session, base, _),
        session.request(
            method, base + path, headers=headers or {"Accept-Encoding": "identity"}
        ) as response,
    ):
        return response.status, response.headers, await response.read()


async def test_metrics():
    status, headers, body = await get("/metrics")
    assert (status, body) == (200, TEXT)
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "Content-Encoding" not in headers


async def test_metrics_are_openmetrics_for_who_asks_for_it():
    _, headers, _ = await get(
        "/metrics",
        headers={"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.3"},
    )
    assert headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert "Accept" in headers["Vary"].split(", ")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_free_port_is_the_same_on_every_address_of_the_host(host):
    server = HttpServer(HttpSettings(host=host, port=0), answering(metrics), lambda: (True, ""))
    port = await server.start()
    assert server._listener is not None
    found = {each.getsockname()[1] for each in server._listener.sockets}
    await server.stop()
    assert found == {port}


async def test_metrics_are_compressed_for_who_accepts_it():
    status, headers, body = await get("/metrics", headers={"Accept-Encoding": "gzip"})
    assert (status, headers["Content-Encoding"]) == (200, "gzip")
    assert len(body) < len(TEXT) / 5
    assert gzip.decompress(body) == TEXT


@pytest.mark.parametrize(
    ("ready", "status"), [((True, "all open"), 200), ((False, "partition 3 is restoring"), 503)]
)
async def test_ready_says_why(ready, status):
    assert (await get("/ready", ready=lambda: ready))[::2] == (status, ready[1].encode() + b"\n")


async def test_live_does_not_depend_on_being_ready():
    assert (await get("/live", ready=lambda: (False, "no broker")))[::2] == (200, b"live\n")


async def test_page_links_and_escapes():
    status, headers, body = await get("/", ready=lambda: (False, "<script>"))
    assert status == 200
    assert headers["Content-Type"].startswith("text/html")
    assert b"&lt;script&gt;" in body
    assert b"<script>" not in body
    assert all(f'href="{path}"'.encode() in body for path in ("metrics", "ready", "live"))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/metrics", 405),
        ("DELETE", "/ready", 405),
        ("GET", "/../etc/passwd", 404),
        ("GET", "/metrics/x", 404),
        ("HEAD", "/metrics", 200),
    ],
)
async def test_what_is_not_there(method, path, status):
    got, headers, body = await get(path, method=method)
    assert got == status
    assert headers["Server"] == "stream-monitor"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert len(body) < 100


async def test_a_fault_shows_no_trace(caplog):
    async def broken():
        raise RuntimeError("secret inside")

    status, _, body = await get("/metrics", metrics=broken)
    assert (status, body) == (500, b"500 Internal Server Error\n")
    assert "secret inside" in caplog.text


async def test_a_scrape_that_takes_too_long_is_given_up():
    async def never():
        await asyncio.Event().wait()

    answer = await get("/metrics", metrics=never, limits=Limits(scrape_s=0.01))
    assert answer[::2] == (503, b"no metrics ready within 0.01 s\n")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 10_000 + b"\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
async def test_rude_requests_are_refused(request_bytes):
    async with serving() as (_, _, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_bytes)
        answer = await asyncio.wait_for(reader.read(4_096), 60)
        writer.close()
    assert answer.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))


async def test_connections_have_a_limit():
    """
    One that is idle leaves for a new one, the longest idle first; while all are being served a new
    one is refused.
    """
    scrapes, going = asyncio.Semaphore(0), asyncio.Event()

    async def slow():
        scrapes.release()
        await going.wait()
        return b"done"

    async def connected(port, path):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
        return reader, writer

    async with serving(metrics=slow, limits=Limits(connections=2)) as (_, _, port):
        first, second = await connected(port, b"/live"), await connected(port, b"/live")
        for reader, _ in (first, second):
            await reader.readuntil(b"live\n")
        second[1].write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        await scrapes.acquire()
        third = await connected(port, b"/metrics")
        assert await first[0].read() == b"", "it was idle"
        await scrapes.acquire()
        fourth = await connected(port, b"/live")
        with contextlib.suppress(ConnectionError):
            assert await fourth[0].read() == b"", "both others are being served"
        going.set()
        for reader, _ in (second, third):
            await reader.readuntil(b"done")
        for _, writer in (first, second, third, fourth):
            writer.close()


async def test_slow_clients_make_room_and_are_sent_away():
    async with serving(limits=Limits(connections=5)) as (session, base, port):
        slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        for _, writer in slow:
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-A")  # and never the rest
        async with session.get(base + "/ready") as response:
            assert response.status == 200
        for _ in range(12):
            await skip(SWEEP_S)
        gone = await asyncio.wait_for(
            asyncio.gather(*(reader.read() for reader, _ in slow), return_exceptions=True), 60
        )
        for _, writer in slow:
            writer.close()
    assert all(one == b"" or isinstance(one, ConnectionError) for one in gone)


async def test_who_does_not_read_the_answer_is_sent_away():
    async def much():
        return b"a" * 30_000_000

    async with serving(metrics=much) as (_, _, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        got = len(await reader.read(1))
        await skip(101)
        with contextlib.suppress(ConnectionError):
            while some := await asyncio.wait_for(reader.read(1 << 20), 60):
                got += len(some)
        writer.close()
    assert 0 < got < 30_000_000


TOKEN = HttpSettings(port=0, token=Secret("hush"))


@pytest.mark.parametrize(
    ("path", "given", "status"),
    [
        ("/metrics", "Bearer hush", 200),
        ("/", "Bearer hush", 200),
        ("/metrics", None, 401),
        ("/metrics", "", 401),
        ("/metrics", "Bearer wrong", 401),
        ("/metrics", "Bearer hush ", 200),  # spaces around are no part of a header
        ("/metrics", "bearer hush", 401),
        ("/metrics", "Basic hush", 401),
        ("/metrics", "Bearer h\u00e9", 401),
        ("/", None, 401),
        ("/nothing", None, 401),
        ("/live", None, 200),
        ("/ready", None, 200),
        ("/live/../metrics", None, 401),
        ("//metrics", None, 401),
        ("/live/", None, 401),
    ],
)
async def test_a_token_is_asked_for(path, given, status):
    got, headers, body = await get(
        path, headers={} if given is None else {"Authorization": given}, settings=TOKEN
    )
    assert got == status
    assert status == 200 or (body, headers["WWW-Authenticate"]) == (
        b"401 Unauthorized\n",
        'Bearer realm="stream-monitor"',
    )


async def test_tls(tmp_path):
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "tls.crt")
    issued.private_key_pem.write_to_path(tmp_path / "tls.key")
    settings = HttpSettings(
        port=0, cert_file=str(tmp_path / "tls.crt"), key_file=str(tmp_path / "tls.key")
    )
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    async with serving(settings=settings) as (session, base, port):
        assert base.startswith("https://")
        async with session.get(
            f"{base}/metrics", ssl=trusting, headers={"Accept-Encoding": "identity"}
        ) as response:
            assert (response.status, await response.read()) == (200, TEXT)
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(f"{base}/metrics")
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"http://127.0.0.1:{port}/metrics")
    context = server_context(settings)
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("cert", "key", "told"),
    [
        ("no", "tls.key", "No such file"),
        ("tls.crt", "other.key", "do not belong together"),
        ("tls.crt", "locked.key", "the key has a password"),
    ],
)
async def test_a_certificate_that_cannot_be_used_names_the_settings(tmp_path, cert, key, told):
    issued, other = trustme.CA().issue_cert("127.0.0.1"), trustme.CA().issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "tls.crt")
    issued.private_key_pem.write_to_path(tmp_path / "tls.key")
    other.private_key_pem.write_to_path(tmp_path / "other.key")
    locked = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    form = (
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"x"),
    )
    (tmp_path / "locked.key").write_bytes(locked.private_bytes(*form))
    with pytest.raises(ConfigError, match=rf"worker\.metrics\.cert_file and key_file: .*{told}"):
        await HttpServer(
            HttpSettings(port=0, cert_file=str(tmp_path / cert), key_file=str(tmp_path / key)),
            answering(metrics),
            lambda: (True, ""),
        ).start()


async def test_port_that_is_taken_names_the_setting():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            StreamMonitorError,
            match=rf"cannot listen on http://127\.0\.0\.1:{port}: .*in use.*worker\.metrics\.port",
        ):
            await HttpServer(
                HttpSettings(port=port), answering(metrics), lambda: (True, "")
            ).start()


async def test_address_of_another_machine_names_the_setting():
    with pytest.raises(StreamMonitorError, match=r"worker\.metrics\.host"):
        await HttpServer(
            HttpSettings(host="192.0.2.1", port=0), answering(metrics), lambda: (True, "")
        ).start()


@pytest.mark.parametrize(
    ("host", "line"),
    [
        ("127.0.0.1", "listening on http://127.0.0.1:9108\n"),
        ("::1", "listening on http://[::1]:9108\n"),
    ],
)
def test_announce(host, line):
    out = io.StringIO()
    announce(HttpSettings(host=host), 9108, out)
    assert out.getvalue() == line
