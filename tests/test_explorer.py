"""The local page over real HTTP: what it answers, whom it answers, and what hostile uploads come to."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pictures
from bombs import BOMBS
from encoded_pictures import HEIGHT, RGB, WIDTH, encoded, oriented, scene
from exploring import Server, explored, serving
from selfsight import metrics
from selfsight.attention.seeing import Eyes
from selfsight.data.decode import decode
from selfsight.data.sources import open_source
from selfsight.encoders import load_encoder
from selfsight.errors import InputError
from selfsight.explorer import explore

VIT, CNN = "random/vit_w32_d2_p8_h2?size=32", "random/test_efficientnet?size=64"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A ViT beside a CNN over 24 drawn pictures, two files with hostile names and one that is no picture."""
    data = pictures.folder(tmp_path_factory.mktemp("explore") / "photos", 24, labelled=False)
    for name in ("<img src=x onerror=alert(1)>.png", "a'\"&.png"):
        pictures.noise(data / name)
    pictures.noise(data / "no-text.png").rename(os.fsdecode(os.fsencode(data) + b"/\xff.png"))
    (data / "broken.png").write_bytes(encoded(scene())[:200])
    with serving(explored(VIT, data, with_=CNN)) as running:
        yield running
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith(("looking", "reading"))] == []


@pytest.fixture(scope="module")
def opened(server: Server) -> str:
    return server.post("/api/pictures", encoded(scene()))["picture"]


def test_the_page_and_what_it_needs_come_from_the_package(server: Server) -> None:
    for path in ("/", "/page.css", "/page.js", "/parts.js", "/picture.js", "/icon.svg"):
        status, headers, body = server.request("GET", path)
        assert status == 200 and len(body) > 200
        assert "script-src 'self';" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers
        assert b"http://" not in body.replace(b"http://www.w3.org/2000/svg", b"") and b"https://" not in body
    for path in ("/places.py", "/..%2f..%2fpyproject.toml", "/%2e%2e/__init__.py", "/page.html/x"):
        assert server.request("GET", path)[0] == 404


def test_it_says_what_it_is_and_how_much_memory_it_takes(server: Server) -> None:
    about = server.get("/api/about")
    assert [each["spec"] for each in about["encoders"]] == [VIT, CNN]
    assert [each["kind"] for each in about["encoders"]] == ["ViT", "CNN"]
    assert about["encoders"][0]["memory"] == "27 images, 456 places, 18 KiB in memory"
    assert about["data"]["images"] == 28


def test_a_look_holds_the_attention_of_each_head_and_a_cnn_has_none(server: Server, opened: str) -> None:
    vit, cnn = (server.get(f"/api/pictures/{opened}/{which}/look") for which in (0, 1))
    eyes = Eyes(load_encoder(VIT))
    seen = eyes(decode(encoded(scene())))
    assert seen.attention is not None
    assert vit["grid"] == list(seen.grid)
    assert [each["name"] for each in vit["maps"]] == ["attention, mean of 2 heads", "attention of head 0", "attention of head 1"]
    for told, expected in zip(vit["maps"], [seen.attention.mean(0), *seen.attention], strict=True):
        values = told["low"] + np.array(told["values"]) / 255 * (told["high"] - told["low"])
        np.testing.assert_allclose(values, expected, atol=(told["high"] - told["low"]) / 500)
    assert (cnn["attention"], [each["name"] for each in cnn["maps"]]) == (False, ["length of the feature"])
    assert "attention" in vit["finders"] and "attention" not in cnn["finders"]


