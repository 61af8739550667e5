"""The OpenAPI document: what each endpoint takes and answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from labelport.formats import webhooks
from labelport_proxy import __version__
from labelport_proxy.exchange import exchange_of
from labelport_proxy.identifying import COOKIE

_Json = dict[str, Any]

_MAX_ID = 2**63 - 1
_MEANINGS = {
    400: "The request cannot be understood.",
    401: "No good token, session or link.",
    403: "The task or project does not refer to this URI, or the link has expired.",
    404: "No such task, project or object; also what is none of the caller's business.",
    412: "A precondition failed: the object is another one now.",
    413: "The body is too large.",
    416: "The object ends before the range begins.",
    422: "The body is no event of an annotation.",
    429: "Too many requests, or streams at once. See Retry-After.",
    500: "The proxy failed.",
    502: "The store failed, or the storage is set up wrongly.",
    503: "The store, the catalog or the proxy cannot answer just now. See Retry-After.",
    504: "The store did not answer in time.",
}


def _header(description: str, pattern: str = "", *, required: bool = True) -> _Json:
    schema = {"type": "string", **({"pattern": pattern} if pattern else {})}
    return {"description": description, "required": required, "schema": schema}


#: What the answers of a status always say, wherever they come from.
_HEADERS = {
    401: {"WWW-Authenticate": _header("how to log in")},
    416: {"Content-Range": _header("the object's size", r"^bytes \*/\d+$")},
    429: {"Retry-After": _header("seconds", r"^[1-9]\d*$")},
}


async def document(request: Request) -> Response:
    """``/openapi.json``."""
    exchange_of(request.scope).outcome = "openapi"
    return JSONResponse(DOCUMENT)


def _refusals(*statuses: int) -> _Json:
    schema = {"$ref": "#/components/schemas/Refusal"}
    return {
        str(status): {
            "description": _MEANINGS[status],
            "headers": _HEADERS.get(status, {}),
            "content": {"application/json": {"schema": schema}},
        }
        for status in statuses
    }


def _answers(description: str, schema: _Json) -> _Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _resolve(what: str) -> _Json:
    parameters = [
        {
            "name": "number",
            "in": "path",
            "required": True,
            "description": f"id of the {what}",
            "schema": {"type": "integer", "minimum": 1, "maximum": _MAX_ID},
        },
        {
            "name": "fileuri",
            "in": "query",
            "required": True,
            "description": "base64url of the object's URI, padded or not; or the URI, quoted",
            "schema": {"type": "string", "minLength": 1, "maxLength": 8192},
        },
        *(
            {"name": name, "in": "query", "description": text, "schema": {"type": kind}}
            for name, kind, text in (
                ("user", "integer", "of a signed link: whom it was made for"),
                ("expires", "integer", "of a signed link: until when, in Unix seconds"),
                ("signature", "string", "of a signed link"),
            )
        ),
        *(
            {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}
            for name, text in (
                ("Range", "one range of bytes; the answer may hold fewer of them"),
                ("If-Range", "an ETag or date: the whole object if it is not of that version"),
                ("If-None-Match", "ETags: 304 if the object is of one of them"),
                ("If-Match", "ETags: 412 unless the object is of one of them"),
                ("If-Modified-Since", "a date: 304 unless the object is newer"),
                ("If-Unmodified-Since", "a date: 412 if the object is newer"),
            )
        ),
    ]
    body = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
    etag = {"ETag": _header("the user's own, of this version", r'^"[^"]+"$', required=False)}
    told = {**etag, "Accept-Ranges": _header("of bytes", "^bytes$")}
    part = _header("which bytes these are, of how many", r"^bytes \d+-\d+/\d+$")
    location = {"Location": _header("a signed URL", "^https?://")}
    answers: _Json = {
        "200": {"description": "The whole object.", "headers": told, "content": body},
        "206": {
            "description": "A part of it, of limited size.",
            "headers": {**told, "Content-Range": part},
            "content": body,
        },
        "303": {"description": "It is at Location.", "headers": location},
        "304": {"description": "The copy at hand is still good.", "headers": etag},
        **_refusals(400, 401, 403, 404, 412, 416, 429, 500, 502, 503, 504),
    }
    bare = {
        status: {name: value for name, value in answer.items() if name != "content"}
        for status, answer in answers.items()
        if status not in ("206", "303", "416")
    }
    return {
        "parameters": parameters,
        "get": {"summary": f"An object that a {what} refers to", "responses": answers},
        "head": {"summary": "The same without a body", "responses": bare},
    }


def _session() -> _Json:
    text = {"type": "string"}
    return {
        "post": {
            "summary": "Log in: a token becomes a cookie",
            "security": [{"token": []}, {}],
            "requestBody": {
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "properties": {"token": text},
                            "required": ["token"],
                            "additionalProperties": False,
                        }
                    }
                }
            },
            "responses": {
                "201": _answers(
                    f"Logged in; the cookie {COOKIE} is set.",
                    {
                        "type": "object",
                        "properties": {"user": text, "expires_at": text},
                        "required": ["user", "expires_at"],
                    },
                ),
                **_refusals(400, 401, 413, 429, 500, 503),
            },
        },
        "delete": {
            "summary": "Log out",
            "security": [{"session": []}, {}],
            "responses": {"204": {"description": "Logged out."}, **_refusals(429, 500, 503)},
        },
    }


def _webhook() -> _Json:
    count = {"type": "integer", "minimum": 0}
    names = ("created", "updated", "deleted", "ignored")
    return {
        "post": {
            "summary": "Take annotations that a labeling tool tells of",
            "security": [{"token": []}],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Event"}}},
            },
            "responses": {
                "200": _answers(
                    "What came of it. The same event again changes nothing more.",
                    {
                        "type": "object",
                        "properties": dict.fromkeys(names, count),
                        "required": list(names),
                    },
                ),
                **_refusals(400, 401, 404, 413, 422, 429, 500, 503),
            },
        }
    }


def _told(summary: str, media: str, *refusals: int) -> _Json:
    schema: _Json = {"type": "object"} if media == "application/json" else {"type": "string"}
    answer = {"description": summary, "content": {media: {"schema": schema}}}
    return {
        "get": {
            "summary": summary,
            "security": [],
            "responses": {"200": answer, **_refusals(*refusals, 500)},
        }
    }


_TASK_ID: _Json = {"type": ["integer", "null"], "minimum": 1, "maximum": _MAX_ID}
_NAMED: _Json = {
    "id": {
        "description": "the tool's own",
        "anyOf": [
            {"type": "integer", "minimum": 0, "maximum": _MAX_ID},
            {"type": "string", "minLength": 1, "maxLength": 200},
        ],
    },
    "task": _TASK_ID,
}


def _object(properties: _Json, *required: str) -> _Json:
    return {"type": "object", "properties": properties, "required": list(required)}


def _one_or_many(schema: _Json) -> _Json:
    return {"anyOf": [schema, {"type": "array", "items": schema}, {"type": "null"}]}


def _event(actions: Sequence[str], annotation: _Json, **more: _Json) -> _Json:
    many = _one_or_many(annotation)
    properties = {"action": {"enum": list(actions)}, "annotation": many, "annotations": many}
    either = [{"required": ["annotation"]}, {"required": ["annotations"]}]
    return {**_object(properties | more, "action"), "anyOf": either}


_EVENT: _Json = {
    "description": (
        "As labeling tools send it; what is not known here is ignored. An annotation belongs to "
        "the task that labelport_task in its task's meta names, else to the one of its task's id."
    ),
    "oneOf": [
        _event(
            webhooks.SAVED,
            _object({**_NAMED, "result": {"type": "array"}}, "id", "result"),
            task=_one_or_many(_object({"id": _TASK_ID, "meta": {}})),
        ),
        _event(webhooks.DELETED, _object(_NAMED, "id")),
        {
            "description": "of something else: ignored",
            **_object(
                {
                    "action": {
                        "type": "string",
                        "not": {"enum": [*webhooks.SAVED, *webhooks.DELETED]},
                    }
                },
                "action",
            ),
        },
    ],
}

DOCUMENT: _Json = {
    "openapi": "3.1.0",
    "info": {
        "title": "Labelport's storage proxy",
        "version": __version__,
        "description": "Media of labeling tasks, for those who may see them.",
        "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
    },
    "security": [{"token": []}, {"session": []}, {}],
    "paths": {
        "/tasks/{number}/resolve/": _resolve("task"),
        "/projects/{number}/resolve/": _resolve("project"),
        "/session": _session(),
        "/webhooks/annotations": _webhook(),
        "/healthz": _told("The process lives", "application/json"),
        "/readyz": _told("The process can serve", "application/json", 503),
        "/metrics": _told("Numbers for Prometheus", "text/plain", 401),
        "/openapi.json": _told("This document", "application/json"),
    },
    "components": {
        "securitySchemes": {
            "token": {"type": "http", "scheme": "bearer"},
            "session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
        },
        "schemas": {
            "Refusal": {
                "type": "object",
                "properties": {
                    "error": {"type": "string"},
                    "detail": {"type": "string"},
                    "request_id": {"type": "string"},
                },
                "required": ["error", "detail", "request_id"],
            },
            "Event": _EVENT,
        },
    },
}
