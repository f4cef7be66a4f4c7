"""Whatever a request holds, the answer is one line, and a 500 is this server's own fault."""

import asyncio
import json

import pytest

pytest.importorskip("starlette")
fastapi = pytest.importorskip("fastapi")


def served(error: BaseException | None = None, status: int = 200, headers: dict | None = None):
    """FastAPI as MONAI Label uses it: one path that answers, refuses or raises."""
    app = fastapi.FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "PUT", "POST", "DELETE"])
    async def answer(path: str, params: str = "{}"):
        if error is not None:
            raise error
        request = {"model": path}
        request.update(json.loads(params))  # as MONAI Label does
        if status != 200:
            raise fastapi.HTTPException(status, "a line", headers)
        return request

    return app


def ask(app, path="/info/", method="GET", host="127.0.0.1:8000", query="", kind="http", **headers):
    """Status and text of the answer to one request."""
    sent = []

    async def run():
        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            sent.append(message)

        given = {"host": host, **headers}
        scope = {
            "type": kind,
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(k.encode(), v.encode("latin-1")) for k, v in given.items()],
            "http_version": "1.1",
            "scheme": "http",
            "server": ("127.0.0.1", 8000),
            "client": ("127.0.0.1", 1),
        }
        await app(scope, receive, send)

    asyncio.run(run())
    if kind == "websocket":
        return sent
    (start,) = [message for message in sent if message["type"] == "http.response.start"]
    text = b"".join(message.get("body", b"") for message in sent if message["type"] == "http.response.body")
    return start["status"], text.decode()


@pytest.fixture(scope="module")
def guarded(app_module):
    """Function of an application to the same behind both layers."""
    boundary, origin = app_module("boundary"), app_module("origin")
    return lambda app, prefix="": boundary.Boundary(origin.OriginGuard(app, any_host=False), prefix)


def line_of(answer, status):
    assert answer[0] == status, answer
    line = json.loads(answer[1])["detail"]
    assert line and "\n" not in line and len(line) < 300
    return line


def test_what_is_right_passes(guarded):
    app = guarded(served())
    assert ask(app, query='params={"a": 1}') == (200, '{"model":"info/","a":1}')
    assert ask(app, host="localhost")[0] == ask(app, host="[::1]:8000")[0] == 200
    assert ask(app, origin="http://127.0.0.1:8000")[0] == 200


@pytest.mark.parametrize("params", ["{", "[1]", "1", '"x"', "null", "{]", "NaN", "[" * 5000, "[[1, 2, 3]]"])
def test_malformed_params(guarded, params):
    line_of(ask(guarded(served()), "/infer/m", "POST", query=f"params={params}"), 400)


@pytest.mark.parametrize("host", ["[", "]", "[::1", "[x]", "[::1]x", "127.0.0.1[", "//[", "[127.0.0.1]"])
def test_malformed_hosts(guarded, host):
    answer = ask(guarded(served()), host=host)
    line_of(answer, answer[0])
    assert answer[0] in (400, 403)


@pytest.mark.parametrize("origin", ["[", "http://[", "http://[x", "null", "", "http://127.0.0.1:8000.evil"])
def test_malformed_and_other_origins(guarded, origin):
    answer = ask(guarded(served()), origin=origin)
    line_of(answer, answer[0])
    assert answer[0] in (400, 403)


@pytest.mark.parametrize("host", ["evil.example", "", "localhost.evil.example", "0.0.0.0", "10.0.0.1:8000"])
def test_other_hosts(guarded, host):
    line_of(ask(guarded(served()), host=host), 403)


def test_a_host_that_is_there_twice(guarded):
    line_of(ask(guarded(served()), Host="127.0.0.1:8000"), 400)


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("GET", "/proxy/dicom/wado/x", ""),
        ("POST", "/proxy/dicom", ""),
        ("GET", "/proxy/dicom/http://127.0.0.1:9/", ""),
        ("POST", "/infer/wsi/m", ""),
        ("POST", "/infer/wsi_v2/m", ""),
        ("POST", "/batch/infer/m", "run_sync=true"),
        ("PUT", "/model/m", ""),
        ("DELETE", "/model/m", ""),
        ("POST", "/reload", ""),
        ("GET", "/logs/gpu", ""),
        ("POST", "/infer/m", "output=dicom_seg"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "/api"])
def test_what_is_not_offered(guarded, method, path, query, prefix):
    app = guarded(served(RuntimeError("reached")), prefix)
    line_of(ask(app, prefix + path, method, query=query), 404)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (json.JSONDecodeError("x", "a name", 0), 400),
        (TypeError("a name"), 400),
        (KeyError("a name"), 400),
        (AttributeError("a name"), 400),
        (AssertionError("a name"), 400),
        (type("ImageNotFoundException", (type("MONAILabelException", (Exception,), {}),), {})("a name"), 400),
        (OSError(36, "File name too long", "a name"), 400),
        (SystemExit("not offered\nhere"), 400),
        (SystemExit(3), 500),
        (OSError(28, "No space left on device", "a name"), 500),
        (RuntimeError("a name"), 500),
        (ZeroDivisionError("a name"), 500),
    ],
    ids=repr,
)
def test_errors_become_a_line_without_their_text(guarded, error, status, caplog):
    line = line_of(ask(guarded(served(error))), status)
    assert "a name" not in line and "a name" not in caplog.text


def test_refusals_of_monai_label_are_of_the_request(guarded, app_module):
    line_of(ask(guarded(served(status=500))), 400)
    assert line_of(ask(guarded(served(status=404))), 404) == "a line"
    own = {app_module("refusals").FAILED.decode(): "1"}
    assert line_of(ask(guarded(served(status=500, headers=own))), 500) == "a line"


def test_a_web_socket_is_closed(guarded):
    (message,) = ask(guarded(served()), kind="websocket")
    assert message["type"] == "websocket.close"


def test_an_answer_that_has_begun_is_not_begun_again(guarded):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("half way")

    assert ask(guarded(app)) == (200, "")