def test_a_point_lights_up_what_is_like_it_here_and_in_the_set(server: Server) -> None:
    """The picture is one of the set, which then is not its own neighbour."""
    sample = 3
    chosen = server.post(f"/api/data/{sample}")
    assert (chosen["sample"], chosen["width"], chosen["height"]) == (sample, 32, 32)
    answer = server.get(f"/api/pictures/{chosen['picture']}/0/place?x=0.6&y=0.99")
    assert answer["place"] == [3, 2]
    likeness = answer["map"]
    assert np.argmax(likeness["values"]) == 3 * 4 + 2
    assert likeness["high"] == pytest.approx(1, abs=1e-5)
    assert len(answer["near"]) == 12
    assert sample not in [each["sample"] for each in answer["near"]]
    similarities = [each["similarity"] for each in answer["near"]]
    assert similarities == sorted(similarities, reverse=True)
    look = server.get(f"/api/pictures/{chosen['picture']}/0/look")
    assert sample not in [each["sample"] for each in look["images"]]
    assert server.request("GET", f"/api/data/{answer['near'][0]['sample']}/small")[2].startswith(b"\xff\xd8\xff")


def test_the_nearest_place_is_the_one_that_an_exact_search_finds(server: Server) -> None:
    chosen = server.post("/api/data/0")
    answer = server.get(f"/api/pictures/{chosen['picture']}/0/place?x=0.1&y=0.1")
    eyes, source = Eyes(load_encoder(VIT)), open_source(server.data)
    good = [i for i in range(len(source)) if "broken" not in source.keys[i]]
    seen = {i: eyes(decode(source.image_bytes(i))) for i in good}
    asked = metrics.normalize(seen[0].patches)[0]
    best = {i: metrics.normalize(each.patches) @ asked for i, each in seen.items() if i}
    order = sorted(best, key=lambda i: -best[i].max())[:12]
    told = answer["near"]
    assert len({each["sample"] for each in told} & set(order)) >= 11
    for each in told:
        assert each["similarity"] == pytest.approx(best[each["sample"]].max(), abs=0.01)
        height, width = seen[each["sample"]].grid
        left, top, *_ = each["box"]
        place = round(top * height) * width + round(left * width)
        assert best[each["sample"]][place] == pytest.approx(best[each["sample"]].max(), abs=0.01)


def test_an_object_is_a_mask_over_the_grid(server: Server, opened: str) -> None:
    found = server.get(f"/api/pictures/{opened}/0/objects?finder=attention")["objects"]
    height, width = server.get(f"/api/pictures/{opened}/0/look")["grid"]
    assert found
    mask = np.array(found[0]["mask"]).reshape(height, width)
    left, top, right, bottom = (round(share * side) for share, side in zip(found[0]["box"], (width, height) * 2, strict=True))
    assert mask[top:bottom, left:right].any(0).all() and mask.sum() == mask[top:bottom, left:right].sum()


@pytest.mark.parametrize("name", ["png of 16 bits", "jpeg CMYK", "gif animated", "webp animated", "tiff of floats", "png RGBA"])
def test_every_encoding_of_a_picture_is_taken(server: Server, name: str) -> None:
    found = server.post("/api/pictures", RGB[name]())
    assert (found["width"], found["height"]) == (WIDTH, HEIGHT)
    assert server.request("GET", f"/api/pictures/{found['picture']}/shown")[2].startswith(b"\xff\xd8\xff")


def test_a_picture_stands_upright(server: Server) -> None:
    found = server.post("/api/pictures", oriented(6))
    assert (found["width"], found["height"]) == (HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is no picture that can be read: empty file"),
        (b"<svg onload=alert(1)>", "is no picture that can be read: no known image format"),
        (encoded(scene())[:300], "is no picture that can be read: "),
        (BOMBS["png"](), "limit of 200000000"),
        (BOMBS["gif"](), "limit of 200000000"),
    ],
    ids=["empty", "no picture", "truncated", "bomb", "another bomb"],
)
def test_what_is_no_picture_is_refused_with_the_reason(server: Server, data: bytes, reason: str) -> None:
    status, _, body = server.request("POST", "/api/pictures", data)
    assert status == 415
    assert reason in json.loads(body)["error"]


