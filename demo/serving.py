"""The storage proxy at work: who gets which object, which way, and who does not."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import NamedTuple

import httpx

from demo import annotating, screen
from demo.bucket import BUCKET
from demo.media import Medium, pictures, sounds
from demo.proxy import Proxy
from labelport.catalog import Catalog, storages, tasks, tokens, users
from labelport.links import signed_url
from labelport.model import Role, Storage
from labelport.resolving import proxy_url, resolve

_MEMBER = annotating.ANNOTATORS[0]
_STRANGER = "eve@example.org"
_DAY_SECONDS = 86_400
_LAST_BYTES = 1000
_ALL_TASKS = 1000  # more than the task files hold


class Visit(NamedTuple):
    """Somebody asked for something."""

    who: str
    what: str
    status: int
    came: str  #: what came of it


class _Wanted(NamedTuple):
    """An object that a task refers to, and the file that it was made of."""

    task_id: int
    uri: str
    medium: Medium


def serve_all(opened: Catalog, proxy: Proxy, files: Storage) -> str:
    """Ask the proxy as several people; a link to a picture, good for a day.

    Raises RuntimeError when an answer is not as it must be.
    """
    member, stranger = _let_in(opened, files.project_id)
    picture = _wanted(opened, files, "question", "image", {m.key: m for m in pictures()})
    sound = _wanted(opened, files, "licence", "audio", {m.key: m for m in sounds()})
    _show_data(opened, proxy, sound.task_id)
    link = _signed(opened, proxy, picture)
    with httpx.Client(base_url=proxy.url, trust_env=False) as client:
        screen.show_visits(
            [
                _redirected(client, "member", picture, _url(picture), member),
                _streamed(client, sound, member),
                _part(client, sound, member),
                _refused(
                    *(client, "member", "a text beside it", 403, member),
                    proxy_url("", "tasks", picture.task_id, f"s3://{BUCKET}/media/LICENCES.txt"),
                ),
                _refused(client, "stranger", "the picture", 404, stranger, _url(picture)),
                _redirected(client, "signed link", picture, link, None),
            ]
        )
    return link


def _let_in(opened: Catalog, project_id: int) -> tuple[str, str]:
    """Make a member of the project and a stranger; a token of each."""
    with opened.begin() as connection:
        member, stranger = (users.add(connection, email) for email in (_MEMBER, _STRANGER))
        users.join(connection, member.id, project_id, Role.ANNOTATOR)
        create = partial(tokens.create, connection, name="demonstration", seconds=_DAY_SECONDS)
        return create(member.id)[1], create(stranger.id)[1]


def _wanted(
    opened: Catalog, files: Storage, sign: str, name: str, media: dict[str, Medium]
) -> _Wanted:
    """What the first task refers to by *name* that has a *sign* in its data."""
    with opened.read() as connection:
        found = tasks.page(connection, storage_id=files.id, limit=_ALL_TASKS)
    for task in found:
        data = json.loads(task.data)
        if sign in data and name in data:
            uri = data[name]
            return _Wanted(task.id, uri, media[uri.removeprefix(f"s3://{BUCKET}/")])
    raise RuntimeError(f"no task has {sign} and {name}")


def _show_data(opened: Catalog, proxy: Proxy, task_id: int) -> None:
    """A task's data as a labeling program would get it."""
    with opened.read() as connection:
        task = tasks.get(connection, task_id).task
        known = storages.list_all(connection, task.project_id)
    data = json.loads(task.data)
    resolved = resolve(data, known, partial(proxy_url, proxy.url, "tasks", task_id))
    screen.show_data(task_id, data, resolved.data)


def _signed(opened: Catalog, proxy: Proxy, wanted: _Wanted) -> str:
    with opened.read() as connection:
        user = users.get(connection, _MEMBER)
    return signed_url(
        proxy.url,
        "tasks",
        wanted.task_id,
        wanted.uri,
        secret=proxy.secret,
        user_id=user.id,
        expires=int(time.time()) + _DAY_SECONDS,
    )


def _url(wanted: _Wanted) -> str:
    return proxy_url("", "tasks", wanted.task_id, wanted.uri)


def _redirected(
    client: httpx.Client, who: str, wanted: _Wanted, url: str, token: str | None
) -> Visit:
    answer = _ask(client, url, 303, token)
    with httpx.Client(trust_env=False) as browser:
        found = _ask(browser, answer.headers["location"], 200, None)
    _compare(found, wanted.medium.path.read_bytes())
    return Visit(who, "a picture", 303, _described(found, "from the S3 server"))


def _streamed(client: httpx.Client, wanted: _Wanted, token: str) -> Visit:
    answer = _ask(client, _url(wanted), 200, token)
    _compare(answer, wanted.medium.path.read_bytes())
    return Visit("member", "a sound", 200, _described(answer, "from the proxy"))


def _part(client: httpx.Client, wanted: _Wanted, token: str) -> Visit:
    answer = _ask(client, _url(wanted), 206, token, Range=f"bytes=-{_LAST_BYTES}")
    _compare(answer, wanted.medium.path.read_bytes()[-_LAST_BYTES:])
    return Visit("member", "the end of the sound", 206, answer.headers["content-range"])


def _refused(client: httpx.Client, who: str, what: str, status: int, token: str, url: str) -> Visit:
    refusal = _ask(client, url, status, token).json()
    return Visit(who, what, status, f"{refusal['error']}: {refusal['detail']}")


def _ask(
    client: httpx.Client, url: str, status: int, token: str | None, **headers: str
) -> httpx.Response:
    if token:
        headers["Authorization"] = f"Bearer {token}"
    answer = client.get(url, headers=headers)
    if answer.status_code != status:
        raise RuntimeError(
            f"the proxy was to answer {status}: {answer.status_code} {answer.text[:500]}"
        )
    return answer


def _compare(answer: httpx.Response, expected: bytes) -> None:
    if answer.content != expected:
        raise RuntimeError(f"{len(answer.content)} bytes came that are not the object's")


def _described(answer: httpx.Response, source: str) -> str:
    return f"{len(answer.content):,} bytes {source}, {answer.headers['content-type']}"