def test_too_much_is_refused_whether_it_is_told_beforehand_or_not(server: Server) -> None:
    most = server.get("/api/about")["most_bytes"]
    assert server.raw(f"POST /api/pictures HTTP/1.1\r\nHost: localhost\r\nContent-Length: {most + 1}\r\n\r\n")[0] == 413
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.putrequest("POST", "/api/pictures")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    chunk = b"%x\r\n" % 2**20 + bytes(2**20) + b"\r\n"
    with pytest.raises(OSError):  # the connection is closed on whoever goes on
        for _ in range(2 * most // 2**20):
            connection.send(chunk)
    connection.close()
    assert server.get("/api/about")["most_bytes"] == most


@pytest.mark.parametrize("name", ["../../x.png", "<script>alert(1)</script>", "a\\x00b", "x" * 10_000])
def test_names_of_files_come_to_nothing(server: Server, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name can only come where none is asked for: as a header, in a form, in the address."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    picture = encoded(scene(channels=1))
    expected = server.post("/api/pictures", picture)["picture"]
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-File-Name": name}
    assert json.loads(server.request("POST", "/api/pictures", picture, headers)[2])["picture"] == expected
    form = f'--b\r\nContent-Disposition: form-data; name="f"; filename="{name}"\r\n\r\n'.encode() + picture + b"\r\n--b--\r\n"
    assert server.request("POST", "/api/pictures", form, {"Content-Type": "multipart/form-data; boundary=b"})[0] == 415
    for path in (f"/api/pictures/{name}/0/look", f"/api/data/{name}/small", f"/{name}", f"/api/pictures/{expected}/{name}/look"):
        assert server.request("GET", path.replace("<", "%3C").replace("\\x00", "%00"))[0] == 404
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/data/28/small", 404),
        ("/api/data/-1/small", 404),
        (f"/api/data/{'9' * 5000}/small", 404),
        ("/api/data?start=x", 404),
        ("/api/pictures/none/0/look", 404),
        ("/api/pictures/none/2/look", 404),
        ("/api/pictures/none/0/place?x=nan&y=0", 400),
        ("/api/pictures/none/0/place?x=1.5&y=0", 400),
        ("/api/pictures/none/0/objects?finder=magic", 400),
        ("/api/pictures", 405),
        ("/nothing", 404),
    ],
)
def test_a_wrong_question_is_answered_with_what_is_wrong(server: Server, path: str, status: int) -> None:
    found, _, body = server.request("GET", path)
    assert found == status
    assert json.loads(body)["error"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil", "", "a b"])
def test_another_name_for_this_machine_is_refused(server: Server, host: str) -> None:
    """A site may let its own name lead here (DNS rebinding): its page would be of the same origin as ours."""
    status, _, body = server.request("GET", "/api/about", headers={"Host": host})
    assert status in (400, 403)
    assert b"spec" not in body


@pytest.mark.parametrize("host", ["localhost", "localhost:1234", "127.0.0.1:99", "[::1]:80", "192.0.2.7"])
def test_localhost_and_addresses_are_let_through(server: Server, host: str) -> None:
    assert server.request("GET", "/api/about", headers={"Host": host})[0] == 200


def test_the_page_of_another_site_cannot_ask(server: Server) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1", "http://["):
        assert server.request("POST", "/api/pictures", encoded(scene()), {"Origin": origin})[0] == 403
    own = {"Origin": f"http://127.0.0.1:{server.port}"}
    assert server.request("POST", "/api/pictures", encoded(scene()), own)[0] == 200
    assert server.request("OPTIONS", "/api/pictures", headers={"Origin": "https://evil.example"})[0] in (403, 405)


def test_requests_at_the_same_time_are_all_answered_alike(server: Server) -> None:
    answers: list[Any] = []

    def ask(number: int) -> None:
        picture = server.post("/api/pictures", encoded(np.full((20, 20 + number % 3, 3), 90, np.uint8)))["picture"]
        answers.append((number % 3, server.get(f"/api/pictures/{picture}/0/place?x=0.5&y=0.5")))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == 9
    for kind in range(3):
        first, *others = [answer for which, answer in answers if which == kind]
        assert others == [first, first]


def test_only_the_last_pictures_are_held_and_an_older_one_says_so(server: Server) -> None:
    first = server.post("/api/pictures", encoded(np.zeros((9, 9, 3), np.uint8)))["picture"]
    for shade in range(1, 17):
        server.post("/api/pictures", encoded(np.full((9, 9, 3), shade, np.uint8)))
    status, _, body = server.request("GET", f"/api/pictures/{first}/0/look")
    assert status == 404
    assert "open it again" in json.loads(body)["error"]


def test_without_data_there_are_pictures_and_no_neighbours(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(explored(VIT, None)) as running:
        assert running.get("/api/about")["data"] is None
        picture = running.post("/api/pictures", encoded(scene()))["picture"]
        assert running.get(f"/api/pictures/{picture}/0/look")["images"] == []
        assert running.get(f"/api/pictures/{picture}/0/place?x=0&y=0")["near"] == []
        for path in ("/api/data", "/api/data/0/small"):
            assert running.request("GET", path)[0] == 404


def test_names_of_all_kinds_are_listed_as_text(server: Server) -> None:
    keys = [each["key"] for each in server.get("/api/data")["images"]]
    assert {"<img src=x onerror=alert(1)>.png", "a'\"&.png", "\\xff.png"} <= set(keys)


def test_the_program_prints_its_address_and_ends_cleanly(tmp_path: Path, environment_of: dict[str, str]) -> None:
    """By SIGTERM; the test of the guide presses Ctrl-C."""
    data = pictures.folder(tmp_path / "photos", 3, labelled=False)
    command = [sys.executable, "-c", "from selfsight.cli import main; main()", "explore", VIT, str(data)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment_of)
    assert process.stdout is not None
    lines = [process.stdout.readline()]
    while "(Ctrl-C ends it)" not in lines[-1]:
        assert lines[-1], process.communicate()[1]
        lines.append(process.stdout.readline())
    assert "3 images, 48 places" in "".join(lines)
    running = Server(int(lines[-1].split("/")[2].split(":")[1]), data)
    assert running.get("/api/about")["data"]["images"] == 3
    waiting = socket.create_connection(("127.0.0.1", running.port))  # one who says nothing does not hold it up
    time.sleep(0.1)
    process.terminate()
    _, error = process.communicate(timeout=60)
    waiting.close()
    assert (process.returncode, error) == (0, "")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"port": 70000}, "--port 70000: expected a number from 0"),
        ({"host": "no.such.host.invalid"}, "--host no.such.host.invalid: is no address of this machine"),
        ({"host": "192.0.2.1"}, "--host 192.0.2.1 --port 0: cannot be used"),
        ({"encoder": "pixels"}, "pixels: gives one vector a picture and no map of it"),
        ({"data": "nowhere"}, "nowhere: does not exist"),
        ({"size": 2}, "--size 2: is less than one patch"),
    ],
)
def test_wrong_input_is_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        explore(**({"encoder": VIT} | given))


def test_images_in_place_of_the_encoder_are_known_for_what_they_are(tmp_path: Path) -> None:
    data = pictures.folder(tmp_path / "photos", 3, labelled=False)
    with pytest.raises(InputError, match=r"is a folder but no run .*; if it holds images: selfsight explore efficientnet-lite0 "):
        explore(str(data))


def test_a_port_that_is_taken_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f"--port {port}: cannot be used .*give another --port, or 0"):
            explore("nothing of the kind", "nowhere", port=port)


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("starlette", "uvicorn"):
        monkeypatch.setitem(sys.modules, name, None)  # Python's own way to say that there is no such module
    with pytest.raises(InputError, match=r"explore: needs starlette and uvicorn; pip install 'selfsight\[explore\]'"):
        explore(VIT)
